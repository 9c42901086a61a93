//! Every route but `/{code}`, which the connection loop answers before it comes here.

use super::api::{bulk, clicks, domains, keys, links, live, reconcile, stats, users};
use super::compat::shorten;
use super::error::{ApiError, ErrorCode};
use super::{home, local, status, unlock};
use crate::app::App;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, Method};
use serde_json::Value;
use std::sync::Arc;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// First segments of terse's own paths; anything else of one segment may be a short code.
const OWN_SEGMENTS: [&str; 8] =
    ["-", "api", "urls", "health", "ready", "metrics", "robots.txt", "favicon.ico"];

/// Whether a path's only segment belongs to terse itself.
pub fn is_own_segment(segment: &str) -> bool {
    OWN_SEGMENTS.contains(&segment)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "terse",
        description = "Paste a long URL, get a short link. Errors are problem details (RFC 9457) with a `code` for programs and a `request_id` for the operator.\n\nSend an API key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`; `terse keys create --name NAME` makes one.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    external_docs(url = "/api/v1/openapi.json", description = "This document as OpenAPI 3.1"),
    tags(
        (name = "Links", description = "Short links"),
        (name = "Statistics", description = "How often links are followed, by whom and from where"),
        (name = "Keys", description = "API keys"),
        (name = "Users", description = "Who owns links, for admins"),
        (name = "Domains", description = "Hosts that serve links"),
        (name = "Other shapes", description = "The same by other names, for clients that people already have"),
        (name = "Operation", description = "For load balancers and monitoring"),
    ),
    // A query parameter refers to it, which alone does not list it.
    components(schemas(links::WireState)),
    modifiers(&Schemes),
)]
struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("header_key", SecurityScheme::ApiKey(header));
    }
}

/// The documented routes, and their document.
fn documented() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(links::create, links::list))
        .routes(routes!(links::get, links::change, links::delete))
        .routes(routes!(bulk::bulk))
        .routes(routes!(stats::of_link))
        .routes(routes!(live::live))
        .routes(routes!(clicks::list, clicks::erase))
        .routes(routes!(clicks::export))
        .routes(routes!(stats::of_tenant))
        .routes(routes!(reconcile::reconcile))
        .routes(routes!(clicks::list_of_tenant, clicks::erase_visitor))
        .routes(routes!(clicks::export_of_tenant))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(users::list, users::save))
        .routes(routes!(domains::list, domains::add))
        .routes(routes!(shorten::shorten))
        .routes(routes!(stats::short))
        .routes(routes!(status::health))
        .routes(routes!(status::ready))
        .split_for_parts()
}

/// The API's description, as JSON.
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(documented().1).expect("a description is JSON");
    let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in
        operations.flat_map(|path| path.as_object_mut().into_iter().flat_map(|path| path.values_mut()))
    {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let schema = &mut parameter["schema"];
            // utoipa writes what may be left out as what may be null, which no header and no query can be.
            if let Some(kind) =
                schema["type"].as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null"))
            {
                schema["type"] = kind.clone();
            }
        }
    }
    document
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let (documented, _) = documented();
    documented
        .route("/", get(home::home))
        .route("/urls", post(shorten::shorten))
        .route("/metrics", get(status::metrics))
        .route("/robots.txt", get(home::robots))
        .route("/favicon.ico", get(home::favicon_ico))
        .route("/api/v1/openapi.json", get(home::openapi))
        .route("/-/docs", get(home::docs))
        .route("/-/shorten", post(home::shorten))
        .route("/-/assets/terse.css", get(home::style))
        .route("/-/assets/home.js", get(home::script))
        .route("/-/assets/favicon.svg", get(home::favicon))
        .route("/-/local/backup", get(local::backup))
        .route("/-/local/backup/clicks", get(local::backup_clicks))
        // GET and HEAD are answered before the router; what comes here posts a password, or does something odd.
        .route("/{code}", post(unlock::unlock).fallback(no_such_method))
        .route("/{code}/", post(unlock::unlock).fallback(no_such_method))
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .with_state(app)
}

async fn no_such_method(method: Method, headers: HeaderMap, request: Request) -> Response {
    // axum adds the Allow header of the route itself; a short code's GET is not in the router.
    let is_code =
        crate::redirect::Request::code_in(request.uri().path()).is_some_and(|code| !is_own_segment(code));
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if !is_code && matched.is_some_and(|route| route.starts_with("/{code}")) {
        // A path of our own that leads nowhere, such as /api, was taken for a short code.
        return no_such_path(headers).await;
    }
    let error = ApiError::new(ErrorCode::MethodNotAllowed, format!("{method} does nothing here"));
    ApiError { allow: is_code.then_some("GET, HEAD, POST"), ..error }.respond(&headers)
}

async fn no_such_path(headers: HeaderMap) -> Response {
    ApiError::not_found("there is nothing at this address").respond(&headers)
}
