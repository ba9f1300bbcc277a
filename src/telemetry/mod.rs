//! What the server tells about itself: logs and metrics, and the names in both.

mod logs;
pub use logs::{Config, LogError, LogFiles, LogFormat, logs, start_logs};

pub mod audit;

mod bus;
pub use bus::{
    bus_answered, bus_answers_missing, bus_frame, bus_gap, bus_gap_ended, bus_late, bus_refused, bus_rooms,
    bus_waiting, clock_skew, peers, receipt_partial,
};

mod daily;

mod handles;

mod lines;

mod routes;
pub use routes::is_ours_or_grave;

use std::{sync::OnceLock, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metrics' recorder could not be made.
    #[error("metrics did not start")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Makes the process's one recorder, or gives it if it was made before.
pub fn start_metrics() -> Result<PrometheusHandle, Error> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    static MAKING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _making = MAKING.lock();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(EMIT_SECONDS.into()), &EMIT_SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_SECONDS.into()), &COMMIT_SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(bus::SECONDS.into()), &bus::SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(bus::GAP_SECONDS.into()), &bus::GAP_SECONDS_BUCKETS)?
        .install_recorder()?;
    describe();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// How often what was measured is added up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Adds up what was measured, until a stop is asked for: it would be kept, each emit's time by itself, until somebody asks for the metrics.
pub async fn keep_up(metrics: PrometheusHandle, stopping: impl Future<Output = ()>) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => return,
            _ = tick.tick() => metrics.run_upkeep(),
        }
    }
}

const CONNECTIONS: &str = "bugle_connections";
const USERS: &str = "bugle_users";
const ROOMS: &str = "bugle_rooms";
const CONNECTS: &str = "bugle_connects_total";
const CLOSES: &str = "bugle_closes_total";
const CLOSES_UNANNOUNCED: &str = "bugle_closes_unannounced_total";
const QUEUES_TRIMMED: &str = "bugle_queues_trimmed_total";
const REFUSALS: &str = "bugle_refusals_total";
const CLIENT_EVENTS_REFUSED: &str = "bugle_client_events_refused_total";
const EMITS: &str = "bugle_emits_total";
const DELIVERIES: &str = "bugle_deliveries_total";
const DROPS: &str = "bugle_drops_total";
const EMIT_SECONDS: &str = "bugle_emit_seconds";
const STORED: &str = "bugle_stored_total";
const COMMIT_SECONDS: &str = "bugle_store_commit_seconds";
const ACKS: &str = "bugle_acks_total";
const GRPC_CALLS: &str = "bugle_grpc_calls_total";
const GRPC_STREAMS_BROKEN: &str = "bugle_grpc_streams_broken_total";
const AUDIT_DROPPED: &str = "bugle_audit_dropped_total";
const LOG_LINES_LOST: &str = "bugle_log_lines_lost_total";

const EMIT_SECONDS_BUCKETS: [f64; 14] =
    [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5];

const COMMIT_SECONDS_BUCKETS: [f64; 9] = [0.5e-3, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5];

fn describe() {
    describe_gauge!(CONNECTIONS, "Connections of devices");
    describe_gauge!(USERS, "Users with a connection");
    describe_gauge!(ROOMS, "Rooms with a connection");
    describe_counter!(CONNECTS, "Connections that were let in, by the transport that they began with");
    describe_counter!(CLOSES, "Connections that ended, by reason");
    describe_counter!(CLOSES_UNANNOUNCED, "Connections closed without telling the device why, for want of room");
    describe_counter!(QUEUES_TRIMMED, "Connections closed as slow since all write queues together were too large");
    describe_counter!(REFUSALS, "What was refused, by edge and reason");
    describe_counter!(CLIENT_EVENTS_REFUSED, "Events from devices that no rule allows, by reason");
    describe_counter!(EMITS, "Emits, by audience and outcome");
    describe_counter!(DELIVERIES, "Events that a connection's queue took");
    describe_counter!(DROPS, "Events that a connection's queue did not take");
    describe_histogram!(EMIT_SECONDS, metrics::Unit::Seconds, "From the call's arrival to the last enqueue");
    describe_counter!(STORED, "Messages that were kept, or were known already by their idempotency keys");
    describe_histogram!(COMMIT_SECONDS, metrics::Unit::Seconds, "What one transaction of the store took");
    describe_counter!(ACKS, "What became of events that asked for an acknowledgement, by outcome");
    describe_counter!(GRPC_CALLS, "gRPC calls, by method and code; of streams, the code that they began with");
    describe_counter!(GRPC_STREAMS_BROKEN, "gRPC streams that had begun well and ended otherwise, by code");
    describe_counter!(AUDIT_DROPPED, "Lines that the audit log lacks, since the disk did not keep up or failed");
    describe_counter!(LOG_LINES_LOST, "Lines that the log files lack, since the disk did not keep up or failed");
    bus::describe();
    metrics_process::Collector::default().describe();
}

/// Renders all metrics in the Prometheus text format, with these numbers for the gauges.
pub fn render(metrics: &PrometheusHandle, connections: u64, users: u64, rooms: u64) -> String {
    for (name, value) in [(CONNECTIONS, connections), (USERS, users), (ROOMS, rooms)] {
        #[expect(clippy::cast_precision_loss, reason = "a count of things in memory is far below 2^52")]
        gauge!(name).set(value as f64);
    }
    metrics_process::Collector::default().collect();
    metrics.render()
}

/// A connection was let in.
pub fn connection_opened(transport: &'static str) {
    counter!(CONNECTS, "transport" => transport).increment(1);
}

/// A connection ended.
pub fn connection_closed(reason: &'static str) {
    counter!(CLOSES, "reason" => reason).increment(1);
}

/// A connection was closed whose queue had no room to be told why.
pub fn closed_unannounced() {
    counter!(CLOSES_UNANNOUNCED).increment(1);
}

/// So many connections were closed since all write queues together were too large.
pub fn queues_trimmed(connections: u64) {
    counter!(QUEUES_TRIMMED).increment(connections);
}

/// Somebody was refused at an edge (`socketio`, `grpc`).
pub fn refused(edge: &'static str, reason: &'static str) {
    counter!(REFUSALS, "edge" => edge, "reason" => reason).increment(1);
}

/// An event of a device was refused.
pub fn client_event_refused(reason: &'static str) {
    counter!(CLIENT_EVENTS_REFUSED, "reason" => reason).increment(1);
}

/// An emit came to its end. `outcome` is `sent`, `duplicate` or `refused`.
pub fn emitted(audience: &'static str, outcome: &'static str) {
    handles::count(EMITS, [("audience", audience), ("outcome", outcome)]);
}

/// An emit was fanned out.
pub fn fanned_out(enqueued: u64, dropped: u64, took: Duration) {
    handles::delivered(enqueued);
    if dropped > 0 {
        counter!(DROPS).increment(dropped);
    }
    handles::emit_took(took.as_secs_f64());
}

/// The store wrote so many messages in one transaction.
pub fn stored(messages: usize, took: Duration) {
    counter!(STORED).increment(messages as u64);
    histogram!(COMMIT_SECONDS).record(took);
}

/// It is known what became of an event at a connection that was asked for an acknowledgement.
pub fn acknowledged(outcome: &'static str) {
    counter!(ACKS, "outcome" => outcome).increment(1);
}

/// A gRPC stream that had begun well ended otherwise.
pub fn grpc_stream_ended(code: &'static str) {
    counter!(GRPC_STREAMS_BROKEN, "code" => code).increment(1);
}

/// A gRPC call was answered.
pub fn grpc_answered(method: &'static str, code: &'static str) {
    handles::count(GRPC_CALLS, [("method", method), ("code", code)]);
}

/// A line did not get into the audit log.
fn audit_line_dropped() {
    counter!(AUDIT_DROPPED).increment(1);
}

/// A line did not get into a log file.
fn log_line_lost() {
    counter!(LOG_LINES_LOST).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render_with_the_gauges_given() {
        let metrics = start_metrics().unwrap();
        fanned_out(3, 1, Duration::from_micros(20));
        let text = render(&metrics, 5, 4, 7);
        for line in
            ["bugle_connections 5", "bugle_users 4", "bugle_rooms 7", "bugle_emit_seconds_bucket{le=\"0.000025\"}"]
        {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(text.contains("process_open_fds"));
    }
}
