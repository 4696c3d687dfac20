//! Pipelines that are registered by name: where their source is, and what their builds begin with.

use serde::{Deserialize, Serialize};
use windlass_protocol::{Digest, PipelineId, WallMs};

use super::Actor;

/// The branch of a pipeline that was registered without one.
pub const DEFAULT_BRANCH: &str = "main";

/// A registered pipeline. Builds of a name that nobody registered go on without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineRow {
    /// Its id; stays while its name stays.
    pub id: PipelineId,
    /// Its name, which is its slug too.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The URL that git is given; `None`: its builds bring their own source, or have none.
    #[serde(default)]
    pub repository: Option<String>,
    /// Where builds that say no branch are made.
    pub default_branch: String,
    /// Where the definition stands in the source; `None`: where it is always looked for.
    #[serde(default)]
    pub file: Option<String>,
    /// The definition that the server keeps, by digest in the store's definitions; it goes before the source's.
    #[serde(default)]
    pub definition: Option<Digest>,
    /// Refs whose commits are trusted, as globs: `main` is a branch, `refs/tags/v*` is written out, `*` is any characters
    /// but `/`, `**` those too. Empty: the default branch.
    #[serde(default)]
    pub protected_refs: Vec<String>,
    /// Beneath the top-level `env` of the definition (reference 17.1).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Of command steps that say none.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Who registered it.
    pub created_by: Actor,
    /// When.
    pub created_at: WallMs,
    /// When it was changed last.
    pub updated_at: WallMs,
}

impl PipelineRow {
    /// The patterns of its protected refs, written out.
    #[must_use]
    pub fn protected(&self) -> Vec<String> {
        let whole = |name: &String| if name.starts_with("refs/") { name.clone() } else { format!("refs/heads/{name}") };
        if self.protected_refs.is_empty() {
            return vec![whole(&self.default_branch)];
        }
        self.protected_refs.iter().map(whole).collect()
    }
}

/// What a build knows of its pipeline: as it was registered when the build was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The pipeline's id.
    pub id: PipelineId,
    /// As in [`PipelineRow`].
    #[serde(default)]
    pub repository: Option<String>,
    /// As in [`PipelineRow`].
    pub default_branch: String,
    /// As in [`PipelineRow`].
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl From<&PipelineRow> for Registered {
    fn from(row: &PipelineRow) -> Self {
        Self {
            id: row.id,
            repository: row.repository.clone(),
            default_branch: row.default_branch.clone(),
            timeout_ms: row.timeout_ms,
        }
    }
}

/// What is to be said of a pipeline anew; what is `None` stays as it is, and what is `Some(None)` is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PipelineChange {
    /// As in [`PipelineRow`].
    pub description: Option<String>,
    /// As in [`PipelineRow`].
    pub repository: Option<Option<String>>,
    /// As in [`PipelineRow`].
    pub default_branch: Option<String>,
    /// As in [`PipelineRow`].
    pub file: Option<Option<String>>,
    /// The text; the shell has compiled it once.
    pub definition: Option<Option<String>>,
    /// As in [`PipelineRow`].
    pub protected_refs: Option<Vec<String>>,
    /// Variables by name; one without a value is taken away.
    pub env: Vec<(String, Option<String>)>,
    /// As in [`PipelineRow`].
    pub timeout_ms: Option<Option<u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::ActorKind;

    fn pipeline(default_branch: &str, protected: &[&str]) -> PipelineRow {
        PipelineRow {
            id: PipelineId::from_bytes([1; 16]),
            name: "web".to_owned(),
            description: String::new(),
            repository: None,
            default_branch: default_branch.to_owned(),
            file: None,
            definition: None,
            protected_refs: protected.iter().map(|name| (*name).to_owned()).collect(),
            env: Vec::new(),
            timeout_ms: None,
            created_by: Actor { kind: ActorKind::User, name: "ada".to_owned() },
            created_at: WallMs(1),
            updated_at: WallMs(1),
        }
    }

    #[test]
    fn protected_refs_are_written_out_and_are_the_default_branch_where_none_is_named() {
        for (default_branch, protected, whole) in [
            ("main", &[][..], &["refs/heads/main"][..]),
            ("trunk", &["release/*", "refs/tags/v*"], &["refs/heads/release/*", "refs/tags/v*"]),
        ] {
            assert_eq!(pipeline(default_branch, protected).protected(), whole);
        }
    }
}
