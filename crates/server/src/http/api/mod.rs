//! The API under /api/v1.

pub mod bulk;
pub mod clicks;
pub mod domains;
pub mod keys;
pub mod links;
pub mod live;
pub mod reconcile;
pub mod stats;
pub mod users;
pub mod whose;
pub mod wire;

use super::auth::Context;
use super::body::json_text_response;
use super::error::ApiError;
use super::idempotency::{KeptResponse, Turn};
use crate::app::App;
use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use std::future::Future;
use std::sync::Arc;

/// The last part of a path. One that is no UTF-8 names nothing.
#[derive(Debug)]
pub struct InPath(pub String);

impl FromRequestParts<Arc<App>> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(text)| InPath(text))
            .map_err(|_| ApiError::not_found("there is nothing at this address"))
    }
}

/// Runs `work` to its end even if the caller hangs up, so that nothing is left half done or unanswered.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    to_the_end_on(&tokio::runtime::Handle::current(), work).await
}

/// The same on another runtime than the connection's.
pub async fn to_the_end_on<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let id = super::error::request_id();
    let span = tracing::Span::current();
    let work = super::error::REQUEST_ID.scope(id, tracing::Instrument::instrument(work, span));
    runtime.spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "A request did not finish: {error}");
        Err(ApiError::new(super::error::ErrorCode::InternalError, "the request did not finish"))
    })
}

/// The first answer again, if this request has had one.
pub fn replay(turn: Option<&Turn>) -> Option<Response> {
    let kept = turn?.replay()?;
    let mut response = kept.into_response();
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    Some(response)
}

impl KeptResponse {
    /// As an answer.
    pub fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = json_text_response(status, self.body);
        if let Some(location) = self.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            response.headers_mut().insert(http::header::LOCATION, location);
        }
        response
    }
}

/// The user that a request acts as.
pub fn acting_user(context: &Context) -> Result<&terse_model::tenant::User, ApiError> {
    context.actor.user().ok_or_else(ApiError::unauthorized)
}
