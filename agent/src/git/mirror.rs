//! This agent's mirrors: one bare repository for each URL, the agent's alone, from which jobs get copies.
//!
//! They hold what the operator's credentials may fetch, so that a step with a key of its own neither reads them nor adds to
//! them. Together they are bounded (`docs/design/027`); one that is in use is locked, and stays.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use windlass_git::dir_cache::{Held, Limits, Mode};
use windlass_git::mirror::NotMade;
use windlass_git::{DirCache, Protocol};
use windlass_protocol::{Cause, Digest};

use super::wish::{Way, fetch_words};
use super::{Git, Tries, Who, Wish, cause_of, fail, may_be_damage, run_in};
use crate::bounded::Bounded;
use crate::error::Fault;

/// The mirrors of a directory, which is made if it is not there.
pub(super) fn cache(path: PathBuf, limits: Limits) -> Result<Bounded, Fault> {
    let failed = |source| Fault::File { doing: "git mirrors cannot be kept in", path: path.clone(), source };
    std::fs::create_dir_all(&path).map_err(failed)?;
    // With every branch of every private repository in it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Bounded::open(path.clone(), limits, "git mirror", |name| name.ends_with(".git")).map_err(failed)
}

/// A mirror that is locked.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) dir: PathBuf,
    pub(super) held: Held,
}

impl Git {
    /// Copies from this agent's mirror, brought up to date where it lacks what is wanted; nothing where there are no
    /// mirrors, or this is not what they hold.
    pub(super) async fn fetch_from_mirror(&self, dest: &Path, wish: &Wish) -> Result<Option<String>, Cause> {
        let Some((cache, wanted)) = self.mirrors_for(wish).and_then(|cache| Some((cache, in_mirror(wish)?))) else {
            return Ok(None);
        };
        let fetched = self.fetch_by(cache, &wanted, dest, wish).await;
        cache.trim();
        fetched
    }

    /// The mirrors, where they are for whoever wishes.
    pub(super) fn mirrors_for(&self, wish: &Wish) -> Option<&Bounded> {
        self.mirrors.as_ref().filter(|_| matches!(wish.who, Who::Agent))
    }

    /// A repository's mirror, which is locked, and made if it is not there.
    pub(super) async fn mirror(&self, cache: &DirCache, repository: &str) -> Result<Mirror, Cause> {
        let name = format!("{}.git", mirror_name(repository));
        let held = cache.lock(&name, Mode::Exclusive).await;
        let held = held.map_err(|e| fail(format!("the repository's mirror is busy: {e}")))?;
        let mirror = Mirror { dir: cache.place(&name), held };
        if mirror.dir.join("config").exists() {
            // A job that was canceled took its git with it.
            let unusable = |e: std::io::Error| fail(format!("{}: {e}", mirror.dir.display()));
            windlass_git::locks::clear(&mirror.dir).map_err(unusable)?;
        } else {
            self.make_mirror(cache, &mirror, repository).await?;
        }
        Ok(mirror)
    }

    /// An empty one, in the place of what is there.
    async fn make_mirror(&self, cache: &DirCache, mirror: &Mirror, repository: &str) -> Result<(), Cause> {
        let git = |dir: &Path| Ok(self.command(dir, &Who::Nobody));
        let more = [("uploadpack.allowAnySHA1InWant", "true")];
        windlass_git::mirror::make(cache, &mirror.held, git, repository, &more).await.map_err(|error| match error {
            NotMade::Disk(error) => crate::workspace::io_cause(&error, &mirror.dir),
            NotMade::Git(error) => cause_of(error),
        })
    }

    /// After a failure in a mirror: an empty one in its place, if it was the mirror's own fault; else the failure.
    pub(super) async fn heal(
        &self,
        cache: &DirCache,
        mirror: &Mirror,
        wish: &Wish,
        failure: Cause,
    ) -> Result<(), Cause> {
        if !may_be_damage(&failure) {
            return Err(failure);
        }
        tracing::warn!(mirror = %mirror.dir.display(), error = failure.detail, "mirror_made_anew");
        self.make_mirror(cache, mirror, &wish.repository).await
    }

    async fn fetch_by(
        &self,
        cache: &DirCache,
        wanted: &str,
        dest: &Path,
        wish: &Wish,
    ) -> Result<Option<String>, Cause> {
        let mirror = self.mirror(cache, &wish.repository).await?;
        if let Err(failure) = self.update_mirror(&mirror, wish).await {
            self.heal(cache, &mirror, wish, failure).await?;
            self.update_mirror(&mirror, wish).await?;
        }
        let way = Way { refs: vec![wanted.to_owned()], whole: false };
        let path = mirror.dir.to_string_lossy().into_owned();
        let mut command = self.command(dest, &Who::Nobody);
        // The operator's own file, whatever protocols jobs may name.
        command.env(windlass_git::settings::ALLOWED, Protocol::File.name());
        match run_in(Some(&mirror.held), command, &fetch_words(wish, &way, &path)).await {
            Ok(()) => Ok(Some(wish.target())),
            Err(cause) => {
                // It has what is wanted and cannot give it: it is not whole. The next job makes another.
                tracing::warn!(mirror = path, error = cause.detail, "mirror_removed");
                if let Err(error) = cache.remove(&mirror.held) {
                    tracing::error!(mirror = path, %error, "mirror_not_removed");
                }
                Ok(None)
            }
        }
    }

    /// Fetches into a mirror, again where that may be a network's fault.
    async fn update_mirror(&self, mirror: &Mirror, wish: &Wish) -> Result<(), Cause> {
        let mut tries = Tries::default();
        while let Err(cause) = self.fetch_into_mirror(mirror, wish).await {
            tries.again(cause).await?;
        }
        Ok(())
    }

    /// Unless it has the commit already.
    async fn fetch_into_mirror(&self, mirror: &Mirror, wish: &Wish) -> Result<(), Cause> {
        let Mirror { dir, held } = mirror;
        let git = async |arguments: &[&str]| run_in(Some(held), self.command(dir, &wish.who), arguments).await;
        if wish.is_commit() && self.has(dir, &wish.commit).await {
            return Ok(());
        }
        let get = ["fetch", "--quiet", "--no-recurse-submodules", "--force", "--prune", "--tags", "origin"];
        let pull = wish.pull_request.map(|number| format!("+refs/pull/{number}/head:refs/pull/{number}/head"));
        let mut words: Vec<&str> = [&get[..], &["+refs/heads/*:refs/heads/*"]].concat();
        if wish.pull_request.is_none() || !wish.is_commit() {
            git(&words).await?;
        }
        if let Some(pull) = &pull {
            // Not every server has them; the branches may have the commit all the same.
            words.push(pull);
            if git(&words).await.is_err() {
                words.pop();
                git(&words).await?;
            }
        }
        if wish.is_commit() && !self.has(dir, &wish.commit).await {
            let alone = format!("+{0}:refs/windlass/{0}", wish.commit);
            git(&["fetch", "--quiet", "--no-recurse-submodules", "origin", &alone]).await?;
        }
        Ok(())
    }
}

/// By which name a mirror has what is wanted; nothing where it does not keep that.
fn in_mirror(wish: &Wish) -> Option<String> {
    if !wish.refspec.is_empty() {
        return None;
    }
    match (wish.is_commit(), wish.pull_request, wish.reference()) {
        (true, ..) => Some(wish.commit.clone()),
        (false, Some(number), _) => Some(format!("refs/pull/{number}/head")),
        // A mirror's own head is not the server's.
        (false, None, reference) => {
            let is_kept = reference.starts_with("refs/heads/") || reference.starts_with("refs/tags/");
            is_kept.then_some(reference)
        }
    }
}

/// A mirror's directory: the repository for people, its digest for the rest.
fn mirror_name(repository: &str) -> String {
    let shown = repository.split_once("://").map_or(repository, |(_, rest)| rest);
    // Whoever gave it a password did not mean it to be a name.
    let shown = shown.rsplit_once('@').map_or(shown, |(_, rest)| rest);
    let id: String = shown.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(120).collect();
    let digest: String = Digest::of(repository.as_bytes()).to_hex().chars().take(12).collect();
    format!("{id}-{digest}")
}
