//! Who hears of a build, a group or a step (reference 13).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of `notify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// The service's name as written; one that is not known is recorded as not delivered.
    pub service: String,
    /// Its settings as written: an address, a channel, a mapping; null for a service that is only named.
    #[serde(default)]
    pub config: Value,
    /// Decided when the event happens; an error counts as false.
    #[serde(default, rename = "if")]
    pub condition: Option<String>,
}

/// A service that the language knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// As in `notify`.
    pub name: &'static str,
    /// May stand at the top level and in groups.
    pub build: bool,
    /// May stand in steps.
    pub step: bool,
    /// May be named without settings.
    pub bare: bool,
    /// Windlass delivers to it.
    pub served: bool,
}

/// Every service of the reference.
pub const SERVICES: [Service; 7] = [
    Service { name: "email", build: true, step: false, bare: false, served: false },
    Service { name: "slack", build: true, step: true, bare: false, served: false },
    Service { name: "webhook", build: true, step: false, bare: false, served: true },
    Service { name: "basecamp_campfire", build: true, step: true, bare: false, served: false },
    Service { name: "pagerduty_change_event", build: true, step: false, bare: false, served: false },
    Service { name: "github_commit_status", build: true, step: true, bare: true, served: true },
    Service { name: "github_check", build: true, step: true, bare: true, served: false },
];
