//! Bounds of step reuse: what a key may be made of, and what finding it out may cost.

/// Inputs, artifacts and outputs that one `reuse` names: each is asked of every path.
pub const REUSE_GLOBS_MAX: usize = 200;

/// Blobs that one `reuse` names: some toolchains and data; of more an archive is made.
pub const REUSE_BLOBS_MAX: usize = 200;

/// Variables that one `reuse` names: more are a step that depends on everything.
pub const REUSE_ENV_MAX: usize = 200;

/// Keys that are found out at once: each may hold a tree's directories and a git.
pub const REUSE_KEYS_MAX: usize = 8;

/// Of them for builds that are not trusted: a registry that they name may say nothing for as long as one may.
pub const REUSE_KEYS_UNTRUSTED_MAX: usize = 4;

/// Files and directories of a source that is looked through for a key, as many as a large repository's.
pub const REUSE_TREE_ENTRIES_MAX: u64 = 500_000;

/// Bytes of the directories of one tree: its names and digests, in memory one directory at a time.
pub const REUSE_TREE_DIRS_MAX_BYTES: u64 = 256 << 20;

/// Looks at a glob's states while a tree is matched: some seconds of one processor.
pub const REUSE_GLOB_STEPS_MAX: u64 = 500_000_000;

/// Bytes of files that are brought from a repository for one key.
pub const REUSE_IMPORT_MAX_BYTES: u64 = 4 << 30;

/// One file of a repository that is brought into the cache.
pub const REUSE_IMPORT_FILE_MAX_BYTES: u64 = 2 << 30;

/// Fetching the files of one commit, and reading them, each: many of them come from far away.
pub const REUSE_IMPORT_MS: u64 = 300_000;

/// Files of repositories of which it is remembered what blob they are: those of some large repositories, 100 bytes each.
pub const REUSE_OBJECTS_KEPT_MAX: usize = 400_000;

/// What `git ls-tree` prints of one commit: half a million files with paths of a hundred bytes.
pub const REUSE_LISTING_MAX_BYTES: u64 = 96 << 20;

/// Trees of commits that are remembered, by commit and globs: a day's of a busy fleet, a hundred bytes each.
pub const REUSE_COMMITS_KEPT_MAX: usize = 10_000;

/// Artifacts that one key names.
pub const REUSE_ARTIFACTS_MAX: usize = 10_000;

/// A recipe's text: variables, a command and the digests of some thousand artifacts.
pub const REUSE_RECIPE_MAX_BYTES: usize = 4 << 20;

/// Differences that are told between two recipes; a reader sees by then that they have little in common.
pub const REUSE_DIFFERENCES_MAX: usize = 200;

/// Directories that one comparison reads: many more than differ where two trees have anything in common.
pub const REUSE_COMPARED_DIRECTORIES_MAX: usize = 20_000;

/// Characters of a value that are told where two keys differ.
pub const REUSE_VALUE_SHOWN_MAX_CHARS: usize = 2_000;

/// Commands whose printed versions are an agent's fingerprint.
pub const FINGERPRINT_COMMANDS_MAX: usize = 32;

/// One of them, such as `cc --version`; it is said with what it prints.
pub const FINGERPRINT_COMMAND_MAX_BYTES: usize = 256;

/// What is read of what one of them prints.
pub const FINGERPRINT_OUTPUT_MAX_BYTES: u64 = 64 << 10;

/// What is told of it; a version is within its first lines, and of the rest there is a digest.
pub const FINGERPRINT_SHOWN_MAX_BYTES: usize = 512;

/// Characters of a line of a fingerprint that are told where agents of a pool do not agree.
pub const FINGERPRINT_TOLD_MAX_CHARS: usize = 200;

/// All that an agent says of its machine: all its commands, and what is told of each.
pub const FINGERPRINT_MAX_BYTES: usize = 32 << 10;

/// One command; a compiler says its version at once.
pub const FINGERPRINT_COMMAND_MS: u64 = 10_000;

/// How often an agent looks whether its machine is still what it has said: packages are upgraded under it.
pub const FINGERPRINT_LOOK_MS: u64 = 60_000;

/// All files of an agent's hooks: scripts, and some data beside them.
pub const FINGERPRINT_HOOKS_MAX_BYTES: u64 = 64 << 20;

/// The same, by number.
pub const FINGERPRINT_HOOKS_MAX_FILES: usize = 1_000;

/// Asking a repository which commit a plugin's tag is.
pub const PLUGIN_ASK_MS: u64 = 20_000;

/// What it may say: servers that do not choose tell all of their refs.
pub const PLUGIN_SAID_MAX_BYTES: u64 = 4 << 20;

/// How long a plugin's tag is believed to mean the same commit: a build's steps start together.
pub const PLUGIN_KEPT_MS: u64 = 5_000;

/// Plugins of which the commit is remembered.
pub const PLUGINS_KEPT_MAX: usize = 1_000;

/// One request to a registry.
pub const REGISTRY_REQUEST_MS: u64 = 15_000;

/// Requests to registries at once.
pub const REGISTRY_REQUESTS_MAX: usize = 16;

/// Of them for builds that are not trusted.
pub const REGISTRY_REQUESTS_UNTRUSTED_MAX: usize = 8;

/// An image's manifest or index (distribution v2 asks for at least 4 MiB).
pub const REGISTRY_MANIFEST_MAX_BYTES: usize = 4 << 20;

/// A token service's answer: a token of some KiB.
pub const REGISTRY_TOKEN_MAX_BYTES: usize = 256 << 10;

/// How long a tag is believed to mean the same image: a build's steps start together.
pub const REGISTRY_TAG_KEPT_MS: u64 = 5_000;

/// Images of which the digest is remembered.
pub const REGISTRY_IMAGES_KEPT_MAX: usize = 1_000;

const _: () = assert!(
    FINGERPRINT_COMMANDS_MAX * (FINGERPRINT_COMMAND_MAX_BYTES + FINGERPRINT_SHOWN_MAX_BYTES + 100)
        < FINGERPRINT_MAX_BYTES,
    "what every command prints fits"
);
