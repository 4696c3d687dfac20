//! What an operator says of a coordinator: flags over environment over file, resolved by the binary into a [`Config`].

mod bucket;
mod notify;
mod policy;
mod reuse;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use windlass_coordinator_core::policy::Policy;
use windlass_git::Protocols;
use windlass_protocol::limits::{CACHE_FLOOR_BYTES, RETENTION_MS};

pub use self::bucket::{BadBucketSetting, BucketConfig, BucketFile};
pub use self::notify::{Allowed, BadSetting, GithubConfig, GithubFile, NotifyConfig, NotifyFile};
pub use self::policy::{CachePolicies, CachePolicyFile, OverlayFull};
pub use self::reuse::{BadReuse, ReuseFile};
use crate::authority::Lives;
use crate::keying::ReuseConfig;
use crate::vault::KeySources;

/// The coordinator's TOML file. Every key is optional; unknown ones are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// `ADDRESS:PORT` for UDP and TCP.
    pub listen: Option<SocketAddr>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// `sqlite` or `postgres://…`.
    pub store: Option<String>,
    /// Plain HTTP beyond loopback.
    pub insecure_http: Option<bool>,
    /// A certificate chain in PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its key in PEM.
    pub tls_key: Option<PathBuf>,
    /// `HOST:PORT` where clients and agents reach it.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// Days that finished builds and their logs are kept.
    pub retention_days: Option<u64>,
    /// Days that artifacts are kept; 30 if it is left out. Never longer than their build.
    pub artifact_retention_days: Option<u64>,
    /// Free space on its disk that blobs leave to everything else, such as `256MiB`.
    pub cache_floor: Option<String>,
    /// Whether blobs can be named by their SHA-256 too.
    #[serde(default)]
    pub cache_sha256: bool,
    /// A bucket behind the cache.
    #[serde(default)]
    pub bucket: BucketFile,
    /// Minutes for a step without a timeout.
    pub timeout_default_minutes: Option<u64>,
    /// Minutes that no step may exceed.
    pub timeout_max_minutes: Option<u64>,
    /// Seconds that jobs of a zone that cannot be reached are held, where their pool waits for it; 600 if it is left out.
    pub zone_hold_seconds: Option<u64>,
    /// Seconds that an agent's certificate lasts, at most a day; agents renew theirs at two thirds of it.
    pub agent_certificate_seconds: Option<u64>,
    /// Seconds that the certificates of the coordinator's own servers last; it renews them at two thirds of it.
    pub server_certificate_seconds: Option<u64>,
    /// A file with the key that seals secrets: 64 hexadecimal digits.
    pub secrets_key_file: Option<PathBuf>,
    /// Files with keys of before; what they sealed is sealed anew.
    #[serde(default)]
    pub secrets_old_key_files: Vec<PathBuf>,
    /// A file with the credentials for private repositories over HTTPS.
    pub git_credentials: Option<PathBuf>,
    /// Protocols by which pipelines are read from repositories; `https` and `ssh` without it.
    pub git_protocols: Option<Vec<String>>,
    /// Read pipelines from repositories that no pipeline is registered for.
    pub git_unregistered: Option<bool>,
    /// Notifications.
    #[serde(default)]
    pub notify: NotifyFile,
    /// Part of every key of a step that may be reused: with another number nothing of before is used again.
    pub cache_epoch: Option<u64>,
    /// Step reuse.
    #[serde(default)]
    pub reuse: ReuseFile,
    /// What of sources the cache keeps.
    #[serde(default)]
    pub cache_policy: CachePolicyFile,
}

/// How HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Http {
    /// Without TLS: on loopback, or where the operator insists.
    Plain,
    /// With a certificate from files.
    Files {
        /// The chain in PEM.
        cert: PathBuf,
        /// The key in PEM.
        key: PathBuf,
    },
    /// With a certificate of the coordinator's own CA.
    OwnCa,
}

/// What a coordinator starts with.
#[derive(Debug, Clone)]
pub struct Config {
    /// For UDP and TCP; port 0 picks one.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// How HTTP is served.
    pub http: Http,
    /// `HOST:PORT` where clients and agents reach it; the first one is shown in URLs.
    pub advertise: Vec<String>,
    /// How long finished builds and their logs are kept.
    pub retention_ms: u64,
    /// Free space that blobs leave to everything else; of a small disk a part.
    pub cache_floor_bytes: u64,
    /// Whether blobs that are stored from now on can be named by their SHA-256: a second hash of all bytes.
    pub cache_sha256: bool,
    /// A bucket behind the cache.
    pub bucket: Option<BucketConfig>,
    /// How long certificates last.
    pub lives: Lives,
    /// The core's settings.
    pub policy: Policy,
    /// How pipelines are read from repositories.
    pub git: GitConfig,
    /// Where the key of the secrets comes from.
    pub secrets: KeySources,
    /// What notifications are sent with.
    pub notify: NotifyConfig,
    /// How keys of steps are found out.
    pub reuse: ReuseConfig,
    /// What of sources the cache keeps.
    pub cache_policies: CachePolicies,
}

/// How pipelines are read from repositories.
#[derive(Debug, Clone, Default)]
pub struct GitConfig {
    /// A file in the form of git's credential-store, for the coordinator alone.
    pub credentials: Option<PathBuf>,
    /// What is fetched by.
    pub protocols: Protocols,
    /// Whether a client may name a repository that no pipeline is registered for.
    pub unregistered: bool,
}

impl Config {
    /// A coordinator with every default.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf) -> Self {
        Self {
            listen,
            data,
            http: if listen.ip().is_loopback() { Http::Plain } else { Http::OwnCa },
            advertise: Vec::new(),
            retention_ms: RETENTION_MS,
            cache_floor_bytes: CACHE_FLOOR_BYTES,
            cache_sha256: false,
            bucket: None,
            lives: Lives::default(),
            policy: Policy::default(),
            git: GitConfig::default(),
            secrets: KeySources::default(),
            notify: NotifyConfig::default(),
            reuse: ReuseConfig::default(),
            cache_policies: CachePolicies::default(),
        }
    }

    /// Names and addresses for the HTTPS certificate.
    #[must_use]
    pub fn names(&self) -> (Vec<String>, Vec<IpAddr>) {
        let mut names = vec!["localhost".to_owned()];
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        if !self.listen.ip().is_unspecified() {
            addresses.push(self.listen.ip());
        }
        for place in &self.advertise {
            let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host);
            match host.trim_matches(['[', ']']).parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(host.to_owned()),
            }
        }
        addresses.dedup();
        (names, addresses)
    }
}
