//! Blobs for jobs and from them: the right to an attempt is the capability, and its build's namespace decides what can be seen
//! and who will see what is stored.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Semaphore;
use windlass_cache::Fault;
use windlass_protocol::host::now;
use windlass_protocol::identity::{AgentIdentity, BadGrant, IdentityError, Standing};
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{FETCHES_PER_AGENT_MAX, GRANT_LIFE_MS};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{AskGrant, BulkAsk, Claim, FetchBlobs, Grant, SignedGrant};
use windlass_protocol::{AgentId, AttemptId, BuildId, Namespace};

use super::conn::past;
use super::control::{known, served_until};
use super::{Ground, Switchboard, blobs, parts, shelve};

/// Serves a bulk connection until it ends.
pub(super) async fn serve(board: &Switchboard, connection: Connection, peer: &AgentIdentity, ground: &Ground) {
    if peer.standing(now().wall) != Standing::Valid {
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
        let (board, ground, peer) = (board.clone(), ground.clone(), peer.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(&board, &ground, &peer, send, recv).await {
                board.count_refused();
                tracing::debug!(agent = %peer.agent, %error, "fetch_refused");
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
    #[error(transparent)]
    Grant(#[from] BadGrant),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

async fn answer(
    board: &Switchboard,
    ground: &Ground,
    peer: &AgentIdentity,
    send: SendStream,
    recv: RecvStream,
) -> Result<(), Bad> {
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let result = respond(board, ground, peer, &mut send, &mut recv).await;
    if result.is_err() {
        send.reset(Code::Refused);
        recv.stop(Code::Refused);
    }
    result
}

async fn respond(
    board: &Switchboard,
    ground: &Ground,
    peer: &AgentIdentity,
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    let Some(request) = recv.recv_message::<BulkAsk>().await? else { return Ok(()) };
    match request {
        BulkAsk::Fetch(FetchBlobs { by, wanted }) => {
            let namespace = match by {
                Claim::Lease { build, attempt, epoch } => {
                    leased(board, ground, peer.agent, (build, attempt, epoch)).await?
                }
                Claim::Grant(grant) => granted(ground, peer, *grant)?,
            };
            let knows_archives = board.current(peer.agent).is_some_and(|conn| conn.knows_archives);
            blobs::send(board, ground, wanted, (namespace, peer.trust, knows_archives), send).await
        }
        BulkAsk::Store(offer) => {
            let namespace = leased(board, ground, peer.agent, (offer.build, offer.attempt, offer.epoch)).await?;
            shelve::respond(board, ground, offer, (&namespace, peer.trust), send, recv).await
        }
        BulkAsk::Parts(offer) => {
            let namespace = leased(board, ground, peer.agent, (offer.build, offer.attempt, offer.epoch)).await?;
            parts::respond(board, ground, offer, (&namespace, peer.trust), send, recv).await
        }
        BulkAsk::Grant(AskGrant { build, attempt, epoch }) => {
            let namespace = leased(board, ground, peer.agent, (build, attempt, epoch)).await?;
            let expires_at = now().wall.plus_ms(GRANT_LIFE_MS);
            let (agent, zone, trust) = (peer.agent, peer.zone.clone(), peer.trust);
            let revoked = *ground.views.revoked().borrow();
            let signed = ground.authority.grant(Grant { agent, zone, trust, namespace, expires_at }, &revoked)?;
            send.send_message(&signed).await?;
            Ok(send.finish()?)
        }
    }
}

/// The namespace of the attempt's own build, whatever build the request names, if the agent holds the attempt.
async fn leased(
    board: &Switchboard,
    ground: &Ground,
    agent: AgentId,
    (build, attempt, epoch): (BuildId, AttemptId, Epoch),
) -> Result<Namespace, Bad> {
    let held = board.current(agent).is_some_and(|conn| conn.holds(attempt, epoch));
    if !held {
        return Err(Bad::NotHeld);
    }
    let attempt = ground.reader.attempt(attempt).await.map_err(|_| Bad::Build)?.ok_or(Bad::NotHeld)?;
    if attempt.build != build {
        return Err(Bad::NotHeld);
    }
    let rows = ground.reader.some_jobs(attempt.build, vec![]).await.map_err(|_| Bad::Build)?.ok_or(Bad::Build)?;
    Ok(rows.build.namespace)
}

/// The namespace of a grant that an agent shows: its own, or that of a peer in whose place it asks. Whose key was revoked is
/// served by nobody.
fn granted(ground: &Ground, peer: &AgentIdentity, grant: SignedGrant) -> Result<Namespace, Bad> {
    let revoked = *ground.views.revoked().borrow();
    ground.authority.verify_grant(&grant, &revoked, peer, now().wall)?;
    let row = ground.views.agent(grant.grant.agent).map(|agent| agent.row);
    let served = row.is_some_and(|row| row.revoked_at.is_none() && row.gone.is_none());
    if served { Ok(grant.grant.namespace) } else { Err(Bad::NotHeld) }
}
