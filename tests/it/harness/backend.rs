use std::{net::SocketAddr, panic::Location};

use bugle::proto::v1::{
    BroadcastRequest, DisconnectUserRequest, DisconnectUserResponse, EmitOptions, EmitToRoomRequest, EmitToUserRequest,
    GetRoomRequest, GetRoomResponse, GetStatsRequest, GetStatsResponse, GetUserRequest, GetUserResponse,
    JoinRoomRequest, LeaveRoomRequest, Receipt, broadcast_request, emit_to_room_request, emit_to_user_request,
    mailbox_client::MailboxClient, messages_client::MessagesClient, notify_client::NotifyClient,
    presence_client::PresenceClient, rooms_client::RoomsClient,
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
};
use tonic_types::StatusExt;

use super::{any_node::AnyNode, deadline};

/// Connections whose calls carry the API key.
pub type Keyed = InterceptedService<AnyNode, ApiKey>;

/// A backend that calls over gRPC. Cheap to clone; clones share the connections. With several nodes, each call goes to any one; a stream stays
/// there.
#[derive(Clone)]
pub struct Backend {
    channel: Keyed,
    notify: NotifyClient<Keyed>,
    presence: PresenceClient<Keyed>,
    rooms: RoomsClient<Keyed>,
    mailbox: MailboxClient<Keyed>,
    messages: MessagesClient<Keyed>,
}

/// Puts the API key into every call.
#[derive(Clone)]
pub struct ApiKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

impl Backend {
    /// A backend with an API key.
    #[track_caller]
    pub fn connect(grpc: SocketAddr, key: &str) -> impl Future<Output = Self> {
        Self::connect_to(vec![grpc], key)
    }

    /// The same, which calls any of these nodes.
    #[track_caller]
    pub fn connect_to(nodes: Vec<SocketAddr>, key: &str) -> impl Future<Output = Self> {
        let header = format!("Bearer {key}").parse().expect("an API key fits a header");
        deadline("the gRPC connection", Self::open(nodes, ApiKey(Some(header))))
    }

    /// A backend without one.
    #[track_caller]
    pub fn anonymous(grpc: SocketAddr) -> impl Future<Output = Self> {
        deadline("the gRPC connection", Self::open(vec![grpc], ApiKey(None)))
    }

    async fn open(nodes: Vec<SocketAddr>, key: ApiKey) -> Self {
        let channel = AnyNode::connect(&nodes).await;
        Self {
            notify: NotifyClient::with_interceptor(channel.clone(), key.clone()),
            presence: PresenceClient::with_interceptor(channel.clone(), key.clone()),
            rooms: RoomsClient::with_interceptor(channel.clone(), key.clone()),
            mailbox: MailboxClient::with_interceptor(channel.clone(), key.clone()),
            messages: MessagesClient::with_interceptor(channel.clone(), key.clone()),
            channel: InterceptedService::new(channel, key),
        }
    }

    /// The connection, for clients of other services.
    pub fn channel(&self) -> Keyed {
        self.channel.clone()
    }

    /// The client of `bugle.v1.Notify`, for calls that may be refused or want options.
    pub fn notify(&self) -> NotifyClient<Keyed> {
        self.notify.clone()
    }

    /// The client of `bugle.v1.Presence`.
    pub fn presence(&self) -> PresenceClient<Keyed> {
        self.presence.clone()
    }

    /// The client of `bugle.v1.Rooms`.
    pub fn rooms(&self) -> RoomsClient<Keyed> {
        self.rooms.clone()
    }

    /// The client of `bugle.v1.Mailbox`.
    pub fn mailbox(&self) -> MailboxClient<Keyed> {
        self.mailbox.clone()
    }

    /// The client of `bugle.v1.Messages`.
    pub fn messages(&self) -> MessagesClient<Keyed> {
        self.messages.clone()
    }

    /// Stores JSON in a room's mailbox, and sends it there; the call must be accepted.
    #[track_caller]
    pub fn store_in(&self, room: &str, event: &str, json: &str) -> impl Future<Output = Receipt> + use<> {
        let payload = Some(emit_to_room_request::Payload::Json(json.into()));
        let options = Some(EmitOptions { store: true, ..EmitOptions::default() });
        let request = EmitToRoomRequest { room: room.into(), event: event.into(), payload, options };
        let mut notify = self.notify();
        accepted("EmitToRoom", async move { Ok(receipt(notify.emit_to_room(request).await?.into_inner().receipt)) })
    }

    /// Sends JSON to a user; the call must be accepted.
    #[track_caller]
    pub fn emit_to_user(&self, user: &str, event: &str, json: &str) -> impl Future<Output = Receipt> + use<> {
        let payload = Some(emit_to_user_request::Payload::Json(json.into()));
        let request = EmitToUserRequest { user_id: user.into(), event: event.into(), payload, options: None };
        let mut notify = self.notify();
        accepted("EmitToUser", async move { Ok(receipt(notify.emit_to_user(request).await?.into_inner().receipt)) })
    }

    /// Sends JSON to a room; the call must be accepted.
    #[track_caller]
    pub fn emit_to_room(&self, room: &str, event: &str, json: &str) -> impl Future<Output = Receipt> + use<> {
        let payload = Some(emit_to_room_request::Payload::Json(json.into()));
        let request = EmitToRoomRequest { room: room.into(), event: event.into(), payload, options: None };
        let mut notify = self.notify();
        accepted("EmitToRoom", async move { Ok(receipt(notify.emit_to_room(request).await?.into_inner().receipt)) })
    }

    /// Sends JSON to everyone; the call must be accepted.
    #[track_caller]
    pub fn broadcast(&self, event: &str, json: &str) -> impl Future<Output = Receipt> + use<> {
        let payload = Some(broadcast_request::Payload::Json(json.into()));
        let request = BroadcastRequest { event: event.into(), payload, options: None };
        let mut notify = self.notify();
        accepted("Broadcast", async move { Ok(receipt(notify.broadcast(request).await?.into_inner().receipt)) })
    }

    /// Closes a user's connections; the call must be accepted.
    #[track_caller]
    pub fn disconnect_user(&self, user: &str, reason: &str) -> impl Future<Output = DisconnectUserResponse> + use<> {
        let request =
            DisconnectUserRequest { user_id: user.into(), reason: reason.into(), except_connection_ids: Vec::new() };
        let mut notify = self.notify();
        accepted("DisconnectUser", async move { notify.disconnect_user(request).await.map(Response::into_inner) })
    }

    /// Who a user is now; the call must be accepted.
    #[track_caller]
    pub fn get_user(&self, user: &str) -> impl Future<Output = GetUserResponse> + use<> {
        let request = GetUserRequest { user_id: user.into() };
        let mut presence = self.presence();
        accepted("GetUser", async move { presence.get_user(request).await.map(Response::into_inner) })
    }

    /// How many there are of everything; the call must be accepted.
    #[track_caller]
    pub fn get_stats(&self) -> impl Future<Output = GetStatsResponse> + use<> {
        let mut presence = self.presence();
        accepted("GetStats", async move { presence.get_stats(GetStatsRequest {}).await.map(Response::into_inner) })
    }

    /// Puts a user into a room, and answers how many connections joined; the call must be accepted.
    #[track_caller]
    pub fn join_room(&self, room: &str, user: &str) -> impl Future<Output = u64> + use<> {
        let request = JoinRoomRequest { room: room.into(), user_id: user.into(), ttl: None };
        let mut rooms = self.rooms();
        accepted("JoinRoom", async move { Ok(rooms.join_room(request).await?.into_inner().joined) })
    }

    /// Takes a user out of a room, and answers how many connections left; the call must be accepted.
    #[track_caller]
    pub fn leave_room(&self, room: &str, user: &str) -> impl Future<Output = u64> + use<> {
        let request = LeaveRoomRequest { room: room.into(), user_id: user.into() };
        let mut rooms = self.rooms();
        accepted("LeaveRoom", async move { Ok(rooms.leave_room(request).await?.into_inner().left) })
    }

    /// The first page of a room's users; an empty room is `NOT_FOUND`.
    #[track_caller]
    pub fn get_room(&self, room: &str) -> impl Future<Output = tonic::Result<GetRoomResponse>> + use<> {
        let request = GetRoomRequest { room: room.into(), page_size: 0, page_token: String::new() };
        let mut rooms = self.rooms();
        deadline("the answer to GetRoom", async move { rooms.get_room(request).await.map(Response::into_inner) })
    }
}

/// The field violations of a refusal: field and description.
pub fn violations(status: &Status) -> Vec<(String, String)> {
    let violations = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

#[track_caller]
fn accepted<T>(call: &'static str, answer: impl Future<Output = tonic::Result<T>>) -> impl Future<Output = T> {
    let caller = Location::caller();
    let answer = deadline(call, answer);
    async move { answer.await.unwrap_or_else(|status| panic!("{caller}: {call} was refused: {status:?}")) }
}

fn receipt(receipt: Option<Receipt>) -> Receipt {
    receipt.expect("an accepted emit has a receipt")
}
