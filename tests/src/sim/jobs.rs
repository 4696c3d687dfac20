//! What jobs do on their hosts: they are prepared, start, write, end, are canceled and killed.

use windlass_agent_core::Input;
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::message::{CacheUse, Health};
use windlass_protocol::stock::{Fetched, InputName, Stocked};
use windlass_protocol::{AttemptId, Cause, CauseKind, Digest, WallMs};

use super::runner::{Plan, Process, Record};
use super::world::{Event, JobStep, WALL_MS, World};

impl World {
    pub(super) fn prepare(&mut self, host: usize, epoch: Epoch, job: Box<JobSpec>) {
        let attempt = job.attempt;
        let mut plan = Plan::new(&mut self.random);
        if !self.troubled {
            (plan.prepare_ms, plan.prepare_fails) = (plan.prepare_ms.or(Some(50)), None);
        }
        let (prepare_ms, fails) = (plan.prepare_ms, plan.prepare_fails);
        self.runs += 1;
        self.hosts[host].records.insert(attempt, Record::new(self.runs, job, epoch, plan));
        if let Some(ms) = prepare_ms {
            self.job_later(host, attempt, ms, fails.map_or(JobStep::Prepared, JobStep::Unprepared));
        }
    }

    fn job_later(&mut self, host: usize, attempt: AttemptId, ms: u64, step: JobStep) {
        let run = self.hosts[host].records.get(&attempt).map_or(0, |record| record.run);
        self.after(ms, Event::Job { host, attempt, run, step });
    }

    pub(super) fn start_job(&mut self, host: usize, attempt: AttemptId, before: u64) {
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        record.process = Process::Starting { before };
        record.deadline = record.job.exclusive.then_some(before);
        let ms = self.random.between(1, 40);
        self.job_later(host, attempt, ms, JobStep::Begins);
    }

    pub(super) fn renew_deadline(&mut self, host: usize, attempt: AttemptId, deadline: u64) {
        let (now, at) = (self.now, self.hosts[host].on_run_clock(deadline));
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        record.deadline = Some(record.deadline.map_or(deadline, |old| old.max(deadline)));
        self.job_later(host, attempt, at.saturating_sub(now), JobStep::Deadline);
    }

    pub(super) fn cancel_job(&mut self, host: usize, attempt: AttemptId, grace_ms: u64) {
        let Some(record) = self.hosts[host].records.get(&attempt) else { return };
        let polite = match record.process {
            Process::Preparing | Process::Gone => 1,
            Process::Starting { .. } | Process::Running => record.plan.polite_ms.unwrap_or(u64::MAX).min(grace_ms + 20),
        };
        let wait = self.stubborn_ms(host, attempt).max(polite + 1);
        self.job_later(host, attempt, wait, JobStep::EndsPolitely);
    }

    pub(super) fn kill_job(&mut self, host: usize, attempt: AttemptId) {
        let ms = self.random.between(1, 60);
        let wait = self.stubborn_ms(host, attempt).max(ms);
        self.job_later(host, attempt, wait, JobStep::Killed);
    }

    /// Some jobs cannot be ended for a while, whatever is done.
    fn stubborn_ms(&mut self, host: usize, attempt: AttemptId) -> u64 {
        let stubborn = self.troubled && self.random.thousandth(50);
        let now = self.now;
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return 0 };
        if stubborn && record.stubborn_until == 0 {
            record.stubborn_until = now + self.random.between(5_000, 90_000);
        }
        record.stubborn_until.saturating_sub(now)
    }

    pub(super) fn job_step(&mut self, host: usize, attempt: AttemptId, run: u64, step: JobStep) {
        if self.hosts[host].is_asleep(self.now) {
            let wait = self.hosts[host].asleep_until - self.now + 1;
            self.after(wait, Event::Job { host, attempt, run, step });
            return;
        }
        let Some(record) = self.hosts[host].records.get(&attempt).filter(|record| record.run == run) else { return };
        let process = record.process;
        match (step, process) {
            (JobStep::Prepared, Process::Preparing) => self.tell_host(host, Input::Prepared { attempt }),
            (JobStep::Unprepared(kind), Process::Preparing) => {
                self.end_job(host, attempt, None, None, Some(Cause::new(kind, "it could not be made ready")));
            }
            (JobStep::Begins, Process::Starting { before }) => self.begin_job(host, attempt, before),
            (JobStep::Writes, Process::Running) => self.write_output(host, attempt),
            (JobStep::Ends, Process::Running) => {
                let plan = record.plan.clone();
                let cause = plan.cause.map(|kind| Cause::new(kind, "the memory limit ended it"));
                self.end_job(host, attempt, plan.exit_status, plan.signal, cause);
            }
            (JobStep::EndsPolitely, Process::Preparing | Process::Starting { .. }) => {
                self.end_job(host, attempt, None, None, None);
            }
            (JobStep::EndsPolitely, Process::Running) => self.end_job(host, attempt, None, Some(15), None),
            (JobStep::Killed, _) => self.killed(host, attempt),
            (JobStep::Deadline, Process::Running | Process::Starting { .. }) => self.deadline(host, attempt),
            _ => {}
        }
    }

    fn begin_job(&mut self, host: usize, attempt: AttemptId, before: u64) {
        if self.hosts[host].mono(self.now) >= before {
            let cause = Cause::new(CauseKind::LeaseLost, "its right ended before it started");
            self.end_job(host, attempt, None, None, Some(cause));
            return;
        }
        let at = WallMs(WALL_MS + self.now + self.hosts[host].wall_ahead_ms);
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        record.process = Process::Running;
        record.started_at = Some(at);
        let (plan, exclusive, job) = (record.plan.clone(), record.job.exclusive, record.job.clone());
        let agent = self.hosts[host].id;
        if let Err((invariant, detail)) = self.oracle.process_started(host, agent, &job, &self.store) {
            self.violate(invariant, detail);
        }
        if exclusive {
            self.renew_deadline(host, attempt, before);
        }
        for _ in 0..plan.outputs {
            let ms = self.random.below(plan.run_ms.max(1));
            self.job_later(host, attempt, ms, JobStep::Writes);
        }
        self.job_later(host, attempt, plan.run_ms, JobStep::Ends);
        self.tell_host(host, Input::Started { attempt, at });
    }

    fn write_output(&mut self, host: usize, attempt: AttemptId) {
        let len = self.random.between(1, 120);
        let bytes: Vec<u8> = (0..len).map(|_| self.random.number().to_le_bytes()[0]).collect();
        self.oracle.wrote(attempt, &bytes);
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        record.spool.extend_from_slice(&bytes);
        let end = record.spool.len() as u64;
        self.tell_host(host, Input::SpoolAt { attempt, end });
        self.send_log(host, attempt);
    }

    fn end_job(
        &mut self,
        host: usize,
        attempt: AttemptId,
        exit_status: Option<i32>,
        signal: Option<i32>,
        cause: Option<Cause>,
    ) {
        let at = WallMs(WALL_MS + self.now + self.hosts[host].wall_ahead_ms);
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        let outcome = record.end(at, exit_status, signal, cause);
        self.oracle.process_ended(host, attempt);
        self.tell_host(host, Input::Ended { attempt, outcome: Box::new(outcome) });
    }

    fn killed(&mut self, host: usize, attempt: AttemptId) {
        let at = WallMs(WALL_MS + self.now);
        let Some(record) = self.hosts[host].records.get_mut(&attempt) else { return };
        if record.outcome.is_none() && record.process != Process::Preparing {
            let cause = Cause::new(CauseKind::LeaseLost, "it was killed, and nothing is reported");
            record.end(at, None, Some(9), Some(cause));
        }
        record.process = Process::Gone;
        self.oracle.process_ended(host, attempt);
        self.tell_host(host, Input::RunnerGone { attempt });
    }

    /// The supervisor of an exclusive job ends it with its right, whatever the agent does.
    fn deadline(&mut self, host: usize, attempt: AttemptId) {
        let mono = self.hosts[host].mono(self.now);
        let due = self.hosts[host]
            .records
            .get(&attempt)
            .is_some_and(|record| record.job.exclusive && record.deadline.is_some_and(|deadline| deadline <= mono));
        if due && !self.setup.agent_bugs.outlives_right {
            let cause = Cause::new(CauseKind::LeaseLost, "its supervisor ended it with its right");
            self.end_job(host, attempt, None, Some(9), Some(cause));
        }
    }

    /// The agent looks at its machine.
    pub fn sample_health(&mut self, host: usize, disk_full: bool) {
        let health = Health {
            disk_free_bytes: if disk_full { 0 } else { 1 << 40 },
            disk_total_bytes: 1 << 41,
            memory_available_bytes: 1 << 33,
            load_millis: 100,
            disk_full,
            cannot_kill: false,
            runs_images: self.random.thousandth(500),
            cache: CacheUse::default(),
        };
        self.hosts[host].disk_full = disk_full;
        self.tell_host(host, Input::HealthSample(health));
        // What it says of its inputs need not be true: nothing but speed may follow from it.
        if self.random.thousandth(300) {
            let bytes = if self.random.thousandth(500) { 1 << 30 } else { 1 << 33 };
            let inputs = vec![Stocked { name: InputName::tree(&Digest::of(b"source")), bytes }];
            self.tell_host(host, Input::Stock { inputs, fetched: Fetched { bytes, ms: 1_000 } });
        }
    }
}
