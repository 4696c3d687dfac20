//! By which protocols repositories are fetched: the operator's choice, not the submitter's.

use std::collections::BTreeSet;
use std::str::FromStr;

use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;

/// A way to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GitProtocol {
    /// HTTP over TLS.
    Https,
    /// SSH: `ssh://`, `git+ssh://`, `ssh+git://` and `host:path`.
    Ssh,
    /// HTTP in the clear: whoever is on the way reads credentials and changes what is fetched.
    Http,
    /// Git's own, in the clear and without credentials.
    Git,
    /// A path of the agent's machine: whatever the agent's user may read there.
    File,
}

impl GitProtocol {
    const ALL: [Self; 5] = [Self::Https, Self::Ssh, Self::Http, Self::Git, Self::File];

    /// As git names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Git => "git",
            Self::File => "file",
        }
    }
}

/// A word that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no protocol that agents fetch by: it is https, ssh, http, git or file")]
pub struct NoProtocol(String);

impl FromStr for GitProtocol {
    type Err = NoProtocol;

    fn from_str(text: &str) -> Result<Self, NoProtocol> {
        let name = match text {
            "git+ssh" | "ssh+git" => "ssh",
            other => other,
        };
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or_else(|| NoProtocol(text.to_owned()))
    }
}

/// The protocols that an agent fetches by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitProtocols(BTreeSet<GitProtocol>);

impl Default for GitProtocols {
    /// Those that prove whom they fetch from, and that reach nothing of the agent's machine.
    fn default() -> Self {
        Self([GitProtocol::Https, GitProtocol::Ssh].into())
    }
}

impl FromIterator<GitProtocol> for GitProtocols {
    fn from_iter<I: IntoIterator<Item = GitProtocol>>(protocols: I) -> Self {
        Self(protocols.into_iter().collect())
    }
}

impl GitProtocols {
    /// Refuses a repository before git hears of it.
    pub(super) fn admit(&self, repository: &str) -> Result<(), Cause> {
        let refused = |why: String| {
            let allowed = self.0.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", ");
            let detail =
                format!("{why}: this agent fetches by {allowed}; its operator can allow more with --git-protocol");
            Err(Cause::new(CauseKind::RefusedByPolicy, detail))
        };
        match protocol_of(repository) {
            Ok(protocol) if self.0.contains(&protocol) => Ok(()),
            Ok(GitProtocol::File) => refused("the repository is a path of the agent's machine (file)".to_owned()),
            Ok(protocol) => refused(format!("the repository is fetched by {}", protocol.name())),
            Err(name) => refused(format!("the repository is fetched by `{name}`")),
        }
    }

    /// For `GIT_ALLOW_PROTOCOL`: holds for redirections and for what the agent's own configuration makes of a URL, too.
    pub(super) fn for_fetching(&self) -> String {
        self.0.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(":")
    }

    /// The same for submodules, which a tree names and not its submitter: never a path of this machine.
    pub(super) fn for_submodules(&self) -> String {
        Self(self.0.iter().copied().filter(|protocol| *protocol != GitProtocol::File).collect()).for_fetching()
    }
}

/// By which protocol git fetches a repository, as git tells: `transport_get` and `parse_connect_url` of its
/// `transport.c` and `connect.c`. The error is the name of a remote helper.
fn protocol_of(repository: &str) -> Result<GitProtocol, &str> {
    if let Some((helper, _)) = repository.split_once("::")
        && !helper.is_empty()
        && helper.bytes().all(is_of_a_name)
    {
        return Err(helper);
    }
    match repository.split_once("://") {
        Some((scheme, _)) if !scheme.is_empty() && scheme.bytes().all(is_of_a_name) => {
            scheme.parse().map_err(|_| scheme)
        }
        _ => {
            let host = repository.split_once(':').map(|(host, _)| host);
            // A slash before the colon makes it a path.
            Ok(if host.is_some_and(|host| !host.contains('/')) { GitProtocol::Ssh } else { GitProtocol::File })
        }
    }
}

/// A character of a scheme or helper.
const fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_s_protocol_is_what_git_takes_it_for() {
        use GitProtocol::{File, Git, Http, Https, Ssh};
        for (repository, wanted) in [
            ("https://host/a.git", Ok(Https)),
            ("http://host/a.git", Ok(Http)),
            ("git://host/a.git", Ok(Git)),
            ("ssh://git@host:22/a.git", Ok(Ssh)),
            ("git+ssh://host/a.git", Ok(Ssh)),
            ("ssh+git://host/a.git", Ok(Ssh)),
            ("git@host:a/b.git", Ok(Ssh)),
            ("[::1]:a.git", Ok(Ssh)),
            ("file:///root/a.git", Ok(File)),
            ("/root/a.git", Ok(File)),
            ("a.git", Ok(File)),
            ("./host:a.git", Ok(File)),
            ("../a", Ok(File)),
            ("/a::b", Ok(File)),
            ("", Ok(File)),
            ("ext::sh -c id", Err("ext")),
            ("fd::17", Err("fd")),
            ("ftp://host/a", Err("ftp")),
            ("HTTPS://host/a", Err("HTTPS")),
            ("foo+bar://host/a", Err("foo+bar")),
        ] {
            assert_eq!(protocol_of(repository), wanted, "{repository}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_policy_with_a_hint_and_helpers_always_are() {
        let protocols = GitProtocols::default();
        assert!(protocols.admit("https://host/a").is_ok() && protocols.admit("host:a").is_ok());
        let all: GitProtocols = GitProtocol::ALL.into_iter().collect();
        assert!(all.admit("/root/a").is_ok());
        for (protocols, repository, word) in [
            (&protocols, "/root/a.git", "file"),
            (&protocols, "http://host/a", "http"),
            (&protocols, "git://host/a", "git"),
            (&all, "ext::sh -c id", "ext"),
            (&all, "ftp://host/a", "ftp"),
        ] {
            let refused = protocols.admit(repository).unwrap_err();
            assert_eq!(refused.kind, CauseKind::RefusedByPolicy, "{repository}");
            assert!(refused.detail.contains(word) && refused.detail.contains("--git-protocol"), "{}", refused.detail);
        }
        assert_eq!(
            (all.for_fetching(), all.for_submodules()),
            ("https:ssh:http:git:file".into(), "https:ssh:http:git".into())
        );
    }

    #[test]
    fn a_protocol_is_named_as_git_names_it() {
        assert_eq!("git+ssh".parse(), Ok(GitProtocol::Ssh));
        let refused = "ext".parse::<GitProtocol>().unwrap_err();
        assert!(refused.to_string().contains("https, ssh, http, git or file"), "{refused}");
    }
}
