//! The `vote` file: promise, run, and what is known lazily.
//!
//! Four preallocated slots of one block each, as two pairs; a write fills both slots of the pair that is *not* the
//! newest durable one, so a crash in the middle of it loses nothing that was synced, and one damaged block is healed
//! by its twin. Raising a promise never rewrites bodies, and never needs room on a full disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ais_ha::Vote;
use ais_meta::{DiskId, Stamp};
use serde::{Deserialize, Serialize};

use super::frame::{self, FileKind, FrameError, Header};
use super::small;

const BLOCK: usize = 4096;
const SLOTS: usize = 4;
/// The file never changes its length; another one is damage.
const LENGTH: usize = BLOCK * (1 + SLOTS);

/// Content of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The higher one counts.
    pub counter: u64,
    /// Raised at each start.
    pub run: u64,
    /// The promise.
    pub vote: Vote,
    /// Newest committed stamp that was known; may lag.
    pub committed: Stamp,
    /// Generation of the `state` file that `state_length` speaks of.
    pub state_generation: u64,
    /// So much of the `state` file was durable; may lag. A file that reads shorter has lost acknowledged records.
    pub state_length: u64,
}

/// The open file.
pub struct VoteFile {
    file: File,
    /// The newest record that is durable.
    durable: Record,
    /// The pair that holds it.
    pair: usize,
}

impl VoteFile {
    /// Bytes of a new file.
    fn fresh(disk: DiskId, record: &Record) -> Result<Vec<u8>, FrameError> {
        let mut bytes = vec![0; LENGTH];
        bytes[..frame::HEADER].copy_from_slice(&Header { disk, generation: 0 }.encode(FileKind::Vote));
        let blocks = pair_bytes(record)?;
        bytes[BLOCK..3 * BLOCK].copy_from_slice(&blocks);
        Ok(bytes)
    }

    /// Makes the file anew, durably.
    ///
    /// # Errors
    /// IO.
    pub fn create(directory: &Path, disk: DiskId, record: Record) -> io::Result<Self> {
        let bytes = Self::fresh(disk, &record).map_err(io::Error::other)?;
        let path = small::replace(directory, FileKind::Vote, &bytes)?;
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { file, durable: record, pair: 0 })
    }

    /// Opens the file whose bytes were read by [`parse`].
    ///
    /// # Errors
    /// IO.
    pub fn open(directory: &Path, parsed: Parsed) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(directory.join(FileKind::Vote.name()))?;
        // What was read may be a lazy write that only the page cache knows; the other pair is about to be overwritten.
        file.sync_all()?;
        Ok(Self { file, durable: parsed.record, pair: parsed.pair })
    }

    /// The newest durable record.
    #[must_use]
    pub fn durable(&self) -> &Record {
        &self.durable
    }

    /// Writes without syncing: may be lost, harms nothing.
    ///
    /// # Errors
    /// IO.
    pub fn write_lazily(&mut self, record: &Record) -> io::Result<()> {
        let record = Record { counter: self.durable.counter + 1, ..record.clone() };
        let bytes = pair_bytes(&record).map_err(io::Error::other)?;
        let start = BLOCK * (1 + 2 * (1 - self.pair));
        self.file.write_all_at(&bytes, start as u64)
    }

    /// Writes and syncs. After an error the same call is repeated: it writes all bytes again, because a failed sync
    /// says nothing about what later ones will do with the old pages.
    ///
    /// # Errors
    /// IO.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.write_lazily(record)?;
        self.file.sync_data()?;
        self.durable = Record { counter: self.durable.counter + 1, ..record.clone() };
        self.pair = 1 - self.pair;
        Ok(())
    }
}

fn pair_bytes(record: &Record) -> Result<Vec<u8>, FrameError> {
    let mut slot = Vec::with_capacity(2 * BLOCK);
    frame::push_record(&mut slot, frame::kind::VOTE, &frame::encode("vote", record)?)?;
    if slot.len() > BLOCK {
        return Err(FrameError::Bad(format!("a vote of {} bytes does not fit", slot.len())));
    }
    slot.resize(BLOCK, 0);
    slot.extend_from_within(..);
    Ok(slot)
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Its disk.
    pub disk: DiskId,
    /// Its newest record.
    pub record: Record,
    pair: usize,
    /// Blocks that did not read (a write was cut short, or a twin healed them).
    pub bad_slots: usize,
}

/// Reads the file's bytes.
///
/// # Errors
/// [`FrameError`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, FrameError> {
    let header = Header::decode(FileKind::Vote, bytes)?;
    if bytes.len() != LENGTH {
        return Err(FrameError::Bad(format!("file 'vote' has {} bytes, not {LENGTH}", bytes.len())));
    }
    let mut best: Option<(Record, usize)> = None;
    let mut bad_slots = 0;
    for slot in 0..SLOTS {
        let block = &bytes[BLOCK * (1 + slot)..BLOCK * (2 + slot)];
        match frame::only_record(block, 0, frame::kind::VOTE) {
            Ok(payload) => {
                let record: Record = frame::decode("vote", payload)?;
                if best.as_ref().is_none_or(|(b, _)| record.counter > b.counter) {
                    best = Some((record, slot / 2));
                }
            }
            Err(FrameError::Bad(_)) => bad_slots += 1,
            Err(newer) => return Err(newer),
        }
    }
    match best {
        Some((record, pair)) => Ok(Parsed { disk: header.disk, record, pair, bad_slots }),
        None => Err(FrameError::Bad("no slot of file 'vote' reads".to_owned())),
    }
}
