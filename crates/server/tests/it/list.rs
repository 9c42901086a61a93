//! GET /api/v1/urls: pages, filters and whose links.

use crate::support::{TestApp, Value, json};
use std::collections::BTreeSet;

const URLS: &str = "/api/v1/urls";

/// The codes of an answer's links.
fn codes(answer: &Value) -> Vec<String> {
    let links = answer["links"].as_array().unwrap();
    links.iter().map(|link| link["short_code"].as_str().unwrap().to_owned()).collect()
}

async fn page(app: &TestApp, key: &str, query: &str) -> Value {
    let answer = app.get(&format!("{URLS}?{query}")).bearer(key).send().await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

async fn link(app: &TestApp, key: &str, alias: &str) -> String {
    let fields = json!({"long_url": "https://example.com/", "custom_alias": alias});
    app.link(key, fields).await
}

#[tokio::test]
async fn a_list_holds_ones_own_links_and_an_admins_all() {
    let app = TestApp::start().await;
    let (ann, bob, admin) = (app.key("ann").await, app.key("bob").await, app.admin_key().await);
    assert_eq!(page(&app, &ann, "").await, json!({"links": [], "next_cursor": null}));
    link(&app, &ann, "anns-first").await;
    link(&app, &bob, "bobs").await;
    link(&app, &ann, "anns-second").await;
    let anonymous = app.post(URLS).json(json!({"long_url": "https://example.com/"})).send().await.json();
    let anonymous = anonymous["short_code"].as_str().unwrap();
    assert_eq!(codes(&page(&app, &ann, "").await), ["anns-second", "anns-first"], "newest first");
    assert_eq!(codes(&page(&app, &bob, "").await), ["bobs"]);
    assert_eq!(codes(&page(&app, &admin, "").await), [anonymous, "anns-second", "bobs", "anns-first"]);
    assert_eq!(app.get(URLS).send().await.status, 401);
    // An entry says what a read says.
    let read = app.get(&format!("{URLS}/bobs")).bearer(&bob).send().await.json();
    assert_eq!(page(&app, &bob, "").await["links"][0], read);
}

#[tokio::test]
async fn pages_hold_everything_once_while_links_are_created() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    let mut before = BTreeSet::new();
    for number in 0..23 {
        before.insert(link(&app, &ann, &format!("before-{number}")).await);
        link(&app, &bob, &format!("other-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut query = "limit=5".to_owned();
    for turn in 0.. {
        assert!(turn < 20, "the list ends");
        let answer = page(&app, &ann, &query).await;
        seen.extend(codes(&answer));
        link(&app, &ann, &format!("meanwhile-{turn}")).await;
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        query = format!("limit=5&cursor={cursor}");
    }
    assert_eq!(seen.len(), 23);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), before);
}

#[tokio::test]
async fn pages_go_on_past_links_that_were_deleted() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for number in 0..6 {
        link(&app, &key, &format!("link-{number}")).await;
    }
    let first = page(&app, &key, "limit=2").await;
    assert_eq!(codes(&first), ["link-5", "link-4"]);
    // The one that the cursor stands at, and one that lies ahead.
    for gone in ["link-4", "link-3"] {
        assert_eq!(app.delete(&format!("{URLS}/{gone}")).bearer(&key).send().await.status, 204);
    }
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = page(&app, &key, &format!("limit=10&cursor={cursor}")).await;
    assert_eq!(codes(&rest), ["link-2", "link-1", "link-0"]);
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_filter_finds_what_it_says() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for fields in [
        json!({"custom_alias": "plain"}),
        json!({"custom_alias": "titled", "title": "Spring SALE", "tags": ["news", "Spring"]}),
        json!({"custom_alias": "noted", "notes": "after the sale", "tags": ["news"]}),
        json!({"custom_alias": "aimed", "long_url": "https://sale.example.org/%C3%BC?a=b_c"}),
        json!({"custom_alias": "paused", "enabled": false, "tags": ["news"]}),
        json!({"custom_alias": "early", "starts_at": "2028-01-01", "tags": ["news"]}),
        json!({"custom_alias": "brief", "expires_in": 10, "tags": ["news"], "title": "sale"}),
        json!({"custom_alias": "swept", "expires_in": 1}),
        json!({"custom_alias": "used-up", "click_limit": 1}),
        json!({"custom_alias": "removed"}),
    ] {
        let mut request = json!({"long_url": "https://example.com/"});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app.link(&key, request).await;
    }
    assert_eq!(app.follow("used-up").await.status, 302);
    assert_eq!(app.delete(&format!("{URLS}/removed")).bearer(&key).send().await.status, 204);
    let grace_ms = app.running.app.config.sweeper.grace.as_millis() as i64;
    app.clock.advance(1001 + grace_ms);
    assert_eq!(terse::sweeper::sweep(&app.running.app).await.unwrap(), 1);
    for (query, expected) in [
        ("", "used-up brief early paused aimed noted titled plain"),
        ("q=sale", "brief aimed noted titled"),
        ("q=SALE", "brief aimed noted titled"),
        ("q=example.org", "aimed"),
        ("q=%25C3%25BC", "aimed"),
        ("q=b_c", "aimed"),
        ("q=b%25c", ""),
        ("q=used-", "used-up"),
        ("q=nothing", ""),
        ("q=", "used-up brief early paused aimed noted titled plain"),
        ("tag=news", "brief early paused noted titled"),
        ("tag=Spring", "titled"),
        ("tag=spring", ""),
        ("tag=new", ""),
        ("state=active", "aimed noted titled plain"),
        ("state=disabled", "paused"),
        ("state=scheduled", "early"),
        ("state=expired", "swept brief"),
        ("state=exhausted", "used-up"),
        ("state=deleted", "removed"),
        ("q=sale&tag=news", "brief noted titled"),
        ("q=sale&tag=news&state=active", "noted titled"),
        ("tag=news&state=expired", "brief"),
        ("tag=news&state=deleted", ""),
        ("q=remo&state=deleted", "removed"),
        ("q=sale&tag=Spring&state=disabled", ""),
    ] {
        let found = codes(&page(&app, &key, query).await).join(" ");
        assert_eq!(found, expected, "{query}");
        // The same, a link a page.
        let mut one_by_one = Vec::new();
        let mut next = format!("{query}&limit=1");
        loop {
            let answer = page(&app, &key, next.trim_start_matches('&')).await;
            one_by_one.extend(codes(&answer));
            let Some(cursor) = answer["next_cursor"].as_str() else { break };
            next = format!("{query}&limit=1&cursor={cursor}");
        }
        assert_eq!(one_by_one.join(" "), expected, "{query} in pages of one");
    }
    let removed = &page(&app, &key, "state=deleted").await["links"][0];
    assert_eq!((removed["state"].as_str(), removed.get("long_url")), (Some("deleted"), None));
}

#[tokio::test]
async fn a_wrong_parameter_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let long = "x".repeat(201);
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "limit=1.5",
        "limit=",
        "limit=99999999999999999999",
        "limit=1&limit=2",
        "cursor=",
        "cursor=short",
        "cursor=123456",
        "cursor=123456789012",
        "cursor=12345-7",
        "cursor=%00%00%00%00%00%00%00",
        "state=",
        "state=gone",
        "state=Active",
        "page=2",
        "offset=10",
        &format!("q={long}"),
        &format!("tag={}", &long[..65]),
    ] {
        let answer = app.get(&format!("{URLS}?{query}")).bearer(&key).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{query}");
    }
    for query in ["limit=1", "limit=1000", &format!("q={}", &long[..200]), &format!("tag={}", &long[..64])] {
        page(&app, &key, query).await;
    }
}

#[tokio::test]
async fn a_cursor_does_not_tell_how_many_links_there_are() {
    let mut cursors = Vec::new();
    for _ in 0..2 {
        let app = TestApp::start().await;
        let key = app.key("ann").await;
        for number in 0..3 {
            link(&app, &key, &format!("link-{number}")).await;
        }
        let mut query = "limit=1".to_owned();
        while let Some(cursor) = page(&app, &key, &query).await["next_cursor"].as_str() {
            assert!(cursor.len() == 7 && cursor.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{cursor}");
            cursors.push(cursor.to_owned());
            query = format!("limit=1&cursor={cursor}");
        }
    }
    // The same ids under other keys are other cursors, and those of neighbours have nothing in common.
    let distinct: BTreeSet<_> = cursors.iter().collect();
    assert_eq!(distinct.len(), cursors.len(), "{cursors:?}");
    let beginnings: BTreeSet<_> = cursors.iter().map(|cursor| &cursor[..4]).collect();
    assert_eq!(beginnings.len(), cursors.len(), "{cursors:?}");
}
