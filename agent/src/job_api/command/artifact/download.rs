//! `artifact download QUERY DESTINATION`: the newest of each path, checked, each put in place whole (reference 20.4).

use bytes::Bytes;
use windlass_cache::Blob;
use windlass_cache::tree::new_mode_of;
use windlass_hands::wire::Kind;
use windlass_pipeline::destination::{absolute, target};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::{FOLLOWED_HELD_BYTES, HANDS_CHUNK_BYTES};
use windlass_protocol::{Digest, Shelf, hex};

use super::super::incoming::{self, CACHED_MAX_BYTES, GROUP_MAX_BYTES, GROUP_MAX_FILES, next_piece};
use super::super::{Call, Fail, fatal};
use super::query::{FoundFile, find, latest};
use crate::bulk::{NotCarried, Taking};
use crate::job_api::Shared;
use crate::job_api::account::Account;
use crate::job_api::door::Party;
use crate::job_api::hands::{Hands, HandsError};

/// Why one file is not there; others are.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Hands(#[from] HandsError),
    #[error("{0}")]
    Gone(String),
    #[error("the bytes that came are not those that were uploaded")]
    Damaged,
}

pub(in super::super) async fn download(call: &mut Call<'_>) -> Result<(), Fail> {
    let (Some(query), Some(place)) = (call.argument(0).map(str::to_owned), call.argument(1).map(str::to_owned)) else {
        return Err(call.misused().await);
    };
    let directory = String::from_utf8(call.hands.directory.clone());
    let directory = directory.map_err(|_| fatal("the working directory's name is no text"))?;
    let destination = absolute(&place, &directory);
    match call.hands.stat(&destination, true).await? {
        None => return Err(fatal(format!("failed to download artifacts: there is no directory {destination}"))),
        Some(found) if found.kind != Kind::Directory => {
            return Err(fatal(format!("failed to download artifacts: {destination} is not a directory")));
        }
        Some(_) => {}
    }
    let found = latest(find(call, query).await?);
    if found.is_empty() {
        return Err(fatal("No artifacts found for downloading"));
    }
    let all = found.len();
    let words = format!("Found {all} artifacts. Starting to download to: {destination}");
    call.note("notice", &words).await?;
    let failed = bring(call, &destination, found).await?;
    match failed {
        0 => Ok(()),
        failed => Err(fatal(format!("failed to download artifacts: {failed} of {all} could not be downloaded"))),
    }
}

/// Brings all of them: while some are written, the next ones come. Answers how many failed.
async fn bring(call: &mut Call<'_>, destination: &str, found: Vec<FoundFile>) -> Result<usize, Fail> {
    let (small, large): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.of.artifact.bytes <= CACHED_MAX_BYTES);
    let mut groups = groups(small).into_iter();
    let (party, shared) = (call.party, call.shared);
    let mut failed = 0;
    let mut ready = match groups.next() {
        Some(group) => Some(fetch(party, shared, group).await?),
        None => None,
    };
    while let Some(group) = ready.take() {
        let next = async {
            match groups.next() {
                Some(group) => fetch(party, shared, group).await.map(Some),
                None => Ok(None),
            }
        };
        let (written, next) = tokio::join!(write_all(call, destination, group), next);
        failed += written?;
        ready = next?;
    }
    for found in large {
        let path = target(destination, &found.of.artifact.path);
        let written = pull(call.hands, party, shared, &found, &path).await;
        failed += said(call, &found, written).await?;
    }
    Ok(failed)
}

/// Files in groups that are fetched together.
fn groups(files: Vec<FoundFile>) -> Vec<Vec<FoundFile>> {
    let mut groups: Vec<Vec<FoundFile>> = Vec::new();
    let mut filled = 0;
    for file in files {
        let bytes = file.of.artifact.bytes;
        match groups.last_mut() {
            Some(group) if filled + bytes <= GROUP_MAX_BYTES && group.len() < GROUP_MAX_FILES => {
                filled += bytes;
                group.push(file);
            }
            _ => {
                filled = bytes;
                groups.push(vec![file]);
            }
        }
    }
    groups
}

/// Brings a group into the agent's cache; each blob is held there until it is written.
async fn fetch(party: &Party, shared: &Shared, group: Vec<FoundFile>) -> Result<Vec<(FoundFile, Option<Blob>)>, Fail> {
    let namespace = party.spec.namespace.on(Shelf::Artifacts);
    let failed = |cause: windlass_protocol::Cause| {
        let why = match cause.kind {
            CauseKind::SourceMissing => "an artifact's bytes are not in the cache any more".to_owned(),
            _ => cause.to_string(),
        };
        fatal(format!("failed to download artifacts: {why}"))
    };
    let digests: Vec<Digest> = group.iter().map(|found| found.of.artifact.digest).collect();
    let blobs = incoming::fetch(party, shared, &namespace, &digests).await.map_err(failed)?;
    Ok(group.into_iter().zip(blobs).collect())
}

async fn write_all(
    call: &mut Call<'_>,
    destination: &str,
    group: Vec<(FoundFile, Option<Blob>)>,
) -> Result<usize, Fail> {
    let mut failed = 0;
    for (found, blob) in group {
        let path = target(destination, &found.of.artifact.path);
        let written = match blob {
            Some(blob) => write(call.hands, &call.party.account, blob, (&path, new_mode_of(found.executable))).await,
            None => Err(FileError::Gone("the agent's cache has no room for it".to_owned())),
        };
        failed += said(call, &found, written).await?;
    }
    Ok(failed)
}

/// Says how a file came out; 1 where it failed. Where the command's program is gone, nobody would hear of it.
async fn said(call: &mut Call<'_>, found: &FoundFile, written: Result<(), FileError>) -> Result<usize, Fail> {
    let path = &found.of.artifact.path;
    match written {
        Ok(()) => {
            let (bytes, sha256) = (found.of.artifact.bytes, hex::to(&found.of.artifact.sha256));
            let words = format!("Successfully downloaded {path:?} ({bytes} bytes) with SHA256 {sha256}");
            call.note("notice", &words).await?;
            Ok(0)
        }
        Err(FileError::Hands(error @ (HandsError::Gone(_) | HandsError::Bad(_) | HandsError::Confused))) => {
            Err(error.into())
        }
        Err(error) => {
            call.note("error", &format!("Failed to download artifact {path:?}: {error}")).await?;
            Ok(1)
        }
    }
}

/// A file that is being written under another name beside its own.
struct Fresh<'a> {
    hands: &'a mut Hands,
    path: &'a str,
    mode: u32,
    name: String,
    handle: Option<u32>,
}

impl<'a> Fresh<'a> {
    fn new(hands: &'a mut Hands, (path, mode): (&'a str, u32)) -> Self {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        // Made anew for each call, and for each of its files.
        let mut own = blake3::Hasher::new();
        own.update(&hands.call).update(path.as_bytes());
        let name = format!("{folder}/.windlass-{}", hex::to(&own.finalize().as_bytes()[..8]));
        Self { hands, path, mode, name, handle: None }
    }

    /// Begins it, anew if it had begun.
    async fn begin(&mut self) -> Result<(), HandsError> {
        self.give_up().await?;
        if let Some((folder, _)) = self.path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
            self.hands.make_directories(folder).await?;
        }
        self.handle = Some(self.hands.create(&self.name, self.mode).await?);
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), HandsError> {
        match self.handle {
            Some(handle) => self.hands.put(handle, self.path, bytes).await,
            None => Ok(()),
        }
    }

    /// It is whole: it takes its name, over whatever has it.
    async fn finish(mut self) -> Result<(), HandsError> {
        let closed = match self.handle.take() {
            Some(handle) => self.hands.close(handle).await,
            None => Ok(()),
        };
        let put = match closed {
            Ok(()) => self.hands.rename(&self.name, self.path).await,
            Err(error) => Err(error),
        };
        if put.is_err() {
            self.hands.remove(&self.name).await?;
        }
        put
    }

    async fn give_up(&mut self) -> Result<(), HandsError> {
        if let Some(handle) = self.handle.take() {
            self.hands.abandon(handle).await?;
            self.hands.remove(&self.name).await?;
        }
        Ok(())
    }
}

/// Writes a blob of the agent's cache, a piece at a time, from the job's account.
async fn write(hands: &mut Hands, account: &Account, blob: Blob, (path, mode): (&str, u32)) -> Result<(), FileError> {
    hands.share.grow(HANDS_CHUNK_BYTES).await?;
    let written = write_pieces(hands, account, blob, (path, mode)).await;
    hands.share.shrink(HANDS_CHUNK_BYTES);
    written
}

async fn write_pieces(
    hands: &mut Hands,
    account: &Account,
    blob: Blob,
    (path, mode): (&str, u32),
) -> Result<(), FileError> {
    let mut fresh = Fresh::new(hands, (path, mode));
    fresh.begin().await?;
    let mut reader = blob.reader();
    loop {
        let (piece, back) = match next_piece(account, reader).await {
            Ok(next) => next,
            Err(error) => {
                fresh.give_up().await?;
                return Err(FileError::Gone(error.to_string()));
            }
        };
        if piece.is_empty() {
            return Ok(fresh.finish().await?);
        }
        if let Err(error) = fresh.put(&piece).await {
            fresh.give_up().await?;
            return Err(error.into());
        }
        reader = back;
    }
}

/// A file that is written and hashed as it comes.
struct Checked<'a> {
    fresh: Fresh<'a>,
    whole: Box<blake3::Hasher>,
    /// Whether the job's account has room for what is read ahead.
    ahead: bool,
}

impl Taking for Checked<'_> {
    type Error = HandsError;

    async fn begin(&mut self) -> Result<(), HandsError> {
        self.whole.reset();
        self.fresh.begin().await
    }

    fn reads_ahead(&self) -> bool {
        self.ahead
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), HandsError> {
        self.whole.update(&bytes);
        self.fresh.put(&bytes).await
    }
}

/// Writes a file that comes past the agent's cache.
async fn pull(
    hands: &mut Hands,
    party: &Party,
    shared: &Shared,
    found: &FoundFile,
    path: &str,
) -> Result<(), FileError> {
    let ahead = hands.share.grow_ahead(FOLLOWED_HELD_BYTES);
    let fresh = Fresh::new(hands, (path, new_mode_of(found.executable)));
    let mut checked = Checked { fresh, whole: Box::default(), ahead };
    let digest = found.of.artifact.digest;
    let pulled = shared.bulk.pull(&party.spec, &party.right, (Shelf::Artifacts, digest), &mut checked).await;
    let Checked { mut fresh, whole, .. } = checked;
    if ahead {
        fresh.hands.share.shrink(FOLLOWED_HELD_BYTES);
    }
    let error = match pulled {
        Ok(()) if Digest::from_hasher(&whole) == digest => return Ok(fresh.finish().await?),
        Ok(()) => FileError::Damaged,
        Err(NotCarried::Own(error)) => error.into(),
        Err(NotCarried::Refused(why) | NotCarried::Away(why)) => FileError::Gone(why),
    };
    fresh.give_up().await?;
    Err(error)
}
