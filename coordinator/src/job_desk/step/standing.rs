//! How a step stands: the words of `step get state` and `step get outcome` (reference 16.1).

use windlass_coordinator_core::row::{JobRow, JobState};
use windlass_pipeline::graph::NodeKind;
use windlass_protocol::CauseKind;

/// What of a job its step's words follow from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// It has work of its own: it is no wait and no gate.
    works: bool,
    state: JobState,
    soft_failed: bool,
    cause: Option<CauseKind>,
    is_runnable: bool,
    has_started: bool,
}

impl From<&JobRow> for Standing {
    fn from(job: &JobRow) -> Self {
        Self {
            works: matches!(job.node.kind, NodeKind::Command(_) | NodeKind::Trigger(_)),
            state: job.state,
            soft_failed: job.soft_failed,
            cause: job.cause.as_ref().map(|cause| cause.kind),
            is_runnable: job.runnable_at.is_some(),
            has_started: job.started_at.is_some(),
        }
    }
}

impl Standing {
    const fn has_failed(self) -> bool {
        matches!(self.state, JobState::Failed | JobState::TimedOut | JobState::Canceled | JobState::Expired)
            && !self.soft_failed
    }

    /// It never ran, or was ended by what was around it and not by what it does.
    fn has_erred(self) -> bool {
        matches!(self.state, JobState::WaitingFailed | JobState::BlockedFailed)
            || (self.has_failed() && self.cause.is_some_and(is_infrastructure))
    }
}

/// Whether a job that ends by this cause was not ended by anything of its own.
const fn is_infrastructure(cause: CauseKind) -> bool {
    match cause {
        CauseKind::AgentLost
        | CauseKind::LeaseLost
        | CauseKind::AgentStopped
        | CauseKind::SpotNotice
        | CauseKind::DiskFull
        | CauseKind::Expired
        | CauseKind::ImageMissing
        | CauseKind::ImagePullFailed
        | CauseKind::CheckoutFailed
        | CauseKind::SourceMissing
        | CauseKind::ArtifactMissing
        | CauseKind::PluginFailed
        | CauseKind::SecretMissing
        | CauseKind::DependencyFailed
        | CauseKind::NoSuchQueue
        | CauseKind::RefusedByPolicy
        | CauseKind::Internal => true,
        CauseKind::OutOfMemory
        | CauseKind::Timeout
        | CauseKind::Canceled
        | CauseKind::Superseded
        | CauseKind::HookFailed => false,
    }
}

/// How far a step is.
pub(super) fn state(jobs: &[Standing]) -> &'static str {
    let all = |states: &[JobState]| jobs.iter().all(|job| states.contains(&job.state));
    let any = |is: fn(&Standing) -> bool| jobs.iter().any(is);
    if !any(|job| !job.state.is_final()) {
        return match () {
            () if all(&[JobState::Skipped, JobState::Broken]) => "ignored",
            () if all(&[JobState::Canceled]) => "canceled",
            () => "finished",
        };
    }
    match () {
        () if any(|job| job.has_failed()) => "failing",
        () if any(|job| job.state == JobState::Blocked) => "waiting_for_input",
        () if any(|job| job.has_started) => "running",
        () if any(|job| job.is_runnable) => "ready",
        () => "waiting_for_dependencies",
    }
}

/// How a step did; nothing before its end.
pub(super) fn outcome(jobs: &[Standing]) -> Option<&'static str> {
    let any = |is: fn(&Standing) -> bool| jobs.iter().any(is);
    if any(|job| !job.state.is_final()) {
        return None;
    }
    let idle = |job: &Standing| !job.works || matches!(job.state, JobState::Skipped | JobState::Broken);
    Some(match () {
        () if jobs.iter().all(idle) => "neutral",
        () if any(|job| job.has_failed() && !job.has_erred()) => "hard_failed",
        () if any(|job| job.has_erred()) => "errored",
        () if any(|job| job.soft_failed) => "soft_failed",
        () => "passed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: JobState) -> Standing {
        let has_started = !matches!(state, JobState::Waiting | JobState::Scheduled | JobState::Blocked);
        let is_runnable = has_started || state == JobState::Scheduled;
        Standing { works: true, state, soft_failed: false, cause: None, is_runnable, has_started }
    }

    fn by(state: JobState, cause: CauseKind) -> Standing {
        Standing { cause: Some(cause), ..job(state) }
    }

    fn gate(state: JobState) -> Standing {
        Standing { works: false, ..job(state) }
    }

    #[test]
    fn every_state_and_outcome_of_the_reference_is_told_where_it_is() {
        use JobState::*;
        let soft = || Standing { soft_failed: true, ..job(Failed) };
        let rows: [(&str, Option<&str>, Vec<Standing>); 24] = [
            ("ignored", Some("neutral"), vec![job(Broken)]),
            ("ignored", Some("neutral"), vec![job(Skipped), job(Broken)]),
            ("waiting_for_dependencies", None, vec![job(Waiting)]),
            ("ready", None, vec![job(Scheduled), job(Waiting)]),
            ("waiting_for_input", None, vec![gate(Blocked)]),
            ("running", None, vec![job(Running), job(Scheduled)]),
            ("running", None, vec![job(Passed), job(Scheduled)]),
            ("running", None, vec![soft(), job(Running)]),
            ("failing", None, vec![job(Failed), job(Running)]),
            ("failing", None, vec![job(Canceled), job(Running)]),
            ("canceled", Some("hard_failed"), vec![job(Canceled)]),
            ("finished", Some("hard_failed"), vec![job(Canceled), job(Passed)]),
            ("finished", Some("neutral"), vec![gate(Passed)]),
            ("finished", Some("neutral"), vec![gate(Unblocked)]),
            ("finished", Some("neutral"), vec![gate(BlockedFailed)]),
            ("finished", Some("passed"), vec![job(Passed), job(Skipped)]),
            ("finished", Some("soft_failed"), vec![soft(), job(Passed)]),
            ("finished", Some("hard_failed"), vec![soft(), job(Failed)]),
            ("finished", Some("hard_failed"), vec![by(TimedOut, CauseKind::Timeout)]),
            (
                "finished",
                Some("hard_failed"),
                vec![by(Failed, CauseKind::OutOfMemory), by(Failed, CauseKind::AgentLost)],
            ),
            ("finished", Some("errored"), vec![by(Failed, CauseKind::AgentLost), job(Passed)]),
            ("finished", Some("errored"), vec![by(Failed, CauseKind::ImagePullFailed)]),
            ("finished", Some("errored"), vec![by(Expired, CauseKind::Expired)]),
            ("finished", Some("errored"), vec![job(WaitingFailed)]),
        ];
        for (how_far, how, jobs) in &rows {
            assert_eq!((state(jobs), outcome(jobs)), (*how_far, *how), "{jobs:?}");
        }
    }
}
