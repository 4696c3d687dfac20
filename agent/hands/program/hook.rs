//! Running one hook. A shell script is sourced between two looks at the environment; anything else is run (reference 18.5).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bootstrap::{Variables, shell, split};
use crate::child::{self, run as run_child};
use crate::phases::Ended;
use crate::plan::{SHOWN_MAX_BYTES, Surroundings};

/// What a hook left.
pub(crate) struct Left {
    pub(crate) ended: Ended,
    /// Nothing where it cannot be known: it was no shell script, or it left early.
    pub(crate) changes: Option<Changes>,
}

/// What a hook changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) set: Variables,
    pub(crate) gone: Vec<Vec<u8>>,
    /// Where it left its shell.
    pub(crate) directory: Option<Vec<u8>>,
}

/// How a hook is run.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Sourced by this shell, with these arguments; without one, by the shell of commands.
    Sourced(Vec<String>),
    Run,
}

/// So much of a file shows what it is.
const HEAD_BYTES: usize = 512;
/// Shells that can source a script.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];
/// Variables that a shell keeps for itself, and the wrapper's own.
const SHELLS_OWN: [&str; 5] = ["_", "SHLVL", "PWD", "OLDPWD", "WINDLASS_HOOK_STATUS"];

/// Runs a hook with these variables, in this directory.
pub(crate) fn run(path: &Path, name: &str, scope: &str, variables: &Variables, directory: &Path) -> Left {
    let ran = kind(path).and_then(|kind| match kind {
        Kind::Sourced(shell) => sourced(path, shell, variables, directory),
        Kind::Run => {
            let mut command = Command::new(path);
            child::with(&mut command, variables, directory).stdin(Stdio::null());
            command
                .env("BUILDKITE_HOOK_PHASE", name)
                .env("BUILDKITE_HOOK_PATH", path)
                .env("BUILDKITE_HOOK_SCOPE", scope);
            Ok(Left { ended: run_child(&mut command)?, changes: None })
        }
    });
    ran.unwrap_or_else(|error| Left { ended: child::not_started(path, &error), changes: None })
}

fn kind(path: &Path) -> io::Result<Kind> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(kind_of(&head))
}

fn kind_of(head: &[u8]) -> Kind {
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_binary = head.starts_with(b"\x7fELF") || head.contains(&0);
        return if is_binary { Kind::Run } else { Kind::Sourced(Vec::new()) };
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Vec<String> = String::from_utf8_lossy(line).split_whitespace().map(str::to_owned).collect();
    let base = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = words.first().map(base).unwrap_or_default();
    let named = if program == "env" { words.get(1).map(base).unwrap_or_default() } else { program };
    if SHELLS.contains(&named.as_str()) { Kind::Sourced(words) } else { Kind::Run }
}

fn sourced(path: &Path, words: Vec<String>, variables: &Variables, directory: &Path) -> io::Result<Left> {
    let (shown, ours) = UnixStream::pair()?;
    let (program, arguments) = match words.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => (shell(), [].as_slice()),
    };
    let mut command = Command::new(program);
    command.args(arguments).arg("-c").arg(std::ffi::OsStr::from_bytes(&wrapper(path)));
    child::with(&mut command, variables, directory).stdin(Stdio::from(OwnedFd::from(shown)));
    let child =
        child::start(&mut command).map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    // Its half of the pair is the child's alone from here on.
    drop(command);
    let mut reading = ours.try_clone()?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What a hook adds beyond the bound is read and dropped: it must not wait for us.
        let _ = io::Read::by_ref(&mut reading).take(SHOWN_MAX_BYTES as u64).read_to_end(&mut bytes);
        let _ = io::copy(&mut reading, &mut io::sink());
        bytes
    });
    let ended = child::wait(child);
    // What was written is read all the same; who still holds the other end is not waited for.
    let _ = ours.shutdown(Shutdown::Read);
    let bytes = reader.join().unwrap_or_default();
    Ok(Left { ended: ended?, changes: changes(&bytes) })
}

/// The script that shows the environment, sources a hook, and shows it again. The way to us is descriptor 9, which the hook
/// does not see.
fn wrapper(hook: &Path) -> Vec<u8> {
    let program = quoted(&child::this_program());
    let hook = quoted(hook);
    let parts: [&[u8]; 7] = [
        b"exec 9>&0 </dev/null\n",
        &program,
        b" show >&9\n. ",
        &hook,
        b" 9>&-\nWINDLASS_HOOK_STATUS=$?\n",
        &program,
        b" show >&9\nexit \"$WINDLASS_HOOK_STATUS\"",
    ];
    parts.concat()
}

fn quoted(path: &Path) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// What differs between the two looks; nothing where there was no second one.
fn changes(bytes: &[u8]) -> Option<Changes> {
    let (before, rest) = Surroundings::decode(bytes).ok()?;
    let (after, _) = Surroundings::decode(rest).ok()?;
    let of = |shown: &Surroundings| -> BTreeMap<_, _> {
        let kept = shown.environment.iter().filter_map(|variable| split(variable));
        kept.filter(|(name, _)| !SHELLS_OWN.iter().any(|own| own.as_bytes() == name)).collect()
    };
    let (old, mut set) = (of(&before), of(&after));
    let gone = old.keys().filter(|name| !set.contains_key(*name)).cloned().collect();
    set.retain(|name, value| old.get(name) != Some(value));
    Some(Changes { set, gone, directory: (before.directory != after.directory).then_some(after.directory) })
}

/// Shows this process's surroundings, for a wrapper.
pub(crate) fn show() -> io::Result<()> {
    use std::os::unix::ffi::OsStringExt as _;
    let environment =
        std::env::vars_os().map(|(name, value)| [name.into_vec(), b"=".to_vec(), value.into_vec()].concat());
    let directory = std::env::current_dir().map(|path| path.into_os_string().into_vec()).unwrap_or_default();
    let shown = Surroundings { directory, environment: environment.collect() };
    let bytes = shown.encode().map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
    io::Write::write_all(&mut io::stdout(), &bytes)
}
