//! What breaks, and how it is mended at the end.

use windlass_agent_core::{Exit, Input, Signal};
use windlass_coordinator_core::Request;
use windlass_coordinator_core::row::AttemptRow;
use windlass_protocol::job::{Epoch, Outcome};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage};
use windlass_protocol::{Digest, WallMs};

use super::network::Payload;
use super::runner::Process;
use super::workload::{Action, Asked, MEND_MS, pools};
use super::world::{Event, World};

impl World {
    /// Something breaks, and the next thing will in a while.
    pub(super) fn trouble(&mut self) {
        if !self.troubled {
            return;
        }
        let host = self.random.place(self.hosts.len());
        match self.random.below(31) {
            0..=2 => self.trouble_coordinator(),
            3..=5 => self.trouble_agent(host),
            6 => self.trouble_wipe(host),
            7..=9 => self.trouble_partition(host),
            10 => self.trouble_zone(),
            11..=14 => self.trouble_connection(host),
            15..=16 => self.trouble_suspend(host),
            17..=18 => {
                self.coordinator.commit_fails = true;
            }
            19 => {
                self.coverage.reach("fault.slow_store");
                self.coordinator.slow_ms =
                    if self.coordinator.slow_ms == 0 { self.random.between(100, 3_000) } else { 0 };
            }
            20..=21 => {
                self.coverage.reach("fault.slow_link");
                let slow = self.network.links[host].latency_ms > 100;
                self.network.links[host].latency_ms =
                    if slow { self.random.between(1, 40) } else { self.random.between(200, 3_000) };
            }
            22..=23 => self.trouble_signal(host),
            24 => {
                self.coverage.reach("fault.disk_full");
                let full = !self.hosts[host].disk_full;
                self.sample_health(host, full);
            }
            25 => self.tell_host(host, Input::CertificateDue { csr: vec![1] }),
            26 => self.trouble_cut_off(host),
            27..=28 => self.trouble_power(host),
            _ => self.trouble_forge(host),
        }
        let next = self.random.between(300, 14_000);
        if self.now + next < MEND_MS {
            self.after(next, Event::Trouble);
        }
    }

    fn trouble_coordinator(&mut self) {
        if self.coordinator.is_up() {
            self.coverage.reach("fault.coordinator_crash");
            self.crash_coordinator();
            let down = if self.random.thousandth(200) {
                self.random.between(20_000, 90_000)
            } else {
                self.random.between(50, 8_000)
            };
            self.after(down, Event::CoordinatorStarts);
        }
    }

    fn trouble_agent(&mut self, host: usize) {
        if self.hosts[host].core.is_some() {
            self.coverage.reach("fault.agent_crash");
            self.crash_agent(host);
            let down = if self.random.thousandth(250) {
                self.random.between(10_000, 60_000)
            } else {
                self.random.between(20, 4_000)
            };
            self.after(down, Event::AgentStarts { host });
        }
    }

    fn trouble_power(&mut self, host: usize) {
        if self.hosts[host].is_asleep(self.now) {
            return;
        }
        self.coverage.reach("fault.power_cut");
        self.cut_power(host);
        let down = self.random.between(500, 40_000);
        self.after(down, Event::AgentStarts { host });
    }

    fn trouble_wipe(&mut self, host: usize) {
        self.coverage.reach("fault.host_wiped");
        self.wipe_host(host);
        let ms = self.random.between(100, 10_000);
        self.after(ms, Event::Act(Box::new(Action::Join(host))));
    }

    fn outage_ms(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.between(20_000, 80_000),
            _ => self.random.between(200, 15_000),
        }
    }

    fn trouble_partition(&mut self, host: usize) {
        self.coverage.reach("fault.partition");
        let (up, down) = match self.random.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let ms = self.outage_ms();
        self.block(host, up, down, ms);
    }

    /// A whole zone loses its link.
    fn trouble_zone(&mut self) {
        self.coverage.reach("fault.zone_partition");
        let pools = pools();
        let zone = if self.random.thousandth(500) { "east" } else { "west" };
        let ms = self.outage_ms();
        for host in 0..self.hosts.len() {
            if pools[self.hosts[host].pool].zone == zone {
                self.block(host, true, true, ms);
            }
        }
    }

    fn trouble_connection(&mut self, host: usize) {
        self.coverage.reach("fault.connection_broken");
        let within = if self.random.thousandth(300) { 15_000 } else { 300 };
        for conn in self.open_conns(host) {
            self.break_conn(conn, within);
        }
    }

    /// The machine sleeps: its jobs do, too, and its clock goes on.
    fn trouble_suspend(&mut self, host: usize) {
        if self.hosts[host].is_asleep(self.now) {
            return;
        }
        self.coverage.reach("fault.suspend");
        let ms = self.outage_ms();
        self.hosts[host].asleep_until = self.now + ms;
        self.oracle.fell_asleep(host);
        self.after(ms, Event::Wakes { host });
        if ms > 15_000 {
            for conn in self.open_conns(host) {
                self.break_conn(conn, ms);
            }
        }
    }

    /// An agent that nobody can reach is revoked: its jobs are given away while they still run.
    fn trouble_cut_off(&mut self, host: usize) {
        self.coverage.reach("fault.cut_off");
        let ms = self.random.between(5_000, 40_000);
        self.block(host, true, true, ms);
        if let Some(agent) = self.hosts[host].id.filter(|_| self.coordinator.is_up()) {
            self.ask(Request::RevokeAgent { agent }, Asked::Once(None));
        }
    }

    /// An agent claims a result that it has no right to: another's, or by a right that is past or was never given.
    fn trouble_forge(&mut self, host: usize) {
        let leased = |row: &&AttemptRow| !row.state.is_final();
        let rows: Vec<_> = self.store.rows.attempts.values().filter(leased).map(|row| (row.id, row.epoch)).collect();
        self.trouble_agents_belief(host);
        let (Some((attempt, epoch)), Some(conn)) = (self.random.pick(&rows), self.hosts[host].conn) else { return };
        let mine = self.hosts[host].id == self.store.rows.attempts.get(&attempt).map(|row| row.agent);
        let past = self.random.thousandth(500) || mine;
        let epoch = if past { Epoch(epoch.0.saturating_sub(1)) } else { epoch };
        self.coverage.reach("fault.forged_result");
        let outcome = Outcome {
            exit_status: Some(0),
            signal: None,
            cause: None,
            started_at: None,
            finished_at: WallMs(0),
            log_bytes: 0,
            log_digest: Digest::of(b""),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        self.send(conn, Payload::Up(Box::new(AgentMessage::Finished { attempt, epoch, outcome })));
    }

    /// An agent is told what cannot be: that bytes are durable which were never written, that what runs is prepared.
    fn trouble_agents_belief(&mut self, host: usize) {
        let held: Vec<_> =
            self.hosts[host].records.iter().map(|(attempt, record)| (*attempt, record.process)).collect();
        let Some((attempt, process)) = self.random.pick(&held) else { return };
        if let Some(conn) = self.hosts[host].conn {
            let message = CoordinatorMessage::LogAck { attempt, offset: 1 << 40 };
            self.send(conn, Payload::Down(message));
        }
        if process == Process::Running {
            self.tell_host(host, Input::Prepared { attempt });
        }
    }

    fn trouble_signal(&mut self, host: usize) {
        self.coverage.reach("fault.signal");
        let signal = match self.random.below(4) {
            0 => Signal::Quit,
            1 => Signal::Int,
            _ => Signal::Term,
        };
        for _ in 0..self.random.between(1, 3) {
            self.tell_host(host, Input::Signal(signal));
        }
        let ms = self.random.between(1_000, 40_000);
        self.after(ms, Event::Act(Box::new(Action::Revive(host))));
    }

    /// An agent that left is started again; one that was refused for good comes back as another.
    pub(super) fn revive(&mut self, host: usize) {
        match self.hosts[host].left {
            Some(Exit::Refused(_)) => {
                self.wipe_host(host);
                self.after(10, Event::Act(Box::new(Action::Join(host))));
            }
            Some(Exit::Drained | Exit::Quit) => {
                self.hosts[host].left = None;
                self.hosts[host].once = false;
                self.after(1, Event::AgentStarts { host });
            }
            None => {}
        }
    }

    /// Nothing breaks any more, and what is broken is mended.
    pub(super) fn mend(&mut self) {
        self.troubled = false;
        self.coordinator.commit_fails = false;
        self.coordinator.slow_ms = 0;
        self.start_coordinator();
        for host in 0..self.hosts.len() {
            let link = &mut self.network.links[host];
            (link.up_blocked_until, link.down_blocked_until, link.latency_ms) = (0, 0, 10);
            self.hosts[host].asleep_until = 0;
            self.healed(host);
            self.wake(host);
            self.after(20, Event::AgentStarts { host });
        }
        self.after(1_000, Event::Act(Box::new(Action::Care)));
    }

    /// Somebody looks after the fleet until everything has ended: every agent is up, joined and takes work.
    pub(super) fn care(&mut self) {
        if self.only_the_hopeless_wait() {
            // Nobody will ever serve what is left: the fleet goes home, and time passes until it expires.
            self.work.closing = true;
            for host in 0..self.hosts.len() {
                self.tell_host(host, Input::Signal(Signal::Term));
            }
            return;
        }
        self.open_gates(true);
        for host in 0..self.hosts.len() {
            self.revive(host);
            self.sample_health(host, false);
            match self.hosts[host].id {
                None => self.after(1, Event::Act(Box::new(Action::Join(host)))),
                Some(agent) => {
                    self.after(1, Event::AgentStarts { host });
                    let row = self.store.rows.agents.get(&agent);
                    if row.is_some_and(|row| row.draining && row.gone.is_none() && row.revoked_at.is_none()) {
                        self.ask(Request::ResumeAgent { agent }, Asked::Once(None));
                    }
                }
            }
        }
        self.after(10_000, Event::Act(Box::new(Action::Care)));
    }
}
