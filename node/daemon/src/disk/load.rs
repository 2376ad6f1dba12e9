//! Opening, formatting and setting aside a state directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ais_ha::{Genesis, HardState, Vote};
use ais_meta::{ClusterUuid, DiskId, NodeId, Stamp, State};

use super::frame::{self, FileKind, FrameError};
use super::states::{self, StateFile};
use super::vote::{self, Record, VoteFile};
use super::{DiskError, Identity, Store, aside, copies, small};
use crate::clock;

/// How long a start waits for the lock: the process before may be at its last breath, and `inspect` holds it briefly.
const LOCK_WAIT: Duration = Duration::from_secs(2);
pub(super) const FILES: [FileKind; 4] = [FileKind::Identity, FileKind::Vote, FileKind::Genesis, FileKind::State];

/// The directory's lock, held while this lives.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it for a process that writes.
    ///
    /// # Errors
    /// [`DiskError::Locked`] after two seconds, or IO.
    pub fn exclusive(directory: &Path) -> Result<Self, DiskError> {
        let path = directory.join("lock");
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(DiskError::io("open", &path))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                Err(TryLockError::WouldBlock) => return Err(DiskError::Locked(directory.to_owned())),
                Err(TryLockError::Error(source)) => return Err(DiskError::io("lock", &path)(source)),
            }
        }
    }

    /// Takes it for one who reads; `None` when the directory never had one. Never writes.
    ///
    /// # Errors
    /// [`DiskError::Locked`] at once, or IO.
    pub fn shared(directory: &Path) -> Result<Option<Self>, DiskError> {
        let path = directory.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DiskError::io("open", &path)(e)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked(directory.to_owned())),
            Err(TryLockError::Error(source)) => Err(DiskError::io("lock", &path)(source)),
        }
    }
}

/// The files' bytes; `None` where there is no file.
#[derive(Debug, Default)]
pub struct Files {
    /// `identity`
    pub identity: Option<Vec<u8>>,
    /// `vote`
    pub vote: Option<Vec<u8>>,
    /// `genesis`
    pub genesis: Option<Vec<u8>>,
    /// `state`
    pub state: Option<Vec<u8>>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// IO.
    pub fn read(directory: &Path) -> Result<Self, DiskError> {
        let read = |file: FileKind| {
            let path = directory.join(file.name());
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(DiskError::io("read", &path)(e)),
            }
        };
        Ok(Self {
            identity: read(FileKind::Identity)?,
            vote: read(FileKind::Vote)?,
            genesis: read(FileKind::Genesis)?,
            state: read(FileKind::State)?,
        })
    }
}

/// Records that all read and belong together.
#[derive(Debug)]
pub struct Records {
    /// `identity`
    pub identity: Identity,
    /// The disk.
    pub disk: DiskId,
    /// `vote`
    pub vote: vote::Parsed,
    /// `genesis`
    pub genesis: Genesis,
    /// `state`
    pub state: states::Parsed,
}

/// What the files are.
#[derive(Debug)]
pub enum Found {
    /// Nothing that ever counted.
    Fresh,
    /// A disk.
    Good(Box<Records>),
    /// Damaged; the text says how.
    Bad(String),
}

/// Judges the files. Pure.
///
/// # Errors
/// [`DiskError::Newer`].
pub fn examine(files: &Files) -> Result<Found, DiskError> {
    match examine_frames(files) {
        Ok(records) => Ok(Found::Good(Box::new(records))),
        Err(FrameError::Newer(why)) => Err(DiskError::Newer(why)),
        Err(FrameError::Bad(_)) if files.identity.is_none() && pristine(files) => Ok(Found::Fresh),
        Err(FrameError::Bad(why)) => Ok(Found::Bad(why)),
    }
}

fn present(bytes: Option<&Vec<u8>>, file: FileKind) -> Result<&Vec<u8>, FrameError> {
    bytes.ok_or_else(|| FrameError::Bad(format!("file '{}' is missing", file.name())))
}

fn examine_frames(files: &Files) -> Result<Records, FrameError> {
    let (disk, identity): (_, Identity) = small::parse_value(
        present(files.identity.as_ref(), FileKind::Identity)?,
        FileKind::Identity,
        frame::kind::IDENTITY,
    )?;
    let vote = vote::parse(present(files.vote.as_ref(), FileKind::Vote)?)?;
    let (genesis_disk, genesis) = small::parse_value(
        present(files.genesis.as_ref(), FileKind::Genesis)?,
        FileKind::Genesis,
        frame::kind::GENESIS,
    )?;
    let state = states::parse(present(files.state.as_ref(), FileKind::State)?, vote.record.committed)?;
    for (file, found) in [(FileKind::Vote, vote.disk), (FileKind::Genesis, genesis_disk), (FileKind::State, state.disk)]
    {
        if found != disk {
            return Err(FrameError::Bad(format!("file '{}' belongs to disk {found}, not to {disk}", file.name())));
        }
    }
    let floor = (vote.record.state_generation, vote.record.state_length);
    if state.generation < floor.0 || state.generation == floor.0 && state.length < floor.1 {
        return Err(FrameError::Bad(format!(
            "file 'state' reads to byte {} of generation {}, but byte {} of generation {} was durable",
            state.length, state.generation, floor.1, floor.0
        )));
    }
    Ok(Records { identity, disk, vote, genesis, state })
}

/// Whose directory it is, if that reads.
fn owner(files: &Files) -> Option<NodeId> {
    let parsed = small::parse_value::<Identity>(files.identity.as_ref()?, FileKind::Identity, frame::kind::IDENTITY);
    parsed.ok().map(|(_, identity)| identity.node)
}

/// What formatting leaves when a crash cuts it short: nobody ever acted on it. Whether the disk may only join is
/// decided again from what said so: copies elsewhere. Setting aside writes the identity first and is not mistaken.
fn pristine(files: &Files) -> bool {
    let vote = files.vote.as_ref().is_none_or(|b| {
        vote::parse(b).is_ok_and(|p| p.record == Record { counter: p.record.counter, ..Record::default() })
    });
    let state =
        files.state.as_ref().is_none_or(|b| states::parse(b, Stamp::default()).is_ok_and(|p| p.accepted.is_none()));
    let genesis = files.genesis.as_ref().is_none_or(|b| {
        small::parse_value::<Genesis>(b, FileKind::Genesis, frame::kind::GENESIS)
            .is_ok_and(|(_, g)| matches!(g, Genesis::Unformed | Genesis::JoinOnly))
    });
    vote && state && genesis
}

/// What a process expects of its state directory.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The node that it is.
    pub node: &'a NodeId,
    /// The cluster to belong to, when given. A lost or damaged record of another one is not replaced.
    pub cluster: Option<&'a ClusterUuid>,
    /// Where copies may remember the cluster (protocol.md section 7): a directory without records may then only join.
    pub mountpaths: &'a [PathBuf],
    /// For tests: a slow disk.
    pub fsync_delay: Duration,
}

impl<'a> Wanted<'a> {
    /// Nothing but the node.
    #[must_use]
    pub fn of(node: &'a NodeId) -> Self {
        Self { node, cluster: None, mountpaths: &[], fsync_delay: Duration::ZERO }
    }

    /// A lost record's cluster, unless it is another one than the wanted.
    fn joinable(&self, lost: Option<ClusterUuid>) -> Result<Option<ClusterUuid>, DiskError> {
        match (lost, self.cluster) {
            (Some(found), Some(wanted)) if found != *wanted => {
                Err(DiskError::Foreign { found, wanted: wanted.clone() })
            }
            (lost, _) => Ok(lost),
        }
    }
}

/// A state directory that this process owns.
pub struct Opened {
    /// Keep it until the process ends.
    pub lock: Lock,
    /// The disk.
    pub disk: DiskId,
    /// Raised for this process already, durably.
    pub run: u64,
    /// What the core starts from.
    pub hard: HardState,
    /// For the disk thread.
    pub store: Store,
    /// The directory was formatted now.
    pub fresh: bool,
    /// Records were set aside now; the text says why.
    pub set_aside: Option<String>,
    /// The cluster that a disk without record may join, when lost records named one.
    pub join: Option<ClusterUuid>,
}

/// The promise that an accepted State implies (protocol.md rule 6).
#[must_use]
pub fn promise_of(state: &State) -> Vote {
    let stamp = state.stamp();
    Vote { incarnation: stamp.incarnation, promised: stamp.epoch, voted_for: Some(state.primary().clone()) }
}

/// Locks the directory, formats it if it is new, sets damaged records aside, and raises `run`.
///
/// # Errors
/// [`DiskError`].
pub fn open(directory: &Path, wanted: &Wanted<'_>) -> Result<Opened, DiskError> {
    fs::create_dir_all(directory).map_err(DiskError::io("create", directory))?;
    let lock = Lock::exclusive(directory)?;
    for file in FILES {
        // Left by a crash before its rename: never counted.
        small::discard(directory, file)
            .map_err(DiskError::io("remove what a crash left of", &directory.join(file.name())))?;
    }
    let writing = || DiskError::io("write", directory);
    let files = Files::read(directory)?;
    if let Some(found) = owner(&files).filter(|found| found != wanted.node) {
        return Err(DiskError::WrongNode { found, wanted: wanted.node.clone() });
    }
    // Read only when they matter: a foreign data disk does not stop a node whose own records are good.
    let mut remembered = None;
    let mut recall = || -> Result<Option<ClusterUuid>, DiskError> {
        remembered = copies::recall(wanted.mountpaths)?;
        Ok(remembered.as_ref().map(|r| r.uuid.clone()))
    };
    let (found, fresh, set_aside) = match examine(&files)? {
        Found::Good(records) => (*records, false, None),
        Found::Fresh => {
            let join = wanted.joinable(recall()?)?;
            format(directory, wanted.node, join).map_err(writing())?;
            (again(directory)?, true, None)
        }
        Found::Bad(why) => {
            let join = match aside::cluster_of(&files) {
                Some(known) => Some(known),
                None => recall()?,
            };
            let join = wanted.joinable(join)?;
            aside::put_aside(directory, wanted.node, join).map_err(writing())?;
            (again(directory)?, false, Some(why))
        }
    };
    let mut hard = hard_state(&found);
    let join = found.identity.cluster.clone().filter(|_| hard.genesis == Genesis::JoinOnly);
    if join.is_some() && remembered.is_none() {
        remembered = copies::recall(wanted.mountpaths)?;
    }
    hard.remembered = remembered.filter(|r| join.as_ref() == Some(&r.uuid));
    let run = found.vote.record.run + 1;
    let mut vote = VoteFile::open(directory, found.vote).map_err(writing())?;
    let read = files.state.filter(|_| !fresh && set_aside.is_none()).unwrap_or_default();
    let state = StateFile::open(directory, &read, found.state).map_err(writing())?;
    let record = Record { run, ..vote.durable().clone() };
    vote.write(&record).map_err(writing())?;
    let store =
        Store { directory: directory.to_owned(), disk: found.disk, vote, state, fsync_delay: wanted.fsync_delay };
    Ok(Opened { lock, disk: found.disk, run, hard, store, fresh, set_aside, join })
}

/// What the core starts from.
#[must_use]
pub fn hard_state(found: &Records) -> HardState {
    let accepted = found.state.accepted.clone();
    let mut vote = found.vote.record.vote.clone();
    let mut genesis = found.genesis.clone();
    if let Some(state) = &accepted {
        let implied = promise_of(state);
        if (implied.incarnation, implied.promised) >= (vote.incarnation, vote.promised) {
            vote = implied;
        }
        // Whoever was told a State is a member of a formed cluster; the crash came before its founding record.
        if !genesis.is_formed() {
            genesis = Genesis::Formed(state.uuid().clone());
        }
    }
    HardState { vote, genesis, accepted, committed: found.state.committed.clone(), remembered: None }
}

fn again(directory: &Path) -> Result<Records, DiskError> {
    match examine(&Files::read(directory)?)? {
        Found::Good(records) => Ok(*records),
        _ => Err(DiskError::io("read back", directory)(io::Error::other("what was just written does not read"))),
    }
}

pub(super) fn fresh_disk() -> io::Result<DiskId> {
    getrandom::u64().map(DiskId).map_err(io::Error::other)
}

pub(super) fn write_identity(
    directory: &Path,
    disk: DiskId,
    node: &NodeId,
    join_only: bool,
    cluster: Option<ClusterUuid>,
) -> io::Result<()> {
    let identity = Identity { node: node.clone(), formatted_unix_ms: clock::unix_ms(), join_only, cluster };
    small::replace_value(directory, FileKind::Identity, frame::kind::IDENTITY, disk, &identity)
}

pub(super) fn write_empty(directory: &Path, disk: DiskId, genesis: &Genesis) -> io::Result<()> {
    VoteFile::create(directory, disk, Record { counter: 1, ..Record::default() })?;
    StateFile::create(directory, disk)?;
    small::replace_value(directory, FileKind::Genesis, frame::kind::GENESIS, disk, genesis)
}

/// The identity comes last: it makes the directory count. A node whose lost records named a cluster only joins that.
fn format(directory: &Path, node: &NodeId, join: Option<ClusterUuid>) -> io::Result<()> {
    let disk = fresh_disk()?;
    let genesis = if join.is_some() { Genesis::JoinOnly } else { Genesis::Unformed };
    write_empty(directory, disk, &genesis)?;
    write_identity(directory, disk, node, join.is_some(), join)?;
    if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
        small::sync_directory(parent)?;
    }
    Ok(())
}
