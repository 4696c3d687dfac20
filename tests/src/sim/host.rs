//! An agent's machine in the simulation: the agent's process with the real core, its state directory, and the jobs'
//! supervisors, which outlive the process.

use std::collections::{BTreeMap, BTreeSet};

use windlass_agent_core::{AgentConfig, AgentCore, ConnId, Effect, Exit, Found, Input, Terms};
use windlass_protocol::job::{Epoch, Resources};
use windlass_protocol::message::AgentMessage;
use windlass_protocol::{AgentId, AttemptId, Cause, CauseKind, Digest, Instant64, TokenId, WallMs};

use super::coverage;
use super::network::Payload;
use super::runner::{Process, Record};
use super::world::{Event, JobStep, WALL_MS, World};

/// Log bytes in flight for one attempt.
const IN_FLIGHT: u64 = 600;

/// How many of a thousand records a starting agent cannot read.
const UNREADABLE: u64 = 50;

/// The most bytes of one chunk.
const CHUNK: u64 = 150;

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Its pool, by place in the workload's list.
    pub pool: usize,
    /// Its key; a machine that lost its state has another.
    pub key: Digest,
    /// By which token it joins.
    pub token: TokenId,
    /// Its identity, once it has joined.
    pub id: Option<AgentId>,
    /// Identities by connection, as their certificates say.
    identities: BTreeMap<u64, (AgentId, Digest)>,
    /// The agent's process.
    pub core: Option<AgentCore>,
    /// Which process.
    pub boot: u64,
    /// Which run of the machine.
    pub power: u64,
    /// Which dial of the process.
    pub dial: u64,
    /// The current connection.
    pub conn: Option<u64>,
    /// Its monotonic clock, ahead of the run's.
    clock_base: u64,
    /// Its wall clock, ahead of the run's.
    pub wall_ahead_ms: u64,
    /// Suspended until then: nothing on it runs.
    pub asleep_until: u64,
    /// Its state directory, and the supervisors beside it.
    pub records: BTreeMap<AttemptId, Record>,
    /// Slots.
    pub slots: u32,
    /// What it has.
    pub capacity: Resources,
    /// It left for good (or was refused for good) under this identity.
    pub left: Option<Exit>,
    /// The machine's disk is full.
    pub disk_full: bool,
    /// Agents that were started on it so far, for their seeds.
    pub once: bool,
}

impl Host {
    /// A machine that has not joined.
    #[must_use]
    pub fn new(pool: usize, key: Digest, token: TokenId, clock_base: u64, slots: u32) -> Self {
        Self {
            pool,
            key,
            token,
            id: None,
            identities: BTreeMap::new(),
            core: None,
            boot: 0,
            power: 0,
            dial: 0,
            conn: None,
            clock_base,
            wall_ahead_ms: clock_base % 700,
            asleep_until: 0,
            records: BTreeMap::new(),
            slots,
            capacity: Resources { cpu_millis: u64::from(slots) * 1_000, memory_bytes: 8 << 30 },
            left: None,
            disk_full: false,
            once: false,
        }
    }

    /// Its monotonic clock.
    #[must_use]
    pub const fn mono(&self, now: u64) -> u64 {
        self.clock_base + now
    }

    /// A time of its monotonic clock, on the run's.
    #[must_use]
    pub const fn on_run_clock(&self, mono: u64) -> u64 {
        mono.saturating_sub(self.clock_base)
    }

    /// Whether it is suspended.
    #[must_use]
    pub const fn is_asleep(&self, now: u64) -> bool {
        self.asleep_until > now
    }

    /// When its agent's core wants to be called, on the run's clock.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<u64> {
        if self.is_asleep(now) {
            return None;
        }
        Some(self.on_run_clock(self.core.as_ref()?.poll_timeout()?.0))
    }

    /// Whose certificate a connection was made with.
    #[must_use]
    pub fn id_on(&self, conn: u64) -> Option<AgentId> {
        self.identities.get(&conn).map(|(id, _)| *id)
    }

    /// The key of that certificate.
    #[must_use]
    pub fn key_on(&self, conn: u64) -> Digest {
        self.identities.get(&conn).map_or(self.key, |(_, key)| *key)
    }
}

impl World {
    /// The agent's process starts, if the machine has an identity; it takes up what it finds.
    pub fn start_agent(&mut self, index: usize) {
        let now = self.host_now(index);
        let asleep = self.hosts[index].is_asleep(self.now) || self.work.closing;
        let seed = self.random.number();
        let bugs = self.setup.agent_bugs;
        let host = &mut self.hosts[index];
        if host.core.is_some() || host.id.is_none() || host.left.is_some() || asleep {
            return;
        }
        host.boot += 1;
        let config = AgentConfig {
            name: format!("agent-{index}"),
            version: "0.1.0".to_owned(),
            machine_id: format!("machine-{index}"),
            boot_id: format!("run {} of machine {index}", host.power),
            slots: host.slots,
            capacity: host.capacity,
            tags: Vec::new(),
            runs_images: false,
            capabilities: Vec::new(),
            host: windlass_protocol::HostFacts::default(),
            once: host.once,
            seed,
            bugs,
        };
        // What was only being prepared ended with the process that prepared it.
        for record in host.records.values_mut().filter(|record| record.process == Process::Preparing) {
            record.process = Process::Gone;
        }
        let unreadable: BTreeSet<AttemptId> =
            host.records.keys().copied().filter(|_| self.random.thousandth(UNREADABLE)).collect();
        let found = host.records.iter().map(|(attempt, record)| Found {
            attempt: *attempt,
            terms: (!unreadable.contains(attempt)).then(|| Terms::from(record.job.as_ref())),
            epoch: record.epoch,
            phase: record.phase(),
            started_at: record.started_at,
            outcome: record.outcome.clone(),
            deadline: record.deadline.map(Instant64),
            spool_start: record.spool_start,
            spool_end: record.spool.len() as u64,
        });
        let core = AgentCore::new(now, config, found.collect());
        host.core = Some(core);
        let disk_full = host.disk_full;
        self.absorb_agent(index);
        self.sample_health(index, disk_full);
    }

    /// The agent's process is gone; its state directory and the supervisors stay.
    pub fn crash_agent(&mut self, index: usize) {
        if self.hosts[index].core.take().is_none() {
            return;
        }
        self.hosts[index].boot += 1;
        if let Some(conn) = self.hosts[index].conn.take() {
            self.close_agent_side(conn);
        }
    }

    /// The machine loses its power: everything on it ends, and of what was not synced anything may be gone.
    pub fn cut_power(&mut self, index: usize) {
        self.crash_agent(index);
        self.hosts[index].power += 1;
        let at = WallMs(WALL_MS + self.now + self.hosts[index].wall_ahead_ms);
        let attempts: Vec<AttemptId> = self.hosts[index].records.keys().copied().collect();
        for attempt in attempts {
            self.oracle.process_ended(index, attempt);
            let is_lost = self.random.thousandth(500);
            let records = &mut self.hosts[index].records;
            if is_lost {
                records.remove(&attempt);
            } else if let Some(record) = records.get_mut(&attempt).filter(|record| record.outcome.is_none()) {
                // Whether its command had started is not known either: it is taken for one that had.
                record.started_at = record.started_at.or(Some(at));
                record.end(at, None, None, Some(Cause::new(CauseKind::Internal, "the machine started anew")));
            }
        }
    }

    /// The machine is gone with everything on it; another with its name comes in its place.
    pub fn wipe_host(&mut self, index: usize) {
        self.crash_agent(index);
        let attempts: Vec<AttemptId> = self.hosts[index].records.keys().copied().collect();
        for attempt in attempts {
            self.oracle.process_ended(index, attempt);
        }
        let key = Digest::of(&self.random.number().to_le_bytes());
        let host = &mut self.hosts[index];
        host.records.clear();
        (host.key, host.id, host.left) = (key, None, None);
    }

    /// Hands an input to an agent's core, if that process still lives.
    pub fn tell_agent(&mut self, index: usize, boot: u64, input: Input) {
        let now = self.host_now(index);
        let asleep = self.hosts[index].is_asleep(self.now);
        let host = &mut self.hosts[index];
        if host.boot != boot || asleep {
            return;
        }
        let Some(core) = &mut host.core else { return };
        self.coverage.reach(coverage::agent_input(&input));
        if let Err(rejected) = core.handle(now, input) {
            self.coverage.reach(coverage::agent_rejected(&rejected));
        }
        self.absorb_agent(index);
    }

    /// The same, to whatever process runs there.
    pub fn tell_host(&mut self, index: usize, input: Input) {
        let boot = self.hosts[index].boot;
        self.tell_agent(index, boot, input);
    }

    pub(super) fn host_timer(&mut self, index: usize) {
        let now = self.host_now(index);
        if let Some(core) = &mut self.hosts[index].core {
            core.handle_timeout(now);
        }
        self.absorb_agent(index);
    }

    fn absorb_agent(&mut self, index: usize) {
        while let Some(effect) = self.hosts[index].core.as_mut().and_then(AgentCore::poll_effect) {
            self.coverage.reach(coverage::agent_effect(&effect));
            self.note(|| format!("agent {index}: {effect:?}"));
            self.do_effect(index, effect);
        }
        if let Some(core) = &self.hosts[index].core {
            for (_, _, stage) in core.held() {
                self.coverage.reach(coverage::stage(stage));
            }
        }
    }

    fn do_effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Say { conn, message } => {
                self.oracle.said(self.hosts[index].id, &message);
                self.say(index, conn, *message);
            }
            Effect::Prepare { epoch, job, .. } => self.prepare(index, epoch, job),
            Effect::Start { attempt, start_before, .. } => self.start_job(index, attempt, start_before.0),
            Effect::Adopt { attempt, epoch } => {
                if let Some(record) = self.hosts[index].records.get_mut(&attempt) {
                    record.epoch = epoch;
                }
            }
            Effect::Cancel { attempt, grace_ms, .. } => self.cancel_job(index, attempt, grace_ms),
            Effect::Kill { attempt } => self.kill_job(index, attempt),
            Effect::RenewLease { attempt, deadline } => self.renew_deadline(index, attempt, deadline.0),
            Effect::SendLog { conn, attempt, epoch, from_offset } => {
                if let Some(conn) = self.network.conns.get_mut(&conn.0) {
                    conn.streams.insert(attempt, (epoch, from_offset));
                }
                self.send_log(index, attempt);
            }
            Effect::StopLog { attempt } => {
                let conn = self.hosts[index].conn;
                if let Some(conn) = conn.and_then(|conn| self.network.conns.get_mut(&conn)) {
                    conn.streams.remove(&attempt);
                }
            }
            Effect::TrimLog { attempt, below } => self.trim_log(index, attempt, below),
            Effect::ForgetAttempt { attempt } => self.forget_attempt(index, attempt),
            Effect::InstallCertificate { .. } => {}
            Effect::Reconnect { after_ms, .. } => self.redial(index, after_ms),
            Effect::Leave { exit } => {
                self.coverage.reach(coverage::exit(exit));
                // Whatever still comes to one that has left is refused.
                self.tell_host(index, Input::CertificateDue { csr: Vec::new() });
                self.crash_agent(index);
                self.hosts[index].left = Some(exit);
            }
        }
    }

    fn say(&mut self, index: usize, conn: ConnId, message: AgentMessage) {
        let open = self.network.conns.get(&conn.0).is_some_and(|state| state.agent_open && state.host == index);
        if open {
            self.send(conn.0, Payload::Up(Box::new(message)));
        }
    }

    fn redial(&mut self, index: usize, after_ms: u64) {
        if let Some(conn) = self.hosts[index].conn.take() {
            self.close_agent_side(conn);
        }
        let host = &mut self.hosts[index];
        host.dial += 1;
        let (boot, dial) = (host.boot, host.dial);
        let handshake = 2 * self.network.links[index].latency_ms + 5;
        self.after(after_ms + handshake, Event::Dialled { host: index, boot, dial });
    }

    pub(super) fn dialled(&mut self, index: usize, boot: u64, dial: u64) {
        let host = &self.hosts[index];
        if host.boot != boot || host.dial != dial || host.core.is_none() {
            return;
        }
        if host.is_asleep(self.now) {
            let wait = host.asleep_until - self.now + 1;
            self.after(wait, Event::Dialled { host: index, boot, dial });
            return;
        }
        let link = &self.network.links[index];
        let blocked = link.up_blocked_until > self.now || link.down_blocked_until > self.now;
        let generation = self.coordinator.generation;
        let conn = self.network.open(index, boot, generation);
        if blocked || !self.coordinator.is_up() {
            self.network.conns.remove(&conn);
            self.tell_agent(index, boot, Input::ConnectionLost { conn: ConnId(conn) });
            return;
        }
        let host = &mut self.hosts[index];
        host.conn = Some(conn);
        if let Some(id) = host.id {
            host.identities.insert(conn, (id, host.key));
        }
        self.tell_agent(index, boot, Input::Connected { conn: ConnId(conn) });
    }

    /// Sends what the spool has and the window allows.
    pub fn send_log(&mut self, index: usize, attempt: AttemptId) {
        let Some(number) = self.hosts[index].conn else { return };
        loop {
            let Some(record) = self.hosts[index].records.get(&attempt) else { return };
            let Some(conn) = self.network.conns.get_mut(&number) else { return };
            let Some((epoch, next)) = conn.streams.get_mut(&attempt) else { return };
            let (from, end) = (*next, record.spool.len() as u64);
            if from < record.spool_start {
                let start = record.spool_start;
                self.violate("I4", format!("attempt {attempt}: byte {from} is wanted, the spool begins at {start}"));
                return;
            }
            let to = end.min(from + CHUNK).min(record.spool_start + IN_FLIGHT);
            if to <= from {
                return;
            }
            *next = to;
            let epoch: Epoch = *epoch;
            let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
            let bytes = record.spool.get(range).unwrap_or_default().to_vec();
            self.send(number, Payload::Chunk { attempt, epoch, offset: from, bytes });
        }
    }

    fn trim_log(&mut self, index: usize, attempt: AttemptId, below: u64) {
        let durable = self.logs.durable_end(attempt);
        if below > durable {
            self.violate(
                "I4",
                format!("attempt {attempt}: the agent drops bytes below {below}, durable are {durable}"),
            );
        }
        if let Some(record) = self.hosts[index].records.get_mut(&attempt) {
            record.spool_start = record.spool_start.max(below);
        }
        self.send_log(index, attempt);
    }

    fn forget_attempt(&mut self, index: usize, attempt: AttemptId) {
        let running = self.hosts[index].records.get(&attempt).map(|record| record.process);
        if matches!(running, Some(Process::Running | Process::Starting { .. })) {
            self.violate("I3", format!("attempt {attempt}: agent {index} forgets what still runs"));
        }
        self.hosts[index].records.remove(&attempt);
    }

    /// A machine that was suspended goes on: first its supervisors, then its agent.
    pub(super) fn wake(&mut self, index: usize) {
        if self.hosts[index].is_asleep(self.now) {
            return;
        }
        let records: Vec<_> =
            self.hosts[index].records.iter().map(|(attempt, record)| (*attempt, record.run)).collect();
        for (attempt, run) in records {
            self.job_step(index, attempt, run, JobStep::Deadline);
        }
        self.oracle.woke(index);
        if let Err((invariant, detail)) = self.oracle.exclusive_run_alone(&self.store) {
            self.violate(invariant, detail);
        }
    }
}
