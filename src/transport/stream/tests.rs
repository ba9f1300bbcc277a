use std::{future::poll_fn, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::*;

const MODES: [WriteMode; 2] = [WriteMode::Inline, WriteMode::Batched];
const DEADLINE: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
fn flushers() -> Flushers {
    let spawn: Spawn = Arc::new(|task| _ = tokio::spawn(task));
    Flushers::start(&spawn, &CancellationToken::new(), QueuedBytes::new(u64::MAX))
}

async fn pair() -> (Stream, TcpStream, Flushers) {
    let flushers = flushers();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Stream::new(listener.accept().await.unwrap().0, &flushers), peer, flushers)
}

/// Does what the owner of an upgraded stream does: writes what others have queued until the stream ends.
async fn own(stream: &Stream) -> Error {
    poll_fn(|cx| stream.poll_drain(cx)).await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it comes to an end")
}

#[tokio::test]
async fn a_cut_wakes_a_writer_whose_peer_does_not_read_and_a_reader_whose_peer_is_silent() {
    let (stream, _peer, _) = pair().await;
    let handle = stream.handle();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (first_block, has_written) = tokio::sync::oneshot::channel();
    let writing = async {
        let block = vec![0; 1 << 20];
        writer.write_all(&block).await.unwrap();
        first_block.send(()).unwrap();
        while writer.write_all(&block).await.is_ok() {}
    };
    let reading = async { reader.read_u8().await.unwrap_err() };
    let cutting = async {
        has_written.await.unwrap();
        handle.abort();
    };
    within(async { tokio::join!(writing, reading, cutting) }).await;
}

#[tokio::test]
async fn frames_go_out_in_their_order_whoever_writes_them() {
    let (stream, mut peer, flushers) = pair().await;
    let handle = stream.handle();
    let frame = |number: u16| Bytes::from(number.to_be_bytes().repeat(1 << 14));
    for number in 0..400 {
        assert!(handle.enqueue(&[frame(number)], MODES[usize::from(number) % 2]));
    }
    let hearing = async {
        for number in 0..400 {
            let mut got = vec![0; frame(number).len()];
            peer.read_exact(&mut got).await.unwrap();
            assert!(got == frame(number), "frame {number} is out of order");
        }
        assert_eq!(handle.backlog(), 0);
        assert_eq!(flushers.queued().total(), 0);
        handle.cut();
    };
    within(async { tokio::join!(hearing, own(&stream)) }).await;
    assert!(!handle.enqueue(&[frame(0)], WriteMode::Inline), "the stream was cut");
}

#[tokio::test]
async fn a_frame_that_is_written_inline_has_left_before_the_call_returns() {
    let (stream, mut peer, _) = pair().await;
    let handle = stream.handle();
    assert!(handle.enqueue(&[Bytes::from_static(b"hello")], WriteMode::Inline));
    assert_eq!((handle.backlog(), handle.offsets()), (0, (5, 5)));
    let mut got = [0; 5];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn frames_that_were_not_begun_can_be_dropped() {
    let (stream, mut peer, flushers) = pair().await;
    let handle = stream.handle();
    let frame = Bytes::from(vec![7; 1 << 20]);
    while !handle.is_blocked() {
        assert!(handle.enqueue(std::slice::from_ref(&frame), WriteMode::Inline));
    }
    assert!(handle.enqueue(&[frame.clone(), frame.clone()], WriteMode::Inline));
    handle.drop_unwritten();
    assert!(handle.backlog() < frame.len(), "only the rest of a frame that was begun is left");
    let cost = flushers.queued().total() - handle.backlog() as u64;
    assert!(cost <= FRAME_COST as u64, "one frame is left at most: {cost}");
    handle.cut();
    let leaving = async {
        stream.push_last(Bytes::from_static(b"end"));
        poll_fn(|cx| stream.poll_empty(cx)).await.unwrap();
        drop(stream);
    };
    let hearing = async {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = within(async { tokio::join!(leaving, hearing) }).await;
    assert_eq!(got.len() % frame.len(), 3, "each frame is whole");
    assert!(got.ends_with(b"\x07end"));
}

#[tokio::test]
async fn what_was_queued_before_a_cut_goes_out_and_an_abort_throws_it_away() {
    let (stream, mut peer, _) = pair().await;
    assert!(stream.handle().enqueue(&[Bytes::from_static(b"last")], WriteMode::Batched));
    stream.handle().cut();
    drop(stream);
    let mut got = Vec::new();
    within(peer.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"last");

    let (stream, mut peer, flushers) = pair().await;
    let frame = Bytes::from(vec![7; 1 << 20]);
    while !stream.handle().is_blocked() {
        stream.handle().enqueue(std::slice::from_ref(&frame), WriteMode::Inline);
    }
    stream.handle().abort();
    drop(stream);
    assert_eq!(flushers.queued().total(), 0);
    within(peer.read_to_end(&mut got)).await.unwrap_err();
}

#[derive(Default)]
struct Fates {
    taken: AtomicUsize,
    lost: AtomicUsize,
}

impl AnswerFate for Fates {
    fn taken(&self) {
        self.taken.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

impl Fates {
    fn read(&self) -> (usize, usize) {
        (self.taken.load(Ordering::SeqCst), self.lost.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn an_answer_is_taken_with_the_flush_behind_it_and_lost_with_its_stream() {
    let (mut stream, _peer, _) = pair().await;
    let (first, second) = (Arc::new(Fates::default()), Arc::new(Fates::default()));
    stream.handle().await_flush(first.clone());
    stream.write_all(b"answer").await.unwrap();
    assert_eq!(first.read(), (0, 0));
    stream.flush().await.unwrap();
    assert_eq!(first.read(), (1, 0));
    let handle = stream.handle();
    handle.await_flush(second.clone());
    drop(stream);
    assert_eq!((first.read(), second.read()), ((1, 0), (0, 1)));
    handle.await_flush(second.clone());
    assert_eq!(second.read(), (0, 2), "it is too late");
}

#[tokio::test]
async fn a_pipe_in_memory_is_written_as_a_socket_is() {
    let (server, mut peer) = tokio::io::duplex(16);
    let flushers = flushers();
    let stream = Stream::other(server, &flushers);
    let handle = stream.handle();
    for mode in MODES {
        assert!(handle.enqueue(&[Bytes::from(vec![1; 100])], mode));
    }
    let hearing = async {
        let mut got = vec![0; 200];
        peer.read_exact(&mut got).await.unwrap();
        handle.cut();
        got
    };
    let (got, _) = within(async { tokio::join!(hearing, own(&stream)) }).await;
    assert_eq!(got, vec![1; 200]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_nothing_follows_has_what_was_gathered_written_at_once() {
    const STREAMS: usize = 65;
    let flushers = flushers();
    let (streams, mut peers): (Vec<_>, Vec<_>) = (0..STREAMS * flushers.shards())
        .map(|_| {
            let (server, peer) = tokio::io::duplex(16);
            (Stream::other(server, &flushers), peer)
        })
        .unzip();
    let begun = tokio::time::Instant::now();
    let enqueue = |mode| {
        for stream in &streams {
            assert!(stream.handle().enqueue(&[Bytes::from_static(b"a")], mode));
        }
    };
    enqueue(WriteMode::Gathered);
    tokio::task::yield_now().await;
    assert!(streams.iter().all(|stream| stream.handle().backlog() == 1), "all wait");
    enqueue(WriteMode::Batched);
    let hearing = async {
        for peer in &mut peers {
            peer.read_exact(&mut [0; 2]).await.unwrap();
        }
    };
    let owning = futures_util::future::join_all(streams.iter().map(own));
    tokio::select! {
        () = hearing => {}
        _ = owning => panic!("a stream has ended"),
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
