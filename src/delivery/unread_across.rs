//! Counts of unread messages, told by every node to its devices.

use std::{collections::HashMap, time::Duration};

use super::Delivery;
use crate::cluster::Frame;
use crate::message::{RoomName, UserId};
use crate::store::{Error, Store};

/// Users of one frame, and of one page of a room's.
const USERS: usize = 500;
/// Nodes count in the store before they answer.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// A count is made again so often if messages are published meanwhile.
const MAX_COUNTS: u32 = 5;

impl Delivery {
    /// Has each node tell devices of these users in a room how many messages they have not read. Without the engine this node does.
    pub(super) async fn tell_unread(&self, room: &RoomName, users: Vec<UserId>) {
        for users in users.chunks(USERS) {
            let told = self.ask_within(Frame::Unread(room.clone(), users.to_vec()), TOLD_WITHIN);
            if told.await.is_err() {
                self.send_unread_here(room, users.to_vec()).await;
            }
        }
    }

    /// Tells this node's devices of users in a room how many messages they have not read, of those that were published here. Says how many users
    /// have one.
    pub(super) async fn send_unread_here(&self, room: &RoomName, mut users: Vec<UserId>) -> u64 {
        users.retain(|user| self.hub().of_user(user).iter().any(|member| member.is_in(room)));
        let count = users.len() as u64;
        let Some(store) = self.store().filter(|_| count > 0).cloned() else {
            return count;
        };
        let (delivery, name) = (self.clone(), room.clone());
        // Of several counts the last one that a device hears is right.
        let sending = async move {
            if let Err(error) = delivery.count_and_send(&name, &store, &users).await {
                tracing::debug!(%error, "devices are not told how many messages are unread");
            }
        };
        let _ = self.in_lane(room, sending).await;
        count
    }

    async fn count_and_send(&self, room: &RoomName, store: &Store, users: &[UserId]) -> Result<(), Error> {
        for round in 1..=MAX_COUNTS {
            let head = self.log_head_now(room, store).await?;
            let counts = store.count_unread_up_to(room, users, head).await?;
            if round < MAX_COUNTS && self.hub().log_head(room).is_some_and(|now| now != head) {
                continue;
            }
            self.send_unread_to_all(room, &users.iter().zip(counts).collect::<HashMap<_, _>>()).await;
            break;
        }
        Ok(())
    }

    /// Up to where a room is published here, or would be if a device were there.
    async fn log_head_now(&self, room: &RoomName, store: &Store) -> Result<u64, Error> {
        match self.hub().log_head(room) {
            Some(head) => Ok(head),
            None => Ok(store.mailbox(room).await?.unwrap_or_default().last),
        }
    }

    /// The users with a connection in a room, on all nodes that answer.
    pub(super) async fn users_in(&self, room: &RoomName) -> Vec<UserId> {
        let (mut users, mut after) = (Vec::new(), String::new());
        while !self.is_alone()
            && let Ok(listed) = self.list_room(room, &after, USERS).await
            && let Some(listed) = listed.answer
        {
            users.extend(listed.page.items.into_iter().map(|(user, _)| user));
            match users.last().filter(|_| listed.page.more) {
                Some(last) => after = last.to_string(),
                None => break,
            }
        }
        users.extend(self.hub().members(room).iter().map(|member| member.user().clone()));
        users.sort_unstable();
        users.dedup();
        users
    }
}
