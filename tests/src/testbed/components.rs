//! The components of the control plane and the node: their command lines, and faults of each by name.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::binaries::Binaries;
use super::layout::{Layout, NODE};
use super::packages;
use super::process::host_pid;
use crate::wait::Wait;

/// etcd.
pub const ETCD: &str = "etcd";
/// The container runtime.
pub const CONTAINERD: &str = "containerd";
/// The API server.
pub const API_SERVER: &str = "kube-apiserver";
/// The controllers of Kubernetes.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// The scheduler.
pub const SCHEDULER: &str = "kube-scheduler";
/// The node agent.
pub const KUBELET: &str = "kubelet";
/// Services' addresses.
pub const PROXY: &str = "kube-proxy";
/// Cluster DNS.
pub const COREDNS: &str = "coredns";

/// Every component, in starting order.
pub const ALL: &[&str] = &[ETCD, CONTAINERD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER, KUBELET, PROXY, COREDNS];
/// These end with errors before the API server and its default objects are there.
pub const NEED_API: &[&str] = &[CONTROLLER_MANAGER, SCHEDULER, PROXY, COREDNS];

/// The API server's audit log, below the state folder.
pub(super) const AUDIT_LOG: &str = "log/audit.log";

/// A program that the cluster's first process keeps running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in file names and messages.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// The command lines of all components.
pub fn specs(layout: &Layout, binaries: &Binaries) -> Result<Vec<Spec>> {
    ALL.iter().map(|name| spec(layout, binaries, name)).collect()
}

fn spec(layout: &Layout, binaries: &Binaries, name: &str) -> Result<Spec> {
    let program: PathBuf = match name {
        ETCD | CONTAINERD => packages::find(name).with_context(|| format!("{name} is not installed"))?,
        COREDNS => binaries.coredns(),
        _ => binaries.kubernetes(name),
    };
    let args = match name {
        ETCD => etcd(layout),
        CONTAINERD => vec![format!("--config={}", layout.text("cfg/containerd.toml"))],
        API_SERVER => api_server(layout),
        CONTROLLER_MANAGER => controller_manager(layout),
        SCHEDULER => {
            let mut args = kubeconfigs(layout, "scheduler");
            args.extend(owned(&["--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false"]));
            args
        }
        KUBELET => vec![
            format!("--config={}", layout.text("cfg/kubelet.yaml")),
            format!("--kubeconfig={}", layout.text("cfg/node.kubeconfig")),
            format!("--hostname-override={NODE}"),
            format!("--node-ip={}", layout.network.node_ip()),
        ],
        PROXY => vec![format!("--config={}", layout.text("cfg/proxy.yaml"))],
        COREDNS => vec!["-conf".into(), layout.text("cfg/Corefile")],
        other => bail!("there is no component {other}"),
    };
    let mut command = vec![program.display().to_string()];
    command.extend(args);
    Ok(Spec { name: name.to_owned(), command })
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn etcd(layout: &Layout) -> Vec<String> {
    let client = "http://127.0.0.1:2379";
    let peer = "http://127.0.0.1:2380";
    vec![
        format!("--data-dir={}", layout.text("etcd")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".into(),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let pki = layout.text("pki");
    let mut args = vec![
        format!("--advertise-address={}", layout.network.node_ip()),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--kubelet-certificate-authority={pki}/ca.crt"),
        format!("--kubelet-client-certificate={pki}/kubelet-client.crt"),
        format!("--kubelet-client-key={pki}/kubelet-client.key"),
        format!("--service-account-key-file={pki}/sa.pub"),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        format!("--service-cluster-ip-range={}", layout.network.service_cidr()),
        format!("--audit-policy-file={}", layout.text("cfg/audit.yaml")),
        format!("--audit-log-path={}", layout.text(AUDIT_LOG)),
    ];
    args.extend(owned(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--anonymous-auth=false",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--allow-privileged=true",
        // Debian's etcd 3.4 does not give the sizes that this estimates from.
        "--feature-gates=SizeBasedListCostEstimate=false",
        "--profiling=false",
    ]));
    args
}

fn controller_manager(layout: &Layout) -> Vec<String> {
    let pki = layout.text("pki");
    let mut args = kubeconfigs(layout, "controller-manager");
    args.extend([
        format!("--service-account-private-key-file={pki}/sa.key"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
    ]);
    args.extend(owned(&[
        // The default rate delays the first namespaces' service accounts by seconds.
        "--kube-api-qps=300",
        "--kube-api-burst=500",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--controllers=*,-cloud-node-lifecycle-controller,-node-route-controller,-service-lb-controller",
        "--profiling=false",
    ]));
    args
}

fn kubeconfigs(layout: &Layout, user: &str) -> Vec<String> {
    let file = layout.text(&format!("cfg/{user}.kubeconfig"));
    vec![
        format!("--kubeconfig={file}"),
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
    ]
}

/// One component of a running cluster, to be disturbed.
#[derive(Debug)]
pub struct Component<'a> {
    layout: &'a Layout,
    init: u32,
    name: &'a str,
}

impl<'a> Component<'a> {
    pub(super) fn new(layout: &'a Layout, init: u32, name: &'a str) -> Result<Self> {
        if !ALL.contains(&name) {
            bail!("there is no component {name}: only {}", ALL.join(", "));
        }
        Ok(Self { layout, init, name })
    }

    /// Its pid as the host sees it.
    pub fn pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.layout.pid_file(self.name))
            .with_context(|| format!("{} does not run", self.name))?;
        let inside: u32 = text.trim().parse().with_context(|| format!("{}'s pid file is broken", self.name))?;
        host_pid(self.init, inside)?.with_context(|| format!("{} does not run", self.name))
    }

    /// SIGKILL; it is started again a moment later.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it and keeps it away until [`Component::release`].
    pub fn hold(&self) -> Result<()> {
        self.keep_away()?;
        if let Ok(pid) = self.pid() {
            self.kill()?;
            Wait::new(format!("{} to end", self.name), Duration::from_secs(10))
                .every(Duration::from_millis(10))
                .until(|| Ok((!std::path::Path::new("/proc").join(pid.to_string()).exists()).then_some(())))?;
        }
        Ok(())
    }

    /// Lets it run again.
    pub fn release(&self) -> Result<()> {
        match fs::remove_file(self.layout.hold_file(self.name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot release {}", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Asks that it is not started (again).
    pub(super) fn keep_away(&self) -> Result<()> {
        fs::write(self.layout.hold_file(self.name), "").with_context(|| format!("cannot hold {}", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw).context("not a pid")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}
