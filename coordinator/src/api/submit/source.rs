//! Where a build's pipeline and files come from: its text is found, its commit looked at, its tree looked for. Here is also
//! decided what trust its commit earns (docs/design/021).

use windlass_coordinator_core::row::{PipelineRow, Submit};
use windlass_coordinator_core::trigger::confined;
use windlass_pipeline::graph::Graph;
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Namespace, Trust};

use super::draft::Draft;
use crate::api::Ground;
use crate::api::auth::Caller;
use crate::api::definition::{self, Definition};
use crate::api::gc;
use crate::api::problem::{Kind, Problem};
use crate::definitions::{self, Standing, Wanted, changed};
use crate::facts::beneath;

/// The definition that the server keeps of a pipeline.
pub(super) async fn kept(ground: &Ground, pipeline: Option<&PipelineRow>) -> Result<Option<Definition>, Problem> {
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
pub(super) async fn from_repository(
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
pub(super) async fn changed_in(ground: &Ground, draft: &Draft) -> Option<Vec<String>> {
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

/// A draft whose source is there and whose pipeline's text is known.
pub(super) struct Found {
    pub(super) draft: Draft,
    pub(super) definition: Definition,
}

impl Found {
    pub(super) fn submit(&self, id: BuildId, number: Option<u64>, graph: Graph, caller: &Caller) -> Submit {
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
pub(super) fn resolve(store: &windlass_cache::Store, mut draft: Draft) -> Result<Found, Problem> {
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
