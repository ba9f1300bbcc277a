use axum::{
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{answer, malformed, refuse, token};
use crate::command::{Commands, DeviceRefused, ListMessages, ListedMessage, MarkRead, MessagePage, Violation};
use crate::message::{Invalid, LARGEST_PAGE, Payload, Position, RoomName};

const DEFAULT_PAGE: usize = 100;

/// What the addresses of all these may say; of each what does not concern it is passed over.
#[derive(Default, Deserialize)]
pub(super) struct QueryParams {
    room: Option<String>,
    since: Option<String>,
    unread: Option<String>,
    page_size: Option<String>,
    page_token: Option<String>,
    position: Option<String>,
}

type ParsedQuery = Result<Query<QueryParams>, QueryRejection>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notifications<'a> {
    notifications: Vec<Notification<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification<'a> {
    id: String,
    position: String,
    event: &'a str,
    payload: Content<'a>,
    /// The payload is bytes, in base64.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    binary: bool,
    stored_at: String,
    read: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    None,
    Json(&'a RawValue),
    Base64(String),
}

#[derive(Serialize)]
struct Unread<'a> {
    room: &'a str,
    count: u64,
}

/// A page of a mailbox.
pub(super) async fn list(State(commands): State<Commands>, query: ParsedQuery, headers: HeaderMap) -> Response {
    let Ok(Query(params)) = query else { return unreadable() };
    let command = match params.list() {
        Ok(command) => command,
        Err(violation) => return refuse(&DeviceRefused::Error(violation.into())),
    };
    match commands.device_messages(token(&headers), params.room.as_deref(), &command).await {
        Ok(page) => answer_page(&page),
        Err(refused) => refuse(&refused),
    }
}

/// How many messages of a mailbox are unread.
pub(super) async fn count(State(commands): State<Commands>, query: ParsedQuery, headers: HeaderMap) -> Response {
    let Ok(Query(params)) = query else { return unreadable() };
    unread(commands.device_unread(token(&headers), params.room.as_deref()).await)
}

/// Notes that one message was read.
pub(super) async fn read_one(
    State(commands): State<Commands>,
    id: Result<Path<String>, PathRejection>,
    query: ParsedQuery,
    headers: HeaderMap,
) -> Response {
    let (Ok(Path(id)), Ok(Query(params))) = (id, query) else { return unreadable() };
    let command = id.parse().map(MarkRead::Message).map_err(|invalid| Violation::of("id", &invalid));
    note_read(&commands, &params, command, &headers).await
}

/// Notes that all was read, or all up to a position.
pub(super) async fn read_all(State(commands): State<Commands>, query: ParsedQuery, headers: HeaderMap) -> Response {
    let Ok(Query(params)) = query else { return unreadable() };
    let up_to = position("position", params.position.as_deref());
    let command = up_to.map(|position| match position {
        Some(position) => MarkRead::UpTo { field: "position", position },
        None => MarkRead::All,
    });
    note_read(&commands, &params, command, &headers).await
}

async fn note_read(
    commands: &Commands,
    params: &QueryParams,
    command: Result<MarkRead, Violation>,
    headers: &HeaderMap,
) -> Response {
    match command {
        Ok(command) => unread(commands.device_reads(token(headers), params.room.as_deref(), command).await),
        Err(violation) => refuse(&DeviceRefused::Error(violation.into())),
    }
}

fn unreadable() -> Response {
    malformed("give each parameter once, in UTF-8")
}

fn unread(counted: Result<(RoomName, u64), DeviceRefused>) -> Response {
    match counted {
        Ok((room, count)) => answer(&Unread { room: room.as_str(), count }),
        Err(refused) => refuse(&refused),
    }
}

fn answer_page(page: &MessagePage) -> Response {
    let notifications = page.messages.iter().map(Notification::of).collect();
    answer(&Notifications { notifications, next_page_token: page.next.as_ref().map(ToString::to_string) })
}

impl<'a> Notification<'a> {
    fn of(listed: &'a ListedMessage) -> Self {
        let ListedMessage { message, position, is_read } = listed;
        let payload = match &message.payload {
            Payload::None => Content::None,
            Payload::Json(raw) => Content::Json(raw),
            Payload::Binary(bytes) => Content::Base64(BASE64_STANDARD.encode(bytes)),
        };
        let stored_at = Timestamp::from_millisecond(message.stored_at_ms).unwrap_or_default();
        Self {
            id: message.id.to_string(),
            position: position.to_string(),
            event: message.event.as_str(),
            payload,
            binary: matches!(message.payload, Payload::Binary(_)),
            stored_at: stored_at.to_string(),
            read: is_read.unwrap_or_default(),
        }
    }
}

impl QueryParams {
    fn list(&self) -> Result<ListMessages, Violation> {
        Ok(ListMessages {
            since: position("since", self.since.as_deref())?,
            unread_only: flag("unread", self.unread.as_deref())?,
            page_size: page_size(self.page_size.as_deref())?,
            page_token: position("page_token", self.page_token.as_deref())?,
        })
    }
}

/// An empty one is none, as over gRPC.
fn position(field: &'static str, text: Option<&str>) -> Result<Option<Position>, Violation> {
    let text = text.filter(|text| !text.is_empty());
    text.map(str::parse).transpose().map_err(|invalid: Invalid| Violation::of(field, &invalid))
}

fn flag(field: &'static str, text: Option<&str>) -> Result<bool, Violation> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Violation::new(field, "is neither true nor false")),
    }
}

fn page_size(text: Option<&str>) -> Result<usize, Violation> {
    let size = text.map_or(Ok(0), str::parse::<u32>);
    match size.map_err(|_| Violation::new("page_size", "is no number: ask for 1 to 1,000, or 0 for 100"))? {
        0 => Ok(DEFAULT_PAGE),
        size => Ok(LARGEST_PAGE.min(size as usize)),
    }
}
