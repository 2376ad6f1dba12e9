//! How many members, and how one of them leaves. Pure.
//!
//! # Flow
//! Raising a number is applied. Lowering takes the highest ordinal, one node at a time: the primary is moved away if it
//! leads; the discovery file names it as being removed, so that a restart of its pod does not bring it back as a new
//! node; it is decommissioned at the primary; a majority of the voters, read back, has neither a place nor a vote for
//! it; only then the StatefulSet gets one replica less, and its state volume goes when the pod has gone. With the
//! policy Retain a target goes into maintenance instead and keeps place and volumes.
//! # Guarantees
//! Nothing begins unless every other voter follows the primary, so a majority stays at every instant. Each step is
//! found anew from what is there: whoever continues after a crash does the same. A removal that has begun is finished,
//! also if the number is raised meanwhile, and the node then comes as a new one.
//! # Caveats
//! A voter that is down and cannot be replaced holds everything up; condition `ScaleDownBlocked` says so, and after
//! `scaleDown.timeoutSeconds` condition `Degraded`.

use std::collections::BTreeMap;
use std::time::Duration;

use ais_crds::{OperationStatus, ScaleDownPolicy};
use jiff::SignedDuration;

use super::gates::Closed;
use super::operation;
use super::order::Order;
use super::primary::Errand;
use crate::events::Note;
use crate::facts::{ClaimFact, ClaimKind, Observed};
use crate::names::{LABEL_REMOVED, LABEL_RETAINED, Names, Role};
use crate::perform::TransferOutcome;
use crate::validate::Valid;
use crate::view::{Agreement, Leader, Stamp, majority};

/// How often a removal is looked at, besides every event.
const STEP: Duration = Duration::from_secs(1);

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The validated cluster.
    pub valid: &'a Valid,
    /// Everything read.
    pub observed: &'a Observed,
    /// What the nodes agree on.
    pub agreement: &'a Agreement,
    /// The cluster was founded.
    pub formed: bool,
    /// All pods are being ended, or have been.
    pub stopped: bool,
}

/// A node that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its pod.
    pub pod: String,
    /// What is waited for.
    pub waits_for: String,
    /// Why nothing goes on, with a reason for the condition; `None` while it does.
    pub blocked: Option<&'static str>,
    /// It takes longer than `scaleDown.timeoutSeconds`.
    pub stuck: bool,
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Scale {
    /// Pods of each role, whether the cluster is stopped or not.
    pub members: BTreeMap<Role, i32>,
    /// The node that leaves.
    pub removal: Option<Removal>,
    /// Nodes that must not join again, for the mounted file.
    pub removed: Vec<String>,
    /// The call to make.
    pub order: Option<Order>,
    /// The primary must go elsewhere first.
    pub errand: Option<Errand>,
    /// Labels of volume claims to set (`true`) or remove.
    pub labels: BTreeMap<String, (&'static str, bool)>,
    /// State volumes of nodes that were removed: name and uid.
    pub dropped: Vec<(String, String)>,
    /// Events.
    pub notes: Vec<Note>,
    /// What status remembers.
    pub operation: Option<OperationStatus>,
    /// Look again no later.
    pub requeue: Option<Duration>,
}

/// How far the node that leaves is.
enum Step {
    /// Something is under way.
    Waits(String),
    /// Something speaks against going on.
    Blocked(Closed),
    /// The primary is asked for this.
    Asks(Order),
    /// The primary must leave it first.
    Leads,
    /// Its claim gets this label first.
    Labels(String, &'static str),
    /// It is out: one replica less.
    Out,
}

/// Decides.
#[must_use]
pub fn scale(s: &Situation<'_>) -> Scale {
    let reached: BTreeMap<Role, i32> = Role::ALL.into_iter().map(|role| (role, s.reached(role))).collect();
    let mut scale = Scale::default();
    for role in Role::ALL {
        scale.members.insert(role, s.raised(role, reached[&role]));
    }
    scale.removed = s.leftovers(&reached);
    if s.stopped {
        return scale;
    }
    if let Some((role, pod)) = s.subject(&reached) {
        // A removal is finished before the number may rise again.
        scale.members.insert(role, reached[&role]);
        s.advance(&mut scale, role, &pod);
    } else if s.formed {
        s.welcome(&mut scale);
    }
    s.drop_claims(&mut scale);
    scale
}

impl Situation<'_> {
    fn names(&self) -> &Names {
        &self.valid.names
    }

    fn wanted(&self, role: Role) -> i32 {
        match role {
            Role::Gateway => self.observed.cluster.spec.gateways.replicas,
            Role::Target => self.observed.cluster.spec.targets.replicas,
        }
    }

    /// Pods that the operator asked for last: not the set's own number, which somebody else may have changed.
    fn reached(&self, role: Role) -> i32 {
        if let Some(set) = self.observed.sets.get(&role) {
            return set.replicas_asked;
        }
        if !self.formed {
            return 0;
        }
        // The set is made anew, for larger volumes or after an accident. Who is a member is written elsewhere, too.
        let listed = self.observed.discovery.iter().flat_map(|d| &d.peers).filter(|p| p.kind == role.as_str()).count();
        let pods = self.observed.pods_of(role).map(|p| p.ordinal + 1).max().unwrap_or(0);
        pods.max(i32::try_from(listed).unwrap_or(i32::MAX))
    }

    /// A number may rise, unless something of the last life of those names is still there.
    fn raised(&self, role: Role, reached: i32) -> i32 {
        let wanted = self.wanted(role);
        let left = self.observed.claims.iter().any(|c| c.removed && c.role == role && c.ordinal >= reached)
            || self
                .listed()
                .iter()
                .any(|name| self.is_beyond(name, role, reached) && self.observed.pod(name).is_some());
        if left { reached } else { wanted.max(reached) }
    }

    fn listed(&self) -> &[String] {
        self.observed.discovery.as_ref().map(|d| d.removed.as_slice()).unwrap_or_default()
    }

    fn is_beyond(&self, name: &str, role: Role, reached: i32) -> bool {
        matches!(self.names().parse_pod(name), Some((of, n)) if of == role && n >= reached)
    }

    /// Removed nodes whose pods are still ending.
    fn leftovers(&self, reached: &BTreeMap<Role, i32>) -> Vec<String> {
        let ends = |name: &&String| {
            Role::ALL.into_iter().any(|role| self.is_beyond(name, role, reached[&role]))
                && self.observed.pod(name).is_some()
        };
        self.listed().iter().filter(ends).cloned().collect()
    }

    /// Who leaves now: first the one that has begun to.
    fn subject(&self, reached: &BTreeMap<Role, i32>) -> Option<(Role, String)> {
        let mut leaving: Vec<(bool, Role, String)> = Role::ALL
            .into_iter()
            .filter(|role| reached[role] > 1)
            .filter_map(|role| {
                let pod = self.names().pod(role, reached[&role] - 1);
                let begun = self.listed().contains(&pod) && self.has_begun(&pod);
                (begun || self.wanted(role) < reached[&role]).then_some((!begun, role, pod))
            })
            .collect();
        leaving.sort();
        leaving.into_iter().next().map(|(_, role, pod)| (role, pod))
    }

    /// Its decommission cannot be taken back, or nobody knows.
    fn has_begun(&self, pod: &str) -> bool {
        let Some(leader) = self.agreement.leader.as_ref().filter(|l| !l.members.is_empty()) else { return true };
        leader.member(pod).is_none_or(|m| !m.in_smap || m.decommission)
    }

    fn retains(&self, role: Role) -> bool {
        role == Role::Target && self.observed.cluster.spec.scale_down.policy == ScaleDownPolicy::Retain
    }

    fn advance(&self, scale: &mut Scale, role: Role, pod: &str) {
        let step = match self.retains(role) {
            _ if self.observed.cluster.spec.paused => {
                Step::Blocked(Closed { reason: "Paused", message: "spec.paused is set".to_owned() })
            }
            true => self.retire(pod),
            false => self.remove(pod),
        };
        if !self.retains(role) && self.formed {
            scale.removed.push(pod.to_owned());
        }
        let mut removal = Removal { pod: pod.to_owned(), waits_for: String::new(), blocked: None, stuck: false };
        match step {
            Step::Waits(why) => removal.waits_for = why,
            Step::Blocked(closed) => (removal.waits_for, removal.blocked) = (closed.message, Some(closed.reason)),
            Step::Leads => {
                removal.waits_for = format!("{pod} leads: the primary is moved first");
                scale.errand = Some(self.errand(pod));
            }
            Step::Labels(claim, label) => {
                removal.waits_for = format!("the label of volume claim {claim}");
                scale.labels.insert(claim, (label, true));
            }
            Step::Asks(order) => {
                removal.waits_for = format!("the {order}");
                if let Some((asked, TransferOutcome::Refused(why))) = &self.observed.order
                    && *asked == order
                {
                    removal.waits_for = format!("the primary refuses the {order}: {why}");
                    removal.blocked = Some("Refused");
                }
                scale.order = Some(order);
            }
            Step::Out => {
                scale.notes.push(self.note(role, pod, true));
                if let Some(count) = scale.members.get_mut(&role) {
                    *count -= 1;
                }
                scale.requeue = Some(STEP);
                return;
            }
        }
        let (operation, new) = operation::remember(self.observed, "ScaleDown", pod, &removal.waits_for);
        if new {
            scale.notes.push(self.note(role, pod, false));
        }
        let limit = SignedDuration::from_secs(self.observed.cluster.spec.scale_down.timeout_seconds);
        removal.stuck = operation::age(self.observed, &operation) > limit && removal.blocked != Some("Paused");
        scale.operation = Some(operation);
        scale.removal = Some(removal);
        scale.requeue = Some(STEP);
    }

    fn note(&self, role: Role, pod: &str, over: bool) -> Note {
        match (role, self.retains(role), over) {
            (_, true, false) => {
                Note::normal("TargetRetireStarted", "ScaleDown", format!("{pod} goes into maintenance"))
            }
            (_, true, true) => {
                let message = format!("{pod} is in maintenance; its place and its volumes are kept");
                Note::normal("TargetRetired", "ScaleDown", message)
            }
            (Role::Target, _, false) => {
                Note::normal("TargetDecommissionStarted", "ScaleDown", format!("{pod} is taken out of the cluster map"))
            }
            (Role::Target, _, true) => Note::normal(
                "TargetDecommissionCompleted",
                "ScaleDown",
                format!("{pod} is out of the cluster map and the electorate"),
            ),
            (Role::Gateway, _, false) => {
                Note::normal("GatewayRemovalStarted", "ScaleDown", format!("{pod} is taken out of the electorate"))
            }
            (Role::Gateway, _, true) => Note::normal(
                "GatewayRemovalCompleted",
                "ScaleDown",
                format!("{pod} is out of the cluster map and the electorate"),
            ),
        }
    }

    /// Not to one that goes next.
    fn errand(&self, pod: &str) -> Errand {
        let preferred = &self.observed.cluster.spec.primary.preferred;
        let stays = |name: &String| matches!(self.names().parse_pod(name), Some((Role::Gateway, n)) if n < self.wanted(Role::Gateway));
        let others = (0..self.wanted(Role::Gateway)).map(|n| self.names().pod(Role::Gateway, n));
        let mut prefer: Vec<String> = preferred.iter().filter(|p| stays(p)).cloned().collect();
        for name in others {
            if name != pod && !prefer.contains(&name) {
                prefer.push(name);
            }
        }
        Errand { reason: "ScaleDown", away_from: pod.to_owned(), prefer }
    }

    /// A gateway, or a target with the policy Drain.
    fn remove(&self, pod: &str) -> Step {
        let leader = match self.leader() {
            Ok(leader) => leader,
            Err(closed) => return Step::Blocked(closed),
        };
        if leader.node_id == pod {
            return Step::Leads;
        }
        if let Some(member) = leader.member(pod).filter(|m| m.in_smap) {
            if member.decommission {
                return Step::Waits(format!("{pod} is being decommissioned"));
            }
            if !self.listed().iter().any(|name| name == pod) {
                return Step::Waits("the discovery file".to_owned());
            }
            return self
                .others(leader, pod)
                .map_or_else(Step::Blocked, |()| Step::Asks(Order::Decommission(pod.to_owned())));
        }
        if leader.electorate.iter().any(|v| v.node_id == pod) {
            return Step::Waits(format!(
                "{pod} still has a vote: somebody takes its place, or it is given up as silent"
            ));
        }
        if !self.is_out_for_a_majority(leader, pod) {
            return Step::Waits(format!("a majority of the voters to confirm that {pod} is out"));
        }
        match self.state_claim(pod).filter(|c| !c.removed && !c.deleting && self.drops_claims()) {
            Some(claim) => Step::Labels(claim.name.clone(), LABEL_REMOVED),
            None => Step::Out,
        }
    }

    /// A target with the policy Retain.
    fn retire(&self, pod: &str) -> Step {
        let leader = match self.leader() {
            Ok(leader) => leader,
            Err(closed) => return Step::Blocked(closed),
        };
        if let Err(closed) = self.others(leader, pod) {
            return Step::Blocked(closed);
        }
        let Some(member) = leader.member(pod).filter(|m| m.in_smap) else { return Step::Out };
        if member.decommission {
            return Step::Waits(format!("{pod} is being decommissioned"));
        }
        if let Some(claim) = self.state_claim(pod).filter(|c| !c.retained && !c.deleting) {
            return Step::Labels(claim.name.clone(), LABEL_RETAINED);
        }
        if !member.maintenance {
            return Step::Asks(Order::StartMaintenance(pod.to_owned()));
        }
        if leader.electorate.iter().any(|v| v.node_id == pod) {
            return Step::Waits(format!("{pod} still has a vote: somebody takes its place first"));
        }
        Step::Out
    }

    fn drops_claims(&self) -> bool {
        self.observed.cluster.spec.scale_down.policy == ScaleDownPolicy::Drain
    }

    fn state_claim(&self, pod: &str) -> Option<&ClaimFact> {
        let (role, ordinal) = self.names().parse_pod(pod)?;
        let fits = |c: &&ClaimFact| c.kind == ClaimKind::State && c.role == role && c.ordinal == ordinal;
        self.observed.claims.iter().find(fits)
    }

    /// A primary that answers, and nothing else under way.
    fn leader(&self) -> Result<&Leader, Closed> {
        let closed = |reason, message: &str| Err(Closed { reason, message: message.to_owned() });
        if !self.formed {
            return closed("Founding", "the cluster is being founded: members are removed afterwards");
        }
        if let Some(split) = &self.agreement.split {
            return closed("SplitBrainSuspected", split);
        }
        if self.agreement.stopping {
            return closed("ClusterBusy", "the cluster is being stopped");
        }
        let Some(leader) = &self.agreement.leader else {
            return closed("NoPrimary", "no primary is acknowledged by a majority now");
        };
        if leader.members.is_empty() {
            return closed("NoPrimary", "the primary does not answer");
        }
        Ok(leader)
    }

    /// Every other voter follows, no other pod is on its way out, and the primary is not on the move.
    fn others(&self, leader: &Leader, pod: &str) -> Result<(), Closed> {
        let status = self.observed.cluster.status.as_ref();
        if let Some(attempt) = status.and_then(|st| st.primary.attempt.as_ref()) {
            let message = format!("the primary is being moved to {}", attempt.to);
            return Err(Closed { reason: "SwitchingPrimary", message });
        }
        for voter in leader.electorate.iter().filter(|v| v.node_id != pod && v.node_id != leader.node_id) {
            let member = leader.member(&voter.node_id).filter(|m| m.disk_id == voter.disk_id);
            let follows = |m: &crate::view::Member| m.connected && m.acked.map(Stamp::reign) == Some(leader.reign);
            if !member.is_some_and(follows) {
                let message = format!("voter {} does not follow the primary now", voter.node_id);
                return Err(Closed { reason: "VoterDown", message });
            }
        }
        let voters = |name: &str| leader.electorate.iter().any(|v| v.node_id == name);
        if let Some(going) = self.observed.pods.iter().find(|p| p.deleting && p.name != pod && voters(&p.name)) {
            let message = format!("voter {} is being deleted", going.name);
            return Err(Closed { reason: "VoterDown", message });
        }
        Ok(())
    }

    /// A majority of the voters published the cluster map without it, and an electorate without it.
    fn is_out_for_a_majority(&self, leader: &Leader, pod: &str) -> bool {
        let says = |node: &str| {
            self.observed.reports.get(node).and_then(|r| r.view()).is_some_and(|v| {
                v.stamp.map(Stamp::reign) == Some(leader.reign)
                    && v.smap_version >= leader.smap_version
                    && v.electorate.iter().all(|voter| voter.node_id != pod)
            })
        };
        let confirmed = leader.electorate.iter().filter(|v| says(&v.node_id)).count();
        confirmed >= majority(leader.electorate.len())
    }

    /// Targets that were retained and are wanted again come out of maintenance.
    fn welcome(&self, scale: &mut Scale) {
        let Ok(leader) = self.leader() else { return };
        for claim in self.observed.claims.iter().filter(|c| c.retained && c.kind == ClaimKind::State) {
            if claim.ordinal >= scale.members[&claim.role] {
                continue;
            }
            let pod = self.names().pod(claim.role, claim.ordinal);
            let Some(member) = leader.member(&pod).filter(|m| m.in_smap && m.connected) else { continue };
            if !member.maintenance {
                scale.labels.insert(claim.name.clone(), (LABEL_RETAINED, false));
            } else if scale.order.is_none() {
                scale.order = Some(Order::StopMaintenance(pod));
                scale.requeue = Some(STEP);
            }
        }
    }

    /// State volumes of removed nodes, once their pods are gone and nobody has a place or a vote for them.
    fn drop_claims(&self, scale: &mut Scale) {
        let Ok(leader) = self.leader() else { return };
        for claim in self.observed.claims.iter().filter(|c| c.removed && !c.deleting && c.kind == ClaimKind::State) {
            let pod = self.names().pod(claim.role, claim.ordinal);
            let known =
                leader.member(&pod).is_some_and(|m| m.in_smap) || leader.electorate.iter().any(|v| v.node_id == pod);
            if claim.ordinal >= scale.members[&claim.role] && self.observed.pod(&pod).is_none() && !known {
                scale.dropped.push((claim.name.clone(), claim.uid.clone()));
            }
        }
    }
}
