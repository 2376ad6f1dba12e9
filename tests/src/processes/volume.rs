//! State directories on file systems of their own: small ones that fill up, and ones that stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cmd::Cmd;

/// Enough for a small cluster's records and a filler.
const SIZE_MIB: u64 = 24;
const FILLER: &str = "filler";

/// An ext4 in a file, mounted on a folder.
#[derive(Debug)]
pub struct Volume {
    at: PathBuf,
    image: PathBuf,
    frozen: bool,
}

impl Volume {
    /// Makes it in `image` and mounts it on `at`, which is made.
    pub fn mount(image: &Path, at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        fs::File::create(image)?.set_len(SIZE_MIB << 20).context("cannot make an image")?;
        run(Cmd::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        run(Cmd::new("mount").args(["-o", "loop"]).arg(image).arg(at))?;
        Ok(Self { at: at.to_owned(), image: image.to_owned(), frozen: false })
    }

    /// Every write and sync waits until [`Volume::thaw`].
    pub fn freeze(&mut self) -> Result<()> {
        run(Cmd::new("fsfreeze").arg("--freeze").arg(&self.at))?;
        self.frozen = true;
        Ok(())
    }

    /// Lets them go on.
    pub fn thaw(&mut self) -> Result<()> {
        if self.frozen {
            run(Cmd::new("fsfreeze").arg("--unfreeze").arg(&self.at))?;
            self.frozen = false;
        }
        Ok(())
    }

    /// Leaves no room.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = fs::File::create(self.at.join(FILLER))?;
        let block = [0u8; 4096];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("cannot fill a volume"),
            }
        }
        // Blocks are found when they are written out.
        match file.sync_all() {
            Err(error) if error.kind() != std::io::ErrorKind::StorageFull => Err(error).context("cannot fill a volume"),
            _ => Ok(()),
        }
    }

    /// Makes room again.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.at.join(FILLER)).context("cannot make room in a volume")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A process that waits for it could not even be killed.
        drop(self.thaw());
        drop(unmount(&self.at));
        drop(fs::remove_file(&self.image));
    }
}

/// Unmounts all that a dead harness mounted below its folder.
pub(super) fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read the mounts")?;
    for at in mounts.lines().filter_map(|line| line.split_whitespace().nth(1)).map(Path::new) {
        if at.starts_with(dir) {
            // Fails when it is not frozen.
            drop(run(Cmd::new("fsfreeze").arg("--unfreeze").arg(at)));
            unmount(at)?;
        }
    }
    Ok(())
}

fn unmount(at: &Path) -> Result<()> {
    let said = Cmd::new("umount").arg("--lazy").arg(at).timeout(Duration::from_secs(20)).output()?;
    if !said.ok() {
        bail!("cannot unmount {}: {}", at.display(), said.stderr.trim());
    }
    Ok(())
}

fn run(command: Cmd) -> Result<()> {
    command.timeout(Duration::from_secs(30)).run().map(drop)
}
