//! By manifests that name others' chunks: whoever offers one has to send them, as if nobody had them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use quinn::Connection;
use windlass_cache::{ChunkManifest, Outline};
use windlass_protocol::job::Epoch;
use windlass_protocol::link::{Code, FramedRecv, FramedSend};
use windlass_protocol::message::{BulkAsk, PartHeader, PartsAnswer, StoreBlobs};
use windlass_protocol::{AttemptId, BuildId, Digest, Shelf};
use windlass_tests::kit::{DEADLINE, until};

/// As an agent cuts it.
fn manifest(blob: &[u8]) -> Result<ChunkManifest> {
    let mut outline = Outline::default();
    outline.push(blob, &mut |_, _, _, _| Ok(()))?;
    outline.end(&mut |_, _, _, _| Ok(()))?;
    Ok(outline.manifest(Digest::of(blob)))
}

fn names(manifest: &ChunkManifest) -> BTreeSet<Digest> {
    manifest.chunks().iter().map(|chunk| chunk.digest).collect()
}

/// What is answered to the manifest of one blob; then those of the wanted chunks are sent that are given, by their places.
async fn offer(
    connection: &Connection,
    (build, attempt, epoch): (BuildId, AttemptId, Epoch),
    manifest: &ChunkManifest,
    chunks: &BTreeMap<u32, Vec<u8>>,
) -> Result<PartsAnswer> {
    let blobs = vec![(manifest.digest(), manifest.blob_bytes())];
    let (send, recv) = connection.open_bi().await?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    send.send_message(&BulkAsk::Parts(StoreBlobs { build, attempt, epoch, shelf: Shelf::Caches, blobs })).await?;
    let cut = recv.recv_message::<PartsAnswer>().await?.context("an answer")?;
    ensure!(cut == PartsAnswer::Cut(vec![0]), "{cut:?}");
    let encoded = manifest.encode();
    send.send_message(&PartHeader::Manifest { bytes: encoded.len() as u64 }).await?;
    send.send_raw(encoded.into()).await?;
    let answer = recv.recv_message::<PartsAnswer>().await?.context("an answer")?;
    match &answer {
        PartsAnswer::Lacks(lacks) => {
            for (place, chunk) in lacks.iter().filter_map(|place| Some((*place, chunks.get(place)?))) {
                send.send_message(&PartHeader::Chunk { place, bytes: u32::try_from(chunk.len())? }).await?;
                send.send_raw(chunk.clone().into()).await?;
            }
            // The end, as where a connection breaks.
            send.finish()?;
        }
        _ => send.reset(Code::Canceled),
    }
    Ok(answer)
}

/// The chunks of the first bytes of a blob, but for the last ones, by their places in it.
fn first_chunks(blob: &[u8]) -> Result<BTreeMap<u32, Vec<u8>>> {
    let (mut outline, mut chunks) = (Outline::default(), BTreeMap::new());
    outline.push(blob, &mut |_, nth, _, plain| {
        chunks.insert(nth, plain.to_vec());
        Ok(())
    })?;
    Ok(chunks)
}

/// What came of a blob when its stream ended is not wanted again.
pub(super) async fn again(connection: &Connection, right: (BuildId, AttemptId, Epoch), blob: &[u8]) -> Result<()> {
    let all = manifest(blob)?;
    let chunks = first_chunks(blob.get(..blob.len() / 4).unwrap_or_default())?;
    let PartsAnswer::Lacks(lacks) = offer(connection, right, &all, &chunks).await? else {
        anyhow::bail!("is not found")
    };
    let sent = lacks.iter().filter(|place| chunks.contains_key(place)).count();
    ensure!(sent > 5, "{sent} of {lacks:?}");
    // The coordinator may not have seen the end yet.
    until("the rest of the blob", DEADLINE, async || {
        let PartsAnswer::Lacks(left) = offer(connection, right, &all, &BTreeMap::new()).await? else {
            anyhow::bail!("is not found any more")
        };
        Ok((left.len() == lacks.len() - sent).then_some(()))
    })
    .await
}

/// Of a blob that is made of what the stranger may read, of what he may not, and of what nobody has, the first alone counts as there.
pub(super) async fn by_manifest(
    connection: &Connection,
    right: (BuildId, AttemptId, Epoch),
    (shared, vault, nobodys): (&[u8], &[u8], &[u8]),
) -> Result<()> {
    let all = manifest(&[shared, vault, nobodys].concat())?;
    let PartsAnswer::Lacks(lacks) = offer(connection, right, &all, &BTreeMap::new()).await? else {
        anyhow::bail!("what he may read is not found");
    };
    let lacking: BTreeSet<Digest> =
        lacks.iter().filter_map(|place| Some(all.chunks().get(*place as usize)?.digest)).collect();
    for (what, of) in [("others' chunks", vault), ("nobody's", nobodys)] {
        let named: BTreeSet<Digest> = names(&manifest(of)?).intersection(&names(&all)).copied().collect();
        ensure!(named.len() > 5 && named.is_subset(&lacking), "{what} count as there");
    }
    let readable = names(&manifest(shared)?);
    ensure!(readable.intersection(&lacking).count() < 3, "what he may read has to come");
    // Of another's blob as it is, and of one that nobody has, the same is said.
    for of in [vault, nobodys] {
        let answer = offer(connection, right, &manifest(of)?, &BTreeMap::new()).await?;
        ensure!(answer == PartsAnswer::Whole, "{answer:?}");
    }
    Ok(())
}
