//! A container in which a person looks at what a job left: the job's image, environment and workspace, and a shell.

use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use windlass_protocol::id::AttemptId;

use super::{Connection, ContainerError, bind, tolerate_missing};

/// Whose workspace a shell is in. Not an agent's label: no agent removes it while somebody sits in it.
const SHELL_LABEL: &str = "windlass.shell";

/// The shell that the image has, as a job gets it.
const SHELL: &str = "[ -x /bin/bash ] && exec /bin/bash\nexec /bin/sh";

/// What is entered.
#[derive(Debug)]
pub struct Shell<'a> {
    /// Whose workspace it is.
    pub attempt: AttemptId,
    /// The job's image.
    pub image: &'a str,
    /// The job's environment.
    pub env: &'a [(String, String)],
    /// At the same path within as without.
    pub workspace: &'a Path,
    /// Somebody sits at a terminal.
    pub terminal: bool,
}

impl Shell<'_> {
    /// Makes the container, and says its id; `docker start --attach --interactive` leads in. It is removed when its shell
    /// ends, if it ever started.
    ///
    /// # Errors
    /// [`ContainerError`]; nothing is left then.
    pub async fn make(&self, engine: &Connection) -> Result<String, ContainerError> {
        engine.ensure_image(self.image).await?;
        let workspace = self.workspace.to_string_lossy().into_owned();
        let body = ContainerCreateBody {
            image: Some(self.image.to_owned()),
            entrypoint: Some(["/bin/sh", "-c", SHELL].map(str::to_owned).to_vec()),
            cmd: Some(Vec::new()),
            env: Some(self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            working_dir: Some(workspace.clone()),
            labels: Some([(SHELL_LABEL.to_owned(), self.attempt.to_string())].into()),
            tty: Some(self.terminal),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                init: Some(true),
                mounts: Some(vec![bind(workspace.clone(), workspace)]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let made = engine.docker().await?.create_container(Some(options), body).await;
        made.map(|made| made.id).map_err(engine.fault("make the shell's container"))
    }
}

/// Removes a shell's container, however it ended.
///
/// # Errors
/// The engine's.
pub async fn remove(engine: &Connection, container: &str) -> Result<(), ContainerError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match engine.docker().await?.remove_container(container, Some(options)).await {
        // It removes itself, and is not yet done with it.
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
        other => tolerate_missing(other).map_err(engine.fault("remove the shell's container")),
    }
}
