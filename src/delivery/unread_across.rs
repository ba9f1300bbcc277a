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
    /// were told.
    pub(super) async fn send_unread_here(&self, room: &RoomName, mut users: Vec<UserId>) -> u64 {
        users.retain(|user| self.hub().of_user(user).iter().any(|member| member.is_in(room)));
        let count = users.len() as u64;
        let Some(store) = self.store().filter(|_| count > 0).cloned() else {
            return 0;
        };
        let (delivery, name) = (self.clone(), room.clone());
        // Of several counts the last one that a device hears is right.
        let sending = async move { delivery.count_and_send(&name, &store, &users).await };
        let error = match self.in_lane(room, sending).await {
            Some(Ok(())) => return count,
            Some(Err(error)) => Some(error),
            None => None,
        };
        if let Some(failures) = self.inner.untold_counts.note() {
            let error = error.as_ref().map(tracing::field::display);
            tracing::warn!(
                error,
                room.name = %room,
                failures,
                "devices are not told how many messages are unread, as the room has too much work or the store cannot be read"
            );
        }
        0
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::delivery::{Deps, tests::deps};
    use crate::hub::fake::{Behaviour, FakeConnection};
    use crate::lifecycle::Lifecycle;
    use crate::store::{self, Sharing};

    struct Device;

    impl Behaviour for Device {}

    #[tokio::test]
    async fn a_count_that_is_not_sent_is_not_answered_as_told() {
        let (config, lifecycle) = (Config::defaults().unwrap(), Lifecycle::new());
        let stored =
            store::Config { url: "sqlite::memory:".into(), max_age: Duration::from_hours(1), max_messages: 100 };
        let store = Store::open(&stored, Sharing::Single, Clock::system(), &lifecycle).unwrap();
        let delivery = Delivery::new(Deps { store: Some(store.clone()), ..deps(&config, &lifecycle) });
        let (room, user) = (RoomName::new("team").unwrap(), UserId::new("42").unwrap());
        let device = Arc::new(FakeConnection::new(Device));
        let admission = delivery.admit(user.clone(), std::slice::from_ref(&room), device, None).await.unwrap();
        assert!(admission.go_live(None));
        let tell = async || delivery.send_unread_here(&room, vec![user.clone()]).await;
        assert_eq!(tell().await, 1);
        let mut panicking = Box::pin(delivery.in_lane(&room, async { panic!("as tests do") }));
        assert!(futures_util::poll!(panicking.as_mut()).is_pending());
        assert_eq!(tell().await, 0, "the lane has refused it");
        store.close();
        lifecycle.stop();
        lifecycle.ended().await;
        assert_eq!(tell().await, 0, "it cannot be counted");
    }
}
