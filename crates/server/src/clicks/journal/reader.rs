//! Follows all lanes of the journal.

use super::Shared;
use super::record::Found;
use super::segment::{SEGMENT_HEAD_LEN, Segment};
use std::sync::Arc;
use terse_model::click::ClickId;
use terse_model::click_store::Position;

#[cfg(test)]
use shuttle::sync::atomic::Ordering;
#[cfg(not(test))]
use std::sync::atomic::Ordering;

/// Reads events in the order of their appends, lane by lane.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    lanes: Vec<Cursor>,
}

/// Where the reader stands in a lane.
#[derive(Clone, Debug, Default)]
struct Cursor {
    segment: u64,
    offset: u32,
    open: Option<Arc<Segment>>,
    /// Behind the last event that was read. It moves with events alone, so that two who have read the same stand at
    /// the same place.
    done: (u64, u32),
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, positions: &[Position]) -> Self {
        let mut lanes = vec![Cursor::default(); shared.lanes.len()];
        for position in positions {
            let cursor = &mut lanes[usize::from(position.lane)];
            (cursor.segment, cursor.offset) = (position.segment, position.offset);
            cursor.done = (position.segment, position.offset);
        }
        Reader { shared, lanes }
    }

    /// Gives `visit` up to about `events_max` events, taken from all lanes in turn. Returns how many there were.
    pub fn read(&mut self, events_max: usize, mut visit: impl FnMut(ClickId, &Found<'_>)) -> usize {
        let share = events_max.div_ceil(self.lanes.len().max(1));
        let shared = &self.shared;
        let lanes = self.lanes.iter_mut().enumerate();
        lanes.map(|(lane, cursor)| cursor.read(shared, lane, share, &mut visit)).sum()
    }

    /// Where it stands in every lane that it has read.
    pub fn positions(&self) -> Vec<Position> {
        let lanes = self.lanes.iter().enumerate().filter(|(_, cursor)| cursor.done.0 > 0);
        lanes
            .map(|(lane, cursor)| Position {
                lane: lane as u16,
                segment: cursor.done.0,
                offset: cursor.done.1,
            })
            .collect()
    }

    /// Whether everything in segments below this number was read, which nobody appends to any more.
    pub fn has_passed(&self, number: u64) -> bool {
        let mut lanes = self.lanes.iter().zip(&self.shared.lanes);
        lanes.all(|(cursor, lane)| {
            let segments = lane.segments.lock().expect("no code panics under this lock");
            let mut left =
                segments.iter().filter(|segment| (cursor.segment..number).contains(&segment.head().number));
            left.all(|segment| {
                segment.head().number == cursor.segment
                    && segment.is_sealed()
                    && cursor.offset >= segment.committed()
            })
        })
    }

    /// Bytes of segments from earlier runs that were not looked at yet.
    pub fn old_bytes(&self) -> u64 {
        let lanes = self.shared.lanes.iter();
        let bytes = lanes.map(|lane| {
            let segments = lane.segments.lock().expect("no code panics under this lock");
            let old = segments.iter().filter(|segment| segment.needs_recovery());
            old.map(|segment| u64::from(segment.size())).sum::<u64>()
        });
        bytes.sum()
    }
}

impl Cursor {
    fn read(
        &mut self,
        shared: &Shared,
        lane: usize,
        events_max: usize,
        visit: &mut impl FnMut(ClickId, &Found<'_>),
    ) -> usize {
        let mut count = 0;
        while count < events_max {
            let Some(segment) = self.segment(shared, lane) else { return count };
            // In this order: what is committed before a segment is sealed is all that there is.
            let is_sealed = segment.is_sealed();
            let committed = segment.committed();
            let head = segment.head();
            while self.offset < committed && count < events_max {
                let Some(found) = segment.event(self.offset, committed) else {
                    // Only a file that somebody else has written to can bring this about.
                    tracing::error!(
                        segment = head.number,
                        offset = self.offset,
                        "A record of the journal is damaged"
                    );
                    shared.lost.fetch_add(1, Ordering::Relaxed);
                    self.offset = committed;
                    break;
                };
                let (node, offset) = (head.node, self.offset);
                visit(ClickId { node, lane: lane as u16, segment: head.number, offset }, &found);
                self.offset += found.len as u32;
                self.done = (head.number, self.offset);
                count += 1;
            }
            if self.offset < committed {
                return count;
            }
            if !is_sealed || !self.next(shared, lane) {
                return count;
            }
        }
        count
    }

    /// The segment that it stands in.
    fn segment(&mut self, shared: &Shared, lane: usize) -> Option<Arc<Segment>> {
        if self.open.is_none() {
            let segments = shared.lanes[lane].segments.lock().expect("no code panics under this lock");
            let segment = segments.iter().find(|segment| segment.head().number >= self.segment)?.clone();
            drop(segments);
            if segment.head().number > self.segment {
                (self.segment, self.offset) = (segment.head().number, SEGMENT_HEAD_LEN);
            }
            if segment.needs_recovery() {
                let recovered = segment.recover(self.offset);
                if recovered.lost > 0 {
                    shared.lost.fetch_add(recovered.lost, Ordering::Relaxed);
                    tracing::warn!(
                        lost = recovered.lost,
                        segment = self.segment,
                        "Lost {} clicks that had not reached the disk",
                        recovered.lost
                    );
                }
            }
            self.offset = self.offset.max(SEGMENT_HEAD_LEN);
            self.open = Some(segment);
        }
        self.open.clone()
    }

    /// Moves on to the segment behind a sealed one, if there is one.
    fn next(&mut self, shared: &Shared, lane: usize) -> bool {
        let segments = shared.lanes[lane].segments.lock().expect("no code panics under this lock");
        let Some(next) = segments.iter().find(|segment| segment.head().number > self.segment) else {
            return false;
        };
        (self.segment, self.offset) = (next.head().number, SEGMENT_HEAD_LEN);
        self.open = None;
        true
    }
}
