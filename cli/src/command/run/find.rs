//! Which pipeline a directory has, and whether it can run.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_coordinator::SERVED;
use windlass_pipeline::file::{BUILDKITE, OWN};
use windlass_pipeline::graph::Graph;
use windlass_pipeline::{Inputs, compile_with};
use windlass_protocol::limits::PIPELINE_MAX_BYTES;

use super::git;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// A pipeline's text, and what it is called.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The pipeline's name: the directory's.
    pub(super) name: String,
    /// The file, as people name it.
    pub(super) shown: String,
    /// Its text.
    pub(super) text: String,
}

/// Reads the pipeline that is named, else the one of the directory.
pub(super) fn pipeline(dir: &Path, named: Option<&Path>) -> Result<Pipeline, Failure> {
    let (path, shown) = match named {
        Some(path) => (path.to_owned(), path.display().to_string()),
        None => usual(dir)?,
    };
    let text = read(&path)?;
    Ok(Pipeline { name: super::name_of(dir), shown, text })
}

/// The text of a pipeline's file.
pub(in crate::command) fn read(path: &Path) -> Result<String, Failure> {
    let refuse = |e: &dyn std::error::Error| Failure {
        code: Code::Usage,
        ..Failure::system(format!("the pipeline {} cannot be read", path.display()), e)
    };
    let size = fs::metadata(path).map_err(|e| refuse(&e))?.len();
    if size > PIPELINE_MAX_BYTES as u64 {
        return Err(Failure::usage(format!(
            "{} has {size} bytes; a pipeline has at most {PIPELINE_MAX_BYTES}",
            path.display()
        )));
    }
    let bytes = fs::read(path).map_err(|e| refuse(&e))?;
    String::from_utf8(bytes).map_err(|e| refuse(&e))
}

fn usual(dir: &Path) -> Result<(PathBuf, String), Failure> {
    let own = dir.join(OWN);
    if own.is_file() {
        return Ok((own, OWN.to_owned()));
    }
    let found: Vec<&str> = BUILDKITE.into_iter().filter(|name| dir.join(name).is_file()).collect();
    match found.as_slice() {
        [one] => Ok((dir.join(one), (*one).to_owned())),
        [] => Err(Failure::usage(format!("{} has no pipeline", dir.display()))
            .hint(format!("write {OWN}, or name a file with --pipeline"))),
        several => Err(Failure::usage(format!("{} has several pipelines: {}", dir.display(), several.join(", ")))
            .hint("keep one, or name one with --pipeline")),
    }
}

impl Pipeline {
    /// Compiles it as the server will; tells what is wrong with it, and refuses what cannot run.
    pub(super) fn compile(
        &self,
        dir: &Path,
        env: &[(String, String)],
        git: &git::Facts,
        ui: &Ui,
    ) -> Result<Graph, Failure> {
        let standard: Vec<(String, String)> = [
            ("CI", "true"),
            ("BUILDKITE", "true"),
            ("BUILDKITE_BRANCH", &git.branch),
            ("BUILDKITE_COMMIT", &git.commit),
            ("BUILDKITE_MESSAGE", &git.message),
            ("BUILDKITE_TAG", ""),
            ("BUILDKITE_PIPELINE_SLUG", &self.name),
            ("BUILDKITE_PIPELINE_NAME", &self.name),
            ("BUILDKITE_PULL_REQUEST", "false"),
            ("BUILDKITE_SOURCE", "api"),
            ("BUILDKITE_BUILD_CREATOR", "cli"),
            ("WINDLASS", "true"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let inputs = Inputs { build_env: env, standard_env: &standard, served: Some(SERVED), ..Inputs::default() };
        let compiled = compile_with(&self.text, &self.shown, &inputs);
        ui.tell(&compiled.render(&self.text));
        compiled.graph.ok_or_else(|| {
            Failure::usage(format!("the pipeline of {} cannot run", dir.display()))
                .hint(format!("mend it; `windlass pipeline check {}` checks it without a run", self.shown))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_file_wins_and_several_of_buildkites_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let none = pipeline(root, None).unwrap_err();
        assert!(none.code == Code::Usage && none.hint.unwrap().contains(OWN));
        for name in [".buildkite", ".windlass"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("buildkite.yml"), "steps: []").unwrap();
        assert_eq!(pipeline(root, None).unwrap().shown, "buildkite.yml");
        fs::write(root.join(".buildkite/pipeline.yml"), "steps: []").unwrap();
        let several = pipeline(root, None).unwrap_err();
        assert!(several.what.ends_with("buildkite.yml, .buildkite/pipeline.yml"), "{}", several.what);
        fs::write(root.join(OWN), "steps: [own]").unwrap();
        assert_eq!(pipeline(root, None).unwrap().text, "steps: [own]");
        let named = pipeline(root, Some(&root.join("buildkite.yml"))).unwrap();
        assert_eq!(named.text, "steps: []");
    }
}
