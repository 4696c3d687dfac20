//! The plugins of jobs: cloned once into the agent's folder, and each job sees what it names, and nothing else (reference
//! 12.1, docs/design/027).
//!
//! `<plugins>/<id>.<digest>` is a plugin at a version, the agent's alone; the digest is its source's and its class's, for ids of
//! different sources may be the same. Whoever names one gets it linked into a place of his own. An operator may put a plugin
//! there as `<id>`, which is used as it is, by all. One is cloned as nobody; where a server gives it to nobody, and the
//! operator's credentials are for it, it is cloned with those, and is of another class, which only jobs see that might
//! have it cloned so. What a repository could have run by a checkout (hooks, filters) is off.

mod policy;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use windlass_cache::tree::{is_program, mode_of};
use windlass_git::dir_cache::{Held, Limits, Mode};
use windlass_hands::plan;
use windlass_pipeline::plugin::{Place, Plugin};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::PLUGINS_MAX;
use windlass_protocol::{Cause, Digest};

pub use self::policy::PluginCredentials;
use crate::bounded::Bounded;
use crate::git::{Git, Who};
use crate::hooks;
use crate::phases::variable;
use crate::preparing::Busy;
use crate::workspace::{Workspace, io_cause};

/// Hex digits of a source's digest in its directory's name.
const DIGEST_DIGITS: usize = 12;
/// Characters of an id in a directory's name: file systems take 255 bytes.
const ID_MAX_CHARS: usize = 160;

/// The plugins of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Plugins {
    kept: Bounded,
    refused: Option<&'static str>,
    credentials: PluginCredentials,
    git: Git,
}

/// As whom a plugin was cloned, and so who may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A server gives it to everybody.
    Open,
    /// It gives it to the operator.
    Private,
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
    /// In this directory, which is made if it is not there, within these bounds. `refused` says why there are to be none.
    pub(crate) fn new(
        path: PathBuf,
        limits: Limits,
        refused: Option<&'static str>,
        credentials: PluginCredentials,
        git: Git,
    ) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        hooks::check_alone(&path).map_err(io::Error::other)?;
        let kept = Bounded::open(path, limits, "plugin", is_cloned)?;
        Ok(Self { kept, refused, credentials, git })
    }

    /// Whether no step may have any.
    pub(crate) const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Where plugins are.
    pub(crate) fn path(&self) -> &Path {
        self.kept.path()
    }

    /// The plugins of a job, in its order, each there.
    pub(crate) async fn lay(&self, spec: &JobSpec, workspace: &Workspace, busy: &Busy) -> Result<Vec<Laid>, Cause> {
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
        let own = workspace.plugins();
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
                    // A job that clones afresh does not get past it: it may be there in place of what is elsewhere.
                    let whole = match self.operators(plugin)? {
                        Some(there) => there,
                        None => {
                            let (there, held) = self.cloned(plugin, &url, (fresh, spec)).await?;
                            let name: String = plugin.name().chars().take(ID_MAX_CHARS).collect();
                            link(busy, there, own.join(format!("{at}-{name}")), held).await?
                        }
                    };
                    (below(whole, &directory, plugin)?, false)
                }
            };
            laid.push(Laid { name: plugin.name(), directory, vendored, environment });
        }
        Ok(laid)
    }

    /// A plugin that an operator put in place.
    fn operators(&self, plugin: &Plugin) -> Result<Option<PathBuf>, Cause> {
        let place = self.kept.place(&id_of(plugin));
        let there = is_there(&place).map_err(|error| io_cause(&error, &place))?;
        Ok(there.then_some(place))
    }

    /// A repository's files at a version, as they were cloned once, or cloned now; they stay as long as they are held.
    async fn cloned(
        &self,
        plugin: &Plugin,
        url: &str,
        (fresh, spec): (bool, &JobSpec),
    ) -> Result<(PathBuf, Held), Cause> {
        let with_credentials = self.credentials.are_for(url, spec.namespace.trust());
        let classes = if with_credentials { &[Class::Open, Class::Private][..] } else { &[Class::Open] };
        if !fresh {
            for class in classes {
                if let Some(found) = self.found(&name_of(plugin, *class)).await? {
                    return Ok(found);
                }
            }
        }
        let _tidied = Tidied(&self.kept);
        let mut last = None;
        for class in classes {
            match self.clone(plugin, url, *class, fresh).await {
                Ok(made) => return Ok(made),
                // A full disk, or what may not be fetched at all, is no question of who asks.
                Err(cause) if cause.kind != CauseKind::CheckoutFailed => return Err(named(plugin, &cause)),
                Err(cause) => last = Some(cause),
            }
        }
        let mut cause = last.unwrap_or_else(|| failed("it was not cloned"));
        if !with_credentials {
            cause.detail.push_str("; the agent's credentials are not for it in this build (--plugin-credentials)");
        }
        Err(named(plugin, &cause))
    }

    /// An entry that is there, which is held by whoever reads it.
    async fn found(&self, name: &str) -> Result<Option<(PathBuf, Held)>, Cause> {
        let place = self.kept.place(name);
        if !is_there(&place).map_err(|error| io_cause(&error, &place))? {
            return Ok(None);
        }
        let held = self.kept.lock(name, Mode::Shared).await.map_err(|error| io_cause(&error, &place))?;
        // It may have been removed for room meanwhile.
        let there = is_there(&place).map_err(|error| io_cause(&error, &place))?;
        Ok(there.then_some((place, held)))
    }

    async fn clone(&self, plugin: &Plugin, url: &str, class: Class, fresh: bool) -> Result<(PathBuf, Held), Cause> {
        let name = name_of(plugin, class);
        let unusable = |error: &io::Error| io_cause(error, &self.kept.place(&name));
        let held = self.kept.lock(&name, Mode::Exclusive).await.map_err(|error| unusable(&error))?;
        let place = self.kept.place(&name);
        if !fresh && is_there(&place).map_err(|error| unusable(&error))? {
            return Ok((place, held));
        }
        let new = self.kept.begin(&held).map_err(|error| unusable(&error))?;
        let who = if class == Class::Private { Who::Agent } else { Who::Nobody };
        let commit = self.git.clone_for_all(&new, url, plugin.version.as_deref(), who).await?;
        let dir = new.clone();
        let opened = tokio::task::spawn_blocking(move || open_below(&dir)).await.map_err(io::Error::other).flatten();
        opened.map_err(|error| unusable(&error))?;
        if !fresh {
            self.kept.put(&held, &new).map_err(|error| unusable(&error))?;
            return Ok((place, held));
        }
        // What jobs may use is never changed: another commit of the same version is another entry.
        let name = format!("{name}.{commit}");
        let held = self.kept.lock(&name, Mode::Exclusive).await.map_err(|error| unusable(&error))?;
        let place = self.kept.place(&name);
        if !is_there(&place).map_err(|error| unusable(&error))? {
            self.kept.put(&held, &new).map_err(|error| unusable(&error))?;
        }
        Ok((place, held))
    }
}

/// After a clone, or what was to be one: what is too much goes, and what a clone left that was given up.
struct Tidied<'a>(&'a Bounded);

impl Drop for Tidied<'_> {
    fn drop(&mut self) {
        self.0.trim();
    }
}

/// Whether a name is one of what was cloned here: `<id>.<digest>`, and `.<commit>` after it where it was cloned anew. No id
/// has a dot.
fn is_cloned(name: &str) -> bool {
    let digest = name.split('.').nth(1).unwrap_or_default();
    digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn id_of(plugin: &Plugin) -> String {
    plugin.id().chars().take(ID_MAX_CHARS).collect()
}

fn name_of(plugin: &Plugin, class: Class) -> String {
    let class = match class {
        Class::Open => "open",
        Class::Private => "private",
    };
    let digest = Digest::of(format!("{class}\0{}", plugin.source()).as_bytes()).to_hex();
    let digest: String = digest.chars().take(DIGEST_DIGITS).collect();
    format!("{}.{digest}", id_of(plugin))
}

/// Links a clone into a place of the job's own, which ends with the job's workspace.
async fn link(busy: &Busy, from: PathBuf, to: PathBuf, held: Held) -> Result<PathBuf, Cause> {
    busy.blocking(move || {
        let linked = || {
            to.parent().map_or(Ok(()), readable)?;
            link_tree(&from, &to)
        };
        let linked = linked();
        drop(held);
        linked.map_err(|error| io_cause(&error, &to)).map(|()| to)
    })
    .await
}

/// A new directory that everybody may read who may come to it.
fn readable(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Whatever the umask.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

/// The same files in new directories: what is removed in one place stays in the other. Copies, where the file system links none.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    readable(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, from, to) = (entry.file_type()?, entry.path(), to.join(entry.file_name()));
        if kind.is_dir() {
            link_tree(&from, &to)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if fs::hard_link(&from, &to).is_err() {
            // Another file system, or too many links; what is wrong with the disk the copy tells.
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn failed(what: &str) -> Cause {
    Cause::new(CauseKind::PluginFailed, what)
}

/// What is wrong with a plugin.
fn named(plugin: &Plugin, cause: &Cause) -> Cause {
    Cause::new(kind_of(cause), format!("the plugin {}: {}", plugin.source(), cause.detail))
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

/// Lets everybody read what is below, and nobody but the owner write, whatever the umask. The directory itself stays its
/// owner's: who may come here gets links.
fn open_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755))?;
            open_below(&entry.path())?;
        } else if kind.is_file() {
            let mode = mode_of(is_program(entry.metadata()?.permissions().mode()));
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(u32::from(mode)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
