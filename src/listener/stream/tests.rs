use std::sync::atomic::AtomicU8;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::lifecycle::Lifecycle;

async fn pair() -> (DeviceStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let flushers = Flushers::start(&Lifecycle::new(), &CancellationToken::new());
    (DeviceStream::new(listener.accept().await.unwrap().0, &flushers), peer)
}

#[tokio::test]
async fn a_cut_wakes_a_writer_whose_peer_does_not_read_and_a_reader_whose_peer_is_silent() {
    let (stream, _peer) = pair().await;
    let handle = stream.handle();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        let block = vec![0; 1 << 20];
        while writer.write_all(&block).await.is_ok() {}
    };
    let reading = async { reader.read_u8().await.unwrap_err() };
    let cutting = async {
        let mut before = 1;
        while handle.written() != before {
            before = handle.written();
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
        }
        handle.abort();
    };
    let all = async { tokio::join!(writing, reading, cutting) };
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("the cut wakes both");
}

#[tokio::test]
async fn no_more_is_read_than_may_be() {
    let (mut stream, mut peer) = pair().await;
    let handle = stream.handle();
    handle.limit_reading(5);
    peer.write_all(b"hello world").await.unwrap();
    let mut text = [0; 5];
    stream.read_exact(&mut text).await.unwrap();
    assert!(handle.is_read_up());
    stream.read_u8().await.unwrap_err();
    handle.limit_reading(u64::MAX);
    assert_eq!(stream.read_u8().await.unwrap(), b' ');
}

#[tokio::test]
async fn written_bytes_are_counted_and_closing_is_seen() {
    let (mut stream, mut peer) = pair().await;
    let handle = stream.handle();
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(handle.written(), 5);
    assert!(!handle.is_closed());
    let ended = Arc::new(AtomicU8::new(0));
    let count = || {
        let ended = ended.clone();
        move || _ = ended.fetch_add(1, Ordering::SeqCst)
    };
    handle.at_end(count());
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    drop(stream);
    assert!(handle.is_closed());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    handle.at_end(count());
    assert_eq!(ended.load(Ordering::SeqCst), 2, "it is too late to wait");
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const ACCEPTED: &[u8] = b"\x81\x0240";

/// A stream whose owner has agreed to an upgrade and to a CONNECT.
async fn upgraded() -> (DeviceStream, TcpStream) {
    let (mut stream, mut peer) = pair().await;
    stream.handle().expect_upgrade();
    stream.write_all(&[RESPONSE, ACCEPTED].concat()).await.unwrap();
    let mut got = vec![0; RESPONSE.len() + ACCEPTED.len()];
    peer.read_exact(&mut got).await.unwrap();
    (stream, peer)
}

const ALL: [By; 2] = [By::Sender, By::Flusher];

#[tokio::test]
async fn a_frame_goes_out_once_the_owner_has_written_what_comes_before_it() {
    for by in ALL {
        goes_out_after_the_owners(by).await;
    }
}

async fn goes_out_after_the_owners(by: By) {
    let (mut stream, mut peer) = upgraded().await;
    let (handle, frame) = (stream.handle(), Bytes::from_static(b"\x81\x0542[1]"));
    assert_eq!(handle.send_after(2, &frame, by), Sent::TooEarly);
    stream.write_all(b"\x81\x0543[2]").await.unwrap();
    assert_eq!(handle.send_after(2, &frame, by), Sent::Yes);
    if by == By::Sender {
        assert_eq!(handle.written(), (RESPONSE.len() + ACCEPTED.len() + 14) as u64, "nobody else had a chance to run");
    }
    let mut got = [0; 14];
    peer.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x81\x0543[2]\x81\x0542[1]");
    assert_eq!(handle.written(), (RESPONSE.len() + ACCEPTED.len() + got.len()) as u64);
    drop(stream);
    assert_eq!(handle.send_after(2, &frame, by), Sent::Ended);
}

#[tokio::test]
async fn a_frame_waits_for_the_end_of_the_one_that_the_owner_is_at() {
    for by in ALL {
        waits_for_the_owners_frame(by).await;
    }
}

async fn waits_for_the_owners_frame(by: By) {
    let (mut stream, mut peer) = upgraded().await;
    let handle = stream.handle();
    stream.write_all(b"\x81\x042").await.unwrap();
    assert_eq!(handle.send_after(1, &Bytes::from_static(b"\x81\x0542[1]"), by), Sent::Yes);
    tokio::task::yield_now().await;
    stream.write_all(b"abc").await.unwrap();
    let (mut reader, _writer) = tokio::io::split(stream);
    let hearing = async {
        let mut got = [0; 13];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x81\x042abc\x81\x0542[1]");
        drop(peer);
    };
    tokio::join!(hearing, async { reader.read_u8().await.unwrap_err() });
}

#[tokio::test]
async fn what_the_kernel_does_not_take_waits_and_the_owner_waits_behind_it() {
    for by in ALL {
        waits_for_the_kernel(by).await;
    }
}

async fn waits_for_the_kernel(by: By) {
    let (stream, mut peer) = upgraded().await;
    let handle = stream.handle();
    let frame = |number: u8| [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![number; 1 << 16]].concat();
    for number in 0..200 {
        assert_eq!(handle.send_after(1, &frame(number).into(), by), Sent::Yes);
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let hearing = async {
        let mut got = vec![0; 200 * frame(0).len() + 3];
        peer.read_exact(&mut got).await.unwrap();
        let sent: Vec<_> = (0..200).flat_map(frame).chain([0x81, 1, b'2']).collect();
        assert!(got == sent, "in another order");
        drop(peer);
    };
    let reading = async { reader.read_u8().await.unwrap_err() };
    let writing = async { writer.write_all(&[0x81, 1, b'2']).await.unwrap() };
    let all = async { tokio::join!(hearing, reading, writing) };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all comes");
}

#[tokio::test]
async fn what_waits_goes_out_though_nobody_reads_from_the_stream_any_more() {
    let (mut stream, mut peer) = upgraded().await;
    let handle = stream.handle();
    let frame = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![7; 1 << 16]].concat();
    for _ in 0..200 {
        assert_eq!(handle.send_after(1, &frame.clone().into(), By::Flusher), Sent::Yes);
    }
    let leaving = async {
        stream.write_all(&[0x88, 0]).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let hearing = async {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 200 * frame.len() + 2);
        assert!(got.ends_with(&[7, 0x88, 0]));
    };
    let all = async { tokio::join!(leaving, hearing) };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all goes out");
}

#[tokio::test]
async fn what_was_sent_before_the_end_goes_out_unless_it_is_thrown_away() {
    let (stream, mut peer) = upgraded().await;
    assert_eq!(stream.handle().send_after(1, &Bytes::from_static(b"\x81\x0542[1]"), By::Flusher), Sent::Yes);
    stream.handle().cut();
    drop(stream);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"\x81\x0542[1]");
}
