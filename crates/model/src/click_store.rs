//! The boundary of what keeps clicks: rollups and raw events, each exactly once with the journal.
//!
//! Two readers follow the journal, each with positions of its own that are saved in the transaction that holds what
//! it read: one adds to rollups, the other keeps raw events. So nothing is counted twice, and nothing is left out.

use crate::click::{Click, ClickId, Day, Subject, Totals, VisitorHash};
use crate::click_block::ClickBlock;
use crate::code_space::LinkId;
use crate::rollup::Rollup;
use crate::store::Result;
use crate::tenant::UserId;
use crate::time::Timestamp;
use async_trait::async_trait;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far a reader has come in a lane of the journal: all before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The lane.
    pub lane: u16,
    /// The segment of the lane; those with a lower number are done.
    pub segment: u64,
    /// The offset in the segment of the first event that is not done, in bytes.
    pub offset: u32,
}

/// Where both readers stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// One for each lane that rollups were made of.
    pub rollups: Vec<Position>,
    /// One for each lane that raw events were kept of.
    pub raw: Vec<Position>,
    /// The number of the last batch of rollups.
    pub batch: u64,
}

/// What a batch of clicks adds to rollups.
pub trait RollupChanges: fmt::Debug + Send + Sync {
    /// Which rollups it changes, in ascending order and without repeats.
    fn keys(&self) -> &[(Day, Subject)];
    /// Adds to the rollup of `keys()[index]`. It may run more than once, each time on the stored rollup.
    fn apply(&self, index: usize, rollup: &mut Rollup);
}

/// A batch of rollups.
#[derive(Clone, Debug)]
pub struct RollupBatch {
    /// Its number, one above the last one's.
    pub number: u64,
    /// What it adds.
    pub changes: Arc<dyn RollupChanges>,
    /// The positions behind it, of all lanes.
    pub positions: Vec<Position>,
}

/// How much of a rollup is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollupPart {
    /// Whole days: counts by value, and counts of each kind by quarter.
    Summary,
    /// Also values by quarter, sketches and the cube.
    Full,
}

/// Rollups as of one moment.
#[derive(Clone, Debug)]
pub struct RollupsFound {
    /// The last batch that they hold.
    pub batch: u64,
    /// The rollups of days that have one, in ascending order.
    pub days: Vec<(Day, Rollup)>,
    /// From this day on, all raw events are kept.
    pub raw_from: Option<Day>,
}

/// Which raw events to read.
#[derive(Clone, Debug)]
pub struct ClickScan {
    /// Whose.
    pub subject: Subject,
    /// From when until before when.
    pub range: Range<Timestamp>,
    /// Only those behind this one in the order of time and identity: where the last page ended.
    pub after: Option<(Timestamp, ClickId)>,
    /// Set when nobody waits for it any more.
    pub cancelled: Cancelled,
}

/// Says that work is not wanted any more. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Says so.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Says so when it is dropped, as when whoever waits goes away.
#[derive(Debug)]
pub struct CancelOnDrop(pub Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Gets each event of a scan, in the order of time and identity, until it breaks.
pub type ClickVisitor = Box<dyn FnMut(&Click<'_>) -> ControlFlow<()> + Send>;

/// Classifies an event anew.
pub type Reclassify = Arc<dyn Fn(&Click<'_>) -> crate::click::Kind + Send + Sync>;

/// What a day's reconciliation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayDifference {
    /// Clicks of every kind, before and after.
    pub all: (u64, u64),
    /// Clicks of people, before and after.
    pub human: (u64, u64),
    /// Clicks that the agent lists know as bots by now, or no longer.
    pub by_agent: u64,
    /// Clicks that are taken for a bot's because one visitor followed one link too often.
    pub by_rate: u64,
    /// Events that were kept twice, and are removed.
    pub repeats: u64,
    /// Events that are counted, and whose raw form was erased.
    pub erased: u64,
}

/// Rollups and raw events.
#[async_trait]
pub trait ClickStore: fmt::Debug + Send + Sync {
    /// Where both readers stand.
    async fn positions(&self) -> Result<Positions>;

    /// Adds a batch to the rollups, durably and with its positions, all or nothing.
    async fn rollups_add(&self, batch: RollupBatch) -> Result<()>;

    /// Keeps raw events, durably and with the positions behind them, all or nothing. Events need no order.
    async fn clicks_add(&self, clicks: Arc<ClickBlock>, positions: Vec<Position>) -> Result<()>;

    /// The rollups of a subject.
    async fn rollups_get(
        &self,
        subject: &Subject,
        days: Range<Day>,
        part: RollupPart,
    ) -> Result<RollupsFound>;

    /// The totals of subjects, in their order; zeros where there are none. With the last batch that they hold.
    async fn totals_get(&self, subjects: Vec<Subject>) -> Result<(u64, Vec<Totals>)>;

    /// Reads raw events.
    async fn clicks_scan(&self, scan: ClickScan, visit: ClickVisitor) -> Result<()>;

    /// Counts a day anew from its raw events, which are classified anew and freed of repeats, and swaps its rollups
    /// in one transaction. `None`, and nothing is done, when raw events don't cover the day. The caller sees to it
    /// that both readers stand at the same positions, and that none adds meanwhile.
    async fn day_recount(&self, day: Day, reclassify: Reclassify) -> Result<Option<DayDifference>>;

    /// Removes the rollups and raw events of a link; returns how many raw events there were.
    async fn link_erase(&self, link: LinkId) -> Result<u64>;

    /// Removes the raw events of a visitor, of one owner's links or of all, and counts the days that they were in
    /// anew; returns how many there were. The same conditions as for [`ClickStore::day_recount`].
    async fn visitor_erase(&self, visitor: VisitorHash, owner: Option<UserId>) -> Result<u64>;

    /// A bounded step of upkeep: merges small blocks of raw events, and drops those of days before `raw_from`.
    /// Returns whether there is more to do.
    async fn upkeep(&self, raw_from: Option<Day>, now: Timestamp) -> Result<bool>;

    /// Whether it can read and write now.
    async fn ping(&self) -> Result<()>;
}
