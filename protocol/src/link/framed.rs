//! Frames and messages on a stream.

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::error::{Code, LinkError};
use crate::frame::{self, BadFrame};
use crate::limits::{FRAME_HEADER_BYTES, FRAME_MAX_BYTES, LINK_BLOB_PIECE_BYTES};
use crate::message::log::chunk_prefix;
use crate::message::{self, Validate};
use crate::time::WallMs;

/// Payloads up to here are copied behind their header, larger ones travel beside it.
const COPY_MAX_BYTES: usize = 16 << 10;

/// So much of a payload has to come before room is made for all of it.
const TRUST_AFTER_BYTES: usize = 64 << 10;

/// Pieces that are fetched from QUIC at once; each is at most one packet's.
const PIECES: usize = 32;

/// Sends frames on a stream, each with one call into QUIC.
///
/// A send that is dropped before it is ready may have sent half a frame; every later one says
/// [`LinkError::Interrupted`] then.
#[derive(Debug)]
pub struct FramedSend {
    stream: SendStream,
    midway: bool,
}

impl FramedSend {
    /// Frames on this stream from now on.
    #[must_use]
    pub const fn new(stream: SendStream) -> Self {
        Self { stream, midway: false }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`BadFrame::TooLarge`] before anything is sent; else what became of stream or connection.
    pub async fn send(&mut self, payload: Bytes) -> Result<(), LinkError> {
        let header = frame::header(&payload)?;
        self.send_parts(header, &[], payload).await
    }

    /// Sends one message in a frame.
    ///
    /// # Errors
    /// As [`Self::send`], and [`LinkError::BadMessage`] where it cannot be laid out.
    pub async fn send_message<T>(&mut self, message: &T) -> Result<(), LinkError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    {
        let payload = message::encode(message)?;
        self.send(Bytes::from_owner(payload)).await
    }

    /// Sends a piece of a log, without copying it if it is large.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_log_chunk(&mut self, offset: u64, at: WallMs, bytes: Bytes) -> Result<(), LinkError> {
        let prefix = chunk_prefix(offset, at);
        let header = frame::header_of_parts(&prefix, &bytes)?;
        self.send_parts(header, &prefix, bytes).await
    }

    async fn send_parts(
        &mut self,
        header: [u8; FRAME_HEADER_BYTES],
        prefix: &[u8],
        body: Bytes,
    ) -> Result<(), LinkError> {
        let copied = if body.len() <= COPY_MAX_BYTES { body.len() } else { 0 };
        let mut front = BytesMut::with_capacity(header.len() + prefix.len() + copied);
        front.extend_from_slice(&header);
        front.extend_from_slice(prefix);
        if copied > 0 {
            front.extend_from_slice(&body);
            self.write_all(&mut [front.freeze()]).await
        } else {
            self.write_all(&mut [front.freeze(), body]).await
        }
    }

    /// Writes raw bytes, whole or not at all as far as this stream is concerned.
    pub(super) async fn write_all(&mut self, chunks: &mut [Bytes]) -> Result<(), LinkError> {
        if self.midway {
            return Err(LinkError::Interrupted);
        }
        self.midway = true;
        let written = self.stream.write_all_chunks(chunks).await;
        self.midway = false;
        Ok(written?)
    }

    /// Nothing more follows. What was sent still arrives.
    ///
    /// # Errors
    /// [`LinkError::Interrupted`] where half a frame was sent (the stream is reset then), [`LinkError::Ended`] where the
    /// stream had ended already.
    pub fn finish(&mut self) -> Result<(), LinkError> {
        if self.midway {
            self.reset(Code::Canceled);
            return Err(LinkError::Interrupted);
        }
        self.stream.finish().map_err(|_| LinkError::Ended)
    }

    /// Waits until the peer's QUIC has all that was sent and finished.
    ///
    /// # Errors
    /// [`LinkError::Stopped`] where the peer wanted no more, or what became of the connection.
    pub async fn delivered(&mut self) -> Result<(), LinkError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(LinkError::Stopped { code: Code::from_number(code.into_inner()) }),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(quinn::StoppedError::ZeroRttRejected) => Err(LinkError::Ended),
        }
    }

    /// Gives up: the peer sees [`LinkError::Reset`] with this code.
    pub fn reset(&mut self, code: Code) {
        // A stream that has ended already needs no reset.
        let _ = self.stream.reset(code.number());
    }

    /// The stream itself, for priorities and ids.
    #[must_use]
    pub const fn stream(&self) -> &SendStream {
        &self.stream
    }
}

/// A frame's payload that is still coming.
#[derive(Debug)]
struct Coming {
    bytes: AlignedVec,
    length: usize,
    checksum: u32,
}

/// Receives frames from a stream. Every `recv` here may be dropped and called again: nothing is lost.
#[derive(Debug)]
pub struct FramedRecv {
    stream: RecvStream,
    pieces: [Bytes; PIECES],
    next: usize,
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    coming: Option<Coming>,
    failed: Option<BadFrame>,
}

impl FramedRecv {
    /// Frames from this stream from now on.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            pieces: [const { Bytes::new() }; PIECES],
            next: PIECES,
            header: [0; FRAME_HEADER_BYTES],
            header_filled: 0,
            coming: None,
            failed: None,
        }
    }

    /// The next frame's payload, `None` where the stream ended between two frames.
    ///
    /// # Errors
    /// [`LinkError::BadFrame`] for bytes that are no frame: the stream is stopped with [`Code::BadFrame`], and every later
    /// call says the same. Else what became of stream or connection.
    pub async fn recv(&mut self) -> Result<Option<AlignedVec>, LinkError> {
        if let Some(bad) = &self.failed {
            return Err(bad.clone().into());
        }
        match self.next_frame().await {
            Err(LinkError::BadFrame(bad)) => {
                self.failed = Some(bad.clone());
                self.stop(Code::BadFrame);
                Err(bad.into())
            }
            other => other,
        }
    }

    /// The next message, valid in shape and meaning; `None` where the stream ended between two.
    ///
    /// # Errors
    /// As [`Self::recv`], and [`LinkError::BadMessage`] or [`LinkError::Invalid`], after which the stream is stopped with
    /// [`Code::BadMessage`].
    pub async fn recv_message<T>(&mut self) -> Result<Option<T>, LinkError>
    where
        T: Archive + Validate,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        let Some(message) = self.recv_shape::<T>().await? else { return Ok(None) };
        if let Err(invalid) = message.validate() {
            self.stop(Code::BadMessage);
            return Err(invalid.into());
        }
        Ok(Some(message))
    }

    /// The next message, valid in shape alone: what it means is the caller's to check; `None` where the stream ended between
    /// two.
    ///
    /// # Errors
    /// As [`Self::recv`], and [`LinkError::BadMessage`], after which the stream is stopped with [`Code::BadMessage`].
    pub async fn recv_shape<T>(&mut self) -> Result<Option<T>, LinkError>
    where
        T: Archive,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
    {
        let Some(payload) = self.recv().await? else { return Ok(None) };
        let decoded = message::decode::<T>(&payload);
        if decoded.is_err() {
            self.stop(Code::BadMessage);
        }
        Ok(Some(decoded?))
    }

    async fn next_frame(&mut self) -> Result<Option<AlignedVec>, LinkError> {
        while self.header_filled < FRAME_HEADER_BYTES {
            let wanted = FRAME_HEADER_BYTES - self.header_filled;
            let Some(piece) = self.piece(wanted).await? else {
                return match self.header_filled {
                    0 => Ok(None),
                    _ => Err(BadFrame::Truncated { missing: wanted }.into()),
                };
            };
            self.header[self.header_filled..self.header_filled + piece.len()].copy_from_slice(&piece);
            self.header_filled += piece.len();
        }
        let mut coming = match self.coming.take() {
            Some(coming) => coming,
            None => {
                let (length, checksum) = frame::parse_header(self.header)?;
                Coming { bytes: AlignedVec::with_capacity(length.min(TRUST_AFTER_BYTES)), length, checksum }
            }
        };
        while coming.bytes.len() < coming.length {
            let wanted = coming.length - coming.bytes.len();
            // The payload is put back before waiting, since this call may never go on.
            if self.next == PIECES {
                self.coming = Some(coming);
                let more = self.refill().await?;
                let Some(back) = self.coming.take() else { return Err(LinkError::Ended) };
                coming = back;
                if !more {
                    return Err(BadFrame::Truncated { missing: wanted }.into());
                }
            }
            let piece = self.take(wanted);
            if coming.bytes.capacity() - coming.bytes.len() < piece.len() {
                coming.bytes.reserve(wanted);
            }
            coming.bytes.extend_from_slice(&piece);
        }
        self.header_filled = 0;
        frame::verify(&coming.bytes, coming.checksum)?;
        Ok(Some(coming.bytes))
    }

    /// At most `max` bytes as they came, `None` at the stream's end.
    pub(super) async fn piece(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        if self.next == PIECES && !self.refill().await? {
            return Ok(None);
        }
        Ok(Some(self.take(max)))
    }

    /// What has come of at most `max` bytes, at least one; `None` at the stream's end. Only the first of them is waited for.
    pub(super) async fn gathered(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        let max = max.min(LINK_BLOB_PIECE_BYTES);
        let Some(first) = self.piece(max).await? else { return Ok(None) };
        if first.len() == max || !self.more_came().await {
            return Ok(Some(first));
        }
        let mut all = BytesMut::from(first);
        while all.len() < max && self.more_came().await {
            let piece = self.take(max - all.len());
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    }

    /// Whether [`Self::take`] gives something; waits for nothing. That the stream has ended, or how it broke, is said again to
    /// whoever waits for more.
    async fn more_came(&mut self) -> bool {
        if self.next < PIECES {
            return true;
        }
        tokio::select! {
            biased;
            more = self.refill() => matches!(more, Ok(true)),
            () = std::future::ready(()) => false,
        }
    }

    /// Fetches pieces so that [`Self::take`] gives at least one byte; `false` at the stream's end.
    async fn refill(&mut self) -> Result<bool, LinkError> {
        let Some(count) = self.stream.read_chunks(&mut self.pieces).await? else { return Ok(false) };
        // Laid to the end, so that `next == PIECES` says that nothing is left.
        self.next = PIECES - count;
        self.pieces.rotate_right(self.next);
        Ok(count > 0)
    }

    fn take(&mut self, max: usize) -> Bytes {
        let Some(piece) = self.pieces.get_mut(self.next) else { return Bytes::new() };
        if piece.len() > max {
            return piece.split_to(max);
        }
        self.next += 1;
        std::mem::take(piece)
    }

    /// Wants no more: the peer sees [`LinkError::Stopped`] with this code.
    pub fn stop(&mut self, code: Code) {
        // A stream that has ended already needs no stopping.
        let _ = self.stream.stop(code.number());
    }

    /// The stream itself, for its id.
    #[must_use]
    pub const fn stream(&self) -> &RecvStream {
        &self.stream
    }
}

/// One request and one answer on a stream of their own.
///
/// # Errors
/// What became of stream or connection, and [`LinkError::Short`] where no answer came.
pub async fn ask<Q, A>(connection: &Connection, request: &Q) -> Result<A, LinkError>
where
    Q: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    A: Archive + Validate,
    A::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<A, HighDeserializer<rancor::Error>>,
{
    let (send, recv) = connection.open_bi().await?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(request).await?;
    send.finish()?;
    recv.recv_message().await?.ok_or(LinkError::Short { missing: FRAME_HEADER_BYTES as u64 })
}

const _: () = assert!(TRUST_AFTER_BYTES <= FRAME_MAX_BYTES as usize, "small frames are trusted at once");
