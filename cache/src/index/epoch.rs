//! Which moments in the order of uses lie how far back: marks of that order by a clock that never steps back.
//!
//! A mark says that every use with a lower number came before its time. Marks may be made as seldom as one likes: fewer of
//! them only make uses seem younger than they are, and nothing that is young is let go.

use std::collections::VecDeque;

use windlass_protocol::limits::{EPOCH_MS, EPOCH_PARTS, EPOCHS_MAX};

/// Marks, oldest first.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    marks: VecDeque<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Uses with lower numbers came before.
    tick: u32,
    at_ms: u64,
}

impl Epochs {
    /// It is `now_ms`, and the next use gets the number `tick`. A clock that went back is not believed.
    pub(super) fn note(&mut self, tick: u32, now_ms: u64) {
        if self.marks.back().is_some_and(|last| now_ms < last.at_ms.saturating_add(EPOCH_MS)) {
            return;
        }
        self.marks.push_back(Mark { tick, at_ms: now_ms });
        if self.marks.len() > EPOCHS_MAX {
            self.thin(now_ms);
        }
    }

    /// What is long ago need not be known so well: between two marks lies a 64th of how far they are back.
    fn thin(&mut self, now_ms: u64) {
        let mut thinned: VecDeque<Mark> = VecDeque::with_capacity(EPOCHS_MAX);
        for (place, mark) in self.marks.iter().enumerate() {
            let next_ms = self.marks.get(place + 1).map_or(u64::MAX, |next| next.at_ms);
            let near = now_ms.saturating_sub(mark.at_ms) / EPOCH_PARTS;
            if thinned.back().is_none_or(|last| next_ms - last.at_ms > near) {
                thinned.push_back(*mark);
            }
        }
        self.marks = thinned;
        // A clock that runs for a hundred years.
        while self.marks.len() > EPOCHS_MAX {
            self.marks.pop_front();
        }
    }

    /// Uses with lower numbers than this came before `at_ms`; 0 where that is not known of any.
    pub(super) fn cut(&self, at_ms: u64) -> u32 {
        let after = self.marks.partition_point(|mark| mark.at_ms <= at_ms);
        after.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(0, |mark| mark.tick)
    }

    /// All uses have half their numbers now.
    pub(super) fn halve(&mut self) {
        for mark in &mut self.marks {
            mark.tick /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_old_counts_as_young() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.cut(u64::MAX), 0);
        epochs.note(10, 1_000);
        epochs.note(20, 1_000 + EPOCH_MS / 2);
        epochs.note(30, 1_000 + EPOCH_MS);
        let cuts = [999, 1_000, EPOCH_MS + 999, EPOCH_MS + 1_000].map(|at| epochs.cut(at));
        assert_eq!(cuts, [0, 10, 10, 30], "one that came too soon is no mark");
        epochs.note(40, 5);
        assert_eq!(epochs.cut(u64::MAX), 30, "a clock that went back is not believed");
        epochs.halve();
        assert_eq!(epochs.cut(1_000), 5);
    }

    #[test]
    fn however_long_it_goes_on_marks_are_bounded_and_the_newest_are_dense() {
        let mut epochs = Epochs::default();
        let last = 200 * EPOCHS_MAX as u64;
        for n in 0..=last {
            epochs.note(u32::try_from(n).unwrap(), n * EPOCH_MS);
            assert!(epochs.marks.len() <= EPOCHS_MAX);
        }
        for back in [0, 1, 10, 1_000, 100_000, last - 1] {
            let cut = u64::from(epochs.cut((last - back) * EPOCH_MS));
            let age = last - cut;
            assert!(back <= age && age <= back + back / (EPOCH_PARTS / 2) + 1, "{back} seems to be {age} ago");
        }
    }
}
