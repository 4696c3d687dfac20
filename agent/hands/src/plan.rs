//! What a bootstrap is to do: written by an agent before a job starts, read once by the program in the job.
//!
//! A plan is one frame (see [`wire`]). Nothing in it is secret from its job.

use crate::limits::{
    ENV_MAX_BYTES, ENV_VARS_MAX, HANDS_ARGUMENTS_MAX, HANDS_FRAME_MAX_BYTES, HANDS_PATH_MAX_BYTES, PLUGINS_MAX,
};
use crate::wire::{self, Bad, In, LENGTH_BYTES, Out};

/// The name by which the program is a bootstrap: its one argument is the plan's path.
pub const BOOTSTRAP: &str = "windlass-bootstrap";

/// The first argument by which a bootstrap tells its agent what a phase changed. Its hello's variables are those that are new
/// or different; names that are gone follow as arguments. The answer is what the next phase has, see [`Surroundings`].
pub const CARRY: &str = "carry";

/// The first argument by which a bootstrap tells its agent which phase failed: its [`Fault`], then the parts of its words.
pub const FAILED: &str = "failed";

/// What this source speaks.
const VERSION: u8 = 1;

/// How a plan is written. It is read once, by the program of the agent that wrote it.
const PLAN_VERSION: u8 = 2;

/// What a bootstrap is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Hooks of the agent, in order: name and absolute path. All of them exist.
    pub agent_hooks: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the repository's own hooks run.
    pub repository_hooks: bool,
    /// In the step's order.
    pub plugins: Vec<Plugin>,
    /// Where the job's files are, and where its first phase begins.
    pub checkout: Vec<u8>,
    /// How the files come there.
    pub files: Files,
    /// The script for the shell.
    pub command: Vec<u8>,
    /// What every git of the checkout is set to.
    pub git: Git,
}

/// What every git of a checkout is set to: the agent's operator says by which protocols jobs' repositories are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Git {
    /// `NAME=value`, where the job does not say otherwise.
    pub defaults: Vec<Vec<u8>>,
    /// `GIT_ALLOW_PROTOCOL` for what the build or a hook names.
    pub protocols: Vec<u8>,
    /// The same for what a tree names: submodules.
    pub tree_protocols: Vec<u8>,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plugin {
    /// For people.
    pub name: Vec<u8>,
    /// Where it is: absolute, or for a vendored one below the checkout.
    pub directory: Vec<u8>,
    /// It is a part of the checkout.
    pub vendored: bool,
    /// `NAME=value`, for its own hooks.
    pub environment: Vec<Vec<u8>>,
}

/// How a job's files come to where it works.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// There are none to come, unless a hook brings some.
    #[default]
    None,
    /// They are laid out, and no hook takes their place.
    Laid,
    /// They are laid out from a repository, before any hook; a hook may take their place.
    CheckedOut,
    /// A repository's objects are there; this is to be checked out.
    Fetched(Vec<u8>),
}

/// Which kind of phase failed; what the outcome's cause will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A hook.
    Hook,
    /// A plugin, before any hook of it ran.
    Plugin,
    /// The checkout.
    Checkout,
}

impl Fault {
    /// As it is told.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Plugin => "plugin",
            Self::Checkout => "checkout",
        }
    }

    /// The one of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::Hook, Self::Plugin, Self::Checkout].into_iter().find(|fault| fault.word() == word)
    }
}

/// The variables and the directory of a phase: all that a wrapper sees around its hook, or what changed since the job began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Where it begins; empty where nobody said.
    pub directory: Vec<u8>,
    /// `NAME=value`, or a name alone for what is gone.
    pub environment: Vec<Vec<u8>>,
}

impl Plan {
    /// Its frame.
    ///
    /// # Errors
    /// [`Bad::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, Bad> {
        let mut out = Out::new(PLAN_VERSION);
        out.count(self.agent_hooks.len())?;
        for (name, path) in &self.agent_hooks {
            out.bytes(name)?;
            out.bytes(path)?;
        }
        out.raw(&[u8::from(self.repository_hooks)]);
        out.count(self.plugins.len())?;
        for plugin in &self.plugins {
            out.bytes(&plugin.name)?;
            out.bytes(&plugin.directory)?;
            out.raw(&[u8::from(plugin.vendored)]);
            out.list(&plugin.environment)?;
        }
        out.bytes(&self.checkout)?;
        let (kind, target): (u8, &[u8]) = match &self.files {
            Files::None => (0, &[]),
            Files::Laid => (1, &[]),
            Files::CheckedOut => (2, &[]),
            Files::Fetched(target) => (3, target),
        };
        out.raw(&[kind]);
        out.bytes(target)?;
        out.bytes(&self.command)?;
        out.list(&self.git.defaults)?;
        out.bytes(&self.git.protocols)?;
        out.bytes(&self.git.tree_protocols)?;
        out.frame()
    }

    /// Reads one from a file's bytes.
    ///
    /// # Errors
    /// [`Bad`].
    pub fn decode(file: &[u8]) -> Result<Self, Bad> {
        let (length, bytes) = file.split_first_chunk::<LENGTH_BYTES>().ok_or(Bad::Short)?;
        if wire::length(*length)? != bytes.len() {
            return Err(Bad::Trailing);
        }
        let mut of = In(bytes);
        let version = of.byte()?;
        if version != PLAN_VERSION {
            return Err(Bad::Version(version));
        }
        let count = of.count(HANDS_ARGUMENTS_MAX, 8)?;
        let mut agent_hooks = Vec::with_capacity(count);
        for _ in 0..count {
            agent_hooks.push((of.path()?, of.path()?));
        }
        let repository_hooks = of.flag()?;
        let count = of.count(PLUGINS_MAX, 13)?;
        let mut plugins = Vec::with_capacity(count);
        for _ in 0..count {
            plugins.push(Plugin {
                name: of.path()?,
                directory: of.path()?,
                vendored: of.flag()?,
                environment: of.list(ENV_VARS_MAX)?,
            });
        }
        let checkout = of.path()?;
        let kind = of.byte()?;
        let target = of.path()?;
        let files = match kind {
            0 => Files::None,
            1 => Files::Laid,
            2 => Files::CheckedOut,
            3 => Files::Fetched(target),
            _ => return Err(Bad::Unknown),
        };
        let command = of.bytes(HANDS_FRAME_MAX_BYTES)?;
        let git = Git { defaults: of.list(ENV_VARS_MAX)?, protocols: of.path()?, tree_protocols: of.path()? };
        of.end(Self { agent_hooks, repository_hooks, plugins, checkout, files, command, git })
    }
}

impl Surroundings {
    /// Its bytes, which come through an output.
    ///
    /// # Errors
    /// [`Bad::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, Bad> {
        let mut out = Out::new(VERSION);
        out.bytes(&self.directory)?;
        out.list(&self.environment)?;
        out.frame()
    }

    /// Reads one: what a phase has, or what a hook left.
    ///
    /// # Errors
    /// [`Bad`]; [`Bad::Short`] also where some of it is still to come.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Bad> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(Bad::Short)?;
        let (frame, rest) = rest.split_at_checked(wire::length(*length)?).ok_or(Bad::Short)?;
        let mut of = In(frame);
        if of.byte()? != VERSION {
            return Err(Bad::Unknown);
        }
        let next = Self { directory: of.bytes(HANDS_PATH_MAX_BYTES)?, environment: of.list(ENV_VARS_MAX * 2)? };
        Ok((of.end(next)?, rest))
    }
}

/// The most that a wrapper shows of a hook's environment, before and after it: the rest is a hook gone wrong.
pub const SHOWN_MAX_BYTES: usize = 2 * (ENV_MAX_BYTES + HANDS_FRAME_MAX_BYTES);
