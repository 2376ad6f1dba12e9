//! Server-side apply, pruning, labels and status: every write to the API server is here.
//!
//! What to write is decided by pure functions over what the server has, so a cluster at rest costs no
//! write at all. Only what differs is sent, mounted things before StatefulSets.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ais_crds::{AISCluster, AISClusterStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::desired::{Wanted, digest};
use crate::facts::{Kind, ObjectKey, Observed};
use crate::metrics::Metrics;
use crate::names::{
    ANNOTATION_CREDENTIALS, ANNOTATION_DISCOVERY, FINALIZER, LABEL_FORMED, LABEL_ROLE, MANAGER, STATUS_MANAGER,
};
use crate::plan::deletion::Deletion;
use crate::plan::storage::Resize;
use crate::plan::{Marks, Plan, Removal};

/// A write failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused or did not answer.
    #[error("{what}: {source}")]
    Api {
        /// What was written.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object belongs to somebody else.
    #[error("{0:?} {1} exists and belongs to another owner")]
    Foreign(Kind, String),
}

impl ApplyError {
    /// The API server answered, and does not take this object as it is.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(**source, kube::Error::Api(_)))
    }

    /// For people: what was written, and the server's own sentence about it. Its whole answer says that twice.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Api { what, source } => match &**source {
                kube::Error::Api(status) => format!("{what}: {}", status.message),
                other => format!("{what}: {other}"),
            },
            Self::Foreign(..) => self.to_string(),
        }
    }
}

fn api_error(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ApplyError {
    let what = what.into();
    move |source| ApplyError::Api { what, source: Box::new(source) }
}

/// Type of a kind for the API.
#[must_use]
pub fn resource(kind: Kind) -> ApiResource {
    let (group, name, plural) = match kind {
        Kind::Secret => ("", "Secret", "secrets"),
        Kind::ConfigMap => ("", "ConfigMap", "configmaps"),
        Kind::Service => ("", "Service", "services"),
        Kind::PodDisruptionBudget => ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
        Kind::NetworkPolicy => ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
        Kind::PodMonitor => ("monitoring.coreos.com", "PodMonitor", "podmonitors"),
        Kind::StatefulSet => ("apps", "StatefulSet", "statefulsets"),
        Kind::Deployment => ("apps", "Deployment", "deployments"),
        Kind::DaemonSet => ("apps", "DaemonSet", "daemonsets"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", name), plural)
}

/// One write that is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Apply an object.
    Apply(Wanted),
    /// Delete an object that is no longer wanted.
    Prune(ObjectKey),
    /// Delete a pod, so that its set makes it anew: gracefully, and only the one that was meant.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// What for, for the log.
        reason: &'static str,
    },
    /// Give a StatefulSet no replicas: its name and uid.
    Empty(String, String),
    /// Delete a StatefulSet and leave its pods: its name and uid.
    Orphan(String, String),
    /// Ask a volume claim to grow.
    Resize(Resize),
    /// Delete a volume claim, and with it what is on the volume: only the one that was meant.
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Merge patch of a pod's metadata.
    MarkPod(String, Value),
    /// Merge patch of a volume claim's metadata.
    MarkVolume(String, Value),
}

/// What the server made of an object when it was last applied: normal forms (as `1000m` for `1`) are no drift. And what
/// it refused, which would be refused again.
#[derive(Debug, Default)]
pub struct Memo {
    applied: Mutex<BTreeMap<(String, ObjectKey), (String, String)>>,
    refused: Mutex<BTreeMap<(String, String), Refused>>,
}

#[derive(Debug)]
struct Refused {
    why: String,
    at: Timestamp,
    generation: Option<i64>,
}

/// A refused claim is asked again after this time: the StorageClass may have been changed.
const REFUSED_S: i64 = 300;

impl Memo {
    fn refuse(&self, observed: &Observed, claim: &str, why: &str) {
        let generation = observed.cluster.metadata.generation;
        let refused = Refused { why: why.chars().take(300).collect(), at: observed.now, generation };
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((observed.uid().to_owned(), claim.to_owned()), refused);
    }

    /// Claims of a cluster that were refused lately, for this generation of its spec.
    #[must_use]
    pub fn refused(&self, cluster: &AISCluster, now: Timestamp) -> BTreeMap<String, String> {
        let uid = cluster.uid().unwrap_or_default();
        let all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|((of, _), r)| {
                let fresh = now.duration_since(r.at) < SignedDuration::from_secs(REFUSED_S);
                *of == uid && fresh && r.generation == cluster.metadata.generation
            })
            .map(|((_, claim), r)| (claim.clone(), r.why.clone()))
            .collect()
    }

    fn matches(&self, uid: &str, wanted: &Wanted, live: &Value) -> bool {
        let memo = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        memo.get(&(uid.to_owned(), wanted.key.clone()))
            .is_some_and(|(w, l)| *w == digest(&wanted.object) && *l == digest(&essence(live)))
    }

    /// Remembers what came back.
    pub fn store(&self, uid: &str, wanted: &Wanted, live: &Value) {
        let entry = (digest(&wanted.object), digest(&essence(live)));
        let mut memo = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        memo.insert((uid.to_owned(), wanted.key.clone()), entry);
    }

    /// Forgets a cluster.
    pub fn forget(&self, uid: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != uid);
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).retain(|(owner, _), _| owner != uid);
    }
}

/// The part of an object that only writers of its spec change.
fn essence(live: &Value) -> Value {
    let mut live = live.clone();
    if let Some(map) = live.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["resourceVersion", "generation", "managedFields"] {
            meta.remove(key);
        }
    }
    live
}

/// True if everything in `wanted` is in `live`. A field that is no longer wanted shows by the digest annotation.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(l), Value::Object(w)) => w.iter().all(|(k, v)| l.get(k).is_some_and(|lv| contains(lv, v))),
        (Value::Array(l), Value::Array(w)) => l.len() == w.len() && l.iter().zip(w).all(|(l, w)| contains(l, w)),
        _ => live == wanted,
    }
}

/// What is written besides objects and marks, in its order. Pure.
#[must_use]
pub fn volume_writes(observed: &Observed, plan: &Plan) -> Vec<Write> {
    let names = observed.names();
    let mut writes: Vec<Write> = plan.storage.resizes.iter().cloned().map(Write::Resize).collect();
    let orphaned = plan.storage.orphaned.iter();
    writes.extend(orphaned.map(|(role, uid)| Write::Orphan(names.set(*role), uid.clone())));
    for (claim, (label, present)) in &plan.scale.labels {
        let value = if *present { json!("true") } else { Value::Null };
        writes.push(Write::MarkVolume(claim.clone(), json!({"metadata": {"labels": {*label: value}}})));
    }
    let dropped = plan.scale.dropped.iter().cloned();
    writes.extend(dropped.map(|(name, uid)| Write::DeleteClaim { name, uid }));
    writes
}

/// What the end of a resource writes. Pure.
#[must_use]
pub fn final_writes(deletion: &Deletion) -> Vec<Write> {
    let emptied = deletion.emptied.iter().cloned().map(|(name, uid)| Write::Empty(name, uid));
    let claims = deletion.claims.iter().cloned().map(|(name, uid)| Write::DeleteClaim { name, uid });
    emptied.chain(deletion.orphans.iter().map(delete)).chain(claims).collect()
}

fn delete(pod: &Removal) -> Write {
    Write::DeletePod { name: pod.name.clone(), uid: pod.uid.clone(), reason: pod.reason }
}

/// The primary's label, on and off. Pure.
#[must_use]
pub fn label_writes(marks: &Marks) -> Vec<Write> {
    let value = |leads: bool| if leads { json!("primary") } else { Value::Null };
    let label = |leads: bool| json!({"metadata": {"labels": {LABEL_ROLE: value(leads)}}});
    marks.primary.iter().map(|(pod, leads)| Write::MarkPod(pod.clone(), label(*leads))).collect()
}

/// What must be written. Pure.
#[must_use]
pub fn writes(observed: &Observed, wanted: &[Wanted], marks: &Marks, memo: &Memo) -> Vec<Write> {
    let uid = observed.uid();
    let mut writes = Vec::new();
    for wanted in wanted {
        let settled = observed
            .live
            .get(&wanted.key)
            .is_some_and(|live| contains(live, &wanted.object) || memo.matches(uid, wanted, live));
        if !settled {
            writes.push(Write::Apply(wanted.clone()));
        }
    }
    for (key, live) in &observed.live {
        let owners = live["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let ours = owners.iter().any(|o| o["uid"] == uid && o["controller"] == Value::Bool(true));
        let going = !live["metadata"]["deletionTimestamp"].is_null();
        if ours && !going && wanted.iter().all(|w| w.key != *key) {
            writes.push(Write::Prune(key.clone()));
        }
    }
    writes.extend(label_writes(marks));
    for (pod, digest) in &marks.discovery {
        let patch = json!({"metadata": {"annotations": {ANNOTATION_DISCOVERY: digest}}});
        writes.push(Write::MarkPod(pod.clone(), patch));
    }
    for (pod, digest) in &marks.credentials {
        let patch = json!({"metadata": {"annotations": {ANNOTATION_CREDENTIALS: digest}}});
        writes.push(Write::MarkPod(pod.clone(), patch));
    }
    for volume in observed.volumes.iter().filter(|v| marks.wiped.contains(&v.name) && !v.deleting) {
        writes.push(Write::DeleteClaim { name: volume.name.clone(), uid: volume.uid.clone() });
    }
    for volume in &marks.formed {
        writes.push(Write::MarkVolume(volume.clone(), json!({"metadata": {"labels": {LABEL_FORMED: "true"}}})));
    }
    // A pod that goes now would be made from what is only being written.
    if !writes.iter().any(|w| matches!(w, Write::Apply(_))) {
        writes.extend(marks.removals.iter().map(delete));
    }
    writes
}

/// Writes to the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Metrics,
}

impl Writer {
    /// A writer that counts in `metrics`.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Does what [`writes`] found. What is refused holds back only what could do harm without it.
    ///
    /// # Errors
    /// The first that fails, or that an object is somebody else's; the rest follows with the next pass.
    pub async fn perform(&self, observed: &Observed, writes: &[Write], memo: &Memo) -> Result<(), ApplyError> {
        let mut failures = Vec::new();
        for write in writes {
            if failures.iter().any(|failed| holds_back(failed, write)) {
                continue;
            }
            if let Err(error) = self.write(observed, write, memo).await {
                let kind = if let Write::Apply(wanted) = write { Some(wanted.key.0) } else { None };
                failures.push((kind, error));
            }
        }
        let foreign = failures.iter().position(|(_, error)| matches!(error, ApplyError::Foreign(..)));
        if failures.is_empty() { Ok(()) } else { Err(failures.swap_remove(foreign.unwrap_or(0)).1) }
    }

    async fn write(&self, observed: &Observed, write: &Write, memo: &Memo) -> Result<(), ApplyError> {
        let namespace = observed.cluster.namespace().unwrap_or_default();
        match write {
            Write::Apply(wanted) => self.apply(observed, &namespace, wanted, memo).await,
            Write::Prune(key) => self.prune(observed, &namespace, key).await,
            Write::DeletePod { name, uid, reason } => self.delete_pod(&namespace, name, uid, reason).await,
            Write::Empty(name, uid) => self.empty(&namespace, name, uid).await,
            Write::Orphan(name, uid) => self.orphan(&namespace, name, uid).await,
            Write::Resize(resize) => self.resize(observed, &namespace, resize, memo).await,
            Write::DeleteClaim { name, uid } => self.delete_claim(&namespace, name, uid).await,
            Write::MarkPod(pod, patch) => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
                self.metrics.write("Pod");
                let done = pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(patch)).await;
                tolerate_gone(done.map(|_| ())).map_err(api_error(format!("labels of pod {pod}")))
            }
            Write::MarkVolume(volume, patch) => {
                let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
                self.metrics.write("PersistentVolumeClaim");
                let done = claims.patch_metadata(volume, &PatchParams::default(), &Patch::Merge(patch)).await;
                tolerate_gone(done.map(|_| ())).map_err(api_error(format!("labels of volume claim {volume}")))
            }
        }
    }

    async fn apply(
        &self,
        observed: &Observed,
        namespace: &str,
        wanted: &Wanted,
        memo: &Memo,
    ) -> Result<(), ApplyError> {
        let (kind, name) = &wanted.key;
        let what = || format!("{kind:?} {name}");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(*kind));
        if !observed.live.contains_key(&wanted.key)
            && let Some(existing) = api.get_opt(name).await.map_err(api_error(what()))?
        {
            // Apply would take it over silently.
            let owners = existing.metadata.owner_references.unwrap_or_default();
            if !owners.iter().any(|o| o.uid == observed.uid()) {
                return Err(ApplyError::Foreign(*kind, name.clone()));
            }
        }
        let mut object = wanted.object.clone();
        object["apiVersion"] = json!(resource(*kind).api_version);
        object["kind"] = json!(resource(*kind).kind);
        self.metrics.write(&resource(*kind).kind);
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(name, &params, &Patch::Apply(&object)).await.map_err(api_error(what()))?;
        if let Ok(live) = serde_json::to_value(&applied) {
            memo.store(observed.uid(), wanted, &live);
        }
        tracing::info!(kind = ?kind, name, "applied");
        Ok(())
    }

    /// The precondition makes a repeated or late deletion harmless: another pod of that name has another uid.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, reason: &str) -> Result<(), ApplyError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        self.metrics.write("Pod");
        let done = pods.delete(name, &exactly(uid)).await;
        tolerate_other(done.map(|_| ())).map_err(api_error(format!("pod {name}")))?;
        tracing::info!(name, reason, "pod deleted");
        Ok(())
    }

    async fn orphan(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..exactly(uid) };
        self.metrics.write("StatefulSet");
        let done = sets.delete(name, &params).await;
        tolerate_other(done.map(|_| ())).map_err(api_error(format!("StatefulSet {name}")))?;
        tracing::info!(name, "deleted without its pods, to be made again for larger volumes");
        Ok(())
    }

    async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        self.metrics.write("PersistentVolumeClaim");
        let done = claims.delete(name, &exactly(uid)).await;
        tolerate_other(done.map(|_| ())).map_err(api_error(format!("volume claim {name}")))?;
        tracing::info!(name, "volume claim deleted");
        Ok(())
    }

    async fn empty(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
        let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
        // With the uid, so that no set of the same name is meant that somebody made since.
        let patch = json!({"metadata": {"uid": uid}, "spec": {"replicas": 0}});
        self.metrics.write("StatefulSet");
        let done = sets.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        tolerate_other(done.map(|_| ())).map_err(api_error(format!("replicas of StatefulSet {name}")))?;
        tracing::info!(name, "no replicas");
        Ok(())
    }

    /// A refusal is no failure of the pass: it is remembered, told, and tried again after a while.
    async fn resize(
        &self,
        observed: &Observed,
        namespace: &str,
        resize: &Resize,
        memo: &Memo,
    ) -> Result<(), ApplyError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({
            "metadata": {"uid": resize.uid},
            "spec": {"resources": {"requests": {"storage": resize.size}}},
        });
        self.metrics.write("PersistentVolumeClaim");
        match claims.patch(&resize.claim, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                tracing::warn!(claim = resize.claim, why = status.message, "a volume claim may not grow");
                memo.refuse(observed, &resize.claim, &status.message);
                Ok(())
            }
            done => {
                tolerate_other(done.map(|_| ()))
                    .map_err(api_error(format!("size of volume claim {}", resize.claim)))?;
                tracing::info!(claim = resize.claim, size = resize.size, "asked a volume claim to grow");
                Ok(())
            }
        }
    }

    async fn prune(&self, observed: &Observed, namespace: &str, key: &ObjectKey) -> Result<(), ApplyError> {
        let (kind, name) = key;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(*kind));
        let uid = observed.live.get(key).and_then(|o| o["metadata"]["uid"].as_str()).map(str::to_owned);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        self.metrics.write(&resource(*kind).kind);
        tolerate_gone(api.delete(name, &params).await.map(|_| ())).map_err(api_error(format!("{kind:?} {name}")))?;
        tracing::info!(kind = ?kind, name, "pruned");
        Ok(())
    }

    /// Writes status if it differs. With `exactly`, only if nobody changed the resource since it was read:
    /// a move of the primary begins by this.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn status(
        &self,
        observed: &Observed,
        status: &AISClusterStatus,
        exactly: bool,
    ) -> Result<(), ApplyError> {
        if observed.cluster.status.as_ref() == Some(status) {
            return Ok(());
        }
        let namespace = observed.cluster.namespace().unwrap_or_default();
        let name = observed.cluster.name_any();
        let mut patch = json!({
            "apiVersion": "aiscluster.dev/v1alpha1",
            "kind": "AISCluster",
            "metadata": {"name": name},
            "status": status,
        });
        if exactly {
            patch["metadata"]["resourceVersion"] = json!(observed.cluster.metadata.resource_version);
        }
        let api: Api<AISCluster> = Api::namespaced(self.client.clone(), &namespace);
        self.metrics.write("AISClusterStatus");
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let done = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
        tolerate_gone(done.map(|_| ())).map_err(api_error("status"))
    }

    /// Sets or removes the finalizer.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn finalizer(&self, cluster: &AISCluster, present: bool) -> Result<(), ApplyError> {
        let mut finalizers: Vec<String> = cluster.finalizers().to_vec();
        if finalizers.iter().any(|f| f == FINALIZER) == present {
            return Ok(());
        }
        finalizers.retain(|f| f != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            // The list is replaced as a whole: not over somebody else's change.
            "resourceVersion": cluster.metadata.resource_version,
        }});
        let namespace = cluster.namespace().unwrap_or_default();
        let api: Api<AISCluster> = Api::namespaced(self.client.clone(), &namespace);
        self.metrics.write("AISCluster");
        let done = api.patch_metadata(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        tolerate_gone(done.map(|_| ())).map_err(api_error("finalizer"))
    }
}

/// Whether a failed write, with the kind if it was an apply, holds back another. Labels follow the nodes and never wait
/// for objects; nothing is taken away while something is not as wanted.
fn holds_back((kind, error): &(Option<Kind>, ApplyError), write: &Write) -> bool {
    if !error.is_refusal() {
        // Nobody answers: the rest would wait as long as this one did.
        return !matches!(error, ApplyError::Foreign(..)) || !matches!(write, Write::MarkPod(..));
    }
    match write {
        Write::MarkPod(..) | Write::MarkVolume(..) | Write::Resize(_) => false,
        // Pods are not made before what they mount.
        Write::Apply(wanted) => {
            wanted.key.0 >= Kind::StatefulSet && matches!(kind, Some(Kind::Secret | Kind::ConfigMap))
        }
        Write::Prune(_)
        | Write::DeletePod { .. }
        | Write::Empty(..)
        | Write::Orphan(..)
        | Write::DeleteClaim { .. } => true,
    }
}

fn exactly(uid: &str) -> DeleteParams {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    DeleteParams { preconditions, ..DeleteParams::default() }
}

/// What is gone needs no write, also if another of that name is there.
fn tolerate_other(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match tolerate_gone(result) {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other,
    }
}

/// What is gone needs no write.
fn tolerate_gone(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
