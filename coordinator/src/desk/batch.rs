//! What the next commit holds, and what may be said once it is durable.

use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Effect;
use windlass_coordinator_core::input::{ConnId, ReplyTo};
use windlass_coordinator_core::row::Change;
use windlass_protocol::{AgentId, limits};

/// Something to say. What is refused may be refused because of a change that is not yet durable, so it waits, too.
#[derive(Debug)]
pub(super) enum Release {
    /// Of the core; never a change.
    Effect(Effect),
    /// To a client.
    Refuse(ReplyTo, Rejected),
    /// To an agent.
    RejectAgent(AgentId, ConnId, Rejected),
}

/// Changes that wait for the writer, and everything said after them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    /// Said before the first change of this batch: waits for the commit under way only.
    early: Vec<Release>,
    /// Said after the first change: waits for this batch's commit.
    releases: Vec<Release>,
    /// Retention was served since the last commit was started.
    just_expired: bool,
}

/// Half of what a commit may hold: whatever one more input adds fits into the rest.
const CHANGES_MAX: usize = limits::COMMIT_MAX_CHANGES / 2;

impl Batch {
    /// Takes a change.
    pub(super) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Takes something to say; gives it back if it may be said at once.
    pub(super) fn say(&mut self, release: Release, committing: bool) -> Option<Release> {
        if !self.changes.is_empty() {
            self.releases.push(release);
        } else if committing {
            self.early.push(release);
        } else {
            return Some(release);
        }
        None
    }

    /// Whether the next input has to wait for the writer.
    pub(super) const fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES_MAX || self.early.len() + self.releases.len() >= limits::BATCH_MAX_HELD
    }

    /// Whether there is something to commit.
    pub(super) const fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether a piece of retention may go before the next commit.
    pub(super) const fn may_expire(&self) -> bool {
        !self.just_expired || self.changes.is_empty()
    }

    /// A piece of retention was served.
    pub(super) const fn expired(&mut self) {
        self.just_expired = true;
    }

    /// Everything for a commit. What was said before its first change has been released by now.
    pub(super) fn take(&mut self) -> (Vec<Change>, Vec<Release>) {
        assert!(self.early.is_empty(), "what precedes a batch is said before it is committed");
        let batch = std::mem::take(self);
        (batch.changes, batch.releases)
    }

    /// What waited for the commit that is done now.
    pub(super) fn take_early(&mut self) -> Vec<Release> {
        std::mem::take(&mut self.early)
    }

    /// Forgets everything, unsaid.
    pub(super) fn discard(&mut self) {
        *self = Self::default();
    }
}
