//! [`Key`]: a quarter of an hour, a kind and a value's number in each dimension, in one integer.

use crate::click::{Dimension, Kind, QUARTERS};

/// The dimensions.
pub(crate) const DIMENSIONS: usize = Dimension::ALL.len();
/// The kinds.
pub(crate) const KINDS: usize = Kind::ALL.len();

/// The quarter in the highest bits, then the kind, then a byte for each dimension in their order: so keys sort by
/// time first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(super) u64);

const KIND_SHIFT: u32 = 8 * DIMENSIONS as u32;
const QUARTER_SHIFT: u32 = KIND_SHIFT + 3;

impl Key {
    pub(super) fn new(quarter: u8, kind: Kind) -> Self {
        Key(u64::from(quarter) << QUARTER_SHIFT | (kind as u64) << KIND_SHIFT)
    }

    #[inline]
    pub(super) fn with(self, dimension: usize, number: u8) -> Self {
        let shift = shift(dimension);
        Key(self.0 & !(0xff << shift) | u64::from(number) << shift)
    }

    pub(super) fn without_quarter(self) -> Self {
        Key(self.0 & ((1 << QUARTER_SHIFT) - 1))
    }

    pub(crate) fn quarter(self) -> usize {
        (self.0 >> QUARTER_SHIFT) as usize
    }

    /// Its place in [`Kind::ALL`].
    pub(crate) fn kind(self) -> usize {
        (self.0 >> KIND_SHIFT) as usize & 7
    }

    pub(crate) fn is_human(self) -> bool {
        self.kind() == Kind::Human as usize
    }

    /// The number of the value in a dimension.
    #[inline]
    pub(crate) fn number(self, dimension: usize) -> u8 {
        (self.0 >> shift(dimension)) as u8
    }
}

fn shift(dimension: usize) -> u32 {
    8 * (DIMENSIONS - 1 - dimension) as u32
}

/// Turns keys into consecutive integers and back, by how many numbers each dimension has: few enough for a varint of
/// two or three bytes when there are few values. The order stays.
pub(super) struct Ranks([u32; DIMENSIONS]);

/// The dimensions from this one on make one half of a rank, which fits into 32 bits as the other half does:
/// 201³ and 480 × 201³. So there is one slow division a rank.
const HALF: usize = DIMENSIONS / 2;

impl Ranks {
    /// From how many values each dimension tells apart.
    pub(super) fn new(lens: [usize; DIMENSIONS]) -> Self {
        Ranks(lens.map(|len| len as u32 + 1))
    }

    pub(super) fn rank(&self, key: Key) -> u64 {
        let first = (key.quarter() * KINDS + key.kind()) as u64;
        (0..DIMENSIONS).fold(first, |rank, at| rank * u64::from(self.0[at]) + u64::from(key.number(at)))
    }

    /// `None` if no key has that rank.
    pub(super) fn key(&self, rank: u64) -> Option<Key> {
        let half: u64 = self.0[HALF..].iter().map(|len| u64::from(*len)).product();
        let (mut high, mut low) = (u32::try_from(rank / half).ok()?, (rank % half) as u32);
        let mut key = Key(0);
        for at in (HALF..DIMENSIONS).rev() {
            key = key.with(at, (low % self.0[at]) as u8);
            low /= self.0[at];
        }
        for at in (0..HALF).rev() {
            key = key.with(at, (high % self.0[at]) as u8);
            high /= self.0[at];
        }
        let (quarter, kind) = (high / KINDS as u32, high % KINDS as u32);
        let first = u64::from(quarter) << QUARTER_SHIFT | u64::from(kind) << KIND_SHIFT;
        (quarter < QUARTERS.into()).then_some(Key(first | key.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranks_are_keys_in_their_order(
            lens in prop::array::uniform6(0..=200usize),
            keys in prop::array::uniform2((0..96u8, 0..5usize, prop::array::uniform6(any::<prop::sample::Index>()))),
        ) {
            let ranks = Ranks::new(lens);
            let keys = keys.map(|(quarter, kind, numbers)| {
                (0..DIMENSIONS).fold(Key::new(quarter, Kind::ALL[kind].0), |key, at| {
                    key.with(at, numbers[at].index(lens[at] + 1) as u8)
                })
            });
            let found = keys.map(|key| ranks.rank(key));
            prop_assert_eq!(found.map(|rank| ranks.key(rank)), keys.map(Some));
            prop_assert_eq!(found[0].cmp(&found[1]), keys[0].cmp(&keys[1]));
        }

        #[test]
        fn what_is_no_rank_has_no_key(lens in prop::array::uniform6(0..=200usize), rank: u64) {
            let ranks = Ranks::new(lens);
            if let Some(key) = ranks.key(rank) {
                prop_assert_eq!(ranks.rank(key), rank);
            }
        }
    }
}
