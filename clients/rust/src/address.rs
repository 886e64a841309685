//! The address of a service.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::error::{Error, Result};

const DEFAULT_PORT: u16 = 7450;

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A name or an IP address, and a port.
    Host { host: String, port: u16 },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Return the address of a text such as `127.0.0.1:7450`, `dns:///milepost:7450` or
    /// `unix:/run/milepost.sock`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        let text = text.strip_prefix("dns:").unwrap_or(text);
        let text = text.strip_prefix("///").unwrap_or(text);
        let (host, port) = split(text).ok_or_else(|| {
            Error::Configuration(format!("{text:?} is not an address such as 127.0.0.1:7450"))
        })?;
        Ok(Self::Host { host: host.to_owned(), port })
    }

    /// Return true if every connection to the address stays on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Host { host, .. } => {
                is_localhost(host) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// Return true if the name may have several addresses, which stand for replicas.
    pub(crate) fn is_name(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Host { host, .. } => !is_localhost(host) && host.parse::<IpAddr>().is_err(),
        }
    }

    /// Return the host and the port as they stand in a URI.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Host { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Host { host, port } => format!("{host}:{port}"),
        }
    }
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// Return the host and the port; None if the text is no address.
fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some(_) if text.parse::<IpAddr>().is_ok() => (text, DEFAULT_PORT),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_valid = !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']', '?', '#']);
    is_valid.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only this machine needs no encryption.
    #[test]
    fn loopback_addresses() {
        for (text, is_loopback) in [
            ("127.0.0.1:7450", true),
            ("localhost:1", true),
            ("LocalHost:1", true),
            ("[::1]:1", true),
            ("::1", true),
            ("unix:/tmp/x", true),
            ("dns:///localhost:1", true),
            ("dns:127.9.9.9:1", true),
            ("127.0.0.1.example.com:1", false),
            ("localhost.example.com:1", false),
            ("10.0.0.1:1", false),
            ("example.com", false),
            ("[2001:db8::1]:1", false),
            ("dns:///example.com:1", false),
        ] {
            assert_eq!(Address::parse(text).expect(text).is_loopback(), is_loopback, "{text}");
        }
    }

    /// Hosts, ports and names are found; anything else is refused.
    #[test]
    fn addresses_are_taken_apart() {
        let address = Address::parse("[2001:db8::1]:99").expect("an address");
        assert_eq!((address.authority().as_str(), address.is_name()), ("[2001:db8::1]:99", false));
        let address = Address::parse("dns:///milepost").expect("an address");
        assert_eq!((address.authority().as_str(), address.is_name()), ("milepost:7450", true));
        assert_eq!(
            Address::parse("unix:///run/x").expect("an address"),
            Address::Unix("/run/x".into())
        );
        for text in ["", ":1", "http://example.com:1", "a:b", "a:99999", "a b:1"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
