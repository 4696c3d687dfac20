//! Storing what a job made, which passes through and leaves nothing here; and reading one blob from end to end.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use windlass_cache::{Blob, BlobReader, ChunkManifest};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{ASK_PATIENCE_MS, CACHE_PATIENCE_MS, LINK_BLOB_PIECE_BYTES, PARTS_TRIES_MAX};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{BlobHeader, BulkAsk, StoreAnswer, StoreBlobs, StoreRefused, Wanted, WantedBlob};
use windlass_protocol::{Digest, Shelf};

use super::fetch::{Wish, read_manifest};
use super::gathering::Gathering;
use super::parts::Sieve;
use super::{Bulk, PAUSE_MAX, PAUSE_MIN, Trouble, blocking, internal};
use crate::right::Right;

/// Why blobs are not where they were to go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored<E> {
    /// They could not be read, or not be taken.
    #[error(transparent)]
    Own(E),
    /// The coordinator does not take them, or does not have them.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached for too long.
    #[error("the coordinator cannot be reached: {0}")]
    Away(String),
}

/// What breaks a transfer from within.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// The link; it is tried again.
    Link(LinkError),
    /// The job's own side; it is not.
    Own(E),
}

impl<E> From<LinkError> for Broken<E> {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Takes the bytes of one blob on their way.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    into: Outlet<'a>,
    /// The coordinator has these already: an earlier connection broke after them.
    skip: u64,
    left: u64,
}

/// Where they go.
#[derive(Debug)]
pub(super) enum Outlet<'a> {
    /// Over the link, as they are.
    Link(&'a mut FramedSend),
    /// They are cut.
    Sieve(Box<Sieve<'a>>),
}

impl<'a> Feed<'a> {
    /// One that takes all bytes of a blob.
    pub(super) const fn whole(into: Outlet<'a>, bytes: u64) -> Self {
        Self { into, skip: 0, left: bytes }
    }

    /// What cut them, if they were cut.
    pub(super) fn into_sieve(self) -> Option<Box<Sieve<'a>>> {
        match self.into {
            Outlet::Sieve(sieve) => Some(sieve),
            Outlet::Link(_) => None,
        }
    }

    /// Sends the next bytes, from the beginning of the blob on. What is there already is passed over. More than the blob has
    /// are not sent: whoever reads it will see that it has changed.
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), LinkError> {
        let mut bytes = bytes.into();
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skip as u64;
        let _there = bytes.split_to(skip);
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= take as u64;
        match &mut self.into {
            _ if take == 0 => Ok(()),
            Outlet::Link(send) => send.send_raw(bytes.split_to(take)).await,
            Outlet::Sieve(sieve) => sieve.take(&bytes.split_to(take)).await,
        }
    }
}

/// Why one try did not do it.
pub(super) enum Tried<E> {
    Again(String),
    Not(NotStored<E>),
}

impl<E> From<Trouble> for Tried<E> {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Cause(cause) => Self::Not(NotStored::Refused(cause.to_string())),
            Trouble::Link(error) => Self::Again(error.to_string()),
            Trouble::Away(why) | Trouble::Refused(why) => Self::Again(why),
        }
    }
}

impl<E> From<LinkError> for Tried<E> {
    fn from(error: LinkError) -> Self {
        Self::Again(error.to_string())
    }
}

impl<E> From<Broken<E>> for Tried<E> {
    fn from(broken: Broken<E>) -> Self {
        match broken {
            Broken::Link(error) => error.into(),
            Broken::Own(error) => Self::Not(NotStored::Own(error)),
        }
    }
}

/// How long somebody has waited.
struct Patience {
    begun: Instant,
    pause: Duration,
    most: Duration,
}

impl Patience {
    /// A job can go on without a cache, and not without its artifacts.
    fn of(shelf: Shelf) -> Self {
        let most = match shelf {
            Shelf::Artifacts => ASK_PATIENCE_MS,
            Shelf::Caches => CACHE_PATIENCE_MS,
        };
        Self { begun: Instant::now(), pause: PAUSE_MIN, most: Duration::from_millis(most) }
    }

    /// Waits for another try, unless it is enough.
    async fn again<E>(&mut self, job: &JobSpec, tried: Tried<E>) -> Result<(), NotStored<E>> {
        let why = match tried {
            Tried::Not(error) => return Err(error),
            Tried::Again(why) => why,
        };
        if self.begun.elapsed() + self.pause >= self.most {
            return Err(NotStored::Away(why));
        }
        tracing::info!(attempt = %job.attempt, why, "blobs_wait");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Who has the bytes of blobs that are stored.
pub(crate) trait Offering: Send {
    /// Why it does not.
    type Error: Send;

    /// Hands over the bytes of a blob, by its place. It may be asked for it again.
    fn read(
        &mut self,
        place: usize,
        feed: &mut Feed<'_>,
    ) -> impl Future<Output = Result<(), Broken<Self::Error>>> + Send;
}

/// Who takes the bytes of a blob.
pub(crate) trait Taking: Send {
    /// Why it does not.
    type Error: Send;

    /// They begin, for the first time or anew.
    fn begin(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The next of them.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl Bulk {
    /// Stores blobs on a shelf of the job's namespace, durably; those that are missing there are asked for.
    pub(crate) async fn store<O: Offering>(
        &self,
        job: &JobSpec,
        right: &Right,
        (shelf, blobs): (Shelf, &[(Digest, u64)]),
        from: &mut O,
    ) -> Result<(), NotStored<O::Error>> {
        let mut patience = Patience::of(shelf);
        let mut in_parts = PARTS_TRIES_MAX;
        loop {
            let (build, attempt, epoch) = (job.build, job.attempt, right.epoch());
            let offer = StoreBlobs { build, attempt, epoch, shelf, blobs: blobs.to_vec() };
            let parts = if in_parts > 0 { self.try_parts(&offer, from).await } else { Ok(()) };
            if parts.is_ok() && in_parts > 0 {
                // That took as long as its bytes did, and not because somebody was away.
                patience = Patience::of(shelf);
            }
            in_parts = in_parts.saturating_sub(1);
            let tried = match parts {
                Ok(()) => self.try_store(offer, from).await,
                Err(tried) => Err(tried),
            };
            match tried {
                Ok(()) => return Ok(()),
                Err(tried) => patience.again(job, tried).await?,
            }
        }
    }

    async fn try_store<O: Offering>(&self, offer: StoreBlobs, from: &mut O) -> Result<(), Tried<O::Error>> {
        let lengths: Vec<u64> = offer.blobs.iter().map(|(_, bytes)| *bytes).collect();
        let (mut send, mut recv) = self.open(&BulkAsk::Store(offer)).await?;
        let wanted = match answer(&mut recv).await? {
            StoreAnswer::Wanted(wanted) => wanted,
            other => return ended(other),
        };
        for WantedBlob { place, offset: skip } in wanted {
            let place = place as usize;
            let Some(left) = lengths.get(place).and_then(|bytes| bytes.checked_sub(skip)) else {
                return Err(Tried::Not(NotStored::Refused("the coordinator wants what was not offered".to_owned())));
            };
            match from.read(place, &mut Feed { into: Outlet::Link(&mut send), skip, left }).await {
                Ok(()) => {}
                // What the coordinator says explains why it stopped reading.
                Err(Broken::Link(LinkError::Stopped { .. })) => break,
                Err(broken) => {
                    send.reset(Code::Canceled);
                    return Err(broken.into());
                }
            }
        }
        // The coordinator may have answered already, and stopped reading.
        let _ = send.finish();
        ended(answer(&mut recv).await?)
    }

    /// Reads one blob, a large one through the cache where it has room, else past it. Whether its bytes are right is for whoever
    /// takes them.
    pub(crate) async fn pull<T: Taking>(
        &self,
        job: &JobSpec,
        right: &Right,
        (shelf, digest): (Shelf, Digest),
        into: &mut T,
    ) -> Result<(), NotStored<T::Error>> {
        let mut patience = Patience::of(shelf);
        let namespace = job.namespace.on(shelf);
        let wish = Wish::of_job(job, right, &namespace);
        let mut in_parts = true;
        loop {
            match self.try_pull(&wish, digest, in_parts, into).await {
                Ok(Pulled::All) => return Ok(()),
                Ok(Pulled::NoRoom) => in_parts = false,
                Err(tried) => patience.again(job, tried).await?,
            }
        }
    }

    async fn try_pull<T: Taking>(
        &self,
        wish: &Wish<'_>,
        digest: Digest,
        in_parts: bool,
        into: &mut T,
    ) -> Result<Pulled, Tried<T::Error>> {
        let own = |error| Tried::Not(NotStored::Own(error));
        if let Some(blob) = self.cached(wish.namespace, digest).await.map_err(Trouble::from)? {
            return hand_over(blob, into).await;
        }
        let wanted = if in_parts { Wanted::Parts(vec![digest]) } else { Wanted::Whole(vec![digest]) };
        let (mut send, mut recv) = self.ask(wish.bearer, wanted).await?;
        send.finish()?;
        let mut left = match recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })? {
            BlobHeader::Found { bytes } => bytes,
            BlobHeader::Manifest { bytes } => {
                let manifest = read_manifest(&mut recv, digest, bytes).await?;
                return self.pull_chunks(wish, manifest, into).await;
            }
            BlobHeader::Absent | BlobHeader::Elsewhere | BlobHeader::Waiting | BlobHeader::Packed { .. } => {
                return Err(Tried::Not(NotStored::Refused("its bytes are not in the cache any more".to_owned())));
            }
        };
        into.begin().await.map_err(own)?;
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            into.take(piece).await.map_err(own)?;
        }
        Ok(Pulled::All)
    }

    async fn pull_chunks<T: Taking>(
        &self,
        wish: &Wish<'_>,
        manifest: ChunkManifest,
        into: &mut T,
    ) -> Result<Pulled, Tried<T::Error>> {
        let digest = manifest.digest();
        if !self.store.has_room_for(manifest.blob_bytes()) {
            return Ok(Pulled::NoRoom);
        }
        let (gathered, followed) = if manifest.is_woven() {
            (self.gather(wish, manifest).await, Ok(false))
        } else {
            self.gather_followed(wish, manifest, into).await
        };
        let is_all = followed.map_err(|error| Tried::Not(NotStored::Own(error)))?;
        match gathered {
            Ok(()) if is_all => return Ok(Pulled::All),
            Ok(()) => {}
            Err(Trouble::Cause(cause)) if cause.kind == CauseKind::DiskFull => {
                tracing::info!(%digest, %cause, "blob_passes_the_cache");
                return Ok(Pulled::NoRoom);
            }
            Err(trouble) => return Err(trouble.into()),
        }
        match self.cached(wish.namespace, digest).await.map_err(Trouble::from)? {
            Some(blob) => hand_over(blob, into).await,
            // Evicted before it was read.
            None => Ok(Pulled::NoRoom),
        }
    }

    /// Brings a blob whose chunks are its bytes in order, and hands them over while others come; says whether that was all of
    /// them. Whoever takes no more ends the bringing too.
    async fn gather_followed<T: Taking>(
        &self,
        wish: &Wish<'_>,
        manifest: ChunkManifest,
        into: &mut T,
    ) -> (Result<(), Trouble>, Result<bool, T::Error>) {
        let gathering = match self.gatherings.begin(wish.base, manifest.clone()).await {
            Ok(Some(gathering)) => gathering,
            Ok(None) => return (self.gather(wish, manifest).await, Ok(false)),
            Err(cause) => return (Err(cause.into()), Ok(false)),
        };
        let ((over, is_over), (stop, stopped)) = (oneshot::channel::<()>(), oneshot::channel());
        let gathers = async {
            let gathered = tokio::select! {
                gathered = self.gather(wish, manifest) => gathered,
                Ok(()) = stopped => Err(internal(&"nobody takes it any more").into()),
            };
            drop(over);
            gathered
        };
        let follows = async {
            let followed = follow(&gathering, is_over, into).await;
            if followed.is_err() {
                // It may have ended before.
                let _ = stop.send(());
            }
            followed
        };
        tokio::join!(gathers, follows)
    }
}

/// Hands chunks over in their order as they come, until `over`: then those that have come. Says whether these were all, and right.
async fn follow<T: Taking>(
    gathering: &Arc<Gathering>,
    mut over: oneshot::Receiver<()>,
    into: &mut T,
) -> Result<bool, T::Error> {
    into.begin().await?;
    for (place, _) in (0..).zip(gathering.manifest().chunks()) {
        tokio::select! {
            biased;
            () = gathering.arrived(place) => {}
            _ = &mut over => return Ok(false),
        }
        // Whoever brings the blob meets what is wrong with it, too.
        let Ok(Some(chunk)) = gathering.chunk(place).await else { return Ok(false) };
        into.take(chunk.into()).await?;
    }
    Ok(true)
}

/// What came of reading a blob.
enum Pulled {
    All,
    /// The agent's cache cannot take it.
    NoRoom,
}

/// Hands over a blob of the agent's cache.
async fn hand_over<T: Taking>(blob: Blob, into: &mut T) -> Result<Pulled, Tried<T::Error>> {
    let own = |error| Tried::Not(NotStored::Own(error));
    into.begin().await.map_err(own)?;
    let (mut piece, mut reader) = piece_of(blob.reader()).await?;
    while !piece.is_empty() {
        // While it is taken the next one is read.
        let (taken, next) = tokio::join!(into.take(piece), piece_of(reader));
        taken.map_err(own)?;
        (piece, reader) = next?;
    }
    Ok(Pulled::All)
}

/// The next bytes of a blob; none at its end.
async fn piece_of(mut reader: BlobReader) -> Result<(Bytes, BlobReader), Trouble> {
    let read = blocking(move || {
        let mut piece = vec![0; LINK_BLOB_PIECE_BYTES];
        let read = reader.read(&mut piece).map_err(|e| internal(&e))?;
        piece.truncate(read);
        Ok((piece.into(), reader))
    });
    Ok(read.await?)
}

async fn answer(recv: &mut FramedRecv) -> Result<StoreAnswer, LinkError> {
    recv.recv_message().await?.ok_or(LinkError::Short { missing: 1 })
}

fn ended<E>(answer: StoreAnswer) -> Result<(), Tried<E>> {
    match answer {
        StoreAnswer::Stored => Ok(()),
        StoreAnswer::Refused { code: StoreRefused::Unavailable, detail } => Err(Tried::Again(detail)),
        StoreAnswer::Refused { code: StoreRefused::Full | StoreRefused::WrongBytes, detail } => {
            Err(Tried::Not(NotStored::Refused(detail)))
        }
        StoreAnswer::Wanted(_) => Err(Tried::Again("the coordinator asked twice".to_owned())),
    }
}
