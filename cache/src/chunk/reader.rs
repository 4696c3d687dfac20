//! Reads chunks from their files and says whether they are what their names say.

use std::io;
use std::path::Path;

use windlass_protocol::Digest;
use windlass_protocol::limits::CHUNK_FILES_OPEN_MAX;

use super::frame::Unpacker;
use super::{ChunkPlace, FileNo};
use crate::error::{Fault, OrFault as _};
use crate::remote::{Object, RemoteError};
use crate::store::Shared;
use crate::vfs::VfsFile;

/// Reads chunks; keeps a few files open, the one used last at the end.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    files: Vec<(FileNo, Box<dyn VfsFile>)>,
    /// Up to where bytes will be asked for soon, of the file that is read next, where that is in the bucket.
    pub(crate) ahead: u64,
    stored: Vec<u8>,
    /// Whether `stored` is the frame of what was read last.
    framed: bool,
    unpacker: Unpacker,
}

impl ChunkReader {
    /// The chunk into `plain`; `false` where what lies there is not it, or its file is gone. Of a file that is away that is said
    /// when it was fetched twice.
    pub(crate) fn read(
        &mut self,
        shared: &Shared,
        digest: &Digest,
        place: &ChunkPlace,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let right = self.read_once(shared, digest, place, plain)?;
        let away = shared.away.as_ref().filter(|away| !right && away.holds_chunk_file(place.file));
        let Some(away) = away else { return Ok(right) };
        let range = place.offset..place.offset + u64::from(place.stored_bytes);
        let distrusted = away.distrust(Object::Chunks(place.file), &range);
        distrusted.map_err(|e| e.fault("fetching", &shared.chunk_path(place.file)))?;
        self.read_once(shared, digest, place, plain)
    }

    fn read_once(
        &mut self,
        shared: &Shared,
        digest: &Digest,
        place: &ChunkPlace,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let path = shared.chunk_path(place.file);
        let mut stored = self.room_for(place);
        let ahead = std::mem::take(&mut self.ahead);
        let Some(file) = self.file(shared, place.file)? else {
            let right = self.fetch(shared, place, (ahead, &mut stored), plain);
            self.stored = stored;
            return Ok(right? && Digest::of(plain) == *digest);
        };
        let read = file.read_exact_at(place.offset, &mut stored);
        let right = match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Fault::io("reading", &path, e)),
            Ok(()) => self.unpacker.unpack(&mut stored, place.bytes as usize, plain).or_fault("unpacking", &path),
        };
        self.stored = stored;
        Ok(right? && Digest::of(plain) == *digest)
    }

    /// The frame from the bucket; `false` where it is not there either.
    fn fetch(
        &mut self,
        shared: &Shared,
        place: &ChunkPlace,
        (ahead, stored): (u64, &mut Vec<u8>),
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let path = shared.chunk_path(place.file);
        let Some(away) = shared.away.as_ref().filter(|away| away.holds_chunk_file(place.file)) else {
            return Ok(false);
        };
        match away.read_chunk(place.file, (place.offset, ahead), stored) {
            Err(RemoteError::Missing { .. }) => Ok(false),
            Err(e) => Err(e.fault("fetching", &path)),
            Ok(()) => self.unpacker.unpack(stored, place.bytes as usize, plain).or_fault("unpacking", &path),
        }
    }

    /// Where the chunk of this place is read to, as it is stored.
    fn room_for(&mut self, place: &ChunkPlace) -> Vec<u8> {
        self.framed = place.stored_bytes < place.bytes;
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(place.stored_bytes as usize, 0);
        stored
    }

    /// The frame of the chunk that was read last; nothing where it lies as it is.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        self.framed.then_some(&self.stored)
    }

    /// The same from a file that has no number.
    pub(crate) fn read_in(
        &mut self,
        (file, path): (&dyn VfsFile, &Path),
        digest: &Digest,
        place: &ChunkPlace,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let mut stored = self.room_for(place);
        let right = self.read_frame((file, path), place, &mut stored, plain);
        self.stored = stored;
        Ok(right? && Digest::of(plain) == *digest)
    }

    fn read_frame(
        &mut self,
        (file, path): (&dyn VfsFile, &Path),
        place: &ChunkPlace,
        stored: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        match file.read_exact_at(place.offset, stored) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Fault::io("reading", path, e)),
            Ok(()) => self.unpacker.unpack(stored, place.bytes as usize, plain).or_fault("unpacking", path),
        }
    }

    fn file(&mut self, shared: &Shared, number: FileNo) -> Result<Option<&dyn VfsFile>, Fault> {
        if let Some(at) = self.files.iter().position(|(open, _)| *open == number) {
            self.files[at..].rotate_left(1);
        } else {
            let path = shared.chunk_path(number);
            let file = match shared.vfs.open_read(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other.or_fault("opening", &path)?,
            };
            if let Some(away) = &shared.away {
                away.touch(Object::Chunks(number));
            }
            if self.files.len() == CHUNK_FILES_OPEN_MAX {
                self.files.remove(0);
            }
            self.files.push((number, file));
        }
        Ok(self.files.last().map(|(_, file)| &**file))
    }
}
