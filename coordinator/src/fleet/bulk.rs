//! Blobs for jobs and from them: the right to an attempt is the capability, and its build's namespace decides what can be seen
//! and who will see what is stored.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Semaphore, mpsc};
use windlass_cache::{Blob, Fault, Store};
use windlass_protocol::identity::{AgentIdentity, Standing};
use windlass_protocol::limits::{FETCH_STALL_MS, FETCHES_PER_AGENT_MAX};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::validate::Validate as _;
use windlass_protocol::message::{BlobHeader, BulkAsk, FetchBlobs};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, Namespace, Shelf};

use super::conn::past;
use super::control::{known, served_until};
use super::{Ground, Switchboard, shelve};

/// Pieces that are read ahead of the link.
const AHEAD: usize = 8;

/// Serves a bulk connection until it ends.
pub(super) async fn serve(board: &Switchboard, connection: Connection, peer: &AgentIdentity, ground: &Ground) {
    if peer.standing(windlass_protocol::host::now().wall) != Standing::Valid {
        board.count_refused();
        return connection.close(Code::Refused.number(), b"renew the certificate first");
    }
    if known(peer, ground).is_none() {
        board.count_refused();
        return connection.close(Code::Revoked.number(), b"the agent is not known or was revoked");
    }
    board.register_bulk(peer.agent, connection.clone());
    tokio::select! {
        () = answer_all(board, &connection, peer, ground) => {}
        // Its agent makes another one with each new certificate.
        () = past(|| served_until(peer)) => {
            tracing::info!(agent = %peer.agent, "certificate_ended_on_bulk_connection");
            connection.close(Code::Refused.number(), b"renew the certificate first");
        }
    }
    board.unregister_bulk(peer.agent, &connection);
}

async fn answer_all(board: &Switchboard, connection: &Connection, peer: &AgentIdentity, ground: &Ground) {
    let room = Arc::new(Semaphore::new(FETCHES_PER_AGENT_MAX));
    while let Ok((send, recv)) = connection.accept_bi().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (board, ground, agent) = (board.clone(), ground.clone(), peer.agent);
        tokio::spawn(async move {
            if let Err(error) = answer(&board, &ground, agent, send, recv).await {
                board.count_refused();
                tracing::debug!(%agent, %error, "fetch_refused");
            }
            drop(permit);
        });
    }
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the request breaks a rule: {0}")]
    Invalid(String),
    #[error("the attempt is not held by this agent by that right")]
    NotHeld,
    #[error("the agent took or sent nothing for too long")]
    Stalled,
    #[error("the build cannot be read")]
    Build,
    #[error(transparent)]
    Cache(#[from] Fault),
}

async fn answer(
    board: &Switchboard,
    ground: &Ground,
    agent: AgentId,
    send: SendStream,
    recv: RecvStream,
) -> Result<(), Bad> {
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let result = respond(board, ground, agent, &mut send, &mut recv).await;
    if result.is_err() {
        send.reset(Code::Refused);
        recv.stop(Code::Refused);
    }
    result
}

async fn respond(
    board: &Switchboard,
    ground: &Ground,
    agent: AgentId,
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    let Some(request) = recv.recv_message::<BulkAsk>().await? else { return Ok(()) };
    request.validate().map_err(|invalid| Bad::Invalid(invalid.to_string()))?;
    let (build, attempt, epoch) = match &request {
        BulkAsk::Fetch(fetch) => (fetch.build, fetch.attempt, fetch.epoch),
        BulkAsk::Store(offer) => (offer.build, offer.attempt, offer.epoch),
    };
    let held = board.current(agent).is_some_and(|conn| conn.holds(attempt, epoch));
    if !held {
        return Err(Bad::NotHeld);
    }
    let namespace = namespace(ground, attempt, build).await?;
    match request {
        BulkAsk::Fetch(request) => fetch(board, ground, request, namespace, send).await,
        BulkAsk::Store(offer) => shelve::respond(board, ground, offer, &namespace, send, recv).await,
    }
}

async fn fetch(
    board: &Switchboard,
    ground: &Ground,
    request: FetchBlobs,
    namespace: Namespace,
    send: &mut FramedSend,
) -> Result<(), Bad> {
    // Nobody closes it.
    let _room = board.shared.rooms.fetches.acquire().await.map_err(|_| Bad::Build)?;
    let (pieces, mut queue) = mpsc::channel(AHEAD);
    let store = ground.store.clone();
    let reader = tokio::task::spawn_blocking(move || read(&store, &namespace, &request.digests, &pieces));
    while let Some(piece) = queue.recv().await {
        let sending = async {
            match piece {
                Piece::Header(header) => send.send_message(&header).await,
                Piece::Bytes(bytes) => send.send_raw(bytes).await,
            }
        };
        let sent = tokio::time::timeout(Duration::from_millis(FETCH_STALL_MS), sending).await;
        sent.map_err(|_| Bad::Stalled)??;
    }
    reader.await.map_err(|_| Bad::Build)??;
    send.finish()?;
    Ok(())
}

/// The namespace of the attempt's own build, whatever build the request names.
async fn namespace(ground: &Ground, attempt: AttemptId, build: BuildId) -> Result<Namespace, Bad> {
    let attempt = ground.reader.attempt(attempt).await.map_err(|_| Bad::Build)?.ok_or(Bad::NotHeld)?;
    if attempt.build != build {
        return Err(Bad::NotHeld);
    }
    let rows = ground.reader.some_jobs(attempt.build, vec![]).await.map_err(|_| Bad::Build)?.ok_or(Bad::Build)?;
    Ok(rows.build.namespace)
}

enum Piece {
    Header(BlobHeader),
    Bytes(Bytes),
}

/// Reads the blobs in order; ends early where nobody listens any more.
fn read(store: &Store, namespace: &Namespace, digests: &[Digest], pieces: &mpsc::Sender<Piece>) -> Result<(), Fault> {
    let shelves = Shelf::ALL.map(|shelf| namespace.on(shelf));
    for digest in digests {
        // What a job of the build may see is found, wherever it was kept.
        let place = shelves.iter().find(|on| store.blob_len(on, digest).is_some()).unwrap_or(namespace);
        let blob = store.get(place, digest)?;
        let header = blob.as_ref().map_or(BlobHeader::Absent, |blob| BlobHeader::Found { bytes: blob.len() });
        if pieces.blocking_send(Piece::Header(header)).is_err() {
            return Ok(());
        }
        if let Some(blob) = blob {
            send_blob(&blob, pieces)?;
        }
    }
    Ok(())
}

fn send_blob(blob: &Blob, pieces: &mpsc::Sender<Piece>) -> Result<(), Fault> {
    blob.copy_to(&mut |bytes| {
        let sent = pieces.blocking_send(Piece::Bytes(Bytes::copy_from_slice(bytes)));
        // Who waited is gone: nothing more is read for it.
        let gone = |_| Fault::Io { doing: "send", path: PathBuf::new(), source: ErrorKind::BrokenPipe.into() };
        sent.map_err(gone)
    })
}
