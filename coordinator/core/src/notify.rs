//! What is due: from a change of a build, a step or a group to messages for those who are to hear of it (reference 13).
//!
//! A change is what is so after an input and was not before it. Which builds may be told of, and where: docs/design/025.

use windlass_pipeline::condition::{Conditions, Context, EntryPoint, Notices, Value};
use windlass_pipeline::graph::{BlockedState, NodeKind, Notify, SERVICES};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Trust, hex, limits};

use crate::known::Known;
use crate::row::{
    BuildFacts, BuildNews, BuildRow, BuildState, CommitState, JobRow, Message, NotificationRow, NotificationState,
    origin_of,
};
use crate::standing::StepTally;
use crate::state::{Build, Core};
use crate::subject::Subject;

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
    if !hex::is_commit_id(commit) {
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
    if origin_of(url).contains('@') {
        return Err("a webhook's URL has no user and no password in it");
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
    set_or_null(context, name, Some(text));
}

fn set_or_null(context: &mut Context, name: &str, text: Option<&str>) {
    let set = context.set(name, text.map_or(Value::Null, |text| Value::Text(text.to_owned())));
    debug_assert!(set.is_ok(), "conditions know {name}");
}

/// An entry's context: its own, or this one.
fn status_context(entry: &Notify, default: impl FnOnce() -> String) -> String {
    let own = entry.config.get("context").and_then(|context| context.as_str()).filter(|own| !own.trim().is_empty());
    cut(&own.map_or_else(default, str::to_owned), limits::STATUS_CONTEXT_MAX_BYTES)
}

/// Whether a context is the pipeline's own: another one may be a check of somebody else.
fn is_own(row: &BuildRow, context: &str) -> bool {
    let rest = context.strip_prefix("buildkite/").and_then(|rest| rest.strip_prefix(row.pipeline.as_str()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn status(row: &BuildRow, context: String, state: CommitState, description: String) -> Due {
    let (repository, commit) = commit_of(row).map_err(|why| (COMMIT_STATUS.to_owned(), why.to_owned()))?;
    let (repository, commit) = (repository.to_owned(), commit.to_ascii_lowercase());
    if row.namespace.trust() == Trust::Untrusted && !is_own(row, &context) {
        let why = format!("the build is not trusted: its contexts are `buildkite/{}` and those below it", row.pipeline);
        return Err((COMMIT_STATUS.to_owned(), why));
    }
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
fn of_subject(row: &BuildRow, entry: &Notify, name: &str, (was, is): (StepTally, StepTally)) -> Option<Due> {
    let due = match entry.service.as_str() {
        COMMIT_STATUS => {
            let (before, after) = (was.commit_state(), is.commit_state());
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
fn step_context(context: &mut Context, job: &JobRow, tally: StepTally) {
    let kind = match &job.node.kind {
        NodeKind::Command(_) => "command",
        NodeKind::Wait { .. } => "wait",
        NodeKind::Block(_) | NodeKind::Input(_) => "input",
        NodeKind::Trigger(_) => "trigger",
    };
    set(context, "step.type", kind);
    set(context, "step.state", tally.state());
    set(context, "step.label", &job.node.label);
    set(context, "step.id", &job.id.to_string());
    // The step before this one may have had them.
    set_or_null(context, "step.outcome", tally.outcome());
    set_or_null(context, "step.key", job.node.key.as_deref());
}

/// How many notifications a build may have.
fn most(row: &BuildRow) -> u32 {
    match row.namespace.trust() {
        Trust::Trusted => limits::NOTIFICATIONS_PER_BUILD_MAX,
        Trust::Untrusted => limits::UNTRUSTED_NOTIFICATIONS_PER_BUILD_MAX,
    }
}

/// What is due of a build by one input. Its conditions look at the same things and share one account.
struct Told {
    conditions: Conditions,
    notices: Option<Notices>,
    due: Vec<Due>,
    /// How many more the build may have.
    room: usize,
    /// Those beyond: they are counted, and their conditions are not asked.
    beyond: usize,
}

impl Told {
    fn of(home: &mut Build) -> Self {
        let room = usize::try_from(most(&home.row).saturating_sub(home.row.notified)).unwrap_or(usize::MAX);
        let conditions = std::mem::take(&mut home.conditions);
        Self { conditions, notices: None, due: Vec::new(), room, beyond: 0 }
    }

    /// What an entry comes to is due if its condition holds; of a step's, these are its job and how it stands.
    fn add(&mut self, row: &BuildRow, entry: &Notify, step: Option<(&JobRow, StepTally)>, found: Vec<Due>) {
        if self.due.len() >= self.room {
            self.beyond += found.len();
        } else if !found.is_empty() && self.holds(row, entry, step) {
            self.due.extend(found);
        }
    }

    fn holds(&mut self, row: &BuildRow, entry: &Notify, step: Option<(&JobRow, StepTally)>) -> bool {
        let Some(condition) = &entry.condition else { return true };
        let notices = self.notices.get_or_insert_with(|| Notices::new(context_of(row)));
        let point = match step {
            Some((job, tally)) => {
                step_context(notices.context_mut(), job, tally);
                EntryPoint::StepNotification
            }
            None => EntryPoint::BuildNotification,
        };
        notices.holds(&mut self.conditions, condition, point)
    }
}

impl Core {
    /// A build has changed: those that its `notify` names hear of it.
    pub(crate) fn notify_of_build(&mut self, id: BuildId, was: Stage) {
        let Some(home) = self.builds.get_mut(&id).filter(|home| !home.row.notify.is_empty()) else { return };
        let mut told = Told::of(home);
        for entry in &home.row.notify {
            told.add(&home.row, entry, None, of_build(&home.row, entry, was));
        }
        self.post_all(id, told);
    }

    /// Steps and groups stand otherwise.
    pub(crate) fn notify_of_subjects(&mut self) {
        let mut changed = std::mem::take(&mut self.book.subjects).into_iter().peekable();
        while let Some(((id, _), _)) = changed.peek() {
            let id = *id;
            let mut told = self.builds.get_mut(&id).map(Told::of);
            while let Some(((_, subject), was)) = changed.next_if(|((of, _), _)| *of == id) {
                if let Some(told) = &mut told {
                    self.tell_of_subject(id, &subject, was, told);
                }
            }
            if let Some(told) = told {
                self.post_all(id, told);
            }
        }
    }

    fn tell_of_subject(&self, id: BuildId, subject: &Subject, was: StepTally, told: &mut Told) {
        let home = &self.builds[&id];
        let heard = home.subjects.get(subject);
        let is = heard.map(|heard| heard.tally).unwrap_or_default();
        if was == is {
            return;
        }
        let (row, stood) = (&home.row, (was, is));
        match subject {
            Subject::Step(_) => {
                let Some(job) = heard.and_then(|heard| self.jobs.get(&heard.first)) else { return };
                let job = &job.row;
                let name = job.node.key.as_deref().unwrap_or(&job.node.label);
                for entry in &job.node.notify {
                    told.add(row, entry, Some((job, is)), Vec::from_iter(of_subject(row, entry, name, stood)));
                }
            }
            Subject::Group(index) => {
                let group = usize::try_from(*index).ok().and_then(|index| row.groups.get(index));
                let Some(group) = group else { return };
                let name = group.key.as_deref().or(group.label.as_deref()).unwrap_or("group");
                for entry in &group.notify {
                    told.add(row, entry, None, Vec::from_iter(of_subject(row, entry, name, stood)));
                }
            }
        }
    }

    /// Writes down what is due, as far as the build may have more.
    fn post_all(&mut self, id: BuildId, told: Told) {
        let wall = self.now.wall;
        let Told { conditions, mut due, room, beyond, .. } = told;
        if let Some(home) = self.builds.get_mut(&id) {
            home.conditions = conditions;
        }
        let beyond = beyond + due.len().saturating_sub(room);
        due.truncate(room);
        if due.is_empty() && beyond == 0 {
            return;
        }
        let build = self.edit_build(id);
        build.notified = build.notified.saturating_add(u32::try_from(due.len()).unwrap_or(u32::MAX));
        build.not_notified = build.not_notified.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
        let (project, untrusted) = (build.namespace.project.clone(), build.namespace.trust() == Trust::Untrusted);
        for due in due {
            let (message, state, detail) = match due {
                Ok(message) => (message, NotificationState::Pending, String::new()),
                Err((name, why)) => (Message::Unsent { name }, NotificationState::Refused, why),
            };
            let finished_at = state.is_final().then_some(wall);
            let notification = self.ids.notification(wall);
            self.post(NotificationRow {
                id: notification,
                build: id,
                project: project.clone(),
                untrusted,
                order: 0,
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
