//! What the Smap and the electorate say of a node.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Extra;
use crate::id::{DiskId, NodeId, VoterId};

/// The two kinds of node. On AIStore's wire a gateway is a `proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Takes requests; may become primary.
    Gateway,
    /// Stores objects; may vote as a witness, never leads.
    Target,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Target => "target",
        })
    }
}

/// A place to dial: a name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// DNS name or IP address (IPv6 without brackets).
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// AIStore's HTTP API for clients.
    pub public: Address,
    /// HTTP calls of members and of the operator.
    pub control: Address,
    /// Frames between members.
    pub peer: Address,
}

/// Bits of [`Node::flags`], AIStore's values (http-api.md 2.2).
pub mod flags {
    /// The gateway never leads.
    pub const NON_ELECTABLE: u64 = 1;
    /// Member of the information centre.
    pub const IC: u64 = 2;
    /// In maintenance.
    pub const MAINTENANCE: u64 = 4;
    /// Being decommissioned.
    pub const DECOMMISSION: u64 = 8;
    /// Maintenance, its rebalance done.
    pub const MAINTENANCE_POST_REBALANCE: u64 = 16;
}

/// A member as the Smap holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its state directory.
    pub disk: DiskId,
    /// The newest run of that directory that joined.
    pub run: u64,
    /// Gateway or target.
    pub kind: Kind,
    /// Where it listens.
    pub addresses: Addresses,
    /// Bits of [`flags`].
    pub flags: u64,
    /// Failure domain (a host, a zone), empty when not told.
    #[serde(default)]
    pub domain: String,
    /// Unknown fields, kept.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Node {
    /// Its name as a voter.
    #[must_use]
    pub fn voter_id(&self) -> VoterId {
        VoterId::new(self.id.clone(), self.disk)
    }

    /// Whether it may become primary (AIStore: not non-electable, not in maintenance, not leaving).
    #[must_use]
    pub fn electable(&self) -> bool {
        self.kind == Kind::Gateway
            && self.flags & (flags::NON_ELECTABLE | flags::MAINTENANCE | flags::DECOMMISSION) == 0
    }

    /// In maintenance or being decommissioned: out of service, its place in the Smap kept.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        self.flags & (flags::MAINTENANCE | flags::DECOMMISSION) != 0
    }
}

/// An entry of the electorate. Carries addresses, so that voters find each other without the Smap
/// (protocol.md section 1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Voter {
    /// Node and disk.
    pub id: VoterId,
    /// Gateway or witness target.
    pub kind: Kind,
    /// Whether it may lead.
    pub electable: bool,
    /// Where it listens.
    pub addresses: Addresses,
}

impl From<&Node> for Voter {
    fn from(node: &Node) -> Self {
        Self { id: node.voter_id(), kind: node.kind, electable: node.electable(), addresses: node.addresses.clone() }
    }
}
