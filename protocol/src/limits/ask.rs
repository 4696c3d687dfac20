//! Bounds of what jobs ask of their coordinator: annotations, changes of steps, tokens, artifacts.

use super::JOB_CONNECTIONS_MAX;

/// The text of an annotation (buildkite.md 23).
pub const ANNOTATION_MAX_BYTES: usize = 1 << 20;

/// The name of an annotation, in characters (buildkite.md 23).
pub const ANNOTATION_CONTEXT_MAX_CHARS: usize = 100;

/// Annotations of one build: more than a page shows, and few enough to stand in the build's row by their names.
pub const ANNOTATIONS_PER_BUILD_MAX: usize = 256;

/// Texts of a build's annotations in all: they are read at once.
pub const ANNOTATIONS_MAX_BYTES: usize = 8 << 20;

/// Calls of an attempt that are remembered, so that one that comes again after a lost answer is done once: four for each
/// command that a job may have open at once.
pub const CALLS_PER_ATTEMPT_MAX: usize = 4 * JOB_CONNECTIONS_MAX;

/// A label that a job gives to a step.
pub const STEP_LABEL_MAX_BYTES: usize = 4 << 10;

/// Names of the files that have changed, as `if_changed` asks for them: of a large move through a large repository.
pub const CHANGED_FILES_MAX_BYTES: usize = 16 << 20;

/// The same, by number: each is looked at for each step that waits for some.
pub const CHANGED_FILES_MAX: usize = 100_000;

/// How long a job's token is good where the job says nothing, in seconds: for one exchange with a cloud.
pub const OIDC_LIFETIME_DEFAULT_S: u32 = 300;

/// How long a job's token may be good, in seconds: nobody can take it back.
pub const OIDC_LIFETIME_MAX_S: u32 = 3_600;

/// How long a key signs jobs' tokens.
pub const OIDC_KEY_LIFE_MS: u64 = 90 * 86_400_000;

/// How long a key is published before it signs, and after its tokens are over: verifiers keep keys for hours, some for a day.
pub const OIDC_KEY_KNOWN_MS: u64 = 2 * 86_400_000;

/// Between two looks at whether a key is due.
pub const OIDC_TURN_CHECK_MS: u64 = 3_600_000;

/// Claims, and session tags, that one token may be asked for.
pub const OIDC_CLAIMS_MAX: usize = 32;

/// Artifacts of one job (buildkite.md 23).
pub const ARTIFACTS_PER_JOB_MAX: usize = 5_000;

/// Artifacts of one build: what twenty such jobs make, as rows of a list.
pub const ARTIFACTS_PER_BUILD_MAX: usize = 100_000;

/// One artifact (buildkite.md 23).
pub const ARTIFACT_MAX_BYTES: u64 = 10 << 30;

/// All artifacts of one attempt of a job (buildkite.md 23).
pub const ARTIFACTS_PER_JOB_MAX_BYTES: u64 = 50 << 30;

/// All artifacts of one build: no build alone fills an ordinary disk of a fleet.
pub const ARTIFACTS_PER_BUILD_MAX_BYTES: u64 = 500 << 30;

/// Artifacts in one answer to a job: with the longest paths and URLs they fit a frame.
pub const ARTIFACTS_FOUND_MAX: usize = 100;

/// Blobs in one offer to store: 40 bytes each, so that the request fits a frame with room.
pub const STORE_MAX_BLOBS: usize = 8_000;

/// Offers to store blobs that are being taken at once, from all agents: each holds a thread and a file.
pub const STORES_MAX: usize = 64;

/// Of them from agents that run what is not trusted: a job there may hold back its bytes.
pub const STORES_UNTRUSTED_MAX: usize = 48;

/// An agent that sends nothing of a blob for this long is not waited for. Its job may read from a slow disk.
pub const STORE_STALL_MS: u64 = 60_000;

/// Bytes of disk that no artifact and no cache may take: running builds go on in them.
pub const STORE_HEADROOM_BYTES: u64 = 1 << 30;

/// How long artifacts are kept: a month of releases can be compared.
pub const ARTIFACT_RETENTION_MS: u64 = 30 * 24 * 3_600_000;

/// Between two looks for blobs that no row names any more. A blob has to be unnamed and untouched in two of them to go.
pub const SHELF_SWEEP_MS: u64 = 3_600_000;

/// Blobs of one piece of such a look: for so long no artifact can be added.
pub const SHELF_PIECE_BLOBS: usize = 256;

/// A cache's key, as elsewhere: a name with some checksums in it.
pub const CACHE_KEY_MAX_BYTES: usize = 512;

/// Keys that will do in place of a cache's own, as elsewhere.
pub const CACHE_RESTORE_KEYS_MAX: usize = 10;

/// Paths of one cache.
pub const CACHE_PATHS_MAX: usize = 64;

/// Caches that one file names.
pub const CACHES_PER_FILE_MAX: usize = 100;

/// The file that names caches.
pub const CACHE_FILE_MAX_BYTES: usize = 256 << 10;

/// Files, directories and links of one cache: a large tree of dependencies.
pub const CACHE_NODES_MAX: usize = 250_000;

/// All files of one cache.
pub const CACHE_MAX_BYTES: u64 = 10 << 30;

/// A manifest. While it is made it is a part of its job's account, and leaves half of that to others.
pub const CACHE_MANIFEST_MAX_BYTES: usize = 24 << 20;

/// Caches that a project's trusted builds have.
pub const CACHES_TRUSTED_MAX: usize = 1_000;

/// Bytes of them; files that several have are counted with each.
pub const CACHES_TRUSTED_MAX_BYTES: u64 = 50 << 30;

/// Files of them: the look for blobs that nobody names has each in memory. With those of overlays five million a project.
pub const CACHES_TRUSTED_MAX_FILES: u64 = 3_000_000;

/// Caches of one overlay.
pub const CACHES_OVERLAY_MAX: usize = 100;

/// Bytes of them.
pub const CACHES_OVERLAY_MAX_BYTES: u64 = 10 << 30;

/// Files of them.
pub const CACHES_OVERLAY_MAX_FILES: u64 = 1_000_000;

/// Caches of all overlays of one project.
pub const CACHES_OVERLAYS_MAX: usize = 1_000;

/// Bytes of them.
pub const CACHES_OVERLAYS_MAX_BYTES: u64 = 50 << 30;

/// Files of them.
pub const CACHES_OVERLAYS_MAX_FILES: u64 = 2_000_000;

/// Caches in all: their rows are in the core's memory.
pub const CACHES_MAX: usize = 50_000;

/// A cache that nobody restored for so long goes.
pub const CACHE_UNUSED_MS: u64 = 7 * 86_400_000;

/// That a cache was used is noted if that was not done for so long: a restore is no commit.
pub const CACHE_TOUCH_MS: u64 = 3_600_000;

/// How long a job waits for a coordinator that is away before it goes on without a cache.
pub const CACHE_PATIENCE_MS: u64 = 30_000;

/// Manifests that the coordinator reads at once for jobs that save.
pub const CACHE_LOOKS_MAX: usize = 4;

/// Caches in one page of a look for blobs that no row names any more.
pub const CACHE_PAGE_ROWS: usize = 500;

/// Directory entries that are looked at for a job's artifacts: a large tree with its dependencies.
pub const ARTIFACT_WALK_MAX: usize = 1_000_000;

/// Artifacts in one request (buildkite.md 23).
pub const ARTIFACTS_PER_ASK_MAX: usize = 30;

/// A value that a job gives to an attribute of a step: a list of notifications at its largest.
pub const STEP_VALUE_MAX_BYTES: usize = 64 << 10;

/// A text that answers a job: a step with the largest command and environment, as JSON, in a frame.
pub const ASK_TEXT_MAX_BYTES: usize = 768 << 10;

/// Requests of jobs that one agent may have open at once: one for each of a job's commands, on a machine of many slots.
pub const ASKS_PER_AGENT_MAX: usize = 64;

/// From a request's stream to all of its body.
pub const ASK_READ_MS: u64 = 20_000;

/// How long an agent asks on behalf of a job while its coordinator is away: an upgrade costs nobody's work.
pub const ASK_PATIENCE_MS: u64 = 600_000;

/// How long an agent goes on asking by a right that its coordinator does not know: one of the two has just come back.
pub const ASK_RIGHT_MS: u64 = 30_000;

/// What a command says beside its result about files that it leaves out; the others are counted.
pub const ARTIFACT_NOTES_MAX: usize = 100;

/// A key of a build's meta-data: names that people write are a tenth of it.
pub const META_DATA_KEY_MAX_BYTES: usize = 1 << 10;

/// A value of a build's meta-data (buildkite.md 23).
pub const META_DATA_VALUE_MAX_BYTES: usize = 100 << 10;

/// Keys of a build's meta-data: one for each job of a large build.
pub const META_DATA_KEYS_MAX: usize = 10_000;

/// A build's meta-data in all: it stands in the build's row, which is written with each change of the build, and all of its
/// keys are one answer to a job.
pub const META_DATA_MAX_BYTES: usize = 768 << 10;

/// Jobs of one upload (buildkite.md 23).
pub const UPLOAD_JOBS_MAX: usize = 500;

/// Uploads of one build (buildkite.md 23).
pub const UPLOADS_PER_BUILD_MAX: usize = 500;
