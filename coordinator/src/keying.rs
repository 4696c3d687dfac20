//! The key of a step: everything that decides its result, found out before it runs (docs/design/030).
//!
//! | module | owns |
//! | --- | --- |
//! | `select`, `prune` | of a source only what is declared |
//! | `import` | a commit of a repository as such a source |
//! | `named` | blobs that a step names by their digests |
//! | `image` | which image a name stands for now |
//! | [`plugins`] | which commits a step's plugins are |
//! | `compose` | what of all that a recipe is made of |
//! | [`recipe`] | the text that the key is the digest of, and in what two of them differ |
//! | `remembered` | what was found out and may be asked again |

mod compose;
pub mod image;
mod import;
mod named;
pub mod plugins;
mod prune;
pub mod recipe;
mod remembered;
mod select;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_cache::tree::mode_of;
use windlass_cache::{Node, Store};
use windlass_coordinator_core::row::{ArtifactRow, KeySubject, Keyed, Unkeyed};
use windlass_coordinator_store::ArtifactFilter;
use windlass_pipeline::glob::PathQuery;
use windlass_pipeline::graph::Reuse;
use windlass_pipeline::plugin::Place;
use windlass_protocol::host::now;
use windlass_protocol::job::Source;
use windlass_protocol::limits::{
    ARTIFACTS_FOUND_MAX, REUSE_ARTIFACTS_MAX, REUSE_COMMITS_KEPT_MAX, REUSE_KEYS_MAX, REUSE_KEYS_UNTRUSTED_MAX,
};
use windlass_protocol::{Digest, Namespace, Shelf, Trust};

use self::compose::{Found, Runs};
use self::image::{Image, Images, RegistryConfig};
use self::import::{CommitImport, Objects};
use self::named::Named;
use self::plugins::{PluginRepositories, Plugins};
use self::prune::{Over, Pruned, TreeError, Trees};
use self::recipe::Recipe;
use self::remembered::Remembered;
use self::select::Selection;
use crate::config::CachePolicies;
use crate::definitions::Definitions;
use crate::room::Room;
use crate::upstream::{Known, Terms, Upstream, Wanted};
use crate::views::{Reader, Views};

/// What an operator says of keys.
#[derive(Debug, Clone, Default)]
pub struct ReuseConfig {
    /// Part of every key: with another one, nothing of before is used again.
    pub epoch: u64,
    /// How registries of images are asked.
    pub registries: RegistryConfig,
    /// A fleet whose results are used here.
    pub upstream: Option<Upstream>,
    /// Which repositories are asked what a plugin's tag is.
    pub plugins: PluginRepositories,
    /// How much of repositories may be read for builds that are not trusted.
    pub policies: CachePolicies,
}

/// What keys are found out with.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Trees, and the blobs of what is made of them.
    pub store: Store,
    /// Commits.
    pub definitions: Definitions,
    /// Registered pipelines.
    pub views: Views,
    /// Artifacts.
    pub reader: Reader,
}

/// Finds out keys, a bounded number at once.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sources: Sources,
    epoch: u64,
    images: Images,
    upstream: Option<Upstream>,
    plugins: Plugins,
    policies: CachePolicies,
    objects: Objects,
    commits: Mutex<Remembered<Commit, Pruned>>,
    turns: Room,
}

/// A commit of which something was selected, for those who see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Commit {
    namespace: Namespace,
    repository: String,
    commit: String,
    globs: Vec<String>,
    plugins: Vec<String>,
}

impl Engine {
    /// One that looks there.
    #[must_use]
    pub fn new(sources: Sources, config: ReuseConfig) -> Self {
        let ReuseConfig { epoch, registries, upstream, plugins, policies } = config;
        Self(Arc::new(Shared {
            sources,
            epoch,
            images: Images::new(registries),
            upstream,
            plugins: Plugins::new(plugins),
            policies,
            objects: Objects::default(),
            commits: Mutex::default(),
            turns: Room::new(REUSE_KEYS_MAX, REUSE_KEYS_UNTRUSTED_MAX),
        }))
    }

    /// A step's key, with the blobs of all that it names: its files, and the recipe.
    ///
    /// # Errors
    /// [`Unkeyed`]: it runs as any other.
    pub async fn key(&self, subject: KeySubject) -> Result<Keyed, Unkeyed> {
        self.find(&subject).await.map(|(keyed, _)| keyed).map_err(|why| Unkeyed { why })
    }

    /// As [`Self::key`], and under which keys a fleet may have the result.
    pub(crate) async fn find(&self, subject: &KeySubject) -> Result<(Keyed, Option<Wanted>), String> {
        let reuse = compose::check(subject)?.clone();
        let hooks = subject.hosts.hooks.clone()?;
        // It is never closed.
        let turn = self.0.turns.enter(subject.namespace.trust()).await;
        let _turn = turn.ok_or("the coordinator is stopping")?;
        let terms = self.terms(subject).await;
        let runs = self.runs(subject, terms.as_ref()).await?;
        let plugins = self.0.plugins.find(&self.0.sources.definitions, subject).await?;
        let artifacts = self.artifacts(subject, &reuse).await?;
        let blobs = self.blobs(subject, &reuse).await?;
        let (mut notes, pruned) = self.files(subject, &reuse, (&artifacts, &blobs)).await?;
        let source = Source::Tree { digest: pruned.root };
        let found = Found {
            epoch: self.0.epoch,
            inputs: pruned.root,
            artifacts: &artifacts,
            blobs: &blobs,
            plugins: &plugins,
            runs: &runs,
        };
        let recipe = compose::recipe(subject, &found)?;
        let text =
            recipe.encode().map_err(|error| format!("what decides its result cannot be written down: {error}"))?;
        let unmatched = pruned.unmatched.iter().map(|glob| format!("the input `{glob}` names no file"));
        notes.extend(unmatched);
        let (system, image) = match &runs {
            Runs::System { system } => (Some(system.clone()), None),
            Runs::Image { image, system, .. } => (system.clone(), Some(image.clone())),
        };
        let key = recipe::key_of(&text);
        // Without an image the machines decide, and no other machine is like this one.
        let is_of_image = matches!(&runs, Runs::Image { config: Some(_), .. });
        let wanted = terms.filter(|_| is_of_image).map(|terms| wanted(terms, &recipe, hooks)).transpose()?;
        let also = match (&self.0.upstream, &wanted) {
            (Some(fleet), Some(wanted)) => fleet.names(&wanted.project, &wanted.keys),
            _ => Vec::new(),
        };
        let digest = self.write(&subject.namespace, text, system.clone()).await?;
        let system = system.map(|text| Digest::of(text.as_bytes()));
        let keyed = Keyed { key, recipe: digest, source, image, plugins, system, hooks: Some(hooks), notes, also };
        Ok((keyed, wanted))
    }

    /// Part of every key that is made here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// What an image's name stands for now: the digests of its manifest and its config.
    ///
    /// # Errors
    /// Why it is not known, for people.
    pub async fn image(&self, name: &str, platform: &str, trust: Trust) -> Result<(String, String), String> {
        let image = self.0.images.find(name, platform, trust).await?;
        let config = image.config.ok_or("its registry does not answer")?;
        let digest = image.pinned.rsplit_once('@').map(|(_, digest)| digest.to_owned());
        Ok((digest.ok_or("it has no digest")?, config))
    }

    /// By what keys a fleet's results stand under, where a step may use them.
    async fn terms(&self, subject: &KeySubject) -> Option<Terms> {
        let fleet = self.0.upstream.as_ref()?;
        let has_image = subject.command.image.as_ref().is_some_and(|image| !image.is_empty());
        if subject.fresh || !has_image { None } else { fleet.terms(&subject.pipeline).await }
    }

    /// What an image is: as the fleet has it, so that the key is the fleet's; else as its registry says; else as it was when it
    /// was looked at last, so that what is here is used by who is on no network.
    async fn known(
        &self,
        subject: &KeySubject,
        terms: Option<&Terms>,
        name: &str,
        platform: &str,
    ) -> Result<Image, String> {
        let own = self.0.images.find(name, platform, subject.namespace.trust());
        let Some(fleet) = &self.0.upstream else { return own.await };
        let pinned = |known: Known| {
            let pinned = image::pinned(name, &known.digest, &known.config)?;
            Ok(Image { pinned, config: Some(known.config) })
        };
        if let Some(terms) = terms
            && let Some(known) = fleet.image(&terms.project, name, platform).await
        {
            return pinned(known);
        }
        let found = own.await;
        if let Ok(Image { pinned, config: Some(config) }) = &found {
            let digest = pinned.rsplit_once('@').map(|(_, digest)| digest.to_owned()).unwrap_or_default();
            fleet.remember(name, platform, &Known { digest, config: config.clone() });
            return found;
        }
        fleet.remembered(name, platform).map_or(found, pinned)
    }

    /// In what it runs.
    async fn runs(&self, subject: &KeySubject, terms: Option<&Terms>) -> Result<Runs, String> {
        let Some(name) = subject.command.image.as_deref().filter(|image| !image.is_empty()) else {
            return Ok(Runs::System { system: subject.hosts.system.clone()? });
        };
        let platform = subject.hosts.platform.clone()?;
        let image = self.known(subject, terms, name, &platform).await?;
        // Of an image that nobody could look at, the machines decide what of it they run.
        let system = match &image.config {
            Some(_) => None,
            None => Some(subject.hosts.system.clone()?),
        };
        Ok(Runs::Image { config: image.config, image: image.pinned, platform, system })
    }

    /// The artifacts that it declares, each path once: the newest.
    async fn artifacts(&self, subject: &KeySubject, reuse: &Reuse) -> Result<BTreeMap<String, ArtifactRow>, String> {
        let mut found: BTreeMap<String, ArtifactRow> = BTreeMap::new();
        if reuse.artifacts.is_empty() {
            return Ok(found);
        }
        let queries: Vec<PathQuery> = reuse.artifacts.iter().map(|text| PathQuery::new(text)).collect();
        let attempts: BTreeSet<_> = subject.made_by.keys().copied().collect();
        let filter =
            ArtifactFilter { build: subject.build, attempts: Some(attempts), path: None, at: now().wall, before: None };
        let mut after = None;
        loop {
            let page = self.0.sources.reader.artifacts(filter.clone(), after, ARTIFACTS_FOUND_MAX).await;
            let page = page.map_err(|error| format!("its artifacts cannot be read: {error}"))?;
            for row in page.items.into_iter().filter(|row| queries.iter().any(|query| query.matches(&row.path))) {
                let newer =
                    found.get(&row.path).is_none_or(|known| (known.created_at, known.id) < (row.created_at, row.id));
                if newer {
                    found.insert(row.path.clone(), row);
                }
            }
            if found.len() > REUSE_ARTIFACTS_MAX {
                return Err(format!("it declares more than {REUSE_ARTIFACTS_MAX} artifacts"));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// The blobs that it names.
    async fn blobs(&self, subject: &KeySubject, reuse: &Reuse) -> Result<BTreeMap<String, Named>, String> {
        if reuse.blobs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (store, namespace) = (self.0.sources.store.clone(), subject.namespace.clone());
        let asked = reuse.blobs.clone();
        blocking(move || named::find(&store, &namespace, &asked)).await
    }

    /// What is laid out for it: the declared files of its source, the artifacts and the blobs. Also what is to be said of them.
    async fn files(
        &self,
        subject: &KeySubject,
        reuse: &Reuse,
        (artifacts, blobs): (&BTreeMap<String, ArtifactRow>, &BTreeMap<String, Named>),
    ) -> Result<(Vec<String>, Pruned), String> {
        let plugins = vendored(subject)?;
        let selection = Selection::new(&reuse.inputs, &plugins)?;
        let pruned = match &subject.source {
            Source::Empty => self.prune(subject.namespace.clone(), None, selection).await?,
            Source::Tree { digest } => self.prune(subject.namespace.clone(), Some(*digest), selection).await?,
            Source::Git { repository, commit, .. } => {
                let commit = Commit {
                    namespace: subject.namespace.clone(),
                    repository: repository.clone(),
                    commit: commit.clone(),
                    globs: reuse.inputs.clone(),
                    plugins,
                };
                self.commit(&subject.pipeline, commit, selection).await?
            }
        };
        let queries = reuse.artifacts.iter().filter(|text| {
            let query = PathQuery::new(text);
            !artifacts.keys().any(|path| query.matches(path))
        });
        let notes = queries.map(|text| format!("the artifacts `{text}` are none of this build's")).collect();
        let root = self.lay(&subject.namespace, pruned.root, artifacts).await?;
        let root = self.lay_named(&subject.namespace, root, blobs).await?;
        Ok((notes, Pruned { root, ..pruned }))
    }

    async fn prune(
        &self,
        namespace: Namespace,
        root: Option<Digest>,
        mut selection: Selection,
    ) -> Result<Pruned, String> {
        let store = self.0.sources.store.clone();
        blocking(move || {
            let root = match root {
                Some(root) => root,
                None => store.put(&namespace, &windlass_cache::Directory::default().encode())?,
            };
            Trees::new(&store, &namespace).prune(root, &mut selection)
        })
        .await
    }

    /// A commit's tree: of the repository that the pipeline is registered with, and of no other one, for the coordinator
    /// reads it with its operator's credentials.
    async fn commit(&self, pipeline: &str, wanted: Commit, selection: Selection) -> Result<Pruned, String> {
        let registered = self.0.sources.views.pipeline(pipeline).and_then(|row| row.repository);
        if registered.as_ref() != Some(&wanted.repository) {
            return Err("its source is not the repository that its pipeline is registered with".to_owned());
        }
        let known = self.commits().get(&wanted).cloned();
        if let Some(known) = known {
            // It may have gone with what was not used.
            let all = Selection::new(&[], &[])?;
            if self.prune(wanted.namespace.clone(), Some(known.root), all).await.is_ok() {
                return Ok(known);
            }
            self.commits().forget(&wanted);
        }
        let room = self.0.policies.check_room(&self.0.sources.store, &wanted.namespace, 0);
        room.map_err(|full| full.to_string())?;
        let import = CommitImport::new(&self.0.sources.store, &wanted.namespace, selection, &self.0.objects);
        let (repository, commit) = (wanted.repository.clone(), wanted.commit.clone());
        let imported = self.0.sources.definitions.import(repository, commit, import).await;
        let imported = imported.map_err(|error| format!("its commit cannot be read: {error}"))?;
        let finished = tokio::task::spawn_blocking(move || imported.finish()).await;
        let pruned = finished.map_err(|error| error.to_string())??;
        self.commits().put(wanted, pruned.clone(), REUSE_COMMITS_KEPT_MAX);
        Ok(pruned)
    }

    fn commits(&self) -> std::sync::MutexGuard<'_, Remembered<Commit, Pruned>> {
        self.0.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tree with artifacts in it. Their blobs lie on a shelf that its readers see (I12); a source's lie beside it.
    async fn lay(
        &self,
        namespace: &Namespace,
        root: Digest,
        artifacts: &BTreeMap<String, ArtifactRow>,
    ) -> Result<Digest, String> {
        if artifacts.is_empty() {
            return Ok(root);
        }
        let (store, namespace) = (self.0.sources.store.clone(), namespace.clone());
        let blobs: Vec<(String, Digest, u64, u16)> =
            artifacts.values().map(|row| (row.path.clone(), row.digest, row.bytes, mode_of(row.executable))).collect();
        blocking(move || {
            let shelf = namespace.on(Shelf::Artifacts);
            let absent = |digest| TreeError::Absent { what: "the artifact", digest };
            if let Some((_, digest, ..)) =
                blobs.iter().find(|(_, digest, len, _)| store.blob_len(&shelf, digest) != Some(*len))
            {
                return Err(absent(*digest));
            }
            let digests: Vec<Digest> = blobs.iter().map(|(_, digest, ..)| *digest).collect();
            if let Some(digest) = store.grant(&namespace, &digests)?.first() {
                return Err(absent(*digest));
            }
            let file = |(path, digest, len, mode)| (path, Node::File { digest, len, mode });
            Trees::new(&store, &namespace).with_files(root, &blobs.into_iter().map(file).collect(), Over::Files)
        })
        .await
    }

    /// A tree with named blobs in it, where nothing lies yet.
    async fn lay_named(
        &self,
        namespace: &Namespace,
        root: Digest,
        blobs: &BTreeMap<String, Named>,
    ) -> Result<Digest, String> {
        if blobs.is_empty() {
            return Ok(root);
        }
        let (store, namespace) = (self.0.sources.store.clone(), namespace.clone());
        let files = blobs.iter().map(|(path, blob)| (path.clone(), blob.node())).collect();
        blocking(move || Trees::new(&store, &namespace).with_files(root, &files, Over::Nothing)).await
    }

    /// Stores the recipe, and what it names by its digest alone.
    async fn write(&self, namespace: &Namespace, text: String, system: Option<String>) -> Result<Digest, String> {
        let (store, namespace) = (self.0.sources.store.clone(), namespace.clone());
        blocking(move || {
            let digests = store.put_many(&namespace, [Some(text), system].into_iter().flatten())?;
            digests.first().copied().ok_or(TreeError::Bad(windlass_cache::BadTree::Truncated))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TreeError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The keys that a fleet makes of the same: by its epoch, with the hooks that its agents have, or those of here.
fn wanted(terms: Terms, recipe: &Recipe, hooks: Digest) -> Result<Wanted, String> {
    let each: BTreeSet<Digest> = terms.hooks.iter().copied().chain([hooks]).collect();
    let key = |hooks: Digest| {
        let mut recipe = recipe.clone();
        recipe.set(compose::EPOCH, terms.epoch.to_string());
        recipe.set(compose::HOOKS, hooks.to_string());
        recipe.encode().map(|text| recipe::key_of(&text)).map_err(|error| error.to_string())
    };
    let keys = each.into_iter().map(key).collect::<Result<_, _>>()?;
    Ok(Wanted { project: terms.project, keys })
}

/// Plugins that lie in the source; of any other one its commit is known.
fn vendored(subject: &KeySubject) -> Result<Vec<String>, String> {
    let mut vendored = Vec::new();
    for plugin in plugins::of(subject)? {
        match plugin.place().map_err(|error| error.to_string())? {
            Place::Vendored(path) => vendored.push(path),
            Place::Repository { .. } => {}
        }
    }
    Ok(vendored)
}

#[cfg(test)]
mod tests;
