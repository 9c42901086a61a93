//! A disk that takes no more: new links are refused, old ones lead on, and nothing that was answered is lost.

use crate::support::{Connection, Logged, Place, json};

#[tokio::test]
async fn a_full_disk_refuses_new_links_and_serves_the_old_ones() {
    let place = Place::new();
    let key = place.key("ann");
    let server = Logged::start(&place, &[("TERSE_CACHE_TTL_S", "1")]);
    let mut connection = Connection::open(server.address).await.unwrap();
    // Long enough that a few hundred links are more than the files may grow.
    let target = |number: usize| format!("https://example.com/{number}?{}", "x".repeat(3_000));
    let mut answered = Vec::new();
    server.limit_files(Some(512 << 10));
    let refused = loop {
        let link = json!({"long_url": target(answered.len())});
        let made = connection.post("/api/v1/urls", &key, link).await.unwrap();
        match made.status {
            201 => answered.push(made.json()["short_code"].as_str().unwrap().to_owned()),
            _ => break made,
        }
        assert!(answered.len() < 2_000, "the limit does not hold");
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"), "{refused:?}");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(answered.len() > 10);
    let rows = json!([{"long_url": target(0)}, {"long_url": target(1)}]);
    let bulk = connection.post("/api/v1/urls/bulk", &key, rows).await.unwrap();
    assert_eq!((bulk.status, bulk.header("retry-after").is_some()), (503, true), "{bulk:?}");
    for (number, code) in answered.iter().enumerate() {
        let followed = connection.get(&format!("/{code}")).await.unwrap();
        assert_eq!((followed.status, followed.header("location")), (302, Some(target(number).as_str())));
    }
    // Space again: it goes on without a restart.
    server.limit_files(None);
    let made = connection.post("/api/v1/urls", &key, json!({"long_url": target(answered.len())})).await;
    answered.push(made.unwrap().json()["short_code"].as_str().unwrap().to_owned());
    drop(server);
    let server = place.start();
    let mut connection = Connection::open(server.address).await.unwrap();
    for (number, code) in answered.iter().enumerate() {
        let followed = connection.get(&format!("/{code}")).await.unwrap();
        assert_eq!((followed.status, followed.header("location")), (302, Some(target(number).as_str())));
    }
    let made = place.ok_json(&["list", "--limit", "10000", "--json", "--user", "ann"]);
    assert_eq!(made.as_array().unwrap().len(), answered.len(), "nothing that was refused is there");
}

#[tokio::test]
async fn a_full_disk_takes_no_click_of_a_limited_link_and_says_so() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "limited", "--click-limit", "2"]);
    let server = Logged::start(&place, &[]);
    let mut connection = Connection::open(server.address).await.unwrap();
    server.limit_files(Some(0));
    for _ in 0..3 {
        let followed = connection.get("/limited").await.unwrap();
        assert_eq!((followed.status, followed.header("location")), (503, None), "{followed:?}");
        assert!(followed.header("retry-after").is_some());
    }
    server.limit_files(None);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(connection.get("/limited").await.unwrap().status);
    }
    assert_eq!(statuses, [302, 302, 410]);
}
