//! Trigger steps: builds that jobs make, wait for, and take along (reference 5.4).

use windlass_coordinator_core::effect::Effect;
use windlass_coordinator_core::explain::Why;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::order::{Obtained, Order};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Rejected, Reply};
use windlass_pipeline::graph::{Graph, Node, NodeKind, SoftFail, Supersede, Trigger};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Cause, CauseKind, Namespace, PipelineId, Trust, limits};

use crate::kit::{Shell, after, graph, step};

fn trigger_with(label: &str, pipeline: &str, change: impl FnOnce(&mut Trigger)) -> Node {
    let mut trigger = Trigger {
        pipeline: pipeline.to_owned(),
        commit: "HEAD".to_owned(),
        message: label.to_owned(),
        ..Trigger::default()
    };
    change(&mut trigger);
    Node { key: Some(label.to_owned()), label: label.to_owned(), ..Node::new(NodeKind::Trigger(Box::new(trigger))) }
}

fn trigger(label: &str, pipeline: &str) -> Node {
    trigger_with(label, pipeline, |_| {})
}

fn register(shell: &mut Shell, name: &str) {
    let change = PipelineChange { default_branch: Some("trunk".to_owned()), ..PipelineChange::default() };
    let id = PipelineId::from_bytes([u8::try_from(shell.rows.pipelines.len()).unwrap(); 16]);
    let request = Request::CreatePipeline { id, name: name.to_owned(), change: Box::new(change) };
    assert_eq!(shell.request(request), Ok(Reply::Done));
}

/// A shell in which `deploy` is registered.
fn shell() -> Shell {
    let mut shell = Shell::new();
    register(&mut shell, "deploy");
    shell
}

/// The orders that were given out since the last time.
fn orders(shell: &mut Shell) -> Vec<Order> {
    let effects = shell.take_effects().into_iter();
    effects.filter_map(|effect| if let Effect::Obtain(order) = effect { Some(*order) } else { None }).collect()
}

fn order(shell: &mut Shell) -> Order {
    let mut orders = orders(shell);
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.remove(0)
}

fn obtained(order: &Order, graph: Graph) -> Obtained {
    Obtained {
        number: None,
        definition: "steps: triggered".to_owned(),
        graph,
        origin: Source::Empty,
        branch: order.branch.clone(),
        commit: order.commit.clone(),
        verified: true,
        registration: Box::new(order.pipeline.clone()),
    }
}

fn answer(shell: &mut Shell, build: BuildId, obtained: Result<Obtained, Cause>) -> Result<(), Rejected> {
    shell.input(Input::Obtained { build, obtained: obtained.map(Box::new) })
}

fn fill(shell: &mut Shell, graph: Graph) -> BuildId {
    let order = order(shell);
    answer(shell, order.build, Ok(obtained(&order, graph))).unwrap();
    order.build
}

fn state(shell: &Shell, build: BuildId) -> BuildState {
    shell.build(build).state
}

#[test]
fn a_trigger_makes_its_build_and_passes_when_that_has_passed() {
    let mut shell = shell();
    let agent = shell.agent("a", 1);
    let parent = shell.submit(graph(vec![trigger("ship", "deploy"), after(step("then"), &[0])]));
    assert_eq!(shell.states(parent), [JobState::Running, JobState::Waiting]);
    assert_eq!(state(&shell, parent), BuildState::Running);
    let job = shell.job_id(parent, 0);
    assert_eq!(shell.core.explain(job), Some(Why::Ordered("deploy".to_owned())));
    let order = order(&mut shell);
    assert_eq!((order.branch.as_str(), order.commit.as_str(), order.source), ("trunk", "HEAD", BuildSource::Trigger));
    assert_eq!(order.creator, Actor { kind: ActorKind::Build, name: "app #1".to_owned() });
    answer(&mut shell, order.build, Ok(obtained(&order, graph(vec![step("a")])))).unwrap();
    let child = shell.build(order.build).clone();
    assert_eq!((child.number, child.pipeline.as_str(), child.branch.as_str()), (1, "deploy", "trunk"));
    assert_eq!((child.source, child.message.as_str(), &child.creator), (BuildSource::Trigger, "ship", &order.creator));
    assert_eq!(child.namespace, Namespace::trusted("deploy"));
    let from = child.triggered_from.unwrap();
    assert_eq!((from.build, from.number, from.pipeline.as_str(), from.job), (parent, 1, "app", job));
    assert_eq!((from.ordinal, from.depth, from.root), (1, 1, parent));
    assert_eq!(shell.job(parent, 0).triggered, [Triggered { build: child.id, number: Some(1) }]);
    assert_eq!(shell.core.explain(job), Some(Why::Triggered("deploy".to_owned(), 1)));
    let (epoch, spec) = shell.offers(agent).remove(0);
    let get = |name: &str| spec.env.iter().find(|(other, _)| other == name).unwrap().1.clone();
    assert_eq!(get("BUILDKITE_SOURCE"), "trigger_job");
    assert_eq!(get("BUILDKITE_TRIGGERED_FROM_BUILD_ID"), parent.to_string());
    assert_eq!(get("BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER"), "1");
    assert_eq!(get("BUILDKITE_TRIGGERED_FROM_BUILD_PIPELINE_SLUG"), "app");
    shell.run(agent, (spec.attempt, epoch), 0);
    assert_eq!(state(&shell, child.id), BuildState::Passed);
    assert_eq!(shell.states(parent), [JobState::Passed, JobState::Assigned]);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(state(&shell, parent), BuildState::Passed);
    assert!(shell.rows.lineages.is_empty());
}

#[test]
fn what_the_step_says_reaches_the_build_and_nothing_else_does() {
    let mut shell = shell();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let node = trigger_with("ship", "deploy", |trigger| {
        trigger.branch = Some("release".to_owned());
        trigger.commit = "a".repeat(40);
        trigger.message = "out with it".to_owned();
        trigger.env = vec![pair("WHERE", "prod")];
        trigger.meta_data = vec![pair("version", "7")];
        trigger.parallel = Some((1, 2));
    });
    shell.submit_with(graph(vec![node]), |submit| {
        submit.env = vec![pair("OWN", "not inherited")];
        submit.meta_data = [pair("own", "not inherited")].into();
    });
    let child = fill(&mut shell, graph(vec![step("a")]));
    let row = shell.build(child);
    assert_eq!(
        (row.branch.as_str(), row.commit.clone(), row.message.as_str()),
        ("release", "a".repeat(40), "out with it")
    );
    assert_eq!(
        row.env,
        [pair("WHERE", "prod"), pair("BUILDKITE_PARALLEL_JOB", "1"), pair("BUILDKITE_PARALLEL_JOB_COUNT", "2")]
    );
    assert_eq!(row.meta_data, [pair("version", "7")].into());
}

#[test]
fn an_asynchronous_trigger_passes_when_its_build_is_made_and_nothing_of_it_matters_after() {
    let mut shell = shell();
    let agent = shell.agent("a", 1);
    let parent = shell.submit(graph(vec![trigger_with("ship", "deploy", |trigger| trigger.r#async = true)]));
    assert_eq!(shell.states(parent), [JobState::Running]);
    let child = fill(&mut shell, graph(vec![step("a")]));
    assert_eq!((state(&shell, parent), state(&shell, child)), (BuildState::Passed, BuildState::Running));
    assert_eq!(shell.rows.lineages.len(), 1, "the child still counts");
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!((state(&shell, parent), state(&shell, child)), (BuildState::Passed, BuildState::Failed));
    assert!(shell.rows.lineages.is_empty());
}

#[test]
fn how_a_build_ends_is_how_the_trigger_that_waits_for_it_ends() {
    for (how, soft_fail, job, soft, kind, parent_ends) in [
        ("failed", SoftFail::Never, JobState::Failed, false, Some(CauseKind::DependencyFailed), BuildState::Failed),
        ("failed", SoftFail::Always, JobState::Failed, true, Some(CauseKind::DependencyFailed), BuildState::Passed),
        // A build has no exit status.
        (
            "failed",
            SoftFail::OneOf(vec![1]),
            JobState::Failed,
            false,
            Some(CauseKind::DependencyFailed),
            BuildState::Failed,
        ),
        ("canceled", SoftFail::Never, JobState::Failed, false, Some(CauseKind::Canceled), BuildState::Failed),
        ("superseded", SoftFail::Never, JobState::Skipped, false, Some(CauseKind::Superseded), BuildState::NotRun),
        ("nothing", SoftFail::Never, JobState::Passed, false, None, BuildState::Passed),
    ] {
        let mut shell = shell();
        let agent = (how == "failed").then(|| shell.agent("a", 1));
        let parent =
            shell.submit(graph(vec![trigger_with("ship", "deploy", |trigger| trigger.soft_fail = soft_fail.clone())]));
        let mut steps = graph(vec![step("a")]);
        match how {
            "nothing" => steps.nodes[0].skip = Some("not today".to_owned()),
            "superseded" => steps.supersede = Supersede::Waiting,
            _ => {}
        }
        let child = fill(&mut shell, steps);
        match (how, agent) {
            (_, Some(agent)) => {
                let offer = shell.offer(agent);
                shell.run(agent, offer, 1);
            }
            ("canceled", _) => shell.cancel(child),
            ("superseded", _) => {
                shell.submit_with(graph(vec![step("b")]), |submit| {
                    (submit.pipeline, submit.branch) = ("deploy".to_owned(), "trunk".to_owned());
                    submit.namespace = Namespace::trusted("deploy");
                });
            }
            _ => {}
        }
        let row = shell.job(parent, 0);
        assert_eq!((row.state, row.soft_failed), (job, soft), "{how} {soft_fail:?}");
        assert_eq!(row.cause.as_ref().map(|cause| cause.kind), kind, "{how}");
        assert!(row.cause.as_ref().is_none_or(|cause| cause.detail.contains("deploy #1")), "{:?}", row.cause);
        assert_eq!(state(&shell, parent), parent_ends, "{how} {soft_fail:?}");
    }
}

#[test]
fn a_build_that_cannot_be_fails_its_job_with_the_cause() {
    // Nobody registered it.
    let mut shell = shell();
    let parent = shell.submit(graph(vec![trigger("ship", "nowhere")]));
    let cause = shell.job(parent, 0).cause.clone().unwrap();
    assert_eq!((cause.kind, state(&shell, parent)), (CauseKind::SourceMissing, BuildState::Failed));
    assert!(cause.detail.contains("`nowhere`"), "{cause}");
    assert!(orders(&mut shell).is_empty());
    // Its definition is not to be had.
    let parent = shell.submit(graph(vec![trigger("ship", "deploy")]));
    let asked = order(&mut shell);
    answer(&mut shell, asked.build, Err(Cause::new(CauseKind::CheckoutFailed, "no route"))).unwrap();
    assert_eq!(shell.job(parent, 0).cause, Some(Cause::new(CauseKind::CheckoutFailed, "no route")));
    assert_eq!(state(&shell, parent), BuildState::Failed);
    // It is none that can run.
    let parent = shell.submit(graph(vec![trigger("ship", "deploy")]));
    let asked = order(&mut shell);
    let mut circle = obtained(&asked, graph(vec![after(step("a"), &[1]), after(step("b"), &[0])]));
    circle.branch = "main".to_owned();
    answer(&mut shell, asked.build, Ok(circle)).unwrap();
    assert_eq!(shell.job(parent, 0).cause.as_ref().unwrap().kind, CauseKind::SourceMissing);
    // Nobody answers.
    let parent = shell.submit(graph(vec![trigger("ship", "deploy")]));
    let asked = order(&mut shell);
    shell.pass(limits::ORDER_MS - 1);
    assert_eq!(shell.states(parent), [JobState::Running]);
    shell.pass(1);
    assert_eq!(shell.job(parent, 0).cause.as_ref().unwrap().kind, CauseKind::CheckoutFailed);
    assert_eq!(state(&shell, parent), BuildState::Failed);
    let late = obtained(&asked, graph(vec![step("a")]));
    assert_eq!(answer(&mut shell, asked.build, Ok(late)), Err(Rejected::NoOrder(asked.build)));
    assert_eq!(shell.rows.pipeline_numbers.get("deploy"), None, "no build was ever made");
}

#[test]
fn an_answer_makes_one_build_however_often_it_comes_and_a_restart_asks_again() {
    let mut shell = shell();
    let parent = shell.submit(graph(vec![trigger("ship", "deploy")]));
    let first = order(&mut shell);
    shell.restart();
    let second = order(&mut shell);
    assert_eq!(first, second, "the same order, of the same build");
    shell.restart();
    // Both answers come, to whatever core.
    answer(&mut shell, first.build, Ok(obtained(&first, graph(vec![step("a")])))).unwrap();
    let again = obtained(&second, graph(vec![step("a")]));
    assert_eq!(answer(&mut shell, second.build, Ok(again.clone())), Err(Rejected::NoOrder(first.build)));
    assert_eq!(shell.rows.pipeline_numbers["deploy"], 1);
    orders(&mut shell);
    shell.restart();
    assert!(orders(&mut shell).is_empty(), "it is made, and waited for");
    assert_eq!(answer(&mut shell, first.build, Ok(again)), Err(Rejected::NoOrder(first.build)));
    assert_eq!(shell.states(parent), [JobState::Running]);
    // The end of the child reaches the job after a restart, too.
    let agent = shell.agent("a", 1);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(state(&shell, parent), BuildState::Passed);
}

#[test]
fn a_number_that_somebody_else_was_given_is_asked_for_again() {
    let mut shell = shell();
    shell.submit(graph(vec![trigger("ship", "deploy")]));
    let asked = order(&mut shell);
    let build = shell.submit_with(graph(vec![step("b")]), |submit| submit.pipeline = "deploy".to_owned());
    assert_eq!(shell.build(build).number, 1);
    shell.take_effects();
    let numbered = |number| Obtained { number: Some(number), ..obtained(&asked, graph(vec![step("a")])) };
    answer(&mut shell, asked.build, Ok(numbered(1))).unwrap();
    let again = order(&mut shell);
    assert_eq!(again.build, asked.build);
    answer(&mut shell, asked.build, Ok(numbered(2))).unwrap();
    assert_eq!(shell.build(asked.build).number, 2);
}

#[test]
fn what_was_found_out_by_another_registration_is_found_out_again() {
    let mut shell = shell();
    shell.submit(graph(vec![trigger("ship", "deploy")]));
    let asked = order(&mut shell);
    let change = PipelineChange { protected_refs: Some(vec!["release/*".to_owned()]), ..PipelineChange::default() };
    let request = Request::UpdatePipeline { name: "deploy".to_owned(), change: Box::new(change) };
    assert_eq!(shell.request(request), Ok(Reply::Done));
    shell.take_effects();
    answer(&mut shell, asked.build, Ok(obtained(&asked, graph(vec![step("a")])))).unwrap();
    assert!(!shell.rows.builds.contains_key(&asked.build), "it was trusted by what is not protected any more");
    let again = order(&mut shell);
    assert_eq!((again.build, again.pipeline.protected_refs.len()), (asked.build, 1));
    answer(&mut shell, again.build, Ok(obtained(&again, graph(vec![step("a")])))).unwrap();
    assert_eq!(shell.build(again.build).number, 1);
}

#[test]
fn cancelling_takes_along_a_build_that_is_waited_for_and_no_other() {
    for whole in [true, false] {
        let mut shell = shell();
        let agent = shell.agent("a", 2);
        let nodes = vec![
            trigger("wait", "deploy"),
            trigger_with("go", "deploy", |trigger| trigger.r#async = true),
            trigger("unmade", "deploy"),
        ];
        let parent = shell.submit(graph(nodes));
        let asked = orders(&mut shell);
        for order in &asked[..2] {
            answer(&mut shell, order.build, Ok(obtained(order, graph(vec![step("a")])))).unwrap();
        }
        if whole {
            shell.cancel(parent);
        } else {
            for index in [0, 2] {
                let job = shell.job_id(parent, index);
                assert_eq!(shell.request(Request::CancelJob { job, grace_ms: None }), Ok(Reply::Done));
            }
        }
        assert_eq!(shell.states(parent), [JobState::Canceled, JobState::Passed, JobState::Canceled]);
        assert_eq!(state(&shell, parent), if whole { BuildState::Canceled } else { BuildState::Failed });
        assert_eq!(state(&shell, asked[0].build), BuildState::Canceling, "its command is told to end");
        assert_eq!(state(&shell, asked[1].build), BuildState::Running);
        let cause = shell.build(asked[0].build).cause.clone().unwrap();
        assert!(cause.kind == CauseKind::Canceled && cause.detail.contains("app #1"), "{cause}");
        // What was only ordered is never made.
        let late = obtained(&asked[2], graph(vec![step("a")]));
        assert_eq!(answer(&mut shell, asked[2].build, Ok(late)), Err(Rejected::NoOrder(asked[2].build)));
        let _ = agent;
    }
}

#[test]
fn a_trigger_that_is_run_again_makes_another_build() {
    let mut shell = shell();
    let agent = shell.agent("a", 1);
    let parent = shell.submit(graph(vec![trigger("ship", "deploy"), step("other")]));
    let other = shell.offer(agent);
    shell.run(agent, other, 0);
    let first = fill(&mut shell, graph(vec![step("a")]));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    assert_eq!(state(&shell, parent), BuildState::Failed);
    let rows = Some(Box::new(shell.history[&parent].clone()));
    assert_eq!(shell.request(Request::RetryBuild { build: parent, rows }), Ok(Reply::Done));
    assert_eq!(shell.states(parent), [JobState::Running, JobState::Passed]);
    let second = fill(&mut shell, graph(vec![step("a")]));
    assert_ne!(first, second);
    let ordinal = |build| shell.build(build).triggered_from.as_ref().unwrap().ordinal;
    assert_eq!((ordinal(first), ordinal(second)), (1, 2));
    let made = |build, number| Triggered { build, number: Some(number) };
    assert_eq!(shell.job(parent, 0).triggered, [made(first, 1), made(second, 2)]);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(state(&shell, parent), BuildState::Passed);
    // The first of its builds is run again by hand; nobody waits for it any more.
    let rows = Some(Box::new(shell.history[&first].clone()));
    assert_eq!(shell.request(Request::RetryBuild { build: first, rows }), Ok(Reply::Done));
    assert_eq!(shell.rows.lineages[&parent].made, 1);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!((state(&shell, first), shell.rows.lineages.len()), (BuildState::Passed, 0));
    let job = shell.job_id(parent, 0);
    let rows = Some(Box::new(shell.history[&parent].clone()));
    let again = shell.request(Request::RetryJob { job, rows });
    assert!(matches!(again, Err(Rejected::Job { why: JobRefused::NotAllowed { .. }, .. })), "{again:?}");
}

#[test]
fn chains_and_families_of_builds_have_an_end() {
    let mut shell = shell();
    let chain = || graph(vec![trigger("on", "deploy")]);
    let mut last = shell.submit(chain());
    for _ in 1..limits::TRIGGER_DEPTH_MAX {
        last = fill(&mut shell, chain());
    }
    let cause = shell.job(last, 0).cause.clone();
    assert_eq!(cause.unwrap().kind, CauseKind::RefusedByPolicy, "the eleventh is not made");
    assert!(shell.rows.builds.is_empty(), "all of them failed, one after the other");
    // Many at once.
    let width = usize::try_from(limits::TRIGGERED_BUILDS_MAX).unwrap();
    let nodes = (0..=width).map(|index| trigger_with(&format!("t{index}"), "deploy", |trigger| trigger.r#async = true));
    let parent = shell.submit(graph(nodes.collect()));
    let asked = orders(&mut shell);
    assert_eq!(asked.len(), width + 1);
    for order in &asked {
        answer(&mut shell, order.build, Ok(obtained(order, graph(vec![step("a")])))).unwrap();
    }
    assert_eq!(shell.job(parent, width - 1).state, JobState::Passed);
    let refused = shell.job(parent, width);
    assert_eq!(refused.cause.as_ref().unwrap().kind, CauseKind::RefusedByPolicy);
    assert_eq!(shell.rows.lineages[&parent].made, limits::TRIGGERED_BUILDS_MAX);
}

#[test]
fn a_triggered_build_has_the_least_trust_of_what_it_comes_from() {
    let overlay = |name: &str| Namespace::overlay("app", name);
    for (parent, verified, expected) in [
        (Namespace::trusted("app"), true, Namespace::trusted("deploy")),
        (Namespace::trusted("app"), false, Namespace::overlay("deploy", "branch:trunk")),
        (overlay("pr:7"), true, Namespace::overlay("deploy", "trigger:app/pr:7")),
        (overlay("trigger:web/pr:7"), true, Namespace::overlay("deploy", "trigger:web/pr:7")),
    ] {
        let mut shell = shell();
        shell.submit_with(graph(vec![trigger("ship", "deploy")]), |submit| submit.namespace = parent.clone());
        let asked = order(&mut shell);
        let found = Obtained { verified, ..obtained(&asked, graph(vec![step("a")])) };
        answer(&mut shell, asked.build, Ok(found)).unwrap();
        assert_eq!(shell.build(asked.build).namespace, expected, "{parent} {verified}");
    }
    // A name that would be too long is one still, and another for another parent.
    let mut names = std::collections::BTreeSet::new();
    for last in ["a", "b"] {
        let mut shell = shell();
        let long = format!("{}{last}", "n".repeat(limits::NAME_MAX_BYTES - 1));
        shell.submit_with(graph(vec![trigger("ship", "deploy")]), |submit| submit.namespace = overlay(&long));
        let child = fill(&mut shell, graph(vec![step("a")]));
        let namespace = shell.build(child).namespace.clone();
        assert!(namespace.trust() == Trust::Untrusted && namespace.short_name().len() <= limits::NAME_MAX_BYTES);
        names.insert(namespace);
    }
    assert_eq!(names.len(), 2);
}

#[test]
fn who_may_make_builds_of_one_pipeline_triggers_no_other() {
    let mut shell = shell();
    register(&mut shell, "web");
    let confined =
        |pipeline: Option<&str>, branch: Option<&str>| windlass_coordinator_core::trigger::confined(pipeline, branch);
    assert_eq!(confined(None, None), None);
    for (to, allowed) in [
        (confined(Some("app"), None), false),
        (confined(Some("deploy"), None), true),
        (confined(None, Some("main")), false),
        (confined(None, Some("trunk")), true),
    ] {
        let parent =
            shell.submit_with(graph(vec![trigger("ship", "deploy")]), |submit| submit.confined.clone_from(&to));
        let refused = shell.job(parent, 0).cause.as_ref().is_some_and(|cause| cause.kind == CauseKind::RefusedByPolicy);
        assert_eq!(refused, !allowed, "{to:?}");
        if allowed {
            let child = fill(&mut shell, graph(vec![trigger("on", "web")]));
            assert_eq!(shell.build(child).confined, to, "what it triggers is confined, too");
        }
        orders(&mut shell);
    }
}

#[test]
fn a_build_does_not_end_what_it_comes_from_by_being_newer() {
    let mut shell = shell();
    let mut above = graph(vec![trigger("again", "deploy")]);
    above.supersede = Supersede::Running;
    let parent = shell.submit_with(above, |submit| {
        (submit.pipeline, submit.branch) = ("deploy".to_owned(), "trunk".to_owned());
        submit.namespace = Namespace::trusted("deploy");
    });
    let mut older = graph(vec![step("old")]);
    older.supersede = Supersede::Waiting;
    let older = shell.submit_with(older, |submit| {
        (submit.pipeline, submit.branch) = ("deploy".to_owned(), "trunk".to_owned());
        submit.namespace = Namespace::trusted("deploy");
    });
    // The one that came in between did end the first, which it does not come from.
    assert_eq!(state(&shell, parent), BuildState::Canceled);
    orders(&mut shell);
    let mut above = graph(vec![trigger("again", "deploy")]);
    above.supersede = Supersede::Running;
    let parent = shell.submit_with(above, |submit| {
        (submit.pipeline, submit.branch) = ("deploy".to_owned(), "trunk".to_owned());
        submit.namespace = Namespace::trusted("deploy");
    });
    assert_eq!(state(&shell, older), BuildState::Skipped);
    fill(&mut shell, graph(vec![step("a")]));
    assert_eq!(state(&shell, parent), BuildState::Running);
}

#[test]
fn a_build_that_waits_at_a_gate_is_waited_for() {
    let mut shell = shell();
    let parent = shell.submit(graph(vec![trigger("ship", "deploy")]));
    let child = fill(&mut shell, graph(vec![crate::kit::block("gate", Vec::new())]));
    assert!(shell.build(child).blocked.is_some());
    assert_eq!(shell.states(parent), [JobState::Running]);
    let job = shell.job_id(child, 0);
    let answers = std::collections::BTreeMap::new();
    assert_eq!(shell.request(Request::Unblock { job, answers }), Ok(Reply::Done));
    assert_eq!(state(&shell, parent), BuildState::Passed);
}
