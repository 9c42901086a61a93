//! Links as JSON.

use crate::app::App;
use crate::http::error::{ApiError, ErrorCode};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use terse_model::code::{Alias, InvalidAlias};
use terse_model::domain::{DomainId, DomainName};
use terse_model::link::{Link, LinkSettings, RedirectType};
use terse_model::redirect::{CachePolicy, cache_policy};
use terse_model::store::ChangeRefused;
use terse_model::target::TargetUrl;
use terse_model::time::Timestamp;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

const TITLE_LEN_MAX: usize = 300;
const NOTES_LEN_MAX: usize = 10_000;
const TAGS_LEN_MAX: usize = 50;
const TAG_LEN_MAX: usize = 64;
/// A hundred years, in seconds.
const EXPIRES_IN_MAX: i64 = 100 * 366 * 86_400;

/// A link to create.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLinkRequest {
    /// Where the link leads: an absolute http or https address without a user name, at most 4,096 bytes.
    #[schema(
        required,
        format = "link-target",
        min_length = 1,
        max_length = 4096,
        example = "https://example.com/a/very/long/path?with=a&query"
    )]
    pub long_url: Option<String>,
    /// A code of your own: 3 to 64 of `A-Z a-z 0-9 - _`. Without one, a code is generated.
    #[schema(pattern = "^[A-Za-z0-9_-]{3,64}$", example = "spring-sale")]
    pub custom_alias: Option<String>,
    /// The domain of the short link; otherwise the default one. It must be registered.
    #[schema(format = "registered-host", example = "go.example.com", min_length = 1, max_length = 253)]
    pub domain: Option<String>,
    /// When the link ends: an RFC 3339 time, or a date, which means 00:00 UTC of that day. Must lie ahead.
    #[schema(format = "future-time", example = "2099-12-31T23:59:59Z")]
    pub expires_at: Option<String>,
    /// In how many seconds the link ends. Not together with `expires_at`.
    #[schema(minimum = 1, maximum = 3162240000i64)]
    pub expires_in: Option<i64>,
    /// The status of the redirect.
    pub redirect_type: Option<WireRedirectType>,
    /// A title, for you.
    #[schema(max_length = 300)]
    pub title: Option<String>,
    /// Labels to find the link by.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 50)]
    pub tags: Option<Vec<String>>,
    /// Anything, for you.
    #[schema(max_length = 10000)]
    pub notes: Option<String>,
    /// Visitors are asked for it.
    #[schema(min_length = 1, max_length = 64)]
    pub password: Option<String>,
    /// How often the target may be revealed, exactly.
    #[schema(minimum = 1, maximum = 4294967295i64)]
    pub click_limit: Option<i64>,
    /// When the link begins to work.
    #[schema(format = "future-time", example = "2030-01-01")]
    pub starts_at: Option<String>,
    /// Where the link leads after its expiry, instead of answering 410.
    #[schema(format = "link-target", min_length = 1, max_length = 4096)]
    pub fallback_url: Option<String>,
    /// Whether a visitor's query is added to the target's.
    pub forward_query: Option<bool>,
    /// `false` pauses the link.
    pub enabled: Option<bool>,
    /// Answer with an existing link of yours to the same address with the same settings, if it was made with this
    /// flag too. Never together with `custom_alias`.
    pub find_if_exists: Option<bool>,
}

/// A label.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 64)]
pub struct Tag(#[allow(dead_code, reason = "a schema only")] String);

/// A change of a link (RFC 7396): what is absent stays, null clears.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLinkRequest {
    /// Where the link leads. Can't be cleared.
    #[schema(value_type = Option<String>, nullable = false, format = "link-target", min_length = 1, max_length = 4096)]
    #[serde(default)]
    pub long_url: Patch<String>,
    /// When the link ends; null for never.
    #[schema(value_type = Option<String>, format = "future-time", example = "2099-12-31")]
    #[serde(default)]
    pub expires_at: Patch<String>,
    /// In how many seconds the link ends. Not together with `expires_at`.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 3162240000i64)]
    #[serde(default)]
    pub expires_in: Patch<i64>,
    /// The status of the redirect; null for the default.
    #[schema(value_type = Option<WireRedirectType>)]
    #[serde(default)]
    pub redirect_type: Patch<WireRedirectType>,
    /// A title.
    #[schema(value_type = Option<String>, max_length = 300)]
    #[serde(default)]
    pub title: Patch<String>,
    /// Labels, all of them.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 50)]
    #[serde(default)]
    pub tags: Patch<Vec<String>>,
    /// Anything.
    #[schema(value_type = Option<String>, max_length = 10000)]
    #[serde(default)]
    pub notes: Patch<String>,
    /// A new password; null for none.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    #[serde(default)]
    pub password: Patch<String>,
    /// A new limit; clicks that were used stay used.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 4294967295i64)]
    #[serde(default)]
    pub click_limit: Patch<i64>,
    /// When the link begins to work; null for at once.
    #[schema(value_type = Option<String>, format = "future-time", example = "2030-01-01")]
    #[serde(default)]
    pub starts_at: Patch<String>,
    /// Where the link leads after its expiry; null for nowhere.
    #[schema(value_type = Option<String>, format = "link-target", min_length = 1, max_length = 4096)]
    #[serde(default)]
    pub fallback_url: Patch<String>,
    /// Whether a visitor's query is added; null for no.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    pub forward_query: Patch<bool>,
    /// `false` pauses the link, `true` or null resumes it.
    #[schema(value_type = Option<bool>)]
    #[serde(default)]
    pub enabled: Patch<bool>,
}

/// A link.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkAnswer {
    /// What to share.
    #[schema(example = "https://go.example.com/f3Kq9Zx")]
    pub short_url: String,
    /// Its last part.
    #[schema(example = "f3Kq9Zx")]
    pub short_code: String,
    /// Its domain.
    #[schema(example = "go.example.com")]
    pub domain: String,
    /// Where it leads, as a browser would write it.
    pub long_url: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// When it ends.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// The status of the redirect.
    #[schema(example = 302)]
    pub redirect_type: u16,
    /// How often it was written; also the ETag.
    pub revision: u32,
    /// `active`, `disabled`, `scheduled`, `expired`, `exhausted` or `deleted`.
    #[schema(example = "active")]
    pub state: &'static str,
    /// Whether it is not paused.
    pub enabled: bool,
    /// The title.
    pub title: Option<String>,
    /// The labels.
    pub tags: Vec<String>,
    /// The notes.
    pub notes: Option<String>,
    /// Whether visitors are asked for a password.
    pub has_password: bool,
    /// How often the target may be revealed.
    pub click_limit: Option<u32>,
    /// How many of those clicks are used.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clicks_used: Option<u32>,
    /// When it begins to work.
    #[schema(format = DateTime)]
    pub starts_at: Option<String>,
    /// Where it leads after its expiry.
    pub fallback_url: Option<String>,
    /// Whether a visitor's query is added.
    pub forward_query: bool,
    /// How often people followed it since it was made; null when that isn't known, as in answers of bulk calls to
    /// changes, for an equal link that was found, and while statistics can't be read.
    #[schema(minimum = 0)]
    pub clicks: Option<u64>,
    /// After a change of a permanent redirect: until when browsers may keep the old one.
    #[schema(required = false, nullable = false, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_redirect_kept_until: Option<String>,
    /// Lets you delete an anonymous link, as `X-Manage-Token`. Shown in this answer only.
    #[schema(required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manage_token: Option<String>,
}

impl LinkAnswer {
    /// The link as of `now`, with its clicks where they are known.
    pub fn of(app: &App, link: &Link, now: Timestamp, clicks: Option<u64>) -> Self {
        let settings = &link.settings;
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        LinkAnswer {
            short_url: format!("{}/{}", app.domains.base_of(link.key.domain), link.key.code),
            short_code: link.key.code.to_string(),
            domain: app.domains.name(link.key.domain).to_string(),
            long_url: settings.target.to_string(),
            created_at: link.created_at.to_string(),
            updated_at: link.updated_at.to_string(),
            expires_at: text(settings.expires_at),
            redirect_type: settings.redirect_type.status(),
            revision: link.revision.0,
            state: link.state(now).as_str(),
            enabled: settings.enabled,
            title: settings.title.clone(),
            tags: settings.tags.clone(),
            notes: settings.notes.clone(),
            has_password: settings.password_hash.is_some(),
            click_limit: settings.click_limit,
            clicks_used: settings.click_limit.map(|_| link.clicks_used),
            starts_at: text(settings.starts_at),
            fallback_url: settings.fallback.as_ref().map(ToString::to_string),
            forward_query: settings.forward_query,
            clicks,
            old_redirect_kept_until: None,
            manage_token: None,
        }
    }
}

/// Until when browsers may keep the redirect that a link had at `now`, before a change.
pub fn kept_until(settings: &LinkSettings, now: Timestamp, permanent_max_age: u32) -> Option<Timestamp> {
    match cache_policy(settings, now, permanent_max_age) {
        CachePolicy::PrivateMaxAge(seconds) => Some(now.plus_seconds(i64::from(seconds))),
        _ => None,
    }
}

/// A redirect's status as a number or a text.
#[derive(Clone, Copy, Debug)]
pub struct WireRedirectType(pub RedirectType);

impl PartialSchema for WireRedirectType {
    fn schema() -> RefOr<Schema> {
        let one_of = |kind: Type, values: Vec<serde_json::Value>| {
            ObjectBuilder::new().schema_type(kind).enum_values(Some(values))
        };
        let numbers = [301, 302, 307, 308];
        let words = ["301", "302", "307", "308", "permanent", "temporary"];
        OneOfBuilder::new()
            .description(Some("301 (permanent), 302 (temporary), 307 or 308"))
            .item(one_of(Type::Integer, numbers.map(Into::into).to_vec()))
            .item(one_of(Type::String, words.map(Into::into).to_vec()))
            .into()
    }
}

impl ToSchema for WireRedirectType {}

impl<'de> Deserialize<'de> for WireRedirectType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        const EXPECTED: &str = "301, 302, 307, 308, \"permanent\" or \"temporary\"";
        impl Visitor<'_> for Either {
            type Value = WireRedirectType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<Self::Value, E> {
                let known = u16::try_from(status).ok().and_then(RedirectType::from_status);
                known
                    .map(WireRedirectType)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(status), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let known = RedirectType::parse(text).map(WireRedirectType);
                known.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A field of a merge patch.
#[derive(Clone, Debug, Default)]
pub enum Patch<T> {
    /// Not there: stays as it is.
    #[default]
    Absent,
    /// null: cleared.
    Clear,
    /// A new value.
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Patch::Clear, Patch::Set))
    }
}

impl<T> Patch<T> {
    fn map<U>(self, check: impl FnOnce(T) -> Result<U, ApiError>) -> Result<Patch<U>, ApiError> {
        Ok(match self {
            Patch::Absent => Patch::Absent,
            Patch::Clear => Patch::Clear,
            Patch::Set(value) => Patch::Set(check(value)?),
        })
    }

    /// Writes it into a setting that can be cleared.
    fn write(&self, setting: &mut Option<T>)
    where
        T: Clone,
    {
        match self {
            Patch::Absent => {}
            Patch::Clear => *setting = None,
            Patch::Set(value) => *setting = Some(value.clone()),
        }
    }

    /// Writes it into a setting that has a default.
    fn write_or(&self, setting: &mut T, default: T)
    where
        T: Clone,
    {
        match self {
            Patch::Absent => {}
            Patch::Clear => *setting = default,
            Patch::Set(value) => *setting = value.clone(),
        }
    }
}

/// A checked request to create a link; the password is still to be hashed.
#[derive(Clone, Debug)]
pub struct CheckedCreate {
    /// The domain.
    pub domain: DomainId,
    /// The alias.
    pub alias: Option<Alias>,
    /// The settings, without the password.
    pub settings: LinkSettings,
    /// The password in plain.
    pub password: Option<String>,
    /// Whether an equal link does as well.
    pub reuse_equal: bool,
}

impl CreateLinkRequest {
    /// Checks everything that needs no store.
    pub fn check(self, app: &App) -> Result<CheckedCreate, ApiError> {
        let now = app.clock.now();
        let long_url = self.long_url.ok_or_else(|| ApiError::invalid("long_url", "is missing"))?;
        let mut settings = LinkSettings::plain(check_target("long_url", &long_url)?);
        let alias = self.custom_alias.map(|alias| check_alias(&alias, app)).transpose()?;
        let reuse_equal = self.find_if_exists.unwrap_or(false);
        if reuse_equal && alias.is_some() {
            return Err(ApiError::invalid("find_if_exists", "does not go together with custom_alias"));
        }
        settings.expires_at = check_expiry(self.expires_at, self.expires_in, now)?;
        settings.redirect_type = self.redirect_type.map_or(app.config.redirect_type, |kind| kind.0);
        settings.title = self.title.map(|title| check_len("title", title, TITLE_LEN_MAX)).transpose()?;
        settings.tags = check_tags(self.tags.unwrap_or_default())?;
        settings.notes = self.notes.map(|notes| check_len("notes", notes, NOTES_LEN_MAX)).transpose()?;
        settings.click_limit = self.click_limit.map(check_click_limit).transpose()?;
        settings.starts_at = self.starts_at.map(|at| check_time("starts_at", &at)).transpose()?;
        settings.fallback = self.fallback_url.map(|url| check_target("fallback_url", &url)).transpose()?;
        settings.forward_query = self.forward_query.unwrap_or(false);
        settings.enabled = self.enabled.unwrap_or(true);
        check_order(&settings)?;
        let password = self.password.map(check_password).transpose()?;
        Ok(CheckedCreate {
            domain: check_domain(self.domain.as_deref(), app)?,
            alias,
            settings,
            password,
            reuse_equal,
        })
    }
}

/// A checked change; the password is still to be hashed.
#[derive(Clone, Debug)]
pub struct CheckedChange {
    target: Option<TargetUrl>,
    expires_at: Patch<Timestamp>,
    redirect_type: Patch<RedirectType>,
    title: Patch<String>,
    tags: Patch<Vec<String>>,
    notes: Patch<String>,
    /// The password in plain, then its hash.
    pub password: Patch<String>,
    click_limit: Patch<u32>,
    starts_at: Patch<Timestamp>,
    fallback: Patch<TargetUrl>,
    forward_query: Patch<bool>,
    enabled: Patch<bool>,
    default_redirect_type: RedirectType,
}

impl ChangeLinkRequest {
    /// Checks everything that needs no store.
    pub fn check(self, app: &App) -> Result<CheckedChange, ApiError> {
        let now = app.clock.now();
        let target = match self.long_url {
            Patch::Absent => None,
            Patch::Clear => return Err(ApiError::invalid("long_url", "can't be cleared")),
            Patch::Set(url) => Some(check_target("long_url", &url)?),
        };
        let expires_at = match (self.expires_at, self.expires_in) {
            (at, Patch::Absent) => at.map(|at| check_future("expires_at", &at, now))?,
            (Patch::Absent, Patch::Clear) => Patch::Clear,
            (Patch::Absent, Patch::Set(seconds)) => Patch::Set(check_expires_in(seconds, now)?),
            _ => return Err(both_expiries()),
        };
        Ok(CheckedChange {
            target,
            expires_at,
            redirect_type: self.redirect_type.map(|kind| Ok(kind.0))?,
            title: self.title.map(|title| check_len("title", title, TITLE_LEN_MAX))?,
            tags: self.tags.map(check_tags)?,
            notes: self.notes.map(|notes| check_len("notes", notes, NOTES_LEN_MAX))?,
            password: self.password.map(check_password)?,
            click_limit: self.click_limit.map(check_click_limit)?,
            starts_at: self.starts_at.map(|at| check_time("starts_at", &at))?,
            fallback: self.fallback_url.map(|url| check_target("fallback_url", &url))?,
            forward_query: self.forward_query,
            enabled: self.enabled,
            default_redirect_type: app.config.redirect_type,
        })
    }
}

impl CheckedChange {
    /// Writes the change into a link's settings.
    pub fn apply(&self, settings: &mut LinkSettings) -> Result<(), ChangeRefused> {
        if let Some(target) = &self.target {
            settings.target = target.clone();
        }
        self.expires_at.write(&mut settings.expires_at);
        self.redirect_type.write_or(&mut settings.redirect_type, self.default_redirect_type);
        self.title.write(&mut settings.title);
        self.tags.write_or(&mut settings.tags, Vec::new());
        self.notes.write(&mut settings.notes);
        self.password.write(&mut settings.password_hash);
        self.click_limit.write(&mut settings.click_limit);
        self.starts_at.write(&mut settings.starts_at);
        self.fallback.write(&mut settings.fallback);
        self.forward_query.write_or(&mut settings.forward_query, false);
        self.enabled.write_or(&mut settings.enabled, true);
        check_order(settings).map_err(|error| ChangeRefused::Invalid {
            field: "starts_at",
            message: error.detail.trim_start_matches("starts_at: ").to_owned(),
        })
    }
}

/// The domain of that name, or the default one.
pub fn check_domain(name: Option<&str>, app: &App) -> Result<DomainId, ApiError> {
    let Some(name) = name else { return Ok(DomainId::DEFAULT) };
    let known = DomainName::parse(name).ok().and_then(|name| app.domains.find(&name));
    known.ok_or_else(|| ApiError::invalid("domain", "is not registered here; see `terse domains add`"))
}

fn check_target(field: &'static str, text: &str) -> Result<TargetUrl, ApiError> {
    TargetUrl::parse(text).map_err(|error| ApiError::new(ErrorCode::InvalidUrl, "").at(field, error))
}

fn check_alias(text: &str, app: &App) -> Result<Alias, ApiError> {
    Alias::parse(text, &app.links.reserved).map_err(|error| {
        let code = match error {
            InvalidAlias::Malformed => ErrorCode::ValidationError,
            InvalidAlias::Reserved => ErrorCode::AliasReserved,
        };
        ApiError::new(code, "").at("custom_alias", error)
    })
}

fn check_expiry(
    at: Option<String>,
    seconds: Option<i64>,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    match (at, seconds) {
        (None, None) => Ok(None),
        (Some(at), None) => check_future("expires_at", &at, now).map(Some),
        (None, Some(seconds)) => check_expires_in(seconds, now).map(Some),
        (Some(_), Some(_)) => Err(both_expiries()),
    }
}

fn both_expiries() -> ApiError {
    ApiError::invalid("expires_in", "does not go together with expires_at; send one of them")
}

fn check_expires_in(seconds: i64, now: Timestamp) -> Result<Timestamp, ApiError> {
    if !(1..=EXPIRES_IN_MAX).contains(&seconds) {
        let expected = format!("expected 1 to {EXPIRES_IN_MAX} seconds");
        return Err(ApiError::invalid("expires_in", expected));
    }
    Ok(now.plus_seconds(seconds))
}

fn check_time(field: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    Timestamp::parse(text).map_err(|error| ApiError::invalid(field, error))
}

fn check_future(field: &'static str, text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let at = check_time(field, text)?;
    (at > now).then_some(at).ok_or_else(|| ApiError::invalid(field, "must lie in the future"))
}

fn check_order(settings: &LinkSettings) -> Result<(), ApiError> {
    match (settings.starts_at, settings.expires_at) {
        (Some(start), Some(end)) if start >= end => {
            Err(ApiError::invalid("starts_at", "must lie before expires_at"))
        }
        _ => Ok(()),
    }
}

fn check_len(field: &'static str, text: String, max: usize) -> Result<String, ApiError> {
    if text.chars().count() > max {
        return Err(ApiError::invalid(field, format!("at most {max} characters")));
    }
    Ok(text)
}

fn check_tags(tags: Vec<String>) -> Result<Vec<String>, ApiError> {
    if tags.len() > TAGS_LEN_MAX {
        return Err(ApiError::invalid("tags", format!("at most {TAGS_LEN_MAX} tags")));
    }
    if tags.iter().any(|tag| !(1..=TAG_LEN_MAX).contains(&tag.chars().count())) {
        return Err(ApiError::invalid("tags", format!("a tag has 1 to {TAG_LEN_MAX} characters")));
    }
    // Clicks hold the tags of their link line by line.
    if tags.iter().any(|tag| tag.contains(char::is_control)) {
        return Err(ApiError::invalid("tags", "a tag has no control characters"));
    }
    let mut distinct: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags {
        if !distinct.contains(&tag) {
            distinct.push(tag);
        }
    }
    Ok(distinct)
}

fn check_password(password: String) -> Result<String, ApiError> {
    use crate::accounts::passwords::PASSWORD_LEN_MAX;
    let fits = (1..=PASSWORD_LEN_MAX).contains(&password.chars().count());
    fits.then_some(password)
        .ok_or_else(|| ApiError::invalid("password", format!("expected 1 to {PASSWORD_LEN_MAX} characters")))
}

fn check_click_limit(limit: i64) -> Result<u32, ApiError> {
    u32::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| ApiError::invalid("click_limit", format!("expected 1 to {}", u32::MAX)))
}

/// The rule that makes a checked change.
pub fn rule(change: CheckedChange) -> crate::links::change::SettingsRule {
    Arc::new(move |settings| change.apply(settings))
}
