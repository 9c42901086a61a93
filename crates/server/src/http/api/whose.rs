//! Whose clicks a call is about, and from when until when.

use super::acting_user;
use super::links::{Asked, ByCode, key_of};
use super::wire::check_domain;
use crate::app::App;
use crate::http::auth::Context;
use crate::http::error::{ApiError, ErrorCode};
use crate::links::may_manage;
use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use terse_model::click::Subject;
use terse_model::link::LinkRecord;
use terse_model::stats::TimeZone;
use terse_model::tenant::{Scope, UserId, UserName};
use terse_model::time::Timestamp;
use utoipa::IntoParams;

/// Longest tag, in characters.
const TAG_LEN_MAX: usize = 64;

/// A query string of two kinds of parameters, and no others: `W` says whose clicks, `T` says what about them.
#[derive(Debug)]
pub struct AskedBoth<W, T>(pub W, pub T);

#[derive(Deserialize)]
struct Both<W, T> {
    #[serde(flatten)]
    whose: W,
    #[serde(flatten)]
    what: T,
    #[serde(flatten)]
    unknown: BTreeMap<String, String>,
}

impl<W: DeserializeOwned + Send, T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for AskedBoth<W, T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Asked(both) = Asked::<Both<W, T>>::from_request_parts(parts, app).await?;
        match both.unknown.into_keys().next() {
            Some(name) => Err(ApiError::invalid(name, "is no parameter of this call")),
            None => Ok(AskedBoth(both.whose, both.what)),
        }
    }
}

/// Whose links.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Whose {
    /// Only links on this domain. Not together with `tag`.
    #[param(format = "registered-host", min_length = 1, max_length = 253)]
    pub domain: Option<String>,
    /// Only links that had this tag when they were clicked. Not together with `domain`.
    #[param(min_length = 1, max_length = 64)]
    pub tag: Option<String>,
    /// The links of this user, for an admin; otherwise one's own.
    #[param(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    pub owner: Option<String>,
    /// `true` for everybody's links, for an admin. Not together with `owner` or `tag`.
    #[param(value_type = Option<bool>)]
    pub everyone: Option<String>,
}

/// Whose links, as far as owners go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// One user's.
    One(UserId),
    /// Everybody's.
    All,
}

impl Whose {
    /// The clicks that are meant, if the caller may see them.
    pub async fn subject(&self, app: &App, context: &Context) -> Result<Subject, ApiError> {
        if self.tag.is_some() && self.domain.is_some() {
            return Err(ApiError::invalid("tag", "does not go together with domain"));
        }
        if self.tag.as_ref().is_some_and(|tag| !(1..=TAG_LEN_MAX).contains(&tag.chars().count())) {
            return Err(ApiError::invalid("tag", format!("expected 1 to {TAG_LEN_MAX} characters")));
        }
        let domain = self.domain.as_deref().map(|name| check_domain(Some(name), app)).transpose()?;
        let owners = owners(self.owner.as_deref(), self.everyone.as_deref(), app, context).await?;
        match (owners, domain, &self.tag) {
            (Owners::All, _, Some(_)) => {
                Err(ApiError::invalid("tag", "does not go together with everyone: tags are each user's own"))
            }
            (Owners::All, Some(domain), None) => Ok(Subject::Domain(domain)),
            (Owners::All, None, None) => Ok(Subject::Everything),
            (Owners::One(user), _, Some(tag)) => Ok(Subject::OwnerTag(user, tag.as_str().into())),
            (Owners::One(user), Some(domain), None) => Ok(Subject::OwnerDomain(user, domain)),
            (Owners::One(user), None, None) => Ok(Subject::Owner(user)),
        }
    }
}

/// Whose links are meant, if the caller may ask for them: one's own, or for an admin somebody's or everybody's.
pub async fn owners(
    owner: Option<&str>,
    everyone: Option<&str>,
    app: &App,
    context: &Context,
) -> Result<Owners, ApiError> {
    let everyone = match everyone {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::invalid("everyone", "expected true or false")),
    };
    let own = acting_user(context)?;
    let name = owner.map(UserName::parse).transpose().map_err(|error| ApiError::invalid("owner", error))?;
    let refuse = || ApiError::forbidden("only an admin sees the clicks of other users' links");
    match name {
        Some(_) if everyone => Err(ApiError::invalid("owner", "does not go together with everyone")),
        Some(name) if name == own.name => Ok(Owners::One(own.id)),
        // Whoever may not ask isn't told either whether there is such a user.
        Some(_) if !context.actor.is_admin() => Err(refuse()),
        Some(name) => {
            let user = app.accounts.store.user_get(&name).await?;
            let user = user.ok_or_else(|| ApiError::not_found("there is no such user"))?;
            Ok(Owners::One(user.id))
        }
        None if everyone && !context.actor.is_admin() => Err(refuse()),
        None if everyone => Ok(Owners::All),
        None => Ok(Owners::One(own.id)),
    }
}

/// The link of a path and a query, if the caller may manage it; also a removed one.
pub async fn link_of(
    app: &App,
    context: &Context,
    code: &str,
    by: &ByCode,
    scope: Scope,
) -> Result<LinkRecord, ApiError> {
    context.require_or_token(app, scope)?;
    let record = app.links.get(&key_of(app, code, by)?).await?;
    if !may_manage(&context.actor, context.manage_token, &record) {
        return Err(ApiError::forbidden("this link belongs to somebody else"));
    }
    Ok(record)
}

/// The time zone of that name; UTC without one.
pub fn time_zone(name: Option<&str>) -> Result<TimeZone, ApiError> {
    let expected = "expected a name such as Europe/Zurich, UTC, or an offset such as +05:30";
    name.map_or(Some(TimeZone::UTC), TimeZone::parse).ok_or_else(|| ApiError::invalid("timezone", expected))
}

/// Where a range begins: a time, or a date, which means its first instant.
pub fn from_time(text: Option<&str>, zone: &TimeZone) -> Result<Option<Timestamp>, ApiError> {
    text.map(|text| time("from", text, |date| zone.date_start(date))).transpose()
}

/// Where a range ends: a time, or a date, which belongs to the range as a whole.
pub fn to_time(text: Option<&str>, zone: &TimeZone) -> Result<Option<Timestamp>, ApiError> {
    let end_of = |date: &str| zone.date_start(date).map(|start| zone.next_day_start(start));
    text.map(|text| time("to", text, end_of)).transpose()
}

fn time(
    field: &'static str,
    text: &str,
    of_date: impl Fn(&str) -> Option<Timestamp>,
) -> Result<Timestamp, ApiError> {
    match of_date(text) {
        Some(at) => Ok(at),
        None => Timestamp::parse(text).map_err(|error| ApiError::invalid(field, error)),
    }
}

/// Refuses a range that holds nothing.
pub fn check_range(from: Timestamp, to: Timestamp) -> Result<(), ApiError> {
    (from < to).then_some(()).ok_or_else(|| ApiError::invalid("from", "must lie before `to`"))
}

/// A number in a query, within bounds.
pub fn number(
    field: &'static str,
    text: Option<&str>,
    default: usize,
    max: usize,
) -> Result<usize, ApiError> {
    let Some(text) = text else { return Ok(default) };
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (1..=max).contains(number));
    number.ok_or_else(|| ApiError::invalid(field, format!("expected 1 to {max}")))
}

/// A store of clicks that fails is told as one of links is.
pub fn too_busy(detail: &'static str) -> ApiError {
    ApiError { retry_after: Some(10), ..ApiError::new(ErrorCode::Unavailable, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_whole_day() {
        let shown = |at: Result<Option<Timestamp>, ApiError>| at.unwrap().unwrap().to_string();
        let utc = &TimeZone::UTC;
        assert_eq!(shown(from_time(Some("2027-01-15"), utc)), "2027-01-15T00:00:00.000Z");
        assert_eq!(shown(to_time(Some("2027-01-15"), utc)), "2027-01-16T00:00:00.000Z");
        for text in ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"] {
            assert_eq!(shown(from_time(Some(text), utc)), "2027-01-15T08:00:00.000Z");
            assert_eq!(shown(to_time(Some(text), utc)), "2027-01-15T08:00:00.000Z");
        }
        assert_eq!(to_time(Some("2027-02-30"), utc).unwrap_err().field.as_deref(), Some("to"));
        assert_eq!(from_time(None, utc).unwrap(), None);
    }

    #[test]
    fn a_number_is_digits_within_bounds() {
        for (text, expected) in [("1", Some(1)), ("200", Some(200)), ("0", None), ("201", None), ("+1", None)]
        {
            assert_eq!(number("limit", Some(text), 10, 200).ok(), expected, "{text}");
        }
        assert_eq!(number("limit", None, 10, 200).unwrap(), 10);
    }
}
