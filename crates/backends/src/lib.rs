//! Every driver of terse, and every line of SQL.
//!
//! One module a database, each an implementation of the traits in [`terse_model::store`].
//! [`priority`] is for their threads and the server's.

pub mod memory;
pub mod priority;
pub mod sqlite;
