//! The sandbox image of every pod, compiled from a few lines of C.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::binaries::{cache_dir, once};
use crate::cmd::Cmd;
use crate::image::{Archive, Entry};

/// The image's name in the cluster.
pub const REFERENCE: &str = "localhost/pause:1";
const SOURCE: &str = include_str!("pause.c");

/// The image as a docker archive; made once.
pub fn archive() -> Result<PathBuf> {
    let dir = once(&cache_dir()?, "pause", SOURCE.as_bytes(), |out| {
        let program = out.join("pause");
        Cmd::new("cc")
            .args(["-static", "-Os", "-s", "-x", "c", "-o"])
            .arg(&program)
            .arg("-")
            .stdin(SOURCE)
            .timeout(Duration::from_secs(60))
            .run()
            .context("cannot compile the pause program")?;
        let archive = Archive {
            reference: REFERENCE,
            entrypoint: &["/pause"],
            user: "65532:65532",
            entries: vec![Entry::file(&program, "/pause", 0o755)],
        };
        archive.write(&out.join("pause.tar"))
    })?;
    Ok(dir.join("pause.tar"))
}
