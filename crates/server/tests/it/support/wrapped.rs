//! Stores around the real ones that a test can break or hold up.

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use terse_model::code_space::LinkId;
use terse_model::domain::{Domain, DomainName};
use terse_model::link::{LinkKey, LinkRecord, Revision};
use terse_model::store::{
    AccountReceipt, AccountStore, ClickTaken, IdLease, KeptAnswer, LinkStore, LinkWrite, LinkWritten,
    ListPage, ListQuery, Receipt, Result, StoreError, UserSave,
};
use terse_model::tenant::{ApiKey, SecretHash, User, UserId, UserName};
use terse_model::time::Timestamp;
use tokio::sync::Semaphore;

/// A link store that makes so many more writes, and then fails at each until it is mended; and that can lose an answer.
#[derive(Debug)]
pub struct BreakingLinks {
    inner: Arc<dyn LinkStore>,
    writes_left: AtomicI64,
    loses_answer: AtomicBool,
}

impl BreakingLinks {
    pub fn around(inner: Arc<dyn LinkStore>) -> Arc<Self> {
        let (writes_left, loses_answer) = (AtomicI64::new(i64::MAX), AtomicBool::new(false));
        Arc::new(BreakingLinks { inner, writes_left, loses_answer })
    }

    pub fn break_after(&self, writes: i64) {
        self.writes_left.store(writes, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.break_after(i64::MAX);
    }

    /// Makes the next write and says that it took too long.
    pub fn lose_next_answer(&self) {
        self.loses_answer.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl LinkStore for BreakingLinks {
    fn surely_absent(&self, key: &LinkKey) -> bool {
        self.inner.surely_absent(key)
    }

    async fn link_get(&self, key: &LinkKey) -> Result<Option<LinkRecord>> {
        self.inner.link_get(key).await
    }

    async fn links_write(
        &self,
        writes: Vec<LinkWrite>,
        receipt: Option<Receipt>,
    ) -> Result<Vec<LinkWritten>> {
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(StoreError::Unavailable("broken by the test".into()));
        }
        let written = self.inner.links_write(writes, receipt).await;
        if self.loses_answer.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Timeout);
        }
        written
    }

    async fn link_list(&self, query: &ListQuery) -> Result<ListPage> {
        self.inner.link_list(query).await
    }

    async fn click_take(&self, id: LinkId, revision: Revision) -> Result<ClickTaken> {
        self.inner.click_take(id, revision).await
    }

    async fn links_sweep(&self, before: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<LinkKey>> {
        self.inner.links_sweep(before, now, limit).await
    }

    async fn ids_lease(&self, count: u64) -> Result<IdLease> {
        self.inner.ids_lease(count).await
    }

    async fn answers_get(&self, scope: &[u8; 32]) -> Result<Vec<KeptAnswer>> {
        self.inner.answers_get(scope).await
    }

    async fn answers_sweep(&self, before: Timestamp, limit: usize) -> Result<usize> {
        self.inner.answers_sweep(before, limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}

/// An account store that can hold back what it has read.
#[derive(Debug)]
pub struct HeldAccounts {
    inner: Arc<dyn AccountStore>,
    holds_key: AtomicBool,
    holds_domains: AtomicBool,
    reached: Semaphore,
    released: Semaphore,
}

impl HeldAccounts {
    pub fn around(inner: Arc<dyn AccountStore>) -> Arc<Self> {
        let (reached, released) = (Semaphore::new(0), Semaphore::new(0));
        let (holds_key, holds_domains) = Default::default();
        Arc::new(HeldAccounts { inner, holds_key, holds_domains, reached, released })
    }

    /// Holds back the next key that is found.
    pub fn hold_next_key(&self) {
        self.holds_key.store(true, Ordering::SeqCst);
    }

    /// Holds back the next list of domains.
    pub fn hold_next_domains(&self) {
        self.holds_domains.store(true, Ordering::SeqCst);
    }

    /// Waits until one is held.
    pub async fn until_held(&self) {
        self.reached.acquire().await.unwrap().forget();
    }

    /// Lets it go.
    pub fn release(&self) {
        self.released.add_permits(1);
    }

    async fn pass(&self, holds: &AtomicBool) {
        if holds.swap(false, Ordering::SeqCst) {
            self.reached.add_permits(1);
            self.released.acquire().await.unwrap().forget();
        }
    }
}

#[async_trait]
impl AccountStore for HeldAccounts {
    async fn user_get(&self, name: &UserName) -> Result<Option<User>> {
        self.inner.user_get(name).await
    }

    async fn user_find(&self, id: UserId) -> Result<Option<User>> {
        self.inner.user_find(id).await
    }

    async fn user_list(&self) -> Result<Vec<User>> {
        self.inner.user_list().await
    }

    async fn user_save(&self, save: UserSave, receipt: Option<AccountReceipt<User>>) -> Result<User> {
        self.inner.user_save(save, receipt).await
    }

    async fn key_find(&self, hash: &SecretHash) -> Result<Option<(ApiKey, User)>> {
        let found = self.inner.key_find(hash).await;
        self.pass(&self.holds_key).await;
        found
    }

    async fn key_list(&self, user: Option<UserId>) -> Result<Vec<ApiKey>> {
        self.inner.key_list(user).await
    }

    async fn key_insert(&self, key: ApiKey, receipt: Option<AccountReceipt<ApiKey>>) -> Result<ApiKey> {
        self.inner.key_insert(key, receipt).await
    }

    async fn key_delete(&self, id: u32) -> Result<Option<ApiKey>> {
        self.inner.key_delete(id).await
    }

    async fn key_touch(&self, id: u32, at: Timestamp) -> Result<()> {
        self.inner.key_touch(id, at).await
    }

    async fn domain_list(&self) -> Result<Vec<Domain>> {
        let domains = self.inner.domain_list().await;
        self.pass(&self.holds_domains).await;
        domains
    }

    async fn domain_insert(
        &self,
        name: DomainName,
        now: Timestamp,
        receipt: Option<AccountReceipt<Option<Domain>>>,
    ) -> Result<Option<Domain>> {
        self.inner.domain_insert(name, now, receipt).await
    }
}
