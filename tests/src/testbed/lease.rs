//! Who works with a cluster number, and what runs under it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::init::SUBCOMMAND;
use super::layout::Layout;
use super::process::{HostProcess, command_line};
use crate::wait::Wait;

/// What runs under a number, for whoever comes next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The first process, as the host sees it.
    pub(super) init: u32,
    /// Its state folder.
    pub(super) state: PathBuf,
}

impl Record {
    fn file(layout: &Layout) -> PathBuf {
        layout.runtime().join("record.json")
    }

    /// The record of this number, when there is a readable one.
    pub(super) fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::file(layout)).ok()?).ok()
    }

    pub(super) fn write(&self, layout: &Layout) -> Result<()> {
        let path = Self::file(layout);
        let partial = path.with_extension("new");
        fs::write(&partial, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The recorded process, if it still is what the record says: its pid may long mean another one.
    pub(super) fn process(&self) -> Option<HostProcess> {
        // Taken hold of first, looked at second: what is looked at is what is held.
        let process = HostProcess::open(self.init).ok()?;
        let args = command_line(self.init)?;
        let plan = plan_file(&self.state).display().to_string();
        (args.iter().any(|arg| arg == SUBCOMMAND) && args.contains(&plan)).then_some(process)
    }
}

/// Where the first process finds what to do.
pub(super) fn plan_file(state: &Path) -> PathBuf {
    state.join("cfg").join("plan.json")
}

/// The right to work with a cluster number, until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    /// Takes it, waiting a little for another process of this machine.
    pub(super) fn take(layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        let waited = Wait::new(format!("cluster number {}", layout.number), Duration::from_secs(3)).until(|| {
            // Whoever leaves last removes the folder.
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            }
            let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
            match file.try_lock() {
                // The former holder may have removed the file between the two steps; then the lock is on nothing.
                Ok(()) => Ok(same_file(&file, &path).then_some(file)),
                Err(fs::TryLockError::WouldBlock) => Ok(None),
                Err(fs::TryLockError::Error(error)) => Err(error.into()),
            }
        });
        let file =
            waited.context("another process of this machine uses it: choose another number, or let that one end")?;
        Ok(Self { file, path })
    }

    /// Gives it back without a trace.
    pub(super) fn remove(self) {
        // Unlocked by dropping the file; a left-over empty file would do no harm.
        drop(fs::remove_file(&self.path));
        if let Some(dir) = self.path.parent() {
            // Refused while another cluster has something in there.
            drop(fs::remove_dir(dir));
        }
        drop(self.file);
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(named)) => ours.ino() == named.ino() && ours.dev() == named.dev(),
        _ => false,
    }
}
