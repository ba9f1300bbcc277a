use std::sync::Arc;

use super::Delivery;
use crate::hub::{Counts, RoomGuard, Unproven};
use crate::message::UserId;
use crate::store::{Incarnation, WatermarkReports};

/// A message of a user's own mailbox: connections report to the store whether their devices have received it.
pub(super) struct OwnMessage {
    pub(super) reports: WatermarkReports,
    pub(super) number: u64,
    /// It may be noted as skipped: it is not sent for the first time.
    pub(super) may_be_skipped: bool,
}

impl Unproven for OwnMessage {
    fn sent(&self) {
        self.reports.note_in_flight(self.number, self.may_be_skipped);
    }

    fn proven(&self) {
        self.reports.note_proven(self.number);
    }

    fn lost(&self) {
        self.reports.note_lost(self.number);
    }
}

/// A message of a user's own mailbox that is being fanned out. It counts as in flight meanwhile.
pub(super) struct UnprovenFanOut {
    message: Arc<OwnMessage>,
    /// The user's connections before the fan-out. None can join during it.
    connections: u64,
    is_done: bool,
}

impl Delivery {
    /// Begins to send a stored message to a locked room. `None`: the room is not a user's own mailbox, or the user has no connection.
    /// `incarnation`: that of the number. `is_late`: a connection may have come to the message before, by replaying.
    pub(super) fn begin_unproven(
        &self,
        guard: &RoomGuard<'_>,
        (number, incarnation): (u64, Incarnation),
        is_late: bool,
    ) -> Option<UnprovenFanOut> {
        let (room, connections) = (guard.room(), guard.connections() as u64);
        let store = self.store().filter(|_| connections > 0 && self.is_users_mailbox(room))?;
        let reports = store.watermark_reports(&UserId::new(room.user()?).ok()?, incarnation);
        let message = Arc::new(OwnMessage { reports, number, may_be_skipped: is_late });
        message.sent();
        Some(UnprovenFanOut { message, connections, is_done: false })
    }
}

impl UnprovenFanOut {
    /// What the frame carries.
    pub(super) fn message(&self) -> Arc<dyn Unproven> {
        self.message.clone()
    }

    /// The message was fanned out. A connection that catches up counts as sent, since it comes to the message.
    pub(super) fn done(mut self, counts: &Counts) {
        self.is_done = true;
        self.note(counts.enqueued < self.connections);
    }

    /// The same of a direct message that one of the user's connections has sent: its device has it, and the message needs no proof.
    pub(super) fn done_by_sender(mut self, counts: &Counts) {
        self.is_done = true;
        self.note(counts.enqueued + 1 < self.connections);
        let OwnMessage { reports, number, .. } = &*self.message;
        reports.note_settled(number.saturating_sub(1), *number);
    }

    fn note(&self, is_partial: bool) {
        let OwnMessage { reports, number, .. } = &*self.message;
        reports.note_published(*number, is_partial);
    }
}

impl Drop for UnprovenFanOut {
    /// The fan-out was cancelled or panicked: some connections may not have been sent the message.
    fn drop(&mut self) {
        if !self.is_done {
            self.note(true);
        }
    }
}
