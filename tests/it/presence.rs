use bugle::proto::v1::{
    GetUsersRequest, GetUsersResponse, ListUsersRequest, ListUsersResponse, Transport as TransportIs, UserSummary,
};
use tonic::Code;

use crate::harness::{Backend, Device, TestServer, Transport, answer, refused, token, violations};

async fn list_users(backend: &Backend, page_size: i32, page_token: &str) -> ListUsersResponse {
    let request = ListUsersRequest { page_size, page_token: page_token.into() };
    answer(backend.presence().list_users(request)).await.expect("the call is accepted")
}

fn ids(users: &[UserSummary]) -> Vec<&str> {
    users.iter().map(|user| &*user.user_id).collect()
}

#[tokio::test]
async fn a_user_is_shown_with_each_connection() {
    let server = TestServer::start_with(|config| config.auth.rooms = vec!["lobby".into()]).await;
    let backend = server.backend().await;
    let agent = Device::builder(server.clients()).token(token("42")).header("user-agent", "Phone/1.0");
    let phone = agent.connect().await.unwrap();
    let browser = server.device("42").transport(Transport::Polling).connect().await.unwrap();
    let tablet = server.device("42").transport(Transport::Upgrade).connect().await.unwrap();
    backend.join_room("listing:7", "42").await;

    let user = backend.get_user("42").await;
    assert!(user.online);
    let mut expected = [
        (phone.welcome().connection_id.clone(), TransportIs::SocketioWebsocket, "Phone/1.0"),
        (browser.welcome().connection_id.clone(), TransportIs::SocketioPolling, ""),
        (tablet.welcome().connection_id.clone(), TransportIs::SocketioWebsocket, ""),
    ];
    expected.sort();
    let now = server.clock.now().as_second();
    for (connection, (id, transport, agent)) in user.connections.iter().zip(&expected) {
        assert_eq!((&connection.id, connection.transport(), &*connection.user_agent), (id, *transport, *agent));
        assert_eq!(connection.rooms, ["everyone", "listing:7", "lobby", "user:42"]);
        assert_eq!(connection.address, "127.0.0.1");
        assert!(TestServer::node_names().contains(&connection.node), "{connection:?}");
        let since = connection.connected_at.as_ref().unwrap().seconds;
        assert!((now - 5..=now).contains(&since), "{since} is about now");
    }
    assert_eq!(user.connections.len(), 3);
}

#[tokio::test]
async fn an_unknown_user_is_offline_and_no_error() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let user = backend.get_user("nobody").await;
    assert!(!user.online && user.connections.is_empty());
}

#[tokio::test]
async fn many_users_are_told_of_in_the_order_of_the_request() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let _devices = [server.connect("1").await, server.connect("1").await, server.connect("2").await];
    let user_ids = ["2", "nobody", "1"].map(str::to_owned).to_vec();
    let GetUsersResponse { users, partial } =
        answer(backend.presence().get_users(GetUsersRequest { user_ids })).await.unwrap();
    let expected = [("2", true, 1), ("nobody", false, 0), ("1", true, 2)]
        .map(|(user_id, online, connection_count)| UserSummary { user_id: user_id.into(), online, connection_count });
    assert_eq!((&users[..], partial), (&expected[..], false));
}

#[tokio::test]
async fn too_many_users_at_once_are_refused() {
    let server = TestServer::start().await;
    let mut presence = server.backend().await.presence();
    let user_ids: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    let status =
        refused(Code::InvalidArgument, presence.get_users(GetUsersRequest { user_ids: user_ids.clone() })).await;
    let description = "has 1001 entries: at most 1000 are allowed";
    assert_eq!(violations(&status), [("user_ids".to_owned(), description.to_owned())]);
    let user_ids = user_ids[..1_000].to_vec();
    assert_eq!(answer(presence.get_users(GetUsersRequest { user_ids })).await.unwrap().users.len(), 1_000);
}

#[tokio::test]
async fn users_are_listed_in_pages_ordered_by_id_as_bytes() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let users = ["é", "b", "10", "9", "Z", "a:b", "a"];
    let mut devices = Vec::new();
    for user in users {
        devices.push(server.connect(user).await);
    }
    devices.push(server.connect("b").await);

    let first = list_users(&backend, 3, "").await;
    assert_eq!(ids(&first.users), ["10", "9", "Z"]);
    let second = list_users(&backend, 3, &first.next_page_token).await;
    assert_eq!(ids(&second.users), ["a", "a:b", "b"]);
    assert_eq!(second.users[2].connection_count, 2);
    let third = list_users(&backend, 3, &second.next_page_token).await;
    assert_eq!((ids(&third.users), &*third.next_page_token), (vec!["é"], ""));

    let all = list_users(&backend, 0, "").await;
    assert_eq!((all.users.len(), &*all.next_page_token), (7, ""));
    assert_eq!(list_users(&backend, 7, "").await.next_page_token, "", "the last page says that it is the last");
    assert_eq!(list_users(&backend, i32::MAX, "").await.users.len(), 7);
    let stats = backend.get_stats().await;
    assert_eq!((stats.users, stats.connections, stats.rooms), (7, 8, 8), "one room per user, and everyone");
    let names: Vec<_> = stats.nodes.iter().map(|node| node.node.clone()).collect();
    assert_eq!(names, TestServer::node_names());
    assert_eq!(stats.nodes.iter().map(|node| node.connections).sum::<u64>(), 8);
    assert!(stats.nodes.iter().all(|node| node.users <= node.connections && node.rooms <= node.users + 1));
    assert!(stats.nodes.iter().map(|node| node.users).sum::<u64>() >= 7, "a user may be on several nodes");
}

#[tokio::test]
async fn a_negative_page_size_and_a_token_of_nobodys_are_refused() {
    let server = TestServer::start().await;
    let mut presence = server.backend().await.presence();
    let request = ListUsersRequest { page_size: -1, page_token: "x".repeat(301) };
    let status = refused(Code::InvalidArgument, presence.list_users(request)).await;
    let expected = [
        ("page_size", "is negative: ask for 1 to 1,000, or 0 for 100"),
        ("page_token", "is none of ours: give the next_page_token of the page before"),
    ];
    assert_eq!(violations(&status), expected.map(|(field, what)| (field.to_owned(), what.to_owned())));
}
