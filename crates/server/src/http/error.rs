//! Errors as callers see them: one JSON shape (RFC 9457) for programs, a small page for people.

use super::client::Fields;
use super::pages;
use crate::limit::Verdict;
use crate::links::LinkError;
use crate::redirect::Refusal;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use terse_model::link::Removal;
use terse_model::store::{ChangeRefused, StoreError};
use utoipa::{IntoResponses, ToSchema};

tokio::task_local! {
    /// The id of the request that this task answers.
    pub static REQUEST_ID: String;
}

/// The id of the request that this task answers; empty outside of one.
pub fn request_id() -> String {
    REQUEST_ID.try_with(String::clone).unwrap_or_default()
}

/// What went wrong, as a word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The target is no address that a link may lead to.
    InvalidUrl,
    /// A field or parameter is wrong.
    ValidationError,
    /// The alias is a reserved word.
    AliasReserved,
    /// There is no key, or it is wrong.
    Unauthorized,
    /// The link asks for a password.
    PasswordRequired,
    /// The key may not do this.
    Forbidden,
    /// There is no such link, or other thing.
    UrlNotFound,
    /// The link's start lies ahead.
    LinkNotStarted,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The alias belongs to another link.
    AliasTaken,
    /// The link's expiry is past.
    UrlExpired,
    /// The link was deleted.
    UrlDeleted,
    /// The link is paused.
    LinkDisabled,
    /// The link's clicks are used up.
    ClickLimitReached,
    /// The link was changed since the revision that the request is based on.
    RevisionConflict,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is of a type that is not taken here.
    UnsupportedMediaType,
    /// The idempotency key was used with another body.
    IdempotencyMismatch,
    /// Too many requests.
    RateLimitExceeded,
    /// The answer can't be given now.
    Unavailable,
    /// We did something wrong.
    InternalError,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        use ErrorCode as E;
        match self {
            E::InvalidUrl | E::ValidationError | E::AliasReserved => StatusCode::BAD_REQUEST,
            E::Unauthorized | E::PasswordRequired => StatusCode::UNAUTHORIZED,
            E::Forbidden => StatusCode::FORBIDDEN,
            E::UrlNotFound | E::LinkNotStarted => StatusCode::NOT_FOUND,
            E::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            E::AliasTaken => StatusCode::CONFLICT,
            E::UrlExpired | E::UrlDeleted | E::LinkDisabled | E::ClickLimitReached => StatusCode::GONE,
            E::RevisionConflict => StatusCode::PRECONDITION_FAILED,
            E::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            E::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            E::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            E::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            E::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            E::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a person reads first.
    pub fn title(self) -> &'static str {
        use ErrorCode as E;
        match self {
            E::InvalidUrl => "Not an address that a link can lead to",
            E::ValidationError => "Something in the request is wrong",
            E::AliasReserved => "This alias is reserved",
            E::Unauthorized => "A key is needed",
            E::PasswordRequired => "A password is needed",
            E::Forbidden => "Not yours",
            E::UrlNotFound => "No such link",
            E::LinkNotStarted => "Not yet",
            E::MethodNotAllowed => "Not this way",
            E::AliasTaken => "This alias is taken",
            E::UrlExpired => "This link has expired",
            E::UrlDeleted => "This link was deleted",
            E::LinkDisabled => "This link is paused",
            E::ClickLimitReached => "This link is used up",
            E::RevisionConflict => "Changed meanwhile",
            E::PayloadTooLarge => "Too large",
            E::UnsupportedMediaType => "Not a type that is taken here",
            E::IdempotencyMismatch => "This idempotency key was used before",
            E::RateLimitExceeded => "Too many requests",
            E::Unavailable => "Not available right now",
            E::InternalError => "Something went wrong",
        }
    }
}

/// An error as JSON (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Problem")]
pub struct Problem {
    /// Always `about:blank`; `code` tells problems apart.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// A short text for people.
    pub title: &'static str,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// A word for programs.
    pub code: ErrorCode,
    /// What exactly is wrong, and what is accepted.
    pub detail: String,
    /// The field or parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The id of the request, for the operator's logs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// What every call that needs a key may answer.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the API's description only")]
pub enum KeyProblems {
    /// UNAUTHORIZED: no key, or a wrong one
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// FORBIDDEN: the key lacks the scope, or the thing is another user's
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// UNAVAILABLE: try again after Retry-After
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// What every call with a body may answer.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the API's description only")]
pub enum BodyProblems {
    /// PAYLOAD_TOO_LARGE
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// UNSUPPORTED_MEDIA_TYPE
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedType(Problem),
}

/// An error on its way to a caller.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What went wrong.
    pub code: ErrorCode,
    /// What exactly.
    pub detail: String,
    /// Where.
    pub field: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
    /// The limiter's verdict, for its headers.
    pub verdict: Option<Verdict>,
    /// Methods that the path takes.
    pub allow: Option<&'static str>,
}

/// Seconds after which to try again when the store failed.
const RETRY_SECONDS: u64 = 1;

impl ApiError {
    /// An error without more to say than its detail.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let retry_after = (code == ErrorCode::Unavailable).then_some(RETRY_SECONDS);
        ApiError { code, detail: detail.into(), field: None, retry_after, verdict: None, allow: None }
    }

    /// A field or parameter is wrong.
    pub fn invalid(field: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        ApiError::new(ErrorCode::ValidationError, "").at(field, detail)
    }

    /// The same error with the field at fault, which its text names first.
    pub fn at(mut self, field: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        let field = field.into();
        self.detail = format!("{field}: {detail}");
        self.field = Some(field);
        self
    }

    /// Nothing there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::UrlNotFound, detail)
    }

    /// No key.
    pub fn unauthorized() -> Self {
        ApiError::new(
            ErrorCode::Unauthorized,
            "send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
        )
    }

    /// A key that may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::Forbidden, detail)
    }

    /// The limiter said no.
    pub fn rate_limited(verdict: Verdict) -> Self {
        let detail = format!(
            "at most {} in {} seconds; try again in {} s",
            verdict.rate.count, verdict.rate.per_seconds, verdict.wait_seconds
        );
        let error = ApiError::new(ErrorCode::RateLimitExceeded, detail);
        ApiError { retry_after: Some(verdict.wait_seconds), verdict: Some(verdict), ..error }
    }

    /// What a refused redirect is called.
    pub fn of_refusal(refusal: Refusal) -> Self {
        let new = ApiError::new;
        match refusal {
            Refusal::NotFound => {
                new(ErrorCode::UrlNotFound, "No link has this address. Check it for typing errors.")
            }
            Refusal::NotStarted { wait_seconds } => ApiError {
                retry_after: Some(wait_seconds),
                ..new(ErrorCode::LinkNotStarted, "This link does not work yet. Come back later.")
            },
            Refusal::Gone(removal) => ApiError::of_removal(removal),
            Refusal::Disabled => new(ErrorCode::LinkDisabled, "Its owner has paused this link."),
            Refusal::ClickLimitReached => new(
                ErrorCode::ClickLimitReached,
                "This link could be followed a limited number of times, and was.",
            ),
            Refusal::RateLimited(verdict) => ApiError::rate_limited(verdict),
            Refusal::Unavailable => {
                new(ErrorCode::Unavailable, "This link can't be looked up right now. Try again in a moment.")
            }
        }
    }

    /// What a removed link is called.
    pub fn of_removal(removal: Removal) -> Self {
        match removal {
            Removal::Deleted => ApiError::new(ErrorCode::UrlDeleted, "Its owner has deleted this link."),
            Removal::Expired => {
                ApiError::new(ErrorCode::UrlExpired, "This link worked for a limited time, which is over.")
            }
        }
    }

    /// The error as JSON.
    pub fn problem(&self) -> Problem {
        Problem {
            kind: "about:blank",
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            field: self.field.clone(),
            request_id: request_id(),
        }
    }

    /// The error as a page when `headers` prefer one, as JSON otherwise.
    pub fn respond(self, headers: &HeaderMap) -> Response {
        if wants_page(headers) { self.into_page() } else { self.into_response() }
    }

    /// The error as a page.
    pub fn into_page(self) -> Response {
        let page = pages::error(&pages::ErrorPage {
            status: self.code.status().as_u16(),
            title: self.code.title(),
            message: &self.detail,
            request_id: &request_id(),
        });
        self.with_headers(page.into(), "text/html; charset=utf-8")
    }

    fn with_headers(&self, body: axum::body::Body, content_type: &'static str) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if content_type.starts_with("text/html") {
            add_page_headers(headers);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(verdict) = &self.verdict {
            add_rate_headers(headers, verdict);
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == ErrorCode::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"terse\""));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = serde_json::to_vec(&self.problem()).expect("a problem is JSON");
        self.with_headers(json.into(), "application/problem+json")
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // The one place where a failing store is logged for the API; callers learn that it failed, not how.
        tracing::error!(error = ?error, "The store failed: {error}");
        match error {
            StoreError::Unavailable(_) | StoreError::Timeout => ApiError::new(
                ErrorCode::Unavailable,
                "the store does not answer right now; try again in a moment",
            ),
            StoreError::Corrupt(_) | StoreError::Internal(_) => {
                ApiError::new(ErrorCode::Unavailable, "the store failed; the operator's log says how")
            }
        }
    }
}

impl From<LinkError> for ApiError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::NotFound => ApiError::not_found("there is no such link"),
            LinkError::Store(error) => error.into(),
            LinkError::Refused(refused) => refused.into(),
        }
    }
}

impl From<ChangeRefused> for ApiError {
    fn from(refused: ChangeRefused) -> Self {
        match refused {
            ChangeRefused::Forbidden => ApiError::forbidden("this link belongs to somebody else"),
            ChangeRefused::RevisionConflict { current } => ApiError::new(
                ErrorCode::RevisionConflict,
                format!("the link is at revision {} by now; read it and decide again", current.0),
            ),
            ChangeRefused::Gone(removal) => ApiError::of_removal(removal),
            ChangeRefused::Invalid { field, message } => ApiError::invalid(field, message),
        }
    }
}

/// Whether a request comes from a browser's address bar rather than from a program.
pub fn wants_page(headers: &impl Fields) -> bool {
    let accept = headers.values(ACCEPT.as_str()).next().filter(|accept| accept.is_ascii());
    let accept = accept.and_then(|accept| std::str::from_utf8(accept).ok()).unwrap_or_default();
    let position = |kind: &str| accept.find(kind);
    match (position("text/html"), position("application/json")) {
        (Some(html), Some(json)) => html < json,
        (html, _) => html.is_some(),
    }
}

/// A page of ours: nothing from elsewhere, no frames, no guessing of types.
pub fn add_page_headers(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let mut set =
        |name, value| headers.insert(http::HeaderName::from_static(name), HeaderValue::from_static(value));
    set("content-security-policy", POLICY);
    set("x-content-type-options", "nosniff");
    set("referrer-policy", "no-referrer");
}

/// The rate that a request was measured by (draft-ietf-httpapi-ratelimit-headers).
pub fn add_rate_headers(headers: &mut HeaderMap, verdict: &Verdict) {
    let policy = format!("\"default\";q={};w={}", verdict.rate.count, verdict.rate.per_seconds);
    let left = format!("\"default\";r={};t={}", verdict.remaining, verdict.wait_seconds);
    let mut set = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(http::HeaderName::from_static(name), value);
        }
    };
    set("ratelimit-policy", policy);
    set("ratelimit", left);
}
