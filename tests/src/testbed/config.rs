//! Configuration files of the components.

use std::fs;

use anyhow::{Context, Result};

use super::layout::{Layout, NODE};

/// Users with a kubeconfig: the file under `cfg/` and the certificate under `pki/`.
const USERS: &[&str] = &["controller-manager", "scheduler", "proxy", "coredns", "node"];

/// Objects that the cluster needs before anything else: DNS' rights and the class of local volumes.
pub(super) const BOOTSTRAP: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: 'system:coredns'}
rules:
- {apiGroups: [''], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: 'system:coredns'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:coredns'}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: 'system:coredns'}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local
  annotations: {storageclass.kubernetes.io/is-default-class: 'true'}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
";

/// Writes all of them; they are derived from the layout alone, so a reboot writes the same again.
pub(super) fn write(layout: &Layout) -> Result<()> {
    put(layout, "kubeconfig", &kubeconfig(layout, "admin"))?;
    for user in USERS {
        put(layout, &format!("cfg/{user}.kubeconfig"), &kubeconfig(layout, user))?;
    }
    put(layout, "cfg/containerd.toml", &containerd(layout))?;
    put(layout, "cni/net.d/10-test.conflist", &cni(layout))?;
    put(layout, "cfg/kubelet.yaml", &kubelet(layout))?;
    put(layout, "cfg/proxy.yaml", &proxy(layout))?;
    put(layout, "cfg/audit.yaml", super::audit::POLICY)?;
    put(layout, "cfg/Corefile", &corefile(layout))?;
    // Empty on purpose: pods must not ask the machine's own name servers.
    put(layout, "cfg/resolv.conf", "")
}

fn put(layout: &Layout, file: &str, text: &str) -> Result<()> {
    let path = layout.path(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig(layout: &Layout, user: &str) -> String {
    let server = layout.network.node_ip();
    let ca = layout.text("pki/ca.crt");
    let certificate = layout.text(&format!("pki/{user}.crt"));
    let key = layout.text(&format!("pki/{user}.key"));
    let name = format!("aiscluster-test-{}", layout.number);
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: {name}, cluster: {{server: 'https://{server}:6443', certificate-authority: '{ca}'}}}}]
users: [{{name: {user}, user: {{client-certificate: '{certificate}', client-key: '{key}'}}}}]
contexts: [{{name: {name}, context: {{cluster: {name}, user: {user}}}}}]
current-context: {name}
"
    )
}

fn containerd(layout: &Layout) -> String {
    let root = layout.text("containerd");
    let state = layout.text("run/containerd");
    let socket = layout.containerd_socket().display().to_string();
    let plugins = layout.text("cni/net.d");
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper",
]

[grpc]
address = "{socket}"

[ttrpc]
address = "{socket}.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{plugins}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// One point-to-point link per pod, so that traffic between pods is routed and can be cut.
fn cni(layout: &Layout) -> String {
    let data = layout.text("cni/data");
    let pods = layout.network.pod_cidr();
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "test",
  "plugins": [
    {{"type": "ptp", "ipMasq": false,
      "ipam": {{"type": "host-local", "dataDir": "{data}", "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}, "snat": false}}
  ]
}}
"#
    )
}

fn kubelet(layout: &Layout) -> String {
    let node_ip = layout.network.node_ip();
    let pki = layout.text("pki");
    let socket = layout.containerd_socket().display().to_string();
    let cgroup = layout.cgroup();
    let resolv = layout.text("cfg/resolv.conf");
    let logs = layout.text("log/pods");
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {node_ip}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: '{pki}/ca.crt'}}
authorization: {{mode: Webhook}}
tlsCertFile: '{pki}/kubelet.crt'
tlsPrivateKeyFile: '{pki}/kubelet.key'
containerRuntimeEndpoint: 'unix://{socket}'
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failSwapOn: false
failCgroupV1: false
enforceNodeAllocatable: []
oomScoreAdj: 0
evictionHard: {{memory.available: 1Mi, nodefs.available: '0%', nodefs.inodesFree: '0%', imagefs.available: '0%'}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDomain: cluster.local
clusterDNS: [{node_ip}]
resolvConf: '{resolv}'
podLogsDir: '{logs}'
nodeStatusUpdateFrequency: 2s
makeIPTablesUtilChains: false
crashLoopBackOff: {{maxContainerRestartPeriod: 1s}}
"
    )
}

fn proxy(layout: &Layout) -> String {
    let node_ip = layout.network.node_ip();
    let pods = layout.network.pod_cidr();
    let kubeconfig = layout.text("cfg/proxy.kubeconfig");
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
bindAddress: {node_ip}
hostnameOverride: {NODE}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: '{kubeconfig}'}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
iptables: {{minSyncPeriod: 100ms, syncPeriod: 30s}}
nodePortAddresses: [{node_ip}/32]
oomScoreAdj: 0
"
    )
}

/// Two blocks: in one, `template` would answer before `kubernetes`; without it unknown names would fail slowly.
fn corefile(layout: &Layout) -> String {
    let node_ip = layout.network.node_ip();
    let kubeconfig = layout.text("cfg/coredns.kubeconfig");
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
    bind {node_ip}
    errors
    ready {node_ip}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 0
    }}
}}
.:53 {{
    bind {node_ip}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"
    )
}
