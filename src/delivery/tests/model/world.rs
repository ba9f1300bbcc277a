//! What happens, done to a server and to devices.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use proptest_state_machine::StateMachineTest;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::advance,
};

use super::{
    device::{Device, Online, Recorder, Sent, room},
    oracle::{DEVICES, Model, NewMessage, OWN, PLAIN, TTL, Transition, Which},
    server::{Server, path, until, user},
};
use crate::clock::Clock;
use crate::delivery::{Deletion, Resume};
use crate::hub::fake::FakeConnection;
use crate::message::{MessageId, RoomName};

/// In seconds.
const STEP: usize = 3;

pub(super) struct World {
    /// While it is kept, the time of the runtime does not move by itself.
    _stands_still: mpsc::Sender<()>,
    runtime: Runtime,
    pub(super) inner: Inner,
}

pub(super) struct Inner {
    pub(super) server: Option<Server>,
    pub(super) devices: [Device; DEVICES],
    /// Messages of the user's own mailbox that a connection has proven, or that a device has received that resumed after them.
    pub(super) proven: HashSet<u64>,
    /// The epochs that the database knows.
    pub(super) epochs: HashSet<Arc<str>>,
    ids: HashMap<u64, MessageId>,
    clock: Clock,
    directory: TempDir,
    database: PathBuf,
    backup: Option<(PathBuf, HashSet<Arc<str>>)>,
    files: u32,
}

impl Inner {
    async fn start(&mut self) {
        let server = Server::start(&self.database, &self.clock).await;
        self.epochs.insert(server.store.epoch().unwrap());
        self.server = Some(server);
    }

    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn new_file(&mut self) -> PathBuf {
        self.files += 1;
        path(self.directory.path(), &format!("{}.db", self.files))
    }

    async fn append(&mut self, model: &Model, new: NewMessage, is_published: bool) {
        let seq = model.seq;
        let (id, number) =
            if is_published { self.server().emit(seq, new).await } else { self.server().store(seq, new).await };
        assert_eq!(number, model.log(new.room).last(), "positions are dense");
        self.note_appended(seq, new, id);
    }

    fn note_appended(&mut self, seq: u64, new: NewMessage, id: MessageId) {
        self.ids.insert(seq, id);
        if let Some(online) = self.devices[PLAIN].online.as_mut().filter(|_| new.room == OWN) {
            online.owed.insert(seq);
        }
    }

    async fn connect(&mut self, model: &Model, device: usize, appending: Option<NewMessage>) {
        let before = self.devices[device].known.clone();
        let resumes = device != PLAIN;
        let connection = Arc::new(FakeConnection::new(Recorder::new(resumes)));
        let said = before.seen.iter().map(|(room, seen)| (room.clone(), Some(seen.position.clone())));
        let (resume, event_rooms) = (Resume::new(said), Vec::new());
        let resume = resumes.then_some((&resume, &*event_rooms));
        let server = self.server();
        let connecting = async {
            let admitted = server.delivery.admit(user(), &[room(1)], connection.clone(), resume).await;
            let admission = admitted.unwrap_or_else(|_| panic!("it is let in"));
            assert!(admission.go_live(None));
            let is_resumed = || connection.sent().iter().any(|sent| matches!(sent, Sent::Resumed(_)));
            let caught_up = || if resumes { is_resumed() } else { self.has_caught_up(admission.id()) };
            until("the device has caught up", caught_up).await;
            admission
        };
        let admission = match appending {
            None => connecting.await,
            Some(new) => {
                let (admission, (id, number)) = tokio::join!(connecting, server.emit(model.seq, new));
                assert_eq!(number, model.log(new.room).last(), "positions are dense");
                self.note_appended(model.seq, new, id);
                admission
            }
        };
        self.server().settle().await;
        let mut online = Online {
            admission,
            connection,
            arrived: 0,
            excuses: HashSet::new(),
            passed: HashSet::new(),
            told: std::collections::BTreeMap::new(),
            owed: HashSet::new(),
        };
        if resumes {
            self.note_resumed(model, device, &mut online);
        } else {
            online.owed = self.undelivered(model);
        }
        self.devices[device].online = Some(online);
    }

    fn has_caught_up(&self, id: crate::message::ConnectionId) -> bool {
        let members = self.server().delivery.hub().of_user(&user());
        members.iter().find(|member| member.id() == id).is_some_and(|member| !member.is_replaying(&room(OWN)))
    }

    /// What no device has proven.
    pub(super) fn undelivered(&self, model: &Model) -> HashSet<u64> {
        model.current(OWN).map(|(_, message)| message.seq).filter(|seq| !self.proven.contains(seq)).collect()
    }

    /// Some of the frames may not have arrived.
    fn cut(&mut self, device: usize, unseen: usize) {
        let Some(online) = self.devices[device].cut(unseen) else { return };
        online.admission.ended("transport_close");
        online.connection.lose();
    }

    fn prove(&mut self, device: usize) {
        let Some(online) = &mut self.devices[device].online else { return };
        let sent = online.connection.sent();
        online.arrived = sent.len();
        online.connection.prove();
        for sent in sent {
            if let Sent::Message { seq, .. } = sent {
                self.proven.insert(seq);
            }
        }
    }

    async fn restart(&mut self, unseen: usize) {
        let mut lost = Vec::new();
        for device in &mut self.devices {
            lost.extend(device.cut(unseen));
        }
        if let Some(server) = self.server.take() {
            server.kill().await;
        }
        // A killed process is told of no end.
        drop(lost);
        self.start().await;
    }

    async fn change(&mut self, model: &Model, transition: Transition) {
        match transition {
            Transition::Append(new) => self.append(model, new, true).await,
            Transition::AppendUnpublished(new) => self.append(model, new, false).await,
            Transition::Connect(device) => self.connect(model, device, None).await,
            Transition::ConnectWhileAppending(device, new) => self.connect(model, device, Some(new)).await,
            Transition::Prove(device) => self.prove(device),
            Transition::Cut { device, unseen } => self.cut(device, unseen),
            Transition::Reinstall(device) => self.devices[device] = Device::default(),
            Transition::Crash { unseen } => self.restart(unseen).await,
            Transition::Backup => {
                let file = self.new_file();
                self.server().back_up(&self.database, &file).await;
                self.backup = Some((file, self.epochs.clone()));
            }
            Transition::Restore { unseen } => {
                let (file, epochs) = self.backup.clone().unwrap();
                // At a place of its own, since the killed process may close the file still.
                self.database = self.new_file();
                std::fs::copy(file, &self.database).unwrap();
                self.epochs = epochs;
                self.restart(unseen).await;
            }
            Transition::Expire => self.clock.pass(Duration::from_secs(TTL + 1)),
            Transition::Tick(seconds) => {
                // In steps that are shorter than the store's deadlines, as SQLite works in real time.
                for begin in (0..seconds).step_by(STEP) {
                    advance(Duration::from_secs((seconds - begin).min(STEP as u64))).await;
                    self.server().settle().await;
                }
                self.server().store.sweep().await.unwrap();
            }
            Transition::Trim => self.server().store.sweep().await.unwrap(),
            Transition::Delete { room: number, which } => {
                let what = match which {
                    Which::UpTo(last) => Deletion::UpTo(last),
                    Which::Message(one) => Deletion::Messages(self.id(model, number, one).into_iter().collect()),
                };
                self.server().delivery.delete_messages(&room(number), what).await.unwrap();
            }
            Transition::Read { room: number, which } => self.mark_read(model, &room(number), number, which).await,
        }
        self.server().settle().await;
    }

    fn id(&self, model: &Model, room: usize, number: u64) -> Option<MessageId> {
        self.ids.get(&model.log(room).message(number)?.seq).copied()
    }

    async fn mark_read(&self, model: &Model, name: &RoomName, number: usize, which: Which) {
        let which = match which {
            Which::UpTo(last) => crate::store::Which::UpTo(last),
            Which::Message(one) => match self.id(model, number, one) {
                Some(id) => crate::store::Which::Message(id),
                None => return,
            },
        };
        self.server().delivery.mark_read(name, &user(), which).await.unwrap();
    }
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (stands_still, ends) = mpsc::channel();
        runtime.spawn_blocking(move || ends.recv());
        let directory = tempfile::tempdir().unwrap();
        let mut inner = Inner {
            server: None,
            devices: Default::default(),
            proven: HashSet::new(),
            epochs: HashSet::new(),
            ids: HashMap::new(),
            clock: Clock::movable(),
            database: path(directory.path(), "0.db"),
            directory,
            backup: None,
            files: 0,
        };
        runtime.block_on(inner.start());
        Self { _stands_still: stands_still, runtime, inner }
    }

    fn apply(mut world: Self, model: &Model, transition: Transition) -> Self {
        world.runtime.block_on(async {
            world.inner.change(model, transition).await;
            world.inner.check(model).await;
        });
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Self { runtime, inner, .. } = self;
        if let Some(server) = inner.server.take() {
            inner.devices = Default::default();
            runtime.block_on(server.kill());
        }
    }
}
