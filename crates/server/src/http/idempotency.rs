//! Idempotency keys: the same request again gets the first answer again, also after a crash between the two.
//!
//! The answer is committed with what it reports, in one transaction. Within a process, twins queue up per key; the
//! second finds the first one's answer. Keys are scoped to the caller, the method and the path.

use super::auth::Context;
use super::error::{ApiError, ErrorCode};
use crate::app::App;
use crate::limit::counted_address;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use terse_model::store::{AccountReceipt, AnswerRule, KeptAnswer, Receipt};
use terse_model::time::Timestamp;
use tokio::sync::OwnedMutexGuard;

/// Seconds that an answer is kept, at least.
pub const KEPT_SECONDS: i64 = 24 * 3600;
/// Longest key, in characters.
const KEY_LEN_MAX: usize = 255;

type Scope = [u8; 32];

/// Queues of requests with the same key.
#[derive(Clone, Debug, Default)]
pub struct Idempotency {
    // A lock a scope, held while a request with that scope is answered; the outer lock only to find it.
    queues: Arc<Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<()>>>>>,
}

/// The turn of one request among those with its key.
#[derive(Debug)]
pub struct Turn {
    scope: Scope,
    fingerprint: [u8; 32],
    now: Timestamp,
    /// What the same request was answered before, in the order of its parts.
    pub kept: Vec<KeptAnswer>,
    guard: Option<OwnedMutexGuard<()>>,
    idempotency: Idempotency,
}

/// An answer as it is kept: all that a repeat needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptResponse {
    /// The HTTP status.
    pub status: u16,
    /// The Location header.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub location: Option<String>,
    /// The body, JSON.
    pub body: String,
}

impl Idempotency {
    /// Waits for the turn of a request that carries a key; `None` for one that doesn't.
    pub async fn begin(&self, app: &App, context: &Context, body: &[u8]) -> Result<Option<Turn>, ApiError> {
        let Some(key) = context.headers.get("idempotency-key") else { return Ok(None) };
        let key = key.as_bytes();
        let printable = key.iter().all(|byte| (0x21..0x7f).contains(byte));
        if key.is_empty() || key.len() > KEY_LEN_MAX || !printable {
            let expected = format!("expected 1 to {KEY_LEN_MAX} printable ASCII characters without spaces");
            return Err(ApiError::invalid("Idempotency-Key", expected));
        }
        let scope = scope(app, context, key);
        let fingerprint = Sha256::digest(body).into();
        let queue =
            self.queues.lock().expect("no code panics under this lock").entry(scope).or_default().clone();
        let guard = Some(queue.lock_owned().await);
        let mut turn = Turn {
            scope,
            fingerprint,
            now: app.clock.now(),
            kept: Vec::new(),
            guard,
            idempotency: self.clone(),
        };
        turn.kept = app.links.store.answers_get(&scope).await?;
        // Parts that a repeat adds are forgotten together with the first ones.
        turn.now = turn.kept.first().map_or(turn.now, |kept| kept.at);
        if turn.kept.iter().any(|kept| kept.fingerprint != fingerprint) {
            return Err(ApiError::new(
                ErrorCode::IdempotencyMismatch,
                "Idempotency-Key: it was used with another body within the last 24 hours; take a new key for a new request",
            ));
        }
        Ok(Some(turn))
    }
}

impl Turn {
    /// The answer that was given before, if the request was answered in one part.
    pub fn replay(&self) -> Option<KeptResponse> {
        self.kept.first().and_then(|kept| serde_json::from_slice(&kept.answer).ok())
    }

    /// Keeps what `answer` makes of the outcomes as the answer to this part of the request.
    pub fn receipt(&self, part: u32, answer: AnswerRule) -> Receipt {
        Receipt { scope: self.scope, fingerprint: self.fingerprint, part, at: self.now, answer }
    }

    /// The same for what is no link.
    pub fn account_receipt<T>(
        &self,
        answer: impl Fn(&T) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> AccountReceipt<T> {
        AccountReceipt {
            scope: self.scope,
            fingerprint: self.fingerprint,
            at: self.now,
            answer: Box::new(answer),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut queues = self.idempotency.queues.lock().expect("no code panics under this lock");
        // The map's own reference is the last one: nobody waits.
        if queues.get(&self.scope).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.scope);
        }
    }
}

impl KeptResponse {
    /// As bytes for the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a kept answer is JSON")
    }
}

/// Caller, method, path and key in one hash. An address is only ever kept in this form, under the instance's secret.
fn scope(app: &App, context: &Context, key: &[u8]) -> Scope {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&app.instance.secret).expect("HMAC takes keys of any length");
    let mut add = |part: &[u8]| {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    };
    add(b"idempotency");
    match context.actor.user() {
        Some(user) => add(&user.id.0.to_be_bytes()),
        None => add(counted_address(context.client.address).to_string().as_bytes()),
    }
    add(context.method.as_str().as_bytes());
    add(context.path.as_bytes());
    add(key);
    mac.finalize().into_bytes().into()
}
