use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use transport::Unproven;

/// What is known of messages that are to be proven.
#[derive(Clone, Default)]
pub(super) struct Reports(Arc<Mutex<Vec<Report>>>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Report {
    /// No session has accepted it.
    Unknown,
    Sent,
    Proven,
    Lost,
}

struct Message {
    reports: Reports,
    place: usize,
    count: usize,
    received: Arc<AtomicUsize>,
}

impl Reports {
    /// Makes a message, which the device has when `received` reaches `count`.
    pub(super) fn message(&self, count: usize, received: &Arc<AtomicUsize>) -> Arc<dyn Unproven> {
        let mut reports = self.0.lock();
        reports.push(Report::Unknown);
        Arc::new(Message { reports: self.clone(), place: reports.len() - 1, count, received: received.clone() })
    }

    /// Whether the last message was accepted.
    pub(super) fn knows_last(&self) -> bool {
        self.0.lock().last().is_some_and(|last| *last != Report::Unknown)
    }

    /// Whether messages were accepted of which is not known what became of them.
    pub(super) fn wait(&self) -> bool {
        self.0.lock().contains(&Report::Sent)
    }
}

impl Message {
    fn report(&self, before: Report, now: Report) {
        let reports = &mut *self.reports.0.lock();
        assert_eq!(reports[self.place], before, "then {now:?}");
        reports[self.place] = now;
    }
}

impl Unproven for Message {
    fn sent(&self) {
        self.report(Report::Unknown, Report::Sent);
    }

    fn proven(&self) {
        assert!(self.count <= self.received.load(Ordering::Relaxed), "it is proven, and the device has it not");
        self.report(Report::Sent, Report::Proven);
    }

    fn lost(&self) {
        self.report(Report::Sent, Report::Lost);
    }
}
