//! `windlass/1` is frozen: the bytes of every message and variant are checked in, and an accidental change fails here.
//!
//! rkyv is not self-describing, so a field that moves is a new protocol version, not a fix of these files. A variant
//! that is *added* changes no other bytes: add a sample of it and write its file with `GOLDEN_WRITE=1`. Existing files
//! are never rewritten, whatever the variable says.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::{AgentId, ArtifactId, AttemptId, BuildId, JobId, TokenId};
use windlass_protocol::identity::{AgentName, ApiToken, JoinToken, secret_hash};
use windlass_protocol::job::{Epoch, JobSpec, Outcome, Phase, Resources, Source};
use windlass_protocol::limits::BRING_BLOBS_MAX;
use windlass_protocol::message::log::{chunk_prefix, parse_chunk};
use windlass_protocol::message::{
    AgentMessage, ArtifactQuery, Ask, AskGrant, AskRefused, Asked, BlobHeader, Bring, Brought, BroughtSoFar, BulkAsk,
    CacheQuery, CacheUse, Claim, CoordinatorMessage, Enrol, EnrolAnswer, Evidence, FetchBlobs, FoundArtifact,
    FoundCache, FoundFiles, Grant, Health, Held, Hello, LogHeader, NewArtifact, NewCache, PartHeader, PartsAnswer,
    Peer, RefuseCode, Scope, SignedGrant, StoreAnswer, StoreBlobs, StoreRefused, Style, Told, Validate, Verdict,
    Wanted, WantedBlob, decode, encode,
};
use windlass_protocol::stock::{Fetched, InputName, Stocked};
use windlass_protocol::{Digest, HostFacts, Namespace, Secret, Shelf, Trust, WallMs, frame};

/// Names every variant of a type in a match without `_`: a new one does not compile until it has a name here, and does
/// not pass until it has a sample.
macro_rules! names {
    ($function:ident($type:ty) $($pattern:pat => $name:literal,)*) => {
        fn $function(message: &$type) -> &'static str {
            match message { $($pattern => $name,)* }
        }
        impl Named for $type {
            const ALL: &'static [&'static str] = &[$($name),*];
            fn name(&self) -> &'static str { $function(self) }
        }
    };
}

trait Named {
    const ALL: &'static [&'static str];
    fn name(&self) -> &'static str;
}

names! { agent_message(AgentMessage)
    AgentMessage::Hello(_) => "hello",
    AgentMessage::Beat { .. } => "beat",
    AgentMessage::Accepted { .. } => "accepted",
    AgentMessage::Refused { .. } => "refused",
    AgentMessage::Started { .. } => "started",
    AgentMessage::Finished { .. } => "finished",
    AgentMessage::Stopped { .. } => "stopped",
    AgentMessage::Draining => "draining",
    AgentMessage::Resumed => "resumed",
    AgentMessage::Serves { .. } => "serves",
    AgentMessage::Goodbye { .. } => "goodbye",
    AgentMessage::Renew { .. } => "renew",
    AgentMessage::Stock { .. } => "stock",
}

names! { coordinator_message(CoordinatorMessage)
    CoordinatorMessage::Welcome { .. } => "welcome",
    CoordinatorMessage::BeatAck { .. } => "beat_ack",
    CoordinatorMessage::Offer { .. } => "offer",
    CoordinatorMessage::Cancel { .. } => "cancel",
    CoordinatorMessage::Stop { .. } => "stop",
    CoordinatorMessage::Committed { .. } => "committed",
    CoordinatorMessage::LogAck { .. } => "log_ack",
    CoordinatorMessage::Drain { .. } => "drain",
    CoordinatorMessage::Resume => "resume",
    CoordinatorMessage::Peers { .. } => "peers",
    CoordinatorMessage::Knows { .. } => "knows",
    CoordinatorMessage::Certificate { .. } => "certificate",
    CoordinatorMessage::Refuse { .. } => "refuse",
}

names! { verdict(Verdict)
    Verdict::Keep { .. } => "keep",
    Verdict::Committed => "committed",
    Verdict::Stop => "stop",
}

names! { phase(Phase)
    Phase::Preparing => "preparing",
    Phase::Running => "running",
    Phase::Finished => "finished",
}

names! { source(Source)
    Source::Empty => "empty",
    Source::Tree { .. } => "tree",
    Source::Git { .. } => "git",
}

names! { evidence(Evidence)
    Evidence::None => "none",
    Evidence::Document { .. } => "document",
}

names! { enrol_answer(EnrolAnswer)
    EnrolAnswer::Enrolled { .. } => "enrolled",
    EnrolAnswer::Refused { .. } => "refused",
}

names! { blob_header(BlobHeader)
    BlobHeader::Found { .. } => "found",
    BlobHeader::Absent => "absent",
    BlobHeader::Manifest { .. } => "manifest",
    BlobHeader::Elsewhere => "elsewhere",
    BlobHeader::Waiting => "waiting",
    BlobHeader::Packed { .. } => "packed",
}

names! { ask(Ask)
    Ask { what: Asked::SetMetaData { .. }, .. } => "set_meta_data",
    Ask { what: Asked::GetMetaData { .. }, .. } => "get_meta_data",
    Ask { what: Asked::MetaDataKeys { .. }, .. } => "meta_data_keys",
    Ask { what: Asked::Annotate { .. }, .. } => "annotate",
    Ask { what: Asked::RemoveAnnotation { .. }, .. } => "remove_annotation",
    Ask { what: Asked::UploadPipeline { .. }, .. } => "upload_pipeline",
    Ask { what: Asked::GetStep { .. }, .. } => "get_step",
    Ask { what: Asked::UpdateStep { .. }, .. } => "update_step",
    Ask { what: Asked::CancelStep { .. }, .. } => "cancel_step",
    Ask { what: Asked::CancelBuild, .. } => "cancel_build",
    Ask { what: Asked::AddArtifacts { .. }, .. } => "add_artifacts",
    Ask { what: Asked::FindArtifacts(_), .. } => "find_artifacts",
    Ask { what: Asked::GetSecrets { .. }, .. } => "get_secrets",
    Ask { what: Asked::IssueToken { .. }, .. } => "issue_token",
    Ask { what: Asked::FindCache(_), .. } => "find_cache",
    Ask { what: Asked::SaveCache(_), .. } => "save_cache",
    Ask { what: Asked::AddFiles { .. }, .. } => "add_files",
    Ask { what: Asked::FindFiles(_), .. } => "find_files",
}

names! { told(Told)
    Told::Done => "done",
    Told::Value(_) => "value",
    Told::Keys(_) => "keys",
    Told::Text(_) => "text",
    Told::Secrets(_) => "secrets",
    Told::Cache(_) => "cache",
    Told::Refused { .. } => "refused",
    Told::Artifacts(_) => "artifacts",
    Told::Files(_) => "files",
}

names! { bring(Bring) _ => "bring", }
names! { brought(Brought)
    Brought::Some(_) => "some",
    Brought::All(_) => "all",
    Brought::Not { .. } => "not",
}

names! { enrol(Enrol) _ => "enrol", }
names! { bulk_ask(BulkAsk)
    BulkAsk::Fetch(_) => "fetch",
    BulkAsk::Store(_) => "store",
    BulkAsk::Grant(_) => "grant",
    BulkAsk::Parts(_) => "parts",
}

names! { fetch_blobs(FetchBlobs)
    FetchBlobs { wanted: Wanted::Whole(_), .. } => "whole",
    FetchBlobs { wanted: Wanted::Parts(_), .. } => "parts",
    FetchBlobs { wanted: Wanted::Chunks { .. }, .. } => "chunks",
}

names! { signed_grant(SignedGrant) _ => "signed_grant", }

names! { store_answer(StoreAnswer)
    StoreAnswer::Wanted(_) => "wanted",
    StoreAnswer::Stored => "stored",
    StoreAnswer::Refused { .. } => "refused",
}

names! { parts_answer(PartsAnswer)
    PartsAnswer::Cut(_) => "cut",
    PartsAnswer::Lacks(_) => "lacks",
    PartsAnswer::Whole => "whole",
    PartsAnswer::Stored => "stored",
    PartsAnswer::Refused { .. } => "refused",
}

names! { part_header(PartHeader)
    PartHeader::Manifest { .. } => "manifest",
    PartHeader::Passed => "passed",
    PartHeader::Chunk { .. } => "chunk",
}

names! { log_header(LogHeader) _ => "log_header", }

names! { refuse_code(RefuseCode)
    RefuseCode::TokenUnknown => "token_unknown",
    RefuseCode::TokenExpired => "token_expired",
    RefuseCode::TokenUsedUp => "token_used_up",
    RefuseCode::TokenRevoked => "token_revoked",
    RefuseCode::Cidr => "cidr",
    RefuseCode::NameTaken => "name_taken",
    RefuseCode::TagNotAllowed => "tag_not_allowed",
    RefuseCode::VersionTooOld => "version_too_old",
    RefuseCode::VersionTooNew => "version_too_new",
    RefuseCode::ClockSkew => "clock_skew",
    RefuseCode::PoolFull => "pool_full",
    RefuseCode::PoolPaused => "pool_paused",
    RefuseCode::AgentRevoked => "agent_revoked",
    RefuseCode::CertificateExpired => "certificate_expired",
    RefuseCode::Malformed => "malformed",
    RefuseCode::Unavailable => "unavailable",
    RefuseCode::TokenNotYetValid => "token_not_yet_valid",
    RefuseCode::NameNotAllowed => "name_not_allowed",
}

names! { cause_kind(CauseKind)
    CauseKind::AgentLost => "agent_lost",
    CauseKind::LeaseLost => "lease_lost",
    CauseKind::AgentStopped => "agent_stopped",
    CauseKind::SpotNotice => "spot_notice",
    CauseKind::OutOfMemory => "out_of_memory",
    CauseKind::DiskFull => "disk_full",
    CauseKind::Timeout => "timeout",
    CauseKind::Canceled => "canceled",
    CauseKind::Superseded => "superseded",
    CauseKind::Expired => "expired",
    CauseKind::ImageMissing => "image_missing",
    CauseKind::ImagePullFailed => "image_pull_failed",
    CauseKind::CheckoutFailed => "checkout_failed",
    CauseKind::SourceMissing => "source_missing",
    CauseKind::ArtifactMissing => "artifact_missing",
    CauseKind::HookFailed => "hook_failed",
    CauseKind::PluginFailed => "plugin_failed",
    CauseKind::SecretMissing => "secret_missing",
    CauseKind::DependencyFailed => "dependency_failed",
    CauseKind::NoSuchQueue => "no_such_queue",
    CauseKind::RefusedByPolicy => "refused_by_policy",
    CauseKind::Internal => "internal",
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// 32 bytes a line, so that a review sees what moved.
fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect()
}

fn check<T>(what: &str, samples: &[T])
where
    T: Named
        + PartialEq
        + Debug
        + Archive
        + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let sampled: BTreeSet<&str> = samples.iter().map(Named::name).collect();
    assert_eq!(sampled, T::ALL.iter().copied().collect(), "every variant of {what} has a sample");
    let folder = folder(what);
    let write = std::env::var_os("GOLDEN_WRITE").is_some();
    fs::create_dir_all(&folder).unwrap();
    let mut expected = BTreeSet::new();
    for (number, sample) in samples.iter().enumerate() {
        let file = format!("{:02}-{}.hex", number, sample.name());
        let path = folder.join(&file);
        let bytes = encode(sample).unwrap();
        if write && !path.exists() {
            fs::write(&path, hex(&bytes)).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{what}/{file} is missing"));
        assert_eq!(hex(&bytes), golden, "{what}/{file}: the bytes of windlass/1 have changed");
        let golden = unhex(&golden);
        assert_eq!(&decode::<T>(&golden).unwrap(), sample, "{what}/{file} decodes to what it was made of");
        expected.insert(file);
    }
    let there: BTreeSet<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, expected, "{what}: no file without its sample");
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const fn attempt(n: u8) -> AttemptId {
    AttemptId::from_bytes([n; 16])
}

fn job() -> JobSpec {
    JobSpec {
        attempt: attempt(1),
        attempt_number: 2,
        job: JobId::from_bytes([2; 16]),
        build: BuildId::from_bytes([3; 16]),
        build_number: 41,
        pipeline: "hello".to_owned(),
        step_key: Some("a-key-that-is-too-long-to-be-inline".to_owned()),
        label: "Tests".to_owned(),
        command: "make\nmake test".to_owned(),
        env: vec![("A".to_owned(), "1".to_owned()), ("LONGER_NAME".to_owned(), "a longer value".to_owned())],
        image: Some("debian:12".to_owned()),
        source: Source::Tree { digest: Digest::of(b"tree") },
        namespace: Namespace::overlay("hello", "pr:17"),
        queue: "prod-corp:default".to_owned(),
        timeout_ms: Some(60_000),
        grace_ms: 10_000,
        resources: Resources { cpu_millis: 1_500, memory_bytes: 1 << 30 },
        exclusive: true,
        interruptible: false,
        tty: true,
        keep_workspace: false,
        log_limit_bytes: 1 << 30,
    }
}

fn plain_job() -> JobSpec {
    JobSpec {
        step_key: None,
        env: Vec::new(),
        image: None,
        source: Source::Git {
            repository: "https://git.example/r.git".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            branch: "main".to_owned(),
        },
        namespace: Namespace::trusted("hello"),
        timeout_ms: None,
        exclusive: false,
        interruptible: true,
        tty: false,
        keep_workspace: true,
        ..job()
    }
}

fn outcome() -> Outcome {
    Outcome {
        exit_status: Some(3),
        signal: None,
        cause: None,
        started_at: Some(WallMs(1_000)),
        finished_at: WallMs(2_000),
        log_bytes: 77,
        log_digest: Digest::of(b"log"),
        log_truncated: false,
        peak_memory_bytes: Some(5 << 20),
    }
}

fn lost_outcome() -> Outcome {
    Outcome {
        exit_status: None,
        signal: Some(9),
        cause: Some(Cause::new(CauseKind::OutOfMemory, "it used more than 1 GiB")),
        started_at: None,
        log_truncated: true,
        peak_memory_bytes: None,
        ..outcome()
    }
}

fn stock() -> Vec<Stocked> {
    vec![
        Stocked { name: InputName::tree(&Digest::of(b"source")), bytes: 64 << 20 },
        Stocked { name: InputName::image("node:20"), bytes: 1 << 30 },
    ]
}

fn hello() -> Hello {
    Hello {
        name: "build-7.eu.example".to_owned(),
        version: "0.1.0".to_owned(),
        machine_id: "00112233445566778899aabbccddeeff".to_owned(),
        boot_id: "4b1d6c9e-0a2f-4c55-8d7e-93a1f0b2c3d4".to_owned(),
        slots: 4,
        capacity: Resources { cpu_millis: 8_000, memory_bytes: 32 << 30 },
        tags: vec![("os".to_owned(), "linux".to_owned()), ("disk".to_owned(), "nvme".to_owned())],
        runs_images: true,
        capabilities: vec!["pty".to_owned()],
        host: HostFacts {
            platform: "linux/amd64".to_owned(),
            system: "os: linux\ncc --version: 14.2\n".to_owned(),
            hooks: Some(Digest::of(b"")),
        },
        held: vec![
            Held { attempt: attempt(1), epoch: Epoch(7), phase: Phase::Running, started_at: Some(WallMs(9)) },
            Held { attempt: attempt(2), epoch: Epoch(8), phase: Phase::Preparing, started_at: None },
        ],
    }
}

fn agent_messages() -> Vec<AgentMessage> {
    let (attempt, epoch) = (attempt(1), Epoch(0x0102_0304_0506_0708));
    let health = Health {
        disk_free_bytes: 1 << 33,
        disk_total_bytes: 1 << 40,
        memory_available_bytes: 1 << 34,
        load_millis: 1_250,
        disk_full: false,
        cannot_kill: true,
        runs_images: true,
        cache: CacheUse { disk_hits: 1, disk_misses: 2, peer_hits: 3, peer_misses: 4, peer_failures: 5 },
    };
    let cause = Cause::new(CauseKind::DiskFull, "2 GiB are free, 5 GiB are needed");
    vec![
        AgentMessage::Hello(hello()),
        AgentMessage::Beat { seq: 5, health, held: vec![(attempt, epoch)] },
        AgentMessage::Accepted { attempt, epoch },
        AgentMessage::Refused { attempt, epoch, cause },
        AgentMessage::Started { attempt, epoch, at: WallMs(1_790_000_000_000) },
        AgentMessage::Finished { attempt, epoch, outcome: outcome() },
        AgentMessage::Finished { attempt, epoch, outcome: lost_outcome() },
        AgentMessage::Stopped { attempt, epoch },
        AgentMessage::Draining,
        AgentMessage::Resumed,
        AgentMessage::Goodbye { reason: "the machine is switched off".to_owned() },
        AgentMessage::Renew { csr: vec![0x30, 0x03, 1, 2, 3] },
        AgentMessage::Serves { address: "[fd00::7]:7071".to_owned() },
        AgentMessage::Stock { inputs: stock(), fetched: Fetched { bytes: 3 << 30, ms: 30_000 } },
    ]
}

fn coordinator_messages() -> Vec<CoordinatorMessage> {
    let (epoch, id) = (Epoch(0x0102_0304_0506_0708), attempt(1));
    let verdicts = vec![
        (attempt(1), Verdict::Keep { epoch: Epoch(9), log_offset: 1 << 20 }),
        (attempt(2), Verdict::Committed),
        (attempt(3), Verdict::Stop),
    ];
    vec![
        CoordinatorMessage::Welcome { session: 3, lease_ms: 60_000, beat_ms: 5_000, verdicts },
        CoordinatorMessage::BeatAck { seq: 5, beat_ms: 7_000 },
        CoordinatorMessage::Offer { epoch, job: Box::new(job()) },
        CoordinatorMessage::Offer { epoch, job: Box::new(plain_job()) },
        CoordinatorMessage::Cancel {
            attempt: id,
            epoch,
            cause: Cause::new(CauseKind::Canceled, "by alice"),
            grace_ms: Some(15_000),
        },
        CoordinatorMessage::Stop { attempt: id, epoch },
        CoordinatorMessage::Committed { attempt: id, epoch },
        CoordinatorMessage::LogAck { attempt: id, offset: 1 << 33 },
        CoordinatorMessage::Drain { deadline_ms: Some(600_000), leave: true },
        CoordinatorMessage::Drain { deadline_ms: None, leave: false },
        CoordinatorMessage::Resume,
        CoordinatorMessage::Certificate { chain: vec![vec![0x30, 1, 2], vec![0x30, 3]] },
        CoordinatorMessage::Refuse { code: RefuseCode::PoolPaused, detail: "ask the pool's owner".to_owned() },
        CoordinatorMessage::Peers {
            key: [7; 32],
            peers: vec![Peer { agent: AgentId::from_bytes([8; 16]), address: "10.0.0.7:7071".to_owned() }],
        },
        CoordinatorMessage::Knows { abilities: vec!["parts-1".to_owned()] },
    ]
}

fn enrol_sample() -> Enrol {
    Enrol {
        token: TokenId::from_bytes([6; 16]),
        secret: [0xA5; 32],
        csr: vec![0x30, 0x03, 1, 2, 3],
        name: "build-7".to_owned(),
        machine_id: String::new(),
        tags: vec![("os".to_owned(), "linux".to_owned())],
        version: "0.1.0".to_owned(),
        evidence: Evidence::Document { kind: "aws-iid".to_owned(), bytes: vec![1, 2, 3] },
    }
}

#[test]
fn what_an_agent_says_has_the_bytes_of_version_1_and_makes_sense() {
    check("agent", &agent_messages());
    for message in agent_messages() {
        assert_eq!(message.validate(), Ok(()), "{message:?}");
    }
}

#[test]
fn what_a_coordinator_says_has_the_bytes_of_version_1_and_makes_sense() {
    check("coordinator", &coordinator_messages());
    for message in coordinator_messages() {
        assert_eq!(message.validate(), Ok(()), "{message:?}");
    }
}

fn artifact() -> NewArtifact {
    NewArtifact {
        path: "log/a.txt".to_owned(),
        bytes: 1 << 33,
        digest: Digest::of(b"a"),
        sha1: [1; 20],
        sha256: [2; 32],
        content_type: "text/plain".to_owned(),
    }
}

fn asks() -> Vec<Ask> {
    let text = |text: &str| text.to_owned();
    let other = Some(BuildId::from_bytes([9; 16]));
    let query = ArtifactQuery {
        build: other,
        path: text("log/*"),
        step: text("tests"),
        retried: true,
        before: Some(ArtifactId::from_bytes([7; 16])),
    };
    let annotation = (text("default"), Scope::Build);
    let whats = [
        (Asked::SetMetaData { values: vec![(text("a-key-of-some-length"), text("a value"))] }, 0),
        (Asked::GetMetaData { build: None, key: text("key") }, 0),
        (Asked::MetaDataKeys { build: other }, 0),
        (
            Asked::Annotate {
                context: annotation.0.clone(),
                style: Some(Style::Warning),
                append: true,
                priority: Some(3),
                scope: Scope::Job,
            },
            1 << 20,
        ),
        (Asked::RemoveAnnotation { context: annotation.0, scope: annotation.1 }, 0),
        (Asked::UploadPipeline { replace: true, file: text("pipeline.yml") }, 77),
        (Asked::GetStep { build: None, step: text("tests"), attribute: text("label"), json: true }, 0),
        (Asked::UpdateStep { step: String::new(), attribute: text("label"), append: false }, 5),
        (Asked::CancelStep { step: text("tests"), grace_ms: Some(15_000) }, 0),
        (Asked::CancelBuild, 0),
        (Asked::AddArtifacts { artifacts: vec![artifact()] }, 0),
        (Asked::FindArtifacts(Box::new(query.clone())), 0),
        (Asked::GetSecrets { keys: vec![text("deploy_key")] }, 0),
        (
            Asked::IssueToken {
                audience: text("sts.example"),
                lifetime_s: 300,
                subject: text("build_branch"),
                claims: vec![text("zone")],
                aws_tags: vec![text("pipeline_slug")],
            },
            0,
        ),
        (
            Asked::FindCache(Box::new(CacheQuery {
                scope: Digest::of(b"paths"),
                key: text("node-linux-0123456789"),
                restore_keys: vec![text("node-linux-"), text("node-")],
            })),
            0,
        ),
        (
            Asked::SaveCache(Box::new(NewCache {
                scope: Digest::of(b"paths"),
                key: text("node-linux-0123456789"),
                manifest: Digest::of(b"manifest"),
                manifest_bytes: 1 << 20,
            })),
            0,
        ),
        (Asked::AddFiles { artifacts: vec![artifact(), artifact()], executable: vec![1] }, 0),
        (Asked::FindFiles(Box::new(query)), 0),
    ];
    let (epoch, call) = (Epoch(7), [0x5A; 16]);
    whats.map(|(what, body_bytes)| Ask { attempt: attempt(1), epoch, call, what, body_bytes }).into()
}

fn found_artifact() -> FoundArtifact {
    FoundArtifact {
        id: ArtifactId::from_bytes([7; 16]),
        job: JobId::from_bytes([2; 16]),
        created_at: WallMs(1_700_000_000_000),
        url: "https://ci.example/api/v1/artifacts/7".to_owned(),
        artifact: artifact(),
    }
}

#[test]
fn what_jobs_ask_and_are_told_has_the_bytes_of_version_1_and_makes_sense() {
    check("ask", &asks());
    let told = [
        Told::Done,
        Told::Value(None),
        Told::Value(Some("a value that is not inline".to_owned())),
        Told::Keys(vec!["a".to_owned(), "b".to_owned()]),
        Told::Text("{}".to_owned()),
        Told::Refused { code: AskRefused::NotServed, detail: "not by this version".to_owned() },
        Told::Artifacts(vec![found_artifact()]),
        Told::Secrets(vec![Secret::new("a value that is not inline".to_owned()).into()]),
        Told::Cache(None),
        Told::Cache(Some(Box::new(FoundCache {
            key: "node-linux-0123456789".to_owned(),
            manifest: Digest::of(b"manifest"),
            manifest_bytes: 1 << 20,
            files: 12_345,
            bytes: 1 << 33,
            created_at: WallMs(1_700_000_000_000),
        }))),
        Told::Files(Box::new(FoundFiles { found: vec![found_artifact()], executable: vec![0] })),
    ];
    check("told", &told);
    for message in asks() {
        assert_eq!(message.validate(), Ok(()), "{message:?}");
    }
    for message in told {
        assert_eq!(message.validate(), Ok(()), "{message:?}");
    }
}

#[test]
fn joining_has_the_bytes_of_version_1() {
    check("enrol", &[enrol_sample()]);
    let chain = vec![vec![0x30, 1, 2], vec![0x30, 3]];
    let (pool, zone) = ("linux".to_owned(), "eu".to_owned());
    let enrolled = EnrolAnswer::Enrolled { agent: AgentId::from_bytes([8; 16]), chain, pool, zone };
    let refused = EnrolAnswer::Refused { code: RefuseCode::TokenExpired, detail: "ask for a new token".to_owned() };
    assert_eq!((enrol_sample().validate(), enrolled.validate(), refused.validate()), (Ok(()), Ok(()), Ok(())));
    check("enrol_answer", &[enrolled, refused]);
    check("evidence", &[Evidence::None, enrol_sample().evidence]);
}

#[test]
fn what_is_brought_ahead_has_the_bytes_of_version_1_and_makes_sense() {
    let bring =
        Bring { grant: grant_sample(), trees: vec![Digest::of(b"tree")], blobs: vec![Digest::of(b"a")], bytes: 7 };
    let so_far = BroughtSoFar { blobs: 1, bytes: 1 << 33, absent: 2, came: 3 };
    let brought = [Brought::Some(so_far), Brought::All(so_far), Brought::Not { detail: "it drains".to_owned() }];
    assert_eq!(bring.validate(), Ok(()));
    assert!(brought.iter().all(|it| it.validate() == Ok(())));
    let long = Bring { blobs: vec![Digest::of(b"a"); BRING_BLOBS_MAX + 1], ..bring.clone() };
    assert!(long.validate().is_err());
    check("bring", &[bring]);
    check("brought", &brought);
}

fn grant_sample() -> SignedGrant {
    let grant = Grant {
        agent: AgentId::from_bytes([8; 16]),
        zone: "eu".to_owned(),
        trust: Trust::Untrusted,
        namespace: Namespace::overlay("app", "pr:17"),
        expires_at: WallMs(0x0102_0304_0506_0708),
    };
    SignedGrant { grant, signature: [9; 64] }
}

#[test]
fn what_is_signed_of_a_grant_keeps_its_form() {
    let statement = grant_sample().grant.statement();
    let expected =
        [&b"windlass grant v1\0"[..], &[8; 16], &[0, 8, 7, 6, 5, 4, 3, 2, 1], b"\x03\0app\x01\x05\0pr:17\x02\0eu"];
    assert_eq!(statement, expected.concat());
}

#[test]
fn bulk_and_logs_have_the_bytes_of_version_1() {
    let (build, epoch) = (BuildId::from_bytes([3; 16]), Epoch(7));
    let digests = vec![Digest::of(b"one"), Digest::of(b"two")];
    let lease = Claim::Lease { build, attempt: attempt(1), epoch };
    let grant = Claim::Grant(Box::new(grant_sample()));
    let whole = FetchBlobs { by: lease.clone(), wanted: Wanted::Whole(digests.clone()) };
    let fetches = [
        whole.clone(),
        FetchBlobs { by: grant.clone(), wanted: Wanted::Parts(digests) },
        FetchBlobs { by: grant, wanted: Wanted::Chunks { blob: Digest::of(b"one"), places: vec![0, 7] } },
    ];
    assert!(fetches.iter().all(|fetch| fetch.validate() == Ok(())));
    check("fetch_blobs", &fetches);
    check("signed_grant", &[grant_sample()]);
    let fetch = BulkAsk::Fetch(whole);
    let ask = BulkAsk::Grant(AskGrant { build, attempt: attempt(1), epoch });
    let blobs = vec![(Digest::of(b"one"), 3), (Digest::of(b"two"), 1 << 33)];
    let store = BulkAsk::Store(StoreBlobs { build, attempt: attempt(1), epoch, shelf: Shelf::Artifacts, blobs });
    let header = LogHeader { attempt: attempt(1), epoch, offset: 1 << 33 };
    let blobs = vec![(Digest::of(b"two"), 1 << 33)];
    let parts = BulkAsk::Parts(StoreBlobs { build, attempt: attempt(1), epoch, shelf: Shelf::Caches, blobs });
    assert_eq!(parts.validate(), Ok(()));
    assert_eq!((fetch.validate(), store.validate(), header.validate()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(ask.validate(), Ok(()));
    check("bulk_ask", &[fetch, store, ask, parts]);
    let refused = StoreAnswer::Refused { code: StoreRefused::Full, detail: "the disk is full".to_owned() };
    let wanted = vec![WantedBlob { place: 0, offset: 0 }, WantedBlob { place: 2, offset: 1 << 30 }];
    check("store_answer", &[StoreAnswer::Wanted(wanted), StoreAnswer::Stored, refused]);
    let (code, detail) = (StoreRefused::Unavailable, "come again".to_owned());
    let refused = PartsAnswer::Refused { code, detail };
    let (cut, lacks) = (PartsAnswer::Cut(vec![0, 2]), PartsAnswer::Lacks(vec![7, 1 << 16]));
    check("parts_answer", &[cut, lacks, PartsAnswer::Whole, PartsAnswer::Stored, refused]);
    let chunk = PartHeader::Chunk { place: 7, bytes: 1 << 17 };
    check("part_header", &[PartHeader::Manifest { bytes: 1 << 20 }, PartHeader::Passed, chunk]);
    let manifest = BlobHeader::Manifest { bytes: 1 << 20 };
    let found = BlobHeader::Found { bytes: 1 << 33 };
    let packed = BlobHeader::Packed { bytes: 1 << 16 };
    check("blob_header", &[found, BlobHeader::Absent, manifest, BlobHeader::Elsewhere, BlobHeader::Waiting, packed]);
    check("log_header", &[header]);
    let chunk = [&chunk_prefix(0x0102_0304_0506_0708, WallMs(0x1112_1314_1516_1718))[..], b"hi"].concat();
    assert_eq!(hex(&chunk), "080706050403020118171615141312116869\n");
    assert_eq!(parse_chunk(&chunk).unwrap().bytes, b"hi");
    let mut framed = Vec::new();
    frame::encode(b"hi", &mut framed).unwrap();
    assert_eq!(hex(&framed), "02000000ac2a93d86869\n");
}

#[test]
fn the_parts_of_messages_have_the_bytes_of_version_1() {
    check("phase", &[Phase::Preparing, Phase::Running, Phase::Finished]);
    check("verdict", &[Verdict::Keep { epoch: Epoch(9), log_offset: 5 }, Verdict::Committed, Verdict::Stop]);
    check("source", &[Source::Empty, job().source, plain_job().source]);
    check("cause", CauseKind::ALL);
    check("refuse_code", RefuseCode::ALL);
    for (number, code) in RefuseCode::ALL.iter().enumerate() {
        assert_eq!(*code as usize, number, "{code:?} is not at its place in the list");
    }
}

#[test]
fn tokens_names_and_stored_hashes_keep_their_form() {
    let (id, ca) = (TokenId::from_bytes([0xA7; 16]), Digest::of(b"ca"));
    let secret = || Secret::new([0x5A; 32]);
    let join = JoinToken { id, secret: secret(), ca };
    let api = ApiToken { id, secret: secret() };
    let pool = "linux_x64".to_owned();
    let name = AgentName { agent: AgentId::from_bytes([8; 16]), pool, zone: "eu/1".to_owned(), trust: Trust::Trusted };
    let forms = [join.expose(), api.expose(), secret_hash(&secret()).to_string(), name.to_spiffe(&ca).unwrap()];
    insta::assert_snapshot!(forms.join("\n"));
}
