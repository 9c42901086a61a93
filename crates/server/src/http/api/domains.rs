//! /api/v1/domains: further domains, for admins.

use super::{replay, to_the_end};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{Payload, json_response};
use crate::http::error::{ApiError, BodyProblems, ErrorCode, KeyProblems, Problem};
use crate::http::idempotency::KeptResponse;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use terse_model::domain::{Domain, DomainName};
use terse_model::tenant::Scope;
use utoipa::ToSchema;

/// A domain to register.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDomainRequest {
    /// The host name, without scheme and port.
    #[schema(example = "go.example.com", pattern = "^[a-z][a-z0-9]{0,20}(\\.[a-z][a-z0-9]{0,20}){1,3}$")]
    pub name: String,
}

/// A domain.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DomainAnswer {
    /// Its host name.
    pub name: String,
    /// Whether links that name no domain are served under it.
    pub is_default: bool,
    /// When it was registered; null for the default one, which is configured.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
}

/// All domains.
#[derive(Debug, Serialize, ToSchema)]
pub struct DomainsAnswer {
    /// The default one first.
    pub domains: Vec<DomainAnswer>,
}

impl From<&Domain> for DomainAnswer {
    fn from(domain: &Domain) -> Self {
        DomainAnswer {
            name: domain.name.to_string(),
            is_default: false,
            created_at: Some(domain.created_at.to_string()),
        }
    }
}

/// List domains
#[utoipa::path(
    get, path = "/api/v1/domains", operation_id = "listDomains", tag = "Domains",
    responses(
        (status = 200, description = "The domains", body = DomainsAnswer),
        KeyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list(State(app): State<Arc<App>>, context: Context) -> Result<Response, ApiError> {
    context.require(Scope::LinksRead)?;
    let default =
        DomainAnswer { name: app.domains.base_url().host.to_string(), is_default: true, created_at: None };
    let registered = app.domains.list().await?;
    let domains = std::iter::once(default).chain(registered.iter().map(DomainAnswer::from)).collect();
    Ok(json_response(StatusCode::OK, &DomainsAnswer { domains }))
}

/// Register a domain
///
/// Links can be made under it from now on. Point its DNS at this server.
#[utoipa::path(
    post, path = "/api/v1/domains", operation_id = "addDomain", tag = "Domains",
    request_body = AddDomainRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 201, description = "It is registered", body = DomainAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 409, description = "ALIAS_TAKEN: it is registered already", body = Problem, content_type = "application/problem+json"),
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn add(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require(Scope::Admin)?;
    let request: AddDomainRequest = payload.json()?;
    let name = DomainName::parse(&request.name).map_err(|error| ApiError::invalid("name", error))?;
    to_the_end(async move {
        let turn = app.idempotency.begin(&app, &context, &payload.bytes).await?;
        if let Some(response) = replay(turn.as_ref()) {
            return Ok(response);
        }
        let kept = |domain: &Domain| KeptResponse {
            status: 201,
            location: None,
            body: serde_json::to_string(&DomainAnswer::from(domain)).expect("answers are JSON"),
        };
        let receipt = turn.as_ref().map(|turn| {
            turn.account_receipt(move |added: &Option<Domain>| {
                added.as_ref().map(|domain| kept(domain).to_bytes())
            })
        });
        let taken = || ApiError::new(ErrorCode::AliasTaken, "").at("name", "is registered already");
        let domain = app.domains.add(name, app.clock.now(), receipt).await?.ok_or_else(taken)?;
        tracing::info!(domain = %domain.name, "Registered domain `{}`", domain.name);
        Ok(kept(&domain).into_response())
    })
    .await
}
