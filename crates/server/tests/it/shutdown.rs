//! SIGTERM, and what the log tells and keeps to itself.

use crate::support::loops::on_both_loops;
use crate::support::raw::RawConnection;
use crate::support::{Logged, Method, Place, TestRequest, Value, json};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

on_both_loops!(
    a_request_that_is_under_way_is_finished_and_idle_connections_are_closed,
    requests_that_came_before_the_end_are_answered,
    a_command_that_is_under_way_is_finished,
    a_request_that_never_ends_does_not_hold_up_the_end_for_long,
);

/// Ends when the server has closed the connection; what came before that.
async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// Waits until nobody accepts connections any more.
async fn until_closed(server: &Logged) {
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends the head of a creation and, when the server waits for it, half of its body; returns the other half.
async fn begin_create(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), key: &str) -> String {
    let body = json!({"long_url": "https://example.com/slow"}).to_string();
    let (half, rest) = body.split_at(10);
    let head = format!(
        "POST /api/v1/urls HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut goes_on = [0; 25];
    stream.read_exact(&mut goes_on).await.unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(half.as_bytes()).await.unwrap();
    rest.to_owned()
}

async fn a_request_that_is_under_way_is_finished_and_idle_connections_are_closed(io: &str) {
    let place = Place::new();
    let key = place.key("ann");
    let mut server = Logged::start(&place, &[("TERSE_IO", io)]);
    let mut idle = Vec::new();
    for (path, status) in [("health", b"HTTP/1.1 200"), ("unknown", b"HTTP/1.1 404")] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, status);
        idle.push(stream);
    }
    let unused = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let rest = begin_create(&mut slow, &key).await;
    server.signal_stop();
    for idle in idle {
        read_to_end(idle).await;
    }
    read_to_end(unused).await;
    until_closed(&server).await;
    slow.write_all(rest.as_bytes()).await.unwrap();
    let answer = read_to_end(slow).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(server.wait(), Some(0));
    let code = answer.split("\"short_code\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(place.ok(&["show", code]).contains("https://example.com/slow"));
}

async fn requests_that_came_before_the_end_are_answered(io: &str) {
    let place = Place::new();
    let mut server = Logged::start(&place, &[("TERSE_IO", io), ("TERSE_WORKERS", "1")]);
    let request = "GET /unknown HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut connections = Vec::new();
    for _ in 0..100 {
        let mut connection = RawConnection::open(server.address).await;
        connection.send(request).await;
        assert_eq!(connection.answer().await.status, 404);
        connections.push(connection);
    }
    // It sees them and the signal at the same time.
    server.pause();
    for connection in &mut connections {
        connection.send(request).await;
    }
    server.signal_stop();
    server.resume();
    for mut connection in connections {
        assert_eq!(connection.answer().await.status, 404);
        assert!(connection.rest().await.is_empty());
    }
    assert_eq!(server.wait(), Some(0));
}

async fn a_command_that_is_under_way_is_finished(io: &str) {
    let place = Place::new();
    let mut server = Logged::start(&place, &[("TERSE_IO", io)]);
    let run = std::fs::read_to_string(place.data().join("run")).unwrap();
    let mut slow = UnixStream::connect(format!("{run}/terse.sock")).await.unwrap();
    let rest = begin_create(&mut slow, "-").await;
    assert!(place.ok(&["doctor"]).contains("the server answers"));
    server.signal_stop();
    until_closed(&server).await;
    slow.write_all(rest.as_bytes()).await.unwrap();
    let answer = read_to_end(slow).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(server.wait(), Some(0));
}

async fn a_request_that_never_ends_does_not_hold_up_the_end_for_long(io: &str) {
    let place = Place::new();
    let key = place.key("ann");
    let mut server = Logged::start(&place, &[("TERSE_IO", io), ("TERSE_DRAIN_TIMEOUT_S", "1")]);
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"POST /api/v1/urls HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
    let mut body = TcpStream::connect(server.address).await.unwrap();
    begin_create(&mut body, &key).await;
    server.signal_stop();
    assert_eq!(server.wait(), Some(0));
    drop((half, body));
}

#[tokio::test]
async fn nothing_of_a_run_is_left_in_the_folders() {
    let place = Place::new();
    let mut server = Logged::start(&place, &[]);
    let run = std::fs::read_to_string(place.data().join("run")).unwrap();
    assert!(StdUnixStream::connect(format!("{run}/terse.sock")).is_ok());
    assert_eq!(std::fs::read_dir(place.run_dir()).unwrap().count(), 1);
    server.signal_stop();
    assert_eq!(server.wait(), Some(0));
    assert_eq!(std::fs::read_dir(place.run_dir()).unwrap().count(), 0);
    assert!(!place.data().join("run").exists());
}

#[test]
fn a_server_whose_output_nobody_reads_serves_all_the_same() {
    let place = Place::new();
    let mut command = crate::support::Terse::command(&place.data());
    command.env("TERSE_LISTEN", "127.0.0.1:0").env("XDG_RUNTIME_DIR", place.run_dir());
    command.env_remove("RUNTIME_DIRECTORY").env("TERSE_LOG", "off");
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let answers = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        child.try_wait().unwrap().is_some() || place.data().join("run").exists()
    });
    let said = place.ok(&["doctor"]);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answers && ended.is_none() && said.contains("the server answers"), "{ended:?} {said}");
}

/// Every kind of request once, with secrets that are easy to find again; the ids of the API's answers.
async fn everything(server: &Logged, key: &str) -> Vec<String> {
    let request = |method: Method, path: &str| {
        TestRequest::new(server.address, method, path)
            .header("x-forwarded-for", "203.0.113.77, 198.51.100.88")
            .header("x-real-ip", "203.0.113.77")
    };
    let link = json!({
        "long_url": "https://hidden-target.example/secret-path?token=secret-query",
        "custom_alias": "locked",
        "password": "Open-Sesame-42",
        "fallback_url": "https://hidden-fallback.example/",
        "notes": "secret-notes",
    });
    let wrong = "terse_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let bulk = json!([{"long_url": "https://hidden-target.example/bulk"}, {"long_url": "ftp://hidden-bad.example/"}]);
    let plain = json!({"long_url": "https://hidden-target.example/plain", "custom_alias": "plain"});
    let api = [
        request(Method::POST, "/api/v1/urls").bearer(key).header("idempotency-key", "secret-once").json(link),
        request(Method::POST, "/api/v1/urls").bearer(key).json(plain),
        request(Method::POST, "/api/v1/urls")
            .bearer(key)
            .json(json!({"long_url": "nonsense://hidden-bad.example"})),
        request(Method::POST, "/api/v1/urls")
            .bearer(wrong)
            .json(json!({"long_url": "https://hidden-target.example"})),
        request(Method::POST, "/api/v1/urls").header("x-api-key", wrong).json(json!({})),
        request(Method::POST, "/api/v1/urls/bulk").bearer(key).json(bulk),
        request(Method::GET, "/api/v1/urls?q=secret-search").bearer(key),
        request(Method::GET, "/api/v1/urls/locked").header("x-api-key", key),
        request(Method::GET, "/api/v1/urls/locked").header("x-manage-token", "secret-token"),
        request(Method::PATCH, "/api/v1/urls/locked").bearer(key).json(json!({"password": "Open-Barley-43"})),
        request(Method::POST, "/locked").body("application/x-www-form-urlencoded", "password=Open-Barley-43"),
        request(Method::POST, "/locked").body("application/x-www-form-urlencoded", "password=Wrong-Rice-44"),
        request(Method::POST, "/api/v1/keys").bearer(key).json(json!({"name": "second"})),
        request(Method::GET, "/api/v1/keys").bearer(key),
        request(Method::DELETE, "/api/v1/urls/plain").bearer(key),
    ];
    let mut ids = Vec::new();
    for request in api {
        let answer = request.send().await;
        assert!(answer.status < 500, "{answer:?}");
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    for path in ["/locked", "/plain", "/absent", "/"] {
        request(Method::GET, path).header("cookie", "secret-cookie=1").send().await;
    }
    ids
}

#[tokio::test]
async fn the_log_names_requests_and_no_secrets() {
    for level in ["info", "debug", "trace"] {
        let place = Place::new();
        let key = place.key("ann");
        let server = Logged::start(&place, &[("TERSE_LOG", level)]);
        let ids = everything(&server, &key).await;
        place.ok(&["shorten", "https://hidden-target.example/cli", "--password", "Open-Sesame-42"]);
        let log = server.log();
        let secrets = [
            key.as_str(),
            &key[6..40],
            "0123456789abcdef0123",
            "Open-",
            "secret-",
            "203.0.113.77",
            "198.51.100.88",
            "hidden-",
            "$argon2",
        ];
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{level}: {secret} is in the log");
        }
        if level == "debug" {
            for id in ids {
                assert!(log.contains(&id), "{id} is in no line of\n{log}");
            }
            for line in log.lines().filter(|line| line.contains("/api/v1/") || line.contains(" in bulk")) {
                assert!(line.contains("request_id"), "{line}");
            }
            assert!(log.contains("GET /api/v1/urls") && log.contains("status=200"), "{log}");
        }
        if level == "info" {
            assert!(!log.contains("GET /api/v1/urls"), "{log}");
        }
    }
}

#[tokio::test]
async fn a_json_log_is_json_with_the_request_in_every_line_of_it() {
    let place = Place::new();
    let key = place.key("ann");
    let variables = [("TERSE_LOG", "debug"), ("TERSE_LOG_FORMAT", "json"), ("TERSE_NONSENSE", "1")];
    let mut server = Logged::start(&place, &variables);
    let ids = everything(&server, &key).await;
    server.signal_stop();
    server.wait();
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()), "{log}");
    let of = |id: &str| lines.iter().filter(|line| line["span"]["request_id"] == id).count();
    for id in ids {
        assert!(of(&id) >= 1, "{id} is in no line of\n{log}");
    }
    assert!(log.contains("TERSE_NONSENSE"), "{log}");
}
