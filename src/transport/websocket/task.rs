use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;

use super::{Ended, Message, WebSocket};

/// How long the closing handshake may take.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What an edge does with a WebSocket that it has accepted.
pub trait Peer: Send + Unpin + 'static {
    /// Handles a message.
    fn receive(&mut self, message: Message) -> Step;

    /// Ends the connection, in this way. Returns how the WebSocket is left; the peer is dropped when it is.
    fn end(&mut self, how: End) -> Leave;
}

/// What follows a message.
pub enum Step {
    /// The next message is read.
    Read,
    /// The next message is read when this has ended.
    Wait(BoxFuture<()>),
    /// The connection ends: [`Peer::end`] is called.
    End,
}

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The edge said so with [`Step::End`].
    Requested,
    /// The WebSocket has ended.
    WebSocket(Ended),
}

/// How a WebSocket is left.
pub struct Leave {
    /// The last frame: a Close frame. `None`: the stream is dropped at once.
    pub last: Option<Bytes>,
    /// Called if the peer has not taken all of it within 500 ms.
    pub on_lost: Option<Box<dyn FnOnce() + Send>>,
}

/// Serves one WebSocket, from its opening handshake to its end. The state of the handshake and that of the closing handshake are
/// allocated while they last: what remains between is the WebSocket and its peer.
pub struct Task<P>(Stage<P>);

#[expect(clippy::large_enum_variant, reason = "a task is in the largest stage for nearly all of its life")]
enum Stage<P> {
    Opening(BoxFuture<Option<(WebSocket, P)>>),
    Open { websocket: WebSocket, peer: P, waits_for: Option<BoxFuture<()>> },
    Leaving(BoxFuture<()>),
    Ended,
}

impl<P: Peer> Task<P> {
    /// `opening` returns the WebSocket and its peer, or `None` if the connection has ended before.
    pub fn new(opening: impl Future<Output = Option<(WebSocket, P)>> + Send + 'static) -> Self {
        Self(Stage::Opening(Box::pin(opening)))
    }
}

impl<P: Peer> Future for Task<P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let end = match &mut self.0 {
                Stage::Opening(opening) => {
                    self.0 = match ready!(opening.as_mut().poll(cx)) {
                        Some((websocket, peer)) => Stage::Open { websocket, peer, waits_for: None },
                        None => Stage::Ended,
                    };
                    continue;
                }
                Stage::Open { websocket, peer, waits_for } => ready!(serve(websocket, peer, waits_for, cx)),
                Stage::Leaving(leaving) => return leaving.as_mut().poll(cx),
                Stage::Ended => return Poll::Ready(()),
            };
            if let Stage::Open { websocket, peer, .. } = mem::replace(&mut self.0, Stage::Ended) {
                self.0 = leave(websocket, peer, end);
            }
        }
    }
}

/// Reads messages until the end.
fn serve<P: Peer>(
    websocket: &mut WebSocket,
    peer: &mut P,
    waits_for: &mut Option<BoxFuture<()>>,
    cx: &mut Context<'_>,
) -> Poll<End> {
    loop {
        if let Some(waited) = waits_for {
            // What is queued goes out meanwhile, and an end does not wait.
            if let Poll::Ready(ended) = websocket.poll_write_on(cx) {
                return Poll::Ready(End::WebSocket(ended));
            }
            ready!(waited.as_mut().poll(cx));
            *waits_for = None;
        }
        match ready!(websocket.poll_next(cx)) {
            Ok(message) => match peer.receive(message) {
                Step::Read => {}
                Step::Wait(future) => *waits_for = Some(future),
                Step::End => return Poll::Ready(End::Requested),
            },
            Err(ended) => return Poll::Ready(End::WebSocket(ended)),
        }
    }
}

fn leave<P: Peer>(mut websocket: WebSocket, mut peer: P, end: End) -> Stage<P> {
    let Leave { last, on_lost } = peer.end(end);
    if last.is_none() {
        return Stage::Ended;
    }
    Stage::Leaving(Box::pin(async move {
        let _until_it_has_left = peer;
        if !websocket.leave(last, LEAVE_WITHIN).await
            && let Some(report) = on_lost
        {
            report();
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{super::close_frame, *};
    use crate::{Flushers, QueuedBytes, Stream};

    /// Says goodbye to whatever comes.
    struct Curt {
        _held: Arc<()>,
    }

    impl Peer for Curt {
        fn receive(&mut self, _: Message) -> Step {
            Step::End
        }

        fn end(&mut self, _: End) -> Leave {
            Leave { last: Some(close_frame(1000, "")), on_lost: None }
        }
    }

    fn served(peer: Curt) -> (Pin<Box<Task<Curt>>>, DuplexStream) {
        let (server, client) = duplex(1_024);
        let stream = Stream::other(server, &Flushers::inline(QueuedBytes::new(u64::MAX)));
        let websocket = WebSocket::new(stream, Bytes::new(), 1_024, 1_024);
        (Box::pin(Task::new(async { Some((websocket, peer)) })), client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_kept_until_its_websocket_is_closed() {
        let held = Arc::new(());
        let (mut task, mut client) = served(Curt { _held: held.clone() });
        // A masked text, and then a masked Close frame: both are empty.
        client.write_all(&[0x81, 0x80, 1, 2, 3, 4]).await.unwrap();
        assert!(futures_util::poll!(&mut task).is_pending());
        let mut got = [0; 4];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, *close_frame(1000, ""));
        assert_eq!(Arc::strong_count(&held), 2, "its WebSocket is open still");
        client.write_all(&[0x88, 0x80, 1, 2, 3, 4]).await.unwrap();
        task.await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_left_after_a_while() {
        let (task, mut client) = served(Curt { _held: Arc::default() });
        client.write_all(&[0x81, 0x80, 1, 2, 3, 4]).await.unwrap();
        let begun = tokio::time::Instant::now();
        task.await;
        assert!(begun.elapsed() >= LEAVE_WITHIN);
    }
}
