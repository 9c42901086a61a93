//! The keeper: a thread that does for the journal what takes long, so that appends never do.

use super::segment::{Segment, SegmentFile, SegmentHead};
use super::{JournalConfig, Lane, SEGMENT_LEN_MIN, Shared};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex as StdMutex};
use std::time::{Duration, Instant};
use terse_model::click_store::Position;

#[cfg(test)]
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(test))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Spares that a busy lane has ready at most.
const SPARES_MAX: u64 = 4;
/// A lane that took a spare within this time gets one more.
const BUSY: Duration = Duration::from_secs(2);
/// Files of retired segments that are kept for each lane for good, to be used again.
const FREE_MAX: usize = 2;
/// After a file could not be made.
const CREATE_PAUSE: Duration = Duration::from_secs(1);
/// Between two free files that are given back.
const TRIM_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a page of memory.
pub(super) const PAGE: u32 = 4096;
const EXTENSION: &str = "seg";

/// How others reach the keeper.
#[derive(Debug, Default)]
pub(super) struct Wake {
    orders: StdMutex<Orders>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    is_woken: bool,
    stop: bool,
    retired: Vec<Arc<Segment>>,
}

impl Wake {
    /// Something needs doing.
    pub(super) fn now(&self) {
        self.order(|orders| orders.is_woken = true);
    }

    pub(super) fn retire(&self, mut segments: Vec<Arc<Segment>>) {
        self.order(|orders| {
            orders.retired.append(&mut segments);
            orders.is_woken = true;
        });
    }

    pub(super) fn stop(&self) {
        self.order(|orders| orders.stop = true);
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders.lock().expect("no code panics under this lock"));
        self.bell.notify_one();
    }

    /// Waits for orders, at most until `until`.
    fn wait(&self, until: Instant) -> Orders {
        let mut orders = self.orders.lock().expect("no code panics under this lock");
        while !orders.is_woken && !orders.stop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            orders = self.bell.wait_timeout(orders, left).expect("no code panics under this lock").0;
        }
        let stop = orders.stop;
        let taken = std::mem::take(&mut *orders);
        orders.stop = stop;
        taken
    }
}

/// Makes, flushes and takes back segments.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    folder: PathBuf,
    node: u64,
    segment_len: u32,
    bytes_max: u64,
    next_number: u64,
    next_file: u64,
    free: Vec<SegmentFile>,
    /// Passed by all, but still looked at by somebody.
    retired: Vec<Arc<Segment>>,
    lanes: Vec<LaneState>,
    pause_until: Option<Instant>,
    is_full: bool,
}

/// What the keeper remembers of a lane.
#[derive(Clone, Debug, Default)]
struct LaneState {
    taken: u64,
    taken_at: Option<Instant>,
    target: u64,
}

impl Keeper {
    /// Looks at what is in the folder and prepares a spare for each lane. Segments that were passed are free.
    pub(super) fn open(config: &JournalConfig, positions: &[Position]) -> io::Result<(Arc<Shared>, Self)> {
        if !config.folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&config.folder)?;
        }
        let segment_len = config.segment_len.max(SEGMENT_LEN_MIN).next_multiple_of(PAGE);
        let (mut old, mut free, mut next_file, mut bytes, mut lost) = (Vec::new(), Vec::new(), 0, 0, 0);
        for entry in fs::read_dir(&config.folder)? {
            let path = entry?.path();
            let Some(number) = file_number(&path) else { continue };
            next_file = next_file.max(number + 1);
            let file = SegmentFile::open(&path)?;
            match file.head() {
                Some(head) => old.push((head, file)),
                // It was being made when the process or the machine died: nothing was ever appended to it.
                None if file.size() == segment_len => free.push(file),
                None => {
                    file.remove()?;
                    continue;
                }
            }
        }
        let highest = old.iter().map(|(head, _)| head.number);
        let highest = highest.chain(positions.iter().map(|position| position.segment));
        let highest = highest.chain([config.above]).max().unwrap_or(0);
        let lanes_len = old.iter().map(|(head, _)| head.lane).chain(positions.iter().map(|it| it.lane)).max();
        let lanes_len = lanes_len.map_or(0, |lane| lane + 1).max(config.lanes);
        let lanes: Vec<Lane> = (0..lanes_len).map(|_| Lane::default()).collect();
        old.sort_by_key(|(head, _)| head.number);
        for (head, file) in old {
            let reached = positions.iter().find(|position| position.lane == head.lane);
            if reached.is_some_and(|reached| head.number < reached.segment) {
                if file.size() == segment_len {
                    free.push(file);
                } else {
                    file.remove()?;
                }
                continue;
            }
            let from = reached.filter(|reached| reached.segment == head.number).map_or(0, |it| it.offset);
            let segment = file.resume(head);
            if !segment.begins_at(from) {
                // A spare that nobody came to need, or one that is read to its end.
                lost += segment.recover(from).lost;
                match segment.into_file() {
                    Ok(file) if file.size() == segment_len => free.push(file),
                    Ok(file) => file.remove()?,
                    Err(_) => unreachable!("nobody else has it"),
                }
                continue;
            }
            bytes += u64::from(segment.size());
            lanes[usize::from(head.lane)].segments.lock().expect("nobody else has it").push_back(segment);
        }
        bytes += free.iter().map(|file| u64::from(file.size())).sum::<u64>();
        let shared = Arc::new(Shared {
            lanes,
            writable: config.lanes,
            wake: Wake::default(),
            first_segment: highest + 1,
            bytes: AtomicU64::new(bytes),
            lost: AtomicU64::new(lost),
            is_dropping: AtomicBool::new(false),
        });
        let mut keeper = Keeper {
            lanes: vec![LaneState::default(); usize::from(shared.writable)],
            shared: shared.clone(),
            folder: config.folder.clone(),
            node: config.node,
            segment_len,
            bytes_max: config.bytes_max,
            next_number: highest + 1,
            next_file,
            free,
            retired: Vec::new(),
            pause_until: None,
            is_full: false,
        };
        keeper.prepare();
        Ok((shared, keeper))
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self) {
        let mut next_trim = Instant::now() + TRIM_PAUSE;
        loop {
            let shared = self.shared.clone();
            let until = self.pause_until.map_or(next_trim, |pause| pause.min(next_trim));
            let orders = shared.wake.wait(until);
            if orders.stop {
                return;
            }
            self.retired.extend(orders.retired);
            self.take_back();
            self.prepare();
            if Instant::now() >= next_trim {
                self.trim();
                next_trim = Instant::now() + TRIM_PAUSE;
            }
        }
    }

    /// Frees the files of retired segments that nobody looks at any more.
    fn take_back(&mut self) {
        let retired = std::mem::take(&mut self.retired);
        for segment in retired {
            match segment.into_file() {
                Ok(file) if file.size() == self.segment_len => self.free.push(file),
                Ok(file) => self.remove(file),
                Err(segment) => self.retired.push(segment),
            }
        }
    }

    /// Sees to it that every lane has as many spares as its pace asks for.
    fn prepare(&mut self) {
        if self.pause_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.pause_until = None;
        for lane in 0..self.lanes.len() {
            let spares = self.spares(lane).lock().expect("no code panics under this lock").len() as u64;
            // Once round: what is taken meanwhile rings the bell again, and retired files come back in between.
            for _ in spares..self.target(lane) {
                match self.new_segment(lane as u16) {
                    Ok(Some(spare)) => {
                        self.is_full = false;
                        self.shared.is_dropping.store(false, Ordering::Relaxed);
                        let mut spares = self.spares(lane).lock().expect("no code panics under this lock");
                        spares.push_back(spare);
                    }
                    Ok(None) => {
                        if !std::mem::replace(&mut self.is_full, true) {
                            tracing::error!(
                                bytes_max = self.bytes_max,
                                "The journal of clicks is full: new clicks are not counted until statistics catch up"
                            );
                        }
                        return;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut self.is_full, true) {
                            tracing::error!(%error, "The journal of clicks can't grow: {error}");
                        }
                        self.pause_until = Some(Instant::now() + CREATE_PAUSE);
                        return;
                    }
                }
            }
        }
    }

    fn spares(&self, lane: usize) -> &super::Mutex<VecDeque<(Arc<Segment>, super::SegmentWriter)>> {
        &self.shared.lanes[lane].spares
    }

    fn target(&mut self, lane: usize) -> u64 {
        let taken = self.shared.lanes[lane].taken.load(Ordering::Relaxed);
        let state = &mut self.lanes[lane];
        let now = Instant::now();
        let is_busy = state.taken_at.is_some_and(|at| now.duration_since(at) < BUSY);
        if taken > state.taken {
            state.target = if is_busy { (state.target + 1).min(SPARES_MAX) } else { 1 };
            (state.taken, state.taken_at) = (taken, Some(now));
        } else if !is_busy {
            state.target = 1;
        }
        state.target.max(1)
    }

    /// A segment that nothing was appended to; `None` when there is no room for one.
    fn new_segment(&mut self, lane: u16) -> io::Result<Option<(Arc<Segment>, super::SegmentWriter)>> {
        let file = match self.free.pop() {
            Some(file) => file,
            None => {
                let bytes = self.shared.bytes.load(Ordering::Relaxed) + u64::from(self.segment_len);
                if bytes > self.bytes_max {
                    return Ok(None);
                }
                let path = self.folder.join(format!("{:08}.{EXTENSION}", self.next_file));
                let file = SegmentFile::create(&path, self.segment_len)?;
                // The file's name, too, must outlive a power cut.
                File::open(&self.folder)?.sync_all()?;
                self.next_file += 1;
                self.shared.bytes.store(bytes, Ordering::Relaxed);
                file
            }
        };
        let head = SegmentHead { node: self.node, lane, number: self.next_number };
        self.next_number += 1;
        file.begin(head).map(Some).map_err(|(error, file)| {
            self.free.push(file);
            error
        })
    }

    /// Gives back the disk space that a backlog has left: slowly, since what is free now may be wanted soon.
    fn trim(&mut self) {
        if self.free.len() > FREE_MAX * self.lanes.len()
            && let Some(file) = self.free.pop()
        {
            self.remove(file);
        }
    }

    fn remove(&self, file: SegmentFile) {
        let len = u64::from(file.size());
        match file.remove() {
            Ok(()) => {
                self.shared.bytes.fetch_sub(len, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "Could not remove a segment of the journal: {error}"),
        }
    }
}

fn file_number(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == EXTENSION);
    if is_segment { path.file_stem()?.to_str()?.parse().ok() } else { None }
}
