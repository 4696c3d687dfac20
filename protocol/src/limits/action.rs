//! Bounds of action entries: results of steps that are used again (docs/design/030), by laptops too (docs/design/041).

/// Keys that are asked for at once; further jobs wait for their turn. Each has a bounded time, so the turn comes.
pub const REUSE_ASKED_MAX: usize = 64;

/// Of them for builds that are not trusted: whatever those name, half is left to the others.
pub const REUSE_ASKED_UNTRUSTED_MAX: usize = 32;

/// Files of one entry: they stand in its row, in memory.
pub const REUSE_OUTPUTS_MAX: usize = 1_000;

/// Entries of one project's trusted builds: a hundred steps of a hundred commits.
pub const REUSE_TRUSTED_MAX: usize = 10_000;

/// Bytes of their outputs: what a large project makes in a week.
pub const REUSE_TRUSTED_MAX_BYTES: u64 = 100 << 30;

/// Entries of one overlay: a pull request's.
pub const REUSE_OVERLAY_MAX: usize = 500;

/// Bytes of their outputs.
pub const REUSE_OVERLAY_MAX_BYTES: u64 = 10 << 30;

/// Entries of all overlays of one project: of the pull requests that are open at once.
pub const REUSE_OVERLAYS_MAX: usize = 5_000;

/// Bytes of their outputs.
pub const REUSE_OVERLAYS_MAX_BYTES: u64 = 50 << 30;

/// Entries of all projects: some kilobytes of memory each.
pub const REUSE_ENTRIES_MAX: usize = 50_000;

/// Files of all entries of all projects: some hundred bytes of memory each.
pub const REUSE_FILES_MAX: usize = 400_000;

/// Entries that are remembered after they went, so that a miss can say so.
pub const REUSE_GONE_MAX: usize = 10_000;

/// How long an entry that nobody uses is kept.
pub const REUSE_UNUSED_MS: u64 = 30 * 86_400_000;

/// How exactly it is known when an entry was used: a hit is no write of its row more often than this.
pub const REUSE_TOUCH_MS: u64 = 3_600_000;

/// Earlier entries that a miss is compared with: those of the last pushes.
pub const REUSE_COMPARED_MAX: usize = 16;

/// Finding out one key: a fetch of what a commit adds takes seconds, and a step that waits longer had better run.
pub const REUSE_KEY_MAX_MS: u64 = 60_000;

/// Fleets that one user is logged in to: nobody has more.
pub const FLEETS_MAX: usize = 32;

/// Bytes of what is typed or piped in as a token: many times one.
pub const TOKEN_TEXT_MAX_BYTES: u64 = 4_096;

/// How long a look at the certificates of a server may take.
pub const TLS_LOOK_MS: u64 = 10_000;

/// How long before its end a token's expiry is told with every run: a week to make another one.
pub const TOKEN_ENDS_SOON_MS: u64 = 7 * 86_400_000;

/// How long a run waits for the fleet's first answer; past it the run goes on with what is here, and asks no more.
pub const FLEET_WAIT_MS: u64 = 2_000;

/// How long one later answer of the fleet about keys or images may take: a step waits for it.
pub const FLEET_ASK_MS: u64 = 10_000;

/// How long a fleet that did not answer is not asked again by a server that goes on.
pub const FLEET_REST_MS: u64 = 60_000;

/// How long the files of one result may take to come; a step that waits longer had better run.
pub const FLEET_FETCH_MS: u64 = 45_000;

/// Keys of one question.
pub const FLEET_KEYS_MAX: usize = 64;

/// Different hooks of a fleet's agents that keys are tried with; more are not told.
pub const FLEET_HOOKS_MAX: usize = 8;

/// Bytes of one answer about keys: a thousand files, with paths, of some results.
pub const FLEET_ANSWER_MAX_BYTES: usize = 4 << 20;

/// Log bytes that are brought along with a result; of a longer one the beginning.
pub const FLEET_LOG_MAX_BYTES: u64 = 64 << 20;

/// Files of one result that are fetched at once.
pub const FLEET_FETCHES_MAX: usize = 4;

/// Tries of one file, each from where the last one broke off.
pub const FLEET_FETCH_TRIES: u32 = 4;

/// Bytes of what a laptop remembers of a fleet between runs.
pub const FLEET_REMEMBERED_MAX_BYTES: u64 = 4 << 20;

/// Images that it remembers.
pub const FLEET_IMAGES_MAX: usize = 256;
