//! Manifests: the paths that a cache keeps, with everything below them, as one sequence of bytes (docs/design/026).
//!
//! All numbers are little-endian. A manifest is read and written from its beginning to its end, so nobody needs all of it.
//!
//! ```text
//! "WLCACHE" 0x01, count of paths u16, then for each path, in the order in which they were named, a node of an empty name
//! or "nothing":
//!   0 nothing: there was none of this path
//!   1 file:      name length u16, name, mode u16, changed i64, length u64, digest 32 bytes
//!   2 symlink:   name length u16, name, target length u16, target
//!   3 directory: name length u16, name, mode u16, changed i64, then its nodes sorted by the bytes of their names, then
//!   4 end
//! ```
//! Modes are the nine permission bits and nothing more. Times are nanoseconds since 1970. Names are single components, so
//! that nothing can lead out of the directory that it stands in.

use windlass_protocol::Digest;
use windlass_protocol::limits::{
    CACHE_MANIFEST_MAX_BYTES, CACHE_MAX_BYTES, CACHE_NODES_MAX, CACHE_PATHS_MAX, TREE_DEPTH_MAX, TREE_NAME_MAX_BYTES,
};

use crate::tree::MODE_MASK;

const MAGIC: [u8; 8] = *b"WLCACHE\x01";
const NOTHING: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const DIRECTORY: u8 = 3;
const END: u8 = 4;

/// One step through a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// There is nothing at the next path.
    Nothing,
    /// A regular file.
    File {
        /// Its name; empty for a path itself.
        name: Vec<u8>,
        /// Its permission bits.
        mode: u16,
        /// When it was changed, in nanoseconds since 1970.
        changed: i64,
        /// How many bytes it has.
        bytes: u64,
        /// The blob that has them.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Its name; empty for a path itself.
        name: Vec<u8>,
        /// Where it points, as bytes.
        target: Vec<u8>,
    },
    /// A directory begins: what follows is in it, until its end.
    Directory {
        /// Its name; empty for a path itself.
        name: Vec<u8>,
        /// Its permission bits.
        mode: u16,
        /// When it was changed, in nanoseconds since 1970.
        changed: i64,
    },
    /// The innermost directory ends.
    End,
}

/// Bytes that are no manifest, or a tree that none can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// It begins otherwise.
    #[error("it is no manifest of this version")]
    Version,
    /// It ends before what it says is all there.
    #[error("it ends too early")]
    Truncated,
    /// Something follows what it says.
    #[error("bytes follow its end")]
    Trailing,
    /// A kind that has no meaning, or none where it stands.
    #[error("a node makes no sense where it stands")]
    Kind,
    /// A name that is none: empty, `.`, `..`, too long, or with a slash or a NUL in it.
    #[error("a name cannot be")]
    Name,
    /// Names that do not rise.
    #[error("names are not sorted, or one comes twice")]
    Order,
    /// Bits that are no permissions.
    #[error("a mode has more than permission bits")]
    Mode,
    /// A link to nothing, or too far.
    #[error("the target of a link cannot be")]
    Target,
    /// More paths than one cache has, or none.
    #[error("a cache has 1 to {CACHE_PATHS_MAX} paths")]
    Paths,
    /// More files, directories and links.
    #[error("a cache has at most {CACHE_NODES_MAX} files, directories and links")]
    Nodes,
    /// Directories within directories.
    #[error("directories are nested more than {TREE_DEPTH_MAX} deep")]
    Depth,
    /// More bytes in its files.
    #[error("the files of a cache have at most {CACHE_MAX_BYTES} bytes")]
    Bytes,
    /// A longer manifest.
    #[error("a manifest has at most {CACHE_MANIFEST_MAX_BYTES} bytes")]
    TooLong,
}

/// What the rules of a manifest are held against, step by step.
#[derive(Debug, Clone, Default)]
struct Rules {
    /// Paths that are still to come.
    paths: usize,
    /// The last name in each open directory.
    open: Vec<Option<Vec<u8>>>,
    nodes: usize,
    files: u64,
    bytes: u64,
}

impl Rules {
    fn step(&mut self, step: &Step) -> Result<(), BadManifest> {
        let (name, mode) = match step {
            Step::Nothing if self.open.is_empty() => return self.path(),
            Step::Nothing => return Err(BadManifest::Kind),
            Step::End => return self.open.pop().map(|_| ()).ok_or(BadManifest::Kind),
            Step::File { name, mode, .. } | Step::Directory { name, mode, .. } => (name, *mode),
            Step::Symlink { name, target } => {
                let fits = (1..TREE_NAME_MAX_BYTES).contains(&target.len()) && !target.contains(&0);
                if !fits {
                    return Err(BadManifest::Target);
                }
                (name, 0)
            }
        };
        if mode & !MODE_MASK != 0 {
            return Err(BadManifest::Mode);
        }
        match self.open.last_mut() {
            None if name.is_empty() => self.path()?,
            None => return Err(BadManifest::Name),
            Some(last) => {
                check_name(name)?;
                if last.as_ref().is_some_and(|last| last >= name) {
                    return Err(BadManifest::Order);
                }
                *last = Some(name.clone());
            }
        }
        self.nodes += 1;
        if self.nodes > CACHE_NODES_MAX {
            return Err(BadManifest::Nodes);
        }
        match step {
            Step::File { bytes, .. } => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(*bytes);
                if self.bytes > CACHE_MAX_BYTES { Err(BadManifest::Bytes) } else { Ok(()) }
            }
            Step::Directory { .. } if self.open.len() >= TREE_DEPTH_MAX => Err(BadManifest::Depth),
            Step::Directory { .. } => {
                self.open.push(None);
                Ok(())
            }
            Step::Symlink { .. } | Step::Nothing | Step::End => Ok(()),
        }
    }

    fn path(&mut self) -> Result<(), BadManifest> {
        self.paths = self.paths.checked_sub(1).ok_or(BadManifest::Paths)?;
        Ok(())
    }

    const fn is_over(&self) -> bool {
        self.paths == 0 && self.open.is_empty()
    }
}

fn check_name(name: &[u8]) -> Result<(), BadManifest> {
    let bad = matches!(name, b"" | b"." | b"..")
        || name.len() > TREE_NAME_MAX_BYTES
        || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad { Err(BadManifest::Name) } else { Ok(()) }
}

fn check_paths(paths: usize) -> Result<(), BadManifest> {
    if (1..=CACHE_PATHS_MAX).contains(&paths) { Ok(()) } else { Err(BadManifest::Paths) }
}

/// A manifest that is being made.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    rules: Rules,
}

impl Writer {
    /// Of a cache with so many paths.
    ///
    /// # Errors
    /// [`BadManifest::Paths`].
    pub fn new(paths: usize) -> Result<Self, BadManifest> {
        check_paths(paths)?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&u16::try_from(paths).unwrap_or(u16::MAX).to_le_bytes());
        Ok(Self { out, rules: Rules { paths, ..Rules::default() } })
    }

    /// Adds the next step.
    ///
    /// # Errors
    /// Where no manifest can hold it; it is of no use then.
    pub fn push(&mut self, step: &Step) -> Result<(), BadManifest> {
        self.rules.step(step)?;
        match step {
            Step::Nothing => self.out.push(NOTHING),
            Step::End => self.out.push(END),
            Step::File { name, mode, changed, bytes, digest } => {
                self.named(FILE, name);
                self.out.extend_from_slice(&mode.to_le_bytes());
                self.out.extend_from_slice(&changed.to_le_bytes());
                self.out.extend_from_slice(&bytes.to_le_bytes());
                self.out.extend_from_slice(digest.as_bytes());
            }
            Step::Symlink { name, target } => {
                self.named(SYMLINK, name);
                self.bytes(target);
            }
            Step::Directory { name, mode, changed } => {
                self.named(DIRECTORY, name);
                self.out.extend_from_slice(&mode.to_le_bytes());
                self.out.extend_from_slice(&changed.to_le_bytes());
            }
        }
        if self.out.len() > CACHE_MANIFEST_MAX_BYTES { Err(BadManifest::TooLong) } else { Ok(()) }
    }

    /// How long it is so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is in it; there never is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// How many files are in it, and their bytes.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        (self.rules.files, self.rules.bytes)
    }

    /// Its bytes, once all paths are in it.
    ///
    /// # Errors
    /// [`BadManifest::Truncated`].
    pub fn finish(self) -> Result<Vec<u8>, BadManifest> {
        if self.rules.is_over() { Ok(self.out) } else { Err(BadManifest::Truncated) }
    }

    fn named(&mut self, kind: u8, name: &[u8]) {
        self.out.push(kind);
        self.bytes(name);
    }

    /// Length and bytes; what is longer never gets here.
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.out.extend_from_slice(bytes);
    }
}

/// Reads a stranger's manifest, step by step.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    rules: Rules,
}

impl<'a> Reader<'a> {
    /// Of these bytes.
    ///
    /// # Errors
    /// [`BadManifest`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, BadManifest> {
        if bytes.len() > CACHE_MANIFEST_MAX_BYTES {
            return Err(BadManifest::TooLong);
        }
        let mut reader =
            Self { rest: bytes.strip_prefix(&MAGIC).ok_or(BadManifest::Version)?, rules: Rules::default() };
        reader.rules.paths = usize::from(u16::from_le_bytes(reader.array()?));
        check_paths(reader.rules.paths)?;
        Ok(reader)
    }

    /// How many paths are still to come; at first, all of them.
    #[must_use]
    pub const fn paths(&self) -> usize {
        self.rules.paths
    }

    /// How many files came so far, and their bytes.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        (self.rules.files, self.rules.bytes)
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// [`BadManifest`].
    pub fn step(&mut self) -> Result<Option<Step>, BadManifest> {
        if self.rules.is_over() {
            return if self.rest.is_empty() { Ok(None) } else { Err(BadManifest::Trailing) };
        }
        let [kind] = self.array()?;
        let step = match kind {
            NOTHING => Step::Nothing,
            END => Step::End,
            FILE => Step::File {
                name: self.bytes()?,
                mode: u16::from_le_bytes(self.array()?),
                changed: i64::from_le_bytes(self.array()?),
                bytes: u64::from_le_bytes(self.array()?),
                digest: Digest::from_bytes(self.array()?),
            },
            SYMLINK => Step::Symlink { name: self.bytes()?, target: self.bytes()? },
            DIRECTORY => Step::Directory {
                name: self.bytes()?,
                mode: u16::from_le_bytes(self.array()?),
                changed: i64::from_le_bytes(self.array()?),
            },
            _ => return Err(BadManifest::Kind),
        };
        self.rules.step(&step)?;
        Ok(Some(step))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadManifest> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(BadManifest::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadManifest> {
        self.take(N)?.try_into().map_err(|_| BadManifest::Truncated)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BadManifest> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        Ok(self.take(length)?.to_vec())
    }
}

/// The blobs of a manifest's files, with their lengths, in its order; the same one may come more than once.
///
/// # Errors
/// [`BadManifest`].
pub fn blobs(bytes: &[u8]) -> Result<Vec<(Digest, u64)>, BadManifest> {
    let mut reader = Reader::new(bytes)?;
    let mut blobs = Vec::new();
    while let Some(step) = reader.step()? {
        if let Step::File { digest, bytes, .. } = step {
            blobs.push((digest, bytes));
        }
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &[u8], bytes: u64) -> Step {
        Step::File { name: name.to_vec(), mode: 0o644, changed: -7, bytes, digest: Digest::of(name) }
    }

    fn directory(name: &[u8]) -> Step {
        Step::Directory { name: name.to_vec(), mode: 0o755, changed: 9 }
    }

    fn link(name: &[u8], target: &[u8]) -> Step {
        Step::Symlink { name: name.to_vec(), target: target.to_vec() }
    }

    fn write(paths: usize, steps: &[Step]) -> Result<Vec<u8>, BadManifest> {
        let mut writer = Writer::new(paths)?;
        steps.iter().try_for_each(|step| writer.push(step))?;
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Step>, BadManifest> {
        let mut reader = Reader::new(bytes)?;
        let mut steps = Vec::new();
        while let Some(step) = reader.step()? {
            steps.push(step);
        }
        Ok(steps)
    }

    #[test]
    fn what_is_written_is_read_and_names_its_blobs() {
        let steps = [
            directory(b""),
            file(b"\xff odd", 3),
            directory(b"\xff\xff"),
            link(b"up", b"../a"),
            Step::End,
            Step::End,
            Step::Nothing,
            file(b"", 0),
        ];
        let bytes = write(3, &steps).unwrap();
        assert_eq!(read(&bytes), Ok(steps.to_vec()));
        assert_eq!(blobs(&bytes), Ok(vec![(Digest::of(b"\xff odd"), 3), (Digest::of(b""), 0)]));
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(read(&[bytes.as_slice(), b"\0"].concat()), Err(BadManifest::Trailing));
    }

    #[test]
    fn the_encoding_is_frozen() {
        let bytes = write(1, &[directory(b""), file(b"a", 0x0102), link(b"b", b"c"), Step::End]).unwrap();
        assert_eq!(Digest::of(&bytes).to_hex(), "e228b98691bfef5a19d1ed860c8b33ebe647f0fb5f9951399a17ac973e8309ea");
    }

    #[test]
    fn hostile_manifests_are_refused_each_for_its_reason() {
        let raw = |paths: u8, rest: &[u8]| [&MAGIC, [paths, 0].as_slice(), rest].concat();
        let long = vec![b'n'; TREE_NAME_MAX_BYTES + 1];
        for (bytes, why) in [
            (b"WLCACHE\x02\x01\0\0".to_vec(), BadManifest::Version),
            (raw(0, &[]), BadManifest::Paths),
            (raw(65, &[]), BadManifest::Paths),
            (raw(1, &[END]), BadManifest::Kind),
            (raw(1, &[9]), BadManifest::Kind),
            (raw(1, &[FILE, 1, 0, b'a']), BadManifest::Truncated),
        ] {
            assert_eq!(read(&bytes), Err(why));
        }
        for (steps, why) in [
            (vec![file(b"a", 0)], BadManifest::Name),
            (vec![directory(b""), file(b"..", 0)], BadManifest::Name),
            (vec![directory(b""), file(b"a/b", 0)], BadManifest::Name),
            (vec![directory(b""), file(b"a\0", 0)], BadManifest::Name),
            (vec![directory(b""), file(b"", 0)], BadManifest::Name),
            (vec![directory(b""), link(&long, b"a")], BadManifest::Name),
            (vec![directory(b""), file(b"b", 0), file(b"a", 0)], BadManifest::Order),
            (vec![directory(b""), link(b"a", b"/etc"), directory(b"a")], BadManifest::Order),
            (vec![directory(b""), link(b"a", b"")], BadManifest::Target),
            (vec![directory(b""), link(b"a", b"x\0")], BadManifest::Target),
            (vec![directory(b""), Step::Nothing], BadManifest::Kind),
            (vec![Step::Nothing, Step::Nothing], BadManifest::Paths),
            (vec![file(b"", CACHE_MAX_BYTES + 1)], BadManifest::Bytes),
            (vec![directory(b"")], BadManifest::Truncated),
            (
                vec![Step::File { name: Vec::new(), mode: 0o4755, changed: 0, bytes: 0, digest: Digest::of(b"") }],
                BadManifest::Mode,
            ),
        ] {
            assert_eq!(write(1, &steps), Err(why), "{steps:?}");
        }
        let deep = [vec![directory(b"")], vec![directory(b"d"); TREE_DEPTH_MAX]].concat();
        assert_eq!(write(1, &deep), Err(BadManifest::Depth));
    }

    proptest! {
        #[test]
        fn mutated_bytes_are_refused_or_are_what_they_say(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let steps = [directory(b""), file(b"a", 1), directory(b"b"), link(b"c", b"d"), Step::End, Step::End, file(b"", 2)];
            let mut bytes = write(2, &steps).unwrap();
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Ok(steps) = read(&bytes) {
                let paths = Reader::new(&bytes).unwrap().paths();
                prop_assert_eq!(write(paths, &steps), Ok(bytes));
            }
        }
    }
}
