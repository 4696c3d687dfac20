//! The attributes of the mappings within steps (reference 5, 6, 8, 10–13, and ours).

use super::{Shape, TEXTS, Table, Unknown, needed, ours, required, row};

pub(super) const AGENTS: Shape = Shape::Either(&[Shape::Variables, Shape::List(&Shape::Text)]);

/// A list of sources or of mappings from sources to settings; one mapping alone is the old form.
pub(super) const PLUGINS: Shape =
    Shape::Either(&[Shape::List(&Shape::Either(&[Shape::Text, Shape::AnyMap])), Shape::AnyMap]);

pub(super) const SECRETS: Shape =
    Shape::Either(&[Shape::List(&Shape::Either(&[Shape::Text, Shape::Map(&SECRET)])), Shape::Variables]);

pub(super) const FIELD: Shape = Shape::Either(&[Shape::Map(&TEXT_FIELD), Shape::Map(&SELECT_FIELD)]);

const STATUS: Shape = Shape::Integer(-1, 255);

const STATUSES: Shape = Shape::Either(&[Shape::Word(&["*"]), STATUS, Shape::List(&STATUS)]);

/// One entry of `depends_on`.
pub(crate) static DEPENDENCY: Table = Table {
    name: "dependency",
    of: "a dependency",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["step"], Shape::Text, "A step's or a group's key."),
        row(&["allow_failure"], Shape::Flag, "Its failure counts as passing."),
    ],
};

/// `build` of a trigger step.
pub(crate) static BUILD: Table = Table {
    name: "build",
    of: "`build`",
    unknown: Unknown::Refused,
    rows: &[
        row(&["branch"], Shape::Text, "The branch; the other pipeline's default branch if left out."),
        row(&["commit"], Shape::Text, "The commit; `HEAD` if left out."),
        row(&["message"], Shape::Text, "The message; the step's label if left out."),
        row(&["env"], Shape::Variables, "The new build's variables; nothing is inherited."),
        row(&["meta_data"], Shape::Variables, "The new build's meta-data."),
    ],
};

/// A text field of a block or input step.
pub(crate) static TEXT_FIELD: Table = Table {
    name: "text_field",
    of: "a text field",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["text"], Shape::Text, "The field's label."),
        required(&["key"], Shape::Text, "The name of the answer in the build's meta-data."),
        row(&["hint"], Shape::Text, "More for people."),
        row(&["required"], Shape::Flag, "Whether an empty answer is refused; true if left out."),
        row(&["default"], Shape::Text, "What stands there at first."),
        row(&["format"], Shape::Text, "A regular expression that the whole answer must match."),
    ],
};

/// A select field of a block or input step.
pub(crate) static SELECT_FIELD: Table = Table {
    name: "select_field",
    of: "a select field",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["select"], Shape::Text, "The field's label."),
        required(&["key"], Shape::Text, "The name of the answer in the build's meta-data."),
        required(&["options"], Shape::Some(&Shape::Map(&OPTION)), "What may be chosen."),
        row(&["hint"], Shape::Text, "More for people."),
        row(&["required"], Shape::Flag, "Whether something must be chosen; true if left out."),
        row(&["multiple"], Shape::Flag, "Whether several may be chosen."),
        row(&["default"], TEXTS, "What is chosen at first."),
    ],
};

/// An option of a select field.
pub(crate) static OPTION: Table = Table {
    name: "option",
    of: "an option",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["label"], Shape::Text, "What people see."),
        required(&["value"], Shape::Text, "What is stored."),
        row(&["hint"], Shape::Text, "More for people."),
        row(&["required"], Shape::Flag, "It must be chosen."),
    ],
};

/// `matrix` as a mapping.
pub(crate) static MATRIX: Table = Table {
    name: "matrix",
    of: "`matrix`",
    unknown: Unknown::Refused,
    rows: &[
        required(
            &["setup"],
            Shape::Either(&[Shape::List(&Shape::Text), Shape::MapOf(&Shape::List(&Shape::Text))]),
            "The values: one list, or one for each named dimension.",
        ),
        row(&["adjustments"], Shape::List(&Shape::Map(&ADJUSTMENT)), "Combinations that are changed or added."),
    ],
};

/// One of `matrix.adjustments`.
pub(crate) static ADJUSTMENT: Table = Table {
    name: "adjustment",
    of: "an adjustment",
    unknown: Unknown::Refused,
    rows: &[
        required(
            &["with"],
            Shape::Either(&[Shape::Text, Shape::List(&Shape::Text), Shape::Variables]),
            "The combination.",
        ),
        row(&["skip"], Shape::Either(&[Shape::Flag, Shape::Text]), "Do not run it; a text says why."),
        row(
            &["soft_fail"],
            Shape::Either(&[
                Shape::Flag,
                Shape::List(&Shape::Either(&[Shape::Map(&SOFT_FAIL), Shape::Integer(-1, 255)])),
            ]),
            "Failures that do not fail the build.",
        ),
    ],
};

/// `if_changed` as a mapping.
pub(crate) static IF_CHANGED: Table = Table {
    name: "if_changed",
    of: "`if_changed`",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["include"], TEXTS, "Globs of files, one of which must have changed."),
        row(&["exclude"], TEXTS, "Globs of files that do not count."),
    ],
};

/// `retry`.
pub(crate) static RETRY: Table = Table {
    name: "retry",
    of: "`retry`",
    unknown: Unknown::Refused,
    rows: &[
        row(
            &["automatic"],
            Shape::Either(&[Shape::Flag, Shape::Map(&AUTOMATIC), Shape::List(&Shape::Map(&AUTOMATIC))]),
            "Rules; the first that matches decides.",
        ),
        row(&["manual"], Shape::Either(&[Shape::Flag, Shape::Map(&MANUAL)]), "Whether a person may retry."),
    ],
};

/// One rule of `retry.automatic`.
pub(crate) static AUTOMATIC: Table = Table {
    name: "automatic",
    of: "a rule of `automatic`",
    // An unknown condition that is dropped would make the rule match more than it says.
    unknown: Unknown::Refused,
    rows: &[
        row(&["exit_status"], STATUSES, "Which exit statuses; -1 is a lost agent."),
        row(&["signal"], TEXTS, "Which signals, by name."),
        row(
            &["signal_reason"],
            Shape::Either(&[SIGNAL_REASON, Shape::List(&SIGNAL_REASON)]),
            "Why the process was ended.",
        ),
        row(&["limit"], Shape::Integer(0, 10), "How often the rule may retry; 2 if left out."),
        ours(&["cause"], TEXTS, "Which of Windlass's causes."),
    ],
};

const SIGNAL_REASON: Shape = Shape::Word(&[
    "*",
    "none",
    "cancel",
    "agent_stop",
    "agent_refused",
    "agent_incompatible",
    "process_run_error",
    "signature_rejected",
    "stack_error",
]);

/// `retry.manual`.
pub(crate) static MANUAL: Table = Table {
    name: "manual",
    of: "`retry.manual`",
    unknown: Unknown::Refused,
    rows: &[
        row(&["allowed"], Shape::Flag, "Whether a person may retry; true if left out."),
        row(&["permit_on_passed"], Shape::Flag, "Also when it passed; true if left out."),
        row(&["reason"], Shape::Text, "Why not."),
    ],
};

/// One of `soft_fail`.
pub(crate) static SOFT_FAIL: Table = Table {
    name: "soft_fail",
    of: "`soft_fail`",
    unknown: Unknown::Ignored,
    rows: &[row(&["exit_status"], STATUSES, "Which exit statuses.")],
};

/// One of `secrets`.
pub(crate) static SECRET: Table = Table {
    name: "secret",
    of: "a secret",
    unknown: Unknown::Ignored,
    rows: &[
        required(&["key"], Shape::Text, "The secret's name."),
        row(&["environment_variable"], Shape::Text, "The variable's name; the secret's if left out."),
    ],
};

/// `checkout`.
pub(crate) static CHECKOUT: Table = Table {
    name: "checkout",
    of: "`checkout`",
    unknown: Unknown::Ignored,
    rows: &[
        row(&["skip"], Shape::Flag, "Check out nothing."),
        row(&["submodules"], Shape::Flag, "With submodules."),
        row(&["lfs"], Shape::Flag, "With large files."),
        row(&["depth"], Shape::Integer(1, u32::MAX as i64), "Only so many commits."),
        row(&["flags"], Shape::Map(&FLAGS), "Flags of git's commands."),
        row(&["sparse"], Shape::Map(&SPARSE), "Only some paths."),
        row(&["ssh_secret"], Shape::Text, "The secret that holds the key."),
        row(
            &["commit_verification"],
            Shape::Word(&["strict", "warn", "off"]),
            "Whether the commit must be the build's.",
        ),
    ],
};

/// `checkout.flags`.
pub(crate) static FLAGS: Table = Table {
    name: "flags",
    of: "`checkout.flags`",
    unknown: Unknown::Ignored,
    rows: &[
        row(&["clone"], Shape::Text, "Of `git clone`."),
        row(&["fetch"], Shape::Text, "Of `git fetch`."),
        row(&["checkout"], Shape::Text, "Of `git checkout`."),
        row(&["clean"], Shape::Text, "Of `git clean`."),
    ],
};

/// `checkout.sparse`.
pub(crate) static SPARSE: Table = Table {
    name: "sparse",
    of: "`checkout.sparse`",
    unknown: Unknown::Ignored,
    rows: &[row(&["paths"], TEXTS, "The paths.")],
};

/// `cache` as a mapping.
pub(crate) static CACHE: Table = Table {
    name: "cache",
    of: "`cache`",
    unknown: Unknown::Kept,
    rows: &[
        required(&["paths"], TEXTS, "Directories."),
        row(&["name"], Shape::Text, "The volume's name."),
        row(&["size"], Shape::Text, "The volume's size, such as `20g`."),
        ours(&["key"], Shape::Text, "A template that names the content: with it, the cache is kept by key."),
        ours(&["restore_keys"], TEXTS, "Templates of keys that will do if there is nothing under `key`."),
    ],
};

/// `reuse`. Ours.
pub(crate) static REUSE: Table = Table {
    name: "reuse",
    of: "`reuse`",
    unknown: Unknown::Refused,
    rows: &[
        ours(&["inputs"], TEXTS, "Globs of the files that the step reads; all of the source if left out."),
        ours(&["artifacts"], TEXTS, "Earlier steps' artifacts that it reads; `*` is any run of characters."),
        ours(
            &["blobs"],
            Shape::List(&Shape::Map(&BLOB)),
            "Blobs of the cache that it reads, each by its digest; they lie at their paths beside the inputs.",
        ),
        ours(&["outputs"], TEXTS, "Globs of the files that it makes."),
        ours(&["env"], TEXTS, "Names of the variables that it reads, beside those that the pipeline sets."),
        ours(
            &["secrets"],
            Shape::Flag,
            "Reuse the step though it has secrets: their versions count, not their values.",
        ),
        ours(&["verify"], Shape::Text, "How many of its hits run all the same and are compared, such as `1%`."),
    ],
};

/// One of `reuse.blobs`. Ours.
pub(crate) static BLOB: Table = Table {
    name: "blob",
    of: "a blob",
    unknown: Unknown::Refused,
    rows: &[
        needed(&["path"], Shape::Text, "Where it lies, within the source."),
        needed(&["digest"], Shape::Text, "`b3:` or `sha256:`, and 64 hex digits."),
        ours(&["executable"], Shape::Flag, "It may be executed."),
    ],
};

/// `resources`. Ours.
pub(crate) static RESOURCES: Table = Table {
    name: "resources",
    of: "`resources`",
    unknown: Unknown::Refused,
    rows: &[
        ours(&["cpus"], Shape::Text, "Processors, such as `2` or `0.5`."),
        ours(&["memory"], Shape::Text, "Memory, such as `4GiB`."),
    ],
};

/// One entry of `notify`.
pub(crate) static NOTIFY: Table = Table {
    name: "notification",
    of: "`notify`",
    unknown: Unknown::Kept,
    rows: &[
        row(&["email"], Shape::Text, "An address."),
        row(&["slack"], Shape::Either(&[Shape::Text, Shape::Map(&SLACK)]), "A channel, or several with a message."),
        row(&["webhook"], Shape::Text, "A URL."),
        row(&["basecamp_campfire"], Shape::Text, "A URL."),
        row(&["pagerduty_change_event"], Shape::Text, "An integration key."),
        row(&["github_commit_status"], Shape::AnyMap, "A commit status and its context."),
        row(&["github_check"], Shape::AnyMap, "A check run."),
        row(&["if"], Shape::Text, "A condition, decided when the event happens."),
    ],
};

/// `slack` as a mapping.
pub(crate) static SLACK: Table = Table {
    name: "slack",
    of: "`slack`",
    unknown: Unknown::Ignored,
    rows: &[required(&["channels"], TEXTS, "The channels."), row(&["message"], Shape::Text, "The message.")],
};
