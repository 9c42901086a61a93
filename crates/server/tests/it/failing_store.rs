//! A store that fails or hangs: nothing is called missing, what is known goes on, and all is well again afterwards.

use crate::support::failing::{Mood, StoreSwitch};
use crate::support::raw::until;
use crate::support::{Method, TestApp, TestResponse, Value, json};
use std::time::Duration;

const TARGET: &str = "https://example.com/target";
/// Longer than any entry is believed.
const CACHE_TTL: i64 = 30_000;

async fn app_with_switch(settings: &[(&str, &str)]) -> (TestApp, StoreSwitch) {
    let (switch, wrap) = StoreSwitch::new();
    (TestApp::with_stores(settings, wrap).await, switch)
}

#[track_caller]
fn check_unavailable(answer: &TestResponse) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("location"), None);
}

async fn follow(app: &TestApp, code: &str) -> TestResponse {
    // Far longer than any timeout in these tests.
    let answer = tokio::time::timeout(Duration::from_secs(20), app.follow(code)).await;
    answer.expect("a redirect waits for ever")
}

#[tokio::test]
async fn an_outage_is_no_missing_link() {
    let (app, switch) = app_with_switch(&[]).await;
    let key = app.key("ann").await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    let named = app.link(&key, json!({"long_url": TARGET, "custom_alias": "spring-sale"})).await;
    let locked = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let deleted = app.link(&key, json!({"long_url": TARGET})).await;
    app.delete(&format!("/api/v1/urls/{deleted}")).bearer(&key).send().await;
    app.clock.advance(CACHE_TTL);
    switch.set(Mood::Fails);
    for code in [&plain, &named, &locked, &deleted] {
        check_unavailable(&follow(&app, code).await);
        let head = app.request(Method::HEAD, &format!("/{code}")).send().await;
        assert_eq!((head.status, head.header("retry-after")), (503, Some("1")));
        let page = app.get(&format!("/{code}")).header("accept", "text/html").send().await;
        assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
    }
    check_unavailable(&app.post(&format!("/{locked}")).json(json!({"password": "sesame"})).send().await);
    assert!(app.running.app.metrics.store_failures.get() > 0);
    // An error is not remembered: as soon as the store is back, so are the links.
    switch.set(Mood::Works);
    assert_eq!(follow(&app, &plain).await.header("location"), Some(TARGET));
    assert_eq!(follow(&app, &named).await.header("location"), Some(TARGET));
    assert_eq!(follow(&app, &locked).await.code(), "PASSWORD_REQUIRED");
    assert_eq!(follow(&app, &deleted).await.code(), "URL_DELETED");
}

#[tokio::test]
async fn what_is_in_memory_goes_on_through_an_outage() {
    let (app, switch) = app_with_switch(&[]).await;
    let key = app.key("ann").await;
    let made = app.link(&key, json!({"long_url": TARGET})).await;
    let ruled = app.link(&key, json!({"long_url": TARGET, "forward_query": true})).await;
    let counted = app.link(&key, json!({"long_url": TARGET, "click_limit": 2})).await;
    let before = switch.lookups();
    for mood in [Mood::Fails, Mood::Hangs] {
        switch.set(mood);
        assert_eq!(follow(&app, &made).await.status, 302, "{mood:?}");
        assert_eq!(follow(&app, &ruled).await.status, 302, "{mood:?}");
    }
    assert_eq!(switch.lookups(), before, "the store was not asked");
    // A click that can't be written down is not given away.
    switch.set(Mood::Fails);
    check_unavailable(&follow(&app, &counted).await);
    switch.set(Mood::Works);
    assert_eq!(follow(&app, &counted).await.status, 302);
    assert_eq!(follow(&app, &counted).await.status, 302);
    assert_eq!(follow(&app, &counted).await.code(), "CLICK_LIMIT_REACHED");
}

#[tokio::test]
async fn a_store_that_hangs_is_not_waited_for_without_end() {
    let (app, switch) = app_with_switch(&[("store_timeout_ms", "100")]).await;
    let key = app.key("ann").await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    let counted = app.link(&key, json!({"long_url": TARGET, "click_limit": 2})).await;
    switch.set(Mood::Hangs);
    check_unavailable(&follow(&app, &counted).await);
    app.clock.advance(CACHE_TTL);
    check_unavailable(&follow(&app, &plain).await);
    check_unavailable(&follow(&app, &counted).await);
    switch.set(Mood::Works);
    assert_eq!(follow(&app, &plain).await.status, 302);
    assert_eq!(follow(&app, &counted).await.status, 302);
}

#[tokio::test]
async fn nothing_is_created_while_the_store_is_away() {
    let settings = [("answer_timeout_s", "1"), ("body_timeout_s", "1")];
    let (app, switch) = app_with_switch(&settings).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let path = format!("/api/v1/urls/{code}");
    let fields = |alias: &str| json!({"long_url": TARGET, "custom_alias": alias});
    switch.set(Mood::Fails);
    let create = async |fields: Value| app.post("/api/v1/urls").bearer(&key).json(fields).send().await;
    check_unavailable(&create(fields("spring-sale")).await);
    check_unavailable(&create(json!({"long_url": TARGET})).await);
    check_unavailable(&app.get(&path).bearer(&key).send().await);
    check_unavailable(&app.get("/api/v1/urls").bearer(&key).send().await);
    check_unavailable(&app.patch(&path).bearer(&key).json(json!({"title": "x"})).send().await);
    check_unavailable(&app.delete(&path).bearer(&key).send().await);
    let ready = app.get("/ready").send().await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("not ready")));
    assert_eq!(app.get("/health").send().await.status, 200);
    switch.set(Mood::Hangs);
    check_unavailable(&create(fields("autumn-sale")).await);
    switch.set(Mood::Works);
    // What failed was not made, and nothing says that it was.
    assert_eq!(follow(&app, "spring-sale").await.status, 404);
    assert_eq!(create(fields("spring-sale")).await.status, 201);
    assert_eq!(follow(&app, "spring-sale").await.header("location"), Some(TARGET));
    assert_eq!(follow(&app, &code).await.status, 302);
    assert_eq!(app.get("/ready").send().await.status, 200);
}

#[tokio::test]
async fn a_change_that_fails_leaves_the_old_link_in_force() {
    let (app, switch) = app_with_switch(&[]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    switch.set(Mood::Fails);
    let change = json!({"long_url": "https://example.com/new"});
    check_unavailable(&app.patch(&format!("/api/v1/urls/{code}")).bearer(&key).json(change).send().await);
    switch.set(Mood::Works);
    assert_eq!(follow(&app, &code).await.header("location"), Some(TARGET));
}

#[tokio::test]
async fn a_crowd_that_asks_for_one_code_makes_one_lookup() {
    let (app, switch) = app_with_switch(&[("workers", "4")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    app.clock.advance(CACHE_TTL);
    switch.set(Mood::HoldsLookups);
    let before = switch.lookups();
    let missed = app.running.app.metrics.cache_misses.get();
    let asking: Vec<_> = (0..200).map(|_| tokio::spawn(app.get(&format!("/{code}")).send())).collect();
    switch.wait_for_held(1).await;
    until(|| app.running.app.metrics.cache_misses.get() >= missed + 200).await;
    switch.set(Mood::Works);
    for asking in asking {
        assert_eq!(asking.await.unwrap().header("location"), Some(TARGET));
    }
    assert_eq!(switch.lookups() - before, 1);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let (app, switch) = app_with_switch(&[]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    app.clock.advance(CACHE_TTL);
    switch.set(Mood::Fails);
    let before = switch.lookups();
    check_unavailable(&follow(&app, &code).await);
    check_unavailable(&follow(&app, &code).await);
    assert_eq!(switch.lookups() - before, 2);
}

#[tokio::test]
async fn a_lookup_from_before_a_change_is_not_kept() {
    let new = "https://example.com/new";
    let change = async |app: &TestApp, key: &str, code: &str| {
        let path = format!("/api/v1/urls/{code}");
        let changed = app.patch(&path).bearer(key).json(json!({"long_url": new})).send().await;
        assert_eq!(changed.status, 200);
    };
    let delete = async |app: &TestApp, key: &str, code: &str| {
        assert_eq!(app.delete(&format!("/api/v1/urls/{code}")).bearer(key).send().await.status, 204);
    };
    for deletes in [false, true] {
        let (app, switch) = app_with_switch(&[]).await;
        let key = app.key("ann").await;
        let code = app.link(&key, json!({"long_url": TARGET})).await;
        app.clock.advance(CACHE_TTL);
        switch.set(Mood::HoldsLookups);
        let early = tokio::spawn(app.get(&format!("/{code}")).send());
        switch.wait_for_held(1).await;
        match deletes {
            true => delete(&app, &key, &code).await,
            false => change(&app, &key, &code).await,
        }
        // Asked after the change: its own lookup, not the one from before.
        let late = tokio::spawn(app.get(&format!("/{code}")).send());
        switch.wait_for_held(2).await;
        switch.set(Mood::Works);
        assert_eq!(early.await.unwrap().header("location"), Some(TARGET));
        for answer in [late.await.unwrap(), follow(&app, &code).await, follow(&app, &code).await] {
            match deletes {
                true => assert_eq!(answer.code(), "URL_DELETED"),
                false => assert_eq!(answer.header("location"), Some(new)),
            }
        }
    }
}

#[tokio::test]
async fn missing_is_forgotten_when_the_link_is_made() {
    let (app, switch) = app_with_switch(&[]).await;
    let key = app.key("ann").await;
    let create = json!({"long_url": TARGET, "custom_alias": "spring-sale"});
    // Known as missing, then made.
    assert_eq!(follow(&app, "spring-sale").await.status, 404);
    let code = app.link(&key, create).await;
    assert_eq!(follow(&app, &code).await.header("location"), Some(TARGET));
    // Made while a lookup that has found nothing is still on its way back.
    switch.set(Mood::HoldsLookups);
    let early = tokio::spawn(app.get("/autumn-sale").send());
    switch.wait_for_held(1).await;
    let code = app.link(&key, json!({"long_url": TARGET, "custom_alias": "autumn-sale"})).await;
    switch.set(Mood::Works);
    assert_eq!(early.await.unwrap().status, 404);
    for _ in 0..3 {
        assert_eq!(follow(&app, &code).await.header("location"), Some(TARGET));
    }
}
