//! API keys: how they are sent, what they allow, and when they end.

use crate::support::connection::{Connection, at_once};
use crate::support::wrapped::HeldAccounts;
use crate::support::{Method, TestApp, TestRequest, Value, json};
use std::sync::Arc;
use terse::app::Stores;
use terse_model::tenant::{Role, Tier};

const KEYS: &str = "/api/v1/keys";
const URLS: &str = "/api/v1/urls";

/// Makes a key over HTTP; returns its id and the key.
async fn make(app: &TestApp, by: &str, fields: Value) -> (u64, String) {
    let made = app.post(KEYS).bearer(by).json(fields).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    (made["id"].as_u64().unwrap(), made["key"].as_str().unwrap().to_owned())
}

async fn list_status(app: &TestApp, key: &str) -> u16 {
    app.get(URLS).bearer(key).send().await.status
}

#[tokio::test]
async fn a_key_is_sent_as_bearer_or_in_its_own_header() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for (header, value, expected) in [
        ("authorization", format!("Bearer {key}"), 200),
        ("authorization", format!("bearer {key}"), 200),
        ("authorization", format!("BEARER  {key} "), 200),
        ("x-api-key", key.clone(), 200),
        ("X-API-Key", format!(" {key}"), 200),
        ("authorization", key.clone(), 401),
        ("authorization", format!("Basic {key}"), 401),
        ("authorization", "Bearer".to_owned(), 401),
        ("authorization", "Bearer ".to_owned(), 401),
        ("authorization", format!("Bearer {}", key.to_uppercase()), 401),
        ("authorization", format!("Bearer {}", &key[..key.len() - 1]), 401),
        ("authorization", format!("Bearer {key}0"), 401),
        ("x-api-key", String::new(), 401),
        ("x-api-key", "terse_wrong".to_owned(), 401),
        ("x-api-key", "ü".to_owned(), 401),
    ] {
        let answer = app.get(URLS).header(header, &value).send().await;
        assert_eq!(answer.status, expected, "{header}: {value}");
        if expected == 401 {
            assert_eq!(answer.code(), "UNAUTHORIZED");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"terse\""));
        }
    }
    assert_eq!(app.get(URLS).send().await.status, 401);
    assert_eq!(app.get(&format!("{KEYS}?api_key={key}")).send().await.status, 401, "never in an address");
}

#[tokio::test]
async fn a_key_is_shown_once() {
    let app = TestApp::start().await;
    let ann = app.key("ann").await;
    // Keys are listed in the order in which they were made.
    app.clock.advance(1);
    let fields = json!({"name": "script", "scopes": ["links:read"], "expires_at": "2030-01-01"});
    let made = app.post(KEYS).bearer(&ann).json(fields).send().await;
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let mut shown = made.json();
    let key = shown.as_object_mut().unwrap().remove("key").unwrap();
    let key = key.as_str().unwrap();
    assert!(key.starts_with("terse_") && key.len() == "terse_".len() + 64, "256 bits: {key}");
    let expected = json!({
        "id": shown["id"], "name": "script", "user": "ann", "scopes": ["links:read"], "creates_per_hour": null,
        "created_at": "2027-01-15T08:00:00.001Z", "expires_at": "2030-01-01T00:00:00.000Z", "last_used_at": null,
    });
    assert_eq!(shown, expected);
    let list = app.get(KEYS).bearer(&ann).send().await;
    assert!(!list.text().contains(key) && !list.text().contains(&ann), "{list:?}");
    assert_eq!(list.json()["keys"][1], expected);
}

#[tokio::test]
async fn a_scope_allows_one_thing() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    let bobs = app.key("bob").await;
    app.link(&admin, json!({"long_url": "https://example.com/", "custom_alias": "anns"})).await;
    let request = |what: &str| -> TestRequest {
        let json = |request: TestRequest, value| request.json(value);
        match what {
            "list" => app.get(URLS),
            "read" => app.get("/api/v1/urls/anns"),
            "domains" => app.get("/api/v1/domains"),
            "create" => json(app.post(URLS), json!({"long_url": "https://example.com/"})),
            "shorten" => json(app.post("/urls"), json!({"url": "https://example.com/"})),
            "bulk" => json(app.post("/api/v1/urls/bulk"), json!([])),
            "change" => json(app.patch("/api/v1/urls/anns"), json!({"title": "t"})),
            "delete" => app.delete("/api/v1/urls/none"),
            "stats" => app.get("/api/v1/urls/anns/stats"),
            "short stats" => app.get("/api/v1/stats/anns"),
            "all stats" => app.get("/api/v1/stats"),
            "clicks" => app.get("/api/v1/urls/anns/clicks"),
            "all clicks" => app.get("/api/v1/clicks"),
            "erase" => app.delete("/api/v1/urls/anns/clicks"),
            "erase visitor" => app.delete("/api/v1/clicks?visitor=0a1b2c3d4e5f6071"),
            "reconcile" => json(app.post("/api/v1/stats/reconcile"), json!({})),
            "keys" => app.get(KEYS),
            "make key" => json(app.post(KEYS), json!({"name": "another"})),
            "revoke" => app.delete("/api/v1/keys/999"),
            "users" => app.get("/api/v1/users"),
            "make user" => json(app.post("/api/v1/users"), json!({"name": "carl"})),
            "make domain" => json(app.post("/api/v1/domains"), json!({"name": "go.example.com"})),
            _ => unreachable!(),
        }
    };
    let groups: [(&str, &[&str]); 5] = [
        ("links:read", &["list", "read", "domains"]),
        ("links:write", &["create", "shorten", "bulk", "change", "delete", "erase", "erase visitor"]),
        ("stats:read", &["stats", "short stats", "all stats", "clicks", "all clicks"]),
        ("keys", &["keys", "make key", "revoke"]),
        ("admin", &["users", "make user", "make domain", "reconcile"]),
    ];
    // An admin's key, so that the role is never what refuses.
    for (scope, _) in groups {
        let fields = json!({"name": scope, "scopes": [scope]});
        let (_, key) = make(&app, &admin, fields).await;
        for (needed, whats) in groups {
            for what in whats {
                let answer = request(what).bearer(&key).send().await;
                let refused = (answer.status, needed == scope);
                assert!(
                    matches!(refused, (403, false) | (200..=299 | 404, true)),
                    "{scope}: {what}: {answer:?}"
                );
                if answer.status == 403 {
                    assert!(answer.json()["detail"].as_str().unwrap().contains(needed), "{answer:?}");
                }
            }
        }
    }
    // A member has all scopes and may still not do what admins do.
    for what in groups[4].1 {
        let answer = request(what).bearer(&bobs).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"), "{what}");
    }
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let app = TestApp::start().await;
    let (admin, ann) = (app.admin_key().await, app.key("ann").await);
    let (_, narrow) = make(&app, &ann, json!({"name": "narrow", "scopes": ["keys", "links:read"]})).await;
    let (_, blunt) = make(&app, &admin, json!({"name": "blunt", "scopes": ["keys"]})).await;
    for (by, fields, expected) in [
        (&narrow, json!({"name": "n", "scopes": ["links:read"]}), 201),
        (&narrow, json!({"name": "n", "scopes": ["links:write"]}), 403),
        (&narrow, json!({"name": "n", "scopes": ["links:read", "admin"]}), 403),
        (&ann, json!({"name": "n", "user": "ann"}), 201),
        (&ann, json!({"name": "n", "user": "bob"}), 403),
        (&ann, json!({"name": "n", "user": "Ann"}), 403),
        (&ann, json!({"name": "n", "role": "admin"}), 403),
        (&ann, json!({"name": "n", "role": "member"}), 403),
        (&ann, json!({"name": "n", "tier": "unlimited"}), 403),
        (&ann, json!({"name": "n", "creates_per_hour": 1_000_000}), 403),
        // An admin's key without the scope is no admin's.
        (&blunt, json!({"name": "n", "user": "bob"}), 403),
        (&blunt, json!({"name": "n", "scopes": ["admin"]}), 403),
        (&admin, json!({"name": "n", "user": "bob", "role": "admin", "tier": "bulk"}), 201),
    ] {
        let answer = app.post(KEYS).bearer(by).json(fields.clone()).send().await;
        assert_eq!(answer.status, expected, "{fields}: {answer:?}");
    }
    // Without a word about scopes, a key has those of the key that made it.
    let made = app.post(KEYS).bearer(&narrow).json(json!({"name": "n"})).send().await.json();
    assert_eq!(made["scopes"], json!(["links:read", "keys"]));
    // Nobody became an admin on the way.
    assert_eq!(app.get("/api/v1/users").bearer(&ann).send().await.status, 403);
}

#[tokio::test]
async fn a_wrong_field_of_a_key_is_named() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    for (fields, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "n".repeat(101)}), "name"),
        (json!({"name": 1}), "name"),
        (json!({"name": "n", "user": ""}), "user"),
        (json!({"name": "n", "user": "a b"}), "user"),
        (json!({"name": "n", "role": "owner"}), "role"),
        (json!({"name": "n", "tier": "gold"}), "tier"),
        (json!({"name": "n", "scopes": []}), "scopes"),
        (json!({"name": "n", "scopes": ["links"]}), "scopes"),
        (json!({"name": "n", "expires_at": "2027-01-15T08:00:00Z"}), "expires_at"),
        (json!({"name": "n", "expires_at": "never"}), "expires_at"),
        (json!({"name": "n", "creates_per_hour": 0}), "creates_per_hour"),
        (json!({"name": "n", "creates_per_hour": -1}), "creates_per_hour"),
        (json!({"name": "n", "colour": "red"}), "colour"),
    ] {
        let answer = app.post(KEYS).bearer(&admin).json(fields.clone()).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{fields}");
        assert_eq!(answer.json()["field"], field, "{fields}");
    }
    let nameless = app.post(KEYS).bearer(&admin).json(json!({})).send().await;
    assert!(nameless.status == 400 && nameless.text().contains("`name`"), "{nameless:?}");
    assert_eq!(app.get(KEYS).bearer(&admin).send().await.json()["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_ends_to_the_millisecond() {
    let app = TestApp::start().await;
    let ann = app.key("ann").await;
    let fields = json!({"name": "brief", "expires_at": "2027-01-15T08:00:10Z"});
    let (_, brief) = make(&app, &ann, fields).await;
    assert_eq!(list_status(&app, &brief).await, 200);
    app.clock.advance(9_999);
    assert_eq!(list_status(&app, &brief).await, 200);
    app.clock.advance(1);
    assert_eq!(list_status(&app, &brief).await, 401);
    assert_eq!(list_status(&app, &ann).await, 200);
}

#[tokio::test]
async fn a_revoked_key_stops_at_once_on_every_connection() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let ann = app.key("ann").await;
    let (id, key) = make(&app, &ann, json!({"name": "doomed"})).await;
    let mut connections = Connection::open_many(app.address(), 32).await;
    for connection in &mut connections {
        assert_eq!(connection.send(app.get(URLS).bearer(&key)).await.status, 200);
    }
    let path = format!("{KEYS}/{id}");
    assert_eq!(app.delete(&path).bearer(&ann).send().await.status, 204);
    for connection in &mut connections {
        assert_eq!(connection.send(app.get(URLS).bearer(&key)).await.status, 401);
        assert_eq!(connection.send(app.get(URLS).bearer(&ann)).await.status, 200);
    }
    let again = app.delete(&path).bearer(&ann).send().await;
    assert_eq!((again.status, again.code().as_str()), (404, "URL_NOT_FOUND"));
    let app = app.restart(&[]).await;
    assert_eq!(list_status(&app, &key).await, 401);
}

#[tokio::test]
async fn a_slow_look_at_a_key_does_not_bring_it_back() {
    let mut held = None;
    let app = TestApp::with_stores(&[], |stores| {
        let accounts = HeldAccounts::around(stores.accounts.clone());
        held = Some(accounts.clone());
        Stores { accounts, ..stores }
    })
    .await;
    let held: Arc<HeldAccounts> = held.unwrap();
    let ann = app.key("ann").await;
    let (id, key) = make(&app, &ann, json!({"name": "doomed"})).await;
    held.hold_next_key();
    // It finds the key, and hears about it only after the key was revoked.
    let slow = tokio::spawn(TestRequest::new(app.address(), Method::GET, URLS).bearer(&key).send());
    held.until_held().await;
    assert_eq!(app.delete(&format!("{KEYS}/{id}")).bearer(&ann).send().await.status, 204);
    held.release();
    slow.await.unwrap();
    assert_eq!(list_status(&app, &key).await, 401);
}

#[tokio::test]
async fn keys_are_listed_and_revoked_by_their_user_and_by_admins() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    app.clock.advance(1);
    let ann = app.key("ann").await;
    app.clock.advance(1);
    let bob = app.key("bob").await;
    app.clock.advance(1);
    let (id, key) = make(&app, &ann, json!({"name": "anns"})).await;
    let users = |answer: Value| -> Vec<String> {
        let keys = answer["keys"].as_array().unwrap();
        keys.iter().map(|key| key["user"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(users(app.get(KEYS).bearer(&ann).send().await.json()), ["ann", "ann"]);
    assert_eq!(users(app.get(KEYS).bearer(&bob).send().await.json()), ["bob"]);
    assert_eq!(users(app.get(KEYS).bearer(&admin).send().await.json()), ["root", "ann", "bob", "ann"]);
    let path = format!("{KEYS}/{id}");
    assert_eq!(app.delete(&path).bearer(&bob).send().await.code(), "FORBIDDEN");
    assert_eq!(app.delete(&path).send().await.code(), "UNAUTHORIZED");
    for (path, expected) in [("999", 404), ("first", 400), ("-1", 400), ("4294967296", 400)] {
        assert_eq!(app.delete(&format!("{KEYS}/{path}")).bearer(&admin).send().await.status, expected);
    }
    assert_eq!(list_status(&app, &key).await, 200);
    assert_eq!(app.delete(&path).bearer(&admin).send().await.status, 204);
    assert_eq!(list_status(&app, &key).await, 401);
}

#[tokio::test]
async fn a_key_of_its_own_rate_is_limited_by_that() {
    let app = TestApp::with(&[("rate_limits", "on")]).await;
    let admin = app.admin_key().await;
    let fields = json!({"name": "three", "user": "ann", "tier": "unlimited", "creates_per_hour": 3});
    let (_, three) = make(&app, &admin, fields).await;
    let (_, free) = make(&app, &admin, json!({"name": "free", "user": "ann"})).await;
    let create = |key: &str| app.post(URLS).bearer(key).json(json!({"long_url": "https://example.com/"}));
    let answers = at_once((0..20).map(|_| create(&three)).collect()).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 3);
    assert_eq!(answers.iter().filter(|answer| answer.code() == "RATE_LIMIT_EXCEEDED").count(), 17);
    assert_eq!(create(&free).send().await.status, 201);
}

#[tokio::test]
async fn the_keys_of_a_user_share_the_tier() {
    let app = TestApp::with(&[("rate_limits", "on")]).await;
    let first = app.key_of("ann", Role::Member, Tier::Free).await;
    let second = app.key_of("ann", Role::Member, Tier::Free).await;
    let create = |number: usize| {
        let key = if number.is_multiple_of(2) { &first } else { &second };
        app.post(URLS).bearer(key).json(json!({"long_url": "https://example.com/"}))
    };
    let answers = at_once((0..120).map(create).collect()).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 100);
    assert_eq!(answers.iter().filter(|answer| answer.status == 429).count(), 20);
}
