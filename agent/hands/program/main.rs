//! The program that jobs call as `buildkite-agent` and `windlass`: it connects to its job's socket, says how it was
//! called, and does what it is told. It decides nothing. By another name it is a job's bootstrap, see `bootstrap`.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of one file, which speaks and ends by itself"
)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, ReadDir};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use limits::{HANDS_CHUNK_BYTES, HANDS_ENTRIES_MAX, HANDS_HANDLES_MAX, HANDS_PATIENCE_MS, HANDS_RETRY_MS};
use wire::{Answer, Hello, Kind, LENGTH_BYTES, NewFile, Op, PIECE_HEAD_BYTES, Seen, Stamp, Stream};

mod agent;
mod bootstrap;
mod checkout;
mod child;
mod exchange;
mod hook;
#[path = "../../../protocol/src/limits.rs"]
#[allow(dead_code, unused_imports, reason = "this program is bound by a few of them")]
mod limits;
#[path = "../src/phases.rs"]
mod phases;
#[path = "../src/plan.rs"]
#[allow(dead_code, reason = "the other side's half is here too")]
mod plan;
mod tree;
#[path = "../src/wire.rs"]
#[allow(dead_code, reason = "the other side's half is here too")]
mod wire;

/// The longest path that a socket's address holds.
const ADDRESS_MAX_BYTES: usize = 107;

fn main() {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == plan::BOOTSTRAP) {
        std::process::exit(i32::from(as_bootstrap(words.next())));
    }
    as_command();
}

/// What a job's first process does, and what the wrapper of a hook asks it for.
fn as_bootstrap(word: Option<OsString>) -> u8 {
    match word {
        Some(word) if word == "show" => u8::from(hook::show().is_err()),
        Some(plan) => bootstrap::bootstrap(Path::new(&plan)),
        None => give_up("a job's bootstrap is started by its agent, with a plan"),
    }
}

fn as_command() {
    let Some(socket) = std::env::var_os("WINDLASS_JOB_SOCKET") else {
        give_up("this command works inside a job of Windlass only: WINDLASS_JOB_SOCKET is not set");
    };
    let hello = hello().encode().unwrap_or_else(|error| give_up(&format!("how it was called cannot be told: {error}")));
    let mut body = Body::default();
    let give_up_at = Instant::now() + Duration::from_millis(HANDS_PATIENCE_MS);
    let mut told = false;
    loop {
        // An agent that starts again, for an upgrade, is back in a moment. A call that has touched nothing yet begins
        // anew; its number makes that safe.
        let served = serve(Path::new(&socket), &hello, &mut body);
        body.stages.clear();
        let error = match served {
            Ok(status) => std::process::exit(i32::from(status)),
            Err(error) => error,
        };
        if body.touched || error.kind() == ErrorKind::PermissionDenied || Instant::now() >= give_up_at {
            give_up(&format!("the agent cannot be reached: {error}"));
        }
        if !told {
            eprintln!("windlass: the agent cannot be reached ({error}); waiting for it");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(HANDS_RETRY_MS));
    }
}

fn give_up(why: &str) -> ! {
    eprintln!("windlass: {why}");
    std::process::exit(1);
}

fn hello() -> Hello {
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend_from_slice(value.as_bytes());
        variable
    });
    Hello {
        call: call_number(),
        streams: u8::from(io::stdin().is_terminal())
            | u8::from(io::stdout().is_terminal()) << 1
            | u8::from(io::stderr().is_terminal()) << 2
            | u8::from(is_given()) << 3,
        arguments: std::env::args_os().map(OsStringExt::into_vec).collect(),
        directory: std::env::current_dir().map(|path| path.into_os_string().into_vec()).unwrap_or_default(),
        environment: environment.collect(),
    }
}

/// A number that no other call has.
fn call_number() -> [u8; 16] {
    let mut call = [0; 16];
    for half in call.chunks_mut(8) {
        // The operating system's randomness, by the only way that the standard library has to it.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    call
}

/// Whether somebody gave it an input: a pipe or a file, and no device.
fn is_given() -> bool {
    let input = io::stdin().as_fd().try_clone_to_owned().and_then(|input| File::from(input).metadata());
    input.is_ok_and(|input| !input.file_type().is_char_device())
}

/// Connects and obeys until it is told to end; the status to end with.
fn serve(socket: &Path, hello: &[u8], body: &mut Body) -> io::Result<u8> {
    let mut stream = connect(socket)?;
    body.handles.clear();
    stream.write_all(hello)?;
    let (mut frame, mut piece) = (Vec::new(), Vec::new());
    loop {
        let frame = receive(&mut stream, &mut frame)?;
        // Pieces of files are the bulk of what is said: they are written from where they came, and sent from where they were read.
        let done = match wire::put(frame).map_err(bad)? {
            Some((handle, bytes)) => body.put(handle, bytes),
            None => match Op::decode(frame).map_err(bad)? {
                Op::Exit { status } => return Ok(status),
                Op::Read { handle } => match body.read(handle, &mut piece) {
                    Ok(whole) => {
                        stream.write_all(whole)?;
                        continue;
                    }
                    Err(error) => Err(error),
                },
                op => body.act(op),
            },
        };
        let answer = done.unwrap_or_else(|error| Answer::Failed(error.raw_os_error().unwrap_or(0)));
        stream.write_all(&answer.encode().map_err(bad)?)?;
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= ADDRESS_MAX_BYTES {
        return UnixStream::connect(socket);
    }
    // Its directory stands for the part that is too long.
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let directory = File::open(parent)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// The next frame, in a buffer that only grows.
fn receive<'a>(stream: &mut UnixStream, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let length = wire::length(length).map_err(bad)?;
    buffer.resize(buffer.len().max(length), 0);
    let frame = &mut buffer[..length];
    stream.read_exact(frame)?;
    Ok(frame)
}

fn bad(error: wire::Bad) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Something that is open.
enum Open {
    File(File),
    Directory(ReadDir),
    Program(Child),
}

/// What the program has done and holds open.
#[derive(Default)]
struct Body {
    /// Something was read or written that another try would read or write again.
    touched: bool,
    handles: HashMap<u32, Open>,
    next: u32,
    stages: tree::Stages,
}

impl Body {
    fn act(&mut self, op: Op) -> io::Result<Answer> {
        match op {
            // Taken by who reads the frames.
            Op::Exit { .. } | Op::Read { .. } | Op::Put { .. } => return Err(ErrorKind::InvalidInput.into()),
            Op::Write { to, bytes } => {
                self.touched = true;
                write(to, &bytes)?;
            }
            Op::ReadInput => {
                self.touched = true;
                let mut bytes = vec![0; HANDS_CHUNK_BYTES];
                let count = some_of(&mut io::stdin().lock(), &mut bytes)?;
                bytes.truncate(count);
                return Ok(Answer::Bytes(bytes));
            }
            Op::Stat { path, follow } => {
                let path = path_of(path);
                let found = if follow { path.metadata() } else { path.symlink_metadata() }?;
                return Ok(Answer::Found(seen(&found)));
            }
            Op::OpenDirectory { path } => return self.open(Open::Directory(path_of(path).read_dir()?)),
            Op::OpenFile { path } => return self.open(Open::File(open(&path_of(path))?)),
            Op::Entries { handle } => return self.entries(handle),
            Op::Look { handle } => return self.look(handle),
            Op::Lay { files } => {
                self.touched |= !files.is_empty();
                let stamps = files.into_iter().map(lay).collect::<io::Result<_>>()?;
                return Ok(Answer::Laid { at: tree::nanoseconds(SystemTime::now()), stamps });
            }
            Op::Create { path, mode } => {
                self.touched = true;
                let file = OpenOptions::new().write(true).create_new(true).mode(mode & 0o777).open(path_of(path))?;
                return self.open(Open::File(file));
            }
            Op::Close { handle } => {
                if let Some(Open::Program(mut child)) = self.handles.remove(&handle) {
                    child.kill()?;
                    child.wait()?;
                }
            }
            Op::Run { directory, arguments } => return self.run(directory, arguments),
            Op::Wait { handle } => return self.wait(handle),
            Op::MakeDirectories { path } => DirBuilder::new().recursive(true).create(path_of(path))?,
            Op::Rename { from, to } => {
                self.touched = true;
                std::fs::rename(path_of(from), path_of(to))?;
            }
            Op::ReadLink { path } => {
                let target = path_of(path).read_link()?;
                return Ok(Answer::Bytes(target.into_os_string().into_vec()));
            }
            Op::MakeLink { path, target } => std::os::unix::fs::symlink(path_of(target), path_of(path))?,
            Op::SetAttributes { path, mode, changed } => tree::set_attributes(&path_of(path), mode, changed)?,
            Op::Skip { handle, bytes } => {
                let file = self.file(handle)?;
                let at = file.seek(SeekFrom::Current(i64::from(bytes)))?;
                file.set_len(at)?;
            }
            Op::Stage { path } => {
                self.touched = true;
                self.stages.begin(path_of(path))?;
            }
            Op::Settle { from, to } => self.stages.settle(&path_of(from), &path_of(to))?,
            Op::Remove { path } => {
                self.touched = true;
                std::fs::remove_file(path_of(path))?;
            }
        }
        Ok(Answer::Done)
    }

    fn open(&mut self, open: Open) -> io::Result<Answer> {
        if self.handles.len() >= HANDS_HANDLES_MAX {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        self.next = self.next.wrapping_add(1);
        self.handles.insert(self.next, open);
        Ok(Answer::Handle(self.next))
    }

    fn file(&mut self, handle: u32) -> io::Result<&mut File> {
        match self.handles.get_mut(&handle) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// The answer with the next bytes of what is open, in a buffer that is used again.
    fn read<'a>(&mut self, handle: u32, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        buffer.resize(PIECE_HEAD_BYTES + HANDS_CHUNK_BYTES, 0);
        let (head, bytes) = buffer.split_at_mut(PIECE_HEAD_BYTES);
        let count = match self.handles.get_mut(&handle) {
            Some(Open::File(file)) => some_of(file, bytes)?,
            Some(Open::Program(Child { stdout: Some(output), .. })) => some_of(output, bytes)?,
            _ => return Err(ErrorKind::InvalidInput.into()),
        };
        head.copy_from_slice(&wire::piece_head(count).map_err(bad)?);
        Ok(&buffer[..PIECE_HEAD_BYTES + count])
    }

    fn put(&mut self, handle: u32, bytes: &[u8]) -> io::Result<Answer> {
        self.file(handle)?.write_all(bytes)?;
        Ok(Answer::Done)
    }

    fn run(&mut self, directory: Vec<u8>, arguments: Vec<Vec<u8>>) -> io::Result<Answer> {
        self.touched = true;
        let mut words = arguments.into_iter().map(OsString::from_vec);
        let mut command = Command::new(words.next().ok_or(ErrorKind::InvalidInput)?);
        command.args(words).current_dir(path_of(directory));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn()?;
        self.open(Open::Program(child))
    }

    fn wait(&mut self, handle: u32) -> io::Result<Answer> {
        let Some(Open::Program(mut child)) = self.handles.remove(&handle) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        drop(child.stdout.take());
        let ended = child.wait()?;
        Ok(Answer::Ended(ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1)))
    }

    fn entries(&mut self, handle: u32) -> io::Result<Answer> {
        let Some(Open::Directory(directory)) = self.handles.get_mut(&handle) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let mut entries = Vec::new();
        for entry in directory.take(HANDS_ENTRIES_MAX) {
            let entry = entry?;
            entries.push((entry.file_name().into_vec(), kind(entry.file_type()?)));
        }
        Ok(Answer::Entries(entries))
    }

    fn look(&mut self, handle: u32) -> io::Result<Answer> {
        let Some(Open::Directory(directory)) = self.handles.get_mut(&handle) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let mut looked = Vec::new();
        // An answer of none is the end: what went is passed over here, and not told as that.
        while looked.is_empty() {
            let mut over = true;
            for entry in directory.take(HANDS_ENTRIES_MAX) {
                over = false;
                let entry = entry?;
                match entry.metadata() {
                    Ok(found) => looked.push((entry.file_name().into_vec(), seen(&found))),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if over {
                break;
            }
        }
        Ok(Answer::Looked(looked))
    }
}

/// Makes a file that was not there, whole.
fn lay(file: NewFile) -> io::Result<Stamp> {
    let NewFile { path, mode, changed, bytes } = file;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode & 0o777).open(path_of(path))?;
    file.write_all(&bytes)?;
    tree::set_attributes_of(&file, mode, changed)?;
    Ok(stamp(&file.metadata()?))
}

fn seen(found: &Metadata) -> Seen {
    Seen {
        kind: kind(found.file_type()),
        bytes: found.len(),
        mode: found.permissions().mode() & 0o7777,
        changed: found.modified().map_or(0, tree::nanoseconds),
        stamp: stamp(found),
    }
}

fn stamp(found: &Metadata) -> Stamp {
    let touched = found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec());
    Stamp { touched, inode: found.ino(), device: found.dev() }
}

/// Opens what is no directory; reading one fails later, and less clearly.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(21));
    }
    Ok(file)
}

fn some_of(from: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn write(to: Stream, bytes: &[u8]) -> io::Result<()> {
    match to {
        Stream::Output => {
            let mut output = io::stdout().lock();
            output.write_all(bytes)?;
            output.flush()
        }
        Stream::Errors => io::stderr().lock().write_all(bytes),
    }
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

fn kind(found: std::fs::FileType) -> Kind {
    if found.is_file() {
        Kind::File
    } else if found.is_dir() {
        Kind::Directory
    } else if found.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}
