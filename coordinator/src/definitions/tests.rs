//! Real gits on real repositories, by paths of this machine.

use std::fs;
use std::process::Command;

use windlass_git::Protocol;

use super::*;

const TEXT: &str = "steps: [{ command: make }]\n";

/// A repository on a disk, and a coordinator's mirrors of it.
struct World {
    dir: tempfile::TempDir,
    definitions: Definitions,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options { protocols: [Protocol::File].into_iter().collect(), ..Options::default() };
        change(&mut options);
        let world = Self { definitions: Definitions::new(dir.path().join("mirrors"), options), dir };
        fs::create_dir(world.origin()).unwrap();
        world.sh("git init -q -b main; git config uploadpack.allowFilter true");
        world
    }

    fn origin(&self) -> PathBuf {
        self.dir.path().join("origin")
    }

    /// The one mirror, once it is there.
    fn mirror(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("mirrors")).into_iter().flatten();
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|it| it == "git") && path.is_dir())
    }

    /// Runs a script in the repository, gives what it prints.
    fn sh(&self, script: &str) -> String {
        let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.origin()).envs(identity.map(|name| (name, "t@example.invalid")));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits a file on the branch that is checked out, gives the commit.
    fn commit(&self, path: &str, text: &str) -> String {
        let file = self.origin().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        self.sh(&format!("git add -A; git commit -q -m 'about {path}'; git rev-parse HEAD"))
    }

    fn wanted(&self) -> Wanted {
        let protected = ["main", "release/*", "refs/tags/v*"].map(str::to_owned).to_vec();
        Wanted { repository: self.origin().display().to_string(), protected, ..Wanted::default() }
    }

    async fn read(&self, change: impl FnOnce(&mut Wanted)) -> Result<Found, DefinitionError> {
        let mut wanted = self.wanted();
        change(&mut wanted);
        self.definitions.read(wanted).await
    }

    async fn standing(&self, change: impl FnOnce(&mut Wanted)) -> Standing {
        self.read(change).await.unwrap().standing
    }
}

/// A megabyte that compression does not make small.
fn noise() -> String {
    (0..16_384_u32).map(|n| Digest::of(&n.to_le_bytes()).to_hex()).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn protected(reference: &str) -> Standing {
    Standing::Protected { reference: reference.to_owned() }
}

#[track_caller]
fn unprotected(standing: &Standing, words: &str) {
    assert!(matches!(standing, Standing::Unprotected { why } if why.contains(words)), "{standing:?}");
}

#[tokio::test]
async fn branches_tags_heads_and_commits_are_found() {
    let world = World::new();
    let first = world.commit(".windlass/pipeline.yml", TEXT);
    world.sh("git tag -a v1 -m one; git tag light; git branch topic/x");
    let second = world.commit(".windlass/pipeline.yml", "steps: [wait]\n");
    let found = world.read(|_| {}).await.unwrap();
    assert_eq!(
        (found.commit.as_str(), found.reference, found.text.as_str()),
        (second.as_str(), None, "steps: [wait]\n")
    );
    assert_eq!((found.file.as_str(), found.message.as_str()), (OWN, "about .windlass/pipeline.yml"));
    let found = world.read(|it| it.default_branch = some("topic/x")).await.unwrap();
    assert_eq!((found.commit.as_str(), found.reference), (first.as_str(), some("refs/heads/topic/x")));
    for (branch, tag) in [(some("topic/x"), None), (None, some("v1")), (some("v1"), some("v1")), (None, some("light"))]
    {
        let found = world.read(|it| (it.branch, it.tag, it.commit) = (branch.clone(), tag.clone(), some("HEAD"))).await;
        let found = found.unwrap();
        assert_eq!((found.commit.as_str(), found.text.as_str()), (first.as_str(), TEXT), "{branch:?} {tag:?}");
    }
    let found = world.read(|it| it.commit = some(&first.to_uppercase())).await.unwrap();
    assert_eq!((found.commit, found.text.as_str()), (first, TEXT));
}

#[tokio::test]
async fn what_was_pushed_before_asking_is_seen() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    assert_eq!(world.read(|_| {}).await.unwrap().text, TEXT);
    for n in 0..3 {
        let text = format!("steps: [wait]\n# {n}\n");
        let commit = world.commit("buildkite.yml", &text);
        let reads = (0..8).map(|_| world.read(|it| it.branch = some("main")));
        for found in futures_util::future::join_all(reads).await {
            let found = found.unwrap();
            assert_eq!((&found.commit, &found.text), (&commit, &text));
        }
    }
}

#[tokio::test]
async fn the_file_is_chosen_as_in_a_tree() {
    let world = World::new();
    world.commit("other", "x");
    let none = world.read(|_| {}).await.unwrap_err();
    assert!(matches!(none, DefinitionError::NoFile { .. }), "{none}");
    world.commit(".buildkite/pipeline.yaml", TEXT);
    assert_eq!(world.read(|_| {}).await.unwrap().file, ".buildkite/pipeline.yaml");
    world.commit("buildkite.json", "{}");
    let several = world.read(|_| {}).await.unwrap_err().to_string();
    assert!(several.contains("several pipelines (buildkite.json, .buildkite/pipeline.yaml)"), "{several}");
    world.commit(".windlass/pipeline.yml", "steps: []\n");
    assert_eq!(world.read(|_| {}).await.unwrap().file, OWN, "ours comes first");
    world.commit("ci/[a]*.yml", TEXT);
    assert_eq!(world.read(|it| it.file = some("ci/[a]*.yml")).await.unwrap().text, TEXT);
    let absent = world.read(|it| it.file = some("ci/no.yml")).await.unwrap_err();
    assert!(matches!(&absent, DefinitionError::NoSuchFile { path, .. } if path == "ci/no.yml"), "{absent}");
    for bad in ["/etc/passwd", "../x", "a/../b", "", "a//b", "a\nb"] {
        let refused = world.read(|it| it.file = some(bad)).await.unwrap_err();
        assert!(matches!(refused, DefinitionError::BadPath(_)), "{bad:?}");
    }
}

#[tokio::test]
async fn files_that_are_no_pipeline_are_refused() {
    let world = World::new();
    let path = ".windlass/pipeline.yml";
    world.commit(path, "");
    assert!(matches!(world.read(|_| {}).await, Err(DefinitionError::NotText { what: "empty", .. })));
    let large = "#".repeat(windlass_protocol::limits::PIPELINE_MAX_BYTES + 1);
    world.commit(path, &large);
    assert!(matches!(world.read(|_| {}).await, Err(DefinitionError::TooLarge { .. })));
    world.commit(path, &large[1..]);
    assert!(world.read(|_| {}).await.is_ok());
    world.sh("printf 'a\\377' >.windlass/pipeline.yml; git commit -qam latin");
    assert!(matches!(world.read(|_| {}).await, Err(DefinitionError::NotText { what: "not UTF-8", .. })));
    world.sh("rm .windlass/pipeline.yml; ln -s /etc/hostname .windlass/pipeline.yml; git commit -qam link");
    assert!(matches!(world.read(|_| {}).await, Err(DefinitionError::NoFile { .. })), "links are not followed");
}

#[tokio::test]
async fn what_a_repository_has_not_is_said_by_kind() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    let absent = "0123456789".repeat(4);
    assert!(matches!(world.read(|it| it.commit = some(&absent)).await, Err(DefinitionError::NoSuchCommit(_))));
    assert!(matches!(world.read(|it| it.branch = some("gone")).await, Err(DefinitionError::NoSuchReference(_))));
    assert!(matches!(world.read(|it| it.tag = some("gone")).await, Err(DefinitionError::NoSuchReference(_))));
    let pull = world.read(|it| it.branch = some("refs/pull/1/head")).await;
    assert!(matches!(pull, Err(DefinitionError::NoSuchReference(_))), "{pull:?}");
    for bad in ["abc", "main", "--all", "HEAD~1", &"g".repeat(40)] {
        assert!(matches!(world.read(|it| it.commit = some(bad)).await, Err(DefinitionError::BadCommit)), "{bad}");
    }
    let nowhere = world.dir.path().join("nowhere").display().to_string();
    let error = world.read(|it| it.repository = nowhere).await.unwrap_err();
    assert!(matches!(&error, DefinitionError::Unreachable { said } if !said.is_empty()), "{error}");
    let blob = world.sh("git rev-parse HEAD:buildkite.yml");
    let error = world.read(|it| it.commit = some(&blob)).await.unwrap_err();
    assert!(matches!(error, DefinitionError::NoSuchCommit(_)), "a file is no commit: {error}");
    let empty = World::new();
    assert!(matches!(empty.read(|_| {}).await, Err(DefinitionError::NoSuchReference(name)) if name == "HEAD"));
}

#[tokio::test]
async fn repositories_are_fetched_only_by_what_the_operator_allows() {
    let world = World::with(|options| options.protocols = Protocols::default());
    world.commit("buildkite.yml", TEXT);
    let file = format!("file://{}", world.origin().display());
    let touched = world.dir.path().join("touched");
    let program = format!("ext::sh -c touch% {}", touched.display());
    for bad in [world.origin().display().to_string(), file, program, "--upload-pack=x".to_owned()] {
        let refused = world.read(|it| it.repository.clone_from(&bad)).await.unwrap_err();
        assert!(matches!(refused, DefinitionError::Repository(_)), "{bad}: {refused}");
    }
    assert!(!touched.exists());
    // Git itself is held to it too, where a name would come past us.
    let limits = Limits { bytes: u64::MAX, count: 1 };
    let cache = DirCache::new(world.dir.path().to_owned(), limits, |name| name.ends_with(".git"));
    let held = cache.lock("mirror.git", Mode::Exclusive).await.unwrap();
    let dir = cache.place("mirror.git");
    let reach = Reach {
        credentials: Credentials::default(),
        protocols: Protocols::default(),
        file_max_bytes: MIRROR_FILE_MAX_BYTES,
    };
    let repository = world.origin().display().to_string();
    let mirror = Mirror { reach: &reach, dir: &dir, held: &held, repository: &repository };
    let refused = mirror.refresh(&cache).await.unwrap_err();
    assert!(refused.to_string().contains("transport 'file' not allowed"), "{refused}");
}

#[tokio::test]
async fn nothing_of_a_repository_runs() {
    let world = World::new();
    let touched = world.dir.path().join("touched");
    world.commit("buildkite.yml", TEXT);
    world.commit(".gitattributes", "* filter=evil\n");
    let hook = format!("#!/bin/sh\ntouch {}\n", touched.display());
    for name in ["post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"] {
        let path = world.origin().join(".git/hooks").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &hook).unwrap();
        world.sh(&format!("chmod +x '{}'", path.display()));
    }
    world.read(|_| {}).await.unwrap();
    let mirror = world.mirror().unwrap();
    assert!(!mirror.join("hooks").exists() && !touched.exists());
    assert_eq!(
        fs::read_dir(&mirror).unwrap().filter(|it| it.as_ref().unwrap().file_name() == "buildkite.yml").count(),
        0
    );
}

#[tokio::test]
async fn a_mirror_holds_no_content_that_nobody_asked_for() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    let large = noise();
    world.commit("large", &large);
    // A path is copied whole; a URL goes through the protocol.
    let url = format!("file://{}", world.origin().display());
    world.read(|it| it.repository = url).await.unwrap();
    let bytes = windlass_git::dir_cache::size_of(&world.dir.path().join("mirrors")).unwrap();
    assert!(bytes < 100_000, "{bytes}");
}

#[tokio::test]
async fn a_repository_past_the_limit_is_given_up_and_its_mirror_goes_first() {
    let world = World::with(|options| options.file_max_bytes = 64 << 10);
    let large = noise();
    world.commit("buildkite.yml", TEXT);
    world.commit("large", &large);
    world.sh("git config uploadpack.allowFilter false");
    let error = world.read(|_| {}).await.unwrap_err();
    assert!(matches!(error, DefinitionError::RepositoryTooLarge), "{error}");
    let world = World::with(|options| options.mirrors_max_bytes = 1);
    world.commit("buildkite.yml", TEXT);
    assert_eq!(world.read(|_| {}).await.unwrap().text, TEXT);
    let gone = || fs::read_dir(world.dir.path().join("mirrors")).unwrap().count() == 0;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(Instant::now() < deadline, "the mirror is kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.read(|_| {}).await.unwrap().text, TEXT, "and is made again");
}

#[tokio::test]
async fn what_a_killed_git_left_does_not_stop_the_next() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    world.read(|_| {}).await.unwrap();
    let mirror = world.mirror().unwrap();
    for left in ["packed-refs.lock", "HEAD.lock", "config.lock", "refs/heads/main.lock"] {
        fs::write(mirror.join(left), "").unwrap();
    }
    let name = mirror.file_name().unwrap().to_string_lossy().into_owned();
    fs::create_dir(mirror.with_file_name(format!(".new-{name}~1"))).unwrap();
    let commit = world.commit("buildkite.yml", "steps: [wait]\n");
    assert_eq!(world.read(|it| it.branch = some("main")).await.unwrap().commit, commit);
    fs::remove_dir_all(&mirror).unwrap();
    assert_eq!(world.read(|it| it.branch = some("main")).await.unwrap().commit, commit, "nor a half-made one");
}

#[tokio::test]
async fn a_reader_does_not_wait_for_ever_and_the_fetch_goes_on() {
    let world = World::with(|options| options.wait = Duration::ZERO);
    world.commit("buildkite.yml", TEXT);
    let late = world.read(|_| {}).await;
    assert!(matches!(late, Err(DefinitionError::TimedOut(_))), "{late:?}");
    let patient = Definitions::new(world.dir.path().join("mirrors"), Options::default());
    drop(patient);
    let deadline = Instant::now() + Duration::from_secs(20);
    let made = || {
        world
            .mirror()
            .is_some_and(|mirror| mirror.join("refs/heads/main").exists() || mirror.join("packed-refs").exists())
    };
    while !made() {
        assert!(Instant::now() < deadline, "the fetch was thrown away");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_so_many_wait() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    let reads = (0..DEFINITION_READERS_MAX + 1).map(|_| world.read(|_| {}));
    let answers = futures_util::future::join_all(reads).await;
    let busy = answers.iter().filter(|answer| matches!(answer, Err(DefinitionError::Busy))).count();
    assert_eq!(busy, 1);
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() == DEFINITION_READERS_MAX);
}

#[tokio::test]
async fn a_commit_stands_as_its_refs_do() {
    let world = World::new();
    let old = world.commit("buildkite.yml", TEXT);
    world.sh("git tag v1; git tag other; git branch release/1; git branch release/1.x/deep; git branch topic");
    let main = world.commit("buildkite.yml", "steps: [wait]\n");
    world.sh("git checkout -q topic");
    let topic = world.commit("buildkite.yml", "steps: [{ command: evil }]\n");
    for (branch, tag, commit, reference) in [
        ("main", "", "", "refs/heads/main"),
        ("main", "", &*main, "refs/heads/main"),
        ("main", "", &*old, "refs/heads/main"),
        ("release/1", "", &*old, "refs/heads/release/1"),
        ("", "v1", "", "refs/tags/v1"),
        ("v1", "v1", &*old, "refs/tags/v1"),
        ("main", "v1", &*old, "refs/tags/v1"),
        ("", "", &*main, "refs/heads/main"),
    ] {
        let claim = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let standing =
            world.standing(|it| (it.branch, it.tag, it.commit) = (claim(branch), claim(tag), claim(commit))).await;
        assert_eq!(standing, protected(reference), "{branch} {tag} {commit}");
    }
    for (branch, tag, commit, words) in [
        ("main", "", &*topic, "is not in refs/heads/main"),
        ("release/1", "", &*main, "is not in refs/heads/release/1"),
        ("topic", "", "", "refs/heads/topic is not protected"),
        ("topic", "", &*old, "refs/heads/topic is not protected"),
        ("release/1.x/deep", "", &*old, "is not protected"),
        ("", "other", "", "refs/tags/other is not protected"),
        ("", "v1", &*main, "is not in refs/tags/v1"),
        ("topic", "v1", &*old, "refs/heads/topic is not protected"),
        ("gone", "", &*old, "is not in refs/heads/gone"),
        ("", "", &*topic, "no protected ref of the repository holds"),
    ] {
        let claim = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let standing =
            world.standing(|it| (it.branch, it.tag, it.commit) = (claim(branch), claim(tag), claim(commit))).await;
        unprotected(&standing, words);
    }
    let standing = world.standing(|it| (it.protected, it.commit) = (vec![], some(&main))).await;
    unprotected(&standing, "no protected refs");
    let standing = world.standing(|it| it.default_branch = some("topic")).await;
    unprotected(&standing, "refs/heads/topic is not protected");
}

#[tokio::test]
async fn a_tag_that_is_called_as_a_branch_is_not_the_branch_of_its_name() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    world.sh("git branch v2; git branch vtopic; git checkout -q --detach");
    let evil = world.commit("buildkite.yml", "steps: [{ command: evil }]\n");
    world.sh("git tag v1; git tag v2; git tag vtopic; git tag main; git checkout -q refs/heads/main");
    let claimed = async |branch: &str, tag: &str| {
        let tags = ["main", "v2", "refs/tags/*"].map(str::to_owned).to_vec();
        world
            .standing(|it| (it.branch, it.tag, it.commit, it.protected) = (some(branch), some(tag), some(&evil), tags))
            .await
    };
    assert_eq!(claimed("v1", "v1").await, protected("refs/tags/v1"), "no branch has the name");
    unprotected(&claimed("main", "main").await, "is not in refs/heads/main");
    unprotected(&claimed("v2", "v2").await, "is not in refs/heads/v2");
    assert_eq!(
        claimed("refs/tags/main", "refs/tags/main").await,
        protected("refs/tags/main"),
        "written out it is no branch"
    );
    world.sh("git update-ref refs/heads/vtopic refs/tags/vtopic");
    unprotected(&claimed("vtopic", "vtopic").await, "refs/heads/vtopic is not protected");
}

#[tokio::test]
async fn what_a_commit_changed_is_told_to_a_text_that_asks() {
    let world = World::new();
    let text = "steps: [{ command: make, if_changed: src/** }]\n";
    let first = world.commit("buildkite.yml", text);
    world.sh("git tag v1");
    let second = world.commit("src/a", "1");
    world.sh("git checkout -q -b topic");
    world.commit("docs/a", "1");
    let topic = world.commit("docs/b", "1");
    let changed = async |commit: &str, base: Option<&str>| {
        let base = base.map(str::to_owned);
        world.read(|it| (it.commit, it.diff_base) = (some(commit), base)).await.unwrap().changed
    };
    let files = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(changed(&topic, None).await, None, "nobody asks");
    assert_eq!(changed(&topic, Some("origin/main")).await, files(&["docs/a", "docs/b"]));
    assert_eq!(changed(&second, Some("origin/main")).await, files(&["src/a"]), "the head of its base");
    assert_eq!(changed(&first, Some("origin/main")).await, files(&["buildkite.yml"]), "its base has moved on");
    assert_eq!(changed(&topic, Some("v1")).await, files(&["docs/a", "docs/b", "src/a"]));
    assert_eq!(changed(&topic, Some(&first)).await, files(&["docs/a", "docs/b", "src/a"]));
    for unknown in ["origin/gone", "HEAD~1", "--all", "", "0123456789012345678901234567890123456789"] {
        assert_eq!(changed(&topic, Some(unknown)).await, None, "{unknown}");
    }
    world.commit("buildkite.yml", TEXT);
    let silent = world.read(|it| (it.branch, it.diff_base) = (some("topic"), some("origin/main"))).await.unwrap();
    assert_eq!(silent.changed, None, "the text does not ask");
    let known = world.read(|it| {
        (it.branch, it.diff_base, it.commit_alone) = (some("topic"), some("origin/main"), true);
    });
    assert_eq!(known.await.unwrap().changed, files(&["buildkite.yml", "docs/a", "docs/b"]), "it is known to ask");
}

#[tokio::test]
async fn a_commit_that_only_a_pull_request_has_is_read_and_not_protected() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    world.sh("git checkout -q --detach");
    let evil = world.commit("buildkite.yml", "steps: [{ command: evil }]\n");
    world.sh(
        "git update-ref refs/pull/7/head HEAD; git checkout -q main; git config uploadpack.allowAnySHA1InWant true",
    );
    for branch in [None, some("main")] {
        let found = world.read(|it| (it.branch, it.commit) = (branch.clone(), some(&evil))).await.unwrap();
        assert!(found.text.contains("evil"));
        assert!(matches!(found.standing, Standing::Unprotected { .. }), "{branch:?} {:?}", found.standing);
    }
    let pull = world.read(|it| it.branch = some("refs/pull/7/head")).await.unwrap();
    assert_eq!((pull.commit.as_str(), &pull.standing), (&*evil, &Standing::PullRequest { number: "7".to_owned() }));
    let forged = world.commit("buildkite.yml", "steps: [{ command: other }]\n");
    let standing = world.standing(|it| (it.branch, it.commit) = (some("refs/pull/7/head"), some(&forged))).await;
    unprotected(&standing, "is not in refs/pull/7/head");
    // Nor by a pattern that is wider than anybody meant.
    let wide = |it: &mut Wanted| (it.branch, it.protected) = (some("refs/pull/7/head"), vec!["refs/**".to_owned()]);
    assert!(matches!(world.standing(wide).await, Standing::PullRequest { .. }));
}

#[tokio::test]
async fn refs_that_moved_protect_no_more() {
    let world = World::new();
    world.commit("buildkite.yml", TEXT);
    let bad = world.commit("buildkite.yml", "steps: [wait]\n");
    world.sh("git tag v1");
    assert_eq!(world.standing(|it| it.commit = some(&bad)).await, protected("refs/heads/main"));
    world.sh("git reset -q --hard HEAD~1; git tag -f v1");
    let standing = world.standing(|it| (it.branch, it.commit) = (some("main"), some(&bad))).await;
    unprotected(&standing, "is not in refs/heads/main");
    let standing = world.standing(|it| (it.tag, it.commit) = (some("v1"), some(&bad))).await;
    unprotected(&standing, "is not in refs/tags/v1");
    unprotected(&world.standing(|it| it.commit = some(&bad)).await, "no protected ref");
    world.sh("git branch -m main gone; git checkout -q --detach");
    let standing = world.standing(|it| (it.branch, it.commit) = (some("main"), some(&bad))).await;
    unprotected(&standing, "is not in refs/heads/main");
}

#[tokio::test]
async fn what_git_says_holds_no_credential() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    fs::write(&path, "https://ci:hunter2secret@127.0.0.1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let credentials = Credentials::new(Some(path)).unwrap();
    let options = Options { credentials, protocols: [Protocol::Http].into_iter().collect(), ..Options::default() };
    let definitions = Definitions::new(dir.path().join("mirrors"), options);
    let repository = "http://hunter2secret@127.0.0.1:9/hunter2secret.git".to_owned();
    let error = definitions.read(Wanted { repository, ..Wanted::default() }).await.unwrap_err();
    assert!(matches!(error, DefinitionError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2secret"), "{error}");
}

#[tokio::test]
async fn a_damaged_mirror_is_made_anew() {
    let world = World::new();
    world.commit(".buildkite/pipeline.yml", TEXT);
    world.read(|it| it.branch = some("main")).await.unwrap();
    let damages =
        [": >refs/heads/main", "git pack-refs --all; truncate -s -20 packed-refs", "rm -rf objects/pack objects/??"];
    for (at, damage) in damages.into_iter().enumerate() {
        let mut command = Command::new("sh");
        assert!(command.args(["-ec", damage]).current_dir(world.mirror().unwrap()).status().unwrap().success());
        let head = world.commit("file", &at.to_string());
        let found = world.read(|it| it.branch = some("main")).await;
        assert_eq!(found.map(|found| found.commit).map_err(|error| error.to_string()), Ok(head), "{damage}");
    }
    // What a server says is none.
    let marked = world.mirror().unwrap().join("marked");
    fs::write(&marked, "").unwrap();
    fs::rename(world.origin(), world.dir.path().join("away")).unwrap();
    world.read(|it| it.branch = some("main")).await.unwrap_err();
    assert!(marked.exists());
}
