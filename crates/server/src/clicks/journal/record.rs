//! How an event lies in a segment. Docs: docs/journal.md.
//!
//! ```text
//!  0  checksum   CRC-32C (RFC 3720) of the segment's number, the record's offset, and all that follows here
//!  4  length     of the record with this head, in bytes, before padding to a multiple of 8; 0 ends a segment
//!  6  form       1: whole; 2: of the shape of a whole record before it in its segment, and without what follows visitor
//!  8  index      of the record in its segment, so that recovery can tell how many are missing
//! 12  like       the offset of that whole record; 0 in a whole one
//! 16  time       in milliseconds since 1970
//! 24  link
//! 32  visitor
//! 40  shape      what many clicks have in common; it begins with the domain
//! 44  owner
//! 48  flags      bit 0: HEAD; bits 1 and 2: purpose; bit 3: the link has an owner
//! 49  lengths    of language (1 byte), user agent (2), referrer (2) and tags (2)
//! 56  country    two letters, or zeros
//! 58  texts      language, user agent, referrer, tags
//! ```
//! Numbers are little-endian. The checksum covers place and number of the segment, so that bytes of an earlier use, or
//! of another place, never validate.

use crate::clicks::agent::USER_AGENT_LEN_MAX;
use crate::clicks::referrer::{LANGUAGE_LEN_MAX, REFERRER_LEN_MAX, cut_at};
use terse_model::click::{Country, Purpose, VisitorHash};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

/// One served redirect, as it is recorded on the way: what is cheap to know then. It holds no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When.
    pub at: Timestamp,
    /// Which link.
    pub link: LinkId,
    /// The domain that served it.
    pub domain: DomainId,
    /// Whose link it was.
    pub owner: Option<UserId>,
    /// The link's tags, each followed by a line feed.
    pub tags: &'a str,
    /// Who, for a day.
    pub visitor: VisitorHash,
    /// By the visitor's address.
    pub country: Option<Country>,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// By the headers.
    pub purpose: Purpose,
    /// The first language asked for.
    pub language: &'a str,
    /// The user agent.
    pub user_agent: &'a str,
    /// The page that linked here.
    pub referrer: &'a str,
}

/// The forms of records.
const WHOLE: u8 = 1;
const LIKE: u8 = 2;
/// Bytes before the shape, which are all of a record that is like another one.
pub const SHAPE_AT: usize = 40;
/// Bytes before the texts.
const HEAD_LEN: usize = 58;
/// Records begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// Longest tags of a link, all together, in bytes.
pub const TAGS_LEN_MAX: usize = 4096;
/// Longest record.
pub const RECORD_LEN_MAX: usize =
    HEAD_LEN + LANGUAGE_LEN_MAX + USER_AGENT_LEN_MAX + REFERRER_LEN_MAX + TAGS_LEN_MAX + ALIGNMENT;

impl Event<'_> {
    /// Begins a record: all of a whole one, except what [`seal`] adds.
    pub fn encode(&self, record: &mut Vec<u8>) {
        let texts = [
            cut_at(self.language, LANGUAGE_LEN_MAX),
            cut_at(self.user_agent, USER_AGENT_LEN_MAX),
            cut_at(self.referrer, REFERRER_LEN_MAX),
            cut_tags(self.tags),
        ];
        let mut head = [0; HEAD_LEN];
        head[6] = WHOLE;
        head[16..24].copy_from_slice(&self.at.as_millis().to_le_bytes());
        head[24..32].copy_from_slice(&self.link.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.visitor.0.to_le_bytes());
        head[40..44].copy_from_slice(&self.domain.0.to_le_bytes());
        head[44..48].copy_from_slice(&self.owner.map_or(0, |owner| owner.0).to_le_bytes());
        let purpose = match self.purpose {
            Purpose::Visit => 0,
            Purpose::Prefetch => 1,
            Purpose::Preview => 2,
        };
        head[48] = u8::from(self.is_head) | purpose << 1 | u8::from(self.owner.is_some()) << 3;
        head[49] = texts[0].len() as u8;
        for (at, text) in [(50, texts[1]), (52, texts[2]), (54, texts[3])] {
            head[at..at + 2].copy_from_slice(&(text.len() as u16).to_le_bytes());
        }
        if let Some(country) = &self.country {
            head[56..58].copy_from_slice(country.as_str().as_bytes());
        }
        record.clear();
        record.extend_from_slice(&head);
        for text in texts {
            record.extend_from_slice(text.as_bytes());
        }
    }
}

/// Makes a whole record one that is like the whole record at an offset of its segment, whose shape is the same.
pub fn make_like(record: &mut Vec<u8>, offset: u32) {
    record.truncate(SHAPE_AT);
    record[6] = LIKE;
    record[12..16].copy_from_slice(&offset.to_le_bytes());
}

/// Bytes that a record takes in a segment.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// Ends a record, which then may stand at its place and nowhere else.
pub fn seal(record: &mut Vec<u8>, place: Place, index: u32) {
    let len = record.len();
    record[4..6].copy_from_slice(&(len as u16).to_le_bytes());
    record[8..12].copy_from_slice(&index.to_le_bytes());
    let checksum = checksum(place, &record[4..]);
    record[..4].copy_from_slice(&checksum.to_le_bytes());
    record.resize(padded(len), 0);
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// The record's offset in it, in bytes.
    pub offset: u32,
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// When.
    pub at: Timestamp,
    /// Which link.
    pub link: LinkId,
    /// Who, for a day.
    pub visitor: VisitorHash,
    /// Everything else, as it lies there. Many clicks have the same, so that it need not be read each time.
    pub shape: &'a [u8],
    /// Its index in the segment.
    pub index: u32,
    /// Bytes until the next record.
    pub len: usize,
}

impl<'a> Found<'a> {
    /// The whole event; `None` if a text is none, which only somebody else can have written.
    pub fn event(&self) -> Option<Event<'a>> {
        let head = self.shape.get(..HEAD_LEN - SHAPE_AT)?;
        let number32 = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let length16 = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
        let mut rest = &self.shape[HEAD_LEN - SHAPE_AT..];
        let mut text = |len: usize| -> Option<&str> {
            let (own, behind) = rest.split_at_checked(len)?;
            rest = behind;
            std::str::from_utf8(own).ok()
        };
        let language = text(usize::from(head[9]))?;
        let user_agent = text(length16(10))?;
        let referrer = text(length16(12))?;
        let tags = text(length16(14))?;
        let purpose = match head[8] >> 1 & 3 {
            0 => Purpose::Visit,
            1 => Purpose::Prefetch,
            2 => Purpose::Preview,
            _ => return None,
        };
        Some(Event {
            at: self.at,
            link: self.link,
            visitor: self.visitor,
            domain: DomainId(number32(0)),
            owner: (head[8] & 8 != 0).then_some(UserId(number32(4))),
            tags,
            country: std::str::from_utf8(&head[16..18]).ok().and_then(Country::parse),
            is_head: head[8] & 1 != 0,
            purpose,
            language,
            user_agent,
            referrer,
        })
    }
}

/// Reads the record at the start of `bytes` without asking whether its checksum is right, for bytes that this process
/// has written. `shape_at` gives the shape of the whole record at an offset of the same segment.
pub fn read<'a>(bytes: &'a [u8], shape_at: impl FnOnce(u32) -> Option<&'a [u8]>) -> Option<Found<'a>> {
    let len = length(bytes)?;
    let number32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let number64 = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let shape = match bytes[6] {
        WHOLE if len >= HEAD_LEN => &bytes[SHAPE_AT..len],
        LIKE => shape_at(number32(12))?,
        _ => return None,
    };
    Some(Found {
        at: Timestamp::from_millis(number64(16) as i64),
        link: LinkId(number64(24)),
        visitor: VisitorHash(number64(32)),
        shape,
        index: number32(8),
        len: padded(len),
    })
}

/// The same for bytes that may be anything: `None` unless this very record was written at this very place.
pub fn read_checked<'a>(
    place: Place,
    bytes: &'a [u8],
    shape_at: impl FnOnce(u32) -> Option<&'a [u8]>,
) -> Option<Found<'a>> {
    check(place, bytes)?;
    read(bytes, shape_at).filter(|found| found.event().is_some())
}

/// The index and the padded length of the record at the start of `bytes`, if this very one was written at this very
/// place.
pub fn check(place: Place, bytes: &[u8]) -> Option<(u32, usize)> {
    // Before the checksum: recovery tries every place of a segment.
    let len = length(bytes).filter(|len| *len <= RECORD_LEN_MAX)?;
    let expected = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    let index = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
    (checksum(place, &bytes[4..len]) == expected).then(|| (index, padded(len)))
}

/// The length of a record that lies in `bytes` from its head to its end.
fn length(bytes: &[u8]) -> Option<usize> {
    let len = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
    (len >= SHAPE_AT && len <= bytes.len()).then_some(len)
}

fn checksum(place: Place, covered: &[u8]) -> u32 {
    let mut start = [0; 12];
    start[..8].copy_from_slice(&place.segment.to_le_bytes());
    start[8..].copy_from_slice(&place.offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&start), covered)
}

/// As many whole tags as fit.
fn cut_tags(tags: &str) -> &str {
    if tags.len() <= TAGS_LEN_MAX {
        return tags;
    }
    let fitting = cut_at(tags, TAGS_LEN_MAX);
    &fitting[..fitting.rfind('\n').map_or(0, |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { segment: 7, offset: 64 };

    fn event<'a>(texts: &'a [String; 3], tags: &'a str, numbers: (u64, u64, u32)) -> Event<'a> {
        Event {
            at: Timestamp::from_millis(1_800_000_000_000),
            link: LinkId(numbers.0),
            domain: DomainId(numbers.2),
            owner: numbers.0.is_multiple_of(2).then_some(UserId(numbers.2)),
            tags,
            visitor: VisitorHash(numbers.1),
            country: if numbers.1.is_multiple_of(3) { None } else { Country::parse("de") },
            is_head: numbers.1.is_multiple_of(5),
            purpose: [Purpose::Visit, Purpose::Prefetch, Purpose::Preview][numbers.2 as usize % 3],
            language: &texts[0],
            user_agent: &texts[1],
            referrer: &texts[2],
        }
    }

    fn encoded(event: &Event<'_>, place: Place, index: u32) -> Vec<u8> {
        let mut record = vec![0xaa; 100];
        event.encode(&mut record);
        seal(&mut record, place, index);
        record
    }

    fn no_shape<'a>(_: u32) -> Option<&'a [u8]> {
        None
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            texts in proptest::array::uniform3("\\PC{0,600}"),
            tags in proptest::collection::vec("[a-z]{1,40}\n", 0..150),
            numbers in any::<(u64, u64, u32)>(),
            index in any::<u32>(),
        ) {
            let tags = tags.concat();
            let event = event(&texts, &tags, numbers);
            let record = encoded(&event, PLACE, index);
            prop_assert!(record.len() <= RECORD_LEN_MAX && record.len().is_multiple_of(ALIGNMENT));
            let found = read_checked(PLACE, &record, no_shape).expect("a whole record");
            prop_assert_eq!(found.index, index);
            prop_assert_eq!(found.len, record.len());
            let event_found = found.event().expect("a whole event");
            let bounds = [LANGUAGE_LEN_MAX, USER_AGENT_LEN_MAX, REFERRER_LEN_MAX];
            let kept = [event_found.language, event_found.user_agent, event_found.referrer];
            for ((text, kept), bound) in texts.iter().zip(kept).zip(bounds) {
                prop_assert!(text.starts_with(kept) && kept.len() <= bound);
                prop_assert!(text.len() <= bound && kept.len() == text.len() || kept.len() + 4 > bound);
            }
            prop_assert!(tags.starts_with(event_found.tags));
            prop_assert!(event_found.tags.is_empty() || event_found.tags.ends_with('\n'));
            let expected = Event {
                language: event_found.language,
                user_agent: event_found.user_agent,
                referrer: event_found.referrer,
                tags: event_found.tags,
                ..event
            };
            prop_assert_eq!(event_found, expected);

            let shape = found.shape.to_vec();
            let mut like = Vec::new();
            event.encode(&mut like);
            make_like(&mut like, PLACE.offset);
            let behind = Place { offset: PLACE.offset + record.len() as u32, ..PLACE };
            seal(&mut like, behind, index);
            prop_assert_eq!(like.len(), SHAPE_AT);
            let shape_at = |offset: u32| (offset == PLACE.offset).then_some(&shape[..]);
            let found = read_checked(behind, &like, shape_at).expect("a record with a shape");
            prop_assert_eq!(found.event(), Some(expected));
            prop_assert!(read_checked(behind, &like, no_shape).is_none());
        }

        #[test]
        fn no_other_bytes_validate(
            texts in proptest::array::uniform3("[ -~]{0,40}"),
            numbers in any::<(u64, u64, u32)>(),
            at in any::<proptest::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let event = event(&texts, "", numbers);
            let record = encoded(&event, PLACE, 3);
            // Elsewhere, or in another use of the same segment, it is nothing.
            for elsewhere in [Place { offset: 72, ..PLACE }, Place { segment: 8, ..PLACE }] {
                prop_assert!(read_checked(elsewhere, &record, no_shape).is_none());
            }
            // Torn, it is nothing.
            let covered = usize::from(u16::from_le_bytes([record[4], record[5]]));
            let at = at.index(covered);
            prop_assert!(read_checked(PLACE, &record[..at], no_shape).is_none());
            let mut flipped = record;
            flipped[at] ^= 1 << bit;
            prop_assert!(read_checked(PLACE, &flipped, no_shape).is_none());
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, |_| Some(&bytes)).and_then(|found| found.event());
            let _ = read_checked(PLACE, &bytes, |_| Some(&bytes));
        }
    }
}
