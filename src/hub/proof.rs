use std::{fmt, sync::Arc};

/// A message whose receipt is to be proven, as the connections that send it report it. Every method is called with locks held: it must
/// not block, and must not call the hub.
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

/// A message that one connection has accepted and whose receipt is not proven. Dropping it reports the message as lost.
#[derive(Debug)]
pub struct InFlight(Option<Arc<dyn Unproven>>);

impl InFlight {
    /// Reports the message as sent.
    pub fn new(unproven: Arc<dyn Unproven>) -> Self {
        unproven.sent();
        Self(Some(unproven))
    }

    /// Reports that the device has received the message.
    pub fn proven(mut self) {
        if let Some(unproven) = self.0.take() {
            unproven.proven();
        }
    }
}

impl Drop for InFlight {
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
        InFlight::new(reports.clone()).proven();
        assert_eq!(*reports.0.lock(), ["sent", "proven"]);
        drop(InFlight::new(reports.clone()));
        assert_eq!(*reports.0.lock(), ["sent", "proven", "sent", "lost"]);
    }
}
