//! Collapsing across nodes: the engine has the windows and what waits for their ends. The node whose emit opened a window keeps it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Delivery,
    accepted::{Accepted, EmitError, Published},
    ask::{gather, within},
};
use crate::cluster::{BusError, Fate, Frame, PublishError};
use crate::message::{EventName, Receipt, RoomName};
use crate::state::NotPublished;
use crate::telemetry;

/// The pause before a window is ended again that could not be.
const RETRY: Duration = Duration::from_millis(50);

/// A window that this node keeps.
struct Window {
    room: RoomName,
    event: EventName,
    key: Arc<str>,
    opened: Instant,
}

impl Delivery {
    /// Publishes an emit with a collapse key if it opens a window; else it waits for the window's end.
    pub(super) async fn collapse_across(&self, accepted: Accepted, until: Instant) -> Published {
        let (cluster, shared) = (self.cluster_or_away()?, self.shared()?);
        let outgoing = accepted.into_outgoing();
        let emit = &outgoing.emit;
        let key = emit.collapse_key.clone().unwrap_or_default();
        within(until, self.announce_collapsing(&emit.event)).await?;
        let kept = outgoing.message(shared);
        let ticket = cluster.publish_by(&outgoing.frame(), |start, rest, channel| {
            shared.collapse.offer_command(&key, &outgoing.call(kept, (channel, start, rest)))
        })?;
        // A window is kept from now on, since the answers of other nodes may take longer than it.
        let is_not_open = CancellationToken::new();
        let window =
            Window { room: emit.audience.room().clone(), event: emit.event.clone(), key, opened: Instant::now() };
        let (delivery, closed, fate) = (self.clone(), is_not_open.clone(), ticket.fate());
        self.inner.lifecycle.spawn(shared.windows.track_future(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = delivery.keep_window_across(window, (fate, until)) => {}
            }
        }));
        let error = match self.finish(outgoing.sent(ticket, until)).await {
            Ok(published) => return Ok(published),
            // It may be open.
            Err(error @ PublishError::Bus(BusError::Unanswered)) => return Err(error.into()),
            Err(error) => error,
        };
        is_not_open.cancel();
        match error {
            PublishError::Bus(error) => Err(error.into()),
            PublishError::Rejected(number) => match NotPublished::of(number) {
                NotPublished::Deferred => Ok((Receipt { deferred: true, ..Receipt::new(outgoing.message_id) }, None)),
                NotPublished::CollapseFull => {
                    Err(EmitError::CollapseFull { retry_after: self.inner.collapse.config.window })
                }
                NotPublished::NothingWaits => Err(EmitError::Bus(BusError::Refused)),
                NotPublished::RetainedFull(full) => Err(full.into()),
            },
        }
    }

    /// Has all nodes know that emits of an event are collapsed, before the first one waits.
    async fn announce_collapsing(&self, event: &EventName) -> Result<(), BusError> {
        let shared = self.shared()?;
        if shared.collapsing.is_due(event) {
            // Nodes that join later read it. The others are told each time, since they forget it.
            shared.collapse.note_event(event).await?;
            self.ask(Frame::Collapses(event.clone())).await?;
            shared.collapsing.noted(event);
        }
        Ok(())
    }

    /// Notes that another node collapses emits of an event.
    pub(super) fn note_collapsing(&self, event: &EventName) {
        if let Ok(shared) = self.shared() {
            shared.collapsing.heard(event);
        }
    }

    /// Reads which events are collapsed: what nodes told while this one did not hear them.
    pub(super) async fn read_collapsing(&self) {
        let Ok(shared) = self.shared() else { return };
        if let Ok(events) = shared.collapse.events().await {
            for event in &events {
                shared.collapsing.heard(event);
            }
        }
    }

    /// Waits until what windows deferred is sent: a stop sends it before devices are sent away. At most this long.
    pub(super) async fn flush_windows(&self, patience: Duration) {
        if let Ok(shared) = self.shared() {
            shared.windows.close();
            if tokio::time::timeout(patience, shared.windows.wait()).await.is_err() {
                shared.windows_given_up.cancel();
            }
        }
    }

    /// Ends a window, again and again, until nothing waits for its end. It may be another node's as long as the fate of the emit that opens it is not
    /// known, until then at most: so long it is not ended.
    async fn keep_window_across(&self, mut window: Window, (fate, until): (Fate, Instant)) {
        let Some((cluster, shared)) = self.others() else { return };
        loop {
            let is_over = async {
                sleep_until(window.opened + self.inner.collapse.config.window).await;
                while !fate.is_known() && Instant::now() < until {
                    sleep(RETRY).await;
                }
            };
            tokio::select! {
                () = is_over => {}
                // Nothing that waits is lost to a stop.
                () = self.inner.lifecycle.stopping() => {}
            }
            let ended = Instant::now();
            let Window { room, event, key, opened } = &window;
            let ticket = cluster
                .publish_waiting(room, |start| shared.collapse.end_command(room, event, key, start))
                .map_err(PublishError::Bus);
            let gathered = match ticket {
                Ok(ticket) => gather(ticket, ended + cluster.deadline()).await,
                Err(error) => Err(error),
            };
            match gathered {
                Ok((gathered, _)) => {
                    telemetry::bus_frame("sent", "emit");
                    if gathered.partial {
                        telemetry::receipt_partial();
                    }
                    window.opened = ended;
                }
                Err(PublishError::Rejected(_)) => return,
                // It is taken and published, or neither: to do it again does no harm.
                Err(PublishError::Bus(_))
                    if *opened + shared.collapse.lease() > ended && !shared.windows_given_up.is_cancelled() =>
                {
                    tokio::select! {
                        () = cluster.engines().of(room).reached() => sleep(RETRY).await,
                        () = sleep_until(*opened + shared.collapse.lease()) => {}
                        () = shared.windows_given_up.cancelled() => {}
                    }
                }
                Err(PublishError::Bus(error)) => {
                    tracing::warn!(%error, room.name = %room, "what a collapse window deferred is lost");
                    return;
                }
            }
        }
    }
}
