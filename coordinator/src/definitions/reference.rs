//! Names of branches, tags and other refs, as people write them and as git has them.

use windlass_pipeline::glob::Glob;
use windlass_protocol::limits::{NAME_MAX_BYTES, PROTECTED_PATTERNS_MAX};

use super::DefinitionError;

/// A ref by its whole name: `refs/heads/main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference(String);

impl Reference {
    /// A branch by its name, or any ref by its whole one: `refs/pull/7/head`.
    pub(crate) fn branch(name: &str) -> Result<Self, DefinitionError> {
        if name.starts_with("refs/") { Self::whole(name) } else { Self::whole(&format!("refs/heads/{name}")) }
    }

    /// A tag by its name.
    pub(crate) fn tag(name: &str) -> Result<Self, DefinitionError> {
        if name.starts_with("refs/tags/") { Self::whole(name) } else { Self::whole(&format!("refs/tags/{name}")) }
    }

    /// As `git check-ref-format` has it.
    fn whole(name: &str) -> Result<Self, DefinitionError> {
        let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        let bad = name.len() > NAME_MAX_BYTES + "refs/heads/".len()
            || name.chars().any(odd)
            || name.contains("..")
            || name.contains("@{")
            || name.ends_with('.')
            || name.split('/').any(bad_part)
            || name.split('/').count() < 3;
        if bad {
            return Err(DefinitionError::BadReference(name.chars().filter(|c| !c.is_control()).take(200).collect()));
        }
        Ok(Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every fetch brings it.
    pub(super) fn is_mirrored(&self) -> bool {
        self.0.starts_with("refs/heads/") || self.is_tag()
    }

    pub(super) fn is_tag(&self) -> bool {
        self.0.starts_with("refs/tags/")
    }

    /// Where the mirror keeps it: what is only fetched on demand is nobody's branch.
    pub(super) fn kept(&self) -> String {
        if self.is_mirrored() { self.0.clone() } else { format!("refs/windlass/{}", &self.0["refs/".len()..]) }
    }

    /// The number of the pull or merge request whose head this is, as the usual servers have it.
    pub(crate) fn pull_request(&self) -> Option<&str> {
        let rest = self.0.strip_prefix("refs/pull/").or_else(|| self.0.strip_prefix("refs/merge-requests/"))?;
        let number = rest.strip_suffix("/head").or_else(|| rest.strip_suffix("/merge"))?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)
    }
}

/// Which refs are protected, by patterns: `main`, `release/*`, `refs/tags/v*`.
///
/// A pattern that does not begin with `refs/` is one of branches. `*` does not match a slash, `**` does: servers protect
/// branches by such patterns, and a wider one here would trust what nobody protects there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protected(Vec<Glob>);

impl Protected {
    pub(crate) fn parse(patterns: &[String]) -> Result<Self, DefinitionError> {
        let bad = |pattern: &str| DefinitionError::BadReference(pattern.to_owned());
        if patterns.len() > PROTECTED_PATTERNS_MAX {
            return Err(bad("more patterns than there may be"));
        }
        let whole = |pattern: &String| {
            let whole = if pattern.starts_with("refs/") { pattern.clone() } else { format!("refs/heads/{pattern}") };
            if pattern.is_empty() { Err(bad(pattern)) } else { Glob::parse(&whole).map_err(|_| bad(pattern)) }
        };
        Ok(Self(patterns.iter().map(whole).collect::<Result<_, _>>()?))
    }

    pub(crate) fn holds(&self, reference: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(reference))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_named_as_git_names_them() {
        for (name, whole) in
            [("main", "refs/heads/main"), ("a/b", "refs/heads/a/b"), ("refs/pull/7/head", "refs/pull/7/head")]
        {
            assert_eq!(Reference::branch(name).unwrap().as_str(), whole);
        }
        assert_eq!(Reference::tag("v1").unwrap().as_str(), "refs/tags/v1");
        let long = "a".repeat(300);
        let bad = [
            "",
            "a b",
            "a..b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "[a",
            "a\\b",
            "a@{1}",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "a\nb",
            "refs/a",
            "refs/heads/",
            "refs//x",
            &long,
        ];
        for bad in bad {
            assert!(Reference::branch(bad).is_err(), "{bad:?}");
            assert!(Reference::tag(bad).is_err() || bad.starts_with("refs/a"), "{bad:?}");
        }
    }

    #[test]
    fn the_head_of_a_request_has_its_number() {
        for (name, number) in [
            ("refs/pull/7/head", Some("7")),
            ("refs/pull/7/merge", Some("7")),
            ("refs/merge-requests/12/head", Some("12")),
            ("refs/pull/x/head", None),
            ("refs/heads/pull/7/head", None),
            ("refs/pull/7/other", None),
        ] {
            assert_eq!(Reference::branch(name).unwrap().pull_request(), number, "{name}");
        }
    }

    #[test]
    fn protected_is_what_a_pattern_names_whole() {
        let patterns = ["main", "release/*", "refs/tags/v*", "deep/**"].map(str::to_owned);
        let protected = Protected::parse(&patterns).unwrap();
        for yes in ["refs/heads/main", "refs/heads/release/1", "refs/tags/v1.0", "refs/heads/deep/a/b"] {
            assert!(protected.holds(yes), "{yes}");
        }
        for no in [
            "refs/heads/main2",
            "refs/heads/x/main",
            "refs/heads/release/1/x",
            "refs/tags/main",
            "refs/heads/v1",
            "main",
        ] {
            assert!(!protected.holds(no), "{no}");
        }
        assert!(!Protected::default().holds("refs/heads/main"), "nothing is protected by itself");
        assert!(Protected::parse(&["a{".to_owned()]).is_err());
        assert!(Protected::parse(&[String::new()]).is_err());
    }
}
