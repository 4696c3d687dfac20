//! Blobs and chunks from agents of the same zone. Nothing of what they say is believed: bytes are compared with their names, and
//! what a peer does not have, or has not in time, is asked for elsewhere.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use windlass_cache::{Error, Rejected};
use windlass_protocol::limits::{
    FETCH_MAX_DIGESTS, FETCH_PIECES_MAX, GRANT_LIFE_MS, PARTS_MIN_BYTES, PEER_PATIENCE_MS, PEER_SILENCE_MS,
};
use windlass_protocol::link::{Code, FramedRecv, LinkError};
use windlass_protocol::message::{BlobHeader, BulkAsk, Claim, FetchBlobs, SignedGrant, Wanted};
use windlass_protocol::{AgentId, Digest, Namespace};

use super::bearer::Bearer;
use super::fetch::{Piece, Wish, read_chunk, write};
use super::gathering::Gathering;
use super::{Bulk, Trouble};
use crate::peer::tally::Tally;
use crate::peer::zone::{Candidates, Member};

/// What is wrong with a peer, or with what it gave.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    /// It cannot be reached, or says nothing in time.
    #[error("it cannot be reached, or is too slow: {0}")]
    Gone(String),
    /// What it gave is not what it was asked for.
    #[error("what it gave is not what it was asked for: {0}")]
    Lying(String),
    /// It does not take the grant.
    #[error("it does not take the grant")]
    Refused,
}

impl From<LinkError> for Wrong {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Reset { code: Code::Refused } | LinkError::Stopped { code: Code::Refused } => Self::Refused,
            other => Self::Gone(other.to_string()),
        }
    }
}

impl From<Trouble> for Wrong {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Link(error) => error.into(),
            Trouble::Refused(why) => Self::Lying(why),
            Trouble::Away(why) => Self::Gone(why),
            // Ours: whoever is asked next would meet it too.
            Trouble::Cause(cause) => Self::Gone(cause.to_string()),
        }
    }
}

/// What one fetch goes by: the zone as it is, and what was learnt of it meanwhile.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) grant: Arc<SignedGrant>,
    passed: Mutex<BTreeSet<AgentId>>,
}

impl Round {
    /// Who may still be asked.
    pub(super) fn candidates(&self, bulk: &Bulk) -> Candidates {
        bulk.peers.zone.candidates(&self.passed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pass(&self, agent: AgentId) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(agent);
    }

    fn has_passed(&self, agent: AgentId) -> bool {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).contains(&agent)
    }
}

/// A time that one item may take in all, and no silence within it for long.
struct Clock {
    until: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { until: Instant::now() + Duration::from_millis(PEER_PATIENCE_MS) }
    }

    async fn within<T, E>(&self, what: impl Future<Output = Result<T, E>>) -> Result<T, Wrong>
    where
        Wrong: From<E>,
    {
        let left = self.until.saturating_duration_since(Instant::now());
        match timeout(left.min(Duration::from_millis(PEER_SILENCE_MS)), what).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Wrong::Gone("it says nothing".to_owned())),
        }
    }

    /// The header of the next item: that it is still fetched is passed over for as long as there is time.
    async fn header(&self, recv: &mut FramedRecv) -> Result<BlobHeader, Wrong> {
        loop {
            let header = self.within(recv.recv_message::<BlobHeader>()).await?;
            match header.ok_or(LinkError::Short { missing: 1 })? {
                BlobHeader::Waiting => {}
                other => return Ok(other),
            }
        }
    }
}

impl Bulk {
    /// A round among this agent's peers, if it has any and may ask them.
    pub(super) async fn round(&self, bearer: Bearer<'_>) -> Option<Round> {
        // Who asks in another's place asks the coordinator alone.
        let (job, right) = match bearer {
            _ if self.peers.zone.candidates(&BTreeSet::new()).are_none() => return None,
            Bearer::Peer(_) => return None,
            Bearer::Order(warrant) => return Some(Round { grant: warrant.grant(), passed: Mutex::default() }),
            Bearer::Job(job, right) => (job, right),
        };
        let mut grants = self.grants.lock().await;
        // By another key nobody believes what came before.
        let key = self.peers.zone.key();
        let known = grants.get(&job.namespace).filter(|(_, _, by)| *by == key);
        let known = known.map(|(grant, since, _)| (Arc::clone(grant), since.elapsed()));
        let life = Duration::from_millis(GRANT_LIFE_MS);
        let grant = match known {
            Some((grant, age)) if age < life / 2 => grant,
            known => match self.ask_grant(Bearer::Job(job, right)).await {
                Ok(grant) => {
                    let grant = Arc::new(grant);
                    grants.retain(|_, (_, since, _)| since.elapsed() < life);
                    grants.insert(job.namespace.clone(), (Arc::clone(&grant), Instant::now(), key));
                    grant
                }
                Err(trouble) => {
                    tracing::debug!(?trouble, "no_grant");
                    known.filter(|(_, age)| *age < life)?.0
                }
            },
        };
        Some(Round { grant, passed: Mutex::default() })
    }

    async fn ask_grant(&self, bearer: Bearer<'_>) -> Result<SignedGrant, Trouble> {
        let Claim::Lease { build, attempt, epoch } = bearer.claim() else {
            return Err(Trouble::Refused("a grant is for a job of this agent".to_owned()));
        };
        let ask = windlass_protocol::message::AskGrant { build, attempt, epoch };
        let (mut send, mut recv) = self.open(&BulkAsk::Grant(ask)).await?;
        send.finish()?;
        Ok(recv.recv_message().await?.ok_or(LinkError::Short { missing: 1 })?)
    }

    async fn forget_grant(&self, namespace: &Namespace) {
        self.grants.lock().await.remove(namespace);
    }

    /// Notes what is wrong with a peer: it is not asked again in this round, nor for a while if it is to blame.
    async fn pass_over(&self, round: &Round, member: &Member, wrong: &Wrong) {
        round.pass(member.agent);
        match wrong {
            Wrong::Gone(_) | Wrong::Lying(_) => {
                self.peers.zone.rest(member.agent);
                Tally::add(&self.peers.tally.peer_failures, 1);
                tracing::warn!(peer = %member.agent, address = %member.address, %wrong, "peer_passed_over");
            }
            Wrong::Refused => {
                self.forget_grant(&round.grant.grant.namespace).await;
                tracing::info!(peer = %member.agent, "peer_takes_no_grant");
            }
        }
    }

    /// Brings chunks of a large blob from a peer, as far as it has them or fetches them; what does not come is missing still.
    pub(super) async fn draw_from_peer(
        &self,
        wish: &Wish<'_>,
        (round, member): (&Round, &Arc<Member>),
        gathering: &Arc<Gathering>,
        places: &[u32],
    ) -> Result<(), Trouble> {
        // Learnt by a request before this one.
        if round.has_passed(member.agent) {
            return Ok(());
        }
        let claimed = gathering.claim(places);
        let own = claimed.places();
        if !own.is_empty()
            && let Err(wrong) = self.chunks_from(wish, (round, member), gathering, own).await?
        {
            self.pass_over(round, member, &wrong).await;
        }
        drop(claimed);
        for place in places {
            gathering.settled(*place).await;
        }
        Ok(())
    }

    /// The inner error is the peer's doing, the outer one is ours.
    async fn chunks_from(
        &self,
        wish: &Wish<'_>,
        (round, member): (&Round, &Arc<Member>),
        gathering: &Arc<Gathering>,
        places: Vec<u32>,
    ) -> Result<Result<(), Wrong>, Trouble> {
        let blob = gathering.manifest().digest();
        let wanted = Wanted::Chunks { blob, places: places.clone() };
        let mut recv = match self.ask_peer(round, member, wanted).await {
            Ok(recv) => recv,
            Err(wrong) => return Ok(Err(wrong)),
        };
        for place in places {
            let clock = Clock::start();
            let bytes = match clock.header(&mut recv).await {
                Ok(BlobHeader::Found { bytes }) => bytes,
                Ok(BlobHeader::Elsewhere | BlobHeader::Absent) => {
                    Tally::add(&self.peers.tally.peer_misses, 1);
                    round.pass(member.agent);
                    continue;
                }
                Ok(BlobHeader::Manifest { .. } | BlobHeader::Packed { .. } | BlobHeader::Waiting) => {
                    return Ok(Err(Wrong::Lying("something else in place of a plain chunk".to_owned())));
                }
                Err(wrong) => return Ok(Err(wrong)),
            };
            let chunk = match clock.within(read_chunk(&mut recv, gathering, place, bytes)).await {
                Ok(chunk) => chunk,
                Err(wrong) => return Ok(Err(wrong)),
            };
            match gathering.put(place, chunk).await {
                Ok(()) => {
                    Tally::add(&self.peers.tally.peer_hits, 1);
                    wish.count(1);
                }
                Err(Error::Rejected(rejected)) => return Ok(Err(Wrong::Lying(rejected.to_string()))),
                Err(error) => return Err(super::stored(&error).into()),
            }
        }
        Ok(Ok(()))
    }

    async fn ask_peer(&self, round: &Round, member: &Member, wanted: Wanted) -> Result<FramedRecv, Wrong> {
        let by = Claim::Grant(Box::new(SignedGrant::clone(&round.grant)));
        let (_, recv) = Clock::start().within(self.peers.ask(member, &FetchBlobs { by, wanted })).await?;
        Ok(recv)
    }

    /// Brings small blobs from a peer, as far as it has them or fetches them; what does not come is missing still.
    pub(super) async fn small_from_peer(
        &self,
        wish: &Wish<'_>,
        (round, member): (&Round, &Arc<Member>),
        digests: &[Digest],
    ) -> Result<(), Trouble> {
        for part in digests.chunks(FETCH_MAX_DIGESTS) {
            if let Err(wrong) = self.part_from(wish, (round, member), part).await? {
                self.pass_over(round, member, &wrong).await;
                break;
            }
        }
        Ok(())
    }

    async fn part_from(
        &self,
        wish: &Wish<'_>,
        (round, member): (&Round, &Arc<Member>),
        digests: &[Digest],
    ) -> Result<Result<(), Wrong>, Trouble> {
        let mut recv = match self.ask_peer(round, member, Wanted::Parts(digests.to_vec())).await {
            Ok(recv) => recv,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let (pieces, queue) = mpsc::channel(FETCH_PIECES_MAX);
        let (store, namespace) = (self.store.clone(), wish.namespace.clone());
        let writer = tokio::task::spawn_blocking(move || write(&store, &namespace, queue));
        let received = self.receive_small(&mut recv, digests, pieces).await;
        match writer.await.map_err(|e| super::internal(&e))? {
            Ok(whole) => {
                Tally::add(&self.peers.tally.peer_hits, whole);
                wish.count(whole);
                Ok(received)
            }
            Err(Error::Rejected(rejected @ Rejected::WrongDigest { .. })) => {
                Ok(Err(Wrong::Lying(rejected.to_string())))
            }
            Err(error) => Err(super::stored(&error).into()),
        }
    }

    async fn receive_small(
        &self,
        recv: &mut FramedRecv,
        digests: &[Digest],
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), Wrong> {
        for digest in digests {
            let clock = Clock::start();
            let mut left = match clock.header(recv).await? {
                BlobHeader::Found { bytes } if bytes <= PARTS_MIN_BYTES => bytes,
                BlobHeader::Elsewhere | BlobHeader::Absent => {
                    Tally::add(&self.peers.tally.peer_misses, 1);
                    continue;
                }
                BlobHeader::Found { .. }
                | BlobHeader::Manifest { .. }
                | BlobHeader::Packed { .. }
                | BlobHeader::Waiting => {
                    return Err(Wrong::Lying("a large blob in place of a small one".to_owned()));
                }
            };
            // The writer has ended only with an error, which says more.
            if pieces.send(Piece::Begin { digest: *digest, bytes: left }).await.is_err() {
                return Ok(());
            }
            while left > 0 {
                let piece = clock.within(recv.recv_raw(left)).await?;
                left -= piece.len() as u64;
                if pieces.send(Piece::Bytes(piece)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
