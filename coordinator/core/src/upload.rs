//! Uploads: steps that a job adds to its own build while it runs (reference 7). One commit holds an upload whole.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use windlass_pipeline::graph::{Broken, Graph, InsertError, Node};
use windlass_protocol::{BuildId, CauseKind, Digest, JobId, limits};

use crate::account::{of_growth, of_node, of_text};
use crate::error::Rejected;
use crate::load::{count_dependencies, dependents_of};
use crate::offer::Common;
use crate::patience::Patience;
use crate::row::{BuildEvent, EventRow, JobRow, JobState, Upload, Uploaded};
use crate::served;
use crate::state::{Core, Job};

/// A job that nothing has come of yet: an upload may change what it waits for, or take it away.
fn is_unstarted(row: &JobRow) -> bool {
    row.attempts.is_empty()
        && row.triggered.is_empty()
        && match row.state {
            JobState::Pending
            | JobState::Waiting
            | JobState::WaitingFailed
            | JobState::Blocked
            | JobState::BlockedFailed
            | JobState::Limiting
            | JobState::Limited
            | JobState::Scheduled
            | JobState::Broken => true,
            JobState::Unblocked
            | JobState::UnblockedFailed
            | JobState::Assigned
            | JobState::Accepted
            | JobState::Running
            | JobState::Passed
            | JobState::Failed
            | JobState::Canceling
            | JobState::Canceled
            | JobState::TimingOut
            | JobState::TimedOut
            | JobState::Skipped
            | JobState::Expired => false,
        }
}

impl Core {
    /// Takes an upload of a running job. The same upload again changes nothing.
    pub(crate) fn upload(&mut self, upload: Upload) -> Result<String, Rejected> {
        let attempt = upload.attempt;
        let job = self.held(attempt, upload.epoch)?;
        let row = &self.jobs[&job].row;
        let build = row.build;
        let digest = Digest::of(upload.definition.as_bytes());
        if let Some(known) = row.uploads.iter().find(|known| known.id == upload.id)
            && !self.policy.bugs.upload_twice
        {
            return if known.digest == digest { Ok(String::new()) } else { Err(Rejected::IdempotencyMismatch) };
        }
        self.check_goes_on(job)?;
        self.check_upload(build, &upload)?;
        let replaced = if upload.replace { self.steps_after(job) } else { BTreeSet::new() };
        let graph = self.grown(job, &replaced, upload.graph)?;
        for gone in replaced {
            self.take_away(gone, "an upload with --replace took its place");
        }
        let bytes = upload.definition.len();
        let record = Uploaded { id: upload.id, attempt, digest, bytes, at: self.now.wall };
        self.count_jobs(build, of_text(bytes), 0);
        let first = self.builds[&build].jobs.len();
        let added = graph.nodes.len() - first;
        self.edit_job(job).uploads.push(record);
        self.spoil(attempt, "it uploaded steps");
        self.grow(build, graph);
        Ok(format!("{added} steps"))
    }

    fn check_upload(&self, build: BuildId, upload: &Upload) -> Result<(), Rejected> {
        let home = &self.builds[&build];
        let uploads: usize = home.jobs.iter().map(|job| self.jobs[job].row.uploads.len()).sum();
        for (what, value, limit) in [
            ("jobs of one upload", upload.graph.nodes.len(), limits::UPLOAD_JOBS_MAX),
            ("uploads of one build", uploads + 1, limits::UPLOADS_PER_BUILD_MAX),
            ("jobs that have not ended", self.jobs.len() + upload.graph.nodes.len(), limits::LIVE_JOBS_MAX),
            ("entries of `notify`", home.row.notify.len() + upload.graph.notify.len(), limits::NOTIFY_ENTRIES_MAX),
            ("bytes of a pipeline", upload.definition.len(), limits::PIPELINE_MAX_BYTES),
            ("bytes of an upload's id", upload.id.len(), limits::NAME_MAX_BYTES),
        ] {
            if value > limit {
                return Err(Rejected::Limit { what, limit: limit as u64 });
            }
        }
        let grown = of_growth(&upload.graph.groups, &upload.graph.notify, &upload.graph.env);
        let added: usize = upload.graph.nodes.iter().map(of_node).sum();
        self.check_room(build, grown + added + of_text(upload.definition.len()), 0)?;
        served::check(&upload.graph)?;
        let common = Common::of_build(&home.row, &upload.graph.env, &upload.graph.groups, &self.policy)?;
        upload.graph.nodes.iter().try_for_each(|node| common.check(node))?;
        if upload.graph.env.is_empty() {
            return Ok(());
        }
        // Its variables are those of the jobs that wait, too.
        let common = Common::of_build(&home.row, &upload.graph.env, &home.row.groups, &self.policy)?;
        let waiting = home.jobs.iter().map(|job| &self.jobs[job].row).filter(|row| !row.state.is_final());
        waiting.map(|row| &row.node).try_for_each(|node| common.check(node))
    }

    /// The build's graph with the upload in it, and without the steps that go; nothing is changed yet.
    fn grown(&self, job: JobId, replaced: &BTreeSet<JobId>, upload: Graph) -> Result<Graph, Rejected> {
        let row = &self.jobs[&job].row;
        let build = &self.builds[&row.build];
        let node = |id: &JobId| {
            let node = self.jobs[id].row.node.outline();
            if replaced.contains(id) { gone(node) } else { node }
        };
        let graph = Graph {
            nodes: build.jobs.iter().map(node).collect(),
            supersede: build.row.supersede,
            groups: build.row.groups.clone(),
            env: build.row.pipeline_env.clone(),
            notify: build.row.notify.clone(),
        };
        let step = build.jobs.iter().map(|id| &self.jobs[id].row).filter(|other| other.node.place == row.node.place);
        let uploads: usize = step.map(|other| other.uploads.len()).sum();
        let uploads = u32::try_from(uploads).unwrap_or(u32::MAX);
        graph.with(row.index, uploads, upload).map_err(|error| match error {
            InsertError::Limit { what, limit } => Rejected::Limit { what, limit: limit as u64 },
            InsertError::NoUploader | InsertError::NoPlaces | InsertError::DuplicateKey(_) | InsertError::Cycle(_) => {
                Rejected::Graph(error.to_string())
            }
        })
    }

    /// Jobs of steps that stand after a job's own and of which nothing has started.
    fn steps_after(&self, job: JobId) -> BTreeSet<JobId> {
        let row = &self.jobs[&job].row;
        let build = &self.builds[&row.build];
        let groups = &build.row.groups;
        let stands = |node: &Node| {
            let group = node.place.group.and_then(|group| groups.get(usize::try_from(group).ok()?));
            match group {
                Some(group) => (group.place.path.clone(), node.place.path.clone()),
                None => (node.place.path.clone(), Vec::new()),
            }
        };
        let from = stands(&row.node);
        let rows = build.jobs.iter().map(|id| &self.jobs[id].row);
        let begun: BTreeSet<_> = rows.filter(|row| !is_unstarted(row)).map(|row| &row.node.place).collect();
        let after = build.jobs.iter().filter(|id| {
            let node = &self.jobs[*id].row.node;
            stands(node) > from && !begun.contains(&node.place)
        });
        after.copied().collect()
    }

    /// Steps of a job's former attempts that have not started go when it is given out again (reference 7).
    pub(crate) fn forget_uploads(&mut self, job: JobId) {
        let row = &self.jobs[&job].row;
        if row.uploads.is_empty() {
            return;
        }
        let uploaded = |node: &Node| node.uploaded_by == Some(row.index);
        let jobs = self.builds[&row.build].jobs.iter();
        let former: Vec<JobId> = jobs
            .filter(|id| uploaded(&self.jobs[*id].row.node) && is_unstarted(&self.jobs[*id].row))
            .copied()
            .collect();
        for id in former {
            let node = gone(Node::clone(&self.jobs[&id].row.node));
            self.put_node(id, node);
            self.take_away(id, "the job that uploaded it was run again");
        }
    }

    /// A job's step is another one from now on.
    pub(crate) fn put_node(&mut self, id: JobId, node: Node) {
        let row = &self.jobs[&id].row;
        let (build, more, less) = (row.build, of_node(&node), of_node(&row.node));
        self.count_jobs(build, more, less);
        self.edit_job(id).node = Arc::new(node);
    }

    /// A step is no part of its build any more.
    fn take_away(&mut self, id: JobId, why: &str) {
        let cause = Self::cause(CauseKind::Superseded, why);
        self.change_job(id, |row| (row.state, row.cause) = (JobState::Skipped, Some(cause)));
    }

    /// Takes a grown graph over: of the jobs that there are, the edges of what has not started (their nodes may be outlines),
    /// and the new jobs.
    pub(crate) fn grow(&mut self, build: BuildId, graph: Graph) {
        let wall = self.now.wall;
        let row = self.edit_build(build);
        (row.groups, row.pipeline_env, row.notify) = (graph.groups, graph.env, graph.notify);
        self.count_frame(build);
        let old = self.builds[&build].jobs.clone();
        let mut nodes = graph.nodes.into_iter();
        for (id, node) in old.iter().zip(nodes.by_ref()) {
            let row = &self.jobs[id].row;
            let taken = is_unstarted(row) || (row.state == JobState::Skipped && node.broken == Some(Broken::Replaced));
            let Node { key, depends_on, unresolved, broken, .. } = node;
            let known = &row.node;
            let same = (&known.key, &known.depends_on, &known.unresolved, known.broken)
                == (&key, &depends_on, &unresolved, broken);
            if taken && !same {
                let node = Node { key, depends_on, unresolved, broken, ..Node::clone(known) };
                self.put_node(*id, node);
            }
        }
        let mut added = Vec::new();
        for (index, node) in (u32::try_from(old.len()).unwrap_or(u32::MAX)..).zip(nodes) {
            let row = self.new_job(build, index, node);
            added.push(row.id);
            let Some(home) = self.builds.get_mut(&build) else { return };
            home.tally.add(&row);
            home.jobs.push(row.id);
            self.count_jobs(build, of_node(&row.node), 0);
            self.book.jobs.insert(row.id);
            self.jobs.insert(
                row.id,
                Box::new(Job {
                    row,
                    waits: 0,
                    bad: 0,
                    cleared: false,
                    queued: None,
                    fence: None,
                    inputs: OnceCell::new(),
                    patience: Patience::Unasked,
                }),
            );
        }
        self.book.touched.insert(build);
        self.recount_all(build);
        self.recount_subjects(build);
        for id in self.builds[&build].jobs.clone() {
            self.restate(id);
        }
        for job in added {
            let (state, attempt) = (self.jobs[&job].row.state, None);
            self.book.events.push(EventRow { build, at: wall, event: BuildEvent::JobChanged { job, state, attempt } });
        }
    }

    /// Counts dependencies and dependents of a build anew.
    fn recount_all(&mut self, build: BuildId) {
        // Changes that are still to be carried on are in the new counts already.
        let jobs = self.builds[&build].jobs.clone();
        let rows: Vec<&JobRow> = jobs.iter().map(|id| &self.jobs[id].row).collect();
        let counts: Vec<_> = rows.iter().map(|row| count_dependencies(row, |node| rows.get(node).copied())).collect();
        let dependents = dependents_of(rows.iter().copied());
        if !self.ripple.is_empty() {
            let own: BTreeSet<JobId> = jobs.iter().copied().collect();
            self.ripple.retain(|id, _| !own.contains(id));
        }
        for (id, counts) in jobs.iter().zip(counts) {
            if let Some(job) = self.jobs.get_mut(id) {
                (job.waits, job.bad) = counts;
            }
        }
        if let Some(home) = self.builds.get_mut(&build) {
            home.dependents = dependents;
        }
    }

    /// Moves a job that has not started to where its new node puts it.
    fn restate(&mut self, id: JobId) {
        let row = &self.jobs[&id].row;
        if !is_unstarted(row) {
            return;
        }
        match (row.node.broken.is_some(), row.state) {
            (true, JobState::Broken) => {}
            (true, _) => self.set_state(id, JobState::Broken),
            (false, JobState::Broken) => {
                self.set_state(id, JobState::Waiting);
                self.reconsider(id);
            }
            (false, _) => self.reconsider(id),
        }
    }
}

/// A node that is no part of its scope any more; its key is free.
fn gone(node: Node) -> Node {
    Node { key: None, broken: Some(Broken::Replaced), ..node }
}
