use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap,
    header::{HOST, USER_AGENT},
};
use ipnet::IpNet;

/// The longest User-Agent that is kept, in bytes.
const MAX_USER_AGENT: usize = 256;

/// A device's address, as an extension of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies whose `X-Forwarded-…` headers are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// These networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Where a request comes from: the last address in `X-Forwarded-For` that is not itself a trusted proxy's, or the peer
    /// when that is none.
    pub fn client_address(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.ip().to_canonical();
        let values: Vec<_> = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
        let mut hops = values.iter().flat_map(|value| value.split(',')).rev();
        while self.trusts(client) {
            match hops.next().and_then(|hop| parse_hop(hop.trim())) {
                Some(hop) => client = hop.to_canonical(),
                None => break,
            }
        }
        ClientAddress(client)
    }

    /// The host that the client asked for: `X-Forwarded-Host` from a trusted proxy, else `Host`.
    pub fn host<'a>(&self, peer: SocketAddr, headers: &'a HeaderMap) -> Option<&'a str> {
        let forwarded = headers.get("x-forwarded-host").filter(|_| self.trusts(peer.ip()));
        forwarded.or_else(|| headers.get(HOST)).and_then(|host| host.to_str().ok())
    }
}

/// What a request says of the device's software; empty if it says nothing, and no more than 256 bytes.
pub fn user_agent(headers: &HeaderMap) -> Box<str> {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // `to_str` lets visible ASCII through, so any byte is a character.
    text[..text.len().min(MAX_USER_AGENT)].into()
}

/// An address, with or without a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        proxies.client_address(peer.parse().unwrap(), &headers).0.to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        assert_eq!(client(&[], "9.9.9.9:1", &["1.2.3.4"]), "9.9.9.9");
        assert_eq!(client(&["10.0.0.0/8"], "9.9.9.9:1", &["1.2.3.4"]), "9.9.9.9");
    }

    #[test]
    fn the_last_untrusted_address_counts() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1:1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&trusted, "10.0.0.1:1", &["6.6.6.6", "1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&trusted, "10.0.0.1:1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client(&trusted, "10.0.0.1:1", &["[2001:db8::1]:5678"]), "2001:db8::1");
    }

    #[test]
    fn a_proxy_without_a_usable_header_is_the_client() {
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1:1", &[]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1:1", &["unknown"]), "10.0.0.1");
    }
}
