//! The bijection between link ids and generated short codes.
//!
//! A generated code *is* its link's id, written through a keyed permutation. So codes never collide, need no retry
//! and no lookup to make, and a stranger can't tell one from its neighbours or learn how many there are.
//!
//! The permutation is FF1 of [NIST SP 800-38G](https://doi.org/10.6028/NIST.SP.800-38G): format-preserving encryption
//! of the id's base-62 numerals under AES-128, with an empty tweak. It permutes 0..62^n exactly, for every length n.

use crate::code::ShortCode;
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use std::fmt;

/// The identity of a link: unique in a store, never used twice, at most 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Digits of a code in the order of their values.
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const RADIX: u64 = 62;
/// Ids are kept as signed 64-bit integers.
const ID_MAX: u64 = i64::MAX as u64;

/// Which generator a store was initialised with. It never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// Codes of this many characters (6 to 10) that nobody can predict; one more when they are used up.
    Permuted(u8),
    /// The id itself in base 62: the shortest codes, and anyone can count them.
    Counter,
}

impl Generator {
    /// What a store is initialised with unless configured otherwise.
    pub const DEFAULT: Generator = Generator::Permuted(7);

    /// Code lengths that can be chosen.
    pub const LENGTHS: std::ops::RangeInclusive<u8> = 6..=10;
}

/// As it is recorded and configured: `permuted:7` or `counter`.
impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Generator::Permuted(len) => write!(f, "permuted:{len}"),
            Generator::Counter => f.write_str("counter"),
        }
    }
}

/// The text names no generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a generator is `permuted:N` with N from 6 to 10, or `counter`")]
pub struct InvalidGenerator;

impl std::str::FromStr for Generator {
    type Err = InvalidGenerator;

    fn from_str(text: &str) -> Result<Self, InvalidGenerator> {
        match text.split_once(':') {
            None if text == "permuted" => Ok(Generator::DEFAULT),
            None if text == "counter" => Ok(Generator::Counter),
            Some(("permuted", len)) => {
                let len = len.parse().map_err(|_| InvalidGenerator)?;
                Generator::LENGTHS.contains(&len).then_some(Generator::Permuted(len)).ok_or(InvalidGenerator)
            }
            _ => Err(InvalidGenerator),
        }
    }
}

/// The code space of one store: its generator with its key.
#[derive(Clone)]
pub struct CodeSpace {
    generator: Generator,
    cipher: Aes128,
}

impl fmt::Debug for CodeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeSpace").field("generator", &self.generator).finish_non_exhaustive()
    }
}

impl CodeSpace {
    /// The space of `generator` under `key`, which a plain counter does not use.
    pub fn new(generator: Generator, key: &[u8; 16]) -> Self {
        CodeSpace { generator, cipher: Aes128::new(&(*key).into()) }
    }

    /// The first id that may be leased: a counter's first code is `1`.
    pub fn first_id(&self) -> LinkId {
        match self.generator {
            Generator::Permuted(_) => LinkId(0),
            Generator::Counter => LinkId(1),
        }
    }

    /// The generator of this space.
    pub fn generator(&self) -> Generator {
        self.generator
    }

    /// The code of an id.
    pub fn encode(&self, id: LinkId) -> ShortCode {
        let mut digits = [0u8; 11];
        let digits = match self.generator {
            Generator::Counter => counter_digits(id.0, &mut digits),
            Generator::Permuted(len) => {
                let (len, offset) = self.length_of(id, u32::from(len));
                let halves = self.ff1(len).encrypt(id.0 - offset);
                write_halves(halves, len, &mut digits)
            }
        };
        let text = std::str::from_utf8(digits).expect("the alphabet is ASCII");
        ShortCode::parse(text).expect("1 to 11 digits of the alphabet are a code")
    }

    /// The id whose code this is, if a generated code can look like it. Whether the id is in use is another question.
    pub fn decode(&self, code: &str) -> Option<LinkId> {
        let bytes = code.as_bytes();
        let id = match self.generator {
            Generator::Counter => {
                if bytes.len() > 11 || bytes.first() == Some(&b'0') {
                    return None;
                }
                read_digits(bytes)?
            }
            Generator::Permuted(len) => {
                let len = u32::from(len);
                let given = u32::try_from(bytes.len()).ok()?;
                let offset = match given {
                    _ if given == len => 0,
                    _ if given == len + 1 => RADIX.pow(len),
                    _ => return None,
                };
                let (a, b) = bytes.split_at((given / 2) as usize);
                let halves = (read_digits(a)? as u64, read_digits(b)? as u64);
                self.ff1(given).decrypt(halves) + u128::from(offset)
            }
        };
        u64::try_from(id).ok().filter(|id| *id <= ID_MAX && *id >= self.first_id().0).map(LinkId)
    }

    /// How many characters an id's code has, and how many ids the shorter ones took.
    fn length_of(&self, id: LinkId, len: u32) -> (u32, u64) {
        let short = RADIX.pow(len);
        if id.0 < short { (len, 0) } else { (len + 1, short) }
    }

    fn ff1(&self, len: u32) -> Ff1<'_> {
        Ff1 { cipher: &self.cipher, len }
    }
}

/// FF1 for radix 62, up to 11 numerals and an empty tweak.
///
/// With these bounds both halves fit a machine word, P || Q is two AES blocks of which the first is the same in
/// every round, and S is the beginning of one block. The general implementation, which the tests compare with, works
/// on big integers (see `docs/decisions/0001-the-code-is-the-row-id.md` for the costs of both).
struct Ff1<'a> {
    cipher: &'a Aes128,
    len: u32,
}

impl Ff1<'_> {
    const ROUNDS: u8 = 10;

    /// u and v: the numerals in the left and in the right half.
    fn split(&self) -> (u32, u32) {
        (self.len / 2, self.len - self.len / 2)
    }

    /// The halves of the permuted number, left one first.
    fn encrypt(&self, number: u64) -> (u64, u64) {
        let (u, v) = self.split();
        let right = RADIX.pow(v);
        let (mut a, mut b) = (number / right, number % right);
        let prf = self.first_block();
        for round in 0..Self::ROUNDS {
            let modulus = RADIX.pow(if round % 2 == 0 { u } else { v });
            let c = (a + self.round(&prf, round, b, modulus)) % modulus;
            (a, b) = (b, c);
        }
        (a, b)
    }

    fn decrypt(&self, (mut a, mut b): (u64, u64)) -> u128 {
        let (u, v) = self.split();
        let prf = self.first_block();
        for round in (0..Self::ROUNDS).rev() {
            let modulus = RADIX.pow(if round % 2 == 0 { u } else { v });
            let c = (b + modulus - self.round(&prf, round, a, modulus)) % modulus;
            (a, b) = (c, a);
        }
        u128::from(a) * u128::from(RADIX.pow(v)) + u128::from(b)
    }

    /// AES(P): version 1, method 2, addition 1, radix, 10 rounds, u, n, tweak length 0.
    fn first_block(&self) -> [u8; 16] {
        let (u, _) = self.split();
        let mut p = [0u8; 16];
        p[..3].copy_from_slice(&[1, 2, 1]);
        p[3..6].copy_from_slice(&[0, 0, RADIX as u8]);
        p[6] = Self::ROUNDS;
        p[7] = u as u8;
        p[8..12].copy_from_slice(&self.len.to_be_bytes());
        self.encrypt_block(p)
    }

    /// NUM(S) of one round, modulo `modulus`. Q is zeros, the round's number, then the half as a big-endian number of
    /// b bytes; S is the first d = 4 * ceil(b / 4) + 4 bytes of the result: 8, or 12 for halves of 6 numerals.
    fn round(&self, prf: &[u8; 16], round: u8, half: u64, modulus: u64) -> u64 {
        let (_, v) = self.split();
        let bytes = half_bytes(v);
        let mut q = [0u8; 16];
        q[8..].copy_from_slice(&half.to_be_bytes());
        q[15 - bytes] = round;
        for (byte, other) in q.iter_mut().zip(prf) {
            *byte ^= other;
        }
        let r = u128::from_be_bytes(self.encrypt_block(q));
        if bytes <= 4 { (r >> 64) as u64 % modulus } else { ((r >> 32) % u128::from(modulus)) as u64 }
    }

    fn encrypt_block(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = block.into();
        self.cipher.encrypt_block(&mut block);
        block.into()
    }
}

/// b = ceil(ceil(v * log2(62)) / 8): the bytes that hold v numerals.
fn half_bytes(numerals: u32) -> usize {
    (RADIX.pow(numerals) - 1).ilog2() as usize / 8 + 1
}

fn write_halves((a, b): (u64, u64), len: u32, into: &mut [u8; 11]) -> &[u8] {
    let (left, right) = into[..len as usize].split_at_mut((len / 2) as usize);
    write_digits(a, left);
    write_digits(b, right);
    &into[..len as usize]
}

fn write_digits(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = ALPHABET[(number % RADIX) as usize];
        number /= RADIX;
    }
}

fn counter_digits(number: u64, into: &mut [u8; 11]) -> &[u8] {
    write_digits(number, into);
    let leading = into.iter().take_while(|digit| **digit == b'0').count().min(into.len() - 1);
    &into[leading..]
}

fn read_digits(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'z' => digit - b'a' + 10,
            b'A'..=b'Z' => digit - b'A' + 36,
            _ => return None,
        };
        Some(number * u128::from(RADIX) + u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpe::ff1::{FF1, FlexibleNumeralString};
    use proptest::prelude::*;
    use std::collections::HashSet;

    const KEY: [u8; 16] = *b"a key for tests!";

    fn permuted(len: u8) -> CodeSpace {
        CodeSpace::new(Generator::Permuted(len), &KEY)
    }

    fn numerals(mut number: u64, len: usize) -> Vec<u16> {
        let mut digits = vec![0; len];
        for digit in digits.iter_mut().rev() {
            *digit = (number % RADIX) as u16;
            number /= RADIX;
        }
        digits
    }

    #[test]
    fn counter_codes_are_the_numbers_in_base_62() {
        let space = CodeSpace::new(Generator::Counter, &KEY);
        for (id, code) in [(1, "1"), (61, "Z"), (62, "10"), (1_000_000, "4c92"), (ID_MAX, "aZl8N0y58M7")] {
            assert_eq!(space.encode(LinkId(id)).as_str(), code);
            assert_eq!(space.decode(code), Some(LinkId(id)));
        }
        for code in ["0", "01", "", "a-b", "aZl8N0y58M8", "ZZZZZZZZZZZ", "111111111111"] {
            assert_eq!(space.decode(code), None, "{code}");
        }
    }

    #[test]
    fn a_used_up_length_gives_way_to_the_next() {
        for len in Generator::LENGTHS {
            let space = permuted(len);
            let short = RADIX.pow(u32::from(len));
            for id in [0, 1, short - 1, short, short + 1, ID_MAX.min(short.saturating_mul(62) - 1)] {
                let code = space.encode(LinkId(id));
                assert_eq!(code.as_str().len(), usize::from(len) + usize::from(id >= short), "{len} {id}");
                assert_eq!(space.decode(code.as_str()), Some(LinkId(id)));
            }
            assert_eq!(space.decode(&"a".repeat(usize::from(len) - 1)), None);
            assert_eq!(space.decode(&"a".repeat(usize::from(len) + 2)), None);
            assert_eq!(space.decode(&"-".repeat(usize::from(len))), None);
        }
    }

    #[test]
    fn a_small_space_is_permuted_completely() {
        // 3 numerals: too few for NIST's security bound, few enough to see that each number comes exactly once.
        let cipher = Aes128::new(&KEY.into());
        let ff1 = Ff1 { cipher: &cipher, len: 3 };
        let size = RADIX.pow(3);
        let mut seen = HashSet::new();
        for number in 0..size {
            let (a, b) = ff1.encrypt(number);
            assert!(a < RADIX && b < RADIX.pow(2));
            assert!(seen.insert((a, b)));
            assert_eq!(ff1.decrypt((a, b)), u128::from(number));
        }
    }

    #[test]
    fn codes_tell_nothing_about_their_neighbours() {
        // Chi-squared over each digit of consecutive ids: 61 degrees of freedom, 140 is beyond one in ten million.
        let space = permuted(7);
        let count = 62_000u64;
        for place in 0..7 {
            let mut seen = [0u64; 62];
            let mut same_as_before = 0u64;
            let mut before = 0;
            for id in 0..count {
                let digit = space.encode(LinkId(id)).as_str().as_bytes()[place];
                seen[read_digits(&[digit]).unwrap() as usize] += 1;
                same_as_before += u64::from(digit == before);
                before = digit;
            }
            let expected = count as f64 / 62.0;
            let chi: f64 = seen.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
            assert!(chi < 140.0, "digit {place}: chi-squared {chi}");
            assert!((800..1200).contains(&same_as_before), "digit {place} repeats {same_as_before} times");
        }
    }

    #[test]
    fn another_key_gives_other_codes() {
        let other = CodeSpace::new(Generator::DEFAULT, b"another test key");
        let same =
            (0..1000).filter(|id| permuted(7).encode(LinkId(*id)) == other.encode(LinkId(*id))).count();
        assert_eq!(same, 0);
        assert!(!format!("{other:?}").contains("key"));
    }

    #[test]
    fn generators_are_named() {
        for text in ["permuted:6", "permuted:10", "counter"] {
            assert_eq!(text.parse::<Generator>().unwrap().to_string(), text);
        }
        assert_eq!("permuted".parse(), Ok(Generator::DEFAULT));
        for text in ["", "permuted:5", "permuted:11", "permuted:x", "counter:7", "random"] {
            assert!(text.parse::<Generator>().is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn codes_decode_to_their_ids(len in 6u8..=10, id in 0..=ID_MAX) {
            let space = permuted(len);
            let id = LinkId(id % RADIX.pow(u32::from(len)).saturating_mul(62).min(ID_MAX));
            let code = space.encode(id);
            prop_assert_eq!(space.decode(code.as_str()), Some(id));
        }

        #[test]
        fn ids_encode_to_their_codes(code in "[0-9a-zA-Z]{7,8}") {
            let space = permuted(7);
            let id = space.decode(&code).unwrap();
            prop_assert_eq!(space.encode(id).as_str().to_owned(), code);
        }

        #[test]
        fn the_permutation_is_ff1(len in 6usize..=11, number in any::<u64>()) {
            let number = number % RADIX.checked_pow(len as u32).unwrap_or(u64::MAX);
            let cipher = Aes128::new(&KEY.into());
            let (a, b) = Ff1 { cipher: &cipher, len: len as u32 }.encrypt(number);
            let general = FF1::<Aes128>::new(&KEY, 62).unwrap();
            let theirs: Vec<u16> =
                general.encrypt(&[], &FlexibleNumeralString::from(numerals(number, len))).unwrap().into();
            let mut ours = numerals(a, len / 2);
            ours.extend(numerals(b, len - len / 2));
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn decoding_never_panics(text in "\\PC{0,16}") {
            let _ = permuted(7).decode(&text);
            let _ = CodeSpace::new(Generator::Counter, &KEY).decode(&text);
        }
    }
}
