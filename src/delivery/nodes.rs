//! Joining and leaving the other nodes.

use std::{sync::Arc, time::Duration};

use super::{Delivery, receive::Receiver};
use crate::cluster::{Node, StartError};
use crate::message::RoomName;

impl Delivery {
    /// Joins the other nodes, if there are any: from then on their frames come.
    pub async fn join_nodes(&self) -> Result<(), StartError> {
        let Some(cluster) = self.cluster() else {
            return Ok(());
        };
        let everyone = cluster.want(vec![RoomName::everyone()]);
        *self.inner.everyone.lock() = everyone;
        let node = Arc::new(Receiver(Arc::downgrade(&self.inner)));
        let node: Arc<dyn Node> = node;
        cluster.start(&node, &self.inner.lifecycle).await?;
        self.read_collapsing().await;
        Ok(())
    }

    /// Leaves the other nodes, after the devices: they wait for this one no longer.
    pub async fn leave_nodes(&self) {
        if let Some(cluster) = self.cluster() {
            cluster.leave().await;
        }
    }

    /// For how long this node has not heard all that is published to its rooms. `None`: it does, or is alone.
    pub fn unready_for(&self) -> Option<Duration> {
        self.cluster()?.unready_for()
    }

    /// What this node does when all that is published to its rooms comes again.
    pub(super) async fn catch_up_with_engine(&self, shard: usize, is_same_data: bool) {
        self.inner.frames_missed.notify_one();
        let rest = async {
            self.reconcile_memberships(shard, is_same_data).await;
            self.read_collapsing().await;
            self.send_owed().await;
        };
        tokio::join!(self.catch_up_with_histories(shard), rest);
    }
}
