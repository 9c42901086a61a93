//! A connection that is kept, and crowds of requests.

use super::{TestRequest, TestResponse};
use axum::body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

/// One connection; a worker thread of the server has it for as long as it lives.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Body>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Connection { sender }
    }

    /// So many connections; with a few dozen, each worker thread has some.
    pub async fn open_many(address: SocketAddr, count: usize) -> Vec<Self> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(address).await);
        }
        connections
    }

    pub async fn send(&mut self, request: TestRequest) -> TestResponse {
        let TestRequest { address, request, body } = request;
        let request = request.header("host", address.to_string()).body(Body::from(body)).unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        TestResponse { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// Announces a body of this length without sending any of it, and returns the status of the answer. A client that is
/// still sending when it is refused may find the connection closed before it has read why.
pub async fn announce(address: SocketAddr, path: &str, key: Option<&str>, len: usize) -> u16 {
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let kind = "content-type: application/json";
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n{key}content-length: {len}\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut beginning = [0u8; 12];
    stream.read_exact(&mut beginning).await.unwrap();
    std::str::from_utf8(&beginning).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
}

/// Sends all requests at once, each on a connection that is open already; the answers are in their order.
pub async fn at_once(requests: Vec<TestRequest>) -> Vec<TestResponse> {
    let barrier = Arc::new(Barrier::new(requests.len()));
    let send = |request: TestRequest| {
        let barrier = barrier.clone();
        async move {
            let mut connection = Connection::open(request.address).await;
            barrier.wait().await;
            connection.send(request).await
        }
    };
    let sent: Vec<_> = requests.into_iter().map(|request| tokio::spawn(send(request))).collect();
    let mut answers = Vec::with_capacity(sent.len());
    for answer in sent {
        answers.push(answer.await.unwrap());
    }
    answers
}
