//! A link's count as it moves: server-sent events (WHATWG HTML, 9.2).

use super::InPath;
use super::links::{Asked, ByCode};
use super::whose::{link_of, too_busy};
use crate::app::App;
use crate::clicks::Watch;
use crate::http::auth::Context;
use crate::http::error::{ApiError, KeyProblems, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use terse_model::click::Totals;
use terse_model::store::StoreError;
use terse_model::tenant::Scope;
use tokio::time::{Instant, sleep, sleep_until};
use utoipa::ToSchema;

/// Between two counts at least. What a listener doesn't see in time is skipped, not kept for it.
const COUNT_PAUSE: Duration = Duration::from_millis(250);
/// Something is sent so often, so that proxies keep the connection, and that we notice when nobody listens any more.
const BEAT: Duration = Duration::from_secs(15);
/// How often it is looked whether the server stops.
const STOP_TICK: Duration = Duration::from_millis(250);
/// After how many milliseconds a listener comes back when the connection has ended.
const RETRY_MS: u32 = 2_000;

/// The data of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LiveCount {
    /// Clicks of people since the link was made.
    pub total_clicks: u64,
    /// Clicks of every kind.
    pub clicks_total_all: u64,
    /// Distinct visitors a UTC day, added over days.
    pub unique_visitors: u64,
}

impl From<Totals> for LiveCount {
    fn from(totals: Totals) -> Self {
        LiveCount { total_clicks: totals.human, clicks_total_all: totals.all, unique_visitors: totals.unique }
    }
}

/// Follow a link's count
///
/// Server-sent events: `event: clicks`, with `data` as below in JSON and the time in milliseconds as `id`. One at once,
/// then one when the count has changed, at most four a second. A comment line comes every 15 seconds.
#[utoipa::path(
    get, path = "/api/v1/urls/{code}/live", operation_id = "followClicks", tag = "Statistics",
    params(("code" = String, Path, description = "The short code"), ByCode, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "Events until the server stops or the client hangs up", body = LiveCount, content_type = "text/event-stream"),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn live(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    Asked(by): Asked<ByCode>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::StatsRead).await?;
    let watch = app.clicks.watch(record.id());
    let watch = watch
        .ok_or_else(|| too_busy("too many counts are followed right now; ask for statistics instead"))?;
    let mut counts = counts(watch).boxed();
    // A store that fails is told as such, rather than by a stream that ends at once.
    let first = counts.next().await.expect("a watch never ends")?;
    let now = {
        let app = app.clone();
        move || app.clock.now().as_millis()
    };
    let frames = frames(LiveCount::from(first), counts, now).take_until(stopped(app));
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect events until they fill a buffer.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The counts of a watch. As a stream, so that waiting for the next one can be given up and taken up again.
fn counts(watch: Watch) -> impl Stream<Item = Result<Totals, StoreError>> + Send {
    stream::unfold(watch, |mut watch| async move {
        let count = watch.next().await;
        Some((count, watch))
    })
}

/// Returns when the server stops, so that nobody who listens holds up its end.
async fn stopped(app: Arc<App>) {
    while !app.stopping.load(Ordering::Relaxed) {
        sleep(STOP_TICK).await;
    }
}

/// What is waited for.
struct Frames<N> {
    counts: BoxStream<'static, Result<Totals, StoreError>>,
    now: N,
    // To be sent at once.
    first: Option<LiveCount>,
    shown: LiveCount,
    last_frame: Instant,
}

/// The events and comments of a stream of counts. It ends when the store fails; the listener comes back by itself.
fn frames(
    first: LiveCount,
    counts: BoxStream<'static, Result<Totals, StoreError>>,
    now: impl Fn() -> i64 + Send,
) -> impl Stream<Item = Bytes> + Send {
    let frames = Frames { counts, now, first: Some(first), shown: first, last_frame: Instant::now() };
    stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        frames.last_frame = Instant::now();
        Some((frame, frames))
    })
}

impl<N: Fn() -> i64> Frames<N> {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(format!("retry: {RETRY_MS}\n{}", event(first, (self.now)())).into());
        }
        sleep_until(self.last_frame + COUNT_PAUSE).await;
        loop {
            tokio::select! {
                count = self.counts.next() => match count? {
                    Ok(totals) if LiveCount::from(totals) == self.shown => {}
                    Ok(totals) => {
                        self.shown = totals.into();
                        return Some(event(self.shown, (self.now)()).into());
                    }
                    Err(error) => {
                        tracing::warn!(error = ?error, "A count is not followed any further: {error}");
                        return None;
                    }
                },
                () = sleep_until(self.last_frame + BEAT) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

fn event(count: LiveCount, now: i64) -> String {
    let data = serde_json::to_string(&count).expect("a count is JSON");
    format!("event: clicks\ndata: {data}\nid: {now}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(human: u64) -> Totals {
        Totals { human, all: human + 1, unique: human / 2, first_day: None }
    }

    /// When each frame comes, in milliseconds, and what it says.
    async fn frames_of(
        counts: impl Stream<Item = Result<Totals, StoreError>> + Send + 'static,
        take: usize,
    ) -> Vec<(u128, String)> {
        let begin = Instant::now();
        let frames = frames(totals(4).into(), counts.boxed(), || 7);
        let frames =
            frames.map(|frame| (begin.elapsed().as_millis(), String::from_utf8(frame.to_vec()).unwrap()));
        frames.take(take).collect().await
    }

    fn clicks(human: u64) -> String {
        let all = human + 1;
        let unique = human / 2;
        format!(
            "event: clicks\ndata: {{\"total_clicks\":{human},\"clicks_total_all\":{all},\"unique_visitors\":{unique}}}\nid: 7\n\n"
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_comes_at_once_and_then_when_it_changes() {
        let later = stream::iter([totals(4), totals(5), totals(6)]).map(Ok).chain(stream::pending());
        let got = frames_of(later, 4).await;
        assert_eq!(got[0], (0, format!("retry: 2000\n{}", clicks(4))));
        assert_eq!(got[1], (250, clicks(5)), "the same count isn't sent twice, nor more than four a second");
        assert_eq!(got[2], (500, clicks(6)));
        assert_eq!(got[3], (15_500, ":\n\n".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_ends_the_stream() {
        let fails = stream::iter([Ok(totals(5)), Err(StoreError::Timeout), Ok(totals(6))]);
        assert_eq!(frames_of(fails, 9).await.len(), 2);
    }
}
