use bugle::proto::v1::{
    AllowConversationRequest, AllowRoomRequest, BlockUserRequest, DeleteMessageRequest, DisconnectUserRequest,
    EmitBatchRequest, EmitStreamRequest, EraseUserRequest, ForbidConversationRequest, ForbidRoomRequest,
    GetRoomRequest, GetStatsRequest, GetUserRequest, GetUsersRequest, JoinRoomRequest, LeaveRoomRequest,
    ListConversationsRequest, ListRoomsRequest, ListUsersRequest, MessagesListMessagesRequest, MessagesMarkReadRequest,
    SendMessageRequest, UnblockUserRequest, emit::Target, messages_list_messages_request, messages_mark_read_request,
};
use prost::Message;
use tonic::Code;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use crate::harness::{RawGrpc, TestServer, api_key, emit_to, grpc_frame, to_everyone, to_room, to_user, to_users};

/// There is no such message.
const DELETE_MESSAGE: &str = "bugle.v1.Messages/DeleteMessage";

/// Each rpc with a good request, and the scope that it needs; the two whose emits are asked one by one need none.
fn calls() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (user_id, room) = (|| "42".to_owned(), || "listing:7".to_owned());
    let list_services = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        ServerReflectionRequest { host: String::new(), message_request }.encode_to_vec()
    };
    let emit = emit_to(Target::UserId(user_id()), "e", "1");
    let in_stream = EmitStreamRequest { correlation_id: String::new(), emit: Some(emit.clone()) };
    let disconnect = DisconnectUserRequest { user_id: user_id(), ..DisconnectUserRequest::default() };
    let join = JoinRoomRequest { room: room(), user_id: user_id(), ttl: None };
    let allow = AllowRoomRequest { room: "listing:7".into(), user_id: user_id(), ttl: None };
    let forbid = ForbidRoomRequest { room: "listing:7".into(), user_id: user_id() };
    let leave = LeaveRoomRequest { room: room(), user_id: user_id() };
    let get_room = GetRoomRequest { room: "everyone".into(), ..GetRoomRequest::default() };
    let peer_id = || "43".to_owned();
    let send = SendMessageRequest {
        sender_id: user_id(),
        receiver_id: "44".into(),
        content: "x".into(),
        ..SendMessageRequest::default()
    };
    let conversations = ListConversationsRequest { user_id: user_id(), ..ListConversationsRequest::default() };
    let messages = MessagesListMessagesRequest {
        user_id: user_id(),
        what: Some(messages_list_messages_request::What::PeerId(peer_id())),
        ..MessagesListMessagesRequest::default()
    };
    let what = Some(messages_mark_read_request::What::PeerId(peer_id()));
    let read = MessagesMarkReadRequest { user_id: user_id(), what };
    let delete = DeleteMessageRequest { user_id: user_id(), message_id: uuid::Uuid::nil().to_string() };
    let allow_conversation = AllowConversationRequest { user_id: user_id(), peer_id: peer_id(), ttl: None };
    let forbid_conversation = ForbidConversationRequest { user_id: user_id(), peer_id: peer_id() };
    let block = BlockUserRequest { user_id: user_id(), peer_id: peer_id() };
    let unblock = UnblockUserRequest { user_id: user_id(), peer_id: peer_id() };
    vec![
        ("bugle.v1.Notify/EmitToUser", to_user("42", "e", "1").encode_to_vec(), "emit:user"),
        ("bugle.v1.Notify/EmitToUsers", to_users(&["42"], "e", "1").encode_to_vec(), "emit:user"),
        ("bugle.v1.Notify/EmitToRoom", to_room("listing:7", "e", "1").encode_to_vec(), "emit:room:listing:7"),
        ("bugle.v1.Notify/EmitToRoom", to_room("user:42", "e", "1").encode_to_vec(), "emit:user"),
        ("bugle.v1.Notify/EmitToRoom", to_room("everyone", "e", "1").encode_to_vec(), "emit:broadcast"),
        ("bugle.v1.Notify/Broadcast", to_everyone("e", "1").encode_to_vec(), "emit:broadcast"),
        ("bugle.v1.Notify/EmitBatch", EmitBatchRequest { emits: vec![emit] }.encode_to_vec(), ""),
        ("bugle.v1.Notify/EmitStream", in_stream.encode_to_vec(), ""),
        ("bugle.v1.Notify/DisconnectUser", disconnect.encode_to_vec(), "disconnect"),
        ("bugle.v1.Presence/GetUser", GetUserRequest { user_id: user_id() }.encode_to_vec(), "presence"),
        ("bugle.v1.Presence/GetUsers", GetUsersRequest { user_ids: vec![user_id()] }.encode_to_vec(), "presence"),
        ("bugle.v1.Presence/ListUsers", ListUsersRequest::default().encode_to_vec(), "presence"),
        ("bugle.v1.Presence/GetStats", GetStatsRequest {}.encode_to_vec(), "presence"),
        ("bugle.v1.Rooms/JoinRoom", join.encode_to_vec(), "rooms"),
        ("bugle.v1.Rooms/LeaveRoom", leave.encode_to_vec(), "rooms"),
        ("bugle.v1.Rooms/AllowRoom", allow.encode_to_vec(), "rooms"),
        ("bugle.v1.Rooms/ForbidRoom", forbid.encode_to_vec(), "rooms"),
        ("bugle.v1.Rooms/ListRooms", ListRoomsRequest::default().encode_to_vec(), "rooms"),
        ("bugle.v1.Rooms/GetRoom", get_room.encode_to_vec(), "rooms"),
        ("bugle.v1.Messages/SendMessage", send.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/ListConversations", conversations.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/ListMessages", messages.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/MarkRead", read.encode_to_vec(), "messages"),
        (DELETE_MESSAGE, delete.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/EraseUser", EraseUserRequest { user_id: user_id() }.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/AllowConversation", allow_conversation.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/ForbidConversation", forbid_conversation.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/BlockUser", block.encode_to_vec(), "messages"),
        ("bugle.v1.Messages/UnblockUser", unblock.encode_to_vec(), "messages"),
        ("grpc.health.v1.Health/Check", Vec::new(), ""),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", list_services(), ""),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list_services(), ""),
    ]
}

async fn call(raw: &RawGrpc, method: &str, request: &[u8]) -> tonic::Status {
    let answer = raw.call(&format!("/{method}"), &[], grpc_frame(false, request)).await;
    answer.status.unwrap_or_else(|| panic!("{method} has no gRPC status"))
}

#[tokio::test]
async fn no_rpc_is_answered_without_a_known_api_key() {
    let server = TestServer::start().await;
    let nobodys = format!("Bearer {}", "x".repeat(40));
    let required = "an API key is required: send `authorization: Bearer <key>`";
    for (authorization, message) in [
        (None, required),
        (Some(""), "`authorization` is not `Bearer <key>`"),
        (Some("Bearer"), "`authorization` is not `Bearer <key>`"),
        (Some("Basic dXNlcjpwYXNz"), "`authorization` is not `Bearer <key>`"),
        (Some(crate::harness::API_KEY), "`authorization` is not `Bearer <key>`"),
        (Some(&*nobodys), "the API key is not known here"),
    ] {
        let raw = RawGrpc::connect(server.grpc()).await.authorized_by(authorization);
        let others = [("bugle.v1.Notify/Nothing", Vec::new(), ""), ("no.Service/Nothing", Vec::new(), "")];
        for (method, request, _) in calls().into_iter().chain(others) {
            let status = call(&raw, method, &request).await;
            assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message), "{method}");
        }
    }
}

#[tokio::test]
async fn an_api_key_may_do_what_its_scopes_say_and_nothing_else() {
    const SCOPES: [&str; 8] = [
        "emit:user",
        "emit:room:listing:*",
        "emit:broadcast",
        "presence",
        "rooms",
        "disconnect",
        "mailbox",
        "messages",
    ];
    let key = |scope: &str| format!("the-key-with-the-scope-{scope:-<40}");
    let server = TestServer::start_with(|config| {
        config.messages.enabled = true;
        config.grpc.api_keys.extend(SCOPES.map(|scope| api_key(scope, &key(scope), &[scope])));
        config.grpc.api_keys.push(api_key("none", &key("none"), &[]));
    })
    .await;
    let _device = server.connect("41").await;
    for scope in SCOPES.into_iter().chain(["none"]) {
        let authorization = format!("Bearer {}", key(scope));
        let raw = RawGrpc::connect(server.grpc()).await.authorized_by(Some(&authorization));
        for (method, request, needed) in calls() {
            let status = call(&raw, method, &request).await;
            let is_within = needed.is_empty()
                || needed == scope
                || scope.strip_suffix('*').is_some_and(|pattern| needed.starts_with(pattern));
            let expected = match method {
                _ if !is_within => Code::PermissionDenied,
                DELETE_MESSAGE => Code::NotFound,
                _ => Code::Ok,
            };
            assert_eq!(status.code(), expected, "{method} with {scope}: {}", status.message());
            if !is_within {
                let lacks = format!("the API key `{scope}` lacks the scope `{needed}`");
                assert!(status.message().starts_with(&lacks), "{}", status.message());
            }
        }
    }
}

#[tokio::test]
async fn the_scheme_of_an_api_key_is_bearer_in_any_case() {
    let server = TestServer::start().await;
    for scheme in ["bearer", "BEARER", "Bearer "] {
        let authorization = format!("{scheme} {}", crate::harness::API_KEY);
        let raw = RawGrpc::connect(server.grpc()).await.authorized_by(Some(&authorization));
        assert_eq!(call(&raw, "bugle.v1.Presence/GetStats", &[]).await.code(), Code::Ok);
    }
}
