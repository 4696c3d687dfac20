//! Large blobs that jobs keep, by the chunks that are missing: what blobs that the job may see hold already need not come again.
//!
//! A chunk counts as had only by the manifest of a blob that the namespace sees (I12): what is answered, and what is read for the
//! answer, is the same whether strangers have a chunk or nobody does. A chunk that is not had has to come, and is compared with
//! its name, whoever has it; the whole is hashed before it is stored, as any blob.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use windlass_cache::{Assembly, ChunkManifest, Error, Fault, Lane, Reservation, Store};
use windlass_protocol::limits::{
    ARCHIVE_HEADS_PART, CHUNK_AVERAGE_BYTES, PARTS_BLOB_MS, PARTS_CUT_MS, PARTS_WORTH_PART,
};
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{PartHeader, PartsAnswer, StoreBlobs, StoreRefused};
use windlass_protocol::{Digest, Namespace, Shelf, Trust};

use super::bulk::Bad;
use super::resting::Owner;
use super::shelve::{code_of, code_of_store, piece, told};
use super::{Ground, Switchboard};

/// Chunks between the link and the disk, 2 MiB each at most.
const AHEAD: usize = 2;

/// The least length at which anything is cut: headers of archives.
const LEAST_BYTES: u64 = (CHUNK_AVERAGE_BYTES / 4 / ARCHIVE_HEADS_PART) as u64;

/// Reads what is stored already, so that blobs alike to it are found; uploads are whole ones until then.
pub(super) async fn learn(store: Store) {
    match tokio::task::spawn_blocking(move || store.learn_alike()).await {
        Ok(Ok(())) => tracing::info!("alike_blobs_learnt"),
        Ok(Err(error)) => tracing::warn!(%error, "alike_blobs_not_learnt"),
        Err(error) => tracing::warn!(%error, "alike_blobs_not_learnt"),
    }
}

/// Answers an offer; the right to the attempt was looked at, and `namespace` is its build's.
pub(super) async fn respond(
    board: &Switchboard,
    ground: &Ground,
    offer: StoreBlobs,
    (namespace, trust): (&Namespace, Trust),
    send: &mut FramedSend,
    recv: &mut FramedRecv,
) -> Result<(), Bad> {
    let seen: Arc<[Namespace]> =
        Shelf::ALL.iter().map(|shelf| namespace.on(*shelf)).chain([namespace.clone()]).collect();
    let cut = if ground.store.knows_alike(&seen) {
        ground.shelves.wanted(namespace, offer.shelf, &offer.blobs)
    } else {
        Vec::new()
    };
    send.send_message(&PartsAnswer::Cut(cut.clone())).await?;
    let owner = (offer.attempt, namespace.on(offer.shelf));
    let table = Table { board, ground, trust, seen, owner };
    for place in cut {
        let blob = usize::try_from(place).ok().and_then(|place| offer.blobs.get(place));
        let Some(blob) = blob else { break };
        if !table.take_blob(*blob, send, recv).await? {
            break;
        }
    }
    Ok(send.finish()?)
}

/// Who stores, and what he sees.
struct Table<'a> {
    board: &'a Switchboard,
    ground: &'a Ground,
    trust: Trust,
    seen: Arc<[Namespace]>,
    owner: Owner,
}

impl Table<'_> {
    /// Takes one blob; says whether another one may come.
    async fn take_blob(
        &self,
        (digest, bytes): (Digest, u64),
        send: &mut FramedSend,
        recv: &mut FramedRecv,
    ) -> Result<bool, Bad> {
        // While it reads and cuts, the agent holds no place.
        let manifest_bytes = match header(recv).await? {
            Some(PartHeader::Manifest { bytes }) => bytes,
            Some(PartHeader::Passed) => return Ok(true),
            Some(PartHeader::Chunk { .. }) => return Err(Bad::Invalid("a chunk before its manifest".to_owned())),
            None => return Ok(false),
        };
        // Whoever holds the places may be as slow as it likes: who finds none sends all of its bytes, and waits for nobody.
        let Some(_room) = self.board.shared.rooms.parts.try_enter(self.trust) else {
            pass(recv, manifest_bytes).await?;
            send.send_message(&PartsAnswer::Whole).await?;
            return Ok(true);
        };
        let encoded = raw(recv, manifest_bytes).await?;
        let manifest = ChunkManifest::decode(&encoded).map_err(|bad| Bad::Invalid(bad.to_string()))?;
        drop(encoded);
        if (manifest.digest(), manifest.blob_bytes()) != (digest, bytes) {
            return Err(Bad::Invalid("the manifest is of another blob than was offered".to_owned()));
        }
        // Each chunk is a row in memory for as long as the blob is stored.
        if manifest.chunks().len() as u64 > bytes / LEAST_BYTES + Lane::ALL.len() as u64 {
            return Err(Bad::Invalid("the manifest has more chunks than any cutter makes".to_owned()));
        }
        let Some(assembly) = self.begin(manifest).await? else {
            send.send_message(&PartsAnswer::Whole).await?;
            return Ok(true);
        };
        let space = match self.ground.shelves.reserve(assembly.missing_bytes()).await {
            Ok(space) => space,
            Err(error) => return refuse(send, code_of(&error), &error.to_string()).await,
        };
        let missing = assembly.missing();
        let chunks = missing.len();
        send.send_message(&PartsAnswer::Lacks(missing)).await?;
        let receiving = receive(recv, &assembly, (chunks, space));
        let came = tokio::time::timeout(Duration::from_millis(PARTS_BLOB_MS), receiving).await;
        let came = came.unwrap_or(Err(Came::Broken(Bad::Stalled)));
        if let Err(Came::Broken(bad)) = came {
            // Who breaks the rules does not come back for it.
            if matches!(bad, Bad::Link(_)) {
                self.board.shared.resting.put(self.owner.clone(), self.trust, assembly);
            }
            return Err(bad);
        }
        let (store_on, finishing) = (self.owner.1.clone(), assembly);
        let stored = match came {
            Err(Came::Not(error)) => Err(error),
            Ok(()) | Err(Came::Broken(_)) => {
                tokio::task::spawn_blocking(move || finishing.finish(&store_on)).await.map_err(|_| Bad::Build)?
            }
        };
        match stored {
            Ok(_) => {
                send.send_message(&PartsAnswer::Stored).await?;
                Ok(true)
            }
            Err(error) => refuse(send, code_of_store(&error), &error.to_string()).await,
        }
    }

    /// What came of the blob before, or what is there of it; nothing where that is too little to be worth it.
    async fn begin(&self, manifest: ChunkManifest) -> Result<Option<Arc<Assembly>>, Bad> {
        if let Some(assembly) = self.board.shared.resting.take(&self.owner, &manifest) {
            return Ok(Some(assembly));
        }
        let (store, seen) = (self.ground.store.clone(), Arc::clone(&self.seen));
        let begun = tokio::task::spawn_blocking(move || begin(&store, &seen, manifest));
        Ok(begun.await.map_err(|_| Bad::Build)??.map(Arc::new))
    }
}

fn begin(store: &Store, seen: &[Namespace], manifest: ChunkManifest) -> Result<Option<Assembly>, Fault> {
    let had: HashSet<Digest> = store.alike_chunks(seen, &manifest)?;
    let blob_bytes = manifest.blob_bytes();
    let assembly = store.assemble_of(manifest, &had)?;
    let worth = assembly.missing_bytes() <= blob_bytes - blob_bytes / PARTS_WORTH_PART;
    Ok(worth.then_some(assembly))
}

/// Why not all chunks came.
enum Came {
    /// The link, or the agent: it may come back.
    Broken(Bad),
    /// What came is not right, or cannot be kept.
    Not(Error),
}

/// Takes so many chunks off the link, and keeps them.
async fn receive(
    recv: &mut FramedRecv,
    assembly: &Arc<Assembly>,
    (chunks, mut space): (usize, Reservation),
) -> Result<(), Came> {
    let (pieces, mut queue) = mpsc::channel::<(u32, Bytes)>(AHEAD);
    let into = Arc::clone(assembly);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some((place, bytes)) = queue.blocking_recv() {
            let plain = into.manifest().chunk_bytes(place as usize).is_none_or(|long| bytes.len() >= long);
            if plain { into.put(place, &bytes) } else { into.put_packed(place, &bytes) }?;
            // What was written of it is the disk's to count.
            drop(space.split(bytes.len() as u64));
        }
        Ok(())
    });
    let received = pass_on(recv, chunks, pieces).await;
    // What the disk says explains why the link was given up, not the other way round.
    writer.await.map_err(|_| Came::Broken(Bad::Build))?.map_err(Came::Not)?;
    received.map_err(Came::Broken)
}

/// Hands on so many chunks. That the writer has ended ends it too: it says why.
async fn pass_on(recv: &mut FramedRecv, chunks: usize, pieces: mpsc::Sender<(u32, Bytes)>) -> Result<(), Bad> {
    for _ in 0..chunks {
        let (place, bytes) = match header(recv).await? {
            Some(PartHeader::Chunk { place, bytes }) => (place, bytes),
            Some(PartHeader::Manifest { .. } | PartHeader::Passed) => {
                return Err(Bad::Invalid("another blob before this one's chunks".to_owned()));
            }
            None => return Err(LinkError::Short { missing: 1 }.into()),
        };
        let chunk = raw(recv, u64::from(bytes)).await?;
        if pieces.send((place, chunk)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What the agent says next; it may have to read a large file for it.
async fn header(recv: &mut FramedRecv) -> Result<Option<PartHeader>, Bad> {
    let coming = tokio::time::timeout(Duration::from_millis(PARTS_CUT_MS), recv.recv_message::<PartHeader>());
    Ok(coming.await.map_err(|_| Bad::Stalled)??)
}

/// So many bytes, a manifest's or a chunk's.
async fn raw(recv: &mut FramedRecv, mut left: u64) -> Result<Bytes, Bad> {
    let mut bytes = BytesMut::new();
    while left > 0 {
        let piece = piece(recv, left).await?;
        left -= piece.len() as u64;
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Lets so many bytes pass.
async fn pass(recv: &mut FramedRecv, mut left: u64) -> Result<(), Bad> {
    while left > 0 {
        left -= piece(recv, left).await?.len() as u64;
    }
    Ok(())
}

/// Says why not; nothing more of the offer is taken.
async fn refuse(send: &mut FramedSend, code: StoreRefused, detail: &str) -> Result<bool, Bad> {
    send.send_message(&PartsAnswer::Refused { code, detail: told(detail) }).await?;
    Ok(false)
}
