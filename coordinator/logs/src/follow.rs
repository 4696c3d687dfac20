//! Watching a log grow: from memory while one keeps up, from the files where one does not.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use windlass_protocol::Digest;

use crate::error::Fault;
use crate::log::{Log, Phase, Piece};
use crate::read::{Source, fetch};
use crate::shared::Shared;

/// What a watcher of a log is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The log's next bytes; they may not be durable yet.
    Bytes(Piece),
    /// Bytes from this offset on that were seen before are taken back: they were lost before they were durable. The
    /// log goes on from here.
    Reset {
        /// The next byte's offset.
        offset: u64,
    },
    /// The log has ended here, and is durable; nothing follows.
    End {
        /// Its length.
        bytes: u64,
        /// Of its bytes.
        digest: Digest,
    },
}

/// Watches one log. However slowly it is asked, it holds up nobody.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    source: Source,
    changed: Option<watch::Receiver<u64>>,
    offset: u64,
    /// Read from a file, not handed out yet.
    pieces: VecDeque<Piece>,
}

/// What to do next.
enum Step {
    Tell(Event),
    /// Read the files, up to there.
    Read {
        end: u64,
    },
    /// It was sealed meanwhile.
    Reopen,
    /// Nothing is new.
    Wait,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, source: Source, offset: u64) -> Self {
        let mut changed = None;
        if let Source::Live(log) = &source {
            changed = Some(log.subscribe());
            log.lock().watchers += 1;
        }
        Self { shared, source, changed, offset, pieces: VecDeque::new() }
    }

    /// Of the next byte.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// What comes next; waits until there is something. After [`Event::End`] it says so again. Cancel-safe.
    ///
    /// # Errors
    /// [`Fault`] where the disk fails or is damaged, or the log was deleted.
    pub async fn next(&mut self) -> Result<Event, Fault> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                self.offset = piece.end();
                return Ok(Event::Bytes(piece));
            }
            if let Some(changed) = &mut self.changed {
                changed.mark_unchanged();
            }
            match self.step()? {
                Step::Tell(event) => return Ok(event),
                Step::Read { end } => {
                    let fetched = fetch(&self.shared, &self.source, self.offset, end).await?;
                    self.replace(fetched.0);
                    self.pieces = fetched.1;
                }
                Step::Reopen => {
                    let Source::Live(log) = &self.source else { return Err(Fault::Closing) };
                    let attempt = log.attempt;
                    let file = self.shared.blocking(move |shared| shared.open_sealed(attempt)).await?;
                    self.replace(Source::Sealed(Arc::new(file)));
                }
                Step::Wait => match &mut self.changed {
                    Some(changed) => changed.changed().await.map_err(|_| Fault::Closing)?,
                    None => return Err(Fault::Closing),
                },
            }
        }
    }

    fn replace(&mut self, source: Source) {
        if matches!((&self.source, &source), (Source::Live(_), Source::Sealed(_))) {
            self.unwatch();
            self.source = source;
        }
    }

    fn unwatch(&mut self) {
        if let Source::Live(log) = &self.source {
            let mut state = log.lock();
            state.watchers = state.watchers.saturating_sub(1);
            state.trim(self.shared.options.ring_bytes);
        }
    }

    fn step(&mut self) -> Result<Step, Fault> {
        match &self.source {
            Source::Live(log) => {
                let (step, offset) = step_live(log, self.offset)?;
                self.offset = offset;
                Ok(step)
            }
            Source::Sealed(file) => {
                if self.offset > file.bytes {
                    self.offset = file.bytes;
                    return Ok(Step::Tell(Event::Reset { offset: file.bytes }));
                }
                if self.offset < file.bytes {
                    return Ok(Step::Read { end: file.bytes });
                }
                Ok(Step::Tell(Event::End { bytes: file.bytes, digest: file.digest }))
            }
        }
    }
}

/// What a log in memory has for a watcher at `offset`, and where the watcher is after that.
fn step_live(log: &Arc<Log>, offset: u64) -> Result<(Step, u64), Fault> {
    let state = log.lock();
    let ended = match state.phase {
        Phase::Open => false,
        Phase::Ended { durable } => durable,
        Phase::Sealed => return Ok((Step::Reopen, offset)),
        Phase::Deleted => return Err(Fault::Unknown { attempt: log.attempt }),
    };
    if offset > state.end {
        return Ok((Step::Tell(Event::Reset { offset: state.durable }), state.durable));
    }
    if let Some(piece) = state.recent(offset) {
        let end = piece.end();
        return Ok((Step::Tell(Event::Bytes(piece)), end));
    }
    if offset < state.durable {
        return Ok((Step::Read { end: state.durable }, offset));
    }
    if let Some(digest) = state.digest.filter(|_| ended && offset == state.end) {
        return Ok((Step::Tell(Event::End { bytes: state.end, digest }), offset));
    }
    Ok((Step::Wait, offset))
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.unwatch();
        if let Source::Live(log) = &self.source {
            // A log that nobody wrote to is forgotten with its last watcher.
            self.shared.catalog().prune(log);
        }
    }
}
