//! terse through its front doors: HTTP, the command line, and the file system under it.

mod support;

mod smoke;

mod create;

mod change;
mod delete;
mod list;

mod bulk;
mod compat;
mod idempotency;

mod domains;
mod keys;
mod users;

mod click_crash;
mod click_limit;
mod clicks;
mod expiry;
mod password;
mod redirect;

mod click_events;
mod stats;
mod stats_cli;

mod alias_race;
mod failing_store;
mod limits;

mod loops;
mod pages;
mod raw_http;
#[cfg(target_os = "linux")]
mod same_answers;
mod tls;
#[cfg(target_os = "linux")]
mod uring;

mod backup;
mod cli;
mod crash;
mod disk;
mod generators;
mod import_export;
mod journal;
mod shutdown;
