//! What can happen to the core: everything that the shell hands in.

use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase};
use windlass_protocol::message::{CoordinatorMessage, Health};
use windlass_protocol::{AttemptId, Instant64, WallMs};

/// One connection to the coordinator: the shell's own number, never used twice while the core lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A connection with its control stream is open; answer to [`crate::Effect::Reconnect`].
    Connected {
        /// Its number.
        conn: ConnId,
    },
    /// A connection ended, or could not be made (then its number was never [`Input::Connected`]).
    ConnectionLost {
        /// Its number.
        conn: ConnId,
    },
    /// The coordinator said something on a connection.
    Message {
        /// Which connection; messages of one that is over are rejected.
        conn: ConnId,
        /// What.
        message: CoordinatorMessage,
    },
    /// Workspace, image and source of an attempt are ready; answer to [`crate::Effect::Prepare`].
    Prepared {
        /// Which.
        attempt: AttemptId,
    },
    /// Its command runs; answer to [`crate::Effect::Start`].
    Started {
        /// Which.
        attempt: AttemptId,
        /// When.
        at: WallMs,
    },
    /// It ended and its processes are gone: by itself, after [`crate::Effect::Cancel`], or because it could not be
    /// prepared or started (then the outcome has a cause and no start). The outcome is durable on the agent.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// What came of it; the cause of a cancel is added by the core.
        outcome: Box<Outcome>,
    },
    /// Its processes are verified gone; answer to [`crate::Effect::Kill`].
    RunnerGone {
        /// Which.
        attempt: AttemptId,
    },
    /// Log bytes of an attempt below this offset are durable in the agent's spool.
    SpoolAt {
        /// Which.
        attempt: AttemptId,
        /// The first byte that is not.
        end: u64,
    },
    /// The machine's owner speaks.
    Signal(Signal),
    /// How the machine does.
    HealthSample(Health),
    /// The certificate is at two thirds of its life; the shell has made a request for the same key.
    CertificateDue {
        /// PKCS #10, DER.
        csr: Vec<u8>,
    },
}

/// Signals that an agent listens to (F19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// SIGTERM: drain; again: cancel; again: end at once.
    Term,
    /// SIGINT: as SIGTERM.
    Int,
    /// SIGQUIT: end at once.
    Quit,
}

/// An attempt that a restarted agent found: in its own records, and with its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As it was offered.
    pub job: Box<JobSpec>,
    /// By the last right that was recorded.
    pub epoch: Epoch,
    /// `Preparing` if the record of its start was never made: then its command has not started and never will.
    pub phase: Phase,
    /// When its command started.
    pub started_at: Option<WallMs>,
    /// How it ended, if it has; its processes are gone then.
    pub outcome: Option<Outcome>,
    /// For an exclusive one, the deadline that its supervisor holds.
    pub deadline: Option<Instant64>,
    /// The spool's first byte: what is below is durable at the coordinator.
    pub spool_start: u64,
    /// The first byte that the spool does not have.
    pub spool_end: u64,
}
