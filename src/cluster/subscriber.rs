//! The subscribing connection to one engine: it is opened again whenever it is lost, and the node is ready once all its rooms are subscribed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

#[cfg(test)]
use super::broken::{Rule, is_broken};
use super::{
    BusError,
    engine::{ConnectError, backoff},
    incoming::{Message, WaitingBytes},
    rooms::Request,
    shard::{Client, Shard},
};
use crate::message::RoomName;
use crate::telemetry;

/// Rooms that one command subscribes.
const MAX_SUBSCRIBED: usize = 500;
const PING_INTERVAL: Duration = Duration::from_millis(500);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why a subscribing connection is of no use any more.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// The engine closed it, or the network.
    Disconnected,
    /// There was no answer in time.
    Unanswered,
    /// More was received than may wait.
    Behind,
    /// The lease has ended.
    Fenced,
    /// This node leaves.
    Leaving,
}

impl Lost {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Unanswered => "unanswered",
            Self::Behind => "behind",
            Self::Fenced => "fenced",
            Self::Leaving => "leaving",
        }
    }
}

/// What the connection's task tells.
struct Intake {
    messages: mpsc::UnboundedSender<Message>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    is_lost: AtomicBool,
    lost: Notify,
    is_behind: AtomicBool,
}

/// One subscribing connection.
struct Subscription {
    connection: MultiplexedConnection,
    intake: Arc<Intake>,
}

impl Shard {
    /// Keeps the node subscribed, until it leaves.
    pub(super) async fn subscribe_loop(self: Arc<Self>, messages: mpsc::UnboundedSender<Message>) {
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut replication_id = None;
        let (mut began, mut swept) = (Instant::now(), Instant::now());
        while !self.is_leaving.load(Ordering::Acquire) {
            let Ok(mut subscription) = self.open_subscription(&messages, &waiting).await else {
                self.refuse_late_requests().await;
                if swept.elapsed() >= SWEEP_INTERVAL {
                    swept = Instant::now();
                    self.forget_empty_rooms();
                }
                sleep(backoff()).await;
                continue;
            };
            let before = replication_id.clone();
            let lost = if let Err(lost) = self.subscribe_all(&mut subscription).await {
                drop(subscription);
                self.lose(lost);
                self.refuse_late_requests().await;
                // An engine that refuses will refuse again.
                sleep(backoff()).await;
                lost
            } else {
                replication_id = self.engine.connected().ok().map(|connected| connected.replication_id);
                self.set_ready(true);
                // Peers may wait for this since the engine stood still.
                self.heartbeat_now.notify_one();
                if before.is_some() {
                    telemetry::bus_gap_ended(began.elapsed());
                    tracing::info!(cluster.redis = self.engine.masked(), "all rooms are subscribed again");
                }
                self.recovered(before.is_none() || before == replication_id);
                let lost = self.serve(&mut subscription).await;
                began = Instant::now();
                self.lose(lost);
                lost
            };
            if matches!(lost, Lost::Behind) {
                // Else the next frames would be too many again.
                while waiting.load(Ordering::Relaxed) > self.config.waiting / 2 {
                    sleep(backoff()).await;
                }
            }
        }
    }

    fn lose(&self, lost: Lost) {
        let was_ready = self.set_ready(false);
        // Joins wait until the engine no longer counts the lost connection as one of a ready node, or peers no longer count this node.
        self.rooms.accept_requests();
        self.rooms.set_all_cold();
        if was_ready && !matches!(lost, Lost::Leaving) {
            telemetry::bus_gap(lost.as_str());
            tracing::warn!(
                reason = lost.as_str(),
                cluster.redis = self.engine.masked(),
                "the subscriptions at the engine are lost: receipts are partial until they are there again"
            );
        }
    }

    /// Lets joins go on without their rooms if peers no longer count this node. If they do, and the rooms could not be subscribed for as long as a
    /// lease can last, the engine first closes the connections that may count as those of a ready node: receipts are partial then.
    async fn refuse_late_requests(&self) {
        let is_late = |since: Instant| since.elapsed() > self.config.fenced_after();
        let is_late = (*self.ready_changed.lock()).is_none_or(is_late);
        if self.is_fenced_by_now() || is_late && self.kill_all().await.is_ok() {
            self.rooms.refuse_requests();
        }
    }

    pub(super) fn recovered(&self, is_same_data: bool) {
        if let Some(node) = self.node() {
            node.recovered(self.index, is_same_data);
        }
    }

    /// Opens a connection, and has the engine close the one before: it may still count as a subscriber there.
    async fn open_subscription(
        &self,
        messages: &mpsc::UnboundedSender<Message>,
        waiting: &Arc<AtomicUsize>,
    ) -> Result<Subscription, ConnectError> {
        let run_id = self.engine.connected().map_err(|_| ConnectError::Unreachable(None))?.run_id;
        let intake = Arc::new(Intake {
            messages: messages.clone(),
            waiting: waiting.clone(),
            max_waiting: self.config.waiting,
            is_lost: AtomicBool::new(false),
            lost: Notify::new(),
            is_behind: AtomicBool::new(false),
        });
        let taken = intake.clone();
        let config = AsyncConnectionConfig::new().set_push_sender(move |push| taken.take(push));
        let (connection, id) = self.engine.open(config).await?;
        let client = Client { id: u64::try_from(id).unwrap_or_default(), run_id };
        let before = self.client.lock().replace(client);
        self.lost_clients.lock().extend(before);
        if self.kill_lost().await.is_err() {
            let own = self.client.lock().take();
            self.lost_clients.lock().extend(own);
            return Err(ConnectError::Unreachable(None));
        }
        Ok(Subscription { connection, intake })
    }

    /// Has the engine close the connections that this node has lost.
    async fn kill_lost(&self) -> Result<(), BusError> {
        loop {
            let Some(client) = self.lost_clients.lock().last().cloned() else { return Ok(()) };
            self.kill(&client).await?;
            self.lost_clients.lock().retain(|lost| *lost != client);
        }
    }

    /// Has the engine close those, and the last one that this node has opened.
    async fn kill_all(&self) -> Result<(), BusError> {
        let last = self.client.lock().clone();
        if let Some(last) = last {
            self.kill(&last).await?;
        }
        self.kill_lost().await
    }

    /// Has the engine close a connection, and returns when it has none such. An engine that forbids it is not asked.
    pub(super) async fn kill(&self, client: &Client) -> Result<(), BusError> {
        let connected = self.engine.connected()?;
        if client.id == 0 || client.run_id != connected.run_id {
            return Ok(());
        }
        if !connected.may_kill {
            return Ok(());
        }
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("ID").arg(client.id);
        self.engine.query::<i64>(&kill).await.map(drop)
    }

    /// Subscribes everything, and `ready` last: a node that is counted there has all its rooms.
    async fn subscribe_all(&self, subscription: &mut Subscription) -> Result<(), Lost> {
        // Peers learn which client to close if this node's lease ends.
        timeout(self.config.deadline, self.tell_peers(Instant::now())).await.map_err(|_| Lost::Unanswered)?;
        let own = vec![self.channel_of(self.incarnation()), self.engine.single("all"), self.engine.single("peers")];
        self.subscribe(subscription, own).await?;
        #[cfg(test)]
        if is_broken(Rule::ReadyIsLast) {
            self.subscribe(subscription, vec![self.ready_channel(&self.config.node_name())]).await?;
        }
        // A room that is wanted after the last look at the cold ones is subscribed later than `ready`: its join must wait.
        self.rooms.accept_requests();
        loop {
            // More come meanwhile.
            let rooms = self.rooms.cold();
            if rooms.is_empty() {
                break;
            }
            self.subscribe_rooms(subscription, &rooms).await?;
        }
        let ready = vec![self.ready_channel(&self.config.node_name()), self.engine.single("ready")];
        self.subscribe(subscription, ready).await
    }

    /// Waits for a heartbeat that began after this moment.
    async fn tell_peers(&self, since: Instant) {
        loop {
            let heartbeat = self.heartbeat_done.notified();
            self.heartbeat_now.notify_one();
            heartbeat.await;
            if self.renewed.lock().is_some_and(|asked| asked >= since) {
                return;
            }
        }
    }

    async fn subscribe_rooms(&self, subscription: &mut Subscription, rooms: &[RoomName]) -> Result<(), Lost> {
        for rooms in rooms.chunks(MAX_SUBSCRIBED) {
            let channels = rooms.iter().map(|room| self.channel_of_room(room.as_str())).collect();
            self.subscribe(subscription, channels).await?;
            self.rooms.set_hot(rooms);
        }
        telemetry::bus_rooms(self.rooms.len());
        Ok(())
    }

    async fn subscribe(&self, subscription: &mut Subscription, channels: Vec<String>) -> Result<(), Lost> {
        self.within_deadline(subscription.connection.subscribe(channels)).await
    }

    async fn within_deadline<T>(&self, command: impl Future<Output = Result<T, RedisError>>) -> Result<T, Lost> {
        let answer = timeout(self.config.deadline, command).await.map_err(|_| Lost::Unanswered)?;
        answer.map_err(|error| {
            if error.code().is_some() {
                self.engine.warn_of_refusal(&error.to_string());
            }
            Lost::Disconnected
        })
    }

    /// Does what joins ask for, until the connection is lost.
    async fn serve(&self, subscription: &mut Subscription) -> Lost {
        let ticks = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut pings, mut sweeps) = (ticks(PING_INTERVAL), ticks(SWEEP_INTERVAL));
        let intake = subscription.intake.clone();
        loop {
            if self.is_leaving.load(Ordering::Acquire) {
                return Lost::Leaving;
            }
            if let Some(lost) = intake.lost() {
                return lost;
            }
            let served = tokio::select! {
                () = intake.lost.notified() => Ok(()),
                () = self.fenced.notified() => Err(Lost::Fenced),
                () = self.rooms.requested.notified() => self.serve_requests(subscription).await,
                _ = pings.tick() => self.ping(subscription).await,
                _ = sweeps.tick() => self.sweep_rooms(subscription).await,
            };
            if let Err(lost) = served {
                return lost;
            }
        }
    }

    async fn serve_requests(&self, subscription: &mut Subscription) -> Result<(), Lost> {
        let requests = self.rooms.take_requests();
        let mut rooms: Vec<_> = requests.iter().flat_map(|request| request.rooms.iter().cloned()).collect();
        rooms.sort_unstable();
        rooms.dedup();
        if let Err(lost) = self.subscribe_rooms(subscription, &rooms).await {
            self.rooms.put_back(requests);
            return Err(lost);
        }
        for Request { done, .. } in requests {
            // The device may be gone.
            let _ = done.send(());
        }
        Ok(())
    }

    async fn ping(&self, subscription: &mut Subscription) -> Result<(), Lost> {
        let ping = redis::cmd("PING");
        self.within_deadline(ping.query_async::<Value>(&mut subscription.connection)).await.map(drop)
    }

    /// Gives up the rooms that no connection has been in for a while.
    fn forget_empty_rooms(&self) -> Vec<RoomName> {
        let Some(node) = self.node() else { return Vec::new() };
        self.rooms.sweep(self.config.linger, |room| node.is_occupied(room), |room| node.given_up(room))
    }

    async fn sweep_rooms(&self, subscription: &mut Subscription) -> Result<(), Lost> {
        let given_up = self.forget_empty_rooms();
        for rooms in given_up.chunks(MAX_SUBSCRIBED) {
            let channels: Vec<_> = rooms.iter().map(|room| self.channel_of_room(room.as_str())).collect();
            self.within_deadline(subscription.connection.unsubscribe(channels)).await?;
        }
        telemetry::bus_rooms(self.rooms.len());
        telemetry::bus_waiting(subscription.intake.waiting.load(Ordering::Relaxed));
        Ok(())
    }
}

impl Intake {
    /// Takes what the engine pushes. Called by the connection's task, and must not wait.
    fn take(&self, push: PushInfo) -> Result<(), redis::aio::SendError> {
        match (push.kind, <[Value; 2]>::try_from(push.data)) {
            (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(frame)])) => {
                let waiting = WaitingBytes::new(&self.waiting, channel.len() + frame.len());
                if self.waiting.load(Ordering::Relaxed) > self.max_waiting {
                    self.is_behind.store(true, Ordering::Release);
                    self.end();
                    return Err(redis::aio::SendError);
                }
                self.messages.send(Message { channel, frame, waiting }).map_err(|_| redis::aio::SendError)
            }
            (PushKind::Disconnection, _) => {
                self.end();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn end(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.lost.notify_one();
    }

    fn lost(&self) -> Option<Lost> {
        if self.is_behind.load(Ordering::Acquire) {
            return Some(Lost::Behind);
        }
        self.is_lost.load(Ordering::Acquire).then_some(Lost::Disconnected)
    }
}
