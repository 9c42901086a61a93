//! HTTP as bytes: for what no client library sends, and for what none shows.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer takes so long, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that sends whatever it is told to.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    pub status: u16,
    /// From the status line to the empty line.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

impl RawConnection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        RawConnection { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what the server may refuse to read to its end.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub async fn end_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The connection itself, of which everything that came was read as answers.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.unread.is_empty(), "{}", self.unread.escape_ascii());
        self.stream
    }

    /// The next answer; `None` when the server closed the connection instead.
    pub async fn next_answer(&mut self) -> Option<RawAnswer> {
        let head = self.read_head().await?;
        let length = header_of(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        assert!(header_of(&head, "transfer-encoding").is_none(), "no answer of ours is chunked");
        while self.unread.len() < length {
            assert!(self.read_more().await, "the answer broke off");
        }
        let body = self.unread.drain(..length).collect();
        Some(RawAnswer { status: status_of(&head), head, body })
    }

    /// The next answer, which must come.
    pub async fn answer(&mut self) -> RawAnswer {
        self.next_answer().await.expect("the server closed the connection without an answer")
    }

    /// The next answer's head, for a request by HEAD.
    pub async fn answer_to_head(&mut self) -> RawAnswer {
        let head = self.read_head().await.expect("the server closed the connection without an answer");
        RawAnswer { status: status_of(&head), head, body: Vec::new() }
    }

    /// Waits for the server to close the connection; whatever it sends before that is returned.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.unread)
    }

    async fn read_head(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Some(self.unread.drain(..at + 4).collect());
            }
            if !self.read_more().await {
                assert!(self.unread.is_empty(), "half an answer: {}", self.unread.escape_ascii());
                return None;
            }
        }
    }

    /// Whether there was more.
    async fn read_more(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut chunk)).await;
        // A connection that is reset has ended too.
        let count = read.expect("the server neither answers nor closes").unwrap_or(0);
        self.unread.extend_from_slice(&chunk[..count]);
        count > 0
    }
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<String> {
        header_of(&self.head, name)
    }

    /// How often the answer has this header.
    pub fn count(&self, name: &str) -> usize {
        lines_of(&self.head).filter(|(line, _)| line.eq_ignore_ascii_case(name)).count()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Waits until what a counter shows is as wanted.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("what is waited for does not come");
}

/// One request on a connection of its own, and its answer.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<RawAnswer> {
    let mut connection = RawConnection::open(address).await;
    connection.try_send(request).await;
    connection.next_answer().await
}

fn status_of(head: &[u8]) -> u16 {
    let head = std::str::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn header_of(head: &[u8], name: &str) -> Option<String> {
    lines_of(head).find(|(line, _)| line.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn lines_of(head: &[u8]) -> impl Iterator<Item = (String, String)> {
    let head = String::from_utf8_lossy(head).into_owned();
    let lines: Vec<_> = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    lines.into_iter()
}
