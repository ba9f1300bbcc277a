//! Requests as tests want them, and what came of them.

use std::panic::Location;

use bugle::proto::v1::{
    BroadcastRequest, Emit, EmitOptions, EmitToRoomRequest, EmitToUserRequest, EmitToUsersRequest, Receipt,
    broadcast_request, emit, emit_to_room_request, emit_to_user_request, emit_to_users_request,
};
use tonic::{Code, Response, Status};

use super::{deadline, violations};
use crate::NODES;

/// JSON for a user.
pub fn to_user(user: &str, event: &str, json: &str) -> EmitToUserRequest {
    let payload = Some(emit_to_user_request::Payload::Json(json.into()));
    EmitToUserRequest { user_id: user.into(), event: event.into(), payload, options: None }
}

/// JSON for several users.
pub fn to_users(users: &[&str], event: &str, json: &str) -> EmitToUsersRequest {
    let payload = Some(emit_to_users_request::Payload::Json(json.into()));
    let user_ids = users.iter().map(ToString::to_string).collect();
    EmitToUsersRequest { user_ids, event: event.into(), payload, options: None }
}

/// JSON for a room.
pub fn to_room(room: &str, event: &str, json: &str) -> EmitToRoomRequest {
    let payload = Some(emit_to_room_request::Payload::Json(json.into()));
    EmitToRoomRequest { room: room.into(), event: event.into(), payload, options: None }
}

/// JSON for everyone.
pub fn to_everyone(event: &str, json: &str) -> BroadcastRequest {
    let payload = Some(broadcast_request::Payload::Json(json.into()));
    BroadcastRequest { event: event.into(), payload, options: None }
}

/// JSON for whomever, as an emit of a batch or a stream.
pub fn emit_to(target: emit::Target, event: &str, json: &str) -> Emit {
    let payload = Some(emit::Payload::Json(json.into()));
    Emit { target: Some(target), event: event.into(), payload, options: None }
}

/// An event without an argument for user 42, with these options.
pub fn with_options(options: EmitOptions) -> EmitToUserRequest {
    EmitToUserRequest { user_id: "42".into(), event: "e".into(), payload: None, options: Some(options) }
}

/// Waits for the answer to a call, accepted or refused.
#[track_caller]
pub fn answer<T>(call: impl Future<Output = tonic::Result<Response<T>>>) -> impl Future<Output = tonic::Result<T>> {
    let call = deadline("the answer to a call", call);
    async move { call.await.map(Response::into_inner) }
}

/// Waits for the answer to a call, which must be refused with this code.
#[track_caller]
pub fn refused<T>(code: Code, call: impl Future<Output = tonic::Result<Response<T>>>) -> impl Future<Output = Status> {
    let caller = Location::caller();
    let call = deadline("the refusal of a call", call);
    async move {
        let Err(status) = call.await else { panic!("{caller}: the call was accepted instead of {code:?}") };
        assert_eq!(status.code(), code, "{caller}: {}", status.message());
        status
    }
}

/// The fields that a refusal names.
pub fn named(status: &Status) -> Vec<String> {
    violations(status).into_iter().map(|(field, _)| field).collect()
}

/// How many connections matched, took the event and dropped it.
pub fn counts(receipt: &Receipt) -> (u64, u64, u64) {
    (receipt.matched, receipt.enqueued, receipt.dropped)
}

/// Whether so many nodes can have answered an emit that matched so many connections: the only node always does; of several those that have the
/// room, and for a while those that had it.
pub fn is_node_count(nodes: u32, matched: u64) -> bool {
    let is_possible = if NODES == 1 { nodes == 1 } else { matched == 0 || nodes > 0 };
    is_possible && usize::try_from(nodes).is_ok_and(|nodes| nodes <= NODES)
}
