//! POST /api/v1/urls: what is taken, what is refused, and what the answer says.

use crate::support::connection::announce;
use crate::support::{TestApp, TestResponse, Value, json};

const URLS: &str = "/api/v1/urls";
const TARGET: &str = "https://example.com/a";

/// The fields beside a target.
fn with_target(fields: Value) -> Value {
    let mut request = json!({"long_url": TARGET});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

/// Every field of `expected` is in `answer`, with that value.
#[track_caller]
fn assert_holds(answer: &Value, expected: &Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&answer[field], value, "{field} in {answer}");
    }
}

/// A link with these fields says the same when it is made and when it is read.
async fn check(app: &TestApp, key: &str, fields: Value, expected: Value) {
    let made = app.post(URLS).bearer(key).json(with_target(fields)).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_holds(&made.json(), &expected);
    let code = made.json()["short_code"].as_str().unwrap().to_owned();
    let read = app.get(&format!("{URLS}/{code}")).bearer(key).send().await;
    assert_eq!(read.json(), made.json());
}

/// A request that is wrong names what is wrong.
#[track_caller]
fn assert_refused(answer: &TestResponse, status: u16, code: &str, field: Option<&str>) {
    let said = (answer.status, answer.code());
    assert_eq!(said, (status, code.to_owned()), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["field"].as_str(), field, "{problem}");
    assert!(!problem["request_id"].as_str().unwrap().is_empty(), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(field.is_none_or(|field| detail.starts_with(&format!("{field}: "))), "{detail}");
}

async fn refused(app: &TestApp, key: &str, fields: Value, code: &str, field: &str) {
    let answer = app.post(URLS).bearer(key).json(with_target(fields)).send().await;
    assert_refused(&answer, 400, code, Some(field));
}

#[tokio::test]
async fn what_is_not_said_takes_its_default() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let made = app.post(URLS).bearer(&key).json(json!({"long_url": TARGET})).send().await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("content-type"), Some("application/json"));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let answer = made.json();
    let code = answer["short_code"].as_str().unwrap();
    assert!(code.len() == 7 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{code}");
    let short_url = format!("http://{}/{code}", app.address());
    assert_eq!(made.header("location"), Some(short_url.as_str()));
    let expected = json!({
        "short_url": short_url,
        "short_code": code,
        "domain": "127.0.0.1",
        "long_url": TARGET,
        "created_at": "2027-01-15T08:00:00.000Z",
        "updated_at": "2027-01-15T08:00:00.000Z",
        "expires_at": null,
        "redirect_type": 302,
        "revision": 1,
        "state": "active",
        "enabled": true,
        "title": null,
        "tags": [],
        "notes": null,
        "has_password": false,
        "click_limit": null,
        "starts_at": null,
        "fallback_url": null,
        "forward_query": false,
        "clicks": 0,
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn every_field_comes_back_as_it_was_given() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for same in [
        json!({"title": "Überschrift \"eins\""}),
        json!({"title": "t".repeat(300)}),
        json!({"notes": "line\nline\t\u{1F642}"}),
        json!({"notes": "ü".repeat(10_000)}),
        json!({"tags": ["b", "a", "Ü".repeat(64)]}),
        json!({"click_limit": 1}),
        json!({"click_limit": u32::MAX}),
        json!({"fallback_url": "https://example.com/over"}),
        json!({"forward_query": true}),
        json!({"enabled": false, "state": "disabled"}),
    ] {
        let mut fields = same.clone();
        fields.as_object_mut().unwrap().remove("state");
        check(&app, &key, fields, same).await;
    }
    check(&app, &key, json!({"tags": ["a", "b", "a"]}), json!({"tags": ["a", "b"]})).await;
    check(&app, &key, json!({"click_limit": 3}), json!({"clicks_used": 0})).await;
    check(&app, &key, json!({"password": "p"}), json!({"has_password": true})).await;
    check(&app, &key, json!({"password": "ü".repeat(64)}), json!({"has_password": true})).await;
    check(&app, &key, json!({"domain": "127.0.0.1"}), json!({"domain": "127.0.0.1"})).await;
    let starts = json!({"starts_at": "2027-01-16T01:02:03.456+01:00"});
    check(&app, &key, starts, json!({"starts_at": "2027-01-16T00:02:03.456Z", "state": "scheduled"})).await;
    let nothing = json!({
        "custom_alias": null, "domain": null, "expires_at": null, "expires_in": null, "redirect_type": null,
        "title": null, "tags": null, "notes": null, "password": null, "click_limit": null, "starts_at": null,
        "fallback_url": null, "forward_query": null, "enabled": null, "find_if_exists": null,
    });
    check(&app, &key, nothing, json!({"title": null, "tags": [], "enabled": true})).await;
}

#[tokio::test]
async fn a_redirect_type_is_a_number_or_a_word() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for (given, expected) in [
        (json!(301), 301),
        (json!(302), 302),
        (json!(307), 307),
        (json!(308), 308),
        (json!("301"), 301),
        (json!("302"), 302),
        (json!("307"), 307),
        (json!("308"), 308),
        (json!("permanent"), 301),
        (json!("temporary"), 302),
    ] {
        check(&app, &key, json!({"redirect_type": given}), json!({"redirect_type": expected})).await;
    }
    for given in [
        json!(200),
        json!(300),
        json!(303),
        json!(-301),
        json!(301.0),
        json!(65_837),
        json!("0301"),
        json!("+301"),
        json!("Permanent"),
        json!(""),
        json!(true),
        json!([301]),
    ] {
        refused(&app, &key, json!({"redirect_type": given}), "VALIDATION_ERROR", "redirect_type").await;
    }
}

#[tokio::test]
async fn an_expiry_is_a_time_a_date_or_so_many_seconds() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for (fields, expires_at) in [
        (json!({"expires_at": "2027-01-15T08:00:00.001Z"}), "2027-01-15T08:00:00.001Z"),
        (json!({"expires_at": "2027-01-15T09:30:00+01:00"}), "2027-01-15T08:30:00.000Z"),
        (json!({"expires_at": "2027-01-16"}), "2027-01-16T00:00:00.000Z"),
        (json!({"expires_at": "2030-12-31T23:59:59.9999Z"}), "2030-12-31T23:59:59.999Z"),
        (json!({"expires_at": "9999-12-30T21:59:59.999Z"}), "9999-12-30T21:59:59.999Z"),
        (json!({"expires_in": 1}), "2027-01-15T08:00:01.000Z"),
        (json!({"expires_in": 86_400}), "2027-01-16T08:00:00.000Z"),
        (json!({"expires_in": 3_162_240_000_i64}), "2127-04-01T08:00:00.000Z"),
    ] {
        check(&app, &key, fields, json!({"expires_at": expires_at})).await;
    }
    for at in [
        "2027-01-15T08:00:00Z",
        "2027-01-15T07:59:59.999Z",
        "2027-01-15",
        "1970-01-01",
        "",
        "tomorrow",
        "2027-02-30",
        "2030-01-01T00:00:00",
        "1900000000",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "+999999-01-01T00:00:00Z",
    ] {
        refused(&app, &key, json!({"expires_at": at}), "VALIDATION_ERROR", "expires_at").await;
    }
    for wrong in [json!(1_900_000_000), json!({}), json!(true)] {
        refused(&app, &key, json!({"expires_at": wrong}), "VALIDATION_ERROR", "expires_at").await;
    }
    for wrong in [
        json!(0),
        json!(-1),
        json!(3_162_240_001_i64),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1.5),
        json!("60"),
        json!(true),
    ] {
        refused(&app, &key, json!({"expires_in": wrong}), "VALIDATION_ERROR", "expires_in").await;
    }
    let both = json!({"expires_at": "2030-01-01", "expires_in": 60});
    refused(&app, &key, both, "VALIDATION_ERROR", "expires_in").await;
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for (fields, field) in [
        (json!({"long_url": null}), "long_url"),
        (json!({"long_url": 5}), "long_url"),
        (json!({"long_url": ["https://example.com/"]}), "long_url"),
        (json!({"custom_alias": 123}), "custom_alias"),
        (json!({"domain": "unknown.example"}), "domain"),
        (json!({"domain": ""}), "domain"),
        (json!({"domain": "http://127.0.0.1"}), "domain"),
        (json!({"domain": 1}), "domain"),
        (json!({"title": "t".repeat(301)}), "title"),
        (json!({"title": 1}), "title"),
        (json!({"notes": "n".repeat(10_001)}), "notes"),
        (json!({"notes": {}}), "notes"),
        (json!({"tags": "a"}), "tags"),
        (json!({"tags": [1]}), "tags[0]"),
        (json!({"tags": ["a", null]}), "tags[1]"),
        (json!({"tags": [""]}), "tags"),
        (json!({"tags": ["t".repeat(65)]}), "tags"),
        (json!({"tags": (0..51).map(|n| n.to_string()).collect::<Vec<_>>()}), "tags"),
        (json!({"password": ""}), "password"),
        (json!({"password": "p".repeat(65)}), "password"),
        (json!({"password": 1234}), "password"),
        (json!({"click_limit": 0}), "click_limit"),
        (json!({"click_limit": -1}), "click_limit"),
        (json!({"click_limit": u64::from(u32::MAX) + 1}), "click_limit"),
        (json!({"click_limit": 1.5}), "click_limit"),
        (json!({"click_limit": "1"}), "click_limit"),
        (json!({"starts_at": "soon"}), "starts_at"),
        (json!({"starts_at": "2030-01-01", "expires_at": "2030-01-01"}), "starts_at"),
        (json!({"starts_at": "2030-01-02", "expires_at": "2030-01-01"}), "starts_at"),
        (json!({"starts_at": "2027-01-15T08:01:00Z", "expires_in": 60}), "starts_at"),
        (json!({"forward_query": "yes"}), "forward_query"),
        (json!({"enabled": 1}), "enabled"),
        (json!({"find_if_exists": true, "custom_alias": "mine"}), "find_if_exists"),
        (json!({"customAlias": "abc"}), "customAlias"),
        (json!({"colour": "red"}), "colour"),
    ] {
        refused(&app, &key, fields, "VALIDATION_ERROR", field).await;
    }
    let nothing = app.post(URLS).bearer(&key).json(json!({})).send().await;
    assert_refused(&nothing, 400, "VALIDATION_ERROR", Some("long_url"));
}

#[tokio::test]
async fn an_address_is_kept_as_a_browser_would_write_it() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for (given, kept) in [
        ("https://example.com", "https://example.com/"),
        ("  HTTP://EXAMPLE.com:80/a/../b?q=1#f ", "http://example.com/b?q=1#f"),
        ("https://bücher.example/ü?ü", "https://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("https://example.com/a b\"<>", "https://example.com/a%20b%22%3C%3E"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("https://example.com/%0D%0ASet-Cookie:x", "https://example.com/%0D%0ASet-Cookie:x"),
    ] {
        check(&app, &key, json!({"long_url": given}), json!({"long_url": kept})).await;
        check(&app, &key, json!({"fallback_url": given}), json!({"fallback_url": kept})).await;
    }
}

#[tokio::test]
async fn an_address_that_no_browser_would_open_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let too_long = format!("https://example.com/{}", "x".repeat(4096));
    for url in [
        "",
        "   ",
        "example.com",
        "/path",
        "//example.com/",
        "http://",
        "http://a b/",
        "http://example.com:99999/",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://exa\tmple.com/",
        "https://example.com/\u{0}",
        "https://example.com/\n",
        &too_long,
    ] {
        refused(&app, &key, json!({"long_url": url}), "INVALID_URL", "long_url").await;
        refused(&app, &key, json!({"fallback_url": url}), "INVALID_URL", "fallback_url").await;
    }
}

#[tokio::test]
async fn an_alias_is_free_well_formed_and_no_reserved_word() {
    let app = TestApp::with(&[("reserved_words", "Acme, contoso")]).await;
    let key = app.key("ann").await;
    for alias in ["abc", "my-link_1", "-_-", "123", &"x".repeat(64)] {
        check(&app, &key, json!({"custom_alias": alias}), json!({"short_code": alias})).await;
    }
    for alias in ["", "ab", "a b", "a/b", "a.b", "ä-b", "a%41", "abc\n", &"x".repeat(65)] {
        refused(&app, &key, json!({"custom_alias": alias}), "VALIDATION_ERROR", "custom_alias").await;
    }
    for alias in ["api", "API", "Health", "Rest", "Login", "DOCS", "acme", "CONTOSO"] {
        refused(&app, &key, json!({"custom_alias": alias}), "ALIAS_RESERVED", "custom_alias").await;
    }
    let again = app.post(URLS).bearer(&key).json(with_target(json!({"custom_alias": "abc"}))).send().await;
    assert_refused(&again, 409, "ALIAS_TAKEN", Some("custom_alias"));
    // Another case is another link.
    check(&app, &key, json!({"custom_alias": "ABC"}), json!({"short_code": "ABC"})).await;
    assert_eq!(app.follow("abc").await.status, 302);
    assert_eq!(app.follow("Abc").await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_no_link_is_refused() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for body in [
        "",
        " ",
        "hello",
        "null",
        "5",
        "\"https://example.com/\"",
        "[]",
        r#"["https://example.com/"]"#,
        r#"["https://example.com/",null,null,null,null,null,null,null,null,null,null,null,null,null,null,null]"#,
        "{",
        r#"{"long_url": "https://example.com/"} {}"#,
        r#"{"long_url": "https://example.com/",}"#,
        r#"{'long_url': 'https://example.com/'}"#,
        "{\"long_url\": \"https://example.com/\u{1}\"}",
        "\u{feff}{\"long_url\": \"https://example.com/\"}",
    ] {
        let answer = app.post(URLS).bearer(&key).body("application/json", body.to_owned()).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{body}");
    }
    let twice = r#"{"long_url": "https://example.com/", "long_url": "https://example.org/"}"#;
    let answer = app.post(URLS).bearer(&key).body("application/json", twice).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"));
    assert!(answer.text().contains("long_url"), "{answer:?}");
    let not_utf8 = b"{\"long_url\": \"https://example.com/\xff\"}".to_vec();
    let answer = app.post(URLS).bearer(&key).body("application/json", not_utf8).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"));
    let deep = "[".repeat(100_000);
    let answer = app.post(URLS).bearer(&key).body("application/json", deep).send().await;
    assert_eq!(answer.status, 400);
    // None of them left anything behind.
    let list = app.get(URLS).bearer(&key).send().await.json();
    assert_eq!(list["links"], json!([]));
}

#[tokio::test]
async fn a_body_is_bounded() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let padded = |len: usize| {
        let body = json!({"long_url": TARGET}).to_string();
        let padding = " ".repeat(len - body.len());
        body + &padding
    };
    let most = app.post(URLS).bearer(&key).body("application/json", padded(256 << 10)).send().await;
    assert_eq!(most.status, 201, "{most:?}");
    assert_eq!(announce(app.address(), URLS, Some(&key), (256 << 10) + 1).await, 413);
}

#[tokio::test]
async fn a_body_is_json_unless_it_says_otherwise() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let body = json!({"long_url": TARGET}).to_string();
    for kind in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"] {
        let answer = app.post(URLS).bearer(&key).body(kind, body.clone()).send().await;
        assert_eq!(answer.status, 201, "{kind}");
    }
    for kind in
        ["text/plain", "text/json", "application/x-www-form-urlencoded", "application/xml", "", "json"]
    {
        let answer = app.post(URLS).bearer(&key).body(kind, body.clone()).send().await;
        assert_refused(&answer, 415, "UNSUPPORTED_MEDIA_TYPE", None);
    }
    let length = body.len();
    let head = format!(
        "POST {URLS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    assert!(raw(&app, &head).await.starts_with("HTTP/1.1 201"), "nothing said is taken for JSON");
}

/// Sends these bytes and reads to the end.
async fn raw(app: &TestApp, bytes: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn strangers_create_links_only_where_they_may() {
    async fn check(settings: &[(&str, &str)], header: Option<(&str, &str)>, expected: u16) {
        let app = TestApp::with(settings).await;
        let mut request = app.post(URLS).json(json!({"long_url": TARGET}));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, expected, "{settings:?} {header:?}");
        if expected == 401 {
            assert_refused(&answer, 401, "UNAUTHORIZED", None);
            assert!(answer.header("www-authenticate").is_some());
        }
    }
    let public = ("base_url", "https://go.example.com");
    check(&[], None, 201).await;
    check(&[("base_url", "http://localhost:8080")], None, 201).await;
    check(&[public], None, 401).await;
    check(&[("anonymous_create", "off")], None, 401).await;
    check(&[("anonymous_create", "on"), public], None, 201).await;
    for header in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-host", "go.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.1"),
        ("via", "1.1 proxy"),
    ] {
        check(&[], Some(header), 401).await;
        check(&[("trusted_proxies", "127.0.0.1")], Some(header), 401).await;
        check(&[("anonymous_create", "on")], Some(header), 201).await;
    }
    // A wrong key is not the same as none.
    check(&[], Some(("authorization", "Bearer terse_wrong")), 401).await;
    check(&[], Some(("x-api-key", "")), 401).await;
}

#[tokio::test]
async fn a_manage_token_reads_and_deletes_and_never_changes() {
    let app = TestApp::start().await;
    let made = app.post(URLS).json(json!({"long_url": TARGET})).send().await;
    assert_eq!(made.status, 201);
    let answer = made.json();
    let token = answer["manage_token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), "mt_".len() + 64, "256 bits: {token}");
    let link = format!("{URLS}/{}", answer["short_code"].as_str().unwrap());
    let other = app.post(URLS).json(json!({"long_url": TARGET})).send().await.json();
    let other_token = other["manage_token"].as_str().unwrap();
    assert_ne!(token, other_token);

    let read = app.get(&link).header("x-manage-token", &token).send().await;
    assert_eq!(read.status, 200);
    assert!(!read.text().contains("manage_token") && !read.text().contains(&token), "shown once only");
    let change = json!({"long_url": "https://evil.example/"});
    let changed = app.patch(&link).header("x-manage-token", &token).json(change.clone()).send().await;
    assert_eq!(changed.status, 401);
    let ann = app.key("ann").await;
    let changed = app.patch(&link).bearer(&ann).header("x-manage-token", &token).json(change).send().await;
    assert_eq!(changed.status, 403);

    assert_eq!(app.get(&link).send().await.status, 401);
    assert_eq!(app.delete(&link).send().await.status, 401);
    for wrong in [other_token, "", "mt_", &token.to_uppercase(), &token[..66]] {
        assert_eq!(app.get(&link).header("x-manage-token", wrong).send().await.status, 403, "{wrong}");
        assert_eq!(app.delete(&link).header("x-manage-token", wrong).send().await.status, 403, "{wrong}");
    }
    assert_eq!(app.get(&link).bearer(&ann).send().await.status, 403, "nobody owns it");
    // Only the header carries it.
    assert_eq!(app.get(&format!("{link}?manage_token={token}")).send().await.status, 400);
    assert_eq!(app.get(URLS).header("x-manage-token", &token).send().await.status, 401);
    assert_eq!(app.follow(answer["short_code"].as_str().unwrap()).await.header("location"), Some(TARGET));

    assert_eq!(app.delete(&link).header("x-manage-token", &token).send().await.status, 204);
    assert_eq!(
        app.delete(&link).header("x-manage-token", &token).send().await.status,
        204,
        "as good as once"
    );
    let read = app.get(&link).header("x-manage-token", &token).send().await;
    assert_eq!((read.status, read.code().as_str()), (410, "URL_DELETED"));
    // With a key, a link has an owner and needs no token.
    let owned = app.post(URLS).bearer(&ann).json(json!({"long_url": TARGET})).send().await.json();
    assert!(owned.get("manage_token").is_none());
}

#[tokio::test]
async fn an_equal_link_is_found_only_among_ones_own_made_to_be_found() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    let plain = app.link(&ann, json!({"long_url": TARGET})).await;
    let wanted = json!({"long_url": TARGET, "find_if_exists": true});
    let first = app.link(&ann, wanted.clone()).await;
    assert_ne!(first, plain);
    let found = app.post(URLS).bearer(&ann).json(wanted.clone()).send().await;
    assert_eq!((found.status, found.json()["short_code"].as_str()), (200, Some(first.as_str())));
    assert_ne!(app.link(&bob, wanted.clone()).await, first);
    let titled = json!({"long_url": TARGET, "find_if_exists": true, "title": "another"});
    assert_ne!(app.link(&ann, titled).await, first);
    assert_eq!(app.delete(&format!("{URLS}/{first}")).bearer(&ann).send().await.status, 204);
    assert_ne!(app.link(&ann, wanted).await, first, "a deleted link is not found");
}

#[tokio::test]
async fn another_sites_page_creates_nothing_without_a_key() {
    let app = TestApp::start().await;
    let create = || app.post("/api/v1/urls").json(json!({"long_url": "https://example.com/"}));
    let own = app.address().to_string();
    assert_eq!(create().header("origin", &format!("http://{own}")).send().await.status, 201);
    assert_eq!(create().header("sec-fetch-site", "same-origin").send().await.status, 201);
    let checks: [(&str, &str); 4] = [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        // A name of theirs that resolves to this machine.
        ("host", "evil.example:8080"),
    ];
    for (name, value) in checks {
        let refused = create().header(name, value).send().await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"), "{name}: {value}");
    }
}
