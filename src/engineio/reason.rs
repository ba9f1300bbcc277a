/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The peer closed the transport.
    TransportClose,
    /// The peer polled or posted twice at the same time.
    MultipleHttpPollingError,
    /// The peer sent a packet that cannot be read.
    PacketParsingError,
    /// The transport failed.
    TransportError,
    /// The peer did not answer a ping in time.
    HeartbeatTimeout,
    /// The server closed the connection.
    ClosingServer,
}
