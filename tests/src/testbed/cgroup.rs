//! The cluster's own cgroup, in both of the kernel's layouts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::Wait;

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the group in every hierarchy.
pub(super) fn make(group: &str) -> Result<()> {
    for hierarchy in hierarchies()?.into_iter().filter(|hierarchy| is_v2() || has_controllers(hierarchy)) {
        let dir = below(&hierarchy, group);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Version 1 starts a cpuset empty, and then no process may enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !is_v2() && dir.join(file).exists() {
                let all = fs::read(hierarchy.join(file)).with_context(|| format!("cannot read {file}"))?;
                fs::write(dir.join(file), all).with_context(|| format!("cannot write {file}"))?;
            }
        }
    }
    if is_v2() {
        enable_controllers(Path::new(ROOT));
        enable_controllers(&below(Path::new(ROOT), group));
    }
    Ok(())
}

/// Removes the group and all below it, once the kernel has let its last process go.
pub(super) fn remove(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let dir = below(&hierarchy, group);
        Wait::new(format!("{} to be empty", dir.display()), Duration::from_secs(15))
            .every(Duration::from_millis(20))
            .until(|| remove_tree(&dir).map(Some))?;
    }
    Ok(())
}

/// Whether any hierarchy still has the group.
pub(super) fn exists(group: &str) -> Result<bool> {
    Ok(hierarchies()?.iter().any(|hierarchy| below(hierarchy, group).exists()))
}

/// The pids in the subgroup of `group` that has this name, at any depth.
pub(super) fn processes(group: &str, name: &str) -> Result<Vec<u32>> {
    let hierarchy = if is_v2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join("pids") };
    let Some(dir) = find(&below(&hierarchy, group), name)? else {
        return Ok(Vec::new());
    };
    let text =
        fs::read_to_string(dir.join("cgroup.procs")).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_v2() {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(ROOT).with_context(|| format!("cannot read {ROOT}"))? {
        let entry = entry.with_context(|| format!("cannot read {ROOT}"))?;
        // Links such as cpu -> cpu,cpuacct would be visited twice.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Beside version 1, `unified` holds no controllers; the runtime makes groups there by itself.
fn has_controllers(hierarchy: &Path) -> bool {
    hierarchy.file_name().is_none_or(|name| name != "unified")
}

fn below(hierarchy: &Path, group: &str) -> PathBuf {
    hierarchy.join(group.trim_start_matches('/'))
}

fn enable_controllers(dir: &Path) {
    for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
        // A kernel without one of them says so when a pod needs it.
        drop(fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")));
    }
}

fn remove_tree(dir: &Path) -> Result<()> {
    for child in subdirs(dir)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    for child in subdirs(dir)? {
        if child.file_name().is_some_and(|file| file == name) {
            return Ok(Some(child));
        }
        if let Some(found) = find(&child, name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Subfolders; none when the folder has just gone.
fn subdirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}
