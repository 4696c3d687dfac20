//! What a build's rows hold, in bytes: one account for each build, which follows from its rows alone, and one limit (I9).
//!
//! Counted is what clients and jobs can make larger: steps with what they say, variables, groups, notifications, meta-data,
//! annotations with their texts, and the texts of uploads. What has a bound of its own by number is not: edges, attempts, and
//! artifacts. The design: `docs/design/024-what-a-build-costs.md`.

mod scale;

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_pipeline::graph::{Group, Node, Notify};
use windlass_protocol::BuildId;

use self::scale::weigh;
use crate::error::Rejected;
use crate::row::{Annotation, BuildRow, JobRow, Submit, Uploaded};
use crate::state::Core;

/// A job's row without its step, more or less; so, too, an upload's record beside its text, and an annotation's.
const ROW_BYTES: usize = 512;

/// What one build's rows hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Account {
    /// The build's row, but for what is below: variables, groups, notifications, words.
    pub(crate) frame: usize,
    /// Meta-data and annotations.
    pub(crate) texts: usize,
    /// Jobs, and the texts that they uploaded.
    pub(crate) jobs: usize,
}

impl Account {
    /// From rows.
    pub(crate) fn of<'a>(build: &BuildRow, jobs: impl Iterator<Item = &'a JobRow>) -> Self {
        Self { frame: frame(build), texts: texts(build), jobs: jobs.map(of_job).sum() }
    }

    /// Of a build that is to be made; `beneath` are the variables of its registered pipeline.
    pub(crate) fn of_submit(submit: &Submit, beneath: &[(String, String)]) -> Self {
        let graph = &submit.graph;
        let env = variables(&submit.env) + variables(beneath);
        Self {
            frame: env + submit.message.len() + of_growth(&graph.groups, &graph.notify, &graph.env),
            texts: of_meta_data(&submit.meta_data),
            jobs: graph.nodes.iter().map(of_node).sum(),
        }
    }

    /// All of it.
    pub(crate) const fn total(&self) -> usize {
        self.frame + self.texts + self.jobs
    }
}

fn frame(row: &BuildRow) -> usize {
    variables(&row.env) + variables(&row.pipeline_env) + each(&row.groups) + each(&row.notify) + row.message.len()
}

fn texts(row: &BuildRow) -> usize {
    of_meta_data(&row.meta_data) + row.annotations.iter().map(of_annotation).sum::<usize>()
}

fn of_job(row: &JobRow) -> usize {
    of_node(&row.node) + row.uploads.iter().map(of_upload).sum::<usize>()
}

/// A job's step; its edges, and whether it is part of its scope, are not counted, so that they may change at any time.
pub(crate) fn of_node(node: &Node) -> usize {
    let Node { label, skip, declared, matrix, notify, kind, .. } = node;
    ROW_BYTES + weigh(&(label, skip, declared, matrix, notify, kind))
}

fn of_upload(upload: &Uploaded) -> usize {
    of_text(upload.bytes)
}

/// An upload's record, with its text of so many bytes, which is a row of its own.
pub(crate) const fn of_text(bytes: usize) -> usize {
    ROW_BYTES + bytes
}

pub(crate) fn of_meta_data(meta_data: &BTreeMap<String, String>) -> usize {
    meta_data.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn of_annotation(annotation: &Annotation) -> usize {
    of_note(&annotation.context, annotation.bytes)
}

/// An annotation of this name with so much text.
pub(crate) fn of_note(context: &str, bytes: usize) -> usize {
    ROW_BYTES + context.len() + bytes
}

fn variables(env: &[(String, String)]) -> usize {
    env.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn each<T: Serialize>(all: &[T]) -> usize {
    all.iter().map(weigh).sum()
}

/// What an upload adds to the build's row, at most.
pub(crate) fn of_growth(groups: &[Group], notify: &[Notify], env: &[(String, String)]) -> usize {
    each(groups) + each(notify) + variables(env)
}

impl Core {
    /// That a build may hold so much more, in the place of so much less.
    pub(crate) fn check_room(&self, id: BuildId, more: usize, less: usize) -> Result<(), Rejected> {
        let total = self.builds.get(&id).map_or(0, |build| build.account.total());
        self.check_bytes(total.saturating_add(more).saturating_sub(less), more > less)
    }

    /// That a build may hold so much; one that does not grow may, whatever an earlier version allowed.
    pub(crate) fn check_bytes(&self, bytes: usize, grows: bool) -> Result<(), Rejected> {
        let limit = self.policy.build_max_bytes;
        if grows && bytes > limit {
            return Err(Rejected::Limit { what: "bytes of one build", limit: limit as u64 });
        }
        Ok(())
    }

    /// Meta-data or annotations of a build have changed.
    pub(crate) fn count_texts(&mut self, id: BuildId) {
        if let Some(build) = self.builds.get_mut(&id) {
            build.account.texts = texts(&build.row);
        }
    }

    /// Variables, groups or notifications of a build have changed.
    pub(crate) fn count_frame(&mut self, id: BuildId) {
        if let Some(build) = self.builds.get_mut(&id) {
            build.account.frame = frame(&build.row);
        }
    }

    /// The jobs of a build hold so much more, and so much less.
    pub(crate) fn count_jobs(&mut self, id: BuildId, more: usize, less: usize) {
        if let Some(build) = self.builds.get_mut(&id).filter(|_| !self.policy.bugs.forget_bytes) {
            build.account.jobs = build.account.jobs + more - less;
        }
    }
}
