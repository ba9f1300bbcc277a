//! Direct messages, each asked for with the device's token.

use std::fmt::Display;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{answer, error, malformed, refuse, token};
use crate::auth::Identity;
use crate::command::{
    self, Commands, DeviceRefused, DirectPage, Error, FieldNames, MessageDevice, NewMessage, Of, Violation,
};
use crate::message::{MessageId, UserId};

/// The largest body: a text of 4,000 characters, each as an escape of 12 bytes, fits.
const MAX_BODY: usize = 64 << 10;
const DEFAULT_PAGE: u32 = 50;

/// The routes, if direct messages are enabled.
pub(super) fn routes(path: &str, commands: Commands) -> Router {
    Router::new()
        .route(path, post(send))
        .route(&format!("{path}/conversations"), get(conversations))
        .route(&format!("{path}/conversation/{{id}}"), get(conversation))
        .route(&format!("{path}/conversation/{{id}}/read"), put(read_conversation))
        .route(&format!("{path}/unread-count"), get(unread))
        .route(&format!("{path}/transaction/{{id}}"), get(transaction))
        .route(&format!("{path}/listing/{{id}}"), get(listing))
        .route(&format!("{path}/blocks"), get(blocks))
        .route(&format!("{path}/blocks/{{id}}"), put(block).delete(unblock))
        .route(&format!("{path}/{{id}}/read"), put(read))
        .route(&format!("{path}/{{id}}"), delete(remove))
        .with_state(commands)
}

/// What the addresses of lists may say.
#[derive(Default, Deserialize)]
pub(super) struct Window {
    limit: Option<String>,
    offset: Option<String>,
    before: Option<String>,
}

type Asked = Result<Query<Window>, QueryRejection>;
type Id = Result<Path<String>, PathRejection>;
type Answered = Result<Response, DeviceRefused>;

#[derive(Serialize)]
struct Unread {
    count: u64,
}

async fn send(State(commands): State<Commands>, headers: HeaderMap, body: Body) -> Response {
    let identity = match commands.identify_device(token(&headers)) {
        Ok(identity) => identity,
        Err(refused) => return refuse(&refused.into()),
    };
    // Read only of devices that are known.
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return too_large();
    }
    let body = match to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(failed) if is_too_large(&failed) => return too_large(),
        Err(_) => return malformed("the request ended too early"),
    };
    let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else {
        return malformed("the request is no JSON object");
    };
    let sending = async {
        let device = commands.message_device(&identity, None)?;
        let sent = device.send(new_message(&fields, &device.messages().config().fields)?, None).await?;
        let status = if sent.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
        Ok((status, answer(&device.messages().body(&sent.message))).into_response())
    };
    finish(sending.await)
}

fn too_large() -> Response {
    let message = format!("the request has more than {MAX_BODY} bytes");
    error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message)
}

fn is_too_large(failed: &axum::Error) -> bool {
    std::error::Error::source(failed).is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

fn new_message(fields: &Map<String, Value>, names: &FieldNames) -> Result<NewMessage, Error> {
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(Violation::new(name, "is no text")),
    };
    let needed = |name: &str| text(name)?.ok_or_else(|| Violation::new(name, "is missing"));
    Ok(NewMessage {
        receiver: needed(&names.receiver_id)?,
        content: needed(&names.content)?,
        transaction: text(&names.transaction_id)?,
        listing: text(&names.listing_id)?,
        client_message_id: text(&names.client_message_id)?,
    })
}

async fn conversations(State(commands): State<Commands>, window: Asked, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| {
        let DirectPage { limit, before, .. } = window_of(window)?;
        let conversations = device.conversations(limit, before).await?;
        let bodies: Vec<_> = conversations.iter().map(|one| device.messages().conversation_body(one)).collect();
        Ok(answer(&bodies))
    })
    .await
}

async fn conversation(State(commands): State<Commands>, id: Id, window: Asked, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| list(&device, Of::Peer(user(id)?), window).await).await
}

async fn transaction(State(commands): State<Commands>, id: Id, window: Asked, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| list(&device, Of::Transaction(name(id)?), window).await).await
}

async fn listing(State(commands): State<Commands>, id: Id, window: Asked, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| list(&device, Of::Listing(name(id)?), window).await).await
}

async fn list(device: &MessageDevice<'_>, of: Of, window: Asked) -> Answered {
    let messages = device.list(&of, window_of(window)?).await?;
    let bodies: Vec<_> = messages.iter().map(|message| device.messages().body(message)).collect();
    Ok(answer(&bodies))
}

async fn unread(State(commands): State<Commands>, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| Ok(answer(&Unread { count: device.count_unread().await? }))).await
}

async fn read(State(commands): State<Commands>, id: Id, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| {
        device.read(&[message_id(id)?]).await?;
        Ok(done())
    })
    .await
}

async fn read_conversation(State(commands): State<Commands>, id: Id, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| {
        device.read_conversation(&user(id)?).await?;
        Ok(done())
    })
    .await
}

async fn remove(State(commands): State<Commands>, id: Id, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| {
        device.delete(message_id(id)?).await?;
        Ok(done())
    })
    .await
}

async fn blocks(State(commands): State<Commands>, headers: HeaderMap) -> Response {
    ask(&commands, &headers, async |device| {
        let blocked = device.blocked().await?;
        Ok(answer(&blocked.iter().map(UserId::as_str).collect::<Vec<_>>()))
    })
    .await
}

async fn block(State(commands): State<Commands>, id: Id, headers: HeaderMap) -> Response {
    set_block(&commands, id, &headers, true).await
}

async fn unblock(State(commands): State<Commands>, id: Id, headers: HeaderMap) -> Response {
    set_block(&commands, id, &headers, false).await
}

async fn set_block(commands: &Commands, id: Id, headers: &HeaderMap, is_blocked: bool) -> Response {
    ask(commands, headers, async |device| {
        device.block(&user(id)?, is_blocked).await?;
        Ok(done())
    })
    .await
}

/// Does what a device with a good token asks for.
async fn ask(
    commands: &Commands,
    headers: &HeaderMap,
    work: impl AsyncFnOnce(MessageDevice<'_>) -> Answered,
) -> Response {
    let identity: Identity = match commands.identify_device(token(headers)) {
        Ok(identity) => identity,
        Err(refused) => return refuse(&refused.into()),
    };
    match commands.message_device(&identity, None) {
        Ok(device) => finish(work(device).await),
        Err(refused) => refuse(&refused.into()),
    }
}

fn finish(answered: Answered) -> Response {
    answered.unwrap_or_else(|refused| refuse(&refused))
}

fn done() -> Response {
    (StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response()
}

fn window_of(window: Asked) -> Result<DirectPage, Error> {
    let Ok(Query(Window { limit, offset, before })) = window else {
        return Err(Error::invalid("the address", "is to give each parameter once, in UTF-8"));
    };
    let limit = number("limit", limit.as_deref(), DEFAULT_PAGE)?;
    if limit == 0 {
        return Err(Error::invalid("limit", "is 0: ask for 1 to 100"));
    }
    let before = command::parse_before(&before.unwrap_or_default());
    let before = before.map_err(|invalid| Violation::of("before", &invalid))?;
    Ok(DirectPage { limit, offset: number("offset", offset.as_deref(), 0)?, before })
}

fn number(field: &str, text: Option<&str>, default: u32) -> Result<u32, Violation> {
    let number = text.map_or(Ok(default), str::parse);
    number.map_err(|_| Violation::new(field, "is no number of this kind: give digits alone"))
}

fn path<T, E: Display>(id: Id, field: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Error> {
    let text = id.map(|Path(text)| text).map_err(|_| Violation::new(field, "is not UTF-8"))?;
    Ok(parse(&text).map_err(|invalid| Violation::new(field, invalid.to_string()))?)
}

fn user(id: Id) -> Result<UserId, Error> {
    path(id, "userId", UserId::new)
}

fn name(id: Id) -> Result<String, Error> {
    path(id, "id", |text| UserId::new(text).map(|id| id.to_string()))
}

fn message_id(id: Id) -> Result<MessageId, Error> {
    path(id, "messageId", str::parse::<MessageId>)
}
