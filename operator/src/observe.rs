//! All reads of one pass. Live reads, filtered by label: nothing decided here rests on a stale cache.

mod certificates;

use std::collections::BTreeMap;
use std::time::Duration;

use ais_crds::{AISCluster, ClusterState, TlsMode};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use serde_json::json;

use crate::apply::resource;
use crate::controller::Context;
use crate::desired::{DISCOVERY_KEY, SECRET_KEY};
use crate::facts::{ClaimFact, Kind, ObjectKey, Observed, PodFact, PrimaryMap, SecretFact, SetFact, Step, VolumeFact};
use crate::hub::{ClusterKey, Watched};
use crate::names::{ANNOTATION_ROTATION, ANNOTATION_ROTATION_STEP, Names, Role, selector_text};
use crate::perform::{CallError, Caller, Node, views};
use crate::plan::primary::at_hand;
use crate::tls::issue::{IssueError, renewed};
use crate::tls::{Readers, trust};
use crate::validate::hex;
use crate::view::{Report, Reports};

/// How long a fresh operator waits for the first words of the nodes.
const SETTLE: Duration = Duration::from_millis(1500);

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The API server refused or did not answer.
    #[error("{0}: {1}")]
    Api(&'static str, #[source] Box<kube::Error>),
    /// Signing is impossible.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The stored object is not what this operator knows.
    #[error("the stored object cannot be read: {0}")]
    Undecodable(Box<InvalidObject>),
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No randomness for a new secret.
    #[error("no randomness for a new secret")]
    Random,
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> ObserveError {
    move |error| ObserveError::Api(what, Box::new(error))
}

/// Reads a cluster; `None` when it is gone.
///
/// # Errors
/// [`ObserveError`]
pub async fn observe(ctx: &Context, key: &ClusterKey) -> Result<Option<Observed>, ObserveError> {
    let client = &ctx.client;
    let clusters: Api<DeserializeGuard<AISCluster>> = Api::namespaced(client.clone(), &key.0);
    let Some(cluster) = clusters.get_opt(&key.1).await.map_err(api("AISCluster"))? else { return Ok(None) };
    let cluster = cluster.0.map_err(|invalid| ObserveError::Undecodable(Box::new(invalid)))?;
    let names = Names {
        namespace: key.0.clone(),
        cluster: key.1.clone(),
        domain: ctx.defaults.domain.clone(),
        ports: cluster.spec.networking.ports,
    };
    let labels = ListParams::default().labels(&selector_text(&names.selector_all()));
    let (has_tls, uid) = (cluster.spec.tls.mode == TlsMode::SelfManaged, cluster.uid().unwrap_or_default());
    let members = ListParams::default().labels(&Names::members_text(&names.selector_all()));
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.0);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.0);
    let (pods, claims, live) =
        futures::join!(pods.list(&members), claims.list(&labels), live(ctx, &names, &labels, has_tls, &uid));
    let (live, pod_monitors) = live?;
    let claims = claims.map_err(api("volume claims"))?.items;
    let pods: Vec<PodFact> =
        pods.map_err(api("pods"))?.items.iter().filter_map(|p| PodFact::from_pod(&names, p)).collect();
    let volumes: Vec<VolumeFact> = claims.iter().filter_map(|c| VolumeFact::from_claim(&names, c)).collect();
    let claims: Vec<ClaimFact> = claims.iter().filter_map(|c| ClaimFact::from_claim(&names, c)).collect();

    let sets = sets(&names, &live);
    let request = &cluster.spec.auth.member_secret_rotation;
    let secret = secret(ctx, &names, uid.clone(), request, &live)?;
    let found = certificates::read(client, &names, &cluster, &live).await?;
    let mode = cluster.spec.tls.mode;
    let caller = Caller::new(ctx.way(&uid, &names, mode, &found)?, &secret.content)?;
    let nodes = watched(&names, &pods);
    // Streams are opened anew when the way to the nodes changes.
    ctx.hub.sync(key, &format!("{mode:?}\n{}\n{}", secret.content, trust(&found)), &caller, nodes.clone());
    let moves = at_hand(&cluster.spec.primary, cluster.status.as_ref().map(|s| &s.primary));
    let fresh = ctx.takes_fresh(key) || moves || ends(&cluster, &sets);
    let reports = said(ctx, key, &caller, nodes, fresh).await;
    let started = cluster.status.as_ref().and_then(|s| s.primary.attempt.as_ref()).map(|a| a.started_at.0);
    let outcome = ctx.outcome(key, started);
    let now = Timestamp::now();
    let readers = Readers::of(&pods, &reports, &cluster.spec);
    let tls = renewed(found, &names, &cluster, now, ctx.defaults.lifetimes, &readers)?;
    Ok(Some(Observed {
        now,
        order: ctx.orders.answer(key),
        refused: ctx.memo.refused(&cluster, now),
        claims,
        defaults: ctx.defaults.clone(),
        uptime: ctx.began.elapsed(),
        hold: ctx.hold(key),
        fresh,
        cordoned: ctx.nodes.cordoned(),
        sets,
        discovery: config_map(&live, &names.discovery())
            .and_then(|mut data| serde_saphyr::from_str(&data.remove(DISCOVERY_KEY)?).ok()),
        primary_map: primary_map(&live, &names),
        cluster,
        pods,
        volumes,
        secret,
        fresh_secret: random()?,
        tls,
        reports,
        outcome,
        live,
        pod_monitors,
        config_call: ctx.config_call(key),
    }))
}

/// What the nodes say: by their streams; `fresh` when something is decided, or proven, by signed answers of this very
/// moment.
async fn said(ctx: &Context, key: &ClusterKey, caller: &Caller, nodes: Vec<Watched>, fresh: bool) -> Reports {
    let mut reports = ctx.hub.reports(key, SETTLE).await;
    if !fresh {
        return reports;
    }
    let nodes: Vec<_> = nodes.into_iter().map(|w| (w.pod, w.node)).collect();
    for (pod, answer) in views(caller, nodes).await {
        let report = match answer {
            Ok(view) => Report::of(&pod, view),
            Err(error) => Report::Lost(error.to_string()),
        };
        reports.insert(pod, report);
    }
    reports
}

fn primary_map(live: &BTreeMap<ObjectKey, serde_json::Value>, names: &Names) -> Option<PrimaryMap> {
    config_map(live, &names.primary()).map(|mut data| PrimaryMap {
        endpoint: data.remove("endpoint").unwrap_or_default(),
        cluster_uuid: data.remove("cluster-uuid").unwrap_or_default(),
        founding_attempt: data.remove("founding-attempt").and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

/// True while nodes are to go: what the others hold is read at the very moment, too.
fn ends(cluster: &AISCluster, sets: &BTreeMap<Role, SetFact>) -> bool {
    let wanted = |role: &Role| match role {
        Role::Gateway => cluster.spec.gateways.replicas,
        Role::Target => cluster.spec.targets.replicas,
    };
    cluster.metadata.deletion_timestamp.is_some()
        || cluster.status.as_ref().is_some_and(|s| s.operation.is_some())
        || sets.iter().any(|(role, set)| wanted(role) < set.replicas_asked)
        || (cluster.spec.state == ClusterState::Stopped && sets.values().any(|s| s.replicas > 0))
}

async fn live(
    ctx: &Context,
    names: &Names,
    labels: &ListParams,
    tls: bool,
    uid: &str,
) -> Result<(BTreeMap<ObjectKey, serde_json::Value>, bool), ObserveError> {
    let client = &ctx.client;
    let pod_monitors = ctx.apis.pod_monitors(client).await;
    let api_of =
        |kind| -> Api<DynamicObject> { Api::namespaced_with(client.clone(), &names.namespace, &resource(kind)) };
    // By name, so that the operator needs no right to list secrets.
    let named = [names.secret(), names.authority(), names.certificate()];
    // The two of certificates only where they are used: otherwise they stay as they are, and go with their owner.
    let named = &named[..if tls { 3 } else { 1 }];
    let secrets = api_of(Kind::Secret);
    let listed: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|k| *k != Kind::Secret && (*k != Kind::PodMonitor || pod_monitors))
        .map(|k| (k, api_of(k)))
        .collect();
    let lists = futures::future::join_all(listed.iter().map(|(_, list)| list.list(labels)));
    let got = futures::future::join_all(named.iter().map(|name| secrets.get_opt(name)));
    let (got, lists) = futures::join!(got, lists);
    let mut found = BTreeMap::new();
    for (name, secret) in named.iter().zip(got) {
        if let Some(secret) = secret.map_err(api("secret"))?.filter(|s| is_ours(names, uid, &s.metadata)) {
            found.insert((Kind::Secret, name.clone()), serde_json::to_value(&secret).unwrap_or_default());
        }
    }
    for ((kind, _), list) in listed.iter().zip(lists) {
        for object in list.map_err(api("objects of the cluster"))?.items {
            let name = object.name_any();
            let mut object = serde_json::to_value(&object).unwrap_or_default();
            // Items of a list come without their type, and would look like drift.
            object["apiVersion"] = json!(resource(*kind).api_version);
            object["kind"] = json!(resource(*kind).kind);
            found.insert((*kind, name), object);
        }
    }
    Ok((found, pod_monitors))
}

/// A Secret is read by its name, and a user's own may have it: that one is neither used nor written over. Other kinds
/// are found by the labels.
fn is_ours(names: &Names, uid: &str, found: &ObjectMeta) -> bool {
    let labels = found.labels.as_ref();
    found.owner_references.iter().flatten().any(|owner| owner.uid == uid)
        || names.selector_all().iter().all(|(key, value)| labels.is_some_and(|l| l.get(key) == Some(value)))
}

fn typed<T: serde::de::DeserializeOwned>(live: &BTreeMap<ObjectKey, serde_json::Value>, key: ObjectKey) -> Option<T> {
    serde_json::from_value(live.get(&key)?.clone()).ok()
}

fn config_map(live: &BTreeMap<ObjectKey, serde_json::Value>, name: &str) -> Option<BTreeMap<String, String>> {
    typed::<ConfigMap>(live, (Kind::ConfigMap, name.to_owned()))?.data
}

fn sets(names: &Names, live: &BTreeMap<ObjectKey, serde_json::Value>) -> BTreeMap<Role, SetFact> {
    Role::ALL
        .into_iter()
        .filter_map(|role| {
            let set: StatefulSet = typed(live, (Kind::StatefulSet, names.set(role)))?;
            Some((role, SetFact::from_set(&set)))
        })
        .collect()
}

/// The secret as found; else the one this process knows, since running pods still use it; else a new one.
fn secret(
    ctx: &Context,
    names: &Names,
    uid: String,
    request: &str,
    live: &BTreeMap<ObjectKey, serde_json::Value>,
) -> Result<SecretFact, ObserveError> {
    let found = typed::<Secret>(live, (Kind::Secret, names.secret())).and_then(|s| {
        let content = String::from_utf8(s.data?.remove(SECRET_KEY)?.0).ok()?;
        let mut annotations = s.metadata.annotations.unwrap_or_default();
        let request = annotations.remove(ANNOTATION_ROTATION).unwrap_or_default();
        let step = Step::parse(&annotations.remove(ANNOTATION_ROTATION_STEP).unwrap_or_default());
        (content.trim_end().len() >= 32).then_some(SecretFact { content, request, step })
    });
    let mut known = ctx.secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(found) = found {
        known.insert(uid, found.clone());
        return Ok(found);
    }
    if let Some(kept) = known.get(&uid) {
        return Ok(kept.clone());
    }
    // A new secret needs no rotation, whatever was asked before.
    let fresh = SecretFact { content: random()?, request: request.to_owned(), step: Step::Done };
    known.insert(uid, fresh.clone());
    Ok(fresh)
}

fn random() -> Result<String, ObserveError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| ObserveError::Random)?;
    Ok(hex(&bytes, bytes.len()))
}

fn watched(names: &Names, pods: &[PodFact]) -> Vec<Watched> {
    pods.iter()
        .filter(|p| p.running)
        .filter_map(|p| {
            let node = Node::new(p.ip.as_deref()?, names.ports.control, &names.host(p.role?, &p.name));
            Some(Watched { pod: p.name.clone(), uid: p.uid.clone(), node })
        })
        .collect()
}
