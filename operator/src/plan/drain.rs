//! The primary leaves a node that is about to lose its pods, before it is told to stop. Pure.
//!
//! A node that takes no pods any more is being drained, or soon will be. Followers need no help: the disruption budget
//! lets one go at a time. The primary hands over by itself when it is told to stop; done beforehand, nobody waits.

use crate::names::Role;

use super::disruption::Ground;
use super::primary::Errand;

/// Reason of such a move.
pub const REASON: &str = "Drain";

/// The hand-over that is due: only to a gateway that could lead now, on a node that stays.
#[must_use]
pub fn errand(ground: &Ground<'_>) -> Option<Errand> {
    let observed = ground.observed;
    let leader = ground.agreement.leader.as_ref()?;
    let leaves = |pod: &crate::facts::PodFact| pod.node.as_ref().is_some_and(|n| observed.cordoned.contains(n));
    observed.pod(&leader.node_id).filter(|p| leaves(p))?;
    let wanted: Vec<String> = ground.wanted().collect();
    let can_lead = |name: &str| {
        leader.member(name).is_some_and(|m| !m.non_electable && !m.maintenance) && ground.caught_up(leader, name)
    };
    let preferred = &observed.cluster.spec.primary.preferred;
    let mut heirs: Vec<_> = observed
        .pods_of(Role::Gateway)
        .filter(|p| p.name != leader.node_id && p.ready && !p.deleting && !leaves(p))
        .filter(|p| wanted.contains(&p.name) && can_lead(&p.name))
        .collect();
    heirs.sort_by_key(|p| (preferred.iter().position(|n| *n == p.name).unwrap_or(usize::MAX), p.ordinal));
    let prefer: Vec<String> = heirs.into_iter().map(|p| p.name.clone()).collect();
    (!prefer.is_empty()).then(|| Errand { reason: REASON, away_from: leader.node_id.clone(), prefer })
}
