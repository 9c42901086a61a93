//! [`Clock`]: where "now" comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use terse_model::time::Timestamp;

/// The time of day: the system's, or one that a test moves.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// Milliseconds since the epoch, set by hand.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `at` until it is moved.
    pub fn manual(at: Timestamp) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(at.as_millis())))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(match self {
            Clock::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Clock::Manual(millis) => millis.load(Ordering::SeqCst),
        })
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// When this is the system's clock.
    pub fn advance(&self, millis: i64) {
        match self {
            Clock::System => panic!("the system's clock can't be moved"),
            Clock::Manual(at) => at.fetch_add(millis, Ordering::SeqCst),
        };
    }
}
