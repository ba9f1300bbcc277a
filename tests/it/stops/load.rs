//! Stored emits, marks and devices, until the server has ended.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bugle::proto::v1::{EmitOptions, EmitToUserRequest};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Interval, interval, timeout},
};

use crate::harness::{
    Backend, ConnectError, Device, PATIENCE, PlainDevice, PlainFrame, ServerProcess, http_request, to_user, token,
};

const USERS: usize = 4;
/// The user who is sent stored emits and whose devices connect again and again.
pub(super) const USER: usize = 0;
const EMITTERS: usize = 4;
const MARKERS: usize = 1;
/// Devices that connect, again and again.
const COMERS: usize = 1;
/// How often each of them does something.
const PERIOD: Duration = Duration::from_millis(20);
/// The path of a plain `WebSocket`, in [`CONFIG`].
const PATH: &str = "/plain";

/// What the server has to be configured with.
pub const CONFIG: &str = "[[websocket]]\npath = \"/plain\"\nevents = [\"*\"]\n";

/// Ends with its value.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    server: SocketAddr,
    counts: watch::Sender<Counts>,
    stops_at_errors: AtomicBool,
}

/// What becomes of the emits of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    Stored,
    Refused,
    /// None is answered yet.
    Waiting,
}

#[derive(Default)]
struct Counts {
    sent: usize,
    stored: usize,
    refused: usize,
    marked: usize,
    connected: usize,
}

impl Load {
    pub async fn start(server: &ServerProcess) -> Self {
        let shared = Arc::new(Shared {
            server: server.clients,
            counts: watch::Sender::default(),
            stops_at_errors: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for user in 0..USERS {
            let (resuming, other) = (shared.connect(user, Some(json!({}))), shared.connect(user, None));
            for device in [resuming.await, other.await] {
                tasks.spawn(read(device.expect("the device connects")));
            }
            let plain = PlainDevice::builder(server.clients, PATH).open().await;
            let mut plain = plain.expect("the WebSocket opens");
            plain.authenticate(&token(&user.to_string())).await;
            tasks.spawn(read_plain(plain));
        }
        for emitter in 0..EMITTERS {
            tasks.spawn(emit(shared.clone(), server.backend().await, emitter % USERS));
        }
        for marker in 0..MARKERS {
            tasks.spawn(mark(shared.clone(), marker % USERS));
        }
        for comer in 0..COMERS {
            tasks.spawn(come(shared.clone(), USER + comer % USERS));
        }
        Self { shared, tasks }
    }

    /// Waits until all of it has happened some times.
    pub async fn is_under_way(&self, emits: Emits) {
        let mut counts = self.shared.counts.subscribe();
        let is_under_way = |counts: &Counts| {
            let are_others = counts.marked >= 2 && counts.connected >= 2;
            match emits {
                Emits::Stored => counts.stored >= 20 && are_others,
                Emits::Refused => counts.refused >= 20 && are_others,
                // Marks wait, too.
                Emits::Waiting => counts.sent >= EMITTERS && counts.connected >= 2,
            }
        };
        // A store that is far away on a machine with much to do takes more than is usual.
        let under_way = timeout(2 * PATIENCE, counts.wait_for(is_under_way)).await;
        under_way.expect("the load gets under way").expect("it is shared");
    }

    /// From now on each task ends when something fails.
    pub fn stop_at_errors(&self) {
        self.shared.stops_at_errors.store(true, Ordering::Relaxed);
    }

    /// Drops what is left.
    pub async fn end(mut self) {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(ended.as_ref().err().is_none_or(tokio::task::JoinError::is_cancelled), "{ended:?}");
        }
    }
}

impl Shared {
    async fn connect(&self, user: usize, resume: Option<Value>) -> Result<Device, ConnectError> {
        let device = Device::builder(self.server).token(token(&user.to_string()));
        let device = if let Some(resume) = resume { device.resume(resume) } else { device };
        device.connect().await
    }

    /// Waits until it is time for the next call. `went_well`: the last one did. Returns whether there is a next one.
    async fn goes_on(&self, ticks: &mut Interval, went_well: bool) -> bool {
        ticks.tick().await;
        went_well || !self.stops_at_errors.load(Ordering::Relaxed)
    }
}

async fn emit(shared: Arc<Shared>, backend: Backend, user: usize) {
    let options = Some(EmitOptions { store: true, ..EmitOptions::default() });
    let request = EmitToUserRequest { options, ..to_user(&user.to_string(), "e", "1") };
    let (mut ticks, mut is_stored) = (interval(PERIOD), true);
    while shared.goes_on(&mut ticks, is_stored).await {
        shared.counts.send_modify(|counts| counts.sent += 1);
        is_stored = backend.notify().emit_to_user(request.clone()).await.is_ok();
        shared.counts.send_modify(|counts| *if is_stored { &mut counts.stored } else { &mut counts.refused } += 1);
    }
}

/// Marks everything of a user as read.
async fn mark(shared: Arc<Shared>, user: usize) {
    let authorization = format!("Bearer {}", token(&user.to_string()));
    let headers = [("authorization", &*authorization), ("connection", "close")];
    let request = http_request("PUT", "/bugle/notifications/read", &headers, b"");
    let (mut ticks, mut is_marked) = (interval(PERIOD), true);
    while shared.goes_on(&mut ticks, is_marked).await {
        is_marked = put(shared.server, &request).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
        shared.counts.send_modify(|counts| counts.marked += 1);
    }
}

/// The answer, whenever it comes.
async fn put(server: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Connects and leaves at once, while it is being told what it has missed.
async fn come(shared: Arc<Shared>, user: usize) {
    let (mut ticks, mut is_connected) = (interval(PERIOD), true);
    while shared.goes_on(&mut ticks, is_connected).await {
        let device = shared.connect(user, Some(json!({}))).await;
        is_connected = device.is_ok();
        if let Ok(device) = device {
            shared.counts.send_modify(|counts| counts.connected += 1);
            device.abort().await;
        }
    }
}

async fn read(mut device: Device) {
    while device.try_next(Duration::from_mins(1)).await.is_some() {}
}

async fn read_plain(mut device: PlainDevice) {
    while !matches!(
        device.receive_within(Duration::from_mins(1)).await,
        None | Some(PlainFrame::Cut | PlainFrame::Closed { .. })
    ) {}
}
