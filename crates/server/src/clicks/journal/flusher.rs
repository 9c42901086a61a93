//! The flusher: a thread that writes to the disk what was appended, so that a power cut takes little. Apart from the
//! keeper, because a disk that is slow must not keep it from having segments ready.

use super::Shared;
use super::keeper::PAGE;
use super::segment::Segment;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Writes dirty pages to the disk.
#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    interval: Duration,
    /// Up to where each segment is on the disk, by its number.
    flushed: BTreeMap<u64, u32>,
}

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>, interval: Duration) -> Self {
        Flusher { shared, interval, flushed: BTreeMap::new() }
    }

    /// Works until the other end of `stop` is dropped, and then once more.
    pub(super) fn run(&mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(self.interval) == Err(RecvTimeoutError::Timeout) {
            self.flush(false);
        }
        self.flush(true);
    }

    fn flush(&mut self, is_last: bool) {
        let mut live = Vec::new();
        for lane in &self.shared.lanes {
            // Taken out of the lock: appends need it when a segment is full, and they wait for no disk.
            let segments = lane.segments.lock().expect("no code panics under this lock");
            live.extend(segments.iter().filter(|segment| !segment.needs_recovery()).cloned());
        }
        self.flushed.retain(|number, _| live.iter().any(|segment| segment.head().number == *number));
        for segment in live {
            self.flush_segment(&segment, is_last);
        }
    }

    fn flush_segment(&mut self, segment: &Segment, is_last: bool) {
        let flushed = self.flushed.entry(segment.head().number).or_default();
        let mut to = segment.committed();
        // Whoever touches a page that is on its way to the disk may have to wait for it. The last page of a busy lane
        // is full in no time, and goes with the next round.
        if !is_last && !segment.is_sealed() && to - *flushed > PAGE {
            to -= to % PAGE;
        }
        if to > *flushed {
            match segment.flush(*flushed - *flushed % PAGE, to) {
                Ok(()) => *flushed = to,
                Err(error) => tracing::warn!(%error, "Could not write clicks to the disk: {error}"),
            }
        }
    }
}
