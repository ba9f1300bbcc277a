use std::sync::Arc;

use super::accepted::Accepted;
use crate::message::RoomName;
use crate::store::NewDirect;

/// What the append of a direct message stores besides the emit to its receiver.
pub(super) struct DirectAppend {
    pub(super) new: Arc<NewDirect>,
    /// The emit to the sender's devices. None: the append was written, and the copy is published by itself.
    pub(super) copy: Option<Accepted>,
}

impl DirectAppend {
    /// What it takes up while it waits.
    pub(super) fn bytes(&self) -> usize {
        let copy = self.copy.as_ref().map_or(0, |copy| copy.emit.bytes());
        size_of::<Self>() + copy + self.new.content.len()
    }

    /// The room of the copy.
    pub(super) fn room(&self) -> RoomName {
        RoomName::of_user(&self.new.sender)
    }
}
