//! The attributes of pipelines and of each kind of step (reference 2, 4, 5).

use super::value::{
    AGENTS, BUILD, CACHE, CHECKOUT, DEPENDENCY, FIELD, IF_CHANGED, MATRIX, NOTIFY, PLUGINS, RESOURCES, RETRY, REUSE,
    SECRETS, SOFT_FAIL,
};
use super::{Row, Shape, TEXTS, Table, Unknown, ours, required, row};

/// The longest timeout that is not told to be cut; more is taken.
const MINUTES: Shape = Shape::Integer(1, i64::MAX);

/// [`STEP_GRACE_MAX_MS`](windlass_protocol::limits::STEP_GRACE_MAX_MS), in seconds.
const GRACE: Shape = Shape::Integer(0, 3_600);

const PRIORITY: Shape = Shape::Integer(i32::MIN as i64, i32::MAX as i64);

const CACHES: Shape = Shape::Either(&[Shape::Flag, Shape::Text, Shape::List(&Shape::Text), Shape::Map(&CACHE)]);

const DEPENDS_ON: Shape = Shape::Either(&[
    Shape::Text,
    Shape::List(&Shape::Either(&[Shape::Text, Shape::Map(&DEPENDENCY)])),
    Shape::Map(&DEPENDENCY),
]);

const CHANGED: Shape = Shape::Either(&[Shape::Text, Shape::List(&Shape::Text), Shape::Map(&IF_CHANGED)]);

const SOFT: Shape =
    Shape::Either(&[Shape::Flag, Shape::List(&Shape::Either(&[Shape::Map(&SOFT_FAIL), Shape::Integer(-1, 255)]))]);

const SKIP: Shape = Shape::Either(&[Shape::Flag, Shape::Text]);

const NOTIFIED: Shape = Shape::List(&Shape::Either(&[Shape::Text, Shape::Map(&NOTIFY)]));

const MATRICES: Shape = Shape::Either(&[Shape::List(&Shape::Text), Shape::Map(&MATRIX)]);

const KEY: Row = row(&["key", "id", "identifier"], Shape::Text, "A name of the step, unique in its build.");
const LABEL: Row = row(&["label", "name"], Shape::Text, "What people see; emoji shortcodes are shown.");
const DEPENDS: Row = row(
    &["depends_on"],
    DEPENDS_ON,
    "Keys of steps or groups that must be over first. Takes the place of the implicit order.",
);
const ALLOW: Row = row(&["allow_dependency_failure"], Shape::Flag, "Run even if what the step depends on failed.");
const IF: Row = row(&["if"], Shape::Text, "A condition, decided once when the pipeline is uploaded.");
const BRANCHES: Row = row(&["branches"], TEXTS, "Patterns of branches, separated by spaces; `!` negates.");
const IF_CHANGED_ROW: Row = row(&["if_changed"], CHANGED, "Globs of files; the step runs only if one of them changed.");
const SKIP_ROW: Row = row(&["skip"], SKIP, "Do not run the step; a text says why.");
const SOFT_ROW: Row = row(&["soft_fail"], SOFT, "Failures that do not fail the build.");
const TYPE: Row = row(
    &["type"],
    Shape::Word(&["command", "commands", "script", "wait", "waiter", "block", "input", "manual", "trigger", "group"]),
    "What kind of step it is, where its keys do not say so.",
);

/// The top level.
pub(crate) static TOP: Table = Table {
    name: "pipeline",
    of: "a pipeline",
    unknown: Unknown::Kept,
    rows: &[
        required(&["steps"], Shape::Steps { groups: true }, "The steps, in order."),
        row(&["env"], Shape::Variables, "Variables of the whole build."),
        row(&["agents"], AGENTS, "Which agents run the steps that do not say so themselves."),
        row(&["notify"], NOTIFIED, "Who hears of the build."),
        row(&["priority"], PRIORITY, "The priority of steps without one."),
        row(&["image"], Shape::Text, "The container image of steps without one."),
        row(&["secrets"], SECRETS, "Secrets of every command step."),
        row(&["checkout"], Shape::Map(&CHECKOUT), "How the source is checked out."),
        row(&["cache"], CACHES, "The cache of command steps without one."),
        ours(&["timeout_in_minutes", "timeout"], MINUTES, "The timeout of steps without one."),
        ours(
            &["supersede"],
            Shape::Either(&[Shape::Flag, Shape::Word(&["waiting", "running"])]),
            "What a newer build of the branch does to this one.",
        ),
    ],
};

/// A command step.
pub(crate) static COMMAND: Table = Table {
    name: "command_step",
    of: "a command step",
    unknown: Unknown::Ignored,
    rows: &[
        row(&["commands", "command", "script"], TEXTS, "The lines of one script."),
        LABEL,
        KEY,
        row(&["agents", "agent_query_rules"], AGENTS, "Which agents may run the step."),
        ALLOW,
        row(&["artifact_paths", "artifacts"], TEXTS, "Globs of files that are uploaded after the command."),
        BRANCHES,
        row(&["cache"], CACHES, "Directories that are kept between jobs; with `key`, by content."),
        row(&["cancel_on_build_failing"], Shape::Flag, "End the step as soon as the build is failing."),
        row(&["checkout"], Shape::Map(&CHECKOUT), "How the source is checked out."),
        row(&["concurrency"], Shape::Integer(1, u32::MAX as i64), "How many jobs of the group may run at a time."),
        row(&["concurrency_group"], Shape::Text, "The group's name, shared by all pipelines."),
        row(&["concurrency_method"], Shape::Word(&["ordered", "eager"]), "Who is next in the group."),
        DEPENDS,
        row(&["env"], Shape::Variables, "Variables of the step; they win over the build's."),
        IF,
        IF_CHANGED_ROW,
        row(&["image"], Shape::Text, "A container image to run in."),
        row(&["matrix"], MATRICES, "Values for which the step runs once each."),
        row(&["notify"], NOTIFIED, "Who hears of the step."),
        row(&["parallelism"], Shape::Integer(0, 10_000), "How many jobs the step becomes."),
        row(&["plugins"], PLUGINS, "Plugins, in order."),
        row(&["priority"], PRIORITY, "Higher runs first."),
        row(&["retry"], Shape::Map(&RETRY), "Which failures are tried again."),
        row(&["secrets"], SECRETS, "Secrets that the job gets as variables."),
        row(&["signature"], Shape::AnyMap, "Put in by agents that sign; kept and not looked at."),
        SKIP_ROW,
        SOFT_ROW,
        row(&["timeout_in_minutes", "timeout"], MINUTES, "How long a job may run."),
        TYPE,
        ours(
            &["reuse"],
            Shape::Either(&[Shape::Flag, Shape::Map(&REUSE)]),
            "Take the result of an earlier run of the same.",
        ),
        ours(&["resources"], Shape::Map(&RESOURCES), "What a job needs while it runs."),
        ours(&["zone"], Shape::Text, "Only agents of this zone."),
        ours(&["exclusive"], Shape::Flag, "Never two of its jobs at a time, whatever fails."),
        ours(&["interruptible"], Shape::Flag, "May be stopped and run again at any time."),
        ours(&["cancel_grace_period"], GRACE, "Seconds between a job's polite signal and its kill."),
        ours(&["tty"], Shape::Flag, "Give the command a terminal."),
    ],
};

/// A wait step.
pub(crate) static WAIT: Table = Table {
    name: "wait_step",
    of: "a wait step",
    unknown: Unknown::Ignored,
    rows: &[
        row(&["wait", "waiter"], Shape::Text, "Wait for every step before; a text is the label."),
        row(&["continue_on_failure"], Shape::Flag, "Go on even if a step before failed."),
        IF,
        BRANCHES,
        DEPENDS,
        KEY,
        LABEL,
        ALLOW,
        TYPE,
    ],
};

const PROMPT: Row = row(&["prompt"], Shape::Text, "Text of the dialog.");
const SUBMIT: Row = row(&["submit"], Shape::Text, "Text of the button.");
const FIELDS: Row = row(&["fields"], Shape::List(&FIELD), "What is asked.");
const STATE: Row = row(
    &["blocked_state"],
    Shape::Word(&["passed", "failed", "running"]),
    "The state that the build shows while it waits.",
);
const TEAMS: Row = row(&["allowed_teams"], TEXTS, "Teams of which only members may answer.");

/// The rows of a step that a person opens: its own, and what all of them have.
const fn gate(own: Row) -> [Row; 13] {
    [own, PROMPT, SUBMIT, FIELDS, STATE, TEAMS, BRANCHES, IF, DEPENDS, KEY, LABEL, ALLOW, TYPE]
}

/// A block step.
pub(crate) static BLOCK: Table = Table {
    name: "block_step",
    of: "a block step",
    unknown: Unknown::Ignored,
    rows: &gate(row(
        &["block", "manual"],
        Shape::Text,
        "Wait until a person lets the build go on; a text is the label.",
    )),
};

/// An input step.
pub(crate) static INPUT: Table = Table {
    name: "input_step",
    of: "an input step",
    unknown: Unknown::Ignored,
    rows: &gate(row(&["input"], Shape::Text, "Ask a person, and let other steps go on; a text is the label.")),
};

/// A trigger step.
pub(crate) static TRIGGER: Table = Table {
    name: "trigger_step",
    of: "a trigger step",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["trigger"], Shape::Text, "The slug of the pipeline to build."),
        row(&["build"], Shape::Map(&BUILD), "What the new build is made with."),
        LABEL,
        row(&["async"], Shape::Flag, "Do not wait for the new build."),
        BRANCHES,
        IF,
        IF_CHANGED_ROW,
        DEPENDS,
        KEY,
        ALLOW,
        SKIP_ROW,
        SOFT_ROW,
        row(&["parallelism"], Shape::Integer(0, 10_000), "How many builds are made."),
        TYPE,
    ],
};

/// A group.
pub(crate) static GROUP: Table = Table {
    name: "group_step",
    of: "a group",
    unknown: Unknown::Ignored,
    rows: &[
        row(&["group", "label", "name"], Shape::Text, "What people see."),
        required(&["steps"], Shape::Steps { groups: false }, "Its steps; no groups among them."),
        KEY,
        DEPENDS,
        ALLOW,
        IF,
        IF_CHANGED_ROW,
        SKIP_ROW,
        row(&["notify"], NOTIFIED, "Who hears of the group."),
        TYPE,
    ],
};
