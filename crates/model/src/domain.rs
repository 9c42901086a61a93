//! Domains: the hosts that serve links.

use crate::time::Timestamp;
use std::fmt;

/// The identity of a domain. It stays when the domain's name changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    /// The domain of the configured base URL, and of every host that is no registered domain.
    pub const DEFAULT: DomainId = DomainId(0);
}

/// A host name without a port, in lower case and ASCII (an international name is in its `xn--` form).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// The text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a domain is a host name such as go.example.com, without scheme, port or path")]
pub struct InvalidDomain;

impl DomainName {
    /// Takes a host name or an IP address as browsers do: case is folded, international names become `xn--`.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let host = url::Host::parse(text).map_err(|_| InvalidDomain)?.to_string();
        let too_long = host.len() > 253 || host.split('.').any(|label| label.is_empty() || label.len() > 63);
        let is_ip6 = host.starts_with('[');
        if !is_ip6
            && (too_long || host.bytes().any(|b| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'.')))
        {
            return Err(InvalidDomain);
        }
        Ok(DomainName(host))
    }

    /// The name as text; an IPv6 address is in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A registered domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its identity in links.
    pub id: DomainId,
    /// Its name today.
    pub name: DomainName,
    /// When it was registered.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_names() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(DomainName::parse(text).ok().as_ref().map(DomainName::as_str), expected, "{text}");
        };
        check("go.Example.com", Some("go.example.com"));
        check("go.example.com.", Some("go.example.com"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        check("127.0.0.1", Some("127.0.0.1"));
        check("[::1]", Some("[::1]"));
        check("", None);
        check("go.example.com:8080", None);
        check("http://go.example.com", None);
        check("go_example.com", None);
        check("a..b", None);
        check(&format!("{}.com", "x".repeat(64)), None);
    }
}
