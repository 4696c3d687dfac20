//! What the modes that serve have in common: signals, tracing, and an embedded agent.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use windlass_agent::config::PeerListen;
use windlass_agent::{Config as AgentConfig, Ended};
use windlass_agent_core::Signal;
use windlass_agent_runner::runner::SLOT_USER_BASE;
use windlass_coordinator::Coordinator;
use windlass_git::{Protocol, Protocols};
use windlass_protocol::Secret;

use crate::SPAWNER;
use crate::error::{Code, Failure};
use crate::place;
use crate::ui::Ui;

/// Starts tracing to stderr: `WINDLASS_LOG`, else what an operator follows; with colours where a terminal reads it.
pub(crate) fn trace(default: &str, ui: &Ui) {
    let filter = EnvFilter::try_from_env("WINDLASS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ui.has_colour());
    // A second start in the same process keeps the first one's.
    let _ = lines.with_writer(std::io::stderr).try_init();
}

/// The process's signals, in order (F19).
pub(crate) fn signals() -> Result<mpsc::Receiver<Signal>, Failure> {
    let (send, receive) = mpsc::channel(8);
    for (kind, meaning) in [
        (SignalKind::terminate(), Signal::Term),
        (SignalKind::interrupt(), Signal::Int),
        (SignalKind::quit(), Signal::Quit),
    ] {
        let mut stream = signal(kind).map_err(|e| Failure::system("signals cannot be listened to", &e))?;
        let send = send.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && send.send(meaning).await.is_ok() {} });
    }
    Ok(receive)
}

/// This program in its spawner mode.
pub(crate) fn spawner() -> Result<(PathBuf, Vec<String>), Failure> {
    let exe = std::env::current_exe().map_err(|e| Failure::system("this program's own path cannot be read", &e))?;
    Ok((exe, vec![SPAWNER.to_owned()]))
}

/// Refuses a data directory that the users cannot reach as whom an agent's jobs run.
pub(crate) fn check_reachable(data: &Path) -> Result<(), Failure> {
    match place::closed_directory(data) {
        Some(closed) if rustix::process::geteuid().is_root() => {
            let text = format!("jobs run as users of their own, and those cannot reach {}", data.display());
            Err(Failure::usage(text)
                .hint(format!("allow it with `chmod o+x {}`, or give another --data", closed.display())))
        }
        _ => Ok(()),
    }
}

/// An agent for a coordinator in the same process, `alone` where it is the only one that there will be.
pub(crate) fn embedded_agent(
    coordinator: &Coordinator,
    data: &Path,
    slots: u32,
    join_token: Option<Secret<String>>,
    git_protocols: Protocols,
    alone: bool,
) -> Result<AgentConfig, Failure> {
    check_reachable(data)?;
    let port = coordinator.address.port();
    let host = if coordinator.address.ip().is_ipv6() { "[::1]" } else { "127.0.0.1" };
    let server = if coordinator.address.ip().is_unspecified() {
        format!("{host}:{port}")
    } else {
        coordinator.address.to_string()
    };
    Ok(AgentConfig {
        servers: vec![server],
        data: data.join("agent"),
        name: hostname(),
        slots,
        cpu_millis: None,
        memory_bytes: None,
        tags: Vec::new(),
        join_token,
        ephemeral_identity: false,
        git_credentials: None,
        git_protocols,
        once: false,
        slot_user_base: SLOT_USER_BASE,
        cache_bytes: windlass_agent::config::CACHE_DEFAULT_BYTES,
        peer_listen: if alone { PeerListen::Off } else { PeerListen::Anywhere },
        cache_floor_bytes: windlass_protocol::limits::AGENT_FLOOR_BYTES,
        spawner: spawner()?,
        docker_socket: place::engine_socket(None),
        phases: windlass_agent::config::Phases::default(),
        fingerprint: Vec::new(),
        alone,
    })
}

/// The protocols that an operator named: by flags, else in his file, where an empty list is none at all; else the usual ones.
pub(crate) fn git_protocols(flags: Vec<Protocol>, file: Option<Vec<String>>) -> Result<Protocols, Failure> {
    match (flags.is_empty(), file) {
        (false, _) => Ok(flags.into_iter().collect()),
        (true, Some(names)) => {
            Protocols::named(&names).map_err(|error| Failure::usage(format!("git_protocols: {error}")))
        }
        (true, None) => Ok(Protocols::default()),
    }
}

/// The host's name, for people.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Jobs at once where nobody says: one for each processor.
pub(crate) fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// What the end of an agent means for the process.
pub(crate) fn agent_end(ended: Result<Ended, windlass_agent::Fault>) -> Result<Code, Failure> {
    match ended {
        Ok(Ended::Drained | Ended::Quit) => Ok(Code::Done),
        Ok(Ended::Refused(code)) => {
            let name = serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            Err(Failure::new(Code::Refused, format!("the coordinator will not serve this agent: {name}"))
                .hint(code.advice()))
        }
        Err(fault) => {
            let code = match &fault {
                windlass_agent::Fault::Refused { .. } => Code::Refused,
                windlass_agent::Fault::Unreachable { .. } => Code::Unreachable,
                windlass_agent::Fault::NoToken
                | windlass_agent::Fault::TokenUnreadable { .. }
                | windlass_agent::Fault::Address { .. } => Code::Usage,
                windlass_agent::Fault::File { .. }
                | windlass_agent::Fault::Locked { .. }
                | windlass_agent::Fault::Identity(_)
                | windlass_agent::Fault::System { .. }
                | windlass_agent::Fault::Cache(_) => Code::Failed,
            };
            let hint = fault.hint();
            Err(Failure::of(code, &fault).hint_if(hint))
        }
    }
}

/// A duration as flags have it: `30s`, `5m`.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    u64::try_from(duration.as_millis()).map_err(|e| e.to_string())
}

/// 128 random bits for a key that nobody else has.
pub(crate) fn random_hex() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Code::Failed, format!("the system gives no random bytes: {e}")))?;
    Ok(windlass_protocol::hex::to(&bytes))
}
