//! What the operator counts (`/metrics`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    cluster: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    cluster: String,
    condition: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct TransitionLabels {
    namespace: String,
    cluster: String,
    reason: String,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: String,
}

/// Ends of moves that the alert rules ask for. They begin at 0 with their cluster: of a series that begins with its first
/// event PromQL's `increase` does not see that event.
const FROM_ZERO: [(&str, &str); 5] = [
    ("Failover", "Succeeded"),
    ("Failback", "Failed"),
    ("Rollout", "Failed"),
    ("ScaleDown", "Failed"),
    ("Drain", "Failed"),
];

/// What is told of clusters: a family cannot be asked.
#[derive(Debug, Default)]
struct Told {
    conditions: BTreeSet<ConditionLabels>,
    transitions: BTreeSet<TransitionLabels>,
}

#[derive(Debug)]
struct Inner {
    transitions: Family<TransitionLabels, Counter>,
    transition_seconds: Histogram,
    preferred: Family<ClusterLabels, Gauge>,
    conditions: Family<ConditionLabels, Gauge>,
    told: Mutex<Told>,
    smap_version: Family<ClusterLabels, Gauge>,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_errors: Family<StepLabel, Counter>,
    reconcile_seconds: Histogram,
    writes: Family<KindLabel, Counter>,
    unreadable: Family<ClusterLabels, Gauge>,
    stopped: Family<ClusterLabels, Gauge>,
    formed: Family<ClusterLabels, Gauge>,
    is_leader: Gauge,
}

/// Handles to all metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let inner = Inner {
            transitions: Family::default(),
            transition_seconds: Histogram::new(seconds),
            preferred: Family::default(),
            conditions: Family::default(),
            told: Mutex::default(),
            smap_version: Family::default(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_seconds: Histogram::new(seconds),
            writes: Family::default(),
            unreadable: Family::default(),
            stopped: Family::default(),
            formed: Family::default(),
            is_leader: Gauge::default(),
        };
        let help = "Changes of a primary, and requests that ended without one";
        registry.register("aisop_primary_transitions", help, inner.transitions.clone());
        let help = "Time from the start of a planned move to its proof";
        registry.register("aisop_primary_transition_seconds", help, inner.transition_seconds.clone());
        registry.register("aisop_primary_preferred", "The preferred gateway leads", inner.preferred.clone());
        let help = "Conditions of a cluster: 1 for True, 0 for False, -1 for Unknown";
        registry.register("aisop_condition", help, inner.conditions.clone());
        let help = "Version of the cluster map; absent while nobody leads, as in a stopped cluster";
        registry.register("aisop_smap_version", help, inner.smap_version.clone());
        let help = "Passes over a cluster; again: somebody else changed it meanwhile, which is no error";
        registry.register("aisop_reconcile", help, inner.reconciles.clone());
        let help = "Passes that failed, by the step that did";
        registry.register("aisop_reconcile_errors", help, inner.reconcile_errors.clone());
        registry.register("aisop_reconcile_seconds", "Duration of a pass", inner.reconcile_seconds.clone());
        registry.register(
            "aisop_api_writes",
            "Writes to the API server, leases and events apart",
            inner.writes.clone(),
        );
        let help = "A stored object that this operator cannot decode";
        registry.register("aisop_unreadable", help, inner.unreadable.clone());
        let help = "A cluster is to be stopped or deleted: that nobody is served is what was asked for";
        registry.register("aisop_stopped", help, inner.stopped.clone());
        registry.register("aisop_formed", "The cluster was founded, once and for ever", inner.formed.clone());
        registry.register("aisop_is_leader", "This instance holds the lease", inner.is_leader.clone());
        Self(Arc::new(inner))
    }

    /// One write.
    pub fn write(&self, kind: &str) {
        self.0.writes.get_or_create(&KindLabel { kind: kind.to_owned() }).inc();
    }

    /// One pass: `ok`, `again` or `error`.
    pub fn reconciled(&self, result: &str, seconds: f64) {
        self.0.reconciles.get_or_create(&ResultLabel { result: result.to_owned() }).inc();
        self.0.reconcile_seconds.observe(seconds);
    }

    /// A pass failed at this step.
    pub fn failed(&self, step: &str) {
        self.0.reconcile_errors.get_or_create(&StepLabel { step: step.to_owned() }).inc();
    }

    /// One change of a primary; `seconds` for a planned one.
    pub fn transition(&self, namespace: &str, cluster: &str, reason: &str, result: &str, seconds: Option<f64>) {
        self.ends(namespace, cluster, reason, result).inc();
        if let Some(seconds) = seconds {
            self.0.transition_seconds.observe(seconds);
        }
    }

    fn ends(&self, namespace: &str, cluster: &str, reason: &str, result: &str) -> Counter {
        let labels = TransitionLabels {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            reason: reason.to_owned(),
            result: result.to_owned(),
        };
        let counter = self.0.transitions.get_or_create_owned(&labels);
        self.told().transitions.insert(labels);
        counter
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// State of a cluster.
    pub fn cluster(&self, namespace: &str, cluster: &str, preferred: bool, smap_version: Option<i64>) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.preferred.get_or_create(&labels).set(i64::from(preferred));
        self.smap(namespace, cluster, smap_version);
        for (reason, result) in FROM_ZERO {
            self.ends(namespace, cluster, reason, result);
        }
    }

    /// Version of the cluster map, while there is one: an old one would look like a map that is.
    pub fn smap(&self, namespace: &str, cluster: &str, version: Option<i64>) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        match version {
            Some(version) => drop(self.0.smap_version.get_or_create(&labels).set(version)),
            None => drop(self.0.smap_version.remove(&labels)),
        }
    }

    /// The cluster was founded, or not yet.
    pub fn formed(&self, namespace: &str, cluster: &str, formed: bool) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.formed.get_or_create(&labels).set(i64::from(formed));
    }

    /// Conditions of a cluster.
    pub fn conditions(&self, namespace: &str, cluster: &str, conditions: &[Condition]) {
        let mut told = self.told();
        for condition in conditions {
            let value = match condition.status.as_str() {
                "True" => 1,
                "False" => 0,
                // Not known is not False: nobody is woken for it.
                _ => -1,
            };
            let labels = ConditionLabels {
                namespace: namespace.to_owned(),
                cluster: cluster.to_owned(),
                condition: condition.type_.clone(),
            };
            self.0.conditions.get_or_create(&labels).set(value);
            told.conditions.insert(labels);
        }
    }

    /// An object that cannot be decoded, or no longer.
    pub fn unreadable(&self, namespace: &str, cluster: &str, is: bool) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        if is {
            self.0.unreadable.get_or_create(&labels).set(1);
        } else {
            self.0.unreadable.remove(&labels);
        }
    }

    /// The cluster is to be stopped or deleted, or not.
    pub fn stopped(&self, namespace: &str, cluster: &str, asked: bool) {
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.stopped.get_or_create(&labels).set(i64::from(asked));
    }

    /// A cluster is gone.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let mut told = self.told();
        told.conditions.retain(|labels| {
            let gone = labels.namespace == namespace && labels.cluster == cluster;
            if gone {
                self.0.conditions.remove(labels);
            }
            !gone
        });
        told.transitions.retain(|labels| {
            let gone = labels.namespace == namespace && labels.cluster == cluster;
            if gone {
                self.0.transitions.remove(labels);
            }
            !gone
        });
        drop(told);
        let labels = ClusterLabels { namespace: namespace.to_owned(), cluster: cluster.to_owned() };
        self.0.preferred.remove(&labels);
        self.0.stopped.remove(&labels);
        self.0.formed.remove(&labels);
        self.0.smap_version.remove(&labels);
    }

    /// The lease is held or not.
    pub fn leader(&self, holds: bool) {
        self.0.is_leader.set(i64::from(holds));
    }
}
