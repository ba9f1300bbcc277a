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
    /// It was there before the device: that it waits does not make the device slow.
    pub on_join: bool,
}

impl Frame {
    /// A frame that must arrive.
    pub fn new(event: EventName, payload: Payload) -> Self {
        Self { event, payload, volatile: false, on_join: false }
    }

    /// A frame for whoever has just joined.
    pub fn on_join(event: EventName, payload: Payload) -> Self {
        Self { on_join: true, ..Self::new(event, payload) }
    }

    /// About what it takes up while it waits, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.event.as_str().len() + self.payload.len()
    }
}
