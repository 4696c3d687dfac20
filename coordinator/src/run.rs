//! A whole coordinator: opens what it keeps, starts what serves, and stops in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use windlass_bucket::Bucket;
use windlass_cache::{Origin, RealFs, Store, StoreOptions};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Actor, ActorKind, NewToken, OnUnreachable, PoolRow, Scope, Sealed, SecretName, SecretRequest, TagPolicy, TokenGrant,
};
use windlass_coordinator_logs::{LogStore, Options as LogOptions};
use windlass_coordinator_store::{OpenError, sqlite};
use windlass_git::Credentials;
use windlass_protocol::host::{now, read_private, write_private};
use windlass_protocol::identity::tls::https_config;
use windlass_protocol::identity::{ApiToken, IdentityError, JoinToken, secret_hash};
use windlass_protocol::limits::{BEAT_MS, LEASE_DEFAULT_MS};
use windlass_protocol::link::bind_known_server;
use windlass_protocol::{IdSource, Secret, Trust};

use crate::api::{self, metric::Metrics};
use crate::authority::{Authority, AuthorityError};
use crate::certificates::{self, Files};
use crate::clock::SystemClock;
use crate::config::{BucketConfig, Config, Http};
use crate::courier::{self, Courier, KeyError};
use crate::definitions::{self, Definitions};
use crate::desk::{self, Desk, DeskEnd, DeskError, DeskHandle, Ports, core_maker};
use crate::fleet::{self, Switchboard};
use crate::job_desk::CoreJobDesk;
use crate::keying;
use crate::keys::Keyer;
use crate::last_use::{self, LastUse};
use crate::logbook::{LeftOpen, Logbook};
use crate::oidc::{self, Issuer, OidcError};
use crate::orders::Filler;
use crate::retention;
use crate::shelf::Shelves;
use crate::uploads::Uploads;
use crate::upstream::Bringer;
use crate::vault::{Vault, VaultError};
use crate::views::reader::Offload;
use crate::views::{Reader, Views};
use crate::writer::Writer;

/// How long the token for the agent of the same process counts: it is used at once.
const LOCAL_TOKEN_MS: u64 = 10 * 60_000;

/// How long peers and clients have to take the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long the logs may take to become durable at the end; agents keep what they were not told is durable.
const LOGS_CLOSE: Duration = Duration::from_secs(5);

/// Ports that are tried for one that is free for both UDP and TCP.
const PORT_TRIES: usize = 32;

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory or the store in it.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store cannot be loaded.
    #[error("the store cannot be loaded")]
    Load(#[source] windlass_coordinator_store::Fault),
    /// The logs.
    #[error("the logs cannot be opened")]
    Logs(#[source] windlass_coordinator_logs::Fault),
    /// The cache.
    #[error("the cache cannot be opened")]
    Cache(#[source] windlass_cache::Fault),
    /// The bucket cannot be asked as it is described.
    #[error(transparent)]
    Bucket(#[from] windlass_bucket::BadBucket),
    /// Blobs lie in a bucket that no configuration names.
    #[error("the cache in {} has blobs in a bucket; name it again in the table `bucket`", .0.display())]
    NoBucket(PathBuf),
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Keys and certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The keys that sign jobs' tokens.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// A file of the operator's or of the data directory.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The secrets' key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The key that signs webhooks.
    #[error(transparent)]
    Notify(#[from] KeyError),
    /// The secrets could not be sealed under the new key; the old one still opens them.
    #[error("the secrets could not be sealed under the new key")]
    Reseal(#[source] DeskError),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The first token could not be made.
    #[error("the first API token could not be made")]
    Token(#[source] DeskError),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Coordinator {
    /// Where clients reach it.
    pub url: String,
    /// What it listens on, UDP and TCP alike.
    pub address: SocketAddr,
    /// The admin token that it made at its first start.
    pub token: Secret<String>,
    desk: DeskHandle,
    views: Views,
    authority: Arc<Authority>,
    uses: LastUse,
    running: Option<JoinHandle<DeskEnd>>,
    end: DeskEnd,
    logs: LogStore,
    store: Store,
    endpoint: Endpoint,
    reload: Arc<Notify>,
    stop: watch::Sender<bool>,
    http: JoinHandle<()>,
    serving: Vec<JoinHandle<()>>,
}

/// What the desk acts upon.
fn ports(
    board: &Switchboard,
    logs: Logbook,
    (orders, keyer, courier): (Filler, Keyer, Courier),
    views: &Views,
    metrics: &Metrics,
) -> Ports {
    Ports {
        clock: Arc::new(SystemClock),
        fleet: Arc::new(board.clone()),
        logs: Arc::new(logs),
        orders: Arc::new(orders),
        keys: Arc::new(keyer),
        deliveries: Arc::new(courier),
        views: views.clone(),
        meter: Arc::new(metrics.clone()),
    }
}

impl Coordinator {
    /// Opens the data directory and serves. Needs a tokio runtime with more than one thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (address, listener) = listen(config.listen).await?;
        let url = url(&config, address);
        let (desk, inbox) = desk::channel();
        let opened = Opened::open(&config, &url).await?;
        // Beside the rest: on a full disk it waits for space.
        tokio::spawn(opened.left_open.close(opened.kept.logs.clone()));
        let views = Views::default();
        let reader = Reader::new(views.clone(), Arc::new(opened.history), Offload::Blocking);
        let board = Switchboard::default();
        let endpoint = endpoint(address, &opened.kept.authority)?;
        let metrics = Metrics::default();
        let (definitions, unregistered) = (definitions(&config)?, config.git.unregistered);
        let orders = Filler::new(desk.clone(), reader.clone(), definitions.clone());
        let logbook = Logbook::new(opened.kept.logs.clone(), desk.clone());
        let courier = Courier::new(desk.clone(), opened.sender);
        let shelves = Shelves::new(opened.kept.store.clone());
        let known = (definitions.clone(), views.clone(), reader.clone());
        let reuse = keying::ReuseConfig { policies: config.cache_policies, ..config.reuse.clone() };
        let (engine, keyer) = keyer(reuse, &desk, &opened.kept, &shelves, known);
        let ports = ports(&board, logbook, (orders, keyer, courier), &views, &metrics);
        let (tls, files) = tls(&config, &opened.kept.authority).await?;
        let maker = core_maker(config.policy.clone()).map_err(|e| StartError::Random(e.to_string()))?;
        let running = tokio::spawn(Desk::new(inbox, opened.writer, opened.loaded, maker, ports).run());
        let issuer = Arc::clone(&opened.kept.issuer);
        let ground = ground(&url, (desk.clone(), views, reader), opened.kept, shelves);
        reseal(&ground, opened.resealed).await?;
        let token = first_token(&config.data, &ground).await?;
        let (views, authority, logs) = (ground.views.clone(), Arc::clone(&ground.authority), ground.logs.clone());
        let store = ground.store.clone();
        let ((stop, stopped), reload) = (watch::channel(false), Arc::new(Notify::new()));
        let (fleet, shown, signs) = (ground.clone(), url.clone(), Arc::clone(&issuer));
        let mut api = api::Ground::new(fleet, board.clone(), shown, metrics, definitions, unregistered, signs)
            .with_policies(config.cache_policies);
        api.engine = Some(engine);
        let (uses, verifier, sweeper) = (api.last_use.clone(), api.verifier.clone(), api.sweeper.clone());
        let http = tokio::spawn(crate::http::serve(listener, tls, api::router(api), stopped.clone()));
        let agents = {
            let (endpoint, ground) = (endpoint.clone(), ground.clone());
            async move { board.serve(endpoint, ground).await }
        };
        let serving = vec![
            tokio::spawn(agents),
            tokio::spawn(certificates::run(Arc::clone(&authority), files, Arc::clone(&reload), stopped.clone())),
            tokio::spawn(oidc::run(issuer, stopped.clone())),
            tokio::spawn(last_use::run(uses.clone(), desk.clone(), stopped.clone())),
            tokio::spawn(ground.uploads.clone().run(stopped.clone())),
            tokio::spawn(verifier.end_with(stopped.clone())),
            tokio::spawn(sweeper.run(stopped.clone())),
            tokio::spawn(retention::run(ground, config.retention_ms, stopped)),
        ];
        tracing::info!(%address, url, data = %config.data.display(), "coordinator_ready");
        Ok(Self {
            url,
            address,
            token,
            desk,
            views,
            authority,
            uses,
            running: Some(running),
            end: DeskEnd::WriterGone,
            logs,
            store,
            endpoint,
            reload,
            stop,
            http,
            serving,
        })
    }

    /// A join token for the agent of the same process: pool `local`, zone `local`, queue `default`, trusted, good for one
    /// use within ten minutes.
    ///
    /// # Errors
    /// [`DeskError`], also where the system gives no randomness.
    pub async fn local_join_token(&self) -> Result<String, DeskError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| DeskError::Unavailable)?;
        let at = now().wall;
        let id = IdSource::from_seed(seed).token(at);
        let token = JoinToken::generate(id, self.authority.fingerprint()).map_err(|_| DeskError::Unavailable)?;
        let name = "local".to_owned();
        let pool = PoolRow {
            name: name.clone(),
            zone: name.clone(),
            queues: vec!["default".to_owned()],
            trust: Trust::Trusted,
            tags: TagPolicy::Free(Vec::new()),
            lease_ms: LEASE_DEFAULT_MS,
            beat_ms: BEAT_MS,
            paused: false,
            on_unreachable: OnUnreachable::Wait,
            created_at: at,
        };
        // What somebody made of the pool since is theirs to say.
        let pool = self.views.pool(&name).unwrap_or(pool);
        let new = NewToken {
            id,
            secret_hash: secret_hash(&token.secret),
            grant: TokenGrant::join(name, Some(1)),
            pool: Some(pool),
            note: "for the agent of this process".to_owned(),
            expires_at: Some(at.plus_ms(LOCAL_TOKEN_MS)),
        };
        let actor = Actor { kind: ActorKind::System, name: "local agent".to_owned() };
        self.desk.create_token(actor, new).await?;
        Ok(token.expose())
    }

    /// Reads the operator's certificate files again now, changed or not.
    pub fn reload_certificates(&self) {
        self.reload.notify_one();
    }

    /// Waits until an agent is online.
    pub async fn agent_online(&self) {
        self.views.agent_online().await;
    }

    /// Waits for an end that nobody asked for: another coordinator took the store over.
    pub async fn failed(&mut self) -> DeskEnd {
        self.desk_end().await
    }

    /// How the desk ended, once it has; asked again, the same.
    async fn desk_end(&mut self) -> DeskEnd {
        if let Some(running) = &mut self.running {
            self.end = running.await.unwrap_or(DeskEnd::WriterGone);
            self.running = None;
        }
        self.end.clone()
    }

    /// Takes nothing more, makes durable what was taken, says goodbye to everyone.
    pub async fn stop(mut self) -> DeskEnd {
        if let Err(error) = self.uses.write(&self.desk).await {
            tracing::warn!(%error, "last_uses_lost");
        }
        self.desk.stop();
        let end = self.desk_end().await;
        self.stop.send_replace(true);
        self.endpoint.close(windlass_protocol::link::Code::ShuttingDown.number(), b"the coordinator stops");
        // Peers that do not answer the goodbye, and clients that do not read their answers, are not waited for.
        let goodbye = async {
            self.endpoint.wait_idle().await;
            let _ = (&mut self.http).await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        self.http.abort();
        for task in self.serving {
            task.abort();
            // What it held is free when it is gone.
            let _ = task.await;
        }
        if tokio::time::timeout(LOGS_CLOSE, self.logs.close()).await.is_err() {
            tracing::warn!("logs_not_closed");
        }
        retention::leave_copy(self.store).await;
        end
    }
}

/// What a data directory holds, open.
struct Opened {
    writer: Writer,
    loaded: crate::writer::Loaded,
    history: sqlite::SqliteHistory,
    left_open: LeftOpen,
    resealed: Vec<(SecretName, Sealed, Sealed)>,
    sender: Arc<courier::Sender>,
    kept: Kept,
}

/// What of it serves agents and clients.
struct Kept {
    logs: LogStore,
    store: Store,
    uploads: Uploads,
    authority: Arc<Authority>,
    vault: Arc<Vault>,
    issuer: Arc<Issuer>,
}

impl Opened {
    /// Opens it; jobs are vouched for by the URL that clients know.
    async fn open(config: &Config, url: &str) -> Result<Self, StartError> {
        let (config, url) = (config.clone(), url.to_owned());
        let opened = tokio::task::spawn_blocking(move || Self::open_here(&config, url)).await;
        opened.unwrap_or_else(|error| Err(StartError::Random(error.to_string())))
    }

    fn open_here(config: &Config, url: String) -> Result<Self, StartError> {
        let (store, history) = sqlite::open(&config.data, &sqlite::Options::default())?;
        let (writer, loaded) = Writer::threaded(Box::new(store)).map_err(StartError::Load)?;
        let secrets = loaded.rows.secrets.values();
        let vault = Vault::open(&config.data, &config.secrets, secrets.clone())?;
        let resealed = vault.reseal(secrets)?;
        let sender = Arc::new(courier::Sender::open(&config.data, &config.notify, &url)?);
        let vfs = Arc::new(RealFs);
        let logs =
            LogStore::open(vfs.clone(), &config.data.join("logs"), LogOptions::default()).map_err(StartError::Logs)?;
        let left_open = LeftOpen::find(&logs, &history).map_err(StartError::Load)?;
        let options = StoreOptions {
            floor_bytes: config.cache_floor_bytes,
            sha256: config.cache_sha256,
            ..StoreOptions::default()
        };
        let store = open_cache(vfs, &config.data.join("cache"), options, config.bucket.as_ref())?;
        let uploads = Uploads::open(&store).map_err(StartError::Cache)?;
        let (names, addresses) = config.names();
        let authority = Arc::new(Authority::open(&config.data, &names, &addresses, config.lives)?);
        let issuer = Arc::new(Issuer::open(&config.data, url)?);
        let kept = Kept { logs, store, uploads, authority, vault: Arc::new(vault), issuer };
        Ok(Self { writer, loaded, history, left_open, resealed, sender, kept })
    }
}

/// What finds out keys of steps, and brings a fleet's results to those that have one.
fn keyer(
    config: keying::ReuseConfig,
    desk: &DeskHandle,
    kept: &Kept,
    shelves: &Shelves,
    (definitions, views, reader): (Definitions, Views, Reader),
) -> (keying::Engine, Keyer) {
    let sources = keying::Sources { store: kept.store.clone(), definitions, views, reader };
    let upstream = config.upstream.clone();
    let engine = keying::Engine::new(sources, config);
    let bringer = upstream.map(|upstream| Bringer {
        upstream,
        desk: desk.clone(),
        store: kept.store.clone(),
        shelves: shelves.clone(),
        logs: kept.logs.clone(),
    });
    let keyer = Keyer::new(desk.clone(), engine.clone()).with(bringer);
    (engine, keyer)
}

/// Opens the blobs, with their bucket where there is one. A bucket that does not answer keeps nobody from starting.
fn open_cache(
    vfs: Arc<RealFs>,
    dir: &Path,
    options: StoreOptions,
    bucket: Option<&BucketConfig>,
) -> Result<Store, StartError> {
    let origin = match bucket {
        None => None,
        Some(bucket) => Some(Origin::new(Arc::new(Bucket::new(&bucket.settings)?), bucket.disk_bytes)),
    };
    if let (Some(origin), Some(name)) = (&origin, bucket.and_then(|bucket| bucket.rebuild.as_deref()))
        && !dir.exists()
    {
        let objects = Store::rebuild(&*vfs, dir, origin, name).map_err(StartError::Cache)?;
        tracing::warn!(store = name, objects, "cache_rebuilt");
    }
    let store = Store::open_before(vfs, dir, options, origin).map_err(StartError::Cache)?;
    if store.lacks_its_bucket() {
        return Err(StartError::NoBucket(dir.to_owned()));
    }
    if let Some(name) = store.origin_name() {
        tracing::info!(store = name, "cache_bucket");
    }
    Ok(store)
}

/// What agents and clients are served from.
fn ground(
    url: &str,
    (desk, views, reader): (DeskHandle, Views, Reader),
    kept: Kept,
    shelves: Shelves,
) -> fleet::Ground {
    let Kept { logs, store, uploads, authority, vault, issuer } = kept;
    let jobs = CoreJobDesk {
        desk: desk.clone(),
        reader: reader.clone(),
        shelves: shelves.clone(),
        url: url.to_owned(),
        vault: Arc::clone(&vault),
        issuer,
    };
    fleet::Ground { desk, views, reader, logs, store, uploads, shelves, authority, jobs: Arc::new(jobs), vault }
}

/// Writes down what is sealed anew, before anybody is served.
async fn reseal(ground: &fleet::Ground, values: Vec<(SecretName, Sealed, Sealed)>) -> Result<(), StartError> {
    if values.is_empty() {
        return Ok(());
    }
    let count = values.len();
    let actor = Actor { kind: ActorKind::System, name: "a new key".to_owned() };
    let request = Request::Secret(Box::new(SecretRequest::Reseal { values }));
    ground.desk.request(actor, request).await.map_err(StartError::Reseal)?;
    tracing::info!(count, "secrets_sealed_anew");
    Ok(())
}

/// How pipelines come out of repositories.
fn definitions(config: &Config) -> Result<Definitions, StartError> {
    let path = config.git.credentials.clone().unwrap_or_default();
    let failed = |source| StartError::File { doing: "git credentials cannot be used:", path, source };
    let credentials = Credentials::new(config.git.credentials.clone()).map_err(failed)?;
    let protocols = config.git.protocols.clone();
    let options = definitions::Options { credentials, protocols, ..definitions::Options::default() };
    Ok(Definitions::new(config.data.join("mirrors"), options))
}

/// Binds TCP; where the port may be chosen, one that UDP has free too.
async fn listen(wanted: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Listen { address: wanted, source };
    for _ in 0..PORT_TRIES {
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if wanted.port() != 0 || std::net::UdpSocket::bind(address).is_ok() {
            return Ok((address, listener));
        }
    }
    Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "no port is free for UDP and TCP both")))
}

fn endpoint(address: SocketAddr, authority: &Authority) -> Result<Endpoint, StartError> {
    bind_known_server(address, authority.quic()?, &authority.link_secret())
        .map_err(|source| StartError::Listen { address, source })
}

/// Where clients reach it: as advertised, else what it listens on.
fn url(config: &Config, address: SocketAddr) -> String {
    let scheme = match config.http {
        Http::Plain => "http",
        Http::Files { .. } | Http::OwnCa => "https",
    };
    let place = config.advertise.first().cloned().unwrap_or_else(|| {
        let any = address.ip().is_unspecified();
        if any { format!("localhost:{}", address.port()) } else { address.to_string() }
    });
    format!("{scheme}://{place}")
}

/// HTTPS as the operator wants it, and the files that it comes from, if any.
async fn tls(
    config: &Config,
    authority: &Authority,
) -> Result<(Option<Arc<rustls::ServerConfig>>, Option<Files>), StartError> {
    let (shown, files) = match &config.http {
        Http::Plain => return Ok((None, None)),
        Http::OwnCa => (authority.web(), None),
        Http::Files { cert, key } => {
            let files = Files::open(cert, key).await?;
            (files.shown(), Some(files))
        }
    };
    Ok((Some(Arc::new(https_config(shown)?)), files))
}

/// The admin token of `DATA/api-token`, made at the first start: committed, then written, so that what the file holds
/// always works. A crash between the two leaves a token that nobody knows, and the next start makes another.
async fn first_token(data: &Path, ground: &fleet::Ground) -> Result<Secret<String>, StartError> {
    let path = data.join("api-token");
    let failed = |doing| {
        let path = path.clone();
        move |source| StartError::File { doing, path, source }
    };
    if let Some(bytes) = read_private(&path).map_err(failed("cannot read"))? {
        return Ok(Secret::new(String::from_utf8_lossy(&bytes).trim().to_owned()));
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| StartError::Random(e.to_string()))?;
    let token = ApiToken::generate(IdSource::from_seed(seed).token(now().wall))?;
    let actor = Actor { kind: ActorKind::System, name: "first start".to_owned() };
    let new = NewToken {
        id: token.id,
        secret_hash: secret_hash(&token.secret),
        grant: TokenGrant::Api { scopes: vec![Scope::Admin], pipeline: None, branch: None },
        pool: None,
        // What it does is done in this name: builds and the audit trail show it.
        note: "admin".to_owned(),
        expires_at: None,
    };
    ground.desk.create_token(actor, new).await.map_err(StartError::Token)?;
    write_private(&path, format!("{}\n", token.expose()).as_bytes()).map_err(failed("cannot write"))?;
    Ok(Secret::new(token.expose()))
}
