//! Meta-data that jobs set: of their own build, by their right, all or nothing, and still there after a restart.

use std::collections::BTreeMap;

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::compile;
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::{AttemptId, BuildId, limits};

use crate::kit::*;

fn set(build: BuildId, offer: (AttemptId, Epoch), values: &[(&str, &str)]) -> Request {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Request::SetMetaData { build, by: Some(offer), values }
}

#[test]
fn what_a_job_sets_is_its_builds_and_outlives_the_coordinator() {
    let mut shell = Shell::new();
    let build = shell.submit(compile("steps:\n  - command: a\n", "pipeline.yml", &[]).graph.unwrap());
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    assert_eq!(shell.request(set(build, offer, &[("a", "1"), ("b", "2")])), Ok(Reply::Done));
    assert_eq!(shell.request(set(build, offer, &[("b", "two")])), Ok(Reply::Done));
    let stale = (offer.0, Epoch(offer.1.0 + 1));
    assert!(matches!(shell.request(set(build, stale, &[("a", "x")])), Err(Rejected::StaleEpoch { .. })));
    let long = "x".repeat(limits::META_DATA_VALUE_MAX_BYTES + 1);
    assert!(matches!(shell.request(set(build, offer, &[("c", "3"), ("d", &long)])), Err(Rejected::Limit { .. })));
    shell.restart();
    let expected: BTreeMap<_, _> = [("a", "1"), ("b", "two")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(shell.build(build).meta_data, expected);
    shell.hello(agent, 1, vec![held(offer, Phase::Running)]);
    shell.run(agent, offer, 0);
    assert!(matches!(shell.request(set(build, offer, &[("a", "late")])), Err(Rejected::NoLease(_))));
}
