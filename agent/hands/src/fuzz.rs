//! Fuzz entries of the decoders: any bytes at all, and what decodes survives being encoded again.

use crate::wire::{self, Answer, Bad, Hello, LENGTH_BYTES, Op};

/// What a decoder is called, and the function that feeds it; it says whether the bytes decode.
pub type Entry = (&'static str, fn(&[u8]) -> bool);

/// All entries.
pub const ENTRIES: &[Entry] = &[("hello", hello), ("op", op), ("answer", answer)];

/// What a job says first.
pub fn hello(bytes: &[u8]) -> bool {
    Hello::decode(bytes).is_ok_and(|hello| is_same(hello.encode(), bytes))
}

/// What a job is asked. A piece of a file is read the same by who copies it and by who does not.
pub fn op(bytes: &[u8]) -> bool {
    let decoded = Op::decode(bytes);
    let put = match &decoded {
        Ok(Op::Put { handle, bytes }) => Some((*handle, bytes.as_slice())),
        Ok(_) | Err(_) => None,
    };
    assert_eq!(wire::put(bytes).ok().flatten(), put, "a piece of a file has two meanings");
    let head = put.map(|(handle, piece)| wire::put_head(handle, piece.len()));
    assert!(head.is_none_or(|head| begins_with(bytes, head)), "a piece of a file has two heads");
    decoded.is_ok_and(|op| is_same(op.encode(), bytes))
}

/// What a job answers; a piece of a file as in [`op`].
pub fn answer(bytes: &[u8]) -> bool {
    let decoded = Answer::decode(bytes);
    let piece = match &decoded {
        Ok(Answer::Bytes(piece)) => Some(piece.as_slice()),
        Ok(_) | Err(_) => None,
    };
    let at = wire::piece(bytes).ok().flatten();
    assert_eq!(at.and_then(|at| bytes.get(at..)), piece, "a piece of a file has two meanings");
    let head = piece.map(|piece| wire::piece_head(piece.len()));
    assert!(head.is_none_or(|head| begins_with(bytes, head)), "a piece of a file has two heads");
    decoded.is_ok_and(|answer| is_same(answer.encode(), bytes))
}

fn begins_with<const N: usize>(bytes: &[u8], head: Result<[u8; N], Bad>) -> bool {
    let length = u32::try_from(bytes.len()).map(u32::to_le_bytes);
    head.is_ok_and(|head| length.is_ok_and(|length| [&length, bytes].concat().starts_with(&head)))
}

/// The form is the only one: what was decoded holds exactly the bytes that it came from.
fn is_same(frame: Result<Vec<u8>, Bad>, bytes: &[u8]) -> bool {
    assert!(frame.is_ok_and(|frame| frame.get(LENGTH_BYTES..) == Some(bytes)), "one message has two forms");
    true
}
