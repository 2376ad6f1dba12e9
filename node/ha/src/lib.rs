//! The sans-IO core: an epoch register with adoption, its elections, hand-overs, founding, and metasync.
//!
//! The rules are numbered in the project's protocol document; code that keeps one names it.

pub mod electorate;
pub mod genesis;
pub mod invariant;
pub mod io;
pub mod message;
pub mod mutant;
mod node;
pub mod pacemaker;
pub mod quorum;
pub mod register;
mod timers;

pub use genesis::{Ended, Genesis, Offer};
pub use io::*;
pub use node::{Node, Stats};
