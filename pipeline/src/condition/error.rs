//! What can be wrong with an expression.

use std::ops::Range;

/// When it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not an expression.
    Parse,
    /// Its types do not fit, or it names what there is not.
    Validation,
    /// Its values do not fit.
    Evaluation,
    /// It gives something else than true or false.
    Result,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// When it shows.
    pub kind: ErrorKind,
    /// One sentence, without a full stop; no values of variables are quoted (I6).
    pub message: String,
    /// How to mend it, where we would not only be guessing.
    pub hint: Option<String>,
    /// Bytes in the expression.
    pub span: Range<usize>,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>, span: Range<usize>) -> Self {
        Self { kind, message: message.into(), hint: None, span }
    }
}
