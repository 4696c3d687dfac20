//! What the files of a commit hold: their list, and their bytes as a stream, fetched together where the mirror has them not.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use windlass_git::Bounds;
use windlass_protocol::limits::{
    REUSE_IMPORT_FILE_MAX_BYTES, REUSE_IMPORT_MAX_BYTES, REUSE_IMPORT_MS, REUSE_LISTING_MAX_BYTES,
};

use super::{DefinitionError, FETCH, Mirror};

/// Objects that one fetch asks for: their names are arguments.
const FETCHED_AT_ONCE: usize = 1_000;

/// Bytes that are handed on at once.
const PIECE_BYTES: usize = 256 << 10;

/// What precedes an object: its name, its kind and its length.
const HEADER_MAX_BYTES: u64 = 200;

/// A name in a commit that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// From the root, as bytes.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: ListedKind,
    /// Its object's name.
    pub(crate) id: String,
}

/// What a name in a commit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedKind {
    File { executable: bool },
    Symlink,
    Submodule,
}

/// Objects as they come, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The next one, of so many bytes, which follow.
    Begin(u64),
    /// Some of its bytes.
    Bytes(Vec<u8>),
}

impl Mirror<'_> {
    /// Everything in a commit that is no directory.
    pub(in crate::definitions) async fn list(&self, commit: &str) -> Result<Vec<Listed>, DefinitionError> {
        let arguments = ["ls-tree", "-r", "-z", "--full-tree", commit];
        let printed = self.look(&arguments, REUSE_LISTING_MAX_BYTES).await.map_err(DefinitionError::of_look)?;
        let listed = printed.split(|byte| *byte == 0).filter(|line| !line.is_empty()).map(|line| {
            entry(line).ok_or_else(|| DefinitionError::Fault {
                doing: "the commit's files cannot be read",
                what: format!("git says {:?}", String::from_utf8_lossy(line)),
            })
        });
        listed.collect()
    }

    /// Brings those of a commit's objects that are not in the mirror.
    pub(in crate::definitions) async fn bring(&self, commit: &str, ids: &[String]) -> Result<(), DefinitionError> {
        let tree = format!("{commit}^{{tree}}");
        let arguments = ["rev-list", "--objects", "--missing=print", &tree];
        let printed = self.look(&arguments, REUSE_LISTING_MAX_BYTES).await.map_err(DefinitionError::of_look)?;
        let printed = String::from_utf8_lossy(&printed);
        let missing: BTreeSet<&str> = printed.lines().filter_map(|line| line.strip_prefix('?')).collect();
        let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).filter(|id| missing.contains(id)).collect();
        let wanted: Vec<&str> = wanted.into_iter().collect();
        for piece in wanted.chunks(FETCHED_AT_ONCE) {
            let bounds = Bounds { deadline: Some(Duration::from_millis(REUSE_IMPORT_MS)), output_max_bytes: 0 };
            let arguments = [&FETCH[..], &["origin"], piece].concat();
            let fetched = windlass_git::run_holding(self.held, self.command()?, &arguments, bounds).await;
            fetched.map_err(|error| self.told(DefinitionError::of_fetch(error)))?;
        }
        Ok(())
    }

    /// Reads objects that are in the mirror, one after the other. Ends early where nobody listens.
    pub(in crate::definitions) async fn read_objects(
        &self,
        ids: &[String],
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), DefinitionError> {
        let failed = || DefinitionError::fault("the commit's files cannot be read");
        let mut command = self.command()?;
        command.args(["cat-file", "--batch", "--buffer"]).env("GIT_NO_LAZY_FETCH", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed()(std::io::Error::other("git has no pipes")));
        };
        let reading = async { tokio::try_join!(ask(input, ids), answers(output, ids, pieces)).map(drop) };
        let read = tokio::time::timeout(Duration::from_millis(REUSE_IMPORT_MS), reading).await;
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "git did not read them in time");
        read.map_err(|_| late()).flatten().map_err(failed())
    }
}

/// `MODE KIND ID TAB PATH`.
fn entry(line: &[u8]) -> Option<Listed> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let (meta, path) = (std::str::from_utf8(line.get(..at)?).ok()?, line.get(at + 1..)?);
    let mut words = meta.split(' ');
    let (mode, _kind, id) = (words.next()?, words.next()?, words.next()?);
    let kind = match mode {
        "100644" | "100664" => ListedKind::File { executable: false },
        "100755" => ListedKind::File { executable: true },
        "120000" => ListedKind::Symlink,
        "160000" => ListedKind::Submodule,
        _ => return None,
    };
    Some(Listed { path: path.to_owned(), kind, id: id.to_owned() })
}

async fn ask(mut input: ChildStdin, ids: &[String]) -> std::io::Result<()> {
    let mut text = String::new();
    for piece in ids.chunks(FETCHED_AT_ONCE) {
        text.clear();
        piece.iter().for_each(|id| text.extend([id.as_str(), "\n"]));
        input.write_all(text.as_bytes()).await?;
    }
    input.shutdown().await
}

async fn answers(output: ChildStdout, ids: &[String], pieces: &mpsc::Sender<Piece>) -> std::io::Result<()> {
    let (mut output, mut left) = (BufReader::with_capacity(PIECE_BYTES, output), REUSE_IMPORT_MAX_BYTES);
    let gone = |_| std::io::Error::other("nobody takes them any more");
    for id in ids {
        let mut header = Vec::new();
        (&mut output).take(HEADER_MAX_BYTES).read_until(b'\n', &mut header).await?;
        let bytes = length(&String::from_utf8_lossy(&header), id).map_err(std::io::Error::other)?;
        left = left
            .checked_sub(bytes)
            .ok_or_else(|| std::io::Error::other(format!("its files have more than {REUSE_IMPORT_MAX_BYTES} bytes")))?;
        pieces.send(Piece::Begin(bytes)).await.map_err(gone)?;
        let mut bytes_left = bytes;
        while bytes_left > 0 {
            let size = usize::try_from(bytes_left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut piece = vec![0; size];
            output.read_exact(&mut piece).await?;
            bytes_left -= size as u64;
            pieces.send(Piece::Bytes(piece)).await.map_err(gone)?;
        }
        if output.read_u8().await? != b'\n' {
            return Err(std::io::Error::other("git's answer is not as it should be"));
        }
    }
    Ok(())
}

/// Of `ID blob LENGTH`.
fn length(header: &str, id: &str) -> Result<u64, String> {
    let mut words = header.trim_end().split(' ');
    let bytes = match (words.next(), words.next(), words.next().map(str::parse)) {
        (Some(given), Some("blob"), Some(Ok(bytes))) if given == id => bytes,
        _ => return Err(format!("git says {:?} of the object {id}", header.trim_end())),
    };
    if bytes > REUSE_IMPORT_FILE_MAX_BYTES {
        return Err(format!("a file of it has {bytes} bytes; {REUSE_IMPORT_FILE_MAX_BYTES} are the most"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_listing_are_read_whatever_the_paths_are() {
        let kind = |line: &[u8]| entry(line).map(|entry| (entry.kind, entry.path, entry.id));
        let id = "d00491fd7e5bb6fa28c517a0bb32b8b506539d4d";
        let line = |mode: &str, path: &[u8]| [format!("{mode} blob {id}\t").as_bytes(), path].concat();
        for (mode, wanted) in [
            ("100644", ListedKind::File { executable: false }),
            ("100755", ListedKind::File { executable: true }),
            ("120000", ListedKind::Symlink),
            ("160000", ListedKind::Submodule),
        ] {
            let path = b"a\tb \xff".to_vec();
            assert_eq!(kind(&line(mode, &path)), Some((wanted, path, id.to_owned())));
        }
        for bad in [&b""[..], b"100644 blob", b"100000 blob x\tp"] {
            assert_eq!(kind(bad), None);
        }
    }

    #[test]
    fn an_object_that_is_another_or_none_or_too_large_is_refused() {
        assert_eq!(length("ab blob 7\n", "ab"), Ok(7));
        for bad in
            ["ab missing\n", "cd blob 7\n", "ab tree 7\n", "ab blob\n", "ab blob x\n", "", "ab blob 99999999999\n"]
        {
            assert!(length(bad, "ab").is_err(), "{bad:?}");
        }
    }
}
