//! List links.

use super::Links;
use terse_model::store::{ListPage, ListQuery, StoreError};

impl Links {
    /// A page of links, newest first.
    pub async fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.store.link_list(query).await
    }
}
