//! A real server on a port of its own, and a small client for it.

#![allow(dead_code, reason = "no test needs all of it")]

pub mod connection;
pub mod failing;
pub mod failing_clicks;
mod logs;
pub mod loops;
mod place;
mod process;
pub mod raw;
pub mod wrapped;

pub use http::Method;
#[allow(unused_imports, reason = "the smoke test needs no process")]
pub use process::Terse;
pub use serde_json::{Value, json};
#[allow(unused_imports, reason = "the smoke test needs none")]
pub use {
    logs::Logged,
    place::{Connection, Place},
};

use axum::body::{Body, Bytes};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tempfile::TempDir;
use terse::accounts::keys::{KEY_PREFIX, hash_of, new_secret};
use terse::app::{Running, Stores};
use terse::clock::Clock;
use terse::config::{Config, Raw, Source};
use terse::data_dir::DataDir;
use terse_model::store::UserSave;
use terse_model::tenant::{ApiKey, Role, Scopes, Tier, UserName};
use terse_model::time::Timestamp;
use tokio::net::TcpStream;

/// A server in this process, on a fresh data folder and a clock that stands still until it is moved.
pub struct TestApp {
    pub running: Running,
    pub clock: Clock,
    pub dir: TempDir,
}

/// 2027-01-15T08:00:00Z, where every test's clock begins.
pub const START: i64 = 1_800_000_000_000;

impl TestApp {
    /// A server with the defaults, but no rate limits.
    pub async fn start() -> Self {
        TestApp::with(&[]).await
    }

    /// A server with these keys on top.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        TestApp::with_stores(settings, |stores| stores).await
    }

    /// A server that takes its store for one that others write to as well, so that cached links end after a time.
    pub async fn with_shared_store() -> Self {
        TestApp::with_stores(&[], |stores| Stores { embedded: None, ..stores }).await
    }

    /// A server whose stores are wrapped, as in ones that fail on demand.
    pub async fn with_stores(settings: &[(&str, &str)], wrap: impl FnOnce(Stores) -> Stores) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_millis(START));
        let running = start_on(&dir, settings, clock.clone(), wrap).await;
        TestApp { running, clock, dir }
    }

    /// Stops the server and starts it again on the same folder, with the same clock.
    pub async fn restart(self, settings: &[(&str, &str)]) -> Self {
        let TestApp { running, clock, dir } = self;
        running.stop().await;
        let running = start_on(&dir, settings, clock.clone(), |stores| stores).await;
        TestApp { running, clock, dir }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// A key of a member on the unlimited tier.
    pub async fn key(&self, user: &str) -> String {
        self.key_of(user, Role::Member, Tier::Unlimited).await
    }

    /// A key of an admin.
    pub async fn admin_key(&self) -> String {
        self.key_of("root", Role::Admin, Tier::Unlimited).await
    }

    pub async fn key_of(&self, user: &str, role: Role, tier: Tier) -> String {
        let accounts = &self.running.app.accounts;
        let name = UserName::parse(user).unwrap();
        let save = UserSave { name, role: Some(role), tier: Some(tier), now: self.clock.now() };
        let user = accounts.save_user(save, None).await.unwrap();
        let secret = new_secret(KEY_PREFIX);
        let key = ApiKey {
            id: 0,
            hash: hash_of(&secret),
            user: user.id,
            name: "test".to_owned(),
            scopes: Scopes::ALL,
            creates_per_hour: None,
            created_at: self.clock.now(),
            expires_at: None,
            last_used_at: None,
        };
        accounts.add_key(key, None).await.unwrap();
        secret
    }

    pub fn get(&self, path: &str) -> TestRequest {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> TestRequest {
        self.request(Method::POST, path)
    }

    pub fn patch(&self, path: &str) -> TestRequest {
        self.request(Method::PATCH, path)
    }

    pub fn delete(&self, path: &str) -> TestRequest {
        self.request(Method::DELETE, path)
    }

    pub fn request(&self, method: Method, path: &str) -> TestRequest {
        TestRequest::new(self.address(), method, path)
    }

    /// Creates a link with this key and returns its code.
    pub async fn link(&self, key: &str, fields: Value) -> String {
        let made = self.post("/api/v1/urls").bearer(key).json(fields).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["short_code"].as_str().unwrap().to_owned()
    }

    /// Waits until every click so far is in the statistics, durably.
    pub async fn settle(&self) {
        self.running.app.clicks.flush().await.unwrap();
    }

    /// Follows a short link.
    pub async fn follow(&self, code: &str) -> TestResponse {
        self.get(&format!("/{code}")).send().await
    }
}

async fn start_on(
    dir: &TempDir,
    settings: &[(&str, &str)],
    clock: Clock,
    wrap: impl FnOnce(Stores) -> Stores,
) -> Running {
    let mut raw = Raw::default();
    let data_dir = dir.path().join("data").to_str().unwrap().to_owned();
    let defaults = [
        ("listen", "127.0.0.1:0"),
        ("rate_limits", "off"),
        ("workers", "2"),
        ("data_dir", data_dir.as_str()),
        // Small files, since each test makes some.
        ("clicks_segment_kib", "64"),
    ];
    for (key, value) in defaults.iter().chain(settings) {
        raw.set(key, (*value).to_owned(), Source::CommandLine);
    }
    let config = Config::check(&raw).unwrap();
    let folder = DataDir::open(&config.data_dir).unwrap();
    let stores = wrap(Stores::embedded(&config, &folder, clock.now()).unwrap());
    Running::start_with(config, clock, stores, folder).await.unwrap()
}

/// A request on a connection of its own.
#[derive(Debug)]
pub struct TestRequest {
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
}

impl TestRequest {
    pub fn new(address: SocketAddr, method: Method, path: &str) -> Self {
        let request = Request::builder().method(method).uri(path);
        TestRequest { address, request, body: Bytes::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn bearer(self, key: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {key}"))
    }

    pub fn json(self, value: Value) -> Self {
        self.body("application/json", value.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    pub async fn send(self) -> TestResponse {
        let TestRequest { address, request, body } = self;
        let has_host = request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
        let request = if has_host { request } else { request.header("host", address.to_string()) };
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        drop(sender);
        let _ = connection.await;
        TestResponse { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct TestResponse {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl TestResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The `code` of a problem.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
