//! The judge: it believes what was committed, what was said and which processes ran, and nothing that a core says of
//! itself.

use std::collections::{BTreeMap, BTreeSet};

use windlass_coordinator_core::input::AgentEvent;
use windlass_coordinator_core::row::{
    ArtifactRow, AttemptRow, AttemptState, BuildEvent, BuildRow, BuildState, Change, JobRow, JobState, ScheduleRow,
};
use windlass_coordinator_core::{Input, Reply};
use windlass_pipeline::graph::{Method, Node, NodeKind};
use windlass_protocol::job::{Epoch, JobSpec, Outcome};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage};
use windlass_protocol::{AgentId, AttemptId, BuildId, JobId, ScheduleId, Trust, WallMs};

use super::coverage::{self, Coverage};
use super::logs::Logs;
use super::reuse;
use super::store::Store;

/// The number of an invariant, and what was seen.
pub type Verdict = Result<(), (&'static str, String)>;

/// A concurrency group: its trust class and its name.
type Group = (Trust, String);

/// A job's group, its method and its limit.
fn group_of(job: &JobRow, store: &Store) -> Option<(Group, Method, u32)> {
    let NodeKind::Command(command) = &job.node.kind else { return None };
    let concurrency = command.concurrency.as_ref()?;
    let trust = store.rows.builds.get(&job.build)?.namespace.trust();
    Some(((trust, concurrency.group.clone()), concurrency.method, concurrency.limit))
}

/// What a job's own build may not change of its step while it runs (reference 19.5).
fn fixed(node: &Node) -> Node {
    let mut node = Node { label: String::new(), notify: Vec::new(), ..node.clone() };
    if let NodeKind::Command(command) = &mut node.kind {
        (command.priority, command.parallel) = (0, None);
    }
    node
}

/// Who was first: by what made it, then by place.
fn turn_of(job: &JobRow, store: &Store) -> Option<(WallMs, BuildId, u32)> {
    let build = store.rows.builds.get(&job.build)?;
    let mut jobs = store.rows.jobs.values().filter(|other| other.build == job.build);
    let uploader = job.node.uploaded_by.and_then(|index| jobs.find(|other| other.index == index));
    Some((uploader.map_or(build.created_at, |job| job.created_at), job.build, job.index))
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Builds that a client was told exist.
    acknowledged: BTreeSet<BuildId>,
    /// How often a client was told that a build which was not pinned is.
    pinned: BTreeMap<BuildId, u64>,
    /// Every right that was ever committed.
    granted: BTreeSet<Epoch>,
    /// The highest of them before the commit that is being made: the rows of one commit stand in any order.
    highest: Epoch,
    /// Each attempt's last committed right and agent.
    rights: BTreeMap<AttemptId, (Epoch, AgentId)>,
    /// Commands that run, by job, with their host.
    running: BTreeSet<(JobId, AttemptId, usize)>,
    /// Attempts whose command has started, ever.
    started: BTreeSet<AttemptId>,
    /// Hosts that are suspended.
    asleep: BTreeSet<usize>,
    /// Whose job an attempt is.
    jobs: BTreeMap<AttemptId, JobId>,
    /// Every byte that a job wrote, after masking.
    logs: BTreeMap<AttemptId, Vec<u8>>,
    /// What agents said of an attempt's end, by which right.
    told: BTreeMap<(AttemptId, AgentId), Vec<(Epoch, Outcome)>>,
    /// The coordinator heard these, in this order of rights.
    heard: BTreeSet<(AttemptId, AgentId, Epoch)>,
    /// Ends of jobs by attempt, as events tell them.
    finished: BTreeSet<(JobId, AttemptId, JobState)>,
    /// Jobs that waited for their concurrency group before the commit that is being made.
    limited: BTreeSet<JobId>,
    /// Those that were given a slot by it.
    seated: BTreeSet<JobId>,
    /// The build that each trigger job made, by which of its builds it is.
    made: BTreeMap<(JobId, u32), BuildId>,
    /// The build that each schedule made for each of its times, and the last of those.
    fired: BTreeMap<(ScheduleId, WallMs), BuildId>,
    /// Builds whose cancel was committed, and jobs that were canceled alone.
    canceled: BTreeSet<BuildId>,
    /// What attempts uploaded, by path.
    uploaded: BTreeSet<(AttemptId, String)>,
    /// Every value that a build's meta-data had under the key by which jobs say something.
    said: BTreeSet<(BuildId, String)>,
}

impl Oracle {
    /// The core hears something.
    pub fn heard(&mut self, input: &Input) {
        if let Input::Agent { agent, event: AgentEvent::Finished(attempt, epoch, _), .. } = input {
            self.heard.insert((*attempt, *agent, *epoch));
        }
    }

    /// An agent says something.
    pub fn said(&mut self, agent: Option<AgentId>, message: &AgentMessage) {
        if let (Some(agent), AgentMessage::Finished { attempt, epoch, outcome }) = (agent, message) {
            self.told.entry((*attempt, agent)).or_default().push((*epoch, outcome.clone()));
        }
    }

    /// I1: what a client hears of is in the store.
    ///
    /// # Errors
    /// It is not.
    pub fn replied(&mut self, reply: &Reply, store: &Store) -> Verdict {
        match reply {
            Reply::Submitted { build, .. } => {
                self.acknowledged.insert(*build);
                self.acknowledged_are_stored(store)
            }
            // One that was taken back at once may be forgotten in the commit that made it.
            Reply::Token { token } if !store.rows.tokens.contains_key(token) && !store.forgotten.contains(token) => {
                Err(("I1", format!("token {token} was acknowledged and is not in the store")))
            }
            Reply::Joined { agent, .. } if !store.rows.agents.contains_key(agent) => {
                Err(("I1", format!("agent {agent} was acknowledged and is not in the store")))
            }
            Reply::Pinned { build, before } => self.pinned(*build, before.is_none(), store),
            Reply::Token { .. }
            | Reply::Joined { .. }
            | Reply::Drained { .. }
            | Reply::Unpinned { .. }
            | Reply::Done
            | Reply::Secrets(_)
            | Reply::Cache(_) => Ok(()),
        }
    }

    /// I1: a pin that was acknowledged is in the store, or was.
    fn pinned(&mut self, build: BuildId, new: bool, store: &Store) -> Verdict {
        let known = self.pinned.entry(build).or_default();
        *known += u64::from(new);
        // One that is undone at once may be over in the commit that made it.
        let there = store.rows.pins.contains_key(&build) || store.unpinned.contains(&build);
        if there && store.pinned.get(&build).copied().unwrap_or_default() >= *known {
            return Ok(());
        }
        Err(("I1", format!("the pin of build {build} was acknowledged and is not in the store")))
    }

    /// I1: every acknowledged build is in the store.
    ///
    /// # Errors
    /// One is not.
    pub fn acknowledged_are_stored(&self, store: &Store) -> Verdict {
        match self.acknowledged.iter().find(|build| !store.rows.builds.contains_key(build)) {
            Some(build) => Err(("I1", format!("build {build} was acknowledged and is not in the store"))),
            None => Ok(()),
        }
    }

    /// A commit begins.
    pub fn begin_commit(&mut self, store: &Store) {
        self.highest = self.granted.last().copied().unwrap_or_default();
        let limited = store.rows.jobs.values().filter(|job| job.state == JobState::Limited);
        self.limited = limited.map(|job| job.id).collect();
        self.seated.clear();
    }

    /// A commit is made. I7: in an ordered group nobody is given a slot before one that came first and has waited all
    /// the time.
    ///
    /// # Errors
    /// Somebody was.
    pub fn end_commit(&self, store: &Store) -> Verdict {
        let rows = &store.rows;
        Self::annotations_are_whole(store)?;
        for seated in self.seated.iter().filter_map(|job| rows.jobs.get(job)) {
            let Some((group, Method::Ordered, _)) = group_of(seated, store) else { continue };
            let before = self.limited.iter().filter_map(|job| rows.jobs.get(job)).find(|waits| {
                waits.state == JobState::Limited
                    && group_of(waits, store).is_some_and(|(other, ..)| other == group)
                    && turn_of(waits, store) < turn_of(seated, store)
            });
            if let Some(before) = before {
                return Err(("I7", format!("job {} has a slot of `{}` before {}", seated.id, group.1, before.id)));
            }
        }
        Ok(())
    }

    /// A trigger job that waits ends as its build did, and takes it along where it is canceled.
    fn ended_as_its_build(row: &JobRow, store: &Store) -> Verdict {
        let job = row.id;
        let NodeKind::Trigger(trigger) = &row.node.kind else { return Ok(()) };
        let last = row.triggered.last().filter(|last| last.number.is_some());
        let build = last.and_then(|last| store.rows.builds.get(&last.build));
        match (row.state, build) {
            (JobState::Passed, None) => Err(("I3", format!("job {job} passed and its build was never made"))),
            (JobState::Passed, Some(build)) if !trigger.r#async => match build.state {
                BuildState::Passed | BuildState::NotRun => Ok(()),
                state => Err(("I7", format!("job {job} passed and its build is {state:?}"))),
            },
            (JobState::Canceled, Some(build)) if !trigger.r#async => {
                let ends = build.cancel_requested || build.state.is_final();
                if ends { Ok(()) } else { Err(("I8", format!("job {job} is canceled and its build goes on"))) }
            }
            _ => Ok(()),
        }
    }

    /// I3: each of a job's builds is made once; I12: none has more trust than what it comes from.
    fn commit_triggered(&mut self, row: &BuildRow, store: &Store) -> Verdict {
        let Some(from) = &row.triggered_from else { return Ok(()) };
        let known = self.made.insert((from.job, from.ordinal), row.id);
        if let Some(other) = known.filter(|other| *other != row.id) {
            return Err(("I3", format!("job {} made {other} and {} as its build {}", from.job, row.id, from.ordinal)));
        }
        let parent = store.rows.builds.get(&from.build);
        if parent.is_some_and(|parent| row.namespace.trust() > parent.namespace.trust()) {
            return Err(("I12", format!("build {} is trusted more than what triggered it", row.id)));
        }
        Ok(())
    }

    /// I3: what a job says is done once: each piece of a text has a mark of its own. I11: rows know their texts.
    fn annotations_are_whole(store: &Store) -> Verdict {
        let mut known = 0;
        for (id, annotation) in store.rows.builds.values().flat_map(|build| &build.annotations).map(|it| (it.id, it)) {
            let text = store.annotations.get(&id).map_or("", String::as_str);
            known += usize::from(store.annotations.contains_key(&id));
            let marks: Vec<&str> = text.split_inclusive('>').collect();
            if marks.iter().collect::<BTreeSet<_>>().len() < marks.len() {
                return Err(("I3", format!("annotation {id}: what was said once stands there twice: {text}")));
            }
            if text.len() != annotation.bytes {
                return Err((
                    "I11",
                    format!("annotation {id}: {} bytes, its row says {}", text.len(), annotation.bytes),
                ));
            }
        }
        if known < store.annotations.len() {
            return Err(("I11", format!("{} texts of annotations and {known} of them named", store.annotations.len())));
        }
        Ok(())
    }

    /// A change is about to be durable.
    ///
    /// # Errors
    /// It breaks an invariant.
    pub fn committing(&mut self, change: &Change, store: &Store, coverage: &mut Coverage) -> Verdict {
        match change {
            Change::Attempt(row) => {
                coverage.reach(coverage::attempt_state(row.state));
                self.commit_attempt(row, store)
            }
            Change::Job(row) => {
                coverage.reach(coverage::job_state(row.state));
                if let Some(cause) = &row.cause {
                    coverage.reach(coverage::cause(cause.kind));
                }
                self.commit_job(row, store)
            }
            Change::Build(row) => {
                coverage.reach(coverage::build_state(row.state));
                self.commit_build(row, store)
            }
            Change::Schedule(row) => self.commit_schedule(row),
            Change::Reuse(row) => reuse::entry(row, store),
            Change::ReuseOver(name) => reuse::let_go(name, store),
            Change::Event(row) => match &row.event {
                BuildEvent::JobFinished { job, state, attempt: Some(attempt) } => {
                    // One that was lost has no result, and may come back with one.
                    let has_result = store.rows.attempts.get(attempt).is_some_and(|row| row.outcome.is_some());
                    if has_result { self.commit_end(*job, *attempt, *state) } else { Ok(()) }
                }
                _ => Ok(()),
            },
            Change::Artifact(row) => self.commit_artifact(row, store),
            Change::Meta(meta) if meta.last_epoch < store.rows.meta.last_epoch => {
                Err(("I2", format!("the last right falls to {}", meta.last_epoch)))
            }
            _ => Ok(()),
        }
    }

    /// The workload gives each request a path of its own.
    fn commit_artifact(&mut self, row: &ArtifactRow, store: &Store) -> Verdict {
        if row.by.is_some() {
            // A person needs no right to an attempt, and may add to one that is over.
            return Ok(());
        }
        let known = store.rows.attempts.get(&row.attempt);
        let over = |attempt: &AttemptRow| attempt.state.is_final() && attempt.reused.is_none();
        if known.is_none_or(|attempt| over(attempt) || attempt.build != row.build) {
            return Err(("I3", format!("artifact {} of attempt {}, which holds no right", row.id, row.attempt)));
        }
        if !self.uploaded.insert((row.attempt, row.path.clone())) {
            return Err(("I3", format!("attempt {}: {} is noted twice", row.attempt, row.path)));
        }
        Ok(())
    }

    fn commit_attempt(&mut self, row: &AttemptRow, store: &Store) -> Verdict {
        let id = row.id;
        if let Some(from) = &row.reused {
            self.jobs.insert(id, row.job);
            return reuse::hit(row, from, store);
        }
        let known = self.rights.insert(id, (row.epoch, row.agent));
        self.jobs.insert(id, row.job);
        match known {
            Some((epoch, agent)) if epoch == row.epoch => {
                if agent != row.agent {
                    return Err(("I2", format!("attempt {id}: one right for two agents")));
                }
            }
            Some(_) | None => {
                if row.epoch <= self.highest || !self.granted.insert(row.epoch) {
                    let (epoch, highest) = (row.epoch.0, self.highest.0);
                    return Err(("I2", format!("attempt {id}: right {epoch} is granted after {highest}")));
                }
                self.may_be_given(row, known.is_some(), store)?;
            }
        }
        let Some(old) = store.rows.attempts.get(&id) else { return Ok(()) };
        if old.outcome.is_some() && (old.outcome != row.outcome || old.epoch != row.epoch) {
            return Err(("I3", format!("attempt {id}: a committed result changes")));
        }
        if old.state.is_final() && old.outcome.is_some() && old.state != row.state {
            return Err(("I3", format!("attempt {id}: an end changes from {:?} to {:?}", old.state, row.state)));
        }
        match &row.outcome {
            Some(outcome) if old.outcome.is_none() => self.result_is_its_holders(row, outcome),
            Some(_) | None => Ok(()),
        }
    }

    /// I3: a result comes from who holds the right, by that right, as that agent told it.
    fn result_is_its_holders(&self, row: &AttemptRow, outcome: &Outcome) -> Verdict {
        let told = self.told.get(&(row.id, row.agent)).map(Vec::as_slice).unwrap_or_default();
        if told.iter().any(|(epoch, told)| *epoch == row.epoch && told == outcome) {
            return Ok(());
        }
        Err((
            "I3",
            format!("attempt {}: a result is committed that its holder never told by right {}", row.id, row.epoch.0),
        ))
    }

    /// I2 and I8, when a right is granted.
    fn may_be_given(&self, row: &AttemptRow, again: bool, store: &Store) -> Verdict {
        let others = store.rows.attempts.values().filter(|other| other.job == row.job && other.id != row.id);
        if let Some(other) = others.into_iter().find(|other| !other.state.is_final() && !row.state.is_final()) {
            return Err(("I2", format!("job {}: attempts {} and {} live at once", row.job, other.id, row.id)));
        }
        if store.rows.builds.get(&row.build).is_some_and(|build| build.cancel_requested) {
            return Err(("I8", format!("attempt {}: a right is granted in a canceled build", row.id)));
        }
        if !again {
            reuse::needed(row, store)?;
        }
        match store.rows.jobs.get(&row.job) {
            // Given before, or run again: what it depends on may by now be run again beside it, by hand.
            Some(job) if again || job.attempts.len() > 1 => Ok(()),
            Some(job) => Self::dependencies_allow(job, store),
            None => Err(("I7", format!("attempt {}: no such job", row.id))),
        }
    }

    fn commit_job(&mut self, row: &JobRow, store: &Store) -> Verdict {
        let old = store.rows.jobs.get(&row.id);
        let sat = old.is_some_and(|old| !old.state.is_final() && old.attempts.len() == row.attempts.len());
        if row.state == JobState::Scheduled && sat && old.is_some_and(|old| old.state == JobState::Limited) {
            self.seated.insert(row.id);
        }
        let ids: BTreeSet<_> = row.uploads.iter().map(|upload| &upload.id).collect();
        if ids.len() < row.uploads.len() {
            return Err(("I3", format!("job {}: one upload is inserted twice", row.id)));
        }
        let opened = matches!(row.state, JobState::Unblocked | JobState::UnblockedFailed);
        if opened && row.unblocked.is_none() {
            return Err(("I7", format!("job {}: a gate is open and nobody opened it", row.id)));
        }
        // Builds stand before jobs in what one input comes to.
        if old.is_none_or(|old| old.state != row.state) {
            Self::ended_as_its_build(row, store)?;
        }
        let Some(old) = old else { return Ok(()) };
        // An upload moves the edges of what has not started, and may take it away.
        let begun = !old.attempts.is_empty();
        let (was, is) = (fixed(&old.node), fixed(&row.node));
        if was.kind != is.kind || was.place != is.place || (begun && was != is) {
            return Err(("I7", format!("job {}: its step changes", row.id)));
        }
        if !row.attempts.starts_with(&old.attempts) {
            return Err(("I2", format!("job {}: its attempts change", row.id)));
        }
        Ok(())
    }

    /// I3: a schedule makes one build for each of its times.
    fn commit_schedule(&mut self, row: &ScheduleRow) -> Verdict {
        let firing = row.firing.as_ref().map(|firing| (firing.at, firing.build));
        let fired = row.last.as_ref().map(|last| (last.at, last.build));
        for (at, build) in firing.into_iter().chain(fired) {
            let known = self.fired.insert((row.id, at), build);
            if let Some(other) = known.filter(|other| *other != build) {
                let detail = format!("schedule {} makes {other} and {build} for its time {}", row.id, at.0);
                return Err(("I3", detail));
            }
        }
        Ok(())
    }

    fn commit_build(&mut self, row: &BuildRow, store: &Store) -> Verdict {
        self.commit_triggered(row, store)?;
        self.commit_said(row, store)?;
        if row.cancel_requested {
            self.canceled.insert(row.id);
        } else {
            self.canceled.remove(&row.id);
        }
        let twin = store
            .rows
            .builds
            .values()
            .find(|other| other.id != row.id && other.pipeline == row.pipeline && other.number == row.number);
        match twin {
            Some(twin) => Err(("I1", format!("builds {} and {} share number {}", twin.id, row.id, row.number))),
            None => Ok(()),
        }
    }

    /// I3: each value is said by one call, so that one which was replaced comes back only if a call is heard twice.
    fn commit_said(&mut self, row: &BuildRow, store: &Store) -> Verdict {
        let Some(value) = row.meta_data.get("said") else { return Ok(()) };
        let before = store.rows.builds.get(&row.id).and_then(|row| row.meta_data.get("said"));
        if before != Some(value) && !self.said.insert((row.id, value.clone())) {
            return Err(("I3", format!("build {}: {value} was replaced, and is said again", row.id)));
        }
        Ok(())
    }

    /// I3: an attempt ends its job once.
    fn commit_end(&mut self, job: JobId, attempt: AttemptId, state: JobState) -> Verdict {
        if matches!(state, JobState::Passed | JobState::Failed | JobState::TimedOut)
            && !self.finished.insert((job, attempt, state))
        {
            return Err(("I3", format!("job {job}: attempt {attempt} ends it twice")));
        }
        Ok(())
    }

    /// The coordinator is about to say something to an agent.
    ///
    /// # Errors
    /// It breaks an invariant.
    pub fn sending(&mut self, agent: AgentId, message: &CoordinatorMessage, store: &Store) -> Verdict {
        match message {
            CoordinatorMessage::Offer { epoch, job } => Self::offering(agent, *epoch, job, store),
            CoordinatorMessage::Committed { attempt, epoch } => {
                let live = store.rows.attempts.get(attempt).is_some_and(|row| {
                    let job = store.rows.jobs.get(&row.job).map(|job| job.state);
                    let leased = matches!(job, Some(JobState::Assigned | JobState::Canceling | JobState::TimingOut));
                    row.agent == agent
                        && row.epoch == *epoch
                        && row.outcome.is_none()
                        && !row.state.is_final()
                        && leased
                });
                if live {
                    return Err(("I3", format!("attempt {attempt}: its end is told and is not in the store")));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn offering(agent: AgentId, epoch: Epoch, job: &JobSpec, store: &Store) -> Verdict {
        let attempt = job.attempt;
        let Some(row) = store.rows.attempts.get(&attempt) else {
            return Err(("I2", format!("attempt {attempt} is offered and is not in the store")));
        };
        if row.epoch == epoch && row.agent != agent {
            return Err(("I2", format!("attempt {attempt}: right {} is offered to another agent", epoch.0)));
        }
        if row.epoch < epoch {
            return Err(("I2", format!("attempt {attempt}: right {} is offered before it is durable", epoch.0)));
        }
        Self::may_run(agent, row, store)
    }

    /// I7: dependencies, zone, queue and trust.
    fn may_run(agent: AgentId, attempt: &AttemptRow, store: &Store) -> Verdict {
        let rows = &store.rows;
        let (Some(job), Some(build)) = (rows.jobs.get(&attempt.job), rows.builds.get(&attempt.build)) else {
            return Err(("I7", format!("attempt {}: no such job", attempt.id)));
        };
        let NodeKind::Command(command) = &job.node.kind else {
            return Err(("I7", format!("job {}: a barrier is offered", job.id)));
        };
        let pool = rows.agents.get(&agent).and_then(|agent| rows.pools.get(&agent.pool));
        let Some(pool) = pool else { return Err(("I7", format!("agent {agent} has no pool"))) };
        if !pool.queues.contains(&command.queue) {
            return Err(("I7", format!("job {}: wrong queue", job.id)));
        }
        if pool.trust != build.namespace.trust() {
            return Err(("I7", format!("job {}: wrong trust class", job.id)));
        }
        if command.zone.as_ref().is_some_and(|zone| *zone != pool.zone) {
            return Err(("I7", format!("job {}: wrong zone", job.id)));
        }
        Ok(())
    }

    fn dependencies_allow(job: &JobRow, store: &Store) -> Verdict {
        for edge in &job.node.depends_on {
            let dependency =
                store.rows.jobs.values().find(|other| other.build == job.build && other.index == edge.node);
            let Some(dependency) = dependency else {
                return Err(("I7", format!("job {}: an edge to nothing", job.id)));
            };
            let forgiven = edge.allow_failure || job.node.allow_dependency_failure || dependency.soft_failed;
            let fine = match dependency.state {
                JobState::Passed
                | JobState::Skipped
                | JobState::Broken
                | JobState::Unblocked
                | JobState::UnblockedFailed => true,
                JobState::Failed
                | JobState::TimedOut
                | JobState::Expired
                | JobState::WaitingFailed
                | JobState::BlockedFailed => forgiven,
                _ => false,
            };
            if !fine {
                let state = dependency.state;
                return Err(("I7", format!("job {} starts, what it depends on is {state:?}", job.id)));
            }
        }
        Ok(())
    }

    /// A command starts on a host.
    ///
    /// # Errors
    /// It breaks an invariant.
    pub fn process_started(&mut self, host: usize, agent: Option<AgentId>, job: &JobSpec, store: &Store) -> Verdict {
        if !self.running.insert((job.job, job.attempt, host)) {
            return Err(("I3", format!("attempt {} runs twice on host {host}", job.attempt)));
        }
        if !self.started.insert(job.attempt) {
            return Err(("I3", format!("the command of attempt {} starts a second time", job.attempt)));
        }
        self.exclusive_run_alone(store)?;
        self.groups_are_kept(store)?;
        match agent.and_then(|agent| Some((agent, store.rows.attempts.get(&job.attempt)?))) {
            Some((agent, row)) if row.agent == agent => {
                Self::may_run(agent, row, store).or_else(|(invariant, detail)| {
                    // What it depends on may have been run again since it was offered.
                    if detail.contains("depends on") { Ok(()) } else { Err((invariant, detail)) }
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing of an attempt runs on a host any more.
    pub fn process_ended(&mut self, host: usize, attempt: AttemptId) {
        self.running.retain(|(_, other, on)| !(*other == attempt && *on == host));
    }

    /// A machine is suspended: what runs there does nothing, until its supervisors have looked at the clock.
    pub fn fell_asleep(&mut self, host: usize) {
        self.asleep.insert(host);
    }

    /// A machine goes on, and its supervisors have done what was due.
    pub fn woke(&mut self, host: usize) {
        self.asleep.remove(&host);
    }

    /// I3: of an exclusive job, never two commands at a time, frozen ones aside.
    ///
    /// # Errors
    /// There are two.
    pub fn exclusive_run_alone(&self, store: &Store) -> Verdict {
        let mut seen = BTreeMap::new();
        for (job, attempt, host) in self.running.iter().filter(|(_, _, host)| !self.asleep.contains(host)) {
            let Some((other, there)) = seen.insert(job, (attempt, host)) else { continue };
            let exclusive = store.rows.jobs.get(job).is_some_and(|row| match &row.node.kind {
                NodeKind::Command(command) => command.exclusive || command.concurrency.is_some(),
                NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => false,
            });
            if exclusive {
                let detail = format!("job {job}: attempt {attempt} runs on host {host} and {other} on host {there}");
                return Err(("I3", detail));
            }
        }
        Ok(())
    }

    /// I3: of a concurrency group, never more commands at a time than its limit, frozen ones aside.
    fn groups_are_kept(&self, store: &Store) -> Verdict {
        let mut counts: BTreeMap<Group, (u32, u32)> = BTreeMap::new();
        for (job, ..) in self.running.iter().filter(|(_, _, host)| !self.asleep.contains(host)) {
            let Some((group, _, limit)) = store.rows.jobs.get(job).and_then(|row| group_of(row, store)) else {
                continue;
            };
            let count = counts.entry(group).or_insert((0, limit));
            *count = (count.0 + 1, count.1.max(limit));
        }
        match counts.iter().find(|(_, (count, limit))| count > limit) {
            Some(((_, group), (count, limit))) => {
                Err(("I3", format!("{count} jobs of concurrency group `{group}` run at once, at most {limit} may")))
            }
            None => Ok(()),
        }
    }

    /// A job wrote.
    pub fn wrote(&mut self, attempt: AttemptId, bytes: &[u8]) {
        self.logs.entry(attempt).or_default().extend_from_slice(bytes);
    }

    /// I4: the bytes that became durable are the job's.
    ///
    /// # Errors
    /// They are not.
    pub fn log_is_true(&self, attempt: AttemptId, from: usize, durable: &[u8]) -> Result<(), String> {
        let written = self.logs.get(&attempt).map(Vec::as_slice).unwrap_or_default();
        if written.get(from..durable.len()) == durable.get(from..) {
            return Ok(());
        }
        Err(format!("attempt {attempt}: durable bytes from {from} to {} are not what the job wrote", durable.len()))
    }

    /// I4: a log that is called complete is what the job wrote, to the end that its outcome tells.
    fn log_is_whole(&self, row: &AttemptRow, logs: &Logs) -> Verdict {
        let Some(outcome) = row.outcome.as_ref().filter(|_| row.log_complete) else { return Ok(()) };
        let written = self.logs.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let durable = logs.by_attempt.get(&row.id).map(|log| log.durable.as_slice()).unwrap_or_default();
        if durable == written && durable.len() as u64 == outcome.log_bytes {
            return Ok(());
        }
        let (has, wrote, told) = (durable.len(), written.len(), outcome.log_bytes);
        Err(("I4", format!("attempt {}: its log has {has} bytes, {wrote} were written, {told} were told", row.id)))
    }

    /// Everything at the end: nothing runs for what has ended, results are whole.
    ///
    /// # Errors
    /// Something is not so.
    pub fn judge_end(&self, store: &Store, logs: &Logs) -> Verdict {
        self.acknowledged_are_stored(store)?;
        if let Some((job, attempt, host)) = self.running.first() {
            return Err((
                "I8",
                format!("job {job}: attempt {attempt} still runs on host {host}, everything has ended"),
            ));
        }
        for row in store.rows.attempts.values() {
            if !row.state.is_final() {
                return Err(("I10", format!("attempt {} is {:?} in a build that has ended", row.id, row.state)));
            }
            if row.state == AttemptState::Finished && row.outcome.is_none() {
                return Err(("I3", format!("attempt {} has finished without a result", row.id)));
            }
            self.log_is_whole(row, logs)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use windlass_coordinator_core::row::{Actor, ActorKind, Change, PinGone, PinRow};
    use windlass_protocol::{Namespace, WallMs};

    use super::*;

    #[test]
    fn a_second_pin_that_was_acknowledged_and_is_lost_is_seen_although_the_first_is_over() {
        let build = BuildId::from_bytes([1; 16]);
        let row = PinRow {
            build,
            pipeline: "app".to_owned(),
            number: 1,
            branch: "main".to_owned(),
            namespace: Namespace::trusted("app"),
            name: None,
            by: Actor { kind: ActorKind::System, name: "test".to_owned() },
            at: WallMs(1),
            until: None,
            files: 0,
            bytes: 0,
            gone: PinGone::default(),
            left_out: 0,
        };
        let (mut oracle, mut store) = (Oracle::default(), Store::default());
        let told = Reply::Pinned { build, before: None };
        store.apply(Change::Pin(Box::new(row.clone())));
        oracle.replied(&told, &store).unwrap();
        store.apply(Change::PinOver(build));
        assert!(oracle.replied(&told, &store).is_err(), "nothing was written");
        store.apply(Change::Pin(Box::new(row)));
        assert!(store.unpinned.is_empty() && oracle.pinned(build, false, &store).is_ok());
        store.rows.pins.clear();
        assert!(oracle.pinned(build, false, &store).is_err(), "it is lost");
    }
}
