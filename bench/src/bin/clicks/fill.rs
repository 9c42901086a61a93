//! Fills files as the pipeline does: sums of batches go to the rollups, raw events are kept beside them and merged.

use super::traffic::Traffic;
use super::{Result, say};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;
use terse::clicks::batch::{Batch, FrozenBatch, NewClick};
use terse_backends::sqlite::clicks::SqliteClickStore;
use terse_model::click::{Click, Day, Subject, quarter_of};
use terse_model::click_block::ClickBlock;
use terse_model::click_store::{ClickStore, Position, RollupBatch, RollupChanges};
use terse_model::code_space::LinkId;
use terse_model::rollup::Rollup;
use tokio::runtime::Runtime;

/// The link that all clicks of the first file go to.
pub const HOT: LinkId = LinkId(1);

/// Clicks of cold links in a batch of rollups: what an instance that is busy takes in some seconds.
const COLD_BATCH_LEN: u64 = 5_000;
/// Spreads neighbours: links that are clicked one after the other were not made one after the other.
const COLD_STEP: u64 = 1_000_000_007;

/// A day's clicks of the one link.
#[derive(Debug)]
struct FilledDay {
    changes: DayChanges,
    /// One for each hour; none of days whose raw events are not kept.
    blocks: Vec<Arc<ClickBlock>>,
}

/// All that is counted on a day.
#[derive(Debug)]
struct DayChanges {
    key: [(Day, Subject); 1],
    rollup: Rollup,
}

impl RollupChanges for DayChanges {
    fn keys(&self) -> &[(Day, Subject)] {
        &self.key
    }

    fn apply(&self, _: usize, rollup: &mut Rollup) {
        rollup.merge(&self.rollup);
    }
}

/// Fills a store with the clicks of one link. Threads make days in turn, and days are added in their order.
pub fn hot(
    runtime: &Runtime,
    store: &SqliteClickStore,
    traffic: &Traffic,
    raw_days: &Range<Day>,
    threads: usize,
) -> Result<()> {
    let began = Instant::now();
    let days: Vec<Day> = (traffic.days().start.0..traffic.days().end.0).map(Day).collect();
    thread::scope(|scope| {
        let mut made = Vec::new();
        for turn in 0..threads {
            // One day is added, one waits, one is in the making.
            let (sender, receiver) = sync_channel(1);
            made.push(receiver);
            let own: Vec<Day> = days.iter().copied().skip(turn).step_by(threads).collect();
            scope.spawn(move || make_days(traffic, &own, raw_days, &sender));
        }
        for (number, receiver) in (1..=days.len() as u64).zip(made.iter().cycle()) {
            let FilledDay { changes, blocks } = receiver.recv()?;
            runtime.block_on(async {
                store.rollups_add(batch(number, Arc::new(changes))).await?;
                for block in blocks {
                    store.clicks_add(block, vec![position(number)]).await?;
                }
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            if number.is_multiple_of(30) {
                say(format!("{number} of {} days", days.len()));
            }
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    runtime.block_on(merge(store, raw_days))?;
    println!("Filled in {:.0} s, with {threads} threads that make clicks up.", began.elapsed().as_secs_f64());
    Ok(())
}

fn make_days(traffic: &Traffic, days: &[Day], raw_days: &Range<Day>, sender: &SyncSender<FilledDay>) {
    for day in days {
        // Whoever adds the days has failed, and says so.
        if sender.send(make_day(traffic, *day, raw_days.contains(day))).is_err() {
            return;
        }
    }
}

/// Counts in batches of a quarter of an hour; the pipeline's are of a minute at most.
fn make_day(traffic: &Traffic, day: Day, keeps_raw: bool) -> FilledDay {
    let key = [(day, Subject::Link(HOT))];
    let mut rollup = Rollup::default();
    let (mut quarter, mut counts) = (0, Batch::default());
    let (mut blocks, mut hour, mut block) = (Vec::new(), 0, ClickBlock::default());
    let mut add = |counts: Batch| {
        let frozen = FrozenBatch::new(Arc::new(counts));
        if let Ok(index) = frozen.keys().binary_search(&key[0]) {
            frozen.apply(index, &mut rollup);
        }
    };
    traffic.visit(
        day,
        |_| HOT,
        |click| {
            let own = quarter_of(click.at);
            if own != quarter {
                add(take(&mut counts));
                quarter = own;
            }
            count(&mut counts, click);
            if keeps_raw {
                if own / 4 != hour {
                    blocks.push(Arc::new(take(&mut block)));
                    hour = own / 4;
                }
                block.push(click);
            }
        },
    );
    add(counts);
    if !block.is_empty() {
        blocks.push(Arc::new(block));
    }
    FilledDay { changes: DayChanges { key, rollup }, blocks }
}

fn count(counts: &mut Batch, click: &Click<'_>) {
    let counted = counts.number(click);
    counts.add(&[NewClick { counted, at: click.at, link: click.link, visitor: click.visitor }]);
}

/// Fills a store with links that are clicked once each.
pub async fn cold(store: &SqliteClickStore, traffic: &Traffic, links: u64) -> Result<()> {
    let began = Instant::now();
    let mut number = 0;
    for day in (traffic.days().start.0..traffic.days().end.0).map(Day) {
        let (mut batches, mut counts, mut block) = (Vec::new(), Batch::default(), ClickBlock::default());
        let link = |number: u64| LinkId(number * COLD_STEP % links);
        traffic.visit(day, link, |click: &Click<'_>| {
            count(&mut counts, click);
            block.push(click);
            if counts.clicks() == COLD_BATCH_LEN {
                batches.push((take(&mut counts), take(&mut block)));
            }
        });
        batches.push((counts, block));
        for (counts, block) in batches {
            number += 1;
            store.rollups_add(batch(number, Arc::new(FrozenBatch::new(Arc::new(counts))))).await?;
            store.clicks_add(Arc::new(block), vec![position(number)]).await?;
        }
    }
    merge(store, &traffic.days()).await?;
    println!("\nFilled in {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}

fn batch(number: u64, changes: Arc<dyn RollupChanges>) -> RollupBatch {
    RollupBatch { number, changes, positions: vec![position(number)] }
}

fn position(number: u64) -> Position {
    Position { lane: 0, segment: number, offset: 0 }
}

/// Merges raw events as they are some minutes later, and says that there are none of earlier days.
async fn merge(store: &SqliteClickStore, raw_days: &Range<Day>) -> Result<()> {
    let now = raw_days.end.next().start();
    while store.upkeep(Some(raw_days.start), now).await? {}
    Ok(())
}
