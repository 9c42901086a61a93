//! A folder for servers that come and go, and connections that outlive none of them.

use super::{Terse, TestResponse, Value};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A data folder, and a folder for the run folders of its servers, which a killed one leaves behind.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Place { dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A path beside the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file beside the data folder, and returns its path as an argument.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.argument(name)
    }

    pub fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn start(&self) -> Terse {
        self.start_with(&[])
    }

    pub fn start_with(&self, variables: &[(&str, &str)]) -> Terse {
        self.start_on(&self.data(), variables)
    }

    /// A server on another folder of this place.
    pub fn start_on(&self, data: &Path, variables: &[(&str, &str)]) -> Terse {
        let run = self.argument("run");
        let run = [("XDG_RUNTIME_DIR", run.as_str()), ("RUNTIME_DIRECTORY", run.as_str())];
        Terse::start_with(data, &[&run, variables].concat())
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        Terse::run(&self.data(), arguments)
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        Terse::ok(&self.data(), arguments)
    }

    #[track_caller]
    pub fn ok_json(&self, arguments: &[&str]) -> Value {
        Terse::ok_json(&self.data(), arguments)
    }

    /// Runs a command that must fail: something on stderr, nothing on stdout. Returns what it says.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        assert!(output.status.code().is_some(), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.trim().is_empty() && !said.contains("panicked"), "{arguments:?}: {said}");
        said
    }

    /// A key without limits.
    #[track_caller]
    pub fn key(&self, name: &str) -> String {
        self.ok(&["keys", "create", "--name", name, "--tier", "unlimited"])
    }
}

/// A connection that is kept open; everything on it is `None` once its server has gone away.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Body>,
    address: SocketAddr,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(Connection { sender, address })
    }

    pub async fn get(&mut self, path: &str) -> Option<TestResponse> {
        self.send(Request::builder().method(Method::GET).uri(path), Body::empty()).await
    }

    pub async fn post(&mut self, path: &str, key: &str, body: Value) -> Option<TestResponse> {
        self.post_once(path, key, "", body).await
    }

    /// The same with an idempotency key, unless it is empty.
    pub async fn post_once(
        &mut self,
        path: &str,
        key: &str,
        once: &str,
        body: Value,
    ) -> Option<TestResponse> {
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header("authorization", format!("Bearer {key}"));
        let request = if once.is_empty() { request } else { request.header("idempotency-key", once) };
        self.send(request.header("content-type", "application/json"), Body::from(body.to_string())).await
    }

    pub async fn send(&mut self, request: http::request::Builder, body: Body) -> Option<TestResponse> {
        let request = request.header("host", self.address.to_string()).body(body).unwrap();
        self.sender.ready().await.ok()?;
        let (parts, body) = self.sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(TestResponse { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}
