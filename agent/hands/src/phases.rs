//! The phases of a job, in the reference's order (18.4), and the status that they give it (18.7).
//!
//! A machine without I/O: [`Phases::next`] says what to run, [`Phases::ended`] hears what came of it. Which hooks there are
//! is asked of [`World`] when their phase begins, for a checkout brings some and a hook may bring others.

use std::collections::VecDeque;

use crate::plan::{Fault, Files, Plan};

/// Where hooks of a repository lie in its checkout.
pub const REPOSITORY_HOOKS: &str = ".buildkite/hooks";

/// What a machine of phases asks about the job.
pub trait World {
    /// Whether there is a hook at this path. A relative one is below the checkout.
    fn is_hook(&self, path: &[u8]) -> bool;
    /// Whether files are to be uploaded.
    fn has_artifact_paths(&self) -> bool;
    /// Whether the step has a cache.
    fn has_cache(&self) -> bool;
    /// Whether nothing is to be checked out.
    fn skips_checkout(&self) -> bool;
}

/// Which files of a job are uploaded, as globs between semicolons: after a command that failed none of `outputs`, for what is
/// stored of a step to be used again is what passed.
#[must_use]
pub fn uploaded(paths: &str, outputs: &str, passed: bool) -> String {
    let is_output = |path: &&str| outputs.split(';').any(|output| !output.is_empty() && output == *path);
    let kept: Vec<&str> = paths.split(';').filter(|path| passed || !is_output(path)).collect();
    kept.join(";")
}

/// Whose a hook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The agent's.
    Agent,
    /// The repository's.
    Repository,
    /// That plugin's.
    Plugin(usize),
}

/// One thing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A hook.
    Hook {
        /// Its name.
        name: &'static str,
        /// Whose it is.
        scope: Scope,
        /// Where it is; a relative one is below the checkout.
        path: Vec<u8>,
    },
    /// The ordinary checkout.
    Checkout,
    /// The step's cache comes. Whatever comes of it, the job goes on.
    Restore,
    /// The step's command.
    Command,
    /// The step's cache is kept. Whatever comes of it, the job is what it is.
    Save,
    /// The upload of the step's files.
    Upload,
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Its status, by the shell's convention: 128 and the signal's number where one ended it.
    pub status: u8,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Ended {
    /// With a status.
    #[must_use]
    pub const fn with(status: u8) -> Self {
        Self { status, signal: None }
    }

    const fn passed(self) -> bool {
        self.status == 0 && self.signal.is_none()
    }
}

/// What failed, where it was no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How it ended.
    pub ended: Ended,
    /// Of which kind it is; none where nothing but the status tells, as after an upload.
    pub fault: Option<Fault>,
    /// The hook's name, empty where it was none.
    pub name: &'static str,
    /// Whose hook it was.
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Begin,
    Environment,
    PreCheckout,
    Checkout,
    PostCheckout,
    Vendored,
    Restore,
    PreCommand,
    Command,
    PostCommand,
    Save,
    PreArtifact,
    Upload,
    PostArtifact,
    PreExit,
    Over,
}

impl Phase {
    const fn next(self) -> Self {
        match self {
            Self::Begin => Self::Environment,
            Self::Environment => Self::PreCheckout,
            Self::PreCheckout => Self::Checkout,
            Self::Checkout => Self::PostCheckout,
            Self::PostCheckout => Self::Vendored,
            Self::Vendored => Self::Restore,
            Self::Restore => Self::PreCommand,
            Self::PreCommand => Self::Command,
            Self::Command => Self::PostCommand,
            Self::PostCommand => Self::Save,
            Self::Save => Self::PreArtifact,
            Self::PreArtifact => Self::Upload,
            Self::Upload => Self::PostArtifact,
            Self::PostArtifact => Self::PreExit,
            Self::PreExit | Self::Over => Self::Over,
        }
    }
}

/// A job's way through its phases.
#[derive(Debug)]
pub struct Phases<'a> {
    plan: &'a Plan,
    phase: Phase,
    queue: VecDeque<Act>,
    running: Option<Act>,
    canceled: bool,
    /// Whether files are uploaded, decided when that phase begins.
    uploads: bool,
    before: Option<Failure>,
    command: Option<Ended>,
    after: Option<Failure>,
    artifacts: Option<Failure>,
    exit: Option<Failure>,
}

impl<'a> Phases<'a> {
    /// At the beginning.
    #[must_use]
    pub const fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            phase: Phase::Begin,
            queue: VecDeque::new(),
            running: None,
            canceled: false,
            uploads: false,
            before: None,
            command: None,
            after: None,
            artifacts: None,
            exit: None,
        }
    }

    /// What to run now; nothing is the end. Called again without [`Self::ended`] it counts what ran as passed.
    pub fn next(&mut self, world: &impl World) -> Option<Act> {
        loop {
            self.running = self.queue.pop_front();
            if self.running.is_some() {
                return self.running.clone();
            }
            if self.phase == Phase::Over {
                return None;
            }
            self.phase = self.phase.next();
            if self.canceled && self.phase <= Phase::Command {
                // What has not begun does not begin; who cleans up still does.
                self.phase = Phase::PreExit;
            }
            self.queue = self.acts(world);
        }
    }

    /// Somebody wants it to end.
    pub fn cancel(&mut self) {
        self.canceled = true;
        if self.phase <= Phase::Command {
            self.queue.clear();
        }
    }

    /// What came of what [`Self::next`] gave last.
    pub fn ended(&mut self, ended: Ended) {
        let Some(act) = self.running.take() else { return };
        if self.phase == Phase::Command {
            self.command = Some(ended);
        }
        if ended.passed() {
            return;
        }
        self.queue.clear();
        let failure = failure(&act, ended);
        match self.phase {
            // A cache is no part of what the step does.
            Phase::Begin | Phase::Restore | Phase::Command | Phase::Save | Phase::Over => {}
            Phase::Environment
            | Phase::PreCheckout
            | Phase::Checkout
            | Phase::PostCheckout
            | Phase::Vendored
            | Phase::PreCommand => {
                // After pre-command files are uploaded, whatever came of it.
                self.phase = if self.phase == Phase::PreCommand { Phase::Save } else { Phase::PostArtifact };
                self.before = Some(failure);
            }
            Phase::PostCommand => self.after = Some(failure),
            Phase::PreArtifact | Phase::Upload | Phase::PostArtifact => {
                self.phase = Phase::PostArtifact;
                self.artifacts = Some(failure);
            }
            Phase::PreExit => self.exit = Some(failure),
        }
    }

    /// The job's end (reference 18.7), and what failed where it was not the command.
    #[must_use]
    pub fn verdict(&self) -> (Ended, Option<&Failure>) {
        let command = self.command.unwrap_or_default();
        let artifacts = self.artifacts.as_ref().filter(|_| command.passed());
        let failed = self.exit.as_ref().or(self.before.as_ref()).or(artifacts).or(self.after.as_ref());
        let ended = failed.map_or(command, |failure| failure.ended);
        if self.canceled && ended.passed() { (Ended::with(1), failed) } else { (ended, failed) }
    }

    /// What the command, or the hook in its place, came to.
    #[must_use]
    pub const fn command(&self) -> Option<Ended> {
        self.command
    }

    fn acts(&mut self, world: &impl World) -> VecDeque<Act> {
        match self.phase {
            Phase::Begin | Phase::Over => VecDeque::new(),
            Phase::Environment => [self.agent("environment"), self.fetched("environment", world)].concat().into(),
            Phase::PreCheckout => [self.agent("pre-checkout"), self.fetched("pre-checkout", world)].concat().into(),
            Phase::Checkout => self.checkout(world),
            Phase::PostCheckout => {
                let plugins = self.fetched("post-checkout", world).into_iter().rev();
                plugins.chain(self.repository("post-checkout", world)).chain(self.agent("post-checkout")).collect()
            }
            Phase::Vendored => self.vendored("environment", world).into(),
            Phase::Restore => world.has_cache().then_some(Act::Restore).into_iter().collect(),
            Phase::PreCommand => self.forward("pre-command", world),
            Phase::Command => self.commands(world),
            Phase::PostCommand => self.reverse("post-command", world),
            Phase::Save => (world.has_cache() && self.passes()).then_some(Act::Save).into_iter().collect(),
            Phase::PreArtifact => {
                self.uploads = world.has_artifact_paths();
                if self.uploads { self.forward("pre-artifact", world) } else { VecDeque::new() }
            }
            Phase::Upload => self.uploads.then_some(Act::Upload).into_iter().collect(),
            Phase::PostArtifact if self.uploads => self.forward("post-artifact", world),
            Phase::PostArtifact => VecDeque::new(),
            Phase::PreExit => self.reverse("pre-exit", world),
        }
    }

    /// Whether everything until now did what it should.
    fn passes(&self) -> bool {
        !self.canceled && self.after.is_none() && self.command.is_some_and(Ended::passed)
    }

    fn checkout(&self, world: &impl World) -> VecDeque<Act> {
        if world.skips_checkout() {
            return VecDeque::new();
        }
        if self.plan.files != Files::Laid {
            let hooks = first_of([self.fetched("checkout", world), self.agent("checkout")]);
            if !hooks.is_empty() {
                return hooks;
            }
        }
        match self.plan.files {
            Files::None | Files::Laid => VecDeque::new(),
            Files::CheckedOut | Files::Fetched(_) => [Act::Checkout].into(),
        }
    }

    fn commands(&self, world: &impl World) -> VecDeque<Act> {
        let plugins = [self.fetched("command", world), self.vendored("command", world)].concat();
        let hooks = first_of([plugins, self.repository("command", world), self.agent("command")]);
        if hooks.is_empty() { [Act::Command].into() } else { hooks }
    }

    fn forward(&self, name: &'static str, world: &impl World) -> VecDeque<Act> {
        let parts =
            [self.agent(name), self.repository(name, world), self.fetched(name, world), self.vendored(name, world)];
        parts.concat().into()
    }

    fn reverse(&self, name: &'static str, world: &impl World) -> VecDeque<Act> {
        let plugins = [self.fetched(name, world), self.vendored(name, world)].concat().into_iter().rev();
        plugins.chain(self.repository(name, world)).chain(self.agent(name)).collect()
    }

    fn agent(&self, name: &'static str) -> Vec<Act> {
        let hooks = self.plan.agent_hooks.iter().filter(|(of, _)| of == name.as_bytes());
        hooks.map(|(_, path)| Act::Hook { name, scope: Scope::Agent, path: path.clone() }).collect()
    }

    fn repository(&self, name: &'static str, world: &impl World) -> Vec<Act> {
        let path = join(REPOSITORY_HOOKS.as_bytes(), name);
        let there = self.plan.repository_hooks && world.is_hook(&path);
        there.then_some(Act::Hook { name, scope: Scope::Repository, path }).into_iter().collect()
    }

    fn fetched(&self, name: &'static str, world: &impl World) -> Vec<Act> {
        self.of_plugins(name, world, false)
    }

    fn vendored(&self, name: &'static str, world: &impl World) -> Vec<Act> {
        self.of_plugins(name, world, true)
    }

    fn of_plugins(&self, name: &'static str, world: &impl World, vendored: bool) -> Vec<Act> {
        let plugins = self.plan.plugins.iter().enumerate().filter(|(_, plugin)| plugin.vendored == vendored);
        let hooks = plugins.map(|(at, plugin)| {
            let path = join(&join(&plugin.directory, "hooks"), name);
            Act::Hook { name, scope: Scope::Plugin(at), path }
        });
        hooks.filter(|act| matches!(act, Act::Hook { path, .. } if world.is_hook(path))).collect()
    }
}

fn failure(act: &Act, ended: Ended) -> Failure {
    let (fault, name, scope) = match act {
        Act::Hook { name, scope, .. } => (Some(Fault::Hook), *name, *scope),
        Act::Checkout => (Some(Fault::Checkout), "", Scope::Agent),
        Act::Restore | Act::Command | Act::Save | Act::Upload => (None, "", Scope::Agent),
    };
    Failure { ended, fault, name, scope }
}

fn first_of<const N: usize>(kinds: [Vec<Act>; N]) -> VecDeque<Act> {
    kinds.into_iter().find(|hooks| !hooks.is_empty()).unwrap_or_default().into()
}

fn join(directory: &[u8], name: &str) -> Vec<u8> {
    [directory, b"/", name.as_bytes()].concat()
}
