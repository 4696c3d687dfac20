//! When each token was last used. Known at once here, written to its row some minutes later: no request costs a commit,
//! and a crash forgets [`LAST_USE_EVERY_MS`] of it at most.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Actor, ActorKind};
use windlass_protocol::limits::LAST_USE_EVERY_MS;
use windlass_protocol::{TokenId, WallMs};

use crate::desk::{DeskError, DeskHandle};

/// The last uses since this coordinator started; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastUse(Arc<Mutex<BTreeMap<TokenId, WallMs>>>);

impl LastUse {
    /// Only tokens that exist get here, so it holds no more than there are.
    pub(crate) fn note(&self, token: TokenId, at: WallMs) {
        let mut uses = self.lock();
        let last = uses.entry(token).or_default();
        *last = (*last).max(at);
    }

    /// When it was last used, if it was since the start.
    pub(crate) fn of(&self, token: TokenId) -> Option<WallMs> {
        self.lock().get(&token).copied()
    }

    /// Writes them, in one commit; the core knows which are news, and commits nothing where none is.
    ///
    /// # Errors
    /// [`DeskError`]; what was not written is written the next time.
    pub(crate) async fn write(&self, desk: &DeskHandle) -> Result<(), DeskError> {
        let uses = self.lock().iter().map(|(token, at)| (*token, *at)).collect();
        let actor = Actor { kind: ActorKind::System, name: "last use".to_owned() };
        desk.request(actor, Request::NoteUses(uses)).await?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TokenId, WallMs>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes uses now and then, until `stop` turns true.
pub(crate) async fn run(uses: LastUse, desk: DeskHandle, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(LAST_USE_EVERY_MS)) => {}
            () = crate::http::stopped(&mut stop) => return,
        }
        if let Err(error) = uses.write(&desk).await {
            tracing::warn!(%error, "last_uses_put_off");
        }
    }
}
