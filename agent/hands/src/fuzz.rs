//! Fuzz entries of the decoders: any bytes at all, and what decodes survives being encoded again.

use crate::wire::{Answer, Bad, Hello, LENGTH_BYTES, Op};

/// What a decoder is called, and the function that feeds it; it says whether the bytes decode.
pub type Entry = (&'static str, fn(&[u8]) -> bool);

/// All entries.
pub const ENTRIES: &[Entry] = &[("hello", hello), ("op", op), ("answer", answer)];

/// What a job says first.
pub fn hello(bytes: &[u8]) -> bool {
    Hello::decode(bytes).is_ok_and(|hello| is_same(hello.encode(), bytes))
}

/// What a job is asked.
pub fn op(bytes: &[u8]) -> bool {
    Op::decode(bytes).is_ok_and(|op| is_same(op.encode(), bytes))
}

/// What a job answers.
pub fn answer(bytes: &[u8]) -> bool {
    Answer::decode(bytes).is_ok_and(|answer| is_same(answer.encode(), bytes))
}

/// The form is the only one: what was decoded holds exactly the bytes that it came from.
fn is_same(frame: Result<Vec<u8>, Bad>, bytes: &[u8]) -> bool {
    assert!(frame.is_ok_and(|frame| frame.get(LENGTH_BYTES..) == Some(bytes)), "one message has two forms");
    true
}
