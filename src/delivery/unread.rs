use std::{collections::HashMap, sync::Arc};

use serde::Serialize;

use super::Delivery;
use crate::hub::{Frame, Member};
use crate::message::{EventName, MessageId, Payload, RoomName, UserId};
use crate::store::{Error, Store, Which};

/// After this many deliveries, others get a chance to run.
const STRETCH: usize = 128;

/// Which messages to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// These.
    Messages(Vec<MessageId>),
    /// Those up to this position, this one included.
    UpTo(u64),
    /// All that there are.
    All,
}

/// What `bugle:unread` tells.
#[derive(Serialize)]
struct Unread<'a> {
    room: &'a str,
    count: u64,
}

impl Delivery {
    /// Notes that a user has read messages of a mailbox, and tells the user's devices there if that made any fewer unread. Says how many
    /// are left; none if the one message is not there. Runs to completion even if the caller disconnects.
    pub async fn mark_read(&self, room: &RoomName, user: &UserId, which: Which) -> Result<Option<u64>, Error> {
        let store = self.store().ok_or(Error::Closed)?.clone();
        let (delivery, room, user) = (self.clone(), room.clone(), user.clone());
        let marking = async move {
            match store.mark_read(&room, &user, which).await? {
                None => Ok(None),
                Some(true) if !delivery.is_alone() => {
                    delivery.tell_unread(&room, vec![user.clone()]).await;
                    store.count_unread(&room, &user).await.map(Some)
                }
                Some(true) => delivery.send_unread(store, room, user).await.map(Some),
                Some(false) => store.count_unread(&room, &user).await.map(Some),
            }
        };
        self.inner.lifecycle.detach(marking).await
    }

    /// Tells a user's devices in a room how many messages are unread, after that has changed by something else than `mark_read`. Runs to
    /// completion even if the caller disconnects. If they cannot be told, that is logged: the next change tells them.
    pub async fn tell_count(&self, room: &RoomName, user: &UserId) {
        let Some(store) = self.store().cloned() else { return };
        let (delivery, room, user) = (self.clone(), room.clone(), user.clone());
        let telling = async move {
            if !delivery.is_alone() {
                return delivery.tell_unread(&room, vec![user]).await;
            }
            if let Err(error) = delivery.send_unread(store, room, user).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "devices are not told how many messages are unread"
                );
            }
        };
        self.inner.lifecycle.detach(telling).await;
    }

    /// Counts in the room's lane, as stored messages are published: what is counted has been sent before, and of several counts the last one
    /// that a device hears is right.
    async fn send_unread(&self, store: Store, room: RoomName, user: UserId) -> Result<u64, Error> {
        if self.devices_in(&room, &user).is_empty() {
            return store.count_unread(&room, &user).await;
        }
        let (delivery, name) = (self.clone(), room.clone());
        let counting = self.in_lane(&name, async move {
            let count = store.count_unread(&room, &user).await?;
            let guard = delivery.hub().lock_room_for_emit(&room).await;
            for member in delivery.devices_in(&room, &user) {
                guard.send(&member, frame(&room, count));
            }
            Ok(count)
        });
        counting.await.unwrap_or(Err(Error::Closed))
    }

    fn devices_in(&self, room: &RoomName, user: &UserId) -> Vec<Arc<Member>> {
        let mut members = self.hub().of_user(user);
        members.retain(|member| member.is_in(room));
        members
    }

    /// Deletes messages of a mailbox, and tells those users in its room who have fewer unread ones now. Says how many were deleted. Runs to
    /// completion even if the caller disconnects.
    pub async fn delete_messages(&self, room: &RoomName, what: Deletion) -> Result<u64, Error> {
        let store = self.store().ok_or(Error::Closed)?.clone();
        let (delivery, name) = (self.clone(), room.clone());
        let deleting = async move { delivery.delete_in_lane(&name, store, what).await };
        self.inner.lifecycle.detach(deleting).await
    }

    /// In the room's lane nothing new is stored between the two counts. With several nodes others store all the same, and each counts in its own lane.
    async fn delete_in_lane(&self, room: &RoomName, store: Store, what: Deletion) -> Result<u64, Error> {
        if !self.is_alone() {
            return self.delete(room, &store, &what).await;
        }
        let (delivery, name) = (self.clone(), room.clone());
        let deleting = self.in_lane(room, async move { delivery.delete(&name, &store, &what).await });
        deleting.await.unwrap_or(Err(Error::Closed))
    }

    async fn delete(&self, room: &RoomName, store: &Store, what: &Deletion) -> Result<u64, Error> {
        let users = self.users_in(room).await;
        let counts = async || if users.is_empty() { Ok(Vec::new()) } else { store.count_unread_of(room, &users).await };
        let before = counts().await?;
        let deleted = match what {
            Deletion::Messages(ids) => store.delete(room, ids).await?,
            Deletion::UpTo(position) => store.delete_to(room, *position).await?,
            Deletion::All => store.delete_to(room, i64::MAX.cast_unsigned()).await?,
        };
        match counts().await {
            Ok(after) => {
                let changed = users.iter().zip(before.iter().zip(after));
                let changed = changed.filter(|(_, (before, after))| *before != after);
                let changed: HashMap<_, _> = changed.map(|(user, (_, after))| (user, after)).collect();
                if self.is_alone() {
                    self.send_unread_to_all(room, &changed).await;
                } else {
                    self.tell_unread(room, changed.into_keys().cloned().collect()).await;
                }
            }
            // They are deleted all the same.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "devices are not told of what was deleted from a mailbox"
            ),
        }
        Ok(deleted)
    }

    pub(super) async fn send_unread_to_all(&self, room: &RoomName, counts: &HashMap<&UserId, u64>) {
        if counts.is_empty() {
            return;
        }
        let guard = self.hub().lock_room_for_emit(room).await;
        for (index, member) in self.hub().members(room).iter().enumerate() {
            if index % STRETCH == STRETCH - 1 {
                tokio::task::yield_now().await;
            }
            if let Some(count) = counts.get(member.user()) {
                guard.send(member, frame(room, *count));
            }
        }
    }
}

fn frame(room: &RoomName, count: u64) -> Frame {
    let payload = serde_json::value::to_raw_value(&Unread { room: room.as_str(), count });
    let payload = payload.map_or(Payload::None, |raw| Payload::Json(raw.into()));
    Frame::new(EventName::own("bugle:unread"), payload)
}
