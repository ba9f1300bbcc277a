//! A device that speaks plain WebSocket, and tells every frame that it gets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{
    ConnectError, PATIENCE, deadline,
    device::websocket::{self, WebSocket},
    http::{Caller, reset},
};

/// How a plain device is to connect.
#[derive(Clone, Debug)]
pub struct PlainDeviceBuilder {
    caller: Caller,
    path: String,
}

/// A plain WebSocket. It answers pings only while it waits for something.
#[derive(Debug)]
pub struct PlainDevice(WebSocket);

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainFrame {
    Text(String),
    Binary(Bytes),
    /// The server's close frame.
    Closed {
        code: u16,
        reason: String,
    },
    /// The end of the stream, without a close frame.
    Cut,
}

impl PlainFrame {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub fn closed(code: u16, reason: &str) -> Self {
        Self::Closed { code, reason: reason.to_owned() }
    }
}

/// The message that authenticates.
pub fn auth_message(token: &str) -> String {
    json!({ "type": "auth", "access_token": token, "data": {} }).to_string()
}

impl PlainDeviceBuilder {
    /// A header of the request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        self.caller.headers.push((name, HeaderValue::from_str(value).expect("a header's value")));
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

    /// Makes the WebSocket and says nothing on it.
    pub async fn open(self) -> Result<PlainDevice, ConnectError> {
        let opened = tokio::time::timeout(PATIENCE, websocket::open(&self.caller, &self.path)).await;
        opened.unwrap_or(Err(ConnectError::Timeout)).map(PlainDevice)
    }
}

impl PlainDevice {
    /// A device that will connect to this path.
    pub fn builder(clients: SocketAddr, path: &str) -> PlainDeviceBuilder {
        PlainDeviceBuilder { caller: Caller::new(clients), path: path.to_owned() }
    }

    /// Says who it is, and waits until the server has heard it.
    #[track_caller]
    pub fn authenticate(&mut self, token: &str) -> impl Future<Output = ()> {
        let message = auth_message(token);
        deadline("the server to hear a token", async move {
            self.send_text(message).await;
            self.heard().await;
        })
    }

    /// Waits until the server has heard all that was said. Nothing answers but its pong.
    #[track_caller]
    pub fn heard(&mut self) -> impl Future<Output = ()> {
        deadline("a pong", async {
            let _ = self.0.send(Message::Ping("heard?".into())).await;
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Pong(_))) => return,
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("not a pong: {other:?}"),
                }
            }
        })
    }

    /// Sends text; where the connection has ended, it goes nowhere.
    #[track_caller]
    pub fn send_text(&mut self, text: impl Into<String>) -> impl Future<Output = ()> {
        self.send(Message::text(text.into()))
    }

    /// The same with bytes.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: impl Into<Bytes>) -> impl Future<Output = ()> {
        self.send(Message::Binary(bytes.into()))
    }

    /// What comes next.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = PlainFrame> {
        deadline("a WebSocket frame", self.frame())
    }

    /// What comes next, if it comes within `duration`.
    pub async fn receive_within(&mut self, duration: Duration) -> Option<PlainFrame> {
        tokio::time::timeout(duration, self.frame()).await.ok()
    }

    /// Waits for a ping.
    #[track_caller]
    pub fn pinged(&mut self) -> impl Future<Output = ()> {
        deadline("a ping", async {
            match self.0.next().await {
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("not a ping: {other:?}"),
            }
        })
    }

    /// Says goodbye, and waits for the server's answer.
    #[track_caller]
    pub fn close(&mut self) -> impl Future<Output = PlainFrame> {
        deadline("the server's close frame", async {
            let _ = self.0.close(None).await;
            self.frame().await
        })
    }

    /// Resets the TCP connection.
    pub fn abort(self) {
        reset(self.0.into_inner());
    }

    #[track_caller]
    fn send(&mut self, message: Message) -> impl Future<Output = ()> {
        // Reading will tell of the end.
        deadline("room to send in", async { drop(self.0.send(message).await) })
    }

    async fn frame(&mut self) -> PlainFrame {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Text(text))) => PlainFrame::text(&text),
                Some(Ok(Message::Binary(bytes))) => PlainFrame::Binary(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(Some(frame)))) => PlainFrame::closed(frame.code.into(), &frame.reason),
                Some(Ok(Message::Close(None))) => PlainFrame::closed(1005, ""),
                Some(Err(_)) | None => PlainFrame::Cut,
            };
        }
    }
}
