use std::time::Duration;

use super::{Commands, Error};
use crate::auth::{Caller, Right};
use crate::message::{ConnectionInfo, NodeStats, OfNodes, Page, Stats, UserId};
use crate::store::{self, Store};

impl Commands {
    /// How the store stands; none: there is none.
    pub fn store_status(&self) -> Option<store::Status> {
        self.store.as_ref().map(Store::status)
    }

    /// For how long this node has not heard all that other nodes publish to its rooms. `None`: it does, or is alone.
    pub fn unready_for(&self) -> Option<Duration> {
        self.delivery.unready_for()
    }

    /// A user's connections, ordered by id; none if the user is offline.
    pub async fn get_user(&self, caller: &Caller, user: &UserId) -> Result<OfNodes<Vec<ConnectionInfo>>, Error> {
        caller.may(Right::Presence)?;
        Ok(self.delivery.connections_of(user).await?)
    }

    /// How many connections each of these users has.
    pub async fn get_users(&self, caller: &Caller, users: Vec<UserId>) -> Result<OfNodes<Vec<(UserId, usize)>>, Error> {
        caller.may(Right::Presence)?;
        Ok(self.delivery.connection_counts(users).await?)
    }

    /// The users who are online, ordered by id, from the first one after `after`.
    pub async fn list_users(&self, caller: &Caller, after: &str, size: usize) -> Result<OfNodes<Page<UserId>>, Error> {
        caller.may(Right::Presence)?;
        Ok(self.delivery.list_users(after, size).await?)
    }

    /// How many users, connections and rooms there are.
    pub async fn get_stats(&self, caller: &Caller) -> Result<OfNodes<Stats>, Error> {
        caller.may(Right::Presence)?;
        Ok(self.delivery.stats().await?)
    }

    /// The same of this node alone, for the operator's metrics, which need no key.
    pub fn own_stats(&self) -> NodeStats {
        self.delivery.own_stats()
    }
}
