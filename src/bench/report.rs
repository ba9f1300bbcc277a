//! What was found.

use serde::Serialize;

use super::{
    latency::Percentiles,
    plan::{Plan, Work},
    process::Usage,
};

/// All figures of a bench; what is not known is none. As JSON it is what scripts read.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the load is called.
    pub load: &'static str,
    /// How many devices there were.
    pub devices: usize,
    /// How many emits were measured.
    pub emits: Option<u64>,
    /// Of each payload.
    pub payload_bytes: Option<usize>,
    /// How many callers or streams there were.
    pub concurrency: Option<usize>,
    /// How many emits a second were asked for.
    pub rate: Option<u32>,
    /// From the first emit to the last delivery; or from the first device to the last.
    pub seconds: f64,
    /// Emits by that time.
    pub emits_per_second: Option<f64>,
    /// How many events the devices got.
    pub deliveries: Option<u64>,
    /// How many they did not get.
    pub missing: Option<u64>,
    /// Deliveries by that time.
    pub deliveries_per_second: Option<f64>,
    /// How many devices the server cut off.
    pub cut_off: u64,
    /// How the devices came in.
    pub connect: Connect,
    /// From the time that an emit was due to a device.
    pub delivery_us: Option<Percentiles>,
    /// From the time that an emit was due to its receipt.
    pub answer_us: Option<Percentiles>,
    /// What it took the server.
    pub server: Server,
    /// What it took the load generator.
    pub generator: Generator,
    /// What became of the first device that was cut off.
    #[serde(skip)]
    pub first_cut: Option<String>,
}

/// How the devices came in.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Connect {
    /// From the first to the last.
    pub seconds: f64,
    /// Devices by that time.
    pub devices_per_second: f64,
    /// In microseconds.
    pub server_cpu_us_per_connect: Option<f64>,
}

/// What it took the server, while emits were measured; or while devices connected.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Server {
    /// Processor time.
    pub cpu_seconds: Option<f64>,
    /// In microseconds.
    pub cpu_us_per_emit: Option<f64>,
    /// In microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Before the first device.
    pub resident_bytes_before: Option<u64>,
    /// After the last delivery; or with all devices there, idle.
    pub resident_bytes: Option<u64>,
    /// After all have left.
    pub resident_bytes_after: Option<u64>,
}

/// What it took the load generator in the same time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Generator {
    /// Processor time.
    pub cpu_seconds: Option<f64>,
}

impl Report {
    /// One without anything that came of emits.
    pub fn of(plan: &Plan, connect: Connect) -> Self {
        let emits = match &plan.work {
            Work::Connect { .. } => None,
            Work::Emit(emits) => Some(emits),
        };
        Self {
            load: plan.work.name(),
            devices: plan.devices,
            emits: emits.map(|emits| emits.count),
            payload_bytes: emits.map(|emits| emits.payload_bytes),
            concurrency: emits.map(|emits| emits.concurrency),
            rate: emits.and_then(|emits| emits.rate),
            seconds: connect.seconds,
            emits_per_second: None,
            deliveries: None,
            missing: None,
            deliveries_per_second: None,
            cut_off: 0,
            connect,
            delivery_us: None,
            answer_us: None,
            server: Server::default(),
            generator: Generator::default(),
            first_cut: None,
        }
    }
}

/// How many of these there were a second.
pub fn per_second(things: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    round(things as f64 / seconds.max(f64::EPSILON), 10.0)
}

/// Microseconds of processor time for each of these.
pub fn micros_each(cpu_seconds: f64, things: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    (things > 0).then(|| round(cpu_seconds * 1e6 / things as f64, 1_000.0))
}

/// Processor time between the two.
pub fn cpu_between(before: Option<Usage>, after: Option<Usage>) -> Option<f64> {
    Some(round(after?.cpu_seconds - before?.cpu_seconds, 1e6))
}

/// To so many parts of one.
pub fn round(figure: f64, parts: f64) -> f64 {
    (figure * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::bench::{Emits, To};

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_json_has_each_key_and_null_for_what_is_not_known() {
        let emits = Emits { to: To::User, count: 10, rate: None, payload_bytes: 100, concurrency: 8 };
        let connect = Connect { seconds: 0.5, devices_per_second: 4.0, server_cpu_us_per_connect: None };
        let report = Report::of(&Plan { devices: 2, work: Work::Emit(emits) }, connect);
        let json = serde_json::to_value(&report).unwrap();
        let mut expected = [
            "load",
            "devices",
            "emits",
            "payload_bytes",
            "concurrency",
            "rate",
            "seconds",
            "emits_per_second",
            "deliveries",
            "missing",
            "deliveries_per_second",
            "cut_off",
            "connect",
            "delivery_us",
            "answer_us",
            "server",
            "generator",
        ];
        expected.sort_unstable();
        let mut found = keys(&json);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!((&json["load"], &json["emits"], &json["rate"]), (&"user".into(), &10.into(), &Value::Null));
        assert_eq!(json["server"]["resident_bytes_after"], Value::Null);
        assert_eq!(json["server"].as_object().unwrap().len(), 6);
        let percentiles = Percentiles { p50: 1.0, p90: 2.0, p99: 3.0, p99_9: 4.0, max: 5.0 };
        let text = serde_json::to_string(&percentiles).unwrap();
        assert_eq!(text, r#"{"p50":1.0,"p90":2.0,"p99":3.0,"p99_9":4.0,"max":5.0}"#);
    }

    #[test]
    fn figures_are_by_time_and_by_each() {
        assert!((per_second(1_000, 0.5) - 2_000.0).abs() < f64::EPSILON);
        assert_eq!(micros_each(0.5, 10_000), Some(50.0));
        assert_eq!(micros_each(0.5, 0), None);
        let usage = |cpu_seconds| Some(Usage { cpu_seconds, resident_bytes: 0 });
        assert_eq!(cpu_between(usage(1.1), usage(1.4)), Some(0.3));
        assert_eq!(cpu_between(None, usage(1.4)), None);
    }
}
