//! Pipelines' texts as their repositories have them, read by the coordinator itself (docs/design/021).
//!
//! | module | owns |
//! | --- | --- |
//! | `mirror` | one repository's mirror, and every git that works on it |
//! | `reference` | names of branches and tags, and which are protected |
//! | `changed` | which files a commit has changed |
//! | `remote` | what a name of any repository stands for, without a mirror |
//! | `import` | files of a commit, brought out of the mirror |
//! | `error` | why there is no text |
//!
//! A repository has one mirror under the data directory, and one git at a time in it. Whoever reads is given what the
//! repository had *after* he asked: those that wait for a fetch share the next one, never the one that was under way.

pub(crate) mod changed;
mod error;
pub(crate) mod import;
mod mirror;
mod reference;
mod remote;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use windlass_git::dir_cache::{Held, Limits, Mode};
use windlass_git::{Credentials, DirCache, Protocols};
use windlass_pipeline::file::{BUILDKITE, OWN, choose};
use windlass_protocol::limits::{
    DEFINITION_READERS_MAX, DEFINITION_WAIT_MS, MIRROR_FILE_MAX_BYTES, MIRROR_FLIGHTS_MAX, MIRRORS_MAX,
    MIRRORS_MAX_BYTES, TREE_NAME_MAX_BYTES,
};
use windlass_protocol::{Digest, hex};

pub use self::error::DefinitionError;
pub(crate) use self::mirror::contents::{Listed, ListedKind, Piece};
use self::mirror::{Mirror, Reach};
pub(crate) use self::reference::{Protected, Reference};
pub(crate) use self::remote::Asker;

/// How repositories are reached and how much is kept of them.
#[derive(Debug, Clone)]
pub struct Options {
    /// The operator's credentials.
    pub credentials: Credentials,
    /// By which protocols.
    pub protocols: Protocols,
    /// How long a reader waits.
    pub wait: Duration,
    /// Bytes of one file of a mirror.
    pub file_max_bytes: u64,
    /// Bytes of all mirrors.
    pub mirrors_max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            protocols: Protocols::default(),
            wait: Duration::from_millis(DEFINITION_WAIT_MS),
            file_max_bytes: MIRROR_FILE_MAX_BYTES,
            mirrors_max_bytes: MIRRORS_MAX_BYTES,
        }
    }
}

/// What is to be read, and what is claimed of it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The repository.
    pub repository: String,
    /// The branch that is claimed, or a ref's whole name.
    pub branch: Option<String>,
    /// The tag that is claimed.
    pub tag: Option<String>,
    /// A full commit id; the head of tag, branch or repository without one.
    pub commit: Option<String>,
    /// What the repository's own HEAD is; asked for where nobody says.
    pub default_branch: Option<String>,
    /// The pipeline's file, where it is not one of the usual ones.
    pub file: Option<String>,
    /// Patterns of protected refs.
    pub protected: Vec<String>,
    /// The commit and how it stands is all that is asked for: the text is known.
    pub commit_alone: bool,
    /// What its files are compared with, for a text that asks which have changed: `origin/main`, a tag, a commit's whole id.
    pub diff_base: Option<String>,
}

/// What a repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The commit that it was read from.
    pub commit: String,
    /// Its message.
    pub message: String,
    /// The ref that was claimed, or the default branch; none where only a commit was named, or nothing.
    pub reference: Option<String>,
    /// The file; empty where it was not asked for.
    pub file: String,
    /// Its text; empty where it was not asked for.
    pub text: String,
    /// Whether the commit is what a protected ref holds.
    pub standing: Standing,
    /// The files that it has changed; `None` where nobody asks, or nobody can say.
    pub changed: Option<Vec<String>>,
}

/// How a commit stands to the repository's protected refs, as the coordinator saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is reachable from this ref, which is protected, and every ref that was claimed holds it.
    Protected {
        /// The whole name.
        reference: String,
    },
    /// It is reachable from the head of this pull request, and from no protected ref that was claimed.
    PullRequest {
        /// Its number.
        number: String,
    },
    /// It is not, and why.
    Unprotected {
        /// In words.
        why: String,
    },
}

/// Reads pipelines from repositories.
#[derive(Debug, Clone)]
pub struct Definitions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cache: DirCache,
    reach: Reach,
    wait: Duration,
    mirrors: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Freshness>>>>,
    readers: Arc<Semaphore>,
    flights: Arc<Semaphore>,
}

/// When the last fetch of a mirror began that brought all of it.
#[derive(Debug, Default)]
struct Freshness(Option<Instant>);

impl Definitions {
    /// With mirrors in this directory, which is made when the first one is.
    #[must_use]
    pub fn new(dir: PathBuf, options: Options) -> Self {
        let Options { credentials, protocols, wait, file_max_bytes, mirrors_max_bytes } = options;
        let reach = Reach { credentials, protocols, file_max_bytes };
        let (readers, flights) =
            (Arc::new(Semaphore::new(DEFINITION_READERS_MAX)), Arc::new(Semaphore::new(MIRROR_FLIGHTS_MAX)));
        let limits = Limits { bytes: mirrors_max_bytes, count: MIRRORS_MAX };
        let cache = DirCache::new(dir, limits, |name| name.ends_with(".git"));
        Self(Arc::new(Shared { cache, reach, wait, mirrors: Mutex::default(), readers, flights }))
    }

    /// Reads what the repository has now.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub async fn read(&self, wanted: Wanted) -> Result<Found, DefinitionError> {
        let claim = Claim::check(&wanted)?;
        self.0.reach.protocols.check(&wanted.repository)?;
        let place = Arc::clone(&self.0.readers).try_acquire_owned().map_err(|_| DefinitionError::Busy)?;
        let (tell, told) = oneshot::channel();
        let (shared, asked_at) = (Arc::clone(&self.0), Instant::now());
        // A fetch that outlasts its client's patience is not thrown away: the next client finds it done.
        tokio::spawn(async move {
            shared.read(&wanted, &claim, asked_at, tell).await;
            drop(place);
        });
        match tokio::time::timeout(self.0.wait, told).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => {
                Err(DefinitionError::Fault { doing: "the repository was not read", what: "it was given up".to_owned() })
            }
            Err(_) => Err(DefinitionError::TimedOut(self.0.wait)),
        }
    }
}

/// What was asked for, checked.
#[derive(Debug)]
struct Claim {
    branch: Option<Reference>,
    tag: Option<Reference>,
    /// The branch that has the tag's name, where the tag is claimed as a branch too.
    namesake: Option<Reference>,
    default_branch: Option<Reference>,
    commit: Option<String>,
    file: Option<String>,
    protected: Protected,
    commit_alone: bool,
    diff_base: Option<String>,
}

impl Claim {
    fn check(wanted: &Wanted) -> Result<Self, DefinitionError> {
        let branch = |name: &Option<String>| name.as_deref().map(Reference::branch).transpose();
        let commit = wanted.commit.as_deref().filter(|commit| *commit != "HEAD");
        if commit.is_some_and(|id| !hex::is_commit_id(id)) {
            return Err(DefinitionError::BadCommit);
        }
        if let Some(path) = wanted.file.as_deref().filter(|path| !is_path(path)) {
            return Err(DefinitionError::BadPath(path.chars().filter(|c| !c.is_control()).take(200).collect()));
        }
        let tag = wanted.tag.as_deref().map(Reference::tag).transpose()?;
        // Buildkite's builds of tags have the tag as their branch too: it is one, if there is one of this name.
        let same = wanted.branch.is_some() && wanted.branch == wanted.tag;
        let (branch_said, namesake) = match branch(&wanted.branch)? {
            Some(claimed) if same && !claimed.is_tag() => (None, Some(claimed)),
            Some(_) if same => (None, None),
            said => (said, None),
        };
        Ok(Self {
            branch: branch_said,
            namesake,
            tag,
            default_branch: branch(&wanted.default_branch)?,
            commit: commit.map(str::to_ascii_lowercase),
            file: wanted.file.clone(),
            protected: Protected::parse(&wanted.protected)?,
            commit_alone: wanted.commit_alone,
            diff_base: wanted.diff_base.clone(),
        })
    }

    /// What is claimed to hold the commit; where nothing is said at all, the default branch.
    fn references(&self) -> Vec<&Reference> {
        let said: Vec<_> = self.tag.iter().chain(&self.branch).collect();
        if said.is_empty() && self.commit.is_none() { self.default_branch.iter().collect() } else { said }
    }
}

fn is_path(path: &str) -> bool {
    (1..=TREE_NAME_MAX_BYTES).contains(&path.len())
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

type Answer = oneshot::Sender<Result<Found, DefinitionError>>;

impl Shared {
    async fn read(self: Arc<Self>, wanted: &Wanted, claim: &Claim, asked_at: Instant, tell: Answer) {
        let name = format!("{}.git", Digest::of(wanted.repository.as_bytes()).to_hex());
        let lock = self.lock_of(&name);
        let mut fresh = lock.lock().await;
        // Refused only when it is closed, which it never is.
        let flight = Arc::clone(&self.flights).acquire_owned().await;
        let dir = self.cache.place(&name);
        // It is locked until nothing works on it any more.
        match self.hold(&name).await {
            Ok(held) => {
                let mirror = Mirror { reach: &self.reach, dir: &dir, held: &held, repository: &wanted.repository };
                answer(tell, self.look(&mirror, claim, (&mut fresh, asked_at)).await);
                if dir.exists()
                    && let Err(error) = mirror.tidy().await
                {
                    tracing::warn!(%error, "mirror_not_tidied");
                }
            }
            Err(error) => answer(tell, Err(error)),
        }
        drop((fresh, flight));
        self.trim().await;
    }

    /// Whoever has it works on that mirror alone.
    fn lock_of(&self, name: &str) -> Arc<tokio::sync::Mutex<Freshness>> {
        let mut mirrors = self.mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        mirrors.retain(|_, lock| Arc::strong_count(lock) > 1 || lock.try_lock().is_ok_and(|fresh| fresh.0.is_some()));
        Arc::clone(mirrors.entry(name.to_owned()).or_default())
    }

    /// Removes what is too much.
    async fn trim(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let trimmed = tokio::task::spawn_blocking(move || shared.cache.trim()).await;
        match trimmed.map_err(std::io::Error::other).flatten() {
            Ok(removed) => {
                for mirror in removed {
                    tracing::info!(name = mirror.name, bytes = mirror.bytes, "mirror_evicted");
                }
            }
            Err(error) => tracing::error!(%error, "mirrors_not_evicted"),
        }
    }

    async fn hold(&self, name: &str) -> Result<Held, DefinitionError> {
        let failed = || DefinitionError::fault("the mirror cannot be locked");
        std::fs::create_dir_all(self.cache.path()).map_err(failed())?;
        self.cache.lock(name, Mode::Exclusive).await.map_err(failed())
    }

    /// Looks into a mirror. One that may be damaged is made anew, once: it holds nothing that its server has not.
    async fn look(
        &self,
        mirror: &Mirror<'_>,
        claim: &Claim,
        (fresh, asked_at): (&mut Freshness, Instant),
    ) -> Result<Found, DefinitionError> {
        let found = self.look_once(mirror, claim, (fresh, asked_at)).await;
        let Err(error) = &found else { return found };
        if !error.may_be_damage() {
            return found;
        }
        tracing::warn!(mirror = %mirror.dir.display(), %error, "mirror_made_anew");
        fresh.0 = None;
        mirror.make(&self.cache).await?;
        self.look_once(mirror, claim, (fresh, asked_at)).await
    }

    /// Brings a mirror up to date, unless it has been since it was asked for, and looks into it.
    async fn look_once(
        &self,
        mirror: &Mirror<'_>,
        claim: &Claim,
        (fresh, asked_at): (&mut Freshness, Instant),
    ) -> Result<Found, DefinitionError> {
        let began = Instant::now();
        if fresh.0.is_none_or(|at| at < asked_at) || !mirror.dir.exists() {
            mirror.refresh(&self.cache).await?;
            fresh.0 = Some(began);
        }
        find(mirror, claim).await
    }
}

fn answer(tell: Answer, found: Result<Found, DefinitionError>) {
    if let Err(error) = &found {
        tracing::info!(%error, "definition_not_read");
    }
    // Whoever asked may have gone.
    let _ = tell.send(found);
}

async fn find(mirror: &Mirror<'_>, claim: &Claim) -> Result<Found, DefinitionError> {
    for reference in claim.references() {
        mirror.fetch_reference(reference).await?;
    }
    let (commit, reference) = commit_of(mirror, claim).await?;
    let standing = standing(mirror, claim, &commit).await?;
    let (file, text) = if claim.commit_alone {
        (String::new(), String::new())
    } else {
        text_of(mirror, claim.file.as_deref(), &commit).await?
    };
    let message = mirror.message(&commit).await?;
    let base = claim.diff_base.as_deref().filter(|_| claim.commit_alone || changed::is_asked(&text));
    let changed = match base {
        Some(base) => told(changed::of(mirror, base, &commit).await, &commit),
        None => None,
    };
    let reference = reference.map(|it| it.as_str().to_owned());
    Ok(Found { commit, message, reference, file, text, standing, changed })
}

/// Where it is not known what has changed, every step runs, and it is said why.
fn told(changed: Result<Vec<String>, String>, commit: &str) -> Option<Vec<String>> {
    changed.inspect_err(|why| tracing::warn!(commit, why, "changed_files_unknown")).ok()
}

/// The commit, and the ref that is claimed to hold it.
async fn commit_of(mirror: &Mirror<'_>, claim: &Claim) -> Result<(String, Option<Reference>), DefinitionError> {
    let claimed = claim.references().first().map(|reference| (*reference).clone());
    if let Some(commit) = &claim.commit {
        mirror.fetch_commit(commit).await?;
        return Ok((commit.clone(), claimed));
    }
    let Some(reference) = claimed else {
        return Ok((mirror.fetch_head().await?, None));
    };
    let commit = mirror.commit_of(&reference.kept()).await?;
    let commit = commit.ok_or_else(|| DefinitionError::NoSuchReference(reference.as_str().to_owned()))?;
    Ok((commit, Some(reference)))
}

/// How a commit stands. What is claimed has to be so, each by itself: a branch's name decides which steps run, and which
/// secrets they get, so that a protected branch that holds the commit vouches for no other name.
async fn standing(mirror: &Mirror<'_>, claim: &Claim, commit: &str) -> Result<Standing, DefinitionError> {
    let unprotected = |why: String| Ok(Standing::Unprotected { why });
    let mut claimed = claim.references();
    if let Some(namesake) = &claim.namesake
        && mirror.commit_of(&namesake.kept()).await?.is_some()
    {
        claimed.push(namesake);
    }
    for reference in &claimed {
        if !vouches(mirror, reference, commit).await? {
            return unprotected(format!("{commit} is not in {}", reference.as_str()));
        }
    }
    if let Some(number) = claim.branch.as_ref().and_then(Reference::pull_request) {
        return Ok(Standing::PullRequest { number: number.to_owned() });
    }
    if let Some(open) = claimed.iter().find(|reference| !claim.protected.holds(reference.as_str())) {
        return unprotected(format!("{} is not protected", open.as_str()));
    }
    if let Some(first) = claimed.first() {
        return Ok(Standing::Protected { reference: first.as_str().to_owned() });
    }
    if claim.protected.is_empty() {
        return unprotected("the pipeline has no protected refs".to_owned());
    }
    let holders = mirror.references_with(commit).await?;
    let mut protected: Vec<_> = holders.into_iter().filter(|name| claim.protected.holds(name)).collect();
    // The default branch first: a build is shown under one name.
    protected.sort_by_key(|name| Some(name.as_str()) != claim.default_branch.as_ref().map(Reference::as_str));
    if let Some(reference) = protected.into_iter().next() {
        return Ok(Standing::Protected { reference });
    }
    unprotected(format!("no protected ref of the repository holds {commit}"))
}

/// Whether a ref is what it is claimed to be: a tag names its commit itself, a branch holds it.
async fn vouches(mirror: &Mirror<'_>, reference: &Reference, commit: &str) -> Result<bool, DefinitionError> {
    let Some(head) = mirror.commit_of(&reference.kept()).await? else { return Ok(false) };
    if reference.is_tag() || head == commit {
        return Ok(head == commit);
    }
    mirror.holds(&reference.kept(), commit).await
}

async fn text_of(mirror: &Mirror<'_>, file: Option<&str>, commit: &str) -> Result<(String, String), DefinitionError> {
    let usual: Vec<&str> = [OWN].into_iter().chain(BUILDKITE).collect();
    let paths = file.map_or(usual, |file| vec![file]);
    let there = mirror.files(commit, &paths).await?;
    let named = |path: &str| there.iter().find(|entry| entry.path == path);
    let path = match file {
        Some(file) => file,
        None => choose(|path| named(path).is_some())
            .map_err(|why| DefinitionError::NoFile { commit: commit.to_owned(), why })?,
    };
    let entry =
        named(path).ok_or_else(|| DefinitionError::NoSuchFile { commit: commit.to_owned(), path: path.to_owned() })?;
    Ok((path.to_owned(), mirror.text(entry).await?))
}

#[cfg(test)]
mod tests;
