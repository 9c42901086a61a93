//! The hot path: from a request for `/{code}` to its answer.
//!
//! 1. A connection loop hands a request to [`Handler::lookup`], which never blocks and knows no HTTP library.
//! 2. The path and the host become a key ([`handler`]); a malformed code is unknown without a lookup.
//! 3. The [`cache`] answers hits at once: [`Lookup::Ready`].
//! 4. Otherwise [`Lookup::Miss`] is awaited: one shared load per key from the store ([`resolver`]), kept only if
//!    nothing changed the link meanwhile.
//! 5. [`decide`](terse_model::redirect::decide) makes the decision, [`Handler`] the [`Answer`]: every answer that
//!    reveals a target is made by one function, which is where clicks are recorded.
//! 6. The connection loop writes it. There are two: hyper's, in `http/server.rs`, and [`uring`], which knows short codes
//!    alone.

pub mod cache;
pub mod handler;
pub mod resolver;
#[cfg(target_os = "linux")]
pub mod uring;

pub use handler::{Answer, Handler, Headers, Lookup, Miss, Refusal, Request, Reveal, Secrets};
pub use resolver::{Resolver, Unresolved};

use std::time::Duration;

// What both connection loops keep to.

/// Longest head of a request, in bytes.
pub const HEAD_LEN_MAX: usize = 32 << 10;
/// Headers of a request.
pub const HEADERS_LEN_MAX: usize = 64;
/// A peer that takes nothing of what was sent to it is given up after this time.
pub const UNSENT_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failure to accept, as when descriptors have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
