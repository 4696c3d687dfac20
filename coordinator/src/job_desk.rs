//! What jobs ask of their coordinator: meta-data, annotations, uploads, steps and the end of builds.
//!
//! The asking attempt is held by a live right when a request comes here; what it changes is of its own build alone, and
//! the core looks at the right again in the same commit. What it reads is its own build, or another one of its pipeline
//! that lives in the same namespace: to it, others are not there (I12).

mod artifact;
mod cache;
mod step;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{
    Actor, ActorKind, Annotate, AnnotationStyle, AttemptRow, BuildRow, BuildRows, Output, ReuseRequest, Said,
    SecretRefused, SecretRequest, SecretRow, Speech, Upload,
};
use windlass_pipeline::{Compiled, Severity};
use windlass_protocol::host::now;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, SECRETS_ANSWER_MAX_BYTES};
use windlass_protocol::message::{Ask, AskRefused, Asked, Scope, SecretText, Style, Told};
use windlass_protocol::{BuildId, JobId, Trust, call, hex};

use crate::compiling;
use crate::desk::{DeskError, DeskHandle};
use crate::facts::{Facts, Variables};
use crate::oidc::Issuer;
use crate::oidc::claim::{self, About, Asking};
use crate::shelf::Shelves;
use crate::vault::Vault;
use crate::views::{ReadError, Reader};

pub(crate) use self::artifact::attempts_of;

/// The answer to come.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

/// Answers jobs.
pub trait JobDesk: Debug + Send + Sync {
    /// Answers a valid request by whom the attempt is held.
    fn ask(&self, ask: Ask, body: Vec<u8>) -> Answering<'_>;
}

/// A refusal.
pub(crate) fn refuse(code: AskRefused, detail: impl Into<String>) -> Told {
    let mut detail = detail.into();
    if detail.len() > DETAIL_MAX_BYTES {
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES - 3));
        detail.push_str("...");
    }
    Told::Refused { code, detail }
}

/// Why there is no answer but a refusal.
struct No(AskRefused, String);

impl From<ReadError> for No {
    fn from(error: ReadError) -> Self {
        Self(AskRefused::Unavailable, error.to_string())
    }
}

impl From<DeskError> for No {
    fn from(error: DeskError) -> Self {
        let code = match &error {
            DeskError::Unavailable | DeskError::StorageFull | DeskError::ShuttingDown => AskRefused::Unavailable,
            DeskError::Rejected(rejected) => match rejected {
                Rejected::NoLease(_) | Rejected::StaleEpoch { .. } | Rejected::NotYours { .. } => AskRefused::NotHeld,
                Rejected::NotInMemory(_)
                | Rejected::JobNotInMemory(_)
                | Rejected::NoOrder(_)
                | Rejected::NotUnderWay(_)
                | Rejected::NotAsked(_)
                | Rejected::Secret(SecretRefused::NoSuchSecret(_) | SecretRefused::NotForJob { .. }) => {
                    AskRefused::NotFound
                }
                Rejected::Secret(SecretRefused::Untrusted) => AskRefused::Denied,
                Rejected::BuildEnded { .. }
                | Rejected::Job { .. }
                | Rejected::IdempotencyMismatch
                | Rejected::NumberTaken { .. }
                | Rejected::PipelineChanged(_)
                | Rejected::PipelineExists(_)
                | Rejected::Pin(_)
                | Rejected::IdTaken(_) => AskRefused::Conflict,
                Rejected::Answer { .. }
                | Rejected::Limit { .. }
                | Rejected::Graph(_)
                | Rejected::PoolConflict { .. }
                | Rejected::NoSuchPipeline(_)
                | Rejected::NoSuchSchedule(_)
                | Rejected::Setting { .. }
                | Rejected::NoSuchPool(_)
                | Rejected::NoSuchToken(_)
                | Rejected::Secret(SecretRefused::Invalid { .. })
                | Rejected::NoSuchAgent(_)
                | Rejected::Join(_)
                | Rejected::VoidConnection(_) => AskRefused::Invalid,
            },
        };
        Self(code, error.to_string())
    }
}

/// The number of a call that asks for this token.
fn asked_as(call: [u8; 16], asking: &Asking<'_>) -> [u8; 16] {
    let Asking { audience, lifetime_s, subject, claims, aws_tags } = asking;
    let question = serde_json::json!([audience, lifetime_s, subject, claims, aws_tags]).to_string();
    call::derived(call, question.as_bytes())
}

/// Answers from the core and from what is stored.
#[derive(Debug)]
pub struct CoreJobDesk {
    /// The core.
    pub desk: DeskHandle,
    /// What is stored.
    pub reader: Reader,
    /// Where the blobs of artifacts stand.
    pub shelves: Shelves,
    /// Where clients reach the coordinator.
    pub url: String,
    /// What seals secrets.
    pub vault: Arc<Vault>,
    /// Who vouches for jobs.
    pub issuer: Arc<Issuer>,
}

impl JobDesk for CoreJobDesk {
    fn ask(&self, ask: Ask, body: Vec<u8>) -> Answering<'_> {
        Box::pin(async move {
            match self.answer(ask, body).await {
                Ok(told) => told,
                Err(No(code, detail)) => refuse(code, detail),
            }
        })
    }
}

impl CoreJobDesk {
    async fn answer(&self, ask: Ask, body: Vec<u8>) -> Result<Told, No> {
        let attempt = self.reader.attempt(ask.attempt).await?;
        let attempt = attempt.ok_or_else(|| No(AskRefused::NotHeld, "the attempt is not known".to_owned()))?;
        if let Some(why) = undeclared(&ask.what) {
            self.spoil(&attempt, ask.epoch, why).await?;
        }
        match ask.what {
            Asked::SetMetaData { values } => {
                let what = Said::SetMetaData(values.into_iter().collect());
                self.say(&attempt, ask.epoch, ask.call, what).await
            }
            Asked::GetMetaData { build, key } => {
                let row = self.readable(&attempt, build).await?;
                Ok(Told::Value(row.meta_data.get(&key).cloned()))
            }
            Asked::MetaDataKeys { build } => {
                let row = self.readable(&attempt, build).await?;
                Ok(Told::Keys(row.meta_data.into_keys().collect()))
            }
            Asked::UploadPipeline { replace, file } => {
                self.upload_pipeline(&attempt, (ask.epoch, ask.call), (text_of(body, &file)?, file), replace).await
            }
            Asked::GetStep { build, step, attribute, json } => {
                let rows = self.step_rows(&attempt, build, &step).await?;
                step::get(&rows, &attempt, &step, &attribute, json)
            }
            Asked::CancelStep { step, grace_ms } => {
                let rows = self.step_rows(&attempt, None, &step).await?;
                let jobs = step::jobs(&rows, &attempt, &step)?.into_iter().map(|job| job.id).collect();
                self.say(&attempt, ask.epoch, ask.call, Said::CancelJobs { jobs, grace_ms }).await
            }
            Asked::CancelBuild => self.say(&attempt, ask.epoch, ask.call, Said::CancelBuild).await,
            Asked::Annotate { context, style, append, priority, scope } => {
                let text = text_of(body, "the annotation")?;
                let text = (!text.is_empty()).then_some(text);
                let (own, style) = (scope == Scope::Job, style.map(style_of));
                let annotate = Annotate { context, own, style, priority, text, append };
                self.say(&attempt, ask.epoch, ask.call, Said::Annotate(annotate)).await
            }
            Asked::RemoveAnnotation { context, scope } => {
                let what = Said::RemoveAnnotation { context, own: scope == Scope::Job };
                self.say(&attempt, ask.epoch, ask.call, what).await
            }
            Asked::UpdateStep { step, attribute, append } => {
                let value = text_of(body, "the value")?;
                let rows = self.step_rows(&attempt, None, &step).await?;
                let job = step::jobs(&rows, &attempt, &step)?.first().map(|job| job.id).unwrap_or(attempt.job);
                let change = step::change(&attribute, &value, append)?;
                self.say(&attempt, ask.epoch, ask.call, Said::UpdateStep { job, change }).await
            }
            Asked::AddArtifacts { artifacts } => {
                self.add_artifacts(&attempt, (ask.epoch, ask.call), Output::all(&artifacts, &[])).await
            }
            Asked::AddFiles { artifacts, executable } => {
                self.add_artifacts(&attempt, (ask.epoch, ask.call), Output::all(&artifacts, &executable)).await
            }
            Asked::FindArtifacts(query) => Ok(Told::Artifacts(self.find_artifacts(&attempt, *query).await?.found)),
            Asked::FindFiles(query) => Ok(Told::Files(Box::new(self.find_artifacts(&attempt, *query).await?))),
            Asked::FindCache(query) => self.find_cache(&attempt, ask.epoch, *query).await,
            Asked::SaveCache(new) => self.save_cache(&attempt, ask.epoch, *new).await,
            Asked::GetSecrets { keys } => self.secrets(&attempt, ask.epoch, keys).await,
            Asked::IssueToken { audience, lifetime_s, subject, claims, aws_tags } => {
                let asking =
                    Asking { audience: &audience, lifetime_s, subject: &subject, claims: &claims, aws_tags: &aws_tags };
                self.token(&attempt, ask.epoch, ask.call, &asking).await
            }
        }
    }

    async fn upload_pipeline(
        &self,
        attempt: &AttemptRow,
        (epoch, call): (Epoch, [u8; 16]),
        (text, file): (String, String),
        replace: bool,
    ) -> Result<Told, No> {
        let row = self.readable(attempt, None).await?;
        let upload = Upload {
            attempt: attempt.id,
            epoch: Some(epoch),
            id: call_id(call),
            graph: compiled(row, &text, file).await?,
            definition: text,
            replace,
        };
        self.request(attempt, Request::Upload(Box::new(upload))).await
    }

    /// A token that says who the job is. Who got it is durable before it is made.
    async fn token(&self, attempt: &AttemptRow, epoch: Epoch, call: [u8; 16], asking: &Asking<'_>) -> Result<Told, No> {
        let held = || No(AskRefused::NotHeld, "the job is not known".to_owned());
        let rows = self.reader.some_jobs(attempt.build, vec![attempt.job]).await?.ok_or_else(held)?;
        let job = rows.jobs.iter().find(|job| job.id == attempt.job);
        let job = job.ok_or_else(held)?;
        let agent = self.reader.views().agent(attempt.agent);
        let tags = agent.as_ref().map(|agent| agent.row.tags.as_slice()).unwrap_or_default();
        // The job's program chooses the call's number: with another question it is another call, noted by itself.
        let call = asked_as(call, asking);
        let about = About { build: &rows.build, job, attempt, tags };
        let (at, id) = (now().wall, format!("{}-{}", attempt.id, call_id(call)));
        let issuer = &self.issuer;
        let claims = claim::claims(issuer.url(), &id, at, asking, &about);
        let trusted = rows.build.namespace.trust() == Trust::Trusted;
        let code = if trusted { AskRefused::Invalid } else { AskRefused::Denied };
        let claims = claims.map_err(|why| No(code, why))?;
        let (audience, subject) = (&claims["aud"], &claims["sub"]);
        let detail = format!("for {audience} as {subject} until {}, number {id}", claims["exp"]);
        self.say(attempt, epoch, call, Said::TakeToken { detail }).await?;
        let token = issuer.sign(at, &claims).map_err(|error| No(AskRefused::Unavailable, error.to_string()))?;
        Ok(Told::Text(token))
    }

    /// The values of secrets, if the core gives them to this attempt; it has noted that it does.
    async fn secrets(&self, attempt: &AttemptRow, epoch: Epoch, keys: Vec<String>) -> Result<Told, No> {
        let request = SecretRequest::Read { attempt: attempt.id, epoch, keys };
        let rows = match self.desk.request(actor(attempt), Request::Secret(Box::new(request))).await? {
            Reply::Secrets(rows) => rows,
            Reply::Done
            | Reply::Cache(_)
            | Reply::Submitted { .. }
            | Reply::Token { .. }
            | Reply::Joined { .. }
            | Reply::Pinned { .. }
            | Reply::Unpinned { .. }
            | Reply::Drained { .. } => {
                return Err(No(AskRefused::Unavailable, "the core answered something else".to_owned()));
            }
        };
        let open = |row: &SecretRow| {
            let opened = self.vault.unseal(&row.name, &row.sealed);
            opened.map_err(|error| {
                tracing::error!(secret = %row.name, %error, "secret_not_opened");
                No(AskRefused::Conflict, error.to_string())
            })
        };
        let values = rows.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        if values.iter().map(|value| value.expose().len()).sum::<usize>() > SECRETS_ANSWER_MAX_BYTES {
            let detail = format!("these secrets have more than {SECRETS_ANSWER_MAX_BYTES} bytes together");
            return Err(No(AskRefused::Invalid, detail));
        }
        Ok(Told::Secrets(values.into_iter().map(SecretText::from).collect()))
    }

    /// Notes, before it is told, that a job is told what is in no key: its result is not to be used again.
    async fn spoil(&self, attempt: &AttemptRow, epoch: Epoch, why: &'static str) -> Result<(), No> {
        if attempt.yields.as_ref().is_none_or(|yields| yields.spoiled.is_some()) {
            return Ok(());
        }
        let spoil = ReuseRequest::Spoil { attempt: attempt.id, epoch, why };
        self.request(attempt, Request::Reuse(spoil)).await.map(drop)
    }

    async fn request(&self, attempt: &AttemptRow, request: Request) -> Result<Told, No> {
        self.desk.request(actor(attempt), request).await?;
        Ok(Told::Done)
    }

    async fn say(&self, attempt: &AttemptRow, epoch: Epoch, call: [u8; 16], what: Said) -> Result<Told, No> {
        let speech = Speech { attempt: attempt.id, epoch, call, what };
        self.request(attempt, Request::Speak(Box::new(speech))).await
    }

    /// The row of the attempt's build, or of another that it may read.
    async fn readable(&self, attempt: &AttemptRow, build: Option<BuildId>) -> Result<BuildRow, No> {
        let own = self.build_row(attempt.build).await?;
        match build.filter(|build| *build != attempt.build) {
            None => Ok(own),
            Some(other) => {
                let row = self.build_row(other).await?;
                let same = row.pipeline == own.pipeline && row.namespace == own.namespace;
                if same { Ok(row) } else { Err(absent(other)) }
            }
        }
    }

    async fn build_row(&self, build: BuildId) -> Result<BuildRow, No> {
        Ok(self.reader.some_jobs(build, Vec::new()).await?.ok_or_else(|| absent(build))?.build)
    }

    /// The jobs of a step of a build that the attempt may read, with what they depend on: of a build that goes on no more
    /// is read.
    async fn step_rows(&self, attempt: &AttemptRow, build: Option<BuildId>, step: &str) -> Result<BuildRows, No> {
        let build = self.readable(attempt, build).await?.id;
        let (name, own) = (step.to_owned(), attempt.job);
        let jobs = self.desk.look(move |core| core.jobs_of_step(build, &name, own)).await?;
        self.rows_of(build, jobs).await
    }

    /// Some jobs of a build, or all, where nobody knows which.
    async fn rows_of(&self, build: BuildId, jobs: Option<Vec<JobId>>) -> Result<BuildRows, No> {
        let rows = match jobs {
            Some(jobs) => self.reader.some_jobs(build, jobs).await?,
            None => self.reader.build(build).await?.map(|(_, rows)| rows),
        };
        rows.ok_or_else(|| absent(build))
    }
}

/// Why a job that is told this leaves no result to use again, for people: what it is told is in no key. What a job does and not
/// only reads, and secrets, the core knows of itself.
const fn undeclared(what: &Asked) -> Option<&'static str> {
    match what {
        Asked::GetMetaData { .. } | Asked::MetaDataKeys { .. } => Some("it read meta-data"),
        Asked::GetStep { .. } => Some("it looked at a step"),
        Asked::FindArtifacts(_) | Asked::FindFiles(_) => Some("it looked for artifacts by itself"),
        Asked::FindCache(_) => Some("it restored a cache"),
        // A hit would give them without what the run gave.
        Asked::AddArtifacts { .. } => Some("its agent does not say which of its files may be executed"),
        Asked::SetMetaData { .. }
        | Asked::UploadPipeline { .. }
        | Asked::CancelStep { .. }
        | Asked::CancelBuild
        | Asked::Annotate { .. }
        | Asked::RemoveAnnotation { .. }
        | Asked::UpdateStep { .. }
        | Asked::AddFiles { .. }
        | Asked::SaveCache(_)
        | Asked::GetSecrets { .. }
        | Asked::IssueToken { .. } => None,
    }
}

fn absent(build: BuildId) -> No {
    No(AskRefused::NotFound, format!("there is no build {build} that this job may read"))
}

/// The job of an attempt, as the audit trail names it.
fn actor(attempt: &AttemptRow) -> Actor {
    Actor { kind: ActorKind::Build, name: format!("job {}", attempt.job) }
}

/// One call of a command, as rows name it.
fn call_id(call: [u8; 16]) -> String {
    hex::to(&call)
}

fn text_of(body: Vec<u8>, what: &str) -> Result<String, No> {
    String::from_utf8(body).map_err(|_| No(AskRefused::Invalid, format!("{what} is no text in UTF-8")))
}

const fn style_of(style: Style) -> AnnotationStyle {
    match style {
        Style::Success => AnnotationStyle::Success,
        Style::Info => AnnotationStyle::Info,
        Style::Warning => AnnotationStyle::Warning,
        Style::Error => AnnotationStyle::Error,
    }
}

/// What a text comes to in this build; errors say where they are.
async fn compiled(build: BuildRow, text: &str, file: String) -> Result<windlass_pipeline::graph::Graph, No> {
    let text = text.to_owned();
    let compiled = compiling::in_turn(move || compile_in(&text, &file, Variables::AreIn, &build));
    let compiled = compiled.await.map_err(|error| No(AskRefused::Unavailable, error.to_string()))?;
    let compiled = compiled.map_err(|error| No(AskRefused::Invalid, error))?;
    let errors = compiled.diagnostics.iter().filter(|found| found.severity == Severity::Error);
    let errors: Vec<String> = errors
        .map(|found| format!("{}:{}:{}: {}", compiled.file, found.span.line, found.span.column, found.message))
        .collect();
    compiled.graph.ok_or_else(|| No(AskRefused::Invalid, errors.join("\n")))
}

/// Compiles an upload; conditions and branches are decided by the build as it is now.
pub(crate) fn compile_in(
    text: &str,
    file: &str,
    variables: Variables<'_>,
    build: &BuildRow,
) -> Result<Compiled, String> {
    Facts::of(build).compile_in(text, file, variables).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use windlass_protocol::message::ArtifactQuery;

    use super::*;

    #[test]
    fn a_job_that_is_told_what_is_in_no_key_or_whose_agent_tells_no_modes_leaves_no_result() {
        let query = || {
            let path = "*".to_owned();
            Box::new(ArtifactQuery { build: None, path, step: String::new(), retried: false, before: None })
        };
        for (asked, why) in [
            (Asked::GetMetaData { build: None, key: "a".to_owned() }, Some("meta-data")),
            (Asked::MetaDataKeys { build: None }, Some("meta-data")),
            (Asked::FindArtifacts(query()), Some("artifacts")),
            (Asked::FindFiles(query()), Some("artifacts")),
            (Asked::AddArtifacts { artifacts: vec![] }, Some("which of its files may be executed")),
            (Asked::AddFiles { artifacts: vec![], executable: vec![] }, None),
            (Asked::CancelBuild, None),
        ] {
            let told = undeclared(&asked);
            assert!(told.is_some() == why.is_some() && told.unwrap_or_default().contains(why.unwrap_or_default()));
        }
    }
}
