use std::net::IpAddr;

use jiff::Timestamp;

use super::{Delivery, NODE};
use crate::message::{CloseReason, ConnectionId, Page, RoomName, RoomUsers, Transport, UserId};

/// What can be told of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The node that holds it.
    pub node: &'static str,
    /// How it is connected now.
    pub transport: Transport,
    /// The rooms that it is in, ordered by name.
    pub rooms: Vec<RoomName>,
    /// Since when.
    pub connected_at: Timestamp,
    /// Where the device is.
    pub address: IpAddr,
    /// The device's User-Agent; may be empty.
    pub user_agent: String,
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// The node that counted.
    pub node: &'static str,
    /// Users with a connection.
    pub users: usize,
    /// Connections.
    pub connections: usize,
    /// Rooms with a connection.
    pub rooms: usize,
}

impl Delivery {
    /// Closes a user's connections but the excepted ones, and says how many that were.
    pub fn disconnect_user(&self, user: &UserId, reason: &CloseReason, except: &[ConnectionId]) -> usize {
        let members = self.hub().of_user(user);
        let closed = members.iter().filter(|member| !except.contains(&member.id()));
        closed.filter(|member| self.hub().close(member, reason)).count()
    }

    /// A user's connections, ordered by id.
    pub fn connections_of(&self, user: &UserId) -> Vec<ConnectionInfo> {
        let mut members = self.hub().of_user(user);
        members.sort_by_key(|member| member.id());
        let info = |member: &std::sync::Arc<crate::hub::Member>| {
            let connection = member.connection();
            let mut rooms = member.rooms();
            rooms.sort();
            ConnectionInfo {
                id: member.id(),
                node: NODE,
                transport: connection.transport(),
                rooms,
                connected_at: connection.connected_at(),
                address: connection.address(),
                user_agent: connection.user_agent().to_owned(),
            }
        };
        members.iter().map(info).collect()
    }

    /// How many connections a user has.
    pub fn connection_count(&self, user: &UserId) -> usize {
        self.hub().of_user(user).len()
    }

    /// The users with a connection, ordered by id, from the first one after `after`.
    pub fn list_users(&self, after: &str, size: usize) -> Page<UserId> {
        self.hub().list_users(after, size)
    }

    /// The rooms with a connection whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub fn list_rooms(&self, prefix: &str, after: &str, size: usize) -> Page<RoomName> {
        self.hub().list_rooms(prefix, after, size)
    }

    /// The users in a room, ordered by id, from the first one after `after`; none if nobody is in it.
    pub fn list_room(&self, room: &RoomName, after: &str, size: usize) -> Option<RoomUsers> {
        self.hub().list_room(room, after, size)
    }

    /// How much of everything there is.
    pub fn stats(&self) -> Stats {
        let hub = self.hub();
        Stats { node: NODE, users: hub.users(), connections: hub.connections(), rooms: hub.rooms() }
    }
}
