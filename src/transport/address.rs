use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderValue, header::HOST};
use ipnet::{IpNet, Ipv4Net};

/// The bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// The address of the TCP peer, as an extension of its requests. Behind a proxy it is the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPeer(pub SocketAddr);

/// The client's address, as an extension of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The proxies whose `X-Forwarded-For` and `X-Forwarded-Host` are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Trusts these networks. An IPv4-mapped one, such as `::ffff:127.0.0.0/104`, is the IPv4 network that it maps.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(canonical_network).collect())
    }

    /// Returns whether the address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the address of the client that sent a request: the last one in `X-Forwarded-For` that is not a trusted proxy's.
    /// It is the peer's if the peer is not trusted, and that of the last trusted proxy if the hop before it cannot be read.
    pub fn client_address(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.ip().to_canonical();
        let mut hops = elements(headers, "x-forwarded-for").rev();
        while self.trusts(client) {
            match hops.next().and_then(parse_hop) {
                Some(hop) => client = hop.to_canonical(),
                None => break,
            }
        }
        ClientAddress(client)
    }

    /// Returns the host that the client asked for. From a trusted proxy it is the first one in `X-Forwarded-Host`, since each
    /// proxy appends the host that it was asked for. From others, and without that header, it is `Host`.
    pub fn host<'a>(&self, peer: SocketAddr, headers: &'a HeaderMap) -> Option<&'a str> {
        let forwarded = elements(headers, "x-forwarded-host").next().filter(|_| self.trusts(peer.ip()));
        let host = forwarded.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes))?;
        std::str::from_utf8(host).ok().filter(|host| host.is_ascii())
    }
}

/// Returns the address that stands for all that limits per address count as one: an IPv4 address itself, also if it is mapped,
/// and the /64 network of an IPv6 address, because one subscriber usually has all of it.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

fn canonical_network(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(MAPPED_PREFIX)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

/// Returns the elements of a comma-separated list over all lines of the header, without the empty ones (RFC 9110, section
/// 5.6.1). They are bytes, so that one that is not text does not hide the others.
fn elements<'a>(headers: &'a HeaderMap, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    elements.filter(|element| !element.is_empty())
}

/// Reads an address with or without a port; an IPv6 one with or without brackets.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: [&str; 1] = ["10.0.0.0/8"];

    fn proxies(trusted: &[&str]) -> Proxies {
        Proxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn client(trusted: &[&str], peer: &str, forwarded: &[&[u8]]) -> String {
        let headers = headers("x-forwarded-for", forwarded);
        proxies(trusted).client_address(peer.parse().unwrap(), &headers).0.to_string()
    }

    fn host(peer: &str, forwarded: &[&[u8]]) -> Option<String> {
        let mut headers = headers("x-forwarded-host", forwarded);
        headers.insert(HOST, HeaderValue::from_static("backend:3000"));
        proxies(&TRUSTED).host(peer.parse().unwrap(), &headers).map(ToOwned::to_owned)
    }

    #[test]
    fn a_peer_that_is_not_trusted_cannot_claim_another_address() {
        assert_eq!(client(&[], "9.9.9.9:1", &[b"1.2.3.4"]), "9.9.9.9");
        assert_eq!(client(&TRUSTED, "9.9.9.9:1", &[b"1.2.3.4"]), "9.9.9.9");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"1.2.3.4, 9.9.9.9"]), "9.9.9.9");
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_clients() {
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"6.6.6.6, 1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"[2001:db8::1]:5678"]), "2001:db8::1");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client(&TRUSTED, "[::ffff:10.0.0.1]:1", &[b"::ffff:1.2.3.4"]), "1.2.3.4");
    }

    #[test]
    fn several_header_lines_and_empty_elements_are_one_list() {
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"6.6.6.6", b"1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"6.6.6.6,1.2.3.4", b"10.0.0.3 , 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"1.2.3.4, ,", b"", b"10.0.0.2,"]), "1.2.3.4");
    }

    #[test]
    fn bytes_that_are_not_text_in_another_hop_do_not_matter() {
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"caf\xE9, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"\xFF\xFE", b"1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"1.2.3.4, caf\xE9"]), "10.0.0.1");
    }

    #[test]
    fn a_proxy_without_a_usable_header_is_the_client() {
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[]), "10.0.0.1");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"unknown"]), "10.0.0.1");
        assert_eq!(client(&TRUSTED, "10.0.0.1:1", &[b"1.2.3.4, unknown, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn mapped_networks_are_the_networks_that_they_map() {
        for network in ["::ffff:127.0.0.1/128", "::ffff:127.0.0.0/104", "::ffff:127.0.0.9/104", "::ffff:0:0/96"] {
            let proxies = proxies(&[network]);
            assert!(proxies.trusts("127.0.0.1".parse().unwrap()), "{network}");
            assert!(proxies.trusts("::ffff:127.0.0.1".parse().unwrap()), "{network}");
            assert!(!proxies.trusts("::1".parse().unwrap()), "{network}");
        }
        assert!(!proxies(&["::ffff:127.0.0.0/104"]).trusts("128.0.0.1".parse().unwrap()));
        assert!(proxies(&["2001:db8::/32"]).trusts("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn the_first_forwarded_host_is_the_one_that_the_client_asked_for() {
        assert_eq!(host("10.0.0.1:1", &[b"app.example.com"]).unwrap(), "app.example.com");
        assert_eq!(host("10.0.0.1:1", &[b"app.example.com, inner.local"]).unwrap(), "app.example.com");
        assert_eq!(host("10.0.0.1:1", &[b" ", b", app.example.com:8443", b"inner"]).unwrap(), "app.example.com:8443");
        assert_eq!(host("10.0.0.1:1", &[b"app.example.com, caf\xE9"]).unwrap(), "app.example.com");
    }

    #[test]
    fn without_a_trusted_forwarded_host_the_host_header_counts() {
        assert_eq!(host("9.9.9.9:1", &[b"app.example.com"]).unwrap(), "backend:3000");
        assert_eq!(host("10.0.0.1:1", &[]).unwrap(), "backend:3000");
        assert_eq!(host("10.0.0.1:1", &[b" , "]).unwrap(), "backend:3000");
    }

    #[test]
    fn a_forwarded_host_that_is_not_text_is_no_host() {
        assert_eq!(host("10.0.0.1:1", &[b"caf\xE9, app.example.com"]), None);
    }

    #[test]
    fn limits_count_an_ipv6_network_of_64_bits_as_one_address() {
        let counted = |address: &str| counted_address(address.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
        assert_eq!(counted("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
