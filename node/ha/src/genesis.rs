//! Bootstrap and founding (protocol.md section 5). Timeless.

use ais_meta::{ClusterUuid, NodeId, VoterId, hrw};
use serde::{Deserialize, Serialize};

use crate::io::PrimaryEp;

/// An offer to found: unanimous among `voters`, made by one founder disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// Counts the founder disk's offers, from 1.
    pub number: u64,
    /// Identity of the cluster to be.
    pub uuid: ClusterUuid,
    /// Who made it.
    pub founder: VoterId,
    /// All initial voters, sorted, the founder among them.
    pub voters: Vec<VoterId>,
}

/// What the disk says of founding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Genesis {
    /// A new disk.
    #[default]
    Unformed,
    /// The founder's own: made and sent, not bound to.
    Offered(Offer),
    /// Bound.
    Bound(Offer),
    /// Member of a formed cluster.
    Formed(ClusterUuid),
    /// The record could not be read and was set aside: may join, never found.
    JoinOnly,
}

impl Genesis {
    /// The offer that is made or bound to.
    #[must_use]
    pub fn offer(&self) -> Option<&Offer> {
        match self {
            Self::Offered(offer) | Self::Bound(offer) => Some(offer),
            _ => None,
        }
    }

    /// Whether the disk belongs to a formed cluster.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        matches!(self, Self::Formed(_))
    }
}
