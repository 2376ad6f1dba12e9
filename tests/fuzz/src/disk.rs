//! Files of the state directory.

use std::path::PathBuf;

use ais_ha::{Ended, Genesis, Offer, Vote};
use ais_meta::{DiskId, MemberOptions, Stamp, State};
use ais_node::disk::copies::{self, CopiesError};
use ais_node::disk::frame::{self, FileKind, FrameError, Header};
use ais_node::disk::vote::Record;
use ais_node::disk::{Identity, small, states, vote as votes};
use arbitrary::Unstructured;

use crate::state;

const BLOCK: usize = 4096;
const DISK: DiskId = DiskId(7);

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    frame::encode("fuzz", value).expect("a value encodes")
}

/// Payloads of the input, each with a kind: kind, length (two bytes), bytes.
fn records(data: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = Unstructured::new(data);
    let mut records = Vec::new();
    // At its end the input gives zeros for ever.
    while !rest.is_empty() {
        let (Ok(kind), Ok(length)) = (rest.arbitrary::<u8>(), rest.arbitrary::<u16>()) else { break };
        let length = usize::from(length).min(rest.len());
        records.push((kind, rest.bytes(length).unwrap_or_default().to_vec()));
    }
    records
}

fn input(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    records.iter().fold(Vec::new(), |mut bytes, (kind, payload)| {
        bytes.push(*kind);
        bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    })
}

/// A vote file whose slots hold the input's payloads with good checksums; a payload too long for its slot leaves it
/// empty.
fn vote_file(slots: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = Header { disk: DISK, generation: 0 }.encode(FileKind::Vote).to_vec();
    file.resize(BLOCK, 0);
    for slot in 0..4 {
        let mut block = Vec::new();
        if let Some((kind, payload)) = slots.get(slot) {
            frame::push_record(&mut block, *kind, payload).expect("short");
        }
        if block.len() > BLOCK {
            block.clear();
        }
        block.resize(BLOCK, 0);
        file.extend_from_slice(&block);
    }
    file
}

pub(crate) fn vote(data: &[u8]) {
    if let Ok(parsed) = votes::parse(&vote_file(&records(data))) {
        let again: Record = frame::decode("vote", &pack(&parsed.record)).expect("what was read is written and read");
        assert_eq!(again, parsed.record);
    }
}

fn vote_record(counter: u64) -> Record {
    let vote = Vote { promised: 4, voted_for: Some(state::member(1).voter_id()), ..Vote::default() };
    Record { counter, run: 3, vote, committed: Stamp::new(0, 4, 9), state_generation: 1, state_length: 500 }
}

pub(crate) fn vote_seeds() -> Vec<Vec<u8>> {
    let slot = |counter| (frame::kind::VOTE, pack(&vote_record(counter)));
    vec![input(&[slot(1)]), input(&[slot(1), slot(1), slot(2), slot(2)]), input(&[slot(0), (9, vec![])])]
}

/// A state file with good checksums: what it says is replayed.
fn state_file(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = Header { disk: DISK, generation: 1 }.encode(FileKind::State).to_vec();
    for (kind, payload) in records {
        frame::push_record(&mut file, *kind, payload).expect("short");
    }
    file
}

pub(crate) fn state(data: &[u8]) {
    let mut records = records(data);
    state::mend(&mut records);
    let file = state_file(&records);
    let Ok(parsed) = states::parse(&file, Stamp::new(0, 1, 2)) else { return };
    assert_eq!(parsed.length, file.len() as u64, "a whole file is read to its end");
    let Some(accepted) = &parsed.accepted else { return };
    state::assert_reloads(accepted);
    // A crash in the middle of the last append loses that append and nothing else.
    let cut = &file[..file.len() - 1];
    let torn = states::parse(cut, Stamp::default()).expect("a torn tail is cut off");
    assert_eq!(torn.records, parsed.records[..parsed.records.len() - 1]);
}

pub(crate) fn state_seeds() -> Vec<Vec<u8>> {
    let (base, delta) = (state::base(), state::next().1);
    let full = |kind, state: &State| (kind, pack(&state.full()));
    vec![
        input(&[full(frame::kind::FULL, &base)]),
        input(&[full(frame::kind::COMMITTED, &base), (frame::kind::DELTA, pack(&delta))]),
    ]
}

pub(crate) fn raw(data: &[u8]) {
    let _ = votes::parse(data);
    let _ = states::parse(data, Stamp::default());
    let _ = small::parse_value::<Identity>(data, FileKind::Identity, frame::kind::IDENTITY);
    let _ = small::parse_value::<Genesis>(data, FileKind::Genesis, frame::kind::GENESIS);
    let _ = copies::parse(data);
    // Whatever stands there, reading on ends.
    let mut at = 0;
    while let Ok(frame::Next::Record { end, .. }) = frame::next_record(data, at) {
        assert!(end > at && end <= data.len());
        at = end;
    }
}

pub(crate) fn raw_seeds() -> Vec<Vec<u8>> {
    let mut genesis = Header { disk: DISK, generation: 0 }.encode(FileKind::Genesis).to_vec();
    frame::push_record(&mut genesis, frame::kind::GENESIS, &pack(&Genesis::Unformed)).expect("short");
    let records = [(frame::kind::FULL, pack(&state::base().full()))];
    vec![genesis, state_file(&records), state_file(&[]), written_copy()]
}

fn small_value<T>(file: FileKind, kind: u8, payload: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut bytes = Header { disk: DISK, generation: 0 }.encode(file).to_vec();
    frame::push_record(&mut bytes, kind, payload).expect("short");
    if let Ok((disk, value)) = small::parse_value::<T>(&bytes, file, kind) {
        assert_eq!(disk, DISK);
        let again: T = frame::decode("again", &pack(&value)).expect("what was read is written and read");
        assert_eq!(again, value);
    }
}

pub(crate) fn small(data: &[u8]) {
    small_value::<Identity>(FileKind::Identity, frame::kind::IDENTITY, data);
    small_value::<Genesis>(FileKind::Genesis, frame::kind::GENESIS, data);
}

pub(crate) fn small_seeds() -> Vec<Vec<u8>> {
    let voters: Vec<_> = (1..=3).map(|i| state::member(i).voter_id()).collect();
    let offer = Offer { number: 1, uuid: state::uuid(), founder: voters[0].clone(), voters };
    let identity =
        Identity { node: state::member(1).id, formatted_unix_ms: 1, join_only: false, cluster: Some(state::uuid()) };
    let ended = |keep_initial_config, no_shutdown| {
        let options = MemberOptions { keep_initial_config, no_shutdown, ..MemberOptions::default() };
        Genesis::Ended(Ended { uuid: state::uuid(), stamp: Stamp::new(0, 4, 9), options })
    };
    let forms = [
        Genesis::Unformed,
        Genesis::Bound(offer.clone()),
        Genesis::Offered(offer),
        Genesis::JoinOnly,
        Genesis::Formed(state::uuid()),
        ended(false, false),
        ended(true, true),
    ];
    let mut seeds: Vec<_> = forms.iter().map(pack).collect();
    seeds.push(pack(&identity));
    seeds
}

/// A folder that stands for a data disk; one per thread.
fn mountpath(name: &str) -> PathBuf {
    let folder = format!("ais-fuzz-{}-{:?}-{name}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&path).expect("the temporary folder can be written");
    path
}

/// A copy as the product writes it.
fn written_copy() -> Vec<u8> {
    let disk = mountpath("seed");
    copies::write(&disk, &state::member(4).voter_id(), &state::base()).expect("it can be written");
    let bytes = std::fs::read(disk.join(FileKind::Copy.name())).expect("it is there");
    std::fs::remove_dir_all(disk).expect("it is there");
    bytes
}

/// A copy with good checksums and digests: which cluster a node with an empty state directory belongs to hangs on it.
pub(crate) fn copy(data: &[u8]) {
    let mut records = records(data);
    if let Some((_, rest)) = records.split_first_mut() {
        state::mend(rest);
    }
    let mut file = Header { disk: DISK, generation: 0 }.encode(FileKind::Copy).to_vec();
    for (kind, payload) in &records {
        frame::push_record(&mut file, *kind, payload).expect("short");
    }
    let parsed = copies::parse(&file);

    let disk = mountpath("disk");
    std::fs::write(disk.join(FileKind::Copy.name()), &file).expect("it can be written");
    let recalled = copies::recall(std::slice::from_ref(&disk));
    std::fs::remove_dir_all(disk).expect("it is there");
    match (&parsed, recalled) {
        (Ok(copy), Ok(Some(remembered))) => {
            state::assert_reloads(&copy.state);
            assert_eq!((copy.id.disk, copy.state.uuid()), (DISK, &remembered.uuid));
            assert!(remembered.peers.iter().all(|peer| peer.id.node != copy.id.node), "nobody asks itself");
        }
        // The next commit writes it anew; a newer program's is left alone.
        (Err(FrameError::Bad(_)), Ok(None)) | (Err(FrameError::Newer(_)), Err(CopiesError::Newer(..))) => {}
        (parsed, recalled) => panic!("read as {parsed:?}, remembered as {recalled:?}"),
    }
}

pub(crate) fn copy_seeds() -> Vec<Vec<u8>> {
    let written = written_copy();
    let (mut records, mut at) = (Vec::new(), frame::HEADER);
    while let Ok(frame::Next::Record { kind, payload, end }) = frame::next_record(&written, at) {
        records.push((kind, payload.to_vec()));
        at = end;
    }
    assert_eq!(records.len(), 2, "who wrote it, and a State");
    let origin = input(&records[..1]);
    vec![input(&records), origin, input(&[records[1].clone()]), input(&[records.clone(), records].concat())]
}
