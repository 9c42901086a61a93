//! API keys: made of chance, found by hash, remembered for a few seconds.

use crate::clock::Clock;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use terse_model::store::{AccountReceipt, AccountStore, Result, UserSave};
use terse_model::tenant::{Actor, ApiKey, SecretHash, User};
use terse_model::time::Timestamp;

/// What every API key begins with, so that people and secret scanners know one when they see it.
pub const KEY_PREFIX: &str = "terse_";

/// Keys remembered at once, wrong ones included.
const KNOWN_LEN_MAX: usize = 10_000;
/// How long a key is believed without asking the store.
const KNOWN_SECONDS: i64 = 30;
/// How exact "last used" is.
const TOUCH_SECONDS: i64 = 300;

/// Users and keys.
#[derive(Debug)]
pub struct Accounts {
    /// Where they are kept.
    pub store: Arc<dyn AccountStore>,
    clock: Clock,
    known: Cache<SecretHash, Known>,
    // Counts changes of users and keys. What was read before the last one is not believed, so that a slow read can't
    // bring a revoked key back.
    generation: AtomicU64,
}

#[derive(Clone, Debug)]
struct Known {
    found: Option<Arc<(ApiKey, User)>>,
    until: Timestamp,
    generation: u64,
}

/// A new secret of 256 random bits: `prefix` and 64 hexadecimal digits.
pub fn new_secret(prefix: &str) -> String {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    format!("{prefix}{}", hex(&bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is kept of a secret.
pub fn hash_of(secret: &str) -> SecretHash {
    SecretHash(Sha256::digest(secret.as_bytes()).into())
}

impl Accounts {
    /// Users and keys of `store`.
    pub fn new(store: Arc<dyn AccountStore>, clock: Clock) -> Self {
        Accounts { store, clock, known: Cache::new(KNOWN_LEN_MAX), generation: AtomicU64::new(0) }
    }

    /// Who holds `secret`; `None` when it is no key, or one that has ended.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Actor>> {
        let now = self.clock.now();
        let hash = hash_of(secret);
        let generation = self.generation.load(Ordering::SeqCst);
        let is_fresh = |known: &Known| now < known.until && known.generation == generation;
        let known = match self.known.get(&hash).filter(is_fresh) {
            Some(known) => known,
            None => self.look_up(hash, now, generation).await?,
        };
        let usable = known.found.filter(|found| found.0.expires_at.is_none_or(|at| now < at));
        Ok(usable.map(|found| {
            let (key, user) = &*found;
            Actor::User {
                user: user.clone(),
                key_id: key.id,
                scopes: key.scopes,
                creates_per_hour: key.creates_per_hour,
                expires_at: key.expires_at,
            }
        }))
    }

    async fn look_up(&self, hash: SecretHash, now: Timestamp, generation: u64) -> Result<Known> {
        let found = self.store.key_find(&hash).await?.map(Arc::new);
        let known = Known { found, until: now.plus_seconds(KNOWN_SECONDS), generation };
        self.known.insert(hash, known.clone());
        if let Some(found) = &known.found
            && found.0.last_used_at.is_none_or(|at| at.plus_seconds(TOUCH_SECONDS) < now)
        {
            let (store, id) = (self.store.clone(), found.0.id);
            tokio::spawn(async move {
                if let Err(error) = store.key_touch(id, now).await {
                    tracing::debug!(error = ?error, "Could not note the use of key {id}: {error}");
                }
            });
        }
        Ok(known)
    }

    /// Makes or changes a user; see [`AccountStore::user_save`].
    pub async fn save_user(&self, save: UserSave, receipt: Option<AccountReceipt<User>>) -> Result<User> {
        let user = self.store.user_save(save, receipt).await;
        self.forget();
        user
    }

    /// Revokes a key, at once on every thread.
    pub async fn revoke(&self, id: u32) -> Result<Option<ApiKey>> {
        let revoked = self.store.key_delete(id).await;
        self.forget();
        revoked
    }

    /// Lets every thread ask the store again. Also after a failure, since a write that was not answered may have been
    /// made.
    fn forget(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.known.clear();
    }

    /// Adds a key.
    pub async fn add_key(&self, key: ApiKey, receipt: Option<AccountReceipt<ApiKey>>) -> Result<ApiKey> {
        let key = self.store.key_insert(key, receipt).await?;
        self.known.remove(&key.hash);
        Ok(key)
    }
}
