//! The operator as it is seen from outside: which instance acts, and what reaches the API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{OPERATOR_NAMESPACE, Product, RELEASE};
use crate::testbed::{Cluster, HostProcess};

const WRITES: &[&str] = &["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];
/// What the operator may write; leases apart, which say who acts.
const RESOURCES: &[&str] = &[
    "aisclusters",
    "configmaps",
    "secrets",
    "services",
    "statefulsets",
    "pods",
    "persistentvolumeclaims",
    "poddisruptionbudgets",
    "networkpolicies",
    "deployments",
    "daemonsets",
    "events",
];

impl Product {
    /// The operator's instance that acts: its pod and its process.
    pub fn acting_operator(&self, testbed: &Cluster) -> Result<(String, HostProcess)> {
        let operator = self.admin.in_namespace(OPERATOR_NAMESPACE);
        let lease = operator.get(&format!("lease/{RELEASE}"))?;
        let holder = lease["spec"]["holderIdentity"].as_str().context("nobody holds the operator's lease")?.to_owned();
        let process = testbed.container_process(OPERATOR_NAMESPACE, &holder, "operator")?;
        Ok((holder, process))
    }

    /// Writing requests so far by verb and resource, also those that changed nothing, as the API server counts them;
    /// of all kinds that the operator writes, whoever wrote them. Parts of objects that are never its to write, as the
    /// status of a pod, are left out.
    pub fn api_writes(&self) -> Result<BTreeMap<String, f64>> {
        let counts = api_writes(&self.admin.raw("/metrics")?)?;
        ensure!(counts.keys().any(|key| key.ends_with("aisclusters")), "the API server counts no writes: {counts:?}");
        Ok(counts)
    }
}

fn api_writes(metrics: &str) -> Result<BTreeMap<String, f64>> {
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| line.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
        let (Some((verb, _)), Some((resource, _))) = (label("verb"), label(",resource")) else { continue };
        if !WRITES.contains(&verb) || !RESOURCES.contains(&resource) {
            continue;
        }
        // The only status that the operator writes is its own; those of pods and sets are the kubelet's and controllers'.
        if resource != "aisclusters" && label(",subresource").is_some_and(|(part, _)| !part.is_empty()) {
            continue;
        }
        let count: f64 = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).context("a count")?;
        *counts.entry(format!("{verb} {resource}")).or_default() += count;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_our_kinds_are_counted_and_nothing_else() {
        let line = |verb: &str, resource: &str, count: u32| {
            format!(
                "apiserver_request_total{{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",\
                 resource=\"{resource}\",scope=\"resource\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}} {count}\n"
            )
        };
        let status = |line: String| line.replace("subresource=\"\"", "subresource=\"status\"");
        let metrics = line("PATCH", "aisclusters", 3)
            + &status(line("PATCH", "aisclusters", 2))
            // Regression: kubelets told of pods, and the operator was said to write at rest.
            + &status(line("PATCH", "pods", 3))
            + &line("LIST", "pods", 7)
            + &line("PUT", "leases", 9)
            + "apiserver_request_duration_seconds_count{resource=\"pods\",verb=\"PATCH\"} 4\n";
        assert_eq!(api_writes(&metrics).unwrap(), BTreeMap::from([("PATCH aisclusters".to_owned(), 5.0)]));
    }
}
