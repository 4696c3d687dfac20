//! A fleet whose results are used here: what a laptop's coordinator asks of it, and what it remembers of the answers
//! (docs/design/041).
//!
//! The way there is the caller's ([`Transport`]). Whatever comes back is a stranger's text: it is bounded and checked before it is used.
//! A fleet that does not answer is not asked again for a while, so that a run waits for it once and not with each step.

mod bring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_protocol::host::{read_private, write_private};
use windlass_protocol::limits::{
    FLEET_ANSWER_MAX_BYTES, FLEET_ASK_MS, FLEET_HOOKS_MAX, FLEET_IMAGES_MAX, FLEET_REMEMBERED_MAX_BYTES, FLEET_REST_MS,
    FLEET_WAIT_MS, NAME_MAX_BYTES,
};

pub(crate) use self::bring::{Bringer, Wanted};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnswered {
    /// Nobody is there, or nobody in time.
    #[error("it was not reached: {0}")]
    NotReached(String),
    /// It says no.
    #[error("it refused: {0}")]
    Refused(String),
    /// What it says makes no sense.
    #[error("its answer is none: {0}")]
    Senseless(String),
}

/// Bytes as they come.
pub type Pieces = BoxStream<'static, Result<Bytes, String>>;

/// The way to a fleet. Paths begin behind `/api/v1`.
pub trait Transport: fmt::Debug + Send + Sync {
    /// The fleet, as people call it.
    fn url(&self) -> &str;

    /// Asks once: `POST` where there is a body. An answer of more bytes than `max_bytes` is none.
    fn ask(
        &self,
        path: String,
        body: Option<Value>,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>>;

    /// Asks for bytes.
    fn open(&self, path: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>>;
}

/// A fleet; clones are the same.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    transport: Box<dyn Transport>,
    /// Where what it said is remembered.
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    /// The memory is not what the file has.
    unsaved: bool,
    /// Pipelines whose terms this process has asked for.
    asked: BTreeSet<String>,
    /// It is not to be asked at all.
    rests: bool,
    /// It did not answer: until then it is not asked.
    rests_until: Option<Instant>,
}

/// What a fleet said, for when it is not reached.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// By the pipelines of here.
    terms: BTreeMap<String, Terms>,
    /// By platform and name.
    images: BTreeMap<String, Known>,
}

/// By what keys are made there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// What the pipeline is called there.
    pub(crate) project: String,
    pub(crate) epoch: u64,
    pub(crate) hooks: Vec<Digest>,
}

/// What an image was when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Of its manifest.
    pub(crate) digest: String,
    /// Of its config.
    pub(crate) config: String,
}

impl Upstream {
    /// A fleet, with what is remembered of it in a data directory.
    #[must_use]
    pub fn new(transport: Box<dyn Transport>, data: &std::path::Path) -> Self {
        let name = format!("{}.json", Digest::of(transport.url().as_bytes()).to_hex());
        let file = data.join("fleets").join(name);
        let memory = match read_private(&file) {
            Ok(Some(bytes)) if bytes.len() as u64 <= FLEET_REMEMBERED_MAX_BYTES => {
                serde_json::from_slice(&bytes).unwrap_or_default()
            }
            Ok(_) => Memory::default(),
            Err(error) => {
                tracing::warn!(path = %file.display(), %error, "fleet_not_remembered");
                Memory::default()
            }
        };
        let state = Mutex::new(State { memory, ..State::default() });
        Self(Arc::new(Shared { transport, file, state }))
    }

    /// As people call it.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.transport.url()
    }

    /// Asks by what keys of a pipeline are made there, and waits [`FLEET_WAIT_MS`] at most.
    ///
    /// # Errors
    /// [`NotAnswered`]: what is remembered is used, and it is not asked again soon.
    pub async fn begin(&self, pipeline: &str, repository: Option<&str>) -> Result<(), NotAnswered> {
        self.lock().asked.insert(pipeline.to_owned());
        let mut path = format!("/reuse/terms?name={}", query(pipeline));
        if let Some(repository) = repository {
            path.push_str(&format!("&repository={}", query(repository)));
        }
        let mut terms: Terms = self.ask(path, None, FLEET_WAIT_MS).await?;
        if terms.project.is_empty() || terms.project.len() > NAME_MAX_BYTES {
            return Err(NotAnswered::Senseless("it names no project".to_owned()));
        }
        terms.hooks.truncate(FLEET_HOOKS_MAX);
        let mut state = self.lock();
        state.unsaved |= state.memory.terms.get(pipeline) != Some(&terms);
        state.memory.terms.insert(pipeline.to_owned(), terms);
        Ok(())
    }

    /// Asks it nothing: what it gave before is used.
    pub fn rest(&self) {
        self.lock().rests = true;
    }

    /// By what keys of a pipeline are made there, as it says or said.
    pub(crate) async fn terms(&self, pipeline: &str) -> Option<Terms> {
        let is_new = !self.lock().asked.contains(pipeline);
        if is_new && let Err(why) = self.begin(pipeline, None).await {
            tracing::info!(fleet = self.url(), %why, "fleet_terms_unknown");
        }
        self.save();
        self.lock().memory.terms.get(pipeline).cloned()
    }

    /// What an image is there now.
    pub(crate) async fn image(&self, project: &str, name: &str, platform: &str) -> Option<Known> {
        let body = json!({ "project": project, "image": name, "platform": platform });
        match self.ask::<Known>("/reuse/images".to_owned(), Some(body), FLEET_ASK_MS).await {
            Ok(known) => {
                self.remember(name, platform, &known);
                Some(known)
            }
            Err(why) => {
                tracing::info!(fleet = self.url(), image = name, %why, "fleet_knows_no_image");
                None
            }
        }
    }

    /// Notes what an image is, for when nobody can be asked.
    pub(crate) fn remember(&self, name: &str, platform: &str, known: &Known) {
        let mut state = self.lock();
        let key = format!("{platform} {name}");
        if state.memory.images.get(&key) == Some(known) {
            return;
        }
        if state.memory.images.len() >= FLEET_IMAGES_MAX {
            state.memory.images.clear();
        }
        state.memory.images.insert(key, known.clone());
        state.unsaved = true;
        drop(state);
        self.save();
    }

    /// What an image was.
    pub(crate) fn remembered(&self, name: &str, platform: &str) -> Option<Known> {
        self.lock().memory.images.get(&format!("{platform} {name}")).cloned()
    }

    /// Under which names results of these keys stand here: of this fleet and this project of it, and of no other one.
    pub(crate) fn names(&self, project: &str, keys: &[Digest]) -> Vec<Digest> {
        let name = |key: &Digest| Digest::of(format!("key {key} of {project} at {}", self.url()).as_bytes());
        keys.iter().map(name).collect()
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: String,
        body: Option<Value>,
        wait_ms: u64,
    ) -> Result<T, NotAnswered> {
        if self.lock().rests {
            return Err(NotAnswered::NotReached("nobody is to be asked".to_owned()));
        }
        if self.lock().rests_until.is_some_and(|until| until > Instant::now()) {
            return Err(NotAnswered::NotReached("it did not answer a moment ago".to_owned()));
        }
        let asking = self.0.transport.ask(path, body, FLEET_ANSWER_MAX_BYTES);
        let answer = tokio::time::timeout(Duration::from_millis(wait_ms), asking).await;
        let slow = || NotAnswered::NotReached(format!("it did not answer within {} s", wait_ms / 1_000));
        let answer = answer.unwrap_or_else(|_| Err(slow()));
        if let Err(NotAnswered::NotReached(_)) = &answer {
            self.lock().rests_until = Some(Instant::now() + Duration::from_millis(FLEET_REST_MS));
        }
        serde_json::from_slice(&answer?).map_err(|error| NotAnswered::Senseless(error.to_string()))
    }

    /// Writes down what is remembered, once there is a data directory.
    fn save(&self) {
        let bytes = {
            let mut state = self.lock();
            let Some(data) = self.0.file.parent().and_then(std::path::Path::parent) else { return };
            if !state.unsaved || !data.exists() {
                return;
            }
            state.unsaved = false;
            serde_json::to_vec(&state.memory).unwrap_or_default()
        };
        let folder = self.0.file.parent().unwrap_or(&self.0.file);
        let written = match std::fs::create_dir(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => write_private(&self.0.file, &bytes),
        };
        if let Err(error) = written {
            tracing::warn!(path = %self.0.file.display(), %error, "fleet_not_remembered");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text as a part of a query.
fn query(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
