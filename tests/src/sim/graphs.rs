//! Random step graphs.

use windlass_pipeline::graph::{
    Broken, Command, Concurrency, Dependency, Edge, Field, FieldKind, Gate, Graph, ManualRetry, Method, Node, NodeKind,
    Notify, Place, RetryRule, Reuse, SoftFail, StatusMatch, Supersede, Trigger,
};
use windlass_protocol::CauseKind;
use windlass_protocol::job::Resources;

use super::random::Random;
use super::receiver::{DEAD, LIVING};

/// A graph of one to eight steps, of which each depends on earlier ones.
#[must_use]
pub fn graph(random: &mut Random, trusted: bool, hopeless: bool) -> Graph {
    let count = random.between(1, 8);
    let mut nodes: Vec<Node> = (0..count).map(|index| node(random, index, trusted)).collect();
    if hopeless && let Some(NodeKind::Command(command)) = nodes.first_mut().map(|node| &mut node.kind) {
        command.queue = "nobody".to_owned();
    }
    let supersede = match random.below(5) {
        0 => Supersede::Waiting,
        1 => Supersede::Running,
        _ => Supersede::Never,
    };
    Graph { nodes, supersede, notify: notify(random), ..Graph::default() }
}

/// Webhooks, of which one reaches nobody, and a service that is not served.
fn notify(random: &mut Random) -> Vec<Notify> {
    let entry = |service: &str, to: &str| Notify { service: service.to_owned(), config: to.into(), condition: None };
    match random.below(6) {
        0 => vec![entry("webhook", LIVING)],
        1 => vec![entry("webhook", DEAD), entry("webhook", LIVING), entry("slack", "#room")],
        _ => Vec::new(),
    }
}

/// Two steps that depend on each other.
#[must_use]
pub fn circle() -> Graph {
    let node = |other| Node {
        label: "circle".to_owned(),
        depends_on: vec![Edge { node: other, allow_failure: false }],
        ..Node::new(NodeKind::Wait { continue_on_failure: false })
    };
    Graph { nodes: vec![node(1), node(0)], ..Graph::default() }
}

fn node(random: &mut Random, index: u64, trusted: bool) -> Node {
    let mut depends_on = Vec::new();
    for earlier in 0..index {
        if random.thousandth(250) {
            let allow_failure = random.thousandth(200);
            depends_on.push(Edge { node: u32::try_from(earlier).unwrap_or(0), allow_failure });
        }
    }
    let barrier = index > 0 && random.thousandth(120);
    let kind = if barrier {
        NodeKind::Wait { continue_on_failure: random.thousandth(300) }
    } else if random.thousandth(100) {
        gate(random)
    } else if random.thousandth(90) {
        trigger(random)
    } else {
        NodeKind::Command(Box::new(command(random, trusted)))
    };
    let unresolved = if random.thousandth(15) { vec![later()] } else { Vec::new() };
    let known = depends_on
        .iter()
        .map(|edge| Dependency { key: format!("step-{}", edge.node), allow_failure: edge.allow_failure });
    let declared = Some(known.chain(unresolved.iter().cloned()).collect());
    Node {
        key: Some(format!("step-{index}")),
        label: format!("step {index}"),
        depends_on,
        allow_dependency_failure: random.thousandth(100),
        broken: random.thousandth(40).then_some(Broken::If),
        unresolved,
        declared,
        place: Place::of(None, u32::try_from(index).unwrap_or(0)),
        skip: random.thousandth(60).then(|| "not today".to_owned()),
        ..Node::new(kind)
    }
}

fn command(random: &mut Random, trusted: bool) -> Command {
    let (queue, zone) = match (trusted, random.below(6)) {
        (true, 0) => ("west", Some("west")),
        (true, 1) => ("deploy", None),
        (true, 2) => ("default", Some("east")),
        _ => ("default", None),
    };
    let exclusive = random.thousandth(250);
    Command {
        command: "true".to_owned(),
        queue: queue.to_owned(),
        tags: if random.thousandth(300) { vec![("os".to_owned(), "linux".to_owned())] } else { Vec::new() },
        zone: zone.map(str::to_owned),
        timeout_ms: random.thousandth(400).then(|| random.between(2_000, 40_000)),
        retry: retry(random, exclusive),
        manual_retry: ManualRetry {
            allowed: !random.thousandth(100),
            permit_on_passed: random.thousandth(700),
            reason: None,
        },
        soft_fail: match random.below(8) {
            0 => SoftFail::Always,
            1 => SoftFail::OneOf(vec![42]),
            _ => SoftFail::Never,
        },
        priority: i64::try_from(random.below(3)).unwrap_or(0),
        resources: Resources {
            cpu_millis: if random.thousandth(300) { random.between(100, 1_000) } else { 0 },
            memory_bytes: if random.thousandth(200) { 1 << 30 } else { 0 },
        },
        exclusive,
        concurrency: concurrency(random),
        cancel_on_build_failing: random.thousandth(80),
        interruptible: random.thousandth(250),
        reuse: reuse(random),
        ..Command::default()
    }
}

/// A third of the steps may be reused; of some, half of the hits are run all the same.
fn reuse(random: &mut Random) -> Option<Reuse> {
    let verify_ppm = if random.thousandth(200) { 500_000 } else { 0 };
    random.thousandth(330).then(|| Reuse { verify_ppm, ..Reuse::default() })
}

fn retry(random: &mut Random, exclusive: bool) -> Vec<RetryRule> {
    let mut rules = Vec::new();
    if exclusive && random.thousandth(600) {
        let cause = Some(vec![CauseKind::AgentLost, CauseKind::LeaseLost]);
        rules.push(RetryRule {
            exit_status: StatusMatch::AnyFailure,
            signal: None,
            cause,
            or_no_cause: false,
            limit: 3,
        });
    }
    if random.thousandth(350) {
        let cause = match random.below(3) {
            0 => Some(vec![CauseKind::AgentLost, CauseKind::LeaseLost, CauseKind::AgentStopped]),
            _ => None,
        };
        let exit_status = match random.below(3) {
            0 => StatusMatch::Any,
            1 => StatusMatch::AnyFailure,
            _ => StatusMatch::OneOf(vec![-1, 1]),
        };
        let limit = u32::try_from(random.between(0, 3)).unwrap_or(1);
        rules.push(RetryRule { exit_status, signal: None, cause, or_no_cause: false, limit });
    }
    rules
}

/// A build of a pipeline that may be registered.
fn trigger(random: &mut Random) -> NodeKind {
    let pipeline = match random.below(8) {
        0 => "nowhere",
        1..=4 => "app",
        _ => "web",
    };
    NodeKind::Trigger(Box::new(Trigger {
        pipeline: pipeline.to_owned(),
        branch: random.thousandth(500).then(|| "main".to_owned()),
        commit: "HEAD".to_owned(),
        r#async: random.thousandth(300),
        soft_fail: if random.thousandth(250) { SoftFail::Always } else { SoftFail::Never },
        ..Trigger::default()
    }))
}

/// A block or an input; some ask something.
fn gate(random: &mut Random) -> NodeKind {
    let kind = FieldKind::Text { default: None, format: Some("v[0-9]+".to_owned()) };
    let field = Field { key: "version".to_owned(), label: None, hint: None, required: true, kind };
    let fields = if random.thousandth(400) { vec![field] } else { Vec::new() };
    let gate = Box::new(Gate { fields, ..Gate::default() });
    if random.thousandth(300) { NodeKind::Input(gate) } else { NodeKind::Block(gate) }
}

/// What a job uploads: a few steps that wait for it, and at times the key that others wait for, or one that is taken.
#[must_use]
pub fn upload(random: &mut Random, trusted: bool) -> Graph {
    let count = random.between(1, 3);
    let nodes = (0..count).map(|index| {
        let barrier = index > 0 && random.thousandth(200);
        let kind = if barrier {
            NodeKind::Wait { continue_on_failure: false }
        } else {
            NodeKind::Command(Box::new(command(random, trusted)))
        };
        let key = match random.below(12) {
            0 if index == 0 => Some("later".to_owned()),
            1 if index == 0 => Some("step-0".to_owned()),
            _ => None,
        };
        let place = Place::of(None, u32::try_from(index).unwrap_or(0));
        Node { key, label: format!("uploaded {index}"), place, ..Node::new(kind) }
    });
    Graph { nodes: nodes.collect(), ..Graph::default() }
}

/// A key that no step has.
fn later() -> Dependency {
    Dependency { key: "later".to_owned(), allow_failure: false }
}

/// Groups that all builds share; each has one limit and one method.
fn concurrency(random: &mut Random) -> Option<Concurrency> {
    if !random.thousandth(500) {
        return None;
    }
    let (group, limit, method) = match random.below(5) {
        0..=2 => ("deploy", 1, Method::Ordered),
        3 => ("database", 2, Method::Ordered),
        _ => ("device", 1, Method::Eager),
    };
    Some(Concurrency { group: group.to_owned(), limit, method })
}
