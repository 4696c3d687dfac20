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
