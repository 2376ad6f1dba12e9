//! What the engine reports to whoever counts.

use std::time::Duration;

/// Called by the engine's threads; implemented by the metrics. Implementations must not block.
pub trait Hooks: Send + Sync + 'static {
    /// One sync of the state directory took this long (writing included).
    fn fsync(&self, took: Duration);
    /// A write to the state directory failed.
    fn persist_failed(&self);
    /// A packet was dropped because its peer does not drain its outbox, or because it is too large.
    fn packet_dropped(&self, bulk: bool);
    /// A connection to or from a peer was opened or was lost.
    fn connection(&self, opened: bool);
    /// Nobody led, and this node saw a primary again after this long.
    fn failover(&self, took: Duration);
    /// Counters of the core, after every batch of inputs.
    fn stats(&self, _stats: &ais_ha::Stats) {}
}

/// Counts nothing.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn fsync(&self, _: Duration) {}
    fn persist_failed(&self) {}
    fn packet_dropped(&self, _: bool) {}
    fn connection(&self, _: bool) {}
    fn failover(&self, _: Duration) {}
}
