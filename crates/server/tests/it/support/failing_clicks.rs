//! A store of clicks that fails, hangs or lies when it is told to.

use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;
use terse::app::Stores;
use terse_model::click::{Day, Subject, Totals, VisitorHash};
use terse_model::click_block::ClickBlock;
use terse_model::click_store::{
    ClickScan, ClickStore, ClickVisitor, DayDifference, Position, Positions, Reclassify, RollupBatch,
    RollupPart, RollupsFound,
};
use terse_model::code_space::LinkId;
use terse_model::store::{Result, StoreError};
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;
use tokio::sync::watch;

/// How the store behaves when something is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// Like the one behind it.
    Work,
    /// Nothing is done, and it says so.
    Fail,
    /// All is done, and it says that it failed.
    Lie,
    /// Nothing ever returns.
    Hang,
}

/// Sets how a store of clicks behaves.
#[derive(Clone, Debug)]
pub struct ClickSwitch(Arc<watch::Sender<Commits>>);

impl ClickSwitch {
    /// A switch, and what puts a store behind it.
    pub fn new() -> (Self, impl FnOnce(Stores) -> Stores) {
        let switch = ClickSwitch(Arc::new(watch::Sender::new(Commits::Work)));
        let behind = switch.clone();
        let wrap = move |stores: Stores| {
            let clicks = Arc::new(FailingClickStore { inner: stores.clicks, switch: behind });
            Stores { clicks, ..stores }
        };
        (switch, wrap)
    }

    pub fn set(&self, commits: Commits) {
        self.0.send_replace(commits);
    }
}

#[derive(Debug)]
struct FailingClickStore {
    inner: Arc<dyn ClickStore>,
    switch: ClickSwitch,
}

impl FailingClickStore {
    async fn commit(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        let failed = || Err(StoreError::Unavailable("switched off".into()));
        let commits = *self.switch.0.borrow();
        match commits {
            Commits::Work => work.await,
            Commits::Fail => failed(),
            Commits::Lie => work.await.and_then(|()| failed()),
            Commits::Hang => {
                let mut mood = self.switch.0.subscribe();
                let _ = mood.wait_for(|commits| *commits != Commits::Hang).await;
                failed()
            }
        }
    }
}

#[async_trait]
impl ClickStore for FailingClickStore {
    async fn positions(&self) -> Result<Positions> {
        self.inner.positions().await
    }

    async fn rollups_add(&self, batch: RollupBatch) -> Result<()> {
        self.commit(self.inner.rollups_add(batch)).await
    }

    async fn clicks_add(&self, clicks: Arc<ClickBlock>, positions: Vec<Position>) -> Result<()> {
        self.commit(self.inner.clicks_add(clicks, positions)).await
    }

    async fn rollups_get(
        &self,
        subject: &Subject,
        days: Range<Day>,
        part: RollupPart,
    ) -> Result<RollupsFound> {
        self.inner.rollups_get(subject, days, part).await
    }

    async fn totals_get(&self, subjects: Vec<Subject>) -> Result<(u64, Vec<Totals>)> {
        self.inner.totals_get(subjects).await
    }

    async fn clicks_scan(&self, scan: ClickScan, visit: ClickVisitor) -> Result<()> {
        self.inner.clicks_scan(scan, visit).await
    }

    async fn day_recount(&self, day: Day, reclassify: Reclassify) -> Result<Option<DayDifference>> {
        self.inner.day_recount(day, reclassify).await
    }

    async fn link_erase(&self, link: LinkId) -> Result<u64> {
        self.inner.link_erase(link).await
    }

    async fn visitor_erase(&self, visitor: VisitorHash, owner: Option<UserId>) -> Result<u64> {
        self.inner.visitor_erase(visitor, owner).await
    }

    async fn upkeep(&self, raw_from: Option<Day>, now: Timestamp) -> Result<bool> {
        self.inner.upkeep(raw_from, now).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}
