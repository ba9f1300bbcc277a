//! Resident memory for each idle connection, and what stays when all have left.

use std::time::Duration;

use crate::{
    backend::Backend,
    fleet::Fleet,
    report::Report,
    server::{Server, tokens},
};

const DEVICES: usize = 5_000;
const MOST_KIB: f64 = 20.0;
/// Longer than what a connection holds for its beginning alone.
const SETTLES: Duration = Duration::from_secs(7);

pub async fn run(report: &mut Report) {
    let server = Server::start().await;
    let mut backend = Backend::connect(&server).await;
    backend.connections().await;
    let before = server.resident_kib();
    for cycle in ["", ", once more"] {
        let fleet = Fleet::counting(&server, tokens(DEVICES, &[])).await;
        assert_eq!(backend.connections().await, DEVICES as u64);
        tokio::time::sleep(SETTLES).await;
        let each = kib_each(before, server.resident_kib());
        report.at_most(
            format!("resident memory per idle WebSocket connection, of {DEVICES}{cycle}"),
            each,
            MOST_KIB,
            "KiB",
        );
        drop(fleet);
        while backend.connections().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(SETTLES).await;
        let left = kib_each(before, server.resident_kib());
        report.figure(format!("resident memory per connection when all have left{cycle}"), format!("{left:.1} KiB"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of KiB are small")]
fn kib_each(before: u64, after: u64) -> f64 {
    (after as f64 - before as f64) / DEVICES as f64
}
