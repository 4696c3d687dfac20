//! Conditions: the expressions of `if` (reference 15), parsed, checked and evaluated.
//!
//! [`validate`] reads an expression and checks the types of its whole tree, parts that would never be evaluated
//! included; [`Condition::evaluate`] then asks a [`Context`]. Nothing here panics or runs without bound (I9).

mod check;
mod context;
mod error;
mod escape;
mod evaluate;
mod lexer;
mod notice;
mod parser;
mod regex;
mod syntax;
mod template;
mod variable;

use std::collections::BTreeSet;
use std::fmt;

pub use context::{Context, ContextError, Environment, Value};
pub use error::{Error, ErrorKind};
pub use notice::{Conditions, Notices};
pub(crate) use regex::{Effort, characters};

/// Matches of the most effort that one condition, or all of a pipeline together, may cost.
pub(crate) const MATCHES_MAX: usize = 4;

/// Where an expression stands: that decides which variables it may name and what an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryPoint {
    /// `if` of a step, a group, or a pipeline's filter: no `step.*`.
    BuildCondition,
    /// The same where a step is known.
    BuildConditionWithStep,
    /// `if` of an entry of the build's `notify`: an error is false, blank is true; no `step.*`.
    BuildNotification,
    /// `if` of an entry of a step's `notify`: an error is false, blank is true.
    StepNotification,
}

impl EntryPoint {
    /// The entry point of this name: `build_condition`, `build_condition_with_step`, `build_notification`,
    /// `step_notification`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "build_condition" => Some(Self::BuildCondition),
            "build_condition_with_step" => Some(Self::BuildConditionWithStep),
            "build_notification" => Some(Self::BuildNotification),
            "step_notification" => Some(Self::StepNotification),
            _ => None,
        }
    }

    /// Whether an error is false here, and a blank expression true.
    #[must_use]
    pub const fn is_notification(self) -> bool {
        matches!(self, Self::BuildNotification | Self::StepNotification)
    }
}

/// An expression that can be evaluated. It prints as an expression that says the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    entry: EntryPoint,
    /// None if it is blank.
    tree: Option<syntax::Expression>,
    names: BTreeSet<String>,
}

/// Reads an expression and checks the types of all of it. A blank one is valid; whether it can be evaluated is a matter
/// of the entry point.
///
/// # Errors
/// It is not an expression, it cannot type-check, or it gives something else than true or false.
pub fn validate(expression: &str, entry: EntryPoint) -> Result<Condition, Error> {
    validate_within(expression, entry, None)
}

/// The same, and making its patterns takes from this account.
fn validate_within(expression: &str, entry: EntryPoint, effort: Option<&Effort>) -> Result<Condition, Error> {
    if expression.trim().is_empty() {
        return Ok(Condition { entry, tree: None, names: BTreeSet::new() });
    }
    let tree = parser::parse(expression, effort)?;
    let names = check::check(&tree, entry)?;
    Ok(Condition { entry, tree: Some(tree), names })
}

/// Validates and evaluates in one go, by the rules of the entry point: in a notification an error is false, and a blank
/// expression is true.
///
/// # Errors
/// Only in the entry points that are no notification.
pub fn decide(expression: &str, entry: EntryPoint, context: &Context) -> Result<bool, Error> {
    match validate(expression, entry).and_then(|condition| condition.evaluate(context)) {
        Err(_) if entry.is_notification() => Ok(false),
        decided => decided,
    }
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// A required variable is not set, an array has a null, an offset is no integer, a match takes too long; a blank
    /// expression that is no notification's.
    pub fn evaluate(&self, context: &Context) -> Result<bool, Error> {
        self.evaluate_within(context, &context.environment(), &Effort::for_matches(MATCHES_MAX))
    }

    /// The same as one of many conditions that share a context, its environment and what matches may cost.
    pub(crate) fn evaluate_within(
        &self,
        context: &Context,
        environment: &Environment,
        effort: &Effort,
    ) -> Result<bool, Error> {
        match &self.tree {
            Some(tree) => evaluate::evaluate(tree, context, environment, effort),
            None if self.entry.is_notification() => Ok(true),
            None => Err(Error::new(ErrorKind::Parse, "the expression is blank", 0..0)),
        }
    }

    /// The variables that it names, dotted (`build.branch`), in order of the alphabet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tree.as_ref().map_or(Ok(()), |tree| tree.fmt(f))
    }
}
