use tonic::{Request, Response, Status};

use super::{
    decode::{self, Fields},
    encode,
    guard::caller,
};
use crate::command::{Commands, DeleteMessages, Error, ListMessages, MarkRead};
use crate::message::{EventName, MessageId, Payload, Position, RoomName, UserId};
use crate::proto::v1::{
    CountUnreadRequest, CountUnreadResponse, DeleteMessagesRequest, DeleteMessagesResponse, GetRetainedRequest,
    GetRetainedResponse, ListMessagesRequest, ListMessagesResponse, MarkReadRequest, MarkReadResponse,
    delete_messages_request::{Ids, What as Deleted},
    get_retained_response::Payload as Retained,
    mailbox_server::Mailbox,
    mark_read_request::What as Read,
};

pub(super) struct Service(Commands);

impl Service {
    pub(super) fn new(commands: Commands) -> Self {
        Self(commands)
    }
}

#[tonic::async_trait]
impl Mailbox for Service {
    async fn get_retained(
        &self,
        request: Request<GetRetainedRequest>,
    ) -> Result<Response<GetRetainedResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let room = fields.take("room", RoomName::new(&request.get_ref().room));
        let event = fields.take("event", EventName::new(&request.get_ref().event));
        let (room, event) = fields.finish(room.zip(event))?;
        let payload = match self.0.get_retained(&caller, &room, &event).await? {
            Payload::None => None,
            Payload::Json(raw) => Some(Retained::Json(raw.get().to_owned())),
            Payload::Binary(bytes) => Some(Retained::Binary(bytes)),
        };
        Ok(Response::new(GetRetainedResponse { payload }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let ListMessagesRequest { room, user_id, since, unread_only, page_size, page_token } = request.get_ref();
        let mut fields = Fields::default();
        let reader = room_and_reader(&mut fields, room, user_id);
        let since = position(&mut fields, "since", since);
        let size = decode::page(&mut fields, *page_size, page_token).map(|(size, _)| size);
        let page_token = position(&mut fields, "page_token", page_token);
        let ((room, user), page_size) = fields.finish(reader.zip(size))?;
        let command = ListMessages { since, unread_only: *unread_only, page_size, page_token };
        let page = self.0.list_messages(&caller, &room, user.as_ref(), &command).await?;
        Ok(Response::new(ListMessagesResponse {
            next_page_token: page.next.map(|next| next.to_string()).unwrap_or_default(),
            messages: page.messages.into_iter().map(encode::stored_message).collect(),
        }))
    }

    async fn count_unread(
        &self,
        request: Request<CountUnreadRequest>,
    ) -> Result<Response<CountUnreadResponse>, Status> {
        let caller = caller(&request)?;
        let CountUnreadRequest { room, user_id } = request.get_ref();
        let mut fields = Fields::default();
        let reader = room_and_reader(&mut fields, room, user_id);
        let (room, user) = fields.finish(reader)?;
        let count = self.0.count_unread(&caller, &room, user.as_ref()).await?;
        Ok(Response::new(CountUnreadResponse { count }))
    }

    async fn mark_read(&self, request: Request<MarkReadRequest>) -> Result<Response<MarkReadResponse>, Status> {
        let caller = caller(&request)?;
        let MarkReadRequest { room, user_id, what } = request.get_ref();
        let mut fields = Fields::default();
        let reader = room_and_reader(&mut fields, room, user_id);
        let command = match what {
            Some(Read::MessageId(id)) => fields.take("message_id", id.parse()).map(MarkRead::Message),
            Some(Read::UpTo(given)) => {
                fields.take("up_to", given.parse()).map(|position| MarkRead::UpTo { field: "up_to", position })
            }
            None => {
                fields.refuse("what", "is missing: give message_id or up_to");
                None
            }
        };
        let ((room, user), command) = fields.finish(reader.zip(command))?;
        let count = self.0.mark_read(&caller, &room, user.as_ref(), command).await?;
        Ok(Response::new(MarkReadResponse { count }))
    }

    async fn delete_messages(
        &self,
        request: Request<DeleteMessagesRequest>,
    ) -> Result<Response<DeleteMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let (room, command) = decode_delete_messages(request.get_ref())?;
        let deleted = self.0.delete_messages(&caller, &room, command).await?;
        Ok(Response::new(DeleteMessagesResponse { deleted }))
    }
}

/// A room, and whose read state counts there if anybody is named.
fn room_and_reader(fields: &mut Fields, room: &str, user_id: &str) -> Option<(RoomName, Option<UserId>)> {
    let room = fields.take("room", RoomName::new(room));
    let user = if user_id.is_empty() { Some(None) } else { fields.take("user_id", UserId::new(user_id)).map(Some) };
    room.zip(user)
}

fn position(fields: &mut Fields, field: &str, text: &str) -> Option<Position> {
    if text.is_empty() { None } else { fields.take(field, text.parse()) }
}

fn decode_delete_messages(request: &DeleteMessagesRequest) -> Result<(RoomName, DeleteMessages), Error> {
    let mut fields = Fields::default();
    let room = fields.take("room", RoomName::new(&request.room));
    let command = match &request.what {
        Some(Deleted::MessageIds(Ids { ids })) => {
            if ids.is_empty() {
                fields.refuse("message_ids.ids", "is empty: name a message, or say `all`");
            }
            let ids = fields.list("message_ids.ids", ids, decode::MAX_LISTED, str::parse::<MessageId>);
            Some(DeleteMessages::Messages(ids))
        }
        Some(Deleted::UpTo(given)) => fields.take("up_to", given.parse()).map(DeleteMessages::UpTo),
        Some(Deleted::All(true)) => Some(DeleteMessages::All),
        Some(Deleted::All(false)) => {
            fields.refuse("all", "is false: say true, or name messages or a position");
            None
        }
        None => {
            fields.refuse("what", "is missing: give message_ids, up_to or all");
            None
        }
    };
    fields.finish(room.zip(command))
}
