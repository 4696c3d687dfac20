//! What of each segment still counts: its live bytes, and which blobs it holds records of that count no more.
//!
//! A record that puts a blob and is not where the blob lies now is *stale*. It would come back if nothing after it said
//! otherwise, so whatever does (the *tomb*: a void or the last release) has to stay for as long as a stale record lies in
//! an older segment. Blobs are known here by eight bytes of their digests: two that share them only make a tomb stay longer.

use std::collections::{BTreeMap, HashMap, HashSet};

use windlass_protocol::Digest;

use crate::chunk::FileNo;
use crate::copy::cursor::{Cursor, Fixed};
use crate::flat;
use crate::index::Place;
use crate::segment::record::RECORD_HEADER_BYTES;

/// The first eight bytes of a digest.
pub(crate) type Prefix = u64;

pub(crate) fn prefix(digest: &Digest) -> Prefix {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Accounts of all segments.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    segments: BTreeMap<u32, Account>,
    /// Stale records of segments whose files were removed, which a crash may bring back.
    removed: BTreeMap<u32, Vec<Stale>>,
    /// Which record says what a chunk file holds.
    listings: flat::Table<Listed>,
    /// Tombs of stale records that changed since a copy began, as they were: by segment, and which of its stale records.
    copying: Option<HashMap<(u32, usize), Option<u32>>>,
}

#[derive(Debug, Default)]
struct Account {
    live_bytes: u64,
    /// Blobs that lie in it.
    blobs: u64,
    stale: Vec<Stale>,
    damaged: bool,
}

/// A stale record, and in which segment its tomb lies.
#[derive(Debug, Clone, Copy)]
struct Stale {
    prefix: Prefix,
    tomb: Option<u32>,
}

/// What a record of a blob's place takes.
fn record_bytes(place: Place) -> u64 {
    let payload = match place {
        Place::Small { bytes, .. } => u64::from(bytes),
        Place::Large { .. } => 8,
        Place::Chunked { manifest_bytes, .. } => u64::from(manifest_bytes),
    };
    RECORD_HEADER_BYTES as u64 + payload
}

/// What the record of an alias takes.
const ALIAS_BYTES: u64 = RECORD_HEADER_BYTES as u64 + 32;

const fn note_bytes(namespaces: u32) -> u64 {
    RECORD_HEADER_BYTES as u64 + 4 * namespaces as u64
}

impl Accounts {
    fn add(&mut self, segment: u32, bytes: u64) -> &mut Account {
        let account = self.segments.entry(segment).or_default();
        account.live_bytes += bytes;
        account
    }

    /// Nothing where the segment is gone.
    fn subtract(&mut self, segment: u32, bytes: u64) -> Option<&mut Account> {
        let account = self.segments.get_mut(&segment)?;
        account.live_bytes = account.live_bytes.saturating_sub(bytes);
        Some(account)
    }

    /// A blob lies here from now on.
    pub(crate) fn place(&mut self, place: Place) {
        self.add(place.segment(), record_bytes(place)).blobs += 1;
    }

    /// A blob lies here no more; `tomb` is the segment that says so, where one has to.
    pub(crate) fn displace(&mut self, digest: &Digest, place: Place, tomb: Option<u32>) {
        if let Some(account) = self.subtract(place.segment(), record_bytes(place)) {
            account.blobs = account.blobs.saturating_sub(1);
            account.stale.push(Stale { prefix: prefix(digest), tomb });
        }
        if let Some(tomb) = tomb {
            self.add(tomb, RECORD_HEADER_BYTES as u64);
        }
    }

    /// The segment says which blob's a SHA-256 is. That counts until the segment is looked through: it is less than the record of
    /// its blob and a half.
    pub(crate) fn alias(&mut self, segment: u32) {
        self.add(segment, ALIAS_BYTES);
    }

    /// The segment says for good who sees a blob.
    pub(crate) fn note(&mut self, segment: u32, namespaces: u32) {
        self.add(segment, note_bytes(namespaces));
    }

    /// It is of no use any more.
    pub(crate) fn unnote(&mut self, segment: u32, namespaces: u32) {
        self.subtract(segment, note_bytes(namespaces));
    }

    /// The segment says what a chunk file holds.
    pub(crate) fn list(&mut self, file: FileNo, segment: u32, listing_bytes: u64) {
        self.unlist(file);
        let bytes = RECORD_HEADER_BYTES as u64 + listing_bytes;
        self.add(segment, bytes);
        self.listings.insert(Listed { file, segment, bytes });
    }

    /// The chunk file is gone.
    pub(crate) fn unlist(&mut self, file: FileNo) {
        if let Some(Listed { segment, bytes, .. }) = self.listings.remove(&file) {
            self.subtract(segment, bytes);
        }
    }

    /// Of other chunk files than these no listing counts.
    pub(crate) fn keep_listings(&mut self, keep: impl Fn(FileNo) -> bool) {
        let gone: Vec<FileNo> = self.listings.iter().map(|listed| listed.file).filter(|file| !keep(*file)).collect();
        for file in gone {
            self.unlist(file);
        }
    }

    /// Bytes of the segment belong to no record. It is left as it is.
    pub(crate) fn damage(&mut self, segment: u32) {
        self.add(segment, 0).damaged = true;
    }

    pub(crate) fn is_damaged(&self, segment: u32) -> bool {
        self.segments.get(&segment).is_some_and(|account| account.damaged)
    }

    /// Bytes of records that count.
    pub(crate) fn live_bytes(&self, segment: u32) -> u64 {
        self.segments.get(&segment).map_or(0, |account| account.live_bytes)
    }

    /// How many blobs lie in the segment.
    pub(crate) fn blobs(&self, segment: u32) -> u64 {
        self.segments.get(&segment).map_or(0, |account| account.blobs)
    }

    /// Segments before this one that hold stale records.
    pub(crate) fn stale_before(&self, segment: u32) -> Vec<u32> {
        let older = self.segments.range(..segment);
        let older = older.filter(|(_, account)| !account.stale.is_empty()).map(|(number, _)| *number);
        older.chain(self.removed.range(..segment).map(|(number, _)| *number)).collect()
    }

    /// Adds to `found` which of the wanted blobs have a stale record in the segment.
    pub(crate) fn find_stale(&self, segment: u32, wanted: &HashSet<Prefix>, found: &mut HashSet<Prefix>) {
        let stale = self.segments.get(&segment).map(|account| &account.stale).or_else(|| self.removed.get(&segment));
        let stale = stale.map(Vec::as_slice).unwrap_or_default();
        found.extend(stale.iter().map(|stale| stale.prefix).filter(|prefix| wanted.contains(prefix)));
    }

    /// A segment has new tombs of blobs whose stale records lie before `segment`.
    pub(crate) fn entomb(&mut self, tombs: &HashMap<Prefix, u32>, segment: u32) {
        if tombs.is_empty() {
            return;
        }
        let mut moved = Vec::new();
        let standing = self.segments.range_mut(..segment).map(|(number, account)| (*number, &mut account.stale));
        let removed = self.removed.range_mut(..segment).map(|(number, stale)| (*number, stale));
        for (number, stale) in standing.chain(removed) {
            for (nth, stale) in stale.iter_mut().enumerate() {
                let Some(tomb) = tombs.get(&stale.prefix) else { continue };
                let before = stale.tomb.replace(*tomb);
                if let Some(copying) = &mut self.copying {
                    copying.entry((number, nth)).or_insert(before);
                }
                moved.push((before, *tomb));
            }
        }
        for (before, after) in moved {
            if let Some(before) = before {
                self.subtract(before, RECORD_HEADER_BYTES as u64);
            }
            self.add(after, RECORD_HEADER_BYTES as u64);
        }
    }

    /// The segment's file was removed.
    pub(crate) fn remove(&mut self, segment: u32) {
        if let Some(account) = self.segments.remove(&segment) {
            self.removed.insert(segment, account.stale);
        }
    }

    /// Which segments were removed whose tombs are still needed.
    pub(crate) fn removed(&self) -> Vec<u32> {
        self.removed.keys().copied().collect()
    }

    /// What each segment has of tombs that are of no use once these removals are durable, in bytes.
    pub(crate) fn tombs_of_removed(&self) -> HashMap<u32, u64> {
        let mut bytes = HashMap::new();
        for tomb in self.removed.values().flatten().filter_map(|stale| stale.tomb) {
            *bytes.entry(tomb).or_default() += RECORD_HEADER_BYTES as u64;
        }
        bytes
    }

    /// These segments are gone for good, and with them the need for the tombs of what was in them.
    pub(crate) fn forget(&mut self, segments: &[u32]) {
        for segment in segments {
            for tomb in self.removed.remove(segment).into_iter().flatten().filter_map(|stale| stale.tomb) {
                self.subtract(tomb, RECORD_HEADER_BYTES as u64);
            }
        }
    }
}

/// Which record says what a chunk file holds, and how long it is.
#[derive(Debug, Clone, Copy)]
struct Listed {
    file: FileNo,
    segment: u32,
    bytes: u64,
}

impl flat::Row for Listed {
    type Key = FileNo;

    fn key(&self) -> FileNo {
        self.file
    }
}

impl Fixed for Listed {
    const BYTES: usize = LISTED_BYTES;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.file.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    fn decode(from: &mut Cursor<'_>) -> Option<Self> {
        Some(Self { file: from.u64()?, segment: from.u32()?, bytes: from.u64()? })
    }
}

/// A segment's account but for its stale records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balance {
    pub(crate) live_bytes: u64,
    pub(crate) blobs: u64,
    /// How many stale records it has.
    pub(crate) stale: usize,
}

/// A stale record without a tomb, as it is copied.
const NO_TOMB: u32 = u32::MAX;

/// What the record of a listing takes in a copy.
pub(crate) const LISTED_BYTES: usize = 20;

/// What one stale record takes in a copy.
pub(crate) const STALE_BYTES: usize = 16;

/// What is copied of accounts, and read back.
impl Accounts {
    /// From here on accounts are copied as they are now, those of segments that were removed left out: that they are is durable
    /// before the copy counts. Nothing where bytes of a segment are damaged: then the segments are read at the next start.
    pub(crate) fn begin_copy(&mut self) -> Option<BTreeMap<u32, Balance>> {
        if self.segments.values().any(|account| account.damaged) {
            return None;
        }
        self.listings.begin_copy();
        self.copying = Some(HashMap::new());
        let tombs = self.tombs_of_removed();
        let balance = |(number, account): (&u32, &Account)| {
            let less = tombs.get(number).copied().unwrap_or_default();
            let live_bytes = account.live_bytes.saturating_sub(less);
            (*number, Balance { live_bytes, blobs: account.blobs, stale: account.stale.len() })
        };
        Some(self.segments.iter().map(balance).collect())
    }

    pub(crate) fn end_copy(&mut self) {
        self.listings.end_copy();
        self.copying = None;
    }

    /// Which record says what chunk files hold, of those in one part of the table.
    pub(crate) fn copy_listings(&self, shard: usize, out: &mut Vec<u8>) -> bool {
        self.listings.copy_shard(shard, &mut |listed| listed.encode(out))
    }

    /// Stale records of a segment as they were. Nothing where the segment is gone by now.
    pub(crate) fn copy_stale(&self, segment: u32, nth: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let stale = self.segments.get(&segment).map(|account| &account.stale).or_else(|| self.removed.get(&segment));
        let stale = stale.and_then(|stale| stale.get(nth.clone())).unwrap_or_default();
        for (nth, stale) in nth.zip(stale) {
            let before = self.copying.as_ref().and_then(|copying| copying.get(&(segment, nth))).copied();
            out.extend_from_slice(&segment.to_le_bytes());
            out.extend_from_slice(&stale.prefix.to_le_bytes());
            out.extend_from_slice(&before.unwrap_or(stale.tomb).unwrap_or(NO_TOMB).to_le_bytes());
        }
    }

    /// A segment's account, from a copy.
    pub(crate) fn load(&mut self, segment: u32, balance: Balance) {
        let Balance { live_bytes, blobs, .. } = balance;
        self.segments.insert(segment, Account { live_bytes, blobs, stale: Vec::new(), damaged: false });
    }

    pub(crate) fn load_listing(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let listed = Listed::decode(from)?;
        self.listings.get(&listed.file).is_none().then(|| self.listings.insert(listed))
    }

    pub(crate) fn load_stale(&mut self, from: &mut Cursor<'_>) -> Option<()> {
        let (segment, prefix, tomb) = (from.u32()?, from.u64()?, from.u32()?);
        let stale = Stale { prefix, tomb: Some(tomb).filter(|tomb| *tomb != NO_TOMB) };
        self.segments.get_mut(&segment)?.stale.push(stale);
        Some(())
    }

    /// These segments were removed since the copy was made.
    pub(crate) fn gone(&mut self, segments: &[u32]) {
        for segment in segments {
            self.remove(*segment);
        }
        self.forget(segments);
    }

    /// Chunk files of which a segment said what they hold that is not there.
    pub(crate) fn listed_outside(&self, there: impl Fn(u32) -> bool) -> HashSet<FileNo> {
        self.listings.iter().filter(|listed| !there(listed.segment)).map(|listed| listed.file).collect()
    }

    /// Segments after the copy say of these blobs, which are gone, that they are: where what said so before is gone, they are the
    /// tombs of stale records before them.
    pub(crate) fn retomb(&mut self, voids: &HashMap<Prefix, u32>) {
        if voids.is_empty() {
            return;
        }
        let there: HashSet<u32> = self.segments.keys().copied().collect();
        let mut added = Vec::new();
        for (number, account) in &mut self.segments {
            for stale in &mut account.stale {
                let lost = stale.tomb.is_some_and(|tomb| !there.contains(&tomb));
                let tomb = voids.get(&stale.prefix).filter(|tomb| lost && **tomb >= *number);
                if let Some(tomb) = tomb {
                    stale.tomb = Some(*tomb);
                    added.push(*tomb);
                }
            }
        }
        for tomb in added {
            self.add(tomb, RECORD_HEADER_BYTES as u64);
        }
    }

    /// All of it, for tests to compare: what is said of segments that are gone is left out, and segments of which nothing is said:
    /// a copy lists also those that hold no record yet.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let said = |account: &Account| {
            account.live_bytes > 0 || account.blobs > 0 || account.damaged || !account.stale.is_empty()
        };
        for (number, account) in self.segments.iter().filter(|(_, account)| said(account)) {
            let there = |tomb: &u32| self.segments.contains_key(tomb);
            let mut stale: Vec<_> =
                account.stale.iter().map(|stale| (stale.prefix, stale.tomb.filter(there))).collect();
            stale.sort_unstable();
            let Account { live_bytes, blobs, damaged, .. } = account;
            lines.push(format!(
                "segment {number}: {live_bytes} live, {blobs} blobs, damaged {damaged}, stale {stale:x?}"
            ));
        }
        let mut listings: Vec<_> = self.listings.iter().map(|listed| format!("{listed:?}")).collect();
        listings.sort_unstable();
        lines.extend(listings);
        lines
    }
}
