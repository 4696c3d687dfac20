//! What agents have of the large inputs of jobs, and what it costs to bring the rest (docs/design/036).

use std::collections::{BTreeMap, BTreeSet};

use windlass_pipeline::graph::NodeKind;
use windlass_protocol::job::Source;
use windlass_protocol::stock::{Fetched, InputName, Stocked};
use windlass_protocol::{AgentId, JobId, limits};

use crate::row::JobReuse;
use crate::state::{Core, Job};

/// What a job needs that may be large: its source tree and its image.
pub(crate) type Inputs = [Option<InputName>; 2];

/// An input that somebody has.
#[derive(Debug, Default)]
struct Known {
    /// Its length, as who told last has it.
    bytes: u64,
    holders: BTreeSet<AgentId>,
}

/// Who has what, and how fast zones bring the rest.
#[derive(Debug, Default)]
pub(crate) struct Stocks {
    known: BTreeMap<InputName, Known>,
    /// Bytes in a millisecond, of zones whose agents have told of enough.
    rates: BTreeMap<String, u64>,
}

impl Stocks {
    /// The length of an input that somebody has; of others nothing is known.
    fn bytes(&self, name: &InputName) -> u64 {
        self.known.get(name).map_or(0, |known| known.bytes)
    }

    /// Who has an input, some of them.
    pub(crate) fn holders(&self, name: &InputName) -> impl Iterator<Item = AgentId> {
        self.known.get(name).into_iter().flat_map(|known| &known.holders).copied().take(limits::PLACE_HOLDERS_MAX)
    }

    /// How many agents have the largest of these inputs, and how long it is.
    pub(crate) fn of(&self, inputs: &Inputs) -> (usize, u64) {
        let known = inputs.iter().flatten().filter_map(|name| self.known.get(name));
        known.map(|known| (known.holders.len(), known.bytes)).max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
    }

    /// How many bytes of these inputs agents have told of.
    pub(crate) fn known_bytes(&self, inputs: &Inputs) -> u64 {
        inputs.iter().flatten().map(|name| self.bytes(name)).sum()
    }

    /// Bytes that a zone's agents bring in a millisecond.
    pub(crate) fn rate_of(&self, zone: &str) -> u64 {
        self.rates.get(zone).copied().unwrap_or(limits::ZONE_BYTES_PER_MS).max(1)
    }

    /// Whether nobody has told of anything: then there is nothing to weigh.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Core {
    /// An agent tells what it has, and what it has brought.
    pub(crate) fn on_stock(&mut self, id: AgentId, inputs: &[Stocked], fetched: Fetched) {
        self.forget_stock(id);
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let inputs = inputs.iter().take(limits::STOCK_INPUTS_MAX);
        for Stocked { name, bytes } in inputs.filter(|input| input.bytes >= limits::STOCK_MIN_BYTES) {
            agent.stock.insert(*name);
            let known = self.stocks.known.entry(*name).or_default();
            known.bytes = (*bytes).min(limits::STOCK_MAX_BYTES);
            known.holders.insert(id);
        }
        let before = agent.fetched;
        let gained = fetched.bytes.checked_sub(before.bytes).zip(fetched.ms.checked_sub(before.ms));
        match gained {
            // So little says nothing; it is counted with what comes.
            Some((bytes, _)) if bytes < limits::ZONE_RATE_MIN_BYTES => {}
            Some((bytes, ms)) => {
                agent.fetched = fetched;
                self.measured(id, bytes / ms.max(1));
            }
            // A program that began anew counts from nothing.
            None => agent.fetched = fetched,
        }
    }

    /// An agent has brought so much in a millisecond.
    fn measured(&mut self, id: AgentId, rate: u64) {
        if let Some(zone) = self.pool_of(id).map(|pool| pool.zone.clone()) {
            let rate = rate.max(1);
            // What was measured before counts three times: one slow disk is not the zone.
            let known = self.stocks.rates.entry(zone).or_insert(rate);
            *known = (known.saturating_mul(3).saturating_add(rate) / 4).max(1);
        }
    }

    /// What an agent had counts no more.
    pub(crate) fn forget_stock(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        for name in std::mem::take(&mut agent.stock) {
            if let Some(known) = self.stocks.known.get_mut(&name) {
                known.holders.remove(&id);
                if known.holders.is_empty() {
                    self.stocks.known.remove(&name);
                }
            }
        }
    }

    /// What a job needs that may be large.
    pub(crate) fn inputs_of(&self, id: JobId) -> Inputs {
        self.jobs.get(&id).map(|job| *job.inputs.get_or_init(|| self.name_inputs(job))).unwrap_or_default()
    }

    fn name_inputs(&self, job: &Job) -> Inputs {
        let keyed = job.row.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| &keyed.keyed);
        let whole = self.builds.get(&job.row.build).map(|build| &build.row.origin);
        let tree = match keyed.map(|keyed| &keyed.source).or(whole) {
            Some(Source::Tree { digest }) => Some(InputName::tree(digest)),
            Some(Source::Empty | Source::Git { .. }) | None => None,
        };
        let given = keyed.and_then(|keyed| keyed.image.as_deref());
        let image = match &job.row.node.kind {
            NodeKind::Command(command) => given.or(command.image.as_deref()).map(InputName::image),
            NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => None,
        };
        [tree, image]
    }

    /// How long an agent would bring what it lacks of a job's inputs, in milliseconds by its zone's rate.
    pub(crate) fn missing_ms(&self, inputs: &Inputs, id: AgentId) -> u64 {
        let bytes = self.missing_bytes(inputs, id);
        if bytes == 0 {
            return 0;
        }
        bytes / self.stocks.rate_of(self.pool_of(id).map_or("", |pool| &pool.zone))
    }

    /// What an agent lacks of a job's inputs.
    pub(crate) fn missing_bytes(&self, inputs: &Inputs, id: AgentId) -> u64 {
        let Some(agent) = self.agents.get(&id) else { return 0 };
        let lacks = inputs.iter().flatten().filter(|name| !agent.stock.contains(name));
        lacks.map(|name| self.stocks.bytes(name)).sum()
    }
}
