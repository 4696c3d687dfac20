//! One connection to the coordinator: dialled, its control stream read and written by tasks of their own.

use std::time::Duration;

use quinn::{Connection, Endpoint};
use tokio::sync::mpsc;
use windlass_agent_core::{ConnId, Input};
use windlass_protocol::limits::AGENT_OUTBOX_MAX;
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError, Protocol, connect};
use windlass_protocol::message::validate::{Invalid, Validate as _};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage};
use windlass_protocol::{Cause, CauseKind};

use crate::error::Fault;
use crate::identity::resolve;

/// A connection whose control stream is open.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) conn: ConnId,
    /// For log streams.
    pub(crate) connection: Connection,
    outbox: mpsc::Sender<AgentMessage>,
}

impl Session {
    /// Queues a message; a full queue means that nothing gets through, and the connection is given up.
    pub(crate) fn say(&self, message: AgentMessage) {
        if self.outbox.try_send(message).is_err() {
            tracing::warn!("control_stream_stuck");
            self.connection.close(Code::Canceled.number(), b"the control stream does not move");
        }
    }

    /// Ends the connection once what was said is delivered, or at once if `abrupt`.
    pub(crate) async fn end(self, abrupt: bool) {
        let Self { connection, outbox, .. } = self;
        if abrupt {
            connection.close(Code::Done.number(), b"");
            return;
        }
        drop(outbox);
        // The writer closes the connection when it has written everything; a peer that does not read ends the wait.
        let _ = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
        connection.close(Code::Done.number(), b"");
    }
}

/// Where and as whom to dial.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) endpoint: Endpoint,
    pub(crate) servers: Vec<String>,
    pub(crate) config: quinn::ClientConfig,
}

impl Dial {
    /// A connection to the first coordinator that answers.
    pub(crate) async fn connection(&self, protocol: Protocol) -> Result<Connection, Fault> {
        let mut last = Fault::Address { server: String::new(), detail: "no server was given".to_owned() };
        for server in &self.servers {
            let addresses = match resolve(server).await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    last = fault;
                    continue;
                }
            };
            for address in addresses {
                match connect(&self.endpoint, address, protocol, self.config.clone()).await {
                    Ok(connection) => return Ok(connection),
                    Err(source) => last = Fault::Unreachable { address: server.clone(), source },
                }
            }
        }
        Err(last)
    }

    /// Dials, opens control, and starts its reader and writer, which feed `inputs`.
    pub(crate) async fn session(&self, conn: ConnId, inputs: mpsc::Sender<Input>) -> Result<Session, Fault> {
        let connection = self.connection(Protocol::Agent).await?;
        let unreachable = |source| Fault::Unreachable { address: connection.remote_address().to_string(), source };
        let (send, recv) = connection.open_bi().await.map_err(|e| unreachable(LinkError::from(e)))?;
        let (outbox, queue) = mpsc::channel(AGENT_OUTBOX_MAX);
        tokio::spawn(write(connection.clone(), FramedSend::new(send), queue));
        tokio::spawn(read(conn, connection.clone(), FramedRecv::new(recv), inputs, outbox.downgrade()));
        Ok(Session { conn, connection, outbox })
    }

    /// Asks for a new certificate on a connection that allows nothing else.
    pub(crate) async fn renew(&self, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, Fault> {
        let connection = self.connection(Protocol::Agent).await?;
        let unreachable = |source| Fault::Unreachable { address: connection.remote_address().to_string(), source };
        let (send, recv) = connection.open_bi().await.map_err(|e| unreachable(LinkError::from(e)))?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(&AgentMessage::Renew { csr }).await.map_err(unreachable)?;
        match recv.recv_message::<CoordinatorMessage>().await.map_err(unreachable)? {
            Some(CoordinatorMessage::Certificate { chain }) => Ok(chain),
            Some(CoordinatorMessage::Refuse { code, detail }) => Err(Fault::Refused { code, detail }),
            _ => Err(unreachable(LinkError::Short { missing: 1 })),
        }
    }
}

async fn write(connection: Connection, mut send: FramedSend, mut queue: mpsc::Receiver<AgentMessage>) {
    while let Some(message) = queue.recv().await {
        if let Err(error) = send.send_message(&message).await {
            tracing::debug!(%error, "control_write_failed");
            connection.close(Code::Canceled.number(), b"control cannot be written");
            return;
        }
    }
    // Everything is queued: wait until the other end has it.
    if send.finish().is_ok() {
        let _ = send.delivered().await;
    }
    connection.close(Code::Done.number(), b"");
}

async fn read(
    conn: ConnId,
    connection: Connection,
    mut recv: FramedRecv,
    inputs: mpsc::Sender<Input>,
    outbox: mpsc::WeakSender<AgentMessage>,
) {
    loop {
        let message = match recv.recv_shape::<CoordinatorMessage>().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::info!(%error, "connection_lost");
                break;
            }
        };
        if let Err(invalid) = message.validate() {
            match refusal(&message, invalid) {
                Some(refused) => {
                    tracing::error!(%invalid, "offer_invalid");
                    // A session that has ended refuses nothing any more.
                    let Some(outbox) = outbox.upgrade() else { break };
                    if outbox.try_send(refused).is_ok() {
                        continue;
                    }
                }
                None => tracing::info!(error = %invalid, "connection_lost"),
            }
            break;
        }
        if inputs.send(Input::Message { conn, message }).await.is_err() {
            break;
        }
    }
    connection.close(Code::Done.number(), b"");
    // The loop is gone only when the agent leaves.
    let _ = inputs.send(Input::ConnectionLost { conn }).await;
}

/// What is answered to an offer that no agent should have been sent: one job's fault must not cost the others their agent.
/// Any other message that breaks a rule ends its connection.
fn refusal(message: &CoordinatorMessage, invalid: Invalid) -> Option<AgentMessage> {
    match message {
        CoordinatorMessage::Offer { epoch, job } if epoch.0 > 0 => Some(AgentMessage::Refused {
            attempt: job.attempt,
            epoch: *epoch,
            cause: Cause::new(CauseKind::Internal, format!("the offer cannot be taken: {invalid}")),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
