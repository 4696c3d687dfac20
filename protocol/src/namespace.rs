//! Who can see a blob, and how far a build is trusted.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "the archived twins and resolvers that rkyv derives carry neither docs nor Debug"
)]

use std::fmt;

use rkyv::{Archive, Deserialize, Serialize};

/// How far a pool or a build is trusted. An agent serves one trust class (DESIGN, Isolation).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug))]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Runs pull requests, laptops' uploads, anything not verified.
    Untrusted,
    /// Runs what the coordinator verified or a token vouched for.
    Trusted,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
        })
    }
}

/// What is kept beside a project's sources, apart from them: rows say what of it is still wanted, and the rest is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum Shelf {
    /// Artifacts of jobs.
    Artifacts,
    /// Directories that jobs keep under keys.
    Caches,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Artifacts, Self::Caches];

    /// Its part of a project's name. No pipeline's name has a slash.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Artifacts => "/artifacts",
            Self::Caches => "/caches",
        }
    }
}

/// Where a lookup in the cache happens: a project, then `trusted` or an overlay of its own.
///
/// An overlay reads its own content, then its project's `trusted`; never the other way (I12).
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Namespace {
    /// The project: the pipeline's name.
    pub project: String,
    /// `None` is the project's trusted content; else an overlay such as `user:alice` or `pr:17`.
    pub overlay: Option<String>,
}

impl Namespace {
    /// A project's trusted namespace.
    #[must_use]
    pub fn trusted(project: &str) -> Self {
        Self { project: project.to_owned(), overlay: None }
    }

    /// An overlay over a project's trusted namespace.
    #[must_use]
    pub fn overlay(project: &str, overlay: &str) -> Self {
        Self { project: project.to_owned(), overlay: Some(overlay.to_owned()) }
    }

    /// The same readers' view of what is kept on a shelf: an overlay's reads its own, then the trusted one's.
    #[must_use]
    pub fn on(&self, shelf: Shelf) -> Self {
        Self { project: format!("{}{}", self.project, shelf.suffix()), overlay: self.overlay.clone() }
    }

    /// Which shelf of which namespace it is, if it is one.
    #[must_use]
    pub fn shelf(&self) -> Option<(Self, Shelf)> {
        Shelf::ALL.into_iter().find_map(|shelf| {
            let project = self.project.strip_suffix(shelf.suffix())?.to_owned();
            Some((Self { project, overlay: self.overlay.clone() }, shelf))
        })
    }

    /// Whether who looks here sees what was made in the other: its own, and for an overlay its project's trusted one's.
    #[must_use]
    pub fn reads(&self, made: &Self) -> bool {
        self.project == made.project && (made.overlay.is_none() || made.overlay == self.overlay)
    }

    /// The trust that this namespace's content carries.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        match self.overlay {
            None => Trust::Trusted,
            Some(_) => Trust::Untrusted,
        }
    }

    /// What people see: `trusted`, or the overlay's name.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.overlay.as_deref().unwrap_or("trusted")
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.short_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_is_a_namespace_of_its_own_that_is_read_by_the_same() {
        for namespace in [Namespace::trusted("p"), Namespace::overlay("p", "pr:1")] {
            assert_eq!(namespace.shelf(), None);
            for shelf in Shelf::ALL {
                let on = namespace.on(shelf);
                assert_ne!(on.project, namespace.project);
                assert_eq!((on.trust(), on.shelf()), (namespace.trust(), Some((namespace.clone(), shelf))));
            }
        }
    }
}
