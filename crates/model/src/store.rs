//! The boundary that every database implements, and what goes over it.
//!
//! A store decides races: which of two callers gets an alias, which of two changes comes first. Rules that need the
//! stored value to decide come in as functions and run where the value can't change under them.

use crate::code_space::{CodeSpace, LinkId};
use crate::domain::{Domain, DomainName};
use crate::link::{Link, LinkKey, LinkRecord, LinkState, Revision};
use crate::tenant::{ApiKey, Role, SecretHash, Tier, User, UserId, UserName};
use crate::time::Timestamp;
use async_trait::async_trait;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Why a store could not answer. None of these says anything about whether a link exists.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, is full, or takes no more work.
    #[error("the store is unavailable")]
    Unavailable(#[source] Source),
    /// It did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// It holds something that it should not.
    #[error("the store holds damaged data: {0}")]
    Corrupt(String),
    /// It refused in a way that we did not foresee.
    #[error("the store failed")]
    Internal(#[source] Source),
}

/// What lies behind an error.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// The answer of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Links, and the ids that they are made of.
#[async_trait]
pub trait LinkStore: fmt::Debug + Send + Sync {
    /// Whether the store knows from memory that nothing is under `key`. `false` says nothing.
    fn surely_absent(&self, key: &LinkKey) -> bool;

    /// The record under `key`: a generated code's row, else a name's, else `None`.
    async fn link_get(&self, key: &LinkKey) -> Result<Option<LinkRecord>>;

    /// Applies all `writes` in their order in one durable transaction and says of each what came of it.
    ///
    /// A write that is refused changes nothing and does not stop the others. With a `receipt`, what it makes of the
    /// outcomes is kept in the same transaction. When this returns `Ok`, everything is on disk. The whole call fails,
    /// and nothing is written, when an id has a row already or the receipt's part has been answered.
    async fn links_write(&self, writes: Vec<LinkWrite>, receipt: Option<Receipt>)
    -> Result<Vec<LinkWritten>>;

    /// Links in descending order of their ids.
    async fn link_list(&self, query: &ListQuery) -> Result<ListPage>;

    /// Takes one of the limited clicks of a link in this revision, durably.
    async fn click_take(&self, id: LinkId, revision: Revision) -> Result<ClickTaken>;

    /// Shrinks up to `limit` links that expired before `before` and have no fallback; returns their keys.
    async fn links_sweep(&self, before: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<LinkKey>>;

    /// Leases the next `count` ids for ever: no other lease will ever hold one of them.
    async fn ids_lease(&self, count: u64) -> Result<IdLease>;

    /// What earlier requests with this idempotency scope were answered, in the order of their parts.
    async fn answers_get(&self, scope: &[u8; 32]) -> Result<Vec<KeptAnswer>>;

    /// Forgets up to `limit` answers that are older than `before`; returns how many.
    async fn answers_sweep(&self, before: Timestamp, limit: usize) -> Result<usize>;

    /// Whether it can read and write now.
    async fn ping(&self) -> Result<()>;
}

/// Users, keys and domains.
#[async_trait]
pub trait AccountStore: fmt::Debug + Send + Sync {
    /// The user of that name.
    async fn user_get(&self, name: &UserName) -> Result<Option<User>>;

    /// The user of that identity.
    async fn user_find(&self, id: UserId) -> Result<Option<User>>;

    /// All users in the order of their identities.
    async fn user_list(&self) -> Result<Vec<User>>;

    /// Makes the user if there is none of that name, and sets what `save` says; returns it as it is then.
    async fn user_save(&self, save: UserSave, receipt: Option<AccountReceipt<User>>) -> Result<User>;

    /// The key with that hash and its user.
    async fn key_find(&self, hash: &SecretHash) -> Result<Option<(ApiKey, User)>>;

    /// Keys of `user`, or all, in the order of their identities.
    async fn key_list(&self, user: Option<UserId>) -> Result<Vec<ApiKey>>;

    /// Adds a key and gives it its identity; the one in `key` is ignored.
    async fn key_insert(&self, key: ApiKey, receipt: Option<AccountReceipt<ApiKey>>) -> Result<ApiKey>;

    /// Removes a key; returns what it was.
    async fn key_delete(&self, id: u32) -> Result<Option<ApiKey>>;

    /// Notes when a key was last used.
    async fn key_touch(&self, id: u32, at: Timestamp) -> Result<()>;

    /// All registered domains but the default one.
    async fn domain_list(&self) -> Result<Vec<Domain>>;

    /// Registers a domain; `None` when the name is taken.
    async fn domain_insert(
        &self,
        name: DomainName,
        now: Timestamp,
        receipt: Option<AccountReceipt<Option<Domain>>>,
    ) -> Result<Option<Domain>>;
}

/// One write of [`LinkStore::links_write`].
#[derive(Clone)]
pub enum LinkWrite {
    /// Adds a link with a leased id. A named link's code is taken by the first who asks.
    Insert(Box<NewLink>),
    /// Replaces what is under `key` by what `apply` makes of it.
    Change {
        /// Which link.
        key: LinkKey,
        /// The rule. It may run more than once, and must not block.
        apply: ChangeRule,
    },
}

/// A link to insert.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// The link, complete.
    pub link: Arc<Link>,
    /// Find-if-exists: answer with an equal link that this owner made with this flag, if there is one. What nobody
    /// owns is never shared, since whoever deletes it would take it from somebody else.
    pub reuse_equal: bool,
}

/// What came of taking a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickTaken {
    /// It is taken.
    Taken,
    /// None is left.
    NoneLeft,
    /// The link has another revision by now, or is gone: decide again.
    Changed,
}

/// Makes the new record from the stored one; `Ok(None)` leaves it as it is.
pub type ChangeRule =
    Arc<dyn Fn(&LinkRecord) -> std::result::Result<Option<LinkRecord>, ChangeRefused> + Send + Sync>;

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// The actor may not.
    Forbidden,
    /// It is based on another revision than the stored one.
    RevisionConflict {
        /// The stored one.
        current: crate::link::Revision,
    },
    /// There is nothing left to change.
    Gone(crate::link::Removal),
    /// What would come out of it breaks a rule.
    Invalid {
        /// The field at fault, as on the wire.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// What came of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkWritten {
    /// The link is there now.
    Inserted,
    /// An equal link was there already.
    Existing(Box<Link>),
    /// The code belongs to another link, or may come to.
    AliasTaken,
    /// The record under the key is now this one.
    Changed(Box<LinkRecord>),
    /// The rule left it as it is.
    Unchanged(Box<LinkRecord>),
    /// Nothing is under the key.
    NotFound,
    /// The rule refused.
    Refused(ChangeRefused),
}

/// An answer that is kept together with what it reports, so that a repeat of its request gets it again.
#[derive(Clone)]
pub struct Receipt {
    /// Which request: caller, method, path and idempotency key in one hash.
    pub scope: [u8; 32],
    /// A hash of the request's body.
    pub fingerprint: [u8; 32],
    /// Which part of the request, when it is committed in parts.
    pub part: u32,
    /// When.
    pub at: Timestamp,
    /// Makes the answer of the outcomes; `None` keeps nothing.
    pub answer: AnswerRule,
}

/// Makes the bytes to keep from the outcomes of all writes.
pub type AnswerRule = Arc<dyn Fn(&[LinkWritten]) -> Option<Vec<u8>> + Send + Sync>;

/// The same for what [`AccountStore`] makes.
pub struct AccountReceipt<T> {
    /// As in [`Receipt`].
    pub scope: [u8; 32],
    /// As in [`Receipt`].
    pub fingerprint: [u8; 32],
    /// As in [`Receipt`].
    pub at: Timestamp,
    /// Makes the bytes to keep from what was made; `None` keeps nothing.
    pub answer: AccountAnswerRule<T>,
}

/// Makes the bytes to keep from what was made.
pub type AccountAnswerRule<T> = Box<dyn Fn(&T) -> Option<Vec<u8>> + Send + Sync>;

/// An answer that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The hash of the body that it answered.
    pub fingerprint: [u8; 32],
    /// Which part of the request.
    pub part: u32,
    /// When it was given.
    pub at: Timestamp,
    /// What was answered.
    pub answer: Vec<u8>,
}

/// Makes or changes a user.
#[derive(Clone, Debug)]
pub struct UserSave {
    /// Who.
    pub name: UserName,
    /// A new role; `None` keeps it, a new user is a member.
    pub role: Option<Role>,
    /// A new tier; `None` keeps it, a new user is on the free one.
    pub tier: Option<Tier>,
    /// When a new user was made.
    pub now: Timestamp,
}

/// Which links to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only this user's, or everybody's.
    pub owner: Option<UserId>,
    /// Only ids below this one: where the last page ended.
    pub before: Option<LinkId>,
    /// Only those whose code, target, title or notes hold this text, without regard to ASCII case.
    pub text: Option<String>,
    /// Only those with this tag.
    pub tag: Option<String>,
    /// Only those in this state; otherwise all that are not removed.
    pub state: Option<LinkState>,
    /// As of when.
    pub now: Timestamp,
    /// At most this many.
    pub limit: usize,
}

impl ListQuery {
    /// Whether `record` belongs in the list; the owner and the position aside.
    pub fn matches(&self, record: &LinkRecord) -> bool {
        let state = record.state(self.now);
        let state_fits = match self.state {
            Some(wanted) => state == wanted,
            None => matches!(record, LinkRecord::Present(_)),
        };
        state_fits
            && match record {
                LinkRecord::Present(link) => {
                    let tag_fits = self.tag.as_ref().is_none_or(|tag| link.settings.tags.contains(tag));
                    tag_fits && self.text.as_ref().is_none_or(|text| link_holds(link, text))
                }
                LinkRecord::Removed(removed) => {
                    self.tag.is_none()
                        && self.text.as_ref().is_none_or(|text| holds(removed.key.code.as_str(), text))
                }
            }
    }
}

fn link_holds(link: &Link, text: &str) -> bool {
    let settings = &link.settings;
    holds(link.key.code.as_str(), text)
        || holds(settings.target.as_str(), text)
        || settings.title.as_ref().is_some_and(|title| holds(title, text))
        || settings.notes.as_ref().is_some_and(|notes| holds(notes, text))
}

fn holds(haystack: &str, needle: &str) -> bool {
    let (haystack, needle) = (haystack.as_bytes(), needle.as_bytes());
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// A page of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The links, newest first. A page of a filtered list may hold fewer than asked for and still not be the last.
    pub links: Vec<LinkRecord>,
    /// Where the next page begins, if there may be one.
    pub next: Option<LinkId>,
}

/// A range of ids for one server's use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdLease {
    /// The ids.
    pub ids: Range<u64>,
    /// Ids in it that a name spells; they are stepped over.
    pub reserved: Vec<u64>,
}

/// What a store was initialised with.
#[derive(Clone)]
pub struct Instance {
    /// A random number, new after every restore and copy.
    pub node_id: u64,
    /// The generator with its key.
    pub codes: CodeSpace,
    /// Keys everything else that must be secret to this instance: cookies and hashed addresses.
    pub secret: [u8; 32],
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("node_id", &self.node_id)
            .field("codes", &self.codes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LinkWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkWrite::Insert(new) => f.debug_tuple("Insert").field(new).finish(),
            LinkWrite::Change { key, .. } => {
                f.debug_struct("Change").field("key", key).finish_non_exhaustive()
            }
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("part", &self.part).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for AccountReceipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountReceipt").finish_non_exhaustive()
    }
}
