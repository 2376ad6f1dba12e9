//! What the cases share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ais_tests::history::{Load, Pool};
use ais_tests::product::{self, CONTAINER, NAME, NAMESPACE, Product, Views, Watched};
use ais_tests::progress::Progress;
use ais_tests::testbed::{Cluster, HostProcess};
use ais_tests::wait::Wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::side::Side;

const NUMBER: u8 = 110;
/// The operator's word about something that happened.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// A pod goes and comes back.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// The Kubernetes, the product in it, and those who look on.
pub(crate) struct Bed {
    pub(crate) testbed: Cluster,
    pub(crate) product: Product,
    pub(crate) progress: Progress,
    /// Every version of the resource since before it was there.
    pub(crate) versions: Option<Watched>,
    /// The same of the clusters beside it.
    pub(crate) beside: Option<Watched>,
    pub(crate) clients: Option<Clients>,
    /// The cluster that roll-outs are tried on, as the last case left it.
    pub(crate) rolled: Option<Side>,
    /// Every case runs: what never happened can be told from what did not happen this time.
    pub(crate) whole: bool,
}

/// Clients at work, and a watcher of the nodes.
pub(crate) struct Clients {
    pub(crate) pool: Arc<Pool>,
    pub(crate) load: Load,
    pub(crate) views: Views,
    /// Begins the names of their buckets.
    pub(crate) prefix: &'static str,
    /// At least so many primaries after one another are seen meanwhile.
    pub(crate) epochs: usize,
    /// Gateways that were stopped or cut.
    pub(crate) slow: BTreeSet<String>,
}

fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("testbed-{NUMBER}"))
}

impl Bed {
    /// A Kubernetes with the image and the volumes, without the product.
    pub(crate) fn make() -> Result<Self> {
        let progress = Progress::new("kubernetes test");
        let programs = product::binaries(&progress)?;
        let testbed = Cluster::up_fresh(NUMBER, &state(), &progress)?;
        let product = Product::in_testbed(&testbed, 3, 3);
        product::import(&testbed, &programs)?;
        testbed.create_volumes(product.volumes(), product::VOLUME_GIB)?;
        progress.line("image imported, volumes made");
        Ok(Self { testbed, product, progress, versions: None, beside: None, clients: None, rolled: None, whole: false })
    }

    /// Nothing is left; after a failure the logs are.
    pub(crate) fn down(self, well: bool) -> Result<()> {
        let Self { testbed, product, versions, beside, clients, rolled, progress, whole: _ } = self;
        drop((product, versions, beside, rolled));
        if let Some(clients) = clients {
            // They were in the middle of something: their history is nobody's.
            drop((clients.load.stop(), clients.views.stop()));
        }
        if !well {
            let kept = std::env::temp_dir().join("aiscluster-kubernetes-logs");
            drop(std::fs::remove_dir_all(&kept));
            let log = testbed.layout().path("log");
            let copied = ais_tests::cmd::Cmd::new("cp").arg("-r").arg(&log).arg(&kept).run();
            progress.line(format!("logs: {} ({copied:?})", kept.display()));
        }
        testbed.down()?;
        progress.line("down");
        let left = Cluster::leftovers(NUMBER, &state())?;
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    }

    /// After a failed case: whole again?
    pub(crate) fn recover(&self) -> Result<()> {
        self.product.kubectl.run(&["uncordon", ais_tests::testbed::layout::NODE])?;
        self.product.settle().map(drop)
    }

    /// The first process of a pod's container.
    pub(crate) fn process(&self, pod: &str) -> Result<HostProcess> {
        self.testbed.container_process(NAMESPACE, pod, CONTAINER)
    }

    /// An environment variable of a pod's process.
    pub(crate) fn env(&self, pod: &str, name: &str) -> Result<String> {
        let path = format!("/proc/{}/environ", self.process(pod)?.pid());
        let all = std::fs::read(path).context("the environment of a process")?;
        let all = String::from_utf8_lossy(&all).into_owned();
        let found = all.split('\0').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).with_context(|| format!("{pod} has no {name}"))
    }

    /// The clients, after they began.
    pub(crate) fn clients(&mut self) -> Result<&mut Clients> {
        self.clients.as_mut().context("the clients did not begin")
    }

    /// The clients' gateways are where their pods are now.
    pub(crate) fn readdress(&mut self) -> Result<()> {
        let gateways = self.product.ready_gateways()?;
        if let Some(clients) = &self.clients {
            gateways.iter().for_each(|(id, address)| clients.pool.readdress(id, address));
        }
        Ok(())
    }

    /// Waits until everything about the primary says the same: status, label, both Services, the ConfigMap.
    pub(crate) fn wait_told(&self, primary: &str) -> Result<()> {
        let kubectl = &self.product.kubectl;
        let ip = self.testbed.pod_ip(NAMESPACE, primary)?.to_string();
        Wait::new(format!("everything to name {primary}"), SOON).until(|| {
            let current = self.product.resource()?["status"]["primary"]["current"].clone();
            ensure!(current == primary, "status names {current}");
            let labelled = kubectl.list("pods", Some("aiscluster.dev/role=primary"))?;
            let labelled: Vec<_> = labelled.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            ensure!(labelled == [primary], "the label is on {labelled:?}");
            let endpoints = self.endpoints(&format!("{NAME}-primary"))?;
            ensure!(endpoints == [ip.clone()], "the Service leads to {endpoints:?}, {primary} is at {ip}");
            let map = kubectl.get(&format!("configmap/{NAME}-primary"))?;
            ensure!(map["data"]["endpoint"] == endpoint(primary).as_str(), "the ConfigMap says {}", map["data"]);
            Ok(Some(()))
        })
    }

    /// Addresses behind a Service, those that serve.
    pub(crate) fn endpoints(&self, service: &str) -> Result<Vec<String>> {
        let selector = format!("kubernetes.io/service-name={service}");
        let slices = self.product.kubectl.list("endpointslices", Some(&selector))?;
        let each = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let serving = each.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let mut found: Vec<String> = serving
            .flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default())
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        found.sort();
        Ok(found)
    }

    /// A gateway that does not lead.
    pub(crate) fn other_gateway(&self, not: &[&str]) -> Result<String> {
        let mut names = self.product.gateway_names().into_iter();
        names.find(|name| !not.contains(&name.as_str())).context("no other gateway")
    }

    /// Every version of the resource that was seen so far.
    pub(crate) fn versions(&self) -> Vec<Value> {
        self.versions.as_ref().map(Watched::versions).unwrap_or_default()
    }
}

/// What `AIS_PRIMARY_EP` is while this pod leads.
pub(crate) fn endpoint(pod: &str) -> String {
    format!("http://{pod}.{NAME}-gateway.{NAMESPACE}.svc.cluster.local:{}", product::PORT_PUBLIC)
}

/// The reasons of the resource's last five transitions, newest first, as `reason from>to result`.
pub(crate) fn history(resource: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = resource["status"]["primary"]["history"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|t| format!("{} {}>{} {}", text(&t["reason"]), text(&t["from"]), text(&t["to"]), text(&t["result"])))
        .collect()
}
