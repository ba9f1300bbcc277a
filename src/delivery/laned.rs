//! What waits for its room in a frame lane.

use super::accepted::Accepted;
use crate::cluster::{EmitFrame, Frame, Kept, Received, Responder, Waiting};
use crate::message::Position;

/// What waits for its room.
pub(super) enum Laned {
    /// A frame that came.
    Frame(Received),
    /// The same of an emit that could not be executed at once.
    Emit(Emitted, Responder, Waiting),
    /// What the room's history has up to this message.
    Fill(Kept),
}

/// An emit that another node has accepted, or this one.
pub(super) enum Emitted {
    Plain(Box<Accepted>),
    Stored(Box<StoredFrame>),
}

/// A stored message that came in a frame.
pub(super) struct StoredFrame {
    pub(super) accepted: Accepted,
    pub(super) position: Position,
}

impl Laned {
    /// Where the message stands that it brings, if it is a stored one.
    pub(super) fn stored(&self) -> Option<&Position> {
        match self {
            Self::Frame(Received { frame: Frame::Emit(frame), .. }) => frame.stored.as_ref(),
            Self::Emit(Emitted::Stored(frame), ..) => Some(&frame.position),
            Self::Frame(_) | Self::Emit(Emitted::Plain(_), ..) | Self::Fill(_) => None,
        }
    }
}

impl Emitted {
    /// `change`: the number of the change that it brings to what its room retains; `kept`: its place in the room's history.
    pub(super) fn new(EmitFrame { id, emit, once, stored }: EmitFrame, change: u64, kept: Option<Kept>) -> Self {
        let accepted = Accepted { kept, ..Accepted::by_peer(id, emit, once, change) };
        match stored {
            None => Self::Plain(Box::new(accepted)),
            Some(position) => Self::Stored(Box::new(StoredFrame { accepted, position })),
        }
    }
}
