//! terse: a URL shortener in one binary.
//!
//! Read [`redirect`] first: it is what the rest exists for. Then [`links`], what can be done with links, and
//! [`http`], how the world reaches it. [`app`] puts everything together.

pub mod redirect;

pub mod clicks;
pub mod events;

pub mod links;

pub mod accounts;
pub mod domains;

pub mod http;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod limit;
pub mod metrics;
pub mod sweeper;
pub mod workers;
