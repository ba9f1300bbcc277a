//! Direct messages that are not published in their senders' rooms yet. The connection that has sent one is answered where the message stands among the
//! others of its user's room, in place of the event.

use std::{collections::HashMap, convert::Infallible};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::message::{ConnectionId, MessageId, Payload, RoomName};

/// Answers a connection whose message is published. It gets the event's payload, and must not wait: the room is locked.
pub type DirectAnswer = Box<dyn FnOnce(&Payload) + Send>;

/// The connection that has sent a direct message.
pub struct SendingConnection {
    /// Its id.
    pub id: ConnectionId,
    /// How it is answered, if it asked for that.
    pub answer: Option<DirectAnswer>,
}

/// Messages that connections of this node have sent and that are not published in their senders' rooms yet.
#[derive(Default)]
pub(super) struct Sendings(Mutex<HashMap<MessageId, Sending>>);

struct Sending {
    room: RoomName,
    /// None: a backend or a request over REST has sent it.
    connection: Option<SendingConnection>,
    /// It is dropped with this.
    _published: oneshot::Sender<Infallible>,
}

impl Sendings {
    /// Notes a message that is going to be published in its sender's room. The receiver fails when it is.
    pub(super) fn begin(
        &self,
        id: MessageId,
        room: RoomName,
        connection: Option<SendingConnection>,
    ) -> oneshot::Receiver<Infallible> {
        let (sender, published) = oneshot::channel();
        self.0.lock().insert(id, Sending { room, connection, _published: sender });
        published
    }

    /// Answers the connection that has sent a message, which is published in a locked room now. Returns the connection, if there is
    /// one and the room is the sender's: it gets no event.
    pub(super) fn publish(&self, id: MessageId, room: &RoomName, payload: &Payload) -> Option<ConnectionId> {
        let mut sendings = self.0.lock();
        if sendings.get(&id)?.room != *room {
            return None;
        }
        let sending = sendings.remove(&id)?;
        drop(sendings);
        let SendingConnection { id, answer } = sending.connection?;
        if let Some(answer) = answer {
            answer(payload);
        }
        Some(id)
    }

    /// Forgets a message that is not published, or not in time.
    pub(super) fn forget(&self, id: MessageId) {
        drop(self.0.lock().remove(&id));
    }
}
