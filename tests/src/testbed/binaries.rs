//! Kubernetes, CoreDNS and Helm, built from the Go modules under `tests/kubernetes/` and cached outside the tree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cmd::{Cmd, tail, wait_child};
use crate::progress::Progress;
use crate::wait::Wait;

/// The Go release the pinned Kubernetes wants: 1.27 breaks its OpenAPI v2 documents.
const GO_MINOR: &str = "go1.26";
/// Fetched by Go itself through its module proxy when another release is installed.
const GO_TOOLCHAIN: &str = "go1.26.8";
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// One Go module of `tests/kubernetes/` and what is built from it.
struct Module {
    name: &'static str,
    packages: &'static [&'static str],
    /// Version stamps: without them clients see a development version.
    stamps: &'static [(&'static str, &'static str)],
    cold_minutes: &'static str,
}

const KUBERNETES: Module = Module {
    name: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kubectl",
    ],
    stamps: &[
        ("k8s.io/component-base/version.gitVersion", "v1.36.3"),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", "36"),
        ("k8s.io/component-base/version.gitTreeState", "clean"),
        ("k8s.io/component-base/version.gitCommit", "v1.36.3"),
        ("k8s.io/component-base/version.buildDate", "2026-01-01T00:00:00Z"),
        ("k8s.io/client-go/pkg/version.gitVersion", "v1.36.3"),
        ("k8s.io/client-go/pkg/version.gitMajor", "1"),
        ("k8s.io/client-go/pkg/version.gitMinor", "36"),
        ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
        ("k8s.io/client-go/pkg/version.gitCommit", "v1.36.3"),
        ("k8s.io/client-go/pkg/version.buildDate", "2026-01-01T00:00:00Z"),
    ],
    cold_minutes: "5 to 6",
};
const COREDNS: Module =
    Module { name: "coredns", packages: &["github.com/coredns/coredns"], stamps: &[], cold_minutes: "1 to 2" };
const HELM: Module = Module {
    name: "helm",
    packages: &["helm.sh/helm/v4/cmd/helm"],
    stamps: &[("helm.sh/helm/v4/internal/version.version", "v4.3.1")],
    cold_minutes: "2",
};

/// Where the built programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    kubernetes: PathBuf,
    coredns: PathBuf,
    helm: PathBuf,
}

impl Binaries {
    /// Builds what is not in the cache yet. Two callers at once build once: the second waits for the first.
    pub fn ensure(progress: &Progress) -> Result<Self> {
        let cache = cache_dir()?;
        Ok(Self {
            kubernetes: KUBERNETES.ensure(&cache, progress)?,
            coredns: COREDNS.ensure(&cache, progress)?,
            helm: HELM.ensure(&cache, progress)?,
        })
    }

    /// Helm alone, for what needs no Kubernetes.
    pub fn helm_alone(progress: &Progress) -> Result<PathBuf> {
        Ok(HELM.ensure(&cache_dir()?, progress)?.join("helm"))
    }

    /// A program of Kubernetes by its name, such as `kubelet`.
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }

    /// `kubectl`.
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes("kubectl")
    }

    /// `coredns`.
    pub fn coredns(&self) -> PathBuf {
        self.coredns.join("coredns")
    }

    /// `helm`.
    pub fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }
}

/// The folder of everything that is made once for all checkouts of this machine.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    let dir = base.join("aiscluster-testbed");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Makes `cache/name-<key>` once: `make` fills an empty folder, which then gets its name in one step.
pub fn once(cache: &Path, name: &str, key: &[u8], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let made = cache.join(format!("{name}-{}", short_hash(key)));
    if made.exists() {
        return Ok(made);
    }
    let _lock = lock(&cache.join(format!("{name}.lock")), BUILD_LIMIT)?;
    if made.exists() {
        return Ok(made);
    }
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        // Of a build that was killed; the lock says nobody is at it now.
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    make(&partial)?;
    fs::rename(&partial, &made).with_context(|| format!("cannot rename to {}", made.display()))?;
    Ok(made)
}

fn lock(path: &Path, timeout: Duration) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    Wait::new(format!("the lock {}", path.display()), timeout).until(|| match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    })?;
    Ok(file)
}

fn short_hash(key: &[u8]) -> String {
    Sha256::digest(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Module {
    fn ensure(&self, cache: &Path, progress: &Progress) -> Result<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes").join(self.name);
        let mut key = Vec::new();
        for file in ["go.mod", "go.sum"] {
            let path = source.join(file);
            key.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        key.extend(format!("{:?} {:?}", self.flags(), self.packages).into_bytes());
        once(cache, self.name, &key, |out| {
            progress.line(format!(
                "building {} from its Go module (once; {} minutes on 2 cores)",
                self.name, self.cold_minutes
            ));
            let clock = Progress::new("");
            self.build(&source, out)?;
            progress.line(format!("built {} in {:.0}s", self.name, clock.elapsed().as_secs_f64()));
            Ok(())
        })
    }

    /// The same for ever: another flag would compile everything anew.
    fn flags(&self) -> Vec<String> {
        let mut link = String::from("-s -w");
        for (name, value) in self.stamps {
            link.push_str(&format!(" -X {name}={value}"));
        }
        vec!["-trimpath".into(), "-buildvcs=false".into(), "-ldflags".into(), link]
    }

    fn build(&self, source: &Path, out: &Path) -> Result<()> {
        let version = Cmd::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").dir(source).output();
        let version =
            version.context("Go is missing: install Go 1.26 (https://go.dev/doc/install) and put `go` on PATH")?;
        let toolchain = if version.stdout.trim().starts_with(GO_MINOR) { "local" } else { GO_TOOLCHAIN };
        let log_path = out.with_extension("log");
        let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut child = Command::new("go")
            .arg("build")
            .args(self.flags())
            .arg("-o")
            .arg(out)
            .args(self.packages)
            .current_dir(source)
            .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off"), ("GOTOOLCHAIN", toolchain)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start `go build`")?;
        let status = wait_child(&mut child, BUILD_LIMIT)?;
        if status.is_none() {
            child.kill().context("cannot end `go build`")?;
            child.wait()?;
        }
        if !status.is_some_and(|status| status.success()) {
            let said = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("`go build` of {} did not succeed (log: {}): {}", self.name, log_path.display(), tail(said.trim()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_entry_is_made_once_and_only_whole() {
        let cache = std::env::temp_dir().join(format!("aiscluster-once-{}", std::process::id()));
        fs::create_dir_all(&cache).expect("made");
        let failed = once(&cache, "thing", b"key", |_| bail!("no"));
        assert!(failed.is_err());
        let first = once(&cache, "thing", b"key", |dir| Ok(fs::write(dir.join("a"), "1")?)).expect("made");
        let second = once(&cache, "thing", b"key", |_| bail!("made twice")).expect("cached");
        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(second.join("a")).expect("read"), "1");
        assert_ne!(once(&cache, "thing", b"other", |_| Ok(())).expect("made"), first);
        fs::remove_dir_all(&cache).expect("removed");
    }
}
