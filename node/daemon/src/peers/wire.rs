//! What goes over a connection between members, outside of packets.

use ais_ha::Sender;
use ais_meta::{Addresses, BootId, ClusterUuid, DiskId, Kind, NodeId, VoterId};
use serde::{Deserialize, Serialize};

/// Newest wire version that this program speaks.
pub const WIRE_MAX: u16 = 1;
/// Oldest one.
pub const WIRE_MIN: u16 = 1;
/// Largest packet. A whole State is a few megabytes.
pub const PACKET_MAX: usize = 64 << 20;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Heartbeats and votes.
    Control,
    /// Everything that may be large or many.
    Bulk,
}

/// What each side says of itself inside the handshake. Unknown fields are ignored: they belong to newer wire versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Newest wire version it speaks; the lower of both is used.
    pub wire_version: u16,
    /// Oldest one.
    pub wire_version_min: u16,
    /// Its name.
    pub node_id: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Its run.
    pub run: u64,
    /// Its process.
    pub boot: BootId,
    /// Gateway or target.
    pub kind: Kind,
    /// Its cluster, once known.
    pub uuid: Option<ClusterUuid>,
    /// Whether that cluster is formed, or only wanted.
    pub formed: bool,
    /// Where it listens: who does not know it can dial back.
    pub addresses: Addresses,
}

impl Greeting {
    /// Who says it.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender { id: VoterId::new(self.node_id.clone(), self.disk), run: self.run, boot: self.boot }
    }

    /// Whether both are told different clusters.
    #[must_use]
    pub fn foreign_to(&self, other: &Self) -> bool {
        matches!((&self.uuid, &other.uuid), (Some(a), Some(b)) if a != b)
    }

    /// The wire version that both speak.
    #[must_use]
    pub fn common_version(&self, other: &Self) -> Option<u16> {
        let version = self.wire_version.min(other.wire_version);
        (version >= self.wire_version_min && version >= other.wire_version_min).then_some(version)
    }
}

/// First handshake message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// What the connection will carry.
    pub channel: Channel,
    /// Who dials.
    pub greeting: Greeting,
}

/// Second handshake message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who was dialled.
    pub greeting: Greeting,
    /// Why the connection is closed now, if it is.
    pub refused: Option<String>,
}
