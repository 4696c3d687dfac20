//! Placement by bytes: who has an input gets the job, a job waits a little for whom is worth it, and nothing starves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use windlass_coordinator_core::explain::Why;
use windlass_coordinator_core::input::AgentEvent;
use windlass_coordinator_core::row::{PoolRow, Weighed};
use windlass_pipeline::graph::Node;
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::message::{Health, Hello};
use windlass_protocol::stock::{Fetched, InputName, Stocked};
use windlass_protocol::{AgentId, AttemptId, BuildId, limits};

use crate::kit::*;

const GIB: u64 = 1 << 30;
const BEAT_MS: u64 = 10_000_000;

fn imaged(label: &str, image: &str) -> Node {
    step_with(label, |command| command.image = Some(image.to_owned()))
}

/// An agent that runs images and is heard for a whole day.
fn agent(shell: &mut Shell, name: &str, slots: u32) -> AgentId {
    let token = shell.pool(PoolRow { lease_ms: 86_400_000, beat_ms: BEAT_MS, ..pool("main") });
    let agent = shell.join(token, name);
    shell.hello_with(agent, Hello { runs_images: true, ..greeting(name, slots) });
    agent
}

fn stock(shell: &mut Shell, agent: AgentId, images: &[(&str, u64)], fetched: Fetched) {
    let inputs = images.iter().map(|(image, bytes)| Stocked { name: InputName::image(image), bytes: *bytes });
    shell.says(agent, AgentEvent::Stock { inputs: inputs.collect(), fetched }).unwrap();
}

fn has(shell: &mut Shell, agent: AgentId, images: &[(&str, u64)]) {
    stock(shell, agent, images, Fetched::default());
}

#[test]
fn of_free_agents_the_one_that_has_the_image_gets_the_job() {
    let mut shell = Shell::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| agent(&mut shell, name, 4));
    has(&mut shell, c, &[("big", 2 * GIB)]);
    has(&mut shell, b, &[("tiny", limits::STOCK_MIN_BYTES - 1)]);
    for _ in 0..3 {
        shell.submit(graph(vec![imaged("s", "big")]));
        assert_eq!(shell.offers(c).len(), 1, "although it is the busiest");
    }
    shell.submit(graph(vec![imaged("s", "tiny")]));
    assert_eq!(shell.offers(a).len(), 1, "what is small is nobody's advantage");
    has(&mut shell, c, &[]);
    shell.submit(graph(vec![imaged("s", "big")]));
    assert!(shell.offers(c).is_empty(), "it has it no more");
}

#[test]
fn a_job_waits_for_who_has_its_image_no_longer_than_half_of_what_bringing_it_takes() {
    let mut shell = Shell::new();
    let warm = agent(&mut shell, "warm", 1);
    has(&mut shell, warm, &[("big", GIB)]);
    shell.submit(graph(vec![imaged("first", "big")]));
    let first = shell.offer(warm);
    let cold = agent(&mut shell, "cold", 1);
    let second = shell.submit(graph(vec![imaged("second", "big")]));
    assert!(shell.offers(cold).is_empty(), "it waits");
    let why = shell.core.explain(shell.job_id(second, 0)).unwrap();
    assert!(matches!(why, Why::Warmer { agents: 1, bytes: GIB, ms: 1.. }), "{why:?}");
    assert!(why.to_string().contains("the 1 agent that has the 1024 MiB"), "{why}");
    // Another build's job, which nobody is warm for, does not wait behind it.
    shell.submit(graph(vec![imaged("other", "unknown")]));
    let other = shell.offer(cold);
    shell.run(cold, other, 0);
    assert!(shell.offers(cold).is_empty(), "still patient");
    shell.run(warm, first, 0);
    let taken = shell.offer(warm);
    let third = shell.submit(graph(vec![imaged("third", "big")]));
    let takes_ms = GIB / limits::ZONE_BYTES_PER_MS;
    shell.pass(takes_ms / 2 - 1);
    assert!(shell.offers(cold).is_empty());
    shell.pass(1);
    assert_eq!(shell.offers(cold).len(), 1, "it has waited long enough");
    assert!(matches!(shell.core.explain(shell.job_id(third, 0)), Some(Why::NotWaiting(_))));
    shell.run(warm, taken, 0);
}

#[test]
fn what_is_brought_soon_is_not_waited_for() {
    let mut shell = Shell::new();
    let warm = agent(&mut shell, "warm", 1);
    let cold = agent(&mut shell, "cold", 1);
    has(&mut shell, warm, &[("big", GIB)]);
    shell.submit(graph(vec![imaged("first", "big")]));
    assert_eq!(shell.offers(warm).len(), 1);
    // The zone turns out to be faster than was thought.
    stock(&mut shell, cold, &[], Fetched { bytes: 40 * GIB, ms: 10_000 });
    shell.submit(graph(vec![imaged("second", "big")]));
    assert_eq!(shell.offers(cold).len(), 1);
}

#[test]
fn whoever_has_an_input_and_takes_no_work_is_not_waited_for() {
    let mut shell = Shell::new();
    let (warm, cold) = (agent(&mut shell, "warm", 1), agent(&mut shell, "cold", 1));
    has(&mut shell, warm, &[("big", GIB)]);
    shell.says(warm, AgentEvent::Draining).unwrap();
    shell.submit(graph(vec![imaged("s", "big")]));
    let offer = shell.offer(cold);
    shell.run(cold, offer, 0);
    shell.says(warm, AgentEvent::Resumed).unwrap();
    shell.disconnect(warm);
    shell.submit(graph(vec![imaged("s", "big")]));
    assert_eq!(shell.offers(cold).len(), 1);
}

/// Hours of builds with heavy images, and what they came to.
#[derive(Debug, Clone, Copy)]
struct Came {
    moved_bytes: u64,
    /// From submit to the end of the command, of all jobs together.
    turnaround_ms: u64,
    jobs: u64,
}

const HOURS: u64 = 4;
const AGENTS: usize = 8;
const IMAGES: u64 = 12;
const ROOM_BYTES: u64 = 10 * GIB;
const BYTES_PER_MS: u64 = limits::ZONE_BYTES_PER_MS;

/// xorshift: the same days on every machine.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Images by how much they are wanted: half of the jobs want the first three.
fn image(seed: &mut Seed) -> (String, u64) {
    let n = if seed.next(2) == 0 { seed.next(3) } else { seed.next(IMAGES) };
    (format!("image-{n}"), GIB + n % 4 * GIB / 2)
}

/// What an agent keeps of images, the one that was used last at the end.
fn bring(kept: &mut Vec<(String, u64)>, image: (String, u64)) -> u64 {
    let known = kept.iter().position(|(name, _)| *name == image.0).map(|at| kept.remove(at));
    let moved = if known.is_some() { 0 } else { image.1 };
    kept.push(image);
    while kept.iter().map(|(_, bytes)| bytes).sum::<u64>() > ROOM_BYTES {
        kept.remove(0);
    }
    moved
}

/// The jobs of those hours: when each comes, what it wants, and how long it runs.
fn arrivals(seed: u64) -> Vec<(u64, (String, u64), u64)> {
    let (mut seed, mut at, mut all) = (Seed(seed), 0, Vec::new());
    while at < HOURS * 3_600_000 {
        // In every other hour four times as many; two thirds of the slots are busy then.
        at += seed.next(if at / 3_600_000 % 2 == 0 { 18_000 } else { 72_000 });
        all.push((at, image(&mut seed), 30_000 + seed.next(120_000)));
    }
    all
}

/// Agents that bring images and run what they are offered.
struct World {
    shell: Shell,
    agents: Vec<AgentId>,
    kept: BTreeMap<AgentId, Vec<(String, u64)>>,
    /// Of each build that no agent has: when it came, its image, and how long it will run.
    wanted: BTreeMap<BuildId, (u64, (String, u64), u64)>,
    /// What runs, the first to end on top.
    ends: BinaryHeap<(Reverse<u64>, AgentId, AttemptId, Epoch)>,
    began: u64,
    tells: bool,
    sum: Came,
}

impl World {
    fn new(tells: bool) -> Self {
        let mut shell = Shell::new();
        shell.unchecked = true;
        let agents = (0..AGENTS).map(|n| agent(&mut shell, &format!("a{n}"), 2)).collect();
        let (began, sum) = (shell.now.mono.0, Came { moved_bytes: 0, turnaround_ms: 0, jobs: 0 });
        let (kept, wanted, ends) = (BTreeMap::new(), BTreeMap::new(), BinaryHeap::new());
        Self { shell, agents, kept, wanted, ends, began, tells, sum }
    }

    fn now(&self) -> u64 {
        self.shell.now.mono.0 - self.began
    }

    fn submit(&mut self, (at, image, runs_ms): (u64, (String, u64), u64)) {
        let build = self.shell.submit(graph(vec![imaged("s", &image.0)]));
        self.wanted.insert(build, (at, image, runs_ms));
        self.take_offers();
    }

    fn end_one(&mut self) {
        let Some((_, agent, attempt, epoch)) = self.ends.pop() else { return };
        let outcome = self.shell.exit(0);
        self.shell.report(agent, (attempt, epoch), outcome);
        self.shell.settle((attempt, epoch));
        self.take_offers();
        // It has heard of the commit, and holds the attempt no more.
        self.beat(agent);
    }

    fn beat(&mut self, agent: AgentId) {
        let held = self.ends.iter().filter(|end| end.1 == agent).map(|end| (end.2, end.3));
        let (held, health) = (held.collect(), Health { runs_images: true, ..Health::default() });
        self.shell.says(agent, AgentEvent::Beat { seq: 1, health, held }).unwrap();
        self.take_offers();
    }

    fn next_offers(&mut self) -> Option<(AgentId, Vec<(Epoch, JobSpec)>)> {
        let Self { shell, agents, .. } = self;
        agents.iter().map(|agent| (*agent, shell.offers(*agent))).find(|(_, offers)| !offers.is_empty())
    }

    fn take_offers(&mut self) {
        let now = self.now();
        // What an agent tells may bring others an offer.
        while let Some((agent, offers)) = self.next_offers() {
            for (epoch, job) in offers {
                self.shell.start(agent, (job.attempt, epoch));
                let (at, image, runs_ms) = self.wanted.remove(&job.build).unwrap();
                let kept = self.kept.entry(agent).or_default();
                let moved = bring(kept, image);
                let end = now + moved / BYTES_PER_MS + runs_ms;
                self.sum.moved_bytes += moved;
                self.sum.turnaround_ms += end - at;
                self.sum.jobs += 1;
                self.ends.push((Reverse(end), agent, job.attempt, epoch));
                if self.tells {
                    let inputs: Vec<_> = kept.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
                    has(&mut self.shell, agent, &inputs);
                }
            }
        }
    }
}

fn hours(seed: u64, tells: bool) -> Came {
    let mut world = World::new(tells);
    let (mut coming, mut heard) = (arrivals(seed).into_iter().peekable(), 0);
    loop {
        let now = world.now();
        if now - heard > BEAT_MS / 2 {
            heard = now;
            for agent in world.agents.clone() {
                world.beat(agent);
            }
        }
        let next = [coming.peek().map(|job| job.0), world.ends.peek().map(|end| end.0.0)].into_iter().flatten().min();
        let timer = world.shell.core.poll_timeout().map(|due| due.0.saturating_sub(world.began));
        let Some(next) = next else {
            assert!(world.wanted.is_empty(), "{} jobs were given to nobody", world.wanted.len());
            return world.sum;
        };
        world.shell.pass(timer.unwrap_or(u64::MAX).min(next).saturating_sub(now));
        world.take_offers();
        while coming.peek().is_some_and(|job| job.0 <= world.now()) {
            let Some(job) = coming.next() else { break };
            world.submit(job);
        }
        while world.ends.peek().is_some_and(|end| end.0.0 <= world.now()) {
            world.end_one();
        }
    }
}

#[test]
fn hours_of_heavy_images_move_a_quarter_of_the_bytes_and_take_no_longer() {
    for seed in [3, 17] {
        let (without, with) = (hours(seed, false), hours(seed, true));
        let bytes = with.moved_bytes as f64 / without.moved_bytes as f64;
        let time = with.turnaround_ms as f64 / without.turnaround_ms as f64;
        println!("seed {seed}: {} jobs, bytes {bytes:.2}, time {time:.3}; {with:?} against {without:?}", with.jobs);
        assert_eq!(with.jobs, without.jobs);
        assert!(bytes < 0.25 && time < 1.0, "bytes {bytes:.2}, time {time:.3}");
    }
}

/// Who of these is offered a job next.
fn taker(shell: &mut Shell, agents: &[AgentId]) -> (AgentId, (AttemptId, Epoch)) {
    let offered = agents.iter().find_map(|agent| Some((*agent, shell.offers(*agent).pop()?)));
    let (agent, (epoch, job)) = offered.unwrap();
    (agent, (job.attempt, epoch))
}

/// What an attempt's row says was weighed.
fn weighed(shell: &Shell, attempt: AttemptId) -> Option<&Weighed> {
    shell.rows.attempts[&attempt].weighed.as_deref()
}

#[test]
fn what_was_weighed_is_kept_with_the_attempt_and_of_what_nobody_told_nothing_is() {
    let mut shell = Shell::new();
    let all = ["warm", "cold", "far"].map(|name| agent(&mut shell, name, 1));
    let [warm, cold, far] = all;
    shell.submit(graph(vec![imaged("s", "big")]));
    let (agent, right) = taker(&mut shell, &all);
    assert_eq!(weighed(&shell, right.0), None, "nobody has told of anything");
    shell.run(agent, right, 0);
    has(&mut shell, warm, &[("big", 2 * GIB)]);
    shell.submit(graph(vec![imaged("other", "unknown")]));
    let (agent, right) = taker(&mut shell, &all);
    assert_eq!(weighed(&shell, right.0), None, "nor of this one");
    shell.run(agent, right, 0);
    shell.submit(graph(vec![imaged("first", "big")]));
    let first = shell.offer(warm);
    let said = weighed(&shell, first.0).unwrap().clone();
    assert_eq!((said.input_bytes, said.waited_ms, said.others), (2 * GIB, 0, 0));
    let named: Vec<_> = said.candidates.iter().map(|one| (&*one.name, one.free, one.jobs, one.missing_bytes)).collect();
    assert_eq!(named[0], ("warm", true, 0, 0), "the chosen one first");
    assert!(named[1..].iter().all(|one| *one == (one.0, true, 0, 2 * GIB)) && named.len() == 3, "{named:?}");
    assert_eq!(said.candidates[1].zone_bytes_per_second, limits::ZONE_BYTES_PER_MS * 1_000);
    assert_eq!(said.candidates[1].missing_ms, 2 * GIB / limits::ZONE_BYTES_PER_MS);
    // The next one waits for the warm agent in vain.
    shell.submit(graph(vec![imaged("second", "big")]));
    shell.pass(limits::PLACE_WAIT_MAX_MS);
    let (_, (second, _)) = taker(&mut shell, &[cold, far]);
    let said = weighed(&shell, second).unwrap();
    assert_eq!(said.waited_ms, limits::PLACE_WAIT_MAX_MS);
    let busy: Vec<_> = said.candidates.iter().filter(|one| !one.free).collect();
    assert_eq!((busy.len(), busy[0].agent, busy[0].jobs, busy[0].missing_bytes), (1, warm, 1, 0));
    // It is in the row, so that a restart and an ended build know it.
    shell.restart();
    assert!(shell.core.rows().attempts[&second].weighed.is_some());
}

#[test]
fn of_many_agents_some_are_named_and_the_rest_is_counted() {
    let mut shell = Shell::new();
    let agents: Vec<_> = (0..12).map(|n| agent(&mut shell, &format!("a{n:02}"), 1)).collect();
    has(&mut shell, agents[5], &[("big", GIB)]);
    shell.submit(graph(vec![imaged("s", "big")]));
    let (attempt, _) = shell.offer(agents[5]);
    let said = weighed(&shell, attempt).unwrap();
    assert_eq!((said.candidates.len(), said.others as usize), (limits::WEIGHED_MAX, 12 - limits::WEIGHED_MAX));
    assert_eq!(said.candidates[0].agent, agents[5]);
}

#[test]
fn what_the_other_trust_class_has_is_told_to_nobody() {
    let mut shell = Shell::new();
    let own = agent(&mut shell, "own", 1);
    let foreign = PoolRow { trust: windlass_protocol::Trust::Untrusted, lease_ms: 86_400_000, ..pool("strangers") };
    let token = shell.pool(foreign);
    let stranger = shell.join(token, "stranger");
    shell.hello_with(stranger, Hello { runs_images: true, ..greeting("stranger", 1) });
    has(&mut shell, stranger, &[("secret", GIB)]);
    shell.submit(graph(vec![imaged("s", "secret")]));
    let (attempt, _) = shell.offer(own);
    assert_eq!(weighed(&shell, attempt), None);
}
