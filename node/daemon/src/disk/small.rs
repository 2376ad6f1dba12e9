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

/// Removes what was written aside; fine when there is nothing.
///
/// # Errors
/// IO.
pub fn discard(directory: &Path, file: FileKind) -> io::Result<()> {
    match fs::remove_file(aside(directory, file)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes `bytes` aside, durably. After an error the file itself is as it was, and the room is given back.
///
/// # Errors
/// IO.
pub fn prepare(directory: &Path, file: FileKind, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut out = File::create(aside(directory, file))?;
        out.write_all(bytes)?;
        out.sync_all()
    };
    write().inspect_err(|_| drop(discard(directory, file)))
}

/// Puts what was prepared in place of the file. After an error it is open which one has the name.
///
/// # Errors
/// IO.
pub fn put(directory: &Path, file: FileKind) -> io::Result<PathBuf> {
    let path = directory.join(file.name());
    fs::rename(aside(directory, file), &path)?;
    sync_directory(directory)?;
    Ok(path)
}

/// Puts `bytes` in place of the file, durably, or leaves the old one.
///
/// # Errors
/// IO.
pub fn replace(directory: &Path, file: FileKind, bytes: &[u8]) -> io::Result<PathBuf> {
    prepare(directory, file, bytes)?;
    put(directory, file)
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
