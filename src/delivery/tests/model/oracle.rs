//! What happens, and what is in the store then.

use std::collections::BTreeSet;

use proptest::{prelude::*, strategy::Union};
use proptest_state_machine::ReferenceStateMachine;

/// Messages of one mailbox that a sweep leaves.
pub(super) const MAX_MESSAGES: usize = 8;
/// How long a message with a `ttl` is of use, in seconds.
pub(super) const TTL: u64 = 60;
/// The devices: two that resume, and a plain WebSocket.
pub(super) const DEVICES: usize = 3;
pub(super) const PLAIN: usize = 2;
/// The rooms: the user's own, and another one.
pub(super) const OWN: usize = 0;
const ROOMS: usize = 2;

#[derive(Clone, Copy, Debug)]
pub(super) struct NewMessage {
    pub(super) room: usize,
    pub(super) has_ttl: bool,
    /// It is not for the user.
    pub(super) is_excepted: bool,
    /// The plain WebSocket does not listen for its event.
    pub(super) is_unheard: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Message(u64),
    UpTo(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Transition {
    Append(NewMessage),
    /// It is stored, though its emit was refused.
    AppendUnpublished(NewMessage),
    Connect(usize),
    ConnectWhileAppending(usize, NewMessage),
    /// The device proves all that it was sent.
    Prove(usize),
    /// The connection ends. Of what the device has not proven, the last frames have not arrived.
    Cut {
        device: usize,
        unseen: usize,
    },
    /// A device that resumes is installed anew.
    Reinstall(usize),
    Crash {
        unseen: usize,
    },
    Backup,
    /// The process is killed, and begins again with the backup.
    Restore {
        unseen: usize,
    },
    Expire,
    /// So many seconds pass: watermarks are written; and all that is old is swept.
    Tick(u64),
    Trim,
    Delete {
        room: usize,
        which: Which,
    },
    Read {
        room: usize,
        which: Which,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Unlike its number, given once, whatever is restored.
    pub(super) seq: u64,
    expires_at: Option<u64>,
    pub(super) is_excepted: bool,
    pub(super) is_unheard: bool,
    /// It was deleted, swept or trimmed.
    is_gone: bool,
}

/// A mailbox: the message with number N is at N - 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    messages: Vec<Message>,
    pub(super) trimmed: u64,
    /// Up to here the user has read.
    mark: u64,
    read: BTreeSet<u64>,
    /// Those who are connected have been sent what is up to here. What is later may be sent to those who connect.
    pub(super) published: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    rooms: [Log; ROOMS],
    pub(super) online: [bool; DEVICES],
    pub(super) seq: u64,
    now: u64,
    backup: Option<Box<[Log; ROOMS]>>,
}

impl Log {
    pub(super) fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn message(&self, number: u64) -> Option<&Message> {
        self.messages.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// All that ever was there, by number.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u64, &Message)> {
        (1..).zip(&self.messages)
    }

    fn is_there(message: &Message, now: u64) -> bool {
        !message.is_gone && message.expires_at.is_none_or(|end| now < end)
    }

    fn sweep(&mut self, now: u64) {
        let last = self.last();
        if last - self.trimmed > MAX_MESSAGES as u64 {
            self.trimmed = last - MAX_MESSAGES as u64;
        }
        for (number, message) in (1..).zip(&mut self.messages) {
            message.is_gone |= number <= self.trimmed || message.expires_at.is_some_and(|end| end <= now);
        }
    }

    fn delete(&mut self, which: Which, now: u64) {
        for (number, message) in (1..).zip(&mut self.messages) {
            message.is_gone |= which.has(number) && Self::is_there(message, now);
        }
    }

    fn mark_read(&mut self, which: Which, now: u64) {
        match which {
            Which::UpTo(number) => self.mark = self.mark.max(number.min(self.last())),
            Which::Message(number) => {
                if self.message(number).is_some_and(|message| Self::is_there(message, now) && !message.is_excepted) {
                    self.read.insert(number);
                }
            }
        }
    }
}

impl Which {
    fn has(self, number: u64) -> bool {
        match self {
            Self::Message(one) => one == number,
            Self::UpTo(last) => number <= last,
        }
    }
}

impl Model {
    pub(super) fn log(&self, room: usize) -> &Log {
        &self.rooms[room]
    }

    /// The messages of a room that are there and for the user.
    pub(super) fn current(&self, room: usize) -> impl Iterator<Item = (u64, &Message)> {
        let is_current = |message: &Message| !message.is_excepted && Log::is_there(message, self.now);
        self.rooms[room].numbered().filter(move |(_, message)| is_current(message))
    }

    pub(super) fn unread(&self, room: usize) -> u64 {
        let Log { mark, read, .. } = &self.rooms[room];
        self.current(room).filter(|(number, _)| number > mark && !read.contains(number)).count() as u64
    }

    fn append(&mut self, new: NewMessage, is_published: bool) {
        let NewMessage { room, has_ttl, is_excepted, is_unheard } = new;
        self.seq += 1;
        let expires_at = has_ttl.then_some(self.now + TTL);
        let log = &mut self.rooms[room];
        log.messages.push(Message { seq: self.seq, expires_at, is_excepted, is_unheard, is_gone: false });
        if is_published {
            log.published = log.last();
        }
    }

    fn sweep(&mut self) {
        self.rooms.iter_mut().for_each(|log| log.sweep(self.now));
    }

    /// Another process starts. It finds stored messages that were not published.
    fn restart(&mut self) {
        self.online = [false; DEVICES];
        self.sweep();
        self.rooms.iter_mut().for_each(|log| log.published = log.last());
    }
}

fn new_message() -> BoxedStrategy<NewMessage> {
    let [often, seldom, rarely] = [0.6, 0.25, 0.1].map(prop::bool::weighted);
    let new = (often, seldom, rarely, seldom).prop_map(|(is_own, has_ttl, is_excepted, is_unheard)| NewMessage {
        room: usize::from(!is_own),
        has_ttl,
        is_excepted,
        is_unheard,
    });
    new.boxed()
}

fn some_of_room(last: u64) -> BoxedStrategy<(usize, Which)> {
    let which = (1..=last + 1, any::<bool>());
    let which = which.prop_map(|(number, is_one)| if is_one { Which::Message(number) } else { Which::UpTo(number) });
    (0..ROOMS, which).boxed()
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Transition> {
        let unseen = 0..6_usize;
        let last = state.rooms.iter().map(Log::last).max().unwrap_or_default();
        let (online, offline): (Vec<_>, Vec<_>) = (0..DEVICES).partition(|device| state.online[*device]);
        let mut all = vec![
            (7, new_message().prop_map(Transition::Append).boxed()),
            (1, new_message().prop_map(Transition::AppendUnpublished).boxed()),
            (1, unseen.clone().prop_map(|unseen| Transition::Crash { unseen }).boxed()),
            (1, Just(Transition::Backup).boxed()),
            (1, Just(Transition::Expire).boxed()),
            (2, prop::sample::select(vec![1, 31]).prop_map(Transition::Tick).boxed()),
            (1, Just(Transition::Trim).boxed()),
            (1, some_of_room(last).prop_map(|(room, which)| Transition::Delete { room, which }).boxed()),
            (1, some_of_room(last).prop_map(|(room, which)| Transition::Read { room, which }).boxed()),
        ];
        if state.backup.is_some() {
            all.push((2, unseen.clone().prop_map(|unseen| Transition::Restore { unseen }).boxed()));
        }
        if !online.is_empty() {
            let device = prop::sample::select(online);
            all.push((4, device.clone().prop_map(Transition::Prove).boxed()));
            all.push((4, (device, unseen).prop_map(|(device, unseen)| Transition::Cut { device, unseen }).boxed()));
        }
        if !offline.is_empty() {
            let device = prop::sample::select(offline);
            all.push((6, device.clone().prop_map(Transition::Connect).boxed()));
            let (connect, append) = (device.clone(), new_message());
            let both = (connect, append).prop_map(|(device, new)| Transition::ConnectWhileAppending(device, new));
            all.push((2, both.boxed()));
            all.push((2, device.prop_map(Transition::Reinstall).boxed()));
        }
        Union::new_weighted(all).boxed()
    }

    fn preconditions(state: &Self, transition: &Transition) -> bool {
        match transition {
            Transition::Connect(device)
            | Transition::ConnectWhileAppending(device, _)
            | Transition::Reinstall(device) => !state.online[*device],
            Transition::Prove(device) | Transition::Cut { device, .. } => state.online[*device],
            Transition::Restore { .. } => state.backup.is_some(),
            Transition::Append(_)
            | Transition::AppendUnpublished(_)
            | Transition::Crash { .. }
            | Transition::Backup
            | Transition::Expire
            | Transition::Tick(_)
            | Transition::Trim
            | Transition::Delete { .. }
            | Transition::Read { .. } => true,
        }
    }

    fn apply(mut state: Self, transition: &Transition) -> Self {
        match transition {
            Transition::Append(new) => state.append(*new, true),
            Transition::AppendUnpublished(new) => state.append(*new, false),
            Transition::Connect(device) => state.online[*device] = true,
            Transition::ConnectWhileAppending(device, new) => {
                state.online[*device] = true;
                state.append(*new, true);
            }
            Transition::Prove(_) | Transition::Reinstall(_) => {}
            Transition::Cut { device, .. } => state.online[*device] = false,
            Transition::Crash { .. } => state.restart(),
            Transition::Backup => state.backup = Some(Box::new(state.rooms.clone())),
            Transition::Restore { .. } => {
                if let Some(backup) = &state.backup {
                    state.rooms = (**backup).clone();
                }
                state.restart();
            }
            Transition::Expire => state.now += TTL + 1,
            Transition::Tick(_) | Transition::Trim => state.sweep(),
            Transition::Delete { room, which } => {
                let now = state.now;
                state.rooms[*room].delete(*which, now);
            }
            Transition::Read { room, which } => {
                let now = state.now;
                state.rooms[*room].mark_read(*which, now);
            }
        }
        state
    }
}
