//! The shortest way through everything.

use crate::support::{TestApp, json};

#[tokio::test]
async fn a_link_is_made_followed_changed_and_deleted() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    let made =
        app.post("/api/v1/urls").bearer(&key).json(json!({"long_url": "https://example.com/a"})).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let code = made.json()["short_code"].as_str().unwrap().to_owned();
    let followed = app.get(&format!("/{code}")).send().await;
    assert_eq!((followed.status, followed.header("location")), (302, Some("https://example.com/a")));
    let change = json!({"long_url": "https://example.com/b"});
    let changed = app.patch(&format!("/api/v1/urls/{code}")).bearer(&key).json(change).send().await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let followed = app.get(&format!("/{code}")).send().await;
    assert_eq!(followed.header("location"), Some("https://example.com/b"));
    let deleted = app.delete(&format!("/api/v1/urls/{code}")).bearer(&key).send().await;
    assert_eq!(deleted.status, 204);
    let followed = app.get(&format!("/{code}")).send().await;
    assert_eq!(followed.code(), "URL_DELETED");
}
