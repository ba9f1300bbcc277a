/// How many bytes may wait for a connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The backlog past which a connection is slow.
    pub queue_bytes: usize,
    /// Bytes of exempt packets that may wait besides.
    pub exempt_bytes: usize,
}
