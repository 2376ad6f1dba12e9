//! Debian's part of the test Kubernetes: container runtime, CNI plugins, etcd and small tools.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::binaries::{cache_dir, once};
use crate::cmd::Cmd;
use crate::progress::Progress;

/// A file that must be there, and the package that brings it.
struct Need {
    package: &'static str,
    file: &'static str,
}

const NEEDS: &[Need] = &[
    Need { package: "containerd", file: "containerd" },
    Need { package: "containerd", file: "ctr" },
    Need { package: "runc", file: "runc" },
    Need { package: "containernetworking-plugins", file: "/usr/lib/cni/ptp" },
    Need { package: "containernetworking-plugins", file: "/usr/lib/cni/host-local" },
    Need { package: "containernetworking-plugins", file: "/usr/lib/cni/portmap" },
    Need { package: "etcd-server", file: "etcd" },
    Need { package: "iptables", file: "iptables" },
    Need { package: "iproute2", file: "ip" },
    Need { package: "util-linux", file: "nsenter" },
    Need { package: "util-linux", file: "unshare" },
    Need { package: "util-linux", file: "setsid" },
    Need { package: "gcc", file: "cc" },
    Need { package: "libc6-dev", file: "/usr/include/stdio.h" },
];

/// Moves the wall clock of a process that it is preloaded into.
pub const FAKETIME: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"
} else {
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
};

/// What drills on processes in namespaces need.
const DRILL_NEEDS: &[Need] = &[
    Need { package: "iptables", file: "iptables-restore" },
    Need { package: "iproute2", file: "ip" },
    Need { package: "util-linux", file: "nsenter" },
    Need { package: "util-linux", file: "fsfreeze" },
    Need { package: "e2fsprogs", file: "mkfs.ext4" },
    Need { package: "libfaketime", file: FAKETIME },
];

/// What building the fuzz targets needs besides the rest: libFuzzer is C++.
const FUZZ_NEEDS: &[Need] = &[Need { package: "g++", file: "c++" }];

/// Services that Debian would start with the packages; the test Kubernetes runs its own copies.
const SERVICES: &[&str] = &["containerd", "etcd"];
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Where programs are looked for: root's sbin folders may be missing from PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Installs what is missing; does nothing, and asks nobody, when all is there.
pub fn ensure(progress: &Progress) -> Result<()> {
    install(NEEDS, progress)
}

/// The same for drills on processes in namespaces.
pub fn ensure_for_drills(progress: &Progress) -> Result<()> {
    install(DRILL_NEEDS, progress)
}

/// The same for the fuzz targets.
pub fn ensure_for_fuzz(progress: &Progress) -> Result<()> {
    install(FUZZ_NEEDS, progress)
}

fn install(needs: &[Need], progress: &Progress) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("missing packages: as root, run `apt-get install --no-install-recommends {list}`");
    }
    if find("apt-get").is_none() {
        bail!("missing: {list} (these are Debian's names), and there is no apt-get here to install them with");
    }
    progress.line(format!("installing Debian packages: {list}"));
    let _quiet = NoServices::set()?;
    apt(&["update"])?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    disable_services(&missing);
    let left = self::missing(needs);
    if !left.is_empty() {
        bail!("after installing them, files of these packages are still missing: {}", left.join(" "));
    }
    Ok(())
}

/// Prometheus' checker of rules: on PATH, or out of Debian's package, which is not installed: it would bring a service.
pub fn promtool(progress: &Progress) -> Result<PathBuf> {
    if let Some(found) = find("promtool") {
        return Ok(found);
    }
    let made = once(&cache_dir()?, "promtool", b"debian", |out| {
        progress.line("fetching Debian's package prometheus, for promtool");
        apt(&["update"])?;
        let download = Cmd::new("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download", "prometheus"]);
        download.dir(out).timeout(Duration::from_secs(300)).run()?;
        let archives = std::fs::read_dir(out)?.filter_map(Result::ok).map(|entry| entry.path());
        let archive = archives.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let archive = archive.context("apt-get downloaded nothing")?;
        Cmd::new("dpkg-deb").arg("--extract").arg(&archive).arg(out.join("all")).run()?;
        std::fs::rename(out.join("all/usr/bin/promtool"), out.join("promtool")).context("no promtool in it")?;
        std::fs::remove_dir_all(out.join("all"))?;
        std::fs::remove_file(&archive).context("cannot remove the package")
    })?;
    Ok(made.join("promtool"))
}

/// The full path of a program, looked for in [`PATH`].
pub fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = needs
        .iter()
        .filter(
            |need| {
                if need.file.starts_with('/') { !Path::new(need.file).exists() } else { find(need.file).is_none() }
            },
        )
        .map(|need| need.package)
        .collect();
    packages.dedup();
    packages
}

fn apt(args: &[&str]) -> Result<()> {
    // Another apt on the machine is waited for rather than failed on.
    Cmd::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .timeout(Duration::from_secs(600))
        .run()
        .map(drop)
}

/// Keeps package scripts from starting services, unless the machine already has its own say in that.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn set() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(POLICY, executable).with_context(|| format!("cannot make {POLICY} executable"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would only keep later packages' services from starting.
            drop(std::fs::remove_file(POLICY));
        }
    }
}

/// On a machine with systemd the new services would start at its next boot.
fn disable_services(installed: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    for service in SERVICES.iter().filter(|service| installed.iter().any(|package| package.starts_with(**service))) {
        // Not fatal: a running system copy uses other sockets and ports of its own.
        drop(Cmd::new("systemctl").args(["disable", "--now", service]).run());
    }
}
