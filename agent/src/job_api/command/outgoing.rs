//! Files of a job on their way to the coordinator: read through the job's hands, once to hash them and once to send them.

use bytes::Bytes;
use windlass_protocol::Digest;
use windlass_protocol::limits::{HANDS_AHEAD, HANDS_CHUNK_BYTES};
use windlass_protocol::link::LinkError;

use crate::bulk::{Broken, Feed, Offering};
use crate::job_api::account::Account;
use crate::job_api::hands::{Hands, HandsError};
use crate::job_api::hashes::{Hashed, Hashes};

/// Bytes of a file that are held between hashing and sending it, so that small files are read once.
pub(super) const HELD_MAX_BYTES: usize = 64 << 10;

/// Why one file is not sent; others are.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Hands(#[from] HandsError),
    #[error("it changed while it was uploaded")]
    Changed,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
}

/// A file whose bytes are known.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Where it is, as the job's hands reach it.
    pub(super) file: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// The bytes themselves, where they are few.
    pub(super) held: Option<Vec<u8>>,
}

/// What is read of a file before it is dealt with, while what was read before is.
const AHEAD_BYTES: usize = 2 * HANDS_AHEAD * HANDS_CHUNK_BYTES;

/// A smaller piece is hashed where it is: to hand it on would take longer.
const HASHED_HERE_BYTES: usize = 64 << 10;

impl Outgoing {
    /// Reads a file of at most so many bytes, and hashes it; with its hashes by what else it is known.
    pub(super) async fn read(
        (hands, account): (&mut Hands, &Account),
        file: Vec<u8>,
        most: u64,
        hashes: Hashes,
    ) -> Result<(Self, Hashed), FileError> {
        let mut pieces = Pieces::open(hands, &file).await?;
        let read = read_all(&mut pieces, account, most, hashes).await;
        let closed = pieces.close().await;
        let (hashed, bytes, held) = read?;
        closed?;
        Ok((Self { file, digest: hashed.digest, bytes, held }, hashed))
    }

    /// Sends its bytes, if they are still what they were.
    async fn send(&self, hands: &mut Hands, feed: &mut Feed<'_>) -> Result<(), Broken<FileError>> {
        if let Some(few) = &self.held {
            return Ok(feed.send(few.clone()).await?);
        }
        let own = |error: HandsError| Broken::Own(error.into());
        let mut pieces = Pieces::open(hands, &self.file).await.map_err(own)?;
        let sent = self.send_all(&mut pieces, feed).await;
        let closed = pieces.close().await;
        sent?;
        closed.map_err(own)
    }

    async fn send_all(&self, pieces: &mut Pieces<'_>, feed: &mut Feed<'_>) -> Result<(), Broken<FileError>> {
        let own = |error: HandsError| Broken::Own(error.into());
        let (mut whole, mut bytes) = (Box::new(blake3::Hasher::new()), 0_u64);
        let mut next = pieces.next().await.map_err(own)?;
        while !next.is_empty() {
            bytes += length(&next);
            if bytes > self.bytes {
                break;
            }
            let sending = async {
                for piece in next {
                    whole.update(&piece);
                    feed.send(piece).await?;
                }
                Ok::<_, LinkError>(())
            };
            let (sent, read) = pieces.beside(sending).await;
            sent?;
            next = read.map_err(own)?;
        }
        if bytes != self.bytes || Digest::from_hasher(&whole) != self.digest {
            return Err(Broken::Own(FileError::Changed));
        }
        Ok(())
    }
}

fn length(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Hashes a file to its end: what it hashes to, its length, and its bytes where they are few.
async fn read_all(
    pieces: &mut Pieces<'_>,
    account: &Account,
    most: u64,
    mut hashes: Hashes,
) -> Result<(Hashed, u64, Option<Vec<u8>>), FileError> {
    let (mut held, mut bytes) = (Some(Vec::new()), 0_u64);
    let mut next = pieces.next().await?;
    while !next.is_empty() {
        let more = length(&next);
        bytes += more;
        if bytes > most {
            return Err(FileError::TooLarge(most));
        }
        match &mut held {
            Some(few) if bytes <= HELD_MAX_BYTES as u64 => next.iter().for_each(|piece| few.extend_from_slice(piece)),
            _ => held = None,
        }
        let hashing = async {
            let hash = move || {
                hashes.update(&next);
                hashes
            };
            if more <= HASHED_HERE_BYTES as u64 { Ok(hash()) } else { account.work(hash).await }
        };
        let (hashed, read) = pieces.beside(hashing).await;
        (hashes, next) = (hashed?, read?);
    }
    Ok((hashes.finish(), bytes, held))
}

/// An open file of a job. What is read of it ahead is paid for; where the job's account has no room for that, it is read piece
/// by piece.
struct Pieces<'a> {
    hands: &'a mut Hands,
    file: &'a [u8],
    handle: u32,
    ahead: bool,
}

impl<'a> Pieces<'a> {
    async fn open(hands: &'a mut Hands, file: &'a [u8]) -> Result<Self, HandsError> {
        let handle = hands.open_file(file).await?;
        Ok(Self { hands, file, handle, ahead: false })
    }

    /// The next bytes; none at its end.
    async fn next(&mut self) -> Result<Vec<Bytes>, HandsError> {
        let most = if self.ahead { HANDS_AHEAD } else { 1 };
        let mut pieces = Vec::with_capacity(most);
        while pieces.len() < most {
            let piece = self.hands.read_some(self.handle, self.file).await?;
            if piece.is_empty() {
                break;
            }
            let is_whole = piece.len() == HANDS_CHUNK_BYTES;
            pieces.push(piece);
            if !is_whole {
                break;
            }
            // Most files end before.
            self.ahead = self.ahead || self.hands.share.grow_ahead(AHEAD_BYTES);
        }
        Ok(pieces)
    }

    /// Does something with what was read, and reads what comes next: beside it, where that is paid for.
    async fn beside<T>(&mut self, doing: impl Future<Output = T>) -> (T, Result<Vec<Bytes>, HandsError>) {
        if self.ahead {
            return tokio::join!(doing, self.next());
        }
        (doing.await, self.next().await)
    }

    async fn close(self) -> Result<(), HandsError> {
        if self.ahead {
            self.hands.share.shrink(AHEAD_BYTES);
        }
        self.hands.abandon(self.handle).await
    }
}

/// Files, as they are asked for by their places; what fails is told with its place.
pub(super) struct Files<'a, T> {
    pub(super) hands: &'a mut Hands,
    pub(super) files: &'a [T],
}

impl<T: AsRef<Outgoing> + Sync> Offering for Files<'_, T> {
    type Error = (usize, FileError);

    async fn read(&mut self, place: usize, feed: &mut Feed<'_>) -> Result<(), Broken<Self::Error>> {
        let Some(file) = self.files.get(place) else { return Ok(()) };
        file.as_ref().send(self.hands, feed).await.map_err(|broken| match broken {
            Broken::Link(error) => Broken::Link(error),
            Broken::Own(error) => Broken::Own((place, error)),
        })
    }
}

impl AsRef<Self> for Outgoing {
    fn as_ref(&self) -> &Self {
        self
    }
}
