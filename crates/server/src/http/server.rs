//! The connection loop on hyper: each worker thread has a runtime and a listener of its own, and answers short codes
//! without leaving its thread. Where io_uring is used, it serves what [`super::uring`] hands over.

use super::client::{Client, Peer};
use super::error::{ApiError, REQUEST_ID, add_page_headers, wants_page};
use super::pages::{self, NeutralPage};
use super::router::{is_own_segment, router};
use super::tls::Tls;
use super::unlock;
use crate::app::App;
use crate::clicks::recorder::VisitHeaders;
use crate::redirect::{
    ACCEPT_PAUSE, Answer, HEAD_LEN_MAX, HEADERS_LEN_MAX, Headers, Lookup, Refusal, Request, Reveal,
    UNSENT_TIMEOUT,
};
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, HOST, LOCATION, REFERER,
    REFERRER_POLICY, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::Instrument;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const PURPOSE: HeaderName = HeaderName::from_static("purpose");
const X_MOZ: HeaderName = HeaderName::from_static("x-moz");

/// What all connections of a process share.
#[derive(Debug)]
pub struct Server {
    pub(super) app: Arc<App>,
    tls: Option<Arc<Tls>>,
    connections: AtomicUsize,
    /// Makes request ids: chance in the upper half, a counter in the lower.
    request_prefix: u32,
    requests: AtomicU64,
}

/// Binds a listener for each worker. Without SO_REUSEPORT first, so that a port in use is an error.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    if address.port() != 0 {
        socket(address, false)?;
    }
    let first = socket(address, true)?;
    let address = first.local_addr()?;
    let more = (1..workers).map(|_| socket(address, true)).collect::<io::Result<Vec<_>>>()?;
    Ok((address, std::iter::once(first).chain(more).collect()))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // So that a restart doesn't wait for connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(4096)?;
    Ok(socket.into())
}

impl Server {
    /// A server of `app`.
    pub fn new(app: Arc<App>, tls: Option<Arc<Tls>>) -> Self {
        let mut prefix = [0; 4];
        getrandom::fill(&mut prefix).expect("the system has random numbers");
        Server {
            app,
            tls,
            connections: AtomicUsize::new(0),
            request_prefix: u32::from_be_bytes(prefix),
            requests: AtomicU64::new(0),
        }
    }

    /// Accepts connections until `stop` turns true, then lets those that are open finish their requests.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        let router = router(self.app.clone());
        let serve = |(stream, peer)| {
            let slot = Slot::take(&self)?;
            let service = Service { server: self.clone(), router: router.clone(), peer: Peer::Tcp(peer) };
            let stop = stop.clone();
            Some(async move {
                serve_stream(service, stream, stop).await;
                drop(slot);
            })
        };
        serve_all(move |context| listener.poll_accept(context), serve, stop.clone()).await;
    }

    /// The same for the command line's socket.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener, stop: watch::Receiver<bool>) {
        let router = router(self.app.clone());
        let serve = |(stream, _)| {
            let service = Service { server: self.clone(), router: router.clone(), peer: Peer::Local };
            Some(serve_http1(service, TokioIo::new(stream), stop.clone()))
        };
        serve_all(move |context| listener.poll_accept(context), serve, stop.clone()).await;
    }

    /// Hexadecimal digits, made by hand: every redirect has an id.
    pub(super) fn next_request_id(&self) -> [u8; 16] {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let number = u64::from(self.request_prefix) << 32 | number & u64::from(u32::MAX);
        let digit = |place: usize| b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
        std::array::from_fn(digit)
    }
}

/// One of the connections that may be open at once.
#[derive(Debug)]
pub struct Slot(Arc<Server>);

impl Slot {
    /// A place for one more connection; `None`, counted, when too many are open.
    pub(super) fn take(server: &Arc<Server>) -> Option<Self> {
        let open = server.connections.fetch_add(1, Ordering::Relaxed);
        server.app.metrics.connections.inc();
        let slot = Slot(server.clone());
        if open < server.app.config.http.connections_max {
            return Some(slot);
        }
        server.app.metrics.connections_refused.inc();
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.app.metrics.connections.dec();
    }
}

/// Serves each connection that is accepted until `stop` turns true, then waits until all have ended. `serve` may turn
/// one away.
async fn serve_all<C, F>(
    accept: impl Fn(&mut Context<'_>) -> Poll<io::Result<C>>,
    serve: impl Fn(C) -> Option<F>,
    mut stop: watch::Receiver<bool>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (done, mut all_done) = tokio::sync::mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(&accept) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted.map(&serve) {
            Ok(None) => {}
            Ok(Some(serving)) => {
                let done = done.clone();
                tokio::spawn(async move {
                    serving.await;
                    drop(done);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Nobody is to wait in the queue of a server that is going. Ends when the last connection has dropped its sender.
    drop((accept, done));
    let _ = all_done.recv().await;
}

async fn serve_stream(service: Service, stream: TcpStream, stop: watch::Receiver<bool>) {
    let socket = socket2::SockRef::from(&stream);
    let _ = socket.set_tcp_nodelay(true);
    // The kernel cuts peers that don't read, whatever the loop above it does.
    let _ = socket.set_tcp_user_timeout(Some(UNSENT_TIMEOUT));
    let Some(tls) = service.server.tls.clone() else {
        return serve_http1(service, TokioIo::new(stream), stop).await;
    };
    let timeout = service.server.app.config.http.head_timeout;
    let Ok(Ok(stream)) = tokio::time::timeout(timeout, tls.acceptor().accept(stream)).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(service, TokioIo::new(stream), stop).await;
    } else {
        serve_http1(service, TokioIo::new(stream), stop).await;
    }
}

pub(super) async fn serve_http1<S>(service: Service, stream: TokioIo<S>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head_timeout = service.server.app.config.http.head_timeout;
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_LEN_MAX)
        // A client may say that it has asked all, and wait for the answers.
        .half_close(true)
        .serve_connection(stream, service_fn(move |request| service.call(request)));
    let mut connection = std::pin::pin!(connection);
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        // The runtime asks the system what has come before it goes on here.
        tokio::task::yield_now().await;
    };
    tokio::select! {
        // A request that is there is taken before the end is.
        biased;
        // A connection that breaks is its client's affair.
        _ = connection.as_mut() => return,
        () = stopped => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn serve_http2<S>(service: Service, stream: TokioIo<S>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = service.server.app.config.http.head_timeout;
    let requests = Arc::new(Requests::default());
    let counted = requests.clone();
    let answer = move |request| {
        let open = Open::count(&counted);
        let answering = service.call(request);
        async move {
            let _open = open;
            answering.await
        }
    };
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle)
        .max_header_list_size(HEAD_LEN_MAX as u32)
        .max_concurrent_streams(256)
        .serve_connection(stream, service_fn(answer));
    let mut connection = std::pin::pin!(connection);
    let is_idle = tokio::select! {
        _ = connection.as_mut() => return,
        // Pings alone keep nobody's place, and before HTTP/2's preface there are none.
        () = requests.end(idle) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    connection.as_mut().graceful_shutdown();
    if is_idle {
        let _ = tokio::time::timeout(idle, connection).await;
    } else {
        let _ = connection.await;
    }
}

/// Requests of one HTTP/2 connection.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicUsize,
    open: AtomicUsize,
}

impl Requests {
    /// Returns when none has been open or begun for a whole `idle`.
    async fn end(&self, idle: Duration) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(idle).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = begun;
        }
    }
}

/// A request that is being answered.
struct Open(Arc<Requests>);

impl Open {
    fn count(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.open.fetch_add(1, Ordering::Relaxed);
        Open(requests.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

type HttpRequest = http::Request<Incoming>;
type Answered = Result<Response<Body>, Infallible>;

/// What answers the requests of one connection.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) server: Arc<Server>,
    pub(super) router: axum::Router,
    pub(super) peer: Peer,
}

/// An answer that is there, or one that has to be waited for.
enum Answering {
    Ready(Option<Response<Body>>),
    Waiting(Pin<Box<dyn Future<Output = Answered> + Send>>),
}

impl Future for Answering {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Answered> {
        match &mut *self {
            Answering::Ready(response) => {
                std::task::Poll::Ready(Ok(response.take().expect("a future is not polled after its end")))
            }
            Answering::Waiting(future) => future.as_mut().poll(context),
        }
    }
}

impl Service {
    fn call(&self, request: HttpRequest) -> Answering {
        let app = &self.server.app;
        let client = Client::of(self.peer, request.headers(), &app.config.trusted_proxies);
        let id = request_id(&self.server, &client, request.headers());
        if !names_its_host(&request) {
            return Answering::Ready(Some(refuse_host(request.headers(), &id)));
        }
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(code) = Request::code_in(request.uri().path())
            && !is_own_segment(code)
        {
            return self.follow(&request, code, &client, id);
        }
        app.metrics.api_requests.inc();
        let (router, peer, app) = (self.router.clone(), self.peer, app.clone());
        Answering::Waiting(Box::pin(route(router, peer, app, request, id)))
    }

    fn follow(&self, request: &HttpRequest, code: &str, client: &Client, id: HeaderValue) -> Answering {
        let headers = request.headers();
        let is_limited = self.server.app.redirect.limiter.is_some();
        let asked = Request {
            is_head: request.method() == Method::HEAD,
            host: host_of(request),
            code,
            query: request.uri().query(),
            address: client.address,
            limited_address: if is_limited {
                client.limited_address(headers, &self.server.app.config.trusted_proxies)
            } else {
                None
            },
            headers: &HyperHeaders { headers, country: country_header(&self.server.app, client) },
        };
        match self.server.app.redirect.lookup(&asked) {
            Lookup::Ready(Answer::Reveal(reveal)) => {
                tracing::debug!(request_id = text_of(&id), "Redirected {code}");
                Answering::Ready(Some(redirect(reveal, &id)))
            }
            Lookup::Ready(answer) => {
                let render = || render(&self.server.app, answer, wants_page(headers), &id);
                Answering::Ready(Some(REQUEST_ID.sync_scope(text_of(&id), render)))
            }
            Lookup::Miss(miss) => {
                let (app, wants_page) = (self.server.app.clone(), wants_page(headers));
                // At the highest level, so that a warning in it has its request id whatever the filter lets through.
                let span = tracing::error_span!("redirect", request_id = text_of(&id));
                let waiting = async move {
                    let answer = miss.wait().await;
                    Ok(REQUEST_ID.sync_scope(text_of(&id), || render(&app, answer, wants_page, &id)))
                };
                Answering::Waiting(Box::pin(waiting.instrument(span)))
            }
        }
    }
}

/// The API and the pages.
async fn route(
    router: axum::Router,
    peer: Peer,
    app: Arc<App>,
    request: HttpRequest,
    id: HeaderValue,
) -> Answered {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_long =
        path == "/api/v1/urls/bulk" || path == "/api/v1/stats/reconcile" || path.starts_with("/-/local/");
    // From here on the Host header says which host was asked, in whatever way it came.
    let host = request.uri().authority().and(host_of(&request));
    let host = host.and_then(|host| HeaderValue::from_str(host).ok());
    let mut request = request.map(Body::new);
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let headers = request.headers().clone();
    request.extensions_mut().insert(peer);
    let span = tracing::error_span!("request", request_id = text_of(&id));
    let answering = async {
        let http = &app.config.http;
        let patience =
            if is_long { http.answer_timeout * 20 } else { http.body_timeout + http.answer_timeout };
        let answer = tokio::time::timeout(patience, router.oneshot(request)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let text = "the answer took too long; what was asked may still be done";
                ApiError::new(super::error::ErrorCode::Unavailable, text).respond(&headers)
            }
        };
        tracing::debug!(status = response.status().as_u16(), "{method} {path}");
        response
    };
    let mut response = REQUEST_ID.scope(text_of(&id), answering.instrument(span)).await;
    if !response.headers().contains_key(CACHE_CONTROL) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(with_request_id(response, &id))
}

/// The id that a trusted proxy gave, else a new one.
fn request_id(server: &Server, client: &Client, headers: &HeaderMap) -> HeaderValue {
    let id = match client.given_request_id(headers) {
        Some(given) => Bytes::copy_from_slice(given.as_bytes()),
        None => Bytes::copy_from_slice(&server.next_request_id()),
    };
    HeaderValue::from_maybe_shared(id).expect("an id is visible ASCII")
}

fn text_of(id: &HeaderValue) -> String {
    id.to_str().unwrap_or_default().to_owned()
}

/// Whether a request names its host as RFC 9112, section 3.2, asks: not twice, and HTTP/1.1 not never.
fn names_its_host(request: &HttpRequest) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let Some(host) = hosts.next() else { return request.version() != Version::HTTP_11 };
    hosts.next().is_none() && Request::is_host(host.as_bytes())
}

/// Whoever sends such a request may be up to something with what follows it, so the connection ends.
fn refuse_host(headers: &HeaderMap, id: &HeaderValue) -> Response<Body> {
    let error = ApiError::invalid("Host", "expected one host with perhaps a port, such as go.example.com");
    let response = REQUEST_ID.sync_scope(text_of(id), || error.respond(headers));
    let mut response = with_request_id(response, id);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Of an absolute-form target, or of HTTP/2, the authority; else the Host header.
fn host_of(request: &HttpRequest) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str().rsplit('@').next().unwrap_or_default()),
        None => request.headers().get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// The header in which the peer tells the visitor's country, if it is to be believed.
pub fn country_header<'a>(app: &'a App, client: &Client) -> Option<&'a HeaderName> {
    if client.via_trusted_proxy { app.config.clicks.country_header.as_ref() } else { None }
}

/// Headers as hyper holds them.
#[derive(Debug)]
pub struct HyperHeaders<'a> {
    /// All of them.
    pub headers: &'a HeaderMap,
    /// See [`country_header`].
    pub country: Option<&'a HeaderName>,
}

impl Headers for HyperHeaders<'_> {
    fn cookies(&self) -> Option<Vec<u8>> {
        // HTTP/2 may bring each cookie in a field of its own (RFC 9113, section 8.2.3).
        let fields: Vec<&[u8]> = self.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        (!fields.is_empty()).then(|| fields.join(&b"; "[..]))
    }

    fn visit(&self) -> VisitHeaders<'_> {
        let mut visit = VisitHeaders::default();
        // One pass costs less than as many lookups. Of several fields the first one counts.
        for (name, value) in self.headers {
            let place = match name {
                name if *name == USER_AGENT => &mut visit.user_agent,
                name if *name == ACCEPT_LANGUAGE => &mut visit.language,
                name if *name == REFERER => &mut visit.referrer,
                name if *name == SEC_PURPOSE || *name == PURPOSE || *name == X_MOZ => &mut visit.purpose,
                name if Some(name) == self.country => &mut visit.country,
                _ => continue,
            };
            place.get_or_insert(Cow::Borrowed(value.as_bytes()));
        }
        visit
    }
}

/// A redirect as hyper writes it: no body, four headers.
fn redirect(reveal: Reveal, id: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(reveal.redirect_type.status()).unwrap_or(StatusCode::FOUND);
    let headers = response.headers_mut();
    headers.reserve(4);
    // A target is visible ASCII by its type; should a store be damaged, it is checked here once more.
    match HeaderValue::from_bytes(reveal.location.as_bytes()) {
        Ok(location) => headers.insert(LOCATION, location),
        Err(_) => return with_request_id(ApiError::of_refusal(Refusal::Unavailable).into_response(), id),
    };
    let cache_control = match reveal.cache_control() {
        Cow::Borrowed(text) => HeaderValue::from_static(text),
        Cow::Owned(text) => HeaderValue::from_str(&text).expect("ASCII without control characters"),
    };
    headers.insert(CACHE_CONTROL, cache_control);
    if reveal.is_secret {
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    with_request_id(response, id)
}

/// Any answer to a request for a short link.
pub(super) fn render(app: &App, answer: Answer, wants_page: bool, id: &HeaderValue) -> Response<Body> {
    let response = match answer {
        Answer::Reveal(reveal) => return redirect(reveal, id),
        Answer::Refuse(refusal) if wants_page => ApiError::of_refusal(refusal).into_page(),
        Answer::Refuse(refusal) => ApiError::of_refusal(refusal).into_response(),
        Answer::AskPassword { code, query } if wants_page => unlock::ask(&code, query.as_deref(), None),
        Answer::AskPassword { .. } => {
            let text = "this link asks for a password; POST it as the form field or JSON field `password`";
            ApiError::new(super::error::ErrorCode::PasswordRequired, text).into_response()
        }
        Answer::Neutral => {
            let host = app.domains.base_url().host.to_string();
            let mut response = Response::new(Body::from(pages::neutral(&NeutralPage { host: &host })));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            add_page_headers(headers);
            response
        }
    };
    with_request_id(response, id)
}

fn with_request_id(mut response: Response<Body>, id: &HeaderValue) -> Response<Body> {
    response.headers_mut().insert(REQUEST_ID_HEADER, id.clone());
    response
}
