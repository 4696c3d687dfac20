//! Merkle directories: a directory is a blob that names its entries' blobs, so a whole tree has one digest.
//!
//! The encoding is canonical: one directory, one sequence of bytes. All numbers are little-endian.
//!
//! ```text
//! "WLDIR" 0x01 0 0, count u32, then for each entry, sorted by the bytes of its name:
//! kind u8, name length u16, name,
//!   1 file:      mode u16, length u64, digest 32 bytes
//!   2 symlink:   target length u16, target
//!   3 directory: mode u16, digest 32 bytes
//! ```
//! Modes are the nine permission bits and nothing more: no set-user-id survives. Names and targets are bytes. Owners, times
//! and extended attributes are not kept: they would make equal trees differ. The root has no mode.

use windlass_protocol::Digest;
use windlass_protocol::limits::{TREE_DIR_MAX_BYTES, TREE_DIR_MAX_ENTRIES, TREE_NAME_MAX_BYTES};

use crate::error::BadTree;

const MAGIC: [u8; 8] = *b"WLDIR\x01\0\0";
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const DIRECTORY: u8 = 3;

/// The permission bits that are kept.
pub const MODE_MASK: u16 = 0o777;

/// Whether a file with this mode is a program: its owner may execute it, as git asks, whatever others may (docs/design/046).
#[must_use]
pub const fn is_program(mode: u32) -> bool {
    mode & 0o100 != 0
}

/// The mode in a tree of a file of which only that is known.
#[must_use]
pub const fn mode_of(program: bool) -> u16 {
    if program { 0o755 } else { 0o644 }
}

/// The mode that such a file is made with, less the umask.
#[must_use]
pub const fn new_mode_of(program: bool) -> u32 {
    if program { 0o777 } else { 0o666 }
}

/// The shortest entry: a symlink with a name and a target of one byte each.
const ENTRY_MIN_BYTES: usize = 1 + 2 + 1 + 2 + 1;

/// A directory: entries sorted by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    entries: Vec<Entry>,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: bytes, never empty, `.`, `..`, nor with a slash or a NUL.
    pub name: Vec<u8>,
    /// What it names.
    pub node: Node,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its bytes.
        digest: Digest,
        /// How many.
        len: u64,
        /// Its permission bits.
        mode: u16,
    },
    /// A symbolic link; its target is kept as it is and never followed.
    Symlink {
        /// Where it points, as bytes.
        target: Vec<u8>,
    },
    /// A directory.
    Directory {
        /// Its encoding.
        digest: Digest,
        /// Its permission bits.
        mode: u16,
    },
}

impl Node {
    /// The blob that it needs, if any.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        match self {
            Self::File { digest, .. } | Self::Directory { digest, .. } => Some(*digest),
            Self::Symlink { .. } => None,
        }
    }

    fn check(&self) -> Result<(), BadTree> {
        match self {
            Self::File { mode, .. } | Self::Directory { mode, .. } if *mode & !MODE_MASK != 0 => Err(BadTree::Mode),
            Self::Symlink { target }
                if target.is_empty() || target.len() >= TREE_NAME_MAX_BYTES || target.contains(&0) =>
            {
                Err(BadTree::Target)
            }
            Self::File { .. } | Self::Directory { .. } | Self::Symlink { .. } => Ok(()),
        }
    }
}

impl Directory {
    /// A directory of these entries, which are sorted here.
    ///
    /// # Errors
    /// Where a name, a mode or a target cannot be, or a name comes twice.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, BadTree> {
        if entries.len() > TREE_DIR_MAX_ENTRIES {
            return Err(BadTree::TooManyEntries);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in &entries {
            check_name(&entry.name)?;
            entry.node.check()?;
        }
        if entries.windows(2).any(|pair| matches!(pair, [a, b] if a.name == b.name)) {
            return Err(BadTree::Duplicate);
        }
        Ok(Self { entries })
    }

    /// The entries, sorted by name.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes whose digest is the directory's name.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for Entry { name, node } in &self.entries {
            out.push(match node {
                Node::File { .. } => FILE,
                Node::Symlink { .. } => SYMLINK,
                Node::Directory { .. } => DIRECTORY,
            });
            put_bytes(&mut out, name);
            match node {
                Node::File { digest, len, mode } => {
                    out.extend_from_slice(&mode.to_le_bytes());
                    out.extend_from_slice(&len.to_le_bytes());
                    out.extend_from_slice(digest.as_bytes());
                }
                Node::Symlink { target } => put_bytes(&mut out, target),
                Node::Directory { digest, mode } => {
                    out.extend_from_slice(&mode.to_le_bytes());
                    out.extend_from_slice(digest.as_bytes());
                }
            }
        }
        out
    }

    /// Reads a stranger's bytes: either a directory whose encoding is exactly these, or a reason.
    ///
    /// # Errors
    /// Anything that [`Directory::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadTree> {
        if bytes.len() as u64 > TREE_DIR_MAX_BYTES {
            return Err(BadTree::TooLarge);
        }
        let mut reader = Reader(bytes.strip_prefix(&MAGIC).ok_or(BadTree::Version)?);
        let count = u32::from_le_bytes(reader.array()?) as usize;
        if count > TREE_DIR_MAX_ENTRIES {
            return Err(BadTree::TooManyEntries);
        }
        if count.saturating_mul(ENTRY_MIN_BYTES) > reader.0.len() {
            return Err(BadTree::Truncated);
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = reader.entry()?;
            match entries.last().map(|last| last.name.cmp(&entry.name)) {
                Some(std::cmp::Ordering::Equal) => return Err(BadTree::Duplicate),
                Some(std::cmp::Ordering::Greater) => return Err(BadTree::Unsorted),
                Some(std::cmp::Ordering::Less) | None => entries.push(entry),
            }
        }
        if !reader.0.is_empty() {
            return Err(BadTree::TrailingBytes);
        }
        Ok(Self { entries })
    }

    /// Refuses names that a file system which ignores case would take for one.
    ///
    /// # Errors
    /// [`BadTree::CaseCollision`].
    pub fn refuse_case_collisions(&self) -> Result<(), BadTree> {
        let fold = |name: &[u8]| match str::from_utf8(name) {
            Ok(text) => {
                text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect::<String>().into_bytes()
            }
            Err(_) => name.to_ascii_lowercase(),
        };
        let mut seen = std::collections::BTreeSet::new();
        if self.entries.iter().all(|entry| seen.insert(fold(&entry.name))) {
            Ok(())
        } else {
            Err(BadTree::CaseCollision)
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), BadTree> {
    match name {
        b"" => Err(BadTree::EmptyName),
        b"." | b".." => Err(BadTree::DotName),
        _ if name.len() > TREE_NAME_MAX_BYTES => Err(BadTree::NameTooLong),
        _ if name.iter().any(|b| matches!(b, b'/' | 0)) => Err(BadTree::NameByte),
        _ => Ok(()),
    }
}

/// Length and bytes; what is longer than the limits never gets here.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BadTree> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(BadTree::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadTree> {
        self.take(N)?.try_into().map_err(|_| BadTree::Truncated)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BadTree> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        Ok(self.take(len)?.to_vec())
    }

    fn entry(&mut self) -> Result<Entry, BadTree> {
        let [kind] = self.array()?;
        let name = self.bytes()?;
        check_name(&name)?;
        let node = match kind {
            FILE => Node::File {
                mode: u16::from_le_bytes(self.array()?),
                len: u64::from_le_bytes(self.array()?),
                digest: Digest::from_bytes(self.array()?),
            },
            SYMLINK => Node::Symlink { target: self.bytes()? },
            DIRECTORY => {
                Node::Directory { mode: u16::from_le_bytes(self.array()?), digest: Digest::from_bytes(self.array()?) }
            }
            _ => return Err(BadTree::UnknownKind),
        };
        node.check()?;
        Ok(Entry { name, node })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &[u8]) -> Entry {
        Entry { name: name.to_vec(), node: Node::File { digest: Digest::of(name), len: 7, mode: 0o755 } }
    }

    fn link(name: &[u8], target: &[u8]) -> Entry {
        Entry { name: name.to_vec(), node: Node::Symlink { target: target.to_vec() } }
    }

    #[test]
    fn the_encoding_is_frozen() {
        let digest = Digest::from_bytes([0xab; 32]);
        let directory = Directory::new(vec![
            Entry { name: b"src".to_vec(), node: Node::Directory { digest, mode: 0o750 } },
            Entry { name: b"\xff".to_vec(), node: Node::File { digest, len: 0x0102, mode: 0o644 } },
            link(b"a", b"../b"),
        ])
        .unwrap();
        let hex: String = directory.encode().iter().map(|b| format!("{b:02x}")).collect();
        let digest = "ab".repeat(32);
        let golden = [
            "574c444952010000",
            "03000000",
            "02010061",
            "04002e2e2f62",
            "030300737263",
            "e801",
            &digest,
            "010100ff",
            "a401",
            "0201000000000000",
            &digest,
        ];
        assert_eq!(hex, golden.concat());
        assert_eq!(
            Digest::of(&Directory::default().encode()).to_hex(),
            "f21afbee99ddc7f773895b18b4e29acb7d4dd4f17aa7906a4a144210717c3677"
        );
    }

    #[test]
    fn a_file_is_a_program_if_its_owner_may_execute_it_and_is_one_wherever_it_comes_again() {
        for (mode, expected) in [
            (0o755, true),
            (0o700, true),
            (0o100, true),
            (0o4755, true),
            (0o10_0755, true),
            (0o644, false),
            (0o655, false),
            (0o677, false),
            (0o011, false),
            (0o2666, false),
            (0o10_0644, false),
            (0, false),
        ] {
            assert_eq!(is_program(mode), expected, "{mode:o}");
        }
        for program in [true, false] {
            let (kept, new) = (u32::from(mode_of(program)), new_mode_of(program));
            assert_eq!((is_program(kept), is_program(new)), (program, program));
            assert_eq!((kept, new & !0o022), (kept, kept), "by the usual umask they are the same");
            assert_eq!(u32::from(MODE_MASK) | kept | new, u32::from(MODE_MASK), "a tree takes it");
        }
        assert_eq!((mode_of(true), mode_of(false)), (0o755, 0o644), "keys of before hold");
    }

    #[test]
    fn hostile_directories_are_refused_each_for_its_reason() {
        let raw = |entries: &[Entry]| Directory { entries: entries.to_vec() }.encode();
        let with_mode =
            |mode| Entry { name: b"f".to_vec(), node: Node::File { digest: Digest::of(b""), len: 0, mode } };
        let long = vec![b'n'; TREE_NAME_MAX_BYTES + 1];
        let mut trailing = raw(&[file(b"a")]);
        trailing.push(0);
        let mut many = raw(&[]);
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut claims = raw(&[]);
        claims[8..12].copy_from_slice(&1_000_u32.to_le_bytes());
        let mut kind = raw(&[file(b"a")]);
        kind[12] = 9;
        let mut version = raw(&[]);
        version[5] = 2;
        let table: Vec<(Vec<u8>, BadTree)> = vec![
            (raw(&[file(b"")]), BadTree::EmptyName),
            (raw(&[file(b".")]), BadTree::DotName),
            (raw(&[file(b"..")]), BadTree::DotName),
            (raw(&[file(b"/etc/passwd")]), BadTree::NameByte),
            (raw(&[file(b"a/b")]), BadTree::NameByte),
            (raw(&[file(b"a\0b")]), BadTree::NameByte),
            (raw(&[file(&long)]), BadTree::NameTooLong),
            (raw(&[file(b"b"), file(b"a")]), BadTree::Unsorted),
            (raw(&[link(b"a", b"/etc"), file(b"a")]), BadTree::Duplicate),
            (raw(&[link(b"name", b"")]), BadTree::Target),
            (raw(&[link(b"a", b"x\0y")]), BadTree::Target),
            (raw(&[link(b"a", &long)]), BadTree::Target),
            (raw(&[with_mode(0o4755)]), BadTree::Mode),
            (raw(&[with_mode(0o1777)]), BadTree::Mode),
            (trailing, BadTree::TrailingBytes),
            (many, BadTree::TooManyEntries),
            (claims, BadTree::Truncated),
            (kind, BadTree::UnknownKind),
            (version, BadTree::Version),
            (Vec::new(), BadTree::Version),
        ];
        for (bytes, reason) in table {
            assert_eq!(Directory::decode(&bytes), Err(reason));
        }
        let whole = raw(&[file(b"a"), link(b"b", b"c")]);
        for cut in MAGIC.len()..whole.len() {
            assert_eq!(Directory::decode(&whole[..cut]), Err(BadTree::Truncated), "cut at {cut}");
        }
    }

    #[test]
    fn names_that_differ_in_case_only_are_refused_where_that_was_asked() {
        let directory = |names: [&str; 2]| Directory::new(names.iter().map(|n| file(n.as_bytes())).collect()).unwrap();
        for names in [["Makefile", "makefile"], ["ÄRGER", "ärger"], ["straße", "STRASSE"]] {
            assert_eq!(directory(names).refuse_case_collisions(), Err(BadTree::CaseCollision), "{names:?}");
        }
        assert_eq!(directory(["a", "b"]).refuse_case_collisions(), Ok(()));
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let name =
            proptest::collection::vec(any::<u8>().prop_filter("slash", |b| !matches!(b, b'/' | 0 | b'.')), 1..20);
        let bytes = proptest::array::uniform32(any::<u8>());
        let node = prop_oneof![
            (bytes, any::<u64>(), 0..=MODE_MASK).prop_map(|(digest, len, mode)| Node::File {
                digest: Digest::from_bytes(digest),
                len,
                mode
            }),
            proptest::collection::vec(1_u8.., 1..40).prop_map(|target| Node::Symlink { target }),
            (bytes, 0..=MODE_MASK)
                .prop_map(|(digest, mode)| Node::Directory { digest: Digest::from_bytes(digest), mode }),
        ];
        (name, node).prop_map(|(name, node)| Entry { name, node })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_has_one_encoding(entries in proptest::collection::vec(any_entry(), 0..12)) {
            let Ok(directory) = Directory::new(entries) else { return Ok(()) };
            let bytes = directory.encode();
            prop_assert_eq!(Directory::decode(&bytes), Ok(directory));
        }

        #[test]
        fn mutated_bytes_are_refused_or_are_the_one_encoding_of_what_they_say(
            entries in proptest::collection::vec(any_entry(), 0..6),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let Ok(directory) = Directory::new(entries) else { return Ok(()) };
            let mut bytes = directory.encode();
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Ok(decoded) = Directory::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }
}
