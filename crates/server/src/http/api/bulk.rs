//! POST /api/v1/urls/bulk: create, change and delete many links in one call.

use super::links::{alias_taken, with_owner};
use super::to_the_end;
use super::wire::{ChangeLinkRequest, CreateLinkRequest, LinkAnswer, Patch, check_domain, rule};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{BULK_LEN_MAX, MediaType, Payload, json_text_response, parse_json, unsupported};
use crate::http::error::{ApiError, ErrorCode, Problem, add_rate_headers};
use crate::links::bulk::{BATCH_LEN, BulkOutcome, BulkRow};
use crate::links::change::ChangeLink;
use crate::links::create::Created;
use crate::links::delete::DeleteLink;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use terse_model::code::ShortCode;
use terse_model::link::{LinkKey, Revision};
use terse_model::tenant::{Actor, Scope};
use terse_model::time::Timestamp;
use utoipa::ToSchema;

/// Rows that one call takes.
pub const ROWS_LEN_MAX: usize = 100_000;

/// A row: a link to create, or, with an `action`, one to change or delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema only; rows are read by their action")]
pub enum BulkRowRequest {
    /// Create a link.
    Create(Box<CreateLinkRequest>),
    /// Change one.
    Update(Box<UpdateRow>),
    /// Delete one.
    Delete(DeleteRow),
}

/// Change the link of this code.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpdateRow {
    /// `update`.
    #[allow(dead_code, reason = "read before")]
    action: UpdateAction,
    /// Which link.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    short_code: String,
    /// Its domain.
    #[schema(min_length = 1, max_length = 253)]
    domain: Option<String>,
    /// The revision that the change is based on.
    #[schema(minimum = 0, maximum = 4294967295i64)]
    revision: Option<u32>,
    /// The change, a merge patch.
    changes: ChangeLinkRequest,
}

/// Delete the link of this code.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DeleteRow {
    /// `delete`.
    #[allow(dead_code, reason = "read before")]
    action: DeleteAction,
    /// Which link.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    short_code: String,
    /// Its domain.
    #[schema(min_length = 1, max_length = 253)]
    domain: Option<String>,
}

/// The word `update`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum UpdateAction {
    /// Change.
    Update,
}

/// The word `delete`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DeleteAction {
    /// Delete.
    Delete,
}

/// What came of all rows, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkAnswer {
    /// One for each row.
    pub results: Vec<RowAnswer>,
}

/// What came of one row.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowAnswer {
    /// The status that a call of its own would have had.
    pub status: u16,
    /// The link, after a creation or a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub link: Option<Box<LinkAnswer>>,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
}

/// Create, change and delete many links
///
/// A JSON array, or NDJSON with a row a line: up to 100,000 rows and 64 MiB. Rows are committed in batches of 1,000; a
/// row that is refused does not stop the others. With an `Idempotency-Key`, a repeat of a call that broke off goes on
/// where it stopped.
#[utoipa::path(
    post, path = "/api/v1/urls/bulk", operation_id = "bulkLinks", tag = "Links",
    request_body(content((Vec<BulkRowRequest> = "application/json"))),
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 200, description = "A result for each row, in their order", body = BulkAnswer),
        (status = 400, description = "VALIDATION_ERROR: the body is no list of rows", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "UNAUTHORIZED", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "FORBIDDEN", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "UNAVAILABLE", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn bulk(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload<BULK_LEN_MAX>,
) -> Result<Response, ApiError> {
    context.require(Scope::LinksWrite)?;
    let rows = split_rows(&payload)?;
    to_the_end(async move { run(&app, &context, &payload, rows).await }).await
}

/// The rows of a body as JSON texts. A line that is no JSON is a mistake of its own row; an array must be one.
fn split_rows(payload: &Payload<BULK_LEN_MAX>) -> Result<Vec<Box<str>>, ApiError> {
    let too_many =
        || ApiError::new(ErrorCode::PayloadTooLarge, format!("one call takes at most {ROWS_LEN_MAX} rows"));
    let rows: Vec<Box<str>> = match payload.media_type {
        MediaType::Json => {
            let rows: Vec<Box<serde_json::value::RawValue>> = parse_json(&payload.bytes)?;
            if rows.len() > ROWS_LEN_MAX {
                return Err(too_many());
            }
            rows.into_iter().map(|row| row.get().into()).collect()
        }
        MediaType::Ndjson => {
            let text = std::str::from_utf8(&payload.bytes)
                .map_err(|_| ApiError::new(ErrorCode::ValidationError, "the body is not UTF-8"))?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect()
        }
        _ => return Err(unsupported("application/json or application/x-ndjson")),
    };
    if rows.len() > ROWS_LEN_MAX { Err(too_many()) } else { Ok(rows) }
}

async fn run(
    app: &Arc<App>,
    context: &Context,
    payload: &Payload<BULK_LEN_MAX>,
    rows: Vec<Box<str>>,
) -> Result<Response, ApiError> {
    let turn = app.idempotency.begin(app, context, &payload.bytes).await?;
    let done = turn.as_ref().map_or(0, |turn| turn.kept.len());
    let mut results = String::from("{\"results\":[");
    for kept in turn.iter().flat_map(|turn| &turn.kept) {
        push_results(&mut results, &String::from_utf8_lossy(&kept.answer));
    }
    let mut verdict = None;
    for (part, batch) in rows.chunks(BATCH_LEN).enumerate().skip(done) {
        let creates = batch.iter().filter(|row| !row.contains("\"action\"")).count();
        let (allowed, new_verdict) = app.take_creates(context, creates as u32);
        verdict = new_verdict.or(verdict);
        let checked = check_batch(app, context, batch, allowed, verdict).await;
        let now = app.clock.now();
        // Rows that were refused have their answer already; the others get theirs from the store.
        let mut answers = Vec::with_capacity(batch.len());
        let mut valid = Vec::with_capacity(batch.len());
        for row in checked {
            match row {
                Ok(row) => {
                    valid.push(row);
                    answers.push(None);
                }
                Err(error) => answers.push(Some(render_row(&refused(&error)))),
            }
        }
        let answers = Arc::new(answers);
        let receipt_app = app.clone();
        let outcomes = app
            .links
            .bulk(valid, |outcomes| {
                let (app, answers) = (receipt_app, answers.clone());
                turn.as_ref().map(|turn| {
                    turn.receipt(
                        part as u32,
                        Arc::new(move |written| {
                            Some(render_batch(&app, &answers, outcomes.of(written), now).into_bytes())
                        }),
                    )
                })
            })
            .await;
        match outcomes {
            Ok(outcomes) => push_results(&mut results, &render_batch(app, &answers, outcomes, now)),
            // What was committed before stays committed, and with an idempotency key a repeat goes on from here.
            Err(error) => return Err(error.into()),
        }
    }
    results.push_str("]}");
    tracing::info!(rows = rows.len(), "Wrote {} links in bulk", rows.len());
    let mut response = json_text_response(StatusCode::OK, results);
    if let Some(verdict) = verdict {
        add_rate_headers(response.headers_mut(), &verdict);
    }
    Ok(response)
}

fn push_results(results: &mut String, part: &str) {
    if !part.is_empty() && !results.ends_with('[') {
        results.push(',');
    }
    results.push_str(part);
}

/// Checks the rows of a batch; of those that create, the first `allowed` go on.
async fn check_batch(
    app: &Arc<App>,
    context: &Context,
    batch: &[Box<str>],
    mut allowed: u32,
    verdict: Option<crate::limit::Verdict>,
) -> Vec<Result<BulkRow, ApiError>> {
    let mut checked = Vec::with_capacity(batch.len());
    for row in batch {
        let is_create = !row.contains("\"action\"");
        let limited = verdict.filter(|_| is_create && allowed == 0);
        checked.push(match limited {
            Some(verdict) => {
                app.metrics.api_limited.inc();
                Err(ApiError::rate_limited(verdict))
            }
            None => check_row(app, context, row).await,
        });
        if is_create {
            allowed = allowed.saturating_sub(1);
        }
    }
    checked
}

async fn check_row(app: &Arc<App>, context: &Context, row: &str) -> Result<BulkRow, ApiError> {
    if !row.contains("\"action\"") {
        return check_create(app, context, row).await;
    }
    // The word may also stand in a title or an address, so it is looked at properly.
    let value: Value = parse_json(row.as_bytes())?;
    match value.get("action").map(Value::as_str) {
        None => check_create(app, context, row).await,
        Some(Some("update")) => {
            let row: UpdateRow = parse_json(row.as_bytes())?;
            let mut change = row.changes.check(app)?;
            if let Patch::Set(password) = change.password {
                change.password = Patch::Set(app.passwords.hash(password).await?);
            }
            Ok(BulkRow::Change(Box::new(ChangeLink {
                key: row_key(app, &row.short_code, row.domain.as_deref())?,
                actor: context.actor.clone(),
                based_on: row.revision.map(Revision),
                rule: rule(change),
            })))
        }
        Some(Some("delete")) => {
            let row: DeleteRow = parse_json(row.as_bytes())?;
            Ok(BulkRow::Delete(Box::new(DeleteLink {
                key: row_key(app, &row.short_code, row.domain.as_deref())?,
                actor: context.actor.clone(),
                token: None,
            })))
        }
        Some(_) => {
            Err(ApiError::invalid("action", "expected update or delete; leave it out to create a link"))
        }
    }
}

async fn check_create(app: &Arc<App>, context: &Context, row: &str) -> Result<BulkRow, ApiError> {
    debug_assert!(!matches!(context.actor, Actor::Anonymous), "a bulk call needs a key");
    let request: CreateLinkRequest = parse_json(row.as_bytes())?;
    let create = with_owner(app, request.check(app)?, context, None).await?;
    Ok(BulkRow::Create(Box::new(create)))
}

fn row_key(app: &App, code: &str, domain: Option<&str>) -> Result<LinkKey, ApiError> {
    let code = ShortCode::parse(code).map_err(|error| ApiError::invalid("short_code", error))?;
    Ok(LinkKey { domain: check_domain(domain, app)?, code })
}

/// The results of a batch, as the inside of a JSON array.
fn render_batch(app: &App, answers: &[Option<String>], outcomes: Vec<BulkOutcome>, now: Timestamp) -> String {
    let mut outcomes = outcomes.into_iter();
    let mut rendered = String::new();
    for answer in answers {
        let answer = match answer {
            Some(refused) => refused.clone(),
            None => {
                outcomes.next().map(|outcome| render_row(&row_answer(app, outcome, now))).unwrap_or_default()
            }
        };
        if !rendered.is_empty() {
            rendered.push(',');
        }
        rendered.push_str(&answer);
    }
    rendered
}

fn render_row(row: &RowAnswer) -> String {
    serde_json::to_string(row).expect("answers are JSON")
}

fn row_answer(app: &App, outcome: BulkOutcome, now: Timestamp) -> RowAnswer {
    let linked = |status: StatusCode, link| RowAnswer {
        status: status.as_u16(),
        link: Some(Box::new(LinkAnswer::of(app, link, now))),
        error: None,
    };
    match outcome {
        BulkOutcome::Created(Created::New(link)) => linked(StatusCode::CREATED, &link),
        BulkOutcome::Created(Created::Existing(link)) => linked(StatusCode::OK, &link),
        BulkOutcome::Created(Created::AliasTaken) => refused(&alias_taken()),
        BulkOutcome::Changed(Ok(link)) => linked(StatusCode::OK, &link),
        BulkOutcome::Deleted(Ok(())) => {
            RowAnswer { status: StatusCode::NO_CONTENT.as_u16(), link: None, error: None }
        }
        BulkOutcome::Changed(Err(error)) | BulkOutcome::Deleted(Err(error)) => refused(&error.into()),
    }
}

fn refused(error: &ApiError) -> RowAnswer {
    RowAnswer { status: error.code.status().as_u16(), link: None, error: Some(error.problem()) }
}
