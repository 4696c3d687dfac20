//! A short run of every fuzz entry: golden bytes, changed by a seeded mutator. `FUZZ_ROUNDS` makes it longer,
//! `FUZZ_SEED` starts elsewhere. A failure prints the entry and the bytes.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use windlass_protocol::fuzz::{ENTRIES, Entry, Mutator};
use windlass_protocol::id::{AgentId, AttemptId, BuildId, JobId, TokenId};
use windlass_protocol::identity::{AgentKey, AgentName, ApiToken, Ca, JoinToken};
use windlass_protocol::job::{JobSpec, Outcome, Resources, Source};
use windlass_protocol::message::encode;
use windlass_protocol::{Cause, CauseKind, Digest, Namespace, Secret, Trust, WallMs, frame};

const ROUNDS: u64 = 30_000;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn golden(folder: &Path, into: &mut Vec<Vec<u8>>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            golden(&path, into);
        } else {
            into.push(unhex(&fs::read_to_string(path).unwrap()));
        }
    }
}

/// Every kind of good bytes that there is: messages, a stream of frames, texts, a certificate, a request.
fn seeds() -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seeds = Vec::new();
    golden(&tests.join("golden"), &mut seeds);
    let mut stream = Vec::new();
    for payload in &seeds {
        frame::encode(payload, &mut stream).unwrap();
    }
    seeds.push(stream);
    let (id, secret) = (TokenId::from_bytes([0xA7; 16]), Secret::new([0x5A; 32]));
    let ca = Digest::of(b"ca");
    let name = name();
    seeds.extend(
        [
            JoinToken { id, secret: secret.clone(), ca }.expose(),
            ApiToken { id, secret }.expose(),
            name.to_spiffe(&ca).unwrap(),
            id.to_string(),
            ca.to_string(),
            "agent_lost".to_owned(),
        ]
        .map(String::into_bytes),
    );
    seeds.push(chunk());
    seeds.push(encode(&job()).unwrap().to_vec());
    seeds.push(encode(&outcome()).unwrap().to_vec());
    seeds.push(encode(&Cause::new(CauseKind::Timeout, "it ran for more than an hour")).unwrap().to_vec());
    golden(&tests.join("seeds"), &mut seeds);
    seeds
}

fn chunk() -> Vec<u8> {
    [&[0_u8; 16][..], b"a line of a log\n"].concat()
}

fn name() -> AgentName {
    let pool = "linux_x64".to_owned();
    AgentName { agent: AgentId::from_bytes([8; 16]), pool, zone: "eu/1".to_owned(), trust: Trust::Trusted }
}

fn outcome() -> Outcome {
    Outcome {
        exit_status: None,
        signal: Some(9),
        cause: Some(Cause::new(CauseKind::OutOfMemory, "it used more than 1 GiB")),
        started_at: Some(WallMs(5)),
        finished_at: WallMs(6),
        log_bytes: 7,
        log_digest: Digest::of(b"log"),
        log_truncated: true,
        peak_memory_bytes: Some(8),
    }
}

fn job() -> JobSpec {
    let text = |text: &str| text.to_owned();
    JobSpec {
        attempt: AttemptId::from_bytes([1; 16]),
        attempt_number: 1,
        job: JobId::from_bytes([2; 16]),
        build: BuildId::from_bytes([3; 16]),
        build_number: 4,
        pipeline: text("hello"),
        step_key: Some(text("a-key-that-is-too-long-to-be-inline")),
        label: text("Tests"),
        command: text("make test"),
        env: vec![(text("NAME"), text("a longer value than fits inline"))],
        image: Some(text("debian:12")),
        source: Source::Git {
            repository: text("https://git.example/r.git"),
            commit: text("HEAD"),
            branch: text("main"),
        },
        namespace: Namespace::overlay("hello", "pr:17"),
        queue: text("default"),
        timeout_ms: Some(1_000),
        grace_ms: 10,
        resources: Resources::default(),
        exclusive: false,
        interruptible: false,
        tty: false,
        keep_workspace: false,
        log_limit_bytes: 1,
    }
}

#[test]
fn no_bytes_make_a_decoder_panic_or_grow() {
    let seeds = seeds();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (rounds, seed) = (number("FUZZ_ROUNDS").unwrap_or(ROUNDS), number("FUZZ_SEED").unwrap_or(1));
    for entry in ENTRIES {
        let mut mutator = Mutator::new(seed);
        let own: Vec<&Vec<u8>> = seeds.iter().filter(|good| run(*entry, good)).collect();
        assert!(!own.is_empty(), "{} decodes one of the seeds: the run begins with what is good", entry.0);
        let mut decoded = 0;
        for round in 0..rounds {
            // Mostly what this decoder knows, sometimes what is another's.
            let good = if round % 4 == 0 { &seeds[mutator.below(seeds.len())] } else { own[mutator.below(own.len())] };
            let other = mutator.below(seeds.len());
            decoded += u64::from(run(*entry, &mutator.mutate(good, &seeds[other])));
        }
        assert!(decoded < rounds, "{} refuses something", entry.0);
    }
}

fn run((name, entry): Entry, bytes: &[u8]) -> bool {
    catch_unwind(|| entry(bytes)).unwrap_or_else(|_| panic!("fuzz entry {name} failed on {}", hex(bytes)))
}

#[test]
fn the_mutator_makes_the_same_bytes_of_the_same_seed_and_others_of_another() {
    let made = |seed: u64| {
        let mut mutator = Mutator::new(seed);
        (0..100).map(|_| mutator.mutate(b"some good bytes", b"others")).collect::<Vec<_>>()
    };
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
}

/// The seeds that randomness is part of are written once, by `GOLDEN_WRITE=1`.
#[test]
fn the_certificate_and_the_request_among_the_seeds_are_good_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds");
    if std::env::var_os("GOLDEN_WRITE").is_some() && !folder.exists() {
        let now = WallMs(1_790_000_000_000);
        let ca = Ca::create(now).unwrap();
        let csr = AgentKey::generate().unwrap().csr().unwrap();
        let chain = ca.issue_agent(&csr, &name(), now, 86_400_000).unwrap();
        let server = ca.issue_server(&[], &[], now, 86_400_000).unwrap();
        fs::create_dir_all(&folder).unwrap();
        for (file, der) in [("agent", &chain[0]), ("ca", &chain[1]), ("csr", &csr), ("server", &server.chain[0])] {
            fs::write(folder.join(format!("{file}.hex")), hex(der) + "\n").unwrap();
        }
    }
    let read = |file: &str| unhex(&fs::read_to_string(folder.join(file)).unwrap());
    let identity = windlass_protocol::identity::AgentIdentity::from_certificate(&read("agent.hex")).unwrap();
    assert_eq!((identity.pool, identity.zone), (name().pool, name().zone));
    windlass_protocol::identity::Csr::from_der(&read("csr.hex")).unwrap();
}
