//! Notifications: what is due, in which order it is sent, and what becomes of it (docs/design/025).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Effect, Rejected};
use windlass_pipeline::graph::{Graph, Node, Notify, Place, SoftFail};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Namespace, NotificationId, PipelineId, TokenId, limits};

use crate::kit::*;

const REPOSITORY: &str = "https://github.com/acme/app.git";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn entry(service: &str, config: Value, condition: Option<&str>) -> Notify {
    Notify { service: service.to_owned(), config, condition: condition.map(str::to_owned) }
}

fn webhook(url: &str) -> Notify {
    entry("webhook", json!(url), None)
}

fn status(context: &str) -> Notify {
    entry("github_commit_status", json!({ "context": context }), None)
}

fn told(notify: Vec<Notify>, nodes: Vec<Node>) -> Graph {
    let places = (0_u32..).zip(nodes).map(|(at, node)| Node { place: Place::of(node.place.group, at), ..node });
    Graph { notify, ..graph(places.collect()) }
}

/// A pipeline with a repository is registered.
fn registered() -> Shell {
    let mut shell = Shell::new();
    let change = PipelineChange { repository: Some(Some(REPOSITORY.to_owned())), ..PipelineChange::default() };
    let request = Request::CreatePipeline {
        id: PipelineId::from_bytes([7; 16]),
        name: "app".to_owned(),
        change: Box::new(change),
    };
    shell.request(request).unwrap();
    shell
}

fn submit(shell: &mut Shell, graph: Graph) -> BuildId {
    shell.submit_with(graph, |submit| submit.commit = COMMIT.to_owned())
}

/// What is to be sent now.
fn sent(shell: &mut Shell) -> Vec<NotificationRow> {
    let effects = shell.take_effects().into_iter();
    effects.filter_map(|effect| if let Effect::Deliver(row) = effect { Some(*row) } else { None }).collect()
}

fn answer(shell: &mut Shell, row: &NotificationRow, delivery: Delivery) -> Result<(), Rejected> {
    shell.input(Input::Delivered { id: row.id, attempt: row.attempts + 1, delivery })
}

fn done(shell: &mut Shell, row: &NotificationRow) {
    answer(shell, row, Delivery::Done { status: 200 }).unwrap();
}

fn later(status: Option<u16>, after_ms: Option<u64>) -> Delivery {
    Delivery::Later { status, detail: "not now".to_owned(), after_ms }
}

/// In short: what each says, in the order of their making.
fn said(shell: &Shell) -> Vec<String> {
    let short = |row: &NotificationRow| match &row.message {
        Message::Webhook { event, facts, .. } => format!("{} {}", event.name(), facts.state),
        Message::GithubCommitStatus { context, state, .. } => format!("{context} {}", state.name()),
        Message::Unsent { name } => format!("{name} unsent"),
    };
    shell.notifications.values().map(short).collect()
}

#[test]
fn a_webhook_hears_of_a_builds_whole_life_in_order() {
    let mut shell = registered();
    let agent = shell.agent("one", 1);
    shell.take_effects();
    let build = submit(
        &mut shell,
        told(vec![webhook("https://h.example/x")], vec![step("a"), after(block("ok", Vec::new()), &[0])]),
    );
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    shell
        .request(Request::Unblock { job: shell.job_id(build, 1), answers: std::collections::BTreeMap::default() })
        .unwrap();
    let all = ["build.scheduled running", "build.running running", "build.blocked blocked", "build.finished passed"];
    assert_eq!(said(&shell), all);
    let mut heard = Vec::new();
    // One at a time: each next one when the one before is over.
    while let Some(row) = {
        let next = sent(&mut shell);
        assert!(next.len() <= 1);
        next.into_iter().next()
    } {
        done(&mut shell, &row);
        heard.push(row.id);
    }
    assert_eq!(heard, shell.notifications.keys().copied().collect::<Vec<_>>());
    assert!(shell.notifications.values().all(|row| row.state == NotificationState::Delivered && row.attempts == 1));
    assert_eq!((shell.rows.notifications.len(), shell.build(build).notified), (0, 4));
}

#[test]
fn a_failing_build_that_is_run_again_is_told_of_again() {
    let mut shell = registered();
    let agent = shell.agent("one", 1);
    let build = submit(&mut shell, told(vec![webhook("https://h.example"), status("ci")], vec![step("a"), step("b")]));
    let offer = shell.offer(agent);
    shell.run(agent, offer, 1);
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    shell.request(Request::RetryBuild { build, rows: Some(Box::new(shell.history[&build].clone())) }).unwrap();
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    let all = [
        "build.scheduled running",
        "build.running running",
        "ci pending",
        "build.failing failing",
        "build.finished failed",
        "ci failure",
        "build.running running",
        "ci pending",
        "build.finished passed",
        "ci success",
    ];
    assert_eq!(said(&shell), all);
}

#[test]
fn conditions_are_asked_when_the_event_happens() {
    let mut shell = registered();
    let agent = shell.agent("one", 1);
    let url = || json!("https://h.example");
    let notify = vec![
        entry("webhook", url(), Some("build.state == 'passed'")),
        entry("webhook", url(), Some("build.branch == 'other'")),
        entry("webhook", url(), Some("build.state ==")),
        entry("github_commit_status", Value::Null, Some("build.state == 'passed' && build.env('DEPLOY') == 'yes'")),
    ];
    let graph = told(notify, vec![step("a")]);
    shell.submit_with(graph, |submit| {
        submit.commit = COMMIT.to_owned();
        submit.env = vec![("DEPLOY".to_owned(), "yes".to_owned())];
    });
    let offer = shell.offer(agent);
    shell.run(agent, offer, 0);
    assert_eq!(said(&shell), ["build.finished passed", "buildkite/app success"]);
}

#[test]
fn a_steps_status_is_that_of_all_its_jobs() {
    let mut shell = registered();
    let agent = shell.agent("one", 1);
    let element = |soft| Node {
        notify: vec![status("unit tests"), entry("slack", json!("#room"), None)],
        place: Place::of(Some(0), 0),
        ..step_with("test", |command| command.soft_fail = soft)
    };
    let mut graph = graph(vec![element(SoftFail::Never), element(SoftFail::Never), element(SoftFail::Always)]);
    let group = windlass_pipeline::graph::Group {
        key: Some("all".to_owned()),
        notify: vec![entry("github_commit_status", Value::Null, None)],
        ..Default::default()
    };
    graph.groups = vec![group];
    submit(&mut shell, graph);
    for (status, told) in [(0, 0), (1, 0), (1, 3)] {
        assert_eq!(shell.notifications.len(), 2, "pending once, however many jobs there are");
        let offer = shell.offer(agent);
        shell.run(agent, offer, status);
        assert_eq!(shell.notifications.len(), 2 + told);
    }
    let mut said = said(&shell);
    said.sort();
    let all = [
        "buildkite/app/all failure",
        "buildkite/app/all pending",
        "slack unsent",
        "unit tests failure",
        "unit tests pending",
    ];
    assert_eq!(said, all);
}

#[test]
fn a_step_that_is_retried_by_itself_says_nothing_of_it() {
    let mut shell = registered();
    let agent = shell.agent("one", 1);
    let rule = retry_on(windlass_pipeline::graph::StatusMatch::Any, 1);
    let node = Node { notify: vec![status("t")], ..step_with("t", |command| command.retry = vec![rule]) };
    submit(&mut shell, told(Vec::new(), vec![node]));
    for exit in [1, 0] {
        let offer = shell.offer(agent);
        shell.run(agent, offer, exit);
    }
    assert_eq!(said(&shell), ["t pending", "t success"]);
}

#[test]
fn who_may_be_told_follows_from_what_the_server_itself_knows() {
    let git = |repository: &str| Source::Git {
        repository: repository.to_owned(),
        commit: COMMIT.to_owned(),
        branch: "topic".to_owned(),
    };
    let pr = Namespace::overlay("app", "pr:7");
    let (own, other) = (git(REPOSITORY), git("https://github.com/mallory/app.git"));
    let token = Namespace::overlay("app", &format!("token:{}", TokenId::from_bytes([2; 16])));
    for (name, namespace, origin, commit, hook, status) in [
        ("trusted", Namespace::trusted("app"), own.clone(), COMMIT, true, true),
        ("trusted, from a tree", Namespace::trusted("app"), Source::Empty, COMMIT, true, true),
        ("no commit", Namespace::trusted("app"), Source::Empty, "HEAD", true, false),
        ("another repository", Namespace::trusted("app"), other, COMMIT, true, false),
        ("a pull request's head", pr.clone(), own.clone(), COMMIT, false, true),
        ("a pull request's tree", pr, Source::Empty, COMMIT, false, false),
        ("whoever may submit", token, own, COMMIT, false, false),
    ] {
        let mut shell = registered();
        let build =
            shell.submit_with(told(vec![webhook("https://h.example"), status_of()], vec![step("a")]), |submit| {
                (submit.namespace, submit.origin, submit.commit) = (namespace, origin, commit.to_owned());
            });
        shell.cancel(build);
        let of = |service: &str| {
            shell
                .notifications
                .values()
                .filter(|row| row.message.service() == service)
                .map(|row| row.state)
                .collect::<BTreeSet<_>>()
        };
        let wanted = |may| BTreeSet::from([if may { NotificationState::Pending } else { NotificationState::Refused }]);
        assert_eq!(of("github_commit_status"), wanted(status), "{name}: {:#?}", shell.notifications);
        assert_eq!(of("webhook"), wanted(hook), "{name}");
    }
}

fn status_of() -> Notify {
    entry("github_commit_status", Value::Null, None)
}

#[test]
fn what_is_not_served_is_written_down_once_with_the_end() {
    let mut shell = registered();
    let notify =
        vec![entry("pagerduty_change_event", json!("k"), None), entry("pigeon", json!(1), None), webhook("gopher://h")];
    let build = submit(&mut shell, told(notify, vec![step("a")]));
    assert!(shell.notifications.is_empty());
    shell.cancel(build);
    let rows: Vec<_> = shell.notifications.values().map(|row| (row.state, row.detail.clone())).collect();
    assert_eq!(said(&shell), ["pagerduty_change_event unsent", "pigeon unsent", "webhook unsent"]);
    assert!(rows.iter().all(|(state, detail)| *state == NotificationState::Refused && !detail.is_empty()), "{rows:?}");
    assert!(sent(&mut shell).is_empty());
}

#[test]
fn a_try_that_fails_is_made_again_later_and_later_and_given_up_in_the_end() {
    let mut shell = registered();
    submit(&mut shell, told(vec![webhook("https://h.example")], vec![step("a")]));
    let (mut tries, mut last) = (0, 0);
    let row = loop {
        let row = sent(&mut shell).pop().unwrap();
        tries += 1;
        assert_eq!(row.attempts + 1, tries);
        answer(&mut shell, &row, later(Some(503), None)).unwrap();
        let row = shell.notifications[&row.id].clone();
        if row.state.is_final() {
            break row;
        }
        let waits = row.due_at.0 - shell.now.wall.0;
        assert!(waits >= last, "{waits} after {last}");
        // Twice as long as before, but for a quarter less and a quarter more.
        last = (waits * 6 / 5).min(limits::DELIVERY_BACKOFF_MAX_MS * 3 / 4);
        shell.pass(waits - 1);
        assert!(sent(&mut shell).is_empty());
        shell.pass(1);
    };
    assert_eq!((row.state, row.status, row.attempts), (NotificationState::Failed, Some(503), tries));
    let lived = row.finished_at.unwrap().0 - row.created_at.0;
    assert!(
        lived + limits::DELIVERY_BACKOFF_MAX_MS * 5 / 4 >= limits::DELIVERY_LIFE_MS
            && tries <= limits::DELIVERY_TRIES_MAX
    );
    assert!(!shell.rows.notifications.contains_key(&row.id));
}

#[test]
fn a_receiver_that_is_down_stops_no_other_one_and_rests() {
    let mut shell = registered();
    let dead: Vec<_> = (0..8).map(|n| webhook(&format!("https://dead.example/{n}"))).collect();
    let living = webhook("https://living.example/");
    submit(&mut shell, told([dead, vec![living]].concat(), vec![step("a")]));
    let first = sent(&mut shell);
    let target = |row: &NotificationRow| row.message.target();
    let to_dead = first.iter().filter(|row| target(row) == "https://dead.example").count();
    assert_eq!((to_dead, first.len()), (limits::DELIVERIES_PER_TARGET_MAX, 3));
    for row in &first {
        match target(row).as_str() {
            "https://dead.example" => answer(&mut shell, row, later(None, None)).unwrap(),
            _ => done(&mut shell, row),
        }
    }
    let next = sent(&mut shell);
    assert_eq!(next.len(), 2, "the others of the dead one");
    for row in &next {
        answer(&mut shell, row, later(Some(429), Some(50_000))).unwrap();
    }
    assert!(sent(&mut shell).is_empty());
    shell.pass(49_000);
    assert!(sent(&mut shell).is_empty(), "it asked for 50 seconds");
    shell.pass(1_000);
    assert_eq!(sent(&mut shell).len(), 2);
}

#[test]
fn what_was_on_its_way_is_sent_again_after_a_restart_and_late_answers_count_for_nothing() {
    let mut shell = registered();
    submit(&mut shell, told(vec![webhook("https://h.example")], vec![step("a")]));
    let row = sent(&mut shell).pop().unwrap();
    shell.restart();
    let again = sent(&mut shell).pop().unwrap();
    assert_eq!(again, row);
    answer(&mut shell, &again, later(None, None)).unwrap();
    assert_eq!(answer(&mut shell, &again, Delivery::Done { status: 200 }), Err(Rejected::NotUnderWay(row.id)));
    let nobody = NotificationRow { id: NotificationId::from_bytes([9; 16]), ..row.clone() };
    assert_eq!(answer(&mut shell, &nobody, Delivery::Done { status: 200 }), Err(Rejected::NotUnderWay(nobody.id)));
    shell.restart();
    assert!(sent(&mut shell).is_empty(), "its pause outlives a restart");
    shell.pass(2_000);
    let third = sent(&mut shell).pop().unwrap();
    assert_eq!(third.attempts, 1);
    // A shell that never says what came of it.
    shell.pass(limits::DELIVERY_LOST_MS + limits::DELIVERY_BACKOFF_MS * 4);
    assert_eq!(sent(&mut shell).pop().unwrap().attempts, 2);
}

#[test]
fn a_build_has_a_bounded_number_of_notifications_and_so_has_a_receiver() {
    let mut shell = registered();
    let many: Vec<_> = (0..100).map(|n| webhook(&format!("https://h.example/{n}"))).collect();
    let mut builds = Vec::new();
    for _ in 0..12 {
        let build = submit(&mut shell, told(many.clone(), vec![step("a")]));
        shell.cancel(build);
        builds.push(build);
    }
    assert!(builds.iter().all(|build| shell.build(*build).notified == 200));
    let failed = shell.notifications.values().filter(|row| row.state == NotificationState::Failed).count();
    assert_eq!((shell.rows.notifications.len(), failed), (limits::NOTIFICATIONS_PER_TARGET_MAX, 400));
    let max = limits::NOTIFICATIONS_PER_BUILD_MAX;
    let entries = (0..600).map(|n| webhook(&format!("https://g.example/{n}"))).collect();
    let build = submit(&mut shell, told(entries, vec![step("a")]));
    shell.cancel(build);
    assert_eq!((shell.build(build).notified, shell.build(build).not_notified), (max, 200));
}

#[test]
fn statuses_of_gates_are_as_their_entry_says() {
    for (config, states) in [
        (json!({ "context": "c" }), &["c pending", "c success"][..]),
        (json!({ "context": "c", "blocked_builds_as_pending": true }), &["c pending"]),
    ] {
        let mut shell = registered();
        let agent = shell.agent("one", 1);
        let notify = vec![entry("github_commit_status", config, None)];
        submit(&mut shell, told(notify, vec![step("a"), after(block("ok", Vec::new()), &[0])]));
        let offer = shell.offer(agent);
        shell.run(agent, offer, 0);
        assert_eq!(said(&shell), states);
    }
}

/// A build of a pull request's head.
fn pull_request(shell: &mut Shell, number: u32, commit: &str, notify: Vec<Notify>) -> BuildId {
    shell.submit_with(told(notify, vec![step("a")]), |submit| {
        let (repository, commit) = (REPOSITORY.to_owned(), commit.to_owned());
        submit.namespace = Namespace::overlay("app", &format!("pr:{number}"));
        submit.commit.clone_from(&commit);
        submit.origin = Source::Git { repository, commit, branch: format!("topic-{number}") };
    })
}

#[test]
fn pull_requests_have_places_of_their_own_and_take_none_of_trusted_builds() {
    let mut shell = registered();
    let entries: Vec<_> = (0..100).map(|n| status(&format!("buildkite/app/{n}"))).collect();
    let builds: Vec<_> = (0..8).map(|n| pull_request(&mut shell, n, &format!("{n:040}"), entries.clone())).collect();
    for build in &builds {
        assert_eq!((shell.build(*build).notified, shell.build(*build).not_notified), (50, 50));
    }
    let of = |shell: &Shell, state| shell.notifications.values().filter(|row| row.state == state).count();
    let waiting = limits::UNTRUSTED_NOTIFICATIONS_PER_TARGET_MAX;
    assert_eq!(of(&shell, NotificationState::Pending), waiting);
    assert_eq!(of(&shell, NotificationState::Failed), 400 - waiting);
    submit(&mut shell, told(entries, vec![step("a")]));
    assert_eq!(of(&shell, NotificationState::Pending), waiting + 100, "the trusted build's");
    shell.restart();
    pull_request(&mut shell, 9, COMMIT, vec![status_of()]);
    assert_eq!(of(&shell, NotificationState::Failed), 401 - waiting, "a restart counts the same");
}

#[test]
fn a_pull_request_says_nothing_in_the_name_of_another_check() {
    let mut shell = registered();
    let contexts = ["buildkite/app", "buildkite/app/lint", "buildkite/apple", "security", "Buildkite/app "];
    let build = pull_request(&mut shell, 7, COMMIT, contexts.map(status).to_vec());
    shell.cancel(build);
    let mut said = said(&shell);
    said.sort();
    said.dedup();
    let unsent = "github_commit_status unsent";
    assert_eq!(
        said,
        [
            "buildkite/app error",
            "buildkite/app pending",
            "buildkite/app/lint error",
            "buildkite/app/lint pending",
            unsent
        ]
    );
}

#[test]
fn a_webhooks_password_is_written_down_nowhere() {
    let mut shell = registered();
    let build =
        submit(&mut shell, told(vec![webhook("https://u:hunter2@h/x"), webhook("https://h/@ok")], vec![step("a")]));
    shell.cancel(build);
    assert_eq!(said(&shell).iter().filter(|said| *said == "webhook unsent").count(), 1);
    assert!(!format!("{:?}", shell.notifications).contains("hunter2"));
    assert!(format!("{:?}", shell.notifications).contains("https://h/@ok"));
}

#[test]
fn the_order_outlives_a_clock_that_goes_back() {
    let mut shell = registered();
    let build = submit(&mut shell, told(vec![webhook("https://h.example")], vec![step("a")]));
    let first = sent(&mut shell).pop().unwrap();
    shell.now.wall.0 -= 500;
    shell.restart();
    shell.cancel(build);
    let ids: Vec<_> = shell.notifications.keys().copied().collect();
    assert!(ids.len() == 2 && ids[0] < first.id, "the newer one has the smaller id");
    shell.restart();
    shell.pass(1_000);
    assert_eq!(sent(&mut shell).iter().map(|row| row.id).collect::<Vec<_>>(), [first.id]);
}

#[test]
fn a_condition_asks_what_its_own_step_is() {
    let mut shell = registered();
    let keyed = |key: Option<&str>, label: &str| Node {
        key: key.map(str::to_owned),
        notify: vec![entry("github_commit_status", json!({ "context": label }), Some("step.key == 'one'"))],
        ..step(label)
    };
    submit(&mut shell, told(Vec::new(), vec![keyed(Some("one"), "a"), keyed(None, "b"), keyed(Some("two"), "c")]));
    assert_eq!(said(&shell), ["a pending"]);
}

/// How long a build of so many steps takes to be made and canceled, each of which somebody hears of.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures how long the core itself takes")]
fn submit_and_cancel(steps: u32) -> std::time::Duration {
    let mut shell = registered();
    let notify =
        || vec![entry("github_commit_status", Value::Null, Some("build.branch =~ /^mai[n]$/ && step.id != ''"))];
    let nodes = (0..steps).map(|n| Node { notify: notify(), ..step(&format!("s{n}")) }).collect();
    let graph = told(Vec::new(), nodes);
    let begun = std::time::Instant::now();
    let build = submit(&mut shell, graph);
    shell.cancel(build);
    begun.elapsed()
}

#[test]
fn telling_of_many_steps_takes_no_longer_for_each_than_telling_of_few() {
    let best = |steps| (0..3).map(|_| submit_and_cancel(steps)).min().unwrap();
    let (few, many) = (best(2_000), best(8_000));
    assert!(many < few * 6, "2,000 steps {few:?}, 8,000 steps {many:?}");
}
