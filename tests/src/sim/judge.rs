//! What is looked at after every event.

use windlass_coordinator_core::{Core, Policy};
use windlass_protocol::IdSource;

use super::world::World;

/// Effects and messages that may wait at once in so small a world.
const QUEUE_MAX: usize = 4_000;

impl World {
    /// After every event: the cores' own invariants, the oracle's, the bounds; from time to time what costs more.
    pub(super) fn judge(&mut self) {
        if !self.setup.oracle_only {
            self.judge_cores();
        }
        if let Err((invariant, detail)) = self.oracle.acknowledged_are_stored(&self.store) {
            self.violate(invariant, detail);
        }
        let waiting = self.coordinator.waiting();
        if waiting > QUEUE_MAX {
            self.violate("I9", format!("{waiting} effects wait"));
        }
    }

    /// What the cores say of themselves.
    fn judge_cores(&mut self) {
        let broken = self.coordinator.core.as_ref().and_then(|core| core.check().err());
        if let Some(broken) = broken {
            self.violate(broken.invariant, broken.detail);
        }
        for index in 0..self.hosts.len() {
            if let Some(broken) = self.hosts[index].core.as_ref().and_then(|core| core.check().err()) {
                self.violate(broken.invariant, format!("agent {index}: {}", broken.detail));
            }
        }
        if self.handled.is_multiple_of(64) {
            self.judge_rows();
        }
    }

    /// I11: what the core holds is what the store has, and loading it gives the same again.
    fn judge_rows(&mut self) {
        if !self.coordinator.is_settled() {
            return;
        }
        let Some(core) = &self.coordinator.core else { return };
        let (held, stored) = (core.rows(), self.store.load());
        if held != stored {
            let what = difference(&held, &stored);
            self.violate("I11", format!("the core's rows are not the store's: {what}"));
            return;
        }
        let again = Core::load(self.coordinator_now(), stored.clone(), IdSource::from_seed([3; 32]), Policy::default());
        if again.rows() != stored {
            let what = difference(&again.rows(), &stored);
            self.violate("I11", format!("loaded rows give other ones: {what}"));
        }
    }
}

/// Where two sets of rows differ first, for people.
#[must_use]
pub fn difference(left: &windlass_coordinator_core::row::Rows, right: &windlass_coordinator_core::row::Rows) -> String {
    fn first<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
        what: &str,
        left: &std::collections::BTreeMap<K, V>,
        right: &std::collections::BTreeMap<K, V>,
    ) -> Option<String> {
        let keys = left.keys().chain(right.keys());
        keys.into_iter()
            .find(|key| left.get(key) != right.get(key))
            .map(|key| format!("{what} {key:?}: {:?} and {:?}", left.get(key), right.get(key)))
    }
    if left.meta != right.meta {
        return format!("{:?} and {:?}", left.meta, right.meta);
    }
    first("build", &left.builds, &right.builds)
        .or_else(|| first("job", &left.jobs, &right.jobs))
        .or_else(|| first("attempt", &left.attempts, &right.attempts))
        .or_else(|| first("agent", &left.agents, &right.agents))
        .or_else(|| first("pool", &left.pools, &right.pools))
        .or_else(|| first("token", &left.tokens, &right.tokens))
        .or_else(|| first("hold", &left.holds, &right.holds))
        .or_else(|| first("idempotency", &left.idempotency, &right.idempotency))
        .or_else(|| first("number", &left.pipeline_numbers, &right.pipeline_numbers))
        .unwrap_or_else(|| "nothing".to_owned())
}
