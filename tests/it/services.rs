//! What comes with the API: reflection, health and compression.

use bugle::proto::v1::{GetUserRequest, SendMessageRequest};
use futures_util::StreamExt;
use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::iter;
use tonic::{Code, codec::CompressionEncoding};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Keyed, TestServer, answer, deadline, refused, to_user};

const SERVICES: [&str; 5] =
    ["bugle.v1.Notify", "bugle.v1.Presence", "bugle.v1.Rooms", "bugle.v1.Mailbox", "bugle.v1.Messages"];

/// A server with all services.
async fn start() -> TestServer {
    TestServer::start_with(|config| config.messages.enabled = true).await
}

macro_rules! reflection {
    ($name:ident, $version:ident) => {
        /// The services that this version lists, and the file of one symbol.
        async fn $name(channel: Keyed, symbol: &str) -> (Vec<String>, Vec<Vec<u8>>) {
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let request = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
            let requests =
                [MessageRequest::ListServices(String::new()), MessageRequest::FileContainingSymbol(symbol.into())];
            let mut client = ServerReflectionClient::new(channel);
            let answers = deadline("reflection", client.server_reflection_info(iter(requests.map(request)))).await;
            let answers: Vec<_> = deadline("all answers", answers.unwrap().into_inner().collect()).await;
            let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().message_response.unwrap()).collect();
            match <[_; 2]>::try_from(answers) {
                Ok([MessageResponse::ListServicesResponse(list), MessageResponse::FileDescriptorResponse(files)]) => {
                    (list.service.into_iter().map(|service| service.name).collect(), files.file_descriptor_proto)
                }
                other => panic!("reflection answered {other:?}"),
            }
        }
    };
}

reflection!(reflect_v1, v1);
reflection!(reflect_v1alpha, v1alpha);

#[tokio::test]
async fn reflection_tells_of_every_service_in_both_versions() {
    let server = start().await;
    let channel = server.backend().await.channel();
    for (listed, files) in [
        reflect_v1(channel.clone(), "bugle.v1.Notify").await,
        reflect_v1alpha(channel.clone(), "bugle.v1.Notify").await,
    ] {
        for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
            assert!(listed.iter().any(|name| name == service), "{service} is not among {listed:?}");
        }
        let files: Vec<_> = files.iter().map(|file| FileDescriptorProto::decode(&file[..]).unwrap()).collect();
        let notify = files.iter().flat_map(|file| &file.service).find(|service| service.name() == "Notify").unwrap();
        let methods: Vec<_> = notify.method.iter().map(prost_types::MethodDescriptorProto::name).collect();
        let expected =
            ["EmitToUser", "EmitToUsers", "EmitToRoom", "Broadcast", "EmitBatch", "EmitStream", "DisconnectUser"];
        assert_eq!(methods, expected);
    }
}

#[tokio::test]
async fn each_service_is_serving_until_the_server_stops() {
    let mut server = start().await;
    let mut health = HealthClient::new(server.backend().await.channel());
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    for service in SERVICES.into_iter().chain([""]) {
        let response = answer(health.check(request(service))).await.unwrap();
        assert_eq!(response.status(), ServingStatus::Serving, "{service}");
    }
    refused(Code::NotFound, health.check(request("bugle.v1.Nothing"))).await;

    let mut watches = Vec::new();
    for service in SERVICES {
        let mut watch = answer(health.watch(request(service))).await.unwrap();
        let first = deadline("the first status", watch.message()).await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        watches.push(watch);
    }
    server.stop();
    for watch in &mut watches {
        let next = deadline("the next status", watch.message()).await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);
    }
    for mut watch in watches {
        let end = deadline("the end of the watch", watch.message()).await;
        assert!(matches!(end, Ok(None)), "a watch ends with the server, and does not hold it up: {end:?}");
    }
    server.stopped().await.expect("the server stops well");
}

#[tokio::test]
async fn without_direct_messages_there_is_no_service_for_them() {
    const MESSAGES: &str = "bugle.v1.Messages";
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let (listed, _) = reflect_v1(backend.channel(), "bugle.v1.Notify").await;
    assert!(listed.iter().all(|name| name != MESSAGES), "{listed:?}");
    let mut health = HealthClient::new(backend.channel());
    refused(Code::NotFound, health.check(HealthCheckRequest { service: MESSAGES.into() })).await;
    let request = SendMessageRequest {
        sender_id: "1".into(),
        receiver_id: "2".into(),
        content: "x".into(),
        ..SendMessageRequest::default()
    };
    refused(Code::Unimplemented, backend.messages().send_message(request)).await;
}

#[tokio::test]
async fn requests_and_responses_may_be_compressed() {
    let server = TestServer::start().await;
    let backend = server.backend().await;
    let mut device = server.connect("42").await;
    let json = format!("\"{}\"", "x".repeat(100_000));
    for (encoding, name) in [(CompressionEncoding::Gzip, "gzip"), (CompressionEncoding::Zstd, "zstd")] {
        let mut notify = backend.notify().send_compressed(encoding).accept_compressed(encoding);
        let response = deadline("the receipt", notify.emit_to_user(to_user("42", "e", &json))).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").unwrap(), name);
        assert_eq!(response.into_inner().receipt.unwrap().enqueued, 1);
        assert_eq!(device.expect_event("e").await.json(), json);

        let mut presence = backend.presence().send_compressed(encoding).accept_compressed(encoding);
        let request = GetUserRequest { user_id: "42".into() };
        let response = deadline("the user", presence.get_user(request)).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").unwrap(), name);
        assert!(response.into_inner().online);
    }
    let response = deadline("the receipt", backend.notify().emit_to_user(to_user("42", "e", "1"))).await.unwrap();
    assert!(response.metadata().get("grpc-encoding").is_none(), "nobody asked for it");
}
