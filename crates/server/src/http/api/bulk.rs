//! POST /api/v1/urls/bulk: create, change and delete many links in one call.

use super::links::{alias_taken, hash_password, require_password_right, with_owner};
use super::to_the_end_on;
use super::wire::{
    ChangeLinkRequest, CheckedChange, CheckedCreate, CreateLinkRequest, LinkAnswer, check_domain, rule,
};
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{
    BULK_LEN_MAX, MediaType, Payload, json_text_response, parse_json, parse_object, unsupported,
};
use crate::http::error::{
    ApiError, BodyProblems, ErrorCode, KeyProblems, Problem, REQUEST_ID, add_rate_headers, request_id,
};
use crate::limit::Verdict;
use crate::links::bulk::{BulkOutcome, BulkRow};
use crate::links::change::ChangeLink;
use crate::links::create::Created;
use crate::links::delete::DeleteLink;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use terse_model::code::ShortCode;
use terse_model::link::{LinkKey, Revision};
use terse_model::tenant::{Actor, Scope};
use terse_model::time::Timestamp;
use utoipa::ToSchema;

/// Rows that one call takes.
pub const ROWS_LEN_MAX: usize = 100_000;
/// Rows that a call with an idempotency key commits at once.
pub const KEPT_BATCH_LEN: usize = 2_500;

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
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
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
/// A JSON array, or NDJSON with a row a line: up to 100,000 rows and 64 MiB. Rows are committed in batches, of 2,500
/// unless configured otherwise; a row that is refused does not stop the others. With an `Idempotency-Key`, a repeat of
/// a call that broke off goes on where it stopped.
#[utoipa::path(
    post, path = "/api/v1/urls/bulk", operation_id = "bulkLinks", tag = "Links",
    request_body(content((Vec<BulkRowRequest> = "application/json"))),
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeat a request safely", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 200, description = "A result for each row, in their order", body = BulkAnswer),
        (status = 400, description = "VALIDATION_ERROR: the body is no list of rows", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        BodyProblems,
        (status = 422, description = "IDEMPOTENCY_MISMATCH", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn bulk(
    State(app): State<Arc<App>>,
    context: Context,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the body, which is long: nobody else may make us hold it.
    context.require(Scope::LinksWrite)?;
    let payload = Payload::<BULK_LEN_MAX>::from_request(request, &app).await?;
    let background = app.background.clone();
    to_the_end_on(&background, async move { run(&app, &context, &payload).await }).await
}

/// The rows of a body as JSON texts. A line that is no JSON is a mistake of its own row; an array must be one.
fn split_rows(payload: &Payload<BULK_LEN_MAX>) -> Result<Vec<Bytes>, ApiError> {
    let rows: Vec<Bytes> = match payload.media_type {
        MediaType::Json => {
            let Rows(rows) = parse_json(&payload.bytes)?;
            rows.iter().map(|row| Bytes::copy_from_slice(row.get().as_bytes())).collect()
        }
        MediaType::Ndjson => {
            let lines = payload.bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let rows = lines.filter(|line| !line.is_empty()).take(ROWS_LEN_MAX + 1);
            rows.map(|row| payload.bytes.slice_ref(row)).collect()
        }
        _ => return Err(unsupported("application/json or application/x-ndjson")),
    };
    if rows.len() > ROWS_LEN_MAX {
        let detail = format!("one call takes at most {ROWS_LEN_MAX} rows");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, detail));
    }
    Ok(rows)
}

/// The rows of an array. One more than a call takes is kept, and no further ones: millions fit into a body.
struct Rows(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = elements.next_element()? {
                    if rows.len() <= ROWS_LEN_MAX {
                        rows.push(row);
                    }
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

async fn run(
    app: &Arc<App>,
    context: &Context,
    payload: &Payload<BULK_LEN_MAX>,
) -> Result<Response, ApiError> {
    let rows = split_rows(payload)?;
    let turn = app.idempotency.begin(app, context, &payload.bytes).await?;
    let kept = turn.as_ref().map_or(&[][..], |turn| &turn.kept);
    let kept_of = |part: usize| kept.binary_search_by_key(&(part as u32), |kept| kept.part).ok();
    // Answers are kept by batches, which must be the same for a repeat whatever is configured by then.
    let batch_len = if turn.is_some() { KEPT_BATCH_LEN } else { app.config.store.batch_len };
    let check = |part: usize| -> Option<Vec<_>> {
        let batch = rows.chunks(batch_len).nth(part).filter(|_| kept_of(part).is_none())?;
        Some(batch.iter().map(|row| check_row(app, context, row)).collect())
    };
    let mut results = String::from("{\"results\":[");
    let mut verdict = None;
    let mut next = check(0);
    // What was written last, and is rendered while the store writes what follows.
    let mut written: Option<Written> = None;
    for part in 0..rows.len().div_ceil(batch_len) {
        let Some(checked) = next.take().or_else(|| check(part)) else {
            written.take().into_iter().for_each(|written| push_results(&mut results, &written.render(app)));
            let kept = kept_of(part).map(|at| String::from_utf8_lossy(&kept[at].answer));
            push_results(&mut results, &kept.unwrap_or_default());
            continue;
        };
        // As for a call of its own, a row that is wrong takes nothing of the limit.
        let creates = checked.iter().filter(|row| matches!(row, Ok(CheckedRow::Create(_)))).count();
        let (allowed, new_verdict) = app.take_creates(context, creates as u32);
        verdict = new_verdict.or(verdict);
        let checked = finish_batch(app, context, checked, allowed, verdict).await;
        let now = app.clock.now();
        // Rows that were refused have their answer already; the others get theirs from the store.
        let mut answers = Vec::with_capacity(checked.len());
        let mut valid = Vec::with_capacity(checked.len());
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
        let (receipt_app, request_id) = (app.clone(), request_id());
        let writing = app.links.bulk(valid, |outcomes| {
            let (app, answers) = (receipt_app, answers.clone());
            turn.as_ref().map(|turn| {
                turn.receipt(
                    part as u32,
                    Arc::new(move |written| {
                        // The store calls this on a thread of its own, which answers no request.
                        let render = || render_batch(&app, &answers, outcomes.of(written), now);
                        // Where nothing was asked of the store, a repeat may as well ask again.
                        let is_kept = !written.is_empty();
                        is_kept.then(|| REQUEST_ID.sync_scope(request_id.clone(), render).into_bytes())
                    }),
                )
            })
        });
        let meanwhile = async {
            written.take().into_iter().for_each(|written| push_results(&mut results, &written.render(app)));
            next = check(part + 1);
        };
        // In this order, so that the store's thread has its work before this one goes on.
        let (outcomes, ()) = tokio::join!(biased; writing, meanwhile);
        // What was committed before stays committed, and with an idempotency key a repeat goes on from here.
        written = Some(Written { answers, outcomes: outcomes?, now });
    }
    written.into_iter().for_each(|written| push_results(&mut results, &written.render(app)));
    results.push_str("]}");
    tracing::info!(rows = rows.len(), "Wrote {} links in bulk", rows.len());
    let mut response = json_text_response(StatusCode::OK, results);
    if !kept.is_empty() && kept.len() * batch_len >= rows.len() {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    if let Some(verdict) = verdict {
        add_rate_headers(response.headers_mut(), &verdict);
    }
    Ok(response)
}

/// A batch that was written, and the answers of its rows that were refused before.
struct Written {
    answers: Arc<Vec<Option<String>>>,
    outcomes: Vec<BulkOutcome>,
    now: Timestamp,
}

impl Written {
    fn render(self, app: &App) -> String {
        render_batch(app, &self.answers, self.outcomes, self.now)
    }
}

fn push_results(results: &mut String, part: &str) {
    if !part.is_empty() && !results.ends_with('[') {
        results.push(',');
    }
    results.push_str(part);
}

/// A row that is right as far as can be told without a store; passwords are still to be hashed.
enum CheckedRow {
    Create(Box<CheckedCreate>),
    Change { key: LinkKey, based_on: Option<Vec<Revision>>, change: Box<CheckedChange> },
    Delete { key: LinkKey },
}

/// Makes rows ready to be written; of those that create, the first `allowed` go on.
async fn finish_batch(
    app: &Arc<App>,
    context: &Context,
    checked: Vec<Result<CheckedRow, ApiError>>,
    mut allowed: u32,
    verdict: Option<Verdict>,
) -> Vec<Result<BulkRow, ApiError>> {
    let mut finished = Vec::with_capacity(checked.len());
    // Links that rows of this batch may make before others change them.
    let mut made = HashSet::new();
    for row in checked {
        if let Ok(CheckedRow::Create(create)) = &row {
            made.extend(
                create.alias.clone().map(|alias| LinkKey { domain: create.domain, code: alias.into_code() }),
            );
        }
        let is_create = matches!(row, Ok(CheckedRow::Create(_)));
        let limited = verdict.filter(|_| is_create && allowed == 0);
        finished.push(match (limited, row) {
            (Some(verdict), _) => {
                app.metrics.api_limited.inc();
                Err(ApiError::rate_limited(verdict))
            }
            (None, Ok(row)) => finish_row(app, context, row, &made).await,
            (None, Err(error)) => Err(error),
        });
        if is_create {
            allowed = allowed.saturating_sub(1);
        }
    }
    finished
}

fn check_row(app: &App, context: &Context, row: &[u8]) -> Result<CheckedRow, ApiError> {
    debug_assert!(!matches!(context.actor, Actor::Anonymous), "a bulk call needs a key");
    let text = std::str::from_utf8(row)
        .map_err(|_| ApiError::new(ErrorCode::ValidationError, "the row is not UTF-8"))?;
    let check_create = || -> Result<CheckedRow, ApiError> {
        let request: CreateLinkRequest = parse_object(row)?;
        Ok(CheckedRow::Create(Box::new(request.check(app)?)))
    };
    if !text.contains("\"action\"") {
        return check_create();
    }
    // The word may also stand in a title or a tag, so it is looked at properly.
    let value: Value = parse_json(row)?;
    match value.get("action").map(Value::as_str) {
        None => check_create(),
        Some(Some("update")) => {
            if value.get("changes").is_some_and(|changes| !changes.is_object()) {
                return Err(ApiError::invalid("changes", "expected a JSON object, `{ … }`"));
            }
            let row: UpdateRow = parse_object(row)?;
            Ok(CheckedRow::Change {
                key: row_key(app, &row.short_code, row.domain.as_deref())?,
                based_on: row.revision.map(|revision| vec![Revision(revision)]),
                change: Box::new(row.changes.check(app)?),
            })
        }
        Some(Some("delete")) => {
            let row: DeleteRow = parse_object(row)?;
            Ok(CheckedRow::Delete { key: row_key(app, &row.short_code, row.domain.as_deref())? })
        }
        Some(_) => {
            Err(ApiError::invalid("action", "expected update or delete; leave it out to create a link"))
        }
    }
}

async fn finish_row(
    app: &App,
    context: &Context,
    row: CheckedRow,
    made: &HashSet<LinkKey>,
) -> Result<BulkRow, ApiError> {
    let actor = context.actor.clone();
    Ok(match row {
        CheckedRow::Create(create) => {
            BulkRow::Create(Box::new(with_owner(app, *create, context, None).await?))
        }
        CheckedRow::Change { key, based_on, mut change } => {
            if !made.contains(&key) {
                require_password_right(app, context, &key, &change).await?;
            }
            hash_password(app, &mut change).await?;
            BulkRow::Change(Box::new(ChangeLink { key, actor, based_on, rule: rule(*change) }))
        }
        CheckedRow::Delete { key } => BulkRow::Delete(Box::new(DeleteLink { key, actor, token: None })),
    })
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
    // Clicks are asked of a store of their own, and an answer is rendered inside the transaction of its links.
    let linked = |status: StatusCode, link, clicks| RowAnswer {
        status: status.as_u16(),
        link: Some(Box::new(LinkAnswer::of(app, link, now, clicks))),
        error: None,
    };
    match outcome {
        BulkOutcome::Created(Created::New(link)) => linked(StatusCode::CREATED, &link, Some(0)),
        BulkOutcome::Created(Created::Existing(link)) => linked(StatusCode::OK, &link, None),
        BulkOutcome::Created(Created::AliasTaken) => refused(&alias_taken()),
        BulkOutcome::Changed(Ok(link)) => linked(StatusCode::OK, &link, None),
        BulkOutcome::Deleted(Ok(())) => {
            RowAnswer { status: StatusCode::NO_CONTENT.as_u16(), link: None, error: None }
        }
        BulkOutcome::Changed(Err(error)) | BulkOutcome::Deleted(Err(error)) => refused(&error.into()),
    }
}

fn refused(error: &ApiError) -> RowAnswer {
    RowAnswer { status: error.code.status().as_u16(), link: None, error: Some(error.problem()) }
}
