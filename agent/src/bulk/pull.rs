//! Reading one blob from end to end, while it comes where that goes.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use windlass_cache::{Blob, BlobReader, ChunkManifest};
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::{FOLLOWED_BYTES, LINK_BLOB_PIECE_BYTES};
use windlass_protocol::link::LinkError;
use windlass_protocol::message::{BlobHeader, Wanted};
use windlass_protocol::{Digest, Shelf};

use super::fetch::{Wish, read_manifest};
use super::gathering::Gathering;
use super::tries::{NotCarried, Patience, Tried};
use super::{Bulk, Trouble, blocking, internal};
use crate::right::Right;

/// Who takes the bytes of a blob.
pub(crate) trait Taking: Send {
    /// Why it does not.
    type Error: Send;

    /// They begin, for the first time or anew.
    fn begin(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the next chunks may be read while some are taken:
    /// [`windlass_protocol::limits::FOLLOWED_HELD_BYTES`] are paid for.
    fn reads_ahead(&self) -> bool;

    /// The next of them.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl Bulk {
    /// Reads one blob, a large one through the cache where it has room, else past it. Whether its bytes are right is for whoever
    /// takes them.
    pub(crate) async fn pull<T: Taking>(
        &self,
        job: &JobSpec,
        right: &Right,
        (shelf, digest): (Shelf, Digest),
        into: &mut T,
    ) -> Result<(), NotCarried<T::Error>> {
        let mut patience = Patience::of(shelf);
        let namespace = job.namespace.on(shelf);
        let wish = Wish::of_job(job, right, &namespace);
        let mut in_parts = true;
        loop {
            match self.try_pull(&wish, digest, in_parts, into).await {
                Ok(Pulled::All) => return Ok(()),
                Ok(Pulled::NoRoom) => in_parts = false,
                Err(tried) => patience.again(job, tried).await?,
            }
        }
    }

    async fn try_pull<T: Taking>(
        &self,
        wish: &Wish<'_>,
        digest: Digest,
        in_parts: bool,
        into: &mut T,
    ) -> Result<Pulled, Tried<T::Error>> {
        let own = |error| Tried::Not(NotCarried::Own(error));
        if let Some(blob) = self.cached(wish.namespace, digest).await.map_err(Trouble::from)? {
            return hand_over(blob, into).await;
        }
        let wanted = if in_parts { Wanted::Parts(vec![digest]) } else { Wanted::Whole(vec![digest]) };
        let (mut send, mut recv) = self.ask(wish.bearer, wanted).await?;
        send.finish()?;
        let mut left = match recv.recv_message::<BlobHeader>().await?.ok_or(LinkError::Short { missing: 1 })? {
            BlobHeader::Found { bytes } => bytes,
            BlobHeader::Manifest { bytes } => {
                let manifest = read_manifest(&mut recv, digest, bytes).await?;
                return self.pull_chunks(wish, manifest, into).await;
            }
            BlobHeader::Absent | BlobHeader::Elsewhere | BlobHeader::Waiting | BlobHeader::Packed { .. } => {
                return Err(Tried::Not(NotCarried::Refused("its bytes are not in the cache any more".to_owned())));
            }
        };
        into.begin().await.map_err(own)?;
        while left > 0 {
            let piece = recv.recv_raw(left).await?;
            left -= piece.len() as u64;
            into.take(piece).await.map_err(own)?;
        }
        Ok(Pulled::All)
    }

    async fn pull_chunks<T: Taking>(
        &self,
        wish: &Wish<'_>,
        manifest: ChunkManifest,
        into: &mut T,
    ) -> Result<Pulled, Tried<T::Error>> {
        let digest = manifest.digest();
        if !self.store.has_room_for(manifest.blob_bytes()) {
            return Ok(Pulled::NoRoom);
        }
        let (gathered, followed) = if manifest.is_woven() {
            (self.gather(wish, manifest).await, Ok(false))
        } else {
            self.gather_followed(wish, manifest, into).await
        };
        let is_all = followed.map_err(|error| Tried::Not(NotCarried::Own(error)))?;
        match gathered {
            Ok(()) if is_all => return Ok(Pulled::All),
            Ok(()) => {}
            Err(Trouble::Cause(cause)) if cause.kind == CauseKind::DiskFull => {
                tracing::info!(%digest, %cause, "blob_passes_the_cache");
                return Ok(Pulled::NoRoom);
            }
            Err(trouble) => return Err(trouble.into()),
        }
        match self.cached(wish.namespace, digest).await.map_err(Trouble::from)? {
            Some(blob) => hand_over(blob, into).await,
            // Evicted before it was read.
            None => Ok(Pulled::NoRoom),
        }
    }

    /// Brings a blob whose chunks are its bytes in order, and hands them over while others come; says whether that was all of
    /// them. Whoever takes no more ends the bringing too.
    async fn gather_followed<T: Taking>(
        &self,
        wish: &Wish<'_>,
        manifest: ChunkManifest,
        into: &mut T,
    ) -> (Result<(), Trouble>, Result<bool, T::Error>) {
        let gathering = match self.gatherings.begin(wish.base, manifest.clone()).await {
            Ok(Some(gathering)) => gathering,
            Ok(None) => return (self.gather(wish, manifest).await, Ok(false)),
            Err(cause) => return (Err(cause.into()), Ok(false)),
        };
        let ((over, is_over), (stop, stopped)) = (oneshot::channel::<()>(), oneshot::channel());
        let gathers = async {
            let gathered = tokio::select! {
                gathered = self.gather(wish, manifest) => gathered,
                Ok(()) = stopped => Err(internal(&"nobody takes it any more").into()),
            };
            drop(over);
            gathered
        };
        let follows = async {
            let followed = follow(&gathering, is_over, into).await;
            if followed.is_err() {
                // It may have ended before.
                let _ = stop.send(());
            }
            followed
        };
        tokio::join!(gathers, follows)
    }
}

/// Hands chunks over in their order as they come, until `over`: then those that have come. Says whether these were all, and right.
async fn follow<T: Taking>(
    gathering: &Arc<Gathering>,
    mut over: oneshot::Receiver<()>,
    into: &mut T,
) -> Result<bool, T::Error> {
    into.begin().await?;
    let all = gathering.manifest().chunks().len();
    let (mut next, mut ready) = (0, Vec::new());
    while next < all {
        ready = if into.reads_ahead() {
            let come = async { Ok(come_from(gathering, (next, FOLLOWED_BYTES), &mut over).await) };
            // Whoever takes no more waits for no more either.
            let ((), come) = tokio::try_join!(take_all(into, ready), come)?;
            come
        } else {
            take_all(into, ready).await?;
            come_from(gathering, (next, 1), &mut over).await
        };
        if ready.is_empty() {
            return Ok(false);
        }
        next += ready.len();
    }
    take_all(into, ready).await?;
    Ok(true)
}

async fn take_all<T: Taking>(into: &mut T, chunks: Vec<Bytes>) -> Result<(), T::Error> {
    for chunk in chunks {
        into.take(chunk).await?;
    }
    Ok(())
}

/// The chunks from this one on, as many as have so many bytes, once it has come; none where it does not come any more, or is not right.
async fn come_from(
    gathering: &Arc<Gathering>,
    (first, bytes): (usize, usize),
    over: &mut oneshot::Receiver<()>,
) -> Vec<Bytes> {
    // No manifest has so many.
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    tokio::select! {
        biased;
        () = gathering.arrived(first) => {}
        _ = over => return Vec::new(),
    }
    // Whoever brings the blob meets what is wrong with it, too.
    gathering.chunks_from(first, bytes).await.unwrap_or_default()
}

/// What came of reading a blob.
enum Pulled {
    All,
    /// The agent's cache cannot take it.
    NoRoom,
}

/// Hands over a blob of the agent's cache.
async fn hand_over<T: Taking>(blob: Blob, into: &mut T) -> Result<Pulled, Tried<T::Error>> {
    let own = |error| Tried::Not(NotCarried::Own(error));
    into.begin().await.map_err(own)?;
    let (mut piece, mut reader) = piece_of(blob.reader()).await?;
    while !piece.is_empty() {
        // While it is taken the next one is read.
        let (taken, next) = tokio::join!(into.take(piece), piece_of(reader));
        taken.map_err(own)?;
        (piece, reader) = next?;
    }
    Ok(Pulled::All)
}

/// The next bytes of a blob; none at its end.
async fn piece_of(mut reader: BlobReader) -> Result<(Bytes, BlobReader), Trouble> {
    let read = blocking(move || {
        let mut piece = vec![0; LINK_BLOB_PIECE_BYTES];
        let read = reader.read(&mut piece).map_err(|e| internal(&e))?;
        piece.truncate(read);
        Ok((piece.into(), reader))
    });
    Ok(read.await?)
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Namespace;

    use super::super::gathering::Gatherings;
    use super::super::kit::{memory, noise};
    use super::*;
    use crate::link_kit::in_time;

    struct Refuses;

    impl Taking for Refuses {
        type Error = usize;

        async fn begin(&mut self) -> Result<(), usize> {
            Ok(())
        }

        fn reads_ahead(&self) -> bool {
            true
        }

        async fn take(&mut self, bytes: Bytes) -> Result<(), usize> {
            Err(bytes.len())
        }
    }

    #[tokio::test]
    async fn whoever_takes_no_more_does_not_wait_for_the_next_chunk() {
        let (elsewhere, namespace) = (memory(), Namespace::trusted("web"));
        let digest = elsewhere.put(&namespace, &noise(1, 8 << 20)).unwrap();
        let blob = elsewhere.get(&namespace, &digest).unwrap().unwrap();
        let gatherings = Gatherings::new(memory());
        let gathering = gatherings.begin(&namespace, blob.manifest().unwrap().clone()).await.unwrap().unwrap();
        gathering.put(0, blob.chunk(0).unwrap().unwrap().into()).await.unwrap();
        let (_goes_on, over) = oneshot::channel();
        assert!(in_time(follow(&gathering, over, &mut Refuses)).await.is_err());
    }
}
