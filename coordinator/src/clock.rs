//! Both clocks, read together, and handed to the core with each input.

use std::fmt::Debug;

use windlass_protocol::{Instant64, Now, WallMs};

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Now;
}

/// The machine's clocks: `CLOCK_BOOTTIME`, which counts suspend, for deadlines; the wall clock for rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        windlass_protocol::host::now()
    }
}

/// The runtime's clock, which stands still where tests pause it. The wall begins where it is told to.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeClock {
    begun: tokio::time::Instant,
    wall: WallMs,
}

impl RuntimeClock {
    /// A clock that shows `wall` now.
    #[must_use]
    pub fn starting_at(wall: WallMs) -> Self {
        Self { begun: tokio::time::Instant::now(), wall }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Now {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono: Instant64(passed), wall: self.wall.plus_ms(passed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_counts_from_boot_and_knows_this_century() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(second.mono >= first.mono && first.mono > Instant64(0));
        assert!(first.wall > WallMs(1_600_000_000_000));
        assert!(first.mono.0 < first.wall.0, "time since boot, not since 1970");
    }

    #[tokio::test(start_paused = true)]
    async fn the_runtime_clock_moves_both_times_with_the_runtime() {
        let clock = RuntimeClock::starting_at(WallMs(1_000));
        tokio::time::advance(std::time::Duration::from_millis(250)).await;
        assert_eq!(clock.now(), Now { mono: Instant64(250), wall: WallMs(1_250) });
    }
}
