//! Both code generators over crashes and restarts.

use crate::support::{Connection, Place, Terse, Value, json};
use std::collections::HashSet;

/// The value of a code of the counter.
fn number(code: &str) -> u64 {
    const DIGITS: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    code.chars().fold(0, |number, digit| number * 62 + DIGITS.find(digit).unwrap() as u64)
}

/// Creates links in one call; their codes in order.
async fn create(server: &Terse, key: &str, count: usize) -> Vec<String> {
    let rows = vec![json!({"long_url": "https://example.com/"}); count];
    let mut connection = Connection::open(server.address).await.unwrap();
    let made = connection.post("/api/v1/urls/bulk", key, json!(rows)).await.unwrap().json();
    let code = |result: &Value| result["link"]["short_code"].as_str().unwrap().to_owned();
    made["results"].as_array().unwrap().iter().map(code).collect()
}

/// Rounds that end with a kill or a stop; no code comes twice, and all are `good`.
async fn check(generator: &str, good: impl Fn(&str) -> bool) {
    let place = Place::new();
    let mut key = String::new();
    let mut codes = HashSet::new();
    for round in 0..6 {
        let server = place.start_with(&[("TERSE_GENERATOR", generator)]);
        if key.is_empty() {
            key = place.key("load");
        }
        // Calls that a kill cuts off take codes, too.
        let mut cut = Connection::open(server.address).await.unwrap();
        let rows = vec![json!({"long_url": "https://example.com/"}); 300];
        let cut_key = key.clone();
        let cut = tokio::spawn(async move { cut.post("/api/v1/urls/bulk", &cut_key, json!(rows)).await });
        for code in create(&server, &key, 250 * (round % 3)).await {
            assert!(good(&code), "{generator}: {code}");
            assert!(codes.insert(code.clone()), "{generator}: {code} came twice");
        }
        for _ in 0..20 {
            let code = place_one(&server, &key).await;
            assert!(good(&code), "{generator}: {code}");
            assert!(codes.insert(code.clone()), "{generator}: {code} came twice");
        }
        if round % 2 == 0 {
            server.kill();
            let _ = cut.await;
        } else {
            let _ = cut.await;
            assert_eq!(server.terminate(10), Some(0));
        }
    }
    assert_eq!(codes.len(), 6 * 20 + 2 * 250 + 2 * 500);
}

async fn place_one(server: &Terse, key: &str) -> String {
    let mut connection = Connection::open(server.address).await.unwrap();
    let link = json!({"long_url": "https://example.com/"});
    let made = connection.post("/api/v1/urls", key, link).await.unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["short_code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permuted_code_comes_once_and_has_its_length() {
    for length in [6, 7, 8, 9, 10] {
        let generator = format!("permuted:{length}");
        check(&generator, |code| {
            code.len() == length && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counted_code_comes_once() {
    check("counter", |code| !code.starts_with('0') && number(code) > 0).await;
}

#[tokio::test]
async fn the_counter_counts_from_one_and_spells_no_reserved_word() {
    let place = Place::new();
    let server = place.start_with(&[("TERSE_GENERATOR", "counter")]);
    let key = place.key("load");
    for expected in ["1", "2", "3"] {
        assert_eq!(place_one(&server, &key).await, expected);
    }
    assert_eq!(place.ok(&["shorten", "https://example.com/"]).rsplit('/').next().unwrap(), "4");
    let codes = create(&server, &key, 40_010).await;
    assert_eq!(codes[0], "5");
    assert!(codes.iter().is_sorted_by_key(|code| number(code)), "upwards");
    assert!(codes.iter().any(|code| code == "aph") && codes.iter().any(|code| code == "apj"));
    assert!(!codes.iter().any(|code| code == "api"), "a code that is a path of terse's own");
}

#[test]
fn a_folder_keeps_its_generator_and_another_one_is_refused_with_an_explanation() {
    let place = Place::new();
    drop(place.start_with(&[("TERSE_GENERATOR", "counter")]));
    for command in [&["serve"][..], &["list"]] {
        let mut terse = Terse::command(&place.data());
        terse.env("TERSE_LISTEN", "127.0.0.1:0").env("TERSE_GENERATOR", "permuted:8");
        let output = terse.args(command).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{command:?}: {said}");
        for word in ["counter", "permuted:8", "keeps its generator"] {
            assert!(said.contains(word), "{command:?}: {said}");
        }
    }
    let server = place.start();
    assert_eq!(place.ok(&["shorten", "https://example.com/"]).rsplit('/').next().unwrap(), "1");
    drop(server);
    drop(place.start_with(&[("TERSE_GENERATOR", "counter")]));
}
