//! Uploads that are gone on with after their connections broke: one connection at a time sends bytes of each, the last that
//! came; and those that nobody comes back for go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use windlass_cache::{About, Fault, Partial, PartialError, PartialState, Partials, Store};
use windlass_protocol::host::now;
use windlass_protocol::limits::{RETENTION_EVERY_MS, UPLOAD_HANDOVER_MS};

use crate::leap::Leaps;

/// The uploads of the coordinator's store; clones share them.
#[derive(Debug, Clone)]
pub struct Uploads {
    partials: Partials,
    lines: Arc<Mutex<HashMap<String, Arc<Line>>>>,
}

/// Who wants to send bytes of one upload.
#[derive(Debug, Default)]
struct Line {
    /// How many came; whoever is not the last makes room.
    came: watch::Sender<u64>,
    seat: Arc<tokio::sync::Mutex<()>>,
}

/// The right of one connection to send bytes of an upload, until another one wants it.
#[derive(Debug)]
pub(crate) struct Turn {
    came: watch::Receiver<u64>,
    mine: u64,
    _seat: OwnedMutexGuard<()>,
}

impl Turn {
    /// Returns when another connection wants to go on with the upload.
    pub(crate) async fn over(&mut self) {
        let mine = self.mine;
        // An end of the sender is an end of the line: nobody else comes.
        if self.came.wait_for(|came| *came != mine).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Uploads {
    /// Finds what earlier processes left.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(store: &Store) -> Result<Self, Fault> {
        Ok(Self { partials: Partials::open(store, now().wall)?, lines: Arc::default() })
    }

    /// The uploads themselves.
    #[must_use]
    pub const fn partials(&self) -> &Partials {
        &self.partials
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<String, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Partials::begin`], away from the executor.
    pub(crate) async fn begin(&self, about: About) -> Result<PartialState, PartialError> {
        let partials = self.partials.clone();
        blocking(move || partials.begin(about, now().wall)).await
    }

    /// Takes an upload from whoever sends bytes of it, and with it the right to send more, in room that is kept for all that is
    /// to come; nothing where its owner has none of this name.
    pub(crate) async fn take(&self, owner: &str, id: &str) -> Result<Option<(Turn, Partial)>, PartialError> {
        let Some((turn, partial)) = self.look(owner, id).await? else { return Ok(None) };
        let partials = self.partials.clone();
        Ok(Some((turn, blocking(move || partials.with_room(partial)).await?)))
    }

    /// As [`Self::take`], without room: for who sends nothing.
    pub(crate) async fn look(&self, owner: &str, id: &str) -> Result<Option<(Turn, Partial)>, PartialError> {
        if self.partials.state(owner, id).is_none() {
            return Ok(None);
        }
        let line = Arc::clone(self.lines().entry(id.to_owned()).or_default());
        let mut mine = 0;
        line.came.send_modify(|came| {
            *came += 1;
            mine = *came;
        });
        let came = line.came.subscribe();
        let waiting = Arc::clone(&line.seat).lock_owned();
        let seat = tokio::time::timeout(Duration::from_millis(UPLOAD_HANDOVER_MS), waiting).await;
        let turn = Turn { came, mine, _seat: seat.map_err(|_| PartialError::Busy)? };
        let (partials, owner, id) = (self.partials.clone(), owner.to_owned(), id.to_owned());
        let taken = blocking(move || partials.take_roomless(&owner, &id, now().wall)).await?;
        Ok(taken.map(|partial| (turn, partial)))
    }

    /// Removes uploads that nobody came back for, again and again, until `stop` turns true.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut leaps = Leaps::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(RETENTION_EVERY_MS)) => {}
                () = crate::http::stopped(&mut stop) => return,
            }
            let (now, partials) = (now(), self.partials.clone());
            if !leaps.look(now) {
                continue;
            }
            match tokio::task::spawn_blocking(move || partials.expire(now.wall)).await {
                Ok(0) => {}
                Ok(uploads) => tracing::info!(uploads, "uploads_expired"),
                Err(error) => tracing::warn!(%error, "uploads_not_looked_at"),
            }
            self.lines().retain(|id, line| Arc::strong_count(line) > 1 || self.partials.exists(id));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PartialError> + Send + 'static,
) -> Result<T, PartialError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Fault::Lost { doing: "an upload" }.into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use windlass_cache::vfs::recorded::RecordingFs;
    use windlass_cache::{Error, StoreOptions};
    use windlass_protocol::{Digest, Namespace};

    use super::*;

    #[tokio::test]
    async fn on_a_full_disk_an_upload_is_looked_at_and_given_up_and_nobody_elses_goes_for_that() {
        let fs = RecordingFs::new();
        fs.set_capacity(Some(16 << 20));
        let store = Store::open(Arc::new(fs), Path::new("/s"), StoreOptions::default()).unwrap();
        let uploads = Uploads::open(&store).unwrap();
        let about = |owner: &str, bytes| {
            let (owner, namespace) = (owner.to_owned(), Namespace::trusted("p"));
            About { digest: Digest::of(owner.as_bytes()), owner, namespace, bytes }
        };
        let theirs = uploads.begin(about("them", 4 << 20)).await.unwrap();
        let (turn, mut partial) = uploads.take("them", &theirs.id).await.unwrap().unwrap();
        let piece = vec![7; 3 << 20];
        let partial = tokio::task::spawn_blocking(move || {
            partial.write(&piece, now().wall).unwrap();
            partial
        });
        drop((turn, partial.await.unwrap()));
        let huge = uploads.begin(about("me", 1 << 30)).await.unwrap();
        let refused = uploads.take("me", &huge.id).await.map(drop);
        assert!(matches!(refused, Err(PartialError::Store(Error::Fault(Fault::NoSpace { .. })))), "{refused:?}");
        let (turn, partial) = uploads.look("me", &huge.id).await.unwrap().unwrap();
        assert_eq!(partial.offset(), 0);
        partial.give_up();
        drop(turn);
        assert_eq!(uploads.partials().waiting(), (1, 3 << 20));
    }
}
