//! Reads the copy back, where it is one of this store; whoever has a doubt reads the segments instead.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::mpsc;

use windlass_protocol::Digest;

use super::block::{In, Kind};
use super::cursor::{Cursor, Fixed as _};
use super::summary::{Sealed, Segments, Summary, Upto};
use crate::alias::Alias;
use crate::chunk::FileNo;
use crate::chunk::table::{Chunk, Table};
use crate::index::{Index, Known, Loading, ROW_BYTES};
use crate::vfs::VfsFile;

/// What lies in the store's directories, to which the copy is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Segments.
    pub(crate) segments: &'a [u32],
    /// Files of large blobs, with their lengths.
    pub(crate) large: &'a BTreeMap<String, u64>,
    /// Chunk files.
    pub(crate) chunk_files: &'a BTreeMap<FileNo, u64>,
}

/// What a copy says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) index: Index,
    pub(crate) table: Table,
    pub(crate) next_file: FileNo,
    pub(crate) upto: Upto,
    /// Of each segment that is there and that it was made of: its salt, and how far it went.
    pub(crate) segments: BTreeMap<u32, ([u8; 32], u64)>,
    /// Numbers that mean in the segment that grew what they mean in the index.
    pub(crate) declared: Vec<u32>,
    /// The chunks of all blobs have to be counted: it is not known what counted on them that is gone.
    pub(crate) recount: bool,
}

/// Blocks that are read ahead.
const AHEAD: usize = 2;

/// Nothing where it is no copy of this store.
pub(crate) fn read(file: &dyn VfsFile, found: Found<'_>) -> io::Result<Option<Loaded>> {
    let len = file.len()?;
    let Some(mut blocks) = In::begin(file)? else { return Ok(None) };
    let (send, receive) = mpsc::sync_channel(AHEAD);
    std::thread::scope(|scope| {
        // One thread reads and checks while the other puts rows in their places.
        let reading = scope.spawn(move || {
            loop {
                match blocks.next()? {
                    Some((Kind::End, _)) => return Ok(true),
                    None => return Ok(false),
                    Some(block) => {
                        if send.send(block).is_err() {
                            return Ok(false);
                        }
                    }
                }
            }
        });
        let mut reader = Reader::new(found, len);
        let right = receive.iter().all(|(kind, payload)| reader.block(kind, &payload).is_some());
        drop(receive);
        let whole: io::Result<bool> = reading.join().unwrap_or(Ok(false));
        Ok(if whole? && right { reader.finish() } else { None })
    })
}

struct Reader<'a> {
    found: Found<'a>,
    /// How long the copy is.
    len: u64,
    summary: Option<Summary>,
    segments: Segments,
    declared: Vec<u32>,
    loading: Option<Loading>,
    table: Table,
    last: Kind,
    rows: u64,
    aliases: u64,
    chunks: u64,
    /// Stale records by segment.
    stale: HashMap<u32, usize>,
}

impl<'a> Reader<'a> {
    fn new(found: Found<'a>, len: u64) -> Self {
        Self {
            found,
            len,
            summary: None,
            segments: Segments::new(),
            declared: Vec::new(),
            loading: None,
            table: Table::default(),
            last: Kind::Summary,
            rows: 0,
            aliases: 0,
            chunks: 0,
            stale: HashMap::new(),
        }
    }

    fn block(&mut self, kind: Kind, payload: &[u8]) -> Option<()> {
        self.come_to(kind)?;
        let mut cursor = Cursor(payload);
        let from = &mut cursor;
        while !from.is_empty() {
            match kind {
                Kind::Summary => {
                    let summary = Summary::decode(from)?;
                    self.summary.is_none().then(|| self.summary = Some(summary))?;
                }
                Kind::Segments => {
                    let sealed = Sealed::decode(from)?;
                    self.segments.insert(sealed.number, sealed).is_none().then_some(())?;
                }
                Kind::Declared => self.declared.push(from.u32()?),
                Kind::Names => self.loading.as_mut()?.name(from)?,
                Kind::Sets => self.loading.as_mut()?.set(from)?,
                Kind::Wide => self.loading.as_mut()?.wide(from)?,
                Kind::Rows => {
                    let large = self.found.large;
                    let there = |digest: &Digest, bytes: u64| large.get(&digest.to_hex()) == Some(&bytes);
                    self.loading.as_mut()?.row(from, there)?;
                    self.rows += 1;
                }
                Kind::Noted => self.loading.as_mut()?.noted(from)?,
                Kind::Stale => {
                    let segment = Cursor(from.0).u32()?;
                    self.loading.as_mut()?.accounts_mut().load_stale(from)?;
                    *self.stale.entry(segment).or_default() += 1;
                }
                Kind::Aliases => {
                    self.loading.as_mut()?.alias(from)?;
                    self.aliases += 1;
                }
                Kind::Files => {
                    let files = self.found.chunk_files;
                    self.table.load_file(from, |file, bytes| files.get(&file) == Some(&bytes))?;
                }
                Kind::Listings => self.loading.as_mut()?.accounts_mut().load_listing(from)?,
                Kind::Chunks => {
                    self.table.load_chunk(from)?;
                    self.chunks += 1;
                }
                Kind::End => return None,
            }
        }
        Some(())
    }

    /// Ends what comes before blocks of this kind.
    fn come_to(&mut self, kind: Kind) -> Option<()> {
        if self.last < Kind::Names && kind >= Kind::Names {
            self.begin()?;
        }
        if self.last <= Kind::Rows
            && kind > Kind::Rows
            && let Some(loading) = &mut self.loading
        {
            loading.rows_end();
        }
        self.last = kind;
        Some(())
    }

    /// It is said how much there is, and which segments.
    fn begin(&mut self) -> Option<()> {
        let summary = self.summary?;
        let upto = self.segments.get(&summary.upto.segment)?;
        let last = *self.segments.keys().last()?;
        if upto.end != summary.upto.end || last != upto.number {
            return None;
        }
        let there = |number: &u32| self.found.segments.binary_search(number).is_ok();
        // One that is there and older, and that it does not know, was removed, and came back with a crash.
        let unknown = |number: &&u32| **number <= last && !self.segments.contains_key(number);
        if !there(&last) || self.found.segments.iter().any(|number| unknown(&number)) {
            return None;
        }
        let known = self.segments.iter().map(|(number, sealed)| (*number, (sealed.end, there(number)))).collect();
        // No more is reserved than the copy has bytes for.
        let count = |of: u64, each: usize| usize::try_from(of).ok().filter(|_| of <= self.len / each as u64);
        let (rows, aliases) = (count(summary.rows, ROW_BYTES)?, count(summary.aliases, Alias::BYTES)?);
        let mut loading = Loading::new(Known::new(&known)?, (rows, aliases), summary.clock, summary.alias_key);
        for sealed in self.segments.values() {
            loading.accounts_mut().load(sealed.number, sealed.balance);
        }
        self.table = Table::loading(count(summary.chunks, Chunk::BYTES)?);
        self.loading = Some(loading);
        Some(())
    }

    fn finish(mut self) -> Option<Loaded> {
        self.come_to(Kind::End)?;
        let summary = self.summary?;
        if (self.rows, self.aliases, self.chunks) != (summary.rows, summary.aliases, summary.chunks) {
            return None;
        }
        let there = |number: &u32| self.found.segments.binary_search(number).is_ok();
        let of = |sealed: &Sealed| self.stale.get(&sealed.number).copied().unwrap_or_default();
        // A segment that was about to go when it was copied, and did not.
        if self.segments.values().any(|sealed| there(&sealed.number) && of(sealed) != sealed.balance.stale) {
            return None;
        }
        let gone: Vec<u32> = self.segments.keys().copied().filter(|number| !there(number)).collect();
        let (index, recount) = self.loading?.finish(&gone)?;
        self.table.loaded();
        let known = self.segments.values().filter(|sealed| there(&sealed.number));
        Some(Loaded {
            index,
            table: self.table,
            next_file: summary.next_file,
            upto: summary.upto,
            segments: known.map(|sealed| (sealed.number, (sealed.salt, sealed.end))).collect(),
            declared: self.declared,
            recount,
        })
    }
}
