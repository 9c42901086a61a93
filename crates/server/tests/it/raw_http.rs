//! HTTP/1 as bytes: what well-behaved clients send, and what others do.

use crate::support::loops::on_both_loops;
use crate::support::raw::{RawConnection, exchange, until};
use crate::support::{TestApp, json};

const TARGET: &str = "https://example.com/target";

on_both_loops!(
    pipelined_requests_are_answered_in_order,
    a_connection_stays_open_until_one_side_wants_it_closed,
    clients_of_http_1_0_are_served,
    what_is_no_request_is_refused,
    odd_but_legal_requests_are_answered,
    a_body_that_was_not_read_is_no_next_request,
    nothing_that_is_stored_breaks_out_of_a_header,
    a_head_that_does_not_come_is_not_waited_for,
    an_idle_connection_is_closed,
    a_body_that_does_not_come_is_not_waited_for,
    chunked_bodies_and_expectations,
    a_client_that_has_said_all_still_gets_its_answer,
    connections_are_bounded,
);

async fn app_with_link(io: &str, settings: &[(&str, &str)]) -> (TestApp, String) {
    let app = TestApp::with(&[&[("io", io)], settings].concat()).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    (app, code)
}

async fn pipelined_requests_are_answered_in_order(io: &str) {
    let app = TestApp::with(&[("io", io)]).await;
    let key = app.key("ann").await;
    let mut expected = Vec::new();
    let mut requests = String::new();
    for number in 0..50 {
        let target = format!("https://example.com/{number}");
        // In turn: one from memory, one that waits for the disk, one that leaves the redirect path.
        let limit = (number % 3 == 1).then_some(5);
        let code = app.link(&key, json!({"long_url": target, "click_limit": limit})).await;
        requests += &format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n");
        expected.push((302, Some(target)));
        if number % 3 == 2 {
            requests += "GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /unknown HTTP/1.1\r\nhost: x\r\n\r\n";
            expected.extend([(200, None), (404, None)]);
        }
    }
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(&requests).await;
    for expected in &expected {
        let answer = connection.answer().await;
        assert_eq!(&(answer.status, answer.header("location")), expected);
    }
    // An answer doesn't wait for the rest of the request behind it.
    let (first, second) = requests.split_at(requests.len() / 2);
    connection.send(first).await;
    let complete = first.matches("\r\n\r\n").count();
    for expected in &expected[..complete] {
        let answer = connection.answer().await;
        assert_eq!(&(answer.status, answer.header("location")), expected);
    }
    connection.send(second).await;
    for expected in &expected[complete..] {
        let answer = connection.answer().await;
        assert_eq!(&(answer.status, answer.header("location")), expected);
    }
    // The same a byte at a time for a while, and then all the rest.
    let (slowly, rest) = requests.split_at(100);
    for byte in slowly.bytes() {
        connection.send([byte]).await;
    }
    connection.send(rest).await;
    for expected in &expected {
        let answer = connection.answer().await;
        assert_eq!(&(answer.status, answer.header("location")), expected);
    }
}

async fn a_connection_stays_open_until_one_side_wants_it_closed(io: &str) {
    let (app, code) = app_with_link(io, &[]).await;
    let mut connection = RawConnection::open(app.address()).await;
    for _ in 0..3 {
        connection.send(format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(connection.answer().await.status, 302);
        connection.send(format!("HEAD /{code} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(connection.answer_to_head().await.status, 302);
        connection.send("HEAD /unknown HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(connection.answer_to_head().await.status, 404);
        connection.send("HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(connection.answer_to_head().await.status, 200);
    }
    connection.send(format!("GET /{code} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(connection.answer().await.status, 302);
    assert!(connection.rest().await.is_empty());
}

async fn clients_of_http_1_0_are_served(io: &str) {
    let (app, code) = app_with_link(io, &[]).await;
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(format!("GET /{code} HTTP/1.0\r\n\r\n")).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("location")), (302, Some(TARGET.to_owned())));
    assert!(connection.rest().await.is_empty(), "closed after one answer");

    let mut connection = RawConnection::open(app.address()).await;
    for _ in 0..2 {
        connection.send(format!("GET /{code} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")).await;
        assert_eq!(connection.answer().await.status, 302);
    }
}

async fn what_is_no_request_is_refused(io: &str) {
    let (app, code) = app_with_link(io, &[]).await;
    let check = async |request: &[u8], statuses: &[u16]| {
        let mut connection = RawConnection::open(app.address()).await;
        connection.try_send(request).await;
        let shown = request[..request.len().min(80)].escape_ascii();
        let answer = connection.next_answer().await.unwrap_or_else(|| panic!("no answer to {shown}"));
        assert!(statuses.contains(&answer.status), "{} for {shown}", answer.status);
        assert_eq!(answer.header("location"), None, "{shown}");
        // What follows on such a connection can't be trusted to be a request.
        connection.try_send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(connection.rest().await.is_empty(), "{shown}");
    };
    let get = |headers: &str| format!("GET /{code} HTTP/1.1\r\n{headers}\r\n").into_bytes();
    // A request names one host (RFC 9112, section 3.2).
    check(&get(""), &[400]).await;
    check(&get("host: x\r\nhost: x\r\n"), &[400]).await;
    check(&get("host: x\r\nhost: y\r\n"), &[400]).await;
    check(&get("host: x y\r\n"), &[400]).await;
    check(&get("host: x/y\r\n"), &[400]).await;
    check(&get("host: a@b\r\n"), &[400]).await;
    check(&get("host: ä\r\n"), &[400]).await;
    // Lines that are none.
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no TLS here\r\n\r\n", &[400]).await;
    check(b"GET\r\n\r\n", &[400]).await;
    check(b"GET /\r\nhost: x\r\n\r\n", &[400]).await;
    check(b"GET / HTTP/1.1 more\r\nhost: x\r\n\r\n", &[400]).await;
    check(b"GET / HTTP/3.0\r\nhost: x\r\n\r\n", &[400]).await;
    check(b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", &[400]).await;
    check(b"GE T / HTTP/1.1\r\nhost: x\r\n\r\n", &[400]).await;
    check(&get("host: x\r\nno colon\r\n"), &[400]).await;
    check(&get("host: x\r\nspace : y\r\n"), &[400]).await;
    check(&get("host: x\r\nbad\x00name: y\r\n"), &[400]).await;
    check(&get("host: x\r\nname: bad\x00value\r\n"), &[400]).await;
    check(&get("host: x\r\nname: y\r\n folded: z\r\n"), &[400]).await;
    // Two lengths are a way to smuggle requests.
    let post = |headers: &str, body: &str| {
        format!("POST /{code} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}").into_bytes()
    };
    check(&post("content-length: 1\r\ncontent-length: 2\r\n", "ab"), &[400]).await;
    check(&post("content-length: -1\r\n", ""), &[400]).await;
    check(&post("content-length: +1\r\n", "a"), &[400]).await;
    check(&post("content-length: 99999999999999999999999\r\n", ""), &[400]).await;
    check(&post("transfer-encoding: gzip\r\n", ""), &[400]).await;
    // Heads are bounded in bytes and in headers.
    check(&get(&format!("host: x\r\nname: {}\r\n", "y".repeat(100_000))), &[400, 431]).await;
    check(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)).as_bytes(), &[400, 414, 431])
        .await;
    let many: String = (0..65).map(|number| format!("h{number}: x\r\n")).collect();
    check(&get(&format!("host: x\r\n{many}")), &[400, 431]).await;
}

async fn odd_but_legal_requests_are_answered(io: &str) {
    let (app, code) = app_with_link(io, &[]).await;
    let check = async |request: &str, status: u16| {
        let shown = &request[..request.len().min(80)];
        let answer = exchange(app.address(), request).await.unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!(answer.status, status, "{shown}");
    };
    check(&format!("GET /{code} HTTP/1.1\r\nHost:x\r\n\r\n"), 302).await;
    check(&format!("GET /{code} HTTP/1.1\r\nhOST: \t x \t\r\n\r\n"), 302).await;
    check(&format!("\r\nGET /{code} HTTP/1.1\r\nhost: x\r\n\r\n"), 302).await;
    check(&format!("GET /{code} HTTP/1.1\nhost: x\n\n"), 302).await;
    check(&format!("GET /{code} HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n"), 302).await;
    check(&format!("GET /{code} HTTP/1.1\r\nhost:\r\n\r\n"), 302).await;
    check(&format!("GET /{code}?{} HTTP/1.1\r\nhost: x\r\n\r\n", "q".repeat(20_000)), 302).await;
    check(&format!("GET /{code}#fragment HTTP/1.1\r\nhost: x\r\n\r\n"), 302).await;
    let many: String = (0..60).map(|number| format!("h{number}: x\r\n")).collect();
    check(&format!("GET /{code} HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 302).await;
    check(&format!("GET /{code} HTTP/1.1\r\nhost: x\r\nname: {}\r\n\r\n", "y".repeat(8_000)), 302).await;
    check(&format!("get /{code} HTTP/1.1\r\nhost: x\r\n\r\n"), 405).await;
    check(&format!("BREW /{code} HTTP/1.1\r\nhost: x\r\n\r\n"), 405).await;
    check("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404).await;
    check("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n", 404).await;
    check("GET no-slash HTTP/1.1\r\nhost: x\r\n\r\n", 404).await;
    // A body where none is read.
    check(&format!("GET /{code} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"), 302).await;
}

async fn a_body_that_was_not_read_is_no_next_request(io: &str) {
    let (app, code) = app_with_link(io, &[]).await;
    let smuggled = format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n");
    let length = smuggled.len();
    let request = format!("GET /unknown HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{smuggled}");
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(request).await;
    assert_eq!(connection.answer().await.status, 404);
    connection.try_send("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    // It went on with the next request, or gave the connection up; it never took the body for one.
    if let Some(answer) = connection.next_answer().await {
        assert_eq!((answer.status, answer.header("location")), (200, None));
    }
    assert!(connection.rest().await.is_empty());
}

async fn nothing_that_is_stored_breaks_out_of_a_header(io: &str) {
    let app = TestApp::with(&[("io", io)]).await;
    let key = app.key("ann").await;
    for break_out in ["%0d%0aSet-Cookie:a=b", "%0D%0A%0D%0A<script>", "%00", "%250d%250aX:y", "é\u{2028}"] {
        let target = format!("https://example.com/{break_out}?{break_out}#{break_out}");
        let code = app.link(&key, json!({"long_url": target, "redirect_type": 301})).await;
        let request = format!("GET /{code} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(app.address(), request).await.expect("an answer");
        let kept = app.get(&format!("/api/v1/urls/{code}")).bearer(&key).send().await.json();
        assert_eq!(answer.status, 301);
        assert_eq!(answer.count("location"), 1);
        assert_eq!(answer.header("location").as_deref(), kept["long_url"].as_str(), "{target}");
        assert_eq!(answer.count("set-cookie") + answer.count("x"), 0);
        assert!(answer.head.is_ascii() && answer.body.is_empty(), "{}", answer.head.escape_ascii());
    }
    for refused in
        ["https://example.com/\r\nx: y", "https://example.com/\n", "https://example.com/\tx", "\u{85}"]
    {
        let made = app.post("/api/v1/urls").bearer(&key).json(json!({"long_url": refused})).send().await;
        assert_eq!((made.status, made.code().as_str()), (400, "INVALID_URL"), "{refused:?}");
    }
    // Nor what a visitor adds.
    let fields = json!({"long_url": "https://example.com/", "forward_query": true});
    let code = app.link(&key, fields).await;
    let request = format!("GET /{code}?a=%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = exchange(app.address(), request).await.expect("an answer");
    let location = answer.header("location");
    assert_eq!(location.as_deref(), Some("https://example.com/?a=%0d%0aSet-Cookie:%20a=b"));
    assert_eq!(answer.count("set-cookie"), 0);
}

async fn a_head_that_does_not_come_is_not_waited_for(io: &str) {
    let (app, code) = app_with_link(io, &[("head_timeout_s", "1")]).await;
    let half = format!("GET /{code} HTTP/1.1\r\nhost: x\r\n");
    // Nothing at all, a part of a head, and a head that never ends.
    for sent in ["", "GET", half.as_str()] {
        let mut connection = RawConnection::open(app.address()).await;
        connection.send(sent).await;
        let answer = connection.rest().await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());
    }
    // A byte now and then does not extend the time.
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(half).await;
    let mut drip = tokio::time::interval(std::time::Duration::from_millis(200));
    let mut drops = 0;
    loop {
        tokio::select! {
            _ = drip.tick() => {
                connection.try_send("x: y\r\n").await;
                drops += 1;
                assert!(drops < 60, "the head is still waited for");
            }
            answer = connection.rest() => {
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());
                break;
            }
        }
    }
}

async fn an_idle_connection_is_closed(io: &str) {
    let (app, code) = app_with_link(io, &[("head_timeout_s", "1")]).await;
    let mut connection = RawConnection::open(app.address()).await;
    for path in [code.as_str(), "health"] {
        connection.send(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(connection.answer().await.status < 400);
    }
    assert!(connection.rest().await.is_empty());
}

async fn a_body_that_does_not_come_is_not_waited_for(io: &str) {
    let app = TestApp::with(&[("io", io), ("body_timeout_s", "1")]).await;
    let key = app.key("ann").await;
    let head = format!(
        "POST /api/v1/urls HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    );
    for rest in
        ["content-length: 1000\r\n\r\n{\"long_url\":", "transfer-encoding: chunked\r\n\r\n5\r\n{\"lon"]
    {
        let mut connection = RawConnection::open(app.address()).await;
        connection.send(format!("{head}{rest}")).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("too long to arrive"), "{}", answer.text());
        assert!(connection.rest().await.is_empty(), "the connection is given up");
    }
    // A client that hangs up in the middle leaves nothing behind.
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(format!("{head}content-length: 1000\r\n\r\n{{\"long_url\":")).await;
    drop(connection);
    assert_eq!(app.get("/health").send().await.status, 200);
}

async fn chunked_bodies_and_expectations(io: &str) {
    let app = TestApp::with(&[("io", io)]).await;
    let key = app.key("ann").await;
    let head = format!(
        "POST /api/v1/urls HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    );
    let body = json!({"long_url": TARGET}).to_string();
    let chunked = |body: &str| {
        let (one, two) = body.split_at(5);
        format!("{:x}\r\n{one}\r\n{:X};ext=1\r\n{two}\r\n0\r\ntrailer: x\r\n\r\n", one.len(), two.len())
    };
    let mut connection = RawConnection::open(app.address()).await;
    for _ in 0..2 {
        connection.send(format!("{head}transfer-encoding: chunked\r\n\r\n{}", chunked(&body))).await;
        assert_eq!(connection.answer().await.status, 201);
    }
    connection.send(format!("{head}content-length: {}\r\nexpect: 100-continue\r\n\r\n", body.len())).await;
    assert_eq!(connection.answer().await.status, 100);
    connection.send(&body).await;
    assert_eq!(connection.answer().await.status, 201);
    // Whoever would be refused anyway is not asked for the body.
    let refused = format!(
        "POST /api/v1/urls/bulk HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        5 << 20
    );
    assert_eq!(exchange(app.address(), refused).await.expect("an answer").status, 401);
    // No length is needed to find out that a body is too long.
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    for _ in 0..30 {
        connection.try_send(format!("2710\r\n{}\r\n", "x".repeat(10_000))).await;
    }
    assert_eq!(connection.answer().await.status, 413);
    // And none is read to find out that the one given is.
    let request = format!("{head}content-length: {}\r\n\r\n", 1 << 30);
    assert_eq!(exchange(app.address(), request).await.expect("an answer").status, 413);
    // A chunk that is none.
    let request = format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n");
    assert_eq!(exchange(app.address(), request).await.expect("an answer").status, 400);
}

async fn a_client_that_has_said_all_still_gets_its_answer(io: &str) {
    let app = TestApp::with(&[("io", io)]).await;
    let key = app.key("ann").await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    let counted = app.link(&key, json!({"long_url": TARGET, "click_limit": 5})).await;
    for (path, status) in [(plain.as_str(), 302), (counted.as_str(), 302), ("health", 200), ("unknown", 404)]
    {
        let mut connection = RawConnection::open(app.address()).await;
        connection.send(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        connection.end_sending().await;
        assert_eq!(connection.answer().await.status, status, "{path}");
        assert!(connection.rest().await.is_empty(), "{path}");
    }
    // One that went away before it had asked is no trouble.
    let mut connection = RawConnection::open(app.address()).await;
    connection.send("GET /heal").await;
    connection.end_sending().await;
    let answer = connection.rest().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
}

async fn connections_are_bounded(io: &str) {
    let (app, code) = app_with_link(io, &[("connections_max", "3"), ("workers", "1")]).await;
    let request = format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut open = Vec::new();
    // The connection that made the link may take a moment to be counted out.
    until(|| app.running.app.metrics.connections.get() == 0).await;
    for _ in 0..3 {
        let mut connection = RawConnection::open(app.address()).await;
        connection.send(&request).await;
        assert_eq!(connection.answer().await.status, 302);
        open.push(connection);
    }
    let mut turned_away = RawConnection::open(app.address()).await;
    turned_away.try_send(&request).await;
    assert!(turned_away.rest().await.is_empty());
    assert!(app.running.app.metrics.connections_refused.get() >= 1);
    // Those that are open go on, and the place of one that goes is given again.
    open[0].send(&request).await;
    assert_eq!(open[0].answer().await.status, 302);
    let mut leaving = open.pop().unwrap();
    leaving.end_sending().await;
    assert!(leaving.rest().await.is_empty());
    until(|| app.running.app.metrics.connections.get() == 2).await;
    assert_eq!(exchange(app.address(), &request).await.expect("an answer").status, 302);
}
