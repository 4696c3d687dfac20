//! Room on the disk while jobs fill it: the cache gives way before its floor is reached (docs/design/042).

use std::time::Duration;

use tokio::sync::mpsc;
use windlass_agent_core::Input;
use windlass_cache::Store;
use windlass_cache::floor::Look;
use windlass_protocol::limits::{FLOOR_FILL_BYTES_PER_MS, FLOOR_LOOK_MAX_MS, FLOOR_LOOK_MIN_MS};

use crate::bulk::{blocking, internal};

/// Looks at the disk for as long as the agent's loop listens, the more often the less room there is.
pub(crate) async fn watch(store: Store, feed: mpsc::Sender<Input>) {
    let mut pace = Pace::default();
    loop {
        let looked = {
            let store = store.clone();
            blocking(move || store.keep_floor().map_err(|fault| internal(&fault))).await
        };
        let look = match looked {
            Ok(look) => {
                if look.freed_bytes > 0 {
                    tracing::info!(freed = look.freed_bytes, more = look.more, "cache_gave_way");
                }
                Some(look)
            }
            Err(error) => {
                tracing::warn!(%error, "cache_cannot_give_way");
                None
            }
        };
        tokio::select! {
            biased;
            () = feed.closed() => return,
            () = tokio::time::sleep(pace.after(look)) => {}
        }
    }
}

/// How long until the next look.
#[derive(Debug, Default)]
struct Pace {
    /// Tries in a row that gave back nothing.
    fruitless: u32,
}

impl Pace {
    fn after(&mut self, look: Option<Look>) -> Duration {
        let ms = match look {
            Some(look) if !look.more || look.freed_bytes > 0 => {
                self.fruitless = 0;
                if look.more { 0 } else { look.headroom_bytes / FLOOR_FILL_BYTES_PER_MS }
            }
            Some(_) | None => {
                self.fruitless = self.fruitless.saturating_add(1);
                FLOOR_LOOK_MIN_MS.saturating_mul(1_u64.checked_shl(self.fruitless).unwrap_or(u64::MAX))
            }
        };
        Duration::from_millis(ms.clamp(FLOOR_LOOK_MIN_MS, FLOOR_LOOK_MAX_MS))
    }
}

#[cfg(test)]
mod tests;
