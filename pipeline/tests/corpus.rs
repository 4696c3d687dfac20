//! The reference corpus: pipelines as they stand in documentation, and scalars with their known forms.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking and say what is skipped"
)]

use std::fs;
use std::path::{Path, PathBuf};

use windlass_pipeline::{compile, yaml};

/// The corpus, or a visible note that it is absent.
fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let root = std::env::var_os("WINDLASS_CORPUS").map_or(default, PathBuf::from).join("buildkite");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: the reference corpus is absent (set WINDLASS_CORPUS)");
    None
}

fn pipelines(folder: &Path) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

#[test]
fn every_documented_pipeline_is_read_without_an_error_of_yaml() {
    let Some(corpus) = corpus() else { return };
    for folder in ["docs", "schema", "go-pipeline"] {
        let pipelines = pipelines(&corpus.join(folder));
        for (path, text) in &pipelines {
            let parsed = yaml::parse(text);
            assert_eq!(parsed.error, None, "{path}");
            assert!(!parsed.documents.is_empty(), "{path}");
        }
        println!("{folder}: {} pipelines read", pipelines.len());
    }
}

#[test]
fn documented_pipelines_compile_or_say_what_is_not_served_yet() {
    // Snippets of pages: two name steps that stand on another page, one requires a variable, one makes its keys with a matrix.
    let incomplete = ["0010.yml", "0116.yml", "0200.yml", "0266.yml"];
    let Some(corpus) = corpus() else { return };
    let (mut whole, mut unserved) = (0, 0);
    for (path, text) in pipelines(&corpus.join("docs")) {
        let compiled = compile(&text, &path, &[]);
        whole += usize::from(compiled.graph.is_some());
        unserved += usize::from(compiled.graph.is_none());
        let mut errors = compiled.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let excused = incomplete.iter().any(|name| path.ends_with(name));
        assert!(excused || errors.all(|error| error.code == "not-served"), "{}", compiled.render(&text));
    }
    println!("docs: {whole} pipelines compile, {unserved} wait for the rest of the language");
    assert!(whole > 50, "{whole}");
}

#[test]
fn every_invalid_pipeline_is_refused() {
    let Some(corpus) = corpus() else { return };
    for (path, text) in pipelines(&corpus.join("invalid")) {
        assert!(compile(&text, &path, &[]).graph.is_none(), "{path}");
    }
}

#[test]
fn scalars_of_an_environment_have_the_forms_that_the_agent_gives_them() {
    let Some(corpus) = corpus() else { return };
    let cases: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(corpus.join("env_scalars.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = format!("A: {}\n", case["yaml"].as_str().unwrap());
        let parsed = yaml::parse(&text);
        let value = parsed.documents[0].as_map().unwrap().get("A").unwrap().value.natural();
        assert_eq!(value.ok().as_deref(), case["env"].as_str(), "{text}");
    }
}
