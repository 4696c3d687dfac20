//! Every disk that a crash could leave is opened and compared with what was acknowledged; and every sync is needed.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_cache::vfs::recorded::{Image, Op, RecordingFs};
use windlass_coordinator_logs::{LogStore, check};

use crate::kit::{DIR, append, attempt, durable, open, read, text, within};

/// What was promised about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// At least these bytes are there.
    Bytes(u64),
    /// These bytes and no more, ever.
    Ended(u64),
    /// Being deleted: there or not, but right.
    Either,
    /// It is gone for good.
    Gone,
}

/// A disk, and what was promised when.
#[derive(Debug, Default)]
struct Story {
    fs: RecordingFs,
    promises: Vec<(usize, u8, Promise)>,
    /// Syncs that never came, because the process was killed before.
    missed: Vec<usize>,
}

impl Story {
    fn promise(&mut self, n: u8, promise: Promise) {
        self.promises.push((self.fs.op_count(), n, promise));
    }

    async fn append(&mut self, store: &LogStore, n: u8, from: u64, to: u64) {
        append(store, n, from, to - from).await.unwrap();
        durable(store, n, to).await;
        self.promise(n, Promise::Bytes(to));
    }

    async fn seal(&mut self, store: &LogStore, n: u8, len: u64) {
        let before = self.fs.op_count();
        store.seal(attempt(n)).await.unwrap();
        within(store.quiet()).await;
        self.promises.push((self.commit_after(before), n, Promise::Ended(len)));
    }

    async fn delete(&mut self, store: &LogStore, n: u8) {
        self.promise(n, Promise::Either);
        let before = self.fs.op_count();
        let sealed = store.len(attempt(n)).await.unwrap().unwrap().sealed;
        within(store.delete(vec![attempt(n)])).await.unwrap();
        // A live log is gone with its mark, before the sealer gets to work on what is free now.
        let gone = if sealed { self.fs.op_count() } else { self.commit_after(before) };
        self.promises.push((gone, n, Promise::Gone));
        within(store.quiet()).await;
    }

    /// After which operation the first commit after `before` was durable. What follows it is the sealer's.
    fn commit_after(&self, before: usize) -> usize {
        let ops = self.fs.ops();
        let synced = |op: &Op| matches!(op, Op::SyncData { .. });
        let after = before + ops[before..].iter().position(synced).unwrap() + 1;
        let named = matches!(ops.get(after), Some(Op::SyncDir { path, .. }) if path.ends_with("segments"));
        after + usize::from(named)
    }

    /// The first promise that some crash from operation `from` on breaks.
    async fn first_broken(&self, from: usize) -> Option<String> {
        for at in from..=self.fs.op_count() {
            let mut held = BTreeMap::new();
            held.extend(self.promises.iter().filter(|(since, ..)| *since <= at).map(|(_, n, p)| (*n, *p)));
            for crash in self.fs.crash_images(at) {
                if let Err(why) = keeps(&crash.image, &held).await {
                    return Some(format!("crash after operation {at}, {}: {why}", crash.story));
                }
            }
        }
        None
    }

    /// The syncs without which every promise would be kept all the same.
    async fn idle_syncs(&self, range: std::ops::Range<usize>) -> Vec<(usize, Op)> {
        let mut idle = Vec::new();
        for (at, op) in self.fs.ops().into_iter().enumerate().filter(|(at, _)| range.contains(at)) {
            let (Op::SyncData { sync, .. } | Op::SyncDir { sync, .. }) = op else { continue };
            self.fs.drop_sync(sync);
            if self.first_broken(at).await.is_none() {
                idle.push((sync, op));
            }
            self.fs.restore_syncs();
            self.missed.iter().for_each(|sync| self.fs.drop_sync(*sync));
        }
        idle
    }
}

/// Whether a disk keeps what was promised: at once, and after one more run that writes on.
async fn keeps(image: &Image, promises: &BTreeMap<u8, Promise>) -> Result<(), String> {
    let fs = RecordingFs::on(image);
    if fs.live_image().dirs.contains(Path::new(DIR)) && fs.live_image().dirs.len() == 4 {
        let report = check(&fs, Path::new(DIR), |_| ()).map_err(|e| format!("check: {e}"))?;
        if !report.is_good() {
            return Err(format!("check: {:?}", report.problems));
        }
    }
    let mut lens = BTreeMap::new();
    for run in 0..2 {
        let store = open(&fs).map_err(|e| format!("open: {e}"))?;
        for (n, promise) in promises {
            let len = kept(&store, *n, *promise).await.map_err(|why| format!("run {run}: log {n}: {why}"))?;
            if let Some(before) = lens.insert(*n, len)
                && before != len
            {
                return Err(format!("log {n} had {before:?} bytes, after a restart {len:?}"));
            }
        }
        // A log of its own, and those that may still grow, go on from where they are.
        let grown = append(&store, 99, run * 10, 10).await;
        grown.map_err(|e| format!("append: {e}"))?;
        for (n, len) in &mut lens {
            if let Some(len) = len
                && append(&store, *n, *len, 7).await.is_ok()
            {
                *len += 7;
                durable(&store, *n, *len).await;
            }
        }
        durable(&store, 99, run * 10 + 10).await;
    }
    Ok(())
}

async fn kept(store: &LogStore, n: u8, promise: Promise) -> Result<Option<u64>, String> {
    let len = store.len(attempt(n)).await.map_err(|e| e.to_string())?.map(|len| len.durable);
    match (promise, len) {
        (Promise::Bytes(least), None) => return Err(format!("{least} bytes are gone")),
        (Promise::Bytes(least), Some(len)) if len < least => return Err(format!("{len} bytes of {least}")),
        (Promise::Ended(end), len) if len != Some(end) => return Err(format!("{len:?} bytes of {end}")),
        (Promise::Ended(end), _) if append(store, n, end, 1).await.is_ok() => return Err("it takes more".to_owned()),
        (Promise::Gone, Some(len)) => return Err(format!("it rose again with {len} bytes")),
        _ => {}
    }
    let Some(len) = len else { return Ok(None) };
    let mut reader = store.read(attempt(n), 0..u64::MAX).await.map_err(|e| e.to_string())?;
    let bytes = reader.read_to_end().await.map_err(|e| e.to_string())?;
    if bytes != text(n, 0, len) { Err(format!("{len} bytes that are not right")) } else { Ok(Some(len)) }
}

/// Logs over several segments, of 2,000 bytes and a little each. They lie such that each sealed log is the last that
/// held some segment, and each mark of a deletion outlives what it voids by nothing but the order of syncs.
async fn long_story() -> Story {
    let mut story = Story::default();
    let store = open(&story.fs).unwrap();
    story.append(&store, 1, 0, 700).await; // the first segment is log 1's alone
    story.append(&store, 1, 700, 1_500).await;
    story.append(&store, 1, 1_500, 2_300).await;
    story.append(&store, 2, 0, 60).await; // the second
    story.seal(&store, 1, 2_300).await;
    story.append(&store, 3, 0, 2_000).await;
    story.append(&store, 4, 0, 2_000).await; // the third
    story.seal(&store, 4, 2_000).await; // the fourth
    story.delete(&store, 3).await; // live; log 2 keeps its records on the disk
    story.append(&store, 5, 0, 2_000).await;
    story.append(&store, 6, 0, 10).await; // the fifth
    story.seal(&store, 2, 60).await; // the second goes; the mark on log 3 in the fourth has nothing more to say
    story.seal(&store, 5, 2_000).await; // the fourth goes
    story.append(&store, 9, 0, 10).await;
    story.delete(&store, 5).await; // sealed; the fifth has its fence
    story.append(&store, 6, 10, 2_010).await;
    story.delete(&store, 6).await; // the sixth
    story.append(&store, 7, 0, 2_000).await;
    story.append(&store, 8, 0, 10).await; // the seventh
    story.delete(&store, 9).await; // the fifth goes, with the mark on log 5
    story.delete(&store, 4).await; // sealed, and no record left
    story.seal(&store, 7, 2_000).await; // the sixth goes, with the mark on log 6
    story.append(&store, 8, 10, 20).await;
    story
}

#[tokio::test]
async fn whatever_a_crash_leaves_keeps_what_was_acknowledged() {
    let story = long_story().await;
    assert_eq!(story.first_broken(0).await, None);
}

#[tokio::test]
async fn every_sync_is_needed() {
    let story = long_story().await;
    let idle = story.idle_syncs(0..usize::MAX).await;
    assert!(idle.is_empty(), "of {}: {idle:?}", story.fs.sync_count());
}

/// A run that was killed before any of its syncs, as far as the order of its own steps allows that, and one that
/// found all of it in the page cache.
async fn killed_story() -> (Story, usize) {
    let mut story = Story::default();
    let store = open(&story.fs).unwrap();
    append(&store, 1, 0, 300).await.unwrap();
    append(&store, 2, 0, 200).await.unwrap();
    durable(&store, 2, 200).await;
    story.seal(&store, 1, 300).await;
    story.promises.clear();
    drop(store);
    let packed = |op: &Op| matches!(op, Op::Create { path, .. } if path.extension().is_some_and(|e| e == "tmp"));
    let ops = story.fs.ops();
    let first_packed = ops.iter().position(packed).unwrap();
    for (at, op) in ops.iter().enumerate() {
        match op {
            Op::SyncData { sync, .. } if at < first_packed => story.missed.push(*sync),
            Op::SyncDir { path, sync } if path != Path::new("/") => story.missed.push(*sync),
            _ => {}
        }
    }
    story.missed.iter().for_each(|sync| story.fs.drop_sync(*sync));
    let from = story.fs.op_count();
    let store = open(&story.fs).unwrap();
    story.promise(1, Promise::Ended(300));
    story.promise(2, Promise::Bytes(200));
    within(store.quiet()).await;
    story.append(&store, 2, 200, 300).await;
    story.delete(&store, 2).await; // the records of log 1 go with those of log 2
    story.append(&store, 3, 0, 10).await;
    (story, from)
}

#[tokio::test]
async fn what_a_killed_run_left_unsynced_is_synced_before_it_is_counted_on() {
    let (story, from) = killed_story().await;
    let opened = story.promises[0].0;
    assert_eq!(story.first_broken(opened).await, None);
    let idle = story.idle_syncs(from..opened).await;
    assert!(idle.is_empty(), "{idle:?}");
}

#[tokio::test]
async fn a_sync_that_failed_moves_its_batch_to_a_new_segment_and_promises_nothing_before() {
    let mut story = Story::default();
    let store = open(&story.fs).unwrap();
    story.append(&store, 1, 0, 300).await;
    for (failing, from) in [(1, 300), (0, 400), (5, 500)] {
        // The write, its sync, or the sync of the new segment's name.
        let segments = store.stats().segments;
        story.fs.fail_at(story.fs.op_count() + failing, std::io::ErrorKind::Other);
        if failing == 5 {
            story.append(&store, 2, 0, 2_000).await;
        }
        story.append(&store, 1, from, from + 100).await;
        assert!(store.stats().segments > segments);
    }
    assert_eq!(story.first_broken(0).await, None);
}

#[tokio::test]
async fn damage_in_a_segment_is_reported_and_only_what_follows_in_that_log_is_lost() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    for (n, offset) in [(1, 0), (2, 0), (1, 100), (2, 100)] {
        append(&store, n, offset, 100).await.unwrap();
        durable(&store, n, offset + 100).await;
    }
    drop(store);
    let image = fs.live_image();
    let (path, bytes) = image.files.iter().next().unwrap();
    for at in (0..bytes.len()).step_by(3) {
        let mut bad = image.clone();
        bad.files.get_mut(path).unwrap()[at] ^= 0x10;
        let fs = RecordingFs::on(&bad);
        let found = check(&fs, Path::new(DIR), |_| ()).unwrap();
        let store = open(&fs).unwrap();
        for n in [1, 2] {
            let len = store.len(attempt(n)).await.unwrap().map_or(0, |len| len.durable);
            assert!(len % 100 == 0 && len <= 200, "a whole record or none");
            assert_eq!(read(&store, n, 0, u64::MAX).await, text(n, 0, len), "byte {at}");
        }
        assert!(!found.is_good() || found.torn_bytes > 0, "byte {at}: {found:?}");
    }
}
