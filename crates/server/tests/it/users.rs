//! Users, their roles and their tiers.

use crate::support::{TestApp, json};
use terse_model::tenant::{Role, Tier};

const USERS: &str = "/api/v1/users";
const URLS: &str = "/api/v1/urls";

#[tokio::test]
async fn an_admin_makes_and_changes_users() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    for (fields, role, tier) in [
        (json!({"name": "ann"}), "member", "free"),
        (json!({"name": "ann", "tier": "premium"}), "member", "premium"),
        (json!({"name": "ann", "role": "admin"}), "admin", "premium"),
        (json!({"name": "ann"}), "admin", "premium"),
        (json!({"name": "ann", "role": "member", "tier": "unlimited"}), "member", "unlimited"),
        // Another case is another user.
        (json!({"name": "Ann", "tier": "bulk"}), "member", "bulk"),
    ] {
        let saved = app.post(USERS).bearer(&admin).json(fields.clone()).send().await;
        assert_eq!(saved.status, 200, "{fields}: {saved:?}");
        let created_at = "2027-01-15T08:00:00.000Z";
        let expected = json!({"name": fields["name"], "role": role, "tier": tier, "created_at": created_at});
        assert_eq!(saved.json(), expected, "{fields}");
    }
    let list = app.get(USERS).bearer(&admin).send().await.json();
    let names: Vec<_> = list["users"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["root", "ann", "Ann"]);
}

#[tokio::test]
async fn a_wrong_field_of_a_user_is_named() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    for (fields, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": "a b"}), "name"),
        (json!({"name": "ä"}), "name"),
        (json!({"name": "n".repeat(65)}), "name"),
        (json!({"name": "ann", "role": "owner"}), "role"),
        (json!({"name": "ann", "role": "Admin"}), "role"),
        (json!({"name": "ann", "tier": "gold"}), "tier"),
        (json!({"name": "ann", "admin": true}), "admin"),
    ] {
        let answer = app.post(USERS).bearer(&admin).json(fields.clone()).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{fields}");
        assert_eq!(answer.json()["field"], field, "{fields}");
    }
}

#[tokio::test]
async fn users_are_for_admins() {
    let app = TestApp::start().await;
    let ann = app.key("ann").await;
    let promote = json!({"name": "ann", "role": "admin"});
    for (key, expected) in [(Some(&ann), 403), (None, 401)] {
        for request in [app.get(USERS), app.post(USERS).json(promote.clone())] {
            let request = match key {
                Some(key) => request.bearer(key),
                None => request,
            };
            assert_eq!(request.send().await.status, expected);
        }
    }
    assert_eq!(app.get(USERS).bearer(&ann).send().await.status, 403, "and ann is still a member");
}

#[tokio::test]
async fn a_role_holds_from_the_next_request_on() {
    let app = TestApp::start().await;
    let (admin, ann, bob) = (app.admin_key().await, app.key("ann").await, app.key("bob").await);
    let code = app.link(&bob, json!({"long_url": "https://example.com/"})).await;
    let path = format!("{URLS}/{code}");
    for (role, expected) in [("member", 403), ("admin", 200), ("member", 403)] {
        let saved = app.post(USERS).bearer(&admin).json(json!({"name": "ann", "role": role})).send().await;
        assert_eq!(saved.status, 200);
        assert_eq!(app.get(&path).bearer(&ann).send().await.status, expected, "as {role}");
    }
}

#[tokio::test]
async fn nobody_becomes_an_admin_by_being_first() {
    let app = TestApp::start().await;
    let first = app.key("ann").await;
    assert_eq!(app.get(USERS).bearer(&first).send().await.status, 403);
    let anonymous = json!({"name": "mine", "user": "eve", "role": "admin"});
    assert_eq!(app.post("/api/v1/keys").json(anonymous).send().await.status, 401);
}

#[tokio::test]
async fn a_tier_limits_creates_from_the_next_request_on() {
    let app = TestApp::with(&[("rate_limits", "on")]).await;
    let admin = app.admin_key().await;
    let ann = app.key_of("ann", Role::Member, Tier::Free).await;
    let rows = json!(vec![json!({"long_url": "https://example.com/"}); 1_100]);
    // What is used stays used; from then on the bucket fills as the new tier's does.
    for (tier, wait_ms, expected) in
        [("free", 0, 100), ("premium", 3_600, 1), ("premium", 3_600_000, 1_000), ("unlimited", 0, 1_100)]
    {
        let saved = app.post(USERS).bearer(&admin).json(json!({"name": "ann", "tier": tier})).send().await;
        assert_eq!(saved.json()["tier"], tier);
        app.clock.advance(wait_ms);
        let answer = app.post("/api/v1/urls/bulk").bearer(&ann).json(rows.clone()).send().await.json();
        let results = answer["results"].as_array().unwrap();
        let made = results.iter().filter(|result| result["status"] == 201).count();
        assert_eq!(made, expected, "{tier}");
        assert!(results[made..].iter().all(|result| result["status"] == 429), "{tier}");
    }
}
