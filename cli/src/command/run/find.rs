//! Which pipeline a directory has, and whether it can run.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_coordinator::{Known, SERVED};
use windlass_pipeline::file::{BUILDKITE, OWN};
use windlass_pipeline::graph::Graph;
use windlass_pipeline::{Inputs, compile_with};
use windlass_protocol::limits::PIPELINE_MAX_BYTES;

use super::git;
use super::registration::Registration;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What a build is called before it exists.
const UNKNOWN: &str = "00000000-0000-0000-0000-000000000000";

/// The code of an error about a variable that is required and not set.
const REQUIRED: &str = "required-variable";

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
    /// Compiles it as the server will; tells what is wrong with it, and refuses what cannot run. Where only variables are
    /// missing that the server may know, it decides.
    pub(super) fn compile(
        &self,
        dir: &Path,
        env: &[(String, String)],
        git: &git::Facts,
        registration: &Registration,
        ui: &Ui,
    ) -> Result<Graph, Failure> {
        let registered = registration.pipeline();
        let (id, default_branch) = registered.map_or(("", ""), |it| (it.id.as_str(), it.default_branch.as_str()));
        let repository = registered.and_then(|it| it.repository.as_deref()).unwrap_or_default();
        let facts = Known {
            branch: &git.branch,
            commit: &git.commit,
            message: &git.message,
            source: "api",
            pipeline: &self.name,
            pipeline_id: id,
            default_branch,
            repository,
            env,
            ..Known::default()
        };
        let context = facts.context().map_err(|error| Failure::usage(error.to_string()))?;
        let standard_env = self.standard_env(git, registration);
        let (build_env, standard_env, context) = (env, standard_env.as_slice(), Some(&context));
        let inputs = Inputs { build_env, standard_env, context, served: Some(SERVED), ..Inputs::default() };
        let mut compiled = compile_with(&self.text, &self.shown, &inputs);
        let mut errors = compiled.diagnostics.iter().filter(|found| found.is_error());
        if registration.is_unknown() && compiled.graph.is_none() && errors.all(|error| error.code == REQUIRED) {
            compiled = compile_with(&self.text, &self.shown, &Inputs { open: true, ..inputs });
        }
        ui.tell(&compiled.render(&self.text));
        compiled.graph.ok_or_else(|| {
            Failure::usage(format!("the pipeline of {} cannot run", dir.display()))
                .hint(format!("mend it; `windlass pipeline check {}` checks it without a run", self.shown))
        })
    }

    /// What interpolation sees beside the variables of the run.
    fn standard_env(&self, git: &git::Facts, registration: &Registration) -> Vec<(String, String)> {
        let mut standard = vec![
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
            // The server's, which are not known before the build is.
            ("BUILDKITE_BUILD_ID", UNKNOWN),
            ("WINDLASS_BUILD_ID", UNKNOWN),
            ("BUILDKITE_BUILD_NUMBER", "0"),
        ];
        if let Some(pipeline) = registration.pipeline() {
            standard.push(("BUILDKITE_PIPELINE_ID", &pipeline.id));
            standard.push(("BUILDKITE_PIPELINE_DEFAULT_BRANCH", &pipeline.default_branch));
            standard.extend(pipeline.repository.as_deref().map(|repository| ("BUILDKITE_REPO", repository)));
        }
        let standard = standard.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        registration.beneath().into_iter().chain(standard).collect()
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
