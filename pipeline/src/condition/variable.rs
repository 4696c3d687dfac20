//! What an expression can name: variables (reference 15.8), and variables of the environment (15.7).

/// What a variable holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A string; `blank_is_null` if one of white space counts as null.
    Text {
        blank_is_null: bool,
    },
    Number,
    Bool,
    List,
    Enumeration(Enumeration),
}

/// A closed set of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enumeration {
    pub(super) name: &'static str,
    pub(super) values: &'static [&'static str],
}

const TEXT: Holds = Holds::Text { blank_is_null: false };
const PRESENT: Holds = Holds::Text { blank_is_null: true };

const BUILD_STATE: Holds = Holds::Enumeration(Enumeration {
    name: "build state",
    values: &[
        "creating",
        "started",
        "running",
        "scheduled",
        "blocked",
        "passed",
        "failing",
        "failed",
        "canceling",
        "canceled",
        "skipped",
        "not_run",
    ],
});
const BLOCKED_STATE: Holds =
    Holds::Enumeration(Enumeration { name: "blocked state", values: &["failed", "passed", "running"] });
const SOURCE: Holds = Holds::Enumeration(Enumeration {
    name: "build source",
    values: &["api", "ui", "webhook", "trigger_job", "schedule", "pipeline_trigger"],
});
const STEP_TYPE: Holds =
    Holds::Enumeration(Enumeration { name: "step type", values: &["command", "wait", "input", "trigger", "group"] });
const STEP_STATE: Holds = Holds::Enumeration(Enumeration {
    name: "step state",
    values: &[
        "ignored",
        "waiting_for_dependencies",
        "ready",
        "waiting_for_input",
        "running",
        "failing",
        "canceled",
        "finished",
    ],
});
const STEP_OUTCOME: Holds = Holds::Enumeration(Enumeration {
    name: "step outcome",
    values: &["neutral", "passed", "soft_failed", "hard_failed", "errored"],
});

/// Every variable, in order of the alphabet.
pub(super) const VARIABLES: [(&str, Holds); 49] = [
    ("build.author.email", PRESENT),
    ("build.author.id", TEXT),
    ("build.author.name", PRESENT),
    ("build.author.teams", Holds::List),
    ("build.blocked_state", BLOCKED_STATE),
    ("build.branch", TEXT),
    ("build.commit", TEXT),
    ("build.creator.email", TEXT),
    ("build.creator.id", TEXT),
    ("build.creator.name", TEXT),
    ("build.creator.teams", Holds::List),
    ("build.creator.verified", Holds::Bool),
    ("build.fixed", Holds::Bool),
    ("build.id", TEXT),
    ("build.merge_queue.base_branch", TEXT),
    ("build.merge_queue.base_commit", TEXT),
    ("build.message", PRESENT),
    ("build.number", Holds::Number),
    ("build.pull_request.base_branch", TEXT),
    ("build.pull_request.draft", Holds::Bool),
    ("build.pull_request.id", TEXT),
    ("build.pull_request.label", TEXT),
    ("build.pull_request.labels", Holds::List),
    ("build.pull_request.repository", TEXT),
    ("build.pull_request.repository.fork", Holds::Bool),
    ("build.scm.author.email", TEXT),
    ("build.scm.author.name", TEXT),
    ("build.scm.committer.email", TEXT),
    ("build.scm.committer.name", TEXT),
    ("build.source", SOURCE),
    ("build.source_action", TEXT),
    ("build.source_event", TEXT),
    ("build.state", BUILD_STATE),
    ("build.tag", PRESENT),
    ("organization.id", TEXT),
    ("organization.slug", TEXT),
    ("pipeline.default_branch", PRESENT),
    ("pipeline.id", TEXT),
    ("pipeline.next_finished_build_exists", Holds::Bool),
    ("pipeline.repository", PRESENT),
    ("pipeline.slug", TEXT),
    ("pipeline.started_failing", Holds::Bool),
    ("pipeline.started_passing", Holds::Bool),
    ("step.id", TEXT),
    ("step.key", TEXT),
    ("step.label", TEXT),
    ("step.outcome", STEP_OUTCOME),
    ("step.state", STEP_STATE),
    ("step.type", STEP_TYPE),
];

/// What is known of a build and named by no expression: it only shows in the environment.
pub(super) const FACTS: [(&str, Holds); 10] = [
    ("build.merge_queue.active", Holds::Bool),
    ("build.pull_request.using_merge_refspec", Holds::Bool),
    ("build.rebuilt_from.build_id", TEXT),
    ("build.rebuilt_from.build_number", Holds::Number),
    ("build.triggered_from.build_id", TEXT),
    ("build.triggered_from.build_number", Holds::Number),
    ("build.triggered_from.job_id", TEXT),
    ("build.triggered_from.pipeline_slug", TEXT),
    ("pipeline.name", TEXT),
    ("pipeline.use_merge_queue_base_commit_for_git_diff_base", Holds::Bool),
];

/// What a variable of this name holds.
pub(super) fn holds(name: &str) -> Option<Holds> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, holds)| *holds)
}

/// Names of the environment that begin with `BUILDKITE_` and that an expression may ask for.
pub(super) const ENVIRONMENT: [&str; 38] = [
    "BUILDKITE_BRANCH",
    "BUILDKITE_TAG",
    "BUILDKITE_MESSAGE",
    "BUILDKITE_COMMIT",
    "BUILDKITE_REPO",
    "BUILDKITE_PIPELINE_SLUG",
    "BUILDKITE_PIPELINE_NAME",
    "BUILDKITE_PIPELINE_ID",
    "BUILDKITE_ORGANIZATION_SLUG",
    "BUILDKITE_PULL_REQUEST",
    "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
    "BUILDKITE_PULL_REQUEST_REPO",
    "BUILDKITE_PULL_REQUEST_USING_MERGE_REFSPEC",
    "BUILDKITE_MERGE_QUEUE_BASE_BRANCH",
    "BUILDKITE_MERGE_QUEUE_BASE_COMMIT",
    "BUILDKITE_GIT_DIFF_BASE",
    "BUILDKITE_TRIGGERED_FROM_BUILD_ID",
    "BUILDKITE_TRIGGERED_FROM_BUILD_NUMBER",
    "BUILDKITE_TRIGGERED_FROM_BUILD_PIPELINE_SLUG",
    "BUILDKITE_TRIGGERED_FROM_BUILD_JOB_ID",
    "BUILDKITE_REBUILT_FROM_BUILD_ID",
    "BUILDKITE_REBUILT_FROM_BUILD_NUMBER",
    "BUILDKITE_GITHUB_ACTION",
    "BUILDKITE_GITHUB_COMMENT_ID",
    "BUILDKITE_GITHUB_DEPLOYMENT_ID",
    "BUILDKITE_GITHUB_DEPLOYMENT_TASK",
    "BUILDKITE_GITHUB_DEPLOYMENT_ENVIRONMENT",
    "BUILDKITE_GITHUB_DEPLOYMENT_PAYLOAD",
    "BUILDKITE_GITHUB_EVENT",
    "BUILDKITE_GITHUB_REVIEW_ID",
    "BUILDKITE_GITHUB_CHECK_RUN_CONCLUSION",
    "BUILDKITE_GITHUB_CHECK_RUN_NAME",
    "BUILDKITE_GITHUB_DEPLOYMENT_STATUS_ENVIRONMENT",
    "BUILDKITE_GITHUB_DEPLOYMENT_STATUS_STATE",
    "BUILDKITE_GITHUB_RELEASE_DRAFT",
    "BUILDKITE_GITHUB_RELEASE_PRERELEASE",
    "BUILDKITE_GITHUB_RELEASE_TAG",
    "BUILDKITE_GITHUB_REVIEW_STATE",
];

/// May be asked for by a computed name only.
pub(super) const LABELS: &str = "BUILDKITE_PULL_REQUEST_LABELS";

/// Whether the environment shows a variable of this name at all.
pub(super) fn is_visible(name: &str) -> bool {
    !name.starts_with("BUILDKITE_") || name == LABELS || ENVIRONMENT.contains(&name)
}
