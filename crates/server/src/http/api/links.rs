//! /api/v1/urls: create, read, change, delete, list.

use super::wire::{
    ChangeLinkRequest, CheckedChange, CheckedCreate, CreateLinkRequest, LinkAnswer, Patch, check_domain,
    kept_until, rule,
};
use super::{InPath, acting_user, replay, to_the_end};
use crate::accounts::PasswordError;
use crate::accounts::keys::{hash_of, new_secret};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{Payload, json_response};
use crate::http::compat::Style;
use crate::http::error::{ApiError, BodyProblems, ErrorCode, KeyProblems, Problem, add_rate_headers};
use crate::http::idempotency::KeptResponse;
use crate::limit::Verdict;
use crate::links::change::ChangeLink;
use crate::links::create::{CreateLink, Created};
use crate::links::delete::DeleteLink;
use crate::links::{may_change, may_manage};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use terse_model::click::Subject;
use terse_model::code::ShortCode;
use terse_model::code_space::LinkId;
use terse_model::link::{Link, LinkKey, LinkRecord, LinkState, Revision};
use terse_model::store::ListQuery;
use terse_model::tenant::{Actor, Scope};
use utoipa::{IntoParams, ToSchema};

/// Links on a page of a list, by default and at most.
const PAGE_LEN: usize = 50;
const PAGE_LEN_MAX: usize = 1_000;
/// Longest text to search for, in bytes.
const SEARCH_LEN_MAX: usize = 200;
/// How long links wait for their clicks to be counted.
const CLICKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Create a link
///
/// Without a key only where anonymous creation is on; the answer then holds a `manage_token`.
#[utoipa::path(
    post, path = "/api/v1/urls", operation_id = "createLink", tag = "Links",
    request_body = CreateLinkRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely: the same key and body within 24 hours get the first answer", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 200, description = "An equal link was there (`find_if_exists`)", body = LinkAnswer),
        (status = 201, description = "The link is on disk", body = LinkAnswer, headers(("Location" = String, description = "The short link")),
            links(
                ("Read" = (operation_id = "getLink", parameters(("code" = "$response.body#/short_code")))),
                ("Change" = (operation_id = "changeLink", parameters(("code" = "$response.body#/short_code")))),
                ("Delete" = (operation_id = "deleteLink", parameters(("code" = "$response.body#/short_code")))),
                ("Statistics" = (operation_id = "linkStats", parameters(("code" = "$response.body#/short_code")))),
                ("ShortStatistics" = (operation_id = "shortStats", parameters(("code" = "$response.body#/short_code")))),
                ("Clicks" = (operation_id = "listClicks", parameters(("code" = "$response.body#/short_code")))),
                ("Export" = (operation_id = "exportClicks", parameters(("code" = "$response.body#/short_code")))),
                ("EraseClicks" = (operation_id = "eraseClicks", parameters(("code" = "$response.body#/short_code")))),
            )),
        (status = 400, description = "INVALID_URL, VALIDATION_ERROR or ALIAS_RESERVED", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 409, description = "ALIAS_TAKEN", body = Problem, content_type = "application/problem+json"),
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "RATE_LIMIT_EXCEEDED", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("key" = []), ("header_key" = [])),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require_create()?;
    let request = payload.json()?;
    create_link(app, context, payload.bytes, request, Style::Snake).await
}

/// What every way of creating one link comes to.
pub async fn create_link(
    app: Arc<App>,
    context: Context,
    body: Bytes,
    request: CreateLinkRequest,
    style: Style,
) -> Result<Response, ApiError> {
    to_the_end(async move {
        let turn = app.idempotency.begin(&app, &context, &body).await?;
        if let Some(response) = replay(turn.as_ref()) {
            return Ok(response);
        }
        // After the replay: what was right when it was answered, such as an expiry, may be past by now.
        let checked = request.check(&app)?;
        let verdict = take_one_create(&app, &context)?;
        let token = matches!(context.actor, Actor::Anonymous).then(|| new_secret("mt_"));
        let create = with_owner(&app, checked, &context, token.as_deref()).await?;
        let (render_app, now) = (app.clone(), app.clock.now());
        let created = app
            .links
            .create(create, |link| {
                let turn = turn.as_ref()?;
                let answer = LinkAnswer::of(&render_app, link, now, Some(0));
                let kept = kept_answer(StatusCode::CREATED, &answer, style);
                Some(turn.receipt(
                    0,
                    Arc::new(move |written| match written {
                        [terse_model::store::LinkWritten::Inserted] => Some(kept.to_bytes()),
                        [terse_model::store::LinkWritten::Existing(link)] => {
                            let answer = LinkAnswer::of(&render_app, link, now, None);
                            Some(kept_answer(StatusCode::OK, &answer, style).to_bytes())
                        }
                        _ => None,
                    }),
                ))
            })
            .await?;
        let (status, link, clicks) = match created {
            Created::AliasTaken => return Err(alias_taken()),
            Created::New(link) => (StatusCode::CREATED, link, Some(0)),
            // As in the answer that is kept, which can't wait for statistics.
            Created::Existing(link) => (StatusCode::OK, link, None),
        };
        tracing::info!(link.code = %link.key.code, "Created link `{}`", link.key.code);
        let mut answer = LinkAnswer::of(&app, &link, now, clicks);
        answer.manage_token = token;
        let mut response = kept_answer(status, &answer, style).into_response();
        if let Some(verdict) = verdict {
            add_rate_headers(response.headers_mut(), &verdict);
        }
        Ok(response)
    })
    .await
}

/// The alias belongs to somebody.
pub fn alias_taken() -> ApiError {
    ApiError::new(ErrorCode::AliasTaken, "").at("custom_alias", "is taken; choose another one")
}

fn kept_answer(status: StatusCode, answer: &LinkAnswer, style: Style) -> KeptResponse {
    KeptResponse {
        status: status.as_u16(),
        location: (status == StatusCode::CREATED).then(|| answer.short_url.clone()),
        body: style.render(answer),
    }
}

/// Hashes the password and says whose the link will be.
pub async fn with_owner(
    app: &App,
    checked: CheckedCreate,
    context: &Context,
    token: Option<&str>,
) -> Result<CreateLink, ApiError> {
    let mut settings = checked.settings;
    if let Some(password) = checked.password {
        settings.password_hash = Some(app.passwords.hash(password).await?);
    }
    Ok(CreateLink {
        domain: checked.domain,
        alias: checked.alias,
        owner: context.actor.user().map(|user| user.id),
        manage_token: token.map(hash_of),
        settings,
        reuse_equal: checked.reuse_equal && context.actor.user().is_some(),
    })
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                ApiError::new(ErrorCode::Unavailable, "too many passwords are being checked right now")
            }
            PasswordError::Damaged => {
                tracing::error!("{error}");
                ApiError::new(ErrorCode::InternalError, "the password can't be checked")
            }
        }
    }
}

fn take_one_create(app: &App, context: &Context) -> Result<Option<Verdict>, ApiError> {
    match app.take_creates(context, 1) {
        (_, Some(verdict)) if !verdict.allowed => {
            app.metrics.api_limited.inc();
            Err(ApiError::rate_limited(verdict))
        }
        (_, verdict) => Ok(verdict),
    }
}

/// Which link a path and a query name.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ByCode {
    /// The link's domain; otherwise the default one.
    #[param(format = "registered-host", min_length = 1, max_length = 253)]
    pub domain: Option<String>,
}

/// A query string, with errors in our shape.
pub struct Asked<T>(pub T);

impl<T: serde::de::DeserializeOwned + Send> axum::extract::FromRequestParts<Arc<App>> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(asked)| Asked(asked)).map_err(|error| {
            let text = error.body_text();
            let text = text.trim_start_matches("Failed to deserialize query string: ");
            ApiError::new(ErrorCode::ValidationError, format!("the query is not as expected: {text}"))
        })
    }
}

/// The key that a path and a query name.
pub fn key_of(app: &App, code: &str, by: &ByCode) -> Result<LinkKey, ApiError> {
    let code = ShortCode::parse(code).map_err(|_| ApiError::not_found("there is no such link"))?;
    Ok(LinkKey { domain: check_domain(by.domain.as_deref(), app)?, code })
}

/// Read a link
#[utoipa::path(
    get, path = "/api/v1/urls/{code}", operation_id = "getLink", tag = "Links",
    params(("code" = String, Path, description = "The short code"), ByCode, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "The link", body = LinkAnswer, headers(("ETag" = String, description = "The revision"))),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "URL_DELETED, or URL_EXPIRED once it is swept", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn get(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    Asked(by): Asked<ByCode>,
) -> Result<Response, ApiError> {
    context.require_or_token(&app, Scope::LinksRead)?;
    let record = app.links.get(&key_of(&app, &code, &by)?).await?;
    if !may_manage(&context.actor, context.manage_token, &record) {
        return Err(ApiError::forbidden("this link belongs to somebody else"));
    }
    match record {
        LinkRecord::Removed(removed) => Err(ApiError::of_removal(removed.removal)),
        LinkRecord::Present(link) => {
            let clicks = clicks_of(&app, &[link.id]).await[0];
            Ok(with_etag(&link, &LinkAnswer::of(&app, &link, app.clock.now(), clicks)))
        }
    }
}

/// How often people followed these links, in their order. A list of links doesn't fail because statistics do.
async fn clicks_of(app: &App, links: &[LinkId]) -> Vec<Option<u64>> {
    let subjects = links.iter().copied().map(Subject::Link).collect();
    match tokio::time::timeout(CLICKS_TIMEOUT, app.clicks.totals(subjects)).await {
        Ok(Ok(totals)) => totals.iter().map(|totals| Some(totals.human)).collect(),
        Ok(Err(error)) => {
            tracing::warn!(error = ?error, "Links are shown without their clicks: {error}");
            vec![None; links.len()]
        }
        Err(_) => {
            tracing::warn!("Links are shown without their clicks: no answer in time");
            vec![None; links.len()]
        }
    }
}

fn with_etag(link: &Link, answer: &LinkAnswer) -> Response {
    let mut response = json_response(StatusCode::OK, answer);
    let tag = format!("\"{}\"", link.revision.0);
    response.headers_mut().insert(ETAG, HeaderValue::from_str(&tag).expect("digits in quotes"));
    response
}

/// Change a link
///
/// A JSON merge patch (RFC 7396): what is absent stays, null clears. With `If-Match` the change is refused when the
/// link has another revision by now; without it the last writer wins.
#[utoipa::path(
    patch, path = "/api/v1/urls/{code}", operation_id = "changeLink", tag = "Links",
    params(("code" = String, Path, description = "The short code"), ByCode, ("If-Match" = Option<String>, Header, description = "The revision that the change is based on, in quotes", pattern = "^\"[0-9]{1,9}\"$")),
    request_body(content((ChangeLinkRequest = "application/merge-patch+json"), (ChangeLinkRequest = "application/json"))),
    responses(
        (status = 200, description = "The link as it is now", body = LinkAnswer, headers(("ETag" = String, description = "The revision"))),
        (status = 400, description = "INVALID_URL or VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "URL_DELETED, or URL_EXPIRED once it is swept", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "REVISION_CONFLICT", body = Problem, content_type = "application/problem+json"),
        BodyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    Asked(by): Asked<ByCode>,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require(Scope::LinksWrite)?;
    let key = key_of(&app, &code, &by)?;
    let based_on = if_match(&context.headers)?;
    let request: ChangeLinkRequest = payload.json()?;
    let mut checked = request.check(&app)?;
    to_the_end(async move {
        require_password_right(&app, &context, &key, &checked).await?;
        hash_password(&app, &mut checked).await?;
        let now = app.clock.now();
        let old = Arc::new(std::sync::Mutex::new(None));
        let rule = {
            let (old, rule) = (old.clone(), rule(checked));
            let change: crate::links::change::SettingsRule = Arc::new(move |settings| {
                *old.lock().expect("no code panics under this lock") = Some(settings.clone());
                rule(settings)
            });
            change
        };
        let link = app.links.change(ChangeLink { key, actor: context.actor, based_on, rule }, None).await?;
        let clicks = clicks_of(&app, &[link.id]).await[0];
        let mut answer = LinkAnswer::of(&app, &link, now, clicks);
        let old = old.lock().expect("no code panics under this lock").take();
        answer.old_redirect_kept_until = old
            .filter(|old| *old != link.settings)
            .and_then(|old| kept_until(&old, app.clock.now(), app.config.permanent_max_age))
            .map(|until| until.to_string());
        Ok(with_etag(&link, &answer))
    })
    .await
}

/// Refuses a change of the password from those who may not change the link, before it is hashed, which is dear.
pub async fn require_password_right(
    app: &App,
    context: &Context,
    key: &LinkKey,
    change: &CheckedChange,
) -> Result<(), ApiError> {
    let may = match change.password {
        Patch::Set(_) => may_change(&context.actor, &app.links.get(key).await?),
        Patch::Clear | Patch::Absent => true,
    };
    may.then_some(()).ok_or_else(|| ApiError::forbidden("this link belongs to somebody else"))
}

/// Hashes the password of a change.
pub async fn hash_password(app: &App, change: &mut CheckedChange) -> Result<(), ApiError> {
    if let Patch::Set(password) = &change.password {
        change.password = Patch::Set(app.passwords.hash(password.clone()).await?);
    }
    Ok(())
}

/// The revisions that a request may be based on (RFC 9110, 13.1.1). A tag that a proxy has weakened still tells its
/// revision.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<Revision>>, ApiError> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = |tag: &str| -> Option<Revision> {
        let tag = tag.trim();
        let quoted = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
        let is_number = !quoted.is_empty() && quoted.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| quoted.parse().map(Revision).ok()).flatten()
    };
    let revisions: Option<Vec<Revision>> = text.split(',').map(revision).collect();
    let expected = "expected a revision in quotes, such as \"3\", as ETag gave it";
    revisions.map(Some).ok_or_else(|| ApiError::invalid("If-Match", expected))
}

/// Delete a link
///
/// Its code answers 410 from then on and is never given to anyone else. Deleting again is fine.
#[utoipa::path(
    delete, path = "/api/v1/urls/{code}", operation_id = "deleteLink", tag = "Links",
    params(("code" = String, Path, description = "The short code"), ByCode, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    Asked(by): Asked<ByCode>,
) -> Result<Response, ApiError> {
    context.require_or_token(&app, Scope::LinksWrite)?;
    let key = key_of(&app, &code, &by)?;
    to_the_end(async move {
        let delete = DeleteLink { key, actor: context.actor, token: context.manage_token };
        app.links.delete(delete, None).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// Which links to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Links on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    pub limit: Option<u64>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(pattern = "^[0-9A-Za-z]{1,11}$")]
    pub cursor: Option<String>,
    /// Only links whose code, target, title or notes hold this text, without regard to case.
    #[param(max_length = 200)]
    pub q: Option<String>,
    /// Only links with this tag.
    #[param(max_length = 64)]
    pub tag: Option<String>,
    /// Only links in this state; otherwise all that were not deleted.
    #[param(inline)]
    pub state: Option<WireState>,
}

/// A link's state.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WireState {
    /// It redirects.
    Active,
    /// It is paused.
    Disabled,
    /// Its start lies ahead.
    Scheduled,
    /// Its expiry is past.
    Expired,
    /// Its clicks are used.
    Exhausted,
    /// It was deleted.
    Deleted,
}

/// A page of links.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListAnswer {
    /// Newest first. With a filter, a page may hold fewer than asked for and still not be the last.
    pub links: Vec<ListedLink>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A link in a list; of a removed one, only what is left.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ListedLink {
    /// A link.
    Present(Box<LinkAnswer>),
    /// What is left of one.
    Removed(RemovedAnswer),
}

/// What is left of a removed link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovedAnswer {
    /// The link that it was.
    pub short_url: String,
    /// Its code, which nobody else will get.
    pub short_code: String,
    /// Its domain.
    pub domain: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was removed.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// How often it was written.
    pub revision: u32,
    /// `deleted` or `expired`.
    pub state: &'static str,
}

/// List links
///
/// Your own, or everybody's for an admin.
#[utoipa::path(
    get, path = "/api/v1/urls", operation_id = "listLinks", tag = "Links",
    params(ListParams),
    responses(
        (status = 200, description = "A page", body = ListAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    Asked(params): Asked<ListParams>,
) -> Result<Response, ApiError> {
    context.require(Scope::LinksRead)?;
    let now = app.clock.now();
    let codes = &app.instance.codes;
    // A cursor is the generated code of the last link's id: short, and it tells nobody how many links there are.
    let cursor = params.cursor.map(|cursor| {
        codes.decode(&cursor).ok_or_else(|| ApiError::invalid("cursor", "is none that a list gave"))
    });
    let limit = params.limit.unwrap_or(PAGE_LEN as u64);
    if !(1..=PAGE_LEN_MAX as u64).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("expected 1 to {PAGE_LEN_MAX}")));
    }
    if params.q.as_ref().is_some_and(|text| text.chars().count() > SEARCH_LEN_MAX) {
        return Err(ApiError::invalid("q", format!("at most {SEARCH_LEN_MAX} characters")));
    }
    if params.tag.as_ref().is_some_and(|tag| tag.chars().count() > 64) {
        return Err(ApiError::invalid("tag", "at most 64 characters"));
    }
    let query = ListQuery {
        owner: if context.actor.is_admin() { None } else { Some(acting_user(&context)?.id) },
        before: cursor.transpose()?,
        text: params.q,
        tag: params.tag,
        state: params.state.map(|state| match state {
            WireState::Active => LinkState::Active,
            WireState::Disabled => LinkState::Disabled,
            WireState::Scheduled => LinkState::Scheduled,
            WireState::Expired => LinkState::Expired,
            WireState::Exhausted => LinkState::Exhausted,
            WireState::Deleted => LinkState::Deleted,
        }),
        now,
        limit: limit as usize,
    };
    let page = app.links.list(&query).await?;
    let ids: Vec<LinkId> = page.links.iter().map(LinkRecord::id).collect();
    let clicks = clicks_of(&app, &ids).await;
    let listed = |(record, clicks): (&LinkRecord, Option<u64>)| match record {
        LinkRecord::Present(link) => ListedLink::Present(Box::new(LinkAnswer::of(&app, link, now, clicks))),
        LinkRecord::Removed(removed) => ListedLink::Removed(RemovedAnswer {
            short_url: format!("{}/{}", app.domains.base_of(removed.key.domain), removed.key.code),
            short_code: removed.key.code.to_string(),
            domain: app.domains.name(removed.key.domain).to_string(),
            created_at: removed.created_at.to_string(),
            updated_at: removed.removed_at.to_string(),
            revision: removed.revision.0,
            state: record.state(now).as_str(),
        }),
    };
    let answer = ListAnswer {
        links: page.links.iter().zip(clicks).map(listed).collect(),
        next_cursor: page.next.map(|id| codes.encode(id).to_string()),
    };
    Ok(json_response(StatusCode::OK, &answer))
}
