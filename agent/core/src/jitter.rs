//! The spread of beats and pauses: a small seeded generator (SplitMix64), so that a core stays deterministic.

/// A generator of spread.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `ms`, both possible.
    pub(crate) const fn up_to(&mut self, ms: u64) -> u64 {
        match ms.checked_add(1) {
            Some(count) => self.next() % count,
            None => self.next(),
        }
    }

    /// `ms`, a tenth more or less (F12).
    pub(crate) const fn around(&mut self, ms: u64) -> u64 {
        let tenth = ms / 10;
        (ms - tenth).saturating_add(self.up_to(tenth * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_spread_by_a_tenth_at_most_and_reaches_both_sides() {
        let mut jitter = Jitter::new(7);
        let spread: Vec<u64> = (0..1_000).map(|_| jitter.around(5_000)).collect();
        assert!(spread.iter().all(|ms| (4_500..=5_500).contains(ms)));
        assert!(spread.iter().any(|ms| *ms < 4_600) && spread.iter().any(|ms| *ms > 5_400));
    }
}
