//! Blobs read for agents, ahead of the link: whole, as manifests, or some chunks of one.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use windlass_cache::{Blob, ChunkManifest, Fault, PackedChunk, Store};
use windlass_protocol::limits::{FETCH_STALL_MS, PARTS_MIN_BYTES};
use windlass_protocol::link::FramedSend;
use windlass_protocol::message::{BlobHeader, Wanted};
use windlass_protocol::{Digest, Namespace, Shelf, Trust};

use super::bulk::Bad;
use super::{Ground, Switchboard};

/// Pieces that are read ahead of the link.
const AHEAD: usize = 8;

/// Sends what is wanted, as far as the namespace sees it; to who does not know archives no manifest of one, and chunks plain.
pub(super) async fn send(
    board: &Switchboard,
    ground: &Ground,
    wanted: Wanted,
    (namespace, trust, knows_archives): (Namespace, Trust, bool),
    send: &mut FramedSend,
) -> Result<(), Bad> {
    // Nobody closes it.
    let _room = board.shared.rooms.fetches.enter(trust).await.ok_or(Bad::Build)?;
    let (pieces, mut queue) = mpsc::channel(AHEAD);
    let store = ground.store.clone();
    let reader = tokio::task::spawn_blocking(move || read(&store, (&namespace, knows_archives), wanted, &pieces));
    while let Some(piece) = queue.recv().await {
        let sending = async {
            match piece {
                Piece::Header(header) => send.send_message(&header).await,
                Piece::Bytes(bytes) => send.send_raw(bytes).await,
            }
        };
        let sent = tokio::time::timeout(Duration::from_millis(FETCH_STALL_MS), sending).await;
        sent.map_err(|_| Bad::Stalled)??;
    }
    reader.await.map_err(|_| Bad::Build)??;
    send.finish()?;
    Ok(())
}

enum Piece {
    Header(BlobHeader),
    Bytes(Bytes),
}

type Pieces = mpsc::Sender<Piece>;

/// Which large blobs are given by their manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InParts {
    None,
    /// But archives.
    Plain,
    All,
}

fn read(
    store: &Store,
    (namespace, knows_archives): (&Namespace, bool),
    wanted: Wanted,
    pieces: &Pieces,
) -> Result<(), Fault> {
    let in_parts = if knows_archives { InParts::All } else { InParts::Plain };
    match wanted {
        Wanted::Whole(digests) => read_each(store, namespace, &digests, InParts::None, pieces),
        Wanted::Parts(digests) => read_each(store, namespace, &digests, in_parts, pieces),
        Wanted::Chunks { blob, places } => match find(store, namespace, &blob)? {
            Some(blob) => read_chunks(&blob, &places, knows_archives, pieces),
            None => places.iter().try_for_each(|_| pass(pieces, Piece::Header(BlobHeader::Absent))),
        },
    }
}

/// What a job of the build may see is found, wherever it was kept.
fn find(store: &Store, namespace: &Namespace, digest: &Digest) -> Result<Option<Blob>, Fault> {
    let shelves = Shelf::ALL.map(|shelf| namespace.on(shelf));
    let place = shelves.iter().find(|on| store.blob_len(on, digest).is_some()).unwrap_or(namespace);
    store.get(place, digest)
}

/// Reads the blobs in order.
fn read_each(
    store: &Store,
    namespace: &Namespace,
    digests: &[Digest],
    in_parts: InParts,
    pieces: &Pieces,
) -> Result<(), Fault> {
    for digest in digests {
        let Some(blob) = find(store, namespace, digest)? else {
            pass(pieces, Piece::Header(BlobHeader::Absent))?;
            continue;
        };
        let given = |manifest: &&ChunkManifest| match in_parts {
            InParts::None => false,
            InParts::Plain => !manifest.is_woven(),
            InParts::All => true,
        };
        let manifest = blob.manifest().filter(|_| blob.len() > PARTS_MIN_BYTES).filter(given);
        if let Some(manifest) = manifest.map(|manifest| Bytes::from(manifest.encode())) {
            pass(pieces, Piece::Header(BlobHeader::Manifest { bytes: manifest.len() as u64 }))?;
            pass(pieces, Piece::Bytes(manifest))?;
            continue;
        }
        pass(pieces, Piece::Header(BlobHeader::Found { bytes: blob.len() }))?;
        blob.copy_to(&mut |bytes| pass(pieces, Piece::Bytes(Bytes::copy_from_slice(bytes))))?;
    }
    Ok(())
}

fn read_chunks(blob: &Blob, places: &[u32], packed: bool, pieces: &Pieces) -> Result<(), Fault> {
    for place in places {
        let place = *place as usize;
        let chunk = if packed { blob.packed_chunk(place)? } else { blob.chunk(place)?.map(PackedChunk::Plain) };
        let (header, chunk) = match chunk {
            Some(PackedChunk::Frame(chunk)) => (BlobHeader::Packed { bytes: chunk.len() as u64 }, chunk),
            Some(PackedChunk::Plain(chunk)) => (BlobHeader::Found { bytes: chunk.len() as u64 }, chunk),
            None => {
                pass(pieces, Piece::Header(BlobHeader::Absent))?;
                continue;
            }
        };
        pass(pieces, Piece::Header(header))?;
        pass(pieces, Piece::Bytes(chunk.into()))?;
    }
    Ok(())
}

/// Hands a piece to the link. Where who waited is gone, nothing more is read for it.
fn pass(pieces: &Pieces, piece: Piece) -> Result<(), Fault> {
    let gone = |_| Fault::Io { doing: "send", path: PathBuf::new(), source: ErrorKind::BrokenPipe.into() };
    pieces.blocking_send(piece).map_err(gone)
}
