//! Copies of the committed State on a target's data disks (protocol.md section 7): never votes. After a lost state
//! directory they name the cluster and whom to ask; an administrator may look at them as well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ais_ha::Remembered;
use ais_meta::state::Full;
use ais_meta::{DiskId, NodeId, State, Voter, VoterId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::{self, FileKind, FrameError, Header, Next};
use super::small;
use crate::clock;

/// Data disks that keep one.
pub const COPIES: usize = 2;

/// Who wrote a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    node: NodeId,
    written_unix_ms: u64,
}

/// A copy as it was read.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Whose it is; its disk is the one of the state directory then.
    pub id: VoterId,
    /// When it was written; shown only.
    pub written_unix_ms: u64,
    /// A committed State.
    pub state: State,
}

/// Why what copies say cannot be used.
#[derive(Debug, Error)]
pub enum CopiesError {
    /// They contradict each other.
    #[error("{one} holds a copy of cluster {}, {other} one of cluster {}: take out the disk that is not this node's", clusters.0, clusters.1)]
    Different {
        /// A data disk.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// Their clusters.
        clusters: (ais_meta::ClusterUuid, ais_meta::ClusterUuid),
    },
    /// Its checksum is good but this program does not understand it.
    #[error("{0}: {1}; it was written by a newer version")]
    Newer(PathBuf, String),
}

/// Writes one, durably, in place of the one before.
///
/// # Errors
/// IO; the one before stays then.
pub fn write(mountpath: &Path, id: &VoterId, state: &State) -> io::Result<()> {
    let origin = Origin { node: id.node.clone(), written_unix_ms: clock::unix_ms() };
    let mut bytes = Header { disk: id.disk, generation: 0 }.encode(FileKind::Copy).to_vec();
    let mut push = |kind, payload: Result<Vec<u8>, FrameError>| {
        payload.and_then(|payload| frame::push_record(&mut bytes, kind, &payload)).map_err(io::Error::other)
    };
    push(frame::kind::ORIGIN, frame::encode("copy", &origin))?;
    push(frame::kind::COMMITTED, frame::encode("copy", &state.full()))?;
    small::replace(mountpath, FileKind::Copy, &bytes).map(drop)
}

/// Removes it, with what a crash left of one.
///
/// # Errors
/// IO.
pub fn remove(mountpath: &Path) -> io::Result<()> {
    small::discard(mountpath, FileKind::Copy)?;
    match fs::remove_file(mountpath.join(FileKind::Copy.name())) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Reads its bytes.
///
/// # Errors
/// [`FrameError`].
pub fn parse(bytes: &[u8]) -> Result<Copy, FrameError> {
    let header = Header::decode(FileKind::Copy, bytes)?;
    let disk: DiskId = header.disk;
    let record = |at, want| match frame::next_record(bytes, at)? {
        Next::Record { kind, payload, end } if kind == want => Ok((payload, end)),
        Next::Record { kind, .. } => Err(FrameError::Newer(format!("record kind {kind} where {want} is expected"))),
        Next::End | Next::Torn => Err(FrameError::Bad("the copy is not whole".to_owned())),
    };
    let (payload, at) = record(frame::HEADER, frame::kind::ORIGIN)?;
    let origin: Origin = frame::decode("copy", payload)?;
    let (payload, end) = record(at, frame::kind::COMMITTED)?;
    if end != bytes.len() {
        return Err(FrameError::Bad("bytes after the copy".to_owned()));
    }
    let full: Full = frame::decode("copy", payload)?;
    let state = State::from_full(&full).map_err(|e| FrameError::Newer(e.to_string()))?;
    Ok(Copy { id: VoterId::new(origin.node, disk), written_unix_ms: origin.written_unix_ms, state })
}

/// Reads one; `None` where there is none.
///
/// # Errors
/// Text of what is wrong with it.
pub fn read(mountpath: &Path) -> Result<Option<Copy>, FrameError> {
    match fs::read(mountpath.join(FileKind::Copy.name())) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FrameError::Bad(format!("cannot be read: {e}"))),
    }
}

/// What the data disks remember: the newest State among their copies. Damaged copies are passed over; the next commit
/// writes them anew.
///
/// # Errors
/// [`CopiesError`]: a foreign disk must not decide where this node belongs.
pub fn recall(mountpaths: &[PathBuf]) -> Result<Option<Remembered>, CopiesError> {
    let mut best: Option<(&PathBuf, Copy)> = None;
    for mountpath in mountpaths {
        let copy = match read(mountpath) {
            Ok(Some(copy)) => copy,
            Ok(None) => continue,
            Err(FrameError::Newer(why)) => return Err(CopiesError::Newer(mountpath.clone(), why)),
            Err(FrameError::Bad(why)) => {
                tracing::warn!(mountpath = %mountpath.display(), %why, "the copy of the metadata cannot be used");
                continue;
            }
        };
        if let Some((one, known)) = &best
            && known.state.uuid() != copy.state.uuid()
        {
            let clusters = (known.state.uuid().clone(), copy.state.uuid().clone());
            return Err(CopiesError::Different { one: (*one).clone(), other: mountpath.clone(), clusters });
        }
        if best.as_ref().is_none_or(|(_, known)| known.state.stamp() < copy.state.stamp()) {
            best = Some((mountpath, copy));
        }
    }
    Ok(best.map(|(_, copy)| Remembered { uuid: copy.state.uuid().clone(), peers: peers(&copy) }))
}

/// Whom to ask: everybody but the node itself. A voter is where the electorate says.
fn peers(copy: &Copy) -> Vec<Voter> {
    let mut known = BTreeMap::new();
    let members = copy.state.nodes().values().map(|node| Voter::from(&**node));
    for voter in copy.state.electorate().iter().cloned().chain(members) {
        if voter.id.node != copy.id.node {
            known.entry(voter.id.node.clone()).or_insert(voter);
        }
    }
    known.into_values().collect()
}

/// What a slot has written where.
#[derive(Debug, Default)]
pub struct Slot {
    /// Data disks that it may use, in this order.
    pub mountpaths: Vec<PathBuf>,
    /// What went wrong last on each.
    problems: BTreeMap<PathBuf, String>,
}

impl Slot {
    /// Divides the data disks, so that a disk that fails is replaced and one that hangs holds up one copy only.
    #[must_use]
    pub fn divide(mountpaths: &[PathBuf]) -> Vec<Self> {
        let of = |slot| mountpaths.iter().skip(slot).step_by(COPIES).cloned().collect();
        let slots = (0..COPIES).map(|slot| Self { mountpaths: of(slot), ..Self::default() });
        slots.filter(|slot| !slot.mountpaths.is_empty()).collect()
    }

    /// Writes the copy to the first of its disks that takes it; whether one did.
    pub fn write(&mut self, id: &VoterId, state: &Arc<State>) -> bool {
        for mountpath in &self.mountpaths {
            match write(mountpath, id, state) {
                Ok(()) => {
                    self.problems.remove(mountpath);
                    return true;
                }
                Err(error) => {
                    let why = error.to_string();
                    // Once per problem, not per try.
                    if self.problems.get(mountpath) != Some(&why) {
                        tracing::warn!(mountpath = %mountpath.display(), %why, "cannot keep a copy of the metadata");
                        self.problems.insert(mountpath.clone(), why);
                    }
                }
            }
        }
        false
    }
}
