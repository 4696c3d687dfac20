//! The reference corpus by what a check says: what is sound passes, what is not is refused at the level that its index names.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking and say what is skipped"
)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/corpus.rs"]
mod support;

use std::fs;
use std::time::Duration;

use windlass_pipeline::condition::Context;
use windlass_pipeline::{Inputs, check, compile, compile_with};

use crate::support::{corpus, pipelines};

/// What a check of a file says: codes of its errors.
fn errors(text: &str) -> Vec<&'static str> {
    let found = check(text, "pipeline.yml").diagnostics;
    found.iter().filter(|diagnostic| diagnostic.is_error()).map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn every_documented_pipeline_and_every_one_of_the_schemas_tests_is_sound() {
    let Some(corpus) = corpus() else { return };
    for folder in ["docs", "schema"] {
        let pipelines = pipelines(&corpus.join(folder));
        for (path, text) in &pipelines {
            let checked = check(text, path);
            assert!(checked.graph.is_some(), "{}", checked.render(text));
        }
        println!("{folder}: {} pipelines are sound", pipelines.len());
    }
}

#[test]
fn what_upstreams_parser_takes_is_refused_only_for_what_its_server_refuses() {
    // The parser asks less than the server: these have a key with a space, a condition of an unknown variable, and groups
    // without steps.
    let refused = [
        ("012.yml", "step-key"),
        ("016.yml", "empty-group"),
        ("017.yml", "empty-group"),
        ("029.yml", "condition"),
        ("101.yml", "empty-group"),
    ];
    let Some(corpus) = corpus() else { return };
    let pipelines = pipelines(&corpus.join("go-pipeline"));
    let mut sound = 0;
    for (path, text) in &pipelines {
        let reason = refused.iter().find(|(name, _)| path.ends_with(name)).map(|(_, code)| *code);
        let errors = errors(text);
        assert!(errors.iter().all(|code| Some(*code) == reason), "{path}: {errors:?}");
        assert_eq!(errors.is_empty(), reason.is_none(), "{path}");
        sound += usize::from(errors.is_empty());
    }
    println!("go-pipeline: {sound} of {} pipelines are sound", pipelines.len());
}

#[test]
fn what_falls_back_to_an_unknown_step_is_told_and_cannot_run() {
    let Some(corpus) = corpus() else { return };
    let index = fs::read_to_string(corpus.join("go-pipeline/INDEX.tsv")).unwrap();
    let warned = index.lines().filter(|line| line.split('\t').nth(2) == Some("parse-with-warning"));
    let mut count = 0;
    for name in warned.filter_map(|line| line.split('\t').next()) {
        let text = fs::read_to_string(corpus.join("go-pipeline").join(name)).unwrap();
        let checked = check(&text, name);
        assert!(!checked.diagnostics.is_empty() && errors(&text).is_empty(), "{name}: {}", checked.render(&text));
        count += 1;
    }
    assert!(count > 5, "{count}");
}

#[test]
fn every_invalid_pipeline_is_refused_at_the_level_of_its_index() {
    let Some(corpus) = corpus() else { return };
    let index = fs::read_to_string(corpus.join("invalid/INDEX.tsv")).unwrap();
    let parse = ["yaml-syntax", "no-document", "unsupported-document", "wrong-type"];
    let mut counts = [0, 0];
    for line in index.lines().skip(1) {
        let mut columns = line.split('\t');
        let (name, level) = (columns.next().unwrap(), columns.next().unwrap());
        let text = fs::read_to_string(corpus.join("invalid").join(name)).unwrap();
        let errors = errors(&text);
        assert!(!errors.is_empty(), "{name} passes");
        assert!(compile(&text, name, &[]).graph.is_none(), "{name} compiles");
        let at_parse = errors.iter().any(|code| parse.contains(code));
        assert_eq!(at_parse, level == "parse", "{name}: {errors:?}");
        counts[usize::from(at_parse)] += 1;
    }
    println!("invalid: {} refused by the parser, {} by the checker", counts[1], counts[0]);
}

#[test]
fn documented_pipelines_compile_for_a_build() {
    // One snippet requires a variable.
    let Some(corpus) = corpus() else { return };
    let standard = [("BUILDKITE_BRANCH".to_owned(), "main".to_owned())];
    let context = Context::default();
    let inputs = Inputs { standard_env: &standard, context: Some(&context), ..Inputs::default() };
    let (mut compiled, mut jobs) = (0, 0);
    for (path, text) in pipelines(&corpus.join("docs")) {
        let result = compile_with(&text, &path, &inputs);
        let mut errors = result.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        assert!(errors.all(|error| error.code == "required-variable"), "{}", result.render(&text));
        compiled += usize::from(result.graph.is_some());
        jobs += result.graph.map_or(0, |graph| graph.nodes.len());
    }
    println!("docs: {compiled} pipelines compile to {jobs} nodes");
}

#[test]
fn all_valid_pipelines_are_checked_in_under_a_second() {
    let Some(corpus) = corpus() else { return };
    let all: Vec<_> = ["docs", "schema", "go-pipeline"].iter().flat_map(|it| pipelines(&corpus.join(it))).collect();
    let took = clock::best(|| {
        let graphs = all.iter().filter_map(|(path, text)| check(text, path).graph).count();
        assert!(graphs + 5 >= all.len(), "{graphs} of {} are sound", all.len());
    });
    let bytes: usize = all.iter().map(|(_, text)| text.len()).sum();
    println!("{} valid pipelines, {bytes} bytes: checked in {took:?}", all.len());
    // Of an unoptimised build too.
    assert!(took < Duration::from_secs(1), "{took:?}");
}
