//! Asking the coordinator on behalf of a job: over whatever connection there is, for as long as it makes sense.

use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::sync::watch;
use tokio::time::Instant;
use windlass_protocol::AttemptId;
use windlass_protocol::limits::{
    ASK_PATIENCE_MS, ASK_RIGHT_MS, CACHE_PATIENCE_MS, FRAME_HEADER_BYTES, FRAME_MAX_BYTES,
};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{Ask, AskRefused, Asked, Told, Validate as _, encode};

use crate::right::Right;

/// Between two tries; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The way to the coordinator.
#[derive(Debug, Clone)]
pub(super) struct Coordinator {
    link: watch::Receiver<Option<Connection>>,
}

impl Coordinator {
    pub(super) const fn new(link: watch::Receiver<Option<Connection>>) -> Self {
        Self { link }
    }

    /// Asks until there is an answer. The same call is the same request, however often it is sent.
    pub(super) async fn ask(&self, attempt: AttemptId, held: &Right, call: [u8; 16], what: Asked, body: &[u8]) -> Told {
        let begun = Instant::now();
        let (patience, right) = (patience(&what), Duration::from_millis(ASK_RIGHT_MS));
        let Ok(body_bytes) = u32::try_from(body.len()) else {
            return Told::Refused { code: AskRefused::Invalid, detail: "the text is too long".to_owned() };
        };
        let mut ask = Ask { attempt, epoch: held.epoch(), call, what, body_bytes };
        if let Some(why) = unsendable(&ask) {
            return Told::Refused { code: AskRefused::Invalid, detail: why };
        }
        let mut pause = PAUSE_MIN;
        loop {
            // A newer right may have been given meanwhile.
            ask.epoch = held.epoch();
            let told = match tokio::time::timeout_at(begun + patience, self.ask_once(&ask, body)).await {
                Ok(Ok(told)) => told,
                // The same would be said of it again.
                Ok(Err(error)) if is_final(&error) => {
                    return Told::Refused { code: AskRefused::Invalid, detail: format!("it cannot be asked: {error}") };
                }
                Ok(Err(error)) => {
                    tracing::info!(attempt = %ask.attempt, %error, "job_request_cut_short");
                    unavailable(&error.to_string())
                }
                Err(_) => return unavailable("the coordinator cannot be reached"),
            };
            let most = match &told {
                Told::Refused { code: AskRefused::NotHeld, .. } => right,
                Told::Refused { code, .. } if code.passes() => patience,
                Told::Refused { .. }
                | Told::Done
                | Told::Value(_)
                | Told::Keys(_)
                | Told::Text(_)
                | Told::Artifacts(_)
                | Told::Files(_)
                | Told::Cache(_)
                | Told::Secrets(_) => return told,
            };
            if begun.elapsed() + pause >= most {
                return told;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try, over the connection that there is or the next one.
    async fn ask_once(&self, ask: &Ask, body: &[u8]) -> Result<Told, LinkError> {
        let mut link = self.link.clone();
        let connection = match link.wait_for(|open| open.as_ref().is_some_and(is_open)).await {
            Ok(open) => open.clone(),
            // The agent leaves.
            Err(_) => return Ok(unavailable("the agent leaves")),
        };
        let Some(connection) = connection else { return Ok(unavailable("the coordinator cannot be reached")) };
        let (send, recv) = connection.open_bi().await?;
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        send.send_message(ask).await?;
        if !body.is_empty() {
            send.send_raw(Bytes::copy_from_slice(body)).await?;
        }
        send.finish()?;
        recv.recv_message().await?.ok_or(LinkError::Short { missing: FRAME_HEADER_BYTES as u64 })
    }
}

/// How long it is asked while it is away. A job can go on without a cache.
const fn patience(what: &Asked) -> Duration {
    match what {
        Asked::FindCache(_) | Asked::SaveCache(_) => Duration::from_millis(CACHE_PATIENCE_MS),
        _ => Duration::from_millis(ASK_PATIENCE_MS),
    }
}

/// Why no coordinator will ever hear a request, if that is so.
fn unsendable(ask: &Ask) -> Option<String> {
    if let Err(invalid) = ask.validate() {
        return Some(invalid.to_string());
    }
    match encode(ask) {
        Ok(bytes) if bytes.len() <= FRAME_MAX_BYTES as usize => None,
        Ok(bytes) => Some(format!("it has {} bytes, and {FRAME_MAX_BYTES} are the most of a request", bytes.len())),
        Err(error) => Some(error.to_string()),
    }
}

/// Whether an error is about what is said, and not about the way to who hears it.
fn is_final(error: &LinkError) -> bool {
    match error {
        LinkError::BadFrame(_) | LinkError::BadMessage(_) | LinkError::Invalid(_) => true,
        LinkError::Reset { code } | LinkError::Stopped { code } => matches!(code, Code::BadFrame | Code::BadMessage),
        LinkError::Closed { .. }
        | LinkError::ClosedHere
        | LinkError::TimedOut
        | LinkError::Lost { .. }
        | LinkError::Handshake { .. }
        | LinkError::NoCommonVersion
        | LinkError::NoCertificate
        | LinkError::Unreachable { .. }
        | LinkError::Ended
        | LinkError::Short { .. }
        | LinkError::Interrupted
        | LinkError::Identity(_)
        | LinkError::Io { .. } => false,
    }
}

fn is_open(connection: &Connection) -> bool {
    connection.close_reason().is_none()
}

fn unavailable(detail: &str) -> Told {
    Told::Refused { code: AskRefused::Unavailable, detail: detail.to_owned() }
}
