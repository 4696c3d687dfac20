//! Bringing blobs into the agent's cache: small ones as they are, of large ones the chunks that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use windlass_cache::{ChunkManifest, Error, Intake, Rejected, Store};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{
    FETCH_CHUNK_STREAMS, FETCH_CHUNKS, FETCH_MAX_DIGESTS, FETCH_PIECES_MAX, FETCH_REFUSALS_MAX, FETCHES_IN_A_ROW_MAX,
    GATHERED_AT_ONCE, MANIFEST_TRUST_BYTES,
};
use windlass_protocol::link::{FramedRecv, LinkError};
use windlass_protocol::message::{BlobHeader, SignedGrant, Wanted};
use windlass_protocol::{AgentId, Cause, Digest, Namespace, Shelf};

use super::bearer::Bearer;
use super::from_peers::Round;
use super::gathering::Gathering;
use super::order::Warrant;
use super::{Bulk, PAUSE_MAX, PAUSE_MIN, Trouble, blocking, internal, stored};
use crate::peer::tally::Tally;
use crate::peer::zone::{Candidates, Member};
use crate::right::Right;

/// Who wants blobs, who may read them, and for which namespace of the agent's cache.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(super) bearer: Bearer<'a>,
    /// Its build's: whatever is kept for it, or on a shelf of it, its jobs may read.
    pub(super) base: &'a Namespace,
    /// Where it is kept.
    pub(super) namespace: &'a Namespace,
    /// Blobs and chunks that have come so far.
    came: AtomicU64,
}

impl<'a> Wish<'a> {
    /// Of a job, kept for a namespace.
    pub(super) const fn of_job(job: &'a JobSpec, right: &'a Right, namespace: &'a Namespace) -> Self {
        Self { bearer: Bearer::Job(job, right), base: &job.namespace, namespace, came: AtomicU64::new(0) }
    }

    /// Of an order, for a namespace.
    pub(super) const fn of_order(warrant: &'a Warrant, namespace: &'a Namespace) -> Self {
        Self { bearer: Bearer::Order(warrant), base: namespace, namespace, came: AtomicU64::new(0) }
    }

    /// Of an agent of the same zone.
    pub(crate) fn of_peer(grant: &'a Arc<SignedGrant>) -> Self {
        let base = &grant.grant.namespace;
        Self { bearer: Bearer::Peer(grant), base, namespace: base, came: AtomicU64::new(0) }
    }

    pub(super) fn count(&self, more: usize) {
        self.came.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn came(&self) -> u64 {
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
        let wish = Wish::of_job(job, right, namespace);
        let wanted = digests.len();
        let missing = self.missing(&wish, digests).await?;
        Tally::add(&self.peers.tally.disk_hits, wanted - missing.len());
        Tally::add(&self.peers.tally.disk_misses, missing.len());
        self.fetch_wish(&wish, missing).await
    }

    /// Brings blobs that are missing, as long as it is worth trying.
    pub(super) async fn fetch_wish(&self, wish: &Wish<'_>, mut missing: Vec<Digest>) -> Result<(), Cause> {
        let (mut refusals, mut pause) = (0, PAUSE_MIN);
        loop {
            let came = wish.came();
            let refused = match self.fetch_missing(wish, &missing).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Cause(cause)) => return Err(cause),
                Err(Trouble::Away(why)) => {
                    tracing::info!(by = %wish.bearer, why, "source_waits");
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
                if refusals >= FETCH_REFUSALS_MAX {
                    let what = format!("the source could not be fetched from the coordinator: {error}");
                    return Err(internal(&what));
                }
                tracing::info!(by = %wish.bearer, error, "source_cut_short");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            missing = self.missing(wish, missing).await?;
        }
    }

    /// Those of the blobs that the wish's namespace does not see. What the agent's cache has for the same build elsewhere is
    /// seen from now on.
    pub(super) async fn missing(&self, wish: &Wish<'_>, digests: Vec<Digest>) -> Result<Vec<Digest>, Cause> {
        let (store, namespace, base) = (self.store.clone(), wish.namespace.clone(), wish.base.clone());
        blocking(move || {
            let mut missing = store.missing(&namespace, &digests);
            for sibling in siblings(&base).filter(|sibling| *sibling != namespace) {
                let there: Vec<Digest> =
                    missing.extract_if(.., |digest| store.blob_len(&sibling, digest).is_some()).collect();
                if !there.is_empty() {
                    missing.extend(store.grant(&namespace, &there).map_err(|e| stored(&e))?);
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn fetch_missing(&self, wish: &Wish<'_>, missing: &[Digest]) -> Result<(), Trouble> {
        let mut large = Vec::new();
        let mut left = missing.to_vec();
        if let Some(round) = self.round(wish.bearer).await.filter(|_| !left.is_empty()) {
            large = self.fetch_in_zone(wish, &round, &left).await?;
            left = self.missing(wish, left).await?;
            left.retain(|digest| large.iter().all(|manifest: &ChunkManifest| manifest.digest() != *digest));
        }
        large.extend(self.fetch_from_origin(wish, left).await?);
        let mut gathered = Vec::with_capacity(large.len());
        for manifest in large {
            gathered.push(self.gather(wish, manifest));
        }
        at_once(GATHERED_AT_ONCE, gathered).await
    }

    /// Brings small blobs: each from the agent of the zone that fetches it for all, the own share from the coordinator. Answers
    /// the manifests of those of the share that are large; whatever else is large, or did not come, is missing still.
    async fn fetch_in_zone(
        &self,
        wish: &Wish<'_>,
        round: &Round,
        digests: &[Digest],
    ) -> Result<Vec<ChunkManifest>, Trouble> {
        let (own, shares) = shares(&round.candidates(self), digests.iter().map(|digest| (digest, *digest)));
        let mut asked = Vec::with_capacity(shares.len());
        for (member, share) in &shares {
            asked.push(self.small_from_peer(wish, (round, member), share));
        }
        let asked = at_once(shares.len().max(1), asked);
        let (large, asked) = tokio::join!(self.fetch_from_origin(wish, own), asked);
        asked?;
        large
    }

    /// Brings small blobs from the coordinator, each asked for once however many here want it; answers the manifests of large ones.
    async fn fetch_from_origin(&self, wish: &Wish<'_>, mut left: Vec<Digest>) -> Result<Vec<ChunkManifest>, Trouble> {
        let mut manifests = Vec::new();
        while !left.is_empty() {
            let part = left.len().min(FETCH_MAX_DIGESTS);
            let flight = self.flights.claim(wish.base, left.get(..part).unwrap_or_default());
            let mine: BTreeSet<Digest> = flight.digests().iter().copied().collect();
            // Another one may have brought them since it was looked.
            let mut wanted = self.missing(wish, flight.digests().to_vec()).await?;
            wanted.retain(|digest| {
                let gathering = self.gatherings.of(wish.base, digest);
                manifests.extend(gathering.iter().map(|gathering| gathering.manifest().clone()));
                gathering.is_none()
            });
            if !wanted.is_empty() {
                let got = self.fetch_part(wish, &wanted).await?;
                if let (Bearer::Job(..), Some(absent)) = (wish.bearer, got.absent.first()) {
                    return Err(missing(absent).into());
                }
                for manifest in got.manifests {
                    // Before the flight ends: others who want the blob find it by that.
                    self.gatherings.begin(wish.base, manifest.clone()).await?;
                    manifests.push(manifest);
                }
            }
            drop(flight);
            left.retain(|digest| !mine.contains(digest));
            let later = left.split_off(part - mine.len());
            self.flights.settled(wish.base, &left).await;
            left = self.missing(wish, left).await?;
            left.extend(later);
        }
        Ok(manifests)
    }

    /// Brings the small ones of some blobs, and the manifests of the large ones.
    async fn fetch_part(&self, wish: &Wish<'_>, digests: &[Digest]) -> Result<Got, Trouble> {
        let (mut send, mut recv) = self.ask(wish.bearer, Wanted::Parts(digests.to_vec())).await?;
        send.finish()?;
        let (pieces, queue) = mpsc::channel(FETCH_PIECES_MAX);
        let (store, namespace) = (self.store.clone(), wish.namespace.clone());
        let writer = tokio::task::spawn_blocking(move || write(&store, &namespace, queue));
        let received = receive(&mut recv, digests, pieces).await;
        let written = writer.await.map_err(|e| internal(&e))?;
        // What the disk says explains why the link was given up, not the other way round.
        wish.count(written.map_err(|e| stored(&e))?);
        received
    }

    /// Brings small blobs in a peer's place, as far as the coordinator gives them to it.
    pub(crate) async fn fetch_small(&self, wish: &Wish<'_>, digests: Vec<Digest>) {
        // Large ones will be asked for by their chunks next, and are known by then.
        if let Err(trouble) = self.fetch_from_origin(wish, digests).await {
            tracing::info!(?trouble, "peer_not_helped");
        }
    }

    /// The gathering of a large blob that a peer asks for, if the coordinator lets it read that.
    pub(crate) async fn gathering_of(&self, wish: &Wish<'_>, blob: Digest) -> Option<Arc<Gathering>> {
        if let Some(gathering) = self.gatherings.of(wish.base, &blob) {
            return Some(gathering);
        }
        // One at a time asks for the manifest: the others find the gathering then.
        self.fetch_small(wish, vec![blob]).await;
        self.gatherings.of(wish.base, &blob)
    }

    /// Brings one large blob, chunk by chunk, of which the coordinator has told the manifest: each from the agent of the zone that
    /// fetches it for all.
    pub(super) async fn gather(&self, wish: &Wish<'_>, manifest: ChunkManifest) -> Result<(), Trouble> {
        wish.count(1);
        let Some(gathering) = self.gatherings.begin(wish.base, manifest).await? else {
            return Err(Trouble::Away("too many large files come at once".to_owned()));
        };
        let round = self.round(wish.bearer).await;
        loop {
            let missing = gathering.missing();
            if missing.is_empty() {
                break;
            }
            let candidates = round.as_ref().map(|round| round.candidates(self)).unwrap_or_default();
            let chunks = gathering.manifest().chunks();
            let named = missing.iter().filter_map(|place| Some((&chunks.get(*place as usize)?.digest, *place)));
            let (own, shares) = shares(&candidates, named);
            let mut drawn = Vec::new();
            for (member, share) in &shares {
                // Without a round there is no share.
                let Some(round) = &round else { continue };
                let mut asked = Vec::new();
                for places in share.chunks(FETCH_CHUNKS).take(FETCHES_IN_A_ROW_MAX) {
                    asked.push(self.draw_from_peer(wish, (round, member), &gathering, places));
                }
                drawn.push(at_once(FETCH_CHUNK_STREAMS, asked));
            }
            let mut fetched = Vec::new();
            for places in own.chunks(FETCH_CHUNKS).take(FETCHES_IN_A_ROW_MAX) {
                fetched.push(self.draw(wish, &gathering, places));
            }
            let asked = at_once(shares.len().max(1), drawn);
            let (fetched, asked) = tokio::join!(at_once(FETCH_CHUNK_STREAMS, fetched), asked);
            fetched?;
            asked?;
        }
        Ok(self.gatherings.finish(wish.namespace, &gathering).await?)
    }

    /// Brings chunks in a peer's place, as far as the coordinator gives them to it.
    pub(crate) async fn draw_missing(&self, wish: &Wish<'_>, gathering: &Arc<Gathering>, places: &[u32]) {
        if let Err(trouble) = self.draw(wish, gathering, places).await {
            tracing::info!(?trouble, "peer_not_helped");
        }
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
                let put = match header {
                    BlobHeader::Found { bytes } => {
                        let chunk = read_chunk(&mut recv, gathering, place, bytes).await?;
                        gathering.put(place, chunk).await
                    }
                    BlobHeader::Packed { bytes } => {
                        let frame = read_frame(&mut recv, gathering, place, bytes).await?;
                        gathering.put_packed(place, frame).await
                    }
                    BlobHeader::Manifest { .. } | BlobHeader::Absent | BlobHeader::Elsewhere | BlobHeader::Waiting => {
                        // It was put aside there: the next try begins with its manifest.
                        self.gatherings.end(blob);
                        return Err(Trouble::Refused(format!("a chunk of {blob} is not there any more")));
                    }
                };
                kept(put)?;
                wish.count(1);
            }
        }
        drop(claimed);
        for place in places {
            gathering.settled(*place).await;
        }
        Ok(())
    }
}

/// Does all of it, a few at once. After the first that fails nothing more is begun, and what is under way goes to its end: what a
/// link has brought by then is kept.
async fn at_once<F: Future<Output = Result<(), Trouble>>>(most: usize, work: Vec<F>) -> Result<(), Trouble> {
    let mut work = work.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut ended = Ok(());
    loop {
        while ended.is_ok() && under_way.len() < most {
            let Some(next) = work.next() else { break };
            under_way.push(next);
        }
        match under_way.next().await {
            None => return ended,
            Some(done) => ended = ended.and(done),
        }
    }
}

/// What came of keeping a chunk that came from the coordinator.
fn kept(put: Result<(), Error>) -> Result<(), Trouble> {
    match put {
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
    let said = gathering.manifest().chunk_bytes(place as usize).map(|bytes| bytes as u64);
    if said != Some(bytes) {
        return Err(Trouble::Refused(format!("chunk {place} has another length than its manifest says")));
    }
    Ok(read_bytes(recv, bytes).await?)
}

/// The bytes of a chunk as it is stored, fewer than the manifest says that it has.
async fn read_frame(recv: &mut FramedRecv, gathering: &Gathering, place: u32, bytes: u64) -> Result<Bytes, Trouble> {
    let said = gathering.manifest().chunk_bytes(place as usize).map(|bytes| bytes as u64);
    if said.is_none_or(|said| bytes >= said) {
        return Err(Trouble::Refused(format!("chunk {place} is packed in no fewer bytes than it has")));
    }
    Ok(read_bytes(recv, bytes).await?)
}

async fn read_bytes(recv: &mut FramedRecv, bytes: u64) -> Result<Bytes, LinkError> {
    let mut read = BytesMut::new();
    while (read.len() as u64) < bytes {
        let piece = recv.recv_raw(bytes - read.len() as u64).await?;
        if piece.len() as u64 == bytes {
            return Ok(piece);
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.freeze())
}

/// A manifest of so many bytes, which is of this blob.
pub(super) async fn read_manifest(recv: &mut FramedRecv, digest: Digest, bytes: u64) -> Result<ChunkManifest, Trouble> {
    let mut encoded = BytesMut::with_capacity(usize::try_from(bytes.min(MANIFEST_TRUST_BYTES)).unwrap_or_default());
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

/// What a peer fetches for all.
type Share<T> = (Arc<Member>, Vec<T>);

/// Who fetches what: the own share, and those of others.
fn shares<'a, T>(candidates: &Candidates, named: impl Iterator<Item = (&'a Digest, T)>) -> (Vec<T>, Vec<Share<T>>) {
    let mut own = Vec::new();
    let mut shares: BTreeMap<AgentId, Share<T>> = BTreeMap::new();
    for (digest, what) in named {
        match candidates.owner(digest) {
            None => own.push(what),
            Some(member) => {
                let share = shares.entry(member.agent).or_insert_with(|| (Arc::clone(member), Vec::new()));
                share.1.push(what);
            }
        }
    }
    (own, shares.into_values().collect())
}

/// Where a build's jobs find blobs.
pub(super) fn siblings(base: &Namespace) -> impl Iterator<Item = Namespace> {
    std::iter::once(base.clone()).chain(Shelf::ALL.map(|shelf| base.on(shelf)))
}

/// What came of asking for some blobs, beside the small ones.
#[derive(Debug, Default)]
struct Got {
    manifests: Vec<ChunkManifest>,
    absent: Vec<Digest>,
}

pub(super) enum Piece {
    Begin { digest: Digest, bytes: u64 },
    Bytes(Bytes),
}

async fn receive(recv: &mut FramedRecv, digests: &[Digest], pieces: mpsc::Sender<Piece>) -> Result<Got, Trouble> {
    let stopped = |_| internal(&"the cache stopped writing");
    let mut got = Got::default();
    for digest in digests {
        let header = recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })?;
        let mut left = match header {
            BlobHeader::Found { bytes } => bytes,
            BlobHeader::Manifest { bytes } => {
                got.manifests.push(read_manifest(recv, *digest, bytes).await?);
                continue;
            }
            BlobHeader::Absent => {
                got.absent.push(*digest);
                continue;
            }
            BlobHeader::Elsewhere | BlobHeader::Waiting | BlobHeader::Packed { .. } => {
                return Err(Trouble::Refused("the coordinator answers what was not asked".to_owned()));
            }
        };
        pieces.send(Piece::Begin { digest: *digest, bytes: left }).await.map_err(stopped)?;
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            pieces.send(Piece::Bytes(piece)).await.map_err(stopped)?;
        }
    }
    Ok(got)
}

/// Writes what comes, and answers how many blobs that were. Wrong bytes are refused by name; where it is cut short, what is whole
/// is kept.
pub(super) fn write(store: &Store, namespace: &Namespace, mut queue: mpsc::Receiver<Piece>) -> Result<usize, Error> {
    let mut intake = Intake::new(store, namespace);
    while let Some(piece) = queue.blocking_recv() {
        let taken = match piece {
            Piece::Begin { digest, bytes } => intake.begin(digest, bytes),
            Piece::Bytes(bytes) => intake.push(&bytes),
        };
        taken?;
    }
    intake.finish().map(|whole| whole.len())
}

pub(super) fn missing(digest: &Digest) -> Cause {
    Cause::new(CauseKind::SourceMissing, format!("{digest} of the source is not in the cache for this build"))
}
