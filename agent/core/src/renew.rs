//! Beats, and how far the rights reach that their answers extend.

use std::collections::VecDeque;

use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{BEAT_MS, BEATS_UNANSWERED_MAX, LEASE_DEFAULT_MS};
use windlass_protocol::{AttemptId, Instant64};

/// A beat that was sent and not yet answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) seq: u64,
    pub(crate) at: Instant64,
    /// Only these are extended by its answer: an attempt that came later was not in it.
    pub(crate) held: Vec<(AttemptId, Epoch)>,
}

/// The beats of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Renewal {
    pub(crate) lease_ms: u64,
    pub(crate) beat_ms: u64,
    next_seq: u64,
    pub(crate) next_beat: Instant64,
    unanswered: VecDeque<Sent>,
    /// When the last thing was sent that the coordinator has answered: what it offers *after* that answer is by a right
    /// that it granted no earlier.
    answered: Instant64,
}

impl Renewal {
    pub(crate) const fn new() -> Self {
        Self {
            lease_ms: LEASE_DEFAULT_MS,
            beat_ms: BEAT_MS,
            next_seq: 1,
            next_beat: Instant64(0),
            unanswered: VecDeque::new(),
            answered: Instant64(0),
        }
    }

    /// A connection was welcomed; its hello had been sent at `hello_at`.
    pub(crate) fn begin(&mut self, now: Instant64, hello_at: Instant64, lease_ms: u64, beat_ms: u64) {
        self.lease_ms = lease_ms;
        self.pace(beat_ms);
        self.next_seq = 1;
        self.next_beat = now;
        self.unanswered.clear();
        self.answered = hello_at;
    }

    /// So long is to be between beats: as the coordinator says, as long as three fit into a lease.
    pub(crate) fn pace(&mut self, beat_ms: u64) {
        self.beat_ms = beat_ms.clamp(1, BEAT_MS.max(self.lease_ms / 3));
    }

    /// How far a right reaches that is granted now.
    pub(crate) const fn right_until(&self) -> Instant64 {
        self.answered.plus_ms(self.lease_ms)
    }

    /// Whether so many beats have no answer that the connection must be dead.
    pub(crate) fn is_silent(&self) -> bool {
        self.unanswered.len() >= BEATS_UNANSWERED_MAX
    }

    /// Notes a beat that is sent now; the caller has seen that there is room. Gives its number.
    pub(crate) fn sent(&mut self, at: Instant64, held: Vec<(AttemptId, Epoch)>, pause_ms: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.next_beat = at.plus_ms(pause_ms);
        self.unanswered.push_back(Sent { seq, at, held });
        seq
    }

    /// A beat was heard: it and the ones before need no answer more. Gives it, if it was waited for.
    pub(crate) fn answered(&mut self, seq: u64) -> Option<Sent> {
        let place = self.unanswered.iter().position(|sent| sent.seq == seq)?;
        let sent = self.unanswered.drain(..=place).next_back()?;
        self.answered = self.answered.max(sent.at);
        Some(sent)
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_settles_the_beats_before_it_and_counts_from_when_its_own_was_sent() {
        let mut renewal = Renewal::new();
        renewal.begin(Instant64(1_000), Instant64(900), 60_000, 5_000);
        assert_eq!(renewal.right_until(), Instant64(60_900));
        for at in [1_000, 6_000, 11_000] {
            renewal.sent(Instant64(at), Vec::new(), 5_000);
        }
        assert_eq!(renewal.answered(2).map(|sent| sent.at), Some(Instant64(6_000)));
        assert_eq!((renewal.unanswered(), renewal.right_until()), (1, Instant64(66_000)));
        assert_eq!(renewal.answered(1), None, "an answer that comes twice or late extends nothing");
        assert_eq!(renewal.right_until(), Instant64(66_000));
    }
}
