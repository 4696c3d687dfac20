//! The thread that owns the store: one piece of work at a time, so that the next batch grows while this one syncs.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use windlass_coordinator_core::row::{Change, Rows};
use windlass_coordinator_store::{Expired, Fault, Retention, Seq, Space, Store, WriterEpoch};

/// Work for the store.
#[derive(Debug)]
pub(crate) enum Work {
    /// Make these durable.
    Commit(Vec<Change>),
    /// Read everything again, after a fault.
    Load,
    /// Delete a piece of what is past its retention.
    Expire(Retention),
    /// Look at the free space.
    Probe,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Of [`Work::Commit`]; the changes come back to be published.
    Committed { changes: Vec<Change>, result: Result<Seq, Fault>, took: Duration },
    /// Of [`Work::Load`].
    Loaded(Result<Box<Loaded>, Fault>),
    /// Of [`Work::Expire`].
    Expired(Result<Expired, Fault>),
    /// Of [`Work::Probe`].
    Probed,
}

/// Work that is done.
#[derive(Debug)]
pub(crate) struct Done {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// The room that is left after it.
    pub(crate) space: Space,
}

/// What the store held when it was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The rows.
    pub rows: Rows,
    /// The last commit among them.
    pub seq: Seq,
}

/// The store with the right to write to it.
#[derive(Debug)]
struct Owner {
    store: Box<dyn Store>,
    epoch: WriterEpoch,
}

impl Owner {
    fn load(&mut self) -> Result<Loaded, Fault> {
        Ok(Loaded { rows: self.store.load()?, seq: self.store.seq()? })
    }

    fn perform(&mut self, work: Work) -> Done {
        let outcome = match work {
            Work::Commit(changes) => {
                let begun = Instant::now();
                let result = self.store.commit(self.epoch, &changes);
                Outcome::Committed { changes, result, took: begun.elapsed() }
            }
            Work::Load => Outcome::Loaded(self.load().map(Box::new)),
            Work::Expire(retention) => Outcome::Expired(self.store.expire(self.epoch, retention)),
            Work::Probe => Outcome::Probed,
        };
        Done { outcome, space: self.store.space() }
    }
}

/// Performs work on a store, one piece at a time.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    busy: bool,
}

#[derive(Debug)]
enum Place {
    /// A thread of its own, which ends when its queue closes.
    Thread { queue: std::sync::mpsc::SyncSender<Work>, done: mpsc::Receiver<Done> },
    /// Here, at once: for simulations, which have one thread.
    Here { owner: Box<Owner>, done: Option<Done> },
}

impl Writer {
    /// Takes the store over and loads it; from then on it is written by a thread of its own.
    ///
    /// # Errors
    /// [`Fault`] of the store, or if no thread can be started.
    pub fn threaded(store: Box<dyn Store>) -> Result<(Self, Loaded), Fault> {
        let (mut owner, loaded) = claim(store)?;
        let (queue, work) = std::sync::mpsc::sync_channel::<Work>(1);
        let (finished, done) = mpsc::channel(1);
        let run = move || {
            while let Ok(work) = work.recv() {
                if finished.blocking_send(owner.perform(work)).is_err() {
                    break;
                }
            }
            // In this order: `close` waits for the second.
            drop(owner);
            drop(finished);
        };
        let spawned = std::thread::Builder::new().name("store-writer".to_owned()).spawn(run);
        spawned.map_err(|e| Fault::Io { doing: "start its thread", detail: e.to_string() })?;
        Ok((Self { place: Place::Thread { queue, done }, busy: false }, loaded))
    }

    /// The same without a thread: work is done when it is started.
    ///
    /// # Errors
    /// [`Fault`] of the store.
    pub fn inline(store: Box<dyn Store>) -> Result<(Self, Loaded), Fault> {
        let (owner, loaded) = claim(store)?;
        Ok((Self { place: Place::Here { owner: Box::new(owner), done: None }, busy: false }, loaded))
    }

    /// Closes the store: when this returns, another may open it.
    pub(crate) async fn close(self) {
        if let Place::Thread { queue, mut done } = self.place {
            drop(queue);
            while done.recv().await.is_some() {}
        }
    }

    /// Whether work can be started.
    pub(crate) const fn is_idle(&self) -> bool {
        !self.busy
    }

    /// Starts a piece of work. `false` if the thread is gone, which only a panic in the store can cause.
    #[must_use]
    pub(crate) fn start(&mut self, work: Work) -> bool {
        assert!(!self.busy, "one piece of work at a time");
        self.busy = true;
        match &mut self.place {
            Place::Thread { queue, .. } => queue.send(work).is_ok(),
            Place::Here { owner, done } => {
                *done = Some(owner.perform(work));
                true
            }
        }
    }

    /// Waits for the work that was started; for ever if there is none. `None` if the thread is gone. Nothing is lost if
    /// the wait is given up.
    pub(crate) async fn finished(&mut self) -> Option<Done> {
        if !self.busy {
            return std::future::pending().await;
        }
        let done = match &mut self.place {
            Place::Thread { done, .. } => done.recv().await,
            Place::Here { done, .. } => done.take(),
        };
        self.busy = false;
        done
    }
}

fn claim(mut store: Box<dyn Store>) -> Result<(Owner, Loaded), Fault> {
    let epoch = store.claim()?;
    let mut owner = Owner { store, epoch };
    let loaded = owner.load()?;
    Ok((owner, loaded))
}
