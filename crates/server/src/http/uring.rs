//! HTTP around the io_uring loop: who is asking, answers that are no redirects, and connections that are handed over,
//! which go on with hyper in a second thread of the worker.

use super::client::{Client, Fields, Peer};
use super::error::{REQUEST_ID, wants_page};
use super::router::{is_own_segment, router};
use super::server::{Server, Service, Slot, country_header, render, serve_http1};
use crate::redirect::uring::{Asked, Caller, EventLoop, HandedOver, Head, Mailbox, Outside, Reply};
use crate::redirect::{Answer, Miss, UNSENT_TIMEOUT};
use axum::body::Body;
use compact_str::CompactString;
use futures_util::FutureExt;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{self, IoSlice, Write};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

pub use crate::redirect::uring::Ring;

/// A ring for each worker, or why there can be none.
pub fn rings(workers: usize) -> io::Result<Vec<Ring>> {
    (0..workers).map(|_| Ring::new()).collect()
}

/// The two halves of a worker: one answers short codes, the other everything else. `runtime` is the other one's.
pub fn halves(server: Arc<Server>, runtime: Handle) -> io::Result<(ShortCodes, EverythingElse)> {
    let mailbox = Arc::new(Mailbox::new()?);
    // As long as connections may be open, which is its bound.
    let (hand_over, handed_over) = mpsc::unbounded_channel();
    let edge = Edge { server: server.clone(), runtime, hand_over };
    Ok((ShortCodes { edge, mailbox: mailbox.clone() }, EverythingElse { server, mailbox, handed_over }))
}

/// The half that runs the io_uring loop.
#[derive(Debug)]
pub struct ShortCodes {
    edge: Edge,
    mailbox: Arc<Mailbox>,
}

/// The half that runs hyper.
#[derive(Debug)]
pub struct EverythingElse {
    server: Arc<Server>,
    mailbox: Arc<Mailbox>,
    handed_over: mpsc::UnboundedReceiver<HandedOver<Slot>>,
}

impl ShortCodes {
    /// Serves on this thread, until the other half is told to stop and all connections have ended.
    pub fn serve(self, ring: Ring, listener: TcpListener) -> io::Result<()> {
        let app = &self.edge.server.app;
        // Connections inherit these from their listener.
        let socket = socket2::SockRef::from(&listener);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(UNSENT_TIMEOUT))?;
        let (handler, head_timeout) = (app.redirect.clone(), app.config.http.head_timeout);
        EventLoop::new(ring, listener, self.mailbox, handler, head_timeout, self.edge)?.run()
    }
}

impl EverythingElse {
    /// Serves until `stop` turns true and all connections of both halves have ended.
    pub async fn serve(mut self, stop: watch::Receiver<bool>) {
        let router = router(self.server.app.clone());
        let (done, mut all_done) = mpsc::channel::<Infallible>(1);
        let (mailbox, mut stopped) = (self.mailbox, stop.clone());
        tokio::spawn(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
            mailbox.stop();
        });
        // Ends when the loop does.
        while let Some(handed) = self.handed_over.recv().await {
            self.server.app.metrics.connections_handed_over.inc();
            let HandedOver { socket, peer, place, input } = handed;
            let stream = std::net::TcpStream::from(socket);
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            let stream = match stream {
                Ok(stream) => Rewound { input, taken: 0, stream },
                Err(error) => {
                    tracing::warn!(%error, "Could not hand a connection over: {error}");
                    continue;
                }
            };
            let service =
                Service { server: self.server.clone(), router: router.clone(), peer: Peer::Tcp(peer) };
            let (stop, done) = (stop.clone(), done.clone());
            tokio::spawn(async move {
                // A new descriptor isn't known to be writable, and hyper drops its answer to an Upgrade with a body
                // that does not come when it can't write at once.
                let _ = stream.stream.writable().await;
                serve_http1(service, TokioIo::new(stream), stop).await;
                drop((place, done));
            });
        }
        drop(done);
        let _ = all_done.recv().await;
    }
}

/// What the loop has of the rest.
#[derive(Debug)]
struct Edge {
    server: Arc<Server>,
    runtime: Handle,
    hand_over: mpsc::UnboundedSender<HandedOver<Slot>>,
}

impl Fields for Head<'_, '_> {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        Head::values(self, name)
    }
}

impl Outside for Edge {
    type Place = Slot;

    fn admit(&self) -> Option<Slot> {
        Slot::take(&self.server)
    }

    fn is_own_segment(segment: &str) -> bool {
        is_own_segment(segment)
    }

    fn caller<'b>(&self, peer: SocketAddr, head: &Head<'_, 'b>) -> Caller<'b> {
        let app = &self.server.app;
        let trusted = &app.config.trusted_proxies;
        let client = Client::of(Peer::Tcp(peer), head, trusted);
        let id = match client.given_request_id(head) {
            Some(given) => CompactString::new(given),
            None => CompactString::from_utf8(self.server.next_request_id()).expect("hexadecimal digits"),
        };
        let is_limited = app.redirect.limiter.is_some();
        Caller {
            id,
            address: client.address,
            limited_address: if is_limited { client.limited_address(head, trusted) } else { None },
            country: country_header(app, &client).and_then(|name| head.values(name.as_str()).next()),
        }
    }

    fn wants_page(head: &Head<'_, '_>) -> bool {
        wants_page(head)
    }

    fn render(&self, answer: Answer, asked: &Asked, date: &str, output: &mut Vec<u8>) {
        let id = HeaderValue::from_str(&asked.id).expect("an id is visible ASCII");
        let render = || render(&self.server.app, answer, asked.wants_page, &id);
        write_response(REQUEST_ID.sync_scope(asked.id.to_string(), render), asked, date, output);
    }

    fn wait(&self, miss: Miss, id: &str, reply: Reply) {
        // As in hyper's loop, at the highest level.
        let span = tracing::error_span!("redirect", request_id = id);
        self.runtime.spawn(async move { reply.send(miss.wait().await) }.instrument(span));
    }

    fn hand_over(&self, handed: HandedOver<Slot>) {
        // The other half ends after this one.
        let _ = self.hand_over.send(handed);
    }
}

/// Writes an answer as hyper does.
fn write_response(response: Response<Body>, asked: &Asked, date: &str, output: &mut Vec<u8>) {
    let (parts, body) = response.into_parts();
    // What is answered under a short code is in memory.
    let body = body.collect().now_or_never().and_then(Result::ok).unwrap_or_default().to_bytes();
    let (status, reason) = (parts.status.as_str(), parts.status.canonical_reason().unwrap_or_default());
    let mut put = |text: &[u8]| output.extend_from_slice(text);
    for text in ["HTTP/1.1 ", status, " ", reason, "\r\n"] {
        put(text.as_bytes());
    }
    for (name, value) in &parts.headers {
        for text in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            put(text);
        }
    }
    if asked.closes {
        put(b"connection: close\r\n");
    }
    // A vector takes all that is written to it.
    if !(asked.is_head && body.is_empty()) {
        let _ = write!(output, "content-length: {}\r\n", body.len());
    }
    let _ = write!(output, "date: {date}\r\n\r\n");
    if !asked.is_head {
        output.extend_from_slice(&body);
    }
}

/// A connection of which something was read already.
#[derive(Debug)]
struct Rewound {
    input: Vec<u8>,
    /// How much of it was read again.
    taken: usize,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.input[self.taken..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let len = rest.len().min(into.remaining());
        into.put_slice(&rest[..len]);
        self.taken += len;
        if self.taken == self.input.len() {
            (self.input, self.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
