//! Length-prefixed, checksummed frames, without I/O.
//!
//! A frame is `length: u32 LE`, `crc32: u32 LE` of the payload, then the payload. rkyv's validation accepts many random
//! bit flips, so the checksum is looked at first. Payloads are handed out in 16-byte aligned buffers, as rkyv wants them.

use rkyv::util::AlignedVec;

use crate::limits::{FRAME_HEADER_BYTES, FRAME_MAX_BYTES};

/// Bytes that are not a frame; the stream cannot be used any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The length is past the limit.
    #[error("a frame of {bytes} bytes is past the limit of {FRAME_MAX_BYTES}")]
    TooLarge {
        /// The length that the header claims.
        bytes: u64,
    },
    /// The payload does not match its checksum.
    #[error("a frame's checksum is {expected:08x}, its bytes give {actual:08x}")]
    Checksum {
        /// From the header.
        expected: u32,
        /// From the payload.
        actual: u32,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended within a frame, {missing} bytes early")]
    Truncated {
        /// Bytes that are missing.
        missing: usize,
    },
}

/// Appends one frame to `out`.
///
/// # Errors
/// [`BadFrame::TooLarge`] where the payload is past the limit; `out` is unchanged then.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) -> Result<(), BadFrame> {
    out.extend_from_slice(&header(payload)?);
    out.extend_from_slice(payload);
    Ok(())
}

/// The header alone, for writers that send header and payload without copying them together.
///
/// # Errors
/// [`BadFrame::TooLarge`] where the payload is past the limit.
pub fn header(payload: &[u8]) -> Result<[u8; FRAME_HEADER_BYTES], BadFrame> {
    header_of_parts(payload, &[])
}

/// As [`header`], of a payload that lies in two parts.
///
/// # Errors
/// [`BadFrame::TooLarge`] where the payload is past the limit.
pub fn header_of_parts(front: &[u8], back: &[u8]) -> Result<[u8; FRAME_HEADER_BYTES], BadFrame> {
    let bytes = (front.len() as u64).saturating_add(back.len() as u64);
    let too_large = BadFrame::TooLarge { bytes };
    let length = u32::try_from(bytes).ok().filter(|n| *n <= FRAME_MAX_BYTES).ok_or(too_large)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(front);
    hasher.update(back);
    let mut header = [0_u8; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&hasher.finalize().to_le_bytes());
    Ok(header)
}

/// Reads a header: payload length and checksum.
///
/// # Errors
/// [`BadFrame::TooLarge`] before anything of that size is allocated.
pub fn parse_header(header: [u8; FRAME_HEADER_BYTES]) -> Result<(usize, u32), BadFrame> {
    let [a, b, c, d, e, f, g, h] = header;
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > FRAME_MAX_BYTES {
        return Err(BadFrame::TooLarge { bytes: u64::from(length) });
    }
    Ok((length as usize, u32::from_le_bytes([e, f, g, h])))
}

/// Checks a payload against its header's checksum.
///
/// # Errors
/// [`BadFrame::Checksum`] where they differ.
pub fn verify(payload: &[u8], expected: u32) -> Result<(), BadFrame> {
    match crc32fast::hash(payload) {
        actual if actual == expected => Ok(()),
        actual => Err(BadFrame::Checksum { expected, actual }),
    }
}

/// Cuts a stream of bytes into frames. Holds at most one frame and the piece that came last.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Takes bytes as they come, in any pieces.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read * 2 >= self.buffer.len() {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's payload, `None` until more bytes come.
    ///
    /// # Errors
    /// A length past the limit, or a checksum that does not match; every later call says the same.
    pub fn poll_frame(&mut self) -> Result<Option<AlignedVec>, BadFrame> {
        let rest = &self.buffer[self.read..];
        let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let (length, checksum) = parse_header(*header)?;
        let Some(payload) = rest.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length) else { return Ok(None) };
        verify(payload, checksum)?;
        let mut aligned = AlignedVec::with_capacity(length);
        aligned.extend_from_slice(payload);
        self.read += FRAME_HEADER_BYTES + length;
        Ok(Some(aligned))
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// [`BadFrame::Truncated`] if it ended within a frame.
    pub fn finish(&self) -> Result<(), BadFrame> {
        let rest = &self.buffer[self.read..];
        if rest.is_empty() {
            return Ok(());
        }
        let wanted = match rest.first_chunk::<FRAME_HEADER_BYTES>() {
            Some(header) => FRAME_HEADER_BYTES + parse_header(*header)?.0,
            None => FRAME_HEADER_BYTES,
        };
        Err(BadFrame::Truncated { missing: wanted.saturating_sub(rest.len()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for part in bytes.chunks(piece.max(1)) {
            decoder.push(part);
            while let Some(frame) = decoder.poll_frame()? {
                frames.push(frame.to_vec());
            }
        }
        decoder.finish()?;
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_whatever_the_pieces(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1_usize..400,
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                encode(payload, &mut bytes).unwrap();
            }
            prop_assert_eq!(frames_of(&bytes, piece).unwrap(), payloads);
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_a_frame(
            payload in prop::collection::vec(any::<u8>(), 1..300),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = Vec::new();
            encode(&payload, &mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(frames_of(&bytes, 64).is_err());
        }
    }

    #[test]
    fn a_length_past_the_limit_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        decoder.push(&[0; 4]);
        let refused = decoder.poll_frame().map(|frame| frame.map(|bytes| bytes.to_vec()));
        assert_eq!(refused, Err(BadFrame::TooLarge { bytes: u64::from(u32::MAX) }));
    }
}
