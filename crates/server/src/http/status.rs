//! /health, /ready and /metrics.

use super::auth::{Context, is_from_here};
use super::body::json_response;
use super::client::Peer;
use super::error::ApiError;
use crate::app::App;
use crate::clicks::Lag;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use utoipa::ToSchema;

/// Whether the process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthAnswer {
    /// `ok`.
    pub status: &'static str,
    /// The version of this binary.
    pub version: &'static str,
}

/// Whether requests can be answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyAnswer {
    /// `ready`, `degraded` (requests are answered, and statistics lag behind), `stopping` or `not ready`.
    pub status: &'static str,
    /// What it depends on, for local callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dependencies: Option<Dependencies>,
}

/// What terse depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dependencies {
    /// `ok`, or what is wrong.
    pub store: String,
    /// `ok`, or how far statistics are behind.
    pub clicks: String,
}

/// Alive?
#[utoipa::path(get, path = "/health", tag = "Operation", security(()),
    responses((status = 200, description = "The process is alive", body = HealthAnswer)))]
pub async fn health() -> Response {
    json_response(StatusCode::OK, &HealthAnswer { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Ready?
#[utoipa::path(get, path = "/ready", tag = "Operation", security(()),
    responses(
        (status = 200, description = "Requests are answered", body = ReadyAnswer),
        (status = 503, description = "They are not: a dependency fails, or the server is stopping", body = ReadyAnswer),
    ))]
pub async fn ready(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: http::HeaderMap,
) -> Response {
    let ping = tokio::time::timeout(Duration::from_secs(2), app.links.store.ping()).await;
    let store = match ping {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer within 2 s".to_owned(),
    };
    let stopping = app.stopping.load(Ordering::Relaxed);
    let is_ready = store == "ok" && !stopping;
    let lag = app.clicks.lag();
    let status = match (is_ready, stopping) {
        // Redirects work, and so do not depend on how far statistics have come.
        (true, _) if lag.is_degraded => "degraded",
        (true, _) => "ready",
        (false, true) => "stopping",
        (false, false) => "not ready",
    };
    let clicks = if lag.is_degraded { describe(lag) } else { "ok".to_owned() };
    let dependencies = is_local(&app, peer, &headers).then_some(Dependencies { store, clicks });
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(code, &ReadyAnswer { status, dependencies })
}

fn describe(lag: Lag) -> String {
    let seconds = lag.millis.div_ceil(1000);
    format!("degraded: {} clicks wait to be counted, the oldest for {seconds} s", lag.events)
}

/// GET /metrics
pub async fn metrics(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    context: Result<Context, ApiError>,
) -> Result<Response, ApiError> {
    let context = context?;
    if !app.config.metrics_public && !is_local(&app, peer, &context.headers) && context.actor.user().is_none()
    {
        return Err(ApiError::unauthorized());
    }
    let cache = app.redirect.resolver.cache();
    let (links, missing) = cache.len();
    app.metrics.cache_bytes.set(cache.weight() as i64);
    app.metrics.cache_links.set(links as i64);
    app.metrics.cache_missing.set(missing as i64);
    let lag = app.clicks.lag();
    app.metrics.clicks_lag.set(lag.events as i64);
    app.metrics.clicks_lag_seconds.set(lag.millis as f64 / 1000.0);
    app.metrics.clicks_lost.set(lag.lost as i64);
    app.metrics.clicks_journal_bytes.set(lag.journal_bytes as i64);
    let mut response = app.metrics.render().into_response();
    let headers = response.headers_mut();
    let openmetrics = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    headers.insert(CONTENT_TYPE, openmetrics);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether the caller sits at this machine, and not behind a proxy that does.
fn is_local(app: &App, peer: Peer, headers: &http::HeaderMap) -> bool {
    match peer {
        Peer::Local => true,
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback() && is_from_here(app, headers),
    }
}
