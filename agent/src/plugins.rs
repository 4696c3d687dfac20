//! The plugins of jobs: cloned once into the agent's folder, and there for all jobs to read and none to change (reference
//! 12.1).
//!
//! `<plugins>/<id>-<digest>` is a plugin at a version; the digest is its source's, for ids of different sources may be the
//! same. An operator may put a plugin there as `<id>`. It is cloned as the agent, with the agent's credentials, beside its
//! place and renamed into it: nobody ever sees half of one. What a repository could have run by a checkout (hooks, filters)
//! is off.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use windlass_hands::plan;
use windlass_pipeline::plugin::{Place, Plugin};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{GIT_LOCK_MS, PLUGINS_MAX};
use windlass_protocol::{Cause, Digest};

use crate::bulk::blocking;
use crate::git::Git;
use crate::hooks;
use crate::phases::variable;
use crate::workspace::{io_cause, wipe_now};

/// Hex digits of a source's digest in its directory's name.
const DIGEST_DIGITS: usize = 12;
/// Characters of an id in a directory's name: file systems take 255 bytes.
const ID_MAX_CHARS: usize = 200;
/// Between two looks at a lock that somebody has.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The plugins of an agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plugins {
    path: PathBuf,
    refused: Option<&'static str>,
    git: Git,
}

/// A plugin that is there.
#[derive(Debug, Clone)]
pub(crate) struct Laid {
    pub(crate) name: String,
    /// Absolute, or for a vendored one below the checkout.
    pub(crate) directory: PathBuf,
    pub(crate) vendored: bool,
    environment: Vec<(String, String)>,
}

impl Laid {
    /// Whether it has a hook of this name; for what is not vendored.
    pub(crate) fn has_hook(&self, name: &str) -> bool {
        fs::metadata(self.directory.join("hooks").join(name)).is_ok_and(|found| found.is_file())
    }

    /// As a plan has it.
    pub(crate) fn planned(&self) -> plan::Plugin {
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
        plan::Plugin {
            name: self.name.clone().into_bytes(),
            directory: self.directory.as_os_str().as_bytes().to_vec(),
            vendored: self.vendored,
            environment: environment.collect(),
        }
    }
}

impl Plugins {
    /// In this directory, which is made if it is not there. `refused` says why there are to be none.
    pub(crate) fn new(path: PathBuf, refused: Option<&'static str>, git: Git) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        hooks::check_alone(&path).map_err(io::Error::other)?;
        let plugins = Self { path, refused, git };
        plugins.tidy()?;
        Ok(plugins)
    }

    /// Removes what an agent's death left half done. Whoever is at work there holds a lock.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some((of, _)) = name.strip_prefix(".new-").and_then(|name| name.rsplit_once('~')) else { continue };
            if let Some(_lock) = try_lock(&self.lock_of(of))? {
                wipe_now(&path);
            }
        }
        Ok(())
    }

    /// Whether no step may have any.
    pub(crate) const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Where plugins are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The plugins of a job, in its order, each there.
    pub(crate) async fn lay(&self, spec: &JobSpec) -> Result<Vec<Laid>, Cause> {
        let json = variable(spec, "BUILDKITE_PLUGINS");
        if json.trim().is_empty() {
            return Ok(Vec::new());
        }
        let plugins = Plugin::list(json).map_err(|error| failed(&error.to_string()))?;
        if plugins.len() > PLUGINS_MAX {
            return Err(failed(&format!("there are {} plugins; {PLUGINS_MAX} are the most", plugins.len())));
        }
        if let (Some(why), Some(_)) = (self.refused, plugins.first()) {
            return Err(Cause::new(CauseKind::RefusedByPolicy, format!("this agent runs no plugins: {why}")));
        }
        let fresh = matches!(variable(spec, "BUILDKITE_PLUGINS_ALWAYS_CLONE_FRESH"), "true" | "1");
        let mut laid: Vec<Laid> = Vec::new();
        for (at, plugin) in plugins.iter().enumerate() {
            let (environment, wrong) = plugin.environment();
            if let Some(wrong) = wrong {
                tracing::warn!(attempt = %spec.attempt, plugin = plugin.name(), wrong, "plugin_settings_cut");
            }
            // The same source runs twice and is fetched once.
            let earlier = plugins.iter().take(at).position(|other| other.source() == plugin.source());
            let place = plugin.place().map_err(|error| failed(&error.to_string()))?;
            let (directory, vendored) = match (place, earlier.and_then(|earlier| laid.get(earlier))) {
                (_, Some(earlier)) => (earlier.directory.clone(), earlier.vendored),
                (Place::Vendored(directory), None) => (PathBuf::from(directory), true),
                (Place::Repository { url, directory }, None) => {
                    let whole = self.cloned(plugin, &url, fresh).await?;
                    (below(whole, &directory, plugin)?, false)
                }
            };
            laid.push(Laid { name: plugin.name(), directory, vendored, environment });
        }
        Ok(laid)
    }

    /// A repository's files at a version: as an operator put them there, as they were cloned once, or cloned now.
    async fn cloned(&self, plugin: &Plugin, url: &str, fresh: bool) -> Result<PathBuf, Cause> {
        let source = plugin.source();
        let id: String = plugin.id().chars().take(ID_MAX_CHARS).collect();
        let digest: String = Digest::of(source.as_bytes()).to_string().chars().rev().take(DIGEST_DIGITS).collect();
        let name = format!("{id}-{digest}");
        let place = self.path.join(&name);
        if !fresh {
            for there in [self.path.join(&id), place.clone()] {
                if is_there(&there).map_err(|error| io_cause(&error, &there))? {
                    return Ok(there);
                }
            }
        }
        let _lock = lock(self.lock_of(&name)).await.map_err(|error| io_cause(&error, &place))?;
        let there = is_there(&place).map_err(|error| io_cause(&error, &place))?;
        if there && !fresh {
            return Ok(place);
        }
        let new = Unfinished(self.path.join(format!(".new-{name}~{}", next_number())));
        let made = self.clone(&new.0, url, plugin.version.as_deref()).await;
        let target =
            made.map_err(|cause| Cause::new(kind_of(&cause), format!("the plugin {source}: {}", cause.detail)))?;
        // A directory that jobs use is never changed: another commit of the same version is another directory.
        let place = if fresh { self.path.join(format!("{name}-{target}")) } else { place };
        blocking(move || {
            if fs::symlink_metadata(&place).is_ok() {
                return Ok(place);
            }
            fs::rename(&new.0, &place).map_err(|error| io_cause(&error, &place))?;
            Ok(place)
        })
        .await
    }

    /// Clones into a new directory, for all to read; the commit.
    async fn clone(&self, new: &Path, url: &str, version: Option<&str>) -> Result<String, Cause> {
        let dir = new.to_owned();
        blocking(move || fs::create_dir(&dir).map_err(|error| io_cause(&error, &dir))).await?;
        let commit = self.git.clone_for_all(new, url, version).await?;
        let dir = new.to_owned();
        blocking(move || open_to_all(&dir).map_err(|error| io_cause(&error, &dir))).await?;
        Ok(commit)
    }

    fn lock_of(&self, name: &str) -> PathBuf {
        self.path.join(format!(".lock-{name}"))
    }
}

/// A clone that is not renamed into its place yet, and goes where it never will be.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        // What is renamed is not there any more. Nobody waits for this; what it cannot do the next start does.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || wipe_now(&path))),
            Err(_) => wipe_now(&path),
        }
    }
}

/// A number that no other clone of this process has.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) + (u64::from(std::process::id()) << 32)
}

fn failed(what: &str) -> Cause {
    Cause::new(CauseKind::PluginFailed, what)
}

/// A plugin that cannot be fetched is a plugin's failure; a full disk is one's own.
const fn kind_of(cause: &Cause) -> CauseKind {
    match cause.kind {
        CauseKind::CheckoutFailed => CauseKind::PluginFailed,
        kind => kind,
    }
}

fn below(whole: PathBuf, directory: &str, plugin: &Plugin) -> Result<PathBuf, Cause> {
    let path = if directory.is_empty() { whole.clone() } else { whole.join(directory) };
    let real = path.canonicalize().ok().filter(|real| real.is_dir());
    let inside = real.is_some_and(|real| whole.canonicalize().is_ok_and(|whole| real.starts_with(whole)));
    if inside { Ok(path) } else { Err(failed(&format!("the plugin {} has no directory {directory}", plugin.source()))) }
}

/// Whether something stands in a plugin's place, that nobody but the operator can have put there.
fn is_there(place: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(place) {
        Ok(_) => hooks::check_alone(place).map(|()| true).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets everybody read, and nobody but the owner write, whatever the umask.
fn open_to_all(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open_to_all(&entry.path())?;
        } else if kind.is_file() {
            let runs = entry.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

/// Waits for a lock between this agent's jobs and other agents with the same folder.
pub(crate) async fn lock(path: PathBuf) -> io::Result<File> {
    let give_up_at = tokio::time::Instant::now() + Duration::from_millis(GIT_LOCK_MS);
    loop {
        if let Some(lock) = try_lock(&path)? {
            return Ok(lock);
        }
        if tokio::time::Instant::now() >= give_up_at {
            let what = format!("somebody has held {} for {} s", path.display(), GIT_LOCK_MS / 1_000);
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.write(true).create(true).truncate(false).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
