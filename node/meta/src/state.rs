//! The replicated value.
//!
//! A [`State`] is an ordered set of entries, key -> bytes, plus a typed view of those this version knows. The bytes
//! are the primary's and are stored and passed on as they came; the [`Digest`] is over them. So a member never
//! re-encodes what another wrote (I4 holds between versions), unknown entries survive, and both a [`Delta`] and the
//! digest cost what changed, not what there is.

mod draft;
mod record;

pub use draft::{BYTES_MAX, CLIENTS_MAX, Draft, Genesis, ORIGINS_MAX, RESULTS_MAX};
pub use record::{Client, Config, Head, Order, Origin, Past, Phase, Rmd, Smap, Tokens, Txn, TxnPhase};

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::bucket::{Bucket, BucketName};
use crate::change::{Basis, Change, MemberAction};
use crate::id::{ClusterUuid, DiskId, NodeId, Stamp, VoterId};
use crate::node::{Kind, Node, Voter};

/// The voters of a State, sorted by [`VoterId`].
pub type Electorate = Vec<Voter>;

/// Digest of a State: the sum of the XXH3-128 of its entries, so it changes by what changed. Guards against faults,
/// not against an adversary: members are authenticated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let [high, low] =
            [self.0 >> 64, self.0 & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default());
        (high, low).serialize(s)
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (high, low) = <(u64, u64)>::deserialize(d)?;
        Ok(Self(u128::from(high) << 64 | u128::from(low)))
    }
}

/// A change of entries from one State to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The State it starts from.
    pub base: Stamp,
    /// Digest of that State: a stamp alone could come from a disk that lies.
    pub base_digest: Digest,
    /// The State it leads to.
    pub stamp: Stamp,
    /// Digest of the result.
    pub digest: Digest,
    /// Entries set, or removed where `None`.
    pub changes: Vec<(String, Option<Bytes>)>,
}

/// A whole State on the wire or on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Full {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its digest.
    pub digest: Digest,
    /// All entries in key order.
    pub entries: Vec<(String, Bytes)>,
}

/// Why bytes are no State.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum StateError {
    /// The delta starts elsewhere: ask for the whole State.
    #[error("change starts at {wanted}, this State is {have}")]
    Base {
        /// Where it starts.
        wanted: Stamp,
        /// What we have.
        have: Stamp,
    },
    /// The result has another digest than announced: nothing of it is used.
    #[error("digest of {stamp} is {found}, announced was {announced}")]
    Digest {
        /// Which State.
        stamp: Stamp,
        /// As computed.
        found: Digest,
        /// As announced.
        announced: Digest,
    },
    /// An entry that this version should understand does not decode; probably a newer format.
    #[error("entry '{key}' does not decode: {why}")]
    Decode {
        /// Which entry.
        key: String,
        /// The decoder's words.
        why: String,
    },
    /// A required entry is absent.
    #[error("entry '{0}' is missing")]
    Missing(&'static str),
    /// The State is of a format that this version does not read.
    #[error("format {0} is newer than this version reads ({FORMAT})")]
    Format(u32),
}

/// Format of the State; raised when an older version must not read it.
pub const FORMAT: u32 = 1;

#[derive(Clone)]
struct Entry {
    bytes: Bytes,
    hash: u128,
}

/// All cluster-level metadata at one stamp. Cheap to clone: the maps are persistent.
#[derive(Clone)]
pub struct State {
    entries: OrdMap<Arc<str>, Entry>,
    /// Of keys and entries.
    bytes: usize,
    digest: Digest,
    head: Arc<Head>,
    electorate: Arc<Electorate>,
    smap: Arc<Smap>,
    nodes: OrdMap<NodeId, Arc<Node>>,
    past: OrdMap<NodeId, Past>,
    bmd_version: u64,
    next_bid: u64,
    buckets: OrdMap<BucketName, Arc<Bucket>>,
    config: Arc<Config>,
    rmd: Arc<Rmd>,
    tokens: Arc<Tokens>,
    origins: OrdMap<VoterKey, Arc<Origin>>,
    clients: OrdMap<String, Client>,
    /// The same, oldest first.
    ages: OrdSet<(Stamp, String)>,
    txn: Option<Arc<Txn>>,
    orders: OrdMap<NodeId, Arc<Order>>,
}

type VoterKey = (NodeId, DiskId);

fn hash(key: &str, bytes: &[u8]) -> u128 {
    let mut input = Vec::with_capacity(key.len() + 1 + bytes.len());
    input.extend_from_slice(key.as_bytes());
    input.push(0);
    input.extend_from_slice(bytes);
    xxh3_128(&input)
}

fn decode<'a, T: Deserialize<'a>>(key: &str, bytes: &'a [u8]) -> Result<T, StateError> {
    crate::pack::read(bytes).map_err(|e| StateError::Decode { key: key.to_owned(), why: e.to_string() })
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "State({} {} smap v{} {} nodes {} buckets)",
            self.stamp(),
            self.digest,
            self.smap.version,
            self.nodes.len(),
            self.buckets.len()
        )
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.stamp() == other.stamp() && self.digest == other.digest
    }
}

impl State {
    /// Its stamp.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.head.stamp
    }
    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// The cluster it belongs to.
    #[must_use]
    pub fn uuid(&self) -> &ClusterUuid {
        &self.head.uuid
    }
    /// Identity, stamp, primary, flags.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }
    /// The voter that wrote it.
    #[must_use]
    pub fn primary(&self) -> &VoterId {
        &self.head.primary
    }
    /// Who votes.
    #[must_use]
    pub fn electorate(&self) -> &Electorate {
        &self.electorate
    }
    /// Version and creation time of the cluster map.
    #[must_use]
    pub fn smap(&self) -> &Smap {
        &self.smap
    }
    /// Members.
    #[must_use]
    pub fn nodes(&self) -> &OrdMap<NodeId, Arc<Node>> {
        &self.nodes
    }
    /// Nodes that left, with the flags that outlive them.
    #[must_use]
    pub fn past(&self) -> &OrdMap<NodeId, Past> {
        &self.past
    }
    /// Version of the bucket metadata.
    #[must_use]
    pub fn bmd_version(&self) -> u64 {
        self.bmd_version
    }
    /// Buckets.
    #[must_use]
    pub fn buckets(&self) -> &OrdMap<BucketName, Arc<Bucket>> {
        &self.buckets
    }
    /// Cluster configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Rebalance metadata.
    #[must_use]
    pub fn rmd(&self) -> &Rmd {
        &self.rmd
    }
    /// Revoked tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }
    /// Targets that objects are placed on.
    pub fn placing_targets(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().filter(|n| n.kind == Kind::Target && !n.is_set_aside())
    }
    /// Remembers a request with the client's own id, or forgets it.
    fn put_client(&mut self, id: String, client: Option<Client>) {
        if let Some(client) = &client {
            self.ages.insert((client.stamp, id.clone()));
        }
        let old = match client {
            Some(client) => self.clients.insert(id.clone(), client.clone()).filter(|old| old.stamp != client.stamp),
            None => self.clients.remove(&id),
        };
        if let Some(old) = old {
            self.ages.remove(&(old.stamp, id));
        }
    }

    /// What is remembered of a gateway's requests.
    #[must_use]
    pub fn origin(&self, id: &VoterId) -> Option<&Arc<Origin>> {
        self.origins.get(&(id.node.clone(), id.disk))
    }
    /// What is remembered of a client's own request id.
    #[must_use]
    pub fn client(&self, id: &str) -> Option<&Client> {
        self.clients.get(id)
    }
    /// How many requests with clients' own ids are remembered.
    #[must_use]
    pub fn clients(&self) -> &OrdMap<String, Client> {
        &self.clients
    }

    /// What the rights of this change's caller are judged by here.
    #[must_use]
    pub fn basis(&self, change: &Change) -> Basis {
        let to = match change {
            Change::DestroyBucket { name } | Change::SetBucketProps { name, .. } => Some(name),
            Change::RenameBucket { from, .. } => Some(from),
            _ => None,
        };
        let access = to.and_then(|name| self.buckets.get(name)).map(|bucket| bucket.access);
        Basis { config_version: self.config.version, tokens_version: self.tokens.version, access }
    }

    /// The membership transaction in progress.
    #[must_use]
    pub fn transaction(&self) -> Option<&Txn> {
        self.txn.as_deref()
    }
    /// Members that are told to end.
    #[must_use]
    pub fn orders(&self) -> &OrdMap<NodeId, Arc<Order>> {
        &self.orders
    }
    /// What this process of a node is told, if anything.
    #[must_use]
    pub fn order(&self, id: &VoterId, run: u64) -> Option<&Order> {
        let meant = |o: &&Arc<Order>| o.disk == id.disk && (o.action == MemberAction::Decommission || run <= o.run);
        self.orders.get(&id.node).filter(meant).map(|o| &**o)
    }

    /// The whole of it, for a member without a base.
    #[must_use]
    pub fn full(&self) -> Full {
        Full {
            stamp: self.stamp(),
            digest: self.digest,
            entries: self.entries.iter().map(|(k, e)| (k.to_string(), e.bytes.clone())).collect(),
        }
    }

    /// Number of bytes in entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads a whole State.
    ///
    /// # Errors
    /// [`StateError`]: an entry that does not decode, or a digest that differs; nothing is trimmed to make it fit.
    pub fn from_full(full: &Full) -> Result<Self, StateError> {
        let head = full.entries.iter().find(|(k, _)| k == record::HEAD).ok_or(StateError::Missing(record::HEAD))?;
        let mut state = Self::empty(decode(record::HEAD, &head.1)?);
        for (key, bytes) in &full.entries {
            state.set(key, bytes.clone())?;
        }
        state.check(full.stamp, full.digest)?;
        Ok(state)
    }

    /// The State that `delta` leads to.
    ///
    /// # Errors
    /// [`StateError::Base`] when it starts elsewhere, otherwise as [`State::from_full`]. `self` is unchanged.
    pub fn apply(&self, delta: &Delta) -> Result<Self, StateError> {
        if delta.base != self.stamp() || delta.base_digest != self.digest {
            return Err(StateError::Base { wanted: delta.base, have: self.stamp() });
        }
        let mut state = self.clone();
        for (key, change) in &delta.changes {
            match change {
                Some(bytes) => state.set(key, bytes.clone())?,
                None => state.unset(key),
            }
        }
        state.check(delta.stamp, delta.digest)?;
        Ok(state)
    }

    /// A draft of the State after this one.
    #[must_use]
    pub fn draft(&self, stamp: Stamp) -> Draft {
        Draft::new(self, stamp)
    }

    fn empty(head: Head) -> Self {
        Self {
            entries: OrdMap::new(),
            bytes: 0,
            digest: Digest::default(),
            head: Arc::new(head),
            electorate: Arc::default(),
            smap: Arc::default(),
            nodes: OrdMap::new(),
            past: OrdMap::new(),
            bmd_version: 0,
            next_bid: 1,
            buckets: OrdMap::new(),
            config: Arc::default(),
            rmd: Arc::default(),
            tokens: Arc::default(),
            origins: OrdMap::new(),
            clients: OrdMap::new(),
            ages: OrdSet::new(),
            txn: None,
            orders: OrdMap::new(),
        }
    }

    fn check(&self, stamp: Stamp, announced: Digest) -> Result<(), StateError> {
        if self.head.format > FORMAT {
            return Err(StateError::Format(self.head.format));
        }
        if self.stamp() != stamp || self.digest != announced {
            return Err(StateError::Digest { stamp, found: self.digest, announced });
        }
        Ok(())
    }

    fn set(&mut self, key: &str, bytes: Bytes) -> Result<(), StateError> {
        self.read(key, &bytes)?;
        let hash = hash(key, &bytes);
        self.bytes += key.len() + bytes.len();
        let old = self.entries.insert(key.into(), Entry { bytes, hash });
        self.bytes -= old.as_ref().map_or(0, |e| key.len() + e.bytes.len());
        self.digest.0 = self.digest.0.wrapping_sub(old.map_or(0, |e| e.hash)).wrapping_add(hash);
        Ok(())
    }

    fn unset(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= key.len() + old.bytes.len();
            self.digest.0 = self.digest.0.wrapping_sub(old.hash);
            self.forget(key);
        }
    }
}
