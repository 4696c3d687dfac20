//! What can happen to the core: everything that the shell hands in.

use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources};
use windlass_protocol::message::{CoordinatorMessage, Health};
use windlass_protocol::stock::{Fetched, Stocked};
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
    /// What the machine has of the large inputs of jobs, whole, and what it has brought.
    Stock {
        /// Each once.
        inputs: Vec<Stocked>,
        /// Since the program started.
        fetched: Fetched,
    },
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

/// What the core has to know of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What it takes.
    pub resources: Resources,
    /// Its processes end with its right.
    pub exclusive: bool,
    /// It may be stopped at any time.
    pub interruptible: bool,
    /// From its start.
    pub timeout_ms: Option<u64>,
    /// Between the polite signal and the kill.
    pub grace_ms: u64,
}

impl Terms {
    /// Of a job of which nothing is known any more: as much as there can be, and no mercy.
    pub(crate) const fn unknown(capacity: Resources) -> Self {
        Self { resources: capacity, exclusive: true, interruptible: true, timeout_ms: None, grace_ms: 0 }
    }
}

impl From<&JobSpec> for Terms {
    fn from(job: &JobSpec) -> Self {
        Self {
            resources: job.resources,
            exclusive: job.exclusive,
            interruptible: job.interruptible,
            timeout_ms: job.timeout_ms,
            grace_ms: job.grace_ms,
        }
    }
}

/// An attempt that a restarted agent found: in its own records, and with its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub attempt: AttemptId,
    /// As it was offered; `None` where that cannot be read any more. It is held as one that runs, and killed: nobody can
    /// follow it, and nobody else may be given it before its end is verified (I3).
    pub terms: Option<Terms>,
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
