use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::message::UserId;

/// How soon a device comes back that was cut off before it was told where it stands.
pub(super) const COMES_BACK_WITHIN: Duration = Duration::from_secs(30);

/// Users whose devices have resumed for the first time lately, and from where on they were given what is stored. Such a device knows no
/// position yet: what was on its way when its connection broke is known to nobody but here.
#[derive(Default)]
pub(super) struct Newcomers(Mutex<HashMap<UserId, (u64, Instant)>>);

impl Newcomers {
    /// From where on a device is given what is stored: from the mark, or from where one was that may not have got it.
    pub(super) fn begin(&self, user: &UserId, mark: u64) -> u64 {
        let mut newcomers = self.0.lock();
        let now = Instant::now();
        let (begin, since) = newcomers.get(user).copied().unwrap_or((mark, now));
        let begin = if now.duration_since(since) < COMES_BACK_WITHIN { begin.min(mark) } else { mark };
        newcomers.insert(user.clone(), (begin, now));
        begin
    }

    /// Forgets those who would be back by now.
    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, (_, since)| since.elapsed() < COMES_BACK_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_back_soon_begins_where_it_began() {
        let (newcomers, user) = (Newcomers::default(), UserId::new("42").unwrap());
        assert_eq!(newcomers.begin(&user, 3), 3);
        assert_eq!(newcomers.begin(&user, 9), 3);
        assert_eq!(newcomers.begin(&UserId::new("43").unwrap(), 5), 5);
        tokio::time::advance(COMES_BACK_WITHIN).await;
        assert_eq!(newcomers.begin(&user, 9), 9);
        tokio::time::advance(COMES_BACK_WITHIN).await;
        newcomers.sweep();
        assert!(newcomers.0.lock().is_empty());
    }
}
