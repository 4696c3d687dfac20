//! Who has what and asks for what, by kind of namespace: for people, and for nobody's decisions.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_protocol::{Namespace, Shelf};

use crate::index::Usage;
use crate::store::Store;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Of trusted builds; else of overlays.
    pub trusted: bool,
    /// What is kept on purpose; without one, sources and what keys are made of.
    pub shelf: Option<Shelf>,
}

const SHELVES: [Option<Shelf>; 3] = [None, Some(Shelf::Artifacts), Some(Shelf::Caches)];

impl Kind {
    /// A namespace's.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        Self { trusted: namespace.overlay.is_none(), shelf: namespace.shelf().map(|(_, shelf)| shelf) }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        SHELVES.into_iter().flat_map(|shelf| [true, false].map(|trusted| Self { trusted, shelf }))
    }

    /// As it is written: `trusted` or `overlay`.
    #[must_use]
    pub const fn trust(self) -> &'static str {
        if self.trusted { "trusted" } else { "overlay" }
    }

    /// As it is written: `sources`, `artifacts` or `caches`.
    #[must_use]
    pub const fn holds(self) -> &'static str {
        match self.shelf {
            None => "sources",
            Some(Shelf::Artifacts) => "artifacts",
            Some(Shelf::Caches) => "caches",
        }
    }

    fn place(self) -> usize {
        Self::all().position(|kind| kind == self).unwrap_or_default()
    }
}

/// Questions for blobs by name, since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// That were there for who asked.
    pub hits: u64,
    /// That were not.
    pub misses: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Questions([[AtomicU64; 2]; 6]);

impl Questions {
    /// So many were asked for by a namespace of this kind, and so many of them were there.
    pub(crate) fn count(&self, kind: Kind, hits: u64, misses: u64) {
        let Some([found, missed]) = self.0.get(kind.place()) else { return };
        found.fetch_add(hits, Ordering::Relaxed);
        missed.fetch_add(misses, Ordering::Relaxed);
    }

    fn of(&self, kind: Kind) -> Asked {
        let Some([hits, misses]) = self.0.get(kind.place()) else { return Asked::default() };
        Asked { hits: hits.load(Ordering::Relaxed), misses: misses.load(Ordering::Relaxed) }
    }

    /// Of all kinds.
    pub(crate) fn sum(&self) -> Asked {
        let sum = |sum: Asked, one: Asked| Asked { hits: sum.hits + one.hits, misses: sum.misses + one.misses };
        Kind::all().map(|kind| self.of(kind)).fold(Asked::default(), sum)
    }
}

/// What all namespaces have and asked for.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Each namespace that sees something by itself, and what.
    pub namespaces: Vec<(Namespace, Usage)>,
    /// By kind, all of them.
    pub asked: Vec<(Kind, Asked)>,
    /// Bytes of blobs that are stored in chunks, each blob once and each chunk as often as it is in one.
    pub chunked_bytes: u64,
}

impl Store {
    /// What all namespaces have and asked for.
    #[must_use]
    pub fn census(&self) -> Census {
        let index = self.shared.index();
        let seen = (0..).zip(index.names()).map(|(number, name)| (name, index.usage(number)));
        let namespaces = seen.filter(|(_, usage)| usage.blobs > 0).map(|(name, usage)| (name.clone(), usage)).collect();
        let asked = Kind::all().map(|kind| (kind, self.shared.counters.questions.of(kind))).collect();
        Census { namespaces, asked, chunked_bytes: index.wide_bytes() - index.large_bytes() }
    }
}
