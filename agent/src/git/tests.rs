//! Real gits on real repositories, by paths of this machine.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use windlass_agent_runner::launch::User;
use windlass_git::Protocol;
use windlass_protocol::Namespace;
use windlass_protocol::job::JobSpec;

use super::wish::Way;
use super::*;
use crate::workspace::{Workspace, own};

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
    let limits = Limits { bytes: u64::MAX, count: 10 };
    Git::new(None, protocols, mirrors.map(|path| (path, limits))).unwrap()
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
    let table: [Row<'_>; 11] = [
        (commit, "main", &[], &[commit, all]),
        ("HEAD", "main", &[], &["refs/heads/main"]),
        ("HEAD", "", &[], &["HEAD"]),
        ("HEAD", "main", &[("BUILDKITE_PULL_REQUEST", "false")], &["refs/heads/main"]),
        ("HEAD", "main", &[("BUILDKITE_TAG", "v1")], &["refs/heads/main"]),
        ("HEAD", "v1", &[("BUILDKITE_TAG", "v1")], &["refs/tags/v1"]),
        ("HEAD", "refs/pull/7/head", &[], &["refs/pull/7/head"]),
        ("HEAD", "x", &[("BUILDKITE_PULL_REQUEST", "7")], &["refs/pull/7/head", "refs/heads/x"]),
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
    let hostile = Wish::of(&spec(&[("BUILDKITE_GIT_FETCH_FLAGS", "--upload-pack=/tmp/x --depth=2")]), "r", "HEAD", "b");
    let way = hostile.ways().remove(0);
    let words = fetch_words(&hostile, &way, "origin");
    assert_eq!(words, ["fetch", "--quiet", "--no-recurse-submodules", "--depth=2", "origin", "refs/heads/b"]);
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
    let mirror = fs::read_dir(&mirrors).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
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
        let commit =
            with_paths(None).clone_for_all(&dest, &origin.display().to_string(), version, Who::Nobody).await.unwrap();
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
        let refused = Git::default().clone_for_all(checkout, &repository, Some("main"), Who::Agent).await.unwrap_err();
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
    let mut command = git.command(&world.workspace.checkout, &Who::Agent);
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

#[tokio::test]
async fn a_commit_is_on_its_branch_or_the_step_hears_of_it() {
    let world = World::new();
    let origin = world.repository("origin");
    sh(&origin, "git config uploadpack.allowFilter true; git config uploadpack.allowAnySHA1InWant true");
    let id = |script: &str| {
        sh(&origin, &format!("{script} >../id"));
        fs::read_to_string(world.dir.path().join("id")).unwrap().trim().to_owned()
    };
    let first = id("git rev-parse HEAD");
    sh(
        &origin,
        "echo two >file; git commit -qam two; git checkout -q -b side; echo three >file; git commit -qam three",
    );
    let side = id("git rev-parse HEAD");
    sh(&origin, "git checkout -q main; git tag side2 side; git update-ref refs/tags/main refs/heads/side");
    // A path is copied whole; a URL goes through the protocol.
    let repository = format!("file://{}", origin.display());
    for mirrors in [None, Some(world.dir.path().join("mirrors"))] {
        let git = with_paths(mirrors.clone());
        let scratch = world.dir.path().join("scratch");
        let verify = async |commit: &str, change: &dyn Fn(&mut Wish), how| {
            let mut wish = Wish { repository: repository.clone(), commit: commit.to_owned(), ..Wish::default() };
            wish.branch = "main".to_owned();
            change(&mut wish);
            git.verify(&scratch, &wish, how).await
        };
        let same = |_: &mut Wish| {};
        for commit in [&first, &id("git rev-parse refs/heads/main")] {
            assert_eq!(verify(commit, &same, Verification::Strict).await.unwrap(), None);
        }
        let refused = verify(&side, &same, Verification::Strict).await.unwrap_err();
        assert_eq!(refused.kind, CauseKind::CheckoutFailed);
        assert!(
            refused.detail.contains("is not on refs/heads/main"),
            "a tag of its name is no branch: {}",
            refused.detail
        );
        let told = verify(&side, &same, Verification::Warn).await.unwrap().unwrap();
        assert!(told.contains(&side) && told.contains("refs/heads/main"), "{told}");
        let gone = |wish: &mut Wish| wish.branch = "gone".to_owned();
        assert!(verify(&first, &gone, Verification::Strict).await.is_err());
        // What a client says in variables takes no claim away.
        let variables = |wish: &mut Wish| (wish.pull_request, wish.refspec) = (Some(7), vec!["x".to_owned()]);
        assert!(verify(&side, &variables, Verification::Strict).await.is_err());
        // What is not said to be on a branch is not looked at, and neither is what nobody wants to know.
        let asides: [&dyn Fn(&mut Wish); 3] =
            [&|wish| wish.is_tag = true, &|wish| wish.is_pull_request = true, &|wish| wish.branch = String::new()];
        for aside in asides {
            assert_eq!(verify(&side, aside, Verification::Strict).await.unwrap(), None);
        }
        assert_eq!(verify("HEAD", &same, Verification::Strict).await.unwrap(), None);
        assert_eq!(verify(&side, &same, Verification::Off).await.unwrap(), None);
        assert!(!scratch.exists(), "what was looked into is gone");
    }
    let of = |how: &str| Verification::of(&spec(&[("BUILDKITE_GIT_COMMIT_VERIFICATION", how)]));
    assert!(of("maybe").is_err() && of("strict") == Ok(Verification::Strict) && of("") == Ok(Verification::Off));
}

#[test]
fn a_build_is_of_a_pull_request_by_its_namespace_and_by_no_variable() {
    let number = ("BUILDKITE_PULL_REQUEST", "7");
    for (namespace, expected) in [
        (Namespace::trusted("p"), false),
        (Namespace::overlay("p", "token:x"), false),
        (Namespace::overlay("p", "pr:7"), true),
    ] {
        let spec = JobSpec { namespace, ..spec(&[number]) };
        let wish = Wish::of(&spec, "r", "HEAD", "main");
        assert_eq!((wish.is_pull_request, wish.pull_request), (expected, Some(7)), "{}", spec.namespace);
    }
}

#[tokio::test]
async fn a_damaged_mirror_is_made_anew() {
    let world = World::new();
    let origin = world.repository("origin");
    let mirrors = world.dir.path().join("mirrors");
    let git = with_paths(Some(mirrors.clone()));
    let mirror =
        || fs::read_dir(&mirrors).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let fetch = async |name: &str| {
        let dest = world.dir.path().join(name);
        fs::create_dir(&dest).unwrap();
        git.fetch(&dest, &Wish { branch: "main".to_owned(), ..wish(&origin) }).await
    };
    fetch("a").await.unwrap();
    let set = fs::read_to_string(mirror().join("config")).unwrap();
    assert!(set.contains("unpackLimit = 1") && set.contains("fsync = all"), "{set}");
    let damages =
        [": >refs/heads/main", "git pack-refs --all; truncate -s -20 packed-refs", "rm -rf objects/pack objects/??"];
    for (at, damage) in damages.into_iter().enumerate() {
        sh(&mirror(), damage);
        sh(&origin, &format!("echo {at} >file; git commit -qam {at}"));
        let seen = fetch(&format!("{at}")).await.map(drop);
        assert_eq!(seen, Ok(()), "{damage}");
        let head = format!("test $(git rev-parse FETCH_HEAD) = $(git -C {} rev-parse main)", origin.display());
        sh(&world.dir.path().join(at.to_string()), &head);
        sh(&mirror(), "git fsck --strict --no-dangling && git rev-parse --verify -q main");
    }
    // What a server says is none: nothing is made anew for it.
    let marked = mirror().join("marked");
    fs::write(&marked, "").unwrap();
    fs::rename(&origin, world.dir.path().join("away")).unwrap();
    let refused = fetch("refused").await.unwrap_err();
    assert!(marked.exists(), "{}", refused.detail);
}

#[tokio::test]
async fn a_mirror_is_locked_by_the_git_that_works_in_it() {
    let world = World::new();
    let origin = world.repository("origin");
    let mirrors = world.dir.path().join("mirrors");
    let git = with_paths(Some(mirrors.clone()));
    let fetch = async |name: &str| {
        let dest = world.dir.path().join(name);
        fs::create_dir(&dest).unwrap();
        git.fetch(&dest, &Wish { branch: "main".to_owned(), ..wish(&origin) }).await.unwrap();
    };
    fetch("a").await;
    // The server's side of a path is started by the git that fetches, or by a shell of its.
    let (served, seen) = (world.dir.path().join("served"), world.dir.path().join("seen"));
    let parents = "for p in $PPID $(cut -d' ' -f4 /proc/$PPID/stat); do readlink /proc/$p/fd/0; done";
    let script = format!("#!/bin/sh\n({parents}) >{}\nexec git-upload-pack \"$@\"\n", seen.display());
    fs::write(&served, script).unwrap();
    fs::set_permissions(&served, fs::Permissions::from_mode(0o755)).unwrap();
    let mirror = fs::read_dir(&mirrors).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    sh(&mirror, &format!("git config remote.origin.uploadpack {}", served.display()));
    sh(&origin, "echo two >file; git commit -qam two");
    fetch("b").await;
    let seen = fs::read_to_string(&seen).unwrap();
    let lock = mirrors.join(format!(".lock-{}", mirror.file_name().unwrap().to_str().unwrap()));
    assert!(seen.lines().any(|line| line == lock.to_str().unwrap()), "{seen}");
}

#[tokio::test]
async fn a_branch_is_fetched_and_no_tag_of_its_name() {
    let world = World::new();
    let origin = world.repository("origin");
    sh(
        &origin,
        "git checkout -q -b side; echo evil >file; git commit -qam evil; git tag main; git checkout -q heads/main",
    );
    for mirrors in [None, Some(world.dir.path().join("mirrors"))] {
        let dest = world.dir.path().join(if mirrors.is_some() { "mirrored" } else { "plain" });
        fs::create_dir(&dest).unwrap();
        let wish = Wish { branch: "main".to_owned(), depth: Some(1), ..wish(&origin) };
        let target = with_paths(mirrors).fetch(&dest, &wish).await.unwrap();
        sh(&dest, &format!("git checkout -q --detach {target}"));
        assert_eq!(fs::read_to_string(dest.join("file")).unwrap(), "one\n");
    }
}

#[tokio::test]
async fn a_step_s_own_key_neither_reads_mirrors_nor_adds_to_them_and_is_not_told() {
    let world = World::new();
    let origin = world.repository("origin");
    let mirrors = world.dir.path().join("mirrors");
    let git = with_paths(Some(mirrors.clone()));
    let text = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n";
    let key = Who::Key(Arc::new(SshKey::new(text).unwrap()));
    let fetch = async |name: &str, who: &Who| {
        let dest = world.dir.path().join(name);
        fs::create_dir(&dest).unwrap();
        git.fetch(&dest, &Wish { branch: "main".to_owned(), who: who.clone(), ..wish(&origin) }).await
    };
    fetch("a", &key).await.unwrap();
    let kept = || fs::read_dir(&mirrors).unwrap().count();
    assert_eq!(kept(), 0, "nothing of it is kept");
    fetch("b", &Who::Agent).await.unwrap();
    assert!(kept() > 0);
    fs::rename(&origin, world.dir.path().join("away")).unwrap();
    let failed = fetch("c", &key).await.unwrap_err();
    assert!(!failed.detail.contains("c2VjcmV0"), "{}", failed.detail);
}

#[tokio::test]
async fn mirrors_beyond_their_bounds_go_and_are_made_again() {
    let world = World::new();
    let (one, two) = (world.repository("one"), world.repository("two"));
    let mirrors = world.dir.path().join("mirrors");
    let limits = Limits { bytes: u64::MAX, count: 1 };
    let git = Git::new(None, [Protocol::File].into_iter().collect(), Some((mirrors.clone(), limits))).unwrap();
    for (name, origin) in [("a", &one), ("b", &two), ("c", &one)] {
        let dest = world.dir.path().join(name);
        fs::create_dir(&dest).unwrap();
        git.fetch(&dest, &Wish { branch: "main".to_owned(), ..wish(origin) }).await.unwrap();
    }
    let kept = || {
        let names = fs::read_dir(&mirrors).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".git") && !name.starts_with('.')).collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while kept().len() > 1 || !kept()[0].contains("-one-") {
        assert!(std::time::Instant::now() < deadline, "{:?} are kept", kept());
        tokio::task::yield_now().await;
    }
}
