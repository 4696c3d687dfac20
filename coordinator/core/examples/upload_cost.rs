//! Measures what an upload into a large build costs the core's thread, and what a freed slot costs it where many jobs ask for
//! what nobody has.
//!
//! `cargo run --release -p windlass-coordinator-core --example upload_cost`
#![allow(clippy::print_stdout, reason = "its output is what it is for")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "it measures the core from outside of it")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use windlass_coordinator_core::input::{AgentEvent, ConnId, Input, ReplyTo, Request};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Core, Effect, Policy, Reply};
use windlass_pipeline::compile;
use windlass_pipeline::graph::{Graph, NodeKind};
use windlass_protocol::job::{Epoch, Outcome, Resources, Source};
use windlass_protocol::message::{CoordinatorMessage, Hello};
use windlass_protocol::{AgentId, AttemptId, Digest, IdSource, Instant64, Namespace, Now, Trust, WallMs};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CONN: ConnId = ConnId(1);

/// A core with one agent of one slot, and nothing around it.
struct World {
    core: Core,
    now: Now,
    replies: u64,
    joined: Option<AgentId>,
    offers: Vec<(AttemptId, Epoch)>,
    settle: Vec<(AttemptId, Epoch)>,
}

impl World {
    fn new() -> Result<Self> {
        let now = Now { mono: Instant64(1), wall: WallMs(1_800_000_000_000) };
        let core = Core::load(now, Rows::default(), IdSource::from_seed([1; 32]), Policy::default());
        let mut world = Self { core, now, replies: 0, joined: None, offers: Vec::new(), settle: Vec::new() };
        world.join()?;
        Ok(world)
    }

    fn input(&mut self, input: Input) -> Result<Duration> {
        let begun = Instant::now();
        self.core.handle(self.now, input)?;
        let took = begun.elapsed();
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Send { message, .. } => {
                    if let CoordinatorMessage::Offer { epoch, job } = *message {
                        self.offers.push((job.attempt, epoch));
                    }
                }
                Effect::SettleLog { attempt, epoch, .. } => self.settle.push((attempt, epoch)),
                Effect::Reply { reply: Reply::Joined { agent, .. }, .. } => self.joined = Some(agent),
                _ => {}
            }
        }
        Ok(took)
    }

    fn request(&mut self, request: Request) -> Result<Duration> {
        self.replies += 1;
        self.input(Input::Request { reply: ReplyTo(self.replies), actor: somebody(), request })
    }

    fn join(&mut self) -> Result<()> {
        let pool = PoolRow {
            name: "main".to_owned(),
            zone: "corp".to_owned(),
            queues: vec!["default".to_owned()],
            trust: Trust::Trusted,
            tags: TagPolicy::Free(Vec::new()),
            lease_ms: 3_600_000,
            beat_ms: 5_000,
            on_unreachable: OnUnreachable::Wait,
            paused: false,
            created_at: self.now.wall,
        };
        let id = IdSource::from_seed([2; 32]).token(self.now.wall);
        let (secret_hash, key) = (Digest::of(b""), Digest::of(b"key"));
        let (grant, note) = (TokenGrant::join("main".to_owned(), None), String::new());
        let token = NewToken { id, secret_hash, grant, pool: Some(pool), note, expires_at: None };
        self.request(Request::CreateToken(Box::new(token)))?;
        let (name, machine_id, tags) =
            ("one".to_owned(), "one".to_owned(), vec![("os".to_owned(), "linux".to_owned())]);
        let joining = Joining { token: id, secret_hash, key, name: name.clone(), machine_id, tags, address: None };
        self.request(Request::Join(Box::new(joining)))?;
        let hello = Hello {
            name: name.clone(),
            version: String::new(),
            machine_id: name,
            boot_id: "first boot".to_owned(),
            slots: 1,
            capacity: Resources { cpu_millis: 1_000, memory_bytes: 1 << 32 },
            tags: vec![("os".to_owned(), "linux".to_owned())],
            runs_images: false,
            capabilities: Vec::new(),
            host: windlass_protocol::HostFacts::default(),
            held: Vec::new(),
        };
        let agent = self.joined.ok_or("the agent did not join")?;
        self.input(Input::AgentHello { agent, key, conn: CONN, hello: Box::new(hello) })?;
        Ok(())
    }

    fn submit(&mut self, number: u8, graph: Graph) -> Result<Duration> {
        let submit = Submit {
            id: windlass_protocol::BuildId::from_bytes([number; 16]),
            number: None,
            pipeline: "app".to_owned(),
            definition: String::new(),
            graph,
            branch: String::new(),
            commit: "HEAD".to_owned(),
            tag: None,
            message: String::new(),
            origin: Source::Empty,
            source: BuildSource::Api,
            creator: somebody(),
            namespace: Namespace::trusted("app"),
            env: Vec::new(),
            meta_data: BTreeMap::new(),
            keep_workspace: false,
            no_reuse: false,
            rebuilt_from: None,
            triggered_from: None,
            confined: None,
            untrusted: None,
            registration: None,
            idempotency: None,
        };
        self.request(Request::Submit(Box::new(submit)))
    }

    /// Ends what runs, so that its slot is free and given out again.
    fn turn(&mut self) -> Result<Duration> {
        let (attempt, epoch) = self.offers.pop().ok_or("nothing was offered")?;
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
        let agent = self.joined.ok_or("the agent did not join")?;
        let event = AgentEvent::Finished(attempt, epoch, Box::new(outcome));
        let took = self.input(Input::Agent { agent, conn: CONN, event })?;
        let (attempt, epoch) = self.settle.pop().ok_or("no result came of it")?;
        Ok(took + self.input(Input::LogSettled { attempt, epoch, settled: Ok(()) })?)
    }
}

fn somebody() -> Actor {
    Actor { kind: ActorKind::System, name: "example".to_owned() }
}

/// So many steps with a kilobyte of variables each, a wait after every hundred.
fn steps(count: usize, name: &str) -> Result<Graph> {
    let mut text = String::from("steps:\n");
    for step in 0..count {
        if step % 100 == 99 {
            text.push_str("  - wait\n");
        }
        let value = "x".repeat(100);
        let env: Vec<String> = (0..3).map(|n| format!("NAME_{n}: {value}")).collect();
        text.push_str(&format!("  - {{ command: make, key: {name}-{step}, env: {{ {} }} }}\n", env.join(", ")));
    }
    compile(&text, "pipeline.yml", &[]).graph.ok_or_else(|| "the text does not compile".into())
}

fn main() -> Result<()> {
    for jobs in [1_000, 9_000] {
        let (mut world, graph, upload) = (World::new()?, steps(jobs, "s")?, steps(490, "u")?);
        // As it was done before: all nodes copied, and all of that again where they are linked.
        let begun = Instant::now();
        let copied = graph.clone();
        drop(copied.clone().with(0, 0, upload.clone())?);
        let before = begun.elapsed();
        let begun = Instant::now();
        let outline = Graph {
            nodes: graph.nodes.iter().map(windlass_pipeline::graph::Node::outline).collect(),
            ..Graph::default()
        };
        drop(outline.with(0, 0, upload.clone())?);
        let after = begun.elapsed();
        let submit = world.submit(1, graph)?;
        let (attempt, epoch) = *world.offers.last().ok_or("nothing was offered")?;
        let upload = Upload {
            attempt,
            epoch: Some(epoch),
            id: "one".to_owned(),
            definition: String::new(),
            graph: upload,
            replace: false,
        };
        let whole = world.request(Request::Upload(Box::new(upload)))?;
        println!(
            "{jobs} jobs: submit {submit:?}; 490 steps linked {before:?} before, {after:?} now; the whole upload {whole:?}"
        );
    }
    for lines in [10_u32, 1_000, 9_000] {
        let mut world = World::new()?;
        let mut graph = steps(usize::try_from(lines)?, "s")?;
        for (index, node) in (0_u32..).zip(&mut graph.nodes) {
            node.depends_on.clear();
            if let NodeKind::Command(command) = &mut node.kind {
                command.tags = vec![("os".to_owned(), "linux".to_owned()), ("only".to_owned(), index.to_string())];
            }
        }
        world.submit(1, graph)?;
        world.submit(2, steps(99, "t")?)?;
        let took = (0..90).map(|_| world.turn()).sum::<Result<Duration>>()?;
        println!("{lines} lines that nobody serves: a freed slot costs {:?}", took / 90);
    }
    Ok(())
}
