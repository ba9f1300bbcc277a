//! What processes take up: a server, from its admin port's metrics; one of this machine, from /proc.

use std::{fs, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Error, Place};

/// What a server has taken up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time since its start, its own and the kernel's for it.
    pub cpu_seconds: f64,
    /// Memory that it holds now.
    pub resident_bytes: u64,
}

/// The port with a server's metrics.
#[derive(Clone, Debug)]
pub struct Admin(Place);

const CPU_SECONDS: &str = "process_cpu_seconds_total";
const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What the kernel counts processor time in (`USER_HZ`).
const TICKS_PER_SECOND: u32 = 100;

impl Admin {
    /// Asks at this address.
    pub fn new(place: Place) -> Self {
        Self(place)
    }

    /// What the server has taken up.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let missing = || io::Error::other(format!("its /metrics have no {CPU_SECONDS} and {RESIDENT_BYTES}"));
        usage_in(&self.metrics().await?).ok_or_else(|| self.failed(missing()))
    }

    /// All metrics, as text in the format of Prometheus.
    pub async fn metrics(&self) -> Result<String, Error> {
        let answer = timeout(ANSWER_TIMEOUT, ask(self.0.address, &self.0.host)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| self.failed(error))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.split(' ').nth(1) == Some("200") {
            return Ok(body.to_owned());
        }
        let status = head.lines().next().unwrap_or_default();
        Err(self.failed(io::Error::other(format!("/metrics answers {status:?}"))))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Admin { address: self.0.address, source }
    }
}

/// With HTTP/1.0, so that the answer comes in one piece and ends with the connection.
async fn ask(address: SocketAddr, host: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn usage_in(metrics: &str) -> Option<Usage> {
    let cpu_seconds = value(metrics, CPU_SECONDS)?;
    let resident = value(metrics, RESIDENT_BYTES)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes")]
    Some(Usage { cpu_seconds, resident_bytes: resident as u64 })
}

/// The first sample of this name in the text format of Prometheus, whatever its labels.
pub fn value(metrics: &str, name: &str) -> Option<f64> {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let mut values = samples.filter_map(|rest| {
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.split_whitespace().next()?.parse().ok()
    });
    values.next()
}

/// All samples of this name that have this label, added up.
pub fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} "));
    let samples = samples.filter(|(labels, _)| labels.split(',').any(|each| each == label));
    samples.filter_map(|(_, figure)| figure.split_whitespace().next()?.parse::<f64>().ok()).sum()
}

/// Processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// The process's own.
    pub user: Duration,
    /// The kernel's for it.
    pub kernel: Duration,
}

/// Processor time of a process of this machine; not known where there is no /proc.
pub fn cpu_time(process: u32) -> Option<CpuTime> {
    ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// That of this process, its own and the kernel's for it.
pub fn own_cpu_time() -> Option<Duration> {
    cpu_time(std::process::id()).map(|CpuTime { user, kernel }| user + kernel)
}

fn ticks(stat: &str) -> Option<CpuTime> {
    // A process's name may have blanks and brackets in it. utime and stime are the 14th and the 15th field; the first two end with
    // the bracket.
    let fields: Vec<_> = stat.rsplit(") ").next()?.split(' ').collect();
    let time = |place: usize| Some(Duration::from_secs(1) * fields.get(place)?.parse().ok()? / TICKS_PER_SECOND);
    Some(CpuTime { user: time(11)?, kernel: time(12)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_metrics_with_and_without_labels() {
        let metrics = "# HELP process_cpu_seconds_total Total.\n# TYPE process_cpu_seconds_total counter\n\
                       process_cpu_seconds_total_more 9\nprocess_cpu_seconds_total 12.34\n\
                       process_resident_memory_bytes{app=\"a b\",path=\"{}\"} 5.6e7 1700000000\n";
        assert_eq!(usage_in(metrics), Some(Usage { cpu_seconds: 12.34, resident_bytes: 56_000_000 }));
    }

    #[test]
    fn samples_of_a_label_are_added_up() {
        let metrics = "a{d=\"in\",k=\"x\"} 2\na{d=\"out\",k=\"x\"} 4\na{k=\"y\",d=\"in\"} 3\nab{d=\"in\"} 9\n";
        assert!((sum(metrics, "a", "d=\"in\"") - 5.0).abs() < f64::EPSILON);
        assert!(sum(metrics, "b", "d=\"in\"").abs() < f64::EPSILON);
    }

    #[test]
    fn a_process_without_the_figures_has_none() {
        assert_eq!(usage_in("process_cpu_seconds_total 1\n"), None);
        assert_eq!(usage_in("process_cpu_seconds_total x\nprocess_resident_memory_bytes 1\n"), None);
        assert_eq!(usage_in(""), None);
    }

    #[test]
    fn processor_time_is_read_whatever_the_process_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 300 0 0 0 150 25 0 0 20 0 3 0 100 1000 200";
        let (user, kernel) = (Duration::from_millis(1_500), Duration::from_millis(250));
        assert_eq!(ticks(stat), Some(CpuTime { user, kernel }));
        assert_eq!(ticks("7 (a)"), None);
    }
}
