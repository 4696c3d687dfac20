//! Every disk that a crash could leave is opened and compared with what was acknowledged; and every sync is needed.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_cache::vfs::recorded::{Image, Op, RecordingFs};
use windlass_coordinator_logs::{LogStore, check};

use crate::kit::{DIR, append, attempt, durable, open, text, within};

/// What was promised about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// At least these bytes are there.
    Bytes(u64),
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

    async fn seal(&self, store: &LogStore, n: u8) {
        store.seal(attempt(n)).await.unwrap();
        within(store.quiet()).await;
    }

    async fn delete(&mut self, store: &LogStore, n: u8) {
        self.promise(n, Promise::Either);
        within(store.delete(vec![attempt(n)])).await.unwrap();
        self.promise(n, Promise::Gone);
        within(store.quiet()).await;
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
    async fn idle_syncs(&self, from: usize) -> Vec<(usize, Op)> {
        let mut idle = Vec::new();
        for (at, op) in self.fs.ops().into_iter().enumerate().skip(from) {
            let (Op::SyncData { sync, .. } | Op::SyncDir { sync, .. }) = op else { continue };
            self.fs.drop_sync(sync);
            if self.first_broken(at).await.is_none() {
                idle.push((sync, op));
            }
            self.fs.restore_syncs();
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
        (Promise::Gone, Some(len)) => return Err(format!("it rose again with {len} bytes")),
        _ => {}
    }
    let Some(len) = len else { return Ok(None) };
    let mut reader = store.read(attempt(n), 0..u64::MAX).await.map_err(|e| e.to_string())?;
    let bytes = reader.read_to_end().await.map_err(|e| e.to_string())?;
    if bytes != text(n, 0, len) { Err(format!("{len} bytes that are not right")) } else { Ok(Some(len)) }
}

/// Several logs over several segments; one is sealed, one deleted before and one after sealing.
async fn long_story() -> Story {
    let mut story = Story::default();
    let store = open(&story.fs).unwrap();
    story.append(&store, 1, 0, 700).await;
    story.append(&store, 2, 0, 60).await;
    story.append(&store, 3, 0, 500).await;
    story.append(&store, 1, 700, 1_500).await;
    story.append(&store, 4, 0, 300).await;
    story.append(&store, 1, 1_500, 1_900).await;
    story.seal(&store, 1).await;
    story.delete(&store, 3).await;
    story.append(&store, 4, 300, 900).await;
    story.append(&store, 5, 0, 1_500).await;
    story.seal(&store, 2).await;
    story.append(&store, 6, 0, 1_200).await;
    story.seal(&store, 4).await;
    story.seal(&store, 5).await;
    story.append(&store, 6, 1_200, 2_400).await;
    story.delete(&store, 5).await;
    story.append(&store, 7, 0, 1_000).await;
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
    let idle = story.idle_syncs(0).await;
    assert!(idle.is_empty(), "of {}: {idle:?}", story.fs.sync_count());
}
