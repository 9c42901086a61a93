//! Connection loops under clients that are slow, many, or gone.

use crate::support::failing::{Mood, StoreSwitch};
use crate::support::loops::on_both_loops;
use crate::support::raw::{RawConnection, exchange, until};
use crate::support::{Logged, Method, Place, TestApp, TestRequest, Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use terse::redirect::UNSENT_TIMEOUT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

on_both_loops!(
    a_client_that_reads_slowly_gets_every_answer_in_order,
    a_client_that_takes_nothing_is_given_up,
    a_head_may_be_cut_anywhere,
    requests_wait_behind_one_that_waits_for_the_store,
    an_answer_that_is_waited_for_is_sent_at_the_end,
    connections_that_are_reset_leave_nothing_behind,
    thousands_of_idle_connections_are_kept,
    more_bytes_at_once_than_there_are_buffers,
    without_descriptors_connections_wait,
    as_many_clicks_are_counted_as_answers_were_given,
    connections_that_ask_once_are_closed_behind_the_answer,
);

const TARGET: &str = "https://example.com/target";

fn get(code: &str) -> String {
    format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// The lines of a head but for those that differ from answer to answer.
fn without_chance(head: &str) -> String {
    let is_same = |line: &&str| !line.starts_with("x-request-id: ") && !line.starts_with("date: ");
    head.split_inclusive('\n').filter(is_same).collect()
}

async fn app_with_links(io: &str, count: usize) -> (TestApp, Vec<(String, String)>) {
    let app = TestApp::with(&[("io", io)]).await;
    let key = app.key("ann").await;
    let mut links = Vec::new();
    for numbers in (0..count).collect::<Vec<_>>().chunks(500) {
        // Of different lengths, so that an answer in another one's place shows.
        let target =
            |number: &usize| format!("https://example.com/{number}/{}", "x".repeat(number * 7 % 1500));
        let targets: Vec<String> = numbers.iter().map(target).collect();
        let rows: Vec<Value> = targets.iter().map(|target| json!({"long_url": target})).collect();
        let made = app.post("/api/v1/urls/bulk").bearer(&key).json(Value::from(rows)).send().await.json();
        let codes = made["results"].as_array().unwrap().iter();
        let codes = codes.map(|result| result["link"]["short_code"].as_str().unwrap().to_owned());
        links.extend(codes.zip(targets));
    }
    assert_eq!(links.len(), count);
    (app, links)
}

async fn a_client_that_reads_slowly_gets_every_answer_in_order(io: &str) {
    let (app, links) = app_with_links(io, 2_000).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let (mut reading, mut writing) = socket.connect(app.address()).await.unwrap().into_split();
    // Much more than the buffers between the two hold, in both directions.
    let asked: Vec<(String, String)> = links.iter().cycle().take(20_000).cloned().collect();
    let requests: Vec<u8> = asked
        .iter()
        .flat_map(|(code, _)| {
            let padding = "p".repeat(800);
            format!("GET /{code} HTTP/1.1\r\nhost: x\r\npadding: {padding}\r\n\r\n").into_bytes()
        })
        // For another loop, while most answers before it are unsent.
        .chain(*b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .collect();
    let sending = tokio::spawn(async move { writing.write_all(&requests).await.map(|()| writing) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!sending.is_finished(), "nobody reads the answers, and still all requests are read");
    let mut received = Vec::new();
    let (mut at, mut chunk) = (0, vec![0; 64 << 10]);
    let mut rest_of_first = None;
    for (number, (_, target)) in asked.iter().enumerate() {
        let end = loop {
            if let Some(end) = received[at..].windows(4).position(|bytes: &[u8]| bytes == b"\r\n\r\n") {
                break at + end + 4;
            }
            received.drain(..at);
            at = 0;
            if number < 100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let size = if number < 1_000 { 1_000 } else { chunk.len() };
            let count = reading.read(&mut chunk[..size]).await.unwrap();
            assert!(count > 0, "closed before answer {number}");
            received.extend_from_slice(&chunk[..count]);
        };
        let answer = std::str::from_utf8(&received[at..end]).unwrap();
        let begin = format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\n");
        assert!(answer.starts_with(&begin), "answer {number} is\n{answer}");
        let rest = without_chance(&answer[begin.len()..]);
        assert_eq!(rest_of_first.get_or_insert_with(|| rest.clone()), &rest, "of answer {number}");
        at = end;
    }
    drop(sending.await.unwrap().unwrap());
    received.drain(..at);
    reading.read_to_end(&mut received).await.unwrap();
    let last = String::from_utf8(received).unwrap();
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n") && last.matches("HTTP/1.1").count() == 1, "{last}");
}

async fn a_client_that_takes_nothing_is_given_up(io: &str) {
    let (app, links) = app_with_links(io, 1).await;
    // Much more than the buffers between the two hold, in both directions.
    let padding = "p".repeat(200);
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\npadding: {padding}\r\n\r\n", links[0].0);
    let requests = request.repeat(200_000);
    let ask = async || {
        let (reading, mut writing) = TcpStream::connect(app.address()).await.unwrap().into_split();
        let requests = requests.clone();
        (reading, tokio::spawn(async move { writing.write_all(requests.as_bytes()).await }))
    };
    let (_unread, deaf) = ask().await;
    let (mut reading, slow) = ask().await;
    let connections = || app.running.app.metrics.connections.get();
    until(|| connections() == 2).await;
    let mut chunk = vec![0; 512 << 10];
    let began = Instant::now();
    // Who takes something keeps the connection, when the other one has lost it, too.
    let mut seconds_left = 5;
    while seconds_left > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        reading.read_exact(&mut chunk).await.unwrap();
        seconds_left -= i32::from(connections() == 1);
        assert!(began.elapsed() < 3 * UNSENT_TIMEOUT, "who reads nothing is still there");
    }
    assert!(deaf.await.unwrap().is_err(), "somebody has read all requests");
    assert!(!slow.is_finished(), "there is more to be read");
}

async fn a_head_may_be_cut_anywhere(io: &str) {
    let (app, links) = app_with_links(io, 3).await;
    let requests: String = links.iter().map(|(code, _)| get(code)).collect();
    let mut connection = RawConnection::open(app.address()).await;
    for cut in 1..requests.len() {
        connection.send(&requests[..cut]).await;
        // Mostly the server sees the parts apart then.
        tokio::time::sleep(Duration::from_micros(500)).await;
        connection.send(&requests[cut..]).await;
        for (_, target) in &links {
            assert_eq!(connection.answer().await.header("location").as_ref(), Some(target), "cut at {cut}");
        }
    }
}

async fn requests_wait_behind_one_that_waits_for_the_store(io: &str) {
    let (switch, wrap) = StoreSwitch::new();
    let app = TestApp::with_stores(&[("io", io), ("cache_ttl_s", "1")], wrap).await;
    let key = app.key("ann").await;
    let first = app.link(&key, json!({"long_url": "https://example.com/first"})).await;
    app.clock.advance(60_000);
    let second = app.link(&key, json!({"long_url": "https://example.com/second"})).await;
    assert_eq!(app.follow(&second).await.status, 302);
    switch.set(Mood::HoldsLookups);
    let mut connection = RawConnection::open(app.address()).await;
    let held = format!("{}{}{}", get(&second), get(&first), get(&second));
    connection.send(&held).await;
    assert_eq!(connection.answer().await.header("location").unwrap(), "https://example.com/second");
    switch.wait_for_held(1).await;
    // More than may wait unread comes meanwhile.
    let more = get(&second).repeat(5_000);
    let (mut reading, mut writing) = connection.into_stream().into_split();
    let sending = tokio::spawn(async move {
        writing.write_all(more.as_bytes()).await.unwrap();
        writing.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    switch.set(Mood::Works);
    let mut answers = String::new();
    reading.read_to_string(&mut answers).await.unwrap();
    sending.await.unwrap();
    let locations: Vec<&str> =
        answers.split("location: ").skip(1).filter_map(|rest| rest.lines().next()).collect();
    assert_eq!(locations.len(), 5_002);
    assert_eq!(locations[0], "https://example.com/first");
    assert!(locations[1..].iter().all(|location| *location == "https://example.com/second"));
}

async fn an_answer_that_is_waited_for_is_sent_at_the_end(io: &str) {
    let (switch, wrap) = StoreSwitch::new();
    let app = TestApp::with_stores(&[("io", io)], wrap).await;
    let code = app.link(&app.key("ann").await, json!({"long_url": TARGET})).await;
    app.clock.advance(60_000);
    switch.set(Mood::HoldsLookups);
    let mut idle = RawConnection::open(app.address()).await;
    let mut connection = RawConnection::open(app.address()).await;
    connection.send(get(&code)).await;
    switch.wait_for_held(1).await;
    let address = app.address();
    let stopping = tokio::spawn(app.running.stop());
    assert!(idle.rest().await.is_empty());
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    switch.set(Mood::Works);
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("location")), (302, Some(TARGET.to_owned())));
    assert!(connection.rest().await.is_empty());
    stopping.await.unwrap();
}

/// Closes so that the other side learns of it by a reset.
fn reset(connection: RawConnection) {
    let stream = connection.into_stream().into_std().unwrap();
    // What is unsent is thrown away.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn connections_that_are_reset_leave_nothing_behind(io: &str) {
    let (app, links) = app_with_links(io, 1).await;
    let code = &links[0].0;
    for round in 0..60 {
        let mut connection = RawConnection::open(app.address()).await;
        match round % 6 {
            0 => {}
            1 => connection.send("GET /ha").await,
            // Answers that nobody takes, some of which are in nobody's hands yet.
            2 => connection.try_send(get(code).repeat(20_000)).await,
            3 => connection.send(get("unknown")).await,
            4 => {
                connection.send(get(code)).await;
                connection.answer().await;
            }
            // On its way to another loop.
            _ => connection.try_send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100)).await,
        }
        reset(connection);
    }
    let connections = || app.running.app.metrics.connections.get();
    until(|| connections() == 0).await;
    assert_eq!(exchange(app.address(), get(code)).await.expect("an answer").status, 302);
}

/// A link of a server process.
async fn link_on(server: &Logged, key: &str) -> String {
    let request = TestRequest::new(server.address, Method::POST, "/api/v1/urls").bearer(key);
    let made = request.json(json!({"long_url": TARGET})).send().await;
    made.json()["short_code"].as_str().unwrap().to_owned()
}

async fn open_all(address: SocketAddr, count: usize) -> Vec<RawConnection> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(RawConnection::open(address).await);
    }
    connections
}

async fn thousands_of_idle_connections_are_kept(io: &str) {
    const COUNT: usize = 4_000;
    let place = Place::new();
    let key = place.key("ann");
    let server = Logged::start(&place, &[("TERSE_IO", io), ("TERSE_WORKERS", "1")]);
    let code = link_on(&server, &key).await;
    let ask_all = async |connections: &mut [RawConnection]| {
        for connection in &mut *connections {
            connection.send(get(&code)).await;
        }
        for connection in connections {
            assert_eq!(connection.answer().await.status, 302);
        }
    };
    // What a crowd needs once, such as buffers for those who ask at the same time.
    ask_all(&mut open_all(server.address, 500).await).await;
    let before = server.memory();
    let mut connections = open_all(server.address, COUNT).await;
    ask_all(&mut connections).await;
    let each = server.memory().saturating_sub(before) / COUNT;
    // Whatever else grew meanwhile is in it, too.
    let most = if io == "uring" { 1 << 10 } else { 32 << 10 };
    assert!(each <= most, "{each} bytes for an idle connection");
    ask_all(&mut connections).await;
    // Those of which a part of a head is held, too.
    for connection in &mut connections {
        connection.send("GET /").await;
    }
    for connection in &mut connections {
        connection.send(&get(&code)["GET /".len()..]).await;
    }
    for connection in &mut connections {
        assert_eq!(connection.answer().await.status, 302);
    }
}

async fn more_bytes_at_once_than_there_are_buffers(io: &str) {
    let place = Place::new();
    let key = place.key("ann");
    let server = Logged::start(&place, &[("TERSE_IO", io), ("TERSE_WORKERS", "1")]);
    let code = link_on(&server, &key).await;
    let mut connections = open_all(server.address, 1_200).await;
    for connection in &mut connections {
        connection.send(get(&code)).await;
        assert_eq!(connection.answer().await.status, 302);
    }
    let padding = "p".repeat(5_000);
    let request = format!("GET /{code} HTTP/1.1\r\nhost: x\r\npadding: {padding}\r\n\r\n");
    for _ in 0..3 {
        // All at once: the server sees nothing of it until everybody has sent.
        server.pause();
        for connection in &mut connections {
            connection.send(&request).await;
        }
        server.resume();
        for connection in &mut connections {
            assert_eq!(connection.answer().await.status, 302);
        }
    }
}

async fn without_descriptors_connections_wait(io: &str) {
    let place = Place::new();
    let key = place.key("ann");
    let variables = [("TERSE_IO", io), ("TERSE_WORKERS", "1"), ("TERSE_LOG", "warn")];
    let server = Logged::start_under(&place, &variables, "ulimit -n 160", |_| {});
    let code = link_on(&server, &key).await;
    let mut connections = open_all(server.address, 300).await;
    for connection in &mut connections {
        connection.send(get(&code)).await;
    }
    // Some are served now, and the others when those have gone.
    let mut served = 0;
    while !connections.is_empty() {
        let mut connection = connections.remove(0);
        assert_eq!(connection.answer().await.status, 302, "after {served}");
        served += 1;
    }
    let log = server.log();
    assert!(log.contains("Could not accept a connection"), "{log}");
    assert!(log.lines().count() < 1_000, "{log}");
}

async fn as_many_clicks_are_counted_as_answers_were_given(io: &str) {
    let (app, links) = app_with_links(io, 50).await;
    // What the cache knows is counted on another thread than what has to be loaded.
    let app = app.restart(&[("io", io), ("clicks_segment_kib", "1024")]).await;
    let mut asking = Vec::new();
    for number in 0..8 {
        let (address, links) = (app.address(), links.clone());
        asking.push(tokio::spawn(async move {
            let mut connection = RawConnection::open(address).await;
            let requests: String =
                (0..500).map(|at| get(&links[(at * 7 + number) % links.len()].0)).collect();
            connection.send(requests).await;
            for at in 0..500 {
                let answer = connection.answer().await;
                assert_eq!(
                    answer.header("location").as_ref(),
                    Some(&links[(at * 7 + number) % links.len()].1)
                );
            }
        }));
    }
    for asking in asking {
        asking.await.unwrap();
    }
    app.settle().await;
    let metrics = &app.running.app.metrics;
    assert_eq!(metrics.redirects.get(), 4_000);
    assert_eq!(metrics.clicks_appended.get(), 4_000);
    assert_eq!(metrics.clicks_processed.get(), 4_000);
}

async fn connections_that_ask_once_are_closed_behind_the_answer(io: &str) {
    let (app, links) = app_with_links(io, 1).await;
    let (code, target) = &links[0];
    for path in [code.as_str(), "unknown"].repeat(20) {
        let mut connection = RawConnection::open(app.address()).await;
        let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nConnection: Close\r\n\r\n");
        // Whatever it sends behind that is no request any more.
        connection.send(format!("{request}{}", get(code))).await;
        let answer = connection.answer().await;
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
        assert_eq!(answer.header("location").as_ref(), (path == code).then_some(target));
        assert!(connection.rest().await.is_empty());
    }
    until(|| app.running.app.metrics.connections.get() == 0).await;
}
