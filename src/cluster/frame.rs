use std::{sync::Arc, time::Duration};

use crate::message::{
    Ack, ConnectionId, ConnectionInfo, Emit, MessageId, NodeStats, Page, Position, RoomName, RoomUsers, UserId,
};

use super::sketch::Sketch;

/// What a node asks those that have something to do with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Send an event to the connections of its room.
    Emit(Box<EmitFrame>),
    /// Close a user's connections but these.
    Disconnect {
        /// The user.
        user: UserId,
        /// What devices are told.
        reason: Arc<str>,
        /// Connections that stay.
        except: Vec<ConnectionId>,
    },
    /// Put a user's connections into a room, for this time.
    Join(UserId, RoomName, Duration),
    /// Take a user's connections out of a room where a `Join` has put them.
    Leave(UserId, RoomName),
    /// Take a user's connections out of a room that they joined by events.
    Forbid(UserId, RoomName),
    /// Count a user's connections.
    CountUser(UserId),
    /// List a user's connections.
    GetUser(UserId),
    /// List the users of a room, from the first one after a name.
    GetRoom(RoomName, String, usize),
    /// List users, from the first one after a name.
    ListUsers(String, usize),
    /// List the rooms with a prefix, from the first one after a name.
    ListRooms(String, String, usize),
    /// Count everything.
    Stats,
    /// An event is collapsed from now on.
    Collapses(crate::message::EventName),
    /// A room's mailbox has messages up to this position, some of which may not have come in frames.
    Wake(RoomName, Position),
    /// Tell these users in a room how many of its messages they have not read.
    Unread(RoomName, Vec<UserId>),
}

/// An emit as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct EmitFrame {
    /// Its message's id.
    pub id: MessageId,
    /// The payload is as it is sent.
    pub emit: Emit,
    /// It has an idempotency key of all nodes, and is not sent again by a node that has executed this id.
    pub once: bool,
    /// Where its message is in the room's mailbox; none: it is not stored.
    pub stored: Option<Position>,
}

/// A node's answer to a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// What became of an emit.
    Counts(Counts),
    /// How many connections were closed, joined, left or counted.
    Count(u64),
    /// A user's connections.
    Connections(Vec<ConnectionInfo>),
    /// Users of a room, and who all of them are.
    Room(RoomUsers, Sketch),
    /// A part of a list, by name.
    Page(Page<String>),
    /// How much there is: with the users and the rooms.
    Stats(NodeStats, Sketch, Sketch),
    /// The frame was too old when it came, and was not executed.
    Late,
    /// The frame cannot be understood: the node has another version.
    Refused,
}

/// What became of an emit at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections in the audience.
    pub matched: u64,
    /// Of those, the ones whose queue accepted the event.
    pub enqueued: u64,
    /// Of those, the ones whose queue rejected it.
    pub dropped: u64,
    /// The connections that were asked for an acknowledgement.
    pub asked: Vec<(UserId, ConnectionId)>,
    /// It was executed before, and is not sent again: all this was so then.
    pub is_repeated: bool,
}

/// The acknowledgements of one node.
pub type AckPart = Vec<Ack>;

impl Frame {
    /// The room whose nodes the frame is for; none: all.
    pub(super) fn room(&self) -> Option<RoomName> {
        match self {
            Self::Emit(frame) => Some(frame.emit.audience.room().clone()),
            Self::Disconnect { user, .. }
            | Self::Join(user, ..)
            | Self::Leave(user, _)
            | Self::Forbid(user, _)
            | Self::CountUser(user)
            | Self::GetUser(user) => Some(RoomName::of_user(user)),
            Self::GetRoom(room, ..) | Self::Wake(room, _) | Self::Unread(room, _) => Some(room.clone()),
            Self::ListUsers(..) | Self::ListRooms(..) | Self::Stats | Self::Collapses(_) => None,
        }
    }

    /// Whether it is of use however late it comes: what is stored is sent all the same.
    pub(super) fn is_never_late(&self) -> bool {
        match self {
            Self::Emit(frame) => frame.stored.is_some(),
            Self::Wake(..) | Self::Unread(..) => true,
            Self::Disconnect { .. }
            | Self::Join(..)
            | Self::Leave(..)
            | Self::Forbid(..)
            | Self::CountUser(_)
            | Self::GetUser(_)
            | Self::GetRoom(..)
            | Self::ListUsers(..)
            | Self::ListRooms(..)
            | Self::Stats
            | Self::Collapses(_) => false,
        }
    }

    /// The name in metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Emit(..) => "emit",
            Self::Disconnect { .. } => "disconnect",
            Self::Join(..) | Self::Leave(..) | Self::Forbid(..) => "rooms",
            Self::CountUser(_) | Self::GetUser(_) | Self::GetRoom(..) => "presence",
            Self::ListUsers(..) | Self::ListRooms(..) | Self::Stats => "list",
            Self::Collapses(_) => "collapses",
            Self::Wake(..) => "wake",
            Self::Unread(..) => "unread",
        }
    }
}
