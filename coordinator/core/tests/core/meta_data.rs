//! Meta-data that jobs set: of their own build, by their right, all or nothing, once, and still there after a restart.

use std::collections::BTreeMap;

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Said, Speech};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::compile;
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::{AgentId, AttemptId, BuildId, limits};

use crate::kit::*;

fn set((attempt, epoch): (AttemptId, Epoch), call: u8, values: &[(&str, &str)]) -> Request {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Request::Speak(Box::new(Speech { attempt, epoch, call: [call; 16], what: Said::SetMetaData(values) }))
}

fn begun() -> (Shell, BuildId, AgentId, (AttemptId, Epoch)) {
    let mut shell = Shell::new();
    let build = shell.submit(compile("steps:\n  - command: a\n", "pipeline.yml", &[]).graph.unwrap());
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    (shell, build, agent, offer)
}

#[test]
fn what_a_job_sets_is_its_builds_and_outlives_the_coordinator() {
    let (mut shell, build, agent, offer) = begun();
    assert_eq!(shell.request(set(offer, 1, &[("a", "1"), ("b", "2")])), Ok(Reply::Done));
    assert_eq!(shell.request(set(offer, 2, &[("b", "two")])), Ok(Reply::Done));
    let stale = (offer.0, Epoch(offer.1.0 + 1));
    assert!(matches!(shell.request(set(stale, 3, &[("a", "x")])), Err(Rejected::StaleEpoch { .. })));
    let long = "x".repeat(limits::META_DATA_VALUE_MAX_BYTES + 1);
    assert!(matches!(shell.request(set(offer, 4, &[("c", "3"), ("d", &long)])), Err(Rejected::Limit { .. })));
    shell.restart();
    let expected: BTreeMap<_, _> = [("a", "1"), ("b", "two")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(shell.build(build).meta_data, expected);
    shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    shell.run(agent, offer, 0);
    assert!(matches!(shell.request(set(offer, 5, &[("a", "late")])), Err(Rejected::NoLease(_))));
}

#[test]
fn what_is_said_again_after_a_lost_answer_does_not_overwrite_what_was_set_meanwhile() {
    let (mut shell, build, agent, offer) = begun();
    let first = set(offer, 1, &[("a", "first"), ("b", "first")]);
    assert_eq!(shell.request(first.clone()), Ok(Reply::Done));
    let values = [("a".to_owned(), "a client's".to_owned())].into();
    assert_eq!(shell.request(Request::SetMetaData { build, values }), Ok(Reply::Done));
    assert_eq!(shell.request(set(offer, 2, &[("b", "second")])), Ok(Reply::Done));
    assert_eq!(shell.request(first.clone()), Ok(Reply::Done));
    shell.restart();
    shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    assert_eq!(shell.request(first), Ok(Reply::Done));
    let kept = &shell.build(build).meta_data;
    assert_eq!((kept["a"].as_str(), kept["b"].as_str()), ("a client's", "second"));
}
