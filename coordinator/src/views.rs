//! What clients may see: nothing that a crash could take back, but for progress that is marked as volatile.
//!
//! Rows of builds are read from the store, which has them all as of one commit; agents, pools and tokens, which every
//! request needs, are kept here. A commit is published ([`Views::published`]) when its events have been handed to
//! watchers; a [`reader::Reader`] gives nothing away that is newer.

pub mod overlay;
pub mod reader;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{broadcast, watch as latest};
use windlass_coordinator_core::effect::{AgentState, Progress};
use windlass_coordinator_core::row::{
    AgentRow, Change, PipelineRow, PoolRow, Rows, ScheduleRow, SecretName, SecretRow, TokenRow,
};
use windlass_coordinator_store::{EventSeq, Seq, StoredEvent};
use windlass_protocol::{AgentId, BuildId, Digest, ScheduleId, TokenId, limits};

use self::overlay::Overlay;
pub use self::reader::{Offload, ReadError, Reader};
pub use self::watch::{Notice, Watch};

/// The published state; clones share it.
#[derive(Debug, Clone)]
pub struct Views {
    state: Arc<RwLock<State>>,
    published: Arc<latest::Sender<Seq>>,
    /// Agents that are online.
    online: Arc<latest::Sender<usize>>,
    /// Which agents are revoked.
    revoked: Arc<latest::Sender<Digest>>,
}

#[derive(Debug, Default)]
struct State {
    seq: Seq,
    pipelines: BTreeMap<String, PipelineRow>,
    schedules: BTreeMap<ScheduleId, ScheduleRow>,
    pools: BTreeMap<String, PoolRow>,
    secrets: BTreeMap<SecretName, SecretRow>,
    agents: BTreeMap<AgentId, AgentRow>,
    agent_states: BTreeMap<AgentId, AgentState>,
    tokens: BTreeMap<TokenId, TokenRow>,
    overlay: Overlay,
    watchers: BTreeMap<BuildId, broadcast::Sender<Notice>>,
}

/// An agent as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// What is durable of it.
    pub row: AgentRow,
    /// Volatile.
    pub state: AgentState,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            published: Arc::new(latest::Sender::new(Seq::default())),
            online: Arc::new(latest::Sender::new(0)),
            revoked: Arc::new(latest::Sender::new(State::default().revoked())),
        }
    }
}

impl Views {
    /// Starts again from what the store holds. Volatile progress is forgotten; agents tell it again.
    pub fn reset(&self, rows: &Rows, seq: Seq) {
        let mut state = self.write();
        state.pipelines.clone_from(&rows.pipelines);
        state.schedules.clone_from(&rows.schedules);
        state.pools.clone_from(&rows.pools);
        state.secrets.clone_from(&rows.secrets);
        state.agents.clone_from(&rows.agents);
        state.tokens.clone_from(&rows.tokens);
        state.agent_states.clear();
        self.online.send_replace(0);
        self.revoked.send_replace(state.revoked());
        state.overlay = Overlay::default();
        state.seq = seq;
        // A commit that failed may be there after all: its events are read from the store.
        for watchers in state.watchers.values() {
            let _nobody = watchers.send(Notice::Reset);
        }
        drop(state);
        self.published.send_replace(seq);
    }

    /// Takes over a commit that is durable, hands its events to watchers, and calls it published.
    pub fn publish(&self, seq: Seq, changes: &[Change]) {
        let mut state = self.write();
        assert!(seq > state.seq, "commits are published once and in order");
        let mut place = 0;
        for change in changes {
            state.apply(seq, &mut place, change);
        }
        if changes.iter().any(|change| matches!(change, Change::Agent(row) if row.revoked_at.is_some())) {
            self.revoked.send_replace(state.revoked());
        }
        state.seq = seq;
        drop(state);
        self.published.send_replace(seq);
    }

    /// Shows volatile progress.
    pub fn progress(&self, progress: &Progress) {
        let mut state = self.write();
        match progress {
            Progress::Agent { agent, state: shown } => {
                if state.agents.contains_key(agent) {
                    state.agent_states.insert(*agent, *shown);
                }
                let online = state.agent_states.values().filter(|state| **state == AgentState::Online).count();
                self.online.send_replace(online);
            }
            Progress::Attempt { build, .. } => {
                state.overlay.take(progress);
                if let Some(watchers) = state.watchers.get(build) {
                    let _nobody = watchers.send(Notice::Progress(progress.clone()));
                }
            }
        }
    }

    /// Forgets what was volatile of a build that has ended.
    pub fn retire(&self, build: BuildId) {
        self.write().overlay.forget(build);
    }

    /// The last commit that everybody may know of.
    #[must_use]
    pub fn published(&self) -> Seq {
        self.read().seq
    }

    /// All agents that are not gone, by id.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentView> {
        let state = self.read();
        state.agents.values().map(|row| state.agent_view(row)).collect()
    }

    /// One agent that is not gone.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<AgentView> {
        let state = self.read();
        state.agents.get(&id).map(|row| state.agent_view(row))
    }

    /// Waits until an agent is online.
    pub async fn agent_online(&self) {
        // The sender lives as long as this.
        let _open = self.online.subscribe().wait_for(|online| *online > 0).await.is_ok();
    }

    /// A digest of which agents are revoked, and whoever waits for another one.
    #[must_use]
    pub fn revoked(&self) -> latest::Receiver<Digest> {
        self.revoked.subscribe()
    }

    /// All secrets, by name, sealed.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretRow> {
        self.read().secrets.values().cloned().collect()
    }

    /// One secret, sealed.
    #[must_use]
    pub fn secret(&self, name: &SecretName) -> Option<SecretRow> {
        self.read().secrets.get(name).cloned()
    }

    /// All registered pipelines, by name.
    #[must_use]
    pub fn pipelines(&self) -> Vec<PipelineRow> {
        self.read().pipelines.values().cloned().collect()
    }

    /// One registered pipeline.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<PipelineRow> {
        self.read().pipelines.get(name).cloned()
    }

    /// A pipeline's schedules, by id.
    #[must_use]
    pub fn schedules(&self, pipeline: &str) -> Vec<ScheduleRow> {
        self.read().schedules.values().filter(|row| row.pipeline == pipeline).cloned().collect()
    }

    /// One schedule.
    #[must_use]
    pub fn schedule(&self, id: ScheduleId) -> Option<ScheduleRow> {
        self.read().schedules.get(&id).cloned()
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolRow> {
        self.read().pools.values().cloned().collect()
    }

    /// One pool.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<PoolRow> {
        self.read().pools.get(name).cloned()
    }

    /// All tokens, by id.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenRow> {
        self.read().tokens.values().cloned().collect()
    }

    /// One token; whether it still counts is the caller's to see.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<TokenRow> {
        self.read().tokens.get(&id).cloned()
    }

    /// From now on every notice of the build, beginning with the commit after the one returned.
    fn subscribe(&self, build: BuildId) -> (Seq, broadcast::Receiver<Notice>) {
        let mut state = self.write();
        state.watchers.retain(|_, watchers| watchers.receiver_count() > 0);
        let watchers = state.watchers.entry(build);
        let receiver = watchers.or_insert_with(|| broadcast::Sender::new(limits::WATCHER_BUFFER_MAX)).subscribe();
        (state.seq, receiver)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn revoked(&self) -> Digest {
        let ids = self.agents.values().filter(|row| row.revoked_at.is_some()).map(|row| row.id);
        Digest::of(&ids.flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>())
    }

    fn agent_view(&self, row: &AgentRow) -> AgentView {
        let state = self.agent_states.get(&row.id).copied().unwrap_or(AgentState::Joining);
        AgentView { row: row.clone(), state }
    }

    /// What a change means for what is shown. Builds, jobs and attempts are read from the store.
    fn apply(&mut self, seq: Seq, place: &mut u32, change: &Change) {
        match change {
            Change::Schedule(row) => drop(self.schedules.insert(row.id, (**row).clone())),
            Change::ScheduleOver(id) => drop(self.schedules.remove(id)),
            Change::Pipeline(row) => drop(self.pipelines.insert(row.name.clone(), (**row).clone())),
            Change::Pool(row) => drop(self.pools.insert(row.name.clone(), (**row).clone())),
            Change::Secret(row) => drop(self.secrets.insert(row.name.clone(), (**row).clone())),
            Change::SecretGone(name) => drop(self.secrets.remove(name)),
            Change::Token(row) => drop(self.tokens.insert(row.id, (**row).clone())),
            Change::TokenOver(id) => drop(self.tokens.remove(id)),
            Change::Agent(row) if row.gone.is_some() => {
                self.agents.remove(&row.id);
                self.agent_states.remove(&row.id);
            }
            Change::Agent(row) => drop(self.agents.insert(row.id, (**row).clone())),
            Change::Job(row) => self.overlay.job_changed(row),
            Change::Attempt(row) => self.overlay.attempt_changed(row),
            Change::Event(row) => {
                let event = StoredEvent { seq: EventSeq::new(seq, *place), row: row.clone() };
                *place += 1;
                if let Some(watchers) = self.watchers.get(&row.build) {
                    let _nobody = watchers.send(Notice::Event(event));
                }
            }
            Change::Meta(_)
            | Change::PipelineNumber { .. }
            | Change::Build(_)
            | Change::Pin(_)
            | Change::PinResult { .. }
            | Change::PinOver(_)
            | Change::Hold(_)
            | Change::HoldOver(_)
            | Change::Lineage(_)
            | Change::LineageOver(_)
            | Change::AnnotationText { .. }
            | Change::AnnotationGone(_)
            | Change::Cache(_)
            | Change::CacheGone(_)
            | Change::Reuse(_)
            | Change::ReuseOver(_)
            | Change::ReuseGone(_)
            | Change::ReuseGoneOver(_)
            | Change::Idempotency(_)
            | Change::Audit(_)
            | Change::Artifact(_)
            | Change::Notification(_)
            | Change::Definition { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
