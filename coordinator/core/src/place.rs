//! Placement: which agent gets which job. Free agents look at the heads of the lines that they can serve; new heads look
//! at the agents that are free. Nothing scans queued jobs.

use std::cell::RefCell;
use std::collections::BTreeSet;

use windlass_pipeline::graph::Command;
use windlass_protocol::job::Resources;
use windlass_protocol::{AgentId, JobId, Trust, limits};

use crate::queue::{Opens, Place, Shape, ShapeId, Ticket};
use crate::row::{JobRow, PoolRow};
use crate::state::{Agent, Core};
use crate::stock::Inputs;
use crate::timer::Timer;

/// What a job of a build of this trust needs.
pub(crate) fn shape_of(command: &Command, trust: Trust) -> Shape {
    let mut tags = command.tags.clone();
    tags.sort();
    Shape {
        queue: command.queue.clone(),
        trust,
        zone: command.zone.clone(),
        tags,
        resources: command.resources,
        image: command.image.is_some(),
    }
}

/// Whether a pool's agents may run jobs of this shape (I7).
pub(crate) fn pool_serves(pool: &PoolRow, shape: &Shape) -> bool {
    pool.queues.contains(&shape.queue)
        && pool.trust == shape.trust
        && shape.zone.as_ref().is_none_or(|zone| *zone == pool.zone)
}

/// Whether an agent has every tag that is asked for; `*` is any value.
pub(crate) fn has_tags(agent: &Agent, wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|tag| has_tag(&agent.row.tags, tag))
}

/// Whether one tag that is asked for is among these.
pub(crate) fn has_tag(all: &[(String, String)], (name, value): &(String, String)) -> bool {
    all.iter().any(|(tag, held)| tag == name && (value == "*" || value == held))
}

/// What a job takes of an agent: where it names no processors, the share of one slot.
pub(crate) fn share(request: Resources, slots: u32, capacity: Resources) -> Resources {
    let slot = capacity.cpu_millis / u64::from(slots.max(1));
    let cpu_millis = if request.cpu_millis == 0 { slot } else { request.cpu_millis };
    Resources { cpu_millis, memory_bytes: request.memory_bytes }
}

/// Whether so much fits beside what is used.
pub(crate) const fn fits(need: Resources, used: Resources, capacity: Resources) -> bool {
    used.cpu_millis.saturating_add(need.cpu_millis) <= capacity.cpu_millis
        && used.memory_bytes.saturating_add(need.memory_bytes) <= capacity.memory_bytes
}

impl Agent {
    /// Whether it could run such a job at all, were it idle: abilities, tags and size.
    pub(crate) fn could_run(&self, shape: &Shape) -> bool {
        let Some(hello) = &self.hello else { return false };
        (!shape.image || hello.runs_images)
            && has_tags(self, &shape.tags)
            && fits(share(shape.resources, hello.slots, hello.capacity), Resources::default(), hello.capacity)
    }

    /// Whether such a job fits beside what it has.
    fn has_room(&self, shape: &Shape) -> bool {
        let Some(hello) = &self.hello else { return false };
        fits(share(shape.resources, hello.slots, hello.capacity), self.used, hello.capacity)
    }
}

impl Core {
    /// Gives out what can be given: agents with new room first, then lines with new heads.
    pub(crate) fn dispatch(&mut self) {
        while let Some(agent) = self.freed.pop_first() {
            self.serve(agent);
        }
        let mut passed_over = BTreeSet::new();
        loop {
            let mut heads = self.queue.fresh();
            if heads.is_empty() {
                break;
            }
            while let Some((known, line)) = heads.pop_first() {
                // Whoever was served meanwhile has moved back.
                match self.queue.head(line) {
                    None => {}
                    Some(head) if head != known => drop(heads.insert((head, line))),
                    Some(head) => match self.agent_for(head.job, line) {
                        Some(agent) if self.waits_for_warmer(head.job, agent, line) => {
                            // Others of the line may be for this one.
                            self.begin_patience(head.job, agent);
                            passed_over.insert(agent);
                            self.queue.tried(line);
                        }
                        Some(agent) => {
                            self.grant(head.job, agent);
                            heads.extend(self.queue.head(line).map(|head| (head, line)));
                        }
                        None => {
                            self.queue.tried(line);
                            self.arm_reserve();
                        }
                    },
                }
            }
        }
        for agent in passed_over {
            self.serve(agent);
        }
        self.freed.clear();
    }

    /// Gives an agent what it can take.
    fn serve(&mut self, agent: AgentId) {
        while let Some(place) = self.best_for(agent) {
            self.grant(place.job, agent);
        }
        self.freed.remove(&agent);
    }

    /// Of all lines that an agent can serve now, the head that is next; but for a bounded number that wait for warmer agents.
    fn best_for(&mut self, id: AgentId) -> Option<Place> {
        let agent = self.agents.get(&id)?;
        agent.open_at?;
        let pool = self.pools.get(&agent.row.pool)?;
        if self.policy.bugs.ignore_trust_and_zone {
            let lines = self.queue.lines().into_iter().filter(|line| self.can_take(id, *line));
            let lines: Vec<_> = lines.collect();
            return lines.into_iter().filter_map(|line| self.queue.head(line)).min();
        }
        let images = agent.hello.as_ref().is_some_and(|hello| hello.runs_images);
        let opens = Opens { trust: pool.trust, zone: &pool.zone, images, tags: &agent.row.tags };
        for queue in &pool.queues {
            self.queue.settle(queue, &opens);
        }
        let waiting = RefCell::new(Vec::new());
        let waits = |job: JobId, line: ShapeId| {
            let mut waiting = waiting.borrow_mut();
            let waits = waiting.len() < limits::PLACE_PASSED_OVER_MAX && self.waits_for_warmer(job, id, line);
            if waits {
                waiting.push(job);
            }
            waits
        };
        let takes = |job: JobId, line: ShapeId| self.can_take(id, line) && self.may_use(id, line) && !waits(job, line);
        let best = pool.queues.iter().filter_map(|queue| self.queue.best(queue, &opens, takes)).min();
        for job in waiting.into_inner() {
            self.begin_patience(job, id);
        }
        best
    }

    /// Of the open agents that can take a line's head now the one that has most of its inputs; then the least busy, and by id
    /// among equals.
    fn agent_for(&self, job: JobId, line: ShapeId) -> Option<AgentId> {
        let shape = self.queue.shape(line)?;
        let inputs = if self.stocks.is_empty() { Inputs::default() } else { self.inputs_of(job) };
        let weighs = inputs.iter().any(Option::is_some);
        let most = if weighs { limits::PLACE_CANDIDATES_MAX } else { 1 };
        let pools = self.pools.values().filter(|pool| self.serves(pool, shape));
        let candidates = pools.flat_map(|pool| {
            let open = self.open.get(&pool.name).into_iter().flatten();
            open.filter(|(_, agent)| self.can_take(*agent, line) && self.may_use(*agent, line)).take(most)
        });
        let cost = |id: AgentId| if weighs { self.missing_ms(&inputs, id) / limits::PLACE_STEP_MS } else { 0 };
        candidates.min_by_key(|(busy, id)| (cost(*id), *busy, *id)).map(|(_, agent)| *agent)
    }

    fn serves(&self, pool: &PoolRow, shape: &Shape) -> bool {
        self.policy.bugs.ignore_trust_and_zone || pool_serves(pool, shape)
    }

    /// Whether an open agent can take a line's head now, apart from what is kept for others.
    pub(crate) fn can_take(&self, id: AgentId, line: ShapeId) -> bool {
        let (Some(agent), Some(shape)) = (self.agents.get(&id), self.queue.shape(line)) else { return false };
        let Some(pool) = self.pools.get(&agent.row.pool) else { return false };
        agent.open_at.is_some() && self.serves(pool, shape) && agent.could_run(shape) && agent.has_room(shape)
    }

    /// Large jobs do not starve behind small ones (F56): while one has waited long enough for room on an agent that
    /// could run it, and runs nowhere, that agent takes nothing that came later.
    fn may_use(&self, id: AgentId, line: ShapeId) -> bool {
        let Some(agent) = self.agents.get(&id) else { return false };
        let Some(reserved) = agent.reserved_for else { return true };
        if reserved == line {
            return true;
        }
        let Some(shape) = self.queue.shape(reserved) else { return true };
        // A stale mark: the line is gone, or its head fits now.
        !agent.could_run(shape)
    }

    /// Puts a job that is ready in its line, or holds it back until it may be leased.
    pub(crate) fn enqueue(&mut self, id: JobId) {
        if self.jobs.get(&id).is_none_or(|job| job.queued.is_some()) {
            return;
        }
        if self.is_held_by_key(id) {
            return;
        }
        if let Some(agent) = self.haunted_by(id) {
            self.fence(id, agent);
        }
        let Some(job) = self.jobs.get(&id) else { return };
        let held = job.row.not_before.filter(|at| *at > self.now.wall);
        if let Some(until) = held {
            let due = self.mono_of(until).max(job.fence.unwrap_or_default());
            self.timers.set(Timer::NotBefore(id), due);
            return;
        }
        let Some((shape, ticket)) = self.line_of(&job.row) else { return };
        let turn = self.builds[&ticket.build].turn;
        let line = self.queue.push(shape, turn, ticket);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.inputs.take();
            job.queued = Some((line, ticket));
        }
    }

    /// Takes a job out of its line, wherever it waits.
    pub(crate) fn dequeue(&mut self, id: JobId) {
        self.timers.clear(Timer::NotBefore(id));
        self.end_patience(id);
        if let Some((line, ticket)) = self.jobs.get_mut(&id).and_then(|job| job.queued.take()) {
            self.queue.remove(line, ticket);
        }
    }

    /// A job that was held back may be leased.
    pub(crate) fn on_not_before(&mut self, id: JobId) {
        if self.jobs.get(&id).is_none_or(|job| job.row.state != crate::row::JobState::Scheduled) {
            return;
        }
        self.edit_job(id).not_before = None;
        self.enqueue(id);
    }

    /// What a job needs, and its place.
    pub(crate) fn line_of(&self, row: &JobRow) -> Option<(Shape, Ticket)> {
        let windlass_pipeline::graph::NodeKind::Command(command) = &row.node.kind else { return None };
        let trust = self.builds.get(&row.build)?.row.namespace.trust();
        let ticket = Ticket {
            priority: command.priority,
            build: row.build,
            index: row.index,
            job: row.id,
            since: row.runnable_at.unwrap_or(row.created_at),
        };
        Some((shape_of(command, trust), ticket))
    }

    /// What a job's step asks for.
    pub(crate) fn request_of(&self, id: JobId) -> Resources {
        self.command(id).map(|command| command.resources).unwrap_or_default()
    }

    /// What a job takes of this agent.
    pub(crate) fn share_of(&self, job: JobId, agent: AgentId) -> Resources {
        let request = self.request_of(job);
        match self.agents.get(&agent).and_then(|agent| agent.hello.as_ref()) {
            Some(hello) => share(request, hello.slots, hello.capacity),
            None => request,
        }
    }

    /// Wakes up when the oldest job that fits nowhere has waited long enough for room to be kept for it.
    pub(crate) fn arm_reserve(&mut self) {
        if self.queue.len() == 0 || self.timers.has(Timer::Reserve) {
            return;
        }
        self.timers.set(Timer::Reserve, self.now.mono.plus_ms(self.policy.reserve_after_ms));
    }

    /// Keeps an agent for the oldest line that fits nowhere now and could: of those that could run it, the one with
    /// the least to finish. One agent a line, and no agent for two.
    pub(crate) fn on_reserve(&mut self) {
        let mut changed = false;
        for agent in self.agents.values_mut() {
            changed |= agent.reserved_for.take().is_some();
        }
        let mut waiting: Vec<_> = Vec::new();
        for line in self.queue.lines() {
            let Some(since) = self.queue.oldest(line) else { continue };
            waiting.push((since, line));
        }
        waiting.sort();
        let mut later = false;
        for (since, line) in waiting {
            if self.now.wall.0.saturating_sub(since.0) < self.policy.reserve_after_ms {
                later = true;
                continue;
            }
            changed |= self.reserve(line);
        }
        if changed {
            self.queue.try_all();
            self.freed.extend(self.open.values().flatten().map(|(_, agent)| *agent));
        }
        if later || changed {
            self.timers.set(Timer::Reserve, self.now.mono.plus_ms(limits::RESERVE_CHECK_MS));
        }
    }

    /// Keeps an agent for this line; whether one could be kept.
    fn reserve(&mut self, line: ShapeId) -> bool {
        let Some(shape) = self.queue.shape(line) else { return false };
        let candidates = self.agents.iter().filter(|(_, agent)| {
            self.pools.get(&agent.row.pool).is_some_and(|pool| pool_serves(pool, shape))
                && agent.reserved_for.is_none()
                && agent.is_eligible(self.pools.get(&agent.row.pool))
                && agent.could_run(shape)
        });
        let least = candidates.min_by_key(|(id, agent)| (agent.busy(), **id)).map(|(id, _)| *id);
        let Some(agent) = least.and_then(|id| self.agents.get_mut(&id)) else { return false };
        agent.reserved_for = Some(line);
        true
    }
}
