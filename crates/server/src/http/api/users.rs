//! /api/v1/users: for admins.

use super::{replay, to_the_end};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{Payload, json_response};
use crate::http::error::{ApiError, BodyProblems, KeyProblems, Problem};
use crate::http::idempotency::KeptResponse;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use terse_model::store::UserSave;
use terse_model::tenant::{Role, Scope, Tier, User, UserName};
use terse_model::time::Timestamp;
use utoipa::ToSchema;

/// A user to make or to change.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveUserRequest {
    /// Who.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$", example = "ann")]
    pub name: String,
    /// The role; a new user is a member.
    #[schema(value_type = Option<super::keys::RoleName>)]
    pub role: Option<String>,
    /// The tier; a new user is on the free one.
    #[schema(value_type = Option<super::keys::TierName>)]
    pub tier: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserAnswer {
    /// Who.
    pub name: String,
    /// `member` or `admin`.
    pub role: &'static str,
    /// `free`, `premium`, `bulk` or `unlimited`.
    pub tier: &'static str,
    /// When the user was made.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// All users.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsersAnswer {
    /// In the order in which they were made.
    pub users: Vec<UserAnswer>,
}

impl From<&User> for UserAnswer {
    fn from(user: &User) -> Self {
        UserAnswer {
            name: user.name.to_string(),
            role: user.role.as_str(),
            tier: user.tier.as_str(),
            created_at: user.created_at.to_string(),
        }
    }
}

/// The role of that name.
pub fn parse_role(name: &str) -> Result<Role, ApiError> {
    Role::parse(name).ok_or_else(|| ApiError::invalid("role", "expected member or admin"))
}

/// The tier of that name.
pub fn parse_tier(name: &str) -> Result<Tier, ApiError> {
    Tier::parse(name).ok_or_else(|| ApiError::invalid("tier", "expected free, premium, bulk or unlimited"))
}

/// A time that lies ahead.
pub fn future(field: &'static str, text: &str, app: &App) -> Result<Timestamp, ApiError> {
    let at = Timestamp::parse(text).map_err(|error| ApiError::invalid(field, error))?;
    (at > app.clock.now()).then_some(at).ok_or_else(|| ApiError::invalid(field, "must lie in the future"))
}

/// List users
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "listUsers", tag = "Users",
    responses(
        (status = 200, description = "The users", body = UsersAnswer),
        KeyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list(State(app): State<Arc<App>>, context: Context) -> Result<Response, ApiError> {
    context.require(Scope::Admin)?;
    let users = app.accounts.store.user_list().await?;
    Ok(json_response(StatusCode::OK, &UsersAnswer { users: users.iter().map(UserAnswer::from).collect() }))
}

/// Make or change a user
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "saveUser", tag = "Users",
    request_body = SaveUserRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 200, description = "The user as it is now", body = UserAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn save(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require(Scope::Admin)?;
    let request: SaveUserRequest = payload.json()?;
    let save = UserSave {
        name: UserName::parse(&request.name).map_err(|error| ApiError::invalid("name", error))?,
        role: request.role.map(|role| parse_role(&role)).transpose()?,
        tier: request.tier.map(|tier| parse_tier(&tier)).transpose()?,
        now: app.clock.now(),
    };
    to_the_end(async move {
        let turn = app.idempotency.begin(&app, &context, &payload.bytes).await?;
        if let Some(response) = replay(turn.as_ref()) {
            return Ok(response);
        }
        let kept = |user: &User| KeptResponse {
            status: 200,
            location: None,
            body: serde_json::to_string(&UserAnswer::from(user)).expect("answers are JSON"),
        };
        let receipt =
            turn.as_ref().map(|turn| turn.account_receipt(move |user: &User| Some(kept(user).to_bytes())));
        let user = app.accounts.save_user(save, receipt).await?;
        Ok(kept(&user).into_response())
    })
    .await
}
