//! What must hold when all has settled.

use std::collections::HashSet;

use super::{
    device::{Known, Online, Resumed, Sent, room},
    oracle::{Model, OWN, PLAIN},
    server::user,
    world::Inner,
};
use crate::message::Position;

impl Inner {
    pub(super) async fn check(&self, model: &Model) {
        for number in 0..2 {
            let unread = self.server().store.count_unread(&room(number), &user()).await.unwrap();
            assert_eq!(unread, model.unread(number), "unread in {}", room(number));
        }
        for (index, device) in self.devices.iter().enumerate() {
            let Some(online) = &device.online else { continue };
            assert!(!online.admission.is_gone());
            device.check_order();
            check_exceptions(model, online);
            if index == PLAIN {
                check_plain(model, online);
            } else {
                check_resuming(model, &device.view());
            }
        }
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
fn check_resuming(model: &Model, known: &Known) {
    for number in 0..2 {
        let published = model.current(number).take_while(|(position, _)| *position <= model.log(number).published);
        for (position, message) in published {
            let is_known = known.received.contains(&message.seq) || known.excused.contains(&message.seq);
            assert!(is_known, "a device has missed {position} of {}", room(number));
        }
    }
}

/// A plain WebSocket has received what no device had proven, and what came since.
fn check_plain(model: &Model, online: &Online) {
    let sent = online.connection.sent();
    for (position, message) in model.current(OWN).filter(|(_, message)| !message.is_unheard) {
        let is_received = sent.iter().any(|sent| matches!(sent, Sent::Message { seq, .. } if *seq == message.seq));
        let is_owed = online.owed.contains(&message.seq) && position <= model.log(OWN).published;
        assert!(is_received || !is_owed, "the plain WebSocket was not given {position}");
    }
}
