//! The question for a job's key: what the shell is told, and its answer.
//!
//! A bounded number of questions is out at once (module `turn`); each has a deadline, so that the others come to their turn (I10). None of it
//! is a row: after a restart a ready job without an answer asks again.

use std::collections::BTreeMap;

use windlass_protocol::{AttemptId, JobId, limits};

use crate::effect::{Effect, ReuseNews};
use crate::error::Rejected;
use crate::place::shape_of;
use crate::row::{JobReuse, JobState, KeySubject, Keyed, KeyedJob, Role, Unkeyed};
use crate::state::Core;
use crate::timer::Timer;

impl Core {
    /// Has the shell find out a ready job's key, now or in its turn.
    pub(super) fn ask(&mut self, id: JobId) {
        let build = self.jobs.get(&id).and_then(|job| self.builds.get(&job.row.build));
        if let Some(build) = build {
            self.reuse.questions.wait(id, &build.row.namespace);
        }
        self.ask_next();
    }

    fn ask_next(&mut self) {
        while let Some((id, ask)) = self.reuse.questions.next() {
            let Some(subject) = self.key_subject(id) else {
                self.reuse.questions.end(id);
                continue;
            };
            self.timers.set(Timer::Key(id), self.now.mono.plus_ms(limits::REUSE_KEY_MAX_MS));
            self.book.out.push(Effect::Key { ask, subject: Box::new(subject) });
        }
    }

    /// Nobody waits for a job's key any more, or other inputs decide it.
    pub(super) fn stop_asking(&mut self, id: JobId) {
        if self.reuse.questions.end(id) {
            self.timers.clear(Timer::Key(id));
            self.ask_next();
        }
    }

    /// What decides a ready job's key has changed: it is asked for anew.
    pub(crate) fn ask_again(&mut self, id: JobId) {
        let Some(row) = self.jobs.get(&id).map(|job| &job.row) else { return };
        if row.state != JobState::Scheduled || self.command(id).is_none_or(|command| command.reuse.is_none()) {
            return;
        }
        if let Some(name) = self.runs_name(&self.jobs[&id].row) {
            self.leave(&name, id);
        }
        self.dequeue(id);
        self.stop_asking(id);
        self.edit_job(id).reuse = None;
        self.enqueue(id);
    }

    /// The shell has found out a job's key, or that it has none.
    pub(crate) fn on_keyed(&mut self, id: JobId, ask: u64, outcome: Result<Keyed, Unkeyed>) -> Result<(), Rejected> {
        if self.reuse.questions.number(id) != Some(ask) {
            return Err(Rejected::NotAsked(id));
        }
        self.stop_asking(id);
        match outcome {
            Ok(keyed) => self.take_key(id, keyed),
            Err(unkeyed) => self.do_without(id, unkeyed),
        }
        Ok(())
    }

    /// The shell did not answer: the step runs as any other.
    pub(crate) fn on_key_overdue(&mut self, id: JobId) {
        self.stop_asking(id);
        let why = format!("its key was not found out within {} s", limits::REUSE_KEY_MAX_MS / 1_000);
        self.do_without(id, Unkeyed { why });
    }

    fn do_without(&mut self, id: JobId, unkeyed: Unkeyed) {
        self.edit_job(id).reuse = Some(JobReuse::Unkeyed(unkeyed));
        self.book.out.push(Effect::Reuse(ReuseNews::Unkeyed));
        self.enqueue(id);
    }

    fn take_key(&mut self, id: JobId, keyed: Keyed) {
        let row = &self.jobs[&id].row;
        let fresh = row.fresh || self.builds[&row.build].row.no_reuse;
        let Some(name) = self.name_of(row, keyed.key) else { return };
        let gone = self.gone_of(&name);
        let role = if fresh { Role::Fresh } else { Role::Runs };
        let at = self.now.wall;
        self.edit_job(id).reuse =
            Some(JobReuse::Keyed(Box::new(KeyedJob { keyed, at, role, follows: None, gone, kept: None })));
        if !fresh {
            self.reuse.runs.entry(name).or_default().ready.insert(id);
        }
        self.enqueue(id);
        let hit = self.jobs.get(&id).is_some_and(|job| job.row.state == JobState::Passed);
        if !hit {
            self.book.out.push(Effect::Reuse(ReuseNews::Miss));
        }
    }

    /// All that the core knows of what decides a job's result.
    fn key_subject(&self, id: JobId) -> Option<KeySubject> {
        let row = &self.jobs.get(&id)?.row;
        let build = &self.builds.get(&row.build)?.row;
        let command = self.command(id)?;
        let reuse = command.reuse.as_ref()?;
        let number = u32::try_from(row.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
        let own = command.env.iter().chain(&build.pipeline_env).map(|(name, _)| name);
        let mut declared: Vec<String> = own.chain(&reuse.env).cloned().collect();
        declared.sort();
        declared.dedup();
        Some(KeySubject {
            build: build.id,
            job: id,
            namespace: build.namespace.clone(),
            pipeline: build.pipeline.clone(),
            source: build.origin.clone(),
            env: self.env_of(row, number, AttemptId::from_bytes([0; 16]))?,
            declared,
            made_by: self.makers(row.build),
            secrets: command.secrets.iter().map(|it| (it.key.clone(), self.secret_version(build, &it.key))).collect(),
            hosts: self.hosts_of(&shape_of(command, build.namespace.trust())),
            fresh: row.fresh || build.no_reuse,
            command: Box::new(command.clone()),
        })
    }

    /// The last attempt of each job of a build, with what its step is called.
    fn makers(&self, build: windlass_protocol::BuildId) -> BTreeMap<AttemptId, String> {
        let jobs = self.builds.get(&build).into_iter().flat_map(|build| &build.jobs);
        let rows = jobs.filter_map(|id| self.jobs.get(id)).map(|job| &job.row);
        let named = rows.filter_map(|row| {
            let name = row.node.key.as_ref().unwrap_or(&row.node.label);
            Some((*row.attempts.last()?, name.clone()))
        });
        named.collect()
    }
}
