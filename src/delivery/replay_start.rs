//! Where the replay of a stored room begins.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    replay::{Replay, Stopped},
    resumed::{Joined, ReplayFrom},
};
use crate::message::Position;
#[cfg(test)]
use crate::store::broken::{Rule as StoreRule, is_broken as is_broken_of_store};
use crate::store::{self, Store, Undelivered};

/// A read of the database takes so long at most, until it is seen to take longer.
const FIRST_GUESS: Duration = Duration::from_millis(250);

impl Replay<'_> {
    /// The position up to which all was replayed, or from which replaying begins.
    pub(super) async fn cursor_in(&mut self, store: &Store, head: &Position) -> Result<u64, Stopped> {
        let cursor = match (self.cursor, self.from) {
            (Some(cursor), _) => cursor,
            (None, ReplayFrom::Watermark(joined)) => {
                let user = self.member.user();
                // Of an empty mailbox nothing need be read.
                let known = (head.number == 0).then(Undelivered::default);
                let reports = self.reports.as_ref().filter(|_| self.member.connection().resumes());
                let Undelivered { after, skipped } = match (reports, known) {
                    (Some(reports), known) => reports.begin_first_resume(known).await?,
                    (None, Some(known)) => known,
                    (None, None) => store.undelivered(user).await?,
                };
                // Another node may have published later messages, which its devices have proven. Here they are sent live.
                let after = after.min(head.number);
                let after =
                    if self.delivery.is_alone() { after } else { after.min(self.at_join(store, *joined).await?) };
                self.skipped = skipped.into_iter().filter(|number| *number <= after).collect::<Vec<_>>().into_iter();
                after
            }
            (None, ReplayFrom::Position(seen)) => {
                #[cfg(test)]
                let seen = &Position {
                    number: seen.number + u64::from(is_broken_of_store(StoreRule::ReplayFollowsPosition)),
                    ..seen.clone()
                };
                // Past all that there can be: it is no place in this sequence.
                if store.stands(self.room, seen).await? { seen.number } else { u64::MAX }
            }
        };
        self.cursor = Some(cursor);
        Ok(cursor)
    }

    /// The last message before the connection joined. Another device may have proven later ones, which this one is to be given.
    async fn at_join(&self, store: &Store, joined: Joined) -> Result<u64, store::Error> {
        #[cfg(test)]
        if is_broken(Rule::SinceJoinIsGiven) {
            return Ok(u64::MAX);
        }
        let since = match joined {
            Joined::At(head) => return Ok(head),
            Joined::Unknown(since) => since,
        };
        let mut takes = FIRST_GUESS;
        loop {
            let began = Instant::now();
            let first = store.first_stored_within(self.room, since.elapsed() + takes).await?;
            // The database reckons the period from when it reads.
            if began.elapsed() <= takes {
                return Ok(first.map_or(u64::MAX, |first| first.saturating_sub(1)));
            }
            takes = began.elapsed() * 2;
        }
    }
}
