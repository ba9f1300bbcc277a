//! How long a server takes to end after SIGTERM, under load, while its store fails.

use crate::{
    report::Report,
    stops::{Fault, Moment, stop_in},
};

const MOST_SECONDS: f64 = 3.0;

pub async fn run(report: &mut Report) {
    for fault in Fault::EACH {
        let mut longest = 0.0_f64;
        // As the fault strikes, and when the server has noticed it.
        for moment in [Moment::AtOnce, Moment::Noticed].into_iter().take(if fault.is_noticed() { 2 } else { 1 }) {
            let ended = match Box::pin(stop_in(fault, moment)).await {
                Ok(ended) => ended,
                Err(why) => {
                    report.skipped(&format!("{fault}: {why}"));
                    break;
                }
            };
            longest = longest.max(ended.took.as_secs_f64());
            if !ended.is_good || ended.last_message() != "stopped" {
                report.must(format!("all done at the end, {fault}"), ended.last_message(), false);
            }
        }
        if longest > 0.0 {
            report.at_most(format!("from SIGTERM under load to the end, {fault}"), longest, MOST_SECONDS, "s");
        }
    }
}
