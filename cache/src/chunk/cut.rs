//! Where a blob is cut: FastCDC as of 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication
//! Based Storage Systems", TPDS 31(9)), with two bytes a step and normalised lengths.
//!
//! The same bytes are cut at the same places by every version of this program: else nothing that was stored before is found
//! again. So the table and the masks are fixed here, and a test pins what comes out.

use std::fmt;
use std::sync::LazyLock;

use windlass_protocol::limits::CHUNK_MAX_BYTES;

/// The table is the output of BLAKE3 for this name: 256 numbers of 64 bits, little-endian.
const GEAR_SEED: &[u8] = b"windlass FastCDC gear table 1";

/// How far lengths are drawn to the average: two bits more have to fit before it, two fewer after it.
const NORMALISATION_BITS: u32 = 2;

/// The least average; below it the masks would have no bits left.
const AVERAGE_MIN_BYTES: usize = 256;

/// The table, and the same shifted by one for the first byte of two.
type Gear = ([u64; 256], [u64; 256]);

static GEAR: LazyLock<Gear> = LazyLock::new(|| {
    let mut bytes = [0; 256 * 8];
    blake3::Hasher::new().update(GEAR_SEED).finalize_xof().fill(&mut bytes);
    let (numbers, _) = bytes.as_chunks::<8>();
    let mut gear = ([0; 256], [0; 256]);
    for ((once, twice), number) in gear.0.iter_mut().zip(&mut gear.1).zip(numbers) {
        *once = u64::from_le_bytes(*number);
        *twice = *once << 1;
    }
    gear
});

/// Cuts bytes at places that depend on the bytes around them alone, so that what is inserted or taken out moves no cut far
/// away from it.
#[derive(Clone, Copy)]
pub struct Cutter {
    min: usize,
    average: usize,
    max: usize,
    /// Before the average.
    strict: u64,
    /// After it.
    lax: u64,
    gear: &'static Gear,
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, average, max, .. } = self;
        write!(f, "Cutter({min} to {max} bytes, {average} on average)")
    }
}

impl Cutter {
    /// For chunks of about `average_bytes`, which is taken to the next power of two; none is shorter than a quarter of it (but
    /// a blob's last) or longer than four times it.
    #[must_use]
    pub fn new(average_bytes: usize) -> Self {
        let average = average_bytes.clamp(AVERAGE_MIN_BYTES, CHUNK_MAX_BYTES / 4).next_power_of_two();
        let bits = average.trailing_zeros();
        let (strict, lax) = (mask(bits + NORMALISATION_BITS), mask(bits - NORMALISATION_BITS));
        Self { min: average / 4, average, max: average * 4, strict, lax, gear: &GEAR }
    }

    /// The shortest chunk but a blob's last.
    #[must_use]
    pub const fn min_bytes(&self) -> usize {
        self.min
    }

    /// The longest chunk.
    #[must_use]
    pub const fn max_bytes(&self) -> usize {
        self.max
    }

    /// How long the first chunk of `bytes` is. They must be at least [`Cutter::max_bytes`], or all there are.
    #[must_use]
    pub fn first(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(self.max);
        let centre = end.min(self.average);
        let Some(before) = bytes.get(self.min..centre) else { return end };
        let mut hash = 0;
        if let Some(at) = self.search(before, self.strict, &mut hash) {
            return self.min + at;
        }
        let after = bytes.get(centre..end).unwrap_or_default();
        self.search(after, self.lax, &mut hash).map_or(end, |at| centre + at)
    }

    /// Where the hash of what goes before has only zeros under the mask.
    #[inline]
    fn search(&self, bytes: &[u8], mask: u64, hash: &mut u64) -> Option<usize> {
        let (once, twice) = self.gear;
        let shifted = mask << 1;
        let (pairs, _) = bytes.as_chunks::<2>();
        for (nth, [first, second]) in pairs.iter().enumerate() {
            *hash = (*hash << 2).wrapping_add(twice[usize::from(*first)]);
            if *hash & shifted == 0 {
                return Some(2 * nth);
            }
            *hash = hash.wrapping_add(once[usize::from(*second)]);
            if *hash & mask == 0 {
                return Some(2 * nth + 1);
            }
        }
        None
    }
}

/// The highest bits but one: they depend on most of the bytes that went before, and one is left for the shift.
const fn mask(bits: u32) -> u64 {
    ((1 << bits) - 1) << (63 - bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn cuts(cutter: &Cutter, bytes: &[u8]) -> Vec<usize> {
        let (mut at, mut cuts) = (0, Vec::new());
        while at < bytes.len() {
            at += cutter.first(&bytes[at..]);
            cuts.push(at);
        }
        cuts
    }

    #[test]
    fn the_table_and_the_cuts_are_frozen() {
        let (once, _) = &*GEAR;
        let ends = (once[0], once[1], once[255]);
        assert_eq!(ends, (6_479_025_090_060_302_910, 1_037_266_762_084_021_345, 506_029_835_163_741_451));
        let bytes = noise(1, 2 << 20);
        let default = [
            202_679, 384_206, 568_841, 740_141, 1_026_818, 1_230_630, 1_363_051, 1_536_666, 1_695_437, 1_855_201,
            1_998_208, 2_097_152,
        ];
        assert_eq!(cuts(&Cutter::new(128 << 10), &bytes), default);
        let short = [1_521, 2_495, 3_710, 4_873, 6_691, 8_040, 9_814, 10_000];
        assert_eq!(cuts(&Cutter::new(1 << 10), &bytes[..10_000]), short);
        assert_eq!(cuts(&Cutter::new(1 << 10), &[0; 10_000]), [4_096, 8_192, 10_000], "nothing to cut at");
    }

    #[test]
    fn chunks_are_about_as_long_as_asked_for() {
        let bytes = noise(2, 8 << 20);
        let cutter = Cutter::new(8 << 10);
        let lengths: Vec<_> =
            std::iter::once(&0).chain(&cuts(&cutter, &bytes)).zip(&cuts(&cutter, &bytes)).map(|(a, b)| b - a).collect();
        let mean = bytes.len() / lengths.len();
        assert!((7 << 10..11 << 10).contains(&mean), "{mean}");
        assert!(lengths.iter().rev().skip(1).all(|len| (2 << 10..=32 << 10).contains(len)));
        assert_eq!(format!("{cutter:?}"), "Cutter(2048 to 32768 bytes, 8192 on average)");
    }

    #[test]
    fn what_is_inserted_at_the_front_moves_few_cuts() {
        let bytes = noise(3, 1 << 20);
        let cutter = Cutter::new(4 << 10);
        let shifted = [b"some more".as_slice(), &bytes].concat();
        let known: Vec<_> = cuts(&cutter, &bytes).into_iter().map(|cut| cut + 9).collect();
        let fresh = cuts(&cutter, &shifted).iter().filter(|cut| !known.contains(cut)).count();
        assert!(fresh < 8, "{fresh} cuts of {} are new", known.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_within_the_bounds_and_wherever_they_are_fed_from(
            len in 0_usize..20_000, seed in any::<u64>(), average in 0_usize..3_000,
        ) {
            let bytes = noise(seed, len);
            let cutter = Cutter::new(average);
            let cuts = cuts(&cutter, &bytes);
            prop_assert_eq!(cuts.last().copied().unwrap_or_default(), len);
            let mut before = 0;
            for cut in &cuts {
                let piece = &bytes[before..*cut];
                prop_assert!(piece.len() <= cutter.max && !piece.is_empty());
                prop_assert!(piece.len() >= cutter.min || *cut == len);
                // No more than the longest chunk has to be there.
                let there = &bytes[before..len.min(before + cutter.max)];
                prop_assert_eq!(cutter.first(there), piece.len());
                before = *cut;
            }
        }
    }
}
