//! Which files a job means by its patterns, and by which paths its build knows them (reference 20.1, 20.2).

use std::collections::BTreeSet;
use std::sync::Arc;

use windlass_cache::tree::is_program;
use windlass_hands::wire::Kind;
use windlass_pipeline::destination::path_in_build;
use windlass_pipeline::glob::{Glob, folder_of, is_pattern};
use windlass_protocol::limits::{
    ARTIFACT_NOTES_MAX, ARTIFACT_WALK_MAX, ARTIFACTS_PER_JOB_MAX, HANDS_PATH_MAX_BYTES, TREE_DEPTH_MAX,
};

use super::account::Account;
use super::hands::{Hands, HandsError};

/// How patterns are read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    /// They are no patterns.
    pub(super) literal: bool,
    /// Linked directories are looked into.
    pub(super) follow: bool,
    /// Links are left out.
    pub(super) skip_links: bool,
}

/// A file that is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    /// Its path in the build.
    pub(super) path: String,
    /// Where it is, as the job's hands reach it.
    pub(super) file: String,
    /// Its length when it was found.
    pub(super) bytes: u64,
    /// Whether its owner might execute it then.
    pub(super) executable: bool,
}

/// What was found, and what people should hear of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Each file once, in order.
    pub(super) files: BTreeSet<Chosen>,
    pub(super) notes: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    #[error(transparent)]
    Hands(#[from] HandsError),
    #[error("invalid glob pattern {pattern:?}: {why}")]
    Pattern { pattern: String, why: String },
    #[error("more than {0} files match")]
    TooMany(usize),
    #[error("more than {0} directory entries lie below the pattern's folders")]
    TooLarge(usize),
}

/// The files that patterns, separated by `delimiter`, describe. What is compared is compared in the job's own turn.
pub(super) async fn find(
    (hands, account): (&mut Hands, &Account),
    patterns: &str,
    delimiter: &str,
    options: Options,
) -> Result<Found, FindError> {
    let mut search = Search { found: Found::default(), options, left: ARTIFACT_WALK_MAX, unsaid: 0 };
    let split: Vec<&str> = if delimiter.is_empty() { vec![patterns] } else { patterns.split(delimiter).collect() };
    for pattern in split.into_iter().map(str::trim).filter(|pattern| !pattern.is_empty()) {
        let pattern = at_home(hands, pattern);
        if options.literal || !is_pattern(&pattern) {
            // `./a` and `a` are the same to a person.
            search.consider(hands, pattern.strip_prefix("./").unwrap_or(&pattern), true).await?;
        } else {
            search.walk(hands, account, &pattern).await?;
        }
    }
    if search.unsaid > 0 {
        search.found.notes.push(format!("{} more directories match, and are not uploaded", search.unsaid));
    }
    Ok(search.found)
}

/// A leading `~` is the job's home.
fn at_home(hands: &Hands, pattern: &str) -> String {
    match (pattern.strip_prefix('~'), hands.environment.get("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => pattern.to_owned(),
    }
}

/// What a path costs beside its bytes, in a list of them.
const PATH_BYTES: usize = 64;

struct Search {
    found: Found,
    options: Options,
    left: usize,
    /// Notes that were not made.
    unsaid: usize,
}

impl Search {
    async fn walk(&mut self, hands: &mut Hands, account: &Account, pattern: &str) -> Result<(), FindError> {
        let bad = |why: String| FindError::Pattern { pattern: pattern.to_owned(), why };
        // `./a` and `a` are the same to a person.
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        let glob = Arc::new(Glob::parse(pattern).map_err(|error| bad(error.message))?);
        let is_plain = !pattern.contains(['*', '?', '[', '{']);
        // What waits to be looked into is all that is kept of what was seen.
        let mut folders = vec![(folder_of(pattern).to_owned(), 0_usize)];
        while let Some((folder, depth)) = folders.pop() {
            if depth > 0 {
                hands.share.shrink(folder.len() + PATH_BYTES);
            }
            let shown = if folder.is_empty() { "." } else { &folder };
            let Some(handle) = hands.open_directory(shown).await? else { continue };
            loop {
                let entries = hands.entries(handle, shown).await?;
                if entries.is_empty() {
                    break;
                }
                self.left = self.left.checked_sub(entries.len()).ok_or(FindError::TooLarge(ARTIFACT_WALK_MAX))?;
                // The names, and the paths that are made of them.
                let held = entries.iter().map(|(name, _)| folder.len() + 2 * name.len() + PATH_BYTES).sum();
                hands.share.grow(held).await?;
                let (glob, above) = (Arc::clone(&glob), folder.clone());
                for (path, kind, is_meant) in account.work(move || compared(&glob, &above, entries)).await? {
                    if is_meant {
                        self.consider(hands, &path, is_plain).await?;
                    }
                    if depth < TREE_DEPTH_MAX && self.descends(hands, &path, kind).await? {
                        hands.share.grow(path.len() + PATH_BYTES).await?;
                        folders.push((path, depth + 1));
                    }
                }
                hands.share.shrink(held);
            }
            hands.close(handle).await?;
        }
        Ok(())
    }

    /// Whether a path is a directory to look into.
    async fn descends(&self, hands: &mut Hands, path: &str, kind: Kind) -> Result<bool, FindError> {
        match kind {
            Kind::Directory => Ok(true),
            Kind::Link if self.options.follow => {
                Ok(hands.stat(path, true).await?.is_some_and(|found| found.kind == Kind::Directory))
            }
            Kind::Link | Kind::File | Kind::Other => Ok(false),
        }
    }

    /// Takes a path that is meant, if it is a file.
    async fn consider(&mut self, hands: &mut Hands, path: &str, is_plain: bool) -> Result<(), FindError> {
        let Some(itself) = hands.stat(path, false).await? else { return Ok(()) };
        if itself.kind == Kind::Link && self.options.skip_links {
            return Ok(());
        }
        // A link that leads nowhere is nothing.
        let Some(found) = hands.stat(path, true).await? else { return Ok(()) };
        match found.kind {
            Kind::File => {
                let directory = String::from_utf8_lossy(&hands.directory).into_owned();
                let chosen = Chosen {
                    path: path_in_build(path, &directory),
                    file: path.to_owned(),
                    bytes: found.bytes,
                    executable: is_program(u32::from(found.mode)),
                };
                hands.share.grow(chosen.path.len() + chosen.file.len() + 2 * PATH_BYTES).await?;
                self.found.files.insert(chosen);
                if self.found.files.len() > ARTIFACTS_PER_JOB_MAX {
                    return Err(FindError::TooMany(ARTIFACTS_PER_JOB_MAX));
                }
            }
            Kind::Directory if is_plain && self.found.notes.len() < ARTIFACT_NOTES_MAX => {
                self.found.notes.push(format!("{path:?} is a directory, and is not uploaded"));
            }
            Kind::Directory if is_plain => self.unsaid += 1,
            Kind::Directory | Kind::Link | Kind::Other => {}
        }
        Ok(())
    }
}

/// The paths of a folder's entries, and which of them a pattern means. What has a longer path than there may be can be neither
/// opened nor named.
fn compared(glob: &Glob, folder: &str, entries: Vec<(Vec<u8>, Kind)>) -> Vec<(String, Kind, bool)> {
    let one = |(name, kind)| {
        let path = path_of(folder, name)?;
        let is_meant = glob.matches(&path);
        Some((path, kind, is_meant))
    };
    entries.into_iter().filter_map(one).collect()
}

/// The path of an entry of a folder, if it has one that can be told.
fn path_of(folder: &str, name: Vec<u8>) -> Option<String> {
    let name = String::from_utf8(name).ok()?;
    let path = match folder {
        "" => name,
        "/" => format!("/{name}"),
        folder => format!("{folder}/{name}"),
    };
    (path.len() <= HANDS_PATH_MAX_BYTES).then_some(path)
}
