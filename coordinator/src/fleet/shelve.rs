//! Blobs that jobs keep: what is missing of an offer is taken, a bounded piece at a time, and is durable when it is answered.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_cache::{Error, Fault, Intake, Rejected, Store};
use windlass_protocol::limits::{DETAIL_MAX_BYTES, STORE_STALL_MS};
use windlass_protocol::link::{FramedRecv, FramedSend};
use windlass_protocol::message::{StoreAnswer, StoreBlobs, StoreRefused};
use windlass_protocol::{Digest, Namespace};

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
    namespace: &Namespace,
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    // Nobody closes it.
    let _room = board.shared.rooms.stores.acquire().await.map_err(|_| Bad::Build)?;
    let wanted = ground.shelves.wanted(namespace, offer.shelf, &offer.blobs);
    let places = wanted.iter().filter_map(|place| usize::try_from(*place).ok());
    let blobs: Vec<(Digest, u64)> = places.filter_map(|place| offer.blobs.get(place).copied()).collect();
    let bytes = blobs.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if let Err(error) = ground.shelves.check_room(bytes) {
        return refuse(send, code_of(&error), &error.to_string()).await;
    }
    send.send_message(&StoreAnswer::Wanted(wanted)).await?;
    let (pieces, queue) = mpsc::channel(AHEAD);
    let (store, on) = (ground.store.clone(), namespace.on(offer.shelf));
    let writer = tokio::task::spawn_blocking(move || write(&store, &on, &blobs, queue));
    let received = receive(recv, bytes, pieces).await;
    match writer.await.map_err(|_| Bad::Build)? {
        Ok(()) => {
            received?;
            send.send_message(&StoreAnswer::Stored).await?;
            Ok(send.finish()?)
        }
        // What the disk says explains why the link was given up, not the other way round.
        Err(error) => refuse(send, code_of_store(&error), &error.to_string()).await,
    }
}

async fn refuse(send: &mut FramedSend, code: StoreRefused, detail: &str) -> Result<(), Bad> {
    let detail = detail.get(..detail.floor_char_boundary(DETAIL_MAX_BYTES)).unwrap_or_default().to_owned();
    send.send_message(&StoreAnswer::Refused { code, detail }).await?;
    Ok(send.finish()?)
}

const fn code_of(error: &ShelfError) -> StoreRefused {
    match error {
        ShelfError::Full(_) => StoreRefused::Full,
        ShelfError::Store(error) => code_of_store(error),
        ShelfError::Missing(_) | ShelfError::NotAManifest(..) | ShelfError::Disk(_) | ShelfError::Stopping => {
            StoreRefused::Unavailable
        }
    }
}

const fn code_of_store(error: &Error) -> StoreRefused {
    match error {
        Error::Fault(Fault::DiskFull { .. }) => StoreRefused::Full,
        Error::Rejected(Rejected::WrongDigest { .. }) => StoreRefused::WrongBytes,
        Error::Fault(_) | Error::Rejected(_) => StoreRefused::Unavailable,
    }
}

/// Takes so many bytes off the link. That the writer has ended ends it too: it says why.
async fn receive(recv: &mut FramedRecv, mut left: u64, pieces: mpsc::Sender<Bytes>) -> Result<(), Bad> {
    while left > 0 {
        let piece = tokio::time::timeout(Duration::from_millis(STORE_STALL_MS), recv.recv_raw(left)).await;
        let piece = piece.map_err(|_| Bad::Stalled)?.map_err(Bad::from)?;
        left -= piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes what comes. Where it is cut short, what is whole is kept.
fn write(
    store: &Store,
    on: &Namespace,
    blobs: &[(Digest, u64)],
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<(), Error> {
    let mut intake = Intake::new(store, on);
    let mut held = Bytes::new();
    'blobs: for (digest, bytes) in blobs {
        intake.begin(*digest, *bytes)?;
        let mut left = *bytes;
        while left > 0 {
            if held.is_empty() {
                let Some(piece) = queue.blocking_recv() else { break 'blobs };
                held = piece;
            }
            let piece = held.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(held.len()));
            left -= piece.len() as u64;
            intake.push(&piece)?;
        }
    }
    intake.finish().map(drop)
}
