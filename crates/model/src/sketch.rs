//! [`Sketch`]: how many different visitors, in bounded space.
//!
//! A HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007: "HyperLogLog: the analysis of a near-optimal cardinality
//! estimation algorithm") with the estimator of Ertl ("New cardinality estimation algorithms for HyperLogLog
//! sketches", 2017, algorithm 6), which needs no table of corrections and is unbiased from the first visitor on.
//! While there are few visitors, the sketch is sparse: it holds 32 bits of each, and counts them exactly.

use crate::click::VisitorHash;
use crate::varint::{self, Reader};

/// The precision for a day: 4,096 registers.
pub const DAY_PRECISION: u8 = 12;
/// The precision for a quarter of an hour: 1,024 registers.
pub const QUARTER_PRECISION: u8 = 10;

/// Bits of a hash that are looked at.
const HASH_BITS: u8 = 32;

/// A set of visitors that can be added to and counted, but not listed.
///
/// Two sketches of one precision that were given the same visitors, in any order and by any merges, are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    precision: u8,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Sorted, without repeats, and no larger than the registers would be.
    Sparse(Vec<u32>),
    /// For each register the highest rank seen, which is one more than the number of zeros that the rest of a hash
    /// begins with; 0 for none.
    Dense(Box<[u8]>),
}

impl Sketch {
    /// An empty one with 2^`precision` registers; 4 to 16.
    pub fn new(precision: u8) -> Self {
        assert!((4..=16).contains(&precision), "a precision from 4 to 16");
        Sketch { precision, form: Form::Sparse(Vec::new()) }
    }

    /// Adds a visitor.
    #[inline]
    pub fn insert(&mut self, visitor: VisitorHash) {
        self.insert_hash(mixed(visitor));
    }

    /// Adds all visitors of `other`. If that has fewer registers, and no longer knows its visitors one by one, the
    /// result has as few.
    pub fn merge(&mut self, other: &Sketch) {
        match &other.form {
            Form::Sparse(hashes) => self.merge_hashes(hashes),
            Form::Dense(registers) => {
                if other.precision < self.precision {
                    *self = self.folded(other.precision);
                }
                let shift = other.precision - self.precision;
                let mine = self.densify();
                for (at, &rank) in registers.iter().enumerate() {
                    let (at, rank) = fold(at, rank, shift);
                    mine[at] = mine[at].max(rank);
                }
            }
        }
    }

    /// All visitors of sketches of which most are sparse; the same as merging one after the other, and faster.
    pub(crate) fn union<'a>(precision: u8, sketches: impl Iterator<Item = &'a Sketch>) -> Self {
        let mut hashes = Vec::new();
        let mut union = Sketch::new(precision);
        for sketch in sketches {
            match &sketch.form {
                Form::Sparse(more) => hashes.extend_from_slice(more),
                Form::Dense(_) => union.merge(sketch),
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        union.merge_hashes(&hashes);
        union
    }

    /// How many visitors there are.
    pub fn estimate(&self) -> u64 {
        match &self.form {
            Form::Sparse(hashes) => hashes.len() as u64,
            Form::Dense(registers) => estimate(registers, self.precision).round() as u64,
        }
    }

    /// Whether [`Sketch::estimate`] is exact (but for one pair of visitors in four thousand million who can't be told
    /// apart).
    pub fn is_exact(&self) -> bool {
        matches!(self.form, Form::Sparse(_))
    }

    /// The standard error of [`Sketch::estimate`] as a fraction: 1.04/√registers, or 0 when it is exact.
    pub fn error(&self) -> f64 {
        if self.is_exact() { 0.0 } else { error(self.precision) }
    }

    /// Whether there are no visitors.
    pub fn is_empty(&self) -> bool {
        matches!(&self.form, Form::Sparse(hashes) if hashes.is_empty())
    }

    /// Appends the sketch, without its precision.
    ///
    /// Sparse: twice the number of hashes, then the differences between them. Dense: twice the lowest rank plus one,
    /// then by how much each register is above it in four bits, then those of 15 and more in full.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match &self.form {
            Form::Sparse(hashes) => {
                varint::put(out, (hashes.len() as u64) << 1);
                let mut last = 0;
                for &hash in hashes {
                    varint::put(out, u64::from(hash - last));
                    last = hash;
                }
            }
            Form::Dense(registers) => {
                let lowest = registers.iter().copied().min().unwrap_or(0);
                varint::put(out, u64::from(lowest) << 1 | 1);
                let nibble = |rank: u8| (rank - lowest).min(ESCAPE);
                out.extend(registers.chunks_exact(2).map(|pair| nibble(pair[0]) | nibble(pair[1]) << 4));
                out.extend(registers.iter().copied().filter(|rank| rank - lowest >= ESCAPE));
            }
        }
    }

    /// Reads what [`Sketch::encode`] wrote of a sketch of this precision. `None` for damaged bytes.
    pub(crate) fn decode(precision: u8, bytes: &mut Reader<'_>) -> Option<Self> {
        let head = bytes.varint()?;
        let form = if head & 1 == 0 {
            let len = usize::try_from(head >> 1).ok().filter(|&len| len <= sparse_len_max(precision))?;
            let mut hashes = Vec::with_capacity(len);
            let mut last = 0u64;
            for at in 0..len {
                let step = bytes.varint()?;
                last = last.checked_add(step).filter(|_| step > 0 || at == 0)?;
                hashes.push(u32::try_from(last).ok()?);
            }
            Form::Sparse(hashes)
        } else {
            let rank_max = HASH_BITS - precision + 1;
            let lowest = u8::try_from(head >> 1).ok().filter(|&lowest| lowest <= rank_max)?;
            let packed = bytes.bytes(1 << (precision - 1))?;
            let mut registers = vec![0u8; 1 << precision].into_boxed_slice();
            let mut highest = 0;
            for (pair, byte) in registers.chunks_exact_mut(2).zip(packed) {
                let (first, second) = (byte & 15, byte >> 4);
                highest = highest.max(first).max(second);
                pair[0] = lowest + first;
                pair[1] = lowest + second;
            }
            if highest == ESCAPE {
                for rank in registers.iter_mut().filter(|rank| **rank - lowest == ESCAPE) {
                    *rank = bytes.byte().filter(|full| (*rank..=rank_max).contains(full))?;
                }
            }
            if lowest + highest > rank_max {
                return None;
            }
            Form::Dense(registers)
        };
        Some(Sketch { precision, form })
    }

    #[inline]
    fn insert_hash(&mut self, hash: u32) {
        match &mut self.form {
            Form::Dense(registers) => {
                let (at, rank) = register(hash, self.precision);
                registers[at] = registers[at].max(rank);
            }
            Form::Sparse(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                hashes.insert(at, hash);
                if hashes.len() > sparse_len_max(self.precision) {
                    self.densify();
                }
            }
        }
    }

    fn merge_hashes(&mut self, others: &[u32]) {
        match &mut self.form {
            Form::Sparse(hashes) if hashes.is_empty() && others.len() <= sparse_len_max(self.precision) => {
                hashes.extend_from_slice(others);
            }
            Form::Sparse(hashes) if hashes.is_empty() => {
                self.densify();
                self.merge_hashes(others);
            }
            _ => others.iter().for_each(|&hash| self.insert_hash(hash)),
        }
    }

    fn densify(&mut self) -> &mut [u8] {
        if let Form::Sparse(hashes) = &self.form {
            let mut registers = vec![0u8; 1 << self.precision].into_boxed_slice();
            for &hash in hashes {
                let (at, rank) = register(hash, self.precision);
                registers[at] = registers[at].max(rank);
            }
            self.form = Form::Dense(registers);
        }
        match &mut self.form {
            Form::Dense(registers) => registers,
            Form::Sparse(_) => unreachable!("it was made dense above"),
        }
    }

    fn folded(&self, precision: u8) -> Sketch {
        let mut coarse = Sketch::new(precision);
        coarse.merge(self);
        coarse
    }
}

/// The standard error of an estimate that is not exact.
pub(crate) fn error(precision: u8) -> f64 {
    1.04 / f64::from(1u32 << precision).sqrt()
}

/// Stands for a register's four bits that don't suffice.
const ESCAPE: u8 = 15;

/// Hashes that take as many bytes in memory as the registers would, at six bits each.
fn sparse_len_max(precision: u8) -> usize {
    (1usize << precision) * 6 / 32
}

/// Which register a hash belongs to, and with which rank.
#[inline]
fn register(hash: u32, precision: u8) -> (usize, u8) {
    let at = hash >> (HASH_BITS - precision);
    // The bit behind the last ends the count of zeros.
    let rest = hash << precision | 1 << (precision - 1);
    (at as usize, rest.leading_zeros() as u8 + 1)
}

/// The same for a register and rank of a sketch whose precision is higher by `shift`: the number's lowest bits become
/// the first ones that the rank counts.
#[inline]
fn fold(at: usize, rank: u8, shift: u8) -> (usize, u8) {
    let low = at & ((1 << shift) - 1);
    let folded = match rank {
        0 => 0,
        _ if low == 0 => rank + shift,
        _ => shift - low.ilog2() as u8,
    };
    (at >> shift, folded)
}

/// The finaliser of MurmurHash3 (Appleby, public domain): every bit of the visitor's hash moves the first 32.
#[inline]
fn mixed(visitor: VisitorHash) -> u32 {
    let mut hash = visitor.0;
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    (hash >> 32) as u32
}

/// Ertl's improved raw estimator. The names are the paper's: m registers, each of 0 to q + 1, and the multiplicities c
/// of these values.
fn estimate(registers: &[u8], precision: u8) -> f64 {
    let m = registers.len() as f64;
    let q = usize::from(HASH_BITS - precision);
    let mut c = [0u32; HASH_BITS as usize + 2];
    for &rank in registers {
        c[usize::from(rank)] += 1;
    }
    let mut z = m * tau(1.0 - f64::from(c[q + 1]) / m);
    for k in (1..=q).rev() {
        z = 0.5 * (z + f64::from(c[k]));
    }
    z += m * sigma(f64::from(c[0]) / m);
    m * m / (2.0 * std::f64::consts::LN_2 * z)
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(precision: u8, visitors: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::new(precision);
        visitors.into_iter().for_each(|visitor| sketch.insert(VisitorHash(visitor)));
        sketch
    }

    /// Different ones for each seed, evenly spread.
    fn visitors(seed: u64, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |n| (seed << 40 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn encoded(sketch: &Sketch) -> Vec<u8> {
        let mut bytes = Vec::new();
        sketch.encode(&mut bytes);
        bytes
    }

    #[test]
    fn few_are_counted_exactly() {
        for (precision, len_max) in [(DAY_PRECISION, 768), (QUARTER_PRECISION, 192)] {
            let mut twice = sketch(precision, visitors(1, len_max));
            twice.merge(&sketch(precision, visitors(1, len_max)));
            assert!(twice.is_exact());
            assert_eq!(twice.error(), 0.0);
            assert_eq!(twice.estimate(), len_max);
            assert!(!sketch(precision, visitors(1, len_max + 1)).is_exact());
        }
    }

    #[test]
    fn errors_stay_within_four_standard_errors() {
        for (precision, error) in [(DAY_PRECISION, 0.01625), (QUARTER_PRECISION, 0.0325)] {
            let mut squares = 0.0;
            let mut cases = 0.0;
            for count in [10, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000] {
                for seed in 0..if count > 50_000 { 2 } else { 10 } {
                    let sketch = sketch(precision, visitors(seed, count));
                    let off = (sketch.estimate() as f64 - count as f64) / count as f64;
                    assert!(off.abs() <= 4.0 * error, "{count} are taken for {}", sketch.estimate());
                    if !sketch.is_exact() {
                        assert!((sketch.error() - error).abs() < 1e-9);
                        squares += off * off;
                        cases += 1.0;
                    }
                }
            }
            let measured: f64 = (squares / cases).sqrt();
            assert!(measured < 1.25 * error, "standard error {measured}");
        }
    }

    #[test]
    fn stays_small() {
        assert_eq!(encoded(&sketch(DAY_PRECISION, visitors(1, 1))).len(), 6);
        for count in [100, 768, 769, 10_000, 1_000_000] {
            let len = encoded(&sketch(DAY_PRECISION, visitors(1, count))).len();
            assert!(len <= 3_000, "{count} take {len} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn merging_is_the_union_in_any_order(a in 0..3_000u64, b in 0..3_000u64, shared in 0..1_000u64, p in 8..=12u8) {
            let (first, second) = (visitors(1, a), visitors(2, b));
            let all = sketch(p, visitors(1, a).chain(visitors(2, b)).chain(visitors(3, shared)));
            let few: Vec<_> = (0..3).map(|at| sketch(p, visitors(at, [a, b, shared][at as usize] / 20))).collect();
            let mut one_by_one = Sketch::new(p);
            few.iter().for_each(|one| one_by_one.merge(one));
            prop_assert_eq!(Sketch::union(p, few.iter()), one_by_one);
            let left = sketch(p, first.chain(visitors(3, shared)));
            let right = sketch(p, visitors(3, shared).chain(second));
            let mut merged = left.clone();
            merged.merge(&right);
            prop_assert_eq!(&merged, &all);
            let mut merged = right;
            merged.merge(&left);
            prop_assert_eq!(&merged, &all);
            prop_assert_eq!(&sketch(p, visitors(2, b).chain(visitors(3, shared)).chain(visitors(1, a))), &all);
        }

        #[test]
        fn a_finer_one_folds_into_a_coarser_one(a in 0..3_000u64, b in 0..3_000u64, p in 4..=12u8, finer in 0..=4u8) {
            let expected = sketch(p, visitors(1, a).chain(visitors(2, b)));
            let mut coarse = sketch(p, visitors(1, a));
            coarse.merge(&sketch(p + finer, visitors(2, b)));
            prop_assert_eq!(coarse.estimate(), expected.estimate());
            let mut fine = sketch(p + finer, visitors(2, b));
            fine.merge(&sketch(p, visitors(1, a)));
            if !sketch(p, visitors(1, a)).is_exact() {
                prop_assert_eq!(fine, expected);
            }
        }

        #[test]
        fn what_is_encoded_reads_back(count in 0..5_000u64, p in 4..=14u8) {
            let sketch = sketch(p, visitors(7, count));
            let bytes = encoded(&sketch);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Sketch::decode(p, &mut reader), Some(sketch));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn damaged_bytes_never_panic(count in 0..2_000u64, at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&sketch(10, visitors(7, count)));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Some(sketch) = Sketch::decode(10, &mut Reader::new(&bytes)) {
                sketch.estimate();
            }
        }
    }
}
