//! From the journal to the store: one thread that reads, enriches, sums and commits.
//!
//! Rollups and raw events are committed apart, each exactly once: what is committed says in the same transaction how
//! far in the journal it reaches. Raw events go out about every second. Rollups wait longer the more a commit costs,
//! so that a link that is clicked all the time costs one write for thousands of clicks; statistics don't wait for
//! that, since they add the batches that are on their way ([`Shared`]).
//!
//! When the store fails, the same batch is tried again; memory fills up to its bound, then reading stops and the
//! journal holds what comes. Redirects notice nothing of it.

use super::agent::{Agent, classify, kind_of};
use super::batch::{Batch, Counted, FrozenBatch, NewClick};
use super::journal::record::Found;
use super::journal::{Event, Journal, KeeperHandle, Reader};
use super::referrer::host_of;
use crate::clock::Clock;
use crate::metrics::Metrics;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use terse_model::click::{Click, ClickId, Country, Day, Facts, Subject};
use terse_model::click_block::{ClickBlock, Template};
use terse_model::click_store::{ClickStore, Position, Positions, RollupBatch};
use terse_model::code_space::LinkId;
use terse_model::rollup::Rollup;
use terse_model::store::{Result, StoreError};
use terse_model::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Events that are read in one go.
const READ_LEN: usize = 8192;
/// Between two looks at a journal that holds nothing new.
const TICK: Duration = Duration::from_millis(100);
/// The least time between two commits of rollups, and of raw events.
const COMMIT_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
pub const COMMIT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Commits of rollups take at most one part in so many of the time.
const COMMIT_SHARE: u32 = 100;
/// After a commit that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Raw events in one commit.
const RAW_LEN: usize = 64 << 10;
/// Memory for them, in bytes.
const RAW_BYTES: usize = 16 << 20;
/// A time that is further ahead than this is not believed.
const AHEAD_MAX_SECONDS: i64 = 600;
/// User agents whose meaning is remembered.
const AGENTS_LEN_MAX: usize = 20_000;
/// Memory for shapes, in bytes.
const SHAPES_BYTES_MAX: usize = 8 << 20;
/// Bytes of an event in the journal, for guesses.
const EVENT_LEN_GUESS: u64 = 64;

/// What the pipeline shares with those who read statistics.
#[derive(Debug, Default)]
pub struct Shared {
    /// Counts on their way. Held while some thousand events are summed, or one subject is looked up.
    pub batches: Mutex<Batches>,
    /// Links whose count is followed.
    pub watched: Mutex<HashMap<LinkId, watch::Sender<u64>>>,
    /// Events of the journal that were not read yet.
    pub lag_events: AtomicU64,
    /// The time of the last event that was read, in milliseconds.
    pub read_until: AtomicI64,
    /// Size of the journal on disk, in bytes.
    pub journal_bytes: AtomicU64,
    /// Since when something waits to be committed, in milliseconds; 0 when nothing does.
    pub waiting_since: AtomicI64,
    /// Events that a power cut took.
    pub lost: AtomicU64,
}

/// The batches that statistics add to what the store holds.
#[derive(Debug, Default)]
pub struct Batches {
    /// The one that is being filled. Its number is one above the last frozen one's.
    pub open: Batch,
    /// Its number.
    pub number: u64,
    /// The one that is being committed, with its number.
    pub frozen: Option<(u64, Arc<Batch>)>,
}

impl Batches {
    /// Each batch with its number.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Batch)> {
        let frozen = self.frozen.iter().map(|(number, frozen)| (*number, &**frozen));
        frozen.chain([(self.number, &self.open)])
    }

    /// The counts of a subject by day, with the number of the batch that each is in.
    pub fn rollups(&self, subject: &Subject) -> Vec<(u64, BTreeMap<Day, Rollup>)> {
        self.all().map(|(number, batch)| (number, batch.rollups(subject))).collect()
    }
}

/// What others ask of the pipeline.
#[derive(Debug)]
pub enum Command {
    /// Commit everything that was appended before this, then answer.
    Flush(oneshot::Sender<()>),
    /// The same for raw events alone.
    FlushRaw(oneshot::Sender<()>),
    /// The same, and commit nothing more until the answer's receiver is dropped.
    Hold(oneshot::Sender<oneshot::Sender<()>>),
    /// Commit everything if the store lets you, then end.
    Stop,
}

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where clicks come from.
    pub journal: Journal,
    /// Who reads it.
    pub reader: Reader,
    /// Where they go to.
    pub store: Arc<dyn ClickStore>,
    /// Where both commits stand.
    pub positions: Positions,
    /// Whether raw events are kept.
    pub keeps_raw: bool,
    /// Memory for counts, in bytes.
    pub memory_bytes_max: usize,
    /// What is shared with readers.
    pub shared: Arc<Shared>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Ends with the pipeline.
    pub keeper: KeeperHandle,
}

/// The pipeline.
#[derive(Debug)]
pub struct Pipeline {
    parts: Parts,
    shapes: Shapes,
    rollups: Commits,
    raw: Commits,
    /// Clicks that were read and are counted next.
    new: Vec<NewClick>,
    block: ClickBlock,
    frozen: Option<(RollupBatch, Instant)>,
    /// The batch that was committed last, cleared: the next one to be filled.
    spare: Batch,
    frozen_block: Option<(Arc<ClickBlock>, Vec<Position>)>,
    /// When the first of their clicks was read.
    frozen_at: Option<Instant>,
    frozen_block_at: Option<Instant>,
    opened_at: Option<Instant>,
    block_at: Option<Instant>,
    /// How long rollups wait.
    pause: Duration,
    has_read: Extent,
    waiting: Vec<Waiting>,
    held: Option<oneshot::Receiver<()>>,
}

/// How much of the journal was read, or is committed.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    /// Everything that earlier runs have left.
    has_old: bool,
    /// Events of this run.
    new: u64,
}

impl Extent {
    /// Whether it has what earlier runs have left and this many events of this run.
    fn reaches(&self, events: u64) -> bool {
        self.has_old && self.new >= events
    }
}

/// One of the two commits.
#[derive(Debug, Default)]
struct Commits {
    /// How far it reaches, by lane.
    reached: BTreeMap<u16, (u64, u32)>,
    /// What the running one reaches to, and what the last one did.
    reaches: Extent,
    done: Extent,
    /// How many have begun.
    begun: u64,
    running: Option<JoinHandle<Result<()>>>,
    retry_at: Option<Instant>,
}

/// Somebody who waits, and for how many events of this run to be committed.
#[derive(Debug)]
enum Waiting {
    Flush(oneshot::Sender<()>, u64),
    FlushRaw(oneshot::Sender<()>, u64),
    Hold(oneshot::Sender<oneshot::Sender<()>>),
    Stop(u64),
}

impl Waiting {
    /// Whether somebody still wants the answer.
    fn is_awaited(&self) -> bool {
        match self {
            Waiting::Flush(reply, _) | Waiting::FlushRaw(reply, _) => !reply.is_closed(),
            Waiting::Hold(reply) => !reply.is_closed(),
            Waiting::Stop(_) => true,
        }
    }
}

impl Commits {
    fn at(positions: &[Position]) -> Self {
        let reached = positions.iter().map(|it| (it.lane, (it.segment, it.offset))).collect();
        Commits { reached, ..Commits::default() }
    }

    /// Whether the event lies behind what is committed.
    fn wants(&self, id: ClickId) -> bool {
        self.reached.get(&id.lane).is_none_or(|reached| (id.segment, id.offset) >= *reached)
    }

    fn committed(&mut self, positions: &[Position]) {
        self.done = self.reaches;
        self.reached.extend(positions.iter().map(|it| (it.lane, (it.segment, it.offset))));
    }

    /// Where the commit will stand when it holds all that `reader` has read. Never before where it stands: after a start,
    /// one of the two is ahead, and the reader begins where the other one stands.
    fn next(&self, reader: &Reader) -> Vec<Position> {
        let mut next = self.reached.clone();
        for position in reader.positions() {
            let place = next.entry(position.lane).or_default();
            *place = (*place).max((position.segment, position.offset));
        }
        positions_of(&next)
    }

    fn may_begin(&self) -> bool {
        self.running.is_none() && self.retry_at.is_none_or(|at| Instant::now() >= at)
    }

    /// Waits for what runs; for ever if nothing does.
    async fn finished(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        self.running = None;
        outcome.unwrap_or_else(|_| Err(StoreError::Internal("a commit of clicks did not finish".into())))
    }
}

fn positions_of(reached: &BTreeMap<u16, (u64, u32)>) -> Vec<Position> {
    let position =
        |(lane, place): (&u16, &(u64, u32))| Position { lane: *lane, segment: place.0, offset: place.1 };
    reached.iter().map(position).collect()
}

/// The position before which both commits are done, lane by lane.
pub fn lowest(positions: &Positions) -> Vec<Position> {
    let raw = |lane: u16| positions.raw.iter().find(|position| position.lane == lane);
    // A lane that one of them has not come to yet is read from its beginning.
    positions.rollups.iter().filter_map(|position| Some(*position.min(raw(position.lane)?))).collect()
}

impl Pipeline {
    /// A pipeline that goes on where the store says that it stopped.
    pub fn new(parts: Parts) -> Self {
        let mut batches = parts.shared.batches.lock().expect("no code panics under this lock");
        batches.number = parts.positions.batch + 1;
        drop(batches);
        Pipeline {
            rollups: Commits::at(&parts.positions.rollups),
            raw: Commits::at(&parts.positions.raw),
            parts,
            shapes: Shapes::default(),
            new: Vec::new(),
            block: ClickBlock::default(),
            frozen: None,
            spare: Batch::default(),
            frozen_block: None,
            frozen_at: None,
            frozen_block_at: None,
            opened_at: None,
            block_at: None,
            pause: COMMIT_PAUSE,
            has_read: Extent::default(),
            waiting: Vec::new(),
            held: None,
        }
    }

    /// Works until it is told to stop, or until nobody can tell it any more.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let has_room = self.has_room();
            let read = if has_room { self.read() } else { 0 };
            self.show_lag();
            self.begin_commits();
            if self.answer_waiting() {
                return;
            }
            let is_idle = read == 0;
            tokio::select! {
                biased;
                outcome = self.rollups.finished() => self.rollups_done(outcome).await,
                outcome = self.raw.finished() => self.raw_done(outcome),
                command = commands.recv() => match command {
                    Some(Command::Flush(reply)) => {
                        self.waiting.push(Waiting::Flush(reply, self.parts.journal.appended()));
                    }
                    Some(Command::FlushRaw(reply)) => {
                        self.waiting.push(Waiting::FlushRaw(reply, self.parts.journal.appended()));
                    }
                    Some(Command::Hold(reply)) => self.waiting.push(Waiting::Hold(reply)),
                    Some(Command::Stop) => self.waiting.push(Waiting::Stop(self.parts.journal.appended())),
                    None => return,
                },
                () = tokio::time::sleep(TICK), if is_idle => {}
                () = tokio::task::yield_now(), if !is_idle => {}
            }
        }
    }

    /// Whether memory allows to read more.
    fn has_room(&self) -> bool {
        let batches = self.parts.shared.batches.lock().expect("no code panics under this lock");
        let bytes = batches.all().map(|(_, batch)| batch.bytes()).sum::<usize>();
        bytes < self.parts.memory_bytes_max * 2
            && self.block.len() < 2 * RAW_LEN
            && self.block.bytes() < 2 * RAW_BYTES
            && !self.is_draining()
    }

    /// Whether somebody waits for a moment in which everything read is committed.
    fn is_draining(&self) -> bool {
        let is_asked = self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Hold(_)));
        self.held.is_none() && is_asked && self.is_abreast()
    }

    /// Whether the reader has come to where both commits stand, so that the next ones bring both to the same place.
    fn is_abreast(&self) -> bool {
        let positions = self.parts.reader.positions();
        let read = |lane: u16| positions.iter().find(|position| position.lane == lane);
        let passed = |commits: &Commits| {
            commits.reached.iter().all(|(lane, reached)| {
                read(*lane).is_some_and(|position| (position.segment, position.offset) >= *reached)
            })
        };
        // A power cut may have taken what lay between.
        self.has_read.has_old || (passed(&self.rollups) && passed(&self.raw))
    }

    fn read(&mut self) -> usize {
        let now = self.parts.clock.now();
        let latest = now.plus_seconds(AHEAD_MAX_SECONDS);
        let shared = self.parts.shared.clone();
        let mut batches = shared.batches.lock().expect("no code panics under this lock");
        let Pipeline { parts, shapes, rollups, raw, new, block, has_read, .. } = self;
        let (journal, metrics, keeps_raw) = (&parts.journal, &parts.metrics, parts.keeps_raw);
        let first_new = journal.first_segment();
        let Batches { open, number, .. } = &mut *batches;
        let mut read_until = Timestamp::from_millis(i64::MIN);
        let read = parts.reader.read(READ_LEN, |id, found| {
            let mut at = found.at;
            if at > latest {
                metrics.clicks_ahead.inc();
                at = now;
            }
            read_until = read_until.max(at);
            has_read.new += u64::from(id.segment >= first_new);
            let Some(shape) = shapes.of(id, found, (*number, open), (raw.begun, block)) else {
                metrics.clicks_unreadable.inc();
                return;
            };
            if rollups.wants(id) {
                let (link, visitor) = (found.link, found.visitor);
                new.push(NewClick { counted: shape.counted, at, link, visitor });
            }
            if keeps_raw && raw.wants(id) {
                block.push_like(&shape.template, id, at, found.link, found.visitor);
            }
        });
        has_read.has_old = has_read.has_old || parts.reader.has_passed(first_new);
        batches.open.add(new);
        new.clear();
        let has_counts = batches.open.clicks() > 0;
        drop(batches);
        if read > 0 {
            shared.read_until.store(read_until.as_millis(), Ordering::Relaxed);
            self.notify_watchers();
        }
        let now = Instant::now();
        if has_counts {
            self.opened_at.get_or_insert(now);
        }
        if !self.block.is_empty() {
            self.block_at.get_or_insert(now);
        }
        read
    }

    fn show_lag(&self) {
        let Parts { journal, reader, shared, .. } = &self.parts;
        let old = reader.old_bytes() / EVENT_LEN_GUESS;
        let lag = journal.appended().saturating_sub(self.has_read.new) + old;
        shared.lag_events.store(lag, Ordering::Relaxed);
        shared.journal_bytes.store(journal.bytes(), Ordering::Relaxed);
        shared.lost.store(journal.lost(), Ordering::Relaxed);
        let oldest =
            [self.frozen_at, self.opened_at, self.frozen_block_at, self.block_at].into_iter().flatten().min();
        let now = self.parts.clock.now().as_millis();
        let since = oldest.map_or(0, |at| now - i64::try_from(at.elapsed().as_millis()).unwrap_or(0));
        shared.waiting_since.store(since, Ordering::Relaxed);
    }

    /// Lets those know who follow a link whose count has changed.
    fn notify_watchers(&self) {
        let watched = self.parts.shared.watched.lock().expect("no code panics under this lock");
        if watched.is_empty() {
            return;
        }
        let batches = self.parts.shared.batches.lock().expect("no code panics under this lock");
        for (link, sender) in watched.iter() {
            let (_, clicks) = batches.open.totals(&Subject::Link(*link));
            let mark = batches.number << 40 | clicks;
            // A lookup, since it is a link.
            sender.send_if_modified(|seen| clicks > 0 && std::mem::replace(seen, mark) != mark);
        }
    }

    fn begin_commits(&mut self) {
        if let Some(held) = &mut self.held {
            match held.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return,
                _ => self.held = None,
            }
        }
        let due = |since: Option<Instant>, pause: Duration, is_urgent: bool| {
            since.is_some_and(|since| is_urgent || since.elapsed() >= pause)
        };
        let raw_is_urgent = !self.waiting.is_empty();
        let rollups_are_urgent = self.waiting.iter().any(|waiting| !matches!(waiting, Waiting::FlushRaw(..)));
        let block_is_full = self.block.len() >= RAW_LEN || self.block.bytes() >= RAW_BYTES;
        if self.raw.may_begin() {
            if self.frozen_block.is_none()
                && (due(self.block_at, COMMIT_PAUSE, raw_is_urgent) || block_is_full)
            {
                self.frozen_block_at = self.block_at.take();
                self.raw.reaches = self.has_read;
                self.raw.begun += 1;
                let block = Arc::new(std::mem::take(&mut self.block));
                self.frozen_block = Some((block, self.raw.next(&self.parts.reader)));
            }
            if let Some((block, positions)) = self.frozen_block.clone() {
                let store = self.parts.store.clone();
                self.raw.running =
                    Some(tokio::spawn(async move { store.clicks_add(block, positions).await }));
            }
        }
        if self.rollups.may_begin() {
            // Without raw events, freezing makes the raw commit too, whose last one may still be under way.
            let may_freeze = self.frozen.is_none() && (self.parts.keeps_raw || self.frozen_block.is_none());
            if may_freeze && (due(self.opened_at, self.pause, rollups_are_urgent) || self.is_full()) {
                self.freeze();
            }
            if let Some((batch, _)) = &self.frozen {
                let (store, batch) = (self.parts.store.clone(), batch.clone());
                self.rollups.running = Some(tokio::spawn(async move { store.rollups_add(batch).await }));
            }
        }
    }

    fn is_full(&self) -> bool {
        let batches = self.parts.shared.batches.lock().expect("no code panics under this lock");
        batches.open.bytes() >= self.parts.memory_bytes_max
    }

    fn freeze(&mut self) {
        self.frozen_at = self.opened_at.take();
        self.rollups.reaches = self.has_read;
        let mut batches = self.parts.shared.batches.lock().expect("no code panics under this lock");
        let number = batches.number;
        let batch = Arc::new(std::mem::replace(&mut batches.open, std::mem::take(&mut self.spare)));
        batches.frozen = Some((number, batch.clone()));
        batches.number += 1;
        drop(batches);
        let changes = Arc::new(FrozenBatch::new(batch));
        let positions = self.rollups.next(&self.parts.reader);
        if !self.parts.keeps_raw {
            // Passed by on purpose: they are not to come back when somebody switches raw events on.
            self.frozen_block = Some((Arc::default(), self.raw.next(&self.parts.reader)));
            self.raw.reaches = self.has_read;
            // Nothing was added, but texts were taken in.
            self.block = ClickBlock::default();
            self.raw.begun += 1;
        }
        self.frozen = Some((RollupBatch { number, changes, positions }, Instant::now()));
    }

    async fn rollups_done(&mut self, outcome: Result<()>) {
        let Some((batch, began)) = self.frozen.take() else { return };
        if let Err(error) = outcome {
            // A commit that was reported as failed may have happened all the same.
            let number = self.parts.store.positions().await.map(|positions| positions.batch);
            if !number.is_ok_and(|number| number == batch.number) {
                tracing::warn!(error = ?error, "Could not add clicks to the statistics, and tries again: {error}");
                self.parts.metrics.store_failures.inc();
                self.frozen = Some((batch, Instant::now()));
                self.rollups.retry_at = Some(Instant::now() + RETRY_PAUSE);
                return;
            }
        }
        self.rollups.retry_at = None;
        self.frozen_at = None;
        self.pause = (began.elapsed() * COMMIT_SHARE).clamp(COMMIT_PAUSE, COMMIT_PAUSE_MAX);
        self.rollups.committed(&batch.positions);
        drop(batch);
        let mut batches = self.parts.shared.batches.lock().expect("no code panics under this lock");
        let frozen = batches.frozen.take();
        // When nothing was clicked meanwhile, no tables are needed soon.
        let unused = (batches.open.bytes() == 0).then(|| std::mem::take(&mut batches.open));
        drop(batches);
        if let Some((_, frozen)) = frozen {
            self.parts.metrics.clicks_processed.inc_by(frozen.clicks());
            // A store may still hold it, and then the next one is a new one.
            let spare = Arc::into_inner(frozen).filter(|_| unused.is_none());
            self.spare = spare.map(Batch::cleared).unwrap_or_default();
        }
        // Visitors are counted by now, too.
        let watched = self.parts.shared.watched.lock().expect("no code panics under this lock");
        for sender in watched.values() {
            sender.send_replace(u64::MAX);
        }
        drop(watched);
        self.release();
    }

    fn raw_done(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                let Some((_, positions)) = self.frozen_block.take() else { return };
                self.frozen_block_at = None;
                self.raw.retry_at = None;
                self.raw.committed(&positions);
                self.release();
            }
            Err(error) => {
                tracing::warn!(error = ?error, "Could not keep raw clicks, and tries again: {error}");
                self.parts.metrics.store_failures.inc();
                self.raw.retry_at = Some(Instant::now() + RETRY_PAUSE);
            }
        }
    }

    /// Lets the journal use again what both commits have behind them.
    fn release(&self) {
        let positions = Positions {
            rollups: positions_of(&self.rollups.reached),
            raw: positions_of(&self.raw.reached),
            ..Positions::default()
        };
        self.parts.journal.release(&lowest(&positions));
    }

    /// What is committed as rollups, and as raw events.
    fn committed(&self) -> (Extent, Extent) {
        let has_counts = self.frozen.is_some() || self.opened_at.is_some();
        let has_raw = self.frozen_block.is_some() || self.block_at.is_some();
        let rollups = if has_counts { self.rollups.done } else { self.has_read };
        let raw = if has_raw { self.raw.done } else { self.has_read };
        (rollups, raw)
    }

    /// Answers those who wait for what is committed by now. Whether to end.
    fn answer_waiting(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        self.waiting.retain(Waiting::is_awaited);
        let (rollups, raw) = self.committed();
        let is_level = self.is_abreast()
            && self.frozen.is_none()
            && self.frozen_block.is_none()
            && self.opened_at.is_none()
            && self.block_at.is_none();
        let reaches = |events: u64| rollups.reaches(events) && raw.reaches(events);
        let (mut ends, mut left) = (false, Vec::new());
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Flush(reply, events) if reaches(events) => reply.send(()).unwrap_or_default(),
                Waiting::FlushRaw(reply, events) if raw.reaches(events) => {
                    reply.send(()).unwrap_or_default();
                }
                Waiting::Stop(events) if reaches(events) => ends = true,
                Waiting::Hold(reply) if self.held.is_none() && is_level => {
                    let (release, held) = oneshot::channel();
                    if reply.send(release).is_ok() {
                        self.held = Some(held);
                    }
                }
                other => left.push(other),
            }
        }
        self.waiting = left;
        ends
    }
}

/// What is known of clicks by their shape: all that they have in common with others.
#[derive(Debug, Default)]
pub struct Shapes {
    known: HashMap<Box<[u8]>, Shape>,
    bytes: usize,
    /// Agents occur in many shapes.
    agents: HashMap<Box<str>, Agent>,
}

/// What clicks of one shape are counted as, in one batch, and are like, in one block.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    batch: u64,
    counted: Counted,
    block: u64,
    template: Template,
}

impl Shapes {
    /// The shape of an event, in the batch and the block of these numbers.
    pub fn of(
        &mut self,
        id: ClickId,
        found: &Found<'_>,
        (batch, open): (u64, &mut Batch),
        (block, rows): (u64, &mut ClickBlock),
    ) -> Option<Shape> {
        if let Some(shape) = self.known.get(found.shape)
            && (shape.batch, shape.block) == (batch, block)
        {
            return Some(*shape);
        }
        let event = found.event()?;
        let agent = self.agent(event.user_agent);
        let referrer = host_of(event.referrer);
        let click = click_of(id, found.at, &event, &agent, &referrer);
        let shape = Shape { batch, counted: open.number(&click), block, template: rows.template(&click) };
        if self.bytes > SHAPES_BYTES_MAX {
            // The common ones are back in no time.
            self.known.clear();
            self.bytes = 0;
        }
        if self.known.insert(found.shape.into(), shape).is_none() {
            self.bytes += found.shape.len() + size_of::<Shape>() + size_of::<Box<[u8]>>();
        }
        Some(shape)
    }

    fn agent(&mut self, user_agent: &str) -> Agent {
        if let Some(agent) = self.agents.get(user_agent) {
            return *agent;
        }
        let agent = classify(user_agent);
        if self.agents.len() >= AGENTS_LEN_MAX {
            self.agents.clear();
        }
        self.agents.insert(user_agent.into(), agent);
        agent
    }
}

/// Puts together what is known of a click.
fn click_of<'a>(
    id: ClickId,
    at: Timestamp,
    event: &'a Event<'a>,
    agent: &Agent,
    referrer_host: &'a str,
) -> Click<'a> {
    let country = event.country.as_ref().map_or("", Country::as_str);
    Click {
        id,
        at,
        link: event.link,
        domain: event.domain,
        owner: event.owner,
        tags: event.tags,
        visitor: event.visitor,
        is_head: event.is_head,
        purpose: event.purpose,
        referrer: event.referrer,
        user_agent: event.user_agent,
        facts: Facts {
            kind: kind_of(event.is_head, event.purpose, agent),
            referrer: referrer_host,
            country,
            device: agent.device,
            browser: agent.browser,
            os: agent.os,
            language: event.language,
        },
    }
}
