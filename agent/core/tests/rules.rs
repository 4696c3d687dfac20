//! The agent's rules, one test each, through the core's public face.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use windlass_agent_core::{
    AgentConfig, AgentCore, Bugs, ConnId, Effect, Exit, Found, Input, Rejected, Signal, StageName, Terms,
};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources, Source};
use windlass_protocol::limits::{BEATS_UNANSWERED_MAX, KILL_VERIFY_MS, QUIT_FLUSH_MS};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, Health, RefuseCode, Verdict};
use windlass_protocol::{AttemptId, BuildId, Cause, CauseKind, Digest, Instant64, JobId, Namespace, Now, WallMs};

const LEASE_MS: u64 = 60_000;
const BEAT_MS: u64 = 5_000;

/// An agent with a clock of its own and everything that it has asked for.
struct Agent {
    core: AgentCore,
    now: u64,
    conn: u64,
    done: Vec<Effect>,
}

fn config() -> AgentConfig {
    AgentConfig {
        name: "a".to_owned(),
        version: "0".to_owned(),
        machine_id: "m".to_owned(),
        boot_id: "boot".to_owned(),
        slots: 2,
        capacity: Resources { cpu_millis: 2_000, memory_bytes: 1 << 30 },
        tags: Vec::new(),
        runs_images: false,
        capabilities: Vec::new(),
        host: windlass_protocol::HostFacts::default(),
        once: false,
        seed: 1,
        bugs: Bugs::default(),
    }
}

fn id(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

fn job(number: u8) -> JobSpec {
    JobSpec {
        attempt: id(number),
        attempt_number: 1,
        job: JobId::from_bytes([number; 16]),
        build: BuildId::from_bytes([number; 16]),
        build_number: 1,
        pipeline: "p".to_owned(),
        step_key: None,
        label: "l".to_owned(),
        command: "true".to_owned(),
        env: Vec::new(),
        image: None,
        source: Source::Empty,
        namespace: Namespace::trusted("p"),
        queue: "default".to_owned(),
        timeout_ms: None,
        grace_ms: 10_000,
        resources: Resources::default(),
        exclusive: false,
        interruptible: false,
        tty: false,
        keep_workspace: false,
        log_limit_bytes: 1 << 20,
    }
}

fn outcome(status: i32, log_bytes: u64) -> Outcome {
    Outcome {
        exit_status: Some(status),
        signal: None,
        cause: None,
        started_at: Some(WallMs(1)),
        finished_at: WallMs(2),
        log_bytes,
        log_digest: Digest::of(b""),
        log_truncated: false,
        peak_memory_bytes: None,
    }
}

impl Agent {
    fn new(config: AgentConfig, found: Vec<Found>) -> Self {
        let mut agent = Self { core: AgentCore::new(at(1_000), config, found), now: 1_000, conn: 0, done: Vec::new() };
        agent.drain();
        agent
    }

    /// Connected and welcomed, with the first beat answered.
    fn welcomed(config: AgentConfig) -> Self {
        let mut agent = Self::new(config, Vec::new());
        agent.connect(Vec::new());
        agent.answer_beats();
        agent.done.clear();
        agent
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.done.push(effect);
        }
        self.core.check().unwrap();
    }

    fn put(&mut self, input: Input) -> Result<(), Rejected> {
        let result = self.core.handle(at(self.now), input);
        self.drain();
        result
    }

    fn tell(&mut self, message: CoordinatorMessage) -> Result<(), Rejected> {
        self.put(Input::Message { conn: ConnId(self.conn), message })
    }

    fn connect(&mut self, verdicts: Vec<(AttemptId, Verdict)>) {
        self.conn += 1;
        self.put(Input::Connected { conn: ConnId(self.conn) }).unwrap();
        let welcome =
            CoordinatorMessage::Welcome { session: self.conn, lease_ms: LEASE_MS, beat_ms: BEAT_MS, verdicts };
        self.tell(welcome).unwrap();
    }

    fn lose(&mut self) {
        self.put(Input::ConnectionLost { conn: ConnId(self.conn) }).unwrap();
    }

    fn offer(&mut self, epoch: u64, job: JobSpec) -> Result<(), Rejected> {
        self.tell(CoordinatorMessage::Offer { epoch: Epoch(epoch), job: Box::new(job) })
    }

    /// Offered, prepared and started.
    fn run(&mut self, epoch: u64, job: JobSpec) {
        let attempt = job.attempt;
        self.offer(epoch, job).unwrap();
        self.put(Input::Prepared { attempt }).unwrap();
        self.put(Input::Started { attempt, at: WallMs(self.now) }).unwrap();
    }

    /// Time passes; every timer on the way fires at its time.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(due) = self.core.poll_timeout().filter(|due| due.0 <= end) {
            self.now = self.now.max(due.0);
            self.core.handle_timeout(at(self.now));
            self.drain();
        }
        self.now = end;
    }

    fn answer_beats(&mut self) {
        let seqs: Vec<u64> = self
            .said()
            .filter_map(|said| if let AgentMessage::Beat { seq, .. } = said { Some(*seq) } else { None })
            .collect();
        for seq in seqs {
            self.tell(CoordinatorMessage::BeatAck { seq, beat_ms: BEAT_MS }).unwrap();
        }
    }

    fn said(&self) -> impl Iterator<Item = &AgentMessage> {
        self.done
            .iter()
            .filter_map(|effect| if let Effect::Say { message, .. } = effect { Some(message.as_ref()) } else { None })
    }

    fn has(&self, wanted: &Effect) -> bool {
        self.done.contains(wanted)
    }

    fn refused(&self) -> Option<CauseKind> {
        self.said()
            .find_map(|said| if let AgentMessage::Refused { cause, .. } = said { Some(cause.kind) } else { None })
    }

    fn stage(&self, number: u8) -> Option<StageName> {
        self.core.held().find(|(attempt, ..)| *attempt == id(number)).map(|(_, _, stage)| stage)
    }
}

const fn at(ms: u64) -> Now {
    Now { mono: Instant64(ms), wall: WallMs(1_700_000_000_000 + ms) }
}

#[test]
fn no_offer_is_taken_before_the_welcome() {
    let mut agent = Agent::new(config(), Vec::new());
    agent.conn = 1;
    agent.put(Input::Connected { conn: ConnId(1) }).unwrap();
    assert!(matches!(agent.offer(1, job(1)), Err(Rejected::OutOfTurn(_))));
    assert_eq!(agent.stage(1), None);
}

#[test]
fn messages_of_a_connection_that_is_over_are_not_believed() {
    let mut agent = Agent::welcomed(config());
    agent.lose();
    agent.connect(Vec::new());
    let late = CoordinatorMessage::Offer { epoch: Epoch(9), job: Box::new(job(1)) };
    assert_eq!(agent.put(Input::Message { conn: ConnId(1), message: late }), Err(Rejected::VoidConnection(ConnId(1))));
    assert_eq!(agent.stage(1), None);
}

#[test]
fn an_offer_repeated_changes_nothing_an_older_one_is_ignored_and_a_newer_one_is_adopted() {
    let mut agent = Agent::welcomed(config());
    agent.run(5, job(1));
    agent.done.clear();
    agent.offer(5, job(1)).unwrap();
    assert!(agent.said().any(|said| *said == AgentMessage::Accepted { attempt: id(1), epoch: Epoch(5) }));
    assert!(!agent.done.iter().any(|effect| matches!(effect, Effect::Prepare { .. })));
    assert!(matches!(agent.offer(4, job(1)), Err(Rejected::StaleEpoch { .. })));
    agent.offer(7, job(1)).unwrap();
    assert!(agent.has(&Effect::Adopt { attempt: id(1), epoch: Epoch(7) }));
    assert_eq!(agent.core.held().next(), Some((id(1), Epoch(7), StageName::Running)));
}

#[test]
fn an_offer_that_comes_again_after_its_commit_starts_nothing() {
    let mut agent = Agent::welcomed(config());
    agent.run(5, job(1));
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(0, 0)) }).unwrap();
    agent.tell(CoordinatorMessage::Committed { attempt: id(1), epoch: Epoch(5) }).unwrap();
    assert!(agent.has(&Effect::ForgetAttempt { attempt: id(1) }));
    assert!(matches!(agent.offer(5, job(1)), Err(Rejected::StaleEpoch { .. })));
    assert_eq!(agent.stage(1), None);
}

#[test]
fn slots_processors_and_memory_are_never_given_twice() {
    let mut agent = Agent::welcomed(config());
    let mut large = job(1);
    large.resources = Resources { cpu_millis: 1_500, memory_bytes: 1 << 29 };
    agent.offer(1, large).unwrap();
    let mut second = job(2);
    second.resources = Resources { cpu_millis: 501, memory_bytes: 0 };
    agent.offer(2, second.clone()).unwrap();
    assert_eq!(agent.refused(), Some(CauseKind::Internal));
    second.resources = Resources { cpu_millis: 500, memory_bytes: 1 << 29 };
    agent.offer(3, second).unwrap();
    let mut third = job(3);
    third.resources = Resources { cpu_millis: 1, memory_bytes: 0 };
    agent.done.clear();
    agent.offer(4, third).unwrap();
    assert_eq!((agent.core.held().count(), agent.refused()), (2, Some(CauseKind::Internal)));
}

#[test]
fn a_right_counts_from_when_the_answered_beat_was_sent_and_what_has_not_started_by_then_never_starts() {
    let mut agent = Agent::welcomed(config());
    let sent = agent.now;
    agent.offer(1, job(1)).unwrap();
    agent.lose();
    agent.pass(LEASE_MS - 1);
    assert_eq!(agent.stage(1), Some(StageName::Preparing));
    agent.pass(1);
    assert_eq!(agent.now, sent + LEASE_MS);
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    agent.put(Input::Prepared { attempt: id(1) }).unwrap();
    assert!(!agent.done.iter().any(|effect| matches!(effect, Effect::Start { .. })));
}

#[test]
fn a_machine_that_wakes_up_late_finds_its_rights_over_before_it_believes_anything() {
    let mut agent = Agent::welcomed(config());
    agent.offer(1, job(1)).unwrap();
    agent.now += LEASE_MS + 1;
    agent.put(Input::Prepared { attempt: id(1) }).unwrap();
    assert!(!agent.done.iter().any(|effect| matches!(effect, Effect::Start { .. })));
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
}

#[test]
fn an_exclusive_job_is_killed_with_its_right_and_only_said_to_be_stopped_on_return() {
    let mut agent = Agent::welcomed(config());
    let mut only = job(1);
    only.exclusive = true;
    agent.run(3, only);
    agent.lose();
    agent.pass(LEASE_MS);
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    agent.put(Input::RunnerGone { attempt: id(1) }).unwrap();
    agent.connect(Vec::new());
    assert!(agent.said().any(|said| *said == AgentMessage::Stopped { attempt: id(1), epoch: Epoch(3) }));
    assert!(!agent.said().any(|said| matches!(said, AgentMessage::Finished { .. })));
}

#[test]
fn an_exclusive_jobs_supervisor_hears_of_every_renewal() {
    let mut agent = Agent::welcomed(config());
    let mut only = job(1);
    only.exclusive = true;
    agent.run(3, only);
    agent.pass(2 * BEAT_MS);
    let sent = agent.done.iter().rev().find_map(|effect| match effect {
        Effect::Say { message, .. } => match message.as_ref() {
            AgentMessage::Beat { seq, .. } => Some(*seq),
            _ => None,
        },
        _ => None,
    });
    let before = agent.now;
    agent.tell(CoordinatorMessage::BeatAck { seq: sent.unwrap(), beat_ms: BEAT_MS }).unwrap();
    let deadline = agent.done.iter().find_map(|effect| match effect {
        Effect::RenewLease { deadline, .. } => Some(deadline.0),
        _ => None,
    });
    assert!(deadline.is_some_and(|deadline| deadline <= before + LEASE_MS && deadline > 1_000 + LEASE_MS));
}

#[test]
fn an_ordinary_job_outlives_its_right_and_waits_for_the_verdict() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.put(Input::SpoolAt { attempt: id(1), end: 100 }).unwrap();
    agent.tell(CoordinatorMessage::LogAck { attempt: id(1), offset: 40 }).unwrap();
    agent.lose();
    agent.pass(10 * LEASE_MS);
    assert_eq!(agent.stage(1), Some(StageName::Running));
    agent.done.clear();
    agent.connect(vec![(id(1), Verdict::Keep { epoch: Epoch(8), log_offset: 60 })]);
    assert!(agent.has(&Effect::Adopt { attempt: id(1), epoch: Epoch(8) }));
    let send = Effect::SendLog { conn: ConnId(2), attempt: id(1), epoch: Epoch(8), from_offset: 60 };
    assert!(agent.has(&send));
}

#[test]
fn a_result_is_told_on_every_connection_until_it_is_committed() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.lose();
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(4, 10)) }).unwrap();
    let keep = |offset| vec![(id(1), Verdict::Keep { epoch: Epoch(3), log_offset: offset })];
    for offset in [0, 10] {
        agent.done.clear();
        agent.connect(keep(offset));
        assert!(agent.said().any(|said| matches!(said, AgentMessage::Finished { epoch: Epoch(3), .. })));
        agent.lose();
    }
    agent.connect(vec![(id(1), Verdict::Committed)]);
    assert!(agent.has(&Effect::ForgetAttempt { attempt: id(1) }));
}

#[test]
fn a_stop_kills_and_is_answered_only_when_the_processes_are_gone() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    let stopped = AgentMessage::Stopped { attempt: id(1), epoch: Epoch(3) };
    assert!(matches!(
        agent.tell(CoordinatorMessage::Stop { attempt: id(1), epoch: Epoch(2) }),
        Err(Rejected::StaleEpoch { .. })
    ));
    agent.tell(CoordinatorMessage::Stop { attempt: id(1), epoch: Epoch(3) }).unwrap();
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    assert!(!agent.said().any(|said| *said == stopped));
    agent.put(Input::RunnerGone { attempt: id(1) }).unwrap();
    assert!(agent.said().any(|said| *said == stopped));
    assert!(!agent.has(&Effect::ForgetAttempt { attempt: id(1) }), "the coordinator has not said that it knows");
    agent.lose();
    agent.done.clear();
    agent.connect(vec![(id(1), Verdict::Stop)]);
    let held =
        agent.said().find_map(|said| if let AgentMessage::Hello(hello) = said { Some(hello.held.len()) } else { None });
    assert_eq!(held, Some(1), "what ran and was stopped is told until it is known durably");
    assert!(agent.said().any(|said| *said == stopped));
    agent.tell(CoordinatorMessage::Committed { attempt: id(1), epoch: Epoch(3) }).unwrap();
    assert!(agent.has(&Effect::ForgetAttempt { attempt: id(1) }));
    agent.tell(CoordinatorMessage::Stop { attempt: id(9), epoch: Epoch(4) }).unwrap();
    assert!(agent.said().any(|said| *said == AgentMessage::Stopped { attempt: id(9), epoch: Epoch(4) }));
}

#[test]
fn what_started_is_said_to_have_started_before_it_is_said_to_be_stopped() {
    let mut agent = Agent::welcomed(config());
    agent.offer(3, job(1)).unwrap();
    agent.lose();
    agent.conn += 1;
    agent.put(Input::Connected { conn: ConnId(agent.conn) }).unwrap();
    // It starts between a hello that says otherwise and its welcome.
    agent.put(Input::Prepared { attempt: id(1) }).unwrap();
    agent.put(Input::Started { attempt: id(1), at: WallMs(7) }).unwrap();
    let verdicts = vec![(id(1), Verdict::Stop)];
    agent.done.clear();
    agent.tell(CoordinatorMessage::Welcome { session: 2, lease_ms: LEASE_MS, beat_ms: BEAT_MS, verdicts }).unwrap();
    agent.put(Input::RunnerGone { attempt: id(1) }).unwrap();
    let said: Vec<_> = agent.said().filter(|said| !matches!(said, AgentMessage::Beat { .. })).cloned().collect();
    let started = AgentMessage::Started { attempt: id(1), epoch: Epoch(3), at: WallMs(7) };
    assert_eq!(said, [started, AgentMessage::Stopped { attempt: id(1), epoch: Epoch(3) }]);
}

#[test]
fn an_agent_that_cannot_kill_says_so_takes_nothing_and_tries_again() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.tell(CoordinatorMessage::Stop { attempt: id(1), epoch: Epoch(3) }).unwrap();
    agent.done.clear();
    agent.pass(KILL_VERIFY_MS);
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    agent.offer(4, job(2)).unwrap();
    assert_eq!(agent.refused(), Some(CauseKind::Internal));
    agent.pass(BEAT_MS * 2);
    assert!(
        agent.said().any(|said| matches!(said, AgentMessage::Beat { health: Health { cannot_kill: true, .. }, .. }))
    );
    agent.put(Input::RunnerGone { attempt: id(1) }).unwrap();
    agent.offer(5, job(2)).unwrap();
    assert_eq!(agent.stage(2), Some(StageName::Preparing));
}

#[test]
fn a_full_disk_refuses_with_its_cause() {
    let mut agent = Agent::welcomed(config());
    agent.put(Input::HealthSample(Health { disk_full: true, ..Health::default() })).unwrap();
    agent.offer(1, job(1)).unwrap();
    assert_eq!(agent.refused(), Some(CauseKind::DiskFull));
}

#[test]
fn a_timeout_is_a_cancel_with_its_cause() {
    let mut agent = Agent::welcomed(config());
    let mut timed = job(1);
    timed.timeout_ms = Some(7_000);
    agent.run(3, timed);
    agent.pass(6_999);
    assert_eq!(agent.stage(1), Some(StageName::Running));
    agent.pass(1);
    assert_eq!(agent.stage(1), Some(StageName::Canceling));
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(0, 0)) }).unwrap();
    let cause = agent.said().find_map(|said| match said {
        AgentMessage::Finished { outcome, .. } => outcome.cause.as_ref().map(|cause| cause.kind),
        _ => None,
    });
    assert_eq!(cause, Some(CauseKind::Timeout));
}

#[test]
fn the_signal_ladder_finishes_then_cancels_then_quits() {
    let mut agent = Agent::welcomed(config());
    let mut gentle = job(2);
    gentle.interruptible = true;
    agent.run(3, job(1));
    agent.run(4, gentle);
    agent.put(Input::Signal(Signal::Term)).unwrap();
    assert!(agent.said().any(|said| *said == AgentMessage::Draining));
    assert_eq!((agent.stage(1), agent.stage(2)), (Some(StageName::Running), Some(StageName::Canceling)));
    agent.offer(5, job(3)).unwrap();
    assert_eq!(agent.refused(), Some(CauseKind::AgentStopped));
    agent.put(Input::Signal(Signal::Int)).unwrap();
    assert_eq!(agent.stage(1), Some(StageName::Canceling));
    agent.done.clear();
    agent.put(Input::Signal(Signal::Term)).unwrap();
    assert!(agent.done.iter().any(|effect| matches!(effect, Effect::Cancel { grace_ms: 0, .. })));
    agent.pass(QUIT_FLUSH_MS);
    assert_eq!(agent.done.last(), Some(&Effect::Leave { exit: Exit::Quit }));
    assert_eq!(agent.core.poll_timeout(), None);
}

#[test]
fn a_drained_agent_leaves_only_when_its_last_result_is_committed() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.put(Input::Signal(Signal::Term)).unwrap();
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(0, 0)) }).unwrap();
    assert!(!agent.done.iter().any(|effect| matches!(effect, Effect::Leave { .. })));
    agent.tell(CoordinatorMessage::Committed { attempt: id(1), epoch: Epoch(3) }).unwrap();
    assert!(agent.said().any(|said| matches!(said, AgentMessage::Goodbye { .. })));
    assert_eq!(agent.done.last(), Some(&Effect::Leave { exit: Exit::Drained }));
}

#[test]
fn a_drains_deadline_is_the_total_and_a_resume_takes_it_back() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.tell(CoordinatorMessage::Drain { deadline_ms: Some(12_000), leave: false }).unwrap();
    agent.pass(1_999);
    assert_eq!(agent.stage(1), Some(StageName::Running));
    agent.pass(1);
    assert_eq!(agent.stage(1), Some(StageName::Canceling), "ten seconds of grace fit before the deadline");
    agent.tell(CoordinatorMessage::Resume).unwrap();
    assert!(agent.said().any(|said| *said == AgentMessage::Resumed));
    agent.offer(4, job(2)).unwrap();
    assert_eq!(agent.stage(2), Some(StageName::Preparing));
}

#[test]
fn a_drain_goes_on_after_a_reconnection_only_if_the_coordinator_says_so_and_keeps_its_deadline() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.tell(CoordinatorMessage::Drain { deadline_ms: Some(30_000), leave: false }).unwrap();
    agent.lose();
    agent.connect(vec![(id(1), Verdict::Keep { epoch: Epoch(3), log_offset: 0 })]);
    agent.tell(CoordinatorMessage::Drain { deadline_ms: None, leave: false }).unwrap();
    agent.pass(20_000);
    assert_eq!(agent.stage(1), Some(StageName::Canceling));
    agent.lose();
    agent.connect(vec![(id(1), Verdict::Keep { epoch: Epoch(3), log_offset: 0 })]);
    agent.offer(4, job(2)).unwrap();
    assert_eq!(agent.stage(2), Some(StageName::Preparing), "it was resumed while nobody could tell it");
}

#[test]
fn an_attempt_that_has_ended_makes_room_before_its_result_is_committed() {
    let mut agent = Agent::welcomed(AgentConfig { slots: 1, ..config() });
    agent.run(3, job(1));
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(0, 0)) }).unwrap();
    agent.offer(4, job(2)).unwrap();
    assert_eq!((agent.stage(1), agent.stage(2)), (Some(StageName::Finished), Some(StageName::Preparing)));
}

#[test]
fn once_is_one_job_then_leave() {
    let mut agent = Agent::welcomed(AgentConfig { once: true, ..config() });
    agent.run(3, job(1));
    agent.offer(4, job(2)).unwrap();
    assert_eq!(agent.refused(), Some(CauseKind::AgentStopped));
    agent.put(Input::Ended { attempt: id(1), outcome: Box::new(outcome(0, 0)) }).unwrap();
    agent.tell(CoordinatorMessage::Committed { attempt: id(1), epoch: Epoch(3) }).unwrap();
    assert_eq!(agent.done.last(), Some(&Effect::Leave { exit: Exit::Drained }));
}

#[test]
fn unanswered_beats_end_a_connection() {
    let mut agent = Agent::welcomed(config());
    agent.pass(BEAT_MS * 11 / 10 * (BEATS_UNANSWERED_MAX as u64 + 2));
    assert!(agent.done.iter().any(|effect| matches!(effect, Effect::Reconnect { .. })));
}

#[test]
fn a_refusal_for_good_ends_the_agent_and_another_only_the_connection() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    let refuse = |code| CoordinatorMessage::Refuse { code, detail: String::new() };
    agent.tell(refuse(RefuseCode::Unavailable)).unwrap();
    assert_eq!(agent.stage(1), Some(StageName::Running));
    agent.connect(vec![(id(1), Verdict::Keep { epoch: Epoch(3), log_offset: 0 })]);
    agent.tell(refuse(RefuseCode::AgentRevoked)).unwrap();
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    assert_eq!(agent.done.last(), Some(&Effect::Leave { exit: Exit::Refused(RefuseCode::AgentRevoked) }));
}

#[test]
fn a_restarted_agent_takes_up_what_runs_and_drops_what_never_started_or_ended_with_its_right() {
    let found = |number: u8, phase, started_at, outcome| Found {
        attempt: id(number),
        terms: Some(Terms::from(&job(number))),
        epoch: Epoch(u64::from(number)),
        phase,
        started_at,
        outcome,
        deadline: None,
        spool_start: 0,
        spool_end: 0,
    };
    let mut lapsed = outcome(0, 0);
    lapsed.cause = Some(Cause::new(CauseKind::LeaseLost, "its supervisor ended it"));
    let mut agent = Agent::new(
        config(),
        vec![
            found(1, Phase::Preparing, None, None),
            found(2, Phase::Running, Some(WallMs(5)), None),
            found(3, Phase::Finished, Some(WallMs(5)), Some(outcome(0, 0))),
            found(4, Phase::Finished, Some(WallMs(5)), Some(lapsed)),
        ],
    );
    assert_eq!((agent.stage(1), agent.stage(4)), (None, None));
    assert_eq!((agent.stage(2), agent.stage(3)), (Some(StageName::Running), Some(StageName::Finished)));
    let keep = |number: u8| (id(number), Verdict::Keep { epoch: Epoch(u64::from(number)), log_offset: 0 });
    agent.connect(vec![keep(2), keep(3)]);
    for number in [1, 4] {
        let stopped = AgentMessage::Stopped { attempt: id(number), epoch: Epoch(u64::from(number)) };
        assert!(agent.said().any(|said| *said == stopped));
    }
    assert!(agent.said().any(|said| matches!(said, AgentMessage::Finished { .. })));
}

#[test]
fn what_cannot_be_read_is_held_as_running_until_its_end_is_verified_and_nothing_is_taken_meanwhile() {
    let unreadable = Found {
        attempt: id(1),
        terms: None,
        epoch: Epoch(3),
        phase: Phase::Running,
        started_at: None,
        outcome: None,
        deadline: None,
        spool_start: 0,
        spool_end: 0,
    };
    let mut agent = Agent::new(config(), vec![unreadable]);
    assert!(agent.has(&Effect::Kill { attempt: id(1) }));
    agent.connect(vec![(id(1), Verdict::Keep { epoch: Epoch(4), log_offset: 0 })]);
    let held = agent.said().find_map(|said| match said {
        AgentMessage::Hello(hello) => hello.held.first().cloned(),
        _ => None,
    });
    let held = held.unwrap();
    assert_eq!((held.attempt, held.epoch, held.phase), (id(1), Epoch(3), Phase::Running));
    agent.tell(CoordinatorMessage::Offer { epoch: Epoch(5), job: Box::new(job(2)) }).unwrap();
    assert!(agent.said().any(|said| matches!(said, AgentMessage::Refused { attempt, .. } if *attempt == id(2))));
    // Its end is asked for until it comes.
    let kills = |agent: &Agent| agent.done.iter().filter(|it| **it == Effect::Kill { attempt: id(1) }).count();
    let before = kills(&agent);
    agent.pass(KILL_VERIFY_MS + 1);
    assert!(kills(&agent) > before);
    agent.put(Input::RunnerGone { attempt: id(1) }).unwrap();
    let said: Vec<_> = agent.said().cloned().collect();
    let at = |wanted: &dyn Fn(&AgentMessage) -> bool| said.iter().position(wanted).unwrap();
    let started = at(&|it| matches!(it, AgentMessage::Started { epoch: Epoch(4), .. }));
    let stopped = at(&|it| *it == AgentMessage::Stopped { attempt: id(1), epoch: Epoch(4) });
    assert!(started < stopped, "that it had started comes first");
    agent.tell(CoordinatorMessage::Offer { epoch: Epoch(6), job: Box::new(job(3)) }).unwrap();
    assert!(agent.said().any(|said| matches!(said, AgentMessage::Accepted { attempt, .. } if *attempt == id(3))));
}

#[test]
fn log_bytes_that_were_never_written_cannot_be_acknowledged() {
    let mut agent = Agent::welcomed(config());
    agent.run(3, job(1));
    agent.put(Input::SpoolAt { attempt: id(1), end: 10 }).unwrap();
    assert!(agent.tell(CoordinatorMessage::LogAck { attempt: id(1), offset: 11 }).is_err());
    agent.tell(CoordinatorMessage::LogAck { attempt: id(1), offset: 10 }).unwrap();
    assert!(agent.has(&Effect::TrimLog { attempt: id(1), below: 10 }));
}

/// Anything at all, in any order.
fn any_input() -> impl Strategy<Value = (u64, u8, Input)> {
    let attempt = (1_u8..5).prop_map(id);
    let epoch = (1_u64..6).prop_map(Epoch);
    let message = prop_oneof![
        (epoch.clone(), 1_u8..5, any::<bool>()).prop_map(|(epoch, number, exclusive)| CoordinatorMessage::Offer {
            epoch,
            job: Box::new(JobSpec { exclusive, timeout_ms: Some(9_000), ..job(number) }),
        }),
        (attempt.clone(), epoch.clone()).prop_map(|(attempt, epoch)| CoordinatorMessage::Stop { attempt, epoch }),
        (attempt.clone(), epoch.clone()).prop_map(|(attempt, epoch)| CoordinatorMessage::Cancel {
            attempt,
            epoch,
            cause: Cause::new(CauseKind::Canceled, "x"),
            grace_ms: None,
        }),
        (attempt.clone(), epoch.clone()).prop_map(|(attempt, epoch)| CoordinatorMessage::Committed { attempt, epoch }),
        (attempt.clone(), 0_u64..20).prop_map(|(attempt, offset)| CoordinatorMessage::LogAck { attempt, offset }),
        (0_u64..9).prop_map(|seq| CoordinatorMessage::BeatAck { seq, beat_ms: BEAT_MS }),
        Just(CoordinatorMessage::Resume),
        (0_u64..30_000).prop_map(|ms| CoordinatorMessage::Drain { deadline_ms: Some(ms), leave: false }),
        (attempt.clone(), epoch).prop_map(|(attempt, epoch)| CoordinatorMessage::Welcome {
            session: 1,
            lease_ms: LEASE_MS,
            beat_ms: BEAT_MS,
            verdicts: vec![(attempt, Verdict::Keep { epoch, log_offset: 3 })],
        }),
    ];
    let input = prop_oneof![
        4 => message.prop_map(|message| Input::Message { conn: ConnId(0), message }),
        1 => Just(Input::Connected { conn: ConnId(0) }),
        1 => Just(Input::ConnectionLost { conn: ConnId(0) }),
        2 => attempt.clone().prop_map(|attempt| Input::Prepared { attempt }),
        2 => attempt.clone().prop_map(|attempt| Input::Started { attempt, at: WallMs(1) }),
        2 => attempt.clone().prop_map(|attempt| Input::Ended { attempt, outcome: Box::new(outcome(0, 5)) }),
        1 => attempt.clone().prop_map(|attempt| Input::RunnerGone { attempt }),
        1 => (attempt, 0_u64..20).prop_map(|(attempt, end)| Input::SpoolAt { attempt, end }),
    ];
    (0_u64..20_000, 0_u8..2, input)
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order_every_state_keeps_its_bounds_and_its_deadline(
        inputs in proptest::collection::vec(any_input(), 1..80)
    ) {
        let mut agent = Agent::new(config(), Vec::new());
        for (pass_ms, void, mut input) in inputs {
            agent.pass(pass_ms);
            match &mut input {
                Input::Connected { conn } => { agent.conn += 1; *conn = ConnId(agent.conn); }
                Input::Message { conn, .. } | Input::ConnectionLost { conn } => {
                    *conn = ConnId(agent.conn.saturating_sub(u64::from(void)));
                }
                _ => {}
            }
            let _ = agent.put(input);
            prop_assert!(agent.core.held().count() <= 4);
        }
        // An input that is refused changes nothing but what time changes, and nothing runs past its slots.
        prop_assert!(agent.core.held().filter(|(_, _, stage)| *stage == StageName::Running).count() <= 2);
    }
}
