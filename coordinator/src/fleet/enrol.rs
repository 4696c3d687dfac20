//! Joining with a token: the use is consumed and the agent exists in one commit, then the certificate is signed (F2).

use std::net::IpAddr;
use std::time::Duration;

use quinn::Connection;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind, Joining};
use windlass_protocol::Secret;
use windlass_protocol::identity::{AgentName, Csr, secret_hash};
use windlass_protocol::limits::HELLO_MS;
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::validate::Validate as _;
use windlass_protocol::message::{Enrol, EnrolAnswer, RefuseCode};

use super::{Ground, Switchboard};
use crate::desk::DeskError;

/// Answers one request to join.
pub(super) async fn serve(board: &Switchboard, connection: &Connection, ground: &Ground) {
    let answered = tokio::time::timeout(Duration::from_millis(HELLO_MS), answer(board, connection, ground)).await;
    match answered {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            board.count_refused();
            tracing::debug!(%error, "enrolment_failed");
        }
        Err(_) => board.count_refused(),
    }
    connection.close(Code::Done.number(), b"");
}

async fn answer(board: &Switchboard, connection: &Connection, ground: &Ground) -> Result<(), LinkError> {
    let (send, recv) = connection.accept_bi().await?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let Some(enrol) = recv.recv_message::<Enrol>().await? else { return Ok(()) };
    let answer = match join(&enrol, connection.remote_address().ip(), ground).await {
        Ok(answer) => answer,
        Err((code, detail)) => {
            board.count_refused();
            tracing::info!(token = %enrol.token, name = enrol.name, ?code, detail, "enrolment_refused");
            EnrolAnswer::Refused { code, detail }
        }
    };
    send.send_message(&answer).await?;
    send.finish()?;
    send.delivered().await
}

async fn join(enrol: &Enrol, address: IpAddr, ground: &Ground) -> Result<EnrolAnswer, (RefuseCode, String)> {
    enrol.validate().map_err(|invalid| (RefuseCode::Malformed, invalid.to_string()))?;
    let csr = Csr::from_der(&enrol.csr).map_err(|error| (RefuseCode::Malformed, error.to_string()))?;
    let joining = Joining {
        token: enrol.token,
        secret_hash: secret_hash(&Secret::new(enrol.secret)),
        key: csr.public_key_digest(),
        name: enrol.name.clone(),
        machine_id: enrol.machine_id.clone(),
        tags: enrol.tags.clone(),
        address: Some(address.to_canonical()),
    };
    let actor = Actor { kind: ActorKind::Token, name: enrol.token.to_string() };
    let unavailable = || (RefuseCode::Unavailable, "the coordinator cannot answer now; try again".to_owned());
    match ground.desk.request(actor, Request::Join(Box::new(joining))).await {
        Ok(Reply::Joined { agent, pool, zone, trust }) => {
            let name = AgentName { agent, pool, zone, trust };
            let chain =
                ground.authority.issue(&enrol.csr, &name).map_err(|e| (RefuseCode::Malformed, e.to_string()))?;
            Ok(EnrolAnswer::Enrolled { agent, chain, pool: name.pool, zone: name.zone })
        }
        Err(DeskError::Rejected(Rejected::Join(refused))) => Err((refused.code, refused.detail)),
        Err(DeskError::Rejected(other)) => Err((RefuseCode::Malformed, other.to_string())),
        Ok(
            Reply::Submitted { .. }
            | Reply::Done
            | Reply::Secrets(_)
            | Reply::Cache(_)
            | Reply::Token { .. }
            | Reply::Pinned { .. }
            | Reply::Unpinned { .. }
            | Reply::Drained { .. },
        )
        | Err(DeskError::Unavailable | DeskError::StorageFull | DeskError::ShuttingDown) => Err(unavailable()),
    }
}
