//! How long is kept what nobody works with any more.

/// How long finished builds, their logs and events are kept by default.
pub const RETENTION_MS: u64 = 90 * 86_400_000;

/// Between two looks for builds past their retention.
pub const RETENTION_EVERY_MS: u64 = 60_000;

/// How long the row of an agent that is gone is kept after it was last seen: a quarter, as builds are, which name it.
pub const GONE_AGENTS_MS: u64 = 90 * 86_400_000;

/// How long the row of a token that can do nothing more is kept: as agents' rows and builds, whose makers it names.
pub const PAST_TOKENS_MS: u64 = 90 * 86_400_000;

/// Builds that one piece of retention takes away: a commit of this many is short.
pub const RETENTION_BUILDS_AT_ONCE: usize = 64;

/// Tokens that one round of retention forgets, in one commit.
pub const TOKENS_FORGOTTEN_MAX: usize = 1_000;

/// How long a line of the audit trail is kept: auditors ask for a year, and come some weeks after its end.
pub const AUDIT_MS: u64 = 400 * 86_400_000;
