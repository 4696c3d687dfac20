//! What an agent is told to run: a job's row and its build's, put together (reference 17.1, 17.2).

use windlass_pipeline::graph::{Command, Feature};
use windlass_pipeline::plugin;
use windlass_protocol::job::JobSpec;
use windlass_protocol::{AttemptId, JobId};

use crate::checkout;
use crate::concurrency::runs_alone;
use crate::row::{BuildRow, JobReuse, JobRow, Keyed};
use crate::served::SERVED;
use crate::state::Core;

impl Core {
    /// The offer for a leased attempt.
    pub(crate) fn spec(&self, id: AttemptId) -> Option<JobSpec> {
        let attempt = self.attempts.get(&id)?;
        let job = &self.jobs.get(&attempt.job)?.row;
        let build = &self.builds.get(&attempt.build)?.row;
        let command = self.command(attempt.job)?;
        let timeout_ms = self.timeout_ms(attempt.job);
        let keyed = job.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| &keyed.keyed);
        let pinned = keyed.and_then(|keyed| keyed.image.clone());
        Some(JobSpec {
            attempt: id,
            attempt_number: attempt.number,
            job: job.id,
            build: build.id,
            build_number: build.number,
            pipeline: build.pipeline.clone(),
            step_key: job.node.key.clone(),
            label: job.node.label.clone(),
            command: command.command.clone(),
            env: self.env_of(job, attempt.number, id)?,
            image: pinned.or_else(|| command.image.clone()),
            source: keyed.map_or_else(|| build.origin.clone(), |keyed| keyed.source.clone()),
            namespace: build.namespace.clone(),
            queue: command.queue.clone(),
            timeout_ms: Some(timeout_ms),
            grace_ms: self.grace_ms(attempt.job),
            resources: command.resources,
            exclusive: runs_alone(command),
            interruptible: command.interruptible,
            tty: command.tty,
            keep_workspace: build.keep_workspace,
            log_limit_bytes: self.policy.log_limit_bytes,
        })
    }

    /// A job's environment. Of what its build was submitted with, a job that has a key is given what its step declares.
    pub(crate) fn env_of(&self, job: &JobRow, number: u32, attempt: AttemptId) -> Option<Vec<(String, String)>> {
        let build = &self.builds.get(&job.build)?.row;
        let command = self.command(job.id)?;
        let timeout_ms = self.timeout_ms(job.id);
        let keyed = job.reuse.as_ref().is_some_and(|reuse| reuse.keyed().is_some());
        let declared = |name: &String| command.reuse.as_ref().is_some_and(|reuse| reuse.env.contains(name));
        let mut env = vec![("BUILDKITE_PULL_REQUEST".to_owned(), "false".to_owned())];
        env.extend(build.pipeline_env.iter().cloned());
        env.extend(build.env.iter().filter(|(name, _)| !keyed || declared(name)).cloned());
        env.extend(checkout::beneath(&command.checkout));
        env.extend(command.env.iter().cloned());
        env.extend(checkout::above(&command.checkout, &env));
        env.extend(standard_env(build, job, number, timeout_ms, attempt));
        env.extend(self.policy.env.iter().cloned());
        Some(last_of_each(env))
    }

    /// Between a job's polite signal and its kill: its step's own, else the policy's (F26).
    pub(crate) fn grace_ms(&self, job: JobId) -> u64 {
        self.command(job).and_then(|command| command.grace_ms).unwrap_or(self.policy.grace_ms)
    }

    /// How long a job's command may run: its own timeout, else its pipeline's, else the default, never more than the longest.
    pub(crate) fn timeout_ms(&self, job: JobId) -> u64 {
        let own = self.command(job).and_then(|command| command.timeout_ms);
        let registered = || self.builds.get(&self.jobs.get(&job)?.row.build)?.row.registered.as_ref()?.timeout_ms;
        own.or_else(registered).unwrap_or(self.policy.timeout_default_ms).min(self.policy.timeout_max_ms)
    }
}

/// Later wins; a name stands where it came last.
fn last_of_each(env: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<_> = env.into_iter().rev().filter(|(name, _)| seen.insert(name.clone())).collect();
    kept.reverse();
    kept
}

/// A step's secrets by name, as Buildkite's agent has them in a variable (reference 17.3).
fn secrets_config(secrets: &[windlass_pipeline::graph::Secret]) -> String {
    let one = |secret: &windlass_pipeline::graph::Secret| serde_json::json!({ "key": secret.key, "environment_variable": secret.env });
    serde_json::Value::Array(secrets.iter().map(one).collect()).to_string()
}

/// What some of a step's keys become, over whatever variables it sets.
pub(crate) fn of_step(command: &Command, keyed: Option<&Keyed>) -> Vec<(&'static str, String)> {
    let mut env = Vec::new();
    if !command.secrets.is_empty() {
        // Which secrets, never what they are: the agent asks for those by its right to the attempt.
        env.push(("BUILDKITE_SECRETS_CONFIG", secrets_config(&command.secrets)));
    }
    // Where nobody takes files, the job does not try: its paths are ignored, as the checker says.
    let mut paths: Vec<&str> = command.artifact_paths.iter().map(String::as_str).collect();
    // What a step makes that may be reused is uploaded as its artifacts are.
    let outputs = command.reuse.iter().flat_map(|reuse| &reuse.outputs).map(String::as_str);
    let outputs: Vec<&str> =
        outputs.filter(|output| !command.artifact_paths.iter().any(|path| path == output)).collect();
    // But only after a command that passed. An agent of before does not look at this, and uploads all.
    if !outputs.is_empty() {
        env.push(("WINDLASS_OUTPUT_PATHS", outputs.join(";")));
    }
    paths.extend(outputs);
    if !paths.is_empty() && SERVED.contains(&Feature::ArtifactPaths) {
        env.push(("BUILDKITE_ARTIFACT_PATHS", paths.join(";")));
    }
    let cache = command.cache.as_ref().filter(|cache| cache.key.is_some());
    let cache = cache.and_then(|cache| serde_json::to_string(cache).ok()).unwrap_or_default();
    // Always: a step without a cache has none, whatever variables it sets.
    env.push(("WINDLASS_CACHE", cache));
    if let Some(volume) = command.cache.as_ref().filter(|cache| cache.key.is_none()) {
        env.push(("BUILDKITE_AGENT_CACHE_PATHS", volume.paths.join(",")));
    }
    // Always: a step without plugins has none, whatever variables it sets.
    let plugins = match keyed {
        _ if command.plugins.is_empty() => String::new(),
        // As its key says; and agents of any version clone a commit.
        Some(keyed) => plugin::text(&plugin::at_commits(&command.plugins, &keyed.plugins)),
        None => plugin::text(&command.plugins),
    };
    env.push(("BUILDKITE_PLUGINS", plugins));
    env
}

/// The variables that the server sets.
fn standard_env(
    build: &BuildRow,
    job: &JobRow,
    number: u32,
    timeout_ms: u64,
    attempt: AttemptId,
) -> Vec<(String, String)> {
    let mut env: Vec<(&str, String)> = vec![
        ("CI", "true".to_owned()),
        ("BUILDKITE", "true".to_owned()),
        ("BUILDKITE_BUILD_ID", build.id.to_string()),
        ("BUILDKITE_BUILD_NUMBER", build.number.to_string()),
        ("BUILDKITE_BUILD_CREATOR", build.creator.name.clone()),
        ("BUILDKITE_BRANCH", build.branch.clone()),
        ("BUILDKITE_TAG", build.tag.clone().unwrap_or_default()),
        ("BUILDKITE_COMMIT", build.commit.clone()),
        ("BUILDKITE_MESSAGE", build.message.clone()),
        ("BUILDKITE_SOURCE", build.source.word().to_owned()),
        ("BUILDKITE_PIPELINE_NAME", build.pipeline.clone()),
        ("BUILDKITE_PIPELINE_SLUG", build.pipeline.clone()),
        ("BUILDKITE_JOB_ID", attempt.to_string()),
        ("BUILDKITE_LABEL", job.node.label.clone()),
        ("BUILDKITE_STEP_KEY", job.node.key.clone().unwrap_or_default()),
        ("BUILDKITE_RETRY_COUNT", number.saturating_sub(1).to_string()),
        ("BUILDKITE_TIMEOUT", timeout_ms.div_ceil(60_000).to_string()),
        ("BUILDKITE_REBUILT_FROM_BUILD_ID", build.rebuilt_from.map(|id| id.to_string()).unwrap_or_default()),
        ("BUILDKITE_COMPUTE_TYPE", "self-hosted".to_owned()),
        ("WINDLASS", "true".to_owned()),
        ("WINDLASS_BUILD_ID", build.id.to_string()),
        ("WINDLASS_JOB_ID", job.id.to_string()),
        ("WINDLASS_ATTEMPT", number.to_string()),
        ("WINDLASS_ATTEMPT_ID", attempt.to_string()),
    ];
    let from = build.triggered_from.as_ref();
    let (id, parent) = (from.map(|from| from.build.to_string()), from.map(|from| from.number.to_string()));
    env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_ID", id.unwrap_or_default()));
    env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER", parent.unwrap_or_default()));
    let pipeline = from.map(|from| from.pipeline.clone());
    env.push(("BUILDKITE_TRIGGERED_FROM_BUILD_PIPELINE_SLUG", pipeline.unwrap_or_default()));
    if let Some(unblocker) = &build.unblocker {
        env.push(("BUILDKITE_UNBLOCKER", unblocker.name.clone()));
        env.push(("BUILDKITE_UNBLOCKER_ID", unblocker.name.clone()));
        env.push(("BUILDKITE_UNBLOCKER_EMAIL", String::new()));
        env.push(("BUILDKITE_UNBLOCKER_TEAMS", String::new()));
    }
    if let Some(pipeline) = &build.registered {
        env.push(("BUILDKITE_PIPELINE_ID", pipeline.id.to_string()));
        env.push(("BUILDKITE_PIPELINE_DEFAULT_BRANCH", pipeline.default_branch.clone()));
        // Where the source is a repository, its agent says which.
        env.push(("BUILDKITE_REPO", pipeline.repository.clone().unwrap_or_default()));
    }
    let group = job.node.place.group.and_then(|group| build.groups.get(usize::try_from(group).ok()?));
    if let Some(group) = group {
        let key = group.key.clone().unwrap_or_default();
        env.push(("BUILDKITE_GROUP_ID", format!("{}/{}", build.id, job.node.place.group.unwrap_or_default())));
        env.push(("BUILDKITE_GROUP_KEY", key));
        env.push(("BUILDKITE_GROUP_LABEL", group.label.clone().unwrap_or_default()));
    }
    if let windlass_pipeline::graph::NodeKind::Command(command) = &job.node.kind {
        env.push(("BUILDKITE_COMMAND", command.command.clone()));
        env.push(("BUILDKITE_IMAGE", command.image.clone().unwrap_or_default()));
        env.push(("WINDLASS_QUEUE", command.queue.clone()));
        env.extend(of_step(command, job.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| &keyed.keyed)));
        if let Some((index, total)) = command.parallel {
            env.push(("BUILDKITE_PARALLEL_JOB", index.to_string()));
            env.push(("BUILDKITE_PARALLEL_JOB_COUNT", total.to_string()));
        }
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
