//! What a build may hold: refused whole where it would be more, by whatever way it comes, also after a restart.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Annotate, Said, Speech, StepChange, Upload};
use windlass_coordinator_core::{Bugs, Policy, Rejected, Reply};
use windlass_pipeline::compile;
use windlass_pipeline::graph::Graph;
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::{AgentId, AttemptId, BuildId, call};

use crate::kit::*;

const MAX: usize = 40_000;

fn compiled(text: &str) -> Graph {
    let compiled = compile(text, "pipeline.yml", &[]);
    compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

fn steps(command_bytes: usize) -> String {
    format!("steps:\n  - command: {}\n", "x".repeat(command_bytes))
}

/// A build that runs under a small limit.
fn begun(bugs: Bugs) -> (Shell, BuildId, AgentId, (AttemptId, Epoch)) {
    let mut shell = Shell::with(Policy { build_max_bytes: MAX, bugs, ..Policy::default() });
    let build = shell.submit(compiled(&steps(1_000)));
    let agent = shell.agent("one", 1);
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    (shell, build, agent, offer)
}

fn said((attempt, epoch): (AttemptId, Epoch), number: u64, what: Said) -> Request {
    Request::Speak(Box::new(Speech { attempt, epoch, call: call::part([1; 16], number), what }))
}

fn note(bytes: usize) -> Said {
    let text = Some("x".repeat(bytes));
    Said::Annotate(Annotate { context: "c".to_owned(), own: false, style: None, priority: None, text, append: false })
}

fn upload(by: (AttemptId, Epoch), id: &str, text: &str) -> Request {
    let (definition, graph) = (text.to_owned(), compiled(text));
    Request::Upload(Box::new(Upload {
        attempt: by.0,
        epoch: None,
        id: id.to_owned(),
        definition,
        graph,
        replace: true,
    }))
}

fn is_too_much(refused: &Result<Reply, Rejected>) -> bool {
    *refused == Err(Rejected::Limit { what: "bytes of one build", limit: MAX as u64 })
}

#[test]
fn a_build_that_would_hold_too_much_is_refused_by_whatever_way_it_comes() {
    let (mut shell, build, agent, by) = begun(Bugs::default());
    let refused = shell.request(Request::Submit(Box::new(submission(compiled(&steps(MAX)), |_| {}))));
    assert!(is_too_much(&refused), "{refused:?}");
    let job = shell.job_id(build, 0);
    let values = |bytes: usize| [("k".to_owned(), "x".repeat(bytes))].into();
    let label = |bytes| StepChange::Label { text: "x".repeat(bytes), append: false };
    for again in [false, true] {
        if again {
            shell.restart();
            shell.hello(agent, 1, vec![held(by, Phase::Running)]);
        }
        for (number, request) in (0..).zip([
            upload(by, "large", &steps(20_000)),
            Request::SetMetaData { build, values: values(MAX) },
            said(by, 1, Said::SetMetaData(values(MAX))),
            said(by, 2, note(MAX)),
            said(by, 3, Said::UpdateStep { job, change: StepChange::Parallelism(30) }),
        ]) {
            let refused = shell.request(request);
            assert!(is_too_much(&refused), "{number} {again}: {refused:?}");
        }
    }
    assert_eq!(shell.jobs(build).len(), 1, "what is refused changes nothing");
    // What is smaller has room, until it is full; what goes makes room again.
    shell.request(upload(by, "small", &steps(5_000))).unwrap();
    shell.request(said(by, 4, Said::SetMetaData(values(10_000)))).unwrap();
    shell.request(said(by, 5, Said::UpdateStep { job, change: label(300) })).unwrap();
    assert!(is_too_much(&shell.request(said(by, 6, note(20_000)))));
    shell.request(said(by, 7, Said::SetMetaData(values(1)))).unwrap();
    shell.request(said(by, 6, note(20_000))).unwrap();
    let gone = Said::RemoveAnnotation { context: "c".to_owned(), own: false };
    shell.request(said(by, 8, gone)).unwrap();
    shell.request(said(by, 9, note(20_000))).unwrap();
    shell.restart();
    shell.hello(agent, 1, vec![held(by, Phase::Running)]);
    assert!(is_too_much(&shell.request(upload(by, "more", &steps(5_000)))));
    // A job that is run again takes its uploads out of its build, and they stay where they are counted.
    shell.run(agent, by, 1);
    assert_eq!(shell.broken, None);
}

#[test]
fn an_upload_that_is_not_counted_breaks_i9() {
    let bugs = Bugs { forget_bytes: true, ..Bugs::default() };
    let (mut shell, _, _, by) = begun(bugs);
    shell.request(upload(by, "small", &steps(100))).unwrap();
    assert_eq!(shell.broken.map(|broken| broken.invariant), Some("I9"));
}
