//! Ids for new links, from leases: a server works from memory and asks the store once in ten thousand links.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use terse_model::code_space::LinkId;
use terse_model::store::{IdLease, LinkStore, StoreError};

/// Ids in a lease. What a crash wastes, at most.
pub const LEASE_LEN: u64 = 10_000;
/// The next lease is fetched when so many are left.
const LOW_WATER: u64 = LEASE_LEN / 4;

/// Gives out ids, each once.
#[derive(Debug)]
pub struct Ids {
    store: Arc<dyn LinkStore>,
    stock: Arc<Mutex<Stock>>,
    /// Held while a lease is fetched, so that a crowd fetches one, and leases are used in their order.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Stock {
    leases: VecDeque<IdLease>,
    is_fetching: bool,
}

impl Stock {
    fn len(&self) -> u64 {
        self.leases.iter().map(|lease| lease.ids.end - lease.ids.start).sum()
    }

    fn take(&mut self, count: usize, into: &mut Vec<LinkId>) {
        while into.len() < count {
            let Some(lease) = self.leases.front_mut() else { return };
            match lease.ids.next() {
                // Reserved ids are few and in order, so this stays cheap for any lease.
                Some(id) if lease.reserved.binary_search(&id).is_ok() => {}
                Some(id) => into.push(LinkId(id)),
                None => drop(self.leases.pop_front()),
            }
        }
    }
}

impl Ids {
    /// Ids of `store`.
    pub fn new(store: Arc<dyn LinkStore>) -> Self {
        Ids { store, stock: Arc::default(), fetching: Arc::default() }
    }

    /// `count` ids that nobody else has or will have.
    pub async fn take(&self, count: usize) -> Result<Vec<LinkId>, StoreError> {
        let mut ids = Vec::with_capacity(count);
        self.take_from_stock(count, &mut ids);
        while ids.len() < count {
            let _turn = self.fetching.lock().await;
            self.take_from_stock(count, &mut ids);
            if ids.len() < count {
                let missing = (count - ids.len()) as u64;
                let lease = self.store.ids_lease(missing.max(LEASE_LEN)).await?;
                self.lock().leases.push_back(lease);
                self.take_from_stock(count, &mut ids);
            }
        }
        self.fetch_ahead();
        Ok(ids)
    }

    fn take_from_stock(&self, count: usize, into: &mut Vec<LinkId>) {
        self.lock().take(count, into);
    }

    /// Fetches the next lease before this one ends.
    fn fetch_ahead(&self) {
        {
            let mut stock = self.lock();
            if stock.is_fetching || stock.len() >= LOW_WATER {
                return;
            }
            stock.is_fetching = true;
        }
        let (store, stock, fetching) = (self.store.clone(), self.stock.clone(), self.fetching.clone());
        tokio::spawn(async move {
            let _turn = fetching.lock().await;
            let lease = store.ids_lease(LEASE_LEN).await;
            let mut stock = stock.lock().expect("no code panics under this lock");
            stock.is_fetching = false;
            match lease {
                Ok(lease) => stock.leases.push_back(lease),
                Err(error) => tracing::warn!(error = ?error, "Could not lease ids ahead: {error}"),
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stock> {
        self.stock.lock().expect("no code panics under this lock")
    }
}
