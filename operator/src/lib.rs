//! The operator of `AISCluster` resources. `controller.rs` is the place to begin reading.

pub mod apis;
pub mod apply;
pub mod check;
pub mod cli;
pub mod conditions;
pub mod controller;
pub mod desired;
pub mod events;
pub mod facts;
pub mod hub;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod observe;
pub mod orders;
pub mod overlay;
pub mod pauses;
pub mod perform;
pub mod plan;
pub mod scope;
pub mod server;
pub mod status;
pub mod unreadable;
pub mod validate;
pub mod view;
