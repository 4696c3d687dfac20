//! What one assignment costs the coordinator's core with many jobs queued, against a few.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use windlass_coordinator_core::input::{AgentEvent, ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Core, Effect, Policy, Reply};
use windlass_pipeline::graph::{Command, Graph, Node, NodeKind};
use windlass_protocol::job::{Epoch, Outcome, Resources, Source};
use windlass_protocol::message::{CoordinatorMessage, Hello};
use windlass_protocol::{AgentId, AttemptId, Digest, IdSource, Instant64, Namespace, Now, Trust, WallMs};

use crate::table::Table;

const AGENTS: u32 = 50;
const ASSIGNMENTS: usize = 12_000;
const WARM_UP: usize = 4_000;
/// Assignments of one timing.
const ROUND: usize = 400;

/// A core with agents and queued builds, and nothing around it.
struct World {
    core: Core,
    now: Now,
    next: u64,
    offers: Vec<(AgentId, ConnId, AttemptId, Epoch)>,
    settle: Vec<(AttemptId, Epoch)>,
    joined: Option<AgentId>,
    ids: IdSource,
}

impl World {
    fn new() -> Self {
        let now = Now { mono: Instant64(1), wall: WallMs(1_800_000_000_000) };
        let core = Core::load(now, Rows::default(), IdSource::from_seed([1; 32]), Policy::default());
        Self {
            core,
            now,
            next: 1,
            offers: Vec::new(),
            settle: Vec::new(),
            joined: None,
            ids: IdSource::from_seed([3; 32]),
        }
    }

    fn input(&mut self, input: Input) -> anyhow::Result<()> {
        self.core.handle(self.now, input).map_err(|rejected| anyhow!("{rejected}"))?;
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Send { agent, conn, message } => {
                    if let CoordinatorMessage::Offer { epoch, job } = *message {
                        self.offers.push((agent, conn, job.attempt, epoch));
                    }
                }
                Effect::SettleLog { attempt, epoch, .. } => self.settle.push((attempt, epoch)),
                Effect::Reply { reply: Reply::Joined { agent, .. }, .. } => self.joined = Some(agent),
                _ => {}
            }
        }
        Ok(())
    }

    fn request(&mut self, request: Request) -> anyhow::Result<()> {
        self.next += 1;
        let actor = Actor { kind: ActorKind::System, name: "bench".to_owned() };
        self.input(Input::Request { reply: ReplyTo(self.next), actor, request })
    }

    fn submit(&mut self, steps: usize) -> anyhow::Result<()> {
        let node = |index: usize| Node {
            key: Some(format!("step-{index}")),
            label: format!("Step {index}"),
            ..Node::new(NodeKind::Command(Box::new(Command {
                command: "make test".to_owned(),
                queue: format!("queue-{}", index % 4),
                ..Command::default()
            })))
        };
        let graph = Graph { nodes: (0..steps).map(node).collect(), ..Graph::default() };
        let submit = Submit {
            id: self.ids.build(self.now.wall),
            number: None,
            pipeline: "app".to_owned(),
            registration: None,
            definition: String::new(),
            graph,
            branch: String::new(),
            commit: "HEAD".to_owned(),
            tag: None,
            message: String::new(),
            origin: Source::Empty,
            source: BuildSource::Api,
            creator: Actor { kind: ActorKind::System, name: "bench".to_owned() },
            namespace: Namespace::trusted("app"),
            env: Vec::new(),
            meta_data: BTreeMap::new(),
            keep_workspace: false,
            no_reuse: false,
            rebuilt_from: None,
            triggered_from: None,
            confined: None,
            untrusted: None,
            idempotency: None,
        };
        self.request(Request::Submit(Box::new(submit)))
    }

    fn agents(&mut self) -> anyhow::Result<()> {
        let pool = PoolRow {
            name: "main".to_owned(),
            zone: "corp".to_owned(),
            queues: (0..4).map(|queue| format!("queue-{queue}")).collect(),
            trust: Trust::Trusted,
            tags: TagPolicy::Free(Vec::new()),
            lease_ms: 3_600_000,
            beat_ms: 5_000,
            paused: false,
            on_unreachable: OnUnreachable::Wait,
            created_at: self.now.wall,
        };
        let id = IdSource::from_seed([2; 32]).token(self.now.wall);
        let grant = TokenGrant::join("main".to_owned(), None);
        let (secret_hash, note) = (Digest::of(b""), String::new());
        let token = NewToken { id, secret_hash, grant, pool: Some(pool), note, expires_at: None };
        self.request(Request::CreateToken(Box::new(token)))?;
        for number in 0..AGENTS {
            let (name, key) = (format!("agent-{number}"), Digest::of(&number.to_le_bytes()));
            let (machine_id, tags) = (name.clone(), Vec::new());
            let joining = Joining { token: id, secret_hash, key, name: name.clone(), machine_id, tags, address: None };
            self.request(Request::Join(Box::new(joining)))?;
            let agent = self.joined.take().context("the agent did not join")?;
            let hello = Hello {
                name: name.clone(),
                version: String::new(),
                machine_id: name,
                boot_id: "first boot".to_owned(),
                slots: 2,
                capacity: Resources { cpu_millis: 2_000, memory_bytes: 1 << 32 },
                tags: Vec::new(),
                runs_images: false,
                capabilities: Vec::new(),
                host: windlass_protocol::HostFacts::default(),
                held: Vec::new(),
            };
            let conn = ConnId(u64::from(number) + 1);
            self.input(Input::AgentHello { agent, key, conn, hello: Box::new(hello) })?;
        }
        Ok(())
    }

    /// Ends what runs and takes what comes, so often; microseconds for each.
    fn turn(&mut self, times: usize) -> anyhow::Result<f64> {
        let outcome = Outcome {
            exit_status: Some(0),
            signal: None,
            cause: None,
            started_at: Some(self.now.wall),
            finished_at: self.now.wall,
            log_bytes: 0,
            log_digest: Digest::of(b""),
            log_truncated: false,
            peak_memory_bytes: None,
        };
        let begun = Instant::now();
        for _ in 0..times {
            let (agent, conn, attempt, epoch) = self.offers.pop().context("nothing was offered")?;
            let event = AgentEvent::Finished(attempt, epoch, Box::new(outcome.clone()));
            self.input(Input::Agent { agent, conn, event })?;
            let (attempt, epoch) = self.settle.pop().context("no result came of it")?;
            self.input(Input::LogSettled { attempt, epoch, settled: Ok(()) })?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / times as f64)
    }
}

/// Microseconds of an assignment while about so many jobs are queued, in builds of so many steps; each round refills what
/// it took.
fn measure(queued: usize, steps: usize) -> anyhow::Result<f64> {
    let mut world = World::new();
    for _ in 0..queued / steps {
        world.submit(steps)?;
    }
    world.agents()?;
    let mut rounds = Vec::new();
    for number in 0..ASSIGNMENTS / ROUND {
        let micros = world.turn(ROUND)?;
        if number >= WARM_UP / ROUND {
            rounds.push(micros);
        }
        for _ in 0..ROUND / 100 {
            world.submit(100)?;
        }
    }
    // The median: other programs run beside this one.
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[rounds.len() / 2])
}

/// 1,000,000 queued jobs against 1,000.
pub(crate) fn cost(table: &mut Table) -> anyhow::Result<()> {
    for (title, most) in [("builds of 100 steps", 100), ("builds of up to 10,000 steps", 10_000)] {
        let (few, many) = (measure(1_000, most.min(100))?, measure(1_000_000, most)?);
        let what = format!("an assignment with 1,000,000 queued against 1,000, {title}");
        table.at_most(&what, format!("{many:.1} us"), format!("{few:.1} us"), many / few, 1.5);
    }
    Ok(())
}
