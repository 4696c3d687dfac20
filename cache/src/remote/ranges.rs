//! Ranges of objects that were fetched: in memory, bounded, each by one request however many want it at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use windlass_protocol::limits::ORIGIN_CACHE_BYTES;

use super::{Object, RemoteError};

#[derive(Debug)]
struct Extent {
    bytes: Arc<[u8]>,
    used: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By where they begin.
    extents: BTreeMap<(Object, u64), Extent>,
    bytes: u64,
    clock: u64,
    /// Being fetched now.
    coming: Vec<(Object, Range<u64>)>,
}

/// What was fetched.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    state: Mutex<State>,
    came: Condvar,
}

/// A range that was found, and where in it the wanted bytes begin.
pub(crate) type Found = (Arc<[u8]>, usize);

fn holds(range: &Range<u64>, wanted: &Range<u64>) -> bool {
    range.start <= wanted.start && range.end >= wanted.end
}

impl State {
    fn find(&mut self, object: Object, wanted: &Range<u64>) -> Option<Found> {
        self.clock += 1;
        let clock = self.clock;
        // Those that begin later are rarely shorter by much: a few are looked at.
        let before = self.extents.range_mut((object, 0)..=(object, wanted.start)).rev().take(LOOK_BACK);
        for ((_, start), extent) in before {
            if *start + extent.bytes.len() as u64 >= wanted.end {
                extent.used = clock;
                let inside = usize::try_from(wanted.start - start).unwrap_or(usize::MAX);
                return Some((Arc::clone(&extent.bytes), inside));
            }
        }
        None
    }

    fn keep(&mut self, object: Object, start: u64, bytes: &Arc<[u8]>) {
        let extent = Extent { bytes: Arc::clone(bytes), used: self.clock };
        self.bytes += bytes.len() as u64;
        if let Some(before) = self.extents.insert((object, start), extent) {
            self.bytes -= before.bytes.len() as u64;
        }
        while self.bytes > ORIGIN_CACHE_BYTES {
            let Some(oldest) = self.extents.iter().min_by_key(|(_, extent)| extent.used).map(|(key, _)| *key) else {
                break;
            };
            if let Some(gone) = self.extents.remove(&oldest) {
                self.bytes -= gone.bytes.len() as u64;
            }
        }
    }
}

const LOOK_BACK: usize = 8;

impl Ranges {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wanted bytes of an object: out of memory (`true`), or by fetching `ask`, which holds them. Who wants what comes already
    /// waits for it.
    pub(crate) fn get(
        &self,
        object: Object,
        wanted: &Range<u64>,
        ask: Range<u64>,
        fetch: impl FnOnce(Range<u64>) -> Result<Vec<u8>, RemoteError>,
    ) -> Result<(Found, bool), RemoteError> {
        let mut state = self.lock();
        loop {
            if let Some(found) = state.find(object, wanted) {
                return Ok((found, true));
            }
            if !state.coming.iter().any(|(coming, range)| *coming == object && holds(range, wanted)) {
                break;
            }
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.coming.push((object, ask.clone()));
        drop(state);
        let coming = Coming { ranges: self, object, range: ask.clone() };
        let bytes: Arc<[u8]> = fetch(ask.clone())?.into();
        self.lock().keep(object, ask.start, &bytes);
        drop(coming);
        Ok(((bytes, usize::try_from(wanted.start - ask.start).unwrap_or(usize::MAX)), false))
    }

    /// Nothing of this range is right, or of an object.
    pub(crate) fn forget(&self, object: Object, wanted: &Range<u64>) {
        let mut state = self.lock();
        let overlaps = |(key, extent): (&(Object, u64), &Extent)| {
            let end = key.1 + extent.bytes.len() as u64;
            (key.0 == object && key.1 < wanted.end && end > wanted.start).then_some(*key)
        };
        let wrong: Vec<_> = state.extents.iter().filter_map(overlaps).collect();
        for key in wrong {
            if let Some(gone) = state.extents.remove(&key) {
                state.bytes -= gone.bytes.len() as u64;
            }
        }
    }
}

/// Being fetched; whoever waits for it looks again when that ends, well or not.
struct Coming<'a> {
    ranges: &'a Ranges,
    object: Object,
    range: Range<u64>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut state = self.ranges.lock();
        if let Some(at) = state.coming.iter().position(|(object, range)| *object == self.object && *range == self.range)
        {
            state.coming.swap_remove(at);
        }
        drop(state);
        self.ranges.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::*;

    const OBJECT: Object = Object::Chunks(1);

    fn bytes(range: Range<u64>) -> Vec<u8> {
        range.map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[test]
    fn many_who_want_a_range_fetch_it_once() {
        let (ranges, fetched) = (Ranges::default(), AtomicUsize::new(0));
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (ranges, fetched, barrier) = (&ranges, &fetched, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let wanted = n * 10..n * 10 + 10;
                    let ((found, at), _) = ranges
                        .get(OBJECT, &wanted, 0..100, |range| {
                            fetched.fetch_add(1, Ordering::SeqCst);
                            // Until all have looked, and wait.
                            while ranges.lock().clock < 8 {
                                std::thread::yield_now();
                            }
                            Ok(bytes(range))
                        })
                        .unwrap();
                    assert_eq!(found[at..at + 10], bytes(wanted)[..]);
                });
            }
        });
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_waited_for_a_fetch_that_failed_fetches_by_himself() {
        let ranges = Ranges::default();
        let (begun, waits) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let failed = ranges.get(OBJECT, &(0..10), 0..100, |_| {
                    begun.send(()).unwrap();
                    // Until the other one waits, or has passed by.
                    while ranges.lock().clock < 2 {
                        std::thread::yield_now();
                    }
                    Err(RemoteError::Unavailable { why: "down".to_owned() })
                });
                failed.is_err()
            });
            waits.recv().unwrap();
            let ((found, at), remembered) = ranges.get(OBJECT, &(5..9), 5..9, |range| Ok(bytes(range))).unwrap();
            assert_eq!((&found[at..at + 4], remembered), (&bytes(5..9)[..], false));
            assert!(first.join().unwrap());
        });
        assert!(ranges.lock().coming.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_was_used_last_stays() {
        let ranges = Ranges::default();
        let step = ORIGIN_CACHE_BYTES / 4;
        let get = |n: u64| {
            let wanted = n * step..n * step + 1;
            let ask = n * step..(n + 1) * step;
            ranges.get(OBJECT, &wanted, ask, |range| Ok(vec![0; usize::try_from(range.end - range.start).unwrap()]))
        };
        for n in 0..4 {
            assert!(!get(n).unwrap().1);
        }
        assert!(get(0).unwrap().1);
        assert!(!get(4).unwrap().1, "one goes for it");
        assert!(get(0).unwrap().1 && !get(1).unwrap().1, "the one that was not used");
        assert!(ranges.lock().bytes <= ORIGIN_CACHE_BYTES);
        ranges.forget(OBJECT, &(5..6));
        assert!(!get(0).unwrap().1, "it was said to be wrong");
    }
}
