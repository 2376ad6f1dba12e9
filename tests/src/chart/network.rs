//! Who may talk to whom, by the operator's policy as the chart renders it and a cluster's as the operator makes it.
//!
//! No network of a test enforces policies, so they are judged here. A policy that closes too much is not seen by
//! anybody without such a network, and one that closes too little by nobody at all.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::Rendered;
use super::policy::{End, Pod, Policies};
use crate::product::OPERATOR_NAMESPACE;
use crate::xtask::root;

/// Namespace of the cluster `demo`.
const NAMESPACE: &str = "team-a";
const PUBLIC: u16 = 51080;
const CONTROL: u16 = 51082;
const PEER: u16 = 51084;
const METRICS: u16 = 8080;
const HEALTH: u16 = 8081;
/// An API server, a kubelet, a client: none is a pod.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A Kubernetes with the operator and the cluster `demo`.
struct World {
    policies: Policies,
    operator: Pod,
    nodes: Vec<Pod>,
    /// Of another cluster in the same namespace.
    other: Pod,
    /// Pods of users: in the cluster's namespace, and elsewhere.
    clients: [Pod; 2],
}

fn snapshot(name: &str) -> Value {
    let path = root().join("operator/tests/snapshots").join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("a snapshot")).expect("JSON")
}

/// The labels that the operator's own tests expect on pods of `demo`.
fn node(template: &Value) -> Pod {
    let ports = template["spec"]["containers"][0]["ports"].clone();
    Pod { namespace: NAMESPACE.into(), labels: template["metadata"]["labels"].clone(), ports }
}

fn user(namespace: &str) -> Pod {
    Pod { namespace: namespace.into(), labels: json!({"app": "client"}), ports: Value::Null }
}

impl World {
    fn new(values: &[&str]) -> Self {
        let rendered = Rendered::with(values);
        let own = rendered.get("NetworkPolicy").clone();
        assert_eq!(own["metadata"]["namespace"], OPERATOR_NAMESPACE);
        let pod = rendered.pod();
        let operator = Pod {
            namespace: OPERATOR_NAMESPACE.into(),
            labels: pod["metadata"]["labels"].clone(),
            ports: pod["spec"]["containers"][0]["ports"].clone(),
        };
        let of_cluster = json!({"metadata": {"namespace": NAMESPACE}, "spec": snapshot("network_policy.json")});
        let nodes: Vec<Pod> = templates().iter().map(node).collect();
        let mut other = node(&templates()[0]);
        other.labels["aiscluster.dev/cluster"] = json!("other");
        let clients = [user(NAMESPACE), user("elsewhere")];
        Self { policies: Policies(vec![own, of_cluster]), operator, nodes, other, clients }
    }

    fn admits(&self, from: &Pod, to: &Pod, port: u16) -> bool {
        self.policies.admit(End::Pod(from), End::Pod(to), port)
    }

    fn reaches(&self, from: &Pod, port: u16) -> bool {
        self.policies.admit(End::Pod(from), End::Address(OUTSIDE), port)
    }

    fn is_reached(&self, to: &Pod, port: u16) -> bool {
        self.policies.admit(End::Address(OUTSIDE), End::Pod(to), port)
    }
}

/// A gateway's and a target's.
fn templates() -> Vec<Value> {
    let all = snapshot("templates.json")["templates"].clone();
    let list: Vec<Value> = match all {
        Value::Array(list) => list,
        Value::Object(map) => map.into_iter().map(|(_, template)| template).collect(),
        other => panic!("templates: {other}"),
    };
    assert_eq!(list.len(), 2);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_talk_to_each_other_and_to_no_other_cluster() {
        let w = World::new(&[]);
        for (from, to) in [(0, 1), (1, 0), (0, 0)] {
            for port in [PUBLIC, CONTROL, PEER] {
                assert!(w.admits(&w.nodes[from], &w.nodes[to], port), "{from} to {to} at {port}");
            }
        }
        for port in [CONTROL, PEER] {
            assert!(!w.admits(&w.other, &w.nodes[0], port), "another cluster at {port}");
        }
    }

    #[test]
    fn clients_reach_the_public_port_only() {
        let w = World::new(&[]);
        for to in &w.nodes {
            for client in &w.clients {
                assert!(w.admits(client, to, PUBLIC), "from {}", client.namespace);
                assert!(!w.admits(client, to, CONTROL) && !w.admits(client, to, PEER), "from {}", client.namespace);
            }
            assert!(w.is_reached(to, PUBLIC), "from outside");
            assert!(!w.is_reached(to, CONTROL) && !w.is_reached(to, PEER), "from outside");
        }
    }

    /// As `who_may_connect` of the operator's own tests has it for `spec.monitoring.podMonitor`. Kubelets need no rule:
    /// what comes from a pod's own machine no policy keeps out.
    #[test]
    fn scrapers_reach_nodes_that_ask_for_them() {
        let mut w = World::new(&[]);
        let control = &mut w.policies.0[1]["spec"]["ingress"][1];
        assert_eq!(control["ports"][0]["port"], CONTROL);
        control["from"].as_array_mut().unwrap().push(json!({"namespaceSelector": {}}));
        let scraper = &w.clients[1];
        assert!(w.admits(scraper, &w.nodes[0], CONTROL) && !w.admits(scraper, &w.nodes[0], PEER));
        assert!(!w.is_reached(&w.nodes[0], CONTROL), "inside Kubernetes only");
    }

    #[test]
    fn the_operator_reaches_the_control_port_of_every_node() {
        let w = World::new(&[]);
        for to in w.nodes.iter().chain([&w.other]) {
            assert!(w.admits(&w.operator, to, CONTROL));
        }
        assert!(!w.admits(&w.operator, &w.nodes[0], PEER), "it has no business there");
        // A pod that calls itself the operator, but elsewhere.
        let liar = Pod { namespace: "elsewhere".into(), labels: w.operator.labels.clone(), ports: Value::Null };
        assert!(!w.admits(&liar, &w.nodes[0], CONTROL));
        for client in &w.clients {
            assert!(!w.admits(&w.operator, client, PUBLIC), "it talks to nodes only");
        }
    }

    #[test]
    fn the_operator_reaches_the_api_server_and_names() {
        let w = World::new(&[]);
        assert!(w.reaches(&w.operator, 443) && w.reaches(&w.operator, 6443));
        assert!(!w.reaches(&w.operator, 80) && !w.reaches(&w.operator, CONTROL));
        let dns = user("kube-system");
        for protocol in ["UDP", "TCP"] {
            assert!(w.policies.admit_by(End::Pod(&w.operator), End::Pod(&dns), 53, protocol));
        }
        let narrow =
            World::new(&["networkPolicy.apiServerPorts=[7443]", "networkPolicy.apiServerCIDRs=[\"192.0.2.0/24\"]"]);
        assert!(narrow.reaches(&narrow.operator, 7443) && !narrow.reaches(&narrow.operator, 443));
        let far = World::new(&["networkPolicy.apiServerCIDRs=[\"198.51.100.1/32\"]"]);
        assert!(!far.reaches(&far.operator, 443));
    }

    /// Nodes with `hostNetwork` are addresses, which no selector of the operator's policy names; `docs/aiscluster.md`
    /// says which value opens the way.
    #[test]
    fn nodes_on_the_hosts_network_need_a_rule_of_their_own() {
        let w = World::new(&[]);
        assert!(!w.reaches(&w.operator, CONTROL));
        let manual = fs::read_to_string(root().join("docs/aiscluster.md")).expect("the manual");
        let value = "networkPolicy.extraEgress: [{ports: [{port: 51082, protocol: TCP}]}]";
        assert!(manual.contains(value));
        let w = World::new(&["networkPolicy.extraEgress=[{\"ports\":[{\"port\":51082,\"protocol\":\"TCP\"}]}]"]);
        assert!(w.reaches(&w.operator, CONTROL));
    }

    #[test]
    fn the_operator_is_asked_for_health_and_metrics_only() {
        let w = World::new(&[]);
        assert!(w.is_reached(&w.operator, HEALTH), "kubelets");
        assert!(w.admits(&w.clients[1], &w.operator, HEALTH), "helm test");
        assert!(w.admits(&w.clients[1], &w.operator, METRICS), "Prometheus, wherever it runs");
        assert!(!w.admits(&w.clients[1], &w.operator, 9999) && !w.is_reached(&w.operator, 443));
        let named = "[{\"namespaceSelector\":{\"matchLabels\":{\"kubernetes.io/metadata.name\":\"elsewhere\"}}}]";
        let w = World::new(&[&format!("networkPolicy.metricsFrom={named}")]);
        assert!(w.admits(&w.clients[1], &w.operator, METRICS));
        assert!(!w.admits(&w.clients[0], &w.operator, METRICS));
        assert!(w.is_reached(&w.operator, HEALTH) && !w.is_reached(&w.operator, METRICS));
    }

    #[test]
    fn an_operator_of_namespaces_reaches_those_only() {
        let values = |namespace: &str| format!("watchNamespaces=[\"{namespace}\"]");
        let scope = "rbac={\"scope\":\"namespaces\"}";
        let w = World::new(&[scope, &values(NAMESPACE)]);
        assert!(w.admits(&w.operator, &w.nodes[0], CONTROL));
        let w = World::new(&[scope, &values("elsewhere")]);
        assert!(!w.admits(&w.operator, &w.nodes[0], CONTROL));
    }
}
