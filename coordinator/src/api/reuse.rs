//! Why a job ended with an earlier result, or why it did not: its key, and in what that differs from the nearest earlier one
//! that whoever asks may see.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use windlass_cache::{Directory, Store};
use windlass_coordinator_core::row::{JobReuse, JobRow, Kept, KeyedJob, ReuseRow, Role, Scope};
use windlass_pipeline::graph::NodeKind;
use windlass_protocol::limits::{REUSE_DIFFERENCES_MAX, REUSE_RECIPE_MAX_BYTES, TREE_DIR_MAX_BYTES};
use windlass_protocol::{BuildId, Digest, JobId, Namespace};

use super::Ground;
use super::auth::Caller;
use super::blob::blocking;
use super::job::find;
use super::problem::Problem;
use super::shape::{Reused, time};
use crate::keying::recipe::{self, Reads, Recipe};

/// What came of a job's wish to be reused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reuse)]
pub(crate) struct Explained {
    #[schema(value_type = String)]
    job_id: JobId,
    #[schema(value_type = String)]
    build_id: BuildId,
    step_key: Option<String>,
    label: String,
    /// `hit miss fresh verified unkeyed keying not_asked`.
    outcome: &'static str,
    /// For people.
    text: String,
    /// The digest of all that decides its result.
    #[schema(value_type = Option<String>)]
    key: Option<Digest>,
    /// Whose result it is, or was compared with.
    from: Option<Reused>,
    /// Of its own result: `stored not_stored same differs`; null until it has passed.
    kept: Option<&'static str>,
    /// Why, where it is not stored or differs.
    kept_why: Option<String>,
    /// What was seen while its key was found out, for people.
    notes: Vec<String>,
    /// An earlier result of this key had been here.
    gone: Option<Evicted>,
    /// On a miss, the earlier result of the step that has most in common with it.
    nearest: Option<Nearest>,
}

/// A result that was here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Evicted {
    /// `size count unused`.
    why: &'static str,
    at: String,
}

/// An earlier result, and what is different.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nearest {
    from: Reused,
    #[schema(value_type = String)]
    key: Digest,
    differences: Vec<Different>,
    /// There are more than are told.
    cut: bool,
}

/// Something that decides the result and is not what it was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Different {
    /// Such as `command`, `env.CC`, `image`, `file src/main.c`.
    component: String,
    /// Null where it was not there.
    before: Option<String>,
    /// Null where it is not there any more.
    after: Option<String>,
}

/// Whether a job's result was there, and if not, what is different.
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}/reuse",
    tag = "jobs",
    operation_id = "job_reuse",
    params(("id" = String, Path, description = "A job's id, or one of its attempts'")),
    responses((status = 200, description = "As it is now", body = Explained)),
)]
pub(crate) async fn explain(
    State(ground): State<Ground>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Explained>, Problem> {
    caller.need(&[Scope::BuildsRead])?;
    let (job, rows) = find(&ground, &caller, &id).await?;
    let row = rows.jobs.iter().find(|row| row.id == job).ok_or_else(|| Problem::not_found("job", &id))?;
    let mut explained = Explained {
        job_id: job,
        build_id: rows.build.id,
        step_key: row.node.key.clone(),
        label: row.node.label.clone(),
        outcome: "not_asked",
        text: "the step does not ask for reuse: `reuse:` in its pipeline does".to_owned(),
        key: None,
        from: None,
        kept: None,
        kept_why: None,
        notes: Vec::new(),
        gone: None,
        nearest: None,
    };
    match &row.reuse {
        None if !wishes(row) => {}
        None if row.attempts.is_empty() => {
            (explained.outcome, explained.text) = ("keying", "its key is not known yet".to_owned());
        }
        None => explained.text = "it ran before steps were reused here".to_owned(),
        Some(JobReuse::Unkeyed(unkeyed)) => {
            (explained.outcome, explained.text) = ("unkeyed", format!("it cannot be reused: {}", unkeyed.why));
        }
        Some(JobReuse::Keyed(keyed)) => {
            tell(&mut explained, keyed);
            if matches!(keyed.role, Role::Runs) {
                explained.nearest = nearest(&ground, &caller, (&rows.build.namespace, row), keyed).await?;
            }
            explained.text = sentence(&explained, keyed);
        }
    }
    Ok(Json(explained))
}

fn wishes(row: &JobRow) -> bool {
    matches!(&row.node.kind, NodeKind::Command(command) if command.reuse.is_some())
}

fn tell(explained: &mut Explained, keyed: &KeyedJob) {
    explained.key = Some(keyed.keyed.key);
    explained.notes.clone_from(&keyed.keyed.notes);
    let (outcome, from) = match &keyed.role {
        Role::Reused(from) => ("hit", Some(from)),
        Role::Verifies { from, .. } => ("verified", Some(from)),
        Role::Fresh => ("fresh", None),
        Role::Runs => ("miss", None),
    };
    (explained.outcome, explained.from) = (outcome, from.map(|from| Reused::new(from)));
    let (kept, why) = match &keyed.kept {
        None => (None, None),
        Some(Kept::Stored) => (Some("stored"), None),
        Some(Kept::Not(why)) => (Some("not_stored"), Some(why)),
        Some(Kept::Same) => (Some("same"), None),
        Some(Kept::Differs(why)) => (Some("differs"), Some(why)),
    };
    (explained.kept, explained.kept_why) = (kept, why.cloned());
    explained.gone = keyed.gone.map(|(why, at)| Evicted { why: why.name(), at: time(at) });
}

/// All of it in words.
fn sentence(explained: &Explained, keyed: &KeyedJob) -> String {
    let mut text = match (&keyed.role, &keyed.gone) {
        (Role::Reused(from), _) => {
            let fleet = from.fleet.as_ref().map(|url| format!(" of {url}")).unwrap_or_default();
            return format!("nothing ran: its result is that of {} in build #{}{fleet}", from.step, from.number);
        }
        (Role::Verifies { from, .. }, _) => {
            format!("its result was there (build #{}), and it was chosen to be run and compared", from.number)
        }
        (Role::Fresh, _) => "it was to run, whatever earlier results there are".to_owned(),
        (Role::Runs, Some((why, _))) => format!("its result was here, and was evicted {}", why.word()),
        (Role::Runs, None) => match &explained.nearest {
            Some(near) => {
                let count = near.differences.len();
                let (more, s) = (if near.cut { " or more" } else { "" }, if count == 1 { "" } else { "s" });
                format!("no earlier run had its key: {count}{more} difference{s} to build #{}", near.from.number())
            }
            None => {
                "no earlier run of the step had its key, and none that you may see is here to compare with".to_owned()
            }
        },
    };
    match &keyed.kept {
        None => {}
        Some(Kept::Stored) => text.push_str("; later builds use its result"),
        Some(Kept::Not(why)) => text.push_str(&format!("; later builds do not use its result: {why}")),
        Some(Kept::Same) => text.push_str("; it came to the same"),
        Some(Kept::Differs(why)) => text.push_str(&format!("; it came to something else: {why}")),
    }
    text
}

/// Of the earlier results of the step that the job's namespace reads and the caller may see, the one with most in common.
async fn nearest(
    ground: &Ground,
    caller: &Caller,
    (namespace, row): (&Namespace, &JobRow),
    keyed: &KeyedJob,
) -> Result<Option<Nearest>, Problem> {
    let (own, of, job) = (namespace.clone(), row.clone(), keyed.clone());
    let found = ground.fleet.desk.look(move |core| core.earlier(&own, &of, job.keyed.key, job.at)).await?;
    let seen = found.into_iter().filter(|row| caller.sees_place(&row.from.pipeline, &row.from.branch));
    let seen: Vec<ReuseRow> = seen.collect();
    let (store, namespace, recipe) = (ground.fleet.store.clone(), namespace.clone(), keyed.keyed.recipe);
    let compared = blocking(move || compare(&Seen { store, namespace }, recipe, seen)).await?;
    Ok(compared)
}

/// What of the cache a namespace sees.
struct Seen {
    store: Store,
    namespace: Namespace,
}

impl Seen {
    /// A blob's bytes; `None` where it is not to be seen, too large, or cannot be read.
    fn bytes(&self, digest: &Digest, most: u64) -> Option<Vec<u8>> {
        let blob = match self.store.get(&self.namespace, digest) {
            Ok(blob) => blob?,
            Err(fault) => {
                tracing::warn!(%digest, %fault, "recipe_unreadable");
                return None;
            }
        };
        if blob.len() > most {
            return None;
        }
        blob.into_vec().map_err(|fault| tracing::warn!(%digest, %fault, "recipe_unreadable")).ok()
    }

    /// What a blob's bytes say; `None` as there, and where they say nothing.
    fn decoded<T, E: std::fmt::Display>(
        &self,
        digest: &Digest,
        most: u64,
        decode: impl FnOnce(Vec<u8>) -> Result<T, E>,
    ) -> Option<T> {
        let decoded = decode(self.bytes(digest, most)?);
        decoded.map_err(|error| tracing::warn!(%digest, %error, "recipe_senseless")).ok()
    }

    fn recipe(&self, digest: &Digest) -> Option<Recipe> {
        self.decoded(digest, REUSE_RECIPE_MAX_BYTES as u64, |bytes| Recipe::decode(&bytes))
    }
}

struct Reading<'a>(&'a Seen);

impl Reads for Reading<'_> {
    fn directory(&mut self, digest: &Digest) -> Option<Directory> {
        self.0.decoded(digest, TREE_DIR_MAX_BYTES, |bytes| Directory::decode(&bytes))
    }

    fn text(&mut self, digest: &Digest) -> Option<String> {
        self.0.decoded(digest, REUSE_RECIPE_MAX_BYTES as u64, String::from_utf8)
    }
}

fn compare(seen: &Seen, own: Digest, earlier: Vec<ReuseRow>) -> Option<Nearest> {
    let own = seen.recipe(&own)?;
    let read = earlier.into_iter().filter_map(|row| Some((seen.recipe(&row.recipe)?, row)));
    // The newest comes first, and of equals the first one is taken.
    let (recipe, row) = read.min_by_key(|(recipe, _)| apart(recipe, &own))?;
    let found = recipe::diff(&recipe, &own, &mut Reading(seen));
    let cut = found.len() >= REUSE_DIFFERENCES_MAX;
    let differences =
        found.into_iter().map(|it| Different { component: it.component, before: it.before, after: it.after }).collect();
    Some(Nearest { from: Reused::new(&row.from), key: row.name.key, differences, cut })
}

/// In how many components two recipes differ.
fn apart(one: &Recipe, other: &Recipe) -> usize {
    let gone = one.components().filter(|(name, value)| other.get(name) != Some(value)).count();
    gone + other.components().filter(|(name, _)| one.get(name).is_none()).count()
}
