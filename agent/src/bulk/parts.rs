//! Large blobs that jobs keep, by the chunks that are missing: read once to cut them, and once more to send what is asked for.
//!
//! It is an attempt to send less, before all that is still missing is offered whole: where the coordinator does not take parts, or
//! has next to nothing of a blob, or a try fails, nothing is lost but that.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use windlass_cache::{ChunkManifest, ChunkPacker, Outline};
use windlass_protocol::Digest;
use windlass_protocol::limits::{PARTS_CHUNKS_MAX, PARTS_MANIFEST_MAX_BYTES, PARTS_MIN_BYTES};
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{BulkAsk, PartHeader, PartsAnswer, StoreBlobs};
use windlass_protocol::version::PARTS_1;

use super::store::{Broken, Feed, Offering, Outlet};
use super::tries::Tried;
use super::{Bulk, Trouble};

/// Why a blob does not go in parts.
enum Not<E> {
    /// It goes whole, and so do those after it.
    Whole(String),
    /// The try is over.
    Tried(Tried<E>),
}

impl<E> From<LinkError> for Not<E> {
    fn from(error: LinkError) -> Self {
        match error {
            // The coordinator is there, and does not take this.
            LinkError::Reset { .. } | LinkError::Stopped { .. } => Self::Whole(error.to_string()),
            error => Self::Tried(error.into()),
        }
    }
}

impl<E> From<Broken<E>> for Not<E> {
    fn from(broken: Broken<E>) -> Self {
        match broken {
            Broken::Link(error) => error.into(),
            broken @ Broken::Own(_) => Self::Tried(broken.into()),
        }
    }
}

impl Bulk {
    /// What the coordinator can do, as it said over the connection that stands.
    pub(crate) fn told(&self, abilities: &[String]) {
        let takes = abilities.iter().any(|ability| ability == PARTS_1);
        self.takes_parts.store(takes, Ordering::Relaxed);
    }

    /// Stores the large ones of the offered blobs by the chunks that are missing, as far as that goes.
    pub(super) async fn try_parts<O: Offering>(&self, offer: &StoreBlobs, from: &mut O) -> Result<(), Tried<O::Error>> {
        let large = offer.blobs.iter().enumerate().filter(|(_, (_, bytes))| *bytes > PARTS_MIN_BYTES);
        let (places, blobs): (Vec<usize>, Vec<(Digest, u64)>) = large.map(|(place, blob)| (place, *blob)).unzip();
        if blobs.is_empty() || !self.takes_parts.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Ok(_turn) = self.cuts.try_acquire() else { return Ok(()) };
        let StoreBlobs { build, attempt, epoch, shelf, .. } = *offer;
        let (mut send, mut recv) =
            match self.open(&BulkAsk::Parts(StoreBlobs { build, attempt, epoch, shelf, blobs })).await {
                Ok(streams) => streams,
                Err(Trouble::Link(LinkError::Reset { .. } | LinkError::Stopped { .. })) => return Ok(()),
                Err(trouble) => return Err(trouble.into()),
            };
        let mut talk = Talk { send: &mut send, recv: &mut recv };
        match talk.all(offer, &places, from).await {
            Ok(()) => {
                // It has answered all there was.
                let _ = send.finish();
                Ok(())
            }
            Err(not) => {
                send.reset(Code::Canceled);
                match not {
                    Not::Whole(why) => {
                        tracing::info!(%attempt, why, "blobs_go_whole");
                        Ok(())
                    }
                    Not::Tried(tried) => Err(tried),
                }
            }
        }
    }
}

/// What is said about an offer.
struct Talk<'a> {
    send: &'a mut FramedSend,
    recv: &'a mut FramedRecv,
}

impl Talk<'_> {
    async fn all<O: Offering>(
        &mut self,
        offer: &StoreBlobs,
        places: &[usize],
        from: &mut O,
    ) -> Result<(), Not<O::Error>> {
        let PartsAnswer::Cut(cut) = self.answer().await? else { return Err(out_of_turn()) };
        for nth in cut {
            let place = places.get(nth as usize).copied();
            let blob = place.and_then(|place| Some((place, *offer.blobs.get(place)?)));
            let Some((place, blob)) = blob else { return Err(out_of_turn()) };
            self.one(place, blob, from).await?;
        }
        Ok(())
    }

    async fn one<O: Offering>(
        &mut self,
        place: usize,
        (digest, bytes): (Digest, u64),
        from: &mut O,
    ) -> Result<(), Not<O::Error>> {
        let mut sieve = sift((place, bytes), None, from).await?;
        sieve.end().await?;
        if let Some(why) = sieve.failed {
            return Err(Not::Whole(why));
        }
        let manifest = sieve.outline.manifest(digest);
        let encoded = manifest.encode();
        if encoded.len() > PARTS_MANIFEST_MAX_BYTES {
            return Ok(self.send.send_message(&PartHeader::Passed).await?);
        }
        self.send.send_message(&PartHeader::Manifest { bytes: encoded.len() as u64 }).await?;
        self.send.send_raw(encoded.into()).await?;
        let lacks = match self.answer().await? {
            PartsAnswer::Lacks(lacks) => lacks,
            PartsAnswer::Whole => return Ok(()),
            PartsAnswer::Refused { code: _, detail } => return Err(Not::Whole(detail)),
            PartsAnswer::Cut(_) | PartsAnswer::Stored => return Err(out_of_turn()),
        };
        let (chunks, sent) = (manifest.chunks().len(), lacks.len());
        if !lacks.is_empty() {
            self.chunks((place, bytes), manifest, lacks, from).await?;
        }
        match self.answer().await? {
            PartsAnswer::Stored => {
                tracing::debug!(%digest, bytes, chunks, sent, "blob_sent_in_parts");
                Ok(())
            }
            PartsAnswer::Refused { code: _, detail } => Err(Not::Whole(detail)),
            PartsAnswer::Cut(_) | PartsAnswer::Lacks(_) | PartsAnswer::Whole => Err(out_of_turn()),
        }
    }

    async fn chunks<O: Offering>(
        &mut self,
        (place, bytes): (usize, u64),
        manifest: ChunkManifest,
        lacks: Vec<u32>,
        from: &mut O,
    ) -> Result<(), Not<O::Error>> {
        let packer = ChunkPacker::new().map_err(|error| Not::Whole(error.to_string()))?;
        let sends = Sends { send: self.send, manifest, lacks: lacks.into_iter().collect(), packer };
        let mut sieve = sift((place, bytes), Some(sends), from).await?;
        sieve.end().await?;
        if let Some(why) = sieve.failed {
            return Err(Not::Whole(why));
        }
        let left = sieve.sends.map_or(0, |sends| sends.lacks.len());
        if left > 0 {
            return Err(Not::Whole(format!("{left} chunks that the coordinator wants were not cut again")));
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<PartsAnswer, LinkError> {
        let answer: PartsAnswer = self.recv.recv_message().await?.ok_or(LinkError::Short { missing: 1 })?;
        Ok(answer)
    }
}

/// Reads a blob and cuts it.
async fn sift<'a, O: Offering>(
    (place, bytes): (usize, u64),
    sends: Option<Sends<'a>>,
    from: &mut O,
) -> Result<Box<Sieve<'a>>, Not<O::Error>> {
    let sieve = Box::new(Sieve { outline: Outline::default(), failed: None, sends });
    let mut feed = Feed::whole(Outlet::Sieve(sieve), bytes);
    from.read(place, &mut feed).await?;
    feed.into_sieve().ok_or_else(out_of_turn)
}

fn out_of_turn<E>() -> Not<E> {
    Not::Whole("the coordinator answers out of turn".to_owned())
}

/// Cuts a blob as it is read, and sends those of its chunks that are wanted.
#[derive(Debug)]
pub(super) struct Sieve<'a> {
    outline: Outline,
    /// Why it cannot be cut, or not be packed: nothing more is sent of it then.
    failed: Option<String>,
    /// Nothing the first time.
    sends: Option<Sends<'a>>,
}

#[derive(Debug)]
struct Sends<'a> {
    send: &'a mut FramedSend,
    manifest: ChunkManifest,
    /// Places in the manifest.
    lacks: BTreeSet<u32>,
    packer: ChunkPacker,
}

impl Sieve<'_> {
    /// Takes the next bytes.
    pub(super) async fn take(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.cut(Some(bytes)).await
    }

    /// Nothing more comes.
    async fn end(&mut self) -> Result<(), LinkError> {
        self.cut(None).await
    }

    async fn cut(&mut self, bytes: Option<&[u8]>) -> Result<(), LinkError> {
        let mut ready: Vec<(u32, Bytes)> = Vec::new();
        let Self { outline, failed, sends } = self;
        if failed.is_some() {
            return Ok(());
        }
        let mut show = |lane, nth, digest: Digest, plain: &[u8]| {
            let Some(sends) = sends else { return Ok(()) };
            let place = sends.manifest.place(lane, nth).filter(|place| sends.lacks.contains(place));
            let Some(place) = place else { return Ok(()) };
            // A file that changes meanwhile has other chunks there; they are not sent, and it is found out by whoever reads it.
            if sends.manifest.chunks().get(place as usize).is_none_or(|chunk| chunk.digest != digest) {
                return Ok(());
            }
            match sends.packer.pack(plain) {
                Ok(packed) => {
                    ready.push((place, Bytes::copy_from_slice(packed)));
                    sends.lacks.remove(&place);
                }
                Err(error) => *failed = Some(error.to_string()),
            }
            Ok(())
        };
        let cut = match bytes {
            Some(bytes) => outline.push(bytes, &mut show),
            None => outline.end(&mut show),
        };
        if let Err(error) = cut {
            *failed = Some(error.to_string());
        }
        if outline.chunks() > PARTS_CHUNKS_MAX {
            *failed = Some("it has more chunks than the coordinator takes names of".to_owned());
        }
        let Some(sends) = &mut self.sends else { return Ok(()) };
        for (place, chunk) in ready {
            // No chunk is longer than CHUNK_MAX_BYTES.
            let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            sends.send.send_message(&PartHeader::Chunk { place, bytes }).await?;
            sends.send.send_raw(chunk).await?;
        }
        Ok(())
    }
}
