//! Sends an attempt's spool: one stream a connection, from the offset that the coordinator names.

use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::sync::watch;
use windlass_agent_runner::spool::SpoolReader;
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{LOG_CHUNK_MAX_BYTES, LOG_IN_FLIGHT_MAX_BYTES};
use windlass_protocol::link::{FramedSend, LinkError};
use windlass_protocol::message::LogHeader;

/// How often a spool is looked at again that could not be read.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a log is sent from and steered by.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) attempt: AttemptId,
    pub(crate) epoch: Epoch,
    pub(crate) from: u64,
    /// The spool's end, as far as it was told.
    pub(crate) end: watch::Receiver<u64>,
    /// What is durable at the coordinator.
    pub(crate) acked: watch::Receiver<u64>,
    pub(crate) spool: SpoolReader,
}

/// Sends until the connection or the caller ends it.
pub(crate) async fn send(connection: Connection, sending: Sending) {
    let attempt = sending.attempt;
    let ended = tokio::select! {
        ended = stream(&connection, sending) => ended,
        // A sender that waits for news, or for acknowledgements, would not hear of it.
        lost = connection.closed() => Err(lost.into()),
    };
    if let Err(error) = ended {
        tracing::debug!(%attempt, %error, "log_stream_ended");
    }
}

async fn stream(connection: &Connection, mut sending: Sending) -> Result<(), LinkError> {
    // A log that has nothing to say needs no stream: many never do.
    while *sending.end.borrow_and_update() <= sending.from {
        if sending.end.changed().await.is_err() {
            return Ok(());
        }
    }
    let mut stream = FramedSend::new(connection.open_uni().await?);
    let header = LogHeader { attempt: sending.attempt, epoch: sending.epoch, offset: sending.from };
    stream.send_message(&header).await?;
    let mut at = sending.from;
    loop {
        sending.end.mark_unchanged();
        while at.saturating_sub(*sending.acked.borrow_and_update()) >= LOG_IN_FLIGHT_MAX_BYTES {
            if sending.acked.changed().await.is_err() {
                return Ok(());
            }
        }
        // Only what the core was told of: it refuses answers to more.
        let known = usize::try_from(sending.end.borrow().saturating_sub(at)).unwrap_or(usize::MAX);
        let room = LOG_CHUNK_MAX_BYTES.min(known);
        let read = if room == 0 { Ok(None) } else { sending.spool.next(at, room) };
        let chunk = match read {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(attempt = %sending.attempt, %error, "spool_unreadable");
                None
            }
        };
        match chunk {
            Some(chunk) => {
                let offset = chunk.offset;
                at = offset + chunk.bytes.len() as u64;
                stream.send_log_chunk(offset, chunk.at, Bytes::from(chunk.bytes)).await?;
            }
            None => {
                if let Ok(Err(_)) = tokio::time::timeout(LOOK_AGAIN, sending.end.changed()).await {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
