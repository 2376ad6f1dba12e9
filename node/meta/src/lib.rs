//! The cluster's metadata as values: identities, stamps, the [`State`] that the epoch register replicates, and the
//! rules that turn one State into the next.
//!
//! No IO, no clock, no randomness, no iteration over hash maps: every function here gives the same result on every
//! member.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | node, disk, voter, process and request identities; [`Stamp`] |
//! | [`node`] | what the Smap says of a node |
//! | [`bucket`] | bucket names and properties |
//! | [`state`] | the replicated value: typed view, entries as bytes, digest, deltas |
//! | [`pack`] | MessagePack with a bound on its depth |
//! | [`change`] | mutations and their outcomes |
//! | [`settings`] | bucket properties and cluster configuration: names, types, rules |
//! | [`hrw`] | AIStore's placement and succession order |
//! | [`auth`] | signatures of member and operator HTTP calls |

pub mod auth;
pub mod bucket;
pub mod change;
pub mod hrw;
pub mod id;
pub mod node;
pub mod pack;
pub mod settings;
pub mod state;

pub use bucket::{Bucket, BucketName};
pub use change::{Basis, Change, MemberAction, MemberOptions, Outcome, Refusal};
pub use id::{BootId, ClusterUuid, DiskId, NodeId, RequestId, Stamp, VoterId};
pub use node::{Address, Addresses, Kind, Node, Voter};
pub use state::{Delta, Digest, Draft, Electorate, Full, State, StateError};

use std::collections::BTreeMap;

/// Fields that this version does not know, kept as they came (protocol.md section 2: an older member must not trim
/// what a newer one wrote).
pub type Extra = BTreeMap<String, rmpv::Value>;
