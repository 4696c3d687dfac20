//! By manifests that name others' chunks: whoever offers one has to send them, as if nobody had them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use quinn::Connection;
use windlass_cache::{ChunkManifest, Outline};
use windlass_protocol::job::Epoch;
use windlass_protocol::link::{Code, FramedRecv, FramedSend};
use windlass_protocol::message::{BulkAsk, PartHeader, PartsAnswer, StoreBlobs};
use windlass_protocol::{AttemptId, BuildId, Digest, Shelf};

/// As an agent cuts it.
fn manifest(blob: &[u8]) -> Result<ChunkManifest> {
    let mut outline = Outline::default();
    outline.push(blob, &mut |_, _, _, _| ())?;
    outline.end(&mut |_, _, _, _| ())?;
    Ok(outline.manifest(Digest::of(blob)))
}

fn names(manifest: &ChunkManifest) -> BTreeSet<Digest> {
    manifest.chunks().iter().map(|chunk| chunk.digest).collect()
}

/// What is answered to the manifest of one blob.
async fn offer(
    connection: &Connection,
    (build, attempt, epoch): (BuildId, AttemptId, Epoch),
    manifest: &ChunkManifest,
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
    send.reset(Code::Canceled);
    Ok(answer)
}

/// Of a blob that is made of what the stranger may read, of what he may not, and of what nobody has, the first alone counts as there.
pub(super) async fn by_manifest(
    connection: &Connection,
    right: (BuildId, AttemptId, Epoch),
    (shared, vault, nobodys): (&[u8], &[u8], &[u8]),
) -> Result<()> {
    let all = manifest(&[shared, vault, nobodys].concat())?;
    let PartsAnswer::Lacks(lacks) = offer(connection, right, &all).await? else {
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
        let answer = offer(connection, right, &manifest(of)?).await?;
        ensure!(answer == PartsAnswer::Whole, "{answer:?}");
    }
    Ok(())
}
