//! Writes the copy: one moment of the table, a part at a time, while everybody reads and writes.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use windlass_protocol::limits::COPY_STALE_PIECE;

use super::block::{Kind, Out};
use super::cursor::Fixed as _;
use super::summary::{Sealed, Segments, Summary, Upto};
use super::{TableCopy, hash_of, name, temporary_name};
use crate::account::{Balance, LISTED_BYTES, STALE_BYTES};
use crate::alias::Alias;
use crate::appender::Position;
use crate::chunk::table::{Chunk, File};
use crate::error::{Fault, OrFault as _};
use crate::flat::SHARDS;
use crate::index::{Begun, Part, ROW_BYTES, WIDE_BYTES};
use crate::segment;
use crate::store::{Durability, Shared};
use crate::vfs::VfsFile;

/// The moment that is copied.
struct Moment {
    begun: Begun,
    position: Position,
    segments: BTreeMap<u32, Arc<dyn VfsFile>>,
    next_file: u64,
    chunks: usize,
    files: usize,
}

/// A copy that is under way, and for how long others waited for it at most.
struct Copier<'a> {
    shared: &'a Shared,
    out: Out<'a>,
    buffer: Vec<u8>,
    longest: Duration,
}

/// Why there is no copy.
enum Stop {
    /// Too much changed meanwhile.
    Changed,
    Disk(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Shared {
    /// Writes the copy; nothing where there cannot be one at this moment. `synced` are segments that are known to be durable.
    ///
    /// Whoever calls is the only one.
    pub(super) fn write_copy(self: &Arc<Self>, synced: &mut HashSet<u32>) -> Result<Option<TableCopy>, Fault> {
        if !self.index().accounts().removed().is_empty() {
            self.appender.settle_removals()?;
        }
        let began = Instant::now();
        let moment = self.moment()?;
        let pause = began.elapsed();
        let Some(moment) = moment else { return Ok(None) };
        let copied = self.copy_moment(&moment, synced, pause);
        self.index_mut().end_copy();
        self.chunks.table().end_copy();
        copied
    }

    /// Stops everybody who writes for as long as it takes to remember how things are: until those are done who write already.
    fn moment(&self) -> Result<Option<Moment>, Fault> {
        // Nobody puts aside, evicts, compacts, lets go or writes: what is counted is what the index holds, and all that was
        // appended is in it.
        let _nothing_goes = self.removal.lock().unwrap_or_else(PoisonError::into_inner);
        let _nobody_writes = self.releasing.write().unwrap_or_else(PoisonError::into_inner);
        self.appender.settle()?;
        let Some(position) = self.appender.position() else { return Ok(None) };
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let segments = segments.iter().map(|(number, file)| (*number, Arc::clone(file))).collect();
        let mut index = self.index_mut();
        let mut table = self.chunks.table();
        let (Some(begun), Some((chunks, files))) = (index.begin_copy(), table.begin_copy()) else {
            index.end_copy();
            table.end_copy();
            return Ok(None);
        };
        Ok(Some(Moment { begun, position, segments, next_file: self.chunks.peek_file(), chunks, files }))
    }

    fn copy_moment(
        self: &Arc<Self>,
        moment: &Moment,
        synced: &mut HashSet<u32>,
        longest: Duration,
    ) -> Result<Option<TableCopy>, Fault> {
        let dir = &self.dir;
        // The copy must not say more than what the segments hold after a power failure.
        self.sync_segments(moment, synced)?;
        let Some((segments, upto)) = self.sealed(moment)? else { return Ok(None) };
        let rows = moment.begun.rows;
        let _space = self.reserve_above(super::estimate(rows, moment.chunks), self.options.floor_bytes)?;
        let path = dir.join(temporary_name());
        match self.vfs.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Fault::io("removing", &path, e)),
            Ok(()) | Err(_) => {}
        }
        let file = self.vfs.create(&path).or_fault("creating", &path)?;
        let written = self.write_into(&*file, moment, (&segments, upto), longest);
        let (bytes, longest) = match written {
            Ok(written) => written,
            Err(stop) => {
                self.give_up(&path);
                return match stop {
                    Stop::Changed => Ok(None),
                    Stop::Disk(e) => Err(Fault::io("writing", &path, e)),
                };
            }
        };
        let renamed = self.vfs.rename(&path, &dir.join(name())).or_fault("renaming", &path);
        renamed.inspect_err(|_| self.give_up(&path))?;
        self.vfs.sync_dir(dir).or_fault("syncing", dir)?;
        let Position { records, bytes: appended_bytes, .. } = moment.position;
        Ok(Some(TableCopy { rows, bytes, longest_pause: longest, at: (records, appended_bytes) }))
    }

    /// Removes the copy, durably. The next one is written when it is due.
    pub(crate) fn remove_copy(&self) -> Result<(), Fault> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(name());
        match self.vfs.remove(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.or_fault("removing", &path)?,
        }
        self.vfs.sync_dir(&self.dir).or_fault("syncing", &self.dir)?;
        copies.removed();
        self.counters.copy_bytes(0);
        Ok(())
    }

    fn give_up(&self, path: &Path) {
        if let Err(error) = self.vfs.remove(path) {
            tracing::warn!(path = %path.display(), %error, "temporary_left_behind");
        }
    }

    fn sync_segments(&self, moment: &Moment, synced: &mut HashSet<u32>) -> Result<(), Fault> {
        // Of a durable store they are, and the segments that were removed before the moment are settled.
        let lazy = self.options.durability == Durability::Lazy;
        let active = moment.position.number;
        for (number, file) in moment.segments.iter().filter(|_| lazy) {
            if synced.contains(number) {
                continue;
            }
            let path = segment::path(&self.segments_dir(), *number);
            file.sync_data().or_fault("syncing", &path)?;
            if *number != active {
                synced.insert(*number);
            }
        }
        synced.retain(|number| moment.segments.contains_key(number));
        let removed = !self.index().accounts().removed().is_empty();
        if lazy || removed { self.appender.settle_removals() } else { Ok(()) }
    }

    /// What the copy says of each segment. Nothing where one has no head any more.
    fn sealed(&self, moment: &Moment) -> Result<Option<(Segments, Upto)>, Fault> {
        let mut segments = Segments::new();
        let Position { number: active, end: active_end, ref file, .. } = moment.position;
        for (number, file) in &moment.segments {
            let path = segment::path(&self.segments_dir(), *number);
            let Some(salt) = segment::read_salt(&**file).or_fault("reading", &path)? else { return Ok(None) };
            let end = if *number == active { active_end } else { file.len().or_fault("measuring", &path)? };
            let none = Balance { live_bytes: 0, blobs: 0, stale: 0 };
            let balance = moment.begun.balances.get(number).copied().unwrap_or(none);
            segments.insert(*number, Sealed { number: *number, salt, end, balance });
        }
        let path = segment::path(&self.segments_dir(), active);
        let hash = hash_of(&**file, active_end).or_fault("reading", &path)?;
        Ok(hash.map(|hash| (segments, Upto { segment: active, end: active_end, hash })))
    }

    fn write_into(
        &self,
        file: &dyn VfsFile,
        moment: &Moment,
        (segments, upto): (&Segments, Upto),
        longest: Duration,
    ) -> Result<(u64, Duration), Stop> {
        let mut copier = Copier { shared: self, out: Out::begin(file)?, buffer: Vec::new(), longest };
        copier.summary(moment, segments, upto)?;
        copier.names(moment)?;
        copier.part(Part::Wide, Kind::Wide, WIDE_BYTES)?;
        copier.part(Part::Rows, Kind::Rows, ROW_BYTES)?;
        copier.part(Part::Noted, Kind::Noted, WIDE_BYTES)?;
        copier.stale(segments)?;
        copier.part(Part::Aliases, Kind::Aliases, Alias::BYTES)?;
        if moment.files > 0 {
            copier.chunks(Kind::Files, File::BYTES)?;
        }
        copier.part(Part::Listings, Kind::Listings, LISTED_BYTES)?;
        if moment.chunks > 0 {
            copier.chunks(Kind::Chunks, Chunk::BYTES)?;
        }
        let bytes = copier.out.end()?;
        Ok((bytes, copier.longest))
    }
}

impl Copier<'_> {
    /// Does something that others wait for.
    fn held<T>(&mut self, does: impl FnOnce(&Shared, &mut Vec<u8>) -> T) -> T {
        self.buffer.clear();
        let began = Instant::now();
        let done = does(self.shared, &mut self.buffer);
        self.longest = self.longest.max(began.elapsed());
        done
    }

    fn summary(&mut self, moment: &Moment, segments: &Segments, upto: Upto) -> Result<(), Stop> {
        let Begun { clock, rows, alias_key, aliases, .. } = moment.begun;
        let (rows, aliases, chunks) = (rows as u64, aliases as u64, moment.chunks as u64);
        let mut bytes = Vec::new();
        Summary { upto, clock, next_file: moment.next_file, rows, aliases, chunks, alias_key }.encode(&mut bytes);
        self.out.add(Kind::Summary, &bytes, None)?;
        bytes.clear();
        segments.values().for_each(|sealed| sealed.encode(&mut bytes));
        self.out.add(Kind::Segments, &bytes, Some(Sealed::BYTES))?;
        let mut declared: Vec<u32> = moment.position.declared.iter().copied().collect();
        declared.sort_unstable();
        self.out.add(Kind::Declared, &segment::encode_numbers(&declared), Some(4))?;
        Ok(())
    }

    fn names(&mut self, moment: &Moment) -> Result<(), Stop> {
        for nth in 0..moment.begun.names {
            let name = self.shared.index().copy_name(nth).ok_or(Stop::Changed)?;
            self.out.add(Kind::Names, &name, None)?;
        }
        for members in &moment.begun.sets {
            let len = u32::try_from(members.len()).unwrap_or(u32::MAX).to_le_bytes();
            self.out.add(Kind::Sets, &[&len[..], &segment::encode_numbers(members)].concat(), None)?;
        }
        Ok(())
    }

    fn part(&mut self, part: Part, kind: Kind, each: usize) -> Result<(), Stop> {
        for shard in 0..SHARDS {
            if !self.held(|shared, buffer| shared.index().copy_part(part, shard, buffer)) {
                return Err(Stop::Changed);
            }
            self.out.add(kind, &self.buffer, Some(each))?;
        }
        Ok(())
    }

    fn chunks(&mut self, kind: Kind, each: usize) -> Result<(), Stop> {
        for shard in 0..SHARDS {
            let copied = self.held(|shared, buffer| {
                let table = shared.chunks.table();
                if kind == Kind::Files { table.copy_files(shard, buffer) } else { table.copy_chunks(shard, buffer) }
            });
            if !copied {
                return Err(Stop::Changed);
            }
            self.out.add(kind, &self.buffer, Some(each))?;
        }
        Ok(())
    }

    fn stale(&mut self, segments: &Segments) -> Result<(), Stop> {
        for sealed in segments.values() {
            let mut at = 0;
            while at < sealed.balance.stale {
                let next = sealed.balance.stale.min(at + COPY_STALE_PIECE);
                self.held(|shared, buffer| shared.index().accounts().copy_stale(sealed.number, at..next, buffer));
                self.out.add(Kind::Stale, &self.buffer, Some(STALE_BYTES))?;
                at = next;
            }
        }
        Ok(())
    }
}
