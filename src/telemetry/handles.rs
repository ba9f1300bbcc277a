//! The handles of metrics that each emit counts in. A look into the recorder's registry copies the labels and costs more than the count, so
//! each thread keeps the handles that it has used.

use std::cell::{OnceCell, RefCell};

use metrics::{Counter, Histogram, counter, histogram};

use super::{DELIVERIES, EMIT_SECONDS, bus};

/// A counter with two labels, by where its name and their values stand: all of them are constants, and few.
struct Known {
    name: &'static str,
    values: [&'static str; 2],
    counter: Counter,
}

thread_local! {
    static COUNTERS: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
    static DELIVERED: OnceCell<Counter> = const { OnceCell::new() };
    static EMIT_TIMES: OnceCell<Histogram> = const { OnceCell::new() };
    static BUS_TIMES: OnceCell<Histogram> = const { OnceCell::new() };
}

/// Adds one to a counter with these labels.
pub(super) fn count(name: &'static str, labels: [(&'static str, &'static str); 2]) {
    let [(first, one), (second, other)] = labels;
    COUNTERS.with_borrow_mut(|known| {
        let is_it = |known: &&Known| {
            std::ptr::eq(known.name, name) && std::ptr::eq(known.values[0], one) && std::ptr::eq(known.values[1], other)
        };
        if let Some(known) = known.iter().find(is_it) {
            return known.counter.increment(1);
        }
        let counter = counter!(name, first => one, second => other);
        counter.increment(1);
        known.push(Known { name, values: [one, other], counter });
    });
}

/// Events that queues took.
pub(super) fn delivered(count: u64) {
    DELIVERED.with(|known| known.get_or_init(|| counter!(DELIVERIES)).increment(count));
}

/// What an emit took, in seconds.
pub(super) fn emit_took(seconds: f64) {
    EMIT_TIMES.with(|known| known.get_or_init(|| histogram!(EMIT_SECONDS)).record(seconds));
}

/// What the answers of all nodes took, in seconds.
pub(super) fn bus_answered(seconds: f64) {
    BUS_TIMES.with(|known| known.get_or_init(|| histogram!(bus::SECONDS)).record(seconds));
}
