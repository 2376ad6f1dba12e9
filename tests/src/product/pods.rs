//! The cluster's pods and what their nodes say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ais_meta::auth::Secret;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{NAME, Ports, Product};
use crate::client::{self, View};
use crate::http;
use crate::processes::{agreed, led};
use crate::testbed::kubectl::is_ready;
use crate::wait::Wait;

/// Label of everything that belongs to the cluster.
const LABEL: &str = "aiscluster.dev/cluster";
/// A container is restarted after at most a second, and its node is in the cluster again soon after.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How pods are called: with TLS each has to prove its name.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The namespace in which all ports speak TLS.
    encrypted_in: Option<String>,
    ports: Ports,
}

impl Calls {
    /// A pod's public port, as calls take it.
    pub fn public(&self, pod: &str, ip: &str) -> String {
        self.at(pod, &format!("{ip}:{}", self.ports.public))
    }

    /// A pod's control port, as calls take it.
    pub fn control(&self, pod: &str, ip: &str) -> String {
        self.at(pod, &format!("{ip}:{}", self.ports.control))
    }

    fn at(&self, pod: &str, address: &str) -> String {
        let Some(namespace) = &self.encrypted_in else { return address.to_owned() };
        let set = pod.rsplit_once('-').map_or(pod, |(set, _)| set);
        format!("https://{pod}.{set}.{namespace}.svc.cluster.local@{address}")
    }
}

impl Product {
    /// Selector of everything that belongs to the cluster.
    pub fn selector() -> String {
        format!("{LABEL}={NAME}")
    }

    /// All gateways and targets of the cluster; access gateways are not among them.
    pub fn pods(&self) -> Result<Vec<Value>> {
        let selector = format!("{},app.kubernetes.io/component in (gateway,target)", Self::selector());
        self.kubectl.list("pods", Some(&selector))
    }

    /// Their names.
    pub fn pod_names(&self) -> Result<Vec<String>> {
        self.pods()?.iter().map(|pod| Ok(name_of(pod)?.to_owned())).collect()
    }

    /// A pod.
    pub fn pod(&self, name: &str) -> Result<Value> {
        self.kubectl.get(&format!("pod/{name}"))
    }

    /// The names of the gateways.
    pub fn gateway_names(&self) -> Vec<String> {
        (0..self.gateways).map(|number| format!("{NAME}-gateway-{number}")).collect()
    }

    /// Public addresses of the gateways whose pods are Ready, by name.
    pub fn ready_gateways(&self) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for pod in self.pods()?.iter().filter(|pod| is_ready(pod)) {
            let name = name_of(pod)?;
            if name.starts_with(&format!("{NAME}-gateway-")) {
                found.push((name.to_owned(), self.addresses_of(pod)?.0));
            }
        }
        Ok(found)
    }

    /// A pod's public and control address.
    pub fn addresses(&self, pod: &str) -> Result<(String, String)> {
        self.addresses_of(&self.pod(pod)?)
    }

    fn addresses_of(&self, pod: &Value) -> Result<(String, String)> {
        let (name, (public, control), calls) = (name_of(pod)?, self.reach.addresses(pod, self.ports)?, self.calls());
        Ok((calls.at(name, &public), calls.at(name, &control)))
    }

    /// How pods are called.
    pub fn calls(&self) -> Calls {
        Calls { encrypted_in: self.tls.then(|| self.namespace.clone()), ports: self.ports }
    }

    /// Trusts the authorities that the operator publishes of this cluster.
    pub fn trust(&self) -> Result<String> {
        let map = self.kubectl.get(&format!("configmap/{NAME}-ca"))?;
        let ca = map["data"]["ca.crt"].as_str().context("no authorities are published")?;
        http::trust_pem(ca.as_bytes())?;
        Ok(ca.to_owned())
    }

    /// What a pod's node says now.
    pub fn view(&self, pod: &str) -> Result<View> {
        client::view(&self.addresses(pod)?.1, &self.secret()?)
    }

    /// Waits until all pods are Ready, all nodes follow one primary, and the electorate is as large as it gets; the
    /// views. Stamps may differ: clients write on.
    pub fn settle(&self) -> Result<Vec<View>> {
        let secret = self.secret()?;
        Wait::new("the pods to follow one primary", SETTLE_TIMEOUT).until(|| {
            let views = self.views(&secret)?;
            let leader = led(&views).map_err(|why| anyhow!(why))?;
            if leader.electorate.len() < self.voters() {
                bail!("{} of {} voters", leader.electorate.len(), self.voters());
            }
            Ok(Some(views))
        })
    }

    /// The same, and nothing is left to do: nobody writes any more.
    pub fn settle_all(&self) -> Result<Vec<View>> {
        let secret = self.secret()?;
        Wait::new("the pods to agree", SETTLE_TIMEOUT).until(|| {
            let views = self.views(&secret)?;
            agreed(&views, self.voters()).map_err(|why| anyhow!(why))?;
            Ok(Some(views))
        })
    }

    /// Views of all pods, which are all Ready.
    fn views(&self, secret: &Secret) -> Result<Vec<View>> {
        let pods = self.pods()?;
        if pods.len() != self.gateways + self.targets {
            bail!("{} pods", pods.len());
        }
        let each = pods.iter().map(|pod| {
            if !is_ready(pod) {
                bail!("{} is not Ready", name_of(pod)?);
            }
            client::view(&self.addresses_of(pod)?.1, secret)
        });
        each.collect()
    }

    /// The primary and its epoch, once all follow it.
    pub fn primary(&self) -> Result<(String, u64)> {
        let views = self.settle()?;
        let leader = views.iter().find(|view| view.leads()).context("nobody leads")?;
        Ok((leader.node_id.clone(), leader.epoch()))
    }

    /// The buckets that each node has in its metadata.
    pub fn buckets(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut all = BTreeMap::new();
        for pod in self.pods()? {
            all.insert(name_of(&pod)?.to_owned(), client::bmd_names(&self.addresses_of(&pod)?.0)?);
        }
        Ok(all)
    }
}

pub(super) fn name_of(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object without a name")
}
