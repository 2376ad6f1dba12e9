//! Which pod is next.

use std::cmp::Reverse;

use jiff::SignedDuration;

use super::Scene;
use crate::facts::PodFact;
use crate::names::Role;
use crate::plan::disruption::{majority_without, whole};

/// Without a primary nobody can say who is needed: a pod that is not ready is given this long.
const PATIENCE_S: i64 = 30;

/// A pod that is of no use as it is: one whose process does not run can be replaced at once; one that runs and is not
/// ready, if the voters do without it.
///
/// One at a time, and not before the processes of those that were replaced run: a template may be worse than what it
/// is to mend. Whether they are ready is not asked, as a majority may be needed for that.
pub(super) fn broken<'a>(s: &Scene<'_>, old: &[&'a PodFact]) -> Option<&'a PodFact> {
    let pods = &s.observed.pods;
    let complete = s.ground().wanted().all(|name| s.observed.pod(&name).is_some());
    let proven = pods.iter().all(|p| !p.deleting && (p.running || !s.is_wanted(p) || !s.is_current(p)));
    if !complete || !proven {
        return None;
    }
    let mut by_rank: Vec<&PodFact> = old.to_vec();
    by_rank.sort_by_key(|p| rank(s, p));
    let dead = by_rank.iter().find(|p| !p.running);
    let all_run = dead.is_none();
    dead.or_else(|| by_rank.iter().find(|p| all_run && !p.ready && is_dispensable(s, p))).copied()
}

fn is_dispensable(s: &Scene<'_>, pod: &PodFact) -> bool {
    match s.leader() {
        Some(leader) => {
            let votes = leader.electorate.iter().any(|v| v.node_id == pod.name);
            leader.node_id != pod.name && (!votes || majority_without(&s.ground(), leader, &pod.name))
        }
        None => pod
            .unready_since
            .is_some_and(|since| s.observed.now.duration_since(since) >= SignedDuration::from_secs(PATIENCE_S)),
    }
}

/// Without a vote before voters, targets before gateways, the primary last; then from the top ordinal down.
fn rank(s: &Scene<'_>, pod: &PodFact) -> (bool, bool, bool, Reverse<i32>) {
    let leader = s.leader();
    let leads = leader.is_some_and(|l| l.node_id == pod.name);
    (leads, votes(s, &pod.name), pod.role == Some(Role::Gateway), Reverse(pod.ordinal))
}

fn votes(s: &Scene<'_>, name: &str) -> bool {
    s.leader().is_some_and(|l| l.electorate.iter().any(|v| v.node_id == name))
}

/// The next in order.
pub(super) fn first<'a>(s: &Scene<'_>, old: &[&'a PodFact]) -> Option<&'a PodFact> {
    old.iter().copied().min_by_key(|p| rank(s, p))
}

/// What goes together with the first: further targets without a vote, as many as the user bears. Each with the pods
/// beside which it may be away.
pub(super) fn together<'a>(s: &Scene<'_>, old: &[&'a PodFact], first: &'a PodFact) -> Vec<(&'a PodFact, Vec<String>)> {
    let idle = |p: &PodFact| p.role == Some(Role::Target) && !votes(s, &p.name);
    let most = usize::try_from(s.observed.cluster.spec.update.targets.max_unavailable).unwrap_or(1);
    let Some(leader) = s.leader().filter(|_| idle(first) && most > 1) else {
        return vec![(first, Vec::new())];
    };
    let ground = s.ground();
    let names = (0..s.replicas.of(Role::Target)).map(|n| s.valid.names.pod(Role::Target, n));
    let mut away: Vec<String> = names.filter(|n| !votes(s, n)).filter(|n| whole(&ground, leader, n).is_err()).collect();
    let mut candidates: Vec<&PodFact> = old.iter().copied().filter(|p| idle(p) && !away.contains(&p.name)).collect();
    candidates.sort_by_key(|p| rank(s, p));
    let mut taken = Vec::new();
    for pod in candidates {
        if away.len() >= most {
            break;
        }
        taken.push((pod, away.clone()));
        away.push(pod.name.clone());
    }
    // None is free: whoever is away is waited for.
    if taken.is_empty() { vec![(first, Vec::new())] } else { taken }
}

/// Updated gateways that may take over from this one: the preferred in their order, then the lowest ordinals.
pub(super) fn heirs(s: &Scene<'_>, from: &PodFact) -> Vec<String> {
    let preferred = &s.observed.cluster.spec.primary.preferred;
    let mut updated: Vec<&PodFact> = s
        .observed
        .pods_of(Role::Gateway)
        .filter(|p| s.is_wanted(p) && s.is_current(p) && !p.deleting && p.name != from.name)
        .collect();
    updated.sort_by_key(|p| (preferred.iter().position(|n| *n == p.name).unwrap_or(usize::MAX), p.ordinal));
    updated.into_iter().map(|p| p.name.clone()).collect()
}

/// Preferred, and before `other` in the list, or `other` is not in it.
pub(super) fn is_better(s: &Scene<'_>, name: &str, other: &str) -> bool {
    let place = |pod: &str| s.observed.cluster.spec.primary.preferred.iter().position(|n| n == pod);
    match (place(name), place(other)) {
        (Some(name), Some(other)) => name < other,
        (name, _) => name.is_some(),
    }
}
