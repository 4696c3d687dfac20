//! Gives the bytes of chunks back that nobody counts on any more: a file that holds no other chunk goes, of others the range is
//! punched out.
//!
//! That happens only after the record that lets go is durable. Who reads a blob that has left the store counts on its chunks
//! until he is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;

use windlass_protocol::Digest;

use super::table::{Freed, Table};
use super::{FileNo, file_path};
use crate::error::{Fault, OrFault as _};
use crate::index::{Pin, Place};
use crate::store::Shared;
use crate::vfs::Vfs;

/// A blob that has left the index while somebody may still read it.
#[derive(Debug)]
pub(crate) struct Departing {
    pin: Pin,
    chunks: Vec<Digest>,
}

impl Shared {
    /// Gives back what a blob takes that has left the index, durably: at once, or when its last reader is done.
    pub(crate) fn give_back(&self, digest: &Digest, place: Place, pin: Pin) -> Result<(), Fault> {
        match place {
            Place::Small { .. } => Ok(()),
            Place::Large { .. } => {
                let path = self.large_path(digest);
                match self.vfs.remove(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other.or_fault("removing", &path),
                }
            }
            Place::Chunked { segment, offset, .. } => {
                let manifest = self.read_manifest(digest, segment, offset);
                let Ok(Some(manifest)) = manifest else {
                    // One that cannot be read keeps its chunks until the next start, which counts anew.
                    self.chunks.table().doubt();
                    return manifest.and_then(|_| self.sweep());
                };
                let chunks: Vec<Digest> = manifest.chunks().iter().map(|chunk| chunk.digest).collect();
                self.chunks.table().depart(&chunks);
                self.chunks.departing().push(Departing { pin, chunks });
                self.sweep()
            }
        }
    }

    /// Gives back what departed blobs took that nobody reads any more.
    pub(crate) fn sweep(&self) -> Result<(), Fault> {
        let unread: Vec<_> = self.chunks.departing().extract_if(.., |departing| !departing.pin.shared()).collect();
        for departing in unread {
            self.release_chunks(&departing.chunks)?;
        }
        Ok(())
    }

    /// Holds chunks no more, each as often as it is named.
    pub(crate) fn release_chunks(&self, chunks: &[Digest]) -> Result<(), Fault> {
        if chunks.is_empty() {
            return Ok(());
        }
        let freed = self.chunks.table().release_held(chunks);
        // What is not given back here is found by a start that looks at all files.
        self.free(freed).inspect_err(|_| self.chunks.table().doubt())
    }

    /// Gives ranges of chunk files back to the disk.
    pub(crate) fn free(&self, freed: Vec<Freed>) -> Result<(), Fault> {
        let mut by_file: BTreeMap<FileNo, Vec<(u64, u64)>> = BTreeMap::new();
        for Freed { file, offset, bytes } in freed {
            by_file.entry(file).or_default().push((offset, bytes));
        }
        for (file, ranges) in by_file {
            let path = self.chunk_path(file);
            let used = self.chunks.table().uses_file(file);
            if used {
                let punched = punch(&*self.vfs, &path, &merged(ranges)).or_fault("punching", &path)?;
                self.chunks.table().punched(file, punched);
            } else {
                match self.vfs.remove(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other.or_fault("removing", &path)?,
                }
                self.chunks.table().forget_file(file);
                self.index_mut().accounts_mut().unlist(file);
            }
        }
        Ok(())
    }
}

/// At open: removes uploads that never ended and files that no blob counts on, and gives back what is unused of the others.
///
/// Where segments are damaged their records may be what was lost: then nothing is removed but uploads. `new` are the files of which
/// it is not known that all was given back that is unused, where that is known of the others.
pub(crate) fn tidy(
    vfs: &dyn Vfs,
    dir: &Path,
    (names, files): (&[String], &BTreeMap<FileNo, u64>),
    table: &mut Table,
    (damaged, new): (bool, Option<&BTreeSet<FileNo>>),
) -> Result<(), Fault> {
    for name in names.iter().filter(|name| name.starts_with("tmp-")) {
        let path = dir.join(name);
        vfs.remove(&path).or_fault("removing", &path)?;
    }
    if damaged {
        return Ok(());
    }
    let freed: HashSet<FileNo> = table.drop_uncounted().iter().map(|freed| freed.file).collect();
    let looked_at = |file: &FileNo| new.is_none_or(|new| new.contains(file) || freed.contains(file));
    let lengths: HashMap<FileNo, u64> =
        files.iter().filter(|(file, _)| looked_at(file)).map(|(file, bytes)| (*file, *bytes)).collect();
    let listings = if lengths.is_empty() { Vec::new() } else { table.listings(&lengths) };
    for file in files.keys().filter(|file| !table.uses_file(**file)).copied().collect::<Vec<_>>() {
        let path = file_path(dir, file);
        match vfs.remove(&path) {
            // It is in the bucket alone.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.or_fault("removing", &path)?,
        }
        table.forget_file(file);
    }
    for listing in listings {
        let mut end = 0;
        let mut unused = Vec::new();
        for (_, place) in &listing.chunks {
            unused.push((end, place.offset - end));
            end = place.offset + u64::from(place.stored_bytes);
        }
        unused.push((end, listing.file_bytes - end));
        let path = file_path(dir, listing.file);
        let punched = punch(vfs, &path, &merged(unused)).or_fault("punching", &path)?;
        table.punched(listing.file, punched);
    }
    Ok(())
}

/// Ranges in order, those that touch made one, without empty ones.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (offset, bytes) in ranges.into_iter().filter(|(_, bytes)| *bytes > 0) {
        match merged.last_mut() {
            Some((start, len)) if *start + *len == offset => *len += bytes,
            _ => merged.push((offset, bytes)),
        }
    }
    merged
}

/// Punches ranges out of a file; answers how many bytes that gave back. Where the file system cannot, none: they come back
/// with the file.
fn punch(vfs: &dyn Vfs, path: &Path, ranges: &[(u64, u64)]) -> io::Result<u64> {
    if ranges.is_empty() {
        return Ok(0);
    }
    let file = match vfs.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut punched = 0;
    for (offset, bytes) in ranges {
        match file.punch(*offset, *bytes) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(punched),
            other => other?,
        }
        punched += bytes;
    }
    Ok(punched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(merged(vec![(10, 5), (0, 4), (15, 1), (4, 0), (20, 2), (4, 1)]), [(0, 5), (10, 6), (20, 2)]);
    }
}
