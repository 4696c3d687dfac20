//! What this agent gives to others of its zone: blobs and chunks that it has, and those that it fetches in their place.
//!
//! Who asks shows a certificate of the fleet's, of the same zone and trust, and a grant that the coordinator signed for it. What
//! is fetched in its place is fetched by that grant too, so nobody gets through a peer what the coordinator would not give.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use windlass_cache::Blob;
use windlass_protocol::host::now;
use windlass_protocol::identity::{AgentIdentity, BadGrant};
use windlass_protocol::limits::{
    FETCH_STALL_MS, PARTS_MIN_BYTES, PEER_CONNECTIONS_MAX, PEER_STREAMS_MAX, PEER_WAITING_MS,
};
use windlass_protocol::link::{Accepted, Code, FramedRecv, FramedSend, LinkError, Protocol, accept};
use windlass_protocol::message::{BlobHeader, Claim, FetchBlobs, SignedGrant, Wanted};
use windlass_protocol::{Cause, Digest};

use super::admitted;
use crate::bulk::{Bulk, Gathering, Wish};

/// Serves other agents until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint, bulk: Arc<Bulk>) {
    let room = Arc::new(Semaphore::new(PEER_CONNECTIONS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let bulk = Arc::clone(&bulk);
        tokio::spawn(async move {
            match accept(incoming).await {
                Ok(Accepted { connection, protocol: Protocol::Peer, peer: Some(asker) }) => {
                    answer_all(&connection, &asker, &bulk).await;
                }
                Ok(Accepted { connection, .. }) => connection.close(Code::Refused.number(), b"peers are served"),
                Err(error) => tracing::debug!(%error, "peer_handshake_failed"),
            }
            drop(permit);
        });
    }
}

async fn answer_all(connection: &Connection, asker: &AgentIdentity, bulk: &Arc<Bulk>) {
    if !admitted(asker, &bulk.peers().named()) {
        tracing::warn!(agent = %asker.agent, zone = asker.zone, trust = %asker.trust, "peer_refused");
        return connection.close(Code::Refused.number(), b"agents of the same zone and trust are served");
    }
    let room = Arc::new(Semaphore::new(PEER_STREAMS_MAX as usize));
    while let Ok((send, recv)) = connection.accept_bi().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        // A connection does not outlive the certificate that it was opened with.
        if !admitted(asker, &bulk.peers().named()) {
            return connection.close(Code::Refused.number(), b"renew the certificate first");
        }
        let (bulk, asker) = (Arc::clone(bulk), asker.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(&bulk, &asker, send, recv).await {
                tracing::debug!(agent = %asker.agent, %error, "peer_request_refused");
            }
            drop(permit);
        });
    }
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Grant(#[from] BadGrant),
    #[error("the request shows no grant")]
    NoGrant,
    #[error("whole blobs are the coordinator's")]
    Whole,
    #[error("the peer took nothing for too long")]
    Stalled,
    #[error("{0}")]
    Cause(Cause),
}

impl From<Cause> for Bad {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

async fn answer(bulk: &Arc<Bulk>, asker: &AgentIdentity, send: SendStream, recv: RecvStream) -> Result<(), Bad> {
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let answered = respond(bulk, asker, &mut send, &mut recv).await;
    if answered.is_err() {
        send.reset(Code::Refused);
        recv.stop(Code::Refused);
    }
    answered
}

async fn respond(
    bulk: &Arc<Bulk>,
    asker: &AgentIdentity,
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    let Some(FetchBlobs { by, wanted }) = recv.recv_message::<FetchBlobs>().await? else { return Ok(()) };
    let Claim::Grant(grant) = by else { return Err(Bad::NoGrant) };
    let peers = bulk.peers();
    grant.borne_by(asker)?;
    // Who was told no key believes nobody.
    let key = peers.zone.key().ok_or(BadGrant::Signature)?;
    grant.verify(&key, &peers.named(), now().wall)?;
    let grant = Arc::new(*grant);
    match wanted {
        Wanted::Whole(_) => return Err(Bad::Whole),
        Wanted::Parts(digests) => give_small(bulk, &grant, digests, send).await?,
        Wanted::Chunks { blob, places } => give_chunks(bulk, &grant, blob, places, send).await?,
    }
    Ok(send.finish()?)
}

/// Sends a header, with bytes behind it.
async fn say(send: &mut FramedSend, header: BlobHeader, bytes: Option<Vec<u8>>) -> Result<(), Bad> {
    let sending = async {
        send.send_message(&header).await?;
        match bytes {
            Some(bytes) => send.send_raw(bytes.into()).await,
            None => Ok(()),
        }
    };
    timeout(Duration::from_millis(FETCH_STALL_MS), sending).await.map_err(|_| Bad::Stalled)??;
    Ok(())
}

async fn say_found(send: &mut FramedSend, bytes: Vec<u8>) -> Result<(), Bad> {
    say(send, BlobHeader::Found { bytes: bytes.len() as u64 }, Some(bytes)).await
}

/// Small blobs that are here, and those that come meanwhile.
async fn give_small(
    bulk: &Arc<Bulk>,
    grant: &Arc<SignedGrant>,
    digests: Vec<Digest>,
    send: &mut FramedSend,
) -> Result<(), Bad> {
    let namespace = &grant.grant.namespace;
    let wish = Wish::of_peer(grant);
    let lacking = bulk.lacking(namespace, digests.clone()).await?;
    let (over, mut ended) = watch::channel(lacking.is_empty());
    let fetching = async {
        // What does not come is answered so below.
        bulk.fetch_small(&wish, lacking).await;
        over.send_replace(true);
    };
    let giving = async {
        for digest in digests {
            let mut blob = bulk.visible(namespace, digest).await?;
            if blob.is_none() {
                wait(async { ended.wait_for(|over| *over).await.is_ok() }, send).await?;
                blob = bulk.visible(namespace, digest).await?;
            }
            match blob.filter(|blob| blob.len() <= PARTS_MIN_BYTES) {
                Some(blob) => {
                    let bytes = wait(bulk.read(blob), send).await??;
                    say_found(send, bytes).await?;
                }
                None => say(send, BlobHeader::Elsewhere, None).await?,
            }
        }
        Ok(())
    };
    // To its end even where the asker has gone: others may wait for the same.
    tokio::join!(fetching, giving).1
}

/// Waits, and tells the asker that it is not forgotten.
async fn wait<T>(what: impl Future<Output = T>, send: &mut FramedSend) -> Result<T, Bad> {
    let mut what = std::pin::pin!(what);
    loop {
        match timeout(Duration::from_millis(PEER_WAITING_MS), &mut what).await {
            Ok(done) => return Ok(done),
            Err(_) => say(send, BlobHeader::Waiting, None).await?,
        }
    }
}

/// Where the chunks of a large blob are.
enum Source {
    Stored(Arc<Blob>),
    Coming(Arc<Gathering>),
    Nowhere,
}

async fn source(bulk: &Arc<Bulk>, grant: &Arc<SignedGrant>, blob: Digest) -> Result<Source, Bad> {
    let namespace = &grant.grant.namespace;
    if let Some(stored) = bulk.visible(namespace, blob).await? {
        return Ok(if stored.manifest().is_some() { Source::Stored(Arc::new(stored)) } else { Source::Nowhere });
    }
    Ok(bulk.gathering_of(&Wish::of_peer(grant), blob).await.map_or(Source::Nowhere, Source::Coming))
}

async fn give_chunks(
    bulk: &Arc<Bulk>,
    grant: &Arc<SignedGrant>,
    blob: Digest,
    places: Vec<u32>,
    send: &mut FramedSend,
) -> Result<(), Bad> {
    // Finding out takes a round trip to the coordinator at worst.
    let source = wait(source(bulk, grant, blob), send).await??;
    match source {
        Source::Nowhere => {
            for _ in places {
                say(send, BlobHeader::Elsewhere, None).await?;
            }
            Ok(())
        }
        Source::Stored(blob) => {
            for place in places {
                match wait(bulk.read_chunk(&blob, place), send).await?? {
                    Some(chunk) => say_found(send, chunk).await?,
                    None => say(send, BlobHeader::Elsewhere, None).await?,
                }
            }
            Ok(())
        }
        Source::Coming(gathering) => give_coming(bulk, (grant, &gathering), &places, send).await,
    }
}

/// Chunks that have come, and those that come meanwhile.
async fn give_coming(
    bulk: &Arc<Bulk>,
    (grant, gathering): (&Arc<SignedGrant>, &Arc<Gathering>),
    places: &[u32],
    send: &mut FramedSend,
) -> Result<(), Bad> {
    let wish = Wish::of_peer(grant);
    let (over, mut ended) = watch::channel(false);
    // One that no manifest names is asked of nobody: that it is not there would end the gathering for all who wait.
    let named = |place: &u32| gathering.manifest().chunk_bytes(*place as usize).is_some();
    let wanted: Vec<u32> = places.iter().copied().filter(named).collect();
    let drawing = async {
        bulk.draw_missing(&wish, gathering, &wanted).await;
        over.send_replace(true);
    };
    let giving = async {
        for place in places {
            if !named(place) {
                say(send, BlobHeader::Elsewhere, None).await?;
                continue;
            }
            let come = async {
                tokio::select! {
                    () = gathering.arrived(*place) => {}
                    _ = ended.wait_for(|over| *over) => {}
                }
            };
            wait(come, send).await?;
            // Behind who stores the blob at this moment, that may take a while.
            match wait(gathering.chunk(*place), send).await?? {
                Some(chunk) => say_found(send, chunk).await?,
                None => say(send, BlobHeader::Elsewhere, None).await?,
            }
        }
        Ok(())
    };
    tokio::join!(drawing, giving).1
}
