//! What becomes of steps before anything runs: `if`, `branches`, `if_changed`, a group's `skip` (reference 6.5, 11, 15.1).

use std::cell::Cell;

use crate::compile::Inputs;
use crate::condition::{Context, Effort, Environment, MATCHES_MAX};
use crate::diagnostic::Diagnostic;
use crate::glob::branches_match;
use crate::graph::{Broken, Feature};
use crate::model::{Condition, IfChanged, Pipeline, condition::told};
use crate::read::Reader;

/// What a pipeline's globs may cost of which a changed file must match one: so many looks take a second or two.
pub(crate) const CHANGED_LOOKS_MAX: u64 = 200_000_000;

/// What is said of a step whose globs cost more.
pub(crate) const TOO_MANY_LOOKS: &str = "so many globs and changed files take too long to match: the step runs";

/// Why a step is skipped that waits for files to change.
pub(crate) const UNCHANGED: &str = "no file that it names has changed";

/// What was decided of a step, or of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    pub(crate) broken: Option<Broken>,
    pub(crate) skip: Option<String>,
    /// `skip` takes the place of the step's own.
    pub(crate) overrides: bool,
}

/// What the decisions look at.
struct Known<'a> {
    context: Option<(Context, Environment)>,
    /// What the matches of all conditions may still cost.
    effort: Effort,
    branch: Option<&'a str>,
    changed: Option<&'a [String]>,
    /// What their matches may still cost.
    looks: Cell<u64>,
    /// Otherwise every step stays: nothing need be known, or its condition is refused already.
    decides_if: bool,
    decides_branches: bool,
    open: bool,
}

/// The fate of each step, with its group's in it.
pub(crate) fn decide(reader: &mut Reader, pipeline: &Pipeline, inputs: &Inputs<'_>) -> Vec<Fate> {
    let branch = inputs.standard_env.iter().find(|(name, _)| name == "BUILDKITE_BRANCH");
    let context = inputs.context.map(|context| {
        let mut context = context.clone();
        context.set_pipeline_env(pipeline.env.iter().cloned());
        let environment = context.environment();
        (context, environment)
    });
    let branch = branch.map(|(_, branch)| branch.as_str());
    let serves = |feature: Feature| inputs.served.is_none_or(|served| served.contains(&feature));
    let known = Known {
        context,
        effort: Effort::for_matches(MATCHES_MAX),
        branch,
        changed: inputs.changed,
        looks: Cell::new(CHANGED_LOOKS_MAX),
        decides_if: !inputs.open && serves(Feature::If),
        decides_branches: !inputs.open && serves(Feature::Branches),
        open: inputs.open,
    };
    let groups: Vec<Fate> = pipeline
        .groups
        .iter()
        .map(|group| {
            let broken = known.is_false(reader, group.condition.as_ref()).then_some(Broken::If);
            let unchanged = known.is_unchanged(reader, group.if_changed.as_ref());
            let skip = unchanged.then(|| UNCHANGED.to_owned()).or_else(|| group.skip.clone());
            Fate { broken, skip, overrides: false }
        })
        .collect();
    let mut fates = Vec::with_capacity(pipeline.steps.len());
    for step in &pipeline.steps {
        let outer = step.place.group.and_then(|group| groups.get(usize::try_from(group).ok()?));
        let own = known.is_false(reader, step.condition.as_ref()).then_some(Broken::If);
        let branched = known.is_elsewhere(reader, step).then_some(Broken::Branches);
        let unchanged = known.is_unchanged(reader, step.if_changed.as_ref());
        let skip = unchanged.then(|| UNCHANGED.to_owned()).or_else(|| outer.and_then(|group| group.skip.clone()));
        fates.push(Fate {
            broken: own.or(branched).or_else(|| outer.and_then(|group| group.broken)),
            skip,
            overrides: unchanged,
        });
    }
    fates
}

impl Known<'_> {
    fn is_false(&self, reader: &mut Reader, condition: Option<&Condition>) -> bool {
        let Some(condition) = condition.filter(|_| self.decides_if) else { return false };
        let Some(parsed) = &condition.parsed else { return false };
        let Some((context, environment)) = &self.context else {
            let message = "the `if` cannot be decided: nothing is known of the build";
            reader.error("condition", condition.source.span, message);
            return false;
        };
        match parsed.evaluate_within(context, environment, &self.effort) {
            Ok(holds) => !holds,
            Err(error) => {
                reader.findings.push(told("condition", &condition.at, &condition.source.text, &error));
                false
            }
        }
    }

    fn is_elsewhere(&self, reader: &mut Reader, step: &crate::model::Step) -> bool {
        let Some(patterns) = step.branches.as_ref().filter(|_| self.decides_branches) else { return false };
        let Some(branch) = self.branch else {
            let message = "`branches` cannot be decided: the build's branch is not known";
            reader.findings.push(Diagnostic::error("condition", step.span, message));
            return false;
        };
        !branches_match(patterns.iter().map(String::as_str), branch)
    }

    /// Where it is not known what has changed, every step runs (reference 11.1).
    fn is_unchanged(&self, reader: &mut Reader, condition: Option<&IfChanged>) -> bool {
        match (condition, self.changed) {
            (Some(condition), Some(changed)) => {
                let mut left = self.looks.get();
                let matches = condition.matches(changed, &mut left);
                self.looks.set(if matches.is_some() { left } else { 0 });
                if matches.is_none() {
                    reader.warning("if-changed-unknown", condition.span, TOO_MANY_LOOKS);
                }
                matches == Some(false)
            }
            (Some(condition), None) if !self.open => {
                let message = "it is not known here which files have changed: the step runs";
                reader.warning("if-changed-unknown", condition.span, message);
                false
            }
            (None, _) | (_, None) => false,
        }
    }
}
