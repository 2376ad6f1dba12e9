//! What the operator saw. Never an input of its decisions, except `primary`, `rollout` and `operation`, which remember
//! what was asked and what is under way, and `config.keys`, which remembers what to reset.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// State of a cluster as last seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AISClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Available, Progressing, HighlyAvailable, Degraded, PrimaryPreferred,
    /// MembershipConverged, ConfigValid, CertificatesValid, RolloutPending, ScaleDownBlocked, StorageResized, Paused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// One word for people: Creating, Running, SwitchingPrimary, Updating, Scaling, Stopping, Stopped, Starting, Paused,
    /// Deleting, and Degraded for whatever is not available or needs a person; conditions tell these two apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// UUID of the cluster.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// True once the cluster was founded; it never becomes false again.
    pub formed: bool,
    /// Part of the UUID; raised by a repeated founding only.
    pub founding_attempt: i64,
    /// Version the primary runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// URL for clients inside Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The primary gateway.
    pub primary: PrimaryStatus,
    /// What takes several steps and is under way: the removal of a node, the end of all pods, or their return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationStatus>,
    /// The cluster map.
    pub smap: SmapStatus,
    /// Who votes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub electorate: Vec<VoterStatus>,
    /// The gateways.
    pub gateways: RoleStatus,
    /// The targets.
    pub targets: RoleStatus,
    /// The last roll-out of a new image or pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The access gateways, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_gateways: Option<AccessStatus>,
    /// What became of `spec.config`.
    pub config: ConfigStatus,
    /// Every gateway and target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "nodes")]
    pub nodes: Vec<NodeStatus>,
}

/// The primary gateway, and moves of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PrimaryStatus {
    /// Pod of the primary that a majority of the voters agrees on; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Node id of the primary.
    #[serde(rename = "currentNodeID", skip_serializing_if = "Option::is_none")]
    pub current_node_id: Option<String>,
    /// Since when it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Epoch in which it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The gateway of `spec.primary.preferred` that counts now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred: Option<String>,
    /// Where the primary is being moved to; only while a move is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The move under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<MoveAttempt>,
    /// Key of the last request that was finished, whatever its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
    /// Key of the request that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_request: Option<String>,
    /// Since when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<Time>,
    /// What waits for a move of the primary, or makes one: Request (a user asked), Failback (by itself), Rollout,
    /// ScaleDown or Drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Attempts that failed for what waits.
    pub attempts: i64,
    /// Of the attempts that failed, those that the primary refused: nothing was begun, and the next one follows soon.
    #[serde(skip_serializing_if = "is_none")]
    pub refusals: i64,
    /// No attempt is made before: the end of a pause after a failed one, or of `stabilizationSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// When failbacks were made by themselves within the last hour; after three of them none follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub automatic_failbacks: Vec<Time>,
    /// The last change of the primary, or the last request that ended without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Transition>,
    /// The last five, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<Transition>,
}

/// Something that takes several steps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationStatus {
    /// ScaleDown, Stop, or Start (the pods of a stopped cluster come back).
    pub kind: String,
    /// The pod whose node is removed; empty if it is about all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What it waits for.
    pub waits_for: String,
}

/// A move of the primary that has begun.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MoveAttempt {
    /// Who led.
    pub from: String,
    /// Who shall lead.
    pub to: String,
    /// Epoch before the move.
    pub epoch: i64,
    /// Version of the cluster map before the move.
    pub smap_version: i64,
    /// Why: Failback, Rollout, ScaleDown or Drain.
    #[serde(default = "failback")]
    pub reason: String,
    /// Key of the request; empty if nobody asked.
    pub request: String,
    /// When it began.
    pub started_at: MicroTime,
}

// The form that serde wants.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(count: &i64) -> bool {
    *count == 0
}

fn failback() -> String {
    "Failback".to_owned()
}

/// A change of the primary, or a request for one that ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Transition {
    /// Who led; empty at founding.
    pub from: String,
    /// Who leads, or should have.
    pub to: String,
    /// Founding, Start (of an adopted cluster), Failover, Failback, Rollout, ScaleDown or Drain.
    pub reason: String,
    /// When a move began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    /// Version of the cluster map at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smap_version: Option<i64>,
    /// Succeeded, Failed, Rejected or Expired.
    pub result: String,
    /// Why, if it did not succeed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The cluster map.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct SmapStatus {
    /// Newest committed version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Nodes that report this version and this cluster.
    pub agreeing: i64,
    /// Nodes there should be.
    pub members: i64,
    /// `agreeing/members`.
    pub summary: String,
}

/// A voter.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct VoterStatus {
    /// Its pod.
    pub pod: String,
    /// Its disk: a voter is a node with its disk.
    #[serde(rename = "diskID")]
    pub disk_id: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// The primary reaches it.
    pub connected: bool,
    /// Epoch it acknowledged last, as the primary saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// A roll-out, under way or the last one that ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// Rolling, Supervised (waits before the primary), Stuck, Completed, or Pending: the last one ended, and the newest
    /// template has not been seen by the StatefulSets' controller yet.
    pub state: String,
    /// Revision of the gateways' template that is rolled out.
    pub gateway_revision: String,
    /// Revision of the targets' template.
    pub target_revision: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Pods of the new revision.
    pub updated: i64,
    /// Pods there are to be.
    pub of: i64,
    /// Moves of the primary that it made: one, or two when the primary was the preferred gateway and is again.
    pub moves: i64,
    /// The preferred gateway that led before it and shall lead after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_to: Option<String>,
    /// The pod it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_since: Option<Time>,
}

/// Counts of the access gateways.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct AccessStatus {
    /// Pods there should be.
    pub replicas: i64,
    /// Pods that are ready.
    pub ready: i64,
    /// Pods of the current revision.
    pub updated: i64,
    /// Those that are in the cluster map.
    pub joined: i64,
    /// `ready/wanted`.
    pub summary: String,
}

/// What became of `spec.config`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigStatus {
    /// Version of the cluster's configuration, as committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Settings that the operator keeps; one that leaves `spec.config` is reset and then leaves this list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub keys: Vec<String>,
}

/// Counts of one role.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct RoleStatus {
    /// Pods there are.
    pub replicas: i64,
    /// Pods that are ready.
    pub ready: i64,
    /// Pods of the current revision.
    pub updated: i64,
    /// Nodes in maintenance.
    pub maintenance: i64,
    /// Selector of these pods.
    pub selector: String,
    /// `ready/wanted`.
    pub summary: String,
}

/// A pod of the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The pod, which is the node id.
    pub pod: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// Its part in the election: primary, follower, learner, joining, ... or unreachable.
    pub role: String,
    /// The pod is ready.
    pub ready: bool,
    /// It is in the committed cluster map.
    pub in_smap: bool,
    /// NonElectable, Maintenance, Decommission.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub flags: Vec<String>,
    /// Revision of the pod template it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// What it waits for, in its own words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

// Without the list type, server-side apply would replace whole lists.
fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array", "maxItems": 16, "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]
    })
}

fn nodes(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<NodeStatus>();
    json_schema!({
        "type": "array", "maxItems": 512, "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pod"]
    })
}
