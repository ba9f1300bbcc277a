use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::{Span, civil::Date, tz::TimeZone};
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};

use crate::clock::Clock;

const SUFFIX: &str = "log";

/// A file for each day of UTC, of which the old ones are deleted. The library's own way to do that counts files instead of
/// days, and takes every file for one of its own whose name begins and ends alike.
#[derive(Debug)]
pub(super) struct Daily {
    file: RollingFileAppender,
    directory: PathBuf,
    name: &'static str,
    keep_days: usize,
    /// When old files were looked for.
    cleaned: Option<Date>,
}

impl Daily {
    /// Opens the file of today, `name.YYYY-MM-DD.log`.
    pub(super) fn open(directory: &Path, name: &'static str, keep_days: usize) -> Result<Self, InitError> {
        let builder = RollingFileAppender::builder().rotation(Rotation::DAILY);
        let file = builder.filename_prefix(name).filename_suffix(SUFFIX).build(directory)?;
        let mut daily = Self { file, directory: directory.to_owned(), name, keep_days, cleaned: None };
        daily.clean(today());
        Ok(daily)
    }

    /// Deletes the files of days that are past keeping, once a day.
    fn clean(&mut self, today: Date) {
        if self.cleaned.replace(today) == Some(today) {
            return;
        }
        let kept =
            i64::try_from(self.keep_days.saturating_sub(1)).ok().and_then(|days| Span::new().try_days(days).ok());
        let Some(oldest) = kept.and_then(|days| today.checked_sub(days).ok()) else {
            return;
        };
        if let Err(error) = self.delete_before(oldest) {
            tracing::warn!(log.name = self.name, %error, "cannot delete old log files");
        }
    }

    fn delete_before(&self, oldest: Date) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let date = entry.file_name().to_str().and_then(|name| self.date_of(name));
            if date.is_some_and(|date| date < oldest) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The day of a file, if it is one of these.
    fn date_of(&self, name: &str) -> Option<Date> {
        let date = name.strip_prefix(self.name)?.strip_prefix('.')?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
        // Other ways to write a day are not ours.
        date.parse::<Date>().ok().filter(|parsed| parsed.to_string() == date)
    }
}

fn today() -> Date {
    Clock::system().now().to_zoned(TimeZone::UTC).date()
}

impl Write for Daily {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.clean(today());
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.filter(|name| *name != format!("error.{}.log", today())).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_older_than_the_days_to_keep_goes_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut daily = Daily::open(directory.path(), "error", 3).unwrap();
        let others = [
            "combined.2020-01-01.log",
            "error.2020-01-01.log.gz",
            "error.20200101.log",
            "error.log",
            "error_page.2020-01-01.log",
        ];
        let kept = ["error.2025-12-30.log", "error.2025-12-31.log", "error.2026-01-01.log"];
        for name in others.into_iter().chain(kept).chain(["error.2025-12-29.log", "error.2020-01-01.log"]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("error.2020-01-02.log")).unwrap();
        let mut left: Vec<_> = others.into_iter().chain(kept).chain(["error.2020-01-02.log"]).collect();
        left.sort_unstable();
        daily.clean("2026-01-01".parse().unwrap());
        assert_eq!(names(directory.path()), left);
        daily.clean("2026-01-02".parse().unwrap());
        assert!(!names(directory.path()).contains(&"error.2025-12-30.log".to_owned()), "the next day it goes on");
    }

    #[test]
    fn a_line_of_a_new_day_cleans_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut daily = Daily::open(directory.path(), "error", 1).unwrap();
        fs::write(directory.path().join("error.2020-01-01.log"), "").unwrap();
        daily.write_all(b"on the same day\n").unwrap();
        assert_eq!(names(directory.path()), ["error.2020-01-01.log"]);
        daily.cleaned = None;
        daily.write_all(b"on the next\n").unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
