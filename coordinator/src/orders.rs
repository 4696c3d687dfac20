//! Builds that the core orders: what they run is found out here, and compiled.
//!
//! A registered pipeline's definition is the one that the server keeps, or the one in its repository at the branch and
//! commit that are asked for. An order that cannot be filled is answered with the cause of that; one whose answer is lost,
//! because the coordinator ends, is given out again when it starts.

use std::sync::Arc;

use tokio::sync::Semaphore;
use windlass_coordinator_core::input::Input;
use windlass_coordinator_core::order::{Obtained, Order};
use windlass_coordinator_core::row::Registered;
use windlass_pipeline::{Compiled, Severity};
use windlass_protocol::job::Source;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, ORDERS_AT_ONCE_MAX};
use windlass_protocol::{Cause, CauseKind};

use crate::definitions::{DefinitionError, Definitions, Standing, Wanted, changed};
use crate::desk::{DeskHandle, Orders};
use crate::facts::{Facts, beneath, says_number};
use crate::views::{ReadError, Reader};

/// Fills orders, a bounded number at a time; the others wait in their order's tasks, of which there are as many as jobs and
/// schedules that wait.
#[derive(Debug, Clone)]
pub struct Filler {
    desk: DeskHandle,
    reader: Reader,
    definitions: Definitions,
    turns: Arc<Semaphore>,
}

impl Orders for Filler {
    fn obtain(&self, order: Order) {
        let filler = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_turn) = filler.turns.acquire().await else { return };
            let build = order.build;
            let obtained = filler.fill(order).await;
            if let Err(cause) = &obtained {
                tracing::info!(%build, kind = cause.kind.name(), detail = cause.detail, "order_not_filled");
            }
            let input = Input::Obtained { build, obtained: obtained.map(Box::new) };
            // A desk that ends orders again when it starts.
            let _ending = filler.desk.agent_input(input).await;
        });
    }
}

impl Filler {
    /// One that answers this desk.
    #[must_use]
    pub fn new(desk: DeskHandle, reader: Reader, definitions: Definitions) -> Self {
        Self { desk, reader, definitions, turns: Arc::new(Semaphore::new(ORDERS_AT_ONCE_MAX)) }
    }

    async fn fill(&self, order: Order) -> Result<Obtained, Cause> {
        let read = self.read(&order).await?;
        let number = if says_number(&read.text) {
            let pipeline = order.pipeline.name.clone();
            let next = self.desk.look(move |core| core.next_number(&pipeline)).await;
            Some(next.map_err(|error| Cause::new(CauseKind::Internal, error.to_string()))?)
        } else {
            None
        };
        let compiling = move || compile(order, read, number);
        let compiled = crate::compiling::in_turn(compiling).await;
        compiled.map_err(|error| Cause::new(CauseKind::Internal, error.to_string()))?
    }

    async fn read(&self, order: &Order) -> Result<Read, Cause> {
        let pipeline = &order.pipeline;
        let kept = match pipeline.definition {
            Some(digest) => {
                let text = self.reader.definition(digest).await.map_err(|error| unread(&error))?;
                // It was replaced since the order was given out.
                let gone = || Cause::new(CauseKind::SourceMissing, "the pipeline's definition was changed meanwhile");
                Some(text.ok_or_else(gone)?)
            }
            None => None,
        };
        let Some(repository) = &pipeline.repository else {
            let none = || {
                let detail = format!(
                    "the server keeps no definition of `{0}` and knows no repository of it: `windlass pipeline update {0} \
                     --definition FILE` gives it one",
                    pipeline.name
                );
                Cause::new(CauseKind::SourceMissing, detail)
            };
            let (text, file) = (kept.ok_or_else(none)?, kept_by_the_server(&pipeline.name));
            return Ok(Read { text, file, commit: String::new(), verified: true, changed: None });
        };
        let asks = kept.as_deref().is_none_or(changed::is_asked);
        let wanted = Wanted {
            diff_base: asks.then(|| changed::base_of(&order.env, &pipeline.env, &pipeline.default_branch)),
            repository: repository.clone(),
            branch: Some(order.branch.clone()),
            tag: None,
            commit: Some(order.commit.clone()),
            default_branch: Some(pipeline.default_branch.clone()),
            file: pipeline.file.clone(),
            protected: pipeline.protected(),
            commit_alone: kept.is_some(),
        };
        let found = self.definitions.read(wanted).await.map_err(|error| not_found(&error))?;
        let verified = matches!(found.standing, Standing::Protected { .. });
        let (text, file) = match kept {
            Some(text) => (text, kept_by_the_server(&pipeline.name)),
            None => (found.text, found.file),
        };
        Ok(Read { text, file, commit: found.commit, verified, changed: found.changed })
    }
}

/// What an order's build runs, as it was read.
struct Read {
    text: String,
    /// The file's name, for people.
    file: String,
    /// What is built.
    commit: String,
    /// Nobody untrusted wrote what is run.
    verified: bool,
    /// The files that the commit has changed, where that is known.
    changed: Option<Vec<String>>,
}

fn kept_by_the_server(pipeline: &str) -> String {
    format!("{pipeline} (kept by the server)")
}

/// What is not there is missing; what could not be looked at may be there the next time.
fn not_found(error: &DefinitionError) -> Cause {
    let kind = match error {
        DefinitionError::Repository(_)
        | DefinitionError::BadReference(_)
        | DefinitionError::BadCommit
        | DefinitionError::BadPath(_)
        | DefinitionError::NoSuchReference(_)
        | DefinitionError::NoSuchCommit(_)
        | DefinitionError::NoFile { .. }
        | DefinitionError::NoSuchFile { .. }
        | DefinitionError::TooLarge { .. }
        | DefinitionError::NotText { .. } => CauseKind::SourceMissing,
        DefinitionError::StorageFull => CauseKind::DiskFull,
        DefinitionError::Unreachable { .. }
        | DefinitionError::RepositoryTooLarge
        | DefinitionError::TimedOut(_)
        | DefinitionError::Busy
        | DefinitionError::Fault { .. } => CauseKind::CheckoutFailed,
    };
    Cause::new(kind, error.to_string())
}

fn unread(error: &ReadError) -> Cause {
    Cause::new(CauseKind::Internal, error.to_string())
}

/// Takes a while for large pipelines.
fn compile(order: Order, read: Read, number: Option<u64>) -> Result<Obtained, Cause> {
    let Read { text, file, commit, verified, changed } = read;
    let origin = match &order.pipeline.repository {
        Some(repository) => {
            Source::Git { repository: repository.clone(), commit: commit.clone(), branch: order.branch.clone() }
        }
        None => Source::Empty,
    };
    // Without a repository the commit is what the order says, for people.
    let commit = if commit.is_empty() { order.commit.clone() } else { commit };
    let registered = Registered::from(&order.pipeline);
    let facts = Facts {
        id: order.build,
        number,
        pipeline: &order.pipeline.name,
        registered: Some(&registered),
        beneath: beneath(Some(&order.pipeline)),
        branch: &order.branch,
        commit: &commit,
        tag: None,
        message: &order.message,
        source: order.source,
        creator: &order.creator.name,
        triggered_from: order.triggered_from.as_ref(),
        origin: &origin,
        env: &order.env,
        changed: changed.as_deref(),
    };
    let compiled = facts.compile(&text, &file).map_err(|error| Cause::new(CauseKind::Internal, error.to_string()))?;
    let Some(graph) = compiled.graph.clone() else {
        return Err(Cause::new(CauseKind::SourceMissing, said(&compiled)));
    };
    let registration = Box::new(order.pipeline);
    Ok(Obtained { number, definition: text, graph, origin, branch: order.branch, commit, verified, registration })
}

/// What is wrong with a definition, in one text.
fn said(compiled: &Compiled) -> String {
    let errors = compiled.diagnostics.iter().filter(|found| found.severity == Severity::Error);
    let lines =
        errors.map(|found| format!("{}:{}:{}: {}", compiled.file, found.span.line, found.span.column, found.message));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.truncate(text.floor_char_boundary(DETAIL_MAX_BYTES));
    text
}
