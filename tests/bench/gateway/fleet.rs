//! Many devices.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;

use super::{
    device::{Device, Options, Speech},
    server::Server,
};

/// Called with the device's number and the event's JSON array.
pub type OnEvent = Arc<dyn Fn(usize, &[u8]) + Send + Sync>;

/// Connected devices that read all that comes. They go when it is dropped.
pub struct Fleet {
    tasks: JoinSet<()>,
    arrived: Arc<AtomicU64>,
}

/// How many devices connect at one time.
const CONNECTING: usize = 64;
/// How many devices share a source address: well below the number of its ports.
const PER_SOURCE: usize = 4_000;

impl Fleet {
    /// Connects devices with these tokens.
    pub async fn connect(server: &Server, tokens: Vec<String>, on_event: OnEvent) -> Self {
        Self::speaking(Speech::SocketIo, server, tokens, on_event).await
    }

    /// The same, with devices that speak this.
    async fn speaking(speech: Speech, server: &Server, tokens: Vec<String>, on_event: OnEvent) -> Self {
        let mut fleet = Self { tasks: JoinSet::new(), arrived: Arc::default() };
        let address = server.clients();
        let connecting = stream::iter(tokens.into_iter().enumerate()).map(async |(number, token)| {
            let host = u8::try_from(number / PER_SOURCE + 1).expect("a million devices at most");
            let options = Options { source: Some(Ipv4Addr::new(127, 1, 1, host)), receive_buffer: None, speech };
            let connected = Device::connect(address, &token, options).await;
            (number, connected.expect("the device connects"))
        });
        let mut connecting = std::pin::pin!(connecting.buffer_unordered(CONNECTING));
        while let Some((number, device)) = connecting.next().await {
            let (on_event, arrived) = (on_event.clone(), fleet.arrived.clone());
            fleet.tasks.spawn(device.run(move |event| {
                on_event(number, event);
                arrived.fetch_add(1, Ordering::Release);
            }));
        }
        fleet
    }

    /// Devices that only count.
    pub async fn counting(server: &Server, tokens: Vec<String>) -> Self {
        Self::silent(Speech::SocketIo, server, tokens).await
    }

    /// Devices that speak this and only count.
    pub async fn silent(speech: Speech, server: &Server, tokens: Vec<String>) -> Self {
        Self::speaking(speech, server, tokens, Arc::new(|_, _| ())).await
    }

    /// How many events came in all.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// Waits until so many events have come.
    pub async fn expect(&self, arrived: u64) {
        let begun = Instant::now();
        while self.arrived() < arrived {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} of {arrived} events came", self.arrived());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many devices are still connected.
    pub fn connected(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.len()
    }
}
