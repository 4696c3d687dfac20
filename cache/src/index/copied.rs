//! The table of blobs as it is copied, and as it is read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use windlass_protocol::limits::COPY_SEGMENTS_SPAN_MAX;
use windlass_protocol::{Digest, Namespace};

use super::sets::Sets;
use super::table::{Noted, Row, Wide};
use super::{CHUNKED, Index, LARGE, NamespaceNo, PROMISED, SET, Usage};
use crate::account::{Accounts, Balance};
use crate::alias::{Alias, Aliases};
use crate::copy::cursor::{Cursor, Fixed};
use crate::flat;
use crate::segment::{decode_namespace, encode_namespace};

/// What is copied a part of a table at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Wide,
    Rows,
    Noted,
    Aliases,
    Listings,
}

/// What a copy holds of the moment when it began; the rest is copied part by part.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) names: usize,
    pub(crate) sets: Vec<Arc<[NamespaceNo]>>,
    pub(crate) clock: u32,
    pub(crate) balances: BTreeMap<u32, Balance>,
    pub(crate) rows: usize,
    pub(crate) alias_key: Option<[u8; 32]>,
    pub(crate) aliases: usize,
}

impl Index {
    /// From here on the table is copied as it is now. Nothing where it cannot be.
    pub(crate) fn begin_copy(&mut self) -> Option<Begun> {
        let balances = self.accounts.begin_copy()?;
        self.table.begin_copy();
        self.wide.begin_copy();
        self.noted.begin_copy();
        self.aliases.table_mut().begin_copy();
        Some(Begun {
            names: self.names.len(),
            sets: self.sets.all(),
            clock: self.clock.load(Ordering::Relaxed),
            balances,
            rows: self.table.len(),
            alias_key: self.aliases.table_key(),
            aliases: self.aliases.table().len(),
        })
    }

    pub(crate) fn end_copy(&mut self) {
        self.accounts.end_copy();
        self.table.end_copy();
        self.wide.end_copy();
        self.noted.end_copy();
        self.aliases.table_mut().end_copy();
    }

    /// Adds one part of what is copied to `out`. Says whether it could be: else too much changed meanwhile.
    pub(crate) fn copy_part(&self, part: Part, shard: usize, out: &mut Vec<u8>) -> bool {
        match part {
            Part::Wide => self.wide.copy_shard(shard, &mut |row| row.encode(out)),
            Part::Rows => self.table.copy_shard(shard, &mut |row| row.encode(out)),
            Part::Noted => self.noted.copy_shard(shard, &mut |row| row.encode(out)),
            Part::Aliases => self.aliases.table().copy_shard(shard, &mut |row| row.encode(out)),
            Part::Listings => self.accounts.copy_listings(shard, out),
        }
    }

    /// A namespace's name as it is copied: its length (u16), and what a record says of it.
    pub(crate) fn copy_name(&self, nth: usize) -> Option<Vec<u8>> {
        let name = encode_namespace(self.names.get(nth)?)?;
        let len = u16::try_from(name.len()).ok()?;
        Some([&len.to_le_bytes(), &name[..]].concat())
    }
}

/// Which segments a copy knows, by number.
#[derive(Debug, Default)]
pub(crate) struct Known {
    first: u32,
    /// How far each was read, and whether it is there.
    ends: Vec<Option<(u32, bool)>>,
}

impl Known {
    /// Nothing where their numbers lie too far apart.
    pub(crate) fn new(segments: &BTreeMap<u32, (u64, bool)>) -> Option<Self> {
        let (first, last) = (*segments.keys().next()?, *segments.keys().last()?);
        if last - first > COPY_SEGMENTS_SPAN_MAX {
            return None;
        }
        let mut ends = vec![None; (last - first) as usize + 1];
        for (number, (end, there)) in segments {
            *ends.get_mut((number - first) as usize)? = Some((u32::try_from(*end).ok()?, *there));
        }
        Some(Self { first, ends })
    }

    fn get(&self, segment: u32) -> Option<(u32, bool)> {
        *self.ends.get(segment.checked_sub(self.first)? as usize)?
    }
}

/// A table that is read back.
#[derive(Debug)]
pub(crate) struct Loading {
    index: Index,
    known: Known,
    sets: Vec<Arc<[NamespaceNo]>>,
    /// By number of the set, how many blobs have it, and their bytes.
    per_set: Vec<(usize, u64)>,
    aliases: flat::Table<Alias>,
    alias_key: Option<[u8; 32]>,
    /// A blob in chunks is gone whose manifest cannot be read any more.
    recount: bool,
}

impl Loading {
    pub(crate) fn new(known: Known, (rows, aliases): (usize, usize), clock: u32, alias_key: Option<[u8; 32]>) -> Self {
        let mut index = Index::replaying();
        index.table = flat::Table::with_room(rows);
        *index.clock.get_mut() = clock;
        let aliases = flat::Table::with_room(aliases);
        Self { index, known, sets: Vec::new(), per_set: Vec::new(), aliases, alias_key, recount: false }
    }

    pub(crate) const fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.index.accounts
    }

    pub(crate) fn name(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let len = from.array().map(u16::from_le_bytes)?;
        let name: Namespace = decode_namespace(from.take(len.into())?)?;
        let before = self.index.names.len();
        self.index.intern(&name);
        (self.index.names.len() > before).then_some(())
    }

    /// A set: how many, and their numbers.
    pub(crate) fn set(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let len = from.u32()? as usize;
        let (numbers, []) = from.take(len.checked_mul(4)?)?.as_chunks::<4>() else { return None };
        let members: Vec<NamespaceNo> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
        let known = members.last().is_none_or(|last| (*last as usize) < self.index.names.len());
        (known && members.is_sorted_by(|a, b| a < b)).then_some(())?;
        self.sets.push(members.into());
        self.per_set.push((0, 0));
        Some(())
    }

    /// How long a blob is that is not small. They come before the rows.
    pub(crate) fn wide(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let wide = Wide::decode(from)?;
        self.index.wide.get(&wide.digest).is_none().then(|| self.index.wide.insert(wide))
    }

    /// A blob; `large` says whether one is there that has a file of its own. Where its segment is gone, so is the blob.
    pub(crate) fn row(&mut self, from: &mut Cursor<'_>, large: impl Fn(&Digest, u64) -> bool) -> Option<()> {
        let mut row = Row::decode(from)?;
        let (end, there) = self.known.get(row.segment)?;
        // Whom it was promised to is forgotten; that it counts as used now keeps it.
        *row.set.get_mut() &= !PROMISED;
        let word = *row.set.get_mut();
        let bytes = match word & (LARGE | CHUNKED) {
            0 => u64::from(row.bytes),
            LARGE | CHUNKED => self.index.wide.get(&row.digest)?.bytes,
            _ => return None,
        };
        if row.offset.checked_add(row.bytes)? > end || word & LARGE != 0 && there && !large(&row.digest, bytes) {
            return None;
        }
        let set = (word & SET) as usize;
        if self.sets.get(set)?.is_empty() {
            return None;
        }
        if !there {
            self.recount |= word & CHUNKED != 0;
            self.index.wide.remove(&row.digest);
            return Some(());
        }
        let (blobs, set_bytes) = self.per_set.get_mut(set)?;
        (*blobs, *set_bytes) = (*blobs + 1, set_bytes.checked_add(bytes)?);
        self.index.bytes = self.index.bytes.checked_add(bytes)?;
        self.index.large_bytes += if word & LARGE == 0 { 0 } else { bytes };
        self.index.table.push(row);
        Some(())
    }

    /// All rows were read.
    pub(crate) fn rows_end(&mut self) {
        self.index.table.link();
    }

    /// Who sees a blob is said again. Where that segment is gone, it is said once more after the copy.
    pub(crate) fn noted(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let noted = Noted::decode(from)?;
        let (_, there) = self.known.get(noted.segment)?;
        if there && self.index.table.get(&noted.digest).is_some() {
            self.index.noted.get(&noted.digest).is_none().then(|| self.index.noted.insert(noted))?;
        }
        Some(())
    }

    pub(crate) fn alias(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        self.aliases.push(Alias::decode(from)?);
        Some(())
    }

    /// The table, and whether chunks have to be counted anew, when these segments are gone.
    pub(crate) fn finish(mut self, gone: &[u32]) -> Option<(Index, bool)> {
        let index = &mut self.index;
        index.sets = Sets::load(&self.sets, &self.per_set)?;
        for (members, (blobs, bytes)) in self.sets.iter().zip(&self.per_set) {
            if index.is_trusted(members) {
                index.trusted_bytes = index.trusted_bytes.checked_add(*bytes)?;
            }
            for number in members.iter() {
                let usage = index.usage.get_mut(*number as usize)?;
                let Usage { blobs: before, bytes: bytes_before } = *usage;
                *usage = Usage { blobs: before + *blobs as u64, bytes: bytes_before.checked_add(*bytes)? };
            }
        }
        self.aliases.link();
        index.aliases = Aliases::load(self.alias_key, self.aliases);
        index.accounts.gone(gone);
        Some((self.index, self.recount))
    }
}

#[cfg(test)]
impl Index {
    /// All of it, for tests to compare: but when blobs were used, and aliases of blobs that are gone.
    pub(crate) fn describe(&self) -> Vec<String> {
        let names = |numbers: &[NamespaceNo]| -> Vec<_> {
            let mut names: Vec<_> =
                numbers.iter().filter_map(|number| self.name(*number)).map(|n| n.to_string()).collect();
            names.sort_unstable();
            names
        };
        let mut lines: Vec<_> = self
            .iter()
            .map(|e| {
                let seen_by = names(e.seen_by());
                format!(
                    "{:?} {:?} {seen_by:?} {:?} {:?}",
                    e.digest(),
                    e.place,
                    self.noted.get(&e.digest()),
                    e.unstated()
                )
            })
            .collect();
        lines.sort_unstable();
        let mut usage: Vec<_> =
            self.names.iter().zip(&self.usage).filter(|(_, usage)| usage.blobs > 0).map(|u| format!("{u:?}")).collect();
        usage.sort_unstable();
        lines.extend(usage);
        let wide = self.wide.iter().filter(|wide| self.get(&wide.digest).is_none()).count();
        let noted = self.noted.iter().filter(|noted| self.get(&noted.digest).is_none()).count();
        lines.push(format!("{} {} {} {wide} {noted}", self.bytes, self.large_bytes, self.trusted_bytes));
        lines.extend(self.accounts.describe());
        lines
    }
}
