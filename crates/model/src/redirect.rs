//! [`decide`]: what a visitor of a link gets. Pure, and tested by a table.

use crate::click::Purpose;
use crate::link::{ClickLimit, LinkRecord, LinkSettings, RedirectType, Removal};
use crate::time::Timestamp;
use std::borrow::Cow;

/// What is known of whoever follows a link. Rules by device, country and language will find their facts here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visitor<'a> {
    /// The query of the request, without `?`.
    pub query: Option<&'a str>,
    /// The request asks for the head only.
    pub is_head: bool,
    /// Why it asks, by its headers.
    pub purpose: Purpose,
    /// It is a service that shows what a link leads to where the link was posted.
    pub is_preview: bool,
    /// The visitor has given this link's password.
    pub is_unlocked: bool,
}

/// How long an answer may be kept, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// `no-store`: nobody.
    NoStore,
    /// `private, no-store`: nobody, and shared caches are told twice.
    PrivateNoStore,
    /// `private, max-age=N`: the visitor's browser for N seconds.
    PrivateMaxAge(u32),
}

/// The outcome of following a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Send the visitor on.
    Redirect(Redirect<'a>),
    /// Nobody ever made such a link here.
    NotFound,
    /// Its start lies ahead.
    NotStarted(Timestamp),
    /// It is gone for ever, or until its owner extends it.
    Gone(Removal),
    /// Its owner paused it.
    Disabled,
    /// All its clicks are used.
    ClickLimitReached,
    /// It asks for a password.
    PasswordRequired,
    /// It can be followed, but whoever asks doesn't follow it now: say nothing of the target, use no click.
    Neutral,
}

/// Where to send a visitor and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect<'a> {
    /// The address, safe in a header.
    pub location: Cow<'a, str>,
    /// With which status.
    pub redirect_type: RedirectType,
    /// How long the answer may be kept.
    pub cache: CachePolicy,
    /// One of the link's limited clicks must be taken, durably, before the visitor learns the address.
    pub takes_click: bool,
    /// The address must not be told on in a Referer header, since the link is secret.
    pub is_secret: bool,
}

/// Longest time in seconds that a browser may keep a permanent redirect, so that a change still takes effect.
pub const PERMANENT_MAX_AGE_MAX: u32 = 30;

/// Decides what `visitor` gets at `now`.
///
/// `permanent_max_age` bounds, in seconds, how long browsers may keep a permanent redirect.
pub fn decide<'a>(
    record: Option<&'a LinkRecord>,
    visitor: &Visitor<'_>,
    now: Timestamp,
    permanent_max_age: u32,
) -> Decision<'a> {
    let link = match record {
        None => return Decision::NotFound,
        Some(LinkRecord::Removed(removed)) => return Decision::Gone(removed.removal),
        Some(LinkRecord::Present(link)) => link,
    };
    let settings = &link.settings;
    if !settings.enabled {
        return Decision::Disabled;
    }
    if let Some(starts_at) = settings.starts_at.filter(|at| now < *at) {
        return Decision::NotStarted(starts_at);
    }
    if link.is_expired(now) {
        return match &settings.fallback {
            None => Decision::Gone(Removal::Expired),
            Some(fallback) => Decision::Redirect(Redirect {
                location: Cow::Borrowed(fallback.as_str()),
                redirect_type: RedirectType::Found,
                cache: CachePolicy::NoStore,
                takes_click: false,
                is_secret: false,
            }),
        };
    }
    if link.click_limit().is_some_and(ClickLimit::is_reached) {
        return Decision::ClickLimitReached;
    }
    if settings.password_hash.is_some() && !visitor.is_unlocked {
        return Decision::PasswordRequired;
    }
    let visits = !visitor.is_head && visitor.purpose == Purpose::Visit && !visitor.is_preview;
    if settings.click_limit.is_some() && !visits {
        return Decision::Neutral;
    }
    let location = match visitor.query {
        Some(query) if settings.forward_query && !query.is_empty() => {
            Cow::Owned(with_query(settings.target.as_str(), query))
        }
        _ => Cow::Borrowed(settings.target.as_str()),
    };
    Decision::Redirect(Redirect {
        location,
        redirect_type: settings.redirect_type,
        cache: cache_policy(settings, now, permanent_max_age),
        takes_click: settings.click_limit.is_some(),
        is_secret: settings.password_hash.is_some(),
    })
}

/// How long browsers may keep the redirect of a link with these settings that can be followed at `now`.
pub fn cache_policy(settings: &LinkSettings, now: Timestamp, permanent_max_age: u32) -> CachePolicy {
    if settings.password_hash.is_some() || settings.click_limit.is_some() || settings.starts_at.is_some() {
        return CachePolicy::NoStore;
    }
    max_age(settings.redirect_type, settings.expires_at, now, permanent_max_age)
}

/// The policy of a link without conditions. A kept answer never outlives the link: whole seconds, rounded down.
pub fn max_age(
    redirect_type: RedirectType,
    expires_at: Option<Timestamp>,
    now: Timestamp,
    permanent_max_age: u32,
) -> CachePolicy {
    if !redirect_type.is_permanent() {
        return CachePolicy::PrivateNoStore;
    }
    let bound = permanent_max_age.min(PERMANENT_MAX_AGE_MAX);
    let left = expires_at.map_or(i64::MAX, |at| at.as_millis() - now.as_millis()) / 1000;
    match u32::try_from(left).unwrap_or(u32::MAX).min(bound) {
        0 => CachePolicy::PrivateNoStore,
        seconds => CachePolicy::PrivateMaxAge(seconds),
    }
}

/// The target with the visitor's query behind its own. Bytes that a browser would escape are escaped, so that
/// nothing of the query can end the header or become a fragment.
fn with_query(target: &str, query: &str) -> String {
    let (address, fragment) = match target.find('#') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut url = String::with_capacity(target.len() + query.len() + 1);
    url.push_str(address);
    if !address.ends_with(['?', '&']) {
        url.push(if address.contains('?') { '&' } else { '?' });
    }
    for byte in query.bytes() {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\'' | 0..=0x20 | 0x7f.. => {
                let hex = |nibble: u8| {
                    char::from_digit(u32::from(nibble), 16).expect("a nibble").to_ascii_uppercase()
                };
                url.extend(['%', hex(byte >> 4), hex(byte & 15)]);
            }
            _ => url.push(char::from(byte)),
        }
    }
    url.push_str(fragment);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::ShortCode;
    use crate::code_space::LinkId;
    use crate::domain::DomainId;
    use crate::link::{Link, LinkKey, Revision};
    use crate::target::TargetUrl;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp::MAX;
    const TARGET: &str = "https://example.com/a?b=1#c";

    fn noon() -> Timestamp {
        Timestamp::from_millis(NOON.as_millis() - 86_400_000)
    }

    fn link(change: impl FnOnce(&mut Link)) -> LinkRecord {
        let mut link = Link {
            id: LinkId(1),
            key: LinkKey { domain: DomainId::DEFAULT, code: ShortCode::parse("abcdefg").unwrap() },
            named: false,
            owner: None,
            manage_token: None,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            revision: Revision::FIRST,
            clicks_used: 0,
            settings: LinkSettings::plain(TargetUrl::parse(TARGET).unwrap()),
        };
        change(&mut link);
        LinkRecord::Present(link)
    }

    fn redirect(change: impl FnOnce(&mut Redirect<'_>)) -> Decision<'static> {
        let mut redirect = Redirect {
            location: Cow::Borrowed(TARGET),
            redirect_type: RedirectType::Found,
            cache: CachePolicy::PrivateNoStore,
            takes_click: false,
            is_secret: false,
        };
        change(&mut redirect);
        Decision::Redirect(redirect)
    }

    #[track_caller]
    fn check(record: &LinkRecord, visitor: Visitor<'_>, expected: Decision<'_>) {
        assert_eq!(decide(Some(record), &visitor, noon(), 30), expected);
    }

    fn anyone() -> Visitor<'static> {
        Visitor::default()
    }

    #[test]
    fn a_plain_link_redirects() {
        check(&link(|_| ()), anyone(), redirect(|_| ()));
        check(
            &link(|_| ()),
            Visitor { is_head: true, purpose: Purpose::Prefetch, ..anyone() },
            redirect(|_| ()),
        );
        check(&link(|_| ()), Visitor { query: Some("x=1"), ..anyone() }, redirect(|_| ()));
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_what_is_gone() {
        assert_eq!(decide(None, &anyone(), noon(), 30), Decision::NotFound);
        let LinkRecord::Present(present) = link(|_| ()) else { unreachable!() };
        for removal in [Removal::Deleted, Removal::Expired] {
            let removed = LinkRecord::Removed(present.clone().remove(removal, noon()));
            check(&removed, anyone(), Decision::Gone(removal));
        }
    }

    #[test]
    fn a_link_ends_at_its_expiry_to_the_millisecond() {
        let expires_in = |millis: i64| {
            link(|link| link.settings.expires_at = Some(Timestamp::from_millis(noon().as_millis() + millis)))
        };
        check(&expires_in(1), anyone(), redirect(|_| ()));
        check(&expires_in(0), anyone(), Decision::Gone(Removal::Expired));
        check(&expires_in(-1), anyone(), Decision::Gone(Removal::Expired));
    }

    #[test]
    fn a_fallback_takes_over_after_the_expiry() {
        let record = link(|link| {
            link.settings.expires_at = Some(noon());
            link.settings.redirect_type = RedirectType::MovedPermanently;
            link.settings.password_hash = Some("hash".to_owned());
            link.settings.fallback = Some(TargetUrl::parse("https://fallback.example/").unwrap());
        });
        check(
            &record,
            anyone(),
            redirect(|it| {
                it.location = Cow::Borrowed("https://fallback.example/");
                it.cache = CachePolicy::NoStore;
            }),
        );
    }

    #[test]
    fn a_permanent_redirect_is_kept_for_a_bounded_time_and_never_past_the_expiry() {
        let check_age = |left_millis: Option<i64>, permanent_max_age: u32, expected: CachePolicy| {
            let record = link(|link| {
                link.settings.redirect_type = RedirectType::PermanentRedirect;
                link.settings.expires_at =
                    left_millis.map(|left| Timestamp::from_millis(noon().as_millis() + left));
            });
            match decide(Some(&record), &anyone(), noon(), permanent_max_age) {
                Decision::Redirect(redirect) => assert_eq!(redirect.cache, expected),
                other => panic!("{other:?}"),
            }
        };
        check_age(None, 30, CachePolicy::PrivateMaxAge(30));
        check_age(None, 10, CachePolicy::PrivateMaxAge(10));
        check_age(None, 86_400, CachePolicy::PrivateMaxAge(PERMANENT_MAX_AGE_MAX));
        check_age(None, 0, CachePolicy::PrivateNoStore);
        check_age(Some(29_999), 30, CachePolicy::PrivateMaxAge(29));
        check_age(Some(999), 30, CachePolicy::PrivateNoStore);
    }

    #[test]
    fn conditions_come_in_a_fixed_order() {
        let start = Timestamp::from_millis(noon().as_millis() + 1);
        type Condition = (fn(&mut Link), Decision<'static>);
        let conditions: [Condition; 5] = [
            (|link| link.settings.password_hash = Some("hash".to_owned()), Decision::PasswordRequired),
            (
                |link| {
                    link.settings.click_limit = Some(3);
                    link.clicks_used = 3;
                },
                Decision::ClickLimitReached,
            ),
            (|link| link.settings.expires_at = Some(noon()), Decision::Gone(Removal::Expired)),
            (
                |link| link.settings.starts_at = Some(Timestamp::from_millis(noon().as_millis() + 1)),
                Decision::NotStarted(start),
            ),
            (|link| link.settings.enabled = false, Decision::Disabled),
        ];
        // Each one wins over all before it.
        let mut record = link(|_| ());
        for (set, expected) in conditions {
            let LinkRecord::Present(link) = &mut record else { unreachable!() };
            set(link);
            check(&record, anyone(), expected);
        }
    }

    #[test]
    fn a_limited_link_takes_clicks_from_those_who_follow_it() {
        let record = link(|link| link.settings.click_limit = Some(1));
        let limited = || {
            redirect(|it| {
                it.cache = CachePolicy::NoStore;
                it.takes_click = true;
            })
        };
        check(&record, anyone(), limited());
        check(&record, Visitor { is_head: true, ..anyone() }, Decision::Neutral);
        check(&record, Visitor { purpose: Purpose::Prefetch, ..anyone() }, Decision::Neutral);
    }

    #[test]
    fn a_password_opens_a_link_that_nobody_may_keep() {
        let record = link(|link| {
            link.settings.password_hash = Some("hash".to_owned());
            link.settings.redirect_type = RedirectType::MovedPermanently;
        });
        check(&record, anyone(), Decision::PasswordRequired);
        check(
            &record,
            Visitor { is_unlocked: true, ..anyone() },
            redirect(|it| {
                it.redirect_type = RedirectType::MovedPermanently;
                it.cache = CachePolicy::NoStore;
                it.is_secret = true;
            }),
        );
    }

    #[test]
    fn a_link_with_a_start_time_is_never_kept() {
        let record = link(|link| {
            link.settings.starts_at = Some(noon());
            link.settings.redirect_type = RedirectType::MovedPermanently;
        });
        check(
            &record,
            anyone(),
            redirect(|it| {
                it.redirect_type = RedirectType::MovedPermanently;
                it.cache = CachePolicy::NoStore;
            }),
        );
    }

    #[test]
    fn queries_are_forwarded() {
        let forward = |target: &str, query: &str| {
            let target = TargetUrl::parse(target).unwrap();
            let record = link(|link| {
                link.settings.target = target;
                link.settings.forward_query = true;
            });
            match decide(Some(&record), &Visitor { query: Some(query), ..anyone() }, noon(), 30) {
                Decision::Redirect(redirect) => redirect.location.into_owned(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(forward("https://a.example/p", "x=1"), "https://a.example/p?x=1");
        assert_eq!(forward("https://a.example/p?q=2", "x=1"), "https://a.example/p?q=2&x=1");
        assert_eq!(forward("https://a.example/p?", "x=1"), "https://a.example/p?x=1");
        assert_eq!(forward("https://a.example/p#f?g", "x=1"), "https://a.example/p?x=1#f?g");
        assert_eq!(forward("https://a.example/p", ""), "https://a.example/p");
        assert_eq!(
            forward("https://a.example/p", "x=\"<é>\r\n#"),
            "https://a.example/p?x=%22%3C%C3%A9%3E%0D%0A%23"
        );
    }

    proptest! {
        #[test]
        fn a_forwarded_query_stays_inside_the_header(query in "\\PC{0,40}") {
            let url = with_query(TARGET, &query);
            prop_assert!(url.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            prop_assert_eq!(TargetUrl::parse(&url).map(|url| url.to_string()), Ok(url));
        }
    }
}
