//! Clicks: from the redirect path to statistics.
//!
//! 1. [`recorder`] writes each click to the [`journal`] before its answer leaves: no wait, no address.
//! 2. [`pipeline`], a thread, reads the journal, finds out what the user [`agent`] means, and sums clicks in a
//!    [`batch`].
//! 3. Batches and raw events are committed to a [`ClickStore`], each exactly once.
//! 4. [`Clicks`] answers: what the store holds and the batches that are on their way to it.

pub mod agent;
pub mod batch;
pub mod country;
pub mod journal;
pub mod pipeline;
pub mod recorder;
pub mod referrer;
pub mod visitor;

use crate::clock::Clock;
use crate::config::ClicksConfig;
use crate::metrics::Metrics;
use country::{Countries, CountryError};
use journal::{Journal, JournalConfig};
use pipeline::{COMMIT_PAUSE_MAX, Command, Parts, Pipeline, Shared, lowest};
use recorder::Recorder;
use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use terse_model::click::{Day, Subject, Totals, VisitorHash};
use terse_model::click_store::{
    CancelOnDrop, ClickScan, ClickStore, ClickVisitor, DayDifference, Reclassify, RollupPart, RollupsFound,
};
use terse_model::code_space::LinkId;
use terse_model::rollup::Rollup;
use terse_model::stats::{Stats, StatsBuilder, StatsQuery, TooManyBuckets};
use terse_model::store::StoreError;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use visitor::Visitors;

/// Answers that are put together at once; each takes a processor for some milliseconds.
const ANSWERS_MAX: usize = 4;
/// How long a flush or a hold may take.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a filtered answer waits for the newest raw events.
const FRESH_PATIENCE: Duration = Duration::from_secs(2);
/// Between two rounds of small chores, and of upkeep of the store.
const CHORES_PAUSE: Duration = Duration::from_secs(1);
const UPKEEP_PAUSE: Duration = Duration::from_secs(60);
/// Between two steps of upkeep, so that commits get their turn.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of chores between two looks at the file of countries.
const COUNTRY_ROUNDS: u32 = 5;

/// Statistics, raw events and live counts.
#[derive(Debug)]
pub struct Clicks {
    store: Arc<dyn ClickStore>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    answers: Semaphore,
    /// Taken by what reads or changes whole days.
    heavy: Semaphore,
    clock: Clock,
    lag_max: Duration,
    live_len_max: usize,
}

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The range is too long for its granularity.
    #[error(transparent)]
    TooManyBuckets(#[from] TooManyBuckets),
    /// The store of clicks failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why clicks can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ClicksError {
    /// The journal.
    #[error("cannot open the journal of clicks in {path:?}")]
    Journal {
        /// Its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of countries.
    #[error(transparent)]
    Country(#[from] CountryError),
    /// The store of clicks.
    #[error("the statistics can't be read")]
    Store(#[from] StoreError),
}

/// How far the pipeline is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events that are in the journal and not in what statistics show.
    pub events: u64,
    /// Age of the oldest of them, in milliseconds.
    pub millis: u64,
    /// Size of the journal on disk, in bytes.
    pub journal_bytes: u64,
    /// Events of earlier runs that a power cut took, as far as recovery can tell.
    pub lost: u64,
    /// Whether it passes the configured bound.
    pub is_degraded: bool,
}

/// What was started.
#[derive(Debug)]
pub struct Started {
    /// For those who ask.
    pub clicks: Clicks,
    /// For the redirect path.
    pub recorder: Option<Recorder>,
    /// For whoever stops it.
    pub running: Running,
}

/// The pipeline's thread.
#[derive(Debug)]
pub struct Running {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

/// What starting needs besides the configuration.
#[derive(Debug)]
pub struct Place<'a> {
    /// The folder of the journal.
    pub folder: &'a Path,
    /// The file of the day's salt.
    pub salt: &'a Path,
    /// Names events.
    pub node: u64,
    /// Worker threads.
    pub workers: usize,
}

/// Opens the journal and starts the pipeline. If clicks are not to be recorded, it reads what is left from before.
pub async fn start(
    config: &ClicksConfig,
    place: Place<'_>,
    store: Arc<dyn ClickStore>,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Started, ClicksError> {
    let shared = Arc::new(Shared::default());
    let journal_error = |source| ClicksError::Journal { path: place.folder.to_owned(), source };
    let positions = store.positions().await?;
    let keeps_raw = config.raw_days > 0;
    let journal_config = JournalConfig {
        folder: place.folder.to_owned(),
        node: place.node,
        lanes: if config.are_recorded { u16::try_from(place.workers).unwrap_or(u16::MAX) } else { 0 },
        above: positions.rollups.iter().chain(&positions.raw).map(|it| it.segment).max().unwrap_or(0),
        segment_len: config.segment_len,
        bytes_max: config.journal_bytes_max,
        flush_interval: config.flush_interval,
    };
    let (journal, reader, keeper) =
        Journal::open(&journal_config, &lowest(&positions)).map_err(journal_error)?;
    let pipeline = Pipeline::new(Parts {
        journal: journal.clone(),
        reader,
        store: store.clone(),
        positions,
        keeps_raw,
        memory_bytes_max: config.memory_bytes_max,
        shared: shared.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        keeper,
    });
    let (commands, ordered) = mpsc::channel(64);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(journal_error)?;
    let thread = std::thread::Builder::new()
        .name("clicks".to_owned())
        .spawn(move || {
            terse_backends::priority::give_way();
            runtime.block_on(pipeline.run(ordered));
        })
        .map_err(journal_error)?;
    let recorder = if config.are_recorded {
        let countries = match &config.country_file {
            Some(file) => Countries::open(file)?,
            None => Countries::built_in(),
        };
        let visitors = Visitors::open(place.salt, Day::of(clock.now())).map_err(journal_error)?;
        Some(Recorder {
            journal,
            visitors: Arc::new(visitors),
            countries: Arc::new(countries),
            keeps_query: config.referrer_query,
            metrics,
        })
    } else {
        None
    };
    let running = Running { commands: commands.clone(), thread };
    let clicks = Clicks { shared, commands, ..Clicks::new(config, store, clock) };
    Ok(Started { clicks, recorder, running })
}

impl Running {
    /// Commits what was recorded, if that is possible in the time that is left. What is not stays in the journal.
    pub async fn stop(self, deadline: tokio::time::Instant) {
        let Running { commands, thread, .. } = self;
        let stop = commands.send(Command::Stop);
        if tokio::time::timeout_at(deadline, stop).await.is_err() {
            tracing::warn!("The pipeline of clicks takes no orders");
        }
        drop(commands);
        while !thread.is_finished() {
            if tokio::time::Instant::now() >= deadline {
                tracing::warn!("Some clicks are not in the statistics yet; they are in the journal");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What the recorder needs now and then, until `stop` turns true.
pub async fn chores(
    visitors: Arc<Visitors>,
    countries: Arc<Countries>,
    clock: Clock,
    mut stop: watch::Receiver<bool>,
) {
    for round in 0_u32.. {
        tokio::select! {
            () = tokio::time::sleep(CHORES_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (visitors, countries, today) = (visitors.clone(), countries.clone(), Day::of(clock.now()));
        // Files may take a while.
        let _ = tokio::task::spawn_blocking(move || {
            if let Err(error) = visitors.keep(today) {
                tracing::warn!(%error, "Could not keep the day's salt: {error}");
            }
            if round.is_multiple_of(COUNTRY_ROUNDS) {
                countries.reload_if_changed();
            }
        })
        .await;
    }
}

/// Merges and drops raw events, until `stop` turns true.
pub async fn upkeep(
    store: Arc<dyn ClickStore>,
    raw_days: u32,
    clock: Clock,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let now = clock.now();
        let today = Day::of(now);
        let raw_from =
            if raw_days == 0 { today.next() } else { Day(today.0.saturating_sub_unsigned(raw_days)) };
        loop {
            match store.upkeep(Some(raw_from), now).await {
                Ok(true) if !*stop.borrow() => tokio::time::sleep(STEP_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = ?error, "Could not tend raw clicks: {error}");
                    break;
                }
            }
        }
    }
}

/// Follows a link's count.
#[derive(Debug)]
pub struct Watch {
    clicks: Arc<Clicks>,
    link: LinkId,
    changes: watch::Receiver<u64>,
    last: Option<Totals>,
}

impl Watch {
    /// The count: at once the first time, then when it has changed. Counts that nobody asked for in time are skipped.
    pub async fn next(&mut self) -> Result<Totals, StoreError> {
        loop {
            if self.last.is_some() {
                // The sender lives as long as this.
                let _ = self.changes.changed().await;
            }
            self.changes.mark_unchanged();
            let totals = self.clicks.totals(vec![Subject::Link(self.link)]).await?;
            let totals = totals.first().copied().unwrap_or_default();
            if self.last.replace(totals) != Some(totals) {
                return Ok(totals);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.clicks.shared.watched.lock().expect("no code panics under this lock");
        // Ours is still among the receivers.
        if watched.get(&self.link).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.link);
        }
    }
}

impl Clicks {
    /// What a store alone can answer.
    pub fn new(config: &ClicksConfig, store: Arc<dyn ClickStore>, clock: Clock) -> Self {
        Clicks {
            store,
            shared: Arc::default(),
            // Nobody takes orders at the other end.
            commands: mpsc::channel(1).0,
            answers: Semaphore::new(ANSWERS_MAX),
            heavy: Semaphore::new(1),
            clock,
            lag_max: config.lag_max,
            live_len_max: config.live_len_max,
        }
    }

    /// Statistics of a subject, with everything that the pipeline has read.
    pub async fn stats(&self, subject: &Subject, query: StatsQuery) -> Result<Stats, StatsError> {
        let builder = StatsBuilder::new(query)?;
        let days = builder.days();
        // Before the store is read: a batch that it holds by then is left out by its number.
        let fresh = self.fresh(subject).await?;
        let fresh_days: Vec<Day> = days_of(&fresh).filter(|day| days.contains(day)).collect();
        let is_fresh = |day: &Day| fresh_days.binary_search(day).is_ok();
        let (mut rollups, mut raw_from) = (Vec::new(), None);
        let (builder, parts) =
            self.off_the_loop(move || (parts_of(&builder), builder)).await.map(|(a, b)| (b, a))?;
        for (days, part) in parts {
            let found = self.store.rollups_get(subject, days, part).await?;
            raw_from = found.raw_from;
            rollups.extend(found.days.into_iter().filter(|(day, _)| !is_fresh(day)));
        }
        for day in &fresh_days {
            rollups.push((*day, self.fresh_day(subject, *day, &fresh).await?));
        }
        rollups.sort_unstable_by_key(|(day, _)| *day);
        let has_raw = move |day: Day| raw_from.is_some_and(|from| day >= from);
        let (builder, raw_days) = self
            .off_the_loop(move || {
                let mut builder = builder;
                let mut raw_days = Vec::new();
                for (day, rollup) in &rollups {
                    if !builder.add_rollup(*day, rollup, has_raw(*day)) {
                        raw_days.push(*day);
                    }
                }
                (builder, raw_days)
            })
            .await?;
        if raw_days.last().is_some_and(|day| day.next() >= Day::of(self.clock.now())) {
            // If it fails or takes long, the answer lacks the last second or so.
            let _ = tokio::time::timeout(FRESH_PATIENCE, self.order(Command::FlushRaw)).await;
        }
        let builder = self.add_raw(subject, builder, &raw_days).await?;
        let mut stats = self.off_the_loop(move || builder.finish()).await?;
        // Without raw events nothing is counted anew; days are over when their last click is in.
        let raw_from = raw_from.unwrap_or_else(|| Day::of(self.clock.now()));
        stats.final_before = (raw_from > Day::of(Timestamp::from_millis(i64::MIN))).then_some(raw_from);
        Ok(stats)
    }

    /// Adds the raw events of days.
    async fn add_raw(
        &self,
        subject: &Subject,
        builder: StatsBuilder,
        days: &[Day],
    ) -> Result<StatsBuilder, StoreError> {
        let builder = Arc::new(Mutex::new(builder));
        for range in ranges(days) {
            let builder = builder.clone();
            let scan = ClickScan {
                subject: subject.clone(),
                range: range.start.start()..range.end.start(),
                after: None,
                cancelled: Default::default(),
            };
            let visit: ClickVisitor = Box::new(move |click| {
                builder.lock().expect("no code panics under this lock").add_click(click);
                ControlFlow::Continue(())
            });
            self.scan(scan, visit).await?;
        }
        let builder = Arc::into_inner(builder).and_then(|builder| builder.into_inner().ok());
        builder.ok_or_else(|| StoreError::Internal("the reading of raw clicks did not finish".into()))
    }

    /// One day's rollup with all that is on its way.
    async fn fresh_day(&self, subject: &Subject, day: Day, fresh: &Fresh) -> Result<Rollup, StoreError> {
        let found = self.store.rollups_get(subject, day..day.next(), RollupPart::Full).await?;
        let RollupsFound { batch, days, .. } = found;
        let mut rollup = days.into_iter().next().map(|(_, rollup)| rollup).unwrap_or_default();
        for (number, days) in fresh {
            if *number > batch
                && let Some(more) = days.get(&day)
            {
                rollup.merge(more);
            }
        }
        Ok(rollup)
    }

    async fn fresh(&self, subject: &Subject) -> Result<Fresh, StoreError> {
        let (shared, subject) = (self.shared.clone(), subject.clone());
        // Of anything but a link, all that is on its way is looked at.
        self.off_the_loop(move || {
            shared.batches.lock().expect("no code panics under this lock").rollups(&subject)
        })
        .await
    }

    /// Runs what takes a processor for a while on a thread that may.
    async fn off_the_loop<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.answers.acquire().await.expect("nobody closes it");
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| StoreError::Internal("an answer was not put together".into()))
    }

    /// Totals of subjects, in their order. Visitors are counted when clicks are committed.
    pub async fn totals(&self, subjects: Vec<Subject>) -> Result<Vec<Totals>, StoreError> {
        let shared = self.shared.clone();
        let fresh_of = move |subjects: &[Subject]| -> Vec<Vec<(u64, u64, u64)>> {
            let batches = shared.batches.lock().expect("no code panics under this lock");
            let of = |subject: &Subject| {
                let counts = batches.all().map(|(number, batch)| (number, batch.totals(subject)));
                counts.map(|(number, (human, all))| (number, human, all)).collect()
            };
            subjects.iter().map(of).collect()
        };
        let (subjects, fresh) = if subjects.iter().all(|subject| matches!(subject, Subject::Link(_))) {
            // Lookups.
            let fresh = fresh_of(&subjects);
            (subjects, fresh)
        } else {
            self.off_the_loop(move || {
                let fresh = fresh_of(&subjects);
                (subjects, fresh)
            })
            .await?
        };
        let (batch, mut totals) = self.store.totals_get(subjects).await?;
        let today = Day::of(self.clock.now());
        for (totals, fresh) in totals.iter_mut().zip(fresh) {
            for (_, human, all) in fresh.into_iter().filter(|(number, ..)| *number > batch) {
                totals.human += human;
                totals.all += all;
                if all > 0 {
                    totals.first_day.get_or_insert(today);
                }
            }
        }
        Ok(totals)
    }

    /// Follows the count of a link. `None` when too many are followed already.
    pub fn watch(self: &Arc<Self>, link: LinkId) -> Option<Watch> {
        let mut watched = self.shared.watched.lock().expect("no code panics under this lock");
        let listeners: usize = watched.values().map(watch::Sender::receiver_count).sum();
        if listeners >= self.live_len_max {
            return None;
        }
        let sender = watched.entry(link).or_insert_with(|| watch::channel(0).0);
        let changes = sender.subscribe();
        Some(Watch { clicks: self.clone(), link, changes, last: None })
    }

    /// Reads raw events, until whoever waits for this goes away.
    pub async fn scan(&self, scan: ClickScan, visit: ClickVisitor) -> Result<(), StoreError> {
        let _cancel = CancelOnDrop(scan.cancelled.clone());
        self.store.clicks_scan(scan, visit).await
    }

    /// Counts days anew from their raw events; days that raw events don't cover in full are left out.
    pub async fn reconcile(&self, days: Range<Day>) -> Result<Vec<(Day, DayDifference)>, StoreError> {
        let _turn = self.heavy_turn()?;
        let mut differences = Vec::new();
        let mut day = days.start;
        while day < days.end {
            let _hold = self.hold().await?;
            if let Some(difference) = self.store.day_recount(day, reclassify()).await? {
                differences.push((day, difference));
            }
            day = day.next();
        }
        Ok(differences)
    }

    /// Erases what is kept of a link's clicks. Counts of its owner, tags and domain stay until their day is counted
    /// anew.
    pub async fn erase_link(&self, link: LinkId) -> Result<u64, StoreError> {
        let _turn = self.heavy_turn()?;
        let _hold = self.hold().await?;
        self.store.link_erase(link).await
    }

    /// Erases a visitor's raw events, of one owner's links or of all.
    pub async fn erase_visitor(
        &self,
        visitor: VisitorHash,
        owner: Option<UserId>,
    ) -> Result<u64, StoreError> {
        let _turn = self.heavy_turn()?;
        self.order(Command::FlushRaw).await?;
        // Nothing is held up for somebody who asks for what is not there.
        if !self.has_visitor(visitor, owner).await? {
            return Ok(0);
        }
        let _hold = self.hold().await?;
        self.store.visitor_erase(visitor, owner).await
    }

    async fn has_visitor(&self, visitor: VisitorHash, owner: Option<UserId>) -> Result<bool, StoreError> {
        let subject = owner.map_or(Subject::Everything, Subject::Owner);
        let range = Timestamp::from_millis(i64::MIN)..Timestamp::MAX;
        let found = Arc::new(AtomicBool::new(false));
        let note = found.clone();
        let visit: ClickVisitor = Box::new(move |click| {
            if click.visitor != visitor {
                return ControlFlow::Continue(());
            }
            note.store(true, Ordering::Relaxed);
            ControlFlow::Break(())
        });
        self.scan(ClickScan { subject, range, after: None, cancelled: Default::default() }, visit).await?;
        Ok(found.load(Ordering::Relaxed))
    }

    /// One at a time works on whole days; others are told to come again.
    fn heavy_turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let busy = |_| StoreError::Unavailable("clicks are being counted anew or erased already".into());
        self.heavy.try_acquire().map_err(busy)
    }

    /// Waits until everything recorded before is committed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.order(Command::Flush).await
    }

    /// Waits until everything that was read is committed, and nothing more is until the guard is dropped.
    async fn hold(&self) -> Result<oneshot::Sender<()>, StoreError> {
        self.order(Command::Hold).await
    }

    async fn order<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let ordered = async {
            self.commands.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        let done = tokio::time::timeout(COMMIT_PATIENCE, ordered).await.map_err(|_| StoreError::Timeout)?;
        done.ok_or_else(|| StoreError::Unavailable("the pipeline of clicks has stopped".into()))
    }

    /// How far the pipeline is behind.
    pub fn lag(&self) -> Lag {
        let events = self.shared.lag_events.load(Ordering::Relaxed);
        let read_until = self.shared.read_until.load(Ordering::Relaxed);
        let behind = self.clock.now().as_millis().saturating_sub(read_until).max(0) as u64;
        let millis = if events == 0 || read_until == 0 { 0 } else { behind };
        Lag {
            events,
            millis,
            journal_bytes: self.shared.journal_bytes.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            is_degraded: Duration::from_millis(millis) > self.lag_max || self.is_stuck(),
        }
    }
}

impl Clicks {
    /// Whether commits fail for longer than they would ever wait.
    fn is_stuck(&self) -> bool {
        let since = self.shared.waiting_since.load(Ordering::Relaxed);
        let waited = self.clock.now().as_millis().saturating_sub(since).max(0) as u64;
        since != 0 && Duration::from_millis(waited) > self.lag_max + COMMIT_PAUSE_MAX
    }
}

/// Counts that are on their way, by the number of their batch.
type Fresh = Vec<(u64, BTreeMap<Day, Rollup>)>;

fn days_of(fresh: &Fresh) -> impl Iterator<Item = Day> {
    let mut days: Vec<Day> = fresh.iter().flat_map(|(_, days)| days.keys().copied()).collect();
    days.sort_unstable();
    days.dedup();
    days.into_iter()
}

/// The days of an answer with how much of each must be read, in ranges of the same.
fn parts_of(builder: &StatsBuilder) -> Vec<(Range<Day>, RollupPart)> {
    let days = builder.days();
    let mut parts: Vec<(Range<Day>, RollupPart)> = Vec::new();
    let mut day = days.start;
    while day < days.end {
        let part = builder.part_of(day);
        match parts.last_mut() {
            Some((range, own)) if *own == part => range.end = day.next(),
            _ => parts.push((day..day.next(), part)),
        }
        day = day.next();
    }
    parts
}

/// Days as ranges of days that follow each other.
fn ranges(days: &[Day]) -> Vec<Range<Day>> {
    let mut ranges: Vec<Range<Day>> = Vec::new();
    for day in days {
        match ranges.last_mut() {
            Some(range) if range.end == *day => range.end = day.next(),
            _ => ranges.push(*day..day.next()),
        }
    }
    ranges
}

/// What a click's agent is taken for today.
fn reclassify() -> Reclassify {
    Arc::new(|click| agent::kind_of(click.is_head, click.purpose, &agent::classify(click.user_agent)))
}
