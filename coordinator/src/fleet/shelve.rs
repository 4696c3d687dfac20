//! Blobs that jobs keep: what is missing of an offer is taken, a bounded piece at a time, and is durable when it is answered.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_cache::{About, Error, Intake, Partial, PartialError, Partials, Rejected, Reservation, Store};
use windlass_protocol::host::now;
use windlass_protocol::limits::{DETAIL_MAX_BYTES, RESUMABLE_MIN_BYTES, STORE_STALL_MS};
use windlass_protocol::link::{FramedRecv, FramedSend};
use windlass_protocol::message::{StoreAnswer, StoreBlobs, StoreRefused, WantedBlob};
use windlass_protocol::{Namespace, Trust};

use super::bulk::Bad;
use super::{Ground, Switchboard};
use crate::shelf::ShelfError;

/// Pieces between the link and the disk.
const AHEAD: usize = 16;

/// Answers an offer; the right to the attempt was looked at, and `namespace` is its build's.
pub(super) async fn respond(
    board: &Switchboard,
    ground: &Ground,
    offer: StoreBlobs,
    (namespace, trust): (&Namespace, Trust),
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    // Nobody closes it.
    let _room = board.shared.rooms.stores.enter(trust).await.ok_or(Bad::Build)?;
    let (owner, on) = (format!("attempt:{}", offer.attempt), namespace.on(offer.shelf));
    let places = ground.shelves.wanted(namespace, offer.shelf, &offer.blobs);
    let wanted = places.into_iter().filter_map(|place| {
        let (digest, bytes) = *offer.blobs.get(usize::try_from(place).ok()?)?;
        Some(Wanted { place, about: About { owner: owner.clone(), namespace: on.clone(), digest, bytes }, begun: None })
    });
    let (wanted, partials) = (wanted.collect(), ground.uploads.partials().clone());
    let resumed = tokio::task::spawn_blocking(move || resume(&partials, wanted)).await.map_err(|_| Bad::Build)?;
    let wanted = match resumed {
        Ok(wanted) => wanted,
        Err(error) => return refuse(send, code_of_partial(&error), &error.to_string()).await,
    };
    let bytes = wanted.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.about.bytes - blob.offset()));
    let space = match ground.shelves.reserve(bytes).await {
        Ok(space) => space,
        Err(error) => return refuse(send, code_of(&error), &error.to_string()).await,
    };
    let asked = wanted.iter().map(|blob| WantedBlob { place: blob.place, offset: blob.offset() });
    send.send_message(&StoreAnswer::Wanted(asked.collect())).await?;
    let (pieces, queue) = mpsc::channel(AHEAD);
    let (store, partials) = (ground.store.clone(), ground.uploads.partials().clone());
    let into = Into { store, partials, on, space };
    let writer = tokio::task::spawn_blocking(move || into.write(wanted, queue));
    let received = receive(recv, bytes, pieces).await;
    match writer.await.map_err(|_| Bad::Build)? {
        Ok(()) => {
            received?;
            send.send_message(&StoreAnswer::Stored).await?;
            Ok(send.finish()?)
        }
        // What the disk says explains why the link was given up, not the other way round.
        Err(error) => refuse(send, code_of_partial(&error), &error.to_string()).await,
    }
}

async fn refuse(send: &mut FramedSend, code: StoreRefused, detail: &str) -> Result<(), Bad> {
    send.send_message(&StoreAnswer::Refused { code, detail: told(detail) }).await?;
    Ok(send.finish()?)
}

/// As much of a reason as a refusal has room for.
pub(super) fn told(detail: &str) -> String {
    detail.get(..detail.floor_char_boundary(DETAIL_MAX_BYTES)).unwrap_or_default().to_owned()
}

/// The next of so many bytes that an agent has promised; it may not keep silent for too long.
pub(super) async fn piece(recv: &mut FramedRecv, left: u64) -> Result<Bytes, Bad> {
    let piece = tokio::time::timeout(Duration::from_millis(STORE_STALL_MS), recv.recv_raw(left)).await;
    Ok(piece.map_err(|_| Bad::Stalled)??)
}

pub(super) const fn code_of(error: &ShelfError) -> StoreRefused {
    match error {
        ShelfError::Store(error) => code_of_store(error),
        ShelfError::Missing(_) | ShelfError::NotAManifest(..) | ShelfError::Stopping => StoreRefused::Unavailable,
    }
}

const fn code_of_partial(error: &PartialError) -> StoreRefused {
    match error {
        PartialError::Store(error) => code_of_store(error),
        PartialError::TooLong(_) => StoreRefused::WrongBytes,
        PartialError::Busy | PartialError::Small | PartialError::TooMany(_) | PartialError::TooManyBytes(_) => {
            StoreRefused::Unavailable
        }
    }
}

pub(super) const fn code_of_store(error: &Error) -> StoreRefused {
    match error {
        Error::Fault(fault) if fault.is_full() => StoreRefused::Full,
        Error::Rejected(Rejected::WrongDigest { .. }) => StoreRefused::WrongBytes,
        Error::Fault(_) | Error::Rejected(_) => StoreRefused::Unavailable,
    }
}

/// Takes so many bytes off the link. That the writer has ended ends it too: it says why.
async fn receive(recv: &mut FramedRecv, mut left: u64, pieces: mpsc::Sender<Bytes>) -> Result<(), Bad> {
    while left > 0 {
        let piece = piece(recv, left).await?;
        left -= piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A blob that is to come, and what came of it before.
struct Wanted {
    place: u32,
    about: About,
    begun: Option<Partial>,
}

impl Wanted {
    fn offset(&self) -> u64 {
        self.begun.as_ref().map_or(0, Partial::offset)
    }
}

/// Takes what came of blobs over connections that broke.
fn resume(partials: &Partials, mut wanted: Vec<Wanted>) -> Result<Vec<Wanted>, PartialError> {
    for blob in wanted.iter_mut().filter(|blob| blob.about.bytes >= RESUMABLE_MIN_BYTES) {
        if let Some(state) = partials.find(&blob.about) {
            blob.begun = partials.take_roomless(&blob.about.owner, &state.id, now().wall)?;
        }
    }
    Ok(wanted)
}

/// Where blobs go.
struct Into {
    store: Store,
    partials: Partials,
    on: Namespace,
    space: Reservation,
}

impl Into {
    /// Writes what comes. Where it is cut short, what is whole is kept, and what came of a large one.
    fn write(mut self, wanted: Vec<Wanted>, queue: mpsc::Receiver<Bytes>) -> Result<(), PartialError> {
        let large: u64 = wanted.iter().filter(|blob| is_large(blob)).map(|blob| blob.about.bytes - blob.offset()).sum();
        let mut of_large = self.space.split(large.saturating_add(large / 256));
        let mut intake = Intake::within(&self.store, &self.on, self.space);
        let mut pieces = Pieces { queue, held: Bytes::new() };
        for blob in wanted {
            let About { digest, bytes, .. } = blob.about;
            let whole = match begun(&self.partials, blob)? {
                Some(partial) => {
                    let left = bytes - partial.offset();
                    let space = of_large.split(left.saturating_add(left / 256));
                    write_large(partial.within(space), left, &mut pieces)?
                }
                None => {
                    intake.begin(digest, bytes)?;
                    pieces.take(bytes, &mut |piece| Ok(intake.push(piece)?))?
                }
            };
            if !whole {
                break;
            }
        }
        intake.finish()?;
        Ok(())
    }
}

const fn is_large(blob: &Wanted) -> bool {
    blob.about.bytes >= RESUMABLE_MIN_BYTES
}

/// The upload that a large blob is written to; none for a small one, and where as many wait as may.
fn begun(partials: &Partials, blob: Wanted) -> Result<Option<Partial>, PartialError> {
    if !is_large(&blob) || blob.begun.is_some() {
        return Ok(blob.begun);
    }
    match partials.begin(blob.about, now().wall) {
        Ok(state) => partials.take_roomless(&state.about.owner, &state.id, now().wall),
        Err(PartialError::TooMany(_) | PartialError::TooManyBytes(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the rest of a large blob; says whether it is whole. What came stays where it is not.
fn write_large(mut partial: Partial, left: u64, pieces: &mut Pieces) -> Result<bool, PartialError> {
    if !pieces.take(left, &mut |piece| partial.write(piece, now().wall))? {
        return Ok(false);
    }
    partial.finish()?;
    Ok(true)
}

/// What comes off the link, cut where blobs end.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    held: Bytes,
}

impl Pieces {
    /// Hands over so many bytes as they come; says whether all came.
    fn take(
        &mut self,
        mut left: u64,
        to: &mut dyn FnMut(&[u8]) -> Result<(), PartialError>,
    ) -> Result<bool, PartialError> {
        while left > 0 {
            if self.held.is_empty() {
                let Some(piece) = self.queue.blocking_recv() else { return Ok(false) };
                self.held = piece;
            }
            let piece = self.held.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(self.held.len()));
            left -= piece.len() as u64;
            to(&piece)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use windlass_cache::vfs::recorded::RecordingFs;
    use windlass_cache::{Fault, StoreOptions};
    use windlass_protocol::Digest;

    use super::*;

    fn noise(seed: u64, len: u64) -> Vec<u8> {
        let mut state = seed << 32 | 0x9E37_79B9;
        let next = || {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(usize::try_from(len).unwrap()).collect()
    }

    /// An offer of these blobs, of which so many bytes come before the link breaks. Answers where each began.
    fn offer(
        store: &Store,
        partials: &Partials,
        blobs: &[Vec<u8>],
        most: usize,
    ) -> (Vec<u64>, Result<(), PartialError>) {
        let on = Namespace::trusted("p").on(windlass_protocol::Shelf::Artifacts);
        let about = |blob: &Vec<u8>| {
            let (owner, namespace) = ("attempt:1".to_owned(), on.clone());
            About { owner, namespace, digest: Digest::of(blob), bytes: blob.len() as u64 }
        };
        let here = (0..).zip(blobs).filter(|(_, blob)| !store.contains(&on, &Digest::of(blob)));
        let wanted: Vec<_> = here.map(|(place, blob)| Wanted { place, about: about(blob), begun: None }).collect();
        let wanted = resume(partials, wanted).unwrap();
        let offsets: Vec<u64> = wanted.iter().map(Wanted::offset).collect();
        let sent: Vec<u8> = wanted
            .iter()
            .flat_map(|wanted| &blobs[wanted.place as usize][usize::try_from(wanted.offset()).unwrap()..])
            .copied()
            .collect();
        let (pieces, queue) = mpsc::channel(10_000);
        for piece in sent[..most.min(sent.len())].chunks(60_000) {
            pieces.try_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(pieces);
        let space = store.reserve(sent.len() as u64, 0).unwrap();
        let into = Into { store: store.clone(), partials: partials.clone(), on, space };
        (offsets, into.write(wanted, queue))
    }

    #[test]
    fn after_a_broken_link_an_offer_asks_for_the_rest_of_a_large_blob() {
        let store = Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), StoreOptions::default()).unwrap();
        let partials = Partials::open(&store, now().wall).unwrap();
        let large = noise(1, RESUMABLE_MIN_BYTES + 5);
        let blobs = [noise(2, 100), large, noise(3, 70_000)];
        let (offsets, written) = offer(&store, &partials, &blobs, 3_000_100);
        assert_eq!((offsets, written.is_ok()), (vec![0, 0, 0], true));
        let (offsets, written) = offer(&store, &partials, &blobs, 2_000_000);
        assert_eq!((offsets, written.is_ok()), (vec![3_000_000, 0], true), "the small one was whole");
        let (offsets, written) = offer(&store, &partials, &blobs, usize::MAX);
        assert_eq!((offsets, written.is_ok()), (vec![5_000_000, 0], true));
        let (offsets, _) = offer(&store, &partials, &blobs, 0);
        assert_eq!(offsets, [0; 0], "all are there");
        assert_eq!((partials.waiting(), store.stats().reserved_bytes), ((0, 0), 0));
        assert_eq!(store.verify().unwrap().damaged, []);
    }

    #[test]
    fn wrong_bytes_of_a_large_blob_are_said_so_and_are_begun_anew() {
        let store = Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), StoreOptions::default()).unwrap();
        let partials = Partials::open(&store, now().wall).unwrap();
        let blob = noise(1, RESUMABLE_MIN_BYTES);
        let on = Namespace::trusted("p");
        let about = About {
            owner: "attempt:1".to_owned(),
            namespace: on.clone(),
            digest: Digest::of(b"other"),
            bytes: blob.len() as u64,
        };
        let (pieces, queue) = mpsc::channel(1);
        pieces.try_send(Bytes::from(blob)).unwrap();
        drop(pieces);
        let space = store.reserve(RESUMABLE_MIN_BYTES, 0).unwrap();
        let into = Into { store, partials: partials.clone(), on, space };
        let error = into.write(vec![Wanted { place: 0, about, begun: None }], queue).unwrap_err();
        assert_eq!(code_of_partial(&error), StoreRefused::WrongBytes);
        assert_eq!(partials.waiting(), (0, 0));
        let full = Fault::NoSpace { path: "/s".into(), wanted_bytes: 1, left_bytes: 0 };
        assert_eq!(code_of_partial(&full.into()), StoreRefused::Full);
    }
}
