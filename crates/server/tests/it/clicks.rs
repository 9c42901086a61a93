//! Clicks from the redirect to the statistics, and what may go wrong between.

use crate::support::failing_clicks::{ClickSwitch, Commits};
use crate::support::{Connection, Logged, Method, Place, TestApp, TestRequest, Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;
use terse_model::click::{Kind, Subject};
use terse_model::click_store::{ClickScan, ClickStore};
use terse_model::code_space::LinkId;
use terse_model::stats::{Filter, Granularity, KindFilter, Stats, StatsQuery, TimeZone};
use terse_model::time::Timestamp;

const TARGET: &str = "https://example.com/";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const GOOGLEBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
const SLACKBOT: &str = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)";

fn person(app: &TestApp, code: &str) -> TestRequest {
    app.get(&format!("/{code}")).header("user-agent", FIREFOX)
}

async fn id_of(app: &TestApp, code: &str) -> LinkId {
    use terse_model::code::ShortCode;
    use terse_model::domain::DomainId;
    use terse_model::link::LinkKey;
    let key = LinkKey { domain: DomainId::DEFAULT, code: ShortCode::parse(code).unwrap() };
    app.running.app.links.store.link_get(&key).await.unwrap().unwrap().id()
}

/// Everything about a link, until a day from now.
async fn stats_of(app: &TestApp, code: &str) -> Stats {
    stats_with(app, code, Filter { kind: KindFilter::All, ..Filter::default() }).await
}

async fn stats_with(app: &TestApp, code: &str, filter: Filter) -> Stats {
    let now = app.clock.now();
    let query = StatsQuery {
        from: now.plus_seconds(-30 * 86_400),
        to: now.plus_seconds(86_400),
        timezone: TimeZone::UTC,
        granularity: Granularity::Day,
        group_by: None,
        filter,
        limit: 100,
    };
    let subject = Subject::Link(id_of(app, code).await);
    app.running.app.clicks.stats(&subject, query).await.unwrap()
}

fn of_kind(stats: &Stats, kind: Kind) -> u64 {
    stats.by_kind.iter().find(|(own, _)| *own == kind).unwrap().1
}

/// Raw events of everything, as (agent, referrer, language, country, kind, time).
async fn raw(app: &TestApp) -> Vec<(String, String, String, String, Kind, Timestamp)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let range = Timestamp::from_millis(0)..Timestamp::MAX;
    let scan = ClickScan { subject: Subject::Everything, range, after: None, cancelled: Default::default() };
    let visit = Box::new(move |click: &terse_model::click::Click<'_>| {
        let facts = click.facts;
        let texts = [click.user_agent, click.referrer, facts.language, facts.country].map(str::to_owned);
        let [agent, referrer, language, country] = texts;
        sender.send((agent, referrer, language, country, facts.kind, click.at)).unwrap();
        std::ops::ControlFlow::Continue(())
    });
    app.running.app.clicks.scan(scan, visit).await.unwrap();
    receiver.try_iter().collect()
}

fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn every_kind_of_redirect_is_counted_as_what_it_is() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    for request in [
        person(&app, &code),
        // A missing agent makes nobody a bot.
        app.get(&format!("/{code}")),
        app.get(&format!("/{code}")).header("user-agent", GOOGLEBOT),
        app.get(&format!("/{code}")).header("user-agent", SLACKBOT),
        person(&app, &code).header("sec-purpose", "prefetch;prerender"),
        person(&app, &code).header("x-moz", "prefetch"),
        app.request(Method::HEAD, &format!("/{code}")).header("user-agent", FIREFOX),
    ] {
        assert_eq!(request.send().await.status, 302);
    }
    // What reveals no target is no click.
    assert_eq!(app.get("/nothing-here").send().await.status, 404);
    app.settle().await;
    let stats = stats_of(&app, &code).await;
    let kinds = [Kind::Human, Kind::Bot, Kind::Preview, Kind::Prefetch, Kind::Head];
    assert_eq!(kinds.map(|kind| of_kind(&stats, kind)), [2, 1, 1, 2, 1]);
    assert_eq!((stats.human, stats.all), (2, 7));
    assert_eq!(raw(&app).await.len(), 7);
    let page = app.get("/metrics").send().await;
    for (name, expected) in [
        ("terse_clicks_appended_total", 7.0),
        ("terse_clicks_processed_total", 7.0),
        ("terse_clicks_dropped_total", 0.0),
        ("terse_clicks_lag_events", 0.0),
        ("terse_clicks_lag_seconds", 0.0),
    ] {
        assert_eq!(metric(page.text(), name), expected, "{name}");
    }
    assert!(metric(page.text(), "terse_clicks_journal_bytes") >= 65_536.0);
}

#[tokio::test]
async fn every_way_to_a_target_counts_once() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let tagged = app.link(&key, json!({"long_url": TARGET, "tags": ["spring", "mail"]})).await;
    let secret = app.link(&key, json!({"long_url": TARGET, "password": "open sesame"})).await;
    let limited = app.link(&key, json!({"long_url": TARGET, "click_limit": 2})).await;
    let forwarding = app.link(&key, json!({"long_url": TARGET, "forward_query": true})).await;
    assert_eq!(person(&app, &tagged).send().await.status, 302);
    assert_eq!(person(&app, &secret).send().await.status, 401);
    let unlocked = app.post(&format!("/{secret}")).header("user-agent", FIREFOX);
    assert_eq!(unlocked.json(json!({"password": "open sesame"})).send().await.status, 303);
    for status in [302, 302, 410] {
        assert_eq!(person(&app, &limited).send().await.status, status);
    }
    assert_eq!(person(&app, &format!("{forwarding}?a=b")).send().await.status, 302);
    app.settle().await;
    for (code, clicks) in [(&tagged, 1), (&secret, 1), (&limited, 2), (&forwarding, 1)] {
        assert_eq!(stats_of(&app, code).await.human, clicks, "{code}");
    }
    let ann = app.running.app.accounts.store.user_list().await.unwrap()[0].id;
    let totals = app.running.app.clicks.totals(vec![
        Subject::Owner(ann),
        Subject::OwnerTag(ann, "spring".into()),
        Subject::OwnerTag(ann, "summer".into()),
        Subject::Everything,
    ]);
    let human: Vec<u64> = totals.await.unwrap().iter().map(|totals| totals.human).collect();
    assert_eq!(human, [5, 1, 0, 5]);
}

#[tokio::test]
async fn who_only_looks_uses_no_click_of_a_limited_link() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": "https://limited.example/", "click_limit": 1})).await;
    for request in [
        app.get(&format!("/{code}")).header("user-agent", SLACKBOT),
        app.get(&format!("/{code}")).header("user-agent", "WhatsApp/2.23.20.0"),
        app.get(&format!("/{code}")).header("user-agent", "facebookexternalhit/1.1"),
        person(&app, &code).header("purpose", "prefetch"),
        app.request(Method::HEAD, &format!("/{code}")),
    ] {
        let looked = request.send().await;
        assert_eq!((looked.status, looked.header("location")), (200, None), "{looked:?}");
        assert!(!looked.text().contains("limited.example"));
    }
    assert_eq!(person(&app, &code).send().await.status, 302);
    assert_eq!(person(&app, &code).send().await.status, 410);
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.all, 1);
}

#[tokio::test]
async fn statistics_show_clicks_before_they_are_committed_and_after_a_restart() {
    let (switch, wrap) = ClickSwitch::new();
    let app = TestApp::with_stores(&[], wrap).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    switch.set(Commits::Fail);
    for _ in 0..3 {
        person(&app, &code).send().await;
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while stats_of(&app, &code).await.human < 3 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let link = Subject::Link(id_of(&app, &code).await);
    let totals = app.running.app.clicks.totals(vec![link]).await.unwrap();
    assert_eq!((totals[0].human, totals[0].all), (3, 3));
    // The journal holds what could not be committed; to settle it takes no click of this run.
    let app = app.restart(&[]).await;
    app.settle().await;
    let store = app.running.app.embedded.as_ref().unwrap().clicks.clone();
    let link = Subject::Link(id_of(&app, &code).await);
    assert_eq!(store.totals_get(vec![link]).await.unwrap().1[0].human, 3);
    person(&app, &code).send().await;
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.human, 4);
    assert_eq!(raw(&app).await.len(), 4);
}

#[tokio::test]
async fn commits_that_fail_hang_or_lie_count_nothing_twice() {
    let (switch, wrap) = ClickSwitch::new();
    let app = TestApp::with_stores(&[], wrap).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let mut clicks = 0;
    for commits in [Commits::Fail, Commits::Lie, Commits::Hang, Commits::Lie, Commits::Fail] {
        switch.set(commits);
        for _ in 0..20 {
            assert_eq!(person(&app, &code).send().await.status, 302);
            clicks += 1;
        }
        // Long enough for a commit to be tried.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(stats_of(&app, &code).await.human, clicks);
    }
    switch.set(Commits::Work);
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.human, clicks);
    assert_eq!(raw(&app).await.len() as u64, clicks);
    let app = app.restart(&[]).await;
    assert_eq!(stats_of(&app, &code).await.human, clicks);
    assert_eq!(raw(&app).await.len() as u64, clicks);
}

#[tokio::test]
async fn a_clock_that_jumps_moves_clicks_and_loses_none() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    for millis in [0, 26 * 3_600_000, -25 * 3_600_000, -40 * 86_400_000, 40 * 86_400_000] {
        app.clock.advance(millis);
        assert_eq!(person(&app, &code).send().await.status, 302);
    }
    // The reader's clock is an hour behind by the time it reads this one.
    app.clock.advance(3_600_000);
    person(&app, &code).send().await;
    app.clock.advance(-3_600_000);
    app.settle().await;
    let now = app.clock.now();
    let events = raw(&app).await;
    assert_eq!(events.len(), 6);
    assert!(events.iter().all(|event| event.5 <= now.plus_seconds(26 * 3600)));
    let link = Subject::Link(id_of(&app, &code).await);
    assert_eq!(app.running.app.clicks.totals(vec![link]).await.unwrap()[0].human, 6);
}

#[tokio::test]
async fn what_is_kept_of_a_request_is_bounded_and_clean() {
    let app = TestApp::with(&[("trusted_proxies", "127.0.0.1")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let long = "x".repeat(5_000);
    let sent = person(&app, &code)
        .header("referer", "https://user:secret@News.Example:8443/a/b?q=private#part")
        .header("accept-language", "de-CH,de;q=0.9,en;q=0.8")
        .header("x-forwarded-for", "8.8.8.8")
        .send();
    sent.await;
    app.clock.advance(1);
    app.get(&format!("/{code}"))
        .header("user-agent", &long)
        .header("referer", &format!("https://long.example/{long}"))
        .header("accept-language", &long)
        .header("cf-ipcountry", "ch")
        .send()
        .await;
    app.clock.advance(1);
    app.get(&format!("/{code}"))
        .header("referer", "javascript:alert(1)")
        .header("cf-ipcountry", "T1")
        .send()
        .await;
    app.settle().await;
    let events = raw(&app).await;
    assert_eq!(events.len(), 3);
    let (_, referrer, language, country, ..) = &events[0];
    assert_eq!(referrer, "https://News.Example:8443/a/b");
    assert_eq!((language.as_str(), country.as_str()), ("de-ch", "US"));
    let (agent, referrer, language, country, ..) = &events[1];
    assert_eq!((agent.len(), language.as_str(), country.as_str()), (512, "", "CH"));
    assert!(referrer.len() <= 512 && referrer.starts_with("https://long.example/"));
    assert_eq!((events[2].1.as_str(), events[2].3.as_str()), ("", ""));
}

#[tokio::test]
async fn a_country_header_of_a_stranger_is_not_believed() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    person(&app, &code).header("cf-ipcountry", "CH").send().await;
    app.settle().await;
    assert_eq!(raw(&app).await[0].3, "");
}

#[tokio::test]
async fn a_referrers_query_is_kept_where_that_is_asked_for() {
    let app = TestApp::with(&[("referrer_query", "on"), ("clicks_raw_days", "1")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    person(&app, &code).header("referer", "https://user:secret@news.example/a?q=b#c").send().await;
    app.settle().await;
    assert_eq!(raw(&app).await[0].1, "https://news.example/a?q=b");
}

#[tokio::test]
async fn without_raw_events_counts_are_kept_all_the_same() {
    let app = TestApp::with(&[("clicks_raw_days", "0")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    person(&app, &code).send().await;
    app.settle().await;
    assert_eq!(raw(&app).await, []);
    assert_eq!(stats_of(&app, &code).await.human, 1);
    // From here on they are kept.
    let app = app.restart(&[]).await;
    person(&app, &code).send().await;
    app.settle().await;
    assert_eq!(raw(&app).await.len(), 1);
    assert_eq!(stats_of(&app, &code).await.human, 2);
}

#[tokio::test]
async fn recording_can_be_off() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    person(&app, &code).send().await;
    let app = app.restart(&[("clicks", "off")]).await;
    assert_eq!(person(&app, &code).send().await.status, 302);
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.human, 1);
    let app = app.restart(&[]).await;
    person(&app, &code).send().await;
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.human, 2);
}

#[tokio::test]
async fn deleted_links_keep_their_counts_and_get_no_more() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    person(&app, &code).send().await;
    app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
    assert_eq!(person(&app, &code).send().await.status, 410);
    app.settle().await;
    assert_eq!(stats_of(&app, &code).await.all, 1);
}

/// Every file under a folder with what is in it.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn no_address_is_written_anywhere() {
    let app = TestApp::with(&[("trusted_proxies", "127.0.0.1")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET})).await;
    let limited = app.link(&key, json!({"long_url": TARGET, "click_limit": 9})).await;
    let v4 = Ipv4Addr::new(203, 97, 113, 249);
    let v6: std::net::Ipv6Addr = "2a02:1f35:97e1:83b4:c9d8:e7f6:a5b4:c3d2".parse().unwrap();
    for address in [v4.to_string(), v6.to_string()] {
        for code in [&code, &limited] {
            let followed = person(&app, code).header("x-forwarded-for", &address).send().await;
            assert_eq!(followed.status, 302);
        }
    }
    app.settle().await;
    assert_eq!(raw(&app).await.len(), 4);
    let mut needles: Vec<Vec<u8>> =
        vec![v4.to_string().into(), v6.to_string().into(), b"2a02:1f35".to_vec(), b"203.97.113".to_vec()];
    needles.push(v4.octets().to_vec());
    needles.push(v4.octets().iter().rev().copied().collect());
    // The network of the IPv6 address is enough to know the household.
    needles.push(v6.octets()[..8].to_vec());
    needles.push(v6.octets()[..8].iter().rev().copied().collect());
    let data = app.dir.path().to_owned();
    let check = || {
        let files = files(&data);
        assert!(files.iter().any(|(name, _)| name.ends_with("clicks.db")));
        assert!(files.iter().any(|(name, _)| name.ends_with(".seg")));
        for (name, content) in files {
            for needle in &needles {
                let found = content.windows(needle.len()).position(|window| window == needle);
                assert_eq!(found, None, "{needle:x?} is in {name}");
            }
        }
    };
    check();
    app.running.stop().await;
    check();
}

#[tokio::test]
async fn a_locked_database_of_statistics_stops_no_redirect_and_loses_no_click() {
    let place = Place::new();
    let key = place.key("ann");
    let server = place.start();
    let mut connection = Connection::open(server.address).await.unwrap();
    let made = connection.post("/api/v1/urls", &key, json!({"long_url": TARGET})).await.unwrap();
    let path = format!("/{}", made.json()["short_code"].as_str().unwrap());
    let database = rusqlite::Connection::open(place.data().join("clicks.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..50 {
        assert_eq!(connection.get(&path).await.unwrap().status, 302);
    }
    // Longer than the store waits for a lock.
    tokio::time::sleep(Duration::from_secs(7)).await;
    for _ in 0..50 {
        assert_eq!(connection.get(&path).await.unwrap().status, 302);
    }
    database.execute_batch("ROLLBACK").unwrap();
    drop(database);
    wait_for_clicks(&mut connection, &key, &path[1..], 100).await;
    assert_eq!(server.terminate(20), Some(0));
    let server = place.start();
    let mut connection = Connection::open(server.address).await.unwrap();
    wait_for_clicks(&mut connection, &key, &path[1..], 100).await;
}

/// Waits until a link's clicks are as many, and sees that they do not become more.
async fn wait_for_clicks(connection: &mut Connection, key: &str, code: &str, expected: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mut seen: Vec<Value> = Vec::new();
    loop {
        let request = http::Request::get(format!("/api/v1/urls/{code}/stats"))
            .header("authorization", format!("Bearer {key}"));
        let stats = connection.send(request, axum::body::Body::empty()).await.unwrap().json();
        seen.push(stats["clicks_total_all"].clone());
        if seen.len() > 3 && seen[seen.len() - 3..].iter().all(|clicks| *clicks == json!(expected)) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not {expected}: {:?}", seen.last());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn a_full_disk_stops_no_redirect_and_counts_nothing_twice() {
    let place = Place::new();
    let key = place.key("ann");
    let server = Logged::start(&place, &[]);
    let mut connection = Connection::open(server.address).await.unwrap();
    let made = connection.post("/api/v1/urls", &key, json!({"long_url": TARGET})).await.unwrap();
    let path = format!("/{}", made.json()["short_code"].as_str().unwrap());
    for _ in 0..100 {
        assert_eq!(connection.get(&path).await.unwrap().status, 302);
    }
    // Neither a segment nor a page of the database can be written any more.
    server.limit_files(Some(0));
    for number in 0..3_000 {
        // Of no shape that was there before.
        let request = http::Request::get(&path).header("user-agent", format!("agent {number}"));
        assert_eq!(connection.send(request, axum::body::Body::empty()).await.unwrap().status, 302);
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.limit_files(None);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for _ in 0..100 {
        assert_eq!(connection.get(&path).await.unwrap().status, 302);
    }
    let page = connection.get("/metrics").await.unwrap();
    let dropped = metric(page.text(), "terse_clicks_dropped_total") as u64;
    let appended = metric(page.text(), "terse_clicks_appended_total") as u64;
    assert_eq!(appended + dropped, 3_200);
    assert!(dropped > 0, "3,000 events need more segments than are ready");
    wait_for_clicks(&mut connection, &key, &path[1..], appended).await;
}
