//! Whose repositories the operator's credentials are for.

use std::fmt;
use std::str::FromStr;

use crate::repository::place;

/// The repositories of a host, or of an owner there: `git.example.org`, `github.com/acme`, `github.com/acme/one`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    host: String,
    path: String,
}

/// What is no [`Owner`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no repositories: a host, or a host and an owner, such as github.com/acme")]
pub struct BadOwner(String);

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = path.trim_end_matches('/');
        let odd = |c: char| c.is_whitespace() || c.is_control() || "@:%?#*\\".contains(c);
        if host.is_empty() || host.contains(odd) || (!path.is_empty() && !is_plain(path)) {
            return Err(BadOwner(text.chars().filter(|c| !c.is_control()).take(200).collect()));
        }
        Ok(Self { host: host.to_ascii_lowercase(), path: path.to_owned() })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

impl Owner {
    /// Whether a repository is one of these. One whose path a server could understand otherwise than it is written is not.
    #[must_use]
    pub fn owns(&self, repository: &str) -> bool {
        let Some((host, path)) = place(repository) else { return false };
        let rest = path.strip_prefix(&self.path);
        let is_below = rest.is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        host == self.host && is_plain(path) && is_below
    }
}

/// Whether a path is what it says, for every server.
fn is_plain(path: &str) -> bool {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "%?#\\*".contains(c);
    !path.contains(odd) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_meant_by_whole_parts_of_a_path() {
        let owner: Owner = "GitHub.com/acme".parse().unwrap();
        assert_eq!(owner.to_string(), "github.com/acme");
        for own in [
            "https://github.com/acme/x",
            "https://github.com/acme/x.git",
            "https://ci@GITHUB.com:443/acme/x",
            "ssh://git@github.com/acme/x",
            "git@github.com:acme/x.git",
            "git@github.com:/acme/x.git",
        ] {
            assert!(owner.owns(own), "{own}");
        }
        for other in [
            "https://github.com/acme2/x",
            "https://github.com/other/acme/x",
            "https://github.com.evil.example/acme/x",
            "https://evil.example/github.com/acme/x",
            "https://github.com@evil.example/acme/x",
            "https://github.com/acme/../evil/x",
            "https://github.com/acme/%2e%2e/evil/x",
            "https://github.com/./acme/x",
            "https://github.com/acme//x",
            "https://github.com/acme/x?y",
            "/github.com/acme/x",
            "./github.com:acme/x",
            "file:///acme/x",
        ] {
            assert!(!owner.owns(other), "{other}");
        }
        let host: Owner = "git.example.org".parse().unwrap();
        assert!(host.owns("https://git.example.org/a") && !host.owns("https://example.org/a"));
        for bad in ["", "/a", "https://h", "h:1", "a@h", "h/../x", "h/a b"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
