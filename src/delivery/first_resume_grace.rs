use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::message::UserId;

/// How soon a device comes back that was cut off before it was told where it stands.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Users whose devices have resumed for the first time lately, and from where on they were given what is stored. Such a device knows no
/// position yet: what was on its way when its connection broke is known to nobody but here.
#[derive(Default)]
pub(super) struct FirstResumeGrace(Mutex<Users>);

#[derive(Default)]
struct Users {
    begins: HashMap<UserId, (u64, Instant)>,
    /// In the order in which they resumed; a user who has resumed again stands here again.
    by_age: VecDeque<(Instant, UserId)>,
}

impl FirstResumeGrace {
    /// From where on a device is given what is stored: from the watermark, or from where one was that may not have got it.
    pub(super) fn begin(&self, user: &UserId, watermark: u64) -> u64 {
        let (mut users, now) = (self.0.lock(), Instant::now());
        let (begin, since) = users.begins.get(user).copied().unwrap_or((watermark, now));
        let begin = if now.duration_since(since) < GRACE { begin.min(watermark) } else { watermark };
        users.begins.insert(user.clone(), (begin, now));
        users.by_age.push_back((now, user.clone()));
        begin
    }

    /// Forgets those who would be back by now.
    pub(super) fn sweep(&self) {
        let mut users = self.0.lock();
        while let Some((_, user)) = users.by_age.pop_front_if(|(since, _)| since.elapsed() >= GRACE) {
            if users.begins.get(&user).is_some_and(|(_, since)| since.elapsed() >= GRACE) {
                users.begins.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_who_comes_back_soon_begins_at_the_same_place() {
        let (first_resume_grace, user) = (FirstResumeGrace::default(), UserId::new("42").unwrap());
        assert_eq!(first_resume_grace.begin(&user, 3), 3);
        assert_eq!(first_resume_grace.begin(&user, 9), 3);
        assert_eq!(first_resume_grace.begin(&UserId::new("43").unwrap(), 5), 5);
        tokio::time::advance(GRACE).await;
        assert_eq!(first_resume_grace.begin(&user, 9), 9);
        tokio::time::advance(GRACE).await;
        first_resume_grace.sweep();
        assert!(first_resume_grace.0.lock().begins.is_empty());
    }
}
