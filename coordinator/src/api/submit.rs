//! Making builds: a pipeline is found, compiled and narrowed, its source looked for, and the core asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use windlass_coordinator_core::Rejected;
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{BuildRow, BuildSource, PipelineRow, Registered, Scope, Submit};
use windlass_coordinator_core::trigger::confined;
use windlass_pipeline::Compiled;
use windlass_pipeline::graph::{Edge, Graph};
use windlass_protocol::host::now;
use windlass_protocol::job::Source;
use windlass_protocol::limits::{
    ENV_VARS_MAX, IDEMPOTENCY_KEY_MAX_BYTES, NAME_MAX_BYTES, NUMBER_TRIES_MAX, REGISTRATION_TRIES_MAX,
};
use windlass_protocol::{BuildId, Digest, Namespace, TokenId, Trust, hex};

use super::Ground;
use super::auth::Caller;
use super::build::{find, shown};
use super::definition::{self, Definition};
use super::extract::JsonBody;
use super::gc;
use super::problem::{Kind, Problem};
use super::shape::Build;
use crate::compiling;
use crate::definitions::{self, Standing, Wanted, changed};
use crate::desk::DeskError;
use crate::facts::{Facts, UNNAMED, beneath, says_number};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says why a build that was read from a repository is not trusted.
const UNTRUSTED: HeaderName = HeaderName::from_static("windlass-untrusted");

/// What a client asks to be built.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBuild {
    /// Its pipeline's name; a repository's name where it is left out.
    pipeline: Option<String>,
    /// The pipeline's text; without it, it is read from the source: the tree, or the repository's commit.
    definition: Option<String>,
    /// The file's name, for diagnostics.
    definition_path: Option<String>,
    /// `{"tree"}` or `{"repository","commit","branch"}`; without it the workspace is empty.
    #[schema(value_type = Option<Object>)]
    origin: Option<Origin>,
    #[serde(default)]
    branch: String,
    #[serde(default)]
    commit: String,
    tag: Option<String>,
    #[serde(default)]
    message: String,
    /// Names and string values; part of every job's environment.
    #[serde(default)]
    #[schema(value_type = Object)]
    env: Map<String, Value>,
    #[serde(default)]
    meta_data: BTreeMap<String, String>,
    /// Keep failed jobs' workspaces.
    #[serde(default)]
    keep_workspace: bool,
    /// Run every step, whatever earlier results there are.
    #[serde(default)]
    no_reuse: bool,
    /// `cli` or `api`.
    #[serde(default)]
    source: Caused,
    /// Only some of the steps.
    steps: Option<Steps>,
}

/// Where the files come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "origin: {\"tree\": \"b3:…\"} or {\"repository\", \"commit\", \"branch\"}"
)]
pub(crate) enum Origin {
    Tree { tree: Digest },
    Git { repository: String, commit: String, branch: Option<String> },
}

/// What made the build.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Caused {
    Cli,
    #[default]
    Api,
}

/// Some of a pipeline's steps.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Steps {
    /// Keys, or labels of steps without one.
    keys: Vec<String>,
    /// And what they depend on.
    #[serde(default)]
    with_dependencies: bool,
}

/// Who and which key, and the digest of what was asked for.
type Remembered = ((TokenId, String), Digest);

/// A build on its way to the core, without its graph.
struct Draft {
    pipeline: String,
    /// As it is registered, if it is.
    registered: Option<PipelineRow>,
    definition: Option<Definition>,
    origin: Source,
    branch: String,
    commit: String,
    tag: Option<String>,
    message: String,
    env: Vec<(String, String)>,
    meta_data: BTreeMap<String, String>,
    keep_workspace: bool,
    no_reuse: bool,
    source: BuildSource,
    steps: Option<Steps>,
    namespace: Namespace,
    /// Why it is not trusted, where that is known of its commit.
    untrusted: Option<String>,
    rebuilt_from: Option<BuildId>,
    idempotency: Option<Remembered>,
    /// The files that its commit has changed, where that is known.
    changed: Option<Vec<String>>,
}

/// Makes a build.
#[utoipa::path(
    post,
    path = "/api/v1/builds",
    tag = "builds",
    operation_id = "submit_submit",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body make one build")),
    request_body = NewBuild,
    responses(
        (
            status = 201,
            description = "Made",
            body = Build,
            headers(("Windlass-Untrusted" = String, description = "Why what was read from a repository is not trusted; \
                absent where it is, and where the client sent the definition"))
        ),
        (status = 200, description = "The idempotency key had made it before", body = Build)
    ),
)]
pub(crate) async fn submit(
    State(ground): State<Ground>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<NewBuild>,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let idempotency = idempotency(&headers, &caller, &body.bytes)?;
    let pipeline = pipeline_of(&body.value, &caller)?;
    let plan = |registered| {
        let draft = draft(body.value.clone(), pipeline.clone(), registered, &caller, idempotency.clone())?;
        caller.need_place(&draft.pipeline, Some(&draft.branch))?;
        Ok(draft)
    };
    make(&ground, &caller, &pipeline, plan).await
}

/// Makes a build again, of the same pipeline's text and source.
#[utoipa::path(
    post,
    path = "/api/v1/builds/{id}/rebuild",
    tag = "builds",
    operation_id = "submit_rebuild",
    params(
        ("id" = String, Path, description = "A build's id, or `latest`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body make one build")
    ),
    responses((status = 201, description = "Made", body = Build)),
)]
pub(crate) async fn rebuild(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(&[Scope::BuildsWrite])?;
    let (_, rows) = find(&ground, &caller, &id).await?;
    let old = rows.build;
    let text = ground.fleet.reader.definition(old.definition).await?;
    let text = text.ok_or_else(|| Problem::new(Kind::Conflict, "the build's pipeline is not kept any more"))?;
    // A build never gains trust by being made again: what an untrusted one runs, somebody untrusted wrote.
    let namespace = match old.namespace.trust() {
        Trust::Untrusted if caller.is_trusted() => old.namespace.clone(),
        Trust::Untrusted | Trust::Trusted => caller.namespace(&old.pipeline),
    };
    let idempotency = idempotency(&headers, &caller, format!("rebuild {}", old.id).as_bytes())?;
    let plan = |registered| Ok(again(&caller, &old, &text, &namespace, registered, idempotency.clone()));
    make(&ground, &caller, &old.pipeline, plan).await
}

/// A build as it was, to be made again.
fn again(
    caller: &Caller,
    old: &BuildRow,
    text: &str,
    namespace: &Namespace,
    registered: Option<PipelineRow>,
    idempotency: Option<Remembered>,
) -> Draft {
    // What was trusted is looked at again where the token is not: its commit may have been taken off its branch since.
    let own = |repository: &String| registered.as_ref().is_some_and(|row| row.repository.as_ref() == Some(repository));
    let again = !caller.is_trusted()
        && old.namespace.trust() == Trust::Trusted
        && matches!(&old.origin, Source::Git { repository, .. } if own(repository));
    Draft {
        registered,
        pipeline: old.pipeline.clone(),
        definition: (!again).then(|| Definition { file: UNNAMED.to_owned(), text: text.to_owned() }),
        origin: old.origin.clone(),
        branch: old.branch.clone(),
        commit: old.commit.clone(),
        tag: old.tag.clone(),
        message: old.message.clone(),
        env: old.env.clone(),
        // Of a verified build all of it came from its jobs, which run again.
        meta_data: if again { BTreeMap::new() } else { old.meta_data.clone() },
        keep_workspace: old.keep_workspace,
        no_reuse: old.no_reuse,
        source: BuildSource::Api,
        steps: None,
        namespace: namespace.clone(),
        untrusted: old.untrusted.clone(),
        rebuilt_from: Some(old.id),
        idempotency,
        changed: None,
    }
}

/// The client's key with the digest of what it asks for.
fn idempotency(headers: &HeaderMap, caller: &Caller, body: &[u8]) -> Result<Option<Remembered>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_MAX_BYTES);
    let bad = || Problem::invalid(format!("Idempotency-Key: 1 to {IDEMPOTENCY_KEY_MAX_BYTES} ASCII characters"));
    Ok(Some(((caller.token, key.ok_or_else(bad)?.to_owned()), Digest::of(body))))
}

/// The name of a build's pipeline.
fn pipeline_of(new: &NewBuild, caller: &Caller) -> Result<String, Problem> {
    let sent = match &new.origin {
        Some(Origin::Git { repository, .. }) => repository_name(repository),
        Some(Origin::Tree { .. }) | None => None,
    };
    let pipeline = new.pipeline.clone().or(sent).or_else(|| caller.pipeline.clone());
    let pipeline = pipeline.ok_or_else(|| Problem::invalid("pipeline: say its name"))?;
    check_name("pipeline", &pipeline)?;
    Ok(pipeline)
}

fn draft(
    new: NewBuild,
    pipeline: String,
    registered: Option<PipelineRow>,
    caller: &Caller,
    idempotency: Option<Remembered>,
) -> Result<Draft, Problem> {
    let sent = new.origin.map(|sent| origin(sent, &new.branch)).transpose()?;
    let origin = match sent {
        Some(origin) => origin,
        None => registered_origin(registered.as_ref(), &new.commit, &new.branch)?,
    };
    let commit = match &origin {
        Source::Git { commit, .. } if new.commit.is_empty() => commit.clone(),
        Source::Git { .. } | Source::Tree { .. } | Source::Empty => new.commit,
    };
    let branch = match &origin {
        Source::Git { branch, .. } if new.branch.is_empty() => branch.clone(),
        Source::Git { .. } | Source::Tree { .. } | Source::Empty => new.branch,
    };
    let file = new.definition_path.unwrap_or_else(|| UNNAMED.to_owned());
    Ok(Draft {
        namespace: caller.namespace(&pipeline),
        pipeline,
        registered,
        definition: new.definition.map(|text| Definition { file, text }),
        origin,
        branch,
        commit,
        tag: new.tag,
        message: new.message,
        env: variables(new.env)?,
        meta_data: new.meta_data,
        keep_workspace: new.keep_workspace,
        no_reuse: new.no_reuse,
        source: match new.source {
            Caused::Cli => BuildSource::Cli,
            Caused::Api => BuildSource::Api,
        },
        steps: new.steps,
        untrusted: None,
        rebuilt_from: None,
        idempotency,
        changed: None,
    })
}

/// Where the source is of a build that does not say it: in its pipeline's repository, if one is registered.
fn registered_origin(pipeline: Option<&PipelineRow>, commit: &str, branch: &str) -> Result<Source, Problem> {
    let Some((pipeline, repository)) = pipeline.and_then(|row| Some((row, row.repository.clone()?))) else {
        return Ok(Source::Empty);
    };
    let branch = if branch.is_empty() { &pipeline.default_branch } else { branch };
    let commit = if commit.is_empty() { "HEAD" } else { commit };
    origin(Origin::Git { repository, commit: commit.to_owned(), branch: None }, branch)
}

fn origin(origin: Origin, branch: &str) -> Result<Source, Problem> {
    match origin {
        Origin::Tree { tree } => Ok(Source::Tree { digest: tree }),
        Origin::Git { repository, commit, branch: own } => {
            let branch = own.unwrap_or_else(|| branch.to_owned());
            // Git takes what begins with a dash for an option.
            let odd = |text: &str| text.starts_with('-') || text.chars().any(char::is_control);
            check_repository("origin.repository", &repository)?;
            if !hex::is_commit_id(&commit) && (commit != "HEAD" || branch.is_empty()) {
                return Err(Problem::invalid("origin.commit: a full commit id, or HEAD of a branch"));
            }
            if branch.len() > NAME_MAX_BYTES || odd(&branch) {
                return Err(Problem::invalid("origin.branch: a branch's name"));
            }
            Ok(Source::Git { repository, commit, branch })
        }
    }
}

/// A name of a repository that git takes for one, and that holds no password.
pub(crate) fn check_repository(field: &str, repository: &str) -> Result<(), Problem> {
    use windlass_git::repository::BadRepository;
    windlass_git::repository::check(repository).map_err(|error| match error {
        BadRepository::Password => {
            let detail = format!(
                "{field}: without a password, which would stand in every record of a build; agents hold the credentials \
                 (`windlass agent --git-credentials`)"
            );
            Problem::invalid(detail)
        }
        other => Problem::invalid(format!("{field}: {other}")),
    })
}

fn repository_name(repository: &str) -> Option<String> {
    let last = repository.trim_end_matches('/').rsplit(['/', ':']).next()?;
    Some(last.strip_suffix(".git").unwrap_or(last).to_owned())
}

/// A pipeline's name stands in paths and in `PIPELINE/NUMBER`.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let bad = name.is_empty()
        || name.len() > NAME_MAX_BYTES
        || matches!(name, "." | "..")
        || name.chars().any(|character| character.is_control() || character == '/');
    if bad {
        let detail = format!("{field}: 1 to {NAME_MAX_BYTES} bytes, without a slash and control characters");
        return Err(Problem::invalid(detail));
    }
    Ok(())
}

pub(crate) fn variables(env: Map<String, Value>) -> Result<Vec<(String, String)>, Problem> {
    if env.len() > ENV_VARS_MAX {
        return Err(Problem::new(Kind::LimitReached, format!("env: at most {ENV_VARS_MAX} variables")));
    }
    let variable = |(name, value): (String, Value)| match value {
        _ if name.is_empty() || name.contains(['=', '\0']) => {
            Err(Problem::invalid("env: a name is not empty and has neither `=` nor NUL"))
        }
        Value::String(value) if !value.contains('\0') => Ok((name, value)),
        _ => Err(Problem::invalid(format!("env.{name}: a string without NUL"))),
    };
    env.into_iter().map(variable).collect()
}

/// Makes a build by the pipeline's registration, and again by another one where it was changed meanwhile: whom a build is
/// trusted by, and what it runs, is decided by the registration that it is made under (docs/design/027).
async fn make(
    ground: &Ground,
    caller: &Caller,
    pipeline: &str,
    plan: impl Fn(Option<PipelineRow>) -> Result<Draft, Problem>,
) -> Result<Response, Problem> {
    let mut registered = ground.fleet.views.pipeline(pipeline);
    for _ in 0..REGISTRATION_TRIES_MAX {
        match make_by(ground, caller, plan(registered)?).await? {
            Some(response) => return Ok(response),
            // As the core has it, which may be ahead of what is shown.
            None => {
                let name = pipeline.to_owned();
                registered = ground.fleet.desk.look(move |core| core.pipeline(&name).cloned()).await?;
            }
        }
    }
    Err(Problem::new(Kind::Unavailable, "the pipeline's registration is being changed; try again"))
}

/// Finds pipeline and source, compiles, asks the core, and shows what came of it; `None` where the pipeline is registered
/// otherwise by now.
///
/// A pipeline that says its build's number is compiled with the one that is next, and submitted for that one: where
/// another submit of the pipeline was first, it is compiled again (docs/design/011).
async fn make_by(ground: &Ground, caller: &Caller, draft: Draft) -> Result<Option<Response>, Problem> {
    let mut draft = draft;
    if draft.definition.is_none() {
        draft.definition = kept(ground, draft.registered.as_ref()).await?;
    }
    if draft.definition.as_ref().is_some_and(|definition| changed::is_asked(&definition.text)) {
        draft.changed = changed_in(ground, &draft).await;
    }
    let (draft, why) = from_repository(ground, caller, draft).await?;
    let store = ground.fleet.store.clone();
    let found = blocking(move || resolve(&store, draft)).await?;
    let (id, found) = (super::id::make(|ids| ids.build(now().wall))?, Arc::new(found));
    for _ in 0..NUMBER_TRIES_MAX {
        let number = next_number(ground, &found).await?;
        let (creator, text) = (caller.actor(), Arc::clone(&found));
        let graph = compiling::in_turn(move || compile(&text, &creator.name, id, number));
        let graph = graph.await.map_err(|error| Problem::internal(&error))??;
        let submit = Box::new(found.submit(id, number, graph, caller));
        let (id, existing) = match ground.fleet.desk.request(caller.actor(), Request::Submit(submit)).await {
            Ok(Reply::Submitted { build, existing }) => (build, existing),
            Ok(
                Reply::Done
                | Reply::Secrets(_)
                | Reply::Cache(_)
                | Reply::Token { .. }
                | Reply::Joined { .. }
                | Reply::Drained { .. },
            ) => {
                return Err(Problem::internal(&"a submit was answered with something else"));
            }
            Err(DeskError::Rejected(Rejected::NumberTaken { .. })) => continue,
            Err(DeskError::Rejected(Rejected::PipelineChanged(_))) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut response = made(ground, id, existing).await?;
        if let Some(why) = why.and_then(|why| HeaderValue::try_from(why).ok()) {
            response.headers_mut().insert(UNTRUSTED, why);
        }
        return Ok(Some(response));
    }
    Err(Problem::new(Kind::Unavailable, "too many builds of this pipeline are submitted at once; try again"))
}

/// The definition that the server keeps of a pipeline.
async fn kept(ground: &Ground, pipeline: Option<&PipelineRow>) -> Result<Option<Definition>, Problem> {
    let Some((pipeline, digest)) = pipeline.and_then(|row| Some((row, row.definition?))) else { return Ok(None) };
    let text = ground.fleet.reader.definition(digest).await?;
    // It was replaced since its row was looked at.
    let changed = || Problem::new(Kind::Unavailable, "the pipeline is being changed; try again");
    let file = format!("{} (kept by the server)", pipeline.name);
    Ok(Some(Definition { file, text: text.ok_or_else(changed)? }))
}

/// Reads the pipeline from the build's repository where the client did not send it. What is built is pinned to the commit
/// that was read: a branch may move on before an agent checks it out.
///
/// This is also where a build comes to be trusted whose token is not (docs/design/021). Gives why it did not, if so.
async fn from_repository(
    ground: &Ground,
    caller: &Caller,
    mut draft: Draft,
) -> Result<(Draft, Option<String>), Problem> {
    let (None, Source::Git { repository, commit, branch }) = (&draft.definition, &draft.origin) else {
        return Ok((draft, None));
    };
    let registered = draft.registered.as_ref().filter(|row| row.repository.as_ref() == Some(repository));
    if registered.is_none() && !ground.git_unregistered {
        let detail = "definition: send the pipeline's text, or register the pipeline with its repository \
                      (`windlass pipeline create`); it is not read from any other repository";
        return Err(Problem::new(Kind::PipelineInvalid, detail));
    }
    let wanted = Wanted {
        repository: repository.clone(),
        branch: Some(branch.clone()).filter(|branch| !branch.is_empty()),
        tag: draft.tag.clone(),
        commit: Some(commit.clone()),
        default_branch: registered.map(|row| row.default_branch.clone()),
        file: registered.and_then(|row| row.file.clone()),
        protected: registered.map(PipelineRow::protected).unwrap_or_default(),
        commit_alone: false,
        diff_base: Some(diff_base(&draft)),
    };
    let found = ground.definitions.read(wanted).await?;
    let earned = earned(&draft, branch, &found, registered.is_some());
    let (repository, branch) = (repository.clone(), branch.clone());
    let mut why = None;
    if !caller.is_trusted() {
        match earned {
            Ok(namespace) => {
                draft.untrusted =
                    namespace.overlay.as_ref().map(|_| "its commit is the head of a pull request".to_owned());
                draft.namespace = namespace;
            }
            Err(reason) => {
                draft.untrusted = Some(reason.clone());
                why = Some(reason);
            }
        }
    }
    draft.origin = Source::Git { repository, commit: found.commit.clone(), branch };
    draft.commit = found.commit;
    draft.changed = found.changed;
    if draft.message.is_empty() {
        draft.message = found.message;
    }
    draft.definition = Some(Definition { file: found.file, text: found.text });
    Ok((draft, why))
}

/// What the files of a build's commit are compared with.
fn diff_base(draft: &Draft) -> String {
    let default_branch = draft.registered.as_ref().map_or("", |row| row.default_branch.as_str());
    changed::base_of(&draft.env, beneath(draft.registered.as_ref()), default_branch)
}

/// The files that the commit of a build has changed whose text did not come out of its repository: where that is one that may
/// be read, and is read.
async fn changed_in(ground: &Ground, draft: &Draft) -> Option<Vec<String>> {
    let Source::Git { repository, commit, branch } = &draft.origin else { return None };
    let registered = draft.registered.as_ref().filter(|row| row.repository.as_ref() == Some(repository));
    if registered.is_none() && !ground.git_unregistered {
        return None;
    }
    let wanted = Wanted {
        repository: repository.clone(),
        branch: Some(branch.clone()).filter(|branch| !branch.is_empty()),
        commit: Some(commit.clone()),
        commit_alone: true,
        diff_base: Some(diff_base(draft)),
        ..Wanted::default()
    };
    // It is no source of what runs: without it every step does.
    let found = ground.definitions.read(wanted).await;
    found.inspect_err(|error| tracing::info!(%error, "changed_files_unknown")).ok()?.changed
}

/// Where a build belongs by what the coordinator saw itself, whoever submits it: among what is trusted, or in the overlay
/// of its pull request; else why neither. All that its jobs can see is the commit's, or was checked against it: what a
/// client adds (variables, meta-data, a choice of steps, words, another branch's name) nobody has reviewed.
fn earned(draft: &Draft, branch: &str, found: &definitions::Found, registered: bool) -> Result<Namespace, String> {
    if !registered {
        return Err("the repository is not the one that the pipeline is registered with".to_owned());
    }
    let first_line = found.message.lines().next().unwrap_or_default();
    let added = [
        (!draft.env.is_empty(), "env"),
        (!draft.meta_data.is_empty(), "meta_data"),
        (draft.steps.is_some(), "steps"),
        (!["", &*found.message, first_line].contains(&&*draft.message), "a message that is not the commit's"),
        (draft.branch != branch, "a branch that is not the origin's"),
    ];
    let namespace = match &found.standing {
        Standing::Protected { .. } => Namespace::trusted(&draft.pipeline),
        Standing::PullRequest { number } => Namespace::overlay(&draft.pipeline, &format!("pr:{number}")),
        Standing::Unprotected { why } => return Err(why.clone()),
    };
    match added.into_iter().find(|(is_added, _)| *is_added) {
        None => Ok(namespace),
        Some((_, what)) => Err(format!("the client added {what}")),
    }
}

async fn made(ground: &Ground, id: BuildId, existing: bool) -> Result<Response, Problem> {
    let build = shown(ground, id).await?;
    let status = if existing { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(build)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/builds/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))?
}

/// The number to compile for; `None` where the pipeline does not say it.
async fn next_number(ground: &Ground, found: &Found) -> Result<Option<u64>, Problem> {
    if !says_number(&found.definition.text) {
        return Ok(None);
    }
    let pipeline = found.draft.pipeline.clone();
    Ok(Some(ground.fleet.desk.look(move |core| core.next_number(&pipeline)).await?))
}

/// A draft whose source is there and whose pipeline's text is known.
struct Found {
    draft: Draft,
    definition: Definition,
}

impl Found {
    fn submit(&self, id: BuildId, number: Option<u64>, graph: Graph, caller: &Caller) -> Submit {
        let draft = &self.draft;
        Submit {
            id,
            number,
            pipeline: draft.pipeline.clone(),
            registration: draft.registered.clone().map(Box::new),
            definition: self.definition.text.clone(),
            graph,
            branch: draft.branch.clone(),
            commit: draft.commit.clone(),
            tag: draft.tag.clone(),
            message: draft.message.clone(),
            origin: draft.origin.clone(),
            source: draft.source,
            creator: caller.actor(),
            namespace: draft.namespace.clone(),
            env: draft.env.clone(),
            meta_data: draft.meta_data.clone(),
            keep_workspace: draft.keep_workspace,
            no_reuse: draft.no_reuse,
            rebuilt_from: draft.rebuilt_from,
            triggered_from: None,
            confined: confined(caller.pipeline.as_deref(), caller.branch.as_deref()),
            untrusted: self.untrusted(),
            idempotency: draft.idempotency.clone(),
        }
    }

    /// Why the build is not trusted.
    fn untrusted(&self) -> Option<String> {
        const BY_TOKEN: &str =
            "its token may not make trusted builds, and what it runs did not come from its commit alone";
        if self.draft.namespace.trust() == Trust::Trusted {
            return None;
        }
        Some(self.draft.untrusted.clone().unwrap_or_else(|| BY_TOKEN.to_owned()))
    }
}

/// Looks for the source and the pipeline's text. Blocks on the disk.
fn resolve(store: &windlass_cache::Store, mut draft: Draft) -> Result<Found, Problem> {
    if let Source::Tree { digest } = &draft.origin {
        if !store.contains(&draft.namespace, digest) {
            return Err(gc::source_missing(store, &draft.namespace, digest));
        }
        if draft.rebuilt_from.is_some() {
            // Nobody has looked at it since the earlier build was over.
            gc::keep_source(store, &draft.namespace, digest)?;
        }
    }
    let definition = match (draft.definition.take(), &draft.origin) {
        (Some(definition), _) => definition,
        (None, Source::Tree { digest }) => {
            let file = draft.registered.as_ref().and_then(|pipeline| pipeline.file.as_deref());
            definition::of_tree(store, &draft.namespace, digest, file)?
        }
        (None, Source::Git { .. } | Source::Empty) => {
            let detail = "definition: send the pipeline's text, or an origin that has it, or have the server keep it \
                          (`windlass pipeline update --definition FILE`)";
            return Err(Problem::new(Kind::PipelineInvalid, detail));
        }
    };
    Ok(Found { draft, definition })
}

/// Takes a while for large pipelines.
fn compile(found: &Found, creator: &str, id: BuildId, number: Option<u64>) -> Result<Graph, Problem> {
    let Found { draft, definition } = found;
    let pipeline = draft.registered.as_ref();
    let registered = pipeline.map(Registered::from);
    let facts = Facts {
        id,
        number,
        pipeline: &draft.pipeline,
        registered: registered.as_ref(),
        beneath: beneath(pipeline),
        branch: &draft.branch,
        commit: &draft.commit,
        tag: draft.tag.as_deref(),
        message: &draft.message,
        source: draft.source,
        triggered_from: None,
        creator,
        origin: &draft.origin,
        env: &draft.env,
        changed: draft.changed.as_deref(),
    };
    let compiled = facts.compile(&definition.text, &definition.file).map_err(|error| Problem::internal(&error))?;
    let mut graph = graph_of(compiled)?;
    if let Some(steps) = &draft.steps {
        graph = narrow(graph, steps)?;
    }
    Ok(graph)
}

/// The graph of a pipeline that can run, or all that is wrong with it.
pub(crate) fn graph_of(compiled: Compiled) -> Result<Graph, Problem> {
    let Some(graph) = compiled.graph else {
        let errors = compiled.diagnostics.iter().filter_map(|found| serde_json::to_value(found).ok()).collect();
        let detail = format!("{} cannot run; errors[] says why", compiled.file);
        return Err(Problem::new(Kind::PipelineInvalid, detail).with_errors(errors));
    };
    Ok(graph)
}

/// Keeps some steps, with what they depend on or without. Edges to steps that are left out are left out.
fn narrow(graph: Graph, steps: &Steps) -> Result<Graph, Problem> {
    let mut kept = vec![false; graph.nodes.len()];
    let (mut by_key, mut by_label) = (BTreeMap::<_, Vec<usize>>::new(), BTreeMap::<_, Vec<usize>>::new());
    for (index, node) in graph.nodes.iter().enumerate() {
        by_label.entry(node.label.as_str()).or_default().push(index);
        if let Some(key) = &node.key {
            by_key.entry(key.as_str()).or_default().push(index);
        }
    }
    let mut open: Vec<usize> = Vec::new();
    for key in steps.keys.iter().map(String::as_str).collect::<BTreeSet<_>>() {
        let named = by_key.get(key).or_else(|| by_label.get(key));
        open.extend(named.ok_or_else(|| unknown_step(&graph, key))?);
    }
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut kept[index], true) && steps.with_dependencies {
            open.extend(graph.nodes[index].depends_on.iter().filter_map(|edge| usize::try_from(edge.node).ok()));
        }
    }
    let mut places = Vec::with_capacity(kept.len());
    let mut next = 0_u32;
    for kept in &kept {
        places.push(kept.then_some(next));
        next += u32::from(*kept);
    }
    let place = |edge: &Edge| {
        let node = *places.get(usize::try_from(edge.node).ok()?)?;
        Some(Edge { node: node?, allow_failure: edge.allow_failure })
    };
    let mut nodes = graph.nodes;
    let mut kept = kept.into_iter();
    nodes.retain(|_| kept.next().unwrap_or(false));
    for node in &mut nodes {
        node.depends_on = node.depends_on.iter().filter_map(place).collect();
    }
    Ok(Graph { nodes, ..graph })
}

fn unknown_step(graph: &Graph, key: &str) -> Problem {
    let known: Vec<_> = graph.nodes.iter().filter_map(|node| node.key.as_deref()).take(20).collect();
    let message = format!("the pipeline has no step `{key}`");
    let hint = if known.is_empty() { None } else { Some(format!("its steps are {}", known.join(", "))) };
    let error = json!({ "severity": "error", "code": "unknown-step-key", "message": message, "hint": hint });
    Problem::new(Kind::PipelineInvalid, message).with_errors(vec![error])
}
