/// What is wrong with a text that should be the Origin of pages which may connect, as browsers send it.
pub(super) fn problem(origin: &str) -> Option<&'static str> {
    if origin == "*" {
        return Some(
            "would let every site in the world act with its visitors' tokens: list the origins of your own pages",
        );
    }
    if origin == "null" {
        return Some("is what any sandboxed page sends: list the origins of your own pages");
    }
    let Some((scheme, authority)) = origin.split_once("://") else {
        return Some("must be scheme://host or scheme://host:port, such as https://app.example.com");
    };
    if !is_scheme(scheme) {
        return Some("must begin with a scheme in lower case, such as https:// or capacitor://");
    }
    if authority.contains(['/', '?', '#', '@']) {
        return Some(
            "must end with the host or the port: an Origin has no path, no query and no user, nor a slash at its end",
        );
    }
    let Some((host, port)) = split_port(authority) else {
        return Some("has no port behind the last colon: 1 to 65535");
    };
    if host.contains('*') {
        return Some("has a wildcard, which is not built: list each origin");
    }
    if !is_host(host) {
        return Some(
            "must have a host in lower case letters, digits, dots and hyphens (others in punycode), or [IPv6]",
        );
    }
    match (scheme, port) {
        ("https" | "wss", Some(443)) | ("http" | "ws", Some(80)) => {
            Some("names the scheme's own port, which browsers leave out: leave it out here, too")
        }
        _ => None,
    }
}

fn is_scheme(scheme: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(inside)
}

/// The host, and the port if there is one; nothing if what should be a port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let behind_brackets = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[behind_brackets..].rfind(':') else {
        return Some((authority, None));
    };
    let (host, port) = authority.split_at(behind_brackets + colon);
    let digits = port.strip_prefix(':')?;
    let port = digits.parse::<u16>().ok().filter(|port| *port > 0 && port.to_string() == digits)?;
    Some((host, Some(port)))
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.to_string() == inner);
    }
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_as_browsers_send_them_are_good() {
        for origin in [
            "https://app.example.com",
            "http://localhost:5173",
            "capacitor://localhost",
            "ionic://localhost",
            "chrome-extension://abcdefghijklmnop",
            "http://[::1]:3000",
            "http://127.0.0.1",
            "https://app.example.com:8443",
        ] {
            assert_eq!(problem(origin), None, "{origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_or_nobody_should_trust_is_refused() {
        let expected = [
            ("*", "list the origins"),
            ("null", "sandboxed"),
            ("app.example.com", "scheme://host"),
            ("localhost:3000", "scheme://host"),
            ("HTTPS://app.example.com", "scheme in lower case"),
            ("://app.example.com", "scheme in lower case"),
            ("https://app.example.com/", "no path"),
            ("https://me@app.example.com", "no user"),
            ("https://App.example.com", "lower case letters"),
            ("https://münchen.example", "punycode"),
            ("https://", "must have a host"),
            ("https://*.example.com", "wildcard"),
            ("https://app.example.com:", "port"),
            ("https://app.example.com:0", "port"),
            ("https://app.example.com:99999", "port"),
            ("https://app.example.com:443", "leave it out"),
            ("http://app.example.com:80", "leave it out"),
        ];
        for (origin, part) in expected {
            let problem = problem(origin).unwrap_or_else(|| panic!("{origin} is taken"));
            assert!(problem.contains(part), "{origin}: {problem}");
        }
    }
}
