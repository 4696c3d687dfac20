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
