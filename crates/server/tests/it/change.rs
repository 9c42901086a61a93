//! PATCH /api/v1/urls/{code}: merge patches, revisions, and who may.

use crate::support::connection::{Connection, at_once};
use crate::support::{TestApp, Value, json};

const URLS: &str = "/api/v1/urls";
const TARGET: &str = "https://example.com/a";

fn path(code: &str) -> String {
    format!("{URLS}/{code}")
}

/// A link with these fields beside a target.
async fn link(app: &TestApp, key: &str, fields: Value) -> String {
    let mut request = json!({"long_url": TARGET});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    app.link(key, request).await
}

async fn read(app: &TestApp, key: &str, code: &str) -> Value {
    let answer = app.get(&path(code)).bearer(key).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_change_touches_what_it_names_and_null_clears() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let all = json!({
        "expires_at": "2030-01-01", "redirect_type": 307, "title": "t", "tags": ["a"], "notes": "n",
        "password": "p", "click_limit": 5, "starts_at": "2029-01-01", "fallback_url": "https://example.com/f",
        "forward_query": true, "enabled": false,
    });
    let set = |field: &str, value: Value, shown: &str, expected: Value| {
        (field.to_owned(), value, shown.to_owned(), expected)
    };
    let cases = [
        // While the clock has moved by a millisecond.
        set("expires_in", json!(100_000_000), "expires_at", json!("2030-03-17T17:46:40.001Z")),
        set("long_url", json!("https://EXAMPLE.com"), "long_url", json!("https://example.com/")),
        set("expires_at", json!("2031-01-01"), "expires_at", json!("2031-01-01T00:00:00.000Z")),
        set("expires_at", Value::Null, "expires_at", Value::Null),
        set("expires_in", Value::Null, "expires_at", Value::Null),
        set("redirect_type", json!("permanent"), "redirect_type", json!(301)),
        set("redirect_type", Value::Null, "redirect_type", json!(302)),
        set("title", json!("u"), "title", json!("u")),
        set("title", Value::Null, "title", Value::Null),
        set("tags", json!(["b", "c"]), "tags", json!(["b", "c"])),
        set("tags", json!([]), "tags", json!([])),
        set("tags", Value::Null, "tags", json!([])),
        set("notes", json!("m"), "notes", json!("m")),
        set("notes", Value::Null, "notes", Value::Null),
        set("password", Value::Null, "has_password", json!(false)),
        set("click_limit", json!(6), "click_limit", json!(6)),
        set("click_limit", Value::Null, "click_limit", Value::Null),
        set("starts_at", json!("2029-06-01"), "starts_at", json!("2029-06-01T00:00:00.000Z")),
        set("starts_at", Value::Null, "starts_at", Value::Null),
        set("fallback_url", json!("https://example.com/g"), "fallback_url", json!("https://example.com/g")),
        set("fallback_url", Value::Null, "fallback_url", Value::Null),
        set("forward_query", json!(false), "forward_query", json!(false)),
        set("forward_query", Value::Null, "forward_query", json!(false)),
        set("enabled", json!(true), "enabled", json!(true)),
        set("enabled", Value::Null, "enabled", json!(true)),
    ];
    for (field, value, shown, expected) in cases {
        let code = link(&app, &key, all.clone()).await;
        let mut wanted = read(&app, &key, &code).await;
        app.clock.advance(1);
        let change = json!({field.as_str(): value});
        let changed = app.patch(&path(&code)).bearer(&key).json(change.clone()).send().await;
        assert_eq!(changed.status, 200, "{change}: {changed:?}");
        let answer = changed.json();
        assert_eq!(answer[&shown], expected, "{change}");
        assert_eq!(answer["revision"], 2, "{change}");
        assert!(answer["updated_at"].as_str() > answer["created_at"].as_str(), "{answer}");
        assert_eq!(read(&app, &key, &code).await, answer);
        for moving in [shown.as_str(), "revision", "updated_at", "state", "clicks_used"] {
            wanted[moving] = answer[moving].clone();
        }
        if answer.get("clicks_used").is_none() {
            wanted.as_object_mut().unwrap().remove("clicks_used");
        }
        assert_eq!(answer, wanted, "{change} changes nothing else");
    }
}

#[tokio::test]
async fn a_change_without_effect_is_no_new_revision() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({"title": "t"})).await;
    let before = read(&app, &key, &code).await;
    app.clock.advance(1000);
    for change in [json!({}), json!({"title": "t"}), json!({"notes": null}), json!({"tags": null})] {
        let changed = app.patch(&path(&code)).bearer(&key).json(change).send().await;
        assert_eq!((changed.status, changed.header("etag")), (200, Some("\"1\"")));
        assert_eq!(changed.json(), before);
    }
}

#[tokio::test]
async fn a_wrong_change_changes_nothing() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({"starts_at": "2029-01-01", "expires_at": "2030-01-01"})).await;
    let before = read(&app, &key, &code).await;
    for (change, error, field) in [
        (json!({"long_url": null}), "VALIDATION_ERROR", Some("long_url")),
        (json!({"long_url": "example.com"}), "INVALID_URL", Some("long_url")),
        (json!({"fallback_url": "ftp://x/"}), "INVALID_URL", Some("fallback_url")),
        (json!({"title": "new", "tags": ["t".repeat(65)]}), "VALIDATION_ERROR", Some("tags")),
        (json!({"title": ["a"]}), "VALIDATION_ERROR", Some("title")),
        (json!({"redirect_type": 303}), "VALIDATION_ERROR", Some("redirect_type")),
        (json!({"expires_at": "2027-01-15"}), "VALIDATION_ERROR", Some("expires_at")),
        (json!({"expires_in": 0}), "VALIDATION_ERROR", Some("expires_in")),
        (json!({"expires_at": "2030-01-01", "expires_in": 60}), "VALIDATION_ERROR", Some("expires_in")),
        (json!({"expires_at": null, "expires_in": 60}), "VALIDATION_ERROR", Some("expires_in")),
        (json!({"click_limit": 0}), "VALIDATION_ERROR", Some("click_limit")),
        (json!({"password": ""}), "VALIDATION_ERROR", Some("password")),
        (json!({"enabled": "no"}), "VALIDATION_ERROR", Some("enabled")),
        // Against what is stored.
        (json!({"starts_at": "2030-01-01"}), "VALIDATION_ERROR", Some("starts_at")),
        (json!({"expires_at": "2028-01-01"}), "VALIDATION_ERROR", Some("starts_at")),
        // What can't be changed.
        (json!({"custom_alias": "other"}), "VALIDATION_ERROR", Some("custom_alias")),
        (json!({"short_code": "other"}), "VALIDATION_ERROR", Some("short_code")),
        (json!({"domain": "other.example"}), "VALIDATION_ERROR", Some("domain")),
        (json!({"revision": 1}), "VALIDATION_ERROR", Some("revision")),
        (json!([]), "VALIDATION_ERROR", None),
        (json!(["https://evil.example/"]), "VALIDATION_ERROR", None),
        (json!(null), "VALIDATION_ERROR", None),
        (json!("title"), "VALIDATION_ERROR", None),
    ] {
        let answer = app.patch(&path(&code)).bearer(&key).json(change.clone()).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, error), "{change}");
        assert_eq!(answer.json()["field"].as_str(), field, "{change}");
    }
    let twice = r#"{"title": "a", "title": "b"}"#;
    assert_eq!(app.patch(&path(&code)).bearer(&key).body("application/json", twice).send().await.status, 400);
    assert_eq!(app.patch(&path(&code)).bearer(&key).send().await.status, 400, "an empty body");
    assert_eq!(read(&app, &key, &code).await, before);
}

#[tokio::test]
async fn a_merge_patch_has_its_own_type_and_may_be_plain_json() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({})).await;
    for (kind, expected) in [
        ("application/merge-patch+json", 200),
        ("application/json", 200),
        ("application/json-patch+json", 415),
        ("text/plain", 415),
        ("application/x-ndjson", 415),
    ] {
        let answer = app.patch(&path(&code)).bearer(&key).body(kind, r#"{"title":"t"}"#).send().await;
        assert_eq!(answer.status, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_change_may_say_which_revision_it_is_based_on() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({})).await;
    let etag = app.get(&path(&code)).bearer(&key).send().await;
    assert_eq!(etag.header("etag"), Some("\"1\""));
    let change = |based_on: Option<&str>, title: &str| {
        let request = app.patch(&path(&code)).bearer(&key).json(json!({"title": title}));
        match based_on {
            Some(tag) => request.header("if-match", tag),
            None => request,
        }
    };
    let changed = change(Some("\"1\""), "second").send().await;
    assert_eq!((changed.status, changed.header("etag")), (200, Some("\"2\"")));
    for stale in ["\"1\"", "\"0\"", "\"3\"", "\"4294967295\""] {
        let refused = change(Some(stale), "stale").send().await;
        assert_eq!((refused.status, refused.code().as_str()), (412, "REVISION_CONFLICT"), "{stale}");
    }
    for malformed in ["2", "", "\"\"", "\"two\"", "\"-2\"", "\"+2\"", "\"2", "\"2\", two", "w/\"2\""] {
        let refused = change(Some(malformed), "malformed").send().await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "VALIDATION_ERROR"), "{malformed}");
        assert_eq!(refused.json()["field"], "If-Match");
    }
    assert_eq!(read(&app, &key, &code).await["title"], "second");
    // One of several will do, also if a proxy has weakened it.
    assert_eq!(change(Some("\"9\", W/\"2\""), "second").send().await.status, 200);
    assert_eq!(change(Some("\"8\", \"9\""), "stale").send().await.status, 412);
    let any = change(Some("*"), "third").send().await;
    assert_eq!((any.status, any.header("etag")), (200, Some("\"3\"")));
    // Without a revision the last writer wins.
    assert_eq!(change(None, "fourth").send().await.header("etag"), Some("\"4\""));
    assert_eq!(change(None, "fifth").send().await.json()["title"], "fifth");
}

#[tokio::test]
async fn a_link_is_changed_by_its_owner_and_by_admins() {
    let app = TestApp::start().await;
    let (ann, bob, admin) = (app.key("ann").await, app.key("bob").await, app.admin_key().await);
    let code = link(&app, &ann, json!({})).await;
    let change = json!({"title": "changed"});
    for (key, expected, error) in [
        (Some(&bob), 403, "FORBIDDEN"),
        (None, 401, "UNAUTHORIZED"),
        (Some(&"terse_wrong".to_owned()), 401, "UNAUTHORIZED"),
    ] {
        for (request, what) in [
            (app.patch(&path(&code)).json(change.clone()), "change"),
            (app.patch(&path(&code)).json(json!({"password": "mine"})), "set a password"),
            (app.get(&path(&code)), "read"),
            (app.delete(&path(&code)), "delete"),
        ] {
            let request = match key {
                Some(key) => request.bearer(key),
                None => request,
            };
            let answer = request.send().await;
            assert_eq!((answer.status, answer.code().as_str()), (expected, error), "{what}");
        }
    }
    assert_eq!(read(&app, &ann, &code).await["revision"], 1);
    assert_eq!(read(&app, &admin, &code).await["revision"], 1);
    let changed = app.patch(&path(&code)).bearer(&admin).json(change).send().await;
    assert_eq!(changed.json()["title"], "changed");
    // It stays the owner's.
    assert_eq!(read(&app, &ann, &code).await["revision"], 2);
}

#[tokio::test]
async fn what_is_not_there_can_not_be_changed() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let gone = link(&app, &key, json!({"custom_alias": "gone"})).await;
    app.delete(&path(&gone)).bearer(&key).send().await;
    for (code, expected, error) in [
        ("gone", 410, "URL_DELETED"),
        ("nothing", 404, "URL_NOT_FOUND"),
        ("0000000", 404, "URL_NOT_FOUND"),
        ("a.b", 404, "URL_NOT_FOUND"),
        ("%00", 404, "URL_NOT_FOUND"),
        (&"x".repeat(65), 404, "URL_NOT_FOUND"),
    ] {
        let change = json!({"title": "t"});
        let changed = app.patch(&path(code)).bearer(&key).json(change).send().await;
        assert_eq!((changed.status, changed.code().as_str()), (expected, error), "PATCH {code}");
        let password = app.patch(&path(code)).bearer(&key).json(json!({"password": "p"})).send().await;
        assert_eq!((password.status, password.code().as_str()), (expected, error), "PATCH {code}");
        let read = app.get(&path(code)).bearer(&key).send().await;
        assert_eq!((read.status, read.code().as_str()), (expected, error), "GET {code}");
    }
    let malformed = app.get(&path("%FF%FE")).bearer(&key).send().await;
    assert_eq!(
        (malformed.status / 100, malformed.header("content-type")),
        (4, Some("application/problem+json"))
    );
    let unknown = app.get(&format!("{}?colour=red", path("nothing"))).bearer(&key).send().await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "VALIDATION_ERROR"));
}

#[tokio::test]
async fn an_expired_link_can_be_extended_until_it_is_swept() {
    let app = TestApp::with(&[("sweep_grace_s", "60")]).await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({"expires_in": 10})).await;
    app.clock.advance(10_000);
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
    assert_eq!(read(&app, &key, &code).await["state"], "expired");
    let extended = app.patch(&path(&code)).bearer(&key).json(json!({"expires_in": 10})).send().await;
    assert_eq!((extended.status, extended.json()["state"].as_str()), (200, Some("active")));
    assert_eq!(app.follow(&code).await.status, 302);
    // Nor is it swept while its grace lasts.
    app.clock.advance(10_000 + 60_000);
    assert_eq!(terse::sweeper::sweep(&app.running.app).await.unwrap(), 0);
    let titled = app.patch(&path(&code)).bearer(&key).json(json!({"title": "late"})).send().await;
    assert_eq!(titled.status, 200, "another field of an expired link");
    app.clock.advance(1);
    assert_eq!(terse::sweeper::sweep(&app.running.app).await.unwrap(), 1);
    let late = app.patch(&path(&code)).bearer(&key).json(json!({"expires_at": null})).send().await;
    assert_eq!((late.status, late.code().as_str()), (410, "URL_EXPIRED"));
    assert_eq!(app.get(&path(&code)).bearer(&key).send().await.code(), "URL_EXPIRED");
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
}

#[tokio::test]
async fn only_a_permanent_redirect_that_changed_may_be_kept_by_browsers() {
    let app = TestApp::with(&[("permanent_max_age_s", "20")]).await;
    let key = app.key("ann").await;
    let kept = json!("2027-01-15T08:00:20.000Z");
    for (fields, change, expected) in [
        (json!({"redirect_type": 301}), json!({"long_url": "https://example.com/b"}), kept.clone()),
        (json!({"redirect_type": 308}), json!({"redirect_type": 302}), kept),
        (
            json!({"redirect_type": 301, "expires_in": 10}),
            json!({"long_url": "https://example.com/b"}),
            json!("2027-01-15T08:00:10.000Z"),
        ),
        (json!({"redirect_type": 301}), json!({}), Value::Null),
        (json!({"redirect_type": 302}), json!({"long_url": "https://example.com/b"}), Value::Null),
        (json!({"redirect_type": 302}), json!({"redirect_type": 301}), Value::Null),
        // No browser keeps the redirect of a link with conditions.
        (json!({"redirect_type": 301, "click_limit": 5}), json!({"title": "t"}), Value::Null),
        (json!({"redirect_type": 301, "password": "p"}), json!({"title": "t"}), Value::Null),
        (json!({"redirect_type": 301, "starts_at": "2027-01-01"}), json!({"title": "t"}), Value::Null),
    ] {
        let code = link(&app, &key, fields.clone()).await;
        let changed = app.patch(&path(&code)).bearer(&key).json(change.clone()).send().await.json();
        assert_eq!(changed["old_redirect_kept_until"], expected, "{fields} then {change}");
        assert!(read(&app, &key, &code).await.get("old_redirect_kept_until").is_none());
    }
}

#[tokio::test]
async fn of_fifty_changes_of_one_revision_one_wins() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({})).await;
    let change = |number: usize| {
        let change = json!({"long_url": format!("https://example.com/{number}")});
        app.patch(&path(&code)).bearer(&key).header("if-match", "\"1\"").json(change)
    };
    let answers = at_once((0..50).map(change).collect()).await;
    let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 412).count(), 49);
    assert_eq!(read(&app, &key, &code).await, won[0].json());
    let followed = app.follow(&code).await;
    assert_eq!(followed.header("location"), won[0].json()["long_url"].as_str());
}

#[tokio::test]
async fn a_change_is_seen_on_every_connection_before_it_is_answered() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let key = app.key("ann").await;
    let code = link(&app, &key, json!({})).await;
    let mut connections = Connection::open_many(app.address(), 32).await;
    let short = format!("/{code}");
    for round in 0..10 {
        let target = format!("https://example.com/{round}");
        let change = json!({"long_url": target});
        assert_eq!(app.patch(&path(&code)).bearer(&key).json(change).send().await.status, 200);
        for connection in &mut connections {
            let followed = connection.send(app.get(&short)).await;
            assert_eq!(followed.header("location"), Some(target.as_str()));
        }
    }
    assert_eq!(app.delete(&path(&code)).bearer(&key).send().await.status, 204);
    for connection in &mut connections {
        assert_eq!(connection.send(app.get(&short)).await.code(), "URL_DELETED");
    }
}
