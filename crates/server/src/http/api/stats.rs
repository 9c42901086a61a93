//! Statistics: of a link, and of many links together.

use super::InPath;
use super::links::ByCode;
use super::whose::{AskedBoth, Whose, check_range, from_time, link_of, number, time_zone, to_time};
use crate::app::App;
use crate::clicks::StatsError;
use crate::http::auth::Context;
use crate::http::body::json_response;
use crate::http::error::{ApiError, KeyProblems, Problem};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use terse_model::click::{Country, Day, Device, Dimension, Kind, QUARTER_MILLIS, Subject};
use terse_model::link::LinkRecord;
use terse_model::stats::{
    Filter, Granularity, Group, GroupBy, KindFilter, Stats, StatsQuery, TimeBucket, TimeZone, Unique,
    ValueCount,
};
use terse_model::tenant::Scope;
use terse_model::time::Timestamp;
use utoipa::{IntoParams, ToSchema};

/// Values in a list, by default and at most.
const VALUES_LEN: usize = 10;
const VALUES_LEN_MAX: usize = 200;
/// More values than there are countries.
const COUNTRIES_LEN_MAX: usize = 1_000;
/// Longest name of a browser, an operating system or a host, in characters.
const NAME_LEN_MAX: usize = 253;
/// Longest language, in characters.
const LANGUAGE_LEN_MAX: usize = 35;

const DAY_MILLIS: i64 = 86_400_000;
/// Ranges up to this long are shown by the hour, and by the day, unless something else is asked for.
const HOURLY_MILLIS_MAX: i64 = 3 * DAY_MILLIS;
const DAILY_MILLIS_MAX: i64 = 400 * DAY_MILLIS;
/// How far back a series by the hour goes when nobody says from when: less than 20,000 buckets.
const HOURLY_LIFE_MILLIS: i64 = 800 * DAY_MILLIS;

/// Which clicks, and how they are counted together.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsParams {
    /// From when on: an RFC 3339 time, or a date, which means 00:00 of it in the time zone. Otherwise since the first
    /// click; by the hour, since 800 days at most.
    #[param(format = "past-time", example = "2030-01-01")]
    from: Option<String>,
    /// Until when: an RFC 3339 time, which is not counted itself, or a date, which is counted as a whole. Otherwise until
    /// now, that is the end of the current day, or by the hour that of the current quarter of an hour.
    #[param(format = "past-time", example = "2030-01-31")]
    to: Option<String>,
    /// Whose days and hours: an IANA name, or an offset such as `+05:30`.
    #[param(format = "time-zone", default = "UTC", example = "Europe/Zurich")]
    timezone: Option<String>,
    /// The width of the series' buckets. Otherwise an hour up to 3 days, a day up to 400 days, else a month.
    #[param(inline, value_type = Option<WireGranularity>)]
    granularity: Option<String>,
    /// A series for each of these, too.
    #[param(inline, value_type = Option<WireGroupBy>)]
    group_by: Option<String>,
    /// Which kind of clicks the lists and the series count; otherwise those of people.
    #[param(inline, value_type = Option<WireKind>)]
    kind: Option<String>,
    /// Only clicks from this country: two letters, or `unknown`.
    #[param(pattern = "^([A-Za-z]{2}|unknown|other)$")]
    country: Option<String>,
    /// Only clicks by this device.
    #[param(inline, value_type = Option<WireDevice>)]
    device: Option<String>,
    /// Only clicks by the browser of this name, as answers give it.
    #[param(min_length = 1, max_length = 253)]
    browser: Option<String>,
    /// Only clicks from the operating system of this name, as answers give it.
    #[param(min_length = 1, max_length = 253)]
    os: Option<String>,
    /// Only clicks of browsers that ask for this language first, such as `de-ch`, or `unknown`.
    #[param(pattern = "^[A-Za-z0-9-]{1,35}$")]
    language: Option<String>,
    /// Only clicks from pages of this host, or `direct`.
    #[param(min_length = 1, max_length = 253)]
    referrer: Option<String>,
    /// Values in each list; the rest is one more entry, `other`.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 10)]
    limit: Option<String>,
}

/// The width of a bucket.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum WireGranularity {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A month.
    Month,
}

/// What groups are made by.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum WireGroupBy {
    /// The host of the page that linked here.
    Referrer,
    /// The country.
    Country,
    /// The device.
    Device,
    /// The browser.
    Browser,
    /// The operating system.
    Os,
    /// The language.
    Language,
    /// The kind of click.
    Kind,
}

/// Which kind of clicks.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum WireKind {
    /// People.
    Human,
    /// Every kind.
    All,
    /// Crawlers and programs.
    Bot,
    /// Services that show what a link leads to.
    Preview,
    /// Browsers that fetch ahead.
    Prefetch,
    /// HEAD requests.
    Head,
}

/// A device.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "a schema only")]
pub enum WireDevice {
    /// The user agent doesn't tell.
    Unknown,
    /// A computer.
    Desktop,
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A television.
    Tv,
    /// A game console.
    Console,
}

/// Statistics of a link.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinkStatsAnswer {
    /// The link.
    #[schema(example = "https://go.example.com/f3Kq9Zx")]
    pub short_url: String,
    /// Its code.
    #[schema(example = "f3Kq9Zx")]
    pub short_code: String,
    /// What was counted.
    #[serde(flatten)]
    pub stats: StatsAnswer,
}

/// What was counted. The lists, the series and the groups each add up to `clicks`.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatsAnswer {
    /// From this instant on.
    #[schema(format = DateTime)]
    pub from: String,
    /// Until before this one.
    #[schema(format = DateTime)]
    pub to: String,
    /// Whose days and hours.
    #[schema(example = "Europe/Zurich")]
    pub timezone: String,
    /// The width of the series' buckets: `hour`, `day`, `week` or `month`.
    #[schema(example = "day")]
    pub granularity: &'static str,
    /// Clicks of people.
    pub total_clicks: u64,
    /// Clicks of every kind.
    pub clicks_total_all: u64,
    /// Clicks of the kind that was asked for; those of people if none was.
    pub clicks: u64,
    /// Distinct visitors a UTC day, added over days, of the clicks of people; null when they can't be told.
    pub unique_visitors: Option<u64>,
    /// The standard error of `unique_visitors` as a fraction; 0 when they were counted exactly.
    #[schema(example = 0.016)]
    pub unique_visitors_error: Option<f64>,
    /// Why `unique_visitors` is null.
    pub unique_visitors_reason: Option<&'static str>,
    /// Clicks by kind.
    pub clicks_by_kind: ByKind,
    /// The series; null for a reason that is in `notes`.
    pub clicks_over_time: Option<Vec<BucketAnswer>>,
    /// Hosts of the pages that linked here; `direct` when none was told.
    pub top_referrers: Vec<ValueAnswer>,
    /// Countries by ISO 3166-1 alpha-2; or `unknown`.
    pub top_countries: Vec<ValueAnswer>,
    /// Devices.
    pub devices: Vec<ValueAnswer>,
    /// Browsers.
    pub browsers: Vec<ValueAnswer>,
    /// Operating systems.
    pub os: Vec<ValueAnswer>,
    /// Languages.
    pub languages: Vec<ValueAnswer>,
    /// A series for each value, if `group_by` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub groups: Option<Vec<GroupAnswer>>,
    /// Figures before this instant are final; later ones may change when days are counted anew. Null: all may.
    #[schema(format = DateTime)]
    pub final_before: Option<String>,
    /// What is not exact, and why: sentences for people.
    pub notes: Vec<String>,
}

/// Clicks by kind.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ByKind {
    /// People.
    pub human: u64,
    /// Crawlers and programs.
    pub bot: u64,
    /// Services that show what a link leads to.
    pub preview: u64,
    /// Browsers that fetch ahead.
    pub prefetch: u64,
    /// HEAD requests.
    pub head: u64,
}

/// A bucket of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct BucketAnswer {
    /// Its first instant, with the time zone's offset.
    #[schema(format = DateTime)]
    pub start: String,
    /// Its clicks.
    pub clicks: u64,
}

/// A value.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValueAnswer {
    /// The value; `other` for all that are not listed.
    pub value: String,
    /// Its clicks.
    pub clicks: u64,
}

/// A value with a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupAnswer {
    /// The value; `other` for all that are not listed.
    pub value: String,
    /// Its clicks.
    pub clicks: u64,
    /// Its series; null for a reason that is in `notes`.
    pub clicks_over_time: Option<Vec<BucketAnswer>>,
}

/// Statistics of a link
///
/// Also of a link that was deleted. Clicks show up within about a second.
#[utoipa::path(
    get, path = "/api/v1/urls/{code}/stats", operation_id = "linkStats", tag = "Statistics",
    params(("code" = String, Path, description = "The short code"), ByCode, StatsParams, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "What was counted", body = LinkStatsAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn of_link(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    AskedBoth(by, params): AskedBoth<ByCode, StatsParams>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::StatsRead).await?;
    let stats = answer(&app, &Subject::Link(record.id()), params).await?;
    let answer = LinkStatsAnswer {
        short_url: short_url(&app, &record),
        short_code: record.key().code.to_string(),
        stats,
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Statistics of many links
///
/// Of your own links together, or of those with a tag or on a domain; for an admin also of somebody else's or of all.
#[utoipa::path(
    get, path = "/api/v1/stats", operation_id = "tenantStats", tag = "Statistics",
    params(Whose, StatsParams),
    responses(
        (status = 200, description = "What was counted", body = StatsAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND: there is no such user", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn of_tenant(
    State(app): State<Arc<App>>,
    context: Context,
    AskedBoth(whose, params): AskedBoth<Whose, StatsParams>,
) -> Result<Response, ApiError> {
    context.require(Scope::StatsRead)?;
    let subject = whose.subject(&app, &context).await?;
    Ok(json_response(StatusCode::OK, &answer(&app, &subject, params).await?))
}

fn short_url(app: &App, record: &LinkRecord) -> String {
    let key = record.key();
    format!("{}/{}", app.domains.base_of(key.domain), key.code)
}

async fn answer(app: &App, subject: &Subject, params: StatsParams) -> Result<StatsAnswer, ApiError> {
    let timezone = params.timezone.clone().unwrap_or_else(|| "UTC".to_owned());
    let checked = params.check()?;
    let first_day = match checked.from {
        Some(_) => None,
        None => app.clicks.totals(vec![subject.clone()]).await?.first().and_then(|totals| totals.first_day),
    };
    let query = checked.query(first_day, app.clock.now())?;
    let (from, to, granularity) = (query.from, query.to, query.granularity);
    let stats = app.clicks.stats(subject, query).await?;
    Ok(StatsAnswer::of(stats, from, to, timezone, granularity))
}

impl From<StatsError> for ApiError {
    fn from(error: StatsError) -> Self {
        match error {
            StatsError::TooManyBuckets(error) => ApiError::invalid("granularity", error),
            StatsError::Store(error) => error.into(),
        }
    }
}

/// Parameters that are right as far as can be told without statistics.
#[derive(Debug)]
struct CheckedParams {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    timezone: TimeZone,
    granularity: Option<Granularity>,
    group_by: Option<GroupBy>,
    filter: Filter,
    limit: usize,
}

impl StatsParams {
    fn check(self) -> Result<CheckedParams, ApiError> {
        let timezone = time_zone(self.timezone.as_deref())?;
        let (from, to) =
            (from_time(self.from.as_deref(), &timezone)?, to_time(self.to.as_deref(), &timezone)?);
        if let (Some(from), Some(to)) = (from, to) {
            check_range(from, to)?;
        }
        let one_of = |field, expected: &str| ApiError::invalid(field, format!("expected {expected}"));
        let granularity = self
            .granularity
            .as_deref()
            .map(|name| granularity(name).ok_or_else(|| one_of("granularity", "hour, day, week or month")));
        let group_by = self.group_by.as_deref().map(|name| match name {
            "kind" => Ok(GroupBy::Kind),
            name => Dimension::parse(name).map(GroupBy::Dimension).ok_or_else(|| {
                one_of("group_by", "referrer, country, device, browser, os, language or kind")
            }),
        });
        let kind = match self.kind.as_deref() {
            None => KindFilter::Human,
            Some("all") => KindFilter::All,
            Some(name) => match Kind::parse(name) {
                Some(Kind::Human) => KindFilter::Human,
                Some(kind) => KindFilter::One(kind),
                None => return Err(one_of("kind", "human, all, bot, preview, prefetch or head")),
            },
        };
        let values = [
            (Dimension::Referrer, self.referrer),
            (Dimension::Country, self.country),
            (Dimension::Device, self.device),
            (Dimension::Browser, self.browser),
            (Dimension::Os, self.os),
            (Dimension::Language, self.language),
        ];
        let values = values.into_iter().filter_map(|(dimension, value)| Some((dimension, value?)));
        let values = values.map(|(dimension, value)| Ok((dimension, check_value(dimension, value)?)));
        Ok(CheckedParams {
            from,
            to,
            timezone,
            granularity: granularity.transpose()?,
            group_by: group_by.transpose()?,
            filter: Filter { kind, values: values.collect::<Result<_, ApiError>>()? },
            limit: number("limit", self.limit.as_deref(), VALUES_LEN, VALUES_LEN_MAX)?,
        })
    }
}

/// A value as answers write it, if a click can have it.
fn check_value(dimension: Dimension, value: String) -> Result<String, ApiError> {
    let refuse = |expected: &str| Err(ApiError::invalid(dimension.as_str(), format!("expected {expected}")));
    let length = value.chars().count();
    let is_rest = matches!(value.as_str(), "unknown" | "other");
    match dimension {
        Dimension::Country if is_rest => Ok(value),
        Dimension::Country => match Country::parse(&value) {
            Some(country) => Ok(country.as_str().to_owned()),
            None => refuse("two letters of ISO 3166-1, such as CH, or unknown"),
        },
        Dimension::Device if Device::parse(&value).is_some() => Ok(value),
        Dimension::Device => refuse("desktop, mobile, tablet, tv, console or unknown"),
        Dimension::Language => {
            let fits = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let fits = fits && (1..=LANGUAGE_LEN_MAX).contains(&length);
            if fits { Ok(value.to_ascii_lowercase()) } else { refuse("a language such as de-ch, or unknown") }
        }
        Dimension::Referrer if !(1..=NAME_LEN_MAX).contains(&length) => {
            refuse(&format!("a host of 1 to {NAME_LEN_MAX} characters, or direct"))
        }
        Dimension::Referrer => Ok(value.to_ascii_lowercase()),
        Dimension::Browser | Dimension::Os if !(1..=NAME_LEN_MAX).contains(&length) => {
            refuse(&format!("a name of 1 to {NAME_LEN_MAX} characters, or unknown"))
        }
        Dimension::Browser | Dimension::Os => Ok(value),
    }
}

fn granularity(name: &str) -> Option<Granularity> {
    match name {
        "hour" => Some(Granularity::Hour),
        "day" => Some(Granularity::Day),
        "week" => Some(Granularity::Week),
        "month" => Some(Granularity::Month),
        _ => None,
    }
}

fn granularity_name(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Hour => "hour",
        Granularity::Day => "day",
        Granularity::Week => "week",
        Granularity::Month => "month",
    }
}

impl CheckedParams {
    /// The query, with what was left open decided.
    fn query(self, first_day: Option<Day>, now: Timestamp) -> Result<StatsQuery, ApiError> {
        let zone = &self.timezone;
        let day_end = self.to.unwrap_or_else(|| zone.next_day_start(now));
        let last = Timestamp::from_millis(day_end.as_millis() - 1);
        let life_start = || {
            let first = first_day.map(Day::start).filter(|first| *first < day_end).unwrap_or(last);
            zone.start_of_day(first)
        };
        let from = self.from.unwrap_or_else(life_start);
        let length = day_end.as_millis() - from.as_millis();
        let by_length = match length {
            _ if length <= HOURLY_MILLIS_MAX => Granularity::Hour,
            _ if length <= DAILY_MILLIS_MAX => Granularity::Day,
            _ => Granularity::Month,
        };
        let granularity = self.granularity.unwrap_or(by_length);
        let is_hourly = granularity == Granularity::Hour;
        // A series by the hour doesn't go on into hours that lie ahead.
        let to = self.to.unwrap_or(if is_hourly { quarter_end(now) } else { day_end });
        let earliest = Timestamp::from_millis(to.as_millis() - HOURLY_LIFE_MILLIS);
        let from =
            if is_hourly && self.from.is_none() { from.max(zone.start_of_day(earliest)) } else { from };
        check_range(from, to)?;
        Ok(StatsQuery {
            from,
            to,
            timezone: self.timezone,
            granularity,
            group_by: self.group_by,
            filter: self.filter,
            limit: self.limit,
        })
    }
}

/// The end of the quarter of an hour that `at` lies in: the finest grain that is counted.
fn quarter_end(at: Timestamp) -> Timestamp {
    Timestamp::from_millis((at.as_millis().div_euclid(QUARTER_MILLIS) + 1) * QUARTER_MILLIS)
}

impl StatsAnswer {
    fn of(
        stats: Stats,
        from: Timestamp,
        to: Timestamp,
        timezone: String,
        granularity: Granularity,
    ) -> StatsAnswer {
        let (unique_visitors, unique_visitors_error, unique_visitors_reason) = match stats.unique {
            Unique::Known { visitors, error } => (Some(visitors), Some(error), None),
            Unique::Unknown(reason) => (None, None, Some(reason)),
        };
        let mut clicks_by_kind = ByKind::default();
        for (kind, clicks) in stats.by_kind {
            match kind {
                Kind::Human => clicks_by_kind.human = clicks,
                Kind::Bot => clicks_by_kind.bot = clicks,
                Kind::Preview => clicks_by_kind.preview = clicks,
                Kind::Prefetch => clicks_by_kind.prefetch = clicks,
                Kind::Head => clicks_by_kind.head = clicks,
            }
        }
        let mut values: Vec<(Dimension, Vec<ValueCount>)> = stats.values;
        let mut list = |wanted: Dimension| -> Vec<ValueAnswer> {
            let found = values.iter_mut().find(|(dimension, _)| *dimension == wanted);
            let counts = found.map(|(_, counts)| std::mem::take(counts)).unwrap_or_default();
            counts.into_iter().map(|count| ValueAnswer { value: count.value, clicks: count.clicks }).collect()
        };
        StatsAnswer {
            from: from.to_string(),
            to: to.to_string(),
            timezone,
            granularity: granularity_name(granularity),
            total_clicks: stats.human,
            clicks_total_all: stats.all,
            clicks: stats.clicks,
            unique_visitors,
            unique_visitors_error,
            unique_visitors_reason,
            clicks_by_kind,
            clicks_over_time: stats.over_time.map(buckets),
            top_referrers: list(Dimension::Referrer),
            top_countries: list(Dimension::Country),
            devices: list(Dimension::Device),
            browsers: list(Dimension::Browser),
            os: list(Dimension::Os),
            languages: list(Dimension::Language),
            groups: stats.groups.map(|groups| groups.into_iter().map(GroupAnswer::from).collect()),
            final_before: stats.final_before.map(|day| day.start().to_string()),
            notes: stats.notes,
        }
    }
}

impl From<Group> for GroupAnswer {
    fn from(group: Group) -> Self {
        let Group { value, clicks, over_time } = group;
        GroupAnswer { value, clicks, clicks_over_time: over_time.map(buckets) }
    }
}

fn buckets(buckets: Vec<TimeBucket>) -> Vec<BucketAnswer> {
    buckets.into_iter().map(|bucket| BucketAnswer { start: bucket.start, clicks: bucket.clicks }).collect()
}

/// Statistics of a link, in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShortStatsAnswer {
    /// The link.
    #[schema(example = "https://go.example.com/f3Kq9Zx")]
    pub short_url: String,
    /// Clicks of people since it was made.
    pub total_clicks: u64,
    /// The same by country, by ISO 3166-1 alpha-2; or `unknown`.
    pub clicks_by_country: BTreeMap<String, u64>,
    /// The same by UTC date, for dates with clicks.
    pub clicks_by_date: BTreeMap<String, u64>,
}

/// Statistics of a link, in short
///
/// Clicks of people since the link was made, by country and by UTC date.
#[utoipa::path(
    get, path = "/api/v1/stats/{code}", operation_id = "shortStats", tag = "Other shapes",
    params(("code" = String, Path, description = "The short code"), ByCode, ("X-Manage-Token" = Option<String>, Header, description = "For an anonymous link, in place of a key")),
    responses(
        (status = 200, description = "What was counted", body = ShortStatsAnswer),
        (status = 400, description = "VALIDATION_ERROR", body = Problem, content_type = "application/problem+json"),
        KeyProblems,
        (status = 404, description = "URL_NOT_FOUND", body = Problem, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("header_key" = [])),
)]
pub async fn short(
    State(app): State<Arc<App>>,
    context: Context,
    InPath(code): InPath,
    super::links::Asked(by): super::links::Asked<ByCode>,
) -> Result<Response, ApiError> {
    let record = link_of(&app, &context, &code, &by, Scope::StatsRead).await?;
    let everything = StatsParams { granularity: Some("day".to_owned()), ..StatsParams::default() };
    let subject = Subject::Link(record.id());
    let totals = app.clicks.totals(vec![subject.clone()]).await?;
    let first_day = totals.first().and_then(|totals| totals.first_day);
    let query = everything.check()?.query(first_day, app.clock.now())?;
    let stats = app.clicks.stats(&subject, StatsQuery { limit: COUNTRIES_LEN_MAX, ..query }).await?;
    let countries = stats.values.into_iter().find(|(dimension, _)| *dimension == Dimension::Country);
    let countries = countries.map(|(_, counts)| counts).unwrap_or_default();
    let dates = stats.over_time.unwrap_or_default().into_iter().filter(|bucket| bucket.clicks > 0);
    let date = |start: &str| start.split('T').next().unwrap_or_default().to_owned();
    let answer = ShortStatsAnswer {
        short_url: short_url(&app, &record),
        total_clicks: stats.human,
        clicks_by_country: countries.into_iter().map(|count| (count.value, count.clicks)).collect(),
        clicks_by_date: dates.map(|bucket| (date(&bucket.start), bucket.clicks)).collect(),
    };
    Ok(json_response(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2027-01-15T08:10:00Z").unwrap()
    }

    #[track_caller]
    fn check(params: StatsParams, first_day: Option<&str>, expected: [&str; 3]) {
        let first_day = first_day.map(|date| Day::of(Timestamp::parse(date).unwrap()));
        let query = params.check().unwrap().query(first_day, now()).unwrap();
        let shown =
            [query.from.to_string(), query.to.to_string(), granularity_name(query.granularity).to_owned()];
        let expected = [format!("{}Z", expected[0]), format!("{}Z", expected[1]), expected[2].to_owned()];
        assert_eq!(shown.map(|text| text.replace(":00.000Z", "Z")), expected);
    }

    fn range(from: Option<&str>, to: Option<&str>, granularity: Option<&str>) -> StatsParams {
        let text = |text: Option<&str>| text.map(str::to_owned);
        StatsParams {
            from: text(from),
            to: text(to),
            granularity: text(granularity),
            ..StatsParams::default()
        }
    }

    #[test]
    fn what_is_left_open_is_decided() {
        let today = ["2027-01-15T00:00", "2027-01-15T08:15", "hour"];
        check(range(None, None, None), None, today);
        check(range(None, None, None), Some("2027-01-15"), today);
        let life = ["2026-12-01T00:00", "2027-01-16T00:00", "day"];
        check(range(None, None, None), Some("2026-12-01"), life);
        let years = ["2020-02-03T00:00", "2027-01-16T00:00", "month"];
        check(range(None, None, None), Some("2020-02-03"), years);
        let hours = ["2024-11-06T00:00", "2027-01-15T08:15", "hour"];
        check(range(None, None, Some("hour")), Some("2020-02-03"), hours);
        // What ends before the first click is an empty day.
        let before = ["2026-01-31T00:00", "2026-02-01T00:00", "hour"];
        check(range(None, Some("2026-01-31"), None), Some("2026-12-01"), before);
        let dates = ["2027-01-01T00:00", "2027-01-04T00:00", "hour"];
        check(range(Some("2027-01-01"), Some("2027-01-03"), None), None, dates);
        let longer = ["2027-01-01T00:00", "2027-01-05T00:00", "day"];
        check(range(Some("2027-01-01"), Some("2027-01-04"), None), None, longer);
        let week = ["2027-01-01T00:00", "2027-01-16T00:00", "week"];
        check(range(Some("2027-01-01"), None, Some("week")), None, week);
    }

    #[test]
    fn a_range_ends_after_it_begins() {
        let refused = |params: StatsParams| {
            let checked = params.check().and_then(|checked| checked.query(None, now()));
            checked.unwrap_err().field.unwrap()
        };
        assert_eq!(refused(range(Some("2027-01-02"), Some("2027-01-01"), None)), "from");
        let at = "2027-01-01T00:00:00Z";
        assert_eq!(refused(range(Some(at), Some(at), None)), "from");
        assert_eq!(refused(range(Some("2027-01-16"), None, None)), "from", "it lies ahead");
        assert_eq!(refused(range(Some("2027-01-15T08:20:00Z"), None, Some("hour"))), "from");
    }

    #[test]
    fn a_value_is_written_as_answers_write_it() {
        use Dimension::*;
        for (dimension, given, expected) in [
            (Country, "ch", Some("CH")),
            (Country, "unknown", Some("unknown")),
            (Country, "other", Some("other")),
            (Country, "CHE", None),
            (Country, "", None),
            (Country, "C1", None),
            (Device, "tv", Some("tv")),
            (Device, "unknown", Some("unknown")),
            (Device, "TV", None),
            (Device, "phone", None),
            (Browser, "Mobile Safari", Some("Mobile Safari")),
            (Browser, "", None),
            (Os, "Windows", Some("Windows")),
            (Os, "", None),
            (Language, "de-CH", Some("de-ch")),
            (Language, "unknown", Some("unknown")),
            (Language, "de_ch", None),
            (Language, "", None),
            (Referrer, "News.Example.org", Some("news.example.org")),
            (Referrer, "direct", Some("direct")),
            (Referrer, "", None),
        ] {
            let got = check_value(dimension, given.to_owned());
            assert_eq!(got.ok().as_deref(), expected, "{dimension:?} {given}");
        }
        assert!(check_value(Os, "x".repeat(254)).is_err());
    }
}
