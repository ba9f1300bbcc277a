use super::{
    super::{Error, Store, deadlines::Allowance},
    undelivered::{Undelivered, skip_in_database},
    users::Incarnation,
    watermark::Watermark,
};
use crate::message::UserId;

/// Takes reports about messages of one user's own mailbox that were sent in one incarnation. Reports are ignored once that has ended.
#[derive(Clone)]
pub struct WatermarkReports {
    store: Store,
    user: UserId,
    incarnation: Incarnation,
}

impl Store {
    /// The incarnation of the numbers that are read or appended from now on.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.watermarks.incarnation()
    }

    /// Where connections of a user report what became of messages whose numbers are of this incarnation.
    pub fn watermark_reports(&self, user: &UserId, incarnation: Incarnation) -> WatermarkReports {
        WatermarkReports { store: self.clone(), user: user.clone(), incarnation }
    }
}

impl WatermarkReports {
    /// Notes that a connection was sent a message. `may_be_skipped`: it was published before, and may be noted as skipped. One call of
    /// `note_proven` or `note_lost` follows for each connection.
    pub fn note_in_flight(&self, number: u64, may_be_skipped: bool) {
        self.change(|watermark| watermark.sent(number, may_be_skipped));
    }

    /// Notes that a device has proven a message, and so all up to it that are not in flight. The watermark moves there. The database has it
    /// within a second or so, or a quarter of one if several nodes share it.
    pub fn note_proven(&self, number: u64) {
        self.change(|watermark| watermark.proven(number));
    }

    /// Notes that a connection ended without a proof.
    pub fn note_lost(&self, number: u64) {
        self.change(|watermark| watermark.lost(number));
    }

    /// Ends what `note_in_flight` began for the publisher of a message. `is_partial`: a live connection of the user was not sent it.
    pub fn note_published(&self, number: u64, is_partial: bool) {
        self.change(|watermark| watermark.published(number, is_partial));
    }

    /// Notes that a message goes to the user's next device, though a connection could prove later ones.
    pub fn note_skipped(&self, number: u64) {
        self.change(|watermark| watermark.skip(number));
    }

    /// Notes that messages up to `to` need no proof: they are not for the user, or are gone, or the device has seen them. The watermark
    /// moves there once it has reached `after`, the last message that the connection was sent (0: none), and nothing before is in flight.
    pub fn note_settled(&self, after: u64, to: u64) {
        self.change(|watermark| watermark.settle(after, to));
    }

    /// Notes that a device resumes for the first time, which has no position to resume from. Returns what the device is given: for 30 s all such
    /// devices of the user begin after the same position, on each node. `known`: what is undelivered, if it need not be read.
    pub async fn begin_first_resume(&self, known: Option<Undelivered>) -> Result<Undelivered, Error> {
        let watermarks = &self.store.inner.watermarks;
        if watermarks.is_shared() {
            return self.store.begin_shared_first_resume(&self.user).await;
        }
        let Undelivered { after, mut skipped } = match known {
            Some(known) => known,
            None => self.store.undelivered(&self.user).await?,
        };
        let begin = watermarks.users.lock().begin_first_resume(self.incarnation, &self.user, after);
        // Those after it are given in order anyway.
        skipped.retain(|number| *number <= begin);
        Ok(Undelivered { after: begin, skipped })
    }

    /// The incarnation of the messages that reports are taken about.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the incarnation has not ended: otherwise reports are ignored.
    pub fn are_current(&self) -> bool {
        self.store.incarnation() == self.incarnation
    }

    /// Moves the watermark on to this position. All messages that it passes are skipped. Fails if the incarnation has ended: the position is that of
    /// another message now, or of none.
    pub async fn skip_to(&self, position: u64) -> Result<(), Error> {
        let Self { store, user, incarnation } = self;
        let skipping = async {
            // What was proven meanwhile must not be deleted before it is inserted.
            let _writing = store.inner.watermarks.writing.lock().await;
            self.change(|watermark| watermark.expect_skips(position));
            skip_in_database(store, user, *incarnation, position).await?;
            self.change(|watermark| watermark.advance(position)).ok_or(Error::Unreachable)
        };
        store.inner.database.within(Allowance::Other, skipping).await
    }

    /// `None`: the incarnation has ended, and nothing was changed.
    fn change(&self, change: impl FnOnce(&mut Watermark)) -> Option<()> {
        self.store.inner.watermarks.users.lock().change(self.incarnation, &self.user, change)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::lifecycle::Lifecycle;
    use crate::store::{Config, Sharing};

    #[tokio::test]
    async fn a_proof_of_a_message_that_the_database_has_lost_moves_no_watermark() {
        let config = Config { url: "sqlite::memory:".into(), max_age: Duration::from_hours(1), max_messages: 100 };
        let store = Store::open(&config, Sharing::Single, Clock::system(), &Lifecycle::new()).unwrap();
        let user = UserId::new("42").unwrap();
        let reports = || store.watermark_reports(&user, store.incarnation());
        let before = reports();
        before.note_in_flight(10, false);
        // As if the database held 6 messages again, and 7 to 10 were stored since.
        store.inner.watermarks.forget_all();
        let now = reports();
        now.note_in_flight(7, false);
        before.note_proven(10);
        before.note_settled(0, 9);
        before.note_skipped(8);
        assert!(before.skip_to(9).await.is_err() && !before.are_current());
        let known = Undelivered { after: 10, skipped: vec![] };
        assert_eq!(before.begin_first_resume(Some(known.clone())).await.unwrap(), known);
        assert_eq!(store.undelivered(&user).await.unwrap(), Undelivered::default());
        now.note_proven(7);
        assert_eq!(store.undelivered(&user).await.unwrap(), Undelivered { after: 7, skipped: vec![] });
    }
}
