//! Where a pipeline's text stands in a source tree (reference 1.1). Looking is the caller's.

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
