//! Which texts name a repository, and by which protocols one may be reached.

use std::fmt;
use std::str::FromStr;

use windlass_protocol::limits::URL_MAX_BYTES;

/// A way to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `https://`.
    Https,
    /// `ssh://`, and `user@host:path`.
    Ssh,
    /// `http://`: anybody on the way may read and change what is fetched.
    Http,
    /// `git://`: as `http`.
    Git,
    /// `file://`, and paths of this machine.
    File,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Https, Self::Ssh, Self::Http, Self::Git, Self::File];

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

    /// By which one a repository of this name is reached; `None` for those that git reaches by some program.
    fn of(repository: &str) -> Option<Self> {
        let is_scheme =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if let Some((scheme, _)) = repository.split_once("://")
            && is_scheme(scheme)
        {
            return match scheme {
                "ssh+git" | "git+ssh" => Some(Self::Ssh),
                _ => Self::ALL.into_iter().find(|protocol| protocol.name() == scheme),
            };
        }
        // `NAME::ADDRESS` has git start `git-remote-NAME`.
        if repository.split_once("::").is_some_and(|(helper, _)| is_scheme(helper)) {
            return None;
        }
        // `host:path`, unless a slash comes first.
        let colon = repository.find(':');
        let slash = repository.find('/');
        let remote = colon.is_some_and(|colon| slash.is_none_or(|slash| colon < slash));
        Some(if remote { Self::Ssh } else { Self::File })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A protocol that there is none of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no protocol of git; there are https, ssh, http, git and file")]
pub struct BadProtocol(String);

impl FromStr for Protocol {
    type Err = BadProtocol;

    fn from_str(text: &str) -> Result<Self, BadProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == text).ok_or_else(|| BadProtocol(text.to_owned()))
    }
}

/// The protocols that an operator allows; https and ssh unless he says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocols(Vec<Protocol>);

impl Default for Protocols {
    fn default() -> Self {
        Self(vec![Protocol::Https, Protocol::Ssh])
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        Self(protocols.into_iter().collect())
    }
}

/// Why a text is no repository that may be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRepository {
    /// It is empty, too long, or has characters that no URL has.
    #[error("a repository is a URL that git understands, of at most {URL_MAX_BYTES} bytes")]
    Malformed,
    /// Git would take it, or its host, for an option.
    #[error("neither a repository nor its host begins with a dash")]
    Option,
    /// It has a password in it.
    #[error("a repository's URL has no password in it, which would stand in every record; a credential file holds it")]
    Password,
    /// By a protocol that is not allowed.
    #[error("repositories are not fetched by {protocol} here; the operator allows {allowed}")]
    Protocol {
        /// By which it would be; as it was written where git knows none of that name.
        protocol: String,
        /// Those that are.
        allowed: String,
    },
}

impl Protocols {
    /// Those of these names; none at all where there are no names.
    ///
    /// # Errors
    /// [`BadProtocol`], of the first that is none.
    pub fn named(names: &[String]) -> Result<Self, BadProtocol> {
        names.iter().map(|name| name.parse()).collect()
    }

    /// As `GIT_ALLOW_PROTOCOL` wants them: git holds redirects and submodules to it too.
    #[must_use]
    pub fn variable(&self) -> String {
        self.joined(":")
    }

    /// The same for what a tree names and not who asked for it, such as submodules: never a path of this machine.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        self.0.iter().copied().filter(|protocol| *protocol != Protocol::File).collect()
    }

    fn joined(&self, between: &str) -> String {
        self.0.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(between)
    }

    /// Whether a repository of this name may be fetched.
    ///
    /// # Errors
    /// [`BadRepository`]. No part of the name is in it, for what stands before a host may be secret.
    pub fn check(&self, repository: &str) -> Result<(), BadRepository> {
        check(repository)?;
        let protocol = Protocol::of(repository);
        if protocol.is_some_and(|protocol| self.0.contains(&protocol)) {
            return Ok(());
        }
        let protocol = protocol.map_or_else(|| "a helper program".to_owned(), |protocol| protocol.to_string());
        Err(BadRepository::Protocol { protocol, allowed: self.joined(", ") })
    }
}

/// Whether a repository of this name is reached by ssh.
#[must_use]
pub fn is_ssh(repository: &str) -> bool {
    Protocol::of(repository) == Some(Protocol::Ssh)
}

/// Whether a text can name a repository, by whatever protocol.
///
/// # Errors
/// [`BadRepository`].
pub fn check(repository: &str) -> Result<(), BadRepository> {
    if repository.is_empty() || repository.len() > URL_MAX_BYTES || repository.chars().any(char::is_control) {
        return Err(BadRepository::Malformed);
    }
    let host = authority(repository).map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host));
    let scp_host = repository.split_once(':').and_then(|(place, _)| place.rsplit_once('@')).map(|(_, host)| host);
    if [Some(repository), host, scp_host].into_iter().flatten().any(|text| text.starts_with('-')) {
        return Err(BadRepository::Option);
    }
    if has_password(repository) {
        return Err(BadRepository::Password);
    }
    Ok(())
}

/// Whether a URL has a password before its host. A name alone may stay: clone URLs of some servers have one.
#[must_use]
pub fn has_password(repository: &str) -> bool {
    let userinfo = authority(repository).and_then(|authority| authority.rsplit_once('@')).map(|(userinfo, _)| userinfo);
    userinfo.is_some_and(|userinfo| userinfo.contains(':'))
}

/// Host, in small letters, and path of a clone URL; nothing for a path of the machine. The port is no part of a host's name.
#[must_use]
pub fn place(repository: &str) -> Option<(String, &str)> {
    let (host, path) = match repository.split_once("://") {
        Some((_, rest)) => {
            let authority = authority(repository)?;
            (authority, rest.get(authority.len()..)?)
        }
        // `user@host:path`
        None => repository.split_once(':').filter(|(host, _)| !host.contains('/'))?,
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    Some((host.to_ascii_lowercase(), path.trim_start_matches('/'))).filter(|(host, _)| !host.is_empty())
}

/// What stands between `://` and the path.
fn authority(repository: &str) -> Option<&str> {
    let (_, rest) = repository.split_once("://")?;
    rest.split(['/', '?', '#']).next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_operators_protocols_are_allowed() {
        let usual = Protocols::default();
        for good in ["https://git.example.org/a.git", "ssh://git@h:22/a", "git@h:a/b.git", "h:a", "git+ssh://h/a"] {
            assert_eq!(usual.check(good), Ok(()), "{good}");
        }
        for (bad, named) in [
            ("http://h/a", "http"),
            ("git://h/a", "git"),
            ("file:///etc", "file"),
            ("/etc", "file"),
            ("./a:b", "file"),
            ("../a", "file"),
            ("ext::sh -c touch% x", "a helper program"),
            ("fd::17", "a helper program"),
            ("ftp://h/a", "a helper program"),
            ("HTTPS://h/a", "a helper program"),
            ("transport::https://h/a", "a helper program"),
        ] {
            let Err(BadRepository::Protocol { protocol, .. }) = usual.check(bad) else { panic!("{bad} is allowed") };
            assert_eq!(protocol, named, "{bad}");
        }
        let local: Protocols = [Protocol::File].into_iter().collect();
        assert_eq!(local.check("/srv/git/a.git"), Ok(()));
        assert_eq!((usual.variable(), local.variable()), ("https:ssh".to_owned(), "file".to_owned()));
        assert_eq!(
            (usual.elsewhere().variable(), local.elsewhere().variable()),
            ("https:ssh".to_owned(), String::new())
        );
    }

    #[test]
    fn what_git_would_take_for_an_option_is_no_repository() {
        for bad in ["--upload-pack=x", "-u", "ssh://-oProxyCommand=x/a", "ssh://git@-oProxyCommand=x/a", "git@-o:a"] {
            assert_eq!(check(bad), Err(BadRepository::Option), "{bad}");
        }
        for bad in ["", "https://h/a\nb", "https://h/\0"] {
            assert_eq!(check(bad), Err(BadRepository::Malformed), "{bad:?}");
        }
        assert_eq!(check("https://ci:token@h/a"), Err(BadRepository::Password));
        assert_eq!(check("https://ci@h/a:b@c"), Ok(()));
    }

    proptest! {
        #[test]
        fn a_name_with_a_transport_is_never_taken_for_another(name in "[a-z]{1,8}", rest in "[ -~]{0,20}") {
            prop_assume!(Protocol::ALL.iter().all(|protocol| protocol.name() != name));
            let all: Protocols = Protocol::ALL.into_iter().collect();
            let repository = format!("{name}::{rest}");
            prop_assert!(all.check(&repository).is_err());
        }
    }
}
