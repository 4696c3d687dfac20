//! Leaps of the wall's clock. What goes by its age would go all at once by one wrong step of it; so nothing goes for a while
//! after one, until people have had time to look.
//!
//! Seen is what happens while the coordinator runs: the wall's clock went further, or less far, than the one that never steps. A
//! clock that is wrong from the start on is not seen.

use windlass_protocol::limits::{CLOCK_LEAP_MS, CLOCK_LEAP_REST_MS};
use windlass_protocol::{Instant64, Now};

/// What was seen of both clocks.
#[derive(Debug, Default)]
pub(crate) struct Leaps {
    last: Option<Now>,
    /// When it leapt last, by the clock that does not.
    leapt: Option<Instant64>,
}

impl Leaps {
    /// Looks at both clocks again. Whether ages may be gone by now.
    pub(crate) fn look(&mut self, now: Now) -> bool {
        if let Some(last) = self.last.replace(now) {
            let expected = last.wall.plus_ms(now.mono.since_ms(last.mono));
            let leap_ms = expected.0.abs_diff(now.wall.0);
            if leap_ms >= CLOCK_LEAP_MS {
                let ahead = now.wall > expected;
                tracing::error!(leap_ms, ahead, "clock_leapt: nothing goes by its age for a day; look at the clock");
                self.leapt = Some(now.mono);
            }
        }
        let rests = |leapt: &Instant64| now.mono.since_ms(*leapt) < CLOCK_LEAP_REST_MS;
        self.leapt = self.leapt.filter(rests);
        self.leapt.is_none()
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::WallMs;

    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const YEAR_MS: u64 = 365 * 86_400_000;

    /// A clock that a test sets.
    struct Clock(Now);

    impl Clock {
        fn passes(&mut self, ms: u64) -> Now {
            self.0 = Now { mono: self.0.mono.plus_ms(ms), wall: self.0.wall.plus_ms(ms) };
            self.0
        }
    }

    #[test]
    fn after_a_leap_of_the_clock_either_way_nothing_goes_for_a_day() {
        for set in [
            |wall: WallMs| wall.plus_ms(10 * YEAR_MS),
            |wall: WallMs| WallMs(wall.0 - 10 * YEAR_MS),
            |_| WallMs(0),
            |_| WallMs(u64::MAX),
            |wall: WallMs| wall.plus_ms(CLOCK_LEAP_MS),
        ] {
            let mut clock = Clock(Now { mono: Instant64(1), wall: WallMs(56 * YEAR_MS) });
            let mut leaps = Leaps::default();
            assert!(leaps.look(clock.passes(MINUTE_MS)) && leaps.look(clock.passes(MINUTE_MS)));
            // It is put right by a little all the time.
            clock.0.wall = clock.0.wall.plus_ms(CLOCK_LEAP_MS / 2);
            assert!(leaps.look(clock.passes(MINUTE_MS)));
            clock.0.wall = set(clock.0.wall);
            for _ in 0..CLOCK_LEAP_REST_MS / MINUTE_MS {
                assert!(!leaps.look(clock.passes(MINUTE_MS)), "{:?}", clock.0);
            }
            assert!(leaps.look(clock.passes(MINUTE_MS)), "it is so by now");
        }
    }

    #[test]
    fn a_clock_that_is_put_right_again_rests_from_then_on_and_a_suspended_machine_has_not_leapt() {
        let mut clock = Clock(Now { mono: Instant64(1), wall: WallMs(56 * YEAR_MS) });
        let mut leaps = Leaps::default();
        assert!(leaps.look(clock.0));
        assert!(leaps.look(clock.passes(30 * 86_400_000)), "both clocks count what it slept through");
        let right = clock.0.wall;
        clock.0.wall = right.plus_ms(YEAR_MS);
        assert!(!leaps.look(clock.passes(MINUTE_MS)));
        clock.0.wall = right;
        assert!(!leaps.look(clock.passes(CLOCK_LEAP_REST_MS - 1)), "back is a leap, too");
        assert!(!leaps.look(clock.passes(CLOCK_LEAP_REST_MS - 1)));
        assert!(leaps.look(clock.passes(1)));
    }
}
