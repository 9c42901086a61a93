//! Create links.

use super::Links;
use std::sync::Arc;
use terse_model::code::Alias;
use terse_model::domain::DomainId;
use terse_model::link::{Link, LinkKey, LinkSettings, Revision};
use terse_model::store::{LinkWrite, LinkWritten, NewLink, Receipt, StoreError};
use terse_model::tenant::{SecretHash, UserId};
use terse_model::time::Timestamp;

/// A link that somebody asks for.
#[derive(Clone, Debug)]
pub struct CreateLink {
    /// Under which domain.
    pub domain: DomainId,
    /// Under which name; otherwise a generated code.
    pub alias: Option<Alias>,
    /// Whose it will be.
    pub owner: Option<UserId>,
    /// Lets whoever holds the token manage it.
    pub manage_token: Option<SecretHash>,
    /// What it does.
    pub settings: LinkSettings,
    /// Answer with an equal link if there is one.
    pub reuse_equal: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Created {
    /// It is on disk.
    New(Arc<Link>),
    /// An equal one was there.
    Existing(Arc<Link>),
    /// The alias belongs to somebody, or may come to.
    AliasTaken,
}

impl Links {
    /// Creates a link. It is on disk, and every thread serves it, when this returns.
    ///
    /// `receipt` makes, of the link as it will be, what is kept in the same transaction.
    pub async fn create(
        &self,
        create: CreateLink,
        receipt: impl FnOnce(&Link) -> Option<Receipt>,
    ) -> Result<Created, StoreError> {
        let new = self.prepare(vec![create]).await?.remove(0);
        let link = new.link.clone();
        let receipt = receipt(&link);
        let mut written = self.write(vec![LinkWrite::Insert(Box::new(new))], receipt).await?;
        Ok(created(written.remove(0), link))
    }

    /// Gives new links their ids and codes.
    pub(super) async fn prepare(&self, creates: Vec<CreateLink>) -> Result<Vec<NewLink>, StoreError> {
        let ids = self.ids.take(creates.len()).await?;
        let now = self.clock.now();
        let made = creates.into_iter().zip(ids);
        Ok(made.map(|(create, id)| self.make(create, id, now)).collect())
    }

    fn make(&self, create: CreateLink, id: terse_model::code_space::LinkId, now: Timestamp) -> NewLink {
        let named = create.alias.is_some();
        let code = match create.alias {
            Some(alias) => alias.into_code(),
            None => self.codes.encode(id),
        };
        let link = Link {
            id,
            key: LinkKey { domain: create.domain, code },
            named,
            owner: create.owner,
            manage_token: create.manage_token,
            created_at: now,
            updated_at: now,
            revision: Revision::FIRST,
            clicks_used: 0,
            settings: create.settings,
        };
        NewLink { link: Arc::new(link), reuse_equal: create.reuse_equal }
    }
}

/// What the outcome of an insert means for whoever asked for `link`.
pub(super) fn created(written: LinkWritten, link: Arc<Link>) -> Created {
    match written {
        LinkWritten::Inserted => Created::New(link),
        LinkWritten::Existing(link) => Created::Existing(Arc::from(link)),
        // A store answers an insert with nothing else than these.
        _ => Created::AliasTaken,
    }
}
