//! What files hashed to when they were last seen, so that an unchanged tree is not read again.
//!
//! An entry counts only while size, modification time, change time, inode and device are those of the file, and only if
//! the file had been left alone for a while before it was hashed: one that was written in the same tick of the file
//! system's clock could change again without its times telling ("racily clean").
//!
//! ```text
//! "WLSTAT" 0x01 0, taken_at_ns i64, count u32, then for each entry: path length u32, path, size u64, mtime_ns i64,
//! ctime_ns i64, inode u64, device u64, digest 32 bytes; BLAKE3 of all that (little-endian)
//! ```
//! A cache that does not read is no cache: it is taken anew.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use windlass_protocol::Digest;

const MAGIC: [u8; 8] = *b"WLSTAT\x01\0";

/// Clocks of local file systems tick every 1 to 10 ms.
const TICK_NS: i64 = 50_000_000;

/// Where times are whole seconds the file system keeps no finer ones (some keep every other second).
const COARSE_TICK_NS: i64 = 2_100_000_000;

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    device: u64,
}

impl Stat {
    pub(super) fn of(meta: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
        }
    }

    fn settled_before(&self, taken_at_ns: i64) -> bool {
        let whole_seconds = self.mtime_ns % 1_000_000_000 == 0 && self.ctime_ns % 1_000_000_000 == 0;
        let tick_ns = if whole_seconds { COARSE_TICK_NS } else { TICK_NS };
        self.mtime_ns.max(self.ctime_ns).saturating_add(tick_ns) < taken_at_ns
    }
}

/// Paths, relative to the root, with what they were and hashed to.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    entries: HashMap<PathBuf, (Stat, Digest)>,
    taken_at_ns: i64,
}

impl StatCache {
    /// The cache in a file; an empty one where there is none that reads.
    pub(super) fn load(path: &Path) -> Self {
        match fs::read(path) {
            Ok(bytes) => Self::decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "stat_cache_unreadable");
                Self::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "stat_cache_unreadable");
                }
                Self::default()
            }
        }
    }

    /// What the file hashed to, if it cannot have changed since.
    pub(super) fn get(&self, path: &Path, stat: &Stat) -> Option<Digest> {
        let (seen, digest) = self.entries.get(path)?;
        (seen == stat && seen.settled_before(self.taken_at_ns)).then_some(*digest)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Writes what a snapshot saw that began at `taken_at_ns`; readers see the old cache or the new one.
    pub(super) fn save(
        path: &Path,
        taken_at_ns: i64,
        entries: &mut dyn ExactSizeIterator<Item = (&Path, &Stat, Digest)>,
    ) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&taken_at_ns.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (path, stat, digest) in entries {
            let path = path.as_os_str().as_bytes();
            bytes.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(&stat.size.to_le_bytes());
            bytes.extend_from_slice(&stat.mtime_ns.to_le_bytes());
            bytes.extend_from_slice(&stat.ctime_ns.to_le_bytes());
            bytes.extend_from_slice(&stat.inode.to_le_bytes());
            bytes.extend_from_slice(&stat.device.to_le_bytes());
            bytes.extend_from_slice(digest.as_bytes());
        }
        let seal = Digest::of(&bytes);
        bytes.extend_from_slice(seal.as_bytes());
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let mut file = fs::File::create(&temporary)?;
        let written = file.write_all(&bytes).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            fs::remove_file(&temporary)?;
        }
        written
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, seal) = bytes.split_last_chunk::<32>()?;
        if Digest::of(body).as_bytes() != seal {
            return None;
        }
        let mut rest = body.strip_prefix(&MAGIC)?;
        let taken_at_ns = i64::from_le_bytes(take(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?);
        let mut entries = HashMap::new();
        for _ in 0..count {
            let len = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (path, after) = rest.split_at_checked(len)?;
            rest = after;
            let stat = Stat {
                size: u64::from_le_bytes(take(&mut rest)?),
                mtime_ns: i64::from_le_bytes(take(&mut rest)?),
                ctime_ns: i64::from_le_bytes(take(&mut rest)?),
                inode: u64::from_le_bytes(take(&mut rest)?),
                device: u64::from_le_bytes(take(&mut rest)?),
            };
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
            entries.insert(path, (stat, Digest::from_bytes(take(&mut rest)?)));
        }
        rest.is_empty().then_some(Self { entries, taken_at_ns })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, PathBuf, Stat) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let stat = Stat { size: 3, mtime_ns: 1_000_000_001, ctime_ns: 1_000_000_002, inode: 7, device: 8 };
        (dir, path, stat)
    }

    fn save(path: &Path, taken_at_ns: i64, stat: &Stat) {
        StatCache::save(path, taken_at_ns, &mut [(Path::new("a/b"), stat, Digest::of(b"x"))].into_iter()).unwrap();
    }

    #[test]
    fn an_entry_counts_for_the_same_file_that_had_settled_before_it_was_hashed() {
        let (_dir, path, stat) = sample();
        save(&path, 2_000_000_000, &stat);
        let get = |stat: &Stat| StatCache::load(&path).get(Path::new("a/b"), stat);
        assert_eq!(get(&stat), Some(Digest::of(b"x")));
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
        save(&path, 2_000_000_000, &coarse);
        assert_eq!(get(&coarse), None, "times of whole seconds tell less");
    }

    #[test]
    fn a_cache_that_was_cut_or_changed_is_no_cache() {
        let (_dir, path, stat) = sample();
        save(&path, 2_000_000_000, &stat);
        let whole = fs::read(&path).unwrap();
        assert_eq!(StatCache::load(&path).len(), 1);
        for at in 0..whole.len() {
            assert!(StatCache::decode(&whole[..at]).is_none());
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(StatCache::decode(&flipped).is_none());
        }
    }
}
