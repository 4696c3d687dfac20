//! Step reuse: who is asked for its key, who runs, who waits for whom, and whose result is used again (docs/design/030).
//!
//! A job that is ready is asked for its key before it is queued ([`Effect::Key`], [`Input::Keyed`]); it is `scheduled`
//! meanwhile, and stands in no line. With a key it ends at once if there is an entry that its namespace reads. Else it stands
//! in its line, until a job of the same namespace and key is leased: then it waits for that one, outside of every line. When
//! that one has ended, in whatever way, all that waited are looked at again: there is an entry, or they are back in their
//! lines, and the first of them that is leased is the one that the others wait for. So nobody inherits a failure, and nobody
//! waits for a job that no agent takes.
//!
//! | module | owns |
//! | --- | --- |
//! | `ask` | the question for a key |
//! | `entry` | entries, their bounds, and those that went |
//! | `held` | entries that pins of builds hold |
//! | `hit` | a job that ends with an earlier result |
//! | `judge` | what an attempt makes of its result: an entry, or why not |
//! | `turn` | whose question comes next |
//! | `host` | what agents say of their machines |
//!
//! [`Effect::Key`]: crate::effect::Effect::Key
//! [`Input::Keyed`]: crate::input::Input::Keyed

mod ask;
mod entry;
mod held;
mod hit;
mod host;
mod judge;
mod turn;

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{Digest, JobId};

use self::turn::Questions;
use crate::error::Rejected;
use crate::row::{Followed, JobReuse, JobRow, JobState, KeyedJob, ReuseGone, ReuseName, ReuseRequest, ReuseRow, Role};
use crate::state::Core;
use crate::timer::Timer;

/// Entries, and the jobs that have keys or ask for them.
#[derive(Debug, Default)]
pub(crate) struct Reuses {
    /// Results that may be used again.
    pub(crate) entries: BTreeMap<ReuseName, ReuseRow>,
    /// Those that went.
    pub(crate) gone: BTreeMap<ReuseName, ReuseGone>,
    /// What the entries of each namespace come to; kept in step with them.
    sums: entry::Sums,
    /// Which of them pins hold.
    held: held::Held,
    /// Ready and leased jobs by their keys.
    runs: BTreeMap<ReuseName, Runs>,
    /// Keys whose jobs are to be looked at again.
    due: BTreeSet<ReuseName>,
    /// Questions that the shell has, and those that wait for their turn.
    questions: Questions,
}

/// The jobs of one key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Runs {
    /// The leased one that the others wait for.
    leader: Option<JobId>,
    /// Those that are ready.
    ready: BTreeSet<JobId>,
}

impl Reuses {
    pub(crate) fn new(entries: BTreeMap<ReuseName, ReuseRow>, gone: BTreeMap<ReuseName, ReuseGone>) -> Self {
        let sums = entry::Sums::of(entries.values());
        Self { entries, gone, sums, ..Self::default() }
    }

    /// Whether jobs are to be looked at again.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }
}

/// Where a job's state puts it among those of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It could be leased.
    Ready,
    /// It is leased.
    Runs,
    /// What it depends on is done again: it may get other inputs.
    Undone,
    /// Nowhere.
    Away,
}

impl Standing {
    const fn of(state: JobState) -> Self {
        match state {
            JobState::Scheduled => Self::Ready,
            JobState::Assigned => Self::Runs,
            JobState::Waiting | JobState::WaitingFailed => Self::Undone,
            JobState::Pending
            | JobState::Blocked
            | JobState::BlockedFailed
            | JobState::Unblocked
            | JobState::UnblockedFailed
            | JobState::Limiting
            | JobState::Limited
            | JobState::Accepted
            | JobState::Running
            | JobState::Passed
            | JobState::Failed
            | JobState::Canceling
            | JobState::Canceled
            | JobState::TimingOut
            | JobState::TimedOut
            | JobState::Skipped
            | JobState::Broken
            | JobState::Expired => Self::Away,
        }
    }
}

/// A job that waits for its key, or for another one with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For its key.
    Key,
    /// For the result of this job.
    Leader(JobId),
}

/// The key of a job that may wait for another one, or be waited for.
fn runs_as(row: &JobRow) -> Option<&KeyedJob> {
    row.reuse.as_ref().and_then(JobReuse::keyed).filter(|keyed| keyed.role == Role::Runs)
}

impl Core {
    /// Under which name a job's result stands, if it has a key.
    pub(crate) fn name_of(&self, row: &JobRow, key: Digest) -> Option<ReuseName> {
        let namespace = self.builds.get(&row.build)?.row.namespace.clone();
        Some(ReuseName { namespace, key })
    }

    fn runs_name(&self, row: &JobRow) -> Option<ReuseName> {
        runs_as(row).and_then(|keyed| self.name_of(row, keyed.keyed.key))
    }

    pub(crate) fn on_reuse(&mut self, request: &ReuseRequest) -> Result<(), Rejected> {
        match request {
            ReuseRequest::Forget { unused_since } => self.forget_entries(*unused_since),
            ReuseRequest::Spoil { attempt, epoch, why } => {
                self.held(*attempt, Some(*epoch))?;
                self.spoil(*attempt, why);
            }
            ReuseRequest::Adopt(row) => self.adopt_entry(row)?,
            ReuseRequest::Use(name) => self.touch_entry(name),
        }
        Ok(())
    }

    /// What a ready job waits for before it may stand in its line, if anything.
    pub(crate) fn hold_of(&self, id: JobId) -> Option<Hold> {
        if self.reuse.questions.has(id) {
            return Some(Hold::Key);
        }
        let row = &self.jobs.get(&id)?.row;
        let leader = self.reuse.runs.get(&self.runs_name(row)?)?.leader?;
        (leader != id).then_some(Hold::Leader(leader))
    }

    /// A ready job is to stand in its line: whether it does not, because its key is to be found out first, because another
    /// job runs with the same key, or because it has ended right now with an earlier result.
    pub(crate) fn is_held_by_key(&mut self, id: JobId) -> bool {
        let Some(row) = self.jobs.get(&id).map(|job| &job.row) else { return false };
        let wishes = self.command(id).is_some_and(|command| command.reuse.is_some());
        if !wishes || row.state != JobState::Scheduled {
            return false;
        }
        if row.reuse.is_none() {
            self.ask(id);
            return true;
        }
        if self.use_again(id) {
            return true;
        }
        match self.hold_of(id) {
            Some(Hold::Leader(leader)) => {
                self.follow(id, Some(leader));
                true
            }
            Some(Hold::Key) => true,
            None => false,
        }
    }

    /// Writes down for whose result a job waits, if for anybody's.
    fn follow(&mut self, id: JobId, leader: Option<JobId>) {
        let followed = leader.and_then(|leader| {
            let row = &self.jobs.get(&leader)?.row;
            let number = self.builds.get(&row.build)?.row.number;
            let step = row.node.label.clone();
            Some(Box::new(Followed { build: row.build, number, job: row.id, step }))
        });
        let known = self.jobs.get(&id).and_then(|job| job.row.reuse.as_ref()?.keyed()).map(|keyed| &keyed.follows);
        if known.is_none_or(|known| *known == followed) {
            return;
        }
        if let Some(JobReuse::Keyed(keyed)) = &mut self.edit_job(id).reuse {
            keyed.follows = followed;
        }
    }

    /// A job's state has changed: it takes its place among those of its key, or leaves it.
    pub(crate) fn move_key(&mut self, id: JobId, from: JobState, to: JobState) {
        if from == JobState::Scheduled {
            // Leased too, where an agent that was believed lost comes back with it.
            self.stop_asking(id);
        }
        let Some(row) = self.jobs.get(&id).map(|job| &job.row) else { return };
        let Some(name) = self.runs_name(row) else { return };
        match Standing::of(from) {
            Standing::Ready => self.leave(&name, id),
            Standing::Runs => self.step_down(&name, id),
            Standing::Undone | Standing::Away => {}
        }
        match Standing::of(to) {
            Standing::Ready => {
                self.reuse.runs.entry(name).or_default().ready.insert(id);
            }
            Standing::Runs => {
                self.lead(name, id);
                self.follow(id, None);
            }
            Standing::Undone => self.edit_job(id).reuse = None,
            Standing::Away => {}
        }
    }

    /// It is leased: whoever has the same key and is not, leaves its line.
    fn lead(&mut self, name: ReuseName, id: JobId) {
        let runs = self.reuse.runs.entry(name).or_default();
        // One that was believed lost and came back runs beside the one that took its place.
        if runs.leader.is_some() {
            return;
        }
        runs.leader = Some(id);
        if self.policy.bugs.follow_nobody {
            return;
        }
        for other in runs.ready.clone() {
            self.dequeue(other);
            self.follow(other, Some(id));
        }
    }

    fn step_down(&mut self, name: &ReuseName, id: JobId) {
        let Some(runs) = self.reuse.runs.get_mut(name) else { return };
        if runs.leader == Some(id) {
            runs.leader = None;
            self.reuse.due.insert(name.clone());
        }
        self.clear_runs(name);
    }

    fn leave(&mut self, name: &ReuseName, id: JobId) {
        if let Some(runs) = self.reuse.runs.get_mut(name) {
            runs.ready.remove(&id);
        }
        self.clear_runs(name);
    }

    fn clear_runs(&mut self, name: &ReuseName) {
        if self.reuse.runs.get(name).is_some_and(|runs| *runs == Runs::default()) {
            self.reuse.runs.remove(name);
        }
    }

    /// Looks at the jobs of keys again of which somebody has ended, or an entry was written.
    pub(crate) fn settle_reuse(&mut self) {
        while let Some(name) = self.reuse.due.pop_first() {
            let ready = self.reuse.runs.get(&name).map(|runs| runs.ready.clone()).unwrap_or_default();
            for id in ready {
                let waits = self.jobs.get(&id).is_some_and(|job| job.row.state == JobState::Scheduled);
                if waits && !self.use_again(id) {
                    self.follow(id, self.reuse.runs.get(&name).and_then(|runs| runs.leader));
                    self.enqueue(id);
                }
            }
        }
    }

    /// Takes a job of a build that came into memory to where its rows say it stands. Writes nothing.
    pub(crate) fn restore_key(&mut self, id: JobId) {
        let Some(row) = self.jobs.get(&id).map(|job| &job.row) else { return };
        let (state, Some(name)) = (row.state, self.runs_name(row)) else { return };
        match Standing::of(state) {
            Standing::Ready => {
                self.reuse.runs.entry(name).or_default().ready.insert(id);
            }
            Standing::Runs => self.lead(name, id),
            Standing::Undone | Standing::Away => {}
        }
    }

    /// That what is kept of keys agrees with the jobs, and the entries with their bounds.
    pub(crate) fn check_reuse(&self) -> Result<(), (&'static str, String)> {
        let broken = |invariant, detail| Err((invariant, detail));
        let mut runs: BTreeMap<ReuseName, Runs> = BTreeMap::new();
        for (id, job) in &self.jobs {
            let Some(name) = self.runs_name(&job.row) else { continue };
            let known = self.reuse.runs.get(&name).and_then(|runs| runs.leader);
            match Standing::of(job.row.state) {
                Standing::Ready => drop(runs.entry(name).or_default().ready.insert(*id)),
                Standing::Runs if known == Some(*id) => runs.entry(name).or_default().leader = Some(*id),
                Standing::Runs | Standing::Undone | Standing::Away => {}
            }
        }
        if runs != self.reuse.runs {
            return broken("I11", format!("the jobs of keys are {:?}, not {runs:?}", self.reuse.runs));
        }
        for (name, runs) in &runs {
            for id in &runs.ready {
                let queued = self.jobs[id].queued.is_some();
                if queued && runs.leader.is_some() {
                    return broken("I14", format!("{id} is queued, and {:?} runs with its key", runs.leader));
                }
                let follows =
                    self.jobs[id].row.reuse.as_ref().and_then(JobReuse::keyed).is_some_and(|it| it.follows.is_some());
                if follows != runs.leader.is_some() {
                    return broken("I11", format!("{id} says that it follows: {follows}, and {:?} runs", runs.leader));
                }
                if self.visible(name).is_some() {
                    return broken("I14", format!("{id} is ready, and its result is here already"));
                }
            }
        }
        for (id, job) in &self.jobs {
            let asks = self.reuse.questions.has(*id);
            let wishes = self.command(*id).is_some_and(|command| command.reuse.is_some());
            let ready = job.row.state == JobState::Scheduled && wishes && job.row.reuse.is_none();
            if asks != ready {
                return broken("I10", format!("{id} is {:?}, and asks for its key: {asks}", job.row.state));
            }
        }
        let unwatched = self.reuse.questions.out().find(|id| !self.timers.has(Timer::Key(*id)));
        if let Some(id) = unwatched {
            return broken("I10", format!("the key of {id} is asked for without a deadline"));
        }
        self.check_entries()
    }
}
