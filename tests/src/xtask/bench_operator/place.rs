//! The Kubernetes that is measured on, and clusters in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::api::Api;
use crate::product::{self, NAME, Product, VOLUME_GIB, Watched, condition};
use crate::progress::Progress;
use crate::testbed::Cluster;
use crate::wait::Wait;

/// Its addresses are nobody else's, so that all can run side by side.
const NUMBER: u8 = 105;
const READY: Duration = Duration::from_secs(240);
const GONE: Duration = Duration::from_secs(120);
/// Between two looks at what a watch brought; the time is taken when it comes.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(2);
/// What the chart ships is for ten clusters. It is measured, not enforced.
const MEMORY: &str = "resources.limits.memory=1Gi";

/// A Kubernetes with the operator in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) api: Api,
    /// Names the installed operator; its own cluster is never made.
    pub(super) operator: Product,
    pub(super) testbed: Cluster,
}

/// A cluster that became Ready.
pub(super) struct Founded {
    pub(super) product: Product,
    /// From the start of `kubectl apply`.
    pub(super) took: Duration,
}

impl Place {
    pub(super) fn up(progress: &Progress) -> Result<Self> {
        let programs = product::binaries(progress)?;
        let state = crate::xtask::state_dir().join("bench-operator");
        let testbed = Cluster::up_fresh(NUMBER, &state, progress)?;
        product::import(&testbed, &programs)?;
        let operator = Product::in_testbed(&testbed, 0, 0);
        operator.install_chart(&product::chart(), &["--set-string", MEMORY])?;
        progress.line("operator installed");
        let api = Api::start(&testbed.kubectl())?;
        Ok(Self { api, operator, testbed })
    }

    /// Ends it, with everything in it.
    pub(super) fn down(self) -> Result<()> {
        let Self { api, operator, testbed } = self;
        drop((api, operator));
        testbed.down()
    }

    pub(super) fn diagnosis(&self) -> String {
        let told = |args: &[&str]| self.operator.admin.run(args).unwrap_or_else(|error| format!("{error:#}"));
        let clusters = told(&["get", "aisc", "--all-namespaces", "-o", "wide"]);
        format!("{}\n--- clusters\n{}", self.operator.diagnosis(), crate::cmd::tail(clusters.trim()))
    }

    /// A cluster of 3+3 to be, with everything there that is not the operator's to make.
    fn prepare(&self, namespace: &str) -> Result<Product> {
        let overlay = json!({"spec": {"gateways": {"replicas": 3}, "targets": {"replicas": 3}}});
        let product = Product::beside(&self.testbed, namespace, &overlay);
        self.testbed.create_volumes(product.volumes(), VOLUME_GIB)?;
        product.make_namespace()?;
        Ok(product)
    }

    /// Founds a cluster of 3+3 in a namespace of its own.
    pub(super) fn found(&self, namespace: &str, progress: &Progress) -> Result<Founded> {
        let product = self.prepare(namespace)?;
        let watched = Watched::start(&product.kubectl, &["aisc"])?;
        let begin = Instant::now();
        product.kubectl.apply(&product.manifest())?;
        let (at, _) = arrival(&watched, 0, "Ready", READY, is_ready).with_context(|| product.diagnosis())?;
        product.wait_ready(progress)?;
        Ok(Founded { product, took: at.saturating_duration_since(begin) })
    }

    /// Founds several at the same time.
    pub(super) fn found_together(&self, namespaces: &[String], progress: &Progress) -> Result<Vec<Product>> {
        let mut products = Vec::with_capacity(namespaces.len());
        for namespace in namespaces {
            let product = self.prepare(namespace)?;
            product.kubectl.apply(&product.manifest())?;
            products.push(product);
        }
        for product in &products {
            product.wait_ready(progress)?;
        }
        Ok(products)
    }

    /// Deletes them all, pods and all.
    pub(super) fn delete(&self, products: Vec<Product>) -> Result<()> {
        let resource = format!("aisc/{NAME}");
        for product in &products {
            product.kubectl.run(&["delete", &resource, "--wait=false"])?;
        }
        for product in &products {
            product.kubectl.wait_gone(&resource, GONE)?;
            let all = || product.pod_names().map(|names| names.is_empty().then_some(()));
            Wait::new("the pods to go", GONE).until(all)?;
        }
        Ok(())
    }
}

/// Ready, of its newest spec.
pub(super) fn is_ready(resource: &Value) -> bool {
    condition(resource, "Ready").is_some_and(|ready| ready.status == "True") && is_observed(resource)
}

/// Status speaks of the newest spec.
pub(super) fn is_observed(resource: &Value) -> bool {
    resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
}

/// When a watch brought the first version, from the `from`th on, that looks right.
pub(super) fn arrival(
    watched: &Watched,
    from: usize,
    what: &str,
    timeout: Duration,
    right: impl Fn(&Value) -> bool,
) -> Result<(Instant, Value)> {
    Wait::new(format!("a version that is {what}"), timeout).every(LOOK_EVERY).until(|| Ok(watched.first(from, &right)))
}
