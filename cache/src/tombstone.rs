//! What was let go by policy, when and why: so that whoever misses it hears "was here until 3 h ago" and not "is absent".
//!
//! Remembered by 16 bytes of a hash of namespace and blob, a bounded number, the newest. `DIR/gone` is a copy that is written
//! after each sweep; one that cannot be read is as none, since nothing but words depends on it.
//!
//! ```text
//! "WLGONE" 0x01 0, then for each, oldest first: key 16 bytes, at u64 little-endian, cause u8; BLAKE3 of all of that
//! ```

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use windlass_protocol::limits::TOMBSTONES_MAX;
use windlass_protocol::{Digest, Namespace, WallMs};

use crate::error::{Fault, OrFault as _};
use crate::store::{Shared, Store};
use crate::vfs::Vfs;

const MAGIC: [u8; 8] = *b"WLGONE\x01\0";
const ENTRY_BYTES: usize = 16 + 8 + 1;
const HASH_BYTES: usize = 32;

/// Why a blob went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhyGone {
    /// The namespace had more bytes than it may.
    Size,
    /// Nobody used it for long.
    Age,
}

impl WhyGone {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Size => 1,
            Self::Age => 2,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Size),
            2 => Some(Self::Age),
            _ => None,
        }
    }
}

type Key = [u8; 16];

#[derive(Debug, Clone, Copy)]
struct Tombstone {
    number: u64,
    at: WallMs,
    why: WhyGone,
}

/// Those that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    by_key: HashMap<Key, Tombstone>,
    /// In the order of their going; what went twice stands twice, and counts where its number is.
    order: VecDeque<(u64, Key)>,
    next: u64,
}

fn key(namespace: &Namespace, digest: &Digest) -> Key {
    let mut hasher = blake3::Hasher::new();
    // No name has a NUL in it, and an overlay of none is not one without a name.
    hasher.update(namespace.project.as_bytes()).update(&[0, u8::from(namespace.overlay.is_some())]);
    hasher.update(namespace.overlay.as_deref().unwrap_or_default().as_bytes()).update(&[0]).update(digest.as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

impl Tombstones {
    pub(crate) fn add(&mut self, namespace: &Namespace, digest: &Digest, at: WallMs, why: WhyGone) {
        self.insert(key(namespace, digest), at, why);
    }

    fn insert(&mut self, key: Key, at: WallMs, why: WhyGone) {
        let number = self.next;
        self.next += 1;
        self.by_key.insert(key, Tombstone { number, at, why });
        self.order.push_back((number, key));
        while self.order.len() > TOMBSTONES_MAX {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.by_key.get(&key).is_some_and(|tombstone| tombstone.number == number) {
                self.by_key.remove(&key);
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (number, key) in &self.order {
            let Some(tombstone) = self.by_key.get(key).filter(|tombstone| tombstone.number == *number) else {
                continue;
            };
            out.extend_from_slice(key);
            out.extend_from_slice(&tombstone.at.0.to_le_bytes());
            out.push(tombstone.why.byte());
        }
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
        if blake3::hash(body) != *hash {
            return None;
        }
        let entries = body.strip_prefix(&MAGIC)?;
        let mut tombstones = Self::default();
        for entry in entries.chunks(ENTRY_BYTES) {
            let (key, rest) = entry.split_first_chunk::<16>()?;
            let (at, rest) = rest.split_first_chunk::<8>()?;
            let [why] = rest else { return None };
            tombstones.insert(*key, WallMs(u64::from_le_bytes(*at)), WhyGone::of(*why)?);
        }
        Some(tombstones)
    }

    /// What was written before; nothing where that cannot be read.
    pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Self {
        let path = path(dir);
        let read = || {
            let file = vfs.open_read(&path)?;
            let most = MAGIC.len() + TOMBSTONES_MAX * ENTRY_BYTES + HASH_BYTES;
            let len = usize::try_from(file.len()?).ok().filter(|len| *len <= most).ok_or(io::ErrorKind::InvalidData)?;
            let mut bytes = vec![0; len];
            file.read_exact_at(0, &mut bytes)?;
            Self::decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        read().unwrap_or_else(|error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "tombstones_forgotten");
            }
            Self::default()
        })
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("gone")
}

impl Store {
    /// Whether a blob was let go by policy where this namespace looks, when and why; `None` too where that is too long ago to
    /// be remembered, or where the blob came again.
    #[must_use]
    pub fn gone(&self, namespace: &Namespace, digest: &Digest) -> Option<(WhyGone, WallMs)> {
        if self.shared.index().visible(namespace, digest).is_some() {
            return None;
        }
        let trusted = namespace.overlay.is_some().then(|| Namespace::trusted(&namespace.project));
        let tombstones = self.shared.tombstones.lock().unwrap_or_else(PoisonError::into_inner);
        let places = [Some(namespace), trusted.as_ref()].into_iter().flatten();
        let found = places.filter_map(|place| tombstones.by_key.get(&key(place, digest)));
        found.max_by_key(|found| found.at).map(|found| (found.why, found.at))
    }
}

impl Shared {
    /// Writes the copy anew.
    pub(crate) fn write_tombstones(&self) -> Result<(), Fault> {
        let bytes = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).encode();
        let (path, new) = (path(&self.dir), self.dir.join("gone.new"));
        let written = || {
            match self.vfs.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let file = self.vfs.create(&new)?;
            file.write_at(0, &bytes)?;
            // Not synced: one that a crash tore is known by its hash.
            self.vfs.rename(&new, &path)
        };
        written().or_fault("writing", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::recorded::RecordingFs;

    fn digest(n: usize) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn as_many_as_may_be_are_remembered_and_what_is_written_reads_the_same() {
        let (one, other) = (Namespace::trusted("p"), Namespace::overlay("p", ""));
        let mut tombstones = Tombstones::default();
        for n in 0..TOMBSTONES_MAX + 3 {
            tombstones.add(&one, &digest(n % (TOMBSTONES_MAX + 1)), WallMs(n as u64), WhyGone::Size);
        }
        tombstones.add(&one, &digest(7), WallMs(9), WhyGone::Age);
        let found = |tombstones: &Tombstones, of: &Namespace, n| {
            tombstones.by_key.get(&key(of, &digest(n))).map(|found| (found.at, found.why))
        };
        let again = Tombstones::decode(&tombstones.encode()).unwrap();
        for tombstones in [&tombstones, &again] {
            assert_eq!(found(tombstones, &one, 7), Some((WallMs(9), WhyGone::Age)));
            assert_eq!(found(tombstones, &other, 7), None, "another namespace's");
            assert_eq!(found(tombstones, &one, 2), None, "the oldest are forgotten");
            assert_eq!(found(tombstones, &one, 1).map(|(at, _)| at), Some(WallMs(TOMBSTONES_MAX as u64 + 2)));
            assert!(tombstones.by_key.len() <= TOMBSTONES_MAX);
        }
        // One that went twice is as young as its second going.
        let mut twice = Tombstones::default();
        for at in [1, 2] {
            twice.add(&one, &digest(0), WallMs(at), WhyGone::Size);
        }
        (1..TOMBSTONES_MAX).for_each(|n| twice.add(&one, &digest(n), WallMs(3), WhyGone::Size));
        assert_eq!(found(&twice, &one, 0), Some((WallMs(2), WhyGone::Size)));
        let mut bytes = tombstones.encode();
        bytes[30] ^= 1;
        assert!(Tombstones::decode(&bytes).is_none());
        assert!(Tombstones::decode(&bytes[..40]).is_none() && Tombstones::decode(&[]).is_none());
    }

    #[test]
    fn a_copy_that_is_longer_than_any_is_not_read() {
        let dir = Path::new("/s");
        let read = |entries: usize| {
            let mut bytes = MAGIC.to_vec();
            for n in 0..entries {
                bytes.extend_from_slice(&key(&Namespace::trusted("p"), &digest(n)));
                bytes.extend_from_slice(&[1; 9]);
            }
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            let fs = RecordingFs::new();
            fs.create_dir(dir).unwrap();
            fs.create(&path(dir)).unwrap().write_at(0, &bytes).unwrap();
            Tombstones::read(&fs, dir).by_key.len()
        };
        assert_eq!([read(TOMBSTONES_MAX), read(TOMBSTONES_MAX + 1)], [TOMBSTONES_MAX, 0]);
    }
}
