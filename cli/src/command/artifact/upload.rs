//! `windlass artifact upload`: files of this machine become artifacts of a job, by their paths below the working directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use reqwest::{Body, Method};
use tokio::sync::mpsc;
use windlass_cache::tree;
use windlass_pipeline::content_type::content_type;
use windlass_pipeline::destination::path_in_build;
use windlass_pipeline::glob::{Glob, folder_of, is_pattern};
use windlass_protocol::Digest;
use windlass_protocol::limits::{
    ARTIFACT_MAX_BYTES, ARTIFACT_WALK_MAX, ARTIFACTS_PER_JOB_MAX, HTTP_BLOB_PIECE_BYTES, RESUMABLE_MIN_BYTES,
    TREE_DEPTH_MAX,
};

use super::{TRIES, find_build, reach};
use crate::client::resumable::NotSent;
use crate::client::{Client, ClientError, ServerArguments, segment};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// What to upload, and to where.
#[derive(Debug, Args)]
pub(crate) struct UploadArguments {
    /// Files, or patterns of them (`*` no `/`, `**` any); several in one word are separated by `;`. Quote them.
    #[arg(required = true, value_name = "GLOB")]
    patterns: Vec<String>,
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    #[arg(long)]
    build: String,
    /// The id of the job, or of one of its attempts; by default the last job that has run.
    #[arg(long)]
    job: Option<String>,
    /// Such as `text/plain`; by default what the name's end says.
    #[arg(long)]
    content_type: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

pub(super) async fn upload(arguments: &UploadArguments, ui: &Ui) -> Result<Code, Failure> {
    let directory = std::env::current_dir().map_err(|e| Failure::system("there is no working directory", &e))?;
    let patterns = arguments.patterns.clone();
    let found = tokio::task::spawn_blocking(move || expand(&patterns, &directory)).await;
    let found = found.map_err(|e| Failure::system("the files were not looked for", &io::Error::other(e)))??;
    if found.is_empty() {
        let what = format!("no files match {}", arguments.patterns.join(" "));
        return Err(Failure::new(Code::Failed, what).hint("a directory is named by what is in it, such as `log/**`"));
    }
    let reached = reach::to_read(&arguments.server).await?;
    let sent = send(reached.client(), arguments, &found, ui).await;
    reached.end().await;
    sent.map(|()| Code::Done)
}

async fn send(
    client: &Client,
    arguments: &UploadArguments,
    found: &BTreeMap<String, PathBuf>,
    ui: &Ui,
) -> Result<(), Failure> {
    let (build, _) = find_build(client, &arguments.build).await?;
    for (path, file) in found {
        let (digest, bytes) = hashed(file.clone()).await?;
        let kind = arguments.content_type.as_deref().unwrap_or_else(|| content_type(path));
        let mut place = format!(
            "/builds/{}/artifacts?path={}&digest={}&bytes={bytes}&content_type={}",
            segment(&build.id),
            segment(path),
            segment(&digest.to_string()),
            segment(kind)
        );
        if is_program(file)? {
            place.push_str("&executable=true");
        }
        if let Some(job) = &arguments.job {
            place.push_str(&format!("&job={}", segment(job)));
        }
        let bar = ui.byte_bar("uploading", bytes);
        let put = match upload_large(client, &build.id, (file, digest, bytes), &bar).await {
            Ok(Some(upload)) => note(client, &format!("{place}&upload={upload}")).await,
            Ok(None) => put(client, &place, (file, digest), &bar).await,
            Err(failure) => Err(failure),
        };
        bar.finish_and_clear();
        put?;
        ui.say(&format!("{} ({bytes} bytes)", text::shown(path)));
    }
    ui.say(&format!("{} artifacts were added to build {}", found.len(), build.id));
    Ok(())
}

/// Whether its owner may execute a file: what git, too, keeps of a mode.
fn is_program(file: &Path) -> Result<bool, Failure> {
    let unreadable = |e: io::Error| Failure::system(format!("{} cannot be read", file.display()), &e);
    Ok(tree::is_program(fs::metadata(file).map_err(unreadable)?.permissions().mode()))
}

/// Sends a large file first, over as many connections as it takes; answers its upload's id. None of a small one.
async fn upload_large(
    client: &Client,
    build: &str,
    (file, digest, bytes): (&Path, Digest, u64),
    bar: &ProgressBar,
) -> Result<Option<String>, Failure> {
    if bytes < RESUMABLE_MIN_BYTES {
        return Ok(None);
    }
    let purpose = format!("build={}", segment(build));
    let sent = client.send_resumably(&purpose, (digest, bytes), |offset| {
        bar.set_position(offset);
        body_of(file.to_owned(), offset, bar.clone())
    });
    match sent.await {
        Ok(upload) => Ok(upload),
        Err(NotSent::Read(error)) => Err(Failure::system(format!("{} cannot be read", file.display()), &error)),
        Err(NotSent::Client(error)) => Err(refused(error, file, digest).await?),
    }
}

/// Makes an artifact of an upload. Asked again it answers the same.
async fn note(client: &Client, place: &str) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        match client.send_bytes(Method::PUT, place, Body::default()).await {
            Err(ClientError::Unreachable { .. }) if tries < TRIES => tries += 1,
            other => return Ok(other?),
        }
    }
}

/// Why a file was refused: bytes that changed meanwhile are others than they were said to be.
async fn refused(error: ClientError, file: &Path, digest: Digest) -> Result<Failure, Failure> {
    let changed = hashed(file.to_owned()).await?.0 != digest;
    let failure = Failure::from(error);
    Ok(if changed { failure.hint("the file changed while it was uploaded") } else { failure })
}

/// Sends one file, as often as the connection breaks: done twice it is done once.
async fn put(client: &Client, place: &str, (file, digest): (&Path, Digest), bar: &ProgressBar) -> Result<(), Failure> {
    let mut tries = 1;
    loop {
        bar.set_position(0);
        let (body, reading) = body_of(file.to_owned(), 0, bar.clone());
        let sent = client.send_bytes(Method::PUT, place, body).await;
        if let Ok(Err(error)) = reading.await {
            return Err(Failure::system(format!("{} cannot be read", file.display()), &error));
        }
        match sent {
            Ok(()) => return Ok(()),
            Err(ClientError::Unreachable { .. }) if tries < TRIES => tries += 1,
            Err(error) => return Err(refused(error, file, digest).await?),
        }
    }
}

/// A file, from an offset on, as a body that is read while it is sent, and how the reading went.
fn body_of(file: PathBuf, offset: u64, bar: ProgressBar) -> (Body, tokio::task::JoinHandle<io::Result<()>>) {
    let (pieces, receive) = mpsc::channel::<io::Result<bytes::Bytes>>(4);
    let reading = tokio::task::spawn_blocking(move || {
        let opened = File::open(&file).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => {
                let _gone = pieces.blocking_send(Err(error.kind().into()));
                return Err(error);
            }
        };
        let mut buffer = vec![0; HTTP_BLOB_PIECE_BYTES];
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => {
                    let _gone = pieces.blocking_send(Err(error.kind().into()));
                    return Err(error);
                }
            };
            let piece = bytes::Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
            // The connection broke, or it was there already: the sender says so.
            if pieces.blocking_send(Ok(piece)).is_err() {
                return Ok(());
            }
            bar.inc(n as u64);
        }
    });
    let stream = futures_util::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    (Body::wrap_stream(stream), reading)
}

/// A file's digest and length.
async fn hashed(file: PathBuf) -> Result<(Digest, u64), Failure> {
    let shown = file.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let bytes = io::copy(&mut File::open(&file)?, &mut hasher)?;
        Ok::<_, io::Error>((Digest::from_hasher(&hasher), bytes))
    });
    let read = read.await.map_err(io::Error::other).flatten();
    let (digest, bytes) = read.map_err(|e| Failure::system(format!("{shown} cannot be read"), &e))?;
    if bytes > ARTIFACT_MAX_BYTES {
        return Err(Failure::usage(format!("{shown} is larger than {ARTIFACT_MAX_BYTES} bytes")));
    }
    Ok((digest, bytes))
}

/// The files that patterns mean, by their paths in the build (reference 20.1, 20.2).
fn expand(patterns: &[String], directory: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let below = directory.to_str().ok_or_else(|| Failure::usage("the working directory's name is no text in UTF-8"))?;
    let mut found = BTreeMap::new();
    let mut left = ARTIFACT_WALK_MAX;
    let words = patterns.iter().flat_map(|word| word.split(';')).map(str::trim).filter(|word| !word.is_empty());
    for word in words {
        // `./a` and `a` are the same to a person.
        let word = word.strip_prefix("./").unwrap_or(word);
        let paths = if is_pattern(word) { walk(word, directory, &mut left)? } else { vec![word.to_owned()] };
        for path in paths {
            let file = directory.join(&path);
            if fs::metadata(&file).is_ok_and(|found| found.is_file()) {
                found.insert(path_in_build(&path, below), file);
            }
        }
    }
    if found.len() > ARTIFACTS_PER_JOB_MAX {
        return Err(Failure::usage(format!("more than {ARTIFACTS_PER_JOB_MAX} files match")));
    }
    Ok(found)
}

/// What is below a pattern's folder and matches. Linked directories are not looked into.
fn walk(pattern: &str, directory: &Path, left: &mut usize) -> Result<Vec<String>, Failure> {
    let glob = Glob::parse(pattern).map_err(|e| Failure::usage(format!("`{pattern}`: {}", e.message)))?;
    let mut folders = vec![(folder_of(pattern).to_owned(), 0)];
    let mut matching = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(directory.join(&folder)) else { continue };
        for entry in entries {
            let unreadable = |e| Failure::system(format!("{folder} cannot be looked through"), &e);
            let entry = entry.map_err(unreadable)?;
            *left = left.checked_sub(1).ok_or_else(|| {
                Failure::usage(format!(
                    "more than {ARTIFACT_WALK_MAX} directory entries lie below the pattern's folders"
                ))
            })?;
            // Another name could not be told.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = match folder.as_str() {
                "" => name,
                "/" => format!("/{name}"),
                folder => format!("{folder}/{name}"),
            };
            if entry.file_type().map_err(unreadable)?.is_dir() && depth < TREE_DEPTH_MAX {
                folders.push((path.clone(), depth + 1));
            }
            if glob.matches(&path) {
                matching.push(path);
            }
        }
    }
    Ok(matching)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_files_by_their_paths_in_the_build() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["log/a.txt", "log/deep/b.txt", "log/c.bin"] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), path).unwrap();
        }
        let paths = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            expand(&patterns, dir.path()).unwrap().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(paths(&["log/**.txt"]), ["log/a.txt", "log/deep/b.txt"]);
        assert_eq!(paths(&["./log/*; log/deep/b.txt", "log/a.txt"]), ["log/a.txt", "log/c.bin", "log/deep/b.txt"]);
        assert_eq!(paths(&[&format!("{}/log/c.bin", dir.path().display())]), ["log/c.bin"]);
        assert_eq!(paths(&["log", "nothing", "none/*"]), [""; 0]);
        assert!(expand(&["log/[a".to_owned()], dir.path()).is_err());
    }

    #[test]
    fn a_file_is_a_program_by_its_owner_s_bit_and_a_link_is_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "true").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        for (mode, runs) in
            [(0o755, true), (0o700, true), (0o500, true), (0o644, false), (0o655, false), (0o611, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!((is_program(&path).unwrap(), is_program(&link).unwrap()), (runs, runs), "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        assert!(is_program(&link).is_err());
    }
}
