//! Storing what a job made, which passes through and leaves nothing here.

use bytes::Bytes;
use windlass_protocol::job::JobSpec;
use windlass_protocol::limits::PARTS_TRIES_MAX;
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{BulkAsk, StoreAnswer, StoreBlobs, StoreRefused, WantedBlob};
use windlass_protocol::{Digest, Shelf};

use super::Bulk;
use super::parts::Sieve;
use super::tries::{NotCarried, Patience, Tried};
use crate::right::Right;

/// What breaks a transfer from within.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// The link; it is tried again.
    Link(LinkError),
    /// The job's own side; it is not.
    Own(E),
}

impl<E> From<LinkError> for Broken<E> {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Takes the bytes of one blob on their way.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    into: Outlet<'a>,
    /// The coordinator has these already: an earlier connection broke after them.
    skip: u64,
    left: u64,
}

/// Where they go.
#[derive(Debug)]
pub(super) enum Outlet<'a> {
    /// Over the link, as they are.
    Link(&'a mut FramedSend),
    /// They are cut.
    Sieve(Box<Sieve<'a>>),
}

impl<'a> Feed<'a> {
    /// One that takes all bytes of a blob.
    pub(super) const fn whole(into: Outlet<'a>, bytes: u64) -> Self {
        Self { into, skip: 0, left: bytes }
    }

    /// What cut them, if they were cut.
    pub(super) fn into_sieve(self) -> Option<Box<Sieve<'a>>> {
        match self.into {
            Outlet::Sieve(sieve) => Some(sieve),
            Outlet::Link(_) => None,
        }
    }

    /// Sends the next bytes, from the beginning of the blob on. What is there already is passed over. More than the blob has
    /// are not sent: whoever reads it will see that it has changed.
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), LinkError> {
        let mut bytes = bytes.into();
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skip as u64;
        let _there = bytes.split_to(skip);
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= take as u64;
        match &mut self.into {
            _ if take == 0 => Ok(()),
            Outlet::Link(send) => send.send_raw(bytes.split_to(take)).await,
            Outlet::Sieve(sieve) => sieve.take(&bytes.split_to(take)).await,
        }
    }
}

impl<E> From<Broken<E>> for Tried<E> {
    fn from(broken: Broken<E>) -> Self {
        match broken {
            Broken::Link(error) => error.into(),
            Broken::Own(error) => Self::Not(NotCarried::Own(error)),
        }
    }
}

/// Who has the bytes of blobs that are stored.
pub(crate) trait Offering: Send {
    /// Why it does not.
    type Error: Send;

    /// Hands over the bytes of a blob, by its place. It may be asked for it again.
    fn read(
        &mut self,
        place: usize,
        feed: &mut Feed<'_>,
    ) -> impl Future<Output = Result<(), Broken<Self::Error>>> + Send;
}

impl Bulk {
    /// Stores blobs on a shelf of the job's namespace, durably; those that are missing there are asked for.
    pub(crate) async fn store<O: Offering>(
        &self,
        job: &JobSpec,
        right: &Right,
        (shelf, blobs): (Shelf, &[(Digest, u64)]),
        from: &mut O,
    ) -> Result<(), NotCarried<O::Error>> {
        let mut patience = Patience::of(shelf);
        let mut in_parts = PARTS_TRIES_MAX;
        loop {
            let (build, attempt, epoch) = (job.build, job.attempt, right.epoch());
            let offer = StoreBlobs { build, attempt, epoch, shelf, blobs: blobs.to_vec() };
            let parts = if in_parts > 0 { self.try_parts(&offer, from).await } else { Ok(()) };
            if parts.is_ok() && in_parts > 0 {
                // That took as long as its bytes did, and not because somebody was away.
                patience = Patience::of(shelf);
            }
            in_parts = in_parts.saturating_sub(1);
            let tried = match parts {
                Ok(()) => self.try_store(offer, from).await,
                Err(tried) => Err(tried),
            };
            match tried {
                Ok(()) => return Ok(()),
                Err(tried) => patience.again(job, tried).await?,
            }
        }
    }

    async fn try_store<O: Offering>(&self, offer: StoreBlobs, from: &mut O) -> Result<(), Tried<O::Error>> {
        let lengths: Vec<u64> = offer.blobs.iter().map(|(_, bytes)| *bytes).collect();
        let (mut send, mut recv) = self.open(&BulkAsk::Store(offer)).await?;
        let wanted = match answer(&mut recv).await? {
            StoreAnswer::Wanted(wanted) => wanted,
            other => return ended(other),
        };
        for WantedBlob { place, offset: skip } in wanted {
            let place = place as usize;
            let Some(left) = lengths.get(place).and_then(|bytes| bytes.checked_sub(skip)) else {
                return Err(Tried::Not(NotCarried::Refused("the coordinator wants what was not offered".to_owned())));
            };
            match from.read(place, &mut Feed { into: Outlet::Link(&mut send), skip, left }).await {
                Ok(()) => {}
                // What the coordinator says explains why it stopped reading.
                Err(Broken::Link(LinkError::Stopped { .. })) => break,
                Err(broken) => {
                    send.reset(Code::Canceled);
                    return Err(broken.into());
                }
            }
        }
        // The coordinator may have answered already, and stopped reading.
        let _ = send.finish();
        ended(answer(&mut recv).await?)
    }
}

async fn answer(recv: &mut FramedRecv) -> Result<StoreAnswer, LinkError> {
    recv.recv_message().await?.ok_or(LinkError::Short { missing: 1 })
}

fn ended<E>(answer: StoreAnswer) -> Result<(), Tried<E>> {
    match answer {
        StoreAnswer::Stored => Ok(()),
        StoreAnswer::Refused { code: StoreRefused::Unavailable, detail } => Err(Tried::Again(detail)),
        StoreAnswer::Refused { code: StoreRefused::Full | StoreRefused::WrongBytes, detail } => {
            Err(Tried::Not(NotCarried::Refused(detail)))
        }
        StoreAnswer::Wanted(_) => Err(Tried::Again("the coordinator asked twice".to_owned())),
    }
}
