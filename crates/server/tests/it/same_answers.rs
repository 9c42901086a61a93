//! The same bytes to both connection loops: the answers are the same, byte for byte, and so is the end.

use crate::support::{TestApp, json};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// After so long nothing more is expected.
const PATIENCE: Duration = Duration::from_millis(150);

/// What a client does.
#[derive(Clone)]
struct Script {
    /// Sent with a pause between them.
    parts: Vec<Vec<u8>>,
    ends: bool,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            write!(f, "\"{}\" ", part.escape_ascii())?;
        }
        f.write_str(if self.ends { "and the end" } else { "and no end" })
    }
}

const LINES: [&str; 16] = [
    "GET /plain HTTP/1.1",
    "GET /plain HTTP/1.1",
    "HEAD /plain HTTP/1.1",
    "GET /plain?a=b&c=%20d HTTP/1.1",
    "GET /plain/ HTTP/1.1",
    "GET /%70lain HTTP/1.1",
    "GET /moved HTTP/1.1",
    "GET /secret HTTP/1.1",
    "GET /counted HTTP/1.1",
    "GET /unknown HTTP/1.1",
    "HEAD /unknown HTTP/1.1",
    "GET /health HTTP/1.1",
    "GET http://x/plain HTTP/1.1",
    "POST /plain HTTP/1.1",
    "GET /plain HTTP/1.0",
    "GET /pl\"ain?{} HTTP/1.1",
];

const FIELDS: [&str; 24] = [
    "accept: text/html",
    "Accept: application/json",
    "user-agent: Mozilla/5.0",
    "x-request-id: given",
    "cookie: a=b",
    "cookie: c=d",
    "connection: keep-alive",
    "connection: close",
    "connection: keep-alive, close",
    "connection: upgrade",
    "upgrade: websocket",
    "upgrade: h2c",
    "host: y",
    "host: x y",
    "content-length: 0",
    "content-length: 5",
    "content-length: 5, 5",
    "Content-Length : 5",
    "transfer-encoding: chunked",
    "transfer-encoding: identity, chunked",
    "transfer-encoding:\tchunked",
    "expect: 100-continue",
    "x-forwarded-for: 192.0.2.7",
    "no colon",
];

/// A request, mostly one that either loop likes.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(&LINES[..]);
    let host = prop_oneof![12 => Just("host: x"), 1 => Just("Host:"), 1 => Just("x-no-host: x")];
    // A long one spans several of io_uring's buffers. Near the limit of a head, chance decides how hyper reads it.
    let long = (2_000..14_000usize).prop_map(|len| format!("padding: {}", "p".repeat(len)));
    let field = prop_oneof![30 => prop::sample::select(&FIELDS[..]).prop_map(str::to_owned), 1 => long];
    let fields =
        prop_oneof![3 => prop::collection::vec(field.clone(), 0..2), 1 => prop::collection::vec(field, 0..5)];
    let end = prop_oneof![12 => Just("\r\n"), 1 => Just("\n")];
    let body = prop_oneof![8 => Just(""), 1 => Just("hello"), 1 => Just("0\r\n\r\n"), 1 => Just("5\r\nhello\r\n0\r\n\r\n")];
    (line, host, fields, end, body).prop_map(|(line, host, fields, end, body)| {
        let mut text = format!("{line}{end}{host}{end}");
        for field in fields {
            text += &format!("{field}{end}");
        }
        format!("{text}{end}{body}").into_bytes()
    })
}

/// Some bytes that are others than they were, or are missing.
fn damage() -> impl Strategy<Value = Option<(prop::sample::Index, u8, bool)>> {
    let byte = prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(0)];
    prop_oneof![3 => Just(None), 1 => (any::<prop::sample::Index>(), byte, any::<bool>()).prop_map(Some)]
}

fn script() -> impl Strategy<Value = Script> {
    let requests = prop::collection::vec(request(), 1..6);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (requests, damage(), cuts, any::<bool>()).prop_map(|(requests, damage, cuts, ends)| {
        let mut bytes = requests.concat();
        if let Some((at, byte, replaces)) = damage {
            let at = at.index(bytes.len());
            if replaces { bytes[at] = byte } else { bytes.truncate(at + 1) }
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            parts.push(bytes[from..cut].to_vec());
            from = cut;
        }
        Script { parts, ends }
    })
}

/// What a client gets to see.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    answers: String,
    is_closed: bool,
}

/// Plays a script, and notes what came by the time that nothing more does.
fn play(address: SocketAddr, script: &Script, patience: Duration) -> Seen {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    for (number, part) in script.parts.iter().enumerate() {
        if number > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A server that has closed may be sent more all the same.
        let _ = stream.write_all(part);
    }
    if script.ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    // Only a connection that stays open makes this wait, since all answers are there soon.
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answers = Vec::new();
    let mut chunk = [0; 16 << 10];
    let is_closed = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(count) => answers.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break false,
            Err(_) => break true,
        }
    };
    Seen { answers: without_chance(&String::from_utf8_lossy(&answers)), is_closed }
}

/// The same without ids and dates.
fn without_chance(answers: &str) -> String {
    let mut text = String::with_capacity(answers.len());
    for line in answers.split_inclusive('\n') {
        if line.starts_with("x-request-id: ") || line.starts_with("date: ") {
            text += &line[..line.find(' ').unwrap()];
            text += "\n";
            continue;
        }
        text += line;
    }
    // In the bodies of errors, as JSON and as a page.
    for begin in ["\"request_id\":\"", "<code>"] {
        let mut parts = text.split(begin);
        let mut cut = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            cut += begin;
            cut += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        }
        text = cut;
    }
    text
}

#[test]
fn both_loops_answer_the_same_to_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut apps = Vec::new();
    for io in ["uring", "tokio"] {
        apps.push(runtime.block_on(async {
            let app = TestApp::with(&[("io", io), ("base_url", "http://go.example.com")]).await;
            let key = app.key("ann").await;
            for fields in [
                json!({"long_url": "https://example.com/plain", "custom_alias": "plain"}),
                json!({"long_url": "https://example.com/moved", "custom_alias": "moved", "redirect_type": 308}),
                json!({"long_url": "https://example.com/", "custom_alias": "secret", "password": "Open-Sesame-42"}),
                json!({"long_url": "https://example.com/", "custom_alias": "counted", "click_limit": 1_000_000}),
            ] {
                app.link(&key, fields).await;
            }
            app
        }));
    }
    let cases = if cfg!(debug_assertions) { 300 } else { 3_000 };
    // A difference that stays is waited for twice as long as it takes to be sure of.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let outcome = TestRunner::new(config).run(&script(), |script| {
        let play_both = |script: &Script, patience| {
            std::thread::scope(|scope| {
                let uring = scope.spawn(|| play(apps[0].address(), script, patience));
                let tokio = play(apps[1].address(), script, patience);
                (uring.join().unwrap(), tokio)
            })
        };
        let (mut uring, mut tokio) = play_both(&script, PATIENCE);
        if uring != tokio && uring.answers.contains("HTTP/1.1 400") {
            // hyper looks at a malformed head when it comes in one piece, and waits for its end when it comes in several.
            // What is handed over to it is one piece.
            let whole = Script { parts: vec![script.parts.concat()], ends: script.ends };
            tokio = play(apps[1].address(), &whole, PATIENCE);
        }
        if uring != tokio {
            // One of them may have been slow rather than silent, on a machine that has much to do.
            (uring, tokio) = play_both(&script, PATIENCE * 20);
        }
        prop_assert_eq!(uring, tokio, "io_uring on the left");
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Some of it stayed with io_uring, and some did not.
    let handed_over = apps[0].running.app.metrics.connections_handed_over.get();
    assert!((1..u64::from(cases)).contains(&handed_over), "{handed_over} of {cases} were handed over");
}
