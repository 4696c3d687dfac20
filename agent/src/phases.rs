//! Which jobs run in phases under a bootstrap, and what its plan is (docs/design/020). A job without hooks, plugins, artifact
//! paths and wishes for its checkout is started as it is.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_git::{Protocols, settings};
use windlass_hands::phases::REPOSITORY_HOOKS;
use windlass_hands::plan::{self, Files, Plan};
use windlass_protocol::Cause;
use windlass_protocol::job::{JobSpec, Source};

use crate::hooks::Hooks;
use crate::plugins::{Laid, Plugins};
use crate::workspace::Workspace;

/// Variables by which a step has its checkout otherwise than the agent does it by itself (reference 11.7), or something around
/// its command.
const CHECKOUT: [&str; 8] = [
    "BUILDKITE_SKIP_CHECKOUT",
    "BUILDKITE_GIT_SUBMODULES",
    "BUILDKITE_GIT_LFS_ENABLED",
    "BUILDKITE_GIT_CHECKOUT_FLAGS",
    "BUILDKITE_GIT_CLEAN_FLAGS",
    "BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS",
    "BUILDKITE_ARTIFACT_PATHS",
    "WINDLASS_CACHE",
];

/// What an operator says about the phases of jobs.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) hooks: Hooks,
    pub(crate) plugins: Plugins,
    /// Whether repositories may bring hooks, and steps plugins of theirs.
    pub(crate) local_hooks: bool,
}

/// How one job is run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    hooks: Vec<(&'static str, PathBuf)>,
    plugins: Vec<Laid>,
    repository_hooks: bool,
    asks: bool,
    /// Nothing is laid out before it starts.
    skips: bool,
    /// Something else than a bootstrap's own checkout brings its files.
    hooked: bool,
}

impl Rules {
    /// What jobs are told of them; nothing in a job may change these.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let plugins = self.plugins.is_refused();
        let mut told = vec![
            ("BUILDKITE_COMMAND_EVAL", "true".to_owned()),
            ("BUILDKITE_LOCAL_HOOKS_ENABLED", self.local_hooks.to_string()),
            ("BUILDKITE_PLUGINS_ENABLED", (!plugins).to_string()),
            ("BUILDKITE_PLUGINS_PATH", path(self.plugins.path())),
        ];
        if let Some((first, more)) = self.hooks.paths().split_first() {
            told.push(("BUILDKITE_HOOKS_PATH", path(first)));
            let more: Vec<String> = more.iter().map(|more| path(more)).collect();
            if !more.is_empty() {
                told.push(("BUILDKITE_ADDITIONAL_HOOKS_PATHS", more.join(",")));
            }
        }
        told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Course {
    /// Whether finding it out looks at the disk.
    pub(crate) fn needs_disk(rules: &Rules, plugins: &[Laid]) -> bool {
        !rules.hooks.paths().is_empty() || !plugins.is_empty()
    }

    /// Of a job, before its files are there. Looks at the disk.
    pub(crate) fn of(rules: &Rules, spec: &JobSpec, plugins: Vec<Laid>) -> Result<Self, Cause> {
        let hooks = rules.hooks.list().map_err(|error| error.cause())?;
        let is_hooked = hooks.iter().any(|(name, _)| *name == "checkout")
            || plugins.iter().any(|plugin| !plugin.vendored && plugin.has_hook("checkout"));
        Ok(Self {
            asks: CHECKOUT.iter().any(|name| !variable(spec, name).is_empty()),
            skips: matches!(variable(spec, "BUILDKITE_SKIP_CHECKOUT"), "true" | "1"),
            hooked: is_hooked && !matches!(spec.source, Source::Tree { .. }),
            repository_hooks: rules.local_hooks,
            hooks,
            plugins,
        })
    }

    /// Whether its files are laid out before it starts.
    pub(crate) const fn brings_files(&self) -> bool {
        !self.skips && !self.hooked
    }

    /// Whether its commit is fetched before it starts and checked out by its bootstrap, in its place among the hooks. An
    /// image need not have git, so what a container sees is laid out whole.
    pub(crate) fn defers_checkout(&self, spec: &JobSpec) -> bool {
        spec.image.is_none() && self.has_phases()
    }

    fn has_phases(&self) -> bool {
        !self.hooks.is_empty() || !self.plugins.is_empty() || self.asks
    }

    /// Directories that a container needs to see for it.
    pub(crate) fn shown(&self, rules: &Rules) -> Vec<PathBuf> {
        let hooks = if self.hooks.is_empty() { &[] } else { rules.hooks.paths() };
        let plugins = self.plugins.iter().filter(|plugin| !plugin.vendored).map(|plugin| plugin.directory.clone());
        let mut shown: Vec<PathBuf> = hooks.iter().cloned().chain(plugins).collect();
        shown.sort();
        shown.dedup();
        shown
    }

    /// The plan of its bootstrap, where it has one. `target` is what was fetched and is to be checked out. Looks at the disk.
    pub(crate) fn plan(
        &self,
        spec: &JobSpec,
        workspace: &Workspace,
        target: Option<&str>,
        protocols: &Protocols,
    ) -> io::Result<Option<Plan>> {
        let repository_hooks = self.repository_hooks && self.may_have_hooks(&workspace.checkout)?;
        if !self.has_phases() && !repository_hooks {
            return Ok(None);
        }
        let files = match (&spec.source, target) {
            (Source::Empty, _) => Files::None,
            _ if !self.brings_files() => Files::None,
            (Source::Tree { .. }, _) => Files::Laid,
            (Source::Git { .. }, Some(target)) => Files::Fetched(target.as_bytes().to_vec()),
            (Source::Git { .. }, None) => Files::CheckedOut,
        };
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        Ok(Some(Plan {
            agent_hooks: self.hooks.iter().map(|(name, path)| (name.as_bytes().to_vec(), bytes(path))).collect(),
            repository_hooks,
            plugins: self.plugins.iter().map(Laid::planned).collect(),
            checkout: bytes(&workspace.checkout),
            files,
            command: spec.command.clone().into_bytes(),
            git: git(protocols),
        }))
    }

    /// Whether a repository can have brought hooks. Where other phases come first they, or a checkout, may bring some yet.
    /// The directory is the job's user's, but nothing of the job has run in it.
    fn may_have_hooks(&self, checkout: &Path) -> io::Result<bool> {
        if self.has_phases() {
            return Ok(true);
        }
        match fs::symlink_metadata(checkout.join(REPOSITORY_HOOKS)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What every git of a bootstrap's checkout is set to.
fn git(protocols: &Protocols) -> plan::Git {
    let ssh = [(settings::SSH_COMMAND, settings::SSH)];
    let defaults = settings::ALWAYS.into_iter().chain(ssh).map(|(name, value)| format!("{name}={value}").into_bytes());
    plan::Git {
        defaults: defaults.collect(),
        protocols: protocols.variable().into_bytes(),
        tree_protocols: protocols.elsewhere().variable().into_bytes(),
    }
}

/// A variable that the job was given; empty where it was not.
pub(crate) fn variable<'a>(spec: &'a JobSpec, name: &str) -> &'a str {
    spec.env.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}
