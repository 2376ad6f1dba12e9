//! Keeps copies of the committed State on a target's data disks (protocol.md section 7), far from every vote: a disk
//! that is slow or hangs holds up nothing but its own copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ais_ha::{RoleName, View};
use ais_meta::{Stamp, State, VoterId};
use tokio::runtime;
use tokio::sync::watch;

use crate::disk::copies::{self, Slot};

/// Between two copies, however fast commits come.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
/// A disk is busy with copies for at most one part in so many of its time.
const SHARE: u32 = 20;

/// Starts keeping; ends with the core.
pub fn start(runtime: &runtime::Handle, mountpaths: &[PathBuf], id: &VoterId, views: &watch::Receiver<Arc<View>>) {
    for slot in Slot::divide(mountpaths) {
        runtime.spawn(keep(slot, id.clone(), views.clone()));
    }
}

fn news(view: &View, written: Option<Stamp>) -> Option<Arc<State>> {
    view.published.as_ref().filter(|state| Some(state.stamp()) != written).map(Arc::clone)
}

async fn keep(mut slot: Slot, id: VoterId, mut views: watch::Receiver<Arc<View>>) {
    let mut written = None;
    loop {
        let due = views.wait_for(|view| view.role == RoleName::Stopping || news(view, written).is_some()).await;
        let Ok(view) = due.map(|view| Arc::clone(&view)) else { return };
        let Some(state) = news(&view, written).filter(|_| view.role != RoleName::Stopping) else { return };
        let (start, by, stamp) = (Instant::now(), id.clone(), state.stamp());
        let writing = tokio::task::spawn_blocking(move || {
            slot.write(&by, &state);
            slot
        });
        slot = match writing.await {
            Ok(slot) => slot,
            Err(_) => return,
        };
        // One that failed comes again with the next commit.
        written = Some(stamp);
        tokio::time::sleep(PAUSE_LEAST.max(start.elapsed() * SHARE)).await;
    }
}

/// Removes the copies: the node was decommissioned with its data.
pub fn forget(mountpaths: &[PathBuf]) {
    for mountpath in mountpaths {
        if let Err(error) = copies::remove(Path::new(mountpath)) {
            tracing::warn!(mountpath = %mountpath.display(), %error, "cannot remove the copy of the metadata");
        }
    }
}
