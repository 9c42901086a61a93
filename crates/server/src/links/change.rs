//! Change a link's settings.

use super::{LinkError, Links, may_change};
use std::sync::Arc;
use terse_model::link::{Link, LinkKey, LinkRecord, LinkSettings, Revision};
use terse_model::store::{ChangeRefused, ChangeRule, LinkWrite, LinkWritten, Receipt};
use terse_model::tenant::Actor;
use terse_model::time::Timestamp;

/// What a change makes of a link's settings, or why it can't. It may run more than once.
pub type SettingsRule = Arc<dyn Fn(&mut LinkSettings) -> Result<(), ChangeRefused> + Send + Sync>;

/// A change that somebody asks for.
#[derive(Clone)]
pub struct ChangeLink {
    /// Of which link.
    pub key: LinkKey,
    /// Who asks.
    pub actor: Actor,
    /// The revisions that it may be based on; the last writer wins without any.
    pub based_on: Option<Vec<Revision>>,
    /// What becomes of the settings.
    pub rule: SettingsRule,
}

impl std::fmt::Debug for ChangeLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeLink")
            .field("key", &self.key)
            .field("based_on", &self.based_on)
            .finish_non_exhaustive()
    }
}

impl Links {
    /// Changes a link. Every thread serves the change when this returns.
    pub async fn change(&self, change: ChangeLink, receipt: Option<Receipt>) -> Result<Link, LinkError> {
        let write = change_write(change, self.clock.now());
        changed(self.write(vec![write], receipt).await?.remove(0))
    }
}

/// The write that makes the change.
pub(super) fn change_write(change: ChangeLink, now: Timestamp) -> LinkWrite {
    let key = change.key.clone();
    let apply: ChangeRule = Arc::new(move |record| change_record(record, &change, now));
    LinkWrite::Change { key, apply }
}

fn change_record(
    record: &LinkRecord,
    change: &ChangeLink,
    now: Timestamp,
) -> Result<Option<LinkRecord>, ChangeRefused> {
    if !may_change(&change.actor, record) {
        return Err(ChangeRefused::Forbidden);
    }
    let link = match record {
        LinkRecord::Removed(removed) => return Err(ChangeRefused::Gone(removed.removal)),
        LinkRecord::Present(link) => link,
    };
    if change.based_on.as_ref().is_some_and(|revisions| !revisions.contains(&link.revision)) {
        return Err(ChangeRefused::RevisionConflict { current: link.revision });
    }
    let mut changed = link.clone();
    (change.rule)(&mut changed.settings)?;
    if changed.settings == link.settings {
        return Ok(None);
    }
    changed.revision = link.revision.next();
    // A clock that went back must not make a link older than it was.
    changed.updated_at = now.max(link.updated_at);
    Ok(Some(LinkRecord::Present(changed)))
}

/// What the outcome of a change means for whoever asked for it.
pub(super) fn changed(written: LinkWritten) -> Result<Link, LinkError> {
    match written {
        LinkWritten::Changed(record) | LinkWritten::Unchanged(record) => match *record {
            LinkRecord::Present(link) => Ok(link),
            LinkRecord::Removed(removed) => Err(LinkError::Refused(ChangeRefused::Gone(removed.removal))),
        },
        LinkWritten::Refused(refused) => Err(LinkError::Refused(refused)),
        _ => Err(LinkError::NotFound),
    }
}
