//! What an administrator needs to choose between survivors of a lost majority.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ais_ha::Genesis;
use ais_meta::{Kind, Stamp, State, Voter};
use serde::Serialize;

use super::Options;
use crate::disk::frame::{FileKind, FrameError};
use crate::disk::load::{self, Files, Found, Records};
use crate::disk::{DiskError, aside, copies};
use crate::tls::Scheme;

/// A State, in short.
#[derive(Debug, Serialize)]
struct Held {
    stamp: String,
    digest: String,
    cluster: String,
    primary: String,
    electorate: Vec<Seat>,
    members: usize,
    buckets: usize,
    smap_version: u64,
    bmd_version: u64,
}

#[derive(Debug, Serialize)]
struct Seat {
    node_id: String,
    disk_id: String,
    kind: String,
    electable: bool,
    peer: String,
}

impl From<&Voter> for Seat {
    fn from(voter: &Voter) -> Self {
        Self {
            node_id: voter.id.node.to_string(),
            disk_id: voter.id.disk.to_string(),
            kind: voter.kind.to_string(),
            electable: voter.electable,
            peer: voter.addresses.peer.to_string(),
        }
    }
}

impl From<&State> for Held {
    fn from(state: &State) -> Self {
        Self {
            stamp: state.stamp().to_string(),
            digest: state.digest().to_string(),
            cluster: state.uuid().to_string(),
            primary: state.primary().to_string(),
            electorate: state.electorate().iter().map(Seat::from).collect(),
            members: state.nodes().len(),
            buckets: state.buckets().len(),
            smap_version: state.smap().version,
            bmd_version: state.bmd_version(),
        }
    }
}

/// What a disk that reads says.
#[derive(Debug, Serialize)]
struct Disk {
    node_id: String,
    disk_id: String,
    formatted_unix_ms: u64,
    join_only: bool,
    join_cluster: Option<String>,
    run: u64,
    genesis: String,
    incarnation: u32,
    promised: u64,
    voted_for: Option<String>,
    effective_promise: u64,
    accepted: Option<Held>,
    /// Newest State that this disk knows to be committed; a newer one may be.
    committed: Option<String>,
}

/// A copy on a data disk.
#[derive(Debug, Serialize)]
struct CopyHeld {
    mountpath: PathBuf,
    node_id: Option<String>,
    written_unix_ms: Option<u64>,
    committed: Option<Held>,
    problem: Option<String>,
}

/// The whole.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    directory: PathBuf,
    /// `good`, `new`, `damaged`, `not_read` or `copy`.
    verdict: &'static str,
    problem: Option<String>,
    disk: Option<Disk>,
    set_aside: Vec<String>,
    copies: Vec<CopyHeld>,
    /// What to do with it.
    advice: String,
    /// The command, when there is one.
    command: Option<String>,
}

impl Report {
    pub(super) fn new(options: &Options, files: &Files, found: &Result<Found, DiskError>) -> std::io::Result<Self> {
        let directory: &Path = &options.dir;
        let own = directory.join(FileKind::Copy.name()).exists().then(|| directory.to_owned());
        let copies: Vec<CopyHeld> = own.iter().chain(&options.mountpaths).map(|path| copy(path)).collect();
        let (verdict, problem) = match found {
            _ if own.is_some() && files.identity.is_none() => ("copy", None),
            Ok(Found::Good(_)) => ("good", None),
            Ok(Found::Fresh) => ("new", None),
            Ok(Found::Bad(why)) => ("damaged", Some(why.clone())),
            Err(error) => ("not_read", Some(error.to_string())),
        };
        let disk = match found {
            Ok(Found::Good(records)) => Some(disk(records)),
            _ => None,
        };
        let (advice, command) = match found {
            Ok(Found::Good(records)) => advice(records, options.ca_file.as_deref()),
            _ if verdict == "copy" => (COPY_ADVICE.to_owned(), None),
            Ok(Found::Fresh) => ("nothing is lost here: the next start formats it".to_owned(), None),
            Ok(Found::Bad(_)) => {
                ("start the node: it sets the records aside and joins with a new disk id".to_owned(), None)
            }
            Err(_) => ("start it with the version that wrote it, or a newer one".to_owned(), None),
        };
        let set_aside = aside::names(directory)?;
        Ok(Self { directory: directory.to_owned(), verdict, problem, disk, set_aside, copies, advice, command })
    }

    pub(super) fn is_copy_only(&self) -> bool {
        self.verdict == "copy"
    }

    /// What follows the records.
    pub(super) fn print_rest(&self, text: &mut String) -> std::fmt::Result {
        for name in &self.set_aside {
            writeln!(text, "set aside {name}")?;
        }
        for copy in &self.copies {
            let place = copy.mountpath.display();
            match (&copy.committed, &copy.problem) {
                (Some(held), _) => {
                    let (by, at) = (copy.node_id.as_deref().unwrap_or_default(), copy.written_unix_ms.unwrap_or(0));
                    writeln!(
                        text,
                        "copy      {place}: {} of cluster {}, by {by} at {at} (unix ms)",
                        held.stamp, held.cluster
                    )?;
                    writeln!(
                        text,
                        "          {} members, {} buckets, primary {}",
                        held.members, held.buckets, held.primary
                    )?;
                    for seat in &held.electorate {
                        writeln!(
                            text,
                            "          voter  {} {}/{} at {}",
                            seat.kind, seat.node_id, seat.disk_id, seat.peer
                        )?;
                    }
                }
                (None, Some(why)) => writeln!(text, "copy      {place}: DAMAGED: {why}")?,
                (None, None) => writeln!(text, "copy      {place}: none")?,
            }
        }
        writeln!(text, "\nnext      {}", self.advice)?;
        match &self.command {
            Some(command) => writeln!(text, "          {command}"),
            None => Ok(()),
        }
    }
}

const COPY_ADVICE: &str = "a copy never votes: it names the cluster and its members; a node that lost its state directory \
     joins that cluster by itself";

fn copy(mountpath: &Path) -> CopyHeld {
    let mut held = CopyHeld {
        mountpath: mountpath.to_owned(),
        node_id: None,
        written_unix_ms: None,
        committed: None,
        problem: None,
    };
    match copies::read(mountpath) {
        Ok(Some(copy)) => {
            held.node_id = Some(copy.id.node.to_string());
            held.written_unix_ms = Some(copy.written_unix_ms);
            held.committed = Some(Held::from(&copy.state));
        }
        Ok(None) => {}
        Err(FrameError::Bad(why) | FrameError::Newer(why)) => held.problem = Some(why),
    }
    held
}

fn disk(records: &Records) -> Disk {
    let hard = load::hard_state(records);
    let (identity, record) = (&records.identity, &records.vote.record);
    let newest = |stamp: Option<Stamp>| stamp.max(Some(record.committed).filter(|s| *s != Stamp::default()));
    Disk {
        node_id: identity.node.to_string(),
        disk_id: records.disk.to_string(),
        formatted_unix_ms: identity.formatted_unix_ms,
        join_only: hard.genesis == Genesis::JoinOnly,
        join_cluster: identity.cluster.as_ref().filter(|_| hard.genesis == Genesis::JoinOnly).map(ToString::to_string),
        run: record.run,
        genesis: format!("{:?}", hard.genesis),
        incarnation: record.vote.incarnation,
        promised: record.vote.promised,
        voted_for: record.vote.voted_for.as_ref().map(ToString::to_string),
        effective_promise: hard.vote.promised,
        accepted: hard.accepted.as_deref().map(Held::from),
        committed: newest(hard.committed.as_ref().map(|s| s.stamp())).map(|s| s.to_string()),
    }
}

/// What an administrator may do with it: only one whose majority is lost for good has anything to do at all.
fn advice(records: &Records, ca_file: Option<&Path>) -> (String, Option<String>) {
    let hard = load::hard_state(records);
    let start = |why: &str| (format!("start the node: {why}"), None);
    let state = match (&hard.genesis, hard.accepted) {
        (Genesis::Formed(_), Some(state)) => state,
        (Genesis::Formed(_), None) => return start("it holds no State and asks the others for it"),
        (Genesis::JoinOnly, _) => return start("it joins a formed cluster"),
        (Genesis::Ended(end), _) => {
            return start(&format!(
                "cluster {} was decommissioned by {}; with another uuid this is a new disk",
                end.uuid, end.stamp
            ));
        }
        _ => return start("it belongs to no formed cluster yet"),
    };
    let stamp = state.stamp();
    let node = &records.identity.node;
    let voter = Voter {
        id: ais_meta::VoterId::new(node.clone(), records.disk),
        ..match find(&state, node) {
            Some(found) => found,
            None => return start("it is no member of the State that it holds"),
        }
    };
    if voter.kind == Kind::Target || !voter.electable {
        return start(&format!(
            "it cannot lead. Only if a majority of the voters is lost for good: compare its stamp {stamp} with those of the other survivors, start all of them, and recover at an electable gateway"
        ));
    }
    let text = format!(
        "start the node; with a majority of the voters above, that is all. Only if a majority is lost for good, and {stamp} is the highest stamp of all survivors (run inspect on each; higher incarnation, then epoch, then sequence), start the survivors and confirm it:"
    );
    let control = &voter.addresses.control;
    let (scheme, ca) = match ca_file {
        Some(file) => (Scheme::Https, format!(" --ca-file {}", file.display())),
        None => (Scheme::Http, String::new()),
    };
    (text, Some(format!("ais-node recover {scheme}://{control} --stamp {stamp} --secret-file FILE{ca}")))
}

fn find(state: &State, node: &ais_meta::NodeId) -> Option<Voter> {
    let member = state.nodes().get(node).map(|member| Voter::from(&**member));
    member.or_else(|| state.electorate().iter().find(|voter| voter.id.node == *node).cloned())
}
