//! Conformance suites: what [`LinkStore`], [`AccountStore`](crate::store::AccountStore) and
//! [`ClickStore`](crate::click_store::ClickStore) promise, as tests that every store runs.
//!
//! A fixed bug adds a case here, so that all stores gain it. The suites need no particular runtime: concurrent calls
//! are futures that one task polls in turn, which is as concurrent as the store makes them. A case that fails panics
//! with what was promised; its name is the last line on stderr.

mod accounts;
mod clicks;
mod links;

pub use accounts::account_store_suite;
pub use clicks::{ClickCounts, SampleClick, click_store_suite};
pub use links::link_store_suite;

use crate::store::{KeptAnswer, LinkStore};
use crate::time::Timestamp;
use std::future::poll_fn;
use std::task::Poll;

/// A fixed instant, so many seconds later. Its milliseconds are not zero.
fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_900_000_000_123).plus_seconds(second)
}

async fn answers(store: &dyn LinkStore, scope: u8) -> Vec<KeptAnswer> {
    store.answers_get(&[scope; 32]).await.expect("answers_get answers")
}

/// Runs all futures at the same time and returns their outputs in their order.
async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut all_done = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => all_done = false,
                }
            }
        }
        if all_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
