//! `/`: the page with one field, and what it links to.

use super::api::links::with_owner;
use super::api::wire::CreateLinkRequest;
use super::auth::Context;
use super::body::Payload;
use super::error::{ApiError, ErrorCode, add_page_headers};
use super::pages::{self, CreatedLink, Home};
use crate::app::App;
use crate::links::create::Created;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;

/// GET /
pub async fn home(State(app): State<Arc<App>>, context: Context) -> Response {
    let host = app.domains.base_url().host.to_string();
    let page =
        Home { host: &host, can_create: may_create(&context), long_url: "", created: None, error: None };
    html(StatusCode::OK, pages::home(&page))
}

fn may_create(context: &Context) -> bool {
    context.require_create().is_ok()
}

/// POST /-/shorten: the form of the page.
pub async fn shorten(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    require_same_origin(&app, &context.headers)?;
    let fields = payload.form()?;
    let long_url =
        fields.into_iter().find(|(name, _)| name == "long_url").map(|(_, value)| value).unwrap_or_default();
    let host = app.domains.base_url().host.to_string();
    let made = make(&app, &context, &long_url).await;
    let page = match &made {
        Ok((short_url, target, token)) => Home {
            host: &host,
            can_create: true,
            long_url: "",
            created: Some(CreatedLink {
                short_url,
                long_url: target,
                expires_at: None,
                manage_token: Some(token),
            }),
            error: None,
        },
        Err(error) => Home {
            host: &host,
            can_create: may_create(&context),
            long_url: &long_url,
            created: None,
            error: Some(error.detail.trim_start_matches("long_url: ")),
        },
    };
    let status = made.as_ref().map_or_else(|error| error.code.status(), |_| StatusCode::CREATED);
    Ok(html(status, pages::home(&page)))
}

/// Makes an anonymous link: short address, target, manage token.
async fn make(
    app: &Arc<App>,
    context: &Context,
    long_url: &str,
) -> Result<(String, String, String), ApiError> {
    context.require_create()?;
    // People leave out the scheme; a form may guess, an API may not.
    let typed = long_url.trim_start();
    let guessed = if has_scheme(typed) { long_url.to_owned() } else { format!("https://{typed}") };
    let request = CreateLinkRequest { long_url: Some(guessed), ..CreateLinkRequest::default() };
    let checked = request.check(app)?;
    if let (_, Some(verdict)) = app.take_creates(context, 1)
        && !verdict.allowed
    {
        return Err(ApiError::rate_limited(verdict));
    }
    let (app, context) = (app.clone(), context.clone());
    super::api::to_the_end(async move {
        let token = crate::accounts::keys::new_secret("mt_");
        let create = with_owner(&app, checked, &context, Some(&token)).await?;
        match app.links.create(create, |_| None).await? {
            Created::New(link) | Created::Existing(link) => {
                let short_url = format!("{}/{}", app.domains.base_of(link.key.domain), link.key.code);
                Ok((short_url, link.settings.target.to_string(), token))
            }
            Created::AliasTaken => Err(super::api::links::alias_taken()),
        }
    })
    .await
}

/// Whether an address begins with a scheme rather than with a host, and perhaps a port.
fn has_scheme(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once(':') else { return false };
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_http || (is_scheme && rest.starts_with("//"))
}

/// A form must come from a page of ours: other sites could post to it through their visitors' browsers.
pub fn require_same_origin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str());
    let own_host = host.is_some_and(|host| app.is_own_host(host));
    let same_site = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin.split_once("://").map(|(_, authority)| authority) == host,
        (None, None) => false,
    };
    let refused = || {
        ApiError::new(
            ErrorCode::Forbidden,
            "this form only works from its own page; reload the page and try again",
        )
    };
    (own_host && same_site).then_some(()).ok_or_else(refused)
}

/// An answer in HTML that nobody keeps.
pub fn html(status: StatusCode, page: String) -> Response {
    let mut response = (status, page).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add_page_headers(headers);
    response
}

/// GET /-/assets/terse.css
pub async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("../../assets/terse.css"))
}

/// GET /-/assets/home.js
pub async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("../../assets/home.js"))
}

/// GET /-/assets/favicon.svg
pub async fn favicon() -> Response {
    asset("image/svg+xml", include_str!("../../assets/favicon.svg"))
}

/// GET /favicon.ico
pub async fn favicon_ico() -> Response {
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/-/assets/favicon.svg"));
    response
}

/// GET /robots.txt: short links are nobody's content.
pub async fn robots() -> Response {
    asset("text/plain; charset=utf-8", "User-agent: *\nDisallow: /api/\nDisallow: /-/\n")
}

/// GET /-/docs
pub async fn docs(State(app): State<Arc<App>>) -> Response {
    html(StatusCode::OK, app.docs_page.clone())
}

/// GET /api/v1/openapi.json
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    asset("application/json", &app.openapi)
}

fn asset(content_type: &'static str, text: &str) -> Response {
    let mut response = text.to_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // An hour: a new version shows soon, and a page costs one request.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
