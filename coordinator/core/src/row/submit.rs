//! What makes builds and adds to them: submits, remembered by their keys, and uploads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_pipeline::graph::Graph;
use windlass_protocol::job::{Epoch, Source};
use windlass_protocol::{AttemptId, BuildId, Digest, Namespace, TokenId, WallMs};

use super::{Actor, BuildSource, Confined, PipelineRow, TriggeredFrom};

/// What a submit asks for. The shell has compiled the pipeline, checked scopes and made the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submit {
    /// Made by the shell, because a pipeline may say it.
    pub id: BuildId,
    /// The number that the pipeline was compiled with, if it says it: it is the build's, or the submit is refused with
    /// [`crate::Rejected::NumberTaken`].
    pub number: Option<u64>,
    /// The pipeline's name.
    pub pipeline: String,
    /// The registration by which it was decided what is run and trusted, if there was one. Where the pipeline has another one
    /// by now, the submit is refused with [`crate::Rejected::PipelineChanged`].
    pub registration: Option<Box<PipelineRow>>,
    /// Its text.
    pub definition: String,
    /// What the text came to.
    pub graph: Graph,
    /// As in the build's row.
    pub branch: String,
    /// As in the build's row.
    pub commit: String,
    /// As in the build's row.
    pub tag: Option<String>,
    /// As in the build's row.
    pub message: String,
    /// As in the build's row.
    pub origin: Source,
    /// As in the build's row.
    pub source: BuildSource,
    /// As in the build's row.
    pub creator: Actor,
    /// As in the build's row.
    pub namespace: Namespace,
    /// As in the build's row.
    pub env: Vec<(String, String)>,
    /// As in the build's row.
    pub meta_data: BTreeMap<String, String>,
    /// As in the build's row.
    pub keep_workspace: bool,
    /// As in the build's row.
    pub no_reuse: bool,
    /// As in the build's row.
    pub rebuilt_from: Option<BuildId>,
    /// As in the build's row.
    pub triggered_from: Option<TriggeredFrom>,
    /// As in the build's row.
    pub confined: Option<Confined>,
    /// As in the build's row.
    pub untrusted: Option<String>,
    /// Who and which key, with the body's digest, if the client gave a key.
    pub idempotency: Option<((TokenId, String), Digest)>,
}

/// What a job adds to its build. The shell has compiled the text and checked who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Which attempt uploads: it must hold a right.
    pub attempt: AttemptId,
    /// By which right, where an agent hands it on.
    pub epoch: Option<Epoch>,
    /// Made by the client, a UUID: the same again changes nothing.
    pub id: String,
    /// The text.
    pub definition: String,
    /// What it came to.
    pub graph: Graph,
    /// Steps after the job's own that have not started go first.
    pub replace: bool,
}

/// A remembered submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// Who, then the key: two tokens never share one.
    pub key: (TokenId, String),
    /// Digest of the body.
    pub body: Digest,
    /// What it made.
    pub build: BuildId,
    /// When.
    pub at: WallMs,
}
