//! The server's half of the opening handshake (RFC 6455, section 4.2).

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use sha1::{Digest, Sha1};

/// What the server appends to the client's key before it hashes it (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a request that may become a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept(HeaderValue);

impl Accept {
    /// Returns the headers of the response, whose status is 101.
    pub fn headers(&self) -> [(HeaderName, HeaderValue); 3] {
        [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_ACCEPT, self.0.clone()),
        ]
    }
}

/// Why a request may not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no `GET` of HTTP/1.1 with `Connection: Upgrade` and `Upgrade: websocket`.
    #[error("this is a WebSocket endpoint: send GET over HTTP/1.1 with Connection: Upgrade and Upgrade: websocket")]
    NotAnUpgrade,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// `Sec-WebSocket-Key` is not one header with 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be one header with 16 bytes in base64")]
    Key,
}

impl Fault {
    /// Returns the status, the headers and the body (one line of text without its end) of the response that refuses the request:
    /// 426 or 400.
    pub fn response_parts(self) -> (StatusCode, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        let status = match self {
            Self::Key => StatusCode::BAD_REQUEST,
            Self::NotAnUpgrade | Self::Version => {
                // RFC 9110, section 15.5.22: a 426 has to name the protocol.
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                StatusCode::UPGRADE_REQUIRED
            }
        };
        if self == Self::Version {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        (status, headers, self.to_string())
    }
}

/// Checks whether a request may become a WebSocket.
pub fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<Accept, Fault> {
    let is_upgrade = lists(headers, &CONNECTION, "upgrade") && lists(headers, &UPGRADE, "websocket");
    if method != Method::GET || version != Version::HTTP_11 || !is_upgrade {
        return Err(Fault::NotAnUpgrade);
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(Fault::Version);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or(Fault::Key)?;
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let accept = HeaderValue::try_from(STANDARD.encode(hash)).map_err(|_| Fault::Key)?;
    Ok(Accept(accept))
}

/// Returns whether the header's comma-separated list, over all its lines, has the token, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut tokens = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Returns the value of a header that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes().trim_ascii())
}

/// Returns whether it is 16 bytes in base64. The four bits that are left over in the last character may have any value, since
/// some clients make up the characters themselves.
fn is_key(key: &[u8]) -> bool {
    let is_in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.strip_suffix(b"==").is_some_and(|digits| digits.iter().all(is_in_alphabet))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, section 1.3, with `changes` made to its headers: an empty value removes one.
    fn request(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        for (name, value) in changes {
            headers.remove(*name);
            if !value.is_empty() {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        headers
    }

    fn fault(changes: &[(&'static str, &'static str)]) -> Option<Fault> {
        check(&Method::GET, Version::HTTP_11, &request(changes)).err()
    }

    #[test]
    fn the_accept_header_of_the_rfcs_example_is_right() {
        let accept = check(&Method::GET, Version::HTTP_11, &request(&[])).unwrap();
        let headers: HeaderMap = accept.headers().into_iter().collect();
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(headers[CONNECTION], "Upgrade");
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_answered_with_426() {
        for change in [
            ("connection", ""),
            ("connection", "keep-alive"),
            ("connection", "upgrades"),
            ("upgrade", ""),
            ("upgrade", "h2c"),
            ("upgrade", "websocket/1"),
        ] {
            assert_eq!(fault(&[change]), Some(Fault::NotAnUpgrade), "{change:?}");
        }
        let headers = request(&[]);
        assert_eq!(check(&Method::POST, Version::HTTP_11, &headers), Err(Fault::NotAnUpgrade));
        assert_eq!(check(&Method::GET, Version::HTTP_10, &headers), Err(Fault::NotAnUpgrade));
        let (status, headers, text) = Fault::NotAnUpgrade.response_parts();
        assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(headers[CONNECTION], "Upgrade");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn tokens_are_found_in_lists_and_in_any_case() {
        assert_eq!(fault(&[("connection", "keep-alive , UPGRADE"), ("upgrade", "h2c, WebSocket")]), None);
        let mut headers = request(&[("connection", "keep-alive")]);
        headers.append(CONNECTION, HeaderValue::from_static("upgrade"));
        assert!(check(&Method::GET, Version::HTTP_11, &headers).is_ok());
    }

    #[test]
    fn other_versions_are_told_which_one_to_use() {
        for version in ["", "8", "12", "14", "013", "13, 8"] {
            assert_eq!(fault(&[("sec-websocket-version", version)]), Some(Fault::Version), "{version}");
        }
        let (status, headers, _) = Fault::Version.response_parts();
        assert_eq!(status, StatusCode::UPGRADE_REQUIRED);
        assert_eq!(headers[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn a_key_that_is_not_16_bytes_in_base64_is_answered_with_400() {
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25j-_==",
            "dGhlIHNhbXBsZ===========",
        ] {
            assert_eq!(fault(&[("sec-websocket-key", key)]), Some(Fault::Key), "{key}");
        }
        let mut twice = request(&[]);
        twice.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(check(&Method::GET, Version::HTTP_11, &twice), Err(Fault::Key));
        assert_eq!(Fault::Key.response_parts().0, StatusCode::BAD_REQUEST);
    }
}
