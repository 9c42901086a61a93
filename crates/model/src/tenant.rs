//! Users, API keys and what a request may do.

use crate::time::Timestamp;
use std::fmt;

/// The identity of a user, who owns links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u32);

/// A user's name: 1 to 64 of `A-Z a-z 0-9 . _ @ -`. Compared by case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// The text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user name is 1 to 64 letters, digits, or any of . _ @ -")]
pub struct InvalidUserName;

impl UserName {
    /// Takes a text of 1 to 64 allowed characters.
    pub fn parse(text: &str) -> Result<Self, InvalidUserName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        valid.then(|| UserName(text.to_owned())).ok_or(InvalidUserName)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a user may do with things that are not theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Their own links and keys.
    Member,
    /// Everything.
    Admin,
}

/// How many links a user may create an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// 100 an hour.
    Free,
    /// 1,000 an hour.
    Premium,
    /// 10,000 an hour.
    Bulk,
    /// As many as the machine takes.
    Unlimited,
}

impl Tier {
    /// Links an hour, or `None` for no limit.
    pub fn creates_per_hour(self) -> Option<u32> {
        match self {
            Tier::Free => Some(100),
            Tier::Premium => Some(1_000),
            Tier::Bulk => Some(10_000),
            Tier::Unlimited => None,
        }
    }
}

named!(Role { Member = "member", Admin = "admin" });
named!(Tier { Free = "free", Premium = "premium", Bulk = "bulk", Unlimited = "unlimited" });
named!(Scope {
    LinksRead = "links:read",
    LinksWrite = "links:write",
    StatsRead = "stats:read",
    Keys = "keys",
    Admin = "admin",
});

/// One thing that a key may be used for. A key can never do what its user may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read and list links.
    LinksRead,
    /// Create, change and delete links.
    LinksWrite,
    /// Read statistics.
    StatsRead,
    /// List, make and revoke keys.
    Keys,
    /// Manage users and domains.
    Admin,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// Every scope.
    pub const ALL: Scopes = Scopes(0b1_1111);

    /// The set as bits, for stores.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The set of those bits; unknown bits are dropped.
    pub fn from_bits(bits: u32) -> Self {
        Scopes(bits & Self::ALL.0)
    }

    /// The set of those scopes.
    pub fn of(scopes: &[Scope]) -> Self {
        Scopes(scopes.iter().fold(0, |bits, scope| bits | 1 << *scope as u32))
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u32) != 0
    }

    /// Whether every scope of `other` is in this set.
    pub fn covers(self, other: Scopes) -> bool {
        self.0 & other.0 == other.0
    }

    /// The scopes of the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().map(|(scope, _)| *scope).filter(move |scope| self.contains(*scope))
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The identity that links refer to.
    pub id: UserId,
    /// The name.
    pub name: UserName,
    /// What the user may do.
    pub role: Role,
    /// How much.
    pub tier: Tier,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// SHA-256 of an API key or manage token. The secret itself is never kept; 256 random bits need no salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

/// An API key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The identity by which a key is listed and revoked.
    pub id: u32,
    /// Finds the key.
    pub hash: SecretHash,
    /// Whose key it is.
    pub user: UserId,
    /// What it is for, in the user's words.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// Links an hour for this key alone, in place of its user's tier.
    pub creates_per_hour: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, within a few minutes.
    pub last_used_at: Option<Timestamp>,
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Nobody that we know.
    Anonymous,
    /// A user with a key.
    User {
        /// The user.
        user: User,
        /// The key's identity.
        key_id: u32,
        /// What the key may do.
        scopes: Scopes,
        /// The key's own rate.
        creates_per_hour: Option<u32>,
        /// When the key stops to work.
        expires_at: Option<Timestamp>,
    },
    /// The local command line: an admin who owns what it makes as this user.
    Local(User),
}

impl Actor {
    /// The user who acts, if it is one.
    pub fn user(&self) -> Option<&User> {
        match self {
            Actor::Anonymous => None,
            Actor::User { user, .. } | Actor::Local(user) => Some(user),
        }
    }

    /// Whether the actor may see and change what belongs to others: an admin, with a key that says so.
    pub fn is_admin(&self) -> bool {
        match self {
            Actor::Anonymous => false,
            Actor::User { user, scopes, .. } => user.role == Role::Admin && scopes.contains(Scope::Admin),
            Actor::Local(_) => true,
        }
    }

    /// Whether the actor's key has this scope. The admin scope also needs an admin.
    pub fn may(&self, scope: Scope) -> bool {
        match self {
            Actor::Anonymous => false,
            Actor::User { scopes, .. } => {
                scopes.contains(scope) && (scope != Scope::Admin || self.is_admin())
            }
            Actor::Local(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (tier, name) in Tier::ALL {
            assert_eq!(Tier::parse(name), Some(*tier));
            assert_eq!(tier.as_str(), *name);
        }
        assert_eq!(Role::parse("owner"), None);
        assert_eq!(Scopes::ALL.iter().count(), Scope::ALL.len());
    }

    #[test]
    fn scopes_are_a_set() {
        let read = Scopes::of(&[Scope::LinksRead, Scope::StatsRead]);
        assert!(read.contains(Scope::LinksRead) && !read.contains(Scope::LinksWrite));
        assert!(Scopes::ALL.covers(read) && !read.covers(Scopes::ALL));
        assert_eq!(Scopes::from_bits(read.bits()), read);
    }

    #[test]
    fn user_names() {
        assert!(UserName::parse("ann.o@example-1").is_ok());
        for text in ["", "a b", "é", "a/b", &"x".repeat(65)] {
            assert!(UserName::parse(text).is_err(), "{text}");
        }
    }
}
