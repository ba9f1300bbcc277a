use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::Delivery;
use crate::cluster::{Answer, BusError, Frame, Sketch};
use crate::hub::Member;
use crate::message::{
    CloseReason, ConnectionId, ConnectionInfo, NodeStats, OfNodes, Page, RoomName, RoomUsers, Stats, UserId,
};

impl Delivery {
    /// Closes a user's connections but the excepted ones, and says how many that were.
    pub async fn disconnect_user(
        &self,
        user: &UserId,
        reason: &CloseReason,
        except: &[ConnectionId],
    ) -> Result<OfNodes<usize>, BusError> {
        if self.is_alone() {
            return Ok(OfNodes::of_one(self.disconnect_here(user, reason, except)));
        }
        let (user, reason, except) = (user.clone(), reason.text.clone(), except.to_vec());
        self.count(Frame::Disconnect { user, reason, except }).await
    }

    /// The same of this node's connections.
    pub(super) fn disconnect_here(&self, user: &UserId, reason: &CloseReason, except: &[ConnectionId]) -> usize {
        let members = self.hub().of_user(user);
        let closed = members.iter().filter(|member| !except.contains(&member.id()));
        closed.filter(|member| self.hub().close(member, reason)).count()
    }

    /// A user's connections, ordered by id.
    pub async fn connections_of(&self, user: &UserId) -> Result<OfNodes<Vec<ConnectionInfo>>, BusError> {
        if self.is_alone() {
            return Ok(OfNodes::of_one(self.connections_here(user)));
        }
        let answers = self.ask(Frame::GetUser(user.clone())).await?;
        Ok(answers.map(|answers| {
            let mut all = Vec::new();
            for answer in answers {
                if let Answer::Connections(connections) = answer {
                    all.extend(connections);
                }
            }
            all.sort_by_key(|connection| connection.id);
            all
        }))
    }

    /// The same of this node's connections.
    pub(super) fn connections_here(&self, user: &UserId) -> Vec<ConnectionInfo> {
        let mut members = self.hub().of_user(user);
        members.sort_by_key(|member| member.id());
        members.iter().map(|member| self.info_of(member)).collect()
    }

    /// How many connections each of these users has.
    pub async fn connection_counts(&self, users: Vec<UserId>) -> Result<OfNodes<Vec<(UserId, usize)>>, BusError> {
        if self.is_alone() {
            let counted = |user| {
                let count = self.hub().of_user(&user).len();
                (user, count)
            };
            return Ok(OfNodes::of_one(users.into_iter().map(counted).collect()));
        }
        let counts = join_all(users.iter().map(|user| self.count(Frame::CountUser(user.clone())))).await;
        let mut all = OfNodes { answer: Vec::with_capacity(users.len()), nodes: 0, partial: false };
        for (user, count) in users.into_iter().zip(counts) {
            let OfNodes { answer, nodes, partial } = count?;
            all.answer.push((user, answer));
            all.nodes = all.nodes.max(nodes);
            all.partial |= partial;
        }
        Ok(all)
    }

    /// The users with a connection, ordered by id, from the first one after `after`.
    pub async fn list_users(&self, after: &str, size: usize) -> Result<OfNodes<Page<UserId>>, BusError> {
        if self.is_alone() {
            return Ok(OfNodes::of_one(self.hub().list_users(after, size)));
        }
        let answers = self.ask(Frame::ListUsers(after.to_owned(), size)).await?;
        Ok(answers.map(|answers| merged(answers, size, |name| UserId::new(name).ok())))
    }

    /// The rooms with a connection whose names begin with `prefix`, ordered by name, from the first one after `after`.
    pub async fn list_rooms(
        &self,
        prefix: &str,
        after: &str,
        size: usize,
    ) -> Result<OfNodes<Page<RoomName>>, BusError> {
        if self.is_alone() {
            return Ok(OfNodes::of_one(self.hub().list_rooms(prefix, after, size)));
        }
        let answers = self.ask(Frame::ListRooms(prefix.to_owned(), after.to_owned(), size)).await?;
        Ok(answers.map(|answers| merged(answers, size, |name| RoomName::new(name).ok())))
    }

    /// The users in a room, ordered by id, from the first one after `after`; none if nobody is in it.
    pub async fn list_room(
        &self,
        room: &RoomName,
        after: &str,
        size: usize,
    ) -> Result<OfNodes<Option<RoomUsers>>, BusError> {
        if self.is_alone() {
            return Ok(OfNodes::of_one(self.hub().list_room(room, after, size)));
        }
        let answers = self.ask(Frame::GetRoom(room.clone(), after.to_owned(), size)).await?;
        Ok(answers.map(|answers| merged_room(answers, size)))
    }

    /// The same of this node's connections, and who all of the users are.
    pub(super) fn room_here(&self, room: &RoomName, after: &str, size: usize) -> (RoomUsers, Sketch) {
        let nobody = || RoomUsers { page: Page { items: Vec::new(), more: false }, users: 0, connections: 0 };
        let users = self.hub().list_room(room, after, size).unwrap_or_else(nobody);
        let members = self.hub().members(room);
        (users, Sketch::of(members.iter().map(|member| member.user().as_str())))
    }

    /// How much of everything there is on all nodes.
    pub async fn stats(&self) -> Result<OfNodes<Stats>, BusError> {
        if self.is_alone() {
            let own = self.own_stats();
            let NodeStats { users, connections, rooms, .. } = own;
            return Ok(OfNodes::of_one(Stats { users, connections, rooms, nodes: vec![own] }));
        }
        Ok(self.ask(Frame::Stats).await?.map(merged_stats))
    }

    /// How much of everything there is on this node.
    pub fn own_stats(&self) -> NodeStats {
        let hub = self.hub();
        let [users, connections, rooms] = [hub.users(), hub.connections(), hub.rooms()].map(|count| count as u64);
        NodeStats { node: self.inner.node.clone(), users, connections, rooms }
    }

    /// The same with who the users are, and which rooms there are.
    pub(super) fn stats_here(&self) -> Answer {
        let (mut users, mut rooms) = (Sketch::default(), Sketch::default());
        self.hub().for_each_room(|room| {
            rooms.add(room.as_str());
            room.user().into_iter().for_each(|user| users.add(user));
        });
        Answer::Stats(self.own_stats(), users, rooms)
    }

    fn info_of(&self, member: &Member) -> ConnectionInfo {
        let connection = member.connection();
        let mut rooms = member.rooms();
        rooms.sort();
        ConnectionInfo {
            id: member.id(),
            node: self.inner.node.clone(),
            transport: connection.transport(),
            rooms,
            connected_at: connection.connected_at(),
            address: connection.address(),
            user_agent: connection.user_agent().to_owned(),
        }
    }
}

fn merged<K>(answers: Vec<Answer>, size: usize, name: impl Fn(&str) -> Option<K>) -> Page<K> {
    let mut pages = Vec::new();
    for answer in answers {
        if let Answer::Page(page) = answer {
            pages.push(page);
        }
    }
    let page = Page::merged(pages, size);
    // Nodes tell names that they have checked.
    page.named(name).unwrap_or(Page { items: Vec::new(), more: false })
}

fn merged_room(answers: Vec<Answer>, size: usize) -> Option<RoomUsers> {
    let (mut pages, mut users, mut connections) = (Vec::new(), Sketch::default(), 0);
    for answer in answers {
        if let Answer::Room(room, sketch) = answer {
            connections += room.connections;
            users.merge(sketch);
            pages.push(room.page.into_texts());
        }
    }
    let page = Page::merged(pages, size).named(|name| UserId::new(name).ok())?;
    let users = usize::try_from(users.count()).unwrap_or(usize::MAX);
    (connections > 0).then_some(RoomUsers { page, users, connections })
}

fn merged_stats(answers: Vec<Answer>) -> Stats {
    let (mut users, mut rooms, mut connections) = (Sketch::default(), Sketch::default(), 0);
    let mut nodes = BTreeMap::new();
    for answer in answers {
        if let Answer::Stats(stats, of_users, of_rooms) = answer {
            users.merge(of_users);
            rooms.merge(of_rooms);
            connections += stats.connections;
            nodes.insert(stats.node.clone(), stats);
        }
    }
    Stats { users: users.count(), connections, rooms: rooms.count(), nodes: nodes.into_values().collect() }
}
