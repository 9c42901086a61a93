//! HTTP: the connection loop, the API and the pages. Handlers here hold no rules.

pub mod api;
pub mod auth;
pub mod body;
pub mod client;
pub mod compat;
pub mod error;
pub mod home;
pub mod idempotency;
pub mod local;
pub mod pages;
pub mod router;
pub mod server;
pub mod status;
pub mod tls;
pub mod unlock;
#[cfg(target_os = "linux")]
pub mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_absent.rs"]
pub mod uring;
