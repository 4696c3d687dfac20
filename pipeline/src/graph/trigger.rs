//! Trigger steps: builds of other pipelines (reference 5.4).

use serde::{Deserialize, Serialize};

use super::SoftFail;

/// A build of another pipeline that this one makes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trigger {
    /// The other pipeline's slug.
    pub pipeline: String,
    /// `None`: the other pipeline's default branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// `HEAD` where the step says nothing.
    pub commit: String,
    /// The step's label where it says nothing.
    pub message: String,
    /// The new build's own variables; nothing is inherited.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The new build's meta-data.
    #[serde(default)]
    pub meta_data: Vec<(String, String)>,
    /// It passes as soon as the build is made.
    #[serde(default)]
    pub r#async: bool,
    /// Which failures of the new build do not fail this one.
    #[serde(default)]
    pub soft_fail: SoftFail,
    /// Position among the builds that the step makes, from 0, and their number.
    #[serde(default)]
    pub parallel: Option<(u32, u32)>,
}
