//! Plugins out of real repositories, by paths of this machine, for jobs of several builds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use windlass_git::Protocol;
use windlass_protocol::Namespace;
use windlass_protocol::job::Source;

use super::*;

struct World {
    dir: tempfile::TempDir,
    plugins: Plugins,
    /// Workspaces so far.
    made: std::cell::Cell<u32>,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::with(limits, None, None)
    }

    /// With a line of the operator's credentials for git, or with a reason to have no plugins.
    fn with(limits: Limits, credentials: Option<&str>, refused: Option<&'static str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = credentials.map(|line| {
            let path = dir.path().join("credentials");
            fs::write(&path, line).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        });
        let git = Git::new(credentials, [Protocol::File, Protocol::Http].into_iter().collect(), None).unwrap();
        let plugins =
            Plugins::new(dir.path().join("plugins"), limits, refused, PluginCredentials::default(), git).unwrap();
        Self { plugins, made: std::cell::Cell::new(0), dir }
    }

    /// A plugin's repository; its source.
    fn plugin(&self, name: &str) -> String {
        let path = self.dir.path().join(format!("{name}.git"));
        fs::create_dir(&path).unwrap();
        sh(&path, "git init -q -b main; mkdir hooks; echo one >hooks/command; chmod +x hooks/command; git add -A");
        sh(&path, "git commit -q -m one; git tag v1");
        format!("file://{}#v1", path.display())
    }

    fn job(&self, sources: &[&str], trusted: bool) -> (JobSpec, Workspace) {
        let list: Vec<_> = sources.iter().map(|source| serde_json::json!({ *source: null })).collect();
        let namespace = if trusted { Namespace::trusted("web") } else { Namespace::overlay("web", "pr:7") };
        let env = vec![("BUILDKITE_PLUGINS".to_owned(), serde_json::Value::from(list).to_string())];
        let number = self.made.replace(self.made.get() + 1);
        let workspace = Workspace::at(self.dir.path().join(format!("work-{number}")));
        workspace.create(None, &Source::Empty).unwrap();
        (JobSpec { env, namespace, ..crate::link_kit::job() }, workspace)
    }

    async fn lay(&self, sources: &[&str], trusted: bool) -> Result<Vec<PathBuf>, Cause> {
        let (spec, workspace) = self.job(sources, trusted);
        let laid = self.plugins.lay(&spec, &workspace, &Busy::default()).await?;
        Ok(laid.into_iter().map(|laid| laid.directory).collect())
    }

    /// What was cloned and is kept.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.plugins.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| is_cloned(name) && !name.starts_with('.')).collect();
        names.sort();
        names
    }
}

const PLENTY: Limits = Limits { bytes: u64::MAX, count: 100 };

fn sh(dir: &Path, script: &str) {
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
    assert!(command.status().unwrap().success(), "{script}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_job_has_a_plugin_in_a_place_of_its_own_and_what_is_kept_is_the_agent_s_alone() {
    let world = World::new(PLENTY);
    let source = world.plugin("one");
    let first = world.lay(&[&source, &source], false).await.unwrap();
    assert_eq!(first[0], first[1], "the same source is there once");
    let second = world.lay(&[&source], true).await.unwrap();
    assert_eq!(world.kept().len(), 1, "what nobody is asked for is one clone for all");
    let kept = world.plugins.kept.place(&world.kept()[0]);
    assert_eq!(mode(&kept), 0o700);
    for (place, at) in [(&first[0], 0), (&second[0], 1)] {
        assert!(place.starts_with(world.dir.path().join(format!("work-{at}/plugins"))), "{}", place.display());
        assert_eq!((mode(place), mode(&place.join("hooks/command"))), (0o755, 0o755));
        assert_eq!(fs::read_to_string(place.join("hooks/command")).unwrap(), "one\n");
    }
    fs::remove_dir_all(&kept).unwrap();
    assert!(second[0].join("hooks/command").exists(), "a job that runs keeps its own");
}

#[tokio::test]
async fn what_is_kept_for_credentials_is_seen_only_by_whom_they_are_for() {
    let world = World::new(PLENTY);
    let source = world.plugin("secret");
    let (spec, _) = world.job(&[&source], true);
    let plugin = Plugin::list(variable(&spec, "BUILDKITE_PLUGINS")).unwrap().remove(0);
    let (url, directory) = match plugin.place().unwrap() {
        Place::Repository { url, directory } => (url, directory),
        Place::Vendored(_) => panic!("it is a repository"),
    };
    assert_eq!(directory, "");
    // As it is cloned where its server gives it to the operator alone.
    drop(world.plugins.clone(&plugin, &url, Class::Private, false).await.unwrap());
    let repository = world.dir.path().join("secret.git");
    fs::rename(&repository, world.dir.path().join("away")).unwrap();
    assert!(world.lay(&[&source], true).await.is_ok(), "a trusted build's step");
    let refused = world.lay(&[&source], false).await.unwrap_err();
    assert_eq!(refused.kind, CauseKind::PluginFailed);
    assert!(refused.detail.contains("credentials are not for it"), "{}", refused.detail);
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_and_what_an_operator_put_there_stays() {
    let world = World::new(Limits { bytes: u64::MAX, count: 1 });
    let (one, two) = (world.plugin("one"), world.plugin("two"));
    let id = id_of(&Plugin::list(&format!("[\"{one}\"]")).unwrap()[0]);
    world.lay(&[&one], false).await.unwrap();
    let first = world.kept();
    let places = world.lay(&[&two], false).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while world.kept().len() > 1 {
        assert!(std::time::Instant::now() < deadline, "{:?} are kept", world.kept());
        tokio::task::yield_now().await;
    }
    assert_ne!(world.kept(), first);
    assert!(places[0].join("hooks/command").exists());
    // An operator's own: used as it is, and no entry.
    let own = world.plugins.path().join(&id);
    fs::create_dir_all(own.join("hooks")).unwrap();
    assert!(!is_cloned(&id));
    assert_eq!(world.lay(&[&one], false).await.unwrap(), std::slice::from_ref(&own));
    // No job gets past it.
    let (mut spec, workspace) = world.job(&[&one], true);
    spec.env.push(("BUILDKITE_PLUGINS_ALWAYS_CLONE_FRESH".to_owned(), "true".to_owned()));
    let laid = world.plugins.lay(&spec, &workspace, &Busy::default()).await.unwrap();
    assert_eq!(laid[0].directory, own);
}

#[tokio::test]
async fn one_that_is_not_there_leaves_nothing() {
    let world = World::new(PLENTY);
    let source = format!("file://{}#v1", world.dir.path().join("gone.git").display());
    let failed = world.lay(&[&source], true).await.unwrap_err();
    assert_eq!(failed.kind, CauseKind::PluginFailed, "{}", failed.detail);
    let left = || fs::read_dir(world.plugins.path()).unwrap().count();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while left() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} are left", left());
        tokio::task::yield_now().await;
    }
}

/// A server that wants to know who asks, and has nothing for anybody: where it is, and as whom it was asked.
fn stern() -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, asked) = (server.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<_>>>::default());
    let asking = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let who = lines.filter_map(|line| line.strip_prefix("Authorization: Basic ").map(str::to_owned)).last();
            let answer = match &who {
                None => "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"",
                Some(_) => "404 Not Found",
            };
            asking.lock().unwrap().push(who);
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (place, asked)
}

#[tokio::test]
async fn a_server_is_asked_as_nobody_and_for_a_trusted_build_alone_as_the_operator_after_that() {
    for trusted in [false, true] {
        let (place, asked) = stern();
        let world = World::with(PLENTY, Some(&format!("http://ci:secret@{place}\n")), None);
        let failed = world.lay(&[&format!("http://{place}/secret.git#v1")], trusted).await.unwrap_err();
        assert_eq!(failed.kind, CauseKind::PluginFailed);
        assert_eq!(failed.detail.contains("credentials are not for it"), !trusted, "{}", failed.detail);
        let asked = asked.lock().unwrap();
        let (nobody, operator): (Vec<_>, Vec<_>) = asked.iter().partition(|who| who.is_none());
        assert!(!nobody.is_empty() && asked.is_sorted_by_key(Option::is_some), "nobody asks first: {asked:?}");
        assert_eq!(!operator.is_empty(), trusted, "{asked:?}");
        // `ci:secret`.
        assert!(operator.iter().all(|who| who.as_deref() == Some("Y2k6c2VjcmV0")), "{asked:?}");
    }
}

#[tokio::test]
async fn what_is_kept_is_asked_of_nobody() {
    let (place, asked) = stern();
    let world = World::new(PLENTY);
    let source = format!("http://{place}/secret.git#v1");
    let plugin = Plugin::list(&format!("[\"{source}\"]")).unwrap().remove(0);
    let kept = world.plugins.kept.place(&name_of(&plugin, Class::Private));
    fs::create_dir(&kept).unwrap();
    assert!(world.lay(&[&source], true).await.unwrap()[0].is_dir());
    assert_eq!(*asked.lock().unwrap(), []);
    assert!(world.lay(&[&source], false).await.is_err(), "it is for whom the credentials are");
    assert_ne!(*asked.lock().unwrap(), []);
}

#[tokio::test]
async fn what_may_not_be_fetched_by_anybody_is_no_question_of_credentials() {
    let world = World::new(PLENTY);
    let refused = world.lay(&["https://127.0.0.1:1/a.git#v1"], false).await.unwrap_err();
    assert_eq!(refused.kind, CauseKind::RefusedByPolicy, "{}", refused.detail);
    assert!(refused.detail.contains("the plugin https://127.0.0.1:1/a.git#v1: "), "{}", refused.detail);
    assert!(!refused.detail.contains("credentials"), "{}", refused.detail);
    let none = World::with(PLENTY, None, Some("they are off"));
    assert!(none.plugins.is_refused() && none.lay(&[], true).await.unwrap().is_empty());
    let refused = none.lay(&[&none.plugin("one")], true).await.unwrap_err();
    assert_eq!((refused.kind, none.kept().len()), (CauseKind::RefusedByPolicy, 0), "{}", refused.detail);
    let source = world.plugin("one");
    let [most, more] = [PLUGINS_MAX, PLUGINS_MAX + 1].map(|count| vec![source.as_str(); count]);
    assert_eq!(world.lay(&most, true).await.unwrap().len(), PLUGINS_MAX);
    assert_eq!(world.lay(&more, true).await.unwrap_err().kind, CauseKind::PluginFailed);
}

#[tokio::test]
async fn a_job_that_clones_afresh_has_what_its_version_is_now_and_others_keep_what_they_have() {
    let world = World::new(PLENTY);
    let source = world.plugin("one").replace("#v1", "#main");
    let text = |places: Vec<PathBuf>| fs::read_to_string(places[0].join("hooks/command")).unwrap();
    assert_eq!(text(world.lay(&[&source], false).await.unwrap()), "one\n");
    let repository = world.dir.path().join("one.git");
    sh(&repository, "echo two >hooks/command; git commit -qam two");
    assert_eq!(text(world.lay(&[&source], false).await.unwrap()), "one\n");
    for said in ["true", "1"] {
        let (mut spec, workspace) = world.job(&[&source], false);
        spec.env.push(("BUILDKITE_PLUGINS_ALWAYS_CLONE_FRESH".to_owned(), said.to_owned()));
        let laid = world.plugins.lay(&spec, &workspace, &Busy::default()).await.unwrap();
        assert_eq!(text(vec![laid[0].directory.clone()]), "two\n");
    }
    assert_eq!(text(world.lay(&[&source], false).await.unwrap()), "one\n");
    assert_eq!(world.kept().len(), 2, "a commit is kept once");
}

#[tokio::test]
async fn a_directory_of_a_plugin_lies_within_it() {
    let world = World::new(PLENTY);
    let source = world.plugin("one");
    let repository = world.dir.path().join("one.git");
    sh(&repository, "mkdir inner; echo x >inner/file; ln -s .. out; ln -s inner in; git add -A; git commit -qm two");
    let plugin = Plugin::list(&format!("[\"{source}\"]")).unwrap().remove(0);
    for (directory, inside) in [
        ("", true),
        ("inner", true),
        ("in", true),
        ("out", false),
        ("..", false),
        ("inner/file", false),
        ("none", false),
    ] {
        let found = below(repository.clone(), directory, &plugin);
        assert_eq!(found.is_ok(), inside, "{directory}: {found:?}");
    }
}

#[test]
fn what_others_may_write_to_is_no_plugin_that_an_operator_put_there() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("plugin");
    assert!(!is_there(&place).unwrap());
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(is_there(&place).unwrap());
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(is_there(&place).is_err());
}
