//! One command's program, as a client that is asked: every file, stream and directory of the job goes through it.
//!
//! What it says may be anything: the job may speak the protocol by itself. It is bounded here, and gains nothing, for all
//! that it decides is what the command of its own attempt sees.

mod pieces;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use windlass_hands::wire::{self, Answer, Bad, Hello, Kind, LENGTH_BYTES, NewFile, Op, Seen, Stamp, Stream};
use windlass_protocol::limits::{
    HANDS_ARGUMENTS_MAX, HANDS_CHUNK_BYTES, HANDS_FRAME_MAX_BYTES, JOB_CALLS_MAX_BYTES, JOB_HELLO_MS,
};

use self::pieces::Standing;
use super::account::{Account, Share};

/// So much of a frame has to come before room is made for all of it.
const TRUST_AFTER_BYTES: usize = 64 << 10;

/// Why a command cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandsError {
    /// Its program has ended, or its connection.
    #[error("the command's program is gone: {0}")]
    Gone(io::Error),
    /// It says what makes no sense.
    #[error(transparent)]
    Bad(#[from] Bad),
    /// It answers another question.
    #[error("the command's program answered something else")]
    Confused,
    /// The system refused it something.
    #[error("{what}: {source}")]
    Refused {
        /// What was tried, for people.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// More than is read for a command.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// Of what.
        what: String,
        /// The bound.
        max: usize,
    },
    /// All commands of the job together hold as much as they may.
    #[error(
        "this job's commands hold {JOB_CALLS_MAX_BYTES} bytes of their agent's memory, and get no more: give this one less, or call fewer at once"
    )]
    NoRoom,
    /// The agent could not finish what it did for it.
    #[error("the agent could not do it: {0}")]
    Unfinished(String),
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// Its nine permission bits.
    pub(super) mode: u16,
    /// When it was changed, in nanoseconds since 1970.
    pub(super) changed: i64,
    pub(super) stamp: Stamp,
}

impl From<Seen> for Found {
    fn from(Seen { kind, bytes, mode, changed, stamp }: Seen) -> Self {
        Self { kind, bytes, mode: u16::try_from(mode & 0o777).unwrap_or_default(), changed, stamp }
    }
}

/// A program that has said hello.
#[derive(Debug)]
pub(super) struct Hands {
    stream: UnixStream,
    standing: Standing,
    /// What it holds of its attempt's account, until it is over.
    pub(super) share: Share,
    /// The number of the call.
    pub(super) call: [u8; 16],
    /// The name it was called by, without its folders, then the arguments.
    pub(super) words: Vec<String>,
    /// Its input is a pipe or a file, and no device.
    pub(super) is_given: bool,
    /// Where it was called.
    pub(super) directory: Vec<u8>,
    /// The variables that it has.
    pub(super) environment: BTreeMap<String, String>,
}

impl Hands {
    /// Takes up a connection: its hello comes soon or never.
    pub(super) async fn greet(mut stream: UnixStream, account: &Account) -> Result<Self, HandsError> {
        let mut share = account.share();
        let hello = tokio::time::timeout(Duration::from_millis(JOB_HELLO_MS), hear(&mut stream, &mut share)).await;
        let hello = hello.map_err(|_| HandsError::Gone(io::ErrorKind::TimedOut.into())).flatten();
        match &hello {
            Err(HandsError::Bad(bad @ Bad::Version(_))) => {
                part(&mut stream, &format!("windlass: {bad}: the command and its agent are of different versions\n"))
                    .await;
            }
            Err(error @ HandsError::NoRoom) => part(&mut stream, &format!("fatal: {error}\n")).await,
            Ok(_) | Err(_) => {}
        }
        let hello = hello?;
        let mut words: Vec<String> = hello.arguments.into_iter().map(text).collect();
        if let Some(name) = words.first_mut() {
            *name = name.rsplit('/').next().unwrap_or_default().to_owned();
        }
        let variables = hello.environment.into_iter().filter_map(|mut variable| {
            let at = variable.iter().skip(1).position(|byte| *byte == b'=')? + 1;
            let value = variable.split_off(at + 1);
            variable.truncate(at);
            Some((text(variable), text(value)))
        });
        let environment = variables.collect();
        share.be(words_cost(&words) + variables_cost(&environment)).await?;
        let is_given = hello.streams & 8 != 0;
        let (standing, directory) = (Standing::default(), hello.directory);
        Ok(Self { stream, standing, share, call: hello.call, words, is_given, directory, environment })
    }

    async fn ask(&mut self, op: &Op) -> Result<Answer, HandsError> {
        self.hear_all().await?;
        self.stream.write_all(&op.encode()?).await.map_err(HandsError::Gone)?;
        self.hear().await
    }

    /// Asks for something that is only done.
    async fn have(&mut self, op: &Op, what: impl FnOnce() -> String) -> Result<(), HandsError> {
        match self.ask(op).await? {
            Answer::Done => Ok(()),
            other => Err(refused(other, what)),
        }
    }

    async fn open(&mut self, op: &Op, what: impl FnOnce() -> String) -> Result<u32, HandsError> {
        match self.ask(op).await? {
            Answer::Handle(handle) => Ok(handle),
            other => Err(refused(other, what)),
        }
    }

    /// Writes to its output.
    pub(super) async fn print(&mut self, text: &str) -> Result<(), HandsError> {
        self.write(Stream::Output, text.as_bytes()).await
    }

    /// Writes to its errors.
    pub(super) async fn complain(&mut self, text: &str) -> Result<(), HandsError> {
        self.write(Stream::Errors, text.as_bytes()).await
    }

    /// [`Self::print`], for what is no text.
    pub(super) async fn put_out(&mut self, bytes: &[u8]) -> Result<(), HandsError> {
        self.write(Stream::Output, bytes).await
    }

    async fn write(&mut self, to: Stream, bytes: &[u8]) -> Result<(), HandsError> {
        for bytes in bytes.chunks(HANDS_CHUNK_BYTES) {
            self.have(&Op::Write { to, bytes: bytes.to_vec() }, || "its output cannot be written".to_owned()).await?;
        }
        Ok(())
    }

    /// All of its input.
    pub(super) async fn read_input(&mut self, max: usize) -> Result<Vec<u8>, HandsError> {
        self.read_all(&Op::ReadInput, "the input", max).await
    }

    /// All of a file.
    pub(super) async fn read_file(&mut self, path: &str, max: usize) -> Result<Vec<u8>, HandsError> {
        let op = Op::OpenFile { path: self.absolute(path) };
        let handle = self.open(&op, || shown(path)).await?;
        let bytes = self.read_all(&Op::Read { handle }, path, max).await;
        self.close(handle).await?;
        bytes
    }

    async fn read_all(&mut self, op: &Op, what: &str, max: usize) -> Result<Vec<u8>, HandsError> {
        let mut all = Vec::new();
        loop {
            match self.ask(op).await? {
                Answer::Bytes(bytes) if bytes.is_empty() => return Ok(all),
                Answer::Bytes(bytes) if all.len() + bytes.len() <= max => {
                    // A vector that grows has room for as much again.
                    self.share.grow(2 * bytes.len()).await?;
                    all.extend_from_slice(&bytes);
                }
                Answer::Bytes(_) => return Err(HandsError::TooLarge { what: what.to_owned(), max }),
                other => return Err(refused(other, || what.to_owned())),
            }
        }
    }

    /// Runs a program as the job would, where the command was called: its status, and its output.
    pub(super) async fn run(&mut self, arguments: &[&str], max: usize) -> Result<(i32, Vec<u8>), HandsError> {
        let name = arguments.first().copied().unwrap_or_default();
        let words = arguments.iter().map(|word| word.as_bytes().to_vec()).collect();
        let op = Op::Run { directory: self.directory.clone(), arguments: words };
        let handle = self.open(&op, || name.to_owned()).await?;
        match self.read_all(&Op::Read { handle }, name, max).await {
            Ok(output) => match self.ask(&Op::Wait { handle }).await? {
                Answer::Ended(status) => Ok((status, output)),
                other => Err(refused(other, || name.to_owned())),
            },
            Err(error) => {
                self.close(handle).await?;
                Err(error)
            }
        }
    }

    /// What a path is; `None` where it is nothing.
    pub(super) async fn stat<P: AsRef<[u8]> + ?Sized>(
        &mut self,
        path: &P,
        follow: bool,
    ) -> Result<Option<Found>, HandsError> {
        match self.ask(&Op::Stat { path: self.absolute(path), follow }).await? {
            Answer::Found(seen) => Ok(Some(seen.into())),
            Answer::Failed(errno) if is_nothing(errno) => Ok(None),
            other => Err(refused(other, || shown(path))),
        }
    }

    /// Opens a directory; `None` where there is none of this name.
    pub(super) async fn open_directory<P: AsRef<[u8]> + ?Sized>(
        &mut self,
        path: &P,
    ) -> Result<Option<u32>, HandsError> {
        match self.ask(&Op::OpenDirectory { path: self.absolute(path) }).await? {
            Answer::Handle(handle) => Ok(Some(handle)),
            Answer::Failed(errno) if is_nothing(errno) => Ok(None),
            other => Err(refused(other, || shown(path))),
        }
    }

    /// The next names in an open directory, as they come; none is its end.
    pub(super) async fn entries<P: AsRef<[u8]> + ?Sized>(
        &mut self,
        handle: u32,
        path: &P,
    ) -> Result<Vec<(Vec<u8>, Kind)>, HandsError> {
        match self.ask(&Op::Entries { handle }).await? {
            Answer::Entries(entries) => Ok(entries),
            other => Err(refused(other, || shown(path))),
        }
    }

    /// As [`Self::entries`], each with what it is.
    pub(super) async fn look(&mut self, handle: u32, path: &[u8]) -> Result<Vec<(Vec<u8>, Found)>, HandsError> {
        match self.ask(&Op::Look { handle }).await? {
            Answer::Looked(looked) => Ok(looked.into_iter().map(|(name, seen)| (name, seen.into())).collect()),
            other => Err(refused(other, || shown(path))),
        }
    }

    /// Makes files that were not there, whole: what time it is then, in nanoseconds since 1970, and which they are.
    pub(super) async fn lay(&mut self, files: Vec<NewFile>) -> Result<(i64, Vec<Stamp>), HandsError> {
        let count = files.len();
        let first = files.first().map(|file| file.path.clone()).unwrap_or_default();
        match self.ask(&Op::Lay { files }).await? {
            Answer::Laid { at, stamps } if stamps.len() == count => Ok((at, stamps)),
            Answer::Laid { .. } => Err(HandsError::Confused),
            other => Err(refused(other, || format!("{} or one after it", shown(&first)))),
        }
    }

    /// Opens a file, to be read piece by piece.
    pub(super) async fn open_file<P: AsRef<[u8]> + ?Sized>(&mut self, path: &P) -> Result<u32, HandsError> {
        let op = Op::OpenFile { path: self.absolute(path) };
        self.open(&op, || shown(path)).await
    }

    /// Makes a directory, and those above it.
    pub(super) async fn make_directories<P: AsRef<[u8]> + ?Sized>(&mut self, path: &P) -> Result<(), HandsError> {
        let op = Op::MakeDirectories { path: self.absolute(path) };
        self.have(&op, || shown(path)).await
    }

    /// Makes a file that was not there, to be written piece by piece.
    pub(super) async fn create<P: AsRef<[u8]> + ?Sized>(&mut self, path: &P, mode: u32) -> Result<u32, HandsError> {
        let op = Op::Create { path: self.absolute(path), mode };
        self.open(&op, || shown(path)).await
    }

    /// Gives a file another name, over whatever has it.
    pub(super) async fn rename(&mut self, from: &str, to: &str) -> Result<(), HandsError> {
        let op = Op::Rename { from: self.absolute(from), to: self.absolute(to) };
        self.have(&op, || to.to_owned()).await
    }

    /// Removes a file.
    pub(super) async fn remove<P: AsRef<[u8]> + ?Sized>(&mut self, path: &P) -> Result<(), HandsError> {
        let op = Op::Remove { path: self.absolute(path) };
        self.have(&op, || shown(path)).await
    }

    /// Is done with what is open. What of it could not be written is said here at the latest; it is closed all the same.
    pub(super) async fn close(&mut self, handle: u32) -> Result<(), HandsError> {
        let heard = self.hear_all().await;
        if matches!(heard, Ok(()) | Err(HandsError::Refused { .. })) {
            self.have(&Op::Close { handle }, || "a file cannot be closed".to_owned()).await?;
        }
        heard
    }

    /// Is done with what nobody wants any more: how the last of it was written is not asked.
    pub(super) async fn abandon(&mut self, handle: u32) -> Result<(), HandsError> {
        self.pass_over().await?;
        self.close(handle).await
    }

    /// A path as the command means it.
    pub(super) fn absolute<P: AsRef<[u8]> + ?Sized>(&self, path: &P) -> Vec<u8> {
        let path = path.as_ref();
        if path.starts_with(b"/") {
            return path.to_vec();
        }
        let mut whole = self.directory.clone();
        whole.push(b'/');
        whole.extend_from_slice(path);
        whole
    }

    /// Where a link leads.
    pub(super) async fn read_link<P: AsRef<[u8]> + ?Sized>(&mut self, path: &P) -> Result<Vec<u8>, HandsError> {
        match self.ask(&Op::ReadLink { path: self.absolute(path) }).await? {
            Answer::Bytes(target) => Ok(target),
            other => Err(refused(other, || shown(path))),
        }
    }

    /// Makes a link.
    pub(super) async fn make_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), HandsError> {
        let op = Op::MakeLink { path: self.absolute(path), target: target.to_vec() };
        self.have(&op, || shown(path)).await
    }

    /// Gives a file or directory its permissions and its time of change.
    pub(super) async fn set_attributes(&mut self, path: &[u8], mode: u16, changed: i64) -> Result<(), HandsError> {
        let op = Op::SetAttributes { path: self.absolute(path), mode: u32::from(mode), changed };
        self.have(&op, || shown(path)).await
    }

    /// Leaves so many bytes of an open file as a hole.
    pub(super) async fn skip(&mut self, handle: u32, path: &[u8], bytes: usize) -> Result<(), HandsError> {
        let bytes = u32::try_from(bytes).map_err(|_| HandsError::Confused)?;
        self.have(&Op::Skip { handle, bytes }, || shown(path)).await
    }

    /// Begins to lay something out, which goes with the program unless it is put in its place.
    pub(super) async fn stage(&mut self, path: &[u8]) -> Result<(), HandsError> {
        self.have(&Op::Stage { path: self.absolute(path) }, || shown(path)).await
    }

    /// Puts what was laid out in the place of what is there.
    pub(super) async fn settle(&mut self, from: &[u8], to: &[u8]) -> Result<(), HandsError> {
        let op = Op::Settle { from: self.absolute(from), to: self.absolute(to) };
        self.have(&op, || shown(to)).await
    }

    /// Waits until the program is gone, while nothing is asked of it. What it says unasked ends it too.
    pub(super) async fn gone(&mut self) -> HandsError {
        match self.stream.read_u8().await {
            Ok(_) => HandsError::Confused,
            Err(error) => HandsError::Gone(error),
        }
    }

    /// Ends the program.
    pub(super) async fn exit(mut self, status: u8) -> Result<(), HandsError> {
        self.pass_over().await?;
        let frame = Op::Exit { status }.encode()?;
        self.stream.write_all(&frame).await.map_err(HandsError::Gone)
    }
}

/// A path for people.
pub(super) fn shown<P: AsRef<[u8]> + ?Sized>(path: &P) -> String {
    String::from_utf8_lossy(path.as_ref()).into_owned()
}

/// Whether a number of the system says that there is nothing of this name: ENOENT or ENOTDIR.
const fn is_nothing(errno: i32) -> bool {
    matches!(errno, 2 | 20)
}

fn refused(answer: Answer, what: impl FnOnce() -> String) -> HandsError {
    match answer {
        Answer::Failed(0) => HandsError::Refused { what: what(), source: io::Error::other("the command refused") },
        Answer::Failed(errno) => HandsError::Refused { what: what(), source: io::Error::from_raw_os_error(errno) },
        Answer::Done
        | Answer::Bytes(_)
        | Answer::Found(_)
        | Answer::Looked(_)
        | Answer::Laid { .. }
        | Answer::Handle(_)
        | Answer::Entries(_)
        | Answer::Ended(_) => HandsError::Confused,
    }
}

/// What a word costs beside its bytes: itself, and its place in a map.
const WORD_BYTES: usize = 160;

/// What the words of a command cost, which are split, copied and looked at again.
fn words_cost(words: &[String]) -> usize {
    4 * words.iter().map(|word| word.len() + WORD_BYTES / 2).sum::<usize>()
}

fn variables_cost(variables: &BTreeMap<String, String>) -> usize {
    variables.iter().map(|(name, value)| name.len() + value.len() + WORD_BYTES).sum()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads a hello. It may be made to have as many words as its length allows for: they are paid for before they are made.
async fn hear(stream: &mut UnixStream, share: &mut Share) -> Result<Hello, HandsError> {
    let length = length(stream, HANDS_FRAME_MAX_BYTES).await?;
    let words = (length / LENGTH_BYTES).min(2 * HANDS_ARGUMENTS_MAX);
    // And a byte that is no text becomes three.
    pay(stream, share, 5 * length + WORD_BYTES * words, length).await?;
    Ok(Hello::decode(&receive(stream, length).await?)?)
}

/// Holds what a frame costs. One that is not paid for is passed over: who sent it is still to hear why.
async fn pay(stream: &mut UnixStream, share: &mut Share, cost: usize, length: usize) -> Result<(), HandsError> {
    let paid = share.grow(cost).await;
    if paid.is_err() {
        let mut frame = stream.take(length as u64);
        tokio::io::copy(&mut frame, &mut tokio::io::sink()).await.map_err(HandsError::Gone)?;
    }
    paid
}

/// Reads the length of a frame.
async fn length(stream: &mut UnixStream, max: usize) -> Result<usize, HandsError> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(HandsError::Gone)?;
    let length = wire::length(length)?;
    if length > max { Err(Bad::TooLong.into()) } else { Ok(length) }
}

/// Reads a frame's bytes. Its length is believed once some of them have come.
async fn receive(stream: &mut UnixStream, length: usize) -> Result<Vec<u8>, HandsError> {
    let mut bytes = Vec::with_capacity(length.min(TRUST_AFTER_BYTES));
    let mut frame = stream.take(length as u64);
    while bytes.len() < length {
        if bytes.len() == bytes.capacity() {
            bytes.reserve_exact(length - bytes.len());
        }
        if frame.read_buf(&mut bytes).await.map_err(HandsError::Gone)? == 0 {
            return Err(HandsError::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(bytes)
}

/// Tells a program of any version why it ends. It may be gone, and then nobody asks.
async fn part(stream: &mut UnixStream, why: &str) {
    let write = Op::Write { to: Stream::Errors, bytes: why.as_bytes().to_vec() };
    for op in [write, Op::Exit { status: 1 }] {
        if let Ok(frame) = op.encode()
            && stream.write_all(&frame).await.is_err()
        {
            return;
        }
    }
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.take(1_024).read_to_end(&mut rest)).await;
}
