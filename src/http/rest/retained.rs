use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{answer, fresh, malformed, refuse, token};
use crate::command::Commands;
use crate::message::Payload;

#[derive(Deserialize)]
pub(super) struct InRoom {
    room: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    room: &'a str,
    event: &'a str,
    payload: Option<&'a RawValue>,
    /// The payload is bytes: ask for it by its event.
    binary: bool,
}

pub(super) async fn one(
    State(commands): State<Commands>,
    event: Result<Path<String>, PathRejection>,
    query: Result<Query<InRoom>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let (Ok(Path(event)), Ok(Query(InRoom { room }))) = (event, query) else {
        return malformed("name one event, and one room at most, both in UTF-8");
    };
    match commands.device_retained(token(&headers), room.as_deref(), &event).await {
        Ok(Payload::Json(raw)) => fresh("application/json", raw.get().to_owned().into_bytes()),
        Ok(Payload::Binary(bytes)) => fresh("application/octet-stream", bytes.into()),
        Ok(Payload::None) => fresh("application/json", b"null".into()),
        Err(refused) => refuse(&refused),
    }
}

pub(super) async fn all(State(commands): State<Commands>, headers: HeaderMap) -> Response {
    let values = match commands.device_retained_all(token(&headers)).await {
        Ok(values) => values,
        Err(refused) => return refuse(&refused),
    };
    let entries = values.iter().map(|(room, event, payload)| {
        let (payload, binary) = match payload {
            Payload::Json(raw) => (Some(&**raw), false),
            Payload::Binary(_) => (None, true),
            Payload::None => (None, false),
        };
        Entry { room: room.as_str(), event: event.as_str(), payload, binary }
    });
    answer(&Listing { retained: entries.collect() })
}

#[derive(Serialize)]
struct Listing<'a> {
    retained: Vec<Entry<'a>>,
}
