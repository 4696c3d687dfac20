//! A bare mirror of one repository: its branches and tags with their history, and of contents only what was looked at.
//!
//! What a server sends is never checked out and nothing of it runs; a mirror's configuration is ours. Contents are left
//! out of a fetch where the server can do so, and come when a file is read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use windlass_git::credentials::without_secrets;
use windlass_git::{Bounds, Credentials, GitError, Protocols, locks};
use windlass_protocol::limits::{
    COMMIT_MAX_BYTES, MIRROR_FETCH_MS, MIRROR_LOOK_MS, MIRROR_REFS_MAX_BYTES, MIRROR_TIDY_MS, PIPELINE_MAX_BYTES,
};

use super::DefinitionError;
use super::reference::Reference;

/// What of the coordinator's own environment its git sees.
const INHERITED: [&str; 17] = [
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
    /// Brings branches and tags up to date; makes the mirror where there is none.
    pub(super) async fn refresh(&self) -> Result<(), DefinitionError> {
        if !self.dir.exists() {
            self.make().await?;
        }
        locks::clear(self.dir).map_err(DefinitionError::fault("the mirror cannot be used"))?;
        self.fetch(&EVERYTHING).await
    }

    /// A mirror without content. One that was half made is made again.
    async fn make(&self) -> Result<(), DefinitionError> {
        let new = self.dir.with_extension("new");
        let failed = || DefinitionError::fault("the mirror cannot be made");
        remove(&new).map_err(failed())?;
        fs::create_dir_all(&new).map_err(failed())?;
        let at_new = Mirror { reach: self.reach, dir: &new, repository: self.repository };
        at_new.look(&["init", "--quiet", "--bare", "--template="], 1).await.map_err(DefinitionError::of_look)?;
        for (key, value) in [
            ("remote.origin.url", self.repository),
            ("remote.origin.promisor", "true"),
            ("remote.origin.partialclonefilter", "blob:none"),
            ("core.repositoryformatversion", "1"),
            ("extensions.partialClone", "origin"),
            ("gc.autoDetach", "false"),
            ("maintenance.autoDetach", "false"),
            // A fetch of a few objects is a pack too, so that the limit of a file holds for it.
            ("fetch.unpackLimit", "1"),
        ] {
            at_new.look(&["config", key, value], 1).await.map_err(DefinitionError::of_look)?;
        }
        fs::rename(&new, self.dir).map_err(failed())
    }

    async fn fetch(&self, what: &[&str]) -> Result<(), DefinitionError> {
        let bounds = Bounds { deadline: Some(Duration::from_millis(MIRROR_FETCH_MS)), output_max_bytes: 0 };
        let arguments = [&FETCH[..], what].concat();
        let fetched = windlass_git::run(self.command()?, &arguments, bounds).await;
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
        let mut command = self.command()?;
        command.env("GIT_NO_LAZY_FETCH", "1");
        let there = windlass_git::run(command, &["cat-file", "-e", &object], look(1)).await;
        match there {
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
        let done = windlass_git::run(self.command()?, &["gc", "--auto", "--quiet"], bounds).await;
        done.map(drop).map_err(DefinitionError::of_look)
    }

    async fn look(&self, arguments: &[&str], output_max_bytes: u64) -> Result<Vec<u8>, GitError> {
        let command = self.command().map_err(|error| GitError::NotRun(io::Error::other(error.to_string())))?;
        windlass_git::run(command, arguments, look(output_max_bytes)).await
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
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_ALLOW_PROTOCOL", self.reach.protocols.variable())
            .env("GIT_SSH_COMMAND", ssh_command())
            .args(["-c", "core.askPass=", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]);
        self.reach.credentials.secrets().map_err(DefinitionError::fault("the git credentials cannot be read"))?;
        self.reach.credentials.give(&mut command);
        Ok(command)
    }
}

/// The operator's ssh; nobody is there to answer a question.
fn ssh_command() -> std::ffi::OsString {
    std::env::var_os("GIT_SSH_COMMAND").unwrap_or_else(|| "ssh -oBatchMode=yes".into())
}

const fn look(output_max_bytes: u64) -> Bounds {
    Bounds { deadline: Some(Duration::from_millis(MIRROR_LOOK_MS)), output_max_bytes }
}

/// Removes a directory with all that is in it; one that is not there is removed already.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of all files of a directory.
pub(super) fn size_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}
