//! Redirects as bytes, and the date in them.

use crate::redirect::Reveal;
use std::time::SystemTime;
use terse_model::link::RedirectType;

/// Whether a target can stand in a header. It is visible ASCII by its type; should a store be damaged, this is seen here.
pub fn is_safe(reveal: &Reveal) -> bool {
    reveal.location.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | 0x80..))
}

/// Writes a redirect as hyper does: no body, and the same headers in the same order.
pub fn write(reveal: &Reveal, id: &str, is_head: bool, closes: bool, date: &str, output: &mut Vec<u8>) {
    let mut put = |text: &[u8]| output.extend_from_slice(text);
    put(match reveal.redirect_type {
        RedirectType::MovedPermanently => b"HTTP/1.1 301 Moved Permanently\r\nlocation: ",
        RedirectType::Found => b"HTTP/1.1 302 Found\r\nlocation: ",
        RedirectType::TemporaryRedirect => b"HTTP/1.1 307 Temporary Redirect\r\nlocation: ",
        RedirectType::PermanentRedirect => b"HTTP/1.1 308 Permanent Redirect\r\nlocation: ",
    });
    put(reveal.location.as_bytes());
    put(b"\r\ncache-control: ");
    put(reveal.cache_control().as_bytes());
    if reveal.is_secret {
        put(b"\r\nreferrer-policy: no-referrer");
    }
    put(b"\r\nx-request-id: ");
    put(id.as_bytes());
    if closes {
        put(b"\r\nconnection: close");
    }
    // It would say nothing of what a GET gets.
    if !is_head {
        put(b"\r\ncontent-length: 0");
    }
    put(b"\r\ndate: ");
    put(date.as_bytes());
    put(b"\r\n\r\n");
}

/// The date as answers carry it; made anew each second.
pub fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
