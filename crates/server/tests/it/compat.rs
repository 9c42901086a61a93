//! POST /urls and /api/v1/shorten: the same link by other names.

use crate::support::connection::announce;
use crate::support::{TestApp, Value, json};

const PATHS: [&str; 2] = ["/urls", "/api/v1/shorten"];
const TARGET: &str = "https://example.com/a";

#[tokio::test]
async fn a_target_and_an_alias_have_several_names() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let mut number = 0;
    for path in PATHS {
        for (target, alias, style) in [
            ("long_url", "custom_alias", "snake"),
            ("original_url", "custom_alias", "snake"),
            ("url", "alias", "snake"),
            ("longUrl", "customAlias", "camel"),
            ("originalUrl", "alias", "camel"),
            ("url", "customAlias", "camel"),
            ("long_url", "customAlias", "camel"),
        ] {
            number += 1;
            let name = format!("alias-{number}");
            let made = app.post(path).bearer(&key).json(json!({target: TARGET, alias: name})).send().await;
            assert_eq!(made.status, 201, "{target} {alias}: {made:?}");
            let answer = made.json();
            let (code, long_url, other) = match style {
                "snake" => (&answer["short_code"], &answer["long_url"], "shortCode"),
                _ => (&answer["shortCode"], &answer["longUrl"], "short_code"),
            };
            assert_eq!((code, long_url), (&json!(name), &json!(TARGET)), "{target} {alias}");
            assert!(answer.get(other).is_none(), "{answer}");
            let short_url = format!("http://{}/{name}", app.address());
            assert_eq!(made.header("location"), Some(short_url.as_str()));
            assert_eq!(app.follow(&name).await.header("location"), Some(TARGET));
        }
    }
}

#[tokio::test]
async fn in_camel_case_the_answer_is_too() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let fields = json!({
        "longUrl": TARGET, "customAlias": "camel", "expiresIn": 60, "redirectType": "permanent", "clickLimit": 5,
        "startsAt": "2027-01-01", "fallbackUrl": "https://example.com/f", "forwardQuery": true,
        "tags": ["snake_tag"], "title": "a_title", "notes": "some_notes",
    });
    let answer = app.post("/urls").bearer(&key).json(fields).send().await.json();
    let expected = json!({
        "shortUrl": format!("http://{}/camel", app.address()),
        "shortCode": "camel",
        "domain": "127.0.0.1",
        "longUrl": TARGET,
        "createdAt": "2027-01-15T08:00:00.000Z",
        "updatedAt": "2027-01-15T08:00:00.000Z",
        "expiresAt": "2027-01-15T08:01:00.000Z",
        "redirectType": 301,
        "revision": 1,
        "state": "active",
        "enabled": true,
        "title": "a_title",
        "tags": ["snake_tag"],
        "notes": "some_notes",
        "hasPassword": false,
        "clickLimit": 5,
        "clicksUsed": 0,
        "startsAt": "2027-01-01T00:00:00.000Z",
        "fallbackUrl": "https://example.com/f",
        "forwardQuery": true,
        "clicks": 0,
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn mistakes_are_answered_as_everywhere() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": TARGET, "custom_alias": "taken"})).await;
    for path in PATHS {
        for (fields, expected, code, field) in [
            (json!({}), 400, "VALIDATION_ERROR", Some("long_url")),
            (json!({"url": "nonsense"}), 400, "INVALID_URL", Some("long_url")),
            (json!({"url": 5}), 400, "VALIDATION_ERROR", Some("long_url")),
            (json!({"url": TARGET, "alias": "a"}), 400, "VALIDATION_ERROR", Some("custom_alias")),
            (json!({"url": TARGET, "alias": "admin"}), 400, "ALIAS_RESERVED", Some("custom_alias")),
            (json!({"url": TARGET, "alias": "taken"}), 409, "ALIAS_TAKEN", Some("custom_alias")),
            (json!({"url": TARGET, "expiresAt": "2027-01-01"}), 400, "VALIDATION_ERROR", Some("expires_at")),
            (json!({"url": TARGET, "colour": 1}), 400, "VALIDATION_ERROR", Some("colour")),
            (json!([]), 400, "VALIDATION_ERROR", None),
            (json!("https://example.com/"), 400, "VALIDATION_ERROR", None),
        ] {
            let answer = app.post(path).bearer(&key).json(fields.clone()).send().await;
            assert_eq!((answer.status, answer.code().as_str()), (expected, code), "{path}: {fields}");
            assert_eq!(answer.json()["field"].as_str(), field, "{path}: {fields}");
        }
        let form =
            app.post(path).bearer(&key).body("application/x-www-form-urlencoded", "url=x").send().await;
        assert_eq!((form.status, form.code().as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"));
        assert_eq!(announce(app.address(), path, Some(&key), (256 << 10) + 1).await, 413);
        let wrong = app.post(path).bearer("terse_wrong").json(json!({"url": TARGET})).send().await;
        assert_eq!((wrong.status, wrong.code().as_str()), (401, "UNAUTHORIZED"));
    }
}

#[tokio::test]
async fn a_field_that_is_sent_twice_by_any_name_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for body in [
        r#"{"url": "https://a.example/", "long_url": "https://b.example/"}"#,
        r#"{"original_url": "https://a.example/", "url": "https://b.example/"}"#,
        r#"{"longUrl": "https://a.example/", "long_url": "https://b.example/"}"#,
        r#"{"url": "https://a.example/", "url": "https://b.example/"}"#,
        r#"{"url": "https://a.example/", "alias": "one-a", "custom_alias": "one-b"}"#,
        r#"{"url": "https://a.example/", "alias": "one-a", "customAlias": "one-a"}"#,
        r#"{"url": "https://a.example/", "title": "a", "title": "b"}"#,
    ] {
        for path in PATHS {
            let answer = app.post(path).bearer(&key).body("application/json", body).send().await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{body}");
        }
    }
    let list = app.get("/api/v1/urls").bearer(&key).send().await.json();
    assert_eq!(list["links"], json!([]));
}

#[tokio::test]
async fn a_repeat_keeps_its_style_and_strangers_get_a_token() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let send = || {
        let request = app.post("/urls").bearer(&key).header("idempotency-key", "one");
        request.json(json!({"longUrl": TARGET})).send()
    };
    let (first, again) = (send().await, send().await);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());
    assert!(first.json()["shortUrl"].is_string());
    let anonymous = app.post("/urls").json(json!({"longUrl": TARGET})).send().await.json();
    assert!(anonymous["manageToken"].as_str().unwrap().starts_with("mt_"), "{anonymous}");
    assert_eq!(anonymous.get("manage_token"), None::<&Value>);
}
