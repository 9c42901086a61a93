//! The hot path: from a request for `/{code}` to its answer.
//!
//! 1. A connection loop hands a request to [`Handler::lookup`], which never blocks and knows no HTTP library.
//! 2. The path and the host become a key ([`handler`]); a malformed code is unknown without a lookup.
//! 3. The [`cache`] answers hits at once: [`Lookup::Ready`].
//! 4. Otherwise [`Lookup::Miss`] is awaited: one shared load per key from the store ([`resolver`]), kept only if
//!    nothing changed the link meanwhile.
//! 5. [`decide`](terse_model::redirect::decide) makes the decision, [`Handler`] the [`Answer`]: every answer that
//!    reveals a target is made by one function, which is where clicks are recorded.
//! 6. The connection loop writes it.

pub mod cache;
pub mod handler;
pub mod resolver;

pub use handler::{Answer, Handler, Headers, Lookup, Refusal, Request, Reveal, Secrets};
pub use resolver::{Resolver, Unresolved};
