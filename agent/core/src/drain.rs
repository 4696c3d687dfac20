//! Taking nothing more, and leaving (F19, F21).

use windlass_protocol::Instant64;
use windlass_protocol::limits::SIGNAL_LADDER_MS;

/// Who asked for it, and how far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Drain {
    /// The machine's owner: their first signal of the ladder, and how many since.
    pub(crate) signals: Option<(Instant64, u32)>,
    /// The coordinator.
    pub(crate) ordered: Option<Order>,
    /// Its order of an earlier connection: it says on each whether the agent drains, but not again until when.
    pub(crate) before: Option<Order>,
    /// Everything was canceled; the process ends then, whatever is left to send.
    pub(crate) quit_by: Option<Instant64>,
}

/// The coordinator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// What still runs then has been ended.
    pub(crate) until: Option<Instant64>,
    /// Leave when nothing is held.
    pub(crate) leave: bool,
}

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    /// Finish, then leave.
    Finish,
    /// Cancel with grace, then leave.
    Cancel,
    /// Cancel at once, flush for a moment, leave.
    Quit,
}

impl Drain {
    /// Whether offers are taken.
    pub(crate) const fn is_on(&self) -> bool {
        self.signals.is_some() || self.ordered.is_some() || self.quit_by.is_some()
    }

    /// Whether the agent leaves when nothing is held any more.
    pub(crate) fn leaves(&self) -> bool {
        self.signals.is_some() || self.quit_by.is_some() || self.ordered.is_some_and(|order| order.leave)
    }

    /// SIGTERM or SIGINT: the next rung. One that comes long after the first begins the ladder anew.
    pub(crate) fn climb(&mut self, now: Instant64) -> Rung {
        let (first, count) = match self.signals {
            Some((first, count)) if now.since_ms(first) < SIGNAL_LADDER_MS => (first, count.saturating_add(1)),
            Some(_) | None => (now, 1),
        };
        self.signals = Some((first, count));
        match count {
            0 | 1 => Rung::Finish,
            2 => Rung::Cancel,
            _ => Rung::Quit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_finish_cancel_quit_and_begins_anew_after_ten_minutes() {
        let mut drain = Drain::default();
        assert_eq!(drain.climb(Instant64(0)), Rung::Finish);
        assert_eq!(drain.climb(Instant64(SIGNAL_LADDER_MS)), Rung::Finish);
        assert_eq!(drain.climb(Instant64(SIGNAL_LADDER_MS + 1)), Rung::Cancel);
        assert_eq!(drain.climb(Instant64(2 * SIGNAL_LADDER_MS - 1)), Rung::Quit);
    }
}
