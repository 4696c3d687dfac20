//! Pins of builds: what a pin is, and what is asked about pins (docs/design/051).

use serde::{Deserialize, Serialize};
use windlass_protocol::{BuildId, Namespace, WallMs};

use super::{Actor, BuildRow, BuildRows};

/// A pin: what its build is made of, and made, stays for as long as this row is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRow {
    /// Of which build; it has one at most.
    pub build: BuildId,
    /// The build's pipeline.
    pub pipeline: String,
    /// The build's number.
    pub number: u64,
    /// The build's branch: who may read builds of some branches only sees pins of those.
    pub branch: String,
    /// The build's, which is a trusted one: its results stand there.
    pub namespace: Namespace,
    /// What people call it; no other pin of the pipeline has the same.
    #[serde(default)]
    pub name: Option<String>,
    /// Who pinned it.
    pub by: Actor,
    /// When.
    pub at: WallMs,
    /// When it ends by itself; `None`: when somebody undoes it.
    #[serde(default)]
    pub until: Option<WallMs>,
    /// Artifacts that it holds.
    pub files: u64,
    /// Their bytes; those that several have alike are stored once.
    pub bytes: u64,
    /// What had gone before it was pinned.
    #[serde(default)]
    pub gone: PinGone,
    /// Results that it would hold if there were room for them among what is held of its pipeline.
    #[serde(default)]
    pub left_out: u64,
}

impl PinRow {
    /// A new one of a build, which has no end and holds nothing yet.
    #[must_use]
    pub fn of(build: &BuildRow, by: Actor, at: WallMs) -> Self {
        Self {
            build: build.id,
            pipeline: build.pipeline.clone(),
            number: build.number,
            branch: build.branch.clone(),
            namespace: build.namespace.clone(),
            name: None,
            by,
            at,
            until: None,
            files: 0,
            bytes: 0,
            gone: PinGone::default(),
            left_out: 0,
        }
    }

    /// Until when it holds what it holds; the last moment there is where nobody has said so.
    #[must_use]
    pub fn end(&self) -> WallMs {
        self.until.unwrap_or(Self::ENDLESS)
    }

    /// The end of a pin that has none.
    pub const ENDLESS: WallMs = WallMs(u64::MAX);
}

/// What a build has made or named, and is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PinGone {
    /// Artifacts.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of its source, of its steps' inputs and of what their keys are made of.
    pub blobs: u64,
    /// Results that it wrote or used.
    pub results: u64,
}

/// What is asked about pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinRequest {
    /// Let all of a build stay; [`crate::effect::Reply::Pinned`] says what its pin was before, if it had one.
    Pin(Box<NewPin>),
    /// No longer; [`crate::effect::Reply::Unpinned`] says what its pin was, if it had one.
    Unpin {
        /// Which build.
        build: BuildId,
    },
}

/// What is said of a pin. Of one that is there only this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPin {
    /// Of which build; it may be over, and it may go on.
    pub build: BuildId,
    /// What it is called.
    pub name: Anew<String>,
    /// When it ends; a new one, if nobody says so, when somebody undoes it.
    pub until: Anew<WallMs>,
    /// What of its artifacts and blobs the shell has found to be gone; results are counted here.
    pub gone: PinGone,
    /// What all pins may hold together, in bytes.
    pub room_bytes: u64,
    /// It was pinned a moment ago and is looked at again: where that pin is over, none is made.
    pub again: bool,
    /// Its rows, if it has left memory ([`crate::Rejected::NotInMemory`] asks for them).
    pub rows: Option<Box<BuildRows>>,
}

/// What is said of something that may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anew<T> {
    /// It is as before; of what is new it is none.
    #[default]
    AsBefore,
    /// It is none.
    Nothing,
    /// It is this.
    This(T),
}

impl<T> Anew<T> {
    /// What it is from now on.
    #[must_use]
    pub fn after(self, before: Option<T>) -> Option<T> {
        match self {
            Self::AsBefore => before,
            Self::Nothing => None,
            Self::This(now) => Some(now),
        }
    }
}

/// Why a build is not pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinRefused {
    /// It is not trusted.
    #[error(
        "build {0} is not trusted, and only trusted builds can be pinned: build its commit again from a protected branch, or \
         with a token that has the scope `builds:trusted`, and pin that build"
    )]
    Untrusted(BuildId),
    /// Another pin of its pipeline is called so.
    #[error("build #{number} of the pipeline is pinned as `{name}`: choose another name, or undo that pin first")]
    NameTaken {
        /// The name.
        name: String,
        /// The number of the build that has it.
        number: u64,
    },
    /// Pins of all pipelines hold as much as they may. How much that is tells of others' builds (I12).
    #[error(
        "{0}: pins of all pipelines leave no room for this one; undo some that are not needed any more, or ask whoever runs the \
         coordinator, to whom `windlass cache stats` says what they hold"
    )]
    Full(&'static str),
    /// Its pin was over before all of it was looked at.
    #[error(
        "the pin of build {0} ended, or somebody undid it, while it was made; pin the build again if it is to stay"
    )]
    Over(BuildId),
    /// Pins hold as much as they may.
    #[error(
        "{what}: at most {limit}, and with this build it would be {would_be}; undo pins that are not needed any more"
    )]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// What it would come to.
        would_be: u64,
        /// The limit.
        limit: u64,
    },
}

impl PinRefused {
    /// Refuses the first that would come to more than it may: what, to how much, and the limit.
    pub(crate) fn check<const N: usize>(sums: [(&'static str, u64, u64); N]) -> Result<(), Self> {
        match sums.into_iter().find(|(_, would_be, limit)| would_be > limit) {
            Some((what, would_be, limit)) => Err(Self::NoRoom { what, would_be, limit }),
            None => Ok(()),
        }
    }
}
