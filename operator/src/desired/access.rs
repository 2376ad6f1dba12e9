//! Access gateways: a Deployment or a DaemonSet, and their Service.
//!
//! Ephemeral: a pod is a new node under its own name, joins through the listed members, leaves the cluster map when it
//! is told to stop, and is taken out of it when it dies. Kubernetes rolls them by itself, since nobody depends on one.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Wanted, meta, pod, services, wanted};
use crate::facts::{Kind, Observed};
use crate::plan::Plan;
use crate::validate::Valid;

/// Nothing before the cluster is formed: who cannot found has nothing to wait for. No pods while it is stopped.
pub(super) fn all(valid: &Valid, observed: &Observed, plan: &Plan) -> Vec<Wanted> {
    let Some(asked) = &observed.cluster.spec.access_gateways else { return Vec::new() };
    if !plan.founding.formed {
        return Vec::new();
    }
    let name = valid.names.access();
    let selector = LabelSelector { match_labels: Some(valid.names.access_selector()), ..LabelSelector::default() };
    let metadata = || meta(observed, name.clone(), valid.names.access_labels());
    let template = pod::access(valid, observed, asked);
    let mut objects = vec![service(valid, observed, asked.daemon_set)];
    if plan.stop.no_pods {
        return objects;
    }
    if asked.daemon_set {
        let set = DaemonSet {
            metadata: metadata(),
            spec: DaemonSetSpec { selector, template, revision_history_limit: Some(5), ..DaemonSetSpec::default() },
            ..DaemonSet::default()
        };
        objects.push(wanted(Kind::DaemonSet, name.clone(), &set));
        return objects;
    }
    let deployment = Deployment {
        metadata: metadata(),
        spec: DeploymentSpec {
            replicas: asked.replicas,
            selector: selector.clone(),
            template,
            revision_history_limit: Some(5),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    };
    objects.push(wanted(Kind::Deployment, name.clone(), &deployment));
    // The budget of the voters must not count them, nor they the voters. Pods of a DaemonSet are never evicted.
    if observed.cluster.spec.pod_disruption_budget.enabled {
        let budget = PodDisruptionBudget {
            metadata: metadata(),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(selector),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        };
        objects.push(wanted(Kind::PodDisruptionBudget, name, &budget));
    }
    objects
}

/// Apart from Service `<name>`, whose gateways do not come and go with the compute nodes.
fn service(valid: &Valid, observed: &Observed, local: bool) -> Wanted {
    let spec = ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(valid.names.access_selector()),
        internal_traffic_policy: local.then(|| "Local".into()),
        ports: Some(vec![services::port("public", valid.names.ports.public)]),
        ..ServiceSpec::default()
    };
    services::service(observed, valid.names.access(), valid.names.access_labels(), spec)
}
