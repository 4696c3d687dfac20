//! How far an attempt's log is written, and how far it is durable at the coordinator.

/// The offsets of one log: `acked <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spool {
    /// Below is durable at the coordinator.
    pub(crate) acked: u64,
    /// Below is durable in the spool.
    pub(crate) end: u64,
    /// A stream carries it on the current connection.
    pub(crate) sending: bool,
}

impl Spool {
    /// The spool grew; it never shrinks. Whether a stream should be opened now.
    pub(crate) fn grew(&mut self, end: u64) -> bool {
        self.end = self.end.max(end);
        !self.sending && self.end > self.acked
    }

    /// The coordinator's word: whether it moved.
    pub(crate) fn acked(&mut self, offset: u64) -> bool {
        let moved = offset > self.acked;
        self.acked = self.acked.max(offset);
        moved
    }

    /// Nothing is left to send.
    pub(crate) const fn flushed(&self) -> bool {
        self.acked >= self.end
    }
}
