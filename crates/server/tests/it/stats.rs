//! Statistics over HTTP: what is counted, for whom it is shown, and what may be asked.

use crate::support::{Method, TestApp, TestRequest, TestResponse, Value, json};
use std::time::Duration;
use terse_model::tenant::{Role, Tier};
use tokio::time::Instant;

const PHONE: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/126.0.0.0 Mobile Safari/537.36";
const DESKTOP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0";
const CRAWLER: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// A click is counted within a second or two; how busy the machine is must not matter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows a link as this user agent.
pub async fn click(app: &TestApp, code: &str, agent: &str) {
    let answer = app.get(&format!("/{code}")).header("user-agent", agent).send().await;
    assert_eq!(answer.status, 302, "{answer:?}");
}

pub async fn get(app: &TestApp, key: &str, path: &str) -> Value {
    let answer = app.get(path).bearer(key).send().await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// The statistics of a link once it has so many clicks of every kind.
pub async fn counted(app: &TestApp, key: &str, code: &str, all: u64) -> Value {
    let begin = Instant::now();
    loop {
        let stats = get(app, key, &format!("/api/v1/urls/{code}/stats")).await;
        if stats["clicks_total_all"] == all {
            return stats;
        }
        assert!(begin.elapsed() < PATIENCE && stats["clicks_total_all"].as_u64() < Some(all), "{stats}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn link(app: &TestApp, key: &str, alias: &str) -> String {
    app.link(key, json!({"long_url": "https://example.com/", "custom_alias": alias})).await
}

fn sum(values: &Value) -> u64 {
    values.as_array().unwrap().iter().map(|value| value["clicks"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn people_are_counted_apart_from_programs() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, "counted").await;
    for _ in 0..3 {
        let request = app.get("/counted").header("user-agent", PHONE);
        let request = request.header("referer", "https://news.example.org/page?secret=1");
        assert_eq!(request.header("accept-language", "de-CH,de;q=0.9").send().await.status, 302);
    }
    click(&app, &code, DESKTOP).await;
    click(&app, &code, CRAWLER).await;
    app.request(Method::HEAD, "/counted").header("user-agent", PHONE).send().await;
    app.get("/counted").header("user-agent", PHONE).header("sec-purpose", "prefetch").send().await;
    let stats = counted(&app, &key, &code, 7).await;
    assert_eq!(stats["short_url"], format!("http://{}/counted", app.address()));
    assert_eq!(stats["short_code"], "counted");
    assert_eq!((&stats["total_clicks"], &stats["clicks"]), (&json!(4), &json!(4)));
    let by_kind = json!({"human": 4, "bot": 1, "preview": 0, "prefetch": 1, "head": 1});
    assert_eq!(stats["clicks_by_kind"], by_kind);
    assert_eq!((&stats["unique_visitors"], &stats["unique_visitors_reason"]), (&json!(2), &Value::Null));
    assert!(stats["unique_visitors_error"].as_f64().unwrap() < 0.1, "{stats}");
    let value = |value: &str, clicks: u64| json!({"value": value, "clicks": clicks});
    assert_eq!(stats["top_referrers"], json!([value("news.example.org", 3), value("direct", 1)]));
    assert_eq!(stats["top_countries"], json!([value("unknown", 4)]));
    assert_eq!(stats["devices"], json!([value("mobile", 3), value("desktop", 1)]));
    assert_eq!(stats["languages"], json!([value("de-ch", 3), value("unknown", 1)]));
    for list in ["browsers", "os", "clicks_over_time"] {
        assert_eq!(sum(&stats[list]), 4, "{list}: {stats}");
    }
    // A day's life is shown by the hour, until now.
    assert_eq!((&stats["granularity"], &stats["timezone"]), (&json!("hour"), &json!("UTC")));
    assert_eq!(stats["from"], "2027-01-15T00:00:00.000Z");
    assert_eq!(stats["to"], "2027-01-15T08:15:00.000Z");
    assert_eq!(stats.get("groups"), None);
    assert!(!stats.to_string().contains("secret"), "{stats}");
    // Wherever the link is shown, so is its count.
    assert_eq!(get(&app, &key, "/api/v1/urls/counted").await["clicks"], 4);
    assert_eq!(get(&app, &key, "/api/v1/urls").await["links"][0]["clicks"], 4);
    let changed = app.patch("/api/v1/urls/counted").bearer(&key).json(json!({"title": "t"})).send().await;
    assert_eq!(changed.json()["clicks"], 4);
}

#[tokio::test]
async fn a_link_that_nobody_followed_has_zeros() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, "unseen").await;
    let stats = get(&app, &key, &format!("/api/v1/urls/{code}/stats")).await;
    assert_eq!((&stats["total_clicks"], &stats["clicks_total_all"]), (&json!(0), &json!(0)));
    assert_eq!((&stats["unique_visitors"], &stats["top_countries"]), (&json!(0), &json!([])));
    assert_eq!(get(&app, &key, "/api/v1/urls/unseen").await["clicks"], 0);
}

#[tokio::test]
async fn a_filter_and_a_group_count_what_they_say() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, "mixed").await;
    click(&app, &code, PHONE).await;
    click(&app, &code, PHONE).await;
    click(&app, &code, DESKTOP).await;
    click(&app, &code, CRAWLER).await;
    counted(&app, &key, &code, 4).await;
    for (query, expected) in [
        ("device=mobile", 2),
        ("device=desktop", 1),
        ("device=tv", 0),
        ("country=unknown", 3),
        ("country=CH", 0),
        ("referrer=direct", 3),
        ("language=unknown&device=mobile", 2),
        ("kind=all", 4),
        ("kind=bot", 1),
        ("kind=human", 3),
        ("kind=head", 0),
        ("kind=all&device=mobile", 2),
    ] {
        let stats = get(&app, &key, &format!("/api/v1/urls/{code}/stats?{query}")).await;
        assert_eq!(stats["clicks"], expected, "{query}: {stats}");
        assert_eq!(sum(&stats["devices"]), expected, "{query}: {stats}");
    }
    for group in ["referrer", "country", "device", "browser", "os", "language", "kind"] {
        let query = format!("/api/v1/urls/{code}/stats?kind=all&group_by={group}");
        let stats = get(&app, &key, &query).await;
        assert_eq!(sum(&stats["groups"]), 4, "{group}: {stats}");
    }
    let stats = get(&app, &key, &format!("/api/v1/urls/{code}/stats?limit=1&group_by=device")).await;
    let expected = json!([{"value": "mobile", "clicks": 2}, {"value": "other", "clicks": 1}]);
    assert_eq!(stats["devices"], expected);
}

#[tokio::test]
async fn a_date_is_a_day_of_the_time_zone_and_the_last_one_belongs_to_the_range() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    // At 08:00 UTC of 2027-01-15, when it is still the 14th in Honolulu.
    let code = link(&app, &key, "dated").await;
    click(&app, &code, PHONE).await;
    counted(&app, &key, &code, 1).await;
    for (query, clicks) in [
        ("from=2027-01-15&to=2027-01-15", 1),
        ("from=2027-01-14&to=2027-01-14", 0),
        ("to=2027-01-15", 1),
        ("to=2027-01-14", 0),
        ("from=2027-01-14&to=2027-01-14&timezone=Pacific/Honolulu", 1),
        ("from=2027-01-15&to=2027-01-15&timezone=Pacific/Honolulu", 0),
        ("from=2027-01-14&to=2027-01-14&timezone=-10:00", 1),
        ("from=2027-01-15&to=2027-01-15&timezone=%2B05:30", 1),
        ("from=2027-01-15T08:00:00Z&to=2027-01-15T08:15:00Z", 1),
        ("from=2027-01-15T07:00:00Z&to=2027-01-15T08:00:00Z", 0),
        ("from=2027-01-15T09:00:00%2B01:00&to=2027-01-16", 1),
        ("from=2026-01-01&to=2027-12-31&granularity=week", 1),
        ("from=2020-01-01&granularity=month", 1),
    ] {
        let stats = get(&app, &key, &format!("/api/v1/urls/{code}/stats?{query}")).await;
        assert_eq!(stats["total_clicks"], clicks, "{query}: {stats}");
        assert_eq!(sum(&stats["clicks_over_time"]), clicks, "{query}: {stats}");
    }
    let zurich = format!("/api/v1/urls/{code}/stats?timezone=Europe/Zurich&granularity=day");
    let stats = get(&app, &key, &zurich).await;
    assert_eq!(stats["clicks_over_time"][0]["start"], "2027-01-15T00:00:00+01:00", "{stats}");
    assert_eq!(
        (&stats["to"], &stats["timezone"]),
        (&json!("2027-01-15T23:00:00.000Z"), &json!("Europe/Zurich"))
    );
}

#[tokio::test]
async fn a_wrong_parameter_is_named() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    link(&app, &admin, "plain").await;
    let check = async |path: &str, query: &str, field: &str| {
        let answer = app.get(&format!("{path}?{query}")).bearer(&admin).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{path} {query}");
        assert_eq!(answer.json()["field"], field, "{path} {query}: {answer:?}");
    };
    let (long, one) = ("x".repeat(254), "/api/v1/urls/plain/stats");
    for path in [one, "/api/v1/stats"] {
        for (query, field) in [
            ("from=yesterday", "from"),
            ("from=2027-02-30", "from"),
            ("from=", "from"),
            ("to=1893456000", "to"),
            ("from=2027-01-02&to=2027-01-01", "from"),
            ("from=2027-01-01T00:00:00Z&to=2027-01-01T00:00:00Z", "from"),
            ("from=2027-02-01", "from"),
            ("timezone=Mars/Olympus", "timezone"),
            ("timezone=", "timezone"),
            ("granularity=minute", "granularity"),
            ("granularity=", "granularity"),
            ("from=2000-01-01&granularity=hour", "granularity"),
            ("group_by=owner", "group_by"),
            ("kind=person", "kind"),
            ("country=CHE", "country"),
            ("country=1A", "country"),
            ("country=", "country"),
            ("device=phone", "device"),
            ("language=de_CH", "language"),
            ("browser=", "browser"),
            (&format!("os={long}"), "os"),
            (&format!("referrer={long}"), "referrer"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=ten", "limit"),
            ("colour=red", "colour"),
            ("domain=else.example", "domain"),
        ] {
            check(path, query, field).await;
        }
        let twice = app.get(&format!("{path}?from=2027-01-01&from=2027-01-02")).bearer(&admin).send().await;
        assert_eq!((twice.status, twice.code().as_str()), (400, "VALIDATION_ERROR"), "{twice:?}");
    }
    check(one, "tag=news", "tag").await;
    check(one, "owner=ann", "owner").await;
    for path in ["/api/v1/stats", "/api/v1/clicks", "/api/v1/clicks/export"] {
        check(path, "tag=", "tag").await;
        check(path, &format!("tag={}", &long[..65]), "tag").await;
        check(path, "tag=a&domain=127.0.0.1", "tag").await;
        check(path, "tag=a&everyone=true", "tag").await;
        check(path, "owner=two%20words", "owner").await;
        check(path, "owner=root&everyone=true", "owner").await;
        check(path, "everyone=yes", "everyone").await;
        let absent = app.get(&format!("{path}?owner=nobody")).bearer(&admin).send().await;
        assert_eq!((absent.status, absent.code().as_str()), (404, "URL_NOT_FOUND"), "{path}");
    }
    for path in ["/api/v1/urls/plain/clicks", "/api/v1/clicks"] {
        check(path, "limit=0", "limit").await;
        check(path, "limit=1001", "limit").await;
        check(path, "cursor=", "cursor").await;
        check(path, "cursor=1-2-3-4", "cursor").await;
        check(path, "from=2027-01-02&to=2027-01-01", "from").await;
        check(path, "timezone=UTC", "timezone").await;
    }
    for path in ["/api/v1/urls/plain/clicks/export", "/api/v1/clicks/export"] {
        check(path, "format=xlsx", "format").await;
        check(path, "from=then", "from").await;
        check(path, "limit=5", "limit").await;
    }
    for (query, field) in [("", "visitor"), ("visitor=1", "visitor"), ("visitor=0a1b2c3d4e5f607g", "visitor")]
    {
        let answer = app.delete(&format!("/api/v1/clicks?{query}")).bearer(&admin).send().await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{query}");
    }
    for (body, field) in [
        (json!({"from": "then"}), "from"),
        (json!({"from": "2027-01-14T00:00:00Z"}), "from"),
        (json!({"from": "2027-01-13", "to": "2027-01-12"}), "from"),
        (json!({"from": "2020-01-01"}), "from"),
        (json!({"to": "2027-01-16"}), "to"),
        (json!({"day": "2027-01-14"}), "day"),
    ] {
        let answer = app.post("/api/v1/stats/reconcile").bearer(&admin).json(body.clone()).send().await;
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{body}");
    }
}

/// Every call about the link `anns`, and the scope that it needs.
fn calls(app: &TestApp) -> Vec<(&'static str, TestRequest)> {
    let get = |path: &str| app.get(&format!("/api/v1/{path}"));
    vec![
        ("stats:read", get("urls/anns/stats")),
        ("stats:read", get("stats/anns")),
        ("stats:read", get("urls/anns/clicks")),
        ("stats:read", get("urls/anns/clicks/export")),
        ("links:write", app.delete("/api/v1/urls/anns/clicks")),
    ]
}

#[tokio::test]
async fn statistics_are_for_those_who_may_manage_the_link() {
    let app = TestApp::start().await;
    let (ann, bob, admin) = (app.key("ann").await, app.key("bob").await, app.admin_key().await);
    link(&app, &ann, "anns").await;
    let status = async |request: TestRequest, key: &str| request.bearer(key).send().await.status;
    for index in 0..calls(&app).len() {
        let call = || calls(&app).swap_remove(index);
        assert_eq!(status(call().1, &ann).await, 200);
        assert_eq!(status(call().1, &admin).await, 200);
        assert_eq!(status(call().1, &bob).await, 403);
        assert_eq!(status(call().1, "terse_wrong").await, 401);
        assert_eq!(call().1.send().await.status, 401);
        assert_eq!(call().1.header("x-manage-token", "mt_wrong").send().await.status, 403);
        // A key that may do everything else.
        let scopes: Vec<&str> = ["links:read", "links:write", "stats:read", "keys"]
            .into_iter()
            .filter(|scope| *scope != call().0)
            .collect();
        let made =
            app.post("/api/v1/keys").bearer(&ann).json(json!({"name": "n", "scopes": scopes})).send().await;
        let narrow = made.json()["key"].as_str().unwrap().to_owned();
        assert_eq!(status(call().1, &narrow).await, 403);
    }
    for path in [
        "/api/v1/urls/absent/stats",
        "/api/v1/stats/absent",
        "/api/v1/urls/absent/clicks",
        "/api/v1/urls/absent/live",
    ] {
        let answer = app.get(path).bearer(&ann).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "URL_NOT_FOUND"), "{path}");
    }
    let live = async |key: &str| app.get("/api/v1/urls/anns/live").bearer(key).send().await.status;
    assert_eq!((live(&bob).await, live("terse_wrong").await), (403, 401));
}

#[tokio::test]
async fn an_anonymous_link_shows_its_statistics_to_whoever_has_its_token() {
    let app = TestApp::start().await;
    let made = app.post("/api/v1/urls").json(json!({"long_url": "https://example.com/"})).send().await.json();
    let (code, token) = (made["short_code"].as_str().unwrap(), made["manage_token"].as_str().unwrap());
    click(&app, code, PHONE).await;
    let admin = app.admin_key().await;
    counted(&app, &admin, code, 1).await;
    for path in [format!("urls/{code}/stats"), format!("stats/{code}"), format!("urls/{code}/clicks")] {
        let request = || app.get(&format!("/api/v1/{path}"));
        assert_eq!(request().header("x-manage-token", token).send().await.status, 200, "{path}");
        assert_eq!(request().header("x-manage-token", "mt_other").send().await.status, 403, "{path}");
        assert_eq!(request().send().await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_deleted_link_keeps_its_statistics() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, "gone").await;
    click(&app, &code, PHONE).await;
    counted(&app, &key, &code, 1).await;
    assert_eq!(app.delete("/api/v1/urls/gone").bearer(&key).send().await.status, 204);
    assert_eq!(get(&app, &key, "/api/v1/urls/gone/stats").await["total_clicks"], 1);
    assert_eq!(get(&app, &key, "/api/v1/stats/gone").await["total_clicks"], 1);
}

#[tokio::test]
async fn the_short_form_has_exactly_four_fields() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = link(&app, &key, "brief").await;
    let short_url = format!("http://{}/brief", app.address());
    let empty = json!({
        "short_url": short_url, "total_clicks": 0, "clicks_by_country": {}, "clicks_by_date": {},
    });
    assert_eq!(get(&app, &key, "/api/v1/stats/brief").await, empty);
    click(&app, &code, PHONE).await;
    click(&app, &code, CRAWLER).await;
    counted(&app, &key, &code, 2).await;
    app.clock.advance(3 * 86_400_000);
    click(&app, &code, DESKTOP).await;
    click(&app, &code, PHONE).await;
    counted(&app, &key, &code, 4).await;
    let expected = json!({
        "short_url": short_url,
        "total_clicks": 3,
        "clicks_by_country": {"unknown": 3},
        "clicks_by_date": {"2027-01-15": 1, "2027-01-18": 2},
    });
    assert_eq!(get(&app, &key, "/api/v1/stats/brief").await, expected);
}

#[tokio::test]
async fn many_links_are_counted_together() {
    let app = TestApp::start().await;
    let (ann, bob, admin) = (app.key("ann").await, app.key("bob").await, app.admin_key().await);
    let fields = |alias: &str, tags: Value| json!({"long_url": "https://example.com/", "custom_alias": alias, "tags": tags});
    app.link(&ann, fields("tagged", json!(["news"]))).await;
    app.link(&ann, fields("untagged", json!([]))).await;
    app.link(&bob, fields("bobs", json!(["news"]))).await;
    for code in ["tagged", "untagged", "untagged", "bobs", "bobs", "bobs"] {
        click(&app, code, PHONE).await;
    }
    counted(&app, &ann, "tagged", 1).await;
    counted(&app, &ann, "untagged", 2).await;
    counted(&app, &bob, "bobs", 3).await;
    let refused = async |key: &str, query: &str| -> TestResponse {
        app.get(&format!("/api/v1/stats?{query}")).bearer(key).send().await
    };
    for (key, query, expected) in [
        (&ann, "", Some(3)),
        (&ann, "tag=news", Some(1)),
        (&ann, "tag=none", Some(0)),
        (&ann, "domain=127.0.0.1", Some(3)),
        (&ann, "owner=ann", Some(3)),
        (&ann, "everyone=false", Some(3)),
        (&ann, "owner=bob", None),
        (&ann, "owner=nobody", None),
        (&ann, "everyone=true", None),
        (&bob, "tag=news", Some(3)),
        (&admin, "", Some(0)),
        (&admin, "owner=bob", Some(3)),
        (&admin, "owner=ann&tag=news", Some(1)),
        (&admin, "owner=ann&domain=127.0.0.1", Some(3)),
        (&admin, "everyone=true", Some(6)),
        (&admin, "everyone=true&domain=127.0.0.1", Some(6)),
    ] {
        match expected {
            Some(clicks) => {
                let stats = get(&app, key, &format!("/api/v1/stats?{query}")).await;
                assert_eq!(
                    (&stats["total_clicks"], stats.get("short_code")),
                    (&json!(clicks), None),
                    "{query}"
                );
            }
            None => assert_eq!(refused(key, query).await.code(), "FORBIDDEN", "{query}"),
        }
    }
    assert_eq!(app.get("/api/v1/stats").send().await.status, 401);
}

#[tokio::test]
async fn an_admins_key_without_the_scope_is_no_admins() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    let fields = json!({"name": "blunt", "scopes": ["stats:read", "links:write"]});
    let made = app.post("/api/v1/keys").bearer(&admin).json(fields).send().await.json();
    let blunt = made["key"].as_str().unwrap();
    let member = app.key_of("ann", Role::Member, Tier::Free).await;
    for key in [blunt, &member] {
        let everyone = app.get("/api/v1/stats?everyone=true").bearer(key).send().await;
        assert_eq!((everyone.status, everyone.code().as_str()), (403, "FORBIDDEN"));
        let visitor = "/api/v1/clicks?everyone=true&visitor=0a1b2c3d4e5f6071";
        assert_eq!(app.delete(visitor).bearer(key).send().await.code(), "FORBIDDEN");
        let reconcile = app.post("/api/v1/stats/reconcile").bearer(key).json(json!({})).send().await;
        assert_eq!(reconcile.code(), "FORBIDDEN");
    }
}

#[tokio::test]
async fn days_are_counted_anew_and_nothing_changes_that_was_right() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    let code = link(&app, &admin, "right").await;
    click(&app, &code, PHONE).await;
    click(&app, &code, CRAWLER).await;
    counted(&app, &admin, &code, 2).await;
    app.clock.advance(86_400_000);
    let answer = app.post("/api/v1/stats/reconcile").bearer(&admin).json(json!({})).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = json!({
        "days": [{
            "day": "2027-01-15", "clicks_before": 2, "clicks_after": 2, "human_before": 1, "human_after": 1,
            "by_agent": 0, "by_rate": 0, "repeats": 0, "erased": 0,
        }],
        "left_out": [],
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(counted(&app, &admin, &code, 2).await["total_clicks"], 1);
}

#[tokio::test]
async fn a_lag_is_shown_to_local_callers() {
    let app = TestApp::start().await;
    let ready = get(&app, &app.key("ann").await, "/ready").await;
    assert_eq!(ready, json!({"status": "ready", "dependencies": {"store": "ok", "clicks": "ok"}}));
}
