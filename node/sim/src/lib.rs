//! Deterministic simulator of the production core: virtual time, faulty network, disks and processes, clients, and the
//! invariants of the protocol on all the time. One seed, one run.

pub(crate) mod client;
pub(crate) mod disk;
pub mod latency;
pub mod nemesis;
pub(crate) mod net;
pub mod plan;
pub mod rng;
pub mod run;
pub(crate) mod sync;
pub mod totals;
pub mod trace;
pub mod world;

pub use plan::Plan;
pub use run::{Report, run_plan, run_seed};
pub use totals::Totals;
pub use world::{Counts, World};
