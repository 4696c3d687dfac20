//! Which commits the plugins of a step are: a tag may be moved, and an agent may have cloned it before that (docs/design/030).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use windlass_coordinator_core::row::KeySubject;
use windlass_pipeline::plugin::{self, Place, Plugin};
use windlass_protocol::limits::{PLUGIN_KEPT_MS, PLUGINS_KEPT_MAX};
use windlass_protocol::{Trust, hex};

use super::remembered::Remembered;
use crate::definitions::{Asker, Definitions};

/// The repositories of plugins whose tags and branches are asked for: a step's text names them, and a coordinator is no way into
/// its operator's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRepositories(Vec<String>);

impl Default for PluginRepositories {
    fn default() -> Self {
        Self(vec!["https://github.com/".to_owned()])
    }
}

/// A text that is no beginning of a repository's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the beginning of a URL that ends with a slash, such as https://github.com/acme/")]
pub struct BadPrefix(String);

impl PluginRepositories {
    /// Those whose URLs begin so; every prefix ends with a slash, after a host or a directory.
    ///
    /// # Errors
    /// [`BadPrefix`].
    pub fn new(prefixes: Vec<String>) -> Result<Self, BadPrefix> {
        let good = |text: &str| {
            let rest = text.split_once("://").map(|(scheme, rest)| (scheme, rest.trim_start_matches('/')));
            rest.is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) && text.ends_with('/')
        };
        match prefixes.iter().find(|text| !good(text) || !is_plain(text)) {
            Some(bad) => Err(BadPrefix(bad.clone())),
            None => Ok(Self(prefixes)),
        }
    }

    fn hold(&self, url: &str) -> bool {
        is_plain(url) && self.0.iter().any(|prefix| url.starts_with(prefix))
    }
}

/// Whether a URL is what it looks like: nothing in it leads elsewhere.
fn is_plain(url: &str) -> bool {
    !url.chars().any(|letter| letter.is_control() || letter.is_whitespace() || "%\\@?#".contains(letter))
        && url.split('/').all(|part| !matches!(part, "." | ".."))
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    asker: Asker,
    url: String,
    version: Option<String>,
}

/// Its answer, which all wait for that ask meanwhile.
#[derive(Debug)]
struct Answer {
    at: Instant,
    commit: OnceCell<Result<String, String>>,
}

/// Finds out commits, and remembers them for a moment: the steps of a build start together.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    repositories: PluginRepositories,
    answers: Mutex<Remembered<Asked, Arc<Answer>>>,
}

impl Plugins {
    pub(super) fn new(repositories: PluginRepositories) -> Self {
        Self { repositories, answers: Mutex::default() }
    }

    /// The commit of each plugin that its step names otherwise, by its source as it stands there.
    pub(super) async fn find(
        &self,
        definitions: &Definitions,
        subject: &KeySubject,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut commits = BTreeMap::new();
        for plugin in of(subject)? {
            let Place::Repository { url, .. } = plugin.place().map_err(|error| error.to_string())? else { continue };
            if plugin.version.as_deref().is_some_and(hex::is_commit_id) || commits.contains_key(&plugin.source()) {
                continue;
            }
            let (source, advice) = (plugin.source(), "name it by its commit's whole id, or put it into the source");
            if !self.repositories.hold(&url) {
                return Err(format!(
                    "what the plugin `{source}` is may change, and `reuse.plugins` does not say to ask for it: {advice}"
                ));
            }
            let asker = match subject.namespace.trust() {
                Trust::Trusted => Asker::Operator,
                Trust::Untrusted => Asker::Nobody,
            };
            let commit = self.ask(definitions, Asked { asker, url, version: plugin.version }).await;
            let commit = commit.map_err(|error| format!("which commit the plugin `{source}` is: {error}; {advice}"))?;
            commits.insert(source, commit);
        }
        Ok(commits)
    }

    async fn ask(&self, definitions: &Definitions, asked: Asked) -> Result<String, String> {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = Duration::from_millis(PLUGIN_KEPT_MS);
            match answers.get(&asked).filter(|answer| answer.at.elapsed() < kept) {
                Some(known) => Arc::clone(known),
                None => {
                    let answer = Arc::new(Answer { at: Instant::now(), commit: OnceCell::new() });
                    answers.put(asked.clone(), Arc::clone(&answer), PLUGINS_KEPT_MAX);
                    answer
                }
            }
        };
        let found = answer.commit.get_or_init(|| async {
            let commit = definitions.resolve(&asked.url, asked.version.as_deref(), asked.asker).await;
            commit.map_err(|error| error.to_string())
        });
        found.await.clone()
    }
}

/// The plugins of a step.
pub(super) fn of(subject: &KeySubject) -> Result<Vec<Plugin>, String> {
    Plugin::list(&plugin::text(&subject.command.plugins)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_asked_for_only_where_its_url_begins_as_an_operator_says() {
        let usual = PluginRepositories::default();
        let own =
            PluginRepositories::new(vec!["https://git.corp/ci/".to_owned(), "file:///srv/git/".to_owned()]).unwrap();
        assert!(
            usual.hold("https://github.com/a/b") && own.hold("https://git.corp/ci/p") && own.hold("file:///srv/git/p")
        );
        for foreign in [
            "https://github.com.evil/a/b",
            "http://github.com/a/b",
            "https://github.com/../x",
            "https://github.com/%2e%2e/x",
            "https://github.com/@10.0.0.1/x",
            "git@github.com:a/b",
            "https://10.0.0.1/a",
            "/etc",
            "https://github.com/a\nb",
        ] {
            assert!(!usual.hold(foreign), "{foreign:?}");
        }
        assert!(!own.hold("https://git.corp/other/p") && !own.hold("https://github.com/a/b"));
        for bad in ["", "https://", "https:///", "github.com/", "https://github.com", "https://a/../b/", "https://u@a/"]
        {
            assert!(PluginRepositories::new(vec![bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
