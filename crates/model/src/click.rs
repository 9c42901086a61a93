//! [`Click`]: one served redirect, and what is told apart about it.

use crate::code_space::LinkId;
use crate::domain::DomainId;
use crate::tenant::UserId;
use crate::time::Timestamp;
use compact_str::CompactString;
use std::fmt;
use std::str::FromStr;

/// Where a click was recorded, which makes its identity: no two clicks share a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClickId {
    /// The instance that recorded it.
    pub node: u64,
    /// The journal's lane.
    pub lane: u16,
    /// The segment of the lane.
    pub segment: u64,
    /// The offset in the segment, in bytes.
    pub offset: u32,
}

/// The text is no click's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the identity of a click, which is four hexadecimal numbers with a - between them")]
pub struct InvalidClickId;

impl fmt::Display for ClickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:x}-{:x}", self.node, self.lane, self.segment, self.offset)
    }
}

impl FromStr for ClickId {
    type Err = InvalidClickId;

    fn from_str(text: &str) -> Result<Self, InvalidClickId> {
        let mut parts = text.split('-').map(|part| {
            let is_hex = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_hex { u64::from_str_radix(part, 16).ok() } else { None }
        });
        let mut next = || parts.next().flatten().ok_or(InvalidClickId);
        let id = ClickId {
            node: next()?,
            lane: next()?.try_into().map_err(|_| InvalidClickId)?,
            segment: next()?,
            offset: next()?.try_into().map_err(|_| InvalidClickId)?,
        };
        if parts.next().is_some() { Err(InvalidClickId) } else { Ok(id) }
    }
}

/// Tells visitors of one UTC day apart: a keyed hash of address and user agent, whose key is thrown away at the end of
/// the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorHash(pub u64);

impl fmt::Display for VisitorHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl VisitorHash {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(VisitorHash)
    }
}

/// A country by its ISO 3166-1 alpha-2 code, in upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Takes two letters of either case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Country([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ASCII letters")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

named!(Kind {
    Human = "human",
    Bot = "bot",
    Preview = "preview",
    Prefetch = "prefetch",
    Head = "head",
});

/// Who or what followed a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A person, as far as can be told.
    Human,
    /// A crawler, monitor, feed reader, library or command-line client.
    Bot,
    /// A service that unfurls links where they are posted.
    Preview,
    /// A browser that fetches ahead of a visit that may never come.
    Prefetch,
    /// A HEAD request.
    Head,
}

named!(Device {
    Unknown = "unknown",
    Desktop = "desktop",
    Mobile = "mobile",
    Tablet = "tablet",
    Tv = "tv",
    Console = "console",
});

/// What a browser runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The user agent doesn't tell.
    #[default]
    Unknown,
    /// A computer.
    Desktop,
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A television or a box beside one.
    Tv,
    /// A game console.
    Console,
}

named!(Purpose { Visit = "visit", Prefetch = "prefetch", Preview = "preview" });

/// Why a link was fetched, by the headers Sec-Purpose, Purpose and X-Moz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Nothing else is said.
    #[default]
    Visit,
    /// Ahead of a visit that may never come.
    Prefetch,
    /// To show what is there.
    Preview,
}

named!(Dimension {
    Referrer = "referrer",
    Country = "country",
    Device = "device",
    Browser = "browser",
    Os = "os",
    Language = "language",
});

/// What clicks are counted by, apart from their kind and their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// The host of the page that linked here; empty when none was told.
    Referrer,
    /// The country that the address is assigned to; empty when unknown.
    Country,
    /// The device.
    Device,
    /// The browser's name; empty when unknown.
    Browser,
    /// The operating system's name; empty when unknown.
    Os,
    /// The first language that the browser asks for, in lower case (`de-ch`); empty when it asks for none.
    Language,
}

/// What is counted about a click. An empty text means that it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts<'a> {
    /// Who or what.
    pub kind: Kind,
    /// The host of the page that linked here.
    pub referrer: &'a str,
    /// Two letters.
    pub country: &'a str,
    /// The device.
    pub device: Device,
    /// The browser's name.
    pub browser: &'a str,
    /// The operating system's name.
    pub os: &'a str,
    /// The language.
    pub language: &'a str,
}

impl<'a> Facts<'a> {
    /// The value in a dimension; the device by its name.
    pub fn get(&self, dimension: Dimension) -> &'a str {
        match dimension {
            Dimension::Referrer => self.referrer,
            Dimension::Country => self.country,
            Dimension::Device => self.device.as_str(),
            Dimension::Browser => self.browser,
            Dimension::Os => self.os,
            Dimension::Language => self.language,
        }
    }
}

/// A click with all that is known about it. It never holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click<'a> {
    /// Its identity.
    pub id: ClickId,
    /// When.
    pub at: Timestamp,
    /// Which link.
    pub link: LinkId,
    /// The domain that served it.
    pub domain: DomainId,
    /// Who owned the link then.
    pub owner: Option<UserId>,
    /// The link's tags then, each followed by a line feed.
    pub tags: &'a str,
    /// Who, for a day.
    pub visitor: VisitorHash,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// By its headers.
    pub purpose: Purpose,
    /// The page that linked here, without userinfo and, unless configured, without query.
    pub referrer: &'a str,
    /// As it was sent, cut at a bound.
    pub user_agent: &'a str,
    /// What is counted.
    pub facts: Facts<'a>,
}

impl<'a> Click<'a> {
    /// The link's tags then.
    pub fn tag_list(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.tags.split_terminator('\n')
    }
}

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

/// Milliseconds of a day.
pub const DAY_MILLIS: i64 = 86_400_000;
/// Milliseconds of a quarter of an hour: the finest grain, because time zones are offset by multiples of it.
pub const QUARTER_MILLIS: i64 = 900_000;
/// Quarters of an hour in a day.
pub const QUARTERS: u8 = 96;

impl Day {
    /// The day that `at` lies in.
    pub fn of(at: Timestamp) -> Self {
        Day(at.as_millis().div_euclid(DAY_MILLIS) as i32)
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * DAY_MILLIS)
    }

    /// The day after it.
    pub fn next(self) -> Self {
        Day(self.0 + 1)
    }
}

/// The quarter of an hour of its UTC day that `at` lies in, 0 to 95.
pub fn quarter_of(at: Timestamp) -> u8 {
    (at.as_millis().rem_euclid(DAY_MILLIS) / QUARTER_MILLIS) as u8
}

/// Whose clicks are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Those of one link.
    Link(LinkId),
    /// Those of all links of a user.
    Owner(UserId),
    /// Those of a user's links on one domain.
    OwnerDomain(UserId, DomainId),
    /// Those of a user's links that had this tag when they were clicked.
    OwnerTag(UserId, CompactString),
    /// Those of everybody's links on one domain.
    Domain(DomainId),
    /// All.
    Everything,
}

impl Subject {
    /// Whether `click` is counted here.
    pub fn covers(&self, click: &Click<'_>) -> bool {
        match self {
            Subject::Link(link) => click.link == *link,
            Subject::Owner(user) => click.owner == Some(*user),
            Subject::OwnerDomain(user, domain) => click.owner == Some(*user) && click.domain == *domain,
            Subject::OwnerTag(user, tag) => {
                click.owner == Some(*user) && click.tag_list().any(|one| one == tag.as_str())
            }
            Subject::Domain(domain) => click.domain == *domain,
            Subject::Everything => true,
        }
    }

    /// All that count `click`.
    pub fn of<'a>(
        link: LinkId,
        domain: DomainId,
        owner: Option<UserId>,
        tags: &'a str,
    ) -> impl Iterator<Item = Subject> + use<'a> {
        let owned = owner.into_iter().flat_map(move |user| {
            let tags = tags.split_terminator('\n').map(move |tag| Subject::OwnerTag(user, tag.into()));
            [Subject::Owner(user), Subject::OwnerDomain(user, domain)].into_iter().chain(tags)
        });
        [Subject::Link(link), Subject::Domain(domain), Subject::Everything].into_iter().chain(owned)
    }
}

/// Counts of a subject since its first click.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clicks of people.
    pub human: u64,
    /// Clicks of every kind.
    pub all: u64,
    /// Distinct (visitor, UTC day) of people, estimated.
    pub unique: u64,
    /// The first day with a click.
    pub first_day: Option<Day>,
}
