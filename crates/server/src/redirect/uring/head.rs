//! Heads of requests: which of them the loop answers, and what they say.

use crate::clicks::recorder::VisitHeaders;
use crate::redirect::{HEADERS_LEN_MAX, Headers, Request};
use httparse::{Header, Status};
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// Room for the headers of one request.
pub type Room<'b> = [MaybeUninit<Header<'b>>; HEADERS_LEN_MAX];

/// What stands at the beginning of some bytes.
#[derive(Debug)]
pub enum Parsed<'h, 'b> {
    /// The beginning of a head, perhaps.
    Partial,
    /// A request that is answered here, and the length of its head. There is no body.
    Request(Head<'h, 'b>, usize),
    /// Anything else, be it a request or not.
    Other,
}

/// A GET or HEAD of a short code.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    pub(super) is_head: bool,
    pub(super) code: &'b str,
    pub(super) query: Option<&'b str>,
    pub(super) host: &'b str,
    /// The client asks for no more on this connection.
    pub(super) closes: bool,
    has_cookies: bool,
    visit: VisitHeaders<'b>,
    fields: &'h [Header<'b>],
}

/// Reads a head. `is_own_segment` tells paths of one segment that are no short codes.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
    is_own_segment: impl Fn(&str) -> bool,
) -> Parsed<'h, 'b> {
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Other,
    };
    let (Some(1), Some(method), Some(target)) = (request.version, request.method, request.path) else {
        return Parsed::Other;
    };
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Parsed::Other,
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let is_plain =
        path.bytes().all(is_plain_in_path) && query.is_none_or(|query| query.bytes().all(is_plain_in_query));
    let code = match Request::code_in(path) {
        Some(code) if is_plain && !is_own_segment(code) => code,
        _ => return Parsed::Other,
    };
    let fields: &'h [Header<'b>] = request.headers;
    let mut head = Head {
        is_head,
        code,
        query,
        host: "",
        closes: false,
        has_cookies: false,
        visit: VisitHeaders::default(),
        fields,
    };
    if head.read_fields() { Parsed::Request(head, len) } else { Parsed::Other }
}

impl<'b> Head<'_, 'b> {
    /// The values of all fields of this name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Goes over the headers once. `false` when one of them makes this a request for hyper.
    fn read_fields(&mut self) -> bool {
        let mut host = None;
        for field in self.fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            // By length first, which tells nearly all apart.
            let place = match field.name.len() {
                4 if is("host") => {
                    let is_second = host.replace(field.value).is_some();
                    if is_second || !Request::is_host(field.value) {
                        return false;
                    }
                    continue;
                }
                10 if is("connection") => {
                    if field.value.eq_ignore_ascii_case(b"close") {
                        self.closes = true;
                    } else if !field.value.eq_ignore_ascii_case(b"keep-alive") {
                        return false;
                    }
                    continue;
                }
                14 if is("content-length") => return false,
                17 if is("transfer-encoding") => return false,
                6 if is("expect") => return false,
                7 if is("upgrade") => return false,
                6 if is("cookie") => {
                    self.has_cookies = true;
                    continue;
                }
                10 if is("user-agent") => &mut self.visit.user_agent,
                15 if is("accept-language") => &mut self.visit.language,
                7 if is("referer") => &mut self.visit.referrer,
                11 if is("sec-purpose") => &mut self.visit.purpose,
                7 if is("purpose") => &mut self.visit.purpose,
                5 if is("x-moz") => &mut self.visit.purpose,
                _ => continue,
            };
            // Of several fields the first one counts.
            place.get_or_insert(Cow::Borrowed(field.value));
        }
        match host.map(std::str::from_utf8) {
            Some(Ok(host)) => {
                self.host = host;
                true
            }
            _ => false,
        }
    }
}

/// A head with what is known of its client.
#[derive(Debug)]
pub struct Visiting<'a, 'h, 'b> {
    pub head: &'a Head<'h, 'b>,
    pub country: Option<&'b [u8]>,
}

impl Headers for Visiting<'_, '_, '_> {
    fn cookies(&self) -> Option<Vec<u8>> {
        self.head.has_cookies.then(|| self.head.values("cookie").collect::<Vec<_>>().join(&b"; "[..]))
    }

    fn visit(&self) -> VisitHeaders<'_> {
        VisitHeaders { country: self.country.map(Cow::Borrowed), ..self.head.visit.clone() }
    }
}

/// What the `http` crate takes as it is in a path, so that both loops see the same one.
fn is_plain_in_path(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'@'..=b'_' | b'a'..=b'z' | b'|' | b'~')
}

/// The same in a query.
fn is_plain_in_query(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'~')
}
