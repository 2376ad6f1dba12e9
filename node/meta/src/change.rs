//! Mutations of the metadata, and what becomes of them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bucket::BucketName;
use crate::id::NodeId;
use crate::node::Node;

/// A mutation that a member asks of the primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Make a bucket. `created_ns` is the admitting gateway's clock.
    CreateBucket {
        /// Which.
        name: BucketName,
        /// Unix nanoseconds.
        created_ns: i64,
    },
    /// Destroy a bucket.
    DestroyBucket {
        /// Which.
        name: BucketName,
    },
    /// Put a node into the Smap. Its electable flag counts at the *first* join only; afterwards the committed one does.
    Join {
        /// The node as it describes itself.
        node: Box<Node>,
    },
    /// Take a node out of the Smap; its seat in the electorate stays.
    Leave {
        /// Which.
        node: NodeId,
    },
    /// Say that the whole cluster is being stopped in order (protocol.md section 6): nobody leaves, nobody hands over.
    Stopping {
        /// Whether it is.
        stopping: bool,
    },
}

/// What a committed mutation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It changed the State (or the State already was so and that is success).
    Done,
    /// It was looked at and refused; nothing changed. Recorded too, so that asking again gives the same answer.
    Refused(Refusal),
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
    /// The id is taken by a process that lives.
    #[error("node id {0} is in use by another living process")]
    NodeIdTaken(NodeId),
    /// The request is older than what its gateway said it no longer waits for.
    #[error("stale request")]
    Stale,
    /// The State is at a bound.
    #[error("{0}")]
    Full(String),
}
