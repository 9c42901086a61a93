//! What people see: the start page, error pages, the reference; and which methods paths take.

use crate::support::{Method, TestApp, TestRequest, TestResponse, Value, json};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const FORM: &str = "application/x-www-form-urlencoded";

#[track_caller]
fn check_page(answer: &TestResponse, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let text = answer.text();
    assert!(text.starts_with("<!doctype html>"), "{text}");
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains(" onload="), "{text}");
}

fn page(app: &TestApp, path: &str) -> TestRequest {
    app.get(path).header("accept", BROWSER)
}

fn form(app: &TestApp, long_url: &str) -> TestRequest {
    let body: String =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("long_url", long_url).finish();
    app.post("/-/shorten").header("accept", BROWSER).body(FORM, body)
}

#[tokio::test]
async fn the_start_page_offers_what_is_allowed() {
    let open = TestApp::start().await;
    let home = page(&open, "/").send().await;
    check_page(&home, 200);
    assert!(home.text().contains("action=\"/-/shorten\""));

    let closed = TestApp::with(&[("anonymous_create", "off")]).await;
    let home = page(&closed, "/").send().await;
    check_page(&home, 200);
    assert!(!home.text().contains("<form"));

    // What a proxy passes on is not from this machine, and neither is a base URL elsewhere.
    let forwarded = page(&open, "/").header("x-forwarded-for", "192.0.2.1").send().await;
    assert!(!forwarded.text().contains("<form"));
    let public = TestApp::with(&[("base_url", "https://sho.rt")]).await;
    let home = page(&public, "/").send().await;
    assert!(!home.text().contains("<form") && home.text().contains("sho.rt"));
    let head = open.request(Method::HEAD, "/").send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_form_shortens_without_a_script() {
    let app = TestApp::start().await;
    let check = async |typed: &str, target: &str| {
        let made = form(&app, typed).header("sec-fetch-site", "same-origin").send().await;
        check_page(&made, 201);
        let text = made.text();
        let short_url = text.split("data-copy=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let base = format!("http://{}/", app.address());
        let code = short_url.strip_prefix(&base).expect("a short link of this server");
        assert_eq!(app.follow(code).await.header("location"), Some(target), "{typed}");
        // The token that the page shows deletes the link.
        let token = text.split("mt_").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let delete = app.delete(&format!("/api/v1/urls/{code}"));
        let deleted = delete.header("x-manage-token", &format!("mt_{token}")).send().await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        assert_eq!(app.follow(code).await.status, 410);
    };
    check("https://example.com/a?b=1&c=%20d#e", "https://example.com/a?b=1&c=%20d#e").await;
    check("HTTP://Example.com", "http://example.com/").await;
    check("example.com/path", "https://example.com/path").await;
    check("  https://example.com/spaces  ", "https://example.com/spaces").await;
    check("httpbin.example/get", "https://httpbin.example/get").await;
    check("example.com/?from=http://a.example", "https://example.com/?from=http://a.example").await;
    check("example.com:8080/a", "https://example.com:8080/a").await;
    check("https:/example.com", "https://example.com/").await;
}

#[tokio::test]
async fn the_form_says_what_is_wrong_and_keeps_what_was_typed() {
    let app = TestApp::start().await;
    for typed in [
        "",
        "https://",
        "ftp://example.com/",
        "mailto:a@example.com",
        "https://user@example.com/",
        "\"><script>alert(1)</script>",
        "ht tp://x",
    ] {
        let answer = form(&app, typed).header("sec-fetch-site", "same-origin").send().await;
        check_page(&answer, 400);
        assert!(answer.text().contains("role=\"alert\""), "{typed}");
        assert!(!answer.text().contains("<script>alert"), "{typed}");
        assert!(answer.text().contains("<form"), "{typed}");
    }
    let answer =
        form(&app, "https://user@example.com/x").header("sec-fetch-site", "same-origin").send().await;
    assert!(answer.text().contains("value=\"https://user@example.com/x\""), "{}", answer.text());
}

#[tokio::test]
async fn the_form_is_taken_from_its_own_page_alone() {
    let app = TestApp::with(&[("anonymous_create", "on"), ("base_url", "https://sho.rt")]).await;
    let own = app.address().to_string();
    let check = async |headers: &[(&str, &str)], status: u16| {
        let mut request = form(&app, "https://example.com/");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{headers:?}");
    };
    check(&[("host", "sho.rt"), ("sec-fetch-site", "same-origin")], 201).await;
    check(&[("host", "sho.rt"), ("origin", "https://sho.rt")], 201).await;
    check(&[("host", "sho.rt:8443"), ("origin", "https://sho.rt:8443")], 201).await;
    check(&[("host", &own), ("origin", &format!("http://{own}"))], 201).await;
    check(&[("host", "localhost:8080"), ("sec-fetch-site", "same-origin")], 201).await;
    // From elsewhere, or from nobody knows where.
    check(&[("host", "sho.rt")], 403).await;
    for site in ["cross-site", "same-site", "none", ""] {
        check(&[("host", "sho.rt"), ("sec-fetch-site", site)], 403).await;
        check(&[("host", "sho.rt"), ("sec-fetch-site", site), ("origin", "https://sho.rt")], 403).await;
    }
    for origin in ["https://evil.example", "null", "", "https://sho.rt.evil.example", "https://x.sho.rt"] {
        check(&[("host", "sho.rt"), ("origin", origin)], 403).await;
    }
    check(&[("host", "sho.rt"), ("referer", "https://sho.rt/")], 403).await;
    // A name that was pointed at this server by somebody else.
    check(&[("host", "evil.example"), ("sec-fetch-site", "same-origin")], 403).await;
    check(&[("host", "evil.example"), ("origin", "https://evil.example")], 403).await;
    check(&[("host", "evil.example:80"), ("origin", "https://evil.example:80")], 403).await;
}

#[tokio::test]
async fn the_form_asks_for_what_the_api_asks_for() {
    let closed = TestApp::with(&[("anonymous_create", "off")]).await;
    let answer = form(&closed, "https://example.com/").header("sec-fetch-site", "same-origin").send().await;
    check_page(&answer, 401);
    assert!(!answer.text().contains("mt_"));
    let app = TestApp::start().await;
    let wrong = app.post("/-/shorten").header("sec-fetch-site", "same-origin");
    let wrong = wrong.json(json!({"long_url": "https://example.com/"})).send().await;
    assert_eq!(wrong.status, 415);
}

#[tokio::test]
async fn errors_are_pages_for_people() {
    let settings = [("rate_limits", "on"), ("redirects_per_minute", "3"), ("trusted_proxies", "127.0.0.1")];
    let app = TestApp::with(&settings).await;
    let key = app.key("ann").await;
    let target = "https://secret.example/";
    let expired = app.link(&key, json!({"long_url": target, "expires_in": 1})).await;
    let locked = app.link(&key, json!({"long_url": target, "password": "sesame"})).await;
    app.clock.advance(1_000);
    let check = async |path: &str, status: u16, title: &str| {
        let answer = page(&app, path).header("x-forwarded-for", "192.0.2.1").send().await;
        check_page(&answer, status);
        assert!(answer.text().contains(title), "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret.example"));
    };
    check("/unknown", 404, "No such link").await;
    check(&format!("/{expired}"), 410, "This link has expired").await;
    check(&format!("/{locked}"), 401, "Password").await;
    check("/unknown", 429, "Too many requests").await;
    check("/deep/path", 404, "No such link").await;
    check("/-/nothing", 404, "No such link").await;
    check("/.well-known/security.txt", 404, "No such link").await;
}

#[tokio::test]
async fn own_paths_that_lead_nowhere_are_not_found() {
    let app = TestApp::start().await;
    for path in [
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/nothing",
        "/-",
        "/-/",
        "/health/",
        "/robots.txt/",
        "/-/local/backup",
    ] {
        let answer = app.get(path).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "URL_NOT_FOUND"), "{path}");
    }
}

#[tokio::test]
async fn assets_are_there_and_are_kept_for_a_while() {
    let app = TestApp::start().await;
    let check = async |path: &str, content_type: &str, holds: &str| {
        let answer = app.get(path).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=3600"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.text().contains(holds), "{path}");
        let head = app.request(Method::HEAD, path).send().await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    };
    check("/-/assets/terse.css", "text/css; charset=utf-8", "{").await;
    check("/-/assets/home.js", "text/javascript; charset=utf-8", "copy").await;
    check("/-/assets/favicon.svg", "image/svg+xml", "<svg").await;
    check("/robots.txt", "text/plain; charset=utf-8", "User-agent: *").await;
    check("/api/v1/openapi.json", "application/json", "openapi").await;
    let icon = app.get("/favicon.ico").send().await;
    assert_eq!((icon.status, icon.header("location")), (302, Some("/-/assets/favicon.svg")));
    let docs = page(&app, "/-/docs").send().await;
    check_page(&docs, 200);
    for path in ["/api/v1/urls/bulk", "/api/v1/keys", "/health"] {
        assert!(docs.text().contains(path), "{path}");
    }
    // Everything that a page refers to is there.
    for page_path in ["/", "/-/docs", "/unknown"] {
        let answer = page(&app, page_path).send().await;
        let links = answer.text().split(['"', '\'']).filter(|text| text.starts_with("/-/") || *text == "/");
        for link in links.filter(|link| *link != "/-/shorten") {
            assert_eq!(app.get(link).send().await.status, 200, "{link} of {page_path}");
        }
    }
}

/// The API's methods, by path.
const API: [(&str, &[&str]); 22] = [
    ("/api/v1/urls", &["get", "post"]),
    ("/api/v1/urls/bulk", &["post"]),
    ("/api/v1/urls/{code}", &["delete", "get", "patch"]),
    ("/api/v1/urls/{code}/stats", &["get"]),
    ("/api/v1/urls/{code}/live", &["get"]),
    ("/api/v1/urls/{code}/clicks", &["delete", "get"]),
    ("/api/v1/urls/{code}/clicks/export", &["get"]),
    ("/api/v1/stats", &["get"]),
    ("/api/v1/stats/{code}", &["get"]),
    ("/api/v1/stats/reconcile", &["post"]),
    ("/api/v1/clicks", &["delete", "get"]),
    ("/api/v1/clicks/export", &["get"]),
    ("/api/v1/keys", &["get", "post"]),
    ("/api/v1/keys/{id}", &["delete"]),
    ("/api/v1/users", &["get", "post"]),
    ("/api/v1/domains", &["get", "post"]),
    ("/api/v1/shorten", &["post"]),
    ("/health", &["get"]),
    ("/ready", &["get"]),
    // Not in the description: synonyms and what machines read.
    ("/urls", &["post"]),
    ("/metrics", &["get"]),
    ("/api/v1/openapi.json", &["get"]),
];

#[tokio::test]
async fn the_api_describes_itself() {
    let app = TestApp::start().await;
    let document = app.get("/api/v1/openapi.json").send().await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    let paths = document["paths"].as_object().unwrap();
    let mut described: Vec<(String, Vec<String>)> = paths
        .iter()
        .map(|(path, item)| {
            let mut methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            methods.sort();
            (path.clone(), methods)
        })
        .collect();
    described.sort();
    let mut expected: Vec<(String, Vec<String>)> = API[..19]
        .iter()
        .map(|(path, methods)| {
            ((*path).to_owned(), methods.iter().map(|method| (*method).to_owned()).collect())
        })
        .collect();
    expected.sort();
    assert_eq!(described, expected);
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    for operation in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
        assert!(operation["summary"].is_string(), "{operation}");
        assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{operation}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_taken() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    let code = app.link(&admin, json!({"long_url": "https://example.com/"})).await;
    let check = async |path: &str, taken: &[&str]| {
        let mut expected: Vec<String> = taken.iter().map(|method| method.to_uppercase()).collect();
        if taken.contains(&"get") {
            expected.push("HEAD".to_owned());
        }
        expected.sort();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"] {
            if expected.iter().any(|taken| taken == method) {
                continue;
            }
            let request = app.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
            let answer = request.bearer(&admin).send().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (405, "METHOD_NOT_ALLOWED"),
                "{method} {path}"
            );
            let allow = answer.header("allow").unwrap_or_else(|| panic!("no Allow for {method} {path}"));
            let mut allow: Vec<&str> = allow.split(',').map(str::trim).collect();
            allow.sort_unstable();
            assert_eq!(allow, expected, "{method} {path}");
        }
    };
    for (path, methods) in API {
        check(&path.replace("{code}", &code).replace("{id}", "1"), methods).await;
    }
    check("/", &["get"]).await;
    check("/-/docs", &["get"]).await;
    check("/-/shorten", &["post"]).await;
    check("/robots.txt", &["get"]).await;
    check(&format!("/{code}"), &["get", "post"]).await;
    check(&format!("/{code}/"), &["get", "post"]).await;
    check("/unknown", &["get", "post"]).await;
    assert_eq!(Value::from(app.follow(&code).await.status), 302);
}
