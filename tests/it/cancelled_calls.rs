//! Calls that their caller gives up before the server sees them, as those of a server that stood still for longer than the callers' deadlines.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{TestServer, deadline};

/// As many as may be open on one connection (`SETTINGS_MAX_CONCURRENT_STREAMS`).
const CALLS: u32 = 1_024;

/// Types of HTTP/2 frames (RFC 9113, section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The error code of a call that is given up.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header fields of a call (RFC 7541): `:method: POST` and `:scheme: http` by their indices, `:path` and `:authority` as literals.
fn call_headers() -> Vec<u8> {
    let path = b"/bugle.v1.Notify/EmitToUser";
    let length = u8::try_from(path.len()).expect("it is short");
    [&[0x83, 0x86, 0x04, length][..], path, &[0x01, 1], b"x"].concat()
}

/// The type and the flags of the next frame that the server sends, and what is in it.
async fn next_frame(stream: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("the connection stays");
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.expect("a frame comes whole");
    (head[3], head[4], payload)
}

#[tokio::test]
async fn many_calls_that_were_given_up_before_they_are_seen_do_not_end_the_connection() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.grpc()).await.expect("the server accepts");
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &[])].concat();
    for call in 0..CALLS {
        let id = 2 * call + 1;
        bytes.extend(frame(HEADERS, END_HEADERS, id, &call_headers()));
        bytes.extend(frame(RST_STREAM, 0, id, &CANCEL));
    }
    bytes.extend(frame(PING, 0, 0, b"still up"));
    let answered = async {
        // At once: the server shares this thread.
        stream.write_all(&bytes).await.expect("the server reads");
        loop {
            match next_frame(&mut stream).await {
                (GOAWAY, _, payload) => panic!("the server ends the connection: {}", payload.escape_ascii()),
                (PING, ACK, payload) => return payload,
                _ => {}
            }
        }
    };
    assert_eq!(deadline("the answer to a ping", answered).await, b"still up");
}
