//! A backend that calls over gRPC.

use bugle::proto::v1::{
    Emit, EmitStreamRequest, EmitToRoomRequest, EmitToUserRequest, GetStatsRequest, GetUserRequest, Receipt, emit,
    emit::Target, emit_result, emit_to_room_request, emit_to_user_request, notify_client::NotifyClient,
    presence_client::PresenceClient,
};
use futures_util::Stream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::server::{API_KEY, Server};

type Keyed = InterceptedService<Channel, ApiKey>;

/// The event that all emits are of.
pub const EVENT: &str = "e";

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Backend {
    notify: NotifyClient<Keyed>,
    presence: PresenceClient<Keyed>,
}

/// Puts the API key into every call.
#[derive(Clone)]
pub struct ApiKey(MetadataValue<Ascii>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Backend {
    /// With a connection of its own.
    pub async fn connect(server: &Server) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc())).expect("an address makes a URI");
        let channel = endpoint.connect().await.expect("the gRPC port is open");
        let key = ApiKey(format!("Bearer {API_KEY}").parse().expect("an API key fits a header"));
        Self {
            notify: NotifyClient::with_interceptor(channel.clone(), key.clone()),
            presence: PresenceClient::with_interceptor(channel, key),
        }
    }

    pub async fn emit_to_user(&mut self, user: &str, json: String) -> Receipt {
        let payload = Some(emit_to_user_request::Payload::Json(json));
        let request = EmitToUserRequest { user_id: user.into(), event: EVENT.into(), payload, options: None };
        let answer = self.notify.emit_to_user(request).await.expect("the emit is accepted");
        answer.into_inner().receipt.expect("an accepted emit has a receipt")
    }

    pub async fn emit_to_room(&mut self, room: &str, json: String) -> Receipt {
        let payload = Some(emit_to_room_request::Payload::Json(json));
        let request = EmitToRoomRequest { room: room.into(), event: EVENT.into(), payload, options: None };
        let answer = self.notify.emit_to_room(request).await.expect("the emit is accepted");
        answer.into_inner().receipt.expect("an accepted emit has a receipt")
    }

    /// Sends emits on one stream as fast as they are taken. Gives how many deliveries were enqueued.
    pub async fn emit_stream(&mut self, emits: impl Stream<Item = EmitStreamRequest> + Send + 'static) -> u64 {
        self.emit_stream_timed(emits, |_| ()).await
    }

    /// The same, and tells of each answer whose it is, by the number that is its correlation id.
    pub async fn emit_stream_timed(
        &mut self,
        emits: impl Stream<Item = EmitStreamRequest> + Send + 'static,
        mut answered: impl FnMut(usize),
    ) -> u64 {
        let mut answers = self.notify.emit_stream(emits).await.expect("the stream opens").into_inner();
        let mut enqueued = 0;
        while let Some(answer) = answers.message().await.expect("the stream goes on") {
            answered(answer.correlation_id.parse().unwrap_or_default());
            match answer.result.and_then(|result| result.result) {
                Some(emit_result::Result::Receipt(receipt)) => enqueued += receipt.enqueued,
                Some(emit_result::Result::Error(error)) => panic!("an emit was refused: {}", error.message),
                None => panic!("an answer without a result"),
            }
        }
        enqueued
    }

    /// How many connections there are. This is also the cheapest call that there is.
    pub async fn connections(&mut self) -> u64 {
        let stats = self.presence.get_stats(GetStatsRequest {}).await;
        stats.expect("presence answers").into_inner().connections
    }

    pub async fn is_online(&mut self, user: &str) -> bool {
        let request = GetUserRequest { user_id: user.into() };
        self.presence.get_user(request).await.expect("presence answers").into_inner().online
    }
}

/// An emit for a stream.
pub fn stream_item(target: Target, json: String) -> EmitStreamRequest {
    let payload = Some(emit::Payload::Json(json));
    let emit = Emit { target: Some(target), event: EVENT.into(), payload, options: None };
    EmitStreamRequest { correlation_id: String::new(), emit: Some(emit) }
}

/// A payload as an application sends them, of about a hundred bytes.
pub fn ordinary(number: usize) -> String {
    format!(
        r#"{{"walletId":"w-{number:08}","balance":"100.50","currency":"EUR","reason":"bid.settled","at":"2026-01-31T09:30:00.000Z"}}"#
    )
}

/// The one argument of an [`EVENT`], out of the packet's array.
pub fn argument(event: &[u8]) -> Option<&str> {
    let argument = event.strip_prefix(br#"["e","#)?.strip_suffix(b"]")?;
    std::str::from_utf8(argument).ok()
}
