//! Counts of clicks that are on their way to the rollups.
//!
//! A [`Batch`] sums clicks in memory by link, quarter of an hour and facts, so that a link that is clicked a million
//! times costs a few additions to its rollup. While it is open, statistics add it to what the store holds. Then it is
//! frozen, numbered, and committed as a whole: a store that holds its number holds all of it.

use compact_str::CompactString;
use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::{DefaultHashBuilder, HashMap};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use terse_model::click::{
    Click, Country, Day, Device, Facts, Kind, QUARTERS, Subject, VisitorHash, quarter_of,
};
use terse_model::click_store::RollupChanges;
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::rollup::Rollup;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

/// Cells of a link that are searched one by one; more get a table.
const FEW_CELLS: usize = 12;
/// Visitors of a link that are kept one by one; more become sketches.
const FEW_VISITORS: usize = 256;
/// Clicks whose links are looked up before the first of them is counted.
const ADDED_TOGETHER: usize = 32;
/// A table that is used again has room for at most so many times the links that it held. It grows by as much.
const ROOM_MAX: usize = 2;
/// Estimates of what things cost in memory, in bytes.
const LINK_BYTES: usize = 260;
const CELL_BYTES: usize = 16;
const VISITOR_BYTES: usize = 16;
const FACTS_BYTES: usize = 160;
const ORIGIN_BYTES: usize = 120;
const SKETCH_BYTES: usize = 6000;

/// Counts by link.
#[derive(Debug, Default)]
pub struct Batch {
    facts: Table<OwnedFacts>,
    origins: Table<Origin>,
    /// Where each link is in `links`. Apart, because so much of this table stays in the processor's cache.
    index: HashMap<LinkId, u32>,
    links: Vec<LinkCounts>,
    bytes: usize,
    clicks: u64,
}

/// What the links of a batch belong to: clicks of one origin go to the same subjects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    domain: DomainId,
    owner: Option<UserId>,
    tags: CompactString,
}

/// [`Facts`] with their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedFacts {
    kind: Kind,
    device: Device,
    country: Option<Country>,
    referrer: CompactString,
    browser: CompactString,
    os: CompactString,
    language: CompactString,
}

impl OwnedFacts {
    fn of(facts: &Facts<'_>) -> Self {
        OwnedFacts {
            kind: facts.kind,
            device: facts.device,
            country: Country::parse(facts.country),
            referrer: facts.referrer.into(),
            browser: facts.browser.into(),
            os: facts.os.into(),
            language: facts.language.into(),
        }
    }

    fn get(&self) -> Facts<'_> {
        Facts {
            kind: self.kind,
            referrer: &self.referrer,
            country: self.country.as_ref().map_or("", Country::as_str),
            device: self.device,
            browser: &self.browser,
            os: &self.os,
            language: &self.language,
        }
    }
}

/// Things with numbers, each once.
#[derive(Debug)]
struct Table<T> {
    rows: Vec<T>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: Vec::new(), index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl Table<OwnedFacts> {
    /// The number of these facts, and whether they are new.
    fn number(&mut self, facts: &Facts<'_>) -> (u32, bool) {
        let hash = self.hasher.hash_one(facts);
        let rows = &self.rows;
        let found = self.index.entry(
            hash,
            |row| rows[*row as usize].get() == *facts,
            |row| self.hasher.hash_one(rows[*row as usize].get()),
        );
        match found {
            Entry::Occupied(row) => (*row.get(), false),
            Entry::Vacant(place) => {
                let number = self.rows.len() as u32;
                place.insert(number);
                self.rows.push(OwnedFacts::of(facts));
                (number, true)
            }
        }
    }
}

impl Table<Origin> {
    fn number(&mut self, click: &Click<'_>) -> (u32, bool) {
        let key = |origin: &Origin| (origin.domain, origin.owner, origin.tags.as_str().to_owned());
        let hash = self.hasher.hash_one((click.domain, click.owner, click.tags));
        let rows = &self.rows;
        let fits = |origin: &Origin| {
            origin.domain == click.domain && origin.owner == click.owner && origin.tags == click.tags
        };
        let found = self.index.entry(
            hash,
            |row| fits(&rows[*row as usize]),
            |row| self.hasher.hash_one(key(&rows[*row as usize])),
        );
        match found {
            Entry::Occupied(row) => (*row.get(), false),
            Entry::Vacant(place) => {
                let number = self.rows.len() as u32;
                place.insert(number);
                let origin = Origin { domain: click.domain, owner: click.owner, tags: click.tags.into() };
                self.rows.push(origin);
                (number, true)
            }
        }
    }
}

impl Origin {
    /// The subjects beside the links themselves.
    fn subjects(&self, link: LinkId) -> impl Iterator<Item = Subject> + use<'_> {
        Subject::of(link, self.domain, self.owner, &self.tags)
            .filter(|subject| !matches!(subject, Subject::Link(_)))
    }

    fn is_of(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Link(_) => false,
            other => self.subjects(LinkId(0)).any(|own| own == *other),
        }
    }
}

/// A link with its counts. While a batch is filled, a link mostly has one origin.
#[derive(Debug)]
struct LinkCounts {
    link: LinkId,
    first: (u32, Counts),
    more: Vec<(u32, Counts)>,
}

impl LinkCounts {
    fn origins(&self) -> impl Iterator<Item = &(u32, Counts)> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn of(&mut self, origin: u32) -> &mut Counts {
        if self.first.0 == origin {
            return &mut self.first.1;
        }
        let at = self.more.iter().position(|(own, _)| *own == origin).unwrap_or_else(|| {
            self.more.push((origin, Counts::default()));
            self.more.len() - 1
        });
        &mut self.more[at].1
    }
}

/// Counts of one link.
#[derive(Debug, Default)]
struct Counts {
    human: u64,
    all: u64,
    cells: Cells,
    visitors: SmallVec<[(u32, VisitorHash); 2]>,
    /// Visitors that were too many to be kept one by one.
    sketches: BTreeMap<Day, Rollup>,
}

/// Clicks by (quarter since 1970, number of facts).
#[derive(Debug)]
enum Cells {
    Few(SmallVec<[(u32, u32, u32); 2]>),
    Many(Box<HashMap<(u32, u32), u32>>),
}

impl Default for Cells {
    fn default() -> Self {
        Cells::Few(SmallVec::new())
    }
}

impl Cells {
    /// Counts a click; whether its cell is new.
    fn count(&mut self, quarter: u32, facts: u32) -> bool {
        match self {
            Cells::Few(cells) => {
                if let Some(cell) = cells.iter_mut().find(|cell| (cell.0, cell.1) == (quarter, facts)) {
                    cell.2 += 1;
                    return false;
                }
                cells.push((quarter, facts, 1));
                if cells.len() > FEW_CELLS {
                    let cells = cells.iter().map(|cell| ((cell.0, cell.1), cell.2)).collect();
                    *self = Cells::Many(Box::new(cells));
                }
                true
            }
            Cells::Many(cells) => {
                let count = cells.entry((quarter, facts)).or_default();
                *count += 1;
                *count == 1
            }
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (u32, u32, u32)> + '_> {
        match self {
            Cells::Few(cells) => Box::new(cells.iter().copied()),
            Cells::Many(cells) => {
                Box::new(cells.iter().map(|((quarter, facts), count)| (*quarter, *facts, *count)))
            }
        }
    }
}

/// Days before this one are counted as it, so that a quarter's number is never negative.
const FIRST_DAY: Day = Day(0);

fn quarter_number(day: Day, quarter: u8) -> u32 {
    day.max(FIRST_DAY).0 as u32 * u32::from(QUARTERS) + u32::from(quarter)
}

fn day_and_quarter(number: u32) -> (Day, u8) {
    (Day((number / u32::from(QUARTERS)) as i32), (number % u32::from(QUARTERS)) as u8)
}

/// What a click is counted as, in numbers of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    facts: u32,
    origin: u32,
    is_human: bool,
}

/// A click that is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct NewClick {
    /// What it is counted as.
    pub counted: Counted,
    /// When.
    pub at: Timestamp,
    /// Which link.
    pub link: LinkId,
    /// Who, for a day.
    pub visitor: VisitorHash,
}

impl Batch {
    /// This one without its counts. It keeps the tables, since a minute is mostly like the last one, and tables that are
    /// given back and grow again leave gaps in the heap; but not tables that were far too large.
    pub fn cleared(mut self) -> Self {
        let room = self.links.len() * ROOM_MAX;
        self.index.clear();
        self.links.clear();
        self.index.shrink_to(room);
        self.links.shrink_to(room);
        Batch { index: self.index, links: self.links, ..Batch::default() }
    }

    /// What clicks that share everything with this one but time, link and visitor are counted as.
    pub fn number(&mut self, click: &Click<'_>) -> Counted {
        let (facts, is_new) = self.facts.number(&click.facts);
        if is_new {
            self.bytes += FACTS_BYTES;
        }
        let (origin, is_new) = self.origins.number(click);
        if is_new {
            self.bytes += ORIGIN_BYTES + click.tags.len();
        }
        Counted { facts, origin, is_human: click.facts.kind == Kind::Human }
    }

    /// Counts clicks. Many in one call cost less, because most of the time is spent waiting for memory, and here the
    /// waits for several links overlap.
    pub fn add(&mut self, clicks: &[NewClick]) {
        for clicks in clicks.chunks(ADDED_TOGETHER) {
            let mut places = [0; ADDED_TOGETHER];
            for (place, click) in places.iter_mut().zip(clicks) {
                *place = self.place(click);
            }
            let near = |place: &u32| self.links[*place as usize].first.1.visitors.len() as u64;
            std::hint::black_box(places.iter().take(clicks.len()).map(near).sum::<u64>());
            for (place, click) in places.iter().zip(clicks) {
                self.add_at(*place, click);
            }
        }
    }

    /// Where the click's link is in `links`.
    fn place(&mut self, click: &NewClick) -> u32 {
        *self.index.entry(click.link).or_insert_with(|| {
            self.bytes += LINK_BYTES;
            let first = (click.counted.origin, Counts::default());
            self.links.push(LinkCounts { link: click.link, first, more: Vec::new() });
            self.links.len() as u32 - 1
        })
    }

    fn add_at(&mut self, place: u32, click: &NewClick) {
        let NewClick { counted: Counted { facts, origin, is_human }, at, visitor, .. } = *click;
        let quarter = quarter_number(Day::of(at), quarter_of(at));
        let counts = self.links[place as usize].of(origin);
        counts.all += 1;
        if counts.cells.count(quarter, facts) {
            self.bytes += CELL_BYTES;
        }
        if is_human {
            counts.human += 1;
            counts.visitors.push((quarter, visitor));
            self.bytes += VISITOR_BYTES;
            if counts.visitors.len() > FEW_VISITORS {
                self.bytes -= counts.visitors.len() * VISITOR_BYTES;
                self.bytes += counts.spill();
            }
        }
        self.clicks += 1;
    }

    /// Clicks in it.
    pub fn clicks(&self) -> u64 {
        self.clicks
    }

    /// Memory in use, in bytes, estimated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Human clicks and all clicks of a subject.
    pub fn totals(&self, subject: &Subject) -> (u64, u64) {
        self.counts_of(subject).fold((0, 0), |sum, counts| (sum.0 + counts.human, sum.1 + counts.all))
    }

    /// The counts of a subject, by day.
    pub fn rollups(&self, subject: &Subject) -> BTreeMap<Day, Rollup> {
        let mut days = BTreeMap::new();
        self.counts_of(subject).for_each(|counts| counts.add_to(&self.facts.rows, &mut days));
        days
    }

    fn link(&self, link: LinkId) -> Option<&LinkCounts> {
        self.index.get(&link).map(|place| &self.links[*place as usize])
    }

    fn counts_of<'a>(&'a self, subject: &Subject) -> Box<dyn Iterator<Item = &'a Counts> + 'a> {
        if let Subject::Link(link) = subject {
            let one = self.link(*link).into_iter().flat_map(LinkCounts::origins);
            return Box::new(one.map(|(_, counts)| counts));
        }
        let origins: Vec<bool> = self.origins.rows.iter().map(|origin| origin.is_of(subject)).collect();
        let all = self.links.iter().flat_map(LinkCounts::origins);
        Box::new(all.filter(move |(origin, _)| origins[*origin as usize]).map(|(_, counts)| counts))
    }
}

impl Counts {
    /// Makes sketches of the visitors; returns what they cost more than before.
    fn spill(&mut self) -> usize {
        let before = self.sketches.len();
        for (quarter, visitor) in self.visitors.drain(..) {
            let (day, quarter) = day_and_quarter(quarter);
            self.sketches.entry(day).or_default().add_visitor(quarter, visitor);
        }
        (self.sketches.len() - before) * SKETCH_BYTES
    }

    fn add_to(&self, facts: &[OwnedFacts], days: &mut BTreeMap<Day, Rollup>) {
        for (number, row, count) in self.cells.iter() {
            let (day, quarter) = day_and_quarter(number);
            days.entry(day).or_default().add(quarter, &facts[row as usize].get(), u64::from(count));
        }
        self.add_visitors_to(days);
    }

    fn add_visitors_to(&self, days: &mut BTreeMap<Day, Rollup>) {
        for (number, visitor) in &self.visitors {
            let (day, quarter) = day_and_quarter(*number);
            days.entry(day).or_default().add_visitor(quarter, *visitor);
        }
        for (day, sketch) in &self.sketches {
            days.entry(*day).or_default().merge(sketch);
        }
    }

    fn days(&self) -> impl Iterator<Item = Day> + '_ {
        self.cells.iter().map(|(quarter, ..)| day_and_quarter(quarter).0)
    }
}

/// A batch that nothing is added to any more.
#[derive(Debug)]
pub struct FrozenBatch {
    batch: Arc<Batch>,
    keys: Vec<(Day, Subject)>,
    /// The origins of each subject that is no link.
    origins: HashMap<Subject, Vec<u32>>,
    /// Made by whoever needs it first: the thread that writes.
    by_origin: OnceLock<Vec<OriginCounts>>,
}

/// All clicks of one origin.
#[derive(Debug, Default)]
struct OriginCounts {
    cells: BTreeMap<Day, HashMap<(u8, u32), u64>>,
    visitors: BTreeMap<Day, Rollup>,
}

impl FrozenBatch {
    /// Ends a batch.
    pub fn new(batch: Arc<Batch>) -> Self {
        let mut keys = Vec::with_capacity(batch.links.len() + 16);
        let mut origin_days = vec![BTreeSet::new(); batch.origins.rows.len()];
        for counts in &batch.links {
            let mut days = BTreeSet::new();
            for (origin, counts) in counts.origins() {
                for day in counts.days() {
                    // Mostly the day of the one before.
                    if days.last() != Some(&day) {
                        days.insert(day);
                    }
                    if origin_days[*origin as usize].last() != Some(&day) {
                        origin_days[*origin as usize].insert(day);
                    }
                }
            }
            keys.extend(days.into_iter().map(|day| (day, Subject::Link(counts.link))));
        }
        let mut origins: HashMap<Subject, Vec<u32>> = HashMap::new();
        for (number, (origin, days)) in batch.origins.rows.iter().zip(&origin_days).enumerate() {
            for subject in origin.subjects(LinkId(0)) {
                keys.extend(days.iter().map(|day| (*day, subject.clone())));
                origins.entry(subject).or_default().push(number as u32);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        FrozenBatch { batch, keys, origins, by_origin: OnceLock::new() }
    }

    fn by_origin(&self) -> &[OriginCounts] {
        self.by_origin.get_or_init(|| {
            let mut by_origin: Vec<OriginCounts> = Vec::new();
            by_origin.resize_with(self.batch.origins.rows.len(), OriginCounts::default);
            for (origin, counts) in self.batch.links.iter().flat_map(LinkCounts::origins) {
                let sum = &mut by_origin[*origin as usize];
                for (number, facts, count) in counts.cells.iter() {
                    let (day, quarter) = day_and_quarter(number);
                    *sum.cells.entry(day).or_default().entry((quarter, facts)).or_default() +=
                        u64::from(count);
                }
                counts.add_visitors_to(&mut sum.visitors);
            }
            by_origin
        })
    }
}

impl RollupChanges for FrozenBatch {
    fn keys(&self) -> &[(Day, Subject)] {
        &self.keys
    }

    fn apply(&self, index: usize, rollup: &mut Rollup) {
        let (day, subject) = &self.keys[index];
        let facts = &self.batch.facts.rows;
        if let Subject::Link(link) = subject {
            for (_, counts) in self.batch.link(*link).into_iter().flat_map(LinkCounts::origins) {
                counts.apply(*day, facts, rollup);
            }
            return;
        }
        let by_origin = self.by_origin();
        for origin in self.origins.get(subject).into_iter().flatten() {
            let counts = &by_origin[*origin as usize];
            for ((quarter, row), count) in counts.cells.get(day).into_iter().flatten() {
                rollup.add(*quarter, &facts[*row as usize].get(), *count);
            }
            if let Some(visitors) = counts.visitors.get(day) {
                rollup.merge(visitors);
            }
        }
    }
}

impl Counts {
    fn apply(&self, day: Day, facts: &[OwnedFacts], rollup: &mut Rollup) {
        for (number, row, count) in self.cells.iter() {
            let (own, quarter) = day_and_quarter(number);
            if own == day {
                rollup.add(quarter, &facts[row as usize].get(), u64::from(count));
            }
        }
        for (number, visitor) in &self.visitors {
            let (own, quarter) = day_and_quarter(*number);
            if own == day {
                rollup.add_visitor(quarter, *visitor);
            }
        }
        if let Some(sketch) = self.sketches.get(&day) {
            rollup.merge(sketch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use terse_model::click::{ClickId, Purpose};

    /// (link, visitor, tag, hour)
    type Script = Vec<(u64, u64, u8, i64)>;

    fn scripts() -> impl Strategy<Value = Script> {
        prop_oneof![
            proptest::collection::vec((0..30u64, 0..40u64, 0..3u8, 0..50i64), 0..60),
            // One link with so many visitors and cells that both leave their short forms.
            proptest::collection::vec((5..6u64, 0..5_000u64, 0..2u8, 0..50i64), 300..700),
        ]
    }

    fn fill(batch: &mut Batch, script: &Script) {
        for (link, visitor, tag, hour) in script.iter().copied() {
            let tags = format!("t{tag}\n");
            let facts = Facts {
                kind: if visitor.is_multiple_of(3) { Kind::Bot } else { Kind::Human },
                referrer: "",
                country: "de",
                device: Device::Mobile,
                browser: ["Firefox", "Safari"][visitor as usize % 2],
                os: "",
                language: "",
            };
            let click = Click {
                id: ClickId { node: 1, lane: 0, segment: 1, offset: 64 },
                at: Timestamp::from_millis(1_800_000_000_000).plus_seconds(hour * 3_600),
                link: LinkId(link),
                domain: DomainId(1),
                owner: (link != 3).then_some(UserId(7)),
                tags: &tags,
                visitor: VisitorHash(visitor),
                is_head: false,
                purpose: Purpose::Visit,
                referrer: "",
                user_agent: "",
                facts,
            };
            let counted = batch.number(&click);
            batch.add(&[NewClick { counted, at: click.at, link: click.link, visitor: click.visitor }]);
        }
    }

    fn told(batch: Batch) -> Vec<(Day, Subject, Rollup)> {
        let frozen = FrozenBatch::new(Arc::new(batch));
        let rollup = |index| {
            let mut rollup = Rollup::default();
            frozen.apply(index, &mut rollup);
            rollup
        };
        let keys = frozen.keys().iter().cloned().enumerate();
        keys.map(|(index, (day, subject))| (day, subject, rollup(index))).collect()
    }

    proptest! {
        #[test]
        fn a_cleared_batch_counts_as_a_new_one(before in proptest::collection::vec(scripts(), 1..4), now in scripts()) {
            let (mut used, mut new) = (Batch::default(), Batch::default());
            for script in &before {
                fill(&mut used, script);
                used = used.cleared();
            }
            prop_assert_eq!((used.clicks(), used.bytes()), (0, 0));
            fill(&mut used, &now);
            fill(&mut new, &now);
            prop_assert_eq!((used.clicks(), used.bytes()), (new.clicks(), new.bytes()));
            prop_assert_eq!(told(used), told(new));
        }
    }

    #[test]
    fn a_cleared_batch_gives_back_tables_that_were_far_too_large() {
        let mut batch = Batch::default();
        fill(&mut batch, &(0..5_000).map(|link| (link, 1, 0, 0)).collect());
        batch = batch.cleared();
        assert!(batch.links.capacity() >= 5_000 && batch.index.capacity() >= 5_000);
        fill(&mut batch, &(0..10).map(|link| (link, 1, 0, 0)).collect());
        batch = batch.cleared();
        assert!(batch.links.capacity() <= 10 * ROOM_MAX && batch.index.capacity() <= 20 * ROOM_MAX);
    }
}
