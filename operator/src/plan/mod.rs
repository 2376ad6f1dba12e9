//! What to do next, and why. Pure.

pub mod config;
pub mod credentials;
pub mod deletion;
pub mod disruption;
pub mod drain;
pub mod founding;
pub mod gates;
mod operation;
pub mod order;
pub mod primary;
pub mod refound;
pub mod rollout;
pub mod scale;
pub mod stop;
pub mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::events::Note;
use crate::facts::Observed;
use crate::names::Role;
use crate::validate::{UuidSource, Valid};
use crate::view::{Agreement, agree};

use founding::Founding;
use order::Order;
use refound::Refound;
use rollout::Rollout;
use scale::Scale;
use stop::Stop;
use storage::Storage;

/// How often a cluster at rest is looked at, about.
const RESYNC: Duration = Duration::from_secs(20);

/// How many replicas each role gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// What is applied.
    pub applied: BTreeMap<Role, i32>,
    /// Members; a stopped cluster keeps them, and has no pods.
    pub members: BTreeMap<Role, i32>,
}

impl Replicas {
    /// Applied for a role.
    #[must_use]
    pub fn of(&self, role: Role) -> i32 {
        self.applied.get(&role).copied().unwrap_or(0)
    }

    /// Members of a role.
    #[must_use]
    pub fn members(&self, role: Role) -> i32 {
        self.members.get(&role).copied().unwrap_or(0)
    }
}

/// A pod to delete; its set makes it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Its uid: another pod of that name is not meant.
    pub uid: String,
    /// What for.
    pub reason: &'static str,
}

/// What is done to pods and volumes beside what is applied: labels to set or remove, by name, and pods that go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Pods that get the primary's label (`true`) or lose it (`false`).
    pub primary: BTreeMap<String, bool>,
    /// Volumes that get the label of a founded cluster.
    pub formed: Vec<String>,
    /// Volume claims that are deleted: they belong to a founding that was given up.
    pub wiped: Vec<String>,
    /// Pods that get the annotation with this digest, so that the kubelet refreshes the mounted list.
    pub discovery: BTreeMap<String, String>,
    /// Pods that are deleted, once everything they would be made from is as wanted.
    pub removals: Vec<Removal>,
    /// Pods that get the annotation with this digest, so that the kubelet refreshes the mounted secret and certificate.
    pub credentials: BTreeMap<String, String>,
}

/// Everything decided in one pass.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the nodes agree on.
    pub agreement: Agreement,
    /// Founding.
    pub founding: Founding,
    /// A new founding in place of one that cannot be completed.
    pub refound: Option<Refound>,
    /// Replicas.
    pub replicas: Replicas,
    /// Members that leave.
    pub scale: Scale,
    /// The orderly end of all pods, and the way back.
    pub stop: Stop,
    /// Larger volumes.
    pub storage: Storage,
    /// The call to make at the primary, besides moving it.
    pub order: Option<Order>,
    /// Address for `AIS_PRIMARY_EP`.
    pub endpoint: String,
    /// Labels.
    pub marks: Marks,
    /// Secrets and certificates.
    pub credentials: credentials::CredentialsPlan,
    /// The primary: what status remembers, the call to make, the condition.
    pub primary: primary::Decision,
    /// The roll-out of a new template.
    pub rollout: Rollout,
    /// Roles whose StatefulSet does not have the template of this pass's spec yet.
    pub outdated: BTreeSet<Role>,
    /// `spec.config`: what status remembers, the call to make, the condition.
    pub config: config::ConfigPlan,
    /// Tell the gateways to read the founding list again.
    pub poke: Vec<String>,
    /// Events.
    pub notes: Vec<Note>,
    /// When to look again, whatever happens.
    pub requeue: Duration,
}

/// Decides.
#[must_use]
pub fn plan(valid: &Valid, observed: &Observed) -> Plan {
    let agreement = agree(&valid.uuid, &observed.reports);
    let founding = founding::founding(valid, observed, &agreement);
    let stop = stop::stop(observed, &agreement, founding.formed);
    let stopped = stop.asked || agreement.stopping;
    let scale =
        scale::scale(&scale::Situation { valid, observed, agreement: &agreement, formed: founding.formed, stopped });
    let replicas = replicas(&scale, &stop);
    let storage = storage::storage(observed, &replicas);
    let outdated = crate::desired::outdated(valid, observed);
    let scene = rollout::Scene { valid, observed, agreement: &agreement, replicas: &replicas, outdated: &outdated };
    let mut rollout = rollout::decide(&scene);
    // One disruption at a time: who leaves for good goes before who only comes back as a newer one. It may be blocked
    // by one that is broken, however, and that would wait for it in turn.
    let waits = scale.removal.as_ref().is_some_and(|r| r.blocked.is_none() || !rollout.mends);
    if stopped || waits {
        rollout.removals.clear();
        rollout.errand = None;
    }
    // Whoever needs the primary elsewhere says so here; one at a time, the most urgent first.
    let errand = scale.errand.clone().or_else(|| drain::errand(&scene.ground())).or_else(|| rollout.errand.clone());
    let mut primary = primary::decide(&primary::Situation {
        valid,
        observed,
        agreement: &agreement,
        formed: founding.formed,
        gateways: replicas.members(Role::Gateway),
        errand: errand.as_ref(),
        outdated: outdated.contains(&Role::Gateway),
    });
    rollout.conclude(observed.fresh, &mut primary);
    let config = config::config(valid, observed, &agreement);
    let mut notes = primary.notes.clone();
    notes.extend(rollout.notes.iter().cloned());
    notes.extend(config.notes.iter().cloned());
    notes.extend(scale.notes.iter().cloned());
    if valid.uuid_source == UuidSource::Volumes && observed.primary_map.is_none() {
        let message = format!("found state volumes of cluster {} and adopted them", valid.uuid);
        notes.push(Note::normal("ClusterAdopted", "Adopt", message));
    }
    let credentials = credentials::decide(observed);
    notes.extend(credentials.notes.iter().cloned());
    let refound = refound::refound(observed);
    notes.extend(refound.as_ref().and_then(|r| refound::note(observed, r)));
    let mut marks = marks(observed, &agreement, &founding, &scale);
    if let Some(Refound::Wipes(volumes)) = &refound {
        marks.wiped.clone_from(volumes);
    }
    marks.removals.clone_from(&rollout.removals);
    marks.credentials = credentials.behind.iter().map(|pod| (pod.clone(), credentials.digest.clone())).collect();
    let poke = if founding.shortened { founding.initial_voters.clone() } else { Vec::new() };
    let due = [primary.requeue, rollout.requeue, config.again, scale.requeue, stop.requeue];
    let base = requeue(observed, &agreement, &founding, &stop);
    let requeue = due.into_iter().flatten().fold(base, Duration::min);
    Plan {
        endpoint: endpoint(valid, observed, &agreement, &founding),
        poke,
        agreement,
        founding,
        refound,
        replicas,
        order: stop.order.clone().or_else(|| scale.order.clone()),
        storage,
        scale,
        stop,
        marks,
        credentials,
        primary,
        rollout,
        outdated,
        config,
        notes,
        requeue,
    }
}

fn replicas(scale: &Scale, stop: &Stop) -> Replicas {
    let members = scale.members.clone();
    let applied = members.iter().map(|(role, count)| (*role, if stop.no_pods { 0 } else { *count })).collect();
    Replicas { applied, members }
}

/// The primary's address; without a primary what is recorded; before that the seed's.
fn endpoint(valid: &Valid, observed: &Observed, agreement: &Agreement, founding: &Founding) -> String {
    let names = &valid.names;
    if let Some(leader) = &agreement.leader {
        return names.gateway_url(&leader.node_id, valid.scheme());
    }
    match &observed.primary_map {
        Some(map) if founding.formed && !map.endpoint.is_empty() => map.endpoint.clone(),
        _ => names.gateway_url(&founding.seed, valid.scheme()),
    }
}

fn marks(observed: &Observed, agreement: &Agreement, founding: &Founding, scale: &Scale) -> Marks {
    let mut marks = Marks::default();
    if let Some(leader) = &agreement.leader {
        for pod in observed.pods.iter().filter(|p| !p.deleting) {
            let leads = pod.name == leader.node_id;
            if pod.labelled_primary != leads {
                marks.primary.insert(pod.name.clone(), leads);
            }
        }
    }
    if founding.formed {
        marks.formed = observed.volumes.iter().filter(|v| !v.formed).map(|v| v.name.clone()).collect();
    }
    if founding.shortened {
        let digest = crate::desired::digest(&serde_json::json!(founding.initial_voters));
        let stale = observed.pods_of(Role::Gateway).filter(|p| p.discovery.as_deref() != Some(digest.as_str()));
        marks.discovery = stale.map(|p| (p.name.clone(), digest.clone())).collect();
    }
    let digest = crate::desired::digest(&serde_json::json!({"removed": scale.removed}));
    for name in &scale.removed {
        let told = observed.pod(name).filter(|p| !p.deleting).is_some_and(|p| p.discovery.as_deref() != Some(&digest));
        if told {
            marks.discovery.insert(name.clone(), digest.clone());
        }
    }
    marks
}

/// Clusters at rest are looked at three times a minute; the stream of the nodes tells the rest. Each has a pace of its
/// own, a fifth more or less: otherwise all those that an operator found when it began would be looked at in one
/// moment for ever.
pub(crate) fn resync(uid: &str) -> Duration {
    let first = Sha256::digest(uid).first().copied().unwrap_or_default();
    RESYNC.mul_f64(0.8 + 0.4 * f64::from(first) / f64::from(u8::MAX)).min(primary::LOOK_PAUSE_MAX)
}

fn requeue(observed: &Observed, agreement: &Agreement, founding: &Founding, stop: &Stop) -> Duration {
    let calm = observed.pods.iter().all(|p| p.ready) && agreement.leader.is_some();
    match (founding.formed, calm) {
        _ if stop.over => resync(observed.uid()),
        (false, _) => Duration::from_secs(2),
        (true, false) => Duration::from_secs(5),
        (true, true) => resync(observed.uid()),
    }
}
