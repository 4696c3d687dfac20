//! Log streams of agents: each carries one attempt's log, and only who holds the attempt may send it.

use std::sync::Arc;

use bytes::Bytes;
use windlass_coordinator_logs::{LogStore, Refused};
use windlass_protocol::link::{Code, FramedRecv, LinkError};
use windlass_protocol::message::LogHeader;
use windlass_protocol::message::log::{CHUNK_PREFIX_BYTES, parse_chunk};

use super::conn::Conn;
use super::{Ground, Switchboard};

/// Takes log streams until the connection ends.
pub(super) async fn serve(board: Switchboard, conn: Arc<Conn>, ground: Ground) {
    while let Ok(stream) = conn.connection.accept_uni().await {
        let (board, conn, logs) = (board.clone(), Arc::clone(&conn), ground.logs.clone());
        tokio::spawn(async move {
            let mut recv = FramedRecv::new(stream);
            if let Err(error) = take(&conn, &logs, &mut recv).await {
                board.count_refused();
                tracing::debug!(agent = %conn.agent, %error, "log_stream_refused");
                recv.stop(Code::Refused);
            }
        });
    }
}

/// Why a log stream is not read to its end.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("it carries no chunk: {0}")]
    Chunk(#[from] windlass_protocol::message::log::BadChunk),
    #[error("the attempt is not held by this agent by that right")]
    NotHeld,
    #[error(transparent)]
    Refused(#[from] Refused),
}

async fn take(conn: &Conn, logs: &LogStore, recv: &mut FramedRecv) -> Result<(), Bad> {
    let Some(header) = recv.recv_message::<LogHeader>().await? else { return Ok(()) };
    if !conn.holds(header.attempt, header.epoch) {
        return Err(Bad::NotHeld);
    }
    loop {
        let frame = match recv.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            // The agent began another stream, or the connection ended: nothing was refused.
            Err(error) if error.ends_connection() || matches!(error, LinkError::Reset { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Asked for each: what was held when the stream began may have ended since.
        if !conn.holds(header.attempt, header.epoch) {
            return Err(Bad::NotHeld);
        }
        let chunk = parse_chunk(&frame)?;
        let (offset, at) = (chunk.offset, chunk.at);
        let bytes = Bytes::from_owner(Frame(frame)).slice(CHUNK_PREFIX_BYTES..);
        logs.append(header.attempt, header.epoch, offset, at, bytes).await?;
    }
}

/// A frame's aligned buffer, shared without another copy.
struct Frame(rkyv::util::AlignedVec);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
