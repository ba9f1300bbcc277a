use std::sync::Arc;

use super::accepted::Accepted;
use crate::message::RoomName;
use crate::store::NewDirect;

/// What the append of a direct message stores besides the emit to its receiver.
pub(super) struct DirectAppend {
    pub(super) new: Arc<NewDirect>,
    /// The emit to the sender's devices.
    pub(super) copy: Accepted,
}

impl DirectAppend {
    /// What it takes up while it waits.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.copy.emit.bytes() + self.new.content.len()
    }

    /// The room of the copy.
    pub(super) fn room(&self) -> &RoomName {
        self.copy.room()
    }
}
