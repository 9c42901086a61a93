//! Users, their keys, and passwords of links.

pub mod keys;
pub mod passwords;

pub use keys::Accounts;
pub use passwords::{PasswordError, Passwords};
