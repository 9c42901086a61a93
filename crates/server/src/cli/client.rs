//! The command line's way to the API: over the running server's local socket, or in this process.

use crate::app::App;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, socket_of};
use crate::http::auth::{LOCAL_USER, LOCAL_USER_HEADER};
use crate::http::client::Peer;
use crate::http::router::router;
use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tower::ServiceExt;

/// A caller of the API with the rights of the local command line.
pub struct Client {
    transport: Transport,
    // As whom to act, if somebody was named.
    user: Option<String>,
}

/// How long a command waits for another one that works on the folder itself.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

enum Transport {
    Server(SendRequest<Body>),
    /// No server runs: the lock on the folder is ours as long as we live.
    Here(Box<Router>, #[allow(dead_code, reason = "held for its lock")] Box<DataDir>),
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// What the API says.
    pub detail: String,
}

impl Client {
    /// Finds the server of the data folder, or opens the folder.
    pub async fn open(config: Config, user: Option<String>) -> Result<Self> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        // The lock says whether a server runs; a note alone may be left over from one that was killed, or have come
        // with a copy of another folder.
        let data_dir = loop {
            match DataDir::open(&config.data_dir) {
                Ok(data_dir) => break data_dir,
                Err(DataDirError::InUse { path }) => {
                    if let Some(transport) = connect(&config).await? {
                        return Ok(Client { transport, user });
                    }
                    // Another command, or a server that is just starting: it has the lock before it has the socket.
                    if Instant::now() >= deadline {
                        bail!(
                            "{path:?} is in use by another terse command, or by a server whose local socket this \
                             user can't reach"
                        );
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let app = App::quiet(config, &data_dir).await?;
        Ok(Client { transport: Transport::Here(Box::new(router(app)), Box::new(data_dir)), user })
    }

    /// Whether a server answers, rather than this process.
    pub fn is_served(&self) -> bool {
        matches!(self.transport, Transport::Server(_))
    }

    /// The user that was asked for.
    pub fn named_user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Acts as the default user from here on, for calls that name a user themselves.
    pub fn act_as_default_user(&mut self) {
        self.user = None;
    }

    /// Calls the API; the answer's body is still to be read.
    pub async fn call(&mut self, request: http::request::Builder, body: Body) -> Result<Response<Body>> {
        let user = self.user.as_deref().unwrap_or(LOCAL_USER);
        let mut request = request.header(HOST, "localhost").header(LOCAL_USER_HEADER, user).body(body)?;
        match &mut self.transport {
            Transport::Here(router, _) => {
                request.extensions_mut().insert(Peer::Local);
                match router.clone().oneshot(request).await {
                    Ok(response) => Ok(response),
                    Err(never) => match never {},
                }
            }
            Transport::Server(sender) => {
                sender.ready().await.context("the server has closed the connection")?;
                let response = sender.send_request(request).await.context("the server did not answer")?;
                Ok(response.map(Body::new))
            }
        }
    }

    /// Calls the API with JSON and reads JSON; an answer that is no success is an error.
    pub async fn json(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder().method(method).uri(path);
        let (request, body) = match body {
            None => (request, Body::empty()),
            Some(body) => (request.header(CONTENT_TYPE, "application/json"), Body::from(body.to_string())),
        };
        let response = self.call(request, body).await?;
        read_json(response).await
    }
}

async fn connect(config: &Config) -> Result<Option<Transport>> {
    let Some(socket) = socket_of(&config.data_dir).context("cannot read the data folder")? else {
        return Ok(None);
    };
    // Nobody answers on the socket of a server that was killed.
    let Ok(stream) = UnixStream::connect(&socket).await else { return Ok(None) };
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Some(Transport::Server(sender)))
}

/// The body of a success as JSON (null if there is none); otherwise what the problem says.
pub async fn read_json<T: DeserializeOwned>(response: Response<Body>) -> Result<T> {
    let status = response.status();
    let body: Bytes = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(if body.is_empty() { b"null" } else { &body })?);
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let code = problem["code"].as_str().map(|code| format!(" ({code})")).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the server gave no reason");
    Err(Refused { status, detail: format!("{detail}{code}") }.into())
}
