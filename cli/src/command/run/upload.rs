//! Brings a directory into the cache: a snapshot, and of it what the server does not have.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_cache::snapshot::{self, Options, Snapshot};
use windlass_cache::{Error, PackWriter, Rejected};
use windlass_protocol::Digest;
use windlass_protocol::limits::{
    CLI_PACK_BYTES, CLI_SNAPSHOT_TRIES, LINK_BLOB_PIECE_BYTES, MISSING_MAX_DIGESTS, PACK_MAX_BLOBS, RESUMABLE_MIN_BYTES,
};

use crate::client::resumable::{NotSent, pass_over};
use crate::client::{Client, ClientError, segment};
use crate::error::{Code, Failure};
use crate::place;
use crate::ui::Ui;

/// Times that a body is sent before its failure counts.
const SEND_TRIES: u32 = 4;

/// Why bytes were not brought.
enum Failed {
    /// The directory changed under us.
    Changed(Failure),
    Other(Failure),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Other(error.into())
    }
}

/// Uploads a directory; answers the digest of its tree.
pub(super) async fn source(client: &Client, dir: &Path, project: &str, ui: &Ui) -> Result<String, Failure> {
    let mut tries = 1;
    loop {
        match once(client, dir, project, ui).await {
            Ok(tree) => return Ok(tree),
            Err(Failed::Changed(_)) if tries < CLI_SNAPSHOT_TRIES => tries += 1,
            Err(Failed::Changed(failure) | Failed::Other(failure)) => return Err(failure),
        }
    }
}

async fn once(client: &Client, dir: &Path, project: &str, ui: &Ui) -> Result<String, Failed> {
    let looking = ui.spinner("reading the directory");
    let (root, stat_cache) = (dir.to_owned(), stat_cache(dir));
    let options = Options { stat_cache, ..Options::default() };
    let taken = tokio::task::spawn_blocking(move || snapshot::snapshot(&root, &options)).await;
    let snapshot = taken.map_err(|e| Failed::Other(Failure::system("the snapshot failed", &e)))?.map_err(failed)?;
    looking.finish_and_clear();
    for path in snapshot.skipped.iter().take(10) {
        ui.warn(&format!("{} is no file, link or directory, and is left out", path.display()));
    }
    let missing = missing(client, &snapshot, project).await?;
    let tree = snapshot.root.to_string();
    let bytes = missing.iter().map(|(_, bytes)| bytes).sum();
    let bar = ui.byte_bar("uploading", bytes);
    let sent = send(client, Arc::new(snapshot), missing, project, &bar).await;
    bar.finish_and_clear();
    sent.map(|()| tree)
}

/// Where what files hashed to is remembered, by directory.
fn stat_cache(dir: &Path) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = Digest::of(dir.as_os_str().as_bytes()).to_hex();
    let folder = place::cache_dir().join("stat");
    if let Err(error) = std::fs::create_dir_all(&folder) {
        tracing::warn!(path = %folder.display(), %error, "stat_cache_unavailable");
        return None;
    }
    Some(folder.join(name))
}

/// What the server does not have, with lengths.
async fn missing(client: &Client, snapshot: &Snapshot, project: &str) -> Result<Vec<(Digest, u64)>, Failed> {
    let path = format!("/blobs/missing?project={}", segment(project));
    let mut missing = Vec::new();
    for page in snapshot.source.digests().chunks(MISSING_MAX_DIGESTS) {
        let digests: Vec<String> = page.iter().map(|(digest, _)| digest.to_string()).collect();
        let answer = client.post_again(&path, Some(&json!({ "digests": digests }))).await?;
        for digest in answer.get("missing").and_then(Value::as_array).into_iter().flatten() {
            let digest: Option<Digest> = digest.as_str().and_then(|text| text.parse().ok());
            missing.extend(digest.and_then(|digest| Some((digest, snapshot.source.blob_len(&digest)?))));
        }
    }
    Ok(missing)
}

async fn send(
    client: &Client,
    snapshot: Arc<Snapshot>,
    missing: Vec<(Digest, u64)>,
    project: &str,
    bar: &ProgressBar,
) -> Result<(), Failed> {
    let (small, large): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, bytes)| *bytes <= CLI_PACK_BYTES);
    for pack in packs(small) {
        let bytes: u64 = pack.iter().map(|(_, bytes)| bytes).sum();
        let body = pack_body(Arc::clone(&snapshot), pack).await?;
        let path = format!("/blobs/pack?project={}", segment(project));
        send_again(async || client.send_bytes(Method::POST, &path, Body::from(body.clone())).await).await?;
        bar.inc(bytes);
    }
    for (digest, bytes) in large {
        if bytes >= RESUMABLE_MIN_BYTES {
            let (before, purpose) = (bar.position(), format!("project={}", segment(project)));
            let sent = client.send_resumably(&purpose, (digest, bytes), |offset| {
                bar.set_position(before + offset);
                blob_body(Arc::clone(&snapshot), (digest, offset), Some(bar.clone()))
            });
            match sent.await {
                Ok(_) => bar.set_position(before + bytes),
                Err(NotSent::Read(error)) => return Err(failed(error)),
                Err(NotSent::Client(error)) => return Err(error.into()),
            }
            continue;
        }
        let path = format!("/blobs/b3/{}?project={}", digest.to_hex(), segment(project));
        let put = async || {
            let (body, outcome) = blob_body(Arc::clone(&snapshot), (digest, 0), None);
            let sent = client.send_bytes(Method::PUT, &path, body).await;
            (sent, outcome.await)
        };
        let mut tries = 1;
        loop {
            let (sent, read) = put().await;
            if let Ok(Err(error)) = read {
                return Err(failed(error));
            }
            match sent {
                Ok(()) => break,
                Err(ClientError::Unreachable { .. }) if tries < SEND_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
        bar.inc(bytes);
    }
    Ok(())
}

/// Sends the same bytes again where the connection broke.
async fn send_again<F: Future<Output = Result<(), ClientError>>>(send: impl Fn() -> F) -> Result<(), ClientError> {
    let mut tries = 1;
    loop {
        match send().await {
            Err(ClientError::Unreachable { .. }) if tries < SEND_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Blobs in groups that each fit a pack in memory.
fn packs(blobs: Vec<(Digest, u64)>) -> Vec<Vec<(Digest, u64)>> {
    let mut packs: Vec<Vec<(Digest, u64)>> = Vec::new();
    let mut filled = 0;
    for (digest, bytes) in blobs {
        match packs.last_mut() {
            Some(pack) if filled + bytes <= CLI_PACK_BYTES && pack.len() < PACK_MAX_BLOBS => {
                filled += bytes;
                pack.push((digest, bytes));
            }
            _ => {
                filled = bytes;
                packs.push(vec![(digest, bytes)]);
            }
        }
    }
    packs
}

async fn pack_body(snapshot: Arc<Snapshot>, pack: Vec<(Digest, u64)>) -> Result<bytes::Bytes, Failed> {
    let made = tokio::task::spawn_blocking(move || {
        let unwritable = |e: std::io::Error| Failed::Other(Failure::system("a pack cannot be made", &e));
        let mut writer = PackWriter::new(Vec::new()).map_err(unwritable)?;
        for (digest, _) in pack {
            let blob = snapshot.source.read(&digest).map_err(failed)?.unwrap_or_default();
            writer.add(&digest, &blob).map_err(unwritable)?;
        }
        writer.finish().map(bytes::Bytes::from).map_err(unwritable)
    });
    made.await.map_err(|e| Failed::Other(Failure::system("a pack cannot be made", &e)))?
}

/// A large blob, from an offset on, as a body that is read while it is sent, and how the reading went.
fn blob_body(
    snapshot: Arc<Snapshot>,
    (digest, offset): (Digest, u64),
    bar: Option<ProgressBar>,
) -> (Body, tokio::task::JoinHandle<Result<(), Error>>) {
    let (pieces, receive) = mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(4);
    let reading = tokio::task::spawn_blocking(move || {
        let Some(mut reader) = snapshot.source.open(&digest)? else { return Ok(()) };
        pass_over(&mut reader, offset).map_err(|error| reader.explain(error))?;
        let mut buffer = vec![0; LINK_BLOB_PIECE_BYTES];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => {
                    let _gone = pieces.blocking_send(Err(std::io::Error::from(error.kind())));
                    return Err(reader.explain(error));
                }
            };
            let piece = bytes::Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
            // The connection broke: the sender says so.
            if pieces.blocking_send(Ok(piece)).is_err() {
                return Ok(());
            }
            if let Some(bar) = &bar {
                bar.inc(n as u64);
            }
        }
    });
    let stream = futures_util::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|piece| (piece, receive))
    });
    (Body::wrap_stream(stream), reading)
}

fn failed(error: Error) -> Failed {
    let changed = matches!(error, Error::Rejected(Rejected::Changed { .. }));
    let code = if matches!(error, Error::Rejected(_)) { Code::Usage } else { Code::Failed };
    let failure = Failure::of(code, &error);
    if changed { Failed::Changed(failure.hint("it kept changing while it was read")) } else { Failed::Other(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_bounded_in_bytes_and_in_blobs() {
        let blob = |n: u64, bytes: u64| (Digest::of(&n.to_le_bytes()), bytes);
        let grouped = |blobs: Vec<(Digest, u64)>| packs(blobs).iter().map(Vec::len).collect::<Vec<_>>();
        let half = CLI_PACK_BYTES / 2;
        assert_eq!(grouped(vec![blob(1, half), blob(2, half), blob(3, 1), blob(4, CLI_PACK_BYTES)]), [2, 1, 1]);
        let many = (0..=PACK_MAX_BLOBS as u64).map(|n| blob(n, 0)).collect();
        assert_eq!(grouped(many), [PACK_MAX_BLOBS, 1]);
        assert_eq!(grouped(Vec::new()), [0; 0]);
    }
}
