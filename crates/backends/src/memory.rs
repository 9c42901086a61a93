//! [`MemoryStore`]: links and accounts in the memory of one process, gone when it ends.
//!
//! The smallest honest implementation of both boundaries. It takes the place of a database in tests, and property
//! tests hold the databases against it. A write that can fail works on a copy of everything, so that a failed one
//! leaves no trace: right for thousands of links, not for millions.

use async_trait::async_trait;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terse_model::code::BUILT_IN_WORDS;
use terse_model::code_space::{CodeSpace, LinkId};
use terse_model::domain::{Domain, DomainId, DomainName};
use terse_model::link::{ClickLimit, Link, LinkKey, LinkRecord, Removal, Revision};
use terse_model::store::{
    AccountReceipt, AccountStore, ChangeRule, ClickTaken, IdLease, Instance, KeptAnswer, LinkStore,
    LinkWrite, LinkWritten, ListPage, ListQuery, NewLink, Receipt, Result, StoreError, UserSave,
};
use terse_model::tenant::{ApiKey, Role, SecretHash, Tier, User, UserId, UserName};
use terse_model::time::Timestamp;

/// An in-memory [`LinkStore`] and [`AccountStore`].
pub struct MemoryStore {
    codes: CodeSpace,
    /// Held for one method at a time, never over an `.await`.
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    /// The first id that was never leased.
    mark: u64,
    rows: BTreeMap<LinkId, Row>,
    names: BTreeMap<LinkKey, LinkId>,
    /// Ids that leases step over, since a name spells them.
    reserved: BTreeSet<u64>,
    answers: BTreeMap<([u8; 32], u32), KeptAnswer>,
    users: BTreeMap<UserId, User>,
    keys: BTreeMap<u32, ApiKey>,
    /// Kept apart from `keys`, so that a deleted key's identity is not given again.
    last_key_id: u32,
    domains: BTreeMap<DomainId, Domain>,
}

#[derive(Clone)]
struct Row {
    record: LinkRecord,
    /// Whether a later equal link may be answered with this one.
    reusable: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(instance: Instance) -> Self {
        let codes = instance.codes;
        let reserved = BUILT_IN_WORDS.iter().filter_map(|word| codes.decode(word)).map(|id| id.0).collect();
        let state = State {
            mark: codes.first_id().0,
            rows: BTreeMap::new(),
            names: BTreeMap::new(),
            reserved,
            answers: BTreeMap::new(),
            users: BTreeMap::new(),
            keys: BTreeMap::new(),
            last_key_id: 0,
            domains: BTreeMap::new(),
        };
        MemoryStore { codes, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only rules and answers can panic, and they run on a copy: what the lock guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all of `change` or, when it fails, nothing.
    fn transact<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let mut copy = state.clone();
        let made = change(&mut copy)?;
        *state = copy;
        Ok(made)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl LinkStore for MemoryStore {
    fn surely_absent(&self, key: &LinkKey) -> bool {
        self.lock().resolve(&self.codes, key).is_none()
    }

    async fn link_get(&self, key: &LinkKey) -> Result<Option<LinkRecord>> {
        let state = self.lock();
        Ok(state.resolve(&self.codes, key).map(|id| state.rows[&id].record.clone()))
    }

    async fn links_write(
        &self,
        writes: Vec<LinkWrite>,
        receipt: Option<Receipt>,
    ) -> Result<Vec<LinkWritten>> {
        self.transact(|state| {
            let mut written = Vec::with_capacity(writes.len());
            for write in writes {
                written.push(match write {
                    LinkWrite::Insert(new) => state.insert(&self.codes, *new)?,
                    LinkWrite::Change { key, apply } => state.change(&self.codes, &key, &apply),
                });
            }
            if let Some(receipt) = receipt
                && let Some(answer) = (receipt.answer)(&written)
            {
                let Receipt { scope, fingerprint, part, at, .. } = receipt;
                state.keep(scope, KeptAnswer { fingerprint, part, at, answer })?;
            }
            Ok(written)
        })
    }

    async fn link_list(&self, query: &ListQuery) -> Result<ListPage> {
        let state = self.lock();
        let mut matching = state
            .rows
            .range(..query.before.unwrap_or(LinkId(u64::MAX)))
            .rev()
            .map(|(_, row)| &row.record)
            .filter(|record| query.owner.is_none_or(|owner| record.owner() == Some(owner)))
            .filter(|record| query.matches(record));
        let links: Vec<LinkRecord> = matching.by_ref().take(query.limit).cloned().collect();
        let next = matching.next().and(links.last()).map(LinkRecord::id);
        Ok(ListPage { links, next })
    }

    async fn click_take(&self, id: LinkId, revision: Revision) -> Result<ClickTaken> {
        let mut state = self.lock();
        let Some(Row { record: LinkRecord::Present(link), .. }) = state.rows.get_mut(&id) else {
            return Ok(ClickTaken::Changed);
        };
        if link.revision != revision {
            return Ok(ClickTaken::Changed);
        }
        if link.click_limit().is_none_or(ClickLimit::is_reached) {
            return Ok(ClickTaken::NoneLeft);
        }
        link.clicks_used += 1;
        Ok(ClickTaken::Taken)
    }

    async fn links_sweep(&self, before: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<LinkKey>> {
        let mut swept = Vec::new();
        for row in self.lock().rows.values_mut() {
            if swept.len() == limit {
                break;
            }
            if let LinkRecord::Present(link) = &row.record
                && link.settings.expires_at.is_some_and(|at| at < before)
                && link.settings.fallback.is_none()
            {
                swept.push(link.key.clone());
                row.record = LinkRecord::Removed(link.clone().remove(Removal::Expired, now));
            }
        }
        Ok(swept)
    }

    async fn ids_lease(&self, count: u64) -> Result<IdLease> {
        let mut state = self.lock();
        let ids = state.mark..state.mark + count;
        state.mark = ids.end;
        let reserved = state.reserved.range(ids.clone()).copied().collect();
        Ok(IdLease { ids, reserved })
    }

    async fn answers_get(&self, scope: &[u8; 32]) -> Result<Vec<KeptAnswer>> {
        let parts = (*scope, 0)..=(*scope, u32::MAX);
        Ok(self.lock().answers.range(parts).map(|(_, kept)| kept.clone()).collect())
    }

    async fn answers_sweep(&self, before: Timestamp, limit: usize) -> Result<usize> {
        let mut left = limit;
        self.lock().answers.retain(|_, kept| {
            let stays = left == 0 || kept.at >= before;
            left -= usize::from(!stays);
            stays
        });
        Ok(limit - left)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl AccountStore for MemoryStore {
    async fn user_get(&self, name: &UserName) -> Result<Option<User>> {
        Ok(self.lock().users.values().find(|user| user.name == *name).cloned())
    }

    async fn user_find(&self, id: UserId) -> Result<Option<User>> {
        Ok(self.lock().users.get(&id).cloned())
    }

    async fn user_list(&self) -> Result<Vec<User>> {
        Ok(self.lock().users.values().cloned().collect())
    }

    async fn user_save(&self, save: UserSave, receipt: Option<AccountReceipt<User>>) -> Result<User> {
        self.transact(|state| {
            let existing = state.users.values().find(|user| user.name == save.name).cloned();
            let mut user = existing.unwrap_or_else(|| User {
                id: UserId(state.users.len() as u32 + 1),
                name: save.name,
                role: Role::Member,
                tier: Tier::Free,
                created_at: save.now,
            });
            user.role = save.role.unwrap_or(user.role);
            user.tier = save.tier.unwrap_or(user.tier);
            state.users.insert(user.id, user.clone());
            state.keep_made(receipt, &user)?;
            Ok(user)
        })
    }

    async fn key_find(&self, hash: &SecretHash) -> Result<Option<(ApiKey, User)>> {
        let state = self.lock();
        let key = state.keys.values().find(|key| key.hash == *hash);
        Ok(key.map(|key| (key.clone(), state.users[&key.user].clone())))
    }

    async fn key_list(&self, user: Option<UserId>) -> Result<Vec<ApiKey>> {
        let state = self.lock();
        Ok(state.keys.values().filter(|key| user.is_none_or(|user| key.user == user)).cloned().collect())
    }

    async fn key_insert(&self, key: ApiKey, receipt: Option<AccountReceipt<ApiKey>>) -> Result<ApiKey> {
        self.transact(|state| {
            if !state.users.contains_key(&key.user) {
                return Err(StoreError::Internal("the key's user does not exist".into()));
            }
            if state.keys.values().any(|other| other.hash == key.hash) {
                return Err(StoreError::Internal("another key has this hash".into()));
            }
            state.last_key_id += 1;
            let key = ApiKey { id: state.last_key_id, ..key };
            state.keys.insert(key.id, key.clone());
            state.keep_made(receipt, &key)?;
            Ok(key)
        })
    }

    async fn key_delete(&self, id: u32) -> Result<Option<ApiKey>> {
        Ok(self.lock().keys.remove(&id))
    }

    async fn key_touch(&self, id: u32, at: Timestamp) -> Result<()> {
        if let Some(key) = self.lock().keys.get_mut(&id) {
            key.last_used_at = Some(at);
        }
        Ok(())
    }

    async fn domain_list(&self) -> Result<Vec<Domain>> {
        Ok(self.lock().domains.values().cloned().collect())
    }

    async fn domain_insert(
        &self,
        name: DomainName,
        now: Timestamp,
        receipt: Option<AccountReceipt<Option<Domain>>>,
    ) -> Result<Option<Domain>> {
        self.transact(|state| {
            let taken = state.domains.values().any(|domain| domain.name == name);
            let made = (!taken).then(|| {
                let id = DomainId(state.domains.len() as u32 + 1);
                Domain { id, name, created_at: now }
            });
            state.domains.extend(made.clone().map(|domain| (domain.id, domain)));
            state.keep_made(receipt, &made)?;
            Ok(made)
        })
    }
}

impl State {
    /// The row of a generated code that was made on this domain, else that of a name.
    fn resolve(&self, codes: &CodeSpace, key: &LinkKey) -> Option<LinkId> {
        // A row with another key is a named link's or another domain's.
        let generated = codes
            .decode(key.code.as_str())
            .filter(|id| self.rows.get(id).is_some_and(|row| row.record.key() == key));
        generated.or_else(|| self.names.get(key).copied())
    }

    fn insert(&mut self, codes: &CodeSpace, new: NewLink) -> Result<LinkWritten> {
        let NewLink { link, reuse_equal } = new;
        // Nobody owns an anonymous link, so nobody can be given it again.
        let reusable = reuse_equal && !link.named && link.owner.is_some();
        if reusable && let Some(equal) = self.find_equal(&link) {
            return Ok(LinkWritten::Existing(Box::new(equal.clone())));
        }
        if link.named {
            if !self.name_is_free(codes, &link.key) {
                return Ok(LinkWritten::AliasTaken);
            }
            self.names.insert(link.key.clone(), link.id);
            self.reserved
                .extend(codes.decode(link.key.code.as_str()).map(|id| id.0).filter(|id| *id >= self.mark));
        }
        match self.rows.entry(link.id) {
            Entry::Occupied(_) => Err(StoreError::Internal("this id has a link already".into())),
            Entry::Vacant(entry) => {
                let link = Arc::unwrap_or_clone(link);
                entry.insert(Row { record: LinkRecord::Present(link), reusable });
                Ok(LinkWritten::Inserted)
            }
        }
    }

    /// The newest link that may be answered in place of `link`.
    fn find_equal(&self, link: &Link) -> Option<&Link> {
        self.rows.values().rev().filter(|row| row.reusable).find_map(|row| match &row.record {
            LinkRecord::Present(other) => (other.owner == link.owner
                && other.key.domain == link.key.domain
                && other.settings == link.settings
                && !other.is_expired(link.created_at))
            .then_some(other),
            LinkRecord::Removed(_) => None,
        })
    }

    /// Whether a name can be given out so that no generated code of its domain is or becomes the same.
    fn name_is_free(&self, codes: &CodeSpace, key: &LinkKey) -> bool {
        if self.names.contains_key(key) {
            return false;
        }
        let Some(id) = codes.decode(key.code.as_str()) else {
            return true;
        };
        let is_leased = id.0 < self.mark;
        let is_elsewhere = || self.rows.get(&id).is_some_and(|row| row.record.key() != key);
        !is_leased || self.reserved.contains(&id.0) || is_elsewhere()
    }

    fn change(&mut self, codes: &CodeSpace, key: &LinkKey, apply: &ChangeRule) -> LinkWritten {
        let Some(row) = self.resolve(codes, key).and_then(|id| self.rows.get_mut(&id)) else {
            return LinkWritten::NotFound;
        };
        match apply(&row.record) {
            Ok(Some(record)) => {
                row.record = record.clone();
                LinkWritten::Changed(Box::new(record))
            }
            Ok(None) => LinkWritten::Unchanged(Box::new(row.record.clone())),
            Err(refused) => LinkWritten::Refused(refused),
        }
    }

    fn keep(&mut self, scope: [u8; 32], kept: KeptAnswer) -> Result<()> {
        match self.answers.entry((scope, kept.part)) {
            Entry::Occupied(_) => Err(StoreError::Internal("this request was answered already".into())),
            Entry::Vacant(entry) => {
                entry.insert(kept);
                Ok(())
            }
        }
    }

    fn keep_made<T>(&mut self, receipt: Option<AccountReceipt<T>>, made: &T) -> Result<()> {
        let Some(AccountReceipt { scope, fingerprint, at, answer }) = receipt else {
            return Ok(());
        };
        match answer(made) {
            Some(answer) => self.keep(scope, KeptAnswer { fingerprint, part: 0, at, answer }),
            None => Ok(()),
        }
    }
}
