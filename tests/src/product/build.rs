//! The release binaries and the image of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress::Progress;

/// Names a folder with both programs; nothing is built then.
const PROGRAMS: &str = "AIS_PROGRAMS";

/// Builds `ais-node` and `ais-operator` into the target folder that this program is from; the folder they are in.
pub fn binaries(progress: &Progress) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        progress.line(format!("ais-node and ais-operator from {}", folder.display()));
        return Ok(PathBuf::from(folder));
    }
    progress.line("building ais-node and ais-operator (release)");
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let profile = own.ancestors().find(|dir| dir.ends_with("release") || dir.ends_with("debug"));
    let target = profile.and_then(Path::parent).context("this program is in no target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Without a time limit: a cold build takes what it takes, and shows its own progress.
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "ais-node", "--package", "ais-operator", "--target-dir"])
        .arg(target)
        .current_dir(crate::xtask::root())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cannot build ais-node and ais-operator");
    }
    Ok(target.join("release"))
}

/// Writes the image.
pub fn image(programs: &Path, out: &Path) -> Result<()> {
    crate::image::write(programs, crate::image::REFERENCE, out)
}
