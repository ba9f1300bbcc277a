use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use tokio::time::Instant;

use super::{
    Console, MAX_BODY,
    emit::{EmitBody, ReceiptBody},
    refusal::ApiError,
};
use crate::auth::Caller;
use crate::command::{DisconnectUser, Error, Violation};
use crate::message::UserId;

type Body = Result<Bytes, BytesRejection>;
type Answer<T> = Result<Json<T>, ApiError>;

/// `POST emit`: sends one event.
pub(super) async fn emit(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Body,
) -> Answer<ReceiptBody> {
    let request = parse::<EmitBody>(body).and_then(|body| body.check(Instant::now()).map_err(ApiError::from));
    let request = request.map_err(|refused| refused.audited(Some(&caller), "console/emit"))?;
    let receipt = console.commands.emit(&caller, request).await?;
    Ok(Json(receipt.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DisconnectBody {
    user_id: String,
}

#[derive(Serialize)]
pub(super) struct Disconnected {
    disconnected: usize,
}

/// `POST disconnect`: closes a user's connections.
pub(super) async fn disconnect(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Body,
) -> Answer<Disconnected> {
    let user = parse(body).and_then(|DisconnectBody { user_id }| {
        UserId::new(&user_id).map_err(|invalid| Error::from(Violation::of("user_id", &invalid)).into())
    });
    let user = user.map_err(|refused: ApiError| refused.audited(Some(&caller), "console/disconnect"))?;
    let command = DisconnectUser { user, reason: String::new(), except: Vec::new() };
    let disconnected = console.commands.disconnect_user(&caller, command).await?.answer;
    Ok(Json(Disconnected { disconnected }))
}

#[derive(Serialize)]
pub(super) struct StatsBody {
    users: u64,
    connections: u64,
    rooms: u64,
}

/// `GET stats`: how many there are.
pub(super) async fn stats(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Answer<StatsBody> {
    let stats = console.commands.get_stats(&caller).await;
    let stats = stats.map_err(|error| ApiError::from(error).audited(Some(&caller), "console/stats"))?.answer;
    Ok(Json(StatsBody { users: stats.users, connections: stats.connections, rooms: stats.rooms }))
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = body.map_err(|rejected| match rejected.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::of(StatusCode::PAYLOAD_TOO_LARGE, format!("the request has more than {MAX_BODY} bytes"))
        }
        _ => ApiError::of(StatusCode::BAD_REQUEST, "the request ended too early"),
    })?;
    let mut json = serde_json::Deserializer::from_slice(&body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => ApiError::from(Error::invalid(field, format!("cannot be read: {inner}"))),
            Category::Syntax | Category::Eof | Category::Io => not_json(inner),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::of(StatusCode::BAD_REQUEST, format!("the request is not JSON: {error}"))
}
