//! How parcels move: sending, holding back, arriving, and what the two ends learn of a connection's end.

use windlass_agent_core as agent;
use windlass_coordinator_core::Input;
use windlass_coordinator_core::input::{AgentEvent, ConnId};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage};

use super::network::{Parcel, Payload, Way};
use super::world::{Event, World};

/// A connection over which nothing comes for so long is over (QUIC's idle timeout).
const IDLE_MS: u64 = 15_000;

impl World {
    /// Puts something on a connection; it may never arrive.
    pub fn send(&mut self, conn: u64, payload: Payload) {
        let way = payload.way();
        let Some(state) = self.network.conns.get_mut(&conn) else { return };
        let host = state.host;
        if state.broken {
            if self.troubled && self.random.thousandth(200) {
                self.send_ghost(conn, payload);
            }
            return;
        }
        if self.troubled && self.random.thousandth(5) {
            self.send_ghost(conn, payload.clone());
        }
        let parcel = Parcel { conn, payload, ghost: false };
        // What is sent in the very moment in which a partition ends does not overtake what it held back.
        let behind = self
            .network
            .conns
            .get(&conn)
            .is_some_and(|state| state.stuck.iter().any(|parcel| parcel.payload.way() == way));
        if behind || self.network.links[host].blocked(way, self.now) {
            if let Some(state) = self.network.conns.get_mut(&conn) {
                state.stuck.push(parcel);
            }
            return;
        }
        self.put_on_wire(parcel);
    }

    /// A copy that comes when its connection is over.
    fn send_ghost(&mut self, conn: u64, payload: Payload) {
        let late = self.random.between(100, 60_000);
        self.after(late, Event::Arrived(Parcel { conn, payload, ghost: true }));
    }

    fn put_on_wire(&mut self, parcel: Parcel) {
        let stream = match &parcel.payload {
            Payload::Chunk { attempt, .. } => Some(*attempt),
            Payload::Up(_) | Payload::Down(_) => None,
        };
        let way = parcel.payload.way();
        let jitter = self.random.between(0, 8);
        let Some(state) = self.network.conns.get_mut(&parcel.conn) else { return };
        let at = self.now + self.network.links[state.host].latency_ms + jitter;
        let order = state.order.entry((way, stream)).or_insert(0);
        *order = at.max(*order);
        let wait = order.saturating_sub(self.now);
        self.after(wait, Event::Arrived(parcel));
    }

    /// A partition may be over: what it held back goes on.
    pub fn healed(&mut self, host: usize) {
        let now = self.now;
        let mut freed = Vec::new();
        for state in self.network.conns.values_mut().filter(|state| state.host == host) {
            let link = &self.network.links[host];
            let (go, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut state.stuck)
                .into_iter()
                .partition(|parcel| !link.blocked(parcel.payload.way(), now));
            state.stuck = stay;
            if !state.broken {
                freed.extend(go);
            }
        }
        for parcel in freed {
            self.put_on_wire(parcel);
        }
    }

    /// A host's link is blocked for a while; connections that it outlasts end, at each side in its own time.
    pub fn block(&mut self, host: usize, up: bool, down: bool, ms: u64) {
        let until = self.now + ms;
        let link = &mut self.network.links[host];
        if up {
            link.up_blocked_until = link.up_blocked_until.max(until);
        }
        if down {
            link.down_blocked_until = link.down_blocked_until.max(until);
        }
        self.after(ms, Event::Healed { host });
        if ms > IDLE_MS {
            let open: Vec<u64> = self.open_conns(host);
            for conn in open {
                self.break_conn(conn, IDLE_MS);
            }
        }
    }

    /// A host's connections that still carry something.
    #[must_use]
    pub fn open_conns(&self, host: usize) -> Vec<u64> {
        let conns = self.network.conns.iter();
        conns.filter(|(_, state)| state.host == host && !state.broken).map(|(conn, _)| *conn).collect()
    }

    /// A connection carries nothing from now on; its ends learn of it within a while.
    pub fn break_conn(&mut self, conn: u64, within_ms: u64) {
        let (first, second) = (self.random.between(1, within_ms.max(1)), self.random.between(1, within_ms.max(1)));
        let Some(state) = self.network.conns.get_mut(&conn) else { return };
        if std::mem::replace(&mut state.broken, true) {
            return;
        }
        let stuck = std::mem::take(&mut state.stuck);
        self.after(first, Event::AgentSeesEnd(conn));
        self.after(second, Event::CoordinatorSeesEnd(conn));
        for parcel in stuck {
            if self.random.thousandth(300) {
                self.send_ghost(conn, parcel.payload);
            }
        }
    }

    /// The agent's side gives a connection up.
    pub fn close_agent_side(&mut self, conn: u64) {
        if let Some(state) = self.network.conns.get_mut(&conn) {
            state.agent_open = false;
            state.streams.clear();
        }
        self.break_conn(conn, 2_000);
    }

    pub(super) fn agent_sees_end(&mut self, conn: u64) {
        let Some(state) = self.network.conns.get_mut(&conn) else { return };
        state.streams.clear();
        if std::mem::replace(&mut state.agent_open, false) {
            let (host, boot) = (state.host, state.boot);
            let input = agent::Input::ConnectionLost { conn: agent::ConnId(conn) };
            self.tell_agent(host, boot, input);
        }
        self.forget_old_conns();
    }

    pub(super) fn coordinator_sees_end(&mut self, conn: u64) {
        let Some(state) = self.network.conns.get_mut(&conn) else { return };
        let generation = state.generation;
        if std::mem::replace(&mut state.coordinator_open, false) && generation == self.coordinator.generation {
            let detail = if self.random.thousandth(500) { "connection_lost" } else { "connection_closed" };
            if let Some(agent) = self.coordinator.said_hello.remove(&conn) {
                self.feed(Input::AgentGone { agent, conn: ConnId(conn), detail: detail.to_owned() });
            }
        }
        self.forget_old_conns();
    }

    /// Connections that both sides have given up stay for a while, for what comes late.
    fn forget_old_conns(&mut self) {
        while self.network.conns.len() > 64 {
            let over = |state: &super::network::Conn| !state.agent_open && !state.coordinator_open;
            let Some(oldest) = self.network.conns.iter().find(|(_, state)| over(state)).map(|(conn, _)| *conn) else {
                return;
            };
            self.network.conns.remove(&oldest);
        }
    }

    pub(super) fn arrived(&mut self, parcel: Parcel) {
        let Some(state) = self.network.conns.get(&parcel.conn) else { return };
        let (host, boot, generation) = (state.host, state.boot, state.generation);
        let open = match parcel.payload.way() {
            Way::Up => state.coordinator_open,
            Way::Down => state.agent_open,
        };
        if parcel.ghost && open {
            return;
        }
        match parcel.payload {
            Payload::Down(message) => {
                if self.hosts[host].is_asleep(self.now) {
                    let wait = self.hosts[host].asleep_until - self.now + 1;
                    let payload = Payload::Down(message);
                    self.after(wait, Event::Arrived(Parcel { payload, ..parcel }));
                    return;
                }
                self.coverage.reach(super::coverage::coordinator_message(&message));
                self.tell_agent(host, boot, agent::Input::Message { conn: agent::ConnId(parcel.conn), message });
            }
            Payload::Up(message) if generation == self.coordinator.generation && self.coordinator.is_up() => {
                self.coverage.reach(super::coverage::agent_message(&message));
                self.hear(host, parcel.conn, *message);
            }
            Payload::Chunk { attempt, epoch, offset, bytes } => {
                if open && generation == self.coordinator.generation && self.coordinator.is_up() {
                    self.chunk_arrived(parcel.conn, attempt, epoch, offset, &bytes);
                }
            }
            Payload::Up(_) => {}
        }
    }

    /// The coordinator's shell hears an agent.
    fn hear(&mut self, host: usize, conn: u64, message: AgentMessage) {
        let Some(id) = self.hosts[host].id_on(conn) else { return };
        let key = self.hosts[host].key_on(conn);
        let number = ConnId(conn);
        let event = match message {
            AgentMessage::Hello(hello) => {
                self.coordinator.said_hello.insert(conn, id);
                self.feed(Input::AgentHello { agent: id, key, conn: number, hello: Box::new(hello) });
                return;
            }
            AgentMessage::Beat { seq, health, held } => AgentEvent::Beat { seq, health, held },
            AgentMessage::Accepted { attempt, epoch } => AgentEvent::Accepted(attempt, epoch),
            AgentMessage::Refused { attempt, epoch, cause } => AgentEvent::Refused(attempt, epoch, cause),
            AgentMessage::Started { attempt, epoch, at } => AgentEvent::Started(attempt, epoch, at),
            AgentMessage::Finished { attempt, epoch, outcome } => {
                AgentEvent::Finished(attempt, epoch, Box::new(outcome))
            }
            AgentMessage::Stopped { attempt, epoch } => AgentEvent::Stopped(attempt, epoch),
            AgentMessage::Draining => AgentEvent::Draining,
            AgentMessage::Resumed => AgentEvent::Resumed,
            AgentMessage::Goodbye { reason } => AgentEvent::Goodbye { reason },
            AgentMessage::Renew { .. } => {
                // The shell's own business: the core is not asked.
                let chain = vec![vec![0]];
                self.send(conn, Payload::Down(CoordinatorMessage::Certificate { chain }));
                return;
            }
        };
        self.feed(Input::Agent { agent: id, conn: number, event });
    }
}
