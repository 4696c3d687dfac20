//! The variables and the directory of a job's next phases: what its commands change, kept until they take hold.
//!
//! They lie in `jobs/<attempt>/changes`, which outlives the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use windlass_hands::plan::Surroundings;
use windlass_protocol::Cause;
use windlass_protocol::limits::{ENV_MAX_BYTES, ENV_VARS_MAX, HANDS_PATH_MAX_BYTES};

/// Variables that neither commands nor hooks of a job may change (reference 17.4).
const PROTECTED: &[&str] = &[
    "BUILDKITE_ADDITIONAL_HOOKS_PATHS",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_DEBUG",
    "BUILDKITE_AGENT_ENDPOINT",
    "BUILDKITE_AGENT_JOB_TIMEOUT_FILE",
    "BUILDKITE_AGENT_PID",
    "BUILDKITE_BIN_PATH",
    "BUILDKITE_BUILD_PATH",
    "BUILDKITE_CHECKOUT_OVERRIDE_MODE",
    "BUILDKITE_COMMAND_EVAL",
    "BUILDKITE_CONFIG_PATH",
    "BUILDKITE_CONTAINER_COUNT",
    "BUILDKITE_GIT_CLONE_MIRROR_FLAGS",
    "BUILDKITE_GIT_MIRRORS_LOCK_TIMEOUT",
    "BUILDKITE_GIT_MIRRORS_PATH",
    "BUILDKITE_GIT_MIRRORS_SKIP_UPDATE",
    "BUILDKITE_GIT_MIRROR_CHECKOUT_MODE",
    "BUILDKITE_GIT_SUBMODULE_CLONE_CONFIG",
    "BUILDKITE_HOOKS_PATH",
    "BUILDKITE_HOOKS_SHELL",
    "BUILDKITE_KUBERNETES_EXEC",
    "BUILDKITE_LOCAL_HOOKS_ENABLED",
    "BUILDKITE_PLUGINS_ENABLED",
    "BUILDKITE_PLUGINS_PATH",
    "BUILDKITE_SHELL",
    "BUILDKITE_SSH_KEYSCAN",
    "WINDLASS_JOB_SOCKET",
];

/// Whether nothing in a job may change a variable.
pub(crate) fn is_protected(name: &str) -> bool {
    PROTECTED.contains(&name)
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// Names that nobody may change.
    #[error("the following environment variables are protected, and cannot be modified: [{}]", .0.join(" "))]
    Protected(Vec<String>),
    /// No variable can have this name or value.
    #[error("{0:?} is not the name of a variable, or its value holds a zero byte")]
    NoVariable(String),
    /// More than a job may have.
    #[error("a job has at most {ENV_VARS_MAX} variables of {ENV_MAX_BYTES} bytes together")]
    TooMuch,
    /// No path is so long.
    #[error("a directory's path has at most {HANDS_PATH_MAX_BYTES} bytes")]
    TooLong,
    /// It could not be written down.
    #[error("the change cannot be written down: {0}")]
    Disk(#[from] io::Error),
}

/// The file's name in an attempt's directory.
const NAME: &str = "changes";

/// What was changed, as it lies on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// New values; `None` takes the variable away.
    #[serde(default)]
    variables: BTreeMap<String, Option<String>>,
    /// Where the next phases begin.
    #[serde(default)]
    directory: Option<String>,
    /// Which of its phases failed.
    #[serde(default)]
    failure: Option<Cause>,
}

/// A job's variables as its next phase will see them, and how they came to be so.
#[derive(Debug)]
pub(crate) struct Changes {
    path: PathBuf,
    first: BTreeMap<String, String>,
    noted: Mutex<Noted>,
    /// Held by who makes a change: the disk may be slow, and who only looks does not wait for it.
    changing: Mutex<()>,
}

/// What became of the variables that were set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Set {
    pub(crate) added: Vec<String>,
    pub(crate) updated: Vec<String>,
}

impl Changes {
    /// Those of the attempt with this directory, whose first phase has these variables.
    pub(crate) fn load(dir: &Path, first: impl IntoIterator<Item = (String, String)>) -> io::Result<Self> {
        let path = dir.join(NAME);
        let noted = noted(&path)?;
        Ok(Self { path, first: first.into_iter().collect(), noted: Mutex::new(noted), changing: Mutex::new(()) })
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All variables, as the next phase will have them.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        merged(&self.first, &self.lock())
    }

    /// What a phase has otherwise than the first one.
    pub(crate) fn since_the_start(&self) -> Surroundings {
        let noted = self.lock();
        let environment = noted.variables.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={value}").into_bytes(),
            None => name.clone().into_bytes(),
        });
        let directory = noted.directory.clone().unwrap_or_default().into_bytes();
        Surroundings { directory, environment: environment.collect() }
    }

    /// Takes over what a phase changed, but for what nobody may change: those names are given back.
    pub(crate) fn carry(
        &self,
        set: BTreeMap<String, String>,
        gone: Vec<String>,
        directory: Option<String>,
    ) -> Result<Vec<String>, ChangeError> {
        let all = set.into_iter().map(|(name, value)| (name, Some(value)));
        let all = all.chain(gone.into_iter().map(|name| (name, None)));
        let (kept, dropped): (Vec<_>, Vec<_>) = all.partition(|(name, _)| !is_protected(name));
        self.change(|_, noted| {
            noted.variables.extend(kept);
            noted.directory = directory.or_else(|| noted.directory.take());
        })?;
        Ok(dropped.into_iter().map(|(name, _)| name).collect())
    }

    /// Notes which phase of the job failed; the first one stands.
    pub(crate) fn note_failure(&self, cause: Cause) -> Result<(), ChangeError> {
        self.change(|_, noted| {
            noted.failure.get_or_insert(cause);
        })
    }

    /// Which phase failed of the attempt with this directory.
    pub(crate) fn failure(dir: &Path) -> io::Result<Option<Cause>> {
        Ok(noted(&dir.join(NAME))?.failure)
    }

    /// Sets variables: all of them, or none. Blocks, as all that changes something does.
    pub(crate) fn set(&self, values: BTreeMap<String, String>) -> Result<Set, ChangeError> {
        permitted(values.keys())?;
        if let Some((name, _)) = values.iter().find(|(name, value)| !is_variable(name, value)) {
            return Err(ChangeError::NoVariable(name.clone()));
        }
        self.change(|before, noted| {
            let mut set = Set::default();
            for (name, value) in values {
                let list = if before.contains_key(&name) { &mut set.updated } else { &mut set.added };
                list.push(name.clone());
                noted.variables.insert(name, Some(value));
            }
            set
        })
    }

    /// Takes variables away; those that there were.
    pub(crate) fn unset(&self, names: Vec<String>) -> Result<Vec<String>, ChangeError> {
        permitted(names.iter())?;
        self.change(|before, noted| {
            let mut unset: Vec<String> = names.into_iter().filter(|name| before.contains_key(name)).collect();
            unset.sort();
            unset.dedup();
            noted.variables.extend(unset.iter().map(|name| (name.clone(), None)));
            unset
        })
    }

    /// Sets where the next phases begin.
    pub(crate) fn set_directory(&self, directory: String) -> Result<(), ChangeError> {
        if directory.len() > HANDS_PATH_MAX_BYTES {
            return Err(ChangeError::TooLong);
        }
        self.change(|_, noted| noted.directory = Some(directory))
    }

    /// Makes a change once it is written down. Blocks.
    fn change<T>(&self, make: impl FnOnce(&BTreeMap<String, String>, &mut Noted) -> T) -> Result<T, ChangeError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = self.lock().clone();
        let made = make(&merged(&self.first, &changed), &mut changed);
        let after = merged(&self.first, &changed);
        let bytes: usize = after.iter().map(|(name, value)| name.len() + value.len()).sum();
        let taken = changed.variables.keys().map(String::len).sum::<usize>();
        if after.len().max(changed.variables.len()) > ENV_VARS_MAX || bytes.max(taken) > ENV_MAX_BYTES {
            return Err(ChangeError::TooMuch);
        }
        let fresh = self.path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(&changed).map_err(io::Error::other)?)?;
        fs::rename(&fresh, &self.path)?;
        *self.lock() = changed;
        Ok(made)
    }
}

fn noted(path: &Path) -> io::Result<Noted> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::default()),
        Err(error) => Err(error),
    }
}

fn merged(first: &BTreeMap<String, String>, noted: &Noted) -> BTreeMap<String, String> {
    let mut all = first.clone();
    for (name, value) in &noted.variables {
        match value {
            Some(value) => all.insert(name.clone(), value.clone()),
            None => all.remove(name),
        };
    }
    all
}

fn permitted<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), ChangeError> {
    let protected: Vec<String> = names.filter(|name| is_protected(name)).cloned().collect();
    if protected.is_empty() { Ok(()) } else { Err(ChangeError::Protected(protected)) }
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn changes_are_there_after_the_agent_s_death() {
        let dir = tempfile::tempdir().unwrap();
        let first = [pair("A", "1"), pair("B", "2")];
        let changes = Changes::load(dir.path(), first.clone()).unwrap();
        let set = changes.set([pair("B", "two"), pair("C", "3")].into()).unwrap();
        assert_eq!(set, Set { added: vec!["C".into()], updated: vec!["B".into()] });
        assert_eq!(changes.unset(vec!["A".into(), "Z".into(), "A".into()]).unwrap(), ["A"]);
        changes.set_directory("/elsewhere".to_owned()).unwrap();
        drop(changes);
        let again = Changes::load(dir.path(), first).unwrap();
        assert_eq!(again.variables(), [pair("B", "two"), pair("C", "3")].into());
        assert_eq!(again.since_the_start().directory, b"/elsewhere");
        let long = "x".repeat(HANDS_PATH_MAX_BYTES + 1);
        assert!(matches!(again.set_directory(long), Err(ChangeError::TooLong)));
    }

    #[test]
    fn a_hook_changes_all_but_what_is_protected() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::load(dir.path(), [pair("A", "1"), pair("BUILDKITE_SHELL", "sh")]).unwrap();
        let set = [pair("B", "2=3"), pair("BUILDKITE_HOOKS_PATH", "/x")].into();
        let gone = vec!["A".to_owned(), "IN_THE_IMAGE".to_owned(), "BUILDKITE_SHELL".to_owned()];
        let dropped = changes.carry(set, gone, Some("/sub".to_owned())).unwrap();
        assert_eq!(dropped, ["BUILDKITE_HOOKS_PATH", "BUILDKITE_SHELL"]);
        changes.carry(BTreeMap::new(), Vec::new(), None).unwrap();
        let next = changes.since_the_start();
        let wanted: [&[u8]; 3] = [b"A", b"B=2=3", b"IN_THE_IMAGE"];
        assert_eq!(
            (next.directory.as_slice(), next.environment),
            (b"/sub".as_slice(), wanted.map(<[u8]>::to_vec).to_vec())
        );
        assert_eq!(changes.variables(), [pair("B", "2=3"), pair("BUILDKITE_SHELL", "sh")].into());
        let cause = |detail: &str| Cause::new(windlass_protocol::cause::CauseKind::HookFailed, detail);
        assert_eq!(Changes::failure(dir.path()).unwrap(), None);
        changes.note_failure(cause("first")).unwrap();
        changes.note_failure(cause("second")).unwrap();
        assert_eq!(Changes::failure(dir.path()).unwrap(), Some(cause("first")));
    }

    #[test]
    fn all_variables_are_set_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::load(dir.path(), []).unwrap();
        let refused = changes.set([pair("A", "1"), pair("BUILDKITE_SHELL", "x")].into()).unwrap_err();
        let words = "the following environment variables are protected, and cannot be modified: [BUILDKITE_SHELL]";
        assert_eq!(refused.to_string(), words);
        assert!(matches!(changes.set([pair("A", "1"), pair("B=C", "x")].into()), Err(ChangeError::NoVariable(_))));
        let much = pair("A", &"x".repeat(ENV_MAX_BYTES));
        assert!(matches!(changes.set([much].into()), Err(ChangeError::TooMuch)));
        assert_eq!(changes.variables(), BTreeMap::new());
        assert!(matches!(changes.unset(vec!["BUILDKITE_BIN_PATH".into()]), Err(ChangeError::Protected(_))));
    }
}
