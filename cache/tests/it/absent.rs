//! What a namespace does not see is not there (I12): no file of the store is touched on its account, whoever has it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::vfs::{DirItem, Held, Space, Vfs, VfsFile};
use windlass_cache::{Store, StoreOptions};
use windlass_protocol::{Digest, Namespace};

use crate::chunks::noise;

/// A disk that counts every call, of its files too.
#[derive(Debug, Clone)]
struct Counting {
    fs: RecordingFs,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountingFile {
    file: Box<dyn VfsFile>,
    calls: Arc<AtomicUsize>,
}

impl Counting {
    fn count(&self) -> &RecordingFs {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.fs
    }

    fn file(&self, file: io::Result<Box<dyn VfsFile>>) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(CountingFile { file: file?, calls: Arc::clone(&self.calls) }))
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl CountingFile {
    fn count(&self) -> &dyn VfsFile {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &*self.file
    }
}

impl Vfs for Counting {
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.file(self.count().create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.file(self.count().open(path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.file(self.count().open_read(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.count().remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.count().create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirItem>> {
        self.count().list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.count().sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.count().space(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Held>> {
        self.count().lock(path)
    }
}

impl VfsFile for CountingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.count().write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.count().read_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.count().len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.count().truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.count().punch(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.count().sync_data()
    }
}

#[test]
fn no_file_is_touched_for_what_a_namespace_does_not_see() {
    let disk = Counting { fs: RecordingFs::new(), calls: Arc::default() };
    let store = Store::open(Arc::new(disk.clone()), Path::new("/s"), StoreOptions::default()).unwrap();
    let (vault, other) = (Namespace::trusted("vault"), Namespace::overlay("vault", "pr:1"));
    let blobs = [noise(1, 1_000), noise(2, 60_000), noise(3, 700_000)];
    let theirs: Vec<Digest> = blobs.iter().map(|blob| store.put(&vault, blob).unwrap()).collect();
    let overlaid: Vec<Digest> =
        [noise(4, 900), noise(5, 300_000)].iter().map(|b| store.put(&other, b).unwrap()).collect();
    let nobodys = [Digest::of(b"nobody has it")];
    let strangers = [Namespace::trusted("p"), Namespace::overlay("p", "pr:1"), Namespace::overlay("p", "never seen")];
    let before = disk.calls();
    for stranger in strangers.iter().chain([&vault]) {
        // The trusted one sees what is its own, and nothing of an overlay's.
        let theirs = if *stranger == vault { &[][..] } else { &theirs[..] };
        for digest in theirs.iter().chain(&overlaid).chain(&nobodys) {
            assert!(store.get(stranger, digest).unwrap().is_none());
            assert!(!store.contains(stranger, digest));
            assert_eq!(store.blob_len(stranger, digest), None);
            assert_eq!(store.missing(stranger, &[*digest, *digest]), [*digest]);
        }
    }
    assert_eq!(disk.calls(), before, "who may not see it makes nobody look");
    for digest in &theirs {
        assert!(store.get(&vault, digest).unwrap().is_some() && store.get(&other, digest).unwrap().is_some());
    }
    assert!(disk.calls() > before, "who may, does");
}
