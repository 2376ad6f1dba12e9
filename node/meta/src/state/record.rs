//! The entries of a State: their keys, their shapes, and how the typed view follows them.
//!
//! | key | holds |
//! |---|---|
//! | `head` | [`Head`] |
//! | `electorate` | list of [`Voter`] |
//! | `smap` | [`Smap`]; `smap/node/ID` one [`Node`]; `smap/past/ID` one [`Past`] |
//! | `bmd` | `{version, next_bid}`; `bmd/bucket/NS/NAME` one [`Bucket`] |
//! | `config`, `rmd`, `tokens` | one each |
//! | `request/NODE/DISK` | [`Origin`]: results that a gateway has not acknowledged |
//! | `client/ID` | [`Client`]: result of a request with the client's own id |
//! | `txn/current` | [`Txn`]: the membership transaction in progress |
//! | `txn/order/ID` | [`Order`]: a member that is told to end |
//!
//! Values are MessagePack maps. Keys that this version does not know are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{State, StateError, decode};
use crate::Extra;
use crate::bucket::{Bucket, BucketName};
use crate::change::{MemberAction, MemberOptions, Outcome};
use crate::id::{ClusterUuid, DiskId, NodeId, Stamp, VoterId};
use crate::node::{Node, Voter};

pub(super) const HEAD: &str = "head";
pub(super) const ELECTORATE: &str = "electorate";
pub(super) const SMAP: &str = "smap";
pub(super) const BMD: &str = "bmd";
pub(super) const CONFIG: &str = "config";
pub(super) const RMD: &str = "rmd";
pub(super) const TOKENS: &str = "tokens";
pub(super) const TXN: &str = "txn/current";
const ORDER: &str = "txn/order/";
const NODE: &str = "smap/node/";
const PAST: &str = "smap/past/";
const BUCKET: &str = "bmd/bucket/";
const ORIGIN: &str = "request/";
const CLIENT: &str = "client/";

pub(super) fn node_key(id: &NodeId) -> String {
    format!("{NODE}{id}")
}
pub(super) fn past_key(id: &NodeId) -> String {
    format!("{PAST}{id}")
}
pub(super) fn bucket_key(name: &BucketName) -> String {
    format!("{BUCKET}{}/{}", name.namespace, name.name)
}
pub(super) fn origin_key(id: &VoterId) -> String {
    format!("{ORIGIN}{id}")
}
pub(super) fn order_key(id: &NodeId) -> String {
    format!("{ORDER}{id}")
}
pub(super) fn client_key(id: &str) -> String {
    format!("{CLIENT}{id}")
}

/// Identity of a State.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// See [`super::FORMAT`].
    pub format: u32,
    /// The cluster.
    pub uuid: ClusterUuid,
    /// The State's name.
    pub stamp: Stamp,
    /// Who wrote it.
    pub primary: VoterId,
    /// The run of the writer: an epoch belongs to one run of one process (protocol.md rule 6).
    pub run: u64,
    /// How long the writer counts a lease that a voter gave, milliseconds: its voters give no shorter one, whatever
    /// they were configured with (protocol.md rule 8). 0: written before this was said.
    #[serde(default)]
    pub lease_ms: u64,
    /// The whole cluster is being stopped in order.
    #[serde(default)]
    pub stopping: bool,
    /// The whole cluster was decommissioned, and how: nothing changes any more but who is primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<MemberOptions>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Version of the cluster map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Smap {
    /// AIStore's rule: +1 per change, +100 at a new primary.
    pub version: u64,
    /// Unix seconds; shown only.
    #[serde(default)]
    pub created_s: i64,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What outlives a node's place in the Smap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Its flags.
    pub flags: u64,
    /// Its last disk; 0 if it never was a member and an administrator announced it.
    pub disk: DiskId,
    /// That disk's last run.
    pub run: u64,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bmd {
    pub(super) version: u64,
    pub(super) next_bid: u64,
    #[serde(flatten)]
    pub(super) extra: Extra,
}

/// Cluster configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// +1 per change.
    pub version: u64,
    /// Settings that were set, by their dotted name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Config {
    /// A setting of [`crate::settings::CLUSTER`]: as it was set, or its default. Empty for a name that it has not.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let set = self.settings.get(name).map(String::as_str);
        set.or(crate::settings::CLUSTER.default_of(name)).unwrap_or_default()
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name) == "true"
    }

    /// The words of a list.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.value(name).split(',').filter(|word| !word.is_empty())
    }
}

/// Where a rebalance stands (data.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waiting for absent targets to come back.
    Grace,
    /// Objects move.
    Moving,
    /// Everything is where it belongs.
    #[default]
    Done,
}

/// Rebalance metadata. The generation is committed with every change of the set of placing targets; the rest is
/// carried from format 1 for the data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rmd {
    /// +1 per change.
    pub version: u64,
    /// Placement generation.
    pub generation: u64,
    /// Where the move to it stands.
    pub phase: Phase,
    /// Target sets that may still hold objects.
    #[serde(default)]
    pub origins: Vec<BTreeSet<NodeId>>,
    /// Targets that are expected back.
    #[serde(default)]
    pub absent: BTreeSet<NodeId>,
    /// Targets that do not hold all they should, and since which generation.
    #[serde(default)]
    pub incomplete: BTreeMap<NodeId, u64>,
    /// Targets that have finished.
    #[serde(default)]
    pub done: BTreeSet<NodeId>,
    /// Milliseconds of grace before a move.
    #[serde(default)]
    pub move_after_ms: u64,
    /// Disks that may return only as new ones.
    #[serde(default)]
    pub lost: BTreeSet<DiskId>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Revoked tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// +1 per change.
    pub version: u64,
    /// Hexadecimal SHA-256 of each, and when it expires, unix seconds. (Format 1 began with a field `revoked`, a list
    /// that nothing ever wrote to: hence the other name.)
    #[serde(default, rename = "sha256")]
    pub revoked: BTreeMap<String, i64>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How far a membership transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnPhase {
    /// The flags are set; reachable targets have not all published them.
    Flags,
    /// They have; nodes that will end still hold seats that the majority needs.
    Seats,
}

/// A membership transaction (http-api.md 2.8): recorded, so that whoever is primary finishes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Txn {
    /// The State that set the flags; names the transaction.
    pub began: Stamp,
    /// What is done.
    pub action: MemberAction,
    /// To whom.
    pub nodes: BTreeSet<NodeId>,
    /// How.
    pub options: MemberOptions,
    /// How far it is.
    pub phase: TxnPhase,
    /// The rebalance that belongs to it, `gN`; empty: none.
    #[serde(default)]
    pub rebalance: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Tells a member to end: it is valid for one disk, and for runs of it up to one. Outlives the transaction, because the
/// node may hear of it late.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The disk.
    pub disk: DiskId,
    /// The newest run it is meant for.
    pub run: u64,
    /// [`MemberAction::Shutdown`], or [`MemberAction::Decommission`] (which is meant for any run).
    pub action: MemberAction,
    /// How.
    pub options: MemberOptions,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Requests of one gateway process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The run of the gateway's disk that they belong to.
    pub run: u64,
    /// The gateway waits for nothing below.
    pub low: u64,
    /// Results at or above `low`.
    pub results: BTreeMap<u64, Outcome>,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A request with the client's own id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// The State that settled it; the oldest are dropped first.
    pub stamp: Stamp,
    /// What became of it.
    pub outcome: Outcome,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An entry of which there may be many.
pub(super) enum Item {
    Node(NodeId),
    Past(NodeId),
    Bucket(BucketName),
    Origin(VoterId),
    Client(String),
    Order(NodeId),
}

/// What a key names, if it is of a family that this version knows.
pub(super) fn item(key: &str) -> Option<Item> {
    if let Some(id) = key.strip_prefix(NODE) {
        return id.parse().ok().map(Item::Node);
    }
    if let Some(id) = key.strip_prefix(PAST) {
        return id.parse().ok().map(Item::Past);
    }
    if let Some(path) = key.strip_prefix(BUCKET) {
        let (namespace, name) = path.split_once('/')?;
        return BucketName::new(namespace, name).ok().map(Item::Bucket);
    }
    if let Some(id) = key.strip_prefix(ORIGIN) {
        return id.parse().ok().map(Item::Origin);
    }
    if let Some(id) = key.strip_prefix(ORDER) {
        return id.parse().ok().map(Item::Order);
    }
    key.strip_prefix(CLIENT).map(|id| Item::Client(id.to_owned()))
}

impl State {
    /// Lets the typed view follow one entry.
    pub(super) fn read(&mut self, key: &str, bytes: &Bytes) -> Result<(), StateError> {
        match key {
            HEAD => self.head = Arc::new(decode(key, bytes)?),
            ELECTORATE => self.electorate = Arc::new(decode::<Vec<Voter>>(key, bytes)?),
            SMAP => self.smap = Arc::new(decode(key, bytes)?),
            BMD => {
                let bmd: Bmd = decode(key, bytes)?;
                (self.bmd_version, self.next_bid) = (bmd.version, bmd.next_bid);
            }
            CONFIG => self.config = Arc::new(decode(key, bytes)?),
            RMD => self.rmd = Arc::new(decode(key, bytes)?),
            TOKENS => self.tokens = Arc::new(decode(key, bytes)?),
            TXN => self.txn = Some(Arc::new(decode(key, bytes)?)),
            _ => self.read_item(key, bytes)?,
        }
        Ok(())
    }

    fn read_item(&mut self, key: &str, bytes: &Bytes) -> Result<(), StateError> {
        let Some(item) = item(key) else {
            // Of this version's families, but with a name that it cannot have.
            return if [NODE, PAST, BUCKET, ORIGIN, ORDER].iter().any(|family| key.starts_with(family)) {
                Err(StateError::Decode { key: key.to_owned(), why: "not a valid name".to_owned() })
            } else {
                Ok(())
            };
        };
        match item {
            Item::Node(id) => drop(self.nodes.insert(id, Arc::new(decode::<Node>(key, bytes)?))),
            Item::Past(id) => drop(self.past.insert(id, decode(key, bytes)?)),
            Item::Bucket(name) => drop(self.buckets.insert(name, Arc::new(decode::<Bucket>(key, bytes)?))),
            Item::Origin(id) => drop(self.origins.insert((id.node, id.disk), Arc::new(decode(key, bytes)?))),
            Item::Client(id) => {
                let client = decode(key, bytes)?;
                self.put_client(id, Some(client));
            }
            Item::Order(id) => drop(self.orders.insert(id, Arc::new(decode(key, bytes)?))),
        }
        Ok(())
    }

    /// Lets the typed view follow the removal of one entry.
    pub(super) fn forget(&mut self, key: &str) {
        match item(key) {
            Some(Item::Node(id)) => drop(self.nodes.remove(&id)),
            Some(Item::Past(id)) => drop(self.past.remove(&id)),
            Some(Item::Bucket(name)) => drop(self.buckets.remove(&name)),
            Some(Item::Origin(id)) => drop(self.origins.remove(&(id.node, id.disk))),
            Some(Item::Client(id)) => self.put_client(id, None),
            Some(Item::Order(id)) => drop(self.orders.remove(&id)),
            None if key == TXN => self.txn = None,
            None => {}
        }
    }
}
