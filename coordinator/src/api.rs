//! The HTTP API.

use axum::Router;

use crate::fleet::{self, Switchboard};

/// What the API stands on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Desk, views, builds, logs, blobs, certificates.
    pub fleet: fleet::Ground,
    /// Agents' connections.
    pub board: Switchboard,
    /// Where clients reach this coordinator.
    pub url: String,
}

impl Ground {
    /// Puts it together.
    #[must_use]
    pub const fn new(fleet: fleet::Ground, board: Switchboard, url: String) -> Self {
        Self { fleet, board, url }
    }
}

/// All routes.
pub fn router(ground: Ground) -> Router {
    Router::new().with_state(ground)
}
