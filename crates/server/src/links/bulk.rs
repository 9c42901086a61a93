//! Create, change and delete many links, in batches that share a transaction.

use super::change::{ChangeLink, change_write, changed};
use super::create::{CreateLink, Created, created};
use super::delete::{DeleteLink, delete_write, deleted};
use super::{LinkError, Links};
use std::sync::Arc;
use terse_model::link::Link;
use terse_model::store::{LinkWrite, LinkWritten, Receipt, StoreError};

/// One row.
#[derive(Clone, Debug)]
pub enum BulkRow {
    /// Create a link.
    Create(Box<CreateLink>),
    /// Change one.
    Change(Box<ChangeLink>),
    /// Delete one.
    Delete(Box<DeleteLink>),
}

/// What came of one row.
#[derive(Debug)]
pub enum BulkOutcome {
    /// Of a creation.
    Created(Created),
    /// Of a change.
    Changed(Result<Box<Link>, LinkError>),
    /// Of a deletion.
    Deleted(Result<(), LinkError>),
}

/// What a row was before its outcome was known.
#[derive(Clone, Debug)]
enum Kind {
    Create(Arc<Link>),
    Change,
    Delete,
}

impl Links {
    /// Commits a batch of rows. `receipt` is given what makes outcomes of what was written, so that the answer can be
    /// kept in the same transaction.
    pub async fn bulk(
        &self,
        rows: Vec<BulkRow>,
        receipt: impl FnOnce(Outcomes) -> Option<Receipt>,
    ) -> Result<Vec<BulkOutcome>, StoreError> {
        let now = self.clock.now();
        let mut creates = Vec::new();
        let changes: Vec<Option<(Kind, LinkWrite)>> = rows
            .into_iter()
            .map(|row| match row {
                BulkRow::Create(create) => {
                    creates.push(*create);
                    None
                }
                BulkRow::Change(change) => Some((Kind::Change, change_write(*change, now))),
                BulkRow::Delete(delete) => Some((Kind::Delete, delete_write(*delete, now))),
            })
            .collect();
        let mut new_links = self.prepare(creates).await?.into_iter();
        let mut insert = || {
            let new = new_links.next().expect("one was prepared for each row");
            (Kind::Create(new.link.clone()), LinkWrite::Insert(Box::new(new)))
        };
        let (kinds, writes): (Vec<_>, Vec<_>) =
            changes.into_iter().map(|change| change.unwrap_or_else(&mut insert)).unzip();
        let outcomes = Outcomes(Arc::new(kinds));
        let written = self.write(writes, receipt(outcomes.clone())).await?;
        Ok(outcomes.of(&written))
    }
}

/// Makes outcomes of what a store has written.
#[derive(Clone, Debug)]
pub struct Outcomes(Arc<Vec<Kind>>);

impl Outcomes {
    /// In the order of the rows.
    pub fn of(&self, written: &[LinkWritten]) -> Vec<BulkOutcome> {
        let outcome = |(kind, written): (&Kind, &LinkWritten)| match kind {
            Kind::Create(link) => BulkOutcome::Created(created(written.clone(), link.clone())),
            Kind::Change => BulkOutcome::Changed(changed(written.clone()).map(Box::new)),
            Kind::Delete => BulkOutcome::Deleted(deleted(written.clone())),
        };
        self.0.iter().zip(written).map(outcome).collect()
    }
}
