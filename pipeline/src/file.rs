//! Where a pipeline's text stands in a source tree (reference 1.1). Looking is the caller's.

use std::fmt;

/// Ours, looked for first.
pub const OWN: &str = ".windlass/pipeline.yml";

/// Exactly one of these may be there, as with Buildkite's agent.
pub const BUILDKITE: [&str; 9] = [
    "buildkite.yml",
    "buildkite.yaml",
    "buildkite.json",
    ".buildkite/pipeline.yml",
    ".buildkite/pipeline.yaml",
    ".buildkite/pipeline.json",
    "buildkite/pipeline.yml",
    "buildkite/pipeline.yaml",
    "buildkite/pipeline.json",
];

/// Why none of a source's files is its pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoFile {
    /// There is none.
    Absent,
    /// There are several of Buildkite's, none of which comes first.
    Several(Vec<&'static str>),
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "the source has no pipeline: write {OWN}, or name another file"),
            Self::Several(names) => write!(f, "the source has several pipelines ({}): keep one", names.join(", ")),
        }
    }
}

/// Which file it is, by those that are there.
///
/// # Errors
/// [`NoFile`].
pub fn choose(is_there: impl Fn(&str) -> bool) -> Result<&'static str, NoFile> {
    if is_there(OWN) {
        return Ok(OWN);
    }
    let found: Vec<_> = BUILDKITE.into_iter().filter(|path| is_there(path)).collect();
    match found.as_slice() {
        [path] => Ok(path),
        [] => Err(NoFile::Absent),
        _ => Err(NoFile::Several(found)),
    }
}
