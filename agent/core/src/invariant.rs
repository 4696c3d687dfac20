//! What holds after every event, whatever it was.

use std::collections::BTreeSet;

use windlass_protocol::limits::{BEATS_UNANSWERED_MAX, ENDED_REMEMBERED_MAX, SLOTS_MAX};

use crate::error::Broken;
use crate::slot::Stage;
use crate::state::AgentCore;

impl AgentCore {
    /// Looks at everything; for tests and simulation.
    ///
    /// # Errors
    /// [`Broken`], with the number of the invariant.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_bounds()?;
        self.check_slots()?;
        self.check_stages()?;
        if !self.left && self.poll_timeout().is_none() {
            return Err(Broken { invariant: "I10", detail: "the agent waits for nothing".to_owned() });
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), Broken> {
        let bounds = [
            ("unanswered beats", self.renewal.unanswered(), BEATS_UNANSWERED_MAX),
            ("ended attempts", self.ended.len(), ENDED_REMEMBERED_MAX),
            ("attempts that were dropped", self.dropped.len(), ENDED_REMEMBERED_MAX),
            ("slots", usize::try_from(self.config.slots).unwrap_or(usize::MAX), SLOTS_MAX as usize),
        ];
        for (what, seen, limit) in bounds {
            if seen > limit {
                return Err(Broken { invariant: "I9", detail: format!("{seen} {what}, at most {limit}") });
            }
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), Broken> {
        let running: Vec<u32> =
            self.slots.held.values().filter(|holding| holding.runs()).map(|holding| holding.slot).collect();
        let slots: BTreeSet<u32> = running.iter().copied().collect();
        if slots.len() != running.len() {
            return Err(Broken { invariant: "I2", detail: "two attempts share a slot".to_owned() });
        }
        Ok(())
    }

    fn check_stages(&self) -> Result<(), Broken> {
        for (attempt, holding) in &self.slots.held {
            let unowned = match holding.stage {
                // A runner owns the start, the link the rest.
                Stage::Starting | Stage::Finished { .. } => false,
                Stage::Running => holding.terms.timeout_ms.is_some() && holding.deadline().is_none(),
                Stage::Preparing | Stage::Canceling { .. } | Stage::Killing { .. } => holding.deadline().is_none(),
            };
            if unowned {
                return Err(Broken { invariant: "I10", detail: format!("attempt {attempt} waits without a deadline") });
            }
            if holding.spool.acked > holding.spool.end {
                return Err(Broken {
                    invariant: "I4",
                    detail: format!("attempt {attempt}: acknowledged beyond its log"),
                });
            }
        }
        Ok(())
    }
}
