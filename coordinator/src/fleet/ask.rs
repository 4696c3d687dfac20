//! What jobs ask, handed on by their agents: one request on each bidirectional stream of a control connection.
//!
//! Who asks has been leased the attempt by this right over this very connection; the rest is the [`JobDesk`]'s.

use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use windlass_protocol::limits::{ASK_READ_MS, ASKS_PER_AGENT_MAX};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{Ask, AskRefused, Told};

use super::conn::Conn;
use super::{Ground, Switchboard};
use crate::job_desk::refuse;

/// Answers until the connection ends.
pub(super) async fn serve(board: Switchboard, conn: Arc<Conn>, ground: Ground) {
    let room = Arc::new(Semaphore::new(ASKS_PER_AGENT_MAX));
    loop {
        // Nobody closes it. Streams beyond wait in QUIC's own window.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((send, recv)) = conn.connection.accept_bi().await else { return };
        let (board, conn, ground) = (board.clone(), Arc::clone(&conn), ground.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(&conn, &ground, send, recv).await {
                if !error.ends_connection() {
                    board.count_refused();
                }
                tracing::debug!(agent = %conn.agent, %error, "job_request_cut_short");
            }
            drop(permit);
        });
    }
}

async fn answer(conn: &Conn, ground: &Ground, send: SendStream, recv: RecvStream) -> Result<(), LinkError> {
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let read = tokio::time::timeout(Duration::from_millis(ASK_READ_MS), read(&mut recv)).await;
    let told = match read {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some((ask, body)))) => decide(conn, ground, ask, body).await,
        Ok(Err(error)) => {
            send.reset(Code::BadMessage);
            return Err(error);
        }
        Err(_) => {
            recv.stop(Code::Canceled);
            send.reset(Code::Canceled);
            return Ok(());
        }
    };
    match send.send_message(&told).await {
        // Nothing of it was sent. Asked again, it would be as long.
        Err(LinkError::BadFrame(_) | LinkError::BadMessage(_)) => {
            let told = refuse(AskRefused::Invalid, "the answer is larger than one can be");
            send.send_message(&told).await?;
        }
        other => other?,
    }
    send.finish()
}

/// A request with its body, valid in shape and meaning.
async fn read(recv: &mut FramedRecv) -> Result<Option<(Ask, Vec<u8>)>, LinkError> {
    let Some(ask) = recv.recv_message::<Ask>().await? else { return Ok(None) };
    let length = ask.body_bytes as usize;
    let mut body = Vec::new();
    while body.len() < length {
        let missing = (length - body.len()) as u64;
        body.extend_from_slice(&recv.recv_raw(missing).await?);
    }
    Ok(Some((ask, body)))
}

async fn decide(conn: &Conn, ground: &Ground, ask: Ask, body: Vec<u8>) -> Told {
    if !conn.holds(ask.attempt, ask.epoch) {
        return refuse(AskRefused::NotHeld, "the attempt is not held by this agent by that right");
    }
    let told = ground.jobs.ask(ask, body).await;
    if let Told::Refused { code, detail } = &told {
        tracing::debug!(agent = %conn.agent, ?code, detail, "job_request_refused");
    }
    told
}
