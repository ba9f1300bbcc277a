use serde_json::{Map, Value, json, value::RawValue};

use super::{
    super::{Admission, Commands, Error, EventRefused},
    device::{MessageDevice, NewMessage, user},
};
use crate::auth::{Identity, text_of};
use crate::delivery::DirectAnswer;
use crate::message::MessageId;
use crate::messages::EventNames;

/// What a device asks for by an event of `[messages.events]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageEvent {
    /// To send a message.
    Send,
    /// To mark messages as read.
    Read,
    /// To delete a message.
    Delete,
    /// To block a user, or not any more.
    Block,
    /// To tell a user that it types.
    TypingStart,
    /// Or does not any more.
    TypingStop,
}

/// Messages that one event or call marks as read.
pub const MAX_READ_IDS: usize = 500;

/// What an acknowledgement says besides `ok: true`.
pub(in crate::command) type Reply = Map<String, Value>;

impl MessageEvent {
    /// The events by their names.
    pub(in crate::command) fn all(names: &EventNames) -> [(&str, Self); 6] {
        [
            (&names.send, Self::Send),
            (&names.read, Self::Read),
            (&names.delete, Self::Delete),
            (&names.block, Self::Block),
            (&names.typing_start, Self::TypingStart),
            (&names.typing_stop, Self::TypingStop),
        ]
        .map(|(name, event)| (name.as_str(), event))
    }
}

impl Commands {
    /// Does what a device asked for about messages.
    pub(in crate::command) async fn message_event(
        &self,
        admission: &Admission,
        identity: &Identity,
        event: MessageEvent,
        argument: Option<&RawValue>,
        answer: Option<DirectAnswer>,
    ) -> Result<Reply, EventRefused> {
        let device = self.message_device(identity, Some(admission.id()))?;
        let argument = argument.map(|raw| serde_json::from_str::<Value>(raw.get())).transpose();
        let argument = argument.ok().flatten().unwrap_or_default();
        match event {
            MessageEvent::TypingStart | MessageEvent::TypingStop => {
                let peer = typed_to(&argument)?;
                let peer = user("receiverId", &peer).map_err(Error::from)?;
                if event == MessageEvent::TypingStop {
                    device.messages().typing_ended(admission, &peer).await;
                } else {
                    let needs_grant = device.needs_grant(&peer);
                    device.messages().typing(admission, &peer, needs_grant).await.map_err(Error::from)?;
                }
                Ok(Reply::new())
            }
            MessageEvent::Send => sent(&device, &object(argument)?, answer).await,
            MessageEvent::Read => read(&device, &object(argument)?).await,
            MessageEvent::Delete => {
                let id = text(&object(argument)?, "messageId")?.ok_or_else(|| missing("messageId"))?;
                device.delete(message_id(&id)?).await?;
                Ok(Reply::new())
            }
            MessageEvent::Block => block(&device, &object(argument)?).await,
        }
    }
}

async fn sent(device: &MessageDevice<'_>, fields: &Reply, answer: Option<DirectAnswer>) -> Result<Reply, EventRefused> {
    let names = &device.messages().config().fields;
    let new = NewMessage {
        receiver: text(fields, &names.receiver_id)?.ok_or_else(|| missing(&names.receiver_id))?,
        content: content(fields, &names.text)?,
        transaction: text(fields, &names.transaction_id)?,
        listing: text(fields, &names.listing_id)?,
        client_message_id: text(fields, &names.client_message_id)?,
    };
    let sent = device.send(new, answer).await?;
    Ok(Reply::from_iter([("message".to_owned(), json!(device.messages().body(&sent.message)))]))
}

async fn read(device: &MessageDevice<'_>, fields: &Reply) -> Result<Reply, EventRefused> {
    let count = match (fields.get("messageIds"), text(fields, "userId")?) {
        (Some(Value::Array(ids)), None) if !ids.is_empty() && ids.len() <= MAX_READ_IDS => {
            let ids = ids.iter().map(|id| message_id(id.as_str().unwrap_or_default()));
            device.read(&ids.collect::<Result<Vec<_>, _>>()?).await?
        }
        (None, Some(peer)) => {
            let peer = user("userId", &peer).map_err(Error::from)?;
            device.read_conversation(&peer).await?
        }
        _ => {
            let problem = format!("the event takes {{ messageIds: [1 to {MAX_READ_IDS} ids] }} or {{ userId: \"…\" }}");
            return Err(EventRefused::Argument(problem));
        }
    };
    Ok(Reply::from_iter([("count".to_owned(), count.into())]))
}

async fn block(device: &MessageDevice<'_>, fields: &Reply) -> Result<Reply, EventRefused> {
    let peer = text(fields, "userId")?.ok_or_else(|| missing("userId"))?;
    let peer = user("userId", &peer).map_err(Error::from)?;
    let is_blocked = match fields.get("blocked") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(is_blocked)) => *is_blocked,
        Some(_) => return Err(EventRefused::Argument("blocked is neither true nor false".into())),
    };
    device.block(&peer, is_blocked).await?;
    Ok(Reply::new())
}

fn object(argument: Value) -> Result<Reply, EventRefused> {
    if let Value::Object(fields) = argument {
        return Ok(fields);
    }
    Err(EventRefused::Argument("the event takes one argument, an object".into()))
}

/// What a message says: a text.
fn content(fields: &Reply, name: &str) -> Result<String, EventRefused> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Err(missing(name)),
        Some(_) => Err(EventRefused::Argument(format!("{name} is no text"))),
    }
}

/// A text, or an integer as one. None: there is no such field, or it is null or empty.
fn text(fields: &Reply, name: &str) -> Result<Option<String>, EventRefused> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match text_of(value) {
            Some(text) => Ok(Some(text.into_owned()).filter(|text| !text.is_empty())),
            None => Err(EventRefused::Argument(format!("{name} is no text"))),
        },
    }
}

/// The user to whom a device types: the argument itself, or its `receiverId`.
fn typed_to(argument: &Value) -> Result<String, EventRefused> {
    let id = argument.get("receiverId").unwrap_or(argument);
    let id = text_of(id).ok_or_else(|| EventRefused::Argument("the event takes one argument, a user's id".into()))?;
    Ok(id.into_owned())
}

fn missing(field: &str) -> EventRefused {
    EventRefused::Argument(format!("{field} is missing"))
}

fn message_id(text: &str) -> Result<MessageId, EventRefused> {
    text.parse().map_err(|invalid| EventRefused::Argument(format!("messageId {invalid}")))
}
