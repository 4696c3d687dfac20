//! Trigger jobs: each makes a build of another pipeline, and waits for it or not (reference 5.4).
//!
//! Such a job is `running` from when its dependencies allow it: first its build is ordered ([`crate::order`]), then, unless
//! it is asynchronous, it waits for the build's end. Both are one commit of the core each with what they follow from.

use windlass_pipeline::graph::{NodeKind, SoftFail, Trigger};
use windlass_protocol::{BuildId, Cause, CauseKind, Digest, JobId, Namespace, Trust, limits};

use crate::error::Rejected;
use crate::order::{Obtained, Order, Orderer};
use crate::row::{
    Actor, ActorKind, BuildEvent, BuildRow, BuildSource, BuildState, Confined, EventRow, JobState, Submit, Triggered,
    TriggeredFrom,
};
use crate::state::Core;

/// Why a build that nobody submitted is not trusted.
pub(crate) const UNVERIFIED: &str = "its commit was not seen on a protected ref of the registered repository";

impl Core {
    /// A job's trigger step.
    pub(crate) fn trigger(&self, id: JobId) -> Option<&Trigger> {
        match &self.jobs.get(&id)?.row.node.kind {
            NodeKind::Trigger(trigger) => Some(trigger),
            NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) => None,
        }
    }

    /// A trigger job may run: its build is ordered, unless there can be none.
    pub(crate) fn start_trigger(&mut self, id: JobId) {
        let wall = self.now.wall;
        let home = self.jobs[&id].row.build;
        self.edit_job(id).started_at = Some(wall);
        if self.builds[&home].row.started_at.is_none() {
            self.edit_build(home).started_at = Some(wall);
        }
        if let Err(cause) = self.may_trigger(id) {
            self.end_trigger(id, JobState::Failed, Some(cause));
            return;
        }
        let build = self.ids.build(wall);
        self.edit_job(id).triggered.push(Triggered { build, number: None });
        self.set_state(id, JobState::Running);
        self.order(build, Orderer::Job(id));
    }

    /// Why a job's build cannot be.
    fn may_trigger(&self, id: JobId) -> Result<(), Cause> {
        let Some(trigger) = self.trigger(id) else { return Ok(()) };
        let name = &trigger.pipeline;
        let Some(pipeline) = self.pipelines.get(name) else {
            let detail = format!("no pipeline `{name}` is registered: `windlass pipeline create` registers one");
            return Err(Self::cause(CauseKind::SourceMissing, &detail));
        };
        let home = &self.builds[&self.jobs[&id].row.build].row;
        let branch = trigger.branch.as_deref().unwrap_or(&pipeline.default_branch);
        let refuse = |detail: String| Err(Self::cause(CauseKind::RefusedByPolicy, &detail));
        if home.confined.as_ref().is_some_and(|confined| !confined.allows(name, branch)) {
            return refuse(format!("who made this build may not make builds of `{name}` on branch `{branch}`"));
        }
        let depth = home.triggered_from.as_ref().map_or(0, |from| from.depth) + 1;
        if depth >= limits::TRIGGER_DEPTH_MAX {
            return refuse(format!(
                "{depth} builds triggered each other already; at most {} may",
                limits::TRIGGER_DEPTH_MAX
            ));
        }
        let made = self.lineages.get(&root_of(home)).map_or(0, |lineage| lineage.made);
        if made >= limits::TRIGGERED_BUILDS_MAX {
            return refuse(format!("{made} builds were triggered below one that is still going on; more may not be"));
        }
        Ok(())
    }

    /// What is to be known of a job's build.
    pub(crate) fn trigger_order(&self, build: BuildId, id: JobId) -> Option<Order> {
        let trigger = self.trigger(id)?;
        let pipeline = self.pipelines.get(&trigger.pipeline)?.clone();
        let (from, creator) = self.origin_of(id)?;
        Some(Order {
            build,
            branch: trigger.branch.clone().unwrap_or_else(|| pipeline.default_branch.clone()),
            pipeline,
            commit: trigger.commit.clone(),
            message: trigger.message.clone(),
            env: env_of(trigger),
            source: BuildSource::Trigger,
            creator,
            triggered_from: Some(from),
        })
    }

    /// Where the build of a job comes from, and who is said to make it.
    fn origin_of(&self, id: JobId) -> Option<(TriggeredFrom, Actor)> {
        let job = &self.jobs.get(&id)?.row;
        let home = &self.builds.get(&job.build)?.row;
        let from = TriggeredFrom {
            build: home.id,
            number: home.number,
            pipeline: home.pipeline.clone(),
            job: id,
            ordinal: u32::try_from(job.triggered.len()).unwrap_or(u32::MAX),
            depth: home.triggered_from.as_ref().map_or(0, |from| from.depth) + 1,
            root: root_of(home),
        };
        let creator = Actor { kind: ActorKind::Build, name: format!("{} #{}", home.pipeline, home.number) };
        Some((from, creator))
    }

    /// Makes a job's build; the job waits for it from now on, or has passed.
    pub(crate) fn make_triggered(&mut self, build: BuildId, id: JobId, obtained: Obtained) -> Result<(), Rejected> {
        let (Some(trigger), Some((from, creator))) = (self.trigger(id).cloned(), self.origin_of(id)) else {
            return Err(Rejected::JobNotInMemory(id));
        };
        let home = &self.builds[&from.build].row;
        let (namespace, confined) = (namespace_below(home, &trigger.pipeline, &obtained), home.confined.clone());
        let untrusted = match (home.namespace.trust(), obtained.verified) {
            (Trust::Untrusted, _) => {
                Some(format!("{} #{}, which triggered it, is not trusted", home.pipeline, home.number))
            }
            (Trust::Trusted, false) => Some(UNVERIFIED.to_owned()),
            (Trust::Trusted, true) => None,
        };
        self.may_trigger(id).map_err(|_| Rejected::Limit {
            what: "builds that were triggered below one that is still going on",
            limit: u64::from(limits::TRIGGERED_BUILDS_MAX),
        })?;
        let root = from.root;
        let again = self.policy.bugs.trigger_twice;
        let submit = Submit {
            id: if again { self.ids.build(self.now.wall) } else { build },
            number: obtained.number,
            pipeline: trigger.pipeline.clone(),
            registration: Some(obtained.registration),
            definition: obtained.definition,
            graph: obtained.graph,
            branch: obtained.branch,
            commit: obtained.commit,
            tag: None,
            message: trigger.message.clone(),
            origin: obtained.origin,
            source: BuildSource::Trigger,
            creator: creator.clone(),
            namespace,
            env: env_of(&trigger),
            meta_data: trigger.meta_data.iter().cloned().collect(),
            keep_workspace: home.keep_workspace,
            no_reuse: home.no_reuse,
            rebuilt_from: None,
            triggered_from: Some(from),
            confined,
            untrusted,
            idempotency: None,
        };
        self.check_new(&submit)?;
        // Before the build is there: it may have ended when it is made.
        let number = self.next_number(&trigger.pipeline);
        let home = self.jobs[&id].row.build;
        if let Some(last) = self.edit_job(id).triggered.last_mut() {
            last.number = Some(number);
        }
        let event = BuildEvent::JobChanged { job: id, state: JobState::Running, attempt: None };
        self.book.events.push(EventRow { build: home, at: self.now.wall, event });
        self.count_in(root);
        if trigger.r#async {
            self.end_trigger(id, JobState::Passed, None);
        }
        self.make_build(&creator, submit);
        Ok(())
    }

    /// One more build was triggered below this one.
    pub(crate) fn count_in(&mut self, root: BuildId) {
        let lineage = self.lineages.entry(root).or_insert(crate::row::LineageRow { root, made: 0 });
        lineage.made += 1;
        self.book.lineages.insert(root);
    }

    /// A triggered build has ended: the job that waits for it ends with it.
    pub(crate) fn tell_parent(&mut self, id: BuildId, state: BuildState) {
        let Some(build) = self.builds.get(&id) else { return };
        let Some(from) = build.row.triggered_from.clone() else { return };
        let waits = self.jobs.get(&from.job).is_some_and(|job| {
            job.row.state == JobState::Running && job.row.triggered.last().is_some_and(|last| last.build == id)
        });
        if !waits {
            return;
        }
        let name = format!("build {} #{}", build.row.pipeline, build.row.number);
        let ended = |kind, how: &str| Some(Self::cause(kind, &format!("{name} {how}")));
        let (to, cause) = match state {
            BuildState::Passed | BuildState::NotRun => (JobState::Passed, None),
            BuildState::Skipped => (JobState::Skipped, ended(CauseKind::Superseded, "was superseded by a newer one")),
            BuildState::Canceled => (JobState::Failed, ended(CauseKind::Canceled, "was canceled")),
            BuildState::Failed => (JobState::Failed, ended(CauseKind::DependencyFailed, "failed")),
            BuildState::Creating
            | BuildState::Scheduled
            | BuildState::Running
            | BuildState::Failing
            | BuildState::Canceling => return,
        };
        self.end_trigger(from.job, to, cause);
    }

    /// Ends a trigger job.
    pub(crate) fn end_trigger(&mut self, id: JobId, to: JobState, cause: Option<Cause>) {
        let forgiven = self.trigger(id).is_some_and(|trigger| forgives(trigger, to));
        self.change_job(id, |row| (row.state, row.cause, row.soft_failed) = (to, cause, forgiven));
    }

    /// A trigger job is ended from outside: no build is made for it any more, and one that it waits for is canceled.
    pub(crate) fn abandon_trigger(&mut self, id: JobId) {
        let row = &self.jobs[&id].row;
        if row.state != JobState::Running || self.trigger(id).is_none() {
            return;
        }
        let Some(last) = row.triggered.last().map(|last| last.build) else { return };
        let home = &self.builds[&row.build].row;
        let detail = format!("the job of build {} #{} that triggered it was canceled", home.pipeline, home.number);
        if !self.drop_order(last) && !self.policy.bugs.orphan_triggered {
            self.cancel_build(last, Self::cause(CauseKind::Canceled, &detail));
        }
    }

    /// Whether a build is above one that comes from there.
    pub(crate) fn is_above(&self, build: BuildId, from: Option<&TriggeredFrom>) -> bool {
        let mut above = from;
        while let Some(from) = above {
            if from.build == build {
                return true;
            }
            above = self.builds.get(&from.build).and_then(|build| build.row.triggered_from.as_ref());
        }
        false
    }

    /// Counts of builds below one of which none is left are forgotten, in the commit that ends the last.
    pub(crate) fn forget_lineages(&mut self) {
        let roots: Vec<BuildId> = self.book.ended.iter().map(|id| root_of(&self.builds[id].row)).collect();
        for root in roots {
            let ends = |id: &BuildId| self.book.ended.contains(id);
            let below = self.families.get(&root).is_some_and(|family| !family.iter().all(ends));
            let above = self.builds.contains_key(&root) && !ends(&root);
            if !below && !above && self.lineages.remove(&root).is_some() {
                self.book.lineages.insert(root);
            }
        }
    }
}

/// The build above all that a build comes from; itself where nobody triggered it.
pub(crate) fn root_of(build: &BuildRow) -> BuildId {
    build.triggered_from.as_ref().map_or(build.id, |from| from.root)
}

/// The variables of a trigger's build.
fn env_of(trigger: &Trigger) -> Vec<(String, String)> {
    let mut env = trigger.env.clone();
    if let Some((index, total)) = trigger.parallel {
        env.push(("BUILDKITE_PARALLEL_JOB".to_owned(), index.to_string()));
        env.push(("BUILDKITE_PARALLEL_JOB_COUNT".to_owned(), total.to_string()));
    }
    env
}

/// Whether the failure of a trigger's build does not fail the build that it stands in (reference 10.3).
pub(crate) fn forgives(trigger: &Trigger, to: JobState) -> bool {
    match to {
        JobState::Failed => trigger.soft_fail.forgives(None),
        JobState::Canceled => trigger.soft_fail != SoftFail::Never,
        _ => false,
    }
}

/// Where the lookups of a triggered build happen: it has the least trust of all that it comes from (I12), and an overlay of
/// an overlay is told from that of another pipeline.
fn namespace_below(home: &BuildRow, pipeline: &str, obtained: &Obtained) -> Namespace {
    match (&home.namespace.overlay, obtained.verified) {
        (None, true) => Namespace::trusted(pipeline),
        (None, false) => Namespace::overlay(pipeline, &unverified(obtained)),
        (Some(overlay), _) if overlay.starts_with("trigger:") => Namespace::overlay(pipeline, overlay),
        (Some(overlay), _) => {
            Namespace::overlay(pipeline, &fitting("trigger:", &format!("{}/{overlay}", home.namespace.project)))
        }
    }
}

/// An overlay's name, or one made of its digest where it would be too long.
fn fitting(kind: &str, name: &str) -> String {
    let whole = format!("{kind}{name}");
    if whole.len() <= limits::NAME_MAX_BYTES {
        whole
    } else {
        format!("{kind}{}", Digest::of(name.as_bytes()).to_hex())
    }
}

/// An overlay for what nobody vouches for: a commit's own, so that it meets nothing but what itself wrote.
pub(crate) fn unverified(obtained: &Obtained) -> String {
    if obtained.commit.is_empty() || obtained.commit == "HEAD" {
        fitting("branch:", &obtained.branch)
    } else {
        fitting("commit:", &obtained.commit)
    }
}

/// What a token is restricted to, if it is.
#[must_use]
pub fn confined(pipeline: Option<&str>, branch: Option<&str>) -> Option<Confined> {
    let confined = Confined { pipeline: pipeline.map(str::to_owned), branch: branch.map(str::to_owned) };
    (confined != Confined::default()).then_some(confined)
}
