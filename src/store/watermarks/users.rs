use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::watermark::{GRACE, Unwritten, Watermark};
use crate::message::UserId;

/// Counts how often all watermarks were forgotten. Numbers of messages are compared within one incarnation only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation(u64);

/// The watermarks that are in memory.
#[derive(Default)]
pub(super) struct Users {
    /// Other nodes write the same rows.
    is_shared: bool,
    incarnation: Incarnation,
    by_id: HashMap<UserId, User>,
    /// Users with something to write, and such that were written out of turn, each once.
    dirty: VecDeque<UserId>,
    /// When graces of first resumes end, in that order. One that was prolonged is here again.
    graces: VecDeque<(Instant, UserId)>,
}

struct User {
    watermark: Watermark,
    /// It is among the dirty users.
    is_dirty: bool,
}

/// Some of what is to be written, seen at one moment.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) incarnation: Incarnation,
    users: Vec<(UserId, Unwritten)>,
}

impl Users {
    /// No user. `is_shared`: other nodes write the same rows.
    pub(super) fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Forgets all users. Returns them, so that they can be dropped without the mutex.
    pub(super) fn forget_all(&mut self) -> Users {
        let incarnation = Incarnation(self.incarnation.0 + 1);
        std::mem::replace(self, Self { incarnation, ..Self::new(self.is_shared) })
    }

    pub(super) fn get(&self, user: &UserId) -> Option<&Watermark> {
        self.by_id.get(user).map(|user| &user.watermark)
    }

    /// Changes the watermark of a user. `None`, and nothing is changed, if what the change is about belongs to another incarnation.
    pub(super) fn change<T>(
        &mut self,
        incarnation: Incarnation,
        id: &UserId,
        change: impl FnOnce(&mut Watermark) -> T,
    ) -> Option<T> {
        if incarnation != self.incarnation {
            return None;
        }
        let new = || User { watermark: Watermark::new(self.is_shared), is_dirty: false };
        let user = match self.by_id.get_mut(id) {
            Some(user) => user,
            None => self.by_id.entry(id.clone()).or_insert_with(new),
        };
        let changed = change(&mut user.watermark);
        self.settle(id);
        Some(changed)
    }

    /// Begins a user's grace, or prolongs it. Returns the position after which the device is given messages.
    pub(super) fn begin_first_resume(&mut self, incarnation: Incarnation, id: &UserId, after: u64) -> u64 {
        let now = Instant::now();
        let begin = self.change(incarnation, id, |watermark| watermark.begin_first_resume(after, now));
        if begin.is_some() {
            self.graces.push_back((now + GRACE, id.clone()));
        }
        begin.unwrap_or(after)
    }

    /// Ends graces whose time has come, at most `max`. True if there may be more.
    pub(super) fn end_graces(&mut self, max: usize) -> bool {
        let now = Instant::now();
        for _ in 0..max {
            let Some((_, id)) = self.graces.pop_front_if(|(until, _)| *until <= now) else {
                return false;
            };
            if let Some(user) = self.by_id.get_mut(&id) {
                user.watermark.end_first_resume(now);
                self.settle(&id);
            }
        }
        true
    }

    /// How many users have something to write.
    pub(super) fn count_dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Takes about `max` rows of what is to be written, and at most `max` of the users that had something to write before, of whom `left` are
    /// left. Each chunk is followed by [`Users::ended`].
    pub(super) fn take_dirty(&mut self, max: usize, left: &mut usize) -> Chunk {
        let mut chunk = Chunk { incarnation: self.incarnation, users: Vec::new() };
        let mut rows = 0;
        while rows < max && *left > 0 {
            let Some(id) = self.dirty.pop_front() else {
                // Another call has taken them.
                *left = 0;
                break;
            };
            *left -= 1;
            let max_rows = max - rows;
            // Each user counts, so that the mutex is not held for many of whom nothing is left to write.
            rows += 1;
            let Some(user) = self.by_id.get_mut(&id) else { continue };
            let unwritten = user.watermark.unwritten(max_rows);
            user.is_dirty = unwritten.has_more;
            if unwritten.has_more {
                self.dirty.push_front(id.clone());
                *left += 1;
            }
            rows += unwritten.skipped.len() + unwritten.cleared.len();
            chunk.users.push((id, unwritten));
            if user.is_dirty {
                break;
            }
        }
        chunk
    }

    /// Takes what is to be written of these users, about `max` rows. They stay dirty until all is written.
    pub(super) fn take_of<'a>(&self, ids: impl IntoIterator<Item = &'a UserId>, max: usize) -> Chunk {
        let mut chunk = Chunk { incarnation: self.incarnation, users: Vec::new() };
        let mut rows = 0_usize;
        for id in ids {
            if let Some(user) = self.by_id.get(id).filter(|user| user.watermark.is_unwritten()) {
                let unwritten = user.watermark.unwritten(max.saturating_sub(rows));
                rows += 1 + unwritten.skipped.len() + unwritten.cleared.len();
                chunk.users.push((id.clone(), unwritten));
            }
        }
        chunk
    }

    /// Ends what a chunk was taken for. `is_written`: the database holds it.
    pub(super) fn ended(&mut self, chunk: &Chunk, is_written: bool) {
        if is_written {
            self.written(chunk);
        } else {
            self.not_written(chunk);
        }
    }

    /// The database holds this.
    fn written(&mut self, chunk: &Chunk) {
        if chunk.incarnation != self.incarnation {
            return;
        }
        for (id, unwritten) in &chunk.users {
            if let Some(user) = self.by_id.get_mut(id) {
                user.watermark.written(unwritten);
                self.settle(id);
            }
        }
    }

    /// The database may not hold this: it is to be written again.
    fn not_written(&mut self, chunk: &Chunk) {
        for (id, _) in &chunk.users {
            self.settle(id);
            // Of whom there is more: others come first, as it may fail again.
            if self.dirty.front() == Some(id) {
                self.dirty.rotate_left(1);
            }
        }
    }

    /// Marks a user as dirty if something is to be written, and forgets one of whom the database knows everything.
    fn settle(&mut self, id: &UserId) {
        let Some(user) = self.by_id.get_mut(id) else { return };
        if user.watermark.is_unwritten() {
            if !std::mem::replace(&mut user.is_dirty, true) {
                self.dirty.push_back(id.clone());
            }
        } else if user.watermark.is_idle() && !user.is_dirty {
            self.by_id.remove(id);
        }
    }
}

impl Chunk {
    /// Whether no user is left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The one user of whom there is something.
    pub(super) fn only_user(&self) -> Option<&UserId> {
        if let [(user, _)] = &*self.users { Some(user) } else { None }
    }

    pub(super) fn halve(&self) -> [Self; 2] {
        let (first, second) = self.users.split_at(self.users.len() / 2);
        [first, second].map(|users| Self { incarnation: self.incarnation, users: users.to_vec() })
    }

    pub(super) fn skipped(&self) -> Vec<(UserId, u64)> {
        self.rows(|unwritten| &unwritten.skipped)
    }

    pub(super) fn cleared(&self) -> Vec<(UserId, u64)> {
        self.rows(|unwritten| &unwritten.cleared)
    }

    /// The users of whom a row is written, in the order in which each node locks them.
    pub(super) fn ids(&self) -> Vec<UserId> {
        let mut ids: Vec<_> = self.users.iter().map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The proven messages, as runs of numbers that follow each other: the first and the last one.
    pub(super) fn runs_of_cleared(&self) -> Vec<(UserId, u64, u64)> {
        let mut runs = Vec::new();
        for (id, unwritten) in &self.users {
            for run in unwritten.cleared.chunk_by(|one, next| one + 1 == *next) {
                runs.extend(run.first().zip(run.last()).map(|(first, last)| (id.clone(), *first, *last)));
            }
        }
        runs
    }

    pub(super) fn positions(&self) -> Vec<(UserId, u64)> {
        self.users.iter().filter_map(|(id, unwritten)| Some((id.clone(), unwritten.position?))).collect()
    }

    fn rows(&self, numbers: impl Fn(&Unwritten) -> &Vec<u64>) -> Vec<(UserId, u64)> {
        let mut rows = Vec::new();
        for (id, unwritten) in &self.users {
            rows.extend(numbers(unwritten).iter().map(|number| (id.clone(), *number)));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::new(&number.to_string()).unwrap()
    }

    fn prove(users: &mut Users, incarnation: Incarnation, id: &UserId, number: u64) {
        users.change(incarnation, id, |watermark| watermark.sent(number, false));
        users.change(incarnation, id, |watermark| watermark.proven(number));
    }

    /// Writes all that is dirty, and says how large the chunks were, in rows.
    fn write_all(users: &mut Users, max: usize) -> Vec<usize> {
        let (mut left, mut chunks) = (users.count_dirty(), Vec::new());
        loop {
            let chunk = users.take_dirty(max, &mut left);
            if chunk.is_empty() {
                return chunks;
            }
            chunks.push(chunk.skipped().len() + chunk.positions().len() + chunk.cleared().len());
            users.written(&chunk);
        }
    }

    #[test]
    fn a_hundred_thousand_users_are_written_in_bounded_chunks_and_then_forgotten() {
        let mut users = Users::default();
        for number in 0..100_000 {
            prove(&mut users, Incarnation(0), &user(number), 1);
            prove(&mut users, Incarnation(0), &user(number), 2);
        }
        let chunks = write_all(&mut users, 512);
        assert_eq!(chunks.iter().sum::<usize>(), 100_000, "each user once");
        assert!(chunks.iter().all(|rows| *rows <= 512));
        assert!(users.by_id.is_empty() && users.dirty.is_empty());
    }

    #[test]
    fn a_user_with_many_skipped_messages_is_written_in_bounded_chunks() {
        let mut users = Users::default();
        for number in 1..=2_000 {
            users.change(Incarnation(0), &user(1), |watermark| watermark.sent(number, false));
        }
        users.change(Incarnation(0), &user(1), |watermark| watermark.proven(2_000));
        prove(&mut users, Incarnation(0), &user(2), 1);
        let chunks = write_all(&mut users, 512);
        assert_eq!(chunks.iter().sum::<usize>(), 1_999 + 1 + 1);
        assert!(chunks.iter().all(|rows| *rows <= 513));
    }

    #[test]
    fn what_could_not_be_written_is_taken_again_and_what_changed_meanwhile_too() {
        let mut users = Users::default();
        prove(&mut users, Incarnation(0), &user(1), 1);
        let chunk = users.take_dirty(10, &mut 1);
        users.not_written(&chunk);
        let chunk = users.take_dirty(10, &mut 1);
        assert_eq!(chunk.positions(), [(user(1), 1)]);
        prove(&mut users, Incarnation(0), &user(1), 2);
        users.written(&chunk);
        let chunk = users.take_dirty(10, &mut 1);
        assert_eq!(chunk.positions(), [(user(1), 2)]);
        users.written(&chunk);
        assert!(users.by_id.is_empty() && users.dirty.is_empty());
    }

    #[test]
    fn a_user_that_was_written_out_of_turn_is_taken_once_when_its_turn_comes() {
        let mut users = Users::new(true);
        prove(&mut users, Incarnation(0), &user(1), 1);
        let chunk = users.take_of([&user(1), &user(2)], 10);
        assert_eq!(chunk.positions(), [(user(1), 1)]);
        users.ended(&chunk, true);
        prove(&mut users, Incarnation(0), &user(1), 2);
        let chunk = users.take_dirty(10, &mut 10);
        assert_eq!((chunk.positions(), chunk.ids()), (vec![(user(1), 2)], vec![user(1)]));
        users.ended(&chunk, true);
        assert!(users.by_id.is_empty() && users.dirty.is_empty());
    }

    #[test]
    fn a_user_with_more_than_a_chunk_that_could_not_be_written_keeps_no_other_from_being_written() {
        let mut users = Users::default();
        for number in 1..=20 {
            users.change(Incarnation(0), &user(1), |watermark| watermark.skip(number));
        }
        prove(&mut users, Incarnation(0), &user(2), 1);
        let mut left = users.count_dirty();
        let chunk = users.take_dirty(10, &mut left);
        assert_eq!(chunk.ids(), [user(1)]);
        users.ended(&chunk, false);
        assert!(users.take_dirty(10, &mut left).positions().contains(&(user(2), 1)));
    }

    #[test]
    fn none_are_left_to_a_call_whose_users_another_one_has_taken() {
        let mut users = Users::default();
        prove(&mut users, Incarnation(0), &user(1), 1);
        let (mut left, mut also_left) = (users.count_dirty(), users.count_dirty());
        assert_eq!(users.take_dirty(10, &mut left).ids(), [user(1)]);
        assert!(users.take_dirty(10, &mut also_left).is_empty());
        assert_eq!((left, also_left), (0, 0), "neither goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn the_position_of_a_user_in_the_grace_is_written_once_it_is_over() {
        let mut users = Users::default();
        assert_eq!(users.begin_first_resume(Incarnation(0), &user(1), 3), 3);
        prove(&mut users, Incarnation(0), &user(1), 9);
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(users.begin_first_resume(Incarnation(0), &user(1), 9), 3);
        assert_eq!(users.begin_first_resume(Incarnation(0), &user(2), 5), 5);
        tokio::time::advance(GRACE / 2).await;
        assert!(!users.end_graces(10) && users.count_dirty() == 0, "it was prolonged");
        tokio::time::advance(GRACE).await;
        assert!(users.end_graces(1) && !users.end_graces(10));
        assert_eq!(users.take_dirty(10, &mut 1).positions(), [(user(1), 9)]);
        assert!(users.graces.is_empty() && users.get(&user(2)).is_none());
    }

    #[test]
    fn a_report_about_a_forgotten_incarnation_moves_nothing() {
        let mut users = Users::default();
        let before = users.incarnation();
        users.change(before, &user(1), |watermark| watermark.sent(10, false));
        prove(&mut users, before, &user(2), 10);
        let chunk = users.take_dirty(10, &mut 1);
        users.forget_all();
        // The database was restored: 7 is stored anew, and sent.
        let now = users.incarnation();
        users.change(now, &user(1), |watermark| watermark.sent(7, false));
        users.change(before, &user(1), |watermark| watermark.proven(10));
        users.change(before, &user(1), |watermark| watermark.lost(7));
        users.written(&chunk);
        assert_eq!(users.begin_first_resume(before, &user(2), 10), 10);
        assert!(users.get(&user(2)).is_none(), "nothing is noted of it");
        assert_eq!(users.get(&user(1)).map(|watermark| watermark.known().0), Some(0));
        users.change(now, &user(1), |watermark| watermark.proven(7));
        assert_eq!(users.get(&user(1)).map(|watermark| watermark.known().0), Some(7));
    }
}
