//! Raw bytes of known length on a stream, between frames: blobs are never messages.

use bytes::Bytes;

use super::error::LinkError;
use super::framed::{FramedRecv, FramedSend};

impl FramedSend {
    /// Sends raw bytes that are at hand, without copying them.
    ///
    /// # Errors
    /// What became of stream or connection.
    pub async fn send_raw(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.write_all(&mut [bytes]).await
    }
}

impl FramedRecv {
    /// The next raw bytes of a blob of which `missing` (more than 0) are still to come: at least one, at most so many, and of
    /// what has come by then [`LINK_BLOB_PIECE_BYTES`] at most. May be dropped and called again.
    ///
    /// # Errors
    /// [`LinkError::Short`] where the stream ended.
    pub async fn recv_raw(&mut self, missing: u64) -> Result<Bytes, LinkError> {
        let max = usize::try_from(missing).unwrap_or(usize::MAX);
        self.gathered(max).await?.ok_or(LinkError::Short { missing })
    }
}
