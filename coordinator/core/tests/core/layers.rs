//! The layers of a job's environment, from a pipeline's text to what its agent is told (reference 17.1).

use windlass_coordinator_core::Policy;
use windlass_pipeline::compile;
use windlass_protocol::BuildId;

use crate::kit::*;

const TEXT: &str = r#"
env: { A: pipeline, B: pipeline, C: pipeline, CI: pipeline }
steps:
  - command: "true"
    env: { A: step, CI: step }
"#;

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Makes a build of the text with these variables, and reads what the job is told.
fn told(shell: &mut Shell, env: &[(String, String)], rebuilt_from: Option<BuildId>) -> Vec<(String, String)> {
    let compiled = compile(TEXT, "pipeline.yml", env);
    let graph = compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    shell.submit_with(graph, |submit| {
        (submit.env, submit.rebuilt_from) = (env.to_vec(), rebuilt_from);
        submit.definition = TEXT.to_owned();
    });
    let agent = shell.agent("one", 2);
    shell.offers(agent).remove(0).1.env
}

fn values<'a>(env: &'a [(String, String)], names: &[&str]) -> Vec<Vec<&'a str>> {
    let all = |name: &&str| env.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
    names.iter().map(all).collect()
}

#[test]
fn the_build_beats_the_pipeline_the_step_beats_both_and_the_server_beats_all() {
    let mut shell = Shell::new();
    let build = [pair("A", "build"), pair("B", "build"), pair("D", "build"), pair("BUILDKITE", "build")];
    let env = told(&mut shell, &build, None);
    let got = values(&env, &["A", "B", "C", "D", "CI", "BUILDKITE"]);
    assert_eq!(got, [["step"], ["build"], ["pipeline"], ["build"], ["true"], ["true"]]);
}

#[test]
fn a_build_made_again_gives_its_jobs_the_same_layers() {
    let build = [pair("A", "build"), pair("B", "build")];
    let mut shell = Shell::new();
    let first = told(&mut shell, &build, None);
    let id = *shell.rows.builds.keys().next().unwrap();
    // What a rebuild starts from is what the store has of the first.
    let kept = shell.rows.builds[&id].env.clone();
    let mut shell = Shell::with(Policy::default());
    let again = told(&mut shell, &kept, Some(id));
    let names = ["A", "B", "C", "CI"];
    assert_eq!(values(&first, &names), values(&again, &names));
    assert_eq!(values(&again, &["BUILDKITE_REBUILT_FROM_BUILD_ID"]), [[id.to_string()]]);
}

#[test]
fn a_step_s_plugins_and_checkout_reach_its_job_as_variables() {
    const TEXT: &str = r#"
checkout: { submodules: false, flags: { clean: "-fd" } }
steps:
  - command: "true"
    plugins: [{ "./x#v1": { b: 1, a: [two] } }, docker]
    checkout: { depth: 3, commit_verification: strict }
    env: { BUILDKITE_PLUGINS: "[]", BUILDKITE_GIT_COMMIT_VERIFICATION: "off", BUILDKITE_GIT_CLEAN_FLAGS: "-x", BUILDKITE_GIT_SUBMODULES: "true" }
  - command: "true"
    env: { BUILDKITE_PLUGINS: '["./y"]' }
"#;
    let mut shell = Shell::new();
    let env = [pair("BUILDKITE_PULL_REQUEST", "7")];
    let graph = compile(TEXT, "pipeline.yml", &env).graph.unwrap();
    shell.submit_with(graph, |submit| (submit.env, submit.definition) = (env.to_vec(), TEXT.to_owned()));
    let agent = shell.agent("one", 2);
    let offers = shell.offers(agent);
    let names = [
        "BUILDKITE_PLUGINS",
        "BUILDKITE_GIT_CLEAN_FLAGS",
        "BUILDKITE_GIT_SUBMODULES",
        "BUILDKITE_GIT_FETCH_FLAGS",
        "BUILDKITE_PULL_REQUEST",
        "BUILDKITE_GIT_COMMIT_VERIFICATION",
    ];
    let plugins = r#"[{"./x#v1":{"b":1,"a":["two"]}},{"github.com/buildkite-plugins/docker-buildkite-plugin":null}]"#;
    assert_eq!(values(&offers[0].1.env, &names), [[plugins], ["-x"], ["false"], ["--depth=3"], ["7"], ["strict"]]);
    assert_eq!(values(&offers[1].1.env, &names[..2]), [[""], ["-fd"]], "a step's variables bring no plugins");
}
