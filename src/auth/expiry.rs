use std::time::Duration;

use jiff::Timestamp;

use super::{Config, OnExpiry};
use crate::clock::Clock;

/// The longest time until an expiry is looked at again, since timers have an end.
const MAX_WAIT: Duration = Duration::from_hours(24);

/// What happens to live connections when their tokens expire.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// `auth.on_expiry`.
    pub on_expiry: OnExpiry,
    /// `auth.expiring_notice`; zero: devices are not told.
    pub notice: Duration,
    /// `auth.jwt.leeway`.
    pub leeway: Duration,
    /// The time of day.
    pub clock: Clock,
}

/// What is to be done about a token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryDue {
    /// Nothing.
    Nothing,
    /// The device is to be told that its token is about to expire.
    Notice,
    /// The connection is to be closed.
    Close,
}

impl Expiry {
    /// What `[auth]` says.
    pub fn new(config: &Config, clock: Clock) -> Self {
        Self { on_expiry: config.on_expiry, notice: config.expiring_notice, leeway: config.jwt.leeway, clock }
    }

    /// Returns what is due about a token that is refused from `expires_at` on, and how long it is until the next look; `None`: for ever.
    /// `told_of` is the expiry that the device was told of last.
    pub fn due(&self, expires_at: Timestamp, told_of: &mut Option<Timestamp>) -> (ExpiryDue, Option<Duration>) {
        if self.on_expiry != OnExpiry::Close {
            return (ExpiryDue::Nothing, None);
        }
        // With the leeway, as when the token was verified: else a device would be closed and let in again with it.
        let to_end = self.clock.until(expires_at);
        if to_end.is_zero() {
            return (ExpiryDue::Close, None);
        }
        let to_notice = to_end.saturating_sub(self.leeway).saturating_sub(self.notice);
        let is_to_be_told = !self.notice.is_zero() && *told_of != Some(expires_at);
        if is_to_be_told && !to_notice.is_zero() {
            return (ExpiryDue::Nothing, Some(to_notice.min(MAX_WAIT)));
        }
        let due = if is_to_be_told { ExpiryDue::Notice } else { ExpiryDue::Nothing };
        if is_to_be_told {
            *told_of = Some(expires_at);
        }
        (due, Some(to_end.min(MAX_WAIT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_once_and_closed_at_the_end_of_the_leeway() {
        let seconds = Duration::from_secs;
        let (clock, notice, leeway) = (Clock::movable(), seconds(30), seconds(10));
        let expiry = Expiry { on_expiry: OnExpiry::Close, notice, leeway, clock: clock.clone() };
        let expires_at = clock.now() + seconds(100);
        let mut told_of = None;
        let mut due = |ahead: u64| {
            clock.advance(seconds(ahead));
            let (due, next) = expiry.due(expires_at, &mut told_of);
            (due, next.map(|next| next.as_secs_f64().round()))
        };
        assert_eq!(due(0), (ExpiryDue::Nothing, Some(60.0)));
        assert_eq!(due(61), (ExpiryDue::Notice, Some(39.0)));
        assert_eq!(due(1), (ExpiryDue::Nothing, Some(38.0)));
        assert_eq!(due(38), (ExpiryDue::Close, None));
        let keeping = Expiry { on_expiry: OnExpiry::Keep, ..expiry };
        assert_eq!(keeping.due(expires_at, &mut None), (ExpiryDue::Nothing, None));
    }
}
