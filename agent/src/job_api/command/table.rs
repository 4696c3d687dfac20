//! The commands of a job with their flags (reference 19), as tables.

use crate::job_api::flags::{Flag, Takes, flag};

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    /// The words that call it.
    pub(super) path: &'static [&'static str],
    /// What follows them.
    pub(super) form: &'static str,
    /// What it does, in a list.
    pub(super) summary: &'static str,
    /// What it does, in full.
    pub(super) about: &'static str,
    /// What it may be told, beside [`GLOBAL`].
    pub(super) flags: &'static [Flag],
}

const fn command(
    path: &'static [&'static str],
    form: &'static str,
    summary: &'static str,
    about: &'static str,
    flags: &'static [Flag],
) -> Command {
    Command { path, form, summary, about, flags }
}

/// Commands with commands below them.
pub(super) const GROUPS: &[(&str, &str)] = &[
    ("annotation", "Make changes to annotations on the currently running build"),
    ("artifact", "Upload/download artifacts from Buildkite jobs"),
    ("build", "Interact with the build that a job belongs to"),
    ("cache", "Save and restore directories between builds"),
    ("env", "Interact with the environment of the currently running job"),
    ("job", "Interact with a job"),
    ("lock", "Lock or unlock resources for the current agent"),
    ("meta-data", "Get/set data from jobs"),
    ("oidc", "Interact with OpenID Connect (OIDC)"),
    ("pipeline", "Make changes to the pipeline of the currently running build"),
    ("redactor", "Redact sensitive information from logs"),
    ("secret", "Interact with secrets"),
    ("step", "Get or update an attribute of a build step, or cancel unfinished jobs for a step"),
    ("workdir", "Change the working directory of the job's next phases"),
];

/// What every command takes. Access tokens, endpoints and HTTP have no meaning here: scripts that give them go on working.
pub(super) const GLOBAL: &[Flag] = &[
    flag("agent-access-token", Takes::Text, "", "", "Has no meaning here: the job's socket stands for it"),
    flag("endpoint", Takes::Text, "", "", "Has no meaning here: the job's socket stands for it"),
    flag("no-http2", Takes::Nothing, "", "", "Has no meaning here"),
    flag("debug-http", Takes::Nothing, "", "", "Has no meaning here"),
    flag("trace-context-encoding", Takes::Text, "", "", "Has no meaning here"),
    flag("no-color", Takes::Nothing, "BUILDKITE_AGENT_NO_COLOR", "", "Don't show colors in logging"),
    flag("debug", Takes::Nothing, "BUILDKITE_AGENT_DEBUG", "", "Say more about what goes wrong"),
    flag(
        "log-level",
        Takes::Text,
        "BUILDKITE_AGENT_LOG_LEVEL",
        "notice",
        "What is said: debug, info, notice, warn, error, fatal",
    ),
    flag("experiment", Takes::Texts, "BUILDKITE_AGENT_EXPERIMENT", "", "Has no meaning here"),
    flag("profile", Takes::Text, "BUILDKITE_AGENT_PROFILE", "", "Has no meaning here"),
];

const LOCK_SCOPE: Flag = flag(
    "lock-scope",
    Takes::Text,
    "BUILDKITE_LOCK_SCOPE",
    "machine",
    "The scope for locks used in this operation. Only 'machine' is supported",
);
const SOCKETS_PATH: Flag = flag("sockets-path", Takes::Text, "BUILDKITE_SOCKETS_PATH", "", "Has no meaning here");
const LOCK_WAIT: Flag = flag(
    "lock-wait-timeout",
    Takes::Time,
    "BUILDKITE_LOCK_WAIT_TIMEOUT",
    "",
    "Sets a maximum duration to wait for a lock before giving up",
);
const LOCK: &[Flag] = &[LOCK_SCOPE, SOCKETS_PATH];
const LOCK_THAT_WAITS: &[Flag] = &[LOCK_WAIT, LOCK_SCOPE, SOCKETS_PATH];

/// All commands.
pub(super) const COMMANDS: &[Command] = &[
    command(
        &["env", "get"],
        "[variables]",
        "Gets variables from the job execution environment",
        "Prints environment variables as the job's next phase will have them: all as NAME=value, one as its value alone,\n\
         several as NAME=value. One that is not set makes the command fail.",
        &[flag(
            "format",
            Takes::Text,
            "BUILDKITE_AGENT_ENV_GET_FORMAT",
            "plain",
            "Output format: plain, json, or json-pretty",
        )],
    ),
    command(
        &["env", "set"],
        "[variables]",
        "Sets variables in the job execution environment",
        "Sets environment variables, given as NAME=value, for the phases of the job that follow this one. A dash reads them\n\
         from the input, one a line. Variables that are protected cannot be set, and then none is.",
        &[
            flag(
                "input-format",
                Takes::Text,
                "BUILDKITE_AGENT_ENV_SET_INPUT_FORMAT",
                "plain",
                "Input format: plain or json",
            ),
            flag(
                "output-format",
                Takes::Text,
                "BUILDKITE_AGENT_ENV_SET_OUTPUT_FORMAT",
                "plain",
                "Output format: quiet (no output), plain, json, or json-pretty",
            ),
        ],
    ),
    command(
        &["env", "unset"],
        "[variables]",
        "Unsets variables from the job execution environment",
        "Takes environment variables away from the phases of the job that follow this one. A dash reads their names from the\n\
         input, one a line. Variables that are protected cannot be unset, and then none is.",
        &[
            flag(
                "input-format",
                Takes::Text,
                "BUILDKITE_AGENT_ENV_UNSET_INPUT_FORMAT",
                "plain",
                "Input format: plain or json",
            ),
            flag(
                "output-format",
                Takes::Text,
                "BUILDKITE_AGENT_ENV_UNSET_OUTPUT_FORMAT",
                "plain",
                "Output format: quiet (no output), plain, json, or json-pretty",
            ),
        ],
    ),
    command(
        &["env", "dump"],
        "[options]",
        "Print the environment of the current process as a JSON object",
        "Prints the environment of the command's own process as one JSON object.",
        &[flag("format", Takes::Text, "BUILDKITE_AGENT_ENV_DUMP_FORMAT", "json", "Output format; json or json-pretty")],
    ),
    command(
        &["workdir", "set"],
        "<path>",
        "Sets the working directory of the job's next phases",
        "Sets the directory in which the phases of the job that follow this one begin.",
        &[],
    ),
    command(
        &["redactor", "add"],
        "[options...] [file-with-content-to-redact]",
        "Add values to redact from a job's log output",
        "Reads a file, or the input, and redacts from the job's log what is in it: the whole of it without surrounding white\n\
         space, or each value of a JSON object. When the command has ended, everything that follows in the log is redacted.",
        &[
            flag(
                "format",
                Takes::Text,
                "BUILDKITE_AGENT_REDACT_ADD_FORMAT",
                "none",
                "The format for the input: json, an object whose every value is redacted, or none",
            ),
            flag(
                "apply-vars-filter",
                Takes::Nothing,
                "BUILDKITE_AGENT_REDACT_ADD_APPLY_VARS_FILTER",
                "",
                "With json, redact only values whose names are those of secrets, and that have 6 bytes or more",
            ),
            flag(
                "redacted-vars",
                Takes::Texts,
                "BUILDKITE_REDACTED_VARS",
                "",
                "Patterns of names whose values are secret",
            ),
        ],
    ),
    command(
        &["lock", "acquire"],
        "<key>",
        "Acquires a lock from the agent leader",
        "Waits until nobody holds the lock with this key, takes it, and prints a token, with which it is released. A lock is\n\
         not released when its job ends.",
        LOCK_THAT_WAITS,
    ),
    command(
        &["lock", "release"],
        "<key> <token>",
        "Releases a previously-acquired lock",
        "Releases the lock with this key; the token is what `lock acquire` printed.",
        LOCK,
    ),
    command(
        &["lock", "do"],
        "<key>",
        "Begins a do-once lock",
        "Prints `do` to the first that asks for this key, who does the work and calls `lock done`; to all others it prints\n\
         `done` as soon as that is so.",
        LOCK_THAT_WAITS,
    ),
    command(&["lock", "done"], "<key>", "Completes a do-once lock", "Marks the work of this key as done.", LOCK),
    command(
        &["lock", "get"],
        "<key>",
        "Gets a lock value from the agent leader",
        "Prints the value of the lock with this key: a token, `doing`, `done`, or an empty line where it is free.",
        LOCK,
    ),
];
