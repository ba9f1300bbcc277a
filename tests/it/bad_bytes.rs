//! Ports that hear what they do not speak.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{TestServer, deadline, raw_http};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes in no order, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn still_serves(server: &TestServer) {
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    assert_eq!(backend.emit_to_user("42", "e", "1").await.enqueued, 1);
    device.expect_event("e").await;
    let ready = raw_http(server.admin(), "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(ready.starts_with(b"HTTP/1.1 200 OK"), "{}", ready.escape_ascii());
}

/// A caller that leaves in the middle of what it says.
async fn say_and_leave(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.expect("the port is open");
    deadline("the bytes to be taken", stream.write_all(bytes)).await.expect("the bytes are taken");
}

#[tokio::test]
async fn garbage_on_the_grpc_port_ends_its_connection_and_nothing_else() {
    let server = TestServer::start().await;
    let garbled_frames = [PREFACE, &noise(4 << 10)].concat();
    // A HEADERS frame (RFC 9113, section 6.2) that opens the stream 2, which only a server may.
    let bad_stream = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1, 1, 5, 0, 0, 0, 2, 0x82]].concat();
    for bytes in [noise(4 << 10), vec![0; 4 << 10], b"\r\n\r\n".repeat(9), garbled_frames, bad_stream] {
        let answer = raw_http(server.grpc(), &bytes).await;
        assert!(!answer.starts_with(b"HTTP/1"), "{}", answer.escape_ascii());
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn http_1_on_the_grpc_port_is_hung_up_on() {
    let server = TestServer::start().await;
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /bugle.v1.Notify/EmitToUser HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
    ] {
        let answer = raw_http(server.grpc(), request).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn garbage_on_the_http_ports_is_a_bad_request_and_harms_nobody() {
    let server = TestServer::start().await;
    for address in [server.clients(), server.admin()] {
        for bytes in [noise(4 << 10), vec![0; 64], PREFACE.to_vec(), b"GET / HTTP/9.9\r\n\r\n".to_vec()] {
            let answer = raw_http(address, &bytes).await;
            let is_refused =
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.0 4");
            assert!(is_refused, "{}", answer.escape_ascii());
        }
        let endless_head = [b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec(), vec![b'x'; 100 << 10]].concat();
        let answer = raw_http(address, endless_head).await;
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn callers_that_leave_in_the_middle_harm_nobody() {
    let server = TestServer::start().await;
    for address in [server.clients(), server.grpc(), server.admin()] {
        for bytes in [&b""[..], b"P", PREFACE, b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost"] {
            say_and_leave(address, bytes).await;
        }
    }
    still_serves(&server).await;
}
