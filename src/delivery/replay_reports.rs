//! What a replay reports of the user's own mailbox: which of its messages the user's next device is to be given.

use std::sync::Arc;

use super::{late::MAX_NOTED, proof::OwnMessage, replay::Replay};
use crate::hub::Unproven;
use crate::store::{self, Status};

impl Replay<'_> {
    /// Before anything is read: what is read belongs to this incarnation or to a later one. Reports of an incarnation that is over are ignored, and
    /// the proof of a later message would move the watermark past what they are about.
    pub(super) fn renew_reports(&mut self) {
        if let Some(store) = self.delivery.store().filter(|_| self.delivery.is_users_mailbox(self.room))
            && self.reports.as_ref().is_none_or(|reports| !reports.are_current())
        {
            self.reports = Some(store.watermark_reports(self.member.user(), store.incarnation()));
        }
    }

    pub(super) fn unproven(&self, number: u64) -> Option<Arc<dyn Unproven>> {
        let reports = self.reports.clone()?;
        Some(Arc::new(OwnMessage { reports, number, may_be_skipped: true }))
    }

    /// Messages up to this one that were not given need no proof: the device has seen them, or they are not for the user.
    pub(super) fn note_settled(&self, number: u64) {
        if let Some(reports) = self.reports.as_ref().filter(|_| number > 0) {
            reports.note_settled(self.last_given, number);
        }
    }

    /// The device does not listen for a message, or cannot receive it: the next one may.
    pub(super) fn note_not_for_it(&self, number: u64) {
        if let Some(reports) = &self.reports {
            reports.note_skipped(number);
            self.note_settled(number);
        }
    }

    /// Has the user's next device given all up to here that no device has proven. False: the store has begun a new epoch since the reports were
    /// renewed.
    pub(super) async fn skip_to(&self, head: u64, is_unreadable: bool) -> Result<bool, store::Error> {
        let (Some(store), Some(reports)) = (self.delivery.store(), &self.reports) else { return Ok(true) };
        match reports.skip_to(head).await {
            Ok(()) => {}
            Err(_) if !reports.are_current() => return Ok(false),
            Err(_) if store.status() == Status::Unwritable => {
                let after = store.undelivered(self.member.user()).await?.after;
                self.note_rest_skipped(after, head);
            }
            Err(_) if is_unreadable => {
                if let Some(cursor) = self.cursor {
                    // It may be past the end of the mailbox: a position that is none of it.
                    self.note_rest_skipped(if cursor > head { 0 } else { cursor }, head);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Notes what was not looked at as skipped, without reading or writing it now: the proof of a later message must not move the watermark past it.
    fn note_rest_skipped(&self, after: u64, head: u64) {
        if let Some(reports) = &self.reports {
            let begin = after.max(head.saturating_sub(MAX_NOTED));
            (begin + 1..=head).for_each(|number| reports.note_skipped(number));
        }
    }
}
