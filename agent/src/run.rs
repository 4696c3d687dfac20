//! The loop around the agent's core: everything that happens goes in, everything that it wants done comes out.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{Connection, Endpoint};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use windlass_agent_core::{AgentConfig, AgentCore, Bugs, ConnId, Effect, Exit, Input, Signal};
use windlass_agent_runner::docker::Engine;
use windlass_agent_runner::{Runner, Spawner};
use windlass_cache::{RealFs, Store, StoreOptions, TableCopy};
use windlass_protocol::host::now;
use windlass_protocol::identity::Standing;
use windlass_protocol::job::Resources;
use windlass_protocol::limits::{
    AGENT_INPUTS_MAX, COPY_EVERY_MS, FINGERPRINT_LOOK_MS, HEALTH_MS, JOIN_PAUSE_MAX_MS, JOIN_PAUSE_MIN_MS,
    KILL_VERIFY_MS, TURN_MAX_INPUTS,
};
use windlass_protocol::link::{Code, Protocol, bind_client, bind_server};
use windlass_protocol::message::{AgentMessage, CoordinatorMessage, RefuseCode};
use windlass_protocol::version::{BRING_1, CHUNKS_2, PARTS_1};
use windlass_protocol::{HostFacts, Instant64};

use crate::ahead::Ahead;
use crate::bulk::Bulk;
use crate::config::{Config, PeerListen};
use crate::error::Fault;
use crate::fingerprint::Fingerprint;
use crate::git::Git;
use crate::home::Home;
use crate::hooks::Hooks;
use crate::host::{BootId, Host, boot_id, machine_id};
use crate::identity::{Identity, JoinKey, usable};
use crate::job_api::JobApi;
use crate::jobs::{Ground, Jobs};
use crate::leftovers::Leftovers;
use crate::peer::Peers;
use crate::phases::Rules;
use crate::plugins::Plugins;
use crate::room;
use crate::session::{Dial, Session};
use crate::stock::{self, Trees};
use crate::workspace::{Sources, Spares};

/// Why the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It finished what it had and left.
    Drained,
    /// It was told to end at once.
    Quit,
    /// The coordinator will never serve it.
    Refused(RefuseCode),
}

/// Runs an agent until it leaves. `signals` are the machine owner's words (SIGTERM and the like), in order.
///
/// # Errors
/// [`Fault`] where it cannot start. Once it runs, nothing but its end stops it.
pub async fn run(config: Config, mut signals: mpsc::Receiver<Signal>) -> Result<Ended, Fault> {
    // First of all, while this process is small.
    let arguments: Vec<&str> = config.spawner.1.iter().map(String::as_str).collect();
    let spawner = Spawner::start(&config.spawner.0, &arguments)
        .map_err(|source| Fault::System { doing: "the spawner cannot be started", source })?;
    let home = if config.ephemeral_identity { Home::open_anywhere(&config.data)? } else { Home::open(&config.data)? };
    let mirrors = config.phases.git_mirrors_path.clone().map(|path| (path, config.phases.git_mirrors_limits));
    let git = Git::new(config.git_credentials.clone(), config.git_protocols.clone(), mirrors)?;
    let endpoint = bind_client().map_err(|source| Fault::System { doing: "no UDP socket can be had", source })?;
    let machine = machine_id();
    let identity = match kept(&home, &config)? {
        Some(identity) => identity,
        None => tokio::select! {
            joined = join(&home, &config, &endpoint, &machine) => joined?,
            _ = signals.recv() => return Ok(Ended::Quit),
        },
    };
    let engine = Engine::new(&config.docker_socket, identity.named().agent);
    match engine.connect().await {
        Ok(api) => tracing::info!(api, "container_engine_found"),
        Err(error) => tracing::info!(%error, "no_container_engine"),
    }
    let facts = fingerprint(&config, &machine).watch(Duration::from_millis(FINGERPRINT_LOOK_MS)).await;
    let shell = Shell::new(config, home, identity, endpoint, Tools { spawner, engine, git, facts }, machine)?;
    let unread = |source| Fault::System { doing: "earlier jobs cannot be read", source };
    shell.jobs.remove_leftovers().map_err(unread)?;
    shell.run(signals).await
}

/// The identity of the data directory, if there is one that is still good for something. One whose certificate can not
/// even be renewed joins again with its key, and is the same agent.
fn kept(home: &Home, config: &Config) -> Result<Option<Identity>, Fault> {
    if config.ephemeral_identity {
        return Ok(None);
    }
    let identity = Identity::load(home)?;
    Ok(identity.filter(|identity| identity.standing(now().wall) != Standing::Past))
}

/// Joins, waiting for a coordinator that cannot be reached yet or says that it will be otherwise later.
async fn join(home: &Home, config: &Config, endpoint: &Endpoint, machine: &str) -> Result<Identity, Fault> {
    let key = JoinKey::of(home, config.ephemeral_identity)?;
    let mut longest = JOIN_PAUSE_MIN_MS;
    loop {
        match Identity::join(&key, config, endpoint, machine).await {
            Err(fault @ (Fault::Unreachable { .. } | Fault::Address { .. })) => {
                tracing::warn!(error = %fault, "not_joined_yet");
            }
            Err(Fault::Refused { code, detail }) if !code.permanent() => {
                tracing::warn!(?code, detail, "not_joined_yet");
            }
            other => return other,
        }
        let pause = JOIN_PAUSE_MIN_MS + seed() % longest;
        longest = (longest * 2).min(JOIN_PAUSE_MAX_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// What jobs are prepared and run with.
struct Tools {
    spawner: Spawner,
    engine: Engine,
    git: Git,
    facts: watch::Receiver<HostFacts>,
}

/// The core with everything that it speaks to.
struct Shell {
    core: AgentCore,
    jobs: Jobs,
    identity: Identity,
    endpoint: Endpoint,
    servers: Vec<String>,
    session: Option<Session>,
    /// The session's connection, for what jobs ask.
    link: watch::Sender<Option<Connection>>,
    dialling: Option<AbortHandle>,
    next_conn: u64,
    inputs: mpsc::Receiver<Input>,
    feed: mpsc::Sender<Input>,
    dialled: mpsc::Receiver<Dialled>,
    dials: mpsc::Sender<Dialled>,
    bulk: Arc<Bulk>,
    /// What the coordinator has brought ahead of jobs.
    ahead: Ahead,
    /// Whether it takes work.
    takes: watch::Sender<bool>,
    /// What the machine is; it is said with each hello.
    facts: watch::Receiver<HostFacts>,
    /// Agents of the same zone, and where they reach this one.
    peers: Arc<Peers>,
    peer_listen: PeerListen,
    renew_asked: Option<Instant64>,
    store: Store,
    /// When it was last looked whether its table is worth copying.
    table_looked_at: Instant64,
    ended: Option<Exit>,
}

/// What came of dialling.
enum Dialled {
    Session(Session),
    Renewed(ConnId, Vec<Vec<u8>>),
    Failed(ConnId, Fault),
}

impl Shell {
    fn new(
        config: Config,
        home: Home,
        identity: Identity,
        endpoint: Endpoint,
        tools: Tools,
        machine: String,
    ) -> Result<Self, Fault> {
        let Tools { spawner, engine, git, mut facts } = tools;
        let (feed, inputs) = mpsc::channel(AGENT_INPUTS_MAX);
        let (dials, dialled) = mpsc::channel(4);
        let options = StoreOptions { floor_bytes: config.cache_floor_bytes, ..StoreOptions::lazy(config.cache_bytes) };
        let store = Store::open(Arc::new(RealFs), &home.cache(), options).map_err(Fault::Cache)?;
        let (bulk, peers) = bulk(&config, &identity, &endpoint, &store)?;
        let (runs_images, trees) = watch_engine(config.alone, &engine, &feed);
        let host = Host::new(home.root().to_owned(), Arc::clone(&runs_images), Arc::clone(&peers))
            .map_err(|source| Fault::System { doing: "the machine does not tell its memory", source })?;
        let boot =
            boot_id().map_err(|source| Fault::System { doing: "this run of the machine is not known", source })?;
        let mut core_config = core_config(&config, &host, (machine, &boot), runs_images.load(Ordering::Relaxed));
        core_config.host = facts.borrow_and_update().clone();
        watch_disks(host, &store, &feed);
        let (link, jobs_link) = watch::channel(None);
        let api = JobApi::new(&home, jobs_link, Arc::clone(&bulk))
            .map_err(|source| Fault::System { doing: "the jobs' command cannot be laid out", source })?;
        let rules = rules(&config, &home, &git)?;
        let spares = Spares::new(home.work())
            .map_err(|source| Fault::System { doing: "earlier workspaces cannot be listed", source })?;
        let ground = Arc::new(Ground {
            api,
            rules,
            runner: Runner::new(spawner, home.jobs()),
            engine,
            leftovers: Leftovers::default(),
            home,
            sources: Sources { store: store.clone(), bulk: Arc::clone(&bulk), git, trees },
            spares,
            inputs: feed.clone(),
            agent: identity.named().clone(),
            name: config.name,
            boot,
            slot_user_base: config.slot_user_base,
        });
        let (takes, taking) = watch::channel(true);
        let ahead = Ahead::new(Arc::clone(&bulk), store.clone(), ground.sources.trees.clone(), taking);
        let mut jobs = Jobs::new(ground);
        let adopted = jobs.adopt().map_err(|source| Fault::System { doing: "earlier jobs cannot be read", source })?;
        if adopted.memory_lost {
            // What the machine has forgotten counts as started, as after a crash of it (docs/design/014).
            core_config.boot_id = format!("{} without memory since {}", core_config.boot_id, now().wall.0);
        }
        Ok(Self {
            core: AgentCore::new(now(), core_config, adopted.found),
            jobs,
            identity,
            endpoint,
            servers: config.servers,
            session: None,
            link,
            dialling: None,
            next_conn: 0,
            inputs,
            feed,
            dialled,
            dials,
            bulk,
            ahead,
            takes,
            facts,
            peers,
            peer_listen: config.peer_listen,
            renew_asked: None,
            store,
            table_looked_at: now().mono,
            ended: None,
        })
    }

    async fn run(mut self, mut signals: mpsc::Receiver<Signal>) -> Result<Ended, Fault> {
        loop {
            self.ask_for_certificate();
            self.copy_table_when_due();
            while let Some(effect) = self.core.poll_effect() {
                self.act(effect);
            }
            if let Some(exit) = self.ended {
                return Ok(self.leave(exit).await);
            }
            let due = self.core.poll_timeout().unwrap_or(Instant64(u64::MAX));
            let wait = Duration::from_millis(due.since_ms(now().mono).min(HEALTH_MS).min(self.certificate_due_ms()));
            tokio::select! {
                biased;
                Some(signal) = signals.recv() => self.handle(Input::Signal(signal)),
                Some(dialled) = self.dialled.recv() => self.connected(dialled),
                Ok(()) = self.facts.changed() => self.tell_facts(),
                Some(input) = self.inputs.recv() => {
                    self.handle(input);
                    for _ in 1..TURN_MAX_INPUTS {
                        let Ok(input) = self.inputs.try_recv() else { break };
                        self.handle(input);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            let at = now();
            if self.core.poll_timeout().is_some_and(|due| due <= at.mono) {
                self.core.handle_timeout(at);
            }
        }
    }

    /// Where the next start would read for long, the table of its cache is copied.
    fn copy_table_when_due(&mut self) {
        let at = now().mono;
        if at.since_ms(self.table_looked_at) >= COPY_EVERY_MS {
            self.table_looked_at = at;
            let store = self.store.clone();
            tokio::task::spawn_blocking(move || told_copy(store.copy_table_when_due()));
        }
    }

    fn handle(&mut self, input: Input) {
        // The end of a connection that was replaced is no news; the core would take it for the end of its successor.
        if let Input::ConnectionLost { conn } = input
            && conn != ConnId(self.next_conn)
        {
            return;
        }
        if let Input::Message { conn, message: CoordinatorMessage::Peers { key, peers } } = &input {
            // What an older connection still brings is older than what the newest one brought.
            if *conn == ConnId(self.next_conn) {
                self.peers.told(*key, peers);
            }
            return;
        }
        if let Input::Message { conn, message: CoordinatorMessage::Knows { abilities } } = &input {
            if *conn == ConnId(self.next_conn) {
                self.bulk.told(abilities);
            }
            return;
        }
        if let Err(rejected) = self.core.handle(now(), input) {
            tracing::debug!(%rejected, "input_rejected");
        }
    }

    /// The machine is not what it has said: it says so on a new connection.
    fn tell_facts(&mut self) {
        let facts = self.facts.borrow_and_update().clone();
        tracing::info!(system = facts.system, "machine_changed");
        self.core.set_host(facts);
        if let Some(session) = &self.session {
            session.connection.close(Code::Done.number(), b"the machine has changed");
        }
    }

    fn connected(&mut self, dialled: Dialled) {
        match dialled {
            Dialled::Session(session) if session.conn != ConnId(self.next_conn) => {
                // Given up before it was there.
                tokio::spawn(session.end(true));
            }
            Dialled::Session(session) => {
                let conn = session.conn;
                // What this coordinator can do it says after the hello.
                self.bulk.told(&[]);
                self.bulk.renew();
                tokio::spawn(self.ahead.clone().serve(session.connection.clone()));
                self.link.send_replace(Some(session.connection.clone()));
                self.session = Some(session);
                self.handle(Input::Connected { conn });
            }
            Dialled::Renewed(conn, chain) => {
                self.install(chain);
                self.redial_bulk();
                self.handle(Input::ConnectionLost { conn });
            }
            Dialled::Failed(conn, Fault::Refused { code, detail }) if code.permanent() => {
                // Said while renewing, before there was a session: the core hears it as if there were one.
                let message = CoordinatorMessage::Refuse { code, detail };
                self.handle(Input::Connected { conn });
                self.handle(Input::Message { conn, message });
            }
            Dialled::Failed(conn, fault) => {
                tracing::info!(error = %fault, source = ?std::error::Error::source(&fault).map(ToString::to_string), "not_connected");
                self.handle(Input::ConnectionLost { conn });
            }
        }
    }

    /// Begins what the core wants done. Nothing here waits or touches a disk: the beats are sent from this task.
    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Say { conn, message } => {
                if let Some(session) = self.session.as_ref().filter(|session| session.conn == conn) {
                    let first = matches!(*message, AgentMessage::Hello(_));
                    if let Some(takes) = takes_work(&message) {
                        self.takes.send_replace(takes);
                    }
                    session.say(*message);
                    if let Some(address) = self.address(&session.connection).filter(|_| first) {
                        session.say(AgentMessage::Serves { address });
                    }
                }
            }
            Effect::Prepare { slot, epoch, job } => self.jobs.prepare(slot, epoch, job),
            Effect::Start { attempt, epoch, start_before } => self.jobs.start(attempt, epoch, start_before),
            Effect::Adopt { attempt, epoch } => self.jobs.adopt_epoch(attempt, epoch),
            Effect::Cancel { attempt, cause, grace_ms } => self.jobs.cancel(attempt, cause, grace_ms),
            Effect::Kill { attempt } => self.jobs.kill(attempt),
            Effect::RenewLease { attempt, deadline } => self.jobs.renew(attempt, deadline),
            Effect::SendLog { conn, attempt, epoch, from_offset } => {
                if let Some(session) = self.session.as_ref().filter(|session| session.conn == conn) {
                    self.jobs.send_log(session.connection.clone(), attempt, epoch, from_offset);
                }
            }
            Effect::StopLog { attempt } => self.jobs.stop_log(attempt),
            Effect::TrimLog { attempt, below } => self.jobs.trim_log(attempt, below),
            Effect::ForgetAttempt { attempt } => self.jobs.forget(attempt),
            Effect::InstallCertificate { chain } => {
                self.install(chain);
                self.redial_bulk();
            }
            Effect::Reconnect { after_ms, renew_first } => self.reconnect(after_ms, renew_first),
            Effect::Leave { exit } => self.ended = Some(exit),
        }
    }

    /// Ends the connection and dials again after a pause.
    fn reconnect(&mut self, after_ms: u64, renew_first: bool) {
        if let Some(session) = self.session.take() {
            tokio::spawn(session.end(true));
        }
        if let Some(earlier) = self.dialling.take() {
            earlier.abort();
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let renew = renew_first || !usable(&self.identity);
        let prepared =
            self.identity.client_config(Protocol::Agent).and_then(|config| Ok((config, self.identity.csr()?)));
        let (dials, inputs, endpoint) = (self.dials.clone(), self.feed.clone(), self.endpoint.clone());
        let servers = self.servers.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let dialled = match prepared {
                Err(error) => Dialled::Failed(conn, error.into()),
                Ok((config, csr)) => {
                    let dial = Dial { endpoint, servers, config };
                    dial_once(&dial, conn, renew.then_some(csr), inputs).await
                }
            };
            // The loop is gone only when the agent leaves.
            let _ = dials.send(dialled).await;
        });
        self.dialling = Some(task.abort_handle());
    }

    /// Where others of the zone reach this agent, if it serves them.
    fn address(&self, connection: &Connection) -> Option<String> {
        let listen = match self.peer_listen {
            PeerListen::Off => return None,
            PeerListen::Anywhere => None,
            PeerListen::At(listen) => Some(listen),
        };
        crate::peer::advertised(listen, connection.remote_address(), self.peers.port()?)
    }

    fn install(&mut self, chain: Vec<Vec<u8>>) {
        self.renew_asked = None;
        match self.identity.install(chain) {
            Ok(()) => tracing::info!(until = self.identity.named().not_after.0, "certificate_renewed"),
            Err(error) => tracing::error!(%error, "certificate_not_installed"),
        }
    }

    fn redial_bulk(&self) {
        match self.identity.client_config(Protocol::Bulk) {
            Ok(config) => {
                let dial = Dial { endpoint: self.endpoint.clone(), servers: self.servers.clone(), config };
                self.bulk.redial(dial);
            }
            Err(error) => tracing::error!(%error, "bulk_link_not_renewed"),
        }
        match self.identity.shown() {
            Ok(shown) => self.peers.show(shown),
            Err(error) => tracing::error!(%error, "peers_not_shown_certificate"),
        }
    }

    /// Until [`Self::ask_for_certificate`] has something to do.
    fn certificate_due_ms(&self) -> u64 {
        let at = now();
        match self.renew_asked {
            Some(asked) => asked.plus_ms(self.identity.ask_again_ms()).since_ms(at.mono),
            None => self.identity.renew_at().0.saturating_sub(at.wall.0),
        }
    }

    /// At two thirds of the certificate's life, and again after a while until there is a new one.
    fn ask_for_certificate(&mut self) {
        if self.certificate_due_ms() > 0 {
            return;
        }
        let at = now();
        self.renew_asked = Some(at.mono);
        match self.identity.csr() {
            Ok(csr) => self.handle(Input::CertificateDue { csr }),
            Err(error) => tracing::error!(%error, "certificate_request_failed"),
        }
    }

    /// Waits until what was told to be killed is gone; a supervisor that was told goes on without the agent.
    async fn see_killed_off(&mut self) {
        let mut left = self.jobs.killing();
        let gone = async {
            while !left.is_empty() {
                match self.inputs.recv().await {
                    Some(Input::RunnerGone { attempt } | Input::Ended { attempt, .. }) => drop(left.remove(&attempt)),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if tokio::time::timeout(Duration::from_millis(KILL_VERIFY_MS), gone).await.is_err() {
            tracing::error!(attempts = left.len(), "processes_not_seen_gone");
        }
    }

    async fn leave(mut self, exit: Exit) -> Ended {
        if let Some(session) = self.session.take() {
            session.end(false).await;
        }
        self.see_killed_off().await;
        // The bulk connection would keep itself alive for ever; and a peer that is gone is not waited for.
        self.endpoint.close(Code::Done.number(), b"the agent leaves");
        self.peers.close();
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
        let store = self.store;
        if let Err(error) = tokio::task::spawn_blocking(move || told_copy(store.copy_table())).await {
            tracing::error!(%error, "table_not_copied");
        }
        match exit {
            Exit::Drained => Ended::Drained,
            Exit::Quit => Ended::Quit,
            Exit::Refused(code) => Ended::Refused(code),
        }
    }
}

/// Without a copy the next start takes longer, and is right all the same.
fn told_copy(copied: Result<Option<TableCopy>, windlass_cache::Fault>) {
    match copied {
        Ok(Some(TableCopy { rows, bytes, .. })) => tracing::info!(rows, bytes, "table_copied"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "table_not_copied"),
    }
}

/// How long a leaving agent waits for the coordinator to take its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whether an agent takes work from what it says on, where that is about it.
const fn takes_work(message: &AgentMessage) -> Option<bool> {
    match message {
        AgentMessage::Draining | AgentMessage::Goodbye { .. } => Some(false),
        AgentMessage::Resumed => Some(true),
        AgentMessage::Hello(_)
        | AgentMessage::Beat { .. }
        | AgentMessage::Accepted { .. }
        | AgentMessage::Refused { .. }
        | AgentMessage::Started { .. }
        | AgentMessage::Finished { .. }
        | AgentMessage::Stopped { .. }
        | AgentMessage::Renew { .. }
        | AgentMessage::Serves { .. }
        | AgentMessage::Stock { .. } => None,
    }
}

async fn dial_once(dial: &Dial, conn: ConnId, renew: Option<Vec<u8>>, inputs: mpsc::Sender<Input>) -> Dialled {
    match renew {
        Some(csr) => match dial.renew(csr).await {
            Ok(chain) => Dialled::Renewed(conn, chain),
            Err(fault) => Dialled::Failed(conn, fault),
        },
        None => match dial.session(conn, inputs).await {
            Ok(session) => Dialled::Session(session),
            Err(fault) => Dialled::Failed(conn, fault),
        },
    }
}

/// What fetches blobs, and the agents of the zone that it fetches from and gives to.
fn bulk(
    config: &Config,
    identity: &Identity,
    endpoint: &Endpoint,
    store: &Store,
) -> Result<(Arc<Bulk>, Arc<Peers>), Fault> {
    let dial = Dial {
        endpoint: endpoint.clone(),
        servers: config.servers.clone(),
        config: identity.client_config(Protocol::Bulk)?,
    };
    let peers = peers(config.peer_listen, identity)?;
    let bulk = Bulk::new(dial, store.clone(), Arc::clone(&peers));
    peers.serve(&bulk);
    Ok((bulk, peers))
}

/// The agents of the zone, and where they reach this one.
fn peers(listen: PeerListen, identity: &Identity) -> Result<Arc<Peers>, Fault> {
    let shown = identity.shown()?;
    let bound = |address| {
        let endpoint = bind_server(address, shown.server.clone());
        endpoint.map_err(|source| Fault::System { doing: "other agents cannot be served", source })
    };
    let endpoint = match listen {
        PeerListen::Off => None,
        PeerListen::At(address) => Some(bound(address)?),
        PeerListen::Anywhere => {
            Some(bound((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bound((Ipv4Addr::UNSPECIFIED, 0).into()))?)
        }
    };
    Ok(Peers::new(shown, endpoint))
}

/// What the operator says of the phases of jobs. Plugins lie beside workspaces by default, where jobs can read them.
fn rules(config: &Config, home: &Home, git: &Git) -> Result<Rules, Fault> {
    let phases = &config.phases;
    let refused = match (phases.plugins_enabled, phases.local_hooks_enabled) {
        (false, _) => Some("its operator has turned them off"),
        (true, false) => Some("its operator has turned off what repositories and steps bring"),
        (true, true) => None,
    };
    let path = phases.plugins_path.clone().unwrap_or_else(|| home.work().join(".plugins"));
    let failed = |source| Fault::File { doing: "plugins cannot be kept in", path: path.clone(), source };
    let (limits, credentials) = (phases.plugins_limits, phases.plugin_credentials.clone());
    let plugins = Plugins::new(path.clone(), limits, refused, credentials, git.clone()).map_err(failed)?;
    let hooks = Hooks::new(phases.hooks_paths.clone());
    if let Err(error) = hooks.list() {
        // Each job ends with it, until somebody has mended it.
        tracing::error!(%error, "hooks_refused");
    }
    Ok(Rules { hooks, plugins, local_hooks: phases.local_hooks_enabled })
}

fn core_config(config: &Config, host: &Host, (machine_id, boot): (String, &BootId), runs_images: bool) -> AgentConfig {
    let has = host.capacity();
    AgentConfig {
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id,
        boot_id: String::from_utf8_lossy(boot).into_owned(),
        slots: config.slots,
        capacity: Resources {
            cpu_millis: config.cpu_millis.unwrap_or(has.cpu_millis),
            memory_bytes: config.memory_bytes.unwrap_or(has.memory_bytes),
        },
        tags: config.tags.clone(),
        runs_images,
        capabilities: [CHUNKS_2, PARTS_1, BRING_1].map(str::to_owned).into(),
        host: HostFacts::default(),
        once: config.once,
        seed: seed(),
        bugs: Bugs::default(),
    }
}

/// For pauses and beats only: agents that start together must not beat together.
fn seed() -> u64 {
    let mut bytes = [0_u8; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}

fn fingerprint(config: &Config, machine: &str) -> Fingerprint {
    Fingerprint {
        commands: config.fingerprint.clone(),
        hooks: config.phases.hooks_paths.clone(),
        local_hooks: config.phases.local_hooks_enabled,
        machine: config.alone.then(|| machine.to_owned()),
    }
}

/// Looks at the engine, and at what there is of jobs' inputs, for as long as the agent runs. One that is alone in its fleet has
/// nobody to be weighed against, and takes every engine to be there.
fn watch_engine(alone: bool, engine: &Engine, feed: &mpsc::Sender<Input>) -> (Arc<AtomicBool>, Trees) {
    let (runs_images, trees) = (Arc::new(AtomicBool::new(alone || engine.is_connected())), Trees::default());
    if !alone {
        tokio::spawn(crate::engine::watch(engine.clone(), Arc::clone(&runs_images)));
        tokio::spawn(stock::watch(trees.clone(), engine.clone(), Arc::clone(&runs_images), feed.clone()));
    }
    (runs_images, trees)
}

/// Looks at the machine's disks: for what jobs take, and for what the cache has to give back to them.
fn watch_disks(host: Host, store: &Store, feed: &mpsc::Sender<Input>) {
    watch_health(host, feed.clone());
    tokio::spawn(room::watch(store.clone(), feed.clone()));
}

/// Looks at the machine from a thread of its own, for as long as the loop listens.
fn watch_health(mut host: Host, feed: mpsc::Sender<Input>) {
    std::thread::spawn(move || {
        while feed.blocking_send(Input::HealthSample(host.sample())).is_ok() {
            std::thread::sleep(Duration::from_millis(HEALTH_MS));
        }
    });
}
