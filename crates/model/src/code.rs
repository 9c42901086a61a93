//! [`ShortCode`], the path part of a short link, and [`Alias`], a short code that a user chose.

use compact_str::CompactString;
use std::fmt;

/// Longest short code of any kind, in bytes.
pub const CODE_LEN_MAX: usize = 64;
/// Shortest alias, in characters.
pub const ALIAS_LEN_MIN: usize = 3;

/// The path part of a short link: 1 to 64 of `A-Z a-z 0-9 - _`. Compared by case.
///
/// Codes of up to 24 characters are kept inline, so that parsing a path allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortCode(CompactString);

/// The text can't be a short code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a short code is 1 to 64 letters, digits, - or _")]
pub struct InvalidCode;

impl ShortCode {
    /// Takes a text of 1 to 64 letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Result<Self, InvalidCode> {
        let valid = (1..=CODE_LEN_MAX).contains(&text.len()) && text.bytes().all(is_code_byte);
        valid.then(|| ShortCode(CompactString::new(text))).ok_or(InvalidCode)
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_code_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A short code that was chosen rather than generated: 3 to 64 characters and no reserved word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias(ShortCode);

/// Why a text can't be an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAlias {
    /// Wrong length or characters.
    #[error("an alias is 3 to 64 letters, digits, - or _")]
    Malformed,
    /// A word that terse or its operator keeps.
    #[error("this alias is reserved")]
    Reserved,
}

impl Alias {
    /// Takes a text of 3 to 64 characters that is in no list of reserved words; those compare without case.
    pub fn parse(text: &str, reserved: &ReservedWords) -> Result<Self, InvalidAlias> {
        let code = ShortCode::parse(text).map_err(|_| InvalidAlias::Malformed)?;
        if text.len() < ALIAS_LEN_MIN {
            return Err(InvalidAlias::Malformed);
        }
        if reserved.contains(text) {
            return Err(InvalidAlias::Reserved);
        }
        Ok(Alias(code))
    }

    /// The code that this alias is.
    pub fn into_code(self) -> ShortCode {
        self.0
    }
}

/// Words that no alias may be: terse's own paths and names that deceive, and the operator's list of brands.
#[derive(Clone, Debug, Default)]
pub struct ReservedWords {
    brands: Vec<String>,
}

impl ReservedWords {
    /// The built-in words and those of the operator.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<str>>(brands: I) -> Self {
        let mut brands: Vec<String> =
            brands.into_iter().map(|word| word.as_ref().to_ascii_lowercase()).collect();
        brands.sort();
        ReservedWords { brands }
    }

    /// Whether `word` is reserved, without regard to case.
    pub fn contains(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        BUILT_IN_WORDS.contains(&word.as_str()) || self.brands.binary_search(&word).is_ok()
    }
}

/// Paths that terse serves or may serve one day, and words that a visitor would take for the service itself.
pub const BUILT_IN_WORDS: &[&str] = &[
    "about",
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "assets",
    "auth",
    "billing",
    "contact",
    "dashboard",
    "docs",
    "domains",
    "favicon",
    "health",
    "healthz",
    "help",
    "keys",
    "legal",
    "livez",
    "login",
    "logout",
    "metrics",
    "oauth",
    "oidc",
    "openapi",
    "password",
    "privacy",
    "ready",
    "readyz",
    "register",
    "report",
    "rest",
    "robots",
    "root",
    "security",
    "settings",
    "shorten",
    "signin",
    "signout",
    "signup",
    "sitemap",
    "sso",
    "static",
    "status",
    "support",
    "terms",
    "urls",
    "users",
    "v1",
    "v2",
    "v3",
    "v4",
    "well-known",
    "www",
    "yourls-api",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_codes() {
        for text in ["a", "0", "Ab-_9", &"x".repeat(64)] {
            assert_eq!(ShortCode::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "é", "a/b", "a.b", "a\0", "%41", &"x".repeat(65)] {
            assert!(ShortCode::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn aliases() {
        let reserved = ReservedWords::new(["Acme", "contoso"]);
        let check = |text: &str, expected: Result<(), InvalidAlias>| {
            assert_eq!(Alias::parse(text, &reserved).map(|_| ()), expected, "{text}");
        };
        check("abc", Ok(()));
        check("my-link_1", Ok(()));
        check("ab", Err(InvalidAlias::Malformed));
        check("a b c", Err(InvalidAlias::Malformed));
        check(&"x".repeat(65), Err(InvalidAlias::Malformed));
        for word in
            ["api", "API", "Admin", "help", "health", "metrics", "REST", "login", "docs", "acme", "CONTOSO"]
        {
            check(word, Err(InvalidAlias::Reserved));
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in "\\PC{0,80}") {
            if let Ok(code) = ShortCode::parse(&text) {
                prop_assert_eq!(code.as_str(), text);
            }
        }
    }
}
