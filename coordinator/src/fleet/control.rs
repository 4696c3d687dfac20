//! An agent's control connection: hello, messages, new certificates.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use windlass_coordinator_core::input::{AgentEvent, Input};
use windlass_coordinator_core::row::AgentRow;
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::identity::{AgentIdentity, AgentName, Standing};
use windlass_protocol::limits::{CERT_SKEW_MS, HELLO_MS, REFUSAL_DELIVERY_MS};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::validate::Validate as _;
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, Hello, RefuseCode};
use windlass_protocol::version::{BRING_1, CHUNKS_2, PARTS_1};

use super::conn::Conn;
use super::{Ground, Switchboard, ask, intake};

/// Serves a control connection until it ends.
pub(super) async fn serve(board: &Switchboard, connection: Connection, peer: AgentIdentity, ground: &Ground) {
    let first = tokio::time::timeout(Duration::from_millis(HELLO_MS), open(&connection)).await;
    let (mut send, recv, message) = match first {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            board.count_refused();
            tracing::debug!(agent = %peer.agent, %error, "no_hello");
            return connection.close(Code::BadMessage.number(), b"the first message is a hello");
        }
        Err(_) => return connection.close(Code::Refused.number(), b"no hello came in time"),
    };
    if let Err((code, detail)) = admit(&peer, &message, ground) {
        board.count_refused();
        return refuse(&connection, &mut send, code, detail).await;
    }
    match message {
        AgentMessage::Hello(hello) => talk(board, connection, peer, ground, send, recv, hello).await,
        AgentMessage::Renew { csr } => renew(&connection, &peer, ground, &mut send, &csr).await,
        _ => {
            board.count_refused();
            connection.close(Code::BadMessage.number(), b"the first message is a hello");
        }
    }
}

async fn open(connection: &Connection) -> Result<(FramedSend, FramedRecv, AgentMessage), LinkError> {
    let (send, recv) = connection.accept_bi().await?;
    let mut recv = FramedRecv::new(recv);
    // What it means is checked by `admit`, which says what is wrong.
    let first = recv.recv_shape::<AgentMessage>().await?.ok_or(LinkError::Short { missing: 1 })?;
    Ok((FramedSend::new(send), recv, first))
}

/// Whether this key may speak, and what it may say with this certificate.
fn admit(peer: &AgentIdentity, message: &AgentMessage, ground: &Ground) -> Result<(), (RefuseCode, String)> {
    let revoked = || (RefuseCode::AgentRevoked, "this agent's key is not known or was revoked: join again".to_owned());
    known(peer, ground).ok_or_else(revoked)?;
    match (peer.standing(now().wall), message) {
        (Standing::Valid, _) | (Standing::RenewOnly, AgentMessage::Renew { .. }) => {}
        (Standing::RenewOnly, _) => {
            let detail = "the certificate's time is over: renew it first".to_owned();
            return Err((RefuseCode::CertificateExpired, detail));
        }
        (Standing::Early, _) => {
            let detail = "the certificate is not valid yet: the clocks differ".to_owned();
            return Err((RefuseCode::ClockSkew, detail));
        }
        (Standing::Past, _) => {
            let detail = "the certificate's time is long over: join again with a token".to_owned();
            return Err((RefuseCode::AgentRevoked, detail));
        }
    }
    message.validate().map_err(|invalid| (RefuseCode::Malformed, invalid.to_string()))
}

/// The row of the agent with this key, unless it is gone or was revoked.
pub(super) fn known(peer: &AgentIdentity, ground: &Ground) -> Option<AgentRow> {
    let row = ground.views.agent(peer.agent)?.row;
    let served = row.revoked_at.is_none() && row.gone.is_none() && row.key == peer.public_key_digest;
    served.then_some(row)
}

async fn refuse(connection: &Connection, send: &mut FramedSend, code: RefuseCode, detail: String) {
    let refused = CoordinatorMessage::Refuse { code, detail };
    if send.send_message(&refused).await.is_ok() && send.finish().is_ok() {
        // The agent has to hear why before the connection goes.
        let _ = tokio::time::timeout(Duration::from_millis(REFUSAL_DELIVERY_MS), send.delivered()).await;
    }
    connection.close(Code::Refused.number(), b"refused");
}

async fn renew(connection: &Connection, peer: &AgentIdentity, ground: &Ground, send: &mut FramedSend, csr: &[u8]) {
    match certificate(peer, ground, csr) {
        Ok((message, _)) => {
            if send.send_message(&message).await.is_ok() && send.finish().is_ok() {
                let _ = tokio::time::timeout(Duration::from_secs(2), send.delivered()).await;
            }
            connection.close(Code::Done.number(), b"");
        }
        Err(detail) => refuse(connection, send, RefuseCode::Malformed, detail).await,
    }
}

/// A certificate for the same key and the same place, and until when its bearer is served; what the row says counts, not
/// the old certificate.
fn certificate(peer: &AgentIdentity, ground: &Ground, csr: &[u8]) -> Result<(CoordinatorMessage, WallMs), String> {
    let asked = windlass_protocol::identity::Csr::from_der(csr).map_err(|e| e.to_string())?;
    if asked.public_key_digest() != peer.public_key_digest {
        return Err("a certificate is renewed for the same key".to_owned());
    }
    let agent = known(peer, ground).ok_or("the agent was revoked")?;
    let pool = ground.views.pool(&agent.pool).ok_or("its pool is gone")?;
    let name = AgentName { agent: peer.agent, pool: pool.name, zone: pool.zone, trust: pool.trust };
    let chain = ground.authority.issue(csr, &name).map_err(|e| e.to_string())?;
    let leaf = chain.first().ok_or("nothing was issued")?;
    let until = served_until(&AgentIdentity::from_certificate(leaf).map_err(|e| e.to_string())?);
    Ok((CoordinatorMessage::Certificate { chain }, until))
}

/// Until when a connection stands by a certificate: a little past its end, for an agent whose clock stands behind renews
/// that much later. Of a short life it is a tenth, as at its beginning.
pub(super) const fn served_until(certificate: &AgentIdentity) -> WallMs {
    let life_ms = certificate.not_after.0.saturating_sub(certificate.not_before.0);
    let skew_ms = if life_ms / 10 < CERT_SKEW_MS { life_ms / 10 } else { CERT_SKEW_MS };
    certificate.not_after.plus_ms(skew_ms)
}

async fn talk(
    board: &Switchboard,
    connection: Connection,
    peer: AgentIdentity,
    ground: &Ground,
    send: FramedSend,
    recv: FramedRecv,
    hello: Hello,
) {
    let (id, until) = (board.next_conn(), served_until(&peer));
    let mut conn = Conn::open(id, &peer, until, connection, send, ground.logs.clone());
    let can = |ability: &str| hello.capabilities.iter().any(|told| told == ability);
    (conn.knows_archives, conn.brings) = (can(CHUNKS_2), can(BRING_1));
    if can(PARTS_1) {
        conn.say(CoordinatorMessage::Knows { abilities: vec![PARTS_1.to_owned()] });
    }
    let conn = Arc::new(conn);
    board.register(Arc::clone(&conn));
    board.shared.zones.greet();
    let said =
        Input::AgentHello { agent: peer.agent, key: peer.public_key_digest, conn: conn.id, hello: Box::new(hello) };
    let logs = tokio::spawn(intake::serve(board.clone(), Arc::clone(&conn), ground.clone()));
    let asks = tokio::spawn(ask::serve(board.clone(), Arc::clone(&conn), ground.clone()));
    let certificate = tokio::spawn(Arc::clone(&conn).end_with_certificate());
    let mut detail = "connection_closed";
    if ground.desk.agent_input(said).await.is_ok() {
        detail = listen(board, &conn, &peer, ground, recv).await;
    }
    logs.abort();
    asks.abort();
    certificate.abort();
    if board.unregister(&conn) {
        board.shared.zones.leave(&conn.zone, conn.agent);
    }
    conn.connection.close(Code::Done.number(), b"");
    let gone = Input::AgentGone { agent: peer.agent, conn: conn.id, detail: detail.to_owned() };
    // A desk that is gone needs no news.
    let _ = ground.desk.agent_input(gone).await;
}

/// Hands in what the agent says, until the connection ends; gives how it ended.
async fn listen(
    board: &Switchboard,
    conn: &Conn,
    peer: &AgentIdentity,
    ground: &Ground,
    mut recv: FramedRecv,
) -> &'static str {
    loop {
        let message = match recv.recv_message::<AgentMessage>().await {
            Ok(Some(message)) => message,
            Ok(None) | Err(LinkError::Closed { .. }) => return "connection_closed",
            Err(error) => {
                if !error.ends_connection() {
                    board.count_refused();
                }
                tracing::info!(agent = %conn.agent, %error, "connection_lost");
                return "connection_lost";
            }
        };
        if let Err(invalid) = message.validate() {
            board.count_refused();
            tracing::warn!(agent = %conn.agent, %invalid, "message_invalid");
            conn.refuse(RefuseCode::Malformed, invalid.to_string());
            return "connection_closed";
        }
        if let AgentMessage::Beat { health, .. } = &message {
            board.note_use(conn.used_since(health.cache));
        }
        let event = match message {
            AgentMessage::Renew { csr } => {
                match certificate(peer, ground, &csr) {
                    Ok((message, until)) => {
                        conn.serve_until(until);
                        conn.say(message);
                    }
                    Err(detail) => tracing::warn!(agent = %conn.agent, detail, "certificate_refused"),
                }
                continue;
            }
            AgentMessage::Serves { address } => {
                board.shared.zones.serve(conn.zone.clone(), conn.agent, address);
                continue;
            }
            other => match event(other) {
                Some(event) => event,
                None => continue,
            },
        };
        let said = Input::Agent { agent: conn.agent, conn: conn.id, event };
        if ground.desk.agent_input(said).await.is_err() {
            return "connection_closed";
        }
    }
}

/// What a message means to the core; `None` for one that has no meaning after the hello.
fn event(message: AgentMessage) -> Option<AgentEvent> {
    Some(match message {
        AgentMessage::Beat { seq, health, held } => AgentEvent::Beat { seq, health, held },
        AgentMessage::Stock { inputs, fetched } => AgentEvent::Stock { inputs, fetched },
        AgentMessage::Accepted { attempt, epoch } => AgentEvent::Accepted(attempt, epoch),
        AgentMessage::Refused { attempt, epoch, cause } => AgentEvent::Refused(attempt, epoch, cause),
        AgentMessage::Started { attempt, epoch, at } => AgentEvent::Started(attempt, epoch, at),
        AgentMessage::Finished { attempt, epoch, outcome } => AgentEvent::Finished(attempt, epoch, Box::new(outcome)),
        AgentMessage::Stopped { attempt, epoch } => AgentEvent::Stopped(attempt, epoch),
        AgentMessage::Draining => AgentEvent::Draining,
        AgentMessage::Resumed => AgentEvent::Resumed,
        AgentMessage::Goodbye { reason } => AgentEvent::Goodbye { reason },
        AgentMessage::Hello(_) | AgentMessage::Renew { .. } | AgentMessage::Serves { .. } => return None,
    })
}
