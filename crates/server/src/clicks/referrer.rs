//! What is kept of the headers Referer, Accept-Language and User-Agent, and what is counted of the first two.
//!
//! Headers come from anybody. What is kept is bounded, is text without control characters, and holds no credentials.
//! The usual header passes through without a copy.

use super::agent::USER_AGENT_LEN_MAX;
use std::borrow::Cow;
use std::fmt;

/// The longest referrer that is kept, in bytes.
pub const REFERRER_LEN_MAX: usize = 512;
/// No more of a header is looked at. A host that begins after it is not found, and its referrer not kept.
const HEADER_LEN_MAX: usize = 2048;
/// The longest host that referrers are counted by, in bytes.
pub const HOST_LEN_MAX: usize = 128;
/// The longest language, in bytes.
pub const LANGUAGE_LEN_MAX: usize = 16;

/// What is kept of a Referer header: scheme, host, port and path, and the query only if it is asked for. `None` when it
/// is no address of a page or of an Android app.
pub fn kept(header: &[u8], with_query: bool) -> Option<Cow<'_, str>> {
    let header = header[..header.len().min(HEADER_LEN_MAX)].trim_ascii();
    let scheme_len = scheme_len(header)?;
    let (scheme, rest) = header.split_at(scheme_len);
    let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(authority_len);
    let host = match authority.iter().rposition(|byte| *byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    // A backslash is a slash to browsers, so that the host would be another one to them.
    if authority.contains(&b'\\') || !is_host_and_port(host) || scheme_len + host.len() > REFERRER_LEN_MAX {
        return None;
    }
    let ends = |byte: &u8| *byte == b'#' || (*byte == b'?' && !with_query);
    let rest = &rest[..rest.len().min(REFERRER_LEN_MAX)];
    let rest = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];

    // Without a way out of the loop, so that it takes many bytes at once.
    let is_plain = !rest.iter().fold(false, |any, byte| any | needs_escape(*byte));
    if is_plain && host.len() == authority_len {
        let whole = &header[..scheme_len + authority_len + rest.len()];
        return Some(Cow::Borrowed(cut(std::str::from_utf8(whole).ok()?)));
    }
    let mut text = String::with_capacity(REFERRER_LEN_MAX);
    for part in [scheme, host] {
        text.push_str(std::str::from_utf8(part).ok()?);
    }
    for byte in rest {
        if text.len() >= REFERRER_LEN_MAX {
            break;
        }
        if needs_escape(*byte) {
            text.push_str(&format!("%{byte:02X}"));
        } else {
            text.push(char::from(*byte));
        }
    }
    let len = cut(&text).len();
    text.truncate(len);
    Some(Cow::Owned(text))
}

/// The host to count a kept referrer by: in lower case, without port and `www.`; of an Android app its package. What is
/// longer than the bound loses labels at its start, so that the hosts of one site stay together. Empty for none.
pub fn host_of(referrer: &str) -> Cow<'_, str> {
    let Some((_, rest)) = referrer.split_once("://") else { return Cow::Borrowed("") };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = bounded_host(host.strip_suffix('.').unwrap_or(host));
    let is_www = host.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www."));
    // Not of www.com itself.
    let host = if is_www && host[4..].contains('.') { &host[4..] } else { host };
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The language that a browser asks for first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Language {
    bytes: [u8; LANGUAGE_LEN_MAX],
    len: u8,
}

impl Language {
    /// In lower case, such as `de-ch`; empty when none is known.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("ASCII")
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The first language of an Accept-Language header, which browsers sort by preference. One that is longer than the
/// bound loses its last parts. Empty if malformed.
pub fn language_of(header: &[u8]) -> Language {
    let end = header.iter().position(|byte| matches!(byte, b',' | b';')).unwrap_or(header.len());
    let mut language = Language::default();
    let mut len = 0;
    for (number, part) in header[..end].trim_ascii().split(|byte| *byte == b'-').enumerate() {
        let is_sound = if number == 0 {
            (2..=8).contains(&part.len()) && part.iter().all(u8::is_ascii_alphabetic)
        } else {
            (1..=8).contains(&part.len()) && part.iter().all(u8::is_ascii_alphanumeric)
        };
        if !is_sound {
            return Language::default();
        }
        let start = if number == 0 { 0 } else { len + 1 };
        // The parts that follow only have to be sound.
        if len == usize::from(language.len) && start + part.len() <= LANGUAGE_LEN_MAX {
            if number > 0 {
                language.bytes[len] = b'-';
            }
            language.bytes[start..start + part.len()].copy_from_slice(part);
            language.len = (start + part.len()) as u8;
        }
        len = start + part.len();
    }
    language.bytes.make_ascii_lowercase();
    language
}

/// What is kept of a User-Agent header: its start, as text. Control characters are spaces in it.
pub fn user_agent_kept(header: &[u8]) -> Cow<'_, str> {
    let start = &header[..header.len().min(USER_AGENT_LEN_MAX)];
    // Without a way out of the loop, so that it takes many bytes at once.
    let is_plain = start.iter().fold(true, |all, byte| all & matches!(byte, 0x20..=0x7e));
    if is_plain && let Ok(text) = std::str::from_utf8(start) {
        return Cow::Borrowed(text);
    }
    // A character that begins before the bound ends at most three bytes after it.
    let header = &header[..header.len().min(USER_AGENT_LEN_MAX + 3)];
    match String::from_utf8_lossy(header) {
        Cow::Borrowed(text) => {
            let text = cut_at(text, USER_AGENT_LEN_MAX);
            if text.contains(char::is_control) {
                Cow::Owned(text.replace(char::is_control, " "))
            } else {
                Cow::Borrowed(text)
            }
        }
        Cow::Owned(text) => Cow::Owned(cut_at(&text, USER_AGENT_LEN_MAX).replace(char::is_control, " ")),
    }
}

/// The length of `https://` and the like.
fn scheme_len(header: &[u8]) -> Option<usize> {
    let begins =
        |scheme: &&[u8]| header.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    [&b"https://"[..], b"http://", b"android-app://"].into_iter().find(begins).map(<[u8]>::len)
}

/// A name or an IP address, in brackets if it is of version 6, and a port if there is one.
fn is_host_and_port(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => {
            let Some(end) = text.iter().position(|byte| *byte == b']') else { return false };
            let is_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if end == 1 || !text[1..end].iter().all(is_address) {
                return false;
            }
            text.split_at(end + 1)
        }
        _ => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if end == 0 || !text[..end].iter().all(is_name) {
                return false;
            }
            text.split_at(end)
        }
    };
    // A name has 253 characters at most, with a dot after it 254.
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    host.len() <= 254 && (port.is_empty() || is_port(&port[1..]) && port[0] == b':')
}

/// What browsers escape themselves, so that only others send it.
fn needs_escape(byte: u8) -> bool {
    !(0x21..=0x7e).contains(&byte) || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'`')
}

/// Cuts an ASCII text at the bound, and not within an escape.
fn cut(text: &str) -> &str {
    let Some(start) = text.get(..REFERRER_LEN_MAX) else { return text };
    if text.len() == REFERRER_LEN_MAX {
        return text;
    }
    match start.as_bytes() {
        [.., b'%', _] => &start[..REFERRER_LEN_MAX - 2],
        [.., b'%'] => &start[..REFERRER_LEN_MAX - 1],
        _ => start,
    }
}

/// Cuts a text at the last character that ends within `len` bytes.
pub fn cut_at(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn bounded_host(host: &str) -> &str {
    if host.len() <= HOST_LEN_MAX {
        return host;
    }
    let mut start = host.len() - HOST_LEN_MAX;
    while !host.is_char_boundary(start) {
        start += 1;
    }
    match host[start..].find('.') {
        // From the label after the one that is cut.
        Some(dot) if dot + 1 < host.len() - start => &host[start + dot + 1..],
        _ => &host[start..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use url::Url;

    #[track_caller]
    fn check(header: &str, expected: &str) {
        assert_eq!(kept(header.as_bytes(), false).as_deref(), Some(expected), "{header}");
    }

    #[track_caller]
    fn check_none(header: &[u8]) {
        assert_eq!(kept(header, true), None, "{}", header.escape_ascii());
    }

    #[test]
    fn addresses_of_pages_are_kept() {
        check("https://example.com/", "https://example.com/");
        check("https://example.com", "https://example.com");
        check("HTTPS://Example.com/A", "HTTPS://Example.com/A");
        check("http://example.com:8080/a/b", "http://example.com:8080/a/b");
        check("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080/");
        check("https://medium.com/@somebody/post", "https://medium.com/@somebody/post");
        check("android-app://com.google.android.gm/", "android-app://com.google.android.gm/");
        check(" https://example.com/ ", "https://example.com/");
        assert!(matches!(kept(b"https://example.com/a", false), Some(Cow::Borrowed(_))));
        assert!(matches!(kept(b"https://example.com/a?b#c", false), Some(Cow::Borrowed(_))));
    }

    #[test]
    fn secrets_are_not_kept() {
        check("https://user:password@example.com/", "https://example.com/");
        check("https://user@example.com:1/a?b", "https://example.com:1/a");
        check("https://a@b@example.com/", "https://example.com/");
        check("https://@example.com/", "https://example.com/");
        check("https://example.com/a?token=1", "https://example.com/a");
        check("https://example.com?token=1", "https://example.com");
        check("https://example.com/#token", "https://example.com/");
        check("https://example.com/#token?a", "https://example.com/");
        let with_query = |header: &'static str| kept(header.as_bytes(), true).unwrap();
        assert_eq!(with_query("https://a@example.com/a?b=c@d#e"), "https://example.com/a?b=c@d");
        assert_eq!(with_query("https://example.com?b=c"), "https://example.com?b=c");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for header in [
            "",
            "about:client",
            "example.com",
            "ftp://example.com/",
            "javascript:alert(1)",
            "https:example.com",
            "https://",
            "https:///example.com/",
            "https://user@/",
            "https://:80/",
            "https://example.com:port/",
            "https://example.com:123456/",
            "https://example.com\\@evil.example/",
            "https://ex ample.com/",
            "https://ex%61mple.com/",
            "https://exämple.com/",
            "https://[::1/",
            "https://[]/",
            "https://[::1]a/",
            "https://[::1]@/",
            "https://<b>/",
        ] {
            check_none(header.as_bytes());
        }
        check_none(b"https://ex\xffample.com/");
        check_none(&[b"https://".to_vec(), vec![b'u'; 9000], b"@example.com/".to_vec()].concat());
        check_none(b"https://exam\tple.com/");
        check_none(&[b"https://".to_vec(), vec![b'a'; 600], b".com/".to_vec()].concat());
    }

    #[test]
    fn other_characters_are_escaped() {
        check("https://example.com/ä b", "https://example.com/%C3%A4%20b");
        check("https://example.com/\"<b>\\`", "https://example.com/%22%3Cb%3E%5C%60");
        assert_eq!(kept(b"https://a.example/\xff\x00\x7f", false).unwrap(), "https://a.example/%FF%00%7F");
    }

    #[test]
    fn long_addresses_are_cut_between_escapes() {
        let start = "https://example.com/";
        let filler = |len: usize| format!("{start}{}", "a".repeat(len - start.len()));
        check(&filler(512), &filler(512));
        check(&filler(2000), &filler(512));
        check(&format!("{}%20", filler(509)), &format!("{}%20", filler(509)));
        check(&format!("{}%20", filler(510)), &filler(510));
        check(&format!("{}%20", filler(511)), &filler(511));
        check(&format!("{}ä", filler(510)), &filler(510));
        check(&format!("{}ä", filler(507)), &format!("{}%C3", filler(507)));
    }

    #[test]
    fn hosts() {
        let check = |referrer: &str, expected: &str| assert_eq!(host_of(referrer), expected, "{referrer}");
        check("https://example.com/a", "example.com");
        check("https://www.Example.com:8080/", "example.com");
        check("https://WWW.example.com", "example.com");
        check("https://www.com/", "www.com");
        check("https://www2.example.com/", "www2.example.com");
        check("https://example.com./", "example.com");
        check("http://[2001:DB8::1]:80/", "[2001:db8::1]");
        check("android-app://com.google.android.gm/", "com.google.android.gm");
        check("https://user@example.com?a", "example.com");
        check("", "");
        check("example.com", "");
        let label = "a".repeat(60);
        check(&format!("https://{label}.{label}.example.com/"), &format!("{label}.example.com"));
        check(&format!("https://{}/", "a".repeat(200)), &"a".repeat(128));
        assert!(matches!(host_of("https://www.example.com/"), Cow::Borrowed(_)));
    }

    #[test]
    fn languages() {
        let check = |header: &str, expected: &str| {
            assert_eq!(language_of(header.as_bytes()).as_str(), expected, "{header}");
        };
        check("de-CH,de;q=0.9", "de-ch");
        check("en", "en");
        check(" EN-us ;q=0.8", "en-us");
        check("fil-PH", "fil-ph");
        check("zh-Hant-TW,zh;q=0.9", "zh-hant-tw");
        check("es-419", "es-419");
        check("abcdefgh-12345678-a", "abcdefgh");
        check("abcdefgh-1234567-a", "abcdefgh-1234567");
        check("zh-hant-tw-x-abcdefg", "zh-hant-tw-x");
        check("", "");
        check("*", "");
        check("d", "");
        check("abcdefghi", "");
        check("de-", "");
        check("-de", "");
        check("d3", "");
        check("de_CH", "");
        check("de-123456789", "");
        check("zh-hant-tw-x-abcdefg-_", "");
        check("<script>", "");
        check("ä", "");
    }

    #[test]
    fn user_agents() {
        let check =
            |header: &[u8], expected: &str| assert_eq!(user_agent_kept(header), expected, "{header:?}");
        check(b"", "");
        check(b"curl/8.11.0", "curl/8.11.0");
        check("Browser/1.0 (ä)".as_bytes(), "Browser/1.0 (ä)");
        check(b"a\tb\x00c\x7fd\xc2\x85e", "a b c d e");
        check(b"a\xffb", "a\u{fffd}b");
        check(&[b'a'; 600], &"a".repeat(512));
        check(format!("{}ä", "a".repeat(510)).as_bytes(), &format!("{}ä", "a".repeat(510)));
        check(format!("{}äb", "a".repeat(511)).as_bytes(), &"a".repeat(511));
        check(&[0xff; 600], &"\u{fffd}".repeat(170));
        assert!(matches!(user_agent_kept(&[b'a'; 600]), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn no_credentials_are_kept(
            scheme in "(https?|HTTPS|android-app)://?/?",
            authority in "[a-z@:./\\\\?#%\\[\\]0-9 \t\u{e4}]{0,24}",
            rest in "[a-z@:./\\\\?#%&= \t\u{e4}]{0,24}",
            with_query in any::<bool>(),
        ) {
            let header = format!("{scheme}{authority}{rest}");
            if let Some(text) = kept(header.as_bytes(), with_query) {
                let authority = text.split_once("://").unwrap().1.split(['/', '?', '#', '\\']).next().unwrap();
                prop_assert!(!authority.contains('@'), "{text}");
                if let Ok(url) = Url::parse(&text) {
                    prop_assert!(url.username().is_empty() && url.password().is_none(), "{text}");
                }
                prop_assert!(!text.contains('#'));
                prop_assert!(with_query || !text.contains('?'));
            }
        }

        #[test]
        fn any_referrer_is_bounded_and_plain(start in "(https://[a-z]{1,9}[/.])?", bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            let header = [start.as_bytes(), &bytes].concat();
            for with_query in [false, true] {
                if let Some(text) = kept(&header, with_query) {
                    prop_assert!(text.len() <= REFERRER_LEN_MAX);
                    prop_assert!(text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
                    let host = host_of(&text);
                    prop_assert!(!host.is_empty() && host.len() <= HOST_LEN_MAX, "{text}");
                    // What is kept stays as it is.
                    prop_assert_eq!(kept(text.as_bytes(), with_query), Some(text.clone()));
                }
            }
        }

        #[test]
        fn a_host_is_the_one_of_the_url(text in "https?://[a-zA-Z0-9]{1,9}(\\.[a-z]{1,9}){1,3}(:[1-9][0-9]{0,3})?(/[a-z@:]{0,9})?") {
            let url = Url::parse(&text);
            prop_assume!(url.is_ok());
            let url = url.unwrap();
            let host = url.host_str().unwrap();
            prop_assume!(!host.starts_with("www."));
            prop_assert_eq!(host_of(&text), host);
        }

        #[test]
        fn any_text_has_a_bounded_host(text in "(https://)?.{0,200}") {
            prop_assert!(host_of(&text).len() <= HOST_LEN_MAX);
        }

        #[test]
        fn any_language_is_bounded_and_plain(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "[a-zA-Z0-9-]{0,40}".prop_map(String::into_bytes),
        ]) {
            let language = language_of(&bytes);
            let text = language.as_str();
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let is_part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(is_plain);
            prop_assert!(text.is_empty() || text.split('-').all(is_part), "{text}");
        }

        #[test]
        fn any_user_agent_is_bounded_and_plain(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..900),
            "[a\u{e4}\u{20ac}\u{1f600}]{100,400}".prop_map(String::into_bytes),
        ]) {
            let text = user_agent_kept(&bytes);
            prop_assert!(text.len() <= USER_AGENT_LEN_MAX);
            prop_assert!(!text.contains(char::is_control));
            let kept_again = user_agent_kept(text.as_bytes());
            prop_assert_eq!(&kept_again, &text);
        }
    }
}
