//! One watcher of one build: from the store until it has caught up, from memory then, and from the store again if it
//! was too slow.

use std::collections::VecDeque;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use windlass_coordinator_core::effect::Progress;
use windlass_coordinator_store::{EventSeq, StoredEvent};
use windlass_protocol::BuildId;

use super::{ReadError, Reader};

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It happened, durably.
    Event(StoredEvent),
    /// Volatile: it has no number, and may be taken back.
    Progress(Progress),
    /// Volatile progress was forgotten, or notices were missed: read the build again. Events are complete all the same.
    Reset,
}

/// Follows a build. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    reader: Reader,
    build: BuildId,
    /// The last event that was given.
    last: EventSeq,
    receiver: broadcast::Receiver<Notice>,
    /// Read from the store, not yet given.
    stored: VecDeque<StoredEvent>,
    /// There may be events in the store that never came, or will not come, through the receiver.
    behind: bool,
}

impl Watch {
    pub(super) fn new(reader: Reader, build: BuildId, after: EventSeq, receiver: broadcast::Receiver<Notice>) -> Self {
        Self { reader, build, last: after, receiver, stored: VecDeque::new(), behind: true }
    }

    /// The number to resume after.
    #[must_use]
    pub const fn last(&self) -> EventSeq {
        self.last
    }

    /// The next notice; waits for ever where nothing happens. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// [`ReadError`] if the store cannot be read; asking again goes on where this stopped.
    pub async fn next(&mut self) -> Result<Notice, ReadError> {
        loop {
            if let Some(event) = self.stored.pop_front() {
                self.last = event.seq;
                return Ok(Notice::Event(event));
            }
            if self.behind {
                self.stored = self.reader.events_since(self.build, self.last).await?.into();
                self.behind = !self.stored.is_empty();
                continue;
            }
            match self.receiver.recv().await {
                // Seen already: it was read from the store.
                Ok(Notice::Event(event)) if event.seq <= self.last => {}
                Ok(Notice::Event(event)) => {
                    self.last = event.seq;
                    return Ok(Notice::Event(event));
                }
                Ok(notice @ Notice::Progress(_)) => return Ok(notice),
                Ok(Notice::Reset) | Err(RecvError::Lagged(_)) => {
                    self.behind = true;
                    return Ok(Notice::Reset);
                }
                // The sender lives as long as this receiver does; if it went all the same, the store has the rest.
                Err(RecvError::Closed) => {
                    self.receiver = self.reader.views().subscribe(self.build).1;
                    self.behind = true;
                }
            }
        }
    }
}
