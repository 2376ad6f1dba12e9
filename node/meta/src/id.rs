//! Identities and stamps (protocol.md section 1).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longest node id: a DNS label, because in Kubernetes the id is the pod's name.
pub const NODE_ID_MAX: usize = 63;

/// Why a text is no identity.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum IdError {
    /// Empty, too long, or a character outside `[A-Za-z0-9._-]`.
    #[error("'{0}' is not a node id: 1 to {NODE_ID_MAX} of letters, digits, '.', '_', '-'")]
    Node(String),
    /// Not 16 hexadecimal digits.
    #[error("'{0}' is not a disk or boot id: 16 hexadecimal digits")]
    Hex(String),
    /// Not `node/disk`.
    #[error("'{0}' is not a voter id: NODE/DISK")]
    Voter(String),
    /// Not `incarnation.epoch.seq`.
    #[error("'{0}' is not a stamp: INCARNATION.EPOCH.SEQ")]
    Stamp(String),
    /// AIStore wants 9 or more of `[A-Za-z0-9_-]`; we bound it at 64.
    #[error("'{0}' is not a cluster uuid: 9 to 64 of letters, digits, '_', '-'")]
    Uuid(String),
}

fn word(text: &str, min: usize, max: usize, extra: &str) -> bool {
    (min..=max).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // Most comparisons are of one text with itself.
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if $check(text) { Ok(Self(text.into())) } else { Err($error(text.to_owned())) }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// Name of a node, AIStore's `daemon_id`; in Kubernetes the pod's name.
    NodeId, |t: &str| word(t, 1, NODE_ID_MAX, "._-"), IdError::Node
);
text_id!(
    /// Identity of a cluster, AIStore's Smap `uuid`.
    ClusterUuid, |t: &str| word(t, 9, 64, "_-"), IdError::Uuid
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(IdError::Hex(text.to_owned()));
                }
                u64::from_str_radix(text, 16).map(Self).map_err(|_| IdError::Hex(text.to_owned()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// Random name of a formatted state directory; a wiped or replaced disk gets another.
    DiskId
);
hex_id!(
    /// Random name of a process.
    BootId
);

/// A voter: a node together with the disk that remembers its promises.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterId {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub disk: DiskId,
}

impl VoterId {
    /// Puts the two together.
    #[must_use]
    pub fn new(node: NodeId, disk: DiskId) -> Self {
        Self { node, disk }
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.disk)
    }
}

impl fmt::Debug for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.node, self.disk)
    }
}

impl FromStr for VoterId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (node, disk) = text.split_once('/').ok_or_else(|| IdError::Voter(text.to_owned()))?;
        Ok(Self { node: node.parse()?, disk: disk.parse()? })
    }
}

/// Names one State: ordered lexicographically, issued once, of exactly one content (protocol.md section 1, I4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Raised only by an administrator's recovery of a lost majority.
    pub incarnation: u32,
    /// One primary's term.
    pub epoch: u64,
    /// Counts States; a new epoch goes on counting from the State that it adopts.
    pub seq: u64,
}

impl Stamp {
    /// Puts the three together.
    #[must_use]
    pub fn new(incarnation: u32, epoch: u64, seq: u64) -> Self {
        Self { incarnation, epoch, seq }
    }

    /// The stamp after this one in the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.epoch, self.seq)
    }
}

impl FromStr for Stamp {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Stamp(text.to_owned());
        let (incarnation, rest) = text.split_once('.').ok_or_else(wrong)?;
        let (epoch, seq) = rest.split_once('.').ok_or_else(wrong)?;
        let number = |part: &str| part.parse::<u64>().map_err(|_| wrong());
        let incarnation = u32::try_from(number(incarnation)?).map_err(|_| wrong())?;
        Ok(Self::new(incarnation, number(epoch)?, number(seq)?))
    }
}

/// Names one mutation for ever, so that it takes effect once (protocol.md rule 13).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestId {
    /// Given by the gateway that admitted it. `run` instead of the boot id: it is ordered, so results of an earlier
    /// process of the same disk can be dropped.
    Gateway {
        /// The gateway.
        origin: VoterId,
        /// The run of its disk.
        run: u64,
        /// Counts within the run, from 1.
        seq: u64,
    },
    /// Given by the client (header `Ais-Request-Id`), at most 64 characters.
    Client(String),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { origin, run, seq } => write!(f, "{origin}#{run}.{seq}"),
            Self::Client(id) => f.write_str(id),
        }
    }
}
