//! What an input comes to for whole builds: dependencies, slots of groups, builds in which nothing can run any more.

use windlass_pipeline::graph::{BlockedState, NodeKind};
use windlass_protocol::{BuildId, CauseKind, JobId};

use crate::gate::gate_of;
use crate::row::{BuildState, JobState};
use crate::state::Core;

impl Core {
    /// Follows every consequence until there are no more.
    pub(crate) fn settle(&mut self) {
        loop {
            self.settle_dependencies();
            self.give_slots();
            self.settle_reuse();
            let touched: Vec<BuildId> = self.book.touched.iter().copied().collect();
            let mut moved = false;
            for build in touched {
                moved |= self.settle_build(build);
            }
            if !moved && self.ripple.is_empty() && !self.slots_are_due() && !self.reuse.is_due() {
                break;
            }
        }
    }

    /// What follows for a build from all its jobs together; whether something did.
    fn settle_build(&mut self, id: BuildId) -> bool {
        let Some(build) = self.builds.get(&id) else { return false };
        if build.row.cancel_requested {
            return false;
        }
        let state = build.tally.state(&build.row);
        let turns = matches!(build.row.state, BuildState::Creating | BuildState::Scheduled | BuildState::Running);
        if state == BuildState::Failing && turns && self.cancel_on_failing(id) {
            return true;
        }
        let tally = self.builds[&id].tally;
        match (tally.is_stuck(), tally.blocked, tally.hard) {
            (false, ..) | (true, 1.., 0) => false,
            (true, 1.., 1..) => self.give_up_gates(id),
            (true, 0, _) => self.give_up_unresolved(id),
        }
    }

    /// The build turns failing: steps that ask for it are canceled (reference 10.6).
    fn cancel_on_failing(&mut self, id: BuildId) -> bool {
        let asks = |job: &JobId| {
            let row = &self.jobs[job].row;
            let ending = row.state.is_final() || matches!(row.state, JobState::Canceling | JobState::TimingOut);
            !ending && self.command(*job).is_some_and(|command| command.cancel_on_build_failing)
        };
        let jobs: Vec<JobId> = self.builds[&id].jobs.iter().filter(|job| asks(job)).copied().collect();
        let mut moved = false;
        for job in jobs {
            let before = self.jobs[&job].row.state;
            let cause = Self::cause(CauseKind::Canceled, "the build is failing, and the step ends with that");
            self.cancel_job(job, cause, None);
            moved |= self.jobs[&job].row.state != before;
        }
        moved
    }

    /// Nothing else can run, and the build has failed: its gates are not to be opened (reference 16.3).
    fn give_up_gates(&mut self, id: BuildId) -> bool {
        let blocked = |job: &JobId| self.jobs[job].row.state == JobState::Blocked;
        let jobs: Vec<JobId> = self.builds[&id].jobs.iter().filter(|job| blocked(job)).copied().collect();
        for job in &jobs {
            self.set_state(*job, JobState::BlockedFailed);
        }
        !jobs.is_empty()
    }

    /// Nothing else can run, so that no upload will bring the keys that are waited for (reference 6.2).
    fn give_up_unresolved(&mut self, id: BuildId) -> bool {
        let waits = |job: &JobId| {
            let row = &self.jobs[job].row;
            row.state == JobState::Waiting && !row.node.unresolved.is_empty()
        };
        let jobs: Vec<JobId> = self.builds[&id].jobs.iter().filter(|job| waits(job)).copied().collect();
        for job in &jobs {
            let keys = self.jobs[job].row.node.unresolved.iter().map(|it| format!("`{}`", it.key));
            let keys = keys.collect::<Vec<_>>().join(", ");
            let cause = Self::cause(CauseKind::DependencyFailed, &format!("no step has the key {keys}"));
            self.fail_waiting(*job);
            self.change_job(*job, |row| row.cause = Some(cause));
        }
        !jobs.is_empty()
    }

    /// What a build's state is shown as because nothing of it can run until somebody opens a gate: what the first of its
    /// gates that wait says.
    pub(crate) fn blocked_state(&self, id: BuildId) -> Option<BlockedState> {
        let build = self.builds.get(&id)?;
        let waits = build.tally.is_stuck() && build.tally.blocked > 0 && build.tally.hard == 0;
        if !waits || build.row.cancel_requested {
            return None;
        }
        let mut jobs = build.jobs.iter().map(|job| &self.jobs[job].row);
        let first = jobs.find(|row| row.state == JobState::Blocked)?;
        gate_of(&first.node.kind).map(|gate| gate.blocked_state)
    }

    /// Gates and unknown keys were given up because nothing could run; something is run again.
    pub(crate) fn take_up_again(&mut self, id: BuildId) {
        self.mark_gates(id, BuildState::Running);
        for job in self.builds[&id].jobs.clone() {
            let row = &self.jobs[&job].row;
            let gate = matches!(row.node.kind, NodeKind::Block(_) | NodeKind::Input(_));
            let unresolved = row.state == JobState::WaitingFailed && !row.node.unresolved.is_empty();
            if unresolved || (gate && row.state == JobState::BlockedFailed) {
                self.reconsider(job);
            }
        }
    }
}
