//! What a walk leaves out: `.gitignore` files of the directories from the root down, `.git/info/exclude`, and the caller's
//! own patterns. The innermost file that says something decides, in a repository or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use super::Options;
use crate::error::Rejected;

/// What is asked of every name.
#[derive(Debug)]
pub(super) struct Ignored {
    excludes: Override,
    respect_gitignore: bool,
}

/// The files that say something about a directory, the innermost first.
pub(super) type Rules = Option<Arc<Scope>>;

/// One directory that has such files.
#[derive(Debug)]
pub(super) struct Scope {
    gitignore: Gitignore,
    exclude: Gitignore,
    /// Those of outer directories.
    outer: Rules,
}

impl Ignored {
    /// # Errors
    /// [`Rejected::BadPath`] where a pattern does not read.
    pub(super) fn new(root: &Path, options: &Options) -> Result<Self, Rejected> {
        let bad = |reason| Rejected::BadPath { path: root.to_owned(), reason };
        let mut excludes = OverrideBuilder::new(root);
        for pattern in &options.excludes {
            excludes.add(&format!("!{pattern}")).map_err(|_| bad("a pattern to leave out does not read"))?;
        }
        let excludes = excludes.build().map_err(|_| bad("the patterns to leave out do not read"))?;
        Ok(Self { excludes, respect_gitignore: options.respect_gitignore })
    }

    /// The rules within a directory whose names are known.
    pub(super) fn enter<'n>(&self, dir: &Path, outer: &Rules, names: impl Iterator<Item = &'n [u8]>) -> Rules {
        if !self.respect_gitignore {
            return None;
        }
        let (mut has_rules, mut is_repository) = (false, false);
        for name in names {
            has_rules |= name == b".gitignore";
            is_repository |= name == b".git";
        }
        if !has_rules && !is_repository {
            return outer.clone();
        }
        let gitignore = if has_rules { read(dir, &dir.join(".gitignore")) } else { Gitignore::empty() };
        let exclude = match repository(&dir.join(".git")) {
            Some(repository) if is_repository => read(dir, &repository.join("info/exclude")),
            Some(_) | None => Gitignore::empty(),
        };
        Some(Arc::new(Scope { gitignore, exclude, outer: outer.clone() }))
    }

    /// Whether nothing has to be asked in a directory with these rules.
    pub(super) fn takes_all(&self, rules: &Rules) -> bool {
        rules.is_none() && self.excludes.is_empty()
    }

    /// Whether a name stays out.
    pub(super) fn leaves_out(&self, rules: &Rules, path: &Path, is_dir: bool) -> bool {
        match self.excludes.matched(path, is_dir) {
            Match::None => {}
            said => return said.is_ignore(),
        }
        let (mut gitignore, mut exclude) = (Match::None, Match::None);
        let mut scope = rules.as_ref();
        while let Some(inner) = scope {
            if gitignore.is_none() {
                gitignore = inner.gitignore.matched(path, is_dir);
            }
            if exclude.is_none() {
                exclude = inner.exclude.matched(path, is_dir);
            }
            scope = inner.outer.as_ref();
        }
        gitignore.or(exclude).is_ignore()
    }
}

/// The patterns in a file, if it is there; what of it does not read is passed over, as git does.
fn read(dir: &Path, file: &Path) -> Gitignore {
    let mut builder = GitignoreBuilder::new(dir);
    if let Some(error) = builder.add(file)
        && file.exists()
    {
        tracing::debug!(path = %file.display(), %error, "ignore_file_unreadable");
    }
    builder.build().unwrap_or_else(|error| {
        tracing::debug!(path = %file.display(), %error, "ignore_file_unreadable");
        Gitignore::empty()
    })
}

/// Where a repository's own files are: `.git`, or of a further working tree what its file `.git` names.
fn repository(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    let text = fs::read_to_string(git).ok()?;
    let named = git.parent()?.join(text.strip_prefix("gitdir:")?.trim());
    match fs::read_to_string(named.join("commondir")) {
        Ok(common) => Some(named.join(common.trim())),
        Err(_) => Some(named),
    }
}
