//! Services and the disruption budget.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Wanted, meta, wanted};
use crate::facts::{Kind, Observed};
use crate::names::{LABEL_ROLE, PORT_CONTROL, PORT_PEER, PORT_PUBLIC, Role};
use crate::validate::Valid;

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}

fn service(observed: &Observed, name: String, labels: BTreeMap<String, String>, spec: ServiceSpec) -> Wanted {
    let service = Service { metadata: meta(observed, name.clone(), labels), spec: Some(spec), ..Service::default() };
    wanted(Kind::Service, name, &service)
}

pub(super) fn all(valid: &Valid, observed: &Observed) -> Vec<Wanted> {
    let names = &valid.names;
    let gateways = names.selector(Role::Gateway);
    let mut primary = gateways.clone();
    primary.insert(LABEL_ROLE.into(), "primary".into());
    let open = |selector| ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(selector),
        ports: Some(vec![port("public", PORT_PUBLIC)]),
        ..ServiceSpec::default()
    };
    let mut services = vec![
        service(observed, names.service(), names.labels(), open(gateways)),
        service(observed, names.primary(), names.labels(), open(primary)),
    ];
    for role in Role::ALL {
        let headless = ServiceSpec {
            cluster_ip: Some("None".into()),
            // Members find each other before they are ready: readiness comes from finding each other.
            publish_not_ready_addresses: Some(true),
            selector: Some(names.selector(role)),
            ports: Some(vec![port("public", PORT_PUBLIC), port("control", PORT_CONTROL), port("peer", PORT_PEER)]),
            ..ServiceSpec::default()
        };
        services.push(service(observed, names.set(role), names.role_labels(role), headless));
    }
    services
}

/// One budget over both roles, since a quorum knows no roles. Two on one pod make evictions fail.
pub(super) fn budget(valid: &Valid, observed: &Observed) -> Option<Wanted> {
    if !observed.cluster.spec.pod_disruption_budget.enabled {
        return None;
    }
    let name = valid.names.service();
    let budget = PodDisruptionBudget {
        metadata: meta(observed, name.clone(), valid.names.labels()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(valid.names.selector_all()),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Some(wanted(Kind::PodDisruptionBudget, name, &budget))
}
