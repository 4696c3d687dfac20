//! What clients ask for: each request is checked whole, then done, noted in the audit trail and answered.

use std::collections::BTreeMap;

use windlass_protocol::{AgentId, BuildId, CauseKind, TokenId, WallMs, limits};

use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::{ReplyTo, Request};
use crate::row::{Actor, AuditRow};
use crate::state::Core;

impl Core {
    pub(crate) fn on_request(&mut self, to: ReplyTo, actor: &Actor, request: Request) -> Result<(), Rejected> {
        match request {
            Request::Submit(submit) => return self.submit(to, actor, *submit),
            Request::CreateToken(new) => return self.create_token(to, actor, *new),
            Request::Join(joining) => return self.join(to, *joining),
            Request::Secret(secret) => return self.on_secret(to, actor, *secret),
            Request::Cache(request) => return self.on_cache(to, actor, *request),
            Request::Pin(request) => return self.on_pin(to, actor, request),
            Request::CancelBuild { build, detail } => {
                self.check_cancel_build(build)?;
                self.cancel_build(build, Self::cause(CauseKind::Canceled, &detail));
                self.audit(actor, "build.cancel", &build.to_string(), &detail);
            }
            Request::CancelJob { job, grace_ms } => {
                self.check_cancel_job(job)?;
                let detail = format!("canceled by {}", actor.name);
                self.cancel_job(job, Self::cause(CauseKind::Canceled, &detail), grace_ms);
                self.audit(actor, "job.cancel", &job.to_string(), "");
            }
            Request::RetryBuild { build, rows } => {
                self.retry_build(build, rows.map(|rows| *rows))?;
                self.audit(actor, "build.retry", &build.to_string(), "");
            }
            Request::RetryJob { job, rows } => {
                self.retry_job(job, rows.map(|rows| *rows))?;
                self.audit(actor, "job.retry", &job.to_string(), "");
            }
            Request::Unblock { job, answers } => {
                let detail = self.unblock(actor, job, &answers)?;
                self.audit(actor, "job.unblock", &job.to_string(), &detail);
            }
            Request::Upload(upload) => {
                let target = upload.attempt.to_string();
                let detail = self.upload(*upload)?;
                if !detail.is_empty() {
                    self.audit(actor, "build.upload", &target, &detail);
                }
            }
            Request::Speak(speech) => self.speak(actor, *speech)?,
            Request::SetMetaData { build, values } => self.write_meta_data(actor, build, values)?,
            Request::CreatePipeline { id, name, change } => self.create_pipeline(actor, id, &name, *change)?,
            Request::UpdatePipeline { name, change } => self.update_pipeline(actor, &name, *change)?,
            Request::AddSchedule(new) => self.add_schedule(actor, *new)?,
            Request::RemoveSchedule { schedule } => self.remove_schedule(actor, schedule)?,
            Request::PutArtifact(put) => self.put_artifact(actor, *put)?,
            Request::Reuse(request) => self.on_reuse(&request)?,
            Request::RevokeToken { token, and_agents } => self.revoke_token(actor, token, and_agents)?,
            Request::DrainMany(order) => return self.drain_many(to, actor, &order),
            Request::DrainAgents { agents, deadline_ms, on_deadline } => {
                self.known(&agents)?;
                Self::check_drain(deadline_ms)?;
                self.drain(actor, &agents, deadline_ms, on_deadline);
            }
            Request::ResumeAgent { agent } => {
                self.known(&[agent])?;
                self.resume(agent);
                self.audit(actor, "agent.resume", &agent.to_string(), "");
            }
            Request::RevokeAgent { agent } => {
                self.known(&[agent])?;
                self.revoke_agent(agent);
                self.audit(actor, "agent.revoke", &agent.to_string(), "");
            }
            Request::NoteUses(uses) => self.note_uses(&uses),
            Request::Retain { idempotency_before, tokens_before } => {
                self.idempotency.retain(|_, row| row.at >= idempotency_before);
                self.forget_tokens(tokens_before);
            }
        }
        self.book.out.push(Effect::Reply { to, reply: Reply::Done });
        Ok(())
    }

    /// Sets meta-data for a client.
    fn write_meta_data(
        &mut self,
        actor: &Actor,
        build: BuildId,
        values: BTreeMap<String, String>,
    ) -> Result<(), Rejected> {
        let keys = values.keys().cloned().collect::<Vec<_>>().join(" ");
        self.set_meta_data(build, values)?;
        self.audit(actor, "build.meta_data", &build.to_string(), &keys);
        Ok(())
    }

    fn known(&self, agents: &[AgentId]) -> Result<(), Rejected> {
        match agents.iter().find(|agent| !self.agents.contains_key(agent)) {
            Some(unknown) => Err(Rejected::NoSuchAgent(*unknown)),
            None => Ok(()),
        }
    }

    /// A later use than the one that is known is written down; a token that is no more has none.
    fn note_uses(&mut self, uses: &[(TokenId, WallMs)]) {
        for (id, at) in uses {
            let Some(token) = self.tokens.get_mut(id).filter(|token| token.last_used_at < Some(*at)) else { continue };
            token.last_used_at = Some(*at);
            self.book.tokens.insert(*id);
        }
    }

    /// A line of the audit trail.
    pub(crate) fn audit(&mut self, actor: &Actor, action: &str, target: &str, detail: &str) {
        let end = detail.floor_char_boundary(limits::DETAIL_MAX_BYTES);
        self.book.audits.push(AuditRow {
            at: self.now.wall,
            actor: actor.clone(),
            action: action.to_owned(),
            target: target.to_owned(),
            detail: detail.get(..end).unwrap_or_default().to_owned(),
        });
    }
}
