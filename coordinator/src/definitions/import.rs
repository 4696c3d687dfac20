//! Files of a commit, brought out of its repository's mirror for whoever chooses among them.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use windlass_protocol::{Digest, hex};

use super::mirror::Mirror;
use super::mirror::contents::{Listed, Piece};
use super::{DefinitionError, Definitions, Shared};

/// Pieces of files that wait to be taken.
const PIECES_MAX: usize = 16;

/// Chooses files of a commit and takes their bytes. It may block: it has a thread of its own.
pub(crate) trait Importer: Send + 'static {
    /// The objects that it wants, in the order in which it takes them.
    ///
    /// # Errors
    /// Why it wants none of it, for people.
    fn choose(&mut self, listed: Vec<Listed>) -> Result<Vec<String>, String>;

    /// The next piece.
    ///
    /// # Errors
    /// Why it takes no more.
    fn take(&mut self, piece: Piece) -> Result<(), String>;
}

/// Why nothing was brought.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error(transparent)]
    Mirror(#[from] DefinitionError),
    /// By the importer's word.
    #[error("{0}")]
    Refused(String),
}

impl Definitions {
    /// Has an importer choose among a commit's files and take them; it comes back when it has all of them. What is fetched
    /// goes on where nobody waits any more: the next one finds it done.
    ///
    /// # Errors
    /// [`ImportError`].
    pub(crate) async fn import<I: Importer>(
        &self,
        repository: String,
        commit: String,
        importer: I,
    ) -> Result<I, ImportError> {
        if !hex::is_commit_id(&commit) {
            return Err(DefinitionError::BadCommit.into());
        }
        self.0.reach.protocols.check(&repository).map_err(DefinitionError::from)?;
        let (shared, (tell, told)) = (Arc::clone(&self.0), oneshot::channel());
        tokio::spawn(async move {
            // Whoever asked may have gone.
            let _ = tell.send(shared.import(&repository, &commit.to_ascii_lowercase(), importer).await);
        });
        told.await.unwrap_or_else(|_| Err(ImportError::Refused("it was given up".to_owned())))
    }
}

impl Shared {
    async fn import<I: Importer>(
        self: Arc<Self>,
        repository: &str,
        commit: &str,
        importer: I,
    ) -> Result<I, ImportError> {
        let name = format!("{}.git", Digest::of(repository.as_bytes()).to_hex());
        let lock = self.lock_of(&name);
        let _alone = lock.lock().await;
        // Refused only when it is closed, which it never is.
        let _flight = Arc::clone(&self.flights).acquire_owned().await;
        let dir = self.cache.place(&name);
        let imported = {
            let held = self.hold(&name).await?;
            let mirror = Mirror { reach: &self.reach, dir: &dir, held: &held, repository };
            self.have_commit(&mirror, commit).await?;
            bring(&mirror, commit, importer).await
        };
        self.trim().await;
        imported
    }

    /// A commit that a pipeline was read from is there, unless the mirror has been made anew since.
    async fn have_commit(&self, mirror: &Mirror<'_>, commit: &str) -> Result<(), DefinitionError> {
        if !mirror.dir.exists() {
            mirror.refresh(&self.cache).await?;
        }
        match mirror.fetch_commit(commit).await {
            Err(DefinitionError::NoSuchCommit(_)) => {
                mirror.refresh(&self.cache).await?;
                mirror.fetch_commit(commit).await
            }
            fetched => fetched,
        }
    }
}

async fn bring<I: Importer>(mirror: &Mirror<'_>, commit: &str, mut importer: I) -> Result<I, ImportError> {
    let listed = mirror.list(commit).await?;
    let ended = |error: tokio::task::JoinError| ImportError::Refused(error.to_string());
    let choosing = tokio::task::spawn_blocking(move || importer.choose(listed).map(|ids| (importer, ids)));
    let (mut importer, ids) = choosing.await.map_err(ended)?.map_err(ImportError::Refused)?;
    if ids.is_empty() {
        return Ok(importer);
    }
    mirror.bring(commit, &ids).await?;
    let (pieces, mut taken) = mpsc::channel(PIECES_MAX);
    let taking = tokio::task::spawn_blocking(move || {
        while let Some(piece) = taken.blocking_recv() {
            importer.take(piece)?;
        }
        Ok(importer)
    });
    let read = mirror.read_objects(&ids, &pieces).await;
    drop(pieces);
    // What the importer says is why nobody takes them any more.
    let importer = taking.await.map_err(ended)?.map_err(ImportError::Refused)?;
    read?;
    Ok(importer)
}
