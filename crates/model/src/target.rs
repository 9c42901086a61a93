//! [`TargetUrl`]: the address that a link leads to.

use std::fmt;
use url::Url;

/// Longest target as it is kept, in bytes.
pub const TARGET_LEN_MAX: usize = 4096;

/// An absolute http or https address in its WHATWG serialisation: ASCII, no user name, no password.
///
/// Being ASCII without spaces and control characters, it can't break out of a `Location` header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetUrl(Box<str>);

/// Why a text can't be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// Longer than is kept, as given or as a browser would write it.
    #[error("is longer than {TARGET_LEN_MAX} bytes")]
    TooLong,
    /// A control character, tab or line break.
    #[error("holds a control character, a tab or a line break")]
    ControlCharacter,
    /// What a browser would refuse.
    #[error("is no absolute URL that a browser would open: {0}")]
    Malformed(url::ParseError),
    /// Neither http nor https.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// `https://user:password@host/`, which shows a visitor another host than the one it leads to.
    #[error("must not hold a user name or a password")]
    Credentials,
}

impl TargetUrl {
    /// Parses as a browser does (WHATWG URL Standard) and keeps that standard's serialisation.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        // The standard strips spaces around an address; tabs and line breaks, which it strips anywhere, are refused.
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Err(InvalidTarget::Empty);
        }
        if text.len() > TARGET_LEN_MAX {
            return Err(InvalidTarget::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidTarget::ControlCharacter);
        }
        let url = Url::parse(text).map_err(InvalidTarget::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidTarget::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || has_credentials_mark(text) {
            return Err(InvalidTarget::Credentials);
        }
        if url.as_str().len() > TARGET_LEN_MAX {
            return Err(InvalidTarget::TooLong);
        }
        Ok(TargetUrl(String::from(url).into_boxed_str()))
    }

    /// Takes back what [`TargetUrl::parse`] once made, from a store, without parsing it again.
    ///
    /// Returns `None` when it holds a byte that no serialised address has, as a damaged row might.
    pub fn from_stored(text: String) -> Option<Self> {
        let intact = !text.is_empty() && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        intact.then(|| TargetUrl(text.into_boxed_str()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An empty `@` part (`https://@host/`) leaves no trace in the parsed address.
fn has_credentials_mark(text: &str) -> bool {
    let after_scheme = text.split_once(':').map_or("", |(_, rest)| rest).trim_start_matches(['/', '\\']);
    after_scheme.split(['/', '\\', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, InvalidTarget>) {
        assert_eq!(
            TargetUrl::parse(text).as_ref().map(TargetUrl::as_str).map_err(|e| *e),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn keeps_what_a_browser_would_open() {
        check("https://example.com", Ok("https://example.com/"));
        check("  HTTP://EXAMPLE.com:80/a/../b?q=1#f  ", Ok("http://example.com/b?q=1#f"));
        check("https://bücher.example/ü?ü#ü", Ok("https://xn--bcher-kva.example/%C3%BC?%C3%BC#%C3%BC"));
        check("https:example.com", Ok("https://example.com/"));
        check("https:\\\\example.com\\a b", Ok("https://example.com/a%20b"));
        check("http://0x7f.1/", Ok("http://127.0.0.1/"));
        check("https://[::1]:8443/", Ok("https://[::1]:8443/"));
        check("https://example.com/@user", Ok("https://example.com/@user"));
        check("https://example.com?mail=a@b", Ok("https://example.com/?mail=a@b"));
    }

    #[test]
    fn refuses_the_rest() {
        check("", Err(InvalidTarget::Empty));
        check("   ", Err(InvalidTarget::Empty));
        check("example.com", Err(InvalidTarget::Malformed(url::ParseError::RelativeUrlWithoutBase)));
        check("http://", Err(InvalidTarget::Malformed(url::ParseError::EmptyHost)));
        check("http://a b/", Err(InvalidTarget::Malformed(url::ParseError::IdnaError)));
        check("http://example.com:99999/", Err(InvalidTarget::Malformed(url::ParseError::InvalidPort)));
        check("javascript:alert(1)", Err(InvalidTarget::Scheme));
        check("data:text/html,x", Err(InvalidTarget::Scheme));
        check("ftp://example.com/", Err(InvalidTarget::Scheme));
        check("https://bank.example@evil.example/", Err(InvalidTarget::Credentials));
        check("https://user:secret@example.com/", Err(InvalidTarget::Credentials));
        check("https://:@example.com/", Err(InvalidTarget::Credentials));
        check("https://@example.com/", Err(InvalidTarget::Credentials));
        for control in ["\t", "\n", "\r\n", "\0", "\u{7f}", "\u{85}"] {
            check(&format!("https://example.com/{control}x"), Err(InvalidTarget::ControlCharacter));
            check(&format!("https://example.com/x{control}"), Err(InvalidTarget::ControlCharacter));
        }
        check(&format!("https://example.com/{}", "x".repeat(TARGET_LEN_MAX)), Err(InvalidTarget::TooLong));
        // Short as given, long as a browser writes it.
        check(
            &format!("https://example.com/{}", "é".repeat(TARGET_LEN_MAX / 3)),
            Err(InvalidTarget::TooLong),
        );
    }

    proptest! {
        #[test]
        fn a_target_is_safe_in_a_header_and_stable(text in "https?://\\PC{1,60}") {
            if let Ok(target) = TargetUrl::parse(&text) {
                prop_assert!(target.as_str().bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
                let again = TargetUrl::parse(target.as_str());
                prop_assert_eq!(again.as_ref(), Ok(&target));
                prop_assert_eq!(TargetUrl::from_stored(target.as_str().to_owned()), Some(target));
            }
        }
    }
}
