//! A commit from a repository, in two parts that trust each other in nothing but the objects between them.
//!
//! *Fetching* runs as the agent, with the credentials of the file that it was given, else with what its own git has
//! (helpers, keys), and touches no file of the tree. No secret of them is in what it says, nor in the checkout. *Checking
//! out* runs as the slot's user with a clean environment: filters, submodules and whatever else a hostile tree brings into
//! play have the job's rights and no credentials, so a submodule that needs any is refused, and so is one that names a path
//! of this machine. Hooks never run. Both go only by the protocols that the agent's operator allows.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use windlass_agent_runner::launch::User;
use windlass_git::credentials::without_secrets;
use windlass_git::{BadRepository, Bounds, Credentials, GitError, Protocol, Protocols};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{CHECKOUT_TRIES_MAX, CHECKOUT_WAIT_MS};
use windlass_protocol::{Cause, Digest};

use crate::environment::PATH;
use crate::error::Fault;
use crate::phases::variable;
use crate::plugins;
use crate::workspace::{Workspace, wipe_now};

/// The agent's git.
#[derive(Debug, Clone, Default)]
pub(crate) struct Git {
    credentials: Credentials,
    protocols: Protocols,
    /// Where it keeps a mirror of each repository.
    mirrors: Option<PathBuf>,
}

/// What is fetched for a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) repository: String,
    /// A full commit id, or the name of none: the branch's head.
    pub(crate) commit: String,
    pub(crate) branch: String,
    /// What to fetch instead of commit and branch.
    pub(crate) refspec: Vec<String>,
    /// The number of a pull request, whose head has the commit.
    pub(crate) pull_request: Option<u64>,
    /// So many commits of history; `None` is all of it.
    pub(crate) depth: Option<u32>,
}

/// One way to fetch; the next one is tried where it fails, or does not bring the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    refs: Vec<String>,
    /// Without a depth: all of the history.
    whole: bool,
}

/// Every branch, for servers that serve no single commits.
const BRANCHES: &str = "+refs/heads/*:refs/remotes/origin/*";

impl Wish {
    /// Of a job (reference 11.7, 17.2). Its flags for git are not given to the agent's git, which they could make run
    /// anything; what they say of depth is heeded.
    pub(crate) fn of(spec: &JobSpec, repository: &str, commit: &str, branch: &str) -> Self {
        let flags =
            [variable(spec, "BUILDKITE_GIT_CLONE_FLAGS"), variable(spec, "BUILDKITE_GIT_FETCH_FLAGS")].join(" ");
        let given = flags.split_whitespace().filter_map(|flag| flag.strip_prefix("--depth=")?.parse().ok()).next_back();
        let refspec = variable(spec, "BUILDKITE_REFSPEC").split_whitespace().map(str::to_owned).collect();
        Self {
            repository: repository.to_owned(),
            commit: commit.to_owned(),
            branch: branch.to_owned(),
            refspec,
            pull_request: variable(spec, "BUILDKITE_PULL_REQUEST").parse().ok(),
            // Flags without a depth are how a step asks for all of the history.
            depth: given.or_else(|| flags.trim().is_empty().then_some(1)),
        }
    }

    /// Whether it names a commit by its whole id.
    fn is_commit(&self) -> bool {
        self.commit.len() >= 40 && self.commit.bytes().all(|b| b.is_ascii_hexdigit())
    }

    fn target(&self) -> String {
        if self.is_commit() { self.commit.clone() } else { "FETCH_HEAD".to_owned() }
    }

    /// How it is fetched, the cheapest way first (reference 18.3).
    fn ways(&self) -> Vec<Way> {
        let way = |refs: &[&str], whole: bool| Way { refs: refs.iter().map(|r| (*r).to_owned()).collect(), whole };
        let all = way(&["--tags", BRANCHES], true);
        if !self.refspec.is_empty() {
            let given = Way { refs: self.refspec.clone(), whole: false };
            return if self.is_commit() { vec![given.clone(), Way { whole: true, ..given }, all] } else { vec![given] };
        }
        let branch = if self.branch.is_empty() { "HEAD" } else { &self.branch };
        match (self.pull_request, self.is_commit()) {
            (Some(number), true) => {
                let head = format!("refs/pull/{number}/head");
                vec![way(&[&head, &self.commit], false), way(&[&self.commit], false), way(&[&head], true), all]
            }
            (Some(number), false) => vec![way(&[&format!("refs/pull/{number}/head")], false), way(&[branch], false)],
            (None, true) => vec![way(&[&self.commit], false), all],
            (None, false) => vec![way(&[branch], false)],
        }
    }
}

impl Git {
    /// With the credentials of a file, by these protocols, and mirrors in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Fault::File`] where there is none, or others may read it.
    pub(crate) fn new(
        credentials: Option<PathBuf>,
        protocols: Protocols,
        mirrors: Option<PathBuf>,
    ) -> Result<Self, Fault> {
        let shown = credentials.clone().unwrap_or_default();
        let credentials = Credentials::new(credentials);
        let failed = |source| Fault::File { doing: "git credentials cannot be used:", path: shown, source };
        let git = Self { credentials: credentials.map_err(failed)?, protocols, mirrors };
        if let Some(mirrors) = &git.mirrors {
            let failed = |source| Fault::File { doing: "git mirrors cannot be kept in", path: mirrors.clone(), source };
            std::fs::create_dir_all(mirrors).map_err(failed)?;
            // With every branch of every private repository in it.
            std::fs::set_permissions(mirrors, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(git)
    }

    /// Fetches into `dest`, an empty directory of the agent's own. Gives what to check out.
    pub(crate) async fn fetch(&self, dest: &Path, wish: &Wish) -> Result<String, Cause> {
        let secrets =
            self.credentials.secrets().map_err(|e| fail(format!("the agent's git credentials cannot be read: {e}")))?;
        let fetched = self.fetch_told(dest, wish).await;
        fetched.map_err(|cause| Cause::new(cause.kind, without_secrets(&cause.detail, &secrets)))
    }

    async fn fetch_told(&self, dest: &Path, wish: &Wish) -> Result<String, Cause> {
        let texts = [&wish.repository, &wish.commit, &wish.branch].into_iter().chain(&wish.refspec);
        if texts.into_iter().any(|text| text.starts_with('-') || text.contains('\0')) {
            return Err(fail("the repository, commit, branch or refspec is not one".to_owned()));
        }
        self.protocols.check(&wish.repository).map_err(|bad| refused(&bad))?;
        let git = async |arguments: &[&str]| run(self.command(dest), arguments).await;
        git(&["init", "--quiet", "--template="]).await?;
        git(&["remote", "add", "origin", &wish.repository]).await?;
        if let Some(target) = self.fetch_from_mirror(dest, wish).await? {
            return Ok(target);
        }
        let mut tries = Tries::default();
        while let Err(cause) = self.fetch_any(dest, wish).await {
            tries.again(cause).await?;
        }
        Ok(wish.target())
    }

    /// By the first way that brings what is wanted.
    async fn fetch_any(&self, dest: &Path, wish: &Wish) -> Result<(), Cause> {
        let mut last = fail("there is no way to fetch it".to_owned());
        for way in wish.ways() {
            match run(self.command(dest), &fetch_words(wish, &way, "origin")).await {
                Ok(()) if !wish.is_commit() || self.has(dest, &wish.commit).await => return Ok(()),
                Ok(()) => last = fail(format!("git fetch: {} has no commit {}", wish.repository, wish.commit)),
                Err(cause) if is_transient(&cause) || cause.kind == CauseKind::DiskFull => return Err(cause),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Whether a commit is there.
    async fn has(&self, dest: &Path, commit: &str) -> bool {
        run(self.command(dest), &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_ok()
    }

    /// Copies from this agent's mirror, brought up to date where it lacks what is wanted; nothing where there are no
    /// mirrors, or this is not what they hold.
    async fn fetch_from_mirror(&self, dest: &Path, wish: &Wish) -> Result<Option<String>, Cause> {
        let Some(mirrors) = self.mirrors.as_ref().filter(|_| wish.refspec.is_empty()) else { return Ok(None) };
        let Some(wanted) = in_mirror(wish) else { return Ok(None) };
        let name = mirror_name(&wish.repository);
        let (mirror, lock) = (mirrors.join(format!("{name}.git")), mirrors.join(format!(".lock-{name}")));
        let _lock = plugins::lock(lock).await.map_err(|e| fail(format!("the repository's mirror is busy: {e}")))?;
        let mut tries = Tries::default();
        while let Err(cause) = self.update_mirror(&mirror, wish).await {
            tries.again(cause).await?;
        }
        let way = Way { refs: vec![wanted], whole: false };
        let path = mirror.to_string_lossy().into_owned();
        let mut command = self.command(dest);
        // The operator's own file, whatever protocols jobs may name.
        command.env("GIT_ALLOW_PROTOCOL", Protocol::File.name());
        match run(command, &fetch_words(wish, &way, &path)).await {
            Ok(()) => Ok(Some(wish.target())),
            Err(cause) => {
                // It has what is wanted and cannot give it: it is not whole. The next job makes another.
                tracing::warn!(mirror = path, error = cause.detail, "mirror_removed");
                let _ = tokio::task::spawn_blocking(move || wipe_now(&mirror)).await;
                Ok(None)
            }
        }
    }

    /// A mirror without content: whole once it has its name. One that was half made is made again.
    async fn make_mirror(&self, mirror: &Path, repository: &str) -> Result<(), Cause> {
        let mut new = mirror.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let unusable = |e: std::io::Error| fail(format!("{}: {e}", new.display()));
        match std::fs::remove_dir_all(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        std::fs::create_dir_all(&new).map_err(unusable)?;
        run(self.command(&new), &["init", "--quiet", "--bare", "--template="]).await?;
        for (key, value) in
            [("uploadpack.allowAnySHA1InWant", "true"), ("gc.autoDetach", "false"), ("remote.origin.url", repository)]
        {
            run(self.command(&new), &["config", key, value]).await?;
        }
        match std::fs::remove_dir_all(mirror) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
        std::fs::rename(&new, mirror).map_err(unusable)
    }

    /// Fetches into a mirror, unless it has the commit already.
    async fn update_mirror(&self, mirror: &Path, wish: &Wish) -> Result<(), Cause> {
        let git = async |arguments: &[&str]| run(self.command(mirror), arguments).await;
        let unusable = |e: std::io::Error| fail(format!("{}: {e}", mirror.display()));
        if mirror.join("config").exists() {
            // A job that was canceled took its git with it.
            windlass_git::locks::clear(mirror).map_err(unusable)?;
        } else {
            self.make_mirror(mirror, &wish.repository).await?;
        }
        if wish.is_commit() && self.has(mirror, &wish.commit).await {
            return Ok(());
        }
        let get = ["fetch", "--quiet", "--no-recurse-submodules", "--force", "--prune", "--tags", "origin"];
        let pull = wish.pull_request.map(|number| format!("+refs/pull/{number}/head:refs/pull/{number}/head"));
        let mut words: Vec<&str> = [&get[..], &["+refs/heads/*:refs/heads/*"]].concat();
        if wish.pull_request.is_none() || !wish.is_commit() {
            git(&words).await?;
        }
        if let Some(pull) = &pull {
            // Not every server has them; the branches may have the commit all the same.
            words.push(pull);
            if git(&words).await.is_err() {
                words.pop();
                git(&words).await?;
            }
        }
        if wish.is_commit() && !self.has(mirror, &wish.commit).await {
            let alone = format!("+{0}:refs/windlass/{0}", wish.commit);
            git(&["fetch", "--quiet", "--no-recurse-submodules", "origin", &alone]).await?;
        }
        Ok(())
    }

    /// Clones a version of a repository into an empty directory of the agent's own, without its `.git`; the commit.
    pub(crate) async fn clone_for_all(&self, dest: &Path, url: &str, version: Option<&str>) -> Result<String, Cause> {
        let version = version.unwrap_or_default();
        let wish = |branch: &str, commit: &str, depth| Wish {
            repository: url.to_owned(),
            commit: commit.to_owned(),
            branch: branch.to_owned(),
            depth,
            ..Wish::default()
        };
        let target = match self.fetch(dest, &wish(version, version, Some(1))).await {
            Ok(target) => target,
            // The first digits of a commit: all of them are needed to find it.
            Err(_) if version.len() >= 7 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                run(self.command(dest), &["fetch", "--quiet", "--tags", "origin", BRANCHES]).await?;
                version.to_owned()
            }
            Err(cause) => return Err(cause),
        };
        let isolated = || {
            let mut command = agents(dest);
            // Filters are named by a tree, and defined by configuration: without any there is nothing to run.
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
            command
        };
        run(isolated(), &["checkout", "--quiet", "--force", "--detach", &target]).await?;
        let commit = std::fs::read_to_string(dest.join(".git/HEAD")).map_err(|e| fail(format!("git checkout: {e}")))?;
        let git_dir = dest.join(".git");
        tokio::task::spawn_blocking(move || wipe_now(&git_dir)).await.map_err(|e| fail(e.to_string()))?;
        Ok(commit.trim().to_owned())
    }

    /// Lays out what was fetched, which belongs to the slot's user by now, as the job wishes (reference 11.7).
    pub(crate) async fn check_out(
        &self,
        workspace: &Workspace,
        user: Option<User>,
        target: &str,
        spec: &JobSpec,
    ) -> Result<(), Cause> {
        let git = async |arguments: &[&str]| run(self.jobs(workspace, user), arguments).await;
        let sparse: Vec<&str> = variable(spec, "BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS")
            .split([',', '\n'])
            .map(str::trim)
            .filter(|path| !path.is_empty())
            .collect();
        if !sparse.is_empty() {
            git(&[&["sparse-checkout", "set", "--no-cone", "--"], &sparse[..]].concat()).await?;
        }
        git(&["checkout", "--quiet", "--force", "--detach", target]).await?;
        let submodules = !matches!(variable(spec, "BUILDKITE_GIT_SUBMODULES"), "false" | "0") && sparse.is_empty();
        if submodules {
            let update = ["submodule", "update", "--quiet", "--init", "--recursive", "--force"];
            let mut tries = Tries::default();
            while let Err(cause) = git(&update).await {
                tries.again(cause).await?;
            }
        }
        if matches!(variable(spec, "BUILDKITE_GIT_LFS_ENABLED"), "true" | "1") {
            git(&["lfs", "install", "--local"]).await?;
            git(&["lfs", "pull"]).await?;
        }
        Ok(())
    }

    /// Git as the job would run it.
    fn jobs(&self, workspace: &Workspace, user: Option<User>) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&workspace.checkout).env_clear();
        command
            .env("PATH", PATH)
            .env("HOME", &workspace.home)
            // What it says is read, to tell a network's fault from an answer.
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_ALLOW_PROTOCOL", self.protocols.elsewhere().variable())
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn command(&self, dest: &Path) -> Command {
        let mut command = agents(dest);
        command.env("GIT_ALLOW_PROTOCOL", self.protocols.variable());
        self.credentials.give(&mut command);
        command
    }
}

fn fetch_words<'a>(wish: &Wish, way: &'a Way, from: &'a str) -> Vec<String> {
    let mut words = ["fetch", "--quiet", "--no-recurse-submodules"].map(str::to_owned).to_vec();
    if let Some(depth) = wish.depth.filter(|_| !way.whole) {
        words.push(format!("--depth={depth}"));
    }
    // Options stand before the repository.
    let (options, refs): (Vec<_>, Vec<_>) = way.refs.iter().cloned().partition(|word| word.starts_with("--"));
    words.extend(options);
    words.push(from.to_owned());
    words.extend(refs);
    words
}

/// By which name a mirror has what is wanted; nothing where it does not keep that.
fn in_mirror(wish: &Wish) -> Option<String> {
    match (wish.is_commit(), wish.pull_request) {
        (true, _) => Some(wish.commit.clone()),
        (false, Some(number)) => Some(format!("refs/pull/{number}/head")),
        // A mirror's own head is not the server's.
        (false, None) if wish.branch.is_empty() || wish.branch == "HEAD" => None,
        (false, None) => Some(format!("refs/heads/{}", wish.branch)),
    }
}

/// A mirror's directory: the repository for people, its digest for the rest.
fn mirror_name(repository: &str) -> String {
    let shown = repository.split_once("://").map_or(repository, |(_, rest)| rest);
    // Whoever gave it a password did not mean it to be a name.
    let shown = shown.rsplit_once('@').map_or(shown, |(_, rest)| rest);
    let id: String = shown.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(120).collect();
    let digest: String = Digest::of(repository.as_bytes()).to_hex().chars().take(12).collect();
    format!("{id}-{digest}")
}

/// Tries of what may be a network's fault, with longer and longer pauses between them.
struct Tries {
    left: u32,
    wait_ms: u64,
}

impl Default for Tries {
    fn default() -> Self {
        Self { left: CHECKOUT_TRIES_MAX - 1, wait_ms: CHECKOUT_WAIT_MS }
    }
}

impl Tries {
    /// Waits for the time of another try; the cause itself where there is none.
    async fn again(&mut self, cause: Cause) -> Result<(), Cause> {
        if self.left == 0 || !is_transient(&cause) {
            return Err(cause);
        }
        tokio::time::sleep(Duration::from_millis(self.wait_ms)).await;
        (self.left, self.wait_ms) = (self.left - 1, self.wait_ms * 2);
        Ok(())
    }
}

/// Whether the same may go well in a moment: what git says of a network, and nothing of what it says of the question.
fn is_transient(cause: &Cause) -> bool {
    const WORDS: [&str; 12] = [
        "Could not resolve host",
        "Couldn't connect to server",
        "Failed to connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation timed out",
        "early EOF",
        "The remote end hung up unexpectedly",
        "unexpected disconnect",
        "The requested URL returned error: 5",
        "The requested URL returned error: 429",
    ];
    cause.kind == CauseKind::CheckoutFailed && WORDS.iter().any(|words| cause.detail.contains(words))
}

/// The agent's own git.
fn agents(dest: &Path) -> Command {
    let mut command = Command::new("git");
    // What it says is read, to tell a network's fault from an answer.
    command.current_dir(dest).env("LC_ALL", "C");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        // Nobody is there to answer a question.
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    }
    command
}

async fn run<S: AsRef<str>>(command: Command, arguments: &[S]) -> Result<(), Cause> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    match windlass_git::run(command, &arguments, Bounds::SILENT).await {
        Ok(_) => Ok(()),
        Err(GitError::Refused { said, .. }) if said.contains("No space left on device") => {
            let verb = arguments.first().copied().unwrap_or_default();
            Err(Cause::new(CauseKind::DiskFull, format!("git {verb}: {said}")))
        }
        Err(error) => Err(fail(error.to_string())),
    }
}

/// Before git hears of it.
fn refused(bad: &BadRepository) -> Cause {
    match bad {
        BadRepository::Protocol { .. } => {
            let hint =
                "an agent's operator can allow more with --git-protocol; `file` is a path of the agent's machine";
            Cause::new(CauseKind::RefusedByPolicy, format!("{bad}; {hint}"))
        }
        BadRepository::Malformed | BadRepository::Option | BadRepository::Password => fail(bad.to_string()),
    }
}

fn fail(what: String) -> Cause {
    Cause::new(CauseKind::CheckoutFailed, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::own;

    const SLOT: User = User { uid: 64_123, gid: 64_123 };

    struct World {
        dir: tempfile::TempDir,
        workspace: Workspace,
        user: Option<User>,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
            let workspace = Workspace::at(dir.path().join("work"));
            let user = rustix::process::geteuid().is_root().then_some(SLOT);
            for path in [&workspace.root, &workspace.home] {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
                own(path, user).unwrap();
            }
            fs::create_dir(&workspace.checkout).unwrap();
            Self { dir, workspace, user }
        }

        fn repository(&self, name: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir(&path).unwrap();
            sh(&path, "git init -q -b main && echo one >file && git add file && git commit -q -m one");
            path
        }

        async fn lay_out(&self, repository: &Path) -> Result<(), Cause> {
            let Workspace { checkout, .. } = &self.workspace;
            let wish = Wish { branch: "main".to_owned(), depth: Some(1), ..wish(repository) };
            let git = with_paths(None);
            let target = git.fetch(checkout, &wish).await?;
            own(checkout, self.user).unwrap();
            git.check_out(&self.workspace, self.user, &target, &spec(&[])).await
        }
    }

    /// Git that may fetch from paths of the machine.
    fn with_paths(mirrors: Option<PathBuf>) -> Git {
        let protocols = [Protocol::Https, Protocol::File].into_iter().collect();
        Git::new(None, protocols, mirrors).unwrap()
    }

    fn wish(repository: &Path) -> Wish {
        Wish { repository: repository.display().to_string(), ..Wish::default() }
    }

    fn sh(dir: &Path, script: &str) {
        let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
        assert!(command.status().unwrap().success(), "{script}");
    }

    #[tokio::test]
    async fn a_checkout_belongs_to_the_slot_s_user() {
        let world = World::new();
        world.lay_out(&world.repository("origin")).await.unwrap();
        let file = world.workspace.checkout.join("file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\n");
        if let Some(user) = world.user {
            assert_eq!(fs::metadata(&file).unwrap().uid(), user.uid);
        }
    }

    #[tokio::test]
    async fn a_submodule_that_names_a_path_of_the_machine_is_refused() {
        let world = World::new();
        let (origin, secret) = (world.repository("origin"), world.repository("secret"));
        let add = format!("git -c protocol.file.allow=always submodule --quiet add {} sub", secret.display());
        sh(&origin, &format!("{add} && git commit -q -m sub"));
        let refused = world.lay_out(&origin).await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed, "{}", refused.detail);
        assert!(!world.workspace.checkout.join("sub/file").exists());
    }

    fn spec(env: &[(&str, &str)]) -> JobSpec {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        JobSpec { env, ..crate::link_kit::job() }
    }

    /// Commit, branch and variables; the refs of each way, `!` where it is the whole history.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

    #[test]
    fn a_commit_is_fetched_the_cheapest_way_first() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let all = "--tags +refs/heads/*:refs/remotes/origin/*!";
        let table: [Row<'_>; 8] = [
            (commit, "main", &[], &[commit, all]),
            ("HEAD", "main", &[], &["main"]),
            ("HEAD", "", &[], &["HEAD"]),
            ("HEAD", "main", &[("BUILDKITE_PULL_REQUEST", "false")], &["main"]),
            ("HEAD", "x", &[("BUILDKITE_PULL_REQUEST", "7")], &["refs/pull/7/head", "x"]),
            (
                commit,
                "x",
                &[("BUILDKITE_PULL_REQUEST", "7")],
                &[&format!("refs/pull/7/head {commit}"), commit, "refs/pull/7/head!", all],
            ),
            ("HEAD", "main", &[("BUILDKITE_REFSPEC", " refs/a  refs/b:refs/c ")], &["refs/a refs/b:refs/c"]),
            (commit, "main", &[("BUILDKITE_REFSPEC", "refs/a")], &["refs/a", "refs/a!", all]),
        ];
        for (commit, branch, env, wanted) in table {
            let ways = Wish::of(&spec(env), "r", commit, branch).ways();
            let shown = |way: &Way| format!("{}{}", way.refs.join(" "), if way.whole { "!" } else { "" });
            assert_eq!(ways.iter().map(shown).collect::<Vec<_>>(), wanted, "{commit} {branch} {env:?}");
        }
    }

    #[test]
    fn of_a_job_s_flags_the_agent_s_git_gets_the_depth_alone() {
        let depth = |env: &[(&str, &str)]| Wish::of(&spec(env), "r", "HEAD", "main").depth;
        assert_eq!(depth(&[]), Some(1));
        assert_eq!(depth(&[("BUILDKITE_GIT_FETCH_FLAGS", "-v --prune")]), None);
        assert_eq!(
            depth(&[("BUILDKITE_GIT_CLONE_FLAGS", "-v --depth=3"), ("BUILDKITE_GIT_FETCH_FLAGS", "--depth=9")]),
            Some(9)
        );
        let hostile =
            Wish::of(&spec(&[("BUILDKITE_GIT_FETCH_FLAGS", "--upload-pack=/tmp/x --depth=2")]), "r", "HEAD", "b");
        let way = hostile.ways().remove(0);
        let words = fetch_words(&hostile, &way, "origin");
        assert_eq!(words, ["fetch", "--quiet", "--no-recurse-submodules", "--depth=2", "origin", "b"]);
    }

    #[test]
    fn only_what_a_network_says_is_tried_again() {
        for (said, transient) in [
            ("git fetch: fatal: unable to access 'x': Could not resolve host: a", true),
            ("git fetch: error: RPC failed; fatal: early EOF", true),
            ("git fetch: The requested URL returned error: 503", true),
            ("git fetch: The requested URL returned error: 404", false),
            ("git fetch: fatal: couldn't find remote ref x", false),
            ("git fetch: fatal: Authentication failed for 'x'", false),
            ("git fetch: fatal: '/x' does not appear to be a git repository", false),
        ] {
            assert_eq!(is_transient(&fail(said.to_owned())), transient, "{said}");
        }
    }

    #[tokio::test]
    async fn a_mirror_is_asked_first_and_brought_up_to_date_where_it_lacks_something() {
        let world = World::new();
        let origin = world.repository("origin");
        let commit = |name: &str| {
            sh(&origin, &format!("echo {name} >file && git commit -qam {name} && git rev-parse HEAD >../head"));
            fs::read_to_string(world.dir.path().join("head")).unwrap().trim().to_owned()
        };
        let (first, mirrors) = (commit("first"), world.dir.path().join("mirrors"));
        let git = with_paths(Some(mirrors.clone()));
        let fetch = async |name: &str, commit: &str| {
            let dest = world.dir.path().join(name);
            fs::create_dir(&dest).unwrap();
            let wish = Wish { commit: commit.to_owned(), branch: "main".to_owned(), depth: Some(1), ..wish(&origin) };
            let target = git.fetch(&dest, &wish).await?;
            sh(&dest, &format!("git checkout -q --detach {target}"));
            Ok::<_, Cause>(fs::read_to_string(dest.join("file")).unwrap())
        };
        assert_eq!(fetch("a", &first).await.unwrap(), "first\n");
        assert_eq!(fs::metadata(&mirrors).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!world.dir.path().join("a/.git/objects/info/alternates").exists(), "a job needs no mirror");
        // What it has it serves without the server; what it lacks it fetches.
        let second = commit("second");
        fs::rename(&origin, world.dir.path().join("away")).unwrap();
        assert_eq!(fetch("b", &first).await.unwrap(), "first\n");
        assert!(fetch("c", &second).await.is_err(), "nobody has it");
        fs::rename(world.dir.path().join("away"), &origin).unwrap();
        assert_eq!(fetch("d", &second).await.unwrap(), "second\n");
        assert_eq!(fetch("e", "HEAD").await.unwrap(), "second\n");
        // One that is not whole is not believed.
        let mirror =
            fs::read_dir(&mirrors).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
        sh(&mirror, "rm -rf objects/pack objects/??");
        assert_eq!(fetch("f", &second).await.unwrap(), "second\n");
        assert_eq!(fetch("g", &first).await.unwrap(), "first\n");
    }

    #[tokio::test]
    async fn the_head_of_a_pull_request_is_fetched_by_its_ref() {
        let world = World::new();
        let origin = world.repository("origin");
        sh(
            &origin,
            "git checkout -q -b side && echo pr >file && git commit -qam pr && git update-ref refs/pull/7/head HEAD && \
                     git checkout -q main && git branch -q -D side",
        );
        for mirrors in [None, Some(world.dir.path().join("mirrors"))] {
            let git = with_paths(mirrors.clone());
            let dest = world.dir.path().join(if mirrors.is_some() { "mirrored" } else { "plain" });
            fs::create_dir(&dest).unwrap();
            let wish = Wish { pull_request: Some(7), branch: "gone".to_owned(), depth: Some(1), ..wish(&origin) };
            let target = git.fetch(&dest, &wish).await.unwrap();
            sh(&dest, &format!("git checkout -q --detach {target}"));
            assert_eq!(fs::read_to_string(dest.join("file")).unwrap(), "pr\n");
        }
    }

    #[tokio::test]
    async fn a_plugin_is_cloned_at_its_version_without_what_a_tree_could_run() {
        let world = World::new();
        let origin = world.repository("origin");
        sh(&origin, "git tag v1 && echo two >file && git commit -qam two && git rev-parse HEAD >../head");
        let head = fs::read_to_string(world.dir.path().join("head")).unwrap().trim().to_owned();
        for (at, (version, content)) in
            [(Some("v1"), "one\n"), (None, "two\n"), (Some("main"), "two\n"), (Some(&head[..9]), "two\n")]
                .into_iter()
                .enumerate()
        {
            let dest = world.dir.path().join(format!("plugin-{at}"));
            fs::create_dir(&dest).unwrap();
            let commit = with_paths(None).clone_for_all(&dest, &origin.display().to_string(), version).await.unwrap();
            assert_eq!(fs::read_to_string(dest.join("file")).unwrap(), content, "{version:?}");
            assert!(commit.len() == 40 && !dest.join(".git").exists(), "{version:?}: {commit}");
        }
    }

    #[tokio::test]
    async fn a_path_of_the_machine_is_refused_before_git_hears_of_it() {
        let world = World::new();
        let (origin, checkout) = (world.repository("origin").display().to_string(), &world.workspace.checkout);
        for repository in [origin.clone(), format!("file://{origin}")] {
            let wish = Wish { branch: "main".to_owned(), ..wish(Path::new(&repository)) };
            let refused = Git::default().fetch(checkout, &wish).await.unwrap_err();
            assert_eq!(refused.kind, CauseKind::RefusedByPolicy, "{}", refused.detail);
            let refused = Git::default().clone_for_all(checkout, &repository, Some("main")).await.unwrap_err();
            assert_eq!(refused.kind, CauseKind::RefusedByPolicy, "a plugin: {}", refused.detail);
            assert!(!checkout.join(".git").exists(), "git has run");
        }
    }

    #[tokio::test]
    async fn a_url_that_the_machine_s_configuration_makes_a_path_is_refused_by_git() {
        let world = World::new();
        let origin = world.repository("origin");
        let rewrite = format!("url.{}.insteadOf=https://host.invalid/origin", origin.display());
        let git = Git::default();
        let mut command = git.command(&world.workspace.checkout);
        command.args(["-c", &rewrite]);
        let refused = run(command, &["ls-remote", "https://host.invalid/origin"]).await.unwrap_err();
        assert!(refused.detail.contains("not allowed"), "{}", refused.detail);
    }

    #[tokio::test]
    async fn what_looks_like_an_option_is_no_repository() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Git::default().fetch(dir.path(), &wish(Path::new("--upload-pack=touch x"))).await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed);
    }
}
