//! Files that are replaced as a whole: write aside, sync, rename, sync the directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ais_meta::DiskId;
use serde::{Serialize, de::DeserializeOwned};

use super::frame::{self, FileKind, FrameError, Header};

/// Makes names in the directory durable.
///
/// # Errors
/// IO.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Where a file is written before it takes its name.
#[must_use]
pub fn aside(directory: &Path, file: FileKind) -> PathBuf {
    directory.join(format!("{}.tmp", file.name()))
}

/// Puts `bytes` in place of the file, durably, or leaves the old one.
///
/// # Errors
/// IO.
pub fn replace(directory: &Path, file: FileKind, bytes: &[u8]) -> io::Result<PathBuf> {
    let (temporary, path) = (aside(directory, file), directory.join(file.name()));
    let mut out = File::create(&temporary)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&temporary, &path)?;
    sync_directory(directory)?;
    Ok(path)
}

/// Puts a value in place of the file.
///
/// # Errors
/// IO.
pub fn replace_value<T: Serialize>(
    directory: &Path,
    file: FileKind,
    kind: u8,
    disk: DiskId,
    value: &T,
) -> io::Result<()> {
    let mut bytes = Header { disk, generation: 0 }.encode(file).to_vec();
    let payload = frame::encode(file.name(), value).map_err(io::Error::other)?;
    frame::push_record(&mut bytes, kind, &payload).map_err(io::Error::other)?;
    replace(directory, file, &bytes).map(drop)
}

/// Reads such a file's bytes.
///
/// # Errors
/// [`FrameError`].
pub fn parse_value<T: DeserializeOwned>(bytes: &[u8], file: FileKind, kind: u8) -> Result<(DiskId, T), FrameError> {
    let header = Header::decode(file, bytes)?;
    let payload = frame::only_record(bytes, frame::HEADER, kind)?;
    if bytes.len() != frame::HEADER + payload.len() + frame::OVERHEAD {
        return Err(FrameError::Bad(format!("bytes after the record of file '{}'", file.name())));
    }
    Ok((header.disk, frame::decode(file.name(), payload)?))
}
