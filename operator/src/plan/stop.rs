//! The orderly end of all pods (`spec.state: Stopped`, and a deletion), and the way back. Pure.
//!
//! # Flow
//! The primary commits that the cluster is being stopped, so that nobody takes over, leaves or is evicted while pods
//! end; a majority of the voters, read back, has that; then the StatefulSets get no replicas. Volumes, numbers of
//! replicas, members and votes stay, so Running continues where it ended.
//! # Caveats
//! Without a primary for a while there is nobody to commit anything, and the pods are ended all the same: every
//! node's records are on its disk at any time.

use std::time::Duration;

use ais_crds::{ClusterState, OperationStatus};
use jiff::SignedDuration;

use super::operation;
use super::order::Order;
use crate::facts::{Observed, PodFact};
use crate::view::{Agreement, Leader, majority};

/// How long the end of the pods waits for a primary that could announce it.
const UNLED_S: i64 = 30;
/// How often it is looked at, besides every event.
const STEP: Duration = Duration::from_secs(1);

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stop {
    /// The cluster is to be stopped.
    pub asked: bool,
    /// The StatefulSets get no replicas.
    pub no_pods: bool,
    /// No pod is left.
    pub over: bool,
    /// The call to make.
    pub order: Option<Order>,
    /// What is waited for.
    pub waits_for: String,
    /// What status remembers.
    pub operation: Option<OperationStatus>,
    /// Pods are coming back.
    pub starting: bool,
    /// Look again no later.
    pub requeue: Option<Duration>,
}

/// Decides.
#[must_use]
pub fn stop(observed: &Observed, agreement: &Agreement, formed: bool) -> Stop {
    if observed.cluster.spec.state == ClusterState::Stopped {
        return towards_the_end(observed, agreement, formed);
    }
    if let Some(old) = of_before(observed) {
        // Running came before the pods had ended: side by side the old and the new ones could not talk, and one after
        // the other they would lose the majority half-way.
        let stop = towards_the_end(observed, agreement, formed);
        let waits_for = format!("{} to end, which was made before spec.tls changed", old.name);
        return Stop { waits_for, ..stop };
    }
    let mut stop = Stop::default();
    if agreement.stopping && agreement.leader.is_some() {
        // Running again before everybody had ended: silence is a loss again.
        stop.order = Some(Order::Stopping(false));
        stop.requeue = Some(STEP);
    }
    let was = operation::last(observed).is_some_and(|o| o.kind == "Stop" || o.kind == "Start");
    if was && !(agreement.leader.is_some() && observed.pods.iter().all(|p| p.ready) && !observed.pods.is_empty()) {
        let (operation, _) = operation::remember(observed, "Start", "", "the pods to come back");
        stop.starting = true;
        stop.operation = Some(operation);
    }
    stop
}

/// A pod that others of now could not talk to: it has another certificate, or none. What pods are made with changes only
/// while the cluster is stopped.
fn of_before(observed: &Observed) -> Option<&PodFact> {
    let wanted = observed.names().tls_secret(&observed.cluster.spec.tls);
    observed.pods.iter().find(|pod| pod.tls_secret != wanted)
}

fn towards_the_end(observed: &Observed, agreement: &Agreement, formed: bool) -> Stop {
    let (operation, _) = operation::remember(observed, "Stop", "", "");
    let waited = operation::age(observed, &operation);
    let end = end(observed, agreement, formed, waited);
    let over = observed.pods.is_empty();
    let waits_for = if over { String::new() } else { end.waits_for };
    Stop {
        asked: true,
        no_pods: end.no_pods,
        over,
        order: end.order,
        operation: Some(OperationStatus { waits_for: waits_for.clone(), ..operation }),
        waits_for,
        starting: false,
        requeue: (!over).then_some(STEP),
    }
}

/// The next step towards the end of all pods, which is wanted since `waited`.
pub(super) struct End {
    pub(super) no_pods: bool,
    pub(super) order: Option<Order>,
    pub(super) waits_for: String,
}

pub(super) fn end(observed: &Observed, agreement: &Agreement, formed: bool, waited: SignedDuration) -> End {
    let go = |waits_for: &str| End { no_pods: true, order: None, waits_for: waits_for.to_owned() };
    if observed.pods.is_empty() || !formed || observed.sets.values().any(|s| s.replicas == 0) {
        return go("the pods to end");
    }
    let Some(leader) = &agreement.leader else {
        if waited >= SignedDuration::from_secs(UNLED_S) {
            return go("the pods to end, without a primary that could announce it");
        }
        let waits_for = format!("a primary that announces it, for at most {UNLED_S} s");
        return End { no_pods: false, order: None, waits_for };
    };
    if is_announced(observed, leader) {
        return go("the pods to end");
    }
    let waits_for = "a majority of the voters to know that the cluster is being stopped".to_owned();
    End { no_pods: false, order: Some(Order::Stopping(true)), waits_for }
}

fn is_announced(observed: &Observed, leader: &Leader) -> bool {
    let knows = |node: &str| observed.reports.get(node).and_then(|r| r.view()).is_some_and(|v| v.cluster_stopping);
    let count = leader.electorate.iter().filter(|v| knows(&v.node_id)).count();
    knows(&leader.node_id) && count >= majority(leader.electorate.len())
}
