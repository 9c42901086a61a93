//! A store that fails, hangs or holds its answers back when it is told to.

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use terse::app::Stores;
use terse_model::code_space::LinkId;
use terse_model::link::{LinkKey, LinkRecord, Revision};
use terse_model::store::{
    ClickTaken, IdLease, KeptAnswer, LinkStore, LinkWrite, LinkWritten, ListPage, ListQuery, Receipt, Result,
    StoreError,
};
use terse_model::time::Timestamp;
use tokio::sync::watch;

/// No lookup takes so long to arrive, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the store behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Like the one behind it.
    Works,
    /// Every call is an error, at once.
    Fails,
    /// No call ever returns.
    Hangs,
    /// Lookups are made at once, but their answers are kept back until the mood changes.
    HoldsLookups,
}

/// Sets the mood of a store, and tells what it was asked.
#[derive(Clone, Debug)]
pub struct StoreSwitch {
    mood: Arc<watch::Sender<Mood>>,
    held: Arc<watch::Sender<usize>>,
    lookups: Arc<AtomicUsize>,
}

impl StoreSwitch {
    /// A switch, and what puts a store behind it.
    pub fn new() -> (Self, impl FnOnce(Stores) -> Stores) {
        let switch = StoreSwitch {
            mood: Arc::new(watch::Sender::new(Mood::Works)),
            held: Arc::default(),
            lookups: Arc::default(),
        };
        let behind = switch.clone();
        let wrap = move |stores: Stores| {
            let links = Arc::new(FailingStore { inner: stores.links, switch: behind });
            // As a store that other processes write to: cached links end after a time.
            Stores { links, embedded: None, ..stores }
        };
        (switch, wrap)
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Lookups so far.
    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    /// Waits until `count` lookups have read what they will answer.
    pub async fn wait_for_held(&self, count: usize) {
        let mut held = self.held.subscribe();
        let reached = held.wait_for(|held| *held >= count);
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        reached.expect("the store is not asked so often").unwrap();
    }

    async fn pass(&self) -> Result<()> {
        let mood = *self.mood.borrow();
        match mood {
            Mood::Works | Mood::HoldsLookups => Ok(()),
            Mood::Fails => Err(StoreError::Unavailable("switched off".into())),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

#[derive(Debug)]
struct FailingStore {
    inner: Arc<dyn LinkStore>,
    switch: StoreSwitch,
}

#[async_trait]
impl LinkStore for FailingStore {
    fn surely_absent(&self, key: &LinkKey) -> bool {
        self.inner.surely_absent(key)
    }

    async fn link_get(&self, key: &LinkKey) -> Result<Option<LinkRecord>> {
        self.switch.lookups.fetch_add(1, Ordering::SeqCst);
        self.switch.pass().await?;
        let mut mood = self.switch.mood.subscribe();
        let found = self.inner.link_get(key).await;
        if *mood.borrow() == Mood::HoldsLookups {
            self.switch.held.send_modify(|held| *held += 1);
            mood.wait_for(|mood| *mood != Mood::HoldsLookups).await.unwrap();
        }
        found
    }

    async fn links_write(
        &self,
        writes: Vec<LinkWrite>,
        receipt: Option<Receipt>,
    ) -> Result<Vec<LinkWritten>> {
        self.switch.pass().await?;
        self.inner.links_write(writes, receipt).await
    }

    async fn link_list(&self, query: &ListQuery) -> Result<ListPage> {
        self.switch.pass().await?;
        self.inner.link_list(query).await
    }

    async fn click_take(&self, id: LinkId, revision: Revision) -> Result<ClickTaken> {
        self.switch.pass().await?;
        self.inner.click_take(id, revision).await
    }

    async fn links_sweep(&self, before: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<LinkKey>> {
        self.switch.pass().await?;
        self.inner.links_sweep(before, now, limit).await
    }

    async fn ids_lease(&self, count: u64) -> Result<IdLease> {
        self.switch.pass().await?;
        self.inner.ids_lease(count).await
    }

    async fn answers_get(&self, scope: &[u8; 32]) -> Result<Vec<KeptAnswer>> {
        self.switch.pass().await?;
        self.inner.answers_get(scope).await
    }

    async fn answers_sweep(&self, before: Timestamp, limit: usize) -> Result<usize> {
        self.switch.pass().await?;
        self.inner.answers_sweep(before, limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.switch.pass().await?;
        self.inner.ping().await
    }
}
