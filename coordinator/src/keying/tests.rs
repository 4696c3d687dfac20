//! What a key depends on, and what it does not; of sources of every kind.

use std::path::Path;
use std::process::Command as Program;

use windlass_cache::{Directory, Entry, RealFs, Sha256Digest, StoreOptions};
use windlass_coordinator_core::row::{Actor, ActorKind, Change, Hosts, PipelineRow};
use windlass_coordinator_store::{MemoryStore, Seq, Store as _, WriterEpoch};
use windlass_git::Protocol;
use windlass_pipeline::graph::{BlobName, Cache, Command, NamedBlob, Plugin, Secret};
use windlass_protocol::{ArtifactId, AttemptId, BuildId, JobId, PipelineId, WallMs};

use super::*;
use crate::definitions;
use crate::views::Offload;

const BUILD: BuildId = BuildId::from_bytes([1; 16]);
const JOB: JobId = JobId::from_bytes([2; 16]);
const ATTEMPT: AttemptId = AttemptId::from_bytes([3; 16]);
const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A cache, rows in memory, repositories by path.
struct World {
    dir: tempfile::TempDir,
    engine: Engine,
    store: Store,
    memory: MemoryStore,
    epoch: WriterEpoch,
    namespace: Namespace,
}

impl World {
    fn new() -> Self {
        Self::with(0)
    }

    fn with(epoch: u64) -> Self {
        Self::of(epoch, StoreOptions::default())
    }

    /// Its store knows blobs by their SHA-256 too.
    fn with_sha256() -> Self {
        Self::of(0, StoreOptions { sha256: true, ..StoreOptions::default() })
    }

    fn of(epoch: u64, options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(RealFs), &dir.path().join("cache"), options).unwrap();
        let mut memory = MemoryStore::new();
        let writer = memory.claim().unwrap();
        let views = Views::default();
        let reader = Reader::new(views.clone(), Arc::new(memory.history()), Offload::Blocking);
        let options = definitions::Options {
            protocols: [Protocol::File].into_iter().collect(),
            ..definitions::Options::default()
        };
        let definitions = Definitions::new(dir.path().join("mirrors"), options);
        let sources = Sources { store: store.clone(), definitions, views, reader };
        let engine = Engine::new(sources, ReuseConfig { epoch, ..ReuseConfig::default() });
        Self { dir, engine, store, memory, epoch: writer, namespace: Namespace::trusted("web") }
    }

    fn commit(&mut self, changes: &[Change]) -> Seq {
        let seq = self.memory.commit(self.epoch, changes).unwrap();
        self.engine.0.sources.views.publish(seq, changes);
        seq
    }

    /// A tree of files with these texts.
    fn tree(&self, files: &[(&str, &str)]) -> Digest {
        let node = |text: &str| Node::File {
            digest: self.store.put(&self.namespace, text.as_bytes()).unwrap(),
            len: text.len() as u64,
            mode: 0o644,
        };
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), node(text))).collect();
        let root = self.store.put(&self.namespace, &Directory::default().encode()).unwrap();
        Trees::new(&self.store, &self.namespace).with_files(root, &files, Over::Files).unwrap()
    }

    fn source(&self, files: &[(&str, &str)]) -> Source {
        Source::Tree { digest: self.tree(files) }
    }

    /// Files of a tree, with their texts.
    fn files(&self, source: &Source) -> Vec<(String, String)> {
        let Source::Tree { digest } = source else { panic!("{source:?} is no tree") };
        let mut found = Vec::new();
        let mut wanted = vec![(String::new(), *digest)];
        let text = |digest: &Digest| self.store.get(&self.namespace, digest).unwrap().unwrap().into_vec().unwrap();
        while let Some((at, digest)) = wanted.pop() {
            for Entry { name, node } in Directory::decode(&text(&digest)).unwrap().entries() {
                let path = prune::join(&at, name);
                match node {
                    Node::Directory { digest, .. } => wanted.push((path, *digest)),
                    Node::File { digest, mode, .. } => {
                        let text = String::from_utf8(text(digest)).unwrap();
                        found.push((path, format!("{text}{}", if *mode == 0o755 { " x" } else { "" })));
                    }
                    Node::Symlink { target } => found.push((path, format!("> {}", String::from_utf8_lossy(target)))),
                }
            }
        }
        found.sort();
        found
    }

    /// A step that compiles.
    fn subject(&self) -> KeySubject {
        let reuse = Reuse {
            inputs: vec!["src/**".to_owned()],
            outputs: vec!["out/*".to_owned()],
            env: vec!["CC".to_owned()],
            secrets: true,
            ..Reuse::default()
        };
        let command = Command {
            command: "make\ttest\nexit $?".to_owned(),
            plugins: vec![
                Plugin { source: "./plug".to_owned(), config: serde_json::json!({ "level": 1 }) },
                Plugin { source: format!("org/other#{COMMIT}"), config: serde_json::Value::Null },
            ],
            secrets: vec![Secret { key: "token".to_owned(), env: "API_TOKEN".to_owned() }],
            reuse: Some(reuse),
            ..Command::default()
        };
        let files = [
            (".buildkite/hooks/pre-command", "true"),
            (".buildkite/pipeline.yml", "steps: []"),
            ("README", "read"),
            ("plug/hooks/command", "true"),
            ("src/a.c", "a"),
        ];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        KeySubject {
            build: BUILD,
            job: JOB,
            namespace: self.namespace.clone(),
            pipeline: "web".to_owned(),
            command: Box::new(command),
            source: self.source(&files),
            env: vec![pair("CC", "gcc"), pair("BUILDKITE_BUILD_NUMBER", "7"), pair("PASSWORD", "hunter22")],
            declared: vec!["CC".to_owned(), "CFLAGS".to_owned()],
            made_by: [(ATTEMPT, "build".to_owned())].into(),
            secrets: [("token".to_owned(), Ok("v1".to_owned()))].into(),
            hosts: Hosts {
                platform: Ok("linux/amd64".to_owned()),
                system: Ok("os: linux\ncc --version: 12\n".to_owned()),
                hooks: Ok(Digest::of(b"")),
            },
            fresh: false,
        }
    }

    async fn key(&self, change: impl FnOnce(&mut KeySubject)) -> Result<Keyed, String> {
        let mut subject = self.subject();
        change(&mut subject);
        self.engine.key(subject).await.map_err(|unkeyed| unkeyed.why)
    }

    fn recipe(&self, keyed: &Keyed) -> String {
        let blob = self.store.get(&self.namespace, &keyed.recipe).unwrap().unwrap();
        String::from_utf8(blob.into_vec().unwrap()).unwrap()
    }

    /// An artifact of the attempt; its blob lies on the shelf of this namespace.
    fn artifact(&mut self, path: &str, text: &str, at: u64, namespace: &Namespace) {
        self.artifact_of((path, false), text, at, namespace);
    }

    fn artifact_of(&mut self, (path, executable): (&str, bool), text: &str, at: u64, namespace: &Namespace) {
        let digest = self.store.put(&namespace.on(Shelf::Artifacts), text.as_bytes()).unwrap();
        let row = ArtifactRow {
            id: ArtifactId::from_bytes(u128::from(at).to_be_bytes()),
            build: BUILD,
            job: JOB,
            attempt: ATTEMPT,
            path: path.to_owned(),
            bytes: text.len() as u64,
            digest,
            sha1: String::new(),
            sha256: String::new(),
            content_type: "text/plain".to_owned(),
            executable,
            namespace: namespace.clone(),
            created_at: WallMs(at),
            expires_at: WallMs(u64::MAX),
            by: None,
        };
        self.commit(&[Change::Artifact(Box::new(row))]);
    }
}

fn reuse(subject: &mut KeySubject) -> &mut Reuse {
    subject.command.reuse.as_mut().unwrap()
}

#[tokio::test]
async fn a_recipe_says_all_that_decides_a_result_and_no_secret() {
    let world = World::new();
    let keyed = world.key(|_| {}).await.unwrap();
    let recipe = world.recipe(&keyed);
    insta::assert_snapshot!(recipe.replace('\t', " | "), @r#"
    windlass step key 1
    command | make\ttest\nexit $?
    env CC | gcc
    epoch | 0
    hooks | b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
    host.system | b3:8b04aba793abe328dabb4a17ac7a8a105774a92ace0e356d3b69563d79fe8755
    inputs | b3:119cac7f858d0ab9664d3e36bc1da95415f5450a3fd08570e32b5b252f5db33c
    no env CFLAGS | 
    output 000 | out/*
    outputs | with modes
    plugin 000 | ./plug {"level":1}
    plugin 001 | org/other#0123456789012345678901234567890123456789 null
    runner | process
    secret API_TOKEN | token v1
    "#);
    assert_eq!(recipe::key_of(&recipe), keyed.key);
    assert!(!recipe.contains("hunter22") && !recipe.contains("BUILDKITE"), "what is not declared is not there");
    assert_eq!(Recipe::decode(recipe.as_bytes()).unwrap().get("env CC"), Some("gcc"));
    assert_eq!((keyed.image, keyed.notes), (None, vec![]));
    assert_eq!(keyed.system, Some(Digest::of(b"os: linux\ncc --version: 12\n")));
    assert!(world.store.contains(&world.namespace, &keyed.system.unwrap()), "for whoever compares it");
    let paths: Vec<String> = world.files(&keyed.source).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [".buildkite/hooks/pre-command", "plug/hooks/command", "src/a.c"]);
}

type ChangeOf = fn(&World, &mut KeySubject);

fn files_with(world: &World, path: &str, text: &str) -> Source {
    let mut files = vec![
        (".buildkite/hooks/pre-command", "true"),
        (".buildkite/pipeline.yml", "steps: []"),
        ("README", "read"),
        ("plug/hooks/command", "true"),
        ("src/a.c", "a"),
    ];
    files.retain(|(known, _)| *known != path);
    files.push((path, text));
    world.source(&files)
}

const DECIDES: &[(&str, ChangeOf)] = &[
    ("the command", |_, it| it.command.command.push(' ')),
    ("a declared variable", |_, it| it.env.insert(0, ("CFLAGS".to_owned(), String::new()))),
    ("a declared variable's value", |_, it| it.env[0].1.push('c')),
    ("one that is declared besides", |_, it| it.declared.push("BUILDKITE_BUILD_NUMBER".to_owned())),
    ("a file", |world, it| it.source = files_with(world, "src/a.c", "b")),
    ("a new file", |world, it| it.source = files_with(world, "src/b.c", "")),
    ("a hook of the repository", |world, it| it.source = files_with(world, ".buildkite/hooks/pre-command", "false")),
    ("a plugin in the source", |world, it| it.source = files_with(world, "plug/lib", "x")),
    ("what is declared", |_, it| reuse(it).inputs.push("README".to_owned())),
    ("outputs", |_, it| reuse(it).outputs.push("more".to_owned())),
    ("artifact paths", |_, it| it.command.artifact_paths.push("and more".to_owned())),
    ("a plugin", |_, it| it.command.plugins[1].source = format!("org/other#{}", COMMIT.replace('0', "a"))),
    ("a plugin's settings", |_, it| it.command.plugins[0].config = serde_json::json!({ "level": 2 })),
    ("a plugin less", |_, it| it.command.plugins.truncate(1)),
    ("a secret's version", |_, it| it.secrets = [("token".to_owned(), Ok("v2".to_owned()))].into()),
    ("a secret's variable", |_, it| it.command.secrets[0].env = "OTHER".to_owned()),
    ("the machines' system", |_, it| it.hosts.system = Ok("os: linux\ncc --version: 13\n".to_owned())),
    ("the agents' hooks", |_, it| it.hosts.hooks = Ok(Digest::of(b"x"))),
    ("its number among parallel ones", |_, it| it.command.parallel = Some((1, 2))),
    ("a terminal", |_, it| it.command.tty = true),
    ("an image", |_, it| it.command.image = Some(format!("127.0.0.1:1/app@sha256:{}", "a".repeat(64)))),
];

const DOES_NOT_DECIDE: &[(&str, ChangeOf)] = &[
    ("a variable that is not declared", |_, it| it.env[1].1 = "8".to_owned()),
    ("a file that is not declared", |world, it| it.source = files_with(world, "README", "other")),
    ("the pipeline's text in its source", |world, it| it.source = files_with(world, ".buildkite/pipeline.yml", "x")),
    ("the order of what is declared", |_, it| it.declared.reverse()),
    ("globs that mean the same", |_, it| reuse(it).inputs = vec!["src".to_owned()]),
    ("the build and the job", |_, it| (it.build, it.job) = (BuildId::from_bytes([8; 16]), JobId::from_bytes([9; 16]))),
    ("a share that is run again", |_, it| reuse(it).verify_ppm = 7),
    ("queue, zone and tags", |_, it| {
        it.command.queue = "other".to_owned();
        it.command.zone = Some("z".to_owned());
        it.command.tags.push(("a".to_owned(), "b".to_owned()));
    }),
    ("its time and its priority", |_, it| (it.command.timeout_ms, it.command.priority) = (Some(1), 9)),
    ("what images run, without an image", |_, it| it.hosts.platform = Err("they differ".to_owned())),
];

#[tokio::test]
async fn what_decides_a_result_changes_its_key_and_nothing_else_does() {
    let world = World::new();
    let usual = world.key(|_| {}).await.unwrap().key;
    let mut keys = BTreeSet::from([usual]);
    for (what, change) in DECIDES {
        let key = world.key(|subject| change(&world, subject)).await.unwrap().key;
        assert!(keys.insert(key), "{what} changes no key");
    }
    for (what, change) in DOES_NOT_DECIDE {
        let key = world.key(|subject| change(&world, subject)).await.unwrap().key;
        assert_eq!(key, usual, "{what} changes the key");
    }
    let world = World::with(1);
    assert!(keys.insert(world.key(|_| {}).await.unwrap().key), "another epoch changes every key");
}

const REFUSED: &[(&str, ChangeOf)] = &[
    ("it does not ask for reuse", |_, it| it.command.reuse = None),
    ("it restores a `cache`, of which nothing is in its key", |_, it| {
        it.command.cache = Some(Cache { key: Some("k".to_owned()), ..Cache::default() });
    }),
    ("it has secrets, and does not say `secrets: true` in `reuse`", |_, it| reuse(it).secrets = false),
    ("the secret `token` has no version: it is not set", |_, it| {
        it.secrets = [("token".to_owned(), Err("it is not set".to_owned()))].into();
    }),
    ("its checkout is skipped", |_, it| it.command.checkout.skip = Some(true)),
    ("its checkout has submodules", |_, it| it.command.checkout.submodules = Some(true)),
    ("the agents differ", |_, it| it.hosts.system = Err("the agents differ".to_owned())),
    ("their hooks differ", |_, it| it.hosts.hooks = Err("their hooks differ".to_owned())),
    ("no platform", |_, it| {
        it.hosts.platform = Err("no platform".to_owned());
        it.command.image = Some("debian".to_owned());
    }),
    (
        "what the plugin `https://git.corp/o/p#v1` is may change, and `reuse.plugins` does not say to ask for it: name it by its \
         commit's whole id, or put it into the source",
        |_, it| it.command.plugins[1].source = "https://git.corp/o/p#v1".to_owned(),
    ),
    (
        "which commit the plugin `https://github.com/o/p#v1` is: repositories are not fetched by https here; the operator allows \
         file; name it by its commit's whole id, or put it into the source",
        |_, it| it.command.plugins[1].source = "https://github.com/o/p#v1".to_owned(),
    ),
    ("the commit of its source is not known before it is checked out", |_, it| {
        it.source = Source::Git { repository: "/r".to_owned(), commit: "HEAD".to_owned(), branch: "main".to_owned() };
    }),
    ("its source is not the repository that its pipeline is registered with", |_, it| {
        it.source = Source::Git { repository: "/r".to_owned(), commit: COMMIT.to_owned(), branch: "main".to_owned() };
    }),
    ("the input `[a` is no glob: the `[` is not closed", |_, it| reuse(it).inputs = vec!["[a".to_owned()]),
];

#[tokio::test]
async fn a_step_without_a_key_says_why() {
    let world = World::new();
    for (why, change) in REFUSED {
        assert_eq!(world.key(|subject| change(&world, subject)).await.unwrap_err(), *why);
    }
    let absent = world.key(|subject| subject.source = Source::Tree { digest: Digest::of(b"no") }).await.unwrap_err();
    assert!(absent.ends_with("of its source is not in the cache of this build"), "{absent}");
}

#[tokio::test]
async fn nothing_of_another_namespace_is_read_and_nothing_is_written_there() {
    let world = World::new();
    // A tree that only the trusted builds of another pipeline see.
    let told = world.key(|subject| subject.namespace = Namespace::trusted("other")).await.unwrap_err();
    assert!(told.ends_with("is not in the cache of this build"), "{told}");
    // An overlay reads what is trusted, and what is made of it stays its own.
    let overlay = Namespace::overlay("web", "pr:1");
    let keyed = world
        .key(|subject| {
            subject.namespace = overlay.clone();
            subject.env.push(("CFLAGS".to_owned(), "of the overlay".to_owned()));
        })
        .await
        .unwrap();
    assert!(world.store.contains(&overlay, &keyed.recipe));
    assert!(!world.store.contains(&world.namespace, &keyed.recipe));
}

#[tokio::test]
async fn declared_artifacts_lie_at_their_paths_and_decide_the_key() {
    let mut world = World::new();
    let trusted = world.namespace.clone();
    let asks = |subject: &mut KeySubject| {
        reuse(subject).artifacts = vec!["dist/*".to_owned(), "none*".to_owned()];
        reuse(subject).inputs = vec!["src/**".to_owned(), "nothing/*".to_owned()];
    };
    world.artifact("dist/app", "old", 1, &trusted);
    let old = world.key(asks).await.unwrap();
    world.artifact("log.txt", "not asked for", 2, &trusted);
    assert_eq!(world.key(asks).await.unwrap().key, old.key);
    world.artifact("dist/app", "new", 3, &trusted);
    let new = world.key(asks).await.unwrap();
    assert_ne!(new.key, old.key);
    let notes = ["the artifacts `none*` are none of this build's", "the input `nothing/*` names no file"];
    assert_eq!(new.notes, notes);
    let files = world.files(&new.source);
    assert!(files.contains(&("dist/app".to_owned(), "new".to_owned())), "{files:?}");
    // The same bytes, and a program.
    world.artifact_of(("dist/app", true), "new", 4, &trusted);
    let program = world.key(asks).await.unwrap();
    assert_ne!(program.key, new.key);
    let files = world.files(&program.source);
    assert!(files.contains(&("dist/app".to_owned(), "new x".to_owned())), "{files:?}");
    // A row of this build whose blob only others see: there is no such row, and it would not be read.
    world.artifact("dist/secret", "hidden", 5, &Namespace::trusted("other"));
    let told = world.key(asks).await.unwrap_err();
    assert!(told.starts_with("the artifact b3:"), "{told}");
}

/// A blob that a step names.
fn named(path: &str, digest: BlobName) -> NamedBlob {
    NamedBlob { path: path.to_owned(), digest, executable: false }
}

#[tokio::test]
async fn named_blobs_lie_at_their_paths_and_decide_the_key() {
    let world = World::with_sha256();
    let put = |text: &str| world.store.put(&world.namespace, text.as_bytes()).unwrap();
    let (one, two) = (put("tool 1"), put("tool 2"));
    let with = |blob: NamedBlob| move |subject: &mut KeySubject| reuse(subject).blobs = vec![blob];
    let tool = || named("src/bin/tool", BlobName::Blake3(one));
    let first = world.key(with(tool())).await.unwrap();
    let files = world.files(&first.source);
    assert!(files.contains(&("src/bin/tool".to_owned(), "tool 1".to_owned())), "{files:?}");
    assert!(files.contains(&("src/a.c".to_owned(), "a".to_owned())), "{files:?}");
    let program = world.key(with(NamedBlob { executable: true, ..tool() })).await.unwrap();
    let files = world.files(&program.source);
    assert!(files.contains(&("src/bin/tool".to_owned(), "tool 1 x".to_owned())), "{files:?}");
    let component = |keyed: &Keyed, path: &str| {
        let recipe = Recipe::decode(world.recipe(keyed).as_bytes()).unwrap();
        recipe.get(&format!("blob {path}")).map(str::to_owned)
    };
    assert_eq!(component(&first, "src/bin/tool"), Some(one.to_string()));
    assert_eq!(component(&program, "src/bin/tool"), Some(format!("{one} executable")));
    let elsewhere = world.key(with(named("bin/tool", BlobName::Blake3(one)))).await.unwrap();
    let other = world.key(with(named("src/bin/tool", BlobName::Blake3(two)))).await.unwrap();
    let none = world.key(|_| {}).await.unwrap();
    let keys = BTreeSet::from([&first, &program, &elsewhere, &other, &none].map(|keyed| keyed.key));
    assert_eq!(keys.len(), 5, "path, bytes and bit count");
    // By its other name it is the same blob, and the same step.
    let sha256 = Sha256Digest::of(b"tool 1").0;
    assert_eq!(world.key(with(named("src/bin/tool", BlobName::Sha256(sha256)))).await.unwrap().key, first.key);
}

#[tokio::test]
async fn a_named_blob_is_found_among_artifacts_and_never_with_others() {
    let mut world = World::with_sha256();
    let trusted = world.namespace.clone();
    world.artifact("dist/app", "app", 1, &trusted);
    let with = |digest: BlobName| move |subject: &mut KeySubject| reuse(subject).blobs = vec![named("app", digest)];
    let names = |text: &str| {
        let sha256 = Sha256Digest::of(text.as_bytes()).0;
        [BlobName::Sha256(sha256), BlobName::Blake3(Digest::of(text.as_bytes()))]
    };
    for name in names("app") {
        let keyed = world.key(with(name)).await.unwrap();
        assert!(world.files(&keyed.source).contains(&("app".to_owned(), "app".to_owned())));
    }
    // The same words, whether nobody has it or others do.
    for place in [Namespace::trusted("other"), Namespace::overlay("web", "pr:1")] {
        for shelf in [place.clone(), place.on(Shelf::Artifacts)] {
            world.store.put(&shelf, format!("of {shelf:?}").as_bytes()).unwrap();
            for name in names(&format!("of {shelf:?}")) {
                let told = world.key(with(name)).await.unwrap_err();
                assert_eq!(told, format!("the blob `app`, {name}, is not in the cache of this build"), "{shelf:?}");
            }
        }
    }
    for name in names("nobody's") {
        let told = world.key(with(name)).await.unwrap_err();
        assert_eq!(told, format!("the blob `app`, {name}, is not in the cache of this build"));
    }
}

#[tokio::test]
async fn a_named_blob_takes_the_place_of_nothing() {
    let mut world = World::new();
    let trusted = world.namespace.clone();
    world.artifact("dist/app", "app", 1, &trusted);
    let digest = BlobName::Blake3(world.store.put(&trusted, b"blob").unwrap());
    for (path, why) in [
        ("src/a.c", "the blob `src/a.c` cannot lie in its source: an input or an artifact lies there"),
        ("dist/app", "the blob `dist/app` cannot lie in its source: an input or an artifact lies there"),
        ("src", "`src` cannot lie in its source: a file is where its directory would be, or the reverse"),
        ("src/a.c/b", "`src/a.c/b` cannot lie in its source: a file is where its directory would be, or the reverse"),
    ] {
        let asks = |subject: &mut KeySubject| {
            reuse(subject).artifacts = vec!["dist/*".to_owned()];
            reuse(subject).blobs = vec![named(path, digest)];
        };
        assert_eq!(world.key(asks).await.unwrap_err(), why);
    }
}

/// Runs a script in a new repository, gives what it prints.
fn repository(path: &Path, script: &str) -> String {
    std::fs::create_dir_all(path).unwrap();
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let mut program = Program::new("sh");
    program.args(["-ec", script]).current_dir(path).envs(identity.map(|name| (name, "t@example.invalid")));
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const FIRST: &str = "git init -q -b main; git config uploadpack.allowFilter true
    git config uploadpack.allowAnySHA1InWant true
    mkdir -p src/deep; printf a >src/a.c; printf b >src/deep/b; chmod +x src/deep/b; ln -s a.c src/link
    printf read >README; printf big >large; git add -A; git commit -qm one; git rev-parse HEAD";

impl World {
    /// The pipeline is registered with a repository, which is made by this script.
    fn registered(&mut self, script: &str) -> Source {
        let path = self.dir.path().join("origin");
        let commit = repository(&path, script);
        let repository = path.display().to_string();
        let row = PipelineRow {
            id: PipelineId::from_bytes([4; 16]),
            name: "web".to_owned(),
            description: String::new(),
            repository: Some(repository.clone()),
            default_branch: "main".to_owned(),
            file: None,
            definition: None,
            protected_refs: vec![],
            env: vec![],
            timeout_ms: None,
            created_by: Actor { kind: ActorKind::System, name: "test".to_owned() },
            created_at: WallMs(1),
            updated_at: WallMs(1),
        };
        self.commit(&[Change::Pipeline(Box::new(row))]);
        Source::Git { repository, commit, branch: "main".to_owned() }
    }

    /// Objects that the mirror of the one repository has.
    fn mirrored(&self) -> String {
        let mirrors = std::fs::read_dir(self.dir.path().join("mirrors")).unwrap().flatten();
        let mirror = mirrors.map(|it| it.path()).find(|it| it.is_dir() && it.extension().is_some()).unwrap();
        repository(&mirror, "git cat-file --batch-all-objects --batch-check='%(objecttype)' | sort | uniq -c | xargs")
    }
}

#[tokio::test]
async fn a_commit_s_declared_files_are_a_tree_and_no_other_file_is_fetched() {
    let mut world = World::new();
    let source = world.registered(FIRST);
    let asks = |source: &Source| {
        let source = source.clone();
        |subject: &mut KeySubject| {
            subject.command.plugins.clear();
            subject.source = source;
        }
    };
    // What an overlay has brought is its own (I12): the trusted namespace reads the repository by itself, and gets the same.
    let overlay = world.key(|subject| {
        asks(&source)(subject);
        subject.namespace = Namespace::overlay("web", "pr:1");
    });
    let overlay = overlay.await.unwrap();
    assert!(!world.store.contains(&world.namespace, &digest_of(&overlay.source)));
    let one = world.key(asks(&source)).await.unwrap();
    assert_eq!(one.key, overlay.key);
    let texts = [("src/a.c", "a"), ("src/deep/b", "b x"), ("src/link", "> a.c")];
    assert_eq!(world.files(&one.source), texts.map(|(path, text)| (path.to_owned(), text.to_owned())));
    assert!(world.mirrored().contains("3 blob"), "{}", world.mirrored());
    // The same files out of a tree are the same to a step.
    let tree = Trees::new(&world.store, &world.namespace)
        .prune(digest_of(&one.source), &mut Selection::new(&[], &[]).unwrap())
        .unwrap();
    assert_eq!(world.key(asks(&Source::Tree { digest: tree.root })).await.unwrap().key, one.key);
    // A commit that changes none of them.
    let script = "printf other >README; git add -A; git commit -qm two; git rev-parse HEAD";
    let Source::Git { repository: path, branch, .. } = source else { unreachable!() };
    let git = |commit: String| Source::Git { repository: path.clone(), commit, branch: branch.clone() };
    let second = repository(Path::new(&path), script);
    assert_eq!(world.key(asks(&git(second))).await.unwrap().key, one.key);
    let third =
        repository(Path::new(&path), "printf new >src/a.c; git add -A; git commit -qm three; git rev-parse HEAD");
    let new = world.key(asks(&git(third))).await.unwrap();
    assert_ne!(new.key, one.key);
    assert!(world.mirrored().contains("4 blob"), "what is known is not fetched again: {}", world.mirrored());
}

fn digest_of(source: &Source) -> Digest {
    match source {
        Source::Tree { digest } => *digest,
        Source::Git { .. } | Source::Empty => panic!("{source:?} is no tree"),
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_read_has_no_key_and_says_why() {
    let mut world = World::new();
    let source = world.registered(&format!(
        "{FIRST}\ngit update-index --add --cacheinfo 160000,{COMMIT},src/sub; git commit -qm sub; git rev-parse HEAD"
    ));
    let Source::Git { repository, commit, branch } = source else { unreachable!() };
    let commit = commit.lines().last().unwrap().to_owned();
    let source = Source::Git { repository: repository.clone(), commit, branch: branch.clone() };
    let asks = |inputs: &str, source: Source| {
        let inputs = vec![inputs.to_owned()];
        move |subject: &mut KeySubject| {
            subject.command.plugins.clear();
            reuse(subject).inputs = inputs;
            subject.source = source;
        }
    };
    let told = world.key(asks("src/**", source.clone())).await.unwrap_err();
    assert!(
        told.ends_with("`src/sub` of its source is a submodule, which is not read: leave it out of `inputs`"),
        "{told}"
    );
    assert!(world.key(asks("src/*.c", source)).await.is_ok());
    let none = Source::Git { repository, commit: COMMIT.to_owned(), branch };
    let told = world.key(asks("src/*.c", none)).await.unwrap_err();
    assert!(told.starts_with("its commit cannot be read: the repository has no commit"), "{told}");
}

#[tokio::test]
async fn an_image_that_nobody_can_look_at_is_what_its_name_says_on_machines_that_are_the_same() {
    let world = World::new();
    let pinned = format!("127.0.0.1:1/team/app@sha256:{}", "a".repeat(64));
    let with = |image: &str| {
        let image = image.to_owned();
        |subject: &mut KeySubject| subject.command.image = Some(image)
    };
    let keyed = world.key(with(&pinned)).await.unwrap();
    assert_eq!((keyed.image.as_deref(), keyed.system.is_some()), (Some(pinned.as_str()), true));
    let told = world.key(with("127.0.0.1:1/team/app:1")).await.unwrap_err();
    assert!(told.contains("127.0.0.1:1 cannot be asked"), "{told}");
}

/// A plugin's repository with another text, and its tag moved there.
fn plugin_repository(place: &Path, text: &str) -> String {
    let script = format!(
        "[ -d .git ] || git init -q -b main; mkdir -p hooks; echo {text} >hooks/command; git add -A; git commit -qm {text}
        git tag --force --annotate --message v1 v1 >/dev/null; git rev-parse HEAD"
    );
    repository(place, &script)
}

/// An engine of the same world that remembers nothing, and asks for plugins below its directory.
fn engine_with_plugins(world: &World) -> Engine {
    let plugins = PluginRepositories::new(vec![format!("file://{}/", world.dir.path().display())]).unwrap();
    Engine::new(world.engine.0.sources.clone(), ReuseConfig { plugins, ..ReuseConfig::default() })
}

#[tokio::test]
async fn a_plugin_by_a_name_is_the_commit_that_the_name_is_now() {
    let mut world = World::new();
    let place = world.dir.path().join("plugin");
    let location = format!("file://{}", place.display());
    let first = plugin_repository(&place, "one");
    world.engine = engine_with_plugins(&world);
    let with = |version: String| {
        let source = format!("{location}{version}");
        move |subject: &mut KeySubject| subject.command.plugins[1].source = source
    };
    let by_tag = world.key(with("#v1".to_owned())).await.unwrap();
    assert_eq!(
        by_tag.plugins,
        [(format!("{location}#v1"), first.clone())].into(),
        "the commit, and not the tag's own id"
    );
    let by_commit = world.key(with(format!("#{first}"))).await.unwrap();
    assert_eq!((by_commit.key, by_commit.plugins), (by_tag.key, BTreeMap::new()), "it is the same step");
    for same in ["#main", ""] {
        assert_eq!(world.key(with(same.to_owned())).await.unwrap().key, by_tag.key, "{same:?}");
    }
    let second = plugin_repository(&place, "two");
    assert_eq!(world.key(with("#v1".to_owned())).await.unwrap().key, by_tag.key, "remembered for a moment");
    world.engine = engine_with_plugins(&world);
    let moved = world.key(with("#v1".to_owned())).await.unwrap();
    assert_ne!(moved.key, by_tag.key, "a tag that was moved is another plugin");
    assert_eq!(moved.plugins.values().collect::<Vec<_>>(), [&second]);
    let absent = world.key(with("#v2".to_owned())).await.unwrap_err();
    assert!(absent.contains("the repository has no `v2`"), "{absent}");
    // What a pull request names is asked for too, as nobody.
    world.namespace = Namespace::overlay("web", "pr:7");
    assert_eq!(world.key(with("#v1".to_owned())).await.unwrap().plugins, moved.plugins);
}

#[tokio::test]
async fn an_overlay_that_has_as_much_as_it_may_imports_no_commit_and_nobody_else_is_refused_for_it() {
    let mut world = World::new();
    let first = world.registered(FIRST);
    let Source::Git { repository: origin, branch, .. } = first.clone() else { panic!("it is of a repository") };
    let commit = |text: &str| {
        let script = format!("printf {text} >src/a.c; git commit -qam {text}; git rev-parse HEAD");
        let commit = repository(Path::new(&origin), &script);
        Source::Git { repository: origin.clone(), commit, branch: branch.clone() }
    };
    let (second, third) = (commit("two"), commit("three"));
    let overlay = windlass_cache::Policy { max_bytes: Some(5), max_age_ms: None };
    let policies = CachePolicies { trusted: overlay, overlay };
    world.engine = Engine::new(world.engine.0.sources.clone(), ReuseConfig { policies, ..ReuseConfig::default() });
    let asks = |source: &Source, namespace: &Namespace| {
        let (source, namespace) = (source.clone(), namespace.clone());
        |subject: &mut KeySubject| {
            subject.command.plugins.clear();
            (subject.source, subject.namespace) = (source, namespace);
        }
    };
    let [one, other] = ["pr:1", "pr:2"].map(|overlay| Namespace::overlay("web", overlay));
    let key = world.key(asks(&first, &one)).await.unwrap().key;
    let refused = world.key(asks(&second, &one)).await.unwrap_err();
    assert!(refused.contains("come to 10 bytes at most"), "{refused}");
    assert!(!world.store.contains(&one, &Digest::of(b"two")), "nothing of it was brought");
    assert_eq!(world.key(asks(&first, &one)).await.unwrap().key, key, "what it has is used as before");
    for namespace in [&other, &world.namespace] {
        let other = world.key(asks(&second, namespace)).await;
        assert!(other.is_ok(), "{namespace:?}: {other:?}");
    }
    assert!(world.key(asks(&third, &other)).await.is_err());
    assert!(world.key(asks(&third, &world.namespace)).await.is_ok(), "a trusted one has no bound");
}
