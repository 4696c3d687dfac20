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

const JOB: Flag =
    flag("job", Takes::Text, "BUILDKITE_JOB_ID", "", "Which job it is for: the command's own, and no other");
const BUILD: Flag = flag("build", Takes::Text, "", "", "Another build of the same pipeline");
const STEP: Flag = flag("step", Takes::Text, "", "", "The step, by key or id; the job's own by default");
const STEP_OF: Flag =
    flag("step", Takes::Text, "", "", "Only of this step: its key, its label, or the id of one of its jobs");
const CONTEXT: Flag = flag(
    "context",
    Takes::Text,
    "BUILDKITE_ANNOTATION_CONTEXT",
    "default",
    "Which annotation: one of the same context takes the place of an earlier one",
);
const SCOPE: Flag = flag("scope", Takes::Text, "BUILDKITE_ANNOTATION_SCOPE", "build", "What it is about: build or job");
const RETRIED: Flag = flag(
    "include-retried-jobs",
    Takes::Nothing,
    "BUILDKITE_AGENT_INCLUDE_RETRIED_JOBS",
    "",
    "Artifacts of earlier attempts too",
);

const CACHE: &[Flag] = &[
    flag("name", Takes::Texts, "BUILDKITE_CACHE_NAME", "", "Which of the file's caches; all by default"),
    flag("registry", Takes::Text, "BUILDKITE_CACHE_REGISTRY", "~", "Caches of other registries are other caches"),
    flag(
        "cache-store-url",
        Takes::Text,
        "BUILDKITE_AGENT_CACHE_STORE_URL",
        "",
        "Has no meaning here: the coordinator keeps caches",
    ),
    flag(
        "cache-config-file",
        Takes::Text,
        "BUILDKITE_CACHE_CONFIG_FILE",
        "",
        "The file that names the caches (default: .buildkite/cache.yml or .buildkite/cache.yaml)",
    ),
    flag(
        "concurrency",
        Takes::Number,
        "BUILDKITE_CACHE_CONCURRENCY",
        "2",
        "Has no meaning here: one cache comes after the other",
    ),
    flag("of-step", Takes::Nothing, "", "", "The cache that the step names itself, and none of a file"),
];

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
    command(
        &["meta-data", "set"],
        "<key> [value]",
        "Set data on a build",
        "Sets a value that other jobs of the build can read. Without an argument the value is the input. The last write wins.",
        &[JOB],
    ),
    command(
        &["meta-data", "set-batch"],
        "<key=value>...",
        "Set several values of data on a build",
        "Sets several values at once: all of them, or none.",
        &[JOB],
    ),
    command(
        &["meta-data", "get"],
        "<key>",
        "Get data from a build",
        "Prints the value of a key. Where there is none it fails, or prints the default.",
        &[flag("default", Takes::Text, "", "", "What to print where there is no value"), JOB, BUILD],
    ),
    command(
        &["meta-data", "exists"],
        "<key>",
        "Check to see if the meta data key exists for a build",
        "Ends with status 0 where the key has a value, and with 100 where it has none.",
        &[JOB, BUILD],
    ),
    command(
        &["meta-data", "keys"],
        "",
        "Lists all meta-data keys that have been previously set",
        "Prints all keys, one on each line.",
        &[JOB, BUILD],
    ),
    command(
        &["annotate"],
        "[body]",
        "Annotate the build page with information from within a Buildkite job",
        "Puts a text in Markdown beside the build. Without an argument the text is the input; without a text, only the\n\
         style changes.",
        &[
            CONTEXT,
            flag(
                "style",
                Takes::Text,
                "BUILDKITE_ANNOTATION_STYLE",
                "",
                "How it looks: success, info, warning or error",
            ),
            flag("append", Takes::Nothing, "BUILDKITE_ANNOTATION_APPEND", "", "Add to the annotation of this context"),
            flag(
                "priority",
                Takes::Number,
                "BUILDKITE_ANNOTATION_PRIORITY",
                "",
                "Where it stands, 1 to 10; 10 is first, and 3 where nothing else was said",
            ),
            SCOPE,
            JOB,
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
        &["annotation", "remove"],
        "",
        "Remove an existing annotation from a Buildkite build",
        "Takes the annotation of this context away.",
        &[CONTEXT, SCOPE, JOB],
    ),
    command(
        &["pipeline", "upload"],
        "[file...]",
        "Uploads a description of a build pipeline and adds it to the currently running build after the current job",
        "Adds the steps of a pipeline to the build, right after the command's own job. Without a file it is the input, or\n\
         the one file that is there of .windlass/pipeline.yml and buildkite.yml, .buildkite/pipeline.yml,\n\
         buildkite/pipeline.yml and their like that end with yaml or json.",
        &[
            flag(
                "replace",
                Takes::Nothing,
                "BUILDKITE_PIPELINE_REPLACE",
                "",
                "Steps after this job's that have not started go",
            ),
            JOB,
            flag("dry-run", Takes::Nothing, "BUILDKITE_PIPELINE_UPLOAD_DRY_RUN", "", "Show what would be uploaded"),
            flag(
                "format",
                Takes::Text,
                "BUILDKITE_PIPELINE_UPLOAD_DRY_RUN_FORMAT",
                "json",
                "With --dry-run: json or yaml",
            ),
            flag("no-interpolation", Takes::Nothing, "BUILDKITE_PIPELINE_NO_INTERPOLATION", "", "Put no variables in"),
            flag(
                "allow-secrets",
                Takes::Nothing,
                "BUILDKITE_AGENT_PIPELINE_UPLOAD_ALLOW_SECRETS",
                "",
                "Upload what holds secrets",
            ),
            flag(
                "reject-secrets",
                Takes::Nothing,
                "BUILDKITE_AGENT_PIPELINE_UPLOAD_REJECT_SECRETS",
                "",
                "Is so anyway",
            ),
            flag(
                "reject-parse-warnings",
                Takes::Nothing,
                "BUILDKITE_AGENT_PIPELINE_UPLOAD_REJECT_PARSE_WARNINGS",
                "",
                "Warnings are errors",
            ),
            flag(
                "apply-if-changed",
                Takes::Nothing,
                "BUILDKITE_AGENT_APPLY_IF_CHANGED",
                "true",
                "Decide if_changed; where files are not known, every step runs",
            ),
            flag("git-diff-base", Takes::Text, "BUILDKITE_GIT_DIFF_BASE", "", "What files are compared with"),
            flag("fetch-diff-base", Takes::Nothing, "BUILDKITE_FETCH_DIFF_BASE", "", "Fetch it first"),
            flag(
                "changed-files-path",
                Takes::Text,
                "BUILDKITE_CHANGED_FILES_PATH",
                "",
                "A file that names the changed files",
            ),
            flag(
                "redacted-vars",
                Takes::Texts,
                "BUILDKITE_REDACTED_VARS",
                "",
                "Patterns of names whose values are secret",
            ),
            flag("jwks-file", Takes::Text, "", "", "Signed pipelines are not served"),
            flag("jwks-key-id", Takes::Text, "", "", "Signed pipelines are not served"),
            flag("signing-aws-kms-key", Takes::Text, "", "", "Signed pipelines are not served"),
            flag("signing-gcp-kms-key", Takes::Text, "", "", "Signed pipelines are not served"),
            flag("debug-signing", Takes::Nothing, "", "", "Signed pipelines are not served"),
        ],
    ),
    command(
        &["step", "get"],
        "[attribute]",
        "Get the value of an attribute",
        "Prints an attribute of a step: agents, command, concurrency_key, concurrency_limit, depends_on, env, id, key,\n\
         label, notify, outcome, parallelism, priority, state, timeout or type. Lists and mappings, and the whole step, are\n\
         printed as JSON only.",
        &[STEP, BUILD, flag("format", Takes::Text, "BUILDKITE_STEP_GET_FORMAT", "", "json for any value")],
    ),
    command(
        &["step", "update"],
        "<attribute> [value]",
        "Change the value of an attribute",
        "Changes label, priority, notify or parallelism of a step. Without an argument the value is the input.",
        &[STEP, flag("append", Takes::Nothing, "BUILDKITE_STEP_UPDATE_APPEND", "", "Add to what is there")],
    ),
    command(
        &["step", "cancel"],
        "",
        "Cancel all unfinished jobs for a step",
        "Cancels every job of a step that has not ended.",
        &[
            STEP,
            flag(
                "force",
                Takes::Nothing,
                "BUILDKITE_STEP_CANCEL_FORCE",
                "",
                "Do not wait for jobs to end by themselves",
            ),
            flag(
                "force-grace-period-seconds",
                Takes::Number,
                "BUILDKITE_STEP_CANCEL_FORCE_GRACE_PERIOD_SECONDS",
                "15",
                "With --force: how long jobs may take",
            ),
        ],
    ),
    command(
        &["build", "cancel"],
        "",
        "Cancel a build",
        "Cancels the build that the command's job belongs to.",
        &[flag("build", Takes::Text, "BUILDKITE_BUILD_ID", "", "The job's own build, and no other")],
    ),
    command(
        &["artifact", "upload"],
        "<paths> [destination]",
        "Uploads files to a job as artifacts",
        "Uploads the files that one of several patterns between semicolons describes. A file below the working directory is\n\
         known by its path from there, any other by its whole path.",
        &[
            JOB,
            flag(
                "content-type",
                Takes::Text,
                "BUILDKITE_ARTIFACT_CONTENT_TYPE",
                "",
                "Such as text/plain; by the name's end otherwise",
            ),
            flag("literal", Takes::Nothing, "BUILDKITE_AGENT_ARTIFACT_LITERAL", "", "The paths are no patterns"),
            flag("delimiter", Takes::Text, "BUILDKITE_AGENT_ARTIFACT_DELIMITER", ";", "What stands between patterns"),
            flag(
                "glob-resolve-follow-symlinks",
                Takes::Nothing,
                "BUILDKITE_AGENT_ARTIFACT_GLOB_RESOLVE_FOLLOW_SYMLINKS",
                "",
                "Look into linked directories",
            ),
            flag(
                "upload-skip-symlinks",
                Takes::Nothing,
                "BUILDKITE_ARTIFACT_UPLOAD_SKIP_SYMLINKS",
                "",
                "Leave links out",
            ),
            flag(
                "no-multipart-artifact-upload",
                Takes::Nothing,
                "BUILDKITE_NO_MULTIPART_ARTIFACT_UPLOAD",
                "",
                "Has no meaning here",
            ),
            flag("concurrency", Takes::Number, "BUILDKITE_ARTIFACT_UPLOAD_CONCURRENCY", "", "Has no meaning here"),
        ],
    ),
    command(
        &["artifact", "download"],
        "<query> <destination>",
        "Downloads artifacts from Buildkite to the local machine",
        "Downloads the newest artifact of each path that the query finds, below a directory that exists. In a query * is any\n\
         run of characters, / too.",
        &[STEP_OF, BUILD, RETRIED],
    ),
    command(
        &["artifact", "search"],
        "<query>",
        "Searches artifacts in Buildkite",
        "Prints a record for each artifact of the build that the query finds. In the format, %i is its id, %p its path, %c\n\
         when it was made, %j its job, %s its size in bytes, %S its SHA-1, %T its SHA-256 and %u its URL.",
        &[
            STEP_OF,
            BUILD,
            RETRIED,
            flag(
                "allow-empty-results",
                Takes::Nothing,
                "BUILDKITE_AGENT_ARTIFACT_ALLOW_EMPTY_RESULTS",
                "",
                "Nothing found is no failure",
            ),
            flag("format", Takes::Text, "", "%j %p %c\n", "How each is shown"),
        ],
    ),
    command(
        &["artifact", "shasum"],
        "<query>",
        "Prints the SHA-1 hash for a single artifact specified by a search query",
        "Prints the SHA-1 of the one artifact that a query finds.",
        &[
            flag("sha256", Takes::Nothing, "BUILDKITE_ARTIFACT_SHASUM_SHA256", "", "SHA-256 in place of SHA-1"),
            STEP_OF,
            BUILD,
            RETRIED,
        ],
    ),
    command(
        &["secret", "get"],
        "<key>...",
        "Get a secret by its key",
        "Prints secrets, and redacts them from the log.",
        &[
            flag("format", Takes::Text, "BUILDKITE_AGENT_SECRET_GET_FORMAT", "default", "default, json or env"),
            flag(
                "skip-redaction",
                Takes::Nothing,
                "BUILDKITE_AGENT_SECRET_GET_SKIP_SECRET_REDACTION",
                "",
                "Do not redact",
            ),
            JOB,
        ],
    ),
    command(
        &["oidc", "request-token"],
        "",
        "Requests and prints an OIDC token from Buildkite with the specified audience",
        "Prints a signed token that says which job this is, for services that trust the coordinator. Every log shows it\n\
         redacted.",
        &[
            flag("audience", Takes::Text, "", "", "For whom it is"),
            flag("lifetime", Takes::Number, "", "0", "For how many seconds"),
            flag("subject-claim", Takes::Text, "", "", "What stands in its subject"),
            flag("claim", Takes::Texts, "BUILDKITE_OIDC_TOKEN_CLAIMS", "", "Claims to add"),
            flag(
                "aws-session-tag",
                Takes::Texts,
                "BUILDKITE_OIDC_TOKEN_AWS_SESSION_TAGS",
                "",
                "Claims that become session tags",
            ),
            flag("format", Takes::Text, "", "jwt", "jwt or gcp"),
            flag(
                "skip-redaction",
                Takes::Nothing,
                "BUILDKITE_AGENT_OIDC_REQUEST_TOKEN_SKIP_TOKEN_REDACTION",
                "",
                "Has no meaning here: tokens are redacted always",
            ),
            JOB,
        ],
    ),
    command(
        &["cache", "save"],
        "[options]",
        "Saves files to the cache",
        "Saves the directories of caches under their keys. What is saved under a key already stays as it is. What cannot be\n\
         saved is said, and is no failure.",
        CACHE,
    ),
    command(
        &["cache", "restore"],
        "[options]",
        "Restores files from the cache",
        "Restores the directories of caches by their keys; they take the place of what is there. Nothing saved under a key is\n\
         no failure.",
        CACHE,
    ),
    command(
        &["job", "update"],
        "<attribute> <value>",
        "Change the value of an attribute of a job",
        "Changes the timeout of a job, in minutes.",
        &[JOB],
    ),
    command(
        &["job", "promise-failure"],
        "<status>",
        "Promise that the job will fail",
        "Declares a status below which the job's outcome will not be.",
        &[flag("reason", Takes::Text, "", "", "Why"), JOB],
    ),
];
