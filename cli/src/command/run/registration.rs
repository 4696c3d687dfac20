//! What the server knows of a run's pipeline by its name: variables and a branch that the pipeline's file may require.

use std::path::Path;

use crate::client::shape::{self, Pipeline};
use crate::client::{Client, ClientError, segment};

/// As the server has the pipeline.
#[derive(Debug)]
pub(super) enum Registration {
    /// It is not registered.
    Absent,
    /// So.
    Known(Box<Pipeline>),
    /// Nobody can be asked, or the server does not say.
    Unknown,
}

impl Registration {
    /// Asks a server. One that does not answer is met again at the submit, which tells why.
    pub(super) async fn ask(client: &Client, name: &str) -> Self {
        match client.get(&format!("/pipelines/{}", segment(name))).await {
            Ok(raw) => shape::read(&raw).map_or(Self::Unknown, |pipeline| Self::Known(Box::new(pipeline))),
            Err(ClientError::Problem(problem)) if problem.status == 404 => Self::Absent,
            Err(error) => {
                tracing::info!(error = %error, pipeline = name, "registration_not_told");
                Self::Unknown
            }
        }
    }

    /// With a server that has yet to be started over a data directory; where none ever was, nothing is registered.
    pub(super) fn of_data(data: &Path) -> Self {
        if data.join("api-token").exists() { Self::Unknown } else { Self::Absent }
    }

    /// Whether a variable that is not known here may be known there.
    pub(super) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// The pipeline, where it is registered.
    pub(super) fn pipeline(&self) -> Option<&Pipeline> {
        match self {
            Self::Known(pipeline) => Some(pipeline),
            Self::Absent | Self::Unknown => None,
        }
    }

    /// Its variables, which lie beneath all others.
    pub(super) fn beneath(&self) -> Vec<(String, String)> {
        let env = self.pipeline().into_iter().flat_map(|pipeline| &pipeline.env);
        env.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }
}
