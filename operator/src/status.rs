//! What is true, in the words of the resource's status. Pure.
//!
//! Nothing here moves by itself: two passes over the same facts give the same status, so a cluster at
//! rest is not written.

use ais_crds::{AISClusterStatus, AccessStatus, NodeStatus, RoleStatus, SmapStatus, VoterStatus};

use crate::conditions;
use crate::desired;
use crate::facts::{Kind, Observed};
use crate::names::Role;
use crate::plan::Plan;
use crate::plan::deletion::Deletion;
use crate::plan::primary::nobody_leads;
use crate::plan::rollout::State;
use crate::validate::Valid;

const NODES_MAX: usize = 512;

/// Status of a cluster that can be built.
#[must_use]
pub fn status(valid: &Valid, observed: &Observed, plan: &Plan) -> AISClusterStatus {
    let previous = observed.cluster.status.clone().unwrap_or_default();
    let mut status = AISClusterStatus {
        observed_generation: observed.cluster.metadata.generation,
        cluster_id: Some(valid.uuid.clone()),
        formed: plan.founding.formed,
        founding_attempt: valid.founding_attempt,
        version: version(observed, plan).or(previous.version.clone()),
        endpoint: Some(valid.names.endpoint(valid.scheme())),
        primary: plan.primary.memory.clone(),
        rollout: plan.rollout.memory.clone(),
        operation: plan.stop.operation.clone().or_else(|| plan.scale.operation.clone()),
        smap: smap(valid, observed, plan),
        electorate: electorate(plan),
        gateways: role(valid, observed, plan, Role::Gateway),
        targets: role(valid, observed, plan, Role::Target),
        access_gateways: access(valid, observed, plan),
        config: plan.config.memory.clone(),
        nodes: nodes(valid, observed, plan),
        ..AISClusterStatus::default()
    };
    if plan.agreement.leader.is_none() && plan.agreement.answered == 0 && plan.founding.formed && observed.runs() {
        // Nobody of those that run answers us: what was seen last is the best there is, and `Available` says Unknown.
        status.smap.version = previous.smap.version;
        status.electorate.clone_from(&previous.electorate);
    }
    status.conditions = conditions::all(valid, observed, plan, &status);
    status.phase = Some(phase(observed, plan, &status).to_owned());
    status
}

/// The API server refused an object: the rest of status is true all the same.
pub fn not_applied(observed: &Observed, status: &mut AISClusterStatus, why: &str) {
    conditions::not_applied(observed, &mut status.conditions, why);
    if !observed.cluster.spec.paused && status.formed {
        status.phase = Some("Degraded".to_owned());
    }
}

/// Status of a cluster that goes.
#[must_use]
pub fn deleting(observed: &Observed, deletion: &Deletion) -> AISClusterStatus {
    let mut status = observed.cluster.status.clone().unwrap_or_default();
    status.observed_generation = observed.cluster.metadata.generation;
    status.conditions = conditions::deleting(observed, deletion);
    status.phase = Some("Deleting".to_owned());
    for (role, told) in [(Role::Gateway, &mut status.gateways), (Role::Target, &mut status.targets)] {
        (told.replicas, told.ready) = (count(observed.pods_of(role).count()), ready(observed, role));
        told.updated = told.updated.min(told.replicas);
        if let Some((_, wanted)) = told.summary.split_once('/') {
            told.summary = format!("{}/{wanted}", told.ready);
        }
    }
    status.nodes.retain(|node| observed.pod(&node.pod).is_some());
    if !observed.runs() {
        // It may take long until the volumes are gone, and nobody leads meanwhile.
        nobody_leads(&mut status.primary);
        status.electorate.clear();
        let members = status.smap.members;
        status.smap = SmapStatus { members, summary: format!("0/{members}"), ..SmapStatus::default() };
    }
    status
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn ready(observed: &Observed, role: Role) -> i64 {
    count(observed.pods_of(role).filter(|p| p.ready && !p.deleting).count())
}

fn version(observed: &Observed, plan: &Plan) -> Option<String> {
    let leader = plan.agreement.leader.as_ref()?;
    let view = observed.reports.get(&leader.node_id)?.view()?;
    Some(view.version.clone()).filter(|v| !v.is_empty())
}

/// Nodes the cluster should have.
pub(crate) fn wanted_nodes(plan: &Plan) -> i64 {
    Role::ALL.into_iter().map(|r| i64::from(plan.replicas.members(r))).sum()
}

fn smap(valid: &Valid, observed: &Observed, plan: &Plan) -> SmapStatus {
    let version = plan.agreement.leader.as_ref().map(|l| l.smap_version);
    let agreeing = observed
        .reports
        .values()
        .filter_map(|r| r.view())
        .filter(|v| v.cluster_uuid.as_deref() == Some(&valid.uuid) && Some(v.smap_version) == version)
        .count();
    let (agreeing, members) = (i64::try_from(agreeing).unwrap_or(i64::MAX), wanted_nodes(plan));
    SmapStatus { version, agreeing, members, summary: format!("{agreeing}/{members}") }
}

fn electorate(plan: &Plan) -> Vec<VoterStatus> {
    let Some(leader) = &plan.agreement.leader else { return Vec::new() };
    let mut voters: Vec<VoterStatus> = leader
        .electorate
        .iter()
        .map(|voter| {
            let member = leader.member(&voter.node_id).filter(|m| m.disk_id == voter.disk_id);
            let itself = voter.node_id == leader.node_id;
            let acked = member.and_then(|m| m.acked).map(|s| s.epoch).or(itself.then_some(leader.reign.1));
            VoterStatus {
                pod: voter.node_id.clone(),
                disk_id: voter.disk_id.clone(),
                kind: voter.kind.clone(),
                connected: itself || member.is_some_and(|m| m.connected),
                epoch: acked.and_then(|e| i64::try_from(e).ok()),
            }
        })
        .collect();
    voters.sort_by(|a, b| a.pod.cmp(&b.pod));
    voters
}

fn role(valid: &Valid, observed: &Observed, plan: &Plan, role: Role) -> RoleStatus {
    let wanted = plan.replicas.members(role);
    // Of a template that its set does not have yet there is no pod.
    let set = observed.sets.get(&role).filter(|_| !plan.outdated.contains(&role));
    let revision = set.map(|s| s.revision.as_str()).unwrap_or_default();
    let ready = ready(observed, role);
    RoleStatus {
        replicas: count(observed.pods_of(role).count()),
        ready,
        updated: count(observed.pods_of(role).filter(|p| !revision.is_empty() && p.revision == revision).count()),
        maintenance: count(in_maintenance(plan, role)),
        selector: valid.names.selector_text(role),
        summary: format!("{ready}/{wanted}"),
    }
}

fn in_maintenance(plan: &Plan, role: Role) -> usize {
    let members = plan.agreement.leader.as_ref().map(|l| l.members.as_slice()).unwrap_or_default();
    members.iter().filter(|m| m.maintenance && m.kind == role.as_str()).count()
}

/// By what the controllers of Kubernetes count: there may be as many as there are machines.
fn access(valid: &Valid, observed: &Observed, plan: &Plan) -> Option<AccessStatus> {
    let asked = observed.cluster.spec.access_gateways.as_ref()?;
    let name = valid.names.access();
    let count = |kind: Kind, field: &str| observed.live.get(&(kind, name.clone()))?["status"][field].as_i64();
    let of = |deployment: &str, set: &str| {
        count(Kind::Deployment, deployment).or_else(|| count(Kind::DaemonSet, set)).unwrap_or(0)
    };
    let replicas = asked.replicas.map_or_else(|| of("replicas", "desiredNumberScheduled"), i64::from);
    let ready = of("readyReplicas", "numberReady");
    // Counts of a status that is behind the spec are about another template.
    let seen = !desired::access_unseen(valid, observed, plan);
    let members = plan.agreement.leader.as_ref().map(|l| l.members.as_slice()).unwrap_or_default();
    let ours = |id: &str| id.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
    let joined = members.iter().filter(|m| m.non_electable && ours(&m.node_id)).count();
    Some(AccessStatus {
        replicas,
        ready,
        updated: if seen { of("updatedReplicas", "updatedNumberScheduled") } else { 0 },
        joined: i64::try_from(joined).unwrap_or(i64::MAX),
        summary: format!("{ready}/{replicas}"),
    })
}

fn nodes(valid: &Valid, observed: &Observed, plan: &Plan) -> Vec<NodeStatus> {
    let leader = plan.agreement.leader.as_ref();
    let wanted = Role::ALL.into_iter().flat_map(|r| (0..plan.replicas.members(r)).map(move |n| (r, n)));
    wanted
        .take(NODES_MAX)
        .map(|(role, n)| {
            let name = valid.names.pod(role, n);
            let pod = observed.pod(&name);
            let view = observed.reports.get(&name).and_then(|r| r.view());
            let member = leader.and_then(|l| l.member(&name));
            let mut flags = Vec::new();
            if member.is_some_and(|m| m.non_electable) {
                flags.push("NonElectable".to_owned());
            }
            if member.is_some_and(|m| m.maintenance) {
                flags.push("Maintenance".to_owned());
            }
            if member.is_some_and(|m| m.decommission) {
                flags.push("Decommission".to_owned());
            }
            NodeStatus {
                kind: role.as_str().to_owned(),
                role: view.map_or("unreachable", |v| v.role.as_str()).to_owned(),
                ready: pod.is_some_and(|p| p.ready),
                in_smap: member.is_some_and(|m| m.in_smap),
                flags,
                revision: pod.map(|p| p.revision.clone()).unwrap_or_default(),
                reason: node_reason(observed, &name, pod.is_some()),
                pod: name,
            }
        })
        .collect()
}

fn node_reason(observed: &Observed, name: &str, exists: bool) -> String {
    match observed.reports.get(name) {
        _ if !exists => "no pod".to_owned(),
        Some(report) => report.view().map_or_else(|| "does not answer".to_owned(), |v| v.reason.clone()),
        None => "starting".to_owned(),
    }
}

fn phase(observed: &Observed, plan: &Plan, status: &AISClusterStatus) -> &'static str {
    let is = |kind: &str, value: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == value);
    let applies = conditions::applies(&status.conditions);
    if observed.cluster.spec.paused {
        "Paused"
    } else if plan.stop.asked {
        if plan.stop.over { "Stopped" } else { "Stopping" }
    } else if !plan.founding.formed {
        "Creating"
    } else if plan.stop.starting && !is("Degraded", "True") {
        "Starting"
    } else if is("Degraded", "True") || !is("Available", "True") {
        "Degraded"
    } else if plan.primary.memory.target.is_some() {
        "SwitchingPrimary"
    } else if applies || matches!(plan.rollout.state, State::Rolling | State::Supervised) {
        "Updating"
    } else if is("Progressing", "True") {
        "Scaling"
    } else {
        "Running"
    }
}
