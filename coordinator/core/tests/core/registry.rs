//! The registry of pipelines, and what builds keep of it.

use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Effect;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Change, PipelineChange};
use windlass_protocol::{Digest, PipelineId, limits};

use crate::kit::{Shell, graph, step, step_with};

fn id() -> PipelineId {
    PipelineId::from_bytes([3; 16])
}

fn create(shell: &mut Shell, name: &str, change: PipelineChange) -> Result<(), Rejected> {
    let request = Request::CreatePipeline { id: id(), name: name.to_owned(), change: Box::new(change) };
    shell.request(request).map(drop)
}

fn update(shell: &mut Shell, name: &str, change: PipelineChange) -> Result<(), Rejected> {
    shell.request(Request::UpdatePipeline { name: name.to_owned(), change: Box::new(change) }).map(drop)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The value of a variable in what an agent was offered.
fn variable(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().rfind(|(other, _)| other == name).map(|(_, value)| value.clone())
}

#[test]
fn a_pipeline_is_registered_once_by_its_name_with_defaults_for_what_is_not_said() {
    let mut shell = Shell::new();
    create(&mut shell, "web", PipelineChange::default()).unwrap();
    let row = shell.rows.pipelines["web"].clone();
    assert_eq!((row.id, row.default_branch.as_str(), row.definition), (id(), "main", None));
    assert_eq!(row.protected(), ["refs/heads/main"]);
    assert_eq!(row.created_at, shell.now.wall);
    assert_eq!(shell.audits, ["pipeline.create"]);
    assert_eq!(create(&mut shell, "web", PipelineChange::default()), Err(Rejected::PipelineExists("web".to_owned())));
    assert_eq!(update(&mut shell, "api", PipelineChange::default()), Err(Rejected::NoSuchPipeline("api".to_owned())));
    assert_eq!(shell.rows.pipelines.len(), 1);
}

#[test]
fn a_submit_that_was_decided_by_another_registration_is_refused() {
    let mut shell = Shell::new();
    create(&mut shell, "app", PipelineChange::default()).unwrap();
    let before = shell.rows.pipelines["app"].clone();
    let submit = |shell: &mut Shell, row: &windlass_coordinator_core::row::PipelineRow| {
        let submit =
            crate::kit::submission(graph(vec![step("a")]), |submit| submit.registration = Some(Box::new(row.clone())));
        shell.request(Request::Submit(Box::new(submit))).map(drop)
    };
    assert_eq!(submit(&mut shell, &before), Ok(()));
    let change = PipelineChange { protected_refs: Some(vec!["release/*".to_owned()]), ..PipelineChange::default() };
    update(&mut shell, "app", change).unwrap();
    assert_eq!(submit(&mut shell, &before), Err(Rejected::PipelineChanged("app".to_owned())));
    let after = shell.rows.pipelines["app"].clone();
    assert_eq!(submit(&mut shell, &after), Ok(()));
}

#[test]
fn what_is_said_changes_what_is_taken_away_goes_and_all_else_stays() {
    let mut shell = Shell::new();
    let change = PipelineChange {
        repository: Some(Some("https://git.example/web".to_owned())),
        definition: Some(Some("steps: []".to_owned())),
        env: vec![("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), Some("2".to_owned()))],
        timeout_ms: Some(Some(60_000)),
        ..PipelineChange::default()
    };
    create(&mut shell, "web", change).unwrap();
    let text = shell.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Change(Change::Definition { digest, text }) => Some((digest, text)),
        _ => None,
    });
    assert_eq!(text, Some((Digest::of(b"steps: []"), "steps: []".to_owned())));
    shell.pass(1_000);
    let change = PipelineChange {
        default_branch: Some("trunk".to_owned()),
        definition: Some(None),
        env: vec![("A".to_owned(), None), ("B".to_owned(), Some("3".to_owned())), ("C".to_owned(), None)],
        ..PipelineChange::default()
    };
    update(&mut shell, "web", change).unwrap();
    let row = &shell.rows.pipelines["web"];
    assert_eq!(row.repository.as_deref(), Some("https://git.example/web"));
    assert_eq!((row.default_branch.as_str(), row.definition, row.timeout_ms), ("trunk", None, Some(60_000)));
    assert_eq!(row.env, [pair("B", "3")]);
    assert_eq!(row.updated_at.0 - row.created_at.0, 1_000);
}

#[test]
fn a_setting_that_no_pipeline_can_have_is_refused_and_changes_nothing() {
    let mut shell = Shell::new();
    create(&mut shell, "web", PipelineChange::default()).unwrap();
    let before = shell.rows.pipelines.clone();
    let some = |text: &str| Some(Some(text.to_owned()));
    let change = PipelineChange::default;
    let long = "b".repeat(limits::NAME_MAX_BYTES + 1);
    for (what, wrong) in [
        ("an option as a branch", PipelineChange { default_branch: Some("--upload-pack".to_owned()), ..change() }),
        ("a pattern as a branch", PipelineChange { default_branch: Some("release/*".to_owned()), ..change() }),
        ("no branch", PipelineChange { default_branch: Some(String::new()), ..change() }),
        ("a long branch", PipelineChange { default_branch: Some(long.clone()), ..change() }),
        ("an option as a repository", PipelineChange { repository: some("-x"), ..change() }),
        ("a negation", PipelineChange { protected_refs: Some(vec!["!main".to_owned()]), ..change() }),
        ("two patterns in one", PipelineChange { protected_refs: Some(vec!["main topic".to_owned()]), ..change() }),
        (
            "many patterns",
            PipelineChange {
                protected_refs: Some(vec!["a".to_owned(); limits::PROTECTED_PATTERNS_MAX + 1]),
                ..change()
            },
        ),
        ("a file outside", PipelineChange { file: some("../x.yml"), ..change() }),
        ("a file at the root", PipelineChange { file: some("/etc/passwd"), ..change() }),
        ("no time", PipelineChange { timeout_ms: Some(Some(0)), ..change() }),
        ("a long story", PipelineChange { description: Some("d".repeat(4_097)), ..change() }),
        ("a large variable", PipelineChange { env: vec![("A".to_owned(), Some("v".repeat(300_000)))], ..change() }),
        (
            "a large definition",
            PipelineChange { definition: Some(Some("#".repeat(limits::PIPELINE_MAX_BYTES + 1))), ..change() },
        ),
    ] {
        let refused = update(&mut shell, "web", wrong);
        assert!(matches!(refused, Err(Rejected::Setting { .. } | Rejected::Limit { .. })), "{what}: {refused:?}");
    }
    assert_eq!(shell.rows.pipelines, before);
    assert!(create(&mut shell, &long, change()).is_err());
}

#[test]
fn a_job_gets_its_pipelines_variables_and_timeout_as_they_were_when_its_build_was_made() {
    let mut shell = Shell::new();
    let agent = shell.agent("a", 1);
    let change = PipelineChange {
        repository: Some(Some("https://git.example/app".to_owned())),
        default_branch: Some("trunk".to_owned()),
        env: vec![("FROM".to_owned(), Some("registry".to_owned())), ("LOW".to_owned(), Some("registry".to_owned()))],
        timeout_ms: Some(Some(90_000)),
        ..PipelineChange::default()
    };
    create(&mut shell, "app", change).unwrap();
    let mut steps = graph(vec![step("plain"), step_with("own", |command| command.timeout_ms = Some(5_000))]);
    steps.env = vec![pair("LOW", "definition")];
    let build = shell.submit(steps);
    let away = PipelineChange {
        default_branch: Some("main".to_owned()),
        env: vec![("FROM".to_owned(), None)],
        timeout_ms: Some(None),
        ..PipelineChange::default()
    };
    update(&mut shell, "app", away).unwrap();
    let (epoch, plain) = shell.offers(agent).remove(0);
    let get = |name| variable(&plain.env, name);
    assert_eq!(get("FROM").as_deref(), Some("registry"));
    assert_eq!(get("LOW").as_deref(), Some("definition"), "the definition's own lies over the registry's");
    assert_eq!(get("BUILDKITE_PIPELINE_ID"), Some(id().to_string()));
    assert_eq!(get("BUILDKITE_PIPELINE_DEFAULT_BRANCH").as_deref(), Some("trunk"));
    assert_eq!(get("BUILDKITE_REPO").as_deref(), Some("https://git.example/app"));
    assert_eq!(plain.timeout_ms, Some(90_000));
    shell.run(agent, (plain.attempt, epoch), 0);
    let (_, own) = shell.offers(agent).remove(0);
    assert_eq!(own.timeout_ms, Some(5_000), "a step's own goes before its pipeline's");
    assert_eq!(shell.build(build).registered.as_ref().unwrap().default_branch, "trunk");
}

#[test]
fn builds_of_a_name_that_nobody_registered_go_on_as_before() {
    let mut shell = Shell::new();
    let agent = shell.agent("a", 1);
    let build = shell.submit(graph(vec![step("one")]));
    let (_, job) = shell.offers(agent).remove(0);
    assert_eq!(variable(&job.env, "BUILDKITE_PIPELINE_ID"), None);
    assert_eq!(job.timeout_ms, Some(limits::TIMEOUT_DEFAULT_MS));
    assert_eq!(shell.build(build).registered, None);
    // Its numbers go on when it is registered.
    create(&mut shell, "app", PipelineChange::default()).unwrap();
    let next = shell.submit(graph(vec![step("two")]));
    assert_eq!((shell.build(build).number, shell.build(next).number), (1, 2));
}
