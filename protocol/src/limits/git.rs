//! Bounds of repositories: their mirrors, and what agents keep of them.

/// Repositories that are fetched at once: each is a git, and the link is shared.
pub const MIRROR_FLIGHTS_MAX: usize = 4;

/// One fetch into a mirror: the whole history, without contents, of the largest repositories takes minutes.
pub const MIRROR_FETCH_MS: u64 = 600_000;

/// One look into a mirror; a text that it does not hold yet is fetched meanwhile.
pub const MIRROR_LOOK_MS: u64 = 60_000;

/// Housekeeping of a mirror, with nobody waiting but the next fetch of the same repository.
pub const MIRROR_TIDY_MS: u64 = 300_000;

/// One file of a mirror: history without contents is far below this, and a server that knows no filters sends all of it.
pub const MIRROR_FILE_MAX_BYTES: u64 = 4 << 30;

/// All mirrors. Those that were not used for longest go first; they are fetched again when they are wanted.
pub const MIRRORS_MAX_BYTES: u64 = 16 << 30;

/// Mirrors, as [`MIRRORS_MAX_BYTES`].
pub const MIRRORS_MAX: usize = 1_000;

/// Names of a repository's branches and tags: a hundred thousand of them.
pub const MIRROR_REFS_MAX_BYTES: u64 = 16 << 20;

/// A commit as git writes it: its headers and its message.
pub const COMMIT_MAX_BYTES: u64 = 1 << 20;

/// A pipeline's patterns of protected branches and tags: each is asked of each of their names.
pub const PROTECTED_PATTERNS_MAX: usize = 100;

/// All plugins that an agent keeps, unless its operator says otherwise: each is a few files, and a fleet uses some dozens.
pub const AGENT_PLUGINS_MAX_BYTES: u64 = 2 << 30;

/// The same, by number.
pub const AGENT_PLUGINS_MAX: usize = 1_000;

/// All mirrors that an agent keeps, unless its operator says otherwise: some large repositories, or many ordinary ones.
pub const AGENT_MIRRORS_MAX_BYTES: u64 = 50 << 30;

/// The same, by number.
pub const AGENT_MIRRORS_MAX: usize = 1_000;

/// Tries of what a checkout has from the network, before it has failed: the longest wait together is half a minute.
pub const CHECKOUT_TRIES_MAX: u32 = 6;

/// How long a job waits for a mirror or a plugin that another one fetches (the reference's `git-mirrors-lock-timeout`).
pub const GIT_LOCK_MS: u64 = 300_000;

/// Before a checkout's second try; doubled before each further one.
pub const CHECKOUT_WAIT_MS: u64 = 1_000;

/// What is kept of what git says on its errors: the first lines say what is wrong, and a server may send any number of them.
pub const GIT_SAID_MAX_BYTES: u64 = 64 << 10;

/// A client's wait for a pipeline's text out of its repository: longer than any fetch of what changed, shorter than a
/// proxy's patience. A first fetch that takes longer goes on without the client, who asks again.
pub const DEFINITION_WAIT_MS: u64 = 60_000;

/// Those that wait for texts out of repositories: each holds a request and a task. More are told to come again.
pub const DEFINITION_READERS_MAX: usize = 64;
