//! Saving a cache: its paths are walked, hashed and sent a batch at a time, then the manifest that names all of it, then its
//! entry. Until that there is nothing that anybody could find. Files that this attempt restored and left as they were are not
//! read, unless their bytes have to be sent.

use windlass_cache::manifest::{Step, Writer};
use windlass_hands::wire::Kind;
use windlass_protocol::limits::CACHE_MAX_BYTES;
use windlass_protocol::message::{Asked, NewCache, Told};
use windlass_protocol::{Digest, Shelf};

use super::super::outgoing::{FileError, Files, Outgoing};
use super::super::{Call, Fail, fatal, untold};
use super::chosen::Chosen;
use super::{find, key, shown_bytes};
use crate::bulk::{Broken, Feed, NotCarried, Offering};
use crate::job_api::hands::{Found, Hands, shown};
use crate::job_api::hashes::Hashes;
use crate::job_api::known::Mark;

/// Files that are offered together.
const BATCH_MAX_FILES: usize = 512;
/// Bytes of small files that are held until then.
const BATCH_MAX_BYTES: usize = 4 << 20;

/// What a file costs in a batch beside its path and bytes, and a name in a list beside itself.
const PLACE_BYTES: usize = 160;

pub(super) async fn save(call: &mut Call<'_>, cache: &Chosen) -> Result<(), Fail> {
    let key = key::to_save(call, cache).await?;
    if find(call, cache, (key.clone(), Vec::new())).await?.is_some() {
        return call.note("notice", &format!("Cache {:?} is there already, under {key:?}", cache.name)).await;
    }
    let mut saving = Saving::new(cache.paths.len())?;
    for path in &cache.paths {
        saving.walk(call, path).await?;
    }
    if saving.absent == cache.paths.len() {
        return Err(fatal("none of its paths is there"));
    }
    saving.flush(call).await?;
    let Saving { writer, skipped, read, .. } = saving;
    if skipped > 0 {
        let words = format!(
            "{skipped} sockets, pipes, devices and files that went meanwhile are not in cache {:?}",
            cache.name
        );
        call.note("warning", &words).await?;
    }
    let (files, bytes) = writer.totals();
    let manifest = writer.finish()?;
    let (digest, manifest_bytes) = (Digest::of(&manifest), manifest.len() as u64);
    let (party, offer) = (call.party, [(digest, manifest_bytes)]);
    let bulk = &call.shared.bulk;
    let sent = bulk.store(&party.spec, &party.right, (Shelf::Caches, &offer), &mut Text(&manifest)).await;
    sent.map_err(|error| not_stored(error, &[]))?;
    let new = NewCache { scope: cache.scope, key: key.clone(), manifest: digest, manifest_bytes };
    let words = match call.ask(Asked::SaveCache(Box::new(new)), &[]).await? {
        Told::Cache(Some(there)) if there.manifest == digest => {
            let size = shown_bytes(bytes);
            format!("Saved cache {:?} under {key:?}: {files} files, {size}; {read} of them read", cache.name)
        }
        Told::Cache(Some(_)) => format!("Cache {:?} was saved under {key:?} by another job meanwhile", cache.name),
        other => return Err(untold("the coordinator does not take it", other)),
    };
    call.note("notice", &words).await
}

/// A manifest, from memory.
struct Text<'a>(&'a [u8]);

impl Offering for Text<'_> {
    type Error = (usize, FileError);

    async fn read(&mut self, _: usize, feed: &mut Feed<'_>) -> Result<(), Broken<Self::Error>> {
        Ok(feed.send(self.0.to_vec()).await?)
    }
}

/// Why blobs were not stored; `files` are those that were offered.
fn not_stored(error: NotCarried<(usize, FileError)>, files: &[Outgoing]) -> Fail {
    match error {
        NotCarried::Own((_, FileError::Hands(error))) => error.into(),
        NotCarried::Own((place, error)) => {
            let file = files.get(place).map(|file| shown(&file.file)).unwrap_or_default();
            fatal(format!("{file}: {error}"))
        }
        NotCarried::Refused(why) => fatal(why),
        NotCarried::Away(why) => fatal(format!("the coordinator cannot be reached: {why}")),
    }
}

/// What is known of a cache so far.
struct Saving {
    writer: Writer,
    /// Bytes of the manifest that are paid for.
    paid: usize,
    /// Files whose bytes may have to be sent.
    batch: Vec<Outgoing>,
    batch_bytes: usize,
    skipped: usize,
    /// Files that were read to know their digest.
    read: usize,
    /// Paths at which there is nothing.
    absent: usize,
}

/// A directory that is being walked.
struct Level {
    path: Vec<u8>,
    names: std::vec::IntoIter<(Vec<u8>, Found)>,
    cost: usize,
}

impl Saving {
    fn new(paths: usize) -> Result<Self, Fail> {
        let writer = Writer::new(paths)?;
        Ok(Self { writer, paid: 0, batch: Vec::new(), batch_bytes: 0, skipped: 0, read: 0, absent: 0 })
    }

    /// Takes in one path, with all below it.
    async fn walk(&mut self, call: &mut Call<'_>, path: &[u8]) -> Result<(), Fail> {
        let Some(found) = call.hands.stat(path, false).await? else {
            self.absent += 1;
            return self.push(call, &Step::Nothing).await;
        };
        if found.kind == Kind::Other {
            return Err(fatal(format!("{} is neither a file nor a directory nor a link", shown(path))));
        }
        let mut levels: Vec<Level> = self.enter(call, (path.to_vec(), Vec::new()), found).await?.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some((name, looked)) = level.names.next() else {
                call.hands.share.shrink(level.cost);
                levels.pop();
                self.push(call, &Step::End).await?;
                continue;
            };
            let path = [level.path.as_slice(), b"/", &name].concat();
            // A file that is read is looked at again just before: its time and its bytes belong together.
            let is_read = looked.kind == Kind::File && known(call, &looked).is_none();
            let found = if is_read { call.hands.stat(&path, false).await? } else { Some(looked) };
            match found {
                Some(found) if found.kind != Kind::Other => {
                    levels.extend(self.enter(call, (path, name), found).await?);
                }
                // Or it is gone by now.
                Some(_) | None => self.skipped += 1,
            }
        }
        Ok(())
    }

    /// Takes in one thing; a directory is to be walked.
    async fn enter(
        &mut self,
        call: &mut Call<'_>,
        (path, name): (Vec<u8>, Vec<u8>),
        found: Found,
    ) -> Result<Option<Level>, Fail> {
        let Found { kind, mode, changed, .. } = found;
        match kind {
            Kind::Directory => {
                let level = list(call.hands, path).await?;
                self.push(call, &Step::Directory { name, mode, changed }).await?;
                return Ok(Some(level));
            }
            Kind::Link => {
                let target = call.hands.read_link(&path).await?;
                self.push(call, &Step::Symlink { name, target }).await?;
            }
            Kind::File | Kind::Other => {
                let file = match known(call, &found) {
                    Some(digest) => Outgoing { file: path.clone(), digest, bytes: found.bytes, held: None },
                    None => {
                        self.read += 1;
                        let through = (&mut *call.hands, &call.party.account);
                        match Outgoing::read(through, path.clone(), CACHE_MAX_BYTES, Hashes::plain()).await {
                            Err(FileError::Hands(error)) => return Err(error.into()),
                            file => file.map_err(|error| fatal(format!("{}: {error}", shown(&path))))?.0,
                        }
                    }
                };
                let (bytes, digest) = (file.bytes, file.digest);
                self.push(call, &Step::File { name, mode, changed, bytes, digest }).await?;
                let cost = PLACE_BYTES + path.len() + file.held.as_ref().map_or(0, Vec::len);
                call.hands.share.grow(cost).await?;
                self.batch_bytes += cost;
                self.batch.push(file);
                if self.batch.len() >= BATCH_MAX_FILES || self.batch_bytes >= BATCH_MAX_BYTES {
                    self.flush(call).await?;
                }
            }
        }
        Ok(None)
    }

    /// Adds to the manifest, and pays for it.
    async fn push(&mut self, call: &mut Call<'_>, step: &Step) -> Result<(), Fail> {
        self.writer.push(step)?;
        // A vector that grows has room for as much again.
        let cost = 2 * (self.writer.len() - self.paid);
        self.paid = self.writer.len();
        Ok(call.hands.share.grow(cost).await?)
    }

    /// Sends what of the batch is missing.
    async fn flush(&mut self, call: &mut Call<'_>) -> Result<(), Fail> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let blobs: Vec<(Digest, u64)> = self.batch.iter().map(|file| (file.digest, file.bytes)).collect();
        let (party, bulk) = (call.party, &call.shared.bulk);
        let mut from = Files { hands: &mut *call.hands, files: &self.batch };
        let sent = bulk.store(&party.spec, &party.right, (Shelf::Caches, &blobs), &mut from).await;
        sent.map_err(|error| not_stored(error, &self.batch))?;
        self.batch.clear();
        call.hands.share.shrink(self.batch_bytes);
        self.batch_bytes = 0;
        Ok(())
    }
}

/// What a file is known to hash to.
fn known(call: &Call<'_>, found: &Found) -> Option<Digest> {
    let Found { bytes, changed, stamp, .. } = *found;
    call.party.account.known.digest(&Mark { bytes, changed, stamp })
}

/// The names in a directory with what they are, sorted.
async fn list(hands: &mut Hands, path: Vec<u8>) -> Result<Level, Fail> {
    let Some(handle) = hands.open_directory(&path).await? else {
        return Err(fatal(format!("{} is gone while it is saved", shown(&path))));
    };
    let (mut names, mut cost) = (Vec::new(), 0);
    loop {
        let entries = hands.look(handle, &path).await?;
        if entries.is_empty() {
            break;
        }
        let more = entries.iter().map(|(name, _)| name.len() + PLACE_BYTES).sum();
        hands.share.grow(more).await?;
        cost += more;
        names.extend(entries);
    }
    hands.close(handle).await?;
    names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Level { path, names: names.into_iter(), cost })
}
