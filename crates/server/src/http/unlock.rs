//! POST /{code}: the password of a link.

use super::auth::Context;
use super::body::{MediaType, Payload};
use super::error::{ApiError, ErrorCode, wants_page};
use super::home::html;
use super::pages::{self, PasswordPage};
use super::server::{HyperHeaders, country_header};
use crate::accounts::passwords::{COOKIE, UNLOCKED_SECONDS};
use crate::app::App;
use crate::redirect::cache::Known;
use crate::redirect::{Answer, Request, Reveal};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use terse_model::code::ShortCode;
use terse_model::link::{LinkKey, LinkRecord};

/// A password as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordRequest {
    password: String,
}

/// POST /{code}
pub async fn unlock(State(app): State<Arc<App>>, context: Context, payload: Payload) -> Response {
    let headers = context.headers.clone();
    match try_unlock(&app, &context, &payload).await {
        Ok(response) => response,
        Err(error) => error.respond(&headers),
    }
}

async fn try_unlock(app: &Arc<App>, context: &Context, payload: &Payload) -> Result<Response, ApiError> {
    let host = context.headers.get(HOST).and_then(|host| host.to_str().ok());
    let no_link = || ApiError::of_refusal(crate::redirect::Refusal::NotFound);
    let address = context.client.limited_address(&context.headers, &app.config.trusted_proxies);
    if let Some(refusal) = address.and_then(|address| app.redirect.limit(address, app.clock.now())) {
        return Err(ApiError::of_refusal(refusal));
    }
    let code = Request::code_in(&context.path).ok_or_else(no_link)?;
    let country = country_header(app, &context.client);
    let request = Request {
        is_head: false,
        host,
        code,
        query: None,
        address: context.client.address,
        limited_address: None,
        headers: &HyperHeaders { headers: &context.headers, country },
    };
    let key = app.redirect.key_of(&request).ok_or_else(no_link)?;
    let unavailable = |_| ApiError::of_refusal(crate::redirect::Refusal::Unavailable);
    let known = app.redirect.find(&key).await.map_err(unavailable)?;
    let Known::Ruled(record) = known else { return Err(not_asked(&known)) };
    let LinkRecord::Present(link) = &*record else { return Err(not_asked(&Known::Ruled(record))) };
    let Some(hash) = link.settings.password_hash.clone() else {
        return Err(not_asked(&Known::Ruled(record)));
    };
    let (link_id, revision) = (link.id, link.revision);
    let password = match payload.media_type {
        MediaType::Form => {
            let fields = payload.form()?;
            fields
                .into_iter()
                .find(|(name, _)| name == "password")
                .map(|(_, value)| value)
                .unwrap_or_default()
        }
        _ => payload.json::<PasswordRequest>()?.password,
    };
    // Before hashing, which is dear.
    if let Some(verdict) = app.limits.password(&key, context.client.address, app.clock.now())
        && !verdict.allowed
    {
        return Err(ApiError::rate_limited(verdict));
    }
    let too_long = password.chars().count() > crate::accounts::passwords::PASSWORD_LEN_MAX;
    if too_long || !app.passwords.verify(password, hash).await? {
        return Ok(wrong_password(&key, context));
    }
    // Hashing took a while: what was decided before it may not hold any more.
    let current = app.redirect.find(&key).await.map_err(unavailable)?;
    let Known::Ruled(record) = current else { return Err(not_asked(&current)) };
    match &*record {
        LinkRecord::Removed(_) => return Err(not_asked(&Known::Ruled(record))),
        LinkRecord::Present(link) if link.id == link_id && link.revision == revision => {}
        LinkRecord::Present(_) => {
            return Err(ApiError::new(
                ErrorCode::PasswordRequired,
                "this link was changed just now; try again",
            ));
        }
    }
    let proof = app.passwords.proof(&record, app.clock.now());
    let secure = if app.domains.base_url().scheme == "https" { "; Secure" } else { "" };
    let path = format!("/{}", key.code);
    let cookie =
        format!("{COOKIE}={proof}; Path={path}; Max-Age={UNLOCKED_SECONDS}; HttpOnly; SameSite=Lax{secure}");
    match app.redirect.follow_unlocked(record, context.query.clone(), request.visit().into_owned()).await {
        Answer::Reveal(reveal) => Ok(revealed(&reveal, &cookie)),
        Answer::Refuse(refusal) => Err(ApiError::of_refusal(refusal)),
        Answer::Neutral | Answer::AskPassword { .. } => Ok(wrong_password(&key, context)),
    }
}

/// Somebody posts to a link that asks for nothing.
fn not_asked(known: &Known) -> ApiError {
    match known {
        Known::Missing => ApiError::of_refusal(crate::redirect::Refusal::NotFound),
        Known::Ruled(record) => match &**record {
            LinkRecord::Removed(removed) => ApiError::of_removal(removed.removal),
            LinkRecord::Present(_) => no_post(),
        },
        Known::Plain(_) => no_post(),
    }
}

fn no_post() -> ApiError {
    let error =
        ApiError::new(ErrorCode::MethodNotAllowed, "this link asks for no password; follow it with GET");
    ApiError { allow: Some("GET, HEAD"), ..error }
}

fn revealed(reveal: &Reveal, cookie: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_bytes(reveal.location.as_bytes()) {
        headers.insert(LOCATION, location);
    }
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn wrong_password(key: &LinkKey, context: &Context) -> Response {
    if wants_page(&context.headers) {
        return ask(&key.code, context.query.as_deref(), Some("That is not the password."));
    }
    ApiError::new(ErrorCode::PasswordRequired, "")
        .at("password", "is not this link's password")
        .into_response()
}

/// The page that asks for the password of the link under this code.
pub fn ask(code: &ShortCode, query: Option<&str>, error: Option<&str>) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let page = pages::password(&PasswordPage { action: &format!("/{code}{query}"), error });
    let mut response = html(StatusCode::UNAUTHORIZED, page);
    // Browsers apply `form-action` to the redirect that follows a form too, and ours leads anywhere.
    const POLICY: &str =
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
