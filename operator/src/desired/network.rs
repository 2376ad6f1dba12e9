//! Who may connect, and who scrapes.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{Wanted, meta, wanted};
use crate::facts::{Kind, Observed};
use crate::names::Names;
use crate::tls::CA_KEY;
use crate::validate::Valid;

/// Label that every namespace has, with its name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";
/// Label of the operator's pods, as the chart sets it.
const OPERATOR: (&str, &str) = ("app.kubernetes.io/name", "aiscluster-operator");

fn matching(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    }
}

fn rule(from: Vec<NetworkPolicyPeer>, ports: &[u16]) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from).filter(|list| !list.is_empty()),
        ports: Some(ports.iter().copied().map(port).collect()),
    }
}

/// One policy over all pods of the cluster. Probes come from the node, which no policy keeps out.
pub(super) fn policy(valid: &Valid, observed: &Observed) -> Option<Wanted> {
    let spec = &observed.cluster.spec;
    if !spec.networking.network_policy.enabled {
        return None;
    }
    let Names { ports, .. } = &valid.names;
    let all = matching(valid.names.selector_all());
    let members = NetworkPolicyPeer { pod_selector: Some(all.clone()), ..NetworkPolicyPeer::default() };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(matching(BTreeMap::from([(NAMESPACE.into(), observed.defaults.namespace.clone())]))),
        pod_selector: Some(matching(BTreeMap::from([(OPERATOR.0.into(), OPERATOR.1.into())]))),
        ..NetworkPolicyPeer::default()
    };
    let mut control = vec![members.clone(), operator];
    if spec.monitoring.pod_monitor {
        // Where Prometheus runs is not known here. All that is open on this port are health and metrics: every
        // other call has to be signed.
        let anybody =
            NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
        control.push(anybody);
    }
    let policy = NetworkPolicy {
        metadata: meta(observed, valid.names.service(), valid.names.labels()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(all),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                rule(Vec::new(), &[ports.public]),
                rule(control, &[ports.control]),
                rule(vec![members], &[ports.peer]),
            ]),
            ..NetworkPolicySpec::default()
        }),
    };
    Some(wanted(Kind::NetworkPolicy, valid.names.service(), &policy))
}

/// A PodMonitor, if it is asked for and its API is there.
pub(super) fn monitor(valid: &Valid, observed: &Observed) -> Option<Wanted> {
    let asked = &observed.cluster.spec.monitoring;
    if !asked.pod_monitor || !observed.pod_monitors {
        return None;
    }
    let name = valid.names.service();
    let mut labels = asked.labels.clone();
    labels.extend(valid.names.labels());
    let metadata = serde_json::to_value(meta(observed, name.clone(), labels)).unwrap_or(Value::Null);
    let mut endpoint = json!({
        "port": "control",
        "path": "/metrics",
        // The chart's rules and dashboard group by it.
        "relabelings": [{
            "sourceLabels": ["__meta_kubernetes_pod_label_aiscluster_dev_cluster"],
            "targetLabel": "cluster",
        }],
    });
    if valid.tls_secret.is_some() {
        endpoint["scheme"] = json!("https");
        // Pods are scraped by address; the one certificate of all nodes names the Service.
        endpoint["tlsConfig"] = json!({
            "ca": {"configMap": {"name": valid.names.authority(), "key": CA_KEY}},
            "serverName": valid.names.service_host(&valid.names.service()),
        });
    }
    let monitor = json!({
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": valid.names.selector_all()},
            "podMetricsEndpoints": [endpoint],
            // Who leads is a metric: as a label it would begin new series at each move.
            "podTargetLabels": ["app.kubernetes.io/component"],
        },
    });
    Some(wanted(Kind::PodMonitor, name, &monitor))
}
