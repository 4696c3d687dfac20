//! Which image a text names, as container engines read it.

use std::fmt;

/// The registry of names without one, as people write it.
const DOCKER_HUB: &str = "docker.io";

/// Where that registry is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// The longest repository's name (distribution v2) with its host.
const NAME_MAX_BYTES: usize = 255;

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// `HOST` or `HOST:PORT`, as it is written.
    pub(super) registry: String,
    /// Such as `library/debian`.
    pub(super) repository: String,
    /// Which of its images.
    pub(super) version: Version,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Whatever has this name now.
    Tag(String),
    /// This one: `sha256:…`.
    Digest(String),
}

impl Reference {
    /// Reads a text. A digest wins over a tag beside it; without either it is `latest`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("the image `{}` {why}", text.chars().take(200).collect::<String>());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            Some(_) | None => (DOCKER_HUB, rest),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        let repository =
            if registry == DOCKER_HUB && !name.contains('/') { format!("library/{name}") } else { name.to_owned() };
        if registry.len() + repository.len() > NAME_MAX_BYTES || !is_host(registry) || !is_name(&repository) {
            return Err(bad("has a name that no registry has"));
        }
        let version = match (digest, tag) {
            (Some(digest), _) if is_digest(digest) => Version::Digest(digest.to_owned()),
            (Some(_), _) => return Err(bad("has a digest that is not sha256")),
            (None, Some(tag)) if is_tag(tag) => Version::Tag(tag.to_owned()),
            (None, Some(_)) => return Err(bad("has a tag that no registry has")),
            (None, None) => Version::Tag("latest".to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    /// Where its registry answers.
    pub(super) fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &self.registry }
    }

    /// The same repository's image of this digest, as an engine takes it.
    pub(super) fn at(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

/// `sha256:` and its digits.
pub(super) fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "1"));
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(named) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Lower-case parts, separated by `.`, `_`, `__` or dashes (distribution v2).
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.split('/').all(|part| {
        let bytes = part.as_bytes();
        let ends = bytes.first().zip(bytes.last()).is_some_and(|(first, last)| plain(*first) && plain(*last));
        ends && bytes.iter().all(|byte| plain(*byte) || matches!(byte, b'.' | b'_' | b'-')) && !part.contains("..")
    })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_container_engines_read_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, whole) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:13", "docker.io/library/debian:13".to_owned()),
            ("org/app:1", "docker.io/org/app:1".to_owned()),
            ("docker.io/debian", "docker.io/library/debian:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/team/app:v1.2", "127.0.0.1:5000/team/app:v1.2".to_owned()),
            ("r.example/a/b/c", "r.example/a/b/c:latest".to_owned()),
            (&format!("r.example/app@{digest}"), format!("r.example/app@{digest}")),
            (&format!("app:1@{digest}"), format!("docker.io/library/app@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).map(|it| it.to_string()), Ok(whole), "{text}");
        }
        assert_eq!(Reference::parse("debian").unwrap().host(), "registry-1.docker.io");
    }

    #[test]
    fn what_no_registry_has_is_refused_before_anybody_is_asked() {
        let half = format!("a@sha256:{}", "a".repeat(63));
        let upper = format!("a@sha256:{}", "A".repeat(64));
        let long = "a".repeat(300);
        for bad in [
            "",
            "A",
            "a b",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "r.example:0/a",
            "r.example:x/a",
            "u:p@h/a",
            "a?b",
            "a#b",
            "a:",
            "a:-x",
            "a@sha512:00",
            "r.example/a%2f",
            "ä",
            "a:b/c:d",
            &half,
            &upper,
            &long,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
