//! What becomes of a result whose step has a key: an entry in the same commit, or a comparison with one, or why neither.

use windlass_protocol::{AgentId, AttemptId, JobId, limits};

use crate::effect::{Effect, ReuseNews};
use crate::row::{
    BuildEvent, EventRow, JobReuse, JobState, Kept, KeyedJob, Output, ReuseRow, ReusedFrom, Role, Yield, digest_of,
};
use crate::state::Core;

impl Core {
    /// What is kept beside an attempt of a job with a key while it runs on this agent.
    pub(crate) fn yields_of(&self, job: JobId, agent: AgentId) -> Option<Box<Yield>> {
        self.jobs.get(&job)?.row.reuse.as_ref()?.keyed()?;
        let (system, hooks) = self.print_of(agent).unwrap_or_default();
        Some(Box::new(Yield { system, hooks, ..Yield::default() }))
    }

    /// An attempt did what could not be done again for another build, or was given what is in no key.
    pub(crate) fn spoil(&mut self, attempt: AttemptId, why: &str) {
        let whole = |row: &&crate::row::AttemptRow| row.yields.as_ref().is_some_and(|yields| yields.spoiled.is_none());
        if self.attempts.get(&attempt).filter(whole).is_none() {
            return;
        }
        if let Some(yields) = &mut self.edit_attempt(attempt).yields {
            yields.spoiled = Some(why.to_owned());
            yields.outputs.clear();
        }
    }

    /// An attempt has uploaded what belongs to its result.
    pub(crate) fn yield_outputs(&mut self, attempt: AttemptId, artifacts: &[Output]) {
        let Some(yields) = self.attempts.get(&attempt).and_then(|row| row.yields.as_ref()) else { return };
        if yields.spoiled.is_some() {
            return;
        }
        if yields.outputs.len() + artifacts.len() > limits::REUSE_OUTPUTS_MAX {
            let why = format!("it made more than {} files", limits::REUSE_OUTPUTS_MAX);
            return self.spoil(attempt, &why);
        }
        if let Some(yields) = &mut self.edit_attempt(attempt).yields {
            yields.outputs.extend_from_slice(artifacts);
        }
    }

    /// An attempt's result is durable with this commit: what becomes of it for others.
    pub(crate) fn settle_yield(&mut self, job: JobId, attempt: AttemptId) {
        let yields = self.edit_attempt(attempt).yields.take();
        let row = &self.jobs[&job].row;
        let Some(keyed) = row.reuse.as_ref().and_then(JobReuse::keyed).cloned() else { return };
        let passed = row.state == JobState::Passed;
        if !passed && !row.state.is_final() {
            // It is tried again.
            return;
        }
        let yields = yields.map(|yields| *yields).unwrap_or_default();
        let whole = self.why_not(attempt, &keyed, &yields);
        let kept = match (&keyed.role, whole) {
            (Role::Verifies { .. }, _) if row.state == JobState::Canceled => return,
            (Role::Verifies { from, .. }, _) if !passed => {
                Kept::Differs(format!("it failed, and had passed in build #{}", from.number))
            }
            (_, _) if !passed => return,
            (Role::Verifies { outputs, from }, Ok(())) => compare(*outputs == digest_of(&yields.outputs), from),
            (_, Err(why)) => Kept::Not(why),
            (Role::Runs | Role::Fresh | Role::Reused(_), Ok(())) => {
                if self.write_entry(job, attempt, &keyed, yields.outputs) {
                    Kept::Stored
                } else {
                    Kept::Not("there is no room for its files".to_owned())
                }
            }
        };
        self.tell_kept(job, &kept);
        if let Some(JobReuse::Keyed(keyed)) = &mut self.edit_job(job).reuse {
            keyed.kept = Some(kept);
        }
    }

    fn tell_kept(&mut self, job: JobId, kept: &Kept) {
        let build = self.jobs[&job].row.build;
        let news = match kept {
            Kept::Stored => ReuseNews::Stored,
            Kept::Not(_) => ReuseNews::NotStored,
            Kept::Same => ReuseNews::Same,
            Kept::Differs(detail) => {
                let event = BuildEvent::ReuseDiffers { job, detail: detail.clone() };
                self.book.events.push(EventRow { build, at: self.now.wall, event });
                ReuseNews::Differs { build, job, detail: detail.clone() }
            }
        };
        self.book.out.push(Effect::Reuse(news));
    }

    /// Whether a result that passed may be used again; else why not, for people.
    fn why_not(&self, attempt: AttemptId, keyed: &KeyedJob, yields: &Yield) -> Result<(), String> {
        let row = &self.attempts[&attempt];
        let plain = row.outcome.as_ref().is_some_and(windlass_protocol::job::Outcome::passed);
        let agrees = |wanted: Option<_>, had| wanted.is_none() || wanted == had;
        if let Some(why) = &yields.spoiled {
            return Err(why.clone());
        }
        if !plain {
            return Err("its time was over when it passed".to_owned());
        }
        if !row.log_complete {
            return Err("its log is not whole".to_owned());
        }
        // When it was given the job, and by now where it is here: it may have been upgraded while the step ran.
        let said = [Some((yields.system, yields.hooks)), self.print_of(row.agent)];
        for (system, hooks) in said.into_iter().flatten() {
            if !agrees(keyed.keyed.system, system) {
                return Err("its agent's system is not the one that its key says".to_owned());
            }
            if !agrees(keyed.keyed.hooks, hooks) {
                return Err("its agent's hooks are not those that its key says".to_owned());
            }
        }
        // Each of its files was on the shelf when its row was written, and is for as long as that row is there.
        if self.now.wall >= row.assigned_at.plus_ms(self.policy.artifact_retention_ms) {
            return Err("it ran longer than its artifacts are kept".to_owned());
        }
        Ok(())
    }

    fn write_entry(&mut self, job: JobId, attempt: AttemptId, keyed: &KeyedJob, mut outputs: Vec<Output>) -> bool {
        let row = &self.jobs[&job].row;
        let build = &self.builds[&row.build].row;
        let Some(name) = self.name_of(row, keyed.keyed.key) else { return false };
        let (at, outcome) = (self.now.wall, self.attempts[&attempt].outcome.as_ref());
        let ran_ms = outcome.map_or(0, |it| it.finished_at.0.saturating_sub(it.started_at.unwrap_or(it.finished_at).0));
        outputs.sort();
        let from = ReusedFrom {
            pipeline: build.pipeline.clone(),
            branch: build.branch.clone(),
            build: build.id,
            number: build.number,
            job,
            attempt,
            step: row.node.label.clone(),
            at,
            ran_ms,
            fleet: None,
        };
        let (id, held) = (build.id, name.clone());
        let written = self.add_entry(ReuseRow {
            name,
            recipe: keyed.keyed.recipe,
            source: keyed.keyed.source.clone(),
            step_key: row.node.key.clone(),
            from,
            bytes: outputs.iter().map(|output| output.bytes).sum(),
            outputs,
            created_at: at,
            used_at: at,
        });
        if written {
            self.hold_for(id, &held);
        }
        written
    }
}

fn compare(same: bool, from: &ReusedFrom) -> Kept {
    if same {
        return Kept::Same;
    }
    Kept::Differs(format!("its files are not those that build #{} made of the same inputs", from.number))
}
