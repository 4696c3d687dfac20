//! Typed ids: UUIDv7 in their usual text form, one type for each noun so that an agent is never passed for an attempt.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};
use uuid::Uuid;

use crate::time::WallMs;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id (expected a UUID such as 0190c1f0-7a3b-7c1d-8e2f-0123456789ab)")]
pub struct NotAnId {
    /// What was given, cut to 64 characters.
    pub text: String,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
            serde::Serialize, serde::Deserialize,
        )]
        #[rkyv(derive(Debug))]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// From 16 bytes, as they stand in messages and rows.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes; they sort by time of creation.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == 36 => Ok(Self(uuid.into_bytes())),
                    _ => Err(NotAnId { text: text.chars().take(64).collect() }),
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                text.parse()
            }
        }
    };
}

typed_id!(
    /// A build: one run of a pipeline.
    BuildId
);
typed_id!(
    /// A job: one step of a build, or one element of its matrix or parallelism.
    JobId
);
typed_id!(
    /// One run of a job's command; a retry is a new attempt.
    AttemptId
);
typed_id!(
    /// An agent, for as long as it keeps its key.
    AgentId
);
typed_id!(
    /// An artifact: a file of a job that outlives it.
    ArtifactId
);
typed_id!(
    /// An annotation: words about a build.
    AnnotationId
);
typed_id!(
    /// A notification: one message to one receiver.
    NotificationId
);
typed_id!(
    /// A join token or an API token (its public part).
    TokenId
);
typed_id!(
    /// A registered pipeline.
    PipelineId
);
typed_id!(
    /// A schedule of a registered pipeline.
    ScheduleId
);

/// Makes UUIDv7 ids from the time it is given and a seeded generator (xoshiro256++), so that a core that owns one
/// stays deterministic: same seed and same times, same ids.
///
/// Ids of one source rise strictly, also within a millisecond and when the clock steps back.
#[derive(Debug, Clone)]
pub struct IdSource {
    state: [u64; 4],
    last_ms: u64,
    counter: u32,
}

impl IdSource {
    /// A source whose ids depend on `seed` only (and on the times it is given). Shells take the seed from the system.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let mut state = [0_u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            let mut eight = [0_u8; 8];
            eight.copy_from_slice(bytes);
            *word = u64::from_le_bytes(eight);
        }
        // The all-zero state is a fixed point of the generator.
        if state == [0; 4] {
            state[0] = 0x9E37_79B9_7F4A_7C15;
        }
        Self { state, last_ms: 0, counter: 0 }
    }

    fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let t = b << 17;
        let (c, d) = (c ^ a, d ^ b);
        let (b, a) = (b ^ c, a ^ d);
        self.state = [a, b, c ^ t, d.rotate_left(45)];
        result
    }

    /// 48 bits of milliseconds, a counter in `rand_a` and the top of `rand_b`, and 44 random bits
    /// (RFC 9562, section 6.2, method 1: a fixed-length dedicated counter).
    fn next_bytes(&mut self, at: WallMs) -> [u8; 16] {
        if at.0 > self.last_ms {
            (self.last_ms, self.counter) = (at.0, 0);
        } else {
            self.counter += 1;
            if self.counter >= 1 << 30 {
                (self.last_ms, self.counter) = (self.last_ms + 1, 0);
            }
        }
        let time = u128::from(self.last_ms & 0xFFFF_FFFF_FFFF) << 80;
        let high = u128::from(self.counter >> 18) << 64;
        let low = u128::from(self.counter & 0x3_FFFF) << 44;
        let random = u128::from(self.next_u64() >> 20);
        (time | (0x7_u128 << 76) | high | (0b10_u128 << 62) | low | random).to_be_bytes()
    }

    /// The next build's id.
    pub fn build(&mut self, at: WallMs) -> BuildId {
        BuildId(self.next_bytes(at))
    }

    /// The next job's id.
    pub fn job(&mut self, at: WallMs) -> JobId {
        JobId(self.next_bytes(at))
    }

    /// The next attempt's id.
    pub fn attempt(&mut self, at: WallMs) -> AttemptId {
        AttemptId(self.next_bytes(at))
    }

    /// The next agent's id.
    pub fn agent(&mut self, at: WallMs) -> AgentId {
        AgentId(self.next_bytes(at))
    }

    /// The next artifact's id.
    pub fn artifact(&mut self, at: WallMs) -> ArtifactId {
        ArtifactId(self.next_bytes(at))
    }

    /// The next annotation's id.
    pub fn annotation(&mut self, at: WallMs) -> AnnotationId {
        AnnotationId(self.next_bytes(at))
    }

    /// The next notification's id.
    pub fn notification(&mut self, at: WallMs) -> NotificationId {
        NotificationId(self.next_bytes(at))
    }

    /// The next token's public id.
    pub fn token(&mut self, at: WallMs) -> TokenId {
        TokenId(self.next_bytes(at))
    }

    /// The next registered pipeline's id.
    pub fn pipeline(&mut self, at: WallMs) -> PipelineId {
        PipelineId(self.next_bytes(at))
    }

    /// The next schedule's id.
    pub fn schedule(&mut self, at: WallMs) -> ScheduleId {
        ScheduleId(self.next_bytes(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuid_v7_and_rise_strictly_even_when_the_clock_steps_back() {
        let mut ids = IdSource::from_seed([7; 32]);
        let mut last = ids.job(WallMs(1_700_000_000_000));
        for step in 0..10_000_u64 {
            let next = ids.job(WallMs(1_700_000_000_000 + step % 7));
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        let uuid = Uuid::from_bytes(*last.as_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn the_same_seed_and_times_give_the_same_ids() {
        let mut one = IdSource::from_seed([1; 32]);
        let mut two = IdSource::from_seed([1; 32]);
        let mut other = IdSource::from_seed([2; 32]);
        let at = WallMs(5);
        let (a, b, c) = (one.build(at), two.build(at), other.build(at));
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn text_that_is_not_in_the_usual_form_is_refused() {
        for text in ["", "latest", "0190c1f07a3b7c1d8e2f0123456789ab", "{0190c1f0-7a3b-7c1d-8e2f-0123456789ab}"] {
            assert!(text.parse::<BuildId>().is_err(), "{text}");
        }
        assert!("0190c1f0-7a3b-7c1d-8e2f-0123456789ab".parse::<BuildId>().is_ok());
    }
}
