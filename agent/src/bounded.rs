//! Directories that the agent keeps between jobs, within bounds: what is too much goes while jobs go on.

use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_git::DirCache;
use windlass_git::dir_cache::Limits;

/// Such directories, of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Bounded(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cache: DirCache,
    /// What is kept, for people.
    what: &'static str,
    /// A pass is to come that has not begun.
    wanted: AtomicBool,
    turn: Mutex<()>,
}

impl Deref for Bounded {
    type Target = DirCache;

    fn deref(&self) -> &DirCache {
        &self.0.cache
    }
}

impl Bounded {
    /// In this directory, whose leftovers go first; `owns` tells the names of what is kept.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn open(path: PathBuf, limits: Limits, what: &'static str, owns: fn(&str) -> bool) -> io::Result<Self> {
        let cache = DirCache::new(path, limits, owns);
        let bounded = Self(Arc::new(Shared { cache, what, wanted: AtomicBool::new(false), turn: Mutex::new(()) }));
        bounded.trim_now()?;
        Ok(bounded)
    }

    /// Has what is too much removed. Nobody waits for it; one pass sees what all that were asked for before it left.
    pub(crate) fn trim(&self) {
        if self.0.wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        // Without a runtime the agent ends, and its next start looks.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let bounded = self.clone();
        runtime.spawn_blocking(move || {
            let _turn = bounded.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
            bounded.0.wanted.store(false, Ordering::Release);
            if let Err(error) = bounded.trim_now() {
                tracing::error!(what = bounded.0.what, %error, "kept_directories_not_trimmed");
            }
        });
    }

    fn trim_now(&self) -> io::Result<()> {
        for removed in self.0.cache.trim()? {
            tracing::info!(what = self.0.what, name = removed.name, bytes = removed.bytes, "kept_directory_removed");
        }
        Ok(())
    }
}
