//! Messages to bytes and back: rkyv, validated.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Bytes that are no message of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not a valid {what}: {detail}")]
pub struct BadMessage {
    /// The type that was expected.
    pub what: &'static str,
    /// How many bytes there were.
    pub bytes: usize,
    /// What the validator found.
    pub detail: String,
}

/// The bytes of a message.
///
/// # Errors
/// [`BadMessage`] where it cannot be laid out, as when a length does not fit 32 bits.
pub fn encode<T>(message: &T) -> Result<AlignedVec, BadMessage>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::to_bytes::<rancor::Error>(message).map_err(|error| bad::<T>(0, &error))
}

/// The message in these bytes, validated and copied out. Unaligned bytes are copied to where they are aligned.
///
/// # Errors
/// [`BadMessage`] where the bytes are not a `T`.
pub fn decode<T>(bytes: &[u8]) -> Result<T, BadMessage>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    if bytes.as_ptr().addr().is_multiple_of(AlignedVec::<16>::ALIGNMENT) {
        return rkyv::from_bytes::<T, rancor::Error>(bytes).map_err(|error| bad::<T>(bytes.len(), &error));
    }
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<T, rancor::Error>(&aligned).map_err(|error| bad::<T>(bytes.len(), &error))
}

fn bad<T>(bytes: usize, error: &rancor::Error) -> BadMessage {
    let what = std::any::type_name::<T>().rsplit("::").next().unwrap_or("message");
    BadMessage { what, bytes, detail: error.to_string() }
}
