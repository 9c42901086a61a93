//! Domains: the same code under each is another link.

use crate::support::connection::at_once;
use crate::support::wrapped::HeldAccounts;
use crate::support::{Method, TestApp, TestRequest, TestResponse, json};
use std::time::Duration;
use terse::app::Stores;

const DOMAINS: &str = "/api/v1/domains";
const URLS: &str = "/api/v1/urls";

async fn add(app: &TestApp, admin: &str, name: &str) {
    let added = app.post(DOMAINS).bearer(admin).json(json!({"name": name})).send().await;
    assert_eq!(added.status, 201, "{added:?}");
}

async fn follow_on(app: &TestApp, host: &str, code: &str) -> TestResponse {
    app.get(&format!("/{code}")).header("host", host).send().await
}

#[tokio::test]
async fn an_alias_is_another_link_on_each_domain() {
    let app = TestApp::start().await;
    let (admin, key) = (app.admin_key().await, app.key("ann").await);
    add(&app, &admin, "go.example.com").await;
    let target = |domain: &str| format!("https://example.com/{domain}");
    let domains = ["127.0.0.1", "go.example.com"];
    for domain in domains {
        let fields = json!({"long_url": target(domain), "custom_alias": "same", "domain": domain});
        let made = app.post(URLS).bearer(&key).json(fields.clone()).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        let port = app.address().port();
        assert_eq!(made.json()["domain"], domain);
        assert_eq!(made.json()["short_url"], format!("http://{domain}:{port}/same"));
        assert_eq!(app.post(URLS).bearer(&key).json(fields).send().await.status, 409);
    }
    for (host, domain) in [
        ("go.example.com", "go.example.com"),
        ("GO.Example.COM", "go.example.com"),
        ("go.example.com:8080", "go.example.com"),
        ("go.example.com.", "go.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("unknown.example", "127.0.0.1"),
    ] {
        let followed = follow_on(&app, host, "same").await;
        assert_eq!(followed.header("location"), Some(target(domain).as_str()), "{host}");
    }
    // By code, the query says which.
    let path = format!("{URLS}/same");
    let on = |domain: &str| format!("{path}?domain={domain}");
    for (path, domain) in [
        (path.clone(), "127.0.0.1"),
        (on("127.0.0.1"), "127.0.0.1"),
        (on("go.example.com"), "go.example.com"),
        (on("GO.example.com"), "go.example.com"),
    ] {
        let read = app.get(&path).bearer(&key).send().await;
        assert_eq!(read.json()["long_url"], target(domain), "{path}");
    }
    let changed = app.patch(&on("go.example.com")).bearer(&key).json(json!({"title": "t"})).send().await;
    assert_eq!((changed.status, changed.json()["domain"].as_str()), (200, Some("go.example.com")));
    assert_eq!(app.get(&path).bearer(&key).send().await.json()["revision"], 1);
    assert_eq!(app.delete(&on("go.example.com")).bearer(&key).send().await.status, 204);
    assert_eq!(follow_on(&app, "go.example.com", "same").await.code(), "URL_DELETED");
    assert_eq!(follow_on(&app, "127.0.0.1", "same").await.status, 302);
    // In bulk, each row says.
    let rows = json!([
        {"long_url": target("bulk"), "custom_alias": "rows", "domain": "go.example.com"},
        {"long_url": target("bulk"), "custom_alias": "rows"},
        {"action": "delete", "short_code": "rows", "domain": "go.example.com"},
        {"action": "update", "short_code": "rows", "domain": "unknown.example", "changes": {}},
    ]);
    let answer = app.post("/api/v1/urls/bulk").bearer(&key).json(rows).send().await.json();
    let statuses: Vec<_> = answer["results"].as_array().unwrap().iter().map(|row| &row["status"]).collect();
    assert_eq!(statuses, [201, 201, 204, 400]);
}

#[tokio::test]
async fn a_generated_code_leads_nowhere_on_another_domain() {
    let app = TestApp::start().await;
    let (admin, key) = (app.admin_key().await, app.key("ann").await);
    add(&app, &admin, "go.example.com").await;
    let fields = json!({"long_url": "https://example.com/", "domain": "go.example.com"});
    let code = app.link(&key, fields).await;
    assert_eq!(follow_on(&app, "go.example.com", &code).await.status, 302);
    assert_eq!(follow_on(&app, "127.0.0.1", &code).await.code(), "URL_NOT_FOUND");
    assert_eq!(app.get(&format!("{URLS}/{code}")).bearer(&key).send().await.code(), "URL_NOT_FOUND");
}

#[tokio::test]
async fn an_unknown_domain_is_refused_by_name() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": "https://example.com/", "custom_alias": "here"})).await;
    let path = format!("{URLS}/here?domain=unknown.example");
    for answer in [
        app.post(URLS)
            .bearer(&key)
            .json(json!({"long_url": "https://example.com/", "domain": "unknown.example"})),
        app.get(&path).bearer(&key),
        app.patch(&path).bearer(&key).json(json!({})),
        app.delete(&path).bearer(&key),
    ] {
        let answer = answer.send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "VALIDATION_ERROR"), "{answer:?}");
        assert_eq!(answer.json()["field"], "domain");
    }
    assert_eq!(app.follow("here").await.status, 302);
}

#[tokio::test]
async fn a_changed_base_url_keeps_every_link() {
    let app = TestApp::start().await;
    let (admin, key) = (app.admin_key().await, app.key("ann").await);
    add(&app, &admin, "go.example.com").await;
    let fields = json!({"long_url": "https://example.com/default"});
    let code = app.link(&key, fields).await;
    app.link(&key, json!({"long_url": "https://example.com/alias", "custom_alias": "named"})).await;
    let other =
        json!({"long_url": "https://example.com/go", "custom_alias": "named", "domain": "go.example.com"});
    app.link(&key, other).await;
    let mut app = app;
    for base_url in ["https://new.example.com", "http://newer.example.com:8081"] {
        app = app.restart(&[("base_url", base_url)]).await;
        let host = base_url.split("//").nth(1).unwrap();
        assert_eq!(
            follow_on(&app, host, &code).await.header("location"),
            Some("https://example.com/default")
        );
        assert_eq!(
            follow_on(&app, host, "named").await.header("location"),
            Some("https://example.com/alias")
        );
        let go = follow_on(&app, "go.example.com", "named").await;
        assert_eq!(go.header("location"), Some("https://example.com/go"));
        let read = app.get(&format!("{URLS}/{code}")).bearer(&key).send().await.json();
        assert_eq!(read["short_url"], format!("{base_url}/{code}"));
        assert_eq!(read["domain"], host.split(':').next().unwrap());
    }
}

#[tokio::test]
async fn domains_are_registered_by_admins_once_each() {
    let app = TestApp::start().await;
    let (admin, ann) = (app.admin_key().await, app.key("ann").await);
    for (key, expected) in [(&ann, 403), (&admin, 201), (&admin, 409)] {
        let answer = app.post(DOMAINS).bearer(key).json(json!({"name": "Go.Example.com"})).send().await;
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert_eq!(app.post(DOMAINS).json(json!({"name": "x.example"})).send().await.status, 401);
    let default = app.post(DOMAINS).bearer(&admin).json(json!({"name": "127.0.0.1"})).send().await;
    assert_eq!(default.status, 409, "the default one is registered by its base URL");
    for wrong in ["", "http://x.example", "x.example:80", "x.example/", "a_b.example", "a b", "a..b"] {
        let answer = app.post(DOMAINS).bearer(&admin).json(json!({"name": wrong})).send().await;
        assert_eq!((answer.status, answer.json()["field"].as_str()), (400, Some("name")), "{wrong}");
    }
    let expected = json!({"domains": [
        {"name": "127.0.0.1", "is_default": true, "created_at": null},
        {"name": "go.example.com", "is_default": false, "created_at": "2027-01-15T08:00:00.000Z"},
    ]});
    assert_eq!(app.get(DOMAINS).bearer(&ann).send().await.json(), expected);
    let app = app.restart(&[]).await;
    assert_eq!(app.get(DOMAINS).bearer(&ann).send().await.json(), expected, "after a restart");
}

#[tokio::test]
async fn domains_that_are_registered_at_once_are_all_there() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let admin = app.admin_key().await;
    for round in 0..10 {
        let name = |number: usize| format!("d{number}.round{round}.example");
        let adds = (0..12).map(|number| app.post(DOMAINS).bearer(&admin).json(json!({"name": name(number)})));
        for answer in at_once(adds.collect()).await {
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        for number in 0..12 {
            let fields = json!({"long_url": "https://example.com/", "domain": name(number)});
            app.link(&admin, fields).await;
        }
    }
}

#[tokio::test]
async fn a_slow_registration_does_not_undo_a_later_one() {
    let mut held = None;
    let app = TestApp::with_stores(&[], |stores| {
        let accounts = HeldAccounts::around(stores.accounts.clone());
        held = Some(accounts.clone());
        Stores { accounts, ..stores }
    })
    .await;
    let (held, admin) = (held.unwrap(), app.admin_key().await);
    let register = |name: &str| {
        let request = TestRequest::new(app.address(), Method::POST, DOMAINS).bearer(&admin);
        tokio::spawn(request.json(json!({"name": name})).send())
    };
    held.hold_next_domains();
    let slow = register("slow.example");
    held.until_held().await;
    let mut quick = register("quick.example");
    // It may be answered before the slow one or wait for it; only what holds in the end is promised.
    let answered = tokio::time::timeout(Duration::from_millis(300), &mut quick).await;
    held.release();
    let quick = match answered {
        Ok(quick) => quick.unwrap(),
        Err(_) => quick.await.unwrap(),
    };
    assert_eq!((slow.await.unwrap().status, quick.status), (201, 201));
    for domain in ["slow.example", "quick.example"] {
        app.link(&admin, json!({"long_url": "https://example.com/", "domain": domain})).await;
    }
}

#[tokio::test]
async fn a_host_that_is_no_domain_is_refused_only_when_hosts_are_strict() {
    let app = TestApp::with(&[("strict_hosts", "on")]).await;
    let key = app.key("ann").await;
    app.link(&key, json!({"long_url": "https://example.com/", "custom_alias": "here"})).await;
    assert_eq!(app.follow("here").await.status, 302);
    assert_eq!(follow_on(&app, "unknown.example", "here").await.code(), "URL_NOT_FOUND");
}
