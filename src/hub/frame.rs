use crate::message::{EventName, Payload};

/// An event on its way: made once for an emit, shared by all who get it.
#[derive(Debug)]
pub struct Frame {
    /// What the device listens for.
    pub event: EventName,
    /// The event's argument.
    pub payload: Payload,
    /// A full queue loses the frame instead of the connection.
    pub volatile: bool,
}

impl Frame {
    /// A frame that must arrive.
    pub fn new(event: EventName, payload: Payload) -> Self {
        Self { event, payload, volatile: false }
    }

    /// About what it takes up while it waits, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.event.as_str().len() + self.payload.len()
    }
}
