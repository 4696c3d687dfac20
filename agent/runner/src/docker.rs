//! Runs jobs in containers: makes network and container, and hands them to a supervisor that starts, watches, ends and
//! removes them. What a crash leaves behind is found by its labels.

mod connection;
pub mod shell;
mod user;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use windlass_protocol::cause::{Cause, CauseKind};
use windlass_protocol::id::{AgentId, AttemptId};
use windlass_protocol::limits::JOB_PROCESSES_MAX;

pub use self::connection::Connection;
use crate::launch::{ContainerRecord, ContainerTask, Places, Task, write_whole};
use crate::mask::secrets_of;
use crate::owner;
use crate::runner::{Runner, RunningJob, Start, StartError};

/// The engine's usual socket.
pub const ENGINE_SOCKET: &str = "/var/run/docker.sock";

/// Whose it is; on containers and networks.
const AGENT_LABEL: &str = "windlass.agent";
/// Which attempt's it is.
const ATTEMPT_LABEL: &str = "windlass.attempt";
/// Where a container finds the attempt's FIFOs.
const SHARED: &str = "/run/windlass";
/// Waits for the supervisor's word, then runs the job's command with the shell that the image has: into the attempt's FIFO,
/// or in the terminal; or the program that follows the command. Where the image has its programs, only it knows: the in-job
/// command is put before them here.
const WRAPPER: &str = "read -r go </run/windlass/go && [ \"$go\" ] || exit 1\n\
                       [ $go = pipe ] && exec >/run/windlass/output 2>&1 </dev/null\n\
                       [ $go = stty ] && stty -opost rows 40 cols 160 2>/dev/null\n\
                       [ \"$BUILDKITE_BIN_PATH\" ] && export PATH=\"$BUILDKITE_BIN_PATH:$PATH\"\n\
                       [ $# = 1 ] || { shift; exec \"$@\"; }\n\
                       [ -x /bin/bash ] && exec /bin/bash -e -c \"$1\"\nexec /bin/sh -e -c \"$1\"";

/// Why a job's container was not started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No engine answers at the socket.
    #[error("no container engine answers at {}", socket.display())]
    NoEngine {
        /// Where it was looked for.
        socket: PathBuf,
        /// What happened.
        source: EngineError,
    },
    /// The image exists neither here nor where it would be pulled from.
    #[error("the image {image} does not exist: {what}")]
    ImageMissing {
        /// The reference.
        image: String,
        /// In the engine's words: to who may not see it, a registry says the same.
        what: String,
    },
    /// The image could not be pulled.
    #[error("the image {image} could not be pulled: {what}")]
    ImagePull {
        /// The reference.
        image: String,
        /// In the engine's words.
        what: String,
    },
    /// The engine refused something.
    #[error("the container engine could not {what}")]
    Engine {
        /// What it was asked for.
        what: &'static str,
        /// What it answered.
        source: EngineError,
    },
    /// The attempt's FIFOs could not be made, or its files not be given to the image's user.
    #[error("the job's files could not be made ready")]
    Files(#[source] io::Error),
    /// The supervisor could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ContainerError {
    /// The cause with which the attempt ends.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let kind = match self {
            Self::ImageMissing { .. } => CauseKind::ImageMissing,
            Self::ImagePull { .. } => CauseKind::ImagePullFailed,
            Self::NoEngine { .. } | Self::Engine { .. } | Self::Files(_) | Self::Start(_) => CauseKind::Internal,
        };
        let mut detail = match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        if let Some(hint) = self.hint() {
            detail = format!("{detail}; {hint}");
        }
        Cause::new(kind, detail)
    }

    /// What people can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoEngine { .. } => Some(
                "a step with an image needs Docker on its agent: start it there, or send the step to agents that have it",
            ),
            Self::ImageMissing { .. }
            | Self::ImagePull { .. }
            | Self::Engine { .. }
            | Self::Files(_)
            | Self::Start(_) => None,
        }
    }
}

/// The machine's container engine, as one agent uses it.
#[derive(Debug, Clone)]
pub struct Engine {
    connection: Connection,
    agent: String,
}

impl Engine {
    /// The engine that listens at `socket`, if one does.
    #[must_use]
    pub fn new(socket: &Path, agent: AgentId) -> Self {
        Self { connection: Connection::new(socket), agent: agent.to_string() }
    }

    /// Connects, and agrees on a version of the API; says which.
    ///
    /// # Errors
    /// [`ContainerError::NoEngine`].
    pub async fn connect(&self) -> Result<String, ContainerError> {
        Ok(self.connection.docker().await?.client_version().to_string())
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.connection.socket()
    }

    /// Asks whether it is there.
    ///
    /// # Errors
    /// [`ContainerError::NoEngine`], or what it answered.
    pub async fn ping(&self) -> Result<(), ContainerError> {
        let answer = self.connection.docker().await?.ping().await;
        answer.map(drop).map_err(self.connection.fault("say that it is there"))
    }

    /// The images that it has: their names, by tag and by digest, and how many bytes they have.
    ///
    /// # Errors
    /// [`ContainerError::NoEngine`], or what it answered.
    pub async fn images(&self) -> Result<Vec<(Vec<String>, u64)>, ContainerError> {
        let all = self.connection.docker().await?.list_images(None::<ListImagesOptions>).await;
        let all = all.map_err(self.connection.fault("list its images"))?;
        let named = all.into_iter().map(|image| {
            let names = image.repo_tags.into_iter().chain(image.repo_digests).collect();
            (names, u64::try_from(image.size).unwrap_or(0))
        });
        Ok(named.collect())
    }

    /// Whether one has ever answered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_made()
    }

    /// Makes the image present.
    ///
    /// # Errors
    /// That it is missing, or cannot be pulled.
    pub async fn ensure_image(&self, image: &str) -> Result<(), ContainerError> {
        self.connection.ensure_image(image).await
    }

    /// Starts a job in a container of its image. The workspace has the same path within as without.
    ///
    /// # Errors
    /// [`ContainerError`], with the cause that it stands for; nothing runs then, and nothing is left, unless the error
    /// [is doubtful](StartError::is_doubtful).
    pub async fn start(&self, runner: &Runner, start: Start<'_>) -> Result<RunningJob, ContainerError> {
        let image = start.job.image.clone().unwrap_or_default();
        self.ensure_image(&image).await?;
        let dir = runner.jobs().join(start.job.attempt.to_string());
        if !dir.exists() {
            runner.prepare(start.job, start.epoch, start.workspace, &[]).map_err(StartError::Directory)?;
        }
        let name = name_of(start.job.attempt);
        make_files(&Places(&dir), &ContainerRecord { engine: self.connection.socket().to_owned(), name })
            .map_err(ContainerError::Files)?;
        let launched = match self.make(&image, &start, &dir).await {
            Err(error) => Err(error),
            Ok((container, network)) => {
                let env = start.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let task = Task::Container(ContainerTask {
                    container,
                    network: Some(network),
                    engine: self.connection.socket().to_owned(),
                    secrets: secrets_of(env).0.into_iter().map(str::to_owned).collect(),
                    memory_bytes: start.job.resources.memory_bytes,
                    tty: start.job.tty,
                });
                runner.launch(&start, task).await.map_err(ContainerError::from)
            }
        };
        let doubtful = matches!(&launched, Err(ContainerError::Start(error)) if error.is_doubtful());
        if launched.is_err() && !doubtful {
            // The first error is what people need; what this one leaves is found by its labels.
            drop(self.reap_leftovers(|attempt| attempt != start.job.attempt).await);
        }
        launched
    }

    /// Makes network and container; says their ids.
    async fn make(&self, image: &str, start: &Start<'_>, dir: &Path) -> Result<(String, String), ContainerError> {
        let docker = self.connection.docker().await?;
        let (attempt, name) = (start.job.attempt, name_of(start.job.attempt));
        let request = NetworkCreateRequest {
            name: name.clone(),
            labels: Some(self.labels(attempt)),
            ..NetworkCreateRequest::default()
        };
        let network = docker.create_network(request).await.map_err(self.connection.fault("make the job's network"))?.id;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = body(image, start, dir, &network, self.labels(attempt));
        let made = docker
            .create_container(Some(options), body)
            .await
            .map_err(self.connection.fault("make the job's container"))?;
        if rustix::process::geteuid().is_root() {
            self.give_workspace(image, &made.id, start.workspace).await?;
        }
        Ok((made.id, network))
    }

    /// Gives the workspace to who works in it.
    async fn give_workspace(&self, image: &str, container: &str, workspace: &Path) -> Result<(), ContainerError> {
        let configured = self.connection.user_of(image).await?.unwrap_or_default();
        let user = user::of(self.connection.docker().await?, container, &configured).await;
        let Some(user) = user.map_err(self.connection.fault("look for the image's user"))? else { return Ok(()) };
        let workspace = workspace.to_owned();
        let given = tokio::task::spawn_blocking(move || owner::give(&workspace, user)).await;
        given.map_err(io::Error::other).flatten().map_err(ContainerError::Files)
    }

    fn labels(&self, attempt: AttemptId) -> HashMap<String, String> {
        [(AGENT_LABEL.to_owned(), self.agent.clone()), (ATTEMPT_LABEL.to_owned(), attempt.to_string())].into()
    }

    /// Ends and removes this agent's containers and networks, but for those of attempts that it keeps; says how many
    /// there were. `keep` is asked after they were listed.
    ///
    /// # Errors
    /// The engine's; what could be removed is.
    pub async fn reap_leftovers(&self, keep: impl Fn(AttemptId) -> bool) -> Result<usize, ContainerError> {
        let docker = self.connection.docker().await?;
        let filters: HashMap<_, _> = [("label".to_owned(), vec![format!("{AGENT_LABEL}={}", self.agent)])].into();
        let chosen = |labels: Option<&HashMap<String, String>>| {
            let attempt = labels.and_then(|labels| labels.get(ATTEMPT_LABEL)).and_then(|text| text.parse().ok());
            attempt.is_some_and(|attempt| !keep(attempt))
        };
        let list = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = docker.list_containers(Some(list)).await.map_err(self.connection.fault("list containers"))?;
        let mut removed = 0;
        for container in containers.into_iter().filter(|container| chosen(container.labels.as_ref())) {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let id = container.id.unwrap_or_default();
            tolerate_missing(docker.remove_container(&id, Some(options)).await)
                .map_err(self.connection.fault("remove a container"))?;
            removed += 1;
        }
        let list = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let networks = docker.list_networks(Some(list)).await.map_err(self.connection.fault("list networks"))?;
        for network in networks.into_iter().filter(|network| chosen(network.labels.as_ref())) {
            let id = network.id.unwrap_or_default();
            tolerate_missing(docker.remove_network(&id).await).map_err(self.connection.fault("remove a network"))?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// An attempt's container, and its network.
pub(crate) fn name_of(attempt: AttemptId) -> String {
    format!("windlass-{attempt}")
}

fn body(
    image: &str,
    start: &Start<'_>,
    dir: &Path,
    network: &str,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let (job, workspace) = (start.job, start.workspace.to_string_lossy().into_owned());
    let limit = |value: u64| (value > 0).then(|| i64::try_from(value).unwrap_or(i64::MAX));
    let memory = limit(job.resources.memory_bytes);
    // A FIFO can be written to all the same.
    let shared = bind(Places(dir).shared().to_string_lossy().into_owned(), SHARED.to_owned());
    let mut mounts = vec![bind(workspace.clone(), workspace.clone()), Mount { read_only: Some(true), ..shared }];
    for shown in start.shown.iter().map(|path| path.to_string_lossy().into_owned()) {
        mounts.push(Mount { read_only: Some(true), ..bind(shown.clone(), shown) });
    }
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(
            ["/bin/sh", "-c", WRAPPER, "sh", &job.command]
                .map(str::to_owned)
                .into_iter()
                .chain(start.program.iter().flatten().cloned())
                .collect(),
        ),
        cmd: Some(Vec::new()),
        env: Some(start.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: Some(workspace.clone()),
        labels: Some(labels),
        tty: Some(job.tty),
        host_config: Some(HostConfig {
            memory,
            // The same as memory: no swap beside it.
            memory_swap: memory,
            nano_cpus: limit(job.resources.cpu_millis.saturating_mul(1_000_000)),
            pids_limit: limit(JOB_PROCESSES_MAX),
            init: Some(true),
            mounts: Some(mounts),
            network_mode: Some(network.to_owned()),
            // Output goes through the FIFO, or to who attached; the engine keeps none.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn bind(source: String, target: String) -> Mount {
    Mount { source: Some(source), target: Some(target), typ: Some(MountType::BIND), ..Mount::default() }
}

/// Makes what the container sees of the attempt's directory, and notes that there will be a container.
fn make_files(places: &Places<'_>, record: &ContainerRecord) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, chmod, mkdirat, mknodat};
    mkdirat(CWD, places.shared(), Mode::from_raw_mode(0o755))?;
    for fifo in [places.output(), places.go()] {
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
        // Whatever the umask: an image may run as any user, and the directory around it is closed to all.
        chmod(&fifo, Mode::from_raw_mode(0o666))?;
    }
    chmod(places.shared(), Mode::from_raw_mode(0o755))?;
    write_whole(&places.container(), &serde_json::to_vec(record)?)
}

/// Whether a reference names a tag or a digest; a colon before the last slash is a port.
fn has_tag(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|name| name.contains(':'))
}

/// Engines tell a missing image in several ways; the words are those of Docker's registries client.
fn pull_error(image: &str, error: &EngineError) -> ContainerError {
    let (missing, what) = match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            (*status_code == 404 || says_missing(message), message.clone())
        }
        other => (says_missing(&other.to_string()), other.to_string()),
    };
    let image = image.to_owned();
    if missing { ContainerError::ImageMissing { image, what } } else { ContainerError::ImagePull { image, what } }
}

fn says_missing(message: &str) -> bool {
    ["manifest unknown", "not found", "does not exist", "No such image"].iter().any(|words| message.contains(words))
}

fn tolerate_missing(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert!(has_tag("busybox:1") && has_tag("host:5000/a/b:1") && has_tag("a@sha256:0"));
        assert!(!has_tag("busybox") && !has_tag("host:5000/a/b"));
    }

    #[test]
    fn an_image_that_does_not_exist_is_told_from_one_that_cannot_be_fetched() {
        let error = |status_code, message: &str| EngineError::DockerResponseServerError {
            status_code,
            message: message.into(),
        };
        let kind = |error: &EngineError| pull_error("a", error).cause().kind;
        assert_eq!(kind(&error(404, "pull access denied for a, repository does not exist")), CauseKind::ImageMissing);
        assert_eq!(kind(&error(500, "manifest for a:latest not found: manifest unknown")), CauseKind::ImageMissing);
        assert_eq!(kind(&error(500, "Get https://a/v2/: dial tcp: i/o timeout")), CauseKind::ImagePullFailed);
    }
}
