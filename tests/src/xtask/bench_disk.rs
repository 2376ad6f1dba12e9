//! How long the disk takes to make a write durable: what every figure of a commit is measured against.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// About what one commit of one bucket appends.
const WRITE_BYTES: usize = 1024;

/// Appends and syncs for so long in `dir`, as the nodes do; milliseconds of each.
pub fn syncs_ms(dir: &Path, time: Duration) -> Result<Vec<f64>> {
    let path = dir.join("fsync-probe");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let (bytes, end, mut took_ms) = ([7u8; WRITE_BYTES], Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    fs::remove_file(&path)?;
    Ok(took_ms)
}
