use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, header, uri::Authority};

/// The origins that browsers give the console when it is opened at the listener's own address. Behind a proxy it has another,
/// which only the configuration can know.
pub fn origins(admin: SocketAddr) -> Vec<String> {
    let port = match admin.port() {
        // Browsers leave it out.
        80 => String::new(),
        port => format!(":{port}"),
    };
    let ip = admin.ip().to_canonical();
    let near = ip.is_loopback() || ip.is_unspecified();
    let mut hosts = if ip.is_unspecified() {
        vec![host(Ipv4Addr::LOCALHOST.into()), host(Ipv6Addr::LOCALHOST.into())]
    } else {
        vec![host(ip)]
    };
    if near {
        hosts.push("localhost".to_owned());
    }
    hosts.into_iter().map(|host| format!("http://{host}{port}")).collect()
}

/// Where the page finds the devices' listener: where the configuration says, else at its address, else, if that is all of the
/// machine's, at the host that the page itself was asked of.
pub(super) fn devices_url(configured: Option<&str>, clients: SocketAddr, headers: &HeaderMap) -> String {
    if let Some(url) = configured {
        return url.to_owned();
    }
    let ip = clients.ip().to_canonical();
    let host = if ip.is_unspecified() { asked_host(headers) } else { host(ip) };
    format!("http://{host}:{}", clients.port())
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The host goes into a policy and into HTML, so nothing but a plain one is taken from the request.
fn asked_host(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_plain = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    let host = host.map(|authority| authority.host().to_owned()).filter(|host| is_plain(host));
    host.unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn the_consoles_origins_are_what_a_browser_may_have_been_told() {
        assert_eq!(origins(at("127.0.0.1:9090")), ["http://127.0.0.1:9090", "http://localhost:9090"]);
        assert_eq!(origins(at("[::1]:80")), ["http://[::1]", "http://localhost"]);
        assert_eq!(origins(at("10.0.0.7:9090")), ["http://10.0.0.7:9090"]);
        let all = ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"];
        assert_eq!(origins(at("0.0.0.0:1")), all);
        assert_eq!(origins(at("[::]:1")), all);
    }

    #[test]
    fn devices_are_where_the_configuration_the_listener_or_the_request_says() {
        let url = |configured: Option<&str>, clients: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            devices_url(configured, at(clients), &headers)
        };
        let configured = Some("https://notify.example.com");
        assert_eq!(url(configured, "127.0.0.1:3000", "ops.example.com"), "https://notify.example.com");
        assert_eq!(url(None, "127.0.0.1:3000", "ops.example.com"), "http://127.0.0.1:3000");
        assert_eq!(url(None, "[::1]:3000", "localhost:9090"), "http://[::1]:3000");
        assert_eq!(url(None, "0.0.0.0:3000", "10.0.0.7:9090"), "http://10.0.0.7:3000");
        assert_eq!(url(None, "[::]:3000", "[fe80::1]:9090"), "http://[fe80::1]:3000");
        for forged in ["a;script-src", "a'b", "a b", "\"><script>", ""] {
            assert_eq!(url(None, "0.0.0.0:3000", forged), "http://127.0.0.1:3000", "{forged}");
        }
    }
}
