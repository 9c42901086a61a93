//! [`ClickBlock`]: raw events in columns, in memory and as they are stored.
//!
//! Stored, a block is a version byte, the length of the columns, and the columns under zstd with a checksum. Each
//! column stands by itself, because values of one kind compress best side by side: differences where neighbours are
//! near (links, times), numbers into a dictionary of the texts in use where few differ.

use crate::click::{Click, ClickId, Device, Facts, Kind, Purpose, VisitorHash};
use crate::code_space::LinkId;
use crate::domain::DomainId;
use crate::tenant::UserId;
use crate::time::Timestamp;
use crate::varint::{Reader, put};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::ops::Range;

/// Raw events, each text held once.
#[derive(Clone, Debug, Default)]
pub struct ClickBlock {
    rows: Vec<Row>,
    texts: Texts,
}

/// Which numbers the texts of one block have in another: 0 for those that were not needed yet, and for the empty one.
#[derive(Debug, Default)]
pub struct KnownTexts(Vec<u32>);

/// A stored block that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged block of clicks")]
pub struct DamagedBlock;

/// The columns of texts, in the order of [`texts_of`].
const TEXTS: usize = 8;

/// An event without its texts.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: ClickId,
    at: Timestamp,
    link: LinkId,
    visitor: VisitorHash,
    domain: DomainId,
    owner: Option<UserId>,
    /// Numbers in [`Texts`].
    texts: [u32; TEXTS],
    kind: Kind,
    device: Device,
    purpose: Purpose,
    is_head: bool,
}

/// An event of one block that others are like: see [`ClickBlock::template`].
#[derive(Clone, Copy, Debug)]
pub struct Template(Row);

impl ClickBlock {
    /// Adds an event.
    pub fn push(&mut self, click: &Click<'_>) {
        let Template(row) = self.template(click);
        self.rows.push(row);
    }

    /// Adds an event that differs from the template, which must be this block's, in identity, time, link and visitor.
    pub fn push_like(
        &mut self,
        template: &Template,
        id: ClickId,
        at: Timestamp,
        link: LinkId,
        visitor: VisitorHash,
    ) {
        self.rows.push(Row { id, at, link, visitor, ..template.0 });
    }

    /// Takes the event's texts in, so that events that share them can be added without a look at them.
    pub fn template(&mut self, click: &Click<'_>) -> Template {
        // An event often shares texts with the one before it, and comparing costs less than hashing.
        let mut texts = self.rows.last().map_or([0; TEXTS], |row| row.texts);
        for (number, text) in texts.iter_mut().zip(texts_of(click)) {
            if !self.texts.is(*number, text) {
                *number = self.texts.intern(text);
            }
        }
        Template(Row {
            id: click.id,
            at: click.at,
            link: click.link,
            visitor: click.visitor,
            domain: click.domain,
            owner: click.owner,
            texts,
            kind: click.facts.kind,
            device: click.facts.device,
            purpose: click.purpose,
            is_head: click.is_head,
        })
    }

    /// What the event at `index` is sorted by in a store: link, time and identity.
    pub fn place(&self, index: usize) -> (LinkId, Timestamp, ClickId) {
        let row = &self.rows[index];
        (row.link, row.at, row.id)
    }

    /// Adds the event at `index` of another block. `known` is of these two blocks and begins empty; with it, a text is
    /// looked up once rather than for each event.
    pub fn push_from(&mut self, other: &ClickBlock, index: usize, known: &mut KnownTexts) {
        let mut row = other.rows[index];
        known.0.resize(other.texts.ends.len(), 0);
        for number in &mut row.texts {
            let own = &mut known.0[*number as usize];
            if *own == 0 {
                *own = self.texts.intern(other.texts.get(*number));
            }
            *number = *own;
        }
        self.rows.push(row);
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The event at `index`.
    pub fn get(&self, index: usize) -> Click<'_> {
        let row = &self.rows[index];
        let [tags, referrer, user_agent, host, country, browser, os, language] =
            row.texts.map(|number| self.texts.get(number));
        Click {
            id: row.id,
            at: row.at,
            link: row.link,
            domain: row.domain,
            owner: row.owner,
            tags,
            visitor: row.visitor,
            is_head: row.is_head,
            purpose: row.purpose,
            referrer,
            user_agent,
            facts: Facts {
                kind: row.kind,
                referrer: host,
                country,
                device: row.device,
                browser,
                os,
                language,
            },
        }
    }

    /// All events in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Click<'_>> + DoubleEndedIterator {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Memory in use, in bytes, estimated.
    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.texts.bytes()
    }

    /// The events at `indices`, in their order, as they are stored: in columns, compressed.
    ///
    /// A block is decoded as a whole, so some thousand events are a good size. Their columns together are at most
    /// 256 MiB, which leaves each of 4,096 events 64 KiB.
    pub fn encode(&self, indices: &[u32]) -> Vec<u8> {
        let rows: Vec<&Row> = indices.iter().map(|index| &self.rows[*index as usize]).collect();
        let raw = self.columns(&rows);
        let mut bytes = vec![FORMAT];
        put(&mut bytes, raw.len() as u64);
        bytes.extend(compress(&raw).expect("there is memory to compress"));
        bytes
    }

    /// From a store.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedBlock> {
        let read = || {
            let columns = decompress(bytes)?;
            let mut input = Reader::new(&columns);
            let block = read_columns(&mut input)?;
            input.is_empty().then_some(block)
        };
        read().ok_or(DamagedBlock)
    }

    fn columns(&self, rows: &[&Row]) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows.len() * 32 + 1024);
        put(&mut out, rows.len() as u64);
        put_differences(&mut out, rows.iter().map(|row| row.link.0));
        put_differences(&mut out, rows.iter().map(|row| row.at.as_millis() as u64));
        out.extend(rows.iter().flat_map(|row| row.visitor.0.to_le_bytes()));
        put_ids(&mut out, rows);
        put_differences(&mut out, rows.iter().map(|row| u64::from(row.domain.0)));
        // 0 stands for nobody.
        put_differences(&mut out, rows.iter().map(|row| row.owner.map_or(0, |user| u64::from(user.0) + 1)));
        out.extend(rows.iter().map(|row| row.kind as u8 | u8::from(row.is_head) << 7));
        out.extend(rows.iter().map(|row| row.device as u8 | (row.purpose as u8) << 4));
        for column in 0..TEXTS {
            self.put_texts(&mut out, rows.iter().map(|row| row.texts[column]));
        }
        out
    }

    /// A dictionary of the texts in use, in the order of their first use, and a number into it for each event.
    fn put_texts(&self, out: &mut Vec<u8>, column: impl Iterator<Item = u32>) {
        // By the text's number: one behind its number here, 0 for none.
        let mut known = vec![0_u32; self.texts.ends.len()];
        let mut used = Vec::new();
        let mut numbers = Vec::new();
        for text in column {
            let number = &mut known[text as usize];
            if *number == 0 {
                used.push(text);
                *number = used.len() as u32;
            }
            put(&mut numbers, u64::from(*number - 1));
        }
        put(out, used.len() as u64);
        for text in &used {
            put(out, self.texts.get(*text).len() as u64);
        }
        for text in &used {
            out.extend(self.texts.get(*text).as_bytes());
        }
        out.extend(numbers);
    }
}

/// The texts of an event, those that change least first.
fn texts_of<'a>(click: &Click<'a>) -> [&'a str; TEXTS] {
    let Facts { referrer, country, browser, os, language, .. } = click.facts;
    [click.tags, click.referrer, click.user_agent, referrer, country, browser, os, language]
}

/// Texts by number, each once. Number 0 is the empty text.
#[derive(Clone, Debug)]
struct Texts {
    /// All of them, one behind the other.
    joined: String,
    /// Where each one ends.
    ends: Vec<usize>,
    numbers: HashTable<u32>,
    /// Seeded, because whoever follows a link chooses some of the texts.
    hasher: RandomState,
}

impl Default for Texts {
    fn default() -> Self {
        let (joined, numbers) = (String::new(), HashTable::new());
        Texts { joined, ends: vec![0], numbers, hasher: RandomState::default() }
    }
}

impl Texts {
    fn get(&self, number: u32) -> &str {
        &self.joined[range(&self.ends, number)]
    }

    /// Whether the text of that number is this one. Bytes compare faster, since nobody looks where characters end.
    fn is(&self, number: u32, text: &str) -> bool {
        &self.joined.as_bytes()[range(&self.ends, number)] == text.as_bytes()
    }

    fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text.as_bytes());
        if let Some(number) = self.numbers.find(hash, |number| self.is(*number, text)) {
            return *number;
        }
        let Texts { joined, ends, numbers, hasher } = self;
        let number = u32::try_from(ends.len()).expect("a block has fewer than 2^32 texts");
        joined.push_str(text);
        ends.push(joined.len());
        let hash_of = |number: &u32| hasher.hash_one(&joined.as_bytes()[range(ends, *number)]);
        numbers.insert_unique(hash, number, hash_of);
        number
    }

    fn bytes(&self) -> usize {
        // Each slot of the table has a byte of control beside it.
        self.joined.capacity() + self.ends.capacity() * size_of::<usize>() + self.numbers.capacity() * 5
    }
}

fn range(ends: &[usize], number: u32) -> Range<usize> {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] };
    start..ends[number]
}

/// The format of the columns.
const FORMAT: u8 = 1;
/// Columns that are longer are taken for damaged.
const RAW_LEN_MAX: u64 = 256 << 20;
/// zstd makes at most 128 KiB of four bytes.
const ZSTD_RATIO_MAX_LOG2: u32 = 15;
/// Measured: higher levels cost more than they save, since half of what is left are visitors, which are random.
const ZSTD_LEVEL: i32 = 1;

fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    // Tells a flipped bit in a text from what was sent.
    compressor.include_checksum(true)?;
    compressor.compress(raw)
}

/// A difference, wrapping, with its sign in the lowest bit.
fn put_difference(out: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

fn put_differences(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut last = 0;
    for value in values {
        put_difference(out, last, value);
        last = value;
    }
}

/// Identities go in the order of time: there, a lane's offsets grow by the length of some events each, while in the
/// order of links they look like chance.
fn put_ids(out: &mut Vec<u8>, rows: &[&Row]) {
    let order = order_of_time(rows.len(), |index| rows[index].at);
    let mut lanes: Vec<(u64, u16)> = rows.iter().map(|row| (row.id.node, row.id.lane)).collect();
    lanes.sort_unstable();
    lanes.dedup();
    put(out, lanes.len() as u64);
    for (node, lane) in &lanes {
        out.extend(node.to_le_bytes());
        put(out, u64::from(*lane));
    }
    let lane_of = |row: &Row| {
        lanes.binary_search(&(row.id.node, row.id.lane)).expect("every event's lane is in the dictionary")
    };
    for index in &order {
        put(out, lane_of(rows[*index as usize]) as u64);
    }
    let mut last = vec![0; lanes.len()];
    for index in &order {
        let row = rows[*index as usize];
        let last = &mut last[lane_of(row)];
        put_difference(out, *last, row.id.segment);
        *last = row.id.segment;
    }
    let mut last = vec![0; lanes.len()];
    for index in &order {
        let row = rows[*index as usize];
        let last = &mut last[lane_of(row)];
        put_difference(out, *last, u64::from(row.id.offset));
        *last = u64::from(row.id.offset);
    }
}

fn order_of_time(len: usize, at: impl Fn(usize) -> Timestamp) -> Vec<u32> {
    // Whoever reads must find the same order, so equal times keep theirs.
    let mut order: Vec<(i64, u32)> = (0..len).map(|index| (at(index).as_millis(), index as u32)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, index)| index).collect()
}

fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut input = Reader::new(bytes);
    let is_known = input.byte()? == FORMAT;
    let len = input.varint()?;
    let compressed = input.rest();
    // The length is damaged, too, when no frame of this length could become so long.
    if !is_known || len > RAW_LEN_MAX || len >> ZSTD_RATIO_MAX_LOG2 > compressed.len() as u64 {
        return None;
    }
    let columns = zstd::bulk::decompress(compressed, len as usize).ok()?;
    (columns.len() as u64 == len).then_some(columns)
}

fn read_columns(input: &mut Reader<'_>) -> Option<ClickBlock> {
    // Each event has 8 bytes of visitor, so that a damaged number can't make us take much more memory than was read.
    let len = input.len(input.rest().len() / 8)?;
    let links = differences(input, len)?;
    let times: Vec<Timestamp> =
        differences(input, len)?.into_iter().map(|at| Timestamp::from_millis(at as i64)).collect();
    let visitors = input.bytes(len.checked_mul(8)?)?.as_chunks::<8>().0;
    let ids = read_ids(input, &times)?;
    let domains = differences(input, len)?;
    let owners = differences(input, len)?;
    let kinds = input.bytes(len)?;
    let devices = input.bytes(len)?;
    let mut texts = Texts::default();
    let mut rows = Vec::with_capacity(len);
    for index in 0..len {
        let owner = match owners[index].checked_sub(1) {
            Some(user) => Some(UserId(user.try_into().ok()?)),
            None => None,
        };
        rows.push(Row {
            id: ids[index],
            at: times[index],
            link: LinkId(links[index]),
            visitor: VisitorHash(u64::from_le_bytes(visitors[index])),
            domain: DomainId(domains[index].try_into().ok()?),
            owner,
            texts: [0; TEXTS],
            kind: value_of(Kind::ALL, kinds[index] & 0x7f)?,
            device: value_of(Device::ALL, devices[index] & 0x0f)?,
            purpose: value_of(Purpose::ALL, devices[index] >> 4)?,
            is_head: kinds[index] >> 7 == 1,
        });
    }
    for column in 0..TEXTS {
        let known = read_texts(input, &mut texts)?;
        for row in &mut rows {
            row.texts[column] = *known.get(usize::try_from(input.varint()?).ok()?)?;
        }
    }
    Some(ClickBlock { rows, texts })
}

/// An enum's value by its number, which is its place among all: new values go to the end.
fn value_of<T: Copy>(all: &[(T, &str)], number: u8) -> Option<T> {
    all.get(usize::from(number)).map(|(value, _)| *value)
}

fn difference(input: &mut Reader<'_>, from: u64) -> Option<u64> {
    let value = input.varint()?;
    Some(from.wrapping_add((value >> 1) ^ (value & 1).wrapping_neg()))
}

fn differences(input: &mut Reader<'_>, len: usize) -> Option<Vec<u64>> {
    let mut last = 0;
    let mut values = Vec::with_capacity(len);
    for _ in 0..len {
        last = difference(input, last)?;
        values.push(last);
    }
    Some(values)
}

fn read_ids(input: &mut Reader<'_>, times: &[Timestamp]) -> Option<Vec<ClickId>> {
    let order = order_of_time(times.len(), |index| times[index]);
    let mut lanes = Vec::new();
    for _ in 0..input.len(times.len())? {
        let node = u64::from_le_bytes(*input.bytes(8)?.first_chunk()?);
        lanes.push((node, u16::try_from(input.varint()?).ok()?));
    }
    let mut lane_of = Vec::with_capacity(times.len());
    for _ in times {
        let lane = usize::try_from(input.varint()?).ok()?;
        lane_of.push((lane < lanes.len()).then_some(lane)?);
    }
    let mut ids = vec![ClickId { node: 0, lane: 0, segment: 0, offset: 0 }; times.len()];
    let mut last = vec![0; lanes.len()];
    for (index, lane) in order.iter().zip(&lane_of) {
        last[*lane] = difference(input, last[*lane])?;
        let (node, number) = lanes[*lane];
        ids[*index as usize] = ClickId { node, lane: number, segment: last[*lane], offset: 0 };
    }
    let mut last = vec![0; lanes.len()];
    for (index, lane) in order.iter().zip(&lane_of) {
        last[*lane] = difference(input, last[*lane])?;
        ids[*index as usize].offset = last[*lane].try_into().ok()?;
    }
    Some(ids)
}

/// The numbers in `texts` of a dictionary's texts.
fn read_texts(input: &mut Reader<'_>, texts: &mut Texts) -> Option<Vec<u32>> {
    let mut lens = Vec::new();
    for _ in 0..input.len(u32::MAX as usize)? {
        lens.push(usize::try_from(input.varint()?).ok()?);
    }
    let mut numbers = Vec::with_capacity(lens.len());
    for len in lens {
        numbers.push(texts.intern(str::from_utf8(input.bytes(len)?).ok()?));
    }
    Some(numbers)
}

#[cfg(test)]
mod tests;
