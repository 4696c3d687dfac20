//! Ranges of a segment in which no whole record is found, and how they are taken out of the way.

use std::io;

use super::record::{Header, Kind, RECORD_HEADER_BYTES};
use super::{Check, HEAD_BYTES, HEAD_COPY_BYTES, Window, head, read};
use crate::appender::NO_DIGEST;
use crate::vfs::VfsFile;

/// Bytes between whole records, as offset and length; what is torn off the end is none.
pub(crate) fn holes(file: &dyn VfsFile, salt: &[u8; 32]) -> io::Result<Vec<(u64, u64)>> {
    let mut window = Window { file, len: file.len()?, start: 0, bytes: Vec::new() };
    let mut holes = Vec::new();
    let (mut at, mut end) = (HEAD_BYTES, HEAD_BYTES);
    while let Some(header) = window.slice(at, RECORD_HEADER_BYTES)? {
        let header = Header::decode(header, salt, at);
        let payload_at = at + RECORD_HEADER_BYTES as u64;
        let whole = match &header {
            Some(header) => read(&mut window, header, payload_at, Check::Everything)?.is_some(),
            None => false,
        };
        let Some(header) = header.filter(|_| whole) else {
            at = window.next_magic(at + 1)?;
            continue;
        };
        if at > end {
            holes.push((end, at - end));
        }
        end = payload_at + u64::from(header.payload_bytes);
        at = end;
    }
    Ok(holes)
}

/// Makes a record of a hole that says nothing; its bytes after the header stay as they are. A hole is never shorter than a
/// header, for it was a record.
pub(crate) fn fill(file: &dyn VfsFile, salt: &[u8; 32], (offset, bytes): (u64, u64)) -> io::Result<()> {
    let payload_bytes = bytes.checked_sub(RECORD_HEADER_BYTES as u64).and_then(|bytes| u32::try_from(bytes).ok());
    let Some(payload_bytes) = payload_bytes else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut payload = vec![0; payload_bytes as usize];
    file.read_exact_at(offset + RECORD_HEADER_BYTES as u64, &mut payload)?;
    let payload_crc = crc32fast::hash(&payload);
    let header = Header { kind: Kind::Void, namespace: 0, payload_bytes, payload_crc, digest: NO_DIGEST };
    file.write_at(offset, &header.encode(salt, offset))
}

/// How many of the head's bytes are not what they were: of one copy, for a segment without any has no salt. A head that was
/// never written whole is a crash's doing, and no damage.
pub(crate) fn damaged_head_bytes(file: &dyn VfsFile, salt: &[u8; 32]) -> io::Result<u64> {
    let (right, mut found) = (head(salt), vec![0; 2 * HEAD_COPY_BYTES]);
    if file.len()? < found.len() as u64 {
        return Ok(0);
    }
    file.read_exact_at(0, &mut found)?;
    let copies = right.chunks(HEAD_COPY_BYTES).zip(found.chunks(HEAD_COPY_BYTES));
    Ok(copies.filter(|(right, found)| right != found).map(|(copy, _)| copy.len() as u64).sum())
}

/// Writes both copies of the head again.
pub(crate) fn mend_head(file: &dyn VfsFile, salt: &[u8; 32]) -> io::Result<()> {
    file.write_at(0, &head(salt))
}
