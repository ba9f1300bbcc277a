use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    decode::{self, Fields},
    encode,
    guard::caller,
};
use crate::command::{
    self, Before, Commands, DirectPage, Erased, Error, MAX_DIRECT_PAGE, MAX_READ_IDS, Of, SendMessage,
};
use crate::message::{Invalid, MessageId, Topic, UserId};
use crate::proto::v1::{
    AllowConversationRequest, AllowConversationResponse, BlockUserRequest, BlockUserResponse, DeleteMessageRequest,
    DeleteMessageResponse, EraseUserRequest, EraseUserResponse, ForbidConversationRequest, ForbidConversationResponse,
    ListConversationsRequest, ListConversationsResponse, MessagesListMessagesRequest, MessagesListMessagesResponse,
    MessagesMarkReadRequest, MessagesMarkReadResponse, SendMessageRequest, SendMessageResponse, UnblockUserRequest,
    UnblockUserResponse,
    messages_list_messages_request::What as Listed,
    messages_mark_read_request::{Ids, What as Read},
    messages_server::Messages,
};

/// Messages or conversations of a page, if the caller does not say.
const DEFAULT_PAGE: u32 = 50;

pub(super) struct Service(Commands);

impl Service {
    pub(super) fn new(commands: Commands) -> Self {
        Self(commands)
    }
}

#[tonic::async_trait]
impl Messages for Service {
    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let caller = caller(&request)?;
        let sent = self.0.send_message(&caller, decode_send(request.into_inner())?).await?;
        let message = Some(encode::direct_message(&sent.message));
        Ok(Response::new(SendMessageResponse { message, duplicate: sent.is_repeated }))
    }

    async fn list_conversations(
        &self,
        request: Request<ListConversationsRequest>,
    ) -> Result<Response<ListConversationsResponse>, Status> {
        let caller = caller(&request)?;
        let ListConversationsRequest { user_id, page_size, before } = request.get_ref();
        let mut fields = Fields::default();
        let user = fields.take("user_id", UserId::new(user_id));
        let page = page(&mut fields, *page_size, before);
        let (user, DirectPage { limit, before, .. }) = fields.finish(user.zip(page))?;
        let conversations = self.0.list_conversations(&caller, &user, limit, before).await?;
        let conversations = conversations.iter().map(encode::conversation).collect();
        Ok(Response::new(ListConversationsResponse { conversations }))
    }

    async fn list_messages(
        &self,
        request: Request<MessagesListMessagesRequest>,
    ) -> Result<Response<MessagesListMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let (user, of, page) = decode_list(request.get_ref())?;
        let messages = self.0.list_direct(&caller, &user, &of, page).await?;
        let messages = messages.iter().map(encode::direct_message).collect();
        Ok(Response::new(MessagesListMessagesResponse { messages }))
    }

    async fn mark_read(
        &self,
        request: Request<MessagesMarkReadRequest>,
    ) -> Result<Response<MessagesMarkReadResponse>, Status> {
        let caller = caller(&request)?;
        let count = match decode_read(request.get_ref())? {
            (user, Which::Messages(ids)) => self.0.read_direct(&caller, &user, &ids).await?,
            (user, Which::Conversation(peer)) => self.0.read_conversation(&caller, &user, &peer).await?,
        };
        Ok(Response::new(MessagesMarkReadResponse { count }))
    }

    async fn delete_message(
        &self,
        request: Request<DeleteMessageRequest>,
    ) -> Result<Response<DeleteMessageResponse>, Status> {
        let caller = caller(&request)?;
        let DeleteMessageRequest { user_id, message_id } = request.get_ref();
        let mut fields = Fields::default();
        let user = fields.take("user_id", UserId::new(user_id));
        let id = fields.take("message_id", message_id.parse());
        let (user, id) = fields.finish(user.zip(id))?;
        self.0.delete_direct(&caller, &user, id).await?;
        Ok(Response::new(DeleteMessageResponse {}))
    }

    async fn erase_user(&self, request: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        let caller = caller(&request)?;
        let user = decode::user(&request.get_ref().user_id)?;
        let Erased { direct, mailbox } = self.0.erase_user(&caller, &user).await?;
        Ok(Response::new(EraseUserResponse { deleted: direct, mailbox_deleted: mailbox }))
    }

    async fn allow_conversation(
        &self,
        request: Request<AllowConversationRequest>,
    ) -> Result<Response<AllowConversationResponse>, Status> {
        let caller = caller(&request)?;
        let AllowConversationRequest { user_id, peer_id, ttl } = request.get_ref();
        let mut fields = Fields::default();
        let sides = sides(&mut fields, user_id, peer_id);
        let ttl = decode::right_ttl(&mut fields, ttl.as_ref());
        let ((user, peer), ttl) = fields.finish(sides.zip(ttl))?;
        self.0.allow_conversation(&caller, (&user, &peer), Some(ttl)).await?;
        Ok(Response::new(AllowConversationResponse {}))
    }

    async fn forbid_conversation(
        &self,
        request: Request<ForbidConversationRequest>,
    ) -> Result<Response<ForbidConversationResponse>, Status> {
        let caller = caller(&request)?;
        let ForbidConversationRequest { user_id, peer_id } = request.get_ref();
        let (user, peer) = decode_sides(user_id, peer_id)?;
        self.0.allow_conversation(&caller, (&user, &peer), None).await?;
        Ok(Response::new(ForbidConversationResponse {}))
    }

    async fn block_user(&self, request: Request<BlockUserRequest>) -> Result<Response<BlockUserResponse>, Status> {
        let caller = caller(&request)?;
        let BlockUserRequest { user_id, peer_id } = request.get_ref();
        let (user, peer) = decode_sides(user_id, peer_id)?;
        self.0.block_user(&caller, (&user, &peer), true).await?;
        Ok(Response::new(BlockUserResponse {}))
    }

    async fn unblock_user(
        &self,
        request: Request<UnblockUserRequest>,
    ) -> Result<Response<UnblockUserResponse>, Status> {
        let caller = caller(&request)?;
        let UnblockUserRequest { user_id, peer_id } = request.get_ref();
        let (user, peer) = decode_sides(user_id, peer_id)?;
        self.0.block_user(&caller, (&user, &peer), false).await?;
        Ok(Response::new(UnblockUserResponse {}))
    }
}

fn decode_send(request: SendMessageRequest) -> Result<SendMessage, Error> {
    let SendMessageRequest { sender_id, receiver_id, content, transaction_id, listing_id, client_message_id } = request;
    let mut fields = Fields::default();
    let sender = fields.take("sender_id", UserId::new(&sender_id));
    let receiver = fields.take("receiver_id", UserId::new(&receiver_id));
    let topic = Topic {
        transaction: name(&mut fields, "transaction_id", &transaction_id),
        listing: name(&mut fields, "listing_id", &listing_id),
    };
    let client_message_id = name(&mut fields, "client_message_id", &client_message_id);
    let (sender, receiver) = fields.finish(sender.zip(receiver))?;
    let content = content.into();
    Ok(SendMessage { sender, receiver, content, topic, client_message_id, connection: None, needs_grant: false })
}

/// The id of something that Bugle does not know; empty: none.
fn name(fields: &mut Fields, field: &str, text: &str) -> Option<Arc<str>> {
    if text.is_empty() {
        return None;
    }
    fields.take(field, UserId::new(text)).map(|id| id.as_str().into())
}

fn decode_list(request: &MessagesListMessagesRequest) -> Result<(UserId, Of, DirectPage), Error> {
    let MessagesListMessagesRequest { user_id, what, page_size, before } = request;
    let mut fields = Fields::default();
    let user = fields.take("user_id", UserId::new(user_id));
    let of = match what {
        Some(Listed::PeerId(id)) => fields.take("peer_id", UserId::new(id)).map(Of::Peer),
        Some(Listed::TransactionId(id)) => needed_name(&mut fields, "transaction_id", id).map(Of::Transaction),
        Some(Listed::ListingId(id)) => needed_name(&mut fields, "listing_id", id).map(Of::Listing),
        None => {
            fields.refuse("what", "is missing: give peer_id, transaction_id or listing_id");
            None
        }
    };
    let page = page(&mut fields, *page_size, before);
    fields.finish(user.zip(of).zip(page).map(|((user, of), page)| (user, of, page)))
}

fn needed_name(fields: &mut Fields, field: &str, text: &str) -> Option<String> {
    fields.take(field, UserId::new(text)).map(|id| id.to_string())
}

/// How much of a list, and before what.
fn page(fields: &mut Fields, size: i32, before: &str) -> Option<DirectPage> {
    let limit = u32::try_from(size)
        .map_err(|_| Invalid::new(format!("is negative: ask for 1 to {MAX_DIRECT_PAGE}, or 0 for {DEFAULT_PAGE}")));
    let limit = fields.take("page_size", limit);
    let limit = limit.map(|limit| if limit == 0 { DEFAULT_PAGE } else { limit.min(MAX_DIRECT_PAGE) });
    let before: Option<Before> = fields.take("before", command::parse_before(before));
    limit.zip(before).map(|(limit, before)| DirectPage { limit, offset: 0, before })
}

/// What a user has read.
enum Which {
    Messages(Vec<MessageId>),
    /// All of the conversation with this user.
    Conversation(UserId),
}

fn decode_read(request: &MessagesMarkReadRequest) -> Result<(UserId, Which), Error> {
    let MessagesMarkReadRequest { user_id, what } = request;
    let mut fields = Fields::default();
    let user = fields.take("user_id", UserId::new(user_id));
    let which = match what {
        Some(Read::MessageIds(Ids { ids })) => {
            if ids.is_empty() {
                fields.refuse("message_ids.ids", "is empty: name a message, or give peer_id");
            }
            let ids = fields.list("message_ids.ids", ids, MAX_READ_IDS, str::parse::<MessageId>);
            Some(Which::Messages(ids))
        }
        Some(Read::PeerId(id)) => fields.take("peer_id", UserId::new(id)).map(Which::Conversation),
        None => {
            fields.refuse("what", "is missing: give message_ids or peer_id");
            None
        }
    };
    fields.finish(user.zip(which))
}

fn sides(fields: &mut Fields, user_id: &str, peer_id: &str) -> Option<(UserId, UserId)> {
    let user = fields.take("user_id", UserId::new(user_id));
    let peer = fields.take("peer_id", UserId::new(peer_id));
    user.zip(peer)
}

fn decode_sides(user_id: &str, peer_id: &str) -> Result<(UserId, UserId), Error> {
    let mut fields = Fields::default();
    let sides = sides(&mut fields, user_id, peer_id);
    fields.finish(sides)
}
