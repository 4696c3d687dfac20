//! `windlass agent`: an agent of a fleet.

use std::path::{Path, PathBuf};

use clap::Args;
use windlass_agent::config::{CACHE_DEFAULT_BYTES, ConfigFile, PeerListen, Phases};
use windlass_agent::{Config, PluginCredentials};
use windlass_agent_runner::runner::SLOT_USER_BASE;
use windlass_git::Protocol;
use windlass_git::dir_cache::Limits;
use windlass_git::policy::Owner;
use windlass_protocol::Secret;
use windlass_protocol::limits::{AGENT_FLOOR_BYTES, SLOTS_MAX};

use super::config::{self, Problems};
use super::serve;
use crate::error::{Code, Failure};
use crate::ui::Ui;
use crate::{place, size};

/// Run an agent.
///
/// Signals: the first SIGTERM or SIGINT drains (no new jobs, finish, leave; exit 0). A second one within ten minutes
/// cancels what runs, with its grace. A third, or SIGQUIT, ends at once.
///
/// Exit 4: the coordinator will never serve this agent so (its token has ended, its address, name or tags are not
/// admitted, it was revoked, its version is not spoken any more); restarting it does not help, and a service manager
/// should not (systemd: RestartPreventExitStatus=4). What may change by itself (a token whose time has not come, a name
/// that is still taken, a full or paused pool, clocks that differ, no coordinator) the agent waits for.
///
/// Private repositories: --git-credentials names a file of the agent's with one line for each server, such as
/// https://USER:TOKEN@git.example.org (mode 0600, in the form of git's credential-store, special characters
/// percent-encoded). Without it the agent's git uses what its user has: credential helpers, ~/.netrc, ssh keys. Jobs
/// get the checkout and never the credential, provided that the agent runs as root: then jobs run as users of their
/// own. An agent that is not root shares its user with its jobs, and they can read what it can.
#[derive(Debug, Args)]
pub(crate) struct AgentArguments {
    /// A file with the join token; needed until the agent has joined.
    #[arg(long, value_name = "FILE", env = "WINDLASS_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// Coordinators, tried in order.
    #[arg(long, value_name = "HOST:PORT", num_args = 1.., env = "WINDLASS_AGENT_SERVER", value_delimiter = ',')]
    server: Vec<String>,
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "WINDLASS_DATA")]
    data: Option<PathBuf>,
    /// Keep the agent's key in memory alone: every start joins anew and is another agent, which takes the place of the
    /// one that had this name on this machine. Needs a token of unlimited uses. A data directory that cannot be written
    /// is replaced by one for temporary files.
    #[arg(long)]
    ephemeral_identity: bool,
    /// A file with the credentials for private repositories over HTTPS.
    #[arg(long, value_name = "FILE")]
    git_credentials: Option<PathBuf>,
    /// A protocol that repositories are fetched by: https, ssh (git+ssh:// and host:path, too), http, git, or file for
    /// paths of this machine, where a submitter then reads whatever repository the agent's user may. May be given more
    /// than once; https and ssh by default. Submodules never come from paths of the machine.
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    git_protocol: Vec<Protocol>,
    /// A directory with hooks that every job runs, as the job's user (environment, pre-command, pre-exit and so on). They
    /// and every directory above belong to root or the agent's user, are not writable by others, and are readable by jobs.
    /// A file that others could have written ends every job with the cause hook_failed.
    #[arg(long, value_name = "DIR", env = "WINDLASS_HOOKS_PATH")]
    hooks_path: Option<PathBuf>,
    /// More directories with hooks, run after those of --hooks-path.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    additional_hooks_paths: Vec<PathBuf>,
    /// Where plugins are kept; a directory of the agent's own by default. One that lies there as its id is used as it is.
    #[arg(long, value_name = "DIR", env = "WINDLASS_PLUGINS_PATH")]
    plugins_path: Option<PathBuf>,
    /// Keep a mirror of each repository here, so that a job fetches only what is new. Jobs get copies and never the mirror.
    #[arg(long, value_name = "DIR", env = "WINDLASS_GIT_MIRRORS_PATH")]
    git_mirrors_path: Option<PathBuf>,
    /// How much is kept of plugins, such as 2GiB (the default); those that were not used for longest go first, none that is
    /// in use.
    #[arg(long, value_name = "SIZE")]
    plugins_max: Option<String>,
    /// The same for mirrors; 50GiB by default.
    #[arg(long, value_name = "SIZE")]
    git_mirrors_max: Option<String>,
    /// Plugins that are cloned with the agent's credentials whoever's step names them, by HOST or HOST/OWNER; every job of
    /// this agent may read them. May be given more than once. Without it the credentials are for what steps of trusted
    /// builds name.
    #[arg(long, value_name = "HOST/OWNER", value_delimiter = ',')]
    plugin_credentials: Vec<Owner>,
    /// Run no hooks of repositories, and no plugins.
    #[arg(long)]
    no_local_hooks: bool,
    /// Refuse steps with plugins.
    #[arg(long)]
    no_plugins: bool,
    /// The agent's name; the host's by default.
    #[arg(long)]
    name: Option<String>,
    /// Jobs at once; the number of processors by default.
    #[arg(long)]
    slots: Option<u32>,
    /// Processors to give to jobs.
    #[arg(long)]
    cpus: Option<String>,
    /// Memory to give to jobs, such as 4GiB.
    #[arg(long)]
    memory: Option<String>,
    /// A tag that jobs can ask for.
    #[arg(long, value_name = "K=V")]
    tag: Vec<String>,
    /// Run one job, then leave.
    #[arg(long)]
    once: bool,
    /// A TOML file; flags and environment win over it.
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG")]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check_config: bool,
}

/// Runs an agent until it leaves.
pub(crate) async fn run(arguments: AgentArguments, ui: &Ui) -> Result<Code, Failure> {
    serve::trace("info", ui);
    let check_config = arguments.check_config;
    let config = resolve(arguments)?;
    if check_config {
        ui.say("the configuration is good");
        return Ok(Code::Done);
    }
    let signals = serve::signals()?;
    serve::agent_end(windlass_agent::run(config, signals).await)
}

fn resolve(arguments: AgentArguments) -> Result<Config, Failure> {
    let mut problems = Problems::default();
    let file: ConfigFile = config::read(arguments.config.as_deref(), "agent", &mut problems);
    let servers = if arguments.server.is_empty() { file.server } else { arguments.server };
    if servers.is_empty() {
        let nobody = Failure::usage("no coordinator was named").hint("give --server HOST:PORT");
        problems.take::<()>(Err(nobody));
    }
    let slots = slots(arguments.slots.or(file.slots), &mut problems);
    let tags = if arguments.tag.is_empty() { file.tag } else { arguments.tag };
    let tags = tags.iter().filter_map(|tag| problems.take(key_value(tag))).collect();
    let join_token = match arguments.join_token_file.or(file.join_token_file) {
        None => None,
        Some(path) => problems.take(join_token(&path)),
    };
    let cpus = arguments.cpus.or(file.cpus);
    let memory = arguments.memory.or(file.memory);
    let bytes =
        |text: Option<&str>, problems: &mut Problems| problems.take(text.map(size::bytes).transpose()).flatten();
    let cache = bytes(file.cache.as_deref(), &mut problems);
    let listen = file.peer_listen.as_deref().map(str::parse::<PeerListen>);
    let listen = listen.and_then(|listen| problems.take(listen.map_err(|bad| Failure::usage(bad.to_string()))));
    let cache_floor = bytes(file.cache_floor.as_deref(), &mut problems);
    let protocols = problems.take(serve::git_protocols(arguments.git_protocol, file.git_protocols)).unwrap_or_default();
    let phases = Phases {
        plugins_path: arguments.plugins_path.or(file.plugins_path),
        git_mirrors_path: arguments.git_mirrors_path.or(file.git_mirrors_path),
        local_hooks_enabled: !arguments.no_local_hooks && file.local_hooks_enabled.unwrap_or(true),
        plugins_enabled: !arguments.no_plugins && file.plugins_enabled.unwrap_or(true),
        hooks_paths: hooks_paths(
            arguments.hooks_path.or(file.hooks_path),
            arguments.additional_hooks_paths,
            file.additional_hooks_paths,
        ),
        plugin_credentials: plugin_credentials(arguments.plugin_credentials, file.plugin_credentials, &mut problems),
        plugins_limits: limits(
            (arguments.plugins_max.or(file.plugins_max), file.plugins_max_count),
            Phases::default().plugins_limits,
            &mut problems,
        ),
        git_mirrors_limits: limits(
            (arguments.git_mirrors_max.or(file.git_mirrors_max), file.git_mirrors_max_count),
            Phases::default().git_mirrors_limits,
            &mut problems,
        ),
    };
    let fingerprint = problems.take(file.reuse.commands().map_err(Failure::usage)).unwrap_or_default();
    let config = Config {
        servers,
        data: arguments.data.or(file.data).unwrap_or_else(|| place::data_dir("agent")),
        name: arguments.name.or(file.name).unwrap_or_else(serve::hostname),
        slots,
        cpu_millis: cpus.as_deref().and_then(|cpus| problems.take(size::cpu_millis(cpus))),
        memory_bytes: bytes(memory.as_deref(), &mut problems),
        tags,
        join_token,
        ephemeral_identity: arguments.ephemeral_identity || file.ephemeral_identity.unwrap_or(false),
        git_credentials: arguments.git_credentials.or(file.git_credentials),
        git_protocols: protocols,
        once: arguments.once,
        slot_user_base: file.slot_user_base.unwrap_or(SLOT_USER_BASE),
        cache_bytes: cache.unwrap_or(CACHE_DEFAULT_BYTES),
        peer_listen: listen.unwrap_or_default(),
        cache_floor_bytes: cache_floor.unwrap_or(AGENT_FLOOR_BYTES),
        spawner: serve::spawner()?,
        docker_socket: place::engine_socket(file.docker_socket),
        phases,
        fingerprint,
        alone: false,
    };
    problems.or(config)
}

/// Jobs at once: as many as there are processors where nobody says.
fn slots(said: Option<u32>, problems: &mut Problems) -> u32 {
    let slots = said.unwrap_or_else(serve::default_slots);
    if slots == 0 || slots > SLOTS_MAX {
        problems.take::<()>(Err(Failure::usage(format!("slots: between 1 and {SLOTS_MAX}"))));
    }
    slots
}

/// Directories with hooks, in their order: flags over the file.
fn hooks_paths(first: Option<PathBuf>, flags: Vec<PathBuf>, file: Vec<PathBuf>) -> Vec<PathBuf> {
    let more = if flags.is_empty() { file } else { flags };
    first.into_iter().chain(more).collect()
}

/// Whose plugins the credentials are for: flags over the file, where an empty list is nobody's.
fn plugin_credentials(flags: Vec<Owner>, file: Option<Vec<String>>, problems: &mut Problems) -> PluginCredentials {
    let owner = |name: &String| name.parse().map_err(|error| Failure::usage(format!("plugin_credentials: {error}")));
    match (flags.is_empty(), file) {
        (false, _) => PluginCredentials::Owners(flags),
        (true, None) => PluginCredentials::TrustedBuilds,
        (true, Some(names)) => {
            PluginCredentials::Owners(names.iter().filter_map(|name| problems.take(owner(name))).collect())
        }
    }
}

/// How much is kept of something, where the operator says so.
fn limits((bytes, count): (Option<String>, Option<usize>), usual: Limits, problems: &mut Problems) -> Limits {
    let bytes = bytes.and_then(|bytes| problems.take(size::bytes(&bytes)));
    Limits { bytes: bytes.unwrap_or(usual.bytes), count: count.unwrap_or(usual.count) }
}

fn join_token(path: &Path) -> Result<Secret<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::system(format!("the join token cannot be read from {}", path.display()), &e))?;
    Ok(Secret::new(text.trim().to_owned()))
}

/// `k=v`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("`{text}` is no KEY=VALUE"))),
    }
}
