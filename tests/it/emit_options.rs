use bugle::proto::v1::{EmitOptions, EmitToUserRequest, emit_to_user_request};
use tonic::Code;

use crate::harness::{Backend, Device, TestServer, answer, counts, named, refused, to_everyone, to_user, with_options};

/// Sends to everyone with these options, and then to everyone.
async fn left_out(backend: &Backend, options: EmitOptions) -> (u64, u64, u64) {
    let mut request = to_everyone("left-out", "1");
    request.options = Some(options);
    let receipt = answer(backend.notify().broadcast(request)).await.expect("the emit is accepted").receipt;
    backend.broadcast("next", "1").await;
    counts(&receipt.expect("an accepted emit has a receipt"))
}

async fn got(device: &mut Device) -> bool {
    match &*device.next_event().await.name {
        "next" => false,
        "left-out" => {
            device.expect_event("next").await;
            true
        }
        other => panic!("{other} came"),
    }
}

#[tokio::test]
async fn excepted_connections_users_and_rooms_are_not_matched() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut phone = server.connect("1").await;
    let mut tablet = server.connect("1").await;
    let mut second = server.connect("2").await;
    let mut third = server.connect("3").await;
    backend.join_room("listing:7", "3").await;
    let phone_id = phone.welcome().connection_id.clone();
    let stranger_id = uuid::Uuid::new_v4().to_string();

    let connections = vec![phone_id.clone(), stranger_id];
    let options = EmitOptions { except_connection_ids: connections, ..EmitOptions::default() };
    assert_eq!(left_out(&backend, options).await, (3, 3, 0));
    let options = EmitOptions { except_user_ids: vec!["1".into(), "nobody".into()], ..EmitOptions::default() };
    assert_eq!(left_out(&backend, options).await, (2, 2, 0));
    let rooms = vec!["listing:7".into(), "user:2".into(), "nowhere".into()];
    let options = EmitOptions { except_rooms: rooms, ..EmitOptions::default() };
    assert_eq!(left_out(&backend, options).await, (2, 2, 0));
    let options = EmitOptions {
        except_connection_ids: vec![phone_id],
        except_user_ids: vec!["2".into()],
        except_rooms: vec!["listing:7".into()],
        ..EmitOptions::default()
    };
    assert_eq!(left_out(&backend, options).await, (1, 1, 0));
    let options = EmitOptions { except_rooms: vec!["everyone".into()], ..EmitOptions::default() };
    assert_eq!(left_out(&backend, options).await, (0, 0, 0));

    for (device, expected) in [
        (&mut phone, [false, false, true, false, false]),
        (&mut tablet, [true, false, true, true, false]),
        (&mut second, [true, true, false, false, false]),
        (&mut third, [true, true, false, false, false]),
    ] {
        for expected in expected {
            assert_eq!(got(device).await, expected);
        }
    }
}

#[tokio::test]
async fn a_full_queue_loses_a_volatile_event_and_keeps_the_connection() {
    let server = TestServer::start_with(|config| config.socketio.queue_bytes = 64 << 10).await;
    let backend = server.backend().await;
    let mut device = server.device("42").receive_buffer(8 << 10).connect().await.unwrap();
    device.stop_reading();

    let payload = format!("\"{}\"", "x".repeat(256 << 10));
    let mut request = to_user("42", "frame", &payload);
    request.options = Some(EmitOptions { volatile: true, ..EmitOptions::default() });
    let mut enqueued = 0;
    loop {
        let receipt = answer(backend.notify().emit_to_user(request.clone())).await.unwrap().receipt.unwrap();
        assert_eq!((receipt.matched, receipt.enqueued + receipt.dropped), (1, 1));
        enqueued += receipt.enqueued;
        assert!(enqueued < 1_000, "the queue never fills");
        if receipt.dropped == 1 {
            break;
        }
    }
    assert!(backend.get_user("42").await.online, "the connection stays");

    device.resume_reading();
    for _ in 0..enqueued {
        device.expect_event("frame").await;
    }
    backend.emit_to_user("42", "next", "1").await;
    assert_eq!(device.next_event().await.name, "next", "what was counted as enqueued came, and no more");
}

#[tokio::test]
async fn an_envelope_around_bytes_is_refused() {
    let server = TestServer::start().await;
    let mut notify = server.backend().await.notify();
    let payload = Some(emit_to_user_request::Payload::Binary("bytes".into()));
    let options = EmitOptions { envelope: true, ..EmitOptions::default() };
    let request = EmitToUserRequest { payload, ..with_options(options) };
    let status = refused(Code::InvalidArgument, notify.emit_to_user(request)).await;
    assert_eq!(named(&status), ["options.envelope"]);
}
