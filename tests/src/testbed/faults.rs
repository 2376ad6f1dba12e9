//! Faults of the network and of containers' processes.
//!
//! Packets are dropped in the `mangle` table, which kube-proxy leaves alone: its own rules in `filter` accept what
//! belongs to known connections, and a cut must also stop those.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cgroup;
use super::cluster::Cluster;
use super::process::{HostProcess, innermost_pid};
use crate::cmd::Cmd;
use crate::wait::Wait;

/// A network fault; it heals with [`Cut::heal`] or when dropped.
#[derive(Debug)]
#[must_use = "a dropped cut is healed"]
pub struct Cut {
    init: u32,
    rules: Vec<Vec<String>>,
}

impl Cut {
    fn make(init: u32, rules: Vec<Vec<String>>) -> Result<Self> {
        let mut made = Self { init, rules: Vec::new() };
        for rule in rules {
            iptables(init, "-I", &rule)?;
            made.rules.push(rule);
        }
        Ok(made)
    }

    /// Lets the packets through again.
    pub fn heal(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        while let Some(rule) = self.rules.pop() {
            iptables(self.init, "-D", &rule)?;
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // With the cluster gone the rules are gone too.
        drop(self.remove());
    }
}

impl Cluster {
    /// Drops all packets between two addresses, in both directions: of two pods, or of a pod and the host
    /// ([`super::network::Network::host_ip`]). Nobody else is affected; probes and DNS come from the node itself.
    pub fn cut(&self, a: Ipv4Addr, b: Ipv4Addr) -> Result<Cut> {
        Cut::make(self.init().pid(), vec![between("FORWARD", a, b, &[]), between("FORWARD", b, a, &[])])
    }

    /// Drops packets in one direction only.
    pub fn cut_one_way(&self, from: Ipv4Addr, to: Ipv4Addr) -> Result<Cut> {
        Cut::make(self.init().pid(), vec![between("FORWARD", from, to, &[])])
    }

    /// Drops this share of the packets between two addresses, in both directions.
    pub fn lose(&self, a: Ipv4Addr, b: Ipv4Addr, probability: f64) -> Result<Cut> {
        let share = format!("{probability:.4}");
        let random = ["-m", "statistic", "--mode", "random", "--probability", &share];
        Cut::make(self.init().pid(), vec![between("FORWARD", a, b, &random), between("FORWARD", b, a, &random)])
    }

    /// Cuts two pods from each other.
    pub fn cut_pods(&self, namespace: &str, a: &str, b: &str) -> Result<Cut> {
        self.cut(self.pod_ip(namespace, a)?, self.pod_ip(namespace, b)?)
    }

    /// Cuts a pod from everything that is not on the node: other pods and the host.
    pub fn isolate_pod(&self, namespace: &str, pod: &str) -> Result<Cut> {
        let ip = self.pod_ip(namespace, pod)?.to_string();
        let rule = |side: &str| ["FORWARD", side, &ip, "-j", "DROP"].map(str::to_owned).to_vec();
        Cut::make(self.init().pid(), vec![rule("-s"), rule("-d")])
    }

    /// The same, but it still has one other pod to talk to; the host is none.
    pub fn isolate_pod_but(&self, namespace: &str, pod: &str, other: &str) -> Result<Cut> {
        let (ip, other) = (self.pod_ip(namespace, pod)?.to_string(), self.pod_ip(namespace, other)?.to_string());
        let rule =
            |own: &str, far: &str| ["FORWARD", own, &ip, "!", far, &other, "-j", "DROP"].map(str::to_owned).to_vec();
        Cut::make(self.init().pid(), vec![rule("-s", "-d"), rule("-d", "-s")])
    }

    /// Cuts a pod from the API server.
    pub fn cut_from_api(&self, namespace: &str, pod: &str) -> Result<Cut> {
        let ip = self.pod_ip(namespace, pod)?.to_string();
        let rule = ["INPUT", "-s", &ip, "-p", "tcp", "--dport", "6443", "-j", "DROP"].map(str::to_owned).to_vec();
        Cut::make(self.init().pid(), vec![rule])
    }

    /// A pod's address.
    pub fn pod_ip(&self, namespace: &str, pod: &str) -> Result<Ipv4Addr> {
        let object = self.kubectl().in_namespace(namespace).get(&format!("pod/{pod}"))?;
        let text = object["status"]["podIP"].as_str().with_context(|| format!("{pod} has no address yet"))?;
        text.parse().with_context(|| format!("{pod} has the address {text}"))
    }

    /// The first process of a running container, to be killed or stopped.
    pub fn container_process(&self, namespace: &str, pod: &str, container: &str) -> Result<HostProcess> {
        let kubectl = self.kubectl().in_namespace(namespace);
        Wait::new(format!("the process of {pod}/{container}"), Duration::from_secs(10)).until(|| {
            let object = kubectl.get(&format!("pod/{pod}"))?;
            let id = running_id(&object, container)?;
            for pid in cgroup::processes(&self.layout().cgroup(), &id)? {
                if innermost_pid(pid) == Some(1) {
                    return HostProcess::open(pid).map(Some);
                }
            }
            Ok(None)
        })
    }

    /// A command that runs in the network of this process, for example a pod's.
    pub fn in_network_of(&self, process: &HostProcess) -> Cmd {
        Cmd::new("nsenter").args(["--net", "--target", &process.pid().to_string(), "--"])
    }
}

fn running_id(pod: &Value, container: &str) -> Result<String> {
    let empty = Vec::new();
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap_or(&empty);
    let Some(status) = statuses.iter().find(|status| status["name"] == container) else {
        bail!("there is no container {container} yet");
    };
    if status["state"]["running"].is_null() {
        bail!("container {container} does not run: {}", status["state"]);
    }
    let id = status["containerID"].as_str().and_then(|id| id.strip_prefix("containerd://"));
    id.map(str::to_owned).context("the container has no id of containerd")
}

fn between(chain: &str, from: Ipv4Addr, to: Ipv4Addr, matches: &[&str]) -> Vec<String> {
    let (from, to) = (from.to_string(), to.to_string());
    let mut rule = vec![chain, "-s", &from, "-d", &to];
    rule.extend(matches);
    rule.extend(["-j", "DROP"]);
    rule.into_iter().map(str::to_owned).collect()
}

fn iptables(init: u32, action: &str, rule: &[String]) -> Result<()> {
    Cmd::new("nsenter")
        .args(["--net", "--target", &init.to_string(), "--", "iptables", "-w", "10", "-t", "mangle", action])
        .args(rule)
        .timeout(Duration::from_secs(20))
        .run()
        .map(drop)
}
