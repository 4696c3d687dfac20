//! Restoring a cache: all of it is laid out beside where it belongs, and then each path is put in its place in one move.
//! Whatever fails before that, the job has what it had.

use std::time::Duration;

use bytes::Bytes;
use windlass_cache::Blob;
use windlass_cache::manifest::{Reader, Step};
use windlass_hands::wire::NewFile;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::{CACHE_PATIENCE_MS, FOLLOWED_HELD_BYTES, HANDS_LAY_FILES_MAX, HANDS_LAY_MAX_BYTES};
use windlass_protocol::message::FoundCache;
use windlass_protocol::{Cause, Digest, Shelf, hex};

use super::super::incoming::{self, CACHED_MAX_BYTES, GROUP_MAX_BYTES, GROUP_MAX_FILES, next_piece};
use super::super::{Call, Fail, fatal};
use super::chosen::Chosen;
use super::{find, key, shown_bytes};
use crate::bulk::{NotCarried, Taking};
use crate::job_api::account::Account;
use crate::job_api::hands::{Hands, HandsError};
use crate::job_api::known::Mark;

/// Less than this a second is no help to a job.
const SLOWEST_BYTES_A_SECOND: u64 = 512 << 10;

/// While it is written.
const OPEN_MODE: u32 = 0o600;

/// What a path that is kept costs beside its bytes.
const PLACE_BYTES: usize = 96;

/// A file up to this size is made in one operation, with others.
const WHOLE_MAX_BYTES: u64 = 64 << 10;

pub(super) async fn restore(call: &mut Call<'_>, cache: &Chosen) -> Result<(), Fail> {
    let (wanted, beginnings) = key::of(call, cache).await?;
    key::keep(call, cache, &wanted).await?;
    let Some(found) = find(call, cache, (wanted.clone(), beginnings)).await? else {
        return call.note("notice", &format!("Cache {:?}: there is none under {wanted:?}", cache.name)).await;
    };
    let manifest = manifest(call, &found).await?;
    let mut laying = Laying::new(&manifest, call.hands.call)?;
    let mut settled = Vec::new();
    for path in &cache.paths {
        settled.extend(laying.path(call, path).await?);
    }
    laying.finish(call).await?;
    // What the clock of the job's file systems may say of changes that come from here on.
    let (at, _) = call.hands.lay(Vec::new()).await?;
    for (stage, path) in settled {
        call.hands.settle(&stage, path).await?;
    }
    let account = &call.party.account;
    account.known.remember(account.share(), at, std::mem::take(&mut laying.laid)).await;
    let (files, bytes) = laying.reader.totals();
    let how = if found.key == wanted { String::new() } else { format!(" in place of {wanted:?}") };
    let (name, key, size) = (&cache.name, &found.key, shown_bytes(bytes));
    call.note("notice", &format!("Restored cache {name:?} from {key:?}{how}: {files} files, {size}")).await
}

/// The manifest's bytes, which are a part of the job's account until the command ends.
async fn manifest(call: &mut Call<'_>, found: &FoundCache) -> Result<Vec<u8>, Fail> {
    let room = usize::try_from(found.manifest_bytes).map_err(fatal)?;
    call.hands.share.grow(room).await?;
    let blob = fetched(call, &[found.manifest], found.manifest_bytes).await?.into_iter().flatten().next();
    let blob = blob.ok_or_else(|| fatal("the agent's cache has no room for it"))?;
    if blob.len() != found.manifest_bytes {
        return Err(fatal("its manifest has another length"));
    }
    let read = tokio::task::spawn_blocking(move || blob.into_vec()).await.map_err(fatal)?;
    read.map_err(fatal)
}

/// Brings blobs into the agent's cache, if that does not take too long.
async fn fetched(call: &Call<'_>, digests: &[Digest], bytes: u64) -> Result<Vec<Option<Blob>>, Fail> {
    let namespace = call.party.spec.namespace.on(Shelf::Caches);
    let fetching = incoming::fetch(call.party, call.shared, &namespace, digests);
    let most = Duration::from_millis(CACHE_PATIENCE_MS) + Duration::from_secs(bytes / SLOWEST_BYTES_A_SECOND);
    match tokio::time::timeout(most, fetching).await {
        Ok(fetched) => fetched.map_err(|cause| fatal(gone(&cause))),
        Err(_) => Err(fatal("its bytes take too long to come")),
    }
}

fn gone(cause: &Cause) -> String {
    match cause.kind {
        CauseKind::SourceMissing => "its bytes are not in the cache any more".to_owned(),
        _ => cause.to_string(),
    }
}

/// A file that is to come.
struct Coming {
    path: Vec<u8>,
    digest: Digest,
    bytes: u64,
    mode: u16,
    changed: i64,
}

/// A tree that is being laid out.
struct Laying<'a> {
    reader: Reader<'a>,
    /// Of the call, for names that no other has.
    call: [u8; 16],
    group: Vec<Coming>,
    group_bytes: u64,
    /// What the group holds of the job's account.
    group_cost: usize,
    /// Directories whose files may still come, inner ones first: their times change with those.
    directories: Vec<(Vec<u8>, u16, i64)>,
    /// Files that are there, as a save may know them again.
    laid: Vec<(Mark, Digest)>,
}

impl<'a> Laying<'a> {
    fn new(manifest: &'a [u8], call: [u8; 16]) -> Result<Self, Fail> {
        let reader = Reader::new(manifest)?;
        let (group, directories, laid) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { reader, call, group, group_bytes: 0, group_cost: 0, directories, laid })
    }

    /// Lays out the next path of the manifest; where, if there was anything.
    async fn path<'p>(&mut self, call: &mut Call<'_>, path: &'p [u8]) -> Result<Option<(Vec<u8>, &'p [u8])>, Fail> {
        let folder = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default();
        let mut own = blake3::Hasher::new();
        own.update(&self.call).update(path);
        let stage = [folder, b"/.windlass-", hex::to(&own.finalize().as_bytes()[..8]).as_bytes()].concat();
        // The directories that are open, each with what it becomes when all of it is there.
        let mut open: Vec<(Vec<u8>, u16, i64)> = Vec::new();
        loop {
            let step = self.reader.step()?.ok_or_else(|| fatal("its manifest has fewer paths than the cache"))?;
            let inside = |name: &[u8], open: &[(Vec<u8>, u16, i64)]| match open.last() {
                Some((folder, ..)) => [folder.as_slice(), b"/", name].concat(),
                None => stage.clone(),
            };
            if open.is_empty() && step != Step::Nothing {
                if !folder.is_empty() {
                    call.hands.make_directories(folder).await?;
                }
                call.hands.stage(&stage).await?;
            }
            match step {
                Step::Nothing => return Ok(None),
                Step::End => self.directories.extend(open.pop()),
                Step::Directory { name, mode, changed } => {
                    let path = inside(&name, &open);
                    call.hands.make_directories(&path).await?;
                    call.hands.share.grow(path.len() + PLACE_BYTES).await?;
                    open.push((path, mode, changed));
                }
                Step::Symlink { name, target } => call.hands.make_link(&inside(&name, &open), &target).await?,
                Step::File { name, mode, changed, bytes, digest } => {
                    let path = inside(&name, &open);
                    self.file(call, Coming { path, digest, bytes, mode, changed }).await?;
                }
            }
            if open.is_empty() {
                return Ok(Some((stage, path)));
            }
        }
    }

    async fn file(&mut self, call: &mut Call<'_>, file: Coming) -> Result<(), Fail> {
        call.hands.share.grow(size_of::<(Mark, Digest)>()).await?;
        if file.bytes > CACHED_MAX_BYTES {
            pull(call, &file).await?;
            return self.mark(call, &file).await;
        }
        if self.group.len() >= GROUP_MAX_FILES || self.group_bytes + file.bytes > GROUP_MAX_BYTES {
            self.flush(call).await?;
        }
        let cost = file.path.len() + PLACE_BYTES;
        call.hands.share.grow(cost).await?;
        self.group_cost += cost;
        self.group_bytes += file.bytes;
        self.group.push(file);
        Ok(())
    }

    /// Writes the files that wait.
    async fn flush(&mut self, call: &mut Call<'_>) -> Result<(), Fail> {
        let group = std::mem::take(&mut self.group);
        let digests: Vec<Digest> = group.iter().map(|file| file.digest).collect();
        let blobs = fetched(call, &digests, self.group_bytes).await?;
        let (mut batch, mut held) = (Vec::new(), 0);
        for (file, blob) in group.into_iter().zip(blobs) {
            let blob = blob.ok_or_else(|| fatal("the agent's cache has no room for it"))?;
            if blob.len() > WHOLE_MAX_BYTES {
                write(call.hands, &call.party.account, &file, blob).await?;
                self.mark(call, &file).await?;
                continue;
            }
            let bytes = call.party.account.work(move || blob.into_vec()).await?.map_err(fatal)?;
            if batch.len() == HANDS_LAY_FILES_MAX || held + bytes.len() > HANDS_LAY_MAX_BYTES {
                self.lay(call, std::mem::take(&mut batch), &mut held).await?;
            }
            // Its bytes, and once more in the frame that they travel in.
            call.hands.share.grow(2 * bytes.len()).await?;
            held += bytes.len();
            batch.push((file, bytes));
        }
        self.lay(call, batch, &mut held).await?;
        call.hands.share.shrink(self.group_cost);
        (self.group_bytes, self.group_cost) = (0, 0);
        Ok(())
    }

    /// Makes small files, which cost so much of the job's account.
    async fn lay(&mut self, call: &mut Call<'_>, batch: Vec<(Coming, Vec<u8>)>, held: &mut usize) -> Result<(), Fail> {
        let (mut files, mut laid) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (Coming { path, digest, bytes: length, mode, changed }, bytes) in batch {
            files.push(NewFile { path, mode: u32::from(mode), changed, bytes });
            laid.push((length, changed, digest));
        }
        let (_, stamps) = call.hands.lay(files).await?;
        let marks = laid.into_iter().zip(stamps);
        self.laid.extend(marks.map(|((bytes, changed, digest), stamp)| (Mark { bytes, changed, stamp }, digest)));
        call.hands.share.shrink(2 * std::mem::take(held));
        Ok(())
    }

    /// Notes how a large file that is there may be known again.
    async fn mark(&mut self, call: &mut Call<'_>, file: &Coming) -> Result<(), Fail> {
        if let Some(found) = call.hands.stat(&file.path, false).await? {
            let mark = Mark { bytes: file.bytes, changed: file.changed, stamp: found.stamp };
            self.laid.push((mark, file.digest));
        }
        Ok(())
    }

    /// Writes what is left, and gives directories what only whole ones can have.
    async fn finish(&mut self, call: &mut Call<'_>) -> Result<(), Fail> {
        if self.reader.step()?.is_some() {
            return Err(fatal("its manifest has more paths than the cache"));
        }
        self.flush(call).await?;
        for (path, mode, changed) in std::mem::take(&mut self.directories) {
            call.hands.set_attributes(&path, mode, changed).await?;
        }
        Ok(())
    }
}

/// Writes bytes at the end of a file; where there are none but zeros, a hole.
async fn put(hands: &mut Hands, handle: u32, path: &[u8], piece: &[u8]) -> Result<(), HandsError> {
    if piece.iter().all(|byte| *byte == 0) {
        return hands.skip(handle, path, piece.len()).await;
    }
    hands.put(handle, path, piece).await
}

/// Writes a blob of the agent's cache.
async fn write(hands: &mut Hands, account: &Account, file: &Coming, blob: Blob) -> Result<(), Fail> {
    let handle = hands.create(&file.path, OPEN_MODE).await?;
    let mut reader = blob.reader();
    loop {
        let (piece, back) = next_piece(account, reader).await.map_err(fatal)?;
        if piece.is_empty() {
            break;
        }
        put(hands, handle, &file.path, &piece).await?;
        reader = back;
    }
    hands.close(handle).await?;
    Ok(hands.set_attributes(&file.path, file.mode, file.changed).await?)
}

/// A large file, which is hashed as it comes.
struct Large<'a> {
    hands: &'a mut Hands,
    path: &'a [u8],
    handle: Option<u32>,
    whole: Box<blake3::Hasher>,
    /// Whether the job's account has room for what is read ahead.
    ahead: bool,
}

impl Taking for Large<'_> {
    type Error = HandsError;

    async fn begin(&mut self) -> Result<(), HandsError> {
        self.whole.reset();
        if let Some(handle) = self.handle.take() {
            self.hands.close(handle).await?;
            self.hands.remove(self.path).await?;
        }
        self.handle = Some(self.hands.create(self.path, OPEN_MODE).await?);
        Ok(())
    }

    fn reads_ahead(&self) -> bool {
        self.ahead
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), HandsError> {
        self.whole.update(&bytes);
        match self.handle {
            Some(handle) => put(self.hands, handle, self.path, &bytes).await,
            None => Ok(()),
        }
    }
}

/// Writes a file that comes past the agent's cache.
async fn pull(call: &mut Call<'_>, file: &Coming) -> Result<(), Fail> {
    let (party, bulk) = (call.party, &call.shared.bulk);
    let ahead = call.hands.share.grow_ahead(FOLLOWED_HELD_BYTES);
    let mut large = Large { hands: &mut *call.hands, path: &file.path, handle: None, whole: Box::default(), ahead };
    let pulled = bulk.pull(&party.spec, &party.right, (Shelf::Caches, file.digest), &mut large).await;
    let Large { handle, whole, hands, .. } = large;
    if ahead {
        hands.share.shrink(FOLLOWED_HELD_BYTES);
    }
    match pulled {
        Ok(()) if Digest::from_hasher(&whole) == file.digest => {}
        Ok(()) => return Err(fatal("the bytes that came are not those that were saved")),
        Err(NotCarried::Own(error)) => return Err(error.into()),
        Err(NotCarried::Refused(why) | NotCarried::Away(why)) => return Err(fatal(why)),
    }
    if let Some(handle) = handle {
        call.hands.close(handle).await?;
    }
    Ok(call.hands.set_attributes(&file.path, file.mode, file.changed).await?)
}
