//! [`Link`]: the record at the centre of everything.

use crate::code::ShortCode;
use crate::code_space::LinkId;
use crate::domain::DomainId;
use crate::target::TargetUrl;
use crate::tenant::{SecretHash, UserId};
use crate::time::Timestamp;

/// What a link is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    /// The domain that serves it.
    pub domain: DomainId,
    /// The path part.
    pub code: ShortCode,
}

/// How often a link has been written; 1 after its creation. An update says which revision it is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u32);

impl Revision {
    /// That of a new link.
    pub const FIRST: Revision = Revision(1);

    /// That of the next write.
    pub fn next(self) -> Self {
        Revision(self.0.saturating_add(1))
    }
}

/// The status of a link's redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RedirectType {
    /// 301: browsers may keep it, and may change POST to GET.
    MovedPermanently,
    /// 302: asked again each time.
    #[default]
    Found,
    /// 307: asked again each time, keeps the method.
    TemporaryRedirect,
    /// 308: browsers may keep it, keeps the method.
    PermanentRedirect,
}

impl RedirectType {
    /// The HTTP status (RFC 9110, 15.4).
    pub fn status(self) -> u16 {
        match self {
            RedirectType::MovedPermanently => 301,
            RedirectType::Found => 302,
            RedirectType::TemporaryRedirect => 307,
            RedirectType::PermanentRedirect => 308,
        }
    }

    /// The type with this HTTP status.
    pub fn from_status(status: u16) -> Option<Self> {
        match status {
            301 => Some(RedirectType::MovedPermanently),
            302 => Some(RedirectType::Found),
            307 => Some(RedirectType::TemporaryRedirect),
            308 => Some(RedirectType::PermanentRedirect),
            _ => None,
        }
    }

    /// Reads a status, or `permanent` (301) or `temporary` (302).
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "301" | "permanent" => Some(RedirectType::MovedPermanently),
            "302" | "temporary" => Some(RedirectType::Found),
            "307" => Some(RedirectType::TemporaryRedirect),
            "308" => Some(RedirectType::PermanentRedirect),
            _ => None,
        }
    }

    /// Whether browsers may keep the answer.
    pub fn is_permanent(self) -> bool {
        matches!(self, RedirectType::MovedPermanently | RedirectType::PermanentRedirect)
    }
}

/// A bound on how often a link's target may be revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickLimit {
    /// How often in all.
    pub limit: u32,
    /// How often it was.
    pub used: u32,
}

impl ClickLimit {
    /// Whether no click is left.
    pub fn is_reached(self) -> bool {
        self.used >= self.limit
    }
}

/// Everything about a link that its owner may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Where it leads.
    pub target: TargetUrl,
    /// With which status.
    pub redirect_type: RedirectType,
    /// A paused link answers that it is disabled.
    pub enabled: bool,
    /// Never served from this instant on.
    pub expires_at: Option<Timestamp>,
    /// Not served before this instant.
    pub starts_at: Option<Timestamp>,
    /// Where an expired link leads instead of answering 410.
    pub fallback: Option<TargetUrl>,
    /// Whether the visitor's query is added to the target's.
    pub forward_query: bool,
    /// How often the target may be revealed.
    pub click_limit: Option<u32>,
    /// Argon2id hash in PHC string form of the password that visitors are asked for.
    pub password_hash: Option<String>,
    /// For people: a title.
    pub title: Option<String>,
    /// For people: labels to find it by.
    pub tags: Vec<String>,
    /// For people: anything.
    pub notes: Option<String>,
}

impl LinkSettings {
    /// Settings with nothing but a target.
    pub fn plain(target: TargetUrl) -> Self {
        LinkSettings {
            target,
            redirect_type: RedirectType::default(),
            enabled: true,
            expires_at: None,
            starts_at: None,
            fallback: None,
            forward_query: false,
            click_limit: None,
            password_hash: None,
            title: None,
            tags: Vec::new(),
            notes: None,
        }
    }
}

/// A link that is there: it may be paused, expired or not started, but it holds its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its identity.
    pub id: LinkId,
    /// How it is found.
    pub key: LinkKey,
    /// Whether its code was chosen (an alias) rather than generated from its id.
    pub named: bool,
    /// Who owns it; nobody owns what was made anonymously.
    pub owner: Option<UserId>,
    /// Lets whoever holds the token manage an anonymous link.
    pub manage_token: Option<SecretHash>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// How often it was written.
    pub revision: Revision,
    /// How many of its limited clicks are used.
    pub clicks_used: u32,
    /// What its owner may change.
    pub settings: LinkSettings,
}

impl Link {
    /// The click limit with its use.
    pub fn click_limit(&self) -> Option<ClickLimit> {
        self.settings.click_limit.map(|limit| ClickLimit { limit, used: self.clicks_used })
    }

    /// Whether it is past its expiry.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.settings.expires_at.is_some_and(|at| now >= at)
    }

    /// What its owner sees of its state.
    pub fn state(&self, now: Timestamp) -> LinkState {
        if !self.settings.enabled {
            LinkState::Disabled
        } else if self.is_expired(now) {
            LinkState::Expired
        } else if self.settings.starts_at.is_some_and(|at| now < at) {
            LinkState::Scheduled
        } else if self.click_limit().is_some_and(ClickLimit::is_reached) {
            LinkState::Exhausted
        } else {
            LinkState::Active
        }
    }

    /// Shrinks the link to what is kept of it for ever.
    pub fn remove(self, removal: Removal, now: Timestamp) -> RemovedLink {
        RemovedLink {
            id: self.id,
            key: self.key,
            named: self.named,
            owner: self.owner,
            manage_token: self.manage_token,
            created_at: self.created_at,
            removed_at: now,
            revision: self.revision.next(),
            removal,
        }
    }
}

/// Why a link is gone for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// Its owner deleted it.
    Deleted,
    /// It expired and was swept.
    Expired,
}

/// What is left of a removed link: enough to answer why, to know whose it was, and to never reuse its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedLink {
    /// Its identity.
    pub id: LinkId,
    /// How it was found.
    pub key: LinkKey,
    /// Whether its code was chosen.
    pub named: bool,
    /// Who owned it.
    pub owner: Option<UserId>,
    /// Who could manage it without owning it.
    pub manage_token: Option<SecretHash>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was removed.
    pub removed_at: Timestamp,
    /// How often it was written.
    pub revision: Revision,
    /// Why it is gone.
    pub removal: Removal,
}

/// What a store holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkRecord {
    /// A link with its settings.
    Present(Link),
    /// What is left of one.
    Removed(RemovedLink),
}

impl LinkRecord {
    /// How it is found.
    pub fn key(&self) -> &LinkKey {
        match self {
            LinkRecord::Present(link) => &link.key,
            LinkRecord::Removed(link) => &link.key,
        }
    }

    /// Its identity.
    pub fn id(&self) -> LinkId {
        match self {
            LinkRecord::Present(link) => link.id,
            LinkRecord::Removed(link) => link.id,
        }
    }

    /// Who owns it.
    pub fn owner(&self) -> Option<UserId> {
        match self {
            LinkRecord::Present(link) => link.owner,
            LinkRecord::Removed(link) => link.owner,
        }
    }

    /// The hash of its manage token.
    pub fn manage_token(&self) -> Option<SecretHash> {
        match self {
            LinkRecord::Present(link) => link.manage_token,
            LinkRecord::Removed(link) => link.manage_token,
        }
    }

    /// Whether its clicks are limited.
    pub fn takes_clicks(&self) -> bool {
        matches!(self, LinkRecord::Present(link) if link.settings.click_limit.is_some())
    }

    /// What its owner sees of its state.
    pub fn state(&self, now: Timestamp) -> LinkState {
        match self {
            LinkRecord::Present(link) => link.state(now),
            LinkRecord::Removed(RemovedLink { removal: Removal::Deleted, .. }) => LinkState::Deleted,
            LinkRecord::Removed(RemovedLink { removal: Removal::Expired, .. }) => LinkState::Expired,
        }
    }
}

/// A link's state, as shown and filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// It redirects.
    Active,
    /// Its owner paused it.
    Disabled,
    /// Its start lies ahead.
    Scheduled,
    /// Its expiry is past.
    Expired,
    /// Its click limit is used up.
    Exhausted,
    /// Its owner deleted it.
    Deleted,
}

impl LinkState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Active => "active",
            LinkState::Disabled => "disabled",
            LinkState::Scheduled => "scheduled",
            LinkState::Expired => "expired",
            LinkState::Exhausted => "exhausted",
            LinkState::Deleted => "deleted",
        }
    }
}
