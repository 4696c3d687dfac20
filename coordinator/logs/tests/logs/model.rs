//! Random interleavings of what agents, watchers, crashes and operators do, against a model that is one `Vec` a log.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use proptest::prelude::*;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_coordinator_logs::{Appended, Event, Follower, LogStore, Refused};
use windlass_protocol::Digest;

use crate::kit::{append, attempt, digest, durable, open, read, text, within};

#[derive(Debug, Clone)]
enum Op {
    /// Bytes at the end, before it (a resend) or past it (a gap).
    Append {
        log: u8,
        back: u64,
        len: u64,
    },
    Gap {
        log: u8,
        by: u64,
    },
    /// Wait until all of a log is durable.
    Durable(u8),
    Seal(u8),
    Delete(u8),
    Read {
        log: u8,
        from: u64,
        len: u64,
    },
    /// A watcher takes a few events.
    Watch {
        log: u8,
        events: u8,
    },
    /// The process ends at once; what was not acknowledged may be lost.
    Kill,
    /// One of the next operations of the disk fails.
    Fail {
        after: usize,
        full: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let log = 1..5_u8;
    prop_oneof![
        8 => (log.clone(), 0..80_u64, 1..700_u64).prop_map(|(log, back, len)| Op::Append { log, back: back.saturating_sub(50), len }),
        1 => (log.clone(), 1..9_u64).prop_map(|(log, by)| Op::Gap { log, by }),
        4 => log.clone().prop_map(Op::Durable),
        1 => log.clone().prop_map(Op::Seal),
        1 => log.clone().prop_map(Op::Delete),
        3 => (log.clone(), 0..3_000_u64, 0..2_000_u64).prop_map(|(log, from, len)| Op::Read { log, from, len }),
        3 => (log, 0..4_u8).prop_map(|(log, events)| Op::Watch { log, events }),
        1 => Just(Op::Kill),
        1 => (0..4_usize, any::<bool>()).prop_map(|(after, full)| Op::Fail { after, full }),
    ]
}

/// What is known of a log.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    accepted: u64,
    /// Acknowledged: it may never be less.
    durable: u64,
    ended: bool,
    deleted: bool,
}

impl Known {
    /// Nothing is kept of it: whether it is still refused or begins anew, nobody promised.
    fn is_over(self) -> bool {
        self.deleted || self.ended && self.accepted == 0
    }
}

struct World {
    fs: RecordingFs,
    store: Option<LogStore>,
    logs: BTreeMap<u8, Known>,
    watchers: BTreeMap<u8, Follower>,
}

impl World {
    fn store(&self) -> &LogStore {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Append { log, back, len } => self.append(log, back, len).await,
            Op::Gap { log, by } => {
                let known = *self.logs.entry(log).or_default();
                let (end, over) = (known.accepted, known.is_over());
                let refused = append(self.store(), log, end + by, 5).await.unwrap_err();
                let ended = (over || known.ended) && refused == Refused::Ended;
                assert!(ended || refused == Refused::Gap { expected: end }, "{refused}");
            }
            Op::Durable(log) => self.durable(log).await,
            Op::Seal(log) => self.seal(log).await,
            Op::Delete(log) => {
                self.watchers.remove(&log);
                // A fault that was asked for may strike here, one at a time.
                while within(self.store().delete(vec![attempt(log)])).await.is_err() {}
                let known = self.logs.entry(log).or_default();
                // What never was is not remembered as deleted.
                if known.accepted > 0 || known.ended {
                    *known = Known { deleted: true, ..Known::default() };
                }
            }
            Op::Read { log, from, len } => self.read(log, from, from + len).await,
            Op::Watch { log, events } => self.watch(log, events).await,
            Op::Kill => self.restart().await,
            Op::Fail { after, full } => {
                let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Other };
                self.fs.fail_at(self.fs.op_count() + after, kind);
            }
        }
    }

    async fn append(&mut self, log: u8, back: u64, len: u64) {
        let known = *self.logs.entry(log).or_default();
        let offset = known.accepted.saturating_sub(back);
        let appended = append(self.store(), log, offset, len).await;
        let end = known.accepted.max(offset + len);
        if known.is_over() {
            if appended != Err(Refused::Ended) {
                assert_eq!(appended, Ok(Appended { end, fresh_bytes: end }));
                self.logs.insert(log, Known { accepted: end, ..Known::default() });
                self.watchers.remove(&log);
            }
            return;
        }
        if known.ended {
            let stale = Ok(Appended { end: known.accepted, fresh_bytes: 0 });
            assert!(appended == Err(Refused::Ended) || appended == stale && end == known.accepted, "{appended:?}");
            return;
        }
        assert_eq!(appended, Ok(Appended { end, fresh_bytes: end - known.accepted }));
        self.logs.insert(log, Known { accepted: end, ..known });
    }

    async fn durable(&mut self, log: u8) {
        let known = self.logs.entry(log).or_default();
        if !known.deleted {
            let len = known.accepted;
            known.durable = len;
            durable(self.store(), log, len).await;
        }
    }

    async fn seal(&mut self, log: u8) {
        within(self.store().seal(attempt(log))).await.unwrap();
        let known = self.logs.entry(log).or_default();
        if !known.deleted {
            known.ended = true;
            known.durable = known.accepted;
        }
    }

    async fn read(&mut self, log: u8, from: u64, to: u64) {
        let known = *self.logs.entry(log).or_default();
        let bytes = read(self.store(), log, from, to).await;
        if known.deleted {
            assert_eq!(bytes, b"");
            return;
        }
        let got = from + bytes.len() as u64;
        assert_eq!(bytes, text(log, from, bytes.len() as u64), "I4");
        assert!(got >= known.durable.min(to) || from >= known.durable, "{got} of {known:?}");
        assert!(got <= known.accepted.max(from));
    }

    async fn watch(&mut self, log: u8, events: u8) {
        let known = *self.logs.entry(log).or_default();
        if known.is_over() {
            return;
        }
        if !self.watchers.contains_key(&log) {
            let follower = self.store().follow(attempt(log), 0).await.unwrap();
            self.watchers.insert(log, follower);
        }
        let follower = self.watchers.get_mut(&log).unwrap();
        for _ in 0..events {
            let offset = follower.offset();
            if offset == known.accepted && !known.ended {
                return;
            }
            match within(follower.next()).await.unwrap() {
                Event::Bytes(piece) => {
                    assert_eq!(piece.offset, offset, "I4: no gap, no repetition");
                    assert_eq!(piece.bytes, text(log, offset, piece.bytes.len() as u64), "I4");
                }
                Event::End { bytes, digest: told } => {
                    assert!(known.ended);
                    assert_eq!((bytes, told), (known.accepted, digest(log, bytes)));
                    return;
                }
                Event::Reset { offset } => panic!("taken back to {offset} without a restart"),
            }
        }
    }

    async fn restart(&mut self) {
        let seen: Vec<(u8, u64)> = self.watchers.iter().map(|(log, watcher)| (*log, watcher.offset())).collect();
        self.watchers.clear();
        self.store = None;
        let store = loop {
            // A fault that was asked for may strike here; the next try must do.
            if let Ok(store) = open(&self.fs) {
                break store;
            }
        };
        for (log, known) in &mut self.logs {
            let len = store.len(attempt(*log)).await.unwrap();
            let found = len.as_ref().map_or(0, |len| len.durable);
            if known.deleted {
                assert_eq!(len, None, "log {log} rose again");
                continue;
            }
            assert!(found >= known.durable && found <= known.accepted, "I4: log {log}: {found}, {known:?}");
            (known.accepted, known.durable) = (found, found);
        }
        for (log, offset) in seen {
            let known = self.logs[&log];
            if known.deleted || offset <= known.accepted {
                continue;
            }
            let mut watcher = store.follow(attempt(log), offset).await.unwrap();
            assert_eq!(within(watcher.next()).await.unwrap(), Event::Reset { offset: known.accepted });
            self.watchers.insert(log, watcher);
        }
        self.store = Some(store);
    }
}

async fn play(ops: Vec<Op>) {
    let fs = RecordingFs::new();
    let store = Some(open(&fs).unwrap());
    let mut world = World { fs, store, logs: BTreeMap::new(), watchers: BTreeMap::new() };
    for op in ops {
        world.step(op).await;
    }
    let logs: Vec<u8> = world.logs.keys().copied().collect();
    for log in &logs {
        world.durable(*log).await;
    }
    world.restart().await;
    for log in logs {
        let known = world.logs[&log];
        let expected = if known.deleted { 0 } else { known.accepted };
        assert_eq!(Digest::of(&read(world.store(), log, 0, u64::MAX).await), digest(log, expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_leaves_each_log_as_its_agent_wrote_it(ops in prop::collection::vec(op(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(ops));
    }
}
