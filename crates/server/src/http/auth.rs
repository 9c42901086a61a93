//! Who makes a request, and what comes with it.

use super::client::{Client, Peer, has_forwarding_header};
use super::error::ApiError;
use crate::accounts::keys::hash_of;
use crate::app::App;
use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method};
use std::sync::Arc;
use terse_model::store::UserSave;
use terse_model::tenant::{Actor, Role, Scope, SecretHash, Tier, UserName};

/// Names the user as whom the local command line acts.
pub const LOCAL_USER_HEADER: &str = "x-terse-user";
/// As whom it acts by default.
pub const LOCAL_USER: &str = "local";

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who acts.
    pub actor: Actor,
    /// From where.
    pub client: Client,
    /// Whether anonymous callers may create links with this request.
    pub anonymous_create: bool,
    /// The hash of the manage token that came with it.
    pub manage_token: Option<SecretHash>,
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, without `?`.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
}

impl FromRequestParts<Arc<App>> for Context {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let peer = *parts.extensions.get::<Peer>().expect("the connection loop says who asks");
        let client = Client::of(peer, &parts.headers, &app.config.trusted_proxies);
        let actor = match peer {
            Peer::Local => local_actor(app, &parts.headers).await?,
            Peer::Tcp(_) => actor(app, &parts.headers).await?,
        };
        let token = parts.headers.get("x-manage-token");
        Ok(Context {
            actor,
            client,
            anonymous_create: app.anonymous_create
                && (app.anonymous_create_open || is_from_here(app, &parts.headers)),
            manage_token: token.and_then(|token| token.to_str().ok()).map(hash_of),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers.clone(),
        })
    }
}

impl Context {
    /// Refuses without a key that has this scope.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        match self.actor {
            Actor::Anonymous => Err(ApiError::unauthorized()),
            _ if self.actor.may(scope) => Ok(()),
            _ => Err(ApiError::forbidden(format!("this key does not have the scope {}", scope.as_str()))),
        }
    }

    /// The same, but a manage token does as well. Without a key, tries are counted as redirects are.
    pub fn require_or_token(&self, app: &App, scope: Scope) -> Result<(), ApiError> {
        match (&self.actor, self.manage_token) {
            (Actor::Anonymous, Some(_)) => app
                .redirect
                .limit(self.client.address, app.clock.now())
                .map_or(Ok(()), |no| Err(ApiError::of_refusal(no))),
            _ => self.require(scope),
        }
    }

    /// Refuses whoever may not create links.
    pub fn require_create(&self) -> Result<(), ApiError> {
        match self.actor {
            Actor::Anonymous if self.anonymous_create => Ok(()),
            _ => self.require(Scope::LinksWrite),
        }
    }
}

/// Whether a loopback request comes from this machine's user: not through a proxy, not for another host (to which a
/// hostile name may resolve), and not from a page of another site that their browser shows.
pub fn is_from_here(app: &App, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text("host");
    let site_fits = matches!(text("sec-fetch-site"), None | Some("same-origin" | "none"));
    let origin = text("origin").map(|origin| origin.split_once("://").map(|(_, authority)| authority));
    let origin_fits = origin.is_none_or(|authority| authority == host);
    !has_forwarding_header(headers)
        && host.is_none_or(|host| app.is_own_host(host))
        && site_fits
        && origin_fits
}

/// The API key of a request: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
async fn actor(app: &Arc<App>, headers: &HeaderMap) -> Result<Actor, ApiError> {
    let key = match (headers.get(AUTHORIZATION), headers.get("x-api-key")) {
        (None, None) => return Ok(Actor::Anonymous),
        (Some(value), _) => {
            let text = value.to_str().map_err(|_| ApiError::unauthorized())?;
            let (scheme, key) = text.split_once(' ').ok_or_else(ApiError::unauthorized)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(ApiError::unauthorized());
            }
            key.trim()
        }
        (None, Some(value)) => value.to_str().map_err(|_| ApiError::unauthorized())?.trim(),
    };
    app.accounts.authenticate(key).await?.ok_or_else(ApiError::unauthorized)
}

async fn local_actor(app: &Arc<App>, headers: &HeaderMap) -> Result<Actor, ApiError> {
    let name = headers.get(LOCAL_USER_HEADER).and_then(|name| name.to_str().ok()).unwrap_or(LOCAL_USER);
    let name = UserName::parse(name).map_err(|error| ApiError::invalid("user", error))?;
    if let Some(user) = app.accounts.store.user_get(&name).await? {
        return Ok(Actor::Local(user));
    }
    let is_default = name.as_str() == LOCAL_USER;
    let save = UserSave {
        name,
        role: Some(Role::Member),
        tier: is_default.then_some(Tier::Unlimited),
        now: app.clock.now(),
    };
    Ok(Actor::Local(app.accounts.save_user(save, None).await?))
}
