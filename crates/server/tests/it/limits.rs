//! Rate limits, with a clock that is moved by hand, and whom they are counted for.

use crate::support::raw::RawConnection;
use crate::support::{TestApp, TestRequest, TestResponse, Value, json};
use terse_model::tenant::{Role, Tier};

const TARGET: &str = "https://example.com/target";
const ON: (&str, &str) = ("rate_limits", "on");

fn create(app: &TestApp) -> TestRequest {
    app.post("/api/v1/urls").json(json!({"long_url": TARGET}))
}

#[track_caller]
fn check_refused(answer: &TestResponse, retry_after: &str, policy: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (429, "RATE_LIMIT_EXCEEDED"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some(retry_after));
    assert_eq!(answer.header("ratelimit"), Some(format!("\"default\";r=0;t={retry_after}").as_str()));
    assert_eq!(answer.header("ratelimit-policy"), Some(policy));
}

#[tokio::test]
async fn ten_anonymous_links_an_hour_to_the_second() {
    let app = TestApp::with(&[ON]).await;
    let policy = "\"default\";q=10;w=3600";
    for left in (0..10).rev() {
        let made = create(&app).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(made.header("ratelimit-policy"), Some(policy));
        let full_in = (10 - left) * 360;
        assert_eq!(made.header("ratelimit"), Some(format!("\"default\";r={left};t={full_in}").as_str()));
    }
    check_refused(&create(&app).send().await, "360", policy);
    // Every way of creating is counted as one.
    let form = app.post("/-/shorten").header("sec-fetch-site", "same-origin");
    let form = form.body("application/x-www-form-urlencoded", "long_url=example.com").send().await;
    assert_eq!(form.status, 429, "{form:?}");
    let other = app.post("/urls").json(json!({"url": TARGET})).send().await;
    assert_eq!(other.status, 429, "{other:?}");
    app.clock.advance(100_000);
    check_refused(&create(&app).send().await, "260", policy);
    app.clock.advance(258_001);
    check_refused(&create(&app).send().await, "2", policy);
    app.clock.advance(1_998);
    check_refused(&create(&app).send().await, "1", policy);
    app.clock.advance(1);
    assert_eq!(create(&app).send().await.status, 201);
    check_refused(&create(&app).send().await, "360", policy);
    // A key is not an address, nor is following a link creating one.
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    assert_eq!(app.follow(&code).await.status, 302);
    app.clock.advance(3_600_000);
    assert_eq!(create(&app).send().await.header("ratelimit"), Some("\"default\";r=9;t=360"));
}

#[tokio::test]
async fn a_refused_link_costs_nothing() {
    let app = TestApp::with(&[ON]).await;
    for _ in 0..20 {
        let refused = app.post("/api/v1/urls").json(json!({"long_url": "no address"})).send().await;
        assert_eq!(refused.status, 400);
    }
    assert_eq!(create(&app).send().await.header("ratelimit"), Some("\"default\";r=9;t=360"));
}

#[tokio::test]
async fn a_crowd_creates_exactly_what_is_allowed() {
    let app = TestApp::with(&[ON, ("workers", "4")]).await;
    let asking: Vec<_> = (0..60).map(|_| tokio::spawn(create(&app).send())).collect();
    let mut statuses = Vec::new();
    for asking in asking {
        statuses.push(asking.await.unwrap().status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 10);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 50);
}

#[tokio::test]
async fn tiers_have_their_rates_and_keys_may_have_their_own() {
    let app = TestApp::with(&[ON]).await;
    let check = async |key: &str, count: u32| {
        let made = create(&app).bearer(key).send().await;
        let policy = format!("\"default\";q={count};w=3600");
        assert_eq!((made.status, made.header("ratelimit-policy")), (201, Some(policy.as_str())));
        let full_in = 3600_u32.div_ceil(count);
        let left = format!("\"default\";r={};t={full_in}", count - 1);
        assert_eq!(made.header("ratelimit"), Some(left.as_str()));
    };
    check(&app.key_of("free", Role::Member, Tier::Free).await, 100).await;
    check(&app.key_of("premium", Role::Member, Tier::Premium).await, 1_000).await;
    check(&app.key_of("bulk", Role::Member, Tier::Bulk).await, 10_000).await;
    check(&app.key_of("admin", Role::Admin, Tier::Free).await, 100).await;
    let unlimited = app.key_of("unlimited", Role::Member, Tier::Unlimited).await;
    let made = create(&app).bearer(&unlimited).send().await;
    assert_eq!((made.status, made.header("ratelimit"), made.header("ratelimit-policy")), (201, None, None));
    let admin = app.admin_key().await;
    let fields = json!({"name": "own", "user": "free", "creates_per_hour": 2});
    let own = app.post("/api/v1/keys").bearer(&admin).json(fields).send().await;
    assert_eq!(own.status, 201, "{own:?}");
    let own = own.json()["key"].as_str().expect("the new key").to_owned();
    check(&own, 2).await;
    assert_eq!(create(&app).bearer(&own).send().await.status, 201);
    check_refused(&create(&app).bearer(&own).send().await, "1800", "\"default\";q=2;w=3600");
    app.clock.advance(1_799_999);
    check_refused(&create(&app).bearer(&own).send().await, "1", "\"default\";q=2;w=3600");
    app.clock.advance(1);
    assert_eq!(create(&app).bearer(&own).send().await.status, 201);
}

#[tokio::test]
async fn keys_of_one_user_share_the_users_rate() {
    let app = TestApp::with(&[ON]).await;
    let first = app.key_of("ann", Role::Member, Tier::Free).await;
    let second = app.key_of("ann", Role::Member, Tier::Free).await;
    let other = app.key_of("bob", Role::Member, Tier::Free).await;
    for number in 0..100 {
        let key = if number % 2 == 0 { &first } else { &second };
        assert_eq!(create(&app).bearer(key).send().await.status, 201, "{number}");
    }
    for key in [&first, &second] {
        check_refused(&create(&app).bearer(key).send().await, "36", "\"default\";q=100;w=3600");
    }
    assert_eq!(create(&app).bearer(&other).send().await.status, 201);
    assert_eq!(create(&app).send().await.status, 201);
}

#[tokio::test]
async fn a_thousand_redirects_a_minute_for_an_address() {
    let app = TestApp::with(&[ON]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let mut connection = RawConnection::open(app.address()).await;
    let request = format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n");
    for _ in 0..10 {
        connection.send(request.repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(connection.answer().await.status, 302);
        }
    }
    let refused = app.follow(&code).await;
    check_refused(&refused, "1", "\"default\";q=1000;w=60");
    assert_eq!(refused.header("location"), None);
    // Whatever is asked for, and for people as a page.
    assert_eq!(app.get("/unknown").send().await.status, 429);
    let page = app.get(&format!("/{code}")).header("accept", "text/html").send().await;
    assert_eq!((page.status, page.header("content-type")), (429, Some("text/html; charset=utf-8")));
    // The API is not meant.
    assert_eq!(app.get("/health").send().await.status, 200);
    app.clock.advance(59);
    assert_eq!(app.follow(&code).await.status, 429);
    app.clock.advance(1);
    assert_eq!(app.follow(&code).await.status, 302);
    assert_eq!(app.follow(&code).await.status, 429);
}

/// Whether the second request is counted for the same client as the first, which has used what there is.
async fn are_one_client(app: &TestApp, code: &str, requests: [&[(&str, &str)]; 2]) -> bool {
    let follow = async |headers: &[(&str, &str)]| {
        let mut request = app.get(&format!("/{code}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.status
    };
    assert_eq!(follow(requests[0]).await, 302, "{requests:?}");
    let second = follow(requests[1]).await;
    // For the next pair everybody has a full bucket.
    app.clock.advance(60_000);
    match second {
        302 => false,
        429 => true,
        other => panic!("{other} for {requests:?}"),
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_told_apart() {
    let settings = [ON, ("redirects_per_minute", "1"), ("trusted_proxies", "127.0.0.1, 10.0.0.0/8")];
    let app = TestApp::with(&settings).await;
    let code = app.link(&app.key("ann").await, json!({"long_url": TARGET})).await;
    let check = async |first: &[(&str, &str)], second: &[(&str, &str)], expected: bool| {
        let one = are_one_client(&app, &code, [first, second]).await;
        assert_eq!(one, expected, "{first:?} {second:?}");
    };
    let forwarded_for = "x-forwarded-for";
    check(&[(forwarded_for, "192.0.2.1")], &[(forwarded_for, "192.0.2.1")], true).await;
    check(&[(forwarded_for, "192.0.2.1")], &[(forwarded_for, "192.0.2.2")], false).await;
    // What a client puts in front of the list is not believed.
    check(&[(forwarded_for, "192.0.2.1")], &[(forwarded_for, "203.0.113.9, 192.0.2.1")], true).await;
    check(&[(forwarded_for, "192.0.2.1, 198.51.100.1")], &[(forwarded_for, "198.51.100.1")], true).await;
    let two_lines = [(forwarded_for, "203.0.113.9"), (forwarded_for, "192.0.2.1")];
    check(&[(forwarded_for, "192.0.2.1")], &two_lines, true).await;
    // Proxies of our own are stepped over.
    check(&[(forwarded_for, "192.0.2.1, 10.1.2.3")], &[(forwarded_for, "192.0.2.1")], true).await;
    check(&[(forwarded_for, "192.0.2.1, 10.1.2.3")], &[(forwarded_for, "192.0.2.2, 10.1.2.3")], false).await;
    // IPv6 by /64, IPv4 in IPv6 as IPv4.
    check(&[(forwarded_for, "2001:db8::1")], &[(forwarded_for, "2001:db8::2")], true).await;
    check(&[(forwarded_for, "2001:db8::1")], &[(forwarded_for, "2001:db8:0:1::1")], false).await;
    check(&[(forwarded_for, "::ffff:192.0.2.1")], &[(forwarded_for, "192.0.2.1")], true).await;
    // The standard's own header.
    let standard = [("forwarded", "for=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1")];
    check(&standard, &[("forwarded", "for=\"[2001:db8::2]\"")], true).await;
    check(&[("forwarded", "For=192.0.2.1")], &[(forwarded_for, "192.0.2.1")], true).await;
    check(&[("forwarded", "for=203.0.113.9, for=192.0.2.1")], &[("forwarded", "for=192.0.2.1")], true).await;
    check(&[("forwarded", "for=192.0.2.1")], &[("forwarded", "for=192.0.2.2")], false).await;
    // What is no address ends what can be believed.
    check(&[(forwarded_for, "192.0.2.1, unknown")], &[(forwarded_for, "192.0.2.2, unknown")], true).await;
    check(&[], &[(forwarded_for, "nonsense")], true).await;
}

#[tokio::test]
async fn an_untrusted_peer_can_claim_what_it_likes() {
    let settings = [ON, ("redirects_per_minute", "1"), ("trusted_proxies", "10.0.0.0/8")];
    let app = TestApp::with(&settings).await;
    let code = app.link(&app.key("ann").await, json!({"long_url": TARGET})).await;
    for claim in [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("via", "1.1 proxy"),
    ] {
        assert!(are_one_client(&app, &code, [&[], &[claim]]).await, "{claim:?}");
        assert!(are_one_client(&app, &code, [&[claim], &[]]).await, "{claim:?}");
    }
}

#[tokio::test]
async fn forged_addresses_create_no_more_links() {
    let app = TestApp::with(&[ON, ("anonymous_create", "on"), ("anonymous_creates_per_hour", "3")]).await;
    let mut made = 0;
    for number in 0..10 {
        let forged = create(&app).header("x-forwarded-for", &format!("192.0.2.{number}")).send().await;
        made += u32::from(forged.status == 201);
    }
    assert_eq!(made, 3);
    // With the proxy declared, each address has its own.
    let proxied = TestApp::with(&[
        ON,
        ("anonymous_create", "on"),
        ("anonymous_creates_per_hour", "1"),
        ("trusted_proxies", "127.0.0.1"),
    ])
    .await;
    for (address, status) in [
        ("192.0.2.1", 201),
        ("192.0.2.1", 429),
        ("192.0.2.2", 201),
        ("192.0.2.3, 192.0.2.2", 429),
        ("2001:db8::1", 201),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::", 201),
    ] {
        let made = create(&proxied).header("x-forwarded-for", address).send().await;
        assert_eq!(made.status, status, "{address}");
    }
}

#[tokio::test]
async fn a_proxy_that_nobody_declared_is_not_limited_as_one_client() {
    let app = TestApp::with(&[ON, ("redirects_per_minute", "2")]).await;
    let code = app.link(&app.key("ann").await, json!({"long_url": TARGET})).await;
    for _ in 0..10 {
        let followed = app.get(&format!("/{code}")).header("x-forwarded-for", "192.0.2.1").send().await;
        assert_eq!(followed.status, 302);
    }
    // Without such a header it is a client.
    assert_eq!(app.follow(&code).await.status, 302);
    assert_eq!(app.follow(&code).await.status, 302);
    assert_eq!(app.follow(&code).await.status, 429);
}

#[tokio::test]
async fn a_request_id_is_taken_from_a_trusted_proxy_alone() {
    let ids_of = async |app: &TestApp, id: &str| {
        let mut ids: Vec<String> = Vec::new();
        for path in ["/unknown", "/health"] {
            let answer = app.get(path).header("x-request-id", id).send().await;
            ids.push(answer.header("x-request-id").unwrap().to_owned());
            if answer.status == 404 {
                assert_eq!(answer.json()["request_id"], Value::from(ids[0].clone()));
            }
        }
        ids
    };
    let trusting = TestApp::with(&[("trusted_proxies", "127.0.0.0/8")]).await;
    for id in ["abc", "0af7651916cd43dd8448eb211c80319c", "a-b_c.d:e", &"x".repeat(64)] {
        assert_eq!(ids_of(&trusting, id).await, [id, id]);
    }
    for id in ["", " ", "a b", "a\"b", "<script>", "a;b", &"x".repeat(65)] {
        let ids = ids_of(&trusting, id).await;
        assert!(ids.iter().all(|own| own != id && own.len() == 16), "{id:?} {ids:?}");
    }
    let untrusting = TestApp::with(&[("trusted_proxies", "10.0.0.0/8")]).await;
    let ids = ids_of(&untrusting, "abc").await;
    assert!(ids.iter().all(|own| own != "abc" && own.len() == 16), "{ids:?}");
}

#[tokio::test]
async fn a_rate_beyond_measure_breaks_nothing() {
    let app = TestApp::with(&[("rate_limits", "on"), ("misses_per_second", "1000000000")]).await;
    for code in ["none1", "none2", "none3"] {
        assert_eq!(app.follow(code).await.status, 404);
    }
}
