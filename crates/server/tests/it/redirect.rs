//! Following a link: statuses, headers, paths and hosts.

use crate::support::raw::{RawConnection, exchange};
use crate::support::{Method, TestApp, TestResponse, Value, json};

const TARGET: &str = "https://example.com/target";
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[tokio::test]
async fn statuses_and_how_long_browsers_keep_them() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let check = async |fields: Value, status: u16, cache_control: &str| {
        let code = app.link(&key, fields.clone()).await;
        for method in [Method::GET, Method::HEAD] {
            let followed = app.request(method.clone(), &format!("/{code}")).send().await;
            assert_eq!(followed.status, status, "{method} {fields}");
            assert_eq!(followed.header("location"), Some(TARGET), "{method} {fields}");
            assert_eq!(followed.header("cache-control"), Some(cache_control), "{method} {fields}");
            assert!(followed.body.is_empty(), "{method} {fields}");
        }
    };
    check(json!({"long_url": TARGET}), 302, "private, no-store").await;
    check(json!({"long_url": TARGET, "redirect_type": 301}), 301, "private, max-age=30").await;
    check(json!({"long_url": TARGET, "redirect_type": "302"}), 302, "private, no-store").await;
    check(json!({"long_url": TARGET, "redirect_type": 307}), 307, "private, no-store").await;
    check(json!({"long_url": TARGET, "redirect_type": 308}), 308, "private, max-age=30").await;
    check(json!({"long_url": TARGET, "redirect_type": "permanent"}), 301, "private, max-age=30").await;
    check(json!({"long_url": TARGET, "redirect_type": "temporary"}), 302, "private, no-store").await;
}

#[tokio::test]
async fn a_plain_redirect_is_small() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for redirect_type in [301, 302, 307, 308] {
        let code = app.link(&key, json!({"long_url": TARGET, "redirect_type": redirect_type})).await;
        for method in ["GET", "HEAD"] {
            let mut connection = RawConnection::open(app.address()).await;
            let close = "connection: close";
            connection
                .send(format!("{method} /{code} HTTP/1.1\r\nhost: go.example\r\n{close}\r\n\r\n"))
                .await;
            let answer = connection.rest().await;
            assert!(answer.starts_with(b"HTTP/1.1 30"), "{}", answer.escape_ascii());
            assert!(answer.len() - TARGET.len() <= 350, "{} bytes: {}", answer.len(), answer.escape_ascii());
        }
    }
}

#[tokio::test]
async fn what_a_path_may_look_like() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": TARGET, "custom_alias": "Spring_sale-1"})).await;
    let check = async |target: &[u8], status: u16| {
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(target);
        request.extend_from_slice(b" HTTP/1.1\r\nhost: go.example\r\n\r\n");
        let answer = exchange(app.address(), request).await.expect("an answer");
        assert_eq!(answer.status, status, "{}", target.escape_ascii());
        let expected = (status == 302).then(|| TARGET.to_owned());
        assert_eq!(answer.header("location"), expected, "{}", target.escape_ascii());
    };
    check(b"/Spring_sale-1", 302).await;
    // A slash at the end, and a query that is not forwarded, are ignored.
    check(b"/Spring_sale-1/", 302).await;
    check(b"/Spring_sale-1?utm_source=x&a=https://evil.example/", 302).await;
    check(b"/Spring_sale-1/?", 302).await;
    check(b"/Spring_sale-1//", 404).await;
    check(b"//Spring_sale-1", 404).await;
    check(b"/Spring_sale-1/more", 404).await;
    check(b"/./Spring_sale-1", 404).await;
    // Percent-encoding is undone once.
    check(b"/%53pring_sale-1", 302).await;
    check(b"/%53%70%72%69%6e%67%5F%73%61%6C%65%2d%31", 302).await;
    check(b"/Spring%5fsale-1/", 302).await;
    check(b"/%2553pring_sale-1", 404).await;
    check(b"/Spring_sale-1%2F", 404).await;
    check(b"/Spring_sale-1%", 404).await;
    check(b"/Spring_sale-1%0d%0aset-cookie:a=b", 404).await;
    check(b"/Spring_sale-1%00", 404).await;
    check(b"/Spring_sale-1%20", 404).await;
    check(b"/%ff%fe", 404).await;
    check(b"/%c3%28", 404).await;
    check("/Spring_s%C3%A4le".as_bytes(), 404).await;
    // Codes are compared by case.
    check(b"/spring_sale-1", 404).await;
    check(b"/SPRING_SALE-1", 404).await;
    // Longer than any code.
    check(format!("/{}", "a".repeat(65)).as_bytes(), 404).await;
    check(format!("/{}", "a".repeat(5_000)).as_bytes(), 404).await;
    // Bytes that no URL holds: refused by the parser of the request, or as a code that can't be.
    for target in [&b"/\xff\xfe"[..], b"/Spring_sale-1\xff", b"/Spring_sale-1\x00"] {
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(target);
        request.extend_from_slice(b" HTTP/1.1\r\nhost: go.example\r\n\r\n");
        let answer = exchange(app.address(), request).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {}", target.escape_ascii()));
        assert!(matches!(answer.status, 400 | 404), "{} {}", target.escape_ascii(), answer.status);
        assert_eq!(answer.header("location"), None);
    }
}

#[tokio::test]
async fn a_query_goes_on_to_the_target_where_the_link_says_so() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let check = async |target: &str, query: &[u8], location: &str| {
        let code = app.link(&key, json!({"long_url": target, "forward_query": true})).await;
        let mut request = format!("GET /{code}").into_bytes();
        request.extend_from_slice(query);
        request.extend_from_slice(b" HTTP/1.1\r\nhost: go.example\r\n\r\n");
        let answer = exchange(app.address(), request).await.expect("an answer");
        assert_eq!(answer.status, 302, "{target} {}", query.escape_ascii());
        assert_eq!(answer.header("location").unwrap(), location, "{target} {}", query.escape_ascii());
    };
    check("https://example.com/a", b"", "https://example.com/a").await;
    check("https://example.com/a", b"?", "https://example.com/a").await;
    check("https://example.com/a", b"?b=1", "https://example.com/a?b=1").await;
    check("https://example.com/a", b"/?b=1", "https://example.com/a?b=1").await;
    check("https://example.com/a?", b"?b=1", "https://example.com/a?b=1").await;
    check("https://example.com/a?c=2", b"?b=1&b=2", "https://example.com/a?c=2&b=1&b=2").await;
    check("https://example.com/a?c=2#top", b"?b=1", "https://example.com/a?c=2&b=1#top").await;
    check("https://example.com/#top", b"?b", "https://example.com/?b#top").await;
    check("https://example.com/a", b"?b=%0d%0aX:%20y", "https://example.com/a?b=%0d%0aX:%20y").await;
    check("https://example.com/a", b"?b=%2523", "https://example.com/a?b=%2523").await;
    check("https://example.com/a", b"?q=?/:@!$&()*+,;=", "https://example.com/a?q=?/:@!$&()*+,;=").await;
    check("https://example.com/a", b"?b='x'", "https://example.com/a?b=%27x%27").await;
}

#[tokio::test]
async fn a_query_is_not_forwarded_unless_the_link_says_so() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": "https://example.com/a?c=2"})).await;
    let followed = app.get(&format!("/{code}?b=1")).send().await;
    assert_eq!(followed.header("location"), Some("https://example.com/a?c=2"));
    let change = json!({"forward_query": true});
    app.patch(&format!("/api/v1/urls/{code}")).bearer(&key).json(change).send().await;
    let followed = app.get(&format!("/{code}?b=1")).send().await;
    assert_eq!(followed.header("location"), Some("https://example.com/a?c=2&b=1"));
}

#[tokio::test]
async fn an_unknown_code_is_a_page_for_people_and_json_for_programs() {
    let app = TestApp::start().await;
    let check = async |accept: Option<&str>, is_page: bool| {
        let mut request = app.get("/nothing-here");
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, 404, "{accept:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{accept:?}");
        if is_page {
            assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{accept:?}");
            assert!(answer.text().contains("No such link"), "{}", answer.text());
        } else {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{accept:?}");
            assert_eq!(answer.code(), "URL_NOT_FOUND", "{accept:?}");
            assert_eq!(answer.json()["status"], 404);
        }
    };
    check(None, false).await;
    check(Some("*/*"), false).await;
    check(Some("application/json"), false).await;
    check(Some("application/json, text/html"), false).await;
    check(Some(BROWSER), true).await;
    check(Some("text/html"), true).await;
}

#[tokio::test]
async fn links_that_do_not_redirect_say_why() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let check = async |code: &str, status: u16, reason: &str, retry_after: Option<&str>| {
        for method in [Method::GET, Method::HEAD] {
            for path in [format!("/{code}"), format!("/{code}/?q")] {
                let answer = app.request(method.clone(), &path).send().await;
                assert_eq!(answer.status, status, "{method} {path}");
                assert_eq!(answer.header("location"), None, "{method} {path}");
                assert_eq!(answer.header("retry-after"), retry_after, "{method} {path}");
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
                if method == Method::GET {
                    assert_eq!(answer.code(), reason, "{path}");
                }
            }
        }
        let page = app.get(&format!("/{code}")).header("accept", BROWSER).send().await;
        assert_eq!(page.status, status);
        assert!(!page.text().contains("example.com/target"), "a page names no target");
    };

    let deleted = app.link(&key, json!({"long_url": TARGET})).await;
    app.delete(&format!("/api/v1/urls/{deleted}")).bearer(&key).send().await;
    check(&deleted, 410, "URL_DELETED", None).await;

    let disabled = app.link(&key, json!({"long_url": TARGET, "enabled": false})).await;
    check(&disabled, 410, "LINK_DISABLED", None).await;

    let starts_at = "2027-01-15T08:01:30.500Z";
    let scheduled = app.link(&key, json!({"long_url": TARGET, "starts_at": starts_at})).await;
    check(&scheduled, 404, "LINK_NOT_STARTED", Some("91")).await;

    let expired = app.link(&key, json!({"long_url": TARGET, "expires_in": 1})).await;
    app.clock.advance(1_000);
    check(&expired, 410, "URL_EXPIRED", None).await;
    check(&scheduled, 404, "LINK_NOT_STARTED", Some("90")).await;

    app.clock.advance(89_499);
    check(&scheduled, 404, "LINK_NOT_STARTED", Some("1")).await;
    app.clock.advance(1);
    let started = app.follow(&scheduled).await;
    assert_eq!((started.status, started.header("location")), (302, Some(TARGET)));
    assert_eq!(started.header("cache-control"), Some("no-store"));

    let resumed =
        app.patch(&format!("/api/v1/urls/{disabled}")).bearer(&key).json(json!({"enabled": true})).send();
    assert_eq!(resumed.await.status, 200);
    assert_eq!(app.follow(&disabled).await.status, 302);
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let counted = app.link(&key, json!({"long_url": TARGET, "click_limit": 1})).await;
    let locked = app.link(&key, json!({"long_url": TARGET, "password": "sesame"})).await;
    let mut answers = Vec::new();
    for path in [&code, &counted, &counted, &locked, "unknown", "unknown/deep", "", "health", "api/v1/urls"] {
        answers.push(app.get(&format!("/{path}")).send().await);
        answers.push(app.get(&format!("/{path}")).header("accept", BROWSER).send().await);
        answers.push(app.request(Method::HEAD, &format!("/{path}")).send().await);
    }
    answers.push(app.delete(&format!("/{code}")).send().await);
    answers.push(app.post(&format!("/{code}")).json(json!({"password": "x"})).send().await);
    answers.push(app.post(&format!("/{locked}")).json(json!({"password": "x"})).send().await);
    answers.push(app.post("/api/v1/urls").bearer("wrong").json(json!({})).send().await);
    answers.push(app.post("/api/v1/urls").bearer(&key).json(json!({"long_url": 1})).send().await);
    answers.push(app.post("/api/v1/urls").bearer(&key).body("text/plain", "x").send().await);
    answers.push(app.request(Method::TRACE, "/api/v1/urls").send().await);

    let id_of = |answer: &TestResponse| answer.header("x-request-id").expect("an id").to_owned();
    let mut ids: Vec<String> = answers.iter().map(id_of).collect();
    for answer in &answers {
        let id = id_of(answer);
        match answer.header("content-type") {
            Some("application/problem+json") if !answer.body.is_empty() => {
                assert_eq!(answer.json()["request_id"], id, "{answer:?}");
            }
            Some("text/html; charset=utf-8")
                if matches!(answer.status, 404 | 410) && !answer.body.is_empty() =>
            {
                assert!(answer.text().contains(&id), "{answer:?}");
            }
            _ => {}
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), answers.len(), "no id comes twice");
}

#[tokio::test]
async fn a_proxy_style_target_is_served_by_its_own_host() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    add_domain(&app, &admin, "go.example").await;
    let code = app.link(&admin, json!({"long_url": TARGET, "domain": "go.example"})).await;
    let check = async |target: String, host: &str, status: u16| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = exchange(app.address(), request).await.expect("an answer");
        assert_eq!(answer.status, status, "{target} with host {host}");
    };
    // The target's own authority wins over the header (RFC 9112, section 3.2.2).
    check(format!("http://go.example/{code}"), "elsewhere.example", 302).await;
    check(format!("http://GO.example.:80/{code}?a=b"), "elsewhere.example", 302).await;
    check(format!("https://go.example:8443/{code}/"), "elsewhere.example", 302).await;
    check(format!("http://elsewhere.example/{code}"), "go.example", 404).await;
    check("http://go.example".to_owned(), "go.example", 200).await;
    check("http://go.example/health".to_owned(), "go.example", 200).await;
}

async fn add_domain(app: &TestApp, admin: &str, name: &str) {
    let added = app.post("/api/v1/domains").bearer(admin).json(json!({"name": name})).send().await;
    assert_eq!(added.status, 201, "{added:?}");
}

/// Follows a code under a Host.
async fn follow_at(app: &TestApp, host: &str, code: &str) -> TestResponse {
    app.get(&format!("/{code}")).header("host", host).send().await
}

#[tokio::test]
async fn a_code_belongs_to_the_domain_of_its_host() {
    let app = TestApp::with(&[("base_url", "https://sho.rt")]).await;
    let admin = app.admin_key().await;
    let before = app.link(&admin, json!({"long_url": TARGET})).await;
    // With one domain every host is it.
    assert_eq!(follow_at(&app, "anything.example", &before).await.status, 302);
    add_domain(&app, &admin, "go.example").await;
    let here = "https://example.com/default";
    let there = "https://example.com/go";
    app.link(&admin, json!({"long_url": here, "custom_alias": "sale"})).await;
    app.link(&admin, json!({"long_url": there, "custom_alias": "sale", "domain": "go.example"})).await;
    let only_there = app.link(&admin, json!({"long_url": there, "domain": "GO.example"})).await;
    let check = async |host: &str, location: &str| {
        let followed = follow_at(&app, host, "sale").await;
        assert_eq!((followed.status, followed.header("location")), (302, Some(location)), "{host}");
        let elsewhere = if location == there { 302 } else { 404 };
        assert_eq!(follow_at(&app, host, &only_there).await.status, elsewhere, "{host}");
    };
    check("sho.rt", here).await;
    check("sho.rt:443", here).await;
    check("go.example", there).await;
    check("GO.Example", there).await;
    check("go.example.", there).await;
    check("go.example:8080", there).await;
    check("Go.Example.:80", there).await;
    // What is no registered domain is served as the default one.
    check("127.0.0.1:1234", here).await;
    check("[::1]:1234", here).await;
    check("x.go.example", here).await;
    check("evil-go.example", here).await;
    check("localhost", here).await;
}

#[tokio::test]
async fn strict_hosts_serve_registered_domains_alone() {
    let app = TestApp::with(&[("base_url", "https://sho.rt"), ("strict_hosts", "on")]).await;
    let admin = app.admin_key().await;
    let code = app.link(&admin, json!({"long_url": TARGET})).await;
    let check = async |host: &str, code: &str, status: u16| {
        assert_eq!(follow_at(&app, host, code).await.status, status, "{host}");
    };
    check("sho.rt", &code, 302).await;
    check("SHO.rt.:8443", &code, 302).await;
    check("elsewhere.example", &code, 404).await;
    check("127.0.0.1", &code, 404).await;
    check("sho.rt.evil.example", &code, 404).await;
    add_domain(&app, &admin, "go.example").await;
    let second = app.link(&admin, json!({"long_url": TARGET, "domain": "go.example"})).await;
    check("go.example", &second, 302).await;
    check("sho.rt", &second, 404).await;
    check("go.example", &code, 404).await;
    check("elsewhere.example", &second, 404).await;
    // HTTP/1.0 knows requests without a host.
    let request = format!("GET /{code} HTTP/1.0\r\n\r\n");
    assert_eq!(exchange(app.address(), request).await.expect("an answer").status, 404);
}

#[tokio::test]
async fn a_change_is_seen_on_every_worker_before_it_is_answered() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": "https://example.com/0"})).await;
    // Each connection is given to one of the workers and stays with it.
    let mut connections = Vec::new();
    for _ in 0..32 {
        connections.push(RawConnection::open(app.address()).await);
    }
    for version in 1..=5 {
        let target = format!("https://example.com/{version}");
        let change = json!({"long_url": target});
        app.patch(&format!("/api/v1/urls/{code}")).bearer(&key).json(change).send().await;
        for connection in &mut connections {
            connection.send(format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            assert_eq!(connection.answer().await.header("location"), Some(target.clone()));
        }
    }
    app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
    for connection in &mut connections {
        connection.send(format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(connection.answer().await.status, 410);
    }
}
