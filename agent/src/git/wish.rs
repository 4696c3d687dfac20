//! What is fetched for a job, and the ways to it (reference 18.3).

use windlass_protocol::job::JobSpec;

use super::Who;
use crate::phases::variable;

/// What is fetched for a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) repository: String,
    /// A full commit id, or the name of none: the branch's head.
    pub(crate) commit: String,
    /// A branch's name, a ref's whole one, or none.
    pub(crate) branch: String,
    /// The branch is the name of a tag.
    pub(crate) is_tag: bool,
    /// What to fetch instead of commit and branch.
    pub(crate) refspec: Vec<String>,
    /// The number of a pull request, whose head has the commit.
    pub(crate) pull_request: Option<u64>,
    /// The coordinator found the commit at the head of a pull request, whatever variables say.
    pub(crate) is_pull_request: bool,
    /// So many commits of history; `None` is all of it.
    pub(crate) depth: Option<u32>,
    /// Who asks for it.
    pub(crate) who: Who,
}

/// One way to fetch; the next one is tried where it fails, or does not bring the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) refs: Vec<String>,
    /// Without a depth: all of the history.
    pub(super) whole: bool,
}

/// How the overlay of a build is named that the coordinator found to be of a pull request (docs/design/021).
const PULL_REQUEST: &str = "pr:";

/// Every branch, for servers that serve no single commits.
pub(super) const BRANCHES: &str = "+refs/heads/*:refs/remotes/origin/*";

impl Wish {
    /// Of a job (reference 11.7, 17.2). Its flags for git are not given to the agent's git, which they could make run
    /// anything; what they say of depth is heeded.
    pub(crate) fn of(spec: &JobSpec, repository: &str, commit: &str, branch: &str) -> Self {
        let flags =
            [variable(spec, "BUILDKITE_GIT_CLONE_FLAGS"), variable(spec, "BUILDKITE_GIT_FETCH_FLAGS")].join(" ");
        let given = flags.split_whitespace().filter_map(|flag| flag.strip_prefix("--depth=")?.parse().ok()).next_back();
        let refspec = variable(spec, "BUILDKITE_REFSPEC").split_whitespace().map(str::to_owned).collect();
        Self {
            repository: repository.to_owned(),
            commit: commit.to_owned(),
            branch: branch.to_owned(),
            is_tag: !branch.is_empty() && variable(spec, "BUILDKITE_TAG") == branch,
            refspec,
            pull_request: variable(spec, "BUILDKITE_PULL_REQUEST").parse().ok(),
            is_pull_request: spec.namespace.overlay.as_ref().is_some_and(|name| name.starts_with(PULL_REQUEST)),
            // Flags without a depth are how a step asks for all of the history.
            depth: given.or_else(|| flags.trim().is_empty().then_some(1)),
            who: Who::Agent,
        }
    }

    /// Whether it names a commit by its whole id.
    pub(super) fn is_commit(&self) -> bool {
        windlass_protocol::hex::is_commit_id(&self.commit)
    }

    pub(super) fn target(&self) -> String {
        if self.is_commit() { self.commit.clone() } else { "FETCH_HEAD".to_owned() }
    }

    /// The branch by its whole name, so that no tag of its name is taken for it; the repository's HEAD where there is none.
    pub(super) fn reference(&self) -> String {
        match self.branch.as_str() {
            "" | "HEAD" => "HEAD".to_owned(),
            whole if whole.starts_with("refs/") => whole.to_owned(),
            tag if self.is_tag => format!("refs/tags/{tag}"),
            branch => format!("refs/heads/{branch}"),
        }
    }

    /// How it is fetched, the cheapest way first (reference 18.3).
    pub(super) fn ways(&self) -> Vec<Way> {
        let way = |refs: &[&str], whole: bool| Way { refs: refs.iter().map(|r| (*r).to_owned()).collect(), whole };
        let all = way(&["--tags", BRANCHES], true);
        if !self.refspec.is_empty() {
            let given = Way { refs: self.refspec.clone(), whole: false };
            return if self.is_commit() { vec![given.clone(), Way { whole: true, ..given }, all] } else { vec![given] };
        }
        let branch = self.reference();
        match (self.pull_request, self.is_commit()) {
            (Some(number), true) => {
                let head = format!("refs/pull/{number}/head");
                vec![way(&[&head, &self.commit], false), way(&[&self.commit], false), way(&[&head], true), all]
            }
            (Some(number), false) => vec![way(&[&format!("refs/pull/{number}/head")], false), way(&[&branch], false)],
            (None, true) => vec![way(&[&self.commit], false), all],
            (None, false) => vec![way(&[&branch], false)],
        }
    }
}

pub(super) fn fetch_words(wish: &Wish, way: &Way, from: &str) -> Vec<String> {
    let mut words = ["fetch", "--quiet", "--no-recurse-submodules"].map(str::to_owned).to_vec();
    if let Some(depth) = wish.depth.filter(|_| !way.whole) {
        words.push(format!("--depth={depth}"));
    }
    // Options stand before the repository.
    let (options, refs): (Vec<_>, Vec<_>) = way.refs.iter().cloned().partition(|word| word.starts_with("--"));
    words.extend(options);
    words.push(from.to_owned());
    words.extend(refs);
    words
}
