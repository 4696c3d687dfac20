//! What of the cache is needed whatever its age: by builds that are not over, and by results that are used again.
//!
//! A build may wait at a gate for weeks; the tree that its jobs will be laid out from stays meanwhile. Told a page at a time, so
//! that nobody waits for it.

use windlass_protocol::job::Source;
use windlass_protocol::limits::ROOTS_PAGE_JOBS;
use windlass_protocol::{BuildId, Digest};

use crate::row::{BuildRows, JobReuse, ReuseName};
use crate::state::Core;

/// What is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A tree, all of it.
    Tree(Digest),
    /// A blob that says what a key is made of.
    Recipe(Digest),
    /// A tree of a result that is there: what its directories name tells people how a later run differs, its files are not
    /// needed for that.
    Inputs(Digest),
}

fn tree(source: &Source) -> Option<Digest> {
    match source {
        Source::Tree { digest } => Some(*digest),
        Source::Empty | Source::Git { .. } => None,
    }
}

impl Core {
    /// What the builds after this one need that are in memory, a page of it; and which was the last, if there may be more.
    #[must_use]
    pub fn roots_of_builds(&self, after: Option<BuildId>) -> (Vec<Root>, Option<BuildId>) {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let (mut roots, mut jobs) = (Vec::new(), 0);
        for (id, build) in self.builds.range((from, std::ops::Bound::Unbounded)) {
            roots.extend(tree(&build.row.origin).map(Root::Tree));
            for job in build.jobs.iter().filter_map(|id| self.jobs.get(id)).filter(|job| !job.row.state.is_final()) {
                let keyed = job.row.reuse.as_ref().and_then(JobReuse::keyed).map(|keyed| &keyed.keyed);
                roots.extend(keyed.and_then(|keyed| tree(&keyed.source)).map(Root::Tree));
                roots.extend(keyed.map(|keyed| Root::Recipe(keyed.recipe)));
            }
            jobs += build.jobs.len() + 1;
            if jobs >= ROOTS_PAGE_JOBS {
                return (deduplicated(roots), Some(*id));
            }
        }
        (deduplicated(roots), None)
    }

    /// The same of results that are used again.
    #[must_use]
    pub fn roots_of_results(&self, after: Option<&ReuseName>) -> (Vec<Root>, Option<ReuseName>) {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut roots = Vec::new();
        let rows = self.reuse.entries.range((from, std::ops::Bound::Unbounded));
        for (count, (name, row)) in (1..).zip(rows) {
            roots.push(Root::Recipe(row.recipe));
            roots.extend(tree(&row.source).map(Root::Inputs));
            if count >= ROOTS_PAGE_JOBS {
                return (deduplicated(roots), Some(name.clone()));
            }
        }
        (deduplicated(roots), None)
    }
}

/// What all of a build needs, whatever has become of its jobs: of one that is pinned. Its rows may have left memory.
#[must_use]
pub fn roots_of_pinned(rows: &BuildRows) -> Vec<Root> {
    let keyed = rows.jobs.iter().filter_map(|job| job.reuse.as_ref().and_then(JobReuse::keyed)).map(|job| &job.keyed);
    let own = tree(&rows.build.origin).map(Root::Tree);
    let of_jobs = keyed.flat_map(|keyed| {
        let inputs = tree(&keyed.source).map(Root::Tree);
        inputs.into_iter().chain([Root::Recipe(keyed.recipe)])
    });
    deduplicated(own.into_iter().chain(of_jobs).collect())
}

/// Jobs of a build, and runs of a step, have most of it in common.
fn deduplicated(mut roots: Vec<Root>) -> Vec<Root> {
    roots.sort_unstable();
    roots.dedup();
    roots
}
