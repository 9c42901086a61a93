//! Counting days anew from their raw clicks.

use super::to_the_end_on;
use crate::app::App;
use crate::http::auth::Context;
use crate::http::body::{Payload, json_response};
use crate::http::error::{ApiError, BodyProblems, KeyProblems, Problem};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use terse_model::click::Day;
use terse_model::click_store::DayDifference;
use terse_model::stats::TimeZone;
use terse_model::tenant::Scope;
use terse_model::time::Timestamp;
use utoipa::ToSchema;

/// Days that are counted anew in one call.
const DAYS_LEN_MAX: i32 = 400;

/// Days to count anew.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReconcileRequest {
    /// The first day, a UTC date; otherwise the last one.
    #[schema(format = "recent-date", example = "2030-01-01")]
    pub from: Option<String>,
    /// The last day, a UTC date; otherwise yesterday.
    #[schema(format = "recent-date", example = "2030-01-31")]
    pub to: Option<String>,
}

/// What counting anew has changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReconcileAnswer {
    /// The days that were counted anew.
    pub days: Vec<DayAnswer>,
    /// Days that were left as they are, because not all of their raw clicks are kept.
    #[schema(value_type = Vec<String>)]
    pub left_out: Vec<String>,
}

/// What counting a day anew has changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct DayAnswer {
    /// The UTC date.
    #[schema(format = Date)]
    pub day: String,
    /// Clicks of every kind before.
    pub clicks_before: u64,
    /// Clicks of every kind now.
    pub clicks_after: u64,
    /// Clicks of people before.
    pub human_before: u64,
    /// Clicks of people now.
    pub human_after: u64,
    /// Clicks whose user agent is known as a bot's by now, or no longer.
    pub by_agent: u64,
    /// Clicks that are taken for a bot's because one visitor followed one link too often.
    pub by_rate: u64,
    /// Clicks that were kept twice.
    pub repeats: u64,
    /// Clicks that were counted and whose raw form was erased.
    pub erased: u64,
}

impl DayAnswer {
    fn of(day: Day, difference: &DayDifference) -> Self {
        DayAnswer {
            day: date(day),
            clicks_before: difference.all.0,
            clicks_after: difference.all.1,
            human_before: difference.human.0,
            human_after: difference.human.1,
            by_agent: difference.by_agent,
            by_rate: difference.by_rate,
            repeats: difference.repeats,
            erased: difference.erased,
        }
    }
}

fn date(day: Day) -> String {
    let start = day.start().to_string();
    start.split('T').next().unwrap_or_default().to_owned()
}

/// Count days anew
///
/// From their raw clicks, with what is known about bots today. Doing it again changes nothing more. For admins.
#[utoipa::path(
    post, path = "/api/v1/stats/reconcile", operation_id = "reconcileStats", tag = "Statistics",
    request_body = ReconcileRequest,
    responses(
        (status = 200, description = "What has changed", body = ReconcileAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        BodyProblems,
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn reconcile(
    State(app): State<Arc<App>>,
    context: Context,
    payload: Payload,
) -> Result<Response, ApiError> {
    context.require(Scope::Admin)?;
    let request: ReconcileRequest = payload.json()?;
    let (first, last) = request.check(app.clock.now())?;
    let background = app.background.clone();
    to_the_end_on(&background, async move {
        let counted = app.clicks.reconcile(first..last.next()).await?;
        let is_left_out = |day: &Day| counted.iter().all(|(counted, _)| counted != day);
        let answer = ReconcileAnswer {
            days: counted.iter().map(|(day, difference)| DayAnswer::of(*day, difference)).collect(),
            left_out: (first.0..=last.0).map(Day).filter(is_left_out).map(date).collect(),
        };
        tracing::info!(days = answer.days.len(), "Counted {} days anew", answer.days.len());
        Ok(json_response(StatusCode::OK, &answer))
    })
    .await
}

impl ReconcileRequest {
    /// The first and the last day.
    fn check(self, now: Timestamp) -> Result<(Day, Day), ApiError> {
        let day = |field, text: String| match TimeZone::UTC.date_start(&text) {
            Some(start) => Ok(Day::of(start)),
            None => Err(ApiError::invalid(field, "expected a date such as 2030-01-31")),
        };
        let last = self.to.map(|text| day("to", text)).transpose()?.unwrap_or(Day(Day::of(now).0 - 1));
        let first = self.from.map(|text| day("from", text)).transpose()?.unwrap_or(last);
        if last > Day::of(now) {
            return Err(ApiError::invalid("to", "must not lie in the future"));
        }
        if first > last {
            return Err(ApiError::invalid("from", "must not lie after `to`"));
        }
        if last.0 - first.0 >= DAYS_LEN_MAX {
            return Err(ApiError::invalid("from", format!("at most {DAYS_LEN_MAX} days in one call")));
        }
        Ok((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_to_count_anew_are_dates_that_are_over_or_today() {
        let now = Timestamp::parse("2027-01-15T08:10:00Z").unwrap();
        let check = |from: Option<&str>, to: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let days = ReconcileRequest { from: text(from), to: text(to) }.check(now);
            days.map(|(first, last)| format!("{} {}", date(first), date(last)))
                .map_err(|error| error.field.unwrap())
        };
        assert_eq!(check(None, None).unwrap(), "2027-01-14 2027-01-14");
        assert_eq!(check(Some("2027-01-01"), None).unwrap(), "2027-01-01 2027-01-14");
        assert_eq!(check(None, Some("2027-01-15")).unwrap(), "2027-01-15 2027-01-15");
        assert_eq!(check(Some("2025-12-12"), Some("2027-01-15")).unwrap(), "2025-12-12 2027-01-15");
        assert_eq!(check(Some("2025-12-11"), Some("2027-01-15")).unwrap_err(), "from");
        assert_eq!(check(None, Some("2027-01-16")).unwrap_err(), "to");
        assert_eq!(check(Some("2027-01-15"), None).unwrap_err(), "from");
        assert_eq!(check(Some("2027-01-01T00:00:00Z"), None).unwrap_err(), "from");
        assert_eq!(check(Some("2027-02-30"), None).unwrap_err(), "from");
    }
}
