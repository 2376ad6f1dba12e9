//! Setting records aside (protocol.md sections 2 and 5): damaged ones, and whole ones that others know to be stale.
//!
//! Nothing is deleted but the oldest of many sets: an administrator may want to look at what a disk held.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ais_ha::{Ended, Genesis};
use ais_meta::{ClusterUuid, NodeId, Stamp};

use super::frame::{self, FileKind};
use super::load::{Files, Lock};
use super::{DiskError, Identity, load, small, states};
use crate::clock;

/// Sets of set-aside records that are kept.
pub const SETS_MAX: usize = 4;

/// The cluster that the records speak of, as far as any of them reads.
#[must_use]
pub fn cluster_of(files: &Files) -> Option<ClusterUuid> {
    let genesis = files.genesis.as_ref().and_then(|bytes| {
        let (_, genesis) = small::parse_value::<Genesis>(bytes, FileKind::Genesis, frame::kind::GENESIS).ok()?;
        if let Genesis::Formed(uuid) = genesis { Some(uuid) } else { None }
    });
    let state = || {
        let parsed = states::parse(files.state.as_ref()?, Stamp::default()).ok()?;
        parsed.accepted.map(|state| state.uuid().clone())
    };
    let identity = || {
        let bytes = files.identity.as_ref()?;
        small::parse_value::<Identity>(bytes, FileKind::Identity, frame::kind::IDENTITY).ok()?.1.cluster
    };
    genesis.or_else(state).or_else(identity)
}

/// Puts a new disk in place of the records, which may only join `cluster` (any, when it is not known).
///
/// # Errors
/// IO; the same call, or the next start, goes on.
pub fn put_aside(directory: &Path, node: &NodeId, cluster: Option<ClusterUuid>) -> io::Result<()> {
    replace(directory, node, cluster, &Genesis::JoinOnly)
}

/// The new identity comes first: from then on nothing of the old disk counts, whenever a crash comes. Cut short, the
/// disk may only join, whatever `genesis` would say.
fn replace(directory: &Path, node: &NodeId, cluster: Option<ClusterUuid>, genesis: &Genesis) -> io::Result<()> {
    let disk = load::fresh_disk()?;
    let at = free_time(directory)?;
    let bad = |file: FileKind| -> PathBuf { directory.join(format!("{}.bad-{at}", file.name())) };
    let identity = directory.join(FileKind::Identity.name());
    if identity.exists() {
        fs::hard_link(&identity, bad(FileKind::Identity))?;
    }
    load::write_identity(directory, disk, node, true, cluster)?;
    for file in [FileKind::Vote, FileKind::Genesis, FileKind::State] {
        let path = directory.join(file.name());
        if path.exists() {
            fs::rename(&path, bad(file))?;
        }
    }
    small::sync_directory(directory)?;
    load::write_empty(directory, disk, genesis)?;
    prune(directory)
}

/// Sets aside what a running process held, at its end: its disk thread must have ended.
///
/// # Errors
/// [`DiskError`].
pub fn set_aside(directory: &Path, node: &NodeId, _held: &Lock) -> Result<(), DiskError> {
    set_aside_as(directory, node, &Genesis::JoinOnly)
}

fn set_aside_as(directory: &Path, node: &NodeId, genesis: &Genesis) -> Result<(), DiskError> {
    let cluster = cluster_of(&Files::read(directory)?);
    replace(directory, node, cluster, genesis).map_err(DiskError::io("set aside the records in", directory))
}

/// Forgets everything of a cluster that let this node go: no record of it is kept, and the new disk may only join. Of
/// one that has ended altogether it keeps that.
///
/// # Errors
/// [`DiskError`].
pub fn empty(directory: &Path, node: &NodeId, _held: &Lock, ended: Option<&Ended>) -> Result<(), DiskError> {
    let genesis = ended.map_or(Genesis::JoinOnly, |end| Genesis::Ended(end.clone()));
    set_aside_as(directory, node, &genesis)?;
    let wipe = || sets(directory)?.iter().try_for_each(|at| remove(directory, *at));
    wipe().map_err(DiskError::io("empty", directory))
}

/// Names of set-aside files, oldest first.
///
/// # Errors
/// IO.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(at) = time_of(&name) {
            found.push((at, name));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

fn time_of(name: &str) -> Option<u64> {
    let (file, at) = name.split_once(".bad-")?;
    load::FILES.iter().find(|known| known.name() == file)?;
    at.parse().ok()
}

fn sets(directory: &Path) -> io::Result<BTreeSet<u64>> {
    Ok(names(directory)?.iter().filter_map(|name| time_of(name)).collect())
}

/// Unix seconds, later than all sets that are there.
fn free_time(directory: &Path) -> io::Result<u64> {
    let last = sets(directory)?.last().copied().unwrap_or(0);
    Ok((clock::unix_ms() / 1000).max(last.saturating_add(1)))
}

fn remove(directory: &Path, at: u64) -> io::Result<()> {
    for file in load::FILES {
        match fs::remove_file(directory.join(format!("{}.bad-{at}", file.name()))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn prune(directory: &Path) -> io::Result<()> {
    let sets = sets(directory)?;
    let surplus = sets.len().saturating_sub(SETS_MAX);
    sets.iter().take(surplus).try_for_each(|at| remove(directory, *at))
}
