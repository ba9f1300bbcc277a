use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{Config, Meters, Rate, TooFast, rate::Meter};
use crate::message::UserId;

/// How much devices may send, per connection and per user.
pub struct ClientEvents {
    per_connection: Rate,
    per_user: Meters<UserId>,
}

/// How much one connection may send.
pub struct ConnectionEvents {
    shared: Arc<ClientEvents>,
    user: UserId,
    /// Made for the first event: most connections never send one.
    meters: OnceLock<Box<ConnectionMeters>>,
}

struct ConnectionMeters {
    own: Meter,
    patience: Meter,
}

/// Why an event is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// A limit was met.
    TooFast {
        /// Which one, as the configuration has it.
        limit: &'static str,
        /// When the next event may come.
        retry_after: Duration,
    },
    /// Limits were met so often that the connection should end.
    Abuse,
}

/// As many events as a connection may send at once may be refused in this time by its own limit, before it counts as abuse.
const PATIENCE: Duration = Duration::from_secs(10);
/// But no fewer than these.
const LEAST_PATIENCE: u32 = 10;

impl ClientEvents {
    /// Nothing was sent yet.
    pub fn new(config: &Config) -> Arc<Self> {
        let per_user = Meters::new(config.client_events_per_user);
        Arc::new(Self { per_connection: config.client_events_per_connection, per_user })
    }

    /// What a new connection of this user may send.
    pub fn connection(self: &Arc<Self>, user: UserId) -> ConnectionEvents {
        ConnectionEvents { shared: self.clone(), user, meters: OnceLock::new() }
    }

    fn meters(&self) -> Box<ConnectionMeters> {
        let patience = Meter::within(PATIENCE, self.per_connection.burst.max(LEAST_PATIENCE));
        Box::new(ConnectionMeters { own: Meter::new(self.per_connection), patience })
    }
}

impl ConnectionEvents {
    /// The connection sends an event.
    pub fn take(&self) -> Result<(), Excess> {
        let meters = self.meters.get_or_init(|| self.shared.meters());
        if let Err(TooFast { retry_after }) = meters.own.take() {
            let limit = "limits.client_events_per_connection";
            let excess = Excess::TooFast { limit, retry_after };
            return Err(if meters.patience.take().is_err() { Excess::Abuse } else { excess });
        }
        // Perhaps another connection of the user is to blame.
        let taken = self.shared.per_user.take(&self.user);
        taken.map_err(|TooFast { retry_after }| Excess::TooFast { limit: "limits.client_events_per_user", retry_after })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::limits::tests::config;

    fn events(own: Rate, user: Rate) -> Arc<ClientEvents> {
        ClientEvents::new(&Config { client_events_per_connection: own, client_events_per_user: user, ..config() })
    }

    fn too_fast(limit: &'static str, ms: u64) -> Result<(), Excess> {
        Err(Excess::TooFast { limit, retry_after: Duration::from_millis(ms) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_and_its_user_have_a_limit_each() {
        let events = events(Rate { per_second: 10, burst: 2 }, Rate { per_second: 1, burst: 3 });
        let user = |id| UserId::new(id).unwrap();
        let [phone, tablet, other] = ["a", "a", "b"].map(|id| events.connection(user(id)));
        assert_eq!([phone.take(), phone.take()], [Ok(()); 2]);
        assert_eq!(phone.take(), too_fast("limits.client_events_per_connection", 100));
        assert_eq!(tablet.take(), Ok(()));
        assert_eq!(tablet.take(), too_fast("limits.client_events_per_user", 1000));
        assert_eq!(other.take(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_all_the_same_is_abusive_and_who_is_refused_now_and_then_is_not() {
        let events = events(Rate { per_second: 1, burst: 20 }, Rate { per_second: Rate::UNLIMITED, burst: 1 });
        let connection = events.connection(UserId::new("a").unwrap());
        let mut refused = 0;
        while connection.take() != Err(Excess::Abuse) {
            refused += 1;
        }
        assert_eq!(refused, 20 + 20, "twenty events, and as many refusals");
        let patient = events.connection(UserId::new("b").unwrap());
        for _ in 0..100 {
            assert_ne!(patient.take(), Err(Excess::Abuse));
            advance(Duration::from_millis(700)).await;
        }
    }
}
