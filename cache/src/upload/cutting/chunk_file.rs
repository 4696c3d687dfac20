//! The file of a blob's own chunks: frames end to end, synced on the way where there are many.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use windlass_protocol::limits::UPLOAD_SYNC_BYTES;

use crate::chunk::FileNo;
use crate::error::{Fault, OrFault as _};
use crate::store::{Durability, Shared};
use crate::vfs::VfsFile;

/// The file of a blob's own chunks; removed when dropped, unless a record says what it holds.
#[derive(Debug)]
pub(super) struct ChunkFile {
    shared: Arc<Shared>,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) path: PathBuf,
    /// Once it has its name.
    pub(super) number: Option<FileNo>,
    pub(super) end: u64,
    /// Up to where it was synced, or is being.
    begun: u64,
    /// A sync that goes on beside what is written, one at a time.
    syncing: Option<JoinHandle<io::Result<()>>>,
    synced: bool,
    /// A sync failed: the kernel says once that bytes were lost, and whoever goes on with the file would not hear of it.
    lost: bool,
    pub(super) recorded: bool,
    /// It stays when it is dropped: somebody will go on with it.
    pub(super) kept: bool,
}

impl ChunkFile {
    pub(super) fn create(shared: &Arc<Shared>, kept_at: Option<PathBuf>) -> Result<Self, Fault> {
        let kept = kept_at.is_some();
        let path = kept_at.unwrap_or_else(|| shared.temporary_path());
        let file = shared.vfs.create(&path).or_fault("creating", &path)?;
        let mut file = Self::of(shared, file, path);
        file.kept = kept;
        Ok(file)
    }

    /// One that is there and stays.
    pub(super) fn of(shared: &Arc<Shared>, file: Box<dyn VfsFile>, path: PathBuf) -> Self {
        let (shared, file) = (Arc::clone(shared), Arc::from(file));
        let (begun, syncing) = (0, None);
        Self {
            shared,
            file,
            path,
            number: None,
            end: 0,
            begun,
            syncing,
            synced: false,
            lost: false,
            recorded: false,
            kept: true,
        }
    }

    /// Adds a frame; tells where it lies.
    pub(super) fn append(&mut self, stored: &[u8]) -> Result<u64, Fault> {
        let offset = self.end;
        self.file.write_at(offset, stored).or_fault("writing", &self.path)?;
        self.end += stored.len() as u64;
        if self.end - self.begun >= UPLOAD_SYNC_BYTES && self.is_durable() {
            self.sync_beside()?;
        }
        Ok(offset)
    }

    fn is_durable(&self) -> bool {
        self.shared.options.durability == Durability::Durable
    }

    /// Begins to sync what was written, unless that goes on already: the disk is not asked faster than it answers.
    fn sync_beside(&mut self) -> Result<(), Fault> {
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished()) {
            return Ok(());
        }
        self.end_sync()?;
        let file = Arc::clone(&self.file);
        // Where there is no thread to be had the last sync does it all.
        self.syncing = thread::Builder::new().name("upload-sync".to_owned()).spawn(move || file.sync_data()).ok();
        self.begun = self.end;
        Ok(())
    }

    /// Waits for the sync that goes on. That it failed is said once by the kernel: the upload cannot be counted on then.
    fn end_sync(&mut self) -> Result<(), Fault> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        let ended = syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that synced it panicked")));
        self.lost |= ended.is_err();
        ended.or_fault("syncing", &self.path)
    }

    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        self.end_sync()?;
        if self.is_durable() && !self.synced {
            let ended = self.file.sync_data();
            self.lost |= ended.is_err();
            ended.or_fault("syncing", &self.path)?;
            self.synced = true;
        }
        Ok(())
    }

    /// Gives the file its name: bytes first, then the name, each durable before the record that counts on it.
    pub(super) fn name(&mut self) -> Result<(), Fault> {
        // What was stored when it was asked, and is not any more, was not synced before.
        self.sync()?;
        let number = self.shared.chunks.next_file();
        let to = self.shared.chunk_path(number);
        self.shared.vfs.rename(&self.path, &to).or_fault("renaming", &self.path)?;
        (self.path, self.number) = (to, Some(number));
        // By this name nobody goes on with it.
        self.kept = false;
        if self.is_durable() {
            let dir = self.shared.chunks_dir();
            self.shared.vfs.sync_dir(&dir).or_fault("syncing", &dir)?;
        }
        Ok(())
    }
}

impl Drop for ChunkFile {
    fn drop(&mut self) {
        if let Err(error) = self.end_sync() {
            tracing::warn!(%error, "upload_lost");
        }
        if self.recorded || self.kept && !self.lost {
            return;
        }
        if let Err(error) = self.shared.vfs.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "temporary_left_behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::{Store, StoreOptions};
    use crate::vfs::recorded::RecordingFs;

    static FRAME: [u8; 1 << 20] = [7; 1 << 20];

    fn file(fs: &RecordingFs, options: StoreOptions) -> ChunkFile {
        let store = Store::open(Arc::new(fs.clone()), Path::new("/s"), options).unwrap();
        ChunkFile::create(&store.shared, None).unwrap()
    }

    fn append(file: &mut ChunkFile, bytes: u64) {
        (0..bytes / FRAME.len() as u64).for_each(|_| {
            file.append(&FRAME).unwrap();
        });
    }

    #[test]
    fn a_large_upload_is_synced_while_it_comes_and_once_more_at_its_end() {
        let fs = RecordingFs::new();
        let mut chunks = file(&fs, StoreOptions::default());
        let before = fs.sync_count();
        append(&mut chunks, UPLOAD_SYNC_BYTES - FRAME.len() as u64);
        assert!(chunks.syncing.is_none(), "a smaller one has one sync");
        append(&mut chunks, FRAME.len() as u64);
        chunks.syncing.take().expect("it goes on beside what comes").join().unwrap().unwrap();
        assert_eq!(fs.sync_count(), before + 1);
        chunks.sync().unwrap();
        assert_eq!(fs.sync_count(), before + 2, "what came after it is not known to be kept");
        let fs = RecordingFs::new();
        let mut chunks = file(&fs, StoreOptions::lazy(1 << 30));
        append(&mut chunks, UPLOAD_SYNC_BYTES);
        assert!(chunks.syncing.is_none(), "a store that keeps nothing for sure does not sync");
    }

    /// A file whose first sync fails, and no other: so the kernel tells a lost write, once.
    #[derive(Debug)]
    struct FailsOnce(Arc<dyn VfsFile>, AtomicBool);

    impl VfsFile for FailsOnce {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(offset, buffer)
        }

        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn truncate(&self, len: u64) -> io::Result<()> {
            self.0.truncate(len)
        }

        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.punch(offset, len)
        }

        fn sync_data(&self) -> io::Result<()> {
            if self.1.swap(true, Ordering::Relaxed) { self.0.sync_data() } else { Err(io::Error::other("lost")) }
        }
    }

    #[test]
    fn a_sync_on_the_way_that_failed_fails_the_upload_though_the_next_one_would_not() {
        let mut chunks = file(&RecordingFs::new(), StoreOptions::default());
        chunks.file = Arc::new(FailsOnce(Arc::clone(&chunks.file), AtomicBool::default()));
        append(&mut chunks, UPLOAD_SYNC_BYTES);
        let failed = chunks.sync();
        assert!(matches!(failed, Err(Fault::Io { doing: "syncing", .. })), "{failed:?}");
        assert!(chunks.file.sync_data().is_ok());
    }

    #[test]
    fn nobody_goes_on_with_an_upload_of_which_a_sync_failed() {
        // That it failed is heard by who drops it, by who writes on, and by who ends it.
        for (fails, heard) in [(false, 0), (true, 0), (true, 1), (true, 2), (true, 3)] {
            let fs = RecordingFs::new();
            let mut chunks = file(&fs, StoreOptions::default());
            let path = chunks.path.clone();
            chunks.file = Arc::new(FailsOnce(Arc::clone(&chunks.file), AtomicBool::new(!fails)));
            chunks.kept = true;
            if heard < 3 {
                append(&mut chunks, UPLOAD_SYNC_BYTES);
            }
            match heard {
                0 => {}
                1 => assert!(chunks.end_sync().is_err()),
                _ => assert!(chunks.sync().is_err()),
            }
            drop(chunks);
            assert_eq!(fs.live_image().files.contains_key(&path), !fails, "{heard}");
        }
    }
}
