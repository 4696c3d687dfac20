//! Secrets as they are kept: names in the clear, values sealed by the shell under a key that no row holds.

use std::fmt;

use serde::{Deserialize, Serialize};
use windlass_pipeline::glob::branches_match;
use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, WallMs};

use super::Actor;

/// Which secret it is: its key, and the jobs that it is given to. Several may have one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretName {
    /// Upper case: keys are the same in whatever case they are asked for (reference 19.10).
    pub key: String,
    /// Only for builds of this pipeline.
    pub pipeline: Option<String>,
    /// Only for branches that this pattern matches; `*` is any characters.
    pub branch: Option<String>,
    /// Only for agents in this zone.
    pub zone: Option<String>,
}

impl SecretName {
    /// Whether a job gets it.
    #[must_use]
    pub fn is_for(&self, pipeline: &str, branch: &str, zone: &str) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|wanted| wanted == it);
        is(&self.pipeline, pipeline)
            && is(&self.zone, zone)
            && self.branch.as_deref().is_none_or(|pattern| branches_match([pattern], branch))
    }

    /// How narrow it is: of those that a job may get, it gets the narrowest. A pipeline of its own comes before a zone, a
    /// zone before a branch; of two patterns the one with more that is not `*`.
    #[must_use]
    pub fn narrowness(&self) -> (bool, bool, bool, usize) {
        let written = self.branch.as_deref().map_or(0, |pattern| pattern.bytes().filter(|byte| *byte != b'*').count());
        (self.pipeline.is_some(), self.zone.is_some(), self.branch.is_some(), written)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        for (what, value) in [("pipeline", &self.pipeline), ("branch", &self.branch), ("zone", &self.zone)] {
            if let Some(value) = value {
                write!(f, " {what}={value}")?;
            }
        }
        Ok(())
    }
}

/// A value that only the holder of the key can read, and only under its own name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key.
    pub key_id: String,
    /// Hex; never twice under one key.
    pub nonce: String,
    /// Hex of the ciphertext and its tag.
    pub bytes: String,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// Which.
    pub name: SecretName,
    /// Its value.
    pub sealed: Sealed,
    /// Who made it.
    pub created_by: Actor,
    /// When.
    pub created_at: WallMs,
    /// Who gave it this value.
    pub updated_by: Actor,
    /// When.
    pub updated_at: WallMs,
}

/// What can be asked about secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRequest {
    /// Give a secret this value, whether there is one or not.
    Set {
        /// Which.
        name: SecretName,
        /// Its value.
        sealed: Sealed,
    },
    /// Take it away.
    Remove {
        /// Which.
        name: SecretName,
    },
    /// Those that a job asks for; [`crate::effect::Reply::Secrets`], in the order of the keys.
    Read {
        /// Whose job.
        attempt: AttemptId,
        /// By which right.
        epoch: Epoch,
        /// In whatever case.
        keys: Vec<String>,
    },
    /// The same values, sealed under another key. What is not there any more is left out.
    Reseal {
        /// Which, as they were sealed, and as they are to be.
        values: Vec<(SecretName, Sealed, Sealed)>,
    },
}

/// Why a secret is not set, not there, or not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefused {
    /// Its key or what it is for is none.
    #[error("{field}: {why}")]
    Invalid {
        /// Which part of its name.
        field: &'static str,
        /// What it has to be.
        why: &'static str,
    },
    /// There is none of this name.
    #[error("there is no secret {0}")]
    NoSuchSecret(SecretName),
    /// There is none of this key for the job that asks.
    #[error("there is no secret {key} for this pipeline, branch and zone")]
    NotForJob {
        /// As it was asked for.
        key: String,
    },
    /// The build is not trusted, or runs where builds that are not are run.
    #[error("builds that are not trusted get no secrets")]
    Untrusted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pipeline: &str, branch: &str, zone: &str) -> SecretName {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        SecretName { key: "K".to_owned(), pipeline: some(pipeline), branch: some(branch), zone: some(zone) }
    }

    #[test]
    fn a_secret_is_for_what_its_name_says() {
        for (secret, job, yes) in [
            (("", "", ""), ("web", "main", "eu"), true),
            (("web", "", ""), ("web", "main", "eu"), true),
            (("web", "", ""), ("web2", "main", "eu"), false),
            (("", "main", ""), ("web", "main", "eu"), true),
            (("", "main", ""), ("web", "main2", "eu"), false),
            (("", "main", ""), ("web", "", "eu"), false),
            (("", "release/*", ""), ("web", "release/1/2", "eu"), true),
            (("", "release/*", ""), ("web", "x/release/1", "eu"), false),
            (("", "*", ""), ("web", "", "eu"), true),
            (("", "", "eu"), ("web", "main", "eu"), true),
            (("", "", "eu"), ("web", "main", "us"), false),
            (("web", "main", "eu"), ("web", "main", "us"), false),
            (("web", "main", "eu"), ("web", "main", "eu"), true),
        ] {
            assert_eq!(name(secret.0, secret.1, secret.2).is_for(job.0, job.1, job.2), yes, "{secret:?} {job:?}");
        }
    }

    #[test]
    fn the_narrower_comes_first() {
        let rising = [
            ("", "", ""),
            ("", "*", ""),
            ("", "rel*", ""),
            ("", "release/1", ""),
            ("", "", "eu"),
            ("", "main", "eu"),
            ("web", "", ""),
            ("web", "main", ""),
            ("web", "", "eu"),
            ("web", "main", "eu"),
        ];
        let narrowness: Vec<_> = rising.iter().map(|it| name(it.0, it.1, it.2).narrowness()).collect();
        assert!(narrowness.is_sorted_by(|one, two| one < two), "{narrowness:?}");
    }

    #[test]
    fn a_name_is_shown_with_what_it_is_for() {
        assert_eq!(name("web", "", "eu").to_string(), "K pipeline=web zone=eu");
    }
}
