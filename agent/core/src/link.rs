//! The connection to the coordinator, and the pauses between two.

use windlass_protocol::Instant64;
use windlass_protocol::limits::{DIAL_MS, HELLO_ANSWER_MS, RECONNECT_MAX_MS, RECONNECT_MIN_MS};

use crate::input::ConnId;
use crate::jitter::Jitter;

/// Where the connection stands. Each state but `Up` ends by a deadline; `Up` ends by unanswered beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// A connection was asked for; without one by then, another is asked for.
    Dialling { until: Instant64 },
    /// Hello was said at `hello_at`; nothing may come before its welcome.
    Greeting { conn: ConnId, hello_at: Instant64 },
    /// Welcome.
    Up { conn: ConnId, session: u64 },
}

impl Link {
    /// The connection, whether welcomed or not.
    pub(crate) const fn conn(self) -> Option<ConnId> {
        match self {
            Self::Dialling { .. } => None,
            Self::Greeting { conn, .. } | Self::Up { conn, .. } => Some(conn),
        }
    }

    /// The connection, if the coordinator has answered its hello.
    pub(crate) const fn welcomed(self) -> Option<ConnId> {
        match self {
            Self::Dialling { .. } | Self::Greeting { .. } => None,
            Self::Up { conn, .. } => Some(conn),
        }
    }

    /// When it is to be given up, by itself.
    pub(crate) const fn deadline(self) -> Option<Instant64> {
        match self {
            Self::Dialling { until } => Some(until),
            Self::Greeting { hello_at, .. } => Some(hello_at.plus_ms(HELLO_ANSWER_MS)),
            Self::Up { .. } => None,
        }
    }
}

/// Pauses before dialling: full jitter under a ceiling that doubles (F12).
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// The next pause.
    pub(crate) fn next(&mut self, jitter: &mut Jitter) -> u64 {
        let ceiling = RECONNECT_MIN_MS.checked_shl(self.failures.min(32)).unwrap_or(RECONNECT_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        jitter.up_to(ceiling.min(RECONNECT_MAX_MS))
    }

    /// A connection was welcomed: begin anew.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// When a dial that begins after this pause is given up.
    pub(crate) const fn dial_until(now: Instant64, pause_ms: u64) -> Instant64 {
        now.plus_ms(pause_ms).plus_ms(DIAL_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_under_full_jitter_up_to_half_a_minute_and_begin_anew_after_a_welcome() {
        let (mut pauses, mut jitter) = (Pauses::default(), Jitter::new(1));
        for failures in 0..64_u32 {
            let ceiling = (RECONNECT_MIN_MS << failures.min(20)).min(RECONNECT_MAX_MS);
            assert!(pauses.next(&mut jitter) <= ceiling, "pause {failures}");
        }
        let long: u64 = (0..100).map(|_| pauses.next(&mut jitter)).max().unwrap();
        assert!(long > RECONNECT_MAX_MS / 2, "the ceiling is reached: {long}");
        pauses.reset();
        assert!(pauses.next(&mut jitter) <= RECONNECT_MIN_MS);
    }
}
