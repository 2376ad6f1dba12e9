//! AIStore's access bits, and the decision over them (http-api.md section 6).

use ais_meta::{BucketName, ClusterUuid};
use serde::{Deserialize, Deserializer};

/// A set of AIStore's access bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rights(pub u64);

impl Rights {
    /// Read an object.
    pub const GET: Self = Self(1);
    /// Properties of an object.
    pub const HEAD_OBJECT: Self = Self(1 << 1);
    /// Properties of a bucket.
    pub const HEAD_BUCKET: Self = Self(1 << 8);
    /// List objects.
    pub const LIST_OBJECTS: Self = Self(1 << 9);
    /// Set properties of a bucket.
    pub const PATCH: Self = Self(1 << 10);
    /// Set the access mask of a bucket.
    pub const SET_ACL: Self = Self(1 << 11);
    /// List buckets.
    pub const LIST_BUCKETS: Self = Self(1 << 12);
    /// Look at the cluster.
    pub const SHOW_CLUSTER: Self = Self(1 << 13);
    /// Make buckets.
    pub const CREATE_BUCKET: Self = Self(1 << 14);
    /// Destroy buckets.
    pub const DESTROY_BUCKET: Self = Self(1 << 15);
    /// Rename buckets.
    pub const MOVE_BUCKET: Self = Self(1 << 16);
    /// Everything else that changes the cluster.
    pub const ADMIN: Self = Self(1 << 17);

    /// What is granted by the cluster and never by a bucket's own list.
    const CLUSTER: Self = Self(0b11_1111 << 12);
    /// What a bucket's mask cannot forbid where clients have no tokens.
    const ALWAYS: Self = Self(1 | 1 << 1 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12);
    /// What a bucket's mask cannot forbid to an administrator.
    const ADMINS: Self = Self(1 << 10 | 1 << 11);

    const NAMES: [&'static str; 18] = [
        "GET",
        "HEAD-OBJECT",
        "PUT",
        "APPEND",
        "DELETE-OBJECT",
        "MOVE-OBJECT",
        "PROMOTE",
        "UPDATE-OBJECT",
        "HEAD-BUCKET",
        "LIST-OBJECTS",
        "PATCH",
        "SET-BUCKET-ACL",
        "LIST-BUCKETS",
        "SHOW-CLUSTER",
        "CREATE-BUCKET",
        "DESTROY-BUCKET",
        "MOVE-BUCKET",
        "ADMIN",
    ];

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `wanted` are in here.
    #[must_use]
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// AIStore writes the bits as a decimal string, other issuers as a number.
impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(d)? {
            Form::Number(bits) => Ok(Self(bits)),
            Form::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// What a token grants in a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterGrant {
    /// The cluster; empty: every cluster that is not named.
    #[serde(default)]
    pub id: String,
    /// What.
    #[serde(default)]
    pub perm: Rights,
}

/// What a token grants on a bucket; overrides what it grants in the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct BucketGrant {
    /// Which.
    pub bck: GrantedBucket,
    /// What.
    #[serde(default)]
    pub perm: Rights,
}

/// A bucket as a token names it: its namespace's uuid is the cluster's.
#[derive(Clone, Debug, Deserialize)]
pub struct GrantedBucket {
    name: String,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    namespace: GrantedNamespace,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct GrantedNamespace {
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    name: String,
}

impl GrantedBucket {
    fn is(&self, cluster: &ClusterUuid, name: &BucketName) -> bool {
        let ours = matches!(self.provider.as_str(), "" | "ais") && self.namespace.uuid == cluster.as_str();
        ours && self.name == name.name && self.namespace.name == name.namespace
    }
}

/// All that a token grants.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Everything, everywhere.
    pub admin: bool,
    /// By cluster.
    pub clusters: Vec<ClusterGrant>,
    /// By bucket.
    pub buckets: Vec<BucketGrant>,
}

impl Grants {
    fn of_cluster(&self, cluster: &ClusterUuid) -> Option<Rights> {
        let of = |id: &str| self.clusters.iter().find(|grant| grant.id == id).map(|grant| grant.perm);
        of(cluster.as_str()).or_else(|| of(""))
    }

    /// Whether the token grants all of `wanted`. What is granted nowhere is forbidden.
    #[must_use]
    pub fn allow(&self, cluster: &ClusterUuid, bucket: Option<&BucketName>, wanted: Rights) -> bool {
        if self.admin {
            return true;
        }
        let general = self.of_cluster(cluster).unwrap_or_default();
        let (of_cluster, of_bucket) = (wanted.only(Rights::CLUSTER), wanted.without(Rights::CLUSTER));
        let grant = |name| self.buckets.iter().find(|grant| grant.bck.is(cluster, name)).map(|grant| grant.perm);
        let special = bucket.and_then(grant);
        general.has(of_cluster) && special.unwrap_or(general).has(of_bucket)
    }
}

/// Whether a bucket's own mask lets `wanted` pass. `grants`: of the token; `None` where clients need none.
#[must_use]
pub fn mask_allows(mask: u64, wanted: Rights, grants: Option<&Grants>) -> bool {
    let exempt = match grants {
        None => Rights::ALWAYS,
        Some(grants) if grants.admin => Rights::ADMINS,
        Some(_) => Rights::default(),
    };
    Rights(mask).has(wanted.without(exempt))
}
