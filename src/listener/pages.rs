use std::sync::Arc;

use http::{HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::{ClientAddress, Origins, Proxies, TcpPeer};

/// Which web pages may ask for what devices ask for, whatever the path.
#[derive(Clone)]
pub struct Pages {
    origins: Arc<Origins>,
    proxies: Arc<Proxies>,
}

impl Pages {
    /// Pages of these origins, as these proxies forward them.
    pub fn new(origins: Origins, proxies: Proxies) -> Self {
        Self { origins: Arc::new(origins), proxies: Arc::new(proxies) }
    }

    /// Whether a request may go on: it names no origin, or one that is allowed.
    pub fn allow(&self, request: &Parts) -> bool {
        let Some(TcpPeer(peer)) = request.extensions.get().copied() else {
            return false;
        };
        self.origins.allow(&request.headers, self.proxies.host(peer, &request.headers))
    }

    /// Where a request comes from.
    pub fn client_address(&self, request: &Parts) -> Option<ClientAddress> {
        let TcpPeer(peer) = request.extensions.get().copied()?;
        Some(self.proxies.client_address(peer, &request.headers))
    }

    /// Answers browsers' questions about it (CORS, in the Fetch standard).
    pub fn cors(&self) -> CorsLayer {
        let pages = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |_: &HeaderValue, parts: &Parts| pages.allow(parts)))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([header::RETRY_AFTER])
    }
}
