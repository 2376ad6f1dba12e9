//! Gateways next to compute.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::template::PodTemplate;

/// Gateways next to compute: non-electable, non-voting, ephemeral. Their names change with their pods; with TLS clients
/// verify the name of their Service, `<name>-access`.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.replicas) != self.daemonSet").message("accessGateways: give either replicas or daemonSet: true"),
    validation = Rule::new("!has(self.nodeSelector) || !has(self.template.nodeSelector)").message("accessGateways: give nodeSelector either here or in the template")
)]
pub struct AccessGatewaysSpec {
    /// How many, as a Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// One on each node that the selector admits, as a DaemonSet. Service `<name>-access` then leads each pod to the
    /// gateway on its own node.
    #[serde(default)]
    pub daemon_set: bool,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Image of the access gateways, if it is not that of `spec.image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Additions to the pods.
    #[serde(default)]
    pub template: PodTemplate,
}
