//! Says again what a segment says that goes away: what of it still counts, as it is by now, at the end of the last segment.
//!
//! What counts is found out and appended under the writer's lock, with what the index does not know yet. So nothing that is
//! said meanwhile comes between the two, and is not undone by what is said again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use windlass_protocol::Digest;

use super::{Appender, Batch, Item, Ticket, Writer, lock};
use crate::alias::Sha256Digest;
use crate::error::Fault;
use crate::index::{Change, NamespaceNo, Place};

/// A blob of which the segment that goes away says something.
#[derive(Debug)]
pub(crate) struct Restated {
    pub(crate) digest: Digest,
    /// Its record, where it lies there.
    pub(crate) moved: Option<(Place, Bytes)>,
    /// Older segments hold records of it that would count again.
    pub(crate) stale: bool,
}

/// What its record holds.
#[derive(Debug)]
pub(crate) enum Bytes {
    Blob(Vec<u8>),
    Manifest(Vec<u8>),
    /// A file of its own: nothing but its length.
    Large,
}

/// How a blob will be when all that was appended is in the index.
#[derive(Debug, Default)]
struct State {
    place: Option<Place>,
    /// Sorted.
    seen_by: Vec<NamespaceNo>,
    /// The last segment that says for good who sees it.
    noted: Option<u32>,
    /// Records older than its own say who sees it.
    unstated: bool,
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { namespace, place, .. } => {
                (self.place, self.noted) = (Some(*place), None);
                self.grant(*namespace);
                self.unstated = self.seen_by != [*namespace];
            }
            Change::Grant { namespace, .. } if self.place.is_some() => self.grant(*namespace),
            Change::Seen { seen_by, segment, .. } if self.place.is_some() => {
                (self.seen_by, self.noted, self.unstated) = (seen_by.to_vec(), Some(*segment), false);
            }
            Change::Release { namespace, .. } => {
                self.seen_by.retain(|other| other != namespace);
                if self.seen_by.is_empty() {
                    *self = Self::default();
                }
            }
            Change::Void { .. } => *self = Self::default(),
            Change::Grant { .. } | Change::Seen { .. } | Change::Chunks { .. } | Change::Alias { .. } => {}
        }
    }

    fn grant(&mut self, namespace: NamespaceNo) {
        if let Err(at) = self.seen_by.binary_search(&namespace) {
            self.seen_by.insert(at, namespace);
        }
    }
}

impl Appender {
    /// Waits until the index knows of all that was appended so far.
    pub(crate) fn settle(&self) -> Result<(), Fault> {
        let appended = lock(&self.writer).appended;
        self.wait(appended)
    }

    /// Says again what the segment says of these blobs; answers which of them are gone, so that it had to be said again that
    /// they are, and in which segments. [`Self::wait`] for the ticket before the segment goes.
    ///
    /// Nobody lets go of anything or puts anything aside meanwhile.
    pub(crate) fn restate(
        &self,
        segment: u32,
        nobody: NamespaceNo,
        blobs: &[Restated],
        aliases: &BTreeMap<Digest, Sha256Digest>,
    ) -> Result<(Ticket, Vec<(Digest, u32)>), Fault> {
        let mut writer = lock(&self.writer);
        if writer.poisoned {
            return Err(self.poisoned());
        }
        let wanted = blobs.iter().map(|blob| blob.digest).chain(aliases.keys().copied()).collect();
        let pending = pending(&writer, &wanted);
        let mut batch = Batch::default();
        let mut gone = Vec::new();
        for blob in blobs {
            let state = self.state(&blob.digest, &pending);
            let Some((place, first)) = state.place.zip(state.seen_by.first()) else {
                if blob.stale {
                    self.encode(&mut writer, &mut batch, nobody, Item::Void { digest: blob.digest })?;
                    gone.extend(writer.active.as_ref().map(|active| (blob.digest, active.number)));
                }
                continue;
            };
            let moved = blob.moved.as_ref().filter(|(before, _)| *before == place);
            if let Some((_, bytes)) = moved {
                self.encode(&mut writer, &mut batch, *first, moved_item(blob.digest, place, bytes))?;
            }
            if says_who_sees(segment, blob.stale, &state) {
                let item = Item::Seen { digest: blob.digest, seen_by: &state.seen_by };
                self.encode(&mut writer, &mut batch, *first, item)?;
            }
        }
        for (digest, alias) in aliases {
            if self.state(digest, &pending).place.is_some() {
                self.encode(&mut writer, &mut batch, nobody, Item::Alias { digest: *digest, alias })?;
            } else {
                // Whoever stores it again says it again.
                let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
                index.aliases_mut().remove(alias, digest);
            }
        }
        self.flush(&mut writer, &mut batch)?;
        Ok((writer.appended, gone))
    }

    fn state(&self, digest: &Digest, pending: &HashMap<Digest, Vec<Change>>) -> State {
        let mut state = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.get(digest).map_or_else(State::default, |entry| State {
                place: Some(entry.place),
                seen_by: entry.seen_by().to_vec(),
                noted: entry.noted(),
                unstated: entry.unstated(),
            })
        };
        for change in pending.get(digest).into_iter().flatten() {
            state.apply(change);
        }
        state
    }
}

/// Whether it has to be said who sees a blob, for all that older records and the segment that goes away say of it.
///
/// A record that puts a blob is enough for whom it names, unless stale ones before it name others.
fn says_who_sees(segment: u32, stale: bool, state: &State) -> bool {
    let Some(place) = state.place.map(Place::segment) else { return false };
    if place == segment {
        return stale || state.seen_by.len() > 1;
    }
    state.unstated || state.noted.is_none_or(|noted| noted <= segment) && (stale || place < segment)
}

fn moved_item(digest: Digest, place: Place, bytes: &Bytes) -> Item<'_> {
    match bytes {
        Bytes::Blob(bytes) => Item::Moved { digest, bytes },
        Bytes::Manifest(manifest) => Item::MovedManifest { digest, manifest, bytes: place.bytes() },
        Bytes::Large => Item::MovedLarge { digest, bytes: place.bytes() },
    }
}

/// What was appended of these blobs and is not in the index yet, in order.
fn pending(writer: &Writer, wanted: &HashSet<Digest>) -> HashMap<Digest, Vec<Change>> {
    let mut pending: HashMap<Digest, Vec<Change>> = HashMap::new();
    for change in writer.syncing.iter().chain(&writer.unsynced) {
        if let Some(digest) = change.digest().filter(|digest| wanted.contains(digest)) {
            pending.entry(digest).or_default().push(change.clone());
        }
    }
    pending
}
