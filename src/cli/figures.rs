//! A bench's report for people.

use std::fmt::Write;

use crate::bench::{Percentiles, Report};

const UNKNOWN: &str = "-";

/// A few aligned lines.
pub fn table(report: &Report) -> String {
    let mut text = heading(report);
    // Writing into a text does not fail.
    let mut row = |name: &str, figures: String| {
        let _ = writeln!(text, "{name:<12}{}", figures.trim_end());
    };
    let connect = &report.connect;
    row("connects", rate(connect.devices_per_second, connect.server_cpu_us_per_connect));
    if let Some(emits) = report.emits_per_second {
        row("emits", rate(emits, report.server.cpu_us_per_emit));
    }
    if let Some(deliveries) = report.deliveries_per_second {
        row("deliveries", rate(deliveries, report.server.cpu_us_per_delivery));
    }
    if report.answer_us.is_some() || report.delivery_us.is_some() {
        row("", ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>10}")).concat());
        row("answered", latencies(report.answer_us.as_ref()));
        row("delivered", latencies(report.delivery_us.as_ref()));
    }
    row("server", server(report));
    row("generator", format!("{:>10}", cpu(report.generator.cpu_seconds)));
    text
}

fn heading(report: &Report) -> String {
    let mut text = format!("bugle bench {}: {} devices", report.load, count(report.devices as u64));
    if let (Some(emits), Some(bytes), Some(callers)) = (report.emits, report.payload_bytes, report.concurrency) {
        let rate = report.rate.map_or_else(|| "unpaced".to_owned(), |rate| format!("{} a second", count(rate.into())));
        let _ =
            write!(text, ", {} emits of {} bytes, {} at a time, {rate}", count(emits), count(bytes as u64), callers);
    }
    let _ = write!(text, "; {:.2} s", report.seconds);
    if let (Some(deliveries), Some(missing)) = (report.deliveries, report.missing) {
        let _ = write!(text, ", {} deliveries, {} missing", count(deliveries), count(missing));
    }
    text + "\n\n"
}

fn rate(per_second: f64, cpu_us: Option<f64>) -> String {
    let each = cpu_us.map(|each| format!("   {} of server CPU each", micros(each))).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of what was counted")]
    let per_second = per_second.round() as u64;
    format!("{:>10} /s{each}", count(per_second))
}

fn latencies(percentiles: Option<&Percentiles>) -> String {
    let Some(Percentiles { p50, p90, p99, p99_9, max }) = percentiles else {
        return format!("{UNKNOWN:>10}");
    };
    [p50, p90, p99, p99_9, max].map(|&figure| format!("{:>10}", micros(figure))).concat()
}

fn server(report: &Report) -> String {
    let server = &report.server;
    let mut text = format!("{:>10}", cpu(server.cpu_seconds));
    let memory = [
        ("before", server.resident_bytes_before),
        (if report.emits.is_some() { "at the end" } else { "with all devices idle" }, server.resident_bytes),
        ("after all left", server.resident_bytes_after),
    ];
    let known = memory.into_iter().filter_map(|(when, bytes)| Some(format!("{} {when}", mebibytes(bytes?))));
    let known: Vec<_> = known.collect();
    if !known.is_empty() {
        let _ = write!(text, "   memory {}", known.join(", "));
    }
    if let (None, Some(before), Some(idle)) = (report.emits, server.resident_bytes_before, server.resident_bytes) {
        #[expect(clippy::cast_precision_loss, reason = "a number of bytes")]
        let each = (idle as f64 - before as f64) / report.devices.max(1) as f64 / 1024.0;
        let _ = write!(text, "; {each:.1} KiB per device");
    }
    text
}

fn cpu(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| UNKNOWN.to_owned(), |seconds| format!("{seconds:.2} s CPU"))
}

#[expect(clippy::cast_precision_loss, reason = "a number of bytes")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Three digits, more or less, and the unit that suits them.
pub fn micros(micros: f64) -> String {
    match micros {
        ..100.0 => format!("{micros:.1} µs"),
        ..1_000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// With commas between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas() {
        let texts = [0, 999, 1_000, 1_234_567].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts = [4.04, 123.4, 1_234.0, 56_789.0, 2_345_678.0].map(micros);
        assert_eq!(texts, ["4.0 µs", "123 µs", "1.23 ms", "57 ms", "2.35 s"]);
    }
}
