//! What files hashed to when they were last seen, so that an unchanged tree is not read again.
//!
//! An entry counts only while size, modification time, change time, inode and device are those of the file, and only if
//! the file had been left alone for a while before it was hashed: one that was written in the same tick of the file
//! system's clock could change again without its times telling ("racily clean"). A clock that stands before the moment at
//! which the cache was taken was put back since, and may give a time a second time: then nothing counts.
//!
//! ```text
//! "WLSTAT" 0x02 0, taken_at_ns i64, count of directories u32, then for each: path length u32, path relative to the root,
//! bytes of its entries u32, and these, sorted by name: name length u16, name, size u64, mtime_ns i64, ctime_ns i64,
//! inode u64, device u64, digest 32 bytes; BLAKE3 of all that (little-endian)
//! ```
//! Such sections follow one another: after the first, which has every directory, those with directories of which files had to be
//! read since; a later one counts. So a tree with one change costs one directory's entries, and not all of them. When the
//! later ones come to a part of the first, all is written anew. What does not read, and all after it, is no cache: it is taken anew.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use windlass_protocol::Digest;
use windlass_protocol::limits::{FILE_TICK_COARSE_MS, FILE_TICK_MS, STAT_CACHE_LATER_PART};

const MAGIC: [u8; 8] = *b"WLSTAT\x02\0";

const TICK_NS: i64 = FILE_TICK_MS * 1_000_000;

const COARSE_TICK_NS: i64 = FILE_TICK_COARSE_MS * 1_000_000;

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    device: u64,
}

impl Stat {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        // Seconds and nanoseconds have another type on each platform.
        let ns = |seconds: i128, ns: i128| i64::try_from(seconds * 1_000_000_000 + ns).unwrap_or(i64::MAX);
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: ns(i128::from(stat.st_mtime), i128::from(stat.st_mtime_nsec)),
            ctime_ns: ns(i128::from(stat.st_ctime), i128::from(stat.st_ctime_nsec)),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }

    fn settled_before(&self, taken_at_ns: i64) -> bool {
        let whole_seconds = self.mtime_ns % 1_000_000_000 == 0 && self.ctime_ns % 1_000_000_000 == 0;
        let tick_ns = if whole_seconds { COARSE_TICK_NS } else { TICK_NS };
        self.mtime_ns.max(self.ctime_ns).saturating_add(tick_ns) < taken_at_ns
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.mtime_ns.to_le_bytes());
        out.extend_from_slice(&self.ctime_ns.to_le_bytes());
        out.extend_from_slice(&self.inode.to_le_bytes());
        out.extend_from_slice(&self.device.to_le_bytes());
    }

    fn take(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            size: u64::from_le_bytes(take(rest)?),
            mtime_ns: i64::from_le_bytes(take(rest)?),
            ctime_ns: i64::from_le_bytes(take(rest)?),
            inode: u64::from_le_bytes(take(rest)?),
            device: u64::from_le_bytes(take(rest)?),
        })
    }
}

/// What was known of the files of each directory.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    bytes: Vec<u8>,
    /// Where the entries of each directory are.
    directories: HashMap<Vec<u8>, (Range<usize>, i64)>,
    /// When the last of it was taken.
    taken_at_ns: i64,
    /// Bytes of the first section.
    first_bytes: usize,
    /// Nothing of the file does not read.
    whole: bool,
}

/// What may be added to a cache's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room(usize);

/// What was known of the files of one directory; they are asked for by rising names.
#[derive(Debug)]
pub(super) struct Known<'a> {
    rest: &'a [u8],
    taken_at_ns: i64,
}

impl Known<'_> {
    /// What the file hashed to, if it cannot have changed since.
    pub(super) fn digest(&mut self, name: &[u8], stat: &Stat) -> Option<Digest> {
        while !self.rest.is_empty() {
            let mut rest = self.rest;
            let (known, seen, digest) = entry(&mut rest)?;
            match known.cmp(name) {
                Ordering::Less => self.rest = rest,
                Ordering::Equal => {
                    self.rest = rest;
                    return (seen == *stat && seen.settled_before(self.taken_at_ns)).then_some(digest);
                }
                Ordering::Greater => return None,
            }
        }
        None
    }
}

fn entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Stat, Digest)> {
    let len = usize::from(u16::from_le_bytes(take(rest)?));
    let name = slice(rest, len)?;
    Some((name, Stat::take(rest)?, Digest::from_bytes(take(rest)?)))
}

impl StatCache {
    /// The cache in a file, as it counts at `now_ns`; an empty one where there is none that reads.
    pub(super) fn load(path: &Path, now_ns: i64) -> Self {
        let cache = match fs::read(path) {
            Ok(bytes) => Self::decode(bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "stat_cache_unreadable");
                Self::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "stat_cache_unreadable");
                }
                Self::default()
            }
        };
        if now_ns < cache.taken_at_ns {
            tracing::info!(path = %path.display(), "stat_cache_from_the_future");
            return Self::default();
        }
        cache
    }

    /// What was known of the files in a directory.
    pub(super) fn directory(&self, path: &[u8]) -> Known<'_> {
        let known = self.directories.get(path).and_then(|(range, at)| Some((self.bytes.get(range.clone())?, *at)));
        let (rest, taken_at_ns) = known.unwrap_or_default();
        Known { rest, taken_at_ns }
    }

    /// How much may be added to its file; nothing where it is to be written anew.
    pub(super) fn room(&self) -> Option<Room> {
        let later = self.bytes.len().checked_sub(self.first_bytes)?;
        let most = self.first_bytes / STAT_CACHE_LATER_PART;
        (self.whole && self.first_bytes > 0).then(|| Room(most.saturating_sub(later)))
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let mut cache = Self::default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let from = bytes.len() - rest.len();
            let Some(Section { taken_at_ns, directories, after }) = section(rest, from) else { break };
            cache.taken_at_ns = cache.taken_at_ns.max(taken_at_ns);
            cache.directories.extend(directories.into_iter().map(|(path, range)| (path, (range, taken_at_ns))));
            rest = after;
            if cache.first_bytes == 0 {
                cache.first_bytes = bytes.len() - rest.len();
            }
        }
        cache.whole = rest.is_empty();
        cache.bytes = bytes;
        (cache.first_bytes > 0).then_some(cache)
    }
}

/// A section that reads, and what comes after it.
struct Section<'a> {
    taken_at_ns: i64,
    directories: Vec<(Vec<u8>, Range<usize>)>,
    after: &'a [u8],
}

/// The section that `bytes` begin with, which are themselves at `from` in their file.
fn section(bytes: &[u8], from: usize) -> Option<Section<'_>> {
    let mut rest = bytes.strip_prefix(&MAGIC)?;
    let taken_at_ns = i64::from_le_bytes(take(&mut rest)?);
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut directories = Vec::new();
    for _ in 0..count {
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let path = slice(&mut rest, len)?.to_vec();
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let at = from + bytes.len() - rest.len();
        slice(&mut rest, len)?;
        directories.push((path, at..at + len));
    }
    let body = bytes.get(..bytes.len() - rest.len())?;
    let seal: [u8; 32] = take(&mut rest)?;
    (*Digest::of(body).as_bytes() == seal).then_some(Section { taken_at_ns, directories, after: rest })
}

/// A cache that is being written down.
#[derive(Debug)]
pub(super) struct StatCacheWriter {
    bytes: Vec<u8>,
    directories: u32,
}

/// Where the count of directories stands.
const COUNT_AT: usize = MAGIC.len() + 8;

impl StatCacheWriter {
    /// Of what a snapshot saw that began at `taken_at_ns`.
    pub(super) fn new(taken_at_ns: i64) -> Self {
        let bytes = [&MAGIC[..], &taken_at_ns.to_le_bytes(), &[0; 4]].concat();
        Self { bytes, directories: 0 }
    }

    /// Adds a directory with its files, sorted by name; `None` where the format cannot hold it.
    pub(super) fn add<'f>(
        &mut self,
        path: &[u8],
        files: impl Iterator<Item = (&'f [u8], &'f Stat, Digest)>,
    ) -> Option<()> {
        self.directories = self.directories.checked_add(1)?;
        self.bytes.extend_from_slice(&u32::try_from(path.len()).ok()?.to_le_bytes());
        self.bytes.extend_from_slice(path);
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        for (name, stat, digest) in files {
            self.bytes.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
            self.bytes.extend_from_slice(name);
            stat.put(&mut self.bytes);
            self.bytes.extend_from_slice(digest.as_bytes());
        }
        let length = u32::try_from(self.bytes.len() - length_at - 4).ok()?;
        self.bytes.get_mut(length_at..length_at + 4)?.copy_from_slice(&length.to_le_bytes());
        Some(())
    }

    /// Seals it.
    fn sealed(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(COUNT_AT..COUNT_AT + 4) {
            count.copy_from_slice(&self.directories.to_le_bytes());
        }
        let seal = Digest::of(&self.bytes);
        self.bytes.extend_from_slice(seal.as_bytes());
        self.bytes
    }

    /// Adds it to the cache of a file where there is room; says whether there was. Another one may be added at the same time, or
    /// the file replaced: each section is true by itself.
    pub(super) fn add_to(self, path: &Path, Room(most): Room) -> io::Result<bool> {
        let sealed = self.sealed();
        if sealed.len() > most {
            return Ok(false);
        }
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        file.write_all(&sealed).map(|()| true)
    }

    /// Writes it to a file; readers see the old cache or the new one.
    pub(super) fn save(self, path: &Path) -> io::Result<()> {
        let bytes = self.sealed();
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        let written = file.write_all(&bytes).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            fs::remove_file(&temporary)?;
        }
        written
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn slice<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const TAKEN_AT_NS: i64 = 2_000_000_000;

    fn sample() -> (tempfile::TempDir, PathBuf, Stat) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let stat = Stat { size: 3, mtime_ns: 1_000_000_001, ctime_ns: 1_000_000_002, inode: 7, device: 8 };
        (dir, path, stat)
    }

    fn save(path: &Path, taken_at_ns: i64, stat: &Stat) {
        let mut writer = StatCacheWriter::new(taken_at_ns);
        writer.add(b"", [].into_iter()).unwrap();
        let files: [&[u8]; 3] = [b"a", b"b", b"d"];
        writer.add(b"a", files.into_iter().map(|name| (name, stat, Digest::of(name)))).unwrap();
        writer.save(path).unwrap();
    }

    #[test]
    fn an_entry_counts_for_the_same_file_that_had_settled_before_it_was_hashed() {
        let (_dir, path, stat) = sample();
        save(&path, TAKEN_AT_NS, &stat);
        let get = |stat: &Stat| StatCache::load(&path, 3 * TAKEN_AT_NS).directory(b"a").digest(b"b", stat);
        assert_eq!(get(&stat), Some(Digest::of(b"b")));
        let others = [
            Stat { size: 4, ..stat },
            Stat { mtime_ns: 1, ..stat },
            Stat { ctime_ns: 1, ..stat },
            Stat { inode: 1, ..stat },
            Stat { device: 1, ..stat },
        ];
        for other in others {
            assert_eq!(get(&other), None);
        }
        save(&path, stat.ctime_ns + TICK_NS, &stat);
        assert_eq!(get(&stat), None, "it changed in the tick in which it was hashed");
        let coarse = Stat { mtime_ns: 1_000_000_000, ctime_ns: 1_000_000_000, ..stat };
        save(&path, TAKEN_AT_NS, &coarse);
        assert_eq!(get(&coarse), None, "times of whole seconds tell less");
    }

    #[test]
    fn names_that_came_or_went_do_not_hide_those_that_stayed() {
        let (_dir, path, stat) = sample();
        save(&path, TAKEN_AT_NS, &stat);
        let cache = StatCache::load(&path, TAKEN_AT_NS);
        let mut known = cache.directory(b"a");
        let mut get = |name: &[u8]| known.digest(name, &stat);
        assert_eq!(
            [get(b"Z"), get(b"aa"), get(b"b"), get(b"c"), get(b"d"), get(b"e")],
            [None, None, Some(Digest::of(b"b")), None, Some(Digest::of(b"d")), None]
        );
        assert_eq!(cache.directory(b"").digest(b"b", &stat), None);
        assert_eq!(cache.directory(b"other").digest(b"b", &stat), None);
    }

    #[test]
    fn nothing_counts_while_the_clock_stands_before_the_cache_was_taken() {
        let (_dir, path, stat) = sample();
        save(&path, TAKEN_AT_NS, &stat);
        let get = |now_ns| StatCache::load(&path, now_ns).directory(b"a").digest(b"b", &stat);
        assert_eq!((get(TAKEN_AT_NS).is_some(), get(TAKEN_AT_NS - 1)), (true, None));
    }

    /// Adds a section in which one file of one directory is another one.
    fn add(path: &Path, taken_at_ns: i64, stat: &Stat, digest: Digest) -> bool {
        let mut writer = StatCacheWriter::new(taken_at_ns);
        writer.add(b"a", [(&b"b"[..], stat, digest)].into_iter()).unwrap();
        let room = StatCache::load(path, i64::MAX).room();
        room.is_some_and(|room| writer.add_to(path, room).unwrap())
    }

    /// A cache of many directories, so that there is room after them.
    fn large(path: &Path, stat: &Stat) {
        let mut writer = StatCacheWriter::new(TAKEN_AT_NS);
        let names: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
        for name in names.iter().map(String::as_str).chain(["a"]) {
            writer.add(name.as_bytes(), [(&b"b"[..], stat, Digest::of(b"b"))].into_iter()).unwrap();
        }
        writer.save(path).unwrap();
    }

    #[test]
    fn a_later_section_counts_for_its_directories_and_they_are_written_anew_before_they_are_many() {
        let (_dir, path, stat) = sample();
        large(&path, &stat);
        let first = fs::read(&path).unwrap().len();
        let other = Stat { size: 9, mtime_ns: TAKEN_AT_NS + 1, ..stat };
        let taken = 2 * TAKEN_AT_NS;
        let mut added = 0;
        while add(&path, taken, &other, Digest::of(b"new")) {
            added += 1;
        }
        let bytes = fs::read(&path).unwrap().len();
        assert!(added > 2 && bytes <= first + first / STAT_CACHE_LATER_PART, "{added}, {bytes} after {first}");
        let cache = StatCache::load(&path, taken);
        let get = |dir: &[u8], stat: &Stat| cache.directory(dir).digest(b"b", stat);
        assert_eq!((get(b"a", &other), get(b"a", &stat)), (Some(Digest::of(b"new")), None));
        assert_eq!(get(b"d7", &stat), Some(Digest::of(b"b")), "the others are as they were");
        // By the first section's time that file had not settled, and no other one may count by the later's.
        let late = Stat { mtime_ns: TAKEN_AT_NS + 1, ..stat };
        assert_eq!(get(b"d7", &late), None);
        assert_eq!(StatCache::load(&path, taken - 1).directories.len(), 0, "taken in the future, a part of it");
    }

    #[test]
    fn of_sections_that_were_cut_or_changed_those_before_count_and_nothing_is_added_after_them() {
        let (_dir, path, stat) = sample();
        large(&path, &stat);
        let first = fs::read(&path).unwrap().len();
        for n in 0..2_u8 {
            assert!(add(&path, TAKEN_AT_NS + i64::from(n), &Stat { size: 9, ..stat }, Digest::of(&[n])));
        }
        let whole = fs::read(&path).unwrap();
        let second = (first + whole.len()) / 2;
        assert!(StatCache::decode(whole.clone()).unwrap().room().is_some());
        for at in first..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [whole[..at].to_vec(), flipped] {
                let is_whole = bytes.len() == first || bytes.len() == second;
                let cache = StatCache::decode(bytes).unwrap();
                let known = cache.directory(b"a").digest(b"b", &Stat { size: 9, ..stat });
                assert_eq!(known, (at >= second).then(|| Digest::of(&[0])), "at {at}");
                assert_eq!((cache.room().is_some(), cache.directories.len()), (is_whole, 41), "at {at}");
            }
        }
    }

    #[test]
    fn a_cache_that_was_cut_or_changed_is_no_cache() {
        let (_dir, path, stat) = sample();
        save(&path, TAKEN_AT_NS, &stat);
        let whole = fs::read(&path).unwrap();
        assert_eq!(StatCache::decode(whole.clone()).unwrap().directories.len(), 2);
        for at in 0..whole.len() {
            assert!(StatCache::decode(whole[..at].to_vec()).is_none());
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(StatCache::decode(flipped).is_none());
        }
    }
}
