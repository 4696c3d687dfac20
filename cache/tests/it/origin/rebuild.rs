//! A new disk out of the bucket: only where there is none, only of what its names say, and out of whatever it answers.

use super::*;

fn rebuild(fs: &RecordingFs, remote: impl Remote + 'static, name: &str) -> Result<usize, Fault> {
    Store::rebuild(fs, Path::new(DIR), &behind(remote), name)
}

#[test]
fn a_disk_that_has_a_store_or_was_made_anew_before_is_left_alone() {
    let (_fs, remote, store) = moved();
    let name = store.origin_name().unwrap();
    let alone = RecordingFs::new();
    Store::open(Arc::new(alone.clone()), Path::new(DIR), OPTIONS).unwrap().put(&p(), b"blob").unwrap();
    let new = RecordingFs::new();
    rebuild(&new, remote.clone(), name).unwrap();
    for (fs, what) in [(&alone, "a store without a bucket"), (&new, "one that is made anew")] {
        let before = fs.live_image().files;
        assert!(matches!(rebuild(fs, remote.clone(), name), Err(Fault::InUse { .. })), "{what}");
        assert!(fs.live_image().files == before, "{what}");
    }
}

#[test]
fn what_is_not_what_its_name_says_is_not_taken_nor_what_is_named_otherwise() {
    let (_fs, remote, store) = moved();
    let name = store.origin_name().unwrap();
    let all = rebuild(&RecordingFs::new(), remote.clone(), name).unwrap();
    assert_eq!(all + 1, remote.objects().len(), "but whose they are");
    let misspelt = format!("{name}/chunks/63-{}", Digest::of(b"x").to_hex());
    remote.set(&misspelt, Some(b"x"));
    assert_eq!(rebuild(&RecordingFs::new(), remote.clone(), name).unwrap(), all);
    // A byte of a blob: nothing in the segment's records says that it is wrong.
    let (key, bytes) = remote.objects().into_iter().find(|(key, _)| key.contains("/segments/")).unwrap();
    let mut wrong = bytes.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    remote.set(&key, Some(&wrong));
    assert_eq!(rebuild(&RecordingFs::new(), remote.clone(), name).unwrap(), all - 1);
    let upper = name.to_uppercase();
    assert!(matches!(rebuild(&RecordingFs::new(), remote, &upper), Err(Fault::Io { .. })), "{upper}");
}

/// Answers every question for a list with its beginning.
#[derive(Debug)]
struct Endless(MemoryRemote);

impl Remote for Endless {
    fn put(&self, _: &str, _: u64, _: &mut dyn FnMut() -> std::io::Result<Vec<u8>>) -> Result<(), RemoteError> {
        Err(RemoteError::Refused { why: "read only".to_owned() })
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError> {
        self.0.get(key, range)
    }

    fn delete(&self, key: &str) -> Result<(), RemoteError> {
        self.0.delete(key)
    }

    fn list(&self, prefix: &str, _: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError> {
        self.0.list(prefix, None)
    }
}

#[test]
fn a_listing_that_does_not_go_on_is_given_up_at_once() {
    let (_fs, remote, store) = moved();
    let calls = remote.calls();
    let given_up = rebuild(&RecordingFs::new(), Endless(remote.clone()), store.origin_name().unwrap());
    assert!(matches!(given_up, Err(Fault::Unavailable { .. })), "{given_up:?}");
    assert_eq!(remote.calls() - calls, 2);
}
