use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderName, HeaderValue, header::ORIGIN};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Device, Link, Transport,
    engineio::Protocol,
    polling::Polling,
    websocket::{self, WebSocket},
};
use crate::harness::{
    PATIENCE, RawSocket,
    http::{Caller, ConnectError},
};

/// How a device is to connect.
pub struct DeviceBuilder {
    caller: Caller,
    path: String,
    query: Vec<(String, String)>,
    token: Option<String>,
    auth: Option<Value>,
    resume: Option<Value>,
    transport: Transport,
    protocol: Protocol,
    awaits_welcome: bool,
    patience: Duration,
}

impl DeviceBuilder {
    pub(super) fn new(clients: SocketAddr) -> Self {
        Self {
            caller: Caller::new(clients),
            path: "/socket.io".into(),
            query: Vec::new(),
            token: None,
            auth: None,
            resume: None,
            transport: Transport::WebSocket,
            protocol: Protocol::V4,
            awaits_welcome: true,
            patience: PATIENCE,
        }
    }

    /// The token as `auth.token`; with protocol revision 3, which has no `auth`, in the query.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The whole `auth`, of whatever type, in place of the token.
    pub fn auth(mut self, auth: Value) -> Self {
        self.auth = Some(auth);
        self
    }

    /// What the device says it has seen, beside the token: as `auth.resume`, or in the query with protocol revision 3.
    pub fn resume(mut self, resume: Value) -> Self {
        self.resume = Some(resume);
        self
    }

    /// The query's `token`.
    pub fn query_token(self, token: impl Into<String>) -> Self {
        self.query("token", token)
    }

    /// The `Authorization` header, as it stands.
    pub fn header_token(self, token: &str) -> Self {
        self.header("authorization", token)
    }

    /// A parameter in the query of every request.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// A header of every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        self.caller.headers.push((name, HeaderValue::from_str(value).expect("a header's value")));
        self
    }

    pub fn origin(self, origin: &str) -> Self {
        self.header(ORIGIN.as_str(), origin)
    }

    /// Instead of WebSocket.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Instead of revision 4.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Instead of `/socket.io`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Where to call from: all of 127.0.0.0/8 is one's own.
    pub fn local_address(mut self, address: IpAddr) -> Self {
        self.caller.local_address = Some(address);
        self
    }

    /// The kernel's receive buffer (`SO_RCVBUF`), to make a slow device slow soon.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.caller.receive_buffer = Some(bytes);
        self
    }

    /// Is done when the server accepted the CONNECT, and leaves the `connected` event among the others.
    pub fn without_welcome(mut self) -> Self {
        self.awaits_welcome = false;
        self
    }

    /// How long connecting may take before it is [`ConnectError::Timeout`].
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Connects, and waits for the welcome.
    pub async fn connect(self) -> Result<Device, ConnectError> {
        let patience = self.patience;
        tokio::time::timeout(patience, self.connect_in_time()).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// Makes the WebSocket and says nothing on it.
    pub async fn open_raw(self) -> Result<RawSocket, ConnectError> {
        let opened = tokio::time::timeout(self.patience, self.open_websocket(None)).await;
        opened.unwrap_or(Err(ConnectError::Timeout)).map(RawSocket::new)
    }

    async fn connect_in_time(mut self) -> Result<Device, ConnectError> {
        if self.protocol == Protocol::V3 {
            self.query.extend(self.token.take().map(|token| ("token".to_owned(), token)));
            self.query.extend(self.resume.take().map(|resume| ("resume".to_owned(), resume.to_string())));
        }
        let abort = CancellationToken::new();
        let link = match self.transport {
            Transport::WebSocket => Link::WebSocket(Box::new(self.open_websocket(None).await?)),
            Transport::Polling | Transport::Upgrade => {
                let target = self.target("polling", None);
                Link::Polling(Box::new(Polling::open(&self.caller, self.protocol, &target, &abort).await?))
            }
        };
        let mut device = Device::start(link, self.protocol, self.greeting(), abort);
        device.accepted().await?;
        if self.transport == Transport::Upgrade {
            let mut socket = self.open_websocket(Some(device.session_id())).await?;
            websocket::probe(&mut socket).await?;
            device.upgrade(socket).await?;
        }
        if self.awaits_welcome {
            device.be_welcomed().await?;
        }
        Ok(device)
    }

    async fn open_websocket(&self, sid: Option<&str>) -> Result<WebSocket, ConnectError> {
        websocket::open(&self.caller, &self.target("websocket", sid)).await
    }

    /// CONNECT with `auth`. In revision 3 a client is connected to `/` without saying so.
    fn greeting(&self) -> Option<String> {
        let token = || {
            let mut auth = json!({ "token": self.token.as_ref()? });
            if let Some(resume) = &self.resume {
                auth["resume"] = resume.clone();
            }
            Some(auth)
        };
        match self.protocol {
            Protocol::V3 => None,
            Protocol::V4 => Some(match self.auth.clone().or_else(token) {
                Some(auth) => format!("0{auth}"),
                None => "0".into(),
            }),
        }
    }

    fn target(&self, transport: &str, sid: Option<&str>) -> String {
        // As 2.x does in Node: binary packets in base64, so that every payload is text.
        let wants_base64 = self.protocol == Protocol::V3 && transport == "polling";
        let revision = self.protocol.revision().to_string();
        let own = [("EIO", revision.as_str()), ("transport", transport)].into_iter();
        let own = own.chain(wants_base64.then_some(("b64", "1"))).chain(sid.map(|sid| ("sid", sid)));
        let asked_for = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query =
            own.chain(asked_for).map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)));
        format!("{}/?{}", self.path, query.collect::<Vec<_>>().join("&"))
    }
}

fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
