//! A fleet's result is brought here: its files are verified by digest onto the shelf, its log among the logs of here, and then an
//! entry names both. What is here already is not fetched.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::json;
use windlass_cache::{Store, Upload};
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Actor, ActorKind, KeySubject, Keyed, Output, ReuseName, ReuseRequest, ReuseRow, ReusedFrom,
};
use windlass_coordinator_logs::LogStore;
use windlass_protocol::host::now;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{
    FLEET_ASK_MS, FLEET_FETCH_MS, FLEET_FETCH_TRIES, FLEET_FETCHES_MAX, FLEET_LOG_MAX_BYTES, NAME_MAX_BYTES,
    REUSE_OUTPUTS_MAX, STEP_LABEL_MAX_BYTES, STORE_HEADROOM_BYTES,
};
use windlass_protocol::message::{NewArtifact, Validate as _};
use windlass_protocol::{AttemptId, BuildId, Digest, IdSource, JobId, Namespace, Shelf, WallMs, hex};

use super::{NotAnswered, Pieces, Upstream, query};
use crate::desk::DeskHandle;
use crate::shelf::Shelves;

/// Brings results of a fleet here.
#[derive(Debug, Clone)]
pub(crate) struct Bringer {
    pub(crate) upstream: Upstream,
    pub(crate) desk: DeskHandle,
    pub(crate) store: Store,
    pub(crate) shelves: Shelves,
    pub(crate) logs: LogStore,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the pipeline is called there.
    pub(crate) project: String,
    /// The step's keys there; of each stands the name here at the same place of [`Keyed::also`].
    pub(crate) keys: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
struct Results {
    results: Vec<Told>,
}

/// A result, as a fleet tells it.
#[derive(Debug, Clone, Deserialize)]
struct Told {
    key: Digest,
    from: From,
    branch: String,
    step_key: Option<String>,
    log: bool,
    files: Vec<File>,
}

#[derive(Debug, Clone, Deserialize)]
struct From {
    build_id: String,
    number: u64,
    pipeline: String,
    job_id: String,
    step: String,
    at: String,
    ran_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct File {
    path: String,
    bytes: u64,
    digest: Digest,
    sha1: String,
    sha256: String,
    content_type: String,
    #[serde(default)]
    executable: bool,
}

impl Bringer {
    /// Brings a step's result, if it is not here and the fleet has it. What came of it, for people.
    pub(crate) async fn bring(&self, subject: &KeySubject, keyed: &Keyed, wanted: &Wanted) -> Option<String> {
        let url = self.upstream.url();
        let (namespace, names) = (subject.namespace.clone(), [&[keyed.key][..], &keyed.also].concat());
        let here = self.desk.look(move |core| names.into_iter().any(|key| core.readable(&namespace, key).is_some()));
        match here.await {
            Ok(false) => {}
            // Nobody is asked for what is here.
            Ok(true) | Err(_) => return None,
        }
        let told = match self.lookup(wanted).await {
            Ok(Some(told)) => told,
            Ok(None) => return Some(format!("the fleet {url} was asked, and has no result of this key")),
            Err(why) => return Some(format!("the fleet {url} was not asked for a result: {why}")),
        };
        let (number, taking) = (told.from.number, self.take(subject, keyed, wanted, told));
        let taken = tokio::time::timeout(Duration::from_millis(FLEET_FETCH_MS), taking).await;
        let why = match taken {
            Ok(Ok(())) => return None,
            Ok(Err(why)) => why,
            Err(_) => format!("it did not come within {} s", FLEET_FETCH_MS / 1_000),
        };
        tracing::warn!(fleet = url, job = %subject.job, why, "fleet_result_not_brought");
        Some(format!("the fleet {url} has its result of build #{number}, which cannot be used: {why}"))
    }

    async fn lookup(&self, wanted: &Wanted) -> Result<Option<Told>, NotAnswered> {
        let body = json!({ "project": wanted.project, "keys": wanted.keys });
        let found: Results = self.upstream.ask("/reuse/lookup".to_owned(), Some(body), FLEET_ASK_MS).await?;
        Ok(found.results.into_iter().find(|told| wanted.keys.contains(&told.key)))
    }

    async fn take(&self, subject: &KeySubject, keyed: &Keyed, wanted: &Wanted, told: Told) -> Result<(), String> {
        let at = wanted.keys.iter().position(|key| *key == told.key).ok_or("it is of another key")?;
        let name = keyed.also.get(at).copied().ok_or("it is of another key")?;
        let outputs = outputs(&told.files)?;
        let from = from(&told.from, &told.branch, self.upstream.url())?;
        let step_key = told.step_key.filter(|key| key.len() <= NAME_MAX_BYTES && !key.chars().any(char::is_control));
        let place = format!("/reuse/results/{}", told.key.to_hex());
        let project = query(&wanted.project);
        let mut each: Vec<(Digest, u64)> = outputs.iter().map(|output| (output.digest, output.bytes)).collect();
        each.sort_unstable();
        each.dedup();
        let fetches = each.clone().into_iter().map(|(digest, bytes)| {
            let path = format!("{place}/files/{}?project={project}", digest.to_hex());
            self.file(subject.namespace.clone(), (digest, bytes), path)
        });
        stream::iter(fetches).buffer_unordered(FLEET_FETCHES_MAX).try_collect::<()>().await?;
        let log = Unnamed { logs: self.logs.clone(), attempt: Some(from.attempt) };
        if told.log {
            self.log(&from, format!("{place}/log?project={project}")).await?;
        }
        let attempt = from.attempt;
        let row = ReuseRow {
            name: ReuseName { namespace: subject.namespace.clone(), key: name },
            recipe: keyed.recipe,
            source: keyed.source.clone(),
            step_key,
            from,
            bytes: 0,
            outputs,
            created_at: WallMs(0),
            used_at: WallMs(0),
        };
        let kept =
            self.shelves.keep(&subject.namespace, Shelf::Artifacts, each).await.map_err(|why| why.to_string())?;
        let actor = Actor { kind: ActorKind::System, name: format!("fleet {}", self.upstream.url()) };
        // Whatever becomes of this task, the entry may be there from now on.
        log.keep();
        let adopted = self.desk.request(actor, Request::Reuse(ReuseRequest::Adopt(Box::new(row)))).await;
        drop(kept);
        if let Err(why) = adopted {
            forget(&self.logs, attempt).await;
            return Err(why.to_string());
        }
        Ok(())
    }

    /// Fetches a file, unless it is here. What broke off is gone on with.
    async fn file(&self, namespace: Namespace, (digest, bytes): (Digest, u64), path: String) -> Result<(), String> {
        let (store, on) = (self.store.clone(), namespace.on(Shelf::Artifacts));
        let begun = blocking(move || {
            if [&on, &namespace].into_iter().any(|place| store.blob_len(place, &digest) == Some(bytes)) {
                return Ok(None);
            }
            let room = store.reserve(bytes, STORE_HEADROOM_BYTES)?;
            store.begin_put_in(&on, Some(digest), room).map(Some)
        });
        let Some(mut upload) = begun.await? else { return Ok(()) };
        let mut tries = 0;
        while upload.len() < bytes || tries == 0 {
            tries += 1;
            let broken = match self.open(format!("{path}&offset={}", upload.len())).await {
                Ok(pieces) => {
                    let (back, broken) = pour(pieces, upload, bytes).await?;
                    upload = back;
                    broken
                }
                Err(why) => Some(why.to_string()),
            };
            if upload.len() >= bytes {
                break;
            }
            if tries >= FLEET_FETCH_TRIES {
                return Err(broken.unwrap_or_else(|| format!("{digest} has only {} bytes there", upload.len())));
            }
        }
        // Other bytes than those that were asked for are refused here.
        blocking(move || upload.finish()).await.map(drop)
    }

    /// Fetches a log, of a long one the beginning.
    async fn log(&self, from: &ReusedFrom, path: String) -> Result<(), String> {
        let (attempt, mut offset, mut tries) = (from.attempt, 0_u64, 0);
        loop {
            tries += 1;
            let mut pieces = match self.open(format!("{path}&offset={offset}")).await {
                Ok(pieces) => pieces,
                // It has none, or has it no more: what came of it has an end.
                Err(NotAnswered::Refused(_)) => break,
                Err(why) if tries >= FLEET_FETCH_TRIES => return Err(why.to_string()),
                Err(_) => continue,
            };
            let mut broken = None;
            while let Some(piece) = pieces.next().await {
                let mut piece = match piece {
                    Ok(piece) => piece,
                    Err(why) => {
                        broken = Some(why);
                        break;
                    }
                };
                let room = usize::try_from(FLEET_LOG_MAX_BYTES.saturating_sub(offset)).unwrap_or(usize::MAX);
                piece.truncate(room);
                if piece.is_empty() {
                    break;
                }
                let len = piece.len() as u64;
                let appended = self.logs.append(attempt, Epoch(0), offset, from.at, piece).await;
                appended.map_err(|refused| format!("its log cannot be kept: {refused}"))?;
                offset += len;
            }
            match broken {
                None => break,
                Some(why) if tries >= FLEET_FETCH_TRIES => return Err(why),
                Some(_) => {}
            }
        }
        self.logs.seal(attempt).await.map_err(|fault| fault.to_string())
    }

    async fn open(&self, path: String) -> Result<Pieces, NotAnswered> {
        let opening = self.upstream.0.transport.open(path);
        let opened = tokio::time::timeout(Duration::from_millis(FLEET_ASK_MS), opening).await;
        opened.unwrap_or_else(|_| Err(NotAnswered::NotReached("it did not answer".to_owned())))
    }
}

/// A log that no entry names yet: it goes, whatever ends the task that brings it.
struct Unnamed {
    logs: LogStore,
    attempt: Option<AttemptId>,
}

impl Unnamed {
    fn keep(mut self) {
        self.attempt = None;
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let (Some(attempt), Ok(runtime)) = (self.attempt, tokio::runtime::Handle::try_current()) {
            let logs = self.logs.clone();
            runtime.spawn(async move { forget(&logs, attempt).await });
        }
    }
}

async fn forget(logs: &LogStore, attempt: AttemptId) {
    if let Err(error) = logs.delete(vec![attempt]).await {
        tracing::warn!(%attempt, %error, "log_not_deleted");
    }
}

/// Writes what comes, and no more than `bytes` in all; also why it broke off, if it did.
async fn pour(mut pieces: Pieces, mut upload: Upload, bytes: u64) -> Result<(Upload, Option<String>), String> {
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(why) => return Ok((upload, Some(why))),
        };
        if piece.len() as u64 > bytes - upload.len() {
            return Err("a file has more bytes than it says".to_owned());
        }
        upload = blocking(move || upload.write(&piece).map(|()| upload)).await?;
    }
    Ok((upload, None))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, windlass_cache::Error> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The files, each of them as a job's artifact would have to be.
fn outputs(files: &[File]) -> Result<Vec<Output>, String> {
    if files.len() > REUSE_OUTPUTS_MAX {
        return Err(format!("it has more than {REUSE_OUTPUTS_MAX} files"));
    }
    let digits = |text: &str, place: &mut [u8]| {
        let bytes = hex::from(text).filter(|bytes| bytes.len() == place.len()).ok_or("a digest of a file is none")?;
        place.copy_from_slice(&bytes);
        Ok::<_, String>(())
    };
    let output = |file: &File| {
        let mut artifact = NewArtifact {
            path: file.path.clone(),
            bytes: file.bytes,
            digest: file.digest,
            sha1: [0; 20],
            sha256: [0; 32],
            content_type: file.content_type.clone(),
        };
        digits(&file.sha1, &mut artifact.sha1)?;
        digits(&file.sha256, &mut artifact.sha256)?;
        artifact.validate().map_err(|invalid| invalid.to_string())?;
        if artifact.content_type.chars().any(char::is_control) {
            return Err("a file's type has control characters".to_owned());
        }
        Ok(Output { executable: file.executable, ..Output::from(&artifact) })
    };
    files.iter().map(output).collect()
}

/// Whose it is. Its log gets a name of here: a stranger does not say which of ours is read.
fn from(told: &From, branch: &str, url: &str) -> Result<ReusedFrom, String> {
    let texts = [(&told.pipeline, NAME_MAX_BYTES), (&told.step, STEP_LABEL_MAX_BYTES)];
    let bad = texts.into_iter().any(|(text, most)| text.len() > most || text.chars().any(char::is_control));
    if bad || branch.len() > NAME_MAX_BYTES || branch.chars().any(char::is_control) {
        return Err("it says nonsense about its build".to_owned());
    }
    let nonsense = |_| "it says nonsense about its build".to_owned();
    let build: BuildId = told.build_id.parse().map_err(nonsense)?;
    let job: JobId = told.job_id.parse().map_err(nonsense)?;
    let at = humantime::parse_rfc3339(&told.at).map_err(|_| "it says nonsense about its time")?;
    let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| "it says nonsense about its time")?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    Ok(ReusedFrom {
        pipeline: told.pipeline.clone(),
        branch: branch.to_owned(),
        build,
        number: told.number,
        job,
        attempt: IdSource::from_seed(seed).attempt(now().wall),
        step: told.step.clone(),
        at: WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        ran_ms: told.ran_ms,
        fleet: Some(url.to_owned()),
    })
}

#[cfg(test)]
mod tests;
