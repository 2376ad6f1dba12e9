//! The node daemon: the threads, sockets and files around the sans-IO core [`ais_ha`].
//!
//! | module | what it does |
//! |---|---|
//! | [`boot`] | state directory, discovery file, `AIS_PRIMARY_EP`: everything before the core starts |
//! | [`discovery`] | the discovery file, read again and again |
//! | [`runner`] | the one loop that owns the core |
//! | [`handle`] | what everybody else holds of it |
//! | [`disk`] | the state directory, and the thread that writes it |
//! | [`keeper`] | copies of the committed State on a target's data disks |
//! | [`peers`] | authenticated connections between members |
//! | [`hooks`] | what the engine reports to the metrics |
//! | [`keyring`] | the cluster's secrets, read again when their file changes |
//! | [`tls`] | certificates, read again when their files change |
//! | [`config`] | the configuration: keys, sources, validation, `check-config` |
//! | [`http`] | AIStore's HTTP API, and the calls of members and operator |
//! | [`metrics`], [`logging`] | what the process says of itself |
//! | [`auth`] | clients' tokens |
//! | [`inspect`] | prints the records of a stopped node |
//! | [`status`], [`recover`] | the commands that ask a running node |

mod answers;
pub mod auth;
pub mod boot;
pub mod clock;
pub mod config;
pub mod discovery;
pub mod disk;
pub mod handle;
pub mod hooks;
pub mod http;
pub mod inspect;
pub mod keeper;
pub mod keyring;
pub mod logging;
pub mod metrics;
pub mod peers;
pub mod recover;
pub mod runner;
pub mod status;
pub mod tls;
mod unproven;
