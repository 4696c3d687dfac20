//! Every disk and bucket that a crash could leave: what was acknowledged is there and right, nothing that was let go comes back to
//! the bucket, and every sync of the bucket's own files is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_cache::vfs::recorded::{Image, Op};

use super::*;

/// What is to be there from so many operations on, until so many.
struct Promise {
    bytes: Vec<u8>,
    since: usize,
    until: usize,
}

fn workload(fs: &RecordingFs, remote: &MemoryRemote) -> Vec<Promise> {
    let clock = fs.clone();
    remote.remember_by(move || clock.op_count());
    let store = open(fs, remote).unwrap();
    let mut promises = Vec::new();
    let mut put = |bytes: Vec<u8>| {
        store.put(&p(), &bytes).unwrap();
        promises.push(Promise { bytes, since: fs.op_count(), until: usize::MAX });
    };
    (0..5).for_each(|n| put(noise(n, 900)));
    put(noise(20, 70_000));
    tend(&store).unwrap();
    (5..8).for_each(|n| put(noise(n, 900)));
    put(noise(21, 70_000));
    for n in [0, 1, 2, 20] {
        let bytes = noise(n, if n == 20 { 70_000 } else { 900 });
        let promise = promises.iter_mut().find(|promise| promise.bytes == bytes).unwrap();
        promise.until = fs.op_count();
        assert_eq!(release(&store, &bytes), 1);
    }
    while store.compact(1 << 20).unwrap().more {}
    tend(&store).unwrap();
    promises
}

fn broken(image: &Image, bucket: BTreeMap<String, Arc<[u8]>>, at: usize, promises: &[Promise]) -> Option<String> {
    let (fs, remote) = (RecordingFs::on(image), MemoryRemote::holding(bucket));
    // Whatever was torn, it opens without its bucket.
    remote.fail_always(Some(Trouble::Down));
    if let Err(e) = open(&fs, &remote) {
        return Some(format!("does not open without its bucket: {e}"));
    }
    remote.fail_always(None);
    let store = match open(&fs, &remote) {
        Ok(store) => store,
        Err(e) => return Some(format!("does not open: {e}")),
    };
    let check = |store: &Store| {
        for Promise { bytes, since, until } in promises {
            match read(store, bytes) {
                Ok(Some(found)) => assert!(found == *bytes, "bytes that are not what their name says"),
                Ok(None) if !(*since <= at && at < *until) => {}
                other => return Some(format!("{} is {:?}", Digest::of(bytes), other.map(|found| found.is_some()))),
            }
        }
        (store.stats().damaged > 0).then(|| "something is damaged".to_owned())
    };
    if let Some(why) = check(&store) {
        return Some(why);
    }
    for _ in 0..2 {
        if let Err(e) = tend(&store) {
            return Some(format!("cannot be tended: {e}"));
        }
    }
    if let Some(why) = check(&store) {
        return Some(format!("after it was tended: {why}"));
    }
    let (recorded, there) = (store.origin_stats().unwrap().objects + 1, remote.objects().len());
    (recorded != there).then(|| format!("{recorded} objects are recorded, {there} are there"))
}

fn first_broken(fs: &RecordingFs, remote: &MemoryRemote, from: usize, promises: &[Promise]) -> Option<String> {
    (from..=fs.op_count()).find_map(|at| {
        let buckets = remote.held_at(at);
        fs.crash_images(at).into_iter().find_map(|crash| {
            buckets.iter().find_map(|bucket| {
                let why = broken(&crash.image, bucket.clone(), at, promises)?;
                Some(format!("after {at} operations, {}: {why}", crash.story))
            })
        })
    })
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_any_point_between_disk_and_bucket() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let promises = workload(&fs, &remote);
    assert!(fs.ops().iter().any(|op| matches!(op, Op::Remove { path, .. } if path.ends_with("00000000.seg"))));
    assert_eq!(first_broken(&fs, &remote, 0, &promises), None);
}

#[test]
fn every_sync_of_the_journal_and_of_bones_is_needed() {
    let (fs, remote) = (RecordingFs::new(), MemoryRemote::default());
    let promises = workload(&fs, &remote);
    let ops = fs.ops();
    let mut paths = BTreeMap::new();
    for op in &ops {
        match op {
            Op::Create { path, file } => drop(paths.insert(*file, path.clone())),
            Op::Rename { to, file, .. } => drop(paths.insert(*file, to.clone())),
            _ => {}
        }
    }
    let mut dropped = 0;
    for (at, op) in ops.iter().enumerate() {
        let Op::SyncData { file, sync } = op else { continue };
        let path = &paths[file];
        if !path.ends_with("journal") && path.extension().is_none_or(|end| end != "bones") {
            continue;
        }
        fs.drop_sync(*sync);
        let why = first_broken(&fs, &remote, at, &promises);
        assert!(why.is_some() || spared(&ops, at), "sync {sync} of {} is not needed", path.display());
        dropped += usize::from(why.is_some());
        fs.restore_syncs();
    }
    assert!(dropped > 2, "{dropped}");
}

/// The next sync of the same file comes before a file leaves the disk, and does the same.
fn spared(ops: &[Op], at: usize) -> bool {
    let leaves = |op: &Op| match op {
        Op::Remove { path, .. } => path.starts_with("/s/chunks/") || path.extension().is_some_and(|end| end == "seg"),
        _ => false,
    };
    let syncs = |op: &&Op| matches!(op, Op::SyncData { file, .. } if matches!(&ops[at], Op::SyncData { file: f, .. } if f == file));
    let next = ops.iter().skip(at + 1).position(|op| leaves(op) || syncs(&op));
    next.is_none_or(|next| !leaves(&ops[at + 1 + next]))
}
