//! Gaps that cannot be filled. The device is told of them before it is sent anything later of the room: it would resume from that, and the gap would
//! never be told.

use super::{
    faulty_logs::FailedReads,
    replay::{Replay, Stopped},
    resumed::Resumed,
};
use crate::message::CloseCode;

impl Replay<'_> {
    /// Gives up what cannot be given: the device goes on from where the room stands now, and is to be told so. Kept frames wait from then until
    /// [`Replay::go_on`], and plain ones do not. Another device may still be given what this one was not. `None`: the connection has gone, or left
    /// the room.
    pub(super) async fn give_up(&mut self, mut is_unreadable: bool) -> Option<Resumed> {
        self.delivery.hub().let_plain_pass(self.member, self.room);
        let mut failed = FailedReads::default();
        loop {
            let error = match self.wait_at_head(is_unreadable).await {
                Ok(resumed) => return Some(resumed),
                Err(Stopped::Gone) => return None,
                Err(Stopped::Failed(error)) => error,
            };
            if is_unreadable {
                // Not even where the room stands can be read.
                self.delivery.hub().lock_room(self.room).await.begin_buffering(self.member);
                return Some(Resumed { count: self.count, ..Resumed::unreadable() });
            }
            self.delivery.hub().log_unreadable(self.member, self.room);
            is_unreadable = failed.is_final(&error);
            if !is_unreadable {
                self.delivery.wait_for_log(self.room, &mut failed).await?;
            }
        }
    }

    /// Sends what has waited since [`Replay::give_up`], after the device was told.
    pub(super) async fn go_on(&self) {
        let guard = self.delivery.hub().lock_room(self.room).await;
        if guard.is_buffering(self.member) {
            guard.end_replay(self.member);
        } else if self.member.is_replaying(self.room) {
            // More came than may wait: the device comes back, and resumes from where it was told.
            self.delivery.hub().close(self.member, &CloseCode::Slow.into());
        }
    }

    async fn wait_at_head(&mut self, is_unreadable: bool) -> Result<Resumed, Stopped> {
        loop {
            let mut head = self.head().await?.ok_or(Stopped::Gone)?;
            let guard = self.delivery.hub().lock_room(self.room).await;
            if !self.member.is_replaying(self.room) {
                return Err(Stopped::Gone);
            }
            let published = self.published_head(&guard).filter(|_| !self.is_outdated(&head));
            let Some(number) = published else { continue };
            head.number = number;
            guard.begin_buffering(self.member);
            drop(guard);
            if !self.read(self.skip_to(head.number, is_unreadable)).await? {
                continue;
            }
            let guard = self.delivery.hub().lock_room(self.room).await;
            if !self.member.is_replaying(self.room) {
                return Err(Stopped::Gone);
            }
            if guard.is_buffering(self.member) {
                return Ok(Resumed { recovered: false, count: self.count, position: Some(head.to_string()) });
            }
        }
    }
}
