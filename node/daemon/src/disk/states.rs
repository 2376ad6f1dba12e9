//! The `state` file: the accepted State as a snapshot and changes appended to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ais_ha::Write;
use ais_meta::state::Full;
use ais_meta::{Delta, DiskId, Stamp, State};

use super::frame::{self, FileKind, FrameError, Header, Next};
use super::small;

/// Appended bytes below which the file is never compacted.
const COMPACT_MIN: u64 = 1 << 20;
/// States between the committed and the accepted one that are held for the next compaction.
const RECENT_MAX: usize = 64;

/// The open file.
pub struct StateFile {
    directory: PathBuf,
    disk: DiskId,
    file: File,
    generation: u64,
    /// Everything before it is durable.
    length: u64,
    /// Bytes of the snapshot at its start.
    snapshot: u64,
    accepted: Option<Arc<State>>,
    committed: Option<Arc<State>>,
    /// Accepted ones that may turn out to be committed.
    recent: BTreeMap<Stamp, Arc<State>>,
    /// Appended bytes after which it is compacted.
    compact_at: u64,
    /// A sync failed: what the old file holds is not known any more, only writing all of it anew is safe.
    suspect: bool,
}

impl StateFile {
    /// Makes an empty file, durably.
    ///
    /// # Errors
    /// IO.
    pub fn create(directory: &Path, disk: DiskId) -> io::Result<Self> {
        let path = small::replace(directory, FileKind::State, &Header { disk, generation: 1 }.encode(FileKind::State))?;
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self {
            directory: directory.to_owned(),
            disk,
            file,
            generation: 1,
            length: frame::HEADER as u64,
            snapshot: 0,
            accepted: None,
            committed: None,
            recent: BTreeMap::new(),
            compact_at: COMPACT_MIN,
            suspect: false,
        })
    }

    /// Opens the file, cuts off what a crash left, and makes durable what was `read` of it and given to [`parse`];
    /// nothing, if this process wrote it.
    ///
    /// # Errors
    /// IO.
    pub fn open(directory: &Path, read: &[u8], parsed: Parsed) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(directory.join(FileKind::State.name()))?;
        if parsed.torn_bytes > 0 {
            file.set_len(parsed.length)?;
        }
        // What we read must be durable before we answer with it. The process before may have ended between a write and
        // its sync; or the sync failed, and the system dropped the error with the page: it takes for clean what the disk
        // never got, and no sync of ours would say so. All of it is written again, in place, which needs no room.
        let length = usize::try_from(parsed.length).map_err(io::Error::other)?;
        file.write_all_at(read.get(..length).unwrap_or_default(), 0)?;
        file.sync_all()?;
        let recent = parsed.accepted.iter().chain(&parsed.committed).map(|s| (s.stamp(), Arc::clone(s))).collect();
        Ok(Self {
            directory: directory.to_owned(),
            disk: parsed.disk,
            file,
            generation: parsed.generation,
            length: parsed.length,
            snapshot: parsed.snapshot,
            accepted: parsed.accepted,
            committed: parsed.committed,
            recent,
            compact_at: COMPACT_MIN.max(2 * parsed.snapshot),
            suspect: false,
        })
    }

    /// Which file, and how much of it is durable.
    #[must_use]
    pub fn extent(&self) -> (u64, u64) {
        (self.generation, self.length)
    }

    /// The newest State written.
    #[must_use]
    pub fn accepted(&self) -> Option<&Arc<State>> {
        self.accepted.as_ref()
    }

    /// Makes the writes durable, in order. After an error nothing of them counts and the call is repeated.
    ///
    /// # Errors
    /// IO.
    pub fn write(&mut self, writes: &[Write]) -> io::Result<()> {
        let Some(last) = writes.last() else { return Ok(()) };
        for write in writes {
            self.remember(&write.state);
        }
        let appended = self.length.saturating_sub(frame::HEADER as u64 + self.snapshot);
        let bytes = self.append_bytes(writes)?;
        let appended = appended + bytes.len() as u64;
        if self.suspect {
            return self.rewrite(&last.state);
        }
        if appended > self.compact_at {
            match self.rewrite(&last.state) {
                // No room for a second file: nothing is lost, the first one goes on while it can.
                Err(error) if !self.suspect => {
                    tracing::warn!(%error, "the state file cannot be compacted now");
                    self.compact_at = appended + COMPACT_MIN;
                }
                done => return done,
            }
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            // Gives the room back; should that fail too, the next try writes over it.
            drop(self.file.set_len(self.length));
            return Err(error);
        }
        if let Err(error) = self.file.sync_data() {
            self.suspect = true;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.accepted = Some(Arc::clone(&last.state));
        Ok(())
    }

    /// Notes what is committed; not durable of itself.
    pub fn commit(&mut self, stamp: Stamp) {
        if let Some(state) = self.recent.get(&stamp) {
            self.committed = Some(Arc::clone(state));
            self.recent = self.recent.split_off(&stamp);
        }
    }

    fn remember(&mut self, state: &Arc<State>) {
        self.recent.insert(state.stamp(), Arc::clone(state));
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }

    fn append_bytes(&self, writes: &[Write]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = self.accepted.as_ref().map(|s| (s.stamp(), s.digest()));
        for write in writes {
            if chained(at, write) {
                for delta in &write.deltas {
                    push(&mut bytes, frame::kind::DELTA, &**delta)?;
                }
            } else {
                push(&mut bytes, frame::kind::FULL, &write.state.full())?;
            }
            at = Some((write.state.stamp(), write.state.digest()));
        }
        Ok(bytes)
    }

    /// Compaction: the newest committed State and the accepted one, in a new file.
    fn rewrite(&mut self, accepted: &Arc<State>) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut bytes = Header { disk: self.disk, generation }.encode(FileKind::State).to_vec();
        match &self.committed {
            Some(committed) if committed == accepted => push(&mut bytes, frame::kind::COMMITTED, &committed.full())?,
            Some(committed) => {
                push(&mut bytes, frame::kind::COMMITTED, &committed.full())?;
                push(&mut bytes, frame::kind::FULL, &accepted.full())?;
            }
            None => push(&mut bytes, frame::kind::FULL, &accepted.full())?,
        }
        small::prepare(&self.directory, FileKind::State, &bytes)?;
        // Until the end of this call it is open which file has the name.
        self.suspect = true;
        let path = small::put(&self.directory, FileKind::State)?;
        self.file = File::options().read(true).write(true).open(path)?;
        self.generation = generation;
        self.length = bytes.len() as u64;
        self.snapshot = self.length - frame::HEADER as u64;
        self.compact_at = COMPACT_MIN.max(2 * self.snapshot);
        self.accepted = Some(Arc::clone(accepted));
        self.suspect = false;
        Ok(())
    }
}

/// Whether the write's changes lead from `at` to its State.
fn chained(at: Option<(Stamp, ais_meta::Digest)>, write: &Write) -> bool {
    let Some(mut at) = at else { return false };
    for delta in &write.deltas {
        if (delta.base, delta.base_digest) != at {
            return false;
        }
        at = (delta.stamp, delta.digest);
    }
    !write.deltas.is_empty() && at == (write.state.stamp(), write.state.digest())
}

fn push<T: serde::Serialize>(bytes: &mut Vec<u8>, kind: u8, value: &T) -> io::Result<()> {
    let payload = frame::encode("state", value).map_err(io::Error::other)?;
    frame::push_record(bytes, kind, &payload).map_err(io::Error::other)
}

/// What the file says.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Its disk.
    pub disk: DiskId,
    /// Counts compactions.
    pub generation: u64,
    /// Bytes that read.
    pub length: u64,
    /// Bytes of whole States at its start.
    pub snapshot: u64,
    /// Bytes after that, left by a crash.
    pub torn_bytes: u64,
    /// The accepted State.
    pub accepted: Option<Arc<State>>,
    /// The newest one that is known to be committed.
    pub committed: Option<Arc<State>>,
    /// One line per record: kind, bytes, stamp.
    pub records: Vec<(u8, usize, Stamp)>,
}

/// Reads the file's bytes. `committed`: the stamp that the vote file knows.
///
/// # Errors
/// [`FrameError`].
pub fn parse(bytes: &[u8], committed: Stamp) -> Result<Parsed, FrameError> {
    let header = Header::decode(FileKind::State, bytes)?;
    let mut parsed = Parsed {
        disk: header.disk,
        generation: header.generation,
        length: frame::HEADER as u64,
        snapshot: 0,
        torn_bytes: 0,
        accepted: None,
        committed: None,
        records: Vec::new(),
    };
    let mut at = frame::HEADER;
    loop {
        let (kind, payload, end) = match frame::next_record(bytes, at)? {
            Next::Record { kind, payload, end } => (kind, payload, end),
            Next::End => return Ok(parsed),
            Next::Torn => {
                parsed.torn_bytes = (bytes.len() - at) as u64;
                return Ok(parsed);
            }
        };
        let state = Arc::new(replay(parsed.accepted.as_ref(), kind, payload)?);
        if kind != frame::kind::DELTA && parsed.length == frame::HEADER as u64 + parsed.snapshot {
            parsed.snapshot += (end - at) as u64;
        }
        if kind == frame::kind::COMMITTED || state.stamp() == committed {
            parsed.committed = Some(Arc::clone(&state));
        }
        parsed.records.push((kind, payload.len(), state.stamp()));
        parsed.accepted = Some(state);
        (at, parsed.length) = (end, end as u64);
    }
}

fn replay(before: Option<&Arc<State>>, kind: u8, payload: &[u8]) -> Result<State, FrameError> {
    let newer = |e: ais_meta::state::StateError| FrameError::Newer(format!("file 'state': {e}"));
    match kind {
        frame::kind::FULL | frame::kind::COMMITTED => {
            let full: Full = frame::decode("state", payload)?;
            State::from_full(&full).map_err(newer)
        }
        frame::kind::DELTA => {
            let delta: Delta = frame::decode("state", payload)?;
            let before = before.ok_or_else(|| FrameError::Newer("file 'state' starts with a change".to_owned()))?;
            before.apply(&delta).map_err(newer)
        }
        other => Err(FrameError::Newer(format!("file 'state' has a record of kind {other}"))),
    }
}
