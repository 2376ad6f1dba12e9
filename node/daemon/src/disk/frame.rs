//! Bytes of the files in a state directory: one header per file, checksummed records after it. Pure.
//!
//! # Torn or corrupt?
//! An append that a crash cut short was never acknowledged and must not cost the disk; an acknowledged record that no
//! longer reads must. They are told apart as far as bytes allow:
//! * A crash leaves a *prefix*: the file ends inside the record, or everything from some point inside the record to
//!   the end of the file is zero (file systems extend a file with zeros, never with other bytes). Every record ends
//!   in a byte that is not zero and its length has a checksum of its own, so no single damaged byte of a whole record
//!   looks like that. Such a tail is cut off.
//! * Everything else that does not read is damage: the file is set aside (protocol.md section 2).
//!
//! Loss of a whole tail (a file that became shorter) looks like a crash; the length noted in the `vote` file bounds it
//! from below (see [`super::vote`]).

use ais_meta::{DiskId, pack};
use thiserror::Error;

/// Format of all files here.
pub const VERSION: u32 = 1;
/// Bytes of a file's header.
pub const HEADER: usize = 32;
/// Bytes of a record besides its payload.
pub const OVERHEAD: usize = RECORD_HEADER + 1;
/// Largest payload: a State is at most a few megabytes.
pub const PAYLOAD_MAX: usize = 1 << 30;

const RECORD_HEADER: usize = 13;
const TRAILER: u8 = 0xa5;

/// What a file is for; its first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Who the disk is.
    Identity,
    /// Promise, run, commit stamp.
    Vote,
    /// Founding.
    Genesis,
    /// Accepted States.
    State,
    /// A committed State, outside of the state directory.
    Copy,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Identity => b"AISident",
            Self::Vote => b"AISvote\n",
            Self::Genesis => b"AISgenes",
            Self::State => b"AISstate",
            Self::Copy => b"AIScopy\n",
        }
    }

    /// Name in the directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Vote => "vote",
            Self::Genesis => "genesis",
            Self::State => "state",
            Self::Copy => ".ais.state",
        }
    }
}

/// Kinds of records.
pub mod kind {
    /// [`super::super::Identity`].
    pub const IDENTITY: u8 = 1;
    /// [`super::super::vote::Record`].
    pub const VOTE: u8 = 2;
    /// [`ais_ha::Genesis`].
    pub const GENESIS: u8 = 3;
    /// A whole State, accepted.
    pub const FULL: u8 = 4;
    /// A change to the State before it.
    pub const DELTA: u8 = 5;
    /// A whole State, known to be committed when it was written.
    pub const COMMITTED: u8 = 6;
    /// Who wrote a copy.
    pub const ORIGIN: u8 = 7;
}

/// Why bytes do not read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// Damaged: set the file aside.
    #[error("{0}")]
    Bad(String),
    /// Checksum good, content not understood; probably a newer format: stop.
    #[error("{0}")]
    Newer(String),
}

/// A file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The disk that the file belongs to.
    pub disk: DiskId,
    /// Counts rewrites of the file.
    pub generation: u64,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(self, file: FileKind) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(file.magic());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.disk.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.generation.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(file: FileKind, bytes: &[u8]) -> Result<Self, FrameError> {
        let bad = |why: &str| FrameError::Bad(format!("{} of file '{}'", why, file.name()));
        let Some(bytes) = bytes.get(..HEADER) else { return Err(bad("no header")) };
        if crc32c::crc32c(&bytes[..28]) != read_u32(bytes, 28) {
            return Err(bad("bad checksum in the header"));
        }
        if &bytes[..8] != file.magic() {
            return Err(bad("wrong magic"));
        }
        let version = read_u32(bytes, 8);
        if version > VERSION {
            return Err(FrameError::Newer(format!(
                "file '{}' has format {version}; this program reads up to {VERSION}",
                file.name()
            )));
        }
        Ok(Self { disk: DiskId(read_u64(bytes, 12)), generation: read_u64(bytes, 20) })
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Appends one record.
///
/// # Errors
/// When the payload is over [`PAYLOAD_MAX`].
pub fn push_record(out: &mut Vec<u8>, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
    let Some(length) = length else {
        return Err(FrameError::Bad(format!("a record of {} bytes is too long", payload.len())));
    };
    let mut header = [0; RECORD_HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind;
    header[5..9].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let sum = crc32c::crc32c(&header[..9]);
    header[9..].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.push(TRAILER);
    Ok(())
}

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A record.
    Record {
        /// Its kind.
        kind: u8,
        /// Its payload.
        payload: &'a [u8],
        /// Where the next one starts.
        end: usize,
    },
    /// Nothing more.
    End,
    /// What a crash left of an append: cut the file off here.
    Torn,
}

/// Reads the record at `at`; `bytes` is the file to its end.
///
/// # Errors
/// [`FrameError::Bad`] for damage that no crash leaves.
pub fn next_record(bytes: &[u8], at: usize) -> Result<Next<'_>, FrameError> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(Next::End);
    }
    // A crash leaves a prefix, then zeros or nothing.
    let written = rest.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    if rest.len() < RECORD_HEADER || written < RECORD_HEADER && !header_ok(rest) {
        return Ok(Next::Torn);
    }
    if !header_ok(rest) {
        return Err(FrameError::Bad(format!("bad checksum of the record header at byte {at}")));
    }
    let length = read_u32(rest, 0) as usize;
    let end = RECORD_HEADER + length + 1;
    if length > PAYLOAD_MAX || end > rest.len() || written < end {
        return Ok(Next::Torn);
    }
    let payload = &rest[RECORD_HEADER..end - 1];
    if crc32c::crc32c(payload) != read_u32(rest, 5) || rest[end - 1] != TRAILER {
        return Err(FrameError::Bad(format!("bad checksum of the record at byte {at}")));
    }
    Ok(Next::Record { kind: rest[4], payload, end: at + end })
}

fn header_ok(rest: &[u8]) -> bool {
    rest.len() >= RECORD_HEADER && crc32c::crc32c(&rest[..9]) == read_u32(rest, 9)
}

/// Reads the only record of a small file or slot; bytes after it are ignored.
///
/// # Errors
/// [`FrameError::Bad`] unless it is whole, [`FrameError::Newer`] when it is of another kind.
pub fn only_record(bytes: &[u8], at: usize, want: u8) -> Result<&[u8], FrameError> {
    match next_record(bytes, at)? {
        Next::Record { kind, payload, .. } if kind == want => Ok(payload),
        Next::Record { kind, .. } => Err(FrameError::Newer(format!("record kind {kind} where {want} is expected"))),
        Next::End | Next::Torn => Err(FrameError::Bad("the record is not whole".to_owned())),
    }
}

/// Decodes a payload whose checksum is good.
///
/// # Errors
/// [`FrameError::Newer`].
pub fn decode<'a, T: serde::Deserialize<'a>>(what: &str, payload: &'a [u8]) -> Result<T, FrameError> {
    pack::read(payload).map_err(|e| FrameError::Newer(format!("{what} does not decode: {e}")))
}

/// Encodes a payload.
///
/// # Errors
/// [`FrameError::Bad`] if it does not encode, which would be a defect.
pub fn encode<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>, FrameError> {
    pack::write(value).map_err(|e| FrameError::Bad(format!("{what} does not encode: {e}")))
}
