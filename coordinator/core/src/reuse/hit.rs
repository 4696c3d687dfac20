//! A hit: a job ends with an earlier result, in one commit, and nothing runs.
//!
//! What it leaves is what a run leaves: an attempt with an outcome, and rows of artifacts that name the same blobs. Its log is
//! the other attempt's, which is kept for as long as anybody refers to it (store).

use windlass_protocol::job::{Epoch, Outcome};
use windlass_protocol::{AgentId, CauseKind, Digest, JobId, limits};

use crate::artifact::{Place, check_artifacts};
use crate::effect::{Effect, ReuseNews};
use crate::row::{
    ArtifactTally, AttemptRow, AttemptState, JobReuse, JobState, KeyedJob, ReuseName, ReuseRow, Role, digest_of,
};
use crate::state::Core;

impl Core {
    /// Ends a ready job with an earlier result, if its namespace reads one. One that is chosen to be run all the same, or for
    /// whose files its build has no room, runs by itself from now on.
    pub(super) fn use_again(&mut self, id: JobId) -> bool {
        let Some(name) = self.jobs.get(&id).and_then(|job| self.runs_name(&job.row)) else { return false };
        let Some(found) = self.visible(&name).or_else(|| self.visible_also(id, &name)) else { return false };
        // Nobody untrusted is heard by who is trusted (I12).
        assert!(name.namespace.reads(&found.namespace), "{} reads nothing of {}", name.namespace, found.namespace);
        let Some(entry) = self.reuse.entries.get(&found) else { return false };
        let role = if !self.has_room_for(id, entry) {
            Role::Fresh
        } else if self.is_chosen(id, name.key) {
            Role::Verifies { outputs: digest_of(&entry.outputs), from: Box::new(entry.from.clone()) }
        } else {
            Role::Reused(Box::new(entry.from.clone()))
        };
        self.touch_entry(&found);
        let build = self.jobs[&id].row.build;
        self.hold_for(build, &found);
        let hit = matches!(role, Role::Reused(_));
        self.leave(&name, id);
        self.take_role(id, role);
        if hit {
            self.end_reused(id, &found);
        }
        hit
    }

    /// The entry under one of the other names that the job's key has: what a fleet made.
    fn visible_also(&self, id: JobId, name: &ReuseName) -> Option<ReuseName> {
        let also = &self.jobs.get(&id)?.row.reuse.as_ref()?.keyed()?.keyed.also;
        also.iter().find_map(|key| self.visible(&ReuseName { namespace: name.namespace.clone(), key: *key }))
    }

    fn take_role(&mut self, id: JobId, role: Role) {
        if let Some(JobReuse::Keyed(keyed)) = &mut self.edit_job(id).reuse {
            let keyed: &mut KeyedJob = keyed;
            keyed.role = role;
            keyed.follows = None;
        }
    }

    /// Whether the job's rows and its build's have room for an attempt more, with the entry's files.
    fn has_room_for(&self, id: JobId, entry: &ReuseRow) -> bool {
        let row = &self.jobs[&id].row;
        let none = ArtifactTally::default();
        let fits = check_artifacts(&none, self.attempts_of(row.build), entry.outputs.len(), entry.bytes).is_ok();
        fits && row.attempts.len() < limits::ATTEMPTS_PER_JOB_MAX
    }

    /// Whether a hit is run all the same, as its step asks for with a share of them: by the hash of its key and its job, so
    /// that nothing here is left to chance.
    fn is_chosen(&self, id: JobId, key: Digest) -> bool {
        let share = self.command(id).and_then(|command| command.reuse.as_ref()).map_or(0, |reuse| reuse.verify_ppm);
        if share == 0 {
            return false;
        }
        let lot = Digest::of([key.as_bytes().as_slice(), id.as_bytes().as_slice()].concat().as_slice());
        let [a, b, c, d, ..] = *lot.as_bytes();
        u32::from_be_bytes([a, b, c, d]) % 1_000_000 < share
    }

    fn end_reused(&mut self, id: JobId, found: &ReuseName) {
        let Some(entry) = self.reuse.entries.get(found).cloned() else { return };
        let (wall, row) = (self.now.wall, &self.jobs[&id].row);
        let (build, last) = (row.build, row.attempts.last().copied());
        if let Some(last) = last.filter(|last| !self.attempts[last].state.is_final()) {
            // It was given to somebody once and never started.
            let cause = Self::cause(CauseKind::Superseded, "another run of the same step had passed before it started");
            self.end_attempt(last, AttemptState::Canceled, cause);
            self.seal(last);
        }
        if last.is_some() {
            self.forget_uploads(id);
        }
        let attempt = self.ids.attempt(wall);
        let number = u32::try_from(self.jobs[&id].row.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
        let count = u32::try_from(entry.outputs.len()).unwrap_or(u32::MAX);
        let outcome = Outcome {
            exit_status: Some(0),
            signal: None,
            cause: None,
            started_at: Some(wall),
            finished_at: wall,
            log_bytes: 0,
            log_digest: Digest::of(b""),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        let row = AttemptRow {
            id: attempt,
            job: id,
            build,
            number,
            state: AttemptState::Finished,
            epoch: Epoch(0),
            agent: AgentId::from_bytes([0; 16]),
            agent_name: String::new(),
            zone: String::new(),
            pool: String::new(),
            assigned_at: wall,
            boot_id: String::new(),
            outcome: Some(outcome),
            log_complete: true,
            cause: None,
            finished_at: Some(wall),
            artifacts: ArtifactTally { count, bytes: entry.bytes },
            granted: Epoch(0),
            calls: std::collections::VecDeque::new(),
            yields: None,
            reused: Some(Box::new(entry.from.clone())),
            weighed: None,
        };
        self.attempts.insert(attempt, row);
        self.book.attempts.insert(attempt);
        let namespace = self.builds[&build].row.namespace.clone();
        let place = Place { build, job: id, attempt, namespace, by: None };
        entry.outputs.into_iter().for_each(|output| self.note_output(&place, output));
        if self.builds[&build].row.started_at.is_none() {
            self.edit_build(build).started_at = Some(wall);
        }
        self.change_job(id, |row| {
            row.attempts.push(attempt);
            (row.exit_status, row.signal, row.cause, row.soft_failed) = (Some(0), None, None, false);
            row.started_at = Some(wall);
            row.not_before = None;
            row.state = JobState::Passed;
        });
        self.book.out.push(Effect::Reuse(ReuseNews::Hit { saved_ms: entry.from.ran_ms }));
    }
}
