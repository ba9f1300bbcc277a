//! What must hold when all has settled.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tokio::time::advance;

use super::{
    device::{Device, Known, Online, Resumed, Sent, room},
    oracle::{Model, OWN, PLAIN},
    server::user,
    world::Inner,
};
use crate::message::Position;

/// How long a message may be on its way, in real time.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The number of looks after which a second passes: a read that the database has refused is repeated then.
const LOOKS: u32 = 100;

impl Inner {
    pub(super) async fn check(&self, model: &Model) {
        for number in 0..2 {
            let unread = self.server().store.count_unread(&room(number), &user()).await.unwrap();
            assert_eq!(unread, model.unread(number), "unread in {}", room(number));
        }
        self.check_given(model).await;
        for online in self.devices.iter().filter_map(|device| device.online.as_ref()) {
            assert!(!online.admission.is_gone());
            check_exceptions(model, online);
        }
        self.devices.iter().for_each(Device::check_order);
    }

    /// Each device has been given all that it is to be given, as soon as the threads that read the store have done their work.
    async fn check_given(&self, model: &Model) {
        let (begun, mut looks) = (Instant::now(), 0_u32);
        while let Some(missed) = self.missed(model) {
            assert!(begun.elapsed() < MAX_WAIT, "{missed}");
            looks += 1;
            if looks.is_multiple_of(LOOKS) {
                advance(Duration::from_secs(1)).await;
            }
            self.server().settle().await;
        }
    }

    fn missed(&self, model: &Model) -> Option<String> {
        self.devices.iter().enumerate().find_map(|(index, device)| {
            let online = device.online.as_ref()?;
            if index == PLAIN { missed_by_plain(model, online) } else { missed_by_resuming(model, &device.view()) }
        })
    }

    /// Checks what a device was told that has resumed, and notes what that means.
    pub(super) fn note_resumed(&mut self, model: &Model, device: usize, online: &mut Online) {
        let sent = online.connection.sent();
        let told = sent.iter().find_map(|sent| if let Sent::Resumed(rooms) = sent { Some(rooms) } else { None });
        let told = told.unwrap();
        for number in 0..2 {
            let (name, log) = (room(number), model.log(number));
            let Resumed { is_recovered, position } = &told[name.as_str()];
            let known = &self.devices[device].known;
            let seen = known.seen.get(name.as_str());
            match seen {
                Some(seen) => {
                    let Position { epoch, number } = &seen.position;
                    let is_there = *number >= log.trimmed && *number <= log.last();
                    let stands = *number == 0 || log.message(*number).is_some_and(|message| message.seq == seen.seq);
                    let must_recover = is_there && stands && self.epochs.contains(epoch);
                    assert!(!must_recover || *is_recovered, "{name} is recovered from {number}");
                    assert!(is_there || !is_recovered, "{name} is not recovered from {number}");
                }
                None => assert!(*is_recovered || (number == OWN && log.trimmed > 0), "{name} is recovered"),
            }
            let proven = (number == OWN && seen.is_some() && *is_recovered).then(|| known.received.clone());
            let all_to = log.numbered().take_while(|(number, _)| *number <= position.number);
            let all_to: Vec<_> = all_to.map(|(_, message)| message.seq).collect();
            let there: HashSet<_> = model.current(number).map(|(_, message)| message.seq).collect();
            online.passed.extend(all_to.iter().filter(|seq| !there.contains(seq)));
            online.told.insert(name.to_string(), all_to.last().copied().unwrap_or_default());
            match (seen, is_recovered) {
                (Some(_), true) => {}
                (_, false) => online.excuses.extend(all_to),
                (None, true) => {
                    let owed = if number == OWN { self.undelivered(model) } else { HashSet::new() };
                    let given = all_to.into_iter().filter(|seq| !owed.contains(seq));
                    // Not by what it is told, as a message may come before that.
                    self.devices[device].known.excused.extend(given);
                }
            }
            self.proven.extend(proven.unwrap_or_default());
        }
    }
}

/// No message comes to a user whom it excepts.
fn check_exceptions(model: &Model, online: &Online) {
    for sent in online.connection.sent() {
        let Sent::Message { room: name, seq, .. } = sent else { continue };
        let number = usize::from(name != room(OWN).as_str());
        let message = model.log(number).numbered().find(|(_, message)| message.seq == seq);
        assert!(message.is_some_and(|(_, message)| !message.is_excepted), "{seq} is not for the user");
    }
}

/// A device that resumes has received all that is there, or was told that it has not.
fn missed_by_resuming(model: &Model, known: &Known) -> Option<String> {
    let is_known = |seq| known.received.contains(seq) || known.excused.contains(seq);
    (0..2).find_map(|number| {
        let last = model.log(number).published;
        let mut published = model.current(number).take_while(|(position, _)| *position <= last);
        let (position, _) = published.find(|(_, message)| !is_known(&message.seq))?;
        Some(format!("a device has missed {position} of {}", room(number)))
    })
}

/// A plain WebSocket has received what no device had proven, and what came since.
fn missed_by_plain(model: &Model, online: &Online) -> Option<String> {
    let sent = online.connection.sent();
    let is_received = |expected| sent.iter().any(|sent| matches!(sent, Sent::Message { seq, .. } if *seq == expected));
    let last = model.log(OWN).published;
    let mut owed = model
        .current(OWN)
        .filter(|(position, message)| !message.is_unheard && online.owed.contains(&message.seq) && *position <= last);
    let (position, _) = owed.find(|(_, message)| !is_received(message.seq))?;
    Some(format!("the plain WebSocket was not given {position}"))
}
