//! Fuzz entries for every decoder of foreign bytes, and a seeded mutator that needs nothing but stable Rust.
//!
//! An entry takes any bytes and says whether they decode. It must not panic, whatever they are; where they decode, it
//! asserts that the result holds no more than the bytes could carry and that it survives being encoded again. [`ENTRIES`] lists all of them, for the
//! short runs in the tests and for longer ones by hand.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::cause::Cause;
use crate::frame;
use crate::job::{JobSpec, Outcome};
use crate::limits::FRAME_MAX_BYTES;
use crate::message::log::parse_chunk;
use crate::message::{
    AgentMessage, Ask, BlobHeader, BulkAsk, CoordinatorMessage, Enrol, EnrolAnswer, FetchBlobs, LogHeader, PartHeader,
    PartsAnswer, SignedGrant, StoreAnswer, Told, Validate, decode, encode,
};

/// What a decoder of foreign bytes is called, and the function that feeds it.
pub type Entry = (&'static str, fn(&[u8]) -> bool);

/// All entries.
pub const ENTRIES: &[Entry] = &[
    ("frames", frames),
    ("log_chunk", log_chunk),
    ("agent_message", agent_message),
    ("coordinator_message", coordinator_message),
    ("enrol", enrol),
    ("enrol_answer", enrol_answer),
    ("bulk_ask", bulk_ask),
    ("store_answer", store_answer),
    ("parts_answer", parts_answer),
    ("part_header", part_header),
    ("fetch_blobs", fetch_blobs),
    ("signed_grant", signed_grant),
    ("blob_header", blob_header),
    ("ask", ask),
    ("told", told),
    ("log_header", log_header),
    ("job_spec", job_spec),
    ("outcome", outcome),
    ("cause", cause),
    ("texts", texts),
    #[cfg(feature = "identity")]
    ("certificate", certificate),
    #[cfg(feature = "identity")]
    ("csr", csr),
    #[cfg(feature = "identity")]
    ("tokens", tokens),
    #[cfg(feature = "identity")]
    ("spiffe", spiffe),
];

/// A stream of frames, fed in pieces whose sizes come from the bytes.
pub fn frames(bytes: &[u8]) -> bool {
    let mut decoder = frame::Decoder::default();
    let (mut rest, mut out) = (bytes, 0);
    while !rest.is_empty() {
        let piece = (usize::from(rest[0]) + 1).min(rest.len());
        decoder.push(&rest[..piece]);
        rest = &rest[piece..];
        loop {
            match decoder.poll_frame() {
                Ok(Some(frame)) => out += frame.len(),
                Ok(None) => break,
                Err(first) => {
                    assert!(decoder.poll_frame().is_err_and(|again| again == first), "a bad stream stays bad");
                    return false;
                }
            }
        }
    }
    assert!(out <= bytes.len(), "frames hold no more than the stream");
    decoder.finish().is_ok()
}

/// A log chunk's payload.
pub fn log_chunk(bytes: &[u8]) -> bool {
    let Ok(chunk) = parse_chunk(bytes) else { return false };
    assert!(chunk.bytes.len() < bytes.len() && chunk.offset.checked_add(chunk.bytes.len() as u64).is_some());
    true
}

fn message<T>(bytes: &[u8]) -> Option<T>
where
    T: Archive + PartialEq + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    // Frames are never larger, and that is what bounds a message.
    let bytes = bytes.get(..FRAME_MAX_BYTES as usize).unwrap_or(bytes);
    let decoded: T = decode(bytes).ok()?;
    let Ok(again) = encode(&decoded) else { unreachable!("what was decoded can be encoded") };
    assert!(again.len() <= bytes.len() + 1_024, "a message of {} bytes came out of {}", again.len(), bytes.len());
    assert!(decode::<T>(&again).is_ok_and(|back| back == decoded), "what was encoded decodes to the same");
    Some(decoded)
}

fn checked<T>(bytes: &[u8]) -> bool
where
    T: Archive + PartialEq + Validate + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let Some(message) = message::<T>(bytes) else { return false };
    message.validate().is_ok()
}

/// What an agent says.
pub fn agent_message(bytes: &[u8]) -> bool {
    checked::<AgentMessage>(bytes)
}

/// What a coordinator says.
pub fn coordinator_message(bytes: &[u8]) -> bool {
    checked::<CoordinatorMessage>(bytes)
}

/// What a job asks.
pub fn ask(bytes: &[u8]) -> bool {
    checked::<Ask>(bytes)
}

/// What it is told.
pub fn told(bytes: &[u8]) -> bool {
    checked::<Told>(bytes)
}

/// A request to join.
pub fn enrol(bytes: &[u8]) -> bool {
    checked::<Enrol>(bytes)
}

/// Its answer.
pub fn enrol_answer(bytes: &[u8]) -> bool {
    checked::<EnrolAnswer>(bytes)
}

/// A request for blobs, or an offer of them.
pub fn bulk_ask(bytes: &[u8]) -> bool {
    checked::<BulkAsk>(bytes)
}

/// What such an offer is answered.
pub fn store_answer(bytes: &[u8]) -> bool {
    checked::<StoreAnswer>(bytes)
}

/// What an offer of parts is answered.
pub fn parts_answer(bytes: &[u8]) -> bool {
    checked::<PartsAnswer>(bytes)
}

/// What stands before a manifest or a chunk of one.
pub fn part_header(bytes: &[u8]) -> bool {
    checked::<PartHeader>(bytes)
}

/// What a peer is asked.
pub fn fetch_blobs(bytes: &[u8]) -> bool {
    checked::<FetchBlobs>(bytes)
}

/// What an agent may read.
pub fn signed_grant(bytes: &[u8]) -> bool {
    checked::<SignedGrant>(bytes)
}

/// What stands before a blob.
pub fn blob_header(bytes: &[u8]) -> bool {
    checked::<BlobHeader>(bytes)
}

/// What stands before a log.
pub fn log_header(bytes: &[u8]) -> bool {
    checked::<LogHeader>(bytes)
}

/// A job by itself, as rows hold it.
pub fn job_spec(bytes: &[u8]) -> bool {
    checked::<JobSpec>(bytes)
}

/// An outcome by itself, as rows hold it.
pub fn outcome(bytes: &[u8]) -> bool {
    checked::<Outcome>(bytes)
}

/// A cause by itself, as rows hold it.
pub fn cause(bytes: &[u8]) -> bool {
    message::<Cause>(bytes).is_some()
}

/// Ids, digests and causes as text.
pub fn texts(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let id = text.parse::<crate::AttemptId>();
    assert!(id.as_ref().map_or(true, |id| id.to_string().eq_ignore_ascii_case(&text)), "an id is its text");
    let digest = text.parse::<crate::Digest>();
    assert!(digest.as_ref().map_or(true, |digest| digest.to_string() == text), "a digest has one text");
    let kind = text.parse::<crate::CauseKind>();
    assert!(kind.as_ref().map_or(true, |kind| kind.name() == text), "a kind has one name");
    id.is_ok() || digest.is_ok() || kind.is_ok()
}

/// An agent's certificate.
#[cfg(feature = "identity")]
pub fn certificate(bytes: &[u8]) -> bool {
    use crate::identity::{AgentIdentity, AgentName};
    let Ok(identity) = AgentIdentity::from_certificate(bytes) else { return false };
    let AgentIdentity { agent, pool, zone, trust, .. } = identity;
    let name = AgentName { agent, pool, zone, trust };
    assert!(name.to_spiffe(&crate::Digest::of(b"any")).is_ok(), "what was read can be issued again");
    true
}

/// A request for a certificate.
#[cfg(feature = "identity")]
pub fn csr(bytes: &[u8]) -> bool {
    crate::identity::Csr::from_der(bytes).is_ok()
}

/// Tokens of both kinds.
#[cfg(feature = "identity")]
pub fn tokens(bytes: &[u8]) -> bool {
    use crate::identity::{ApiToken, JoinToken};
    let text = String::from_utf8_lossy(bytes);
    let (join, api) = (text.parse::<JoinToken>(), text.parse::<ApiToken>());
    assert!(join.as_ref().map_or(true, |token| token.expose() == text), "a token has one text");
    assert!(api.as_ref().map_or(true, |token| token.expose() == text), "a token has one text");
    join.is_ok() || api.is_ok()
}

/// An agent's name.
#[cfg(feature = "identity")]
pub fn spiffe(bytes: &[u8]) -> bool {
    use crate::identity::AgentName;
    let text = String::from_utf8_lossy(bytes);
    let Ok((domain, name)) = AgentName::from_spiffe(&text) else { return false };
    let again = name.to_spiffe(&crate::Digest::of(b"any")).unwrap_or_default();
    let path = |uri: &str| uri.split_once("/pool/").map(|(_, path)| path.to_owned());
    assert!(domain.len() == 41 && path(&again) == path(&text), "a name has one spelling");
    true
}

/// Makes bad bytes out of good ones; the same seed makes the same.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A mutator; any seed will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x9E37_79B9_7F4A_7C15 | 1 }
    }

    /// The next number (xorshift64*).
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        usize::try_from((self.next_u64() >> 16) % bound).unwrap_or_default()
    }

    /// `good` with one to six changes; `other` lends bytes.
    pub fn mutate(&mut self, good: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next_u64().to_le_bytes()[1],
            2 => bytes.truncate(at),
            3 if !bytes.is_empty() => {
                bytes.drain(at..end);
            }
            4 if !bytes.is_empty() => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            6 => self.overwrite(bytes, at),
            _ => bytes.extend_from_slice(&self.next_u64().to_le_bytes()),
        }
    }

    /// Lengths, offsets and relative pointers are 4 or 8 bytes, mostly aligned.
    fn overwrite(&mut self, bytes: &mut [u8], at: usize) {
        const TELLING: [u64; 12] = [
            0,
            1,
            2,
            0x7F,
            0x80,
            0xFF,
            0x7FFF_FFFF,
            0x8000_0000,
            0xFFFF_FFFF,
            u64::MAX,
            i64::MAX as u64,
            FRAME_MAX_BYTES as u64 + 1,
        ];
        let value = match self.below(3) {
            0 => self.next_u64() % 256,
            1 => (self.next_u64() % 256).wrapping_neg(),
            _ => TELLING[self.below(TELLING.len())],
        };
        let width = [4, 8][self.below(2)];
        let at = at / 4 * 4;
        for (place, byte) in bytes.iter_mut().skip(at).take(width).zip(value.to_le_bytes()) {
            *place = byte;
        }
    }
}
