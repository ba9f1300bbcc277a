use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Error, Field, MAX_CONTENT, Messages, wire::payload};
use crate::delivery::{DirectAnswer, DirectEmit, SendingConnection};
use crate::message::{ConnectionId, DirectMessage, Topic, UserId};
use crate::store::{IdempotencyKey, NewDirect, Render};

/// A message that is to be sent.
#[derive(Clone, Debug)]
pub struct SendMessage {
    /// Who writes it.
    pub sender: UserId,
    /// For whom it is.
    pub receiver: UserId,
    /// What it says.
    pub content: Arc<str>,
    /// What it is about.
    pub topic: Topic,
    /// The device's own id of it: what is sent again under the same one within 24 hours is answered with the first message.
    pub client_message_id: Option<Arc<str>>,
    /// The connection that has sent it, which gets it as the answer instead of an event.
    pub connection: Option<ConnectionId>,
    /// It is sent only if a backend allows the conversation.
    pub needs_grant: bool,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The message.
    pub message: Arc<DirectMessage>,
    /// It was sent before, under the same id of the device's.
    pub is_repeated: bool,
}

impl Messages {
    /// Stores a message, and sends it to the receiver's devices and to the sender's others. `answer` answers the connection that has sent it, in the
    /// order of the events that it gets. It is dropped if that cannot be done in time: then the caller answers.
    pub async fn send(&self, send: SendMessage, answer: Option<DirectAnswer>) -> Result<Sent, Error> {
        check(&send)?;
        let inner = &self.inner;
        inner.sends.take(&send.sender).map_err(Error::too_fast("messages.rate"))?;
        let sides = (send.sender.clone(), send.receiver.clone());
        inner.conversations.take(&sides).map_err(Error::too_fast("messages.conversation_rate"))?;
        let key = key(&send);
        let SendMessage { sender, receiver, content, topic, connection, needs_grant, .. } = send;
        let names = inner.config.fields.clone();
        let render = Render(Arc::new(move |message: &DirectMessage| payload(&names.body(message))));
        let new = NewDirect { sender, receiver, content, topic, needs_grant, render };
        let connection = connection.map(|id| SendingConnection { id, answer });
        let direct = DirectEmit { event: inner.events.received.clone(), new, connection, key };
        let (receipt, _) = inner.delivery.publish_direct(direct).await?;
        if let Some(message) = receipt.direct {
            return Ok(Sent { message, is_repeated: false });
        }
        let first = inner.store.direct_message(receipt.message_id).await?;
        Ok(Sent { message: first.ok_or(Error::Deleted)?.into(), is_repeated: true })
    }
}

fn check(send: &SendMessage) -> Result<(), Error> {
    if send.sender == send.receiver {
        return Err(Error::invalid(Field::Receiver, "is the sender: write to another user"));
    }
    let length = send.content.chars().take(MAX_CONTENT + 1).count();
    if length == 0 {
        return Err(Error::invalid(Field::Content, format!("is empty: give 1 to {MAX_CONTENT} characters")));
    }
    if length > MAX_CONTENT {
        return Err(Error::invalid(Field::Content, format!("has more than {MAX_CONTENT} characters")));
    }
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if let Some(position) = send.content.chars().position(is_control) {
        let problem = format!("has a control character at position {position}: only newlines and tabs are allowed");
        return Err(Error::invalid(Field::Content, problem));
    }
    Ok(())
}

/// One device's id stands for one message of a conversation.
fn key(send: &SendMessage) -> Option<IdempotencyKey> {
    let key = send.client_message_id.clone()?;
    let mut hash = Sha256::new();
    let SendMessage { sender, receiver, content, topic, .. } = send;
    let named = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
    // Each part is preceded by its length, so that none runs into the next.
    for part in [&**content, &named(&topic.transaction), &named(&topic.listing)] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    // Names of API keys have no line breaks, nor have users.
    let caller = format!("messages\n{sender}\n{receiver}").into();
    Some(IdempotencyKey { caller, key, request_hash: hash.finalize().into() })
}
