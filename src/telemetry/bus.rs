//! What the bus between nodes tells.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const FRAMES: &str = "bugle_bus_frames_total";
const MISSING: &str = "bugle_bus_answers_missing_total";
const LATE: &str = "bugle_bus_late_total";
const REFUSED: &str = "bugle_bus_refused_total";
pub(super) const SECONDS: &str = "bugle_bus_seconds";
const GAPS: &str = "bugle_bus_gaps_total";
pub(super) const GAP_SECONDS: &str = "bugle_bus_gap_seconds";
const ROOMS: &str = "bugle_bus_rooms";
const WAITING: &str = "bugle_bus_waiting_bytes";
const PEERS: &str = "bugle_peers";
const READY_PEERS: &str = "bugle_ready_peers";
const SKEW: &str = "bugle_clock_skew_seconds";
const PARTIAL: &str = "bugle_receipts_partial_total";

pub(super) const SECONDS_BUCKETS: [f64; 10] = [100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1.0];
pub(super) const GAP_SECONDS_BUCKETS: [f64; 8] = [50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 10.0, 60.0];

pub(super) fn describe() {
    describe_counter!(FRAMES, "Frames between nodes, by direction and kind");
    describe_counter!(MISSING, "Answers of other nodes that did not come in time");
    describe_counter!(
        LATE,
        "Frames that came too late and were not executed, and answers that nobody waited for any more"
    );
    describe_counter!(REFUSED, "Frames and answers of other nodes that cannot be understood, by reason");
    describe_histogram!(SECONDS, metrics::Unit::Seconds, "From publishing a frame to its last answer");
    describe_counter!(GAPS, "Times at which the subscriptions at the engine were lost, by reason");
    describe_histogram!(
        GAP_SECONDS,
        metrics::Unit::Seconds,
        "From the loss of the subscriptions until all rooms were subscribed again"
    );
    describe_gauge!(ROOMS, "Rooms that this node is subscribed to");
    describe_gauge!(WAITING, "Bytes of frames that were received and are not executed yet");
    describe_gauge!(PEERS, "Nodes with a lease, this one among them");
    describe_gauge!(READY_PEERS, "Nodes whose rooms are all subscribed, this one among them");
    describe_gauge!(SKEW, "How far the engine's clock is ahead of this node's");
    describe_counter!(
        PARTIAL,
        "Receipts that may leave out connections, since a node has not answered or was not ready"
    );
}

/// A frame was sent or received.
pub fn bus_frame(direction: &'static str, kind: &'static str) {
    super::handles::count(FRAMES, [("direction", direction), ("kind", kind)]);
}

/// So many answers did not come in time.
pub fn bus_answers_missing(answers: u64) {
    if answers > 0 {
        counter!(MISSING).increment(answers);
    }
}

/// A frame, or an answer, came too late.
pub fn bus_late() {
    counter!(LATE).increment(1);
}

/// A frame or an answer cannot be understood.
pub fn bus_refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// All nodes have answered a frame, or the deadline has come.
pub fn bus_answered(took: Duration) {
    super::handles::bus_answered(took.as_secs_f64());
}

/// The subscriptions are lost.
pub fn bus_gap(reason: &'static str) {
    counter!(GAPS, "reason" => reason).increment(1);
}

/// They are there again.
pub fn bus_gap_ended(took: Duration) {
    histogram!(GAP_SECONDS).record(took);
}

/// This node is subscribed to so many rooms.
#[expect(clippy::cast_precision_loss, reason = "a count of things in memory is far below 2^52")]
pub fn bus_rooms(rooms: usize) {
    gauge!(ROOMS).set(rooms as f64);
}

/// So many bytes of frames wait.
#[expect(clippy::cast_precision_loss, reason = "a count of bytes in memory is far below 2^52")]
pub fn bus_waiting(bytes: usize) {
    gauge!(WAITING).set(bytes as f64);
}

/// So many nodes have a lease, and so many are ready.
#[expect(clippy::cast_precision_loss, reason = "nodes are few")]
pub fn peers(live: usize, ready: u64) {
    gauge!(PEERS).set(live as f64);
    gauge!(READY_PEERS).set(ready as f64);
}

/// The engine's clock is ahead of this node's by this.
#[expect(clippy::cast_precision_loss, reason = "a gauge of milliseconds")]
pub fn clock_skew(ms: i64) {
    gauge!(SKEW).set(ms as f64 / 1_000.0);
}

/// A receipt may leave out connections.
pub fn receipt_partial() {
    counter!(PARTIAL).increment(1);
}
