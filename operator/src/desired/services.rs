//! Services and the disruption budget.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use ais_crds::ServiceType;

use super::{Wanted, meta, wanted};
use crate::facts::{Kind, Observed};
use crate::names::{LABEL_COMPONENT, LABEL_ROLE, Role};
use crate::validate::Valid;

pub(super) fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}

pub(super) fn service(
    observed: &Observed,
    name: String,
    labels: BTreeMap<String, String>,
    spec: ServiceSpec,
) -> Wanted {
    let service = Service { metadata: meta(observed, name.clone(), labels), spec: Some(spec), ..Service::default() };
    wanted(Kind::Service, name, &service)
}

pub(super) fn all(valid: &Valid, observed: &Observed) -> Vec<Wanted> {
    let names = &valid.names;
    let ports = names.ports;
    let gateways = names.selector(Role::Gateway);
    let mut primary = gateways.clone();
    primary.insert(LABEL_ROLE.into(), "primary".into());
    let open = |type_: ServiceType, selector| ServiceSpec {
        type_: Some(type_.as_str().into()),
        selector: Some(selector),
        ports: Some(vec![port("public", ports.public)]),
        ..ServiceSpec::default()
    };
    let mut services = vec![
        clients(valid, observed, open(observed.cluster.spec.networking.service.type_, gateways)),
        service(observed, names.primary(), names.labels(), open(ServiceType::ClusterIP, primary)),
    ];
    for role in Role::ALL {
        let headless = ServiceSpec {
            cluster_ip: Some("None".into()),
            // Members find each other before they are ready: readiness comes from finding each other.
            publish_not_ready_addresses: Some(true),
            selector: Some(names.selector(role)),
            ports: Some(vec![port("public", ports.public), port("control", ports.control), port("peer", ports.peer)]),
            ..ServiceSpec::default()
        };
        services.push(service(observed, names.set(role), names.role_labels(role), headless));
    }
    services
}

/// The Service that is meant for clients; clouds are told by annotations how to lead to it from outside.
fn clients(valid: &Valid, observed: &Observed, spec: ServiceSpec) -> Wanted {
    let name = valid.names.service();
    let mut metadata = meta(observed, name.clone(), valid.names.labels());
    let annotations = observed.cluster.spec.networking.service.annotations.clone();
    metadata.annotations = Some(annotations).filter(|map| !map.is_empty());
    wanted(Kind::Service, name, &Service { metadata, spec: Some(spec), ..Service::default() })
}

/// The pods that may vote: gateways and targets, without access gateways.
pub(super) fn voters(valid: &Valid) -> LabelSelector {
    LabelSelector {
        match_labels: Some(valid.names.selector_all()),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: LABEL_COMPONENT.into(),
            operator: "In".into(),
            values: Some(Role::ALL.map(|role| role.as_str().to_owned()).to_vec()),
        }]),
    }
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
            selector: Some(voters(valid)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Some(wanted(Kind::PodDisruptionBudget, name, &budget))
}
