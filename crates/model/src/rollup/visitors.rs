//! [`Visitors`]: the sketches of a day and of its quarters of an hour.

use crate::click::{QUARTERS, VisitorHash};
use crate::sketch::{DAY_PRECISION, QUARTER_PRECISION, Sketch};
use crate::varint::{self, Reader};

/// Who the human clicks of a day came from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Visitors {
    pub(super) day: Sketch,
    /// Those of quarters with visitors, in their order.
    pub(super) quarters: Vec<(u8, Sketch)>,
}

impl Default for Visitors {
    fn default() -> Self {
        Visitors { day: Sketch::new(DAY_PRECISION), quarters: Vec::new() }
    }
}

impl Visitors {
    pub(super) fn insert(&mut self, quarter: u8, visitor: VisitorHash) {
        self.day.insert(visitor);
        self.quarter(quarter).insert(visitor);
    }

    pub(super) fn merge(&mut self, other: &Visitors) {
        self.day.merge(&other.day);
        for (quarter, sketch) in &other.quarters {
            self.quarter(*quarter).merge(sketch);
        }
    }

    /// Visitors of all quarters, estimated.
    pub(super) fn len_in_quarters(&self) -> u64 {
        self.quarters.iter().fold(0, |sum, (_, sketch)| sum.saturating_add(sketch.estimate()))
    }

    fn quarter(&mut self, quarter: u8) -> &mut Sketch {
        let at = match self.quarters.last() {
            Some((last, _)) if *last < quarter => Err(self.quarters.len()),
            _ => self.quarters.binary_search_by_key(&quarter, |entry| entry.0),
        };
        let at = at.unwrap_or_else(|at| {
            self.quarters.insert(at, (quarter, Sketch::new(QUARTER_PRECISION)));
            at
        });
        &mut self.quarters[at].1
    }

    /// Whether the sketches of the quarters know each visitor, so that the day's follows from them.
    fn is_day_implied(&self) -> bool {
        self.quarters.iter().all(|(_, sketch)| sketch.is_exact())
    }

    /// Appends the quarters, each with its number, and the day's sketch unless it follows from them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.quarters.len() as u64);
        for (quarter, sketch) in &self.quarters {
            out.push(*quarter);
            sketch.encode(out);
        }
        if !self.is_day_implied() {
            self.day.encode(out);
        }
    }

    pub(super) fn decode(bytes: &mut Reader<'_>) -> Option<Self> {
        let len = bytes.len(QUARTERS.into())?;
        let mut visitors = Visitors { quarters: Vec::with_capacity(len), ..Visitors::default() };
        for _ in 0..len {
            let quarter = bytes.byte().filter(|quarter| *quarter < QUARTERS)?;
            if visitors.quarters.last().is_some_and(|(last, _)| *last >= quarter) {
                return None;
            }
            let sketch = Sketch::decode(QUARTER_PRECISION, bytes)?;
            visitors.quarters.push((quarter, sketch));
        }
        if visitors.is_day_implied() {
            visitors.day = Sketch::union(DAY_PRECISION, visitors.quarters.iter().map(|(_, sketch)| sketch));
        } else {
            visitors.day = Sketch::decode(DAY_PRECISION, bytes)?;
        }
        Some(visitors)
    }
}
