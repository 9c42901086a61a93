//! Links that ask for a password.

use crate::support::{Method, TestApp, TestRequest, TestResponse, Value, json};

const TARGET: &str = "https://secret.example/target";
const BROWSER: &str = "text/html,application/xhtml+xml";
const FORM: &str = "application/x-www-form-urlencoded";

#[track_caller]
fn names_no_target(answer: &TestResponse) {
    assert!(!format!("{answer:?}").contains("secret.example"), "{answer:?}");
}

/// Gives a password by the page's form.
fn give(app: &TestApp, code: &str, password: &str) -> TestRequest {
    let body: String =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("password", password).finish();
    app.post(&format!("/{code}")).body(FORM, body)
}

/// `name=value` of the cookie that an answer sets.
#[track_caller]
fn cookie_of(answer: &TestResponse) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    cookie.split(';').next().unwrap().to_owned()
}

async fn unlock(app: &TestApp, code: &str, password: &str) -> String {
    let opened = give(app, code, password).send().await;
    assert_eq!(opened.status, 303, "{opened:?}");
    cookie_of(&opened)
}

async fn follow_with(app: &TestApp, code: &str, cookie: &str) -> TestResponse {
    app.get(&format!("/{code}")).header("cookie", cookie).send().await
}

async fn change(app: &TestApp, key: &str, code: &str, fields: Value) {
    let changed = app.patch(&format!("/api/v1/urls/{code}")).bearer(key).json(fields).send().await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

#[tokio::test]
async fn a_visitor_is_asked_and_learns_nothing_before() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame", "redirect_type": 301})).await;

    let page = app.get(&format!("/{code}")).header("accept", BROWSER).send().await;
    assert_eq!((page.status, page.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.header("content-security-policy").is_some());
    assert!(page.text().contains(&format!("action=\"/{code}\"")), "{}", page.text());
    names_no_target(&page);

    let problem = app.follow(&code).await;
    assert_eq!((problem.status, problem.code().as_str()), (401, "PASSWORD_REQUIRED"));
    assert_eq!(problem.header("cache-control"), Some("no-store"));
    names_no_target(&problem);

    for request in [
        app.request(Method::HEAD, &format!("/{code}")),
        app.get(&format!("/{code}")).header("sec-purpose", "prefetch"),
        app.get(&format!("/{code}")).header("cookie", "terse_unlock="),
        app.get(&format!("/{code}?password=sesame")),
        give(&app, &code, "wrong"),
        give(&app, &code, "wrong").header("accept", BROWSER),
        give(&app, &code, ""),
        give(&app, &code, "Sesame"),
        app.post(&format!("/{code}")).json(json!({"password": "sesame "})),
    ] {
        let answer = request.send().await;
        assert_eq!((answer.status, answer.header("location")), (401, None), "{answer:?}");
        assert_eq!(answer.header("set-cookie"), None, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        names_no_target(&answer);
    }
}

#[tokio::test]
async fn the_password_opens_the_link_by_form_and_by_json() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let password = "säsame & 100%+1";
    let code = app.link(&key, json!({"long_url": TARGET, "password": password, "redirect_type": 301})).await;
    let json_body = json!({"password": password});
    for request in [
        give(&app, &code, password),
        give(&app, &code, password).header("accept", BROWSER),
        app.post(&format!("/{code}")).json(json_body.clone()),
        app.post(&format!("/{code}/")).json(json_body),
    ] {
        let opened = request.send().await;
        assert_eq!((opened.status, opened.header("location")), (303, Some(TARGET)), "{opened:?}");
        assert_eq!(opened.header("cache-control"), Some("no-store"));
        assert_eq!(opened.header("referrer-policy"), Some("no-referrer"));
        let cookie = opened.header("set-cookie").unwrap();
        let mut attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
        attributes.sort_unstable();
        let path = format!("Path=/{code}");
        assert_eq!(attributes, ["HttpOnly", "Max-Age=600", path.as_str(), "SameSite=Lax"]);
        assert!(!cookie.contains("same &"), "{cookie}");
        let followed = follow_with(&app, &code, &cookie_of(&opened)).await;
        assert_eq!((followed.status, followed.header("location")), (301, Some(TARGET)), "{followed:?}");
        assert_eq!(followed.header("cache-control"), Some("no-store"));
        assert_eq!(followed.header("referrer-policy"), Some("no-referrer"));
    }
}

#[tokio::test]
async fn the_cookie_is_for_https_alone_where_links_are() {
    let app = TestApp::with(&[("base_url", "https://sho.rt")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let opened = give(&app, &code, "sesame").send().await;
    assert!(opened.header("set-cookie").unwrap().ends_with("; Secure"), "{opened:?}");
}

#[tokio::test]
async fn the_cookie_opens_one_link_in_one_revision_for_ten_minutes() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let locked = json!({"long_url": TARGET, "password": "sesame"});
    let code = app.link(&key, locked.clone()).await;
    let other = app.link(&key, locked).await;
    let cookie = unlock(&app, &code, "sesame").await;
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 302);
    assert_eq!(follow_with(&app, &code, &format!("a=b; {cookie}; c=d")).await.status, 302);
    assert_eq!(follow_with(&app, &code, &format!("terse_unlock=stale; {cookie}")).await.status, 302);
    assert_eq!(follow_with(&app, &other, &cookie).await.status, 401);

    app.clock.advance(599_999);
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 302);
    app.clock.advance(1);
    let late = follow_with(&app, &code, &cookie).await;
    assert_eq!(late.status, 401);
    names_no_target(&late);

    let cookie = unlock(&app, &code, "sesame").await;
    change(&app, &key, &code, json!({"title": "A new revision"})).await;
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 401);
    let cookie = unlock(&app, &code, "sesame").await;
    change(&app, &key, &code, json!({"password": "mellon"})).await;
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 401);
    assert_eq!(give(&app, &code, "sesame").send().await.status, 401);
    let cookie = unlock(&app, &code, "mellon").await;
    // It is as good after a restart: the secret is the store's.
    let app = app.restart(&[]).await;
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 302);
    change(&app, &key, &code, json!({"password": null})).await;
    assert_eq!(app.follow(&code).await.header("location"), Some(TARGET));
}

#[tokio::test]
async fn a_forged_cookie_opens_nothing() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let cookie = unlock(&app, &code, "sesame").await;
    let (name, value) = cookie.split_once('=').unwrap();
    let (until, mac) = value.split_once('.').unwrap();
    let later = until.parse::<i64>().unwrap() + 1;
    let flipped = format!("{}{}", if mac.starts_with('0') { '1' } else { '0' }, &mac[1..]);
    for forged in [
        format!("{name}={later}.{mac}"),
        format!("{name}={until}.{flipped}"),
        format!("{name}={until}.{}", "0".repeat(64)),
        format!("{name}={until}."),
        format!("{name}={until}"),
        format!("{name}=.{mac}"),
        format!("{name}={until}.{}", &mac[..63]),
        format!("{name}={until}.{mac}0"),
        format!("{name}={}.{mac}", i64::MAX),
        format!("{name}=99999999999999999999.{mac}"),
        format!("{name}=-1.{mac}"),
        format!("{name}x={value}"),
        format!("Terse_Unlock={value}"),
    ] {
        let answer = follow_with(&app, &code, &forged).await;
        assert_eq!(answer.status, 401, "{forged}");
        names_no_target(&answer);
    }
    assert_eq!(follow_with(&app, &code, &cookie).await.status, 302);
}

#[tokio::test]
async fn attempts_are_limited_per_link_and_address() {
    let settings = [("rate_limits", "on"), ("trusted_proxies", "127.0.0.1"), ("passwords_per_minute", "3")];
    let app = TestApp::with(&settings).await;
    let key = app.key("ann").await;
    let locked = json!({"long_url": TARGET, "password": "sesame"});
    let code = app.link(&key, locked.clone()).await;
    let other = app.link(&key, locked).await;
    let attempt = async |code: &str, password: &str, address: &str| {
        give(&app, code, password).header("x-forwarded-for", address).send().await
    };
    for _ in 0..3 {
        assert_eq!(attempt(&code, "wrong", "192.0.2.1").await.status, 401);
    }
    for password in ["wrong", "sesame", "x".repeat(100).as_str()] {
        let refused = attempt(&code, password, "192.0.2.1").await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "RATE_LIMIT_EXCEEDED"));
        assert_eq!(refused.header("retry-after"), Some("20"));
        assert_eq!((refused.header("location"), refused.header("set-cookie")), (None, None));
        names_no_target(&refused);
    }
    let page = give(&app, &code, "sesame").header("x-forwarded-for", "192.0.2.1");
    let page = page.header("accept", BROWSER).send().await;
    assert_eq!((page.status, page.header("content-type")), (429, Some("text/html; charset=utf-8")));
    // Another link, and another address, have attempts of their own; a /64 is one address.
    assert_eq!(attempt(&other, "sesame", "192.0.2.1").await.status, 303);
    assert_eq!(attempt(&code, "sesame", "192.0.2.2").await.status, 303);
    for host in 1..=3 {
        assert_eq!(attempt(&code, "wrong", &format!("2001:db8::{host}")).await.status, 401);
    }
    assert_eq!(attempt(&code, "sesame", "2001:db8::4").await.status, 429);
    assert_eq!(attempt(&code, "sesame", "2001:db8:0:1::4").await.status, 303);
    app.clock.advance(19_999);
    assert_eq!(attempt(&code, "sesame", "192.0.2.1").await.header("retry-after"), Some("1"));
    app.clock.advance(1);
    assert_eq!(attempt(&code, "sesame", "192.0.2.1").await.status, 303);
    assert_eq!(attempt(&code, "sesame", "192.0.2.1").await.status, 429);
}

#[tokio::test]
async fn an_unlocked_visit_takes_exactly_one_click() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame", "click_limit": 3})).await;
    let check_used = async |clicks: u32, when: &str| {
        let link = app.get(&format!("/api/v1/urls/{code}")).bearer(&key).send().await.json();
        assert_eq!(link["clicks_used"], clicks, "{when}");
    };
    assert_eq!(app.follow(&code).await.status, 401);
    assert_eq!(give(&app, &code, "wrong").send().await.status, 401);
    check_used(0, "asked, and a wrong password").await;
    let cookie = unlock(&app, &code, "sesame").await;
    check_used(1, "the right password").await;
    let head = app.request(Method::HEAD, &format!("/{code}")).header("cookie", &cookie).send().await;
    assert_eq!((head.status, head.header("location")), (200, None));
    check_used(1, "a HEAD with the cookie").await;
    assert_eq!(follow_with(&app, &code, &cookie).await.header("location"), Some(TARGET));
    check_used(2, "the cookie").await;
    // At once, for the last click: one gets it.
    let asking: Vec<_> = (0..8).map(|_| tokio::spawn(give(&app, &code, "sesame").send())).collect();
    let mut opened = 0;
    for asking in asking {
        let answer = asking.await.unwrap();
        match answer.status {
            303 => opened += 1,
            410 => {
                assert_eq!(answer.header("set-cookie"), None);
                names_no_target(&answer);
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert_eq!(opened, 1);
    check_used(3, "all").await;
    assert_eq!(follow_with(&app, &code, &cookie).await.code(), "CLICK_LIMIT_REACHED");
}

#[tokio::test]
async fn a_locked_link_expires_and_begins_like_any_other() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let fields = json!({"long_url": TARGET, "password": "sesame", "expires_in": 60});
    let code = app.link(&key, fields).await;
    let starts_at = app.clock.now().plus_seconds(30).to_string();
    let fields = json!({"long_url": TARGET, "password": "sesame", "starts_at": starts_at});
    let scheduled = app.link(&key, fields).await;
    let cookie = unlock(&app, &code, "sesame").await;
    assert_eq!(give(&app, &scheduled, "sesame").send().await.code(), "LINK_NOT_STARTED");
    app.clock.advance(60_000);
    assert_eq!(follow_with(&app, &code, &cookie).await.code(), "URL_EXPIRED");
    let late = give(&app, &code, "sesame").send().await;
    assert_eq!((late.status, late.code().as_str()), (410, "URL_EXPIRED"));
    assert_eq!(late.header("set-cookie"), None);
    assert_eq!(give(&app, &scheduled, "sesame").send().await.status, 303);
    change(&app, &key, &scheduled, json!({"enabled": false})).await;
    assert_eq!(give(&app, &scheduled, "sesame").send().await.code(), "LINK_DISABLED");
}

#[tokio::test]
async fn a_crowd_of_passwords_is_turned_away_not_queued_without_end() {
    let app = TestApp::with(&[("password_threads", "1")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    // More than the queue holds, and far faster than one thread hashes.
    let asking: Vec<_> = (0..150).map(|_| tokio::spawn(give(&app, &code, "wrong").send())).collect();
    assert_eq!(app.follow(&plain).await.status, 302, "redirects don't wait behind passwords");
    let mut turned_away = 0;
    for asking in asking {
        let answer = asking.await.unwrap();
        match answer.status {
            401 => {}
            503 => {
                assert_eq!(
                    (answer.code().as_str(), answer.header("retry-after")),
                    ("UNAVAILABLE", Some("1"))
                );
                turned_away += 1;
            }
            other => panic!("{other}: {answer:?}"),
        }
        names_no_target(&answer);
    }
    assert!(turned_away > 0);
    assert_eq!(give(&app, &code, "sesame").send().await.status, 303);
}

#[tokio::test]
async fn passwords_are_bounded() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let check = async |password: &str, status: u16| {
        let fields = json!({"long_url": TARGET, "password": password});
        let made = app.post("/api/v1/urls").bearer(&key).json(fields).send().await;
        assert_eq!(made.status, status, "{password}");
        match status {
            201 => {
                assert_eq!(made.json()["has_password"], true);
                assert!(!made.text().contains(&format!("\"{password}\"")), "{}", made.text());
                let code = made.json()["short_code"].as_str().unwrap().to_owned();
                assert_eq!(give(&app, &code, password).send().await.status, 303, "{password}");
                assert_eq!(give(&app, &code, &format!("{password}!")).send().await.status, 401, "{password}");
            }
            _ => assert_eq!(made.json()["field"], "password"),
        }
    };
    check("", 400).await;
    check("x", 201).await;
    check(&"x".repeat(64), 201).await;
    check(&"ü".repeat(64), 201).await;
    check(&"x".repeat(65), 400).await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    assert_eq!(give(&app, &code, &"x".repeat(10_000)).send().await.status, 401);
    assert_eq!(give(&app, &code, &"x".repeat(300_000)).send().await.status, 413);
}

#[tokio::test]
async fn what_a_post_to_a_short_link_gets() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let plain = app.link(&key, json!({"long_url": TARGET})).await;
    let locked = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let deleted = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    app.delete(&format!("/api/v1/urls/{deleted}")).bearer(&key).send().await;
    let check = async |code: &str, content_type: &str, body: &'static str, status: u16, reason: &str| {
        let answer = app.post(&format!("/{code}")).body(content_type, body).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, reason), "{code} {content_type} {body}");
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
        names_no_target(&answer);
    };
    let json = "application/json";
    check(&plain, FORM, "password=sesame", 405, "METHOD_NOT_ALLOWED").await;
    check(&deleted, FORM, "password=sesame", 410, "URL_DELETED").await;
    check("unknown", FORM, "password=sesame", 404, "URL_NOT_FOUND").await;
    check("no.code", FORM, "password=sesame", 404, "URL_NOT_FOUND").await;
    check(&locked, FORM, "", 401, "PASSWORD_REQUIRED").await;
    check(&locked, "text/plain", "password=sesame", 415, "UNSUPPORTED_MEDIA_TYPE").await;
    check(&locked, "multipart/form-data; boundary=x", "--x--", 415, "UNSUPPORTED_MEDIA_TYPE").await;
    check(&locked, json, "{", 400, "VALIDATION_ERROR").await;
    check(&locked, json, "{}", 400, "VALIDATION_ERROR").await;
    check(&locked, json, r#"{"password": 1}"#, 400, "VALIDATION_ERROR").await;
    check(&locked, json, r#"{"password": "sesame", "more": 1}"#, 400, "VALIDATION_ERROR").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_deleted_while_its_password_is_checked_stays_shut() {
    let app = TestApp::with(&[("password_threads", "1")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    // One thread checks them one after the other, so most are under way when the link goes.
    let checks: Vec<_> = (0..20).map(|_| tokio::spawn(give(&app, &code, "sesame").send())).collect();
    while app.running.app.metrics.redirects.get() == 0 {
        tokio::task::yield_now().await;
    }
    let deleted = app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
    assert_eq!(deleted.status, 204);
    let revealed = app.running.app.metrics.redirects.get();
    let mut answers = Vec::new();
    for check in checks {
        answers.push(check.await.unwrap());
    }
    let opened = answers.iter().filter(|answer| answer.status == 303).count();
    assert!(opened as u64 <= revealed, "{opened} were opened, {revealed} of them before the link was gone");
    for answer in answers.iter().filter(|answer| answer.status != 303) {
        assert!(matches!(answer.status, 410 | 503), "{answer:?}");
        names_no_target(answer);
    }
}

#[tokio::test]
async fn a_forwarded_query_survives_the_password() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let fields = json!({"long_url": TARGET, "password": "sesame", "forward_query": true});
    let code = app.link(&key, fields).await;
    let page = app.get(&format!("/{code}?from=mail")).header("accept", BROWSER).send().await;
    assert!(page.text().contains(&format!("action=\"/{code}?from=mail\"")), "{}", page.text());
    let opened = app.post(&format!("/{code}?from=mail")).body(FORM, "password=sesame").send().await;
    assert_eq!(opened.header("location"), Some(format!("{TARGET}?from=mail").as_str()));
}
