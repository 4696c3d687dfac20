//! The desk's port to what finds out keys of steps: asked beside it, answered as inputs.

use std::time::Duration;

use windlass_coordinator_core::input::Input;
use windlass_coordinator_core::row::KeySubject;
use windlass_protocol::limits::REUSE_KEY_MAX_MS;

use crate::desk::{DeskHandle, Keys};
use crate::keying::Engine;

/// Finds out keys for the desk. The core has a bounded number of questions out.
#[derive(Debug, Clone)]
pub struct Keyer {
    desk: DeskHandle,
    engine: Engine,
}

impl Keyer {
    /// One that answers this desk.
    #[must_use]
    pub const fn new(desk: DeskHandle, engine: Engine) -> Self {
        Self { desk, engine }
    }
}

impl Keys for Keyer {
    fn key(&self, ask: u64, subject: KeySubject) {
        let keyer = self.clone();
        tokio::spawn(async move {
            let (job, longest) = (subject.job, Duration::from_millis(REUSE_KEY_MAX_MS));
            let Ok(outcome) = tokio::time::timeout(longest, keyer.engine.key(subject)).await else {
                // The core has its own deadline, and tells.
                return;
            };
            if let Err(unkeyed) = &outcome {
                tracing::debug!(%job, why = unkeyed.why, "step_not_keyed");
            }
            // A desk that ends asks again when it starts.
            let _ending = keyer.desk.agent_input(Input::Keyed { job, ask, outcome: outcome.map(Box::new) }).await;
        });
    }
}
