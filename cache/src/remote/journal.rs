//! The durable record of what was copied to the bucket.
//!
//! ```text
//! head, twice: magic "WLORG\x01\0\0", the store's id (16 bytes), CRC-32 of both, zeros to 64
//! record, 64 bytes: kind u8, zeros   8 number u64   16 length u64   24 BLAKE3 of the file   56 CRC-32 of all before   60 zeros
//! ```
//! All numbers are little-endian. Each record is synced before the next is written, and before its file leaves the disk: so what a
//! crash tears is the last one, of a file that is here. That a copy is gone is said when the journal is written anew; until then
//! it is found out, and deleted, once more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use windlass_protocol::Digest;
use windlass_protocol::limits::{ORIGIN_JOURNAL_MIN_BYTES, ORIGIN_JOURNAL_SHARE};

use super::Object;
use crate::error::{Fault, OrFault as _};
use crate::vfs::{Vfs, VfsFile, ensure_dir};

const MAGIC: [u8; 8] = *b"WLORG\x01\0\0";
const PART_BYTES: usize = 64;
const HEAD_BYTES: u64 = 2 * PART_BYTES as u64;

/// A file's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The file's copy is in the bucket, whole.
    Copied(Object, Copied),
    /// The copy is not needed any more, and may be gone; its number is not given again.
    Gone(Object),
}

impl Entry {
    fn encode(&self) -> [u8; PART_BYTES] {
        let nothing = Copied { bytes: 0, digest: Digest::from_bytes([0; 32]) };
        let (kind, object, copied) = match *self {
            Self::Copied(object, copied) => (0, object, copied),
            Self::Gone(object) => (1, object, nothing),
        };
        let (kind, number) = match object {
            Object::Segment(number) => (kind * 2 + 1, u64::from(number)),
            Object::Chunks(number) => (kind * 2 + 2, number),
        };
        let mut out = [0; PART_BYTES];
        out[0] = kind;
        out[8..16].copy_from_slice(&number.to_le_bytes());
        out[16..24].copy_from_slice(&copied.bytes.to_le_bytes());
        out[24..56].copy_from_slice(copied.digest.as_bytes());
        let crc = crc32fast::hash(&out[..56]);
        out[56..60].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(record: &[u8; PART_BYTES]) -> Option<Self> {
        let u64_at = |at: usize| record.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        if record[56..60] != crc32fast::hash(&record[..56]).to_le_bytes() || record[60..] != [0; 4] {
            return None;
        }
        let number = u64_at(8)?;
        let object = match record[0] {
            1 | 3 => Object::Segment(u32::try_from(number).ok()?),
            2 | 4 => Object::Chunks(number),
            _ => return None,
        };
        Some(match record[0] {
            1 | 2 => {
                let digest = Digest::from_bytes(record.get(24..56)?.try_into().ok()?);
                Self::Copied(object, Copied { bytes: u64_at(16)?, digest })
            }
            _ => Self::Gone(object),
        })
    }
}

/// What a journal says, read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The store's name in the bucket.
    pub(crate) store: [u8; 16],
    pub(crate) copies: BTreeMap<Object, Copied>,
    /// One past the numbers of all segments and chunk files that were ever copied.
    pub(crate) next: (u32, u64),
    /// Records before the last are not what was written: what is in the bucket has to be asked of it.
    pub(crate) damaged: bool,
    /// The last record is none: a crash tore it, or it rotted, which looks the same.
    pub(crate) torn: bool,
    /// Where the last whole record ends.
    pub(crate) end: u64,
}

impl Said {
    /// `None` where neither copy of the head is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (parts, _torn) = bytes.as_chunks::<PART_BYTES>();
        let store = parts.iter().take(2).find_map(|head| {
            let whole = head[..8] == MAGIC && head[24..28] == crc32fast::hash(&head[..24]).to_le_bytes();
            if whole { head.get(8..24)?.try_into().ok() } else { None }
        })?;
        let mut said =
            Self { store, copies: BTreeMap::new(), next: (0, 0), damaged: false, torn: false, end: HEAD_BYTES };
        let records = parts.get(2..).unwrap_or_default();
        for (nth, record) in records.iter().enumerate() {
            match Entry::decode(record) {
                Some(entry) => said.apply(&entry),
                None if nth + 1 == records.len() => {
                    said.torn = true;
                    return Some(said);
                }
                None => said.damaged = true,
            }
            said.end += PART_BYTES as u64;
        }
        Some(said)
    }

    fn apply(&mut self, entry: &Entry) {
        let object = match *entry {
            Entry::Copied(object, copied) => {
                self.copies.insert(object, copied);
                object
            }
            Entry::Gone(object) => {
                self.copies.remove(&object);
                object
            }
        };
        match object {
            Object::Segment(number) => self.next.0 = self.next.0.max(number.saturating_add(1)),
            Object::Chunks(number) => self.next.1 = self.next.1.max(number.saturating_add(1)),
        }
    }
}

/// The journal, open for writing.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Box<dyn VfsFile>,
    end: u64,
    /// The last record is none, and nothing was written over it yet.
    torn: bool,
    /// A sync failed, or a write that could not be taken back: what is on the disk is not known.
    poisoned: bool,
}

/// Where the journal of a store lies.
pub(crate) fn dir(store: &Path) -> PathBuf {
    store.join("origin")
}

fn head(store: &[u8; 16]) -> Vec<u8> {
    let mut copy = [0; PART_BYTES];
    copy[..8].copy_from_slice(&MAGIC);
    copy[8..24].copy_from_slice(store);
    let crc = crc32fast::hash(&copy[..24]);
    copy[24..28].copy_from_slice(&crc.to_le_bytes());
    [copy, copy].concat()
}

impl Journal {
    /// Reads the store's journal, where it has one.
    pub(crate) fn open(vfs: &dyn Vfs, store: &Path) -> Result<Option<(Self, Said)>, Fault> {
        let path = dir(store).join("journal");
        let file = match vfs.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.or_fault("opening", &path)?,
        };
        let len = file.len().or_fault("measuring", &path)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_exact_at(0, &mut bytes).or_fault("reading", &path)?;
        let said = Said::decode(&bytes)
            .ok_or_else(|| Fault::io("reading the head of", &path, io::Error::from(io::ErrorKind::InvalidData)))?;
        // A last record that is none stays till another takes its place: only the bucket knows what it said, and may be down now.
        Ok(Some((Self { path, file, end: said.end, torn: said.torn, poisoned: false }, said)))
    }

    /// Writes a new one that says these things, in the place of any that was there.
    pub(crate) fn write(
        vfs: &dyn Vfs,
        store_dir: &Path,
        store: &[u8; 16],
        copies: &BTreeMap<Object, Copied>,
        next: (u32, u64),
    ) -> Result<Self, Fault> {
        let dir = dir(store_dir);
        ensure_dir(vfs, &dir).or_fault("making", &dir)?;
        let (new, path) = (dir.join("journal.new"), dir.join("journal"));
        match vfs.remove(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Fault::io("removing", &new, e)),
            Ok(()) | Err(_) => {}
        }
        let file = vfs.create(&new).or_fault("creating", &new)?;
        let mut bytes = head(store);
        for (object, copied) in copies {
            bytes.extend_from_slice(&Entry::Copied(*object, *copied).encode());
        }
        // The highest numbers are said though they are gone.
        for object in [next.0.checked_sub(1).map(Object::Segment), next.1.checked_sub(1).map(Object::Chunks)] {
            let entry = object.filter(|object| !copies.contains_key(object)).map(Entry::Gone);
            bytes.extend(entry.iter().flat_map(Entry::encode));
        }
        file.write_at(0, &bytes).or_fault("writing", &new)?;
        file.sync_data().or_fault("syncing", &new)?;
        vfs.rename(&new, &path).or_fault("renaming", &new)?;
        vfs.sync_dir(&dir).or_fault("syncing", &dir)?;
        Ok(Self { path, file, end: bytes.len() as u64, torn: false, poisoned: false })
    }

    /// Adds a record, durably.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), Fault> {
        if self.poisoned {
            return Err(Fault::Poisoned { path: self.path.clone() });
        }
        let bytes = entry.encode();
        if let Err(e) = self.file.write_at(self.end, &bytes) {
            // What is torn stays: half of a record over it is none either.
            self.poisoned |= !self.torn && self.file.truncate(self.end).is_err();
            return Err(Fault::io("writing to", &self.path, e));
        }
        if let Err(e) = self.file.sync_data() {
            self.poisoned = true;
            return Err(Fault::io("syncing", &self.path, e));
        }
        self.end += bytes.len() as u64;
        self.torn = false;
        Ok(())
    }

    /// Whether most of it says nothing any more.
    pub(crate) const fn is_long(&self, copies: usize) -> bool {
        let least = (copies as u64 + 4) * PART_BYTES as u64;
        self.end > ORIGIN_JOURNAL_MIN_BYTES && self.end > least * ORIGIN_JOURNAL_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::recorded::RecordingFs;

    fn copied(bytes: u64) -> Copied {
        Copied { bytes, digest: Digest::of(&bytes.to_le_bytes()) }
    }

    #[test]
    fn what_is_torn_stays_where_nothing_could_be_written_over_it() {
        let fs = RecordingFs::new();
        let dir = Path::new("/s");
        let mut journal = Journal::write(&fs, dir, &[9; 16], &BTreeMap::new(), (0, 0)).unwrap();
        journal.append(&Entry::Copied(Object::Segment(3), copied(10))).unwrap();
        let path = dir.join("origin/journal");
        fs.open(&path).unwrap().write_at(130, b"!").unwrap();
        let (mut journal, said) = Journal::open(&fs, dir).unwrap().unwrap();
        assert!(said.torn);
        fs.fail_at(fs.op_count(), io::ErrorKind::StorageFull);
        assert!(journal.append(&Entry::Gone(Object::Chunks(6))).is_err());
        let (_, again) = Journal::open(&fs, dir).unwrap().unwrap();
        assert!(again.torn, "{again:?}");
        journal.append(&Entry::Gone(Object::Chunks(6))).unwrap();
        let (_, again) = Journal::open(&fs, dir).unwrap().unwrap();
        assert!(!again.torn && again.next == (0, 7), "{again:?}");
    }

    #[test]
    fn what_was_written_is_read_back_and_a_torn_end_is_written_over() {
        let fs = RecordingFs::new();
        let dir = Path::new("/s");
        let (one, two) = (Object::Segment(3), Object::Chunks(7));
        let mut journal = Journal::write(&fs, dir, &[9; 16], &BTreeMap::new(), (0, 0)).unwrap();
        for entry in [
            Entry::Copied(one, copied(10)),
            Entry::Copied(two, copied(20)),
            Entry::Gone(one),
            Entry::Gone(Object::Chunks(6)),
        ] {
            journal.append(&entry).unwrap();
        }
        let (_, said) = Journal::open(&fs, dir).unwrap().unwrap();
        assert_eq!((said.store, said.next, said.damaged), ([9; 16], (4, 8), false));
        assert_eq!(said.copies, BTreeMap::from([(two, copied(20))]));
        let path = dir.join("origin/journal");
        let mut bytes = vec![0; 384];
        fs.open(&path).unwrap().read_exact_at(0, &mut bytes).unwrap();
        for cut in 129..384 {
            let said = Said::decode(&bytes[..cut]).unwrap();
            assert_eq!((said.end, said.damaged), ((cut / 64 * 64) as u64, false), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let said = Said::decode(&flipped).unwrap();
            let in_the_last = at >= 320;
            assert_eq!(said.damaged, (128..320).contains(&at), "a bit at {at}");
            assert_eq!((said.end, said.torn), if in_the_last { (320, true) } else { (384, false) });
            assert_eq!(said.store, [9; 16], "one copy of the head is enough");
        }
        // What is torn is known to be for as long as nothing is written after it.
        let file = fs.open(&path).unwrap();
        file.write_at(330, b"!").unwrap();
        file.write_at(384, b"more of it").unwrap();
        for _ in 0..2 {
            let (mut journal, torn) = Journal::open(&fs, dir).unwrap().unwrap();
            assert!(!torn.damaged && torn.torn || torn.end == 384, "{torn:?}");
            journal.append(&Entry::Gone(Object::Chunks(6))).unwrap();
        }
        let (_, again) = Journal::open(&fs, dir).unwrap().unwrap();
        assert_eq!((again.copies, again.next, again.torn), (said.copies.clone(), said.next, false));
        // Written anew it says the same, and the highest numbers.
        drop(Journal::write(&fs, dir, &[9; 16], &said.copies, said.next).unwrap());
        let (_, again) = Journal::open(&fs, dir).unwrap().unwrap();
        assert_eq!((again.copies, again.next), (said.copies, said.next));
    }

    #[test]
    fn a_journal_is_long_once_most_of_it_says_nothing_any_more() {
        let fs = RecordingFs::new();
        let mut journal = Journal::write(&fs, Path::new("/s"), &[9; 16], &BTreeMap::new(), (0, 0)).unwrap();
        let records = ORIGIN_JOURNAL_MIN_BYTES / PART_BYTES as u64;
        for number in 1..records {
            assert!(!journal.is_long(0), "{number}");
            journal.append(&Entry::Copied(Object::Chunks(number), copied(1))).unwrap();
        }
        assert!(journal.is_long(0));
        assert!(!journal.is_long(usize::try_from(records).unwrap()), "all of it counts");
    }
}
