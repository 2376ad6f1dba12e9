//! Everything one pass decides by. Gathered by `observe.rs`, read by the pure steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ais_crds::AISCluster;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::{
    ANNOTATION_CREDENTIALS, ANNOTATION_DISCOVERY, ANNOTATION_REPLICAS, CONTAINER, LABEL_CLUSTER_ID, LABEL_FORMED,
    LABEL_REMOVED, LABEL_RETAINED, LABEL_ROLE, Names, Role, TLS_VOLUME,
};
use crate::perform::TransferOutcome;
use crate::plan::config::ConfigCall;
use crate::plan::order::Order;
use crate::plan::primary::Hold;
use crate::tls::{Lifetimes, TlsFacts};
use crate::view::Reports;

/// Settings of the operator itself that shape what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image of nodes when the resource names none.
    pub image: String,
    /// DNS domain of Kubernetes.
    pub domain: String,
    /// Namespace of the operator's own pods: network policies let them in.
    pub namespace: String,
    /// How long certificates of the operator hold.
    pub lifetimes: Lifetimes,
}

/// One cluster as it is now.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The resource, read just now.
    pub cluster: AISCluster,
    /// Settings of the operator.
    pub defaults: Defaults,
    /// Now.
    pub now: Timestamp,
    /// How long this process runs, by a clock that nobody sets.
    pub uptime: Duration,
    /// The hold of an automatic failback that this process remembers.
    pub hold: Option<Hold>,
    /// The nodes were asked in this very pass: a move may start.
    pub fresh: bool,
    /// Pods of the cluster.
    pub pods: Vec<PodFact>,
    /// Nodes of Kubernetes that take no more pods.
    pub cordoned: BTreeSet<String>,
    /// StatefulSets by role.
    pub sets: BTreeMap<Role, SetFact>,
    /// State volumes, also those without a pod.
    pub volumes: Vec<VolumeFact>,
    /// What the mounted ConfigMap says.
    pub discovery: Option<Discovery>,
    /// What the ConfigMap of the primary's address says.
    pub primary_map: Option<PrimaryMap>,
    /// The cluster's secret: as found, or freshly drawn if there is none.
    pub secret: SecretFact,
    /// For the next rotation of the secret.
    pub fresh_secret: String,
    /// Certificates.
    pub tls: TlsFacts,
    /// What the nodes say.
    pub reports: Reports,
    /// Answer to the set-primary call, if one arrived for the attempt under way.
    pub outcome: Option<TransferOutcome>,
    /// The PodMonitor API is installed.
    pub pod_monitors: bool,
    /// The last call about `spec.config`, if this process made one.
    pub config_call: Option<ConfigCall>,
    /// Volume claims of the cluster, of state and data, also those without a pod.
    pub claims: Vec<ClaimFact>,
    /// The last other call to the primary that was answered, and how.
    pub order: Option<(Order, TransferOutcome)>,
    /// Claims that the API server does not let grow, and why, as it said lately.
    pub refused: BTreeMap<String, String>,
    /// Objects of our kinds with the cluster's label, as the server has them.
    pub live: BTreeMap<ObjectKey, Value>,
}

/// How far a rotation of the member secret is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// None is under way.
    #[default]
    Done,
    /// The new one is accepted beside the old one.
    Add,
    /// The new one signs; the old one is still accepted.
    Sign,
}

impl Step {
    /// The word in the Secret's annotation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Add => "add",
            Self::Sign => "sign",
        }
    }

    /// By its word; any other means that nothing is under way.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        [Self::Add, Self::Sign].into_iter().find(|step| step.as_str() == word).unwrap_or_default()
    }
}

/// The Secret that members and operator sign with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretFact {
    /// One secret a line; the first one signs.
    pub content: String,
    /// The newest request that was taken up.
    pub request: String,
    /// How far it is.
    pub step: Step,
}

impl std::fmt::Debug for SecretFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { request, step, .. } = self;
        f.debug_struct("SecretFact").field("request", request).field("step", step).finish_non_exhaustive()
    }
}

/// Kinds the operator makes, in the order in which they are applied: what is mounted comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Secret
    Secret,
    /// v1 ConfigMap
    ConfigMap,
    /// v1 Service
    Service,
    /// policy/v1 PodDisruptionBudget
    PodDisruptionBudget,
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy,
    /// monitoring.coreos.com/v1 PodMonitor, where that API is installed
    PodMonitor,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// apps/v1 Deployment
    Deployment,
    /// apps/v1 DaemonSet
    DaemonSet,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Self; 9] = [
        Self::Secret,
        Self::ConfigMap,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::PodMonitor,
        Self::StatefulSet,
        Self::Deployment,
        Self::DaemonSet,
    ];
}

/// Names an object within the namespace.
pub type ObjectKey = (Kind, String);

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFact {
    /// Its name, which is the node id.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its role.
    pub role: Option<Role>,
    /// Its ordinal.
    pub ordinal: i32,
    /// Its address.
    pub ip: Option<String>,
    /// The container runs.
    pub running: bool,
    /// The pod is ready.
    pub ready: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Node it runs on.
    pub node: Option<String>,
    /// Since when it is not ready; `None` while it is.
    pub unready_since: Option<Timestamp>,
    /// Why it does not come up, when Kubernetes knows: the reason and what was said.
    pub trouble: Option<Trouble>,
    /// Revision of the template it was made from.
    pub revision: String,
    /// It carries the primary's label.
    pub labelled_primary: bool,
    /// Digest of the founding list it was told to read.
    pub discovery: Option<String>,
    /// Digest of the secret and the certificate that it was told to read.
    pub credentials: Option<String>,
    /// Secret of the certificate that it was made with; its ports are plain without.
    pub tls_secret: Option<String>,
}

/// What keeps a pod from coming up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// One word, such as `ImagePullBackOff`.
    pub reason: String,
    /// The rest, shortened.
    pub message: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reason, message } = self;
        if message.is_empty() { f.write_str(reason) } else { write!(f, "{reason}: {message}") }
    }
}

/// Reasons of a waiting container that time alone does not mend.
const TROUBLES: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
const TROUBLE_CHARS_MAX: usize = 160;

/// Kubernetes' own word for it. Messages of pull errors hold times and attempts that move: only the first line counts.
fn trouble(status: &PodStatus) -> Option<Trouble> {
    let short = |text: Option<&String>| -> String {
        let line = text.and_then(|t| t.lines().next()).unwrap_or_default();
        line.chars().take(TROUBLE_CHARS_MAX).collect()
    };
    let waiting = status.container_statuses.iter().flatten().find_map(|c| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        TROUBLES.contains(&reason.as_str()).then(|| {
            // A back-off's message counts seconds; what ended the container says more.
            let ended = c.last_state.as_ref().and_then(|l| l.terminated.as_ref());
            let message = match ended {
                Some(ended) => format!("exit code {}", ended.exit_code),
                None => c.image.clone(),
            };
            Trouble { reason, message }
        })
    });
    waiting.or_else(|| {
        let scheduled =
            status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        let reason = scheduled.reason.clone().filter(|r| !r.is_empty())?;
        Some(Trouble { reason, message: short(scheduled.message.as_ref()) })
    })
}

fn tls_secret(pod: &Pod) -> Option<String> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    volumes.iter().find(|volume| volume.name == TLS_VOLUME)?.secret.as_ref()?.secret_name.clone()
}

impl PodFact {
    /// Takes what matters from a pod; `None` for pods that are not of this cluster's sets.
    #[must_use]
    pub fn from_pod(names: &Names, pod: &Pod) -> Option<Self> {
        let name = pod.metadata.name.clone()?;
        let (role, ordinal) = names.parse_pod(&name)?;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let running = status
            .container_statuses
            .iter()
            .flatten()
            .any(|c| c.name == CONTAINER && c.state.as_ref().is_some_and(|s| s.running.is_some()));
        let readiness = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
        let ready = readiness.is_some_and(|c| c.status == "True");
        let since = readiness.and_then(|c| c.last_transition_time.as_ref());
        let unready_since = since.or(pod.metadata.creation_timestamp.as_ref()).map(|t| t.0).filter(|_| !ready);
        Some(Self {
            node: pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()),
            unready_since,
            trouble: trouble(&status).filter(|_| !ready),
            name,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            role: Some(role),
            ordinal,
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            running,
            ready,
            deleting: pod.metadata.deletion_timestamp.is_some(),
            revision: labels.get("controller-revision-hash").cloned().unwrap_or_default(),
            labelled_primary: labels.get(LABEL_ROLE).is_some_and(|v| v == "primary"),
            discovery: annotations.get(ANNOTATION_DISCOVERY).cloned(),
            credentials: annotations.get(ANNOTATION_CREDENTIALS).cloned(),
            tls_secret: tls_secret(pod),
        })
    }
}

/// A StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetFact {
    /// Replicas it is asked for now, maybe by somebody else.
    pub replicas: i32,
    /// Members of this role as the operator decided last; 0 replicas of a stopped cluster change nothing here.
    pub replicas_asked: i32,
    /// Its uid.
    pub uid: String,
    /// It is being deleted.
    pub deleting: bool,
    /// Revision of its template; empty while its controller has not seen the newest one.
    pub revision: String,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl SetFact {
    /// Takes what matters.
    #[must_use]
    pub fn from_set(set: &StatefulSet) -> Self {
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let replicas = set.spec.replicas.unwrap_or(0);
        // Counts and revisions of a status that is behind the spec are about another spec.
        let current = status.observed_generation >= set.metadata.generation;
        Self {
            replicas,
            replicas_asked: annotations.get(ANNOTATION_REPLICAS).and_then(|t| t.parse().ok()).unwrap_or(replicas),
            uid: set.metadata.uid.clone().unwrap_or_default(),
            deleting: set.metadata.deletion_timestamp.is_some(),
            revision: status.update_revision.filter(|_| current).unwrap_or_default(),
            created: set.metadata.creation_timestamp.as_ref().map(|t| t.0),
        }
    }
}

/// A state volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFact {
    /// Name of the claim.
    pub name: String,
    /// Uuid on its label.
    pub cluster_id: Option<String>,
    /// It is marked as of a founded cluster.
    pub formed: bool,
    /// When its claim was made.
    pub created: Option<Timestamp>,
    /// Uid of the claim.
    pub uid: String,
    /// It is being deleted.
    pub deleting: bool,
}

impl VolumeFact {
    /// Takes what matters; `None` for other volumes.
    #[must_use]
    pub fn from_claim(names: &Names, claim: &PersistentVolumeClaim) -> Option<Self> {
        let name = claim.metadata.name.clone()?;
        names.parse_pod(name.strip_prefix("state-")?)?;
        let labels = claim.metadata.labels.clone().unwrap_or_default();
        Some(Self {
            name,
            cluster_id: labels.get(LABEL_CLUSTER_ID).cloned(),
            formed: labels.get(LABEL_FORMED).is_some_and(|v| v == "true"),
            created: claim.metadata.creation_timestamp.as_ref().map(|t| t.0),
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// What a volume holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    /// What the node promised and accepted.
    #[default]
    State,
    /// Objects.
    Data,
}

impl ClaimKind {
    /// The name of the claim in the set's template.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Data => "data",
        }
    }
}

/// A volume claim of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFact {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// What it holds.
    pub kind: ClaimKind,
    /// The role of its pod.
    pub role: Role,
    /// The ordinal of its pod.
    pub ordinal: i32,
    /// Uuid on its label.
    pub cluster_id: Option<String>,
    /// Its node was removed for good.
    pub removed: bool,
    /// Its target is kept in maintenance.
    pub retained: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Size it asks for.
    pub requested: String,
    /// Size it has, once bound.
    pub capacity: Option<String>,
}

impl ClaimFact {
    /// Takes what matters; `None` for claims that are not of this cluster's sets.
    #[must_use]
    pub fn from_claim(names: &Names, claim: &PersistentVolumeClaim) -> Option<Self> {
        let name = claim.metadata.name.clone()?;
        let (kind, rest) = [ClaimKind::State, ClaimKind::Data]
            .into_iter()
            .find_map(|kind| Some((kind, name.strip_prefix(kind.as_str())?.strip_prefix('-')?)))?;
        // A target may have several data volumes: `data`, `data-1`, and so on.
        let further = || {
            let (number, pod) = rest.split_once('-')?;
            let number: i32 = number.parse().ok()?;
            (kind == ClaimKind::Data && number > 0).then(|| names.parse_pod(pod))?
        };
        let (role, ordinal) = names.parse_pod(rest).or_else(further)?;
        let labels = claim.metadata.labels.clone().unwrap_or_default();
        let is = |label: &str| labels.get(label).is_some_and(|v| v == "true");
        let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
        let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
        Some(Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            kind,
            role,
            ordinal,
            cluster_id: labels.get(LABEL_CLUSTER_ID).cloned(),
            removed: is(LABEL_REMOVED),
            retained: is(LABEL_RETAINED),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            requested: requests.and_then(|r| r.get("storage")).map(|q| q.0.clone()).unwrap_or_default(),
            capacity: capacity.and_then(|c| c.get("storage")).map(|q| q.0.clone()),
            name,
        })
    }
}

/// The mounted discovery file, as the daemon reads it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Uuid of the cluster.
    pub cluster_uuid: String,
    /// The cluster was founded: nobody may found again.
    pub formed: bool,
    /// Gateways that found together.
    pub initial_voters: Vec<String>,
    /// Everybody who may exist.
    pub peers: Vec<Peer>,
    /// Nodes that are being removed for good: they must not join again as new ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A node that may exist.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Node id.
    pub id: String,
    /// `gateway` or `target`.
    pub kind: String,
    /// Host and port for clients.
    pub public: String,
    /// Host and port for members' and the operator's calls.
    pub control: String,
    /// Host and port for member-to-member connections.
    pub peer: String,
}

/// The ConfigMap that pods take `AIS_PRIMARY_EP` and `AIS_CLUSTER_UUID` from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrimaryMap {
    /// Public URL of the primary.
    pub endpoint: String,
    /// Uuid of the cluster.
    pub cluster_uuid: String,
    /// Number of the founding that this uuid is of; 0 from before foundings had numbers.
    pub founding_attempt: i64,
}

impl Observed {
    /// Names of this cluster's things.
    #[must_use]
    pub fn names(&self) -> Names {
        Names {
            namespace: self.cluster.metadata.namespace.clone().unwrap_or_default(),
            cluster: self.cluster.metadata.name.clone().unwrap_or_default(),
            domain: self.defaults.domain.clone(),
            ports: self.cluster.spec.networking.ports,
        }
    }

    /// The pod of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<&PodFact> {
        self.pods.iter().find(|p| p.name == name)
    }

    /// Pods of a role.
    pub fn pods_of(&self, role: Role) -> impl Iterator<Item = &PodFact> {
        self.pods.iter().filter(move |p| p.role == Some(role))
    }

    /// A node runs: silence is not the same as that there is none.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.pods.iter().any(|p| p.running)
    }

    /// Uid of the resource.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.cluster.metadata.uid.as_deref().unwrap_or_default()
    }
}
