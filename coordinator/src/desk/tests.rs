//! The loop around a double of the core, over a store that tests hold up, fill up and break.

mod double;
mod order;

use std::sync::Arc;
use std::time::Duration;

use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::{Actor, ActorKind, BuildSource, Submit};
use windlass_coordinator_store::{Fault, MemoryStore, Retention, Space, Store, WriterEpoch};
use windlass_protocol::job::Source;
use windlass_protocol::{AgentId, BuildId, Namespace, WallMs, limits};

use self::double::{Double, Entry, Gate, Journal, Recorder};
use super::{Desk, DeskEnd, DeskError, DeskHandle, Ports, channel};
use crate::clock::RuntimeClock;
use crate::views::Views;
use crate::writer::Writer;

/// Everything of a desk that runs.
struct Bench {
    handle: DeskHandle<Double>,
    store: MemoryStore,
    gate: Arc<Gate>,
    journal: Arc<Journal>,
    views: Views,
    end: tokio::task::JoinHandle<DeskEnd>,
}

impl Bench {
    /// A desk whose store is written by a thread, through an open gate.
    fn threaded() -> Self {
        Self::over(|store| Writer::threaded(store).unwrap())
    }

    /// A desk without threads.
    fn inline() -> Self {
        Self::over(|store| Writer::inline(store).unwrap())
    }

    fn over(writer: impl FnOnce(Box<dyn Store>) -> (Writer, crate::writer::Loaded)) -> Self {
        let store = MemoryStore::new();
        let (gate, journal) = (Arc::new(Gate::default()), Arc::new(Journal::default()));
        let (writer, loaded) = writer(Box::new(gate.guard(store.clone(), Arc::clone(&journal))));
        let (handle, inbox) = channel();
        let recorder = Arc::new(Recorder(Arc::clone(&journal)));
        let views = Views::default();
        let ports = Ports {
            clock: Arc::new(RuntimeClock::starting_at(WallMs(1_700_000_000_000))),
            fleet: recorder.clone(),
            logs: recorder.clone(),
            keys: Arc::new(crate::desk::NoKeys),
            orders: recorder.clone(),
            deliveries: Arc::new(crate::desk::NoDeliveries),
            views: views.clone(),
            meter: recorder,
        };
        let for_cores = Arc::clone(&journal);
        let desk = Desk::new(inbox, writer, loaded, move |_, rows| Double::new(&for_cores, &rows), ports);
        Self { handle, store, gate, journal, views, end: tokio::spawn(desk.run()) }
    }

    /// Asks for the effects that `plan` names (see [`Double`]).
    fn ask(&self, plan: &str) -> tokio::task::JoinHandle<Result<Reply, DeskError>> {
        let (handle, request) = (self.handle.clone(), cancel(plan));
        tokio::spawn(async move { handle.request(actor(), request).await })
    }

    async fn agent(&self, plan: &str) {
        self.handle.agent_input(said(plan)).await.unwrap();
    }

    /// Fills the agents' queue before anything of it is served: there is one thread, and nothing here yields it.
    async fn agents_at_once(&self, plans: &[&str]) {
        let fill = async {
            for plan in plans {
                self.agent(plan).await;
            }
        };
        tokio::task::unconstrained(fill).await;
    }

    /// Stops the desk and waits for its end.
    async fn stop(self) -> DeskEnd {
        self.gate.open();
        self.handle.stop();
        in_time(self.end).await.unwrap()
    }
}

/// A deadline for what must happen.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it happens within a minute")
}

fn actor() -> Actor {
    Actor { kind: ActorKind::Token, name: "ci".to_owned() }
}

fn cancel(plan: &str) -> Request {
    Request::CancelBuild { build: BuildId::from_bytes([1; 16]), detail: plan.to_owned() }
}

fn said(plan: &str) -> Input {
    let conn = windlass_coordinator_core::input::ConnId(1);
    Input::AgentGone { agent: AgentId::from_bytes([5; 16]), conn, detail: plan.to_owned() }
}

fn submit() -> Request {
    Request::Submit(Box::new(Submit {
        id: BuildId::from_bytes([6; 16]),
        number: None,
        pipeline: "web".to_owned(),
        registration: None,
        definition: String::new(),
        graph: windlass_pipeline::graph::Graph::default(),
        branch: String::new(),
        commit: String::new(),
        tag: None,
        message: String::new(),
        origin: Source::Empty,
        source: BuildSource::Api,
        creator: actor(),
        namespace: Namespace::trusted("web"),
        env: vec![],
        meta_data: std::collections::BTreeMap::new(),
        keep_workspace: false,
        no_reuse: false,
        rebuilt_from: None,
        triggered_from: None,
        confined: None,
        untrusted: None,
        idempotency: None,
    }))
}

#[tokio::test]
async fn what_changes_nothing_is_said_at_once_even_while_the_store_stands_still() {
    let bench = Bench::threaded();
    assert_eq!(in_time(bench.ask("r")).await.unwrap(), Ok(Reply::Done));
    bench.gate.close();
    let slow = bench.ask("cr");
    in_time(bench.gate.entered(1)).await;
    let behind = bench.ask("r");
    bench.handle.look(|_| ()).await.unwrap();
    assert!(!slow.is_finished() && !behind.is_finished(), "both speak of what is not yet durable");
    bench.gate.open();
    assert_eq!((in_time(slow).await.unwrap(), in_time(behind).await.unwrap()), (Ok(Reply::Done), Ok(Reply::Done)));
    assert_eq!(bench.stop().await, DeskEnd::Stopped);
}

#[tokio::test]
async fn while_the_store_is_slow_the_next_batch_grows() {
    let bench = Bench::threaded();
    bench.gate.close();
    let first = bench.ask("cr");
    in_time(bench.gate.entered(1)).await;
    let rest: Vec<_> = (0..63).map(|_| bench.ask("cr")).collect();
    // Once a look has been served, everything that was asked before it has been, too.
    tokio::task::yield_now().await;
    in_time(bench.handle.look(|_| ())).await.unwrap();
    bench.gate.open();
    for answer in std::iter::once(first).chain(rest) {
        assert_eq!(in_time(answer).await.unwrap(), Ok(Reply::Done));
    }
    assert_eq!(bench.store.commits(), [1, 63]);
    bench.stop().await;
}

#[tokio::test]
async fn a_failed_commit_says_nothing_of_it_and_the_core_is_loaded_again() {
    let bench = Bench::threaded();
    assert_eq!(in_time(bench.ask("cr")).await.unwrap(), Ok(Reply::Done));
    bench.gate.close();
    let failing = bench.ask("csr");
    in_time(bench.gate.entered(2)).await;
    let behind = [bench.ask("r"), bench.ask("csr"), bench.ask("x")];
    tokio::task::yield_now().await;
    in_time(bench.handle.look(|_| ())).await.unwrap();
    bench.store.fail_next(Fault::Io { doing: "commit", detail: "the cable is loose".to_owned() });
    bench.gate.open();
    assert_eq!(in_time(failing).await.unwrap(), Err(DeskError::Unavailable));
    for answer in behind {
        assert_eq!(in_time(answer).await.unwrap(), Err(DeskError::Unavailable));
    }
    in_time(bench.journal.wait_for(|entries| entries.iter().any(|e| matches!(e, Entry::Made { durable: 1, .. }))))
        .await;
    let entries = bench.journal.entries();
    assert_eq!(entries.iter().filter(|entry| **entry == Entry::DisconnectedAll).count(), 1);
    assert!(!entries.iter().any(|entry| matches!(entry, Entry::Said(_))), "{entries:?}");
    assert_eq!(entries.iter().filter(|entry| matches!(entry, Entry::Failed)).count(), 1);
    // The new core stands on the one change that was durable, and goes on.
    assert_eq!(in_time(bench.ask("csr")).await.unwrap(), Ok(Reply::Done));
    assert_eq!(bench.store.commits(), [1, 1]);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn loading_is_tried_again_with_growing_pauses_and_asking_meanwhile_is_answered() {
    let bench = Bench::inline();
    let io = || Fault::Io { doing: "read", detail: "no".to_owned() };
    (0..5).for_each(|_| bench.store.fail_next(io()));
    let begun = tokio::time::Instant::now();
    assert_eq!(bench.ask("cr").await.unwrap(), Err(DeskError::Unavailable));
    assert_eq!(bench.ask("r").await.unwrap(), Err(DeskError::Unavailable));
    bench.agent("s").await;
    bench.journal.wait_for(|entries| entries.iter().any(|entry| matches!(entry, Entry::Made { .. }))).await;
    bench.journal.wait_for(|entries| entries.iter().filter(|e| matches!(e, Entry::Made { .. })).count() == 2).await;
    // 100 + 200 + 400 + 800 + 1600 ms.
    let waited = begun.elapsed().as_millis();
    assert!((3_100..3_300).contains(&waited), "{waited} ms");
    assert_eq!(bench.ask("cr").await.unwrap(), Ok(Reply::Done));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_new_builds_only_and_takes_them_again_when_there_is_space() {
    let bench = Bench::inline();
    assert_eq!(bench.handle.request(actor(), submit()).await, Ok(Reply::Done));
    bench.store.fail_next(Fault::DiskFull);
    bench.store.set_low(true);
    assert_eq!(bench.ask("cr").await.unwrap(), Err(DeskError::StorageFull));
    bench.journal.wait_for(|entries| entries.iter().filter(|e| matches!(e, Entry::Made { .. })).count() == 2).await;
    assert_eq!(bench.handle.request(actor(), submit()).await, Err(DeskError::StorageFull));
    assert_eq!(bench.ask("cr").await.unwrap(), Ok(Reply::Done), "what runs goes on");
    assert_eq!(bench.handle.request(actor(), submit()).await, Err(DeskError::StorageFull));
    bench.store.set_low(false);
    bench.journal.wait_for(|entries| entries.contains(&Entry::Space(Space::Enough))).await;
    assert_eq!(bench.handle.request(actor(), submit()).await, Ok(Reply::Done));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_others_fill_is_known_as_full_before_a_build_is_taken() {
    let bench = Bench::inline();
    assert_eq!(bench.handle.request(actor(), submit()).await, Ok(Reply::Done));
    bench.store.set_low(true);
    bench.journal.wait_for(|entries| entries.contains(&Entry::Space(Space::Low))).await;
    assert_eq!(bench.handle.request(actor(), submit()).await, Err(DeskError::StorageFull), "without a commit between");
    bench.stop().await;
}

#[tokio::test]
async fn another_writer_ends_the_desk() {
    let mut bench = Bench::threaded();
    assert_eq!(bench.store.claim(), Ok(WriterEpoch(2)));
    assert_eq!(in_time(bench.ask("cr")).await.unwrap(), Err(DeskError::Unavailable));
    let fenced = Fault::Fenced { held: WriterEpoch(2), got: WriterEpoch(1) };
    assert_eq!(in_time(&mut bench.end).await.unwrap(), DeskEnd::Fenced(fenced));
    assert_eq!(bench.ask("r").await.unwrap(), Err(DeskError::ShuttingDown));
}

#[tokio::test]
async fn stopping_makes_durable_what_was_taken_and_refuses_the_rest() {
    let bench = Bench::threaded();
    bench.gate.close();
    let first = bench.ask("cr");
    in_time(bench.gate.entered(1)).await;
    let second = bench.ask("cr");
    tokio::task::yield_now().await;
    bench.handle.look(|_| ()).await.unwrap();
    let (handle, store) = (bench.handle.clone(), bench.store.clone());
    assert_eq!(bench.stop().await, DeskEnd::Stopped);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(Reply::Done), Ok(Reply::Done)));
    assert_eq!(store.commits(), [1, 1]);
    assert_eq!(handle.request(actor(), cancel("r")).await, Err(DeskError::ShuttingDown));
    assert_eq!(handle.agent_input(said("s")).await, Err(DeskError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_agents_keeps_no_client_waiting_for_more_than_a_turn() {
    let bench = Bench::inline();
    let handle = bench.handle.clone();
    let mut asked = std::pin::pin!(handle.request(actor(), cancel("r")));
    // Polled once, the request stands in its queue.
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(asked.as_mut().poll(context))).await;
    assert!(first.is_pending());
    bench.agents_at_once(&vec!["n"; limits::CORE_QUEUE_MAX]).await;
    assert_eq!(asked.await, Ok(Reply::Done));
    let entries = bench.journal.entries();
    let before = entries.iter().position(|entry| *entry == Entry::Asked).unwrap();
    assert!(before <= limits::TURN_MAX_INPUTS, "{before} inputs of agents came first");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn timers_wait_for_messages_that_are_here_but_not_for_ever() {
    let bench = Bench::inline();
    let mut plans = vec!["n"; limits::CORE_QUEUE_MAX];
    plans[0] = "t";
    bench.agents_at_once(&plans).await;
    bench.journal.wait_for(|entries| entries.contains(&Entry::Timer)).await;
    let served = |entries: &[Entry]| entries.iter().filter(|entry| **entry == Entry::Heard).count();
    let before = bench.journal.entries().iter().position(|entry| *entry == Entry::Timer).unwrap();
    let heard = served(&bench.journal.entries()[..before]);
    assert_eq!(heard, limits::CORE_QUEUE_MAX, "beats that are here count before anyone is called lost");
    bench.stop().await;
}

#[tokio::test]
async fn retention_goes_between_commits_and_its_fault_harms_nobody_else() {
    let bench = Bench::threaded();
    let retention = Retention {
        builds_before: WallMs(1),
        idempotency_before: WallMs(1),
        agents_before: WallMs(1),
        audit_before: WallMs(1),
        artifacts_at: WallMs(1),
        notifications_before: WallMs(0),
        max_builds: 1,
    };
    assert!(in_time(bench.handle.expire(retention)).await.unwrap().builds.is_empty());
    bench.store.fail_next(Fault::DiskFull);
    assert_eq!(in_time(bench.handle.expire(retention)).await, Err(DeskError::StorageFull));
    assert_eq!(in_time(bench.ask("cr")).await.unwrap(), Ok(Reply::Done));
    assert_eq!(bench.views.published().0, 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_left_is_not_served() {
    let bench = Bench::threaded();
    bench.gate.close();
    let first = bench.ask("cr");
    in_time(bench.gate.entered(1)).await;
    let left = bench.ask("cr");
    left.abort();
    assert!(left.await.is_err());
    bench.gate.open();
    in_time(first).await.unwrap().unwrap();
    let store = bench.store.clone();
    bench.stop().await;
    assert!(store.commits().len() == 1, "{:?}", store.commits());
}
