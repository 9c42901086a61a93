//! Requests for short links become answers, without any HTTP library's types: each connection loop brings its own.

use super::cache::{Known, Plain, joined_tags};
use super::resolver::{Resolver, Unresolved};
use crate::clicks::agent::is_preview;
use crate::clicks::recorder::{Clicked, Recorder, Visit, VisitHeaders};
use crate::clock::Clock;
use crate::domains::Domains;
use crate::limit::{Limiter, Rate, Verdict, counted_address};
use crate::metrics::Metrics;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use terse_model::code::ShortCode;
use terse_model::domain::DomainId;
use terse_model::link::{LinkKey, LinkRecord, RedirectType, Removal};
use terse_model::redirect::{CachePolicy, Decision, Redirect, Visitor, decide, max_age};
use terse_model::store::{ClickTaken, LinkStore, StoreError};
use terse_model::time::Timestamp;

/// A request for a short link.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HEAD rather than GET.
    pub is_head: bool,
    /// The host that was asked, with its port if it was given.
    pub host: Option<&'a str>,
    /// The path's only segment, as it was sent: see [`Request::code_in`].
    pub code: &'a str,
    /// What follows `?`.
    pub query: Option<&'a str>,
    /// Who asks.
    pub address: IpAddr,
    /// The same, when that is worth limiting.
    pub limited_address: Option<IpAddr>,
    /// The other headers, which few links need.
    pub headers: &'a dyn Headers,
}

/// Reads a request's headers.
pub trait Headers: std::fmt::Debug + Sync {
    /// All cookies, as if they were in one field.
    fn cookies(&self) -> Option<Vec<u8>>;
    /// What is recorded of a click, in one pass.
    fn visit(&self) -> VisitHeaders<'_>;
}

/// What becomes of a request, at once.
#[derive(Debug)]
pub enum Lookup {
    /// This is the answer.
    Ready(Answer),
    /// The answer needs something that has to be waited for.
    Miss(Box<Miss>),
}

/// The answer to a request for a short link.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Send the visitor on.
    Reveal(Reveal),
    /// The link can be followed, but not by this request, which learns nothing.
    Neutral,
    /// Ask for the password of the link under this code.
    AskPassword {
        /// The code.
        code: ShortCode,
        /// The query, which the link may forward.
        query: Option<String>,
    },
    /// Don't.
    Refuse(Refusal),
}

/// A redirect.
#[derive(Clone, Debug)]
pub struct Reveal {
    /// Where to, in bytes that are safe in a header.
    pub location: Arc<str>,
    /// The status.
    pub redirect_type: RedirectType,
    /// How long the answer may be kept.
    pub cache: CachePolicy,
    /// The target's server must not learn where the visitor comes from.
    pub is_secret: bool,
}

impl Reveal {
    /// The value of `Cache-Control`.
    pub fn cache_control(&self) -> Cow<'static, str> {
        match self.cache {
            CachePolicy::NoStore => "no-store".into(),
            CachePolicy::PrivateNoStore => "private, no-store".into(),
            CachePolicy::PrivateMaxAge(seconds) => format!("private, max-age={seconds}").into(),
        }
    }
}

/// Why there is no redirect.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// Nobody made such a link, or it can't be one.
    NotFound,
    /// It begins later.
    NotStarted {
        /// Seconds until it does.
        wait_seconds: u64,
    },
    /// It is gone.
    Gone(Removal),
    /// It is paused.
    Disabled,
    /// Its clicks are used.
    ClickLimitReached,
    /// The caller asks too often.
    RateLimited(Verdict),
    /// We can't say now.
    Unavailable,
}

/// What the password of a link opens.
pub trait Secrets: std::fmt::Debug + Send + Sync {
    /// Whether `cookies` hold a proof, good at `now`, that the visitor gave this link's password.
    fn is_unlocked(&self, record: &LinkRecord, cookies: &[u8], now: Timestamp) -> bool;
}

/// Answers requests for short links.
#[derive(Debug)]
pub struct Handler {
    /// Finds links.
    pub resolver: Resolver,
    /// Finds domains.
    pub domains: Arc<Domains>,
    /// Takes limited clicks.
    pub store: Arc<dyn LinkStore>,
    /// Reads password cookies.
    pub secrets: Arc<dyn Secrets>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Seconds that browsers may keep permanent redirects.
    pub permanent_max_age: u32,
    /// Redirects that one address may have.
    pub limiter: Option<(Limiter<IpAddr>, Rate)>,
    /// Records clicks, where that is wanted.
    pub recorder: Option<Recorder>,
}

impl<'a> Request<'a> {
    /// What a click may be recorded of.
    pub fn visit(&self) -> Visit<'a> {
        Visit { address: self.address, is_head: self.is_head, headers: self.headers.visit() }
    }

    /// The segment of a path that can be a short code: one, with perhaps one slash behind it.
    pub fn code_in(path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix('/')?;
        let segment = rest.strip_suffix('/').unwrap_or(rest);
        (!segment.is_empty() && !segment.contains('/')).then_some(segment)
    }

    /// Whether the value of a Host header can be a host with perhaps a port (RFC 9110, section 7.2).
    pub fn is_host(value: &[u8]) -> bool {
        value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte))
    }
}

impl Handler {
    /// The answer, if it can be had without waiting. Never blocks.
    pub fn lookup(self: &Arc<Self>, request: &Request<'_>) -> Lookup {
        let now = self.clock.now();
        if let Some(refusal) = request.limited_address.and_then(|address| self.limit(address, now)) {
            return Lookup::Ready(self.refuse(refusal));
        }
        let Some(key) = self.key_of(request) else {
            return Lookup::Ready(self.refuse(Refusal::NotFound));
        };
        match self.resolver.peek(&key, now) {
            Some(Known::Plain(plain)) => {
                Lookup::Ready(self.answer_plain(plain, key.domain, || request.visit(), now))
            }
            Some(known) => self.answer_known(&key, known, &Asked::of(request), now),
            None => {
                let asked = Asked::of(request);
                Lookup::Miss(Box::new(Miss { handler: self.clone(), key, asked, then: Then::Load }))
            }
        }
    }

    /// Counts a request of this address against its rate; refuses one too many.
    pub fn limit(&self, address: IpAddr, now: Timestamp) -> Option<Refusal> {
        let (limiter, rate) = self.limiter.as_ref()?;
        let verdict = limiter.check(&counted_address(address), *rate, now);
        (!verdict.allowed).then_some(Refusal::RateLimited(verdict))
    }

    /// What is under the key of a request, for those who ask without following it.
    pub async fn find(&self, key: &LinkKey) -> Result<Known, Unresolved> {
        match self.resolver.peek(key, self.clock.now()) {
            Some(known) => Ok(known),
            None => self.resolver.load(key).await,
        }
    }

    /// The key that a request asks for; `None` when there can be none.
    pub fn key_of(&self, request: &Request<'_>) -> Option<LinkKey> {
        let domain = self.domains.of_host(request.host)?;
        let code = if request.code.contains('%') {
            let decoded = percent_encoding::percent_decode_str(request.code).decode_utf8().ok()?;
            ShortCode::parse(&decoded).ok()?
        } else {
            ShortCode::parse(request.code).ok()?
        };
        Some(LinkKey { domain, code })
    }

    /// After the password of `record` was given: what the visitor gets.
    pub async fn follow_unlocked(
        self: &Arc<Self>,
        record: Arc<LinkRecord>,
        query: Option<String>,
        visit: Visit<'static>,
    ) -> Answer {
        let asked = Asked { query, cookies: None, is_unlocked: true, visit };
        let now = self.clock.now();
        let key = record.key().clone();
        match self.answer_known(&key, Known::Ruled(record), &asked, now) {
            Lookup::Ready(answer) => answer,
            Lookup::Miss(miss) => miss.wait().await,
        }
    }

    fn answer_plain<'a>(
        &self,
        plain: Plain,
        domain: DomainId,
        visit: impl FnOnce() -> Visit<'a>,
        now: Timestamp,
    ) -> Answer {
        if plain.expires_at.is_some_and(|at| now >= at) {
            return self.refuse(Refusal::Gone(Removal::Expired));
        }
        let tags = plain.tags.as_deref().unwrap_or_default();
        let clicked = Clicked { link: plain.id, domain, owner: plain.owner, tags };
        let reveal = Reveal {
            cache: max_age(plain.redirect_type, plain.expires_at, now, self.permanent_max_age),
            location: plain.location,
            redirect_type: plain.redirect_type,
            is_secret: false,
        };
        self.reveal(reveal, &clicked, visit, now)
    }

    fn answer_known(self: &Arc<Self>, key: &LinkKey, known: Known, asked: &Asked, now: Timestamp) -> Lookup {
        let record = match known {
            Known::Plain(plain) => {
                return Lookup::Ready(self.answer_plain(plain, key.domain, || asked.visit.clone(), now));
            }
            Known::Missing => return Lookup::Ready(self.refuse(Refusal::NotFound)),
            Known::Ruled(record) => record,
        };
        let is_unlocked = asked.is_unlocked
            || asked.cookies.as_ref().is_some_and(|cookies| self.secrets.is_unlocked(&record, cookies, now));
        let user_agent = asked.visit.headers.user_agent.as_deref().unwrap_or_default();
        let visitor = Visitor {
            query: asked.query.as_deref(),
            is_head: asked.visit.is_head,
            purpose: asked.visit.purpose(),
            is_preview: record.takes_clicks() && is_preview(user_agent),
            is_unlocked,
        };
        let refusal = match decide(Some(&record), &visitor, now, self.permanent_max_age) {
            Decision::Redirect(redirect) if redirect.takes_click => {
                let reveal = reveal_of(redirect);
                let then = Then::TakeClick(record.clone(), reveal);
                let asked = asked.clone();
                let miss = Miss { handler: self.clone(), key: key.clone(), asked, then };
                return Lookup::Miss(Box::new(miss));
            }
            Decision::Redirect(redirect) => {
                return Lookup::Ready(self.reveal_record(reveal_of(redirect), &record, &asked.visit, now));
            }
            Decision::Neutral => return Lookup::Ready(Answer::Neutral),
            Decision::PasswordRequired => {
                let (code, query) = (key.code.clone(), asked.query.clone());
                return Lookup::Ready(Answer::AskPassword { code, query });
            }
            Decision::NotFound => Refusal::NotFound,
            Decision::NotStarted(at) => Refusal::NotStarted { wait_seconds: now.seconds_until(at) },
            Decision::Gone(removal) => Refusal::Gone(removal),
            Decision::Disabled => Refusal::Disabled,
            Decision::ClickLimitReached => Refusal::ClickLimitReached,
        };
        Lookup::Ready(self.refuse(refusal))
    }

    fn reveal_record(
        &self,
        reveal: Reveal,
        record: &LinkRecord,
        visit: &Visit<'static>,
        now: Timestamp,
    ) -> Answer {
        let LinkRecord::Present(link) = record else { return self.refuse(Refusal::NotFound) };
        let tags = joined_tags(&link.settings.tags).unwrap_or_default();
        let clicked = Clicked { link: link.id, domain: link.key.domain, owner: link.owner, tags: &tags };
        self.reveal(reveal, &clicked, || visit.clone(), now)
    }

    /// The one place where a target is revealed, and so where a click is recorded: before the first byte leaves.
    fn reveal<'a>(
        &self,
        reveal: Reveal,
        clicked: &Clicked<'_>,
        visit: impl FnOnce() -> Visit<'a>,
        now: Timestamp,
    ) -> Answer {
        self.metrics.redirects.inc();
        if let Some(recorder) = &self.recorder {
            recorder.record(&visit(), clicked, now);
        }
        Answer::Reveal(reveal)
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::RateLimited(_) => self.metrics.redirects_limited.inc(),
            Refusal::Unavailable => self.metrics.redirects_unavailable.inc(),
            _ => self.metrics.redirects_refused.inc(),
        };
        Answer::Refuse(refusal)
    }
}

fn reveal_of(redirect: Redirect<'_>) -> Reveal {
    Reveal {
        location: redirect.location.into(),
        redirect_type: redirect.redirect_type,
        cache: redirect.cache,
        is_secret: redirect.is_secret,
    }
}

/// What an answer that has to be waited for keeps of its request.
#[derive(Clone, Debug)]
struct Asked {
    query: Option<String>,
    cookies: Option<Vec<u8>>,
    is_unlocked: bool,
    visit: Visit<'static>,
}

impl Asked {
    fn of(request: &Request<'_>) -> Self {
        Asked {
            query: request.query.map(str::to_owned),
            cookies: request.headers.cookies(),
            is_unlocked: false,
            visit: request.visit().into_owned(),
        }
    }
}

/// How often a request is decided anew because its link changes meanwhile.
const DECISIONS_MAX: usize = 8;

/// An answer that has to be waited for.
#[derive(Debug)]
pub struct Miss {
    handler: Arc<Handler>,
    key: LinkKey,
    asked: Asked,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Load,
    TakeClick(Arc<LinkRecord>, Reveal),
}

impl Miss {
    /// Waits for the store. Needs a tokio runtime, and nothing else of it.
    pub async fn wait(self) -> Answer {
        let Miss { handler, key, asked, mut then } = self;
        for _ in 0..DECISIONS_MAX {
            match then {
                Then::TakeClick(record, reveal) => {
                    match handler.take_click(&record, reveal, &asked.visit).await {
                        Some(answer) => return answer,
                        None => then = Then::Load,
                    }
                }
                Then::Load => match handler.resolver.load(&key).await {
                    Err(_) => return handler.refuse(Refusal::Unavailable),
                    Ok(known) => match handler.answer_known(&key, known, &asked, handler.clock.now()) {
                        Lookup::Ready(answer) => return answer,
                        Lookup::Miss(miss) => then = miss.then,
                    },
                },
            }
        }
        handler.refuse(Refusal::Unavailable)
    }
}

impl Handler {
    /// Takes a click, on disk, before the target is revealed. `None` when the link was changed since the decision.
    async fn take_click(
        &self,
        record: &Arc<LinkRecord>,
        reveal: Reveal,
        visit: &Visit<'static>,
    ) -> Option<Answer> {
        let LinkRecord::Present(link) = &**record else { return None };
        // One that is taken too late is lost: rather one redirect too few than one too many.
        let take = self.store.click_take(link.id, link.revision);
        let taken = tokio::time::timeout(self.resolver.timeout(), take).await;
        match taken.unwrap_or(Err(StoreError::Timeout)) {
            Ok(ClickTaken::Taken) if link.is_expired(self.clock.now()) => None,
            Ok(ClickTaken::Taken) => Some(self.reveal_record(reveal, record, visit, self.clock.now())),
            Ok(ClickTaken::Changed) => {
                self.resolver.cache().invalidate(record.key());
                None
            }
            Ok(ClickTaken::NoneLeft) => {
                // What the cache holds is used up: let it learn so, and the next visitors cost no write.
                self.resolver.cache().invalidate(record.key());
                Some(self.refuse(Refusal::ClickLimitReached))
            }
            Err(error) => {
                tracing::warn!(error = ?error, "Could not take a click of `{}`: {error}", record.key().code);
                self.metrics.store_failures.inc();
                Some(self.refuse(Refusal::Unavailable))
            }
        }
    }
}
