//! What decides a step's result, component by component; and which steps have none of it that could be written down.

use std::collections::BTreeMap;

use windlass_coordinator_core::row::{ArtifactRow, KeySubject};
use windlass_pipeline::graph::Reuse;
use windlass_pipeline::plugin;
use windlass_protocol::job::Source;
use windlass_protocol::{Digest, hex};

use super::named::Named;
use super::recipe::{INPUTS, Recipe, SYSTEM};

/// The component that operators change to be rid of all that was.
pub(super) const EPOCH: &str = "epoch";

/// The component that is the digest of the agents' hooks.
pub(super) const HOOKS: &str = "hooks";

/// In what a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runs {
    /// On the machines as they are.
    System {
        /// What they say of themselves.
        system: String,
    },
    /// In an image.
    Image {
        /// As an engine takes it.
        image: String,
        /// The digest of what is run, where that could be looked at.
        config: Option<String>,
        /// Where it runs.
        platform: String,
        /// What the machines say, where the image could not be looked at.
        system: Option<String>,
    },
}

/// What was found out of a step.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) epoch: u64,
    /// The tree of all that is laid out.
    pub(super) inputs: Digest,
    pub(super) artifacts: &'a BTreeMap<String, ArtifactRow>,
    /// By their paths.
    pub(super) blobs: &'a BTreeMap<String, Named>,
    /// Commits of plugins, by their sources.
    pub(super) plugins: &'a BTreeMap<String, String>,
    pub(super) runs: &'a Runs,
}

/// Whether a step can have a key at all.
///
/// # Errors
/// Why not, for people.
pub(super) fn check(subject: &KeySubject) -> Result<&Reuse, String> {
    let command = &subject.command;
    let reuse = command.reuse.as_ref().ok_or("it does not ask for reuse")?;
    if command.cache.as_ref().is_some_and(|cache| cache.key.is_some()) {
        return Err("it restores a `cache`, of which nothing is in its key".to_owned());
    }
    if !command.secrets.is_empty() && !reuse.secrets {
        return Err("it has secrets, and does not say `secrets: true` in `reuse`".to_owned());
    }
    if let Some((name, why)) = subject.secrets.iter().find_map(|(name, version)| Some((name, version.as_ref().err()?)))
    {
        return Err(format!("the secret `{name}` has no version: {why}"));
    }
    let checkout = &command.checkout;
    for (asked, what) in [
        (checkout.skip == Some(true), "its checkout is skipped"),
        (checkout.submodules == Some(true), "its checkout has submodules"),
        (checkout.lfs == Some(true), "its checkout has large files"),
        (!checkout.sparse.is_empty(), "its checkout is sparse: name its `inputs` instead"),
    ] {
        if asked {
            return Err(what.to_owned());
        }
    }
    match &subject.source {
        Source::Git { commit, .. } if !hex::is_commit_id(commit) => {
            Err("the commit of its source is not known before it is checked out".to_owned())
        }
        Source::Git { .. } | Source::Tree { .. } | Source::Empty => Ok(reuse),
    }
}

/// The recipe. Nothing in it is a secret: of those there are versions (I6).
pub(super) fn recipe(subject: &KeySubject, found: &Found<'_>) -> Result<Recipe, String> {
    let command = &subject.command;
    let reuse = check(subject)?;
    let mut recipe = Recipe::default();
    recipe.set(EPOCH, found.epoch.to_string());
    recipe.set("command", &command.command);
    recipe.set(INPUTS, found.inputs.to_string());
    let file = |digest: &Digest, executable: bool| format!("{digest}{}", if executable { " executable" } else { "" });
    for (path, row) in found.artifacts {
        recipe.set(format!("artifact {path}"), file(&row.digest, row.executable));
    }
    for (path, blob) in found.blobs {
        recipe.set(format!("blob {path}"), file(&blob.digest, blob.executable));
    }
    runs(&mut recipe, found.runs);
    recipe.set(HOOKS, subject.hosts.hooks.as_ref().map_err(String::clone)?.to_string());
    for name in &subject.declared {
        match subject.env.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => recipe.set(format!("env {name}"), value),
            None => recipe.set(format!("no env {name}"), ""),
        }
    }
    for (at, plugin) in plugin::at_commits(&command.plugins, found.plugins).iter().enumerate() {
        recipe.set(format!("plugin {at:03}"), format!("{} {}", plugin.source, plugin.config));
    }
    for secret in &command.secrets {
        let version = subject.secrets.get(&secret.key).and_then(|version| version.as_ref().ok());
        let version = version.ok_or_else(|| format!("the secret `{}` has no version", secret.key))?;
        recipe.set(format!("secret {}", secret.env), format!("{} {version}", secret.key));
    }
    let outputs = reuse.outputs.iter().chain(&command.artifact_paths);
    for (at, glob) in outputs.enumerate() {
        recipe.set(format!("output {at:03}"), glob);
        // Results of before had no modes: to whoever asks for modes they are others.
        recipe.set("outputs", "with modes");
    }
    if let Some((index, total)) = command.parallel {
        recipe.set("parallel", format!("{index} of {total}"));
    }
    if command.tty {
        recipe.set("tty", "yes");
    }
    Ok(recipe)
}

fn runs(recipe: &mut Recipe, runs: &Runs) {
    match runs {
        Runs::System { system } => {
            recipe.set("runner", "process");
            recipe.set(SYSTEM, Digest::of(system.as_bytes()).to_string());
        }
        Runs::Image { image, config, platform, system } => {
            recipe.set("runner", "container");
            recipe.set("platform", platform);
            match config {
                Some(config) => recipe.set("image", config),
                // Of one that could not be looked at the name is all that is known.
                None => recipe.set("image name", image),
            }
            if let Some(system) = system {
                recipe.set(SYSTEM, Digest::of(system.as_bytes()).to_string());
            }
        }
    }
}
