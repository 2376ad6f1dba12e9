//! The state directory (protocol.md section 2).
//!
//! | file | holds | written |
//! |---|---|---|
//! | `lock` | nothing; locked while a process runs | never |
//! | `identity` | node id, disk id | once |
//! | `vote` | run, promise, commit stamp, durable length of `state` | in place, two pairs of slots in turn |
//! | `genesis` | founding | as a whole, by rename |
//! | `state` | accepted States | appended, compacted by rename |
//! | `*.bad-SECONDS` | records that were set aside | never; the oldest of many are removed |
//!
//! Every file names the disk id that it belongs to; a file of another disk id is never used. That makes setting aside
//! safe against a crash at any point: the new identity takes its place first, and whatever still bears the old id is
//! set aside at the next start.

pub mod aside;
pub mod copies;
pub mod frame;
pub mod load;
pub mod small;
pub mod states;
pub mod vote;
pub mod writer;

pub use load::{Lock, Opened, Wanted, open};
pub use writer::{Report, Writer};

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ais_ha::{Genesis, Persist, Vote, Write};
use ais_meta::{ClusterUuid, DiskId, NodeId, Stamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use frame::FileKind;
use states::StateFile;
use vote::{Record, VoteFile};

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub enum DiskError {
    /// IO.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("the state directory {0} is locked: another process uses it")]
    Locked(PathBuf),
    /// Its checksum is good but this program does not understand it; nothing was touched.
    #[error("{0}; the state directory was written by a newer version and is left as it is")]
    Newer(String),
    /// Its lost records, or copies elsewhere, name another cluster than the configuration; nothing was touched.
    #[error(
        "what is left of this node's records belongs to cluster {found}, the configuration says {wanted}: correct it, or give the node an empty disk"
    )]
    Foreign {
        /// Theirs.
        found: ClusterUuid,
        /// The configuration's.
        wanted: ClusterUuid,
    },
    /// Its records are lost and the copies elsewhere are of no use.
    #[error(transparent)]
    Copies(#[from] copies::CopiesError),
    /// It is another node's.
    #[error("the state directory belongs to node '{found}', this is node '{wanted}'")]
    WrongNode {
        /// Whose it is.
        found: NodeId,
        /// Who asks.
        wanted: NodeId,
    },
}

impl DiskError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Content of `identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node that the directory belongs to.
    pub node: NodeId,
    /// When it was made: unix milliseconds, shown only.
    pub formatted_unix_ms: u64,
    /// Made in place of records that were lost: the node may join, never found.
    pub join_only: bool,
    /// The cluster that those named: the only one to join.
    #[serde(default)]
    pub cluster: Option<ClusterUuid>,
}

/// What waits to be written.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// The highest token.
    pub token: ais_ha::Token,
    /// The newest promise.
    pub vote: Vote,
    /// The newest founding record, if it changed.
    pub genesis: Option<Genesis>,
    /// Accepted States in order.
    pub writes: Vec<Write>,
    /// Newest committed stamp.
    pub committed: Stamp,
}

/// Beyond so many queued writes only the last State is kept, whole.
const WRITES_MAX: usize = 64;

impl Work {
    /// Puts a later persist on top.
    pub fn add(&mut self, persist: Persist) {
        self.token = self.token.max(persist.token);
        self.vote = persist.vote;
        self.committed = self.committed.max(persist.committed);
        if persist.genesis.is_some() {
            self.genesis = persist.genesis;
        }
        if let Some(write) = persist.accepted {
            self.push(write);
        }
    }

    /// Puts later work on top.
    pub fn stack(&mut self, later: Self) {
        self.token = self.token.max(later.token);
        self.vote = later.vote;
        self.committed = self.committed.max(later.committed);
        if later.genesis.is_some() {
            self.genesis = later.genesis;
        }
        for write in later.writes {
            self.push(write);
        }
    }

    fn push(&mut self, write: Write) {
        if self.writes.len() >= WRITES_MAX {
            self.writes.clear();
            self.writes.push(Write { state: write.state, deltas: Vec::new() });
        } else {
            self.writes.push(write);
        }
    }
}

/// The open files of one disk.
pub struct Store {
    directory: PathBuf,
    disk: DiskId,
    vote: VoteFile,
    state: StateFile,
    /// For tests: a slow disk.
    fsync_delay: Duration,
}

impl Store {
    /// Makes the work durable. After an error the same work, or more, is tried again.
    ///
    /// # Errors
    /// IO.
    pub fn write(&mut self, work: &Work) -> io::Result<()> {
        self.state.commit(work.committed);
        let promise_changed = self.vote.durable().vote != work.vote;
        let must_sync = promise_changed || work.genesis.is_some() || !work.writes.is_empty();
        if must_sync && !self.fsync_delay.is_zero() {
            std::thread::sleep(self.fsync_delay);
        }
        // The State goes first: it proves that its cluster is formed (see `load`), while a founding record that says
        // "formed" without a State would be the founder's only one.
        self.state.write(&work.writes)?;
        self.state.commit(work.committed);
        if let Some(genesis) = &work.genesis {
            small::replace_value(&self.directory, FileKind::Genesis, frame::kind::GENESIS, self.disk, genesis)?;
        }
        let old = self.vote.durable();
        let (state_generation, state_length) = self.state.extent();
        let record = Record {
            counter: 0,
            run: old.run,
            vote: work.vote.clone(),
            committed: work.committed.max(old.committed),
            state_generation,
            state_length,
        };
        // An accepted State of this very promise implies it (effective promise, protocol.md section 2): one sync.
        if promise_changed && !self.implied(&work.vote) {
            self.vote.write(&record)
        } else {
            self.vote.write_lazily(&record)
        }
    }

    fn implied(&self, vote: &Vote) -> bool {
        self.state.accepted().is_some_and(|state| load::promise_of(state) == *vote)
    }
}
