//! What can be done with links, one use case a file. Nothing here knows JSON or HTTP statuses.

pub mod bulk;
pub mod change;
pub mod create;
pub mod delete;
pub mod ids;
pub mod list;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::redirect::Handler;
use ids::Ids;
use std::sync::Arc;
use terse_model::code::ReservedWords;
use terse_model::code_space::CodeSpace;
use terse_model::link::{Link, LinkKey, LinkRecord};
use terse_model::store::{LinkStore, LinkWrite, LinkWritten, Receipt, StoreError};
use terse_model::tenant::{Actor, SecretHash, UserId};

/// The use cases, with what they work on.
#[derive(Debug)]
pub struct Links {
    /// Where links are kept.
    pub store: Arc<dyn LinkStore>,
    /// The redirect path, whose cache must learn of every change.
    pub redirect: Arc<Handler>,
    /// Makes codes of ids.
    pub codes: CodeSpace,
    /// Ids for new links.
    pub ids: Ids,
    /// Words that no alias may be.
    pub reserved: ReservedWords,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// Why something could not be done with a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no such link.
    #[error("there is no such link")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change was refused.
    #[error("the change was refused")]
    Refused(terse_model::store::ChangeRefused),
}

impl Links {
    /// What is kept under `key`.
    pub async fn get(&self, key: &LinkKey) -> Result<LinkRecord, LinkError> {
        self.store.link_get(key).await?.ok_or(LinkError::NotFound)
    }

    /// Writes, and lets the cache know before anybody learns of it.
    async fn write(
        &self,
        writes: Vec<LinkWrite>,
        receipt: Option<Receipt>,
    ) -> Result<Vec<LinkWritten>, StoreError> {
        let cache = self.redirect.resolver.cache();
        // A new link is about to be followed; many at once would only push out what is.
        let fill = match &writes[..] {
            [LinkWrite::Insert(new)] => Some((cache.begin_fill(&new.link.key), new.link.clone())),
            _ => None,
        };
        let key_of = |write: &LinkWrite| match write {
            LinkWrite::Insert(new) => new.link.key.clone(),
            LinkWrite::Change { key, .. } => key.clone(),
        };
        let changed = if fill.is_some() { Vec::new() } else { writes.iter().map(key_of).collect() };
        let written = self.store.links_write(writes, receipt).await;
        if let Ok(written) = &written {
            written.iter().for_each(|outcome| self.count(outcome));
            if let (Some((fill, link)), [LinkWritten::Inserted]) = (fill, &written[..]) {
                let record = LinkRecord::Present(Link::clone(&link));
                fill.finish(crate::redirect::cache::Known::of(Some(record)), self.clock.now());
            }
        }
        // Also after a failure, since a write that was not answered may have been made.
        changed.iter().for_each(|key| cache.invalidate(key));
        written
    }

    fn count(&self, written: &LinkWritten) {
        let counter = match written {
            LinkWritten::Inserted => &self.metrics.links_created,
            LinkWritten::Changed(record) => match **record {
                LinkRecord::Present(_) => &self.metrics.links_changed,
                LinkRecord::Removed(_) => &self.metrics.links_deleted,
            },
            _ => return,
        };
        counter.inc();
    }
}

/// Who may see and delete a link: its owner, an admin, or whoever holds its token.
pub fn may_manage(actor: &Actor, token: Option<SecretHash>, record: &LinkRecord) -> bool {
    actor.is_admin() || owns(actor, record.owner()) || (token.is_some() && token == record.manage_token())
}

/// Who may change a link: its owner or an admin. A token never changes a target.
pub fn may_change(actor: &Actor, record: &LinkRecord) -> bool {
    actor.is_admin() || owns(actor, record.owner())
}

fn owns(actor: &Actor, owner: Option<UserId>) -> bool {
    owner.is_some() && actor.user().map(|user| user.id) == owner
}
