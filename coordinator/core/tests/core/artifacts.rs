//! Artifacts: noted once by whoever holds the right, within limits, also in the grace time of a build that was canceled.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Output, Said, Speech};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::compile;
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::{AgentId, AttemptId, BuildId, Digest, limits};

use crate::kit::*;

fn file(path: &str, bytes: u64) -> Output {
    Output {
        path: path.to_owned(),
        bytes,
        digest: Digest::of(path.as_bytes()),
        sha1: "a1".repeat(20),
        sha256: "0b".repeat(32),
        content_type: "text/plain".to_owned(),
        executable: false,
    }
}

fn add((attempt, epoch): (AttemptId, Epoch), call: u8, artifacts: Vec<Output>) -> Request {
    let what = Said::AddArtifacts(artifacts);
    Request::Speak(Box::new(Speech { attempt, epoch, call: [call; 16], what }))
}

fn begun(shell: &mut Shell) -> (BuildId, AgentId, (AttemptId, Epoch)) {
    let build = shell.submit(compile("steps:\n  - command: a\n", "pipeline.yml", &[]).graph.unwrap());
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    (build, agent, offer)
}

#[test]
fn what_a_job_uploads_is_noted_once_however_often_it_is_said() {
    let mut shell = Shell::new();
    let (build, agent, offer) = begun(&mut shell);
    let first = add(offer, 1, vec![file("log/a", 3), file("log/b", 4)]);
    assert_eq!(shell.request(first.clone()), Ok(Reply::Done));
    assert_eq!(shell.request(first.clone()), Ok(Reply::Done), "its answer was lost");
    shell.restart();
    shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    assert_eq!(shell.request(first), Ok(Reply::Done), "the coordinator was lost with it");
    assert_eq!(shell.request(add(offer, 2, vec![file("log/a", 5)])), Ok(Reply::Done), "the same path again is another");
    let noted: Vec<_> = shell.artifacts.iter().map(|row| (row.path.as_str(), row.bytes)).collect();
    assert_eq!(noted, [("log/a", 3), ("log/b", 4), ("log/a", 5)]);
    let row = &shell.artifacts[0];
    assert_eq!((row.build, row.attempt, row.digest), (build, offer.0, Digest::of(b"log/a")));
    assert_eq!((row.sha1.as_str(), &row.sha256[..4]), ("a1".repeat(20).as_str(), "0b0b"));
    assert_eq!(row.expires_at, row.created_at.plus_ms(limits::ARTIFACT_RETENTION_MS));
    let tally = &shell.rows.attempts[&offer.0].artifacts;
    assert_eq!((tally.count, tally.bytes), (3, 12));
}

#[test]
fn only_who_holds_the_right_adds_and_a_canceled_job_still_does() {
    let mut shell = Shell::new();
    let (build, agent, offer) = begun(&mut shell);
    let stale = (offer.0, Epoch(offer.1.0 + 1));
    let refused = shell.request(add(stale, 1, vec![file("a", 1)]));
    assert!(matches!(refused, Err(Rejected::StaleEpoch { .. })), "{refused:?}");
    shell.request(Request::CancelBuild { build, detail: String::new() }).unwrap();
    assert_eq!(shell.request(add(offer, 2, vec![file("a", 1)])), Ok(Reply::Done));
    shell.run(agent, offer, 1);
    let refused = shell.request(add(offer, 3, vec![file("b", 1)]));
    assert!(matches!(refused, Err(Rejected::NoLease(_))), "{refused:?}");
    assert_eq!(shell.artifacts.len(), 1);
}

#[test]
fn more_than_a_job_may_have_is_refused_whole() {
    let mut shell = Shell::new();
    let (_, _, offer) = begun(&mut shell);
    let files = |from: usize, count: usize| (from..from + count).map(|n| file(&format!("{n}"), 1)).collect::<Vec<_>>();
    shell.request(add(offer, 1, files(0, limits::ARTIFACTS_PER_JOB_MAX - 1))).unwrap();
    let refused = shell.request(add(offer, 2, files(limits::ARTIFACTS_PER_JOB_MAX, 2)));
    let limit = limits::ARTIFACTS_PER_JOB_MAX as u64;
    assert_eq!(refused, Err(Rejected::Limit { what: "artifacts of one job", limit }));
    let refused = shell.request(add(offer, 3, vec![file("large", limits::ARTIFACTS_PER_JOB_MAX_BYTES)]));
    let limit = limits::ARTIFACTS_PER_JOB_MAX_BYTES;
    assert_eq!(refused, Err(Rejected::Limit { what: "bytes of one job's artifacts", limit }));
    shell.request(add(offer, 4, files(limits::ARTIFACTS_PER_JOB_MAX, 1))).unwrap();
    assert_eq!(shell.artifacts.len(), limits::ARTIFACTS_PER_JOB_MAX);
}
