//! kill -9 at any moment: what was answered is there, and nothing is given out twice.

use crate::support::{Connection, Method, Place, Terse, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use terse::http::api::bulk::KEPT_BATCH_LEN;
use tokio::task::JoinSet;

const ROUNDS: usize = 25;

/// What the server has answered with 201: codes with their targets, in the order in which they came.
#[derive(Clone, Debug, Default)]
struct Answered(Arc<Mutex<Vec<(String, String)>>>);

impl Answered {
    fn add(&self, link: &Value) {
        let text = |field: &str| link[field].as_str().unwrap().to_owned();
        self.0.lock().unwrap().push((text("short_code"), text("long_url")));
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn chance(below: u32) -> u32 {
    getrandom::u32().unwrap() % below
}

/// Returns when `count` has reached `wanted`, or a worker has ended; a failed worker fails the test.
async fn until(workers: &mut JoinSet<()>, wanted: usize, count: impl Fn() -> usize) {
    while count() < wanted {
        if let Some(ended) = workers.try_join_next() {
            return ended.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

async fn create_singly(mut connection: Connection, key: String, next: Arc<AtomicUsize>, answered: Answered) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let mut link = json!({"long_url": format!("https://example.com/{number}")});
        if number.is_multiple_of(5) {
            link["custom_alias"] = json!(format!("alias-{number}"));
        }
        let Some(made) = connection.post("/api/v1/urls", &key, link).await else { return };
        assert_eq!(made.status, 201, "{made:?}");
        answered.add(&made.json());
    }
}

async fn create_in_bulk(mut connection: Connection, key: String, next: Arc<AtomicUsize>, answered: Answered) {
    loop {
        let first = next.fetch_add(40, Ordering::Relaxed);
        let row = |number: usize| json!({"long_url": format!("https://example.com/{number}")});
        let rows: Vec<Value> = (first..first + 40).map(row).collect();
        let Some(made) = connection.post("/api/v1/urls/bulk", &key, json!(rows)).await else { return };
        assert_eq!(made.status, 200, "{made:?}");
        for result in made.json()["results"].as_array().unwrap() {
            assert_eq!(result["status"], 201, "{result}");
            answered.add(&result["link"]);
        }
    }
}

/// Follows all links, over a few connections.
async fn check_all(server: &Terse, links: &[(String, String)]) {
    let mut parts = JoinSet::new();
    for part in links.chunks(links.len().div_ceil(4).max(1)) {
        let (part, address) = (part.to_vec(), server.address);
        parts.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            for (code, target) in part {
                let followed = connection.get(&format!("/{code}")).await.unwrap();
                let led_to = (followed.status, followed.header("location"));
                assert_eq!(led_to, (302, Some(target.as_str())), "{code}: {followed:?}");
            }
        });
    }
    parts.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_link_that_was_answered_outlives_kills_and_no_code_is_given_twice() {
    let place = Place::new();
    let key = place.key("load");
    let next = Arc::new(AtomicUsize::new(1));
    let mut all: HashMap<String, String> = HashMap::new();
    let mut server = place.start();
    for round in 0..ROUNDS {
        let answered = Answered::default();
        let mut work = JoinSet::new();
        for worker in 0..6 {
            let connection = Connection::open(server.address).await.unwrap();
            let (key, next, answered) = (key.clone(), next.clone(), answered.clone());
            match worker {
                0 => work.spawn(create_in_bulk(connection, key, next, answered)),
                _ => work.spawn(create_singly(connection, key, next, answered)),
            };
        }
        until(&mut work, 1 + chance(150) as usize, || answered.len()).await;
        assert_eq!(work.len(), 6, "all are at work when the kill comes");
        server.kill();
        work.join_all().await;
        server = place.start();
        let links = std::mem::take(&mut *answered.0.lock().unwrap());
        check_all(&server, &links).await;
        for (code, target) in links {
            let before = all.insert(code.clone(), target);
            assert_eq!(before, None, "round {round}: {code} was given twice");
        }
    }
    assert!(all.len() > ROUNDS);
    check_all(&server, &all.into_iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_click_limit_holds_over_kills_and_restarts() {
    const LIMIT: usize = 2_000;
    const KILLS: usize = 6;
    const VISITORS: usize = 8;
    let place = Place::new();
    let key = place.key("load");
    place.ok(&["shorten", "https://example.com/", "--alias", "limited", "--click-limit", "2000"]);
    let revealed = Arc::new(AtomicUsize::new(0));
    for kill in 0..=KILLS {
        let server = place.start();
        let before = revealed.load(Ordering::Relaxed);
        let mut visitors = JoinSet::new();
        for _ in 0..VISITORS {
            let (mut connection, revealed) =
                (Connection::open(server.address).await.unwrap(), revealed.clone());
            visitors.spawn(async move {
                while let Some(followed) = connection.get("/limited").await {
                    match followed.status {
                        302 => revealed.fetch_add(1, Ordering::Relaxed),
                        _ => return assert_eq!(followed.code(), "CLICK_LIMIT_REACHED"),
                    };
                }
            });
        }
        if kill < KILLS {
            until(&mut visitors, before + 1 + chance(50) as usize, || revealed.load(Ordering::Relaxed)).await;
            server.kill();
            visitors.join_all().await;
            continue;
        }
        // The last ones use up what is left.
        visitors.join_all().await;
        let link = server.request(Method::GET, "/api/v1/urls/limited");
        let admin = place.ok(&["keys", "create", "--name", "root", "--role", "admin"]);
        assert_eq!(link.bearer(&admin).send().await.json()["clicks_used"], LIMIT);
        let other = server.request(Method::GET, "/api/v1/urls/limited").bearer(&key).send().await;
        assert_eq!(other.status, 403);
    }
    let revealed = revealed.load(Ordering::Relaxed);
    assert!(revealed <= LIMIT, "{revealed} clicks");
    // A kill can swallow an answer of each visitor, and no more.
    assert!(revealed >= LIMIT - KILLS * VISITORS, "{revealed} clicks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_after_a_kill_makes_no_second_link() {
    let place = Place::new();
    let key = place.key("load");
    let mut server = place.start();
    for round in 0..10 {
        let once = format!("round-{round}");
        let link = json!({"long_url": format!("https://example.com/once-{round}-"), "tags": [once]});
        let mut first = Connection::open(server.address).await.unwrap();
        let (twin, body, twin_key) = (once.clone(), link.clone(), key.clone());
        let sent = tokio::spawn(async move { first.post_once("/api/v1/urls", &twin_key, &twin, body).await });
        // The random moment: before, within or after the commit.
        tokio::time::sleep(Duration::from_micros(u64::from(chance(6_000)))).await;
        server.kill();
        let first = sent.await.unwrap();
        server = place.start();
        let mut again = Connection::open(server.address).await.unwrap();
        let mut codes = HashSet::new();
        for _ in 0..2 {
            let made = again.post_once("/api/v1/urls", &key, &once, link.clone()).await.unwrap();
            assert_eq!(made.status, 201, "{made:?}");
            codes.insert(made.json()["short_code"].as_str().unwrap().to_owned());
        }
        codes.extend(first.map(|made| made.json()["short_code"].as_str().unwrap().to_owned()));
        assert_eq!(codes.len(), 1, "round {round}: {codes:?}");
        let list = place.ok_json(&["list", "--tag", &once, "--json"]);
        assert_eq!(list.as_array().unwrap().len(), 1, "round {round}: {list}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_call_that_a_kill_broke_off_is_continued_by_its_repeat() {
    const ROWS: usize = 3 * KEPT_BATCH_LEN + 500;
    let place = Place::new();
    let key = place.key("load");
    let mut server = place.start();
    for round in 0..3 {
        let once = format!("bulk-{round}");
        let row =
            |number: usize| json!({"long_url": format!("https://example.com/{number}"), "tags": [once]});
        let rows: Vec<Value> = (0..ROWS).map(row).collect();
        let mut first = Connection::open(server.address).await.unwrap();
        let (twin, body, twin_key) = (once.clone(), json!(rows), key.clone());
        let sent =
            tokio::spawn(async move { first.post_once("/api/v1/urls/bulk", &twin_key, &twin, body).await });
        // Batches are on disk one after the other; the kill comes when some are and some are not.
        let tag = format!("/api/v1/urls?limit=1&tag={once}");
        loop {
            let page = server.request(Method::GET, &tag).bearer(&key).send().await;
            if !page.json()["links"].as_array().unwrap().is_empty() {
                break;
            }
        }
        server.kill();
        sent.await.unwrap();
        server = place.start();
        let mut again = Connection::open(server.address).await.unwrap();
        let made = again.post_once("/api/v1/urls/bulk", &key, &once, json!(rows)).await.unwrap();
        let made = made.json();
        let results = made["results"].as_array().unwrap();
        let targets: Vec<&Value> = results.iter().map(|result| &result["link"]["long_url"]).collect();
        assert_eq!(targets, rows.iter().map(|row| &row["long_url"]).collect::<Vec<_>>(), "in their order");
        let codes: HashSet<&str> =
            results.iter().map(|result| result["link"]["short_code"].as_str().unwrap()).collect();
        assert_eq!(codes.len(), ROWS);
        let list = place.ok_json(&["list", "--tag", &once, "--limit", "100000", "--json"]);
        assert_eq!(list.as_array().unwrap().len(), ROWS, "round {round}");
    }
}
