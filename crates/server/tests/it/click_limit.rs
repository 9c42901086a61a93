//! Links whose target is revealed a limited number of times.

use crate::support::{Method, TestApp, TestResponse, Value, json};

const TARGET: &str = "https://limited.example/target";

async fn read(app: &TestApp, key: &str, code: &str) -> Value {
    app.get(&format!("/api/v1/urls/{code}")).bearer(key).send().await.json()
}

/// Follows a link by `count` connections at once.
async fn follow_at_once(app: &TestApp, code: &str, count: usize) -> Vec<TestResponse> {
    let asking: Vec<_> = (0..count).map(|_| tokio::spawn(app.get(&format!("/{code}")).send())).collect();
    let mut answers = Vec::with_capacity(count);
    for asking in asking {
        answers.push(asking.await.unwrap());
    }
    answers
}

/// How many were redirected; all others must have learned nothing but why.
#[track_caller]
fn redirects(answers: &[TestResponse]) -> usize {
    let (followed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 302);
    for answer in &followed {
        assert_eq!(answer.header("location"), Some(TARGET));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (410, "CLICK_LIMIT_REACHED"), "{answer:?}");
        assert_eq!(answer.header("location"), None);
    }
    followed.len()
}

#[tokio::test]
async fn a_thousand_visitors_at_once_get_exactly_a_hundred_clicks() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "click_limit": 100})).await;
    let beside = app.link(&key, json!({"long_url": TARGET, "click_limit": 1})).await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    let answers = follow_at_once(&app, &code, 1_000).await;
    assert_eq!(redirects(&answers), 100);
    let link = read(&app, &key, &code).await;
    assert_eq!((&link["clicks_used"], &link["state"]), (&json!(100), &json!("exhausted")));
    // Other links have lost nothing.
    assert_eq!(read(&app, &key, &beside).await["clicks_used"], 0);
    assert_eq!(app.follow(&beside).await.status, 302);
    assert_eq!(app.follow(&plain).await.status, 302);
    let app = app.restart(&[]).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 20).await), 0);
}

#[tokio::test]
async fn clicks_are_counted_on_over_a_restart() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "click_limit": 5})).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 2).await), 2);
    let app = app.restart(&[]).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 10).await), 3);
}

#[tokio::test]
async fn who_does_not_visit_uses_no_click_and_learns_nothing() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "click_limit": 1})).await;
    let check = async |method: Method, header: Option<(&str, &str)>| {
        let mut request = app.request(method.clone(), &format!("/{code}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!((answer.status, answer.header("location")), (200, None), "{method} {header:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!format!("{answer:?}").contains("limited.example"), "{method} {header:?}");
    };
    for _ in 0..3 {
        check(Method::HEAD, None).await;
        check(Method::GET, Some(("sec-purpose", "prefetch"))).await;
        check(Method::GET, Some(("sec-purpose", "prefetch;prerender"))).await;
        check(Method::GET, Some(("sec-purpose", "Prefetch;anonymous-client-ip"))).await;
        check(Method::GET, Some(("purpose", "prefetch"))).await;
        check(Method::GET, Some(("x-moz", "prefetch"))).await;
        check(Method::HEAD, Some(("sec-purpose", "prefetch"))).await;
    }
    assert_eq!(read(&app, &key, &code).await["clicks_used"], 0);
    assert_eq!(app.follow(&code).await.status, 302);
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(app.request(method, &format!("/{code}")).send().await.status, 410);
    }
}

#[tokio::test]
async fn a_raised_limit_goes_on_where_the_old_one_ended() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "click_limit": 2})).await;
    let change = async |limit: Value| {
        let path = format!("/api/v1/urls/{code}");
        let changed = app.patch(&path).bearer(&key).json(json!({"click_limit": limit})).send().await;
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    assert_eq!(redirects(&follow_at_once(&app, &code, 10).await), 2);
    change(json!(5)).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 10).await), 3);
    // One that is lower than what is used lets nobody through; one more than that, one.
    change(json!(3)).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 3).await), 0);
    change(json!(6)).await;
    assert_eq!(redirects(&follow_at_once(&app, &code, 3).await), 1);
    change(Value::Null).await;
    for _ in 0..3 {
        let followed = app.follow(&code).await;
        assert_eq!((followed.status, followed.header("location")), (302, Some(TARGET)));
    }
}

#[tokio::test]
async fn a_limited_link_still_expires_and_stops() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "click_limit": 10, "expires_in": 10})).await;
    assert_eq!(app.follow(&code).await.status, 302);
    app.clock.advance(10_000);
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
    assert_eq!(read(&app, &key, &code).await["clicks_used"], 1);
    app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
    assert_eq!(app.follow(&code).await.code(), "URL_DELETED");
}
