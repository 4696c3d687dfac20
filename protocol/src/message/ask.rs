//! What a job asks of its coordinator, handed on by its agent: one request and one answer on each bidirectional stream
//! of the agent's control connection.
//!
//! An [`Ask`] is one frame; where it has a body (a document, a text), so many raw bytes follow it. The answer is a
//! [`Told`]. The right to the attempt is the capability: whoever asks by another one is told [`AskRefused::NotHeld`], and
//! everything that is asked is about the attempt's own build, unless the request names another that it may read.

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use super::validate::{Invalid, Validate, require};
use crate::id::{ArtifactId, AttemptId, BuildId, JobId};
use crate::job::Epoch;
use crate::limits::{
    ANNOTATION_CONTEXT_MAX_CHARS, ANNOTATION_MAX_BYTES, ARTIFACT_MAX_BYTES, ARTIFACTS_FOUND_MAX, ARTIFACTS_PER_ASK_MAX,
    ASK_TEXT_MAX_BYTES, CACHE_KEY_MAX_BYTES, CACHE_MANIFEST_MAX_BYTES, CACHE_RESTORE_KEYS_MAX, DETAIL_MAX_BYTES,
    META_DATA_KEY_MAX_BYTES, META_DATA_KEYS_MAX, META_DATA_MAX_BYTES, META_DATA_VALUE_MAX_BYTES, NAME_MAX_BYTES,
    OIDC_CLAIMS_MAX, PIPELINE_MAX_BYTES, SECRETS_ANSWER_MAX_BYTES, SECRETS_PER_ASK_MAX, STEP_VALUE_MAX_BYTES,
    TREE_NAME_MAX_BYTES, URL_MAX_BYTES,
};
use crate::secret::Secret;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Ask {
    /// The attempt whose job asks.
    pub attempt: AttemptId,
    /// By which right.
    pub epoch: Epoch,
    /// Made for one call of the command: the same again is the same request.
    pub call: [u8; 16],
    /// What is asked.
    pub what: Asked,
    /// Raw bytes that follow.
    pub body_bytes: u32,
}

/// How an annotation looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Style {
    /// Green.
    Success,
    /// Blue.
    Info,
    /// Yellow.
    Warning,
    /// Red.
    Error,
}

/// What an annotation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Scope {
    /// The whole build.
    Build,
    /// The job that makes it.
    Job,
}

/// An artifact whose bytes are in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct NewArtifact {
    /// Its path in the build, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub digest: crate::digest::Digest,
    /// SHA-1 of its bytes.
    pub sha1: [u8; 20],
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Such as `text/plain`.
    pub content_type: String,
}

/// Which artifacts are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct ArtifactQuery {
    /// Another build than the attempt's.
    pub build: Option<BuildId>,
    /// Their path; `*` is any run of characters, `/` too (reference 20.3).
    pub path: String,
    /// Only of this step: key, label or job.
    pub step: String,
    /// Of earlier attempts too.
    pub retried: bool,
    /// Only what was added before this one, where an answer was full.
    pub before: Option<ArtifactId>,
}

/// An artifact that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FoundArtifact {
    /// Its id.
    pub id: ArtifactId,
    /// The job that made it.
    pub job: JobId,
    /// When it was added.
    pub created_at: crate::time::WallMs,
    /// Where people get it.
    pub url: String,
    /// What was said of it.
    pub artifact: NewArtifact,
}

/// Artifacts that were looked for, with what their files are.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FoundFiles {
    /// Newest first; as many as [`crate::limits::ARTIFACTS_FOUND_MAX`] where there may be more.
    pub found: Vec<FoundArtifact>,
    /// The places in it of files that may be executed, rising.
    pub executable: Vec<u32>,
}

/// Which cache is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct CacheQuery {
    /// Of its registry and its paths: caches of other paths are other caches.
    pub scope: crate::digest::Digest,
    /// Its key.
    pub key: String,
    /// Beginnings of keys that will do where there is nothing under the key, the first one first.
    pub restore_keys: Vec<String>,
}

/// A cache whose bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct NewCache {
    /// Of its registry and its paths.
    pub scope: crate::digest::Digest,
    /// Its key.
    pub key: String,
    /// The blob that names everything in it.
    pub manifest: crate::digest::Digest,
    /// Its length.
    pub manifest_bytes: u64,
}

/// A cache that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct FoundCache {
    /// Its key.
    pub key: String,
    /// The blob that names everything in it.
    pub manifest: crate::digest::Digest,
    /// Its length.
    pub manifest_bytes: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was saved.
    pub created_at: crate::time::WallMs,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Asked {
    /// Set meta-data of the build, all of it or none.
    SetMetaData {
        /// Keys and values.
        values: Vec<(String, String)>,
    },
    /// A value of the meta-data; [`Told::Value`].
    GetMetaData {
        /// Another build than the attempt's.
        build: Option<BuildId>,
        /// Its key.
        key: String,
    },
    /// All keys of the meta-data, in order; [`Told::Keys`].
    MetaDataKeys {
        /// Another build than the attempt's.
        build: Option<BuildId>,
    },
    /// Annotate; the body is the text, which may be missing where only the style changes.
    Annotate {
        /// Which annotation.
        context: String,
        /// How it looks; `None`: plain, or as it is where only a text is added.
        style: Option<Style>,
        /// Add the text to what is there.
        append: bool,
        /// Where it stands among others, 10 first; `None`: 3, or as it is where only a text or a style is added.
        priority: Option<u8>,
        /// What it is about.
        scope: Scope,
    },
    /// Take an annotation away.
    RemoveAnnotation {
        /// Which.
        context: String,
        /// What it is about.
        scope: Scope,
    },
    /// Add steps to the build; the body is one document in its normal form, variables already put in.
    UploadPipeline {
        /// The steps after the job's own that have not started go first.
        replace: bool,
        /// What people call the text.
        file: String,
    },
    /// A step, or one attribute of it; [`Told::Text`].
    GetStep {
        /// Another build than the attempt's.
        build: Option<BuildId>,
        /// Its key or id; empty for the job's own.
        step: String,
        /// Which attribute; empty for the whole step.
        attribute: String,
        /// As JSON, where a plain value is not enough.
        json: bool,
    },
    /// Change an attribute of a step; the body is the value.
    UpdateStep {
        /// Its key or id; empty for the job's own.
        step: String,
        /// Which attribute.
        attribute: String,
        /// Add to what is there.
        append: bool,
    },
    /// Cancel what has not ended of a step.
    CancelStep {
        /// Its key or id; empty for the job's own.
        step: String,
        /// Between the polite signal and the kill, where it is to be less than the jobs' own.
        grace_ms: Option<u64>,
    },
    /// Cancel the build.
    CancelBuild,
    /// Note artifacts whose bytes were uploaded.
    AddArtifacts {
        /// Which.
        artifacts: Vec<NewArtifact>,
    },
    /// Artifacts that a query finds, newest first; [`Told::Artifacts`].
    FindArtifacts(Box<ArtifactQuery>),
    /// Secrets; [`Told::Secrets`], in the order of the keys.
    GetSecrets {
        /// Their keys.
        keys: Vec<String>,
    },
    /// A token that says who the job is.
    IssueToken {
        /// For whom.
        audience: String,
        /// For how long; 0 is the default.
        lifetime_s: u32,
        /// The claim whose value is its subject; empty: all that there is to say.
        subject: String,
        /// Claims beside those that every token has.
        claims: Vec<String>,
        /// Claims that become session tags of AWS.
        aws_tags: Vec<String>,
    },
    /// A cache that the job may read; [`Told::Cache`].
    FindCache(Box<CacheQuery>),
    /// Note a cache whose bytes were stored; [`Told::Cache`] is what stands under its key now.
    SaveCache(Box<NewCache>),
    /// As [`Self::AddArtifacts`], with what the files are.
    AddFiles {
        /// Which.
        artifacts: Vec<NewArtifact>,
        /// The places in it of files that may be executed, rising.
        executable: Vec<u32>,
    },
    /// As [`Self::FindArtifacts`]; [`Told::Files`].
    FindFiles(Box<ArtifactQuery>),
}

/// The value of a secret: in no Debug, be it archived or not (I6).
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SecretText(String);

impl SecretText {
    /// The value itself; each use is a place to look at.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Secret<String>> for SecretText {
    fn from(value: Secret<String>) -> Self {
        Self(value.expose().clone())
    }
}

impl From<SecretText> for Secret<String> {
    fn from(value: SecretText) -> Self {
        Self::new(value.0)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for ArchivedSecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum AskRefused {
    /// The agent does not hold the attempt by this right.
    NotHeld,
    /// This coordinator does not serve it.
    NotServed,
    /// What it names is not there, or not for this build.
    NotFound,
    /// It makes no sense.
    Invalid,
    /// It is not for this job.
    Denied,
    /// The state of things does not allow it.
    Conflict,
    /// Not now; come again.
    Unavailable,
}

impl AskRefused {
    /// Whether the same request may be taken later.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::NotHeld | Self::Unavailable => true,
            Self::NotServed | Self::NotFound | Self::Invalid | Self::Denied | Self::Conflict => false,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Told {
    /// It is done, and durable.
    Done,
    /// A value, or that there is none.
    Value(Option<String>),
    /// Keys.
    Keys(Vec<String>),
    /// A text.
    Text(String),
    /// No.
    Refused {
        /// For programs.
        code: AskRefused,
        /// For people.
        detail: String,
    },
    /// Artifacts, newest first; as many as [`crate::limits::ARTIFACTS_FOUND_MAX`] where there may be more.
    Artifacts(Vec<FoundArtifact>),
    /// Values of secrets.
    Secrets(Vec<SecretText>),
    /// A cache, or that there is none.
    Cache(Option<Box<FoundCache>>),
    /// Artifacts, with what their files are.
    Files(Box<FoundFiles>),
}

impl Asked {
    /// The most bytes that may follow.
    #[must_use]
    pub const fn body_max(&self) -> usize {
        match self {
            Self::Annotate { .. } => ANNOTATION_MAX_BYTES,
            Self::UploadPipeline { .. } => PIPELINE_MAX_BYTES,
            Self::UpdateStep { .. } => STEP_VALUE_MAX_BYTES,
            Self::SetMetaData { .. }
            | Self::GetMetaData { .. }
            | Self::MetaDataKeys { .. }
            | Self::RemoveAnnotation { .. }
            | Self::GetStep { .. }
            | Self::CancelStep { .. }
            | Self::CancelBuild
            | Self::AddArtifacts { .. }
            | Self::FindArtifacts(_)
            | Self::AddFiles { .. }
            | Self::FindFiles(_)
            | Self::GetSecrets { .. }
            | Self::IssueToken { .. }
            | Self::FindCache(_)
            | Self::SaveCache(_) => 0,
        }
    }
}

fn at_most(field: &'static str, text: &str, max: usize, rule: &'static str) -> Result<(), Invalid> {
    require(text.len() <= max, field, rule)
}

fn key(field: &'static str, key: &str) -> Result<(), Invalid> {
    let good = (1..=META_DATA_KEY_MAX_BYTES).contains(&key.len()) && !key.trim().is_empty();
    require(good, field, "a key has 1 to 1024 bytes and is not blank")
}

fn context(field: &'static str, context: &str) -> Result<(), Invalid> {
    let good = (1..=ANNOTATION_CONTEXT_MAX_CHARS).contains(&context.chars().count());
    require(good, field, "a context has 1 to 100 characters")
}

fn cache_key(key: &str) -> Result<(), Invalid> {
    let good = (1..=CACHE_KEY_MAX_BYTES).contains(&key.len()) && !key.chars().any(char::is_control);
    require(good, "cache.key", "a key has 1 to 512 bytes without control characters")
}

fn manifest(bytes: u64) -> Result<(), Invalid> {
    require(bytes <= CACHE_MANIFEST_MAX_BYTES as u64, "cache.manifest", "a manifest has at most 24 MiB")
}

/// Places in a list of so many, each once.
fn places(field: &'static str, places: &[u32], among: usize) -> Result<(), Invalid> {
    let rise = places.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = places.last().is_none_or(|last| (*last as usize) < among);
    require(rise && inside, field, "they rise, and name what is there")
}

fn found(found: &[FoundArtifact]) -> Result<(), Invalid> {
    require(found.len() <= ARTIFACTS_FOUND_MAX, "told.artifacts", "there are at most 100 in an answer")?;
    found.iter().try_for_each(|found| {
        at_most("told.url", &found.url, URL_MAX_BYTES, "a URL has its limit")?;
        found.artifact.validate()
    })
}

fn added(artifacts: &[NewArtifact]) -> Result<(), Invalid> {
    let counted = (1..=ARTIFACTS_PER_ASK_MAX).contains(&artifacts.len());
    require(counted, "artifacts", "there are 1 to 30 in a request")?;
    artifacts.iter().try_for_each(Validate::validate)
}

fn short(field: &'static str, text: &str) -> Result<(), Invalid> {
    at_most(field, text, NAME_MAX_BYTES, "it has at most 200 bytes")
}

impl Validate for Ask {
    fn validate(&self) -> Result<(), Invalid> {
        require(self.epoch.0 > 0, "ask.epoch", "epoch 0 is never granted")?;
        require(self.body_bytes as usize <= self.what.body_max(), "ask.body_bytes", "the body is too long")?;
        self.what.validate()
    }
}

impl Validate for Asked {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::SetMetaData { values } => {
                let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
                let counted = (1..=META_DATA_KEYS_MAX).contains(&values.len()) && bytes <= META_DATA_MAX_BYTES;
                require(counted, "meta_data.values", "there are 1 to 10000 of 768 KiB in all")?;
                values.iter().try_for_each(|(name, value)| {
                    key("meta_data.key", name)?;
                    let good = !value.trim().is_empty() && value.len() <= META_DATA_VALUE_MAX_BYTES;
                    require(good, "meta_data.value", "a value has at most 100 KiB and is not blank")
                })
            }
            Self::GetMetaData { build: _, key: name } => key("meta_data.key", name),
            Self::Annotate { context: name, style: _, append: _, priority, scope: _ } => {
                context("annotation.context", name)?;
                let good = priority.is_none_or(|priority| (1..=10).contains(&priority));
                require(good, "annotation.priority", "a priority is 1 to 10")
            }
            Self::RemoveAnnotation { context: name, scope: _ } => context("annotation.context", name),
            Self::GetStep { build: _, step, attribute, json: _ } | Self::UpdateStep { step, attribute, append: _ } => {
                short("step.step", step)?;
                short("step.attribute", attribute)
            }
            Self::CancelStep { step, grace_ms: _ } => short("step.step", step),
            Self::AddArtifacts { artifacts } => added(artifacts),
            Self::AddFiles { artifacts, executable } => {
                added(artifacts)?;
                places("artifacts.executable", executable, artifacts.len())
            }
            Self::FindArtifacts(query) | Self::FindFiles(query) => {
                at_most("artifacts.path", &query.path, TREE_NAME_MAX_BYTES, "a query has at most 4096 bytes")?;
                short("artifacts.step", &query.step)
            }
            Self::GetSecrets { keys } => {
                let counted = (1..=SECRETS_PER_ASK_MAX).contains(&keys.len());
                require(counted, "secrets.keys", "there are 1 to 100 in a request")?;
                keys.iter().try_for_each(|key| short("secrets.key", key))
            }
            Self::IssueToken { audience, lifetime_s: _, subject, claims, aws_tags } => {
                at_most("token.audience", audience, 1_024, "an audience has at most 1024 bytes")?;
                short("token.subject", subject)?;
                let few = claims.len() <= OIDC_CLAIMS_MAX && aws_tags.len() <= OIDC_CLAIMS_MAX;
                require(few, "token.claims", "there are at most 32")?;
                claims.iter().chain(aws_tags).try_for_each(|claim| short("token.claims", claim))
            }
            Self::UploadPipeline { replace: _, file } => {
                at_most("upload.file", file, TREE_NAME_MAX_BYTES, "a name has at most 4096 bytes")
            }
            Self::FindCache(query) => {
                cache_key(&query.key)?;
                let few = query.restore_keys.len() <= CACHE_RESTORE_KEYS_MAX;
                require(few, "cache.restore_keys", "there are at most 10")?;
                query.restore_keys.iter().try_for_each(|key| cache_key(key))
            }
            Self::SaveCache(new) => {
                cache_key(&new.key)?;
                manifest(new.manifest_bytes)
            }
            Self::MetaDataKeys { build: _ } | Self::CancelBuild => Ok(()),
        }
    }
}

impl Validate for NewArtifact {
    fn validate(&self) -> Result<(), Invalid> {
        let inside = !self.path.is_empty() && self.path.len() <= TREE_NAME_MAX_BYTES && !self.path.contains('\0');
        let walks = self.path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        require(inside && !walks, "artifact.path", "a path has 1 to 4096 bytes, and names no way up")?;
        require(self.bytes <= ARTIFACT_MAX_BYTES, "artifact.bytes", "an artifact has at most 10 GiB")?;
        short("artifact.content_type", &self.content_type)
    }
}

impl Validate for Told {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Done | Self::Value(None) => Ok(()),
            Self::Value(Some(value)) => {
                at_most("told.value", value, META_DATA_VALUE_MAX_BYTES, "a value has at most 100 KiB")
            }
            Self::Keys(keys) => {
                require(keys.len() <= META_DATA_KEYS_MAX, "told.keys", "there are at most 10000")?;
                keys.iter().try_for_each(|name| key("told.keys", name))
            }
            Self::Secrets(values) => {
                let bytes: usize = values.iter().map(|value| value.expose().len()).sum();
                let fits = values.len() <= SECRETS_PER_ASK_MAX && bytes <= SECRETS_ANSWER_MAX_BYTES;
                require(fits, "told.secrets", "they are at most 100 of 512 KiB together")
            }
            Self::Cache(None) => Ok(()),
            Self::Cache(Some(found)) => {
                cache_key(&found.key)?;
                manifest(found.manifest_bytes)
            }
            Self::Text(text) => at_most("told.text", text, ASK_TEXT_MAX_BYTES, "a text has at most 768 KiB"),
            Self::Artifacts(artifacts) => found(artifacts),
            Self::Files(files) => {
                found(&files.found)?;
                places("told.executable", &files.executable, files.found.len())
            }
            Self::Refused { code: _, detail } => {
                at_most("told.detail", detail, DETAIL_MAX_BYTES, "it is a sentence or two")
            }
        }
    }
}
