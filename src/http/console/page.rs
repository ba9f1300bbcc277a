use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = concat!(include_str!("page/style.css"), include_str!("page/journal.css"));
const SCRIPT: &str = concat!(
    include_str!("page/json.js"),
    include_str!("page/socket.js"),
    include_str!("page/form.js"),
    include_str!("page/journal.js"),
    include_str!("page/device.js"),
    include_str!("page/backend.js"),
    include_str!("page/start.js"),
);

/// The page, put together but for the devices' URL.
pub(super) struct ConsolePage {
    document: String,
    /// The policy's sources for the script and the style: their hashes, and nothing else.
    sources: String,
}

impl ConsolePage {
    /// `socketio_path`: what the page's field for the path begins with.
    pub(super) fn new(socketio_path: &str) -> Self {
        let document = DOCUMENT
            .replacen("{{path}}", &escaped(socketio_path), 1)
            .replacen("{{style}}", STYLE, 1)
            .replacen("{{script}}", SCRIPT, 1);
        let sources = format!("script-src {}; style-src {}", source_of(SCRIPT), source_of(STYLE));
        Self { document, sources }
    }

    /// The page for devices at this URL, `http` or `https`.
    pub(super) fn response(&self, devices: &str) -> Response {
        let document = self.document.replacen("{{devices}}", &escaped(devices), 1);
        let mut response = Html(document).into_response();
        // A URL that fits no header was refused with the configuration.
        if let Ok(policy) = HeaderValue::from_str(&self.policy(devices)) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    fn policy(&self, devices: &str) -> String {
        let sources = &self.sources;
        let devices = socket_source(devices);
        format!(
            "default-src 'none'; {sources}; connect-src 'self' {devices}; img-src data:; base-uri 'none'; \
            form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        )
    }
}

/// Allows a WebSocket to this URL. CSP has no way to name an IPv6 address, so that such a host stands for any at its port.
fn socket_source(url: &str) -> String {
    let source = url.replacen("http", "ws", 1);
    match (source.split_once('['), source.split_once(']')) {
        (Some((scheme, _)), Some((_, port))) => format!("{scheme}*{port}"),
        _ => source,
    }
}

/// Allows this very text, as CSP Level 3 has it.
fn source_of(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// As the value of an attribute in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_names_no_other_host() {
        let page = ConsolePage::new("/a\"><b>").document.replacen("{{devices}}", "", 1);
        for mark in ["{{path}}", "{{style}}", "{{script}}", "{{devices}}", "/a\">"] {
            assert!(!page.contains(mark), "{mark} is left");
        }
        // The namespace of SVG, and the two protocols that a comment names.
        for (part, count) in [("</script>", 1), ("</style>", 1), ("://", 3)] {
            assert_eq!(page.matches(part).count(), count, "{part}");
        }
    }

    #[test]
    fn the_policy_lets_the_page_ask_itself_and_the_devices_alone() {
        let policy = ConsolePage::new("/socket.io").policy("https://notify.example.com");
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(policy.contains("; connect-src 'self' wss://notify.example.com; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        let policy = ConsolePage::new("/socket.io").policy("http://[::1]:3000");
        assert!(policy.contains("; connect-src 'self' ws://*:3000; "), "{policy}");
    }
}
