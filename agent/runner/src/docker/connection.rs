//! The way to a machine's container engine, which may come, go and come again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::errors::Error as EngineError;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt;
use tokio::sync::OnceCell;

use super::{ContainerError, has_tag, pull_error};

/// Seconds for one request; pulling an image is one, its progress comes meanwhile.
const REQUEST_SECONDS: u64 = 120;

/// The engine at a socket, asked for when it is needed.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Once one has answered.
    docker: Arc<OnceCell<Docker>>,
    socket: PathBuf,
}

impl Connection {
    /// To the engine that listens at `socket`, if one does.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { docker: Arc::default(), socket: socket.to_owned() }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it has ever answered.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.docker.initialized()
    }

    /// The engine, with a version of the API agreed on.
    pub(super) async fn docker(&self) -> Result<&Docker, ContainerError> {
        let connect = async || {
            let path = self.socket.to_string_lossy();
            Docker::connect_with_socket(&path, REQUEST_SECONDS, API_DEFAULT_VERSION)?.negotiate_version().await
        };
        let none = |source| ContainerError::NoEngine { socket: self.socket.clone(), source };
        self.docker.get_or_try_init(connect).await.map_err(none)
    }

    /// What a request came to that an engine did not grant, or did not hear.
    pub(super) fn fault(&self, what: &'static str) -> impl Fn(EngineError) -> ContainerError {
        let socket = self.socket.clone();
        move |source| match source {
            EngineError::DockerResponseServerError { .. } | EngineError::RequestTimeoutError => {
                ContainerError::Engine { what, source }
            }
            source => ContainerError::NoEngine { socket: socket.clone(), source },
        }
    }

    /// Makes an image present.
    ///
    /// # Errors
    /// That it is missing, or cannot be pulled.
    pub async fn ensure_image(&self, image: &str) -> Result<(), ContainerError> {
        if self.user_of(image).await?.is_some() {
            return Ok(());
        }
        let mut options = CreateImageOptionsBuilder::default().from_image(image);
        if !has_tag(image) {
            options = options.tag("latest");
        }
        let pulling = self.docker().await?.create_image(Some(options.build()), None, None);
        pulling.try_for_each(|_| async { Ok(()) }).await.map_err(|error| pull_error(image, &error))
    }

    /// Who an image's commands run as, in the image's own words; `None` where the image is not here.
    pub(super) async fn user_of(&self, image: &str) -> Result<Option<String>, ContainerError> {
        match self.docker().await?.inspect_image(image).await {
            Ok(found) => Ok(Some(found.config.and_then(|config| config.user).unwrap_or_default())),
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(source) => Err(self.fault("look for the image")(source)),
        }
    }
}
