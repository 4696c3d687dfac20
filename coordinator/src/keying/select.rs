//! Which paths of a source a step has declared to read.
//!
//! A glob means files. One whose last name has no wildcard means also all that lies in the directory of this name, and so does
//! `dir/**`. Whatever is declared, the repository's hooks and the plugins that lie in the source are taken too: they decide
//! the result as the command does.

use windlass_pipeline::glob::{Glob, folder_of, is_pattern};
use windlass_protocol::limits::REUSE_GLOB_STEPS_MAX;

/// Where a repository's hooks lie.
const HOOKS: [&str; 2] = [".buildkite/hooks", ".windlass/hooks"];

/// What is taken of a source.
#[derive(Debug)]
pub(super) struct Selection {
    /// Empty: all of it.
    inputs: Vec<Input>,
    /// Directories that are taken though nobody declares them.
    always: Vec<String>,
    /// Looks at states of globs that are left.
    steps_left: u64,
}

/// A declared input.
#[derive(Debug)]
struct Input {
    files: Glob,
    /// Of directories that are taken with all that is in them.
    directories: Option<Glob>,
    /// Above everything that it can mean; empty for the root.
    folder: String,
    matched: bool,
}

/// What is taken of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// All that is in it.
    Whole,
    /// Something of it, perhaps.
    Some,
    /// Nothing.
    Nothing,
}

/// A selection that would take too long to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its globs are too costly for so many files: use fewer wildcards")]
pub(super) struct TooCostly;

impl Selection {
    /// Of these globs, and what they do not have to name. `plugins` are directories of the source.
    ///
    /// # Errors
    /// A text that is no glob, and why.
    pub(super) fn new(globs: &[String], plugins: &[String]) -> Result<Self, String> {
        let inputs = globs.iter().map(|text| Input::parse(text)).collect::<Result<_, _>>()?;
        let plugins = plugins.iter().filter_map(|path| relative(path));
        let always = HOOKS.into_iter().map(str::to_owned).chain(plugins).collect();
        Ok(Self { inputs, always, steps_left: REUSE_GLOB_STEPS_MAX })
    }

    /// Whether nothing is left out.
    pub(super) const fn is_all(&self) -> bool {
        self.inputs.is_empty()
    }

    /// What is taken of a directory, by its path from the root.
    ///
    /// # Errors
    /// [`TooCostly`].
    pub(super) fn directory(&mut self, path: &str) -> Result<Take, TooCostly> {
        if self.is_all() || self.always.iter().any(|always| is_within(path, always)) {
            return Ok(Take::Whole);
        }
        let mut take = Take::Nothing;
        for input in &mut self.inputs {
            if let Some(glob) = &input.directories
                && glob.matches_within(path, &mut self.steps_left).ok_or(TooCostly)?
            {
                take = Take::Whole;
            } else if take == Take::Nothing && (is_within(path, &input.folder) || is_within(&input.folder, path)) {
                take = Take::Some;
            }
        }
        let leads = self.always.iter().any(|always| is_within(always, path));
        Ok(if take == Take::Nothing && leads { Take::Some } else { take })
    }

    /// Whether a file or a link is taken.
    ///
    /// # Errors
    /// [`TooCostly`].
    pub(super) fn file(&mut self, path: &str) -> Result<bool, TooCostly> {
        let mut taken = self.is_all() || self.always.iter().any(|always| is_within(path, always));
        for input in &mut self.inputs {
            // All of them are asked: of each is told whether it means anything.
            if (!taken || !input.matched) && input.files.matches_within(path, &mut self.steps_left).ok_or(TooCostly)? {
                input.matched = true;
                taken = true;
            }
        }
        Ok(taken)
    }

    /// A file lies in a directory that is taken whole: what means it, does mean something.
    ///
    /// # Errors
    /// [`TooCostly`].
    pub(super) fn within_whole(&mut self, path: &str) -> Result<(), TooCostly> {
        for input in self.inputs.iter_mut().filter(|input| !input.matched) {
            let mut matched = input.files.matches_within(path, &mut self.steps_left).ok_or(TooCostly)?;
            if let Some(glob) = &input.directories {
                for (at, _) in path.match_indices('/') {
                    matched = matched || glob.matches_within(&path[..at], &mut self.steps_left).ok_or(TooCostly)?;
                }
            }
            input.matched = matched;
        }
        Ok(())
    }

    /// Whether every glob is known to mean something.
    pub(super) fn all_matched(&self) -> bool {
        self.inputs.iter().all(|input| input.matched)
    }

    /// The globs that mean nothing.
    pub(super) fn unmatched(&self) -> Vec<String> {
        self.inputs.iter().filter(|input| !input.matched).map(|input| input.files.as_str().to_owned()).collect()
    }
}

impl Input {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("./").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let files = Glob::parse(text).map_err(|error| format!("the input `{text}` is no glob: {error}"))?;
        let last = text.rsplit('/').next().unwrap_or(text);
        let directory = match text.strip_suffix("/**") {
            Some(directory) => Some(directory),
            None if !is_pattern(last) && !text.contains('{') => Some(text),
            None => None,
        };
        let directories = directory.and_then(|directory| Glob::parse(directory).ok());
        let folder = if is_pattern(text) { folder_of(text) } else { text };
        Ok(Self { files, directories, folder: folder.to_owned(), matched: false })
    }
}

/// Whether a path is a directory's, or lies in it; everything lies in the root.
fn is_within(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `./plugins/a/` as the source's own paths are.
fn relative(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(globs: &[&str]) -> Selection {
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Selection::new(&globs, &["./vendor/plug/".to_owned(), "../out".to_owned()]).unwrap()
    }

    #[test]
    fn a_directory_is_taken_where_a_glob_can_mean_something_of_it_and_whole_where_it_means_all() {
        for (glob, whole, some, nothing) in [
            ("src", vec!["src", "src/a"], vec![""], vec!["srcs", "lib"]),
            ("src/", vec!["src"], vec![], vec!["lib"]),
            ("./src/**", vec!["src"], vec![], vec!["lib"]),
            ("src/*", vec![], vec!["src", "src/a"], vec!["lib"]),
            ("**/*.c", vec![], vec!["src", "lib/a"], vec![]),
            ("*/test", vec!["a/test"], vec!["a", "a/b"], vec![]),
            ("a/b/c.txt", vec![], vec!["a", "a/b"], vec!["a/bc", "b"]),
            ("{a,b/**}", vec![], vec!["a", "b", "c"], vec![]),
        ] {
            let mut selection = selection(&[glob]);
            for path in whole {
                // Whatever lies below a whole directory is never asked for.
                if path.starts_with("src/") {
                    continue;
                }
                assert_eq!(selection.directory(path), Ok(Take::Whole), "{glob} {path}");
            }
            for path in some {
                assert_eq!(selection.directory(path), Ok(Take::Some), "{glob} {path}");
            }
            for path in nothing {
                assert_eq!(selection.directory(path), Ok(Take::Nothing), "{glob} {path}");
            }
        }
    }

    #[test]
    fn hooks_and_plugins_of_the_source_are_taken_whatever_is_declared() {
        let mut selection = selection(&["x"]);
        for (path, take) in [
            (".buildkite", Take::Some),
            (".buildkite/hooks", Take::Whole),
            (".windlass/hooks", Take::Whole),
            ("vendor", Take::Some),
            ("vendor/plug", Take::Whole),
            ("vendor/other", Take::Nothing),
            ("out", Take::Nothing),
        ] {
            assert_eq!(selection.directory(path), Ok(take), "{path}");
        }
        assert_eq!(selection.file(".buildkite/pipeline.yml"), Ok(false));
        assert_eq!(selection.file("vendor/plug"), Ok(true), "a link in its place");
    }

    #[test]
    fn globs_that_mean_nothing_are_told() {
        let mut selection = selection(&["a/*.c", "b", "none*", "a/x.c"]);
        assert_eq!(selection.file("a/x.c"), Ok(true));
        assert_eq!(selection.file("a/x.h"), Ok(false));
        selection.within_whole("b/c/d").unwrap();
        assert_eq!(selection.unmatched(), ["none*"]);
    }

    #[test]
    fn globs_that_cost_too_much_are_refused_in_good_time() {
        let mut selection = selection(&["{**a,**b,**c,**d}".repeat(200).as_str()]);
        assert_eq!(selection.steps_left, REUSE_GLOB_STEPS_MAX);
        // What is left of them after most of a large source.
        selection.steps_left = 1_000_000;
        let path = "ab/cd".repeat(800);
        let found = (0..100_000).find_map(|_| selection.file(&path).err());
        assert_eq!(found, Some(TooCostly));
    }
}
