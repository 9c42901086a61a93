//! `Idempotency-Key`: a request that is repeated is answered again, and does nothing again.

use crate::support::connection::at_once;
use crate::support::wrapped::BreakingLinks;
use crate::support::{TestApp, TestRequest, TestResponse, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use terse::app::Stores;
use terse::http::api::bulk::KEPT_BATCH_LEN;
use terse_model::tenant::{Role, Tier};

const URLS: &str = "/api/v1/urls";
const BULK: &str = "/api/v1/urls/bulk";
const TARGET: &str = "https://example.com/a";
const DAY_MS: i64 = 24 * 3600 * 1000;

trait Keyed {
    fn keyed(self, key: &str) -> Self;
}

impl Keyed for TestRequest {
    fn keyed(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }
}

fn is_replay(answer: &TestResponse) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

async fn links_of(app: &TestApp, key: &str) -> usize {
    let list = app.get(&format!("{URLS}?limit=1000")).bearer(key).send().await.json();
    list["links"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let send = || app.post(URLS).bearer(&key).keyed("one").json(json!({"long_url": TARGET})).send();
    let first = send().await;
    assert_eq!((first.status, is_replay(&first)), (201, false));
    app.clock.advance(5000);
    for _ in 0..2 {
        let again = send().await;
        assert_eq!((again.status, is_replay(&again)), (201, true));
        assert_eq!(again.json(), first.json());
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("content-type"), first.header("content-type"));
    }
    assert_eq!(links_of(&app, &key).await, 1);
    // Whatever happened to the link meanwhile.
    let code = first.json()["short_code"].as_str().unwrap().to_owned();
    assert_eq!(app.delete(&format!("{URLS}/{code}")).bearer(&key).send().await.status, 204);
    assert_eq!(send().await.json(), first.json());
    let app = app.restart(&[]).await;
    let again = app.post(URLS).bearer(&key).keyed("one").json(json!({"long_url": TARGET})).send().await;
    assert!(is_replay(&again), "after a restart: {again:?}");
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let send = |body: &str| {
        app.post(URLS).bearer(&key).keyed("one").body("application/json", body.to_owned()).send()
    };
    assert_eq!(send(r#"{"long_url":"https://example.com/a"}"#).await.status, 201);
    for other in [r#"{"long_url":"https://example.com/b"}"#, r#"{"long_url": "https://example.com/a"}"#] {
        let answer = send(other).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "IDEMPOTENCY_MISMATCH"), "{other}");
    }
    assert!(is_replay(&send(r#"{"long_url":"https://example.com/a"}"#).await));
    assert_eq!(links_of(&app, &key).await, 1);
}

#[tokio::test]
async fn a_key_is_its_callers_own_for_one_path() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    let second_key = app.key("ann").await;
    let body = json!({"long_url": TARGET});
    let mut codes = BTreeSet::new();
    for (path, key, idempotency_key) in [
        (URLS, &ann, "one"),
        (URLS, &ann, "One"),
        (URLS, &ann, "one "),
        (URLS, &bob, "one"),
        ("/api/v1/shorten", &ann, "one"),
        ("/urls", &ann, "one"),
    ] {
        let idempotency_key = idempotency_key.replace(' ', "-");
        let answer = app.post(path).bearer(key).keyed(&idempotency_key).json(body.clone()).send().await;
        assert_eq!((answer.status, is_replay(&answer)), (201, false), "{path} {idempotency_key}");
        assert!(codes.insert(answer.json()["short_code"].as_str().unwrap().to_owned()));
    }
    // It is the user's, whichever API key carries it.
    let answer = app.post(URLS).header("x-api-key", &second_key).keyed("one").json(body).send().await;
    assert!(is_replay(&answer));
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let send = |name: &str| app.post(URLS).bearer(&key).keyed(name).json(json!({"long_url": TARGET})).send();
    for name in ["", &"x".repeat(256), "a\tb"] {
        let answer = send(name).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{name:?}");
        assert_eq!(answer.json()["field"], "Idempotency-Key");
    }
    assert_eq!(links_of(&app, &key).await, 0);
    assert_eq!(send(&"x".repeat(255)).await.status, 201);
}

#[tokio::test]
async fn fifty_twins_at_once_make_one_link() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let twin = |_| app.post(URLS).bearer(&key).keyed("twin").json(json!({"long_url": TARGET}));
    let answers = at_once((0..50).map(twin).collect()).await;
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    assert_eq!(links_of(&app, &key).await, 1);
    // With an alias, where the second would be refused by its twin.
    let named = json!({"long_url": TARGET, "custom_alias": "named"});
    let twin = |_| app.post(URLS).bearer(&key).keyed("named").json(named.clone());
    for answer in at_once((0..50).map(twin).collect()).await {
        assert_eq!((answer.status, answer.json()["short_code"].as_str()), (201, Some("named")));
    }
    let mut rows = vec![json!({"long_url": TARGET}); 20];
    rows.push(named);
    let twin = |_| app.post(BULK).bearer(&key).keyed("bulk").json(json!(rows));
    let answers = at_once((0..10).map(twin).collect()).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(links_of(&app, &key).await, 1 + 1 + 20);
}

#[tokio::test]
async fn a_strangers_repeat_comes_from_the_same_address_and_shows_no_token() {
    let settings = [("anonymous_create", "on"), ("trusted_proxies", "127.0.0.1")];
    let app = TestApp::with(&settings).await;
    let send = |address: &str| {
        let request = app.post(URLS).keyed("one").header("x-forwarded-for", address);
        request.json(json!({"long_url": TARGET})).send()
    };
    let first = send("192.0.2.1").await;
    assert_eq!((first.status, is_replay(&first)), (201, false));
    let mut expected = first.json();
    assert!(expected.as_object_mut().unwrap().remove("manage_token").is_some());
    let again = send("192.0.2.1").await;
    assert!(is_replay(&again));
    assert_eq!(again.json(), expected, "the same without the token");
    let mut codes = BTreeSet::from([expected["short_code"].as_str().unwrap().to_owned()]);
    for other in ["192.0.2.2", "2001:db8:0:1::1"] {
        let answer = send(other).await;
        assert!(!is_replay(&answer), "{other}");
        assert!(codes.insert(answer.json()["short_code"].as_str().unwrap().to_owned()));
    }
    assert!(is_replay(&send("2001:db8:0:1::2").await), "one customer's /64 is one caller");
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let app = TestApp::with(&[("rate_limits", "on")]).await;
    let (ann, bob) = (app.key("ann").await, app.key_of("bob", Role::Member, Tier::Free).await);
    let send = |key: &str, name: &str, body: Value| app.post(URLS).bearer(key).keyed(name).json(body).send();
    // Wrong, then put right under the same key.
    let wrong = json!({"long_url": TARGET, "expires_at": "2027-01-01"});
    assert_eq!(send(&ann, "one", wrong).await.status, 400);
    let right = send(&ann, "one", json!({"long_url": TARGET})).await;
    assert_eq!((right.status, is_replay(&right)), (201, false));
    // Taken, each time anew.
    app.link(&ann, json!({"long_url": TARGET, "custom_alias": "taken"})).await;
    let taken = json!({"long_url": TARGET, "custom_alias": "taken"});
    for _ in 0..2 {
        let answer = send(&ann, "two", taken.clone()).await;
        assert_eq!((answer.status, is_replay(&answer)), (409, false));
    }
    assert_eq!(send(&ann, "two", json!({"long_url": TARGET})).await.status, 201);
    // Limited, then in time.
    for _ in 0..100 {
        app.link(&bob, json!({"long_url": TARGET})).await;
    }
    let body = json!({"long_url": TARGET, "custom_alias": "patience"});
    assert_eq!(send(&bob, "three", body.clone()).await.status, 429);
    app.clock.advance(36_000);
    let answer = send(&bob, "three", body.clone()).await;
    assert_eq!((answer.status, is_replay(&answer)), (201, false));
    // A repeat takes nothing of the limit, which is used up again.
    let again = send(&bob, "three", body).await;
    assert_eq!((again.status, is_replay(&again)), (201, true));
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_then_forgotten() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    // An expiry that lies ahead at first, and is past when the request is repeated.
    let body = json!({"long_url": TARGET, "expires_in": 10, "title": "t"});
    let dated = json!({"long_url": TARGET, "expires_at": "2027-01-15T09:00:00Z"});
    let send = |name: &str, body: &Value| app.post(URLS).bearer(&key).keyed(name).json(body.clone()).send();
    let first = send("one", &body).await;
    let first_dated = send("two", &dated).await;
    assert_eq!((first.status, first_dated.status), (201, 201));
    app.clock.advance(DAY_MS);
    terse::sweeper::sweep(&app.running.app).await.unwrap();
    let again = send("one", &body).await;
    assert_eq!((is_replay(&again), again.json()), (true, first.json()));
    let again = send("two", &dated).await;
    assert_eq!((is_replay(&again), again.status), (true, 201), "{again:?}");
    assert_eq!(again.json(), first_dated.json());
    app.clock.advance(1);
    terse::sweeper::sweep(&app.running.app).await.unwrap();
    let anew = send("one", &body).await;
    assert_eq!((anew.status, is_replay(&anew)), (201, false));
    assert_ne!(anew.json()["short_code"], first.json()["short_code"]);
    assert_eq!(send("two", &dated).await.status, 400);
    // And the key may carry another body by now.
    assert_eq!(send("two", &json!({"long_url": TARGET})).await.status, 201);
}

#[tokio::test]
async fn a_repeated_bulk_call_gets_the_same_results_and_makes_nothing() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": TARGET, "custom_alias": "old"})).await;
    let rows = json!([
        {"long_url": TARGET},
        {"long_url": TARGET, "custom_alias": "mine"},
        {"long_url": TARGET, "custom_alias": "mine"},
        {"long_url": "nonsense"},
        {"action": "update", "short_code": "old", "changes": {"title": "t"}},
        {"action": "delete", "short_code": "old"},
    ]);
    let send = |rows: &Value| app.post(BULK).bearer(&key).keyed("bulk").json(rows.clone()).send();
    let first = send(&rows).await;
    assert_eq!((first.status, is_replay(&first)), (200, false));
    app.clock.advance(1000);
    let again = send(&rows).await;
    assert_eq!((again.status, is_replay(&again)), (200, true));
    assert_eq!(again.json()["results"].as_array().unwrap().len(), 6);
    // Request ids of refusals are the first call's, too.
    assert_eq!(again.body, first.body);
    assert_eq!(links_of(&app, &key).await, 2);
    assert_eq!(send(&json!([{"long_url": TARGET}])).await.code(), "IDEMPOTENCY_MISMATCH");
}

/// A server whose link store breaks when it is told to.
async fn breaking_app(settings: &[(&str, &str)]) -> (TestApp, Arc<BreakingLinks>) {
    let mut breaking = None;
    let app = TestApp::with_stores(settings, |stores| {
        let links = BreakingLinks::around(stores.links.clone());
        breaking = Some(links.clone());
        Stores { links, ..stores }
    })
    .await;
    (app, breaking.unwrap())
}

#[tokio::test]
async fn a_create_that_failed_may_be_repeated_under_its_key() {
    let (app, breaking) = breaking_app(&[]).await;
    let key = app.key("ann").await;
    let body = json!({"long_url": TARGET, "custom_alias": "mine"});
    let send = || app.post(URLS).bearer(&key).keyed("one").json(body.clone()).send();
    breaking.break_after(0);
    assert_eq!(send().await.code(), "UNAVAILABLE");
    assert_eq!(links_of(&app, &key).await, 0);
    breaking.mend();
    let made = send().await;
    assert_eq!((made.status, is_replay(&made)), (201, false));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_by_the_repeat() {
    let (app, breaking) = breaking_app(&[]).await;
    let key = app.key("ann").await;
    let body = json!({"long_url": TARGET, "custom_alias": "mine"});
    let send = || app.post(URLS).bearer(&key).keyed("one").json(body.clone()).send();
    breaking.lose_next_answer();
    assert_eq!(send().await.code(), "UNAVAILABLE");
    let again = send().await;
    assert_eq!((again.status, is_replay(&again)), (201, true), "{again:?}");
    assert_eq!(app.follow("mine").await.header("location"), Some(TARGET));
    let rows = json!([{"long_url": TARGET, "custom_alias": "row"}, {"long_url": TARGET}]);
    let send = || app.post(BULK).bearer(&key).keyed("two").json(rows.clone()).send();
    breaking.lose_next_answer();
    assert_eq!(send().await.status, 503);
    let again = send().await;
    assert!(is_replay(&again));
    assert!(again.json()["results"].as_array().unwrap().iter().all(|result| result["status"] == 201));
    assert_eq!(links_of(&app, &key).await, 3);
    // A change that was made without an answer is what is served.
    breaking.lose_next_answer();
    let change = json!({"long_url": "https://example.com/b"});
    let changed = app.patch(&format!("{URLS}/mine")).bearer(&key).json(change).send().await;
    assert_eq!(changed.status, 503);
    assert_eq!(app.follow("mine").await.header("location"), Some("https://example.com/b"));
}

#[tokio::test]
async fn a_bulk_call_that_broke_off_goes_on_where_it_stopped() {
    const ROWS: usize = 2 * KEPT_BATCH_LEN + 500;
    let (app, breaking) = breaking_app(&[("rate_limits", "on"), ("store_batch_len", "700")]).await;
    // 10,000 an hour: neither the rows that were made nor the repeats count twice.
    let key = app.key_of("ann", Role::Member, Tier::Bulk).await;
    let url = |number: usize| format!("https://example.com/{number}");
    let rows: Vec<_> = (0..ROWS).map(|number| json!({"long_url": url(number)})).collect();
    let send = || app.post(BULK).bearer(&key).keyed("long").json(json!(rows)).send();
    breaking.break_after(2);
    let broken = send().await;
    assert_eq!((broken.status, broken.code().as_str()), (503, "UNAVAILABLE"));
    assert!(broken.header("retry-after").is_some());
    let list = app.get(&format!("{URLS}?limit=1")).bearer(&key).send().await.json();
    assert_eq!(list["links"][0]["long_url"], url(2 * KEPT_BATCH_LEN - 1), "two batches are there");
    let still_broken = send().await;
    assert_eq!(still_broken.status, 503);
    breaking.mend();
    let whole = send().await;
    assert_eq!((whole.status, is_replay(&whole)), (200, false));
    let results = whole.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), ROWS);
    let mut codes = BTreeSet::new();
    for (number, result) in results.iter().enumerate() {
        assert_eq!((&result["status"], &result["link"]["long_url"]), (&json!(201), &json!(url(number))));
        assert!(codes.insert(result["link"]["short_code"].as_str().unwrap().to_owned()));
    }
    let again = send().await;
    assert!(is_replay(&again));
    assert_eq!(again.body, whole.body);
    // All of them, each once.
    let (mut listed, mut query) = (0, "limit=1000".to_owned());
    loop {
        let page = app.get(&format!("{URLS}?{query}")).bearer(&key).send().await.json();
        listed += page["links"].as_array().unwrap().len();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=1000&cursor={cursor}");
    }
    assert_eq!(listed, ROWS);
}

#[tokio::test]
async fn what_admins_make_is_made_once_too() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    for (path, body, expected) in [
        ("/api/v1/keys", json!({"name": "k", "user": "ann", "expires_at": "2027-01-15T09:00:00Z"}), 201),
        ("/api/v1/users", json!({"name": "bob", "tier": "bulk"}), 200),
        ("/api/v1/domains", json!({"name": "go.example.com"}), 201),
    ] {
        let send = || app.post(path).bearer(&admin).keyed("one").json(body.clone()).send();
        let first = send().await;
        assert_eq!((first.status, is_replay(&first)), (expected, false), "{path}: {first:?}");
        let mut shown = first.json();
        // The key itself is shown once.
        assert_eq!(shown.as_object_mut().unwrap().remove("key").is_some(), path == "/api/v1/keys");
        app.clock.advance(3_600_000);
        let again = send().await;
        assert_eq!((again.status, is_replay(&again)), (expected, true), "{path}");
        assert_eq!(again.json(), shown);
        let other = app.post(path).bearer(&admin).keyed("one").json(json!({"name": "other"})).send().await;
        assert_eq!(other.status, 422, "{path}");
    }
    let keys = app.get("/api/v1/keys").bearer(&admin).send().await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2, "the admin's and ann's");
}
