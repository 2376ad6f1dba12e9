//! One pass over a cluster, top to bottom:
//! `observe` (reads) -> `validate` -> `plan` -> `desired` -> `status` (all pure) -> `apply` -> status -> `perform`.
//!
//! # Guarantees
//! Passes over one cluster never overlap. What is about to be done to the primary is in status before it is
//! done. A pass that finds nothing to change writes nothing.
//! # Caveats
//! Passes run only while this instance holds the lease; when it is lost the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ais_crds::{AISCluster, DeletionPolicy, TlsMode, Transition};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use tokio_util::task::AbortOnDropHandle;

use crate::apis::Apis;
use crate::apply::{ApplyError, Memo, Writer, final_writes, label_writes, volume_writes, writes};
use crate::events::{Note, Teller};
use crate::facts::{Defaults, Observed, SecretFact};
use crate::hub::{ClusterKey, Hub};
use crate::metrics::Metrics;
use crate::names::{FINALIZER, LABEL_CLUSTER, LABEL_MANAGED_BY, MANAGER, Names, Role, selector_text};
use crate::nodes::Nodes;
use crate::observe::{ObserveError, observe};
use crate::orders::Orders;
use crate::pauses::{after_conflict, after_failures};
use crate::perform::{CallError, Caller, Http, Node, TransferOutcome};
use crate::plan::config::{ConfigCall, SetConfig};
use crate::plan::deletion::{deletion, is_overdue};
use crate::plan::order::Order;
use crate::plan::primary::{Decision, Hold, Transfer};
use crate::plan::{Plan, plan};
use crate::refused::refused;
use crate::scope::{Part, Scope, scoped};
use crate::tenure::Tenure;
use crate::tls::{TlsFacts, trust};
use crate::validate::{Invalid, validate};
use crate::wakes::{again, asks, goes_on};
use crate::{conditions, desired, status, unreadable};

pub use crate::wakes::Meta;

/// An object that cannot be read is looked at again by itself; a change of it is seen at once.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(300);

/// Passes at once, over all namespaces.
const CONCURRENCY: u16 = 8;

/// How long a pass may take: on a connection that died in silence a call to the API server would wait for many minutes.
const PASS_MAX: Duration = Duration::from_secs(60);

/// A pass failed; it is repeated with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error("observe: {0}")]
    Observe(#[from] ObserveError),
    /// A write failed.
    #[error("apply: {0}")]
    Apply(#[from] ApplyError),
    /// It took too long.
    #[error("no end after {} s", PASS_MAX.as_secs())]
    Late,
    /// Another instance may act by now.
    #[error("the lease is not known to be held any more")]
    NotLeading,
}

/// What passes share.
pub struct Context {
    /// API server.
    pub client: Client,
    /// Settings that shape objects.
    pub defaults: Defaults,
    /// Calls to nodes without TLS.
    pub http: Http,
    /// Calls to nodes with TLS by uid of the cluster, with the authorities they trust.
    pub https: Mutex<BTreeMap<String, (String, Http)>>,
    /// Streams of nodes.
    pub hub: Arc<Hub>,
    /// Counters.
    pub metrics: Metrics,
    /// Events.
    pub teller: Teller,
    /// Secrets by uid of the cluster, in case one is deleted while pods use it.
    pub secrets: Mutex<BTreeMap<String, SecretFact>>,
    /// What was last applied.
    pub memo: Memo,
    /// When this process began.
    pub began: Instant,
    holds: Mutex<BTreeMap<ClusterKey, Hold>>,
    wants_fresh: Mutex<BTreeSet<ClusterKey>>,
    /// Nodes that take no more pods.
    pub nodes: Nodes,
    /// What the API server offers.
    pub apis: Apis,
    /// Calls to primaries.
    pub orders: Orders,
    /// How long this instance may act.
    pub tenure: Tenure,
    outcomes: Mutex<BTreeMap<ClusterKey, (Timestamp, Option<TransferOutcome>)>>,
    config_calls: Mutex<BTreeMap<ClusterKey, ConfigCall>>,
    failures: Mutex<BTreeMap<ClusterKey, u32>>,
}

impl Context {
    /// Everything empty.
    #[must_use]
    pub fn new(
        client: Client,
        defaults: Defaults,
        http: Http,
        hub: Arc<Hub>,
        metrics: Metrics,
        teller: Teller,
        tenure: Tenure,
    ) -> Self {
        Self {
            client,
            defaults,
            http,
            https: Mutex::default(),
            hub,
            metrics,
            teller,
            tenure,
            secrets: Mutex::default(),
            memo: Memo::default(),
            began: Instant::now(),
            holds: Mutex::default(),
            wants_fresh: Mutex::default(),
            nodes: Nodes::default(),
            apis: Apis::default(),
            orders: Orders::default(),
            outcomes: Mutex::default(),
            config_calls: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// The way to the nodes of a cluster, by its mode of TLS: a Secret that is gone never makes a call a plain one.
    ///
    /// # Errors
    /// [`CallError`] if no client can be made.
    pub fn way(&self, uid: &str, names: &Names, mode: TlsMode, facts: &TlsFacts) -> Result<Http, CallError> {
        if mode == TlsMode::Disabled {
            return Ok(self.http.clone());
        }
        let ca = trust(facts);
        let mut known = self.https.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, http)) = known.get(uid).filter(|(of, _)| *of == ca) {
            return Ok(http.clone());
        }
        let hosts = Role::ALL.map(|role| names.host(role, &names.pod(role, 0)));
        let http = Caller::https(&ca, &hosts)?;
        known.insert(uid.to_owned(), (ca, http.clone()));
        Ok(http)
    }

    /// Asked before everything that is done to pods, volumes and nodes: it was decided a while ago.
    fn leads(&self) -> Result<(), Error> {
        if self.tenure.holds() { Ok(()) } else { Err(Error::NotLeading) }
    }

    /// Answer to the call of the attempt that began at `started`.
    #[must_use]
    pub fn outcome(&self, key: &ClusterKey, started: Option<Timestamp>) -> Option<TransferOutcome> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, outcome) = outcomes.get(key)?;
        // Status keeps microseconds.
        (started?.as_microsecond() == of.as_microsecond()).then(|| outcome.clone()).flatten()
    }

    fn set_outcome(&self, key: &ClusterKey, started: Timestamp, outcome: Option<TransferOutcome>) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(key.clone(), (started, outcome));
    }

    /// The hold that the last pass over this cluster left.
    #[must_use]
    pub fn hold(&self, key: &ClusterKey) -> Option<Hold> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Whether the last pass wants the nodes asked in this one; asked once.
    #[must_use]
    pub fn takes_fresh(&self, key: &ClusterKey) -> bool {
        self.wants_fresh.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// What the next pass has to know of this one's decision; `None`: a pass that decided nothing.
    fn remember(&self, key: &ClusterKey, decision: Option<&Decision>) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        match decision.and_then(|d| d.hold.clone()) {
            Some(hold) => holds.insert(key.clone(), hold),
            None => holds.remove(key),
        };
        if decision.is_some_and(|d| d.wants_fresh) {
            self.wants_fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        }
    }

    /// The last call about `spec.config`.
    #[must_use]
    pub fn config_call(&self, key: &ClusterKey) -> Option<ConfigCall> {
        self.config_calls.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn set_config_call(&self, key: &ClusterKey, call: ConfigCall) {
        self.config_calls.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), call);
    }

    fn forget(&self, key: &ClusterKey, uid: Option<&str>) {
        self.remember(key, None);
        self.hub.forget(key);
        self.metrics.forget(&key.0, &key.1);
        self.orders.forget(key);
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.config_calls.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(uid) = uid {
            self.memo.forget(uid);
            self.secrets.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
            self.https.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        }
    }
}

/// Runs until `stop`.
pub async fn run(
    ctx: Arc<Context>,
    scope: Scope,
    triggers: impl Stream<Item = ObjectRef<AISCluster>> + Send + 'static,
    stop: CancellationToken,
) {
    // Nodes are of no namespace: an operator of some namespaces has no right to see them.
    let nodes = scope.is_everything().then(|| ctx.nodes.clone().follow(ctx.client.clone(), Arc::clone(&ctx.hub)));
    let _nodes = nodes.map(|follow| AbortOnDropHandle::new(tokio::spawn(follow)));
    let parts = scope.parts(triggers);
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX).max(1);
    let concurrency = (CONCURRENCY / count).max(1);
    let work = parts.into_iter().map(|part| watch(Arc::clone(&ctx), part, concurrency, stop.clone()));
    futures::future::join_all(work).await;
}

/// The clusters of one part.
async fn watch(ctx: Arc<Context>, (namespace, triggers): Part, concurrency: u16, stop: CancellationToken) {
    let client = ctx.client.clone();
    let made_by = BTreeMap::from([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())]);
    let ours = watcher::Config::default().labels(&selector_text(&made_by)).page_size(50);
    let members = watcher::Config::default().labels(&Names::members_text(&made_by)).page_size(50);
    // Only the metadata is decoded, of clusters as well: one that does not decode must not hide the others.
    let (known, into) = reflector::store();
    let clusters = watcher(scoped::<Meta>(&client, namespace.as_deref()), watcher::Config::default());
    // Kept for as long as the cluster: who wrote which field is of no use here, and larger than all the rest.
    let clusters = clusters.modify(|cluster| cluster.metadata.managed_fields = None);
    // Most passes write status: that is no reason for another one.
    let asked = clusters.reflect(into).applied_objects().predicate_filter(asks, Default::default());
    Controller::for_stream(asked, known)
        .with_config(Config::default().concurrency(concurrency).debounce(Duration::from_millis(50)))
        // What an object says is read in the pass itself.
        .owns(scoped::<PartialObjectMeta<StatefulSet>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<Service>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<ConfigMap>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<PodDisruptionBudget>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<NetworkPolicy>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<Deployment>>(&client, namespace.as_deref()), ours.clone())
        .owns(scoped::<PartialObjectMeta<DaemonSet>>(&client, namespace.as_deref()), ours.clone())
        .watches(scoped::<PartialObjectMeta<Pod>>(&client, namespace.as_deref()), members, |pod| {
            let cluster = pod.labels().get(LABEL_CLUSTER)?;
            Some(ObjectRef::new(cluster).within(&pod.namespace()?))
        })
        .reconcile_on(triggers.map(|cluster| meta(&cluster)))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, on_error, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}

fn meta(cluster: &ObjectRef<AISCluster>) -> ObjectRef<Meta> {
    ObjectRef::new(&cluster.name).within(cluster.namespace.as_deref().unwrap_or_default())
}

/// One pass, and the end of a deletion that it could not see to.
///
/// # Errors
/// As [`pass`].
pub async fn reconcile(cluster: Arc<Meta>, ctx: Arc<Context>) -> Result<Action, Error> {
    let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let began = Instant::now();
    let uid = cluster.uid();
    let pass = tokio::time::timeout(PASS_MAX, pass(&ctx, &key, uid.as_deref()));
    let mut result = pass.await.unwrap_or(Err(Error::Late));
    if let Err(error) = &result
        && cluster.metadata.deletion_timestamp.is_some()
        && ctx.tenure.holds()
        && let Err(other) = release_unseen(&ctx, &key, error).await
    {
        result = Err(other);
    }
    let word = match &result {
        Ok(_) => "ok",
        Err(error) if after_conflict(error).is_some() => "again",
        Err(_) => "error",
    };
    ctx.metrics.reconciled(word, began.elapsed().as_secs_f64());
    if result.is_ok() {
        ctx.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
    result
}

fn on_error(cluster: Arc<Meta>, error: &Error, ctx: Arc<Context>) -> Action {
    let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    if let Some(again) = after_conflict(error) {
        tracing::debug!(namespace = key.0, cluster = key.1, %error, "somebody else was quicker");
        return Action::requeue(again);
    }
    ctx.metrics.failed(match error {
        Error::Observe(_) => "observe",
        Error::Apply(_) => "apply",
        Error::Late => "late",
        Error::NotLeading => "lease",
    });
    let mut failures = ctx.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(key.clone()).or_default();
    *count = count.saturating_add(1);
    let wait = after_failures(*count);
    tracing::warn!(namespace = key.0, cluster = key.1, %error, again_in_s = wait.as_secs(), "pass failed");
    Action::requeue(wait)
}

/// One pass.
///
/// # Errors
/// A read or a write failed; what could be told is in status.
pub async fn pass(ctx: &Arc<Context>, key: &ClusterKey, uid: Option<&str>) -> Result<Action, Error> {
    let writer = Writer::new(ctx.client.clone(), ctx.metrics.clone());
    let observed = match observe(ctx, key).await {
        Err(ObserveError::Undecodable(invalid)) => {
            unreadable::report(ctx, key, &invalid).await?;
            return Ok(Action::requeue(UNREADABLE_AGAIN));
        }
        other => other?,
    };
    ctx.metrics.unreadable(&key.0, &key.1, false);
    let Some(observed) = observed else {
        ctx.forget(key, uid);
        return Ok(Action::await_change());
    };
    if observed.cluster.metadata.deletion_timestamp.is_some() {
        return delete(ctx, &writer, key, &observed).await;
    }
    let valid = match validate(&observed) {
        Ok(valid) => valid,
        Err(why) => return refuse(ctx, &writer, &observed, &why).await,
    };
    let plan = plan(&valid, &observed);
    ctx.remember(key, Some(&plan.primary));
    let mut status = status::status(&valid, &observed, &plan);
    let mut failed = None;
    let goes_on = goes_on(observed.cluster.status.as_ref(), &status);
    let mut wrote = false;
    if !observed.cluster.spec.paused {
        writer.finalizer(&observed.cluster, true).await?;
        let wanted = desired::build(&valid, &observed, &plan);
        let mut due = writes(&observed, &wanted, &plan.marks, &ctx.memo);
        due.extend(volume_writes(&observed, &plan));
        wrote = !due.is_empty();
        ctx.leads()?;
        match writer.perform(&observed, &due, &ctx.memo).await {
            Err(ApplyError::Foreign(kind, name)) => {
                let message = format!("{kind:?} {name} belongs to another owner; choose another name for the cluster");
                return refuse(ctx, &writer, &observed, &Invalid { reason: "NameConflict", message }).await;
            }
            // What the nodes do goes on, and is told, whatever the API server makes of one object.
            Err(error) if error.is_refusal() => {
                status::not_applied(&observed, &mut status, &error.told());
                failed = Some(error);
            }
            other => other?,
        }
    }
    // The finalizer changed the resource: a move starts with the next pass then, from a fresh read.
    let transfer = plan.primary.transfer.clone();
    writer.status(&observed, &status, transfer.is_some()).await?;
    let mut notes = plan.notes.clone();
    let before = observed.cluster.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    notes.extend(conditions::notes(&before, &status.conditions));
    tell(ctx, &observed, &notes).await;
    ctx.metrics.cluster(&key.0, &key.1, plan.primary.preferred, status.smap.version);
    ctx.metrics.conditions(&key.0, &key.1, &status.conditions);
    ctx.metrics.stopped(&key.0, &key.1, plan.stop.asked);
    ctx.metrics.formed(&key.0, &key.1, status.formed);
    plan.primary.finished.iter().for_each(|t| count(&ctx.metrics, key, t));
    if !observed.cluster.spec.paused {
        ctx.leads()?;
        // Nobody is taken out of the cluster for a change that cannot be carried out.
        let order = plan.order.as_ref().filter(|_| failed.is_none());
        act(ctx, key, &observed, &plan, order, transfer);
    }
    failed.map_or(Ok(Action::requeue(again(plan.requeue, goes_on, wrote))), |error| Err(error.into()))
}

fn count(metrics: &Metrics, key: &ClusterKey, transition: &Transition) {
    let seconds = match (&transition.started_at, &transition.finished_at) {
        (Some(from), Some(to)) => Some(to.0.duration_since(from.0).as_secs_f64()),
        _ => None,
    };
    metrics.transition(&key.0, &key.1, &transition.reason, &transition.result, seconds);
}

async fn tell(ctx: &Context, observed: &Observed, notes: &[Note]) {
    for note in notes {
        tracing::info!(reason = note.reason, message = note.message, "event");
        ctx.teller.tell(&observed.cluster, note).await;
    }
}

/// Says why nothing is touched, and what is true all the same.
async fn refuse(ctx: &Context, writer: &Writer, observed: &Observed, why: &Invalid) -> Result<Action, Error> {
    let cluster = &observed.cluster;
    let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    ctx.remember(&key, None);
    let refused = refused(observed, why);
    let goes_on = goes_on(cluster.status.as_ref(), &refused.status);
    let mut marked = Ok(());
    if !cluster.spec.paused {
        ctx.leads()?;
        marked = writer.perform(observed, &label_writes(&refused.marks), &ctx.memo).await;
    }
    writer.status(observed, &refused.status, false).await?;
    tell(ctx, observed, &refused.notes).await;
    ctx.metrics.cluster(&key.0, &key.1, refused.preferred, refused.status.smap.version);
    ctx.metrics.conditions(&key.0, &key.1, &refused.status.conditions);
    ctx.metrics.stopped(&key.0, &key.1, refused.stopped);
    ctx.metrics.formed(&key.0, &key.1, refused.status.formed);
    refused.finished.iter().for_each(|t| count(&ctx.metrics, &key, t));
    marked?;
    Ok(Action::requeue(again(refused.requeue, goes_on, false)))
}

/// One pass over a cluster that goes. What fails on the way delays the end, by the time-out at most with Retain.
async fn delete(ctx: &Arc<Context>, writer: &Writer, key: &ClusterKey, observed: &Observed) -> Result<Action, Error> {
    if !observed.cluster.finalizers().iter().any(|f| f == FINALIZER) {
        ctx.forget(key, Some(observed.uid()));
        return Ok(Action::await_change());
    }
    let deletion = deletion(observed);
    let status = status::deleting(observed, &deletion);
    if let Err(error) = writer.status(observed, &status, false).await {
        tracing::warn!(%error, "status of a cluster that goes");
    }
    ctx.metrics.conditions(&key.0, &key.1, &status.conditions);
    ctx.metrics.smap(&key.0, &key.1, status.smap.version);
    // That nobody is served is what was asked for; that it does not end is not.
    ctx.metrics.stopped(&key.0, &key.1, true);
    let before = observed.cluster.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let mut notes = deletion.notes.clone();
    notes.extend(conditions::notes(&before, &status.conditions));
    tell(ctx, observed, &notes).await;
    ctx.leads()?;
    let written = writer.perform(observed, &final_writes(&deletion), &ctx.memo).await;
    if deletion.release {
        if let Err(error) = written {
            tracing::warn!(%error, "last writes of a cluster that goes");
        }
        release(ctx, writer, key).await?;
        ctx.forget(key, Some(observed.uid()));
        return Ok(Action::await_change());
    }
    written?;
    if let (Some(order), Some(leader)) = (&deletion.order, &deletion.agreement.leader) {
        send(ctx, key, observed, &leader.node_id, order);
    }
    Ok(Action::requeue(deletion.requeue))
}

/// Status moved the resource version on: the finalizer goes from a fresh read.
async fn release(ctx: &Context, writer: &Writer, key: &ClusterKey) -> Result<(), Error> {
    let clusters: Api<AISCluster> = Api::namespaced(ctx.client.clone(), &key.0);
    let fresh = clusters.get_opt(&key.1).await.map_err(|e| ObserveError::Api("AISCluster", Box::new(e)))?;
    if let Some(fresh) = fresh.filter(|c| c.metadata.deletion_timestamp.is_some()) {
        writer.finalizer(&fresh, false).await?;
    }
    Ok(())
}

/// A deletion with Retain does not depend on anything that can be read besides the resource itself.
async fn release_unseen(ctx: &Context, key: &ClusterKey, error: &Error) -> Result<(), Error> {
    let clusters: Api<AISCluster> = Api::namespaced(ctx.client.clone(), &key.0);
    let cluster = clusters.get_opt(&key.1).await.map_err(|e| ObserveError::Api("AISCluster", Box::new(e)))?;
    let retained = |c: &AISCluster| c.spec.deletion_policy == DeletionPolicy::Retain && is_overdue(c, Timestamp::now());
    let ours = |c: &AISCluster| c.finalizers().iter().any(|f| f == FINALIZER);
    let Some(cluster) = cluster.filter(|c| ours(c) && retained(c)) else { return Ok(()) };
    let message = format!("let go without looking at it any more: {error}");
    ctx.teller.tell(&cluster, &Note::warning("DeletionTimedOut", "Delete", message)).await;
    release(ctx, &Writer::new(ctx.client.clone(), ctx.metrics.clone()), key).await
}

/// A call to the primary, beside the pass.
fn send(ctx: &Arc<Context>, key: &ClusterKey, observed: &Observed, primary: &str, order: &Order) {
    let Some(caller) = caller(ctx, observed) else { return };
    let Some(node) = node(observed, primary).filter(|_| ctx.orders.begin(key, order)) else { return };
    let (ctx, key, order) = (Arc::clone(ctx), key.clone(), order.clone());
    tokio::spawn(async move {
        let outcome = caller.order(&node, &order).await;
        tracing::info!(%order, primary = node.host, ?outcome, "asked the primary");
        ctx.orders.end(&key, outcome);
        ctx.hub.poke(&key);
    });
}

fn caller(ctx: &Context, observed: &Observed) -> Option<Caller> {
    let mode = observed.cluster.spec.tls.mode;
    let http = ctx.way(observed.uid(), &observed.names(), mode, &observed.tls).ok()?;
    Caller::new(http, &observed.secret.content).ok()
}

fn node(observed: &Observed, gateway: &str) -> Option<Node> {
    let ip = observed.pod(gateway)?.ip.clone()?;
    let names = observed.names();
    Some(Node::new(&ip, names.ports.control, &names.host(Role::Gateway, gateway)))
}

/// Calls to nodes, beside the pass: a stopped node must not hold status back.
fn act(
    ctx: &Arc<Context>,
    key: &ClusterKey,
    observed: &Observed,
    plan: &Plan,
    order: Option<&Order>,
    transfer: Option<Transfer>,
) {
    let Some(caller) = caller(ctx, observed) else { return };
    if let (Some(order), Some(leader)) = (order, &plan.agreement.leader) {
        send(ctx, key, observed, &leader.node_id, order);
    }
    for pod in &plan.poke {
        if let Some(node) = node(observed, pod) {
            let caller = caller.clone();
            tokio::spawn(async move {
                if let Err(error) = caller.poke(&node).await {
                    tracing::debug!(%error, host = node.host, "poke");
                }
            });
        }
    }
    if let Some(call) = &plan.config.call
        && let Some(primary) = plan.agreement.leader.as_ref().and_then(|leader| node(observed, &leader.node_id))
    {
        set_config(ctx, key, caller.clone(), primary, call.clone());
    }
    let Some(transfer) = transfer else { return };
    let Some(started) = plan.primary.memory.attempt.as_ref().map(|a| a.started_at.0) else { return };
    let Some(primary) = node(observed, &transfer.from) else {
        ctx.set_outcome(key, started, Some(TransferOutcome::Refused("the primary has no address".into())));
        return;
    };
    ctx.set_outcome(key, started, None);
    let (ctx, key) = (Arc::clone(ctx), key.clone());
    tokio::spawn(async move {
        let Transfer { from, to, epoch, timeout } = transfer;
        let outcome = caller.transfer(&primary, &from, &to, epoch, timeout).await;
        tracing::info!(from, to, epoch, ?outcome, "set-primary");
        ctx.set_outcome(&key, started, Some(outcome));
        ctx.hub.poke(&key);
    });
}

/// Tells the primary what `spec.config` says.
fn set_config(ctx: &Arc<Context>, key: &ClusterKey, caller: Caller, primary: Node, call: SetConfig) {
    let begun = ConfigCall { of: call.of.clone(), at: Timestamp::now(), outcome: None };
    ctx.set_config_call(key, begun.clone());
    let (ctx, key) = (Arc::clone(ctx), key.clone());
    tokio::spawn(async move {
        let outcome = caller.set_config(&primary, &call.set).await;
        tracing::info!(cluster = key.1, ?outcome, settings = ?call.set, "set-config");
        ctx.set_config_call(&key, ConfigCall { outcome: Some(outcome), ..begun });
        ctx.hub.poke(&key);
    });
}
