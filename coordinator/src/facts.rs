//! What is known of a build when its pipeline is compiled: the variables that interpolation sees, and what conditions can
//! ask about (reference 15.8, 17.2).

use windlass_coordinator_core::known::Known;
use windlass_coordinator_core::row::{BuildRow, BuildSource, PipelineRow, Registered, TriggeredFrom};
use windlass_coordinator_core::served::SERVED;
use windlass_pipeline::condition::ContextError;
use windlass_pipeline::{Compiled, Inputs, compile_with};
use windlass_protocol::BuildId;
use windlass_protocol::job::Source;

/// A pipeline whose text has this name in it may say its build's number.
const NUMBER: &str = "BUILDKITE_BUILD_NUMBER";

/// The file's name in diagnostics where the text came without one.
pub(crate) const UNNAMED: &str = "pipeline.yml";

/// Whether a pipeline may say its build's number, so that it must be known before it is compiled (docs/design/011).
pub(crate) fn says_number(text: &str) -> bool {
    text.contains(NUMBER) || text.contains("build.number")
}

/// What becomes of a text's variables.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Variables<'a> {
    /// A job's agent has put them in.
    AreIn,
    /// These are put in, beside the build's own.
    Are(&'a [(String, String)]),
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The build's.
    pub(crate) id: BuildId,
    /// The build's, where its pipeline says it.
    pub(crate) number: Option<u64>,
    /// Its pipeline.
    pub(crate) pipeline: &'a str,
    /// As the pipeline is registered, if it is.
    pub(crate) registered: Option<&'a Registered>,
    /// The registered pipeline's variables, which lie beneath all others.
    pub(crate) beneath: &'a [(String, String)],
    /// As in the build.
    pub(crate) branch: &'a str,
    /// As in the build.
    pub(crate) commit: &'a str,
    /// As in the build.
    pub(crate) tag: Option<&'a str>,
    /// As in the build.
    pub(crate) message: &'a str,
    /// As in the build.
    pub(crate) source: BuildSource,
    /// Who made it.
    pub(crate) creator: &'a str,
    /// As in the build.
    pub(crate) triggered_from: Option<&'a TriggeredFrom>,
    /// As in the build.
    pub(crate) origin: &'a Source,
    /// As in the build.
    pub(crate) env: &'a [(String, String)],
    /// The files that its commit has changed, where that is known.
    pub(crate) changed: Option<&'a [String]>,
}

impl<'a> Facts<'a> {
    /// Of a build that exists.
    pub(crate) fn of(build: &'a BuildRow) -> Self {
        Self {
            id: build.id,
            number: Some(build.number),
            pipeline: &build.pipeline,
            registered: build.registered.as_ref(),
            beneath: &build.pipeline_env,
            branch: &build.branch,
            commit: &build.commit,
            tag: build.tag.as_deref(),
            message: &build.message,
            source: build.source,
            creator: &build.creator.name,
            triggered_from: build.triggered_from.as_ref(),
            origin: &build.origin,
            env: &build.env,
            // What jobs add to it, they have decided where their files are.
            changed: None,
        }
    }

    fn repository(&self) -> &'a str {
        match self.origin {
            Source::Git { repository, .. } => repository,
            Source::Tree { .. } | Source::Empty => {
                self.registered.and_then(|registered| registered.repository.as_deref()).unwrap_or_default()
            }
        }
    }

    /// What interpolation sees beside the build's own variables.
    fn standard_env(&self) -> Vec<(String, String)> {
        let id = self.id.to_string();
        let registered = self.registered;
        let pipeline_id = registered.map(|registered| registered.id.to_string());
        let number = self.number.map(|number| number.to_string());
        let from = self.triggered_from.map(|from| (from.build.to_string(), from.number.to_string(), &from.pipeline));
        let mut env = vec![
            ("CI", "true"),
            ("BUILDKITE", "true"),
            ("BUILDKITE_BRANCH", self.branch),
            ("BUILDKITE_COMMIT", self.commit),
            ("BUILDKITE_MESSAGE", self.message),
            ("BUILDKITE_TAG", self.tag.unwrap_or_default()),
            ("BUILDKITE_PIPELINE_SLUG", self.pipeline),
            ("BUILDKITE_PIPELINE_NAME", self.pipeline),
            ("BUILDKITE_PULL_REQUEST", "false"),
            ("BUILDKITE_SOURCE", self.source.word()),
            ("BUILDKITE_BUILD_CREATOR", self.creator),
            ("WINDLASS", "true"),
            ("BUILDKITE_BUILD_ID", &id),
            ("WINDLASS_BUILD_ID", &id),
        ];
        if let Some(registered) = registered {
            env.push(("BUILDKITE_PIPELINE_ID", pipeline_id.as_deref().unwrap_or_default()));
            env.push(("BUILDKITE_PIPELINE_DEFAULT_BRANCH", &registered.default_branch));
        }
        if let Some((build, number, pipeline)) = &from {
            env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_ID", build));
            env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER", number));
            env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_PIPELINE_SLUG", pipeline));
        }
        let repository = self.repository();
        if !repository.is_empty() {
            env.push(("BUILDKITE_REPO", repository));
        }
        env.extend(number.as_deref().map(|number| (NUMBER, number)));
        let standard = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.beneath.iter().cloned().chain(standard).collect()
    }

    /// Compiles a pipeline for this build. Takes a while for large ones.
    ///
    /// # Errors
    /// The language lacks a variable that is set here: our own mistake.
    pub(crate) fn compile(&self, text: &str, file: &str) -> Result<Compiled, ContextError> {
        self.compile_in(text, file, Variables::Are(&self.standard_env()))
    }

    /// Compiles what a job adds to this build; interpolation sees the job's variables.
    ///
    /// # Errors
    /// As [`Facts::compile`].
    pub(crate) fn compile_in(
        &self,
        text: &str,
        file: &str,
        variables: Variables<'_>,
    ) -> Result<Compiled, ContextError> {
        let id = self.id.to_string();
        let pipeline_id = self.registered.map(|registered| registered.id.to_string());
        let known = Known {
            id: &id,
            number: self.number,
            branch: self.branch,
            commit: self.commit,
            tag: self.tag.unwrap_or_default(),
            message: self.message,
            source: self.source.word(),
            creator: self.creator,
            pipeline: self.pipeline,
            pipeline_id: pipeline_id.as_deref().unwrap_or_default(),
            default_branch: self.registered.map_or("", |registered| &registered.default_branch),
            repository: self.repository(),
            triggered_from: self.triggered_from,
            env: self.env,
        };
        let context = known.context()?;
        let (interpolated, variables) = match variables {
            Variables::AreIn => (true, &[][..]),
            Variables::Are(variables) => (false, variables),
        };
        // By this one `branches` are decided, whoever put in the variables.
        let mut standard_env = vec![("BUILDKITE_BRANCH".to_owned(), self.branch.to_owned())];
        standard_env.extend_from_slice(variables);
        let inputs = Inputs {
            build_env: self.env,
            standard_env: &standard_env,
            interpolated,
            context: Some(&context),
            changed: self.changed,
            served: Some(SERVED),
            ..Inputs::default()
        };
        Ok(compile_with(text, file, &inputs))
    }
}

/// The variables that a registered pipeline puts beneath those of its builds.
pub(crate) fn beneath(pipeline: Option<&PipelineRow>) -> &[(String, String)] {
    pipeline.map_or(&[], |pipeline| &pipeline.env)
}
