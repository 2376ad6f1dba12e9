//! What a user asks for.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::access::AccessGatewaysSpec;
use crate::networking::{MonitoringSpec, NetworkingSpec};
use crate::status::AISClusterStatus;
use crate::template::{PodTemplate, free_object};

/// An AIStore-compatible cluster: gateways that elect a primary, and targets.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "aiscluster.dev",
    version = "v1alpha1",
    kind = "AISCluster",
    plural = "aisclusters",
    shortname = "aisc",
    category = "ais",
    namespaced,
    status = "AISClusterStatus",
    derive = "PartialEq",
    doc = "An AIStore-compatible cluster: gateways that elect a primary, and targets",
    scale(
        spec_replicas_path = ".spec.targets.replicas",
        status_replicas_path = ".status.targets.replicas",
        label_selector_path = ".status.targets.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.primary.current"),
    printcolumn(name = "Gateways", type_ = "string", json_path = ".status.gateways.summary"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.targets.summary"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Preferred", type_ = "string", json_path = ".status.primary.preferred", priority = 1),
    printcolumn(name = "Smap", type_ = "string", json_path = ".status.smap.summary", priority = 1),
    printcolumn(name = "Cluster-ID", type_ = "string", json_path = ".status.clusterID", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name of a cluster has at most 40 characters: names of pods and labels are derived from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of a cluster starts with a letter and has only lower-case letters, digits and '-': Services are named after it"),
    validation = Rule::new("!has(self.spec.primary) || !has(self.spec.primary.preferred) || self.spec.primary.preferred.all(p, p.startsWith(self.metadata.name + '-gateway-') && p.substring(size(self.metadata.name) + 9).matches('^(0|[1-9][0-9]{0,2})$'))").message("spec.primary.preferred must name gateways of this cluster: <cluster>-gateway-<number>"),
    validation = Rule::new("!has(self.spec.primary) || !has(self.spec.primary.preferred) || self.spec.primary.preferred.all(p, !p.matches('-gateway-[0-9]{1,3}$') || int(p.split('-')[size(p.split('-')) - 1]) < self.spec.gateways.replicas)").message("spec.primary.preferred names a gateway that does not exist: numbers go from 0 to spec.gateways.replicas - 1"),
    validation = Rule::new("!has(self.spec.primary) || !has(self.spec.primary.expectedCurrent) || self.spec.primary.expectedCurrent == '' || self.spec.primary.expectedCurrent.startsWith(self.metadata.name + '-gateway-')").message("spec.primary.expectedCurrent must be empty or name a gateway of this cluster"),
    validation = Rule::new("!has(self.spec.deletionPolicy) || self.spec.deletionPolicy != 'Delete' || (has(self.spec.deletionConfirmation) && self.spec.deletionConfirmation == self.metadata.name)").message("spec.deletionPolicy Delete removes all data of the cluster: confirm with its name in spec.deletionConfirmation")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clusterID) == has(oldSelf.clusterID) && (!has(self.clusterID) || self.clusterID == oldSelf.clusterID)")
        .message("spec.clusterID cannot be changed, added or removed after creation"),
    validation = Rule::new("((has(self.tls) && has(self.tls.mode) ? self.tls.mode : 'Disabled') == (has(oldSelf.tls) && has(oldSelf.tls.mode) ? oldSelf.tls.mode : 'Disabled') && (has(self.tls) && has(self.tls.secretRef) ? self.tls.secretRef.name : '') == (has(oldSelf.tls) && has(oldSelf.tls.secretRef) ? oldSelf.tls.secretRef.name : '')) || (has(self.state) && self.state == 'Stopped' && has(oldSelf.state) && oldSelf.state == 'Stopped')")
        .message("spec.tls.mode and secretRef change only while the cluster is stopped: set spec.state to Stopped first, then change them, then set spec.state to Running; the content of a Secret may be replaced at any time")
)]
pub struct AISClusterSpec {
    /// Image of gateways and targets. Default: the image the operator itself was released with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the kubelet pulls the image.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,
    /// Secrets of this namespace that hold credentials for the image registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalReference>,
    /// UUID of the cluster; fixed at creation. Default: the UUID found on retained state volumes,
    /// else one derived from the resource's uid. Retained volumes win over this field.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$"), length(min = 9, max = 63))]
    pub cluster_id: Option<String>,
    /// The gateways: every one is electable, the votes go to the first `ha.voters`.
    pub gateways: GatewaysSpec,
    /// The targets: they keep the data, and vote when there are too few gateways.
    pub targets: TargetsSpec,
    /// Timers and size of the electorate.
    #[serde(default)]
    pub ha: HaSpec,
    /// Gateways next to compute: they take requests, never lead and never vote, and keep nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_gateways: Option<AccessGatewaysSpec>,
    /// Settings of the cluster, flat (`mirror.copies: 2`) or nested (`mirror: {copies: 2}`), as `ais config cluster`
    /// names them. The operator checks them and keeps them as they are here, also against changes made through
    /// the API; what leaves this map goes back to its default; settings that are not here are left alone. A wrong
    /// name or value sets condition `ConfigValid` to False, and the cluster keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object")]
    pub config: Option<Map<String, Value>>,
    /// Ports, the Service for clients, and who may connect.
    #[serde(default)]
    pub networking: NetworkingSpec,
    /// Objects for those who watch the nodes.
    #[serde(default)]
    pub monitoring: MonitoringSpec,
    /// Protection against voluntary disruptions.
    #[serde(default)]
    pub pod_disruption_budget: PodDisruptionBudgetSpec,
    /// TLS at all ports of all nodes.
    #[serde(default)]
    pub tls: TlsSpec,
    /// The secret that members and operator sign with.
    #[serde(default)]
    pub auth: AuthSpec,
    /// Which gateway should be primary, and asking for it.
    #[serde(default)]
    pub primary: PrimarySpec,
    /// How a new image or pod template reaches the pods.
    #[serde(default)]
    pub update: UpdateSpec,
    /// What becomes of targets that are no longer wanted, and how long that may take.
    #[serde(default)]
    pub scale_down: ScaleDownSpec,
    /// Whether the cluster runs. Stopped ends all pods in order; volumes and numbers of replicas stay.
    #[serde(default)]
    pub state: ClusterState,
    /// Stop all writes of the operator for this cluster, except to its status.
    #[serde(default)]
    pub paused: bool,
    /// What happens to the volumes when this resource is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The name of the cluster; needed with the deletion policy Delete.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub deletion_confirmation: String,
    /// How long a deletion may wait for pods to end. Then Retain lets the resource go with a Warning event;
    /// Delete goes on waiting until the volumes are gone, and says so.
    #[serde(default = "deletion_timeout_default")]
    #[schemars(range(min = 5, max = 86_400))]
    pub deletion_timeout_seconds: i64,
}

fn deletion_timeout_default() -> i64 {
    600
}

/// Whether the cluster runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// It runs.
    #[default]
    Running,
    /// All pods are ended in order. Everything else stays, and Running continues with the same data.
    Stopped,
}

/// What becomes of targets that are no longer wanted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDownSpec {
    /// Drain takes a target out of the cluster map for good. Retain keeps its place and its volumes, in maintenance,
    /// for its return. Gateways are always taken out for good; Retain keeps their state volume.
    #[serde(default)]
    pub policy: ScaleDownPolicy,
    /// How long the removal of one node may take until condition Degraded says so. It goes on when it can.
    #[serde(default = "scale_down_timeout_default")]
    #[schemars(range(min = 5, max = 86_400))]
    pub timeout_seconds: i64,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self { policy: ScaleDownPolicy::Drain, timeout_seconds: scale_down_timeout_default() }
    }
}

fn scale_down_timeout_default() -> i64 {
    600
}

/// What becomes of a target that is no longer wanted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDownPolicy {
    /// It is decommissioned.
    #[default]
    Drain,
    /// It goes into maintenance, and keeps its place and its volumes.
    Retain,
}

/// When the kubelet pulls the image.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At each start of a pod.
    Always,
    /// If the node does not have the image.
    #[default]
    IfNotPresent,
    /// Never: the image is on the node already.
    Never,
}

impl ImagePullPolicy {
    /// The word Kubernetes uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// An object of the same namespace, by name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct LocalReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The gateways.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewaysSpec {
    /// How many. Three or more survive the loss of one.
    #[serde(default = "gateways_default")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// Image of the gateways, if it is not that of `spec.image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Volume that holds what this node promised and accepted: small, but it must survive the pod.
    #[serde(default)]
    pub state_storage: StateStorage,
    /// Additions to the pods.
    #[serde(default)]
    pub template: PodTemplate,
}

/// The targets.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetsSpec {
    /// How many.
    #[schemars(range(min = 1, max = 400))]
    pub replicas: i32,
    /// Image of the targets, if it is not that of `spec.image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Volumes for data.
    pub storage: DataStorage,
    /// Volume that holds what this node promised and accepted: small, but it must survive the pod.
    #[serde(default)]
    pub state_storage: StateStorage,
    /// Additions to the pods.
    #[serde(default)]
    pub template: PodTemplate,
}

fn gateways_default() -> i32 {
    3
}

/// A data volume.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isQuantity(self.size) && quantity(self.size).isGreaterThan(quantity('0'))").message("size must be a positive quantity, as 100Gi"),
    validation = Rule::new("!isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0").message("the size of a volume cannot shrink"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed: volumes stay where they were made"),
    validation = Rule::new("self.volumesPerTarget == oldSelf.volumesPerTarget").message("storage.volumesPerTarget cannot be changed: objects are where they are"),
    validation = Rule::new("self.accessModes == oldSelf.accessModes").message("storage.accessModes cannot be changed: volumes stay as they were made")
)]
pub struct DataStorage {
    /// Size of the volume, as `100Gi`. It may grow where the StorageClass allows it, and never shrinks.
    #[schemars(length(min = 1, max = 32))]
    pub size: String,
    /// StorageClass; default: the cluster's default class. Fixed at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// How many volumes each target has; each is one mountpath. Fixed at creation.
    #[serde(default = "one_volume")]
    #[schemars(range(min = 1, max = 32))]
    pub volumes_per_target: i32,
    /// Access modes of the volumes. Fixed at creation.
    #[serde(default = "read_write_once")]
    #[schemars(length(min = 1, max = 3))]
    pub access_modes: Vec<AccessMode>,
}

fn one_volume() -> i32 {
    1
}

fn read_write_once() -> Vec<AccessMode> {
    vec![AccessMode::ReadWriteOnce]
}

/// Who may mount a volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Pods of one node.
    ReadWriteOnce,
    /// One pod.
    ReadWriteOncePod,
    /// Pods of many nodes; targets do not need it, but some classes offer nothing else.
    ReadWriteMany,
}

impl AccessMode {
    /// The word Kubernetes uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// A state volume.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isQuantity(self.size) && quantity(self.size).isGreaterThan(quantity('0'))").message("size must be a positive quantity, as 1Gi"),
    validation = Rule::new("!isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0").message("the size of a volume cannot shrink"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed: volumes stay where they were made")
)]
pub struct StateStorage {
    /// Size of the volume. It may grow where the StorageClass allows it, and never shrinks.
    #[serde(default = "state_size_default")]
    #[schemars(length(min = 1, max = 32))]
    pub size: String,
    /// StorageClass; default: the cluster's default class. Fixed at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for StateStorage {
    fn default() -> Self {
        Self { size: state_size_default(), storage_class_name: None }
    }
}

fn state_size_default() -> String {
    "1Gi".to_owned()
}

/// Timers and size of the electorate.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.voters == 3 || self.voters == 5").message("ha.voters must be 3 or 5"),
    validation = Rule::new("self.suspectMilliseconds < self.leaseMilliseconds").message("ha.suspectMilliseconds must be less than ha.leaseMilliseconds"),
    validation = Rule::new("self.leaseMilliseconds < self.evictSmapSeconds * 1000").message("ha.leaseMilliseconds must be less than ha.evictSmapSeconds"),
    validation = Rule::new("self.evictSmapSeconds < self.evictVoterSeconds").message("ha.evictSmapSeconds must be less than ha.evictVoterSeconds")
)]
pub struct HaSpec {
    /// Largest electorate: 3 or 5.
    #[serde(default = "ha_defaults::voters")]
    pub voters: i32,
    /// Silence after which the primary is suspected.
    #[schemars(range(min = 500, max = 60_000))]
    #[serde(default = "ha_defaults::suspect_milliseconds")]
    pub suspect_milliseconds: i64,
    /// How long a primary may lead without hearing a majority.
    #[schemars(range(min = 600, max = 120_000))]
    #[serde(default = "ha_defaults::lease_milliseconds")]
    pub lease_milliseconds: i64,
    /// Silence after which a member leaves the cluster map.
    #[schemars(range(min = 5, max = 3600))]
    #[serde(default = "ha_defaults::evict_smap_seconds")]
    pub evict_smap_seconds: i64,
    /// Silence after which a voter is replaced.
    #[schemars(range(min = 10, max = 86_400))]
    #[serde(default = "ha_defaults::evict_voter_seconds")]
    pub evict_voter_seconds: i64,
    /// How long founding waits for every gateway of the first electorate.
    #[schemars(range(min = 10, max = 3600))]
    #[serde(default = "ha_defaults::founding_timeout_seconds")]
    pub founding_timeout_seconds: i64,
}

// One function a field, because a default of the whole struct does not pass the schema's derive.
mod ha_defaults {
    pub(super) fn voters() -> i32 {
        5
    }
    pub(super) fn suspect_milliseconds() -> i64 {
        1500
    }
    pub(super) fn lease_milliseconds() -> i64 {
        2000
    }
    pub(super) fn evict_smap_seconds() -> i64 {
        10
    }
    pub(super) fn evict_voter_seconds() -> i64 {
        60
    }
    pub(super) fn founding_timeout_seconds() -> i64 {
        60
    }
}

impl Default for HaSpec {
    fn default() -> Self {
        Self {
            voters: ha_defaults::voters(),
            suspect_milliseconds: ha_defaults::suspect_milliseconds(),
            lease_milliseconds: ha_defaults::lease_milliseconds(),
            evict_smap_seconds: ha_defaults::evict_smap_seconds(),
            evict_voter_seconds: ha_defaults::evict_voter_seconds(),
            founding_timeout_seconds: ha_defaults::founding_timeout_seconds(),
        }
    }
}

/// Protection against voluntary disruptions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(default)]
pub struct PodDisruptionBudgetSpec {
    /// One budget over all pods of the cluster, which lets one pod go at a time.
    pub enabled: bool,
}

impl Default for PodDisruptionBudgetSpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// How a new image or pod template reaches the pods: one at a time, the primary's last, after one hand-over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct UpdateSpec {
    /// The gateways.
    pub gateways: UpdateGateways,
    /// The targets.
    pub targets: UpdateTargets,
}

/// How gateways are updated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct UpdateGateways {
    /// Whether the last step, the primary, waits for a person.
    pub strategy: UpdateStrategy,
}

/// Whether a roll-out waits before the primary.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// The operator hands the primary over to an updated gateway and goes on.
    #[default]
    Unsupervised,
    /// Everything but the primary is updated; then the roll-out waits. It goes on when the primary leads no more (by
    /// `primary.preferred` or `primary.request`), when its pod is deleted, or when this field becomes Unsupervised.
    Supervised,
}

/// How targets are updated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateTargets {
    /// Targets without a vote that may be away at the same time; voters always go one at a time.
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable: i32,
}

impl Default for UpdateTargets {
    fn default() -> Self {
        Self { max_unavailable: 1 }
    }
}

/// Which gateway should be primary, and asking for it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.preferred) || self.preferred.all(x, self.preferred.exists_one(y, y == x))").message("primary.preferred names a gateway twice"),
    validation = Rule::new("!has(self.failback) || self.failback != 'Automatic' || (has(self.preferred) && size(self.preferred) > 0)").message("primary.failback Automatic needs primary.preferred: somebody to fall back to"),
    validation = Rule::new("!has(self.failback) || self.failback != 'Automatic' || !has(self.stabilizationSeconds) || self.stabilizationSeconds >= 30").message("primary.failback Automatic needs primary.stabilizationSeconds of 30 or more")
)]
pub struct PrimarySpec {
    /// Gateways (pod names) in order of preference; empty: no preference. A change of this list or of
    /// `request` asks the operator, once, to move the primary to the first of them that can take it.
    #[schemars(length(max = 8), inner(length(min = 1, max = 63)))]
    #[serde(default)]
    pub preferred: Vec<String>,
    /// What happens when the primary is not the preferred gateway after a failover.
    #[serde(default)]
    pub failback: Failback,
    /// With `failback: Automatic`: how long the preferred gateway must have been able to lead, without a break, before
    /// the primary is moved back to it; at least 30. The operator counts anew when it is restarted.
    #[serde(default = "stabilization_default")]
    #[schemars(range(min = 0, max = 86_400))]
    pub stabilization_seconds: i64,
    /// Any text; changing it asks once more (a time stamp, a ticket, a commit).
    #[schemars(length(max = 128))]
    #[serde(default)]
    pub request: String,
    /// If set, a request is refused unless this gateway is the primary when it is handled.
    #[schemars(length(max = 63))]
    #[serde(default)]
    pub expected_current: String,
    /// Time for one attempt, until the move is proven by reading it back.
    #[schemars(range(min = 5, max = 3600))]
    #[serde(default = "timeout_default")]
    pub timeout_seconds: i64,
    /// A request that could not start within this time expires.
    #[serde(rename = "requestTTLSeconds", default = "request_ttl_default")]
    #[schemars(range(min = 5, max = 86_400))]
    pub request_ttl_seconds: i64,
}

impl Default for PrimarySpec {
    fn default() -> Self {
        Self {
            preferred: Vec::new(),
            failback: Failback::Manual,
            stabilization_seconds: stabilization_default(),
            request: String::new(),
            expected_current: String::new(),
            timeout_seconds: timeout_default(),
            request_ttl_seconds: request_ttl_default(),
        }
    }
}

fn stabilization_default() -> i64 {
    300
}

fn timeout_default() -> i64 {
    60
}

fn request_ttl_default() -> i64 {
    600
}

/// TLS at all ports of all nodes: of clients, of members' and the operator's calls, and between members.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.mode) && self.mode == 'SecretRef') == has(self.secretRef)").message("tls.secretRef goes with tls.mode SecretRef, and only with it"),
    validation = Rule::new("(has(self.mode) && self.mode == 'SelfManaged') || !has(self.names) || size(self.names) == 0").message("tls.names are for tls.mode SelfManaged: with SecretRef the certificate's owner decides its names")
)]
pub struct TlsSpec {
    /// Who makes the certificates. It changes only while the cluster is stopped: nodes with and without TLS cannot talk.
    #[serde(default)]
    pub mode: TlsMode,
    /// With mode `SecretRef`: Secret with `tls.crt`, `tls.key` and `ca.crt`. The certificate must name every pod
    /// (`*.NAME-gateway.NAMESPACE.svc.DOMAIN`, the same of `-target`) and the Services `NAME`, `NAME-primary` and, with
    /// access gateways, `NAME-access` (`.NAMESPACE.svc.DOMAIN`). Replace its content to rotate; nodes read it without a
    /// restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// With mode `SelfManaged`: further names and addresses of the certificate, for clients that come by a load
    /// balancer.
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$|^[0-9A-Fa-f:.]+$")
        )
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Who makes the certificates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Nobody: all ports are plain. Members' connections are encrypted with the member secret in any case.
    #[default]
    Disabled,
    /// The operator, with an authority for this cluster alone. Clients find it in the ConfigMap `NAME-ca`.
    SelfManaged,
    /// The user, in a Secret.
    SecretRef,
}

/// The secret that members and operator sign with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// Any text; changing it rotates the member secret once (a time stamp, a ticket, a commit). No call fails.
    #[schemars(length(max = 128))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub member_secret_rotation: String,
}

/// What happens when the primary is not the preferred gateway after a failover.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// Nothing, until a user asks.
    #[default]
    Manual,
    /// The primary is moved back once the preferred gateway could lead for `stabilizationSeconds` without a break; at
    /// most three times an hour.
    Automatic,
}

/// What happens to the volumes when the resource is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// They stay; a resource of the same name adopts them.
    #[default]
    Retain,
    /// They are deleted with all data, once `deletionConfirmation` is the cluster's name.
    Delete,
}
