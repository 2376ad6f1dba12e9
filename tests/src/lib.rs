//! Everything the project's end-to-end tests and its `xtask` command share.
//!
//! [`testbed`] is a real single-node Kubernetes of the project's own, [`image`] makes the container image without
//! a docker daemon, and [`xtask`] is the command line a newcomer starts with. The crate stays light on purpose: it
//! is the first thing `cargo xtask` compiles.

#[cfg(test)]
mod chart;
pub mod client;
pub mod cmd;
#[cfg(test)]
mod docs;
pub mod drill;
pub mod history;
pub mod http;
pub mod image;
pub mod processes;
pub mod product;
pub mod progress;
pub mod scenarios;
pub mod scene;
pub mod sdk;
pub mod soak;
pub mod suite;
pub mod testbed;
pub mod wait;
pub mod xtask;
