//! The desk's port to what finds out keys of steps: asked beside it, answered as inputs.

use std::time::Duration;

use windlass_coordinator_core::input::Input;
use windlass_coordinator_core::row::{KeySubject, Keyed, Unkeyed};
use windlass_protocol::limits::REUSE_KEY_MAX_MS;

use crate::desk::{DeskHandle, Keys};
use crate::keying::Engine;
use crate::upstream::Bringer;

/// Finds out keys for the desk. The core has a bounded number of questions out.
#[derive(Debug, Clone)]
pub struct Keyer {
    desk: DeskHandle,
    engine: Engine,
    bringer: Option<Bringer>,
}

impl Keyer {
    /// One that answers this desk.
    #[must_use]
    pub const fn new(desk: DeskHandle, engine: Engine) -> Self {
        Self { desk, engine, bringer: None }
    }

    /// The same, which brings a fleet's results.
    pub(crate) fn with(self, bringer: Option<Bringer>) -> Self {
        Self { bringer, ..self }
    }

    async fn answer(&self, subject: KeySubject) -> Result<Keyed, Unkeyed> {
        let (mut keyed, wanted) = self.engine.find(&subject).await.map_err(|why| Unkeyed { why })?;
        if let (Some(bringer), Some(wanted)) = (&self.bringer, wanted) {
            // It is there when the core hears of the key.
            let told = bringer.bring(&subject, &keyed, &wanted).await;
            keyed.notes.extend(told);
        }
        Ok(keyed)
    }
}

impl Keys for Keyer {
    fn key(&self, ask: u64, subject: KeySubject) {
        let keyer = self.clone();
        tokio::spawn(async move {
            let (job, longest) = (subject.job, Duration::from_millis(REUSE_KEY_MAX_MS));
            let Ok(outcome) = tokio::time::timeout(longest, keyer.answer(subject)).await else {
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
