//! Which bytes of a tar archive are headers, times and files, told as the archive comes.
//!
//! Cut as one string, an archive whose files all have new times shares nothing with the one before: in front of each file stands
//! a header, and small files lie several to a chunk. So the bytes are told apart, and each kind is cut by itself. What is told
//! decides about sharing alone, never about content: whatever the bytes are, every one of them is told once and in order. So
//! nothing here is refused; what is no archive, or none any more, is a file to the end.
//!
//! Known are the headers of POSIX (ustar, pax) and of GNU tar (long names, sparse files), after "tar(5)" of libarchive and POSIX.1-2024,
//! `pax`. Times are the field `mtime` with the checksum behind it, and the records `mtime`, `atime` and `ctime` of pax headers.

use windlass_protocol::limits::{ARCHIVE_APART_BYTES, BLOB_MAX_BYTES, TAR_HEADS_MAX_BYTES, TAR_NOTES_MAX_BYTES};

/// What a header is, and what is padded to it.
const BLOCK_BYTES: usize = 512;

/// Times that one pax header has: its three, with room for what others add.
const PAX_TIMES_MAX: usize = 8;

/// Which string a byte is cut with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Headers but for their times, names, padding.
    Heads,
    /// Times, and the checksums that change with them.
    Times,
    /// Files; and all of what is no archive.
    Files,
}

impl Lane {
    /// All, in the order in which their chunks are named.
    pub const ALL: [Self; 3] = [Self::Heads, Self::Times, Self::Files];
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The next bytes.
    Bytes(Lane, &'a [u8]),
    /// A chunk of files ends here: what follows is long enough to be cut by itself, or such a file has ended.
    Apart,
}

/// Tells the bytes of a blob apart.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    /// What came of a block, or of a pax header, that has to be seen whole.
    held: Vec<u8>,
    /// The length of the next file, where a pax header said it.
    said_bytes: Option<u64>,
    /// What was told to be no file, for archives that are nothing but headers.
    beside_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header is to come.
    Header,
    /// More of a sparse file's map, of which so many bytes of a block came; then the file.
    Map { came: usize, more: bool, then: u64 },
    /// Bytes that need not be seen whole, and the padding behind them.
    Content { lane: Lane, left: u64, pad: u64 },
    /// A pax header's records, and the padding behind them.
    Notes { bytes: usize, pad: u64 },
    /// Padding.
    Padding { left: u64 },
    /// No archive.
    Plain,
}

/// A header that is one.
struct Header {
    kind: u8,
    bytes: u64,
    /// The map of a sparse file goes on behind it.
    mapped: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { state: State::Header, held: Vec::new(), said_bytes: None, beside_bytes: 0 }
    }
}

impl Splitter {
    /// Takes the next bytes; tells those that can be told by now.
    ///
    /// # Errors
    /// What `tell` answers; the splitter is of no use then.
    pub fn push<E>(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Plain => {
                    self.finish(tell)?;
                    tell(Part::Bytes(Lane::Files, bytes))?;
                    bytes.len()
                }
                State::Header => self.header(bytes, tell)?,
                State::Notes { bytes: all, pad } => self.notes(bytes, (all, pad), tell)?,
                State::Map { .. } | State::Content { .. } | State::Padding { .. } => self.pass(bytes, tell)?,
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Tells what is held back: nothing more comes.
    ///
    /// # Errors
    /// What `tell` answers.
    pub fn finish<E>(&mut self, tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        let held = std::mem::take(&mut self.held);
        self.state = State::Plain;
        if held.is_empty() { Ok(()) } else { tell(Part::Bytes(Lane::Files, &held)) }
    }

    /// From here on nothing is told apart.
    pub fn give_up(&mut self) {
        self.state = State::Plain;
    }

    /// More of a block that is to be a header.
    fn header<E>(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<usize, E> {
        let (come, _) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.held.len()));
        self.held.extend_from_slice(come);
        let Some(block) = self.held.first_chunk::<BLOCK_BYTES>().copied() else { return Ok(come.len()) };
        if self.beside_bytes > TAR_HEADS_MAX_BYTES {
            self.finish(tell)?;
            return Ok(come.len());
        }
        if block == [0; BLOCK_BYTES] && self.beside_bytes > 0 {
            // The end; or another archive behind this one.
            self.held.clear();
            self.said_bytes = None;
            self.beside(Lane::Heads, &block, tell)?;
            return Ok(come.len());
        }
        let Some(header) = parse(&block) else {
            self.finish(tell)?;
            return Ok(come.len());
        };
        self.held.clear();
        let (before, rest) = block.split_at(136);
        let (times, after) = rest.split_at(20);
        self.beside(Lane::Heads, before, tell)?;
        self.beside(Lane::Times, times, tell)?;
        self.beside(Lane::Heads, after, tell)?;
        self.enter(&header, tell)?;
        Ok(come.len())
    }

    /// What follows a header.
    fn enter<E>(&mut self, header: &Header, tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        let of_notes = matches!(header.kind, b'x' | b'g' | b'X' | b'L' | b'K');
        let said = if of_notes { None } else { self.said_bytes.take() };
        // Links, devices and directories have nothing behind them, whatever their length says.
        let bytes = match header.kind {
            b'1'..=b'6' => 0,
            _ => said.unwrap_or(header.bytes),
        };
        self.state = match header.kind {
            _ if bytes > BLOB_MAX_BYTES => State::Plain,
            _ if of_notes && bytes <= TAR_NOTES_MAX_BYTES => {
                let (bytes, pad) = (usize::try_from(bytes).unwrap_or_default(), padding(bytes));
                if bytes == 0 { State::Header } else { State::Notes { bytes, pad } }
            }
            _ if header.mapped => State::Map { came: 0, more: false, then: bytes },
            _ => return self.content(bytes, tell),
        };
        Ok(())
    }

    fn content<E>(&mut self, bytes: u64, tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        if bytes >= ARCHIVE_APART_BYTES {
            tell(Part::Apart)?;
        }
        let pad = padding(bytes);
        self.state = if bytes == 0 { State::Header } else { State::Content { lane: Lane::Files, left: bytes, pad } };
        Ok(())
    }

    /// More of what need not be seen whole.
    fn pass<E>(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>) -> Result<usize, E> {
        let up_to = |left: u64| bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())).0;
        match self.state {
            State::Content { lane, left, pad } => {
                let come = up_to(left);
                tell(Part::Bytes(lane, come))?;
                let left = left - come.len() as u64;
                self.state = match left {
                    0 if pad == 0 => State::Header,
                    0 => State::Padding { left: pad },
                    left => State::Content { lane, left, pad },
                };
                Ok(come.len())
            }
            State::Padding { left } => {
                let come = up_to(left);
                self.beside(Lane::Heads, come, tell)?;
                let left = left - come.len() as u64;
                self.state = if left == 0 { State::Header } else { State::Padding { left } };
                Ok(come.len())
            }
            State::Map { came, more, then } => {
                let come = up_to((BLOCK_BYTES - came) as u64);
                self.beside(Lane::Heads, come, tell)?;
                // Whether there is another block is said by its byte 504.
                let more =
                    more || 504_usize.checked_sub(came).and_then(|at| come.get(at)).is_some_and(|flag| *flag != 0);
                let came = came + come.len();
                match (came == BLOCK_BYTES, more && self.beside_bytes <= TAR_HEADS_MAX_BYTES) {
                    (false, _) => self.state = State::Map { came, more, then },
                    (true, true) => self.state = State::Map { came: 0, more: false, then },
                    (true, false) => self.content(then, tell)?,
                }
                Ok(come.len())
            }
            State::Header | State::Notes { .. } | State::Plain => Ok(bytes.len()),
        }
    }

    /// More of a pax header's records, or of a long name.
    fn notes<E>(
        &mut self,
        bytes: &[u8],
        (all, pad): (usize, u64),
        tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (come, _) = bytes.split_at(bytes.len().min(all - self.held.len()));
        self.held.extend_from_slice(come);
        if self.held.len() == all {
            let notes = std::mem::take(&mut self.held);
            let (mut rest, mut times) = (&notes[..], 0);
            while let Some([key, value, record, after]) = record(rest) {
                let is_time = matches!(key, b"mtime" | b"atime" | b"ctime") && times < PAX_TIMES_MAX;
                times += usize::from(is_time);
                self.beside(if is_time { Lane::Times } else { Lane::Heads }, record, tell)?;
                if key == b"size" {
                    self.said_bytes = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                }
                rest = after;
            }
            self.beside(Lane::Heads, rest, tell)?;
            self.state = if pad == 0 { State::Header } else { State::Padding { left: pad } };
        }
        Ok(come.len())
    }

    /// Tells what is no file.
    fn beside<E>(
        &mut self,
        lane: Lane,
        bytes: &[u8],
        tell: &mut dyn FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.beside_bytes += bytes.len() as u64;
        if bytes.is_empty() { Ok(()) } else { tell(Part::Bytes(lane, bytes)) }
    }
}

/// What is missing to the next block.
const fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % BLOCK_BYTES as u64
}

fn parse(block: &[u8; BLOCK_BYTES]) -> Option<Header> {
    let magic = block.get(257..262)?;
    // Some programs have summed signed bytes.
    let field = |at: std::ops::Range<usize>| block.get(at).and_then(number);
    let sum = field(148..156)?;
    let spaced = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let unsigned: u64 = (0..).zip(block).map(|(at, byte)| u64::from(spaced(at, *byte))).sum();
    let signed: i64 = (0..).zip(block).map(|(at, byte)| i64::from(spaced(at, *byte).cast_signed())).sum();
    if magic != b"ustar" || sum != unsigned && i64::try_from(sum).ok() != Some(signed) {
        return None;
    }
    let kind = block[156];
    // A GNU sparse file has four places of its map in its header; its byte 482 says that there are more.
    Some(Header { kind, bytes: field(124..136)?, mapped: kind == b'S' && block[482] != 0 })
}

/// A number of a header: octal digits between spaces and zeros, or GNU's binary one where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first & 0x80 != 0 {
        let start = u64::from(*first & 0x7F);
        return rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits = field.trim_ascii_start().split(|byte| matches!(byte, b' ' | 0)).next()?;
    let digit = |sum: u64, byte: &u8| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, digit)
}

/// Key, value and all of the first pax record, and what follows it: `LENGTH KEY=VALUE\n`, its length with all of that.
fn record(bytes: &[u8]) -> Option<[&[u8]; 4]> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some([pair.get(..equals)?, pair.get(equals + 1..)?, record, rest])
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn header(kind: u8, size: &[u8; 12]) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        block[..4].copy_from_slice(b"name");
        block[124..136].copy_from_slice(size);
        block[136..148].copy_from_slice(b"14741630000\0");
        block[148..156].fill(b' ');
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        sealed(block)
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn octal(bytes: u64) -> [u8; 12] {
        format!("{bytes:011o}\0").into_bytes().try_into().unwrap()
    }

    fn member(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = header(kind, &octal(content.len() as u64));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        out
    }

    /// What is told of these bytes, fed so many at a time, runs of a lane together: `h`, `t` or `f` and how many, `|` where a
    /// chunk ends.
    fn told_of(bytes: &[u8], piece: usize) -> String {
        let (mut runs, mut seen): (Vec<(char, usize)>, Vec<u8>) = Default::default();
        let mut tell = |part: Part<'_>| {
            match part {
                Part::Apart => runs.push(('|', 0)),
                Part::Bytes(lane, bytes) => {
                    seen.extend_from_slice(bytes);
                    let name = ['h', 't', 'f'][lane as usize];
                    match runs.last_mut().filter(|(last, _)| *last == name) {
                        Some((_, sum)) => *sum += bytes.len(),
                        None => runs.push((name, bytes.len())),
                    }
                }
            }
            Ok::<_, Infallible>(())
        };
        let mut splitter = Splitter::default();
        for piece in bytes.chunks(piece) {
            splitter.push(piece, &mut tell).unwrap();
        }
        splitter.finish(&mut tell).unwrap();
        assert_eq!(seen, bytes, "every byte once, in order");
        runs.iter().map(|(name, bytes)| if *name == '|' { "|".to_owned() } else { format!("{name}{bytes} ") }).collect()
    }

    fn told(bytes: &[u8]) -> String {
        let at_once = told_of(bytes, usize::MAX);
        for piece in [1, 7, 511, 513] {
            assert_eq!(told_of(bytes, piece), at_once, "however they come");
        }
        at_once
    }

    const END: [u8; 1_024] = [0; 1_024];

    #[test]
    fn headers_times_and_files_are_told_apart() {
        let file = member(b'0', &[1; 700]);
        assert_eq!(told(&[&file[..], &END].concat()), "h136 t20 h356 f700 h1348 ");
        let empty = member(b'0', &[]);
        assert_eq!(told(&[&empty[..], &file].concat()), "h136 t20 h492 t20 h356 f700 h324 ");
        let dir = member(b'5', &[]);
        let hard_link = header(b'1', &octal(700));
        assert_eq!(told(&[&hard_link[..], &dir, &END].concat()), "h136 t20 h492 t20 h1380 ", "nothing behind a link");
        let large = member(b'0', &vec![2; 200_000]);
        assert_eq!(told(&[&file[..], &large].concat()), "h136 t20 h356 f700 h460 t20 h356 |f200000 h192 ");
        let joined = [&file[..], &END, &file, &END].concat();
        assert_eq!(told(&joined), "h136 t20 h356 f700 h1484 t20 h356 f700 h1348 ", "one archive behind the other");
    }

    #[test]
    fn long_names_pax_headers_and_sparse_files_are_known() {
        let file = member(b'0', &[1; 512]);
        let long = member(b'L', &[b'n'; 200]);
        assert_eq!(told(&[&long[..], &file].concat()), "h136 t20 h1004 t20 h356 f512 ");
        let pax = member(b'x', b"20 mtime=1700000.25\n11 path=ab\n");
        assert_eq!(told(&[&pax[..], &file].concat()), "h136 t20 h356 t20 h628 t20 h356 f512 ");
        // Its header says 0, as of one that is too large for a number there.
        let sized = [&member(b'x', b"12 size=600\n")[..], &header(b'0', &octal(0)), &[1; 1_024]].concat();
        assert_eq!(told(&[&sized[..], &END].concat()), "h136 t20 h1004 t20 h356 f600 h1448 ");
        let mut sparse = header(b'S', &octal(512));
        sparse[482] = 1;
        let mut map = vec![0; 512];
        map[504] = 1;
        let sparse = [&sealed(sparse)[..], &map, &[0; 512], &[3; 512], &file].concat();
        assert_eq!(told(&sparse), "h136 t20 h1380 f512 h136 t20 h356 f512 ");
        let mut binary = [0; 12];
        (binary[0], binary[11]) = (0x80, 9);
        assert_eq!(told(&[&header(b'0', &binary)[..], &[4; 512]].concat()), "h136 t20 h356 f9 h503 ");
    }

    #[test]
    fn what_is_no_archive_or_none_any_more_is_a_file_to_its_end() {
        assert_eq!(told(&[9; 3_000]), "f3000 ");
        assert_eq!(told(&[0; 3_000]), "f3000 ", "zeros alone are none");
        let file = member(b'0', &[1; 512]);
        assert_eq!(told(&file[..511]), "f511 ");
        let mut wrong = file.clone();
        wrong[3] ^= 1;
        assert_eq!(told(&wrong), "f1024 ", "a sum that is not right");
        assert_eq!(told(&[&file[..], b"rubbish behind it"].concat()), "h136 t20 h356 f529 ");
        assert_eq!(told(&[&file[..], &[7; 5_000], &file].concat()), "h136 t20 h356 f6536 ");
        let lying = header(b'0', &octal((8 << 30) - 1));
        assert_eq!(told(&[&lying[..], &file].concat()), "h136 t20 h356 |f1024 ", "longer than what follows");
        let mut huge = [0xFF; 12];
        assert_eq!(told(&[&header(b'0', &huge)[..], &file].concat()), "f1536 ", "no number");
        (huge[0], huge[1], huge[2], huge[3]) = (0x80, 0, 0, 0);
        let huge = header(b'0', &huge);
        assert_eq!(told(&[&huge[..], &file].concat()), "h136 t20 h356 f1024 ", "longer than any blob");
        assert_eq!(told(&header(b'0', b"not a number")), "f512 ");
        let name = header(b'L', &octal(70 << 10));
        assert_eq!(told(&[&name[..], &[5; 100]].concat()), "h136 t20 h356 f100 ", "no name is so long");
        let bad_pax = member(b'x', b"99 mtime=1\nzz");
        assert_eq!(told(&[&bad_pax[..], &file].concat()), "h136 t20 h1004 t20 h356 f512 ");
        let times = b"9 mtime=\n".repeat(20);
        assert_eq!(times.len(), 180);
        let many = told(&[&member(b'x', &times)[..], &file].concat());
        assert!(many.starts_with("h136 t20 h356 "), "{many}");
    }

    #[test]
    fn who_gives_up_tells_what_was_held_back_first() {
        let file = member(b'0', &[1; 512]);
        let (mut splitter, mut seen) = (Splitter::default(), Vec::new());
        let mut tell = |part: Part<'_>| {
            if let Part::Bytes(lane, bytes) = part {
                assert_eq!(lane, Lane::Files);
                seen.extend_from_slice(bytes);
            }
            Ok::<_, Infallible>(())
        };
        splitter.push(&file[..100], &mut tell).unwrap();
        splitter.give_up();
        splitter.push(&file[100..], &mut tell).unwrap();
        splitter.finish(&mut tell).unwrap();
        assert_eq!(seen, file);
    }
}
