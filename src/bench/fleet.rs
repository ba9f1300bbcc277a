//! Many devices.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use super::{
    EVENT, Error,
    device::{Device, Options, Speech},
};

/// Connected devices that read all that comes. They go when it is dropped.
#[derive(Default)]
pub struct Fleet {
    tasks: JoinSet<()>,
    tally: Arc<Tally>,
    resume: Option<String>,
}

/// Where devices connect.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address.
    pub address: SocketAddr,
    /// The server's name in each request.
    pub host: String,
}

/// What the devices of a fleet have seen.
#[derive(Default)]
pub struct Tally {
    connected: AtomicU64,
    arrived: AtomicU64,
    /// The count of arrivals that the first of those who wait, waits for. 0: nobody waits.
    wanted: AtomicU64,
    reached: Notify,
    cut_off: AtomicU64,
    first_cut: Mutex<Option<String>>,
}

/// How many devices connect at one time.
const CONNECTING: usize = 64;
/// How many devices share a source address: well below the number of its ports.
const PER_SOURCE: usize = 250;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 1, 1, 1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { address, host: address.to_string() }
    }
}

impl Place {
    /// Where the device of this number calls from: of loopback many addresses, so that the ports of none run out.
    fn source(&self, number: usize) -> Option<Ipv4Addr> {
        match self.address.ip() {
            IpAddr::V4(address) if address.is_loopback() => {
                let above = u32::try_from(number / PER_SOURCE).unwrap_or(u32::MAX);
                Some(Ipv4Addr::from_bits(FIRST_SOURCE.to_bits().saturating_add(above)))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

impl Fleet {
    /// Devices that only count.
    pub async fn counting(place: &Place, speech: Speech, tokens: Vec<String>) -> Result<Self, Error> {
        let mut fleet = Self::default();
        fleet.connect(place, speech, tokens, |_, _| ()).await?;
        Ok(fleet)
    }

    /// No devices yet. Those that connect over Socket.IO resume from these positions (JSON).
    pub fn resuming(positions: String) -> Self {
        Self { resume: Some(positions), ..Self::default() }
    }

    /// Connects devices with these tokens, 64 at a time. Of each event that is a bench's, `on_event` gets the device's number and the
    /// event's JSON array.
    pub async fn connect(
        &mut self,
        place: &Place,
        speech: Speech,
        tokens: Vec<String>,
        on_event: impl Fn(usize, &[u8]) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let on_event = Arc::new(on_event);
        let resume = self.resume.clone();
        let connecting = stream::iter(tokens.into_iter().enumerate()).map(async |(number, token)| {
            let source = place.source(number);
            let resume = resume.as_deref();
            let options = Options { host: Some(&place.host), source, speech, resume, ..Options::default() };
            let connected = timeout(CONNECT_TIMEOUT, Device::connect(place.address, &token, options)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            connected.map(|device| (number, device)).map_err(|source| Error::Connect {
                number,
                address: place.address,
                source,
            })
        });
        let mut connecting = std::pin::pin!(connecting.buffer_unordered(CONNECTING));
        while let Some(connected) = connecting.next().await {
            let (number, device) = connected?;
            self.tally.connected.fetch_add(1, Ordering::Relaxed);
            let (on_event, tally) = (on_event.clone(), self.tally.clone());
            self.tasks.spawn(async move {
                let end = device.run(|event| {
                    if is_of_a_bench(event) {
                        on_event(number, event);
                        tally.note_arrival();
                    }
                });
                let end = end.await;
                tally.note_cut(number, &end);
            });
        }
        Ok(())
    }

    /// What the devices have seen, for those who look on.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// How many devices are still connected.
    pub fn connected(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len()
    }

    /// Lets all devices go, and waits until they have.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Other events are a server's own, such as a welcome.
fn is_of_a_bench(event: &[u8]) -> bool {
    event
        .strip_prefix(b"[\"")
        .and_then(|event| event.strip_prefix(EVENT.as_bytes()))
        .is_some_and(|rest| rest.first() == Some(&b'"'))
}

impl Tally {
    /// How many devices were let in.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many events came in all.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    /// How many devices were cut off.
    pub fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// What became of the first device that was cut off.
    pub fn first_cut(&self) -> Option<String> {
        self.first_cut.lock().clone()
    }

    /// Waits until so many events have come in all.
    pub async fn reach(&self, arrived: u64) {
        loop {
            let mut reached = std::pin::pin!(self.reached.notified());
            // From here on a wake-up is not missed, so whoever forgets what is wanted below wakes this one.
            reached.as_mut().enable();
            let lower = |wanted| (wanted == 0 || arrived < wanted).then_some(arrived);
            let _ = self.wanted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower);
            if self.arrived() >= arrived {
                return;
            }
            reached.await;
        }
    }

    fn note_arrival(&self) {
        let arrived = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let wanted = self.wanted.load(Ordering::SeqCst);
        if wanted != 0 && arrived >= wanted {
            self.wanted.store(0, Ordering::SeqCst);
            self.reached.notify_waiters();
        }
    }

    fn note_cut(&self, number: usize, end: &io::Error) {
        self.first_cut.lock().get_or_insert_with(|| format!("device {number}: {end}"));
        self.cut_off.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_before_their_ports_run_out() {
        let place = Place::from(SocketAddr::from(([127, 0, 0, 1], 3000)));
        let source = |number| place.source(number).unwrap().to_string();
        assert_eq!((source(249), source(250)), ("127.1.1.1".to_owned(), "127.1.1.2".to_owned()));
        assert_eq!(source(250 * 300), "127.1.2.45");
        let elsewhere = Place::from(SocketAddr::from(([192, 0, 2, 1], 3000)));
        assert_eq!(elsewhere.source(0), None);
    }

    #[test]
    fn a_welcome_is_no_event_of_a_bench() {
        assert!(is_of_a_bench(br#"["bench",{"at":1}]"#));
        assert!(!is_of_a_bench(br#"["connected",{}]"#));
        assert!(!is_of_a_bench(br#"["benches",{}]"#));
    }

    #[tokio::test]
    async fn everyone_who_waits_is_woken_at_their_count() {
        let tally = Arc::new(Tally::default());
        let mut waiting = JoinSet::new();
        for count in [1, 3, 2, 3] {
            let tally = tally.clone();
            waiting.spawn(async move {
                tally.reach(count).await;
                tally.arrived() >= count
            });
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
            tally.note_arrival();
        }
        assert_eq!(waiting.join_all().await, [true; 4]);
    }
}
