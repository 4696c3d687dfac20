//! Where a freed agent looks for work: of each line, builds' first jobs, filed by what tells at once that an agent cannot
//! take them. An agent opens those files alone that it may have something in, and in each the first job that it can take is
//! its best, so that other lines cost it nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{BuildId, JobId, Trust};

use super::{GroupKey, Place, Shape, ShapeId};
use crate::place::has_tag;

/// A tag that is asked for.
type Tag = (String, String);

/// What a file's jobs have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    pub(crate) trust: Trust,
    pub(crate) zone: Option<String>,
    pub(crate) image: bool,
    /// One of the tags that they ask for; those with more are filed under the one that the fewest agents had.
    pub(crate) tag: Option<Tag>,
}

impl Label {
    /// Of jobs of this shape; `held` says how many agents have a tag.
    pub(crate) fn of(shape: &Shape, held: impl Fn(&Tag) -> usize) -> Self {
        let tag = shape.tags.iter().min_by_key(|tag| held(tag)).cloned();
        Self { trust: shape.trust, zone: shape.zone.clone(), image: shape.image, tag }
    }
}

/// The first job of a build in a line: its place in the document, and the line.
type First = (u32, JobId, ShapeId);

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Posting {
    groups: BTreeMap<GroupKey, BTreeSet<First>>,
    /// The turn under which a build's group stands; may be behind the build's own.
    turns: BTreeMap<(i64, BuildId), u64>,
}

impl Posting {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A line's first job of a build is another one, which may be none.
    pub(crate) fn replace(
        &mut self,
        (priority, build): (i64, BuildId),
        turn: u64,
        before: Option<First>,
        after: Option<First>,
    ) {
        let turn = *self.turns.entry((priority, build)).or_insert(turn);
        let key = (Reverse(priority), turn, build);
        let group = self.groups.entry(key).or_default();
        if let Some(before) = before {
            group.remove(&before);
        }
        group.extend(after);
        if group.is_empty() {
            self.groups.remove(&key);
            self.turns.remove(&(priority, build));
        }
    }

    /// Moves builds that were served since behind those that were not, as far as they stand before all others.
    pub(crate) fn settle(&mut self, turn_of: impl Fn(BuildId) -> u64) {
        while let Some((&(priority, stands, build), _)) = self.groups.first_key_value() {
            let turn = turn_of(build);
            if turn == stands {
                return;
            }
            let Some(group) = self.groups.remove(&(priority, stands, build)) else { return };
            self.groups.insert((priority, turn, build), group);
            self.turns.insert((priority.0, build), turn);
        }
    }

    /// Of the jobs that can be taken, the one that is next.
    pub(crate) fn best(
        &self,
        turn_of: impl Fn(BuildId) -> u64,
        takes: impl Fn(JobId, ShapeId) -> bool,
    ) -> Option<Place> {
        let mut best: Option<Place> = None;
        for (&(priority, stands, build), group) in &self.groups {
            // A turn only ever rises: whoever stands behind the best is behind it.
            if best.is_some_and(|best| (best.priority, best.turn, best.build) < (priority, stands, build)) {
                break;
            }
            let first = group.iter().find(|(_, job, line)| takes(*job, *line));
            let place = first.map(|&(index, job, _)| Place { priority, turn: turn_of(build), build, index, job });
            best = best.into_iter().chain(place).min();
        }
        best
    }

    /// Every job that is filed.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = First> {
        self.groups.values().flatten().copied()
    }
}

/// What an agent has a use for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opens<'a> {
    pub(crate) trust: Trust,
    pub(crate) zone: &'a str,
    pub(crate) images: bool,
    pub(crate) tags: &'a [Tag],
}

impl Opens<'_> {
    /// Whether it opens a file.
    pub(crate) fn may(&self, label: &Label) -> bool {
        label.trust == self.trust
            && label.zone.as_ref().is_none_or(|zone| zone == self.zone)
            && (!label.image || self.images)
            && label.tag.as_ref().is_none_or(|tag| has_tag(self.tags, tag))
    }

    /// All that it may open by name, where they are fewer than the files that there are.
    pub(crate) fn labels(&self, files: usize) -> Option<Vec<Label>> {
        let images: &[bool] = if self.images { &[false, true] } else { &[false] };
        if files <= images.len() * 2 * (2 * self.tags.len() + 1) {
            return None;
        }
        let any = self.tags.iter().map(|(name, _)| (name.clone(), "*".to_owned()));
        let tags: BTreeSet<Option<Tag>> = self.tags.iter().cloned().chain(any).map(Some).chain([None]).collect();
        let zones = [None, Some(self.zone.to_owned())];
        let mut labels = Vec::with_capacity(images.len() * zones.len() * tags.len());
        for image in images {
            for zone in &zones {
                let label = |tag: &Option<Tag>| Label {
                    trust: self.trust,
                    zone: zone.clone(),
                    image: *image,
                    tag: tag.clone(),
                };
                labels.extend(tags.iter().map(label));
            }
        }
        Some(labels)
    }
}
