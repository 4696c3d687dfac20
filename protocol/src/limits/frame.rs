//! Bounds of one frame on a control stream.

/// One frame on a control stream. An offer with a 256 KiB command and 256 KiB of environment fits; nothing else is large.
pub const FRAME_MAX_BYTES: u32 = 1 << 20;

/// The bytes of a frame beside its payload: length and CRC-32, four each.
pub const FRAME_HEADER_BYTES: usize = 8;
