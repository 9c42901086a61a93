//! Who is at the other end of a connection, as far as it can be believed.

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The command line, on the socket in the run folder.
    Local,
}

/// A request's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; the loopback one for the command line.
    pub address: IpAddr,
    /// Whether the peer is a proxy whose headers are believed.
    pub via_trusted_proxy: bool,
}

/// The header fields of a request, however a loop holds them.
pub trait Fields {
    /// The values of all fields of this name.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// Headers by which proxies tell whom they ask for.
const FORWARDING: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

impl Client {
    /// The client of a request: the rightmost hop that is no trusted proxy.
    pub fn of(peer: Peer, headers: &impl Fields, trusted: &[IpNet]) -> Self {
        let Peer::Tcp(peer) = peer else {
            return Client { address: IpAddr::from([127, 0, 0, 1]), via_trusted_proxy: false };
        };
        let peer = peer.ip().to_canonical();
        let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        if !is_trusted(&peer) {
            return Client { address: peer, via_trusted_proxy: false };
        }
        let mut address = peer;
        for hop in hops(headers).into_iter().rev() {
            // A hop that is no address ends what can be believed.
            let Some(hop) = hop else { break };
            address = hop;
            if !is_trusted(&hop) {
                break;
            }
        }
        Client { address, via_trusted_proxy: true }
    }

    /// The address to limit redirects by. None for what looks like a proxy that nobody declared: limiting it would
    /// limit everybody behind it as one.
    pub fn limited_address(&self, headers: &impl Fields, trusted: &[IpNet]) -> Option<IpAddr> {
        if trusted.is_empty() && is_near(self.address) && has_forwarding_header(headers) {
            warn_once();
            return None;
        }
        Some(self.address)
    }

    /// The id that a trusted proxy gave to a request.
    pub fn given_request_id<'a>(&self, headers: &'a impl Fields) -> Option<&'a str> {
        if !self.via_trusted_proxy {
            return None;
        }
        let given = headers.values("x-request-id").next().and_then(|id| std::str::from_utf8(id).ok())?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        ((1..=64).contains(&given.len()) && given.bytes().all(is_plain)).then_some(given)
    }
}

/// Whether a request passed a proxy, by its own account.
pub fn has_forwarding_header(headers: &impl Fields) -> bool {
    FORWARDING.iter().any(|name| headers.values(name).next().is_some())
}

/// Addresses in the order of the path; the last one is what our peer saw.
fn hops(headers: &impl Fields) -> Vec<Option<IpAddr>> {
    let lines = |name: &str| -> Vec<String> {
        let values = headers.values(name).filter(|value| value.is_ascii());
        let values = values.filter_map(|value| std::str::from_utf8(value).ok());
        values.flat_map(|value| value.split(',')).map(|part| part.trim().to_owned()).collect()
    };
    let plain = lines("x-forwarded-for");
    if !plain.is_empty() {
        return plain.iter().map(|hop| parse_hop(hop)).collect();
    }
    // RFC 7239: for=192.0.2.7;proto=https, for="[2001:db8::7]:4711"
    let node = |hop: &String| {
        let pairs = hop.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut nodes = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        nodes.next().and_then(|(_, node)| parse_hop(node.trim_matches('"')))
    };
    lines("forwarded").iter().map(node).collect()
}

fn parse_hop(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let bracketed = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    with_port().or_else(|_| bracketed()).map(|address| address.to_canonical()).ok()
}

/// Loopback, private and link-local addresses.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "A proxy forwards requests, but `trusted_proxies` is not set: redirects through it are not limited by rate. \
             Set trusted_proxies to the proxy's address, so that clients are told apart"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let client = Client::of(Peer::Tcp(peer.parse().unwrap()), &map, &trusted);
        assert_eq!(client.address.to_string(), expected, "{peer} {headers:?}");
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        check("192.0.2.1:1", &[], "192.0.2.1");
        check("192.0.2.1:1", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.1");
        check("10.0.0.1:1", &[], "10.0.0.1");
        check("10.0.0.1:1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
        check("10.0.0.1:1", &[("x-forwarded-for", "203.0.113.9, 198.51.100.1, 10.0.0.2")], "198.51.100.1");
        check(
            "10.0.0.1:1",
            &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.1")],
            "198.51.100.1",
        );
        check("10.0.0.1:1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check("10.0.0.1:1", &[("x-forwarded-for", "198.51.100.1, unknown")], "10.0.0.1");
        check("[::1]:1", &[("forwarded", "for=\"[2001:db8::7]:4711\";proto=https")], "2001:db8::7");
        check("10.0.0.1:1", &[("forwarded", "for=198.51.100.1, for=10.0.0.9")], "198.51.100.1");
        check("[::ffff:10.0.0.1]:1", &[("x-forwarded-for", "::ffff:198.51.100.1")], "198.51.100.1");
    }

    #[test]
    fn an_undeclared_proxy_is_not_limited_as_one_client() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "198.51.100.1".parse().unwrap());
        let client = |peer: &str| Client::of(Peer::Tcp(peer.parse().unwrap()), &headers, &[]);
        let limited = |peer: &str, trusted: &[IpNet]| client(peer).limited_address(&headers, trusted);
        assert_eq!(limited("127.0.0.1:1", &[]), None);
        assert_eq!(limited("192.168.1.1:1", &[]), None);
        assert!(limited("192.0.2.1:1", &[]).is_some());
        // Where proxies were declared, this is none.
        assert!(limited("127.0.0.1:1", &["10.0.0.0/8".parse().unwrap()]).is_some());
    }
}
