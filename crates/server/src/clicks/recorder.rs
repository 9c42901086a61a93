//! Records clicks on the redirect path: what is cheap to know, and then the address is gone.

use super::agent::purpose_of;
use super::country::{self, Countries};
use super::journal::{Event, Journal};
use super::referrer::{kept, language_of, user_agent_kept};
use super::visitor::Visitors;
use crate::metrics::Metrics;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use terse_model::click::{Day, Purpose};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;

/// Records clicks.
#[derive(Debug)]
pub struct Recorder {
    /// Where to.
    pub journal: Journal,
    /// Tells visitors apart.
    pub visitors: Arc<Visitors>,
    /// Finds countries.
    pub countries: Arc<Countries>,
    /// Whether a referrer's query is kept.
    pub keeps_query: bool,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Visit<'a> {
    /// From where. It is never written down.
    pub address: IpAddr,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// What it says of itself.
    pub headers: VisitHeaders<'a>,
}

/// Headers that tell something about a visit.
#[derive(Clone, Debug, Default)]
pub struct VisitHeaders<'a> {
    /// `Sec-Purpose`, `Purpose` or `X-Moz`.
    pub purpose: Option<Cow<'a, [u8]>>,
    /// `User-Agent`.
    pub user_agent: Option<Cow<'a, [u8]>>,
    /// `Referer`.
    pub referrer: Option<Cow<'a, [u8]>>,
    /// `Accept-Language`.
    pub language: Option<Cow<'a, [u8]>>,
    /// The visitor's country by the word of a trusted proxy.
    pub country: Option<Cow<'a, [u8]>>,
}

impl Visit<'_> {
    /// The same, for an answer that has to be waited for.
    pub fn into_owned(self) -> Visit<'static> {
        let owned = |header: Option<Cow<'_, [u8]>>| header.map(|header| Cow::Owned(header.into_owned()));
        let VisitHeaders { purpose, user_agent, referrer, language, country } = self.headers;
        let headers = VisitHeaders {
            purpose: owned(purpose),
            user_agent: owned(user_agent),
            referrer: owned(referrer),
            language: owned(language),
            country: owned(country),
        };
        Visit { address: self.address, is_head: self.is_head, headers }
    }

    /// Why the link was fetched.
    pub fn purpose(&self) -> Purpose {
        self.headers.purpose.as_deref().map_or(Purpose::Visit, purpose_of)
    }
}

/// The link that was followed.
#[derive(Clone, Copy, Debug)]
pub struct Clicked<'a> {
    /// Its identity.
    pub link: LinkId,
    /// The domain that serves it.
    pub domain: DomainId,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// Its tags, each followed by a line feed.
    pub tags: &'a str,
}

impl Recorder {
    /// Records that `visit` was sent on. A click that there is no room for is counted as dropped; nobody waits.
    pub fn record(&self, visit: &Visit<'_>, clicked: &Clicked<'_>, now: Timestamp) {
        let user_agent = visit.headers.user_agent.as_deref().unwrap_or_default();
        let country = match &visit.headers.country {
            Some(header) => country::of_header(header),
            None => self.countries.of(visit.address),
        };
        let referrer = visit.headers.referrer.as_deref().and_then(|header| kept(header, self.keeps_query));
        let language = visit.headers.language.as_deref().map(language_of).unwrap_or_default();
        let event = Event {
            at: now,
            link: clicked.link,
            domain: clicked.domain,
            owner: clicked.owner,
            tags: clicked.tags,
            visitor: self.visitors.hash(Day::of(now), visit.address, user_agent),
            country,
            is_head: visit.is_head,
            purpose: visit.purpose(),
            language: language.as_str(),
            user_agent: &user_agent_kept(user_agent),
            referrer: referrer.as_deref().unwrap_or_default(),
        };
        match self.journal.append(&event) {
            Ok(()) => self.metrics.clicks_appended.inc(),
            Err(_) => self.metrics.clicks_dropped.inc(),
        };
    }
}
