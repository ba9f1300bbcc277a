use std::{net::Ipv4Addr, pin::pin};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::*;
use crate::{AcceptorConfig, Proxies, Share};

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn begun() -> Vec<u8> {
    [PREFACE, SETTINGS].concat()
}

async fn acceptor(max: usize) -> (Acceptor, std::net::SocketAddr, Share) {
    let share = Share::new(max);
    let config =
        AcceptorConfig { listener: "test", share: share.clone(), per_address: None, proxies: Proxies::default() };
    let acceptor = Acceptor::bind((Ipv4Addr::LOCALHOST, 0).into(), config).await.unwrap();
    let address = acceptor.local_addr().unwrap();
    (acceptor, address, share)
}

async fn client(address: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

#[tokio::test]
async fn the_preface_and_what_follows_is_read_from_the_stream() {
    let (acceptor, address, _) = acceptor(10).await;
    let mut client = client(address, &PREFACE[..10]).await;
    let mut streams = pin!(acceptor.into_stream());
    assert!(futures_util::poll!(streams.next()).is_pending());
    client.write_all(&PREFACE[10..]).await.unwrap();
    assert!(futures_util::poll!(streams.next()).is_pending());
    client.write_all(SETTINGS).await.unwrap();
    let mut stream = streams.next().await.unwrap().unwrap();
    let mut bytes = [0; BEGINNING];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!((&bytes[..24], &bytes[24..]), (&PREFACE[..], SETTINGS));
    stream.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn http_1_begins_with_its_first_bytes() {
    let (acceptor, address, _) = acceptor(10).await;
    // "P" may become the preface; "PO" may not.
    let _client = client(address, b"PO").await;
    let mut stream = pin!(acceptor.into_stream()).next().await.unwrap().unwrap();
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"PO");
}

#[tokio::test]
async fn a_slow_beginning_does_not_hold_up_others() {
    let (acceptor, address, share) = acceptor(10).await;
    let _slow = client(address, &PREFACE[..3]).await;
    let quick = client(address, &begun()).await;
    let mut streams = pin!(acceptor.into_stream());
    let stream = streams.next().await.unwrap().unwrap();
    assert_eq!(stream.get_ref().peer_addr().unwrap(), quick.local_addr().unwrap());
    assert_eq!(share.taken(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_preface_without_settings_is_closed_after_5_s() {
    let (acceptor, address, share) = acceptor(10).await;
    let mut slow = client(address, PREFACE).await;
    let mut streams = pin!(acceptor.into_stream());
    let (start, mut byte) = (Instant::now(), [0]);
    tokio::select! {
        _ = streams.next() => panic!("no connection has begun"),
        read = slow.read(&mut byte) => assert_eq!(read.unwrap_or_default(), 0),
    }
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(share.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_speaks_http_1_is_closed_after_10_s_unless_it_is_known() {
    for is_known in [false, true] {
        let (acceptor, address, _) = acceptor(10).await;
        let _client = client(address, b"POST /x HTTP/1.1\r\n").await;
        let mut stream = pin!(acceptor.into_stream()).next().await.unwrap().unwrap();
        let mut bytes = [0; 18];
        stream.read_exact(&mut bytes).await.unwrap();
        if is_known {
            stream.place().known();
        }
        let read = tokio::time::timeout(Duration::from_mins(1), stream.read(&mut bytes)).await;
        assert_eq!(
            read.map(|read| read.unwrap_err().kind()).ok(),
            (!is_known).then_some(io::ErrorKind::ConnectionAborted)
        );
    }
}

#[tokio::test]
async fn an_unknown_connection_is_cut_for_a_new_one() {
    let (acceptor, address, share) = acceptor(1).await;
    let _first = client(address, &begun()).await;
    let mut streams = pin!(acceptor.into_stream());
    let mut unknown = streams.next().await.unwrap().unwrap();
    let mut bytes = [0; BEGINNING];
    unknown.read_exact(&mut bytes).await.unwrap();
    let _second = client(address, &begun()).await;
    let (read, known) = tokio::join!(unknown.read(&mut bytes), streams.next());
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    drop(unknown);
    known.unwrap().unwrap().place().known();
    assert_eq!(share.taken(), 0);
}

#[tokio::test]
async fn a_known_connection_keeps_its_place() {
    let (acceptor, address, _) = acceptor(1).await;
    let _first = client(address, &begun()).await;
    let mut streams = pin!(acceptor.into_stream());
    let stream = streams.next().await.unwrap().unwrap();
    stream.place().known();
    let (mut second, mut byte) = (TcpStream::connect(address).await.unwrap(), [0]);
    tokio::select! {
        _ = streams.next() => panic!("a connection was accepted"),
        read = second.read(&mut byte) => assert!(read.is_err()),
    }
}

#[tokio::test]
async fn a_connection_is_not_read_that_takes_no_answers_before_it_is_known() {
    let (acceptor, address, _) = acceptor(10).await;
    let mut client = client(address, &begun()).await;
    let mut stream = pin!(acceptor.into_stream()).next().await.unwrap().unwrap();
    stream.read_exact(&mut [0; BEGINNING]).await.unwrap();
    let mut byte = [0];
    let block = vec![0; 1 << 16];
    let mut written = 0;
    while let Some(taken) = stream.write(&block).now_or_never() {
        written += taken.unwrap();
    }
    client.write_all(b"more").await.unwrap();
    stream.stream.readable().await.unwrap();
    assert!(stream.read(&mut byte).now_or_never().is_none());
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let reading = async {
        from_client.read_exact(&mut byte).await.unwrap();
        byte
    };
    let writing = async {
        to_client.write_all(&block).await.unwrap();
        std::future::pending::<()>().await;
    };
    let mut taken = vec![0; written];
    let taking = async {
        client.read_exact(&mut taken).await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        byte = tokio::time::timeout(Duration::from_secs(10), reading) => assert_eq!(&byte.unwrap(), b"m"),
        () = writing => {}
        () = taking => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_becomes_known_is_read_at_once() {
    let (acceptor, address, _) = acceptor(10).await;
    let mut client = client(address, &begun()).await;
    let mut stream = pin!(acceptor.into_stream()).next().await.unwrap().unwrap();
    client.write_all(&vec![0; 100_000]).await.unwrap();
    let (place, begun) = (stream.place(), Instant::now());
    let mut bytes = vec![0; BEGINNING + 100_000];
    let reading = async { stream.read_exact(&mut bytes).await.unwrap() };
    // The turns that there are do not last.
    let (_, ()) = tokio::join!(reading, async {
        tokio::task::yield_now().await;
        place.known();
    });
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
