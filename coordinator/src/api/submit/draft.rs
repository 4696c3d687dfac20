//! A build on its way to the core: what a client asks for, checked, or an earlier build again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use windlass_coordinator_core::row::{BuildRow, BuildSource, PipelineRow};
use windlass_protocol::job::Source;
use windlass_protocol::limits::{ENV_VARS_MAX, NAME_MAX_BYTES};
use windlass_protocol::{BuildId, Digest, Namespace, TokenId, Trust, hex};

use super::{Caused, NewBuild, Origin, Steps};
use crate::api::auth::Caller;
use crate::api::definition::Definition;
use crate::api::problem::{Kind, Problem};
use crate::facts::UNNAMED;

/// Who and which key, and the digest of what was asked for.
pub(super) type Remembered = ((TokenId, String), Digest);

/// A build on its way to the core, without its graph.
pub(super) struct Draft {
    pub(super) pipeline: String,
    /// As it is registered, if it is.
    pub(super) registered: Option<PipelineRow>,
    pub(super) definition: Option<Definition>,
    pub(super) origin: Source,
    pub(super) branch: String,
    pub(super) commit: String,
    pub(super) tag: Option<String>,
    pub(super) message: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) meta_data: BTreeMap<String, String>,
    pub(super) keep_workspace: bool,
    pub(super) no_reuse: bool,
    pub(super) source: BuildSource,
    pub(super) steps: Option<Steps>,
    pub(super) namespace: Namespace,
    /// Why it is not trusted, where that is known of its commit.
    pub(super) untrusted: Option<String>,
    pub(super) rebuilt_from: Option<BuildId>,
    pub(super) idempotency: Option<Remembered>,
    /// The files that its commit has changed, where that is known.
    pub(super) changed: Option<Vec<String>>,
}

/// A build as it was, to be made again.
pub(super) fn again(
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

/// The name of a build's pipeline.
pub(super) fn pipeline_of(new: &NewBuild, caller: &Caller) -> Result<String, Problem> {
    let sent = match &new.origin {
        Some(Origin::Git { repository, .. }) => repository_name(repository),
        Some(Origin::Tree { .. }) | None => None,
    };
    let pipeline = new.pipeline.clone().or(sent).or_else(|| caller.pipeline.clone());
    let pipeline = pipeline.ok_or_else(|| Problem::invalid("pipeline: say its name"))?;
    check_name("pipeline", &pipeline)?;
    Ok(pipeline)
}

/// What a client asks for, by the registration of its pipeline.
pub(super) fn draft(
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
