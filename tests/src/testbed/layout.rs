//! Where a cluster keeps its files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::network::Network;

/// The node's name in Kubernetes.
pub const NODE: &str = "node1";
/// Short paths, because a Unix socket's path has at most 107 bytes.
const RUNTIME: &str = "/run/aiscluster-testbed";
/// Says that a folder is a cluster's state and may be removed with all in it.
const MARKER: &str = "aiscluster-testbed-state";

/// Folders of the machine that the tools hard-code; each cluster sees copies of its own there.
pub const PRIVATE: &[&str] =
    &["/var/lib/cni", "/var/log/containers", "/var/lib/kubelet", "/run/containerd", "/run/netns", "/run/cni"];

/// Paths and names of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Which cluster.
    pub number: u8,
    /// Its addresses.
    pub network: Network,
    /// Everything it writes, but its sockets.
    pub state: PathBuf,
}

impl Layout {
    /// The layout of cluster `number` with its state in `state`.
    pub fn new(number: u8, state: &Path) -> Result<Self> {
        let state = std::path::absolute(state).context("the state folder's path is not usable")?;
        Ok(Self { number, network: Network::new(number)?, state })
    }

    /// A path below the state folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.state.join(below)
    }

    /// The same as text for configuration files.
    pub fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    /// Folder of sockets and of the record of what runs.
    pub fn runtime(&self) -> PathBuf {
        Path::new(RUNTIME).join(self.number.to_string())
    }

    /// Held while a process works with this number.
    pub fn lock(&self) -> PathBuf {
        Path::new(RUNTIME).join(format!("{}.lock", self.number))
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.runtime().join("containerd.sock")
    }

    /// The cluster's own cgroup below each hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("/aistest{}", self.number)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The file that names a component's pid inside the cluster's pid namespace.
    pub fn pid_file(&self, component: &str) -> PathBuf {
        self.path("run").join(format!("{component}.pid"))
    }

    /// While this file is there, the component is not started.
    pub fn hold_file(&self, component: &str) -> PathBuf {
        self.path("run").join(format!("{component}.hold"))
    }

    /// Makes the folders of a new or kept state, and refuses a folder that is something else.
    pub fn make_folders(&self) -> Result<()> {
        let marker = self.path(MARKER);
        if self.state.exists() && !marker.exists() {
            let mut entries =
                std::fs::read_dir(&self.state).with_context(|| format!("cannot read {}", self.state.display()))?;
            if entries.next().is_some() {
                bail!("{} is not empty and not a test Kubernetes' state", self.state.display());
            }
        }
        for dir in ["pki", "cfg", "log/pods", "cni/net.d", "cni/data", "etcd", "containerd", "run", "volumes", "image"]
        {
            make_dir(&self.path(dir))?;
        }
        for dir in PRIVATE {
            make_dir(&self.private(dir))?;
            // The mount point; it stays behind as an empty folder, like after installing the package that owns it.
            make_dir(Path::new(dir))?;
        }
        make_dir(&self.runtime())?;
        let etcd = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(self.path("etcd"), etcd).context("cannot set the mode of etcd's folder")?;
        std::fs::write(&marker, "").with_context(|| format!("cannot write {}", marker.display()))
    }

    /// This cluster's copy of one of [`PRIVATE`].
    pub fn private(&self, dir: &str) -> PathBuf {
        self.path("private").join(dir.trim_start_matches('/'))
    }

    /// Whether the state folder is one, so that removing it is right.
    pub fn is_state(&self) -> bool {
        self.path(MARKER).exists()
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}
