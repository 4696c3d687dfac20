//! What is known of a build when its pipeline is compiled: what conditions can ask about (reference 15.8).

use windlass_pipeline::condition::{Context, ContextError, Value};

/// What is known. An empty text is a variable without a value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The build's, once it exists.
    pub id: &'a str,
    /// The build's, once it exists.
    pub number: Option<u64>,
    /// As in the build.
    pub branch: &'a str,
    /// As in the build.
    pub commit: &'a str,
    /// As in the build.
    pub tag: &'a str,
    /// As in the build.
    pub message: &'a str,
    /// In Buildkite's words.
    pub source: &'a str,
    /// Who made it.
    pub creator: &'a str,
    /// Its pipeline.
    pub pipeline: &'a str,
    /// The registered pipeline's.
    pub pipeline_id: &'a str,
    /// The registered pipeline's.
    pub default_branch: &'a str,
    /// Where its source comes from.
    pub repository: &'a str,
    /// The build's own variables.
    pub env: &'a [(String, String)],
}

impl Known<'_> {
    /// As conditions see it.
    ///
    /// # Errors
    /// The language has no such variable: our own mistake.
    pub fn context(&self) -> Result<Context, ContextError> {
        let mut context = Context::default();
        for (name, text) in [
            ("build.id", self.id),
            ("build.branch", self.branch),
            ("build.commit", self.commit),
            ("build.tag", self.tag),
            ("build.message", self.message),
            ("build.source", self.source),
            ("build.creator.name", self.creator),
            ("pipeline.slug", self.pipeline),
            ("pipeline.name", self.pipeline),
            ("pipeline.id", self.pipeline_id),
            ("pipeline.default_branch", self.default_branch),
            ("pipeline.repository", self.repository),
        ] {
            let value = if text.is_empty() { Value::Null } else { Value::Text(text.to_owned()) };
            context.set(name, value)?;
        }
        let number = self.number.and_then(|number| i64::try_from(number).ok());
        context.set("build.number", number.map_or(Value::Null, Value::Number))?;
        context.set_build_env(self.env.iter().cloned());
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use windlass_pipeline::{Inputs, compile_with};

    use super::*;

    #[test]
    fn conditions_see_the_build_and_its_variables() {
        let env = [("DEPLOY".to_owned(), "yes".to_owned())];
        let known = Known {
            branch: "main",
            source: "api",
            pipeline: "web",
            default_branch: "main",
            env: &env,
            ..Known::default()
        };
        let context = known.context().unwrap();
        for (condition, holds) in [
            ("build.branch == 'main' && pipeline.slug == 'web'", true),
            ("build.env('DEPLOY') == 'yes'", true),
            ("build.branch == pipeline.default_branch", true),
            ("build.tag != null", false),
            ("build.number == 7", false),
        ] {
            let text = format!("steps:\n  - command: a\n    if: \"{condition}\"\n");
            let inputs = Inputs { context: Some(&context), ..Inputs::default() };
            let compiled = compile_with(&text, "p.yml", &inputs);
            let graph = compiled.graph.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
            assert_eq!(graph.nodes[0].broken.is_none(), holds, "{condition}");
        }
    }
}
