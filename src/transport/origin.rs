use std::{collections::HashSet, net::IpAddr};

use http::{HeaderMap, Uri, header::ORIGIN};

/// The origins whose web pages may connect.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    allowed: HashSet<String>,
    any_loopback: bool,
}

impl Origins {
    /// Allows these origins, written as browsers send them (`https://app.example.com`), and every page of a loopback host if
    /// `any_loopback`.
    pub fn new(allowed: &[String], any_loopback: bool) -> Self {
        let allowed = allowed.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { allowed, any_loopback }
    }

    /// Returns whether a request is allowed: it has no `Origin`, an allowed one, or that of `host`, the host that it was sent to.
    pub fn allow(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return true;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        if origins.next().is_some() {
            return false;
        }
        self.allowed.contains(&origin.to_ascii_lowercase()) || self.is_near(origin, host)
    }

    /// Returns whether the origin is that of the request's own host, or of a loopback host if all of those are allowed.
    fn is_near(&self, origin: &str, host: Option<&str>) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else {
            return false;
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return false;
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        if self.any_loopback && is_loopback(authority.host()) {
            return true;
        }
        let Some(Ok(host)) = host.map(str::parse::<http::uri::Authority>) else {
            return false;
        };
        let port = |authority: &http::uri::Authority| authority.port_u16().unwrap_or(default_port);
        authority.host().eq_ignore_ascii_case(host.host()) && port(authority) == port(&host)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &Origins, origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        origins.allow(&headers, Some(host))
    }

    #[test]
    fn a_request_without_an_origin_is_allowed() {
        assert!(Origins::default().allow(&HeaderMap::new(), None));
    }

    #[test]
    fn the_requests_own_host_is_allowed() {
        let origins = Origins::default();
        assert!(allowed(&origins, "http://localhost:3000", "localhost:3000"));
        assert!(allowed(&origins, "https://app.example.com", "APP.example.com"));
        assert!(allowed(&origins, "https://app.example.com", "app.example.com:443"));
        assert!(!allowed(&origins, "http://localhost:3001", "localhost:3000"));
        assert!(!allowed(&origins, "https://app.example.com.evil.org", "app.example.com"));
        assert!(!allowed(&origins, "ftp://app.example.com", "app.example.com"));
    }

    #[test]
    fn listed_origins_are_allowed_and_others_are_not() {
        let origins = Origins::new(&["https://app.example.com".into(), "capacitor://localhost".into()], false);
        assert!(allowed(&origins, "https://app.example.com", "api.example.com"));
        assert!(allowed(&origins, "capacitor://localhost", "api.example.com"));
        assert!(!allowed(&origins, "https://evil.org", "api.example.com"));
        assert!(!allowed(&origins, "null", "null"));
        assert!(!allowed(&origins, "", "api.example.com"));
    }

    #[test]
    fn any_loopback_page_is_allowed_in_development() {
        let origins = Origins::new(&[], true);
        for origin in ["http://localhost:5173", "http://127.0.0.1:8080", "http://[::1]:8080"] {
            assert!(allowed(&origins, origin, "127.0.0.1:3000"), "{origin}");
        }
        assert!(!allowed(&origins, "http://localhost.evil.org", "127.0.0.1:3000"));
    }
}
