//! Mutations of the metadata, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bucket::BucketName;
use crate::id::NodeId;
use crate::node::Node;
use crate::settings::SettingError;

/// A mutation that a member asks of the primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Make a bucket. `created_ns` is the admitting gateway's clock.
    CreateBucket {
        /// Which.
        name: BucketName,
        /// Unix nanoseconds.
        created_ns: i64,
        /// Properties that differ from the cluster's defaults, by dotted name ([`crate::settings::BUCKET`]).
        #[serde(default)]
        props: BTreeMap<String, String>,
    },
    /// Destroy a bucket.
    DestroyBucket {
        /// Which.
        name: BucketName,
    },
    /// Set properties of a bucket; all or none.
    SetBucketProps {
        /// Which.
        name: BucketName,
        /// New values by dotted name ([`crate::settings::BUCKET`]).
        set: BTreeMap<String, String>,
        /// Back to the cluster's defaults first.
        reset: bool,
    },
    /// Give a bucket another name in the same namespace or another one. Its id and properties stay.
    RenameBucket {
        /// Its name.
        from: BucketName,
        /// The new one, which must be free.
        to: BucketName,
    },
    /// Set keys of the cluster's configuration; all or none.
    SetConfig {
        /// New values by dotted name ([`crate::settings::CLUSTER`]).
        set: BTreeMap<String, String>,
        /// Back to the defaults first.
        reset: bool,
    },
    /// Revoke tokens.
    RevokeTokens {
        /// Hexadecimal SHA-256 of the token, and when it expires, unix seconds: no need to remember it afterwards.
        tokens: BTreeMap<String, i64>,
        /// The admitting gateway's clock, unix seconds.
        now_s: i64,
    },
    /// Maintenance, shutdown or removal of members: all of them or none, one such change at a time.
    Membership {
        /// What to do.
        action: MemberAction,
        /// To whom.
        nodes: Vec<NodeId>,
        /// How.
        #[serde(default)]
        options: MemberOptions,
    },
    /// Say whether a gateway may lead: one that is about to join (join-by-admin), or a member.
    Admit {
        /// Which.
        node: NodeId,
        /// It may not.
        non_electable: bool,
    },
    /// Put a node into the Smap. Its electable flag counts at the *first* join only; afterwards the committed one does.
    Join {
        /// The node as it describes itself.
        node: Box<Node>,
    },
    /// Take a node out of the Smap; its seat in the electorate stays. A node in maintenance keeps its place.
    Leave {
        /// Which.
        node: NodeId,
    },
    /// Say that the whole cluster is being stopped in order (protocol.md section 6): nobody leaves, nobody hands over.
    Stopping {
        /// Whether it is.
        stopping: bool,
    },
    /// Decommission the whole cluster: the last change that it takes. Who sees it published forgets the cluster.
    Decommission {
        /// How; `skip_rebalance` says nothing here.
        options: MemberOptions,
    },
}

/// What the rights of a change's caller were judged by, at the gateway that admitted it. It may wait there for a primary,
/// and be on its way for long: the change is made only in a State in which the same would be judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Version of the configuration: whether clients need tokens, and which ones.
    pub config_version: u64,
    /// Version of the revoked tokens.
    pub tokens_version: u64,
    /// Access mask of the bucket that the change is to, if there was one.
    pub access: Option<u64>,
}

/// What to do to members (http-api.md 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberAction {
    /// Take out of service; stays in the Smap, also while it is down.
    StartMaintenance,
    /// Take back into service.
    StopMaintenance,
    /// Maintenance, and the process ends.
    Shutdown,
    /// Out of the Smap for good, and the process ends; the disk returns only as a new one.
    Decommission,
    /// Out of the Smap at once, whatever it holds and whether it hears of it or not.
    RemoveUnsafe,
}

impl MemberAction {
    /// AIStore's name of the action.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartMaintenance => "start-maintenance",
            Self::StopMaintenance => "stop-maintenance",
            Self::Shutdown => "shutdown-node",
            Self::Decommission => "decommission-node",
            Self::RemoveUnsafe => "rm-unsafe",
        }
    }

    /// The action of AIStore's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all =
            [Self::StartMaintenance, Self::StopMaintenance, Self::Shutdown, Self::Decommission, Self::RemoveUnsafe];
        all.into_iter().find(|a| a.as_str() == name)
    }
}

impl fmt::Display for MemberAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How to do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberOptions {
    /// Do not raise the placement generation: objects stay where they are.
    pub skip_rebalance: bool,
    /// Decommission: remove objects too.
    pub rm_user_data: bool,
    /// Decommission: keep the configuration that the node was first started with.
    pub keep_initial_config: bool,
    /// Decommission: the process goes on, without a cluster.
    pub no_shutdown: bool,
}

/// What a committed mutation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It changed the State (or the State already was so and that is success).
    Done,
    /// It was looked at and refused; nothing changed. Recorded too, so that asking again gives the same answer.
    Refused(Refusal),
    /// As `Done`, and it began something with this id (a rebalance: `gN`).
    Began(String),
}

/// Why a mutation was refused although there is a primary.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// 409.
    #[error("bucket \"{0}\" already exists")]
    BucketExists(BucketName),
    /// 404.
    #[error("bucket \"{0}\" does not exist")]
    NoSuchBucket(BucketName),
    /// 404.
    #[error("node {0} is not in the cluster map")]
    NoSuchNode(NodeId),
    /// 409. The id is taken by a process that lives.
    #[error("node id {0} is in use by another living process")]
    NodeIdTaken(NodeId),
    /// 409. The disk was given up for lost (decommission, rm-unsafe): it may return only as a new one.
    #[error("the disk of node {node} was given up for lost; the node may join with a new one only")]
    DiskLost {
        /// Which node.
        node: NodeId,
        /// How it was decommissioned; `None`: it was not, it was removed.
        options: Option<MemberOptions>,
    },
    /// 409. Something of the kind is in progress.
    #[error("{0}")]
    Busy(String),
    /// 400. Makes no sense, or can never work.
    #[error("{0}")]
    Invalid(String),
    /// 400. A property or a configuration value.
    #[error("{0}")]
    Setting(SettingError),
    /// The request is older than what its gateway said it no longer waits for.
    #[error("stale request")]
    Stale,
    /// The State is at a bound.
    #[error("{0}")]
    Full(String),
    /// Its caller's rights were judged by what holds no more ([`Basis`]): to be judged again. Never recorded, and the
    /// change will not be made under that judgement.
    #[error("what the caller's rights were judged by has changed")]
    Outdated,
}
