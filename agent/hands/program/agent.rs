//! What a bootstrap says to its agent: through the job's socket, as any command in the job does.

use std::io::{self, ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::bootstrap::Variables;
use crate::limits::HANDS_RETRY_MS;
use crate::plan::BOOTSTRAP;
use crate::wire::{Answer, Hello, Op, Stream};
use crate::{bad, call_number, child, connect, receive};

/// The variable with the attempt's id, which no phase changes.
const ATTEMPT: &[u8] = b"WINDLASS_ATTEMPT_ID=";

/// Tells the agent something, and waits for as long as it is away, unless the job is to end: what a job may take its supervisor
/// knows.
pub(crate) fn tell(
    variables: &Variables,
    words: Vec<Vec<u8>>,
    directory: Vec<u8>,
    mut environment: Vec<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    // Of which attempt it is, whatever its hooks say: the place's door may be another one's by now.
    environment.retain(|variable| !variable.starts_with(ATTEMPT));
    if let Some(attempt) = std::env::var_os("WINDLASS_ATTEMPT_ID") {
        environment.push([ATTEMPT, attempt.as_bytes()].concat());
    }
    let socket = variables.get(b"WINDLASS_JOB_SOCKET".as_slice()).cloned().unwrap_or_default();
    let socket = PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(socket));
    let arguments = [vec![BOOTSTRAP.as_bytes().to_vec()], words].concat();
    let hello = Hello { call: call_number(), streams: 0, arguments, directory, environment };
    let hello = hello.encode().map_err(bad)?;
    let mut told = false;
    loop {
        match ask(&socket, &hello) {
            Err(error) if is_away(&error) => {
                if !told {
                    told = true;
                    crate::bootstrap::comment(&format!("The agent cannot be reached ({error}); waiting for it"));
                }
                if child::is_unheard() {
                    return Err(error);
                }
                child::pause(HANDS_RETRY_MS);
            }
            other => return other,
        }
    }
}

/// Whether an error is that of an agent that starts again, for an upgrade.
fn is_away(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
    )
}

fn ask(socket: &std::path::Path, hello: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(socket)?;
    stream.write_all(hello)?;
    let (mut answer, mut frame) = (Vec::new(), Vec::new());
    loop {
        match Op::decode(receive(&mut stream, &mut frame)?).map_err(bad)? {
            Op::Exit { status: 0 } => return Ok(answer),
            Op::Exit { .. } => return Err(io::Error::new(ErrorKind::InvalidInput, "the agent refused it")),
            Op::Write { to: Stream::Output, bytes } => answer.extend_from_slice(&bytes),
            Op::Write { to: Stream::Errors, bytes } => crate::bootstrap::say(&String::from_utf8_lossy(&bytes)),
            _ => return Err(io::Error::new(ErrorKind::InvalidData, "the agent asks for something else")),
        }
        stream.write_all(&Answer::Done.encode().map_err(bad)?)?;
    }
}
