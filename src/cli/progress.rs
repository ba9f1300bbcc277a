use std::{future::pending, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

use crate::bench::Progress;

const REDRAWN_EVERY: Duration = Duration::from_millis(100);
const TEMPLATE: &str = "{msg:>12} [{wide_bar}] {human_pos}/{human_len} {elapsed}";

/// Shows how far a bench is, on standard error if that is a terminal. Goes on until it is dropped.
pub async fn show(progress: &Progress) {
    if !std::io::stderr().is_terminal() {
        return pending().await;
    }
    let bar = Cleared(ProgressBar::new(0));
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.0.set_style(style);
    }
    let (mut ticks, mut what) = (interval(REDRAWN_EVERY), "");
    loop {
        ticks.tick().await;
        let Some(status) = progress.status() else {
            continue;
        };
        if status.what != what {
            what = status.what;
            bar.0.reset();
            bar.0.set_message(what);
            bar.0.set_length(status.total);
        }
        bar.0.set_position(status.done);
    }
}

/// The bar is gone when there is nothing more to show.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
