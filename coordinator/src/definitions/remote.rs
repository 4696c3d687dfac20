//! What a name of a repository stands for now, asked of its server: nothing is brought, and nothing kept.

use std::time::Duration;

use tokio::process::Command;
use windlass_git::credentials::without_secrets;
use windlass_git::{Bounds, Identity, settings};
use windlass_protocol::hex;
use windlass_protocol::limits::{PLUGIN_ASK_MS, PLUGIN_SAID_MAX_BYTES};

use super::mirror::{INHERITED, Reach};
use super::reference::Reference;
use super::{DefinitionError, Definitions};

/// As whom a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// As nobody: what anybody may know.
    Nobody,
    /// As nobody, and where a server tells nobody, by the operator's credentials.
    Operator,
}

impl Definitions {
    /// The commit that a version of a repository is: a tag, else a branch, as git takes names; the repository's HEAD without
    /// one.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub(crate) async fn resolve(
        &self,
        repository: &str,
        version: Option<&str>,
        asker: Asker,
    ) -> Result<String, DefinitionError> {
        let reach = &self.0.reach;
        reach.protocols.check(repository)?;
        let names = names(version)?;
        let said = match (list(reach, repository, &names, Identity::Nobody).await, asker) {
            (Err(DefinitionError::Unreachable { .. }), Asker::Operator) => {
                list(reach, repository, &names, Identity::Operator(&reach.credentials)).await?
            }
            (said, _) => said?,
        };
        let found = names.iter().find_map(|name| commit_of(&said, name));
        found.ok_or_else(|| DefinitionError::NoSuchReference(version.unwrap_or("HEAD").to_owned()))
    }
}

/// What a version may be called, the first that there is counts: a tag's commit and not the tag itself.
fn names(version: Option<&str>) -> Result<Vec<String>, DefinitionError> {
    let Some(version) = version else { return Ok(vec!["HEAD".to_owned()]) };
    let (tag, branch) = (Reference::tag(version)?, Reference::branch(version)?);
    if version.starts_with("refs/") {
        return Ok(vec![format!("{}^{{}}", branch.as_str()), branch.as_str().to_owned()]);
    }
    Ok(vec![format!("{}^{{}}", tag.as_str()), tag.as_str().to_owned(), branch.as_str().to_owned()])
}

/// The id beside a name.
fn commit_of(said: &str, name: &str) -> Option<String> {
    let mut lines = said.lines().filter_map(|line| line.split_once('\t'));
    let (id, _) = lines.find(|(id, known)| *known == name && hex::is_commit_id(id))?;
    Some(id.to_owned())
}

async fn list(
    reach: &Reach,
    repository: &str,
    names: &[String],
    identity: Identity<'_>,
) -> Result<String, DefinitionError> {
    let mut command = Command::new("git");
    let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    // Not in whatever repository this program was started in.
    command.current_dir("/").env_clear().envs(inherited).env("LC_ALL", "C");
    // A server that is asked sends nobody on to another one.
    command.args(["-c", "http.followRedirects=false"]);
    let secrets = reach.credentials.secrets().map_err(DefinitionError::fault("the git credentials cannot be read"))?;
    settings::settle(&mut command, &reach.protocols, identity);
    let asks = ["ls-remote", "--quiet", "--", repository];
    let arguments: Vec<&str> = asks.into_iter().chain(names.iter().map(String::as_str)).collect();
    let bounds =
        Bounds { deadline: Some(Duration::from_millis(PLUGIN_ASK_MS)), output_max_bytes: PLUGIN_SAID_MAX_BYTES };
    match windlass_git::run(command, &arguments, bounds).await {
        Ok(said) => Ok(String::from_utf8_lossy(&said).into_owned()),
        Err(error) => Err(match DefinitionError::of_fetch(error) {
            DefinitionError::Unreachable { said } => {
                DefinitionError::Unreachable { said: without_secrets(&said, &secrets) }
            }
            other => other,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "1111111111111111111111111111111111111111\trefs/heads/v1\n\
                        2222222222222222222222222222222222222222\trefs/tags/v1\n\
                        3333333333333333333333333333333333333333\trefs/tags/v1^{}\n\
                        nonsense\trefs/tags/v2\n\
                        4444444444444444444444444444444444444444\trefs/remotes/x/refs/tags/v3\n";

    fn found(version: Option<&str>) -> Option<char> {
        let names = names(version).unwrap();
        names.iter().find_map(|name| commit_of(SAID, name)).and_then(|id| id.chars().next())
    }

    #[test]
    fn a_tags_commit_comes_before_the_tag_and_a_tag_before_a_branch_of_its_name() {
        assert_eq!(found(Some("v1")), Some('3'));
        assert_eq!(found(Some("refs/heads/v1")), Some('1'));
        assert_eq!(found(Some("refs/tags/v1")), Some('3'));
        assert_eq!((found(Some("v2")), found(Some("v3")), found(None)), (None, None, None));
        for bad in ["", "a b", "v*", "--upload-pack=x y", "a..b"] {
            assert!(names(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
