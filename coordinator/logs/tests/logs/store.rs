//! The store's behaviour, call by call.

use crate::kit::{DIR, SMALL, append, attempt, digest, durable, follow_to, open, read, text, within};
use std::path::Path;
use windlass_cache::vfs::Vfs as _;
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_coordinator_logs::{Appended, DiskState, Event, Refused, check};
use windlass_protocol::job::Epoch;
use windlass_protocol::{Digest, WallMs};

#[tokio::test]
async fn bytes_are_durable_once_acknowledged_and_survive_a_restart() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    let mut acks = store.acks();
    append(&store, 1, 0, 10).await.unwrap();
    append(&store, 2, 0, 900).await.unwrap();
    append(&store, 1, 10, 5).await.unwrap();
    let (mut one, mut two) = (0, 0);
    while (one, two) != (15, 900) {
        for (id, offset) in within(acks.next()).await.unwrap() {
            *(if id == attempt(1) { &mut one } else { &mut two }) = offset;
        }
    }
    drop(store);
    let store = open(&fs).unwrap();
    assert_eq!(read(&store, 1, 0, 99).await, text(1, 0, 15));
    assert_eq!(read(&store, 2, 333, 444).await, text(2, 333, 111));
    assert_eq!(append(&store, 1, 15, 1).await, Ok(Appended { end: 16, fresh_bytes: 1 }));
    assert_eq!(append(&store, 1, 17, 1).await, Err(Refused::Gap { expected: 16 }));
}

#[tokio::test]
async fn known_bytes_are_dropped_and_acknowledged_again_and_other_bytes_are_refused() {
    let store = open(&RecordingFs::new()).unwrap();
    let mut watcher = store.follow(attempt(1), 0).await.unwrap();
    append(&store, 1, 0, 50).await.unwrap();
    durable(&store, 1, 50).await;
    let mut acks = store.acks();
    assert_eq!(append(&store, 1, 0, 20).await, Ok(Appended { end: 50, fresh_bytes: 0 }));
    assert_eq!(within(acks.next()).await.unwrap()[&attempt(1)], 50);
    assert_eq!(append(&store, 1, 40, 30).await, Ok(Appended { end: 70, fresh_bytes: 20 }));
    let other = store.append(attempt(1), Epoch(1), 45, WallMs(0), text(9, 0, 5)).await;
    assert_eq!(other, Err(Refused::Differs { offset: 45 }));
    assert_eq!(follow_to(&mut watcher, 70).await.0, text(1, 0, 70));
}

#[tokio::test]
async fn an_older_right_writes_nothing_after_the_fence_nor_after_a_restart() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 1, 0, 5).await.unwrap();
    store.fence(attempt(1), Epoch(2), false).await.unwrap();
    assert_eq!(append(&store, 1, 5, 5).await, Err(Refused::Fenced { least: Epoch(2) }));
    assert!(store.append(attempt(1), Epoch(2), 5, WallMs(1), text(1, 5, 5)).await.is_ok());
    durable(&store, 1, 10).await;
    drop(store);
    let store = open(&fs).unwrap();
    assert_eq!(append(&store, 1, 10, 5).await, Err(Refused::Fenced { least: Epoch(2) }));
}

#[tokio::test]
async fn a_log_settles_when_length_and_digest_agree_and_says_why_it_never_will() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    assert_eq!(store.settle(attempt(9), 0, Digest::of(b"")).await, Ok(()), "no byte is no wait");
    append(&store, 1, 0, 10).await.unwrap();
    let later = tokio::spawn({
        let store = store.clone();
        async move { store.settle(attempt(1), 30, digest(1, 30)).await }
    });
    append(&store, 1, 10, 20).await.unwrap();
    assert_eq!(within(later).await.unwrap(), Ok(()));
    let why = store.settle(attempt(1), 30, digest(2, 30)).await.unwrap_err();
    assert!(why.contains("have digest"), "{why}");
    let why = store.settle(attempt(1), 20, digest(1, 20)).await.unwrap_err();
    assert!(why.contains("longer"), "{why}");
    drop(store);
    let store = open(&fs).unwrap();
    assert_eq!(store.settle(attempt(1), 30, digest(1, 30)).await, Ok(()), "hashed again after a restart");
    assert!(store.settle(attempt(1), 30, digest(2, 30)).await.is_err());
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    assert_eq!(store.settle(attempt(1), 30, digest(1, 30)).await, Ok(()), "sealed meanwhile");
    assert!(store.settle(attempt(1), 31, digest(1, 31)).await.is_err());
}

#[tokio::test]
async fn a_watcher_sees_a_log_from_its_first_byte_to_its_end() {
    let store = open(&RecordingFs::new()).unwrap();
    let mut early = store.follow(attempt(1), 0).await.unwrap();
    append(&store, 1, 0, 1_000).await.unwrap();
    let mut middle = store.follow(attempt(1), 400).await.unwrap();
    append(&store, 1, 1_000, 500).await.unwrap();
    store.seal(attempt(1)).await.unwrap();
    let end = Some((1_500, digest(1, 1_500)));
    assert_eq!(follow_to(&mut early, u64::MAX).await, (text(1, 0, 1_500).to_vec(), end));
    within(store.quiet()).await;
    assert!(store.len(attempt(1)).await.unwrap().unwrap().sealed);
    assert_eq!(follow_to(&mut middle, u64::MAX).await, (text(1, 400, 1_100).to_vec(), end));
    let mut late = store.follow(attempt(1), 1_499).await.unwrap();
    assert_eq!(follow_to(&mut late, u64::MAX).await, (text(1, 1_499, 1).to_vec(), end));
}

#[tokio::test]
async fn a_slow_watcher_reads_the_file_while_a_fast_one_lives_on_memory() {
    let store = open(&RecordingFs::new()).unwrap();
    let mut fast = store.follow(attempt(1), 0).await.unwrap();
    let mut slow = store.follow(attempt(1), 0).await.unwrap();
    for n in 0..50 {
        append(&store, 1, n * 100, 100).await.unwrap();
        assert_eq!(follow_to(&mut fast, (n + 1) * 100).await.0, text(1, n * 100, 100));
    }
    durable(&store, 1, 5_000).await;
    assert_eq!(store.stats().file_reads, 0, "the fast one never read a file");
    assert_eq!(follow_to(&mut slow, 5_000).await.0, text(1, 0, 5_000));
    assert!(store.stats().file_reads > 0, "the slow one did: memory holds 300 bytes");
}

#[tokio::test]
async fn a_watcher_that_saw_more_than_is_durable_is_taken_back() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 1, 0, 20).await.unwrap();
    durable(&store, 1, 20).await;
    drop(store);
    let store = open(&fs).unwrap();
    let mut watcher = store.follow(attempt(1), 25).await.unwrap();
    assert_eq!(watcher.next().await.unwrap(), Event::Reset { offset: 20 });
    append(&store, 1, 20, 5).await.unwrap();
    assert_eq!(follow_to(&mut watcher, 25).await.0, text(1, 20, 5));
}

#[tokio::test]
async fn a_sealed_log_is_read_from_the_middle_and_its_segments_go_but_not_those_of_others() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 2, 0, 10).await.unwrap();
    durable(&store, 2, 10).await;
    for n in 0..100 {
        append(&store, 1, n * 50, 50).await.unwrap();
        durable(&store, 1, (n + 1) * 50).await;
    }
    assert!(store.stats().segments > 3);
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    assert!(store.stats().segments <= 2, "the first holds log 2, the last is being written: {:?}", store.stats());
    let before = store.stats().file_reads;
    assert_eq!(read(&store, 1, 2_345, 2_360).await, text(1, 2_345, 15));
    assert_eq!(store.stats().file_reads - before, 1, "one frame");
    assert_eq!(append(&store, 1, 5_000, 1).await, Err(Refused::Ended));
    drop(store);
    let store = open(&fs).unwrap();
    assert_eq!(read(&store, 1, 0, 9_999).await, text(1, 0, 5_000));
    assert_eq!(read(&store, 2, 0, 9_999).await, text(2, 0, 10));
    drop(store);
    let report = check(&fs, Path::new(DIR), |_| ()).unwrap();
    assert!(report.is_good() && report.sealed_logs == 1 && report.live_logs == 1, "{report:?}");
}

#[tokio::test]
async fn times_are_the_same_before_and_after_sealing() {
    let store = open(&RecordingFs::new()).unwrap();
    let mut offset = 0;
    for (at, len) in [(5_u64, 700_u64), (5, 3), (9, 1), (2, 40), (u64::MAX, 2), (0, 800)] {
        store.append(attempt(1), Epoch(0), offset, WallMs(at), text(1, offset, len)).await.unwrap();
        offset += len;
    }
    durable(&store, 1, offset).await;
    let mut before = Vec::new();
    let mut reader = store.read(attempt(1), 0..offset).await.unwrap();
    while let Some(piece) = reader.next().await.unwrap() {
        before.extend(piece.bytes.iter().map(|b| (*b, piece.at)));
    }
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    let mut after = Vec::new();
    let mut reader = store.read(attempt(1), 0..offset).await.unwrap();
    while let Some(piece) = reader.next().await.unwrap() {
        after.extend(piece.bytes.iter().map(|b| (*b, piece.at)));
    }
    assert_eq!(before.len(), usize::try_from(offset).unwrap());
    assert!(before == after);
    assert_eq!(before[702].1, WallMs(5));
    assert_eq!(before[703].1, WallMs(9));
}

#[tokio::test]
async fn an_incomplete_log_says_why_after_sealing_too() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 1, 0, 10).await.unwrap();
    store.incomplete(attempt(1), "its agent was lost").await.unwrap();
    assert_eq!(store.settle(attempt(1), 10, digest(1, 10)).await.unwrap_err(), "its agent was lost");
    drop(store);
    let store = open(&fs).unwrap();
    assert_eq!(store.len(attempt(1)).await.unwrap().unwrap().incomplete.as_deref(), Some("its agent was lost"));
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    let len = store.len(attempt(1)).await.unwrap().unwrap();
    assert_eq!((len.sealed, len.incomplete.as_deref()), (true, Some("its agent was lost")));
}

#[tokio::test]
async fn a_log_without_a_byte_ends_without_a_file_and_takes_nothing_late() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    let mut watcher = store.follow(attempt(1), 0).await.unwrap();
    store.fence(attempt(1), Epoch(1), true).await.unwrap();
    assert_eq!(within(watcher.next()).await.unwrap(), Event::End { bytes: 0, digest: Digest::of(b"") });
    drop(watcher);
    assert_eq!(append(&store, 1, 0, 5).await, Err(Refused::Ended));
    within(store.quiet()).await;
    assert_eq!(fs.list(&Path::new(DIR).join("sealed")).unwrap(), []);
    let mut late = store.follow(attempt(1), 0).await.unwrap();
    assert_eq!(within(late.next()).await.unwrap(), Event::End { bytes: 0, digest: Digest::of(b"") });
    assert_eq!(store.stats().live_logs, 0);
}

#[tokio::test]
async fn a_deleted_log_does_not_rise_again_whether_it_was_sealed_or_not() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    for n in [1, 2, 3] {
        append(&store, n, 0, 500).await.unwrap();
        durable(&store, n, 500).await;
    }
    store.seal(attempt(1)).await.unwrap();
    within(store.quiet()).await;
    for _ in 0..2 {
        within(store.delete(vec![attempt(1), attempt(2)])).await.unwrap();
    }
    assert_eq!(append(&store, 2, 0, 1).await, Err(Refused::Ended));
    for _ in 0..2 {
        let store = open(&fs).unwrap();
        assert_eq!(store.len(attempt(1)).await.unwrap(), None);
        assert_eq!(store.len(attempt(2)).await.unwrap(), None);
        assert_eq!(read(&store, 3, 0, 999).await, text(3, 0, 500));
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_loses_and_doubles_nothing_when_space_returns() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 1, 0, 100).await.unwrap();
    durable(&store, 1, 100).await;
    let mut watcher = store.follow(attempt(1), 100).await.unwrap();
    fs.set_capacity(Some(400));
    append(&store, 1, 100, 500).await.unwrap();
    assert_eq!(follow_to(&mut watcher, 600).await.0, text(1, 100, 500), "watchers see it");
    let mut state = store.disk();
    within(state.wait_for(|disk| *disk == DiskState::Full)).await.unwrap();
    assert_eq!(store.len(attempt(1)).await.unwrap().unwrap().durable, 100);
    append(&store, 1, 600, 50).await.unwrap();
    fs.set_capacity(None);
    durable(&store, 1, 650).await;
    within(state.wait_for(|disk| *disk == DiskState::Fine)).await.unwrap();
    assert_eq!(read(&store, 1, 0, 999).await, text(1, 0, 650));
    drop(store);
    assert_eq!(read(&open(&fs).unwrap(), 1, 0, 999).await, text(1, 0, 650));
    assert_eq!(SMALL.segment_bytes, 2_000);
}

#[tokio::test]
async fn asking_for_a_log_that_never_comes_leaves_nothing_behind() {
    let store = open(&RecordingFs::new()).unwrap();
    drop(store.follow(attempt(1), 0).await.unwrap());
    assert_eq!(append(&store, 2, 5, 5).await, Err(Refused::Gap { expected: 0 }));
    let waiting = store.settle(attempt(3), 5, digest(3, 5));
    assert!(tokio::time::timeout(std::time::Duration::ZERO, waiting).await.is_err());
    assert_eq!(store.stats().live_logs, 0);
}

#[tokio::test]
async fn closing_makes_durable_what_was_accepted() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    append(&store, 1, 0, 700).await.unwrap();
    let mut acks = store.acks();
    within(store.close()).await;
    while let Some(news) = within(acks.next()).await {
        assert_eq!(news[&attempt(1)], 700);
    }
    assert_eq!(read(&open(&fs).unwrap(), 1, 0, 999).await, text(1, 0, 700));
}

#[tokio::test]
async fn a_log_that_ends_without_a_byte_leaves_nothing_on_the_disk_and_takes_nothing_more() {
    let fs = RecordingFs::new();
    let store = open(&fs).unwrap();
    store.settle(attempt(1), 0, Digest::of(b"")).await.unwrap();
    let mut watcher = store.follow(attempt(2), 0).await.unwrap();
    for id in [1, 2] {
        store.fence(attempt(id), Epoch(2), true).await.unwrap();
        assert_eq!(append(&store, id, 0, 5).await, Err(Refused::Ended));
        assert_eq!(store.len(attempt(id)).await.unwrap(), None);
    }
    assert_eq!(within(watcher.next()).await.unwrap(), Event::End { bytes: 0, digest: Digest::of(b"") });
    assert_eq!((store.stats().commits, store.stats().live_logs, store.stats().segments), (0, 0, 0));
}
