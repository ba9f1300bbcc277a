use std::{collections::VecDeque, fmt, sync::Arc};

/// A message whose receipt is to be proven, as the connections that send it report it. Every method is called with locks held: it must
/// not block, and must not send anything to a connection.
pub trait Unproven: Send + Sync + 'static {
    /// A connection accepted the message. Exactly one call of `proven` or `lost` follows for that connection.
    fn sent(&self);

    /// The device of one connection has proven that it received the message.
    fn proven(&self);

    /// One connection ended, or gave the message up, without a proof.
    fn lost(&self);
}

impl fmt::Debug for dyn Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unproven")
    }
}

/// The messages that one connection has accepted and whose receipt is not proven, by the numbers of their last packets. Dropping it
/// reports them as lost.
#[derive(Debug, Default)]
pub struct InFlight(VecDeque<(u64, InFlightGuard)>);

impl InFlight {
    /// The most that may be in flight, so that a device that reads and never proves anything does not make it grow without end.
    const MAX: usize = 65_536;

    /// Reports a message as sent whose last packet has this number.
    pub(super) fn push(&mut self, number: u64, unproven: &Arc<dyn Unproven>) {
        self.0.push_back((number, InFlightGuard::new(unproven.clone())));
    }

    /// Reports those as received whose packets have numbers up to this one.
    pub(super) fn prove(&mut self, upto: u64) {
        while let Some((_, message)) = self.0.pop_front_if(|(number, _)| *number <= upto) {
            message.proven();
        }
    }

    /// Whether the device has to prove some before it is sent more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= Self::MAX
    }

    /// Whether so few are in flight that a device can be given what it has missed.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < Self::MAX / 2
    }
}

/// A message that one connection has accepted. Dropping it reports the message as lost.
#[derive(Debug)]
struct InFlightGuard(Option<Arc<dyn Unproven>>);

impl InFlightGuard {
    fn new(unproven: Arc<dyn Unproven>) -> Self {
        unproven.sent();
        Self(Some(unproven))
    }

    fn proven(mut self) {
        if let Some(unproven) = self.0.take() {
            unproven.proven();
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if let Some(unproven) = self.0.take() {
            unproven.lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Reports(Mutex<Vec<&'static str>>);

    impl Unproven for Reports {
        fn sent(&self) {
            self.0.lock().push("sent");
        }

        fn proven(&self) {
            self.0.lock().push("proven");
        }

        fn lost(&self) {
            self.0.lock().push("lost");
        }
    }

    #[test]
    fn a_message_in_flight_is_reported_once_as_sent_and_once_as_proven_or_lost() {
        let reports = Arc::new(Reports::default());
        let unproven: Arc<dyn Unproven> = reports.clone();
        let mut in_flight = InFlight::default();
        in_flight.push(3, &unproven);
        in_flight.push(5, &unproven);
        in_flight.prove(4);
        assert_eq!(*reports.0.lock(), ["sent", "sent", "proven"]);
        drop(in_flight);
        assert_eq!(*reports.0.lock(), ["sent", "sent", "proven", "lost"]);
    }

    #[test]
    fn a_device_that_proves_nothing_is_sent_no_more() {
        let unproven: Arc<dyn Unproven> = Arc::new(Reports::default());
        let mut in_flight = InFlight::default();
        for number in 0..InFlight::MAX as u64 {
            assert!(!in_flight.is_full());
            in_flight.push(number, &unproven);
        }
        assert!(in_flight.is_full() && !in_flight.has_room());
        in_flight.prove(40_000);
        assert!(!in_flight.is_full() && in_flight.has_room());
    }
}
