use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use transport::Throttle;

use super::{
    acks::AckRoom,
    decode::{self, EmitParts, Fields, MAX_LISTED},
    emit_stream::Responses,
    encode,
    guard::{Audited, Received, caller},
    payload::Raw,
    status::promised,
};
use crate::command::{Commands, DisconnectUser, EmitRequest, EmitToUsers, Error};
use crate::lifecycle::Lifecycle;
use crate::message::{Audience, ConnectionId, OfNodes, RoomName, UserId};
use crate::proto::v1::{
    BroadcastRequest, BroadcastResponse, DisconnectUserRequest, DisconnectUserResponse, EmitBatchRequest,
    EmitBatchResponse, EmitStreamRequest, EmitStreamResponse, EmitToRoomRequest, EmitToRoomResponse, EmitToUserRequest,
    EmitToUserResponse, EmitToUsersRequest, EmitToUsersResponse, Receipt, emit_to_users_response::UserReceipt,
    notify_server::Notify,
};

const MAX_REASON: usize = 256;
const MAX_CORRELATION_ID: usize = 256;

pub(super) struct Service {
    commands: Commands,
    lifecycle: Lifecycle,
    /// Of streams that broke.
    log: Arc<Throttle>,
}

impl Service {
    pub(super) fn new(commands: Commands, lifecycle: Lifecycle) -> Self {
        Self { commands, lifecycle, log: Arc::default() }
    }
}

fn received<T>(request: &Request<T>) -> Instant {
    request.extensions().get().map_or_else(Instant::now, |Received(at)| *at)
}

impl Service {
    async fn emit<T>(
        &self,
        request: Request<T>,
        decode: impl FnOnce(T, Instant) -> Result<EmitRequest, Error>,
    ) -> Result<Option<Receipt>, Status> {
        let (caller, received, audited) = (caller(&request)?, received(&request), Audited::set(&request));
        let request = decode(request.into_inner(), received)?;
        let receipt = self.commands.emit(&caller, request).await.inspect_err(audited)?;
        Ok(Some(encode::receipt(&receipt, &mut AckRoom::new())))
    }
}

#[tonic::async_trait]
impl Notify for Service {
    async fn emit_to_user(&self, request: Request<EmitToUserRequest>) -> Result<Response<EmitToUserResponse>, Status> {
        let decode = |request: EmitToUserRequest, received| {
            let mut fields = Fields::default();
            let audience = fields.take("user_id", Audience::user_id(&request.user_id));
            let payload = request.payload.map(Raw::from);
            EmitParts { event: request.event, payload, options: request.options, received }.check(fields, audience)
        };
        let receipt = self.emit(request, decode).await?;
        Ok(Response::new(EmitToUserResponse { receipt }))
    }

    async fn emit_to_users(
        &self,
        request: Request<EmitToUsersRequest>,
    ) -> Result<Response<EmitToUsersResponse>, Status> {
        let (caller, received, audited) = (caller(&request)?, received(&request), Audited::set(&request));
        let command = decode_emit_to_users(request.into_inner(), received)?;
        let receipts = self.commands.emit_to_users(&caller, command).await.inspect_err(audited)?;
        let mut total = Receipt::default();
        let mut each = Vec::with_capacity(receipts.len());
        let mut room = AckRoom::new();
        for (user, receipt) in receipts {
            let receipt = encode::receipt(&receipt, &mut room);
            total.matched += receipt.matched;
            total.enqueued += receipt.enqueued;
            total.dropped += receipt.dropped;
            total.replied += receipt.replied;
            total.nodes = total.nodes.max(receipt.nodes);
            total.partial |= receipt.partial;
            each.push(UserReceipt { user_id: user.to_string(), receipt: Some(receipt) });
        }
        total.duplicate = each.iter().all(|each| each.receipt.as_ref().is_some_and(|receipt| receipt.duplicate));
        Ok(Response::new(EmitToUsersResponse { receipts: each, total: Some(total) }))
    }

    async fn emit_to_room(&self, request: Request<EmitToRoomRequest>) -> Result<Response<EmitToRoomResponse>, Status> {
        let decode = |request: EmitToRoomRequest, received| {
            let mut fields = Fields::default();
            let audience = fields.take("room", RoomName::new(&request.room)).map(Audience::of_room);
            let payload = request.payload.map(Raw::from);
            EmitParts { event: request.event, payload, options: request.options, received }.check(fields, audience)
        };
        let receipt = self.emit(request, decode).await?;
        Ok(Response::new(EmitToRoomResponse { receipt }))
    }

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        let decode = |request: BroadcastRequest, received| {
            let payload = request.payload.map(Raw::from);
            let parts = EmitParts { event: request.event, payload, options: request.options, received };
            parts.check(Fields::default(), Some(Audience::everyone()))
        };
        let receipt = self.emit(request, decode).await?;
        Ok(Response::new(BroadcastResponse { receipt }))
    }

    async fn emit_batch(&self, request: Request<EmitBatchRequest>) -> Result<Response<EmitBatchResponse>, Status> {
        let (caller, received) = (caller(&request)?, received(&request));
        let emits = request.into_inner().emits;
        if emits.is_empty() || emits.len() > MAX_LISTED {
            let description = format!("has {} entries: give 1 to {MAX_LISTED}", emits.len());
            return Err(Error::invalid("emits", description).into());
        }
        let requests = emits.into_iter().map(|emit| decode::emit(emit, received)).collect();
        let results = self.commands.emit_batch(&caller, requests).await;
        let mut room = AckRoom::new();
        let results = results.into_iter().map(|result| encode::emit_result(result, &mut room)).collect();
        Ok(Response::new(EmitBatchResponse { results }))
    }

    type EmitStreamStream = Pin<Box<dyn Stream<Item = Result<EmitStreamResponse, Status>> + Send>>;

    async fn emit_stream(
        &self,
        request: Request<Streaming<EmitStreamRequest>>,
    ) -> Result<Response<Self::EmitStreamStream>, Status> {
        let caller = caller(&request)?;
        let emits = request.into_inner().map(decode_stream_item);
        let api_key = caller.name.clone();
        let answers = self.commands.emit_stream(caller, emits, self.lifecycle.clone());
        let responses = answers.map(|answer| {
            let (correlation_id, result) = answer?;
            let result = Some(encode::emit_result(result, &mut AckRoom::new()));
            Ok(EmitStreamResponse { correlation_id, result })
        });
        Ok(Response::new(Box::pin(Responses::new(responses, api_key, self.log.clone()))))
    }

    async fn disconnect_user(
        &self,
        request: Request<DisconnectUserRequest>,
    ) -> Result<Response<DisconnectUserResponse>, Status> {
        let (caller, audited) = (caller(&request)?, Audited::set(&request));
        let command = decode_disconnect_user(request.into_inner())?;
        let disconnected = self.commands.disconnect_user(&caller, command).await.inspect_err(audited)?;
        let OfNodes { answer, nodes, partial } = disconnected;
        Ok(Response::new(DisconnectUserResponse { disconnected: answer as u64, nodes, partial }))
    }
}

fn decode_emit_to_users(request: EmitToUsersRequest, received: Instant) -> Result<EmitToUsers, Error> {
    let mut fields = Fields::default();
    let users = decode::users(&mut fields, &request.user_ids);
    if request.user_ids.is_empty() {
        fields.refuse("user_ids", format!("is empty: give 1 to {MAX_LISTED}"));
    }
    let payload = request.payload.map(Raw::from);
    let parts = EmitParts { event: request.event, payload, options: request.options, received };
    // Each user takes this audience's place.
    let request = parts.check(fields, Some(Audience::everyone()))?;
    Ok(EmitToUsers { users, request })
}

type StreamItem = Result<(String, Result<EmitRequest, Error>), Status>;

fn decode_stream_item(item: Result<EmitStreamRequest, Status>) -> StreamItem {
    let broken = |status: Status| Status::new(promised(status.code()), status.message());
    let EmitStreamRequest { correlation_id, emit } = item.map_err(broken)?;
    let received = Instant::now();
    let request = if correlation_id.len() > MAX_CORRELATION_ID {
        let description = format!("has {} bytes: at most {MAX_CORRELATION_ID} are allowed", correlation_id.len());
        Err(Error::invalid("correlation_id", description))
    } else {
        decode::emit(emit.unwrap_or_default(), received)
    };
    Ok((correlation_id, request))
}

fn decode_disconnect_user(request: DisconnectUserRequest) -> Result<DisconnectUser, Error> {
    let mut fields = Fields::default();
    let user = fields.take("user_id", UserId::new(&request.user_id));
    let ids = &request.except_connection_ids;
    let except = fields.list("except_connection_ids", ids, MAX_LISTED, str::parse::<ConnectionId>);
    let reason = request.reason;
    if reason.len() > MAX_REASON {
        fields.refuse("reason", format!("has {} bytes: at most {MAX_REASON} are allowed", reason.len()));
    }
    if reason.chars().any(char::is_control) {
        fields.refuse("reason", "has a control character");
    }
    fields.finish(user.map(|user| DisconnectUser { user, reason, except }))
}
