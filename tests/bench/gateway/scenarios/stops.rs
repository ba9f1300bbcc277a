//! How long a server takes to end after SIGTERM, under load, while its store fails.

use crate::{
    report::Report,
    stops::{Fault, Moment, stop_in},
};

const MOST_SECONDS: f64 = 3.0;

pub async fn run(report: &mut Report) {
    for fault in Fault::EACH {
        let moments = [(Moment::AtOnce, ""), (Moment::Noticed, ", noticed")];
        for (moment, noticed) in moments.into_iter().take(if fault.is_noticed() { 2 } else { 1 }) {
            let ended = match Box::pin(stop_in(fault, moment)).await {
                Ok(ended) => ended,
                Err(why) => return report.skipped(&format!("{fault}: {why}")),
            };
            let what = format!("from SIGTERM to the end, {fault}{noticed}");
            report.at_most(&what, ended.took.as_secs_f64(), MOST_SECONDS, "s");
            if !ended.is_good || ended.last_message() != "stopped" {
                report.must(format!("in order, {fault}{noticed}"), ended.last_message(), false);
            }
        }
    }
}
