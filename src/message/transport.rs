/// How a device is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Socket.IO over WebSocket.
    SocketIoWebSocket,
    /// Socket.IO over HTTP long polling.
    SocketIoPolling,
    /// Plain WebSocket.
    WebSocket,
}

impl Transport {
    /// All that there are. Nodes tell each other a transport by its index here: new ones are added at the end.
    pub const ALL: [Self; 3] = [Self::SocketIoWebSocket, Self::SocketIoPolling, Self::WebSocket];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SocketIoWebSocket => "socketio-websocket",
            Self::SocketIoPolling => "socketio-polling",
            Self::WebSocket => "websocket",
        }
    }
}
