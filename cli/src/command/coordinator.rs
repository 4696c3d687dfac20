//! `windlass coordinator`: serves agents and clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use windlass_coordinator::config::{BucketConfig, BucketFile, CachePolicies, ConfigFile, GitConfig, NotifyConfig};
use windlass_coordinator::keying::ReuseConfig;
use windlass_coordinator::vault::KeySources;
use windlass_coordinator::{Config, Coordinator, Http, StartError};
use windlass_coordinator_store::{OpenError, StoreUrl};
use windlass_git::Protocol;
use windlass_protocol::Secret;
use windlass_protocol::limits::{CERT_LIFE_MIN_MS, CERT_LIFE_MS, SERVER_CERT_LIFE_MAX_MS};

use super::config::{self, Problems};
use super::serve;
use crate::error::{Code, Failure};
use crate::place::{self, Announcement, Server};
use crate::size;
use crate::ui::Ui;

/// The port of UDP and TCP where nobody says.
pub(crate) const DEFAULT_LISTEN: &str = "127.0.0.1:7070";

/// The first SIGTERM or SIGINT stops it: agents keep their jobs and come back when it does. SIGHUP reads the files of
/// --tls-cert and --tls-key again at once; changed ones are noticed by themselves within ten seconds.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    /// Where agents (UDP) and clients (TCP) reach it. [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "WINDLASS_DATA")]
    data: Option<PathBuf>,
    /// Where rows are kept: sqlite, in the data directory. (postgres://… comes later.)
    #[arg(long)]
    store: Option<String>,
    /// A TOML file; flags and environment win over it.
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    /// Check the data directory and end; no coordinator may use it meanwhile. Exit 1 if it is damaged, 2 if
    /// there is none or of a newer version, 4 if it is in use.
    #[arg(long)]
    check: bool,
    /// Check the configuration and end.
    #[arg(long)]
    check_config: bool,
    /// Serve plain HTTP beyond loopback. Tokens travel readable then.
    #[arg(long)]
    insecure_http: bool,
    /// A certificate chain for HTTPS, in PEM; without one the coordinator's own CA is used.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where clients and agents reach it, if that is not what it listens on.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// A file with the key that seals secrets: 64 hexadecimal digits, mode 0600. Without it and without
    /// WINDLASS_SECRETS_KEY the first start makes one in the data directory.
    #[arg(long, value_name = "FILE")]
    secrets_key_file: Option<PathBuf>,
    /// A file with a key of before: what it sealed is sealed under the present one at this start.
    #[arg(long, value_name = "FILE")]
    secrets_old_key_file: Vec<PathBuf>,
    /// A file with the credentials by which pipelines are read from private repositories over HTTPS, in the form of git's
    /// credential-store, mode 0600. Without it the coordinator's git has what its user has.
    #[arg(long, value_name = "FILE")]
    git_credentials: Option<PathBuf>,
    /// A protocol by which repositories are read: https, ssh, http, git, file. [default: https ssh]
    #[arg(long, value_name = "PROTOCOL", num_args = 1.., value_delimiter = ',')]
    git_protocol: Vec<Protocol>,
    /// Read pipelines from repositories that no pipeline is registered for, too: whoever may submit builds has the
    /// coordinator fetch from wherever he says.
    #[arg(long)]
    git_unregistered: bool,
}

/// Runs a coordinator until it is stopped.
pub(crate) async fn run(arguments: CoordinatorArguments, ui: &Ui) -> Result<Code, Failure> {
    serve::trace("info", ui);
    let (check, check_config) = (arguments.check, arguments.check_config);
    let config = resolve(arguments)?;
    if check_config {
        ui.say("the configuration is good");
        return Ok(Code::Done);
    }
    if check {
        return check_data(&config.data, ui);
    }
    let mut signals = serve::signals()?;
    let mut hangups = signal(SignalKind::hangup()).map_err(|e| Failure::system("signals cannot be listened to", &e))?;
    let mut coordinator = start(config.clone()).await?;
    let _announced = announce(&coordinator, &config.data, ui);
    ui.data(&format!("ready {}", coordinator.url));
    loop {
        tokio::select! {
            _ = signals.recv() => {
                let end = coordinator.stop().await;
                tracing::info!(?end, "coordinator_stopped");
                return Ok(Code::Done);
            }
            Some(()) = hangups.recv() => coordinator.reload_certificates(),
            end = coordinator.failed() => {
                return Err(Failure::new(Code::Failed, format!("the coordinator had to stop: {end:?}")));
            }
        }
    }
}

/// A certificate's life as the file says it, if it is one that can be.
fn life_ms(key: &str, seconds: u64, most_ms: u64) -> Result<u64, Failure> {
    let life_ms = seconds.saturating_mul(1_000);
    if (CERT_LIFE_MIN_MS..=most_ms).contains(&life_ms) {
        return Ok(life_ms);
    }
    Err(Failure::usage(format!("{key} is between {} and {}", CERT_LIFE_MIN_MS / 1_000, most_ms / 1_000)))
}

/// Starts a coordinator, with what to do if it does not start.
pub(crate) async fn start(config: Config) -> Result<Coordinator, Failure> {
    Coordinator::start(config).await.map_err(|error| not_started(&error))
}

/// Why a coordinator did not start, and what to do.
pub(crate) fn not_started(error: &StartError) -> Failure {
    let hint = match error {
        StartError::Listen { .. } => Some("give another port with --listen; port 0 picks a free one"),
        StartError::Store(error) => error.hint(),
        StartError::Authority(error) => error.hint(),
        StartError::Vault(error) => error.hint(),
        StartError::Notify(_) => Some("`openssl rand -hex 32` makes a key for webhooks, in a file of mode 0600"),
        StartError::NoBucket(_) => {
            Some("its table is in coordinator.toml, or was: docs/operations.md says what it needs")
        }
        StartError::Bucket(_)
        | StartError::Load(_)
        | StartError::Logs(_)
        | StartError::Cache(_)
        | StartError::Identity(_)
        | StartError::File { .. }
        | StartError::Random(_)
        | StartError::Reseal(_)
        | StartError::Oidc(_)
        | StartError::Token(_) => None,
    };
    Failure::of(Code::Failed, error).hint_if(hint.map(str::to_owned))
}

/// Leaves the file by which this user's CLI finds the server.
pub(crate) fn announce(coordinator: &Coordinator, data: &Path, ui: &Ui) -> Option<Announcement> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let server = Server { url: coordinator.url.clone(), pid, data: data.to_owned() };
    match Announcement::new(coordinator.address.port(), &server) {
        Ok(announced) => Some(announced),
        Err(error) => {
            ui.warn(&format!("clients of this user will not find the server by themselves: {error}"));
            None
        }
    }
}

fn check_data(data: &Path, ui: &Ui) -> Result<Code, Failure> {
    let report = windlass_coordinator_store::check(data).map_err(|e| Failure::of(unchecked(&e), &e))?;
    let logs = windlass_coordinator_logs::check(&windlass_cache::RealFs, &data.join("logs"), |_| {})
        .map_err(|e| Failure::of(Code::Failed, &e))?;
    for problem in &report.findings {
        ui.data(&format!("store: {problem}"));
    }
    for problem in &logs.problems {
        ui.data(&format!("logs: {problem}"));
    }
    let good = report.is_sound() && logs.is_good();
    ui.say(if good { "the data directory is good" } else { "the data directory is damaged" });
    Ok(if good { Code::Done } else { Code::Failed })
}

/// What it means that a data directory could not be looked at: nothing that anybody should take for damage.
const fn unchecked(error: &OpenError) -> Code {
    match error {
        OpenError::InUse { .. } => Code::Refused,
        OpenError::NotThere { .. } | OpenError::NewerSchema { .. } => Code::Usage,
        OpenError::Foreign { .. } | OpenError::Io { .. } | OpenError::Fault(_) => Code::Failed,
    }
}

fn resolve(arguments: CoordinatorArguments) -> Result<Config, Failure> {
    let mut problems = Problems::default();
    let file: ConfigFile = config::read(arguments.config.as_deref(), "coordinator", &mut problems);
    if let Some(store) = arguments.store.or(file.store) {
        problems.take(StoreUrl::parse(&store).map_err(|e| Failure::of(Code::Usage, &e)));
    }
    let listen = match arguments.listen.or(file.listen) {
        Some(listen) => listen,
        None => DEFAULT_LISTEN.parse().map_err(|e| Failure::system("the default address", &e))?,
    };
    let data = arguments.data.or(file.data).unwrap_or_else(|| place::data_dir("coordinator"));
    let mut config = Config::new(listen, absolute(&data)?);
    if arguments.insecure_http || file.insecure_http.unwrap_or(false) {
        config.http = Http::Plain;
    }
    match (arguments.tls_cert.or(file.tls_cert), arguments.tls_key.or(file.tls_key)) {
        (Some(cert), Some(key)) => config.http = Http::Files { cert, key },
        (None, None) => {}
        _ => {
            let lonely = Failure::usage("tls_cert and tls_key: a certificate and its key are given together");
            problems.take::<()>(Err(lonely));
        }
    }
    config.advertise = if arguments.advertise.is_empty() { file.advertise } else { arguments.advertise };
    if let Some(floor) = file.cache_floor.as_deref().and_then(|floor| problems.take(size::bytes(floor))) {
        config.cache_floor_bytes = floor;
    }
    config.cache_sha256 = file.cache_sha256;
    config.bucket = bucket(file.bucket, &mut problems);
    config.cache_policies = CachePolicies::of(&file.cache_policy, |size| problems.take(size::bytes(size)));
    if let Some(seconds) = file.agent_certificate_seconds {
        let life = problems.take(life_ms("agent_certificate_seconds", seconds, CERT_LIFE_MS));
        config.lives.agent_ms = life.unwrap_or(config.lives.agent_ms);
    }
    if let Some(seconds) = file.server_certificate_seconds {
        let life = problems.take(life_ms("server_certificate_seconds", seconds, SERVER_CERT_LIFE_MAX_MS));
        config.lives.server_ms = life.unwrap_or(config.lives.server_ms);
    }
    let old_files = arguments.secrets_old_key_file;
    config.secrets = KeySources {
        file: arguments.secrets_key_file.or(file.secrets_key_file),
        given: std::env::var("WINDLASS_SECRETS_KEY").ok().filter(|key| !key.is_empty()).map(Secret::new),
        old_files: if old_files.is_empty() { file.secrets_old_key_files } else { old_files },
    };
    config.git = GitConfig {
        credentials: arguments.git_credentials.or(file.git_credentials),
        protocols: problems.take(serve::git_protocols(arguments.git_protocol, file.git_protocols)).unwrap_or_default(),
        unregistered: arguments.git_unregistered || file.git_unregistered.unwrap_or(false),
    };
    let key = std::env::var("WINDLASS_NOTIFY_KEY").ok().filter(|key| !key.is_empty()).map(Secret::new);
    let (notify, wrong) = NotifyConfig::of(file.notify, key);
    config.notify = notify;
    for error in wrong {
        problems.take::<()>(Err(Failure::of(Code::Usage, &error)));
    }
    let (reuse, wrong) = ReuseConfig::of(file.reuse, file.cache_epoch.unwrap_or_default());
    config.reuse = reuse;
    for error in wrong {
        problems.take::<()>(Err(Failure::of(Code::Usage, &error)));
    }
    let times = [
        (file.timeout_default_minutes, 60_000, &mut config.policy.timeout_default_ms),
        (file.timeout_max_minutes, 60_000, &mut config.policy.timeout_max_ms),
        (file.zone_hold_seconds, 1_000, &mut config.policy.zone_hold_ms),
        (file.artifact_retention_days, 86_400_000, &mut config.policy.artifact_retention_ms),
        (file.retention_days, 86_400_000, &mut config.retention_ms),
    ];
    for (said, unit_ms, ms) in times {
        *ms = said.map_or(*ms, |count| count.saturating_mul(unit_ms));
    }
    problems.or(config)
}

/// The bucket behind the cache; the environment's keys come before a file's.
fn bucket(file: BucketFile, problems: &mut Problems) -> Option<BucketConfig> {
    let disk_bytes = file.disk.as_deref().and_then(|disk| problems.take(size::bytes(disk)));
    let in_environment = std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|id| !id.is_empty());
    let (bucket, wrong) = BucketConfig::of(file, in_environment, disk_bytes);
    for error in wrong {
        problems.take::<()>(Err(Failure::of(Code::Usage, &error)));
    }
    bucket
}

/// A path that does not depend on the working directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::system(format!("{} cannot be resolved", path.display()), &e))
}
