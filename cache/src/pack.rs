//! Packs: many blobs in one body, for uploads over HTTP and for agents that fetch in batches.
//!
//! ```text
//! "WLPACK" 0x01 0, then for each blob: 1 u8, digest 32 bytes, length u64 little-endian, bytes; at the end 0 u8
//! ```
//! The end is marked, so that a body that was cut is found out. [`Decoder`] does no I/O: it takes pieces as they come and
//! holds none of them. [`Unpack`] puts what comes out into a store.

use std::io::{self, Write};

use windlass_protocol::limits::{PACK_MAX_BLOBS, PACK_MAX_BYTES};
use windlass_protocol::{Digest, Namespace};

use crate::blob::Blob;
use crate::error::{BadPack, Error, Fault, Rejected};
use crate::intake::Intake;
use crate::space::Reservation;
use crate::store::Store;

const MAGIC: [u8; 8] = *b"WLPACK\x01\0";
const BLOB: u8 = 1;
const END: u8 = 0;
const HEAD_BYTES: usize = 32 + 8;

/// The bytes of a pack beside those of its blobs: these, and [`PACK_BLOB_HEAD_BYTES`] for each.
pub const PACK_FRAME_BYTES: u64 = MAGIC.len() as u64 + 1;

/// What stands before each blob in a pack.
pub const PACK_BLOB_HEAD_BYTES: u64 = 1 + HEAD_BYTES as u64;

/// Writes a pack.
#[derive(Debug)]
pub struct PackWriter<W: Write> {
    out: W,
    blobs: usize,
    bytes: u64,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        Ok(Self { out, blobs: 0, bytes: 0 })
    }

    /// Whether a blob of this length still fits.
    #[must_use]
    pub const fn has_room_for(&self, len: u64) -> bool {
        self.blobs < PACK_MAX_BLOBS && self.bytes.saturating_add(len) <= PACK_MAX_BYTES
    }

    /// Adds bytes under their digest.
    ///
    /// # Errors
    /// `InvalidInput` where there is no room, and what `out` answers.
    pub fn add(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.head(digest, bytes.len() as u64)?;
        self.out.write_all(bytes)
    }

    /// Adds a stored blob, piece by piece.
    ///
    /// # Errors
    /// `InvalidInput` where there is no room, [`Fault::Damaged`] as `InvalidData` (the pack is of no use then), and what
    /// `out` answers.
    pub fn add_blob(&mut self, blob: Blob) -> io::Result<()> {
        self.head(&blob.digest(), blob.len())?;
        io::copy(&mut blob.reader(), &mut self.out).map(|_| ())
    }

    fn head(&mut self, digest: &Digest, len: u64) -> io::Result<()> {
        if !self.has_room_for(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the pack is full"));
        }
        self.blobs += 1;
        self.bytes += len;
        self.out.write_all(&[BLOB])?;
        self.out.write_all(digest.as_bytes())?;
        self.out.write_all(&len.to_le_bytes())
    }

    /// Marks the end and gives the writer back.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[END])?;
        Ok(self.out)
    }
}

/// What comes out of a pack, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A blob begins.
    Begin {
        /// What its bytes are said to be; not checked here.
        digest: Digest,
        /// How many they are.
        len: u64,
    },
    /// Its next bytes.
    Bytes(&'a [u8]),
    /// All of them came.
    End,
}

/// Reads a pack, piece by piece as it comes, without I/O.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    blobs: usize,
    bytes: u64,
}

#[derive(Debug)]
enum State {
    Magic(Gather<8>),
    Mark,
    Head(Gather<HEAD_BYTES>),
    Blob { left: u64 },
    End,
}

/// A few bytes that may come in pieces.
#[derive(Debug)]
struct Gather<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Gather<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], have: 0 }
    }

    /// Takes what is needed off `input`; answers all bytes once they are there.
    fn take(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let room = self.bytes.get_mut(self.have..).unwrap_or_default();
        let (taken, rest) = input.split_at(room.len().min(input.len()));
        room.get_mut(..taken.len()).unwrap_or_default().copy_from_slice(taken);
        self.have += taken.len();
        *input = rest;
        (self.have == N).then_some(self.bytes)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Magic(Gather::new()), blobs: 0, bytes: 0 }
    }
}

impl Decoder {
    /// Takes the next piece of a pack and tells what is in it.
    ///
    /// # Errors
    /// [`BadPack`] as soon as it shows, and what `on` answers; the decoder is of no use then.
    pub fn push<E: From<BadPack>>(
        &mut self,
        mut input: &[u8],
        on: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !input.is_empty() {
            self.step(&mut input, on)?;
        }
        Ok(())
    }

    fn step<E: From<BadPack>>(
        &mut self,
        input: &mut &[u8],
        on: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let next = match &mut self.state {
            State::Magic(gather) => match gather.take(input) {
                Some(MAGIC) => Some(State::Mark),
                Some(_) => return Err(BadPack::Version.into()),
                None => None,
            },
            State::Mark => match input.split_off_first() {
                Some(&BLOB) if self.blobs == PACK_MAX_BLOBS => return Err(BadPack::TooManyBlobs.into()),
                Some(&BLOB) => Some(State::Head(Gather::new())),
                Some(&END) => Some(State::End),
                Some(_) => return Err(BadPack::Mark.into()),
                None => None,
            },
            State::Head(gather) => match gather.take(input) {
                Some(head) => {
                    let (digest, len) = parse_head(head);
                    self.blobs += 1;
                    self.bytes = self.bytes.saturating_add(len);
                    if self.bytes > PACK_MAX_BYTES {
                        return Err(BadPack::TooLarge.into());
                    }
                    on(Event::Begin { digest, len })?;
                    Some(after(len, on)?)
                }
                None => None,
            },
            State::Blob { left } => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (bytes, rest) = input.split_at(n);
                *input = rest;
                on(Event::Bytes(bytes))?;
                Some(after(*left - n as u64, on)?)
            }
            State::End => return Err(BadPack::TrailingBytes.into()),
        };
        if let Some(next) = next {
            self.state = next;
        }
        Ok(())
    }

    /// Says that no more comes.
    ///
    /// # Errors
    /// [`BadPack::Truncated`] where more had to come.
    pub fn finish(self) -> Result<(), BadPack> {
        if matches!(self.state, State::End) { Ok(()) } else { Err(BadPack::Truncated) }
    }
}

fn parse_head(head: [u8; HEAD_BYTES]) -> (Digest, u64) {
    let (mut digest, mut len) = ([0; 32], [0; 8]);
    digest.copy_from_slice(&head[..32]);
    len.copy_from_slice(&head[32..]);
    (Digest::from_bytes(digest), u64::from_le_bytes(len))
}

fn after<E>(left: u64, on: &mut dyn FnMut(Event<'_>) -> Result<(), E>) -> Result<State, E> {
    if left > 0 {
        return Ok(State::Blob { left });
    }
    on(Event::End)?;
    Ok(State::Mark)
}

/// Puts the blobs of a pack into a store as they come.
#[derive(Debug)]
pub struct Unpack {
    decoder: Decoder,
    into: Intake,
}

impl Unpack {
    /// Begins with an empty pack.
    #[must_use]
    pub fn new(store: &Store, namespace: &Namespace) -> Self {
        Self { decoder: Decoder::default(), into: Intake::new(store, namespace) }
    }

    /// As [`Unpack::new`], in room that was kept for the pack before.
    #[must_use]
    pub fn within(store: &Store, namespace: &Namespace, space: Reservation) -> Self {
        Self { decoder: Decoder::default(), into: Intake::within(store, namespace, space) }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`Rejected::BadPack`], [`Rejected::WrongDigest`], and what storing answers. Blobs that were whole by then may be
    /// stored.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let into = &mut self.into;
        self.decoder.push(bytes, &mut |event| match event {
            Event::Begin { digest, len } => into.begin(digest, len),
            Event::Bytes(bytes) => into.push(bytes),
            Event::End => Ok(()),
        })
    }

    /// Ends the pack; answers its digests, in order, once all its blobs are stored.
    ///
    /// # Errors
    /// As [`Unpack::push`].
    pub fn finish(self) -> Result<Vec<Digest>, Error> {
        let done = self.into.finish()?;
        self.decoder.finish().map_err(Error::from)?;
        Ok(done)
    }
}

impl From<BadPack> for Error {
    fn from(bad: BadPack) -> Self {
        Self::Rejected(Rejected::BadPack(bad))
    }
}

/// What a failed [`PackWriter`] call means.
#[must_use]
pub fn damaged(error: &io::Error) -> Option<Digest> {
    match error.get_ref()?.downcast_ref::<Fault>()? {
        Fault::Damaged { digest } => Some(*digest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(blobs: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = PackWriter::new(Vec::new()).unwrap();
        for blob in blobs {
            writer.add(&Digest::of(blob), blob).unwrap();
        }
        writer.finish().unwrap()
    }

    /// The blobs of a pack that comes in pieces of `step` bytes.
    fn unpack(bytes: &[u8], step: usize) -> Result<Vec<(Digest, Vec<u8>)>, BadPack> {
        let mut decoder = Decoder::default();
        let (mut blobs, mut ended) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            decoder.push(piece, &mut |event| {
                match event {
                    Event::Begin { digest, .. } => blobs.push((digest, Vec::new())),
                    Event::Bytes(bytes) => blobs.last_mut().unwrap().1.extend_from_slice(bytes),
                    Event::End => ended += 1,
                }
                Ok::<(), BadPack>(())
            })?;
        }
        decoder.finish()?;
        assert_eq!(ended, blobs.len());
        Ok(blobs)
    }

    #[test]
    fn the_encoding_is_frozen() {
        let bytes = pack(&[b"ab".to_vec()]);
        let mut golden = b"WLPACK\x01\0\x01".to_vec();
        golden.extend_from_slice(Digest::of(b"ab").as_bytes());
        golden.extend_from_slice(b"\x02\0\0\0\0\0\0\0ab\0");
        assert_eq!(bytes, golden);
        assert_eq!(bytes.len() as u64, PACK_FRAME_BYTES + PACK_BLOB_HEAD_BYTES + 2);
    }

    #[test]
    fn hostile_packs_are_refused_each_for_its_reason() {
        let whole = pack(&[b"one".to_vec(), Vec::new()]);
        for cut in 0..whole.len() {
            assert_eq!(unpack(&whole[..cut], 5), Err(BadPack::Truncated), "cut at {cut}");
        }
        let mut trailing = whole.clone();
        trailing.push(0);
        assert_eq!(unpack(&trailing, 1), Err(BadPack::TrailingBytes));
        let mut mark = whole.clone();
        mark[8] = 2;
        assert_eq!(unpack(&mark, 100), Err(BadPack::Mark));
        let mut version = whole.clone();
        version[6] = 2;
        assert_eq!(unpack(&version, 3), Err(BadPack::Version));
        let mut large = whole;
        large[9 + 32..9 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(unpack(&large, 100), Err(BadPack::TooLarge));
        let many = [MAGIC.to_vec(), [vec![BLOB], vec![0; HEAD_BYTES]].concat().repeat(PACK_MAX_BLOBS + 1)].concat();
        assert_eq!(unpack(&many, 4_096), Err(BadPack::TooManyBlobs));
    }

    proptest! {
        #[test]
        fn a_pack_comes_back_whatever_pieces_it_comes_in(
            blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8),
            step in 1_usize..200,
        ) {
            let expected: Vec<_> = blobs.iter().map(|blob| (Digest::of(blob), blob.clone())).collect();
            prop_assert_eq!(unpack(&pack(&blobs), step), Ok(expected));
        }

        #[test]
        fn mutated_packs_are_refused_or_read_the_same_in_any_pieces(
            blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = pack(&blobs);
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let whole = unpack(&bytes, usize::MAX);
            prop_assert_eq!(unpack(&bytes, 1), whole.clone());
            if let Ok(blobs) = whole {
                let mut again = PackWriter::new(Vec::new()).unwrap();
                for (digest, blob) in &blobs {
                    again.add(digest, blob).unwrap();
                }
                prop_assert_eq!(again.finish().unwrap(), bytes);
            }
        }
    }
}
