//! `ais-node inspect DIR`: the records of a stopped node, for people, and as JSON for programs. Never writes.
//!
//! `DIR` is a state directory, or a data disk that holds a copy of the metadata. With `--mountpath` the copies beside a
//! state directory are shown as well.

mod report;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::disk::frame::{self, FileKind, FrameError};
use crate::disk::load::{self, Files, Found, Records};
use crate::disk::{DiskError, Identity, Lock, small, states, vote};
use report::Report;

/// `ais-node inspect`
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// The node's state directory, or a data disk that holds a copy.
    pub dir: PathBuf,
    /// Data disks whose copies are shown as well.
    #[arg(long = "mountpath")]
    pub mountpaths: Vec<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// File with the authorities behind the cluster's certificates, where it has TLS: the records do not tell, and the
    /// command that they lead to is another one then.
    #[arg(long, env = "AIS_TLS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
}

/// What to print: lines, or one JSON object.
///
/// # Errors
/// No directory, or a process uses it.
pub fn inspect(options: &Options) -> anyhow::Result<String> {
    let directory: &Path = &options.dir;
    if !directory.is_dir() {
        bail!("{} is not a directory", directory.display());
    }
    let lock = Lock::shared(directory).context("stop the node first")?;
    let files = Files::read(directory)?;
    let found = load::examine(&files);
    let report = Report::new(options, &files, &found)?;
    if options.json {
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    let mut text = String::new();
    if !report.is_copy_only() {
        records(&mut text, &files, found)?;
    }
    report.print_rest(&mut text)?;
    drop(lock);
    Ok(text)
}

fn records(text: &mut String, files: &Files, found: Result<Found, DiskError>) -> std::fmt::Result {
    match found {
        Ok(Found::Good(records)) => good(text, &records),
        Ok(Found::Fresh) => writeln!(text, "nothing: the next start formats it"),
        Ok(Found::Bad(why)) => {
            writeln!(text, "DAMAGED: {why}\nthe next start sets the records aside and may only join\n")?;
            each(text, files)
        }
        Err(error) => {
            writeln!(text, "NOT READ: {error}\n")?;
            each(text, files)
        }
    }
}

fn good(text: &mut String, records: &Records) -> std::fmt::Result {
    let hard = load::hard_state(records);
    identity(text, &records.identity, records.disk)?;
    writeln!(text, "genesis   {:?}", hard.genesis)?;
    vote_lines(text, &records.vote)?;
    let promise = &hard.vote;
    let voted_for = promise.voted_for.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    writeln!(text, "effective promise {} for {voted_for}", promise.promised)?;
    state_lines(text, &records.state)
}

fn identity(text: &mut String, identity: &Identity, disk: ais_meta::DiskId) -> std::fmt::Result {
    let cluster = identity.cluster.as_ref().map(|c| format!(" of cluster {c}")).unwrap_or_default();
    let replaced = if identity.join_only { format!(", in place of a lost one{cluster}") } else { String::new() };
    writeln!(
        text,
        "identity  {}/{disk}, formatted at {} (unix ms){replaced}",
        identity.node, identity.formatted_unix_ms
    )
}

fn vote_lines(text: &mut String, parsed: &vote::Parsed) -> std::fmt::Result {
    let record = &parsed.record;
    let voted_for = record.vote.voted_for.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    writeln!(
        text,
        "vote      run {}, promised {} for {voted_for}, incarnation {}",
        record.run, record.vote.promised, record.vote.incarnation
    )?;
    writeln!(
        text,
        "          committed {} (may lag), write {}, {} slots do not read",
        record.committed, record.counter, parsed.bad_slots
    )
}

fn state_lines(text: &mut String, parsed: &states::Parsed) -> std::fmt::Result {
    writeln!(
        text,
        "state     generation {}, {} bytes, {} bytes of a torn append",
        parsed.generation, parsed.length, parsed.torn_bytes
    )?;
    // Changes come by the thousand: one line for those between two whole States.
    for run in parsed.records.chunk_by(|a, b| a.0 == frame::kind::DELTA && b.0 == frame::kind::DELTA) {
        let bytes: usize = run.iter().map(|(_, bytes, _)| bytes).sum();
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let what = match first.0 {
            frame::kind::FULL => format!("{} whole", first.2),
            frame::kind::COMMITTED => format!("{} whole, committed", first.2),
            _ if run.len() == 1 => format!("{} change", first.2),
            _ => format!("{} to {}, {} changes", first.2, last.2, run.len()),
        };
        writeln!(text, "          {bytes:>9} bytes  {what}")?;
    }
    let stamp = parsed.committed.as_ref().map_or_else(|| "none known".to_owned(), |s| s.stamp().to_string());
    writeln!(text, "committed {stamp}")?;
    let Some(state) = &parsed.accepted else { return writeln!(text, "accepted  none") };
    writeln!(text, "accepted  {} digest {} of cluster {}", state.stamp(), state.digest(), state.uuid())?;
    writeln!(
        text,
        "          primary {} run {}, smap v{}, bmd v{}, {} buckets",
        state.primary(),
        state.head().run,
        state.smap().version,
        state.bmd_version(),
        state.buckets().len()
    )?;
    for voter in state.electorate() {
        writeln!(text, "          voter  {} {} at {}", voter.kind, voter.id, voter.addresses.peer)?;
    }
    for node in state.nodes().values() {
        writeln!(
            text,
            "          member {} {} run {} flags {} at {}",
            node.kind,
            node.voter_id(),
            node.run,
            node.flags,
            node.addresses.peer
        )?;
    }
    Ok(())
}

/// Reads one file's bytes into lines.
type Reader<'a> = &'a dyn Fn(&[u8], &mut String) -> Result<(), FrameError>;

/// Each file for itself.
fn each(text: &mut String, files: &Files) -> std::fmt::Result {
    let mut say = |file: FileKind, bytes: Option<&Vec<u8>>, read: Reader<'_>| {
        let Some(bytes) = bytes else { return writeln!(text, "{:<9} no such file", file.name()) };
        let mut lines = String::new();
        match read(bytes, &mut lines) {
            Ok(()) => text.write_str(&lines),
            Err(error) => writeln!(text, "{:<9} {} bytes: {error}", file.name(), bytes.len()),
        }
    };
    say(FileKind::Identity, files.identity.as_ref(), &|bytes, out| {
        let (disk, found) = small::parse_value::<Identity>(bytes, FileKind::Identity, frame::kind::IDENTITY)?;
        identity(out, &found, disk).map_err(|_| FrameError::Bad(String::new()))
    })?;
    say(FileKind::Vote, files.vote.as_ref(), &|bytes, out| {
        vote_lines(out, &vote::parse(bytes)?).map_err(|_| FrameError::Bad(String::new()))
    })?;
    say(FileKind::Genesis, files.genesis.as_ref(), &|bytes, out| {
        let (disk, genesis) = small::parse_value::<ais_ha::Genesis>(bytes, FileKind::Genesis, frame::kind::GENESIS)?;
        writeln!(out, "genesis   {genesis:?} of disk {disk}").map_err(|_| FrameError::Bad(String::new()))
    })?;
    say(FileKind::State, files.state.as_ref(), &|bytes, out| {
        state_lines(out, &states::parse(bytes, ais_meta::Stamp::default())?).map_err(|_| FrameError::Bad(String::new()))
    })
}
