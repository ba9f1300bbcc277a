//! What a device may be sent and told of the room with a history.

use super::{
    device::{Came, Known, Sent, What},
    oracle::HISTORY,
};

impl Known {
    /// Takes what comes on a connection. The error says what is wrong.
    pub(super) fn take_of_history(
        &mut self,
        Sent { what, losses: sequence, .. }: &Sent,
        came: &Came,
    ) -> Result<(), String> {
        let Some(position) = what.position() else { return Err(format!("was sent {what:?}")) };
        let (last, number) = (self.last(), position.number);
        let before = self.seen.replace((position.clone(), *sequence));
        let is_other = before.as_ref().is_some_and(|(_, before)| before != sequence);
        let is_over = before.as_ref().is_some_and(|(_, before)| before > sequence);
        match what {
            What::Message { seq, .. } => {
                self.base.get_or_insert(number.saturating_sub(1));
                self.got.push((number, *seq));
                let is_next = !is_other && last.is_none_or(|last| number == last + 1);
                if is_next { Ok(()) } else { Err(format!("was sent {position} ({seq}) after {last:?} of {before:?}")) }
            }
            What::Told { is_recovered: true, .. } => {
                self.base.get_or_insert(number);
                let is_there = !is_other && last.is_none_or(|last| number <= last);
                if is_there { Ok(()) } else { Err(format!("was told {position}, and has {last:?} of {before:?}")) }
            }
            What::Told { is_recovered: false, .. } => {
                (self.base, self.gap) = (Some(number), number);
                self.got.clear();
                // How catching up went is told after that, and skips nothing.
                let has_begun_anew = is_other || (*sequence > came.sequences && last.is_none_or(|last| last == number));
                let may_be_told = !is_over && (has_begun_anew || came.is_blind[HISTORY]);
                if may_be_told {
                    Ok(())
                } else {
                    Err(format!("was told of a gap up to {position} after {last:?} of {before:?}"))
                }
            }
        }
    }
}
