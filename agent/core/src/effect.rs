//! What the core wants done, in this order.

use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::message::{AgentMessage, RefuseCode};
use windlass_protocol::{AttemptId, Cause, Instant64};

use crate::input::ConnId;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Say it on the control stream of this connection; if that is over, drop it.
    Say {
        /// The connection.
        conn: ConnId,
        /// The message.
        message: Box<AgentMessage>,
    },
    /// Record the job durably, then make workspace, image and source ready; answer with [`crate::Input::Prepared`], or
    /// [`crate::Input::Ended`] with a cause.
    Prepare {
        /// From 0; no two attempts that may have processes share one.
        slot: u32,
        /// By which right.
        epoch: Epoch,
        /// The job.
        job: Box<JobSpec>,
    },
    /// Record durably that it starts, *then* start its command (so that a restarted agent never takes a started one for
    /// one that was not), but not at or after `start_before`; answer with [`crate::Input::Started`].
    Start {
        /// Which.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// The right ends then: what has not started by then is not started. For an exclusive attempt it is also the
        /// first deadline of its supervisor.
        start_before: Instant64,
    },
    /// Record that an attempt is held by a newer right.
    Adopt {
        /// Which.
        attempt: AttemptId,
        /// The right from now on.
        epoch: Epoch,
    },
    /// End it: the polite signal, after `grace_ms` the kill; verify; then [`crate::Input::Ended`]. A repetition
    /// shortens the grace.
    Cancel {
        /// Which.
        attempt: AttemptId,
        /// Why.
        cause: Cause,
        /// From now to the kill.
        grace_ms: u64,
    },
    /// Record durably that it ends without a result (a restarted agent finds it with an outcome whose cause is
    /// `lease_lost`), end it at once, verify, then [`crate::Input::RunnerGone`]. A repetition asks to try again.
    Kill {
        /// Which.
        attempt: AttemptId,
    },
    /// An exclusive attempt's supervisor ends it at this time, unless it is told a later one.
    RenewLease {
        /// Which.
        attempt: AttemptId,
        /// On the agent's own clock.
        deadline: Instant64,
    },
    /// Send its log on a new stream of this connection: what the spool has from this offset, and what comes, never
    /// more than the limit in flight beyond what was acknowledged.
    SendLog {
        /// The connection.
        conn: ConnId,
        /// Which.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// The first byte.
        from_offset: u64,
    },
    /// End the stream of its log.
    StopLog {
        /// Which.
        attempt: AttemptId,
    },
    /// Bytes below are durable at the coordinator: the spool may drop them.
    TrimLog {
        /// Which.
        attempt: AttemptId,
        /// The first byte that must stay.
        below: u64,
    },
    /// Drop its records, spool and workspace. Nothing of it runs.
    ForgetAttempt {
        /// Which.
        attempt: AttemptId,
    },
    /// Use this certificate from the next connection on.
    InstallCertificate {
        /// The agent's certificate, then its issuer's; X.509, DER.
        chain: Vec<Vec<u8>>,
    },
    /// End the connection, if there is one; after a pause dial again; answer with [`crate::Input::Connected`] or
    /// [`crate::Input::ConnectionLost`]. A repetition replaces the one before.
    Reconnect {
        /// The pause.
        after_ms: u64,
        /// The certificate is past its time: renew it first, which is all that it still allows.
        renew_first: bool,
    },
    /// End the process. Nothing follows.
    Leave {
        /// Why.
        exit: Exit,
    },
}

/// Why an agent's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// It finished what it had, all of it is committed (exit code 0).
    Drained,
    /// It was told to end at once; what it could not hand in waits in its state directory.
    Quit,
    /// The coordinator will never serve it (F8: a code of its own, so that no supervisor restarts it for ever).
    Refused(RefuseCode),
}
