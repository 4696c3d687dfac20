//! Raw bytes of known length on a stream, between frames: blobs are never messages.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::LinkError;
use super::framed::{FramedRecv, FramedSend};
use crate::limits::LINK_BLOB_PIECE_BYTES;

impl FramedSend {
    /// Sends `length` bytes of `reader`, raw, piece by piece.
    ///
    /// # Errors
    /// [`LinkError::Io`] where the reader fails or ends early: the stream is of no use then, and should be reset.
    pub async fn send_blob<R>(&mut self, reader: &mut R, length: u64) -> Result<(), LinkError>
    where
        R: AsyncRead + Unpin,
    {
        let what = "the blob could not be read";
        let mut missing = length;
        while missing > 0 {
            let wanted = usize::try_from(missing).unwrap_or(usize::MAX).min(LINK_BLOB_PIECE_BYTES);
            let mut piece = BytesMut::zeroed(wanted);
            let read = reader.read(&mut piece).await.map_err(|source| LinkError::Io { what, source })?;
            if read == 0 {
                return Err(LinkError::Io { what, source: std::io::ErrorKind::UnexpectedEof.into() });
            }
            piece.truncate(read);
            missing -= read as u64;
            self.write_all(&mut [piece.freeze()]).await?;
        }
        Ok(())
    }

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

    /// Receives `length` raw bytes into `sink`.
    ///
    /// # Errors
    /// [`LinkError::Short`] where the stream ended early, [`LinkError::Io`] where the sink failed.
    pub async fn recv_blob<W>(&mut self, length: u64, sink: &mut W) -> Result<(), LinkError>
    where
        W: AsyncWrite + Unpin,
    {
        let mut missing = length;
        while missing > 0 {
            let piece = self.recv_raw(missing).await?;
            missing -= piece.len() as u64;
            let written = sink.write_all(&piece).await;
            written.map_err(|source| LinkError::Io { what: "the blob could not be written", source })?;
        }
        Ok(())
    }
}
