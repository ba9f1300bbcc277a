use crate::command::{self, Error, ListedMessage};
use crate::message::{self, ConnectionInfo, Page, Transport};
use crate::proto::v1::{
    self, Conversation, DirectMessage, EmitResult, Receipt, StoredMessage, UserSummary, emit_result, stored_message,
};

use super::{acks::AckRoom, status::emit_error_of};

/// A count for the wire.
pub(super) fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A receipt, as one of those that share this room.
pub(super) fn receipt(receipt: &message::Receipt, room: &mut AckRoom) -> Receipt {
    Receipt {
        message_id: receipt.message_id.to_string(),
        matched: receipt.matched,
        enqueued: receipt.enqueued,
        dropped: receipt.dropped,
        stored: receipt.stored,
        position: receipt.position.as_ref().map(ToString::to_string).unwrap_or_default(),
        duplicate: receipt.duplicate,
        deferred: receipt.deferred,
        nodes: receipt.nodes,
        partial: receipt.partial,
        acks: receipt.acks.as_ref().map(|acks| room.encode(acks)).unwrap_or_default(),
        replied: receipt.acks.as_ref().map_or(0, |acks| acks.replied),
    }
}

pub(super) fn emit_result(result: Result<message::Receipt, Error>, room: &mut AckRoom) -> EmitResult {
    let result = match result {
        Ok(sent) => emit_result::Result::Receipt(receipt(&sent, room)),
        Err(error) => emit_result::Result::Error(emit_error_of(error)),
    };
    EmitResult { result: Some(result) }
}

/// The token for the page after this one.
pub(super) fn next_page_token<K: ToString>(page: &Page<K>) -> String {
    let last = page.items.last().filter(|_| page.more);
    last.map(|(key, _)| key.to_string()).unwrap_or_default()
}

pub(super) fn user_summary((user, connections): (message::UserId, usize)) -> UserSummary {
    UserSummary { user_id: user.to_string(), online: connections > 0, connection_count: count32(connections) }
}

pub(super) fn connection(info: ConnectionInfo) -> v1::Connection {
    let transport = match info.transport {
        Transport::SocketIoWebSocket => v1::Transport::SocketioWebsocket,
        Transport::SocketIoPolling => v1::Transport::SocketioPolling,
        Transport::WebSocket => v1::Transport::Websocket,
    };
    v1::Connection {
        id: info.id.to_string(),
        node: info.node.to_string(),
        transport: transport.into(),
        rooms: info.rooms.iter().map(ToString::to_string).collect(),
        connected_at: Some(prost_types::Timestamp {
            seconds: info.connected_at.as_second(),
            nanos: info.connected_at.subsec_nanosecond(),
        }),
        address: info.address.to_string(),
        user_agent: info.user_agent,
    }
}

pub(super) fn stored_message(listed: ListedMessage) -> StoredMessage {
    let ListedMessage { message, position, is_read } = listed;
    let payload = match message.payload {
        message::Payload::None => None,
        message::Payload::Json(raw) => Some(stored_message::Payload::Json(raw.get().to_owned())),
        message::Payload::Binary(bytes) => Some(stored_message::Payload::Binary(bytes)),
    };
    StoredMessage {
        id: message.id.to_string(),
        position: position.to_string(),
        event: message.event.to_string(),
        payload,
        stored_at: Some(timestamp(message.stored_at_ms)),
        read: is_read,
    }
}

/// A time in milliseconds since 1970.
fn timestamp(ms: i64) -> prost_types::Timestamp {
    let (seconds, millis) = (ms.div_euclid(1_000), ms.rem_euclid(1_000));
    prost_types::Timestamp { seconds, nanos: i32::try_from(millis * 1_000_000).unwrap_or_default() }
}

pub(super) fn direct_message(message: &message::DirectMessage) -> DirectMessage {
    let message::DirectMessage { id, sender, receiver, content, topic, is_read, created_at_ms, updated_at_ms } =
        message;
    DirectMessage {
        id: id.to_string(),
        sender_id: sender.to_string(),
        receiver_id: receiver.to_string(),
        content: content.to_string(),
        transaction_id: topic.transaction.as_deref().unwrap_or_default().to_owned(),
        listing_id: topic.listing.as_deref().unwrap_or_default().to_owned(),
        is_read: *is_read,
        created_at: Some(timestamp(*created_at_ms)),
        updated_at: Some(timestamp(*updated_at_ms)),
    }
}

pub(super) fn conversation(conversation: &command::Conversation) -> Conversation {
    let command::Conversation { peer, last, unread } = conversation;
    Conversation { peer_id: peer.to_string(), last_message: Some(direct_message(last)), unread_count: *unread }
}
