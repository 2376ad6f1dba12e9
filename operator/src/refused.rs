//! What is true of a cluster whose spec is refused. Pure.
//!
//! Nothing of such a spec is applied, but the nodes go on without it: who leads, whether it serves and who is a member
//! is told as of any other cluster, and the primary's label follows the leader.

use std::time::Duration;

use ais_crds::{AISClusterStatus, Transition};

use crate::conditions;
use crate::events::Note;
use crate::facts::Observed;
use crate::names::Role;
use crate::plan::primary::{self, Situation};
use crate::plan::{Marks, Plan, plan, resync};
use crate::status;
use crate::validate::{Invalid, Valid, standing};

/// What is told, and the one thing that is written.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Status.
    pub status: AISClusterStatus,
    /// Labels of the primary; nothing else is in it.
    pub marks: Marks,
    /// Whether the preferred gateway leads (or none is preferred).
    pub preferred: bool,
    /// The end of all pods is asked for.
    pub stopped: bool,
    /// Changes of the primary that ended in this pass, for the metrics.
    pub finished: Vec<Transition>,
    /// Events.
    pub notes: Vec<Note>,
    /// When to look again, whatever happens.
    pub requeue: Duration,
}

/// Tells what is, and why nothing else is done.
#[must_use]
pub fn refused(observed: &Observed, why: &Invalid) -> Refused {
    let valid = standing(observed);
    let applied = as_applied(observed, &valid);
    let mut plan = plan(&valid, &applied);
    // Nobody is moved, and what a user asks for meanwhile waits for a spec that can be followed.
    plan.primary = primary::follow(&Situation {
        valid: &valid,
        observed: &applied,
        agreement: &plan.agreement,
        formed: plan.founding.formed,
        gateways: plan.replicas.members(Role::Gateway),
        errand: None,
        outdated: false,
    });
    plan.refound = None;
    // Its templates are not to be written: what pods have is as new as it gets.
    plan.outdated.clear();
    let calm = resync(observed.uid());
    let status = told(&valid, observed, &applied, &plan, why);
    let before = observed.cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let mut notes = plan.primary.notes.clone();
    notes.extend(conditions::notes(before, &status.conditions));
    Refused {
        status,
        marks: Marks { primary: plan.marks.primary, ..Marks::default() },
        preferred: plan.primary.preferred,
        stopped: plan.stop.asked,
        finished: plan.primary.finished,
        notes,
        requeue: plan.primary.requeue.map_or(calm, |due| due.min(calm)),
    }
}

/// The facts as if the spec asked for no more and no fewer members than were applied. Volumes of another cluster do not
/// say that this one was founded.
fn as_applied(observed: &Observed, valid: &Valid) -> Observed {
    let mut applied = observed.clone();
    for (role, set) in &observed.sets {
        match role {
            Role::Gateway => applied.cluster.spec.gateways.replicas = set.replicas_asked,
            Role::Target => applied.cluster.spec.targets.replicas = set.replicas_asked,
        }
    }
    for volume in &mut applied.volumes {
        volume.formed &= volume.cluster_id.as_ref() == Some(&valid.uuid);
    }
    applied
}

/// What was decided by earlier specs stays as it was told last.
fn told(valid: &Valid, observed: &Observed, applied: &Observed, plan: &Plan, why: &Invalid) -> AISClusterStatus {
    let previous = observed.cluster.status.clone().unwrap_or_default();
    let mut status = status::status(valid, applied, plan);
    status.cluster_id = Some(valid.uuid.clone()).filter(|uuid| !uuid.is_empty()).or(previous.cluster_id);
    status.rollout = previous.rollout;
    status.operation = previous.operation;
    status.config = previous.config;
    status.conditions = conditions::refused(applied, plan, &status, why, conditions::certificates(observed));
    status.phase = Some("Degraded".to_owned());
    status
}
