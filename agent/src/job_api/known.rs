//! Files that an attempt's commands have restored, so that a save does not read again what the job left as it was.
//!
//! A file is known by its numbers, its length and its times, as the program in the job tells them. The time of the last change
//! of anything is set by the system alone, so an honest job cannot change a file without its being seen; but for one that
//! changes within the tick of the clock in which it was restored: those are not remembered. A job that lies, or that is root
//! and sets the clock, deceives the caches that it may write whatever it likes to, and nobody else: what is known is of one
//! attempt, and goes with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use windlass_hands::wire::Stamp;
use windlass_protocol::Digest;
use windlass_protocol::limits::{FILE_TICK_COARSE_MS, FILE_TICK_MS, KNOWN_FILE_BYTES, KNOWN_FILES_MAX};

use super::account::Share;

/// What an attempt's files hashed to.
#[derive(Debug, Default)]
pub(super) struct KnownFiles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// By file system and number.
    files: HashMap<(u64, u64), (Mark, Digest)>,
    /// What they hold of the attempt's account.
    share: Option<Share>,
}

/// How one content of a file is told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    pub(super) changed: i64,
    pub(super) stamp: Stamp,
}

impl Mark {
    /// Whether a change that comes at `at` or later has another time.
    const fn settled_before(&self, at: i64) -> bool {
        let touched = self.stamp.touched;
        let tick_ms = if touched % 1_000_000_000 == 0 { FILE_TICK_COARSE_MS } else { FILE_TICK_MS };
        touched.saturating_add(tick_ms * 1_000_000) < at
    }
}

impl KnownFiles {
    /// Remembers files that nobody could change before `at`, as far as there is room; what they cost is held by `share`, which
    /// stays.
    pub(super) async fn remember(&self, mut share: Share, at: i64, files: Vec<(Mark, Digest)>) {
        let settled = files.into_iter().filter(|(mark, _)| mark.settled_before(at));
        let room = KNOWN_FILES_MAX - self.table().files.len().min(KNOWN_FILES_MAX);
        let settled: Vec<_> = settled.take(room).collect();
        if share.grow(settled.len() * KNOWN_FILE_BYTES).await.is_err() {
            // They are read again.
            return;
        }
        let mut table = self.table();
        table.files.extend(settled.into_iter().map(|known| ((known.0.stamp.device, known.0.stamp.inode), known)));
        match &mut table.share {
            Some(held) => held.take_over(share),
            held => *held = Some(share),
        }
    }

    /// What the file hashed to, if it is one of them and as it was.
    pub(super) fn digest(&self, mark: &Mark) -> Option<Digest> {
        let table = self.table();
        let (known, digest) = table.files.get(&(mark.stamp.device, mark.stamp.inode))?;
        (known == mark).then_some(*digest)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Account;
    use super::*;

    const AT: i64 = 1_700_000_000_500_000_000;

    fn mark(inode: u64) -> Mark {
        Mark { bytes: 3, changed: 7, stamp: Stamp { touched: AT - 60_000_000, inode, device: 9 } }
    }

    fn touched(inode: u64, touched: i64) -> Mark {
        Mark { stamp: Stamp { touched, ..mark(inode).stamp }, ..mark(inode) }
    }

    #[tokio::test]
    async fn a_file_is_known_as_it_was_and_only_if_a_later_change_would_have_another_time() {
        let (account, known) = (Account::default(), KnownFiles::default());
        let in_the_tick = touched(2, AT - 40_000_000);
        let coarse = touched(3, AT - 500_000_000);
        let files = [mark(1), in_the_tick, coarse].map(|mark| (mark, Digest::of(b"x"))).to_vec();
        known.remember(account.share(), AT, files).await;
        assert_eq!(known.digest(&mark(1)), Some(Digest::of(b"x")));
        let others = [
            in_the_tick,
            coarse,
            mark(4),
            touched(1, AT),
            Mark { bytes: 4, ..mark(1) },
            Mark { changed: 8, ..mark(1) },
            Mark { stamp: Stamp { device: 8, ..mark(1).stamp }, ..mark(1) },
        ];
        for other in others {
            assert_eq!(known.digest(&other), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_known_than_there_is_room_for() {
        let (account, known) = (Account::default(), KnownFiles::default());
        for from in [0, KNOWN_FILES_MAX as u64 - 10] {
            let files = (from..from + KNOWN_FILES_MAX as u64).map(|inode| (mark(inode), Digest::of(b"x"))).collect();
            known.remember(account.share(), AT, files).await;
        }
        assert_eq!(known.table().files.len(), KNOWN_FILES_MAX);
    }
}
