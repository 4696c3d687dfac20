//! Reads chunks from their files and says whether they are what their names say.

use std::io;
use std::path::Path;

use windlass_protocol::Digest;
use windlass_protocol::limits::CHUNK_FILES_OPEN_MAX;

use super::frame::Unpacker;
use super::{ChunkPlace, FileNo};
use crate::error::{Fault, OrFault as _};
use crate::store::Shared;
use crate::vfs::VfsFile;

/// Reads chunks; keeps a few files open, the one used last at the end.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    files: Vec<(FileNo, Box<dyn VfsFile>)>,
    stored: Vec<u8>,
    unpacker: Unpacker,
}

impl ChunkReader {
    /// The chunk into `plain`; `false` where what lies there is not it, or its file is gone.
    pub(crate) fn read(
        &mut self,
        shared: &Shared,
        digest: &Digest,
        place: &ChunkPlace,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let path = shared.chunk_path(place.file);
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(place.stored_bytes as usize, 0);
        let Some(file) = self.file(shared, place.file)? else { return Ok(false) };
        let read = file.read_exact_at(place.offset, &mut stored);
        let right = match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Fault::io("reading", &path, e)),
            Ok(()) => self.unpacker.unpack(&stored, place.bytes as usize, plain).or_fault("unpacking", &path),
        };
        self.stored = stored;
        Ok(right? && Digest::of(plain) == *digest)
    }

    /// The same from a file that has no number.
    pub(crate) fn read_in(
        &mut self,
        (file, path): (&dyn VfsFile, &Path),
        digest: &Digest,
        place: &ChunkPlace,
        plain: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(place.stored_bytes as usize, 0);
        let right = self.read_frame((file, path), place, &mut stored, plain);
        self.stored = stored;
        Ok(right? && Digest::of(plain) == *digest)
    }

    fn read_frame(
        &mut self,
        (file, path): (&dyn VfsFile, &Path),
        place: &ChunkPlace,
        stored: &mut [u8],
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
            if self.files.len() == CHUNK_FILES_OPEN_MAX {
                self.files.remove(0);
            }
            self.files.push((number, file));
        }
        Ok(self.files.last().map(|(_, file)| &**file))
    }
}
