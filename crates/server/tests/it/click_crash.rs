//! kill -9 while links are followed: every redirect that was received is counted, and none twice.

use crate::support::{Connection, Place, Terse, Value, json};
use axum::body::Body;
use http::Request;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often the server is killed; `TERSE_CRASH_ROUNDS` sets another number.
const ROUNDS: u64 = 5;
const CONNECTIONS: usize = 8;
/// For the statistics to have everything after a start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of redirects that were received whole.
type Received = Arc<Mutex<Vec<u64>>>;

async fn follow(mut connection: Connection, code: String, next: Arc<AtomicU64>, received: Received) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let request = Request::get(format!("/{code}"))
            .header("referer", format!("https://from.example/{number}"))
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        let Some(answer) = connection.send(request, Body::empty()).await else { return };
        assert_eq!(answer.status, 302, "{answer:?}");
        received.lock().unwrap().push(number);
    }
}

/// How often each number is among the raw events.
async fn recorded(server: &Terse, key: &str) -> HashMap<u64, u64> {
    let mut connection = Connection::open(server.address).await.unwrap();
    let request =
        Request::get("/api/v1/clicks/export?format=ndjson").header("authorization", format!("Bearer {key}"));
    let answer = connection.send(request, Body::empty()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut counts = HashMap::new();
    for line in answer.text().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let referrer = event["referrer"].as_str().unwrap();
        let number = referrer.strip_prefix("https://from.example/").unwrap().parse().unwrap();
        *counts.entry(number).or_default() += 1;
    }
    counts
}

async fn clicks_of(server: &Terse, key: &str, code: &str) -> u64 {
    let mut connection = Connection::open(server.address).await.unwrap();
    let request =
        Request::get(format!("/api/v1/urls/{code}/stats")).header("authorization", format!("Bearer {key}"));
    let answer = connection.send(request, Body::empty()).await.unwrap();
    answer.json()["clicks_total_all"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_redirect_that_was_received_is_counted_exactly_once_over_kills() {
    let rounds = std::env::var("TERSE_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let place = Place::new();
    let key = place.key("ann");
    // As outside of tests: small segments are used up faster than files can be made.
    let start = || place.start_with(&[("TERSE_CLICKS_SEGMENT_KIB", "4096")]);
    let mut server = start();
    let mut connection = Connection::open(server.address).await.unwrap();
    let made =
        connection.post("/api/v1/urls", &key, json!({"long_url": "https://example.com/"})).await.unwrap();
    let code = made.json()["short_code"].as_str().unwrap().to_owned();
    let next = Arc::new(AtomicU64::new(0));
    let received = Received::default();
    for round in 0..rounds {
        let mut work = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let connection = Connection::open(server.address).await.unwrap();
            work.spawn(follow(connection, code.clone(), next.clone(), received.clone()));
        }
        // From a moment in which hardly anything was read to one in which much was committed.
        let chance = u64::from(getrandom::u32().unwrap()) % 1500;
        tokio::time::sleep(Duration::from_millis(20 + if round % 2 == 0 { chance } else { chance / 10 }))
            .await;
        server.kill();
        work.join_all().await;
        server = start();
    }
    let received = std::mem::take(&mut *received.lock().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let counts = loop {
        let counts = recorded(&server, &key).await;
        if received.iter().all(|number| counts.contains_key(number)) {
            break counts;
        }
        let missing = received.iter().filter(|number| !counts.contains_key(number)).count();
        assert!(Instant::now() < deadline, "{missing} of {} redirects are not counted", received.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(counts.values().all(|count| *count == 1), "some are counted twice");
    // What was recorded and not received was under way when the kill came.
    let extra = counts.len() - received.len();
    assert!(extra <= rounds as usize * CONNECTIONS, "{extra} redirects were counted that nobody received");
    // The rollups agree, now and after another start.
    assert_eq!(clicks_of(&server, &key, &code).await, counts.len() as u64);
    assert!(server.terminate(20).is_some());
    let server = start();
    assert_eq!(clicks_of(&server, &key, &code).await, counts.len() as u64);
    assert_eq!(recorded(&server, &key).await, counts);
    println!(
        "{rounds} kills: {} redirects received, {} recorded, none lost, none twice",
        received.len(),
        counts.len()
    );
}
