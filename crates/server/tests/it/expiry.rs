//! Expiry, to the instant and on every layer.

use crate::support::{Method, TestApp, Value, json};
use terse::sweeper::sweep;

const TARGET: &str = "https://example.com/target";
const FALLBACK: &str = "https://example.com/too-late";
const DAY: i64 = 86_400_000;

#[tokio::test]
async fn an_expired_link_is_gone_to_the_millisecond() {
    let app = TestApp::with_shared_store().await;
    let key = app.key("ann").await;
    let check = async |mut fields: Value| {
        let start = app.clock.now();
        fields["long_url"] = TARGET.into();
        fields["expires_at"] = start.plus_seconds(20).to_string().into();
        let status = fields["redirect_type"].as_u64().unwrap_or(302);
        let code = app.link(&key, fields.clone()).await;
        app.clock.advance(19_999);
        let misses = app.running.app.metrics.cache_misses.get();
        assert_eq!(u64::from(app.follow(&code).await.status), status, "{fields}");
        app.clock.advance(1);
        for method in [Method::GET, Method::HEAD] {
            let answer = app.request(method, &format!("/{code}")).send().await;
            assert_eq!((answer.status, answer.header("location")), (410, None), "{fields}");
        }
        assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED", "{fields}");
        let asked = app.running.app.metrics.cache_misses.get() - misses;
        assert_eq!(asked, 0, "all of this was answered from the cache: {fields}");
        // The store says the same as the cache did.
        app.clock.advance(60_000);
        assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED", "{fields}");
        assert!(app.running.app.metrics.cache_misses.get() > misses, "{fields}");
    };
    check(json!({})).await;
    check(json!({"custom_alias": "spring-sale"})).await;
    check(json!({"redirect_type": 308})).await;
    check(json!({"forward_query": true})).await;
    check(json!({"click_limit": 5})).await;
}

#[tokio::test]
async fn a_link_from_the_store_expires_to_the_millisecond_too() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let expires_at = app.clock.now().plus_seconds(3600).to_string();
    let code = app.link(&key, json!({"long_url": TARGET, "expires_at": expires_at})).await;
    app.clock.advance(3_599_999);
    let app = app.restart(&[]).await;
    assert_eq!(app.follow(&code).await.status, 302);
    let app = app.restart(&[]).await;
    app.clock.advance(1);
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
}

#[tokio::test]
async fn no_browser_keeps_a_permanent_redirect_past_its_expiry() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let fields = json!({"long_url": TARGET, "redirect_type": 301, "expires_in": 100});
    let code = app.link(&key, fields).await;
    let mut past = 0;
    for (at, cache_control) in [
        (0, "private, max-age=30"),
        (70_000, "private, max-age=30"),
        (70_001, "private, max-age=29"),
        (90_500, "private, max-age=9"),
        (99_000, "private, max-age=1"),
        (99_001, "private, no-store"),
        (99_999, "private, no-store"),
    ] {
        app.clock.advance(at - past);
        past = at;
        let followed = app.follow(&code).await;
        assert_eq!((followed.status, followed.header("cache-control")), (301, Some(cache_control)), "{at}");
    }
    app.clock.advance(1);
    let gone = app.follow(&code).await;
    assert_eq!((gone.status, gone.header("cache-control")), (410, Some("no-store")));
}

#[tokio::test]
async fn the_bound_for_permanent_redirects_can_be_lowered() {
    let app = TestApp::with(&[("permanent_max_age_s", "5")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "redirect_type": 301})).await;
    assert_eq!(app.follow(&code).await.header("cache-control"), Some("private, max-age=5"));
    let app = app.restart(&[("permanent_max_age_s", "0")]).await;
    assert_eq!(app.follow(&code).await.header("cache-control"), Some("private, no-store"));
}

#[tokio::test]
async fn a_fallback_takes_over_at_the_expiry() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let fields =
        json!({"long_url": TARGET, "fallback_url": FALLBACK, "redirect_type": 301, "expires_in": 10});
    let code = app.link(&key, fields).await;
    app.clock.advance(9_999);
    let before = app.follow(&code).await;
    assert_eq!((before.status, before.header("location")), (301, Some(TARGET)));
    assert_eq!(before.header("cache-control"), Some("private, no-store"));
    app.clock.advance(1);
    let check = async || {
        for method in [Method::GET, Method::HEAD] {
            let after = app.request(method, &format!("/{code}?a=b")).send().await;
            assert_eq!((after.status, after.header("location")), (302, Some(FALLBACK)));
            assert_eq!(after.header("cache-control"), Some("no-store"));
        }
    };
    check().await;
    app.clock.advance(2 * DAY);
    assert_eq!(sweep(&app.running.app).await.unwrap(), 0);
    check().await;
}

#[tokio::test]
async fn an_expired_link_can_be_extended_until_it_is_swept() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "expires_in": 10})).await;
    let path = format!("/api/v1/urls/{code}");
    app.clock.advance(10_000);
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
    // Within its grace the sweeper leaves it.
    app.clock.advance(DAY);
    assert_eq!(sweep(&app.running.app).await.unwrap(), 0);
    let extended = app.patch(&path).bearer(&key).json(json!({"expires_in": 10})).send().await;
    assert_eq!(extended.status, 200, "{extended:?}");
    assert_eq!(app.follow(&code).await.status, 302);
    app.clock.advance(10_000 + DAY + 1);
    assert_eq!(sweep(&app.running.app).await.unwrap(), 1);
    let extended = app.patch(&path).bearer(&key).json(json!({"expires_in": 10})).send().await;
    assert_eq!((extended.status, extended.code()), (410, "URL_EXPIRED".to_owned()));
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
}

#[tokio::test]
async fn gone_codes_keep_their_reason_after_sweeping_and_a_restart() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let ends = json!({"long_url": TARGET, "expires_in": 10});
    let expired = app.link(&key, ends.clone()).await;
    let named =
        app.link(&key, json!({"long_url": TARGET, "expires_in": 10, "custom_alias": "spring-sale"})).await;
    let deleted = app.link(&key, json!({"long_url": TARGET})).await;
    let both = app.link(&key, ends).await;
    app.clock.advance(10_000);
    for code in [&deleted, &both] {
        assert_eq!(app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await.status, 204);
    }
    let check = async |app: &TestApp, when: &str| {
        for (code, reason) in [
            (&expired, "URL_EXPIRED"),
            (&named, "URL_EXPIRED"),
            (&deleted, "URL_DELETED"),
            (&both, "URL_DELETED"),
        ] {
            let followed = app.follow(code).await;
            assert_eq!((followed.status, followed.code().as_str()), (410, reason), "{when}");
        }
    };
    check(&app, "before").await;
    app.clock.advance(2 * DAY);
    assert_eq!(sweep(&app.running.app).await.unwrap(), 2);
    check(&app, "swept").await;
    for (code, reason) in [(&expired, "URL_EXPIRED"), (&named, "URL_EXPIRED"), (&deleted, "URL_DELETED")] {
        let read = app.get(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
        assert_eq!((read.status, read.code().as_str()), (410, reason));
    }
    let again = json!({"long_url": TARGET, "custom_alias": "spring-sale"});
    let again = app.post("/api/v1/urls").bearer(&key).json(again).send().await;
    assert_eq!(again.code(), "ALIAS_TAKEN", "a code is never given again");
    let app = app.restart(&[]).await;
    check(&app, "restarted").await;
    assert_eq!(sweep(&app.running.app).await.unwrap(), 0);
    check(&app, "swept again").await;
}

#[tokio::test]
async fn the_sweeper_goes_by_batches_and_leaves_other_links_alone() {
    let app = TestApp::with(&[("sweep_batch_len", "3")]).await;
    let key = app.key("ann").await;
    let mut ending = Vec::new();
    for _ in 0..7 {
        ending.push(app.link(&key, json!({"long_url": TARGET, "expires_in": 60})).await);
    }
    let others = [
        app.link(&key, json!({"long_url": TARGET})).await,
        app.link(&key, json!({"long_url": TARGET, "expires_in": 60 * 86_400})).await,
        app.link(&key, json!({"long_url": TARGET, "expires_in": 60, "fallback_url": FALLBACK})).await,
        app.link(&key, json!({"long_url": TARGET, "expires_in": 60, "enabled": false})).await,
    ];
    app.clock.advance(60_000 + DAY);
    let just_expired = app.link(&key, json!({"long_url": TARGET, "expires_in": 1})).await;
    app.clock.advance(1_000);
    // The paused one has expired like the seven.
    assert_eq!(sweep(&app.running.app).await.unwrap(), 8);
    assert_eq!(app.running.app.metrics.links_swept.get(), 8);
    assert_eq!(sweep(&app.running.app).await.unwrap(), 0);
    for code in &ending {
        assert_eq!(app.follow(code).await.code(), "URL_EXPIRED");
    }
    assert_eq!(app.follow(&others[0]).await.header("location"), Some(TARGET));
    assert_eq!(app.follow(&others[1]).await.header("location"), Some(TARGET));
    assert_eq!(app.follow(&others[2]).await.header("location"), Some(FALLBACK));
    for code in [&others[0], &others[1], &others[2], &just_expired] {
        let read = app.get(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
        assert_eq!((read.status, &read.json()["long_url"]), (200, &json!(TARGET)), "{read:?}");
    }
}
