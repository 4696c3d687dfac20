//! A job's variables: what the coordinator gave it, and what only the agent knows (reference 17).

use std::collections::BTreeMap;
use std::path::Path;

use windlass_protocol::identity::AgentIdentity;
use windlass_protocol::job::{Epoch, JobSpec, Source};

use crate::job_api::is_protected;

/// Where a job without a `PATH` of its own looks for programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable that says by which right a job's command began. A newer right that is given meanwhile does not change it.
const LEASE_EPOCH: &str = "WINDLASS_LEASE_EPOCH";

/// Says by which right a job's command begins, whatever the job says of that.
pub(crate) fn set_right(env: &mut Vec<(String, String)>, epoch: Epoch) {
    env.retain(|(name, _)| name != LEASE_EPOCH);
    env.push((LEASE_EPOCH.to_owned(), epoch.0.to_string()));
}

/// The whole environment of a job's process. What the agent knows wins over what the job says (reference 17.1).
///
/// Names that only the agent may set are left out, and listed in `BUILDKITE_IGNORED_ENV`.
pub(crate) fn of(
    job: &JobSpec,
    agent: &AgentIdentity,
    name: &str,
    checkout: &Path,
    home: &Path,
) -> Vec<(String, String)> {
    let mut env = BTreeMap::new();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut set = |key: &str, value: String| {
        env.insert(key.to_owned(), value);
    };
    // An image brings its own.
    if job.image.is_none() {
        set("PATH", PATH.to_owned());
        set("LANG", "C.UTF-8".to_owned());
        set("HOME", path(home));
    }
    if job.tty {
        set("TERM", "xterm-256color".to_owned());
    }
    let mut ignored = Vec::new();
    for (key, value) in &job.env {
        if is_protected(key) {
            ignored.push(key.as_str());
        } else {
            set(key, value.clone());
        }
    }
    if !ignored.is_empty() {
        set("BUILDKITE_IGNORED_ENV", ignored.join(","));
    }
    let always = [
        ("BUILDKITE_AGENT_ID", agent.agent.to_string()),
        ("BUILDKITE_AGENT_NAME", name.to_owned()),
        ("BUILDKITE_BUILD_CHECKOUT_PATH", path(checkout)),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("WINDLASS_ZONE", agent.zone.clone()),
    ];
    for (key, value) in always {
        set(key, value);
    }
    match &job.source {
        Source::Tree { digest } => set("WINDLASS_SOURCE_DIGEST", digest.to_string()),
        Source::Git { repository, .. } => set("BUILDKITE_REPO", repository.clone()),
        Source::Empty => {}
    }
    env.into_iter().collect()
}
