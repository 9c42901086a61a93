//! Every driver of terse, and every line of SQL.
//!
//! One module a database, each an implementation of the traits in [`terse_model::store`].

pub mod memory;
pub mod priority;
pub mod sqlite;
