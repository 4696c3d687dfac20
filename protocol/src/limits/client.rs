//! Bounds of the CLI: what it waits for, and what it holds in memory.

/// From dialling an API to a connection; a slow link between continents needs one second.
pub const API_CONNECT_MS: u64 = 10_000;

/// The answer to one request of a client; a submit behind a slow disk takes seconds.
pub const API_ANSWER_MS: u64 = 60_000;

/// A stream on which a client hears nothing for this long, comments included, is made anew.
pub const API_STREAM_SILENT_MS: u64 = 60_000;

/// The first pause of a client before it asks again; it doubles.
pub const API_RETRY_MIN_MS: u64 = 50;

/// The longest pause of a client before it asks again: a person who watches a restart waits no longer than this.
pub const API_RETRY_MAX_MS: u64 = 2_000;

/// How long a client waits for a coordinator that restarts: an upgrade with a migration has time.
pub const API_PATIENCE_MS: u64 = 120_000;

/// One Server-Sent Event: the snapshot of a build with the most jobs, some KiB each.
pub const API_EVENT_MAX_BYTES: usize = 64 << 20;

/// Logs that one client follows at once, each with a connection of its own; others wait their turn.
pub const CLI_LOGS_MAX: usize = 64;

/// News of a build that wait to be shown; a terminal that is slower makes the streams wait.
pub const CLI_NEWS_MAX: usize = 256;

/// An unfinished line that is held back until its end comes; a longer one is shown in pieces.
pub const CLI_LINE_MAX_BYTES: usize = 64 << 10;

/// One body of an upload, held in memory: large enough that round trips do not count, small enough to be sent again.
pub const CLI_PACK_BYTES: u64 = 16 << 20;

/// How often a directory that changes while it is read is read again.
pub const CLI_SNAPSHOT_TRIES: u32 = 5;

/// How long a run waits for another's server that starts or ends beside it.
pub const CLI_ATTACH_MS: u64 = 60_000;
