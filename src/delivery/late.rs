//! Messages that come late: their emits were refused, and they are in the mailbox all the same. They are published in their places, before what
//! was appended after them.

use std::{mem, ops::RangeInclusive};

use tokio::time::Instant;

use super::{
    Delivery,
    accepted::Published,
    execute::InLog,
    log_lanes::{AppendDone, PendingAppend},
    proof::UnprovenFanOut,
};
use crate::hub::{Counts, EntryMeta, Frame, RoomGuard};
use crate::message::{Exceptions, LogEntry, MessageId, Position, Receipt, RoomName, UserId};
#[cfg(test)]
use crate::store::broken::{Rule, is_broken};
use crate::store::{self, Appended, Incarnation, Store, Window};
use crate::telemetry;

/// Late messages of one room that are looked up at one time; those before them are given up.
const MAX_LATE: u64 = 1_000;
const PAGE: u32 = 100;
/// Messages of an unreadable log that are noted as skipped, the newest ones: as many as a mailbox keeps by default.
pub(super) const MAX_NOTED: u64 = 10_000;

/// A message of a mailbox that was not published yet.
pub(super) struct Late {
    pub(super) position: Position,
    /// That of the position's number.
    pub(super) incarnation: Incarnation,
    pub(super) message: LogEntry,
}

impl Delivery {
    /// The messages before these that were not published yet, in order. Positions have no gaps: if it is known where the room stands, what is
    /// between there and the first new message is late, even if it was another process that was told nothing of it.
    pub(super) async fn look_up_late(
        &self,
        room: &RoomName,
        store: &Store,
        appended: &[Appended],
    ) -> Result<Vec<Late>, store::Error> {
        #[cfg(test)]
        if is_broken(Rule::LateIsPublished) {
            return Ok(Vec::new());
        }
        let Some(head) = self.hub().log_head(room) else {
            return self.look_up_uncertain(room, store).await;
        };
        let until = last_before_new(appended);
        let mut after = head.max(until.saturating_sub(MAX_LATE));
        if after > head {
            tracing::error!(room.name = %room, messages.count = after - head, "too many stored messages are late: gave some up");
        }
        let mut messages = Vec::new();
        while after < until {
            let (listed, has_more) = match store.list(room, Window { after, max: PAGE }, None).await {
                Err(error) if error.is_damage() => {
                    self.give_up_late(room, store, after..=until, &error).await?;
                    break;
                }
                page => page?,
            };
            after = listed.last().filter(|_| has_more).map_or(until, |last| last.message.number);
            messages.extend(listed.into_iter().map(|listed| listed.message).filter(|message| message.number <= until));
        }
        with_positions(store, messages).await
    }

    /// Late messages after the first of these positions, up to the last one, cannot be read, now or later. They are given up, so that the room's
    /// emits go on: devices in the room that resume are told of the gap, and a user's next device comes to the messages as skipped ones.
    pub(super) async fn give_up_late(
        &self,
        room: &RoomName,
        store: &Store,
        unread: RangeInclusive<u64>,
        error: &store::Error,
    ) -> Result<(), store::Error> {
        self.inner.faulty_logs.note(room, error);
        let (after, until) = unread.into_inner();
        if let Some(user) = room.user().filter(|_| self.is_users_mailbox(room)).and_then(|user| UserId::new(user).ok())
        {
            let reports = store.watermark_reports(&user, store.incarnation());
            (after.max(until.saturating_sub(MAX_NOTED)) + 1..=until).for_each(|number| reports.note_skipped(number));
        }
        self.tell_of_gap(room, &store.position(until).await?).await;
        Ok(())
    }

    /// The messages that were refused and are in the mailbox all the same, in order. Those that cannot be read as the data is damaged are given
    /// up: devices that catch up meet the same damage, and are told.
    pub(super) async fn look_up_uncertain(&self, room: &RoomName, store: &Store) -> Result<Vec<Late>, store::Error> {
        let Some(ids) = self.inner.lanes.uncertain(room) else {
            return Ok(Vec::new());
        };
        match store.messages_by_id(room, &ids).await {
            Err(error) if error.is_damage() => {
                self.inner.faulty_logs.note(room, &error);
                Ok(Vec::new())
            }
            messages => with_positions(store, messages?).await,
        }
    }

    /// Publishes late messages in order. If one of the emits repeats one of them, that emit is what is published: it may ask for more than the
    /// mailbox keeps, such as acknowledgements. A direct message asks for nothing more.
    pub(super) async fn publish_late(
        &self,
        room: &RoomName,
        late: Vec<Late>,
        emits: &mut [Option<(PendingAppend, Appended)>],
    ) {
        for late in late {
            let (id, position) = (late.message.id, &late.position);
            let repeats = |emit: &&mut Option<(PendingAppend, Appended)>| {
                emit.as_ref().is_some_and(|(append, known)| {
                    // The payload of a direct message is in the mailbox alone.
                    append.direct.is_none() && known_number(known) == Some(position.number)
                })
            };
            if let Some((append, _)) = emits.iter_mut().find(repeats).and_then(mem::take) {
                self.publish_repeated(room, append, late, id).await;
            } else {
                let guard = self.hub().lock_room_for_emit(room).await;
                self.publish_entry(&guard, late).await;
            }
            self.inner.lanes.settle_uncertain(room, id);
        }
    }

    async fn publish_repeated(
        &self,
        room: &RoomName,
        append: PendingAppend,
        Late { position, incarnation, .. }: Late,
        id: MessageId,
    ) {
        let PendingAppend { mut accepted, answer, .. } = append;
        accepted.message_id = id;
        let guard = self.hub().lock_room_for_emit(room).await;
        let published = self.publish_locked(&guard, accepted, Some(InLog::late(&position, incarnation))).await;
        guard.raise_log_head(position.number);
        let published: Published = published.map(|(receipt, acks)| {
            let Receipt { matched, enqueued, dropped, .. } = receipt;
            (Receipt { matched, enqueued, dropped, ..repeated(position, id) }, acks)
        });
        // The caller may be gone.
        let _ = answer.send(AppendDone::Published(published));
    }

    /// Publishes a message as the mailbox has it to a locked room.
    pub(super) async fn publish_entry(
        &self,
        guard: &RoomGuard<'_>,
        Late { position, incarnation, message }: Late,
    ) -> Counts {
        let began = Instant::now();
        let unproven = self.begin_unproven(guard, (position.number, incarnation), true);
        // Another emit to the sender's room may publish the copy of a direct message.
        let sending = self.inner.sendings.publish(message.id, guard.room(), &message.payload);
        let frame = Frame {
            entry: Some(EntryMeta::new(message.id, guard.room(), &position)),
            unproven: unproven.as_ref().map(UnprovenFanOut::message),
            ..Frame::new(message.event, message.payload)
        };
        let (is_sent_here, connections) = (sending.is_some(), sending.into_iter().collect());
        let except = Exceptions { users: message.except_users, connections, ..Exceptions::default() };
        let mut fan_out = guard.fan_out(frame, except, false);
        fan_out.run().await;
        let (counts, _) = fan_out.finish();
        telemetry::fanned_out(counts.enqueued, counts.dropped, began.elapsed());
        match unproven {
            Some(unproven) if is_sent_here => unproven.done_by_sender(&counts),
            Some(unproven) => unproven.done(&counts),
            None => {}
        }
        guard.raise_log_head(position.number);
        counts
    }
}

/// The receipt of an emit whose message was stored before, under the same idempotency key.
pub(super) fn repeated(position: Position, id: MessageId) -> Receipt {
    Receipt { stored: true, position: Some(position), duplicate: true, ..Receipt::new(id) }
}

/// The last position before the first new message; without a new one, the last of those that were known.
fn last_before_new(appended: &[Appended]) -> u64 {
    let first_new = appended.iter().find_map(|appended| match appended {
        Appended::New { position, .. } => Some(position.number),
        Appended::Known { .. } | Appended::KeyReused | Appended::Refused(_) => None,
    });
    match first_new {
        Some(first) => first - 1,
        None => appended.iter().filter_map(known_number).max().unwrap_or_default(),
    }
}

fn known_number(appended: &Appended) -> Option<u64> {
    match appended {
        Appended::Known { position, .. } => Some(position.number),
        Appended::New { .. } | Appended::KeyReused | Appended::Refused(_) => None,
    }
}

async fn with_positions(store: &Store, messages: Vec<LogEntry>) -> Result<Vec<Late>, store::Error> {
    let (begin, incarnation) = (store.position(0).await?, store.incarnation());
    let late = |message: LogEntry| {
        let position = Position { number: message.number, ..begin.clone() };
        Late { position, incarnation, message }
    };
    Ok(messages.into_iter().map(late).collect())
}
