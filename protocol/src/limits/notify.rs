//! Notifications: how many there are, how long one is tried, and how fast.

/// Entries of the top level's `notify` of one build, uploads included: all are looked at with every event of the build.
pub const NOTIFY_ENTRIES_MAX: usize = 1_000;

/// Notifications of one build: some for each entry or step that people look at; a loop of retries makes no more.
pub const NOTIFICATIONS_PER_BUILD_MAX: u32 = 1_000;

/// Those of a build that is not trusted.
pub const UNTRUSTED_NOTIFICATIONS_PER_BUILD_MAX: u32 = 50;

/// What reading the conditions may have cost that a build keeps ready, in steps of matches: some thousand states of
/// patterns, each of which is some kilobytes at most.
pub const CONDITIONS_KEPT_EFFORT_MAX: usize = 1 << 26;

/// Notifications that wait, all of which are in memory: at 2 KiB each some tens of megabytes.
pub const NOTIFICATIONS_WAITING_MAX: usize = 10_000;

/// Of these, the places of builds that are not trusted: they take none from the others.
pub const UNTRUSTED_NOTIFICATIONS_WAITING_MAX: usize = 2_000;

/// Those of one project's trusted builds.
pub const NOTIFICATIONS_PER_PROJECT_MAX: usize = 2_500;

/// Those of one project's other builds.
pub const UNTRUSTED_NOTIFICATIONS_PER_PROJECT_MAX: usize = 500;

/// Trusted builds' of one target, so that one that is down leaves room for the others.
pub const NOTIFICATIONS_PER_TARGET_MAX: usize = 2_000;

/// Other builds' of one target.
pub const UNTRUSTED_NOTIFICATIONS_PER_TARGET_MAX: usize = 200;

/// Notifications that are on their way at once: each is a connection and a task.
pub const DELIVERIES_MAX: usize = 16;

/// Those to one target: a small receiver is not overrun, and one that is down leaves the other places free.
pub const DELIVERIES_PER_TARGET_MAX: usize = 2;

/// One delivery, from the look-up of its host's name to the status of the answer.
pub const DELIVERY_MS: u64 = 20_000;

/// How long the rest of an answer is waited for: the status is there and decides.
pub const DELIVERY_BODY_MS: u64 = 3_000;

/// When a delivery that nobody answered for is taken for lost: after every time-out of its own.
pub const DELIVERY_LOST_MS: u64 = 2 * DELIVERY_MS;

/// What is read of an answer: enough for the reason that servers give.
pub const DELIVERY_ANSWER_MAX_BYTES: usize = 4 << 10;

/// Before the second try of a delivery; each further pause is twice as long.
pub const DELIVERY_BACKOFF_MS: u64 = 1_000;

/// The longest pause between two tries, also where a server asks for a longer one.
pub const DELIVERY_BACKOFF_MAX_MS: u64 = 3_600_000;

/// The longest pause of a whole target after failures in a row.
pub const TARGET_REST_MAX_MS: u64 = 60_000;

/// Tries of one delivery: as many as fit into [`DELIVERY_LIFE_MS`], and some for servers that ask to come again soon.
pub const DELIVERY_TRIES_MAX: u32 = 40;

/// After this news is no news: a receiver that is down for a night gets it.
pub const DELIVERY_LIFE_MS: u64 = 86_400_000;

/// How long a notification that is over is kept for people to look at.
pub const NOTIFICATIONS_KEPT_MS: u64 = 30 * 86_400_000;

/// What a notification carries of a build's message; whoever wants all of it asks for the build.
pub const NOTIFICATION_TEXT_MAX_BYTES: usize = 1 << 10;

/// A commit status's description (GitHub's limit, in characters).
pub const STATUS_DESCRIPTION_MAX: usize = 140;

/// A commit status's context: what GitHub stores.
pub const STATUS_CONTEXT_MAX_BYTES: usize = 255;

/// Reasons that are kept with a notification: each is read by people.
pub const NOTIFICATION_DETAIL_MAX_BYTES: usize = 500;
