//! A processor share for one node, in both layouts of the kernel's control groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::Wait;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "aisd-";
const PERIOD_US: u64 = 100_000;

/// A process held to a share of one processor; it has all of them again when this is dropped.
#[derive(Debug)]
pub struct Starved {
    dir: PathBuf,
    home: PathBuf,
    pid: u32,
}

impl Starved {
    /// Holds a process to so many per mille of one processor.
    pub fn hold(pid: u32, per_mille: u64) -> Result<Self> {
        let v2 = is_v2();
        let root = root(v2);
        let dir = root.join(format!("{PREFIX}{pid}"));
        let home = home(pid, &root, v2)?;
        if v2 {
            // Already there when something else uses the controller.
            drop(fs::write(root.join("cgroup.subtree_control"), "+cpu"));
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let made = Self { dir, home, pid };
        let quota_us = (PERIOD_US * per_mille / 1000).max(1000);
        if v2 {
            made.write("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        } else {
            made.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            made.write("cpu.cfs_quota_us", &quota_us.to_string())?;
        }
        made.write("cgroup.procs", &pid.to_string())?;
        Ok(made)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // The process may have ended; its group goes either way.
        drop(fs::write(self.home.join("cgroup.procs"), self.pid.to_string()));
        let gone = || Ok((!self.dir.exists() || fs::remove_dir(&self.dir).is_ok()).then_some(()));
        drop(
            Wait::new("a control group to empty", Duration::from_secs(5)).every(Duration::from_millis(10)).until(gone),
        );
    }
}

/// Removes groups whose processes have ended; a group with a process in it cannot be removed.
pub(super) fn remove_empty() {
    let Ok(entries) = fs::read_dir(root(is_v2())) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        drop(fs::remove_dir(entry.path()));
    }
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn root(v2: bool) -> PathBuf {
    if v2 { PathBuf::from(ROOT) } else { Path::new(ROOT).join("cpu") }
}

/// Where a process is now.
fn home(pid: u32, root: &Path, v2: bool) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("no control groups")?;
    let own = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let wanted = if v2 { id == "0" } else { controllers.split(',').any(|c| c == "cpu") };
        wanted.then(|| root.join(path.trim_start_matches('/')))
    };
    text.lines().find_map(own).context("the process is in no control group")
}
