//! Messages that decode and say what nobody may say: each rule refuses what is just past it, and takes what is just
//! within.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::{AttemptId, BuildId, JobId, TokenId};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources, Source};
use windlass_protocol::limits::{
    CHAIN_MAX, COMMAND_MAX_BYTES, CSR_MAX_BYTES, DETAIL_MAX_BYTES, ENV_MAX_BYTES, ENV_VARS_MAX, EVIDENCE_MAX_BYTES,
    FINGERPRINT_MAX_BYTES, FRAME_MAX_BYTES, HELD_MAX, LEASE_MAX_MS, LEASE_MIN_MS, MESSAGE_MAX_BYTES,
    MISSING_MAX_DIGESTS, NAME_MAX_BYTES, SLOTS_MAX, TAGS_MAX, TIMEOUT_MAX_MS,
};
use windlass_protocol::message::{
    AgentMessage, Claim, CoordinatorMessage, Enrol, Evidence, FetchBlobs, Health, Held, Hello, Validate, Wanted, encode,
};
use windlass_protocol::{Digest, HostFacts, Namespace, WallMs};

fn attempt(n: usize) -> AttemptId {
    AttemptId::from_bytes((n as u128).to_be_bytes())
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// The field that is refused, or `ok`.
fn verdict(message: &impl Validate) -> &'static str {
    match message.validate() {
        Ok(()) => "ok",
        Err(invalid) => invalid.field,
    }
}

fn hello() -> Hello {
    Hello {
        name: "a".to_owned(),
        version: "0.1.0".to_owned(),
        machine_id: String::new(),
        boot_id: String::new(),
        slots: 1,
        capacity: Resources::default(),
        tags: Vec::new(),
        runs_images: false,
        capabilities: Vec::new(),
        host: HostFacts::default(),
        held: Vec::new(),
    }
}

fn held(n: usize, epoch: u64) -> Held {
    Held { attempt: attempt(n), epoch: Epoch(epoch), phase: Phase::Running, started_at: None }
}

#[test]
fn a_hello_keeps_to_the_limits() {
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        verdict(&AgentMessage::Hello(hello))
    };
    assert_eq!(with(&|_| {}), "ok");
    assert_eq!(with(&|h| h.name.clear()), "hello.name");
    assert_eq!(with(&|h| h.name = long(NAME_MAX_BYTES)), "ok");
    assert_eq!(with(&|h| h.name = long(NAME_MAX_BYTES + 1)), "hello.name");
    assert_eq!(with(&|h| h.name = "a\nb".to_owned()), "hello.name");
    assert_eq!(with(&|h| h.version.clear()), "hello.version");
    assert_eq!(with(&|h| h.machine_id = long(NAME_MAX_BYTES + 1)), "hello.machine_id");
    assert_eq!(with(&|h| h.boot_id = long(NAME_MAX_BYTES + 1)), "hello.boot_id");
    assert_eq!(with(&|h| h.boot_id = "one\ntwo".into()), "hello.boot_id");
    assert_eq!(with(&|h| h.slots = 0), "hello.slots");
    assert_eq!(with(&|h| h.slots = SLOTS_MAX), "ok");
    assert_eq!(with(&|h| h.slots = SLOTS_MAX + 1), "hello.slots");
    let tag = || ("k".to_owned(), String::new());
    assert_eq!(with(&|h| h.tags = vec![tag(); TAGS_MAX]), "ok");
    assert_eq!(with(&|h| h.tags = vec![tag(); TAGS_MAX + 1]), "hello.tags");
    assert_eq!(with(&|h| h.tags = vec![(String::new(), "v".to_owned())]), "hello.tags");
    assert_eq!(with(&|h| h.capabilities = vec![String::new()]), "hello.capabilities");
    assert_eq!(with(&|h| h.host.platform = long(NAME_MAX_BYTES + 1)), "host.platform");
    assert_eq!(with(&|h| h.host.platform = "a\nb".to_owned()), "host.platform");
    assert_eq!(with(&|h| h.host.system = long(FINGERPRINT_MAX_BYTES)), "ok");
    assert_eq!(with(&|h| h.host.system = long(FINGERPRINT_MAX_BYTES + 1)), "host.system");
    assert_eq!(with(&|h| h.held = (0..HELD_MAX).map(|n| held(n, 1)).collect()), "ok");
    assert_eq!(with(&|h| h.held = (0..=HELD_MAX).map(|n| held(n, 1)).collect()), "hello.held");
    assert_eq!(with(&|h| h.held = vec![held(1, 1), held(1, 2)]), "hello.held");
    assert_eq!(with(&|h| h.held = vec![held(1, 0)]), "held.epoch");
}

#[test]
fn no_agent_claims_epoch_0_or_an_outcome_that_cannot_be() {
    let (attempt, epoch) = (attempt(1), Epoch(0));
    let outcome = Outcome {
        exit_status: Some(0),
        signal: None,
        cause: None,
        started_at: None,
        finished_at: WallMs(1),
        log_bytes: 0,
        log_digest: Digest::of(b""),
        log_truncated: false,
        peak_memory_bytes: None,
    };
    let finished =
        |epoch: Epoch, outcome: &Outcome| verdict(&AgentMessage::Finished { attempt, epoch, outcome: outcome.clone() });
    assert_eq!(verdict(&AgentMessage::Accepted { attempt, epoch }), "accepted.epoch");
    assert_eq!(verdict(&AgentMessage::Started { attempt, epoch, at: WallMs(1) }), "started.epoch");
    assert_eq!(verdict(&AgentMessage::Stopped { attempt, epoch }), "stopped.epoch");
    assert_eq!(finished(epoch, &outcome), "finished.epoch");
    assert_eq!(finished(Epoch(1), &outcome), "ok");
    assert_eq!(finished(Epoch(1), &Outcome { exit_status: Some(256), ..outcome.clone() }), "outcome.exit_status");
    assert_eq!(finished(Epoch(1), &Outcome { exit_status: Some(-1), ..outcome.clone() }), "outcome.exit_status");
    assert_eq!(finished(Epoch(1), &Outcome { signal: Some(0), ..outcome.clone() }), "outcome.signal");
    assert_eq!(finished(Epoch(1), &Outcome { log_bytes: u64::MAX, ..outcome.clone() }), "outcome.log_bytes");
    let cause = Some(Cause::new(CauseKind::Internal, long(DETAIL_MAX_BYTES + 1)));
    assert_eq!(finished(Epoch(1), &Outcome { cause, ..outcome }), "outcome.cause");
    let beat = AgentMessage::Beat { seq: 1, health: Health::default(), held: vec![(attempt, Epoch(1)); 2] };
    assert_eq!(verdict(&beat), "beat.held");
    assert_eq!(verdict(&AgentMessage::Goodbye { reason: long(DETAIL_MAX_BYTES + 1) }), "goodbye.reason");
    assert_eq!(verdict(&AgentMessage::Renew { csr: vec![0; CSR_MAX_BYTES + 1] }), "renew.csr");
}

fn job() -> JobSpec {
    JobSpec {
        attempt: attempt(1),
        attempt_number: 1,
        job: JobId::from_bytes([2; 16]),
        build: BuildId::from_bytes([3; 16]),
        build_number: 1,
        pipeline: "p".to_owned(),
        step_key: None,
        label: String::new(),
        command: String::new(),
        env: Vec::new(),
        image: None,
        source: Source::Empty,
        namespace: Namespace::trusted("p"),
        queue: "q".to_owned(),
        timeout_ms: None,
        grace_ms: 0,
        resources: Resources::default(),
        exclusive: false,
        interruptible: false,
        tty: false,
        keep_workspace: false,
        log_limit_bytes: 1,
    }
}

fn git(repository: &str, commit: &str, branch: &str) -> Source {
    Source::Git { repository: repository.to_owned(), commit: commit.to_owned(), branch: branch.to_owned() }
}

#[test]
fn a_job_keeps_to_the_limits() {
    let with = |change: &dyn Fn(&mut JobSpec)| {
        let mut job = job();
        change(&mut job);
        verdict(&CoordinatorMessage::Offer { epoch: Epoch(1), job: Box::new(job) })
    };
    let variable = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(with(&|_| {}), "ok");
    assert_eq!(with(&|j| j.attempt_number = 0), "job.attempt_number");
    assert_eq!(with(&|j| j.build_number = 0), "job.build_number");
    assert_eq!(with(&|j| j.queue.clear()), "job.queue");
    assert_eq!(with(&|j| j.namespace = Namespace::overlay("p", "")), "job.namespace");
    assert_eq!(with(&|j| j.step_key = Some(String::new())), "job.step_key");
    assert_eq!(with(&|j| j.step_key = Some("é".repeat(100))), "ok");
    assert_eq!(with(&|j| j.step_key = Some("é".repeat(101))), "job.step_key");
    assert_eq!(with(&|j| j.label = long(MESSAGE_MAX_BYTES + 1)), "job.label");
    assert_eq!(with(&|j| j.command = long(COMMAND_MAX_BYTES)), "ok");
    assert_eq!(with(&|j| j.command = long(COMMAND_MAX_BYTES + 1)), "job.command");
    assert_eq!(with(&|j| j.command = "a\0b".to_owned()), "job.command");
    assert_eq!(with(&|j| j.env = variable("N", &long(ENV_MAX_BYTES - 1))), "ok");
    assert_eq!(with(&|j| j.env = variable("N", &long(ENV_MAX_BYTES))), "job.env");
    assert_eq!(with(&|j| j.env = vec![Default::default(); ENV_VARS_MAX + 1]), "job.env");
    for (name, value) in [("", "v"), ("A=B", "v"), ("A\0", "v"), ("A", "v\0")] {
        assert_eq!(with(&|j| j.env = variable(name, value)), "job.env", "{name:?}");
    }
    assert_eq!(with(&|j| j.image = Some(String::new())), "job.image");
    assert_eq!(with(&|j| j.timeout_ms = Some(0)), "job.timeout_ms");
    assert_eq!(with(&|j| j.timeout_ms = Some(TIMEOUT_MAX_MS + 1)), "job.timeout_ms");
    assert_eq!(with(&|j| j.grace_ms = u64::MAX), "job.grace_ms");
    assert_eq!(with(&|j| j.log_limit_bytes = 0), "job.log_limit_bytes");
    assert_eq!(verdict(&CoordinatorMessage::Offer { epoch: Epoch(0), job: Box::new(job()) }), "offer.epoch");
}

#[test]
fn nothing_that_git_would_take_for_an_option_is_offered() {
    let with = |source: Source| verdict(&JobSpec { source, ..job() });
    assert_eq!(with(git("https://e/r.git", "HEAD", "main")), "ok");
    assert_eq!(with(git("--upload-pack=x", "HEAD", "main")), "job.source.repository");
    assert_eq!(with(git("r", "--x", "main")), "job.source.commit");
    assert_eq!(with(git("r", "", "main")), "job.source.commit");
    assert_eq!(with(git("r", "HEAD", "-b")), "job.source.branch");
    assert_eq!(with(git("r", "HEAD", "a\nb")), "job.source.branch");
}

#[test]
fn the_largest_job_that_is_allowed_fits_in_a_frame() {
    let mut job = job();
    job.command = long(COMMAND_MAX_BYTES);
    job.label = long(MESSAGE_MAX_BYTES);
    // Many small variables cost most: 16 bytes each beside their own.
    job.env = (0..ENV_VARS_MAX).map(|n| (format!("{n:09}"), long(7))).collect();
    let offer = CoordinatorMessage::Offer { epoch: Epoch(1), job: Box::new(job) };
    assert_eq!(verdict(&offer), "ok");
    let bytes = encode(&offer).unwrap().len();
    assert!(bytes <= FRAME_MAX_BYTES as usize, "{bytes}");
}

#[test]
fn a_welcome_has_a_lease_that_a_beat_can_renew() {
    let welcome = |lease_ms: u64, beat_ms: u64| {
        verdict(&CoordinatorMessage::Welcome { session: 1, lease_ms, beat_ms, verdicts: Vec::new() })
    };
    assert_eq!((welcome(LEASE_MIN_MS, 1), welcome(LEASE_MAX_MS, 5_000)), ("ok", "ok"));
    assert_eq!(welcome(LEASE_MIN_MS - 1, 1), "welcome.lease_ms");
    assert_eq!(welcome(LEASE_MAX_MS + 1, 1), "welcome.lease_ms");
    assert_eq!((welcome(1_000, 0), welcome(1_000, 1_001)), ("welcome.beat_ms", "welcome.beat_ms"));
    let chain = |count: usize| verdict(&CoordinatorMessage::Certificate { chain: vec![vec![1]; count] });
    assert_eq!((chain(0), chain(CHAIN_MAX), chain(CHAIN_MAX + 1)), ("certificate.chain", "ok", "certificate.chain"));
}

#[test]
fn requests_to_join_and_for_blobs_keep_to_the_limits() {
    let enrol = |csr: usize, document: usize| {
        verdict(&Enrol {
            token: TokenId::from_bytes([1; 16]),
            secret: [0; 32],
            csr: vec![0; csr],
            name: "a".to_owned(),
            machine_id: String::new(),
            tags: Vec::new(),
            version: "0.1.0".to_owned(),
            evidence: Evidence::Document { kind: "k".to_owned(), bytes: vec![0; document] },
        })
    };
    assert_eq!(enrol(CSR_MAX_BYTES, EVIDENCE_MAX_BYTES), "ok");
    assert_eq!((enrol(0, 0), enrol(CSR_MAX_BYTES + 1, 0)), ("enrol.csr", "enrol.csr"));
    assert_eq!(enrol(1, EVIDENCE_MAX_BYTES + 1), "evidence.bytes");
    let fetch = |epoch: u64, count: usize| {
        let digests = vec![Digest::of(b""); count];
        let by = Claim::Lease { build: BuildId::from_bytes([1; 16]), attempt: attempt(1), epoch: Epoch(epoch) };
        verdict(&FetchBlobs { by, wanted: Wanted::Whole(digests) })
    };
    assert_eq!((fetch(1, 1), fetch(1, MISSING_MAX_DIGESTS)), ("ok", "ok"));
    assert_eq!((fetch(0, 1), fetch(1, 0)), ("fetch.epoch", "fetch.digests"));
    assert_eq!(fetch(1, MISSING_MAX_DIGESTS + 1), "fetch.digests");
}

#[test]
fn what_a_job_asks_stays_within_its_limits() {
    use windlass_protocol::message::{Ask, Asked, Scope};
    let ask = |what: Asked, body_bytes: u32| {
        verdict(&Ask { attempt: attempt(1), epoch: Epoch(1), call: [0; 16], what, body_bytes })
    };
    let set = |key: &str, value: &str| ask(Asked::SetMetaData { values: vec![(key.to_owned(), value.to_owned())] }, 0);
    assert_eq!(set("a", "1"), "ok");
    assert_eq!(set(" ", "1"), "meta_data.key");
    assert_eq!(set("a", " \n"), "meta_data.value");
    assert_eq!(set("a", &"x".repeat((100 << 10) + 1)), "meta_data.value");
    assert_eq!(ask(Asked::SetMetaData { values: Vec::new() }, 0), "meta_data.values");
    assert_eq!(ask(Asked::CancelBuild, 1), "ask.body_bytes", "nothing follows it");
    let remove = |context: String| ask(Asked::RemoveAnnotation { context, scope: Scope::Build }, 0);
    assert_eq!(remove("x".repeat(100)), "ok");
    assert_eq!(remove("x".repeat(101)), "annotation.context");
}
