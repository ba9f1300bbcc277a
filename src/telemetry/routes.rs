//! Which lines are logged, and where they are written.
//!
//! This is one layer, and no layer has a filter of its own (`with_filter`). Such a filter notes in the thread what it has decided for the next line. If
//! a library only asks whether a line would be logged (`tracing::enabled!`, `log::log_enabled!`), that note stays, and the next line of the thread is
//! dropped in its place.

use tracing::{
    Event, Level, Metadata,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::LevelFilter, layer::Context};

use super::audit;

/// Formats lines and writes them to one place.
pub(super) type Line = Box<dyn Layer<Registry> + Send + Sync>;

/// The places that lines are written to.
///
/// It forwards what [`EnvFilter`] and `fmt` layers implement: callsites, events, and the life of spans. It does not forward
/// `on_register_dispatch`, `on_layer`, `on_follows_from`, `on_id_change`, `event_enabled` and `downcast_raw`: of these, `fmt` layers implement
/// `downcast_raw` alone, and nothing here asks for it. A layer that needs one of them, such as one with a filter of its own, does not work as a
/// [`Line`].
pub(super) struct Routes {
    /// `log.level`. The audit log has its lines at any level.
    level: EnvFilter,
    /// Those that get all lines but the audit log's.
    pub(super) all: Vec<Line>,
    /// The one that gets errors.
    pub(super) errors: Option<Line>,
    /// The audit log.
    pub(super) audit: Option<Line>,
}

impl Routes {
    pub(super) fn new(level: EnvFilter, first: Line) -> Self {
        Self { level, all: vec![first], errors: None, audit: None }
    }

    fn each(&self) -> impl Iterator<Item = &Line> {
        self.all.iter().chain(&self.errors).chain(&self.audit)
    }
}

impl Layer<Registry> for Routes {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let is_audited = audit::is_line(metadata);
        if is_audited && self.audit.is_some() {
            Interest::always()
        } else if is_audited || !is_ours_or_grave(metadata) {
            Interest::never()
        } else {
            Layer::<Registry>::register_callsite(&self.level, metadata)
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, Registry>) -> bool {
        if audit::is_line(metadata) {
            return self.audit.is_some();
        }
        is_ours_or_grave(metadata) && Layer::enabled(&self.level, metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = self.level.max_level_hint()?;
        Some(if self.audit.is_some() { level.max(LevelFilter::INFO) } else { level })
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, Registry>) {
        let metadata = event.metadata();
        if audit::is_line(metadata) {
            self.audit.iter().for_each(|line| line.on_event(event, context.clone()));
            return;
        }
        let errors = self.errors.iter().filter(|_| *metadata.level() == Level::ERROR);
        self.all.iter().chain(errors).for_each(|line| line.on_event(event, context.clone()));
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        Layer::on_new_span(&self.level, attributes, id, context.clone());
        self.each().for_each(|line| line.on_new_span(attributes, id, context.clone()));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, Registry>) {
        Layer::on_record(&self.level, id, values, context.clone());
        self.each().for_each(|line| line.on_record(id, values, context.clone()));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, Registry>) {
        Layer::on_enter(&self.level, id, context.clone());
        self.each().for_each(|line| line.on_enter(id, context.clone()));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, Registry>) {
        Layer::on_exit(&self.level, id, context.clone());
        self.each().for_each(|line| line.on_exit(id, context.clone()));
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        Layer::on_close(&self.level, id.clone(), context.clone());
        self.each().for_each(|line| line.on_close(id.clone(), context.clone()));
    }
}

/// Libraries may warn; what they say below that holds headers, tokens and payloads.
pub fn is_ours_or_grave(metadata: &Metadata<'_>) -> bool {
    let is_ours = matches!(metadata.target().split("::").next(), Some("bugle" | "transport" | "engineioxide"));
    is_ours || *metadata.level() <= Level::WARN
}
