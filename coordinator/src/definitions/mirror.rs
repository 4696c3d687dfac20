//! A bare mirror of one repository: its branches and tags with their history, and of contents only what was looked at.
//!
//! What a server sends is never checked out and nothing of it runs; a mirror's configuration is ours. Contents are left
//! out of a fetch where the server can do so, and come when a file is read.

pub(super) mod contents;

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use windlass_git::credentials::without_secrets;
use windlass_git::dir_cache::Held;
use windlass_git::mirror::NotMade;
use windlass_git::{Bounds, Credentials, DirCache, GitError, Identity, Protocols, locks, settings};
use windlass_protocol::limits::{
    CHANGED_FILES_MAX_BYTES, COMMIT_MAX_BYTES, MIRROR_FETCH_MS, MIRROR_LOOK_MS, MIRROR_REFS_MAX_BYTES, MIRROR_TIDY_MS,
    PIPELINE_MAX_BYTES,
};

use super::DefinitionError;
use super::reference::Reference;

/// What of the coordinator's own environment its git sees.
pub(super) const INHERITED: [&str; 17] = [
    "PATH",
    "HOME",
    "XDG_CONFIG_HOME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSL_CAINFO",
    "GIT_EXEC_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Starts git with a limit on each file that it writes; a lower one that is already in force stays.
const LIMITED: &str = r#"ulimit -f "$0" 2>/dev/null; exec git "$@""#;

/// The unit of `ulimit -f` (POSIX).
const ULIMIT_BYTES: u64 = 512;

/// How a coordinator's git reaches repositories.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    pub(super) credentials: Credentials,
    pub(super) protocols: Protocols,
    pub(super) file_max_bytes: u64,
}

/// One repository's mirror. Whoever has it is the only one.
#[derive(Debug)]
pub(super) struct Mirror<'a> {
    pub(super) reach: &'a Reach,
    pub(super) dir: &'a Path,
    pub(super) held: &'a Held,
    pub(super) repository: &'a str,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    id: String,
}

const FETCH: [&str; 8] = [
    "fetch",
    "--quiet",
    "--no-auto-gc",
    "--no-recurse-submodules",
    "--no-write-fetch-head",
    "--force",
    "--filter=blob:none",
    "--no-tags",
];

const EVERYTHING: [&str; 4] = ["--prune", "origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

impl Mirror<'_> {
    /// Brings branches and tags up to date; makes the mirror, which is locked, where there is none.
    pub(super) async fn refresh(&self, cache: &DirCache) -> Result<(), DefinitionError> {
        if !self.dir.exists() {
            self.make(cache).await?;
        }
        locks::clear(self.dir).map_err(DefinitionError::fault("the mirror cannot be used"))?;
        self.fetch(&EVERYTHING).await
    }

    /// A mirror without content, in the place of what is there.
    pub(super) async fn make(&self, cache: &DirCache) -> Result<(), DefinitionError> {
        let more = [
            ("remote.origin.promisor", "true"),
            ("remote.origin.partialclonefilter", "blob:none"),
            ("core.repositoryformatversion", "1"),
            ("extensions.partialClone", "origin"),
        ];
        let git = |dir: &Path| Mirror { dir, ..*self }.command().map_err(|error| io::Error::other(error.to_string()));
        windlass_git::mirror::make(cache, self.held, git, self.repository, &more).await.map_err(|error| match error {
            NotMade::Disk(error) => DefinitionError::fault("the mirror cannot be made")(error),
            NotMade::Git(error) => DefinitionError::of_look(error),
        })
    }

    async fn fetch(&self, what: &[&str]) -> Result<(), DefinitionError> {
        let bounds = Bounds { deadline: Some(Duration::from_millis(MIRROR_FETCH_MS)), output_max_bytes: 0 };
        let arguments = [&FETCH[..], what].concat();
        let fetched = windlass_git::run_holding(self.held, self.command()?, &arguments, bounds).await;
        fetched.map(drop).map_err(|error| self.told(DefinitionError::of_fetch(error)))
    }

    /// Without what is secret.
    fn told(&self, error: DefinitionError) -> DefinitionError {
        match error {
            DefinitionError::Unreachable { said } => match self.reach.credentials.secrets() {
                Ok(secrets) => DefinitionError::Unreachable { said: without_secrets(&said, &secrets) },
                Err(error) => DefinitionError::fault("the git credentials cannot be read")(error),
            },
            other => other,
        }
    }

    /// Brings one more ref; what is there by every fetch is not asked for again.
    pub(super) async fn fetch_reference(&self, reference: &Reference) -> Result<(), DefinitionError> {
        if reference.is_mirrored() {
            return Ok(());
        }
        let refspec = format!("+{}:{}", reference.as_str(), reference.kept());
        match self.fetch(&["origin", &refspec]).await {
            Err(DefinitionError::Unreachable { said }) if said.contains("couldn't find remote ref") => {
                Err(DefinitionError::NoSuchReference(reference.as_str().to_owned()))
            }
            fetched => fetched,
        }
    }

    /// What the repository's own HEAD is.
    pub(super) async fn fetch_head(&self) -> Result<String, DefinitionError> {
        match self.fetch(&["origin", "+HEAD:refs/windlass/HEAD"]).await {
            Err(DefinitionError::Unreachable { said }) if said.contains("couldn't find remote ref") => {
                return Err(DefinitionError::NoSuchReference("HEAD".to_owned()));
            }
            fetched => fetched?,
        }
        let head = self.commit_of("refs/windlass/HEAD").await?;
        head.ok_or_else(|| DefinitionError::NoSuchReference("HEAD".to_owned()))
    }

    /// Brings a commit that no branch or tag holds, if the server gives it.
    pub(super) async fn fetch_commit(&self, commit: &str) -> Result<(), DefinitionError> {
        if self.has_commit(commit).await? {
            return Ok(());
        }
        match self.fetch(&["origin", commit]).await {
            // A server that does not serve single commits says so in words of its own; it did answer the fetch before.
            Err(DefinitionError::Unreachable { .. }) => Err(DefinitionError::NoSuchCommit(commit.to_owned())),
            Ok(()) if !self.has_commit(commit).await? => Err(DefinitionError::NoSuchCommit(commit.to_owned())),
            fetched => fetched,
        }
    }

    async fn has_commit(&self, commit: &str) -> Result<bool, DefinitionError> {
        let object = format!("{commit}^{{commit}}");
        match self.look_at_hand(&["cat-file", "-e", &object], 1).await {
            Ok(_) => Ok(true),
            Err(GitError::Refused { status: Some(_), .. }) => Ok(false),
            Err(error) => Err(DefinitionError::of_look(error)),
        }
    }

    /// The commit that a name of the mirror stands for.
    pub(super) async fn commit_of(&self, name: &str) -> Result<Option<String>, DefinitionError> {
        let object = format!("{name}^{{commit}}");
        match self.look(&["rev-parse", "--verify", "--quiet", "--end-of-options", &object], 128).await {
            Ok(id) => Ok(Some(String::from_utf8_lossy(&id).trim().to_owned())),
            Err(GitError::Refused { status: Some(1), .. }) => Ok(None),
            Err(error) => Err(DefinitionError::of_look(error)),
        }
    }

    /// Whether a ref's history holds a commit.
    pub(super) async fn holds(&self, reference: &str, commit: &str) -> Result<bool, DefinitionError> {
        match self.look(&["merge-base", "--is-ancestor", commit, reference], 1).await {
            Ok(_) => Ok(true),
            Err(GitError::Refused { status: Some(1), .. }) => Ok(false),
            Err(error) => Err(DefinitionError::of_look(error)),
        }
    }

    /// The branches and tags whose history holds a commit.
    pub(super) async fn references_with(&self, commit: &str) -> Result<Vec<String>, DefinitionError> {
        let list = ["for-each-ref", "--format=%(refname)", "--contains", commit, "refs/heads", "refs/tags"];
        let names = self.look(&list, MIRROR_REFS_MAX_BYTES).await.map_err(DefinitionError::of_look)?;
        Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
    }

    /// The regular files among these paths of a commit; links and submodules are none.
    pub(super) async fn files(&self, commit: &str, paths: &[&str]) -> Result<Vec<Entry>, DefinitionError> {
        let arguments = [&["ls-tree", "-z", "--full-tree", commit, "--"][..], paths].concat();
        let listed = self.look(&arguments, COMMIT_MAX_BYTES).await.map_err(DefinitionError::of_look)?;
        let entry = |line: &[u8]| {
            let line = std::str::from_utf8(line).ok()?;
            let (meta, path) = line.split_once('\t')?;
            let mut words = meta.split(' ');
            let (mode, kind, id) = (words.next()?, words.next()?, words.next()?);
            (kind == "blob" && mode.starts_with("100")).then(|| Entry { path: path.to_owned(), id: id.to_owned() })
        };
        Ok(listed.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// A file's text.
    pub(super) async fn text(&self, entry: &Entry) -> Result<String, DefinitionError> {
        let path = || entry.path.clone();
        let bytes = match self.look(&["cat-file", "blob", &entry.id], PIPELINE_MAX_BYTES as u64).await {
            Err(GitError::TooMuch { .. }) => return Err(DefinitionError::TooLarge { path: path() }),
            // What is not in the mirror yet is fetched now.
            read => read.map_err(|error| self.told(DefinitionError::of_fetch(error)))?,
        };
        let text =
            String::from_utf8(bytes).map_err(|_| DefinitionError::NotText { path: path(), what: "not UTF-8" })?;
        if text.is_empty() {
            return Err(DefinitionError::NotText { path: path(), what: "empty" });
        }
        Ok(text)
    }

    /// A commit's message; empty where its commit is past all bounds.
    pub(super) async fn message(&self, commit: &str) -> Result<String, DefinitionError> {
        match self.look(&["cat-file", "commit", commit], COMMIT_MAX_BYTES).await {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Ok(text.split_once("\n\n").map_or("", |(_, message)| message).trim().to_owned())
            }
            Err(GitError::TooMuch { .. }) => Ok(String::new()),
            Err(error) => Err(DefinitionError::of_look(error)),
        }
    }

    /// Housekeeping, as git sees fit.
    pub(super) async fn tidy(&self) -> Result<(), DefinitionError> {
        let bounds = Bounds { deadline: Some(Duration::from_millis(MIRROR_TIDY_MS)), output_max_bytes: 0 };
        let done = windlass_git::run_holding(self.held, self.command()?, &["gc", "--auto", "--quiet"], bounds).await;
        done.map(drop).map_err(DefinitionError::of_look)
    }

    async fn look(&self, arguments: &[&str], output_max_bytes: u64) -> Result<Vec<u8>, GitError> {
        let command = self.command().map_err(|error| GitError::NotRun(io::Error::other(error.to_string())))?;
        windlass_git::run_holding(self.held, command, arguments, look(output_max_bytes)).await
    }

    /// A look at what is in the mirror: nothing is fetched for it.
    async fn look_at_hand(&self, arguments: &[&str], output_max_bytes: u64) -> Result<Vec<u8>, GitError> {
        let mut command = self.command().map_err(|error| GitError::NotRun(io::Error::other(error.to_string())))?;
        command.env("GIT_NO_LAZY_FETCH", "1");
        windlass_git::run_holding(self.held, command, arguments, look(output_max_bytes)).await
    }

    /// Our own git on this mirror, with nothing of the coordinator's environment but the way to servers.
    fn command(&self) -> Result<Command, DefinitionError> {
        let mut command = Command::new("sh");
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .args(["-c", LIMITED, &(self.reach.file_max_bytes / ULIMIT_BYTES).to_string()])
            .current_dir(self.dir)
            .env_clear()
            .envs(inherited)
            .env("LC_ALL", "C")
            .env("GIT_DIR", self.dir)
            .env("GIT_LITERAL_PATHSPECS", "1");
        self.reach.credentials.secrets().map_err(DefinitionError::fault("the git credentials cannot be read"))?;
        settings::settle(&mut command, &self.reach.protocols, Identity::Operator(&self.reach.credentials));
        Ok(command)
    }
}

impl windlass_git::changed::Looks for &Mirror<'_> {
    type Error = GitError;

    async fn git(&mut self, arguments: &[&str]) -> Result<String, GitError> {
        let printed = self.look_at_hand(arguments, CHANGED_FILES_MAX_BYTES as u64).await?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

const fn look(output_max_bytes: u64) -> Bounds {
    Bounds { deadline: Some(Duration::from_millis(MIRROR_LOOK_MS)), output_max_bytes }
}
