//! What is due: from a change of a build, a step or a group to messages for those who are to hear of it (reference 13).
//!
//! A change is what is so after an input and was not before it. Which builds may be told of, and where: docs/design/025.

use windlass_pipeline::condition::{Context, EntryPoint, Notices, Value};
use windlass_pipeline::graph::{BlockedState, NodeKind, Notify, SERVICES};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Trust, limits};

use crate::known::Known;
use crate::row::{
    BuildFacts, BuildNews, BuildRow, BuildState, CommitState, JobRow, Message, NotificationRow, NotificationState,
};
use crate::state::Core;
use crate::subject::{Subject, Sum, subjects_of};

const WEBHOOK: &str = "webhook";
const COMMIT_STATUS: &str = "github_commit_status";

/// As far as a build was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage {
    state: BuildState,
    blocked: Option<BlockedState>,
}

impl Stage {
    pub(crate) const fn of(row: &BuildRow) -> Self {
        Self { state: row.state, blocked: row.blocked }
    }

    const fn has_begun(self) -> bool {
        matches!(self.state, BuildState::Running | BuildState::Failing)
    }

    /// What is news after `was`, in its order.
    fn news(self, was: Self) -> Vec<BuildNews> {
        let ends = self.state.is_final() && !was.state.is_final();
        let found = [
            (was.state == BuildState::Creating, BuildNews::Scheduled),
            (self.has_begun() && !was.has_begun(), BuildNews::Running),
            (self.state == BuildState::Failing && was.state != BuildState::Failing, BuildNews::Failing),
            (self.blocked.is_some() && was.blocked.is_none(), BuildNews::Blocked),
            (ends && self.state != BuildState::Skipped, BuildNews::Finished),
            (ends && self.state == BuildState::Skipped, BuildNews::Skipped),
        ];
        found.into_iter().filter_map(|(is_so, news)| is_so.then_some(news)).collect()
    }

    /// What a commit's state would be.
    const fn commit_state(self, blocked_as_pending: bool) -> Option<CommitState> {
        let state = match (self.state, self.blocked) {
            (BuildState::Creating, _) => return None,
            (_, Some(BlockedState::Failed)) | (BuildState::Failed, _) => CommitState::Failure,
            (_, Some(_)) if blocked_as_pending => CommitState::Pending,
            (_, Some(_)) | (BuildState::Passed | BuildState::NotRun, _) => CommitState::Success,
            (BuildState::Canceled | BuildState::Skipped, _) => CommitState::Error,
            (BuildState::Scheduled | BuildState::Running | BuildState::Failing | BuildState::Canceling, None) => {
                CommitState::Pending
            }
        };
        Some(state)
    }

    /// In the words of conditions.
    const fn word(self) -> &'static str {
        match (self.state, self.blocked) {
            (_, Some(_)) => "blocked",
            (BuildState::Creating, _) => "creating",
            (BuildState::Scheduled, _) => "scheduled",
            (BuildState::Running, _) => "running",
            (BuildState::Failing, _) => "failing",
            (BuildState::Passed, _) => "passed",
            (BuildState::Failed, _) => "failed",
            (BuildState::Canceling, _) => "canceling",
            (BuildState::Canceled, _) => "canceled",
            (BuildState::Skipped, _) => "skipped",
            (BuildState::NotRun, _) => "not_run",
        }
    }

    /// For people, after a build's or step's name.
    const fn said(self) -> &'static str {
        match (self.state, self.blocked) {
            (_, Some(_)) => "is blocked",
            (BuildState::Creating | BuildState::Scheduled, _) => "is scheduled",
            (BuildState::Running | BuildState::Failing, _) => "is running",
            (BuildState::Canceling, _) => "is being canceled",
            (BuildState::Passed, _) => "passed",
            (BuildState::Failed, _) => "failed",
            (BuildState::Canceled, _) => "was canceled",
            (BuildState::Skipped, _) => "was replaced by a newer build",
            (BuildState::NotRun, _) => "had nothing to run",
        }
    }
}

/// What an entry comes to: a message, or why there is none.
type Due = Result<Message, (String, String)>;

/// Where a status may be set: the repository and the commit, or why nowhere.
fn commit_of(row: &BuildRow) -> Result<(&str, &str), &'static str> {
    let registered = row.registered.as_ref().and_then(|registered| registered.repository.as_deref());
    let repository = registered.ok_or("the pipeline is registered with no repository")?;
    let commit = match &row.origin {
        Source::Git { repository: own, .. } if own != repository => {
            return Err("the build is of another repository than the pipeline is registered with");
        }
        Source::Git { commit, .. } => commit.as_str(),
        Source::Tree { .. } | Source::Empty => row.commit.as_str(),
    };
    if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("the build has no full commit id");
    }
    let of_pull_request = row.namespace.overlay.as_ref().is_some_and(|overlay| overlay.starts_with("pr:"));
    let seen = of_pull_request && row.triggered_from.is_none() && matches!(row.origin, Source::Git { .. });
    if row.namespace.trust() == Trust::Untrusted && !seen {
        return Err("the build is not trusted, and is not one that the server read from a pull request's head");
    }
    Ok((repository, commit))
}

/// Where a webhook may go, as far as the URL itself says it.
fn webhook_of(row: &BuildRow, config: &serde_json::Value) -> Result<String, &'static str> {
    if row.namespace.trust() == Trust::Untrusted {
        return Err("the build is not trusted, and webhooks are signed by the server");
    }
    let url = config.as_str().ok_or("a webhook is a URL")?;
    let is_http = url.starts_with("https://") || url.starts_with("http://");
    if !is_http || url.len() > limits::URL_MAX_BYTES || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a webhook is an http or https URL");
    }
    Ok(url.to_owned())
}

/// At most so many bytes, whole characters.
fn cut(text: &str, max: usize) -> String {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned()
}

fn described(text: String) -> String {
    if text.chars().count() <= limits::STATUS_DESCRIPTION_MAX {
        return text;
    }
    text.chars().take(limits::STATUS_DESCRIPTION_MAX - 1).chain(['…']).collect()
}

fn facts_of(row: &BuildRow) -> BuildFacts {
    BuildFacts {
        number: row.number,
        pipeline: row.pipeline.clone(),
        pipeline_id: row.registered.as_ref().map(|registered| registered.id),
        repository: row.registered.as_ref().and_then(|registered| registered.repository.clone()),
        state: Stage::of(row).word().to_owned(),
        blocked: row.blocked.is_some(),
        branch: row.branch.clone(),
        commit: row.commit.clone(),
        tag: row.tag.clone(),
        message: cut(&row.message, limits::NOTIFICATION_TEXT_MAX_BYTES),
        source: row.source,
        creator: row.creator.clone(),
        rebuilt_from: row.rebuilt_from,
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    }
}

/// What conditions see of a build.
fn context_of(row: &BuildRow) -> Context {
    let (id, registered) = (row.id.to_string(), row.registered.as_ref());
    let pipeline_id = registered.map(|registered| registered.id.to_string());
    let repository = match &row.origin {
        Source::Git { repository, .. } => Some(repository.as_str()),
        Source::Tree { .. } | Source::Empty => registered.and_then(|registered| registered.repository.as_deref()),
    };
    let known = Known {
        id: &id,
        number: Some(row.number),
        branch: &row.branch,
        commit: &row.commit,
        tag: row.tag.as_deref().unwrap_or_default(),
        message: &row.message,
        source: row.source.word(),
        creator: &row.creator.name,
        pipeline: &row.pipeline,
        pipeline_id: pipeline_id.as_deref().unwrap_or_default(),
        default_branch: registered.map_or("", |registered| &registered.default_branch),
        repository: repository.unwrap_or_default(),
        triggered_from: row.triggered_from.as_ref(),
        env: &row.env,
    };
    // Names that the language lacks would be our own mistake, which the tests of `known` would find.
    let mut context = known.context().unwrap_or_default();
    context.set_pipeline_env(row.pipeline_env.iter().cloned());
    set(&mut context, "build.state", Stage::of(row).word());
    if let Some(blocked) = row.blocked {
        let word = match blocked {
            BlockedState::Passed => "passed",
            BlockedState::Failed => "failed",
            BlockedState::Running => "running",
        };
        set(&mut context, "build.blocked_state", word);
    }
    context
}

fn set(context: &mut Context, name: &str, text: &str) {
    let set = context.set(name, Value::Text(text.to_owned()));
    debug_assert!(set.is_ok(), "conditions know {name}");
}

/// An entry's context: its own, or this one.
fn status_context(entry: &Notify, default: impl FnOnce() -> String) -> String {
    let own = entry.config.get("context").and_then(|context| context.as_str()).filter(|own| !own.trim().is_empty());
    cut(&own.map_or_else(default, str::to_owned), limits::STATUS_CONTEXT_MAX_BYTES)
}

fn status(row: &BuildRow, context: String, state: CommitState, description: String) -> Due {
    let (repository, commit) = commit_of(row).map_err(|why| (COMMIT_STATUS.to_owned(), why.to_owned()))?;
    let (repository, commit) = (repository.to_owned(), commit.to_ascii_lowercase());
    Ok(Message::GithubCommitStatus { repository, commit, context, state, description: described(description) })
}

/// Services that nothing is sent to are told of once, with the end.
fn unserved(name: &str) -> Due {
    let known = SERVICES.iter().any(|service| service.name == name);
    let why = if known { "Windlass does not deliver to this service yet" } else { "there is no such service" };
    Err((cut(name, limits::NAME_MAX_BYTES), why.to_owned()))
}

/// What an entry of the build's own `notify` comes to.
fn of_build(row: &BuildRow, entry: &Notify, was: Stage) -> Vec<Due> {
    let stage = Stage::of(row);
    let ends = stage.state.is_final() && !was.state.is_final();
    let mut due: Vec<Due> = Vec::new();
    match entry.service.as_str() {
        WEBHOOK => match webhook_of(row, &entry.config) {
            Ok(url) => due.extend(
                stage
                    .news(was)
                    .into_iter()
                    .map(|event| Ok(Message::Webhook { url: url.clone(), event, facts: Box::new(facts_of(row)) })),
            ),
            Err(why) => due.push(Err((WEBHOOK.to_owned(), why.to_owned()))),
        },
        COMMIT_STATUS => {
            let pending = entry.config.get("blocked_builds_as_pending").and_then(serde_json::Value::as_bool);
            let state = |stage: Stage| stage.commit_state(pending.unwrap_or(false));
            if let Some(now) = state(stage).filter(|now| state(was) != Some(*now)) {
                let context = status_context(entry, || format!("buildkite/{}", row.pipeline));
                due.push(status(row, context, now, format!("Build #{} {}", row.number, stage.said())));
            }
        }
        other => due.push(unserved(other)),
    }
    // Once is enough.
    due.retain(|due| ends || due.is_ok());
    due
}

/// What an entry of a step or a group comes to.
fn of_subject(row: &BuildRow, entry: &Notify, name: &str, (was, is): (Sum, Sum)) -> Option<Due> {
    let due = match entry.service.as_str() {
        COMMIT_STATUS => {
            let (before, after) = (was.state(), is.state());
            let state = match (before, after) {
                // It was to be run, and will not be.
                (Some(CommitState::Pending), None) => CommitState::Error,
                (_, Some(after)) if before != Some(after) => after,
                _ => return None,
            };
            let said = match state {
                CommitState::Pending => "is running",
                CommitState::Success => "passed",
                CommitState::Failure => "failed",
                CommitState::Error => "came to no result",
            };
            let context = status_context(entry, || format!("buildkite/{}/{name}", row.pipeline));
            status(row, context, state, format!("{name} {said} in build #{}", row.number))
        }
        other => unserved(other),
    };
    let ends = is.is_over() && !was.is_over();
    (due.is_ok() || ends).then_some(due)
}

/// What conditions see of a step, by all of its jobs.
fn step_context(context: &mut Context, job: &JobRow, sum: Sum) {
    let kind = match &job.node.kind {
        NodeKind::Command(_) => "command",
        NodeKind::Wait { .. } => "wait",
        NodeKind::Block(_) | NodeKind::Input(_) => "input",
        NodeKind::Trigger(_) => "trigger",
    };
    let (state, outcome) = match (sum.is_over(), sum.state()) {
        (true, Some(CommitState::Failure)) => ("finished", "hard_failed"),
        (true, Some(CommitState::Error)) => ("canceled", "errored"),
        (true, Some(_)) if sum.soft > 0 => ("finished", "soft_failed"),
        (true, Some(_)) => ("finished", "passed"),
        (true, None) => ("ignored", "neutral"),
        (false, None) => ("waiting_for_dependencies", ""),
        (false, Some(_)) if sum.failed > 0 => ("failing", ""),
        (false, Some(_)) => ("running", ""),
    };
    set(context, "step.type", kind);
    set(context, "step.state", state);
    set(context, "step.label", &job.node.label);
    set(context, "step.id", &job.id.to_string());
    if !outcome.is_empty() {
        set(context, "step.outcome", outcome);
    }
    if let Some(key) = &job.node.key {
        set(context, "step.key", key);
    }
}

impl Core {
    /// A build has changed: those that its `notify` names hear of it.
    pub(crate) fn notify_of_build(&mut self, id: BuildId, was: Stage) {
        let row = &self.builds[&id].row;
        if row.notify.is_empty() {
            return;
        }
        let (mut due, mut notices) = (Vec::new(), None);
        for entry in &row.notify {
            let found = of_build(row, entry, was);
            if !found.is_empty() && holds(&mut notices, || context_of(row), entry, EntryPoint::BuildNotification) {
                due.extend(found);
            }
        }
        self.post_all(id, due);
    }

    /// The sums of steps and groups have changed.
    pub(crate) fn notify_of_subjects(&mut self) {
        for ((id, subject), was) in std::mem::take(&mut self.book.subjects) {
            let Some(home) = self.builds.get(&id) else { continue };
            let is = home.subjects.get(&subject).copied().unwrap_or_default();
            if was == is {
                continue;
            }
            let due = match &subject {
                Subject::Step(_) => self.due_of_step(id, &subject, (was, is)),
                Subject::Group(group) => self.due_of_group(id, *group, (was, is)),
            };
            self.post_all(id, due);
        }
    }

    fn due_of_step(&self, id: BuildId, subject: &Subject, sums: (Sum, Sum)) -> Vec<Due> {
        let home = &self.builds[&id];
        let mut jobs = home.jobs.iter().map(|job| &self.jobs[job].row);
        let Some(job) = jobs.find(|job| subjects_of(job, &home.row.groups).any(|of| of == *subject)) else {
            return Vec::new();
        };
        let name = job.node.key.as_deref().unwrap_or(&job.node.label);
        let (mut due, mut notices) = (Vec::new(), None);
        let context = || {
            let mut context = context_of(&home.row);
            step_context(&mut context, job, sums.1);
            context
        };
        for entry in &job.node.notify {
            let found = of_subject(&home.row, entry, name, sums);
            if found.is_some() && holds(&mut notices, context, entry, EntryPoint::StepNotification) {
                due.extend(found);
            }
        }
        due
    }

    fn due_of_group(&self, id: BuildId, index: u32, sums: (Sum, Sum)) -> Vec<Due> {
        let row = &self.builds[&id].row;
        let Some(group) = usize::try_from(index).ok().and_then(|index| row.groups.get(index)) else {
            return Vec::new();
        };
        let name = group.key.as_deref().or(group.label.as_deref()).unwrap_or("group");
        let (mut due, mut notices) = (Vec::new(), None);
        for entry in &group.notify {
            let found = of_subject(row, entry, name, sums);
            if found.is_some() && holds(&mut notices, || context_of(row), entry, EntryPoint::BuildNotification) {
                due.extend(found);
            }
        }
        due
    }

    /// Writes down what is due, as far as the build may have more.
    fn post_all(&mut self, id: BuildId, due: Vec<Due>) {
        let wall = self.now.wall;
        for due in due {
            let build = self.edit_build(id);
            if build.notified >= limits::NOTIFICATIONS_PER_BUILD_MAX {
                build.not_notified = build.not_notified.saturating_add(1);
                continue;
            }
            build.notified += 1;
            let (message, state, detail) = match due {
                Ok(message) => (message, NotificationState::Pending, String::new()),
                Err((name, why)) => (Message::Unsent { name }, NotificationState::Refused, why),
            };
            let finished_at = state.is_final().then_some(wall);
            let notification = self.ids.notification(wall);
            self.post(NotificationRow {
                id: notification,
                build: id,
                message,
                state,
                attempts: 0,
                status: None,
                detail,
                created_at: wall,
                due_at: wall,
                finished_at,
            });
        }
    }
}

/// Whether an entry's `if` holds. What it looks at is made when the first one asks, and is the same for all of one event.
fn holds(notices: &mut Option<Notices>, context: impl FnOnce() -> Context, entry: &Notify, point: EntryPoint) -> bool {
    let Some(condition) = &entry.condition else { return true };
    notices.get_or_insert_with(|| Notices::new(context())).holds(condition, point)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0190c1f0-7a3b-7c1d-8e2f-0123456789ab";

    fn pull_request(more: &Value) -> BuildRow {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let git = json!({ "git": { "repository": "https://h/a", "commit": commit, "branch": "b" } });
        let mut row = json!({
            "id": ID, "number": 7, "pipeline": "web", "state": "running", "branch": "b", "commit": commit, "message": "",
            "origin": git, "source": "trigger", "creator": { "kind": "user", "name": "alice" },
            "namespace": { "project": "web", "overlay": "pr:7" }, "env": [], "meta_data": {}, "supersede": "never",
            "created_at": 1, "definition": windlass_protocol::Digest::of(b""),
            "registered": { "id": ID, "repository": "https://h/a", "default_branch": "main" },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            row[name] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn what_a_pull_requests_build_triggers_calls_no_commit_good() {
        assert!(commit_of(&pull_request(&json!({}))).is_ok());
        let from = json!({
            "build": ID, "number": 1, "pipeline": "up", "job": ID, "ordinal": 1, "depth": 1, "root": ID,
        });
        assert!(commit_of(&pull_request(&json!({ "triggered_from": from }))).is_err());
    }

    #[test]
    fn a_description_is_no_longer_than_its_server_takes() {
        let long = described("é".repeat(300));
        assert_eq!((long.chars().count(), long.ends_with('…')), (limits::STATUS_DESCRIPTION_MAX, true));
        assert_eq!(described("short".to_owned()), "short");
    }
}
