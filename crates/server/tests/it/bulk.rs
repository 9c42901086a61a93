//! POST /api/v1/urls/bulk: many rows, each with its own outcome.

use crate::support::connection::announce;
use crate::support::{TestApp, TestResponse, Value, json};
use terse_model::tenant::{Role, Tier};

const BULK: &str = "/api/v1/urls/bulk";
const TARGET: &str = "https://example.com/a";

/// The results of a call that was answered.
#[track_caller]
fn results(answer: &TestResponse) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"].as_array().unwrap().clone()
}

/// Status and, of a refusal, the code of each result: `201 409:ALIAS_TAKEN`.
#[track_caller]
fn outcomes(answer: &TestResponse) -> String {
    let outcome = |result: &Value| match result["error"]["code"].as_str() {
        Some(code) => {
            assert_eq!(result["status"], result["error"]["status"]);
            assert!(result.get("link").is_none(), "{result}");
            format!("{}:{code}", result["status"])
        }
        None => result["status"].to_string(),
    };
    results(answer).iter().map(outcome).collect::<Vec<_>>().join(" ")
}

async fn send(app: &TestApp, key: &str, rows: Value) -> TestResponse {
    app.post(BULK).bearer(key).json(rows).send().await
}

async fn send_lines(app: &TestApp, key: &str, lines: impl Into<Vec<u8>>) -> TestResponse {
    app.post(BULK).bearer(key).body("application/x-ndjson", lines.into()).send().await
}

fn row(alias: &str) -> Value {
    json!({"long_url": TARGET, "custom_alias": alias})
}

async fn links_of(app: &TestApp, key: &str) -> usize {
    let list = app.get("/api/v1/urls?limit=1000").bearer(key).send().await.json();
    list["links"].as_array().unwrap().len()
}

#[tokio::test]
async fn each_row_has_its_own_outcome_in_the_order_asked() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, row("taken")).await;
    let rows = json!([
        {"long_url": "https://example.com/1"},
        row("taken"),
        {"long_url": "nonsense"},
        row("mine"),
        row("mine"),
        row("api"),
        {"long_url": TARGET, "colour": "red"},
        {"custom_alias": "aimless"},
        5,
        null,
        "text",
        ["https://example.com/"],
        [],
        {"long_url": TARGET, "title": "\"action\"", "tags": ["action"]},
        {"long_url": "https://example.com/2", "expires_at": "2030-01-01", "password": "p"},
    ]);
    let answer = send(&app, &key, rows).await;
    let expected = "201 409:ALIAS_TAKEN 400:INVALID_URL 201 409:ALIAS_TAKEN 400:ALIAS_RESERVED \
                    400:VALIDATION_ERROR 400:VALIDATION_ERROR 400:VALIDATION_ERROR 400:VALIDATION_ERROR \
                    400:VALIDATION_ERROR 400:VALIDATION_ERROR 400:VALIDATION_ERROR 201 201";
    assert_eq!(outcomes(&answer), expected);
    let results = results(&answer);
    assert_eq!(results[0]["link"]["long_url"], "https://example.com/1");
    assert_eq!(results[2]["error"]["field"], "long_url");
    assert_eq!(results[3]["link"]["short_code"], "mine");
    assert_eq!(results[13]["link"]["tags"], json!(["action"]));
    assert_eq!(results[14]["link"]["has_password"], true);
    for made in [0, 3, 13, 14] {
        let code = results[made]["link"]["short_code"].as_str().unwrap();
        let read = app.get(&format!("/api/v1/urls/{code}")).bearer(&key).send().await.json();
        assert_eq!(read, results[made]["link"], "the same as a read says");
    }
    assert_eq!(links_of(&app, &key).await, 5);
}

#[tokio::test]
async fn the_order_is_kept_over_many_batches() {
    const ROWS: usize = 2_500;
    let app = TestApp::with(&[("store_batch_len", "999")]).await;
    let key = app.key("ann").await;
    let url = |number: usize| format!("https://example.com/{number}");
    let rows: Vec<_> = (0..ROWS)
        .map(|number| match number % 100 {
            99 => json!({"long_url": "nonsense"}),
            _ => json!({"long_url": url(number)}),
        })
        .collect();
    let results = results(&send(&app, &key, json!(rows)).await);
    assert_eq!(results.len(), ROWS);
    for (number, result) in results.iter().enumerate() {
        match number % 100 {
            99 => assert_eq!(result["error"]["code"], "INVALID_URL"),
            _ => assert_eq!(result["link"]["long_url"], url(number)),
        }
    }
    let code = results[ROWS - 500]["link"]["short_code"].as_str().unwrap();
    assert_eq!(app.follow(code).await.header("location"), Some(url(ROWS - 500).as_str()));
}

#[tokio::test]
async fn only_what_was_changed_is_counted() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, row("one")).await;
    let metrics = &app.running.app.metrics;
    let counts = || (metrics.links_created.get(), metrics.links_changed.get(), metrics.links_deleted.get());
    let update = |changes: Value| json!({"action": "update", "short_code": "one", "changes": changes});
    let delete = json!({"action": "delete", "short_code": "one"});
    results(&send(&app, &key, json!([update(json!({})), update(json!({"title": "t"}))])).await);
    assert_eq!(counts(), (1, 1, 0));
    results(&send(&app, &key, json!([delete, delete])).await);
    assert_eq!(counts(), (1, 1, 1));
}

#[tokio::test]
async fn rows_change_and_delete_links_too() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    for alias in ["one", "two", "three"] {
        app.link(&ann, row(alias)).await;
    }
    app.link(&bob, row("bobs")).await;
    let update =
        |code: &str, changes: Value| json!({"action": "update", "short_code": code, "changes": changes});
    let based_on = |code: &str, revision: u32| json!({"action": "update", "short_code": code, "revision": revision, "changes": {"title": "t"}});
    let delete = |code: &str| json!({"action": "delete", "short_code": code});
    let rows = json!([
        update("one", json!({"long_url": "https://example.com/b", "title": "t"})),
        based_on("one", 1),
        based_on("one", 2),
        based_on("two", 1),
        delete("three"),
        delete("three"),
        update("three", json!({"title": "t"})),
        row("three"),
        // What a call made, the same call can change and delete.
        row("four"),
        update("four", json!({"password": "p"})),
        delete("four"),
        update("bobs", json!({"title": "mine"})),
        delete("bobs"),
        update("nothing", json!({})),
        delete("nothing"),
        update("one", json!({"colour": "red"})),
        update("one", json!({"long_url": null})),
        update("one", json!(["https://evil.example/"])),
        update("a.b", json!({})),
        json!({"action": "update", "short_code": "one"}),
        json!({"action": "update", "changes": {}}),
        json!({"action": "delete"}),
        json!({"action": "delete", "short_code": "one", "domian": "other.example"}),
        json!({"action": "delete", "short_code": "one", "domain": "other.example"}),
        json!({"action": "destroy", "short_code": "one"}),
        json!({"action": null, "short_code": "one"}),
        json!({"action": "delete", "long_url": TARGET}),
    ]);
    let answer = send(&app, &ann, rows).await;
    let expected = [
        "200 412:REVISION_CONFLICT 200 200",
        "204 204 410:URL_DELETED 409:ALIAS_TAKEN",
        "201 200 204",
        "403:FORBIDDEN 403:FORBIDDEN 404:URL_NOT_FOUND 404:URL_NOT_FOUND",
        &["400:VALIDATION_ERROR"; 12].join(" "),
    ];
    assert_eq!(outcomes(&answer), expected.join(" "));
    let results = results(&answer);
    assert_eq!(results[0]["link"]["revision"], 2);
    assert_eq!(results[9]["link"]["has_password"], true);
    assert_eq!(app.follow("one").await.header("location"), Some("https://example.com/b"));
    assert_eq!(app.follow("three").await.code(), "URL_DELETED");
    assert_eq!(app.follow("four").await.code(), "URL_DELETED");
    assert_eq!(app.follow("bobs").await.status, 302);
}

#[tokio::test]
async fn a_change_in_bulk_is_served_at_once() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, row("warm")).await;
    assert_eq!(app.follow("warm").await.header("location"), Some(TARGET));
    let changes = json!({"long_url": "https://example.com/b"});
    let answer =
        send(&app, &key, json!([{"action": "update", "short_code": "warm", "changes": changes}])).await;
    assert_eq!(outcomes(&answer), "200");
    assert_eq!(app.follow("warm").await.header("location"), Some("https://example.com/b"));
    let answer = send(&app, &key, json!([{"action": "delete", "short_code": "warm"}])).await;
    assert_eq!(outcomes(&answer), "204");
    assert_eq!(app.follow("warm").await.code(), "URL_DELETED");
}

#[tokio::test]
async fn a_link_made_in_bulk_is_served_at_once_though_its_code_was_known_to_be_free() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    assert_eq!(app.follow("first").await.status, 404);
    assert_eq!(app.follow("second").await.status, 404);
    assert_eq!(outcomes(&send(&app, &key, json!([row("first"), row("second")])).await), "201 201");
    assert_eq!(app.follow("first").await.status, 302);
    assert_eq!(app.follow("second").await.status, 302);
}

#[tokio::test]
async fn of_lines_a_malformed_one_fails_alone() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let mut lines =
        format!("{}\n\n{{\"long_url\":\n  {}\r\nnonsense\n", row("first"), row("second")).into_bytes();
    lines.extend_from_slice(b"{\"long_url\": \"https://example.com/\xff\"}\n");
    lines.extend_from_slice(row("third").to_string().as_bytes());
    let answer = send_lines(&app, &key, lines).await;
    let expected = "201 400:VALIDATION_ERROR 201 400:VALIDATION_ERROR 400:VALIDATION_ERROR 201";
    assert_eq!(outcomes(&answer), expected, "an empty line is none");
    assert_eq!(links_of(&app, &key).await, 3);
    for kind in ["application/ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8"] {
        let answer =
            app.post(BULK).bearer(&key).body(kind, json!({"long_url": TARGET}).to_string()).send().await;
        assert_eq!(outcomes(&answer), "201", "{kind}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_list_is_refused_as_a_whole() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let good = row("never").to_string();
    for (kind, body, expected, code) in [
        ("application/json", format!("[{good}, nonsense]"), 400, "VALIDATION_ERROR"),
        ("application/json", format!("[{good}"), 400, "VALIDATION_ERROR"),
        ("application/json", format!("[{good}] []"), 400, "VALIDATION_ERROR"),
        ("application/json", good.clone(), 400, "VALIDATION_ERROR"),
        ("application/json", String::new(), 400, "VALIDATION_ERROR"),
        ("text/csv", good.clone(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("text/plain", format!("[{good}]"), 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        let answer = app.post(BULK).bearer(&key).body(kind, body.clone()).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (expected, code), "{body}");
    }
    assert_eq!(links_of(&app, &key).await, 0);
    for empty in [send(&app, &key, json!([])).await, send_lines(&app, &key, "\n\n").await] {
        assert_eq!((empty.status, empty.json()), (200, json!({"results": []})));
    }
}

#[tokio::test]
async fn a_call_is_bounded_in_rows_and_bytes() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let array = format!("[{}0]", "0,".repeat(100_000));
    let lines = "0\n".repeat(100_001);
    for (what, kind, body) in [("rows", "application/json", array), ("lines", "application/x-ndjson", lines)]
    {
        let answer = app.post(BULK).bearer(&key).body(kind, body).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"), "{what}");
    }
    assert_eq!(announce(app.address(), BULK, Some(&key), (64 << 20) + 1).await, 413);
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let app = TestApp::start().await;
    for len in [60_000_000, 70_000_000] {
        assert_eq!(announce(app.address(), BULK, None, len).await, 401);
    }
}

#[tokio::test]
async fn creates_beyond_the_limit_are_refused_in_their_own_rows() {
    let app = TestApp::with(&[("rate_limits", "on")]).await;
    let key = app.key_of("ann", Role::Member, Tier::Free).await;
    app.link(&key, row("first")).await;
    // 99 are left of 100. Wrong rows, and those that create nothing, take none.
    let mut rows = vec![json!({"long_url": "nonsense"}); 20];
    rows.extend(
        (0..105).map(|number| json!({"long_url": TARGET, "tags": ["action"], "title": number.to_string()})),
    );
    rows.push(json!({"action": "update", "short_code": "first", "changes": {"title": "t"}}));
    rows.push(json!({"long_url": "nonsense"}));
    let answer = send(&app, &key, json!(rows)).await;
    let mut expected = vec!["400:INVALID_URL"; 20];
    expected.extend(["201"; 99]);
    expected.extend(["429:RATE_LIMIT_EXCEEDED"; 6]);
    expected.extend(["200", "400:INVALID_URL"]);
    assert_eq!(outcomes(&answer), expected.join(" "));
    let refused = &results(&answer)[20 + 99];
    assert!(refused["error"]["detail"].as_str().unwrap().ends_with("try again in 36 s"), "{refused}");
    assert_eq!(answer.header("ratelimit"), Some("\"default\";r=0;t=36"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=100;w=3600"));
    assert_eq!(links_of(&app, &key).await, 100);
    let single = app.post("/api/v1/urls").bearer(&key).json(json!({"long_url": TARGET})).send().await;
    assert_eq!((single.status, single.header("retry-after")), (429, Some("36")));
    // An hour's hundredth later there is one more.
    app.clock.advance(36_000);
    let two = json!([{"long_url": TARGET}, {"long_url": TARGET}]);
    assert_eq!(outcomes(&send(&app, &key, two).await), "201 429:RATE_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn bulk_needs_a_key_that_may_write() {
    let app = TestApp::start().await;
    let answer = app.post(BULK).json(json!([{"long_url": TARGET}])).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
    let admin = app.admin_key().await;
    let reader = json!({"name": "reader", "user": "ann", "scopes": ["links:read"]});
    let reader = app.post("/api/v1/keys").bearer(&admin).json(reader).send().await.json();
    let answer = send(&app, reader["key"].as_str().unwrap(), json!([{"long_url": TARGET}])).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"));
}

#[tokio::test]
async fn equal_links_of_one_call_are_found_too() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let wanted = json!({"long_url": TARGET, "find_if_exists": true});
    let answer = send(&app, &key, json!([wanted, wanted, {"long_url": TARGET}])).await;
    assert_eq!(outcomes(&answer), "201 200 201");
    let results = results(&answer);
    assert_eq!(results[0]["link"]["short_code"], results[1]["link"]["short_code"]);
    assert_eq!(links_of(&app, &key).await, 2);
}
