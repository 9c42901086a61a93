//! [`Dictionary`]: the values of one dimension that are told apart, each by a number of one byte.

use compact_str::CompactString;
use std::cmp::Reverse;

/// Values of a dimension that are told apart. One more, and the lightest ones become `other`.
pub const VALUES_LEN_MAX: usize = 200;
/// As many stay then, so that the work is done once in fifty new values, and new ones have time to gain weight.
pub(super) const VALUES_LEN_KEPT: usize = 150;
/// Bytes of a value; the rest is cut.
pub const VALUE_BYTES_MAX: usize = 128;
/// The number of the values that are not told apart.
pub(super) const OTHER: u8 = 0;

/// From old numbers to new ones.
pub(super) type Renumbering = [u8; VALUES_LEN_MAX + 1];

/// Up to this many values are looked through one by one.
const LINEAR_LEN_MAX: usize = 12;
/// Slots of the hash table, more than twice as many as values. However values are chosen to collide, a look-up meets no
/// more than all of them.
const SLOTS: usize = 512;

/// A value as it is counted: cut to [`VALUE_BYTES_MAX`] at a character's boundary.
pub(crate) fn cut(value: &str) -> &str {
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    // A character has at most four bytes.
    let end = (VALUE_BYTES_MAX - 3..=VALUE_BYTES_MAX).rev().find(|&end| value.is_char_boundary(end));
    &value[..end.unwrap_or_default()]
}

/// Whether a value can't be told from the name of those that are not told apart.
pub(crate) fn is_other(value: &str) -> bool {
    value.eq_ignore_ascii_case("other")
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dictionary {
    /// The value of number 1 comes first.
    values: Vec<CompactString>,
    /// Numbers by the values' hashes; 0 is a free slot. Empty while there are few values.
    slots: Vec<u8>,
}

impl Dictionary {
    pub(super) fn with_capacity(len: usize) -> Self {
        Dictionary { values: Vec::with_capacity(len), slots: Vec::new() }
    }

    /// The number of a value, which is cut already.
    #[inline]
    pub(super) fn get(&self, value: &str) -> Option<u8> {
        if self.slots.is_empty() {
            return self.values.iter().position(|known| known == value).map(|at| at as u8 + 1);
        }
        let mut at = slot_of(value);
        loop {
            match self.slots[at] {
                0 => return None,
                number if self.values[usize::from(number) - 1] == value => return Some(number),
                _ => at = (at + 1) % SLOTS,
            }
        }
    }

    /// Adds a value that is not there, while there is room.
    pub(super) fn push(&mut self, value: &str) -> u8 {
        debug_assert!(self.get(value).is_none() && self.values.len() < VALUES_LEN_MAX);
        self.values.push(CompactString::new(value));
        if !self.slots.is_empty() {
            self.note_slot(self.values.len() - 1);
        } else if self.values.len() > LINEAR_LEN_MAX {
            self.slots = vec![0; SLOTS];
            (0..self.values.len()).for_each(|at| self.note_slot(at));
        }
        self.values.len() as u8
    }

    /// The values, from number 1 on.
    pub(super) fn values(&self) -> &[CompactString] {
        &self.values
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.values.len() >= VALUES_LEN_MAX
    }

    /// The value of a number; `None` for [`OTHER`].
    pub(super) fn value(&self, number: u8) -> Option<&str> {
        usize::from(number).checked_sub(1).map(|at| self.values[at].as_str())
    }

    /// Drops the values for which `stays` is false; the rest moves up in its order.
    pub(super) fn retain(&mut self, stays: impl Fn(usize) -> bool) -> Renumbering {
        let mut renumbering = [OTHER; VALUES_LEN_MAX + 1];
        let before = std::mem::take(self);
        for (at, value) in before.values.into_iter().enumerate() {
            if stays(at) {
                renumbering[at + 1] = self.push(&value);
            }
        }
        renumbering
    }

    fn note_slot(&mut self, index: usize) {
        let mut at = slot_of(&self.values[index]);
        while self.slots[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        self.slots[at] = index as u8 + 1;
    }
}

/// Which of the values stay when some must go: the heaviest [`VALUES_LEN_KEPT`], of equal ones those that come first
/// in the order of bytes.
pub(super) fn heaviest<'a>(values: impl Iterator<Item = (&'a str, u64)>) -> Vec<bool> {
    let values: Vec<_> = values.collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by_key(|&at| (Reverse(values[at].1), values[at].0));
    let mut stays = vec![false; values.len()];
    order.into_iter().take(VALUES_LEN_KEPT).for_each(|at| stays[at] = true);
    stays
}

/// Multiplies eight bytes at a time, as FxHash does.
fn slot_of(value: &str) -> usize {
    const FACTOR: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = value.len() as u64;
    for chunk in value.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    (hash >> 55) as usize % SLOTS
}
