//! Every error as problem+json (RFC 9457), with a `type` that programs may rely on.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::row::{JobRefused, PinRefused, SecretRefused};

use crate::config::OverlayFull;
use crate::definitions::DefinitionError;
use crate::desk::DeskError;
use crate::views::ReadError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $status:ident, $slug:literal, $title:literal;)*) => {
        /// What kind of problem it is; the last part of its `type` is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            const fn table(self) -> (StatusCode, &'static str, &'static str) {
                match self { $(Self::$variant => (StatusCode::$status, concat!("/problems/", $slug), $title),)* }
            }

            /// The kind that a status without a problem of ours stands for.
            fn of(status: StatusCode) -> Self {
                match status {
                    StatusCode::UNAUTHORIZED => Self::Unauthorized,
                    StatusCode::FORBIDDEN => Self::Forbidden,
                    StatusCode::NOT_FOUND => Self::NotFound,
                    StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
                    StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
                    _ if status.is_client_error() => Self::BadRequest,
                    _ => Self::Internal,
                }
            }
        }
    };
}

kinds! {
    /// Not understood at all.
    BadRequest = BAD_REQUEST, "bad-request", "The request cannot be understood";
    /// No token, or none that counts.
    Unauthorized = UNAUTHORIZED, "unauthorized", "A valid API token is needed";
    /// The token does not allow it.
    Forbidden = FORBIDDEN, "forbidden", "The token does not allow this";
    /// Not there, or not to be seen by this token.
    NotFound = NOT_FOUND, "not-found", "There is nothing here";
    /// The path is right.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The path has no such method";
    /// Its state does not allow it.
    Conflict = CONFLICT, "conflict", "Its state does not allow this";
    /// Another pipeline has the name.
    PipelineExists = CONFLICT, "pipeline-exists", "A pipeline of this name is registered";
    /// A token contradicts a pool.
    PoolConflict = CONFLICT, "pool-conflict", "The pool exists and is described otherwise";
    /// Another pin has the name.
    PinNameTaken = CONFLICT, "pin-name-taken", "Another build of the pipeline is pinned by this name";
    /// A build that is not trusted cannot be pinned.
    PinUntrusted = CONFLICT, "pin-untrusted", "Only trusted builds can be pinned";
    /// An upload is elsewhere than the client thinks.
    UploadOffset = CONFLICT, "upload-offset", "The upload goes on at another offset";
    /// A body past its limit.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    /// A range past the end.
    RangeUnsatisfiable = RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "The range lies past the end";
    /// A body or a parameter that means nothing.
    Invalid = UNPROCESSABLE_ENTITY, "invalid", "The request is not valid";
    /// A pipeline that cannot run.
    PipelineInvalid = UNPROCESSABLE_ENTITY, "pipeline-invalid", "The pipeline cannot run";
    /// The same key with another body.
    IdempotencyMismatch = UNPROCESSABLE_ENTITY, "idempotency-mismatch", "The key was used with another body";
    /// The tree was not uploaded.
    SourceMissing = UNPROCESSABLE_ENTITY, "source-missing", "The source is not in the cache";
    /// No such branch, tag or commit in the repository.
    CommitMissing = UNPROCESSABLE_ENTITY, "commit-missing", "The repository has no such commit";
    /// The repository does not answer, or not to us.
    RepositoryUnreachable = BAD_GATEWAY, "repository-unreachable", "The repository cannot be fetched";
    /// The repository takes too long.
    RepositoryTimeout = GATEWAY_TIMEOUT, "repository-timeout", "The repository was not read in time";
    /// Bytes that are not what their name says.
    DigestMismatch = UNPROCESSABLE_ENTITY, "digest-mismatch", "The bytes are not what their digest says";
    /// Bytes that are no pack.
    PackInvalid = UNPROCESSABLE_ENTITY, "pack-invalid", "The body is not a pack of blobs";
    /// A bound of the system.
    LimitReached = UNPROCESSABLE_ENTITY, "limit-reached", "A limit was reached";
    /// Not now.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "The coordinator cannot answer now";
    /// No space.
    StorageFull = INSUFFICIENT_STORAGE, "storage-full", "The coordinator's disk is full";
    /// Our fault.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong in the coordinator";
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// As it is written (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// A stable path such as `/problems/pipeline-invalid`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the kind is called.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong in this case, and how to mend it.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// Each error by itself; for a pipeline its diagnostics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    errors: Vec<Value>,
}

/// Seconds after which a client that was told to come again does.
const RETRY_AFTER_SECONDS: u16 = 1;

impl Problem {
    /// A problem of this kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let headers = match kind {
            Kind::Unauthorized => vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            Kind::Unavailable => vec![(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))],
            _ => Vec::new(),
        };
        Self { kind, detail: detail.into(), errors: Vec::new(), headers }
    }

    /// There is no such thing, or this token may not know of it.
    pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} `{name}`"))
    }

    /// What the client sent means nothing.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    /// Ours; the words go to the operator's log, not to the client.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "request_failed");
        Self::new(Kind::Internal, "the coordinator's log says more")
    }

    /// What lies in the cache's bucket alone is out of reach.
    pub(crate) fn no_bucket(error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%error, "bucket_unavailable");
        Self::new(Kind::Unavailable, "the cache's bucket does not answer; nothing is lost, try again")
    }

    /// The same with errors one by one.
    pub(crate) fn with_errors(mut self, errors: Vec<Value>) -> Self {
        self.errors = errors;
        self
    }

    /// The same with a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn write(self, instance: String) -> Response {
        let (status, kind, title) = self.kind.table();
        let document =
            Document { kind, title, status: status.as_u16(), detail: self.detail, instance, errors: self.errors };
        let mut response = (status, Json(document)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Waits in the response's extensions until [`finish`] knows the path.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.table().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes every error as a problem, those of the router too, and says of everything that its type is not to be guessed.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.write(instance);
    } else if response.status().is_client_error() || response.status().is_server_error() {
        let (parts, _body): (_, Body) = response.into_parts();
        let mut problem = Problem::new(Kind::of(parts.status), explain(parts.status));
        if let Some(allow) = parts.headers.get(ALLOW) {
            problem = problem.with_header(ALLOW, allow.clone());
        }
        response = problem.write(instance);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn explain(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "no such path; the API begins with /api/v1, and /openapi.json describes it",
        StatusCode::METHOD_NOT_ALLOWED => "the path exists; see the Allow header for its methods",
        _ => "the request could not be read",
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fault(fault) => Self::internal(&fault),
            ReadError::Unavailable => Self::new(Kind::Unavailable, "the coordinator is loading its store; try again"),
        }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let kind = match &error {
            DeskError::Rejected(rejected) => return rejected.into(),
            DeskError::Unavailable | DeskError::ShuttingDown => Kind::Unavailable,
            DeskError::StorageFull => Kind::StorageFull,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&Rejected> for Problem {
    fn from(rejected: &Rejected) -> Self {
        let kind = match rejected {
            Rejected::NotInMemory(_) | Rejected::JobNotInMemory(_) => {
                return Self::new(Kind::Conflict, "it has already ended");
            }
            Rejected::Job { why: JobRefused::NotAllowedHere { .. }, .. } => Kind::Forbidden,
            Rejected::BuildEnded { .. } | Rejected::Job { .. } => Kind::Conflict,
            Rejected::Answer { field, why } => {
                let error = json!({ "field": field, "message": why });
                return Self::invalid(rejected.to_string()).with_errors(vec![error]);
            }
            Rejected::IdempotencyMismatch => Kind::IdempotencyMismatch,
            Rejected::Limit { .. } => Kind::LimitReached,
            Rejected::Graph(_) => Kind::PipelineInvalid,
            Rejected::PoolConflict { .. } => Kind::PoolConflict,
            Rejected::PipelineExists(_) => Kind::PipelineExists,
            Rejected::Setting { what, why } => {
                return Self::invalid(rejected.to_string()).with_errors(vec![json!({ "field": what, "message": why })]);
            }
            Rejected::NoSuchSchedule(_)
            | Rejected::NoSuchPipeline(_)
            | Rejected::NoSuchPool(_)
            | Rejected::NoSuchToken(_)
            | Rejected::NoSuchAgent(_) => Kind::NotFound,
            Rejected::Pin(PinRefused::Untrusted(_)) => Kind::PinUntrusted,
            Rejected::Pin(PinRefused::Over(_)) => Kind::Conflict,
            Rejected::Pin(PinRefused::NameTaken { .. }) => Kind::PinNameTaken,
            Rejected::Pin(PinRefused::NoRoom { .. } | PinRefused::Full(_)) => Kind::LimitReached,
            Rejected::Secret(SecretRefused::Invalid { .. }) => Kind::Invalid,
            Rejected::Secret(SecretRefused::NoSuchSecret(_) | SecretRefused::NotForJob { .. }) => Kind::NotFound,
            Rejected::Secret(SecretRefused::Untrusted) => Kind::Forbidden,
            Rejected::Join(_)
            | Rejected::VoidConnection(_)
            | Rejected::NoLease(_)
            | Rejected::StaleEpoch { .. }
            | Rejected::NotYours { .. }
            | Rejected::NoOrder(_)
            | Rejected::NotUnderWay(_)
            | Rejected::NotAsked(_)
            | Rejected::IdTaken(_) => Kind::Conflict,
            // As many others came first as a submit tries; the client's next try has as good a chance.
            Rejected::NumberTaken { .. } | Rejected::PipelineChanged(_) => Kind::Unavailable,
        };
        // States are printed in the interface's words elsewhere; here the sentence must not be a Debug dump.
        let detail = match rejected {
            Rejected::BuildEnded { build, .. } => format!("build {build} has already ended"),
            other => other.to_string(),
        };
        Self::new(kind, detail)
    }
}

impl From<OverlayFull> for Problem {
    fn from(full: OverlayFull) -> Self {
        Self::new(Kind::LimitReached, full.to_string())
    }
}

impl From<DefinitionError> for Problem {
    fn from(error: DefinitionError) -> Self {
        let kind = match &error {
            DefinitionError::Repository(_)
            | DefinitionError::BadReference(_)
            | DefinitionError::BadCommit
            | DefinitionError::BadPath(_) => Kind::Invalid,
            DefinitionError::NoSuchReference(_) | DefinitionError::NoSuchCommit(_) => Kind::CommitMissing,
            DefinitionError::NoFile { .. }
            | DefinitionError::NoSuchFile { .. }
            | DefinitionError::TooLarge { .. }
            | DefinitionError::NotText { .. } => Kind::PipelineInvalid,
            DefinitionError::Unreachable { .. } => Kind::RepositoryUnreachable,
            DefinitionError::RepositoryTooLarge => Kind::LimitReached,
            DefinitionError::TimedOut(_) => Kind::RepositoryTimeout,
            DefinitionError::Busy => Kind::Unavailable,
            DefinitionError::StorageFull => Kind::StorageFull,
            DefinitionError::Fault { .. } => return Self::internal(&error),
        };
        Self::new(kind, error.to_string())
    }
}

impl From<windlass_coordinator_logs::Fault> for Problem {
    fn from(fault: windlass_coordinator_logs::Fault) -> Self {
        use windlass_coordinator_logs::Fault;
        match fault {
            Fault::Unknown { attempt } => Self::not_found("log of attempt", attempt),
            Fault::Closing => Self::new(Kind::Unavailable, fault.to_string()),
            Fault::Disk { .. } | Fault::Damaged { .. } => Self::internal(&fault),
        }
    }
}

impl From<windlass_cache::Error> for Problem {
    fn from(error: windlass_cache::Error) -> Self {
        use windlass_cache::Rejected;
        let rejected = match error {
            windlass_cache::Error::Fault(fault) => return fault.into(),
            windlass_cache::Error::Rejected(rejected) => rejected,
        };
        let kind = match &rejected {
            Rejected::WrongDigest { .. } => Kind::DigestMismatch,
            Rejected::BlobTooLarge => Kind::TooLarge,
            Rejected::BadPack(_) => Kind::PackInvalid,
            Rejected::Missing { .. } => Kind::SourceMissing,
            Rejected::NamespaceTooLong
            | Rejected::BadTree { .. }
            | Rejected::BadPath { .. }
            | Rejected::Changed { .. } => Kind::Invalid,
        };
        Self::new(kind, rejected.to_string())
    }
}

impl From<windlass_cache::Fault> for Problem {
    fn from(fault: windlass_cache::Fault) -> Self {
        use windlass_cache::Fault;
        match fault {
            Fault::DiskFull { .. } | Fault::NoSpace { .. } => {
                tracing::warn!(%fault, "cache_full");
                Self::new(Kind::StorageFull, "the cache's disk is full; nothing that was stored before is lost")
            }
            Fault::Poisoned { .. } => {
                tracing::error!(%fault, "cache_poisoned");
                Self::new(Kind::Unavailable, "the cache takes no more writes until the coordinator is restarted")
            }
            Fault::Unavailable { .. } => Self::no_bucket(&fault),
            Fault::Damaged { digest } => {
                tracing::warn!(%digest, "blob_damaged");
                Self::not_found("blob", digest)
            }
            Fault::Io { .. } | Fault::InUse { .. } | Fault::Lost { .. } => Self::internal(&fault),
        }
    }
}
