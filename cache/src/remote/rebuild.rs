//! A new disk for a store whose bucket is all that is left: what its objects' names and its segments say.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use windlass_protocol::Digest;
use windlass_protocol::limits::{ORIGIN_OBJECTS_MAX, ORIGIN_PART_BYTES};

use super::bones::Boner;
use super::journal::{Copied, Journal};
use super::{Object, Origin, Remote, RemoteError};
use crate::error::{Fault, OrFault as _};
use crate::store::Store;
use crate::vfs::{Vfs, ensure_dir};

/// All objects of a store. Of two that are of one file, as a crash may leave them, both.
pub(super) fn listed(remote: &dyn Remote, store: &str) -> Result<Vec<(Object, Copied)>, RemoteError> {
    let (prefix, mut objects, mut after) = (format!("{store}/"), Vec::new(), None);
    loop {
        let page = remote.list(&prefix, after.as_deref())?;
        let Some(last) = page.last().map(|object| object.key.clone()) else { return Ok(objects) };
        if after.as_ref().is_some_and(|after| last <= *after) || objects.len() > ORIGIN_OBJECTS_MAX {
            return Err(RemoteError::Refused { why: "its listing does not come to an end".to_owned() });
        }
        objects.extend(page.iter().filter_map(|found| {
            let (object, digest) = Object::parse(store, &found.key)?;
            Some((object, Copied { bytes: found.bytes, digest }))
        }));
        after = Some(last);
    }
}

impl Store {
    /// Makes the store's files anew in a directory that has none, for a store of this name in the bucket (the folder of its
    /// objects). Opened with the same bucket it has all that was copied there: blobs and who sees them, less what the last
    /// segment held and what was not copied yet.
    ///
    /// Answers how many objects there are.
    ///
    /// # Errors
    /// [`Fault::InUse`] where a store is there already, [`Fault::Unavailable`] where the bucket does not answer or has no such store.
    pub fn rebuild(vfs: &dyn Vfs, dir: &Path, origin: &Origin, store: &str) -> Result<usize, Fault> {
        let doing = "asking for the objects of";
        let bad_name = || Fault::io("reading the name of", dir, io::Error::from(io::ErrorKind::InvalidInput));
        let id: [u8; 16] = parse(store).ok_or_else(bad_name)?;
        let segments_dir = dir.join("segments");
        ensure_dir(vfs, &segments_dir).or_fault("making", &segments_dir)?;
        let items = vfs.list(&segments_dir).or_fault("listing", &segments_dir)?;
        if items.iter().any(|item| item.name.ends_with(".seg")) || Journal::open(vfs, dir)?.is_some() {
            return Err(Fault::InUse { path: dir.to_owned() });
        }
        let remote = &*origin.remote;
        let objects = listed(remote, store).map_err(|e| e.fault(doing, dir))?;
        if objects.is_empty() {
            let why = format!("the bucket has no objects of a store {store}");
            return Err(Fault::Unavailable { doing, path: dir.to_owned(), why });
        }
        let mut copies = BTreeMap::new();
        let mut next = (0, 0);
        for (object, copied) in objects {
            match object {
                Object::Segment(number) => {
                    next.0 = next.0.max(number.saturating_add(1));
                    if !fetch_bones(vfs, &segments_dir, (remote, store), number, &copied)? {
                        tracing::warn!(number, "origin_segment_damaged");
                        continue;
                    }
                }
                Object::Chunks(number) => next.1 = next.1.max(number.saturating_add(1)),
            }
            copies.insert(object, copied);
        }
        Journal::write(vfs, dir, &id, &copies, next)?;
        Ok(copies.len())
    }
}

fn parse(store: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    let (pairs, []) = store.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (super::away::hex(id) == store).then_some(id)
}

/// Makes the bones of a segment out of its object; says whether that is what its name says.
pub(super) fn fetch_bones(
    vfs: &dyn Vfs,
    dir: &Path,
    (remote, store): (&dyn Remote, &str),
    number: u32,
    copied: &Copied,
) -> Result<bool, Fault> {
    let key = Object::Segment(number).key(store, &copied.digest);
    let mut boner = Boner::new(vfs, dir, number)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < copied.bytes {
        let end = (at + ORIGIN_PART_BYTES as u64).min(copied.bytes);
        let bytes = remote.get(&key, at..end).map_err(|e| e.fault("fetching a segment for", dir))?;
        hasher.update(&bytes);
        at = end;
        match boner.take(&bytes) {
            Err(Fault::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => return Ok(false),
            other => other?,
        }
    }
    if Digest::from_hasher(&hasher) != copied.digest {
        return Ok(false);
    }
    boner.finish(vfs).map(|()| true)
}
