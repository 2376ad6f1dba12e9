//! One disruption at a time, across both roles and every feature: a quorum knows no roles. Pure.
//!
//! Whoever takes a pod away on purpose (a roll-out, a scale-down, a restart) asks here first.
//! # Guarantees
//! While one pod is away, or back but not caught up, no second one is taken: a majority of the voters stays, also if
//! one more is lost by accident where the electorate has five.
//! # Caveats
//! The answer is about the facts of this pass; the deletion itself carries the pod's uid, so that it cannot meet
//! another pod of that name.

use super::Replicas;
use super::gates::{BEHIND_MAX, Closed, closed};
use crate::facts::{Observed, PodFact};
use crate::names::Role;
use crate::view::{Agreement, Leader, majority};

/// What there is to judge by.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Everything read.
    pub observed: &'a Observed,
    /// What the nodes agree on.
    pub agreement: &'a Agreement,
    /// Pods there should be.
    pub replicas: &'a Replicas,
}

/// What stands in the way, and at which pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) pod: Option<String>,
    pub(super) closed: Closed,
}

impl Obstacle {
    pub(super) fn of(pod: &str, reason: &'static str, why: &str) -> Self {
        Self { pod: Some(pod.to_owned()), closed: closed(reason, format!("{pod} {why}")) }
    }
}

impl From<Closed> for Obstacle {
    fn from(closed: Closed) -> Self {
        Self { pod: None, closed }
    }
}

/// May this pod be taken away now?
///
/// # Errors
/// The first thing that speaks against it.
pub fn may_disrupt(ground: &Ground<'_>, pod: &str) -> Result<(), Closed> {
    obstacle(ground, pod, &[]).map_or(Ok(()), |o| Err(o.closed))
}

/// The same with the pod at fault; the pods `beside` may be away too: pods without a vote whose absence somebody
/// decided to bear.
pub(super) fn obstacle(ground: &Ground<'_>, pod: &str, beside: &[String]) -> Option<Obstacle> {
    let moving = || {
        let attempt = ground.observed.cluster.status.as_ref()?.primary.attempt.as_ref()?;
        Some(closed("SwitchingPrimary", format!("the primary is being moved to {}", attempt.to)).into())
    };
    unrest(ground, pod, beside).or_else(moving)
}

/// The same, whether or not the primary is being moved.
pub(super) fn unrest(ground: &Ground<'_>, pod: &str, beside: &[String]) -> Option<Obstacle> {
    judge(ground, pod, beside).err()
}

fn judge(ground: &Ground<'_>, pod: &str, beside: &[String]) -> Result<(), Obstacle> {
    let leader = steady(ground)?;
    for name in ground.wanted() {
        if name != pod && !beside.contains(&name) {
            whole(ground, leader, &name)?;
        }
    }
    if let Some(going) = ground.observed.pods.iter().find(|p| p.deleting && p.name != pod && !beside.contains(&p.name))
    {
        return Err(Obstacle::of(&going.name, "NodesNotReady", "is being deleted"));
    }
    voters(ground, leader, pod)?;
    electorate(ground, leader)?;
    Ok(())
}

impl Ground<'_> {
    /// Names of the pods there should be.
    pub fn wanted(&self) -> impl Iterator<Item = String> {
        let names = self.observed.names();
        let replicas = self.replicas.clone();
        Role::ALL.into_iter().flat_map(move |role| {
            let names = names.clone();
            (0..replicas.of(role)).map(move |n| names.pod(role, n))
        })
    }

    /// Of an older daemon that does not say it: what its pod was made with, if that is still so.
    fn voters_assumed(&self, leader: &Leader) -> usize {
        let pod = self.observed.pod(&leader.node_id);
        let set = pod.and_then(|p| p.role).and_then(|role| self.observed.sets.get(&role));
        let is_current = pod.zip(set).is_some_and(|(pod, set)| pod.revision == set.revision);
        if is_current { usize::try_from(self.observed.cluster.spec.ha.voters).unwrap_or(usize::MAX) } else { 1 }
    }

    /// A voter that the primary reaches, and that acknowledged (nearly) what the primary committed.
    #[must_use]
    pub fn caught_up(&self, leader: &Leader, node_id: &str) -> bool {
        if node_id == leader.node_id {
            return true;
        }
        // The primary's own words about both, so that they are of one moment.
        let own = self.observed.reports.get(&leader.node_id).and_then(|r| r.view()).and_then(|v| v.stamp);
        let newest = own.unwrap_or(leader.stamp);
        leader.member(node_id).is_some_and(|m| {
            let near = |seq: u64| seq.saturating_add(BEHIND_MAX) >= newest.seq;
            m.connected && m.acked.is_some_and(|a| a.reign() == leader.reign && near(a.seq))
        })
    }
}

/// A primary that a majority follows.
fn steady<'a>(ground: &Ground<'a>) -> Result<&'a Leader, Closed> {
    if let Some(split) = &ground.agreement.split {
        return Err(closed("SplitBrainSuspected", split.clone()));
    }
    if ground.agreement.stopping {
        return Err(closed("ClusterBusy", "the cluster is being stopped"));
    }
    let Some(leader) = &ground.agreement.leader else {
        return Err(closed("ClusterBusy", "no primary is acknowledged by a majority now"));
    };
    if leader.members.is_empty() {
        return Err(closed("MembersUnreachable", format!("the primary {} does not answer", leader.node_id)));
    }
    Ok(leader)
}

/// The daemon keeps electorates odd, three at least where there are members enough; two of two stay two.
///
/// How many it aims at is what the primary's process was started with: a new `spec.ha.voters` counts only once the
/// primary's own pod has it, and that is the last to be replaced.
fn electorate(ground: &Ground<'_>, leader: &Leader) -> Result<(), Closed> {
    let most = ground.observed.reports.get(&leader.node_id).and_then(|r| r.view()).and_then(|v| v.voters_max);
    let most = most.unwrap_or_else(|| ground.voters_assumed(leader));
    let eligible =
        leader.members.iter().filter(|m| m.in_smap && !m.non_electable && !m.maintenance && !m.decommission).count();
    let target = odd(eligible.min(most)).max(1);
    let size = leader.electorate.len();
    if size < target || (size > 2 && size.is_multiple_of(2)) {
        return Err(closed("ElectorateChanging", format!("{size} members vote on the way to {target}")));
    }
    Ok(())
}

/// There, ready, a member that the primary reaches, and heard by us.
pub(super) fn whole(ground: &Ground<'_>, leader: &Leader, name: &str) -> Result<(), Obstacle> {
    let not_ready = |why: &str| Err(Obstacle::of(name, "NodesNotReady", why));
    let Some(pod) = ground.observed.pod(name) else { return not_ready("has no pod") };
    if pod.deleting {
        return not_ready("is being deleted");
    }
    if !pod.ready {
        return not_ready(&unready(pod));
    }
    let Some(member) = leader.member(name).filter(|m| m.in_smap) else {
        return not_ready("is not in the cluster map");
    };
    if name != leader.node_id && !member.connected {
        return not_ready("is not connected with the primary");
    }
    if ground.observed.reports.get(name).and_then(|r| r.view()).is_none() {
        return not_ready("does not answer");
    }
    if ground.agreement.strangers.iter().any(|(pod, _)| pod == name) {
        return not_ready("says that it is of another cluster");
    }
    Ok(())
}

/// Every other voter is here, with the disk that votes: a node that came back with another one leaves its old seat
/// behind until that is replaced.
fn voters(ground: &Ground<'_>, leader: &Leader, pod: &str) -> Result<(), Obstacle> {
    for voter in leader.electorate.iter().filter(|v| v.node_id != pod) {
        let name = &voter.node_id;
        if !ground.caught_up(leader, name) {
            return Err(Obstacle::of(name, "VoterDown", "votes, and has not caught up"));
        }
        if leader.member(name).is_some_and(|m| !m.disk_id.is_empty() && m.disk_id != voter.disk_id) {
            return Err(Obstacle::of(name, "VoterDown", "lost the disk it voted with, and has no vote yet"));
        }
    }
    Ok(())
}

/// True if the rest of the voters is a majority without this pod; not asked of one or two, who cannot lose any.
#[must_use]
pub fn majority_without(ground: &Ground<'_>, leader: &Leader, pod: &str) -> bool {
    let here = leader.electorate.iter().filter(|v| v.node_id != pod && ground.caught_up(leader, &v.node_id)).count();
    here >= majority(leader.electorate.len())
}

/// What holds a pod up, in Kubernetes' words where there are any.
pub(super) fn unready(pod: &PodFact) -> String {
    match &pod.trouble {
        Some(trouble) => format!("does not come up: {trouble}"),
        None if !pod.running => "is starting".to_owned(),
        None => "is not ready".to_owned(),
    }
}

fn odd(n: usize) -> usize {
    if n.is_multiple_of(2) { n.saturating_sub(1) } else { n }
}
