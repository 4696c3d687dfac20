//! A commit from a repository, in two parts that trust each other in nothing but the objects between them.
//!
//! *Fetching* runs as the agent, with the credentials of the file that it was given, else with what its own git has
//! (helpers, keys), and touches no file of the tree. No secret of them is in what it says, nor in the checkout. *Checking
//! out* runs as the slot's user with a clean environment: filters, submodules and whatever else a hostile tree brings into
//! play have the job's rights and no credentials, so a submodule that needs any is refused, and so is one that names a path
//! of this machine. Hooks never run. Both go only by the protocols that the agent's operator allows (see [`protocol`]).

pub mod protocol;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use windlass_agent_runner::launch::User;
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::host::read_private;
use windlass_protocol::limits::GIT_SAID_MAX_BYTES;

use crate::environment::PATH;
use crate::error::Fault;
use crate::git::protocol::GitProtocols;
use crate::workspace::Workspace;

/// Answers git's questions from the file, and does nothing else: git's own `store` would take an entry out of the file
/// when a server refuses it, be it for a moment.
const HELPER: &str = r#"!f() { test "$1" = get && git credential-store --file "$WINDLASS_GIT_CREDENTIALS" get; }; f"#;

/// The agent's git.
#[derive(Debug, Clone, Default)]
pub(crate) struct Git {
    credentials: Option<PathBuf>,
    protocols: GitProtocols,
}

impl Git {
    /// With the credentials of a file, by these protocols.
    ///
    /// # Errors
    /// [`Fault::File`] where there is none, or others may read it.
    pub(crate) fn new(credentials: Option<PathBuf>, protocols: GitProtocols) -> Result<Self, Fault> {
        let git = Self { credentials, protocols };
        let path = git.credentials.clone().unwrap_or_default();
        git.secrets().map_err(|source| Fault::File { doing: "git credentials cannot be used:", path, source })?;
        Ok(git)
    }

    /// The secrets of the file, as they stand there and as they are meant; the file may have changed since the last time.
    fn secrets(&self) -> io::Result<Vec<String>> {
        let Some(path) = &self.credentials else { return Ok(Vec::new()) };
        let bytes = read_private(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(String::from_utf8_lossy(&bytes).lines().flat_map(secrets_of).collect())
    }

    /// Fetches one commit into `dest`, an empty directory of the agent's own. Gives what to check out.
    pub(crate) async fn fetch(
        &self,
        dest: &Path,
        repository: &str,
        commit: &str,
        branch: &str,
    ) -> Result<String, Cause> {
        let secrets = self.secrets().map_err(|e| fail(format!("the agent's git credentials cannot be read: {e}")))?;
        let fetched = self.fetch_told(dest, repository, commit, branch).await;
        fetched.map_err(|cause| Cause::new(cause.kind, without_secrets(&cause.detail, &secrets)))
    }

    async fn fetch_told(&self, dest: &Path, repository: &str, commit: &str, branch: &str) -> Result<String, Cause> {
        if [repository, commit, branch].iter().any(|text| text.starts_with('-') || text.contains('\0')) {
            return Err(fail("the repository, commit or branch is not one".to_owned()));
        }
        self.protocols.admit(repository)?;
        let git = async |arguments: &[&str]| run(self.command(dest), arguments).await;
        git(&["init", "--quiet", "--template="]).await?;
        git(&["remote", "add", "origin", repository]).await?;
        let get = ["fetch", "--quiet", "--no-recurse-submodules"];
        let is_commit = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if is_commit {
            let alone = [&get[..], &["--depth=1", "origin", commit]].concat();
            if git(&alone).await.is_err() {
                // Servers that serve no single commits: all branches with their history.
                git(&[&get[..], &["--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"]].concat()).await?;
            }
            return Ok(commit.to_owned());
        }
        let wanted = if branch.is_empty() { "HEAD" } else { branch };
        git(&[&get[..], &["--depth=1", "origin", wanted]].concat()).await?;
        Ok("FETCH_HEAD".to_owned())
    }

    /// Lays out what was fetched, which belongs to the slot's user by now.
    pub(crate) async fn check_out(&self, workspace: &Workspace, user: Option<User>, target: &str) -> Result<(), Cause> {
        let git = async |arguments: &[&str]| run(self.jobs(workspace, user), arguments).await;
        git(&["checkout", "--quiet", "--force", "--detach", target]).await?;
        git(&["submodule", "update", "--quiet", "--init", "--recursive", "--force"]).await
    }

    /// Git as the job would run it.
    fn jobs(&self, workspace: &Workspace, user: Option<User>) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&workspace.checkout).env_clear();
        command
            .env("PATH", PATH)
            .env("HOME", &workspace.home)
            .env("LANG", "C.UTF-8")
            .env("GIT_ALLOW_PROTOCOL", self.protocols.for_submodules())
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn command(&self, dest: &Path) -> Command {
        let mut command = agents(dest);
        command.env("GIT_ALLOW_PROTOCOL", self.protocols.for_fetching());
        if let Some(path) = &self.credentials {
            // The empty one takes back the helpers of the user's own configuration.
            command.args(["-c", "credential.helper=", "-c", &format!("credential.helper={HELPER}")]);
            command.env("WINDLASS_GIT_CREDENTIALS", path);
        }
        command
    }
}

/// The password of a line of the file, as it stands there and percent-decoded.
fn secrets_of(line: &str) -> Vec<String> {
    let userinfo =
        line.trim().split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(userinfo, _)| userinfo);
    let Some((_, password)) = userinfo.and_then(|userinfo| userinfo.split_once(':')) else { return Vec::new() };
    let mut both = vec![password.to_owned(), percent_decoded(password)];
    both.dedup();
    both.retain(|secret| !secret.is_empty());
    both
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.split_first_chunk::<2>().and_then(|(digits, after)| {
            let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            Some((value, after))
        });
        match digits {
            Some((value, after)) if *byte == b'%' => {
                bytes.push(value);
                rest = after;
            }
            Some(_) | None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What git says without the secrets that it was given, and without what stands before the host in any URL.
fn without_secrets(said: &str, secrets: &[String]) -> String {
    let mut text = said.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c == '/' || c == '\'' || c == '"' || c.is_whitespace()).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The agent's own git.
fn agents(dest: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dest);
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        // Nobody is there to answer a question.
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    }
    command
}

/// The process group of a running git: ended with all that it started when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // One that ended meanwhile is what was wanted.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn run(mut command: Command, arguments: &[&str]) -> Result<(), Cause> {
    let failed = |e: io::Error| fail(format!("git cannot be run: {e}"));
    let mut child = command
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let mut said = Vec::new();
    if let Some(mut errors) = child.stderr.take() {
        (&mut errors).take(GIT_SAID_MAX_BYTES).read_to_end(&mut said).await.map_err(failed)?;
        // The rest is read and dropped: git must not wait for us.
        tokio::io::copy(&mut errors, &mut tokio::io::sink()).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(1_000).collect();
    let verb = arguments.first().copied().unwrap_or_default();
    let kind = if said.contains("No space left on device") { CauseKind::DiskFull } else { CauseKind::CheckoutFailed };
    Err(Cause::new(kind, format!("git {verb}: {said}")))
}

fn fail(what: String) -> Cause {
    Cause::new(CauseKind::CheckoutFailed, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
    use std::path::PathBuf;

    use super::protocol::GitProtocol;
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
            let git =
                Git { credentials: None, protocols: [GitProtocol::Https, GitProtocol::File].into_iter().collect() };
            let target = git.fetch(checkout, &repository.display().to_string(), "", "main").await?;
            own(checkout, self.user).unwrap();
            git.check_out(&self.workspace, self.user, &target).await
        }
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

    #[test]
    fn what_is_said_holds_no_secret() {
        let secrets: Vec<_> = secrets_of("https://ci:p%40ss%2Fword@git.example.org\n");
        assert_eq!(secrets, ["p%40ss%2Fword", "p@ss/word"]);
        let said =
            "fatal: p@ss/word: 'https://ci:p%40ss%2Fword@git.example.org/a.git' and http://x:y@h z@w ssh://g@h:1/p";
        let wanted = "fatal: ***: 'https://***@git.example.org/a.git' and http://***@h z@w ssh://***@h:1/p";
        assert_eq!(without_secrets(said, &secrets), wanted);
        for plain in ["", "# comment", "https://host", "https://user@host", "https://user:@host"] {
            assert_eq!(secrets_of(plain), Vec::<String>::new(), "{plain}");
        }
    }

    #[test]
    fn credentials_that_others_may_read_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let with = |path: &Path| Git::new(Some(path.to_owned()), GitProtocols::default());
        assert!(with(&path).is_err(), "there is none");
        fs::write(&path, "https://a:b@c\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(with(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(with(&path).unwrap().secrets().unwrap(), ["b"]);
    }

    #[tokio::test]
    async fn a_path_of_the_machine_is_refused_before_git_hears_of_it() {
        let world = World::new();
        let origin = world.repository("origin").display().to_string();
        for repository in [origin.clone(), format!("file://{origin}")] {
            let refused = Git::default().fetch(&world.workspace.checkout, &repository, "", "main").await.unwrap_err();
            assert_eq!(refused.kind, CauseKind::RefusedByPolicy, "{}", refused.detail);
            assert!(!world.workspace.checkout.join(".git").exists(), "git has run");
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
        let refused = Git::default().fetch(dir.path(), "--upload-pack=touch x", "", "").await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed);
    }
}
