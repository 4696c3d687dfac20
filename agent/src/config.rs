//! What an operator says of an agent: flags over environment over file, resolved by the binary into a [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use windlass_git::Protocols;
use windlass_git::dir_cache::Limits;
use windlass_protocol::Secret;
use windlass_protocol::limits::{
    AGENT_MIRRORS_MAX, AGENT_MIRRORS_MAX_BYTES, AGENT_PLUGINS_MAX, AGENT_PLUGINS_MAX_BYTES,
    FINGERPRINT_COMMAND_MAX_BYTES, FINGERPRINT_COMMANDS_MAX,
};

use crate::plugins::PluginCredentials;

/// The agent's TOML file. Every key is optional; unknown ones are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// `HOST:PORT` of coordinators, tried in order.
    #[serde(default)]
    pub server: Vec<String>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// Its name; the host's by default.
    pub name: Option<String>,
    /// Jobs at once; the number of processors by default.
    pub slots: Option<u32>,
    /// Processors to give to jobs, such as 3.5.
    pub cpus: Option<String>,
    /// Memory to give to jobs, such as `4GiB`.
    pub memory: Option<String>,
    /// Tags, as `k=v`.
    #[serde(default)]
    pub tag: Vec<String>,
    /// A file with the join token.
    pub join_token_file: Option<PathBuf>,
    /// The first slot's user id; slots follow each other.
    pub slot_user_base: Option<u32>,
    /// Bytes of the agent's cache.
    pub cache: Option<String>,
    /// Where other agents of the zone reach this one: `IP:PORT`, or `off`.
    pub peer_listen: Option<String>,
    /// Free space on its disk that the cache leaves to everything else, such as `256MiB`.
    pub cache_floor: Option<String>,
    /// The key stays in memory: each start is a new agent.
    pub ephemeral_identity: Option<bool>,
    /// Credentials for private repositories over HTTPS.
    pub git_credentials: Option<PathBuf>,
    /// Protocols that repositories are fetched by; `https` and `ssh` by default.
    pub git_protocols: Option<Vec<String>>,
    /// Where the machine's container engine listens.
    pub docker_socket: Option<PathBuf>,
    /// A directory with hooks that every job runs.
    pub hooks_path: Option<PathBuf>,
    /// More of them, after the first.
    #[serde(default)]
    pub additional_hooks_paths: Vec<PathBuf>,
    /// Where plugins are kept; a directory of the agent's own by default.
    pub plugins_path: Option<PathBuf>,
    /// Where a mirror of each repository is kept; without it none is.
    pub git_mirrors_path: Option<PathBuf>,
    /// Bytes of all plugins that are kept, such as `2GiB`; those that were not used for longest go first.
    pub plugins_max: Option<String>,
    /// Plugins that are kept.
    pub plugins_max_count: Option<usize>,
    /// Bytes of all mirrors.
    pub git_mirrors_max: Option<String>,
    /// Mirrors that are kept.
    pub git_mirrors_max_count: Option<usize>,
    /// Whose plugins the agent's credentials are for, whoever's step names them: `HOST/OWNER`. Without it they are for
    /// whatever the steps of trusted builds name; an empty list is for none.
    pub plugin_credentials: Option<Vec<String>>,
    /// Whether repositories may bring hooks, and steps plugins; true by default.
    pub local_hooks_enabled: Option<bool>,
    /// Whether steps may have plugins; true by default.
    pub plugins_enabled: Option<bool>,
    /// What the results of steps may be reused by.
    #[serde(default)]
    pub reuse: ReuseFile,
}

/// `[reuse]` of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReuseFile {
    /// Commands whose printed versions decide the results of steps without an image, such as `cc --version`.
    #[serde(default)]
    pub fingerprint: Vec<String>,
}

impl ReuseFile {
    /// The commands, checked.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn commands(self) -> Result<Vec<String>, String> {
        if self.fingerprint.len() > FINGERPRINT_COMMANDS_MAX {
            return Err(format!("reuse.fingerprint: more than {FINGERPRINT_COMMANDS_MAX} commands"));
        }
        for command in &self.fingerprint {
            if command.trim().is_empty() || command.len() > FINGERPRINT_COMMAND_MAX_BYTES {
                return Err(format!("reuse.fingerprint: a command has 1 to {FINGERPRINT_COMMAND_MAX_BYTES} bytes"));
            }
            if command.chars().any(char::is_control) {
                return Err("reuse.fingerprint: a command is one line, without control characters".to_owned());
            }
        }
        Ok(self.fingerprint)
    }
}

/// What an agent starts with.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST:PORT` of coordinators, tried in order.
    pub servers: Vec<String>,
    /// The data directory.
    pub data: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// Jobs at once.
    pub slots: u32,
    /// Thousandths of a processor to give to jobs; `None` is all that the machine has.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory to give to jobs; `None` is what the machine has.
    pub memory_bytes: Option<u64>,
    /// Tags that it claims.
    pub tags: Vec<(String, String)>,
    /// The join token, needed until it has joined.
    pub join_token: Option<Secret<String>>,
    /// The key stays in memory, and nothing of the identity is written: each start is a new agent.
    pub ephemeral_identity: bool,
    /// Credentials for private repositories, a line each: `https://USER:PASSWORD@HOST`, mode 0600.
    pub git_credentials: Option<PathBuf>,
    /// Protocols that repositories are fetched by.
    pub git_protocols: Protocols,
    /// One job, then leave.
    pub once: bool,
    /// The first slot's user id where the agent is root.
    pub slot_user_base: u32,
    /// Bytes of the agent's cache.
    pub cache_bytes: u64,
    /// Whether and where other agents of the zone are served.
    pub peer_listen: PeerListen,
    /// Free space on its disk that the cache leaves to everything else; of a small disk a part.
    pub cache_floor_bytes: u64,
    /// Where the machine's container engine listens.
    pub docker_socket: PathBuf,
    /// Hooks, plugins and mirrors.
    pub phases: Phases,
    /// Commands whose printed versions decide the results of steps without an image.
    pub fingerprint: Vec<String>,
    /// No other agent will come: a step with an image is taken whether there is an engine or not, and is refused with its
    /// cause rather than left to wait.
    pub alone: bool,
    /// The program and arguments that become the spawner: they call `windlass_agent_runner::spawner_from_stdin`.
    pub spawner: (PathBuf, Vec<String>),
}

/// Whether and where an agent serves others of its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerListen {
    /// On a free port of all addresses; others are told the one that leads to the coordinator, unless that is loopback.
    #[default]
    Anywhere,
    /// There.
    At(SocketAddr),
    /// Nowhere, and nobody is asked.
    Off,
}

/// What is no such thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peer_listen: {0:?} is neither `off` nor IP:PORT")]
pub struct BadPeerListen(String);

impl FromStr for PeerListen {
    type Err = BadPeerListen;

    fn from_str(text: &str) -> Result<Self, BadPeerListen> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| BadPeerListen(text.to_owned())),
        }
    }
}

/// What an operator says about the phases of jobs, by the names of the reference's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phases {
    /// Directories with hooks that every job runs, in order.
    pub hooks_paths: Vec<PathBuf>,
    /// Where plugins are kept; `None` is a directory of the agent's own.
    pub plugins_path: Option<PathBuf>,
    /// How much is kept of them.
    pub plugins_limits: Limits,
    /// Whose plugins the agent's credentials are for.
    pub plugin_credentials: PluginCredentials,
    /// Where a mirror of each repository is kept.
    pub git_mirrors_path: Option<PathBuf>,
    /// How much is kept of them.
    pub git_mirrors_limits: Limits,
    /// Whether repositories may bring hooks, and steps plugins.
    pub local_hooks_enabled: bool,
    /// Whether steps may have plugins.
    pub plugins_enabled: bool,
}

impl Default for Phases {
    fn default() -> Self {
        Self {
            hooks_paths: Vec::new(),
            plugins_path: None,
            plugins_limits: Limits { bytes: AGENT_PLUGINS_MAX_BYTES, count: AGENT_PLUGINS_MAX },
            plugin_credentials: PluginCredentials::default(),
            git_mirrors_path: None,
            git_mirrors_limits: Limits { bytes: AGENT_MIRRORS_MAX_BYTES, count: AGENT_MIRRORS_MAX },
            local_hooks_enabled: true,
            plugins_enabled: true,
        }
    }
}

/// Bytes of an agent's cache where nobody says otherwise: ten source trees of a large repository.
pub const CACHE_DEFAULT_BYTES: u64 = 20 << 30;

/// Where a container engine listens by default.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";
