use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::ReadBuf,
    time::{Instant, timeout_at},
};

use super::{CloseFrame, Event, FrameReader, Opcode, Violation, frame};
use crate::stream::{Handle, Stream, WriteMode};

/// Control frames (RFC 6455, section 5.5) that a peer may send within a second. Official clients send one per heartbeat.
pub const MAX_CONTROL_FRAMES_PER_SECOND: u32 = 200;

/// Bytes that are read after the server's Close frame: more than a peer has on its way that takes leave.
const MAX_READ_LEAVING: usize = 1024 * 1024;

/// Bytes read with one call. The buffer belongs to the thread, so that an idle connection has none.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// The server's end of a WebSocket. It answers pings, and reads no further while too much waits to be written.
pub struct WebSocket {
    stream: Stream,
    handle: Handle,
    reader: FrameReader,
    /// What was read and not yet looked at.
    unread: Bytes,
    /// The latest ping, which is answered when the kernel has room again (section 5.5.3 allows to pass over earlier ones).
    pending_pong: Option<Bytes>,
    control: ControlRate,
    max_backlog: usize,
    has_peer_closed: bool,
}

/// What a peer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// The peer has pinged, and is answered.
    Ping,
    /// The peer has answered a ping with this payload, or says so.
    Pong(Bytes),
}

/// How a WebSocket came to its end.
#[derive(Debug)]
pub enum Ended {
    /// The peer sent a Close frame.
    Closed(Option<CloseFrame>),
    /// The peer broke the protocol, or a bound.
    Violation(Violation),
    /// The peer sent more control frames than it may.
    ControlFlood,
    /// The server cut it.
    Cut,
    /// The stream ended or failed without a Close frame.
    Failed(io::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(Some(close)) => write!(f, "closed by the peer with code {}", close.code),
            Self::Closed(None) => f.write_str("closed by the peer"),
            Self::Violation(violation) => violation.fmt(f),
            Self::ControlFlood => {
                write!(f, "more than {MAX_CONTROL_FRAMES_PER_SECOND} control frames within a second")
            }
            Self::Cut => f.write_str("cut by the server"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl WebSocket {
    /// Takes over a stream after its upgrade. `read`: what was read of it already. `max_message`: the largest message, in bytes.
    /// While more than `max_backlog` bytes wait to be written, nothing is read.
    pub fn new(stream: Stream, read: Bytes, max_message: usize, max_backlog: usize) -> Self {
        Self {
            handle: stream.handle(),
            stream,
            reader: FrameReader::new(max_message),
            unread: read,
            pending_pong: None,
            control: ControlRate::default(),
            max_backlog,
            has_peer_closed: false,
        }
    }

    /// Writes into the WebSocket and ends it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Changes the largest message that is accepted from the next frame on, in bytes.
    pub fn set_max_message(&mut self, bytes: usize) {
        self.reader.set_max_message(bytes);
    }

    /// The next message. Cancel safe.
    pub async fn next(&mut self) -> Result<Message, Ended> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message. It also writes what the kernel did not take before, so it has to be polled all the time.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Ended>> {
        loop {
            if let Poll::Ready(ended) = self.poll_write_on(cx) {
                return Poll::Ready(Err(ended));
            }
            self.send_pending_pong();
            let event = self.parse().map_err(Ended::Violation)?;
            self.stream.note_unfinished(self.reader.capacity());
            if let Some(event) = event {
                return Poll::Ready(self.receive(event));
            }
            let is_unread = self.handle.is_blocked_beyond(self.max_backlog);
            self.handle.set_unread(is_unread);
            if is_unread {
                // This task writes on when the kernel takes more, and then comes here again.
                return Poll::Pending;
            }
            ready!(self.poll_fill(cx)).map_err(Ended::Failed)?;
        }
    }

    /// Writes what the kernel did not take before, without reading. Ready: the WebSocket has ended.
    pub(super) fn poll_write_on(&self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.stream.poll_drain(cx).map(|error| {
            let is_cut = error.kind() == io::ErrorKind::ConnectionAborted && !self.handle.is_open();
            if is_cut { Ended::Cut } else { Ended::Failed(error) }
        })
    }

    fn receive(&mut self, event: Event) -> Result<Message, Ended> {
        if matches!(event, Event::Ping(_) | Event::Pong(_)) && !self.control.allows(Instant::now()) {
            metrics::counter!("transport_control_floods_total").increment(1);
            tracing::info!(
                "closed a WebSocket: more than {MAX_CONTROL_FRAMES_PER_SECOND} control frames within a second"
            );
            return Err(Ended::ControlFlood);
        }
        match event {
            Event::Text(text) => Ok(Message::Text(text)),
            Event::Binary(bytes) => Ok(Message::Binary(bytes)),
            Event::Ping(payload) => {
                self.pending_pong = Some(payload);
                self.send_pending_pong();
                Ok(Message::Ping)
            }
            Event::Pong(payload) => Ok(Message::Pong(payload)),
            Event::Close(close) => {
                self.has_peer_closed = true;
                Err(Ended::Closed(close))
            }
        }
    }

    fn send_pending_pong(&mut self) {
        if self.pending_pong.is_none() || self.handle.is_blocked() {
            return;
        }
        if let Some(payload) = self.pending_pong.take() {
            self.handle.enqueue(&[frame(Opcode::Pong, &payload)], WriteMode::Inline);
        }
    }

    fn parse(&mut self) -> Result<Option<Event>, Violation> {
        if self.unread.is_empty() {
            return Ok(None);
        }
        let mut rest = &*self.unread;
        let event = self.reader.read(&mut rest)?;
        let read = self.unread.len() - rest.len();
        // An empty rest must not keep the buffer.
        self.unread = if rest.is_empty() { Bytes::new() } else { self.unread.slice(read..) };
        Ok(event)
    }

    /// Reads more. An error is also the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        READ_BUFFER.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.stream.poll_read_on(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread = Bytes::copy_from_slice(buffer.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Writes what is queued and then `last`, a Close frame, and reads on until the peer has closed, has sent 1 MiB, or the time is over: a
    /// socket that is closed with something unread loses what is on its way to the peer. False: the peer did not take all of it.
    pub async fn leave(&mut self, last: Option<Bytes>, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        if let Some(last) = last {
            self.stream.push_last(last);
        }
        let written = timeout_at(deadline, poll_fn(|cx| self.stream.poll_empty(cx))).await;
        if !matches!(written, Ok(Ok(()))) {
            return false;
        }
        if self.has_peer_closed {
            // The server ends the stream first (RFC 6455, section 7.1.1).
            let _ = timeout_at(deadline, poll_fn(|cx| self.stream.poll_finish(cx))).await;
            return true;
        }
        let mut left = MAX_READ_LEAVING;
        let _ = timeout_at(deadline, poll_fn(|cx| self.poll_until_closed(cx, &mut left))).await;
        true
    }

    /// Waits for the peer's Close frame or the end of the stream, and drops what comes before: `left` bytes at most.
    fn poll_until_closed(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        loop {
            match self.parse() {
                Ok(Some(Event::Close(_))) | Err(_) => {
                    let _ = self.stream.poll_finish(cx);
                    return Poll::Ready(());
                }
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            self.stream.note_unfinished(self.reader.capacity());
            if self.stream.is_aborted() || ready!(self.poll_fill(cx)).is_err() || self.unread.len() >= *left {
                return Poll::Ready(());
            }
            *left -= self.unread.len();
        }
    }
}

/// Counts control frames within a second.
#[derive(Default)]
struct ControlRate {
    since: Option<Instant>,
    count: u32,
}

impl ControlRate {
    fn allows(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= MAX_CONTROL_FRAMES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::stream::{Flushers, QueuedBytes, Spawn};

    const MAX_BACKLOG: usize = 1_000;
    const PING: &[u8] = b"\x89\x81\0\0\0\0p";
    const TEXT: &[u8] = b"\x81\x82\0\0\0\0hi";

    #[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
    async fn pair() -> (WebSocket, TcpStream) {
        let spawn: Spawn = Arc::new(|task| _ = tokio::spawn(task));
        let flushers = Flushers::start(&spawn, &CancellationToken::new(), QueuedBytes::new(u64::MAX));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Stream::new(listener.accept().await.unwrap().0, &flushers);
        (WebSocket::new(stream, Bytes::new(), 1_000_000, MAX_BACKLOG), peer)
    }

    fn block() -> Bytes {
        frame(Opcode::Binary, &vec![7; 1 << 20])
    }

    #[tokio::test]
    async fn frames_that_only_wait_for_a_flusher_do_not_keep_the_peer_from_being_heard() {
        let (mut socket, mut peer) = pair().await;
        // The test's one thread has not run the flusher yet when the socket is polled.
        assert!(socket.handle().enqueue(&[frame(Opcode::Binary, &[7; 2 * MAX_BACKLOG])], WriteMode::Batched));
        let speaking = async {
            let mut got = vec![0; 2 * MAX_BACKLOG + 4];
            peer.read_exact(&mut got).await.unwrap();
            peer.write_all(TEXT).await.unwrap();
        };
        let ((), heard) = tokio::join!(speaking, tokio::time::timeout(Duration::from_secs(5), socket.next()));
        assert_eq!(heard.expect("the peer is heard").unwrap(), Message::Text("hi".into()));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_not_read_and_heard_once_it_does() {
        let (mut socket, mut peer) = pair().await;
        while !socket.handle().is_blocked_beyond(MAX_BACKLOG) {
            assert!(socket.handle().enqueue(&[block()], WriteMode::Inline));
        }
        peer.write_all(TEXT).await.unwrap();
        assert!(futures_util::poll!(Box::pin(socket.next())).is_pending());
        assert!(socket.handle().note_progress(), "it has taken something, and may have said something");
        assert!(!socket.handle().note_progress(), "it has taken nothing since");
        let reading = async {
            let mut buffer = vec![0; 1 << 16];
            loop {
                peer.read_exact(&mut buffer).await.unwrap();
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), socket.next());
        tokio::select! {
            heard = heard => assert_eq!(heard.expect("the peer is heard").unwrap(), Message::Text("hi".into())),
            () = reading => {}
        }
    }

    #[tokio::test]
    async fn pings_are_answered_and_a_flood_of_them_ends_the_connection() {
        let (mut socket, mut peer) = pair().await;
        peer.write_all(PING).await.unwrap();
        assert_eq!(socket.next().await.unwrap(), Message::Ping);
        let mut pong = [0; 3];
        peer.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x01p");
        peer.write_all(&PING.repeat(MAX_CONTROL_FRAMES_PER_SECOND as usize)).await.unwrap();
        let ended = loop {
            if let Err(ended) = socket.next().await {
                break ended;
            }
        };
        assert!(matches!(ended, Ended::ControlFlood), "{ended}");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_stop_sending_does_not_hold_up_the_end() {
        let (mut socket, mut peer) = pair().await;
        let block = block();
        let flooding = async { while peer.write_all(&block).await.is_ok() {} };
        let leaving = socket.leave(None, Duration::from_hours(1));
        tokio::select! {
            () = flooding => panic!("the socket has ended while it is here"),
            left = tokio::time::timeout(Duration::from_secs(5), leaving) => assert!(left.expect("it ends by itself")),
        }
    }
}
