//! Finds what is under a key: in the cache, else by one shared load from the store.

use super::cache::{Begun, Cache, Known, Loaded};
use crate::clock::Clock;
use crate::limit::{Limiter, Rate};
use crate::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use terse_model::link::LinkKey;
use terse_model::store::{LinkStore, StoreError};
use terse_model::time::Timestamp;
use tracing::Instrument;

/// Why a key could not be resolved. It says nothing about whether there is a link.
#[derive(Clone, Debug)]
pub enum Unresolved {
    /// The store did not answer, or not in time.
    Failed(Arc<StoreError>),
    /// Too many loads are under way, or too many of this code.
    TooMany,
}

/// The way to a link.
#[derive(Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache,
    store: Arc<dyn LinkStore>,
    clock: Clock,
    metrics: Arc<Metrics>,
    timeout: Duration,
    loads: AtomicUsize,
    loads_len_max: usize,
    misses: Option<(Limiter<LinkKey>, Rate)>,
}

impl Resolver {
    /// A resolver over `store`, to which nobody else writes if this is its `sole_writer`.
    pub fn new(
        store: Arc<dyn LinkStore>,
        clock: Clock,
        metrics: Arc<Metrics>,
        config: &crate::config::Config,
        sole_writer: bool,
    ) -> Self {
        let misses = config.rates.as_ref().map(|rates| {
            (Limiter::new(rates.callers_len_max), Rate { count: rates.misses_per_second, per_seconds: 1 })
        });
        Resolver {
            inner: Arc::new(Inner {
                cache: Cache::new(&config.cache, sole_writer),
                store,
                clock,
                metrics,
                timeout: config.store.timeout,
                loads: AtomicUsize::new(0),
                loads_len_max: config.cache.loads_len_max,
                misses,
            }),
        }
    }

    /// The cache, for those who change links.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// How long a redirect waits for the store.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// What is known without asking anybody.
    pub fn peek(&self, key: &LinkKey, now: Timestamp) -> Option<Known> {
        let inner = &self.inner;
        let known =
            inner.cache.get(key, now).or_else(|| inner.store.surely_absent(key).then_some(Known::Missing));
        match known {
            Some(_) => inner.metrics.cache_hits.inc(),
            None => inner.metrics.cache_misses.inc(),
        };
        known
    }

    /// What the store knows; all who ask for one key at once share one load.
    pub async fn load(&self, key: &LinkKey) -> Result<Known, Unresolved> {
        let now = self.inner.clock.now();
        if let Some((limiter, rate)) = &self.inner.misses
            && !limiter.check(key, *rate, now).allowed
        {
            return Err(Unresolved::TooMany);
        }
        loop {
            let mut shared = match self.inner.cache.begin_load(key) {
                Begun::Follow(shared) => shared,
                Begun::Lead(load) => {
                    let Some(permit) = Permit::take(&self.inner) else { return Err(Unresolved::TooMany) };
                    let (key, inner) = (key.clone(), self.inner.clone());
                    let shared = load.outcome();
                    // A task of its own: whoever asked first may hang up, and others wait for the same answer.
                    let loading = async move {
                        let loaded = inner.ask_store(&key).await;
                        load.finish(&inner.cache, loaded, inner.clock.now());
                        drop(permit);
                    };
                    tokio::spawn(loading.in_current_span());
                    shared
                }
            };
            let outcome = shared.wait_for(Option::is_some).await.ok().and_then(|loaded| loaded.clone());
            match outcome {
                Some(loaded) => return loaded.map_err(Unresolved::Failed),
                // The leader went away without an answer, as on a worker that stops: try again.
                None => continue,
            }
        }
    }
}

impl Inner {
    async fn ask_store(&self, key: &LinkKey) -> Loaded {
        let answer = tokio::time::timeout(self.timeout, self.store.link_get(key)).await;
        let record = answer.unwrap_or(Err(StoreError::Timeout)).map_err(|error| {
            tracing::warn!(link.code = %key.code, error = ?error, "Could not look up `{}`: {error}", key.code);
            self.metrics.store_failures.inc();
            Arc::new(error)
        })?;
        Ok(Known::of(record))
    }
}

/// One of the loads that may be under way at once.
struct Permit(Arc<Inner>);

impl Permit {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let permit = Permit(inner.clone());
        (inner.loads.fetch_add(1, Ordering::Relaxed) < inner.loads_len_max).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.loads.fetch_sub(1, Ordering::Relaxed);
    }
}
