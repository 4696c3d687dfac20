//! Plugins out of real repositories, by paths of this machine, for jobs of several builds.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

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
        let dir = tempfile::tempdir().unwrap();
        let git = Git::new(None, [Protocol::File].into_iter().collect(), None).unwrap();
        let plugins =
            Plugins::new(dir.path().join("plugins"), limits, None, PluginCredentials::default(), git).unwrap();
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
