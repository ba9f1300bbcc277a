//! A backend that calls over gRPC.

use futures_util::Stream;
use secrecy::SecretString;
use tonic::{Code, Status};

use super::EVENT;
use crate::client;
use crate::client::AuthorizedChannel;
use crate::proto::v1::{
    BroadcastRequest, Emit, EmitOptions, EmitStreamRequest, EmitToRoomRequest, EmitToUserRequest, GetStatsRequest,
    GetUserRequest, Receipt, broadcast_request, emit, emit::Target, emit_result, emit_to_room_request,
    emit_to_user_request, notify_client::NotifyClient, presence_client::PresenceClient,
};

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Backend {
    notify: NotifyClient<AuthorizedChannel>,
    presence: PresenceClient<AuthorizedChannel>,
}

impl Backend {
    /// With a connection of its own.
    pub async fn connect(server: &str, api_key: &SecretString) -> Result<Self, client::Error> {
        let channel = client::connect(server, api_key).await?;
        Ok(Self { notify: NotifyClient::new(channel.clone()), presence: PresenceClient::new(channel) })
    }

    /// To every device of a user.
    pub async fn emit_to_user(&mut self, user: &str, json: String) -> Result<Receipt, Status> {
        let payload = Some(emit_to_user_request::Payload::Json(json));
        let request = EmitToUserRequest { user_id: user.into(), event: EVENT.into(), payload, options: None };
        received(self.notify.emit_to_user(request).await?.into_inner().receipt)
    }

    /// To every device in a room.
    pub async fn emit_to_room(&mut self, room: &str, json: String) -> Result<Receipt, Status> {
        let payload = Some(emit_to_room_request::Payload::Json(json));
        let request = EmitToRoomRequest { room: room.into(), event: EVENT.into(), payload, options: None };
        received(self.notify.emit_to_room(request).await?.into_inner().receipt)
    }

    /// To every device.
    pub async fn broadcast(&mut self, json: String) -> Result<Receipt, Status> {
        let payload = Some(broadcast_request::Payload::Json(json));
        let request = BroadcastRequest { event: EVENT.into(), payload, options: None };
        received(self.notify.broadcast(request).await?.into_inner().receipt)
    }

    /// Sends emits on one stream as fast as they are taken, and tells of each answer the emit's correlation id and its receipt. Ends
    /// with the last answer, or with the first emit that is refused.
    pub async fn emit_stream(
        &mut self,
        emits: impl Stream<Item = EmitStreamRequest> + Send + 'static,
        mut answered: impl FnMut(&str, &Receipt),
    ) -> Result<(), Status> {
        let mut answers = self.notify.emit_stream(emits).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            match answer.result.and_then(|result| result.result) {
                Some(emit_result::Result::Receipt(receipt)) => answered(&answer.correlation_id, &receipt),
                Some(emit_result::Result::Error(error)) => {
                    return Err(Status::new(Code::from_i32(error.code), error.message));
                }
                None => return Err(Status::internal("the server's answer lacks a result")),
            }
        }
        Ok(())
    }

    /// How many connections there are. This is also the cheapest call that there is.
    pub async fn connections(&mut self) -> Result<u64, Status> {
        Ok(self.presence.get_stats(GetStatsRequest {}).await?.into_inner().connections)
    }

    /// Whether the user has a connection.
    pub async fn is_online(&mut self, user: &str) -> Result<bool, Status> {
        let request = GetUserRequest { user_id: user.into() };
        Ok(self.presence.get_user(request).await?.into_inner().online)
    }
}

fn received(receipt: Option<Receipt>) -> Result<Receipt, Status> {
    receipt.ok_or_else(|| Status::internal("the server's answer lacks the receipt"))
}

/// An emit for a stream, that is stored or not.
pub fn stream_item(correlation_id: String, target: Target, json: String, store: bool) -> EmitStreamRequest {
    let payload = Some(emit::Payload::Json(json));
    let options = store.then(|| EmitOptions { store, ..EmitOptions::default() });
    let emit = Emit { target: Some(target), event: EVENT.into(), payload, options };
    EmitStreamRequest { correlation_id, emit: Some(emit) }
}
