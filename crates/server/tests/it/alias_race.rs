//! Who gets a code: of a thousand callers one, and never an alias where a generated code is or may come to be.

use crate::support::connection::at_once;
use crate::support::{TestApp, TestResponse, json};
use std::collections::BTreeSet;
use terse_model::code_space::LinkId;

const URLS: &str = "/api/v1/urls";
const BULK: &str = "/api/v1/urls/bulk";
const GENERATORS: [&str; 2] = ["permuted:7", "counter"];
/// Ids in a lease.
const LEASE: u64 = terse::links::ids::LEASE_LEN;

/// The generated code of the id that is so many after the first.
fn code_of(app: &TestApp, number: u64) -> String {
    let codes = &app.running.app.instance.codes;
    codes.encode(LinkId(codes.first_id().0 + number)).to_string()
}

/// The target of generated links, and that of the alias.
const GENERATED: &str = "https://example.com/generated";
const NAMED: &str = "https://example.com/named";

async fn make_alias(app: &TestApp, key: &str, alias: &str) -> TestResponse {
    app.post(URLS).bearer(key).json(json!({"long_url": NAMED, "custom_alias": alias})).send().await
}

/// Makes so many links with generated codes, and returns the codes.
async fn generate(app: &TestApp, key: &str, count: u64) -> Vec<String> {
    let row = json!({"long_url": GENERATED}).to_string() + "\n";
    let rows = row.repeat(count as usize);
    let answer = app.post(BULK).bearer(key).body("application/x-ndjson", rows).send().await.json();
    let results = answer["results"].as_array().unwrap();
    results.iter().map(|result| result["link"]["short_code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn of_a_thousand_requests_for_one_alias_one_gets_it() {
    let app = TestApp::with(&[("workers", "4")]).await;
    let keys = [app.key("ann").await, app.key("bob").await];
    let request = |number: usize| {
        let target = format!("https://example.com/{number}");
        let fields = json!({"long_url": target, "custom_alias": "wanted"});
        app.post(URLS).bearer(&keys[number % 2]).json(fields)
    };
    let answers = at_once((0..1_000).map(request).collect()).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    let taken = answers.iter().filter(|answer| answer.status == 409 && answer.code() == "ALIAS_TAKEN");
    assert_eq!((made.len(), taken.count()), (1, 999));
    let target = made[0].json()["long_url"].as_str().unwrap().to_owned();
    assert_eq!(app.follow("wanted").await.header("location"), Some(target.as_str()));
}

#[tokio::test]
async fn an_alias_that_spells_a_code_to_come_is_stepped_over() {
    for generator in GENERATORS {
        let app = TestApp::with(&[("generator", generator)]).await;
        let key = app.key("ann").await;
        // The first link takes a lease; these ids lie in the next one.
        let ahead: Vec<_> = [5, 6, 4_000].map(|number| code_of(&app, LEASE + number)).into();
        for alias in &ahead {
            assert_eq!(app.follow(alias).await.status, 404, "{generator}");
            assert_eq!(make_alias(&app, &key, alias).await.status, 201, "{generator}: {alias}");
            assert_eq!(app.follow(alias).await.header("location"), Some(NAMED));
        }
        let generated = generate(&app, &key, LEASE + 5_000).await;
        let distinct: BTreeSet<_> = generated.iter().collect();
        assert_eq!(distinct.len(), generated.len(), "{generator}");
        for alias in &ahead {
            assert!(!distinct.contains(alias), "{generator}: {alias}");
            assert_eq!(app.follow(alias).await.header("location"), Some(NAMED), "{generator}");
        }
        for neighbour in [4, 7, 3_999, 4_001].map(|number| code_of(&app, LEASE + number)) {
            assert!(distinct.contains(&neighbour), "{generator}: {neighbour}");
            assert_eq!(app.follow(&neighbour).await.header("location"), Some(GENERATED));
        }
        // Still so after a restart, and after the alias was deleted.
        let gone = &ahead[0];
        assert_eq!(app.delete(&format!("{URLS}/{gone}")).bearer(&key).send().await.status, 204);
        let app = app.restart(&[("generator", generator)]).await;
        assert_eq!(app.follow(gone).await.code(), "URL_DELETED", "{generator}");
        assert_eq!(app.follow(&ahead[1]).await.header("location"), Some(NAMED), "{generator}");
    }
}

#[tokio::test]
async fn an_alias_that_spells_a_code_in_use_is_taken() {
    for generator in GENERATORS {
        let app = TestApp::with(&[("generator", generator)]).await;
        let key = app.key("ann").await;
        let used = generate(&app, &key, 5_000).await;
        let removed = used[4_500].clone();
        assert_eq!(app.delete(&format!("{URLS}/{removed}")).bearer(&key).send().await.status, 204);
        // Used, removed, and leased for a link that is still to be made.
        for alias in [used[4_400].clone(), removed, code_of(&app, LEASE - 1)] {
            let refused = make_alias(&app, &key, &alias).await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (409, "ALIAS_TAKEN"),
                "{generator}: {alias}"
            );
        }
        assert_eq!(app.follow(&used[4_400]).await.header("location"), Some(GENERATED));
        // The refused requests took ids; the rest of the lease comes to be, with the code that was refused.
        let later = generate(&app, &key, LEASE - 5_000).await;
        let last = code_of(&app, LEASE - 1);
        assert!(later.contains(&last), "{generator}");
        assert_eq!(app.follow(&last).await.header("location"), Some(GENERATED));
    }
}

#[tokio::test]
async fn an_alias_may_spell_a_code_of_another_domain() {
    let app = TestApp::start().await;
    let admin = app.admin_key().await;
    let domain = json!({"name": "go.example.com"});
    assert_eq!(app.post("/api/v1/domains").bearer(&admin).json(domain).send().await.status, 201);
    let code = app.link(&admin, json!({"long_url": GENERATED})).await;
    let fields = json!({"long_url": NAMED, "custom_alias": code, "domain": "go.example.com"});
    let made = app.post(URLS).bearer(&admin).json(fields).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let there = app.get(&format!("/{code}")).header("host", "go.example.com").send().await;
    assert_eq!(there.header("location"), Some(NAMED));
    assert_eq!(app.follow(&code).await.header("location"), Some(GENERATED));
}

#[tokio::test]
async fn a_code_and_an_alias_that_race_for_it_never_both_win() {
    // The alias spells an id at the beginning of the next lease, which concurrent creates are about to take.
    for round in 0..3 {
        let app = TestApp::with(&[("generator", "counter"), ("workers", "4")]).await;
        let key = app.key("ann").await;
        generate(&app, &key, LEASE - 2_600 - round).await;
        let wanted = code_of(&app, LEASE);
        let create = |_| app.post(URLS).bearer(&key).json(json!({"long_url": GENERATED}));
        let mut requests: Vec<_> = (0..200).map(create).collect();
        let fields = json!({"long_url": NAMED, "custom_alias": wanted});
        requests.insert(100, app.post(URLS).bearer(&key).json(fields));
        let answers = at_once(requests).await;
        assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status)));
        let won = answers[100].status == 201;
        let generated = generate(&app, &key, 2_700).await;
        let target = if won { NAMED } else { GENERATED };
        assert_eq!(app.follow(&wanted).await.header("location"), Some(target), "round {round}");
        assert_eq!(generated.contains(&wanted), !won, "round {round}");
    }
}
