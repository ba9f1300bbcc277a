use bugle::proto::v1::{
    GetRoomRequest, GetRoomResponse, JoinRoomRequest, LeaveRoomRequest, ListRoomsRequest, ListRoomsResponse,
    get_room_response::Member,
};
use prost_types::Duration;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Backend, TestServer, answer, named, refused, violations};

fn join(room: &str, user: &str, ttl: Option<Duration>) -> JoinRoomRequest {
    JoinRoomRequest { room: room.into(), user_id: user.into(), ttl }
}

async fn list_rooms(backend: &Backend, prefix: &str, page_size: i32, page_token: &str) -> ListRoomsResponse {
    let request = ListRoomsRequest { prefix: prefix.into(), page_size, page_token: page_token.into() };
    answer(backend.rooms().list_rooms(request)).await.expect("the call is accepted")
}

fn names(response: &ListRoomsResponse) -> Vec<(&str, u64)> {
    response.rooms.iter().map(|room| (&*room.room, room.connection_count)).collect()
}

#[tokio::test]
async fn a_membership_holds_for_later_connections_until_the_user_leaves() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    assert_eq!(backend.join_room("listing:7", "42").await, 0, "nobody is there yet");
    let mut first = server.connect("42").await;
    assert!(first.welcome().rooms.contains(&"listing:7".to_owned()));
    assert_eq!(backend.join_room("listing:7", "42").await, 0, "the connection is in the room already");
    let mut second = server.connect("42").await;
    assert_eq!(backend.emit_to_room("listing:7", "bid", "1").await.enqueued, 2);

    assert_eq!(backend.leave_room("listing:7", "42").await, 2);
    assert_eq!(backend.leave_room("listing:7", "42").await, 0);
    let third = server.connect("42").await;
    assert!(!third.welcome().rooms.contains(&"listing:7".to_owned()));
    assert_eq!(backend.emit_to_room("listing:7", "late", "1").await.matched, 0);
    backend.emit_to_user("42", "next", "1").await;
    for device in [&mut first, &mut second] {
        device.expect_event("bid").await;
        device.expect_event("next").await;
    }
}

#[tokio::test]
async fn leaving_a_room_takes_nobody_else_out() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let _devices = [server.connect("1").await, server.connect("2").await];
    for user in ["1", "2"] {
        backend.join_room("listing:7", user).await;
        backend.join_room("listing:8", user).await;
    }
    backend.leave_room("listing:7", "1").await;
    assert_eq!(
        backend.get_room("listing:7").await.unwrap().users,
        [Member { user_id: "2".into(), connection_count: 1 }]
    );
    assert_eq!(backend.get_room("listing:8").await.unwrap().user_count, 2);
}

#[tokio::test]
async fn a_membership_lasts_between_a_second_and_thirty_days() {
    const DAYS_30: i64 = 30 * 24 * 3600;
    let server = TestServer::start().await;
    let backend = server.backend().await;
    for (seconds, nanos) in [(0, 0), (0, 999_999_999), (DAYS_30, 1), (-1, 0), (0, -1), (i64::MIN, 0), (i64::MAX, 0)] {
        let request = join("listing:7", "42", Some(Duration { seconds, nanos }));
        let status = refused(Code::InvalidArgument, backend.rooms().join_room(request)).await;
        assert_eq!(named(&status), ["ttl"], "{seconds} s {nanos} ns");
    }
    assert!(!server.connect("42").await.welcome().rooms.contains(&"listing:7".to_owned()));
    for seconds in [1, DAYS_30] {
        let request = join("listing:7", "42", Some(Duration { seconds, nanos: 0 }));
        answer(backend.rooms().join_room(request)).await.unwrap();
    }
    assert!(server.connect("42").await.welcome().rooms.contains(&"listing:7".to_owned()));
}

#[tokio::test]
async fn nobody_is_put_into_or_taken_out_of_bugles_own_rooms() {
    let server = TestServer::start().await;
    let mut rooms = server.backend().await.rooms();
    let _device = server.connect("42").await;
    for room in ["everyone", "user:42", "user:43", "role:admin"] {
        let status = refused(Code::InvalidArgument, rooms.join_room(join(room, "42", None))).await;
        assert_eq!(named(&status), ["room"]);
        let request = LeaveRoomRequest { room: room.into(), user_id: "42".into() };
        let status = refused(Code::InvalidArgument, rooms.leave_room(request)).await;
        assert_eq!(named(&status), ["room"]);
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let server = TestServer::start().await;
    let mut rooms = server.backend().await.rooms();
    let request = join("a\tb", "", Some(Duration { seconds: -1, nanos: 0 }));
    let status = refused(Code::InvalidArgument, rooms.join_room(request)).await;
    assert_eq!(named(&status), ["user_id", "room", "ttl"]);
    let request = GetRoomRequest { room: "\0".into(), page_size: -1, page_token: "x".repeat(301) };
    let status = refused(Code::InvalidArgument, rooms.get_room(request)).await;
    assert_eq!(named(&status), ["room", "page_size", "page_token"]);
    let request = LeaveRoomRequest::default();
    let status = refused(Code::InvalidArgument, rooms.leave_room(request)).await;
    assert_eq!(named(&status), ["user_id", "room"]);
    let request = ListRoomsRequest { prefix: String::new(), page_size: i32::MIN, page_token: String::new() };
    let status = refused(Code::InvalidArgument, rooms.list_rooms(request)).await;
    let description = "is negative: ask for 1 to 1,000, or 0 for 100";
    assert_eq!(violations(&status), [("page_size".to_owned(), description.to_owned())]);
}

#[tokio::test]
async fn memberships_are_limited_and_the_refusal_says_when_to_come_back() {
    let server = TestServer::start_with(|config| config.limits.memberships = 1).await;
    let mut rooms = server.backend().await.rooms();
    answer(rooms.join_room(join("listing:7", "42", None))).await.unwrap();
    let status = refused(Code::ResourceExhausted, rooms.join_room(join("listing:8", "42", None))).await;
    assert!(status.message().starts_with("limits.memberships is met"), "{}", status.message());
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("RetryInfo is there");
    assert!((86_000..=86_400).contains(&after.as_secs()), "{after:?}");
    answer(rooms.join_room(join("listing:7", "42", None))).await.expect("it is kept already");
}

#[tokio::test]
async fn rooms_are_listed_in_pages_ordered_by_name_and_vanish_with_their_last_member() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = [server.connect("1").await, server.connect("1").await, server.connect("2").await];
    for room in ["org:b", "org:a", "org:é", "organ"] {
        backend.join_room(room, "1").await;
    }
    backend.join_room("org:b", "2").await;

    let first = list_rooms(&backend, "org:", 2, "").await;
    assert_eq!(names(&first), [("org:a", 2), ("org:b", 3)]);
    let second = list_rooms(&backend, "org:", 2, &first.next_page_token).await;
    assert_eq!((names(&second), &*second.next_page_token), (vec![("org:é", 2)], ""));
    let all = list_rooms(&backend, "", 0, "").await;
    let expected =
        [("everyone", 3), ("org:a", 2), ("org:b", 3), ("org:é", 2), ("organ", 2), ("user:1", 2), ("user:2", 1)];
    assert_eq!(names(&all), expected);

    backend.disconnect_user("1", "").await;
    let all = list_rooms(&backend, "", 0, "").await;
    assert_eq!(names(&all), [("everyone", 1), ("org:b", 1), ("user:2", 1)]);
    devices[0].closed().await;
}

#[tokio::test]
async fn a_rooms_users_are_listed_in_pages_with_the_counts_of_all() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = Vec::new();
    for user in ["c", "a", "b", "a"] {
        devices.push(server.connect(user).await);
        backend.join_room("listing:7", user).await;
    }
    let page = async |page_token: &str| -> GetRoomResponse {
        let request = GetRoomRequest { room: "listing:7".into(), page_size: 2, page_token: page_token.into() };
        answer(backend.rooms().get_room(request)).await.unwrap()
    };
    let member = |user_id: &str, connection_count| Member { user_id: user_id.into(), connection_count };
    let first = page("").await;
    assert_eq!(
        (&first.users[..], first.user_count, first.connection_count),
        (&[member("a", 2), member("b", 1)][..], 3, 4)
    );
    let second = page(&first.next_page_token).await;
    assert_eq!((&second.users[..], second.user_count, &*second.next_page_token), (&[member("c", 1)][..], 3, ""));
    let status = backend.get_room("nowhere").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "nobody is in this room"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_stays_in_a_room_that_was_left_while_they_joined() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut devices = Vec::new();
    for _ in 0..50 {
        devices.push(server.connect("42").await);
    }
    for round in 0..40 {
        let joining = backend.join_room("listing:7", "42");
        let leaving = backend.leave_room("listing:7", "42");
        tokio::join!(joining, leaving);
        let is_member = backend.join_room("listing:8", "42").await == 50;
        assert!(is_member, "round {round}");
        backend.leave_room("listing:8", "42").await;
        let matched = backend.emit_to_room("listing:7", "bid", "1").await.matched;
        assert!(matched == 0 || matched == 50, "round {round}: {matched} of 50");
        backend.leave_room("listing:7", "42").await;
    }
}
