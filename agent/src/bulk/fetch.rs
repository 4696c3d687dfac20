//! Bringing blobs into the agent's cache: small ones as they are, of large ones the chunks that are missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use windlass_cache::{ChunkManifest, Error, Intake, Rejected, Store};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{FETCH_CHUNK_STREAMS, FETCH_CHUNKS, FETCH_MAX_DIGESTS, GATHERED_AT_ONCE};
use windlass_protocol::link::{FramedRecv, LinkError};
use windlass_protocol::message::{BlobHeader, Wanted};
use windlass_protocol::{Cause, Digest, Namespace};

use super::bearer::Bearer;
use super::gathering::Gathering;
use super::{Bulk, PAUSE_MAX, PAUSE_MIN, Trouble, blocking, internal, stored};
use crate::right::Right;

/// Pieces of blobs between the link and the disk: what the link brings while a segment is written.
const PIECES_MAX: usize = 64;

/// Tries without a single blob or chunk more that reached the coordinator: it does not want to serve this.
const REFUSALS_MAX: u32 = 10;

/// Requests that are laid out before it is looked again at what is missing.
const FETCHES_IN_A_ROW: usize = 64;

/// What is kept for the bytes of a manifest before they have come.
const TRUST_BYTES: u64 = 1 << 20;

/// Who wants blobs, and for which namespace of the agent's cache.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) bearer: Bearer<'a>,
    pub(super) namespace: &'a Namespace,
    /// Blobs and chunks that have come so far.
    came: AtomicU64,
}

impl<'a> Wish<'a> {
    pub(super) const fn new(bearer: Bearer<'a>, namespace: &'a Namespace) -> Self {
        Self { bearer, namespace, came: AtomicU64::new(0) }
    }

    fn count(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}

impl Bulk {
    /// Brings those of the blobs that are missing here. What the coordinator does not have is `source_missing`. A link
    /// that breaks is made again, for as long as the right to the attempt lasts: a coordinator may be away for a while.
    /// They come into the cache for `namespace`.
    pub(crate) async fn fetch(
        &self,
        job: &JobSpec,
        right: &Right,
        namespace: &Namespace,
        digests: Vec<Digest>,
    ) -> Result<(), Cause> {
        let wish = Wish::new(Bearer::Job(job, right), namespace);
        let (mut refusals, mut pause) = (0, PAUSE_MIN);
        loop {
            let came = wish.came();
            let (store, into, wanted) = (self.store.clone(), namespace.clone(), digests.clone());
            let missing = blocking(move || Ok(store.missing(&into, &wanted))).await?;
            let refused = match self.fetch_missing(&wish, &missing).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Cause(cause)) => return Err(cause),
                Err(Trouble::Away(why)) => {
                    tracing::info!(attempt = %job.attempt, why, "source_waits");
                    None
                }
                Err(Trouble::Link(error)) => Some(error.to_string()),
                Err(Trouble::Refused(why)) => Some(why),
            };
            if wish.came() > came {
                (refusals, pause) = (0, PAUSE_MIN);
            }
            if let Some(error) = refused {
                refusals += 1;
                if refusals >= REFUSALS_MAX {
                    let what = format!("the source could not be fetched from the coordinator: {error}");
                    return Err(internal(&what));
                }
                tracing::info!(attempt = %job.attempt, error, "source_cut_short");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn fetch_missing(&self, wish: &Wish<'_>, missing: &[Digest]) -> Result<(), Trouble> {
        for part in missing.chunks(FETCH_MAX_DIGESTS) {
            let large = self.fetch_part(wish, part).await?;
            let mut gathered = Vec::with_capacity(large.len());
            for manifest in large {
                gathered.push(self.gather(wish, manifest));
            }
            at_once(GATHERED_AT_ONCE, gathered).await?;
        }
        Ok(())
    }

    /// Brings the small ones of some blobs, and the manifests of the large ones.
    async fn fetch_part(&self, wish: &Wish<'_>, digests: &[Digest]) -> Result<Vec<ChunkManifest>, Trouble> {
        let (mut send, mut recv) = self.ask(wish.bearer, Wanted::Parts(digests.to_vec())).await?;
        send.finish()?;
        let (pieces, queue) = mpsc::channel(PIECES_MAX);
        let (store, namespace) = (self.store.clone(), wish.namespace.clone());
        let writer = tokio::task::spawn_blocking(move || write(&store, &namespace, queue));
        let received = receive(&mut recv, digests, pieces).await;
        let written = writer.await.map_err(|e| internal(&e))?;
        // What the disk says explains why the link was given up, not the other way round.
        let whole = written?;
        wish.came.fetch_add(whole as u64, Ordering::Relaxed);
        received
    }

    /// Brings one large blob, chunk by chunk, of which the coordinator has told the manifest.
    pub(super) async fn gather(&self, wish: &Wish<'_>, manifest: ChunkManifest) -> Result<(), Trouble> {
        wish.count();
        let Some(gathering) = self.gatherings.begin(wish.namespace, manifest).await? else {
            return Err(Trouble::Away("too many large files come at once".to_owned()));
        };
        loop {
            let missing = gathering.missing();
            if missing.is_empty() {
                break;
            }
            let mut drawn = Vec::new();
            for places in missing.chunks(FETCH_CHUNKS).take(FETCHES_IN_A_ROW) {
                drawn.push(self.draw(wish, &gathering, places));
            }
            at_once(FETCH_CHUNK_STREAMS, drawn).await?;
        }
        Ok(self.gatherings.finish(wish.namespace, &gathering).await?)
    }

    /// Fetches chunks from the coordinator that nobody else here fetches, and waits for the others.
    async fn draw(&self, wish: &Wish<'_>, gathering: &Arc<Gathering>, places: &[u32]) -> Result<(), Trouble> {
        let claimed = gathering.claim(places);
        let own = claimed.places();
        if !own.is_empty() {
            let blob = gathering.manifest().digest();
            let (mut send, mut recv) = self.ask(wish.bearer, Wanted::Chunks { blob, places: own.clone() }).await?;
            send.finish()?;
            for place in own {
                let header = recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })?;
                let BlobHeader::Found { bytes } = header else {
                    // It was put aside there: the next try begins with its manifest.
                    self.gatherings.end(blob);
                    return Err(Trouble::Refused(format!("a chunk of {blob} is not there any more")));
                };
                let chunk = read_chunk(&mut recv, gathering, place, bytes).await?;
                put(gathering, place, chunk).await?;
                wish.count();
            }
        }
        drop(claimed);
        for place in places {
            gathering.settled(*place).await;
        }
        Ok(())
    }
}

/// Does all of it, a few at once; the first that fails ends it.
async fn at_once<F: Future<Output = Result<(), Trouble>>>(most: usize, work: Vec<F>) -> Result<(), Trouble> {
    stream::iter(work).buffer_unordered(most).try_collect().await
}

/// Keeps a chunk that came from the coordinator.
async fn put(gathering: &Arc<Gathering>, place: u32, chunk: Bytes) -> Result<(), Trouble> {
    match gathering.put(place, chunk).await {
        Ok(()) => Ok(()),
        Err(Error::Rejected(rejected @ Rejected::WrongDigest { .. })) => Err(Trouble::Refused(rejected.to_string())),
        Err(error) => Err(stored(&error).into()),
    }
}

/// The bytes of a chunk, which are as long as the manifest says.
pub(super) async fn read_chunk(
    recv: &mut FramedRecv,
    gathering: &Gathering,
    place: u32,
    bytes: u64,
) -> Result<Bytes, Trouble> {
    let extent = gathering.manifest().extent(place as usize).map(|(_, bytes)| bytes as u64);
    if extent != Some(bytes) {
        return Err(Trouble::Refused(format!("chunk {place} has another length than its manifest says")));
    }
    let mut chunk = BytesMut::new();
    while (chunk.len() as u64) < bytes {
        let piece = recv.recv_raw(bytes - chunk.len() as u64).await?;
        chunk.extend_from_slice(&piece);
    }
    Ok(chunk.freeze())
}

/// A manifest of so many bytes, which is of this blob.
pub(super) async fn read_manifest(recv: &mut FramedRecv, digest: Digest, bytes: u64) -> Result<ChunkManifest, Trouble> {
    let mut encoded = BytesMut::with_capacity(usize::try_from(bytes.min(TRUST_BYTES)).unwrap_or_default());
    while (encoded.len() as u64) < bytes {
        let piece = recv.recv_raw(bytes - encoded.len() as u64).await?;
        encoded.extend_from_slice(&piece);
    }
    let decoded = blocking(move || Ok(ChunkManifest::decode(&encoded))).await?;
    let manifest = decoded.map_err(|bad| Trouble::Refused(format!("the manifest of {digest}: {bad}")))?;
    if manifest.digest() != digest {
        return Err(Trouble::Refused(format!("a manifest of {} came for {digest}", manifest.digest())));
    }
    Ok(manifest)
}

enum Piece {
    Begin { digest: Digest, bytes: u64 },
    Bytes(Bytes),
}

async fn receive(
    recv: &mut FramedRecv,
    digests: &[Digest],
    pieces: mpsc::Sender<Piece>,
) -> Result<Vec<ChunkManifest>, Trouble> {
    let stopped = |_| internal(&"the cache stopped writing");
    let mut manifests = Vec::new();
    for digest in digests {
        let header = recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })?;
        let mut left = match header {
            BlobHeader::Found { bytes } => bytes,
            BlobHeader::Manifest { bytes } => {
                manifests.push(read_manifest(recv, *digest, bytes).await?);
                continue;
            }
            BlobHeader::Absent => return Err(missing(digest).into()),
            BlobHeader::Elsewhere | BlobHeader::Waiting => {
                return Err(Trouble::Refused("the coordinator answers like a peer".to_owned()));
            }
        };
        pieces.send(Piece::Begin { digest: *digest, bytes: left }).await.map_err(stopped)?;
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            pieces.send(Piece::Bytes(piece)).await.map_err(stopped)?;
        }
    }
    Ok(manifests)
}

/// Writes what comes, and answers how many blobs that were. Wrong bytes are refused by name; where it is cut short, what is whole
/// is kept.
fn write(store: &Store, namespace: &Namespace, mut queue: mpsc::Receiver<Piece>) -> Result<usize, Cause> {
    let mut intake = Intake::new(store, namespace);
    while let Some(piece) = queue.blocking_recv() {
        let taken = match piece {
            Piece::Begin { digest, bytes } => intake.begin(digest, bytes),
            Piece::Bytes(bytes) => intake.push(&bytes),
        };
        taken.map_err(|e| stored(&e))?;
    }
    intake.finish().map(|whole| whole.len()).map_err(|e| stored(&e))
}

pub(super) fn missing(digest: &Digest) -> Cause {
    Cause::new(CauseKind::SourceMissing, format!("{digest} of the source is not in the cache for this build"))
}
