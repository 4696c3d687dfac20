//! A build's life: how it is made, what its state is, and when it leaves memory (reference 16.3).

use std::collections::BTreeSet;

use windlass_pipeline::graph::{Graph, Node, NodeKind};
use windlass_protocol::{BuildId, CauseKind, Digest, JobId, limits};

use crate::account::Account;
use crate::deps::{Standing, standing};
use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::gate::check_meta_data;
use crate::input::ReplyTo;
use crate::notify::Stage;
use crate::offer::Common;
use crate::row::{Actor, BuildEvent, BuildRow, BuildState, EventRow, IdempotencyRow, JobRow, JobState, Submit};
use crate::served;
use crate::state::{Core, Tally};
use crate::subject;
use crate::timer::Timer;

/// Whether a job's end fails its build.
pub(crate) fn is_hard_failure(job: &JobRow) -> bool {
    match job.state {
        JobState::Failed | JobState::TimedOut | JobState::Expired | JobState::Canceled => !job.soft_failed,
        // It waited for a key that no step has; others only follow what they depend on.
        JobState::WaitingFailed | JobState::BlockedFailed => {
            job.cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::DependencyFailed)
        }
        _ => false,
    }
}

impl Tally {
    /// Counts a job in.
    pub(crate) fn add(&mut self, job: &JobRow) {
        let step = !matches!(job.node.kind, NodeKind::Wait { .. });
        self.open += u32::from(!job.state.is_final());
        self.waiting += u32::from(matches!(job.state, JobState::Pending | JobState::Waiting));
        self.blocked += u32::from(job.state == JobState::Blocked);
        self.hard += u32::from(is_hard_failure(job));
        self.steps += u32::from(step);
        self.idle += u32::from(step && matches!(job.state, JobState::Skipped | JobState::Broken));
    }

    /// Counts a job out.
    pub(crate) fn sub(&mut self, job: &JobRow) {
        let step = !matches!(job.node.kind, NodeKind::Wait { .. });
        self.open -= u32::from(!job.state.is_final());
        self.waiting -= u32::from(matches!(job.state, JobState::Pending | JobState::Waiting));
        self.blocked -= u32::from(job.state == JobState::Blocked);
        self.hard -= u32::from(is_hard_failure(job));
        self.steps -= u32::from(step);
        self.idle -= u32::from(step && matches!(job.state, JobState::Skipped | JobState::Broken));
    }

    /// Whether nothing that is left can run by itself.
    pub(crate) const fn is_stuck(&self) -> bool {
        self.open > 0 && self.open == self.waiting + self.blocked
    }

    /// The state of a build with these counts.
    pub(crate) fn state(&self, build: &BuildRow) -> BuildState {
        if build.cancel_requested {
            let superseded = build.cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::Superseded);
            return match (self.open, superseded && build.started_at.is_none()) {
                (0, true) => BuildState::Skipped,
                (0, false) => BuildState::Canceled,
                _ => BuildState::Canceling,
            };
        }
        match (self.open, self.hard) {
            (0, 0) if self.idle == self.steps => BuildState::NotRun,
            (0, 0) => BuildState::Passed,
            (0, _) => BuildState::Failed,
            (_, 0) if build.started_at.is_none() => BuildState::Scheduled,
            (_, 0) => BuildState::Running,
            _ => BuildState::Failing,
        }
    }
}

impl Core {
    /// Makes a build (I1: its reply is released after its rows).
    pub(crate) fn submit(&mut self, to: ReplyTo, actor: &Actor, submit: Submit) -> Result<(), Rejected> {
        if let Some((key, body)) = &submit.idempotency
            && let Some(known) = self.idempotency.get(key)
        {
            if known.body != *body {
                return Err(Rejected::IdempotencyMismatch);
            }
            let build = known.build;
            self.book.out.push(Effect::Reply { to, reply: Reply::Submitted { build, existing: true } });
            return Ok(());
        }
        self.check_new(&submit)?;
        let build = submit.id;
        self.make_build(actor, submit);
        self.book.out.push(Effect::Reply { to, reply: Reply::Submitted { build, existing: false } });
        Ok(())
    }

    /// A build that can be made as it is described.
    pub(crate) fn check_new(&self, submit: &Submit) -> Result<(), Rejected> {
        self.check_submit(submit)?;
        if let Some(registration) = &submit.registration
            && self.pipeline(&registration.name) != Some(&**registration)
        {
            return Err(Rejected::PipelineChanged(registration.name.clone()));
        }
        let next = self.next_number(&submit.pipeline);
        if submit.number.is_some_and(|number| number != next) {
            return Err(Rejected::NumberTaken { next });
        }
        if self.builds.contains_key(&submit.id) {
            return Err(Rejected::IdTaken(submit.id));
        }
        Ok(())
    }

    /// Makes a build that was checked.
    pub(crate) fn make_build(&mut self, actor: &Actor, submit: Submit) {
        let wall = self.now.wall;
        let (id, number) = (submit.id, self.next_number(&submit.pipeline));
        self.numbers.insert(submit.pipeline.clone(), number);
        self.book.numbers.insert(submit.pipeline.clone());
        let definition = Digest::of(submit.definition.as_bytes());
        self.book.definitions.push((definition, submit.definition));
        if let Some((key, body)) = submit.idempotency {
            let row = IdempotencyRow { key: key.clone(), body, build: id, at: wall };
            self.idempotency.insert(key, row.clone());
            self.book.idempotency.push(row);
        }
        let (registered, pipeline_env) = self.registered(&submit.pipeline, submit.graph.env);
        let row = BuildRow {
            id,
            number,
            pipeline: submit.pipeline,
            registered,
            state: BuildState::Creating,
            branch: submit.branch,
            commit: submit.commit,
            tag: submit.tag,
            message: submit.message,
            origin: submit.origin,
            source: submit.source,
            creator: submit.creator,
            namespace: submit.namespace,
            env: submit.env,
            meta_data: submit.meta_data,
            supersede: submit.graph.supersede,
            groups: submit.graph.groups,
            pipeline_env,
            notify: submit.graph.notify,
            notified: 0,
            not_notified: 0,
            blocked: None,
            unblocker: None,
            keep_workspace: submit.keep_workspace,
            no_reuse: submit.no_reuse,
            annotations: Vec::new(),
            rebuilt_from: submit.rebuilt_from,
            triggered_from: submit.triggered_from,
            confined: submit.confined,
            untrusted: submit.untrusted,
            cause: None,
            cancel_requested: false,
            created_at: wall,
            started_at: None,
            finished_at: None,
            definition,
        };
        self.audit(actor, "build.submit", &id.to_string(), &format!("{} #{number}", row.pipeline));
        self.supersede_older(&row);
        self.create_build(row, submit.graph.nodes);
    }

    fn create_build(&mut self, row: BuildRow, nodes: Vec<Node>) {
        let (id, wall) = (row.id, self.now.wall);
        let mut jobs = Vec::with_capacity(nodes.len());
        for (index, node) in (0_u32..).zip(nodes) {
            jobs.push(self.new_job(id, index, node));
        }
        let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
        self.book.builds.insert(id);
        self.book.jobs.extend(ids.iter().copied());
        self.book.touched.insert(id);
        self.book.events.push(EventRow { build: id, at: wall, event: BuildEvent::BuildCreated });
        self.insert_build(row, jobs, Vec::new());
        for job in ids {
            self.reconsider(job);
        }
        self.settle_dependencies();
    }

    /// A job that nothing has happened to yet.
    pub(crate) fn new_job(&mut self, build: BuildId, index: u32, node: Node) -> JobRow {
        let wall = self.now.wall;
        let state = match (&node.broken, &node.skip) {
            (Some(_), _) => JobState::Broken,
            (None, Some(_)) => JobState::Skipped,
            (None, None) => JobState::Pending,
        };
        let rules = match &node.kind {
            NodeKind::Command(command) => command.retry.len(),
            NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => 0,
        };
        JobRow {
            id: self.ids.job(wall),
            build,
            index,
            node: node.into(),
            state,
            exit_status: None,
            signal: None,
            cause: None,
            soft_failed: false,
            rule_uses: vec![0; rules],
            requeues: 0,
            agents_lost: Vec::new(),
            attempts: Vec::new(),
            unblocked: None,
            uploads: Vec::new(),
            reuse: None,
            fresh: false,
            triggered: Vec::new(),
            cancel_grace_ms: None,
            not_before: None,
            created_at: wall,
            runnable_at: None,
            started_at: None,
            finished_at: state.is_final().then_some(wall),
        }
    }

    /// The one place that changes a job's state: counts, queue, dependents and events follow.
    pub(crate) fn set_state(&mut self, id: JobId, to: JobState) {
        self.change_job(id, |row| row.state = to);
    }

    /// Changes a job's row; what follows from its state is brought in step.
    pub(crate) fn change_job(&mut self, id: JobId, change: impl FnOnce(&mut JobRow)) {
        let wall = self.now.wall;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (build, from, stood) = (job.row.build, job.row.state, standing(&job.row));
        let Some(home) = self.builds.get_mut(&build) else { return };
        home.tally.sub(&job.row);
        subject::count(home, &mut self.book, &job.row, false);
        change(&mut job.row);
        let to = job.row.state;
        if to != from {
            job.row.finished_at = to.is_final().then_some(wall);
        }
        home.tally.add(&job.row);
        subject::count(home, &mut self.book, &job.row, true);
        self.book.jobs.insert(id);
        self.book.touched.insert(build);
        if standing(&job.row) != stood {
            // Only what it was before the first change counts: it is compared with what it is in the end.
            self.ripple.entry(id).or_insert(stood);
        }
        if to == from {
            return;
        }
        self.reseat(id, from, to);
        let attempt = self.jobs[&id].row.attempts.last().copied();
        let event = if to.is_final() {
            BuildEvent::JobFinished { job: id, state: to, attempt }
        } else {
            BuildEvent::JobChanged { job: id, state: to, attempt }
        };
        // What is so within one input only is told to nobody.
        if to != JobState::Limiting && (from != JobState::Pending || to.is_final()) {
            self.book.events.push(EventRow { build, at: wall, event });
        }
        if from == JobState::Scheduled {
            self.dequeue(id);
        }
        self.move_key(id, from, to);
        if to == JobState::Scheduled {
            self.enqueue(id);
        }
    }

    /// Brings every touched build's state in step with its jobs; those that ended leave memory.
    pub(crate) fn settle_builds(&mut self) {
        let wall = self.now.wall;
        for id in std::mem::take(&mut self.book.touched) {
            let Some(build) = self.builds.get(&id) else { continue };
            let (before, state) = (build.row.state, build.tally.state(&build.row));
            let blocked = self.blocked_state(id);
            if state.is_final() {
                // A commit that only takes a build in and out again is still its end.
                self.book.ended.insert(id);
            }
            if state == before && blocked == self.builds[&id].row.blocked {
                continue;
            }
            if state == BuildState::Failed {
                self.mark_gates(id, state);
            }
            if state.is_final() && state != before {
                self.tell_parent(id, state);
            }
            let row = self.edit_build(id);
            let was = Stage::of(row);
            row.blocked = blocked;
            row.state = state;
            row.finished_at = state.is_final().then_some(wall);
            let event =
                if state.is_final() { BuildEvent::BuildFinished { state } } else { BuildEvent::BuildChanged { state } };
            if before != BuildState::Creating || state.is_final() {
                self.book.events.push(EventRow { build: id, at: wall, event });
            }
            self.notify_of_build(id, was);
        }
    }

    /// The build's deadline: the first of its jobs that has waited too long, or its own end.
    pub(crate) fn arm_expiry(&mut self, id: BuildId) {
        let build = &self.builds[&id];
        let mut due = self.build_end(id);
        for job in &build.jobs {
            let row = &self.jobs[job].row;
            if matches!(row.state, JobState::Scheduled | JobState::Limited) {
                due = due.min(row.runnable_at.unwrap_or(row.created_at).plus_ms(limits::JOB_EXPIRY_MS));
            }
        }
        // Whatever becomes ready from now on cannot expire before this.
        due = due.min(self.now.wall.plus_ms(limits::JOB_EXPIRY_MS));
        let at = self.mono_of(due);
        self.timers.set(Timer::Expiry(id), at);
    }

    /// When a build is over, whatever happens (I10).
    pub(crate) fn build_end(&self, id: BuildId) -> windlass_protocol::WallMs {
        self.builds[&id].row.created_at.plus_ms(limits::BUILD_EXPIRY_MS)
    }

    /// Jobs that nobody took in time expire; a build that has lived too long is canceled.
    pub(crate) fn on_expiry(&mut self, id: BuildId) {
        let wall = self.now.wall;
        if wall >= self.build_end(id) {
            let cause = Self::cause(CauseKind::Expired, "the build was not done in the longest time that one may take");
            self.cancel_build(id, cause);
            return;
        }
        for job in self.builds[&id].jobs.clone() {
            let row = &self.jobs[&job].row;
            let since = row.runnable_at.unwrap_or(row.created_at);
            if matches!(row.state, JobState::Scheduled | JobState::Limited)
                && wall >= since.plus_ms(limits::JOB_EXPIRY_MS)
            {
                let why = self.explain(job).map(|why| why.to_string()).unwrap_or_default();
                self.end_unleased(job, JobState::Expired, Self::cause(CauseKind::Expired, &why));
            }
        }
        self.arm_expiry(id);
    }

    /// Ends a job that no agent has.
    pub(crate) fn end_unleased(&mut self, id: JobId, to: JobState, cause: windlass_protocol::Cause) {
        let wall = self.now.wall;
        self.abandon_trigger(id);
        if let Some(attempt) = self.jobs[&id].row.attempts.last().copied()
            && !self.attempts[&attempt].state.is_final()
        {
            let row = self.edit_attempt(attempt);
            row.state = crate::row::AttemptState::Canceled;
            row.cause = Some(cause.clone());
            row.finished_at = Some(wall);
            self.seal(attempt);
        } else if let Some(attempt) = self.jobs[&id].row.attempts.last().copied() {
            self.seal(attempt);
        }
        self.change_job(id, |row| {
            row.state = to;
            row.cause = Some(cause);
        });
    }

    fn check_submit(&self, submit: &Submit) -> Result<(), Rejected> {
        let bound = |what, value: usize, limit: usize| {
            if value > limit { Err(Rejected::Limit { what, limit: limit as u64 }) } else { Ok(()) }
        };
        bound("builds that have not ended", self.builds.len() + 1, limits::LIVE_BUILDS_MAX)?;
        bound("jobs that have not ended", self.jobs.len() + submit.graph.nodes.len(), limits::LIVE_JOBS_MAX)?;
        bound("jobs of one build", submit.graph.nodes.len(), limits::JOBS_PER_BUILD_MAX)?;
        bound("bytes of a pipeline", submit.definition.len(), limits::PIPELINE_MAX_BYTES)?;
        bound("bytes of a message", submit.message.len(), limits::MESSAGE_MAX_BYTES)?;
        if let Some(((_, key), _)) = &submit.idempotency {
            bound("bytes of an idempotency key", key.len(), limits::IDEMPOTENCY_KEY_MAX_BYTES)?;
        }
        check_meta_data(&submit.meta_data)?;
        let beneath = self.pipelines.get(&submit.pipeline).map_or(&[][..], |pipeline| pipeline.env.as_slice());
        self.check_bytes(Account::of_submit(submit, beneath).total(), true)?;
        let common = Common::of_submit(submit, beneath, &self.policy)?;
        submit.graph.nodes.iter().try_for_each(|node| common.check(node))?;
        served::check(&submit.graph)?;
        check_graph(&submit.graph)
    }

    pub(crate) fn standing_of(&self, job: JobId) -> Standing {
        standing(&self.jobs[&job].row)
    }
}

/// Edges lead somewhere and never in a circle (Kahn's way: take what waits for nothing, until nothing is left).
fn check_graph(graph: &Graph) -> Result<(), Rejected> {
    let count = graph.nodes.len();
    let mut waits = vec![0_usize; count];
    let mut dependents = vec![Vec::new(); count];
    for (index, node) in graph.nodes.iter().enumerate() {
        for edge in &node.depends_on {
            let to = usize::try_from(edge.node).ok().filter(|to| *to < count);
            let Some(to) = to else {
                return Err(Rejected::Graph(format!("step {index} depends on step {}, which is not there", edge.node)));
            };
            waits[index] += 1;
            dependents[to].push(index);
        }
    }
    let mut free: BTreeSet<usize> = (0..count).filter(|index| waits[*index] == 0).collect();
    let mut taken = 0;
    while let Some(index) = free.pop_first() {
        taken += 1;
        for dependent in &dependents[index] {
            waits[*dependent] -= 1;
            if waits[*dependent] == 0 {
                free.insert(*dependent);
            }
        }
    }
    if taken < count {
        return Err(Rejected::Graph("steps depend on each other in a circle".to_owned()));
    }
    Ok(())
}
