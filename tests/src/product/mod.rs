//! The product in a Kubernetes: image, operator, one cluster, and what can be done to it.
//!
//! The same code serves `cargo xtask up`, the end-to-end tests and the measurements. It works in the test Kubernetes,
//! where pods are reached directly and their processes can be signalled, and in a user's own, where pods are reached
//! through `kubectl port-forward`.

mod build;
mod drills;
mod guide;
mod operator;
mod pods;
mod reach;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ais_meta::auth::Secret;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub use self::build::{binaries, image};
pub use self::drills::{Ask, End, PodDrills};
pub use self::guide::Guide;
pub use self::pods::Calls;
pub use self::reach::{Ports, Reach};
pub use self::watch::{Views, Watched};
use crate::progress::Progress;
use crate::testbed::{Cluster, Helm, Kubectl};
use crate::wait::Wait;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "aiscluster-system";
/// Helm release of the operator, and its Deployment.
pub const RELEASE: &str = "aiscluster-operator";
/// Namespace of the cluster.
pub const NAMESPACE: &str = "ais";
/// Name of the cluster.
pub const NAME: &str = "demo";
/// Container of gateways and targets.
pub const CONTAINER: &str = "ais-node";
/// Port of clients, unless the spec says otherwise.
pub const PORT_PUBLIC: u16 = 51080;
/// Port of the operator's calls, unless the spec says otherwise.
pub const PORT_CONTROL: u16 = 51082;
/// Size of each volume, in GiB.
pub const VOLUME_GIB: u32 = 1;
/// Default of `spec.ha.voters`.
const VOTERS_MAX: usize = 5;
/// Founding, growth of the electorate and the operator's word for it.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// The cluster in its Kubernetes.
#[derive(Debug)]
pub struct Product {
    /// `kubectl`, without a namespace.
    pub admin: Kubectl,
    /// `kubectl` in the cluster's namespace.
    pub kubectl: Kubectl,
    /// `helm`.
    pub helm: Helm,
    /// The image of operator and nodes.
    pub image: String,
    /// How many gateways it was asked for.
    pub gateways: usize,
    /// How many targets.
    pub targets: usize,
    /// Namespace of the cluster.
    pub namespace: String,
    /// Largest electorate.
    pub voters_max: usize,
    /// Merged over the minimal resource.
    pub overlay: Value,
    /// Its ports speak TLS.
    pub tls: bool,
    /// Ports of its nodes.
    pub ports: Ports,
    reach: Reach,
}

impl Product {
    /// In the test Kubernetes.
    pub fn in_testbed(cluster: &Cluster, gateways: usize, targets: usize) -> Self {
        let image = crate::image::REFERENCE;
        Self::new(cluster.kubectl(), cluster.helm(), image, (gateways, targets), Reach::direct())
    }

    /// Another cluster in the test Kubernetes, in a namespace of its own; `overlay` is merged over the minimal resource
    /// of three gateways and one target.
    pub fn beside(cluster: &Cluster, namespace: &str, overlay: &Value) -> Self {
        let number = |pointer: &str, default: usize| {
            overlay.pointer(pointer).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
        };
        let size = (number("/spec/gateways/replicas", 3), number("/spec/targets/replicas", 1));
        let mut product = Self::in_testbed(cluster, size.0, size.1);
        product.kubectl = product.admin.in_namespace(namespace);
        namespace.clone_into(&mut product.namespace);
        product.voters_max = number("/spec/ha/voters", VOTERS_MAX);
        product.overlay = overlay.clone();
        product.tls = overlay.pointer("/spec/tls/mode").is_some_and(|mode| mode != "Disabled");
        product.ports = Ports::of(overlay);
        product
    }

    /// In another Kubernetes, whose pods may not be reachable from here.
    pub fn elsewhere(kubectl: Kubectl, helm: Helm, image: &str, gateways: usize, targets: usize) -> Self {
        let reach = Reach::forwarded(kubectl.in_namespace(NAMESPACE));
        Self::new(kubectl, helm, image, (gateways, targets), reach)
    }

    fn new(admin: Kubectl, helm: Helm, image: &str, size: (usize, usize), reach: Reach) -> Self {
        let (gateways, targets) = size;
        let kubectl = admin.in_namespace(NAMESPACE);
        let (image, namespace) = (image.to_owned(), NAMESPACE.to_owned());
        let (voters_max, overlay) = (VOTERS_MAX, Value::Null);
        let (tls, ports) = (false, Ports::of(&overlay));
        Self { admin, kubectl, helm, image, gateways, targets, namespace, voters_max, overlay, tls, ports, reach }
    }

    /// The minimal resource, with the overlay if there is one.
    pub fn manifest(&self) -> String {
        if !self.overlay.is_null() {
            let (gateways, targets) = (self.gateways, self.targets);
            let mut resource = json!({
                "apiVersion": "aiscluster.dev/v1alpha1", "kind": "AISCluster", "metadata": {"name": NAME},
                "spec": {
                    "gateways": {"replicas": gateways},
                    "targets": {"replicas": targets, "storage": {"size": format!("{VOLUME_GIB}Gi")}},
                },
            });
            merge(&mut resource, &self.overlay);
            return resource.to_string();
        }
        format!(
            "apiVersion: aiscluster.dev/v1alpha1
kind: AISCluster
metadata: {{name: {NAME}}}
spec:
  gateways: {{replicas: {}}}
  targets: {{replicas: {}, storage: {{size: {VOLUME_GIB}Gi}}}}
",
            self.gateways, self.targets
        )
    }

    /// How many volumes that takes: state for everybody, data for targets.
    pub fn volumes(&self) -> usize {
        let data = self.overlay.pointer("/spec/targets/storage/volumesPerTarget").and_then(Value::as_u64);
        let data = data.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        self.gateways + (1 + data) * self.targets
    }

    /// Installs the operator from the chart of this checkout, or brings the installed one to it.
    pub fn install_operator(&self) -> Result<String> {
        self.install_chart(&chart(), &[])
    }

    /// The same from another chart, or with more arguments of `helm upgrade`. Values of before are forgotten.
    pub fn install_chart(&self, chart: &Path, more: &[&str]) -> Result<String> {
        let (repository, tag) = split_image(&self.image)?;
        let cmd = self.helm.cmd(["upgrade", "--install", RELEASE]).arg(chart).args([
            "--reset-values",
            "--namespace",
            OPERATOR_NAMESPACE,
            "--create-namespace",
            "--set-string",
            &format!("image.repository={repository}"),
            "--set-string",
            &format!("image.tag={tag}"),
            "--wait",
            "--timeout",
            "120s",
        ]);
        cmd.args(more).run().with_context(|| self.diagnosis())
    }

    /// Makes the cluster's namespace, with the strictest pod security there is.
    pub fn make_namespace(&self) -> Result<()> {
        self.admin.apply_json(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        Wait::new("the namespace's service account", Duration::from_secs(30))
            .until(|| self.kubectl.try_get("serviceaccount/default"))
            .map(drop)
    }

    /// The resource as it is now.
    pub fn resource(&self) -> Result<Value> {
        self.kubectl.get(&format!("aisc/{NAME}"))
    }

    /// A merge patch of the resource.
    pub fn patch(&self, patch: &Value) -> Result<()> {
        self.kubectl.patch(&format!("aisc/{NAME}"), patch).map(drop)
    }

    /// Waits until the resource looks right.
    pub fn wait_resource(&self, what: &str, timeout: Duration, right: impl FnMut(&Value) -> bool) -> Result<Value> {
        self.kubectl.wait_for(&format!("aisc/{NAME}"), what, timeout, right)
    }

    /// Waits until the resource says Ready of its newest spec, the electorate has its full size, and every node
    /// agrees; each change on the way is a progress line.
    pub fn wait_ready(&self, progress: &Progress) -> Result<Value> {
        let mut told = String::new();
        let ready = Wait::new("the cluster to be Ready", READY_TIMEOUT).every(Duration::from_millis(200)).until(|| {
            let resource = self.resource()?;
            let line = summary(&resource);
            if line != told {
                progress.line(&line);
                told = line;
            }
            Ok(self.is_whole(&resource).then_some(resource))
        });
        ready.with_context(|| self.diagnosis())
    }

    /// Ready, of the newest spec, every node in agreement, the electorate grown.
    pub fn is_whole(&self, resource: &Value) -> bool {
        let status = &resource["status"];
        let voters = status["electorate"].as_array().map_or(0, Vec::len);
        condition(resource, "Ready").is_some_and(|ready| ready.status == "True")
            && status["observedGeneration"] == resource["metadata"]["generation"]
            && status["smap"]["agreeing"] == json!(self.gateways + self.targets)
            && voters == self.voters()
    }

    /// The size that the electorate grows to: odd from 3 on, 5 at most.
    pub fn voters(&self) -> usize {
        match (self.gateways + self.targets).min(self.voters_max) {
            4 => 3,
            n => n,
        }
    }

    /// The secret of member and operator calls.
    pub fn secret(&self) -> Result<Secret> {
        let template = "go-template={{.data.secret | base64decode}}";
        let text = self.kubectl.run(&["get", "secret", &format!("{NAME}-secret"), "-o", template])?;
        Secret::from_file_content(text.as_bytes()).context("the cluster's secret is too short")
    }

    /// Events of this reason, oldest first, as their messages.
    pub fn events(&self, reason: &str) -> Result<Vec<String>> {
        let mut events = self.kubectl.list("events", None)?;
        events.retain(|event| event["reason"] == reason && event["involvedObject"]["name"] == NAME);
        events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
        Ok(events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Deletes the resource and waits until it is gone.
    pub fn delete(&self, timeout: Duration) -> Result<()> {
        self.kubectl.delete(&format!("aisc/{NAME}"), timeout)
    }

    /// What somebody would look at who wants to know why it does not work.
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        let mut add = |what: &str, told: Result<String>| {
            let told = told.unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&format!("\n--- {what}\n{}\n", crate::cmd::tail(told.trim())));
        };
        add("pods", self.admin.run(&["get", "pods", "--all-namespaces", "-o", "wide"]));
        let operator = self.admin.in_namespace(OPERATOR_NAMESPACE);
        add("operator", operator.run(&["logs", &format!("deployment/{RELEASE}"), "--tail=25"]));
        add("events", self.kubectl.run(&["get", "events", "--sort-by=.lastTimestamp"]));
        add("resource", self.kubectl.run(&["get", "aisc", NAME, "-o", "jsonpath={.status}"]));
        for pod in self.pod_names().unwrap_or_default() {
            add(&pod, self.kubectl.run(&["logs", &pod, "--tail=12"]));
        }
        text
    }
}

fn merge(into: &mut Value, overlay: &Value) {
    match (into, overlay) {
        (Value::Object(map), Value::Object(changes)) => {
            changes.iter().for_each(|(key, change)| merge(map.entry(key.clone()).or_insert(Value::Null), change));
        }
        (into, overlay) => overlay.clone_into(into),
    }
}

/// The chart of this checkout.
pub fn chart() -> PathBuf {
    crate::xtask::root().join("charts/aiscluster-operator")
}

/// The generated definition of this checkout.
pub fn definition() -> PathBuf {
    crate::xtask::root().join("crds/aiscluster.yaml")
}

fn split_image(image: &str) -> Result<(&str, &str)> {
    if image.contains('@') {
        bail!("{image}: name the image by its tag");
    }
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => Ok((repository, tag)),
        _ => bail!("{image}: the tag is missing"),
    }
}

/// A condition of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// True, False or Unknown.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The condition of this type.
pub fn condition(resource: &Value, kind: &str) -> Option<Condition> {
    let all = resource["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
}

/// The reason of a condition, empty when it is not there.
pub fn reason(resource: &Value, kind: &str) -> String {
    condition(resource, kind).map(|condition| condition.reason).unwrap_or_default()
}

/// The line that `kubectl get aisc` shows, and why it is not Ready.
fn summary(resource: &Value) -> String {
    let status = &resource["status"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let voters = status["electorate"].as_array().map_or(0, Vec::len);
    let mut line = format!(
        "{NAME}: {}, gateways {}, targets {}, primary {}, {voters} voters",
        text(&status["phase"]),
        text(&status["gateways"]["summary"]),
        text(&status["targets"]["summary"]),
        text(&status["primary"]["current"]),
    );
    match condition(resource, "Ready") {
        Some(ready) if ready.status == "True" => line.push_str(", Ready"),
        Some(ready) => line.push_str(&format!(" ({}: {})", ready.reason, ready.message)),
        None => {}
    }
    line
}

/// A resolver file that asks the test Kubernetes' DNS.
pub fn resolver(cluster: &Cluster) -> Result<PathBuf> {
    let file = cluster.layout().path("cfg/host-resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", cluster.layout().network.node_ip()))?;
    Ok(file)
}

/// Writes the image of freshly built binaries and gives it to the test Kubernetes.
pub fn import(cluster: &Cluster, programs: &Path) -> Result<()> {
    let archive = cluster.layout().path("image/aiscluster.tar");
    image(programs, &archive)?;
    cluster.import_image(&archive)
}
