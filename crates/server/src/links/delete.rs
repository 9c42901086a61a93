//! Delete a link: its code answers 410 from then on and is never given to anyone else.

use super::{LinkError, Links, may_manage};
use std::sync::Arc;
use terse_model::link::{LinkKey, LinkRecord, Removal};
use terse_model::store::{ChangeRefused, LinkWrite, LinkWritten, Receipt};
use terse_model::tenant::{Actor, SecretHash};
use terse_model::time::Timestamp;

/// A deletion that somebody asks for.
#[derive(Clone, Debug)]
pub struct DeleteLink {
    /// Of which link.
    pub key: LinkKey,
    /// Who asks.
    pub actor: Actor,
    /// The hash of the manage token that they hold.
    pub token: Option<SecretHash>,
}

impl Links {
    /// Deletes a link; again is as good as once.
    pub async fn delete(&self, delete: DeleteLink, receipt: Option<Receipt>) -> Result<(), LinkError> {
        let write = delete_write(delete, self.clock.now());
        deleted(self.write(vec![write], receipt).await?.remove(0))
    }
}

/// The write that deletes.
pub(super) fn delete_write(delete: DeleteLink, now: Timestamp) -> LinkWrite {
    let key = delete.key.clone();
    let apply = move |record: &LinkRecord| {
        if !may_manage(&delete.actor, delete.token, record) {
            return Err(ChangeRefused::Forbidden);
        }
        Ok(match record {
            LinkRecord::Removed(_) => None,
            LinkRecord::Present(link) => {
                Some(LinkRecord::Removed(link.clone().remove(Removal::Deleted, now)))
            }
        })
    };
    LinkWrite::Change { key, apply: Arc::new(apply) }
}

/// What the outcome of a deletion means for whoever asked for it.
pub(super) fn deleted(written: LinkWritten) -> Result<(), LinkError> {
    match written {
        LinkWritten::Changed(_) | LinkWritten::Unchanged(_) => Ok(()),
        LinkWritten::Refused(refused) => Err(LinkError::Refused(refused)),
        _ => Err(LinkError::NotFound),
    }
}
