//! DELETE /api/v1/urls/{code}: once and for all.

use crate::support::{TestApp, json};

const URLS: &str = "/api/v1/urls";
const TARGET: &str = "https://example.com/a";

fn path(code: &str) -> String {
    format!("{URLS}/{code}")
}

#[tokio::test]
async fn a_deleted_link_is_gone_everywhere_and_deleting_again_is_fine() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for fields in [json!({"long_url": TARGET}), json!({"long_url": TARGET, "custom_alias": "named"})] {
        let code = app.link(&key, fields).await;
        assert_eq!(app.follow(&code).await.status, 302);
        for _ in 0..2 {
            let deleted = app.delete(&path(&code)).bearer(&key).send().await;
            assert_eq!((deleted.status, deleted.text()), (204, ""));
        }
        for answer in [
            app.follow(&code).await,
            app.get(&path(&code)).bearer(&key).send().await,
            app.patch(&path(&code)).bearer(&key).json(json!({"title": "t"})).send().await,
        ] {
            assert_eq!((answer.status, answer.code().as_str()), (410, "URL_DELETED"));
            assert!(!answer.text().contains(TARGET), "nothing tells where it led: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_deleted_alias_is_never_given_again() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.key("ann").await, app.key("bob").await);
    let fields = json!({"long_url": TARGET, "custom_alias": "once"});
    app.link(&ann, fields.clone()).await;
    assert_eq!(app.delete(&path("once")).bearer(&ann).send().await.status, 204);
    let app = {
        for key in [&ann, &bob] {
            let again = app.post(URLS).bearer(key).json(fields.clone()).send().await;
            assert_eq!((again.status, again.code().as_str()), (409, "ALIAS_TAKEN"));
        }
        app.restart(&[]).await
    };
    let again = app.post(URLS).bearer(&ann).json(fields).send().await;
    assert_eq!((again.status, again.code().as_str()), (409, "ALIAS_TAKEN"), "after a restart");
    assert_eq!(app.follow("once").await.code(), "URL_DELETED");
    assert_eq!(app.delete(&path("once")).bearer(&ann).send().await.status, 204);
}

#[tokio::test]
async fn a_link_is_deleted_by_its_owner_and_by_admins() {
    let app = TestApp::start().await;
    let (ann, bob, admin) = (app.key("ann").await, app.key("bob").await, app.admin_key().await);
    let code = app.link(&ann, json!({"long_url": TARGET})).await;
    let refused = app.delete(&path(&code)).bearer(&bob).send().await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    assert_eq!(app.delete(&path(&code)).send().await.status, 401);
    assert_eq!(app.follow(&code).await.status, 302);
    assert_eq!(app.delete(&path(&code)).bearer(&admin).send().await.status, 204);
    assert_eq!(app.follow(&code).await.status, 410);
    // What is left of it is still not everybody's.
    assert_eq!(app.delete(&path(&code)).bearer(&bob).send().await.status, 403);
    assert_eq!(app.delete(&path(&code)).bearer(&ann).send().await.status, 204);
}

#[tokio::test]
async fn what_never_was_can_not_be_deleted() {
    let app = TestApp::start().await;
    let key = app.key("ann").await;
    for code in ["nothing", "0000000", "a.b", &"x".repeat(65)] {
        let answer = app.delete(&path(code)).bearer(&key).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "URL_NOT_FOUND"), "{code}");
    }
    let elsewhere =
        app.delete(&format!("{}?domain=other.example", path("nothing"))).bearer(&key).send().await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (400, "VALIDATION_ERROR"));
}

#[tokio::test]
async fn a_swept_link_keeps_the_reason_that_it_went_for() {
    let app = TestApp::with(&[("sweep_grace_s", "0")]).await;
    let key = app.key("ann").await;
    let code = app.link(&key, json!({"long_url": TARGET, "custom_alias": "brief", "expires_in": 1})).await;
    app.clock.advance(1001);
    assert_eq!(terse::sweeper::sweep(&app.running.app).await.unwrap(), 1);
    assert_eq!(app.delete(&path(&code)).bearer(&key).send().await.status, 204);
    assert_eq!(app.follow(&code).await.code(), "URL_EXPIRED");
    let again =
        app.post(URLS).bearer(&key).json(json!({"long_url": TARGET, "custom_alias": "brief"})).send().await;
    assert_eq!(again.code(), "ALIAS_TAKEN");
}
