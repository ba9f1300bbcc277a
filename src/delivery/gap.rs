//! Gaps that cannot be filled. The device is told of them before it is sent anything later of the room: it would resume from that, and the gap would
//! never be told.

use super::{
    replay::{Replay, Stopped},
    resumed::Resumed,
    unreadable_logs::FailedReads,
};
use crate::message::CloseCode;

/// Messages of an unreadable log that are noted as skipped, the newest ones: as many as a mailbox keeps by default.
pub(super) const MAX_NOTED: u64 = 10_000;

impl Replay<'_> {
    /// Gives up what cannot be given: the device goes on from where the room stands now, and is to be told so. Kept frames wait from then until
    /// [`Replay::go_on`], and plain ones do not. Another device may still be given what this one was not. `None`: the connection has gone, or left
    /// the room.
    pub(super) async fn give_up(&self, mut is_unreadable: bool) -> Option<Resumed> {
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

    async fn wait_at_head(&self, is_unreadable: bool) -> Result<Resumed, Stopped> {
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
            if let Some(reports) = &self.reports {
                match reports.skip_to(head.number).await {
                    Err(_) if is_unreadable => self.note_rest_skipped(head.number),
                    skipped => skipped?,
                }
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

    /// Notes what was not looked at as skipped, without reading it: the proof of a later message must not move the watermark past it.
    fn note_rest_skipped(&self, head: u64) {
        if let (Some(reports), Some(cursor)) = (&self.reports, self.cursor) {
            let begin = cursor.max(head.saturating_sub(MAX_NOTED));
            (begin + 1..=head).for_each(|number| reports.note_skipped(number));
        }
    }
}
