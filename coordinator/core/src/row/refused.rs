//! Why what somebody asks of a job is refused.

/// Why a job cannot be retried or canceled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefused {
    /// It has not ended.
    #[error("it has not ended")]
    NotEnded,
    /// It has ended.
    #[error("it has already ended")]
    Ended,
    /// Its step does not allow it.
    #[error("its step does not allow a retry{}", .reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    NotAllowed {
        /// As the step says.
        reason: Option<String>,
    },
    /// It is no command.
    #[error("only command and trigger steps can be retried")]
    NotACommand,
    /// It is no gate.
    #[error("only block and input steps can be unblocked")]
    NotAGate,
    /// What it depends on is not done.
    #[error("it is not reached yet: what it depends on is not done")]
    NotReached,
    /// Somebody was there before.
    #[error("it was unblocked already, by {by}")]
    Unblocked {
        /// Who.
        by: String,
    },
    /// The gate is for others.
    #[error("only {} may unblock it", .teams.join(", "))]
    NotAllowedHere {
        /// Who may.
        teams: Vec<String>,
    },
    /// Its build was canceled.
    #[error("its build was canceled")]
    BuildCanceled,
    /// It has had all attempts that a job may have.
    #[error("it has had all the attempts that a job may have")]
    TooManyAttempts,
}
