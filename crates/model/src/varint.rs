//! Integers in as many bytes as they need: seven bits a byte, the lowest first, the high bit set on all but the last
//! (LEB128).

/// Appends `value`.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads bytes from the front. Each method gives `None` where the bytes end too early or say something impossible.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(first.into());
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A number of things of which each takes at least one byte, and of which there are at most `max`: so damaged
    /// bytes can't make anyone reserve much.
    pub(crate) fn len(&mut self, max: usize) -> Option<usize> {
        let len = usize::try_from(self.varint()?).ok()?;
        (len <= max && len <= self.rest.len()).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_reads_back(values in proptest::collection::vec(any::<u64>(), 0..20), shift in 0..64u32) {
            let values: Vec<u64> = values.iter().map(|value| value >> shift).collect();
            let mut bytes = Vec::new();
            for &value in &values {
                put(&mut bytes, value);
            }
            let mut reader = Reader::new(&bytes);
            for &value in &values {
                prop_assert_eq!(reader.varint(), Some(value));
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(reader.varint(), None);
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), None);
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(Reader::new(&max).varint(), Some(u64::MAX));
        max[9] = 2;
        assert_eq!(Reader::new(&max).varint(), None);
    }
}
