//! The journal: clicks in mapped files, so that they survive the process.
//!
//! - Each worker thread appends to a **lane** of its own: a copy of some hundred bytes and one atomic store, no system
//!   call ([`Journal::append`]). The kernel keeps the pages when the process dies.
//! - A lane is a row of **segments** ([`segment`]). The **keeper** ([`keeper`]), a thread, has the next one ready
//!   before it is needed, and takes segments back that every durable reader has passed. The **flusher**, another one,
//!   writes dirty pages to disk each second.
//! - The [`Reader`] follows all lanes. Where it stands is saved in the databases that it feeds, in the transactions
//!   that hold what it read.
//! - A start never appends to a segment of an earlier run. Those are read to their first invalid [`record`].

mod flusher;
pub mod keeper;
pub mod reader;
pub mod record;
pub mod segment;

pub use reader::Reader;
pub use record::Event;

use flusher::Flusher;
use keeper::{Keeper, Wake};
use record::RECORD_LEN_MAX;
use segment::{SEGMENT_HEAD_LEN, Segment, SegmentWriter};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use terse_model::click_store::Position;

#[cfg(not(test))]
use std::sync::Mutex;
#[cfg(not(test))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
// The tests of the journal explore interleavings.
#[cfg(test)]
use shuttle::sync::Mutex;
#[cfg(test)]
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Its folder.
    pub folder: PathBuf,
    /// Names events, together with their place.
    pub node: u64,
    /// Lanes to append to; one for each worker thread. Without any, what is there can be read.
    pub lanes: u16,
    /// Segments get numbers above this one: the highest that any position was saved for.
    pub above: u64,
    /// Size of a segment, in bytes.
    pub segment_len: u32,
    /// Size of all segments, in bytes. When it is reached, new events are dropped and counted.
    pub bytes_max: u64,
    /// How often dirty pages are written to disk: what a power cut takes at most.
    pub flush_interval: Duration,
}

/// Why an event was not recorded: there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Where clicks are recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// Ends the journal's threads when it is dropped; then all that was appended is on disk.
#[derive(Debug)]
pub struct KeeperHandle {
    shared: Arc<Shared>,
    flush: Option<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<Lane>,
    /// Lanes that may be appended to; those behind them are left from an earlier run.
    writable: u16,
    wake: Wake,
    /// Segments of this run have this number or a higher one.
    first_segment: u64,
    /// Bytes on disk.
    bytes: AtomicU64,
    /// Events that were lost to a power cut, as far as recovery can tell.
    lost: AtomicU64,
    /// Somebody was told that there is no room, and there was none since.
    is_dropping: AtomicBool,
}

/// One row of segments.
#[derive(Debug, Default)]
struct Lane {
    /// Held for one append. Each worker has a lane of its own, so that nobody waits for it there.
    current: Mutex<Option<SegmentWriter>>,
    /// Segments that are ready to be appended to, in the order of their numbers. Held to take or add one.
    spares: Mutex<VecDeque<(Arc<Segment>, SegmentWriter)>>,
    /// Segments that are not retired, oldest first. Held to add, take or look at one.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    /// Events appended in this run.
    appended: AtomicU64,
    /// Spares that were taken in this run: the keeper prepares more of them when that goes fast.
    taken: AtomicU64,
}

thread_local! {
    static LANE: Cell<u16> = const { Cell::new(0) };
}

impl Journal {
    /// Opens the journal of a folder, whose readers stand at `positions`, and starts its keeper.
    pub fn open(config: &JournalConfig, positions: &[Position]) -> io::Result<(Self, Reader, KeeperHandle)> {
        let (shared, mut keeper) = Keeper::open(config, positions)?;
        let journal = Journal { shared: shared.clone() };
        let reader = Reader::new(shared.clone(), positions);
        let mut flusher = Flusher::new(shared.clone(), config.flush_interval);
        let (flush, stop) = mpsc::channel();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work)
        };
        let threads = vec![
            spawn("journal", Box::new(move || keeper.run()))?,
            spawn("journal-flush", Box::new(move || flusher.run(&stop)))?,
        ];
        Ok((journal, reader, KeeperHandle { shared, flush: Some(flush), threads }))
    }

    /// Says that this thread is the worker of that number, and so which lane is its own.
    pub fn enter(&self, worker: usize) {
        LANE.set((worker % usize::from(self.shared.writable.max(1))) as u16);
    }

    /// Records an event. When this returns `Ok`, it survives the end of the process.
    pub fn append(&self, event: &Event<'_>) -> Result<(), Dropped> {
        let Some(lane) = usize::from(LANE.get()).checked_rem(usize::from(self.shared.writable)) else {
            return Err(Dropped);
        };
        let lane = &self.shared.lanes[lane];
        let mut current = lane.current.lock().expect("no code panics under this lock");
        if let Some(writer) = current.as_mut() {
            if writer.append(event) {
                lane.count();
                return Ok(());
            }
            current.take().into_iter().for_each(SegmentWriter::seal);
        }
        let spare = lane.spares.lock().expect("no code panics under this lock").pop_front();
        let Some((segment, mut writer)) = spare else {
            // The keeper knows: it was woken when the last spare was taken, and is when segments are released.
            if !self.shared.is_dropping.swap(true, Ordering::Relaxed) {
                tracing::warn!("No segment of the journal is ready: clicks are dropped until one is");
            }
            return Err(Dropped);
        };
        let is_written = writer.append(event);
        debug_assert!(is_written, "every record fits an empty segment");
        lane.segments.lock().expect("no code panics under this lock").push_back(segment);
        *current = Some(writer);
        lane.count();
        lane.taken.fetch_add(1, Ordering::Relaxed);
        self.shared.wake.now();
        Ok(())
    }

    /// Lets go of everything before `positions`, of every lane: all durable readers have passed it, and the
    /// transactions that say so are on disk.
    pub fn release(&self, positions: &[Position]) {
        for position in positions {
            let Some(lane) = self.shared.lanes.get(usize::from(position.lane)) else { continue };
            let mut segments = lane.segments.lock().expect("no code panics under this lock");
            let passed =
                segments.iter().take_while(|segment| segment.head().number < position.segment).count();
            let retired: Vec<_> = segments.drain(..passed).collect();
            drop(segments);
            if !retired.is_empty() {
                self.shared.wake.retire(retired);
            }
        }
    }

    /// Events appended in this run.
    pub fn appended(&self) -> u64 {
        self.shared.lanes.iter().map(|lane| lane.appended.load(Ordering::Relaxed)).sum()
    }

    /// Segments of this run have this number or a higher one.
    pub fn first_segment(&self) -> u64 {
        self.shared.first_segment
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Events of earlier runs that a power cut took, as far as recovery can tell.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Lane {
    fn count(&self) {
        // Under the lock of `current`: nobody else adds.
        self.appended.store(self.appended.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Drop for KeeperHandle {
    fn drop(&mut self) {
        self.shared.wake.stop();
        self.flush = None;
        for thread in self.threads.drain(..) {
            // They have nobody to tell about themselves.
            let _ = thread.join();
        }
    }
}

/// The smallest segment that every record fits.
pub const SEGMENT_LEN_MIN: u32 = (RECORD_LEN_MAX as u32 + SEGMENT_HEAD_LEN).next_multiple_of(4096);

#[cfg(test)]
mod tests;
