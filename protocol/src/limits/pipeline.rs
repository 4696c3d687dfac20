//! Bounds of a pipeline's text, of the values in it, and of what becomes of it.

use super::JOBS_PER_BUILD_MAX;

/// A name of a pipeline, pool, zone, queue, tag or branch.
pub const NAME_MAX_BYTES: usize = 200;

/// A step's command.
pub const COMMAND_MAX_BYTES: usize = 256 << 10;

/// A job's whole environment: names and values.
pub const ENV_MAX_BYTES: usize = 256 << 10;

/// Variables of a job's environment: each costs 16 bytes of an offer beside its own, and an offer fits in a frame.
pub const ENV_VARS_MAX: usize = 16_384;

/// A container image by reference: host, path, tag and digest.
pub const IMAGE_REF_MAX_BYTES: usize = 1_024;

/// A repository's URL.
pub const URL_MAX_BYTES: usize = 4 << 10;

/// A build's message (buildkite.md 17.2).
pub const MESSAGE_MAX_BYTES: usize = 64 << 10;

/// A detail in a cause or a refusal.
pub const DETAIL_MAX_BYTES: usize = 4 << 10;

/// A pipeline's text.
pub const PIPELINE_MAX_BYTES: usize = 4 << 20;

/// Values of a pipeline's file with its aliases copied out: a hundred for each of the most jobs a build may have.
pub const PIPELINE_NODES_MAX: usize = 100 * JOBS_PER_BUILD_MAX;

/// Text of a pipeline's file with its aliases copied out, and text that interpolation may make: an alias bomb ends here.
pub const PIPELINE_EXPANDED_MAX_BYTES: usize = 8 * PIPELINE_MAX_BYTES;

/// Lists and mappings within each other; readers walk them by recursion.
pub const PIPELINE_DEPTH_MAX: usize = 64;

/// Pipelines that a coordinator compiles at once; others wait for their turn.
pub const COMPILES_MAX: usize = 2;

/// Documents in one pipeline file (buildkite.md 23: uploads per build).
pub const PIPELINE_DOCUMENTS_MAX: usize = 500;

/// What is said about one pipeline; more helps nobody.
pub const PIPELINE_DIAGNOSTICS_MAX: usize = 500;

/// The expression of one `if`: the longest that people write are a tenth of it, and ten thousand must be read quickly.
pub const CONDITION_MAX_BYTES: usize = 16 << 10;

/// Operators, brackets, templates and groups of a regular expression within each other; readers walk them by recursion.
pub const CONDITION_DEPTH_MAX: usize = 48;

/// Text that one expansion within an expression may make: the largest message of a build many times over.
pub const CONDITION_TEXT_MAX_BYTES: usize = 1 << 20;

/// Bytes that are looked at to find where templates end, over one expression; nested and broken ones are looked at again.
pub const CONDITION_SCAN_MAX_BYTES: usize = 1 << 20;

/// How often a regular expression repeats something by number, repetitions within each other multiplied (as RE2 has it).
pub const REGEX_REPEATS_MAX: u32 = 1_000;

/// A regular expression's program in memory.
pub const REGEX_MAX_BYTES: usize = 1 << 20;

/// The programs of all formats of one gate together. A match takes as many steps as a program has states for each byte of
/// the answer: with the next limit, a fraction of a second for all of them.
pub const GATE_REGEX_MAX_BYTES: usize = 256 << 10;

/// An answer that has to match a format: what people type into one line, many times over.
pub const FORMATTED_ANSWER_MAX_BYTES: usize = 4 << 10;

/// Different formats of the fields of one pipeline: more than anybody writes, and seconds at most to try them all.
pub const FORMATS_MAX: usize = 200;

/// Steps back in one match, times the bytes that each may look at again: under a second (buildkite.md 15.5).
pub const REGEX_EFFORT_MAX: usize = 1 << 28;

/// A pattern of paths or branches, its alternatives written out.
pub const GLOB_MAX_BYTES: usize = 4 << 10;

/// Braces of a pattern of paths within each other; readers walk them by recursion.
pub const GLOB_DEPTH_MAX: usize = 16;

/// Dependencies of all jobs of one build: wide steps that wait for each other multiply.
pub const EDGES_PER_BUILD_MAX: usize = 50 * JOBS_PER_BUILD_MAX;

/// Options of a select field, and values that are chosen at first.
pub const OPTIONS_MAX: usize = 1_000;

/// Visits of steps while the dependencies of a build are found: what is waited for through merged steps and uploads.
pub const LINK_VISITS_MAX: usize = 20 * EDGES_PER_BUILD_MAX;

/// Commands and variables of all jobs of one build together: it is stored, and held in memory while the build runs.
pub const GRAPH_MAX_BYTES: usize = 64 << 20;

/// A step's key, in characters (buildkite.md 3.3).
pub const STEP_KEY_MAX_CHARS: usize = 100;

/// The reason why a step is skipped, in characters (buildkite.md 23).
pub const SKIP_REASON_MAX_CHARS: usize = 70;

/// Dimensions of a matrix (buildkite.md 23).
pub const MATRIX_DIMENSIONS_MAX: usize = 6;

/// Values of one dimension of a matrix (buildkite.md 23).
pub const MATRIX_VALUES_MAX: usize = 25;

/// A value or a dimension's name of a matrix (buildkite.md 23).
pub const MATRIX_VALUE_MAX_BYTES: usize = 128;

/// Adjustments of a matrix (buildkite.md 23).
pub const MATRIX_ADJUSTMENTS_MAX: usize = 12;

/// Jobs of one matrix (buildkite.md 23).
pub const MATRIX_JOBS_MAX: usize = 50;

/// A concurrency group's name, in characters (buildkite.md 23).
pub const CONCURRENCY_GROUP_MAX_CHARS: usize = 200;

/// Teams that may open one gate (buildkite.md 23).
pub const ALLOWED_TEAMS_MAX: usize = 100;

/// Questions of one gate: more than anybody answers.
pub const FIELDS_MAX: usize = 100;

/// Entries of one `notify`: each may become a delivery with every event.
pub const NOTIFY_LIST_MAX: usize = 100;

/// Plugins of one step: each is fetched and has hooks that run.
pub const PLUGINS_MAX: usize = 100;

/// The least memory a step may ask for: less than this is a number whose unit was forgotten, and no process starts in it.
pub const STEP_MEMORY_MIN_BYTES: u64 = 4 << 20;

/// The most memory a step may ask for: 1 PiB, beyond any machine.
pub const STEP_MEMORY_MAX_BYTES: u64 = 1 << 50;

/// The most processors a step may ask for, in thousandths: beyond any machine.
pub const STEP_CPU_MAX_MILLIS: u64 = 10_000_000;
