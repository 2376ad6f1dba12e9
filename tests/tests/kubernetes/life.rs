//! The end of a cluster, its second life, and the end of the operator.

use std::time::Duration;

use ais_tests::client;
use ais_tests::product::{OPERATOR_NAMESPACE, Product, RELEASE};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, LONG};

/// The bound of a deletion is generous; with the policy Retain nothing has to be waited for.
const DELETED: Duration = Duration::from_secs(60);
const KINDS: &str = "statefulsets,pods,services,configmaps,secrets,poddisruptionbudgets,endpointslices,networkpolicies";

/// Everything in the namespace that carries the cluster's label, and is no volume claim.
fn remains(product: &Product) -> Result<Vec<String>> {
    let all = product.kubectl.list(KINDS, Some(&Product::selector()))?;
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    Ok(all.iter().map(name).collect())
}

pub(crate) fn deleted_and_adopted(bed: &mut Bed) -> Result<String> {
    let product = &bed.product;
    let (primary, epoch) = product.primary()?;
    let uuid = product.resource()?["status"]["clusterID"].clone();
    let reply = client::create_bucket(&product.addresses(&primary)?.0, "kept", None)?;
    ensure!(reply.is_success(), "kept: {} {}", reply.status, reply.text());
    let buckets = product.settle_all().and_then(|_| product.buckets())?;
    let buckets = buckets.get(&primary).context("the primary has no buckets")?.clone();

    product.delete(DELETED)?;
    Wait::new("everything but volumes to go", LONG).until(|| {
        let left = remains(product)?;
        ensure!(left.is_empty(), "there are still {left:?}");
        Ok(Some(()))
    })?;
    let claims = product.kubectl.list("persistentvolumeclaims", None)?;
    ensure!(claims.len() == product.volumes(), "{} claims are left of {}", claims.len(), product.volumes());
    for claim in &claims {
        let label = &claim["metadata"]["labels"]["aiscluster.dev/cluster-id"];
        ensure!(*label == uuid, "{} is labelled {label}", claim["metadata"]["name"]);
    }

    product.kubectl.apply(&product.manifest())?;
    let resource = product.wait_ready(&bed.progress)?;
    ensure!(resource["status"]["clusterID"] == uuid, "another uuid: {}", resource["status"]["clusterID"]);
    let adopted = product.events("ClusterAdopted")?;
    ensure!(adopted.len() == 1, "{} events ClusterAdopted", adopted.len());
    let views = product.settle_all()?;
    ensure!(views.iter().all(|view| view.cluster_uuid.as_deref() == uuid.as_str()), "a node of another cluster");
    // The record was kept, not made anew: epochs go on.
    ensure!(views.iter().all(|view| view.epoch() > epoch), "epoch {epoch} was forgotten");
    for (pod, names) in product.buckets()? {
        ensure!(names == buckets, "{pod} has {names:?}, there were {buckets:?}");
    }
    ensure!(product.events("ClusterFormed")?.len() == 1, "founded a second time");
    Ok(format!("{} claims kept, {} buckets still there; {}", claims.len(), buckets.len(), adopted[0]))
}

pub(crate) fn uninstalled(bed: &mut Bed) -> Result<String> {
    let product = &bed.product;
    product.delete(DELETED)?;
    Wait::new("everything but volumes to go", LONG).until(|| Ok(remains(product)?.is_empty().then_some(())))?;
    let told = product.helm.run(&["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait"])?;
    let crd = product.admin.get("crd/aisclusters.aiscluster.dev")?;
    ensure!(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == json!("keep"), "the definition is not kept");
    let by_release = format!("app.kubernetes.io/instance={RELEASE}");
    let kinds = "deployments,pods,serviceaccounts,poddisruptionbudgets,roles,rolebindings";
    let operator = product.admin.in_namespace(OPERATOR_NAMESPACE);
    Wait::new("the operator's objects to go", LONG).until(|| {
        let mut left = operator.list(kinds, Some(&by_release))?;
        left.extend(product.admin.list("clusterroles,clusterrolebindings", Some(&by_release))?);
        ensure!(left.is_empty(), "{} objects are left", left.len());
        Ok(Some(()))
    })?;
    Ok(told.trim().replace('\n', "; "))
}
