//! A real single-node Kubernetes of the project's own, for `cargo xtask up` and for the end-to-end tests.
//!
//! Everything runs inside namespaces of one process; ending that process ends all of it. What it writes is under one
//! state folder, so that `down` leaves nothing behind. The cluster's number selects its address range, its interface
//! and its cgroup: clusters of different numbers can run side by side.
//!
//! NetworkPolicies are accepted and not enforced: the test Kubernetes has no plugin for them.

pub mod audit;
pub mod binaries;
mod cgroup;
pub mod cluster;
pub mod components;
mod config;
pub mod faults;
pub mod helm;
pub mod init;
pub mod kubectl;
pub mod layout;
mod lease;
pub mod network;
pub mod packages;
pub mod pause;
mod pki;
pub mod process;
pub mod volumes;

pub use binaries::Binaries;
pub use cluster::Cluster;
pub use components::Component;
pub use faults::Cut;
pub use helm::Helm;
pub use kubectl::Kubectl;
pub use process::HostProcess;
