//! The model runner of a host: jobs and their supervisors, which outlive the agent's process.

use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase};
use windlass_protocol::{Cause, CauseKind, Digest, WallMs};

use super::random::Random;

/// What the agent's state directory and the supervisor know of an attempt.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which preparation this is: what was meant for an earlier one of the same attempt does not touch it.
    pub run: u64,
    /// As offered.
    pub job: Box<JobSpec>,
    /// The last right that was recorded.
    pub epoch: Epoch,
    /// Whether anything runs.
    pub process: Process,
    /// When its command started.
    pub started_at: Option<WallMs>,
    /// All bytes of its log; those below `spool_start` are dropped, and reading them is an error.
    pub spool: Vec<u8>,
    /// See `spool`.
    pub spool_start: u64,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// An exclusive one's, on the host's clock.
    pub deadline: Option<u64>,
    /// How it will end if nobody ends it.
    pub plan: Plan,
    /// Nothing ends it before this time of the run.
    pub stubborn_until: u64,
}

/// Whether anything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Workspace and image are made; the agent's own doing, so it ends with the agent.
    Preparing,
    /// The record of its start is durable; the command starts in a moment.
    Starting {
        /// On the host's clock: not at or after.
        before: u64,
    },
    /// The command runs.
    Running,
    /// Nothing runs.
    Gone,
}

/// How a job goes if nobody ends it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Time to prepare; `None` never ends.
    pub prepare_ms: Option<u64>,
    /// It cannot be prepared.
    pub prepare_fails: Option<CauseKind>,
    /// How long its command runs.
    pub run_ms: u64,
    /// Its status.
    pub exit_status: Option<i32>,
    /// Its signal.
    pub signal: Option<i32>,
    /// It is ended by its memory limit.
    pub cause: Option<CauseKind>,
    /// Pieces of output.
    pub outputs: u64,
    /// From a polite signal to its end; `None` ignores it.
    pub polite_ms: Option<u64>,
}

impl Plan {
    /// Some plan.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let prepare_fails = random.thousandth(30).then(|| {
            let kinds = [
                CauseKind::ImageMissing,
                CauseKind::ImagePullFailed,
                CauseKind::CheckoutFailed,
                CauseKind::SourceMissing,
                CauseKind::Internal,
                CauseKind::DiskFull,
            ];
            random.pick(&kinds).unwrap_or(CauseKind::Internal)
        });
        let (exit_status, signal, cause) = match random.below(20) {
            0 | 1 => (Some(1), None, None),
            2 => (Some(42), None, None),
            3 => (None, Some(11), None),
            4 => (None, Some(9), Some(CauseKind::OutOfMemory)),
            _ => (Some(0), None, None),
        };
        let run_ms = match random.below(10) {
            0 => random.between(0, 5),
            1 => random.between(30_000, 90_000),
            _ => random.between(200, 12_000),
        };
        Self {
            prepare_ms: (!random.thousandth(10)).then(|| random.between(1, 1_500)),
            prepare_fails,
            run_ms,
            exit_status,
            signal,
            cause,
            outputs: random.below(6),
            polite_ms: (!random.thousandth(300)).then(|| random.between(0, 4_000)),
        }
    }
}

impl Record {
    /// A new one, being prepared.
    #[must_use]
    pub const fn new(run: u64, job: Box<JobSpec>, epoch: Epoch, plan: Plan) -> Self {
        Self {
            run,
            job,
            epoch,
            process: Process::Preparing,
            started_at: None,
            spool: Vec::new(),
            spool_start: 0,
            outcome: None,
            deadline: None,
            plan,
            stubborn_until: 0,
        }
    }

    /// How far it came, by the record.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match (self.process, &self.outcome) {
            (_, Some(_)) => Phase::Finished,
            // What is gone without an outcome was killed, or ended with the agent that prepared it.
            (Process::Preparing | Process::Gone, None) => Phase::Preparing,
            (Process::Starting { .. } | Process::Running, None) => Phase::Running,
        }
    }

    /// Ends it so; nothing runs any more.
    pub fn end(&mut self, at: WallMs, exit_status: Option<i32>, signal: Option<i32>, cause: Option<Cause>) -> Outcome {
        self.process = Process::Gone;
        let outcome = Outcome {
            exit_status,
            signal,
            cause,
            started_at: self.started_at,
            finished_at: at,
            log_bytes: self.spool.len() as u64,
            log_digest: Digest::of(&self.spool),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        self.outcome = Some(outcome.clone());
        outcome
    }
}
