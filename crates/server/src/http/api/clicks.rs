//! Raw clicks: pages of them, whole files, and their erasure.

use super::links::{Asked, ByCode};
use super::whose::{
    AskedBoth, Owners, Whose, check_range, from_time, link_of, number, owners, to_time, too_busy,
};
use super::{InPath, to_the_end};
use crate::app::App;
use crate::events::{Encoder, Event, Format, Names, OpenError, open};
use crate::http::auth::Context;
use crate::http::body::json_response;
use crate::http::error::{ApiError, ErrorCode, KeyProblems, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use terse_model::click::{Click, ClickId, Subject, VisitorHash};
use terse_model::click_store::{ClickScan, ClickVisitor};
use terse_model::stats::TimeZone;
use terse_model::store::StoreError;
use terse_model::tenant::Scope;
use terse_model::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use utoipa::{IntoParams, ToSchema};

/// Clicks on a page, by default and at most.
const PAGE_LEN: usize = 100;
const PAGE_LEN_MAX: usize = 1_000;
/// A file is sent in pieces of about this many bytes.
const PIECE_LEN: usize = 64 << 10;
/// Pieces that wait for a slow client.
const PIECES_LEN_MAX: usize = 4;
/// A client that takes nothing for so long is given up, and with it a thread of the store is free again.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a file that waits for its client looks whether the server stops.
const STOP_TICK: Duration = Duration::from_millis(250);
/// How long the answer's head waits for the first piece, to say 503 when the store fails at once.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// Which clicks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ClickListParams {
    /// From when on: an RFC 3339 time, or a date, which means 00:00 UTC of it.
    #[param(format = "past-time", example = "2030-01-01")]
    from: Option<String>,
    /// Until when: an RFC 3339 time, whose instant does not belong to it, or a UTC date, which does as a whole.
    #[param(format = "past-time", example = "2030-01-31")]
    to: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{1,12}(-[0-9a-f]{1,16}){4}$")]
    cursor: Option<String>,
    /// Clicks on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
}

/// A page of clicks.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClicksAnswer {
    /// Oldest first.
    #[schema(value_type = Vec<Event>)]
    pub clicks: Vec<Box<RawValue>>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// List the clicks of a link
///
/// Raw ones, as long as they are kept, oldest first. docs/events.md describes them.
#[utoipa::path(
    get, path = "/api/v1/urls/{code}/clicks", operation_id = "listClicks", tag = "Statistics",
    params(("code" = String, Path, description = "The short code"), ByCode, ClickListParams, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "A page", body = ClicksAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    AskedBoth(by, params): AskedBoth<ByCode, ClickListParams>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::StatsRead).await?;
    page(&app, Subject::Link(record.id()), params).await
}

/// List the clicks of many links
///
/// Of your own links, or of those with a tag or on a domain; for an admin also of somebody else's or of all.
#[utoipa::path(
    get, path = "/api/v1/clicks", operation_id = "listTenantClicks", tag = "Statistics",
    params(Whose, ClickListParams),
    responses(
        (status = 200, description = "A page", body = ClicksAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND: there is no such user", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn list_of_tenant(
    State(app): State<Arc<App>>,
    context: Context,
    AskedBoth(whose, params): AskedBoth<Whose, ClickListParams>,
) -> Result<Response, ApiError> {
    context.require(Scope::StatsRead)?;
    let subject = whose.subject(&app, &context).await?;
    page(&app, subject, params).await
}

/// Events of a page, and where they end.
#[derive(Default)]
struct Page {
    events: Vec<Box<RawValue>>,
    last: Option<(Timestamp, ClickId)>,
    has_more: bool,
}

async fn page(app: &App, subject: Subject, params: ClickListParams) -> Result<Response, ApiError> {
    let limit = number("limit", params.limit.as_deref(), PAGE_LEN, PAGE_LEN_MAX)?;
    let after = params.cursor.as_deref().map(|cursor| {
        parse_cursor(cursor).ok_or_else(|| ApiError::invalid("cursor", "is none that a list gave"))
    });
    let range = range(params.from.as_deref(), params.to.as_deref())?;
    let scan = ClickScan { subject, range, after: after.transpose()?, cancelled: Default::default() };
    let page = Arc::new(Mutex::new(Page::default()));
    let mut names = Names::new(app.instance.codes.clone(), app.domains.clone());
    let visit: ClickVisitor = {
        let page = page.clone();
        Box::new(move |click| {
            let mut page = page.lock().expect("no code panics under this lock");
            if page.events.len() == limit {
                page.has_more = true;
                return ControlFlow::Break(());
            }
            let event = serde_json::value::to_raw_value(&names.event(click)).expect("an event is JSON");
            page.events.push(event);
            page.last = Some((click.at, click.id));
            ControlFlow::Continue(())
        })
    };
    app.clicks.scan(scan, visit).await?;
    let page = std::mem::take(&mut *page.lock().expect("no code panics under this lock"));
    let next_cursor = page.last.filter(|_| page.has_more).map(|(at, id)| cursor(at, id));
    Ok(json_response(StatusCode::OK, &ClicksAnswer { clicks: page.events, next_cursor }))
}

/// Time and identity: nothing that the click itself doesn't say.
fn cursor(at: Timestamp, id: ClickId) -> String {
    format!("{:x}-{id}", at.as_millis().max(0))
}

fn parse_cursor(text: &str) -> Option<(Timestamp, ClickId)> {
    let (at, id) = text.split_once('-')?;
    let is_hex = (1..=12).contains(&at.len()) && at.bytes().all(|byte| byte.is_ascii_hexdigit());
    let millis = i64::from_str_radix(at, 16).ok().filter(|_| is_hex)?;
    Some((Timestamp::from_millis(millis), id.parse().ok()?))
}

/// The whole of time, unless something else is said.
fn range(from: Option<&str>, to: Option<&str>) -> Result<Range<Timestamp>, ApiError> {
    let from = from_time(from, &TimeZone::UTC)?.unwrap_or(Timestamp::from_millis(0));
    let to = to_time(to, &TimeZone::UTC)?.unwrap_or(Timestamp::MAX);
    check_range(from, to)?;
    Ok(from..to)
}

/// What to export.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportParams {
    /// What to write; otherwise NDJSON.
    #[param(inline, value_type = Option<WireFormat>)]
    format: Option<String>,
    /// From when on: an RFC 3339 time, or a date, which means 00:00 UTC of it.
    #[param(format = "past-time", example = "2030-01-01")]
    from: Option<String>,
    /// Until when: an RFC 3339 time, whose instant does not belong to it, or a UTC date, which does as a whole.
    #[param(format = "past-time", example = "2030-01-31")]
    to: Option<String>,
}

/// What a file is written as.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum WireFormat {
    /// A header line, then a line for each click.
    Csv,
    /// A JSON object on each line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// Export the clicks of a link
///
/// All raw ones that are kept, as a file, oldest first. A transfer that breaks off holds not all.
#[utoipa::path(
    get, path = "/api/v1/urls/{code}/clicks/export", operation_id = "exportClicks", tag = "Statistics",
    params(("code" = String, Path, description = "The short code"), ByCode, ExportParams, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "The file", content((ExportFile = "application/x-ndjson"), (ExportFile = "text/csv"), (ExportFile = "application/vnd.apache.parquet"))),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn export(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    AskedBoth(by, params): AskedBoth<ByCode, ExportParams>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::StatsRead).await?;
    let name = format!("clicks-{}", record.key().code);
    file(&app, Subject::Link(record.id()), &params, &name).await
}

/// Export the clicks of many links
///
/// Of your own links, or of those with a tag or on a domain; for an admin also of somebody else's or of all.
#[utoipa::path(
    get, path = "/api/v1/clicks/export", operation_id = "exportTenantClicks", tag = "Statistics",
    params(Whose, ExportParams),
    responses(
        (status = 200, description = "The file", content((ExportFile = "application/x-ndjson"), (ExportFile = "text/csv"), (ExportFile = "application/vnd.apache.parquet"))),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND: there is no such user", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn export_of_tenant(
    State(app): State<Arc<App>>,
    context: Context,
    AskedBoth(whose, params): AskedBoth<Whose, ExportParams>,
) -> Result<Response, ApiError> {
    context.require(Scope::StatsRead)?;
    let subject = whose.subject(&app, &context).await?;
    file(&app, subject, &params, "clicks").await
}

/// A file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct ExportFile(#[allow(dead_code, reason = "a schema only")] Vec<u8>);

/// What goes from the thread of the store to the answer. A channel that closes without `End` has lost something.
enum Piece {
    Data(Bytes),
    End,
    Failed(StoreError),
}

/// A file on its way: written by a thread of the store, as fast as its client takes it.
struct Outgoing {
    app: Arc<App>,
    encoder: Box<dyn Encoder>,
    names: Names,
    // Bounded: when it is full, the thread of the store waits for the client.
    pieces: mpsc::Sender<Piece>,
    // Runs the timers of a thread that has no runtime.
    runtime: Handle,
    is_broken: bool,
}

async fn file(
    app: &Arc<App>,
    subject: Subject,
    params: &ExportParams,
    name: &str,
) -> Result<Response, ApiError> {
    let format = params.format.as_deref().map(|name| {
        Format::parse(name).ok_or_else(|| ApiError::invalid("format", "expected csv, ndjson or parquet"))
    });
    let format = format.transpose()?.unwrap_or(Format::Ndjson);
    let scan = ClickScan {
        subject,
        range: range(params.from.as_deref(), params.to.as_deref())?,
        after: None,
        cancelled: Default::default(),
    };
    let encoder = open(format).map_err(|error| match error {
        OpenError::NotCompiledIn => ApiError::invalid("format", error),
        OpenError::Io(_) => {
            tracing::error!(error = ?error, "An export could not be begun: {error}");
            ApiError::new(ErrorCode::InternalError, "the file can't be begun")
        }
    })?;
    let slot = app.exports.clone().try_acquire_owned();
    let slot = slot.map_err(|_| too_busy("too many exports are under way; try again when one has ended"))?;
    let (pieces, mut received) = mpsc::channel(PIECES_LEN_MAX);
    let outgoing = Outgoing {
        app: app.clone(),
        encoder,
        names: Names::new(app.instance.codes.clone(), app.domains.clone()),
        pieces,
        runtime: app.background.clone(),
        is_broken: false,
    };
    app.background.spawn(async move {
        outgoing.run(scan).await;
        drop(slot);
    });
    let first = match timeout(FIRST_TIMEOUT, received.recv()).await {
        Ok(Some(Piece::Failed(error))) => return Err(error.into()),
        Ok(None) => return Err(ApiError::new(ErrorCode::Unavailable, "the export could not be begun")),
        Ok(first) => first,
        Err(_) => None,
    };
    let mut response = Response::new(Body::from_stream(body(first, received)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let attachment = format!("attachment; filename=\"{name}.{}\"", format.as_str());
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_str(&attachment).expect("a code is ASCII"));
    Ok(response)
}

/// The pieces as a body. It ends in an error unless the file is complete, so that no half of one looks like the whole.
fn body(
    first: Option<Piece>,
    received: mpsc::Receiver<Piece>,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((first, received), |(first, mut received)| async move {
        let piece = match first {
            Some(piece) => Some(piece),
            None => received.recv().await,
        };
        match piece {
            Some(Piece::Data(bytes)) => Ok(Some((bytes, (None, received)))),
            Some(Piece::End) => Ok(None),
            Some(Piece::Failed(error)) => Err(io::Error::other(error)),
            None => Err(io::Error::other("the export broke off")),
        }
    })
}

impl Outgoing {
    /// Reads, writes and sends the whole file.
    async fn run(self, scan: ClickScan) {
        let pieces = self.pieces.clone();
        let app = self.app.clone();
        // Shared with the visitor, which the store drops when it is through.
        let outgoing = Arc::new(Mutex::new(self));
        let visitor = outgoing.clone();
        let visit: ClickVisitor =
            Box::new(move |click| visitor.lock().expect("no code panics under this lock").visit(click));
        if let Err(error) = app.clicks.scan(scan, visit).await {
            tracing::error!(error = ?error, "An export broke off: {error}");
            let _ = timeout(STALL_TIMEOUT, pieces.send(Piece::Failed(error))).await;
            return;
        }
        let rest = outgoing.lock().expect("no code panics under this lock").finish();
        if let Some(rest) = rest {
            let send = async {
                if !rest.is_empty() {
                    let _ = pieces.send(Piece::Data(rest.into())).await;
                }
                let _ = pieces.send(Piece::End).await;
            };
            let _ = timeout(STALL_TIMEOUT, send).await;
        }
    }

    /// On a thread of the store.
    fn visit(&mut self, click: &Click<'_>) -> ControlFlow<()> {
        // A row group of Parquet is long in coming; a client that has hung up meanwhile needs none.
        if self.pieces.is_closed() {
            return self.give_up();
        }
        let Outgoing { encoder, names, .. } = self;
        let event: Event<'_> = names.event(click);
        if let Err(error) = encoder.add(&event) {
            tracing::error!(%error, "An export broke off: {error}");
            return self.give_up();
        }
        if self.encoder.ready() < PIECE_LEN {
            return ControlFlow::Continue(());
        }
        let piece = Piece::Data(self.encoder.take().into());
        if self.send(piece) { ControlFlow::Continue(()) } else { self.give_up() }
    }

    fn give_up(&mut self) -> ControlFlow<()> {
        self.is_broken = true;
        ControlFlow::Break(())
    }

    /// Waits for room. `false` when the client has hung up or takes nothing, or when the server stops.
    fn send(&self, piece: Piece) -> bool {
        let begin = Instant::now();
        let room = async {
            while begin.elapsed() < STALL_TIMEOUT && !self.app.stopping.load(Ordering::Relaxed) {
                if let Ok(permit) = timeout(STOP_TICK, self.pieces.reserve()).await {
                    return permit.ok();
                }
            }
            None
        };
        self.runtime.block_on(room).map(|permit| permit.send(piece)).is_some()
    }

    /// What the file ends with; `None` when it broke off.
    fn finish(&mut self) -> Option<Vec<u8>> {
        if self.is_broken {
            return None;
        }
        match self.encoder.finish() {
            Ok(()) => Some(self.encoder.take()),
            Err(error) => {
                tracing::error!(%error, "An export broke off: {error}");
                None
            }
        }
    }
}

/// What was erased.
#[derive(Debug, Serialize, ToSchema)]
pub struct EraseAnswer {
    /// Raw clicks that were removed.
    pub erased_events: u64,
}

/// Erase a link's clicks
///
/// Its statistics and raw clicks. Counts of its owner, its tags and its domain stay.
#[utoipa::path(
    delete, path = "/api/v1/urls/{code}/clicks", operation_id = "eraseClicks", tag = "Statistics",
    params(("code" = String, Path, description = "The short code"), ByCode, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "They are gone", body = EraseAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn erase(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    Asked(by): Asked<ByCode>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::LinksWrite).await?;
    to_the_end(async move {
        let erased_events = app.clicks.erase_link(record.id()).await?;
        tracing::info!(link.code = %record.key().code, "Erased the clicks of `{}`", record.key().code);
        Ok(json_response(StatusCode::OK, &EraseAnswer { erased_events }))
    })
    .await
}

/// Whose clicks to erase.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EraseVisitorParams {
    /// The visitor, as raw clicks tell it.
    #[param(value_type = String, pattern = "^[0-9a-f]{16}$")]
    visitor: Option<String>,
    /// On the links of this user, for an admin; otherwise on one's own.
    #[param(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    owner: Option<String>,
    /// `true` for everybody's links, for an admin. Not together with `owner`.
    #[param(value_type = Option<bool>)]
    everyone: Option<String>,
}

/// Erase a visitor's clicks
///
/// The raw ones, on your own links; for an admin also on somebody else's or on all. The days that they were in are counted
/// anew. A visitor has another identity each day.
#[utoipa::path(
    delete, path = "/api/v1/clicks", operation_id = "eraseVisitor", tag = "Statistics",
    params(EraseVisitorParams),
    responses(
        (status = 200, description = "They are gone", body = EraseAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND: there is no such user", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn erase_visitor(
    State(app): State<Arc<App>>,
    context: Context,
    Asked(params): Asked<EraseVisitorParams>,
) -> Result<Response, ApiError> {
    context.require(Scope::LinksWrite)?;
    let visitor = params.visitor.as_deref().ok_or_else(|| ApiError::invalid("visitor", "is missing"))?;
    let visitor = VisitorHash::parse(visitor).ok_or_else(|| {
        ApiError::invalid("visitor", "expected 16 hexadecimal digits, as raw clicks have them")
    })?;
    let owner = match owners(params.owner.as_deref(), params.everyone.as_deref(), &app, &context).await? {
        Owners::One(user) => Some(user),
        Owners::All => None,
    };
    to_the_end(async move {
        let erased_events = app.clicks.erase_visitor(visitor, owner).await?;
        tracing::info!(events = erased_events, "Erased the clicks of a visitor");
        Ok(json_response(StatusCode::OK, &EraseAnswer { erased_events }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[test]
    fn a_cursor_reads_back() {
        let id = ClickId { node: u64::MAX, lane: u16::MAX, segment: 7, offset: u32::MAX };
        for millis in [0, 1_800_000_000_000] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(parse_cursor(&cursor(at, id)), Some((at, id)));
        }
        for text in ["", "-", "1", "1-2-3-4", "x-1-2-3-4", "1-1-2-3-4-5", "+1-1-2-3-4", "1-1-10000-3-4"] {
            assert_eq!(parse_cursor(text), None, "{text}");
        }
    }

    async fn sent(pieces: Vec<Piece>) -> Vec<Option<Bytes>> {
        let (sender, received) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(piece).ok().unwrap();
        }
        drop(sender);
        body(None, received).map(Result::ok).collect().await
    }

    #[tokio::test]
    async fn only_a_whole_file_ends_well() {
        let data = || Piece::Data(Bytes::from_static(b"x"));
        let whole = Some(Bytes::from_static(b"x"));
        assert_eq!(sent(vec![data(), Piece::End]).await, std::slice::from_ref(&whole));
        assert_eq!(sent(vec![data()]).await, [whole.clone(), None]);
        assert_eq!(sent(vec![data(), Piece::Failed(StoreError::Timeout)]).await, [whole, None]);
        assert_eq!(sent(vec![]).await, [None]);
    }
}
