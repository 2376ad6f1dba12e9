//! Ports, Services, policies, and what watches.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ports, the Service for clients, and who may connect.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.hostNetwork == oldSelf.hostNetwork").message("networking.hostNetwork cannot be changed: nodes are known by their addresses")
)]
pub struct NetworkingSpec {
    /// Ports that the nodes listen on. Fixed at creation.
    #[serde(default)]
    pub ports: Ports,
    /// The Service `<name>`, by which clients find the gateways.
    #[serde(default)]
    pub service: ServiceSpec,
    /// Pods use the network of their node, where policies and the `restricted` pod security standard do not hold; no
    /// two of them fit on one node. Fixed at creation.
    #[serde(default)]
    pub host_network: bool,
    /// Who may connect to the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
}

/// Ports that the nodes listen on.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[x_kube(
    validation = Rule::new("self.public != self.control && self.public != self.peer && self.control != self.peer").message("networking.ports: each needs its own number"),
    validation = Rule::new("self == oldSelf").message("networking.ports cannot be changed: nodes are known by their addresses")
)]
pub struct Ports {
    /// Clients' requests.
    #[serde(default = "ports::public")]
    #[schemars(with = "i32", range(min = 1024, max = 65_535))]
    pub public: u16,
    /// Calls of members and of the operator, probes and metrics.
    #[serde(default = "ports::control")]
    #[schemars(with = "i32", range(min = 1024, max = 65_535))]
    pub control: u16,
    /// Connections between members.
    #[serde(default = "ports::peer")]
    #[schemars(with = "i32", range(min = 1024, max = 65_535))]
    pub peer: u16,
}

mod ports {
    pub(super) fn public() -> u16 {
        51080
    }
    pub(super) fn control() -> u16 {
        51082
    }
    pub(super) fn peer() -> u16 {
        51084
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { public: ports::public(), control: ports::control(), peer: ports::peer() }
    }
}

/// The Service for clients.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.annotations) || self.annotations.all(k, !k.startsWith('aiscluster.dev/'))").message("networking.service.annotations: keys of aiscluster.dev belong to the operator")
)]
pub struct ServiceSpec {
    /// How it is reached.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Annotations, as load balancers of clouds want them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// How a Service is reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// From inside Kubernetes.
    #[default]
    ClusterIP,
    /// By a port of every node, too.
    NodePort,
    /// By a load balancer, too.
    LoadBalancer,
}

impl ServiceType {
    /// The word Kubernetes uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Who may connect to the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(default)]
pub struct NetworkPolicySpec {
    /// A NetworkPolicy over all pods of the cluster: anybody to the clients' port; members to each other; the operator
    /// (and, with `monitoring.podMonitor`, scrapers) to the control port. It holds where the network enforces policies.
    pub enabled: bool,
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Objects for those who watch the nodes.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(k, !k.startsWith('aiscluster.dev/') && !k.startsWith('app.kubernetes.io/'))").message("monitoring.labels: keys of aiscluster.dev and app.kubernetes.io belong to the operator")
)]
pub struct MonitoringSpec {
    /// A PodMonitor of the Prometheus operator for the nodes' metrics. Nothing is made where that API is not installed.
    #[serde(default)]
    pub pod_monitor: bool,
    /// Labels of the PodMonitor, by which a Prometheus selects it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
}
