//! What a run reached: every input, effect, message, state and cause is counted by name, and the lists of names are
//! made by the same macro that matches them, so that none can be forgotten.

use std::collections::BTreeMap;

use windlass_agent_core as agent;
use windlass_coordinator_core as core;
use windlass_coordinator_core::effect::{AgentState, ReuseNews};
use windlass_coordinator_core::input::{AgentEvent, Request};
use windlass_coordinator_core::row::{AttemptState, BuildState, Change, Delivery, JobState, PinRequest, ReuseRequest};
use windlass_protocol::CauseKind;
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, Verdict};

/// Counts by name.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// It was reached once more.
    pub fn reach(&mut self, name: &'static str) {
        *self.counts.entry(name).or_insert(0) += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_insert(0) += count;
        }
    }

    /// How often; 0 if never.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// All names that there are, with their counts.
    #[must_use]
    pub fn table(&self) -> Vec<(&'static str, u64)> {
        all().into_iter().map(|name| (name, self.count(name))).collect()
    }
}

/// A match that names each variant, and the list of its names.
macro_rules! names {
    ($(#[$doc:meta])* $function:ident, $list:ident, $type:ty { $($pattern:pat => $name:literal,)* }) => {
        $(#[$doc])*
        #[must_use]
        pub const fn $function(value: &$type) -> &'static str {
            match value { $($pattern => $name,)* }
        }
        const $list: &[&str] = &[$($name,)*];
    };
}

names! {
    /// An input of the coordinator's core.
    core_input, CORE_INPUTS, core::Input {
        core::Input::Request { request: Request::Submit(_), .. } => "input.submit",
        core::Input::Request { request: Request::Pin(PinRequest::Pin(_)), .. } => "input.pin",
        core::Input::Request { request: Request::Pin(PinRequest::Unpin { .. }), .. } => "input.unpin",
        core::Input::Request { request: Request::CancelBuild { .. }, .. } => "input.cancel_build",
        core::Input::Request { request: Request::CancelJob { .. }, .. } => "input.cancel_job",
        core::Input::Request { request: Request::RetryBuild { .. }, .. } => "input.retry_build",
        core::Input::Request { request: Request::RetryJob { .. }, .. } => "input.retry_job",
        core::Input::Request { request: Request::Upload(_), .. } => "input.upload",
        core::Input::Request { request: Request::Speak(_), .. } => "input.speak",
        core::Input::Request { request: Request::SetMetaData { .. }, .. } => "input.set_meta_data",
        core::Input::Request { request: Request::PutArtifact(_), .. } => "input.put_artifact",
        core::Input::Request { request: Request::Unblock { .. }, .. } => "input.unblock",
        core::Input::Request { request: Request::CreatePipeline { .. }, .. } => "input.create_pipeline",
        core::Input::Request { request: Request::UpdatePipeline { .. }, .. } => "input.update_pipeline",
        core::Input::Request { request: Request::AddSchedule(_), .. } => "input.add_schedule",
        core::Input::Request { request: Request::RemoveSchedule { .. }, .. } => "input.remove_schedule",
        core::Input::Request { request: Request::CreateToken(_), .. } => "input.create_token",
        core::Input::Request { request: Request::RevokeToken { .. }, .. } => "input.revoke_token",
        core::Input::Request { request: Request::Join(_), .. } => "input.join",
        core::Input::Request { request: Request::Secret(_), .. } => "input.secret",
        core::Input::Request { request: Request::Cache(_), .. } => "input.cache",
        core::Input::Request { request: Request::Reuse(ReuseRequest::Forget { .. }), .. } => "input.forget_results",
        core::Input::Request { request: Request::Reuse(ReuseRequest::Spoil { .. }), .. } => "input.spoil",
        core::Input::Request { request: Request::Reuse(ReuseRequest::Adopt(_)), .. } => "input.adopt_result",
        core::Input::Request { request: Request::Reuse(ReuseRequest::Use(_)), .. } => "input.use_result",
        core::Input::Request { request: Request::DrainAgents { .. }, .. } => "input.drain_agents",
        core::Input::Request { request: Request::DrainMany(_), .. } => "input.drain_many",
        core::Input::Request { request: Request::ResumeAgent { .. }, .. } => "input.resume_agent",
        core::Input::Request { request: Request::RevokeAgent { .. }, .. } => "input.revoke_agent",
        core::Input::Request { request: Request::NoteUses(_), .. } => "input.note_uses",
        core::Input::Request { request: Request::Retain { .. }, .. } => "input.retain",
        core::Input::AgentHello { .. } => "input.hello",
        core::Input::Agent { event: AgentEvent::Beat { .. }, .. } => "input.beat",
        core::Input::Agent { event: AgentEvent::Stock { .. }, .. } => "input.stock",
        core::Input::Agent { event: AgentEvent::Accepted(..), .. } => "input.accepted",
        core::Input::Agent { event: AgentEvent::Refused(..), .. } => "input.refused",
        core::Input::Agent { event: AgentEvent::Started(..), .. } => "input.started",
        core::Input::Agent { event: AgentEvent::Finished(..), .. } => "input.finished",
        core::Input::Agent { event: AgentEvent::Stopped(..), .. } => "input.stopped",
        core::Input::Agent { event: AgentEvent::Draining, .. } => "input.draining",
        core::Input::Agent { event: AgentEvent::Resumed, .. } => "input.resumed",
        core::Input::Agent { event: AgentEvent::Goodbye { .. }, .. } => "input.goodbye",
        core::Input::AgentGone { .. } => "input.agent_gone",
        core::Input::Obtained { obtained: Ok(_), .. } => "input.obtained",
        core::Input::Obtained { obtained: Err(_), .. } => "input.not_obtained",
        core::Input::Keyed { outcome: Ok(_), .. } => "input.keyed",
        core::Input::Keyed { outcome: Err(_), .. } => "input.not_keyed",
        core::Input::Delivered { delivery: Delivery::Done { .. }, .. } => "input.delivered",
        core::Input::Delivered { delivery: Delivery::Later { .. }, .. } => "input.delivery_failed",
        core::Input::Delivered { delivery: Delivery::Never { .. }, .. } => "input.delivery_refused",
        core::Input::LogSettled { settled: Ok(()), .. } => "input.log_settled",
        core::Input::LogSettled { settled: Err(_), .. } => "input.log_not_settled",
    }
}

names! {
    /// What came of reuse.
    reuse_news, REUSE_NEWS, ReuseNews {
        ReuseNews::Hit { .. } => "reuse.hit",
        ReuseNews::Miss => "reuse.miss",
        ReuseNews::Unkeyed => "reuse.unkeyed",
        ReuseNews::Stored => "reuse.stored",
        ReuseNews::NotStored => "reuse.not_stored",
        ReuseNews::Evicted(_) => "reuse.evicted",
        ReuseNews::Same => "reuse.same",
        ReuseNews::Differs { .. } => "reuse.differs",
    }
}

names! {
    /// An effect of the coordinator's core.
    core_effect, CORE_EFFECTS, core::Effect {
        core::Effect::Change(_) => "effect.change",
        core::Effect::Reply { .. } => "effect.reply",
        core::Effect::Send { .. } => "effect.send",
        core::Effect::Disconnect { .. } => "effect.disconnect",
        core::Effect::SettleLog { .. } => "effect.settle_log",
        core::Effect::Obtain(_) => "effect.obtain",
        core::Effect::Key { .. } => "effect.key",
        core::Effect::Reuse(_) => "effect.reuse",
        core::Effect::Deliver(_) => "effect.deliver",
        core::Effect::FenceLog { sealed: false, .. } => "effect.fence_log",
        core::Effect::FenceLog { sealed: true, .. } => "effect.seal_log",
        core::Effect::Dispatched { .. } => "effect.dispatched",
        core::Effect::Progress(_) => "effect.progress",
        core::Effect::Retired(_) => "effect.retired",
    }
}

names! {
    /// A rejection by the coordinator's core.
    core_rejected, CORE_REJECTIONS, core::Rejected {
        core::Rejected::NotInMemory(_) => "rejected.not_in_memory",
        core::Rejected::JobNotInMemory(_) => "rejected.job_not_in_memory",
        core::Rejected::BuildEnded { .. } => "rejected.build_ended",
        core::Rejected::Job { .. } => "rejected.job",
        core::Rejected::Answer { .. } => "rejected.answer",
        core::Rejected::IdempotencyMismatch => "rejected.idempotency_mismatch",
        core::Rejected::NumberTaken { .. } => "rejected.number_taken",
        core::Rejected::PipelineChanged(_) => "rejected.pipeline_changed",
        core::Rejected::IdTaken(_) => "rejected.id_taken",
        core::Rejected::NoOrder(_) => "rejected.no_order",
        core::Rejected::NotAsked(_) => "rejected.not_asked",
        core::Rejected::NotUnderWay(_) => "rejected.not_under_way",
        core::Rejected::Limit { .. } => "rejected.limit",
        core::Rejected::Graph(_) => "rejected.graph",
        core::Rejected::PipelineExists(_) => "rejected.pipeline_exists",
        core::Rejected::NoSuchPipeline(_) => "rejected.no_such_pipeline",
        core::Rejected::NoSuchSchedule(_) => "rejected.no_such_schedule",
        core::Rejected::Setting { .. } => "rejected.setting",
        core::Rejected::PoolConflict { .. } => "rejected.pool_conflict",
        core::Rejected::NoSuchPool(_) => "rejected.no_such_pool",
        core::Rejected::NoSuchToken(_) => "rejected.no_such_token",
        core::Rejected::NoSuchAgent(_) => "rejected.no_such_agent",
        core::Rejected::Secret(_) => "rejected.secret",
        core::Rejected::Pin(_) => "rejected.pin",
        core::Rejected::Join(_) => "rejected.join",
        core::Rejected::VoidConnection(_) => "rejected.void_connection",
        core::Rejected::NoLease(_) => "rejected.no_lease",
        core::Rejected::StaleEpoch { .. } => "rejected.stale_epoch",
        core::Rejected::NotYours { .. } => "rejected.not_yours",
    }
}

names! {
    /// A reply of the coordinator's core.
    reply, REPLIES, core::Reply {
        core::Reply::Submitted { existing: false, .. } => "reply.submitted",
        core::Reply::Submitted { existing: true, .. } => "reply.submitted_before",
        core::Reply::Done => "reply.done",
        core::Reply::Secrets(_) => "reply.secrets",
        core::Reply::Cache(_) => "reply.cache",
        core::Reply::Pinned { .. } => "reply.pinned",
        core::Reply::Unpinned { .. } => "reply.unpinned",
        core::Reply::Token { .. } => "reply.token",
        core::Reply::Joined { .. } => "reply.joined",
        core::Reply::Drained { .. } => "reply.drained",
    }
}

names! {
    /// A change of the rows.
    change, CHANGES, Change {
        Change::Meta(_) => "change.meta",
        Change::PipelineNumber { .. } => "change.pipeline_number",
        Change::Build(_) => "change.build",
        Change::Job(_) => "change.job",
        Change::Attempt(_) => "change.attempt",
        Change::Pipeline(_) => "change.pipeline",
        Change::Pool(_) => "change.pool",
        Change::Agent(_) => "change.agent",
        Change::Token(_) => "change.token",
        Change::Pin(_) => "change.pin",
        Change::PinResult { .. } => "change.pin_result",
        Change::PinOver(_) => "change.pin_over",
        Change::Hold(_) => "change.hold",
        Change::TokenOver(_) => "change.token_over",
        Change::HoldOver(_) => "change.hold_over",
        Change::Schedule(_) => "change.schedule",
        Change::ScheduleOver(_) => "change.schedule_over",
        Change::Lineage(_) => "change.lineage",
        Change::LineageOver(_) => "change.lineage_over",
        Change::Secret(_) => "change.secret",
        Change::SecretGone(_) => "change.secret_gone",
        Change::Cache(_) => "change.cache",
        Change::CacheGone(_) => "change.cache_gone",
        Change::Reuse(_) => "change.reuse",
        Change::ReuseOver(_) => "change.reuse_over",
        Change::ReuseGone(_) => "change.reuse_gone",
        Change::ReuseGoneOver(_) => "change.reuse_gone_over",
        Change::AnnotationText { .. } => "change.annotation_text",
        Change::AnnotationGone(_) => "change.annotation_gone",
        Change::Idempotency(_) => "change.idempotency",
        Change::Audit(_) => "change.audit",
        Change::Event(_) => "change.event",
        Change::Definition { .. } => "change.definition",
        Change::Artifact(_) => "change.artifact",
        Change::Notification(_) => "change.notification",
    }
}

names! {
    /// A message to an agent.
    coordinator_message, COORDINATOR_MESSAGES, CoordinatorMessage {
        CoordinatorMessage::Welcome { .. } => "to_agent.welcome",
        CoordinatorMessage::BeatAck { .. } => "to_agent.beat_ack",
        CoordinatorMessage::Offer { .. } => "to_agent.offer",
        CoordinatorMessage::Cancel { .. } => "to_agent.cancel",
        CoordinatorMessage::Stop { .. } => "to_agent.stop",
        CoordinatorMessage::Committed { .. } => "to_agent.committed",
        CoordinatorMessage::LogAck { .. } => "to_agent.log_ack",
        CoordinatorMessage::Drain { .. } => "to_agent.drain",
        CoordinatorMessage::Resume => "to_agent.resume",
        CoordinatorMessage::Peers { .. } => "to_agent.peers",
        CoordinatorMessage::Knows { .. } => "to_agent.knows",
        CoordinatorMessage::Certificate { .. } => "to_agent.certificate",
        CoordinatorMessage::Refuse { .. } => "to_agent.refuse",
    }
}

names! {
    /// A message of an agent.
    agent_message, AGENT_MESSAGES, AgentMessage {
        AgentMessage::Hello(_) => "of_agent.hello",
        AgentMessage::Beat { .. } => "of_agent.beat",
        AgentMessage::Accepted { .. } => "of_agent.accepted",
        AgentMessage::Refused { .. } => "of_agent.refused",
        AgentMessage::Started { .. } => "of_agent.started",
        AgentMessage::Finished { .. } => "of_agent.finished",
        AgentMessage::Stopped { .. } => "of_agent.stopped",
        AgentMessage::Draining => "of_agent.draining",
        AgentMessage::Resumed => "of_agent.resumed",
        AgentMessage::Serves { .. } => "of_agent.serves",
        AgentMessage::Goodbye { .. } => "of_agent.goodbye",
        AgentMessage::Renew { .. } => "of_agent.renew",
        AgentMessage::Stock { .. } => "of_agent.stock",
    }
}

names! {
    /// A verdict on what an agent holds.
    verdict, VERDICTS, Verdict {
        Verdict::Keep { .. } => "verdict.keep",
        Verdict::Committed => "verdict.committed",
        Verdict::Stop => "verdict.stop",
    }
}

names! {
    /// An input of an agent's core.
    agent_input, AGENT_INPUTS, agent::Input {
        agent::Input::Connected { .. } => "agent_input.connected",
        agent::Input::ConnectionLost { .. } => "agent_input.connection_lost",
        agent::Input::Message { .. } => "agent_input.message",
        agent::Input::Prepared { .. } => "agent_input.prepared",
        agent::Input::Started { .. } => "agent_input.started",
        agent::Input::Ended { .. } => "agent_input.ended",
        agent::Input::RunnerGone { .. } => "agent_input.runner_gone",
        agent::Input::SpoolAt { .. } => "agent_input.spool_at",
        agent::Input::Signal(agent::Signal::Term) => "agent_input.sigterm",
        agent::Input::Signal(agent::Signal::Int) => "agent_input.sigint",
        agent::Input::Signal(agent::Signal::Quit) => "agent_input.sigquit",
        agent::Input::HealthSample(_) => "agent_input.health",
        agent::Input::Stock { .. } => "agent_input.stock",
        agent::Input::CertificateDue { .. } => "agent_input.certificate_due",
    }
}

names! {
    /// An effect of an agent's core.
    agent_effect, AGENT_EFFECTS, agent::Effect {
        agent::Effect::Say { .. } => "agent_effect.say",
        agent::Effect::Prepare { .. } => "agent_effect.prepare",
        agent::Effect::Start { .. } => "agent_effect.start",
        agent::Effect::Adopt { .. } => "agent_effect.adopt",
        agent::Effect::Cancel { .. } => "agent_effect.cancel",
        agent::Effect::Kill { .. } => "agent_effect.kill",
        agent::Effect::RenewLease { .. } => "agent_effect.renew_lease",
        agent::Effect::SendLog { .. } => "agent_effect.send_log",
        agent::Effect::StopLog { .. } => "agent_effect.stop_log",
        agent::Effect::TrimLog { .. } => "agent_effect.trim_log",
        agent::Effect::ForgetAttempt { .. } => "agent_effect.forget_attempt",
        agent::Effect::InstallCertificate { .. } => "agent_effect.install_certificate",
        agent::Effect::Reconnect { .. } => "agent_effect.reconnect",
        agent::Effect::Leave { .. } => "agent_effect.leave",
    }
}

names! {
    /// A rejection by an agent's core.
    agent_rejected, AGENT_REJECTIONS, agent::Rejected {
        agent::Rejected::Left => "agent_rejected.left",
        agent::Rejected::VoidConnection(_) => "agent_rejected.void_connection",
        agent::Rejected::OutOfTurn(_) => "agent_rejected.out_of_turn",
        agent::Rejected::NotHeld(_) => "agent_rejected.not_held",
        agent::Rejected::StaleEpoch { .. } => "agent_rejected.stale_epoch",
        agent::Rejected::BeyondLog { .. } => "agent_rejected.beyond_log",
        agent::Rejected::OutOfStage { .. } => "agent_rejected.out_of_stage",
    }
}

names! {
    /// A build's state.
    build_state_name, BUILD_STATES, BuildState {
        BuildState::Creating => "build.creating",
        BuildState::Scheduled => "build.scheduled",
        BuildState::Running => "build.running",
        BuildState::Failing => "build.failing",
        BuildState::Passed => "build.passed",
        BuildState::Failed => "build.failed",
        BuildState::Canceling => "build.canceling",
        BuildState::Canceled => "build.canceled",
        BuildState::Skipped => "build.skipped",
        BuildState::NotRun => "build.not_run",
    }
}

names! {
    /// A job's state.
    job_state_name, JOB_STATES, JobState {
        JobState::Pending => "job.pending",
        JobState::Waiting => "job.waiting",
        JobState::WaitingFailed => "job.waiting_failed",
        JobState::Blocked => "job.blocked",
        JobState::BlockedFailed => "job.blocked_failed",
        JobState::Unblocked => "job.unblocked",
        JobState::UnblockedFailed => "job.unblocked_failed",
        JobState::Limiting => "job.limiting",
        JobState::Limited => "job.limited",
        JobState::Scheduled => "job.scheduled",
        JobState::Assigned => "job.assigned",
        JobState::Accepted => "job.accepted",
        JobState::Running => "job.running",
        JobState::Passed => "job.passed",
        JobState::Failed => "job.failed",
        JobState::Canceling => "job.canceling",
        JobState::Canceled => "job.canceled",
        JobState::TimingOut => "job.timing_out",
        JobState::TimedOut => "job.timed_out",
        JobState::Skipped => "job.skipped",
        JobState::Broken => "job.broken",
        JobState::Expired => "job.expired",
    }
}

names! {
    /// An attempt's state.
    attempt_state_name, ATTEMPT_STATES, AttemptState {
        AttemptState::Assigned => "attempt.assigned",
        AttemptState::Accepted => "attempt.accepted",
        AttemptState::Running => "attempt.running",
        AttemptState::Finished => "attempt.finished",
        AttemptState::Canceled => "attempt.canceled",
        AttemptState::Lost => "attempt.lost",
    }
}

names! {
    /// An agent's state.
    agent_state_name, AGENT_STATES, AgentState {
        AgentState::Joining => "agent.joining",
        AgentState::Online => "agent.online",
        AgentState::Suspect => "agent.suspect",
        AgentState::Lost => "agent.lost",
        AgentState::Draining => "agent.draining",
        AgentState::Paused => "agent.paused",
        AgentState::Quarantined => "agent.quarantined",
        AgentState::Gone => "agent.gone",
    }
}

names! {
    /// An attempt's stage on its agent.
    stage_name, STAGES, agent::StageName {
        agent::StageName::Preparing => "stage.preparing",
        agent::StageName::Starting => "stage.starting",
        agent::StageName::Running => "stage.running",
        agent::StageName::Canceling => "stage.canceling",
        agent::StageName::Killing => "stage.killing",
        agent::StageName::Finished => "stage.finished",
    }
}

names! {
    /// Why an agent left.
    exit_name, EXITS, agent::Exit {
        agent::Exit::Drained => "exit.drained",
        agent::Exit::Quit => "exit.quit",
        agent::Exit::Refused(_) => "exit.refused",
    }
}

/// Faults that the simulation makes.
pub const FAULTS: &[&str] = &[
    "fault.commit_failed",
    "fault.coordinator_crash",
    "fault.agent_crash",
    "fault.host_wiped",
    "fault.power_cut",
    "fault.partition",
    "fault.zone_partition",
    "fault.connection_broken",
    "fault.suspend",
    "fault.slow_store",
    "fault.slow_link",
    "fault.signal",
    "fault.disk_full",
    "fault.cut_off",
    "fault.forged_result",
];

/// A build's state.
#[must_use]
pub const fn build_state(state: BuildState) -> &'static str {
    build_state_name(&state)
}

/// A job's state.
#[must_use]
pub const fn job_state(state: JobState) -> &'static str {
    job_state_name(&state)
}

/// An attempt's state.
#[must_use]
pub const fn attempt_state(state: AttemptState) -> &'static str {
    attempt_state_name(&state)
}

/// An agent's state.
#[must_use]
pub const fn agent_state(state: AgentState) -> &'static str {
    agent_state_name(&state)
}

/// A stage.
#[must_use]
pub const fn stage(stage: agent::StageName) -> &'static str {
    stage_name(&stage)
}

/// Why an agent left.
#[must_use]
pub const fn exit(exit: agent::Exit) -> &'static str {
    exit_name(&exit)
}

/// A kind of cause; its name is the interface's.
#[must_use]
pub const fn cause(kind: CauseKind) -> &'static str {
    kind.name()
}

/// Every name that there is.
#[must_use]
pub fn all() -> Vec<&'static str> {
    let lists = [
        CORE_INPUTS,
        CORE_EFFECTS,
        REUSE_NEWS,
        CORE_REJECTIONS,
        REPLIES,
        CHANGES,
        COORDINATOR_MESSAGES,
        AGENT_MESSAGES,
        VERDICTS,
        AGENT_INPUTS,
        AGENT_EFFECTS,
        AGENT_REJECTIONS,
        BUILD_STATES,
        JOB_STATES,
        ATTEMPT_STATES,
        AGENT_STATES,
        STAGES,
        EXITS,
        FAULTS,
    ];
    let named = lists.into_iter().flatten().copied();
    named.chain(CauseKind::ALL.iter().map(|kind| kind.name())).collect()
}
