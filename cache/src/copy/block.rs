//! A copy's bytes: blocks, each with a keyed hash over what it holds and where it stands.
//!
//! ```text
//! magic "WLTAB\x01\0\0"   key, 32 bytes, drawn for this copy
//! block: kind u32 | payload length u32 | hash, 32 bytes | payload        (again and again; the last one is `Kind::End`)
//! ```
//! The hash is BLAKE3 of the block's number, kind, length and payload, keyed with the copy's key: a block counts only whole, in
//! its place and in its copy.

use std::io;

use windlass_protocol::limits::{COPY_BLOCK_BYTES, COPY_BLOCK_MAX_BYTES, COPY_PIECE_BYTES};

use super::cursor::Cursor;
use crate::vfs::VfsFile;

const MAGIC: [u8; 8] = *b"WLTAB\x01\0\0";
const HEAD_BYTES: u64 = 40;
const BLOCK_HEAD_BYTES: usize = 40;

/// What a block holds. Blocks come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Summary,
    Segments,
    Declared,
    Names,
    Sets,
    Wide,
    Rows,
    Noted,
    Stale,
    Aliases,
    Files,
    Listings,
    Chunks,
    End,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Summary,
        Self::Segments,
        Self::Declared,
        Self::Names,
        Self::Sets,
        Self::Wide,
        Self::Rows,
        Self::Noted,
        Self::Stale,
        Self::Aliases,
        Self::Files,
        Self::Listings,
        Self::Chunks,
        Self::End,
    ];

    const fn code(self) -> u32 {
        self as u32 + 1
    }
}

fn hash(key: &[u8; 32], number: u64, head: &[u8], payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes()).update(head).update(payload);
    hasher.finalize()
}

/// Writes a copy.
pub(super) struct Out<'a> {
    file: &'a dyn VfsFile,
    key: [u8; 32],
    at: u64,
    unsynced: u64,
    blocks: u64,
    kind: Kind,
    payload: Vec<u8>,
}

impl<'a> Out<'a> {
    pub(super) fn begin(file: &'a dyn VfsFile) -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        file.write_at(0, &[&MAGIC[..], &key].concat())?;
        Ok(Self { file, key, at: HEAD_BYTES, unsynced: 0, blocks: 0, kind: Kind::Summary, payload: Vec::new() })
    }

    /// Adds things that are `each` bytes long, or one where that is none.
    pub(super) fn add(&mut self, kind: Kind, bytes: &[u8], each: Option<usize>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.kind != kind {
            self.flush()?;
            self.kind = kind;
        }
        let piece = each.map_or(bytes.len(), |each| (COPY_BLOCK_BYTES / each.max(1)).max(1) * each);
        for piece in bytes.chunks(piece.max(1)) {
            self.payload.extend_from_slice(piece);
            if self.payload.len() >= COPY_BLOCK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends it, durably; answers how long it is.
    pub(super) fn end(mut self) -> io::Result<u64> {
        self.flush()?;
        self.kind = Kind::End;
        self.block()?;
        self.file.sync_data()?;
        Ok(self.at)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.payload.is_empty() { Ok(()) } else { self.block() }
    }

    fn block(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let head = [self.kind.code().to_le_bytes(), len.to_le_bytes()].concat();
        let hash = hash(&self.key, self.blocks, &head, &self.payload);
        let block = [&head[..], hash.as_bytes(), &self.payload].concat();
        self.file.write_at(self.at, &block)?;
        self.at += block.len() as u64;
        self.unsynced += block.len() as u64;
        self.blocks += 1;
        self.payload.clear();
        if self.unsynced >= COPY_PIECE_BYTES {
            // Else who writes beside it waits for all of it.
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// The same bytes with hashes that are right, as far as blocks follow one another: what is tried on decoders gets past them.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = usize::try_from(HEAD_BYTES).unwrap_or_default();
    let Some(key) = bytes.get(8..40).and_then(|key| key.try_into().ok()) else { return bytes };
    for number in 0.. {
        let len = bytes.get(at + 4..at + 8).and_then(|len| len.try_into().ok()).map(u32::from_le_bytes);
        let Some((head, rest)) = bytes.get_mut(at..).and_then(|rest| rest.split_at_mut_checked(8)) else { break };
        let Some((seal, rest)) = rest.split_at_mut_checked(BLOCK_HEAD_BYTES - 8) else { break };
        let Some(payload) = len.and_then(|len| rest.get(..len as usize)) else { break };
        seal.copy_from_slice(hash(&key, number, head, payload).as_bytes());
        at += BLOCK_HEAD_BYTES + payload.len();
    }
    bytes
}

/// Reads a copy.
pub(super) struct In<'a> {
    file: &'a dyn VfsFile,
    len: u64,
    key: [u8; 32],
    at: u64,
    blocks: u64,
    last: Kind,
}

impl<'a> In<'a> {
    /// Nothing where it does not begin as one.
    pub(super) fn begin(file: &'a dyn VfsFile) -> io::Result<Option<Self>> {
        let len = file.len()?;
        let mut head = [0; 40];
        if len < HEAD_BYTES {
            return Ok(None);
        }
        file.read_exact_at(0, &mut head)?;
        let mut cursor = Cursor(&head);
        let key = cursor.array::<8>().filter(|magic| *magic == MAGIC).and_then(|_| cursor.array());
        Ok(key.map(|key| Self { file, len, key, at: HEAD_BYTES, blocks: 0, last: Kind::Summary }))
    }

    /// The next block. Nothing where none stands there that is whole and in its place.
    pub(super) fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        if self.len - self.at < BLOCK_HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.file.read_exact_at(self.at, &mut head)?;
        self.at += BLOCK_HEAD_BYTES as u64;
        let mut cursor = Cursor(&head);
        let (Some(code), Some(len), Some(expected)) = (cursor.u32(), cursor.u32(), cursor.array::<32>()) else {
            return Ok(None);
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code).filter(|kind| *kind >= self.last);
        let Some(kind) = kind.filter(|_| len as usize <= COPY_BLOCK_MAX_BYTES && u64::from(len) <= self.len - self.at)
        else {
            return Ok(None);
        };
        let mut payload = vec![0; len as usize];
        self.file.read_exact_at(self.at, &mut payload)?;
        self.at += u64::from(len);
        let [head, ..] = head.as_chunks::<8>().0 else { return Ok(None) };
        let whole = hash(&self.key, self.blocks, head, &payload) == blake3::Hash::from_bytes(expected);
        let ends = kind == Kind::End;
        if !whole || ends && (len > 0 || self.at != self.len) {
            return Ok(None);
        }
        (self.blocks, self.last) = (self.blocks + 1, kind);
        Ok(Some((kind, payload)))
    }
}
