//! Deterministic simulator of the production core: virtual time, faulty network, disks and processes, clients, and the
//! invariants of the protocol on all the time. One plan, one run; one seed, one plan.

pub mod admin;
#[cfg(test)]
mod checks;
pub(crate) mod client;
pub mod counts;
pub(crate) mod disk;
pub mod draw;
pub mod fault;
pub(crate) mod host;
pub mod latency;
pub(crate) mod nemesis;
pub(crate) mod net;
pub mod plan;
pub mod rng;
pub mod run;
pub mod scale;
pub mod seen;
pub mod shrink;
pub(crate) mod sync;
pub mod totals;
pub mod trace;
pub mod world;

pub use counts::Counts;
pub use plan::Plan;
pub use run::{Report, run_plan, run_seed};
pub use totals::Totals;
pub use world::World;
