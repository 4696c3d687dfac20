//! Files of a job on their way to the coordinator: read through the job's hands, once to hash them and once to send them.

use windlass_protocol::Digest;

use crate::bulk::{Broken, Feed, Offering};
use crate::job_api::hands::{Hands, HandsError};

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

impl Outgoing {
    /// Reads a file of at most so many bytes, and shows every piece of it.
    pub(super) async fn read(
        hands: &mut Hands,
        file: Vec<u8>,
        most: u64,
        mut show: impl FnMut(&[u8]),
    ) -> Result<Self, FileError> {
        let handle = hands.open_file(&file).await?;
        let (mut whole, mut held, mut bytes) = (Box::new(blake3::Hasher::new()), Some(Vec::new()), 0_u64);
        loop {
            let piece = hands.read_some(handle, &file).await?;
            if piece.is_empty() {
                break;
            }
            bytes += piece.len() as u64;
            if bytes > most {
                hands.close(handle).await?;
                return Err(FileError::TooLarge(most));
            }
            whole.update(&piece);
            show(&piece);
            match &mut held {
                Some(few) if few.len() + piece.len() <= HELD_MAX_BYTES => few.extend_from_slice(&piece),
                _ => held = None,
            }
        }
        hands.close(handle).await?;
        Ok(Self { file, digest: Digest::from_hasher(&whole), bytes, held })
    }

    /// Sends its bytes, if they are still what they were.
    async fn send(&self, hands: &mut Hands, feed: &mut Feed<'_>) -> Result<(), Broken<FileError>> {
        if let Some(few) = &self.held {
            return Ok(feed.send(few.clone()).await?);
        }
        let own = |error: HandsError| Broken::Own(error.into());
        let handle = hands.open_file(&self.file).await.map_err(own)?;
        let (mut whole, mut bytes) = (Box::new(blake3::Hasher::new()), 0_u64);
        loop {
            let piece = hands.read_some(handle, &self.file).await.map_err(own)?;
            bytes += piece.len() as u64;
            if piece.is_empty() || bytes > self.bytes {
                break;
            }
            whole.update(&piece);
            if let Err(error) = feed.send(piece).await {
                hands.close(handle).await.map_err(own)?;
                return Err(error.into());
            }
        }
        hands.close(handle).await.map_err(own)?;
        if bytes != self.bytes || Digest::from_hasher(&whole) != self.digest {
            return Err(Broken::Own(FileError::Changed));
        }
        Ok(())
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
