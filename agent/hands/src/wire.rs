//! The frames between an agent and the program in a job, and nothing else: this file is compiled into both.
//!
//! A frame is its length (four bytes, least significant first) and so many bytes. The program speaks first, with a
//! [`Hello`]; then the agent asks ([`Op`]) and the program answers each question once ([`Answer`]), until
//! [`Op::Exit`] ends both. The hello's first byte is the version. [`Op::Exit`] and [`Op::Write`] keep their form in every
//! version, so that an agent can tell a program of any version that it does not know it.
//!
//! Paths and arguments are bytes, as the operating system has them. Whatever comes may be hostile: every length is held
//! against what is left of its frame before anything is made of it, and a frame that has bytes left over is bad.

use crate::limits::{
    HANDS_ARGUMENTS_MAX, HANDS_CHUNK_BYTES, HANDS_ENTRIES_MAX, HANDS_FRAME_MAX_BYTES, HANDS_LAY_FILES_MAX,
    HANDS_LAY_MAX_BYTES, HANDS_PATH_MAX_BYTES,
};

/// What this source speaks.
pub const VERSION: u8 = 4;

/// Bytes of a [`Stamp`].
const STAMP_BYTES: usize = 24;

/// Bytes of a [`Seen`].
const SEEN_BYTES: usize = 1 + 8 + 4 + 8 + STAMP_BYTES;

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// What goes before the bytes of an [`Op::Put`]: the frame's length, its kind, the handle and how many they are.
pub const PUT_HEAD_BYTES: usize = LENGTH_BYTES + 1 + 4 + 4;

/// What goes before the bytes of an [`Answer::Bytes`].
pub const PIECE_HEAD_BYTES: usize = LENGTH_BYTES + 1 + 4;

/// The kind of an [`Op::Put`].
const PUT: u8 = 9;

/// The kind of an [`Answer::Bytes`].
const BYTES: u8 = 1;

/// Bytes that are no frame, or none of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// More than a frame may have.
    TooLong,
    /// It ends before what it says is all there.
    Short,
    /// Something follows what it says.
    Trailing,
    /// A kind, a flag or a number that has no meaning.
    Unknown,
    /// More than one message may carry of something.
    Limit,
    /// A version that is not spoken here.
    Version(u8),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => f.write_str("a frame is too long"),
            Self::Short => f.write_str("a frame ends too early"),
            Self::Trailing => f.write_str("a frame has bytes left over"),
            Self::Unknown => f.write_str("a frame says something that has no meaning"),
            Self::Limit => f.write_str("a frame carries more than it may"),
            Self::Version(version) => write!(f, "version {version} of the in-job protocol is not spoken here"),
        }
    }
}

impl std::error::Error for Bad {}

/// How the program was called. First on every connection.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Made anew for each call, and the same when a call connects again: what it asks for is done once.
    pub call: [u8; 16],
    /// Its streams: bits 0 to 2 are set where input, output and errors are terminals, bit 3 where the input is no device.
    pub streams: u8,
    /// The name and the arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The working directory.
    pub directory: Vec<u8>,
    /// `NAME=value`.
    pub environment: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and variables may hold secrets.
        f.debug_struct("Hello").field("arguments", &self.arguments.len()).finish_non_exhaustive()
    }
}

/// Which of its own streams the program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// What the agent asks of the program.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// End with this status. There is no answer.
    Exit {
        /// As a process ends.
        status: u8,
    },
    /// Write all of this.
    Write {
        /// Where.
        to: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Read some of the standard input; nothing is its end.
    ReadInput,
    /// What a path is.
    Stat {
        /// Which.
        path: Vec<u8>,
        /// Of a link, what it leads to.
        follow: bool,
    },
    /// Open a directory, for [`Op::Entries`].
    OpenDirectory {
        /// Which.
        path: Vec<u8>,
    },
    /// The next entries of an open directory; none is its end.
    Entries {
        /// Which.
        handle: u32,
    },
    /// As [`Op::Entries`], each with what it is; what went meanwhile is passed over.
    Look {
        /// Which.
        handle: u32,
    },
    /// Make files that were not there, whole. Of none, it tells what time it is.
    Lay {
        /// At most [`HANDS_LAY_FILES_MAX`], with [`HANDS_LAY_MAX_BYTES`] together.
        files: Vec<NewFile>,
    },
    /// Open a file, for [`Op::Read`].
    OpenFile {
        /// Which.
        path: Vec<u8>,
    },
    /// The next bytes of an open file; none is its end.
    Read {
        /// Which.
        handle: u32,
    },
    /// Make a file that was not there, for [`Op::Put`].
    Create {
        /// Which.
        path: Vec<u8>,
        /// Permissions, less the umask.
        mode: u32,
    },
    /// Write all of this at the end of what was written.
    Put {
        /// Where.
        handle: u32,
        /// What.
        bytes: Vec<u8>,
    },
    /// Be done with a handle.
    Close {
        /// Which.
        handle: u32,
    },
    /// Make a directory, and those above it.
    MakeDirectories {
        /// Which.
        path: Vec<u8>,
    },
    /// Rename a file over whatever has the name.
    Rename {
        /// Its name.
        from: Vec<u8>,
        /// Its name from now on.
        to: Vec<u8>,
    },
    /// Remove a file.
    Remove {
        /// Which.
        path: Vec<u8>,
    },
    /// Where a link leads.
    ReadLink {
        /// Which.
        path: Vec<u8>,
    },
    /// Make a link.
    MakeLink {
        /// Its path.
        path: Vec<u8>,
        /// Where it leads.
        target: Vec<u8>,
    },
    /// Give a file or directory its permissions and its time of change.
    SetAttributes {
        /// Which.
        path: Vec<u8>,
        /// Permissions, whatever the umask.
        mode: u32,
        /// In nanoseconds since 1970.
        changed: i64,
    },
    /// Leave so many bytes of a file that is written as a hole.
    Skip {
        /// Where.
        handle: u32,
        /// How many.
        bytes: u32,
    },
    /// Begin to lay something out at a path: what is there goes now, and goes with the program unless it is put in its place.
    Stage {
        /// Where.
        path: Vec<u8>,
    },
    /// Put what was laid out in the place of whatever has the name.
    Settle {
        /// Where it was laid out.
        from: Vec<u8>,
        /// Where it belongs.
        to: Vec<u8>,
    },
    /// Start a program with the call's own variables: without input, its errors to nobody, its output for [`Op::Read`].
    Run {
        /// Where.
        directory: Vec<u8>,
        /// The program, found as a shell finds it, and its arguments.
        arguments: Vec<Vec<u8>>,
    },
    /// Wait for the end of a program; what of its output was not read is lost.
    Wait {
        /// Which.
        handle: u32,
    },
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is written may be secret.
        write!(f, "Op({})", self.kind())
    }
}

/// A file that is to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where.
    pub path: Vec<u8>,
    /// Permissions, whatever the umask.
    pub mode: u32,
    /// When it was changed, in nanoseconds since 1970.
    pub changed: i64,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for NewFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is written may be secret.
        f.debug_struct("NewFile").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Which file it is, and when it was touched: who only reads and writes files cannot make two that agree in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The last change of its bytes or attributes, in nanoseconds since 1970, as the file system notes it by itself.
    pub touched: i64,
    /// Its number in its file system.
    pub inode: u64,
    /// Its file system's number.
    pub device: u64,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub bytes: u64,
    /// Its permissions.
    pub mode: u32,
    /// When it was changed, in nanoseconds since 1970.
    pub changed: i64,
    /// Which it is.
    pub stamp: Stamp,
}

/// What something in a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link.
    Link,
    /// Anything else.
    Other,
}

/// What the program answers.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// Bytes that were read.
    Bytes(Vec<u8>),
    /// What a path is.
    Found(Seen),
    /// Names in a directory, with what they are.
    Looked(Vec<(Vec<u8>, Seen)>),
    /// Files were made.
    Laid {
        /// What time it is now, in nanoseconds since 1970.
        at: i64,
        /// Which they are, in order.
        stamps: Vec<Stamp>,
    },
    /// Something is open.
    Handle(u32),
    /// Names in a directory, with what they are.
    Entries(Vec<(Vec<u8>, Kind)>),
    /// The operating system refused, with this number; 0 where it gave none.
    Failed(i32),
    /// A program has ended with this status; 128 and its number where a signal ended it.
    Ended(i32),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Found(seen) => write!(f, "Found({:?}, {} bytes, {:o})", seen.kind, seen.bytes, seen.mode),
            Self::Looked(looked) => write!(f, "Looked({})", looked.len()),
            Self::Laid { at: _, stamps } => write!(f, "Laid({})", stamps.len()),
            Self::Handle(handle) => write!(f, "Handle({handle})"),
            Self::Entries(entries) => write!(f, "Entries({})", entries.len()),
            Self::Failed(errno) => write!(f, "Failed({errno})"),
            Self::Ended(status) => write!(f, "Ended({status})"),
        }
    }
}

impl Hello {
    /// Its frame.
    ///
    /// # Errors
    /// [`Bad::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, Bad> {
        let mut out = Out::new(VERSION);
        out.raw(&self.call);
        out.raw(&[self.streams]);
        out.list(&self.arguments)?;
        out.bytes(&self.directory)?;
        out.list(&self.environment)?;
        out.frame()
    }

    /// Reads one from a frame's bytes.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut of = In(bytes);
        let version = of.byte()?;
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let call = of.array()?;
        let streams = of.byte()?;
        if streams > 15 {
            return Err(Bad::Unknown);
        }
        let hello = Self {
            call,
            streams,
            arguments: of.list(HANDS_ARGUMENTS_MAX)?,
            directory: of.bytes(HANDS_PATH_MAX_BYTES)?,
            environment: of.list(HANDS_ARGUMENTS_MAX)?,
        };
        of.end(hello)
    }
}

impl Op {
    const fn kind(&self) -> u8 {
        match self {
            Self::Exit { .. } => 0,
            Self::Write { .. } => 1,
            Self::ReadInput => 2,
            Self::Stat { .. } => 3,
            Self::OpenDirectory { .. } => 4,
            Self::Entries { .. } => 5,
            Self::OpenFile { .. } => 6,
            Self::Read { .. } => 7,
            Self::Create { .. } => 8,
            Self::Put { .. } => PUT,
            Self::Close { .. } => 10,
            Self::MakeDirectories { .. } => 11,
            Self::Rename { .. } => 12,
            Self::Remove { .. } => 13,
            Self::Run { .. } => 14,
            Self::Wait { .. } => 15,
            Self::ReadLink { .. } => 16,
            Self::MakeLink { .. } => 17,
            Self::SetAttributes { .. } => 18,
            Self::Skip { .. } => 19,
            Self::Stage { .. } => 20,
            Self::Settle { .. } => 21,
            Self::Look { .. } => 22,
            Self::Lay { .. } => 23,
        }
    }

    /// Its frame.
    ///
    /// # Errors
    /// [`Bad::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, Bad> {
        let mut out = Out::new(self.kind());
        match self {
            Self::Exit { status } => out.raw(&[*status]),
            Self::Write { to, bytes } => {
                out.raw(&[match to {
                    Stream::Output => 1,
                    Stream::Errors => 2,
                }]);
                out.bytes(bytes)?;
            }
            Self::ReadInput => {}
            Self::Stat { path, follow } => {
                out.raw(&[u8::from(*follow)]);
                out.bytes(path)?;
            }
            Self::OpenDirectory { path }
            | Self::OpenFile { path }
            | Self::MakeDirectories { path }
            | Self::ReadLink { path }
            | Self::Stage { path }
            | Self::Remove { path } => out.bytes(path)?,
            Self::MakeLink { path, target } => {
                out.bytes(path)?;
                out.bytes(target)?;
            }
            Self::SetAttributes { path, mode, changed } => {
                out.raw(&mode.to_le_bytes());
                out.raw(&changed.to_le_bytes());
                out.bytes(path)?;
            }
            Self::Skip { handle, bytes } => {
                out.raw(&handle.to_le_bytes());
                out.raw(&bytes.to_le_bytes());
            }
            Self::Run { directory, arguments } => {
                out.bytes(directory)?;
                out.list(arguments)?;
            }
            Self::Entries { handle }
            | Self::Look { handle }
            | Self::Read { handle }
            | Self::Close { handle }
            | Self::Wait { handle } => out.raw(&handle.to_le_bytes()),
            Self::Lay { files } => {
                out.count(files.len())?;
                for NewFile { path, mode, changed, bytes } in files {
                    out.raw(&mode.to_le_bytes());
                    out.raw(&changed.to_le_bytes());
                    out.bytes(path)?;
                    out.bytes(bytes)?;
                }
            }
            Self::Create { path, mode } => {
                out.raw(&mode.to_le_bytes());
                out.bytes(path)?;
            }
            Self::Put { handle, bytes } => {
                out.raw(&handle.to_le_bytes());
                out.bytes(bytes)?;
            }
            Self::Rename { from, to } | Self::Settle { from, to } => {
                out.bytes(from)?;
                out.bytes(to)?;
            }
        }
        out.frame()
    }

    /// Reads one from a frame's bytes.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut of = In(bytes);
        let op = match of.byte()? {
            0 => Self::Exit { status: of.byte()? },
            1 => Self::Write { to: of.stream()?, bytes: of.bytes(HANDS_CHUNK_BYTES)? },
            2 => Self::ReadInput,
            3 => Self::Stat { follow: of.flag()?, path: of.path()? },
            4 => Self::OpenDirectory { path: of.path()? },
            5 => Self::Entries { handle: of.number()? },
            6 => Self::OpenFile { path: of.path()? },
            7 => Self::Read { handle: of.number()? },
            8 => Self::Create { mode: of.number()?, path: of.path()? },
            PUT => Self::Put { handle: of.number()?, bytes: of.bytes(HANDS_CHUNK_BYTES)? },
            10 => Self::Close { handle: of.number()? },
            11 => Self::MakeDirectories { path: of.path()? },
            12 => Self::Rename { from: of.path()?, to: of.path()? },
            13 => Self::Remove { path: of.path()? },
            14 => Self::Run { directory: of.path()?, arguments: of.list(HANDS_ARGUMENTS_MAX)? },
            15 => Self::Wait { handle: of.number()? },
            16 => Self::ReadLink { path: of.path()? },
            17 => Self::MakeLink { path: of.path()?, target: of.path()? },
            18 => {
                Self::SetAttributes { mode: of.number()?, changed: i64::from_le_bytes(of.array()?), path: of.path()? }
            }
            19 => Self::Skip { handle: of.number()?, bytes: of.number()? },
            20 => Self::Stage { path: of.path()? },
            21 => Self::Settle { from: of.path()?, to: of.path()? },
            22 => Self::Look { handle: of.number()? },
            23 => Self::Lay { files: of.files()? },
            _ => return Err(Bad::Unknown),
        };
        of.end(op)
    }
}

impl Answer {
    /// Its frame.
    ///
    /// # Errors
    /// [`Bad::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, Bad> {
        match self {
            Self::Done => Out::new(0).frame(),
            Self::Bytes(bytes) => {
                let mut out = Out::new(BYTES);
                out.bytes(bytes)?;
                out.frame()
            }
            Self::Found(seen) => {
                let mut out = Out::new(2);
                out.seen(seen);
                out.frame()
            }
            Self::Looked(looked) => {
                let mut out = Out::new(7);
                out.count(looked.len())?;
                for (name, seen) in looked {
                    out.seen(seen);
                    out.bytes(name)?;
                }
                out.frame()
            }
            Self::Laid { at, stamps } => {
                let mut out = Out::new(8);
                out.raw(&at.to_le_bytes());
                out.count(stamps.len())?;
                stamps.iter().for_each(|stamp| out.stamp(stamp));
                out.frame()
            }
            Self::Handle(handle) => {
                let mut out = Out::new(3);
                out.raw(&handle.to_le_bytes());
                out.frame()
            }
            Self::Entries(entries) => {
                let mut out = Out::new(4);
                out.count(entries.len())?;
                for (name, kind) in entries {
                    out.raw(&[kind.number()]);
                    out.bytes(name)?;
                }
                out.frame()
            }
            Self::Failed(errno) => {
                let mut out = Out::new(5);
                out.raw(&errno.to_le_bytes());
                out.frame()
            }
            Self::Ended(status) => {
                let mut out = Out::new(6);
                out.raw(&status.to_le_bytes());
                out.frame()
            }
        }
    }

    /// Reads one from a frame's bytes.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut of = In(bytes);
        let answer = match of.byte()? {
            0 => Self::Done,
            BYTES => Self::Bytes(of.bytes(HANDS_CHUNK_BYTES)?),
            2 => Self::Found(of.seen()?),
            3 => Self::Handle(of.number()?),
            4 => {
                // Each has six bytes at least: what a frame cannot hold is not made room for.
                let count = of.count(HANDS_ENTRIES_MAX, 6)?;
                let mut entries = Vec::with_capacity(count);
                for _ in 0..count {
                    let kind = of.kind()?;
                    entries.push((of.name()?, kind));
                }
                Self::Entries(entries)
            }
            5 => Self::Failed(i32::from_le_bytes(of.array()?)),
            6 => Self::Ended(i32::from_le_bytes(of.array()?)),
            7 => {
                let count = of.count(HANDS_ENTRIES_MAX, SEEN_BYTES + 5)?;
                let mut looked = Vec::with_capacity(count);
                for _ in 0..count {
                    let seen = of.seen()?;
                    looked.push((of.name()?, seen));
                }
                Self::Looked(looked)
            }
            8 => {
                let at = i64::from_le_bytes(of.array()?);
                let count = of.count(HANDS_LAY_FILES_MAX, STAMP_BYTES)?;
                Self::Laid { at, stamps: (0..count).map(|_| of.stamp()).collect::<Result<_, _>>()? }
            }
            _ => return Err(Bad::Unknown),
        };
        of.end(answer)
    }
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Directory => 1,
            Self::Link => 2,
            Self::Other => 3,
        }
    }
}

/// The length that a frame's first bytes tell.
///
/// # Errors
/// [`Bad::TooLong`].
pub fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, Bad> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > HANDS_FRAME_MAX_BYTES { Err(Bad::TooLong) } else { Ok(length) }
}

/// Where the bytes of an [`Answer::Bytes`] begin in its frame; `None` of another answer. What it spares is a copy.
///
/// # Errors
/// [`Bad`].
pub fn piece(frame: &[u8]) -> Result<Option<usize>, Bad> {
    let mut of = In(frame);
    if of.byte()? != BYTES {
        return Ok(None);
    }
    let length = of.number()? as usize;
    if length > HANDS_CHUNK_BYTES {
        return Err(Bad::Limit);
    }
    of.take(length)?;
    of.end(Some(frame.len() - length))
}

/// The handle and the bytes of an [`Op::Put`]; `None` of another question. What it spares is a copy.
///
/// # Errors
/// [`Bad`].
pub fn put(frame: &[u8]) -> Result<Option<(u32, &[u8])>, Bad> {
    let mut of = In(frame);
    if of.byte()? != PUT {
        return Ok(None);
    }
    let (handle, length) = (of.number()?, of.number()? as usize);
    if length > HANDS_CHUNK_BYTES {
        return Err(Bad::Limit);
    }
    let bytes = of.take(length)?;
    of.end(Some((handle, bytes)))
}

/// What goes before the bytes in the frame of an [`Op::Put`].
///
/// # Errors
/// [`Bad::TooLong`].
pub fn put_head(handle: u32, bytes: usize) -> Result<[u8; PUT_HEAD_BYTES], Bad> {
    head(PUT, &handle.to_le_bytes(), bytes)
}

/// What goes before the bytes in the frame of an [`Answer::Bytes`].
///
/// # Errors
/// [`Bad::TooLong`].
pub fn piece_head(bytes: usize) -> Result<[u8; PIECE_HEAD_BYTES], Bad> {
    head(BYTES, &[], bytes)
}

fn head<const N: usize>(kind: u8, fields: &[u8], bytes: usize) -> Result<[u8; N], Bad> {
    if bytes > HANDS_CHUNK_BYTES {
        return Err(Bad::TooLong);
    }
    let number = |bytes: usize| u32::try_from(bytes).map(u32::to_le_bytes).map_err(|_| Bad::TooLong);
    let (frame, bytes) = (number(N - LENGTH_BYTES + bytes)?, number(bytes)?);
    let mut head = [0; N];
    let parts = [&frame[..], &[kind], fields, &bytes];
    for (to, from) in head.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    Ok(head)
}

/// A frame that is being made.
pub(crate) struct Out(Vec<u8>);

impl Out {
    pub(crate) fn new(first: u8) -> Self {
        Self(vec![0, 0, 0, 0, first])
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) -> Result<(), Bad> {
        let count = u32::try_from(count).map_err(|_| Bad::TooLong)?;
        self.raw(&count.to_le_bytes());
        Ok(())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        self.count(bytes.len())?;
        self.raw(bytes);
        Ok(())
    }

    pub(crate) fn list(&mut self, list: &[Vec<u8>]) -> Result<(), Bad> {
        self.count(list.len())?;
        list.iter().try_for_each(|one| self.bytes(one))
    }

    fn stamp(&mut self, stamp: &Stamp) {
        self.raw(&stamp.touched.to_le_bytes());
        self.raw(&stamp.inode.to_le_bytes());
        self.raw(&stamp.device.to_le_bytes());
    }

    fn seen(&mut self, seen: &Seen) {
        self.raw(&[seen.kind.number()]);
        self.raw(&seen.bytes.to_le_bytes());
        self.raw(&seen.mode.to_le_bytes());
        self.raw(&seen.changed.to_le_bytes());
        self.stamp(&seen.stamp);
    }

    pub(crate) fn frame(mut self) -> Result<Vec<u8>, Bad> {
        let length = self.0.len() - LENGTH_BYTES;
        if length > HANDS_FRAME_MAX_BYTES {
            return Err(Bad::TooLong);
        }
        let length = u32::try_from(length).map_err(|_| Bad::TooLong)?;
        self.0[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(self.0)
    }
}

/// What is left of a frame.
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Bad::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Bad::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Bad> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn number(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Bad> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad::Unknown),
        }
    }

    pub(crate) fn stream(&mut self) -> Result<Stream, Bad> {
        match self.byte()? {
            1 => Ok(Stream::Output),
            2 => Ok(Stream::Errors),
            _ => Err(Bad::Unknown),
        }
    }

    pub(crate) fn kind(&mut self) -> Result<Kind, Bad> {
        match self.byte()? {
            0 => Ok(Kind::File),
            1 => Ok(Kind::Directory),
            2 => Ok(Kind::Link),
            3 => Ok(Kind::Other),
            _ => Err(Bad::Unknown),
        }
    }

    fn stamp(&mut self) -> Result<Stamp, Bad> {
        Ok(Stamp {
            touched: i64::from_le_bytes(self.array()?),
            inode: u64::from_le_bytes(self.array()?),
            device: u64::from_le_bytes(self.array()?),
        })
    }

    fn seen(&mut self) -> Result<Seen, Bad> {
        Ok(Seen {
            kind: self.kind()?,
            bytes: u64::from_le_bytes(self.array()?),
            mode: self.number()?,
            changed: i64::from_le_bytes(self.array()?),
            stamp: self.stamp()?,
        })
    }

    /// A name in a directory, which leads nowhere else.
    fn name(&mut self) -> Result<Vec<u8>, Bad> {
        let name = self.bytes(HANDS_PATH_MAX_BYTES)?;
        if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
            return Err(Bad::Unknown);
        }
        Ok(name)
    }

    fn files(&mut self) -> Result<Vec<NewFile>, Bad> {
        let count = self.count(HANDS_LAY_FILES_MAX, 4 + 8 + 4 + 4)?;
        let (mut files, mut room) = (Vec::with_capacity(count), HANDS_LAY_MAX_BYTES);
        for _ in 0..count {
            let (mode, changed) = (self.number()?, i64::from_le_bytes(self.array()?));
            let (path, bytes) = (self.path()?, self.bytes(room)?);
            room -= bytes.len();
            files.push(NewFile { path, mode, changed, bytes });
        }
        Ok(files)
    }

    /// How many follow, each of at least `each` bytes.
    pub(crate) fn count(&mut self, max: usize, each: usize) -> Result<usize, Bad> {
        let count = self.number()? as usize;
        if count > max {
            return Err(Bad::Limit);
        }
        if count.saturating_mul(each) > self.0.len() {
            return Err(Bad::Short);
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self, max: usize) -> Result<Vec<u8>, Bad> {
        let length = self.number()? as usize;
        if length > max {
            return Err(Bad::Limit);
        }
        self.take(length).map(<[u8]>::to_vec)
    }

    pub(crate) fn path(&mut self) -> Result<Vec<u8>, Bad> {
        self.bytes(HANDS_PATH_MAX_BYTES)
    }

    pub(crate) fn list(&mut self, max: usize) -> Result<Vec<Vec<u8>>, Bad> {
        let count = self.count(max, 4)?;
        (0..count).map(|_| self.bytes(HANDS_FRAME_MAX_BYTES)).collect()
    }

    pub(crate) fn end<T>(self, value: T) -> Result<T, Bad> {
        if self.0.is_empty() { Ok(value) } else { Err(Bad::Trailing) }
    }
}
