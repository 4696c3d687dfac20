//! A role's TOML file, and everything that is wrong with it at once.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::error::Failure;

/// What is wrong with a configuration; a start tells all of it.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Failure>);

impl Problems {
    /// What a setting gives, if it is good.
    pub(crate) fn take<T>(&mut self, found: Result<T, Failure>) -> Option<T> {
        found.map_err(|problem| self.0.push(problem)).ok()
    }

    /// `whole`, if nothing is wrong.
    pub(crate) fn or<T>(mut self, whole: T) -> Result<T, Failure> {
        match self.0.len() {
            0 => Ok(whole),
            1 => Err(self.0.remove(0)),
            several => {
                let mut failure = Failure::usage(format!("{several} things are wrong with the configuration"));
                failure.causes = self.0.into_iter().map(|problem| problem.what).collect();
                Err(failure)
            }
        }
    }
}

/// The TOML file of a role: the one that is named, else the first of the usual places that exists. What it says well is
/// given, and what not goes to `problems`.
pub(crate) fn read<T>(named: Option<&Path>, role: &str, problems: &mut Problems) -> T
where
    T: DeserializeOwned + Default,
{
    let usual = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        [home.join(format!(".config/windlass/{role}.toml")), PathBuf::from(format!("/etc/windlass/{role}.toml"))]
            .into_iter()
            .find(|path| path.exists())
    };
    let Some(path) = named.map(Path::to_owned).or_else(usual) else { return T::default() };
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Failure::system(format!("the configuration {} cannot be read", path.display()), &e));
    let Some(text) = problems.take(text) else { return T::default() };
    match toml::from_str(&text) {
        Ok(file) => file,
        Err(first) => {
            let mut found = wrong_in::<T>(&text);
            if found.is_empty() {
                found.push((first.span().map_or(1, |span| line_at(&text, span.start)), first.message().to_owned()));
            }
            let at = path.display();
            problems.0.extend(found.into_iter().map(|(line, what)| Failure::usage(format!("{at}:{line}: {what}"))));
            T::default()
        }
    }
}

/// Lines and what is wrong there: all errors of syntax, else those of every key for itself.
fn wrong_in<T: DeserializeOwned>(text: &str) -> Vec<(usize, String)> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let line = |error: &toml::de::Error| error.span().map_or(1, |span| line_at(text, span.start));
        return errors.iter().map(|error| (line(error), error.message().to_owned())).collect();
    }
    let Ok(values) = toml::from_str::<toml::Table>(text) else { return Vec::new() };
    let mut wrong: Vec<_> = table
        .get_ref()
        .keys()
        .filter_map(|key| {
            let name: &str = key.get_ref();
            let alone = toml::Table::from_iter([(name.to_owned(), values.get(name)?.clone())]);
            let error = T::deserialize(alone).err()?;
            let line = line_at(text, key.span().start);
            let what = error.message().to_owned();
            Some((line, if what.contains(name) { what } else { format!("`{name}`: {what}") }))
        })
        .collect();
    wrong.sort();
    wrong
}

/// The line, from 1, of a byte of a text.
fn line_at(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use windlass_coordinator::config::ConfigFile;

    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let mut problems = Problems::default();
        let _: ConfigFile = read(Some(&path), "coordinator", &mut problems);
        let at = format!("{}:", path.display());
        problems.0.into_iter().map(|problem| problem.what.replace(&at, "")).collect()
    }

    #[test]
    fn every_wrong_key_is_told_with_its_line() {
        assert_eq!(problems_of("data = '/x'\nretention_days = 3\n"), [""; 0]);
        let wrong = problems_of("liste = 1\ndata = '/x'\nretention_days = 'three'\n\nlisten = 'nowhere'\n");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("1: unknown field `liste`"), "{wrong:?}");
        assert!(wrong[1].starts_with("3: `retention_days`: invalid type"), "{wrong:?}");
        assert!(wrong[2].starts_with("5: `listen`: invalid socket address"), "{wrong:?}");
    }

    #[test]
    fn every_error_of_syntax_is_told_with_its_line() {
        let wrong = problems_of("data = \nretention_days = 3\nlisten = '1\n");
        assert_eq!(wrong.iter().map(|what| &what[..2]).collect::<Vec<_>>(), ["1:", "3:"], "{wrong:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_and_not_a_default() {
        let mut problems = Problems::default();
        let _: ConfigFile = read(Some(Path::new("/nowhere/c.toml")), "coordinator", &mut problems);
        assert!(problems.or(()).unwrap_err().what.contains("/nowhere/c.toml"));
    }

    /// The names that a table takes, out of what it says of one that it does not.
    fn keys_of<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> Vec<String> {
        let told = toml::from_str::<T>(text).unwrap_err().message().to_owned();
        let listed = told.split_once("expected one of ").or_else(|| told.split_once("expected "));
        let (_, known) = listed.unwrap_or_else(|| panic!("{told}"));
        known.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn the_page_of_the_configuration_has_every_key_and_no_other() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
        let (coordinator, agent) = page.split_once("## `agent.toml`").unwrap();
        let rows = |part: &str| -> Vec<String> {
            let keys = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
            keys.map(|(key, _)| key.to_owned()).collect()
        };
        let below = |table: &str, keys: Vec<String>| keys.into_iter().map(|key| format!("{table}.{key}")).collect();
        let notify: Vec<String> = below("notify", keys_of::<ConfigFile>("[notify]\nnonsense = 1"));
        let github: Vec<String> = below("notify.github", keys_of::<ConfigFile>("[[notify.github]]\nnonsense = 1"));
        let reuse: Vec<String> = below("reuse", keys_of::<ConfigFile>("[reuse]\nnonsense = 1"));
        let bucket: Vec<String> = below("bucket", keys_of::<ConfigFile>("[bucket]\nnonsense = 1"));
        let policy: Vec<String> = below("cache_policy", keys_of::<ConfigFile>("[cache_policy]\nnonsense = 1"));
        let known = [keys_of::<ConfigFile>("nonsense = 1"), notify, github, reuse, policy, bucket].concat();
        assert_eq!(rows(coordinator), known);
        let reuse = below("reuse", keys_of::<windlass_agent::config::ConfigFile>("[reuse]\nnonsense = 1"));
        assert_eq!(rows(agent), [keys_of::<windlass_agent::config::ConfigFile>("nonsense = 1"), reuse].concat());
    }
}
