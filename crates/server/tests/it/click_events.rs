//! Raw clicks: pages, files, erasure, and counts that are followed.

use crate::stats::{click, counted, get};
use crate::support::{TestApp, Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const PHONE: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/126.0.0.0 Mobile Safari/537.36";
/// What a spreadsheet would run.
const FORMULA: &str = "=HYPERLINK(\"http://evil.example/\",\"x, y\")";
const PATIENCE: Duration = Duration::from_secs(30);

/// A link of ann's with three clicks, a minute between them, the last by a formula.
async fn clicked(app: &TestApp, key: &str) {
    let fields = json!({"long_url": "https://example.com/", "custom_alias": "raw", "tags": ["news", "a,b"]});
    app.link(key, fields).await;
    for agent in [PHONE, PHONE, FORMULA] {
        let request = app.get("/raw").header("user-agent", agent).header("accept-language", "de-CH");
        assert_eq!(request.header("referer", "https://news.example.org/page?q=1").send().await.status, 302);
        app.clock.advance(60_000);
    }
    counted(app, key, "raw", 3).await;
}

/// Raw clicks are kept in steps of their own; they are there at the latest a moment after they are counted.
async fn events(app: &TestApp, key: &str, path: &str, count: usize) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let clicks = get(app, key, path).await["clicks"].as_array().unwrap().clone();
        if clicks.len() == count {
            return clicks;
        }
        assert!(begin.elapsed() < PATIENCE && clicks.len() < count, "{path}: {clicks:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_click_is_listed_with_all_that_is_known_and_no_address() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    clicked(&app, &key).await;
    let clicks = events(&app, &key, "/api/v1/urls/raw/clicks", 3).await;
    let times: Vec<&str> = clicks.iter().map(|click| click["at"].as_str().unwrap()).collect();
    let expected = ["2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z", "2027-01-15T08:02:00.000Z"];
    assert_eq!(times, expected, "oldest first");
    let first = &clicks[0];
    for (field, expected) in [
        ("v", json!(1)),
        ("domain", json!("127.0.0.1")),
        ("kind", json!("human")),
        ("country", Value::Null),
        ("device", json!("mobile")),
        ("language", json!("de-ch")),
        ("referrer_host", json!("news.example.org")),
        ("user_agent", json!(PHONE)),
        ("is_head", json!(false)),
        ("purpose", json!("visit")),
        ("tags", json!(["news", "a,b"])),
    ] {
        assert_eq!(first[field], expected, "{field}: {first}");
    }
    assert_eq!(first["link"].as_str().unwrap().len(), 7, "{first}");
    assert_eq!(first["visitor"].as_str().unwrap().len(), 16, "{first}");
    assert_eq!(first["visitor"], clicks[1]["visitor"]);
    assert_ne!(first["visitor"], clicks[2]["visitor"]);
    // The address of the test itself is the domain's name, too.
    let mut addressless = first.clone();
    addressless["domain"] = Value::Null;
    assert!(!addressless.to_string().contains("127.0.0.1"), "{first}");
    assert_eq!(events(&app, &key, "/api/v1/clicks", 3).await, clicks);
    assert_eq!(events(&app, &key, "/api/v1/clicks?tag=news", 3).await, clicks);
    let later = "/api/v1/urls/raw/clicks?from=2027-01-15T08:01:00Z&to=2027-01-15T08:02:00Z";
    assert_eq!(events(&app, &key, later, 1).await, clicks[1..2]);
    let bob = app.key("bob").await;
    assert_eq!(get(&app, &bob, "/api/v1/clicks").await, json!({"clicks": [], "next_cursor": null}));
}

#[tokio::test]
async fn pages_hold_each_click_once() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    clicked(&app, &key).await;
    let all = events(&app, &key, "/api/v1/urls/raw/clicks", 3).await;
    for limit in 1..=3 {
        let mut seen = Vec::new();
        let mut path = format!("/api/v1/urls/raw/clicks?limit={limit}");
        loop {
            let page = get(&app, &key, &path).await;
            seen.extend(page["clicks"].as_array().unwrap().clone());
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/urls/raw/clicks?limit={limit}&cursor={cursor}");
        }
        assert_eq!(seen, all, "{limit} a page");
    }
}

#[tokio::test]
async fn a_file_holds_every_click_in_each_format() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    clicked(&app, &key).await;
    let all = events(&app, &key, "/api/v1/urls/raw/clicks", 3).await;
    let export = async |path: &str| {
        let answer = app.get(&format!("/api/v1/{path}")).bearer(&key).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    };
    for path in ["urls/raw/clicks/export", "clicks/export?format=ndjson", "clicks/export?domain=127.0.0.1"] {
        let answer = export(path).await;
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let lines: Vec<Value> =
            answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, all, "{path}");
    }
    let csv = export("urls/raw/clicks/export?format=csv").await;
    assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"clicks-raw.csv\""));
    let mut reader = csv::Reader::from_reader(csv.text().as_bytes());
    let columns = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), columns.len()), (3, all[0].as_object().unwrap().len()));
    let cell = |row: usize, name: &str| &rows[row][columns.iter().position(|column| column == name).unwrap()];
    assert_eq!(cell(0, "user_agent"), PHONE);
    assert_eq!(cell(2, "user_agent"), format!("'{FORMULA}"));
    assert_eq!((cell(0, "tags"), cell(0, "country")), ("[\"news\",\"a,b\"]", ""));
    let parquet = export("clicks/export?format=parquet").await;
    assert_eq!((&parquet.body[..4], &parquet.body[parquet.body.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    let none = export("urls/raw/clicks/export?format=csv&to=2026-12-31").await;
    assert_eq!(none.text().lines().count(), 1, "the header alone");
}

#[tokio::test]
async fn what_is_erased_is_gone() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    clicked(&app, &ann).await;
    app.link(&bob, json!({"long_url": "https://example.com/", "custom_alias": "bobs"})).await;
    click(&app, "bobs", PHONE).await;
    let clicks = events(&app, &ann, "/api/v1/clicks", 3).await;
    let bobs = events(&app, &bob, "/api/v1/clicks", 1).await;
    let phone = clicks[0]["visitor"].as_str().unwrap().to_owned();
    assert_eq!(bobs[0]["visitor"], phone.as_str(), "one visitor of both");
    let erase = async |key: &str, path: &str| {
        let answer = app.delete(&format!("/api/v1/{path}")).bearer(key).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    };
    // On one's own links, and nowhere else.
    assert_eq!(erase(&ann, &format!("clicks?visitor={phone}")).await, json!({"erased_events": 2}));
    assert_eq!(erase(&ann, &format!("clicks?visitor={phone}")).await, json!({"erased_events": 0}));
    events(&app, &ann, "/api/v1/clicks", 1).await;
    events(&app, &bob, "/api/v1/clicks", 1).await;
    counted(&app, &ann, "raw", 1).await;
    let admin = app.admin_key().await;
    let everyone = format!("clicks?visitor={phone}&everyone=true");
    assert_eq!(erase(&admin, &everyone).await, json!({"erased_events": 1}));
    assert_eq!(erase(&ann, "urls/raw/clicks").await, json!({"erased_events": 1}));
    assert_eq!(erase(&ann, "urls/raw/clicks").await, json!({"erased_events": 0}));
    let stats = get(&app, &ann, "/api/v1/urls/raw/stats").await;
    assert_eq!(stats["clicks_total_all"], 0, "{stats}");
}

/// A stream of events, read as it comes.
struct Events {
    stream: TcpStream,
    unread: String,
}

impl Events {
    async fn open(app: &TestApp, key: &str, code: &str) -> Self {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        let head = format!(
            "GET /api/v1/urls/{code}/live HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Events { stream, unread: String::new() }
    }

    /// Everything up to the next `end`, which must come.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some((before, rest)) = self.unread.split_once(end) {
                let before = before.to_owned();
                self.unread = rest.to_owned();
                return before;
            }
            assert!(self.read().await, "the stream ended: {}", self.unread);
        }
    }

    /// Whether there was more.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("nothing comes").unwrap_or(0);
        self.unread.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        read > 0
    }

    /// The data of the next event.
    async fn next(&mut self) -> Value {
        self.until("event: clicks\ndata: ").await;
        serde_json::from_str(&self.until("\n").await).unwrap()
    }
}

#[tokio::test]
async fn a_count_that_is_followed_moves() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": "https://example.com/", "custom_alias": "watched"})).await;
    let mut events = Events::open(&app, &key, "watched").await;
    let head = events.until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let zero = json!({"total_clicks": 0, "clicks_total_all": 0, "unique_visitors": 0});
    assert_eq!(events.next().await, zero, "at once");
    for _ in 0..5 {
        click(&app, "watched", PHONE).await;
    }
    let begin = Instant::now();
    loop {
        let count = events.next().await;
        // The visitor is counted a moment later, with the commit.
        if count == json!({"total_clicks": 5, "clicks_total_all": 5, "unique_visitors": 1}) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{count}");
    }
}

#[tokio::test]
async fn a_count_that_is_followed_does_not_hold_up_the_end() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": "https://example.com/", "custom_alias": "watched"})).await;
    let mut events = Events::open(&app, &key, "watched").await;
    events.next().await;
    let TestApp { running, .. } = app;
    let drain = running.app.config.http.drain_timeout;
    let begin = Instant::now();
    running.stop().await;
    assert!(begin.elapsed() < drain / 2, "{:?}", begin.elapsed());
    while events.read().await {}
    assert!(events.unread.ends_with("0\r\n\r\n"), "the stream is complete: {}", events.unread);
}
