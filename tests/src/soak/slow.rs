//! What the nodes logged of a fault that took long to heal, so that it explains itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::processes::LocalCluster;

/// From here on a fault took long.
const SLOW: Duration = Duration::from_secs(2);
/// So many of them are kept, and so much of each node's log.
const KEPT_MAX: usize = 12;
const BYTES_MAX: u64 = 2 << 20;
/// A log that is longer is begun anew between two faults: a soak of hours needs the disk of minutes.
const LOG_MAX: u64 = 64 << 20;

/// Keeps logs of slow faults.
#[derive(Debug)]
pub(super) struct Slow {
    dir: PathBuf,
    kept: usize,
    /// How long each node's log was when the fault began.
    from: Vec<(String, u64)>,
}

impl Slow {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), kept: 0, from: Vec::new() }
    }

    /// A fault begins.
    pub(super) fn begin(&mut self, cluster: &LocalCluster) {
        self.from.clear();
        for node in &cluster.nodes {
            let log = node.log();
            let mut length = length_of(&log);
            if length > LOG_MAX && fs::File::options().write(true).truncate(true).open(&log).is_ok() {
                length = 0;
            }
            self.from.push((node.id.clone(), length));
        }
    }

    /// It is healed; where its logs are kept, if it took long.
    pub(super) fn end(&mut self, cluster: &LocalCluster, number: usize, healed: Duration) -> Result<Option<PathBuf>> {
        if healed < SLOW || self.kept >= KEPT_MAX {
            return Ok(None);
        }
        self.kept += 1;
        let dir = self.dir.join(number.to_string());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for (id, from) in &self.from {
            let text = fs::read(cluster.node(id)?.log()).unwrap_or_default();
            let since = usize::try_from(*from).unwrap_or(0).min(text.len());
            // What healed late is told at the end.
            let start = since.max(text.len().saturating_sub(usize::try_from(BYTES_MAX).unwrap_or(usize::MAX)));
            fs::write(dir.join(format!("{id}.log")), &text[start..])?;
        }
        Ok(Some(dir))
    }
}

fn length_of(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |meta| meta.len())
}
