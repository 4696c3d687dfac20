//! Conditions: the expressions of `if` (reference 15), parsed, checked and evaluated.
//!
//! [`validate`] reads an expression and checks the types of its whole tree, parts that would never be evaluated
//! included; [`Condition::evaluate`] then asks a [`Context`]. Nothing here panics or runs without bound (I9).

mod context;
mod error;

use std::collections::BTreeSet;

pub use context::{Context, ContextError, Value};
pub use error::{Error, ErrorKind};

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

/// An expression that can be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    names: BTreeSet<String>,
}

/// Reads an expression and checks the types of all of it.
///
/// # Errors
/// It is not an expression, it cannot type-check, or it gives something else than true or false.
pub fn validate(expression: &str, _entry: EntryPoint) -> Result<Condition, Error> {
    Err(Error::new(ErrorKind::Parse, "conditions are not read yet", 0..expression.len()))
}

/// Validates and evaluates in one go, by the rules of the entry point: in a notification an error is false, and a blank
/// expression is true.
///
/// # Errors
/// Only in the entry points that are no notification.
pub fn decide(expression: &str, entry: EntryPoint, context: &Context) -> Result<bool, Error> {
    validate(expression, entry)?.evaluate(context)
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// A required variable is not set, an array has a null, a number is none, a match took too many steps.
    pub fn evaluate(&self, _context: &Context) -> Result<bool, Error> {
        Err(Error::new(ErrorKind::Evaluation, "conditions are not evaluated yet", 0..0))
    }

    /// The variables that it names, dotted (`build.branch`), in order of the alphabet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}
