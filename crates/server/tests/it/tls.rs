//! HTTPS by certificate files.

use crate::support::{TestApp, TestResponse, json};
use axum::body::Body;
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use terse::app::Running;
use terse::clock::Clock;
use terse::config::{Config, Raw, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TARGET: &str = "https://example.com/target";

/// Certificate and key files, and every certificate that was ever in them.
struct Files {
    folder: TempDir,
    issued: Vec<CertificateDer<'static>>,
}

impl Files {
    fn new() -> Self {
        let mut files = Files { folder: tempfile::tempdir().unwrap(), issued: Vec::new() };
        files.renew();
        files
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// A new certificate in place of the old one.
    fn renew(&mut self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.cert(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
        self.issued.push(made.cert.der().clone());
    }

    async fn start(&self) -> TestApp {
        self.start_with("1").await
    }

    async fn start_with(&self, head_timeout_s: &str) -> TestApp {
        let (cert, key) = (self.cert(), self.key());
        TestApp::with(&[
            ("tls_cert", cert.to_str().unwrap()),
            ("tls_key", key.to_str().unwrap()),
            ("base_url", "https://localhost"),
            ("head_timeout_s", head_timeout_s),
        ])
        .await
    }

    async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for issued in &self.issued {
            roots.add(issued.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Which of the issued certificates the server shows.
    async fn shown(&self, address: SocketAddr) -> usize {
        let stream = self.connect(address, &[]).await.expect("a handshake");
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        self.issued.iter().position(|issued| *issued == shown).unwrap()
    }
}

fn protocol(stream: &TlsStream<TcpStream>) -> Option<&str> {
    stream.get_ref().1.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())
}

type H2 = hyper::client::conn::http2::SendRequest<Body>;

async fn h2(files: &Files, address: SocketAddr) -> H2 {
    let stream = files.connect(address, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(protocol(&stream), Some("h2"));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send_h2(sender: &mut H2, request: Request<Body>) -> TestResponse {
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    TestResponse { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("https://localhost{path}"))
}

/// Makes a link over HTTP/2.
async fn link(sender: &mut H2, key: &str, fields: serde_json::Value) -> String {
    let request = Request::post("https://localhost/api/v1/urls")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json");
    let made = send_h2(sender, request.body(fields.to_string().into()).unwrap()).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["short_code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn both_versions_of_http_are_served() {
    let files = Files::new();
    let app = files.start().await;
    let key = app.key("ann").await;
    let mut sender = h2(&files, app.address()).await;
    let code = link(&mut sender, &key, json!({"long_url": TARGET})).await;
    let followed = send_h2(&mut sender, get(&format!("/{code}")).body(Body::empty()).unwrap()).await;
    assert_eq!((followed.status, followed.header("location")), (302, Some(TARGET)));
    assert!(followed.header("x-request-id").is_some());
    // Many at once on one connection.
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let (mut sender, request) =
                (sender.clone(), get(&format!("/{code}")).body(Body::empty()).unwrap());
            tokio::spawn(async move { send_h2(&mut sender, request).await.status })
        })
        .collect();
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 302);
    }
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = files.connect(app.address(), protocols).await.unwrap();
        assert_eq!(protocol(&stream), protocols.first().copied());
        let request = format!("GET /{code} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 302") && answer.contains(TARGET), "{answer}");
    }
}

#[tokio::test]
async fn over_http_2_the_authority_is_the_host() {
    let files = Files::new();
    let app = files.start().await;
    let admin = app.admin_key().await;
    let mut sender = h2(&files, app.address()).await;
    let request = Request::post("https://localhost/api/v1/domains")
        .header("authorization", format!("Bearer {admin}"))
        .header("content-type", "application/json");
    let request = request.body(json!({"name": "go.example"}).to_string().into()).unwrap();
    assert_eq!(send_h2(&mut sender, request).await.status, 201);
    let locked = json!({"long_url": TARGET, "password": "sesame", "domain": "go.example"});
    let code = link(&mut sender, &admin, locked).await;
    let at =
        |method: &str, host: &str| Request::builder().method(method).uri(format!("https://{host}/{code}"));
    let form = |host: &str| {
        at("POST", host)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("password=sesame"))
    };
    let asked = send_h2(&mut sender, at("GET", "go.example").body(Body::empty()).unwrap()).await;
    assert_eq!(asked.status, 401);
    assert_eq!(send_h2(&mut sender, form("localhost").unwrap()).await.status, 404);
    let opened = send_h2(&mut sender, form("go.example").unwrap()).await;
    assert_eq!((opened.status, opened.header("location")), (303, Some(TARGET)), "{opened:?}");
    // Browsers send each cookie in a field of its own (RFC 9113, section 8.2.3).
    let cookie = opened.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let request =
        at("GET", "go.example").header("cookie", "a=b").header("cookie", cookie).header("cookie", "c=d");
    let followed = send_h2(&mut sender, request.body(Body::empty()).unwrap()).await;
    assert_eq!((followed.status, followed.header("location")), (302, Some(TARGET)), "{followed:?}");
}

#[tokio::test]
async fn the_form_works_over_http_2() {
    let files = Files::new();
    let app = files.start().await;
    let mut sender = h2(&files, app.address()).await;
    let mut check = async |host: &str, origin: &str, status: u16| {
        let request = Request::post(format!("https://{host}/-/shorten"))
            .header("origin", origin)
            .header("content-type", "application/x-www-form-urlencoded");
        let request = request.body(Body::from("long_url=example.com")).unwrap();
        let answer = send_h2(&mut sender, request).await;
        assert_eq!(answer.status, status, "{host} {origin}");
    };
    check("localhost", "https://localhost", 201).await;
    check("localhost", "https://evil.example", 403).await;
    check("evil.example", "https://evil.example", 403).await;
}

#[tokio::test]
async fn who_never_asks_is_cut() {
    let files = Files::new();
    let app = files.start().await;
    // No handshake at all.
    let mut silent = TcpStream::connect(app.address()).await.unwrap();
    check_ends(&mut silent, "no handshake").await;
    // A handshake, and then nothing: neither a request nor HTTP/2's preface.
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let mut stream = files.connect(app.address(), protocols).await.unwrap();
        check_ends(&mut stream, protocols[0]).await;
    }
    // No TLS.
    let mut plain = TcpStream::connect(app.address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    check_ends(&mut plain, "no TLS").await;
}

#[tokio::test]
async fn pings_alone_keep_no_connection_open() {
    let files = Files::new();
    let app = files.start().await;
    // The client answers pings by itself.
    let mut sender = h2(&files, app.address()).await;
    let health = || get("/health").body(Body::empty()).unwrap();
    assert_eq!(send_h2(&mut sender, health()).await.status, 200);
    let mut looks = 0;
    while !sender.is_closed() {
        looks += 1;
        assert!(looks < 200, "still open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The server closes the connection by itself.
async fn check_ends(stream: &mut (impl AsyncReadExt + Unpin), what: &str) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "{what}: still open");
}

#[tokio::test]
async fn new_files_are_taken_up_and_bad_ones_are_not() {
    let mut files = Files::new();
    let app = files.start_with("600").await;
    assert_eq!(files.shown(app.address()).await, 0);
    let mut old = h2(&files, app.address()).await;
    let health = || get("/health").body(Body::empty()).unwrap();
    assert_eq!(send_h2(&mut old, health()).await.status, 200);
    // Garbage, for longer than the server takes to look.
    std::fs::write(files.cert(), "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        .unwrap();
    for _ in 0..70 {
        assert_eq!(files.shown(app.address()).await, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    files.renew();
    let mut looks = 0;
    while files.shown(app.address()).await == 0 {
        looks += 1;
        assert!(looks < 300, "the new certificate is never shown");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(files.shown(app.address()).await, 1);
    // Connections that were open go on.
    assert_eq!(send_h2(&mut old, health()).await.status, 200);
}

#[tokio::test]
async fn files_that_can_not_be_used_are_told_at_the_start() {
    let (files, other) = (Files::new(), Files::new());
    let garbage = files.folder.path().join("garbage.pem");
    std::fs::write(&garbage, "nothing of use").unwrap();
    let absent = files.folder.path().join("absent.pem");
    let check = async |cert: &Path, key: &Path, says: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut raw = Raw::default();
        for (name, value) in [
            ("listen", "127.0.0.1:0"),
            ("tls_cert", cert.to_str().unwrap()),
            ("tls_key", key.to_str().unwrap()),
        ] {
            raw.set(name, value.to_owned(), Source::CommandLine);
        }
        raw.set("data_dir", dir.path().join("data").to_str().unwrap().to_owned(), Source::CommandLine);
        let config = Config::check(&raw).unwrap();
        let error = Running::start(config, Clock::System).await.expect_err("files of no use");
        assert_eq!(error.to_string(), says);
    };
    let cannot_read = |path: &Path| format!("cannot read {path:?}");
    check(&absent, &files.key(), &cannot_read(&absent)).await;
    check(&files.cert(), &absent, &cannot_read(&absent)).await;
    check(&files.cert(), &garbage, &cannot_read(&garbage)).await;
    let unusable = "the certificate and the key can't be used";
    check(&garbage, &files.key(), unusable).await;
    check(&files.cert(), &other.key(), unusable).await;
    check(&files.cert(), &files.cert(), &cannot_read(&files.cert())).await;
}
