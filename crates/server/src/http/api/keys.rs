//! /api/v1/keys: make, list and revoke API keys.

use super::{InPath, acting_user, replay, to_the_end};
use crate::accounts::keys::{KEY_PREFIX, hash_of, new_secret};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{Payload, json_response};
use crate::http::error::{ApiError, BodyProblems, KeyProblems, Problem};
use crate::http::idempotency::KeptResponse;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use terse_model::store::UserSave;
use terse_model::tenant::{Actor, ApiKey, Role, Scope, Scopes, Tier, User, UserName};
use terse_model::time::Timestamp;
use utoipa::ToSchema;

const NAME_LEN_MAX: usize = 100;

/// A key to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100, example = "deploy script")]
    pub name: String,
    /// Whose it is: oneself, or, for an admin, anybody; made if there is no such user.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    pub user: Option<String>,
    /// The user's role. Only an admin may give one.
    #[schema(value_type = Option<RoleName>)]
    pub role: Option<String>,
    /// The user's tier. Only an admin may give one.
    #[schema(value_type = Option<TierName>)]
    pub tier: Option<String>,
    /// What it may be used for; otherwise everything that the caller's own key may.
    #[schema(value_type = Option<Vec<ScopeName>>, min_items = 1)]
    pub scopes: Option<Vec<String>>,
    /// When it stops to work: an RFC 3339 time or a date.
    #[schema(format = "future-time", example = "2099-12-31")]
    pub expires_at: Option<String>,
    /// Links an hour, in place of the tier's figure. Only an admin may give one.
    #[schema(minimum = 1, maximum = 4294967295i64)]
    pub creates_per_hour: Option<u32>,
}

/// `member` or `admin`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum RoleName {
    /// Own links and keys.
    Member,
    /// Everything.
    Admin,
}

/// How many links an hour.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum TierName {
    /// 100.
    Free,
    /// 1,000.
    Premium,
    /// 10,000.
    Bulk,
    /// No limit.
    Unlimited,
}

/// What a key may be used for.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema only")]
pub enum ScopeName {
    /// Read links.
    #[schema(rename = "links:read")]
    LinksRead,
    /// Write links.
    #[schema(rename = "links:write")]
    LinksWrite,
    /// Read statistics.
    #[schema(rename = "stats:read")]
    StatsRead,
    /// Manage keys.
    #[schema(rename = "keys")]
    Keys,
    /// Manage users and domains.
    #[schema(rename = "admin")]
    Admin,
}

/// A key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyAnswer {
    /// Names it when it is to be revoked.
    pub id: u32,
    /// What it is for.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// What it may be used for.
    pub scopes: Vec<&'static str>,
    /// Links an hour, in place of the tier's figure.
    pub creates_per_hour: Option<u32>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it stops to work.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// When it was last used, within a few minutes.
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// The key itself. Shown in this answer only; what is kept is a hash.
    #[schema(required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeysAnswer {
    /// In the order in which they were made.
    pub keys: Vec<KeyAnswer>,
}

impl KeyAnswer {
    fn of(key: &ApiKey, user: &str) -> Self {
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        KeyAnswer {
            id: key.id,
            name: key.name.clone(),
            user: user.to_owned(),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            creates_per_hour: key.creates_per_hour,
            created_at: key.created_at.to_string(),
            expires_at: text(key.expires_at),
            last_used_at: text(key.last_used_at),
            key: None,
        }
    }
}

/// Make a key
#[utoipa::path(
    post, path = "/api/v1/keys", operation_id = "createKey", tag = "Keys",
    request_body = CreateKeyRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely; a repeat doesn't show the key again", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 201, description = "The key, this once", body = KeyAnswer,
            links(("Revoke" = (operation_id = "revokeKey", parameters(("id" = "$response.body#/id")))))),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require(Scope::Keys)?;
    let request: CreateKeyRequest = payload.json()?;
    to_the_end(async move {
        let turn = app.idempotency.begin(&app, &context, &payload.bytes).await?;
        if let Some(response) = replay(turn.as_ref()) {
            return Ok(response);
        }
        // After the replay: an expiry that lay ahead then may be past by now.
        let request = request.check(&app, &context)?;
        let user = match request.user {
            None => acting_user(&context)?.clone(),
            Some(name) => {
                let save = UserSave { name, role: request.role, tier: request.tier, now: app.clock.now() };
                app.accounts.save_user(save, None).await?
            }
        };
        let secret = new_secret(KEY_PREFIX);
        let key = ApiKey {
            id: 0,
            hash: hash_of(&secret),
            user: user.id,
            name: request.name,
            scopes: request.scopes,
            creates_per_hour: request.creates_per_hour,
            created_at: app.clock.now(),
            expires_at: request.expires_at,
            last_used_at: None,
        };
        let owner = user.name.to_string();
        let receipt = turn.as_ref().map(|turn| {
            turn.account_receipt(move |key: &ApiKey| {
                let body = serde_json::to_string(&KeyAnswer::of(key, &owner)).expect("answers are JSON");
                Some(KeptResponse { status: 201, location: None, body }.to_bytes())
            })
        });
        let key = app.accounts.add_key(key, receipt).await?;
        tracing::info!(key.id = key.id, user = %user.name, "Made key {} of user `{}`", key.id, user.name);
        let answer = KeyAnswer { key: Some(secret), ..KeyAnswer::of(&key, user.name.as_str()) };
        Ok(json_response(StatusCode::CREATED, &answer))
    })
    .await
}

struct CheckedKey {
    name: String,
    user: Option<UserName>,
    role: Option<Role>,
    tier: Option<Tier>,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
    creates_per_hour: Option<u32>,
}

impl CreateKeyRequest {
    fn check(self, app: &App, context: &Context) -> Result<CheckedKey, ApiError> {
        let user = self.user.as_deref().map(UserName::parse).transpose();
        let user = user.map_err(|error| ApiError::invalid("user", error))?;
        let is_other =
            user.as_ref().is_some_and(|name| context.actor.user().is_none_or(|own| own.name != *name));
        let privileged =
            is_other || self.role.is_some() || self.tier.is_some() || self.creates_per_hour.is_some();
        if privileged && !context.actor.may(Scope::Admin) {
            return Err(ApiError::forbidden(
                "only an admin gives keys to others, or a role, a tier or a rate",
            ));
        }
        if !(1..=NAME_LEN_MAX).contains(&self.name.chars().count()) {
            return Err(ApiError::invalid("name", format!("expected 1 to {NAME_LEN_MAX} characters")));
        }
        // A key gives on no more than it has: scopes, its end and its rate.
        let (own, own_end, own_rate) = match &context.actor {
            Actor::User { scopes, expires_at, creates_per_hour, .. } => {
                (*scopes, *expires_at, *creates_per_hour)
            }
            Actor::Local(_) | Actor::Anonymous => (Scopes::ALL, None, None),
        };
        let scopes = match self.scopes {
            None => own,
            Some(names) => parse_scopes(&names)?,
        };
        if !own.covers(scopes) {
            return Err(ApiError::forbidden("a key can't give a scope that it does not have"));
        }
        let expires_at =
            self.expires_at.map(|text| super::users::future("expires_at", &text, app)).transpose()?;
        let expires_at = expires_at.into_iter().chain(own_end).min();
        if self.creates_per_hour == Some(0) {
            return Err(ApiError::invalid("creates_per_hour", "expected at least 1"));
        }
        // A role or tier is the user's, so giving one names the user even when it is oneself.
        let names_user = self.role.is_some() || self.tier.is_some();
        Ok(CheckedKey {
            name: self.name,
            user: user.or_else(|| context.actor.user().filter(|_| names_user).map(|user| user.name.clone())),
            role: self.role.map(|role| super::users::parse_role(&role)).transpose()?,
            tier: self.tier.map(|tier| super::users::parse_tier(&tier)).transpose()?,
            scopes,
            expires_at,
            creates_per_hour: self.creates_per_hour.or(own_rate),
        })
    }
}

fn parse_scopes(names: &[String]) -> Result<Scopes, ApiError> {
    let scopes: Option<Vec<Scope>> = names.iter().map(|name| Scope::parse(name)).collect();
    let known: Vec<&str> = Scope::ALL.iter().map(|(_, name)| *name).collect();
    let expected = || ApiError::invalid("scopes", format!("expected some of {}", known.join(", ")));
    scopes.filter(|scopes| !scopes.is_empty()).map(|scopes| Scopes::of(&scopes)).ok_or_else(expected)
}

/// List keys
///
/// One's own, or everybody's for an admin. The keys themselves are not shown.
#[utoipa::path(
    get, path = "/api/v1/keys", operation_id = "listKeys", tag = "Keys",
    responses(
        (status = 200, description = "The keys", body = KeysAnswer),
        KeyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list(State(app): State<Arc<App>>, context: Context) -> Result<Response, ApiError> {
    context.require(Scope::Keys)?;
    let users: Vec<User> = if context.actor.is_admin() {
        app.accounts.store.user_list().await?
    } else {
        vec![acting_user(&context)?.clone()]
    };
    let only = if context.actor.is_admin() { None } else { Some(acting_user(&context)?.id) };
    let mut keys = app.accounts.store.key_list(only).await?;
    keys.sort_by_key(|key| key.created_at);
    let name_of =
        |key: &ApiKey| users.iter().find(|user| user.id == key.user).map_or("", |user| user.name.as_str());
    let answer = KeysAnswer { keys: keys.iter().map(|key| KeyAnswer::of(key, name_of(key))).collect() };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Revoke a key
///
/// It stops to work at once.
#[utoipa::path(
    delete, path = "/api/v1/keys/{id}", operation_id = "revokeKey", tag = "Keys",
    params(("id" = u32, Path, description = "The key's id", minimum = 0, maximum = 4294967295i64)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND: there is no such key", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(id): InPath,
) -> Result<Response, ApiError> {
    context.require(Scope::Keys)?;
    let id: u32 = id.parse().map_err(|_| ApiError::invalid("id", "expected a key's id, a number"))?;
    to_the_end(async move {
        let keys = app.accounts.store.key_list(None).await?;
        let key = keys
            .iter()
            .find(|key| key.id == id)
            .ok_or_else(|| ApiError::not_found("there is no such key"))?;
        if !context.actor.is_admin() && acting_user(&context)?.id != key.user {
            return Err(ApiError::forbidden("this key belongs to somebody else"));
        }
        app.accounts.revoke(id).await?;
        tracing::info!(key.id = id, "Revoked key {id}");
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}
