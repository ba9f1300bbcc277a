//! Calls that no generated client would make.

use std::time::Duration;

use bugle::proto::v1::{EmitToUserRequest, GetUserRequest, JoinRoomRequest};
use prost::Message;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{RawGrpc, TestServer, grpc_frame, refused, to_user};

const EMIT_TO_USER: &str = "/bugle.v1.Notify/EmitToUser";
const EMIT_STREAM: &str = "/bugle.v1.Notify/EmitStream";
const GET_USER: &str = "/bugle.v1.Presence/GetUser";
/// One byte more than a message may have.
const TOO_LARGE: usize = (4 << 20) + 1;

/// A field of bytes, as protobuf encodes it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    prost::encode_length_delimiter(bytes.len(), &mut length).expect("a vector grows");
    [&[number << 3 | 2], &*length, bytes].concat()
}

async fn still_serves(server: &TestServer) {
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    assert_eq!(backend.emit_to_user("42", "e", "1").await.enqueued, 1);
    device.expect_event("e").await;
}

#[tokio::test]
async fn a_message_over_four_mebibytes_is_resource_exhausted_on_calls_and_streams() {
    let server = TestServer::start().await;
    let raw = RawGrpc::connect(server.grpc()).await;
    for path in [EMIT_TO_USER, EMIT_STREAM] {
        let answer = raw.call(path, &[], grpc_frame(false, &vec![0; TOO_LARGE])).await;
        assert_eq!(answer.code(), Code::ResourceExhausted, "{path}");
    }
    let json = format!("\"{}\"", "x".repeat(4 << 20));
    let mut notify = server.backend().await.notify();
    let status = refused(Code::ResourceExhausted, notify.emit_to_user(to_user("42", "e", &json))).await;
    assert!(status.message().contains("4194304"), "the limit is named: {}", status.message());
    still_serves(&server).await;
}

#[tokio::test]
async fn a_message_that_is_small_on_the_wire_and_large_unpacked_is_resource_exhausted() {
    let server = TestServer::start().await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        std::io::Write::write_all(&mut packer, &vec![0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 100_000);
    for path in [EMIT_TO_USER, EMIT_STREAM] {
        let answer = raw.call(path, &[("grpc-encoding", "gzip")], grpc_frame(true, &bomb)).await;
        assert_eq!(answer.code(), Code::ResourceExhausted, "{path}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_invalid_arguments_on_calls_and_streams() {
    let server = TestServer::start().await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let not_utf8 = [0x0a, 1, 0xff];
    let cut_short = [0x0a, 200, 1];
    for path in [EMIT_TO_USER, EMIT_STREAM, GET_USER] {
        for bytes in [&not_utf8[..], &cut_short, &[0xff; 64]] {
            let answer = raw.call(path, &[], grpc_frame(false, bytes)).await;
            assert_eq!(answer.code(), Code::InvalidArgument, "{path} {bytes:?}");
        }
        let packed_by_nobody = raw.call(path, &[], grpc_frame(true, &[])).await;
        assert_eq!(packed_by_nobody.code(), Code::InvalidArgument, "{path}");
        let garbage = raw.call(path, &[("grpc-encoding", "zstd")], grpc_frame(true, &[7; 64])).await;
        assert_eq!(garbage.code(), Code::InvalidArgument, "{path}");
        let unknown_flag = raw.call(path, &[], vec![9, 0, 0, 0, 0]).await;
        assert_eq!(unknown_flag.code(), Code::InvalidArgument, "{path}");
    }
    let none = raw.call(EMIT_TO_USER, &[], Vec::new()).await;
    assert_eq!(none.code(), Code::InvalidArgument, "a call without a message");
    still_serves(&server).await;
}

#[tokio::test]
async fn values_and_json_that_nest_without_end_harm_nobody() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let mut value = Vec::new();
    for _ in 0..2_000 {
        value = field(6, &field(1, &value));
    }
    let field = field(4, &value);
    let request = [EmitToUserRequest { payload: None, ..to_user("42", "e", "") }.encode_to_vec(), field].concat();
    assert_eq!(raw.call(EMIT_TO_USER, &[], grpc_frame(false, &request)).await.code(), Code::InvalidArgument);

    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    backend.emit_to_user("42", "next", &format!("\"{}\"", "[".repeat(10))).await;
    device.expect_event("next").await;
    let request = to_user("42", "deep", &deep).encode_to_vec();
    let code = raw.call(EMIT_TO_USER, &[], grpc_frame(false, &request)).await.code();
    assert!(matches!(code, Code::Ok | Code::InvalidArgument), "{code:?}");
    backend.emit_to_user("43", "e", "1").await;
}

#[tokio::test]
async fn methods_and_encodings_that_are_not_there_are_unimplemented() {
    let server = TestServer::start().await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let request = grpc_frame(false, &to_user("42", "e", "1").encode_to_vec());
    for path in ["/bugle.v1.Notify/Nothing", "/bugle.v1.Mailbox/Nothing", "/bugle.v1.Notify", "/", "/a/b/c"] {
        assert_eq!(raw.call(path, &[], request.clone()).await.code(), Code::Unimplemented, "{path}");
    }
    let answer = raw.call(EMIT_TO_USER, &[("grpc-encoding", "br")], request).await;
    assert_eq!(answer.code(), Code::Unimplemented);
    still_serves(&server).await;
}

#[tokio::test]
async fn a_call_that_outlives_its_deadline_ends_deadline_exceeded() {
    let server = TestServer::start().await;
    let raw = RawGrpc::connect(server.grpc()).await;
    for timeout in ["20m", "20000u", "20000000n"] {
        // Its message never comes whole.
        let answer = raw.call_endless(EMIT_TO_USER, &[("grpc-timeout", timeout)], &[0]).await;
        assert_eq!(answer.code(), Code::DeadlineExceeded, "{timeout}");
        assert_eq!(answer.status.unwrap().message(), "the deadline passed before the call was done");
    }
    let request = grpc_frame(false, &GetUserRequest { user_id: "42".into() }.encode_to_vec());
    for timeout in ["5S", "1M", "1H", "99999999H", "soon", "", "-1S", "1", "123456789S"] {
        let answer = raw.call(GET_USER, &[("grpc-timeout", timeout)], request.clone()).await;
        assert_eq!(answer.code(), Code::Ok, "{timeout}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn calls_at_one_time_are_limited_and_the_refusal_says_when_to_come_back() {
    let server = TestServer::start_with(|config| config.limits.grpc_calls = 1).await;
    let raw = RawGrpc::connect(server.grpc()).await;
    let stuck = raw.call_endless(EMIT_TO_USER, &[("grpc-timeout", "60S")], &[0]);
    let mut rooms = server.backend().await.rooms();
    let refusal = async {
        loop {
            let request = JoinRoomRequest { room: "a".into(), user_id: "42".into(), ttl: None };
            if let Err(status) = rooms.join_room(request).await {
                return status;
            }
        }
    };
    // The one that is stuck is dropped with this, and its place is free again.
    let status = tokio::select! {
        status = refusal => status,
        answer = stuck => panic!("an endless call was answered: {answer:?}"),
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "limits.grpc_calls is met: too many calls at one time");
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(after, Some(Duration::from_secs(1)));
    let get_user = grpc_frame(false, &GetUserRequest { user_id: "42".into() }.encode_to_vec());
    while raw.call(GET_USER, &[], get_user.clone()).await.code() == Code::ResourceExhausted {}
    still_serves(&server).await;
}
