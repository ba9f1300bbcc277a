use std::net::IpAddr;

use jiff::Timestamp;

use super::{Delivery, NODE};
use crate::cluster::BusError;
use crate::hub::Member;
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
    pub async fn disconnect_user(
        &self,
        user: &UserId,
        reason: &CloseReason,
        except: &[ConnectionId],
    ) -> Result<usize, BusError> {
        let closing = || {
            let members = self.hub().of_user(user);
            let closed = members.iter().filter(|member| !except.contains(&member.id()));
            closed.filter(|member| self.hub().close(member, reason)).count()
        };
        self.inner.bus.ask(closing).await
    }

    /// A user's connections, ordered by id.
    pub async fn connections_of(&self, user: &UserId) -> Result<Vec<ConnectionInfo>, BusError> {
        let listing = || {
            let mut members = self.hub().of_user(user);
            members.sort_by_key(|member| member.id());
            members.iter().map(|member| ConnectionInfo::of(member)).collect()
        };
        self.inner.bus.ask(listing).await
    }

    /// How many connections each of these users has.
    pub async fn connection_counts(&self, users: Vec<UserId>) -> Result<Vec<(UserId, usize)>, BusError> {
        let counted = |user| {
            let count = self.hub().of_user(&user).len();
            (user, count)
        };
        self.inner.bus.ask(|| users.into_iter().map(counted).collect()).await
    }

    /// The users with a connection, ordered by id, from the first one after `after`.
    pub async fn list_users(&self, after: &str, size: usize) -> Result<Page<UserId>, BusError> {
        self.inner.bus.ask(|| self.hub().list_users(after, size)).await
    }

    /// The rooms with a connection whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub async fn list_rooms(&self, prefix: &str, after: &str, size: usize) -> Result<Page<RoomName>, BusError> {
        self.inner.bus.ask(|| self.hub().list_rooms(prefix, after, size)).await
    }

    /// The users in a room, ordered by id, from the first one after `after`; none if nobody is in it.
    pub async fn list_room(&self, room: &RoomName, after: &str, size: usize) -> Result<Option<RoomUsers>, BusError> {
        self.inner.bus.ask(|| self.hub().list_room(room, after, size)).await
    }

    /// How much of everything there is on all nodes.
    pub async fn stats(&self) -> Result<Stats, BusError> {
        self.inner.bus.ask(|| self.own_stats()).await
    }

    /// How much of everything there is on this node.
    pub fn own_stats(&self) -> Stats {
        let hub = self.hub();
        Stats { node: NODE, users: hub.users(), connections: hub.connections(), rooms: hub.rooms() }
    }
}

impl ConnectionInfo {
    fn of(member: &Member) -> Self {
        let connection = member.connection();
        let mut rooms = member.rooms();
        rooms.sort();
        Self {
            id: member.id(),
            node: NODE,
            transport: connection.transport(),
            rooms,
            connected_at: connection.connected_at(),
            address: connection.address(),
            user_agent: connection.user_agent().to_owned(),
        }
    }
}
